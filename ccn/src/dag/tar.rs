//! A folder as an archive of its files (tar), as IPFS nodes give one: everything lies in a folder that is called as the CID is.
//!
//! No I/O: [`Tar`] says which block is next and makes of it what comes next in the archive. What is linked twice is in it twice.

use super::{
    cid::{Cid, Codec},
    node::{Node, NodeError, NodeKind},
};
use bytes::Bytes;
use std::{io, vec};
use tar::{Builder, EntryType, Header};

/// Longest name of an entry, bytes: what file systems take.
const MAX_NAME_BYTES: usize = 255;
/// What everything in an archive of files is a multiple of, bytes.
const RECORD_BYTES: usize = 512;
/// What an archive of files ends with: two empty records.
const END: [u8; 2 * RECORD_BYTES] = [0; 2 * RECORD_BYTES];
/// Who may do what with files, and with folders.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// Why a folder cannot be made an archive of files. Its blocks can still be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// A block is none of a file or folder.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Where its files are unpacked, that would be somewhere else.
    #[error("an entry of it is called \"{0}\", which no file can be")]
    Name(String),
    /// Where a file is to lie, its length comes first.
    #[error("a file of it does not say how long it is")]
    NoLength,
    /// A folder where a file goes on, or the like.
    #[error("a block of it is of another kind than what leads to it")]
    Kind,
    /// Another length was said.
    #[error("a file of it has another length than it says")]
    Length,
    /// It could not be written.
    #[error(transparent)]
    Header(#[from] io::Error),
}

/// A folder on its way into an archive.
#[derive(Debug)]
pub(crate) struct Tar {
    next: Option<(Cid, Place)>,
    levels: Vec<Level>,
    /// Bytes that are still to come of the file at hand.
    left: u64,
    /// Bytes that fill its last record.
    padding: usize,
}

/// Where what a link leads to belongs.
#[derive(Debug)]
enum Place {
    /// It is a file or folder of that path.
    Entry(String),
    /// It has more entries of the folder of that path.
    Shard(String),
    /// It has more bytes of the file at hand.
    Part,
}

/// What a block links, one after the other, with the names that it gives.
#[derive(Debug)]
struct Level {
    links: vec::IntoIter<(Cid, Bytes)>,
    within: Within,
}

#[derive(Debug)]
enum Within {
    /// A folder of that path; so many characters of the names are of its spread.
    Folder(String, usize),
    File,
}

impl Tar {
    /// The archive of that folder.
    pub(crate) fn new(root: Cid) -> Self {
        let path = root.to_string();
        Self { next: Some((root, Place::Entry(path))), levels: Vec::new(), left: 0, padding: 0 }
    }

    /// The block to be taken next; the same until it is. None at the end, where [`Tar::end`] follows.
    pub(crate) fn wanted(&mut self) -> Result<Option<&Cid>, TarError> {
        while self.next.is_none() {
            let Some(level) = self.levels.last_mut() else { break };
            match (level.links.next(), &level.within) {
                (None, _) => drop(self.levels.pop()),
                (Some((cid, _)), Within::File) => self.next = Some((cid, Place::Part)),
                (Some((cid, name)), Within::Folder(path, width)) => {
                    let place = match name_of(&name, *width)? {
                        Some(name) => Place::Entry(format!("{path}/{name}")),
                        None => Place::Shard(path.clone()),
                    };
                    self.next = Some((cid, place));
                }
            }
        }
        Ok(self.next.as_ref().map(|(cid, _)| cid))
    }

