//! Movements of credits in the store, and the lots that follow from them.
//!
//! A message that comes after every movement of the addresses that it concerns is simply applied. One that comes late has the lots of those
//! addresses, and of all that transfers link them with, made anew from their movements.

use super::{
    history::{self, minter},
    lots::{Lots, Mover, Shortfall},
};
use crate::store::{
    Batch, Reader, StoreError,
    record::{CreditRecord, LotRecord, Movement, Record as _},
    schema::{Key, Table, Tally, end_of, tally_key},
    standing::Position,
};
use ccn_message::ItemHash;
use std::collections::{BTreeMap, BTreeSet};

/// Credits that were to be handed on and were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transfer of {wanted} credits is not covered: {taken} are there")]
pub struct NotCovered {
    /// Credits asked for.
    pub wanted: u64,
    /// Credits found.
    pub taken: u64,
}

impl From<Shortfall> for NotCovered {
    fn from(Shortfall { wanted, taken }: Shortfall) -> Self {
        Self { wanted, taken }
    }
}

/// What a change in the ledger comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Why the transfers of the message itself are not covered: nothing of it counts, then.
    pub not_covered: Option<NotCovered>,
    /// Other messages whose transfers are covered now and were not, or the other way round.
    pub flipped: Vec<ItemHash>,
}

/// The addresses that a movement concerns.
fn addresses(movement: &Movement) -> impl Iterator<Item = &String> {
    let (one, other) = match movement {
        Movement::Grant { address, .. } | Movement::Expense { address, .. } => (address, None),
        Movement::Transfer { sender, recipient, .. } => (sender, Some(recipient)),
    };
    std::iter::once(one).chain(other)
}

/// All addresses that movements concern.
fn concerned(movements: &[Movement]) -> BTreeSet<String> {
    movements.iter().flat_map(addresses).cloned().collect()
}

/// All addresses that movements show with.
fn shown_with(movements: &[Movement]) -> BTreeSet<String> {
    let minters = movements.iter().filter_map(minter).map(str::to_owned);
    concerned(movements).into_iter().chain(minters).collect()
}

/// True when something is handed on: such a message counts as a whole or not at all.
fn hands_on(movements: &[Movement]) -> bool {
    movements.iter().any(|movement| matches!(movement, Movement::Transfer { .. }))
}

/// Moves credits by a message, into the current layer of the batch. What is handed on and is not there does not move, and is moved as soon as
/// earlier credits arrive.
///
/// # Errors
/// The store fails.
pub(crate) fn move_credits(batch: &mut Batch, at: &Position, movements: &[Movement]) -> Result<Replayed, StoreError> {
    let place = at.bytes();
    let all = concerned(movements);
    let mut late = BTreeSet::new();
    for address in &all {
        let prefix = Key::new().text(address).done();
        let last = batch.range(Table::Movers, &prefix, &end_of(&prefix), 1, true)?;
        if last.first().is_some_and(|(key, _)| key[prefix.len()..] >= *place) {
            late.insert(address.clone());
        }
    }
    for address in &shown_with(movements) {
        batch.put(Table::Movers, Key::new().text(address).bytes(place).done(), Vec::new());
    }
    let record = CreditRecord { movements: movements.to_vec(), covered: true };
    history::put(batch, place, Some(&record))?;
    if hands_on(movements) && !late.is_empty() {
        late.clone_from(&all);
    }
    let mut replayed = replay(batch, late, at)?;

    // Those for whom this is the last movement.
    let linked: BTreeSet<&String> = all.iter().filter(|address| !replayed.linked.contains(*address)).collect();
    if !linked.is_empty() {
        let mut lots = Lots::default();
        for address in &linked {
            lots.owners.insert((*address).clone(), read(batch, address)?);
        }
        let before = lots.clone();
        let mover = Mover { key: place, time_ms: milliseconds(at.time()) };
        let applied = lots.apply(&mover, movements, |movement| addresses(movement).any(|each| linked.contains(each)));
        write(batch, &before, &lots)?;
        if let Err(shortfall) = applied {
            replayed.found.not_covered = Some(shortfall.into());
            history::put(batch, place, Some(&CreditRecord { covered: false, ..record }))?;
        }
    }
    Ok(replayed.found)
}

/// Takes back what the message of that position moved, into the current layer of the batch. Returns the messages whose transfers are covered differently then.
///
/// # Errors
/// The store fails.
pub(crate) fn take_back(batch: &mut Batch, at: &Position) -> Result<Vec<ItemHash>, StoreError> {
    let place = at.bytes();
    let Some(row) = batch.get(Table::Credits, place)? else { return Ok(Vec::new()) };
    let movements = CreditRecord::read(&row)?.movements;
    let all = concerned(&movements);
    history::put(batch, place, None)?;
    for address in &shown_with(&movements) {
        batch.delete(Table::Movers, Key::new().text(address).bytes(place).done());
    }
    Ok(replay(batch, all, at)?.found.flipped)
}

