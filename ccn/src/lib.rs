//! Core channel node of the Aleph Cloud network.

pub mod api;
pub mod chains;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dag;
pub mod descriptors;
pub mod dev;
pub mod events;
pub mod fetch;
pub mod files;
pub mod host;
pub mod kit;
pub mod ledger;
pub mod network;
pub mod node;
pub mod operator;
pub mod pinning;
pub mod pipeline;
pub mod schedule;
mod server;
pub mod store;
#[cfg(test)]
mod testing;
