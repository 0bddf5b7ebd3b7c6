//! `cargo xtask`: the one door to everything a person does in this repository.
//!
//! Each command does its own set-up: it says which system packages are missing, installs them,
//! adds the Rust targets and builds the images it needs, all cached.

// Printing is what a command line does.
#![expect(clippy::print_stdout, reason = "this is a command line: its output is its product")]

mod bench;
mod build;
mod check;
mod command;
mod demo;
mod doctor;
mod fuzz;
mod images;
mod miri;
mod plugin;
mod progress;
mod setup;
mod simulate;
mod test;

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
    /// The whole product in two minutes: a signed message becomes a web application in a microVM.
    Demo(demo::Arguments),
    /// All tests: of every crate, then of whole nodes with microVMs and the official SDK.
    Test(test::Arguments),
    /// Formatting, lints, dependency policy and tidiness: fast, no images, no VM.
    Check,
    /// Measures something: a table whose last line has the ratios.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// For authors of message types: new, build, check, run, pack.
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// Histories of messages in many orders, until two differ or the time is over.
    #[command(disable_help_flag = true)]
    Simulate(simulate::Arguments),
    /// Hostile guests and hosts against the machine monitor, until something breaks or the time is over.
    Fuzz(fuzz::Arguments),
    /// The pure parts of the machine monitor in Rust's interpreter, which finds undefined behaviour.
    Miri,
    /// Guest kernel, initramfs, runtimes, the KVM host, and the compute node beside them.
    Images(images::Arguments),
    /// Whether this machine can run microVMs, and what to do if not.
    Doctor,
}

fn main() -> ExitCode {
    let Arguments { yes, task } = Arguments::parse();
    let result = match task {
        Task::Demo(arguments) => demo::run(&arguments, yes).map(|()| true),
        Task::Test(arguments) => test::run(&arguments, yes),
        Task::Check => check::run(yes).map(|()| true),
        Task::Bench(bench) => bench::run(&bench, yes).map(|()| true),
        Task::Plugin(plugin) => plugin::run(&plugin, yes).map(|()| true),
        Task::Simulate(arguments) => simulate::run(&arguments, yes).map(|()| true),
        Task::Fuzz(arguments) => fuzz::run(&arguments, yes).map(|()| true),
        Task::Miri => miri::run().map(|()| true),
        Task::Images(arguments) => images::run(&arguments, yes).map(|()| true),
        Task::Doctor => doctor::run(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        // What went wrong was said.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
