//! The one who decides: a thread that owns the writing side of the store.
//!
//! It takes what has arrived, decides one message after the other, commits them together, and only then answers and tells. A crash at any moment
//! loses what was not answered, and nothing else: what has arrived and is waited for is a row of its own until those who waited are decided.

use super::{
    EngineError, Receipt, Received, SubmitError,
    decide::{self, Rules, Turn, Undecided, Verdict},
    desk::{Desk, NEED_BYTES, hash_of_pending, need_key, pending_key},
    digest_log::DigestLog,
    facts,
    rank::Rank,
    ration::Ration,
    rebuild::{self, Step},
    removal::{self, Removal},
    stage::{self, Prepared, SignedMessage},
    turns::Turns,
    wakes::{Wake, Wakes},
    withdraw, worth_asking,
};
use crate::{
    clock::now_ms,
    events::{Event, Events},
    fetch::Fetcher,
    files::{Files, is_away},
    host::{HostError, Plugins, Rejection},
    store::{
        Batch, Changes, Reader as _, Store, StoreError, Walk,
        record::{FileKind, FileRecord, MessageRecord, NeedRecord, PendingRecord, Record as _},
        schema::{Table, end_of, hash_key},
        standing,
    },
};
use ccn_message::{ErrorCode, ItemHash, MessageStatus};
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Most messages of one commit.
const MAX_BATCH: usize = 500;
/// Longest time before a commit; the message at hand is finished.
const MAX_BATCH_TIME: Duration = Duration::from_millis(50);
/// How often a message may be decided anew before everything has come to rest: those whose times contradict their references could go round
/// for ever.
const MAX_AGAIN: u32 = 16;
/// Rows of a table that are looked at in one go.
const PAGE: usize = 200;
/// Messages that waited and are decided before the next look at what has come.
const WAKE_STEP: usize = 16;
/// How long to sleep when there is nothing to do; timers in the store may be due by then.
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// How long to wait before a store that failed is tried again.
const STORE_BACK_OFF: Duration = Duration::from_millis(500);

/// Where an answer goes.
type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// Where the answers for a bulk go.
type BulkReply = oneshot::Sender<Vec<Result<Receipt, SubmitError>>>;

/// Something for the owner to do.
#[derive(Debug)]
pub(super) enum Input {
    /// Decide this message.
    Message { prepared: Box<Prepared>, reply: Reply<Receipt, SubmitError> },
    /// Decide those of a bulk that are not decided yet. The places are free when they are.
    Bulk { messages: Vec<Result<Received, SubmitError>>, places: OwnedSemaphorePermit, reply: BulkReply },
    /// Record this file.
    File { hash: ItemHash, size: u64, kind: FileKind, reply: Reply<(), EngineError> },
    /// Decide those who wait for a plugin of this message type.
    Handler { kind: String, reply: Reply<(), EngineError> },
    /// Keep these rows, about plugins or chains: nobody else writes them meanwhile, and nobody is woken by them.
    Rows { changes: Changes, reply: Reply<(), EngineError> },
    /// Do this, as of a moment, milliseconds since 1970, with messages that nobody can pay for, or can again. Answered is for which it was done.
    Removals { removals: Vec<Removal>, now_ms: u64, reply: Reply<Vec<Removal>, EngineError> },
    /// Delete these keys of the state of a namespace that has no plugin.
    DropState { namespace: String, keys: Vec<Vec<u8>>, reply: Reply<(), EngineError> },
    /// Finish what has begun and end.
    Stop,
}

/// What the owner works with.
pub(super) struct Owner {
    pub(super) store: Store,
    pub(super) files: Files,
    pub(super) plugins: Arc<Plugins>,
    pub(super) fetcher: Fetcher,
    pub(super) events: Events,
    pub(super) settings: crate::config::Pipeline,
    pub(super) ration: Ration,
    pub(super) turns: Turns,
    pub(super) inputs: mpsc::Receiver<Input>,
    /// How often messages were decided anew since the last rest.
    pub(super) again: RefCell<HashMap<ItemHash, u32>>,
    pub(super) digest_log: DigestLog,
    /// When the next timer of the store is due, milliseconds since 1970; none when that is not known.
    pub(super) timer: Option<u64>,
}

/// Answers that wait for a commit.
type Answers<T, E> = Vec<(Reply<T, E>, Result<T, E>)>;

