//! How many messages there are under a key, and which, in one short row: whoever watches it hears of each that comes or goes.

use super::{delete, put};
use crate::{View, Write};
use ccn_message::ItemHash;

/// The number of some messages, and the sum of their hashes. Two sets with one tally would be a collision of 128 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    sum: u128,
}

impl Tally {
    /// Reads a row; an absent one counts nothing.
    #[must_use]
    pub fn of(row: Option<&[u8]>) -> Self {
        let read = |row: &[u8]| {
            let (count, sum) = row.split_first_chunk::<8>()?;
            Some(Self { count: u64::from_be_bytes(*count), sum: u128::from_be_bytes(sum.try_into().ok()?) })
        };
        row.and_then(read).unwrap_or_default()
    }

    /// The row at `key` with one message more.
    #[must_use]
    pub fn add(view: &dyn View, key: Vec<u8>, item_hash: &str) -> Write {
        let tally = Self::of(view.get(&key).as_deref());
        Self { count: tally.count + 1, sum: tally.sum.wrapping_add(term(item_hash)) }.write(key)
    }

    /// The row at `key` with one message less.
    #[must_use]
    pub fn remove(view: &dyn View, key: Vec<u8>, item_hash: &str) -> Write {
        let tally = Self::of(view.get(&key).as_deref());
        Self { count: tally.count.saturating_sub(1), sum: tally.sum.wrapping_sub(term(item_hash)) }.write(key)
    }

    fn write(self, key: Vec<u8>) -> Write {
        if self.count == 0 {
            return delete(key);
        }
        put(key, [self.count.to_be_bytes().as_slice(), &self.sum.to_be_bytes()].concat())
    }
}

/// What a message adds to the sum: half of its hash, or of the hash of its CID.
fn term(item_hash: &str) -> u128 {
    let digest = |hash: &ItemHash| hash.sha256().and_then(|digest| digest.first_chunk::<16>().copied());
    let parsed = ItemHash::parse(item_hash).ok().and_then(|hash| digest(&hash));
    parsed.or_else(|| digest(&ItemHash::sha256_of(item_hash.as_bytes()))).map_or(0, u128::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryView;
    use proptest::prelude::*;

    proptest! {
        /// A tally is a function of the set, whatever came and went.
        #[test]
        fn the_order_does_not_matter(steps in proptest::collection::vec((0_u8..6, any::<bool>()), 0..30)) {
            let mut view = MemoryView::new("t");
            let mut set = std::collections::BTreeSet::new();
            let hash = |name: &u8| match name {
                0 => "QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8".to_owned(),
                name => ItemHash::sha256_of(&[*name]).to_string(),
            };
            for (name, comes) in &steps {
                let write = match comes {
                    true if set.insert(*name) => Tally::add(&view, b"k".to_vec(), &hash(name)),
                    false if set.remove(name) => Tally::remove(&view, b"k".to_vec(), &hash(name)),
                    _ => continue,
                };
                view.write(&[write]);
            }
            let mut fresh = MemoryView::new("t");
            for name in &set {
                let write = Tally::add(&fresh, b"k".to_vec(), &hash(name));
                fresh.write(&[write]);
            }
            prop_assert_eq!(Tally::of(view.get(b"k").as_deref()).count, set.len() as u64);
            prop_assert_eq!(view, fresh);
        }
    }
}
