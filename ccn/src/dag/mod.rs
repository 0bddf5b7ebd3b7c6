//! Files and folders of IPFS, block by block: every block is compared with its name, every link is followed, and what comes out is a file, or a
//! folder as the archive of its blocks.
//!
//! [`cid`] names blocks, [`node`] reads them, [`layout`] makes them, [`car`] reads archives of them; [`walk`] says which block is next and what it adds, without I/O;
//! [`spool`] keeps blocks that came before their turn; [`assemble`] puts all of it together. The other way, [`archived`] finds the blocks in the
//! archive of a folder again, and [`tar`] makes an archive of files of them. Who supplies the blocks is the caller's: an upload,
//! or a source of [`crate::fetch`]. Nothing here believes it: sizes, depth and number of blocks have bounds, and whatever was read is
//! either what the hash names or an error.

pub(crate) mod archived;
#[cfg(test)]
pub(crate) mod building;
pub(crate) mod car;
pub(crate) mod cid;
pub(crate) mod layout;
mod node;
pub(crate) mod spool;
pub(crate) mod tar;
pub(crate) mod walk;

pub use self::{car::CarError, cid::CidError, node::NodeError, spool::SpoolError, walk::DagError};
use self::{
    cid::Cid,
    walk::{Part, Walk},
};
use crate::{
    files::{Aside, Files},
    store::record::FileKind,
};
use ccn_message::ItemHash;
use std::io;

/// Longest block, bytes: what IPFS passes on.
pub(crate) const MAX_BLOCK_BYTES: usize = 2 << 20;

/// Whoever has blocks.
pub(crate) trait Blocks {
    /// Why there is no block, or nothing is made of them.
    type Error: From<DagError> + From<io::Error>;

    /// A block that is what its name says; none that is inside its name is asked for.
    fn block(&mut self, cid: &Cid) -> impl Future<Output = Result<Vec<u8>, Self::Error>> + Send;
}

/// A file or folder that was followed from its hash, not yet under its name. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Followed {
    aside: Aside,
    hash: ItemHash,
    /// What it is.
    pub(crate) kind: FileKind,
    /// Bytes: the length of a file; of a folder all its blocks as often as they are linked, IPFS's `CumulativeSize`.
    pub(crate) size: u64,
}

impl Followed {
    /// Puts it among the files. It is on the disk when this returns.
    pub(crate) async fn publish(self, files: &Files) -> io::Result<()> {
        files.publish_followed(self.aside, &self.hash, self.kind).await
    }
}

/// Follows the blocks of a file or folder of at most so many bytes, and writes it aside.
pub(crate) async fn assemble<B: Blocks>(
    files: &Files,
    hash: &ItemHash,
    blocks: &mut B,
    max_bytes: u64,
) -> Result<Followed, B::Error> {
    let root = Cid::try_from(hash).map_err(DagError::Name)?;
    let mut walk = Walk::new(root.clone(), max_bytes);
    let mut aside = files.aside().await?;
    while let Some(cid) = walk.wanted()?.cloned() {
        let block = match cid.inline() {
            Some(block) => block.to_vec(),
            None => blocks.block(&cid).await?,
        };
        match walk.take(&block)? {
            Part::OfFile(bytes) => aside.write(bytes).await?,
            Part::OfFolder => {
                if aside.size() == 0 {
                    aside.write(&car::header(&root)).await?;
                }
                if cid.inline().is_none() {
                    aside.write(&car::block_head(&cid, &block)).await?;
                    aside.write(&block).await?;
                }
            }
        }
    }
    // The walk ended without an error, so it was through.
    let (kind, size) = walk.whole().ok_or_else(|| io::Error::other("a walk ended before its end"))?;
    Ok(Followed { aside, hash: hash.clone(), kind, size })
}
