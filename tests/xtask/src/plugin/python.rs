//! `plugin build` for Python: componentize-py, from the package index, in an environment of its own in the cache.

use super::build::Source;
use crate::{
    command::{repository, run_quietly},
    progress::Progress,
    setup,
};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which version of componentize-py, and whatever else the plugin imports.
const REQUIREMENTS: &str = "requirements.txt";

/// Makes a component without a manifest; returns where it is.
pub(super) fn component(source: &Source, yes: bool) -> Result<PathBuf> {
    setup::packages(&[&[setup::PYTHON]], yes)?;
    let module = module(&source.folder)?;
    let progress = Progress::start("componentize-py");
    let environment = environment(&source.folder.join(REQUIREMENTS), &progress)?;
    let made = environment.join(format!("{}.component", source.name));
    progress.status("building");
    // Without WASI: what a plugin may ask is in the contract, and nothing else.
    run_quietly(
        &progress,
        Command::new(environment.join("bin/componentize-py"))
            .arg("--quiet")
            .arg("--wit-path")
            .arg(repository().join("plugins/wit"))
            .args(["--world", "message-handler", "componentize", &module, "--stub-wasi", "--python-path"])
            .arg(&source.folder)
            .arg("--output")
            .arg(&made)
            .env("VIRTUAL_ENV", &environment)
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    )?;
    progress.done("built");
    Ok(made)
}

/// The one module of a folder.
fn module(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_python = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "py");
    match paths.iter().filter(is_python).collect::<Vec<_>>().as_slice() {
        [module] => Ok(module.file_stem().unwrap_or_default().to_string_lossy().into_owned()),
        others => {
            bail!("{}: a Cargo.toml or one .py was expected, and there are {} .py", folder.display(), others.len())
        }
    }
}

/// An environment with what is required, made once.
fn environment(requirements: &Path, progress: &Progress) -> Result<PathBuf> {
    let wanted = fs::read(requirements).with_context(|| requirements.display().to_string())?;
    let digest: String = Sha256::digest(&wanted).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let environment = ::images::Cache::open()?.root().join("plugin-python").join(digest);
    let stamp = environment.join("complete");
    if !stamp.exists() {
        // An interrupted installation is made again.
        if environment.exists() {
            fs::remove_dir_all(&environment).with_context(|| environment.display().to_string())?;
        }
        progress.status("installing (first use)");
        run_quietly(progress, Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run_quietly(
            progress,
            Command::new(environment.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(requirements),
        )?;
        fs::write(&stamp, "").with_context(|| stamp.display().to_string())?;
    }
    Ok(environment)
}
