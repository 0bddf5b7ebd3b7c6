//! Core channel node of the Aleph Cloud network.

fn main() {}
