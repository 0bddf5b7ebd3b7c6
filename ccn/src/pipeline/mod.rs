//! From bytes to a verdict.
//!
//! What can be said of a message alone (form, signature, schema) is found out on many threads; what depends on other messages is decided by one, in
//! order ([`owner`]). A message that lacks something waits for that very thing and is decided again when it arrives; no timer decides, timers only
//! say what shows meanwhile.

mod chains;
mod decide;
mod desk;
mod digest_log;
mod facts;
mod funds;
mod owner;
mod permission;
mod plugins;
mod rank;
pub(crate) mod ration;
pub(crate) mod rebuild;
mod removal;
mod review;
mod stage;
mod turns;
mod wakes;
mod withdraw;

use crate::{
    config::Config,
    events::Events,
    fetch::Fetcher,
    files::Files,
    host::{HostError, Plugin, Plugins},
    store::{
        Reader, Snapshot, Store, StoreError,
        record::{CostLineRecord, NeedRecord, PaymentRecord, RejectionRecord},
        schema::{Table, end_of},
    },
};
use ccn_message::{Envelope, FormatError, ItemHash, MessageStatus, envelope::ContentHeader};
use digest_log::DigestLog;
use futures_util::{StreamExt as _, stream};
use owner::{Input, Owner};
use ration::Ration;
use stage::{NotAMessage, Prepared};
use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::JoinHandle,
    time::Instant,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;
use turns::Turns;

pub use crate::store::record::FileKind;
pub(crate) use funds::Funds;
pub use review::Reviewed;
pub use stage::MAX_CONTENT_BYTES;

/// Messages of a bulk that are verified in one go, by one thread.
const BULK_STEP: usize = 32;
/// Steps of a bulk that are verified before their turn, for each thread.
const STEPS_AHEAD: usize = 2;

/// The way in. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    shared: Arc<Shared>,
}

/// The way in, for those that must not keep it open.
#[derive(Debug)]
pub(crate) struct WeakPipeline(Weak<Shared>);

impl WeakPipeline {
    /// The way in, as long as somebody else keeps it open.
    pub(crate) fn upgrade(&self) -> Option<Pipeline> {
        Some(Pipeline { shared: self.0.upgrade()? })
    }
}

#[derive(Debug)]
struct Shared {
    store: Store,
    files: Files,
    plugins: Arc<Plugins>,
    events: Events,
    /// Places on the way in.
    places: Arc<Semaphore>,
    /// Places of messages that come in bulk: whoever delivers them waits for one, and takes none from those who send a single one.
    bulk_places: Arc<Semaphore>,
    /// Threads that verify and validate.
    workers: Arc<Semaphore>,
    owner: mpsc::Sender<Input>,
    /// Cancelled when the one who decides has ended, in whatever way.
    ended: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// From which height of its first confirmation on holdings are asked of a message.
    paid_from_height: u64,
}

/// What became of a message, as of a moment that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its hash.
    pub item_hash: ItemHash,
    /// Its status. A refused copy of a message that stands is `Rejected` here, and the message keeps its own status.
    pub status: MessageStatus,
    /// Why it was refused.
    pub rejection: Option<RejectionRecord>,
}

/// Why a message was not taken in. It has left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It is no message (code 0). The sender's fault.
    #[error("{error}")]
    Format {
        /// Its hash, as far as it could be read.
        item_hash: Option<ItemHash>,
        /// What is wrong.
        error: FormatError,
    },
    /// Too much is going on: try again later.
    #[error("too many messages are on their way to the store; send it again in a few seconds")]
    Overloaded,
    /// The node failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What the node itself gets wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The store failed. The operator's to solve; nothing was changed.
    #[error("{0}")]
    Store(String),
    /// The file that was announced is not in the folder.
    #[error("file {0} is not in the folder of files")]
    NoSuchFile(ItemHash),
    /// A plugin could not be run on this machine.
    #[error("{0}")]
    Plugin(String),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// A message that is asked about and was never signed.
#[derive(Debug, Clone, PartialEq)]
pub struct PriceRequest {
    /// Message type.
    pub kind: String,
    /// Who would sign.
    pub sender: String,
    /// Chain.
    pub chain: String,
    /// Channel.
    pub channel: Option<String>,
    /// Envelope's time, seconds since 1970.
    pub time: f64,
    /// The content's JSON.
    pub content: String,
}

