//! A digest of the state: two nodes that hold the same rows of the common tables have the same, however they came to them.
//!
//! Each *part* (a common table, or one plugin's namespace of `state`) has a sum over its rows, to which a row is added when it comes and from which it
//! is subtracted when it goes; so a commit updates the digest by what it changes. A row counts as the first 2,048 bits of BLAKE3 over it, and sums are
//! modulo 2^2048: finding two sets of rows with one sum is a generalized birthday problem that takes about 2^90 steps at that width (Bellare and
//! Micciancio, 1997, on sums of hashes; Wagner, 2002, on their cost).

use super::{
    Reader, StoreError, Walk,
    schema::{Table, end_of, split_text},
};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Words of a sum.
const WORDS: usize = 32;
/// Bytes of a sum, and of what a row counts as.
const SUM_BYTES: usize = WORDS * 8;
/// Rows that are read in one go when everything is counted anew.
const PAGE: usize = 1000;
/// How the names of parts begin in `meta`.
const META_PREFIX: &[u8] = b"digest/";

/// What of a table is a function of the set of messages (ARCHITECTURE.md, "What is a function of the set").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// Keys and values.
    Rows,
    /// Keys alone: the values tell of this node's own moments, too.
    Keys,
    /// Nothing.
    Nothing,
}

fn share(table: Table) -> Share {
    match table {
        Table::State
        | Table::Delegations
        | Table::Forgets
        | Table::Uses
        | Table::Counts
        | Table::Costs
        | Table::Spending
        | Table::Pins
        | Table::Balances
        | Table::Credits
        | Table::Movers
        | Table::Lots
        | Table::Ranks
        | Table::Tallies
        | Table::Priced
        | Table::Totals
        | Table::Consumed
        | Table::History => Share::Rows,
        Table::Sequence | Table::Forgotten => Share::Keys,
        Table::Meta
        | Table::Messages
        | Table::Index
        | Table::Status
        | Table::Pending
        | Table::Needs
        | Table::Bases
        | Table::Wakes
        | Table::Horizon
        | Table::Files
        | Table::Grace
        | Table::Purge
        | Table::Removing
        | Table::Arrivals
        | Table::Grantees
        | Table::Owned
        | Table::Workloads
        | Table::Quarantine
        | Table::Namespaces
        | Table::Rebuilds
        | Table::Rebuilt
        | Table::Suspended
        | Table::Confirmations
        | Table::ChainState
        | Table::ChainProgress
        | Table::ChainBlocks
        | Table::ChainWork
        | Table::ChainBalances
        | Table::Refunded
        | Table::Removed
        | Table::Holdings
        | Table::Chronicle
        | Table::Ended
        | Table::IpfsPins
        | Table::OwnCounts => Share::Nothing,
    }
}

/// The part to which a row belongs, and whether its value counts; none for what is this node's own.
fn part(table: Table, key: &[u8]) -> Option<(String, bool)> {
    let name = match (share(table), table) {
        (Share::Nothing, _) => return None,
        (_, Table::State) => format!("state/{}", split_text(key).map_or("", |(namespace, _)| namespace)),
        (_, table) => table.name().to_owned(),
    };
    Some((name, share(table) == Share::Rows))
}

/// A number modulo 2^2048, least significant word first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sum([u64; WORDS]);

impl Sum {
    const ZERO: Self = Self([0; WORDS]);

    /// What a row counts as.
    fn of_row(key: &[u8], value: Option<&[u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value.unwrap_or_default());
        let mut bytes = [0; SUM_BYTES];
        hasher.finalize_xof().fill(&mut bytes);
        Self::from_bytes(&bytes)
    }

    /// Missing bytes are zeros.
    fn from_bytes(bytes: &[u8]) -> Self {
        let mut sum = Self::ZERO;
        for (word, bytes) in sum.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        sum
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (word, other) in self.0.iter_mut().zip(other.0) {
            (*word, carry) = word.carrying_add(other, carry);
        }
    }

    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (word, other) in self.0.iter_mut().zip(other.0) {
            (*word, borrow) = word.borrowing_sub(other, borrow);
        }
    }
}

/// A key of `meta` and its value; none for a row that goes.
type MetaRow = (Vec<u8>, Option<Vec<u8>>);

/// What a commit changes of the digest.
#[derive(Debug, Default)]
pub(super) struct Difference {
    parts: BTreeMap<String, Sum>,
}

impl Difference {
    /// A row is not as it was.
    pub(super) fn row(&mut self, table: Table, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) {
        let Some((name, with_value)) = part(table, key) else { return };
        let is_same = if with_value { old == new } else { old.is_some() == new.is_some() };
        if is_same {
            return;
        }
        let counts_as = |value: Option<&[u8]>| value.map(|value| Sum::of_row(key, with_value.then_some(value)));
        let sum = self.parts.entry(name).or_insert(Sum::ZERO);
        if let Some(old) = counts_as(old) {
            sum.subtract(&old);
        }
        if let Some(new) = counts_as(new) {
            sum.add(&new);
        }
    }