/// What is done after a commit.
#[derive(Default)]
struct After {
    receipts: Answers<Receipt, SubmitError>,
    bulks: Vec<(BulkReply, Vec<Result<Receipt, SubmitError>>)>,
    recorded: Answers<(), EngineError>,
    removed: Answers<Vec<Removal>, EngineError>,
    events: Vec<Event>,
    wanted: Vec<ItemHash>,
    dropped_files: Vec<ItemHash>,
}

/// What came of a commit.
struct Finished {
    is_stored: bool,
    /// The store does nothing any more until it is opened anew.
    is_for_good: bool,
}

impl Owner {
    /// Works until it is told to stop.
    pub(super) fn run(mut self, runtime: &tokio::runtime::Handle) {
        let mut queue: VecDeque<Input> = VecDeque::new();
        // None: they are to be read from the store.
        let mut wakes: Option<Wakes> = None;
        if let Err(error) = self.at_start() {
            tracing::error!("files that were looked for at the last stop are not known: {error}");
        }
        let mut stopping = false;
        let mut is_rebuilding = true;
        loop {
            // What is still to be woken then is woken at the next start.
            let is_at_rest = !is_rebuilding && wakes.as_ref().is_some_and(Wakes::is_empty);
            if queue.is_empty() && (stopping || is_at_rest) {
                self.digest_log.at_rest(&self.store, stopping);
                if stopping {
                    return;
                }
                self.again.borrow_mut().clear();
                let timer = *self
                    .timer
                    .get_or_insert_with(|| next_timer(&self.store, &self.plugins, &self.ration, &self.turns));
                let sleep = Duration::from_millis(timer.saturating_sub(now_ms()));
                let next = runtime.block_on(async { tokio::time::timeout(sleep, self.inputs.recv()).await });
                match next {
                    Ok(None) => return,
                    Ok(Some(input)) => queue.push_back(input),
                    Err(_) => {}
                }
            }
            let (stop, step) = self.work(&mut queue, &mut wakes, stopping);
            stopping |= stop;
            is_rebuilding = !matches!(step, Step::Idle);
            self.switch(step);
        }
    }

    /// Files that are still missing are looked for again.
    fn at_start(&self) -> Result<(), StoreError> {
        let snapshot = self.store.snapshot()?;
        for row in Walk::new(&snapshot, Table::Pending, (Vec::new(), end_of(&[])), false, PAGE) {
            for need in PendingRecord::read(&row?.1)?.needs {
                if let NeedRecord::File(file) = need
                    && let Ok(file) = ItemHash::parse(&file)
                {
                    self.fetcher.want(&file);
                }
            }
        }
        Ok(())
    }

    /// What is stored of a state that was made anew is so for its plugin, too.
    fn switch(&self, step: Step) {
        if let Step::Done(plugin) = step
            && self.plugins.switch_to(&plugin)
        {
            tracing::info!("the state of the plugin {} is made anew, and it is active", plugin.manifest().name);
        }
    }

