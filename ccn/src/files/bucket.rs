//! Files in a bucket of an object store.
//!
//! What is written was spooled and verified on this machine; it is sent before it is published. What is read passes through, in as much memory as
//! connections read ahead: less than a mebibyte a reader, however large the file. An object is never changed, only made and deleted, and by this node
//! alone ([`super::s3`]); so what was seen once is there until it is removed here.

use super::{
    Reading,
    complaint::Complaint,
    leaving::Leaving,
    name,
    standing::{Away, Standing},
    too_long,
};
use crate::{pipeline::MAX_CONTENT_BYTES, store::record::FileKind};
use bytes::Bytes;
use ccn_message::{ItemHash, item_hash::Engine};
use futures_util::{StreamExt as _, TryStreamExt as _};
use moka::{policy::EvictionPolicy, sync::Cache};
use object_store::{
    Error, GetOptions, GetResult, ObjectStore, ObjectStoreExt as _, PutPayload, path::Path as ObjectPath,
};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempPath;
use tokio::{
    fs::File,
    io::AsyncReadExt as _,
    runtime::Handle,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::io::StreamReader;

/// Largest file that is sent in one request, bytes, and the size of the parts of others.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// Most parts that S3 takes; larger files have larger parts.
const MAX_PARTS: u64 = 10_000;
/// Parts of a file that are sent at once.
const PARTS_OF_ONE: usize = 3;
/// Parts and small files that are sent at once, and contents that are brought near, each in memory: 128 MiB, or twice that. More wait.
const PARTS_AT_ONCE: usize = 16;
/// How long the bucket may take to begin an answer, with all attempts.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a thread that decides messages waits for the content of one, once it comes. What takes longer is brought near by somebody else, and the
/// message waits.
const CONTENT_WITHIN: Duration = Duration::from_secs(5);
/// Largest file that is brought near: no content of a message is longer.
const NEAR_BYTES: u64 = MAX_CONTENT_BYTES;
/// Files whose size is remembered; some 200 bytes each.
const MAX_SEEN: u64 = 100_000;
/// Files of at most so many bytes are kept in memory when they are sent: contents of messages are read as soon as they are there, by those for whom
/// others wait. Longer ones are if they are read too slowly otherwise.
const CONTENT_BYTES: u64 = 1 << 20;
/// Room for them, bytes.
const CONTENTS_BYTES: u64 = 32 << 20;
/// Files that are deleted at once.
const REMOVALS_AT_ONCE: usize = 8;
/// How often it is looked whether the bucket is back.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// When a deletion that was refused is tried again.
const REMOVE_AGAIN: Duration = Duration::from_secs(30);

/// The bucket. Cloning shares it.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn ObjectStore>,
    /// Before all names; empty, or without a slash at its end.
    prefix: String,
    /// Asked for to see whether the bucket is back.
    marker: ObjectPath,
    leaving: Arc<Leaving>,
    standing: Standing,
    /// Sizes by name.
    seen: Cache<String, u64>,
    /// How often something was removed: what was asked before may be answered too late.
    removals: AtomicU64,
    /// Contents by name, the latest.
    contents: Cache<String, Bytes>,
    parts: Arc<Semaphore>,
    runtime: Handle,
}

/// A file in the bucket.
#[derive(Debug)]
pub(super) struct Object {
    bucket: Bucket,
    name: String,
    size: u64,
}

