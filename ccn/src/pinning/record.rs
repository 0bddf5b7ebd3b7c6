//! What the table of pins holds.

use crate::store::record::Record;
use serde::{Deserialize, Serialize};

/// The key of the row that says of which IPFS node the others are: its id, as text. No file has it.
pub(super) const NODE_KEY: &[u8] = &[0];

/// A file that the IPFS node has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpfsPinRecord {
    /// How far it is.
    pub state: PinState,
    /// Since when, milliseconds since 1970.
    pub since: u64,
}

/// How far a pin is.
///
/// ```text
///  (no row) ──> Begun ──> Pinned ──> (no row)
///      └──────> Found ──────────────────^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinState {
    /// There was none, and this node is making one: it may be there already.
    Begun,
    /// This node has made it.
    Pinned {
        /// It carries this node's name; programs before kubo 0.26 know no names.
        named: bool,
    },
    /// Somebody else had made one before: it is not this node's to remove.
    Found,
}

impl Record for IpfsPinRecord {
    const NAME: &'static str = "pin of an IPFS node";
}
