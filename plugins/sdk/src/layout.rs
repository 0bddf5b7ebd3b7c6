//! Keys of state, and the parts of it that plugins publish to each other.
//!
//! A key is a letter for the table, then parts. Texts end with a zero byte, which no text of a message holds; times are big-endian doubles, whose
//! order is that of the numbers because none is negative. Long texts, whose length strangers choose, stand in keys as their digest: a node
//! takes keys of 512 bytes at most.

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

/// A value made of a first byte and texts that end with zero bytes.
fn record<'a>(first: u8, texts: impl Iterator<Item = &'a String>) -> Vec<u8> {
    let mut bytes = vec![first];
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(END_OF_TEXT);
    }
    bytes
}

/// Aggregates: namespace `aggregate`.
pub mod aggregate {
    use super::{END_OF_TEXT, Key, Moment};

    /// The namespace.
    pub const NAMESPACE: &str = "aggregate";
    /// Table of current values: (owner, key, subkey) to a moment, the subkey and the value's JSON.
    pub const CURRENT: u8 = b'c';

    /// A subkey's value, and when it was written.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Current<'a> {
        /// When, and by which element.
        pub moment: Moment,
        /// The subkey.
        pub subkey: &'a str,
        /// Its value as JSON text.
        pub json: &'a str,
    }

    impl<'a> Current<'a> {
        /// As bytes.
        #[must_use]
        pub fn to_bytes(&self) -> Vec<u8> {
            let mut bytes = self.moment.to_bytes();
            bytes.extend_from_slice(self.subkey.as_bytes());
            bytes.push(END_OF_TEXT);
            bytes.extend_from_slice(self.json.as_bytes());
            bytes
        }

        /// Reads a current value.
        #[must_use]
        pub fn read(value: &'a [u8]) -> Option<Self> {
            let (moment, rest) = Moment::split(value)?;
            let (subkey, json) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
            Some(Self { moment, subkey, json })
        }
    }

    /// Key of the current value of a subkey.
    #[must_use]
    pub fn current(owner: &str, key: &str, subkey: &str) -> Vec<u8> {
        Key::of(CURRENT).text(owner).text(key).last(subkey)
    }

    /// Prefix of all current values of an aggregate.
    #[must_use]
    pub fn all_current(owner: &str, key: &str) -> Vec<u8> {
        Key::of(CURRENT).text(owner).text(key).done()
    }
}

/// Stored files: namespace `store`.
pub mod store {
    use super::{Key, Moment, record};

    /// The namespace.
    pub const NAMESPACE: &str = "store";
    /// Table of STORE messages: hash to file, and the rest of its record.
    pub const MESSAGE: u8 = b'm';
    /// Table of the latest version by tag: tag to a moment and the file.
    pub const LATEST: u8 = b'l';

    /// Key of a STORE message's record.
    #[must_use]
    pub fn message(hash: &str) -> Vec<u8> {
        Key::of(MESSAGE).last(hash)
    }

    /// Key of the latest version of a tag: the hash of the first STORE, or `<owner>/<name>`.
    #[must_use]
    pub fn latest(tag: &str) -> Vec<u8> {
        Key::of(LATEST).last(tag)
    }

    /// Splits a latest version into the STORE that it is and the file.
    #[must_use]
    pub fn read_latest(value: &[u8]) -> Option<(Moment, &str)> {
        let (moment, file) = Moment::split(value)?;
        Some((moment, std::str::from_utf8(file).ok()?))
    }

    /// What is known of a STORE message.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Record {
        /// The file.
        pub file: String,
        /// Its owner, as spelled in the content.
        pub owner: String,
        /// What it updates, as in the content.
        pub reference: Option<String>,
    }

    impl Record {
        /// As bytes: texts that end with zero bytes.
        #[must_use]
        pub fn to_bytes(&self) -> Vec<u8> {
            let texts = [Some(&self.file), Some(&self.owner), self.reference.as_ref()];
            record(1, texts.into_iter().flatten())
        }

        /// Reads a record.
        #[must_use]
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let text = std::str::from_utf8(bytes.strip_prefix(&[1])?).ok()?;
            let mut parts = text.strip_suffix('\0')?.split('\0').map(str::to_owned);
            Some(Self { file: parts.next()?, owner: parts.next()?, reference: parts.next() })
        }
    }
}

/// Programs: namespace `program`.
pub mod program {
    use super::{Key, record};

    /// The namespace.
    pub const NAMESPACE: &str = "program";
    /// Table of programs: hash to its [`Record`].
    pub const PROGRAM: u8 = b'p';
    /// Table of what programs use: (STORE message or tag, program) to nothing. A file that is in use is not to be forgotten.
    pub const USES: u8 = b'u';

    /// Key of a program's record.
    #[must_use]
    pub fn program(hash: &str) -> Vec<u8> {
        Key::of(PROGRAM).last(hash)
    }

    /// Key that says that a program uses a STORE message or tag.
    #[must_use]
    pub fn uses(reference: &str, program: &str) -> Vec<u8> {
        Key::of(USES).text(reference).last(program)
    }

    /// What is known of a program.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Record {
        /// Whether others may replace it.
        pub allow_amend: bool,
        /// Its owner, as spelled in the content.
        pub owner: String,
        /// The program that it replaces.
        pub replaces: Option<String>,
    }

    impl Record {
        /// As bytes: a byte of flags, then texts that end with zero bytes.
        #[must_use]
        pub fn to_bytes(&self) -> Vec<u8> {
            let texts = [Some(&self.owner), self.replaces.as_ref()];
            record(b'0' + u8::from(self.allow_amend), texts.into_iter().flatten())
        }

        /// Reads a record.
        #[must_use]
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let (flags, rest) = bytes.split_first()?;
            let text = std::str::from_utf8(rest).ok()?;
            let mut parts = text.strip_suffix('\0')?.split('\0').map(str::to_owned);
            Some(Self { allow_amend: *flags == b'1', owner: parts.next()?, replaces: parts.next() })
        }
    }
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

    #[test]
    fn records_survive() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        for replaces in [None, Some("x".to_owned()), Some(long.clone())] {
            let record = program::Record { allow_amend: replaces.is_some(), owner: "o".into(), replaces };
            assert_eq!(program::Record::read(&record.to_bytes()), Some(record));
        }
        assert_eq!(program::Record::read(b"1"), None);
        for reference in [None, Some("x".to_owned()), Some(String::new()), Some(long)] {
            let record = store::Record { file: "f".into(), owner: "o".into(), reference };
            assert_eq!(store::Record::read(&record.to_bytes()), Some(record));
        }
        assert_eq!(store::Record::read(b""), None);
        assert_eq!(store::Record::read(&[1, b'f', 0]), None);
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
    }
}
