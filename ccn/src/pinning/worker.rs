//! The one who pins: a task that owns what is to be looked at next. It waits for what happens, and says what follows; everything else is an errand,
//! of which a few are under way at once.
//!
//! ```text
//!               it answers                        a file was refused, or took too long
//!   Unknown ──────────────────> Here ─────────────────────> Doubtful ──┐
//!      │                        ^  └────── it is not reached ───┐      │ asked who it is
//!      └─> Away <───────────────┼───────────────────────────────┴──────┤
//!            └── it answers ────┴──────────── it answers ──────────────┘
//! ```

use super::{
    board::{Board, MAX_NAMED, PinFailure, PinningState, PinningTrouble, Rows},
    changed::ChangedFiles,
    errand::{self, Deed, Looked, Tools, Trouble},
    queue::{Look, Queue},
    rpc::{Identity, RpcError},
    walk::Walk,
};
use crate::{chains::Pauses, clock::now_ms, pipeline::EngineError};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Files that are given to the IPFS node at once.
const MAX_AT_ONCE: usize = 4;
/// How often everything is walked through, should something have been missed.
const WALK_EVERY: Duration = Duration::from_secs(3600);
/// How often what was pinned is looked at again: the IPFS node may have lost it, or its operator may have taken it away.
const CHECK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Pause before the IPFS node is asked again that was not reached.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of the IPFS node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It has not been asked.
    Unknown,
    /// It answers.
    Here,
    /// It has not done what it was asked: it is asked who it is before anything else.
    Doubtful,
    /// It does not answer, and is asked again then.
    Away(Instant),
}

/// What happened.
enum Event {
    Looked(Box<Looked>),
    Walked(Result<(Vec<Look>, Option<Walk>), Trouble>),
    Reached(Result<(Identity, Rows), Trouble>),
    /// Files have changed.
    Changed,
    /// It is time for something.
    Time,
}

/// The one who pins.
pub(super) struct Worker {
    tools: Arc<Tools>,
    changed: ChangedFiles,
    board: Arc<Board>,
    queue: Queue,
    presence: Presence,
    pauses: Pauses,
    /// A walk that goes on when there is room; none between two.
    walk: Option<Walk>,
    /// Another one is wanted after it.
    walk_again: bool,
    next_walk: Instant,
    next_check: Instant,
    looks: usize,
    is_walking: bool,
    is_reaching: bool,
    rows: Rows,
}

impl Worker {
    pub(super) fn new(tools: Tools, changed: ChangedFiles, board: Arc<Board>) -> Self {
        let now = Instant::now();
        Self {
            tools: Arc::new(tools),
            changed,
            board,
            queue: Queue::default(),
            presence: Presence::Unknown,
            pauses: Pauses::new(FIRST_PAUSE, LONGEST_PAUSE),
            walk: None,
            walk_again: false,
            next_walk: now,
            next_check: now,
            looks: 0,
            is_walking: false,
            is_reaching: false,
            rows: Rows::default(),
        }
    }

