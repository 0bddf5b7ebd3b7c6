//! Compute resource node of the Aleph Cloud network.

pub mod cache;
pub mod ccn;
pub mod cli;
pub mod config;
pub mod digest;
pub mod exchange;
pub mod executor;
pub mod guest;
pub mod log;
pub mod machine;
