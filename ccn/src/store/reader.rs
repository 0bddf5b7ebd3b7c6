//! Reading: a snapshot of the database, or a batch on top of one.

use super::{
    StoreError,
    confirmation::{self, Confirmation},
    number,
    record::{CostRecord, FileRecord, MessageRecord, Record as _, StatusRecord},
    schema::{IndexId, Table, hash_key, index_prefix},
    standing::{self, Fate},
};
use ccn_message::ItemHash;
use redb::{ReadOnlyTable, ReadTransaction};
use std::sync::OnceLock;

/// A key with its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Something that tables can be read from.
pub trait Reader {
    /// The value of a key.
    ///
    /// # Errors
    /// The database fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Rows with `start <= key < end`, at most `limit`, last ones first when `reverse`.
    ///
    /// # Errors
    /// The database fails.
    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Row>, StoreError>;

    /// A number; zero when there is none.
    ///
    /// # Errors
    /// The database fails.
    fn number(&self, table: Table, key: &[u8]) -> Result<u64, StoreError> {
        Ok(self.get(table, key)?.map_or(0, |value| number(&value)))
    }

    /// All rows whose key starts with `prefix`. Ask it only where their number is small by nature.
    ///
    /// # Errors
    /// The database fails.
    fn prefixed(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, StoreError> {
        self.range(table, prefix, &super::schema::end_of(prefix), usize::MAX, false)
    }

    /// A processed message.
    ///
    /// # Errors
    /// The database fails, or the record is damaged.
    fn message(&self, hash: &ItemHash) -> Result<Option<MessageRecord>, StoreError> {
        let Some(sequence) = self.get(Table::Sequence, &hash_key(hash))? else { return Ok(None) };
        self.message_at(number(&sequence))
    }

    /// The message of a sequence number.
    ///
    /// # Errors
    /// The database fails, or the record is damaged.
    fn message_at(&self, sequence: u64) -> Result<Option<MessageRecord>, StoreError> {
        let row = self.get(Table::Messages, &sequence.to_be_bytes())?;
        Ok(row.map(|row| MessageRecord::read(&row)).transpose()?)
    }

    /// How many messages are processed.
    ///
    /// # Errors
    /// The database fails.
    fn message_count(&self) -> Result<u64, StoreError> {
        self.number(Table::Counts, &index_prefix(IndexId::All, ""))
    }

    /// What a message costs.
    ///
    /// # Errors
    /// The database fails, or the record is damaged.
    fn costs(&self, hash: &ItemHash) -> Result<Option<CostRecord>, StoreError> {
        let row = self.get(Table::Costs, &hash_key(hash))?;
        Ok(row.map(|row| CostRecord::read(&row)).transpose()?)
    }

    /// What became of a message and what it says, as of whoever reads: here, now.
    ///
    /// # Errors
    /// The database fails, or the record is damaged.
    fn standing(&self, hash: &ItemHash) -> Result<(Fate, Option<MessageRecord>), StoreError> {
        standing::message(self, hash, None)
    }

    /// True when a message is used, as of whoever reads: here, by any that stands.
    ///
    /// # Errors
    /// The database fails, or the record is damaged.
    fn in_use(&self, hash: &ItemHash) -> Result<bool, StoreError> {
        Ok(self.prefixed(Table::Uses, &hash_key(hash))?.iter().any(|(_, until)| until.is_empty()))
    }

    /// What became of a hash.
    ///
    /// # Errors
    /// The database fails, or the record is damaged.
    fn status(&self, hash: &ItemHash) -> Result<Option<StatusRecord>, StoreError> {
        let row = self.get(Table::Status, &hash_key(hash))?;
        Ok(row.map(|row| StatusRecord::read(&row)).transpose()?)
    }

    /// What chains say of a message, by height. Nothing for whoever decides on messages: it is this node's own view, and no part of the common state.
    ///
    /// # Errors
    /// The database fails, or a record is damaged.
    fn confirmations(&self, _hash: &ItemHash) -> Result<Vec<Confirmation>, StoreError> {
        Ok(Vec::new())
    }

    /// A file that is here.
    ///
    /// # Errors
    /// The database fails, or the record is damaged.
    fn file(&self, hash: &ItemHash) -> Result<Option<FileRecord>, StoreError> {
        let row = self.get(Table::Files, &hash_key(hash))?;
        Ok(row.map(|row| FileRecord::read(&row)).transpose()?)
    }
}

/// A table as it was at a moment.
type Opened = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What the store held at a moment.
pub struct Snapshot {
    transaction: ReadTransaction,
    /// Tables that were looked at: most readers need few, and opening all takes longer than what they read.
    tables: [OnceLock<Opened>; Table::ALL.len()],
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction) -> Self {
        Self { transaction, tables: [const { OnceLock::new() }; Table::ALL.len()] }
    }

    fn table(&self, table: Table) -> Result<&Opened, StoreError> {
        let place = &self.tables[table as usize];
        match place.get() {
            Some(opened) => Ok(opened),
            None => {
                let opened = self.transaction.open_table(table.definition())?;
                Ok(place.get_or_init(|| opened))
            }
        }
    }
}

impl Reader for Snapshot {
    fn confirmations(&self, hash: &ItemHash) -> Result<Vec<Confirmation>, StoreError> {
        confirmation::of_message(self, hash)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.table(table)?.get(key)?.map(|value| value.value().to_vec()))
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
        let range = self.table(table)?.range(start..end)?;
        type Guard<'a> = redb::AccessGuard<'a, &'static [u8]>;
        let row = |row: Result<(Guard<'_>, Guard<'_>), redb::StorageError>| {
            let (key, value) = row?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        };
        if reverse { range.rev().take(limit).map(row).collect() } else { range.take(limit).map(row).collect() }
    }
}
