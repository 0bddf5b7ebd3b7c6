//! Deciding one message against what is known, into the current layer of the desk. The caller keeps or drops the layer.

use super::{
    desk::{Desk, WAITING, hash_of_pending, need_record, pending_key},
    facts::{self, Asking},
    funds,
    permission::{self, Act},
    rank::{self, Rank},
    rebuild,
    stage::{Prepared, SignedMessage, ValidMessage},
    withdraw,
};
use crate::{
    events::Event,
    host::{Effects, HostError, Outcome, Plugins, Rejection, Subject},
    ledger::{self, NotCovered},
    store::{
        Reader as _, StoreError,
        record::{
            BasisRecord, CostRecord, DelegationRecord, FactRecord, MessageRecord, Movement, NeedRecord, PendingRecord,
            PinRecord, Question, Record as _, RejectionRecord,
        },
        schema::{Table, hash_key},
        standing::{self, Fate, Position},
    },
};
use ccn_message::{Envelope, ErrorCode, ItemHash, ItemType, MessageStatus, sign};
use std::{sync::Arc, time::Instant};

/// Copies of one hash that wait for something at once; of the owner's own, as many again.
const MAX_WAITING_COPIES: usize = 8;
/// Copies of one hash that are refused and kept, or stand behind a better one.
const MAX_KEPT_COPIES: usize = 8;

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
    /// How long what is not kept any more stays, milliseconds.
    pub(super) grace: u64,
}

/// A message's first or next turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// When it came, milliseconds since 1970.
    pub(super) reception_time: u64,
    /// Until when it counts as pending; none when that has passed.
    pub(super) horizon: Option<u64>,
    /// True when it stood before: funds are not asked for again.
    pub(super) settled: bool,
    /// True when it has waited: it keeps its place.
    pub(super) has_waited: bool,
    /// True when it has waited for its plugin to have time, and this is the time: looking at it has taken some of it already.
    pub(super) is_its_time: bool,
    /// Its rank among the copies of its hash.
    pub(super) rank: Rank,
}

