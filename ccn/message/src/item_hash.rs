//! Item hashes: what identifies messages and files (messages spec section 2).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use std::{cmp::Ordering, fmt, str::FromStr};

/// The identity of a message or file: a sha256 or a CID of one of two kinds. Ordered by its text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ItemHash(Kind);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    Sha256([u8; 32]),
    /// A CIDv0 or CIDv1, as text: it is only ever compared and passed on.
    Cid(Box<str>),
}

/// Where the bytes behind a hash are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The network's own storage, addressed by sha256.
    Storage,
    /// IPFS, addressed by CID.
    Ipfs,
}

/// A text that is no item hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an item hash: 64 lower-case hex digits, a CIDv0 (Qm…) or a dag-pb CIDv1 (bafy…)")]
pub struct InvalidItemHash(String);

/// Longest part of a wrong text that an error repeats, characters.
const SHOWN_CHARS: usize = 80;
const SHA256_CHARS: usize = 64;
const CID_V0_CHARS: std::ops::RangeInclusive<usize> = 44..=46;
const CID_V1_CHARS: usize = 59;

impl ItemHash {
    /// The hash of some bytes.
    #[must_use]
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self(Kind::Sha256(Sha256::digest(bytes).into()))
    }

    /// From a digest that was computed in pieces.
    #[must_use]
    pub fn from_sha256(digest: [u8; 32]) -> Self {
        Self(Kind::Sha256(digest))
    }

    /// The digest, if it is a sha256.
    #[must_use]
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Kind::Sha256(digest) => Some(digest),
            Kind::Cid(_) => None,
        }
    }

    /// Where the bytes behind it are.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match &self.0 {
            Kind::Sha256(_) => Engine::Storage,
            Kind::Cid(_) => Engine::Ipfs,
        }
    }

    /// Reads a hash; nothing but its exact spelling is one.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidItemHash> {
        let refuse = || InvalidItemHash(text.chars().take(SHOWN_CHARS).collect());
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let base58 = |byte: u8| byte.is_ascii_alphanumeric() && !matches!(byte, b'0' | b'O' | b'I' | b'l');
        let base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        if text.len() == SHA256_CHARS && text.bytes().all(lower_hex) {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest).map_err(|_| refuse())?;
            return Ok(Self(Kind::Sha256(digest)));
        }
        let cid_v0 = text.starts_with("Qm") && CID_V0_CHARS.contains(&text.len()) && text.bytes().all(base58);
        let cid_v1 = text.starts_with("bafy") && text.len() == CID_V1_CHARS && text.bytes().all(base32);
        if cid_v0 || cid_v1 {
            return Ok(Self(Kind::Cid(text.into())));
        }
        Err(refuse())
    }
}

impl fmt::Display for ItemHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Sha256(digest) => {
                let mut text = [0; SHA256_CHARS];
                // Twice the length of the digest, so it always fits.
                hex::encode_to_slice(digest, &mut text).map_err(|_| fmt::Error)?;
                formatter.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
            Kind::Cid(text) => formatter.write_str(text),
        }
    }
}

impl fmt::Debug for ItemHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for ItemHash {
    type Err = InvalidItemHash;
    fn from_str(text: &str) -> Result<Self, InvalidItemHash> {
        Self::parse(text)
    }
}

impl Ord for ItemHash {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Kind::Sha256(a), Kind::Sha256(b)) => a.cmp(b),
            (Kind::Cid(a), Kind::Cid(b)) => a.cmp(b),
            _ => self.to_string().cmp(&other.to_string()),
        }
    }
}

impl PartialOrd for ItemHash {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for ItemHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ItemHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What the network takes for a hash where it does not look closely (ccn spec 1.1): the engine by prefix and length alone.
#[must_use]
pub fn loose_engine(text: &str) -> Option<Engine> {
    if (text.starts_with("Qm") && CID_V0_CHARS.contains(&text.len()))
        || (text.starts_with("bafy") && text.len() == CID_V1_CHARS)
    {
        Some(Engine::Ipfs)
    } else if text.chars().count() == SHA256_CHARS {
        Some(Engine::Storage)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, engine: Option<Engine>) {
        let parsed = ItemHash::parse(text);
        assert_eq!(parsed.as_ref().ok().map(ItemHash::engine), engine, "{text}");
        if let Ok(hash) = parsed {
            assert_eq!(hash.to_string(), text);
        }
    }

    #[test]
    fn only_the_exact_spelling_counts() {
        let sha = "0e1104e4cc4ce5c1da5c8db6e78296ea7585aa49c04a4fbee5c453c7e970e677";
        check(sha, Some(Engine::Storage));
        check(&sha.to_uppercase(), None);
        check(&sha[1..], None);
        check("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o", Some(Engine::Ipfs));
        check("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5O", None);
        check("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", Some(Engine::Ipfs));
        check("bafkreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", None);
        check("", None);
    }

    #[test]
    fn a_digest_is_a_hash() {
        let hello = ItemHash::sha256_of(b"hello world\n");
        assert_eq!(hello.to_string(), "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447");
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_a_hash_only_by_its_exact_spelling(text in ".{0,70}") {
            if let Ok(hash) = ItemHash::parse(&text) {
                prop_assert_eq!(hash.to_string(), text);
            }
        }

        #[test]
        fn order_is_that_of_the_text(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            let (a, b) = (ItemHash::from_sha256(a), ItemHash::from_sha256(b));
            let cid = ItemHash::parse("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi").expect("a CID");
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.cmp(&cid), a.to_string().cmp(&cid.to_string()));
        }
    }
}
