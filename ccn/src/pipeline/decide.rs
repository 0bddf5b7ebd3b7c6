//! Deciding one message against what is known, into the current layer of the desk. The caller keeps or drops the layer.

use super::{
    desk::{Desk, WAITING, need_record, pending_key},
    funds,
    permission::{self, Act},
    stage::{Prepared, SignedMessage, ValidMessage},
};
use crate::{
    events::Event,
    host::{Effects, HostError, Outcome, Rejection, Subject},
    ledger::{self, Moment},
    store::{
        Reader as _, StoreError,
        record::{
            BalanceRecord, CostRecord, MessageRecord, NeedRecord, PendingRecord, PinRecord, Record as _,
            RejectionRecord,
        },
        schema::{Key, Table},
    },
};
use ccn_message::{Envelope, ErrorCode, ItemHash, ItemType, MessageStatus, sign};
use std::{sync::Arc, time::Instant};

/// Copies of one hash that wait at once.
const MAX_CANDIDATES: usize = 8;

/// What is decided by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Now, milliseconds since 1970.
    pub(super) now: u64,
    /// How long a message that waits counts as pending, milliseconds.
    pub(super) horizon: u64,
    /// Messages that wait at once.
    pub(super) max_waiting: u64,
    /// Messages without a plugin that are kept at once, and their bytes.
    pub(super) max_unhandled: (u64, u64),
}

/// A message's first or next turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// When it came, milliseconds since 1970.
    pub(super) reception_time: u64,
    /// Until when it counts as pending; none when that has passed.
    pub(super) horizon: Option<u64>,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It stands.
    Processed(Option<Arc<MessageRecord>>),
    /// It lacks something.
    Pending {
        /// Files to look for.
        files: Vec<ItemHash>,
    },
    /// It is refused.
    Rejected(RejectionRecord),
    /// Too many copies of it wait.
    Crowded,
}

impl Verdict {
    pub(super) fn status(&self) -> MessageStatus {
        match self {
            Self::Processed(_) => MessageStatus::Processed,
            Self::Pending { .. } | Self::Crowded => MessageStatus::Pending,
            Self::Rejected(_) => MessageStatus::Rejected,
        }
    }

    /// What is told of it.
    pub(super) fn event(&self, hash: &ItemHash) -> Option<Event> {
        match self {
            Self::Processed(Some(record)) => {
                Some(Event::Committed { item_hash: hash.clone(), record: record.clone(), frame: Arc::default() })
            }
            Self::Processed(None) | Self::Crowded => None,
            Self::Pending { .. } | Self::Rejected(_) => {
                Some(Event::Verdict { item_hash: hash.clone(), status: self.status() })
            }
        }
    }
}

/// Why a message has no verdict. Whatever it changed is to be dropped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecided {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plugin failed on it: it is put aside.
    #[error("{error}")]
    Plugin { plugin: String, error: HostError },
}

/// The record of a rejection.
pub(super) fn rejection_record(envelope: &Envelope, rejection: Rejection) -> RejectionRecord {
    RejectionRecord { code: rejection.code, errors: rejection.errors, message: sign::to_json(envelope) }
}

/// True for the very copy that is stored.
pub(super) fn is_same_copy(envelope: &Envelope, stored: &MessageRecord) -> bool {
    let other = &stored.envelope;
    envelope.signature == other.signature
        && envelope.sender == other.sender
        && envelope.kind == other.kind
        && envelope.chain.name() == other.chain()
}

/// What is said to a copy of a message that stands.
pub(super) fn other_copy(envelope: &Envelope) -> RejectionRecord {
    let sentence = "another copy of this message is processed, and its signature is not this one";
    rejection_record(envelope, Rejection::sentence(ErrorCode::InvalidSignature.number(), sentence))
}

