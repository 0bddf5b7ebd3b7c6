//! Names of blocks: of all that a CID can say, what the network's files are made of.
//!
//! Blocks are dag-pb nodes or raw bytes, hashed by sha256; small ones may be inside their own name (kubo's `--inline`). Everything else is refused
//! by name, before a byte of it is asked for.

use ccn_message::ItemHash;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Codes of the multicodec table.
const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;
const IDENTITY: u64 = 0x00;
const SHA2_256: u64 = 0x12;

/// Longest name of a block in bytes: CIDv1 with an inline block of the longest size that `cid` reads (64), and its varints.
pub(crate) const MAX_CID_BYTES: usize = 80;

/// The name of a block.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Cid {
    is_v0: bool,
    codec: Codec,
    content: Content,
}

/// How a block is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    /// A node with links, [`super::node::Node`].
    DagPb,
    /// Bytes of a file.
    Raw,
}

/// How a name holds on to its block.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Content {
    Sha256([u8; 32]),
    Inline(Box<[u8]>),
}

/// Why something is no name of a block that can be had here. The fault of whoever made the folder or file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// It does not parse.
    #[error("no CID: {0}")]
    Malformed(String),
    /// A codec that no file or folder has.
    #[error("blocks of the codec 0x{0:x} are not of a file or folder (dag-pb is 0x70, raw 0x55)")]
    Codec(u64),
    /// A hash function that is not followed.
    #[error("blocks named by the hash function 0x{0:x} are not taken (sha2-256 is 0x12)")]
    Hash(u64),
    /// A sha256 of another length than 32 bytes.
    #[error("a sha2-256 has 32 bytes, not {0}")]
    Digest(usize),
}

impl Cid {
    /// Reads the binary form at the start of some bytes; returns what follows.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), CidError> {
        let mut rest = bytes;
        let cid = cid::Cid::read_bytes(&mut rest).map_err(|error| CidError::Malformed(error.to_string()))?;
        Ok((Self::new(&cid)?, rest))
    }

    /// Reads the binary form, with nothing after it.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        match Self::read(bytes)? {
            (cid, []) => Ok(cid),
            (_, rest) => Err(CidError::Malformed(format!("{} bytes follow it", rest.len()))),
        }
    }

    pub(crate) fn new(cid: &cid::Cid) -> Result<Self, CidError> {
        let codec = match cid.codec() {
            DAG_PB => Codec::DagPb,
            RAW => Codec::Raw,
            other => return Err(CidError::Codec(other)),
        };
        let digest = cid.hash().digest();
        let content = match cid.hash().code() {
            SHA2_256 => Content::Sha256(digest.try_into().map_err(|_| CidError::Digest(digest.len()))?),
            IDENTITY => Content::Inline(digest.into()),
            other => return Err(CidError::Hash(other)),
        };
        Ok(Self { is_v0: cid.version() == cid::Version::V0, codec, content })
    }

    /// The name of a block of that hash; version 0 has nodes alone.
    pub(crate) fn of(is_v0: bool, codec: Codec, sha256: [u8; 32]) -> Self {
        Self { is_v0: is_v0 && codec == Codec::DagPb, codec, content: Content::Sha256(sha256) }
    }

    /// The name that a block of bytes of a file has.
    #[cfg(test)]
    pub(crate) fn of_raw(block: &[u8]) -> Self {
        Self { is_v0: false, codec: Codec::Raw, content: Content::Sha256(Sha256::digest(block).into()) }
    }

    /// The name that a node has.
    #[cfg(test)]
    pub(crate) fn of_node(block: &[u8]) -> Self {
        Self { is_v0: false, codec: Codec::DagPb, content: Content::Sha256(Sha256::digest(block).into()) }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// True for another spelling of the same node, or the same.
    pub(crate) fn is_same_node(&self, other: &Self) -> bool {
        self.codec == other.codec && self.content == other.content
    }

    /// The block's hash; none of one that is inside its name.
    pub(crate) fn digest(&self) -> Option<&[u8; 32]> {
        match &self.content {
            Content::Sha256(digest) => Some(digest),
            Content::Inline(_) => None,
        }
    }

    /// The block that is inside its name.
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Sha256(_) => None,
            Content::Inline(block) => Some(block),
        }
    }

    /// True when that is its block.
    #[must_use]
    pub(crate) fn names(&self, block: &[u8]) -> bool {
        match &self.content {
            Content::Sha256(digest) => *digest == <[u8; 32]>::from(Sha256::digest(block)),
            Content::Inline(inline) => **inline == *block,
        }
    }

    /// The binary form.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_CID_BYTES);
        if !self.is_v0 {
            // Version, codec: both below 128, so a byte each.
            bytes.extend([1, if self.codec == Codec::Raw { RAW as u8 } else { DAG_PB as u8 }]);
        }
        let (code, digest): (u64, &[u8]) = match &self.content {
            Content::Sha256(digest) => (SHA2_256, digest),
            Content::Inline(block) => (IDENTITY, block),
        };
        // The longest digest has 64 bytes.
        bytes.extend([code as u8, digest.len() as u8]);
        bytes.extend_from_slice(digest);
        bytes
    }
}

impl TryFrom<&ItemHash> for Cid {
    type Error = CidError;
    fn try_from(hash: &ItemHash) -> Result<Self, CidError> {
        let cid = cid::Cid::try_from(hash.to_string());
        Self::new(&cid.map_err(|error| CidError::Malformed(error.to_string()))?)
    }
}

impl fmt::Display for Cid {
    /// As everybody writes it: base58 of version 0, base32 of version 1.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.to_bytes();
        if self.is_v0 {
            return formatter.write_str(&bs58::encode(bytes).into_string());
        }
        write!(formatter, "b{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_and_written_alike() {
        // What kubo calls "hello world\n": as version 0, as version 1 of the same node, and as a raw block.
        for text in [
            "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
            "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby",
            "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4",
            // "hi" inside its own name.
            "bafkqaatine",
        ] {
            let cid = cid::Cid::try_from(text).map(|cid| Cid::new(&cid));
            let Ok(Ok(cid)) = cid else { panic!("{text}: {cid:?}") };
            assert_eq!(cid.to_string(), text);
            assert_eq!(Cid::from_bytes(&cid.to_bytes()), Ok(cid));
        }
        assert!(Cid::of_raw(b"hello world\n").names(b"hello world\n"));
        assert_eq!(
            Cid::of_raw(b"hello world\n").to_string(),
            "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
        );
    }

    #[test]
    fn what_is_not_followed_is_named() {
        let check = |bytes: &[u8], words: &str| {
            let error = Cid::from_bytes(bytes).expect_err("a refusal").to_string();
            assert!(error.contains(words), "{error}");
        };
        let name = |codec: u8, hash: u8, length: usize| {
            [&[1, codec, hash, u8::try_from(length).expect("short")][..], &vec![7; length]].concat()
        };
        check(&name(0x71, 0x12, 32), "codec 0x71");
        check(&name(0x55, 0x13, 64), "hash function 0x13");
        check(&name(0x55, 0x12, 31), "32 bytes, not 31");
        check(&[name(0x55, 0x12, 32), vec![1]].concat(), "1 bytes follow it");
        check(&[], "no CID");
        check(&[2, 0x55, 0x12, 0], "no CID");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_or_read_alike(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((cid, rest)) = Cid::read(&bytes) {
                // There is one way to write a name, and lengths may not be padded.
                prop_assert_eq!(&bytes[..bytes.len() - rest.len()], cid.to_bytes());
                prop_assert!(cid.to_bytes().len() <= MAX_CID_BYTES);
            }
        }
    }
}
