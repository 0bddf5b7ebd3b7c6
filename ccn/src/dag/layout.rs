//! The other way round: the blocks of a file whose bytes are here, in a balanced tree as IPFS programs make it. No I/O: bytes go in, blocks come out,
//! and of each level of the tree at most the links of one node are remembered.

use super::cid::{Cid, Codec};
use sha2::{Digest as _, Sha256};

/// UnixFS `Data.Type` of a file.
const FILE: u64 = 2;

/// How a file is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Leaves are bytes and nothing else; otherwise nodes of their own.
    raw_leaves: bool,
    /// Nodes are linked by names of version 0.
    v0_nodes: bool,
    leaf_bytes: usize,
    max_links: usize,
}

impl Shape {
    const V0: Self = Self { raw_leaves: false, v0_nodes: true, leaf_bytes: 256 << 10, max_links: 174 };
    const V1: Self = Self { raw_leaves: true, v0_nodes: false, ..Self::V0 };

    /// What the network's own tools make, and nearly everybody else (the profiles `unixfs-v0-2015` and, with raw leaves, its CIDs of version 1).
    pub(crate) const USUAL: [Self; 2] = [Self::V0, Self::V1];
    /// What there is besides: the profile `unixfs-v1-2025`, and what `ipfs add` makes of the usual leaves when only one of `--cid-version` and
    /// `--raw-leaves` is said.
    pub(crate) const FURTHER: [Self; 3] = [
        Self { leaf_bytes: 1 << 20, max_links: 1024, ..Self::V1 },
        Self { raw_leaves: false, ..Self::V1 },
        Self { raw_leaves: true, ..Self::V0 },
    ];
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
    shape: Shape,
    buffer: Vec<u8>,
    /// From the leaves up: nodes that nothing links yet, fewer than a node links of each level.
    levels: Vec<Vec<Link>>,
}

impl Layout {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, buffer: Vec::with_capacity(shape.leaf_bytes), levels: Vec::new() }
    }

    /// Takes the next bytes of the file; gives out the blocks that they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut impl FnMut(Block)) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(self.shape.leaf_bytes - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == self.shape.leaf_bytes {
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
        let block = if self.shape.raw_leaves {
            (self.name(Codec::Raw, &data), data)
        } else {
            let node = node(&[], &unixfs(&data, file, &[]));
            (self.name(Codec::DagPb, &node), node)
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
        if self.levels[level].len() == self.shape.max_links {
            self.join(level, out);
        }
    }

    fn name(&self, codec: Codec, block: &[u8]) -> Cid {
        Cid::of(self.shape.v0_nodes, codec, Sha256::digest(block).into())
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

    const LEAF_BYTES: usize = 256 << 10;

    /// Its name, and its blocks.
    fn lay_out(bytes: &[u8], piece_bytes: usize, shape: Shape) -> (Cid, HashMap<Cid, Vec<u8>>) {
        let (mut layout, mut blocks) = (Layout::new(shape), HashMap::new());
        let mut keep = |(cid, block): Block| {
            assert!(cid.names(&block));
            blocks.insert(cid, block);
        };
        for piece in bytes.chunks(piece_bytes) {
            layout.push(piece, &mut keep);
        }
        (layout.finish(&mut keep), blocks)
    }

    /// Following the blocks from the name gives the file.
    fn check(bytes: &[u8], shape: Shape) -> Cid {
        let (root, blocks) = lay_out(bytes, 100_000, shape);
        let (mut walk, mut read) = (Walk::new(root.clone(), u64::MAX), Vec::new());
        while let Some(cid) = walk.wanted().expect("a file").cloned() {
            match walk.take(&blocks[&cid]).expect("a file") {
                Part::OfFile(data) => read.extend_from_slice(data),
                Part::OfFolder => panic!("no folder"),
            }
        }
        assert!(read == bytes, "{} bytes, {shape:?}", bytes.len());
        root
    }

    fn some(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place / 7 % 251) as u8 ^ (place >> 18) as u8).collect()
    }

    /// What the network's own tools name a file is what is made here.
    #[test]
    fn usual_blocks_are_those_that_the_network_names() {
        let lengths = [0, 1, 12, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES, 3 * LEAF_BYTES + 5];
        let wide = [173, 174, 175, 348, 349].map(|leaves| leaves * LEAF_BYTES);
        for length in lengths.into_iter().chain(wide) {
            let (bytes, hashers) = (some(length), [Hasher::for_ipfs(), Hasher::for_ipfs_v1_raw_leaves()]);
            for (shape, mut hasher) in Shape::USUAL.into_iter().zip(hashers) {
                hasher.update(&bytes);
                assert_eq!(
                    check(&bytes, shape).to_string(),
                    hasher.finalize().to_string(),
                    "{length} bytes, {shape:?}"
                );
            }
        }
    }

    #[test]
    fn every_shape_gives_the_file_and_another_name() {
        let bytes = some(9 * LEAF_BYTES + 1);
        let all = Shape::USUAL.into_iter().chain(Shape::FURTHER);
        let mut names: Vec<String> = all.map(|shape| check(&bytes, shape).to_string()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 5);
        // Trees of several levels, whatever is left over on each.
        let narrow = Shape { leaf_bytes: 2, max_links: 3, ..Shape::V1 };
        (0..120).for_each(|length| drop(check(&bytes[..length], narrow)));
    }
}