/// Decides.
pub(super) fn decide(desk: &mut Desk, rules: &Rules, turn: Turn, prepared: Prepared) -> Result<Verdict, Undecided> {
    let envelope = prepared.envelope().clone();
    let hash = &envelope.item_hash;
    let status = desk.read().status(hash)?.map(|record| record.status());
    match status {
        Some(MessageStatus::Processed | MessageStatus::Removing) => {
            let stored = desk.read().message(hash)?;
            let is_same = stored.is_some_and(|stored| is_same_copy(&envelope, &stored));
            return Ok(if is_same { Verdict::Processed(None) } else { Verdict::Rejected(other_copy(&envelope)) });
        }
        Some(MessageStatus::Forgotten | MessageStatus::Removed) => {
            let code = ErrorCode::ForgottenDuplicate.number();
            let rejection = Rejection::sentence(code, "the message was forgotten");
            return Ok(Verdict::Rejected(rejection_record(&envelope, rejection)));
        }
        Some(MessageStatus::Pending | MessageStatus::Rejected) | None => {}
    }
    match prepared {
        Prepared::Refused { rejection, .. } => refuse(desk, &envelope, turn, rejection),
        Prepared::Failed { plugin, error, .. } => Err(Undecided::Plugin { plugin, error }),
        Prepared::Unhandled { signed, sentence } => unhandled(desk, rules, turn, signed.envelope(), &sentence),
        Prepared::Deferred { signed, plugin } => defer(desk, rules, turn, signed.envelope(), &plugin),
        Prepared::Lacking(signed) => {
            let needs = vec![NeedRecord::File(hash.to_string())];
            let sentence = format!("the content {hash} was not found");
            let otherwise = Rejection::sentence(ErrorCode::ContentUnavailable.number(), &sentence);
            wait(desk, rules, turn, signed.envelope(), needs, otherwise)
        }
        Prepared::Valid(message) => judge(desk, rules, turn, *message),
    }
}

fn judge(desk: &mut Desk, rules: &Rules, turn: Turn, message: ValidMessage) -> Result<Verdict, Undecided> {
    let mut absent_subject = None;
    for subject in &message.plan.subjects {
        let owner = match subject {
            Subject::ThisMessage => {
                let act = Act::of(&message.shown, &message.plan.labels);
                (!permission::may(desk.read(), &message.envelope.sender, &act)?).then(|| act.owner.to_owned())
            }
            Subject::OtherMessage(other) => match desk.read().message(other)? {
                Some(record) => {
                    let act = Act::of_record(&record);
                    (!permission::may(desk.read(), &message.envelope.sender, &act)?).then(|| act.owner.to_owned())
                }
                // What is not here cannot be judged: the plugin says what that means for its message.
                None => {
                    absent_subject = Some(other.clone());
                    None
                }
            },
        };
        if let Some(owner) = owner {
            return deny(desk, rules, turn, &message.envelope, &owner);
        }
    }
    if !message.plugin.may_run() {
        let plugin = message.plugin.manifest().name.clone();
        return defer(desk, rules, turn, &message.envelope, &plugin);
    }
    let outcome = message
        .plugin
        .process(&message.shown, desk.reader())
        .map_err(|error| Undecided::Plugin { plugin: message.plugin.manifest().name.clone(), error })?;
    let envelope = &message.envelope;
    match (outcome, absent_subject) {
        (Outcome::Rejected(rejection), _) => refuse(desk, envelope, turn, rejection),
        (Outcome::Waiting { needs, otherwise }, _) => {
            let needs = needs.iter().map(need_record).collect();
            wait(desk, rules, turn, envelope, needs, otherwise)
        }
        (Outcome::Accepted(_), Some(other)) => {
            let sentence = format!("whether {} may change {other} is not known", envelope.sender);
            let otherwise = Rejection::sentence(ErrorCode::PermissionDenied.number(), &sentence);
            wait(desk, rules, turn, envelope, vec![NeedRecord::Message(other.to_string())], otherwise)
        }
        (Outcome::Accepted(effects), None) => accept(desk, rules, turn, message, *effects),
    }
}

