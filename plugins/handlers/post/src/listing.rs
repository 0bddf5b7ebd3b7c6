//! Which posts a request asks for, in order: later updates first, then by hash, or the other way round.
//!
//! The property with the fewest posts drives the listing; what it does not decide is decided on the records. Several values of a property are
//! several streams, merged.

use crate::state::{self, Property, Record};
use plugin_sdk::{
    View,
    layout::{self, bounded},
};
use std::{cmp::Ordering, collections::VecDeque};

/// Rows read at a time.
const PAGE: u32 = 200;

/// What is asked for. Empty lists do not restrict.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) hashes: Vec<String>,
    /// Values by property, as they stand in keys.
    properties: Vec<(Property, Vec<String>)>,
    /// Last update, seconds, from this on.
    pub(crate) start: Option<f64>,
    /// Last update, seconds, before this.
    pub(crate) end: Option<f64>,
}

impl Filter {
    /// Adds values of a property; none do not restrict.
    pub(crate) fn restrict(&mut self, property: Property, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let mut values: Vec<String> = values.iter().map(|value| bounded(value).into_owned()).collect();
        values.sort_unstable();
        values.dedup();
        self.properties.push((property, values));
    }

    pub(crate) fn matches(&self, record: &Record) -> bool {
        let matches = |(property, values): &(Property, Vec<String>)| {
            let has = |value: &String| values.contains(value);
            match property {
                Property::All => true,
                Property::Owner => has(&record.owner),
                Property::Kind => has(&record.kind),
                Property::Reference => record.reference.as_ref().is_some_and(has),
                Property::Channel => record.channel.as_ref().is_some_and(has),
                Property::Tag => record.tags().iter().any(has),
            }
        };
        self.properties.iter().all(matches)
            && self.start.is_none_or(|start| record.updated() >= start)
            && self.end.is_none_or(|end| record.updated() < end)
    }
}

/// Where a post stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) updated: f64,
    pub(crate) hash: String,
}

impl Place {
    /// The order of the rows: later ones first.
    fn compare(&self, other: &Self) -> Ordering {
        other.updated.total_cmp(&self.updated).then_with(|| self.hash.cmp(&other.hash))
    }
}

/// How a filter is answered.
pub(crate) struct Plan {
    property: Property,
    values: Vec<String>,
    /// Rows that it would walk over.
    size: u64,
    /// True when the rows decide everything.
    pub(crate) exact: bool,
}

impl Plan {
    pub(crate) fn of(filter: &Filter, view: &dyn View) -> Self {
        let size = |property: Property, values: &[String]| values.iter().map(|value| property.count(value, view)).sum();
        let all = (Property::All, vec![String::new()]);
        let candidates = if filter.properties.is_empty() { std::slice::from_ref(&all) } else { &filter.properties };
        let exact = candidates.len() == 1;
        let sized = candidates.iter().map(|(property, values)| (size(*property, values), property, values));
        let (size, property, values) = sized.min_by_key(|(size, ..)| *size).unwrap_or((0, &all.0, &all.1));
        Self { property: *property, values: values.clone(), size, exact }
    }

    /// How many posts there are, if that is known without walking.
    pub(crate) fn known_total(&self, filter: &Filter) -> Option<u64> {
        let dated = filter.start.is_some() || filter.end.is_some();
        // A post has one owner, but may have several tags.
        let disjoint = self.property != Property::Tag || self.values.len() == 1;
        (self.exact && !dated && disjoint).then_some(self.size)
    }

    pub(crate) fn walk<'a>(
        &self,
        filter: &Filter,
        descending: bool,
        after: Option<&Place>,
        view: &'a dyn View,
    ) -> Walk<'a> {
        let stream = |value: &String| Stream::new(self.property.prefix(value), filter, descending, after, view);
        Walk { streams: self.values.iter().map(stream).collect(), descending, last: None }
    }
}

/// The rows of one value.
struct Stream<'a> {
    view: &'a dyn View,
    prefix: Vec<u8>,
    descending: bool,
    /// Rows with `start <= key < end` are still to be read.
    start: Vec<u8>,
    end: Vec<u8>,
    done: bool,
    buffer: VecDeque<Place>,
}

impl<'a> Stream<'a> {
    fn new(prefix: Vec<u8>, filter: &Filter, descending: bool, after: Option<&Place>, view: &'a dyn View) -> Self {
        let moment = |time: f64| layout::end_of(&state::listed(&prefix, time, ""));
        // Later ones come first: what is before `end` begins after it, what is from `start` on ends with it.
        let mut start = filter.end.map_or_else(|| prefix.clone(), moment);
        let mut end = filter.start.map_or_else(|| layout::end_of(&prefix), moment);
        if let Some(after) = after {
            let mut row = state::listed(&prefix, after.updated, &after.hash);
            if descending {
                row.push(0);
                start = start.max(row);
            } else {
                end = end.min(row);
            }
        }
        Self { view, prefix, descending, start, end, done: false, buffer: VecDeque::new() }
    }

    fn peek(&mut self) -> Option<&Place> {
        while self.buffer.is_empty() && !self.done {
            let page = self.view.scan(&self.start, &self.end, PAGE, !self.descending);
            self.done = !page.more;
            if let Some((last, _)) = page.items.last() {
                if self.descending {
                    self.start.clone_from(last);
                    self.start.push(0);
                } else {
                    self.end.clone_from(last);
                }
            } else {
                self.done = true;
            }
            let place = |(key, _): &(Vec<u8>, Vec<u8>)| {
                state::read_listed(&self.prefix, key).map(|(updated, hash)| Place { updated, hash })
            };
            self.buffer.extend(page.items.iter().filter_map(place));
        }
        self.buffer.front()
    }
}

/// All rows in order, each post once.
pub(crate) struct Walk<'a> {
    streams: Vec<Stream<'a>>,
    descending: bool,
    last: Option<Place>,
}

impl Iterator for Walk<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        loop {
            let mut best: Option<(usize, Place)> = None;
            for (index, stream) in self.streams.iter_mut().enumerate() {
                let Some(place) = stream.peek() else { continue };
                let first = best.as_ref().is_none_or(|(_, other)| {
                    let ordering = if self.descending { place.compare(other) } else { other.compare(place) };
                    ordering == Ordering::Less
                });
                if first {
                    best = Some((index, place.clone()));
                }
            }
            let (index, place) = best?;
            self.streams[index].buffer.pop_front();
            if self.last.as_ref() != Some(&place) {
                self.last = Some(place.clone());
                return Some(place);
            }
        }
    }
}

/// The posts of some hashes, in order.
pub(crate) fn of_hashes(filter: &Filter, descending: bool, after: Option<&Place>, view: &dyn View) -> Vec<Place> {
    let found = filter.hashes.iter().filter_map(|hash| {
        let record = Record::find(hash, view).filter(|record| filter.matches(record))?;
        Some(Place { updated: record.updated(), hash: hash.clone() })
    });
    let compare = |a: &Place, b: &Place| if descending { a.compare(b) } else { b.compare(a) };
    let mut places: Vec<Place> =
        found.filter(|place| after.is_none_or(|after| compare(after, place) == Ordering::Less)).collect();
    places.sort_by(compare);
    places.dedup();
    places
}