/// What a message would cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// Who would pay.
    pub address: String,
    /// How.
    pub payment: PaymentRecord,
    /// Rows.
    pub lines: Vec<CostLineRecord>,
    /// False when the message would pass whatever its owner's funds.
    pub enforced: bool,
}

/// Why there is no price.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// It is no message. The client's fault.
    #[error("{0}")]
    Format(FormatError),
    /// The rules refuse it.
    #[error("refused with code {code}: {}", errors.join(", "))]
    Rejected {
        /// The public code.
        code: i32,
        /// JSON values as text.
        errors: Vec<String>,
    },
    /// Too much is going on: try again later.
    #[error("too many questions at once; ask again in a few seconds")]
    Overloaded,
    /// The plugin failed.
    #[error("{0}")]
    Plugin(String),
    /// The node failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Pipeline {
    /// Starts the one who decides.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        config: &Config,
        store: Store,
        files: Files,
        plugins: Arc<Plugins>,
        fetcher: Fetcher,
    ) -> io::Result<Self> {
        /// Stack of the thread: a plugin's, and room.
        const STACK_BYTES: usize = 8 << 20;
        let events = Events::new();
        // A place for each message, each step of a bulk, and one more: files and the end are never refused for want of one.
        let (owner, inputs) = mpsc::channel(2 * config.pipeline.queue + 1);
        let work = Owner {
            store: store.clone(),
            files: files.clone(),
            plugins: plugins.clone(),
            fetcher: fetcher.clone(),
            events: events.clone(),
            settings: config.pipeline.clone(),
            ration: Ration::new(Instant::now()),
            turns: Turns::new(Instant::now()),
            inputs,
            again: RefCell::default(),
            digest_log: DigestLog::default(),
            timer: None,
        };
        let runtime = Handle::current();
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let thread = std::thread::Builder::new().name("owner".into()).stack_size(STACK_BYTES).spawn(move || {
            let _at_its_end = guard;
            work.run(&runtime);
        })?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let pipeline = Self {
            shared: Arc::new(Shared {
                store,
                files,
                plugins,
                events,
                places: Arc::new(Semaphore::new(config.pipeline.queue)),
                bulk_places: Arc::new(Semaphore::new(config.pipeline.queue.max(BULK_STEP))),
                workers: Arc::new(Semaphore::new(workers)),
                owner,
                ended,
                thread: Mutex::new(Some(thread)),
                paid_from_height: config.network.paid_from_height,
            }),
        };
        fetcher.announce_to(WeakPipeline(Arc::downgrade(&pipeline.shared)));
        Ok(pipeline)
    }

    /// Finishes what has begun. What comes later is refused.
    pub async fn stop(&self) {
        self.shared.places.close();
        self.shared.bulk_places.close();
        let _ = self.shared.owner.send(Input::Stop).await;
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("the thread that decides ended in a panic");
            }
        }
    }

    /// Waits until the one who decides has ended: told to, or in a panic.
    pub async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }

    /// Takes a message in. Answers once the verdict, or the fact that it waits, is durable.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, envelope_json: String) -> Result<Receipt, SubmitError> {
        self.take_in(envelope_json, stage::receive).await
    }

    async fn take_in(&self, envelope_json: String, check: Check) -> Result<Receipt, SubmitError> {
        let _place = self.place().map_err(|refusal| match refusal {
            NoPlace::Full => SubmitError::Overloaded,
            NoPlace::Stopped => EngineError::Stopped.into(),
        })?;
        let shared = self.shared.clone();
        let received = self.on_worker(move || {
            let snapshot = shared.store.snapshot().map_err(EngineError::from)?;
            shared.receive(&snapshot, &envelope_json, check)
        });
        match received.await?? {
            Received::Known(receipt) => Ok(receipt),
            Received::New(prepared) => self.decided(prepared).await,
        }
    }

    async fn decided(&self, prepared: Box<Prepared>) -> Result<Receipt, SubmitError> {
        let (reply, receipt) = oneshot::channel();
        self.send(Input::Message { prepared, reply }).await?;
        receipt.await.map_err(|_| EngineError::Stopped)?
    }

    /// Takes many messages in, as peers and archives deliver them: verified on all threads, decided in their order. Waits for places where there
    /// are none, and answers once all verdicts are durable, in the order of the messages.
    pub async fn submit_bulk(&self, envelopes: Vec<String>) -> Vec<Result<Receipt, SubmitError>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut all = Vec::with_capacity(envelopes.len());
        let mut left = envelopes.into_iter();
        let steps = std::iter::from_fn(|| {
            let step: Vec<String> = left.by_ref().take(BULK_STEP).collect();
            (!step.is_empty()).then_some(step)
        });
        let verified = stream::iter(steps).map(|step| self.verify_step(step)).buffered(STEPS_AHEAD * threads);
        let sent = verified.then(|(count, verified)| async move {
            let (reply, receipts) = oneshot::channel();
            let sent = match verified {
                Ok((messages, places)) => self.send(Input::Bulk { messages, places, reply }).await,
                Err(error) => Err(error),
            };
            (count, sent.map(|()| receipts))
        });
        for (count, receipts) in sent.collect::<Vec<_>>().await {
            let failure = match receipts {
                Ok(receipts) => match receipts.await {
                    Ok(receipts) => {
                        all.extend(receipts);
                        continue;
                    }
                    Err(_) => EngineError::Stopped,
                },
                Err(error) => error,
            };
            all.extend((0..count).map(|_| Err(failure.clone().into())));
        }
        all
    }

    /// A file or the archive of a folder lies in the folder of files: records it, keeps it for a while even if nothing refers to it, and wakes what
    /// waits for it. The size of a folder is IPFS's `CumulativeSize`.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn add_file(&self, hash: ItemHash, size: u64, kind: FileKind) -> Result<(), EngineError> {
        tracing::debug!("{hash} with {size} bytes is here");
        self.done(|reply| Input::File { hash, size, kind, reply }).await
    }

    /// What a message would cost; nothing is verified. None when messages of its type have no price.
    ///
    /// # Errors
    /// See [`PriceError`].
    pub async fn price(&self, message: PriceRequest) -> Result<Option<Costs>, PriceError> {
        let _place = self.place().map_err(|refusal| match refusal {
            NoPlace::Full => PriceError::Overloaded,
            NoPlace::Stopped => EngineError::Stopped.into(),
        })?;
        let shared = self.shared.clone();
        self.on_worker(move || shared.price(message)).await?
    }

    /// True when nobody waits for what has arrived, or for time: what waits now lacks something.
    ///
    /// # Errors
    /// The store fails.
    pub fn is_at_rest(&self) -> Result<bool, EngineError> {
        let snapshot = self.shared.store.snapshot()?;
        let turn = |plugin: Arc<Plugin>| NeedRecord::PluginTurn(plugin.manifest().name.clone());
        let turns = self.shared.plugins.all().into_iter().map(turn).chain([NeedRecord::Turn]);
        let waiting = turns.map(|need| (Table::Needs, desk::need_key(&need))).chain([(Table::Wakes, Vec::new())]);
        for (table, prefix) in waiting {
            if !snapshot.range(table, &prefix, &end_of(&prefix), 1, false)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What happens.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Verifies a step of a bulk. Returns its length, too.
    async fn verify_step(
        &self,
        step: Vec<String>,
    ) -> (usize, Result<(Vec<Result<Received, SubmitError>>, OwnedSemaphorePermit), EngineError>) {
        let count = step.len();
        let work = async {
            let places = self.shared.bulk_places.clone().acquire_many_owned(BULK_STEP as u32).await;
            let places = places.map_err(|_| EngineError::Stopped)?;
            let shared = self.shared.clone();
            let received = self.on_worker(move || {
                let snapshot = shared.store.snapshot()?;
                Ok::<_, EngineError>(step.iter().map(|text| shared.receive(&snapshot, text, stage::receive)).collect())
            });
            Ok((received.await??, places))
        };
        (count, work.await)
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, NoPlace> {
        self.shared.places.clone().try_acquire_owned().map_err(|error| match error {
            tokio::sync::TryAcquireError::NoPermits => NoPlace::Full,
            tokio::sync::TryAcquireError::Closed => NoPlace::Stopped,
        })
    }

    async fn on_worker<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
        let worker = self.shared.workers.clone().acquire_owned().await.map_err(|_| EngineError::Stopped)?;
        let task = tokio::task::spawn_blocking(move || {
            let _worker = worker;
            work()
        });
        task.await.map_err(|error| EngineError::Plugin(error.to_string()))
    }

    async fn send(&self, input: Input) -> Result<(), EngineError> {
        self.shared.owner.send(input).await.map_err(|_| EngineError::Stopped)
    }
}

/// Why there is no place on the way in.
enum NoPlace {
    Full,
    Stopped,
}

/// How a message from outside is checked before its turn.
type Check = fn(Envelope, Option<&Files>, &Plugins) -> io::Result<Result<Prepared, NotAMessage>>;

/// What a text turned out to be.
#[derive(Debug)]
enum Received {
    /// A message that is decided already.
    Known(Receipt),
    /// A message for the one who decides.
    New(Box<Prepared>),
}

/// The files, unless they are far and what they are asked for is not recorded: then somebody looks for it whom nobody waits for.
fn worth_asking<'files>(
    files: &'files Files,
    reader: &impl Reader,
    envelope: &Envelope,
) -> Result<Option<&'files Files>, EngineError> {
    let is_worth_it = envelope.item_content.is_some() || !files.is_far() || reader.file(&envelope.item_hash)?.is_some();
    Ok(is_worth_it.then_some(files))
}

