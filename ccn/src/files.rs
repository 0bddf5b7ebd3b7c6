//! The folder of files: each under its hash, whole and verified, or not at all. A folder of IPFS is one file too: the archive of its blocks.
//!
//! A file is written under a name of its own, brought to the disk, and renamed. What a crash leaves behind is removed at the next start.

use crate::store::record::FileKind;
use aleph_cid::verify::Hasher;
use ccn_message::{ItemHash, item_hash::Engine};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempPath;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};

/// Folder of files that are being written.
const PARTIAL: &str = "partial";
/// What the names of archives of folders end with.
const ARCHIVE: &str = "car";

/// The folder. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Files {
    root: Arc<PathBuf>,
}

/// Bytes that are written aside, before it is known what they are. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Aside {
    file: File,
    path: TempPath,
    size: u64,
    /// False after a read: then the next write has to find the end.
    at_end: bool,
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
    path: TempPath,
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

impl Files {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open_folder(root: &Path) -> io::Result<Self> {
        let partial = root.join(PARTIAL);
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        Ok(Self { root: Arc::new(root.to_owned()) })
    }

    fn path(&self, hash: &ItemHash) -> PathBuf {
        let name = hash.to_string();
        // CIDs begin alike, and every name is ASCII with more than two letters.
        self.root.join(&name[name.len() - 2..]).join(name)
    }

    fn archive_path(&self, hash: &ItemHash) -> PathBuf {
        self.path(hash).with_extension(ARCHIVE)
    }

    /// Starts something that has no name yet.
    pub(crate) async fn aside(&self) -> io::Result<Aside> {
        let folder = self.root.join(PARTIAL);
        let created = tokio::task::spawn_blocking(move || tempfile::NamedTempFile::new_in(folder)).await;
        let (file, path) = created.map_err(io::Error::other)??.into_parts();
        Ok(Aside { file: File::from_std(file), path, size: 0, at_end: true })
    }

