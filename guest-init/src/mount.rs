//! File systems: the runtime's read-only root under a writable overlay in memory, volumes on top.

use guest_protocol::{Device, Volume};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// How eagerly the kernel puts its free memory together when nothing needs it, of 100.
const PROACTIVE_COMPACTION: &str = "/proc/sys/vm/compaction_proactiveness";
/// Share of the guest's memory that the writable layer may fill. The rest is for programs and the page cache.
const OVERLAY_SIZE: &str = "size=70%,mode=755";

/// Why something is not mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// The image is none that we know: the program's author has packed something else.
    #[error("{what} is not a squashfs, erofs or ext4 image")]
    UnknownFormat { what: String },
    /// The kernel refuses it: damaged, or of a version it does not know.
    #[error("{what} ({format} image) does not mount: {error}")]
    Refused { what: String, format: &'static str, error: io::Error },
    /// A step of our own failed.
    #[error("cannot {what}: {error}")]
    Step { what: String, error: io::Error },
}

fn step(what: impl Into<String>) -> impl FnOnce(io::Error) -> MountError {
    move |error| MountError::Step { what: what.into(), error }
}

/// The file systems that an image can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Squashfs,
    Erofs,
    Ext4,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Ext4 => "ext4",
        }
    }
}

/// Bytes from the start of an image that hold every magic number below.
const SUPERBLOCK_BYTES: usize = 2048;

/// What an image is, by its first bytes.
pub(crate) fn recognize(start: &[u8]) -> Option<Format> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"hsqs") {
        Some(Format::Squashfs)
    } else if at(1024, &0xe0f5_e1e2_u32.to_le_bytes()) {
        Some(Format::Erofs)
    } else if at(1024 + 56, &0xef53_u16.to_le_bytes()) {
        Some(Format::Ext4)
    } else {
        None
    }
}

/// The device node of a block device.
pub(crate) fn device_path(device: Device) -> PathBuf {
    // The protocol's index is small: the machine has 18 disks at most.
    let letter = char::from(b'a' + device.index.min(25));
    PathBuf::from(format!("/dev/vd{letter}"))
}

/// Mounts what the kernel offers without a device, where init starts: in the initramfs.
pub(crate) fn mount_early() -> Result<(), MountError> {
    for folder in ["/dev", "/proc", "/sys"] {
        make_folder(Path::new(folder))?;
    }
    virtual_mount("devtmpfs", "/dev", MountFlags::NOSUID, "mode=755")?;
    virtual_mount("proc", "/proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")?;
    // Where this cannot be said, an idle guest wakes twice a second to see whether its memory is in pieces. What needs large ones makes them.
    let _ = fs::write(PROACTIVE_COMPACTION, "0");
    Ok(())
}

/// Makes the runtime's image the root, with a writable layer in memory over it.
pub(crate) fn enter_root(root: Device) -> Result<(), MountError> {
    for folder in ["/lower", "/upper", "/root"] {
        make_folder(Path::new(folder))?;
    }
    mount_image(&device_path(root), Path::new("/lower"), true, "the runtime")?;
    virtual_mount("tmpfs", "/upper", MountFlags::NOSUID | MountFlags::NODEV, OVERLAY_SIZE)?;
    make_folder(Path::new("/upper/files"))?;
    make_folder(Path::new("/upper/work"))?;
    virtual_mount(
        "overlay",
        "/root",
        MountFlags::empty(),
        "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work",
    )?;
    for folder in ["dev", "proc", "sys", "run", "tmp"] {
        make_folder(&Path::new("/root").join(folder))?;
    }
    for folder in ["/dev", "/proc"] {
        let to = format!("/root{folder}");
        mount_move(folder, &to).map_err(|error| step(format!("move {folder}"))(error.into()))?;
    }
    // The initramfs cannot be left by pivot_root; the new root is moved over it.
    rustix::process::chdir("/root").map_err(|error| step("enter the root")(error.into()))?;
    mount_move(".", "/").map_err(|error| step("move the root")(error.into()))?;
    rustix::process::chroot(".").map_err(|error| step("change the root")(error.into()))?;
    rustix::process::chdir("/").map_err(|error| step("enter the root")(error.into()))?;

    let private = MountFlags::NOSUID | MountFlags::NODEV;
    virtual_mount("sysfs", "/sys", private | MountFlags::NOEXEC, "")?;
    virtual_mount("tmpfs", "/run", private, "mode=755,size=10%")?;
    for folder in ["/dev/pts", "/dev/shm"] {
        make_folder(Path::new(folder))?;
    }
    virtual_mount("devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=620,ptmxmode=666")?;
    virtual_mount("tmpfs", "/dev/shm", private, "mode=1777,size=50%")?;
    set_sticky("/tmp")
}