impl Shared {
    fn receive(&self, snapshot: &Snapshot, text: &str, check: Check) -> Result<Received, SubmitError> {
        let format = |refused: NotAMessage| SubmitError::Format { item_hash: refused.item_hash, error: refused.error };
        let envelope = stage::parse(text).map_err(format)?;
        if let Some(receipt) = known(snapshot, &envelope)? {
            return Ok(Received::Known(receipt));
        }
        let files = worth_asking(&self.files, snapshot, &envelope)?;
        let received = check(envelope, files, &self.plugins);
        let received = received.map_err(|error| EngineError::Store(error.to_string()))?;
        Ok(Received::New(Box::new(received.map_err(format)?)))
    }

    fn price(&self, message: PriceRequest) -> Result<Option<Costs>, PriceError> {
        let header = ContentHeader::parse(&message.content).map_err(PriceError::Format)?;
        let Some(plugin) = self.plugins.for_kind(&message.kind) else {
            let error = FormatError::new("type", "no plugin of this node knows this message type");
            return Err(PriceError::Format(error));
        };
        let shown = crate::host::contract::Message {
            item_hash: ItemHash::sha256_of(message.content.as_bytes()).to_string(),
            kind: message.kind,
            sender: message.sender,
            chain: message.chain,
            channel: message.channel,
            address: header.address.clone(),
            time: header.time,
            envelope_time: message.time,
            content: message.content.into_bytes(),
        };
        let snapshot = Arc::new(self.store.snapshot().map_err(EngineError::from)?);
        let price = match plugin.price(&shown, snapshot) {
            Ok(Ok(price)) => price,
            Ok(Err(rejection)) => {
                return Err(PriceError::Rejected { code: rejection.code, errors: rejection.errors });
            }
            Err(HostError::Store(error)) => return Err(EngineError::from(error).into()),
            Err(error) => return Err(PriceError::Plugin(error.to_string())),
        };
        Ok(price.map(|price| Costs {
            address: header.address,
            payment: price.payment,
            lines: price.lines,
            enforced: price.enforced,
        }))
    }
}

/// The receipt for the very copy of a message that stands: nothing about it has to be checked again.
fn known(snapshot: &Snapshot, envelope: &Envelope) -> Result<Option<Receipt>, EngineError> {
    let stored = snapshot.message(&envelope.item_hash)?;
    if !stored.is_some_and(|stored| rank::is_stored(envelope, &stored)) {
        return Ok(None);
    }
    let status = snapshot.status(&envelope.item_hash)?.map_or(MessageStatus::Processed, |row| row.status());
    Ok(Some(Receipt { item_hash: envelope.item_hash.clone(), status, rejection: None }))
}

#[cfg(test)]
mod tests;
