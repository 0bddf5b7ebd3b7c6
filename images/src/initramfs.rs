//! Initramfs archives (cpio, `newc`): the guest's holds our init and two device nodes, the KVM
//! host's somewhat more. Not compressed: unpacking is a copy, decompressing would be work at each
//! boot. Entries are owned by root, dated zero, numbered in order.

use crate::{Cache, ImagesError, at, digest};
use cpio::newc::{Builder, ModeFileType, trailer};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Raised when the layout of the guest's initramfs changes.
const FORMAT: u32 = 1;

/// What an entry is.
#[derive(Debug, Clone)]
pub(crate) enum Entry<'a> {
    Directory,
    File {
        mode: u32,
        content: &'a [u8],
    },
    Link {
        target: &'a str,
    },
    /// A character device.
    Device {
        mode: u32,
        major: u32,
        minor: u32,
    },
}

/// The device nodes that must be there before anything is mounted: the kernel opens
/// `/dev/console` for its first process, and Rust's runtime opens `/dev/null` where that failed.
pub(crate) const DEVICES: [(&str, Entry<'static>); 3] = [
    ("dev", Entry::Directory),
    ("dev/console", Entry::Device { mode: 0o600, major: 5, minor: 1 }),
    ("dev/null", Entry::Device { mode: 0o666, major: 1, minor: 3 }),
];

/// Writes an archive. Folders must come before what is in them.
pub(crate) fn write<'a>(
    mut out: impl Write,
    entries: impl IntoIterator<Item = (&'a str, Entry<'a>)>,
) -> io::Result<()> {
    for (number, (path, entry)) in (1..).zip(entries) {
        let header = Builder::new(path).uid(0).gid(0).mtime(0).ino(number);
        let (header, content): (_, &[u8]) = match entry {
            Entry::Directory => (header.mode(0o755).set_mode_file_type(ModeFileType::Directory).nlink(2), &[]),
            Entry::File { mode, content } => {
                (header.mode(mode).set_mode_file_type(ModeFileType::Regular).nlink(1), content)
            }
            Entry::Link { target } => {
                (header.mode(0o777).set_mode_file_type(ModeFileType::Symlink).nlink(1), target.as_bytes())
            }
            Entry::Device { mode, major, minor } => (
                header.mode(mode).set_mode_file_type(ModeFileType::Char).nlink(1).rdev_major(major).rdev_minor(minor),
                &[],
            ),
        };
        let length = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a file of 4 GiB or more"))?;
        let mut file = header.write(&mut out, length);
        file.write_all(content)?;
        file.finish()?;
    }
    trailer(&mut out)?;
    out.flush()
}

/// The guest's initramfs with this init.
fn with_init(init: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(init.len() + 1024);
    let init = ("init", Entry::File { mode: 0o755, content: init });
    write(&mut bytes, DEVICES.into_iter().chain([init]))?;
    Ok(bytes)
}

impl Cache {
    /// The guest's initramfs, holding `init` (a static executable) as `/init`.
    ///
    /// # Errors
    /// The file cannot be read, or the cache not written.
    pub fn initramfs(&self, init: &Path) -> Result<PathBuf, ImagesError> {
        let content = fs::read(init).map_err(at(init))?;
        let mut key = digest::Key::new("initramfs", FORMAT);
        key.add(&digest::of_bytes(&content));
        let folder = self.find_or_build("initramfs", &key.finish(), &(), |work| {
            let path = work.join("initramfs.cpio");
            fs::write(&path, with_init(&content).map_err(at(init))?).map_err(at(path))
        })?;
        Ok(folder.join("initramfs.cpio"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use std::io::Read as _;

    #[test]
    fn an_archive_holds_what_the_kernel_needs_and_the_init() {
        let bytes = with_init(b"\x7fELF of some kind").expect("memory takes it");
        let mut seen = Vec::new();
        let mut rest: &[u8] = &bytes;
        loop {
            let mut reader = Reader::new(rest).expect("an entry");
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
            let (name, mode, device) =
                (entry.name().to_owned(), entry.mode(), (entry.rdev_major(), entry.rdev_minor()));
            let mut content = Vec::new();
            reader.read_to_end(&mut content).expect("its content");
            rest = reader.finish().expect("the next");
            seen.push((name, mode, device, content));
        }
        assert_eq!(
            seen,
            [
                ("dev".into(), 0o040_755, (0, 0), vec![]),
                ("dev/console".into(), 0o020_600, (5, 1), vec![]),
                ("dev/null".into(), 0o020_666, (1, 3), vec![]),
                ("init".into(), 0o100_755, (0, 0), b"\x7fELF of some kind".to_vec()),
            ]
        );
    }

    #[test]
    fn one_init_is_one_archive_and_another_is_another() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let cache = Cache::at(&folder.path().join("cache")).expect("a cache");
        let init = folder.path().join("guest-init");
        fs::write(&init, "first").expect("a file");
        let first = cache.initramfs(&init).expect("an archive");
        let bytes = fs::read(&first).expect("its bytes");
        assert_eq!(cache.initramfs(&init).expect("the same"), first);
        fs::write(&init, "second").expect("a file");
        let second = cache.initramfs(&init).expect("an archive");
        assert_ne!(second, first);
        assert_eq!(fs::read(&first).expect("still there"), bytes);
        assert_eq!(bytes.len() % 4, 0);
    }
}
