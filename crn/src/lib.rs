//! Compute resource node of the Aleph Cloud network.

pub mod api;
pub mod cache;
pub mod ccn;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod confinement;
pub mod digest;
pub mod exchange;
pub mod executor;
pub mod guest;
pub mod host_name;
pub mod log;
pub mod machine;
pub mod meter;
pub mod network;
pub mod node;
pub mod pool;
pub mod process;
pub mod random;
pub mod server;
pub mod template;
pub mod worth;
