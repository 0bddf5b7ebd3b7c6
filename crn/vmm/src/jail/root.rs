//! An empty root in place of the host's.

use super::{JailError, step};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::{chdir, pivot_root},
};

/// A folder that every host has. The empty root is mounted there for a moment, in this mount namespace only.
const ANY_FOLDER: &str = "/proc";

/// One file, the root itself; nobody may list it, and nothing can be made in it.
const OPTIONS: &std::ffi::CStr = c"size=4k,nr_inodes=1,mode=0";

/// Leaves the host's file systems, in a mount namespace of its own: the root becomes an empty one that cannot be written, and
/// there is no way back.
pub(super) fn leave_for_an_empty_one() -> Result<(), JailError> {
    // What is mounted here is not mounted for the host, and the other way round.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(step("part its mounts from the host's"))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", ANY_FOLDER, "tmpfs", flags, OPTIONS).map_err(step("make an empty root"))?;
    chdir(ANY_FOLDER).map_err(step("enter the empty root"))?;
    // The old root comes to lie over the new one, both at `/` (pivot_root(2), "pivot_root(".", ".")"), and is taken off.
    pivot_root(".", ".")
        .map_err(step("change its root (the host's own must be a mounted file system, not an initramfs)"))?;
    unmount(".", UnmountFlags::DETACH).map_err(step("leave the host's root"))?;
    chdir("/").map_err(step("enter the empty root"))
}
