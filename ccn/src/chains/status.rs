//! How far chains are followed, as the API shows it. Errors are shown without the provider's URL: it may hold a key.

use crate::clock;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChainStatus {
    /// The network's name of it.
    pub name: String,
    /// Those who follow it, one for each indexer.
    pub indexers: Vec<FollowerStatus>,
}

/// One who follows a chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FollowerStatus {
    /// The indexer's name.
    pub indexer: String,
    /// The sha256 of the indexer, hex.
    pub sha256: String,
    /// What is going on.
    pub state: FollowerState,
    /// The last block that is followed; none before the first.
    pub height: Option<u64>,
    /// The last block that is followed and can no longer be taken back.
    pub final_height: Option<u64>,
    /// The newest block that the provider has; none before it was asked.
    pub target: Option<u64>,
    /// Blocks between the two.
    pub lag: Option<u64>,
    /// Blocks asked for at once, of those that are final.
    pub batch: u64,
    /// Events that were decoded since the start.
    pub events: u64,
    /// What blocks told and is still to be done, archives mostly: as many as were looked at last.
    pub open: u64,
    /// Times that blocks were taken back since the start.
    pub reorganisations: u64,
    /// What went wrong last, and when, seconds since 1970; none while all is well.
    pub last_error: Option<FollowerTrouble>,
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FollowerState {
    /// It has just begun.
    Starting,
    /// What other settings have left is being deleted.
    Clearing,
    /// Blocks are behind.
    Following,
    /// Everything is here.
    Current,
    /// It does not get on, and tries again.
    Retrying,
    /// It has given up: the indexer failed, or the provider contradicts what was final. A restart tries again.
    Stopped,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FollowerTrouble {
    /// One sentence.
    pub sentence: String,
    /// Seconds since 1970.
    pub time: f64,
}

/// A chain as those who follow it write it down.
#[derive(Debug)]
pub(super) struct Shown {
    name: String,
    followers: Mutex<Vec<Arc<Board>>>,
}

/// Where one who follows writes.
#[derive(Debug)]
pub(super) struct Board(Mutex<FollowerStatus>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shown {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), followers: Mutex::default() }
    }

    /// One more who follows it.
    pub(super) fn add(&self, indexer: &str, sha256: &str) -> Arc<Board> {
        let board = Arc::new(Board(Mutex::new(FollowerStatus {
            indexer: indexer.to_owned(),
            sha256: sha256.to_owned(),
            state: FollowerState::Starting,
            height: None,
            final_height: None,
            target: None,
            lag: None,
            batch: 0,
            events: 0,
            open: 0,
            reorganisations: 0,
            last_error: None,
        })));
        lock(&self.followers).push(board.clone());
        board
    }

    pub(super) fn status(&self) -> ChainStatus {
        let indexers = lock(&self.followers).iter().map(|board| lock(&board.0).clone()).collect();
        ChainStatus { name: self.name.clone(), indexers }
    }
}

impl Board {
    /// Writes.
    pub(super) fn write(&self, change: impl FnOnce(&mut FollowerStatus)) {
        let mut status = lock(&self.0);
        change(&mut status);
        status.lag = status.target.map(|target| target.saturating_sub(status.height.unwrap_or(0)));
    }

    /// Something went wrong. True when it is news.
    pub(super) fn fail(&self, state: FollowerState, sentence: &str) -> bool {
        let mut is_news = true;
        self.write(|status| {
            is_news = status.last_error.as_ref().is_none_or(|last| last.sentence != sentence);
            status.state = state;
            let time = clock::now_ms() as f64 / 1000.0;
            status.last_error = Some(FollowerTrouble { sentence: sentence.to_owned(), time });
        });
        is_news
    }

    /// All is well again. True when it was not.
    pub(super) fn recover(&self, state: FollowerState) -> bool {
        let mut was_bad = false;
        self.write(|status| {
            was_bad = status.last_error.take().is_some();
            status.state = state;
        });
        was_bad
    }
}
