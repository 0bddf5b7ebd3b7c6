//! The store: redb, one writer, snapshots for readers.

pub mod arrivals;
pub mod batch;
pub mod confirmation;
pub mod derived;
pub mod digest;
pub mod grantees;
mod journal;
pub mod listing;
pub mod owned;
pub mod reader;
pub mod record;
pub mod schema;
pub mod standing;
pub mod walk;

use derived::Touched;
use digest::Difference;
use journal::Journal;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, StorageBackend, backends::FileBackend};
use schema::{SCHEMA_VERSION, Table};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use batch::{Batch, Layer};
pub use digest::StateDigest;
pub use reader::{Reader, Row, Snapshot};
pub use walk::Walk;

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
    /// The journal beside the store is a later one's: one of the two was put there without the other.
    #[error(
        "the store ends after {store} commits and its journal begins with commit {journal}: put the journal that belongs to this store beside it, or none"
    )]
    OtherJournal {
        /// Commits that the store holds.
        store: u64,
        /// The first one that the journal holds.
        journal: u64,
    },
    /// The journal: a full or failing disk. The operator's to solve.
    #[error("the journal of the store failed: {0}")]
    Journal(#[from] io::Error),
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

/// Extension of the file of the journal, beside the database's.
const JOURNAL_EXTENSION: &str = "journal";
/// Names in `meta`: the version of the schema, the number of the last commit, what the store is known by to its journal.
const SCHEMA: &[u8] = b"schema";
const COMMITS: &[u8] = b"commits";
const IDENTITY: &[u8] = b"identity";

/// The database. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    /// None for a store that has no file: each commit goes to the database at once.
    journal: Mutex<Option<Journal>>,
    /// Microseconds of all commits.
    committing: AtomicU64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the store in a file, with its journal in another one beside it.
    ///
    /// # Errors
    /// It cannot be opened, or is of another version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let journal = path.with_extension(JOURNAL_EXTENSION);
        let journal = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(journal)?;
        // Both are found there after a power cut, before anything is said to be kept.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Self::of(database, Some(Box::new(FileBackend::new(journal)?)))
    }

    /// Opens or creates the store on something else than a file: memory, or a disk that fails. Without a journal.
    ///
    /// # Errors
    /// It cannot be opened, or is of another version.
    pub fn on(backend: impl StorageBackend) -> Result<Self, StoreError> {
        Self::of(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?, None)
    }

    /// The same with a journal on something of its own, of whose size it is, unless that is nothing.
    ///
    /// # Errors
    /// See [`Store::on`].
    pub fn with_journal(backend: impl StorageBackend, journal: impl StorageBackend) -> Result<Self, StoreError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        Self::of(database, Some(Box::new(journal)))
    }

    fn of(database: Database, journal: Option<Box<dyn StorageBackend>>) -> Result<Self, StoreError> {
        let (identity, number) = match meta(&database)? {
            Some(meta) => meta,
            None => (found(&database)?, 0),
        };
        let shared = Shared { database, journal: Mutex::new(None), committing: AtomicU64::new(0) };
        let store = Self { shared: Arc::new(shared) };
        if let Some(backend) = journal {
            if number > 0 && backend.len()? == 0 {
                tracing::warn!(
                    "the store has no journal: what was committed last may be lost; a backup is of both files"
                );
            }
            let (mut journal, missing) = Journal::open(backend, identity, number)?;
            if !missing.is_empty() {
                let number = journal.next_number();
                store.write(&missing, Some(number), Durability::Immediate)?;
            }
            // Nothing in it is missing in the database any more. A record behind older ones would not be their continuation where commits went to
            // the database itself in between, and would not be read.
            journal.restart();
            *store.journal() = Some(journal);
        }
        Ok(store)
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Option<Journal>> {
        self.shared.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store holds now.
    ///
    /// # Errors
    /// The database fails.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::new(self.shared.database.begin_read()?))
    }

    /// Applies changes, all or nothing. They survive whatever happens after.
    ///
    /// # Errors
    /// The disk fails, and nothing was applied; it may be found applied, as a whole, at the next start.
    pub fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        let started = Instant::now();
        let result = match &mut *self.journal() {
            Some(journal) => self.commit_by(journal, changes),
            None => self.write(changes, None, Durability::Immediate),
        };
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.shared.committing.fetch_add(micros, Ordering::Relaxed);
        result
    }

    /// What the store is known by: a random number, which it has for ever.
    ///
    /// # Errors
    /// The database fails.
    pub fn identity(&self) -> Result<u64, StoreError> {
        self.snapshot()?.number(Table::Meta, IDENTITY)
    }

    /// Time that all commits since the start have taken, waiting for the disk included.
    #[must_use]
    pub fn commit_time(&self) -> Duration {
        Duration::from_micros(self.shared.committing.load(Ordering::Relaxed))
    }

    /// Brings changes to the journal and follows in memory; where they do not fit, brings the database to the disk.
    fn commit_by(&self, journal: &mut Journal, changes: &Changes) -> Result<(), StoreError> {
        let number = journal.next_number();
        if journal.append(number, changes)? {
            let followed = self.write(changes, Some(number), Durability::None);
            if followed.is_err() {
                journal.distrust();
            }
            return followed;
        }
        self.write(changes, Some(number), Durability::Immediate)?;
        journal.restart();
        Ok(())
    }

    fn write(&self, changes: &Changes, number: Option<u64>, durability: Durability) -> Result<(), StoreError> {
        let mut write = self.shared.database.begin_write()?;
        write.set_durability(durability)?;
        // A crash must not cost a walk through the whole file at the next start.
        write.set_quick_repair(matches!(durability, Durability::Immediate));
        let mut changes = changes.iter().peekable();
        let (mut digest, mut touched) = (Difference::default(), Touched::default());
        while let Some(((table, _), _)) = changes.peek() {
            let current = *table;
            let mut open = write.open_table(current.definition())?;
            while let Some(((_, key), value)) = changes.next_if(|((table, _), _)| *table == current) {
                let old = match value {
                    Some(value) => open.insert(key.as_slice(), value.as_slice())?,
                    None => open.remove(key.as_slice())?,
                };
                let (old, new) = (old.as_ref().map(|old| old.value()), value.as_deref());
                touched.row(current, key, old, new);
                digest.row(current, key, old, new);
            }
        }
        touched.apply(&write)?;
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
        if let Some(number) = number {
            write.open_table(Table::Meta.definition())?.insert(COMMITS, number.to_be_bytes().as_slice())?;
        }
        write.commit()?;
        Ok(())
    }
}

