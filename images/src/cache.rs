//! The folder of finished outputs.
//!
//! ```text
//! $BETH_CACHE, else $XDG_CACHE_HOME/beth, else ~/.cache/beth
//!   kernel/smp-<key>/         vmlinux, vmlinux.flat, config, System.map, manifest.toml
//!   initramfs/<key>/          initramfs.cpio
//!   rootfs/<name>-<key>/      image.erofs, manifest.toml
//!   kvm-host/<key>/           vmlinuz, initramfs.cpio, manifest.toml
//!   tools/<key>/              root/ (mkfs.erofs and its libraries), manifest.toml
//!   archive/                  apt's state and the package lists
//!   packages/<sha256>.deb     downloaded packages
//!   locks/                    one file per output: two builders of the same thing take turns
//!   work/                     what is being built; what a killed build left is removed by the next
//! ```
//!
//! A folder with its final name is complete: it is written under `work` and renamed.

use crate::{ImagesError, Progress, at};
use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The cache, and with it every builder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache of this machine: `$BETH_CACHE`, else `$XDG_CACHE_HOME/beth`, else
    /// `~/.cache/beth`.
    ///
    /// # Errors
    /// The folder cannot be made, or there is no home folder to put it in.
    pub fn open() -> Result<Self, ImagesError> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("BETH_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("beth")))
            .or_else(|| set("HOME").map(|folder| folder.join(".cache/beth")))
            .ok_or_else(|| ImagesError::Io {
                path: PathBuf::from("~/.cache/beth"),
                source: io::Error::new(io::ErrorKind::NotFound, "none of BETH_CACHE, XDG_CACHE_HOME and HOME is set"),
            })?;
        Self::at(&root)
    }

    /// Opens a cache in a folder of the caller's choice, made if missing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn at(root: &Path) -> Result<Self, ImagesError> {
        fs::create_dir_all(root).map_err(at(root))?;
        let root = root.canonicalize().map_err(at(root))?;
        Ok(Self { root })
    }

    /// Where the cache is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of an output, if it was built.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<PathBuf> {
        let folder = self.root.join(kind).join(name);
        folder.is_dir().then_some(folder)
    }

    /// Finds an output, or builds it: `build` fills the folder that it is given, which appears
    /// under its final name when `build` succeeded. Who comes second waits and finds it.
    pub(crate) fn find_or_build(
        &self,
        kind: &str,
        name: &str,
        progress: &dyn Progress,
        build: impl FnOnce(&Path) -> Result<(), ImagesError>,
    ) -> Result<PathBuf, ImagesError> {
        if let Some(found) = self.find(kind, name) {
            return Ok(found);
        }
        let label = format!("{kind}-{name}");
        let _turn = self.lock(&label, progress)?;
        if let Some(found) = self.find(kind, name) {
            return Ok(found);
        }
        let work = self.work(&label)?;
        build(&work)?;
        let folder = self.root.join(kind);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let folder = folder.join(name);
        fs::rename(&work, &folder).map_err(at(&folder))?;
        Ok(folder)
    }

    /// An empty folder to build in. What an interrupted build left there is removed: call it with
    /// the lock of the same label held.
    pub(crate) fn work(&self, label: &str) -> Result<PathBuf, ImagesError> {
        let work = self.root.join("work").join(label);
        remove(&work)?;
        fs::create_dir_all(&work).map_err(at(&work))?;
        Ok(work)
    }

    /// Waits for a lock that other processes honour too. It ends with the value, or the process.
    pub(crate) fn lock(&self, label: &str, progress: &dyn Progress) -> Result<File, ImagesError> {
        let folder = self.root.join("locks");
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let path = folder.join(label);
        let file = File::create(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.update(None, "another process is building it: waiting");
                file.lock().map_err(at(&path))?;
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        Ok(file)
    }

    /// Removes outputs that nobody used or built for a while: those of other keys than the current
    /// ones stay useful for other checkouts until then. Downloaded packages go by the same age.
    /// Returns the number of bytes freed.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn prune(&self, keep: &[PathBuf], older_than: SystemTime) -> Result<u64, ImagesError> {
        let mut freed = 0;
        for kind in ["kernel", "initramfs", "rootfs", "kvm-host", "tools", "packages"] {
            let folder = self.root.join(kind);
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at(folder)(error)),
            };
            for entry in entries {
                let path = entry.map_err(at(&folder))?.path();
                let metadata = fs::symlink_metadata(&path).map_err(at(&path))?;
                let modified = metadata.modified().map_err(at(&path))?;
                if modified < older_than && !keep.contains(&path) {
                    freed += size_of(&path)?;
                    remove(&path)?;
                }
            }
        }
        Ok(freed)
    }
}

/// Bytes of all files under a path.
pub(crate) fn size_of(path: &Path) -> Result<u64, ImagesError> {
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut total = 0;
    for entry in fs::read_dir(path).map_err(at(path))? {
        total += size_of(&entry.map_err(at(path))?.path())?;
    }
    Ok(total)
}

/// Removes a file or a folder with everything in it, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), ImagesError> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    fn scratch() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let cache = Cache::at(folder.path()).expect("a cache in it");
        (folder, cache)
    }

    #[test]
    fn an_output_is_built_once_however_many_ask() {
        let (_folder, cache) = scratch();
        let builds = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let built = cache.find_or_build("rootfs", "tiny-1", &(), |work| {
                        builds.fetch_add(1, Ordering::SeqCst);
                        fs::write(work.join("image"), "bytes").map_err(at(work))
                    });
                    let folder = built.expect("one of them builds it");
                    assert_eq!(fs::read(folder.join("image")).expect("complete"), b"bytes");
                });
            }
        });
        assert_eq!(builds.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_build_leaves_no_output_and_its_remains_are_removed_by_the_next() {
        let (_folder, cache) = scratch();
        let failed = cache.find_or_build("kernel", "smp-1", &(), |work| {
            fs::write(work.join("half"), "made").map_err(at(work))?;
            Err(ImagesError::UnknownRuntime("interrupted".into()))
        });
        assert!(failed.is_err());
        assert_eq!(cache.find("kernel", "smp-1"), None);
        let folder = cache
            .find_or_build("kernel", "smp-1", &(), |work| fs::write(work.join("whole"), "made").map_err(at(work)))
            .expect("the second build succeeds");
        assert!(folder.join("whole").exists());
        assert!(!folder.join("half").exists());
    }

    #[test]
    fn pruning_keeps_what_is_current_and_what_is_young() {
        let (_folder, cache) = scratch();
        let build = |name: &str| {
            cache
                .find_or_build("rootfs", name, &(), |work| fs::write(work.join("image"), [0; 100]).map_err(at(work)))
                .expect("it builds")
        };
        let (current, old) = (build("base-1"), build("base-0"));
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        assert_eq!(cache.prune(&[], now - day).expect("it prunes"), 0);
        let kept = [current.clone()];
        assert_eq!(cache.prune(&kept, now + day).expect("it prunes"), 100);
        assert!(current.exists() && !old.exists());
    }
}
