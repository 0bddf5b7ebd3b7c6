//! All plugins of a node: which type is whose, which path is whose, and which file is none and why.
//!
//! What is active is one value behind an `Arc`: a message takes it once, so that what is swapped under way is swapped for the next one.

use super::{
    Compiler, HostError, Indexer, Manifest, Origin, Plugin, PluginInfo, PluginState, Response,
    cache::Cache,
    compiler::{self, MAX_FILE_BYTES},
    folder::Stamp,
    manifest::{HIDE, LEDGER},
    plugin::{Granted, PrepareError},
    profile,
    rebuilding::Rebuilding,
    route::Parts,
};
use crate::store::Store;
use ccn_message::ItemHash;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Semaphore;
use wasmtime::{Engine, component::Component};

/// Most plugins.
const MAX_PLUGINS: usize = 256;
/// Most files of the folder that are looked at; further ones are as if they were not there.
const MAX_FILES: usize = 1_000;
/// One of the operator's own plugins answers so much of all questions at once.
const GUEST_SHARE: usize = 4;

/// All plugins of a node.
pub struct Plugins {
    active: RwLock<Arc<Active>>,
    loader: Loader,
    /// Files that are not active as they are, with the reason.
    candidates: Mutex<BTreeMap<PathBuf, PluginInfo>>,
    /// Plugins whose file is gone and whose state is not, by namespace.
    removed: Mutex<BTreeMap<String, PluginInfo>>,
    /// Plugins whose state is being made anew.
    rebuilding: Rebuilding,
    /// Held while a plugin goes from one of these to another, and while all are shown: whoever looks sees it once. Taken before their own locks.
    moving: Mutex<()>,
    queries: Arc<Semaphore>,
    /// Places of each of the operator's own among them.
    guest_queries: usize,
}

/// What is active.
#[derive(Default)]
struct Active {
    plugins: Vec<Slot>,
    by_kind: BTreeMap<String, Arc<Plugin>>,
}

#[derive(Clone)]
struct Slot {
    plugin: Arc<Plugin>,
    /// Questions at once.
    queries: Arc<Semaphore>,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let active = self.active();
        formatter.debug_list().entries(active.plugins.iter().map(|slot| &slot.plugin)).finish()
    }
}

/// Where plugins come from and what they get.
#[derive(Debug, Clone)]
pub struct Source {
    /// Folder of the operator's own.
    pub folder: PathBuf,
    /// Folder of compiled ones.
    pub cache: PathBuf,
    /// How they are compiled.
    pub compiler: Compiler,
    /// What the operator's own may do, by the sha256 of their file.
    pub grants: BTreeMap<String, Vec<String>>,
    /// The sha256 of the only plugin that a message type may have on this network.
    pub pins: BTreeMap<String, String>,
    /// What they read as settings.
    pub settings: BTreeMap<String, String>,
    /// Questions at once; more wait.
    pub queries: usize,
}

/// Why a node has no plugins. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The engine does not start.
    #[error("plugins cannot be run on this machine: {0}")]
    Engine(String),
    /// A folder cannot be used.
    #[error("{path}: {reason}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// One of the node's own does not load.
    #[error("the standard plugin {name} does not load: {reason}")]
    Bundled {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Why a file is not loaded. Its author's to mend, or the operator's.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is no plugin of this node.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The engine does not take it.
    #[error("it does not compile: {0}")]
    Compile(String),
    /// Handlers are loaded and swapped while the node runs; indexers are named in the settings.
    #[error(
        "it is an indexer of chains and no message type: `chains` in the settings names it, and then it is loaded at the start"
    )]
    Indexer,
    /// A name that the settings of a chain say, and that is nobody's.
    #[error("no indexer of that name is inside the node or in the folder of plugins")]
    NoIndexer,
    /// It wants what another plugin has.
    #[error("the {what} `{name}` is that of the plugin {owner}")]
    Taken {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
        /// Whose it is.
        owner: String,
    },
    /// The network has agreed on another one.
    #[error("the network pins the message type `{kind}` to the plugin {pinned}, and this one is {found}")]
    Pinned {
        /// The message type.
        kind: String,
        /// The sha256 that is pinned.
        pinned: String,
        /// The sha256 of the file.
        found: String,
    },
    /// There is no room.
    #[error("{MAX_PLUGINS} plugins are loaded already")]
    TooMany,
    /// The system says why.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A folder, a pipe.
    #[error("it is no regular file")]
    NoFile,
    /// Too large.
    #[error("it has {0} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge(u64),
    /// There is no node to say it.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Refusal {
    /// True when another plugin's going may change it.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::TooMany)
    }
}

