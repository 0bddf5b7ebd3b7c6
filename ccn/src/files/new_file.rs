//! Files that are being written: aside, under names of their own, until it is known what they are.

use aleph_cid::verify::Hasher;
use ccn_message::{ItemHash, item_hash::Engine};
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, SeekFrom},
    path::Path,
};
use tempfile::TempPath;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};

/// Bytes that are written aside, before it is known what they are. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Aside {
    file: File,
    path: TempPath,
    size: u64,
    /// False after a read: then the next write has to find the end.
    at_end: bool,
    /// True where it stays on this disk, which it has to reach then.
    is_local: bool,
}

/// A file that is being written. Dropping it removes what was written.
#[derive(Debug)]
pub struct FileWriter {
    aside: Aside,
    sha256: Sha256,
    /// What the network calls such a file: CIDv0, and CIDv1 where that was asked for.
    cid_v0: Hasher,
    cid_v1: Option<Hasher>,
}

/// A file that was written and has no name yet. Dropping it removes it.
#[derive(Debug)]
pub struct NewFile {
    pub(super) path: TempPath,
    /// Its name in storage.
    pub sha256: ItemHash,
    /// Its name in IPFS.
    pub cid_v0: ItemHash,
    /// Its other names in IPFS: the CIDv1 of the same block, and that of raw leaves where it was asked for.
    pub cid_v1: Vec<ItemHash>,
    /// Bytes.
    pub size: u64,
}

impl NewFile {
    /// True when that is one of its names.
    #[must_use]
    pub fn is(&self, hash: &ItemHash) -> bool {
        *hash == self.sha256 || *hash == self.cid_v0 || self.cid_v1.contains(hash)
    }
}

impl Aside {
    /// Something in that folder that has no name yet.
    pub(super) async fn new_in(folder: &Path, is_local: bool) -> io::Result<Self> {
        let folder = folder.to_owned();
        let created = tokio::task::spawn_blocking(move || tempfile::NamedTempFile::new_in(folder)).await;
        let (file, path) = created.map_err(io::Error::other)??.into_parts();
        Ok(Self { file: File::from_std(file), path, size: 0, at_end: true, is_local })
    }

    /// Appends. How long it may become is the caller's to say.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.at_end {
            self.file.seek(SeekFrom::End(0)).await?;
            self.at_end = true;
        }
        self.file.write_all(bytes).await?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Reads what was written.
    pub(crate) async fn read(&mut self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        self.file.flush().await?;
        self.at_end = false;
        self.file.seek(SeekFrom::Start(start)).await?;
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Ends writing; what stays on this disk is brought to it.
    pub(super) async fn settle(mut self) -> io::Result<TempPath> {
        self.file.flush().await?;
        if self.is_local {
            self.file.sync_all().await?;
        }
        Ok(self.path)
    }
}

impl FileWriter {
    /// A file that is to become that one, if it is known which.
    pub(super) fn new(aside: Aside, hash: Option<&ItemHash>) -> Self {
        let is_v1 = |hash: &ItemHash| hash.engine() == Engine::Ipfs && !hash.to_string().starts_with("Qm");
        let cid_v1 = hash.is_some_and(is_v1).then(Hasher::for_ipfs_v1_raw_leaves);
        Self { aside, sha256: Sha256::new(), cid_v0: Hasher::for_ipfs(), cid_v1 }
    }

    /// Appends. How long a file may become is the caller's to say.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.sha256.update(chunk);
        self.cid_v0.update(chunk);
        if let Some(hasher) = &mut self.cid_v1 {
            hasher.update(chunk);
        }
        self.aside.write(chunk).await
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.aside.size
    }

    /// Ends writing.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn finish(self) -> io::Result<NewFile> {
        let size = self.aside.size;
        let path = self.aside.settle().await?;
        let cid_v0 = self.cid_v0.finalize().to_string();
        // A single raw block has a name of its own kind (`bafk…`), which is none of the network's.
        let raw = self.cid_v1.map(|hasher| hasher.finalize().to_string());
        let names = [Some(v1_of_v0(&cid_v0)), raw].into_iter().flatten();
        Ok(NewFile {
            path,
            sha256: ItemHash::from_sha256(self.sha256.finalize().into()),
            cid_v0: ItemHash::parse(&cid_v0).map_err(io::Error::other)?,
            cid_v1: names.filter_map(|name| ItemHash::parse(&name).ok()).collect(),
            size,
        })
    }
}

/// The CIDv1 of a block whose CIDv0 is known: another spelling of one digest.
fn v1_of_v0(cid: &str) -> String {
    /// Version 1, codec dag-pb.
    const PREFIX: [u8; 2] = [0x01, 0x70];
    let digest = bs58::decode(cid).into_vec().unwrap_or_default();
    format!("b{}", data_encoding::BASE32_NOPAD.encode(&[&PREFIX[..], &digest].concat()).to_ascii_lowercase())
}
