//! The words of the Aleph Cloud network: hashes, chains, envelopes, contents, signatures.
//!
//! No I/O. Everything a stranger has written passes through [`json`] first: text that is not the network's dialect of JSON has no
//! meaning here. Without its features the crate builds for WebAssembly, where plugins use it.

pub mod amount;
pub mod chain;
pub mod content;
pub mod envelope;
pub mod item_hash;
pub mod json;
#[cfg(feature = "sign")]
pub mod sign;
#[cfg(feature = "signature")]
pub mod signature;
pub mod status;

pub use amount::Amount;
pub use chain::Chain;
pub use envelope::{Envelope, ItemType};
pub use item_hash::ItemHash;
pub use json::FormatError;
pub use status::{ErrorCode, MessageStatus};
