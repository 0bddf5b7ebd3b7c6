//! Tables of the namespace `aggregate` beside the published one of current values.
//!
//! | table | key | value |
//! |---|---|---|
//! | `v` versions | owner, key, subkey, time, hash | nothing |
//! | `e` elements | owner, key, time, hash | nothing |
//! | `s` summaries | owner, key | [`Summary`] |
//! | `m`, `n` listing by last change, by creation | time, owner, key | owner, key |
//! | `M`, `N` the same within a key | key, time, owner | owner, key |
//! | `t`, `T` how many there are, in all and of a key | (key) | number |
//!
//! A message that goes leaves the one before it to be found in `v` and `e`; the work of a message is that of its own subkeys.

use plugin_sdk::{
    View, Write,
    layout::{END_OF_TEXT, Key, Moment},
};

const VERSION: u8 = b'v';
const ELEMENT: u8 = b'e';
const SUMMARY: u8 = b's';

/// When an aggregate began and when it changed last, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    /// Its oldest element.
    pub(crate) created: Moment,
    /// Its newest element.
    pub(crate) updated: Moment,
    pub(crate) owner: String,
    pub(crate) key: String,
}

impl Summary {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.created.to_bytes();
        bytes.extend(self.updated.to_bytes());
        bytes.extend(name(&self.owner, &self.key));
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (created, rest) = Moment::split(bytes)?;
        let (updated, rest) = Moment::split(rest)?;
        let (owner, key) = read_name(rest)?;
        Some(Self { created, updated, owner: owner.to_owned(), key: key.to_owned() })
    }
}

fn name(owner: &str, key: &str) -> Vec<u8> {
    let mut bytes = owner.as_bytes().to_vec();
    bytes.push(END_OF_TEXT);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// Splits the value of a listing row into owner and key.
pub(crate) fn read_name(bytes: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(bytes).ok()?.split_once('\0')
}

pub(crate) fn version(owner: &str, key: &str, subkey: &str, moment: &Moment) -> Vec<u8> {
    Key::of(VERSION).text(owner).text(key).text(subkey).time(moment.time).last(&moment.item_hash)
}

fn element(owner: &str, key: &str, moment: &Moment) -> Vec<u8> {
    Key::of(ELEMENT).text(owner).text(key).time(moment.time).last(&moment.item_hash)
}

pub(crate) fn summary(owner: &str, key: &str) -> Vec<u8> {
    Key::of(SUMMARY).text(owner).last(key)
}

pub(crate) fn summaries_of(owner: &str) -> Vec<u8> {
    Key::of(SUMMARY).text(owner).done()
}

/// By what a listing is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    LastModified,
    Created,
}

impl Order {
    pub(crate) const ALL: [Self; 2] = [Self::LastModified, Self::Created];

    /// Table over everything, table within a key.
    fn tables(self) -> (u8, u8) {
        match self {
            Self::LastModified => (b'm', b'M'),
            Self::Created => (b'n', b'N'),
        }
    }

    pub(crate) fn time(self, summary: &Summary) -> f64 {
        match self {
            Self::LastModified => summary.updated.time,
            Self::Created => summary.created.time,
        }
    }

    /// Prefix of a listing: of everything, or of one key.
    pub(crate) fn prefix(self, key: Option<&str>) -> Vec<u8> {
        let (all, within) = self.tables();
        match key {
            None => Key::of(all).done(),
            Some(key) => Key::of(within).text(key).done(),
        }
    }

    /// The rows of an aggregate.
    fn rows(self, summary: &Summary) -> [Vec<u8>; 2] {
        let (all, within) = self.tables();
        let time = self.time(summary);
        let Summary { owner, key, .. } = summary;
        [Key::of(all).time(time).text(owner).last(key), Key::of(within).text(key).time(time).last(owner)]
    }
}

/// Key of the number of aggregates: of all, or of one key.
pub(crate) fn count(key: Option<&str>) -> Vec<u8> {
    match key {
        None => Key::of(b't').done(),
        Some(key) => Key::of(b'T').last(key),
    }
}

pub(crate) fn read_count(view: &dyn View, key: &[u8]) -> u64 {
    view.get(key).and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// What a new element changes beside the values: its own row, the summary and where the aggregate is listed.
pub(crate) fn add_element(owner: &str, key: &str, moment: &Moment, view: &dyn View) -> Vec<Write> {
    let mut writes = vec![write(element(owner, key, moment), Vec::new())];
    let found = view.get(&summary(owner, key)).and_then(|value| Summary::read(&value));
    let mut changed = found.clone().unwrap_or_else(|| Summary {
        created: moment.clone(),
        updated: moment.clone(),
        owner: owner.to_owned(),
        key: key.to_owned(),
    });
    if *moment < changed.created {
        changed.created = moment.clone();
    }
    if *moment > changed.updated {
        changed.updated = moment.clone();
    }
    for order in Order::ALL {
        let rows = order.rows(&changed);
        let before = found.as_ref().map(|found| order.rows(found));
        if before.as_ref() == Some(&rows) {
            continue;
        }
        writes.extend(before.into_iter().flatten().map(|key| Write { key, value: None }));
        writes.extend(rows.map(|row| write(row, name(owner, key))));
    }
    if found.is_none() {
        for place in [count(None), count(Some(key))] {
            let number = read_count(view, &place) + 1;
            writes.push(write(place, number.to_be_bytes().to_vec()));
        }
    }
    if found.as_ref() != Some(&changed) {
        writes.push(write(summary(owner, key), changed.to_bytes()));
    }
    writes
}

pub(crate) fn write(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write { key, value: Some(value) }
}
