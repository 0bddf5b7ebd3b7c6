//! What a start needs before there is a machine, each in a task that reports to the owner.

use super::{Event, ItemHash, Message, StartError, StartId, Workshop};
use crate::cache::{CachedFile, program::Blueprint};
use futures_util::{FutureExt as _, future::try_join_all};
use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::mpsc::UnboundedSender;

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
        Ok(try_join_all(blueprint.files().map(|file| workshop.cache.get(file))).await?)
    };
    report(mailbox, work, move |files| Message::Fetched { start, files: files.unwrap_or(Err(StartError::Defect)) });
}

pub(super) fn heal(workshop: Workshop, mailbox: UnboundedSender<Message>, start: StartId, files: Vec<CachedFile>) {
    let work = async move {
        let hashes: Vec<ItemHash> = files.iter().map(|file| file.hash.clone()).collect();
        drop(files);
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