    /// Decides a batch and commits it. True when it is time to stop, and what came of making a state anew.
    fn work(&mut self, queue: &mut VecDeque<Input>, wakes: &mut Option<Wakes>, stopping: bool) -> (bool, Step) {
        let mut begin = || {
            let snapshot = self.store.snapshot()?;
            let passes = match wakes.take() {
                Some(wakes) => wakes,
                None => {
                    let mut wakes = Wakes::default();
                    for (need, _) in snapshot.prefixed(Table::Wakes, &[])? {
                        wakes.arrived(need);
                    }
                    wakes
                }
            };
            Ok::<_, StoreError>((snapshot, passes))
        };
        let (snapshot, mut passes) = match begin() {
            Ok(begun) => begun,
            Err(error) => {
                fail_all(queue, &error);
                std::thread::sleep(STORE_BACK_OFF);
                // Whoever watches the process starts it anew, and with it the store.
                return (error.is_for_good(), Step::On);
            }
        };
        let mut desk = Desk::new(Batch::new(snapshot), self.ration);
        let mut after = After::default();
        let mut stop = stopping;
        let rules = Rules {
            now: now_ms(),
            horizon: self.settings.horizon_seconds.saturating_mul(1000),
            max_waiting: self.settings.max_waiting,
            max_unhandled: (self.settings.max_unhandled, self.settings.unhandled_mib << 20),
            grace: self.settings.grace_seconds.saturating_mul(1000),
        };
        let mut decided = 0;
        // What has come while the last batch was decided waits: it is not quiet, however long that took.
        if !(queue.is_empty() && self.inputs.is_empty()) {
            self.turns.came(Instant::now());
        }
        // Looking at all timers takes as long as deciding a message: it is done when one may be due.
        if self.timer.is_none_or(|at| at <= rules.now) {
            self.timer = None;
            self.timers(&mut desk, rules.now, &mut after);
            if !stopping {
                self.take_turn(&mut desk, &rules, &mut after);
                self.take_plugin_turns(&mut desk, &rules, &mut after);
            }
        }
        // A turn that took long takes nothing from those who come anew.
        let started = Instant::now();
        while decided < MAX_BATCH && started.elapsed() < MAX_BATCH_TIME {
            let input = queue.pop_front().or_else(|| self.inputs.try_recv().ok());
            // Those who wait may be many, and made to be: who comes anew has as many turns as they.
            let most = match &input {
                Some(Input::Bulk { messages, .. }) => messages.len(),
                Some(_) => 1,
                None => WAKE_STEP,
            };
            match input {
                Some(Input::Stop) => stop = true,
                Some(Input::Message { prepared, reply }) => {
                    self.turns.came(Instant::now());
                    let receipt = self.message(&mut desk, &rules, *prepared, &mut after);
                    after.receipts.push((reply, receipt));
                }
                Some(Input::Bulk { messages, places: _places, reply }) => {
                    self.turns.came(Instant::now());
                    decided += messages.len();
                    let decide = |received| match received? {
                        Received::Known(receipt) => Ok(receipt),
                        Received::New(prepared) => self.message(&mut desk, &rules, *prepared, &mut after),
                    };
                    let receipts = messages.into_iter().map(decide).collect();
                    after.bulks.push((reply, receipts));
                }
                Some(Input::File { hash, size, kind, reply }) => {
                    let result = self.file(&mut desk, rules.now, &hash, size, kind);
                    after.recorded.push((reply, result));
                }
                Some(Input::Handler { kind, reply }) => {
                    // Those who waited for the plugin's turn have one again.
                    self.timer = None;
                    let result = desk.arrived(&NeedRecord::Handler(kind)).map_err(EngineError::from);
                    desk.keep();
                    after.recorded.push((reply, result));
                }
                Some(Input::Rows { changes, reply }) => {
                    desk.apply(changes);
                    desk.keep();
                    after.recorded.push((reply, Ok(())));
                }
                Some(Input::Removals { removals, now_ms, reply }) => {
                    decided += removals.len();
                    let done = self.remove(&mut desk, removals, now_ms);
                    after.removed.push((reply, done));
                }
                Some(Input::DropState { namespace, keys, reply }) => {
                    let writes = keys.into_iter().map(|key| (key, None)).collect();
                    let result = desk.write_state(&namespace, writes).map_err(EngineError::from);
                    desk.keep();
                    after.recorded.push((reply, result));
                }
                None if stop || passes.is_empty() => break,
                None => {}
            }
            decided += 1;
            if !stop && let Some(wake) = passes.next() {
                decided += self.wake(&mut desk, &rules, wake, most, &mut after, &mut passes);
            }
            desk.take_woken().into_iter().for_each(|need| passes.arrived(need));
        }
        let step = if stop { Step::Idle } else { self.rebuild(&mut desk) };
        desk.take_woken().into_iter().for_each(|need| passes.arrived(need));
        self.ration = desk.ration;
        if concerns_timers(desk.read().changes()) {
            self.timer = None;
        }
        // What a commit that failed had dealt with is dealt with again.
        let Finished { is_stored, is_for_good } = self.finish(&desk, after);
        *wakes = is_stored.then_some(passes);
        // Whoever watches the process starts it anew, and with it the store.
        (stop || is_for_good, if is_stored { step } else { Step::On })
    }

    /// Goes on making a state anew.
    fn rebuild(&self, desk: &mut Desk) -> Step {
        match rebuild::step(desk, &self.plugins) {
            Ok(step) => {
                desk.keep();
                // Before anybody can see the half of it.
                if let Step::Hold(plugin) = &step {
                    self.plugins.hold(plugin.manifest().namespace());
                }
                step
            }
            Err(error) => {
                tracing::error!("a state is not made anew: {error}");
                desk.drop_current();
                Step::Idle
            }
        }
    }

