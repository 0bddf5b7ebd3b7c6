//! An indexer of chains: a component that says which events it wants and what they mean, a fresh instance for every call.
//!
//! Its state lies apart from that of message types, in a table of its own: it is this node's view of a chain, and no part of the common state.

use super::{
    HostError, Manifest, Origin, Response,
    bindings::aleph::plugin::types,
    finding::{self, Found, Meaning},
    indexer_bindings::{ChainIndexer, ChainIndexerPre, aleph::plugin::chain_view},
    indexing,
    instance::{self, Instance},
    outcome,
    plugin::{Granted, PluginInfo, PluginState, PrepareError, failure},
    route::{Parts, Route},
    view::{Access, Host},
};
use crate::store::{
    Reader,
    schema::{Key, Table},
};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use wasmtime::{
    Engine, Store,
    component::{Component, HasSelf, Linker},
};

/// The interfaces that an indexer may import.
const IMPORTS: [&str; 4] = [
    "aleph:plugin/types@0.2.0",
    "aleph:plugin/chain-view@0.2.0",
    "aleph:plugin/crypto@0.2.0",
    "aleph:plugin/log@0.2.0",
];
/// Most contracts that are asked for.
const MAX_FILTERS: usize = 128;
/// Most events of a contract that are asked for.
const MAX_TOPICS: usize = 32;
/// Longest sentence of an indexer about what went wrong, bytes.
const MAX_SENTENCE_BYTES: usize = 1 << 10;

/// An indexer that can be called.
pub struct Indexer {
    manifest: Manifest,
    sha256: String,
    origin: Origin,
    may_move: bool,
    access: Arc<Access>,
    engine: Engine,
    pre: ChainIndexerPre<Host>,
    routes: Vec<Route>,
}

impl std::fmt::Debug for Indexer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Indexer").field("name", &self.manifest.name).finish_non_exhaustive()
    }
}

/// What to ask a chain for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexerSubscription {
    /// Contracts, each with the first topics of the events that are wanted.
    pub(crate) filters: Vec<([u8; 20], Vec<[u8; 32]>)>,
    /// Blocks before this one are not asked for.
    pub(crate) start: u64,
}

/// Why an indexer gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexerError {
    /// It failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It says itself that it cannot go on.
    #[error("the indexer {indexer} says: {sentence}")]
    Says {
        /// Its name.
        indexer: String,
        /// What it says.
        sentence: String,
    },
}

impl Indexer {
    /// Links a component with its view.
    pub(super) fn prepare(
        engine: &Engine,
        component: &Component,
        manifest: Manifest,
        sha256: String,
        origin: Origin,
        granted: &Granted,
    ) -> Result<Self, PrepareError> {
        instance::check_imports(engine, component, &IMPORTS)?;
        let contract = |error: wasmtime::Error| PrepareError::Contract(format!("{error:#}"));
        let mut linker = Linker::<Host>::new(engine);
        ChainIndexer::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host).map_err(contract)?;
        let pre = linker.instantiate_pre(component).and_then(ChainIndexerPre::new).map_err(contract)?;
        let routes = instance::routes(&manifest)?;
        let access = Access {
            plugin: manifest.name.clone(),
            namespace: manifest.namespace().to_owned(),
            table: Table::ChainState,
            readable: Vec::new(),
            settings: Arc::new(BTreeMap::new()),
            memory_bytes: (manifest.limits.memory_mib << 20) as usize,
        };
        let may_move = granted.may_move;
        let access = Arc::new(access);
        Ok(Self { manifest, sha256, origin, may_move, access, engine: engine.clone(), pre, routes })
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

