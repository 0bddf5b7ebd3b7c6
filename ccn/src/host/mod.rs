//! Plugins: what message types mean, run inside bounds.
//!
//! [`Plugins`] loads the embedded ones and those of the operator's folder through the same door. A [`Plugin`] runs a fresh instance for each message; what it
//! sees is a [`Reader`] and nothing else, what it answers is checked against its manifest and named bounds before anybody else looks at it. Nothing
//! here knows any message type by name.

mod cache;
mod compiler;
mod crypto;
mod failure;
mod finding;
mod folder;
mod health;
mod histogram;
mod indexer;
mod instance;
mod keeper;
mod manifest;
mod outcome;
mod plugin;
mod profile;
mod rebuilding;
mod registry;
mod route;
mod stock;
mod view;

#[expect(missing_docs, reason = "generated from the contract")]
pub mod bindings {
    //! The contract, generated from `plugins/wit/handler.wit`, where every type and function is described.
    wasmtime::component::bindgen!({
        path: "../plugins/wit",
        world: "message-handler",
        imports: { default: trappable },
        additional_derives: [PartialEq],
    });
}

#[expect(missing_docs, reason = "generated from the contract")]
pub mod indexer_bindings {
    //! The other world of the contract, generated from `plugins/wit/indexer.wit`.
    wasmtime::component::bindgen!({
        path: "../plugins/wit",
        world: "chain-indexer",
        imports: { default: trappable },
        additional_derives: [PartialEq],
        with: {
            "aleph:plugin/types@0.2.0": super::bindings::aleph::plugin::types,
            "aleph:plugin/crypto@0.2.0": super::bindings::aleph::plugin::crypto,
            "aleph:plugin/log@0.2.0": super::bindings::aleph::plugin::log,
        },
    });
}

pub use bindings::aleph::plugin::types as contract;
pub use compiler::{COMMAND as COMPILE_COMMAND, Compiler, compile_standard_input};
pub(crate) use contract::Withdrawal;
pub use failure::FailureClass;
pub(crate) use finding::{Found, Meaning, Vouched};
pub use indexer::Indexer;
pub(crate) use indexer::{IndexerError, IndexerSubscription};
pub(crate) use indexer_bindings::exports::aleph::plugin::indexer as indexing;
pub use keeper::{Keeper, Request, RequestError};
pub use manifest::{Limits, Manifest, ManifestError, Operation, QueryParameter};
pub use outcome::{Effects, Need, Outcome, Plan, Price, Rejection, Subject, TokenBalances, Workload, Write};
pub use plugin::{Failures, Origin, Plugin, PluginInfo, PluginState, PrepareError, Quantiles, Session, Statistics};
pub(crate) use profile::PROFILE;
pub(crate) use registry::inspect_indexer;
pub use registry::{Deviation, LoadError, Plugins, Refusal, Source, inspect};
pub use stock::FirstLook;
pub(crate) use stock::first_look;
pub(crate) use view::{contract_message, state_key};

use crate::store::StoreError;

/// A plugin's own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// MIME type.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
}

/// Why a plugin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It ended in a trap. The plugin's mistake, and the same on every node.
    #[error("the plugin {plugin} failed: {reason}")]
    Trapped {
        /// The plugin.
        plugin: String,
        /// What happened.
        reason: String,
    },
    /// It used up its fuel. The plugin's mistake, and the same on every node.
    #[error("the plugin {plugin} used up its fuel of {fuel}")]
    OutOfFuel {
        /// The plugin.
        plugin: String,
        /// What it had.
        fuel: u64,
    },
    /// It went over a bound of the contract or of its manifest. The plugin's mistake, and the same on every node.
    #[error("the plugin {plugin} went too far: {reason}")]
    Overrun {
        /// The plugin.
        plugin: String,
        /// Which bound.
        reason: String,
    },
    /// Its stack is full, which is not the same on every machine: no verdict follows from it.
    #[error("the plugin {plugin} failed: {reason}")]
    NotPortable {
        /// The plugin.
        plugin: String,
        /// What happened.
        reason: String,
    },
    /// It is not called any more: its messages wait.
    #[error("the plugin {plugin} is suspended: {reason}")]
    Suspended {
        /// The plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
    /// It took too long, or the machine has no room for it. This node's problem.
    #[error("the plugin {plugin} could not be run: {reason}")]
    Node {
        /// The plugin.
        plugin: String,
        /// What happened.
        reason: String,
    },
    /// The store failed while the plugin read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HostError {
    /// Whose trouble it is.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Trapped { .. } | Self::Overrun { .. } => FailureClass::Deterministic,
            Self::OutOfFuel { .. } => FailureClass::OutOfFuel,
            Self::NotPortable { .. } => FailureClass::NotPortable,
            Self::Suspended { .. } | Self::Node { .. } | Self::Store(_) => FailureClass::Node,
        }
    }
}

#[cfg(test)]
mod tests;