/// A message type that is not handled as the network says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deviation {
    /// The message type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The sha256 of the plugin that the network pins.
    pub pinned: String,
    /// That of the plugin that is active here; none when there is none.
    pub found: Option<String>,
}

impl std::fmt::Display for Deviation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, pinned, found } = self;
        write!(formatter, "the network pins the message type `{kind}` to the plugin {pinned}, and this node runs ")?;
        match found {
            Some(found) => write!(formatter, "{found}"),
            None => write!(formatter, "none for it"),
        }
    }
}

/// Makes plugins of bytes.
struct Loader {
    engine: Engine,
    cache: Cache,
    compiler: Compiler,
    settings: Arc<BTreeMap<String, String>>,
    grants: BTreeMap<String, Vec<String>>,
    pins: BTreeMap<String, String>,
    folder: PathBuf,
    /// Ends a compilation that is under way.
    stop: AtomicBool,
}

impl Loader {
    /// A plugin of these bytes, if the others leave it what it claims.
    fn load(&self, bytes: &[u8], origin: Origin, others: &Active) -> Result<Arc<Plugin>, Refusal> {
        let manifest = Manifest::of(bytes).map_err(PrepareError::from)?;
        if manifest.is_indexer() {
            return Err(Refusal::Indexer);
        }
        let sha256 = ItemHash::sha256_of(bytes).to_string();
        let is_bundled = origin == Origin::Bundled;
        check_is_free(&manifest, &origin, others)?;
        if !is_bundled {
            self.check_pins(&manifest, &sha256)?;
        }
        let component = self.component(&sha256, bytes, is_bundled)?;
        if !is_bundled {
            self.cache.keep_file(&sha256, bytes);
        }
        let granted = self.granted(&manifest, &sha256, is_bundled);
        let settings = self.settings.clone();
        Ok(Arc::new(Plugin::prepare(&self.engine, &component, manifest, sha256, origin, granted, settings)?))
    }

    /// An indexer of these bytes.
    fn load_indexer(&self, bytes: &[u8], origin: Origin) -> Result<Indexer, Refusal> {
        let manifest = Manifest::of(bytes).map_err(PrepareError::from)?;
        let sha256 = ItemHash::sha256_of(bytes).to_string();
        let is_bundled = origin == Origin::Bundled;
        let component = self.component(&sha256, bytes, is_bundled)?;
        let granted = self.granted(&manifest, &sha256, is_bundled);
        Ok(Indexer::prepare(&self.engine, &component, manifest, sha256, origin, &granted)?)
    }

    fn component(&self, sha256: &str, bytes: &[u8], is_bundled: bool) -> Result<Component, Refusal> {
        match self.cache.kept(sha256) {
            Some(component) => Ok(component),
            None => self.compile(sha256, bytes, is_bundled).map_err(Refusal::Compile),
        }
    }

    fn compile(&self, sha256: &str, bytes: &[u8], is_bundled: bool) -> Result<Component, String> {
        let code = match &self.compiler.program {
            Some(program) if !is_bundled => compiler::compile_apart(program, bytes, &self.stop)?,
            _ => self.engine.precompile_component(bytes).map_err(|error| compiler::one_line(&error))?,
        };
        self.cache.keep(sha256, &code).map_err(|error| compiler::one_line(&error))
    }

