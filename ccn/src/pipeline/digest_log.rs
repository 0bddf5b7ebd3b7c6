//! The digest of the state in the log: whoever runs two nodes can compare them afterwards.

use crate::store::{Reader as _, StateDigest, Store, StoreError};
use std::time::{Duration, Instant};

/// How often at most a new digest is logged.
const EVERY: Duration = Duration::from_secs(60);

/// What was logged last.
#[derive(Debug, Default)]
pub(super) struct DigestLog {
    last: Option<(String, Instant)>,
}

impl DigestLog {
    /// Everything has come to rest: logs the digest when it is another one and some time has passed, or the node stops.
    pub(super) fn at_rest(&mut self, store: &Store, is_end: bool) {
        if !is_end && self.last.as_ref().is_some_and(|(_, at)| at.elapsed() < EVERY) {
            return;
        }
        let current = || {
            let snapshot = store.snapshot()?;
            let messages = snapshot.message_count()?;
            Ok::<_, StoreError>((StateDigest::of(&snapshot)?.total(), messages))
        };
        match current() {
            Ok((digest, messages)) => {
                if self.last.as_ref().is_none_or(|(last, _)| *last != digest) {
                    tracing::info!("state digest {digest} with {messages} messages");
                    self.last = Some((digest, Instant::now()));
                }
            }
            Err(error) => tracing::error!("the state digest cannot be read: {error}"),
        }
    }
}
