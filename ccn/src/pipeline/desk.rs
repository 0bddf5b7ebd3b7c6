//! The desk of the one who decides: what the store holds, what the batch has decided, and what the current message changes.
//!
//! Functions here keep the tables in step with each other. They know records, no rules.

use super::{facts, rank, ration::Ration};
use crate::{
    host::{self, HostError, Need, TokenBalances, Workload, Write},
    store::{
        Batch, Changes, Reader, StoreError,
        record::{
            BalanceRecord, BasisRecord, CostRecord, FileKind, FileRecord, MessageRecord, NeedRecord, PendingRecord,
            PinRecord, QuarantineRecord, Record as _, RejectionRecord, StatusRecord, WorkloadRecord,
        },
        schema::{
            COUNTED_LABEL, IndexId, KEPT_FILES, Key, Table, Tally, count_key, entry_prefix, hash_key, index_prefix,
            index_suffix, rank_key, split_hash, tally_key,
        },
        standing,
    },
};
use ccn_message::{Envelope, ItemHash, MessageStatus};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// Bytes by which copies of one hash are told apart.
pub(super) const CANDIDATE_BYTES: usize = 8;
/// Bytes of a need in a key.
pub(super) const NEED_BYTES: usize = 32;
/// First byte of a need in a key: those for keys of state are together, so that it is seen at once when there are none.
const OTHER_NEED: u8 = 0;
const STATE_NEED: u8 = 1;
/// Name of the count of waiting messages in `meta`.
pub(super) const WAITING: &[u8] = b"waiting";
/// Names of the count of messages without a plugin in `meta`, and of their bytes.
const UNHANDLED: &[u8] = b"unhandled";
const UNHANDLED_BYTES: &[u8] = b"unhandled-bytes";
/// One sender's messages without a plugin have one part in so many of the room for all.
const SENDER_SHARE: u64 = 16;
/// Name of the next sequence number in `meta`.
const SEQUENCE: &[u8] = b"sequence";

/// The batch at hand.
#[derive(Debug)]
pub(super) struct Desk {
    batch: Arc<Batch>,
    /// Needs that arrived with what was kept, and for which somebody waits.
    woken: Vec<Vec<u8>>,
    /// The same of the current message.
    woken_now: Vec<Vec<u8>>,
    /// Whether anybody waits for a key of state, once it was asked; true is never taken back.
    watches_state: Option<bool>,
    /// Time for movements of credits.
    pub(super) ration: Ration,
}

/// The key of a waiting copy of a message.
pub(super) fn pending_key(envelope: &Envelope) -> Vec<u8> {
    Key::new().hash(&envelope.item_hash).bytes(&rank::candidate(envelope)).done()
}

/// What a message is indexed by, as it stands in keys: what it is counted under, and the beginning of its entry.
fn index_prefixes(record: &MessageRecord) -> Vec<(Vec<u8>, Vec<u8>)> {
    let envelope = &record.envelope;
    let mut entries = vec![
        (IndexId::All, ""),
        (IndexId::Sender, envelope.sender.as_str()),
        (IndexId::Owner, &record.owner),
        (IndexId::Kind, &envelope.kind),
        (IndexId::Chain, envelope.chain()),
    ];
    entries.extend(envelope.channel.iter().map(|channel| (IndexId::Channel, channel.as_str())));
    let labels: Vec<String> = record.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    entries.extend(labels.iter().map(|label| (IndexId::Label, label.as_str())));
    let prefixes = |(id, text)| (index_prefix(id, text), entry_prefix(id, text, &envelope.kind));
    entries.into_iter().map(prefixes).collect()
}

/// What a message counts under and is not indexed by, as it stands in keys.
fn further_counts(record: &MessageRecord) -> Vec<Vec<u8>> {
    let MessageRecord { envelope, owner, .. } = record;
    let channel = envelope.channel.iter().flat_map(|channel| {
        [
            count_key(IndexId::OwnerChannel, &[owner, channel]),
            count_key(IndexId::ChannelKind, &[channel, &envelope.kind]),
        ]
    });
    let labels = record.labels.iter().filter(|(name, _)| name == COUNTED_LABEL);
    let labels = labels.map(|(_, value)| count_key(IndexId::OwnerLabel, &[owner, &envelope.kind, value]));
    let kind = count_key(IndexId::OwnerKind, &[owner, &envelope.kind]);
    channel.chain(labels).chain([kind]).collect()
}

