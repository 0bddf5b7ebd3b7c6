//! Chains: the node follows those that the settings name, and indexers say what it finds there.
//!
//! ```text
//!  provider ──> blocks, events ──> indexer (a plugin) ──> state, confirmations, balances, open work ──> one commit with the progress
//!  (untrusted)  checked, in order    says what they mean                      │
//!                                                                             └──> messages and archives, through the pipeline
//! ```
//!
//! A [`follower`] follows one chain for one indexer. What is final is asked for in ranges, as wide as the provider bears ([`span`]); what is not yet
//! final, block by block and by hash, so that a provider of several minds cannot mix two histories. Of every block that may yet be taken back its hash is
//! kept, and what each row that it changed was before ([`record::BlockRecord`]): a reorganisation is found by asking for the hash at a height ([`fork`]),
//! and undone without the indexer's help. What to do next is decided by pure functions ([`plan`]); the rest is a thin shell around them.

mod archive;
mod check;
mod commit;
mod endpoint;
mod follower;
mod fork;
mod plan;
mod provider;
pub mod record;
mod span;
mod status;
#[cfg(test)]
mod tests;
mod work;

pub use endpoint::EndpointError;
pub(crate) use plan::Pauses;
pub use status::{ChainStatus, FollowerState, FollowerStatus};

use crate::{
    config,
    fetch::Fetcher,
    files::Files,
    host::{HostError, Indexer, Manifest, PluginInfo, Plugins, Response},
    pipeline::Pipeline,
    store::Store,
};
use follower::Follower;
use provider::Provider;
use status::Shown;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Questions to indexers at once; more wait.
const MAX_QUERIES: usize = 8;

/// All chains that this node follows. They are followed until this value is dropped.
#[derive(Debug)]
pub struct Chains {
    chains: Vec<Arc<Shown>>,
    indexers: Vec<Arc<Indexer>>,
    queries: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Why a chain is not followed. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ChainsError {
    /// An indexer does not load.
    #[error("the indexer {indexer} of the chain {chain} is not loaded: {reason}")]
    Indexer {
        /// The chain.
        chain: String,
        /// As the settings name it.
        indexer: String,
        /// Why.
        reason: String,
    },
    /// An indexer does not take its settings.
    #[error("the settings of the indexer {indexer} on the chain {chain}: {reason}")]
    Settings {
        /// The chain.
        chain: String,
        /// As the settings name it.
        indexer: String,
        /// What it says.
        reason: String,
    },
    /// No provider can be asked.
    #[error("the provider of the chain {chain}: {reason}")]
    Provider {
        /// The chain.
        chain: String,
        /// Why.
        reason: EndpointError,
    },
}

/// What followers work with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) store: Store,
    pub(crate) files: Files,
    pub(crate) fetcher: Fetcher,
    pub(crate) pipeline: Pipeline,
}

impl Chains {
    /// Follows nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            chains: Vec::new(),
            indexers: Vec::new(),
            queries: Arc::new(Semaphore::new(MAX_QUERIES)),
            stop: CancellationToken::new(),
            tasks: Mutex::default(),
        }
    }

    /// Loads the indexers of all chains and begins to follow. Compiles what is not compiled yet: to be called where that may take a while.
    ///
    /// # Errors
    /// See [`ChainsError`]. Whether a provider can be reached is not asked here.
    pub(crate) fn start(settings: &[config::Chain], plugins: &Plugins, tools: &Tools) -> Result<Self, ChainsError> {
        let mut chains = Self::none();
        let mut followers = Vec::new();
        for chain in settings {
            let provider = Provider::new(&chain.rpc);
            let provider =
                provider.map_err(|reason| ChainsError::Provider { chain: chain.name.clone(), reason }).map(Arc::new)?;
            let shown = Arc::new(Shown::new(&chain.name));
            for entry in &chain.indexers {
                let indexer = chains.indexer(plugins, &chain.name, &entry.plugin)?;
                let config = serde_json::Value::Object(entry.config.clone()).to_string();
                let subscription = indexer.subscribe(&chain.name, &config).map_err(|error| ChainsError::Settings {
                    chain: chain.name.clone(),
                    indexer: entry.plugin.clone(),
                    reason: error.to_string(),
                })?;
                let status = shown.add(&entry.plugin, indexer.sha256());
                let provider = provider.clone();
                followers.push(Follower::new(chain, indexer, config, subscription, provider, tools.clone(), status));
            }
            chains.chains.push(shown);
        }
        let runtime = tokio::runtime::Handle::current();
        let tasks = followers.into_iter().map(|follower| runtime.spawn(follower.run(chains.stop.clone())));
        *chains.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks.collect();
        Ok(chains)
    }

    /// An indexer, loaded once however many chains name it.
    fn indexer(&mut self, plugins: &Plugins, chain: &str, name: &str) -> Result<Arc<Indexer>, ChainsError> {
        if let Some(known) = self.indexers.iter().find(|indexer| indexer.manifest().name == name) {
            return Ok(known.clone());
        }
        let loaded = plugins.indexer(name).map(Arc::new).map_err(|refusal| ChainsError::Indexer {
            chain: chain.to_owned(),
            indexer: name.to_owned(),
            reason: refusal.to_string(),
        })?;
        self.indexers.push(loaded.clone());
        Ok(loaded)
    }

    /// How far each chain is followed.
    #[must_use]
    pub fn status(&self) -> Vec<ChainStatus> {
        self.chains.iter().map(|chain| chain.status()).collect()
    }

    /// What the indexers say of themselves.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.indexers.iter().map(|indexer| indexer.manifest())
    }

    /// The indexers as plugins are shown.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginInfo> {
        self.indexers.iter().map(|indexer| indexer.info()).collect()
    }

    /// True for a path that an indexer answers.
    pub(crate) fn answers(&self, path: &str) -> bool {
        self.indexers.iter().any(|indexer| indexer.route(path).is_some())
    }

    /// Answers an indexer's route; none when no indexer has it.
    pub async fn query(
        &self,
        store: &Store,
        path: &str,
        parameters: Vec<(String, String)>,
    ) -> Option<Result<Response, HostError>> {
        let (indexer, (route, parts)) =
            self.indexers.iter().find_map(|indexer| Some((indexer.clone(), indexer.route(path)?)))?;
        let name = indexer.manifest().name.clone();
        let node = |reason: String| HostError::Node { plugin: name.clone(), reason };
        let permit = match self.queries.clone().acquire_owned().await {
            Ok(permit) => permit,
            Err(error) => return Some(Err(node(error.to_string()))),
        };
        let store = store.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let snapshot = Arc::new(store.snapshot()?);
            indexer.query(route, parts, parameters, snapshot)
        });
        Some(answer.await.unwrap_or_else(|error| Err(node(error.to_string()))))
    }

    /// Follows no further. What is being kept is kept first.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("one who followed a chain ended in a panic");
            }
        }
    }
}

impl Drop for Chains {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
