//! Changes on top of a snapshot, in two layers: what the batch has decided, and what the current message would change.

use super::{Changes, Reader, Row, Snapshot, StoreError, schema::Table};
use std::collections::BTreeMap;

/// One layer of changes.
#[derive(Debug, Default, Clone)]
pub struct Layer {
    changes: Changes,
}

/// A snapshot with the changes that will be committed together.
#[derive(Debug)]
pub struct Batch {
    snapshot: Snapshot,
    decided: Layer,
    current: Layer,
}

impl Batch {
    /// Without changes.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, decided: Layer::default(), current: Layer::default() }
    }

    /// Sets a key, for the current message.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.set(table, key, Some(value));
    }

    /// Removes a key, for the current message.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.set(table, key, None);
    }

    /// Sets a key, or removes it when there is no value, for the current message.
    pub fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.current.changes.insert((table, key), value);
    }

    /// Adds to a number, for the current message; a number that becomes zero is removed.
    ///
    /// # Errors
    /// The database fails.
    pub fn add(&mut self, table: Table, key: Vec<u8>, difference: i64) -> Result<u64, StoreError> {
        let sum = self.number(table, &key)?.saturating_add_signed(difference);
        match sum {
            0 => self.delete(table, key),
            _ => self.put(table, key, sum.to_be_bytes().to_vec()),
        }
        Ok(sum)
    }

    /// Takes what the current message changed into the batch.
    pub fn keep(&mut self) {
        let current = std::mem::take(&mut self.current);
        self.decided.changes.extend(current.changes);
    }

    /// Drops what the current message changed.
    pub fn drop_current(&mut self) {
        self.current = Layer::default();
    }

    /// What to commit.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        debug_assert!(self.current.changes.is_empty(), "a message was neither kept nor dropped");
        &self.decided.changes
    }
}

impl Reader for Batch {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        // One allocation for both lookups: the maps are keyed by owned bytes.
        let place = (table, key.to_vec());
        for layer in [&self.current, &self.decided] {
            if let Some(value) = layer.changes.get(&place) {
                return Ok(value.clone());
            }
        }
        self.snapshot.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Row>, StoreError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let mut changed: BTreeMap<&[u8], Option<&Vec<u8>>> = BTreeMap::new();
        for layer in [&self.decided, &self.current] {
            let bounds = (table, start.to_vec())..(table, end.to_vec());
            changed.extend(layer.changes.range(bounds).map(|((_, key), value)| (key.as_slice(), value.as_ref())));
        }
        if changed.is_empty() {
            return self.snapshot.range(table, start, end, limit, reverse);
        }
        // As many rows as are hidden by changes may be missing from the snapshot's answer.
        let stored = self.snapshot.range(table, start, end, limit.saturating_add(changed.len()), reverse)?;
        let complete = stored.len() < limit.saturating_add(changed.len());
        let horizon = if complete { None } else { stored.last().map(|(key, _)| key.clone()) };
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for (key, value) in changed {
            // Beyond the last stored row there may be other stored ones that were not read.
            let beyond = horizon.as_deref().is_some_and(|last| if reverse { key < last } else { key > last });
            match value {
                Some(value) if !beyond => {
                    rows.insert(key.to_vec(), value.clone());
                }
                _ => {
                    rows.remove(key);
                }
            }
        }
        Ok(if reverse { rows.into_iter().rev().take(limit).collect() } else { rows.into_iter().take(limit).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A batch over a snapshot reads as one table would in which everything had been written.
        #[test]
        fn layers_read_as_one_table(
            stored in proptest::collection::btree_map(0_u8..32, any::<u8>(), 0..20),
            decided in proptest::collection::btree_map(0_u8..32, any::<Option<u8>>(), 0..12),
            current in proptest::collection::btree_map(0_u8..32, any::<Option<u8>>(), 0..12),
            bounds in (0_u8..32, 0_u8..34),
            limit in 0_usize..12,
            reverse: bool,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let store = Store::open(&folder.path().join("s.redb")).expect("a store");
            let changes: Changes = stored.iter().map(|(key, value)| ((Table::State, vec![*key]), Some(vec![*value]))).collect();
            store.commit(&changes).expect("a commit");
            let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
            let mut model = stored;
            let mut change = |batch: &mut Batch, changes: &BTreeMap<u8, Option<u8>>| {
                for (key, value) in changes {
                    match value {
                        Some(value) => { batch.put(Table::State, vec![*key], vec![*value]); model.insert(*key, *value); }
                        None => { batch.delete(Table::State, vec![*key]); model.remove(key); }
                    }
                }
            };
            change(&mut batch, &decided);
            batch.keep();
            change(&mut batch, &current);
            let (start, end) = bounds;
            let mut expected: Vec<Row> = model.iter().filter(|(key, _)| **key >= start && **key < end).map(|(key, value)| (vec![*key], vec![*value])).collect();
            if reverse { expected.reverse(); }
            expected.truncate(limit);
            prop_assert_eq!(batch.range(Table::State, &[start], &[end], limit, reverse).expect("rows"), expected);
            for key in 0..32 {
                prop_assert_eq!(batch.get(Table::State, &[key]).expect("a value"), model.get(&key).map(|value| vec![*value]));
            }
        }
    }
}
