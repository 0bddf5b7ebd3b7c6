//! Files by who keeps them: a row of `owned` for each row of `pins`, and their number and bytes by owner.

use super::{
    Reader, StoreError, Walk,
    derived::{count, open, value},
    record::{DamagedRecord, FileKind, FileRecord, PinRecord, Record as _},
    schema::{Key, Table, end_of, hash_key, split_hash, time_of_key},
};
use ccn_message::ItemHash;
use redb::WriteTransaction;
use std::collections::BTreeMap;

/// The beginnings of the keys in `own_counts` of the number of an owner's files, and of their bytes.
const FILES_MARK: u8 = b'f';
const BYTES_MARK: u8 = b'b';
/// Bytes of the time in a key.
const TIME_BYTES: usize = 8;
/// Rows that are read at a time.
const PAGE: usize = 256;

/// A file that a message keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedFile {
    /// The file.
    pub file: ItemHash,
    /// The message.
    pub item_hash: ItemHash,
    /// Content time of the message, seconds since 1970.
    pub created: f64,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: FileKind,
}

/// Rows of `pins` that a commit has changed, and what they held; none where there was no such row.
pub(super) type Before = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn place(owner: &str, created: f64, item_hash: &ItemHash) -> Key {
    Key::new().text(owner).time(created).hash(item_hash)
}

fn count_place(mark: u8, owner: &str) -> Vec<u8> {
    Key::new().bytes(&[mark]).text(owner).done()
}

/// Brings the rows up to date with those of `pins`.
pub(super) fn follow(write: &WriteTransaction, before: Before) -> Result<(), StoreError> {
    let (pins, files) = (open(write, Table::Pins)?, open(write, Table::Files)?);
    let mut owned = open(write, Table::Owned)?;
    let mut counts = open(write, Table::OwnCounts)?;
    for (pin, old) in before {
        let Some((file, rest)) = split_hash(&pin) else { continue };
        let Some((item_hash, _)) = split_hash(rest) else { continue };
        let key = |row: &[u8]| {
            let pin = PinRecord::read(row).ok()?;
            Some((place(&pin.owner, pin.created, &item_hash).hash(&file).done(), pin.owner))
        };
        let new = value(&pins, &pin)?;
        let (old, new) = (old.as_deref().and_then(key), new.as_deref().and_then(key));
        if old == new {
            continue;
        }
        if let Some((key, owner)) = old {
            let row = owned.remove(key.as_slice())?.map(|row| row.value().to_vec());
            if let Some((size, _)) = row.and_then(|row| postcard::from_bytes::<(u64, FileKind)>(&row).ok()) {
                count(&mut counts, &count_place(FILES_MARK, &owner), -1)?;
                count(&mut counts, &count_place(BYTES_MARK, &owner), -i64::try_from(size).unwrap_or(i64::MAX))?;
            }
        }
        let record = value(&files, &hash_key(&file))?.and_then(|row| FileRecord::read(&row).ok());
        if let (Some((key, owner)), Some(record)) = (new, record)
            && let Ok(row) = postcard::to_stdvec(&(record.size, record.kind))
        {
            owned.insert(key.as_slice(), row.as_slice())?;
            count(&mut counts, &count_place(FILES_MARK, &owner), 1)?;
            count(&mut counts, &count_place(BYTES_MARK, &owner), i64::try_from(record.size).unwrap_or(i64::MAX))?;
        }
    }
    Ok(())
}

/// The number of files that an owner keeps, each as often as there are messages that keep it, and their bytes.
///
/// # Errors
/// The store fails.
pub fn totals(reader: &dyn Reader, owner: &str) -> Result<(u64, u64), StoreError> {
    let count = |mark| reader.number(Table::OwnCounts, &count_place(mark, owner));
    Ok((count(FILES_MARK)?, count(BYTES_MARK)?))
}

