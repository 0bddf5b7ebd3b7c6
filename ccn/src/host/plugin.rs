//! One plugin: a compiled component, what it may do, and a fresh instance for every message.
//!
//! What has validated a message goes on to process it: starting an instance takes longer than most plugins take for a message. Nothing of one
//! message is left for another, and `process` finds the same instance on every node and at every repetition: one that has validated this very
//! message and nothing else.

use super::{
    FailureClass, HostError, Manifest, ManifestError, Response,
    bindings::{MessageHandler, MessageHandlerPre, exports::aleph::plugin::query},
    contract,
    failure::class_of,
    health::Health,
    histogram::Histogram,
    instance::{self, Instance},
    outcome::{self, Outcome, Overrun, Plan, Price, Rejection},
    profile::{self, PROFILE},
    route::Route,
    view::{Access, Host, ViewFault},
};
use crate::{
    pipeline::ration::Ration,
    store::{Reader, record::NamespaceRecord, schema::Table},
};
use serde::Serialize;
use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::{
    Engine, Store, Trap,
    component::{Component, HasSelf, Linker},
};

/// MiB of instances that have validated their message and wait for its turn, in the whole process; the others are started again for it.
static KEPT: Semaphore = Semaphore::const_new(profile::KEPT_MEMORY_MIB as usize);
/// The interfaces that a plugin may import.
const IMPORTS: [&str; 4] =
    ["aleph:plugin/types@0.2.0", "aleph:plugin/view@0.2.0", "aleph:plugin/crypto@0.2.0", "aleph:plugin/log@0.2.0"];

/// Calls of a plugin that has just come that are made twice.
const FIRST_CALLS_TWICE: u64 = 20;
/// After them, one call in so many is made twice.
const TWICE_EVERY: u64 = 200;
/// Time of a call that a plugin of the operator's own has for nothing; what goes beyond it is taken from its ration, and so is the whole of a
/// call that fails, more than once when many do ([`Health::weight`]).
const FREE_TIME: Duration = Duration::from_millis(1);
/// One part in so many of a thread's time is a plugin's ration.
const RATION_SHARE: u32 = 32;
/// What may be saved up.
const RATION_MOST: Duration = Duration::from_millis(100);

/// Where a plugin is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The program itself.
    Bundled,
    /// A file of the operator's.
    File(PathBuf),
}

/// A plugin that can be called.
pub struct Plugin {
    manifest: Manifest,
    sha256: String,
    origin: Origin,
    granted: Granted,
    access: Arc<Access>,
    engine: Engine,
    pre: MessageHandlerPre<Host>,
    routes: Vec<Route>,
    counters: Counters,
    health: Mutex<Health>,
    /// Time beyond what is free; of the operator's own plugins only.
    ration: Mutex<Ration>,
    /// Why it is not called any more.
    suspended: OnceLock<String>,
    /// Which calls are made twice: none can foresee it.
    salt: u64,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("name", &self.manifest.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    waiting: AtomicU64,
    queries: AtomicU64,
    twice: AtomicU64,
    deferred: AtomicU64,
    failed: [AtomicU64; 4],
    fuel: AtomicU64,
    micros: AtomicU64,
    memory_peak_kib: AtomicU64,
    /// Of calls for messages.
    fuels: Histogram,
    /// The same, microseconds.
    times: Histogram,
}

/// What a plugin has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Calls of all kinds.
    pub calls: u64,
    /// Messages that it accepted.
    pub accepted: u64,
    /// Messages that it refused.
    pub rejected: u64,
    /// Messages that it let wait.
    pub waiting: u64,
    /// Calls that failed.
    pub failed: Failures,
    /// Questions that it answered.
    pub queries: u64,
    /// Calls that were made a second time, to compare.
    pub twice: u64,
    /// Messages that waited because it had used up its time.
    pub deferred: u64,
    /// Fuel of all calls for messages.
    pub fuel: u64,
    /// Microseconds of all calls.
    pub micros: u64,
    /// Memory of the call that took most, KiB.
    pub memory_peak_kib: u64,
    /// Fuel of calls for messages.
    pub fuel_per_call: Quantiles,
    /// Microseconds of calls for messages.
    pub micros_per_call: Quantiles,
}