    /// Commits, then answers and tells.
    fn finish(&self, desk: &Desk, after: After) -> Finished {
        let changes = desk.read().changes();
        if !changes.is_empty()
            && let Err(error) = self.store.commit(changes)
        {
            tracing::error!("nothing is stored: {error}");
            for (reply, _) in after.receipts {
                let _ = reply.send(Err(EngineError::Store(error.to_string()).into()));
            }
            for (reply, receipts) in after.bulks {
                // What was decided earlier, or is no message, stays so; a receipt is worth nothing.
                let failed =
                    |receipt: Result<_, _>| receipt.and_then(|_| Err(EngineError::Store(error.to_string()).into()));
                let _ = reply.send(receipts.into_iter().map(failed).collect());
            }
            for (reply, _) in after.recorded {
                let _ = reply.send(Err(EngineError::Store(error.to_string())));
            }
            for (reply, _) in after.removed {
                let _ = reply.send(Err(EngineError::Store(error.to_string())));
            }
            std::thread::sleep(STORE_BACK_OFF);
            return Finished { is_stored: false, is_for_good: error.is_for_good() };
        }
        for file in &after.dropped_files {
            if let Err(error) = self.files.remove(file) {
                tracing::warn!("{file} stays in the folder of files: {error}");
            }
        }
        self.events.files().tell(changes);
        // Events go first: who waits for one by name has subscribed before, who has the receipt may look at the websocket.
        for event in after.events {
            self.events.tell(event);
        }
        for (reply, receipt) in after.receipts {
            let _ = reply.send(receipt);
        }
        for (reply, receipts) in after.bulks {
            let _ = reply.send(receipts);
        }
        for (reply, result) in after.recorded {
            let _ = reply.send(result);
        }
        for (reply, result) in after.removed {
            let _ = reply.send(result);
        }
        for file in &after.wanted {
            self.fetcher.want(file);
        }
        Finished { is_stored: true, is_for_good: false }
    }

    /// Announces, recovers or removes messages. Returns those with which that was done.
    fn remove(&self, desk: &mut Desk, removals: Vec<Removal>, now_ms: u64) -> Result<Vec<Removal>, EngineError> {
        let mut done = Vec::new();
        for removal in removals {
            match removal::apply(desk, &removal, now_ms) {
                Ok(true) => {
                    desk.keep();
                    done.push(removal);
                }
                Ok(false) => desk.drop_current(),
                Err(error) => {
                    desk.drop_current();
                    return Err(error.into());
                }
            }
        }
        Ok(done)
    }

    fn message(
        &self,
        desk: &mut Desk,
        rules: &Rules,
        prepared: Prepared,
        after: &mut After,
    ) -> Result<Receipt, SubmitError> {
        // The content may have come meanwhile.
        let prepared = match prepared {
            Prepared::Lacking(signed) => self.prepare(desk, signed)?,
            other => other,
        };
        let envelope = prepared.envelope().clone();
        let hash = envelope.item_hash.clone();
        let waiting = desk.read().get(Table::Pending, &pending_key(&envelope)).map_err(EngineError::from)?;
        let waiting = waiting.and_then(|row| PendingRecord::read(&row).ok());
        // The same copy again does not prolong its waiting; one that was given up starts afresh.
        let horizon = waiting.as_ref().and_then(|record| record.horizon);
        let horizon = horizon.unwrap_or(rules.now.saturating_add(rules.horizon));
        let rank = Rank::of_envelope(&envelope);
        let turn = Turn {
            reception_time: rules.now,
            horizon: Some(horizon),
            settled: false,
            has_waited: false,
            is_its_time: false,
            rank,
        };
        // What relays alter (time, channel) does not take the place of what waits, nor of what was refused unless it is accepted itself.
        let verdict = match waiting.filter(|record| record.envelope != (&envelope).into()) {
            None => self.turn(desk, rules, turn, prepared, after)?,
            Some(first) if decide::waits(&first) => self.first_again(desk, rules, turn, first, after)?,
            Some(first) => {
                let verdict = self.turn(desk, rules, turn, prepared, after)?;
                if !matches!(verdict, Verdict::Processed(_) | Verdict::Stands(_) | Verdict::Forgotten) {
                    self.first_again(desk, rules, turn, first, after)?;
                }
                verdict
            }
        };
        let rejection = match &verdict {
            Verdict::Crowded => return Err(SubmitError::Overloaded),
            Verdict::Rejected(rejection) => Some(rejection.clone()),
            Verdict::Processed(_) | Verdict::Stands(_) | Verdict::Pending { .. } | Verdict::Forgotten => None,
        };
        Ok(Receipt { item_hash: hash, status: verdict.status(), rejection })
    }

    /// Has a message looked at by its plugin, with the content that is here now.
    fn prepare(&self, desk: &Desk, signed: SignedMessage) -> Result<Prepared, EngineError> {
        let files = worth_asking(&self.files, desk.read(), signed.envelope())?;
        let prepared = stage::prepare(signed, files, &self.plugins);
        prepared.map_err(|error| EngineError::Store(error.to_string()))
    }

