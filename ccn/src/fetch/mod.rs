//! Files that messages lack: looked for in the folder, then at peers, an IPFS node and gateways, one search per file however many messages want it.
//!
//! Nobody is believed. Bytes are taken once their hash is that which was asked for; what comes as blocks is followed from that hash, block by block
//! ([`crate::dag`]). A source that lies, hangs or sends without end is left for the next one, and while none has begun to answer, a second is asked
//! beside it. [`source`] says who is asked for what, [`answer`] bounds what is read, [`failure`] says whose fault it was.

mod answer;
mod failure;
mod source;
mod tally;
#[cfg(test)]
mod tests;

pub use self::{
    answer::Patience,
    failure::Failure,
    tally::{Searched, Tally},
};
use self::{
    answer::{Answer, Begun, Share, redirections},
    failure::Fault,
    source::{Question, Source, in_turn},
};
use crate::{
    config::Ipfs,
    dag::{
        self, Blocks, CarError, MAX_BLOCK_BYTES,
        car::{CarReader, Item},
        cid::Cid,
        spool::Spool,
    },
    files::Files,
    pipeline::{FileKind, WeakPipeline},
};
use ccn_message::{ItemHash, item_hash::Engine};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use moka::future::Cache;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt as _, runtime::Handle, sync::Semaphore, time::timeout};

/// Files looked for at once; those beyond are looked for when they are wanted again.
const MAX_WANTED: usize = 10_000;
/// Files for which somebody is being asked at once; others wait for their turn. What is read at once is bounded apart.
const MAX_ASKED: usize = 256;
/// Sources that are asked for one file at once.
const MAX_ABREAST: usize = 2;
/// Files that nobody had, remembered so that nobody is asked again at once; beyond it the oldest are forgotten.
const MAX_LACKING: u64 = 10_000;
/// How long they are remembered.
const LACKING_FOR: Duration = Duration::from_secs(60);
/// When everybody is asked again, seconds after the time before. Later, the message must be sent again.
const RETRIES_SECONDS: [u64; 6] = [5, 15, 45, 120, 300, 900];
/// When it is looked again whether the object store of the files is back.
const AWAY_PAUSE: Duration = Duration::from_secs(5);
/// What an archive may have however small files are to be, bytes; beyond that, twice the largest file.
const LEAST_ARCHIVE_BYTES: u64 = 4 << 20;
/// Bytes of an archive in the folder that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Whom to ask, and how much to take.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Core channel nodes, base URLs without a slash at the end.
    pub peers: Vec<String>,
    /// IPFS nodes and gateways.
    pub ipfs: Ipfs,
    /// Largest file, and largest folder with all that is in it, bytes.
    pub max_bytes: u64,
    /// Answers read at once.
    pub downloads: usize,
    /// How long others may take.
    pub patience: Patience,
}

/// A file or folder that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: FileKind,
    /// Bytes; of a folder IPFS's `CumulativeSize`.
    pub size: u64,
}

/// Why there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// Nobody who was asked has it.
    Nobody,
    /// It is nothing that is taken, whoever gives it.
    Unfit,
    /// The object store that may have it, or is to keep it, does not answer now.
    Away,
}

/// Looks for files. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Fetcher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    sources: Vec<Source>,
    client: reqwest::Client,
    max_bytes: u64,
    patience: Patience,
    tally: Tally,
    asked: Semaphore,
    downloads: Semaphore,
    wanted: Mutex<HashSet<ItemHash>>,
    lacking: Cache<ItemHash, Lacking>,
    /// Where found files are announced; set once the pipeline is there.
    pipeline: OnceLock<WeakPipeline>,
    runtime: Handle,
}