/// A need as it stands in keys.
pub(super) fn need_key(need: &NeedRecord) -> Vec<u8> {
    let mut key = Sha256::digest(need.to_bytes()).to_vec();
    key[0] = if matches!(need, NeedRecord::State(..)) { STATE_NEED } else { OTHER_NEED };
    key
}

/// A need of a plugin as it is kept.
pub(super) fn need_record(need: &Need) -> NeedRecord {
    match need {
        Need::Message(hash) => NeedRecord::Message(hash.to_string()),
        Need::File(hash) => NeedRecord::File(hash.to_string()),
        Need::State(namespace, key) => NeedRecord::State(namespace.clone(), key.clone()),
    }
}

/// The name in `meta` of the bytes of a sender's messages without a plugin.
fn unhandled_of(sender: &str) -> Vec<u8> {
    let digest = Sha256::digest(sender.as_bytes());
    [UNHANDLED, b"/", &digest[..16]].concat()
}

impl Desk {
    pub(super) fn new(batch: Batch, ration: Ration) -> Self {
        Self { batch: Arc::new(batch), woken: Vec::new(), woken_now: Vec::new(), watches_state: None, ration }
    }

    /// For whoever reads while a message is decided.
    pub(super) fn reader(&self) -> Arc<Batch> {
        self.batch.clone()
    }

    pub(super) fn read(&self) -> &Batch {
        &self.batch
    }

    pub(super) fn edit(&mut self) -> &mut Batch {
        Arc::get_mut(&mut self.batch)
            .expect("an instance of a plugin does not outlive its call, nor does what it reads")
    }

    /// Makes changes that somebody else has worked out.
    pub(super) fn apply(&mut self, changes: Changes) {
        let batch = self.edit();
        for ((table, key), value) in changes {
            batch.set(table, key, value);
        }
    }

    /// Keeps what the current message changed.
    pub(super) fn keep(&mut self) {
        self.edit().keep();
        self.woken.append(&mut self.woken_now);
    }

    /// Drops what the current message changed.
    pub(super) fn drop_current(&mut self) {
        self.edit().drop_current();
        self.woken_now.clear();
    }