    /// Decides a message as it came first, when it has come again with something else that nobody signs.
    fn first_again(
        &self,
        desk: &mut Desk,
        rules: &Rules,
        turn: Turn,
        first: PendingRecord,
        after: &mut After,
    ) -> Result<Verdict, EngineError> {
        let PendingRecord { envelope, reception_time, settled, .. } = first;
        let envelope = envelope.envelope().map_err(StoreError::from)?;
        let prepared = self.prepare(desk, SignedMessage::known(envelope))?;
        let turn = Turn { reception_time, settled, has_waited: true, ..turn };
        self.turn(desk, rules, turn, prepared, after)
    }

    /// Decides, and keeps or drops what that changed.
    fn turn(
        &self,
        desk: &mut Desk,
        rules: &Rules,
        turn: Turn,
        prepared: Prepared,
        after: &mut After,
    ) -> Result<Verdict, EngineError> {
        let envelope = prepared.envelope().clone();
        // It may have been prepared by a plugin that has been replaced since, or for want of one that has come.
        let prepared = if self.is_outdated(&prepared) {
            self.prepare(desk, SignedMessage::known(envelope.clone()))?
        } else {
            prepared
        };
        let verdict = match decide::decide(desk, &self.plugins, rules, turn, prepared) {
            Ok(verdict) => verdict,
            Err(Undecided::Store(error) | Undecided::Plugin { error: HostError::Store(error), .. }) => {
                desk.drop_current();
                return Err(error.into());
            }
            Err(Undecided::Plugin { error: error @ HostError::Suspended { .. }, .. }) => {
                let kept = decide::unhandled(desk, rules, turn, &envelope, &error.to_string());
                kept.map_err(|error| EngineError::Store(error.to_string()))?
            }
            // The node's own trouble is no verdict: another moment may be better.
            Err(Undecided::Plugin { plugin, error: HostError::Node { reason, .. } })
                if self.turns.may_retry(&pending_key(&envelope)) =>
            {
                tracing::warn!("message {} has another turn: {plugin}: {reason}", envelope.item_hash);
                let deferred = decide::defer(desk, rules, turn, &envelope, &plugin);
                deferred.map_err(|error| EngineError::Store(error.to_string()))?
            }
            Err(Undecided::Plugin { plugin, error }) => {
                tracing::error!("message {} is put aside: {error}", envelope.item_hash);
                let rejection = Rejection::sentence(ErrorCode::Internal.number(), &error.to_string());
                let put_aside = decide::refuse(desk, &envelope, turn, rejection);
                let put_aside = put_aside.map_err(|error| EngineError::Store(error.to_string()))?;
                let sha256 = self.plugins.named(&plugin).map(|plugin| plugin.sha256().to_owned()).unwrap_or_default();
                desk.quarantine(&envelope, (&plugin, &sha256), &error, turn.reception_time);
                put_aside
            }
        };
        desk.keep();
        if !matches!(verdict, Verdict::Pending { .. }) {
            self.turns.done(|| pending_key(&envelope));
        }
        if let Verdict::Pending { files } = &verdict {
            after.wanted.extend(files.iter().cloned());
        }
        // What becomes of another copy is no news of a message that stands.
        let is_news = match &verdict {
            Verdict::Pending { .. } | Verdict::Rejected(_) => !desk.is_present(&envelope.item_hash)?,
            Verdict::Processed(_) | Verdict::Stands(_) | Verdict::Forgotten | Verdict::Crowded => true,
        };
        after.events.extend(verdict.event(&envelope.item_hash).filter(|_| is_news));
        Ok(verdict)
    }

    /// True when the plugin that looked at a message is not the one that is active for it now.
    fn is_outdated(&self, prepared: &Prepared) -> bool {
        let active = self.plugins.for_kind(&prepared.envelope().kind);
        match (prepared, active) {
            (Prepared::Valid(message), Some(active)) => !Arc::ptr_eq(&message.plugin, &active),
            (Prepared::Valid(_), None) | (Prepared::Unhandled { .. }, Some(_)) => true,
            _ => false,
        }
    }

