//! Aggregates: namespace `aggregate`.

use super::{END_OF_TEXT, Key, Moment};
use crate::View;
use ccn_message::{ItemHash, content::aggregate::AggregateContent};

/// The namespace.
pub const NAMESPACE: &str = "aggregate";
/// Longest value of a subkey that stands in its row, bytes of JSON; a longer one is in the message that set it. So a row is short whatever a
/// stranger writes, and whoever takes a message out can put back what it hid.
pub const MAX_VALUE_BYTES: usize = 1024;

/// Table of current values: (owner, key, subkey) to a [`Current`].
const CURRENT: u8 = b'c';
/// Table of elements that stand: (owner, key, time, hash) to nothing.
const ELEMENT: u8 = b'e';
/// Table of elements that were forgotten, of keys that a FORGET can name: the same.
const GONE: u8 = b'g';
/// Table of what is in both: (owner, key) to a [`super::tally::Tally`], of keys that a FORGET can name.
const TALLY: u8 = b'x';

/// A subkey's value, and when it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Current<'a> {
    /// When, and by which element.
    pub moment: Moment,
    /// The subkey.
    pub subkey: &'a str,
    /// Its value as JSON text; empty when it is longer than [`MAX_VALUE_BYTES`]. [`Current::value`] finds it in either case.
    pub json: &'a str,
}

impl<'a> Current<'a> {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.moment.to_bytes();
        bytes.extend_from_slice(self.subkey.as_bytes());
        bytes.push(END_OF_TEXT);
        bytes.extend_from_slice(in_row(self.json).as_bytes());
        bytes
    }

    /// Reads a current value.
    #[must_use]
    pub fn read(value: &'a [u8]) -> Option<Self> {
        let (moment, rest) = Moment::split(value)?;
        let (subkey, json) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
        Some(Self { moment, subkey, json })
    }

    /// The value as JSON text, from the row or the message.
    #[must_use]
    pub fn value(&self, view: &dyn View) -> Option<String> {
        if !self.json.is_empty() {
            return Some(self.json.to_owned());
        }
        let stored = view.message(&self.moment.item_hash)?;
        let mut content = AggregateContent::parse(std::str::from_utf8(&stored.message.content).ok()?).ok()?.content;
        Some(content.take_raw(self.subkey)?.text().to_owned())
    }
}

/// A value as it stands in rows: itself, or nothing when it is long.
#[must_use]
pub fn in_row(json: &str) -> &str {
    if json.len() <= MAX_VALUE_BYTES { json } else { "" }
}

/// True for keys that look like an item hash: the only ones that a FORGET can name (messages spec 5).
#[must_use]
pub fn can_be_forgotten_by_key(key: &str) -> bool {
    ItemHash::parse(key).is_ok()
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

/// Prefix of the elements that stand; their moments follow.
#[must_use]
pub fn elements(owner: &str, key: &str) -> Key {
    Key::of(ELEMENT).text(owner).text(key)
}

/// Prefix of the elements that were forgotten; their moments follow.
#[must_use]
pub fn gone(owner: &str, key: &str) -> Key {
    Key::of(GONE).text(owner).text(key)
}

/// Key of the tally of an aggregate's elements, those that were forgotten included: it changes when one comes, and not when one is forgotten.
#[must_use]
pub fn tally(owner: &str, key: &str) -> Vec<u8> {
    Key::of(TALLY).text(owner).last(key)
}

/// The current value of a subkey in that namespace, as another plugin reads it.
#[must_use]
pub fn value_in(view: &dyn View, owner: &str, key: &str, subkey: &str) -> Option<String> {
    Current::read(&view.get_in(NAMESPACE, &current(owner, key, subkey))?)?.value(view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_left_in_their_message() {
        let moment = Moment { time: 1.0, item_hash: "h".into() };
        for (length, kept) in [(MAX_VALUE_BYTES, true), (MAX_VALUE_BYTES + 1, false)] {
            let json = format!("\"{}\"", "x".repeat(length - 2));
            let bytes = Current { moment: moment.clone(), subkey: "s", json: &json }.to_bytes();
            let read = Current::read(&bytes).expect("a row");
            assert_eq!((read.subkey, read.json.is_empty()), ("s", !kept));
        }
    }
}
