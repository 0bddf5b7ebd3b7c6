//! What a plugin author needs: bindings to the contract in `plugins/wit`, a view that tests fill by hand, exact prices, and the layouts of state
//! that plugins publish to each other.
//!
//! A message type is a type that implements [`Handler`], exported with [`handler!`]. Its functions are pure: a message and a [`View`] in, a
//! verdict out. So they run, and are tested, without WebAssembly and without a node.

pub mod answer;
pub mod decimal;
mod handler;
pub mod indexer;
pub mod layout;
pub mod price;
pub mod simulation;
mod view;

#[expect(missing_docs, reason = "generated from the contract")]
pub mod bindings {
    //! The contract in Rust, generated from `plugins/wit/handler.wit`, where every type and function is described.
    wit_bindgen::generate!({
        path: "../wit",
        world: "message-handler",
        pub_export_macro: true,
        default_bindings_module: "plugin_sdk::bindings",
        additional_derives: [PartialEq],
    });
}

pub use bindings::{
    aleph::plugin::{
        crypto::{Digest, Scheme, hash, verify},
        log::{Level, write as log},
        types::*,
    },
    exports::aleph::plugin::query::{Request, Response},
};
pub use ccn_message as message;
pub use handler::{Handler, Refusal, no_effects, rejected, text_of};
pub use view::{HostView, MemoryView, Position, Use, Version, View, scan_all};
