//! The node: its parts in the order that a message meets them, and their end in reverse.

use crate::{
    api,
    chains::{Chains, ChainsError, Tools},
    config::Config,
    dev::{self, DevError, Keys},
    fetch::{self, Fetcher, Patience},
    files::{Files, S3Error},
    host::{Keeper, LoadError, Plugins, Source, first_look},
    operator::Word,
    pinning::{Pinning, PinningError},
    pipeline::Pipeline,
    server::Server,
    store::Store,
};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What the HTTP interface works with.
#[derive(Debug)]
pub struct Service {
    /// Settings.
    pub config: Config,
    /// The way in.
    pub pipeline: Pipeline,
    /// What is known.
    pub store: Store,
    /// What message types mean.
    pub plugins: Arc<Plugins>,
    /// Who keeps them as the folder has them; none where there is no folder.
    pub keeper: Option<Keeper>,
    /// Those who follow chains.
    pub chains: Chains,
    /// Files.
    pub files: Files,
    /// Who looks for files elsewhere.
    pub fetcher: Fetcher,
    /// The one who has an IPFS node keep them, too; none where there is no such node.
    pub pinning: Option<Pinning>,
    /// By what the operator is known; none where there is no operator.
    pub word: Option<Word>,
}

/// A node that serves.
#[derive(Debug)]
pub struct Node {
    service: Arc<Service>,
    server: Server,
    keys: Option<Keys>,
    /// Who looks again and again at who can pay.
    reviewing: Option<tokio::task::JoinHandle<()>>,
    /// Held as long as the node is there: one process per folder.
    _lock: File,
}

/// Why a node does not start. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another process works in the same folder.
    #[error("another ccn is running in {0}: stop it, or choose another --data-dir")]
    Locked(PathBuf),
    /// The folder cannot be used.
    #[error("the data folder {path} cannot be used: {reason}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The folder holds what another network's messages made.
    #[error(
        "the data folder {path} belongs to the network `{found}`, and this node is of `{wanted}`: choose another --data-dir{hint}"
    )]
    OtherNetwork {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// The network of the settings.
        wanted: String,
        /// What else may have been meant.
        hint: &'static str,
    },
    /// The store does not open: it is damaged, no store, or of another version.
    #[error("{path}: {reason}; if it is damaged, put a backup in its place, or choose a new --data-dir")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The files are not to be had where the settings say.
    #[error(transparent)]
    Files(#[from] S3Error),
    /// There are no plugins.
    #[error(transparent)]
    Plugins(#[from] LoadError),
    /// A chain cannot be followed as the settings say.
    #[error(transparent)]
    Chains(#[from] ChainsError),
    /// TLS cannot be set up.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// Nothing would be pinned.
    #[error(transparent)]
    Pinning(#[from] PinningError),
    /// The system has no thread left.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The development network is not set up.
    #[error(transparent)]
    Dev(#[from] DevError),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: io::Error,
    },
}

impl Service {
    /// Opens everything but the HTTP interface.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn open(config: Config) -> Result<Self, NodeError> {
        let data = config.data_dir.clone();
        let folder = |path: &Path| {
            let path = path.to_owned();
            move |reason| NodeError::Folder { path, reason }
        };
        let store = open_store(data.join("store.redb")).await?;
        let files = Files::set_up(&data.join("files"), config.files.s3.as_ref()).await;
        let files = files.map_err(|error| match error {
            S3Error::Folder(reason) => NodeError::Folder { path: data.join("files"), reason },
            error => error.into(),
        })?;
        let word = Word::open(&data).map_err(folder(&data))?;
        let source = Source {
            folder: config.plugin_folder(),
            cache: compiled_plugins(&data),
            compiler: config.compiler.clone(),
            grants: config.plugin_grants.clone(),
            pins: config.network.plugins.clone(),
            settings: config.network.settings(),
            queries: config.limits.queries,
        };
        let (look_in, of_store) = (config.plugin_folder(), store.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            let plugins = Arc::new(Plugins::load(source)?);
            let found =
                first_look(&plugins, &of_store).map_err(|reason| LoadError::Folder { path: look_in, reason })?;
            Ok::<_, LoadError>((plugins, found))
        });
        let (plugins, found) = loaded.await.map_err(|error| LoadError::Engine(error.to_string()))??;
        let limits = &config.limits;
        let fetcher = Fetcher::new(
            files.clone(),
            fetch::Settings {
                peers: config.peers.clone(),
                ipfs: config.ipfs.clone(),
                max_bytes: limits.fetch_mib.saturating_mul(1 << 20),
                downloads: limits.fetches,
                patience: Patience::default(),
            },
        )?;
        let pipeline = Pipeline::start(&config, store.clone(), files.clone(), plugins.clone(), fetcher.clone());
        let pipeline = pipeline.map_err(NodeError::Thread)?;
        let keeper = Keeper::start(plugins.clone(), pipeline.clone(), store.clone(), found);
        let keeper = keeper.map_err(NodeError::Thread)?;
        let tools =
            Tools { store: store.clone(), files: files.clone(), fetcher: fetcher.clone(), pipeline: pipeline.clone() };
        let (settings, of_plugins) = (config.chains.clone(), plugins.clone());
        let followed = tokio::task::spawn_blocking(move || Chains::start(&settings, &of_plugins, &tools));
        let chains = followed.await.map_err(|error| LoadError::Engine(error.to_string()))??;
        let api = config.ipfs.api.as_deref().filter(|_| config.ipfs.pin);
        let pinning = api.map(|api| Pinning::start(api, store.clone(), files.clone(), pipeline.clone())).transpose()?;
        let (keeper, word) = (Some(keeper), Some(word));
        Ok(Self { config, pipeline, store, plugins, keeper, chains, files, fetcher, pinning, word })
    }
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn start(mut config: Config) -> Result<Self, NodeError> {
        let data = config.data_dir.clone();
        fs::create_dir_all(&data).map_err(|reason| NodeError::Folder { path: data.clone(), reason })?;
        let lock = lock(&data)?;
        claim(&data, if config.dev { dev::NETWORK } else { &config.network.name })?;
        let keys = if config.dev { Some(Keys::open(&data)?) } else { None };
        if let Some(keys) = &keys {
            config.network = keys.network(&config.network);
        }
        let service = Arc::new(Service::open(config).await?);
        if let Some(keys) = &keys {
            keys.set_up(&service).await?;
        }
        let (address, most) = (service.config.listen, service.config.limits.max_connections);
        let server = Server::listen(address, api::router(service.clone()), most)
            .await
            .map_err(|reason| NodeError::Listen { address, reason })?;
        let every = Duration::from_secs(service.config.pipeline.review_seconds);
        // It ends with the pipeline.
        let reviewing = (!every.is_zero()).then(|| tokio::spawn(service.pipeline.clone().keep_reviewing(every)));
        Ok(Self { service, server, keys, reviewing, _lock: lock })
    }

    /// What is said at the start: the keys of a development network, and last, that the node is ready.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(keys) = &self.keys {
            lines.extend(keys.lines());
        }
        let config = &self.service.config;
        lines.push(format!(
            "ccn ready on http://{} (network {}, {} plugins, {} compute nodes)",
            self.server.address(),
            config.network.name,
            self.service.plugins.all().len(),
            config.crns.len(),
        ));
        lines
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What it serves.
    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Stops answering, then following chains and pinning, then deciding.
    pub async fn stop(self) {
        self.server.stop().await;
        self.service.chains.stop().await;
        if let Some(pinning) = &self.service.pinning {
            pinning.stop().await;
        }
        self.service.pipeline.stop().await;
        if let Some(reviewing) = self.reviewing {
            // Until then it holds on to the store, which the next start in this folder would find open.
            let _ = reviewing.await;
        }
    }
}

