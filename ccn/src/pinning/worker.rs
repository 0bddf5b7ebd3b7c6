//! The one who pins: a task that owns what is to be looked at next. It waits for what happens, and says what follows; everything else is an errand,
//! of which a few are under way at once.
//!
//! ```text
//!            it answers              rows are of it            took too long, or every half minute
//!   Unknown ─────────────> New ─────────────────> Here ──────────────────────────────────────────┐
//!      │                    ^                      ^ └── it is not reached ──┐                   v
//!      └─> Away <───────────┼──────────────────────┼─────────────────────────┴─── no answer ── Doubtful
//!            └─ it answers ─┴── if it is another ──┴───────────── it answers ────────────────────┘
//! ```

use super::{
    board::{Board, MAX_NAMED, PinFailure, PinningState, PinningStatus, PinningTrouble, Rows},
    changed::ChangedFiles,
    errand::{self, Deed, Looked, Tools, Trouble},
    queue::{Look, Queue},
    rpc::{Identity, RpcError},
    walk::Walk,
};
use crate::{chains::Pauses, clock::now_ms, pipeline::EngineError};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use std::{
    ops::ControlFlow,
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
/// How often it is asked who it is, so that it is known when it is away, or another one: that has nothing of what the one before had.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Pause before the IPFS node is asked again that was not reached.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of the IPFS node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It has not been asked.
    Unknown,
    /// It answers, and the rows may be of another one. First, whatever is under way ends.
    New,
    /// It answers.
    Here,
    /// It has not done what it was asked, or was not asked for a while: it is asked who it is before anything else.
    Doubtful,
    /// It does not answer, and is asked again then.
    Away(Instant),
}

