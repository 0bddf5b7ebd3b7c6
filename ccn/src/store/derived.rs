//! Tables that follow from others: kept by every commit from what it changes, as the digest is.
//!
//! | table | follows from |
//! |---|---|
//! | `chronicle` | `messages`, `removed` and `confirmations` |
//! | `ended` | `forgotten`, `forgets` and `removed` |
//! | `holdings` | `balances` and `chain_balances` |
//! | `grantees` | `delegations` ([`super::grantees`]) |
//! | `owned` | `pins` and `files` ([`super::owned`]) |
//! | `arrivals` | `status` ([`super::arrivals`]) |
//! | `own_counts` | `ended`, `holdings`, `owned`, `arrivals` |
//!
//! They hold this node's own view, like what they follow from in part, so they are no part of the state digest. Records that cannot be read count as
//! missing: whoever asks for them is told.

use super::{
    StoreError, arrivals,
    confirmation::ConfirmationRecord,
    grantees, number, owned,
    record::{BalanceRecord, ForgottenRecord, MessageRecord, Record as _, RemovedRecord},
    schema::{
        Ending, INDEX_SUFFIX_BYTES, IndexId, Key, Table, end_of, hash_key, index_prefix, index_suffix, split_hash,
        split_text, time_key,
    },
    standing::Position,
};
use ccn_message::ItemHash;
use redb::{ReadableTable as _, Table as Open, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of the first confirmation in a key of `chronicle`.
pub(super) const FIRST_BYTES: usize = 8;
/// The beginning of the keys in `own_counts` that count `holdings`.
const HOLDINGS_MARK: u8 = b'h';
/// The beginning of the rows of `ended` that say under which keys a message is there.
const WHERE_MARK: u8 = 0;

type Suffix = [u8; INDEX_SUFFIX_BYTES];
pub(super) type Bytes = &'static [u8];
/// Keys, and what they held; none where there was no such row.
type Before = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The key in `own_counts` of the rows of `holdings` on a chain; on all when it is empty.
#[must_use]
pub fn holdings_count_key(chain: &str) -> Vec<u8> {
    Key::new().bytes(&[HOLDINGS_MARK]).text(chain).done()
}

/// What the rows of `ended` of one property begin with; also their key in `own_counts`.
#[must_use]
pub fn ended_prefix(ending: Ending, id: IndexId, text: &str) -> Vec<u8> {
    [&[ending as u8], index_prefix(id, text).as_slice()].concat()
}

/// What a commit has changed of the tables that others follow from.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// By hash key: where the message was in the index, and where it is.
    messages: BTreeMap<Vec<u8>, Moved>,
    /// By hash key: what the confirmations that changed were.
    confirmations: BTreeMap<Vec<u8>, Before>,
    /// By hash key: whether the message was removed before.
    removed: BTreeMap<Vec<u8>, bool>,
    /// Hash keys.
    ended: BTreeSet<Vec<u8>>,
    /// Address and chain, as in the keys.
    holdings: BTreeSet<Vec<u8>>,
    /// Rows of `status`.
    statuses: arrivals::Before,
    /// Rows of `pins`.
    pins: owned::Before,
    /// Owners of delegations.
    granters: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Moved {
    from: Option<Suffix>,
    to: Option<Suffix>,
}

impl Touched {
    /// A row is not as it was.
    pub(super) fn row(&mut self, table: Table, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) {
        let hash_of = |key: &[u8]| split_hash(key).map(|(_, rest)| key[..key.len() - rest.len()].to_vec());
        match table {
            Table::Messages => {
                let place = |row: &[u8]| suffix_of(number(key), row);
                if let Some((hash, suffix)) = old.and_then(place) {
                    self.messages.entry(hash).or_default().from = Some(suffix);
                }
                if let Some((hash, suffix)) = new.and_then(place) {
                    self.messages.entry(hash).or_default().to = Some(suffix);
                }
            }
            Table::Confirmations => {
                if let Some(hash) = hash_of(key) {
                    self.confirmations.entry(hash).or_default().push((key.to_vec(), old.map(<[u8]>::to_vec)));
                }
            }
            Table::Removed => {
                self.removed.extend(hash_of(key).map(|hash| (hash, old.is_some())));
                self.ended.extend(hash_of(key));
            }
            Table::Forgotten | Table::Forgets => self.ended.extend(hash_of(key)),
            Table::Delegations => self.granters.extend(grantees::owner_of(key)),
            Table::Status => {
                self.statuses.insert(key.to_vec(), old.map(<[u8]>::to_vec));
            }
            Table::Pins => {
                self.pins.insert(key.to_vec(), old.map(<[u8]>::to_vec));
            }
            Table::Balances | Table::ChainBalances => self.holdings.extend(holder_of(key)),
            _ => {}
        }
    }

    /// Brings the tables that follow up to date.
    pub(super) fn apply(self, write: &WriteTransaction) -> Result<(), StoreError> {
        if !self.messages.is_empty() || !self.confirmations.is_empty() || !self.removed.is_empty() {
            chronicle(write, self.messages, self.confirmations, &self.removed)?;
        }
        if !self.ended.is_empty() {
            end(write, self.ended)?;
        }
        if !self.holdings.is_empty() {
            hold(write, self.holdings)?;
        }
        if !self.statuses.is_empty() {
            arrivals::follow(write, self.statuses)?;
        }
        if !self.pins.is_empty() {
            owned::follow(write, self.pins)?;
        }
        if !self.granters.is_empty() {
            grantees::follow(write, self.granters)?;
        }
        Ok(())
    }
}

/// The hash key of a message, and where it is in the index.
fn suffix_of(sequence: u64, row: &[u8]) -> Option<(Vec<u8>, Suffix)> {
    let record = MessageRecord::read(row).ok()?;
    let hash = ItemHash::parse(record.envelope.item_hash()).ok()?;
    Some((hash_key(&hash), index_suffix(record.envelope.time, &hash, sequence)))
}

/// The address and the chain of a key of balances, unless these tokens are locked in an application.
fn holder_of(key: &[u8]) -> Option<Vec<u8>> {
    let (_, rest) = split_text(key)?;
    let (_, rest) = split_text(rest)?;
    // Tables of a chain name no application.
    let is_free = rest.is_empty() || rest == [0];
    is_free.then(|| key[..key.len() - rest.len()].to_vec())
}

pub(super) fn open(write: &WriteTransaction, table: Table) -> Result<Open<'_, Bytes, Bytes>, StoreError> {
    Ok(write.open_table(table.definition())?)
}