    fn file(
        &self,
        desk: &mut Desk,
        now: u64,
        hash: &ItemHash,
        size_said: u64,
        kind: FileKind,
    ) -> Result<(), EngineError> {
        // It may have been removed between its arrival and its turn.
        let size = match kind {
            FileKind::File => self.files.size(hash),
            FileKind::Directory => self.files.has_archive(hash).map(|is_here| is_here.then_some(size_said)),
        };
        let size = match size {
            // Whoever brings it has just seen it there.
            Err(error) if is_away(&error) => Some(size_said),
            size => size.map_err(|error| EngineError::Store(error.to_string()))?,
        };
        let size = size.ok_or_else(|| EngineError::NoSuchFile(hash.clone()))?;
        match desk.add_file(hash, size, kind, now.saturating_add(self.settings.grace_seconds.saturating_mul(1000))) {
            Ok(is_new) => {
                if !is_new && self.files.is_far() {
                    // It could not be had while the object store was away.
                    desk.arrived(&NeedRecord::File(hash.to_string()))?;
                }
                desk.keep();
                Ok(())
            }
            Err(error) => {
                desk.drop_current();
                Err(error.into())
            }
        }
    }

    /// Decides some of those who waited for a need that has arrived. Returns how many.
    fn wake(
        &self,
        desk: &mut Desk,
        rules: &Rules,
        wake: Wake,
        most: usize,
        after: &mut After,
        passes: &mut Wakes,
    ) -> usize {
        let need = wake.need.clone();
        let rows = match desk.read().range(Table::Needs, &wake.from, &end_of(&need), most, false) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!("those who wait cannot be read: {error}");
                passes.end(wake);
                return 0;
            }
        };
        let last = rows.last().filter(|_| rows.len() == most).map(|(row, _)| row.clone());
        let count = rows.len();
        for (row, _) in rows {
            let key = row[NEED_BYTES..].to_vec();
            if let Err(error) = self.wake_one(desk, rules, &need, &key, after) {
                tracing::error!("a message that waited is not decided: {error}");
                desk.drop_current();
                // It would be met again and again; its own row stays for whoever repairs the store.
                desk.edit().delete(Table::Needs, row);
                desk.keep();
            }
        }
        // What they made arrive may be what they waited for.
        desk.take_woken().into_iter().for_each(|need| passes.arrived(need));
        match last {
            Some(last) => passes.go_on(Wake { from: [last.as_slice(), &[0]].concat(), ..wake }),
            None => {
                if passes.end(wake) {
                    desk.edit().delete(Table::Wakes, need);
                    desk.keep();
                }
            }
        }
        count
    }

    fn wake_one(
        &self,
        desk: &mut Desk,
        rules: &Rules,
        need: &[u8],
        key: &[u8],
        after: &mut After,
    ) -> Result<(), EngineError> {
        let Some(row) = desk.read().get(Table::Pending, key)? else { return self.look_again(desk, rules, need, key) };
        let mut record = PendingRecord::read(&row).map_err(StoreError::from)?;
        let lacked = record.needs.len();
        let is_turn = |need: &NeedRecord| matches!(need, NeedRecord::PluginTurn(_));
        let is_its_time = record.needs.iter().any(|each| is_turn(each) && need_key(each) == need);
        record.needs.retain(|each| need_key(each) != need);
        // Something that it was decided on otherwise has changed: then it is decided again, whatever it still lacks.
        let lacks_others = record.needs.len() < lacked && !record.needs.is_empty();
        if lacks_others {
            desk.edit().delete(Table::Needs, [need, key].concat());
            desk.edit().put(Table::Pending, key.to_vec(), record.to_bytes());
            desk.keep();
            return Ok(());
        }
        let Some((signed, mut turn)) = decide::resume(desk, rules, key)? else { return Ok(()) };
        turn.is_its_time = is_its_time;
        let prepared = self.prepare(desk, signed)?;
        self.turn(desk, rules, turn, prepared, after)?;
        Ok(())
    }

    /// Decides one of those who wait for each plugin that has time again.
    fn take_plugin_turns(&self, desk: &mut Desk, rules: &Rules, after: &mut After) {
        for plugin in self.plugins.all() {
            let need = need_key(&NeedRecord::PluginTurn(plugin.manifest().name.clone()));
            let decided = desk.read().range(Table::Needs, &need, &end_of(&need), 1, false);
            let decided = decided.map_err(EngineError::from).and_then(|rows| match rows.first() {
                Some((row, _)) => {
                    if self.turns.is_quiet(Instant::now()) {
                        plugin.forgive();
                    }
                    // Where it is suspended meanwhile, they wait as unhandled.
                    if plugin.suspended().is_some() || plugin.may_run() {
                        self.wake_one(desk, rules, &need, &row[NEED_BYTES..], after)
                    } else {
                        Ok(())
                    }
                }
                None => Ok(()),
            });
            if let Err(error) = decided {
                tracing::error!("a message that waited for its plugin is not decided: {error}");
                desk.drop_current();
            }
        }
    }

    /// Counts a message's new decision. False when it had enough of them since the last rest.
    fn may_turn_again(&self, hash: &ItemHash) -> bool {
        let mut again = self.again.borrow_mut();
        let count = again.entry(hash.clone()).or_default();
        *count += 1;
        *count <= MAX_AGAIN
    }

    /// Something has changed that a decided message rests on: if it is not as it was, the message is decided anew.
    fn look_again(&self, desk: &mut Desk, rules: &Rules, need: &[u8], key: &[u8]) -> Result<(), EngineError> {
        let failed = |error: Undecided| EngineError::Store(error.to_string());
        let hash = hash_of_pending(key);
        let standing = hash.as_ref().map(|hash| desk.read().message(hash)).transpose()?.flatten();
        let hidden = hash.as_ref().map(|hash| standing::forgotten(desk.read(), hash)).transpose()?.flatten();
        let is_hidden = standing.is_none() && hidden.is_some();
        // Another copy than the one that stands has its own rows.
        let message = standing.or(hidden.map(|record| record.message)).filter(|message| is_keyed_by(message, key));
        let (Some(hash), Some(message)) = (hash, message) else {
            desk.edit().delete(Table::Needs, [need, key].concat());
            desk.keep();
            return Ok(());
        };
        if rebuild::is_rebuilt(need, &self.plugins, &message.envelope.kind) {
            // A hidden one is decided anew should it come back.
            if !is_hidden {
                withdraw::void(desk, &self.plugins, rules, &hash).map_err(failed)?;
            }
            desk.keep();
            return Ok(());
        }
        let mut basis = desk.basis(key)?.unwrap_or_default();
        let now = facts::as_of_now(desk.read(), &hash, &message, &basis.facts)?;
        if now != basis.facts {
            let same = facts::differ_in_state_alone(&basis.facts, &now)
                && withdraw::has_same_outcome(desk, &self.plugins, &hash, &message, &basis).map_err(failed)?;
            if same {
                basis.facts = now;
                desk.put_basis(key, &hash, &basis);
            } else if !self.may_turn_again(&hash) {
                tracing::warn!(
                    "{hash} was decided anew {MAX_AGAIN} times without coming to rest, and is left as it is"
                );
            } else {
                tracing::debug!("{hash} is decided anew");
                withdraw::void(desk, &self.plugins, rules, &hash).map_err(failed)?;
            }
        } else if is_hidden && need == need_key(&NeedRecord::Recheck(hash.to_string())) {
            withdraw::recheck(desk, &self.plugins, rules, &hash).map_err(failed)?;
        }
        desk.keep();
        Ok(())
    }

    /// Decides one of those who wait for time, when there is some.
    fn take_turn(&self, desk: &mut Desk, rules: &Rules, after: &mut After) {
        if !desk.ration.may_begin(Instant::now()) {
            return;
        }
        let need = need_key(&NeedRecord::Turn);
        let decided = desk.read().range(Table::Needs, &need, &end_of(&need), 1, false);
        let decided = decided.map_err(EngineError::from).and_then(|rows| match rows.first() {
            Some((row, _)) => self.wake_one(desk, rules, &need, &row[NEED_BYTES..], after),
            None => Ok(()),
        });
        if let Err(error) = decided {
            tracing::error!("a movement of credits that waited is not decided: {error}");
            desk.drop_current();
        }
    }

    /// What is due: messages that have waited long enough, files that nobody keeps.
    fn timers(&self, desk: &mut Desk, now: u64, after: &mut After) {
        let until = (now + 1).to_be_bytes();
        let due = |desk: &Desk, table| desk.read().range(table, &[], &until, PAGE, false);
        let horizon = due(desk, Table::Horizon).and_then(|rows| {
            for (row, _) in rows {
                let key = row[8..].to_vec();
                if let Some(hash) = decide::give_up(desk, &key, row)? {
                    after.events.push(Event::Verdict { item_hash: hash, status: MessageStatus::Rejected });
                }
                desk.keep();
            }
            Ok(())
        });
        let grace = due(desk, Table::Grace).and_then(|rows| {
            for (row, _) in rows {
                let hash = hash_of_pending(&row[8..]);
                desk.edit().delete(Table::Grace, row.clone());
                if let Some(hash) = hash
                    && let Some(file) = desk.read().file(&hash)?
                    && is_due(&file, &row)
                {
                    desk.edit().delete(Table::Files, hash_key(&hash));
                    after.dropped_files.push(hash);
                }
                desk.keep();
            }
            Ok::<_, StoreError>(())
        });
        let purge = due(desk, Table::Purge).and_then(|rows| {
            for (row, _) in rows {
                desk.edit().delete(Table::Purge, row.clone());
                if let Some(hash) = hash_of_pending(&row[8..])
                    && let Some(mut record) = standing::forgotten(desk.read(), &hash)?
                {
                    record.purged = true;
                    record.message.drop_content();
                    desk.edit().put(Table::Forgotten, hash_key(&hash), record.to_bytes());
                    // It cannot fall any more: nothing comes after it.
                    for (key, _) in desk.pending_of(&hash)? {
                        decide::let_go(desk, &key)?;
                    }
                }
                desk.keep();
            }
            Ok::<_, StoreError>(())
        });
        if let Err(error) = horizon.and(grace).and(purge) {
            tracing::error!("what is due cannot be done: {error}");
            desk.drop_current();
        }
    }
}

