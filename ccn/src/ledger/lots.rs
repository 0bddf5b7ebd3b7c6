//! How credits move: pure functions over what is left of grants.
//!
//! Credits are used up in the order in which they were granted, (time, hash, number), as far as they had not expired at the moment of use. What is
//! handed on keeps the expiration of what it is taken from, or expires earlier.

use crate::store::record::{LotRecord, Movement};
use std::collections::BTreeMap;

/// Where a lot stands among those of its owner: bytes that sort as (time, hash, number).
pub(super) type LotKey = Vec<u8>;

/// What is left of grants, by owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lots {
    pub(super) owners: BTreeMap<String, BTreeMap<LotKey, LotRecord>>,
}

/// A message that moves credits.
pub(super) struct Mover<'a> {
    /// Its place among the lots, without the number.
    pub(super) key: &'a [u8],
    /// Its time, milliseconds since 1970.
    pub(super) time_ms: u64,
}

/// What is to be handed on and is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shortfall {
    pub(super) wanted: u64,
    pub(super) taken: u64,
}

impl Lots {
    /// Applies the movements of a message that concern `concerned`.
    ///
    /// # Errors
    /// More is handed on than there is: then nothing is changed.
    pub(super) fn apply(
        &mut self,
        mover: &Mover<'_>,
        movements: &[Movement],
        concerned: impl Fn(&Movement) -> bool,
    ) -> Result<(), Shortfall> {
        let mut plain = BTreeMap::new();
        for movement in movements {
            if let Movement::Transfer { sender, amount, .. } = movement {
                let wanted: &mut u64 = plain.entry(sender.as_str()).or_default();
                *wanted = wanted.saturating_add(*amount);
            }
        }
        // Where nothing else happens to those who give, it is enough to count before; else what is done is undone.
        let is_plain = movements.iter().all(|movement| match movement {
            Movement::Transfer { recipient, .. } => !plain.contains_key(recipient.as_str()),
            Movement::Grant { .. } | Movement::Expense { .. } => plain.is_empty(),
        });
        if is_plain {
            for (sender, wanted) in plain {
                let taken = self.available(sender, mover.time_ms);
                if taken < wanted {
                    return Err(Shortfall { wanted, taken });
                }
            }
        }
        let before = (!is_plain).then(|| self.clone_of(movements));
        for (place, movement) in movements.iter().enumerate() {
            if !concerned(movement) {
                continue;
            }
            match movement {
                Movement::Grant { address, amount, expiration, .. } => {
                    self.add(address, mover, (place, 0), LotRecord { remaining: *amount, expiration: *expiration });
                }
                Movement::Expense { address, amount, .. } => {
                    self.take(address, *amount, mover.time_ms);
                }
                Movement::Transfer { sender, recipient, amount, expiration } => {
                    let mut portions = self.take(sender, *amount, mover.time_ms);
                    let taken: u64 = portions.iter().map(|portion| portion.remaining).sum();
                    if taken < *amount {
                        self.owners.extend(before.into_iter().flatten());
                        return Err(Shortfall { wanted: *amount, taken });
                    }
                    for portion in &mut portions {
                        portion.expiration = earlier(portion.expiration, *expiration);
                    }
                    for (number, portion) in merged(portions).into_iter().enumerate() {
                        self.add(recipient, mover, (place, number), portion);
                    }
                }
            }
        }
        Ok(())
    }

    /// Credits of an address that count at that moment.
    fn available(&self, owner: &str, time_ms: u64) -> u64 {
        let counts = |lot: &&LotRecord| lot.expiration.is_none_or(|expiration| expiration > time_ms);
        let lots = self.owners.get(owner).into_iter().flat_map(BTreeMap::values).filter(counts);
        lots.fold(0, |sum, lot| sum.saturating_add(lot.remaining))
    }

    /// The lots of all addresses that movements concern, as they are.
    fn clone_of(&self, movements: &[Movement]) -> BTreeMap<String, BTreeMap<LotKey, LotRecord>> {
        let addresses = movements.iter().flat_map(|movement| match movement {
            Movement::Grant { address, .. } | Movement::Expense { address, .. } => vec![address],
            Movement::Transfer { sender, recipient, .. } => vec![sender, recipient],
        });
        addresses.map(|address| (address.clone(), self.owners.get(address).cloned().unwrap_or_default())).collect()
    }

