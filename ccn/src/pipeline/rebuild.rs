//! Making the state of a plugin anew from the messages that are stored, beside the one that serves.
//!
//! A version with another layout of its state cannot read what the version before it wrote; and a state out of which a message could not be taken is
//! wrong. Both are mended by playing every message of the plugin's types to it once more, in the order of their times. What it writes goes into a
//! table of its own; the old version decides and answers meanwhile. When all is in, one commit puts the new state in the place of the old one.
//!
//! It goes on in steps of the one who decides, each in a commit with the row that says how far it has come: a crash costs a step at most. Between
//! them messages come and go. So of every message it is known whether the new state has it in: one that stands, when the cursor has passed it; one
//! that is hidden, when that cursor has. What happens to a message that is not in yet is met by the cursor; what happens to one that is in
//! happens to both states ([`accepted`], [`withdrawn`]).
//!
//! ```text
//!  Clearing ──> Hidden ──> Standing ──> Again ──> Emptying ──> Moving ──> active; those of whom it says something else are decided anew
//!  left over    played,    played       refused     └── in one commit where they are few ──┘
//!               taken out               ones again
//! ```
//!
//! What cannot be made anew: messages whose content was deleted after they were forgotten, and those that the version before had refused.

mod beside;
mod effects;

use super::{
    desk::{Desk, NEED_BYTES, hash_of_pending, need_key, pending_key},
    facts::Asking,
};
use crate::{
    host::{Effects, HostError, Outcome, Plan, Plugin, Plugins, Withdrawal, Write, contract_message, state_key},
    store::{
        Reader, Row, StoreError,
        record::{
            ForgottenRecord, MessageRecord, NamespaceRecord, NeedRecord, RebuildRecord, RebuildStage, Record as _,
        },
        schema::{INDEX_SUFFIX_BYTES, IndexId, Key, Table, end_of, hash_key, index_prefix, index_suffix},
        standing::Position,
    },
};
use beside::Beside;
use ccn_message::ItemHash;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// Time of a step; the message at hand is finished. What comes meanwhile waits no longer than that, and has several times as much after it.
const STEP_TIME: Duration = Duration::from_millis(10);
/// Rows that are read in one go.
const PAGE: usize = 100;
/// Rows that are deleted or moved in one commit, and their bytes: a state that is not larger is switched at once.
const MAX_MOVED_ROWS: usize = 100_000;
const MAX_MOVED_BYTES: usize = 64 << 20;
/// Passes over messages that the new version did not accept at first. Each brings in one at least, or is the last.
const MAX_PASSES: u32 = 16;
/// Bytes at the end of a key of `index` that put messages in the order of their times: all but the sequence number.
const PLACE_BYTES: usize = INDEX_SUFFIX_BYTES - 8;
/// So many messages are a line in the log.
const TOLD_EVERY: u64 = 10_000;

/// What a step came to. The plugins are switched when it is stored.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing is to be done, or nothing can be.
    Idle,
    /// More is to be done.
    On,
    /// The old state is being taken away: its plugin must not be called any more.
    Hold(Arc<Plugin>),
    /// The new state is in its place, for this plugin.
    Done(Arc<Plugin>),
}

/// What the new state has of a message on which the new version does not say what the old one did: a value in `needs`, under
/// [`NeedRecord::Rebuilt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// Nothing: the new version does not accept it. It is decided anew after the switch.
    Out,
    /// Its part; other effects are different. It is decided anew after the switch.
    Different,
    /// Nothing, and it is hidden: it is decided anew should it ever come back.
    Hidden,
}

impl Odd {
    fn value(self) -> Vec<u8> {
        vec![self as u8]
    }

    fn read(value: &[u8]) -> Self {
        match value {
            [0] => Self::Out,
            [1] => Self::Different,
            _ => Self::Hidden,
        }
    }
}

/// How far the state of a namespace is made anew, if it is or has to be.
pub(crate) fn progress(reader: &dyn Reader, namespace: &str) -> Result<Option<RebuildRecord>, StoreError> {
    let row = reader.get(Table::Rebuilds, &namespace_key(namespace))?;
    Ok(row.map(|row| RebuildRecord::read(&row)).transpose()?)
}

