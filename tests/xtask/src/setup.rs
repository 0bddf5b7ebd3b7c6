//! What a fresh machine needs before anything builds: system packages and Rust targets.

use crate::{
    command::{self, run_quietly},
    progress::Progress,
};
use anyhow::{Context, Result, bail};
use std::{io::Write as _, path::Path, process::Command};

/// The target of what runs in or beside a guest: static binaries.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";
/// The target of plugins.
pub(crate) const PLUGIN_TARGET: &str = "wasm32-unknown-unknown";

/// A Debian package, how to see that it is there, and what it is needed for.
pub(crate) struct SystemPackage {
    pub(crate) name: &'static str,
    pub(crate) sign: Sign,
    pub(crate) purpose: &'static str,
}

/// How to see that a package is installed without asking a package manager.
pub(crate) enum Sign {
    /// A program on the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

impl SystemPackage {
    fn is_installed(&self) -> bool {
        match self.sign {
            Sign::Program(name) => command::exists(name),
            Sign::File(path) => Path::new(path).exists(),
        }
    }
}

/// Packages that compiling the workspace needs.
pub(crate) const TO_COMPILE: &[SystemPackage] = &[
    SystemPackage { name: "gcc", sign: Sign::Program("cc"), purpose: "links programs, compiles libsecp256k1" },
    SystemPackage { name: "libc6-dev", sign: Sign::File("/usr/include/stdlib.h"), purpose: "the C library's headers" },
    SystemPackage { name: "musl-tools", sign: Sign::Program("musl-gcc"), purpose: "static programs" },
];

/// Packages that the end-to-end tests and the demo need beyond that.
pub(crate) const TO_RUN: &[SystemPackage] = &[
    SystemPackage {
        name: "qemu-system-x86",
        sign: Sign::Program("qemu-system-x86_64"),
        purpose: "the emulated KVM host",
    },
    SystemPackage { name: "python3-venv", sign: Sign::Program("python3"), purpose: "the official Python SDK" },
];

/// Installs what is missing of these packages, as root or through sudo, after asking.
pub(crate) fn packages(wanted: &[&[SystemPackage]], yes: bool) -> Result<()> {
    let missing: Vec<&SystemPackage> =
        wanted.iter().copied().flatten().filter(|package| !package.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("This machine lacks:");
    for package in &missing {
        eprintln!("  {:<20} {}", package.name, package.purpose);
    }
    let mut names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    names.sort_unstable();
    names.dedup();
    let by_hand = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if !command::exists("apt-get") {
        bail!("no apt-get here: install these with your package manager, then try again");
    }
    let root = rustix::process::geteuid().is_root();
    if !root && !command::exists("sudo") {
        bail!("not root and no sudo: run as root `{by_hand}`");
    }
    if !yes && !confirmed(&format!("Install them with `{}{by_hand}`?", if root { "" } else { "sudo " }))? {
        bail!("nothing installed; when ready: `{by_hand}`");
    }
    let privileged = |program: &str| {
        let mut command = Command::new(if root { program } else { "sudo" });
        if !root {
            command.arg(program);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let progress = Progress::start("system packages");
    run_quietly(&progress, privileged("apt-get").args(["update", "-qq"]))
        .context("cannot refresh the package lists")?;
    run_quietly(
        &progress,
        privileged("apt-get").args(["install", "-qq", "-y", "--no-install-recommends"]).args(&names),
    )?;
    progress.done(&format!("{} installed", names.len()));
    Ok(())
}

/// Adds the Rust targets that are missing.
pub(crate) fn targets(wanted: &[&str]) -> Result<()> {
    let installed =
        command::output_of(Command::new("rustc").args(["--print", "sysroot"]).current_dir(command::repository()))?;
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|target| !Path::new(&installed).join("lib/rustlib").join(target).join("lib").is_dir())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !command::exists("rustup") {
        bail!(
            "the Rust targets {} are missing and rustup is not here to add them: install Rust from \
             your distribution with those targets, or use rustup",
            missing.join(", ")
        );
    }
    let progress = Progress::start("Rust targets");
    run_quietly(
        &progress,
        Command::new("rustup").args(["target", "add"]).args(&missing).current_dir(command::repository()),
    )?;
    progress.done(&missing.join(", "));
    Ok(())
}

fn confirmed(question: &str) -> Result<bool> {
    eprint!("{question} [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    if std::io::stdin().read_line(&mut answer)? == 0 {
        bail!("nobody to ask: pass --yes to install without asking");
    }
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}
