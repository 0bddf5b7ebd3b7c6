//! The store: redb, one writer, snapshots for readers.

pub mod batch;
pub mod confirmation;
pub mod digest;
pub mod listing;
pub mod reader;
pub mod record;
pub mod schema;
pub mod standing;

use digest::Difference;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};
use schema::{SCHEMA_VERSION, Table};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use batch::{Batch, Layer};
pub use digest::StateDigest;
pub use reader::{Reader, Row, Snapshot};

/// Why the store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database: a full or failing disk, a foreign file. The operator's to solve; nothing was applied.
    #[error("the store failed: {0}")]
    Database(Box<redb::Error>),
    /// The store was written by another version of the program.
    #[error(
        "the store is of version {found}, this program reads version {SCHEMA_VERSION}; use the program that wrote it, or a new data folder"
    )]
    OtherVersion {
        /// The version in the store.
        found: u64,
    },
    /// A record that cannot be read.
    #[error(transparent)]
    Damaged(#[from] record::DamagedRecord),
}

impl StoreError {
    /// True when the store does nothing any more until it is opened anew: a write to the disk has failed before.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        matches!(self, Self::Database(error) if matches!(**error, redb::Error::PreviousIo))
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// Changes of a batch: the new value by table and key, none for a deletion.
pub type Changes = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// Memory for pages, bytes.
const CACHE_BYTES: usize = 128 << 20;

/// The database. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    /// Microseconds of all commits.
    committing: Arc<AtomicU64>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the store in a file.
    ///
    /// # Errors
    /// It cannot be opened, or is of another version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::of(Database::builder().set_cache_size(CACHE_BYTES).create(path)?)
    }

    /// Opens or creates the store on something else than a file: memory, or a disk that fails.
    ///
    /// # Errors
    /// It cannot be opened, or is of another version.
    pub fn on(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        Self::of(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
    }

    fn of(database: Database) -> Result<Self, StoreError> {
        let store = Self { database: Arc::new(database), committing: Arc::default() };
        let mut write = store.database.begin_write()?;
        write.set_quick_repair(true);
        {
            for table in Table::ALL {
                write.open_table(table.definition())?;
            }
            let mut meta = write.open_table(Table::Meta.definition())?;
            let found = meta.get(&b"schema"[..])?.map(|value| number(value.value()));
            match found {
                None => {
                    meta.insert(&b"schema"[..], &SCHEMA_VERSION.to_be_bytes()[..])?;
                }
                Some(SCHEMA_VERSION) => {}
                Some(found) => return Err(StoreError::OtherVersion { found }),
            }
        }
        write.commit()?;
        Ok(store)
    }

    /// What the store holds now.
    ///
    /// # Errors
    /// The database fails.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::new(&self.database.begin_read()?)
    }

    /// Applies changes, all or nothing. They survive whatever happens after.
    ///
    /// # Errors
    /// The database fails; nothing was applied.
    pub fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        let started = Instant::now();
        let result = self.write(changes);
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.committing.fetch_add(micros, Ordering::Relaxed);
        result
    }

    /// Time that all commits since the start have taken, waiting for the disk included.
    #[must_use]
    pub fn commit_time(&self) -> Duration {
        Duration::from_micros(self.committing.load(Ordering::Relaxed))
    }

    fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut write = self.database.begin_write()?;
        // A crash must not cost a walk through the whole file at the next start.
        write.set_quick_repair(true);
        let mut changes = changes.iter().peekable();
        let mut digest = Difference::default();
        while let Some(((table, _), _)) = changes.peek() {
            let current = *table;
            let mut open = write.open_table(current.definition())?;
            while let Some(((_, key), value)) = changes.next_if(|((table, _), _)| *table == current) {
                let old = match value {
                    Some(value) => open.insert(key.as_slice(), value.as_slice())?,
                    None => open.remove(key.as_slice())?,
                };
                digest.row(current, key, old.as_ref().map(|old| old.value()), value.as_deref());
            }
        }
        {
            let mut meta = write.open_table(Table::Meta.definition())?;
            let parts = digest.applied(|key| Ok(meta.get(key)?.map(|value| value.value().to_vec())))?;
            for (key, sum) in parts {
                match sum {
                    Some(sum) => meta.insert(key.as_slice(), sum.as_slice())?,
                    None => meta.remove(key.as_slice())?,
                };
            }
        }
        write.commit()?;
        Ok(())
    }
}

/// A number in the value of a table; damaged ones count as zero.
#[must_use]
pub fn number(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_be_bytes).unwrap_or(0)
}
