//! What a fresh machine needs before anything builds: system packages and Rust targets.

use crate::{
    command::{self, run_quietly},
    progress::Progress,
};
use ::images::{Sign, SystemPackage};
use anyhow::{Context, Result, bail};
use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// The target of what runs in or beside a guest: static binaries.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";
/// The target of plugins.
pub(crate) const PLUGIN_TARGET: &str = "wasm32-unknown-unknown";

/// Packages that compiling the workspace needs.
pub(crate) const TO_COMPILE: &[SystemPackage] = &[
    SystemPackage { name: "gcc", sign: Sign::Program("cc"), purpose: "links programs, compiles libsecp256k1" },
    SystemPackage { name: "libc6-dev", sign: Sign::File("/usr/include/stdlib.h"), purpose: "the C library's headers" },
    SystemPackage { name: "musl-tools", sign: Sign::Program("musl-gcc"), purpose: "static programs" },
];

/// The judge of the file systems that volumes are made with. Nearly every Debian has it.
pub(crate) const E2FSCK: SystemPackage =
    SystemPackage { name: "e2fsprogs", sign: Sign::File("/sbin/e2fsck"), purpose: "checks volumes in tests" };

/// The emulated KVM host, for machines that cannot run microVMs themselves.
pub(crate) const EMULATOR: SystemPackage = SystemPackage {
    name: "qemu-system-x86",
    sign: Sign::Program("qemu-system-x86_64"),
    purpose: "the emulated KVM host",
};

/// The interpreter of the official SDK.
pub(crate) const PYTHON: SystemPackage =
    SystemPackage { name: "python3", sign: Sign::Program("python3"), purpose: "the official Python SDK" };

/// What installs the chain that the tests follow, and runs the network's packages of TypeScript.
const NPM: SystemPackage = SystemPackage {
    name: "npm",
    sign: Sign::Program("npm"),
    purpose: "the development chain and a client of the tests",
};

/// What the network's command line in Rust is compiled against.
const OPENSSL: SystemPackage = SystemPackage {
    name: "libssl-dev",
    sign: Sign::File("/usr/include/openssl/ssl.h"),
    purpose: "a client of the tests, in Rust",
};

/// What finds that when it is compiled.
const PKG_CONFIG: SystemPackage =
    SystemPackage { name: "pkg-config", sign: Sign::Program("pkg-config"), purpose: "a client of the tests, in Rust" };

/// The browser that opens the node's pages.
const CHROMIUM: SystemPackage = SystemPackage {
    name: "chromium-headless-shell",
    sign: Sign::Program("chromium-headless-shell"),
    purpose: "a browser for the node's pages",
};

/// Packages that the end-to-end tests need and the demo does not.
pub(crate) const TO_TEST: &[SystemPackage] = &[NPM, CHROMIUM, OPENSSL, PKG_CONFIG];

/// Packages that the end-to-end tests and the demo need beyond that.
pub(crate) const TO_RUN: &[SystemPackage] = &[EMULATOR, PYTHON];

/// What Debian splits from its Python: there is no one file that shows whether it is there.
const ENVIRONMENTS: (&str, &str) = ("python3-venv", "an environment for the SDK of its own");

/// A package that is not there: its name and what it is needed for.
pub(crate) type Lacking = (&'static str, &'static str);

/// Which of these packages are not installed; Python's environments are looked for where Python is wanted.
pub(crate) fn lacking(wanted: &[&[SystemPackage]]) -> Vec<Lacking> {
    let wanted: Vec<&SystemPackage> = wanted.iter().copied().flatten().collect();
    let mut lacking: Vec<Lacking> = wanted
        .iter()
        .filter(|package| !package.is_installed())
        .map(|package| (package.name, package.purpose))
        .collect();
    if wanted.iter().any(|package| package.name == PYTHON.name) && !python_makes_environments() {
        lacking.push(ENVIRONMENTS);
    }
    lacking.sort_unstable();
    lacking.dedup_by_key(|(name, _)| *name);
    lacking
}

fn python_makes_environments() -> bool {
    Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Installs what is missing of these packages, as root or through sudo, after asking.
pub(crate) fn packages(wanted: &[&[SystemPackage]], yes: bool) -> Result<()> {
    let missing = lacking(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("This machine lacks:");
    for (name, purpose) in &missing {
        eprintln!("  {name:<24} {purpose}");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
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
            command.arg("DEBIAN_FRONTEND=noninteractive").arg(program);
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
