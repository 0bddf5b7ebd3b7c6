//! Init of the emulated KVM host: starts what it is told.

fn main() {}
