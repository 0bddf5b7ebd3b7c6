//! Starts nodes, VMs and clients for tests and the demo.
