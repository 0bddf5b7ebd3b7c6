//! The control socket: how a supervisor and a machine monitor talk.
//!
//! One `SOCK_SEQPACKET` pair per microVM. The monitor's end is its standard input, so that passing
//! it needs no name, no path and no agreed descriptor number. A packet is one postcard-encoded
//! message, descriptors travel beside it (`SCM_RIGHTS`). The first byte of every packet is
//! [`VERSION`]: the two programs are installed together, and a mix says so instead of guessing.
//!
//! There is nothing to clean up after a kill of either side: no paths, no listening sockets. The
//! end of the socket is the end of the machine.

use crate::{
    config::{Config, Restore, Shape},
    statistics::Statistics,
    working_set::WorkingSet,
};
use guest_protocol::record::Record;
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Version of the messages below.
pub const VERSION: u8 = 5;

/// Longest packet, bytes. A working set takes most of it, a configuration of [`crate::config::MAX_DISKS`] disks a twentieth.
pub const MAX_PACKET_BYTES: usize = 40 * 1024;

/// Most descriptors beside one packet: kernel, initramfs, every disk and tap, the console.
pub const MAX_DESCRIPTORS: usize = crate::config::MAX_DISKS + crate::config::MAX_NETS + 3;

/// Supervisor to monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make what a machine of that shape needs, and wait for one of the next two. First, or not at all.
    Prepare(Shape),
    /// Build this machine and run it. Descriptors: [`Config::descriptors`]. Once.
    Start(Config),
    /// Make a clone of a snapshot and run it. Descriptors: [`Config::restore_descriptors`]. Instead of `Start`.
    Restore(Restore),
    /// After [`Notice::Frozen`]: copy the machine into these files, which are empty and, the first, as long as its memory. Two descriptors:
    /// memory and state, writable. Answered with [`Notice::Copied`] or [`Notice::NotCopied`]; the machine stands still either way.
    Snapshot,
    /// After [`Notice::Frozen`]: go on as the machine of this record.
    Resume(Record),
    /// What a clone that is watched has touched so far; answered with [`Notice::WorkingSet`].
    TellWorkingSet,
    /// Connect this end of a stream to a port of the guest. One descriptor. When the guest refuses
    /// or resets the connection, the descriptor is closed.
    Connect {
        /// The guest's vsock port.
        port: u32,
    },
    /// End now: the guest is not asked.
    Stop,
}

/// Monitor to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The monitor is now another process, a child of the supervisor that must be waited for; the one that was started ends.
    /// One descriptor: the process ([`crate::jail`]). First, and once.
    Jailed {
        /// Its number in the supervisor's namespace.
        process_id: u32,
    },
    /// The guest rang; see [`guest_protocol::doorbell`].
    Doorbell {
        /// The word it wrote.
        word: u32,
    },
    /// The guest stands still at [`guest_protocol::doorbell::FREEZE`] and may be copied.
    Frozen,
    /// The copy is made.
    Copied {
        /// Bytes of memory that are not zero.
        memory_bytes: u64,
    },
    /// There is no copy, for this reason.
    NotCopied(String),
    /// What the clone has touched; nothing when it is not watched.
    WorkingSet(WorkingSet),
    /// The guest connected to a port of the host. One descriptor: the stream.
    Accepted {
        /// The host's vsock port.
        port: u32,
    },
    /// The machine has ended; the last packet.
    Ended {
        /// Why.
        cause: Cause,
        /// What it did.
        statistics: Statistics,
    },
}

/// Why a machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The guest rang the exit doorbell with this status.
    Exit(u8),
    /// The guest reset or shut itself down, or its processor gave up (triple fault): a panic ends here.
    Reset,
    /// [`Request::Stop`], or the supervisor went away.
    Stopped,
    /// The machine could not be built or could not go on; the reason is for an operator's log.
    Failed(String),
}

