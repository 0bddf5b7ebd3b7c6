//! The one who keeps the set of plugins as the folder and the operator want it.
//!
//! A thread looks at the folder, makes plugins of files, swaps them in, and has the messages decided that waited for them. Everything that
//! changes the set goes through it, one thing at a time; who is asked something while it compiles waits.
//!
//! ```text
//!  file ──> read, manifest, bounds ──> compiled apart ──> linked ──> state of that version? ──yes──> swapped in ──> waiting messages
//!              │ refused: shown, logged; what was active stays so        └─no──> made anew from the messages ──┘
//! ```

use super::{
    FirstLook, Plugin, Plugins,
    folder::{Change, Folder},
    registry::Refusal,
    stock::{Condition, condition, hold_back, title},
    view::state_key,
};
use crate::{
    pipeline::{EngineError, Pipeline, rebuild::namespace_key},
    store::{
        Reader as _, Store,
        record::{RebuildRecord, Record as _, SuspensionRecord},
        schema::{Table, end_of},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{runtime::Handle, sync::oneshot};

/// Rows of a state that are deleted in one go.
const DROPPED_AT_ONCE: usize = 100;
/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Orders of the operator's that wait at once.
const MAX_ORDERS: usize = 16;

/// What the operator may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Calls a suspended plugin again, by its name.
    Resume(String),
    /// Deletes the state of a plugin whose file is gone, by its name.
    DropState(String),
}

/// Why the operator does not get what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// There is none of that name in that state.
    #[error("no plugin `{0}` is {1}")]
    NoSuchPlugin(String, &'static str),
    /// The file does not load any more.
    #[error("the plugin is not loaded again: {0}")]
    Refused(String),
    /// The keeper is busy, or the node stops.
    #[error("the node is busy with plugins; ask again in a moment")]
    Busy,
    /// The node failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

struct Order {
    request: Request,
    reply: oneshot::Sender<Result<(), RequestError>>,
}

/// The thread. It ends with this value.
#[derive(Debug)]
pub struct Keeper {
    orders: Option<mpsc::SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    plugins: Arc<Plugins>,
}

struct Work {
    plugins: Arc<Plugins>,
    pipeline: Pipeline,
    store: Store,
    runtime: Handle,
    folder: Folder,
    /// Files that were refused for what another plugin has.
    hopeful: BTreeSet<PathBuf>,
    /// Suspensions that are in the store.
    suspended: BTreeSet<String>,
    /// Deviations from the network's profile that were told.
    told: Vec<super::Deviation>,
    folder_is_told: bool,
    /// Plugins that were suspended while their state was made anew, by name.
    stopped: BTreeMap<String, Arc<Plugin>>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(plugins: Arc<Plugins>, pipeline: Pipeline, store: Store, found: FirstLook) -> io::Result<Self> {
        let (orders, incoming) = mpsc::sync_channel(MAX_ORDERS);
        let work = Work {
            plugins: plugins.clone(),
            pipeline,
            store,
            runtime: Handle::current(),
            folder: Folder::known(found.files),
            hopeful: BTreeSet::new(),
            suspended: BTreeSet::new(),
            told: Vec::new(),
            folder_is_told: false,
            stopped: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("plugin-keeper".into())
            .spawn(move || work.run(&found.to_rebuild, &incoming))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), plugins })
    }

    /// Does what the operator asks for.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn ask(&self, request: Request) -> Result<(), RequestError> {
        let (reply, answer) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or(RequestError::Busy)?;
        orders.try_send(Order { request, reply }).map_err(|_| RequestError::Busy)?;
        answer.await.map_err(|_| RequestError::Busy)?
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.plugins.stop_compiling();
        // It ends when nobody can ask it any more.
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the keeper of plugins ended in a panic");
        }
    }
}

