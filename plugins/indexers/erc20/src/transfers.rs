//! The Transfer event of EIP-20.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolEvent as _, sol};
use plugin_sdk::indexer::Event;

mod declared {
    use super::sol;
    sol! {
        event Transfer(address indexed from, address indexed to, uint256 value);
    }
}

/// First topic of a transfer.
pub(crate) const TRANSFER: [u8; 32] = declared::Transfer::SIGNATURE_HASH.0;
/// Tokens come from here when they are made, and go here when they are destroyed.
pub(crate) const NOBODY: [u8; 20] = [0; 20];

/// Tokens that change hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) from: [u8; 20],
    pub(crate) to: [u8; 20],
    pub(crate) value: U256,
}

impl Transfer {
    /// Reads an event; none when it is no such transfer. (Tokens of another standard emit the same topic with the value indexed.)
    pub(crate) fn read(event: &Event<'_>) -> Option<Self> {
        let topics = event.topics.iter().map(B256::from);
        let transfer = declared::Transfer::decode_raw_log_validate(topics, event.data).ok()?;
        let bytes = Address::into_array;
        Some(Self { from: bytes(transfer.from), to: bytes(transfer.to), value: transfer.value })
    }
}
