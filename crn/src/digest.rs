//! Holds bytes against the hash that names them, as they stream by.

use aleph_cid::{
    cid::{Cid, CidV0, CidV1},
    verify,
};
use ccn_message::ItemHash;
use sha2::{Digest as _, Sha256};
use std::{fs::File, io, os::unix::fs::FileExt as _};

/// A running hash of the kind that an item hash is.
pub struct Digest {
    expected: String,
    hasher: Hasher,
}

enum Hasher {
    /// Items of storage: the sha256 of the bytes.
    Sha256(Sha256),
    /// Items of IPFS: the CID that the network's IPFS nodes give a file (spec: messages, section 2).
    Cid(Box<verify::Hasher>),
}

/// The hash is a CID of a form whose content cannot be computed again. Nobody's fault; the file is not
/// taken, because nothing proves it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is a kind of CID that this node cannot verify")]
pub struct Unsupported(pub String);

impl Digest {
    /// A hash of nothing so far.
    ///
    /// # Errors
    /// [`Unsupported`] for exotic CIDs.
    pub fn of(hash: &ItemHash) -> Result<Self, Unsupported> {
        let expected = hash.to_string();
        let unsupported = || Unsupported(expected.clone());
        let cid = if expected.starts_with("Qm") {
            Some(Cid::v0(CidV0::new(expected.clone()).map_err(|_| unsupported())?))
        } else if expected.starts_with('b') && expected.len() != 64 {
            Some(Cid::v1(CidV1::new(expected.clone())))
        } else {
            None
        };
        let hasher = match cid {
            Some(cid) => Hasher::Cid(Box::new(verify::Hasher::for_expected(&cid).map_err(|_| unsupported())?)),
            None => Hasher::Sha256(Sha256::new()),
        };
        Ok(Self { expected, hasher })
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Cid(hasher) => hasher.update(bytes),
        }
    }

    /// Whether the bytes were those that the hash names.
    #[must_use]
    pub fn matches(self) -> bool {
        let found = match self.hasher {
            Hasher::Sha256(hasher) => hex::encode(hasher.finalize()),
            Hasher::Cid(hasher) => hasher.finalize().as_str().to_owned(),
        };
        found == self.expected
    }
}

/// The sha256 of a whole file, whatever its position.
///
/// # Errors
/// The file cannot be read.
pub fn of_file(file: &File) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    let mut at = 0;
    loop {
        match file.read_at(&mut piece, at)? {
            0 => return Ok(digest.finalize().into()),
            read => {
                digest.update(&piece[..read]);
                at += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hash: &str, bytes: &[u8], expected: bool) {
        let mut digest = Digest::of(&hash.parse().expect("an item hash")).expect("a supported hash");
        for chunk in bytes.chunks(3) {
            digest.update(chunk);
        }
        assert_eq!(digest.matches(), expected, "{hash}");
    }

    #[test]
    fn sha256_of_storage() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(hash, b"abc", true);
        check(hash, b"abd", false);
    }

    /// The CID that `ipfs add` prints for a file of these bytes.
    #[test]
    fn cid_of_ipfs() {
        check("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o", b"hello world", false);
        check("Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD", b"hello world", true);
    }
}
