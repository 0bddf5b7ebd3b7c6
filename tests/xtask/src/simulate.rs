//! `cargo xtask simulate`: the history test for as long as one likes. `cargo xtask test` plays a few hundred orders.

use crate::{
    command::{cargo, run_loudly, run_quietly},
    progress::Progress,
    setup,
};
use anyhow::Result;
use std::{ffi::OsString, process::Command};

/// What the simulation is told: `--histories N --shuffles M --seed S`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// As of `simulation --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments, yes: bool) -> Result<()> {
    setup::packages(&[setup::TO_COMPILE], yes)?;
    setup::targets(&[setup::PLUGIN_TARGET])?;
    let progress = Progress::start("simulation: building");
    // As the tests are built: a second build of the Wasm engine would take longer than many histories.
    run_quietly(&progress, cargo().args(["build", "--locked", "--package", "simulation"]))?;
    progress.done("built");
    run_loudly(Command::new(crate::build::target_folder().join("debug/simulation")).args(&arguments.words))
}
