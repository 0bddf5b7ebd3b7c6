//! Core channel node of the Aleph Cloud network.

pub mod store;
