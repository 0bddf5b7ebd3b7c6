//! Virtio 1.2: the transport and what a device model must offer it.

pub mod device;
pub mod mmio;
pub mod state;
