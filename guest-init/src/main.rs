//! PID 1 of the microVMs: mounts, starts the program, splices bytes. `README.md` tells the life of a guest.
//!
//! There is no runtime underneath `main`: the very first instruction of user space is a doorbell, because that is what a start is
//! measured by.
#![cfg_attr(not(test), no_main)]

mod control;
mod doorbell;
mod freeze;
mod identity;
mod listen;
mod logs;
mod mount;
#[cfg(test)]
#[path = "../../crn/tests/namespace/mod.rs"]
mod namespace;
mod network;
mod orphans;
mod program;
mod relay;
mod serve;
mod unpack;

use crate::{
    control::{Control, ControlError},
    freeze::FreezeError,
    listen::Listener,
    logs::Logs,
    program::ProgramError,
};
use guest_protocol::{CONTROL_PORT, Command, Configuration, Event, HTTP_PORT, LOG_PORT, VERSION, doorbell as bell};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::AsFd as _,
};
use std::io;

/// Exit statuses of a guest that never came to run its program.
const STATUS_NO_HOST: u8 = 110;
const STATUS_NO_START: u8 = 111;
const STATUS_FAILED: u8 = 112;
const STATUS_PANIC: u8 = 113;

/// The entry of the process; the kernel passes no arguments that matter.
#[cfg_attr(not(test), unsafe(export_name = "main"))]
#[cfg_attr(test, expect(dead_code, reason = "the test harness has a main of its own"))]
extern "C" fn start(_count: libc::c_int, _arguments: *const *const libc::c_char) -> libc::c_int {
    doorbell::open();
    doorbell::progress(bell::PROGRESS_INIT);
    std::panic::set_hook(Box::new(|panic| {
        complain(&format!("init panicked: {panic}"));
        doorbell::doorbell(bell::EXIT, STATUS_PANIC.into());
    }));
    // A write to a stream that the host has closed is an error to handle, not the end.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let status = match live() {
        Ok(status) => status,
        Err(error) => {
            complain(&error.to_string());
            STATUS_NO_START
        }
    };
    end(status)
}

/// The guest's life; its result is the status that the host is told.
fn live() -> io::Result<u8> {
    mount::mount_early().map_err(io::Error::other)?;
    let ports = Ports {
        control: Listener::bind(CONTROL_PORT)?,
        logs: Listener::bind(LOG_PORT)?,
        http: Listener::bind(HTTP_PORT)?,
    };
    doorbell::doorbell(bell::INIT_UP, VERSION.into());

    let (mut control, configuration) = match introduce(&ports) {
        Ok(introduced) => introduced,
        Err(StartError::Host(error)) => {
            complain(&error.to_string());
            return Ok(STATUS_NO_HOST);
        }
        Err(StartError::Freeze(error)) => return Err(io::Error::other(error)),
    };
    let mut logs = Logs::default();
    let started = match become_program(&configuration, &mut logs) {
        Ok(started) => started,
        Err(error) => {
            let failure = error.to_failure();
            logs.note(&failure.error);
            // The host has asked for them before it configured; there is no loop yet that would take its stream.
            if let Some(stream) = ports.logs.accept() {
                logs.attach(stream);
                logs.send();
            }
            // The host may be gone by now; the doorbell tells the rest.
            let _ = control.send(&Event::Failed(failure));
            return Ok(STATUS_FAILED);
        }
    };
    let status = serve::serve(&configuration, started, control, ports, logs)?;
    mount::leave(&configuration.volumes);
    Ok(status)
}

/// Where the host comes in.
#[derive(Debug)]
struct Ports {
    control: Listener,
    logs: Listener,
    http: Listener,
}

/// Why a guest never heard what to become.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Host(#[from] ControlError),
    #[error(transparent)]
    Freeze(#[from] FreezeError),
}

/// From the host's first stream to what to become. In between the guest may be copied.
fn introduce(ports: &Ports) -> Result<(Control, Configuration), StartError> {
    let mut control = greet(ports)?;
    let mut prepared = false;
    loop {
        match control.wait_for_command()? {
            Command::Prepare(preparation) => match mount::enter_root(preparation.root) {
                Ok(()) => {
                    prepared = true;
                    control.send(&Event::Prepared)?;
                }
                Err(error) => control.send(&Event::Failed(ProgramError::from(error).to_failure()))?,
            },
            Command::Freeze if prepared => {
                drop(control);
                freeze::freeze()?;
                control = greet(ports)?;
            }
            Command::Configure(configuration) if prepared => return Ok((control, configuration)),
            // Ended before it began, or out of step.
            Command::Freeze | Command::Configure(_) | Command::Shutdown { .. } => {
                return Err(ControlError::Closed.into());
            }
        }
    }
}

/// Takes a control stream and says hello on it.
fn greet(ports: &Ports) -> Result<Control, ControlError> {
    Control::greet(accept(&ports.control)?)
}

/// Everything from a configuration to a started program, in the order that it must have.
fn become_program(configuration: &Configuration, logs: &mut Logs) -> Result<program::Started, ProgramError> {
    let mut apply = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            logs.note(&format!("cannot {what}: {error}"));
        }
    };
    // Before anything else draws a random number or looks at the clock.
    apply("seed the random number generator", identity::seed_generator(configuration.seed));
    apply("set the clock", identity::set_clock(configuration.wall_time_us));
    apply("set the host name", identity::set_hostname(&configuration.hostname));
    apply("raise the loopback interface", identity::raise_loopback());
    if let Some(network) = &configuration.network {
        network::take(network).map_err(ProgramError::Network)?;
    }
    if !configuration.name_servers.is_empty() {
        network::write_name_servers(&configuration.name_servers).map_err(ProgramError::Network)?;
    }
    apply("raise the limit of descriptors", serve::raise_descriptor_limit());
    for volume in &configuration.volumes {
        mount::mount_volume(volume)?;
    }
    program::write_authorized_keys(&configuration.authorized_keys)?;
    let folder = program::place_code(configuration)?;
    program::start(configuration, &folder)
}

fn accept(listener: &Listener) -> io::Result<std::fs::File> {
    loop {
        match poll(&mut [PollFd::new(&listener.as_fd(), PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(stream) = listener.accept() {
            return Ok(stream);
        }
    }
}

/// Puts a line where somebody may see it when there is no log stream: the kernel's own log.
fn complain(text: &str) {
    let _ = std::fs::write("/dev/kmsg", format!("<3>init: {text}\n"));
}

/// The last doorbell. A host that does not listen gets a machine that is off.
fn end(status: u8) -> ! {
    doorbell::doorbell(bell::EXIT, status.into());
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}
