//! The journal: what was committed since the database itself was last brought to the disk.
//!
//! A durable commit of redb costs nearly the same however little it changes: pages of every table, the state of the allocator, two waits for the
//! disk. A commit here is one record at the end of the journal and one wait; the database follows in memory, and on the disk when the journal is
//! full. A crash loses nothing: the records that the database does not hold yet are applied again at the next start.
//!
//! The journal has one size for ever, so that waiting for it is waiting for its bytes alone and not for the file system's books. When it is full
//! it is begun from the front again; what is left of its last round is told by its number, and by a checksum that holds the identity of the store.
//!
//! ```text
//! record: number (8 bytes), length of the body (4), checksum (16), body
//! body:   for each table: length of its name (1), name, number of rows (4);
//!         for each row: length of the key (4), of the value and one more, or 0 for a deletion (4), key, value
//! ```

use super::{Changes, StoreError, schema::Table};
use redb::StorageBackend;
use sha2::{Digest as _, Sha256};
use std::io;

/// Bytes of a new journal. A start after a crash applies as much at most.
pub(super) const JOURNAL_BYTES: u64 = 8 << 20;
/// Bytes before the body of a record: number, length, checksum.
const HEADER_BYTES: usize = 8 + 4 + CHECKSUM_BYTES;
/// Bytes of the sha256 of everything else in a record.
const CHECKSUM_BYTES: usize = 16;
/// Zeros that are written in one go when the journal is made.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The journal of one store.
#[derive(Debug)]
pub(super) struct Journal {
    backend: Box<dyn StorageBackend>,
    /// Its size, bytes.
    size: u64,
    /// Whose records these are.
    store: u64,
    /// Where the next record goes.
    at: u64,
    /// Number of the last record.
    number: u64,
    /// True after a failure: what is at the end of the journal is not known, and nothing is added to it.
    broken: bool,
}

impl Journal {
    /// Opens the journal of a store that holds all records up to `number`, and reads what it does not hold.
    ///
    /// # Errors
    /// It cannot be read or made, or it is not the continuation of this store.
    pub(super) fn open(
        backend: Box<dyn StorageBackend>,
        store: u64,
        number: u64,
    ) -> Result<(Self, Changes), StoreError> {
        let mut size = backend.len()?;
        if size == 0 {
            size = JOURNAL_BYTES;
            backend.set_len(size)?;
            for place in (0..size).step_by(ZEROS.len()) {
                backend.write(place, &ZEROS)?;
            }
            backend.sync_data()?;
        }
        let mut journal = Self { backend, size, store, at: 0, number, broken: false };
        let mut missing = Changes::new();
        let mut last = None;
        while let Some((number, body)) = journal.record()? {
            // What follows the last record is what an earlier round has left.
            if last.is_some_and(|last| number != last + 1) {
                break;
            }
            if last.is_none() && number > journal.number + 1 {
                return Err(StoreError::OtherJournal { store: journal.number, journal: number });
            }
            if number > journal.number {
                read_body(&body, &mut missing)?;
                journal.number = number;
            }
            journal.at += (HEADER_BYTES + body.len()) as u64;
            last = Some(number);
        }
        Ok((journal, missing))
    }

    /// The record at the current place, if a whole one of this store is there.
    fn record(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let left = self.size.saturating_sub(self.at);
        if left < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.backend.read(self.at, &mut header)?;
        let (front, checksum) = header.split_at(HEADER_BYTES - CHECKSUM_BYTES);
        let (number, length) = front.split_at(8);
        let length = length.try_into().map_or(u32::MAX, u32::from_be_bytes);
        if u64::from(length) > left - HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut body = vec![0; length as usize];
        self.backend.read(self.at + HEADER_BYTES as u64, &mut body)?;
        if self.checksum(front, &body)[..] != *checksum {
            return Ok(None);
        }
        Ok(Some((super::number(number), body)))
    }

    fn checksum(&self, front: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let digest = Sha256::new().chain_update(self.store.to_be_bytes()).chain_update(front).chain_update(body);
        let mut checksum = [0; CHECKSUM_BYTES];
        checksum.copy_from_slice(&digest.finalize()[..CHECKSUM_BYTES]);
        checksum
    }