    /// Takes the block that is wanted; returns what comes next in the archive.
    pub(crate) fn take(&mut self, block: &Bytes) -> Result<Vec<Bytes>, TarError> {
        let Some((cid, place)) = self.next.take() else { return Ok(Vec::new()) };
        if cid.codec() == Codec::Raw {
            return self.content(place, block.len() as u64, block.clone());
        }
        let node = Node::parse(block)?;
        let (data, width) = (block.slice_ref(node.data), prefix_width(&node));
        let names = node.names.iter().map(|name| block.slice_ref(name));
        let links: Vec<(Cid, Bytes)> = node.links.into_iter().zip(names).collect();
        let (output, within) = match (node.kind, place) {
            (NodeKind::File, place) => {
                let length = node.file_bytes.unwrap_or(data.len() as u64);
                (self.content(place, length, data)?, Within::File)
            }
            (NodeKind::Directory | NodeKind::Shard, Place::Entry(path)) => {
                let header = self.header(&format!("{path}/"), EntryType::Directory, FOLDER_MODE, 0)?;
                (vec![header], Within::Folder(path, width))
            }
            (NodeKind::Shard, Place::Shard(path)) => (Vec::new(), Within::Folder(path, width)),
            (NodeKind::Symlink, Place::Entry(path)) => (vec![self.link(&path, &data)?], Within::File),
            _ => return Err(TarError::Kind),
        };
        self.levels.push(Level { links: links.into_iter(), within });
        Ok(output)
    }

    /// What the archive ends with.
    pub(crate) fn end(&self) -> Result<Bytes, TarError> {
        self.settled()?;
        Ok(Bytes::from_static(&END))
    }

    /// Bytes of a file; before the first of them what it is.
    fn content(&mut self, place: Place, length: u64, data: Bytes) -> Result<Vec<Bytes>, TarError> {
        let mut output = Vec::new();
        match place {
            Place::Entry(path) => {
                output.push(self.header(&path, EntryType::Regular, FILE_MODE, length)?);
                self.left = length;
                self.padding = (RECORD_BYTES - (length % RECORD_BYTES as u64) as usize) % RECORD_BYTES;
            }
            Place::Part => {}
            Place::Shard(_) => return Err(TarError::Kind),
        }
        if !data.is_empty() {
            self.left = self.left.checked_sub(data.len() as u64).ok_or(TarError::Length)?;
            output.push(data);
            if self.left == 0 {
                output.push(Bytes::from_static(&END).slice(..self.padding));
            }
        }
        Ok(output)
    }

    /// The file before has all its bytes.
    fn settled(&self) -> Result<(), TarError> {
        if self.left == 0 { Ok(()) } else { Err(TarError::Length) }
    }

    fn header(&self, path: &str, kind: EntryType, mode: u32, size: u64) -> Result<Bytes, TarError> {
        self.settled()?;
        let mut header = header(kind, mode, size);
        // Without data: what follows is streamed. A long path takes records of its own.
        written(|archive| archive.append_data(&mut header, path, io::empty()))
    }

    fn link(&self, path: &str, target: &[u8]) -> Result<Bytes, TarError> {
        self.settled()?;
        let target = std::str::from_utf8(target).map_err(|_| TarError::Name(target.escape_ascii().to_string()))?;
        let mut header = header(EntryType::Symlink, FILE_MODE, 0);
        written(|archive| archive.append_link(&mut header, path, target))
    }
}

/// Without times and owners, which folders of IPFS do not have.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn written(write: impl FnOnce(&mut Builder<Vec<u8>>) -> io::Result<()>) -> Result<Bytes, TarError> {
    let mut archive = Builder::new(Vec::new());
    write(&mut archive)?;
    // Its end is not that of the whole archive.
    Ok(Bytes::copy_from_slice(archive.get_ref()))
}

/// Says whether a block of a folder can be a part of an archive of files.
pub(crate) fn check(cid: &Cid, block: &[u8]) -> Result<(), TarError> {
    if cid.codec() == Codec::Raw {
        return Ok(());
    }
    let node = Node::parse(block)?;
    match node.kind {
        NodeKind::File if node.file_bytes.is_none() && !node.links.is_empty() => Err(TarError::NoLength),
        NodeKind::File | NodeKind::Symlink => Ok(()),
        NodeKind::Directory | NodeKind::Shard => {
            let width = prefix_width(&node);
            node.names.iter().try_for_each(|name| name_of(name, width).map(drop))
        }
    }
}

