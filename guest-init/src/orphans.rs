//! Hearing of children that end: the program's own children become init's when it does not wait for them.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Bytes that are read at once: a few of the kernel's records of 128.
const CHUNK_BYTES: usize = 1024;

/// A descriptor that is readable when a child has ended (signalfd(2)). Once the program is started: it would inherit that the signal is blocked.
///
/// # Errors
/// The kernel has no more descriptors.
pub(crate) fn watch() -> io::Result<OwnedFd> {
    // SAFETY: all-zero bytes are a valid set on Linux, the empty one.
    let mut signals: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call changes the set and keeps nothing of it.
    unsafe { libc::sigaddset(&raw mut signals, libc::SIGCHLD) };
    // SAFETY: the call reads the set. Init has one thread, whose signals these are.
    let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) };
    if blocked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call reads the set.
    let descriptor = unsafe { libc::signalfd(-1, &raw const signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Takes note: who has ended is found out by waiting for all.
pub(crate) fn heard(orphans: &mut File) {
    let mut chunk = [0; CHUNK_BYTES];
    while let Ok(1..) = orphans.read(&mut chunk) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn a_child_that_ends_is_heard_once() {
        // A thread's own signals: those of the process go to any that does not block them.
        let mut orphans = File::from(watch().expect("a descriptor"));
        let is_readable = |orphans: &File| {
            poll(&mut [PollFd::new(orphans, PollFlags::IN)], Some(&rustix::event::Timespec::default())).expect("a poll")
                > 0
        };
        assert!(!is_readable(&orphans));
        // SAFETY: a signal to this thread, which blocks it.
        unsafe { libc::raise(libc::SIGCHLD) };
        assert!(is_readable(&orphans));
        heard(&mut orphans);
        assert!(!is_readable(&orphans));
    }
}