    /// What can be said of it; how far it is on each chain, the chains say.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        let file = match &self.origin {
            Origin::Bundled => None,
            Origin::File(path) => Some(path.as_path()),
        };
        let grants = self.may_move.then(|| super::manifest::LEDGER.to_owned()).into_iter().collect();
        let of_manifest = PluginInfo::of_manifest(&self.manifest, &self.sha256, file.map(Path::new));
        PluginInfo { state: PluginState::Active, grants, ..of_manifest }
    }

    /// True when it may say how many tokens addresses hold.
    pub(crate) fn publishes_balances(&self) -> bool {
        self.may_move
    }

    /// The beginning of the keys of its state of one chain.
    pub(crate) fn state_of(&self, chain: &str) -> Vec<u8> {
        Key::new().text(self.manifest.namespace()).text(chain).done()
    }

    /// The key of a row of its state.
    pub(crate) fn state_key(&self, key: &[u8]) -> Vec<u8> {
        super::state_key(self.manifest.namespace(), key)
    }

    /// What to ask the chain for.
    pub(crate) fn subscribe(&self, chain: &str, config: &str) -> Result<IndexerSubscription, IndexerError> {
        let answer = self.call(None, |store, it| it.aleph_plugin_indexer().call_subscribe(store, chain, config))?;
        let found = answer.map_err(|sentence| self.says(sentence))?;
        let overrun = |reason: String| self.overrun(reason);
        outcome::at_most("contracts", found.filters.len(), MAX_FILTERS).map_err(overrun)?;
        let filter = |filter: indexing::Filter| {
            outcome::at_most("events of a contract", filter.topics.len(), MAX_TOPICS)?;
            let contract = filter.contract.try_into().map_err(|_| "a contract's address has 20 bytes".to_owned())?;
            let topic = |topic: Vec<u8>| topic.try_into().map_err(|_| "a topic has 32 bytes".to_owned());
            let topics: Vec<[u8; 32]> = filter.topics.into_iter().map(topic).collect::<Result<_, String>>()?;
            if topics.is_empty() {
                Err("it asks for no event of a contract".to_owned())
            } else {
                Ok((contract, topics))
            }
        };
        let filters = found.filters.into_iter().map(filter).collect::<Result<Vec<_>, String>>().map_err(overrun)?;
        if filters.is_empty() {
            return Err(self.overrun("it asks for no contract".to_owned()).into());
        }
        Ok(IndexerSubscription { filters, start: found.start })
    }

    /// What a block's events mean, packed as the contract says; `events` is their number.
    pub(crate) fn decode(
        &self,
        config: &str,
        batch: &indexing::Batch,
        events: usize,
        reader: Arc<dyn Reader + Send + Sync>,
    ) -> Result<Vec<Found>, IndexerError> {
        let answer =
            self.call(Some(reader), |store, it| it.aleph_plugin_indexer().call_decode(store, config, batch))?;
        let records = answer.map_err(|sentence| self.says(sentence))?;
        let prefix = Key::new().text(&batch.block.chain).done();
        let found = finding::decoded(records, events, &prefix, &self.manifest.limits, self.may_move);
        Ok(found.map_err(|reason| self.overrun(reason))?)
    }

    /// What an archive holds.
    pub(crate) fn unpack(
        &self,
        config: &str,
        block: &indexing::Block,
        file: &[u8],
    ) -> Result<Vec<Meaning>, IndexerError> {
        let answer = self.call(None, |store, it| it.aleph_plugin_indexer().call_unpack(store, config, block, file))?;
        let findings = answer.map_err(|sentence| self.says(sentence))?;
        Ok(finding::unpacked(findings).map_err(|reason| self.overrun(reason))?)
    }

    /// The route that answers a path, and what its parts matched.
    pub(crate) fn route(&self, path: &str) -> Option<(String, Vec<(String, String)>)> {
        let matching = self.routes.iter().filter_map(|route| Some((route, route.matches(path)?)));
        let (route, parts): (&Route, Parts) = matching.max_by_key(|(route, _)| route.letters())?;
        Some((route.pattern().to_owned(), parts))
    }

    /// Answers a question to one of its routes.
    pub(crate) fn query(
        &self,
        route: String,
        path: Vec<(String, String)>,
        parameters: Vec<(String, String)>,
        reader: Arc<dyn Reader + Send + Sync>,
    ) -> Result<Response, HostError> {
        let request = indexing::Request { route, path, parameters };
        let found = self.call(Some(reader), |store, it| it.aleph_plugin_indexer().call_query(store, &request))?;
        outcome::check_response(found.status, &found.content_type, &found.body)
            .map_err(|reason| self.overrun(reason))?;
        Ok(Response { status: found.status, content_type: found.content_type, body: found.body })
    }

    fn says(&self, mut sentence: String) -> IndexerError {
        sentence.truncate(sentence.floor_char_boundary(MAX_SENTENCE_BYTES));
        IndexerError::Says { indexer: self.manifest.name.clone(), sentence }
    }

    fn overrun(&self, reason: String) -> HostError {
        HostError::Overrun { plugin: self.manifest.name.clone(), reason }
    }

    /// Runs a fresh instance, inside the bounds of the manifest.
    fn call<T>(
        &self,
        reader: Option<Arc<dyn Reader + Send + Sync>>,
        run: impl FnOnce(&mut Store<Host>, &ChainIndexer) -> wasmtime::Result<T>,
    ) -> Result<T, HostError> {
        let fuel = self.manifest.limits.fuel;
        let instance = Instance::start(&self.engine, &self.access, |store| self.pre.instantiate(store));
        let answer = instance.and_then(|mut instance| instance.call(reader, fuel, run).0);
        answer.map_err(|error| failure(&self.manifest.name, fuel, error))
    }
}

impl chain_view::Host for Host {
    fn get(&mut self, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        let namespace = self.namespace();
        self.read(&namespace, &key)
    }

    fn scan(&mut self, start: Vec<u8>, end: Vec<u8>, limit: u32, reverse: bool) -> wasmtime::Result<types::Page> {
        let namespace = self.namespace();
        self.page(&namespace, (&start, &end), limit, reverse)
    }
}