    fn check_pins(&self, manifest: &Manifest, sha256: &str) -> Result<(), Refusal> {
        for kind in &manifest.types {
            if let Some(pinned) = self.pins.get(kind)
                && pinned != sha256
            {
                let (kind, pinned, found) = (kind.clone(), pinned.clone(), sha256.to_owned());
                return Err(Refusal::Pinned { kind, pinned, found });
            }
        }
        Ok(())
    }

    /// What it asks for, as far as it may have it: the node's own are trusted, others get what the operator grants to that very file.
    fn granted(&self, manifest: &Manifest, sha256: &str, is_bundled: bool) -> Granted {
        let grants = self.grants.get(sha256);
        let has = |grant: &str| is_bundled || grants.is_some_and(|grants| grants.iter().any(|each| each == grant));
        let mut readable = manifest.reads().to_vec();
        readable.retain(|namespace| has(&format!("read:{namespace}")));
        let may_move = manifest.grants.iter().any(|grant| grant == LEDGER) && has(LEDGER);
        let may_forget = manifest.grants.iter().any(|grant| grant == HIDE) && has(HIDE);
        Granted { readable, may_move, may_forget }
    }
}

/// What is another plugin's stays so.
fn check_is_free(manifest: &Manifest, origin: &Origin, others: &Active) -> Result<(), Refusal> {
    let others = others.plugins.iter().map(|slot| &slot.plugin).filter(|plugin| !plugin.is_from(origin));
    let mut count = 0;
    for plugin in others {
        count += 1;
        let other = plugin.manifest();
        let taken = |what, name: &str| {
            let (name, owner) = (name.to_owned(), other.name.clone());
            Err(Refusal::Taken { what, name, owner })
        };
        if other.name == manifest.name {
            return taken("name", &manifest.name);
        }
        if other.namespace() == manifest.namespace() {
            return taken("namespace", manifest.namespace());
        }
        if let Some(kind) = manifest.types.iter().find(|kind| other.types.contains(kind)) {
            return taken("message type", kind);
        }
        if let Some(route) = manifest.routes.iter().find(|route| other.routes.contains(route)) {
            return taken("route", route);
        }
    }
    if count >= MAX_PLUGINS { Err(Refusal::TooMany) } else { Ok(()) }
}

/// Reads a file once, as long as it is one.
fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    // Opening a pipe would never end.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Refusal::NoFile);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(Refusal::TooLarge(bytes.len() as u64)) } else { Ok(bytes) }
}

/// What a node with its own plugins and nothing else says to a file: the plugin, as it would be active, with everything granted that it asks for.
///
/// # Errors
/// Why a node does not load it.
pub fn inspect(source: Source, path: &Path) -> Result<(Arc<Plugins>, Arc<Plugin>), Refusal> {
    let (bytes, plugins) = granting(source, path)?;
    let plugin = plugins.loader.load(&bytes, Origin::File(path.to_owned()), &plugins.active())?;
    plugins.activate(&plugin);
    Ok((Arc::new(plugins), plugin))
}

/// The same of an indexer of chains.
///
/// # Errors
/// Why a node does not load it.
pub(crate) fn inspect_indexer(source: Source, path: &Path) -> Result<Indexer, Refusal> {
    let (bytes, plugins) = granting(source, path)?;
    plugins.loader.load_indexer(&bytes, Origin::File(path.to_owned()))
}

/// A file, and plugins that grant it everything.
fn granting(mut source: Source, path: &Path) -> Result<(Vec<u8>, Plugins), Refusal> {
    let bytes = read(path)?;
    let manifest = Manifest::of(&bytes).map_err(PrepareError::from)?;
    let reads = manifest.reads().iter().map(|namespace| format!("read:{namespace}"));
    let grants = manifest.grants.iter().cloned().chain(reads).collect();
    source.grants.insert(ItemHash::sha256_of(&bytes).to_string(), grants);
    Ok((bytes, Plugins::load(source)?))
}

