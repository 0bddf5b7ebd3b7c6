//! Vsock listeners: where the host comes in.

use rustix::{
    fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    net::{AddressFamily, SocketFlags, SocketType, accept_with, listen, socket_with},
};
use std::{fs::File, io};

/// Connections of the host that wait to be accepted; more are refused by the kernel, and the host sees a closed stream.
const BACKLOG: i32 = 1024;
/// Any address: the host is the only one who can reach us.
const VMADDR_CID_ANY: u32 = u32::MAX;

/// A listening vsock port.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Listens on a port, without blocking.
    pub(crate) fn bind(port: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
        let address = libc::sockaddr_vm {
            svm_family: libc::AF_VSOCK as libc::sa_family_t,
            svm_reserved1: 0,
            svm_port: port,
            svm_cid: VMADDR_CID_ANY,
            svm_zero: [0; 4],
        };
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// The next connection, if there is one; it does not block either.
    pub(crate) fn accept(&self) -> Option<File> {
        // Whatever went wrong with one connection is the host's to notice.
        accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok().map(File::from)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
