//! The author's kit: `ccn plugin check`, `run` and `pack`. What they say of a plugin is what this node would say, because it is this node that says it:
//! the same loading, the same sandbox, the same pipeline, on a store in memory.

#![expect(clippy::print_stdout, reason = "a command line's answers go to standard output")]

mod check;
mod fixture;
mod pack;
mod probe;
mod report;
mod run;
mod scene;

use anyhow::Context as _;
use clap::Subcommand;
use std::path::PathBuf;

/// What can be done with a plugin without a running node.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Loads a plugin as a node would, and prints what it says of itself
    Check {
        /// The component
        file: PathBuf,
    },
    /// Plays a folder of messages to a plugin in many orders, and compares what becomes of them
    Run(run::Arguments),
    /// Puts the manifest into a component that another toolchain has made
    Pack {
        /// The component
        component: PathBuf,
        /// The manifest
        #[arg(long, value_name = "FILE", default_value = "manifest.json")]
        manifest: PathBuf,
        /// The plugin file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Does it; true when the plugin passed.
///
/// # Errors
/// What is wrong with the plugin or its fixtures.
pub fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Check { file } => check::check(&file).map(|()| true),
        Command::Run(arguments) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
            runtime.block_on(run::run(arguments))
        }
        Command::Pack { component, manifest, out } => pack::pack(&component, &manifest, &out).map(|()| true),
    }
}
