//! A tap: the host's end of the card, as a descriptor (Linux's `Documentation/networking/tuntap.rst`).

use super::{
    device::Wire,
    header::{HEADER_BYTES, Offloads},
};
use std::{
    ffi::{c_char, c_int, c_short, c_uint},
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

/// What opens as a tap, and its device number.
const DEVICE: &str = "/dev/net/tun";
const DEVICE_NUMBER: (u32, u32) = (10, 200);

/// What a tap must be: of Ethernet frames, with virtio's header before each and nothing else.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// An open tap.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Takes a tap that somebody has made, with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
    ///
    /// # Errors
    /// The descriptor is no such tap.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let other = || io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is no tap with virtio's headers");
        let number = rustix::fs::fstat(&descriptor)?.st_rdev;
        if (rustix::fs::major(number), rustix::fs::minor(number)) != DEVICE_NUMBER {
            return Err(other());
        }
        let file = File::from(descriptor);
        let mut request = interface("")?;
        // SAFETY: the descriptor is of the driver of taps, for which TUNGETIFF writes one `ifreq`, which `request` is.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
        // SAFETY: the call has filled the flags in, and any bytes are flags.
        let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        if flags & FLAGS != FLAGS {
            return Err(other());
        }
        let length = c_int::try_from(HEADER_BYTES).map_err(io::Error::other)?;
        // SAFETY: TUNSETVNETHDRSZ reads one `int`.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) })?;
        rustix::io::ioctl_fionbio(&file, true)?;
        Ok(Self(file))
    }

    /// Opens the tap of that name, or makes one that ends with the descriptor.
    ///
    /// # Errors
    /// The host has no taps, this process may not have one, or it is in use.
    pub fn open(name: &str) -> io::Result<OwnedFd> {
        let file = File::options().read(true).write(true).open(DEVICE)?;
        let mut request = interface(name)?;
        request.ifr_ifru.ifru_flags = c_short::try_from(FLAGS).map_err(io::Error::other)?;
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
        Ok(file.into())
    }
}

/// A request about the interface of that name.
fn interface(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= libc::IFNAMSIZ || !name.is_ascii() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name of an interface has up to 15 characters"));
    }
    // SAFETY: all zeros are an `ifreq`: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Wire for Tap {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        // A tap takes a frame whole or not at all.
        self.0.write(frame).map(|_| ())
    }

    fn agree(&mut self, offloads: Offloads) -> io::Result<()> {
        let flag = |agreed: bool, flag: c_uint| if agreed { flag } else { 0 };
        let flags = flag(offloads.guest_checksum, libc::TUN_F_CSUM)
            | flag(offloads.guest_tcp4, libc::TUN_F_TSO4)
            | flag(offloads.guest_tcp6, libc::TUN_F_TSO6);
        // SAFETY: TUNSETOFFLOAD takes its argument as a number and reads no memory.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[cfg(test)]
mod tests;
