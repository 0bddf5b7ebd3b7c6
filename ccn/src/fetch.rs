//! Files that messages lack: looked for in the folder, then at peers, one search per file however many messages want it.
//!
//! What a peer sends is believed only once its hash is that which was asked for.

use crate::{
    files::Files,
    pipeline::{FileKind, WeakPipeline},
};
use ccn_message::ItemHash;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

/// Files looked for at once; those beyond are looked for when they are wanted again.
const MAX_WANTED: usize = 10_000;
/// How long a peer may take to begin an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a peer may send nothing.
const STALL: Duration = Duration::from_secs(30);
/// How long one file may take altogether.
const FILE_WITHIN: Duration = Duration::from_secs(3600);
/// When the peers are asked again, seconds after the time before. Later, the message must be sent again.
const RETRIES_SECONDS: [u64; 6] = [5, 15, 45, 120, 300, 900];

/// Looks for files. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    peers: Vec<String>,
    client: reqwest::Client,
    max_bytes: u64,
    downloads: Semaphore,
    wanted: Mutex<HashSet<ItemHash>>,
    /// Where found files are announced; set once the pipeline is there.
    pipeline: OnceLock<WeakPipeline>,
    runtime: Handle,
}

impl Fetcher {
    /// Looks at those peers, for files up to that size, so many at once.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(files: Files, peers: Vec<String>, max_bytes: u64, downloads: usize) -> Result<Self, reqwest::Error> {
        // Another part of the process may have chosen one; then that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let redirects = reqwest::redirect::Policy::limited(4);
            reqwest::Client::builder().connect_timeout(ANSWER_WITHIN).read_timeout(STALL).redirect(redirects)
        };
        let client = match builder().build() {
            Ok(client) => client,
            // A host without certificates can do without while its peers are reached by plain HTTP.
            Err(_) if peers.iter().all(|peer| peer.starts_with("http://")) => builder().tls_certs_only([]).build()?,
            Err(error) => return Err(error),
        };
        let shared = Shared {
            files,
            peers,
            client,
            max_bytes,
            downloads: Semaphore::new(downloads),
            wanted: Mutex::new(HashSet::new()),
            pipeline: OnceLock::new(),
            runtime: Handle::current(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where found files are announced.
    pub(crate) fn announce_to(&self, pipeline: WeakPipeline) {
        // There is one pipeline, and it is set once.
        let _ = self.shared.pipeline.set(pipeline);
    }

    /// Looks for a file, unless that is being done.
    pub fn want(&self, hash: &ItemHash) {
        let shared = self.shared.clone();
        {
            let mut wanted = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted.len() >= MAX_WANTED || !wanted.insert(hash.clone()) {
                return;
            }
        }
        let hash = hash.clone();
        self.shared.runtime.spawn(async move {
            shared.search(&hash).await;
            shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
        });
    }
}

impl Shared {
    async fn search(&self, hash: &ItemHash) {
        for pause in std::iter::once(0).chain(RETRIES_SECONDS) {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            let Ok(_permit) = self.downloads.acquire().await else { return };
            match self.files.open(hash).await {
                Ok(Some((_, size))) => return self.announce(hash, size).await,
                Ok(None) => {}
                Err(error) => tracing::warn!("{hash} cannot be read: {error}"),
            }
            if self.peers.is_empty() {
                return;
            }
            // Which peer is asked first differs by file, so that none gets all questions.
            let first = hash.to_string().bytes().last().map_or(0, usize::from);
            for place in 0..self.peers.len() {
                let peer = &self.peers[(first + place) % self.peers.len()];
                match timeout(FILE_WITHIN, self.download(peer, hash)).await {
                    Ok(Ok(size)) => return self.announce(hash, size).await,
                    Ok(Err(error)) => tracing::debug!("{hash} not from {peer}: {error}"),
                    Err(_) => tracing::debug!("{hash} not from {peer}: it took too long"),
                }
            }
        }
        tracing::info!("no peer has the file {hash}");
    }

    async fn announce(&self, hash: &ItemHash, size: u64) {
        let Some(pipeline) = self.pipeline.get().and_then(WeakPipeline::upgrade) else { return };
        if let Err(error) = pipeline.add_file(hash.clone(), size, FileKind::File).await {
            tracing::warn!("the file {hash} is here and not recorded: {error}");
        }
    }

    async fn download(&self, peer: &str, hash: &ItemHash) -> anyhow::Result<u64> {
        let request = self.client.get(format!("{peer}/api/v0/storage/raw/{hash}")).send();
        let mut response = timeout(ANSWER_WITHIN, request).await??.error_for_status()?;
        let too_long = || anyhow::anyhow!("it has more than {} bytes", self.max_bytes);
        anyhow::ensure!(response.content_length().is_none_or(|length| length <= self.max_bytes), too_long());
        let mut writer = self.files.writer_of(hash).await?;
        while let Some(chunk) = response.chunk().await? {
            anyhow::ensure!(writer.size() + chunk.len() as u64 <= self.max_bytes, too_long());
            writer.write(&chunk).await?;
        }
        let file = writer.finish().await?;
        anyhow::ensure!(file.is(hash), "what it sent is {}", file.sha256);
        let size = file.size;
        self.files.publish(file, hash).await?;
        Ok(size)
    }
}
