//! Movements of credits in the store, and the lots that follow from them.
//!
//! A message that comes after every movement of the addresses that it concerns is simply applied. One that comes late has the lots of those
//! addresses, and of all that transfers link them with, made anew from their movements.

use super::lots::{Lots, Mover};
use crate::store::{
    Batch, Reader, StoreError,
    record::{CreditRecord, LotRecord, Movement, Record as _},
    schema::{Key, Table, end_of},
};
use ccn_message::ItemHash;
use std::collections::{BTreeMap, BTreeSet};

/// When a message counts among others.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// The content's time, seconds since 1970.
    pub time: f64,
    /// Its hash.
    pub hash: ItemHash,
}

impl Moment {
    fn key(&self) -> Vec<u8> {
        Key::new().time(self.time).hash(&self.hash).done()
    }
}

/// Credits that were to be handed on and were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transfer of {wanted} credits is not covered: {taken} are there")]
pub struct NotCovered {
    /// Credits asked for.
    pub wanted: u64,
    /// Credits found.
    pub taken: u64,
}

/// The addresses that a movement concerns.
fn addresses(movement: &Movement) -> impl Iterator<Item = &String> {
    let (one, other) = match movement {
        Movement::Grant { address, .. } | Movement::Expense { address, .. } => (address, None),
        Movement::Transfer { sender, recipient, .. } => (sender, Some(recipient)),
    };
    std::iter::once(one).chain(other)
}

/// The addresses that have more afterwards.
pub(crate) fn receivers(movements: &[Movement]) -> BTreeSet<&str> {
    let mut receivers = BTreeSet::new();
    for movement in movements {
        match movement {
            Movement::Grant { address, .. } => receivers.insert(address.as_str()),
            Movement::Transfer { recipient, .. } => receivers.insert(recipient.as_str()),
            Movement::Expense { .. } => false,
        };
    }
    receivers
}

/// Moves credits by a message, into the current layer of the batch. When a transfer is not covered at its moment, nothing that was changed is to
/// be kept.
///
/// # Errors
/// The store fails.
pub(crate) fn move_credits(
    batch: &mut Batch,
    moment: &Moment,
    movements: &[Movement],
) -> Result<Result<(), NotCovered>, StoreError> {
    let place = moment.key();
    let concerned: BTreeSet<&str> = movements.iter().flat_map(addresses).map(String::as_str).collect();
    let mut late = BTreeSet::new();
    for address in &concerned {
        let prefix = Key::new().text(address).done();
        let last = batch.range(Table::Movers, &prefix, &end_of(&prefix), 1, true)?;
        if last.first().is_some_and(|(key, _)| key[prefix.len()..] > place[..]) {
            late.insert((*address).to_owned());
        }
    }
    batch.put(Table::Credits, place.clone(), CreditRecord { movements: movements.to_vec() }.to_bytes());
    for address in &concerned {
        batch.put(Table::Movers, Key::new().text(address).bytes(&place).done(), Vec::new());
    }
    let linked = linked(batch, late)?;
    let mut shortfalls = Vec::new();

    // Those for whom this is the last movement.
    let mut lots = Lots::default();
    for address in concerned.iter().filter(|address| !linked.addresses.contains(**address)) {
        lots.owners.insert((*address).to_owned(), read(batch, address)?);
    }
    let before = lots.clone();
    let is_linked = |movement: &Movement| addresses(movement).any(|address| linked.addresses.contains(address));
    let mover = Mover { key: &place, time_ms: milliseconds(moment.time) };
    shortfalls.extend(lots.apply(&mover, movements, |movement| !is_linked(movement)));
    write(batch, &before, &lots);

    // Those whose lots are made anew.
    let mut before = Lots::default();
    for address in &linked.addresses {
        before.owners.insert(address.clone(), read(batch, address)?);
    }
    let mut lots = Lots::default();
    for (key, record) in &linked.records {
        let time = key.get(..8).and_then(|time| time.try_into().ok()).map_or(0.0, crate::store::schema::time_of_key);
        let found = lots.apply(&Mover { key, time_ms: milliseconds(time) }, &record.movements, is_linked);
        if *key == place {
            shortfalls.extend(found);
        }
    }
    write(batch, &before, &lots);
    let refused = shortfalls.first().map(|short| NotCovered { wanted: short.wanted, taken: short.taken });
    Ok(refused.map_or(Ok(()), Err))
}

/// Addresses that transfers link, and everything that moved credits of theirs, in order.
#[derive(Default)]
struct Linked {
    addresses: BTreeSet<String>,
    records: BTreeMap<Vec<u8>, CreditRecord>,
}

fn linked(reader: &dyn Reader, seeds: BTreeSet<String>) -> Result<Linked, StoreError> {
    let mut linked = Linked::default();
    let mut open: Vec<String> = seeds.into_iter().collect();
    while let Some(address) = open.pop() {
        if !linked.addresses.insert(address.clone()) {
            continue;
        }
        let prefix = Key::new().text(&address).done();
        for (key, _) in reader.prefixed(Table::Movers, &prefix)? {
            let place = &key[prefix.len()..];
            if !linked.records.contains_key(place) {
                let Some(row) = reader.get(Table::Credits, place)? else { continue };
                linked.records.insert(place.to_vec(), CreditRecord::read(&row)?);
            }
            for movement in &linked.records[place].movements {
                if addresses(movement).any(|each| *each == address) {
                    open.extend(addresses(movement).filter(|each| !linked.addresses.contains(*each)).cloned());
                }
            }
        }
    }
    Ok(linked)
}

