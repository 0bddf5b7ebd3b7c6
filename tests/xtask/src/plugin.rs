//! `cargo xtask plugin`: from an idea to a file that a node takes.
//!
//! `new` and `build` need no node. `check`, `run` and `pack` are the node's own: `ccn plugin …`, built first.

mod build;
mod python;
mod template;

use crate::{build as programs, command::run_loudly, progress::Progress, setup};
use anyhow::{Context as _, Result};
use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

/// What is done with a plugin.
#[derive(clap::Subcommand)]
pub(crate) enum Plugin {
    /// Makes a crate with a message type, its tests and fixtures
    New {
        /// Its name: lower-case letters, digits and hyphens. The message type is called the same, in capitals
        name: String,
        /// Where, instead of ./NAME
        folder: Option<PathBuf>,
    },
    /// Builds a crate, or a module of Python, and makes a component of it: NAME.wasm
    Build {
        /// The folder, with manifest.json and Cargo.toml, or with manifest.json, requirements.txt and one .py
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The file to write, instead of NAME.wasm in that folder
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Loads a plugin as a node would, and prints what it says of itself
    #[command(disable_help_flag = true)]
    Check(Rest),
    /// Plays a folder of messages to a plugin in many orders, and compares what becomes of them
    #[command(disable_help_flag = true)]
    Run(Rest),
    /// Starts a development node in ./node, at 127.0.0.1:4024: `ccn --dev`, with whatever else it is told
    #[command(disable_help_flag = true)]
    Node(Rest),
    /// Puts the manifest into a component that another toolchain has made
    #[command(disable_help_flag = true)]
    Pack(Rest),
}

/// What is handed on.
#[derive(clap::Args)]
pub(crate) struct Rest {
    /// As of `ccn plugin`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

pub(crate) fn run(plugin: &Plugin, yes: bool) -> Result<()> {
    match plugin {
        Plugin::New { name, folder } => template::make(name, folder.as_deref()),
        Plugin::Build { folder, out } => {
            let source = build::Source::at(folder)?;
            let out = out.clone().unwrap_or_else(|| source.folder.join(format!("{}.wasm", source.name)));
            if source.folder.join("Cargo.toml").is_file() {
                setup::targets(&[setup::PLUGIN_TARGET])?;
                build::build(&source, &out)?;
            } else {
                let component = python::component(&source, yes)?;
                let words =
                    [component.as_os_str(), "--manifest".as_ref(), source.folder.join("manifest.json").as_os_str()]
                        .map(ToOwned::to_owned);
                node("pack", &[words.as_slice(), &["--out".into(), out.clone().into()]].concat(), yes)?;
            }
            build::announce(&out)
        }
        Plugin::Check(rest) => node("check", &rest.words, yes),
        Plugin::Run(rest) => node("run", &rest.words, yes),
        Plugin::Node(rest) => serve(&rest.words, yes),
        Plugin::Pack(rest) => node("pack", &rest.words, yes),
    }
}

/// Has the node do it.
fn node(task: &str, words: &[OsString], yes: bool) -> Result<()> {
    run_loudly(Command::new(program(yes)?).args(["plugin", task]).args(words))
}

/// A node to try a plugin on, in the folder of the plugin.
fn serve(words: &[OsString], yes: bool) -> Result<()> {
    let told = |flag: &str| words.iter().any(|word| word.to_string_lossy().split('=').next() == Some(flag));
    let defaults = [("--data-dir", "node"), ("--listen", "127.0.0.1:4024")];
    let defaults = defaults.into_iter().filter(|(flag, _)| !told(flag)).flat_map(|(flag, value)| [flag, value]);
    // In place of this process: a signal reaches the node.
    Err(Command::new(program(yes)?).arg("--dev").args(defaults).args(words).exec()).context("cannot start the node")
}

/// The node's program, built if that is needed.
fn program(yes: bool) -> Result<PathBuf> {
    setup::packages(&[setup::TO_COMPILE], yes)?;
    setup::targets(&[setup::PLUGIN_TARGET])?;
    let progress = Progress::start_quietly("the node");
    programs::core_node(&progress)?;
    progress.done("built");
    Ok(programs::installation().program("ccn"))
}
