//! How pinning goes, as the API shows it.

use super::record::PinState;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// Files that are named with what went wrong; the API shows no more.
pub(super) const MAX_NAMED: usize = 50;

/// How pinning goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PinningStatus {
    /// Where the IPFS node is, without the password that may be in it: for the log. Strangers are not told.
    #[serde(skip)]
    pub api: String,
    /// What is going on.
    pub state: PinningState,
    /// Its peer id; none before it was reached.
    pub node: Option<String>,
    /// Its program and version.
    pub agent: Option<String>,
    /// The name of the pins of this node.
    pub name: String,
    /// Pins that this node has made.
    pub pinned: u64,
    /// Files that somebody else had pinned.
    pub found: u64,
    /// Pins that were begun.
    pub begun: u64,
    /// Files that are to be looked at. While everything is looked through, there may be more.
    pub waiting: u64,
    /// True while everything is looked through.
    pub walking: bool,
    /// Files with which it did not go well.
    pub failing: u64,
    /// Some of them.
    pub failures: Vec<PinFailure>,
    /// Since the start: files that were pinned, files that were unpinned, attempts that failed.
    pub pins_total: u64,
    /// See there.
    pub unpins_total: u64,
    /// See there.
    pub failures_total: u64,
    /// Why the IPFS node was not reached last, and when, seconds since 1970; none while it is there.
    pub last_error: Option<PinningTrouble>,
}

/// What is going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinningState {
    /// The IPFS node has not answered yet.
    #[default]
    Starting,
    /// It does not answer.
    Away,
    /// There is something to do.
    Working,
    /// All that messages keep is pinned, but for what fails.
    Current,
}

/// A file with which it did not go well.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinFailure {
    /// The file.
    pub item_hash: String,
    /// One sentence.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again, seconds since 1970.
    pub next: f64,
}

/// Why the IPFS node was not reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinningTrouble {
    /// One sentence.
    pub sentence: String,
    /// Seconds since 1970.
    pub time: f64,
}

/// Where it is written.
#[derive(Debug)]
pub(super) struct Board(Mutex<PinningStatus>);

impl Board {
    pub(super) fn new(status: PinningStatus) -> Self {
        Self(Mutex::new(status))
    }

    pub(super) fn write<T>(&self, change: impl FnOnce(&mut PinningStatus) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn read(&self) -> PinningStatus {
        self.write(|status| status.clone())
    }
}

/// Rows by their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) pinned: u64,
    pub(super) found: u64,
    pub(super) begun: u64,
}

impl Rows {
    /// One row is not as it was.
    pub(super) fn moved(&mut self, before: Option<PinState>, after: Option<PinState>) {
        if let Some(count) = before.map(|state| self.of(state)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = after.map(|state| self.of(state)) {
            *count += 1;
        }
    }

    fn of(&mut self, state: PinState) -> &mut u64 {
        match state {
            PinState::Pinned { .. } => &mut self.pinned,
            PinState::Found => &mut self.found,
            PinState::Begun => &mut self.begun,
        }
    }
}