pub(super) fn value(table: &Open<'_, Bytes, Bytes>, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

/// When a message was first confirmed, of rows of `confirmations`; all ones where never.
fn first<'a>(rows: impl Iterator<Item = &'a [u8]>) -> u64 {
    let times = rows.filter_map(|row| Some(ConfirmationRecord::read(row).ok()?.time));
    times.min().unwrap_or(u64::MAX)
}

fn chronicle(
    write: &WriteTransaction,
    mut messages: BTreeMap<Vec<u8>, Moved>,
    mut changed: BTreeMap<Vec<u8>, Before>,
    were_removed: &BTreeMap<Vec<u8>, bool>,
) -> Result<(), StoreError> {
    let (sequences, records) = (open(write, Table::Sequence)?, open(write, Table::Messages)?);
    let removed = open(write, Table::Removed)?;
    let confirmations = open(write, Table::Confirmations)?;
    let mut chronicle = open(write, Table::Chronicle)?;
    for hash in changed.keys().chain(were_removed.keys()) {
        if messages.contains_key(hash) {
            continue;
        }
        let Some(sequence) = value(&sequences, hash)? else { continue };
        let place = value(&records, &sequence)?.and_then(|row| suffix_of(number(&sequence), &row));
        if let Some((_, suffix)) = place {
            messages.insert(hash.clone(), Moved { from: Some(suffix), to: Some(suffix) });
        }
    }
    for (hash, Moved { from, to }) in messages {
        // One that was removed is in no list.
        let is_removed = value(&removed, &hash)?.is_some();
        let was_removed = were_removed.get(&hash).copied().unwrap_or(is_removed);
        let (from, to) = (from.filter(|_| !was_removed), to.filter(|_| !is_removed));
        let changed = changed.remove(&hash).unwrap_or_default();
        let mut after = u64::MAX;
        let mut before = first(changed.iter().filter_map(|(_, old)| old.as_deref()));
        for row in confirmations.range(hash.as_slice()..end_of(&hash).as_slice())? {
            let (key, row) = row?;
            let time = first(std::iter::once(row.value()));
            after = after.min(time);
            if !changed.iter().any(|(other, _)| other.as_slice() == key.value()) {
                before = before.min(time);
            }
        }
        let key = |first: u64, suffix: Suffix| [&first.to_be_bytes()[..], &suffix].concat();
        let (old, new) = (from.map(|suffix| key(before, suffix)), to.map(|suffix| key(after, suffix)));
        if old == new {
            continue;
        }
        if let Some(old) = old {
            chronicle.remove(old.as_slice())?;
        }
        if let Some(new) = new {
            chronicle.insert(new.as_slice(), [].as_slice())?;
        }
    }
    Ok(())
}