fn accept(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    message: ValidMessage,
    effects: Effects,
) -> Result<Verdict, Undecided> {
    let ValidMessage { envelope, fetched_content, size, plugin, plan, shown } = message;
    let hash = envelope.item_hash.clone();

    if !effects.movements.is_empty() && !desk.ration.may_begin(Instant::now()) {
        let sentence = "credits move faster than they can be put in order; this has its turn as soon as there is time";
        let otherwise = Rejection::sentence(ErrorCode::Internal.number(), sentence);
        return wait(desk, rules, turn, &envelope, vec![NeedRecord::Turn], otherwise);
    }
    let missing: Vec<NeedRecord> = {
        let is_missing = |(file, _): &&(ItemHash, Option<String>)| desk.read().file(file).map(|file| file.is_none());
        let mut missing = Vec::new();
        for pin in &effects.pins {
            if is_missing(&pin)? {
                missing.push(NeedRecord::File(pin.0.to_string()));
            }
        }
        missing
    };
    if !missing.is_empty() {
        let otherwise = Rejection::sentence(ErrorCode::FileUnavailable.number(), "a file was not found");
        return wait(desk, rules, turn, &envelope, missing, otherwise);
    }

    if let Some(price) = effects.costs {
        let cost = CostRecord { address: shown.address.clone(), payment: price.payment, lines: price.lines };
        if price.enforced
            && let Some(shortage) = funds::shortage(desk.read(), &cost, rules.now)?
        {
            return refuse(desk, &envelope, turn, shortage);
        }
        desk.charge(&hash, &cost)?;
    }
    if !effects.movements.is_empty() {
        let moment = Moment { time: shown.time, hash: hash.clone() };
        let started = Instant::now();
        let moved = ledger::move_credits(desk.edit(), &moment, &effects.movements)?;
        desk.ration.used(started.elapsed());
        if let Err(not_covered) = moved {
            let rejection = Rejection::sentence(ErrorCode::InvalidFormat.number(), &not_covered.to_string());
            // Credits that were granted earlier may still come.
            let needs = vec![NeedRecord::Credits(shown.address.clone())];
            desk.drop_current();
            return refuse_for_now(desk, rules, turn, &envelope, needs, rejection);
        }
        for address in ledger::receivers(&effects.movements) {
            desk.arrived(&NeedRecord::Credits(address.to_owned()))?;
        }
    }
    for published in &effects.balances {
        for (address, amount) in &published.balances {
            let dapp = published.dapp.as_deref().unwrap_or("");
            let key = Key::new().text(address).text(&published.chain).text(dapp).done();
            let new = BalanceRecord::new(*amount, published.height);
            let old = desk.read().get(Table::Balances, &key)?.map(|row| BalanceRecord::read(&row));
            let old = old.transpose().map_err(StoreError::from)?;
            // Of two that speak of one block, the same one counts everywhere.
            let is_newer = |old: BalanceRecord| (new.height, new.amount()) > (old.height, old.amount());
            if old.is_none_or(is_newer) {
                desk.edit().put(Table::Balances, key, new.to_bytes());
            }
        }
    }
    if let Some(list) = &effects.authorizations {
        desk.edit().put(Table::Authorizations, permission::delegations_key(&shown.address), list.to_bytes());
        desk.arrived(&NeedRecord::Delegation(shown.address.clone()))?;
    }
    desk.write_state(plugin.manifest().namespace(), effects.writes)?;
    for (file, reference) in effects.pins {
        let pin = PinRecord { owner: shown.address.clone(), reference, created: shown.time };
        desk.pin(&file, &hash, &pin)?;
    }
    if envelope.item_type != ItemType::Inline {
        let pin = PinRecord { owner: envelope.sender.clone(), reference: None, created: shown.time };
        desk.pin(&hash, &hash, &pin)?;
    }
    if let Some(workload) = effects.workload {
        desk.request(&hash, workload, &shown.address, rules.now);
    }

    let record = MessageRecord {
        envelope: (&envelope).into(),
        content: fetched_content,
        size,
        owner: shown.address.clone(),
        content_time: shown.time,
        labels: plan.labels,
        reception_time: turn.reception_time,
    };
    desk.insert(&envelope, &record)?;
    desk.set_status(&hash, MessageStatus::Processed, turn.reception_time, None)?;
    desk.edit().delete(Table::Quarantine, crate::store::schema::hash_key(&hash));
    for copy in desk.pending_of(&hash)? {
        desk.take_pending(&copy)?;
    }
    desk.arrived(&NeedRecord::Message(hash.to_string()))?;
    Ok(Verdict::Processed(Some(Arc::new(record))))
}