/// What happened.
enum Event {
    Looked(Box<Looked>),
    Walked(Result<(Vec<Look>, Option<Walk>), Trouble>),
    /// With when it was asked, milliseconds since 1970.
    Reached(Result<(Identity, u64), RpcError>),
    Adopted(Result<Rows, Trouble>),
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
    /// Who it is, once it was reached.
    identity: Option<Identity>,
    /// When it was asked for the last time and was the one whose the rows are, milliseconds since 1970.
    seen: Option<u64>,
    next_ask: Instant,
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
    pub(super) fn new(tools: Tools, changed: ChangedFiles, board: Arc<Board>, first_pause: Duration) -> Self {
        let now = Instant::now();
        Self {
            tools: Arc::new(tools),
            changed,
            board,
            queue: Queue::new(first_pause),
            presence: Presence::Unknown,
            identity: None,
            seen: None,
            next_ask: now,
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
            let time = tokio::time::Instant::from_std(self.next_time(Instant::now()));
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
            Presence::Here => self.next_ask <= now,
            Presence::New => false,
        };
        if is_asked && !self.is_reaching {
            self.is_reaching = true;
            let tools = self.tools.clone();
            let asked = now_ms();
            let reach = async move { Event::Reached(tools.rpc.identity().await.map(|identity| (identity, asked))) };
            errands.push(reach.boxed());
        }
        if self.presence == Presence::New
            && !self.is_reaching
            && self.looks == 0
            && let Some(identity) = self.identity.clone()
        {
            self.is_reaching = true;
            let (tools, seen) = (self.tools.clone(), self.seen);
            errands.push(async move { Event::Adopted(errand::adopt(&tools, &identity, seen).await) }.boxed());
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

    /// When something is due that nothing else tells of; what is under way tells itself, and so does what waits for it.
    fn next_time(&self, now: Instant) -> Instant {
        let is_here = self.presence == Presence::Here;
        let ask = match self.presence {
            Presence::Away(until) => Some(until),
            Presence::Here => Some(self.next_ask),
            Presence::Unknown | Presence::New | Presence::Doubtful => None,
        };
        let times = [
            ask.filter(|_| !self.is_reaching),
            Some(self.next_walk).filter(|_| is_here && self.walk.is_none() && !self.is_walking),
            self.queue.next_due().filter(|_| is_here && self.looks < MAX_AT_ONCE),
        ];
        times.into_iter().flatten().min().unwrap_or(now + LONGEST_PAUSE)
    }

    /// What follows. It breaks off when the node stops.
    fn apply(&mut self, event: Event, now: Instant) -> ControlFlow<()> {
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
                    Ok((identity, asked)) => self.answers(identity, asked, now),
                    Err(error) => self.is_away(&error.to_string(), now),
                }
            }
            Event::Adopted(adopted) => {
                self.is_reaching = false;
                match adopted {
                    Ok(rows) => self.adopted(rows, now),
                    Err(Trouble::Engine(EngineError::Stopped)) => return ControlFlow::Break(()),
                    Err(trouble) => {
                        // Then it is as if it had not been reached.
                        self.identity = None;
                        self.is_away(&trouble.to_string(), now);
                    }
                }
            }
            Event::Looked(looked) => {
                self.looks -= 1;
                return self.looked(*looked, now);
            }
        }
        ControlFlow::Continue(())
    }

    fn looked(&mut self, looked: Looked, now: Instant) -> ControlFlow<()> {
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
            Err(Trouble::Engine(EngineError::Stopped)) => return ControlFlow::Break(()),
            Err(Trouble::Rpc(error @ RpcError::Away(_))) => {
                self.queue.put_back(look);
                // Others that were under way tell the same.
                if self.presence == Presence::Here {
                    self.is_away(&error.to_string(), now);
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
        ControlFlow::Continue(())
    }

    fn answers(&mut self, identity: Identity, asked: u64, now: Instant) {
        self.pauses.reset();
        self.next_ask = now + ASK_EVERY;
        let is_same = self.identity.as_ref().is_some_and(|known| known.id == identity.id);
        let was = std::mem::replace(&mut self.presence, if is_same { Presence::Here } else { Presence::New });
        self.board.write(|status| {
            (status.node, status.agent) = (Some(identity.id.clone()), Some(identity.agent_version.clone()));
            status.last_error = None;
        });
        self.identity = Some(identity);
        if is_same {
            self.seen = Some(asked);
        }
        if is_same && matches!(was, Presence::Away(_)) {
            tracing::info!("the IPFS node at {} is back", self.board.read().api);
            self.begin_anew(now);
        }
    }

    fn adopted(&mut self, rows: Rows, now: Instant) {
        self.presence = Presence::Here;
        self.rows = rows;
        self.seen = Some(now_ms());
        let PinningStatus { api, agent, node, .. } = self.board.read();
        let (agent, node) = (agent.unwrap_or_default(), node.unwrap_or_default());
        tracing::info!("what messages keep is pinned by the IPFS node at {api}: {agent}, {node}");
        self.begin_anew(now);
    }

    /// The IPFS node may have lost what it had, and may have room again.
    fn begin_anew(&mut self, now: Instant) {
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
                Presence::Unknown | Presence::New => PinningState::Starting,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pinning::rpc::{Patience, Rpc},
        testing::TestNode,
    };
    use ccn_message::ItemHash;

    /// The task would turn round and round without resting if it waited for a moment that has passed while what was due then is under way, or cannot
    /// begin.
    #[tokio::test]
    async fn what_is_under_way_is_not_waited_for() {
        let node = TestNode::new().await;
        let service = &node.service;
        // Nobody is asked anything here: nothing that is begun is awaited.
        let rpc = Rpc::new("http://127.0.0.1:1", Patience::default()).expect("a client");
        let (store, files, pipeline) = (service.store.clone(), service.files.clone(), service.pipeline.clone());
        let worker = |presence: Presence| {
            let (store, files, pipeline, rpc) = (store.clone(), files.clone(), pipeline.clone(), rpc.clone());
            let tools = Tools { store, files, pipeline, rpc, name: "ours".into() };
            let board = Arc::new(Board::new(PinningStatus::default()));
            let mut worker = Worker::new(tools, ChangedFiles::default(), board, FIRST_PAUSE);
            worker.presence = presence;
            worker.identity = Some(Identity { id: "it".into(), agent_version: String::new() });
            worker
        };
        let past = Instant::now();
        let hash = |number: u8| ItemHash::sha256_of(&[number]);
        for presence in [Presence::Unknown, Presence::New, Presence::Here, Presence::Doubtful, Presence::Away(past)] {
            let (mut worker, mut errands) = (worker(presence), FuturesUnordered::new());
            for turn in 0..3 {
                // Files fail, more than are worked on at once, and are due again at once.
                for number in 0..10 {
                    worker.queue.changed(hash(number));
                }
                worker.queue.revive(past);
                (worker.next_walk, worker.next_check, worker.next_ask) = (past, past, past);
                let now = Instant::now();
                worker.begin(&mut errands, now);
                let begun = errands.len();
                assert!(begun > 0 && worker.next_time(now) > now, "{presence:?}, turn {turn}");
                worker.begin(&mut errands, now);
                assert_eq!(errands.len(), begun, "{presence:?}, turn {turn}: nothing is begun twice");
            }
        }
        // One that fails is due while as many as can be are worked on.
        let (mut worker, mut errands) = (worker(Presence::Here), FuturesUnordered::new());
        worker.queue.changed(hash(0));
        let now = Instant::now();
        worker.begin(&mut errands, now);
        worker.looks -= 1;
        worker.queue.failed(&hash(0), "no".into(), now);
        (1..=9).for_each(|number| assert!(worker.queue.changed(hash(number))));
        worker.begin(&mut errands, now);
        worker.queue.revive(now);
        worker.begin(&mut errands, now);
        assert!(worker.looks == MAX_AT_ONCE && worker.queue.next_due().is_some_and(|due| due <= now));
        assert!(worker.next_time(now) > now);
    }
}