    /// The number of the next commit, by way of the journal or not.
    pub(super) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Adds the record of that number and waits until it is on the disk. False when there is no room: then nothing was done.
    ///
    /// # Errors
    /// The disk fails; whether the record is there is not known.
    pub(super) fn append(&mut self, number: u64, changes: &Changes) -> io::Result<bool> {
        if self.broken {
            return Ok(false);
        }
        let Some(body) = body(changes) else { return Ok(false) };
        let length = HEADER_BYTES as u64 + body.len() as u64;
        let Ok(body_length) = u32::try_from(body.len()) else { return Ok(false) };
        if length > self.size.saturating_sub(self.at) {
            return Ok(false);
        }
        let front = [&number.to_be_bytes()[..], &body_length.to_be_bytes()].concat();
        let checksum = self.checksum(&front, &body);
        let record = [front.as_slice(), &checksum, &body].concat();
        let written = self.backend.write(self.at, &record).and_then(|()| self.backend.sync_data());
        self.broken = written.is_err();
        written?;
        self.at += length;
        Ok(true)
    }

    /// The database holds everything and is on the disk: the next record goes to the front.
    pub(super) fn restart(&mut self) {
        self.at = 0;
        self.broken = false;
    }

    /// The database does not hold what the journal does: nothing is added until it is on the disk.
    pub(super) fn distrust(&mut self) {
        self.broken = true;
    }
}

/// Changes as the body of a record; none when a length is beyond its four bytes.
fn body(changes: &Changes) -> Option<Vec<u8>> {
    let number = |length: usize| u32::try_from(length).ok().map(u32::to_be_bytes);
    let mut body = Vec::new();
    let mut rest = changes.iter().peekable();
    while let Some(((table, _), _)) = rest.peek() {
        let table = *table;
        let name = table.name();
        body.push(u8::try_from(name.len()).ok()?);
        body.extend_from_slice(name.as_bytes());
        let count_at = body.len();
        body.extend_from_slice(&[0; 4]);
        let mut count = 0;
        while let Some(((_, key), value)) = rest.next_if(|((other, _), _)| *other == table) {
            body.extend_from_slice(&number(key.len())?);
            body.extend_from_slice(&number(value.as_ref().map_or(0, |value| value.len() + 1))?);
            body.extend_from_slice(key);
            body.extend_from_slice(value.as_deref().unwrap_or_default());
            count += 1;
        }
        body[count_at..count_at + 4].copy_from_slice(&number(count)?);
    }
    Some(body)
}

fn read_body(mut body: &[u8], changes: &mut Changes) -> Result<(), StoreError> {
    let damaged = |problem: &str| StoreError::from(super::record::DamagedRecord::of_journal(problem.to_owned()));
    while !body.is_empty() {
        let (table, count) = table(&mut body).ok_or_else(|| damaged("no table where one was expected"))?;
        for _ in 0..count {
            let (key, value) = row(&mut body).ok_or_else(|| damaged("no row where one was expected"))?;
            changes.insert((table, key.to_vec()), value.map(<[u8]>::to_vec));
        }
    }
    Ok(())
}

fn table(body: &mut &[u8]) -> Option<(Table, usize)> {
    let length = body.split_off_first()?;
    let name = body.split_off(..usize::from(*length))?;
    let table = Table::ALL.iter().copied().find(|table| table.name().as_bytes() == name)?;
    Some((table, length_of(body)?))
}

fn row<'a>(body: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let (key, value) = (length_of(body)?, length_of(body)?);
    let key = body.split_off(..key)?;
    match value.checked_sub(1) {
        None => Some((key, None)),
        Some(length) => Some((key, Some(body.split_off(..length)?))),
    }
}

