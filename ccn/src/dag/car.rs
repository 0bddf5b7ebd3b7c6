//! Archives of blocks (CAR version 1, <https://ipld.io/specs/transport/car/carv1/>): read as they stream by, and written.
//!
//! ```text
//! length │ {"roots": [CID], "version": 1}      a header in DAG-CBOR
//! length │ CID │ block                         as often as there are blocks, in any order
//! ```
//!
//! The reader holds one frame at a time. Every block is compared with its name before it is given out.

use super::{
    MAX_BLOCK_BYTES,
    cid::{Cid, CidError, MAX_CID_BYTES},
};
use bytes::{Buf as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use unsigned_varint::{decode, encode};

/// Longest header: one root takes 60 bytes.
const MAX_HEADER_BYTES: u64 = 8 << 10;
const MAX_FRAME_BYTES: u64 = (MAX_CID_BYTES + MAX_BLOCK_BYTES) as u64;
/// Longest number that says how long a frame is; longer ones are padded or absurd.
const MAX_LENGTH_BYTES: usize = 9;

/// Why an archive is not read on. The fault of whoever sends it.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// It does not begin with a header of an archive.
    #[error("this is no archive of blocks (CAR): {0}")]
    Header(String),
    /// Another version.
    #[error("the archive is of version {0}; version 1 is read")]
    Version(u64),
    /// The length of a frame is no number.
    #[error("the length of a block does not parse")]
    Length,
    /// A frame is empty or larger than blocks can be.
    #[error("a block with its name has {0} bytes; blocks have between 1 and {MAX_BLOCK_BYTES}")]
    Frame(u64),
    /// The name of a block is none.
    #[error(transparent)]
    Cid(#[from] CidError),
    /// The block is another one than its name says.
    #[error("the block that is called {0} is another one")]
    WrongBlock(String),
    /// It ends inside a frame.
    #[error("the archive is cut off")]
    CutOff,
}

/// The header of an archive.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    #[serde(default)]
    roots: Vec<cid::Cid>,
    version: u64,
}

/// What an archive holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// What is in it, as it says: the names that its maker began with.
    Roots(Vec<cid::Cid>),
    /// A block, which is what its name says.
    Block(Cid, Bytes),
}

/// Reads an archive that comes in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct CarReader {
    /// What has come and was not given out: less than a frame once [`CarReader::next`] has answered None, and the last piece before that.
    buffer: BytesMut,
    began: bool,
}

impl CarReader {
    /// Takes the next piece. All items are to be taken out before there is another one.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next item, if all of it has come.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, CarError> {
        let Some(mut frame) = self.frame()? else { return Ok(None) };
        if !self.began {
            self.began = true;
            let header: Header =
                serde_ipld_dagcbor::from_slice(&frame).map_err(|error| CarError::Header(error.to_string()))?;
            if header.version != 1 {
                return Err(CarError::Version(header.version));
            }
            return Ok(Some(Item::Roots(header.roots)));
        }
        let (cid, block) = Cid::read(&frame)?;
        if !cid.names(block) {
            return Err(CarError::WrongBlock(cid.to_string()));
        }
        if block.len() > MAX_BLOCK_BYTES {
            return Err(CarError::Frame(frame.len() as u64));
        }
        frame.advance(frame.len() - block.len());
        Ok(Some(Item::Block(cid, frame)))
    }

    /// Cuts off what the number at the front says, once it is there.
    fn frame(&mut self) -> Result<Option<Bytes>, CarError> {
        let (length, head) = match decode::u64(&self.buffer) {
            Ok((length, rest)) => (length, self.buffer.len() - rest.len()),
            Err(decode::Error::Insufficient) if self.buffer.len() < MAX_LENGTH_BYTES => return Ok(None),
            Err(_) if self.began => return Err(CarError::Length),
            Err(_) => return Err(CarError::Header("it does not begin with a length".to_owned())),
        };
        if !self.began && !(1..=MAX_HEADER_BYTES).contains(&length) {
            return Err(CarError::Header(format!("its header would have {length} bytes")));
        }
        if !(1..=MAX_FRAME_BYTES).contains(&length) {
            return Err(CarError::Frame(length));
        }
        let whole = head + usize::try_from(length).map_err(|_| CarError::Length)?;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole);
        frame.advance(head);
        Ok(Some(frame.freeze()))
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// It has not begun, or ends inside a frame.
    pub(crate) fn finish(&self) -> Result<(), CarError> {
        match (self.began, self.buffer.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(CarError::CutOff),
            (false, _) => Err(CarError::Header("it ends before its header does".to_owned())),
        }
    }
}

