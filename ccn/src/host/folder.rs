//! What has changed in the folder of plugins since it was last looked at. No I/O, no clock.
//!
//! A folder that is looked at every half a second needs no help of the kernel's, and works wherever it is mounted from. A file counts once two
//! looks have found it alike: one that is still being copied is left alone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// By what a file is known to be another one, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    /// Since 1970, nanoseconds.
    pub(super) modified_ns: i128,
    pub(super) inode: u64,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A file is new, or another one than before.
    Come(PathBuf),
    /// A file is gone.
    Gone(PathBuf),
}

/// The files of the last look.
#[derive(Debug, Default)]
pub(super) struct Folder {
    files: BTreeMap<PathBuf, Seen>,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    /// Its coming was told.
    told: bool,
}

impl Folder {
    /// A folder whose files are dealt with already.
    pub(super) fn known(files: BTreeMap<PathBuf, Stamp>) -> Self {
        Self { files: files.into_iter().map(|(path, stamp)| (path, Seen { stamp, told: true })).collect() }
    }

    /// What has changed. Files that are gone come first: others may want what they had.
    pub(super) fn look(&mut self, found: &BTreeMap<PathBuf, Stamp>) -> Vec<Change> {
        let gone: Vec<PathBuf> = self.files.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changes: Vec<Change> = gone.into_iter().map(Change::Gone).collect();
        for (path, stamp) in found {
            match self.files.get_mut(path) {
                Some(seen) if seen.stamp != *stamp => *seen = Seen { stamp: *stamp, told: false },
                Some(Seen { told: true, .. }) => {}
                Some(seen) => {
                    seen.told = true;
                    changes.push(Change::Come(path.clone()));
                }
                None => {
                    self.files.insert(path.clone(), Seen { stamp: *stamp, told: false });
                }
            }
        }
        changes
    }

    /// Has the coming of a file be told once more.
    pub(super) fn again(&mut self, path: &Path) {
        if let Some(seen) = self.files.get_mut(path) {
            seen.told = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, u64)]) -> BTreeMap<PathBuf, Stamp> {
        files.iter().map(|(name, bytes)| ((*name).into(), Stamp { bytes: *bytes, modified_ns: 0, inode: 0 })).collect()
    }

    #[test]
    fn a_file_counts_once_it_stays_as_it_is() {
        let mut folder = Folder::known(files(&[("old", 1)]));
        let come = |name: &str| Change::Come(name.into());
        let gone = |name: &str| Change::Gone(name.into());
        assert_eq!(folder.look(&files(&[("old", 1), ("new", 1)])), []);
        assert_eq!(folder.look(&files(&[("old", 1), ("new", 2)])), [], "it grows");
        assert_eq!(folder.look(&files(&[("old", 1), ("new", 2)])), [come("new")]);
        assert_eq!(folder.look(&files(&[("old", 1), ("new", 2)])), []);
        assert_eq!(folder.look(&files(&[("old", 3), ("new", 2)])), []);
        assert_eq!(folder.look(&files(&[("old", 3), ("newer", 2)])), [gone("new"), come("old")]);
        folder.again(Path::new("old"));
        assert_eq!(folder.look(&files(&[("old", 3)])), [gone("newer"), come("old")]);
        folder.again(Path::new("nothing"));
        assert_eq!(folder.look(&files(&[])), [gone("old")]);
    }
}
