//! The five commands: demo, test, check, bench, images (and doctor).

fn main() {}
