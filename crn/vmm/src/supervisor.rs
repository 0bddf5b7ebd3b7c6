//! The other side of the control socket: how a compute node starts, talks to and ends a machine.

use crate::{
    config::{Config, Restore, Shape},
    control::{self, ControlError, Notice, Request},
    jail::Place,
};
use guest_protocol::record::Record;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

/// The word on the command line that makes the program take its orders from standard input.
pub const SUPERVISED: &str = "supervised";

/// A connection to one machine monitor. Clones share it.
///
/// When the last clone is dropped, or its process dies by any means, the machine ends.
#[derive(Debug, Clone)]
pub struct Link {
    socket: Arc<OwnedFd>,
}

/// Starts a monitor that waits for [`Link::start`] or [`Link::restore`], in that place. Its log goes to `log`.
///
/// The child that is returned only makes the monitor, then ends: its first notice ([`Notice::Jailed`]) hands over another child.
///
/// # Errors
/// The program does not start.
pub fn spawn(program: &Path, place: &Place, log: Stdio) -> io::Result<(Link, Child)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let child = Command::new(program)
        .arg(SUPERVISED)
        .args(place.arguments())
        // A terminal's Ctrl-C is for the supervisor, which lets calls end first.
        .process_group(0)
        // What runs beside a guest knows nothing of its surroundings.
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    Ok((Link { socket: Arc::new(ours) }, child))
}

impl Link {
    /// Has the monitor make in advance what a machine of that shape needs.
    ///
    /// # Errors
    /// The monitor is gone, or the socket is non-blocking and full.
    pub fn prepare(&self, shape: Shape) -> Result<(), ControlError> {
        control::send(&self.socket, &Request::Prepare(shape), &[])
    }

    /// Makes a clone and runs it; `descriptors` are those of [`Config::restore_descriptors`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restore(&self, restore: &Restore, descriptors: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        control::send(&self.socket, &Request::Restore(restore.clone()), descriptors)
    }

    /// Has a machine that stands still copied into two files, the first as long as its memory, both otherwise empty.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn snapshot(&self, memory: BorrowedFd<'_>, state: BorrowedFd<'_>) -> Result<(), ControlError> {
        control::send(&self.socket, &Request::Snapshot, &[memory, state])
    }

    /// Asks a clone that is watched what it has touched.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn ask_working_set(&self) -> Result<(), ControlError> {
        control::send(&self.socket, &Request::TellWorkingSet, &[])
    }

    /// Has a machine that stands still go on as the one of this record.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn resume(&self, record: Record) -> Result<(), ControlError> {
        control::send(&self.socket, &Request::Resume(record), &[])
    }

    /// Builds and runs the machine; `descriptors` are those of [`Config::descriptors`].
    ///
    /// # Errors
    /// The monitor is gone, or the socket is non-blocking and full.
    pub fn start(&self, config: &Config, descriptors: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        control::send(&self.socket, &Request::Start(config.clone()), descriptors)
    }

    /// Asks for a stream to a port of the guest. It ends at once when the guest refuses.
    ///
    /// # Errors
    /// The monitor is gone, or the socket is non-blocking and full (`WouldBlock`: wait until it is writable).
    pub fn connect(&self, port: u32) -> Result<UnixStream, ControlError> {
        let (ours, theirs) = UnixStream::pair()?;
        control::send(&self.socket, &Request::Connect { port }, &[theirs.as_fd()])?;
        Ok(ours)
    }

    /// Ends the machine without asking the guest.
    ///
    /// # Errors
    /// The monitor is gone.
    pub fn stop(&self) -> Result<(), ControlError> {
        control::send(&self.socket, &Request::Stop, &[])
    }

    /// Says that no orders follow, which ends the monitor. What it still says can be read.
    ///
    /// # Errors
    /// The monitor is gone.
    pub fn hang_up(&self) -> io::Result<()> {
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write)?;
        Ok(())
    }

    /// The next notice, and the descriptor that comes with [`Notice::Accepted`] and [`Notice::Jailed`].
    ///
    /// # Errors
    /// [`ControlError::Closed`] once the monitor is gone; `WouldBlock` on a non-blocking socket without notice.
    pub fn notice(&self) -> Result<(Notice, Option<OwnedFd>), ControlError> {
        let (notice, descriptors) = control::receive(&self.socket)?;
        Ok((notice, descriptors.into_iter().next()))
    }

    /// Makes the socket (non-)blocking, for callers that wait in a loop of their own.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.socket, nonblocking)?;
        Ok(())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, getpgid, getpgrp};

    /// Ctrl-C at a node's terminal ended all machines at once, under the calls that they served.
    #[test]
    fn a_monitor_does_not_share_the_signals_of_its_terminal() {
        let (link, mut child) = spawn(Path::new("/bin/cat"), &Place::default(), Stdio::null()).expect("a process");
        let group = getpgid(i32::try_from(child.id()).ok().and_then(Pid::from_raw)).expect("a group");
        assert_ne!(group, getpgrp());
        drop(link);
        child.kill().expect("ended");
        child.wait().expect("reaped");
    }
}