impl Fetcher {
    /// Asks those sources.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(files: Files, settings: Settings) -> Result<Self, reqwest::Error> {
        // Another part of the process may have chosen one; then that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let Settings { peers, ipfs, max_bytes, downloads, patience } = settings;
        let urls = || peers.iter().chain(&ipfs.api).chain(&ipfs.gateways);
        let builder = || reqwest::Client::builder().connect_timeout(patience.answer).redirect(redirections());
        let client = match builder().build() {
            Ok(client) => client,
            // A host without certificates can do without while everybody is reached by plain HTTP.
            Err(_) if urls().all(|url| url.starts_with("http://")) => builder().tls_certs_only([]).build()?,
            Err(error) => return Err(error),
        };
        let peers = peers.into_iter().map(Source::Peer);
        let nodes = ipfs.api.into_iter().map(Source::Ipfs);
        let gateways = ipfs.gateways.into_iter().map(Source::Gateway);
        let shared = Shared {
            files,
            sources: peers.chain(nodes).chain(gateways).collect(),
            client,
            max_bytes,
            patience,
            tally: Tally::default(),
            asked: Semaphore::new(MAX_ASKED),
            downloads: Semaphore::new(downloads),
            wanted: Mutex::new(HashSet::new()),
            lacking: Cache::builder().max_capacity(MAX_LACKING).time_to_live(LACKING_FOR).build(),
            pipeline: OnceLock::new(),
            runtime: Handle::current(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How often files were looked for elsewhere.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// Where found files are announced.
    pub(crate) fn announce_to(&self, pipeline: WeakPipeline) {
        // There is one pipeline, and it is set once.
        let _ = self.shared.pipeline.set(pipeline);
    }

    /// Looks for a file until it is found or it is of no use any more, unless that is being done.
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

    /// Looks for a file once. Those who ask at the same time share one search, and what nobody had is not looked for again at once.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn fetch(&self, hash: &ItemHash) -> Result<Found, Lacking> {
        self.shared.fetch(hash).await
    }
}

impl Shared {
    async fn search(&self, hash: &ItemHash) {
        for pause in std::iter::once(0).chain(RETRIES_SECONDS) {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            if pause > 0 {
                self.lacking.invalidate(hash).await;
            }
            match self.fetch_or_wait(hash).await {
                Ok(found) => return self.announce(hash, found).await,
                Err(Lacking::Unfit) => return,
                Err(_) if self.sources.is_empty() => return,
                Err(_) => {}
            }
        }
        tracing::info!("nobody has the file {hash}");
    }

