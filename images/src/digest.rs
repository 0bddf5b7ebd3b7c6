//! Digests: of what goes into an output (its key) and of what comes out.

use crate::{ImagesError, at};
use sha2::{Digest as _, Sha256};
use std::{fs::File, io, path::Path};

/// Collects everything that an output depends on. Fields are length-prefixed, so that moving a
/// byte from one to the next changes the key.
pub(crate) struct Key(Sha256);

/// Characters of a key that name a folder: 64 bits tell apart what one machine ever builds.
const KEY_CHARACTERS: usize = 16;

impl Key {
    /// Starts a key; `format` is raised when the builder itself changes what it makes.
    pub(crate) fn new(builder: &str, format: u32) -> Self {
        let mut key = Self(Sha256::new());
        key.add(builder).add(&format.to_string());
        key
    }

    pub(crate) fn add(&mut self, input: &str) -> &mut Self {
        self.0.update((input.len() as u64).to_le_bytes());
        self.0.update(input);
        self
    }

    pub(crate) fn finish(self) -> String {
        let mut text = hex::encode(self.0.finalize());
        text.truncate(KEY_CHARACTERS);
        text
    }
}

/// The sha256 of a file, in hex.
pub(crate) fn of_file(path: &Path) -> Result<String, ImagesError> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).map_err(at(path))?;
    io::copy(&mut file, &mut hasher).map_err(at(path))?;
    Ok(hex::encode(hasher.finalize()))
}

/// The sha256 of bytes, in hex.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_input_and_on_where_one_ends() {
        let key = |format, inputs: &[&str]| {
            let mut key = Key::new("kernel", format);
            for input in inputs {
                key.add(input);
            }
            key.finish()
        };
        let same = key(1, &["ab", "c"]);
        assert_eq!(same, key(1, &["ab", "c"]));
        assert_eq!(same.len(), KEY_CHARACTERS);
        for other in [key(2, &["ab", "c"]), key(1, &["a", "bc"]), key(1, &["ab"])] {
            assert_ne!(same, other);
        }
    }
}
