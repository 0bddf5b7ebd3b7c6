//! Hashes by what became of their messages and by when those came: a row of `arrivals` for each row of `status`, and how many there are of each.

use super::{
    Reader, StoreError, Walk,
    derived::{count, open, value},
    record::{Record as _, StatusRecord},
    schema::{Key, Table, end_of, split_hash},
};
use ccn_message::{ItemHash, MessageStatus};
use redb::WriteTransaction;
use std::{cmp::Ordering, collections::BTreeMap, iter::Peekable};

/// The beginning of the keys in `own_counts` that count `arrivals`.
const MARK: u8 = b'a';
/// Bytes of the time in a key.
const TIME_BYTES: usize = 8;
/// Rows that are read at a time.
const PAGE: usize = 256;

/// A hash that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// First seen, milliseconds since 1970.
    pub reception_time: u64,
    /// Which message.
    pub item_hash: ItemHash,
    /// What became of it.
    pub status: MessageStatus,
}

/// Rows of `status` that a commit has changed, and what they held; none where there was no such row.
pub(super) type Before = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn prefix(status: MessageStatus) -> Vec<u8> {
    Key::new().text(status.name()).done()
}

/// Brings the rows up to date with those of `status`.
pub(super) fn follow(write: &WriteTransaction, before: Before) -> Result<(), StoreError> {
    let statuses = open(write, Table::Status)?;
    let mut arrivals = open(write, Table::Arrivals)?;
    let mut counts = open(write, Table::OwnCounts)?;
    for (hash, old) in before {
        let place = |row: Vec<u8>| {
            let record = StatusRecord::read(&row).ok()?;
            let prefix = prefix(record.status());
            Some(([&prefix, &record.reception_time.to_be_bytes()[..], &hash].concat(), prefix))
        };
        let (old, new) = (old.and_then(place), value(&statuses, &hash)?.and_then(place));
        if old == new {
            continue;
        }
        if let Some((key, prefix)) = old {
            arrivals.remove(key.as_slice())?;
            count(&mut counts, &count_key(&prefix), -1)?;
        }
        if let Some((key, prefix)) = new {
            arrivals.insert(key.as_slice(), [].as_slice())?;
            count(&mut counts, &count_key(&prefix), 1)?;
        }
    }
    Ok(())
}

fn count_key(prefix: &[u8]) -> Vec<u8> {
    [&[MARK], prefix].concat()
}

/// How many messages have that status.
///
/// # Errors
/// The store fails.
pub fn total(reader: &dyn Reader, status: MessageStatus) -> Result<u64, StoreError> {
    reader.number(Table::OwnCounts, &count_key(&prefix(status)))
}

/// Hashes in the order in which they came, then by hash, of several statuses.
pub struct Arrivals<'a> {
    streams: Vec<Peekable<Stream<'a>>>,
    descending: bool,
}

/// Those of one status.
struct Stream<'a> {
    status: MessageStatus,
    prefix_bytes: usize,
    walk: Walk<'a>,
}

impl<'a> Arrivals<'a> {
    /// Of messages with one of these statuses that came at `start` or later and before `end`, milliseconds since 1970; the last ones first when
    /// `descending`.
    pub fn new(
        reader: &'a dyn Reader,
        statuses: &[MessageStatus],
        (start, end): (Option<u64>, Option<u64>),
        descending: bool,
    ) -> Self {
        let stream = |status: &MessageStatus| {
            let prefix = prefix(*status);
            let at = |time: u64| [&prefix[..], &time.to_be_bytes()].concat();
            let range = (start.map_or_else(|| prefix.clone(), at), end.map_or_else(|| end_of(&prefix), at));
            let walk = Walk::new(reader, Table::Arrivals, range, descending, PAGE);
            Stream { status: *status, prefix_bytes: prefix.len(), walk }.peekable()
        };
        Self { streams: statuses.iter().map(stream).collect(), descending }
    }
}

impl Iterator for Stream<'_> {
    type Item = Result<Arrival, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = match self.walk.next()? {
                Ok((key, _)) => key,
                Err(error) => return Some(Err(error)),
            };
            let parts = key.get(self.prefix_bytes..).and_then(<[u8]>::split_first_chunk::<TIME_BYTES>);
            if let Some((time, hash)) = parts
                && let Some((item_hash, _)) = split_hash(hash)
            {
                let reception_time = u64::from_be_bytes(*time);
                return Some(Ok(Arrival { reception_time, item_hash, status: self.status }));
            }
        }
    }
}

impl Iterator for Arrivals<'_> {
    type Item = Result<Arrival, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut best: Option<(usize, (u64, ItemHash))> = None;
        for place in 0..self.streams.len() {
            let found = match self.streams[place].peek() {
                None => continue,
                // An error comes before all else.
                Some(Err(_)) => return self.streams[place].next(),
                Some(Ok(arrival)) => (arrival.reception_time, arrival.item_hash.clone()),
            };
            let wanted = if self.descending { Ordering::Greater } else { Ordering::Less };
            if best.as_ref().is_none_or(|(_, other)| found.cmp(other) == wanted) {
                best = Some((place, found));
            }
        }
        self.streams[best?.0].next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changes, Store, schema::hash_key};
    use proptest::prelude::*;

    const STATUSES: [MessageStatus; 3] = [MessageStatus::Pending, MessageStatus::Processed, MessageStatus::Rejected];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// However statuses come, change and go, the lists are what the table of statuses says.
        #[test]
        fn arrivals_follow_statuses(
            commits in proptest::collection::vec(proptest::collection::btree_map(0_u8..12, proptest::option::of((0_usize..3, 0_u64..6)), 1..8), 1..6),
            bounds in any::<(Option<u8>, Option<u8>)>(),
            descending: bool,
        ) {
            let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
            let mut model = BTreeMap::new();
            for commit in commits {
                let mut changes = Changes::new();
                for (number, status) in commit {
                    let hash = ItemHash::sha256_of(&[number]);
                    let row = status.map(|(place, time)| StatusRecord::new(STATUSES[place], time, None));
                    changes.insert((Table::Status, hash_key(&hash)), row.as_ref().map(|row| row.to_bytes()));
                    match status {
                        Some((place, time)) => model.insert(hash, (time, STATUSES[place])),
                        None => model.remove(&hash),
                    };
                }
                store.commit(&changes).expect("a commit");
            }
            let snapshot = store.snapshot().expect("a snapshot");
            let bounds = (bounds.0.map(|time| u64::from(time % 7)), bounds.1.map(|time| u64::from(time % 7)));
            for statuses in [&STATUSES[..], &STATUSES[1..2]] {
                let is_meant = |time: u64, status: &MessageStatus| {
                    statuses.contains(status) && bounds.0.is_none_or(|start| time >= start) && bounds.1.is_none_or(|end| time < end)
                };
                let mut expected: Vec<(u64, ItemHash)> = model.iter().filter(|(_, (time, status))| is_meant(*time, status))
                    .map(|(hash, (time, _))| (*time, hash.clone())).collect();
                expected.sort();
                if descending { expected.reverse(); }
                let found = Arrivals::new(&snapshot, statuses, bounds, descending).map(|arrival| {
                    let arrival = arrival.expect("a row");
                    assert_eq!(model[&arrival.item_hash].1, arrival.status);
                    (arrival.reception_time, arrival.item_hash)
                });
                prop_assert_eq!(found.collect::<Vec<_>>(), expected);
            }
            for status in STATUSES {
                let count = model.values().filter(|(_, other)| *other == status).count() as u64;
                prop_assert_eq!(total(&snapshot, status).expect("a number"), count);
            }
        }
    }
}
