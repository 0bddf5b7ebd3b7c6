//! How often files were looked for elsewhere, and what came of it: what dashboards of the network read (ccn spec 5.9).

use ccn_message::item_hash::Engine;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Searches for files of one engine.
#[derive(Debug, Default)]
struct Searches {
    total: AtomicU64,
    failed: AtomicU64,
    microseconds: AtomicU64,
}

/// Searches for files since the node started.
#[derive(Debug, Default)]
pub struct Tally {
    ipfs: Searches,
    storage: Searches,
}

/// Searches for files of one engine, as they were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Searched {
    /// All of them.
    pub total: u64,
    /// Those in which nobody had the file.
    pub failed: u64,
    /// How long all of them took.
    pub took: Duration,
}

impl Tally {
    fn searches(&self, engine: Engine) -> &Searches {
        match engine {
            Engine::Ipfs => &self.ipfs,
            Engine::Storage => &self.storage,
        }
    }

    /// Everybody was asked.
    pub(super) fn count(&self, engine: Engine, is_found: bool, took: Duration) {
        let searches = self.searches(engine);
        searches.total.fetch_add(1, Ordering::Relaxed);
        searches.failed.fetch_add(u64::from(!is_found), Ordering::Relaxed);
        searches.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted.
    #[must_use]
    pub fn searched(&self, engine: Engine) -> Searched {
        let searches = self.searches(engine);
        Searched {
            total: searches.total.load(Ordering::Relaxed),
            failed: searches.failed.load(Ordering::Relaxed),
            took: Duration::from_micros(searches.microseconds.load(Ordering::Relaxed)),
        }
    }
}
