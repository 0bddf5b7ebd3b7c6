//! The life of one machine, in one task: boot, configuration, readiness, end. What the owner hears of it
//! comes in this order: perhaps `Started`, then `Up` or `Failed`, then `Ended`.

use super::{Event, MachineId, Message, Running, StartError, Workshop, admit::Need};
use crate::{
    cache::{CachedFile, program::Blueprint},
    config::seconds,
    guest::{self, Guest, GuestError, Orders},
    host_name,
    machine::Machine,
    meter::Usage,
};
use ccn_message::content::program::{Encoding, Interface};
use futures_util::FutureExt as _;
use guest_protocol::{
    Code, Configuration, Device, Event as GuestEvent, GUEST_CID, LOG_PORT, Program, Stage, Volume, doorbell,
};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{net::unix::OwnedReadHalf, sync::mpsc::UnboundedSender, time::timeout};
use tokio_util::sync::CancellationToken;
use vmm::config::{Config, Disk, Vsock};

/// How long a monitor may take to end when told to, before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What a guest may take beyond its program's grace to flush, unmount and ring.
const SHUTDOWN_EXTRA: Duration = Duration::from_secs(5);

/// One machine to be.
pub(super) struct Order {
    pub(super) machine: MachineId,
    pub(super) blueprint: Option<Arc<Blueprint>>,
    pub(super) files: Vec<CachedFile>,
    /// Cancelled when it shall end.
    pub(super) stop: CancellationToken,
}

/// What the machine of a program takes of the host.
pub(super) fn need(blueprint: &Blueprint) -> Need {
    Need { memory_mib: memory_mib(blueprint) + super::admit::OVERHEAD_MIB, vcpus: u64::from(blueprint.vcpus) }
}

/// Guest memory: what the program asks for, and never less than a guest needs to start.
fn memory_mib(blueprint: &Blueprint) -> u64 {
    blueprint.memory_mib.max(u64::from(vmm::config::MIN_MEMORY_MIB))
}

/// Whether a start may have failed because a file is damaged on this host's disk.
pub(super) fn suspects_files(error: &StartError) -> bool {
    match error {
        StartError::Program(failure) => match failure.stage {
            Stage::Mount | Stage::Unpack => true,
            Stage::Network | Stage::Start => false,
        },
        StartError::Lookup(_)
        | StartError::Files(_)
        | StartError::Machine(_)
        | StartError::Guest(_)
        | StartError::Ended(_)
        | StartError::BootTimedOut(_)
        | StartError::StartTimedOut(_)
        | StartError::Exited(_)
        | StartError::Stopped
        | StartError::Defect => false,
    }
}

/// Starts the task.
pub(super) fn machine(workshop: Workshop, mailbox: UnboundedSender<Message>, order: Order) {
    tokio::spawn(async move {
        let id = order.machine;
        let life = AssertUnwindSafe(live(&workshop, &mailbox, order)).catch_unwind().await;
        if life.is_err() {
            // Harmless if the machine was up before: the owner takes the failure of a starting one only.
            let _ = mailbox.send(Message::Failed { machine: id, error: StartError::Defect });
        }
        let _ = mailbox.send(Message::Event(Event::Ended { machine: id }));
    });
}

/// A machine and what is attached to it.
struct Parts {
    machine: Machine,
    orders: Orders,
    words: OwnedReadHalf,
}

async fn live(workshop: &Workshop, mailbox: &UnboundedSender<Message>, order: Order) {
    let Order { machine: id, blueprint, files, stop } = order;
    let Some(blueprint) = blueprint else {
        let _ = mailbox.send(Message::Failed { machine: id, error: StartError::Defect });
        return;
    };
    let item_hash = blueprint.item_hash.to_string();
    let began = Instant::now();
    if blueprint.internet {
        tracing::info!(item_hash, "the program asks for the internet, which machines do not have yet");
    }
    let machine = match spawn(workshop, &blueprint, &files).await {
        Ok(machine) => machine,
        Err(error) => {
            tracing::warn!(item_hash, %error, "a machine cannot be started");
            let _ = mailbox.send(Message::Failed { machine: id, error });
            return;
        }
    };
    let started = || {
        let _ = mailbox.send(Message::Event(Event::Started { machine: id }));
    };
    let bringing_up = bring_up(workshop, &machine, &blueprint, &files, started);
    let outcome = tokio::select! {
        outcome = bringing_up => outcome,
        () = stop.cancelled() => Err(StartError::Stopped),
    };
    let parts = match outcome {
        Ok(parts) => parts,
        Err(error) => {
            tracing::info!(item_hash, %error, "a program did not start");
            end(&machine).await;
            let _ = mailbox.send(Message::Failed { machine: id, error });
            return;
        }
    };
    tracing::info!(item_hash, took = ?began.elapsed(), process = machine.process_id(), "a program is ready");
    let usage = Arc::new(Usage::default());
    let running = Running { machine: machine.clone(), blueprint, usage: usage.clone() };
    let _ = mailbox.send(Message::Up { machine: id, running: Arc::new(running) });
    let grace = seconds(workshop.settings.stop_seconds);
    serve(parts, &stop, grace).await;
    let ended = machine.ended().await;
    tracing::info!(
        item_hash,
        cause = ?ended.cause,
        statistics = ?ended.statistics,
        usage = %usage,
        "a machine ended"
    );
}

