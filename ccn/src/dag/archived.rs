//! Blocks in the archive of a folder: where each is. The archive was written here, of blocks that were compared with their names.

use super::{
    MAX_BLOCK_BYTES,
    cid::{Cid, Codec, MAX_CID_BYTES},
    walk::MAX_BLOCKS,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// Bytes that are read at once on the way through an archive.
const PIECE_BYTES: usize = 64 << 10;

/// Where a block is in the archive.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    bytes: usize,
}

/// The blocks of an archive.
#[derive(Debug)]
pub(crate) struct Archived {
    file: tokio::fs::File,
    /// One entry a block, at most [`MAX_BLOCKS`] of some 48 bytes.
    places: HashMap<[u8; 32], Place>,
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the length of what follows.
fn length(reader: &mut BufReader<File>) -> io::Result<u64> {
    unsigned_varint::io::read_u64(reader).map_err(|_| damaged("a length does not parse"))
}

/// Passes over so many bytes.
fn pass(reader: &mut BufReader<File>, bytes: u64) -> io::Result<()> {
    reader.seek_relative(i64::try_from(bytes).map_err(|_| damaged("a length is absurd"))?)
}

impl Archived {
    /// Goes through an archive and shows its nodes; blocks of bytes are passed over. Waits for the disk.
    ///
    /// # Errors
    /// The archive is damaged or cannot be read, or `see` returns an error.
    pub(crate) fn open<E: From<io::Error>>(
        file: File,
        mut see: impl FnMut(&Cid, &[u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut places = HashMap::new();
        let end = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(PIECE_BYTES, file);
        let header = length(&mut reader)?;
        pass(&mut reader, header)?;
        while reader.stream_position()? < end {
            let frame = length(&mut reader)?;
            let start = reader.stream_position()?;
            let mut head = Vec::with_capacity(MAX_CID_BYTES);
            reader.by_ref().take(frame.min(MAX_CID_BYTES as u64)).read_to_end(&mut head)?;
            let (cid, beginning) = Cid::read(&head).map_err(|_| damaged("a block has no name"))?;
            let name_bytes = (head.len() - beginning.len()) as u64;
            let bytes = usize::try_from(frame - name_bytes).unwrap_or(usize::MAX);
            if bytes > MAX_BLOCK_BYTES || start + frame > end {
                return Err(damaged("a block is longer than blocks are").into());
            }
            let left = frame - head.len() as u64;
            if cid.codec() == Codec::DagPb {
                let mut block = beginning.to_vec();
                reader.by_ref().take(left).read_to_end(&mut block)?;
                see(&cid, &block)?;
            } else {
                pass(&mut reader, left)?;
            }
            if let Some(digest) = cid.digest() {
                places.insert(*digest, Place { start: start + name_bytes, bytes });
            }
            if places.len() > MAX_BLOCKS {
                return Err(damaged("it has too many blocks").into());
            }
        }
        Ok(Self { file: tokio::fs::File::from_std(reader.into_inner()), places })
    }

    /// A block.
    ///
    /// # Errors
    /// It is not in the archive, or cannot be read.
    pub(crate) async fn block(&mut self, cid: &Cid) -> io::Result<Bytes> {
        if let Some(block) = cid.inline() {
            return Ok(Bytes::copy_from_slice(block));
        }
        let place = cid.digest().and_then(|digest| self.places.get(digest)).copied();
        let Place { start, bytes } = place.ok_or_else(|| damaged("a block is not in the archive"))?;
        self.file.seek(SeekFrom::Start(start)).await?;
        let mut block = vec![0; bytes];
        self.file.read_exact(&mut block).await?;
        Ok(block.into())
    }
}