    /// Works until it is told to stop. Whatever is cut off has begun, and is looked at again at the next start.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.changed.listen();
        let mut errands = FuturesUnordered::new();
        loop {
            self.begin(&mut errands, Instant::now());
            self.show();
            let time = tokio::time::Instant::from_std(self.next_time());
            let event = tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = errands.next() => event,
                () = self.changed.come() => Event::Changed,
                () = tokio::time::sleep_until(time) => Event::Time,
            };
            if self.apply(event, Instant::now()).is_break() {
                return;
            }
        }
    }

    /// Begins what is due.
    fn begin(&mut self, errands: &mut FuturesUnordered<BoxFuture<'static, Event>>, now: Instant) {
        let is_asked = match self.presence {
            Presence::Unknown | Presence::Doubtful => true,
            Presence::Away(until) => until <= now,
            Presence::Here => false,
        };
        if is_asked && !self.is_reaching {
            self.is_reaching = true;
            let tools = self.tools.clone();
            errands.push(async move { Event::Reached(errand::reach(&tools).await) }.boxed());
        }
        if self.presence != Presence::Here {
            return;
        }
        if self.walk.is_none() && !self.is_walking && (self.walk_again || self.next_walk <= now) {
            let checking = self.next_check <= now;
            if checking {
                self.next_check = now + CHECK_EVERY;
            }
            (self.walk, self.walk_again, self.next_walk) = (Some(Walk::new(checking)), false, now + WALK_EVERY);
        }
        if !self.is_walking
            && self.queue.has_room()
            && let Some(walk) = self.walk.take()
        {
            self.is_walking = true;
            let store = self.tools.store.clone();
            errands.push(async move { Event::Walked(walk.step(store).await) }.boxed());
        }
        while self.looks < MAX_AT_ONCE
            && let Some(look) = self.queue.next(now)
        {
            self.looks += 1;
            let tools = self.tools.clone();
            errands.push(async move { Event::Looked(Box::new(errand::look(&tools, look).await)) }.boxed());
        }
    }

    /// When something is due that nothing else tells of.
    fn next_time(&self) -> Instant {
        match self.presence {
            Presence::Away(until) => until,
            Presence::Here => self.queue.next_due().map_or(self.next_walk, |due| due.min(self.next_walk)),
            Presence::Unknown | Presence::Doubtful => self.next_walk.max(Instant::now() + LONGEST_PAUSE),
        }
    }

    /// What follows. It breaks off when the node stops.
    fn apply(&mut self, event: Event, now: Instant) -> std::ops::ControlFlow<()> {
        match event {
            Event::Time => {}
            Event::Changed => {
                let news = self.changed.take();
                let fit = news.files.into_iter().all(|file| self.queue.changed(file));
                self.walk_again |= news.more || !fit;
            }
            Event::Walked(step) => {
                self.is_walking = false;
                match step {
                    Ok((looks, rest)) => {
                        let fit = looks.into_iter().all(|look| self.queue.found(look));
                        self.walk_again |= !fit;
                        self.walk = rest;
                    }
                    Err(trouble) => {
                        tracing::warn!("files that are to be pinned cannot be looked for: {trouble}");
                        self.next_walk = now + LONGEST_PAUSE;
                    }
                }
            }
            Event::Reached(reached) => {
                self.is_reaching = false;
                match reached {
                    Ok((identity, rows)) => self.is_here(&identity, rows, now),
                    Err(Trouble::Engine(EngineError::Stopped)) => return std::ops::ControlFlow::Break(()),
                    Err(trouble) => self.is_away(&trouble.to_string(), now),
                }
            }
            Event::Looked(looked) => {
                self.looks -= 1;
                return self.looked(*looked, now);
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn looked(&mut self, looked: Looked, now: Instant) -> std::ops::ControlFlow<()> {
        let Looked { look, rows: (before, after), result } = looked;
        self.rows.moved(before, after);
        match result {
            Ok(deed) => {
                let had_failed = self.queue.failed_count();
                self.queue.done(&look.hash);
                if had_failed > 0 && self.queue.failed_count() == 0 {
                    tracing::info!("no file fails to be pinned or unpinned any more");
                }
                self.board.write(|status| match deed {
                    Deed::Pinned => status.pins_total += 1,
                    Deed::Unpinned => status.unpins_total += 1,
                    Deed::Nothing => {}
                });
            }
            Err(Trouble::Engine(EngineError::Stopped)) => return std::ops::ControlFlow::Break(()),
            Err(Trouble::Rpc(RpcError::Away(reason))) => {
                self.queue.put_back(look);
                // Others that were under way tell the same.
                if self.presence == Presence::Here {
                    self.is_away(&reason, now);
                }
            }
            Err(trouble) => {
                tracing::debug!("{}: {trouble}", look.hash);
                if self.queue.failed_count() == 0 {
                    tracing::warn!(
                        "{} is not pinned or unpinned, and tried again later: {trouble}; `ccn node pins` lists it and further ones",
                        look.hash
                    );
                }
                let is_doubtful = matches!(trouble, Trouble::Rpc(RpcError::Late(_) | RpcError::Answer(_)));
                self.queue.failed(&look.hash, trouble.to_string(), now);
                self.board.write(|status| status.failures_total += 1);
                if is_doubtful && self.presence == Presence::Here {
                    self.presence = Presence::Doubtful;
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn is_here(&mut self, identity: &Identity, rows: Rows, now: Instant) {
        self.pauses.reset();
        let was = std::mem::replace(&mut self.presence, Presence::Here);
        let (api, agent, id) = (self.board.read().api, &identity.agent_version, &identity.id);
        if was == Presence::Doubtful {
            return;
        }
        // Errands that are under way tell what they change.
        if self.looks == 0 {
            self.rows = rows;
        }
        match was {
            Presence::Away(_) => tracing::info!("the IPFS node at {api} is there: {agent}, {id}"),
            _ => tracing::info!("what messages keep is pinned by the IPFS node at {api}: {agent}, {id}"),
        }
        self.board.write(|status| {
            (status.node, status.agent, status.last_error) = (Some(id.clone()), Some(agent.clone()), None);
        });
        // It may have lost what it had, and may have room again.
        (self.next_check, self.walk_again) = (now, true);
        self.queue.revive(now);
    }

    fn is_away(&mut self, reason: &str, now: Instant) {
        let pause = self.pauses.next(None);
        let was = std::mem::replace(&mut self.presence, Presence::Away(now + pause));
        let api = self.board.write(|status| {
            let time = now_ms() as f64 / 1e3;
            status.last_error = Some(PinningTrouble { sentence: reason.to_owned(), time });
            status.api.clone()
        });
        if !matches!(was, Presence::Away(_)) {
            tracing::warn!("the IPFS node at {api} is away, and what is to be pinned waits for it: {reason}");
        }
    }

    fn show(&self) {
        let now = Instant::now();
        let (waiting, failing) = (self.queue.waiting() as u64, self.queue.failed_count() as u64);
        let walking = self.walk.is_some() || self.is_walking || self.walk_again;
        let in_a_while = |at: Instant| now_ms() as f64 / 1e3 + at.saturating_duration_since(now).as_secs_f64();
        let failures = self.queue.failing().take(MAX_NAMED).map(|(hash, failing)| PinFailure {
            item_hash: hash.to_string(),
            reason: failing.reason.clone(),
            attempts: failing.attempts,
            next: in_a_while(failing.at),
        });
        self.board.write(|status| {
            status.state = match self.presence {
                Presence::Unknown => PinningState::Starting,
                Presence::Away(_) => PinningState::Away,
                Presence::Here if waiting == 0 && !walking => PinningState::Current,
                Presence::Here | Presence::Doubtful => PinningState::Working,
            };
            (status.pinned, status.found, status.begun) = (self.rows.pinned, self.rows.found, self.rows.begun);
            (status.waiting, status.walking, status.failing) = (waiting, walking, failing);
            status.failures = failures.collect();
        });
    }
}
