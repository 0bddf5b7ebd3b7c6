//! The files: each under its hash, whole and verified, or not at all. A folder of IPFS is one file too: the archive of its blocks.
//!
//! They lie in a [`Folder`] of this machine or, where the settings say so, in a [`Bucket`] of an S3-compatible object store, under the same names. Either
//! way a file is written aside first, on this machine, under a name of its own; once it is known what it is it is published: renamed in the folder, or
//! sent to the bucket. What a crash leaves aside is removed at the next start.
//!
//! The folder is the standard library's: a rename with the syncs around it that make it last, and a file handle to read from. A third store behind
//! `object_store`'s own trait would add a copy of each byte, and leave out the syncs.

mod bucket;
mod complaint;
mod connector;
mod folder;
mod leaving;
mod new_file;
mod s3;
mod standing;
#[cfg(test)]
mod tests;

pub(crate) use self::new_file::Aside;
use self::{
    bucket::{Bucket, Object},
    folder::Folder,
};
pub use self::{
    new_file::{FileWriter, NewFile},
    s3::S3Error,
    standing::is_away,
};
use crate::{config::S3, store::record::FileKind};
use ccn_message::ItemHash;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempPath;
use tokio::io::{AsyncRead, AsyncSeekExt as _, AsyncWriteExt as _, BufReader};

/// Folder of files that are being written.
const PARTIAL: &str = "partial";
/// What the names of archives of folders end with.
const ARCHIVE: &str = "car";
/// Bytes of an archive that are copied at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The files. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Files {
    partial: Arc<PathBuf>,
    place: Place,
}

/// Where files lie.
#[derive(Debug, Clone)]
enum Place {
    Folder(Folder),
    Bucket(Bucket),
}

/// A file that is there and can be read.
#[derive(Debug)]
pub(crate) struct OpenFile {
    size: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Local(tokio::fs::File),
    Object(Object),
}

/// Some bytes of a file, as they come.
pub(crate) type Reading = Box<dyn AsyncRead + Send + Unpin>;

impl OpenFile {
    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Its bytes from one on, so many of them; there are as many.
    ///
    /// # Errors
    /// The system refuses. Those that come later are errors of the reader.
    pub(crate) async fn read(self, first: u64, length: u64) -> io::Result<Reading> {
        match self.source {
            Source::Local(file) => folder::part(file, first, length).await,
            Source::Object(object) => object.read(first..first + length).await,
        }
    }

    /// All its bytes.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub(crate) async fn read_all(self) -> io::Result<Reading> {
        let size = self.size;
        self.read(0, size).await
    }
}

/// Where a file or the archive of a folder lies under the root of all files, with a slash between folder and name.
fn name(hash: &ItemHash, kind: FileKind) -> String {
    let name = hash.to_string();
    // CIDs begin alike, and every name is ASCII with more than two letters.
    let folder = &name[name.len() - 2..];
    match kind {
        FileKind::File => format!("{folder}/{name}"),
        FileKind::Directory => format!("{folder}/{name}.{ARCHIVE}"),
    }
}