impl Turn {
    /// A copy that is kept, and lacks nothing so far; what shows of it is that rejection, and no horizon ends that.
    fn keep(&self, envelope: &Envelope, otherwise: Rejection) -> PendingRecord {
        PendingRecord {
            envelope: envelope.into(),
            rank: self.rank.to_record(),
            reception_time: self.reception_time,
            needs: Vec::new(),
            facts: Vec::new(),
            settled: self.settled,
            otherwise: (otherwise.code, otherwise.errors),
            horizon: None,
        }
    }
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It stands from now on.
    Processed(Arc<MessageRecord>),
    /// It was accepted earlier, and this is its status.
    Stands(MessageStatus),
    /// It would stand, and somebody entitled to it wants it hidden.
    Forgotten,
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
            Self::Stands(status) => *status,
            Self::Pending { .. } | Self::Crowded => MessageStatus::Pending,
            Self::Rejected(_) => MessageStatus::Rejected,
            Self::Forgotten => MessageStatus::Forgotten,
        }
    }

    /// What is told of it.
    pub(super) fn event(&self, hash: &ItemHash) -> Option<Event> {
        match self {
            Self::Processed(record) => {
                Some(Event::Committed { item_hash: hash.clone(), record: record.clone(), frame: Arc::default() })
            }
            Self::Stands(_) | Self::Crowded => None,
            Self::Pending { .. } | Self::Rejected(_) | Self::Forgotten => {
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

/// What is said to a copy of a message that stands.
const OTHER_COPY: &str = "another copy of this message is processed, and its signature is not this one";

fn other_copy_rejection() -> Rejection {
    Rejection::sentence(ErrorCode::InvalidSignature.number(), OTHER_COPY)
}

/// Decides.
pub(super) fn decide(
    desk: &mut Desk,
    plugins: &Plugins,
    rules: &Rules,
    turn: Turn,
    prepared: Prepared,
) -> Result<Verdict, Undecided> {
    let envelope = prepared.envelope().clone();
    let hash = &envelope.item_hash;
    let mut turn = turn;
    if let Prepared::Valid(message) = &prepared {
        turn.rank = Rank::of(&envelope, &message.shown.address);
    }
    if let Some(present) = Present::of(desk, hash)? {
        // One that is not valid is refused for itself: its signature says nothing of who sent it.
        let is_same = rank::is_same_message(&envelope, &present.record.envelope);
        if present.is_final || is_same && !matches!(prepared, Prepared::Refused { .. }) {
            let_go(desk, &pending_key(&envelope))?;
            return Ok(present.said_to(&envelope));
        }
        let behind = match &prepared {
            // Should this one not be accepted after all, the layer is dropped, and the other one stands as it stood.
            Prepared::Valid(message) if present.gives_way_to(turn.rank, &message.shown.address)? => None,
            Prepared::Valid(_) => Some(NeedRecord::Outranked(hash.to_string())),
            // It may yet turn out to be better; until then nobody has to know, nor look for anything.
            Prepared::Lacking(_) => Some(NeedRecord::File(hash.to_string())),
            Prepared::Deferred { plugin, .. } => Some(NeedRecord::PluginTurn(plugin.clone())),
            Prepared::Refused { .. } | Prepared::Failed { .. } | Prepared::Unhandled { .. } => None,
        };
        if let Some(need) = behind {
            return outranked(desk, rules, turn, &envelope, need, &present);
        }
        if let Prepared::Valid(_) = &prepared {
            withdraw::void(desk, plugins, rules, hash)?;
            turn.settled = true;
        }
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
            wait(desk, rules, turn, signed.envelope(), needs, Vec::new(), otherwise)
        }
        Prepared::Valid(message) => judge(desk, plugins, rules, turn, *message),
    }
}

/// The copy of a message that stands, or is hidden.
struct Present {
    record: MessageRecord,
    /// As it is shown.
    status: MessageStatus,
    /// True when its content is deleted: nothing of it can change any more.
    is_final: bool,
}

impl Present {
    fn of(desk: &Desk, hash: &ItemHash) -> Result<Option<Self>, StoreError> {
        if let Some(record) = desk.read().message(hash)? {
            let status = desk.read().status(hash)?.map_or(MessageStatus::Processed, |row| row.status());
            return Ok(Some(Self { record, status, is_final: false }));
        }
        let hidden = standing::forgotten(desk.read(), hash)?;
        Ok(hidden.map(|hidden| {
            let status = MessageStatus::Forgotten;
            Self { record: hidden.message, status, is_final: hidden.purged }
        }))
    }

    /// True when a copy of that rank, by that owner, takes its place. Content that names no owner is each signer's own: there the first one stands, or
    /// anybody could take it over.
    fn gives_way_to(&self, rank: Rank, owner: &str) -> Result<bool, StoreError> {
        let own = Rank::of(&self.record.envelope.clone().envelope()?, &self.record.owner);
        Ok(rank < own && permission::is_same(owner, &self.record.owner))
    }

    /// What is said to another copy, or to this one when it comes again.
    fn said_to(&self, envelope: &Envelope) -> Verdict {
        if self.status == MessageStatus::Forgotten {
            let code = ErrorCode::ForgottenDuplicate.number();
            let rejection = Rejection::sentence(code, "the message was forgotten");
            return Verdict::Rejected(rejection_record(envelope, rejection));
        }
        // The same signed words with another time or channel, which nobody signs: the message stands.
        let is_same = rank::is_same_message(envelope, &self.record.envelope);
        if is_same {
            Verdict::Stands(self.status)
        } else {
            Verdict::Rejected(rejection_record(envelope, other_copy_rejection()))
        }
    }
}

/// Keeps a copy behind the one that stands, where there is room: should that one fall, or what it lacks come, it is decided.
fn outranked(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    envelope: &Envelope,
    need: NeedRecord,
    present: &Present,
) -> Result<Verdict, Undecided> {
    let key = pending_key(envelope);
    let_go(desk, &key)?;
    if desk.read().number(Table::Meta, WAITING)? < rules.max_waiting / 2
        && has_room(desk, &key, &envelope.item_hash, turn, false)?
    {
        put_behind(desk, &key, turn.keep(envelope, other_copy_rejection()), need)?;
    }
    Ok(present.said_to(envelope))
}

/// Lets a copy wait behind one that stands.
fn put_behind(desk: &mut Desk, key: &[u8], mut record: PendingRecord, need: NeedRecord) -> Result<(), StoreError> {
    let rejection = other_copy_rejection();
    record.needs = vec![need];
    record.facts = Vec::new();
    record.horizon = None;
    record.otherwise = (rejection.code, rejection.errors);
    desk.put_pending(key, &record)
}

/// True for a copy that waits for something: its sender was told so, and nobody else's copies put it aside.
pub(super) fn waits(record: &PendingRecord) -> bool {
    let is_kept = |need: &NeedRecord| matches!(need, NeedRecord::Outranked(_) | NeedRecord::Handler(_));
    record.horizon.is_some() || !record.needs.is_empty() && !record.needs.iter().all(is_kept)
}

/// Whether there is room for one more copy of a hash among those that wait, or else among those that are kept, of which the worst goes for it.
fn has_room(desk: &mut Desk, key: &[u8], hash: &ItemHash, turn: Turn, is_to_wait: bool) -> Result<bool, StoreError> {
    if turn.has_waited {
        return Ok(true);
    }
    let mut others = desk.pending_of(hash)?;
    others.retain(|(other, record)| other != key && waits(record) == is_to_wait);
    if is_to_wait {
        let most = if turn.rank.is_by_owner() { 2 * MAX_WAITING_COPIES } else { MAX_WAITING_COPIES };
        return Ok(others.len() < most);
    }
    if others.len() < MAX_KEPT_COPIES {
        return Ok(true);
    }
    let worst = others.into_iter().max_by_key(|(_, record)| Rank::of_record(record.rank));
    match worst.filter(|(_, record)| Rank::of_record(record.rank) > turn.rank) {
        Some((key, _)) => let_go(desk, &key).map(|_| true),
        None => Ok(false),
    }
}

/// Takes a copy out of the waiting ones, with all that it did while it waited.
pub(super) fn let_go(desk: &mut Desk, key: &[u8]) -> Result<Option<PendingRecord>, StoreError> {
    let Some(record) = desk.take_pending(key)? else { return Ok(None) };
    // A transfer that is not covered is in the ledger all the same.
    for fact in record.facts.iter().filter(|fact| fact.question == Question::Covered) {
        // Copies of one hash and time have one row there.
        let others = hash_of_pending(key).map_or(Ok(Vec::new()), |hash| desk.pending_of(&hash))?;
        if !others.iter().any(|(_, other)| other.facts.contains(fact)) {
            withdraw::take_back(desk, &Position::from_bytes(&fact.answer))?;
        }
    }
    Ok(Some(record))
}

/// Of the copies that wait while one is accepted: those of the same message go, those that are known to be worse wait behind it. What lacks its content
/// goes on waiting: it may be better.
fn settle_copies(desk: &mut Desk, envelope: &Envelope, rank: Rank, at: Option<&Position>) -> Result<(), StoreError> {
    for (key, copy) in desk.pending_of(&envelope.item_hash)? {
        let is_same = rank::is_same_message(envelope, &copy.envelope);
        let other = Rank::of_record(copy.rank);
        let is_worse = other.is_known() && rank < other;
        if !is_same && !is_worse {
            continue;
        }
        let has_row = |fact: &FactRecord| fact.question == Question::Covered;
        match at {
            // The row in the ledger is that of the accepted one now.
            Some(at) if copy.facts.iter().filter(|fact| has_row(fact)).all(|fact| fact.answer == at.bytes()) => {
                desk.take_pending(&key)?;
            }
            _ => {
                let_go(desk, &key)?;
            }
        }
        if !is_same {
            put_behind(desk, &key, copy, NeedRecord::Outranked(envelope.item_hash.to_string()))?;
        }
    }
    Ok(())
}

/// Says of a hash what is to be said of it, unless a copy of it stands or is hidden: of those that wait, the best one's word, and if there is none, why
/// this one was refused.
fn show(
    desk: &mut Desk,
    hash: &ItemHash,
    reception_time: u64,
    refused: Option<RejectionRecord>,
) -> Result<(), StoreError> {
    if desk.is_present(hash)? {
        return Ok(());
    }
    let mut copies: Vec<PendingRecord> = desk.pending_of(hash)?.into_iter().map(|(_, record)| record).collect();
    if copies.iter().any(|copy| copy.horizon.is_some()) {
        return desk.set_status(hash, MessageStatus::Pending, reception_time, None);
    }
    copies.sort_by_key(|copy| Rank::of_record(copy.rank));
    let rejection = match copies.into_iter().next() {
        Some(best) => {
            let (code, errors) = best.otherwise;
            Some(rejection_record(&best.envelope.envelope()?, Rejection { code, errors }))
        }
        None => {
            let is_forged = |record: &RejectionRecord| record.code == ErrorCode::InvalidSignature.number();
            let before = desk.read().status(hash)?.and_then(|record| record.rejection);
            // What a signed copy was refused for is not covered up by one that nobody has signed.
            refused.filter(|record| !is_forged(record) || before.is_none_or(|before| is_forged(&before)))
        }
    };
    match rejection {
        Some(rejection) => desk.set_status(hash, MessageStatus::Rejected, reception_time, Some(rejection)),
        None => Ok(()),
    }
}

fn judge(
    desk: &mut Desk,
    plugins: &Plugins,
    rules: &Rules,
    turn: Turn,
    mut message: ValidMessage,
) -> Result<Verdict, Undecided> {
    let at = Position::new(message.shown.time, &message.envelope.item_hash);
    let sender = &message.envelope.sender;
    let mut facts = Vec::new();
    let mut absent = None;
    let mut denied = None;
    for subject in &message.plan.subjects {
        match subject {
            Subject::ThisMessage => {
                let act = Act::of(&message.shown, &message.plan.labels);
                let may = permission::may(desk.read(), sender, &act, &at)?;
                if !permission::is_same(sender, act.owner) {
                    facts.push(may_fact(act.owner, None, may));
                }
                if !may {
                    let owner = act.owner.to_owned();
                    return deny(desk, rules, turn, &message.envelope, &owner, facts);
                }
            }
            Subject::OtherMessage(other) => match may_change(desk, sender, other, &at, &mut facts)? {
                // What is gone needs no permission; what is not here cannot be judged: the plugin says what that means for its message.
                May::Yes | May::Gone => {}
                May::No(owner) => denied = denied.or(Some(owner)),
                May::Unknown => absent = absent.or_else(|| Some(other.clone())),
            },
        }
    }
    if !turn.is_its_time && !message.plugin.may_run() {
        let plugin = message.plugin.manifest().name.clone();
        return defer(desk, rules, turn, &message.envelope, &plugin);
    }
    let asking = Arc::new(Asking::new(desk.reader(), at.clone()));
    let outcome = message
        .plugin
        .process_in(message.session.take(), &message.shown, asking.clone())
        .map_err(|error| Undecided::Plugin { plugin: message.plugin.manifest().name.clone(), error })?;
    for fact in asking.facts() {
        push(&mut facts, fact);
    }
    drop(asking);
    let envelope = &message.envelope;
    // Whoever waits for something is not refused for what is here: it would depend on which of them came first.
    if let (Some(owner), None, Outcome::Accepted(_) | Outcome::Rejected(_)) = (&denied, &absent, &outcome) {
        return deny(desk, rules, turn, envelope, owner, facts);
    }
    match (outcome, absent) {
        (Outcome::Rejected(rejection), _) if facts.is_empty() => refuse(desk, envelope, turn, rejection),
        (Outcome::Rejected(rejection), _) => refuse_for_now(desk, rules, turn, envelope, facts, rejection),
        (Outcome::Waiting { needs, otherwise }, _) => {
            let needs = needs.iter().map(need_record).collect();
            wait(desk, rules, turn, envelope, needs, facts, otherwise)
        }
        (Outcome::Accepted(_), Some(other)) => {
            let sentence = format!("whether {} may change {other} is not known", envelope.sender);
            let otherwise = Rejection::sentence(ErrorCode::PermissionDenied.number(), &sentence);
            wait(desk, rules, turn, envelope, vec![NeedRecord::Message(other.to_string())], facts, otherwise)
        }
        (Outcome::Accepted(effects), None) => accept(desk, plugins, rules, turn, message, *effects, facts),
    }
}

/// Adds a fact, once.
fn push(facts: &mut Vec<FactRecord>, fact: FactRecord) {
    if !facts.contains(&fact) {
        facts.push(fact);
    }
}

fn may_fact(owner: &str, other: Option<&ItemHash>, may: bool) -> FactRecord {
    let question = Question::May(owner.to_owned(), other.map(ToString::to_string));
    FactRecord { question, answer: vec![u8::from(may)] }
}

/// Whether somebody may change another message.
enum May {
    Yes,
    /// It is that address's.
    No(String),
    /// It is hidden already.
    Gone,
    Unknown,
}

/// Whether a message may undo another one, with the facts that say so.
fn may_change(
    desk: &Desk,
    sender: &str,
    other: &ItemHash,
    at: &Position,
    facts: &mut Vec<FactRecord>,
) -> Result<May, StoreError> {
    let found = standing::message(desk.read(), other, Some(at))?;
    push(facts, facts::fate(other, &found));
    let (fate, record) = found;
    let Some(record) = record else {
        return Ok(if fate == Fate::Forgotten { May::Gone } else { May::Unknown });
    };
    let may = permission::may_undo(desk.read(), sender, other, &record, at)?;
    if !permission::is_same(sender, &record.owner) {
        push(facts, may_fact(&record.owner, Some(other), may));
    }
    Ok(if may { May::Yes } else { May::No(record.owner) })
}

/// Messages that an accepted one hides: all of them must be here, and the sender's to undo.
enum Targets {
    All(Vec<ItemHash>),
    Verdict(Verdict),
}

fn targets(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    message: &ValidMessage,
    wanted: &[ItemHash],
    facts: &mut Vec<FactRecord>,
) -> Result<Targets, Undecided> {
    let envelope = &message.envelope;
    let at = Position::new(message.shown.time, &envelope.item_hash);
    let mut targets = Vec::new();
    for target in wanted {
        match may_change(desk, &envelope.sender, target, &at, facts)? {
            May::Yes => targets.push(target.clone()),
            May::Gone => {}
            May::No(owner) => {
                return deny(desk, rules, turn, envelope, &owner, std::mem::take(facts)).map(Targets::Verdict);
            }
            May::Unknown => {
                let sentence = format!("the message {target} is not known");
                let otherwise = Rejection::sentence(ErrorCode::PermissionDenied.number(), &sentence);
                let needs = vec![NeedRecord::Message(target.to_string())];
                let facts = std::mem::take(facts);
                return wait(desk, rules, turn, envelope, needs, facts, otherwise).map(Targets::Verdict);
            }
        }
    }
    Ok(Targets::All(targets))
}

fn accept(
    desk: &mut Desk,
    plugins: &Plugins,
    rules: &Rules,
    turn: Turn,
    message: ValidMessage,
    effects: Effects,
    mut facts: Vec<FactRecord>,
) -> Result<Verdict, Undecided> {
    if !effects.movements.is_empty() && !desk.ration.may_begin(Instant::now()) {
        let sentence = "credits move faster than they can be put in order; this has its turn as soon as there is time";
        let otherwise = Rejection::sentence(ErrorCode::Internal.number(), sentence);
        return wait(desk, rules, turn, &message.envelope, vec![NeedRecord::Turn], facts, otherwise);
    }
    let forgets = match targets(desk, rules, turn, &message, &effects.forgets, &mut facts)? {
        Targets::All(targets) => targets,
        Targets::Verdict(verdict) => return Ok(verdict),
    };
    let ValidMessage { envelope, fetched_content, size, plugin, plan, shown, .. } = message;
    let hash = envelope.item_hash.clone();
    let at = Position::new(shown.time, &hash);
    if effects.authorizations.is_some() && !permission::is_same(&envelope.sender, &shown.address) {
        let sentence = "who may act for an address is decided by that address alone";
        let rejection = Rejection::sentence(ErrorCode::PermissionDenied.number(), sentence);
        return refuse(desk, &envelope, turn, rejection);
    }
    let mut missing = Vec::new();
    for (file, _) in &effects.pins {
        if desk.read().file(file)?.is_none() {
            missing.push(NeedRecord::File(file.to_string()));
        }
    }
    if !missing.is_empty() {
        let otherwise = Rejection::sentence(ErrorCode::FileUnavailable.number(), "a file was not found");
        return wait(desk, rules, turn, &envelope, missing, facts, otherwise);
    }

    if let Some(price) = effects.costs {
        let cost = CostRecord { address: shown.address.clone(), payment: price.payment, lines: price.lines };
        // What was paid for once stays paid for: funds are this node's view of a moment, and no part of the common state.
        if price.enforced
            && !turn.settled
            && let Some(shortage) = funds::shortage(desk.read(), &cost, rules.now)?
        {
            // Not asked again when there is more; but what it rests on may turn out to be otherwise.
            return refuse_for_now(desk, rules, turn, &envelope, facts, shortage);
        }
        desk.charge(&hash, &cost)?;
    }
    let moves_credits = !effects.movements.is_empty();
    if moves_credits {
        let started = Instant::now();
        let not_covered = move_credits(desk, &at, &effects.movements)?;
        desk.ration.used(started.elapsed());
        if let Some(not_covered) = not_covered {
            let rejection = Rejection::sentence(ErrorCode::InvalidFormat.number(), &not_covered.to_string());
            // Credits that were granted earlier may still come: the movement stays in the ledger, and does nothing there.
            facts.push(FactRecord { question: Question::Covered, answer: at.bytes().to_vec() });
            let verdict = refuse_for_now(desk, rules, turn, &envelope, facts, rejection)?;
            if desk.read().get(Table::Pending, &pending_key(&envelope))?.is_some() {
                move_credits(desk, &at, &effects.movements)?;
            }
            return Ok(verdict);
        }
        facts.push(FactRecord { question: Question::Covered, answer: vec![1] });
    }
    let mut basis = BasisRecord {
        uses: effects.uses.iter().map(ToString::to_string).collect(),
        forgets: forgets.iter().map(ToString::to_string).collect(),
        follows: effects.follows.as_ref().map(ToString::to_string),
        ..BasisRecord::default()
    };
    for published in &effects.balances {
        let addresses = published.balances.iter().map(|(address, _)| address.clone()).collect();
        let dapp = published.dapp.clone().unwrap_or_default();
        basis.balances.push((published.chain.clone(), dapp, addresses));
        desk.publish(published)?;
    }
    if let Some(entries) = effects.authorizations {
        let record = DelegationRecord { entries, until: None };
        desk.edit().put(Table::Delegations, standing::delegation_key(&shown.address, &at), record.to_bytes());
        desk.arrived(&NeedRecord::Delegation(shown.address.clone()))?;
    }
    desk.write_state(plugin.manifest().namespace(), effects.writes)?;
    for (file, reference) in effects.pins {
        let pin = PinRecord { owner: shown.address.clone(), reference, created: shown.time };
        desk.pin(&file, &hash, &pin)?;
        basis.pins.push(file.to_string());
    }
    if envelope.item_type != ItemType::Inline {
        let pin = PinRecord { owner: envelope.sender.clone(), reference: None, created: shown.time };
        desk.pin(&hash, &hash, &pin)?;
        basis.pins.push(hash.to_string());
    }
    if let Some(workload) = effects.workload {
        desk.request(&hash, workload, &shown.address, rules.now);
    }
    for used in &effects.uses {
        desk.edit().put(Table::Uses, at.key_under(used), Vec::new());
        desk.arrived(&NeedRecord::InUse(used.to_string()))?;
    }
    let mut inherited = Vec::new();
    if let Some(leader) = &effects.follows {
        inherited = facts::later_forgetters(desk.read(), leader, &at)?;
        let question = Question::Forgetters(leader.to_string());
        let answer = facts::forgetters_answer(&inherited);
        push(&mut facts, FactRecord { question, answer });
    }
    for (namespace, key) in effects.watches {
        let answer = facts::state(desk.read(), &namespace, &key)?;
        push(&mut facts, FactRecord { question: Question::State(namespace, key), answer });
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
    desk.insert(&hash, &record)?;
    desk.set_status(&hash, MessageStatus::Processed, turn.reception_time, None)?;
    desk.edit().delete(Table::Quarantine, hash_key(&hash));
    settle_copies(desk, &envelope, turn.rank, moves_credits.then_some(&at))?;
    basis.facts = facts;
    if basis != BasisRecord::default() {
        desk.put_basis(&pending_key(&envelope), &hash, &basis);
    }
    rebuild::accepted(desk, plugins, &hash, &record)?;
    desk.arrived(&NeedRecord::Message(hash.to_string()))?;
    for target in &forgets {
        withdraw::forget(desk, plugins, rules, target, &at)?;
    }
    if !inherited.is_empty() || !standing::forgetters(desk.read(), &hash)?.is_empty() {
        withdraw::hide(desk, plugins, rules, &hash, &inherited)?;
        return Ok(Verdict::Forgotten);
    }
    Ok(Verdict::Processed(Arc::new(record)))
}

/// Moves credits; those whose transfers are covered differently now are decided again. Returns why nothing was moved.
fn move_credits(desk: &mut Desk, at: &Position, movements: &[Movement]) -> Result<Option<NotCovered>, StoreError> {
    let replayed = ledger::move_credits(desk.edit(), at, movements)?;
    for hash in &replayed.flipped {
        desk.arrived(&NeedRecord::Covered(hash.to_string()))?;
    }
    Ok(replayed.not_covered)
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
    let_go(desk, &pending_key(envelope))?;
    let record = rejection_record(envelope, rejection);
    show(desk, &envelope.item_hash, turn.reception_time, Some(record.clone()))?;
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
    wait(desk, rules, turn, envelope, vec![NeedRecord::PluginTurn(plugin.to_owned())], Vec::new(), otherwise)
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
    let_go(desk, &own)?;
    let needs = vec![NeedRecord::Handler(envelope.kind.clone())];
    let record = PendingRecord { needs, ..turn.keep(envelope, kept.clone()) };
    let (most, most_bytes) = rules.max_unhandled;
    // What stood before keeps its place, however full it is.
    let is_kept = turn.settled
        || desk.unhandled_fits(&record, most, most_bytes)? && has_room(desk, &own, &envelope.item_hash, turn, false)?;
    if !is_kept {
        let sentence = format!("{sentence}, and there is no room to keep more such messages");
        let rejection = Rejection::sentence(ErrorCode::InvalidFormat.number(), &sentence);
        return refuse(desk, envelope, turn, rejection);
    }
    desk.put_pending(&own, &record)?;
    show(desk, &envelope.item_hash, turn.reception_time, None)?;
    Ok(Verdict::Rejected(rejection_record(envelope, kept)))
}

fn deny(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    envelope: &Envelope,
    owner: &str,
    facts: Vec<FactRecord>,
) -> Result<Verdict, Undecided> {
    let sentence = format!("{} may not do this for {owner}", envelope.sender);
    let rejection = Rejection::sentence(ErrorCode::PermissionDenied.number(), &sentence);
    // The delegation may still come.
    refuse_for_now(desk, rules, turn, envelope, facts, rejection)
}

/// Refuses a message and keeps it: should what it rests on change, it is decided again.
fn refuse_for_now(
    desk: &mut Desk,
    rules: &Rules,
    turn: Turn,
    envelope: &Envelope,
    facts: Vec<FactRecord>,
    rejection: Rejection,
) -> Result<Verdict, Undecided> {
    let verdict = refuse(desk, envelope, turn, rejection.clone())?;
    let is_kept = desk.read().number(Table::Meta, WAITING)? < rules.max_waiting / 2
        && has_room(desk, &pending_key(envelope), &envelope.item_hash, turn, false)?;
    if is_kept {
        let record = PendingRecord { facts, ..turn.keep(envelope, rejection) };
        desk.put_pending(&pending_key(envelope), &record)?;
        show(desk, &envelope.item_hash, turn.reception_time, None)?;
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
    mut facts: Vec<FactRecord>,
    otherwise: Rejection,
) -> Result<Verdict, Undecided> {
    let hash = &envelope.item_hash;
    let key = pending_key(envelope);
    // A copy that stood until this one was tried stands again.
    desk.drop_current();
    if !has_room(desk, &key, hash, turn, true)? {
        return Ok(Verdict::Crowded);
    }
    let_go(desk, &key)?;
    if desk.read().number(Table::Meta, WAITING)? >= rules.max_waiting {
        return refuse(desk, envelope, turn, otherwise);
    }
    let is_file = |need: &NeedRecord| match need {
        NeedRecord::File(file) => ItemHash::parse(file).ok(),
        _ => None,
    };
    let files = needs.iter().filter_map(is_file).collect();
    facts.retain(|fact| !needs.contains(&facts::need(&fact.question, hash)));
    let record = PendingRecord { needs, facts, horizon: turn.horizon, ..turn.keep(envelope, otherwise.clone()) };
    desk.put_pending(&key, &record)?;
    show(desk, hash, turn.reception_time, None)?;
    if turn.horizon.is_none() {
        // It has waited long enough to show as refused, and goes on waiting.
        return Ok(Verdict::Rejected(rejection_record(envelope, otherwise)));
    }
    Ok(Verdict::Pending { files })
}

/// The horizon of a copy has passed: it shows as refused, unless another one is still within its own.
pub(super) fn give_up(desk: &mut Desk, key: &[u8], horizon_row: Vec<u8>) -> Result<Option<ItemHash>, StoreError> {
    desk.edit().delete(Table::Horizon, horizon_row);
    let Some(row) = desk.read().get(Table::Pending, key)? else { return Ok(None) };
    let mut record = PendingRecord::read(&row)?;
    record.horizon = None;
    desk.edit().put(Table::Pending, key.to_vec(), record.to_bytes());
    let hash = record.envelope.envelope()?.item_hash;
    show(desk, &hash, record.reception_time, None)?;
    let shown = desk.read().status(&hash)?.map(|record| record.status());
    Ok((shown == Some(MessageStatus::Rejected)).then_some(hash))
}

/// Takes a copy out of the waiting ones, to be decided again.
pub(super) fn resume(desk: &mut Desk, rules: &Rules, key: &[u8]) -> Result<Option<(SignedMessage, Turn)>, StoreError> {
    let Some(record) = let_go(desk, key)? else { return Ok(None) };
    let turn = Turn {
        reception_time: record.reception_time,
        // What was refused for another reason may yet wait for as long as if it had waited from the beginning.
        horizon: record
            .horizon
            .or(Some(record.reception_time.saturating_add(rules.horizon)).filter(|at| *at > rules.now)),
        settled: record.settled,
        has_waited: true,
        is_its_time: false,
        rank: Rank::of_record(record.rank),
    };
    Ok(Some((SignedMessage::known(record.envelope.envelope()?), turn)))
}