impl Active {
    /// With a plugin in the place of the one from the same origin.
    fn with(&self, plugin: &Arc<Plugin>, queries: usize) -> Self {
        let mut plugins = self.plugins.clone();
        let slot = Slot { plugin: plugin.clone(), queries: Arc::new(Semaphore::new(queries)) };
        let replaces = |slot: &&mut Slot| {
            slot.plugin.is_from(plugin.origin()) || slot.plugin.manifest().name == plugin.manifest().name
        };
        match plugins.iter_mut().find(replaces) {
            Some(replaced) => *replaced = slot,
            None => plugins.push(slot),
        }
        Self::of(plugins)
    }

    fn of(plugins: Vec<Slot>) -> Self {
        let kinds = plugins
            .iter()
            .flat_map(|slot| slot.plugin.manifest().types.iter().map(|kind| (kind.clone(), slot.plugin.clone())));
        let by_kind = kinds.collect();
        Self { plugins, by_kind }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plugins {
    /// Loads the node's own plugins.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(source: Source) -> Result<Self, LoadError> {
        let folder_error = |path: &Path| {
            let path = path.to_owned();
            move |reason| LoadError::Folder { path, reason }
        };
        let optimize = source.compiler.optimize;
        let engine = profile::engine(optimize).map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        let cache = Cache::open(&engine, &source.cache).map_err(folder_error(&source.cache))?;
        fs::create_dir_all(&source.folder).map_err(folder_error(&source.folder))?;
        let loader = Loader {
            engine,
            cache,
            compiler: source.compiler,
            settings: Arc::new(source.settings),
            grants: source.grants,
            pins: source.pins,
            folder: source.folder,
            stop: AtomicBool::new(false),
        };
        let plugins = Self {
            active: RwLock::default(),
            loader,
            candidates: Mutex::default(),
            removed: Mutex::default(),
            rebuilding: Rebuilding::default(),
            moving: Mutex::default(),
            queries: Arc::new(Semaphore::new(source.queries)),
            guest_queries: source.queries.div_ceil(GUEST_SHARE),
        };
        for bundled in plugin_bundle::BUNDLE {
            let plugin = plugins.loader.load(bundled.bytes, Origin::Bundled, &plugins.active());
            plugins.activate(&plugin.map_err(|refusal| LoadError::Bundled {
                name: bundled.name.to_owned(),
                reason: refusal.to_string(),
            })?);
        }
        Ok(plugins)
    }

    /// The indexer of chains of that name: one of the node's own, or a file of the folder.
    ///
    /// # Errors
    /// There is none, or it is no plugin of this node.
    pub(crate) fn indexer(&self, name: &str) -> Result<Indexer, Refusal> {
        if let Some(bundled) = plugin_bundle::INDEXERS.iter().find(|bundled| bundled.name == name) {
            return self.loader.load_indexer(bundled.bytes, Origin::Bundled);
        }
        for path in self.files()?.into_keys() {
            let Ok(bytes) = read(&path) else { continue };
            if Manifest::of(&bytes).is_ok_and(|manifest| manifest.is_indexer() && manifest.name == name) {
                return self.loader.load_indexer(&bytes, Origin::File(path));
            }
        }
        Err(Refusal::NoIndexer)
    }

    /// What is active now.
    fn active(&self) -> Arc<Active> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_active(&self, active: Active) {
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(active);
    }

    /// The plugin that is active from a file.
    pub(super) fn active_from(&self, path: &Path) -> Option<Arc<Plugin>> {
        let active = self.active();
        let slot = active.plugins.iter().find(|slot| slot.plugin.file() == Some(path))?;
        Some(slot.plugin.clone())
    }

    /// The plugin that was active from a file before the file was replaced.
    pub(super) fn prepare_kept(&self, path: &Path, sha256: &str) -> Option<Arc<Plugin>> {
        let bytes = self.loader.cache.kept_file(sha256)?;
        let loaded = self.loader.load(&bytes, Origin::File(path.to_owned()), &self.active());
        let told = |refusal: &Refusal| tracing::warn!("the plugin {sha256} does not serve any more: {refusal}");
        loaded.inspect_err(told).ok()
    }

    /// Makes a plugin of a file, without activating it. None when the very same is active.
    pub(super) fn prepare(&self, path: &Path, force: bool) -> Result<Option<Arc<Plugin>>, Refusal> {
        lock(&self.candidates).insert(path.to_owned(), PluginInfo::of_file(Some(path)));
        let prepared = read(path).and_then(|bytes| {
            let sha256 = ItemHash::sha256_of(&bytes).to_string();
            if !force && self.active_from(path).is_some_and(|active| active.sha256() == sha256) {
                return Ok(None);
            }
            if let Ok(manifest) = Manifest::of(&bytes) {
                let info = PluginInfo::of_manifest(&manifest, &sha256, Some(path));
                lock(&self.candidates).insert(path.to_owned(), info);
            }
            self.loader.load(&bytes, Origin::File(path.to_owned()), &self.active()).map(Some)
        });
        let mut candidates = lock(&self.candidates);
        match &prepared {
            Ok(None) => {
                candidates.remove(path);
            }
            Ok(Some(_)) => {}
            Err(refusal) => {
                let info = candidates.entry(path.to_owned()).or_insert_with(|| PluginInfo::of_file(Some(path)));
                (info.state, info.reason) = (PluginState::Refused, Some(refusal.to_string()));
            }
        }
        prepared
    }

    /// One of the node's own, as it was before it was suspended.
    pub(super) fn bundled_again(&self, suspended: &Plugin) -> Result<Arc<Plugin>, Refusal> {
        let is_it =
            |bundled: &&plugin_bundle::Plugin| ItemHash::sha256_of(bundled.bytes).to_string() == suspended.sha256();
        let bundled = plugin_bundle::BUNDLE.iter().find(is_it).ok_or(Refusal::NoFile)?;
        let active = self.active();
        let others = active.plugins.iter().filter(|slot| slot.plugin.sha256() != suspended.sha256());
        self.loader.load(bundled.bytes, Origin::Bundled, &Active::of(others.cloned().collect()))
    }

    /// Says of a plugin of a file that is not active why it is not.
    pub(super) fn say(&self, plugin: &Plugin, state: PluginState, reason: String) {
        if let Some(path) = plugin.file() {
            let info = PluginInfo { state, reason: Some(reason), ..plugin.info() };
            lock(&self.candidates).insert(path.to_owned(), info);
        }
    }

    /// Makes a plugin active, in the place of the one from the same file. The types that had no plugin, or a suspended one, until now.
    pub(super) fn activate(&self, plugin: &Arc<Plugin>) -> Vec<String> {
        let _moving = lock(&self.moving);
        self.place(plugin)
    }

    /// As `activate`, for who holds `moving`.
    fn place(&self, plugin: &Arc<Plugin>) -> Vec<String> {
        let arrived = self.put(plugin);
        if let Some(path) = plugin.file() {
            lock(&self.candidates).remove(path);
        }
        lock(&self.removed).remove(plugin.manifest().namespace());
        arrived
    }

    fn put(&self, plugin: &Arc<Plugin>) -> Vec<String> {
        let before = self.active();
        let queries = if plugin.is_bundled() { Semaphore::MAX_PERMITS } else { self.guest_queries };
        let after = before.with(plugin, queries);
        let was_handled = |kind: &String| before.by_kind.get(kind).is_some_and(|plugin| plugin.suspended().is_none());
        let arrived = plugin.manifest().types.iter().filter(|kind| !was_handled(kind)).cloned().collect();
        self.set_active(after);
        arrived
    }

    /// Makes a plugin active whose state has been made anew. False when it is not wanted any more.
    pub(crate) fn switch_to(&self, plugin: &Arc<Plugin>) -> bool {
        let _moving = lock(&self.moving);
        self.rebuilding.finish(plugin, || {
            plugin.forgive();
            self.place(plugin);
        })
    }

    /// The plugin of a namespace.
    pub(super) fn serving(&self, namespace: &str) -> Option<Arc<Plugin>> {
        self.all().into_iter().find(|plugin| plugin.manifest().namespace() == namespace)
    }

    /// Has the state of this plugin's namespace be made anew for it, as soon as the store has a row of that.
    pub(super) fn begin_rebuild(&self, plugin: &Arc<Plugin>) {
        let _moving = lock(&self.moving);
        self.rebuilding.begin(plugin);
        if let Some(path) = plugin.file() {
            lock(&self.candidates).remove(path);
        }
    }

    /// Has it not be made anew any more.
    pub(super) fn end_rebuild(&self, namespace: &str) {
        self.rebuilding.end(namespace);
    }

    /// Has it not be made anew any more for a plugin that is suspended, and shows it as such.
    pub(super) fn stop_rebuild(&self, plugin: &Plugin, reason: String) {
        let _moving = lock(&self.moving);
        self.rebuilding.end(plugin.manifest().namespace());
        self.say(plugin, PluginState::Suspended, reason);
    }

    /// Plugins whose state is being made anew.
    #[must_use]
    pub fn rebuilding(&self) -> Vec<Arc<Plugin>> {
        self.rebuilding.plugins()
    }

    /// The plugin for which the state of a message type is being made anew.
    pub(crate) fn rebuilding_for(&self, kind: &str) -> Option<Arc<Plugin>> {
        self.rebuilding.for_kind(kind)
    }

    /// Says how far the state of a plugin is made anew.
    pub(crate) fn say_progress(&self, plugin: &Plugin, progress: String) {
        self.rebuilding.say(plugin, progress);
    }

    /// Takes the plugin of a namespace out, as long as its state is not whole.
    pub(crate) fn hold(&self, namespace: &str) {
        let mut plugins = self.active().plugins.clone();
        plugins.retain(|slot| slot.plugin.manifest().namespace() != namespace);
        self.set_active(Active::of(plugins));
    }

    /// Says of a plugin that is not there that its state is.
    pub(super) fn say_removed(&self, namespace: &str, info: PluginInfo) {
        let mut removed = lock(&self.removed);
        if removed.len() < MAX_PLUGINS {
            removed.insert(namespace.to_owned(), info);
        }
    }

    /// The namespace that a removed plugin of that name has left.
    pub(super) fn left_by(&self, name: &str) -> Option<String> {
        let removed = lock(&self.removed);
        let mut left = removed.iter().filter(|(_, info)| info.name.as_deref() == Some(name));
        left.next().map(|(namespace, _)| namespace.clone())
    }

    /// What a removed plugin has left is deleted.
    pub(super) fn forget_removed(&self, namespace: &str) {
        lock(&self.removed).remove(namespace);
    }

    /// Takes the plugin of a file out.
    pub(super) fn remove(&self, path: &Path) -> Option<Arc<Plugin>> {
        let _moving = lock(&self.moving);
        lock(&self.candidates).remove(path);
        let before = self.active();
        let (gone, stay): (Vec<Slot>, Vec<Slot>) =
            before.plugins.iter().cloned().partition(|slot| slot.plugin.file() == Some(path));
        let gone = gone.into_iter().next()?.plugin;
        self.set_active(Active::of(stay));
        let info = PluginInfo { state: PluginState::Removed, reason: None, ..gone.info() };
        self.say_removed(gone.manifest().namespace(), info);
        Some(gone)
    }

    /// The plugin of a message type, unless it is suspended.
    #[must_use]
    pub fn for_kind(&self, kind: &str) -> Option<Arc<Plugin>> {
        self.active().by_kind.get(kind).filter(|plugin| plugin.suspended().is_none()).cloned()
    }

    /// The name of the plugin of a message type that is suspended.
    pub(crate) fn suspended_for(&self, kind: &str) -> Option<String> {
        let active = self.active();
        let plugin = active.by_kind.get(kind).filter(|plugin| plugin.suspended().is_some())?;
        Some(plugin.manifest().name.clone())
    }

    /// The plugin of that name, suspended or not.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Plugin>> {
        self.all().into_iter().find(|plugin| plugin.manifest().name == name)
    }

