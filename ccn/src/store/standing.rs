//! What stands, as of a position.
//!
//! The position of a message is (content time, item hash): what "before" and "as of" mean, whatever the order of arrival. A message that is hidden by
//! one of a later position is still there for those in between.

use super::{
    Reader, StoreError,
    record::{DelegationRecord, ForgottenRecord, MessageRecord, Record as _, RemovedRecord, RemovingRecord},
    schema::{Key, Table, hash_key, split_hash, time_of_key},
};
use ccn_message::ItemHash;

/// Bytes of the time in a position.
const TIME_BYTES: usize = 8;

/// Where a message is among all: bytes that sort as (time, hash).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(Vec<u8>);

impl Position {
    /// Of a message with that content time, seconds since 1970.
    #[must_use]
    pub fn new(time: f64, hash: &ItemHash) -> Self {
        Self(Key::new().time(time).hash(hash).done())
    }

    /// Of a stored message.
    #[must_use]
    pub fn of(hash: &ItemHash, record: &MessageRecord) -> Self {
        Self::new(record.content_time, hash)
    }

    /// As it stands in keys.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key of a row about another message and this one.
    #[must_use]
    pub fn key_under(&self, other: &ItemHash) -> Vec<u8> {
        Key::new().hash(other).bytes(&self.0).done()
    }

    /// From the end of a key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The hash of the message.
    #[must_use]
    pub fn hash(&self) -> Option<ItemHash> {
        Some(split_hash(self.0.get(TIME_BYTES..)?)?.0)
    }

    /// The content time of the message, seconds since 1970.
    #[must_use]
    pub fn time(&self) -> f64 {
        self.0.get(..TIME_BYTES).and_then(|time| time.try_into().ok()).map_or(0.0, time_of_key)
    }

    /// The first position of a later moment.
    #[must_use]
    pub fn later(&self, seconds: f64) -> Self {
        Self(Key::new().time(self.time() + seconds).bytes(&[u8::MAX]).done())
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not known, waiting or refused.
    Unknown,
    /// It stands.
    Standing,
    /// It is hidden.
    Forgotten,
}

/// Those that name a message as one to hide, in order.
///
/// # Errors
/// The store fails.
pub fn forgetters<R: Reader + ?Sized>(reader: &R, hash: &ItemHash) -> Result<Vec<Position>, StoreError> {
    let prefix = hash_key(hash);
    let rows = reader.prefixed(Table::Forgets, &prefix)?;
    Ok(rows.into_iter().map(|(key, _)| Position::from_bytes(&key[prefix.len()..])).collect())
}

/// A hidden message.
///
/// # Errors
/// The store fails.
pub fn forgotten<R: Reader + ?Sized>(reader: &R, hash: &ItemHash) -> Result<Option<ForgottenRecord>, StoreError> {
    let row = reader.get(Table::Forgotten, &hash_key(hash))?;
    Ok(row.map(|row| ForgottenRecord::read(&row)).transpose()?)
}

/// A message that was removed for want of funds.
///
/// # Errors
/// The store fails.
pub fn removed<R: Reader + ?Sized>(reader: &R, hash: &ItemHash) -> Result<Option<RemovedRecord>, StoreError> {
    let row = reader.get(Table::Removed, &hash_key(hash))?;
    Ok(row.map(|row| RemovedRecord::read(&row)).transpose()?)
}

/// The key of what is announced of a message of that owner.
#[must_use]
pub fn removing_key(owner: &str, hash: &ItemHash) -> Vec<u8> {
    Key::new().text(owner).hash(hash).done()
}

/// What is announced of a message that stands: none when it is not to be removed.
///
/// # Errors
/// The store fails.
pub fn removing<R: Reader + ?Sized>(
    reader: &R,
    owner: &str,
    hash: &ItemHash,
) -> Result<Option<RemovingRecord>, StoreError> {
    let row = reader.get(Table::Removing, &removing_key(owner, hash))?;
    Ok(row.map(|row| RemovingRecord::read(&row)).transpose()?)
}

/// Those that hide a hidden message, in order: those that name it, and those of the message that it follows.
///
/// # Errors
/// The store fails.
pub fn hidden_by<R: Reader + ?Sized>(
    reader: &R,
    hash: &ItemHash,
    record: &ForgottenRecord,
) -> Result<Vec<Position>, StoreError> {
    let mut all = forgetters(reader, hash)?;
    all.extend(record.inherited.iter().map(|position| Position::from_bytes(position)));
    all.sort();
    all.dedup();
    Ok(all)
}

/// A message as of a position; none: as of now.
///
/// # Errors
/// The store fails.
pub fn message<R: Reader + ?Sized>(
    reader: &R,
    hash: &ItemHash,
    at: Option<&Position>,
) -> Result<(Fate, Option<MessageRecord>), StoreError> {
    if let Some(record) = reader.message(hash)? {
        return Ok((Fate::Standing, Some(record)));
    }
    let Some(record) = forgotten(reader, hash)? else { return Ok((Fate::Unknown, None)) };
    let first = hidden_by(reader, hash, &record)?.into_iter().next();
    // The one that hides it sees it, too.
    let is_visible = at.is_some_and(|at| first.is_none_or(|first| first >= *at)) && !record.purged;
    Ok(if is_visible { (Fate::Standing, Some(record.message)) } else { (Fate::Forgotten, None) })
}

/// True when a message of an earlier position uses this one, and was not forgotten before the asker.
///
/// # Errors
/// The store fails.
pub fn in_use<R: Reader + ?Sized>(reader: &R, hash: &ItemHash, at: &Position) -> Result<bool, StoreError> {
    let prefix = hash_key(hash);
    let rows = reader.range(Table::Uses, &prefix, &at.key_under(hash), usize::MAX, false)?;
    Ok(rows.iter().any(|(_, until)| until.is_empty() || until.as_slice() >= at.bytes()))
}

/// The key of what a message says of its owner's delegations.
#[must_use]
pub fn delegation_key(owner: &str, position: &Position) -> Vec<u8> {
    Key::new().text(owner).bytes(position.bytes()).done()
}

/// The first of the delegations of an address that begin between two positions, in force still or not.
///
/// # Errors
/// The store fails.
pub fn delegations_between<R: Reader + ?Sized>(
    reader: &R,
    owner: &str,
    from: &Position,
    until: &Position,
    most: usize,
) -> Result<Vec<DelegationRecord>, StoreError> {
    let rows =
        reader.range(Table::Delegations, &delegation_key(owner, from), &delegation_key(owner, until), most, false)?;
    rows.iter().map(|(_, row)| Ok(DelegationRecord::read(row)?)).collect()
}

/// The delegations of an address that are in force at a position.
///
/// # Errors
/// The store fails.
pub fn delegations<R: Reader + ?Sized>(
    reader: &R,
    owner: &str,
    at: &Position,
) -> Result<Option<DelegationRecord>, StoreError> {
    /// Rows that are looked at in one go: mostly the first counts.
    const PAGE: usize = 4;
    let prefix = Key::new().text(owner).done();
    let mut end = delegation_key(owner, at);
    loop {
        let rows = reader.range(Table::Delegations, &prefix, &end, PAGE, true)?;
        for (_, row) in &rows {
            let record = DelegationRecord::read(row)?;
            if record.until.as_deref().is_none_or(|until| until >= at.bytes()) {
                return Ok(Some(record));
            }
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => end.clone_from(key),
            _ => return Ok(None),
        }
    }
}
