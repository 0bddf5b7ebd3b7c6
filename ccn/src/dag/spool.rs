//! Blocks that have come, in the order in which they came, on the disk: an archive may bring the root last, and a file is as large as it is.

use super::{cid::Cid, walk::MAX_BLOCKS};
use crate::files::{Aside, Files};
use std::{collections::HashMap, io};

/// Why a block is not kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// There are more bytes than what was asked for can have.
    #[error("more than {0} bytes of blocks came")]
    TooLarge(u64),
    /// There are more blocks.
    #[error("more than {MAX_BLOCKS} blocks came")]
    TooMany,
    /// The system refuses.
    #[error("the disk: {0}")]
    Disk(#[from] io::Error),
}

/// Where a block is.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    length: u32,
}

/// Blocks on the disk. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Spool {
    aside: Aside,
    /// One entry a block, at most [`MAX_BLOCKS`] of some 48 bytes.
    places: HashMap<[u8; 32], Place>,
    max_bytes: u64,
}

impl Spool {
    /// Room for something of that many bytes, and for the nodes that hold it together.
    pub(crate) async fn new(files: &Files, max_bytes: u64) -> io::Result<Self> {
        /// What there is room for however small it is.
        const LEAST_BYTES: u64 = 1 << 20;
        // A file in pieces of a kilobyte has a tenth of its size in nodes; nobody makes smaller ones.
        let max_bytes = max_bytes.saturating_add(max_bytes / 8).saturating_add(LEAST_BYTES);
        Ok(Self { aside: files.aside().await?, places: HashMap::new(), max_bytes })
    }

    /// Keeps a block that was compared with its name, once.
    pub(crate) async fn put(&mut self, cid: &Cid, block: &[u8]) -> Result<(), SpoolError> {
        let Some(digest) = cid.digest().filter(|digest| !self.places.contains_key(*digest)) else { return Ok(()) };
        let start = self.aside.size();
        if start + block.len() as u64 > self.max_bytes {
            return Err(SpoolError::TooLarge(self.max_bytes));
        }
        if self.places.len() == MAX_BLOCKS {
            return Err(SpoolError::TooMany);
        }
        self.aside.write(block).await?;
        // A block has at most `MAX_BLOCK_BYTES`.
        self.places.insert(*digest, Place { start, length: block.len() as u32 });
        Ok(())
    }

    /// A block, if it is here.
    pub(crate) async fn get(&mut self, cid: &Cid) -> io::Result<Option<Vec<u8>>> {
        match cid.digest().and_then(|digest| self.places.get(digest)).copied() {
            Some(Place { start, length }) => self.aside.read(start, length as usize).await.map(Some),
            None => Ok(None),
        }
    }
}