    fn add(&mut self, owner: &str, mover: &Mover<'_>, (place, number): (usize, usize), lot: LotRecord) {
        if lot.remaining == 0 {
            return;
        }
        // Places and numbers are bounded by the length of a message and the lots of an address.
        let number = (place as u64) << 32 | number as u64;
        let key = [mover.key, &number.to_be_bytes()].concat();
        self.owners.entry(owner.to_owned()).or_default().insert(key, lot);
    }

    /// Takes credits, oldest grants first; what is not there is not taken.
    fn take(&mut self, owner: &str, amount: u64, time_ms: u64) -> Vec<LotRecord> {
        let mut wanted = amount;
        let mut portions = Vec::new();
        let lots = self.owners.entry(owner.to_owned()).or_default();
        for lot in lots.values_mut() {
            if wanted == 0 {
                break;
            }
            if lot.expiration.is_some_and(|expiration| expiration <= time_ms) {
                continue;
            }
            let taken = lot.remaining.min(wanted);
            lot.remaining -= taken;
            wanted -= taken;
            portions.push(LotRecord { remaining: taken, expiration: lot.expiration });
        }
        lots.retain(|_, lot| lot.remaining > 0);
        portions
    }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Neighbours that expire together become one.
fn merged(portions: Vec<LotRecord>) -> Vec<LotRecord> {
    let mut merged: Vec<LotRecord> = Vec::new();
    for portion in portions {
        match merged.last_mut() {
            Some(last) if last.expiration == portion.expiration => last.remaining += portion.remaining,
            _ => merged.push(portion),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(address: &str, amount: u64, expiration: Option<u64>) -> Movement {
        Movement::Grant { address: address.into(), amount, expiration, details: "{}".into() }
    }

    fn apply(lots: &mut Lots, second: u64, movement: Movement) -> Result<(), Shortfall> {
        let key = second.to_be_bytes();
        lots.apply(&Mover { key: &key, time_ms: second * 1000 }, &[movement], |_| true)
    }

    fn left(lots: &Lots, address: &str) -> Vec<(u64, Option<u64>)> {
        lots.owners.get(address).into_iter().flatten().map(|(_, lot)| (lot.remaining, lot.expiration)).collect()
    }

    #[test]
    fn the_oldest_credits_that_count_are_used_first() {
        let mut lots = Lots::default();
        assert_eq!(apply(&mut lots, 1, grant("A", 10, Some(5000))), Ok(()));
        assert_eq!(apply(&mut lots, 2, grant("A", 10, None)), Ok(()));
        let expense = |amount| Movement::Expense { address: "A".into(), amount, details: "{}".into() };
        assert_eq!(apply(&mut lots, 3, expense(4)), Ok(()));
        assert_eq!(left(&lots, "A"), [(6, Some(5000)), (10, None)]);
        // At the moment of its expiration a grant no longer counts.
        assert_eq!(apply(&mut lots, 5, expense(12)), Ok(()));
        assert_eq!(left(&lots, "A"), [(6, Some(5000))], "what is not there is not taken");
    }

    #[test]
    fn transfers_keep_the_expiration_of_what_they_take() {
        let mut lots = Lots::default();
        for (second, expiration) in [(1, Some(9000)), (2, Some(9000)), (3, None)] {
            assert_eq!(apply(&mut lots, second, grant("A", 10, expiration)), Ok(()));
        }
        let transfer =
            |amount, expiration| Movement::Transfer { sender: "A".into(), recipient: "B".into(), amount, expiration };
        assert_eq!(apply(&mut lots, 4, transfer(25, Some(20_000))), Ok(()));
        assert_eq!(left(&lots, "A"), [(5, None)]);
        assert_eq!(left(&lots, "B"), [(20, Some(9000)), (5, Some(20_000))]);
        assert_eq!(apply(&mut lots, 5, transfer(6, None)), Err(Shortfall { wanted: 6, taken: 5 }));
        assert_eq!(left(&lots, "A"), [(5, None)], "what is not covered does not move");
    }
}