/// Refuses a message. Other copies of it that wait are not touched by that, nor is what is said of them.
pub(super) fn refuse(
    desk: &mut Desk,
    envelope: &Envelope,
    turn: Turn,
    rejection: Rejection,
) -> Result<Verdict, Undecided> {
    // Whatever was changed on the way to the refusal.
    desk.drop_current();
    let hash = &envelope.item_hash;
    let own = pending_key(envelope);
    desk.take_pending(&own)?;
    let record = rejection_record(envelope, rejection);
    if desk.pending_of(hash)?.is_empty() {
        desk.set_status(hash, MessageStatus::Rejected, turn.reception_time, Some(record.clone()))?;
    }
    Ok(Verdict::Rejected(record))
}

/// Lets a message wait until its plugin has time.
pub(super) fn defer(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    envelope: &Envelope,
    plugin: &str,
) -> Result<Verdict, Undecided> {
    let sentence =
        format!("the plugin {plugin} takes more time than it may have; this has its turn as soon as there is some");
    let otherwise = Rejection::sentence(ErrorCode::Internal.number(), &sentence);
    desk.drop_current();
    wait(desk, rules, turn, envelope, vec![NeedRecord::PluginTurn(plugin.to_owned())], otherwise)
}

/// Keeps a message that no plugin handles, refused for now, as far as there is room: for all, and for its sender.
pub(super) fn unhandled(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    envelope: &Envelope,
    sentence: &str,
) -> Result<Verdict, Undecided> {
    let kept = Rejection::sentence(
        ErrorCode::InvalidFormat.number(),
        &format!("{sentence}; it is kept and decided when there is one"),
    );
    desk.drop_current();
    let own = pending_key(envelope);
    desk.take_pending(&own)?;
    let record = PendingRecord {
        envelope: envelope.into(),
        reception_time: turn.reception_time,
        needs: vec![NeedRecord::Handler(envelope.kind.clone())],
        otherwise: (kept.code, kept.errors.clone()),
        horizon: None,
    };
    let (most, most_bytes) = rules.max_unhandled;
    let has_room =
        desk.unhandled_fits(&record, most, most_bytes)? && desk.pending_of(&envelope.item_hash)?.len() < MAX_CANDIDATES;
    if !has_room {
        let sentence = format!("{sentence}, and there is no room to keep more such messages");
        let rejection = Rejection::sentence(ErrorCode::InvalidFormat.number(), &sentence);
        return refuse(desk, envelope, turn, rejection);
    }
    desk.put_pending(&own, &record)?;
    let rejection = rejection_record(envelope, kept);
    desk.set_status(&envelope.item_hash, MessageStatus::Rejected, turn.reception_time, Some(rejection.clone()))?;
    Ok(Verdict::Rejected(rejection))
}

fn deny(desk: &mut Desk, rules: &Rules, turn: Turn, envelope: &Envelope, owner: &str) -> Result<Verdict, Undecided> {
    let sentence = format!("{} may not do this for {owner}", envelope.sender);
    let rejection = Rejection::sentence(ErrorCode::PermissionDenied.number(), &sentence);
    // The delegation may still come.
    refuse_for_now(desk, rules, turn, envelope, vec![NeedRecord::Delegation(owner.to_owned())], rejection)
}

