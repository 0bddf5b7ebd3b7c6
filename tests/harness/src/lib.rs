//! Starts nodes, microVM hosts and clients for the end-to-end tests and the demo.

pub mod aleph;
pub mod anvil;
pub mod bench_boot;
pub mod bench_coldstart;
pub mod bench_density;
pub mod bench_network;
pub mod bench_plugins;
pub mod browser;
pub mod crates;
pub mod devnet;
pub mod hand_made;
pub mod http;
pub mod installation;
pub mod interrupt;
pub mod ipfs;
pub mod kvm_host;
pub mod npm;
pub mod overload;
pub mod process;
pub mod python;
pub mod sdk;
pub mod swift;
pub mod trace;