impl Files {
    /// Opens or creates a folder of files.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open_folder(root: &Path) -> io::Result<Self> {
        Ok(Self { partial: empty_partial(root)?, place: Place::Folder(Folder::new(root)) })
    }

    /// Opens the files where the settings say that they are: in a bucket, or otherwise in the folder. What is sent to the bucket passes through the folder,
    /// too.
    ///
    /// # Errors
    /// See [`S3Error`].
    pub async fn set_up(root: &Path, bucket: Option<&S3>) -> Result<Self, S3Error> {
        let partial = empty_partial(root).map_err(S3Error::Folder)?;
        let place = match bucket {
            None => {
                s3::refuse_forgotten(root)?;
                Place::Folder(Folder::new(root))
            }
            Some(settings) => Place::Bucket(s3::open(root, settings).await?),
        };
        Ok(Self { partial, place })
    }

    /// Opens a bucket on any store.
    #[cfg(test)]
    async fn on(store: Arc<dyn object_store::ObjectStore>, root: &Path, settings: &S3) -> Result<Self, S3Error> {
        let partial = empty_partial(root).map_err(S3Error::Folder)?;
        Ok(Self { partial, place: Place::Bucket(s3::open_on(store, root, settings).await?) })
    }

    /// True where reading a file means to ask over a network.
    pub(crate) fn is_far(&self) -> bool {
        matches!(self.place, Place::Bucket(_))
    }

    /// Starts something that has no name yet.
    pub(crate) async fn aside(&self) -> io::Result<Aside> {
        if let Place::Bucket(bucket) = &self.place {
            // Whoever sends a file learns it before all of it was sent.
            bucket.check()?;
        }
        Aside::new_in(&self.partial, !self.is_far()).await
    }

    /// Starts a file.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn writer(&self) -> io::Result<FileWriter> {
        Ok(FileWriter::new(self.aside().await?, None))
    }

    /// Starts a file that is to become that one.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn writer_of(&self, hash: &ItemHash) -> io::Result<FileWriter> {
        Ok(FileWriter::new(self.aside().await?, Some(hash)))
    }

    /// Gives a file its name. It is on the disk, or in the bucket, when this returns.
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
        self.name(file.path, file.size, as_hash, FileKind::File).await
    }

    /// Gives what lies aside its name: the bytes of a file, or the archive of a folder. It is on the disk, or in the bucket, when this returns.
    ///
    /// Whoever calls has followed the blocks from that hash to these bytes, see [`crate::dag`].
    pub(crate) async fn publish_followed(&self, aside: Aside, hash: &ItemHash, kind: FileKind) -> io::Result<()> {
        let size = aside.size();
        self.name(aside.settle().await?, size, hash, kind).await
    }

    async fn name(&self, file: TempPath, size: u64, hash: &ItemHash, kind: FileKind) -> io::Result<()> {
        match &self.place {
            Place::Folder(folder) => folder.publish(file, &name(hash, kind)).await,
            Place::Bucket(bucket) => bucket.publish(file, size, hash, kind).await,
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// The system refuses. That there is no such file is none.
    pub(crate) async fn open(&self, hash: &ItemHash) -> io::Result<Option<OpenFile>> {
        self.open_kind(hash, FileKind::File).await
    }

    /// Makes sure that a file that was found can be read without waiting long for it, where it is far.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) async fn bring_near(&self, hash: &ItemHash) -> io::Result<()> {
        match &self.place {
            Place::Folder(_) => Ok(()),
            Place::Bucket(bucket) => bucket.bring_near(hash).await,
        }
    }

    /// Opens the archive of a folder for reading.
    ///
    /// # Errors
    /// The system refuses. That there is no such archive is none.
    pub(crate) async fn open_archive(&self, hash: &ItemHash) -> io::Result<Option<OpenFile>> {
        self.open_kind(hash, FileKind::Directory).await
    }

    /// Opens a file or the archive of a folder to be read here and there, with its length in bytes. Of one in a bucket it is a copy, which is gone once it
    /// is closed.
    ///
    /// # Errors
    /// The system refuses. That there is no such file is none.
    pub(crate) async fn open_on_disk(&self, hash: &ItemHash, kind: FileKind) -> io::Result<Option<(fs::File, u64)>> {
        let Some(OpenFile { size, source }) = self.open_kind(hash, kind).await? else { return Ok(None) };
        let reading = match source {
            Source::Local(file) => return Ok(Some((file.into_std().await, size))),
            Source::Object(object) => object.read(0..size).await?,
        };
        let partial = self.partial.clone();
        let copy = tokio::task::spawn_blocking(move || tempfile::tempfile_in(partial.as_path())).await;
        let mut copy = tokio::fs::File::from_std(copy.map_err(io::Error::other)??);
        tokio::io::copy_buf(&mut BufReader::with_capacity(PIECE_BYTES, reading), &mut copy).await?;
        copy.flush().await?;
        copy.rewind().await?;
        Ok(Some((copy.into_std().await, size)))
    }

    async fn open_kind(&self, hash: &ItemHash, kind: FileKind) -> io::Result<Option<OpenFile>> {
        match &self.place {
            Place::Folder(folder) => {
                let found = folder.open(&name(hash, kind)).await?;
                Ok(found.map(|(file, size)| OpenFile { size, source: Source::Local(file) }))
            }
            Place::Bucket(bucket) => {
                let found = bucket.open(hash, kind).await?;
                Ok(found.map(|(object, size)| OpenFile { size, source: Source::Object(object) }))
            }
        }
    }

    /// The length of a file, bytes. For threads that may wait; of a file that was published, opened or looked for lately a bucket is not asked again.
    ///
    /// # Errors
    /// The system refuses. That there is no such file is none.
    pub fn size(&self, hash: &ItemHash) -> io::Result<Option<u64>> {
        match &self.place {
            Place::Folder(folder) => folder.size(&name(hash, FileKind::File)),
            Place::Bucket(bucket) => bucket.wait_for_size(hash, FileKind::File),
        }
    }

    /// True when the archive of that folder is here. See [`Self::size`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn has_archive(&self, hash: &ItemHash) -> io::Result<bool> {
        let size = match &self.place {
            Place::Folder(folder) => folder.size(&name(hash, FileKind::Directory)),
            Place::Bucket(bucket) => bucket.wait_for_size(hash, FileKind::Directory),
        };
        Ok(size?.is_some())
    }

    /// Reads a file of at most `max_bytes`. For threads that may wait.
    ///
    /// # Errors
    /// The system refuses, or it is longer. That there is no such file is none.
    pub fn read(&self, hash: &ItemHash, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        match &self.place {
            Place::Folder(folder) => folder.read(hash, max_bytes),
            Place::Bucket(bucket) => bucket.wait_for_content(hash, max_bytes),
        }
    }

    /// Puts bytes where a file would be whose bytes nobody has.
    #[cfg(test)]
    pub(crate) fn forge(&self, hash: &ItemHash, bytes: &[u8]) {
        let Place::Folder(folder) = &self.place else { panic!("in a folder") };
        folder.forge(&name(hash, FileKind::File), bytes);
    }

    /// Removes a file or the archive of a folder: it is not there any more when this returns. Of a bucket it is deleted soon after, whatever happens to
    /// the node or to the bucket meanwhile.
    ///
    /// # Errors
    /// The system refuses. That there is no such file is none.
    pub fn remove(&self, hash: &ItemHash) -> io::Result<()> {
        match &self.place {
            Place::Folder(folder) => folder.remove(hash),
            Place::Bucket(bucket) => bucket.remove(hash),
        }
    }
}

/// What is longer than it may be.
fn too_long(hash: &ItemHash, size: u64, max_bytes: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("{hash} has {size} bytes, more than {max_bytes}"))
}

/// Makes the folder of what is being written, empty.
fn empty_partial(root: &Path) -> io::Result<Arc<PathBuf>> {
    let partial = root.join(PARTIAL);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    Ok(Arc::new(partial))
}