/// True when that is the key of the very copy.
fn is_keyed_by(message: &MessageRecord, key: &[u8]) -> bool {
    message.envelope.clone().envelope().is_ok_and(|envelope| pending_key(&envelope) == key)
}

/// When the next timer of the store is due, milliseconds since 1970.
fn next_timer(store: &Store, plugins: &Plugins, ration: &Ration, turns: &Turns) -> u64 {
    let in_a_while = |wait: Duration| now_ms().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let next = || {
        let snapshot = store.snapshot()?;
        let mut next = u64::MAX;
        for table in [Table::Horizon, Table::Grace, Table::Purge] {
            let first = snapshot.range(table, &[], &end_of(&[]), 1, false)?;
            let at = first.first().and_then(|(key, _)| timer_of(key));
            next = next.min(at.unwrap_or(u64::MAX));
        }
        let turn = need_key(&NeedRecord::Turn);
        if !snapshot.range(Table::Needs, &turn, &end_of(&turn), 1, false)?.is_empty() {
            next = next.min(in_a_while(ration.wait()));
        }
        for plugin in plugins.all() {
            let turn = need_key(&NeedRecord::PluginTurn(plugin.manifest().name.clone()));
            if !snapshot.range(Table::Needs, &turn, &end_of(&turn), 1, false)?.is_empty() {
                next = next.min(in_a_while(plugin.wait().min(turns.until_quiet(Instant::now()))));
            }
        }
        // The plugin of a message that waits for its turn may be back by then.
        Ok::<_, StoreError>(next.min(in_a_while(MAX_SLEEP)))
    };
    next().unwrap_or_else(|error| {
        tracing::error!("timers cannot be read: {error}");
        in_a_while(STORE_BACK_OFF)
    })
}

