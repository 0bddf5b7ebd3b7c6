//! Now and then a look at who can pay.

use super::{
    EngineError, Pipeline,
    owner::Input,
    removal::{self, Change, Removal, Stretch},
};
use crate::clock::now_ms;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a look at who can pay has led to: messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reviewed {
    /// It is said that they will be removed.
    pub announced: usize,
    /// They can be paid again.
    pub recovered: usize,
    /// They were removed.
    pub removed: usize,
}

impl Reviewed {
    fn count(&mut self, done: &[Removal]) {
        for removal in done {
            *match removal.change {
                Change::Announce => &mut self.announced,
                Change::Recover => &mut self.recovered,
                Change::Remove => &mut self.removed,
            } += 1;
        }
    }
}

impl Pipeline {
    /// Looks who can pay for what they store and run, as of a moment, milliseconds since 1970: what cannot be paid is announced, and removed when it
    /// has been announced for long enough; what can be paid again recovers (ccn spec 6.5).
    ///
    /// # Errors
    /// See [`EngineError`]. What was done until then stays done.
    pub async fn review(&self, now_ms: u64) -> Result<Reviewed, EngineError> {
        let mut reviewed = Reviewed::default();
        let mut from = Vec::new();
        loop {
            let shared = self.shared.clone();
            let step = self.on_worker(move || {
                let snapshot = shared.store.snapshot()?;
                removal::step(&snapshot, &from, shared.paid_from_height, now_ms)
            });
            let Stretch { removals, next } = step.await?.map_err(EngineError::from)?;
            for removals in removals.chunks(removal::MAX_STEP) {
                let removals = removals.to_vec();
                let (reply, done) = oneshot::channel();
                self.send(Input::Removals { removals, now_ms, reply }).await?;
                reviewed.count(&done.await.map_err(|_| EngineError::Stopped)??);
            }
            match next {
                Some(next) => from = next,
                None => return Ok(reviewed),
            }
        }
    }

    /// Looks every so often, first after half of that, until the one who decides has ended.
    pub(crate) async fn keep_reviewing(self, every: Duration) {
        let mut wait = every / 2;
        loop {
            tokio::select! {
                () = self.ended() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = every;
            match self.review(now_ms()).await {
                Ok(Reviewed { announced: 0, recovered: 0, removed: 0 }) => tracing::debug!("everything is paid"),
                Ok(Reviewed { announced, recovered, removed }) => tracing::info!(
                    "who can pay was looked at: {announced} messages will be removed, {recovered} recovered, {removed} were removed"
                ),
                Err(EngineError::Stopped) => return,
                Err(error) => tracing::error!("who can pay is not known, and looked at again later: {error}"),
            }
        }
    }
}