    /// The needs that arrived since this was last asked.
    pub(super) fn take_woken(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.woken)
    }

    /// Sets the status of a hash, keeping the moment at which it was first seen.
    pub(super) fn set_status(
        &mut self,
        hash: &ItemHash,
        status: MessageStatus,
        reception_time: u64,
        rejection: Option<RejectionRecord>,
    ) -> Result<(), StoreError> {
        let earlier = self.read().status(hash)?.map_or(reception_time, |record| record.reception_time);
        let record = StatusRecord::new(status, earlier.min(reception_time), rejection);
        self.edit().put(Table::Status, hash_key(hash), record.to_bytes());
        Ok(())
    }

    /// Stores a processed message with its indexes.
    pub(super) fn insert(&mut self, hash: &ItemHash, record: &MessageRecord) -> Result<(), StoreError> {
        let batch = self.edit();
        // Numbers begin at 1: zero is what a missing counter reads as.
        let sequence = batch.add(Table::Meta, SEQUENCE.to_vec(), 1)?;
        batch.put(Table::Messages, sequence.to_be_bytes().to_vec(), record.to_bytes());
        batch.put(Table::Sequence, hash_key(hash), sequence.to_be_bytes().to_vec());
        self.list(hash, record, sequence, 1)
    }

    /// Puts a stored message into lists and counts (`difference` 1), or takes it out of them (-1).
    fn list(
        &mut self,
        hash: &ItemHash,
        record: &MessageRecord,
        sequence: u64,
        difference: i64,
    ) -> Result<(), StoreError> {
        let suffix = index_suffix(record.envelope.time, hash, sequence);
        let batch = self.edit();
        for (counted, prefix) in index_prefixes(record) {
            batch.add(Table::Counts, counted, difference)?;
            batch.set(Table::Index, [prefix.as_slice(), &suffix].concat(), (difference > 0).then(Vec::new));
        }
        self.count(record, difference)
    }

    /// Takes a stored message out of lists and counts: it stays, and is not found any more.
    pub(super) fn unlist(&mut self, hash: &ItemHash, record: &MessageRecord) -> Result<(), StoreError> {
        let sequence = self.read().number(Table::Sequence, &hash_key(hash))?;
        self.list(hash, record, sequence, -1)
    }

    /// Counts a message beyond what it is indexed by, or one less.
    fn count(&mut self, record: &MessageRecord, difference: i64) -> Result<(), StoreError> {
        let (sender, kind) = (record.envelope.sender.as_str(), record.envelope.kind.as_str());
        let batch = self.edit();
        for key in further_counts(record) {
            batch.add(Table::Counts, key, difference)?;
        }
        let of_kind = batch.add(Table::Counts, count_key(IndexId::SenderKind, &[sender, kind]), difference)?;
        // The index has counted it already.
        let of_all = batch.number(Table::Counts, &index_prefix(IndexId::Sender, sender))?;
        for (kind, now) in [(kind, of_kind), ("", of_all)] {
            let before = now.saturating_add_signed(-difference);
            if before > 0 {
                batch.delete(Table::Ranks, rank_key(kind, before, sender));
            }
            if now > 0 {
                batch.put(Table::Ranks, rank_key(kind, now, sender), Vec::new());
            }
            if before == 0 || now == 0 {
                batch.add(Table::Tallies, tally_key(Tally::Senders, kind), difference)?;
            }
        }
        Ok(())
    }

    /// Takes a processed message out, with its indexes and with what is said of its removal: one that was removed is in no list any more.
    pub(super) fn remove(&mut self, hash: &ItemHash) -> Result<Option<MessageRecord>, StoreError> {
        let sequence = self.read().number(Table::Sequence, &hash_key(hash))?;
        let Some(record) = self.read().message_at(sequence)? else { return Ok(None) };
        if self.read().get(Table::Removed, &hash_key(hash))?.is_some() {
            self.edit().delete(Table::Removed, hash_key(hash));
        } else {
            self.list(hash, &record, sequence, -1)?;
        }
        let batch = self.edit();
        batch.delete(Table::Removing, standing::removing_key(&record.owner, hash));
        batch.delete(Table::Messages, sequence.to_be_bytes().to_vec());
        batch.delete(Table::Sequence, hash_key(hash));
        Ok(Some(record))
    }

    /// Records a file, or renews its grace. True when it was not here before.
    pub(super) fn add_file(
        &mut self,
        hash: &ItemHash,
        size: u64,
        kind: FileKind,
        grace_until: u64,
    ) -> Result<bool, StoreError> {
        let known = self.read().file(hash)?;
        let mut record = known.unwrap_or(FileRecord { size, kind, grace: None, pins: 0 });
        let batch = self.edit();
        if record.pins == 0 {
            if let Some(grace) = record.grace {
                batch.delete(Table::Grace, Key::new().number(grace).hash(hash).done());
            }
            record.grace = Some(grace_until);
            batch.put(Table::Grace, Key::new().number(grace_until).hash(hash).done(), Vec::new());
        }
        batch.put(Table::Files, hash_key(hash), record.to_bytes());
        if known.is_none() {
            self.arrived(&NeedRecord::File(hash.to_string()))?;
        }
        Ok(known.is_none())
    }

    /// Keeps a file for a message. False when it is not here.
    pub(super) fn pin(&mut self, file: &ItemHash, message: &ItemHash, pin: &PinRecord) -> Result<bool, StoreError> {
        let Some(mut record) = self.read().file(file)? else { return Ok(false) };
        let key = Key::new().hash(file).hash(message).done();
        let batch = self.edit();
        if batch.get(Table::Pins, &key)?.is_none() {
            record.pins += 1;
            if record.pins == 1 {
                batch.add(Table::Meta, KEPT_FILES.to_vec(), 1)?;
            }
        }
        if let Some(grace) = record.grace.take() {
            batch.delete(Table::Grace, Key::new().number(grace).hash(file).done());
        }
        batch.put(Table::Pins, key, pin.to_bytes());
        batch.put(Table::Files, hash_key(file), record.to_bytes());
        Ok(true)
    }

    /// Keeps a file for a message no longer. One that nobody keeps stays for a while.
    pub(super) fn unpin(&mut self, file: &ItemHash, message: &ItemHash, grace_until: u64) -> Result<(), StoreError> {
        let key = Key::new().hash(file).hash(message).done();
        if self.read().get(Table::Pins, &key)?.is_none() {
            return Ok(());
        }
        let record = self.read().file(file)?;
        let batch = self.edit();
        batch.delete(Table::Pins, key);
        if let Some(mut record) = record {
            record.pins = record.pins.saturating_sub(1);
            if record.pins == 0 {
                record.grace = Some(grace_until);
                batch.add(Table::Meta, KEPT_FILES.to_vec(), -1)?;
                batch.put(Table::Grace, Key::new().number(grace_until).hash(file).done(), Vec::new());
            }
            batch.put(Table::Files, hash_key(file), record.to_bytes());
        }
        Ok(())
    }

    /// Charges a message to its address no longer.
    pub(super) fn refund(&mut self, hash: &ItemHash) -> Result<(), StoreError> {
        let Some(row) = self.read().get(Table::Costs, &hash_key(hash))? else { return Ok(()) };
        let cost = CostRecord::read(&row)?;
        let left = crate::ledger::spending(self.read(), &cost.address, cost.payment)?.units() - cost.total().units();
        let batch = self.edit();
        let key = crate::ledger::spending_key(&cost.address, cost.payment);
        match left {
            0 => batch.delete(Table::Spending, key),
            _ => batch.put(Table::Spending, key, left.to_be_bytes().to_vec()),
        }
        batch.delete(Table::Costs, hash_key(hash));
        // It is asked for after the message has gone, too.
        batch.put(Table::Refunded, hash_key(hash), row);
        crate::ledger::count_costs(batch, hash, &cost, -1)
    }

    /// Charges a message to its address.
    pub(super) fn charge(&mut self, hash: &ItemHash, cost: &CostRecord) -> Result<(), StoreError> {
        let spent = crate::ledger::spending(self.read(), &cost.address, cost.payment)? + cost.total();
        let batch = self.edit();
        let key = crate::ledger::spending_key(&cost.address, cost.payment);
        batch.put(Table::Spending, key, spent.units().to_be_bytes().to_vec());
        batch.put(Table::Costs, hash_key(hash), cost.to_bytes());
        batch.delete(Table::Refunded, hash_key(hash));
        crate::ledger::count_costs(batch, hash, cost, 1)
    }

    /// Records balances on one chain as of a block.
    pub(super) fn publish(&mut self, published: &TokenBalances) -> Result<(), StoreError> {
        for (address, amount) in &published.balances {
            let dapp = published.dapp.as_deref().unwrap_or("");
            let key = Key::new().text(address).text(&published.chain).text(dapp).done();
            let new = BalanceRecord::new(*amount, published.height);
            let old = self.read().get(Table::Balances, &key)?.map(|row| BalanceRecord::read(&row)).transpose()?;
            // Of two that speak of one block, the same one counts everywhere.
            let is_newer = |old: BalanceRecord| (new.height, new.amount()) > (old.height, old.amount());
            if old.is_none_or(is_newer) {
                self.edit().put(Table::Balances, key, new.to_bytes());
            }
        }
        Ok(())
    }

    /// Asks for something to be run.
    pub(super) fn request(&mut self, hash: &ItemHash, workload: Workload, owner: &str, now: u64) {
        let record = WorkloadRecord {
            kind: workload.kind.to_owned(),
            vcpus: workload.vcpus,
            memory_mib: workload.memory_mib,
            disk_mib: workload.disk_mib,
            payment: workload.payment,
            node: workload.node,
            owner: owner.to_owned(),
            accepted: now,
        };
        self.edit().put(Table::Workloads, hash_key(hash), record.to_bytes());
    }

    /// Writes the state of a plugin.
    pub(super) fn write_state(&mut self, namespace: &str, writes: Vec<Write>) -> Result<(), StoreError> {
        for (key, value) in writes {
            let place = host::state_key(namespace, &key);
            self.edit().set(Table::State, place, value);
            self.arrived(&NeedRecord::State(namespace.to_owned(), key))?;
        }
        Ok(())
    }

    /// Puts a message aside whose plugin failed.
    pub(super) fn quarantine(
        &mut self,
        envelope: &Envelope,
        plugin: (&str, &str),
        error: &HostError,
        reception_time: u64,
    ) {
        let record = QuarantineRecord {
            plugin: plugin.0.to_owned(),
            sha256: plugin.1.to_owned(),
            class: error.class().name().to_owned(),
            reason: error.to_string(),
            envelope: envelope.into(),
            reception_time,
        };
        self.edit().put(Table::Quarantine, hash_key(&envelope.item_hash), record.to_bytes());
    }

    /// True when somebody may wait for a key of state. Most messages write several, and few ever wait for one.
    fn watches_state(&mut self) -> Result<bool, StoreError> {
        if let Some(watches) = self.watches_state {
            return Ok(watches);
        }
        let rows = self.read().range(Table::Needs, &[STATE_NEED], &[STATE_NEED + 1], 1, false)?;
        Ok(*self.watches_state.insert(!rows.is_empty()))
    }

    /// Keys of `needs` that a message waits or rests on.
    fn put_needs(&mut self, needs: &[NeedRecord], key: &[u8]) {
        for need in needs {
            if matches!(need, NeedRecord::State(..)) {
                self.watches_state = Some(true);
            }
            self.edit().put(Table::Needs, [need_key(need).as_slice(), key].concat(), Vec::new());
        }
    }

    /// Something is here now: whoever waits for it is decided again, in this batch or a later one.
    pub(super) fn arrived(&mut self, need: &NeedRecord) -> Result<(), StoreError> {
        if matches!(need, NeedRecord::State(..)) && !self.watches_state()? {
            return Ok(());
        }
        let key = need_key(need);
        let waiting = self.read().range(Table::Needs, &key, &crate::store::schema::end_of(&key), 1, false)?;
        if !waiting.is_empty() {
            self.edit().put(Table::Wakes, key.clone(), Vec::new());
            self.woken_now.push(key);
        }
        Ok(())
    }

    /// True when there is room for one more message without a plugin: among all, and among those of its sender.
    pub(super) fn unhandled_fits(
        &self,
        record: &PendingRecord,
        most: u64,
        most_bytes: u64,
    ) -> Result<bool, StoreError> {
        let bytes = record.to_bytes().len() as u64;
        let read = |name: &[u8]| self.read().number(Table::Meta, name);
        let (all, all_bytes) = (read(UNHANDLED)?, read(UNHANDLED_BYTES)?);
        let own = read(&unhandled_of(&record.envelope.sender))?;
        Ok(all < most && all_bytes + bytes <= most_bytes && own + bytes <= most_bytes / SENDER_SHARE)
    }

    /// Counts a message without a plugin, or one less.
    fn count_unhandled(&mut self, record: &PendingRecord, sign: i64) -> Result<(), StoreError> {
        if !record.needs.iter().any(|need| matches!(need, NeedRecord::Handler(_))) {
            return Ok(());
        }
        let bytes = i64::try_from(record.to_bytes().len()).unwrap_or(i64::MAX);
        let batch = self.edit();
        batch.add(Table::Meta, UNHANDLED.to_vec(), sign)?;
        batch.add(Table::Meta, UNHANDLED_BYTES.to_vec(), sign * bytes)?;
        batch.add(Table::Meta, unhandled_of(&record.envelope.sender), sign * bytes)?;
        Ok(())
    }

    /// Remembers what a decision rests on.
    pub(super) fn put_basis(&mut self, key: &[u8], hash: &ItemHash, basis: &BasisRecord) {
        let needs: Vec<NeedRecord> = basis.facts.iter().map(|fact| facts::need(&fact.question, hash)).collect();
        self.put_needs(&needs, key);
        self.edit().put(Table::Bases, key.to_vec(), basis.to_bytes());
    }

    /// What a decision rests on.
    pub(super) fn basis(&self, key: &[u8]) -> Result<Option<BasisRecord>, StoreError> {
        let row = self.read().get(Table::Bases, key)?;
        Ok(row.map(|row| BasisRecord::read(&row)).transpose()?)
    }

    /// Forgets what a decision rested on.
    pub(super) fn take_basis(&mut self, key: &[u8], hash: &ItemHash) -> Result<BasisRecord, StoreError> {
        let Some(basis) = self.basis(key)? else { return Ok(BasisRecord::default()) };
        let batch = self.edit();
        for fact in &basis.facts {
            let need = facts::need(&fact.question, hash);
            batch.delete(Table::Needs, [need_key(&need).as_slice(), key].concat());
        }
        batch.delete(Table::Bases, key.to_vec());
        Ok(basis)
    }

    /// Lets a message wait.
    pub(super) fn put_pending(&mut self, key: &[u8], record: &PendingRecord) -> Result<(), StoreError> {
        self.count_unhandled(record, 1)?;
        self.put_needs(&needs_of(key, record), key);
        let batch = self.edit();
        if let Some(horizon) = record.horizon {
            batch.put(Table::Horizon, Key::new().number(horizon).bytes(key).done(), Vec::new());
        }
        if batch.get(Table::Pending, key)?.is_none() {
            batch.add(Table::Meta, WAITING.to_vec(), 1)?;
        }
        batch.put(Table::Pending, key.to_vec(), record.to_bytes());
        Ok(())
    }

    /// Takes a message out of the waiting ones.
    pub(super) fn take_pending(&mut self, key: &[u8]) -> Result<Option<PendingRecord>, StoreError> {
        let Some(row) = self.read().get(Table::Pending, key)? else { return Ok(None) };
        let record = PendingRecord::read(&row)?;
        self.count_unhandled(&record, -1)?;
        let batch = self.edit();
        for need in needs_of(key, &record) {
            batch.delete(Table::Needs, [need_key(&need).as_slice(), key].concat());
        }
        if let Some(horizon) = record.horizon {
            batch.delete(Table::Horizon, Key::new().number(horizon).bytes(key).done());
        }
        batch.delete(Table::Pending, key.to_vec());
        batch.add(Table::Meta, WAITING.to_vec(), -1)?;
        Ok(Some(record))
    }

    /// The waiting copies of a hash, with their keys.
    pub(super) fn pending_of(&self, hash: &ItemHash) -> Result<Vec<(Vec<u8>, PendingRecord)>, StoreError> {
        let rows = self.read().prefixed(Table::Pending, &hash_key(hash))?;
        rows.into_iter().map(|(key, row)| Ok((key, PendingRecord::read(&row)?))).collect()
    }

    /// True when a copy of that hash stands, or is hidden.
    pub(super) fn is_present(&self, hash: &ItemHash) -> Result<bool, StoreError> {
        let key = hash_key(hash);
        let batch = self.read();
        Ok(batch.get(Table::Sequence, &key)?.is_some() || batch.get(Table::Forgotten, &key)?.is_some())
    }
}

/// All rows of `needs` of a waiting message.
pub(super) fn needs_of(key: &[u8], record: &PendingRecord) -> Vec<NeedRecord> {
    let mut needs = record.needs.clone();
    if let Some(hash) = hash_of_pending(key) {
        needs.extend(record.facts.iter().map(|fact| facts::need(&fact.question, &hash)));
    }
    needs
}

/// The hash in the key of a waiting copy.
pub(super) fn hash_of_pending(key: &[u8]) -> Option<ItemHash> {
    Some(split_hash(key)?.0)
}
