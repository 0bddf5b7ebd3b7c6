//! A node without disk and without HTTP, whose plugins are those of a node and one more.

use crate::{
    chains::Chains,
    config::Config,
    fetch::{self, Fetcher},
    files::Files,
    host::{Compiler, Plugins, Source},
    network::Network,
    node::Service,
    pipeline::Pipeline,
    store::{Reader as _, Row, Store, schema::Table},
};
use anyhow::{Context as _, Result};
use redb::backends::InMemoryBackend;
use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// How long a message that lacks something counts as pending, seconds: longer than any run.
const HORIZON_SECONDS: u64 = 3600;
/// How often it is looked whether all is decided.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What plugins are compiled into, so that the next run begins at once: where the project keeps what is slow to make.
pub(super) fn compiled() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = set("BETH_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("beth")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/beth")))
        .context("none of BETH_CACHE, XDG_CACHE_HOME and HOME is set: no place for compiled plugins")?;
    Ok(root.join("compiled-plugins"))
}

/// Where the plugins of a scene come from: a folder that holds nothing, and the cache.
pub(super) fn source(folder: &Path) -> Result<Source> {
    let settings = Network::default().settings();
    let (folder, queries) = (folder.join("plugins"), Config::default().limits.queries);
    Ok(Source {
        folder,
        cache: compiled()?,
        compiler: Compiler::default(),
        grants: Default::default(),
        pins: Default::default(),
        settings,
        queries,
    })
}

/// A node.
pub(super) struct Scene {
    pub(super) service: Arc<Service>,
    _folder: TempDir,
}

impl Scene {
    pub(super) fn new(plugins: Arc<Plugins>) -> Result<Self> {
        let folder = tempfile::tempdir().context("no place for files")?;
        let mut config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
        config.pipeline.horizon_seconds = HORIZON_SECONDS;
        let store = Store::on(InMemoryBackend::new())?;
        let files = Files::open_folder(&folder.path().join("files"))?;
        let fetcher = Fetcher::new(files.clone(), fetch::Settings::default())?;
        let pipeline = Pipeline::start(&config, store.clone(), files.clone(), plugins.clone(), fetcher.clone())?;
        Ok(Self {
            service: Arc::new(Service {
                config,
                pipeline,
                store,
                plugins,
                keeper: None,
                chains: Chains::none(),
                files,
                fetcher,
                pinning: None,
                word: None,
            }),
            _folder: folder,
        })
    }

    /// Waits until nobody waits for what has arrived, or for the plugin to have time.
    pub(super) async fn settle(&self) -> Result<()> {
        while !self.service.pipeline.is_at_rest()? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The state of a namespace.
    pub(super) fn state(&self, namespace: &str) -> Result<Vec<Row>> {
        let prefix = crate::host::state_key(namespace, &[]);
        Ok(self.service.store.snapshot()?.prefixed(Table::State, &prefix)?)
    }

    pub(super) async fn stop(self) {
        self.service.pipeline.stop().await;
    }
}