/// Adds to a count; one that becomes zero is removed.
pub(super) fn count(counts: &mut Open<'_, Bytes, Bytes>, key: &[u8], difference: i64) -> Result<(), StoreError> {
    let sum = value(counts, key)?.map_or(0, |value| number(&value)).saturating_add_signed(difference);
    match sum {
        0 => counts.remove(key)?,
        _ => counts.insert(key, sum.to_be_bytes().as_slice())?,
    };
    Ok(())
}

fn hold(write: &WriteTransaction, holders: BTreeSet<Vec<u8>>) -> Result<(), StoreError> {
    let (published, seen) = (open(write, Table::Balances)?, open(write, Table::ChainBalances)?);
    let mut holdings = open(write, Table::Holdings)?;
    let mut counts = open(write, Table::OwnCounts)?;
    for holder in holders {
        // What this node reads from a chain itself goes over what is said about it.
        let row = match value(&seen, &holder)? {
            Some(row) => Some(row),
            None => value(&published, &[holder.as_slice(), &[0]].concat())?,
        };
        let amount = row.and_then(|row| BalanceRecord::read(&row).ok()).map(|record| record.amount().units());
        let old = match amount {
            Some(units) => holdings.insert(holder.as_slice(), units.to_be_bytes().as_slice())?.is_some(),
            None => holdings.remove(holder.as_slice())?.is_some(),
        };
        let difference = i64::from(amount.is_some()) - i64::from(old);
        let chain = split_text(&holder).and_then(|(_, rest)| split_text(rest)).map_or("", |(chain, _)| chain);
        if difference != 0 {
            count(&mut counts, &holdings_count_key(""), difference)?;
            count(&mut counts, &holdings_count_key(chain), difference)?;
        }
    }
    Ok(())
}

fn end(write: &WriteTransaction, hashes: BTreeSet<Vec<u8>>) -> Result<(), StoreError> {
    let (forgotten, forgets) = (open(write, Table::Forgotten)?, open(write, Table::Forgets)?);
    let removed = open(write, Table::Removed)?;
    let mut ended = open(write, Table::Ended)?;
    let mut counts = open(write, Table::OwnCounts)?;
    for hash in hashes {
        let mut rows = Vec::new();
        if let Some(record) = value(&forgotten, &hash)?.and_then(|row| ForgottenRecord::read(&row).ok()) {
            let named = forgets.range(hash.as_slice()..end_of(&hash).as_slice())?.next().transpose()?;
            let named = named.map(|(key, _)| Position::from_bytes(&key.value()[hash.len()..]));
            let inherited = record.inherited.iter().map(|position| Position::from_bytes(position));
            let first = named.into_iter().chain(inherited).min();
            let time = first.map_or(record.message.content_time, |position| position.time());
            rows.extend(keys_of(Ending::Forgotten, &record.message, time, &hash));
        }
        if let Some(record) = value(&removed, &hash)?.and_then(|row| RemovedRecord::read(&row).ok()) {
            let time = record.removed_at as f64 / 1e3;
            rows.extend(keys_of(Ending::Removed, &record.message, time, &hash));
        }
        let place = [&[WHERE_MARK], hash.as_slice()].concat();
        let old = value(&ended, &place)?.and_then(|row| postcard::from_bytes::<Vec<(Vec<u8>, usize)>>(&row).ok());
        for (key, prefix) in old.unwrap_or_default() {
            if ended.remove(key.as_slice())?.is_some() {
                count(&mut counts, key.get(..prefix).unwrap_or_default(), -1)?;
            }
        }
        for (key, prefix) in &rows {
            if ended.insert(key.as_slice(), [].as_slice())?.is_none() {
                count(&mut counts, &key[..*prefix], 1)?;
            }
        }
        match postcard::to_stdvec(&rows) {
            Ok(row) if !rows.is_empty() => ended.insert(place.as_slice(), row.as_slice())?,
            _ => ended.remove(place.as_slice())?,
        };
    }
    Ok(())
}