impl Work {
    fn run(mut self, to_rebuild: &[Arc<Plugin>], orders: &mpsc::Receiver<Order>) {
        for plugin in self.plugins.all() {
            self.replay(&plugin.manifest().types);
        }
        for plugin in to_rebuild {
            self.rebuild(plugin);
        }
        self.tell_deviations();
        loop {
            match orders.recv_timeout(LOOK_EVERY) {
                Ok(order) => {
                    let done = self.follow(&order.request);
                    let _ = order.reply.send(done);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            self.look();
            self.keep_suspensions();
            self.mend();
        }
    }

    fn look(&mut self) {
        let files = match self.plugins.files() {
            Ok(files) => files,
            Err(error) => {
                // Not every file is gone because the folder cannot be read.
                if !std::mem::replace(&mut self.folder_is_told, true) {
                    tracing::error!("the folder of plugins cannot be read, and stays as it was: {error}");
                }
                return;
            }
        };
        self.folder_is_told = false;
        let changes = self.folder.look(&files);
        if changes.is_empty() {
            return;
        }
        for change in changes {
            match change {
                Change::Gone(path) => self.gone(&path),
                Change::Come(path) => self.come(&path),
            }
        }
        self.tell_deviations();
    }

    fn come(&mut self, path: &Path) {
        self.hopeful.remove(path);
        let name = path.display();
        tracing::info!("{name} is new: looking at it");
        match self.plugins.prepare(path, false) {
            Ok(Some(plugin)) => self.take_on(&plugin),
            Ok(None) => {
                tracing::info!("{name} is what is active already");
                self.give_up_rebuild(path);
            }
            Err(refusal) => self.refused(path, &refusal),
        }
    }

    fn refused(&mut self, path: &Path, refusal: &Refusal) {
        let kept = match self.plugins.active_from(path) {
            Some(old) => format!("; {} goes on", title(&old)),
            None => String::new(),
        };
        tracing::error!("{} is not loaded: {refusal}{kept}", path.display());
        if refusal.may_pass() {
            self.hopeful.insert(path.to_owned());
        }
    }

    fn gone(&mut self, path: &Path) {
        self.hopeful.remove(path);
        self.give_up_rebuild(path);
        self.stopped.retain(|_, plugin| plugin.file() != Some(path));
        if let Some(plugin) = self.plugins.remove(path) {
            tracing::warn!(
                "{} is gone: the plugin {} is removed, its types are unhandled, its state stays until it is dropped",
                path.display(),
                title(&plugin)
            );
            self.try_again();
        }
    }

    /// What was refused for what another plugin had is looked at once more.
    fn try_again(&mut self) {
        for path in std::mem::take(&mut self.hopeful) {
            self.folder.again(&path);
        }
    }

    /// Makes a plugin active; before that, its state of the version that it reads.
    fn take_on(&mut self, plugin: &Arc<Plugin>) {
        match condition(&self.store, plugin) {
            Ok(Condition::Current) => self.swap_in(plugin),
            Ok(Condition::Stale) => {
                self.swap_in(plugin);
                self.rebuild(plugin);
            }
            Ok(Condition::Outdated) => self.rebuild(plugin),
            Err(error) => tracing::error!("of which version the state of {} is is not known: {error}", title(plugin)),
        }
    }

    fn swap_in(&mut self, plugin: &Arc<Plugin>) {
        let old = plugin.file().and_then(|path| self.plugins.active_from(path));
        if let Err(error) = hold_back(&self.store, plugin) {
            tracing::error!("whether {} is suspended is not known: {error}", title(plugin));
        }
        let arrived = self.plugins.activate(plugin);
        match old {
            Some(old) => tracing::info!("the plugin {} takes the place of {}", title(plugin), title(&old)),
            None => tracing::info!("the plugin {} is active", title(plugin)),
        }
        self.note(plugin);
        self.replay(&arrived);
        self.try_again();
    }

    /// Has the state of a plugin be made anew from the messages that are stored, while the old one serves.
    fn rebuild(&mut self, plugin: &Arc<Plugin>) {
        if let Err(error) = hold_back(&self.store, plugin) {
            tracing::error!("whether {} is suspended is not known: {error}", title(plugin));
        }
        let namespace = plugin.manifest().namespace();
        let is_begun = self.plugins.rebuilding().iter().any(|other| Arc::ptr_eq(other, plugin));
        let how = if is_begun { "goes on being made anew" } else { "is made anew" };
        let meanwhile = match self.plugins.serving(namespace) {
            Some(old) => format!("{} serves meanwhile", title(&old)),
            None => "its messages wait meanwhile".to_owned(),
        };
        tracing::info!("the state `{namespace}` {how} for {}: {meanwhile}", title(plugin));
        if !is_begun {
            self.plugins.begin_rebuild(plugin);
            let row = RebuildRecord::begun(plugin.sha256()).to_bytes();
            self.put(Table::Rebuilds, namespace_key(namespace), Some(row));
        }
    }

    /// Begins what has to be made anew, and ends what is made by a plugin that does not work.
    fn mend(&mut self) {
        for plugin in self.plugins.rebuilding() {
            if let Some(reason) = plugin.suspended() {
                // One that serves, too, is shown and resumed as such.
                if self.plugins.all().iter().any(|active| Arc::ptr_eq(active, &plugin)) {
                    self.put_off_rebuild(plugin.manifest().namespace());
                } else {
                    self.want_rebuild(plugin.manifest().namespace());
                    self.plugins.stop_rebuild(&plugin, reason.to_owned());
                    self.stopped.insert(plugin.manifest().name.clone(), plugin);
                }
            }
        }
        let wanted = self.store.snapshot().and_then(|snapshot| snapshot.prefixed(Table::Rebuilds, &[]));
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => return tracing::error!("which states are to be made anew is not known: {error}"),
        };
        if wanted.is_empty() {
            return;
        }
        let rebuilding = self.plugins.rebuilding();
        let is_under_way = |namespace: &str| rebuilding.iter().any(|plugin| plugin.manifest().namespace() == namespace);
        let is_stopped =
            |namespace: &str| self.stopped.values().any(|plugin| plugin.manifest().namespace() == namespace);
        let to_do: Vec<Arc<Plugin>> = self
            .plugins
            .all()
            .into_iter()
            .filter(|plugin| {
                let namespace = plugin.manifest().namespace();
                let is_wanted = wanted.iter().any(|(key, _)| *key == namespace_key(namespace));
                is_wanted && plugin.suspended().is_none() && !is_under_way(namespace) && !is_stopped(namespace)
            })
            .collect();
        for plugin in to_do {
            self.rebuild(&plugin);
        }
    }

    /// Ends the making of a state for the plugin of a file.
    fn give_up_rebuild(&mut self, path: &Path) {
        for plugin in self.plugins.rebuilding().iter().filter(|plugin| plugin.file() == Some(path)) {
            let namespace = plugin.manifest().namespace();
            tracing::warn!("the state `{namespace}` is not made anew for {} any more", title(plugin));
            self.put_off_rebuild(namespace);
        }
    }

    /// The state still has to be made anew, and by nobody now.
    fn put_off_rebuild(&self, namespace: &str) {
        self.want_rebuild(namespace);
        self.plugins.end_rebuild(namespace);
    }

    fn want_rebuild(&self, namespace: &str) {
        self.put(Table::Rebuilds, namespace_key(namespace), Some(RebuildRecord::wanted().to_bytes()));
    }

    /// Has the messages decided that waited for their type.
    fn replay(&self, kinds: &[String]) {
        for kind in kinds {
            if let Err(error) = self.runtime.block_on(self.pipeline.handler_arrived(kind)) {
                tracing::error!("messages of the type {kind} that waited are not decided: {error}");
            }
        }
    }

    /// Writes down of which version a plugin's state is.
    fn note(&self, plugin: &Plugin) {
        let record = plugin.namespace_record();
        self.put(Table::Namespaces, namespace_key(&record.namespace), Some(record.to_bytes()));
    }

    /// Writes down which plugins are suspended.
    fn keep_suspensions(&mut self) {
        for plugin in self.plugins.all().into_iter().chain(self.plugins.rebuilding()) {
            if let Some(reason) = plugin.suspended()
                && self.suspended.insert(plugin.sha256().to_owned())
            {
                let record = SuspensionRecord { reason: reason.to_owned(), since: crate::clock::now_ms() };
                self.put(Table::Suspended, plugin.sha256().as_bytes().to_vec(), Some(record.to_bytes()));
            }
        }
    }

    fn put(&self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        if let Err(error) = self.runtime.block_on(self.pipeline.note(table, key, value)) {
            tracing::error!("what is known of plugins is not stored: {error}");
        }
    }

    fn follow(&mut self, request: &Request) -> Result<(), RequestError> {
        match request {
            Request::Resume(name) => self.resume(name),
            Request::DropState(name) => self.drop_state(name),
        }
    }

    /// Deletes what a plugin whose file is gone has left. Should it come back, its state is made anew from its messages.
    fn drop_state(&mut self, name: &str) -> Result<(), RequestError> {
        let none = || RequestError::NoSuchPlugin(name.to_owned(), "removed");
        let namespace = self.plugins.left_by(name).ok_or_else(none)?;
        let prefix = state_key(&namespace, &[]);
        // First of all: whatever ends this half way, nobody takes the rest for the whole.
        self.note_all(Table::Rebuilds, &namespace, Some(RebuildRecord::wanted().to_bytes()))?;
        let mut dropped = 0;
        loop {
            let snapshot = self.store.snapshot().map_err(EngineError::from)?;
            let rows = snapshot.range(Table::State, &prefix, &end_of(&prefix), DROPPED_AT_ONCE, false);
            let rows = rows.map_err(EngineError::from)?;
            dropped += rows.len();
            let is_last = rows.len() < DROPPED_AT_ONCE;
            let keys = rows.into_iter().map(|(key, _)| key[prefix.len()..].to_vec()).collect();
            self.runtime.block_on(self.pipeline.drop_state(namespace.clone(), keys))?;
            if is_last {
                break;
            }
        }
        self.note_all(Table::Namespaces, &namespace, None)?;
        self.plugins.forget_removed(&namespace);
        tracing::warn!("the operator drops the state of the plugin {name}: {dropped} rows of `{namespace}`");
        Ok(())
    }

    fn note_all(&self, table: Table, namespace: &str, value: Option<Vec<u8>>) -> Result<(), EngineError> {
        self.runtime.block_on(self.pipeline.note(table, namespace_key(namespace), value))
    }

    fn resume(&mut self, name: &str) -> Result<(), RequestError> {
        let none = || RequestError::NoSuchPlugin(name.to_owned(), "suspended");
        let all: Vec<Arc<Plugin>> = self.plugins.all().into_iter().chain(self.stopped.values().cloned()).collect();
        let plugin = all.iter().find(|plugin| plugin.manifest().name == name && plugin.suspended().is_some());
        let plugin = plugin.ok_or_else(none)?;
        self.put(Table::Suspended, plugin.sha256().as_bytes().to_vec(), None);
        self.suspended.remove(plugin.sha256());
        self.stopped.remove(name);
        let again = match plugin.file() {
            Some(path) => self.plugins.prepare(path, true),
            None => self.plugins.bundled_again(plugin).map(Some),
        };
        let again = again.map_err(|refusal| RequestError::Refused(refusal.to_string()))?.ok_or_else(none)?;
        tracing::warn!("the operator resumes the plugin {}", title(&again));
        self.take_on(&again);
        Ok(())
    }

    /// What the network pins and this node does not run is told once each time it changes.
    fn tell_deviations(&mut self) {
        let deviations = self.plugins.deviations();
        for deviation in deviations.iter().filter(|deviation| !self.told.contains(deviation)) {
            tracing::error!("{deviation}: its state will differ from that of the network");
        }
        if deviations.is_empty() && !self.told.is_empty() {
            tracing::info!("all message types that the network pins are handled as it says");
        }
        self.told = deviations;
    }
}