/// Opens the store; after a crash that may take a while.
async fn open_store(path: PathBuf) -> Result<Store, NodeError> {
    let file = path.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&file)).await;
    let failed = |reason: String| NodeError::Open { path, reason };
    match opened {
        Ok(opened) => opened.map_err(|error| failed(error.to_string())),
        // The database ends in a panic where its pages contradict each other.
        Err(error) => Err(failed(format!("the store failed: {error}"))),
    }
}

/// Where compiled plugins are kept.
#[cfg(not(test))]
fn compiled_plugins(data: &Path) -> PathBuf {
    data.join("compiled-plugins")
}

/// Tests start many nodes with the same plugins.
#[cfg(test)]
fn compiled_plugins(_data: &Path) -> PathBuf {
    std::env::temp_dir().join("beth-tests-compiled-plugins")
}

/// Takes the folder for this process. The kernel gives it back however the process ends.
fn lock(data: &Path) -> Result<File, NodeError> {
    let failed = |reason| NodeError::Folder { path: data.to_owned(), reason };
    let file = File::options().create(true).truncate(false).write(true).open(data.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NodeError::Locked(data.to_owned())),
        Err(TryLockError::Error(reason)) => Err(failed(reason)),
    }
}

/// Takes the folder for a network, for ever.
fn claim(data: &Path, wanted: &str) -> Result<(), NodeError> {
    let path = data.join("network");
    let failed = |reason| NodeError::Folder { path: data.to_owned(), reason };
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == wanted => Ok(()),
        Ok(found) if !found.trim().is_empty() => {
            let found = found.trim().to_owned();
            let hint = if found == dev::NETWORK { ", or use --dev" } else { "" };
            Err(NodeError::OtherNetwork { path: data.to_owned(), found, wanted: wanted.to_owned(), hint })
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        // None is there, or an empty one, which a power cut left of one that was being written.
        Ok(_) | Err(_) => {
            let mut file = File::create(&path).map_err(failed)?;
            file.write_all(format!("{wanted}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_no_store_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.redb");
        fs::write(&path, "hello").expect("a file");
        let refusal = open_store(path.clone()).await.expect_err("no store").to_string();
        assert!(refusal.starts_with(&format!("{}: the store failed", path.display())), "{refusal}");
        assert!(refusal.contains("put a backup in its place"), "{refusal}");
    }

    #[test]
    fn a_folder_belongs_to_one_process_and_one_network() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = lock(folder.path()).expect("a lock");
        assert!(matches!(lock(folder.path()), Err(NodeError::Locked(_))));
        drop(held);
        lock(folder.path()).expect("a lock");
        fs::write(folder.path().join("network"), "").expect("what a power cut leaves");
        claim(folder.path(), dev::NETWORK).expect("a new folder");
        claim(folder.path(), dev::NETWORK).expect("the same network");
        let refusal = claim(folder.path(), "mainnet").expect_err("another network").to_string();
        assert!(refusal.ends_with(
            "belongs to the network `dev`, and this node is of `mainnet`: choose another --data-dir, or use --dev"
        ));
    }
}