fn read(reader: &dyn Reader, address: &str) -> Result<BTreeMap<Vec<u8>, LotRecord>, StoreError> {
    let prefix = Key::new().text(address).done();
    let row = |(key, value): (Vec<u8>, Vec<u8>)| Ok((key[prefix.len()..].to_vec(), LotRecord::read(&value)?));
    reader.prefixed(Table::Lots, &prefix)?.into_iter().map(row).collect()
}

fn write(batch: &mut Batch, before: &Lots, after: &Lots) {
    let none = BTreeMap::new();
    for address in before.owners.keys().chain(after.owners.keys().filter(|key| !before.owners.contains_key(*key))) {
        let old = before.owners.get(address).unwrap_or(&none);
        let new = after.owners.get(address).unwrap_or(&none);
        let place = |key: &[u8]| Key::new().text(address).bytes(key).done();
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            batch.delete(Table::Lots, place(key));
        }
        for (key, lot) in new.iter().filter(|(key, lot)| old.get(*key) != Some(lot)) {
            batch.put(Table::Lots, place(key), lot.to_bytes());
        }
    }
}

/// Seconds as milliseconds; before 1970 is 0.
fn milliseconds(seconds: f64) -> u64 {
    // The cast saturates.
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use proptest::prelude::*;

    fn movement() -> impl Strategy<Value = Movement> {
        let address = || (0_u8..5).prop_map(|number| format!("0x{number}"));
        let expiration = proptest::option::of(1_000_u64..40_000);
        prop_oneof![
            (address(), 1_u64..50, expiration.clone()).prop_map(|(address, amount, expiration)| Movement::Grant {
                address,
                amount,
                expiration,
                details: "{}".into()
            }),
            (address(), 0_u64..50).prop_map(|(address, amount)| Movement::Expense {
                address,
                amount,
                details: "{}".into()
            }),
            (address(), address(), 0_u64..50, expiration).prop_map(|(sender, recipient, amount, expiration)| {
                Movement::Transfer { sender, recipient, amount, expiration }
            }),
        ]
    }

    fn lots(order: &[(u8, Vec<Movement>)], batches: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("s.redb")).expect("a store");
        for group in order.chunks(order.len().div_ceil(batches).max(1)) {
            let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
            for (number, movements) in group {
                // Many messages at one moment: the hash decides.
                let moment = Moment { time: f64::from(number / 3), hash: ItemHash::sha256_of(&[*number]) };
                let _ = move_credits(&mut batch, &moment, movements).expect("no error");
                batch.keep();
            }
            store.commit(batch.changes()).expect("a commit");
        }
        store.snapshot().expect("a snapshot").prefixed(Table::Lots, b"").expect("rows")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// The lots are a function of the set of movements: no order of arrival, nor cut into commits, makes a difference.
        #[test]
        fn any_order_of_arrival_leaves_the_same_lots(
            (sorted, shuffled) in proptest::collection::vec(proptest::collection::vec(movement(), 1..4), 1..16).prop_flat_map(|messages| {
                let messages: Vec<(u8, Vec<Movement>)> = (0..).zip(messages).collect();
                let moment = |(number, _): &(u8, Vec<Movement>)| (number / 3, ItemHash::sha256_of(&[*number]));
                let mut sorted = messages.clone();
                sorted.sort_by_key(moment);
                (Just(sorted), Just(messages).prop_shuffle())
            }),
            batches in 1_usize..4,
        ) {
            prop_assert_eq!(lots(&sorted, 1), lots(&shuffled, batches));
        }
    }

    #[test]
    fn a_late_grant_covers_what_came_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("s.redb")).expect("a store");
        let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
        let at = |time: f64| Moment { time, hash: ItemHash::sha256_of(&time.to_be_bytes()) };
        let transfer = [Movement::Transfer { sender: "A".into(), recipient: "B".into(), amount: 5, expiration: None }];
        let refused = move_credits(&mut batch, &at(2.0), &transfer).expect("no error");
        assert_eq!(refused, Err(NotCovered { wanted: 5, taken: 0 }));
        batch.drop_current();
        let grant = [Movement::Grant { address: "A".into(), amount: 7, expiration: None, details: "{}".into() }];
        for (moment, movements) in [(at(3.0), &grant), (at(1.0), &grant)] {
            move_credits(&mut batch, &moment, movements).expect("no error").expect("grants are covered");
            batch.keep();
        }
        move_credits(&mut batch, &at(2.0), &transfer).expect("no error").expect("covered by the earlier grant");
        batch.keep();
        let balance = super::super::balance(&batch, "A", 0).expect("a balance");
        assert_eq!((balance.credits, balance.lots.len()), (9, 2));
    }
}
