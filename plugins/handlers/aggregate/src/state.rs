//! Tables of the namespace `aggregate` beside the published ones of current values and elements.
//!
//! | table | key | value |
//! |---|---|---|
//! | `v` versions | owner, key, subkey, time, hash | the value's JSON, when it is short |
//! | `s` summaries | owner, key | [`Summary`] |
//! | `m`, `n` listing by last change, by creation | time, owner, key | owner, key |
//! | `M`, `N` the same within a key | key, time, owner | owner, key |
//! | `t`, `T` how many there are, in all and of a key | (key) | number |
//!
//! A message that goes leaves the one before it to be found in `v` and among the elements; the work of a message is that of its own subkeys.

use plugin_sdk::{
    View, Write,
    layout::{
        END_OF_TEXT, Key, Moment,
        aggregate::{self, Current},
        delete, end_of, put,
        tally::Tally,
    },
};

const VERSION: u8 = b'v';
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

/// Prefix of the versions of a subkey; their moments follow.
fn versions(owner: &str, key: &str, subkey: &str) -> Key {
    Key::of(VERSION).text(owner).text(key).text(subkey)
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

fn find_summary(owner: &str, key: &str, view: &dyn View) -> Option<Summary> {
    view.get(&summary(owner, key)).and_then(|value| Summary::read(&value))
}

/// What changes when the summary of an aggregate becomes another: where it is listed, and how many there are.
fn change(owner: &str, key: &str, before: Option<&Summary>, after: Option<&Summary>, view: &dyn View) -> Vec<Write> {
    if before == after {
        return Vec::new();
    }
    let mut writes = vec![Write { key: summary(owner, key), value: after.map(Summary::to_bytes) }];
    for order in Order::ALL {
        let (old, new) = (before.map(|summary| order.rows(summary)), after.map(|summary| order.rows(summary)));
        if old != new {
            writes.extend(old.into_iter().flatten().map(delete));
            writes.extend(new.into_iter().flatten().map(|row| put(row, name(owner, key))));
        }
    }
    if before.is_some() != after.is_some() {
        for place in [count(None), count(Some(key))] {
            let number = read_count(view, &place);
            let number = if after.is_some() { number + 1 } else { number.saturating_sub(1) };
            let value = (number > 0).then(|| number.to_be_bytes().to_vec());
            writes.push(Write { key: place, value });
        }
    }
    writes
}

/// What a new element changes beside the values.
pub(crate) fn add_element(owner: &str, key: &str, moment: &Moment, view: &dyn View) -> Vec<Write> {
    let mut writes = vec![put(aggregate::elements(owner, key).moment(moment), Vec::new())];
    if aggregate::can_be_forgotten_by_key(key) {
        let gone = aggregate::gone(owner, key).moment(moment);
        writes.push(match view.get(&gone) {
            Some(_) => delete(gone),
            None => Tally::add(view, aggregate::tally(owner, key), &moment.item_hash),
        });
    }
    let before = find_summary(owner, key, view);
    let mut after = before.clone().unwrap_or_else(|| Summary {
        created: moment.clone(),
        updated: moment.clone(),
        owner: owner.to_owned(),
        key: key.to_owned(),
    });
    if *moment < after.created {
        after.created = moment.clone();
    }
    if *moment > after.updated {
        after.updated = moment.clone();
    }
    writes.extend(change(owner, key, before.as_ref(), Some(&after), view));
    writes
}

/// What an element that stands changes by going, beside the values; one that is forgotten is still to be found by a FORGET of its key.
pub(crate) fn remove_element(owner: &str, key: &str, moment: &Moment, forgotten: bool, view: &dyn View) -> Vec<Write> {
    let mut writes = vec![delete(aggregate::elements(owner, key).moment(moment))];
    if aggregate::can_be_forgotten_by_key(key) {
        writes.push(match forgotten {
            true => put(aggregate::gone(owner, key).moment(moment), Vec::new()),
            false => Tally::remove(view, aggregate::tally(owner, key), &moment.item_hash),
        });
    }
    let Some(before) = find_summary(owner, key, view) else { return writes };
    let prefix = aggregate::elements(owner, key).done();
    let end = |reverse: bool| {
        let rows = view.scan(&prefix, &end_of(&prefix), 2, reverse).items;
        rows.iter().filter_map(|(row, _)| Moment::of_key(&prefix, row)).find(|other| other != moment)
    };
    let mut after = Some(before.clone());
    if before.created == *moment {
        after = end(false).map(|created| Summary { created, ..before.clone() });
    }
    if before.updated == *moment {
        after = after.zip(end(true)).map(|(after, updated)| Summary { updated, ..after });
    }
    writes.extend(change(owner, key, Some(&before), after.as_ref(), view));
    writes
}

/// The trace of an element that was forgotten goes too.
pub(crate) fn remove_gone(owner: &str, key: &str, moment: &Moment, view: &dyn View) -> Vec<Write> {
    let gone = aggregate::gone(owner, key).moment(moment);
    if view.get(&gone).is_none() {
        return Vec::new();
    }
    vec![delete(gone), Tally::remove(view, aggregate::tally(owner, key), &moment.item_hash)]
}

/// A subkey gets a value of that moment, which is the current one if none is newer.
pub(crate) fn add_version(
    owner: &str,
    key: &str,
    moment: &Moment,
    (subkey, json): (&str, &str),
    view: &dyn View,
) -> Vec<Write> {
    let json = aggregate::in_row(json);
    let mut writes = vec![put(versions(owner, key, subkey).moment(moment), json.into())];
    let place = aggregate::current(owner, key, subkey);
    let newest = view.get(&place).and_then(|value| Some(Current::read(&value)?.moment));
    if newest.is_none_or(|newest| newest < *moment) {
        writes.push(put(place, Current { moment: moment.clone(), subkey, json }.to_bytes()));
    }
    writes
}

/// A subkey's value of that moment goes, and uncovers the one before it.
pub(crate) fn remove_version(owner: &str, key: &str, moment: &Moment, subkey: &str, view: &dyn View) -> Vec<Write> {
    let mut writes = vec![delete(versions(owner, key, subkey).moment(moment))];
    let place = aggregate::current(owner, key, subkey);
    let current = view.get(&place).and_then(|value| Some(Current::read(&value)?.moment));
    if current.as_ref() == Some(moment) {
        let prefix = versions(owner, key, subkey).done();
        let rows = view.scan(&prefix, &end_of(&prefix), 2, true).items;
        let before = rows.iter().filter_map(|(row, json)| {
            let moment = Moment::of_key(&prefix, row)?;
            Some((moment, std::str::from_utf8(json).ok()?))
        });
        let value = before
            .filter(|(other, _)| other != moment)
            .map(|(moment, json)| Current { moment, subkey, json }.to_bytes())
            .next();
        writes.push(Write { key: place, value });
    }
    writes
}
