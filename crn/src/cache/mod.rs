//! Files of the network on this machine's disk, each under the hash that names it.
//!
//! Owned by the node, asked by [`crate::executor`] for the inputs of a start. What always holds: a file
//! that is handed out has been read whole and compared with its hash, in this process, since its inode
//! last changed; however many ask, there is one download; files in use are never evicted.
//!
//! ```text
//! absent ──download──▶ HASH.part ──verified, renamed──▶ HASH ──opened, trusted──▶ in use
//!    ▲                    │ cut: resumed later            │ does not verify: deleted
//!    └────────────────────┴──────────── evicted ◀─────────┘
//! ```

mod download;
pub mod evict;
pub mod program;

#[cfg(test)]
mod tests;

use crate::{
    ccn::{CcnError, Client},
    digest::{Digest, Unsupported},
};
use ccn_message::ItemHash;
use evict::{Candidate, Full};
use futures_util::{FutureExt as _, future::Shared};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::sync::{Semaphore, oneshot};

/// Downloads under way at once; more wait their turn.
const MAX_DOWNLOADS: usize = 8;

/// How long the beginning of a file is kept that nobody asked for again.
const PART_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Ends the name of a file that is not complete.
const PART_SUFFIX: &str = ".part";

/// Piece that is read at once when a file is verified, bytes.
const READ_BYTES: usize = 1024 * 1024;

/// The folder of files. Clones share it.
#[derive(Debug, Clone)]
pub struct Cache {
    shared: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    client: Arc<Client>,
    limit_bytes: u64,
    stall: Duration,
    downloads: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<ItemHash, Entry>,
    /// Beginnings of files that nobody is downloading, and their lengths.
    parts: HashMap<ItemHash, u64>,
    /// Room kept for downloads under way, bytes.
    reserved: HashMap<ItemHash, u64>,
    flights: HashMap<ItemHash, Flight>,
    /// Counts uses.
    uses: u64,
}

type Flight = Shared<futures_util::future::BoxFuture<'static, Result<CachedFile, CacheError>>>;

