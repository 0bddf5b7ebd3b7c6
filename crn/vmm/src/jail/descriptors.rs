//! Descriptors that nobody meant to pass on.

use std::io;

/// The first descriptor after the standard three.
const FIRST: libc::c_uint = 3;

/// Closes every descriptor but standard input, output and error.
///
/// A supervisor opens all of its own so that they do not survive `execve`; whoever started the supervisor may not have.
///
/// # Safety
/// Nothing in this process owns a descriptor yet, besides the standard three.
///
/// # Errors
/// A kernel before Linux 5.9.
pub unsafe fn close_inherited() -> io::Result<()> {
    // SAFETY: two numbers and no flags. That nobody owns what is closed is this function's own condition.
    match unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
