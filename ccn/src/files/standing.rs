//! Whether the bucket answers. Once it did not, nobody waits for it in vain: all who ask are told at once, until it is heard of again.

use super::complaint::Complaint;
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Why a file can neither be had nor said not to be there.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the object store that keeps the files does not answer as it should: {0}")]
pub(super) struct Away(pub(super) String);

/// True for an error that says nothing of a file, only that the object store that keeps it cannot be asked now.
#[must_use]
pub fn is_away(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Away>())
}

impl From<Away> for io::Error {
    fn from(away: Away) -> Self {
        Self::new(io::ErrorKind::NetworkDown, away)
    }
}

/// Whether it answers.
#[derive(Debug, Default)]
pub(super) struct Standing {
    away: Mutex<Option<Away>>,
}

impl Standing {
    fn away(&self) -> MutexGuard<'_, Option<Away>> {
        // Nothing panics that holds it.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing while it answers.
    pub(super) fn check(&self) -> Result<(), Away> {
        self.away().clone().map_or(Ok(()), Err)
    }

    /// It complained. True when it is away because of that, and was not before: then somebody has to look when it is back.
    pub(super) fn complained(&self, complaint: &Complaint) -> (Away, bool) {
        let away = Away(complaint.sentence.clone());
        if !complaint.is_outage {
            tracing::warn!("{away}");
            return (away, false);
        }
        let is_new = self.away().replace(away.clone()).is_none();
        if is_new {
            tracing::error!("{away}; until it is back, requests for files are answered 503 and messages wait");
        }
        (away, is_new)
    }

    /// It answered.
    pub(super) fn is_back(&self) {
        if self.away().take().is_some() {
            tracing::info!("the object store that keeps the files answers again");
        }
    }
}