/// Calls that failed, by whose trouble that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Failures {
    /// [`FailureClass::Deterministic`].
    pub deterministic: u64,
    /// [`FailureClass::OutOfFuel`].
    pub out_of_fuel: u64,
    /// [`FailureClass::NotPortable`].
    pub not_portable: u64,
    /// [`FailureClass::Node`].
    pub node: u64,
}

/// What half of the calls, and all but one in a hundred, do not exceed; an eighth too high at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
}

/// How a plugin is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginState {
    /// It is called.
    Active,
    /// It is being compiled.
    Compiling,
    /// Its state is being made from the messages that are stored.
    Rebuilding,
    /// It is no plugin of this node.
    Refused,
    /// It is not called any more; its messages wait.
    Suspended,
    /// Its file is gone; its state is still there.
    Removed,
}

/// What can be said of a plugin, or of a file that is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginInfo {
    /// Its name; of a file whose manifest cannot be read, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Of its file, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// `bundled` or `file`.
    pub origin: &'static str,
    /// The file's name in the folder of plugins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How it is doing.
    pub state: PluginState,
    /// Why, when it is refused or suspended; how far, when it is being rebuilt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Message types.
    pub types: Vec<String>,
    /// Route patterns.
    pub routes: Vec<String>,
    /// The engine profile that it runs under.
    pub profile: &'static str,
    /// What a call may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<super::Limits>,
    /// What its manifest asks for beyond its own state.
    pub asks: Vec<String>,
    /// What it has of that.
    pub grants: Vec<String>,
    /// What it has done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
}

/// Why a component cannot be a plugin here. Its author's to mend.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// What it says of itself.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What it wants from its host.
    #[error("it imports {0}, which the contract does not have")]
    Import(String),
    /// Its functions.
    #[error("it does not fit the contract: {0}")]
    Contract(String),
    /// What it wants to answer.
    #[error("`{0}` is no route pattern under `/api/`")]
    Route(String),
}

/// What a plugin was granted.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted {
    pub(super) readable: Vec<String>,
    pub(super) may_move: bool,
    pub(super) may_forget: bool,
}

impl Plugin {
    /// Links a component with the view.
    pub(super) fn prepare(
        engine: &Engine,
        component: &Component,
        manifest: Manifest,
        sha256: String,
        origin: Origin,
        granted: Granted,
        settings: Arc<BTreeMap<String, String>>,
    ) -> Result<Self, PrepareError> {
        instance::check_imports(engine, component, &IMPORTS)?;
        let contract = |error: wasmtime::Error| PrepareError::Contract(format!("{error:#}"));
        let mut linker = Linker::<Host>::new(engine);
        MessageHandler::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host).map_err(contract)?;
        let pre = linker.instantiate_pre(component).and_then(MessageHandlerPre::new).map_err(contract)?;
        let routes = instance::routes(&manifest)?;
        let access = Access {
            plugin: manifest.name.clone(),
            namespace: manifest.namespace().to_owned(),
            table: Table::State,
            readable: granted.readable.clone(),
            settings,
            memory_bytes: (manifest.limits.memory_mib << 20) as usize,
        };
        let mut salt = [0; 8];
        // Without randomness a guess is a little easier, and nothing else is.
        let _ = getrandom::fill(&mut salt);
        Ok(Self {
            manifest,
            sha256,
            origin,
            granted,
            access: Arc::new(access),
            engine: engine.clone(),
            pre,
            routes,
            counters: Counters::default(),
            health: Mutex::default(),
            ration: Mutex::new(Ration::of(RATION_SHARE, RATION_MOST, Instant::now())),
            suspended: OnceLock::new(),
            salt: u64::from_le_bytes(salt),
        })
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Of its file, hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// True for one of the node's own.
    #[must_use]
    pub fn is_bundled(&self) -> bool {
        self.origin == Origin::Bundled
    }

    /// Where it is from.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// True for the plugin that one of this origin would replace. The node's own replace nothing.
    pub(super) fn is_from(&self, origin: &Origin) -> bool {
        matches!(origin, Origin::File(_)) && self.origin == *origin
    }

