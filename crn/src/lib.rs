//! Compute resource node of the Aleph Cloud network.

pub mod cli;
pub mod config;
pub mod exchange;
