//! Init of the emulated KVM host.
#![expect(clippy::print_stdout, reason = "the console is how the world outside sees that the host is up")]

use kvm_host::{agent, init};
use std::{net::TcpListener, process::ExitCode};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(init::AGENT) {
        return match serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("kvm-host: {error}");
                ExitCode::FAILURE
            }
        };
    }
    init::run()
}

/// The agent of a whole machine.
fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", kvm_host::protocol::AGENT_PORT))?;
    let secret = init::read_secret()?;
    println!("{}", kvm_host::protocol::READY_LINE);
    agent::serve(&listener, &secret)
}