/// The header of an archive with one root.
pub(crate) fn header(root: &Cid) -> Vec<u8> {
    let root = cid::Cid::try_from(root.to_bytes()).expect("it was read from these bytes");
    let header = serde_ipld_dagcbor::to_vec(&Header { roots: vec![root], version: 1 }).expect("a list and a number");
    let mut number = encode::u64_buffer();
    [encode::u64(header.len() as u64, &mut number), &header].concat()
}

/// What stands before a block in an archive.
pub(crate) fn block_head(cid: &Cid, block: &[u8]) -> Vec<u8> {
    let cid = cid.to_bytes();
    let mut number = encode::u64_buffer();
    [encode::u64((cid.len() + block.len()) as u64, &mut number), &cid].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All items of an archive that comes in pieces of that size.
    fn read(archive: &[u8], piece_bytes: usize) -> Result<Vec<Item>, CarError> {
        let (mut reader, mut items) = (CarReader::default(), Vec::new());
        for piece in archive.chunks(piece_bytes) {
            reader.push(piece);
            while let Some(item) = reader.next()? {
                items.push(item);
            }
            assert!(reader.buffer.len() as u64 <= MAX_FRAME_BYTES + MAX_LENGTH_BYTES as u64);
        }
        reader.finish().map(|()| items)
    }

    fn archive(blocks: &[&[u8]]) -> Vec<u8> {
        let mut archive = header(&Cid::of_raw(blocks[0]));
        for block in blocks {
            archive.extend(block_head(&Cid::of_raw(block), block));
            archive.extend_from_slice(block);
        }
        archive
    }

    #[test]
    fn the_archive_of_another_program_is_read() {
        let archive = crate::testing::fixture("signed/files/folder.car");
        for piece_bytes in [1, 7, 380] {
            let items = read(&archive, piece_bytes).expect("an archive");
            let [Item::Roots(roots), blocks @ ..] = items.as_slice() else { panic!("{items:?}") };
            assert_eq!(roots[0].to_string(), "bafybeibodeb6v6r4un463kurp3fcuw2kau2nrhjlyowycs6ejiekh4b4li");
            assert_eq!(blocks.len(), 4);
            let root = Cid::new(&roots[0]).expect("a name");
            assert_eq!(archive[..0x3b], header(&root), "and headers are written as it writes them");
        }
    }

    #[test]
    fn what_is_no_archive_says_why() {
        let check = |archive: &[u8], words: &str| {
            let error = read(archive, 5).expect_err("a refusal").to_string();
            assert!(error.contains(words), "{error}");
        };
        let good = archive(&[b"one", b"two"]);
        check(b"", "ends before its header");
        check(&good[..good.len() - 1], "cut off");
        check(b"<html>", "no archive of blocks");
        check(&[0xff; 20], "does not begin with a length");
        check(&[0xff, 0xff, 0x7f], "its header would have 2097151 bytes");
        // The start of every archive of version 2.
        check(&[0x0a, 0xa1, 0x67, 0x76, 0x65, 0x72, 0x73, 0x69, 0x6f, 0x6e, 0x02], "version 2");
        let mut wrong = good.clone();
        *wrong.last_mut().expect("a byte") ^= 1;
        check(&wrong, "is another one");
        let with = |tail: &[u8]| [&archive(&[b"one"]), tail].concat();
        check(&with(&[0]), "has 0 bytes");
        check(&with(&[0xff, 0xff, 0xff, 0x7f]), "has 268435455 bytes");
        check(&with(&[0xff; 10]), "length of a block");
        check(&with(&[3, 1, 0x71, 0]), "no CID");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece_bytes in 1_usize..50) {
            let _ = read(&bytes, piece_bytes);
            // Behind a header as well.
            let _ = read(&[header(&Cid::of_raw(b"x")), bytes].concat(), piece_bytes);
        }

        /// However it is cut into pieces, what went in comes out.
        #[test]
        fn what_is_written_is_read(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6), piece_bytes in 1_usize..400) {
            let refs: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            let items = read(&archive(&refs), piece_bytes).expect("an archive");
            let found: Vec<&[u8]> = items.iter().filter_map(|item| match item {
                Item::Block(_, block) => Some(&block[..]),
                Item::Roots(_) => None,
            }).collect();
            prop_assert_eq!(found, refs);
        }

        /// One changed byte behind the header is noticed: every byte there is a length, a name, or hashed.
        #[test]
        fn a_damaged_archive_is_noticed(place in any::<prop::sample::Index>(), flip in 1_u8..=255) {
            let mut bytes = archive(&[b"one", b"two and more"]);
            let start = header(&Cid::of_raw(b"one")).len();
            let place = start + place.index(bytes.len() - start);
            bytes[place] ^= flip;
            match read(&bytes, 64) {
                Err(_) => {}
                // Only the codec may differ: it says how a block is read, not which one it is.
                Ok(items) => for item in items {
                    if let Item::Block(cid, block) = item {
                        prop_assert!(cid.names(&block));
                    }
                },
            }
        }
    }
}
