//! The other way round: the blocks of a file whose bytes are here, as IPFS cuts it by default: leaves of 256 KiB, nodes of 174 links, a balanced
//! tree. No I/O: bytes go in, blocks come out, of which a level of the tree at most is remembered.

use super::cid::{Cid, Codec};
use sha2::{Digest as _, Sha256};

/// Bytes of a leaf.
const LEAF_BYTES: usize = 256 << 10;
/// Links of a node.
const MAX_LINKS: usize = 174;
/// UnixFS `Data.Type` of a file.
const FILE: u64 = 2;

/// How leaves are written, and with them all names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Nodes of their own, and names of version 0.
    Wrapped,
    /// Bytes and nothing else, and names of version 1.
    Raw,
}

/// A block with its name.
pub(crate) type Block = (Cid, Vec<u8>);

/// A node that is linked by one that is still to be made.
#[derive(Debug)]
struct Link {
    cid: Cid,
    /// Bytes of all blocks from it down.
    cumulative: u64,
    /// Bytes of the file below it.
    file: u64,
}

/// A file that is being cut into blocks.
#[derive(Debug)]
pub(crate) struct Layout {
    leaves: Leaves,
    buffer: Vec<u8>,
    /// From the leaves up: nodes that nothing links yet, at most [`MAX_LINKS`] of each level.
    levels: Vec<Vec<Link>>,
}

impl Layout {
    pub(crate) fn new(leaves: Leaves) -> Self {
        Self { leaves, buffer: Vec::with_capacity(LEAF_BYTES), levels: Vec::new() }
    }

    /// Takes the next bytes of the file; gives out the blocks that they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut impl FnMut(Block)) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(LEAF_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == LEAF_BYTES {
                self.leaf(out);
            }
        }
    }

    /// The file is through; gives out what is left. The name of the last block is that of the file.
    pub(crate) fn finish(mut self, out: &mut impl FnMut(Block)) -> Cid {
        if !self.buffer.is_empty() || self.levels.is_empty() {
            self.leaf(out);
        }
        let mut level = 0;
        loop {
            let is_top = self.levels[level + 1..].iter().all(Vec::is_empty);
            match self.levels[level].as_slice() {
                [root] if is_top => return root.cid.clone(),
                [] => {}
                _ => self.join(level, out),
            }
            level += 1;
        }
    }

    fn leaf(&mut self, out: &mut impl FnMut(Block)) {
        let data = std::mem::take(&mut self.buffer);
        let file = data.len() as u64;
        let block = match self.leaves {
            Leaves::Raw => (self.name(Codec::Raw, &data), data),
            Leaves::Wrapped => {
                let node = node(&[], &unixfs(&data, file, &[]));
                (self.name(Codec::DagPb, &node), node)
            }
        };
        let cumulative = block.1.len() as u64;
        self.add(0, Link { cid: block.0.clone(), cumulative, file }, block, out);
    }

    /// Makes the node of all that nothing links yet in a level.
    fn join(&mut self, level: usize, out: &mut impl FnMut(Block)) {
        let links = std::mem::take(&mut self.levels[level]);
        let lengths: Vec<u64> = links.iter().map(|link| link.file).collect();
        let file = lengths.iter().sum();
        let node = node(&links, &unixfs(&[], file, &lengths));
        let cumulative = node.len() as u64 + links.iter().map(|link| link.cumulative).sum::<u64>();
        let cid = self.name(Codec::DagPb, &node);
        self.add(level + 1, Link { cid: cid.clone(), cumulative, file }, (cid, node), out);
    }

    fn add(&mut self, level: usize, link: Link, block: Block, out: &mut impl FnMut(Block)) {
        out(block);
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(link);
        if self.levels[level].len() == MAX_LINKS {
            self.join(level, out);
        }
    }

    fn name(&self, codec: Codec, block: &[u8]) -> Cid {
        Cid::of(self.leaves == Leaves::Wrapped, codec, Sha256::digest(block).into())
    }
}

/// A number as protobuf writes it.
fn number(value: u64, output: &mut Vec<u8>) {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    output.extend_from_slice(unsigned_varint::encode::u64(value, &mut buffer));
}

/// A field that is a number.
fn number_field(field: u8, value: u64, output: &mut Vec<u8>) {
    output.push(field << 3);
    number(value, output);
}

/// A field that is bytes.
fn bytes_field(field: u8, value: &[u8], output: &mut Vec<u8>) {
    output.push(field << 3 | 2);
    number(value.len() as u64, output);
    output.extend_from_slice(value);
}

/// UnixFS `Data` of a file or a part of one.
fn unixfs(data: &[u8], file: u64, lengths: &[u64]) -> Vec<u8> {
    let mut unixfs = Vec::with_capacity(data.len() + 32);
    number_field(1, FILE, &mut unixfs);
    if !data.is_empty() {
        bytes_field(2, data, &mut unixfs);
    }
    number_field(3, file, &mut unixfs);
    for length in lengths {
        number_field(4, *length, &mut unixfs);
    }
    unixfs
}

/// A dag-pb node: links, then data.
fn node(links: &[Link], data: &[u8]) -> Vec<u8> {
    let (mut node, mut entry) = (Vec::with_capacity(data.len() + 16), Vec::new());
    for link in links {
        entry.clear();
        bytes_field(1, &link.cid.to_bytes(), &mut entry);
        // The name is written although it is none.
        bytes_field(2, b"", &mut entry);
        number_field(3, link.cumulative, &mut entry);
        bytes_field(2, &entry, &mut node);
    }
    bytes_field(1, data, &mut node);
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::walk::{Part, Walk};
    use aleph_cid::verify::Hasher;
    use std::collections::HashMap;

    /// Its name, and its blocks.
    fn lay_out(bytes: &[u8], piece_bytes: usize, leaves: Leaves) -> (Cid, HashMap<Cid, Vec<u8>>) {
        let (mut layout, mut blocks) = (Layout::new(leaves), HashMap::new());
        let mut keep = |(cid, block): Block| {
            assert!(cid.names(&block));
            blocks.insert(cid, block);
        };
        for piece in bytes.chunks(piece_bytes) {
            layout.push(piece, &mut keep);
        }
        (layout.finish(&mut keep), blocks)
    }

    /// What the network's own tools name a file is what is made here, and following the blocks from there gives the file.
    #[test]
    fn blocks_are_those_that_the_network_names() {
        let lengths = [0, 1, 12, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES, 3 * LEAF_BYTES + 5];
        let wide = [173, 174, 175, 348, 349].map(|leaves| leaves * LEAF_BYTES);
        for length in lengths.into_iter().chain(wide) {
            let bytes: Vec<u8> = (0..length).map(|place| (place / 7 % 251) as u8 ^ (place >> 18) as u8).collect();
            for (leaves, mut hasher) in
                [(Leaves::Wrapped, Hasher::for_ipfs()), (Leaves::Raw, Hasher::for_ipfs_v1_raw_leaves())]
            {
                hasher.update(&bytes);
                let (root, blocks) = lay_out(&bytes, 100_000, leaves);
                assert_eq!(root.to_string(), hasher.finalize().to_string(), "{length} bytes, {leaves:?}");
                let (mut walk, mut read) = (Walk::new(root, u64::MAX), Vec::new());
                while let Some(cid) = walk.wanted().expect("a file").cloned() {
                    match walk.take(&blocks[&cid]).expect("a file") {
                        Part::OfFile(data) => read.extend_from_slice(data),
                        Part::OfFolder => panic!("no folder"),
                    }
                }
                assert!(read == bytes, "{length} bytes, {leaves:?}");
            }
        }
    }
}