    /// All that are active, suspended ones too.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Plugin>> {
        self.active().plugins.iter().map(|slot| slot.plugin.clone()).collect()
    }

    /// All plugins, and the files that are none, as they are shown.
    #[must_use]
    pub fn list(&self) -> Vec<PluginInfo> {
        let _moving = lock(&self.moving);
        let active = self.all();
        let candidates: Vec<PluginInfo> = lock(&self.candidates).values().cloned().collect();
        let removed: Vec<PluginInfo> = lock(&self.removed).values().cloned().collect();
        active
            .iter()
            .map(|plugin| plugin.info())
            .chain(self.rebuilding.infos())
            .chain(candidates)
            .chain(removed)
            .collect()
    }

    /// Message types that are not handled as the network says.
    #[must_use]
    pub fn deviations(&self) -> Vec<Deviation> {
        let found = |kind: &String| self.for_kind(kind).map(|plugin| plugin.sha256().to_owned());
        let all = self.loader.pins.iter();
        let all =
            all.map(|(kind, pinned)| Deviation { kind: kind.clone(), pinned: pinned.clone(), found: found(kind) });
        all.filter(|deviation| deviation.found.as_ref() != Some(&deviation.pinned)).collect()
    }

    /// The files in the folder that may be plugins.
    pub(super) fn files(&self) -> io::Result<BTreeMap<PathBuf, Stamp>> {
        let mut files = BTreeMap::new();
        let entries = fs::read_dir(&self.loader.folder)?.take(MAX_FILES);
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|extension| extension == "wasm")
                && let Ok(found) = fs::metadata(&path)
            {
                let modified_ns = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
                files.insert(path, Stamp { bytes: found.len(), modified_ns, inode: found.ino() });
            }
        }
        Ok(files)
    }

    /// Ends a compilation that is under way, and all later ones.
    pub(super) fn stop_compiling(&self) {
        self.loader.stop.store(true, Ordering::Relaxed);
    }

    /// The plugin that answers a path, with the pattern and what its parts matched.
    fn route(&self, path: &str) -> Option<(Slot, String, Parts)> {
        let active = self.active();
        let routes = active.plugins.iter().flat_map(|slot| slot.plugin.routes().iter().map(move |route| (slot, route)));
        let matching = routes.filter_map(|(slot, route)| Some((slot, route, route.matches(path)?)));
        let (slot, route, parts) = matching.max_by_key(|(_, route, _)| route.letters())?;
        Some((slot.clone(), route.pattern().to_owned(), parts))
    }

    /// True for a path that a plugin answers.
    pub(crate) fn answers(&self, path: &str) -> bool {
        self.route(path).is_some()
    }

    /// Answers a plugin's route; none when no plugin has it. The path is that of the URL, percent-encoded; parameters are decoded. Runs on a
    /// thread of its own, with what the store holds now.
    pub async fn query(
        &self,
        store: &Store,
        path: &str,
        parameters: Vec<(String, String)>,
    ) -> Option<Result<Response, HostError>> {
        let (Slot { plugin, queries }, route, parts) = self.route(path)?;
        let name = plugin.manifest().name.clone();
        if let Some(reason) = plugin.suspended() {
            return Some(Err(HostError::Suspended { plugin: name, reason: reason.to_owned() }));
        }
        let node = |reason: String| HostError::Node { plugin: name.clone(), reason };
        // Who asks one of the operator's own must not take all places from those who ask others.
        let permits = async {
            let own = queries.acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>((own, self.queries.clone().acquire_owned().await?))
        };
        let permits = match permits.await {
            Ok(permits) => permits,
            Err(error) => return Some(Err(node(error.to_string()))),
        };
        let store = store.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _permits = permits;
            let snapshot = Arc::new(store.snapshot()?);
            plugin.query(&route, parts, parameters, snapshot)
        });
        Some(answer.await.unwrap_or_else(|error| Err(node(error.to_string()))))
    }
}