impl Bucket {
    /// A bucket that was found to be usable. What was removed and is still there is deleted from now on.
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: &str, marker: ObjectPath, leaving: Leaving) -> Self {
        let length = |_: &String, bytes: &Bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let shared = Arc::new(Shared {
            store,
            prefix: prefix.to_owned(),
            marker,
            leaving: Arc::new(leaving),
            standing: Standing::default(),
            seen: Cache::new(MAX_SEEN),
            removals: AtomicU64::new(0),
            contents: Cache::builder()
                .max_capacity(CONTENTS_BYTES)
                .weigher(length)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            parts: Arc::new(Semaphore::new(PARTS_AT_ONCE)),
            runtime: Handle::current(),
        });
        let bucket = Self { shared };
        for _ in 0..REMOVALS_AT_ONCE {
            // They end with the runtime: what is left then is taken up at the next start.
            tokio::spawn(bucket.clone().keep_removing());
        }
        bucket
    }

    /// Nothing while the bucket answers.
    pub(super) fn check(&self) -> Result<(), Away> {
        self.shared.standing.check()
    }

    fn path(&self, name: &str) -> ObjectPath {
        path(&self.shared.prefix, name)
    }

    /// Waits for an answer. None when there is no such object.
    async fn answer<T>(&self, question: impl Future<Output = object_store::Result<T>>) -> io::Result<Option<T>> {
        match timeout(ANSWER_WITHIN, question).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(self.complained(&Complaint::late())),
        }
    }

    fn failed(&self, error: &Error) -> io::Error {
        self.complained(&Complaint::of(error))
    }

    fn complained(&self, complaint: &Complaint) -> io::Error {
        let (away, is_new) = self.shared.standing.complained(complaint);
        if is_new {
            self.shared.runtime.spawn(self.clone().look_for_it());
        }
        away.into()
    }

    /// Looks until the bucket is back.
    async fn look_for_it(self) {
        loop {
            sleep(LOOK_EVERY).await;
            let look = timeout(ANSWER_WITHIN, self.shared.store.head(&self.shared.marker)).await;
            if look.is_ok_and(|look| look.map_or_else(|error| !Complaint::of(&error).is_outage, |_| true)) {
                return self.shared.standing.is_back();
            }
        }
    }

    /// What is known of a file without asking: its size, or that it is not there.
    fn known(&self, hash: &ItemHash, name: &str) -> Option<Option<u64>> {
        if self.shared.leaving.contains(hash) {
            return Some(None);
        }
        self.shared.seen.get(name).map(Some)
    }

    async fn look(&self, hash: &ItemHash, name: &str) -> io::Result<Option<u64>> {
        if let Some(known) = self.known(hash, name) {
            return Ok(known);
        }
        self.check()?;
        let removals = self.shared.removals.load(Ordering::SeqCst);
        let found = self.answer(self.shared.store.head(&self.path(name))).await?;
        let size = found.map(|found| found.size);
        if let Some(size) = size
            && self.shared.removals.load(Ordering::SeqCst) == removals
        {
            self.shared.seen.insert(name.to_owned(), size);
        }
        Ok(size)
    }

    pub(super) async fn open(&self, hash: &ItemHash, kind: FileKind) -> io::Result<Option<(Object, u64)>> {
        let name = name(hash, kind);
        let size = self.look(hash, &name).await?;
        Ok(size.map(|size| (Object { bucket: self.clone(), name, size }, size)))
    }

    /// The size of a file, for a thread that may wait.
    pub(super) fn wait_for_size(&self, hash: &ItemHash, kind: FileKind) -> io::Result<Option<u64>> {
        let name = name(hash, kind);
        match self.known(hash, &name) {
            Some(known) => Ok(known),
            None => self.shared.runtime.block_on(self.look(hash, &name)),
        }
    }

    /// A file of at most so many bytes, for a thread that may wait.
    pub(super) fn wait_for_content(&self, hash: &ItemHash, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let name = name(hash, FileKind::File);
        if self.shared.leaving.contains(hash) {
            return Ok(None);
        }
        if let Some(content) = self.shared.contents.get(&name) {
            let size = content.len() as u64;
            return if size > max_bytes { Err(too_long(hash, size, max_bytes)) } else { Ok(Some(content.into())) };
        }
        self.check()?;
        self.shared.runtime.block_on(async {
            let Some(found) = self.answer(self.shared.store.get(&self.path(&name))).await? else { return Ok(None) };
            if found.meta.size > max_bytes {
                return Err(too_long(hash, found.meta.size, max_bytes));
            }
            match timeout(CONTENT_WITHIN, found.bytes()).await {
                Ok(content) => content.map(|content| Some(content.into())).map_err(|error| self.failed(&error)),
                // It answers, and slowly.
                Err(_) => Err(Away(Complaint::late().sentence).into()),
            }
        })
    }

    /// Makes sure that a file that was found can be read: one that may be the content of a message is in memory then.
    pub(super) async fn bring_near(&self, hash: &ItemHash) -> io::Result<()> {
        let name = name(hash, FileKind::File);
        if self.shared.contents.contains_key(&name) {
            return Ok(());
        }
        self.check()?;
        let _place = self.shared.parts.acquire().await.map_err(io::Error::other)?;
        let Some(found) = self.answer(self.shared.store.get(&self.path(&name))).await? else { return Ok(()) };
        // The beginning of a longer one is answer enough.
        if found.meta.size <= NEAR_BYTES {
            let content = found.bytes().await.map_err(|error| self.failed(&error))?;
            self.shared.contents.insert(name, content);
        }
        Ok(())
    }

    /// Sends a file. It is in the bucket when this returns.
    pub(super) async fn publish(&self, file: TempPath, size: u64, hash: &ItemHash, kind: FileKind) -> io::Result<()> {
        self.check()?;
        let (bucket, hash) = (self.clone(), hash.clone());
        // It is sent to its end or given up in order, even if nobody waits for it any more.
        let sending = self.shared.runtime.spawn(async move { bucket.send(file, size, &hash, kind).await });
        sending.await.map_err(io::Error::other)?
    }

    async fn send(&self, file: TempPath, size: u64, hash: &ItemHash, kind: FileKind) -> io::Result<()> {
        let arriving = self.shared.leaving.arriving(hash).await;
        let name = name(hash, kind);
        let (path, file) = (self.path(&name), File::open(&file).await?);
        if size <= PART_BYTES {
            let content = self.send_whole(&path, file, size).await?;
            if size <= CONTENT_BYTES {
                self.shared.contents.insert(name.clone(), content);
            }
        } else {
            self.send_in_parts(&path, file, size).await?;
        }
        arriving.arrived()?;
        self.shared.seen.insert(name, size);
        Ok(())
    }

    async fn send_whole(&self, path: &ObjectPath, mut file: File, size: u64) -> io::Result<Bytes> {
        let _place = self.shared.parts.acquire().await.map_err(io::Error::other)?;
        let content = next_part(&mut file, size).await?;
        let sent = self.shared.store.put(path, PutPayload::from_bytes(content.clone())).await;
        sent.map_err(|error| self.failed(&error))?;
        Ok(content)
    }

    async fn send_in_parts(&self, path: &ObjectPath, mut file: File, size: u64) -> io::Result<()> {
        let upload = self.shared.store.put_multipart(path).await;
        let mut upload = upload.map_err(|error| self.failed(&error))?;
        let part_bytes = PART_BYTES.max(size.div_ceil(MAX_PARTS));
        let work = async {
            let mut sending = JoinSet::new();
            let mut left = size;
            while left > 0 {
                if sending.len() == PARTS_OF_ONE {
                    self.part_sent(&mut sending).await?;
                }
                let place = self.shared.parts.clone().acquire_owned().await.map_err(io::Error::other)?;
                let content = next_part(&mut file, left.min(part_bytes)).await?;
                left -= content.len() as u64;
                let part = upload.put_part(PutPayload::from_bytes(content));
                // It goes on while the next one waits for its place.
                sending.spawn(async move {
                    let _place = place;
                    part.await
                });
            }
            while !sending.is_empty() {
                self.part_sent(&mut sending).await?;
            }
            upload.complete().await.map_err(|error| self.failed(&error))?;
            Ok(())
        };
        let outcome = work.await;
        if outcome.is_err()
            && let Err(error) = upload.abort().await
        {
            let sentence = Complaint::of(&error).sentence;
            tracing::warn!(
                "parts of {path} stay in the bucket until its rule for unfinished uploads ends them: {sentence}"
            );
        }
        outcome
    }

    async fn part_sent(&self, sending: &mut JoinSet<object_store::Result<()>>) -> io::Result<()> {
        match sending.join_next().await {
            Some(Ok(sent)) => sent.map_err(|error| self.failed(&error)),
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Ok(()),
        }
    }

    /// Removes a file and the archive of a folder: gone at once for all who ask, deleted soon after.
    pub(super) fn remove(&self, hash: &ItemHash) -> io::Result<()> {
        self.shared.leaving.add(hash)?;
        self.forget(hash);
        Ok(())
    }

    fn forget(&self, hash: &ItemHash) {
        self.shared.removals.fetch_add(1, Ordering::SeqCst);
        for name in names(hash) {
            self.shared.seen.invalidate(&name);
            self.shared.contents.invalidate(&name);
        }
    }

    async fn keep_removing(self) {
        loop {
            let hash = self.shared.leaving.next().await;
            match self.delete(&hash).await {
                Ok(()) => {
                    self.forget(&hash);
                    self.shared.leaving.deleted(&hash);
                }
                Err(error) => {
                    self.shared.leaving.put_back(&hash);
                    tracing::debug!("{hash} is deleted later: {error}");
                    // A refusal may be of this object alone: there are others who delete meanwhile.
                    if self.check().is_ok() {
                        sleep(REMOVE_AGAIN).await;
                    }
                    while self.check().is_err() {
                        sleep(LOOK_EVERY).await;
                    }
                }
            }
        }
    }

    async fn delete(&self, hash: &ItemHash) -> io::Result<()> {
        for name in names(hash) {
            // That there is none is no error.
            self.answer(self.shared.store.delete(&self.path(&name))).await?;
        }
        Ok(())
    }
}