    /// Looks, or goes on looking while the object store of the files is away, however long: nobody was found to have nothing.
    async fn fetch_or_wait(&self, hash: &ItemHash) -> Result<Found, Lacking> {
        loop {
            match self.fetch(hash).await {
                Err(Lacking::Away) => tokio::time::sleep(AWAY_PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn announce(&self, hash: &ItemHash, found: Found) {
        let Some(pipeline) = self.pipeline.get().and_then(WeakPipeline::upgrade) else { return };
        if let Err(error) = pipeline.add_file(hash.clone(), found.size, found.kind).await {
            tracing::warn!("the file {hash} is here and not recorded: {error}");
        }
    }

    async fn fetch(&self, hash: &ItemHash) -> Result<Found, Lacking> {
        // What the cache remembers is that there is nothing: to it, all else is the failure, which those who wait share and it forgets.
        let round = async {
            match self.round(hash).await {
                Err(lacking @ (Lacking::Nobody | Lacking::Unfit)) => Ok(lacking),
                outcome => Err(outcome),
            }
        };
        match self.lacking.try_get_with_by_ref(hash, Box::pin(round)).await {
            Ok(lacking) => Err(lacking),
            Err(outcome) => *outcome,
        }
    }

    /// Looks here, then asks everybody.
    async fn round(&self, hash: &ItemHash) -> Result<Found, Lacking> {
        let Ok(_turn) = self.asked.acquire().await else { return Err(Lacking::Nobody) };
        match self.here(hash).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(failure) if failure.is_away() => return Err(Lacking::Away),
            Err(error) => tracing::warn!("{hash} cannot be read: {error}"),
        }
        let began = Instant::now();
        let outcome = timeout(self.patience.round, self.ask_around(hash)).await.unwrap_or_else(|_| {
            tracing::debug!("{hash}: asking everybody took too long");
            Err(Lacking::Nobody)
        });
        self.tally.count(hash.engine(), outcome.is_ok(), began.elapsed());
        outcome
    }

    /// What lies in the folder and was not recorded: a crash may have come between.
    async fn here(&self, hash: &ItemHash) -> Result<Option<Found>, Failure> {
        if let Some(file) = self.files.open(hash).await? {
            // It may be lacking because it could not be read.
            self.files.bring_near(hash).await?;
            return Ok(Some(Found { kind: FileKind::File, size: file.size() }));
        }
        if hash.engine() != Engine::Ipfs {
            return Ok(None);
        }
        let Some(archive) = self.files.open_archive(hash).await? else { return Ok(None) };
        let mut archive = archive.read_all().await?;
        let (mut reader, mut spool) = (CarReader::default(), Spool::new(&self.files, self.max_bytes).await?);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = archive.read(&mut piece).await?;
            if length == 0 {
                break;
            }
            keep_blocks(&mut reader, &piece[..length], &mut spool).await?;
        }
        let followed = dag::assemble(&self.files, hash, &mut OfArchive(spool), self.max_bytes).await?;
        Ok(Some(Found { kind: followed.kind, size: followed.size }))
    }

    /// Asks one source after the other; while none has begun to answer, a second one beside the first.
    async fn ask_around(&self, hash: &ItemHash) -> Result<Found, Lacking> {
        let begun = Begun::default();
        let mut left = in_turn(&self.sources, hash).into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            if asked.is_empty() {
                let Some(source) = left.next() else { return Err(Lacking::Nobody) };
                asked.push(self.ask(source, hash, &begun));
            }
            let second = tokio::time::sleep(self.patience.second);
            tokio::select! {
                Some((source, outcome)) = asked.next() => match outcome {
                    Ok(found) => return Ok(found),
                    Err(failure) => match failure.fault() {
                        Fault::Source => {
                            tracing::debug!("{hash} not from {source}: {failure}");
                            asked.extend(left.next().map(|source| self.ask(source, hash, &begun)));
                        }
                        Fault::Content => {
                            tracing::info!("{hash} is not taken: {failure}");
                            return Err(Lacking::Unfit);
                        }
                        Fault::Node if failure.is_away() => return Err(Lacking::Away),
                        Fault::Node => {
                            tracing::warn!("{hash} cannot be kept: {failure}");
                            return Err(Lacking::Nobody);
                        }
                    },
                },
                () = second, if asked.len() < MAX_ABREAST && !begun.is_any() => {
                    asked.extend(left.next().map(|source| self.ask(source, hash, &begun)));
                }
            }
        }
    }

    async fn ask<'source>(
        &self,
        source: &'source Source,
        hash: &ItemHash,
        begun: &Begun,
    ) -> (&'source Source, Result<Found, Failure>) {
        let mut share = Share::none_yet(begun);
        let outcome = timeout(self.patience.source, self.ask_one(source, hash, &mut share)).await;
        (source, outcome.unwrap_or(Err(Failure::Long)))
    }

    async fn ask_one(&self, source: &Source, hash: &ItemHash, share: &mut Share<'_>) -> Result<Found, Failure> {
        if let Some(question) = source.bytes(hash) {
            match self.bytes(question, hash, share).await {
                // It may have it in another form: as a folder, or cut into pieces in another way.
                Err(Failure::Status(_) | Failure::Wrong(_)) if hash.engine() == Engine::Ipfs => {}
                outcome => return outcome,
            }
        }
        let Some(question) = source.archive(hash) else { return Err(Failure::Missing(hash.to_string())) };
        let mut blocks =
            OfSource { shared: self, source, share, spool: Spool::new(&self.files, self.max_bytes).await? };
        match blocks.read_archive(question).await {
            Err(failure) if failure.is_partial() && blocks.gives_blocks(hash) => {
                tracing::debug!("{hash}: {source} is asked block by block: {failure}");
            }
            outcome => outcome?,
        }
        let followed = dag::assemble(&self.files, hash, &mut blocks, self.max_bytes).await?;
        let found = Found { kind: followed.kind, size: followed.size };
        followed.publish(&self.files).await?;
        Ok(found)
    }