/// Of a store that was founded earlier: its identity, and the number of the last commit that it holds.
fn meta(database: &Database) -> Result<Option<(u64, u64)>, StoreError> {
    let read = database.begin_read()?;
    let meta = match read.open_table(Table::Meta.definition()) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let value = |name: &[u8]| Ok::<_, StoreError>(meta.get(name)?.map(|value| number(value.value())));
    match value(SCHEMA)? {
        Some(SCHEMA_VERSION) => Ok(Some((value(IDENTITY)?.unwrap_or(0), value(COMMITS)?.unwrap_or(0)))),
        Some(found) => Err(StoreError::OtherVersion { found }),
        None => Ok(None),
    }
}

/// Founds a store; its identity.
fn found(database: &Database) -> Result<u64, StoreError> {
    let mut identity = [0; 8];
    getrandom::fill(&mut identity).map_err(io::Error::other)?;
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    for table in Table::ALL {
        write.open_table(table.definition())?;
    }
    {
        let mut meta = write.open_table(Table::Meta.definition())?;
        meta.insert(SCHEMA, SCHEMA_VERSION.to_be_bytes().as_slice())?;
        meta.insert(IDENTITY, identity.as_slice())?;
    }
    write.commit()?;
    Ok(number(&identity))
}

/// A number in the value of a table; damaged ones count as zero.
#[must_use]
pub fn number(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_be_bytes).unwrap_or(0)
}