impl Object {
    /// Some of its bytes, as they come.
    pub(super) async fn read(self, range: Range<u64>) -> io::Result<Reading> {
        let Self { bucket, name, size } = self;
        if let Some(content) = bucket.shared.contents.get(&name)
            && content.len() as u64 == size
        {
            // It is no longer than that, which fits into memory.
            return Ok(Box::new(io::Cursor::new(content.slice(range.start as usize..range.end as usize))));
        }
        if range.is_empty() {
            return Ok(Box::new(tokio::io::empty()));
        }
        bucket.check()?;
        let options = if range == (0..size) { GetOptions::new() } else { GetOptions::new().with_range(Some(range)) };
        let found: Option<GetResult> =
            bucket.answer(bucket.shared.store.get_opts(&bucket.path(&name), options)).await?;
        let Some(found) = found else {
            // Somebody else deleted it.
            bucket.shared.seen.invalidate(&name);
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} is not in the bucket any more")));
        };
        let pieces = found.into_stream().map_err(move |error| bucket.failed(&error));
        Ok(Box::new(StreamReader::new(pieces.boxed())))
    }
}

/// The path of a name under a prefix.
pub(super) fn path(prefix: &str, name: &str) -> ObjectPath {
    // Neither needs to be escaped: the settings are held to that, and names are hashes.
    if prefix.is_empty() { ObjectPath::from(name) } else { ObjectPath::from(format!("{prefix}/{name}")) }
}

/// What there may be under a hash: archives have names of IPFS alone.
fn names(hash: &ItemHash) -> impl Iterator<Item = String> {
    let archive = (hash.engine() == Engine::Ipfs).then(|| name(hash, FileKind::Directory));
    [Some(name(hash, FileKind::File)), archive].into_iter().flatten()
}

/// The next bytes of what was spooled.
async fn next_part(file: &mut File, length: u64) -> io::Result<Bytes> {
    let mut part = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact(&mut part).await?;
    Ok(part.into())
}
