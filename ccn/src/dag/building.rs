//! Makes blocks of files and folders for tests, with a writer of its own: what it writes is not what the reader was made from.

use super::{
    Followed,
    car::{self, CarReader, Item},
    cid::Cid,
    spool::Spool,
};
use crate::files::Files;
use ccn_message::ItemHash;
use std::collections::HashMap;

/// Blocks by their names, in the order in which they were made.
#[derive(Debug, Default, Clone)]
pub(crate) struct Blocks {
    blocks: HashMap<Cid, Vec<u8>>,
    order: Vec<Cid>,
}

impl Blocks {
    pub(crate) fn get(&self, cid: &Cid) -> &[u8] {
        &self.blocks[cid]
    }

    /// By the text of a name.
    pub(crate) fn find(&self, cid: &str) -> Option<&[u8]> {
        self.blocks.iter().find(|(name, _)| name.to_string() == cid).map(|(_, block)| block.as_slice())
    }

    pub(crate) fn count(&self) -> usize {
        self.order.len()
    }

    /// All but the one that was made as that one.
    pub(crate) fn without(&self, place: usize) -> (Self, Cid) {
        let mut others = self.clone();
        let cid = others.order.remove(place);
        others.blocks.remove(&cid);
        (others, cid)
    }

    fn put(&mut self, cid: Cid, block: Vec<u8>) -> Cid {
        if self.blocks.insert(cid.clone(), block).is_none() {
            self.order.push(cid.clone());
        }
        cid
    }

    pub(crate) fn raw(&mut self, block: &[u8]) -> Cid {
        self.put(Cid::of_raw(block), block.to_vec())
    }

    pub(crate) fn node(&mut self, block: Vec<u8>) -> Cid {
        self.put(Cid::of_node(&block), block)
    }

    pub(crate) fn directory(&mut self, entries: &[(&str, &Cid, u64)]) -> Cid {
        let entries: Vec<_> =
            entries.iter().map(|(name, cid, size)| ((*name).to_owned(), (*cid).clone(), *size)).collect();
        self.node(directory(&entries))
    }

    /// A file in pieces of that length, in nodes of that width.
    pub(crate) fn layout(&mut self, bytes: &[u8], piece_bytes: usize, width: usize) -> Cid {
        let mut level: Vec<(Cid, u64)> =
            bytes.chunks(piece_bytes).map(|piece| (self.raw(piece), piece.len() as u64)).collect();
        if level.is_empty() {
            return self.raw(b"");
        }
        // One piece is wrapped too: the name of a file of the network is that of a node.
        loop {
            let nodes = level.chunks(width).map(|parts| {
                let size = parts.iter().map(|(_, size)| size).sum();
                (self.node(file(parts)), size)
            });
            level = nodes.collect();
            if let [(root, _)] = level.as_slice() {
                return root.clone();
            }
        }
    }

    /// All of them in an archive, in the order in which they were made: leaves first.
    pub(crate) fn archive(&self, root: &Cid) -> Vec<u8> {
        let mut archive = car::header(root);
        for cid in &self.order {
            archive.extend(car::block_head(cid, &self.blocks[cid]));
            archive.extend_from_slice(&self.blocks[cid]);
        }
        archive
    }
}

fn number(field: u8, mut value: u64, output: &mut Vec<u8>) {
    output.push(field << 3);
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        output.push(if value == 0 { byte } else { byte | 0x80 });
        if value == 0 {
            return;
        }
    }
}

fn bytes(field: u8, value: &[u8], output: &mut Vec<u8>) {
    let mut length = Vec::new();
    number(field, value.len() as u64, &mut length);
    length[0] |= 2;
    output.extend(length);
    output.extend_from_slice(value);
}

fn link(name: &str, cid: &Cid, size: u64, output: &mut Vec<u8>) {
    let mut link = Vec::new();
    bytes(1, &cid.to_bytes(), &mut link);
    bytes(2, name.as_bytes(), &mut link);
    number(3, size, &mut link);
    bytes(2, &link, output);
}

/// A folder's node, of entries with name and size.
pub(crate) fn directory(entries: &[(String, Cid, u64)]) -> Vec<u8> {
    let mut node = Vec::new();
    for (name, cid, size) in entries {
        link(name, cid, *size, &mut node);
    }
    bytes(1, &[8, 1], &mut node);
    node
}

/// A file's node, of parts with their lengths.
pub(crate) fn file(parts: &[(Cid, u64)]) -> Vec<u8> {
    let (mut node, mut unixfs) = (Vec::new(), Vec::new());
    number(1, 2, &mut unixfs);
    number(3, parts.iter().map(|(_, length)| length).sum(), &mut unixfs);
    for (cid, length) in parts {
        link("", cid, *length, &mut node);
        number(4, *length, &mut unixfs);
    }
    bytes(1, &unixfs, &mut node);
    node
}

/// A file's node that holds all of it.
pub(crate) fn leaf(data: &[u8]) -> Vec<u8> {
    let (mut node, mut unixfs) = (Vec::new(), Vec::new());
    number(1, 2, &mut unixfs);
    bytes(2, data, &mut unixfs);
    number(3, data.len() as u64, &mut unixfs);
    bytes(1, &unixfs, &mut node);
    node
}

/// Blocks of an archive.
struct OfArchive(Spool);

impl super::Blocks for OfArchive {
    type Error = Box<dyn std::error::Error + Send + Sync>;
    async fn block(&mut self, cid: &Cid) -> Result<Vec<u8>, Self::Error> {
        Ok(self.0.get(cid).await?.ok_or("a block is missing")?)
    }
}

/// Follows what is in an archive from its root.
pub(crate) async fn follow(files: &Files, archive: &[u8]) -> (ItemHash, Followed) {
    let (mut reader, mut hash) = (CarReader::default(), None);
    let mut spool = Spool::new(files, archive.len() as u64).await.expect("a file");
    reader.push(archive);
    while let Some(item) = reader.next().expect("an archive") {
        match item {
            Item::Roots(roots) => hash = Some(ItemHash::parse(&roots[0].to_string()).expect("a hash")),
            Item::Block(cid, block) => spool.put(&cid, &block).await.expect("room"),
        }
    }
    let hash = hash.expect("a root");
    let followed = super::assemble(files, &hash, &mut OfArchive(spool), u64::MAX).await.expect("all blocks");
    (hash, followed)
}