    /// Starts a file.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn writer(&self) -> io::Result<FileWriter> {
        self.start(None).await
    }

    /// Starts a file that is to become that one.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn writer_of(&self, hash: &ItemHash) -> io::Result<FileWriter> {
        let is_v1 = hash.engine() == Engine::Ipfs && !hash.to_string().starts_with("Qm");
        self.start(is_v1.then(Hasher::for_ipfs_v1_raw_leaves)).await
    }

    async fn start(&self, cid_v1: Option<Hasher>) -> io::Result<FileWriter> {
        let aside = self.aside().await?;
        Ok(FileWriter { aside, sha256: Sha256::new(), cid_v0: Hasher::for_ipfs(), cid_v1 })
    }

    /// Gives a file its name. It is on the disk when this returns.
    ///
    /// # Errors
    /// The system refuses, or it is not that file.
    pub async fn publish(&self, file: NewFile, as_hash: &ItemHash) -> io::Result<()> {
        if !file.is(as_hash) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the file is {}, not {as_hash}", file.sha256),
            ));
        }
        self.name(file.path, self.path(as_hash)).await
    }

    /// Gives what lies aside its name: the bytes of a file, or the archive of a folder. It is on the disk when this returns.
    ///
    /// Whoever calls has followed the blocks from that hash to these bytes, see [`crate::dag`].
    pub(crate) async fn publish_followed(&self, aside: Aside, hash: &ItemHash, kind: FileKind) -> io::Result<()> {
        let path = match kind {
            FileKind::File => self.path(hash),
            FileKind::Directory => self.archive_path(hash),
        };
        self.name(aside.settle().await?, path).await
    }

    async fn name(&self, file: TempPath, path: PathBuf) -> io::Result<()> {
        let root = self.root.clone();
        let work = move || {
            let folder = path.parent().unwrap_or(&root);
            fs::create_dir_all(folder)?;
            file.persist(&path).map_err(|error| error.error)?;
            fs::File::open(folder)?.sync_all()?;
            fs::File::open(root.as_path())?.sync_all()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    /// Opens a file for reading, with its length in bytes.
    ///
    /// # Errors
    /// The system refuses. That there is no such file is none.
    pub async fn open(&self, hash: &ItemHash) -> io::Result<Option<(File, u64)>> {
        Self::open_path(&self.path(hash)).await
    }

    /// Opens the archive of a folder for reading, with its length in bytes.
    ///
    /// # Errors
    /// The system refuses. That there is no such archive is none.
    pub async fn open_archive(&self, hash: &ItemHash) -> io::Result<Option<(File, u64)>> {
        Self::open_path(&self.archive_path(hash)).await
    }

    /// Opens the archive of a folder to be read here and there.
    ///
    /// # Errors
    /// The system refuses. That there is no such archive is none.
    pub(crate) async fn archive_on_disk(&self, hash: &ItemHash) -> io::Result<Option<fs::File>> {
        match self.open_archive(hash).await? {
            Some((file, _)) => Ok(Some(file.into_std().await)),
            None => Ok(None),
        }
    }

    async fn open_path(path: &Path) -> io::Result<Option<(File, u64)>> {
        match File::open(path).await {
            Ok(file) => {
                let size = file.metadata().await?.len();
                Ok(Some((file, size)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The length of a file, bytes.
    ///
    /// # Errors
    /// The system refuses. That there is no such file is none.
    pub fn size(&self, hash: &ItemHash) -> io::Result<Option<u64>> {
        match fs::metadata(self.path(hash)) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// True when the archive of that folder is here.
    ///
    /// # Errors
    /// The system refuses.
    pub fn has_archive(&self, hash: &ItemHash) -> io::Result<bool> {
        self.archive_path(hash).try_exists()
    }

    /// Reads a file of at most `max_bytes`.
    ///
    /// # Errors
    /// The system refuses, or it is longer. That there is no such file is none.
    pub fn read(&self, hash: &ItemHash, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        match self.size(hash)? {
            None => Ok(None),
            Some(size) if size > max_bytes => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{hash} has {size} bytes, more than {max_bytes}"),
            )),
            Some(_) => fs::read(self.path(hash)).map(Some),
        }
    }

    /// Puts bytes where a file would be whose bytes nobody has.
    #[cfg(test)]
    pub(crate) fn forge(&self, hash: &ItemHash, bytes: &[u8]) {
        let path = self.path(hash);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    /// Removes a file or the archive of a folder.
    ///
    /// # Errors
    /// The system refuses. That there is no such file is none.
    pub fn remove(&self, hash: &ItemHash) -> io::Result<()> {
        for path in [self.path(hash), self.archive_path(hash)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Aside {
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

    /// Brings it to the disk.
    async fn settle(mut self) -> io::Result<TempPath> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        Ok(self.path)
    }
}

impl FileWriter {
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

    /// Brings the file to the disk.
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(files: &Files, bytes: &[u8]) -> NewFile {
        let mut writer = files.writer().await.expect("a file");
        for chunk in bytes.chunks(1000) {
            writer.write(chunk).await.expect("a write");
        }
        writer.finish().await.expect("a file")
    }

    /// What kubo itself says of one block and of several. (The CID among the vectors of `shared/fixtures/messages` is of other bytes than it says.)
    #[tokio::test]
    async fn a_file_has_the_names_that_the_network_gives_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open_folder(folder.path()).expect("a folder");
        let file = write(&files, b"hello world\n").await;
        assert_eq!(file.sha256.to_string(), "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447");
        assert_eq!(file.cid_v0.to_string(), "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
        let [cid_v1] = file.cid_v1.as_slice() else { panic!("{:?}", file.cid_v1) };
        assert_eq!(cid_v1.to_string(), "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby");
        assert_eq!(file.size, 12);

        let message = crate::testing::fixture_json("signed/store-ipfs-v0.json");
        let file = write(&files, &crate::testing::fixture("signed/files/blob-600k.bin")).await;
        assert_eq!(message["content"]["item_hash"], file.cid_v0.to_string());
    }

    #[tokio::test]
    async fn a_file_is_there_once_it_is_published_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Files::open_folder(folder.path()).expect("a folder");
        let bytes = vec![7; 300_000];
        let file = write(&files, &bytes).await;
        let (sha256, cid) = (file.sha256.clone(), file.cid_v0.clone());
        assert!(files.open(&sha256).await.expect("no error").is_none());
        files.publish(file, &sha256).await.expect("a name");
        let (mut found, size) = files.open(&sha256).await.expect("no error").expect("the file");
        let mut read = Vec::new();
        found.read_to_end(&mut read).await.expect("bytes");
        assert_eq!((size, read), (300_000, bytes.clone()));
        assert!(files.read(&sha256, 1000).is_err());
        assert_eq!(files.read(&sha256, 300_000).expect("no error"), Some(bytes.clone()));

        let file = write(&files, &bytes).await;
        assert!(files.publish(file, &ItemHash::sha256_of(b"other")).await.is_err());
        drop(write(&files, &bytes).await);
        let left = fs::read_dir(folder.path().join(PARTIAL)).expect("the folder").count();
        assert_eq!(left, 0, "what is not published is removed");

        files.publish(write(&files, &bytes).await, &cid).await.expect("a name");
        files.remove(&cid).expect("no error");
        assert!(files.open(&cid).await.expect("no error").is_none());
        files.remove(&cid).expect("that it is gone is no error");
    }
}
