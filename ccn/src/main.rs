//! `ccn`: core channel node of the Aleph Cloud network. See `ccn --help` and `ccn/ARCHITECTURE.md`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line's answers go to standard output, its complaints to standard error"
)]

use anyhow::Context as _;
use ccn::{
    cli::{Arguments, Task},
    config::Config,
    descriptors,
    host::{COMPILE_COMMAND, compile_standard_input},
    kit,
    node::Node,
    operator,
};
use clap::Parser as _;
use std::{io::IsTerminal as _, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Before anything is read or started: it is to have nothing.
    if std::env::args_os().nth(1).is_some_and(|word| word == COMPILE_COMMAND) {
        return compile_standard_input();
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        // What went wrong was said.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // The sentence alone: a backtrace helps no operator.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let mut arguments = Arguments::parse();
    if let Some(task) = arguments.task.take() {
        log_to_stderr("error");
        return match task {
            Task::Plugin(command) => kit::run(command),
            Task::Node { order, config, data_dir, listen } => {
                let arguments = Arguments { config, data_dir, listen, ..Arguments::default() };
                let config = Config::load(&arguments, std::env::vars())?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                print!("{}", runtime.context("no runtime")?.block_on(operator::run(&order, &config))?);
                Ok(true)
            }
        };
    }
    let mut config = Config::load(&arguments, std::env::vars())?;
    config.compiler.program = Some(std::env::current_exe().context("where this program is")?);
    if arguments.print_config {
        print!("{}", config.to_toml());
        return Ok(true);
    }
    // What the client of an object store tries again, the node says itself once it matters.
    log_to_stderr("info,object_store=warn");
    descriptors::allow(config.limits.max_connections);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let served = runtime.block_on(serve(config));
    // A thread that is opening a damaged store or reading a slow disk is not waited for.
    runtime.shutdown_background();
    served.map(|()| true)
}

/// Logs what is asked for, or what is of that level.
fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A store that was not closed may take long to open.
    let node = tokio::select! {
        node = Node::start(config) => node?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    for line in node.lines() {
        println!("{line}");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = node.service().pipeline.ended() => {
            // What reads on without it would answer, and take nothing in for ever: whoever watches the process starts it anew.
            anyhow::bail!("the thread that decides has ended, the log says why; no message is taken in without it");
        }
    }
    tracing::info!("stopping: what has begun is finished, a second signal ends it");
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        _ = terminate.recv() => tracing::warn!("stopped at once"),
        _ = interrupt.recv() => tracing::warn!("stopped at once"),
    }
    Ok(())
}
