//! Nodes of files and folders: dag-pb, a list of links and some data, and UnixFS, which says what the data is.
//!
//! Read by hand: the format has seven fields, and a general protobuf reader would set a structure of many times its size aside for every empty link
//! of a hostile block. Nothing is copied. A block is at most [`super::MAX_BLOCK_BYTES`] long, and a link names a block, so one has at most some
//! 60,000 of them.

use super::cid::{Cid, CidError};

/// What is wrong with a node. The fault of whoever made it: its hash is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It does not parse.
    #[error("a node is malformed: {0}")]
    Malformed(&'static str),
    /// A link to something that is not followed.
    #[error("a link: {0}")]
    Link(#[from] CidError),
    /// UnixFS knows it and nothing serves it, or not even that.
    #[error("a node of the UnixFS type {0} is neither file nor folder")]
    Kind(u64),
    /// A file says how long its parts are, and has another number of them.
    #[error("a node of a file has {links} links and says the length of {lengths}")]
    Lengths {
        /// Links.
        links: usize,
        /// Lengths.
        lengths: usize,
    },
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node<'block> {
    /// Those that it links, in order.
    pub(crate) links: Vec<Cid>,
    /// What it calls them, in the same order; parts of files have empty names.
    pub(crate) names: Vec<&'block [u8]>,
    /// What it is.
    pub(crate) kind: NodeKind,
    /// Bytes of a file before those of its links; of others, something of their own.
    pub(crate) data: &'block [u8],
    /// Bytes of the file below it, as it says.
    pub(crate) file_bytes: Option<u64>,
    /// Into how many a shard spreads its entries.
    pub(crate) fanout: u64,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// A file or a part of one.
    File,
    /// A folder.
    Directory,
    /// A folder or a part of one whose entries are spread by their hashes.
    Shard,
    /// A path in place of a file.
    Symlink,
}

/// Into how many everybody's shards spread their entries.
const USUAL_FANOUT: u64 = 256;

/// Fields of UnixFS `Data.Type`.
const KINDS: [(u64, NodeKind); 5] = [
    (0, NodeKind::File), // "Raw", which old programs wrote for the leaves of files
    (1, NodeKind::Directory),
    (2, NodeKind::File),
    (4, NodeKind::Symlink),
    (5, NodeKind::Shard),
];

impl<'block> Node<'block> {
    pub(crate) fn parse(block: &'block [u8]) -> Result<Self, NodeError> {
        let (mut links, mut names, mut data) = (Vec::new(), Vec::new(), None);
        for field in Fields(block) {
            match field? {
                (1, Value::Bytes(bytes)) if data.is_none() => data = Some(bytes),
                (1, Value::Bytes(_)) => return Err(NodeError::Malformed("it has data twice")),
                (2, Value::Bytes(bytes)) => {
                    let (cid, name) = link(bytes)?;
                    links.push(cid);
                    names.push(name);
                }
                _ => return Err(NodeError::Malformed("a field that dag-pb does not have")),
            }
        }
        let data = data.ok_or(NodeError::Malformed("it has no data, so it is of no file or folder"))?;
        Self::of_unixfs(links, names, data)
    }

    fn of_unixfs(links: Vec<Cid>, names: Vec<&'block [u8]>, bytes: &'block [u8]) -> Result<Self, NodeError> {
        let (mut kind, mut data, mut file_bytes, mut lengths) = (None, &[][..], None, 0);
        let mut fanout = USUAL_FANOUT;
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(number)) => kind = Some(number),
                (2, Value::Bytes(bytes)) => data = bytes,
                (3, Value::Number(number)) => file_bytes = Some(number),
                (4, Value::Number(_)) => lengths += 1,
                // Packed, as newer programs write lists of numbers.
                (4, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        packed = number(packed)?.1;
                        lengths += 1;
                    }
                }
                (6, Value::Number(number)) => fanout = number,
                // Hash of a folder's spread, mode and time of change: nothing here depends on them.
                _ => {}
            }
        }
        let kind = kind.ok_or(NodeError::Malformed("it does not say what it is"))?;
        let known = KINDS.iter().find(|(number, _)| *number == kind).ok_or(NodeError::Kind(kind))?.1;
        if known == NodeKind::File && lengths != links.len() {
            return Err(NodeError::Lengths { links: links.len(), lengths });
        }
        if known == NodeKind::Symlink && !links.is_empty() {
            return Err(NodeError::Malformed("a symbolic link has no links"));
        }
        Ok(Self { links, names, kind: known, data, file_bytes, fanout })
    }
}

