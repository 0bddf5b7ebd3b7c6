//! Confirmations: transactions of chains that vouch for messages, as this node sees those chains.

use super::{
    Reader, StoreError,
    record::Record,
    schema::{Key, Table, end_of, hash_key, split_text},
};
use ccn_message::ItemHash;
use serde::{Deserialize, Serialize};

/// Bytes of a height in a key.
const HEIGHT_BYTES: usize = 8;
/// Bytes of a transaction's hash.
pub const TRANSACTION_BYTES: usize = 32;
/// Most confirmations of one message that are read: those with the lowest heights of each chain come first.
const MAX_READ: usize = 64;

/// A transaction that vouches for a message, as clients read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Confirmation {
    /// The network's name of the chain.
    pub chain: String,
    /// Of the block.
    pub height: u64,
    /// Of the transaction, hex with `0x`.
    pub hash: String,
    /// Of the block, seconds since 1970.
    pub time: u64,
    /// Who published it.
    pub publisher: String,
}

/// What a key does not say of a confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmationRecord {
    /// Of the block, seconds since 1970.
    pub time: u64,
    /// Who published it.
    pub publisher: String,
}

impl Record for ConfirmationRecord {
    const NAME: &'static str = "confirmation";
}

/// The key of a confirmation.
#[must_use]
pub fn key(
    message: &ItemHash,
    chain: &str,
    indexer: &str,
    height: u64,
    transaction: &[u8; TRANSACTION_BYTES],
) -> Vec<u8> {
    Key::new().hash(message).text(chain).text(indexer).number(height).bytes(transaction).done()
}

/// The chain and the indexer of a confirmation's key.
#[must_use]
pub fn source_of(key: &[u8]) -> Option<(&str, &str)> {
    let (_, rest) = super::schema::split_hash(key)?;
    let (chain, rest) = split_text(rest)?;
    Some((chain, split_text(rest)?.0))
}

/// All confirmations of a message, lowest heights first.
///
/// # Errors
/// The database fails, or a record is damaged.
pub fn of_message(reader: &(impl Reader + ?Sized), message: &ItemHash) -> Result<Vec<Confirmation>, StoreError> {
    let prefix = hash_key(message);
    let rows = reader.range(Table::Confirmations, &prefix, &end_of(&prefix), MAX_READ, false)?;
    let mut confirmations = Vec::with_capacity(rows.len());
    for (key, row) in &rows {
        let ConfirmationRecord { time, publisher } = ConfirmationRecord::read(row)?;
        let read = || {
            let (chain, rest) = split_text(key.get(prefix.len()..)?)?;
            let (_, rest) = split_text(rest)?;
            let (height, transaction) = rest.split_first_chunk::<HEIGHT_BYTES>()?;
            Some((chain.to_owned(), u64::from_be_bytes(*height), format!("0x{}", hex::encode(transaction))))
        };
        if let Some((chain, height, hash)) = read() {
            confirmations.push(Confirmation { chain, height, hash, time, publisher });
        }
    }
    confirmations.sort_by(|one, two| (one.height, &one.chain, &one.hash).cmp(&(two.height, &two.chain, &two.hash)));
    // Two indexers may tell of one transaction.
    confirmations.dedup_by(|one, two| (&one.chain, &one.hash) == (&two.chain, &two.hash));
    Ok(confirmations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Store};

    #[test]
    fn confirmations_come_back_by_height_and_once() {
        let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
        let mut batch = Batch::new(store.snapshot().expect("a snapshot"));
        let (message, other) = (ItemHash::sha256_of(b"one"), ItemHash::sha256_of(b"two"));
        let record = ConfirmationRecord { time: 7, publisher: "0xe".into() };
        for (message, indexer, height, transaction) in
            [(&message, "a", 9, 1), (&message, "a", 5, 2), (&message, "b", 5, 2), (&other, "a", 1, 3)]
        {
            let key = key(message, "ETH", indexer, height, &[transaction; TRANSACTION_BYTES]);
            assert_eq!(source_of(&key), Some(("ETH", indexer)));
            batch.put(Table::Confirmations, key, record.to_bytes());
        }
        batch.keep();
        store.commit(batch.changes()).expect("a commit");
        let found = store.snapshot().expect("a snapshot").confirmations(&message).expect("no error");
        let heights: Vec<u64> = found.iter().map(|each| each.height).collect();
        assert_eq!(heights, [5, 9]);
        assert_eq!(found[0].hash, format!("0x{}", "02".repeat(32)));
        // Whoever decides is not told.
        let deciding = Batch::new(store.snapshot().expect("a snapshot"));
        assert_eq!(deciding.confirmations(&message).expect("no error"), []);
    }
}
