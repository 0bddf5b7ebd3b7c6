//! One process, one microVM: boots a kernel, carries virtio devices, answers doorbells.
//!
//! [`machine`] reads top to bottom: how a machine is built, run and ended. `ARCHITECTURE.md` has the map.

pub mod arch;
pub mod bus;
pub mod config;
pub mod control;
pub mod devices;
pub mod hole;
pub mod jail;
pub mod kernel;
pub mod machine;
pub mod memory;
pub mod probe;
pub mod snapshot;
pub mod statistics;
pub mod supervisor;
pub mod vcpu;
pub mod virtio;
pub mod vm;
pub mod working_set;
