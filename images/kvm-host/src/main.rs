//! Init of the emulated KVM host.
#![expect(clippy::print_stdout, reason = "the console is how the world outside sees that the host is up")]

use kvm_host::{agent, call, clock, density, init, measure, names};
use std::{net::TcpListener, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((word, _)) if word == init::AGENT => serve(),
        Some((word, rest)) if word == measure::MEASURE => measure::measure(rest, |run| println!("{}", run.to_line())),
        Some((word, _)) if word == clock::CLOCK => clock::now().map(|micros| println!("{micros}")),
        Some((word, rest)) if word == clock::COMPARE => clock::compare(rest, |ahead| println!("{}", ahead.to_line())),
        Some((word, rest)) if word == call::CALL => call::call(rest, |call| println!("{}", call.to_line())),
        Some((word, rest)) if word == names::NAMES => names::serve(rest),
        Some((word, rest)) if word == density::HOLD => density::hold(rest, |call| println!("{}", call.to_line())),
        Some((word, rest)) if word == density::FOOTPRINT => {
            density::footprint(rest, |footprint| println!("{}", footprint.to_line()))
        }
        _ => return init::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvm-host: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The agent of a whole machine.
fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", kvm_host::protocol::AGENT_PORT))?;
    let secret = init::read_secret()?;
    println!("{}", kvm_host::protocol::READY_LINE);
    agent::serve(&listener, &secret)
}
