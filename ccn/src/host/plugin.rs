//! One plugin: a compiled component, what it may do, and a fresh instance for every call.

use super::{
    HostError, Manifest, ManifestError, Response,
    bindings::{MessageHandlerPre, exports::aleph::plugin::query},
    contract,
    outcome::{self, Outcome, Overrun, Plan, Price, Rejection},
    profile::{DEADLINE_TICKS, PROFILE},
    route::Route,
    view::{Access, Host, ViewFault},
};
use crate::store::Reader;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use wasmtime::{
    Engine, Store, Trap,
    component::{Component, HasSelf, Linker},
};

/// Fuel for the start of an instance, apart from that of the call.
const START_FUEL: u64 = 50_000_000;
/// The interfaces that a plugin may import.
const IMPORTS: [&str; 4] =
    ["aleph:plugin/types@0.2.0", "aleph:plugin/view@0.2.0", "aleph:plugin/crypto@0.2.0", "aleph:plugin/log@0.2.0"];

/// A plugin that can be called.
pub struct Plugin {
    manifest: Manifest,
    sha256: String,
    embedded: bool,
    may_move: bool,
    access: Arc<Access>,
    engine: Engine,
    pre: MessageHandlerPre<Host>,
    routes: Vec<Route>,
    counters: Counters,
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
    failed: AtomicU64,
    queries: AtomicU64,
    fuel: AtomicU64,
    micros: AtomicU64,
    memory_peak_kib: AtomicU64,
}

/// What a plugin has done since the node started.
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
    pub failed: u64,
    /// Questions that it answered.
    pub queries: u64,
    /// Fuel of all calls.
    pub fuel: u64,
    /// Microseconds of all calls.
    pub micros: u64,
    /// Memory of the call that took most, KiB.
    pub memory_peak_kib: u64,
}

/// What can be said of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Of its file, hex.
    pub sha256: String,
    /// True for one of the node's own.
    pub embedded: bool,
    /// Message types.
    pub types: Vec<String>,
    /// Route patterns.
    pub routes: Vec<String>,
    /// The engine profile that it runs under.
    pub profile: &'static str,
    /// What a call may take.
    pub limits: super::Limits,
    /// What it has done.
    pub statistics: Statistics,
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
    pub(super) embedded: bool,
}