/// The rows of `ended` of a message, and how long the part is that others share.
fn keys_of(ending: Ending, record: &MessageRecord, time: f64, hash: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let envelope = &record.envelope;
    let properties = [
        (IndexId::All, ""),
        (IndexId::Sender, envelope.sender.as_str()),
        (IndexId::Owner, &record.owner),
        (IndexId::Kind, &envelope.kind),
    ];
    let key = |(id, text)| {
        let prefix = ended_prefix(ending, id, text);
        ([prefix.as_slice(), &time_key(time), hash].concat(), prefix.len())
    };
    properties.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changes, Reader as _, Store, confirmation};
    use ccn_message::{
        Amount,
        sign::{Account, Draft},
    };

    struct Rows(Store);

    /// A row to set; none: to delete.
    type Set = (Table, Vec<u8>, Option<Vec<u8>>);

    impl Rows {
        fn new() -> Self {
            Self(Store::on(redb::backends::InMemoryBackend::new()).expect("a store"))
        }

        fn set(&self, rows: &[Set]) {
            let changes = rows.iter().map(|(table, key, value)| ((*table, key.clone()), value.clone()));
            self.0.commit(&changes.collect::<Changes>()).expect("a commit");
        }

        fn of(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
            self.0.snapshot().expect("a snapshot").prefixed(table, &[]).expect("rows")
        }
    }

    fn message(time: f64) -> (ItemHash, MessageRecord) {
        let account = Account::ethereum([7; 32]).expect("a key");
        let envelope = Draft::new("POST", r#"{"type":"x","content":{}}"#).time(time).sign(&account);
        let record = MessageRecord {
            envelope: (&envelope).into(),
            content: None,
            size: 1,
            owner: envelope.sender.clone(),
            content_time: time,
            labels: Vec::new(),
            reception_time: 0,
        };
        (envelope.item_hash, record)
    }

    #[test]
    fn messages_are_where_their_first_confirmation_puts_them() {
        let rows = Rows::new();
        let (hash, record) = message(5.0);
        let stored = [
            (Table::Messages, 1_u64.to_be_bytes().to_vec(), Some(record.to_bytes())),
            (Table::Sequence, hash_key(&hash), Some(1_u64.to_be_bytes().to_vec())),
        ];
        let confirmed = |height: u64, time: u64| {
            let record = ConfirmationRecord { time, publisher: "0xe".into() };
            (Table::Confirmations, confirmation::key(&hash, "ETH", "i", height, &[1; 32]), Some(record.to_bytes()))
        };
        let gone = |(table, key, _): &Set| (*table, key.clone(), None);
        let check = |first: Option<u64>| {
            let found: Vec<Vec<u8>> = rows.of(Table::Chronicle).into_iter().map(|(key, _)| key).collect();
            let key = |first: u64| [&first.to_be_bytes()[..], &index_suffix(5.0, &hash, 1)].concat();
            assert_eq!(found, first.map(key).into_iter().collect::<Vec<_>>());
        };
        let (late, early) = (confirmed(9, 90), confirmed(3, 30));
        // A confirmation of what is not here yet.
        rows.set(std::slice::from_ref(&late));
        check(None);
        rows.set(&stored);
        check(Some(90));
        rows.set(std::slice::from_ref(&early));
        check(Some(30));
        rows.set(&[gone(&early), gone(&late)]);
        check(Some(u64::MAX));
        rows.set(&[early.clone(), gone(&stored[0]), gone(&stored[1])]);
        check(None);
    }

    #[test]
    fn what_is_hidden_stands_under_the_first_that_hides_it() {
        let rows = Rows::new();
        let (hash, message) = message(5.0);
        let at = |time: f64| Position::new(time, &ItemHash::sha256_of(b"forget"));
        let named = |time: f64, value: Option<Vec<u8>>| (Table::Forgets, at(time).key_under(&hash), value);
        let record = |inherited: Vec<Vec<u8>>| {
            let record = ForgottenRecord { message: message.clone(), inherited, purged: false, purge_at: 0 };
            (Table::Forgotten, hash_key(&hash), Some(record.to_bytes()))
        };
        let check = |time: Option<f64>| {
            let prefix = ended_prefix(Ending::Forgotten, IndexId::All, "");
            let found: Vec<Vec<u8>> =
                rows.of(Table::Ended).into_iter().map(|(key, _)| key).filter(|key| key.starts_with(&prefix)).collect();
            let key = |time: f64| [prefix.as_slice(), &time_key(time), &hash_key(&hash)].concat();
            assert_eq!(found, time.map(key).into_iter().collect::<Vec<_>>());
            let count = rows.0.snapshot().expect("a snapshot").number(Table::OwnCounts, &prefix).expect("a number");
            assert_eq!(count, found.len() as u64);
        };
        rows.set(&[named(9.0, Some(Vec::new()))]);
        check(None);
        rows.set(&[record(Vec::new())]);
        check(Some(9.0));
        rows.set(&[named(7.0, Some(Vec::new()))]);
        check(Some(7.0));
        rows.set(&[record(vec![at(6.0).bytes().to_vec()]), named(7.0, None)]);
        check(Some(6.0));
        rows.set(&[(Table::Forgotten, hash_key(&hash), None)]);
        check(None);
        assert_eq!((rows.of(Table::Ended), rows.of(Table::OwnCounts)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_this_node_sees_goes_over_what_is_said() {
        let rows = Rows::new();
        let balance = |amount: i128| Some(BalanceRecord::new(Amount::from_integer(amount), 1).to_bytes());
        let published = |chain: &str, dapp: &str, amount| {
            (Table::Balances, Key::new().text("0xA").text(chain).text(dapp).done(), amount)
        };
        let seen = |amount| (Table::ChainBalances, Key::new().text("0xA").text("ETH").done(), amount);
        let check = |expect: &[(&str, i128)]| {
            let found = rows.of(Table::Holdings);
            let row = |(chain, amount): &(&str, i128)| {
                let units = Amount::from_integer(*amount).units().to_be_bytes().to_vec();
                (Key::new().text("0xA").text(chain).done(), units)
            };
            assert_eq!(found, expect.iter().map(row).collect::<Vec<_>>());
            let snapshot = rows.0.snapshot().expect("a snapshot");
            let count = |chain: &str| snapshot.number(Table::OwnCounts, &holdings_count_key(chain)).expect("a number");
            assert_eq!(count(""), expect.len() as u64);
            assert_eq!(count("ETH"), expect.iter().filter(|(chain, _)| *chain == "ETH").count() as u64);
        };
        rows.set(&[
            published("ETH", "", balance(1)),
            published("ETH", "farm", balance(9)),
            published("SOL", "", balance(2)),
        ]);
        check(&[("ETH", 1), ("SOL", 2)]);
        rows.set(&[seen(balance(5))]);
        check(&[("ETH", 5), ("SOL", 2)]);
        rows.set(&[published("ETH", "", None), published("SOL", "", None)]);
        check(&[("ETH", 5)]);
        rows.set(&[seen(None)]);
        check(&[]);
        assert_eq!(rows.of(Table::OwnCounts), Vec::new());
    }
}
