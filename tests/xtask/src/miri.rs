//! `cargo xtask miri`: the pure parts of the machine monitor in Rust's interpreter, which finds undefined behaviour that no run shows.
//!
//! What takes a socket, a timer or KVM cannot be interpreted, and is tested by fuzzing under an address sanitizer (`cargo xtask fuzz`) and in real
//! machines.

use crate::{
    build,
    command::{repository, run_loudly, run_quietly},
    progress::Progress,
};
use anyhow::Result;
use std::process::Command;

/// Modules of `vmm` whose tests Miri can run: parsers, rings, transports on guest memory, tables.
const MODULES: [&str; 10] = [
    "arch::x86_64::mp_table",
    "arch::x86_64::paging",
    "config::",
    "devices::block::request",
    "devices::network::frame",
    "devices::network::header",
    "devices::token_bucket",
    "devices::vsock::packet",
    "kernel::",
    "virtio::",
];
/// Cases of each property: an interpreter is a hundred times slower.
const CASES: &str = "16";

pub(crate) fn run() -> Result<()> {
    let progress = Progress::start("Miri (first use)");
    run_quietly(
        &progress,
        Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri"]),
    )?;
    run_quietly(&progress, &mut miri("setup"))?;
    progress.done("is there");
    run_loudly(miri("test").args(["--package", "vmm", "--lib", "--"]).args(MODULES))
}

fn miri(word: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .current_dir(repository())
        // Set by the pinned toolchain that runs xtask.
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("CARGO_TARGET_DIR", build::target_folder().join("miri"))
        .env("MIRIFLAGS", "-Zmiri-disable-isolation")
        .env("PROPTEST_CASES", CASES)
        .args(["run", "nightly", "cargo", "miri", word]);
    command
}