    /// The operator's file that it is from.
    pub(super) fn file(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Bundled => None,
            Origin::File(path) => Some(path),
        }
    }

    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Why it is not called any more, if it is not.
    #[must_use]
    pub fn suspended(&self) -> Option<&str> {
        self.suspended.get().map(String::as_str)
    }

    /// Has it not be called any more.
    pub(super) fn suspend(&self, reason: String) {
        if self.suspended.set(reason.clone()).is_ok() {
            tracing::error!(
                "the plugin {} is suspended: {reason}; its messages wait until it is replaced or resumed",
                self.manifest.name
            );
        }
    }

    /// False when it has used up its time: what comes for it has to wait.
    #[must_use]
    pub fn may_run(&self) -> bool {
        let may = self.is_bundled() || self.ration().may_begin(Instant::now());
        if !may {
            self.counters.deferred.fetch_add(1, Ordering::Relaxed);
        }
        may
    }

    /// Gives it time for a call: nobody else wants any.
    pub(crate) fn forgive(&self) {
        self.ration().forgive();
    }

    /// How long until it may be called again.
    #[must_use]
    pub fn wait(&self) -> Duration {
        if self.is_bundled() { Duration::ZERO } else { self.ration().wait() }
    }

    fn ration(&self) -> std::sync::MutexGuard<'_, Ration> {
        self.ration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose its state is.
    pub(crate) fn namespace_record(&self) -> NamespaceRecord {
        let Manifest { name, version, types, .. } = &self.manifest;
        NamespaceRecord {
            namespace: self.manifest.namespace().to_owned(),
            version: self.manifest.state_version(),
            plugin: name.clone(),
            release: version.clone(),
            sha256: self.sha256.clone(),
            types: types.clone(),
        }
    }

    /// What it has done since it was started.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.counters.statistics()
    }

    /// What can be said of it.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        let Granted { readable, may_move, may_forget } = &self.granted;
        let read = readable.iter().map(|namespace| format!("read:{namespace}"));
        let statistics = Some(self.statistics());
        let words = [(may_move, super::manifest::LEDGER), (may_forget, super::manifest::HIDE)];
        let words = words.into_iter().filter(|(granted, _)| **granted).map(|(_, word)| word.to_owned());
        let grants = words.chain(read).collect();
        let (state, reason) = match self.suspended() {
            None => (PluginState::Active, None),
            Some(reason) => (PluginState::Suspended, Some(reason.to_owned())),
        };
        let of_manifest = PluginInfo::of_manifest(&self.manifest, &self.sha256, self.file());
        PluginInfo { state, reason, grants, statistics, ..of_manifest }
    }

    /// The schema: a function of the message alone.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn validate(&self, message: &contract::Message) -> Result<Result<Plan, Rejection>, HostError> {
        Ok(self.examine(message)?.map(|(plan, _)| plan))
    }

    /// The schema, and where it is fulfilled and there is room the instance that goes on to the meaning.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn examine(
        &self,
        message: &contract::Message,
    ) -> Result<Result<(Plan, Option<Session>), Rejection>, HostError> {
        let (found, instance) =
            self.call_for_message(|| self.start(), None, |store, plugin| validate(store, plugin, message))?;
        self.checked(match found {
            Ok(plan) => outcome::plan(plan).map(|plan| {
                let mib = u32::try_from(instance.memory_peak_kib().div_ceil(1024)).unwrap_or(u32::MAX);
                let place = KEPT.try_acquire_many(mib.max(profile::KEPT_AT_LEAST_MIB)).ok();
                Ok((plan, place.map(|place| Session { instance, _place: place })))
            }),
            Err(rejection) => outcome::rejection(rejection).map(Err),
        })
    }

    /// The meaning.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn process(
        &self,
        message: &contract::Message,
        reader: Arc<dyn Reader + Send + Sync>,
    ) -> Result<Outcome, HostError> {
        self.process_in(None, message, reader)
    }

    /// The meaning, by the instance that has validated this very message, or by one that does so now.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn process_in(
        &self,
        session: Option<Session>,
        message: &contract::Message,
        reader: Arc<dyn Reader + Send + Sync>,
    ) -> Result<Outcome, HostError> {
        let kept = Cell::new(session.map(|session| session.instance));
        let instance = || kept.take().map_or_else(|| self.validated(message), Ok);
        let (found, _) = self.call_for_message(instance, Some(reader), |store, plugin| {
            plugin.aleph_plugin_handler().call_process(store, message)
        })?;
        let outcome = self.checked(outcome::outcome(found, &self.manifest.limits, &message.address, &self.granted))?;
        let counter = match &outcome {
            Outcome::Accepted(_) => &self.counters.accepted,
            Outcome::Rejected(_) => &self.counters.rejected,
            Outcome::Waiting { .. } => &self.counters.waiting,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(outcome)
    }

    /// What a message that stood takes back from the state.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn withdraw(
        &self,
        message: &contract::Message,
        why: contract::Withdrawal,
        reader: Arc<dyn Reader + Send + Sync>,
    ) -> Result<Vec<outcome::Write>, HostError> {
        let (found, _) = self.call_for_message(
            || self.start(),
            Some(reader),
            |store, plugin| plugin.aleph_plugin_handler().call_withdraw(store, message, why),
        )?;
        self.checked(outcome::writes(found, &self.manifest.limits))
    }

    /// What a message would cost.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn price(
        &self,
        message: &contract::Message,
        reader: Arc<dyn Reader + Send + Sync>,
    ) -> Result<Result<Option<Price>, Rejection>, HostError> {
        let found = self.call_once(reader, |store, plugin| plugin.aleph_plugin_handler().call_price(store, message))?;
        self.checked(match found {
            Ok(costs) => costs.map(outcome::price).transpose().map(Ok),
            Err(rejection) => outcome::rejection(rejection).map(Err),
        })
    }

    /// Answers a question to one of its routes.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn query(
        &self,
        route: &str,
        path: Vec<(String, String)>,
        parameters: Vec<(String, String)>,
        reader: Arc<dyn Reader + Send + Sync>,
    ) -> Result<Response, HostError> {
        let request = query::Request { route: route.to_owned(), path, parameters };
        let found = self.call_once(reader, |store, plugin| plugin.aleph_plugin_query().call_run(store, &request))?;
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        self.checked(outcome::check_response(found.status, &found.content_type, &found.body))?;
        Ok(Response { status: found.status, content_type: found.content_type, body: found.body })
    }

    fn checked<T>(&self, result: Result<T, Overrun>) -> Result<T, HostError> {
        result.map_err(|reason| {
            let error = HostError::Overrun { plugin: self.manifest.name.clone(), reason };
            self.count_failure(&error);
            error
        })
    }

    fn count_failure(&self, error: &HostError) {
        self.counters.failed[error.class() as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Runs an instance for a message, now and then another one on the same: a pure function gives the same answer for the same fuel. Gives
    /// back the first one with its answer.
    fn call_for_message<T: PartialEq>(
        &self,
        instance: impl Fn() -> Result<Handler, HostError>,
        reader: Option<Arc<dyn Reader + Send + Sync>>,
        run: impl Fn(&mut Store<Host>, &MessageHandler) -> wasmtime::Result<T>,
    ) -> Result<(T, Handler), HostError> {
        if let Some(reason) = self.suspended() {
            return Err(HostError::Suspended { plugin: self.manifest.name.clone(), reason: reason.to_owned() });
        }
        let started = Instant::now();
        let number = self.counters.calls.fetch_add(1, Ordering::Relaxed);
        let first = self.call(&instance, reader.clone(), &run);
        // Out of fuel is a verdict: it is not given for one run.
        let twice = matches!(first.result, Err(HostError::OutOfFuel { .. }))
            || number < FIRST_CALLS_TWICE
            || number.wrapping_add(self.salt).is_multiple_of(TWICE_EVERY);
        if twice && !first.is_the_nodes_trouble() {
            self.counters.twice.fetch_add(1, Ordering::Relaxed);
            let second = self.call(&instance, reader, &run);
            if !second.is_the_nodes_trouble()
                && let Some(difference) = first.difference(&second)
            {
                self.suspend(format!("it is not deterministic: {difference}"));
                let reason = self.suspended().unwrap_or_default().to_owned();
                return Err(HostError::Suspended { plugin: self.manifest.name.clone(), reason });
            }
        }
        self.counters.fuel.fetch_add(first.fuel, Ordering::Relaxed);
        self.counters.fuels.add(first.fuel);
        let taken = started.elapsed();
        self.counters.times.add(outcome::micros(taken));
        let failure = first.result.as_ref().err().map(HostError::class);
        if !self.is_bundled() {
            // One of the node's own is never suspended for what strangers make it do, or they could end a type for all.
            let (verdict, weight) = {
                let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
                (health.record(failure), health.weight())
            };
            self.ration().used(if failure.is_some() { taken * weight } else { taken.saturating_sub(FREE_TIME) });
            if let Some(reason) = verdict {
                self.suspend(reason);
            }
        }
        first.result
    }

    /// Runs a fresh instance.
    fn call_once<T>(
        &self,
        reader: Arc<dyn Reader + Send + Sync>,
        run: impl FnOnce(&mut Store<Host>, &MessageHandler) -> wasmtime::Result<T>,
    ) -> Result<T, HostError> {
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        self.call(|| self.start(), Some(reader), run).result.map(|(answer, _)| answer)
    }

    fn call<T>(
        &self,
        instance: impl FnOnce() -> Result<Handler, HostError>,
        reader: Option<Arc<dyn Reader + Send + Sync>>,
        run: impl FnOnce(&mut Store<Host>, &MessageHandler) -> wasmtime::Result<T>,
    ) -> Call<T> {
        let started = Instant::now();
        let mut fuel = 0;
        let result = instance().and_then(|mut instance| {
            let (answer, used) = self.run(&mut instance, reader, run);
            fuel = used;
            self.counters.memory_peak_kib.fetch_max(instance.memory_peak_kib(), Ordering::Relaxed);
            Ok((answer?, instance))
        });
        self.counters.micros.fetch_add(outcome::micros(started.elapsed()), Ordering::Relaxed);
        if let Err(error) = &result {
            self.count_failure(error);
        }
        Call { result, fuel }
    }

    /// Starts an instance.
    fn start(&self) -> Result<Handler, HostError> {
        let started = Instance::start(&self.engine, &self.access, |store| self.pre.instantiate(store));
        started.map_err(|error| failure(&self.manifest.name, self.manifest.limits.fuel, error))
    }

    /// An instance that has validated a message, which is known to be valid.
    fn validated(&self, message: &contract::Message) -> Result<Handler, HostError> {
        let mut instance = self.start()?;
        let (answer, _) = self.run(&mut instance, None, |store, plugin| validate(store, plugin, message));
        answer.map(|_| instance)
    }

    /// Runs an instance with a full tank. Returns the fuel that it used, too.
    fn run<T>(
        &self,
        instance: &mut Handler,
        reader: Option<Arc<dyn Reader + Send + Sync>>,
        run: impl FnOnce(&mut Store<Host>, &MessageHandler) -> wasmtime::Result<T>,
    ) -> (Result<T, HostError>, u64) {
        let fuel = self.manifest.limits.fuel;
        let (answer, used) = instance.call(reader, fuel, run);
        (answer.map_err(|error| failure(&self.manifest.name, fuel, error)), used)
    }
}

/// Whose problem an error is.
pub(super) fn failure(plugin: &str, fuel: u64, error: wasmtime::Error) -> HostError {
    let plugin = plugin.to_owned();
    let error = match error.downcast::<ViewFault>() {
        Ok(ViewFault::Store(error)) => return HostError::Store(error),
        Ok(ViewFault::Overrun(reason)) => return HostError::Overrun { plugin, reason },
        Ok(ViewFault::Machine(reason)) => return HostError::Node { plugin, reason },
        Err(error) => error,
    };
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return HostError::Node { plugin, reason: error.to_string() };
    }
    // An answer that is none of the contract: text that is not UTF-8, pointers to nowhere.
    let Some(trap) = error.downcast_ref::<Trap>() else {
        return HostError::Trapped { plugin, reason: error.root_cause().to_string() };
    };
    match class_of(*trap) {
        Some(FailureClass::Deterministic) => HostError::Trapped { plugin, reason: trap.to_string() },
        Some(FailureClass::OutOfFuel) => HostError::OutOfFuel { plugin, fuel },
        Some(FailureClass::NotPortable) => HostError::NotPortable { plugin, reason: trap.to_string() },
        Some(FailureClass::Node) if *trap == Trap::Interrupt => {
            HostError::Node { plugin, reason: "it took too long on this machine".into() }
        }
        Some(FailureClass::Node) | None => HostError::Node { plugin, reason: trap.to_string() },
    }
}

