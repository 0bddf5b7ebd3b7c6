//! The way through the blocks of a file or folder, depth first, in the order of the links. No I/O: it says which block is next and is given it.
//!
//! ```text
//!            wanted() ──> Some(cid) ──> take(block) ──> what the block adds
//!               │   ^                                        │
//!               v   └────────────────────────────────────────┘
//!             None: all of it was there
//! ```
//!
//! Blocks of a file come as often as the file holds them, those of a folder once. Whoever calls has compared each block with its name.

use super::{
    cid::{Cid, CidError, Codec},
    node::{Node, NodeError, NodeKind},
};
use crate::store::record::FileKind;
use std::{collections::HashMap, vec};

/// Blocks of a file or folder, and of what is sent as one: 32 GiB in blocks of the usual 256 KiB.
pub(crate) const MAX_BLOCKS: usize = 1 << 17;
/// Links that are read, those of a block of a file as often as the block comes.
const MAX_LINKS: usize = 1 << 18;
/// Folders inside folders, with the levels of the files in them.
const MAX_DEPTH: usize = 128;
/// Bytes of a folder with everything as often as it is linked; a small one may link itself to any size.
const MAX_CUMULATIVE_BYTES: u64 = 1 << 50;

/// Why something that was asked for by name is not taken, although every block was what its name says. The fault of whoever made it: no other
/// source has it any better.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// Its name is none that is followed.
    #[error(transparent)]
    Name(#[from] CidError),
    /// A node is none of a file or folder.
    #[error("{cid}: {error}")]
    Node {
        /// The node.
        cid: String,
        /// What is wrong with it.
        error: NodeError,
    },
    /// A part of a file is a folder or the like, or a symbolic link was asked for.
    #[error("{0} is of another kind than what leads to it")]
    Kind(String),
    /// A file says that it has another length.
    #[error("{cid} says that it has {said} bytes of a file, and has {found}")]
    FileLength {
        /// The node.
        cid: String,
        /// What it says.
        said: u64,
        /// What it has.
        found: u64,
    },
    /// It is longer than files may be here.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// It has more blocks.
    #[error("it has more than {MAX_BLOCKS} blocks, or more than {MAX_LINKS} links")]
    TooMany,
    /// It is deeper.
    #[error("it is more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// What lies below a block, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Extent {
    /// Bytes of all blocks, each as often as it is linked: IPFS's `CumulativeSize`.
    cumulative: u64,
    /// Bytes of the file.
    file: u64,
}

/// A block that has been taken and whose links are being followed.
#[derive(Debug)]
struct Level {
    cid: Cid,
    /// None of a raw block.
    kind: Option<NodeKind>,
    links: vec::IntoIter<Cid>,
    said: Option<u64>,
    extent: Extent,
}

/// A walk that has begun.
#[derive(Debug)]
pub(crate) struct Walk {
    max_bytes: u64,
    /// The next block; none between two of them, and at the end.
    next: Option<Cid>,
    /// From the root to the block that was taken last.
    levels: Vec<Level>,
    /// What the root is, once that is known.
    kind: Option<FileKind>,
    /// In a folder: blocks that were walked through.
    seen: HashMap<[u8; 32], Extent>,
    links: usize,
    blocks: usize,
    /// What was taken, as it counts against `max_bytes`.
    bytes: u64,
    whole: Extent,
}

/// What a block adds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'block> {
    /// The next bytes of the file; there may be none in it.
    OfFile(&'block [u8]),
    /// The next block of the folder.
    OfFolder,
}

impl Walk {
    /// A walk from that block, through at most so many bytes: of the file, or of all blocks of the folder.
    pub(crate) fn new(root: Cid, max_bytes: u64) -> Self {
        Self {
            max_bytes,
            next: Some(root),
            levels: Vec::new(),
            kind: None,
            seen: HashMap::new(),
            links: 0,
            blocks: 0,
            bytes: 0,
            whole: Extent::default(),
        }
    }

    /// The block to be taken next; the same until it is. None at the end.
    pub(crate) fn wanted(&mut self) -> Result<Option<&Cid>, DagError> {
        while self.next.is_none() {
            let Some(level) = self.levels.last_mut() else { break };
            match level.links.next() {
                None => self.leave()?,
                Some(cid) => match cid.digest().and_then(|digest| self.seen.get(digest)).copied() {
                    Some(extent) => self.add(extent)?,
                    None => self.next = Some(cid),
                },
            }
        }
        Ok(self.next.as_ref())
    }

