//! What a start needs before there is a machine, each in a task that reports to the owner.

use super::{Event, Inputs, ItemHash, Message, StartError, StartId, Workshop};
use crate::{
    cache::program::{Blueprint, Source},
    config::seconds,
    volume::{Volume, VolumeError},
};
use futures_util::{FutureExt as _, future::try_join_all};
use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::mpsc::UnboundedSender;

/// How long the end of an earlier machine may take beyond its program's grace, while the next one waits for its volumes.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Runs a task that reports exactly once, even if it panics: a waiter must not wait for ever for a defect.
pub(super) fn report<T: Send + 'static>(
    mailbox: UnboundedSender<Message>,
    work: impl Future<Output = T> + Send + 'static,
    report: impl FnOnce(Option<T>) -> Message + Send + 'static,
) {
    tokio::spawn(async move {
        let outcome = AssertUnwindSafe(work).catch_unwind().await.ok();
        let _ = mailbox.send(report(outcome));
    });
}

pub(super) fn look_up(workshop: Workshop, mailbox: UnboundedSender<Message>, start: StartId, item_hash: ItemHash) {
    let work = async move { Ok(Arc::new(workshop.programs.blueprint(&item_hash).await?)) };
    report(mailbox, work, move |found| Message::Looked { start, found: found.unwrap_or(Err(StartError::Defect)) });
}

pub(super) fn fetch(
    workshop: Workshop,
    mailbox: UnboundedSender<Message>,
    start: StartId,
    blueprint: Option<Arc<Blueprint>>,
) {
    let work = async move {
        let blueprint = blueprint.ok_or(StartError::Defect)?;
        let files = try_join_all(blueprint.files().map(|file| workshop.cache.get(file))).await?;
        // Last: nobody else can have them from now on.
        let persistent = claim(&workshop, &blueprint).await?;
        Ok(Inputs { files, persistent })
    };
    report(mailbox, work, move |inputs| Message::Fetched { start, inputs: inputs.unwrap_or(Err(StartError::Defect)) });
}

/// The program's persistent volumes, in order. A program has one start at a time, so it never waits for itself.
async fn claim(workshop: &Workshop, blueprint: &Blueprint) -> Result<Vec<Volume>, VolumeError> {
    let patience = seconds(workshop.settings.stop_seconds) + END_WITHIN;
    let mut claimed = Vec::new();
    for disk in blueprint.disks() {
        if let Source::Persistent { name, size_mib } = disk {
            claimed.push(workshop.volumes.persistent(&blueprint.item_hash, &name, size_mib, patience).await?);
        }
    }
    Ok(claimed)
}

pub(super) fn heal(workshop: Workshop, mailbox: UnboundedSender<Message>, start: StartId, inputs: Inputs) {
    let work = async move {
        let hashes: Vec<ItemHash> = inputs.files.iter().map(|file| file.hash.clone()).collect();
        drop(inputs);
        match workshop.cache.recheck(&hashes).await {
            Ok(damaged) => damaged > 0,
            Err(error) => {
                tracing::warn!(%error, "files that may be damaged cannot be read");
                false
            }
        }
    };
    report(mailbox, work, move |damaged| Message::Event(Event::Healed { start, damaged: damaged.unwrap_or(false) }));
}
