//! What is in the cache, for people and for `cargo xtask images`.

use crate::{Cache, ImagesError, RECIPE_NAMES, at, cache::size_of};
use std::{fs, io, path::PathBuf, time::SystemTime};

/// One output and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `kernel`, `runtime python`, `kvm-host`, `tools`.
    pub name: String,
    /// How it stands.
    pub state: State,
}

/// How an output stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Built from today's inputs.
    Built {
        /// Its folder.
        folder: PathBuf,
        /// Bytes on disk.
        size_bytes: u64,
        /// When it was built. Packages are those of that day: an old image lacks security updates.
        since: SystemTime,
    },
    /// There is one, but recipe, configuration or builder changed since.
    Stale,
    /// Never built here.
    Missing,
}

impl Cache {
    /// Reports on every output. Costs a few directory reads.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub fn outputs(&self) -> Result<Vec<Output>, ImagesError> {
        let mut outputs = vec![self.output("kernel", "kernel", "smp-", self.kernel_folder())?];
        for name in RECIPE_NAMES {
            let current = self.rootfs_folder(name)?;
            outputs.push(self.output(&format!("runtime {name}"), "rootfs", &format!("{name}-"), current)?);
        }
        // Its key has the init in it, which is not known here: the newest one counts.
        let newest = self.newest("kvm-host")?;
        outputs.push(self.output("kvm-host", "kvm-host", "", newest)?);
        Ok(outputs)
    }

    fn output(&self, name: &str, kind: &str, prefix: &str, current: Option<PathBuf>) -> Result<Output, ImagesError> {
        let state = match current {
            Some(folder) => State::Built {
                size_bytes: size_of(&folder)?,
                since: fs::metadata(&folder).and_then(|metadata| metadata.modified()).map_err(at(&folder))?,
                folder,
            },
            None if self
                .folders(kind)?
                .iter()
                .any(|folder| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))) =>
            {
                State::Stale
            }
            None => State::Missing,
        };
        Ok(Output { name: name.to_owned(), state })
    }

    fn newest(&self, kind: &str) -> Result<Option<PathBuf>, ImagesError> {
        let time = |folder: &PathBuf| fs::metadata(folder).and_then(|metadata| metadata.modified()).ok();
        Ok(self.folders(kind)?.into_iter().max_by_key(time))
    }

    fn folders(&self, kind: &str) -> Result<Vec<PathBuf>, ImagesError> {
        let folder = self.root().join(kind);
        match fs::read_dir(&folder) {
            Ok(entries) => entries.map(|entry| Ok(entry.map_err(at(&folder))?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(at(folder)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_missing_then_stale_then_built() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let cache = Cache::at(scratch.path()).expect("a cache");
        let state = || {
            let outputs = cache.outputs().expect("a report");
            let output = outputs.into_iter().find(|output| output.name == "runtime base");
            output.expect("it is reported").state
        };
        assert_eq!(state(), State::Missing);
        fs::create_dir_all(scratch.path().join("rootfs/base-0000")).expect("an old one");
        assert_eq!(state(), State::Stale);
        cache.rootfs_folder("base").expect("a known name").ok_or(()).expect_err("not built yet");
    }
}
