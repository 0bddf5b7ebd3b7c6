//! `plugin new`: the files of a crate, with its name filled in.

use crate::command::repository;
use anyhow::{Context as _, Result, ensure};
use std::{fs, path::Path};

/// Longest name.
const MAX_NAME: usize = 40;

/// Where each file goes, and what it says.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("manifest.json", include_str!("template/manifest.json.in")),
    ("README.md", include_str!("template/README.md.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("src/tests.rs", include_str!("template/tests.rs.in")),
    ("send.py", include_str!("template/send.py.in")),
    ("requirements.txt", include_str!("../../../both/sdk/requirements.txt")),
    ("fixtures/1-hello.json", include_str!("template/fixtures/1-hello.json")),
    ("fixtures/2-again.json", include_str!("template/fixtures/2-again.json")),
    ("fixtures/3-stranger.json", include_str!("template/fixtures/3-stranger.json")),
    ("fixtures/queries.txt", include_str!("template/fixtures/queries.txt.in")),
    (".cargo/config.toml", "[alias]\nxtask = \"run --quiet --manifest-path {{beth}}/Cargo.toml --package xtask --\"\n"),
    (".gitignore", "/target\n/*.wasm\n/node\n/sdk\n/send.key\n"),
];
/// Files of the repository that go along: the same compiler, the same versions.
const COPIED: [&str; 2] = ["rust-toolchain.toml", "Cargo.lock"];

pub(super) fn make(name: &str, folder: Option<&Path>) -> Result<()> {
    check(name)?;
    let folder = folder.unwrap_or(Path::new(name));
    ensure!(!folder.exists(), "{} is there already", folder.display());
    let beth = repository();
    for (path, text) in FILES {
        let path = folder.join(path);
        let parent = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        let text = text
            .replace("{{name}}", name)
            .replace("{{kind}}", &name.to_uppercase())
            .replace("{{beth}}", &beth.display().to_string());
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    for file in COPIED {
        fs::copy(beth.join(file), folder.join(file)).with_context(|| file.to_owned())?;
    }
    println!("{} is a plugin for messages of type {}. In that folder:\n", folder.display(), name.to_uppercase());
    println!("  cargo test\n  cargo xtask plugin build\n  cargo xtask plugin run {name}.wasm fixtures");
    Ok(())
}

fn check(name: &str) -> Result<()> {
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    ensure!(
        begins && is_plain && !name.ends_with('-') && name.len() <= MAX_NAME,
        "`{name}` is no name for a plugin: lower-case letters, digits and hyphens, at most {MAX_NAME}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_everything_else_takes() {
        for good in ["poll", "my-type-2"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "Poll", "2poll", "-poll", "poll-", "po ll", "p/q", &"p".repeat(41)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in_and_nothing_is_overwritten() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = scratch.path().join("made");
        make("my-type", Some(&folder)).expect("a crate");
        for (path, _) in FILES {
            let text = fs::read_to_string(folder.join(path)).expect("a file");
            assert!(!text.contains("{{"), "{path}");
        }
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("manifest.json")).expect("a file")).expect("JSON");
        assert_eq!((&manifest["name"], &manifest["types"][0]), (&"my-type".into(), &"MY-TYPE".into()));
        assert!(make("my-type", Some(&folder)).is_err());
    }
}
