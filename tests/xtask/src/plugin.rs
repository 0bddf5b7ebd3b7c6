//! `cargo xtask plugin`: from an idea to a file that a node takes.
//!
//! `new` and `build` need no node. `check`, `run` and `pack` are the node's own: `ccn plugin …`, built first.

mod build;
mod template;

use crate::{build as programs, command::run_loudly, progress::Progress, setup};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

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
    /// Builds a crate for WebAssembly and makes a component of it: NAME.wasm
    Build {
        /// The crate's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The file to write, instead of NAME.wasm in the crate's folder
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Loads a plugin as a node would, and prints what it says of itself
    #[command(disable_help_flag = true)]
    Check(Rest),
    /// Plays a folder of messages to a plugin in many orders, and compares what becomes of them
    #[command(disable_help_flag = true)]
    Run(Rest),
    /// Puts the manifest into a component that another toolchain has made
    #[command(disable_help_flag = true)]
    Pack(Rest),
}

/// What is handed on.
#[derive(clap::Args)]
pub(crate) struct Rest {
    /// As of `ccn plugin`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(crate) fn run(plugin: &Plugin, yes: bool) -> Result<()> {
    match plugin {
        Plugin::New { name, folder } => template::make(name, folder.as_deref()),
        Plugin::Build { folder, out } => {
            setup::targets(&[setup::PLUGIN_TARGET])?;
            build::build(folder, out.as_deref())
        }
        Plugin::Check(rest) => node("check", rest, yes),
        Plugin::Run(rest) => node("run", rest, yes),
        Plugin::Pack(rest) => node("pack", rest, yes),
    }
}

/// Has the node do it.
fn node(task: &str, rest: &Rest, yes: bool) -> Result<()> {
    setup::packages(&[setup::TO_COMPILE], yes)?;
    setup::targets(&[setup::PLUGIN_TARGET])?;
    let progress = Progress::start_quietly("the node");
    programs::core_node(&progress)?;
    progress.done("built");
    run_loudly(Command::new(programs::installation().program("ccn")).args(["plugin", task]).args(&rest.words))
}
