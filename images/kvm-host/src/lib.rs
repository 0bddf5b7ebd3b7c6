//! The emulated KVM host, inside: a first process that prepares the machine, and an agent that does
//! what it is told over TCP. The other end is `tests/harness/src/kvm_host.rs`.
//!
//! | module | what it does |
//! |---|---|
//! | [`protocol`] | the words: orders in, frames out, both bounded |
//! | [`agent`] | carries orders out: runs, starts and kills programs, moves files |
//! | [`init`] | mounts, modules, network; starts the agent, reaps, powers off |
//! | [`measure`] | takes the time of two machine monitors by turns |
//! | [`call`] | takes the time of calls to a compute node |
//! | [`clock`] | tells the host's time, and how far a machine's is from it |
//! | [`names`] | a name server with one answer |
//! | [`density`] | has many machines up at once and tells what they take |
//!
//! What always holds: the machine ends when the one who started it does. The agent keeps it up only as
//! long as somebody holds the [`protocol::Order::Hold`] connection, so nothing that happens outside,
//! `kill -9` included, leaves an emulator behind.

pub mod agent;
pub mod call;
pub mod clock;
pub mod density;
pub mod init;
pub mod measure;
pub mod names;
pub mod protocol;
