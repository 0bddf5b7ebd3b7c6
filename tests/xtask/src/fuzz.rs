//! `cargo xtask fuzz`: hostile guests against the machine monitor, for as long as one likes, with LLVM's libFuzzer and its address sanitizer.
//!
//! Targets, and what each is held to, are in `crn/vmm/fuzz`. What a run learns stays in `target/fuzz/corpus` and is where the next one goes on.

use crate::{
    build,
    command::{cargo, exists, repository, run_loudly, run_quietly},
    progress::Progress,
    setup,
};
use ::images::{Sign, SystemPackage};
use anyhow::{Context, Result, ensure};
use std::{fs, path::PathBuf, process::Command};

/// libFuzzer is C++.
const COMPILER: SystemPackage =
    SystemPackage { name: "g++", sign: Sign::Program("c++"), purpose: "compiles libFuzzer" };
/// A case that takes longer is one that does not end, seconds.
const CASE_SECONDS: u32 = 10;
/// Memory of a fuzzer, MiB.
const MEMORY_MIB: u32 = 2048;
/// Longest input, bytes: a whole state file fits.
const INPUT_BYTES: u32 = 16 * 1024;

/// What is fuzzed, and for how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One target; all of them, one after the other, if none is named
    target: Option<String>,
    /// How long each is fuzzed, seconds
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments, yes: bool) -> Result<()> {
    setup::packages(&[setup::TO_COMPILE, &[COMPILER]], yes)?;
    if !exists("cargo-fuzz") {
        let progress = Progress::start("cargo-fuzz (first use)");
        run_quietly(&progress, cargo().args(["install", "cargo-fuzz", "--locked", "--version", "^0.13"]))?;
        progress.done("installed");
    }
    let all = targets()?;
    let chosen: Vec<&String> =
        all.iter().filter(|name| arguments.target.as_ref().is_none_or(|only| only == *name)).collect();
    ensure!(!chosen.is_empty(), "there is no such target; there are {}", all.join(", "));

    let progress = Progress::start("fuzz targets: building");
    run_quietly(&progress, &mut fuzz("build"))?;
    progress.done("built");
    for name in chosen {
        let (corpus, found) = (folder().join("corpus").join(name), folder().join("found"));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let mut command = fuzz("run");
        command.arg(name).arg(corpus).arg(package().join("seeds").join(name)).arg("--").args([
            format!("-max_total_time={}", arguments.seconds),
            format!("-timeout={CASE_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_MIB}"),
            format!("-max_len={INPUT_BYTES}"),
            format!("-artifact_prefix={}/{name}-", found.display()),
            "-print_final_stats=1".to_owned(),
        ]);
        run_loudly(&mut command).with_context(|| format!("{name}: the input is in {}", found.display()))?;
    }
    Ok(())
}

/// The package of the targets.
fn package() -> PathBuf {
    repository().join("crn/vmm/fuzz")
}

/// Where everything goes that is made of it.
fn folder() -> PathBuf {
    build::target_folder().join("fuzz")
}

/// The targets by name, in the order of the alphabet.
fn targets() -> Result<Vec<String>> {
    let folder = package().join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort_unstable();
    Ok(names)
}

/// A command of cargo-fuzz.
fn fuzz(command: &str) -> Command {
    let mut cargo = cargo();
    // Sanitizers are switched on by flags that the pinned compiler takes from nobody else.
    cargo.current_dir(repository().join("crn/vmm")).env("RUSTC_BOOTSTRAP", "1");
    cargo.args(["fuzz", command, "--target-dir"]).arg(folder());
    cargo
}