/// True for changes of tables that timers are read from.
fn concerns_timers(changes: &Changes) -> bool {
    [Table::Needs, Table::Horizon, Table::Grace, Table::Purge]
        .iter()
        .any(|table| changes.range((*table, Vec::new())..).next().is_some_and(|((found, _), _)| found == table))
}

/// True when it is this row that ends the grace of a file, and nobody keeps it.
fn is_due(file: &FileRecord, row: &[u8]) -> bool {
    file.pins == 0 && file.grace.is_some() && file.grace == timer_of(row)
}

/// The moment at the front of a key, milliseconds since 1970.
fn timer_of(key: &[u8]) -> Option<u64> {
    key.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

fn fail_all(queue: &mut VecDeque<Input>, error: &StoreError) {
    tracing::error!("the store cannot be read: {error}");
    for input in queue.drain(..) {
        match input {
            Input::Message { reply, .. } => {
                let _ = reply.send(Err(EngineError::Store(error.to_string()).into()));
            }
            Input::Bulk { messages, reply, .. } => {
                let failed = |_| Err(EngineError::Store(error.to_string()).into());
                let _ = reply.send(messages.into_iter().map(failed).collect());
            }
            Input::Removals { reply, .. } => {
                let _ = reply.send(Err(EngineError::Store(error.to_string())));
            }
            Input::File { reply, .. }
            | Input::Handler { reply, .. }
            | Input::Rows { reply, .. }
            | Input::DropState { reply, .. } => {
                let _ = reply.send(Err(EngineError::Store(error.to_string())));
            }
            Input::Stop => {}
        }
    }
}