/// The files that an owner keeps, by (created, message): those after that place, or all.
pub fn files<'a>(
    reader: &'a dyn Reader,
    owner: &str,
    descending: bool,
    after: Option<&(f64, ItemHash)>,
) -> impl Iterator<Item = Result<OwnedFile, StoreError>> + 'a {
    let prefix = Key::new().text(owner).done();
    let (mut start, mut end) = (prefix.clone(), end_of(&prefix));
    if let Some((created, item_hash)) = after {
        let passed = place(owner, *created, item_hash).done();
        if descending {
            end = passed;
        } else {
            start = end_of(&passed);
        }
    }
    Walk::new(reader, Table::Owned, (start, end), descending, PAGE).map(move |row| {
        let (key, row) = row?;
        let read = || {
            let (created, rest) = key.get(prefix.len()..)?.split_first_chunk::<TIME_BYTES>()?;
            let (item_hash, rest) = split_hash(rest)?;
            let (file, _) = split_hash(rest)?;
            let (size, kind) = postcard::from_bytes(&row).ok()?;
            Some(OwnedFile { file, item_hash, created: time_of_key(*created), size, kind })
        };
        Ok(read().ok_or_else(|| DamagedRecord::of("owned file"))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Store};

    /// A row to set; none: to delete.
    type Set = (Table, Vec<u8>, Option<Vec<u8>>);

    #[test]
    fn files_stand_by_time_and_are_counted() {
        let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
        let [one, other] = [b"one", b"two"].map(|bytes| ItemHash::sha256_of(bytes));
        let [first, second] = [b"a", b"b"].map(|bytes| ItemHash::sha256_of(bytes));
        let pin = |created| PinRecord { owner: "0xA".into(), reference: None, created };
        let key = |file: &ItemHash, message: &ItemHash| Key::new().hash(file).hash(message).done();
        let set = |rows: &[Set]| {
            let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
            rows.iter().for_each(|(table, key, value)| batch.set(*table, key.clone(), value.clone()));
            batch.keep();
            store.commit(batch.changes()).expect("a commit");
        };
        let file = |hash: &ItemHash, size| {
            let record = FileRecord { size, kind: FileKind::File, grace: None, pins: 1 };
            (Table::Files, hash_key(hash), Some(record.to_bytes()))
        };
        let check = |expect: &[(&ItemHash, &ItemHash)], totals_expected| {
            let snapshot = store.snapshot().expect("a snapshot");
            for descending in [false, true] {
                let mut expect: Vec<_> = expect.iter().map(|(file, hash)| ((*file).clone(), (*hash).clone())).collect();
                if descending {
                    expect.reverse();
                }
                let all: Vec<OwnedFile> =
                    files(&snapshot, "0xA", descending, None).collect::<Result<_, _>>().expect("files");
                assert_eq!(
                    all.iter().map(|owned| (owned.file.clone(), owned.item_hash.clone())).collect::<Vec<_>>(),
                    expect
                );
                for (place, owned) in all.iter().enumerate() {
                    let after = (owned.created, owned.item_hash.clone());
                    let rest = files(&snapshot, "0xA", descending, Some(&after)).count();
                    assert_eq!(rest, all.len() - place - 1);
                }
            }
            assert_eq!(totals(&snapshot, "0xA").expect("totals"), totals_expected);
        };
        set(&[
            file(&one, 5),
            file(&other, 7),
            (Table::Pins, key(&one, &second), Some(pin(2.0).to_bytes())),
            (Table::Pins, key(&other, &first), Some(pin(1.0).to_bytes())),
        ]);
        check(&[(&other, &first), (&one, &second)], (2, 12));
        set(&[(Table::Pins, key(&one, &first), Some(pin(1.5).to_bytes()))]);
        check(&[(&other, &first), (&one, &first), (&one, &second)], (3, 17));
        set(&[(Table::Pins, key(&one, &second), None), (Table::Pins, key(&one, &first), Some(pin(0.5).to_bytes()))]);
        check(&[(&one, &first), (&other, &first)], (2, 12));
        // The file itself goes when nobody keeps it.
        set(&[(Table::Pins, key(&one, &first), None), (Table::Files, hash_key(&one), None)]);
        check(&[(&other, &first)], (1, 7));
        set(&[(Table::Pins, key(&other, &first), None)]);
        check(&[], (0, 0));
        assert_eq!(store.snapshot().expect("a snapshot").prefixed(Table::OwnCounts, &[]).expect("rows"), []);
    }
}
