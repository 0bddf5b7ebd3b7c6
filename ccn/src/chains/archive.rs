//! Taking in what a chain vouches for: messages, one by one or by the archive.

use super::{
    Tools,
    commit::Source,
    record::{Task, WorkRecord},
};
use crate::{
    host::{IndexerError, Meaning},
    pipeline::{EngineError, Receipt, SubmitError},
};
use ccn_message::{ErrorCode, ItemHash, MessageStatus};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Largest archive, bytes: an indexer holds it twice in its memory.
pub(super) const MAX_ARCHIVE_BYTES: u64 = 24 << 20;
/// Messages of an archive that are brought in one go.
const MESSAGES_AT_ONCE: usize = 1024;
/// How long to wait before a message that the node had no place for is brought again.
const CROWDED_PAUSE: Duration = Duration::from_millis(250);

/// What became of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It is done; these messages are confirmed by it.
    Confirmed(Vec<ItemHash>),
    /// It means nothing: a sentence.
    Nothing(String),
    /// It lacks a file, which is looked for.
    Lacking,
}

/// Why work is not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    /// The node stops, or fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The indexer cannot go on.
    #[error(transparent)]
    Indexer(#[from] IndexerError),
    /// A file cannot be read.
    #[error("the file {0} cannot be read: {1}")]
    File(ItemHash, String),
}

/// Does what a block told.
pub(super) async fn work(
    tools: &Tools,
    source: &Arc<Source>,
    height: u64,
    work: &WorkRecord,
) -> Result<Done, WorkError> {
    match &work.task {
        Task::Message(text) => Ok(Done::Confirmed(submit(tools, text).await?.into_iter().collect())),
        Task::Vouched { sender, kind, content } => {
            let text = vouched(&source.chain, sender, kind, content, work.time);
            match patiently(|| tools.pipeline.submit_vouched(text.clone())).await {
                Ok(receipt) => Ok(Done::Confirmed(vec![receipt.item_hash])),
                Err(SubmitError::Engine(error)) => Err(error.into()),
                Err(reason) => Ok(Done::Nothing(reason.to_string())),
            }
        }
        Task::Archive(file) => match ItemHash::parse(file) {
            Ok(file) => archive(tools, source, height, work, file).await,
            Err(error) => Ok(Done::Nothing(error.to_string())),
        },
    }
}

async fn archive(
    tools: &Tools,
    source: &Arc<Source>,
    height: u64,
    work: &WorkRecord,
    file: ItemHash,
) -> Result<Done, WorkError> {
    let (files, of, block) = (tools.files.clone(), source.clone(), source.block(height, &work.block, work.time));
    let name = file.clone();
    let unpacked = tokio::task::spawn_blocking(move || {
        let bytes = match files.read(&name, MAX_ARCHIVE_BYTES) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
                return Ok(Some(Err(format!("it has more than {MAX_ARCHIVE_BYTES} bytes"))));
            }
            Err(error) => return Err(WorkError::File(name, error.to_string())),
        };
        match of.indexer.unpack(&of.config, &block, &bytes) {
            Ok(found) => Ok(Some(Ok(found))),
            // A file that is no archive is the publisher's mistake, and nothing that stops a node.
            Err(IndexerError::Says { sentence, .. }) => Ok(Some(Err(sentence))),
            Err(error) => Err(error.into()),
        }
    });
    let unpacked = unpacked.await.map_err(|error| EngineError::Plugin(error.to_string()))??;
    let found = match unpacked {
        Some(Ok(found)) => found,
        Some(Err(sentence)) => return Ok(Done::Nothing(format!("the archive {file}: {sentence}"))),
        None => {
            tools.fetcher.want(&file);
            return Ok(Done::Lacking);
        }
    };
    tracing::info!("{}: the archive {file} of the block {height} holds {} messages", source.chain, found.len());
    let (mut confirmed, mut texts) = (Vec::new(), Vec::new());
    for meaning in found {
        match meaning {
            Meaning::Message(text) => texts.push(text),
            Meaning::Confirmation(message) => confirmed.push(message),
            _ => {}
        }
    }
    for slice in texts.chunks(MESSAGES_AT_ONCE) {
        let receipts = tools.pipeline.submit_bulk(slice.to_vec()).await;
        for (text, receipt) in slice.iter().zip(receipts) {
            confirmed.extend(match receipt {
                Err(SubmitError::Overloaded) => submit(tools, text).await?,
                receipt => confirmed_by(receipt)?,
            });
        }
    }
    Ok(Done::Confirmed(confirmed))
}

/// Takes a signed message in. Its hash when the transaction confirms it: a copy that is no message, or whose signature is wrong, is not the message of
/// that hash, and says nothing about it.
async fn submit(tools: &Tools, text: &str) -> Result<Option<ItemHash>, EngineError> {
    confirmed_by(patiently(|| tools.pipeline.submit(text.to_owned())).await)
}

fn confirmed_by(receipt: Result<Receipt, SubmitError>) -> Result<Option<ItemHash>, EngineError> {
    let Receipt { item_hash, status, rejection } = match receipt {
        Ok(receipt) => receipt,
        Err(SubmitError::Engine(error)) => return Err(error),
        Err(reason) => {
            tracing::debug!("a message that a chain told of is none: {reason}");
            return Ok(None);
        }
    };
    let wrong = rejection.is_some_and(|rejection| rejection.code == ErrorCode::InvalidSignature.number());
    Ok((status != MessageStatus::Rejected || !wrong).then_some(item_hash))
}

/// Brings a message until the node has a place for it.
async fn patiently<F: Future<Output = Result<Receipt, SubmitError>>>(
    mut submit: impl FnMut() -> F,
) -> Result<Receipt, SubmitError> {
    loop {
        match submit().await {
            Err(SubmitError::Overloaded) => tokio::time::sleep(CROWDED_PAUSE).await,
            receipt => return receipt,
        }
    }
}

/// A contract's message as an envelope (ccn spec 4.2): its time is that of the block.
fn vouched(chain: &str, sender: &str, kind: &str, content: &str, time: u64) -> String {
    let hash = ItemHash::sha256_of(content.as_bytes()).to_string();
    json!({
        "sender": sender, "chain": chain, "type": kind, "channel": null, "time": time, "item_type": "inline",
        "item_content": content, "item_hash": hash, "signature": null,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ccn_message::Envelope;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a contract says, the envelope is one: what is wrong with it is found where other messages' faults are.
        #[test]
        fn contracts_words_stay_inside_their_fields(sender in ".{0,30}", kind in ".{0,10}", content in ".{0,60}", time in 0..1_u64 << 33) {
            let text = vouched("ETH", &sender, &kind, &content, time);
            if let Ok(envelope) = Envelope::parse(&text) {
                prop_assert_eq!((envelope.sender, envelope.kind), (sender, kind));
                prop_assert_eq!(envelope.item_content, Some(content));
                prop_assert_eq!(envelope.signature, None);
            }
        }
    }
}