fn length_of(body: &mut &[u8]) -> Option<usize> {
    let bytes = body.split_off(..4)?;
    usize::try_from(bytes.try_into().map(u32::from_be_bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Reader as _, Store};
    use redb::backends::InMemoryBackend;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    /// A disk that others see, too, and that can be made to fail.
    #[derive(Debug, Clone)]
    struct Disk {
        bytes: Arc<InMemoryBackend>,
        fails: Arc<AtomicBool>,
    }

    impl Disk {
        fn new() -> Self {
            Self { bytes: Arc::new(InMemoryBackend::new()), fails: Arc::default() }
        }

        fn copy(&self) -> Self {
            let copy = Self::new();
            let mut bytes = vec![0; self.len().expect("a length") as usize];
            self.read(0, &mut bytes).expect("a read");
            copy.set_len(bytes.len() as u64).expect("room");
            copy.write(0, &bytes).expect("a write");
            copy
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.bytes.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.bytes.read(offset, out)
        }
        fn set_len(&self, length: u64) -> io::Result<()> {
            self.bytes.set_len(length)
        }
        fn sync_data(&self) -> io::Result<()> {
            if self.fails.load(Ordering::Relaxed) { Err(io::Error::other("no disk")) } else { Ok(()) }
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.bytes.write(offset, data)
        }
    }

    fn one(key: u8, value: Option<u8>) -> Changes {
        Changes::from([((Table::State, vec![key]), value.map(|value| vec![value]))])
    }

    fn open(disk: &Disk, store: u64, number: u64) -> Result<(Journal, Changes), StoreError> {
        Journal::open(Box::new(disk.clone()), store, number)
    }

    fn append(journal: &mut Journal, changes: &Changes) -> io::Result<bool> {
        let number = journal.next_number();
        journal.append(number, changes)
    }

    #[test]
    fn what_the_store_does_not_hold_is_read_and_the_last_word_counts() {
        let disk = Disk::new();
        let (mut journal, missing) = open(&disk, 1, 0).expect("a journal");
        assert!(missing.is_empty());
        for changes in [one(1, Some(1)), one(2, Some(2)), one(1, None)] {
            assert!(append(&mut journal, &changes).expect("a disk"));
        }
        let (_, missing) = open(&disk, 1, 0).expect("a journal");
        assert_eq!(missing, [one(1, None), one(2, Some(2))].into_iter().flatten().collect());
        let (mut journal, missing) = open(&disk, 1, 2).expect("a journal");
        assert_eq!(missing, one(1, None));
        assert!(append(&mut journal, &one(3, Some(3))).expect("a disk"));
        let (_, missing) = open(&disk, 1, 3).expect("a journal");
        assert_eq!(missing, one(3, Some(3)), "what comes after a crash goes behind what was there");
    }

    #[test]
    fn what_an_earlier_round_has_left_is_not_read_again() {
        let disk = Disk::new();
        let (mut journal, _) = open(&disk, 1, 0).expect("a journal");
        for key in 0..3 {
            append(&mut journal, &one(key, Some(0))).expect("a disk");
        }
        journal.restart();
        append(&mut journal, &one(9, Some(9))).expect("a disk");
        let (_, missing) = open(&disk, 1, 3).expect("a journal");
        assert_eq!(missing, one(9, Some(9)));
    }

    #[test]
    fn a_torn_record_and_all_after_it_were_never_there() {
        let disk = Disk::new();
        let (mut journal, _) = open(&disk, 1, 0).expect("a journal");
        append(&mut journal, &one(1, Some(1))).expect("a disk");
        let torn = journal.at;
        append(&mut journal, &one(2, Some(2))).expect("a disk");
        append(&mut journal, &one(3, Some(3))).expect("a disk");
        disk.write(torn + HEADER_BYTES as u64, &[0xff]).expect("a disk");
        let (journal, missing) = open(&disk, 1, 0).expect("a journal");
        assert_eq!((journal.number, missing), (1, one(1, Some(1))));
    }

    #[test]
    fn another_stores_journal_is_not_read_and_a_later_one_is_refused() {
        let disk = Disk::new();
        let (mut journal, _) = open(&disk, 1, 7).expect("a journal");
        append(&mut journal, &one(1, Some(1))).expect("a disk");
        let (_, missing) = open(&disk, 2, 0).expect("a journal");
        assert!(missing.is_empty());
        let refusal = open(&disk, 1, 3).expect_err("a gap").to_string();
        assert!(refusal.contains("after 3 commits") && refusal.contains("commit 8"), "{refusal}");
    }

    /// What the store holds after a crash now.
    fn crash(store: &Disk, journal: &Disk) -> (Disk, Disk, Store) {
        let (store, journal) = (store.copy(), journal.copy());
        let opened = Store::with_journal(store.clone(), journal.clone()).expect("a store");
        (store, journal, opened)
    }

    fn value(store: &Store, key: u8) -> Option<Vec<u8>> {
        store.snapshot().expect("a snapshot").get(Table::State, &[key]).expect("no error")
    }

    #[test]
    fn what_was_committed_is_there_after_a_crash_at_any_moment() {
        let (disk, journal) = (Disk::new(), Disk::new());
        let store = Store::with_journal(disk.clone(), journal.clone()).expect("a store");
        for key in 0..5 {
            store.commit(&one(key, Some(key))).expect("a commit");
            assert_eq!(value(&store, key), Some(vec![key]));
        }
        let (disk, journal, store) = crash(&disk, &journal);
        store.commit(&one(0, None)).expect("a commit");
        let large = Changes::from([((Table::State, vec![9]), Some(vec![9; JOURNAL_BYTES as usize]))]);
        let (before, beside, found) = crash(&disk, &journal);
        assert_eq!((value(&found, 0), value(&found, 4), value(&found, 9)), (None, Some(vec![4]), None));
        // What does not fit takes the database to the disk, and the journal begins again.
        drop((before, beside, found));
        store.commit(&large).expect("a commit");
        store.commit(&one(1, Some(7))).expect("a commit");
        let (_, _, found) = crash(&disk, &journal);
        assert_eq!((value(&found, 0), value(&found, 1), value(&found, 4)), (None, Some(vec![7]), Some(vec![4])));
        assert_eq!(value(&found, 9).map(|value| value.len()), Some(JOURNAL_BYTES as usize));
    }

    /// Commits of a second life were written behind records of the first, whose continuation they were not, and were gone in the third.
    #[test]
    fn what_is_committed_after_a_start_that_did_nothing_is_kept() {
        let (disk, journal) = (Disk::new(), Disk::new());
        let store = Store::with_journal(disk.clone(), journal.clone()).expect("a store");
        for key in 0..3 {
            store.commit(&one(key, Some(key))).expect("a commit");
        }
        // It starts and applies what the database lacks, and dies at once.
        let (disk, journal, store) = crash(&disk, &journal);
        drop(store);
        let (disk, journal, store) = crash(&disk, &journal);
        store.commit(&one(7, Some(7))).expect("a commit");
        let (_, _, found) = crash(&disk, &journal);
        assert_eq!((value(&found, 2), value(&found, 7)), (Some(vec![2]), Some(vec![7])));
    }

    #[test]
    fn a_disk_that_fails_is_said_and_what_follows_is_kept() {
        let (disk, journal) = (Disk::new(), Disk::new());
        let store = Store::with_journal(disk.clone(), journal.clone()).expect("a store");
        store.commit(&one(1, Some(1))).expect("a commit");
        journal.fails.store(true, Ordering::Relaxed);
        store.commit(&one(2, Some(2))).expect_err("no disk");
        assert_eq!(value(&store, 2), None);
        // The journal is not trusted after that: the database goes to the disk itself.
        store.commit(&one(3, Some(3))).expect("a commit");
        journal.fails.store(false, Ordering::Relaxed);
        store.commit(&one(4, Some(4))).expect("a commit");
        let (_, _, found) = crash(&disk, &journal);
        let found: Vec<bool> = (1..=4).map(|key| value(&found, key).is_some()).collect();
        assert_eq!(found, [true, false, true, true]);
    }

    #[test]
    fn a_full_journal_and_a_broken_one_take_nothing() {
        let disk = Disk::new();
        let (mut journal, _) = open(&disk, 1, 0).expect("a journal");
        let large = Changes::from([((Table::State, vec![1]), Some(vec![7; JOURNAL_BYTES as usize / 2]))]);
        assert!(append(&mut journal, &large).expect("a disk"));
        assert!(!append(&mut journal, &large).expect("a disk"));
        journal.restart();
        disk.fails.store(true, Ordering::Relaxed);
        append(&mut journal, &one(1, Some(1))).expect_err("no disk");
        disk.fails.store(false, Ordering::Relaxed);
        assert!(!append(&mut journal, &one(2, Some(2))).expect("nothing is tried"));
        journal.restart();
        assert!(append(&mut journal, &one(3, Some(3))).expect("a disk"));
    }
}