/// The key of a namespace, in `namespaces` and in `rebuilds`.
pub(crate) fn namespace_key(namespace: &str) -> Vec<u8> {
    Key::new().text(namespace).done()
}

/// The state of a namespace is wrong: it has to be made anew as soon as there is a plugin for it.
pub(super) fn want(desk: &mut Desk, namespace: &str) -> Result<(), StoreError> {
    if progress(desk.read(), namespace)?.is_none() {
        tracing::warn!("the state `{namespace}` has to be made anew from its messages");
        desk.edit().put(Table::Rebuilds, namespace_key(namespace), RebuildRecord::wanted().to_bytes());
    }
    Ok(())
}

/// The same of whichever namespace holds what messages of a type say; none does when there never was a plugin for it.
pub(super) fn want_for(desk: &mut Desk, kind: &str) -> Result<(), StoreError> {
    for (_, row) in desk.read().prefixed(Table::Namespaces, &[])? {
        let found = NamespaceRecord::read(&row)?;
        if found.types.iter().any(|each| each == kind) {
            want(desk, &found.namespace)?;
        }
    }
    Ok(())
}

/// True for a need by which messages are decided anew after a switch.
pub(super) fn is_rebuilt(need: &[u8], plugins: &Plugins, kind: &str) -> bool {
    plugins.for_kind(kind).is_some_and(|plugin| need == odd_prefix(plugin.manifest().namespace()))
}

/// True when the state of a message's type, as it is after a switch, has nothing of that message: then there is nothing to take out of it.
pub(super) fn take_odd(desk: &mut Desk, namespace: &str, message: &MessageRecord) -> Result<bool, StoreError> {
    let key = odd_key(namespace, message)?;
    let odd = desk.read().get(Table::Needs, &key)?.map(|value| Odd::read(&value));
    if odd.is_some() {
        desk.edit().delete(Table::Needs, key);
    }
    Ok(matches!(odd, Some(Odd::Out | Odd::Hidden)))
}

/// Goes on for a moment.
pub(super) fn step(desk: &mut Desk, plugins: &Plugins) -> Result<Step, StoreError> {
    for plugin in plugins.rebuilding() {
        if plugin.suspended().is_some() {
            continue;
        }
        let Some(mut rebuild) = Rebuild::of(desk, &plugin)? else { continue };
        let step = rebuild.go(Instant::now())?;
        let shown = rebuild.told()?;
        rebuild.put();
        plugins.say_progress(&plugin, shown);
        return Ok(step);
    }
    Ok(Step::Idle)
}

/// A message is accepted, by the version that serves.
pub(super) fn accepted(
    desk: &mut Desk,
    plugins: &Plugins,
    hash: &ItemHash,
    message: &MessageRecord,
) -> Result<(), StoreError> {
    let Some(plugin) = plugins.rebuilding_for(&message.envelope.kind) else { return Ok(()) };
    let Some(mut rebuild) = Rebuild::of(desk, &plugin)? else { return Ok(()) };
    if rebuild.is_moving() {
        rebuild.record.is_wrong = true;
        rebuild.put();
    } else if rebuild.has_standing(hash, message) {
        rebuild.play(hash, message)?;
    }
    Ok(())
}