    /// Takes a file as its bytes.
    async fn bytes(&self, question: Question, hash: &ItemHash, share: &mut Share<'_>) -> Result<Found, Failure> {
        let too_large = || Failure::TooLarge(self.max_bytes);
        let mut answer = self.answer(question).await?;
        if answer.is_of_files() {
            return Err(Failure::Wrong("an archive of files".to_owned()));
        }
        if answer.length().is_some_and(|length| length > self.max_bytes) {
            return Err(too_large());
        }
        let mut writer = self.files.writer_of(hash).await?;
        while let Some(piece) = answer.next(share).await? {
            if writer.size() + piece.len() as u64 > self.max_bytes {
                return Err(too_large());
            }
            writer.write(&piece).await?;
        }
        let file = writer.finish().await?;
        if !file.is(hash) {
            return Err(Failure::Wrong(file.sha256.to_string()));
        }
        let size = file.size;
        self.files.publish(file, hash).await?;
        Ok(Found { kind: FileKind::File, size })
    }

    async fn answer(&self, question: Question) -> Result<Answer<'_>, Failure> {
        Answer::to(question, &self.client, &self.downloads, self.patience).await
    }
}

/// Takes the blocks out of the next piece of an archive.
async fn keep_blocks(reader: &mut CarReader, piece: &[u8], spool: &mut Spool) -> Result<(), Failure> {
    reader.push(piece);
    while let Some(item) = reader.next()? {
        match item {
            // What the archive says of itself is nothing to go by.
            Item::Roots(_) => {}
            Item::Block(cid, block) => spool.put(&cid, &block).await?,
        }
    }
    Ok(())
}

/// Blocks of an archive alone.
struct OfArchive(Spool);

impl Blocks for OfArchive {
    type Error = Failure;
    async fn block(&mut self, cid: &Cid) -> Result<Vec<u8>, Failure> {
        self.0.get(cid).await?.ok_or_else(|| Failure::Missing(cid.to_string()))
    }
}

/// Blocks of a source: those of the archive that it sent, and what is missing one by one.
struct OfSource<'fetch, 'share> {
    shared: &'fetch Shared,
    source: &'fetch Source,
    share: &'fetch mut Share<'share>,
    spool: Spool,
}

impl OfSource<'_, '_> {
    async fn read_archive(&mut self, question: Question) -> Result<(), Failure> {
        // A block that comes twice is kept once, so the room for blocks alone would not end an answer.
        let most = self.shared.max_bytes.saturating_mul(2).saturating_add(LEAST_ARCHIVE_BYTES);
        let (mut answer, mut reader) = (self.shared.answer(question).await?, CarReader::default());
        let mut received = 0;
        while let Some(piece) = answer.next(self.share).await? {
            received += piece.len() as u64;
            if received > most {
                return Err(Failure::TooLarge(most));
            }
            keep_blocks(&mut reader, &piece, &mut self.spool).await?;
        }
        reader.finish().map_err(CarError::into)
    }

    fn gives_blocks(&self, hash: &ItemHash) -> bool {
        Cid::try_from(hash).is_ok_and(|cid| self.source.block(&cid).is_some())
    }
}

impl Blocks for OfSource<'_, '_> {
    type Error = Failure;
    async fn block(&mut self, cid: &Cid) -> Result<Vec<u8>, Failure> {
        if let Some(block) = self.spool.get(cid).await? {
            return Ok(block);
        }
        let Some(question) = self.source.block(cid) else { return Err(Failure::Missing(cid.to_string())) };
        let (mut answer, mut block) = (self.shared.answer(question).await?, Vec::new());
        while let Some(piece) = answer.next(self.share).await? {
            if block.len() + piece.len() > MAX_BLOCK_BYTES {
                return Err(Failure::TooLarge(MAX_BLOCK_BYTES as u64));
            }
            block.extend_from_slice(&piece);
        }
        if !cid.names(&block) {
            return Err(Failure::Wrong(format!("not the block {cid}")));
        }
        self.spool.put(cid, &block).await?;
        Ok(block)
    }
}