/// Why a packet could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The other side is gone.
    #[error("the other side of the control socket is gone")]
    Closed,
    /// The socket failed.
    #[error("the control socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The other side speaks another version.
    #[error(
        "the other side speaks version {0} of the control protocol, this one speaks {VERSION}: install crn and vmm together"
    )]
    Version(u8),
    /// The packet is not one of ours.
    #[error("a control packet does not decode: {0}")]
    Malformed(#[from] postcard::Error),
    /// The packet or its descriptors were cut: larger than any of ours.
    #[error("a control packet is larger than any valid one")]
    Truncated,
    /// A message with more in it than a packet holds.
    #[error("a control packet of {0} bytes is over the limit of {MAX_PACKET_BYTES}")]
    TooLong(usize),
}

/// Bytes of ancillary data that [`MAX_DESCRIPTORS`] descriptors take.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Sends one message with descriptors beside it. Blocks when the socket blocks.
///
/// # Errors
/// [`ControlError::Closed`] when nobody listens; `Socket(WouldBlock)` on a full non-blocking socket.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
    let packet = postcard::to_extend(message, vec![VERSION])?;
    if packet.len() > MAX_PACKET_BYTES {
        return Err(ControlError::TooLong(packet.len()));
    }
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ControlError::Truncated);
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                return Err(ControlError::Closed);
            }
            Err(error) => return Err(ControlError::Socket(error.into())),
        }
    }
}

/// Receives one message with the descriptors beside it (close-on-exec). Blocks when the socket does.
///
/// # Errors
/// [`ControlError::Closed`] at the end; `Socket(WouldBlock)` on an empty non-blocking socket; else
/// what is wrong with the packet.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), ControlError> {
    let mut packet = vec![0; MAX_PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut packet)];
        match recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN) => {
                return Err(ControlError::Closed);
            }
            Err(error) => return Err(ControlError::Socket(error.into())),
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(ControlError::Truncated);
    }
    match packet.get(..received.bytes) {
        // A packet is never empty, so nothing means the end.
        Some([]) | None => Err(ControlError::Closed),
        Some([VERSION, body @ ..]) => Ok((postcard::from_bytes(body)?, descriptors)),
        Some([version, ..]) => Err(ControlError::Version(*version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Disk;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::{
        fs::File,
        io::{Read as _, Seek as _, Write as _},
    };

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket pair")
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (ours, theirs) = pair();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"kernel").expect("a write");
        let mut config = Config::new(128, 2);
        config.disks.push(Disk { read_only: true });
        send(&ours, &Request::Start(config.clone()), &[file.as_fd(), ours.as_fd()]).expect("sent");
        let (request, mut descriptors) = receive::<Request>(&theirs).expect("received");
        assert_eq!(request, Request::Start(config));
        assert_eq!(descriptors.len(), 2);
        let mut received = File::from(descriptors.remove(0));
        received.rewind().expect("a seek");
        let mut text = String::new();
        received.read_to_string(&mut text).expect("a read");
        assert_eq!(text, "kernel");
    }

    #[test]
    fn the_end_of_the_other_side_is_the_end() {
        let (ours, theirs) = pair();
        drop(ours);
        assert!(matches!(receive::<Request>(&theirs), Err(ControlError::Closed)));
        assert!(matches!(send(&theirs, &Request::Stop, &[]), Err(ControlError::Closed)));
    }

    #[test]
    fn another_version_is_named() {
        let (ours, theirs) = pair();
        rustix::io::write(&ours, &[VERSION + 1, 2]).expect("a write");
        assert!(matches!(receive::<Request>(&theirs), Err(ControlError::Version(version)) if version == VERSION + 1));
    }

    #[test]
    fn a_packet_that_was_cut_is_refused() {
        let (ours, theirs) = pair();
        rustix::io::write(&ours, &vec![VERSION; MAX_PACKET_BYTES + 1]).expect("a write");
        assert!(matches!(receive::<Request>(&theirs), Err(ControlError::Truncated)));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_packets_do_no_harm(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            bytes.insert(0, VERSION);
            let (ours, theirs) = pair();
            rustix::io::write(&ours, &bytes).expect("a write");
            // Whatever it is, it is answered by a value or a precise error.
            let _ = receive::<Request>(&theirs);
        }
    }
}