/// Reads a link: where it leads, and its name. The size that it claims nobody believes.
fn link(bytes: &[u8]) -> Result<(Cid, &[u8]), NodeError> {
    let (mut cid, mut name) = (None, &[][..]);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => cid = Some(Cid::from_bytes(bytes)?),
            (2, Value::Bytes(bytes)) => name = bytes,
            _ => {}
        }
    }
    Ok((cid.ok_or(NodeError::Malformed("a link leads nowhere"))?, name))
}

/// The fields of a protobuf message, one after the other; after a malformed one there are no more.
struct Fields<'block>(&'block [u8]);

enum Value<'block> {
    Number(u64),
    Bytes(&'block [u8]),
}

impl<'block> Iterator for Fields<'block> {
    type Item = Result<(u64, Value<'block>), NodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(self.0);
        self.0 = field.as_ref().map_or(&[], |(_, _, rest)| rest);
        Some(field.map(|(number, value, _)| (number, value)))
    }
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), NodeError> {
    unsigned_varint::decode::u64(bytes).map_err(|_| NodeError::Malformed("a number is cut off or too long"))
}

fn field(bytes: &[u8]) -> Result<(u64, Value<'_>, &[u8]), NodeError> {
    let (key, rest) = number(bytes)?;
    match key & 7 {
        0 => number(rest).map(|(value, rest)| (key >> 3, Value::Number(value), rest)),
        2 => {
            let (length, rest) = number(rest)?;
            let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
            let (value, rest) = rest.split_at(length.ok_or(NodeError::Malformed("a field is cut off"))?);
            Ok((key >> 3, Value::Bytes(value), rest))
        }
        // The time of change of UnixFS 1.5 has its nanoseconds as a fixed number inside a field of bytes: none is met here.
        _ => Err(NodeError::Malformed("a field is neither number nor bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::building;
    use proptest::prelude::*;

    #[test]
    fn nodes_of_kubo_are_read() {
        // The root of the folder among the fixtures: index.html and sub.
        let car = crate::testing::fixture("signed/files/folder.car");
        let node = Node::parse(&car[car.len() - 105..]).expect("a folder");
        assert_eq!((node.kind, node.links.len(), node.data, node.file_bytes), (NodeKind::Directory, 2, &[][..], None));
        assert_eq!(node.names, [&b"index.html"[..], b"sub"]);
        let file = building::file(&[(Cid::of_raw(b"ab"), 2), (Cid::of_raw(b"c"), 1)]);
        let node = Node::parse(&file).expect("a file");
        assert_eq!((node.kind, node.file_bytes), (NodeKind::File, Some(3)));
        assert_eq!(node.links, [Cid::of_raw(b"ab"), Cid::of_raw(b"c")]);
    }

    #[test]
    fn what_is_no_node_of_a_file_or_folder_says_why() {
        let check = |block: &[u8], words: &str| {
            let error = Node::parse(block).expect_err("a refusal").to_string();
            assert!(error.contains(words), "{error}");
        };
        check(b"", "no data");
        check(&[0x0a, 2, 8, 3], "UnixFS type 3");
        check(&[0x0a, 0], "does not say what it is");
        check(&[0x0a, 5, 8, 1], "cut off");
        check(&[0x0a, 2, 8, 1, 0x0a, 2, 8, 1], "data twice");
        check(&[0x12, 2, 0x18, 7], "a link leads nowhere");
        check(&[0x12, 3, 0x0a, 1, 9], "a link: no CID");
        check(&[0x18, 1], "dag-pb does not have");
        check(&[0x0d, 1, 2, 3, 4], "neither number nor bytes");
        // One length more than links.
        let (mut file, unixfs) = (building::file(&[(Cid::of_raw(b"a"), 1)]), [8, 2, 0x18, 1, 0x20, 1]);
        assert_eq!(file.split_off(file.len() - 8), [&[0x0a, 6][..], &unixfs].concat());
        file.extend([&[0x0a, 8][..], &unixfs, &[0x20, 1]].concat());
        check(&file, "has 1 links and says the length of 2");
    }

    proptest! {
        /// Whatever the bytes are, reading ends, and nothing is made of what is not there.
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(node) = Node::parse(&bytes) {
                prop_assert!(node.links.len() * 4 <= bytes.len());
                prop_assert!(node.data.len() <= bytes.len());
            }
        }

        /// A node with one byte changed is another node, or none; never harm.
        #[test]
        fn damaged_nodes_do_no_harm(place in any::<prop::sample::Index>(), byte in any::<u8>(), entries in 0_usize..5) {
            let named: Vec<(String, Cid, u64)> =
                (0..entries).map(|number| (format!("n{number}"), Cid::of_raw(&[7]), 1)).collect();
            let mut block = building::directory(&named);
            let place = place.index(block.len());
            block[place] = byte;
            let _ = Node::parse(&block);
        }
    }
}
