//! What a plugin sees while its state is made anew.

use crate::store::{Reader, Row, StoreError, record::MessageRecord, schema::Table, standing::Fate};
use ccn_message::ItemHash;
use std::sync::Arc;

/// What a plugin sees whose state is made anew: that state in the place of the one that serves, and everything else as it is.
pub(super) struct Beside {
    pub(super) inner: Arc<dyn Reader + Send + Sync>,
    /// What the keys of its namespace begin with.
    pub(super) prefix: Vec<u8>,
    /// The message that is being taken out: it is not to be seen.
    pub(super) without: Option<ItemHash>,
}

impl Beside {
    fn place(&self, table: Table, key: &[u8]) -> Table {
        if table == Table::State && key.starts_with(&self.prefix) { Table::Rebuilt } else { table }
    }
}

impl Reader for Beside {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(self.place(table, key), key)
    }

    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Row>, StoreError> {
        self.inner.range(self.place(table, start), start, end, limit, reverse)
    }

    fn standing(&self, hash: &ItemHash) -> Result<(Fate, Option<MessageRecord>), StoreError> {
        if self.without.as_ref() == Some(hash) { Ok((Fate::Unknown, None)) } else { self.inner.standing(hash) }
    }

    fn in_use(&self, hash: &ItemHash) -> Result<bool, StoreError> {
        self.inner.in_use(hash)
    }
}
