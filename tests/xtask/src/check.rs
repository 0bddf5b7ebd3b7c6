//! `cargo xtask check`: what can be said of the sources without running them.

use crate::{
    command::{cargo, exists, output_of, repository, run_loudly, run_quietly},
    progress::Progress,
    setup,
};
use anyhow::{Context, Result, bail};
use std::{path::Path, process::Command};

/// What stands at the top of the repository, and nothing else (dot-files aside).
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "ccn",
    "crn",
    "guest-init",
    "images",
    "plugins",
    "rust-toolchain.toml",
    "tests",
];

/// The package that the workspace leaves out.
const FUZZ_MANIFEST: &str = "crn/vmm/fuzz/Cargo.toml";

/// Words that have no place in committed sources, and why.
const UNWANTED: &[(&str, &str)] = &[
    (concat!("/ro", "ot/.ca"), "a path of one machine"),
    (concat!("/wo", "rk/main"), "a path of one machine"),
    (concat!("#[ign", "ore"), "a test that does not run proves nothing"),
];

pub(crate) fn run(yes: bool) -> Result<()> {
    setup::packages(&[setup::TO_COMPILE], yes)?;
    setup::targets(&[setup::STATIC_TARGET, setup::PLUGIN_TARGET])?;
    step("formatting", cargo().args(["fmt", "--all", "--", "--check"]))?;
    // A workspace of its own.
    step("formatting of fuzz targets", cargo().args(["fmt", "--manifest-path", FUZZ_MANIFEST, "--", "--check"]))?;
    tidy()?;
    step("dependency policy", &mut deny()?)?;
    step("lints", cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]))?;
    println!("check passed");
    Ok(())
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    eprintln!("… {name}");
    run_loudly(command).with_context(|| format!("{name}: see above"))
}

/// Tidiness is code: the tree has the shape that the README's map shows.
fn tidy() -> Result<()> {
    eprintln!("… tidiness");
    let top = repository();
    let tracked = output_of(Command::new("git").args(["ls-files"]).current_dir(&top))?;
    let mut complaints = Vec::new();
    for path in tracked.lines() {
        let first = path.split('/').next().unwrap_or(path);
        if !first.starts_with('.') && !TOP_LEVEL.contains(&first) {
            complaints.push(format!("{path}: not a place of the tree"));
        }
        complaints.extend(unwanted_words(&top, path));
    }
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.join("\n"));
}

fn unwanted_words(top: &Path, path: &str) -> Vec<String> {
    // A deleted file, or one that is not text, has no words.
    let Ok(text) = std::fs::read_to_string(top.join(path)) else {
        return Vec::new();
    };
    UNWANTED
        .iter()
        .filter(|(word, _)| text.contains(word))
        .map(|(word, reason)| format!("{path}: `{word}`: {reason}"))
        .collect()
}

/// `cargo deny`, installed on first use. Advisories need a database from the internet and are left
/// to the maintainers' own runs.
fn deny() -> Result<Command> {
    if !exists("cargo-deny") {
        let progress = Progress::start("cargo-deny (first use)");
        run_quietly(&progress, cargo().args(["install", "cargo-deny", "--locked", "--version", "^0.20"]))?;
        progress.done("installed");
    }
    let mut command = cargo();
    command.args(["deny", "--log-level", "error", "--locked", "--config", ".deny.toml"]);
    command.args(["check", "bans", "licenses", "sources"]);
    Ok(command)
}
