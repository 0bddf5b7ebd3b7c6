//! Builds the programs and puts them where they belong together: the installation.

use crate::{
    command::{cargo, repository, run_quietly},
    progress::Progress,
    setup,
};
use anyhow::{Context, Result};
use harness::installation::Installation;
use sha2::{Digest as _, Sha256};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Programs that run in or beside a guest: small, so with the profile `guest`.
const GUEST_PROGRAMS: [&str; 4] = ["guest-init", "kvm-host", "vmm", "static-http"];
/// What all static programs are made of, below the top of the repository. Their digest decides whether cargo is asked at all.
const STATIC_SOURCES: [&str; 9] = [
    ".cargo/config.toml",
    "Cargo.lock",
    "Cargo.toml",
    "ccn/message",
    "crn",
    "guest-init",
    "images/kvm-host",
    "rust-toolchain.toml",
    "tests/programs/static-http",
];
/// Holds the digest of what an installation's static programs were made of.
const STAMP: &str = "static-sources";

/// Cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    // A relative one is meant from where cargo was started, which is where xtask was.
    env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()).map_or_else(
        || repository().join("target"),
        |folder| env::current_dir().unwrap_or_else(|_| repository()).join(folder),
    )
}

/// The installation's folder, complete or not.
pub(crate) fn installation() -> Installation {
    Installation::at(target_folder().join("beth"))
}

/// The static programs: `crn`, `vmm`, `guest-init`, `kvm-host` and a program that tests deploy.
/// Returns whether there was anything to do.
pub(crate) fn static_programs() -> Result<bool> {
    let installation = installation();
    let digest = digest_of(&STATIC_SOURCES)?;
    let stamp = installation.folder().join(STAMP);
    let names = || GUEST_PROGRAMS.into_iter().chain(["crn"]);
    let complete = names().all(|name| installation.program(name).is_file());
    if complete && fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == digest) {
        return Ok(false);
    }
    let progress = Progress::start("static programs");
    let mut guest = cargo();
    guest.args(["build", "--locked", "--profile", "guest", "--target", setup::STATIC_TARGET]);
    for name in GUEST_PROGRAMS {
        guest.args(["--package", name]);
    }
    run_quietly(&progress, &mut guest)?;
    run_quietly(
        &progress,
        cargo().args(["build", "--locked", "--release", "--target", setup::STATIC_TARGET, "--package", "crn"]),
    )?;
    let built = target_folder().join(setup::STATIC_TARGET);
    for name in GUEST_PROGRAMS {
        install(&built.join("guest").join(name), &installation.program(name))?;
    }
    install(&built.join("release/crn"), &installation.program("crn"))?;
    // Last: an interrupted build is made again.
    fs::write(&stamp, digest).with_context(|| stamp.display().to_string())?;
    progress.done("built");
    Ok(true)
}

/// The core channel node, as it is built for tests: compiling its Wasm engine twice would cost many minutes.
pub(crate) fn core_node(progress: &Progress) -> Result<()> {
    run_quietly(progress, cargo().args(["build", "--locked", "--package", "ccn"]))?;
    install(&target_folder().join("debug/ccn"), &installation().program("ccn"))
}

/// The end-to-end tests, one program.
pub(crate) fn end_to_end_tests(progress: &Progress) -> Result<PathBuf> {
    run_quietly(progress, cargo().args(["build", "--locked", "--package", "e2e"]))?;
    Ok(target_folder().join("debug/e2e"))
}

/// Puts a file under its name at once, without a moment in which it is half there.
pub(crate) fn install(file: &Path, place: &Path) -> Result<()> {
    let folder = place.parent().context("a place is in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut name = place.file_name().context("a place has a name")?.to_owned();
    name.push(".new");
    let new = place.with_file_name(name);
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| new.display().to_string());
    }
    // A link where that is possible: some of these files are large.
    fs::hard_link(file, &new)
        .or_else(|_| fs::copy(file, &new).map(drop))
        .with_context(|| format!("cannot install {}", file.display()))?;
    // Renaming one link over another of the same file does nothing, so that the new one would stay.
    fs::rename(&new, place).with_context(|| place.display().to_string())?;
    let _ = fs::remove_file(&new);
    Ok(())
}

/// A digest of files and of everything in folders.
fn digest_of(paths: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for path in paths {
        collect(&repository().join(path), &mut files)?;
    }
    files.sort_unstable();
    let mut digest = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| file.display().to_string())?;
        digest.update(file.to_string_lossy().as_bytes());
        digest.update([0]);
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let context = || path.display().to_string();
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(context)? {
        collect(&entry.with_context(context)?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_file_replaces_the_one_before_and_leaves_nothing_beside_it() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let (file, place) = (scratch.path().join("built"), scratch.path().join("there/program"));
        for content in ["first", "second", "second"] {
            fs::write(&file, content).expect("a file");
            install(&file, &place).expect("installed");
            install(&file, &place).expect("installed again");
            assert_eq!(fs::read_to_string(&place).expect("there"), content);
            assert_eq!(fs::read_dir(scratch.path().join("there")).expect("a folder").count(), 1);
            // Linkers write a new file, as here: an installed program is never written into.
            fs::remove_file(&file).expect("removed");
        }
    }

    #[test]
    fn the_digest_sees_every_byte_and_every_name() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let path = scratch.path().to_str().expect("a plain path").to_owned();
        let digest = || digest_of(&[&path]).expect("a digest");
        let mut seen = vec![digest()];
        fs::create_dir(scratch.path().join("deep")).expect("a folder");
        fs::write(scratch.path().join("deep/a"), "1").expect("a file");
        seen.push(digest());
        fs::write(scratch.path().join("deep/a"), "2").expect("a file");
        seen.push(digest());
        fs::rename(scratch.path().join("deep/a"), scratch.path().join("deep/b")).expect("renamed");
        seen.push(digest());
        let distinct: std::collections::BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
        assert_eq!(seen.last(), Some(&digest()));
    }
}