/// A message is taken out: of its place among those that stand, or of that among the hidden ones.
pub(super) fn withdrawn(
    desk: &mut Desk,
    plugin: &Arc<Plugin>,
    hash: &ItemHash,
    message: &MessageRecord,
    why: Withdrawal,
    was_hidden: bool,
) -> Result<(), StoreError> {
    let Some(mut rebuild) = Rebuild::of(desk, plugin)? else { return Ok(()) };
    if rebuild.is_moving() {
        rebuild.record.is_wrong = true;
        rebuild.put();
        return Ok(());
    }
    let is_in = if was_hidden { rebuild.has_hidden(hash) } else { rebuild.has_standing(hash, message) };
    let is_out = take_odd(rebuild.desk, &rebuild.namespace, message)?;
    match why {
        Withdrawal::Forgotten if is_in && is_out => rebuild.note(message, Some(Odd::Hidden))?,
        Withdrawal::Forgotten if !is_in && rebuild.has_hidden(hash) => rebuild.play_hidden(hash, message)?,
        Withdrawal::Forgotten | Withdrawal::Void if is_in && !is_out => {
            if let Err(error) = rebuild.take_out(hash, message, why)? {
                tracing::error!(
                    "{hash} cannot be taken out of the state that is being made anew, which begins again: {error}"
                );
                rebuild.record = RebuildRecord::begun(plugin.sha256());
                rebuild.put();
            }
        }
        Withdrawal::Forgotten | Withdrawal::Void => {}
    }
    Ok(())
}

/// The rows of `needs` of messages on which the new version says something else.
fn odd_prefix(namespace: &str) -> Vec<u8> {
    need_key(&NeedRecord::Rebuilt(namespace.to_owned()))
}

fn odd_key(namespace: &str, message: &MessageRecord) -> Result<Vec<u8>, StoreError> {
    let pending = pending_key(&message.envelope.clone().envelope()?);
    Ok([odd_prefix(namespace), pending].concat())
}

/// The first key after all that begin with a cursor; the first of all without one.
fn after(cursor: &[u8]) -> Vec<u8> {
    if cursor.is_empty() { Vec::new() } else { end_of(cursor) }
}

/// Where a message is in the order of replaying.
fn place_of(hash: &ItemHash, message: &MessageRecord) -> [u8; PLACE_BYTES] {
    let suffix = index_suffix(message.envelope.time, hash, 0);
    std::array::from_fn(|place| suffix[place])
}

/// One state that is made anew, in the layer of the current message.
struct Rebuild<'a> {
    desk: &'a mut Desk,
    plugin: &'a Arc<Plugin>,
    namespace: String,
    record: RebuildRecord,
}

impl<'a> Rebuild<'a> {
    /// None when it is not begun for this plugin.
    fn of(desk: &'a mut Desk, plugin: &'a Arc<Plugin>) -> Result<Option<Self>, StoreError> {
        let namespace = plugin.manifest().namespace().to_owned();
        let record = progress(desk.read(), &namespace)?.filter(|record| record.sha256 == plugin.sha256());
        Ok(record.map(|record| Self { desk, plugin, namespace, record }))
    }

    /// Writes down how far it has come.
    fn put(&mut self) {
        // The switch has deleted it, or put another in its place.
        if self.record.stage != RebuildStage::Moving || !self.record.sha256.is_empty() {
            let key = namespace_key(&self.namespace);
            self.desk.edit().put(Table::Rebuilds, key, self.record.to_bytes());
        }
    }

    fn is_moving(&self) -> bool {
        self.record.stage >= RebuildStage::Emptying
    }

    /// True when the new state has all that it will have of a message that stands.
    fn has_standing(&self, hash: &ItemHash, message: &MessageRecord) -> bool {
        match self.record.stage {
            RebuildStage::Clearing | RebuildStage::Hidden => false,
            RebuildStage::Standing => place_of(hash, message).as_slice() <= self.record.cursor.as_slice(),
            RebuildStage::Again | RebuildStage::Emptying | RebuildStage::Moving => true,
        }
    }

    /// The same of a hidden one.
    fn has_hidden(&self, hash: &ItemHash) -> bool {
        match self.record.stage {
            RebuildStage::Clearing => false,
            RebuildStage::Hidden => hash_key(hash) <= self.record.cursor,
            _ => true,
        }
    }

    fn next(&mut self, stage: RebuildStage) {
        self.record.stage = stage;
        self.record.cursor.clear();
    }

    fn is_of_it(&self, kind: &str) -> bool {
        self.plugin.manifest().types.iter().any(|each| each == kind)
    }

