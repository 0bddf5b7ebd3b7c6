//! All plugins of a node: which type is whose, which path is whose.

use super::{
    HostError, Manifest, Plugin, PluginInfo, Response,
    cache::Cache,
    plugin::{Granted, PrepareError},
    profile,
    route::Parts,
};
use crate::store::Store;
use ccn_message::ItemHash;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Semaphore;
use wasmtime::Engine;

/// Largest file of a plugin, bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most plugins.
const MAX_PLUGINS: usize = 256;
/// What a plugin asks for in its manifest to move credits and tokens.
const LEDGER: &str = "ledger";

/// All plugins that are active.
pub struct Plugins {
    plugins: Vec<Arc<Plugin>>,
    by_kind: BTreeMap<String, Arc<Plugin>>,
    queries: Arc<Semaphore>,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(&self.plugins).finish()
    }
}

/// Where plugins come from and what they get.
#[derive(Debug, Clone)]
pub struct Source {
    /// Folder of the operator's own.
    pub folder: PathBuf,
    /// Folder of compiled ones.
    pub cache: PathBuf,
    /// What the operator's own may do, by the sha256 of their file.
    pub grants: BTreeMap<String, Vec<String>>,
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
    Embedded {
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

struct Loader {
    engine: Engine,
    cache: Cache,
    settings: Arc<BTreeMap<String, String>>,
    grants: BTreeMap<String, Vec<String>>,
    plugins: Plugins,
}

impl Loader {
    fn add(&mut self, bytes: &[u8], embedded: bool) -> Result<Arc<Plugin>, Refusal> {
        if self.plugins.plugins.len() >= MAX_PLUGINS {
            return Err(Refusal::TooMany);
        }
        let manifest = Manifest::of(bytes).map_err(PrepareError::from)?;
        self.check_is_free(&manifest)?;
        let sha256 = ItemHash::sha256_of(bytes).to_string();
        let component = self.cache.component(&sha256, bytes).map_err(|error| Refusal::Compile(format!("{error:#}")))?;
        let granted = self.granted(&manifest, &sha256, embedded);
        let settings = self.settings.clone();
        let plugin = Arc::new(Plugin::prepare(&self.engine, &component, manifest, sha256, granted, settings)?);
        for kind in &plugin.manifest().types {
            self.plugins.by_kind.insert(kind.clone(), plugin.clone());
        }
        self.plugins.plugins.push(plugin.clone());
        Ok(plugin)
    }

    /// What is another plugin's stays so.
    fn check_is_free(&self, manifest: &Manifest) -> Result<(), Refusal> {
        let taken = |what, name: &str, owner: &Plugin| Refusal::Taken {
            what,
            name: name.to_owned(),
            owner: owner.manifest().name.clone(),
        };
        for plugin in &self.plugins.plugins {
            let other = plugin.manifest();
            if other.name == manifest.name {
                return Err(taken("name", &manifest.name, plugin));
            }
            if other.namespace() == manifest.namespace() {
                return Err(taken("namespace", manifest.namespace(), plugin));
            }
            if let Some(kind) = manifest.types.iter().find(|kind| other.types.contains(kind)) {
                return Err(taken("message type", kind, plugin));
            }
            if let Some(route) = manifest.routes.iter().find(|route| other.routes.contains(route)) {
                return Err(taken("route", route, plugin));
            }
        }
        Ok(())
    }

    /// What it asks for, as far as it may have it: the node's own are trusted, others get what the operator grants to that very file.
    fn granted(&self, manifest: &Manifest, sha256: &str, embedded: bool) -> Granted {
        let grants = self.grants.get(sha256);
        let has = |grant: &str| embedded || grants.is_some_and(|grants| grants.iter().any(|each| each == grant));
        let mut readable = manifest.reads().to_vec();
        readable.retain(|namespace| has(&format!("read:{namespace}")));
        let may_move = manifest.grants.iter().any(|grant| grant == LEDGER) && has(LEDGER);
        Granted { readable, may_move, embedded }
    }

    fn add_file(&mut self, path: &Path) -> Result<Arc<Plugin>, Refusal> {
        self.add(&read(path)?, false)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let found = fs::metadata(path)?;
    // Reading a pipe would never end.
    if !found.is_file() {
        return Err(Refusal::NoFile);
    }
    let size = found.len();
    if size > MAX_FILE_BYTES {
        return Err(Refusal::TooLarge(size));
    }
    Ok(fs::read(path)?)
}

/// What a node with its own plugins and nothing else says to a file: the plugin, as it would be active, with everything granted that it asks for.
///
/// # Errors
/// Why a node does not load it.
pub fn inspect(mut source: Source, path: &Path) -> Result<(Arc<Plugins>, Arc<Plugin>), Refusal> {
    let bytes = read(path)?;
    let manifest = Manifest::of(&bytes).map_err(PrepareError::from)?;
    let reads = manifest.reads().iter().map(|namespace| format!("read:{namespace}"));
    let grants = manifest.grants.iter().cloned().chain(reads).collect();
    source.grants.insert(ItemHash::sha256_of(&bytes).to_string(), grants);
    let mut loader = loader(source)?;
    let plugin = loader.add(&bytes, false)?;
    Ok((Arc::new(loader.plugins), plugin))
}

/// Loads the node's own plugins and those of the folder.
fn loader(source: Source) -> Result<Loader, LoadError> {
    let folder_error = |path: &Path| {
        let path = path.to_owned();
        move |reason| LoadError::Folder { path, reason }
    };
    let engine = profile::engine().map_err(|error| LoadError::Engine(format!("{error:#}")))?;
    let cache = Cache::open(&engine, &source.cache).map_err(folder_error(&source.cache))?;
    let queries = Arc::new(Semaphore::new(source.queries));
    let plugins = Plugins { plugins: Vec::new(), by_kind: BTreeMap::new(), queries };
    let mut loader = Loader { engine, cache, settings: Arc::new(source.settings), grants: source.grants, plugins };
    for plugin in plugin_bundle::BUNDLE {
        loader
            .add(plugin.bytes, true)
            .map_err(|refusal| LoadError::Embedded { name: plugin.name.to_owned(), reason: refusal.to_string() })?;
    }
    fs::create_dir_all(&source.folder).map_err(folder_error(&source.folder))?;
    let entries = fs::read_dir(&source.folder).map_err(folder_error(&source.folder))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    // Which of two files gets what both want must not depend on the file system.
    paths.sort();
    for path in paths {
        match loader.add_file(&path) {
            Ok(plugin) => tracing::info!("plugin {} from {}", plugin.manifest().name, path.display()),
            Err(refusal) => tracing::error!("{} is not loaded: {refusal}", path.display()),
        }
    }
    Ok(loader)
}

impl Plugins {
    /// Loads the node's own plugins and those of the folder. A file of the folder that does not load is left out, and the log says why.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(source: Source) -> Result<Self, LoadError> {
        Ok(loader(source)?.plugins)
    }

    /// The plugin of a message type.
    #[must_use]
    pub fn for_kind(&self, kind: &str) -> Option<Arc<Plugin>> {
        self.by_kind.get(kind).cloned()
    }

    /// All plugins.
    #[must_use]
    pub fn list(&self) -> Vec<PluginInfo> {
        self.plugins.iter().map(|plugin| plugin.info()).collect()
    }

    /// The plugin that answers a path, with the pattern and what its parts matched.
    fn route(&self, path: &str) -> Option<(Arc<Plugin>, String, Parts)> {
        let routes = self.plugins.iter().flat_map(|plugin| plugin.routes().iter().map(move |route| (plugin, route)));
        let matching = routes.filter_map(|(plugin, route)| Some((plugin, route, route.matches(path)?)));
        let (plugin, route, parts) = matching.max_by_key(|(_, route, _)| route.letters())?;
        Some((plugin.clone(), route.pattern().to_owned(), parts))
    }

    /// Answers a plugin's route; none when no plugin has it. The path is that of the URL, percent-encoded; parameters are decoded. Runs on a
    /// thread of its own, with what the store holds now.
    pub async fn query(
        &self,
        store: &Store,
        path: &str,
        parameters: Vec<(String, String)>,
    ) -> Option<Result<Response, HostError>> {
        let (plugin, route, parts) = self.route(path)?;
        let name = plugin.manifest().name.clone();
        let node = |reason: String| HostError::Node { plugin: name.clone(), reason };
        let permit = match self.queries.clone().acquire_owned().await {
            Ok(permit) => permit,
            Err(error) => return Some(Err(node(error.to_string()))),
        };
        let store = store.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let snapshot = Arc::new(store.snapshot()?);
            plugin.query(&route, parts, parameters, snapshot)
        });
        Some(answer.await.unwrap_or_else(|error| Err(node(error.to_string()))))
    }
}
