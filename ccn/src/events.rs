//! What happened, told to whoever listens: synchronous submissions and websockets. Only what is durable is told.

use crate::{pinning::changed::ChangedFiles, store::record::MessageRecord};
use axum::extract::ws::Utf8Bytes;
use ccn_message::{ItemHash, MessageStatus};
use std::sync::{Arc, OnceLock};
use tokio::sync::broadcast::{self, error::RecvError};

/// Events that a slow listener may be behind; one that is further behind is told that it lagged, and goes on with the oldest of these.
pub const MAX_BEHIND: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A message was processed.
    Committed {
        /// Its hash.
        item_hash: ItemHash,
        /// As it is stored.
        record: Arc<MessageRecord>,
        /// As listeners show it: written by the first, however many there are. None when it cannot be shown.
        frame: Arc<OnceLock<Option<Utf8Bytes>>>,
    },
    /// A message has a status other than processed.
    Verdict {
        /// Its hash.
        item_hash: ItemHash,
        /// `Pending`, `Rejected`, ….
        status: MessageStatus,
    },
}

impl Event {
    /// Which message it is about.
    #[must_use]
    pub fn item_hash(&self) -> &ItemHash {
        match self {
            Self::Committed { item_hash, .. } | Self::Verdict { item_hash, .. } => item_hash,
        }
    }

    /// The status that the message has now.
    #[must_use]
    pub fn status(&self) -> MessageStatus {
        match self {
            Self::Committed { .. } => MessageStatus::Processed,
            Self::Verdict { status, .. } => *status,
        }
    }
}

/// Where events are told. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Events {
    told: broadcast::Sender<Event>,
    files: ChangedFiles,
}

/// One listener.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Event>);

/// Why there is no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// The listener was too slow; the next call goes on with the oldest event that is left.
    #[error("{0} events were missed")]
    Lagged(u64),
    /// The node stops.
    #[error("the node stops")]
    Closed,
}

impl Events {
    /// Nobody listens yet.
    #[must_use]
    pub fn new() -> Self {
        Self { told: broadcast::channel(MAX_BEHIND).0, files: ChangedFiles::default() }
    }

    /// Starts to listen: everything from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.told.subscribe())
    }

    pub(crate) fn tell(&self, event: Event) {
        // That nobody listens is no error.
        let _ = self.told.send(event);
    }

    /// Where changed files of IPFS are told.
    pub(crate) fn files(&self) -> &ChangedFiles {
        &self.files
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener {
    /// The next event, when it comes.
    ///
    /// # Errors
    /// Events were missed, or there will be none.
    pub async fn next(&mut self) -> Result<Event, ListenError> {
        self.0.recv().await.map_err(|error| match error {
            RecvError::Lagged(count) => ListenError::Lagged(count),
            RecvError::Closed => ListenError::Closed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(number: u64) -> Event {
        Event::Verdict { item_hash: ItemHash::sha256_of(&number.to_be_bytes()), status: MessageStatus::Rejected }
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_much_it_missed() {
        let events = Events::new();
        let mut listener = events.listen();
        let count = MAX_BEHIND as u64 + 3;
        for number in 0..count {
            events.tell(verdict(number));
        }
        assert_eq!(listener.next().await.expect_err("it lagged"), ListenError::Lagged(3));
        assert_eq!(listener.next().await.expect("an event").item_hash(), verdict(3).item_hash());
        drop(events);
        for _ in 4..count {
            listener.next().await.expect("an event");
        }
        assert_eq!(listener.next().await.expect_err("the end"), ListenError::Closed);
    }
}
