//! The life of one machine, in one task: boot, configuration, readiness, end. What the owner hears of it
//! comes in this order: perhaps `Started`, then `Up` or `Failed`, then `Ended`.

use super::{
    Event, Inputs, MachineId, Message, Running, StartError, Workshop,
    admit::Need,
    start::{self, CameUp, Start},
};
use crate::{
    cache::program::Blueprint,
    config::seconds,
    guest::{self, Guest, Orders},
    machine::Machine,
    meter::Usage,
    network::{card::Card, ipv6::Kind},
    template::Template,
};
use futures_util::FutureExt as _;
use guest_protocol::{Event as GuestEvent, Stage};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::unix::OwnedReadHalf,
    sync::{Notify, mpsc::UnboundedSender},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long a clone may wait for the end of its first call before its control and log streams are opened.
const ATTACH_WITHIN: Duration = Duration::from_secs(1);
/// The same for a clone whose first call shows what all clones of its template write to.
const LEARN_WITHIN: Duration = Duration::from_secs(10);

/// How long a monitor may take to end when told to, before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What a guest may take beyond its program's grace to flush, unmount and ring.
const SHUTDOWN_EXTRA: Duration = Duration::from_secs(5);

/// One machine to be.
pub(super) struct Order {
    pub(super) machine: MachineId,
    pub(super) blueprint: Option<Arc<Blueprint>>,
    pub(super) inputs: Inputs,
    /// Cancelled when it shall end.
    pub(super) stop: CancellationToken,
}

/// What the machine of a program takes of the host.
pub(super) fn need(blueprint: &Blueprint) -> Need {
    Need { memory_mib: memory_mib(blueprint) + super::admit::OVERHEAD_MIB, vcpus: u64::from(blueprint.vcpus) }
}

/// Guest memory: what the program asks for, and never less than a guest needs to start.
pub(super) fn memory_mib(blueprint: &Blueprint) -> u64 {
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
        | StartError::Volume(_)
        | StartError::Network(_)
        | StartError::Machine(_)
        | StartError::Guest(_)
        | StartError::Ended(_)
        | StartError::BootTimedOut(_)
        | StartError::NotFrozen(_)
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
    let Order { machine: id, blueprint, inputs, stop } = order;
    let Some(blueprint) = blueprint else {
        let _ = mailbox.send(Message::Failed { machine: id, error: StartError::Defect });
        return;
    };
    let item_hash = blueprint.item_hash.to_string();
    let began = Instant::now();
    // Held until the machine has ended: its addresses are nobody else's before.
    let card = match card(workshop, &blueprint).await {
        Ok(card) => card,
        Err(error) => {
            tracing::warn!(item_hash, %error, "a program does not start");
            let _ = mailbox.send(Message::Failed { machine: id, error });
            return;
        }
    };
    let started = || {
        let _ = mailbox.send(Message::Event(Event::Started { machine: id }));
    };
    let mut start = Start::new(workshop, &blueprint, &inputs, card.as_ref(), &started);
    let outcome = tokio::select! {
        outcome = start.come_up() => outcome,
        () = stop.cancelled() => Err(StartError::Stopped),
    };
    let CameUp { machine, guest, way, template, watched, ephemeral } = match outcome {
        Ok(came_up) => came_up,
        Err(error) => {
            tracing::info!(item_hash, %error, "a program did not start");
            if let Some(machine) = start.into_machine() {
                end(&machine).await;
            }
            let _ = mailbox.send(Message::Failed { machine: id, error });
            return;
        }
    };
    drop(start);
    tracing::info!(item_hash, took = ?began.elapsed(), %way, process = machine.process_id(), "a program is ready");
    let usage = Arc::new(Usage::default());
    let first_use = Arc::new(Notify::new());
    let running = Running {
        machine: machine.clone(),
        blueprint: Arc::clone(&blueprint),
        files: inputs.files.clone(),
        usage: usage.clone(),
        first_use: Arc::clone(&first_use),
        template: template.clone(),
        templates: workshop.templates.clone(),
    };
    let _ = mailbox.send(Message::Up { machine: id, running: Arc::new(running) });
    let guest = match guest {
        Some(guest) => Some(guest),
        None => {
            // The call that waits for a clone goes first.
            tokio::select! {
                _ = timeout(if watched { LEARN_WITHIN } else { ATTACH_WITHIN }, first_use.notified()) => {}
                () = stop.cancelled() => {}
            }
            if watched && let Some(template) = &template {
                learn(workshop, template, &machine).await;
            }
            attach(workshop, &blueprint, &machine).await
        }
    };
    match guest {
        Some(guest) => {
            let (words, orders) = guest.split();
            let grace = seconds(workshop.settings.stop_seconds);
            serve(Parts { machine: machine.clone(), orders, words }, &stop, grace).await;
        }
        None => end(&machine).await,
    }
    let ended = machine.ended().await;
    // Nobody has them any more: the next machine may.
    drop((inputs, ephemeral));
    tracing::info!(
        item_hash,
        cause = ?ended.cause,
        statistics = ?ended.statistics,
        usage = %usage,
        "a machine ended"
    );
}

/// The network card of a program that asks for the internet, where there is one.
async fn card(workshop: &Workshop, blueprint: &Blueprint) -> Result<Option<Card>, StartError> {
    match &workshop.network {
        Some(network) if blueprint.internet => {
            Ok(Some(network.card(Kind::OnDemand, &blueprint.item_hash).await.map_err(Box::new)?))
        }
        None if blueprint.internet => {
            tracing::debug!(item_hash = %blueprint.item_hash, "the program asks for the internet, which this node does not give");
            Ok(None)
        }
        Some(_) | None => Ok(None),
    }
}

/// Has a template learn what its first clone touched. One that does not say is no worse a clone.
async fn learn(workshop: &Workshop, template: &Template, machine: &Machine) {
    match timeout(ATTACH_WITHIN, machine.working_set()).await {
        Ok(Ok(working_set)) => workshop.templates.learn(template, working_set).await,
        Ok(Err(error)) => tracing::debug!(%error, "a clone does not say what it has touched"),
        Err(_) => tracing::debug!("a clone does not say in time what it has touched"),
    }
}

/// Control and log streams of a clone. One that has none is not worth keeping.
async fn attach(workshop: &Workshop, blueprint: &Blueprint, machine: &Machine) -> Option<Guest> {
    let attaching = async {
        let guest = Guest::greet(machine).await?;
        start::attach_log(workshop, blueprint, machine).await?;
        Ok::<_, StartError>(guest)
    };
    match timeout(seconds(workshop.settings.boot_seconds), attaching).await {
        Ok(Ok(guest)) => Some(guest),
        Ok(Err(error)) => {
            tracing::info!(item_hash = %blueprint.item_hash, %error, "a clone ended before it was greeted");
            None
        }
        Err(_) => {
            tracing::warn!(item_hash = %blueprint.item_hash, "a clone does not greet and is ended");
            None
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
pub(super) async fn end(machine: &Machine) {
    if machine.is_over() {
        return;
    }
    machine.stop();
    if timeout(STOP_WITHIN, machine.ended()).await.is_err() {
        machine.kill();
        machine.ended().await;
    }
}
