//! PID 1 of the microVMs: mounts, starts the program, splices bytes.

fn main() {}