/// Makes the machine; its kernel begins to run.
async fn spawn(workshop: &Workshop, blueprint: &Blueprint, files: &[CachedFile]) -> Result<Machine, StartError> {
    // More than a machine can have was refused by admission long ago, or is by the configuration's check.
    let memory_mib = u32::try_from(memory_mib(blueprint)).unwrap_or(u32::MAX);
    let vcpus = u8::try_from(blueprint.vcpus).unwrap_or(u8::MAX);
    let mut config = Config::new(memory_mib, vcpus);
    config.disks = files.iter().map(|_| Disk { read_only: true }).collect();
    config.vsock = Some(Vsock { guest_cid: GUEST_CID, accept_ports: Vec::new() });
    // For programs that run long: what they do not use others can, and their random numbers do not hang on one seed.
    config.balloon = true;
    config.entropy = true;
    Ok(Machine::start(workshop.images.clone(), config, files, blueprint.item_hash.to_string()).await?)
}

/// From a kernel that begins to run to a program that listens.
async fn bring_up(
    workshop: &Workshop,
    machine: &Machine,
    blueprint: &Blueprint,
    files: &[CachedFile],
    started: impl Fn(),
) -> Result<Parts, StartError> {
    let boot = seconds(workshop.settings.boot_seconds);
    let greeting = async {
        if machine.doorbell(doorbell::INIT_UP).await.is_none() {
            return Err(StartError::Ended(Box::new(machine.ended().await)));
        }
        Ok(Guest::greet(machine).await?)
    };
    let mut guest = timeout(boot, greeting).await.map_err(|_| StartError::BootTimedOut(boot))??;

    let log = workshop.logs.of(&blueprint.item_hash).map_err(GuestError::Closed)?;
    let stream = machine.connect(LOG_PORT).await?;
    // Ends with the machine, and not before it has written what the machine said last.
    tokio::spawn(async move {
        let end = guest::collect_log(stream, &log).await;
        tracing::debug!(?end, "a log stream ended");
    });
    let configuring = guest.configure(configuration(blueprint, files));
    timeout(boot, configuring).await.map_err(|_| StartError::BootTimedOut(boot))??;
    let start = seconds(workshop.settings.start_seconds);
    timeout(start, until_ready(&mut guest, started)).await.map_err(|_| StartError::StartTimedOut(start))??;
    let (words, orders) = guest.split();
    Ok(Parts { machine: machine.clone(), orders, words })
}

async fn until_ready(guest: &mut Guest, started: impl Fn()) -> Result<(), StartError> {
    loop {
        match guest.next().await? {
            GuestEvent::Started => started(),
            GuestEvent::Ready => return Ok(()),
            GuestEvent::Failed(failure) => return Err(StartError::Program(failure)),
            GuestEvent::Exited { status } => return Err(StartError::Exited(status)),
            hello @ GuestEvent::Hello { .. } => return Err(GuestError::Unexpected(Box::new(hello)).into()),
        }
    }
}

/// The record that makes a guest this program (order of the disks: [`Blueprint::files`]).
fn configuration(blueprint: &Blueprint, files: &[CachedFile]) -> Configuration {
    let mut devices = (0..).zip(files).map(|(index, file)| Device { index, length_bytes: file.length_bytes });
    let mut next = || devices.next().expect("a disk was made for every file of the blueprint");
    let root = next();
    let code = Code {
        device: next(),
        encoding: match blueprint.encoding {
            Encoding::Plain => guest_protocol::Encoding::Plain,
            Encoding::Zip => guest_protocol::Encoding::Zip,
            Encoding::Squashfs => guest_protocol::Encoding::Squashfs,
        },
        entrypoint: blueprint.entrypoint.clone(),
    };
    let data = blueprint.data.as_ref().map(|_| next());
    let volumes = blueprint
        .volumes
        .iter()
        .map(|volume| Volume { device: next(), mount: volume.path.clone(), read_only: true })
        .collect();
    let mut seed = [0; 32];
    fill_with_entropy(&mut seed);
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Configuration {
        hostname: host_name::label(&blueprint.item_hash),
        wall_time_us: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX),
        seed,
        root,
        code,
        program: match blueprint.interface {
            Interface::Asgi => Program::Asgi,
            Interface::Binary => Program::Binary,
        },
        arguments: blueprint.arguments.clone(),
        variables: blueprint.variables.clone(),
        data,
        volumes,
        authorized_keys: blueprint.authorized_keys.clone(),
    }
}

fn fill_with_entropy(seed: &mut [u8; 32]) {
    let mut filled = 0;
    while filled < seed.len() {
        // Requests of up to 256 bytes are served whole once the host's generator is seeded.
        match rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(length) => filled += length,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the host has no random numbers: {error}"),
        }
    }
}

/// Waits for the end of a machine that serves, and brings it about when told to.
async fn serve(parts: Parts, stop: &CancellationToken, grace: Duration) {
    let Parts { machine, mut orders, mut words } = parts;
    let watching = async {
        loop {
            match guest::next_of(&mut words).await {
                Ok(GuestEvent::Exited { status }) => tracing::info!(status, "a program ended by itself"),
                Ok(word) => tracing::debug!(?word, "a guest said something"),
                Err(_) => break,
            }
        }
        // Without its control stream a guest ends by itself, or has.
        machine.ended().await;
    };
    tokio::select! {
        () = watching => {}
        _ = machine.ended() => {}
        () = stop.cancelled() => {
            let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
            let asked = orders.shut_down(grace_ms).await;
            if asked.is_err() || timeout(grace + SHUTDOWN_EXTRA, machine.ended()).await.is_err() {
                tracing::warn!(process = machine.process_id(), "a guest did not shut down and is cut off");
            }
        }
    }
    end(&machine).await;
}

/// Ends a machine whatever its guest thinks of it.
async fn end(machine: &Machine) {
    if machine.is_over() {
        return;
    }
    machine.stop();
    if timeout(STOP_WITHIN, machine.ended()).await.is_err() {
        machine.kill();
        machine.ended().await;
    }
}