/// The name of an entry behind the number of its place; none where that is all, of a shard of a shard.
fn name_of(name: &[u8], width: usize) -> Result<Option<&str>, TarError> {
    match name.get(width..) {
        Some([]) if width > 0 => Ok(None),
        Some(name) => checked(name).map(Some),
        None => Err(refused(name)),
    }
}

fn refused(name: &[u8]) -> TarError {
    TarError::Name(name[..name.len().min(MAX_NAME_BYTES)].escape_ascii().to_string())
}

/// The name of an entry, if a file can have it.
fn checked(name: &[u8]) -> Result<&str, TarError> {
    let text = std::str::from_utf8(name).map_err(|_| refused(name))?;
    let is_name = !matches!(text, "" | "." | "..") && text.len() <= MAX_NAME_BYTES && !text.contains(['/', '\0']);
    if is_name { Ok(text) } else { Err(refused(name)) }
}

/// Characters before the names of a shard's entries: the number of the place, in hexadecimal.
fn prefix_width(node: &Node<'_>) -> usize {
    match node.kind {
        NodeKind::Shard => format!("{:x}", node.fanout.saturating_sub(1)).len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::{
        archived::Archived,
        building::{self, Blocks},
    };
    use proptest::prelude::*;
    use std::{
        collections::BTreeMap,
        io::{Read as _, Write as _},
    };

    /// Sends a folder as an archive of files, its blocks from an archive on the disk.
    async fn send(blocks: &Blocks, root: &Cid) -> Result<Vec<u8>, TarError> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&blocks.archive(root))?;
        io::Seek::rewind(&mut file)?;
        let mut archived = Archived::open(file, check)?;
        let (mut tar, mut output) = (Tar::new(root.clone()), Vec::new());
        while let Some(cid) = tar.wanted()?.cloned() {
            for piece in tar.take(&archived.block(&cid).await?)? {
                output.extend(piece);
            }
        }
        output.extend(tar.end()?);
        Ok(output)
    }

    /// What is in an archive of files: the bytes of files, `/` for folders, `-> target` for symbolic links.
    fn unpacked(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in ::tar::Archive::new(archive).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("bytes");
            match entry.header().entry_type() {
                EntryType::Directory => bytes = b"/".to_vec(),
                EntryType::Symlink => {
                    let target = entry.link_name().expect("a name").expect("a target");
                    bytes = format!("-> {}", target.display()).into();
                }
                other => assert_eq!(other, EntryType::Regular),
            }
            assert!(found.insert(path.clone(), bytes).is_none(), "{path} is there twice");
        }
        found
    }

    fn shard(entries: &[(&str, &Cid)]) -> Vec<u8> {
        let entries: Vec<_> = entries.iter().map(|(name, cid)| ((*name).to_owned(), (*cid).clone(), 1)).collect();
        let mut node = building::directory(&entries);
        // The data of a folder are its last four bytes: here of a shard, with its fanout.
        node.truncate(node.len() - 4);
        node.extend([0x0a, 5, 8, 5, 0x30, 0x80, 2]);
        node
    }

    #[tokio::test]
    async fn a_folder_becomes_an_archive_of_its_files() {
        let mut blocks = Blocks::default();
        let (small, long) = (blocks.raw(b"small"), vec![7; 5000]);
        let large = blocks.layout(&long, 1024, 3);
        let (empty, leaf) = (blocks.raw(b""), blocks.node(building::leaf(b"wrapped")));
        let link = blocks.node(vec![0x0a, 9, 8, 4, 0x12, 5, b's', b'm', b'a', b'l', b'l']);
        let deep = "d".repeat(200);
        let inner = blocks.directory(&[(&deep, &large, 1), ("leaf", &leaf, 1)]);
        let (part, other) = (blocks.node(shard(&[("00spread", &small)])), blocks.node(shard(&[])));
        let spread = blocks.node(shard(&[("0Fx", &empty), ("A1", &part), ("FF", &other), ("FFé", &large)]));
        let root = blocks.directory(&[
            ("again", &inner, 1),
            ("inner", &inner, 1),
            ("link", &link, 1),
            ("small", &small, 1),
            ("spread", &spread, 1),
        ]);
        let found = unpacked(&send(&blocks, &root).await.expect("an archive"));
        let mut expected = BTreeMap::new();
        for (path, bytes) in [
            ("/", &b"/"[..]),
            ("/again/", b"/"),
            (&format!("/again/{deep}"), &long),
            ("/again/leaf", b"wrapped"),
            ("/inner/", b"/"),
            (&format!("/inner/{deep}"), &long),
            ("/inner/leaf", b"wrapped"),
            ("/link", b"-> small"),
            ("/small", b"small"),
            ("/spread/", b"/"),
            ("/spread/x", b""),
            ("/spread/spread", b"small"),
            ("/spread/é", &long),
        ] {
            expected.insert(format!("{root}{path}"), bytes.to_vec());
        }
        assert!(found == expected, "{:?}", found.keys());
    }

    #[tokio::test]
    async fn names_that_no_file_can_have_are_refused_before_anything_is_sent() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for name in ["", ".", "..", "a/b", "/etc", "../up", "a\0b", &long] {
            let mut blocks = Blocks::default();
            let file = blocks.raw(b"x");
            let root = blocks.directory(&[("good", &file, 1), (name, &file, 1)]);
            let error = send(&blocks, &root).await.expect_err(name);
            assert!(matches!(error, TarError::Name(_)), "{name}: {error}");
        }
        let mut blocks = Blocks::default();
        let file = blocks.raw(b"x");
        for name in ["F", "FF..", "FFa/b"] {
            let root = blocks.node(shard(&[(name, &file)]));
            let error = check(&root, blocks.get(&root)).expect_err(name);
            assert!(matches!(error, TarError::Name(_)), "{name}: {error}");
        }
    }

    #[tokio::test]
    async fn a_damaged_archive_is_an_error() {
        let mut blocks = Blocks::default();
        let file = blocks.raw(b"some bytes");
        let root = blocks.directory(&[("a", &file, 1)]);
        let archive = blocks.archive(&root);
        for end in 0..archive.len() {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&archive[..end]).expect("a write");
            io::Seek::rewind(&mut file).expect("a file");
            // Between two blocks it is one of fewer blocks.
            if let Ok(mut archived) = Archived::open(file, check) {
                assert!(archived.block(&root).await.is_err(), "{end}");
            }
        }
    }

    proptest! {
        /// However a file is cut and its pieces are stacked, it is the same file.
        #[test]
        fn every_layout_gives_the_file(bytes in proptest::collection::vec(any::<u8>(), 0..2000), piece in 1_usize..700, width in 2_usize..5) {
            let mut blocks = Blocks::default();
            let file = blocks.layout(&bytes, piece, width);
            let root = blocks.directory(&[("a", &file, 1), ("b", &file, 1)]);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let found = unpacked(&runtime.block_on(send(&blocks, &root)).expect("an archive"));
            prop_assert_eq!(&found[&format!("{root}/a")], &bytes);
            prop_assert_eq!(&found[&format!("{root}/b")], &bytes);
        }

        /// Whatever the blocks are, they are sent or refused; never harm.
        #[test]
        fn arbitrary_nodes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut tar = Tar::new(Cid::of_node(&bytes));
            let block = Bytes::from(bytes);
            for _ in 0..20 {
                if !matches!(tar.wanted(), Ok(Some(_))) || tar.take(&block).is_err() {
                    break;
                }
            }
        }
    }
}