/// Mounts a volume.
pub(crate) fn mount_volume(volume: &Volume) -> Result<(), MountError> {
    let mount_point = Path::new(&volume.mount);
    if !mount_point.is_absolute() || volume.mount.split('/').any(|part| part == "..") {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "a mount point is an absolute path without `..`");
        return Err(step(format!("mount a volume at {}", volume.mount))(error));
    }
    make_folder(mount_point)?;
    let what = format!("the volume at {}", volume.mount);
    mount_image(&device_path(volume.device), mount_point, volume.read_only, &what)
}

/// Mounts an image by what it is.
pub(crate) fn mount_image(device: &Path, mount_point: &Path, read_only: bool, what: &str) -> Result<(), MountError> {
    let mut start = Vec::with_capacity(SUPERBLOCK_BYTES);
    File::open(device)
        .and_then(|file| file.take(SUPERBLOCK_BYTES as u64).read_to_end(&mut start))
        .map_err(step(format!("read {what}")))?;
    let format = recognize(&start).ok_or_else(|| MountError::UnknownFormat { what: what.to_owned() })?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mut options = None;
    if read_only || format != Format::Ext4 {
        flags |= MountFlags::RDONLY;
    } else {
        // What is deleted takes no space of the host any more, nor of a template.
        options = Some(c"discard");
    }
    mount(device, mount_point, format.name(), flags, options).map_err(|error| MountError::Refused {
        what: what.to_owned(),
        format: format.name(),
        error: error.into(),
    })
}

/// Writes everything back and unmounts volumes, so that writable ones are clean.
pub(crate) fn leave(volumes: &[Volume]) {
    rustix::fs::sync();
    for volume in volumes.iter().rev() {
        // A volume that is still in use is written back at least; detaching it keeps nobody waiting.
        let _ = unmount(&volume.mount, UnmountFlags::DETACH);
    }
    rustix::fs::sync();
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), MountError> {
    fs::create_dir_all(path).map_err(step(format!("make the folder {}", path.display())))
}

fn virtual_mount(kind: &str, target: &str, flags: MountFlags, options: &str) -> Result<(), MountError> {
    let data = CString::new(options).map_err(|error| step("mount")(io::Error::other(error)))?;
    let options = (!options.is_empty()).then_some(data.as_c_str());
    mount(kind, target, kind, flags, options).map_err(|error| step(format!("mount {kind} at {target}"))(error.into()))
}

fn set_sticky(path: &str) -> Result<(), MountError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).map_err(step(format!("open {path} to everybody")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(build: impl FnOnce(&mut [u8]), expect: Option<Format>) {
        let mut start = vec![0; SUPERBLOCK_BYTES];
        build(&mut start);
        assert_eq!(recognize(&start), expect);
    }

    #[test]
    fn images_are_known_by_their_magic() {
        check(|start| start[..4].copy_from_slice(b"hsqs"), Some(Format::Squashfs));
        check(|start| start[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]), Some(Format::Erofs));
        check(|start| start[1080..1082].copy_from_slice(&[0x53, 0xef]), Some(Format::Ext4));
        check(|start| start[..4].copy_from_slice(b"PK\x03\x04"), None);
        assert_eq!(recognize(b"hs"), None);
        assert_eq!(recognize(&[]), None);
    }

    #[test]
    fn devices_are_letters() {
        assert_eq!(device_path(Device { index: 0, length_bytes: 0 }), Path::new("/dev/vda"));
        assert_eq!(device_path(Device { index: 17, length_bytes: 0 }), Path::new("/dev/vdr"));
        assert_eq!(device_path(Device { index: 200, length_bytes: 0 }), Path::new("/dev/vdz"));
    }
}