    /// How far it has come, for people.
    fn told(&self) -> Result<String, StoreError> {
        let mut all = 0;
        for kind in &self.plugin.manifest().types {
            all += self.desk.read().number(Table::Counts, &index_prefix(IndexId::Kind, kind))?;
        }
        let replayed = self.record.replayed;
        Ok(match self.record.stage {
            RebuildStage::Clearing => "what an earlier attempt has left is deleted".to_owned(),
            RebuildStage::Hidden => "hidden messages are replayed".to_owned(),
            RebuildStage::Standing => format!("{replayed} of {} messages are replayed", all.max(replayed)),
            RebuildStage::Again => format!("all {replayed} messages are replayed; those it did not accept are again"),
            RebuildStage::Emptying | RebuildStage::Moving => "the new state takes the place of the old one".to_owned(),
        })
    }

    fn go(&mut self, started: Instant) -> Result<Step, StoreError> {
        match self.record.stage {
            RebuildStage::Clearing => self.clear()?,
            RebuildStage::Hidden => self.hidden(started)?,
            RebuildStage::Standing => self.standing(started)?,
            RebuildStage::Again => self.again(started)?,
            RebuildStage::Emptying | RebuildStage::Moving => return self.switch(),
        }
        Ok(Step::On)
    }

    /// Takes rows that begin with `prefix` out of a table, as many as there is room for. True when there are no more.
    fn sweep(
        &mut self,
        table: Table,
        prefix: &[u8],
        room: &mut Room,
        mut each: impl FnMut(&mut Desk, Row) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let mut start = prefix.to_vec();
        while room.is_left() {
            let rows = self.desk.read().range(table, &start, &end_of(prefix), PAGE, false)?;
            let is_last = rows.len() < PAGE;
            for (key, value) in rows {
                room.take(key.len() + value.len());
                start = [key.as_slice(), &[0]].concat();
                each(self.desk, (key, value))?;
            }
            if is_last {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        let mut room = Room::default();
        let state = state_key(&self.namespace, &[]);
        for (table, prefix) in [(Table::Rebuilt, state), (Table::Needs, odd_prefix(&self.namespace))] {
            let delete = |desk: &mut Desk, (key, _): Row| {
                desk.edit().delete(table, key);
                Ok(())
            };
            if !self.sweep(table, &prefix, &mut room, delete)? {
                return Ok(());
            }
        }
        self.next(RebuildStage::Hidden);
        Ok(())
    }

    fn hidden(&mut self, started: Instant) -> Result<(), StoreError> {
        let start = after(&self.record.cursor);
        let rows = self.desk.read().range(Table::Forgotten, &start, &end_of(&[]), PAGE, false)?;
        let is_last = rows.len() < PAGE;
        for (key, row) in rows {
            let hidden = ForgottenRecord::read(&row)?;
            // What is deleted cannot be played.
            if self.is_of_it(&hidden.message.envelope.kind)
                && !hidden.purged
                && let Some(hash) = hash_of_pending(&key)
            {
                self.play_hidden(&hash, &hidden.message)?;
            }
            self.record.cursor = key;
            if started.elapsed() >= STEP_TIME {
                return Ok(());
            }
        }
        if is_last {
            self.next(RebuildStage::Standing);
        }
        Ok(())
    }

    fn standing(&mut self, started: Instant) -> Result<(), StoreError> {
        // Of each type the next ones; beyond the end of a full page there may be more of its type.
        let mut found = BTreeSet::new();
        let mut full: Option<Vec<u8>> = None;
        for kind in &self.plugin.manifest().types {
            let prefix = index_prefix(IndexId::Kind, kind);
            let start = [prefix.clone(), after(&self.record.cursor)].concat();
            let rows = self.desk.read().range(Table::Index, &start, &end_of(&prefix), PAGE, false)?;
            let suffixes = rows.iter().map(|(key, _)| key[prefix.len()..].to_vec());
            if rows.len() == PAGE {
                let last = suffixes.clone().next_back().map(|suffix| suffix[..PLACE_BYTES].to_vec());
                full = [full, last].into_iter().flatten().min();
            }
            found.extend(suffixes);
        }
        let is_last = full.is_none();
        if let Some(full) = full {
            // Messages of one place are taken together: a cursor does not stand between them. They are never a page full, as their hashes
            // begin alike.
            found.retain(|suffix| suffix[..PLACE_BYTES] < full[..]);
        }
        let mut found = found.into_iter().peekable();
        while let Some(suffix) = found.next() {
            let (place, sequence) = suffix.split_at(PLACE_BYTES);
            let sequence = sequence.try_into().map_or(0, u64::from_be_bytes);
            if let Some(message) = self.desk.read().message_at(sequence)? {
                let hash = message.envelope.clone().envelope()?.item_hash;
                self.play(&hash, &message)?;
            }
            self.record.replayed += 1;
            if self.record.replayed.is_multiple_of(TOLD_EVERY) {
                tracing::info!("the state `{}` is made anew: {}", self.namespace, self.told()?);
            }
            if found.peek().is_some_and(|next| next.starts_with(place)) {
                continue;
            }
            self.record.cursor = place.to_vec();
            if started.elapsed() >= STEP_TIME && found.peek().is_some() {
                return Ok(());
            }
        }
        if is_last {
            self.next(RebuildStage::Again);
        }
        Ok(())
    }

    fn again(&mut self, started: Instant) -> Result<(), StoreError> {
        let prefix = odd_prefix(&self.namespace);
        let start = if self.record.cursor.is_empty() { prefix.clone() } else { after(&self.record.cursor) };
        let rows = self.desk.read().range(Table::Needs, &start, &end_of(&prefix), PAGE, false)?;
        let is_last = rows.len() < PAGE;
        for (key, value) in rows {
            if Odd::read(&value) == Odd::Out
                && let Some(hash) = hash_of_pending(&key[NEED_BYTES..])
                && let Some(message) = self.desk.read().message(&hash)?
            {
                self.play(&hash, &message)?;
                let now = self.desk.read().get(Table::Needs, &key)?;
                self.record.progress |= now != Some(value);
            }
            self.record.cursor = key;
            if started.elapsed() >= STEP_TIME {
                return Ok(());
            }
        }
        if is_last {
            let is_over = !self.record.progress || self.record.passes >= MAX_PASSES;
            self.record.passes += 1;
            self.record.progress = false;
            self.next(if is_over { RebuildStage::Emptying } else { RebuildStage::Again });
        }
        Ok(())
    }

    /// Puts the new state in the place of the old one.
    fn switch(&mut self) -> Result<Step, StoreError> {
        let mut room = Room::default();
        let (namespace, prefix) = (self.namespace.clone(), state_key(&self.namespace, &[]));
        let key_of = |place: &[u8]| place[prefix.len()..].to_vec();
        if self.record.stage == RebuildStage::Emptying {
            let delete = |desk: &mut Desk, (place, _): Row| desk.write_state(&namespace, vec![(key_of(&place), None)]);
            if !self.sweep(Table::State, &prefix, &mut room, delete)? {
                return Ok(Step::Hold(self.plugin.clone()));
            }
            self.next(RebuildStage::Moving);
        }
        let put = |desk: &mut Desk, (place, value): Row| {
            desk.write_state(&namespace, vec![(key_of(&place), Some(value))])?;
            desk.edit().delete(Table::Rebuilt, place);
            Ok(())
        };
        if !self.sweep(Table::Rebuilt, &prefix, &mut room, put)? {
            return Ok(Step::Hold(self.plugin.clone()));
        }
        let key = namespace_key(&namespace);
        let batch = self.desk.edit();
        batch.put(Table::Namespaces, key.clone(), self.plugin.namespace_record().to_bytes());
        if self.record.is_wrong {
            batch.put(Table::Rebuilds, key, RebuildRecord::wanted().to_bytes());
        } else {
            batch.delete(Table::Rebuilds, key);
        }
        // Nothing more is to be written down of it.
        self.record.sha256.clear();
        self.desk.arrived(&NeedRecord::Rebuilt(namespace))?;
        for kind in &self.plugin.manifest().types {
            self.desk.arrived(&NeedRecord::Handler(kind.clone()))?;
        }
        Ok(Step::Done(self.plugin.clone()))
    }

    fn beside(&self, inner: Arc<dyn Reader + Send + Sync>, without: Option<&ItemHash>) -> Arc<Beside> {
        Arc::new(Beside { inner, prefix: state_key(&self.namespace, &[]), without: without.cloned() })
    }

    fn write(&mut self, writes: Vec<Write>) {
        for (key, value) in writes {
            let place = state_key(&self.namespace, &key);
            self.desk.edit().set(Table::Rebuilt, place, value);
        }
    }

    fn note(&mut self, message: &MessageRecord, odd: Option<Odd>) -> Result<(), StoreError> {
        let key = odd_key(&self.namespace, message)?;
        self.desk.edit().set(Table::Needs, key, odd.map(Odd::value));
        Ok(())
    }

    /// What the new version says of a message; none when it does not accept it.
    fn judge(&self, hash: &ItemHash, message: &MessageRecord) -> Result<Option<(Plan, Effects)>, StoreError> {
        let shown = contract_message(hash, message);
        let asking = Arc::new(Asking::new(self.desk.reader(), Position::of(hash, message)));
        let judged = self.plugin.validate(&shown).and_then(|plan| {
            let Ok(plan) = plan else { return Ok(None) };
            let outcome = self.plugin.process(&shown, self.beside(asking, None))?;
            Ok(if let Outcome::Accepted(effects) = outcome { Some((plan, *effects)) } else { None })
        });
        match judged {
            Ok(judged) => Ok(judged),
            Err(HostError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!("{hash} is not in the state `{}` that is made anew: {error}", self.namespace);
                Ok(None)
            }
        }
    }

    /// Plays a message that stands.
    fn play(&mut self, hash: &ItemHash, message: &MessageRecord) -> Result<(), StoreError> {
        let Some((plan, mut effects)) = self.judge(hash, message)? else {
            return self.note(message, Some(Odd::Out));
        };
        self.write(std::mem::take(&mut effects.writes));
        let is_same = plan.labels == message.labels && effects::are_the_same(self.desk, hash, message, &effects)?;
        self.note(message, (!is_same).then_some(Odd::Different))
    }

    /// Plays a hidden message, and takes it out again: something of it may be kept for those that refer to it.
    fn play_hidden(&mut self, hash: &ItemHash, message: &MessageRecord) -> Result<(), StoreError> {
        let Some((_, effects)) = self.judge(hash, message)? else {
            return self.note(message, Some(Odd::Hidden));
        };
        let mut before = Vec::new();
        for (key, _) in &effects.writes {
            let value = self.desk.read().get(Table::Rebuilt, &state_key(&self.namespace, key))?;
            before.push((key.clone(), value));
        }
        self.write(effects.writes);
        if let Err(error) = self.take_out(hash, message, Withdrawal::Forgotten)? {
            tracing::warn!(
                "{hash} is forgotten, and nothing of it is in the state `{}` that is made anew: {error}",
                self.namespace
            );
            // Of two writes to one key the first one's is the value before.
            before.reverse();
            self.write(before);
            return self.note(message, Some(Odd::Hidden));
        }
        self.note(message, None)
    }

    fn take_out(
        &mut self,
        hash: &ItemHash,
        message: &MessageRecord,
        why: Withdrawal,
    ) -> Result<Result<(), HostError>, StoreError> {
        let view = self.beside(self.desk.reader(), Some(hash));
        match self.plugin.withdraw(&contract_message(hash, message), why, view) {
            Ok(writes) => {
                self.write(writes);
                Ok(Ok(()))
            }
            Err(HostError::Store(error)) => Err(error),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// What one commit may still move.
struct Room {
    rows: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { rows: MAX_MOVED_ROWS, bytes: MAX_MOVED_BYTES }
    }
}

impl Room {
    fn is_left(&self) -> bool {
        self.rows > 0 && self.bytes > 0
    }

    fn take(&mut self, bytes: usize) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
