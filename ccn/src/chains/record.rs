//! What the tables of chains hold.

use crate::store::{
    record::Record,
    schema::{Key, Table},
};
use serde::{Deserialize, Serialize};

/// How far a chain is followed for an indexer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRecord {
    /// Of everything by which the indexer's state follows from the chain: another one begins anew.
    pub identity: [u8; 32],
    /// True while what an earlier identity has left is being deleted.
    pub clearing: bool,
    /// The first block that is not followed yet.
    pub next: u64,
    /// Blocks below this one are final: they are not taken back.
    pub settled: u64,
    /// The last final block whose hash is known: height and hash.
    pub anchor: Option<(u64, [u8; 32])>,
}

/// A block that may yet be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Its hash.
    pub hash: [u8; 32],
    /// What the rows that it changed were before.
    pub before: Vec<BeforeRecord>,
}

/// A row as it was before a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeforeRecord {
    /// Where.
    pub place: Place,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; none when there was no such row.
    pub value: Option<Vec<u8>>,
}

/// A table that a block may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// [`Table::ChainState`].
    State,
    /// [`Table::ChainWork`].
    Work,
    /// [`Table::ChainBalances`].
    Balances,
    /// [`Table::Confirmations`].
    Confirmations,
}

impl Place {
    /// The table.
    #[must_use]
    pub fn table(self) -> Table {
        match self {
            Self::State => Table::ChainState,
            Self::Work => Table::ChainWork,
            Self::Balances => Table::ChainBalances,
            Self::Confirmations => Table::Confirmations,
        }
    }
}

/// Something that a block has told and that is still to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkRecord {
    /// Of the block.
    pub block: [u8; 32],
    /// Of the block, seconds since 1970.
    pub time: u64,
    /// Of the transaction.
    pub transaction: [u8; 32],
    /// Who published it.
    pub publisher: String,
    /// What is to be done.
    pub task: Task,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Take this signed message in, JSON text, and note that it is confirmed.
    Message(String),
    /// Take a message in for whose sender the chain vouches, once its block is final.
    Vouched {
        /// Who called the contract.
        sender: String,
        /// The message type.
        kind: String,
        /// The content, JSON text.
        content: String,
    },
    /// Fetch the file of this hash and take in what it holds.
    Archive(String),
}

impl Record for ProgressRecord {
    const NAME: &'static str = "progress on a chain";
}
impl Record for BlockRecord {
    const NAME: &'static str = "block of a chain";
}
impl Record for WorkRecord {
    const NAME: &'static str = "work for a chain";
}

/// The beginning of the keys of one chain and indexer.
#[must_use]
pub fn prefix(chain: &str, indexer: &str) -> Vec<u8> {
    Key::new().text(chain).text(indexer).done()
}

/// The height that follows such a beginning in a key.
#[must_use]
pub fn height_of(prefix: &[u8], key: &[u8]) -> Option<u64> {
    let (height, _) = key.get(prefix.len()..)?.split_first_chunk()?;
    Some(u64::from_be_bytes(*height))
}