/// A complete file in the folder.
#[derive(Debug)]
struct Entry {
    size_bytes: u64,
    last_used: u64,
    /// Shared with every handle that was given out.
    users: Arc<()>,
    /// What the file was when its bytes were compared with its hash.
    trusted: Option<Identity>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// An open, verified file. It stays on disk as long as a handle on it is held.
#[derive(Debug, Clone)]
pub struct CachedFile {
    /// Its name.
    pub hash: ItemHash,
    /// Open for reading; not to be seeked, handles share the position.
    pub file: Arc<File>,
    /// Its length, bytes.
    pub length_bytes: u64,
    _in_use: Arc<()>,
}

/// Why a file cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The core channel node does not give it; see there.
    #[error(transparent)]
    Ccn(#[from] CcnError),
    /// The download was cut off again and again without any progress. Retry; what is there is kept.
    #[error("the download of {hash} stopped at {at_bytes} bytes: {reason}")]
    Interrupted {
        /// The file.
        hash: ItemHash,
        /// How far it got.
        at_bytes: u64,
        /// The last failure.
        reason: String,
    },
    /// No room. Retry when machines have ended.
    #[error(transparent)]
    Full(#[from] Full),
    /// The disk failed. The operator's to mend.
    #[error("the file cache at {path} failed: {reason}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        reason: Arc<io::Error>,
    },
    /// A hash that cannot be verified. Reject.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

impl Cache {
    /// Opens the folder, which is made if it is not there, and takes stock of it.
    ///
    /// # Errors
    /// The folder cannot be made or listed.
    pub fn open(path: &Path, client: Arc<Client>, limit_bytes: u64, stall: Duration) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let mut found = Vec::new();
        let mut state = State::default();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            if let Ok(hash) = name.parse::<ItemHash>() {
                found.push((metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH), hash, metadata.size()));
            } else if let Some(hash) = name.strip_suffix(PART_SUFFIX).and_then(|name| name.parse().ok())
                && age < PART_KEPT_FOR
            {
                state.parts.insert(hash, metadata.size());
            } else if metadata.is_file() {
                tracing::info!(file = %entry.path().display(), "removing a left-over of the file cache");
                fs::remove_file(entry.path())?;
            }
        }
        found.sort();
        for (_, hash, size_bytes) in found {
            state.uses += 1;
            state.files.insert(hash, Entry { size_bytes, last_used: state.uses, users: Arc::default(), trusted: None });
        }
        Ok(Self {
            shared: Arc::new(Folder {
                path: path.to_owned(),
                client,
                limit_bytes,
                stall,
                downloads: Semaphore::new(MAX_DOWNLOADS),
                state: Mutex::new(state),
            }),
        })
    }

    /// A file, from the folder or else from the network.
    ///
    /// # Errors
    /// See [`CacheError`]; who asks at the same time gets the same one.
    pub async fn get(&self, hash: &ItemHash) -> Result<CachedFile, CacheError> {
        let flight = {
            let mut state = self.shared.state();
            match state.flights.get(hash) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.shared.clone().depart(hash.clone());
                    state.flights.insert(hash.clone(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// Reads files again and compares them with their hashes, because what uses them failed as if they
    /// were damaged. Damaged ones are deleted, so that the next [`Cache::get`] fetches them anew.
    /// Returns how many were damaged.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn recheck(&self, hashes: &[ItemHash]) -> Result<usize, CacheError> {
        let mut damaged = 0;
        for hash in hashes {
            if let Some(entry) = self.shared.state().files.get_mut(hash) {
                entry.trusted = None;
            }
            let folder = self.shared.clone();
            let name = hash.clone();
            let found = blocking(move || folder.open_verified(&name)).await?;
            damaged += usize::from(found.is_none());
        }
        Ok(damaged)
    }

    /// Bytes of all complete files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.state().files.values().map(|entry| entry.size_bytes).sum()
    }
}

impl Folder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, hash: &ItemHash) -> PathBuf {
        self.path.join(hash.to_string())
    }

    fn part(&self, hash: &ItemHash) -> PathBuf {
        self.path.join(format!("{hash}{PART_SUFFIX}"))
    }

    /// Starts the one search for a file; it goes on when who asked has left.
    fn depart(self: Arc<Self>, hash: ItemHash) -> Flight {
        let (landed, landing) = oneshot::channel();
        let name = hash.clone();
        tokio::spawn(async move {
            let found = self.clone().find(&hash).await;
            self.state().flights.remove(&hash);
            let _ = landed.send(found);
        });
        async move {
            landing.await.unwrap_or_else(|_| {
                Err(CacheError::Interrupted {
                    hash: name,
                    at_bytes: 0,
                    reason: "the download was abandoned".to_owned(),
                })
            })
        }
        .boxed()
        .shared()
    }

    async fn find(self: Arc<Self>, hash: &ItemHash) -> Result<CachedFile, CacheError> {
        let open = {
            let (folder, hash) = (self.clone(), hash.clone());
            move || folder.open_verified(&hash)
        };
        if let Some(found) = blocking(open.clone()).await? {
            return Ok(found);
        }
        let _permit = self.downloads.acquire().await;
        let fetched = self.download(hash).await;
        {
            let mut state = self.state();
            state.reserved.remove(hash);
            if let Ok(metadata) = fs::metadata(self.part(hash)) {
                state.parts.insert(hash.clone(), metadata.size());
            }
        }
        fetched?;
        match blocking(open).await? {
            Some(found) => Ok(found),
            None => Err(self.disk(&self.file(hash), io::ErrorKind::NotFound.into())),
        }
    }

    /// Opens a complete file, comparing it with its hash unless that was done since it last changed. None
    /// when it is not there, or was damaged and therefore deleted. Blocks.
    fn open_verified(&self, hash: &ItemHash) -> Result<Option<CachedFile>, CacheError> {
        let path = self.file(hash);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.state().files.remove(hash);
                return Ok(None);
            }
            Err(error) => return Err(self.disk(&path, error)),
        };
        let identity = Identity::of(&file).map_err(|error| self.disk(&path, error))?;
        let trusted = self.state().files.get(hash).is_some_and(|entry| entry.trusted == Some(identity));
        if !trusted && !verify(&file, hash).map_err(|error| self.disk(&path, error))?? {
            tracing::warn!(%hash, "a cached file does not have its hash; it is deleted and fetched anew");
            self.state().files.remove(hash);
            fs::remove_file(&path).map_err(|error| self.disk(&path, error))?;
            return Ok(None);
        }
        let in_use = self.note(hash, identity);
        Ok(Some(CachedFile {
            hash: hash.clone(),
            file: Arc::new(file),
            length_bytes: identity.size_bytes,
            _in_use: in_use,
        }))
    }

    /// Remembers that a file, as it is, has its hash.
    fn trust(&self, hash: &ItemHash, file: &File) -> Result<(), CacheError> {
        let identity = Identity::of(file).map_err(|error| self.disk(&self.file(hash), error))?;
        self.note(hash, identity);
        Ok(())
    }

    fn note(&self, hash: &ItemHash, identity: Identity) -> Arc<()> {
        let mut state = self.state();
        state.uses += 1;
        let last_used = state.uses;
        let users = state.files.get(hash).map(|entry| entry.users.clone()).unwrap_or_default();
        let in_use = users.clone();
        let entry = Entry { size_bytes: identity.size_bytes, last_used, users, trusted: Some(identity) };
        state.files.insert(hash.clone(), entry);
        in_use
    }

    /// Makes room for a download that will take `bytes` in all, and keeps it.
    fn reserve(&self, hash: &ItemHash, bytes: u64) -> Result<(), CacheError> {
        let mut state = self.state();
        let elsewhere = state.reserved.iter().filter(|(other, _)| *other != hash);
        let needed_bytes = elsewhere.fold(bytes, |sum, (_, bytes)| sum.saturating_add(*bytes));
        // Beginnings that nobody waits for are the first to go.
        let mut candidates: Vec<_> = state
            .parts
            .iter()
            .filter(|(part, _)| *part != hash)
            .map(|(part, size_bytes)| Candidate {
                key: (part.clone(), true),
                size_bytes: *size_bytes,
                last_used: 0,
                // About to go on.
                in_use: state.flights.contains_key(part),
            })
            .collect();
        candidates.extend(state.files.iter().map(|(file, entry)| Candidate {
            key: (file.clone(), false),
            size_bytes: entry.size_bytes,
            last_used: entry.last_used,
            in_use: Arc::strong_count(&entry.users) > 1 || state.flights.contains_key(file),
        }));
        for (gone, is_part) in evict::select(&candidates, self.limit_bytes, needed_bytes)? {
            let path = if is_part {
                state.parts.remove(&gone);
                self.part(&gone)
            } else {
                state.files.remove(&gone);
                self.file(&gone)
            };
            tracing::debug!(file = %path.display(), "evicted from the file cache");
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.disk(&path, error)),
                // Somebody has deleted it by hand: there is its room.
                _ => {}
            }
        }
        state.parts.remove(hash);
        state.reserved.insert(hash.clone(), bytes);
        Ok(())
    }

    fn disk(&self, path: &Path, reason: io::Error) -> CacheError {
        CacheError::Disk { path: path.to_owned(), reason: Arc::new(reason) }
    }
}

/// Whether a file's bytes have the hash. Blocks.
fn verify(mut file: &File, hash: &ItemHash) -> io::Result<Result<bool, Unsupported>> {
    let mut digest = match Digest::of(hash) {
        Ok(digest) => digest,
        Err(unsupported) => return Ok(Err(unsupported)),
    };
    let mut piece = vec![0; READ_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Ok(digest.matches())),
            length => digest.update(&piece[..length]),
        }
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