impl Plugin {
    /// Links a component with the view.
    pub(super) fn prepare(
        engine: &Engine,
        component: &Component,
        manifest: Manifest,
        sha256: String,
        granted: Granted,
        settings: Arc<BTreeMap<String, String>>,
    ) -> Result<Self, PrepareError> {
        for (name, _) in component.component_type().imports(engine) {
            if !IMPORTS.contains(&name) {
                return Err(PrepareError::Import(name.to_owned()));
            }
        }
        let contract = |error: wasmtime::Error| PrepareError::Contract(format!("{error:#}"));
        let mut linker = Linker::<Host>::new(engine);
        super::bindings::MessageHandler::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host).map_err(contract)?;
        let pre = linker.instantiate_pre(component).and_then(MessageHandlerPre::new).map_err(contract)?;
        let route = |pattern: &String| {
            let route = Route::parse(pattern).filter(|_| pattern.starts_with("/api/"));
            route.ok_or_else(|| PrepareError::Route(pattern.clone()))
        };
        let routes = manifest.routes.iter().map(route).collect::<Result<_, _>>()?;
        let access = Access {
            plugin: manifest.name.clone(),
            namespace: manifest.namespace().to_owned(),
            readable: granted.readable,
            settings,
            memory_bytes: (manifest.limits.memory_mib << 20) as usize,
        };
        Ok(Self {
            manifest,
            sha256,
            embedded: granted.embedded,
            may_move: granted.may_move,
            access: Arc::new(access),
            engine: engine.clone(),
            pre,
            routes,
            counters: Counters::default(),
        })
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// What can be said of it.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        let manifest = &self.manifest;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        PluginInfo {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            sha256: self.sha256.clone(),
            embedded: self.embedded,
            types: manifest.types.clone(),
            routes: manifest.routes.clone(),
            profile: PROFILE,
            limits: manifest.limits,
            statistics: Statistics {
                calls: count(&counters.calls),
                accepted: count(&counters.accepted),
                rejected: count(&counters.rejected),
                waiting: count(&counters.waiting),
                failed: count(&counters.failed),
                queries: count(&counters.queries),
                fuel: count(&counters.fuel),
                micros: count(&counters.micros),
                memory_peak_kib: count(&counters.memory_peak_kib),
            },
        }
    }

    /// The schema: a function of the message alone.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn validate(&self, message: &contract::Message) -> Result<Result<Plan, Rejection>, HostError> {
        let found = self.call(None, |store, plugin| plugin.aleph_plugin_handler().call_validate(store, message))?;
        self.checked(match found {
            Ok(plan) => outcome::plan(plan).map(Ok),
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
        let found =
            self.call(Some(reader), |store, plugin| plugin.aleph_plugin_handler().call_process(store, message))?;
        let outcome = self.checked(outcome::outcome(found, &self.manifest.limits, &message.address, self.may_move))?;
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
        let found =
            self.call(Some(reader), |store, plugin| plugin.aleph_plugin_handler().call_withdraw(store, message, why))?;
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
        let found =
            self.call(Some(reader), |store, plugin| plugin.aleph_plugin_handler().call_price(store, message))?;
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
        let found = self.call(Some(reader), |store, plugin| plugin.aleph_plugin_query().call_run(store, &request))?;
        self.counters.queries.fetch_add(1, Ordering::Relaxed);
        self.checked(outcome::check_response(found.status, &found.content_type, &found.body))?;
        Ok(Response { status: found.status, content_type: found.content_type, body: found.body })
    }

    fn checked<T>(&self, result: Result<T, Overrun>) -> Result<T, HostError> {
        result.map_err(|reason| {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            HostError::Overrun { plugin: self.manifest.name.clone(), reason }
        })
    }

    /// Runs a fresh instance.
    fn call<T>(
        &self,
        reader: Option<Arc<dyn Reader + Send + Sync>>,
        run: impl FnOnce(&mut Store<Host>, &super::bindings::MessageHandler) -> wasmtime::Result<T>,
    ) -> Result<T, HostError> {
        let started = Instant::now();
        let fuel = self.manifest.limits.fuel;
        let mut store = Store::new(&self.engine, Host::new(self.access.clone(), reader, fuel));
        store.limiter(|host| host);
        store.set_epoch_deadline(DEADLINE_TICKS);
        let answer = || {
            store.set_fuel(START_FUEL)?;
            let instance = self.pre.instantiate(&mut store)?;
            store.set_fuel(fuel)?;
            let answer = run(&mut store, &instance)?;
            // One tank: what the host did is taken off what the plugin has left.
            let used = store.data().fuel_used();
            if store.get_fuel()? < used { Err(Trap::OutOfFuel.into()) } else { Ok(answer) }
        };
        let result = answer();
        let own = fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let used = own.saturating_add(store.data().fuel_used()).min(fuel);
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        self.counters.fuel.fetch_add(used, Ordering::Relaxed);
        self.counters.micros.fetch_add(outcome::micros(started.elapsed()), Ordering::Relaxed);
        self.counters.memory_peak_kib.fetch_max(store.data().memory_peak_kib(), Ordering::Relaxed);
        result.map_err(|error| {
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.failure(error)
        })
    }

    /// Whose problem an error is.
    fn failure(&self, error: wasmtime::Error) -> HostError {
        let plugin = self.manifest.name.clone();
        let error = match error.downcast::<ViewFault>() {
            Ok(ViewFault::Store(error)) => return HostError::Store(error),
            Ok(ViewFault::Overrun(reason)) => return HostError::Overrun { plugin, reason },
            Ok(ViewFault::Machine(reason)) => return HostError::Node { plugin, reason },
            Err(error) => error,
        };
        if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
            return HostError::Node { plugin, reason: error.to_string() };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => HostError::OutOfFuel { plugin, fuel: self.manifest.limits.fuel },
            Some(Trap::Interrupt) => HostError::Node { plugin, reason: "it took too long on this machine".into() },
            Some(trap) => HostError::Trapped { plugin, reason: trap.to_string() },
            // An answer that is none of the contract: text that is not UTF-8, pointers to nowhere.
            None => HostError::Trapped { plugin, reason: error.root_cause().to_string() },
        }
    }
}