    /// Takes the block that is wanted.
    pub(crate) fn take<'block>(&mut self, block: &'block [u8]) -> Result<Part<'block>, DagError> {
        let Some(cid) = self.next.take() else { return Ok(Part::OfFile(&[])) };
        let named = |error| DagError::Node { cid: cid.to_string(), error };
        let (kind, links, data, said) = match cid.codec() {
            Codec::Raw => (None, Vec::new(), block, None),
            Codec::DagPb => {
                let node = Node::parse(block).map_err(named)?;
                (Some(node.kind), node.links, node.data, node.file_bytes)
            }
        };
        let whole = self.fits(kind).ok_or_else(|| DagError::Kind(cid.to_string()))?;
        self.kind = Some(whole);
        if self.levels.len() == MAX_DEPTH {
            return Err(DagError::TooDeep);
        }
        self.blocks += 1;
        self.links += links.len();
        if self.links > MAX_LINKS || (whole == FileKind::Directory && self.blocks > MAX_BLOCKS) {
            return Err(DagError::TooMany);
        }
        let of_file = matches!(kind, None | Some(NodeKind::File));
        let file = if of_file { data.len() as u64 } else { 0 };
        self.bytes += if whole == FileKind::File { file } else { block.len() as u64 };
        if self.bytes > self.max_bytes {
            return Err(DagError::TooLarge(self.max_bytes));
        }
        // What is inside its own name is part of the block that links it.
        let cumulative = if cid.inline().is_some() { 0 } else { block.len() as u64 };
        let said = said.filter(|_| of_file);
        self.levels.push(Level { cid, kind, links: links.into_iter(), said, extent: Extent { cumulative, file } });
        Ok(match whole {
            FileKind::File => Part::OfFile(data),
            FileKind::Directory => Part::OfFolder,
        })
    }

    /// What it was, and its size in bytes: of a file its length, of a folder IPFS's `CumulativeSize`. None before the end.
    pub(crate) fn whole(&self) -> Option<(FileKind, u64)> {
        let kind = self.kind.filter(|_| self.next.is_none() && self.levels.is_empty())?;
        Some((kind, if kind == FileKind::File { self.whole.file } else { self.whole.cumulative }))
    }

    /// What the whole is if a block of that kind may stand here.
    fn fits(&self, kind: Option<NodeKind>) -> Option<FileKind> {
        let is_file = matches!(kind, None | Some(NodeKind::File));
        match (self.kind, self.levels.last().map(|level| level.kind)) {
            (None, _) | (_, None) if is_file => Some(FileKind::File),
            (None, _) | (_, None) => {
                matches!(kind, Some(NodeKind::Directory | NodeKind::Shard)).then_some(FileKind::Directory)
            }
            (Some(whole), Some(Some(NodeKind::File) | None)) => is_file.then_some(whole),
            (Some(whole), Some(Some(NodeKind::Directory | NodeKind::Shard))) => Some(whole),
            (Some(_), Some(Some(NodeKind::Symlink))) => None,
        }
    }

    /// All links of the last block have been followed.
    fn leave(&mut self) -> Result<(), DagError> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        if let Some(said) = level.said.filter(|said| *said != level.extent.file) {
            return Err(DagError::FileLength { cid: level.cid.to_string(), said, found: level.extent.file });
        }
        if self.kind == Some(FileKind::Directory)
            && let Some(digest) = level.cid.digest()
        {
            self.seen.insert(*digest, level.extent);
        }
        self.add(level.extent)
    }

    /// Adds what lies below a link to the block that links it.
    fn add(&mut self, extent: Extent) -> Result<(), DagError> {
        let below = self.levels.last_mut().map_or(&mut self.whole, |level| &mut level.extent);
        // Neither sum overflows: each summand is at most the bound.
        below.cumulative += extent.cumulative;
        below.file += extent.file;
        if below.cumulative.max(below.file) > MAX_CUMULATIVE_BYTES {
            return Err(DagError::TooLarge(MAX_CUMULATIVE_BYTES));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::building::{self, Blocks};
    use proptest::prelude::*;

    /// Walks through everything; returns what it is, its size, and what the parts were.
    fn walk(blocks: &Blocks, root: &Cid, max_bytes: u64) -> Result<(FileKind, u64, Vec<u8>, Vec<Cid>), DagError> {
        let (mut walk, mut bytes, mut order) = (Walk::new(root.clone(), max_bytes), Vec::new(), Vec::new());
        while let Some(cid) = walk.wanted()?.cloned() {
            let block = cid.inline().map_or_else(|| blocks.get(&cid).to_vec(), <[u8]>::to_vec);
            match walk.take(&block)? {
                Part::OfFile(data) => bytes.extend_from_slice(data),
                Part::OfFolder => order.push(cid),
            }
        }
        let (kind, size) = walk.whole().expect("the end");
        Ok((kind, size, bytes, order))
    }

    #[test]
    fn files_of_any_layout_are_put_together() {
        let mut blocks = Blocks::default();
        let (ab, c) = (blocks.raw(b"ab"), blocks.raw(b"c"));
        let check = |blocks: &Blocks, root: &Cid, expect: &[u8]| {
            let size = expect.len() as u64;
            assert_eq!(walk(blocks, root, 100), Ok((FileKind::File, size, expect.to_vec(), vec![])));
            assert_eq!(walk(blocks, root, size), Ok((FileKind::File, size, expect.to_vec(), vec![])));
            if size > 0 {
                assert_eq!(walk(blocks, root, size - 1), Err(DagError::TooLarge(size - 1)));
            }
        };
        check(&blocks, &ab, b"ab");
        let leaf = blocks.node(building::leaf(b"xyz"));
        check(&blocks, &leaf, b"xyz");
        let empty = blocks.node(building::leaf(b""));
        check(&blocks, &empty, b"");
        // A block that comes twice, nodes of nodes, leaves of both kinds.
        let part = blocks.node(building::file(&[(ab.clone(), 2), (c.clone(), 1), (ab.clone(), 2)]));
        check(&blocks, &part, b"abcab");
        let root = blocks.node(building::file(&[(part.clone(), 5), (leaf, 3), (part, 5)]));
        check(&blocks, &root, b"abcabxyzabcab");
        let inline = Cid::from_bytes(&[1, 0x55, 0, 2, b'h', b'i']).expect("a name");
        let root = blocks.node(building::file(&[(inline, 2), (c, 1)]));
        check(&blocks, &root, b"hic");
    }

    #[test]
    fn a_folder_has_each_block_once_and_the_size_that_ipfs_says() {
        let mut blocks = Blocks::default();
        let a = blocks.raw(b"aaaa");
        let inner = blocks.directory(&[("x", &a, 4)]);
        let size = |blocks: &Blocks, cid: &Cid| blocks.get(cid).len() as u64;
        let of_inner = size(&blocks, &inner) + 4;
        let root = blocks.directory(&[("again", &inner, of_inner), ("sub", &inner, of_inner), ("y", &a, 4)]);
        let cumulative = size(&blocks, &root) + 2 * of_inner + 4;
        let expect = (FileKind::Directory, cumulative, vec![], vec![root.clone(), inner, a]);
        assert_eq!(walk(&blocks, &root, 1000), Ok(expect));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let mut blocks = Blocks::default();
        let a = blocks.raw(b"a");
        let folder = blocks.directory(&[("a", &a, 1)]);
        let of_folder = blocks.node(building::file(&[(folder.clone(), 1)]));
        assert_eq!(walk(&blocks, &of_folder, 1000), Err(DagError::Kind(folder.to_string())));
        let short = blocks.node(building::file(&[(a.clone(), 2)]));
        let error = DagError::FileLength { cid: short.to_string(), said: 2, found: 1 };
        assert_eq!(walk(&blocks, &short, 1000), Err(error.clone()));
        let holds_it = blocks.directory(&[("short", &short, 1)]);
        assert_eq!(walk(&blocks, &holds_it, 1000), Err(error));
        let symlink = blocks.node(vec![0x0a, 5, 8, 4, 0x12, 1, b'/']);
        assert_eq!(walk(&blocks, &symlink, 1000), Err(DagError::Kind(symlink.to_string())));
        let with_link = blocks.directory(&[("link", &symlink, 7)]);
        assert!(walk(&blocks, &with_link, 1000).is_ok(), "folders may have them");
        let junk = blocks.node(b"junk".to_vec());
        assert!(matches!(walk(&blocks, &junk, 1000), Err(DagError::Node { .. })));
    }

    #[test]
    fn depth_number_and_size_are_bounded() {
        let mut blocks = Blocks::default();
        let mut cid = blocks.raw(b"deep");
        for _ in 0..MAX_DEPTH - 1 {
            cid = blocks.directory(&[("d", &cid, 1)]);
        }
        assert!(walk(&blocks, &cid, u64::MAX).is_ok());
        let deeper = blocks.directory(&[("d", &cid, 1)]);
        assert_eq!(walk(&blocks, &deeper, u64::MAX), Err(DagError::TooDeep));

        // A file of nothing, again and again: 2 to the power of 60 links in sixty blocks.
        let mut nothing = blocks.node(building::leaf(b""));
        for _ in 0..60 {
            nothing = blocks.node(building::file(&[(nothing.clone(), 0), (nothing, 0)]));
        }
        assert_eq!(walk(&blocks, &nothing, 10), Err(DagError::TooMany));
        // A folder of the same kind is walked through once, and its size is absurd.
        let mut folder = blocks.directory(&[]);
        for _ in 0..60 {
            folder = blocks.directory(&[("a", &folder, 1), ("b", &folder, 1)]);
        }
        assert_eq!(walk(&blocks, &folder, u64::MAX), Err(DagError::TooLarge(MAX_CUMULATIVE_BYTES)));
    }

    proptest! {
        /// However a file is cut and its pieces are stacked, it is the same file.
        #[test]
        fn every_layout_gives_the_file(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1_usize..20, width in 2_usize..5) {
            let mut blocks = Blocks::default();
            let root = blocks.layout(&bytes, piece, width);
            let size = bytes.len() as u64;
            prop_assert_eq!(walk(&blocks, &root, size), Ok((FileKind::File, size, bytes, vec![])));
        }
    }
}
