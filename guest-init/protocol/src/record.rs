//! The record that makes a clone itself.
//!
//! A snapshot's clones are alike to the last bit, and a generator of random numbers that repeats is a hole in whatever is built on it. So
//! the host writes what must differ into a page of init's before the clone's processor goes on, and init makes it the guest's own before
//! anything of the user runs (vmm spec section 6).
//!
//! The page begins with [`MAGIC`], then the length of what follows as a little-endian `u32`, then that many bytes of postcard.

use crate::Network;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Length of the page, bytes. It begins at a multiple of this.
pub const PAGE_BYTES: usize = 4096;
/// First bytes of a page that holds a record. Init writes zeros there before it freezes.
pub const MAGIC: [u8; 8] = *b"BETHCLON";

const LENGTH_AT: usize = MAGIC.len();
const BODY_AT: usize = LENGTH_AT + 4;

/// What a machine is told when it goes on after a freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unlike that of any other machine of this node, ever.
    pub generation: u64,
    /// Wall clock as the processor goes on, microseconds since 1970.
    pub wall_time_us: u64,
    /// Entropy for the kernel's generator.
    pub seed: [u8; 32],
    /// Its place in the network, if it has a card.
    pub network: Option<Network>,
}

/// Why a page holds no record. The host's fault: the machine is of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nothing was written.
    #[error("the host has written no record")]
    Missing,
    /// What was written is not a record of this version.
    #[error("the host's record does not decode")]
    Malformed,
}

impl Record {
    /// The beginning of the page.
    ///
    /// # Errors
    /// [`RecordError::Malformed`]: never with the fields of today, which are a twentieth of a page.
    pub fn to_page(&self) -> Result<Vec<u8>, RecordError> {
        let mut page = Vec::from(MAGIC);
        page.extend([0; BODY_AT - LENGTH_AT]);
        let mut page = postcard::to_extend(self, page).map_err(|_| RecordError::Malformed)?;
        let length = u32::try_from(page.len() - BODY_AT).map_err(|_| RecordError::Malformed)?;
        page[LENGTH_AT..BODY_AT].copy_from_slice(&length.to_le_bytes());
        if page.len() > PAGE_BYTES { Err(RecordError::Malformed) } else { Ok(page) }
    }

    /// Reads the page.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn from_page(page: &[u8]) -> Result<Self, RecordError> {
        if page.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(RecordError::Missing);
        }
        let length = page.get(LENGTH_AT..BODY_AT).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes);
        let body = length.and_then(|length| page.get(BODY_AT..BODY_AT.checked_add(length as usize)?));
        match body.map(postcard::take_from_bytes) {
            Some(Ok((record, []))) => Ok(record),
            Some(Ok(_) | Err(_)) | None => Err(RecordError::Malformed),
        }
    }
}