/// A plugin in a memory of its own.
type Handler = Instance<MessageHandler>;

/// An instance that has validated a message and waits to process it.
pub struct Session {
    instance: Handler,
    _place: SemaphorePermit<'static>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").finish_non_exhaustive()
    }
}

fn validate(
    store: &mut Store<Host>,
    plugin: &MessageHandler,
    message: &contract::Message,
) -> wasmtime::Result<Result<contract::Plan, contract::Rejection>> {
    plugin.aleph_plugin_handler().call_validate(store, message)
}

/// One run.
struct Call<T> {
    result: Result<(T, Handler), HostError>,
    fuel: u64,
}

impl<T: PartialEq> Call<T> {
    fn is_the_nodes_trouble(&self) -> bool {
        self.result.as_ref().is_err_and(|error| error.class() == FailureClass::Node)
    }

    /// What is not the same in another run on the same arguments.
    fn difference(&self, other: &Self) -> Option<String> {
        match (&self.result, &other.result) {
            (Ok((one, _)), Ok((two, _))) if one != two => Some("two runs on one message gave two answers".into()),
            // How deep the stack goes is the same here and now; it need not be in another build.
            (Err(one), Err(two)) if one.class() != two.class() => {
                Some(format!("two runs on one message ended differently: {one}; {two}"))
            }
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
                Some(format!("one of two runs on one message ended in an error: {error}"))
            }
            _ if self.fuel != other.fuel => {
                Some(format!("two runs on one message took {} and {} of fuel", self.fuel, other.fuel))
            }
            _ => None,
        }
    }
}

