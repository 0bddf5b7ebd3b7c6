//! An object store in memory that fails when it is told to.

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, memory::InMemory, path::Path,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
};

/// The store.
#[derive(Debug)]
pub(super) struct Faulty {
    inner: InMemory,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Faults {
    /// Requests until one fails; none when it is negative.
    left: AtomicI64,
    is_away: AtomicBool,
    denies: AtomicBool,
    refuses_deletions: AtomicBool,
    forgets_deletions: AtomicBool,
    requests: AtomicU64,
    /// Uploads in parts that were begun, and neither completed nor given up.
    unfinished: AtomicI64,
}

impl Default for Faulty {
    fn default() -> Self {
        let faults = Faults {
            left: AtomicI64::new(-1),
            is_away: AtomicBool::new(false),
            denies: AtomicBool::new(false),
            refuses_deletions: AtomicBool::new(false),
            forgets_deletions: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            unfinished: AtomicI64::new(0),
        };
        Self { inner: InMemory::new(), faults: Arc::new(faults) }
    }
}

impl Faulty {
    /// One request fails, after so many that do not.
    pub(super) fn fail_after(&self, requests: u64) {
        self.faults.left.store(requests as i64, SeqCst);
    }

    /// One request is refused for want of a right, after so many that are not.
    pub(super) fn deny_after(&self, requests: u64) {
        self.faults.denies.store(true, SeqCst);
        self.fail_after(requests);
    }

    /// All requests fail.
    pub(super) fn break_down(&self) {
        self.faults.is_away.store(true, SeqCst);
    }

    /// Nothing fails any more.
    pub(super) fn work(&self) {
        self.faults.is_away.store(false, SeqCst);
        self.faults.left.store(-1, SeqCst);
    }

    pub(super) fn refuse_deletions(&self, refuses: bool) {
        self.faults.refuses_deletions.store(refuses, SeqCst);
    }

    /// What is deleted stays.
    pub(super) fn forget_deletions(&self) {
        self.faults.forgets_deletions.store(true, SeqCst);
    }

    pub(super) fn requests(&self) -> u64 {
        self.faults.requests.load(SeqCst)
    }

    pub(super) fn unfinished(&self) -> i64 {
        self.faults.unfinished.load(SeqCst)
    }

    /// Of all objects, in order.
    pub(super) async fn names(&self) -> Vec<String> {
        let found: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.expect("a list");
        let mut names: Vec<String> = found.into_iter().map(|found| found.location.to_string()).collect();
        names.sort();
        names
    }
}

impl Faults {
    fn request(&self) -> Result<()> {
        self.requests.fetch_add(1, SeqCst);
        let is_its_turn = self.left.fetch_update(SeqCst, SeqCst, |left| (left >= 0).then(|| left - 1)) == Ok(0);
        if is_its_turn && self.denies.load(SeqCst) {
            return Err(Error::PermissionDenied { path: "some".to_owned(), source: "403".into() });
        }
        if is_its_turn || self.is_away.load(SeqCst) {
            return Err(Error::Generic { store: "faulty", source: "it is away".into() });
        }
        Ok(())
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.faults.request()?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.faults.request()?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        self.faults.unfinished.fetch_add(1, SeqCst);
        Ok(Box::new(FaultyUpload { inner, faults: self.faults.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.faults.request()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if let Err(error) = self.faults.request() {
            return futures_util::stream::iter([Err(error)]).boxed();
        }
        if self.faults.refuses_deletions.load(SeqCst) {
            let error = Error::PermissionDenied { path: "some".to_owned(), source: "403".into() };
            return futures_util::stream::iter([Err(error)]).boxed();
        }
        if self.faults.forgets_deletions.load(SeqCst) {
            return locations;
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    faults: Arc<Faults>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.faults.request() {
            Ok(()) => self.inner.put_part(data),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.faults.request()?;
        let done = self.inner.complete().await?;
        self.faults.unfinished.fetch_sub(1, SeqCst);
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.faults.unfinished.fetch_sub(1, SeqCst);
        self.inner.abort().await
    }
}