    /// The rows of `meta` that it changes, given what they were; none for a part without rows.
    pub(super) fn applied(
        self,
        mut before: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Vec<MetaRow>, StoreError> {
        let mut rows = Vec::new();
        for (name, difference) in self.parts {
            let key = [META_PREFIX, name.as_bytes()].concat();
            let mut sum = before(&key)?.map_or(Sum::ZERO, |bytes| Sum::from_bytes(&bytes));
            sum.add(&difference);
            rows.push((key, (sum != Sum::ZERO).then(|| sum.to_bytes())));
        }
        Ok(rows)
    }
}

/// The digest of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDigest {
    parts: BTreeMap<String, Sum>,
}

impl StateDigest {
    /// As commits have kept it.
    ///
    /// # Errors
    /// The store fails.
    pub fn of(reader: &impl Reader) -> Result<Self, StoreError> {
        let rows = reader.prefixed(Table::Meta, META_PREFIX)?;
        let part = |(key, value): (Vec<u8>, Vec<u8>)| {
            (String::from_utf8_lossy(&key[META_PREFIX.len()..]).into_owned(), Sum::from_bytes(&value))
        };
        Ok(Self { parts: rows.into_iter().map(part).collect() })
    }

    /// Counted anew, row by row: the same, unless the store is damaged. Takes time in proportion to everything that is stored.
    ///
    /// # Errors
    /// The store fails.
    pub fn recomputed(reader: &impl Reader) -> Result<Self, StoreError> {
        let mut difference = Difference::default();
        for table in Table::ALL.iter().copied().filter(|table| share(*table) != Share::Nothing) {
            for row in Walk::new(reader, table, (Vec::new(), end_of(&[])), false, PAGE) {
                let (key, value) = row?;
                difference.row(table, &key, None, Some(&value));
            }
        }
        Ok(Self { parts: difference.parts })
    }

    /// Of everything: 64 hexadecimal digits.
    #[must_use]
    pub fn total(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, sum) in &self.parts {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(sum.to_bytes());
        }
        hex::encode(hasher.finalize())
    }

    /// Of each part, by name: 64 hexadecimal digits. Where two nodes differ, these say in what.
    pub fn parts(&self) -> impl Iterator<Item = (&str, String)> {
        self.parts.iter().map(|(name, sum)| (name.as_str(), hex::encode(Sha256::digest(sum.to_bytes()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changes, Store};
    use proptest::prelude::*;

    fn digest(store: &Store) -> StateDigest {
        let snapshot = store.snapshot().expect("a snapshot");
        let kept = StateDigest::of(&snapshot).expect("a digest");
        assert_eq!(kept, StateDigest::recomputed(&snapshot).expect("a digest"));
        kept
    }

    fn table() -> impl Strategy<Value = Table> {
        proptest::sample::select(Table::ALL.to_vec())
            .prop_filter("meta is the store's own", |table| *table != Table::Meta)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever the commits, the digest that they kept is that of the rows that are left, and rows in another order have the same.
        #[test]
        fn commits_keep_the_digest(commits in proptest::collection::vec(
            proptest::collection::btree_map(
                (table(), proptest::collection::vec(0_u8..3, 0..4)),
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4)),
                0..12,
            ), 0..6)
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let store = Store::open(&folder.path().join("a.redb")).expect("a store");
            let mut left: Changes = Changes::new();
            for changes in &commits {
                store.commit(changes).expect("a commit");
                for (place, value) in changes {
                    match value {
                        Some(_) => left.insert(place.clone(), value.clone()),
                        None => left.remove(place),
                    };
                }
            }
            let other = Store::open(&folder.path().join("b.redb")).expect("a store");
            for (place, value) in left.iter().rev() {
                other.commit(&Changes::from([(place.clone(), value.clone())])).expect("a commit");
            }
            let (one, other) = (digest(&store), digest(&other));
            prop_assert_eq!(one.total(), other.total());
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn what_is_common_counts_and_what_is_local_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("a.redb")).expect("a store");
        let put = |table, key: &[u8], value: &[u8]| {
            store.commit(&Changes::from([((table, key.to_vec()), Some(value.to_vec()))])).expect("a commit");
            digest(&store).total()
        };
        let empty = digest(&store).total();
        assert_eq!(put(Table::Files, b"f", b"local"), empty);
        let one = put(Table::State, b"post\0k", b"1");
        assert_ne!(one, empty);
        assert_ne!(put(Table::State, b"post\0k", b"2"), one);
        assert_eq!(put(Table::State, b"post\0k", b"1"), one);
        let with_message = put(Table::Sequence, b"hash\0", b"7");
        assert_ne!(with_message, one);
        assert_eq!(put(Table::Sequence, b"hash\0", b"8"), with_message, "its number is this node's own");
        let parts: Vec<String> = digest(&store).parts().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(parts, ["sequence", "state/post"]);
    }
}
