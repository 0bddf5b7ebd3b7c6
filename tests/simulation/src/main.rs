//! `simulation`: histories in many orders, for as long as one likes. `cargo xtask simulate` builds and runs it.

use clap::Parser as _;
use std::process::ExitCode;

/// Plays histories of messages to nodes in many orders, and compares what becomes of them.
#[derive(clap::Parser)]
#[command(name = "simulation")]
struct CommandLine {
    #[command(flatten)]
    arguments: simulation::Arguments,
}

fn main() -> ExitCode {
    let arguments = CommandLine::parse().arguments;
    let run = || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(simulation::simulate(arguments))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
