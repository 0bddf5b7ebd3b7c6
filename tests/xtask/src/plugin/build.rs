//! `plugin build`: a crate becomes a core module, the module a component.

use crate::{command::repository, setup::PLUGIN_TARGET};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

#[path = "../../../../plugins/bundle/src/componentize.rs"]
mod componentize;
use componentize::componentize;

/// How plugins are compiled, whatever their own files say: a plugin's size is its load time.
const PROFILE: [&str; 5] = [
    "profile.release.opt-level='s'",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic='abort'",
    "profile.release.strip='symbols'",
];

/// What is to be built.
pub(super) struct Source {
    pub(super) folder: PathBuf,
    pub(super) name: String,
}

impl Source {
    /// What a folder holds.
    pub(super) fn at(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let path = folder.join("manifest.json");
        let manifest = fs::read(&path).with_context(|| path.display().to_string())?;
        let manifest: Value = serde_json::from_slice(&manifest).with_context(|| path.display().to_string())?;
        let name = manifest["name"].as_str().with_context(|| format!("{}: no name", path.display()))?;
        Ok(Self { name: name.to_owned(), folder })
    }
}

/// Makes a plugin of a crate.
pub(super) fn build(source: &Source, out: &Path) -> Result<()> {
    let module = module(&source.folder)?;
    let module = fs::read(&module).with_context(|| module.display().to_string())?;
    fs::write(out, componentize(&module)?).with_context(|| out.display().to_string())
}

/// Says what was made.
pub(super) fn announce(out: &Path) -> Result<()> {
    let plugin = fs::read(out).with_context(|| out.display().to_string())?;
    let digest: String = Sha256::digest(&plugin).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{}: {} KiB, sha256 {digest}", out.display(), plugin.len().div_ceil(1024));
    Ok(())
}

/// Has cargo build a crate; returns where the core module is.
fn module(folder: &Path) -> Result<PathBuf> {
    // Not the cargo that runs this: the folder's own toolchain decides.
    let mut command = Command::new("cargo");
    command
        .current_dir(folder)
        .args(["build", "--release", "--lib", "--target", PLUGIN_TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .args(PROFILE.iter().flat_map(|setting| ["--config", setting]))
        .env("CARGO_ENCODED_RUSTFLAGS", flags(folder))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    for (variable, _) in env::vars_os() {
        let text = variable.to_string_lossy();
        let ours = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix));
        if ours || ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"].contains(&&*text) {
            command.env_remove(&variable);
        }
    }
    let output = command.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the crate does not build");
    let wanted = folder.join("Cargo.toml");
    let artifacts =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let ours = artifacts.filter(|message| {
        message["reason"] == "compiler-artifact" && message["manifest_path"].as_str().map(Path::new) == Some(&wanted)
    });
    let files = ours.flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
    let mut modules = files.filter_map(|file| file.as_str().map(PathBuf::from));
    let module = modules.find(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    module.context("cargo made no .wasm: Cargo.toml needs `[lib] crate-type = [\"cdylib\"]`")
}

/// Keeps the machine's paths out of the module, so that the same sources give the same bytes everywhere.
fn flags(folder: &Path) -> String {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let paths = [(Some(repository()), "beth"), (Some(folder.to_owned()), ""), (home, "cargo")];
    let flag = |(path, name): (Option<PathBuf>, &str)| Some(format!("--remap-path-prefix={}={name}", path?.display()));
    paths.into_iter().filter_map(flag).collect::<Vec<_>>().join("\u{1f}")
}
