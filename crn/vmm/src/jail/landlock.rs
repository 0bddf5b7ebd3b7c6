//! Landlock: no path can be used, whatever becomes visible (landlock(7)).
//!
//! A second lock on the empty root: it is kept by the kernel beside namespaces and ids, and cannot be taken off.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

/// `LANDLOCK_CREATE_RULESET_VERSION` (`linux/landlock.h`).
const ASK_FOR_VERSION: libc::c_uint = 1;

/// `struct landlock_ruleset_attr` (`linux/landlock.h`): what is denied unless a rule allows it. There are no rules. A kernel that
/// knows fewer fields takes it as long as the others are zero.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ruleset {
    /// `LANDLOCK_ACCESS_FS_*`.
    files: u64,
    /// `LANDLOCK_ACCESS_NET_*`.
    network: u64,
    /// `LANDLOCK_SCOPE_*`.
    scopes: u64,
}

impl Ruleset {
    /// Everything that this version of Landlock can deny.
    const fn of_version(version: u32) -> Self {
        Self {
            files: match version {
                0 => 0,
                1 => 0x1fff,     // execute, read, write, list, remove and make each kind of file
                2 => 0x3fff,     // link and rename between folders
                3 | 4 => 0x7fff, // truncate
                _ => 0xffff,     // ioctl of devices
            },
            network: if version >= 4 { 0b11 } else { 0 }, // bind and connect TCP sockets
            scopes: if version >= 6 { 0b11 } else { 0 },  // abstract Unix sockets, signals
        }
    }
}

/// The version of Landlock that this kernel has; 0 for none, or one that is switched off.
#[must_use]
pub fn version() -> u32 {
    // SAFETY: with this flag the call takes no structure and makes nothing.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0_usize, ASK_FOR_VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}

/// Denies the calling thread, and those it will start, all that Landlock can deny. Needs no new privileges to have been given up.
/// Does nothing where there is no Landlock: the root is empty without it.
pub(super) fn restrict() -> io::Result<()> {
    let version = version();
    if version == 0 {
        return Ok(());
    }
    let ruleset = Ruleset::of_version(version);
    // SAFETY: the structure is as long as the call is told.
    let made = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size_of::<Ruleset>(), 0 as libc::c_uint)
    };
    let number = match RawFd::try_from(made) {
        Ok(number) if number >= 0 => number,
        _ => return Err(io::Error::last_os_error()),
    };
    // SAFETY: the call before has made this descriptor, and it has no other owner.
    let ruleset = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: a descriptor and no flags.
    let confined = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0 as libc::c_uint) };
    if confined == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_denies_what_the_one_before_does() {
        assert_eq!(Ruleset::of_version(0), Ruleset::default());
        for version in 0..9 {
            let (less, more) = (Ruleset::of_version(version), Ruleset::of_version(version + 1));
            assert_eq!(less.files & more.files, less.files);
            assert_eq!(less.network & more.network, less.network);
            assert_eq!(less.scopes & more.scopes, less.scopes);
        }
        // Bits that a kernel does not know are an error to it: the first release of each is in landlock(7).
        assert_eq!(Ruleset::of_version(3), Ruleset { files: 0x7fff, network: 0, scopes: 0 });
        assert_eq!(Ruleset::of_version(4), Ruleset { files: 0x7fff, network: 3, scopes: 0 });
        assert_eq!(Ruleset::of_version(6), Ruleset { files: 0xffff, network: 3, scopes: 3 });
    }
}
