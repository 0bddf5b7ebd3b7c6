//! Files in a folder of this machine. A file is brought to the disk and renamed, so that it is there whole or not at all.

use super::{Reading, name, too_long};
use crate::store::record::FileKind;
use ccn_message::ItemHash;
use std::{
    fs,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempPath;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

/// The folder. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: Arc<PathBuf>,
}

impl Folder {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: Arc::new(root.to_owned()) }
    }

    /// Gives a file its name. It is on the disk when this returns.
    pub(super) async fn publish(&self, file: TempPath, name: &str) -> io::Result<()> {
        let (root, path) = (self.root.clone(), self.root.join(name));
        let work = move || {
            let folder = path.parent().unwrap_or(&root);
            fs::create_dir_all(folder)?;
            file.persist(&path).map_err(|error| error.error)?;
            fs::File::open(folder)?.sync_all()?;
            fs::File::open(root.as_path())?.sync_all()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    pub(super) async fn open(&self, name: &str) -> io::Result<Option<(File, u64)>> {
        match File::open(self.root.join(name)).await {
            Ok(file) => {
                let size = file.metadata().await?.len();
                Ok(Some((file, size)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn size(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.root.join(name)) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read(&self, hash: &ItemHash, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let name = name(hash, FileKind::File);
        match self.size(&name)? {
            None => Ok(None),
            Some(size) if size > max_bytes => Err(too_long(hash, size, max_bytes)),
            Some(_) => fs::read(self.root.join(name)).map(Some),
        }
    }

    #[cfg(test)]
    pub(super) fn forge(&self, name: &str, bytes: &[u8]) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    pub(super) fn remove(&self, hash: &ItemHash) -> io::Result<()> {
        for kind in [FileKind::File, FileKind::Directory] {
            match fs::remove_file(self.root.join(name(hash, kind))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Some bytes of an open file.
pub(super) async fn part(mut file: File, first: u64, length: u64) -> io::Result<Reading> {
    if first > 0 {
        file.seek(SeekFrom::Start(first)).await?;
    }
    Ok(Box::new(file.take(length)))
}