/// A replay, and for whom it was made.
struct Replay {
    found: Replayed,
    linked: BTreeSet<String>,
}

/// Makes the lots of these addresses anew, and of all that transfers link them with.
fn replay(batch: &mut Batch, seeds: BTreeSet<String>, at: &Position) -> Result<Replay, StoreError> {
    let Linked { addresses: linked, records } = linked(batch, seeds)?;
    let is_linked = |movement: &Movement| addresses(movement).any(|address| linked.contains(address));
    let mut before = Lots::default();
    for address in &linked {
        before.owners.insert(address.clone(), read(batch, address)?);
    }
    let mut found = Replayed::default();
    let mut lots = Lots::default();
    for (key, record) in records {
        let mover = Position::from_bytes(&key);
        let applied =
            lots.apply(&Mover { key: &key, time_ms: milliseconds(mover.time()) }, &record.movements, is_linked);
        let covered = applied.is_ok();
        if mover == *at {
            found.not_covered = applied.err().map(NotCovered::from);
        } else if covered != record.covered
            && let Some(hash) = mover.hash()
        {
            found.flipped.push(hash);
        }
        if covered != record.covered {
            history::put(batch, &key, Some(&CreditRecord { covered, ..record }))?;
        }
    }
    write(batch, &before, &lots)?;
    Ok(Replay { found, linked })
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
            // What is handed on is handed on as a whole: all its addresses depend on each other. Grants and expenses concern each address alone.
            let movements = &linked.records[place].movements;
            if hands_on(movements) {
                open.extend(
                    movements.iter().flat_map(addresses).filter(|each| !linked.addresses.contains(*each)).cloned(),
                );
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

fn write(batch: &mut Batch, before: &Lots, after: &Lots) -> Result<(), StoreError> {
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
        let difference = i64::from(!new.is_empty()) - i64::from(!old.is_empty());
        if difference != 0 {
            batch.add(Table::Tallies, tally_key(Tally::Credited, ""), difference)?;
        }
    }
    Ok(())
}

/// Seconds as milliseconds; before 1970 is 0.
fn milliseconds(seconds: f64) -> u64 {
    // The cast saturates.
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::{entries, entries_of, summary},
        store::{Row, Snapshot, Store, record::HistoryRecord, schema::split_text},
    };
    use proptest::prelude::*;

    fn movement() -> impl Strategy<Value = Movement> {
        let address = || (0_u8..5).prop_map(|number| format!("0x{number}"));
        let resource = format!(r#"{{"origin":"{}"}}"#, ItemHash::sha256_of(b"a resource"));
        let expiration = proptest::option::of(1_000_u64..40_000);
        prop_oneof![
            (address(), 1_u64..50, expiration.clone()).prop_map(|(address, amount, expiration)| Movement::Grant {
                address,
                amount,
                expiration,
                details: "{}".into()
            }),
            (address(), 0_u64..50).prop_map(move |(address, amount)| Movement::Expense {
                address,
                amount,
                details: resource.clone()
            }),
            (address(), address(), 1_u64..50).prop_map(|(minter, address, amount)| Movement::Grant {
                address,
                amount,
                expiration: None,
                details: format!(r#"{{"payment_method":"credit_transfer","origin":"{minter}"}}"#)
            }),
            (address(), address(), 0_u64..50, expiration).prop_map(|(sender, recipient, amount, expiration)| {
                Movement::Transfer { sender, recipient, amount, expiration }
            }),
        ]
    }

    /// Everything that follows from the movements, by table.
    fn derived(order: &[(u8, Vec<Movement>)], batches: usize) -> Vec<(Table, Vec<Row>)> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("s.redb")).expect("a store");
        for group in order.chunks(order.len().div_ceil(batches).max(1)) {
            let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
            for (number, movements) in group {
                // Many messages at one moment: the hash decides.
                let moment = Position::new(f64::from(number / 3), &ItemHash::sha256_of(&[*number]));
                move_credits(&mut batch, &moment, movements).expect("no error");
                batch.keep();
            }
            store.commit(batch.changes()).expect("a commit");
        }
        let snapshot = store.snapshot().expect("a snapshot");
        for (key, _) in snapshot.prefixed(Table::Movers, b"").expect("rows") {
            let (address, _) = split_text(&key).expect("an address");
            check_history(&snapshot, address);
        }
        let tables = [Table::Lots, Table::Movers, Table::History, Table::Consumed, Table::Tallies];
        tables.map(|table| (table, snapshot.prefixed(table, b"").expect("rows"))).to_vec()
    }

    /// The sums of an address are those of its entries, and its entries are found by its movements.
    fn check_history(snapshot: &Snapshot, address: &str) {
        let all = snapshot.prefixed(Table::Credits, b"").expect("rows");
        let mut sums = HistoryRecord::default();
        for (place, row) in all {
            let record = CreditRecord::read(&row).expect("a record");
            let found = entries_of(&record, address);
            assert_eq!(found, entries(&record).filter(|entry| entry.address == address).collect::<Vec<_>>());
            let mover = Key::new().text(address).bytes(&place).done();
            let is_mover = snapshot.get(Table::Movers, &mover).expect("no error").is_some();
            assert!(found.is_empty() || is_mover, "{address} would not find {found:?}");
            for entry in found {
                sums.entries += 1;
                let side = if entry.amount < 0 { &mut sums.outgoing } else { &mut sums.incoming };
                *side += entry.amount.unsigned_abs();
            }
        }
        assert_eq!(summary(snapshot, address).expect("sums"), sums, "{address}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// The lots, and sums, are a function of the set of movements: no order of arrival, nor cut into commits, makes a difference.
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
            prop_assert_eq!(derived(&sorted, 1), derived(&shuffled, batches));
        }
    }

    #[test]
    fn a_late_grant_covers_what_came_after_it_and_what_is_taken_back_uncovers_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("s.redb")).expect("a store");
        let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
        let at = |time: f64| Position::new(time, &ItemHash::sha256_of(&time.to_be_bytes()));
        let hash = at(2.0).hash().expect("a hash");
        let balance = |batch: &Batch, address| {
            let balance = super::super::balance(batch, address, 0).expect("a balance");
            (balance.credits, balance.lots.len())
        };
        let transfer = [Movement::Transfer { sender: "A".into(), recipient: "B".into(), amount: 5, expiration: None }];
        let refused = move_credits(&mut batch, &at(2.0), &transfer).expect("no error");
        assert_eq!(refused.not_covered, Some(NotCovered { wanted: 5, taken: 0 }));
        let grant = [Movement::Grant { address: "A".into(), amount: 7, expiration: None, details: "{}".into() }];
        let later = move_credits(&mut batch, &at(3.0), &grant).expect("no error");
        assert_eq!(later, Replayed::default());
        assert_eq!((balance(&batch, "A"), balance(&batch, "B")), ((7, 1), (0, 0)));
        let earlier = move_credits(&mut batch, &at(1.0), &grant).expect("no error");
        assert_eq!(earlier, Replayed { not_covered: None, flipped: vec![hash.clone()] });
        assert_eq!((balance(&batch, "A"), balance(&batch, "B")), ((9, 2), (5, 1)));
        assert_eq!(take_back(&mut batch, &at(1.0)).expect("no error"), [hash]);
        assert_eq!((balance(&batch, "A"), balance(&batch, "B")), ((7, 1), (0, 0)));
        assert_eq!(take_back(&mut batch, &at(2.0)).expect("no error"), []);
        assert_eq!(take_back(&mut batch, &at(3.0)).expect("no error"), []);
        batch.keep();
        let left: Vec<_> = batch.changes().iter().filter(|(_, value)| value.is_some()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn what_is_handed_on_to_several_is_handed_on_to_all_or_to_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("s.redb")).expect("a store");
        let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
        let at = |time: f64| Position::new(time, &ItemHash::sha256_of(&time.to_be_bytes()));
        let to = |recipient: &str, amount| Movement::Transfer {
            sender: "A".into(),
            recipient: recipient.into(),
            amount,
            expiration: None,
        };
        let grant = [Movement::Grant { address: "A".into(), amount: 7, expiration: None, details: "{}".into() }];
        move_credits(&mut batch, &at(1.0), &grant).expect("no error");
        let both = move_credits(&mut batch, &at(2.0), &[to("B", 5), to("C", 5)]).expect("no error");
        assert_eq!(both.not_covered, Some(NotCovered { wanted: 10, taken: 7 }));
        assert_eq!(move_credits(&mut batch, &at(3.0), &[to("C", 7)]).expect("no error").not_covered, None);
        let credits = |address| super::super::balance(&batch, address, 0).expect("a balance").credits;
        assert_eq!([credits("A"), credits("B"), credits("C")], [0, 0, 7]);
    }
}
