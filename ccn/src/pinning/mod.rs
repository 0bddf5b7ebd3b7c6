//! What messages keep here of IPFS is also given to an IPFS node of the operator's own and pinned there, so that the wider network finds it; and it
//! is unpinned there once it is collected here.
//!
//! ```text
//!  commits ──> changed files ──┐                          ┌─ is it pinned? whose? ─┐
//!                              ├──> queue ──> errands ────┼─ blocks, made from ours ├──> the IPFS node
//!  walk through the store ─────┘    (owned by the worker) └─ pin, unpin ────────────┘
//!                                          │
//!                                          └──> rows of `ipfs_pins`, before and after: begun, pinned, found
//! ```
//!
//! Nothing is remembered but these rows: what is to be done follows from them and from the files ([`plan`]), so whatever is missed or cut off is found by
//! the next walk, and doing it twice does no harm. A pin is only removed when a row says that this node has made it, and its name does not say
//! otherwise: what the operator has pinned stays. The thread that decides only says which files it has changed ([`changed`]).

mod archive;
mod board;
pub(crate) mod changed;
mod errand;
mod plan;
mod queue;
pub mod record;
mod rpc;
#[cfg(test)]
mod tests;
mod walk;
mod worker;

pub use board::{PinFailure, PinningState, PinningStatus, PinningTrouble};

use crate::{files::Files, pipeline::Pipeline, store::Store};
use board::Board;
use errand::Tools;
use rpc::{Patience, Rpc};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use worker::Worker;

/// The one who pins. It works until this value is dropped.
#[derive(Debug)]
pub struct Pinning {
    board: Arc<Board>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Why nothing is pinned. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum PinningError {
    /// TLS cannot be set up.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The database fails.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl Pinning {
    /// Begins to pin at the IPFS node whose RPC has that base URL.
    ///
    /// # Errors
    /// See [`PinningError`].
    pub fn start(api: &str, store: Store, files: Files, pipeline: Pipeline) -> Result<Self, PinningError> {
        Self::with(api, store, files, pipeline, Patience::default())
    }

    fn with(
        api: &str,
        store: Store,
        files: Files,
        pipeline: Pipeline,
        patience: Patience,
    ) -> Result<Self, PinningError> {
        // Several nodes may use one IPFS node.
        let name = format!("beth-ccn-{:016x}", store.identity()?);
        let rpc = Rpc::new(api, patience)?;
        let status = PinningStatus { api: shown(api), name: name.clone(), ..PinningStatus::default() };
        let (board, stop) = (Arc::new(Board::new(status)), CancellationToken::new());
        let changed = pipeline.events().files().clone();
        let worker = Worker::new(Tools { store, files, pipeline, rpc, name }, changed, board.clone(), patience.again);
        let task = tokio::spawn(worker.run(stop.clone()));
        Ok(Self { board, stop, task: Mutex::new(Some(task)) })
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> PinningStatus {
        self.board.read()
    }

    /// Ends; what is cut off is done at the next start.
    pub async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && task.await.is_err_and(|error| error.is_panic())
        {
            tracing::error!("the one who pins ended in a panic");
        }
    }
}

impl Drop for Pinning {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A URL without the name and the password that may be in it.
fn shown(url: &str) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return String::new() };
    // A URL of HTTP may have them, so it may be without.
    let _ = parsed.set_username("").and_then(|()| parsed.set_password(None));
    parsed.as_str().trim_end_matches('/').to_owned()
}
