//! Stored files: namespace `store`.

use super::{Key, Moment};

/// The namespace.
pub const NAMESPACE: &str = "store";
/// Table of the latest version by tag: tag to a moment and the file.
const LATEST: u8 = b'l';
/// Table of versions that stand: (tag, time, hash) to the file.
const VERSION: u8 = b'v';
/// Table of versions that were forgotten: (tag, time, hash) to nothing. Who resolves a tag as of an earlier moment still finds them.
const GONE: u8 = b'g';
/// Table of what is in both: tag to a [`super::tally::Tally`].
const TALLY: u8 = b't';

/// The tag of a name of the owner's own. The tag of a first version is its hash.
#[must_use]
pub fn owned_tag(owner: &str, name: &str) -> String {
    format!("{owner}/{name}")
}

/// Key of the latest version of a tag.
#[must_use]
pub fn latest(tag: &str) -> Vec<u8> {
    Key::of(LATEST).last(tag)
}

/// The row of a latest version.
#[must_use]
pub fn write_latest(moment: &Moment, file: &str) -> Vec<u8> {
    let mut value = moment.to_bytes();
    value.extend_from_slice(file.as_bytes());
    value
}

/// Splits a latest version into the STORE that it is and the file.
#[must_use]
pub fn read_latest(value: &[u8]) -> Option<(Moment, &str)> {
    let (moment, file) = Moment::split(value)?;
    Some((moment, std::str::from_utf8(file).ok()?))
}

/// Prefix of the versions of a tag that stand; their moments follow.
#[must_use]
pub fn versions(tag: &str) -> Key {
    Key::of(VERSION).text(tag)
}

/// Prefix of the versions of a tag that were forgotten; their moments follow.
#[must_use]
pub fn gone(tag: &str) -> Key {
    Key::of(GONE).text(tag)
}

/// Key of the tally of a tag's versions, those that were forgotten included: it changes when one comes, and not when one is forgotten.
#[must_use]
pub fn tally(tag: &str) -> Vec<u8> {
    Key::of(TALLY).last(tag)
}