/// Refuses a message and keeps it: should what it lacks arrive, it is decided again.
fn refuse_for_now(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    envelope: &Envelope,
    needs: Vec<NeedRecord>,
    rejection: Rejection,
) -> Result<Verdict, Undecided> {
    let otherwise = (rejection.code, rejection.errors.clone());
    let verdict = refuse(desk, envelope, turn, rejection)?;
    let has_room = desk.read().number(Table::Meta, WAITING)? < rules.max_waiting / 2
        && desk.pending_of(&envelope.item_hash)?.len() < MAX_CANDIDATES;
    if has_room {
        let reception_time = turn.reception_time;
        let record = PendingRecord { envelope: envelope.into(), reception_time, needs, otherwise, horizon: None };
        desk.put_pending(&pending_key(envelope), &record)?;
    }
    Ok(verdict)
}

/// Lets a message wait.
fn wait(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    envelope: &Envelope,
    needs: Vec<NeedRecord>,
    otherwise: Rejection,
) -> Result<Verdict, Undecided> {
    let hash = &envelope.item_hash;
    let key = pending_key(envelope);
    desk.take_pending(&key)?;
    if desk.pending_of(hash)?.len() >= MAX_CANDIDATES {
        return Ok(Verdict::Crowded);
    }
    if desk.read().number(Table::Meta, WAITING)? >= rules.max_waiting {
        return refuse(desk, envelope, turn, otherwise);
    }
    let is_file = |need: &NeedRecord| match need {
        NeedRecord::File(file) => ItemHash::parse(file).ok(),
        _ => None,
    };
    let files = needs.iter().filter_map(is_file).collect();
    let record = PendingRecord {
        envelope: envelope.into(),
        reception_time: turn.reception_time,
        needs,
        otherwise: (otherwise.code, otherwise.errors.clone()),
        horizon: turn.horizon,
    };
    desk.put_pending(&key, &record)?;
    if turn.horizon.is_none() {
        // It has waited long enough to show as refused, and goes on waiting.
        let record = rejection_record(envelope, otherwise);
        desk.set_status(hash, MessageStatus::Rejected, turn.reception_time, Some(record.clone()))?;
        return Ok(Verdict::Rejected(record));
    }
    desk.set_status(hash, MessageStatus::Pending, turn.reception_time, None)?;
    Ok(Verdict::Pending { files })
}

/// The horizon of a copy has passed: it shows as refused, unless another one is still within its own.
pub(super) fn give_up(desk: &mut Desk, key: &[u8], horizon_row: Vec<u8>) -> Result<Option<ItemHash>, StoreError> {
    desk.edit().delete(Table::Horizon, horizon_row);
    let Some(row) = desk.read().get(Table::Pending, key)? else { return Ok(None) };
    let mut record = PendingRecord::read(&row)?;
    record.horizon = None;
    desk.edit().put(Table::Pending, key.to_vec(), record.to_bytes());
    let envelope = record.envelope.envelope()?;
    let hash = envelope.item_hash.clone();
    for other in desk.pending_of(&hash)? {
        let other = desk.read().get(Table::Pending, &other)?.map(|row| PendingRecord::read(&row)).transpose()?;
        if other.is_some_and(|other| other.horizon.is_some()) {
            return Ok(None);
        }
    }
    let (code, errors) = record.otherwise;
    let rejection = rejection_record(&envelope, Rejection { code, errors });
    desk.set_status(&hash, MessageStatus::Rejected, record.reception_time, Some(rejection))?;
    Ok(Some(hash))
}

/// Takes a copy out of the waiting ones, to be decided again.
pub(super) fn resume(desk: &mut Desk, key: &[u8]) -> Result<Option<(SignedMessage, Turn)>, StoreError> {
    let Some(record) = desk.take_pending(key)? else { return Ok(None) };
    let turn = Turn { reception_time: record.reception_time, horizon: record.horizon };
    Ok(Some((SignedMessage::known(record.envelope.envelope()?), turn)))
}
