//! This node's own mark on a template: what it was made of and that nobody has changed it since.
//!
//! The state of a machine is believed to the last register, so a file that anybody could have written is no template. A seal is two lines:
//! the facts as JSON, and their HMAC-SHA256 together with the template's key, under a secret that never leaves the node's folder.

use super::key::{Key, Level};
use crate::cache::program::MAX_VOLUMES;
use hmac::{Hmac, Mac as _};
use rustix::fs::{SeekFrom, seek};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Length of the secret, bytes.
const SECRET_BYTES: usize = 32;
/// Longest seal, bytes: three times the longest of today without volumes, and a digest for each volume.
const MAX_SEAL_BYTES: usize = 1024 + 80 * MAX_VOLUMES;
/// Memory is read in pieces of that many bytes; a piece of zeros is left out, as the file leaves it out.
const PIECE_BYTES: usize = 256 * 1024;

/// The facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// What it was made with.
    pub installation: String,
    /// How far the guest had come.
    pub level: Level,
    /// The program, of a template of one.
    pub program: Option<String>,
    /// Bytes of memory that are not zero.
    pub size_bytes: u64,
    /// What a start without the template takes longer, milliseconds.
    pub saves_ms: u64,
    /// Digest of the memory file, hex.
    pub memory: String,
    /// Digest of the state file, hex.
    pub state: String,
    /// Digests of the volumes, hex, in order.
    pub volumes: Vec<String>,
}

/// Why a template is not believed. It is made again.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is none, or a file cannot be read: the node ended before it was made.
    #[error("it is not complete: {0}")]
    File(#[from] io::Error),
    /// The mark is not ours.
    #[error("its seal is not of this node")]
    Mark,
    /// The seal is ours and the files are others.
    #[error("its {0} was changed")]
    Changed(&'static str),
}

/// The node's secret.
pub struct Secret([u8; SECRET_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    /// Reads the secret, which is made when there is none.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => {
                if let Ok(secret) = bytes.try_into() {
                    return Ok(Self(secret));
                }
                // Cut off when it was written; what it has marked is not believed any more.
                fs::remove_file(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut secret = [0; SECRET_BYTES];
        crate::random::fill(&mut secret);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&secret)?;
        Ok(Self(secret))
    }

    fn mac(&self, key: &Key, facts: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(key.to_string().as_bytes());
        mac.update(facts.as_bytes());
        mac
    }

    /// The seal of a template.
    #[must_use]
    pub fn seal(&self, key: &Key, facts: &Facts) -> String {
        let facts = serde_json::to_string(facts).expect("strings and numbers have a JSON form");
        let mark = hex::encode(self.mac(key, &facts).finalize().into_bytes());
        format!("{facts}\n{mark}\n")
    }

    /// The facts of a seal that is of this node.
    ///
    /// # Errors
    /// [`SealError::Mark`].
    pub fn open_seal(&self, key: &Key, seal: &[u8]) -> Result<Facts, SealError> {
        let text = std::str::from_utf8(seal).map_err(|_| SealError::Mark)?;
        let (facts, mark) = text.trim_end().split_once('\n').ok_or(SealError::Mark)?;
        let mark = hex::decode(mark).map_err(|_| SealError::Mark)?;
        self.mac(key, facts).verify_slice(&mark).map_err(|_| SealError::Mark)?;
        serde_json::from_str(facts).map_err(|_| SealError::Mark)
    }

    /// The facts of a seal's file, if it is of this node.
    ///
    /// # Errors
    /// [`SealError::Mark`], or there is no file.
    pub fn read(&self, key: &Key, seal: &Path) -> Result<Facts, SealError> {
        if fs::metadata(seal)?.len() > MAX_SEAL_BYTES as u64 {
            return Err(SealError::Mark);
        }
        self.open_seal(key, &fs::read(seal)?)
    }

    /// The facts of a template's folder, whose files are what they were. Reads all of them.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn check(
        &self,
        key: &Key,
        seal: &Path,
        memory: &File,
        state: &File,
        volumes: &[File],
    ) -> Result<Facts, SealError> {
        let facts = self.read(key, seal)?;
        if digests(volumes)? != facts.volumes {
            return Err(SealError::Changed("volumes"));
        }
        if digest(state)? != facts.state {
            return Err(SealError::Changed("state"));
        }
        if digest(memory)? != facts.memory {
            return Err(SealError::Changed("memory"));
        }
        Ok(facts)
    }
}

/// Digests of files.
///
/// # Errors
/// One cannot be read.
pub fn digests(files: &[File]) -> io::Result<Vec<String>> {
    files.iter().map(digest).collect()
}

/// Digest of a file in hex: its length, and each piece that is not all zeros, with its place. Holes are not read.
///
/// # Errors
/// The file cannot be read.
pub fn digest(file: &File) -> io::Result<String> {
    let length = file.metadata()?.len();
    let mut digest = Sha256::new();
    digest.update(length.to_le_bytes());
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < length {
        match seek(file, SeekFrom::Data(at)) {
            // To the beginning of the piece that holds the next data.
            Ok(data) => at = data - data % PIECE_BYTES as u64,
            // There is none.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        }
        let piece = &mut piece[..usize::try_from(length - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES))];
        file.read_exact_at(piece, at)?;
        if piece.iter().any(|byte| *byte != 0) {
            digest.update(at.to_le_bytes());
            digest.update(&*piece);
        }
        at += piece.len() as u64;
    }
    Ok(hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            installation: "i".into(),
            level: Level::Function,
            program: Some("a".into()),
            size_bytes: 5,
            saves_ms: 7,
            memory: "m".into(),
            state: "s".into(),
            volumes: Vec::new(),
        }
    }

    fn key(first: u8) -> Key {
        format!("{first:02x}{}", "0".repeat(62)).parse().expect("a key")
    }

    #[test]
    fn a_seal_is_of_one_node_and_one_template() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = Secret::open(&folder.path().join("secret")).expect("made");
        let seal = secret.seal(&key(1), &facts());
        let again = Secret::open(&folder.path().join("secret")).expect("read");
        assert_eq!(again.open_seal(&key(1), seal.as_bytes()).expect("ours"), facts());
        let other = Secret::open(&folder.path().join("other")).expect("made");
        assert!(matches!(other.open_seal(&key(1), seal.as_bytes()), Err(SealError::Mark)));
        assert!(matches!(again.open_seal(&key(2), seal.as_bytes()), Err(SealError::Mark)));
        let changed = seal.replace("\"size_bytes\":5", "\"size_bytes\":6");
        assert!(matches!(again.open_seal(&key(1), changed.as_bytes()), Err(SealError::Mark)));
        assert!(matches!(again.open_seal(&key(1), b"\xff"), Err(SealError::Mark)));
    }

    #[test]
    fn a_digest_knows_every_byte_and_where_it_is_but_not_how_holes_are_kept() {
        let make = |writes: &[(u64, &[u8])]| {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(4 << 20).expect("a length");
            for (at, bytes) in writes {
                file.write_all_at(bytes, *at).expect("a write");
            }
            digest(&file).expect("a digest")
        };
        let one = make(&[(3 << 20, b"x")]);
        assert_eq!(one, make(&[(0, &[0; 8192]), (3 << 20, b"x")]));
        assert_ne!(one, make(&[(2 << 20, b"x")]));
        assert_ne!(one, make(&[(3 << 20, b"y")]));
        assert_ne!(one, make(&[]));
    }
}