impl Counters {
    fn statistics(&self) -> Statistics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed = |class: FailureClass| count(&self.failed[class as usize]);
        let quantiles = |of: &Histogram| Quantiles { p50: of.quantile(50), p99: of.quantile(99) };
        Statistics {
            calls: count(&self.calls),
            accepted: count(&self.accepted),
            rejected: count(&self.rejected),
            waiting: count(&self.waiting),
            failed: Failures {
                deterministic: failed(FailureClass::Deterministic),
                out_of_fuel: failed(FailureClass::OutOfFuel),
                not_portable: failed(FailureClass::NotPortable),
                node: failed(FailureClass::Node),
            },
            queries: count(&self.queries),
            twice: count(&self.twice),
            deferred: count(&self.deferred),
            fuel: count(&self.fuel),
            micros: count(&self.micros),
            memory_peak_kib: count(&self.memory_peak_kib),
            fuel_per_call: quantiles(&self.fuels),
            micros_per_call: quantiles(&self.times),
        }
    }
}

impl PluginInfo {
    /// A plugin that is gone, of whose state the store still has a row.
    pub(super) fn of_left(record: &NamespaceRecord) -> Self {
        Self {
            name: Some(record.plugin.clone()),
            version: Some(record.release.clone()),
            sha256: Some(record.sha256.clone()),
            origin: "file",
            state: PluginState::Removed,
            types: record.types.clone(),
            ..Self::of_file(None)
        }
    }

    /// What a manifest says, of a file that is being looked at.
    pub(super) fn of_manifest(manifest: &Manifest, sha256: &str, file: Option<&Path>) -> Self {
        let reads = manifest.reads().iter().map(|namespace| format!("read:{namespace}"));
        Self {
            name: Some(manifest.name.clone()),
            version: Some(manifest.version.clone()),
            sha256: Some(sha256.to_owned()),
            types: manifest.types.clone(),
            routes: manifest.routes.clone(),
            limits: Some(manifest.limits),
            asks: manifest.grants.iter().cloned().chain(reads).collect(),
            ..Self::of_file(file)
        }
    }

    /// A file of which nothing is known yet.
    pub(super) fn of_file(file: Option<&Path>) -> Self {
        Self {
            name: None,
            version: None,
            sha256: None,
            origin: if file.is_some() { "file" } else { "bundled" },
            file: file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()),
            state: PluginState::Compiling,
            reason: None,
            types: Vec::new(),
            routes: Vec::new(),
            profile: PROFILE,
            limits: None,
            asks: Vec::new(),
            grants: Vec::new(),
            statistics: None,
        }
    }
}
