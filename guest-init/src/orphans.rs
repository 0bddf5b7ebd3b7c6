//! Hearing of children that end: the program's own children become init's when it does not wait for them.

use std::{
    fs::File,
    io::{self, Read as _},
    mem::MaybeUninit,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Bytes that are read at once: a few of the kernel's records of 128.
const CHUNK_BYTES: usize = 1024;

/// A descriptor that is readable when a child has ended (signalfd(2)). Once the program is started: it would inherit that the signal is blocked.
///
/// # Errors
/// The kernel has no more descriptors.
pub(crate) fn watch() -> io::Result<OwnedFd> {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call fills the set that the others read; none keeps it. Init has one thread, whose signals these are.
    let descriptor = unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, signals.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
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
            poll(&mut [PollFd::new(orphans, PollFlags::IN)], Some(&rustix::event::Timespec::default())).expect("a poll") > 0
        };
        assert!(!is_readable(&orphans));
        // SAFETY: a signal to this thread that is blocked.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGCHLD) };
        assert!(is_readable(&orphans));
        heard(&mut orphans);
        assert!(!is_readable(&orphans));
    }
}
