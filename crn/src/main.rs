//! Compute resource node of the Aleph Cloud network.

fn main() {}
