//! Virtio 1.2: the transport and what a device model must offer it.

pub mod device;
#[cfg(test)]
pub(crate) mod driver;
pub mod looks;
pub mod mmio;
pub mod state;
pub mod used;
