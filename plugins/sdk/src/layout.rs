//! Keys of state, and the parts of it that plugins publish to each other.
//!
//! A key is a letter for the table, then parts. Texts end with a zero byte, which no text of a message holds; times are big-endian doubles, whose
//! order is that of the numbers because none is negative. Long texts, whose length strangers choose, stand in keys as their digest: a node
//! takes keys of 512 bytes at most.

pub mod aggregate;
pub mod machine;
pub mod store;
pub mod tally;

use crate::{Message, Write};
use ccn_message::ItemHash;
use std::borrow::Cow;

/// Ends a text within a key.
pub const END_OF_TEXT: u8 = 0;
/// Longest text that stands in a key as it is, bytes. Four of them, a time and an item hash fit into a key.
pub const MAX_TEXT_BYTES: usize = 96;
/// Begins the digest of a text that does not.
const DIGEST: char = '\u{1}';

/// Builds a key.
#[derive(Debug, Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key of that table.
    #[must_use]
    pub fn of(table: u8) -> Self {
        Self(vec![table])
    }

    /// With a text that other parts may follow.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.extend_from_slice(bounded(text).as_bytes());
        self.0.push(END_OF_TEXT);
        self
    }

    /// With a time, earlier ones first.
    #[must_use]
    pub fn time(mut self, seconds: f64) -> Self {
        self.0.extend_from_slice(&time_bytes(seconds));
        self
    }

    /// With a time, later ones first.
    #[must_use]
    pub fn time_descending(mut self, seconds: f64) -> Self {
        self.0.extend(time_bytes(seconds).map(|byte| !byte));
        self
    }

    /// With a text at the very end.
    #[must_use]
    pub fn last(mut self, text: &str) -> Vec<u8> {
        self.0.extend_from_slice(bounded(text).as_bytes());
        self.0
    }

    /// With a moment at the very end: earlier ones first, then by hash.
    #[must_use]
    pub fn moment(self, moment: &Moment) -> Vec<u8> {
        self.time(moment.time).last(&moment.item_hash)
    }

    /// As it is.
    #[must_use]
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// A text as it stands in keys: itself, or its digest when it is long or looks like one.
#[must_use]
pub fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES && !text.starts_with(DIGEST) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{DIGEST}{}", ItemHash::sha256_of(text.as_bytes())))
}

/// A time as eight bytes that sort as it does. Negative times do not occur.
#[must_use]
pub fn time_bytes(seconds: f64) -> [u8; 8] {
    seconds.max(0.0).to_bits().to_be_bytes()
}

/// The first key after all that start with `prefix`.
#[must_use]
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Keys are bounded; nothing sorts after this.
    vec![u8::MAX; 1024]
}

/// A moment with its tie-break: every "latest" orders by (time, item hash).
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub struct Moment {
    /// Content time, seconds.
    pub time: f64,
    /// Item hash, as text.
    pub item_hash: String,
}

impl Moment {
    /// Where a message stands among all others.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        Self { time: message.time, item_hash: message.item_hash.clone() }
    }

    /// Reads the end of a key that [`Key::moment`] made, after its `prefix`.
    #[must_use]
    pub fn of_key(prefix: &[u8], key: &[u8]) -> Option<Self> {
        let (time, item_hash) = key.strip_prefix(prefix)?.split_first_chunk::<8>()?;
        let item_hash = std::str::from_utf8(item_hash).ok()?.to_owned();
        Some(Self { time: f64::from_bits(u64::from_be_bytes(*time)), item_hash })
    }

    /// A moment as bytes: the time, then the hash and the end of a text.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = time_bytes(self.time).to_vec();
        bytes.extend_from_slice(self.item_hash.as_bytes());
        bytes.push(END_OF_TEXT);
        bytes
    }

    /// Reads a moment; returns what follows it.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let end = rest.iter().position(|byte| *byte == END_OF_TEXT)?;
        let item_hash = std::str::from_utf8(&rest[..end]).ok()?.to_owned();
        Some((Self { time: f64::from_bits(u64::from_be_bytes(*time)), item_hash }, &rest[end + 1..]))
    }
}

/// A row that is put.
#[must_use]
pub fn put(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write { key, value: Some(value) }
}

/// A row that is deleted.
#[must_use]
pub fn delete(key: Vec<u8>) -> Write {
    Write { key, value: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends_come_after_prefixes() {
        assert_eq!(end_of(b"ab"), b"ac");
        assert_eq!(end_of(&[1, 0xff]), [2]);
        assert!(end_of(&[0xff, 0xff]).as_slice() > &[0xff, 0xff, 0xfe][..]);
    }

    #[test]
    fn long_texts_do_not_make_long_keys() {
        let long = "x".repeat(200_000);
        let digest = bounded(&long).into_owned();
        assert_eq!(digest.len(), 65);
        assert_ne!(bounded(&digest), digest, "a text that looks like a digest is not taken for one");
        assert_eq!(bounded(&"x".repeat(MAX_TEXT_BYTES)), "x".repeat(MAX_TEXT_BYTES));
        let longest = "é".repeat(MAX_TEXT_BYTES / 2);
        let key =
            Key::of(0).text(&longest).text(&longest).text(&longest).text(&longest).time(1.0).last(&"a".repeat(64));
        assert!(key.len() <= 512, "{}", key.len());
    }

    proptest! {
        #[test]
        fn times_sort_as_numbers(a in 0.0..9.3e9_f64, b in 0.0..9.3e9_f64) {
            prop_assert_eq!(time_bytes(a).cmp(&time_bytes(b)), a.total_cmp(&b));
            let descending = |time| Key::of(0).time_descending(time).done();
            prop_assert_eq!(descending(a).cmp(&descending(b)), b.total_cmp(&a));
        }

        #[test]
        fn moments_survive(time in 0.0..9.3e9_f64, item_hash in "[0-9a-f]{1,64}", rest in proptest::collection::vec(any::<u8>(), 0..20)) {
            let moment = Moment { time, item_hash };
            let mut bytes = moment.to_bytes();
            bytes.extend_from_slice(&rest);
            let (read, left) = Moment::split(&bytes).expect("a moment");
            prop_assert_eq!(read, moment);
            prop_assert_eq!(left, rest.as_slice());
        }

        #[test]
        fn moments_end_keys(time in 0.0..9.3e9_f64, item_hash in "[0-9a-f]{64}", text in ".{0,200}") {
            let (prefix, moment) = (Key::of(b'x').text(&text), Moment { time, item_hash });
            let key = prefix.clone().moment(&moment);
            prop_assert_eq!(Moment::of_key(&prefix.done(), &key), Some(moment));
        }
    }
}
