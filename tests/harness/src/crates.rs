//! Programs of the crate registry, compiled once and kept.

use anyhow::{Context as _, Result, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The tests wait for nothing else meanwhile, but other programs shall not wait for the compiler.
const NICENESS: &str = "10";
/// How it is compiled: a program that is run some hundred times is not worth more of the compiler's time.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "256"),
    ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
];

/// Compiles a crate's programs of that version in `cache`, with the versions of its own lock file, or takes those compiled before; returns the folder
/// of the programs. What cargo says is printed.
///
/// # Errors
/// It does not compile.
pub fn install(cache: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let place = cache.join(format!("crate-{name}-{version}"));
    let stamp = place.join("installed");
    if !stamp.exists() {
        fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
        // What an interrupted compilation made is of use to the next.
        let target = place.join("target");
        let mut command = Command::new("nice");
        command
            .args(["-n", NICENESS])
            .arg(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["install", "--locked", name, "--version", version, "--root"])
            .arg(&place)
            .env("CARGO_TARGET_DIR", &target)
            .envs(PROFILE)
            // Out of reach of the settings that the workspace has for cargo.
            .current_dir(&place);
        let status = command.status().context("cannot start nice, which starts cargo")?;
        ensure!(status.success(), "cargo install {name} {version} failed: {status}");
        // Until it is written an interrupted installation is made again; after it, what it was made of is only in the way.
        fs::write(&stamp, "")?;
        fs::remove_dir_all(&target).with_context(|| target.display().to_string())?;
    }
    Ok(place.join("bin"))
}
