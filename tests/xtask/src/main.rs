//! `cargo xtask`: the one door to everything a person does in this repository.
//!
//! Each command does its own set-up: it says which system packages are missing, installs them,
//! adds the Rust targets and builds the images it needs, all cached.

// Printing is what a command line does.
#![expect(clippy::print_stdout, reason = "this is a command line: its output is its product")]

mod check;
mod command;
mod progress;
mod setup;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Everything a person does with Beth's sources.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Arguments {
    /// Install missing system packages without asking.
    #[arg(long, global = true)]
    yes: bool,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Formatting, lints, dependency policy and tidiness: fast, no images, no VM.
    Check,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.task {
        Task::Check => check::run(arguments.yes),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
