//! Tables of the namespace `post`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `p` posts | hash of the original | [`Record`] |
//! | `a` amends | original, time, hash | its tags |
//! | `i` listing | property, value, time of the last update (later ones first), hash of the original | nothing |
//! | `n` how many there are | property, value | number |
//! | `m` measurements of nodes | kind of node, node, time, hash of the post | a number or null for each column |
//!
//! An amended post is listed once, where its newest amend puts it. All amends stay known, whether their original stands or not: one that goes
//! uncovers the one before, and an original that comes finds those that were there.

use plugin_sdk::{
    View, Write,
    layout::{Key, Moment, bounded, delete, end_of, put},
};
use serde::{Deserialize, Serialize};

const POST: u8 = b'p';
const AMEND: u8 = b'a';
const LISTED: u8 = b'i';
const COUNT: u8 = b'n';
pub(crate) const MEASUREMENT: u8 = b'm';

/// A property that posts are listed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property {
    /// Every post; the value is empty.
    All,
    Owner,
    Kind,
    Reference,
    Channel,
    /// Of the newest amend, as its content.
    Tag,
}

impl Property {
    fn letter(self) -> u8 {
        match self {
            Self::All => b'*',
            Self::Owner => b'o',
            Self::Kind => b'k',
            Self::Reference => b'r',
            Self::Channel => b'c',
            Self::Tag => b't',
        }
    }

    /// Prefix of the listing of a value.
    pub(crate) fn prefix(self, value: &str) -> Vec<u8> {
        let mut key = vec![LISTED, self.letter()];
        key.extend(Key::of(0).text(value).done().split_off(1));
        key
    }

    fn count_key(self, value: &str) -> Vec<u8> {
        let mut key = vec![COUNT, self.letter()];
        key.extend_from_slice(bounded(value).as_bytes());
        key
    }

    /// How many posts have a value.
    pub(crate) fn count(self, value: &str, view: &dyn View) -> u64 {
        view.get(&self.count_key(value)).and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes)
    }
}

/// A row's place after the prefix of a listing: its time and hash.
pub(crate) fn listed(prefix: &[u8], time: f64, hash: &str) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend(Key::of(0).time_descending(time).last(hash).split_off(1));
    key
}

/// Reads time and hash back.
pub(crate) fn read_listed(prefix: &[u8], key: &[u8]) -> Option<(f64, String)> {
    let (time, hash) = key.strip_prefix(prefix)?.split_first_chunk::<8>()?;
    let time = f64::from_bits(u64::from_be_bytes(time.map(|byte| !byte)));
    Some((time, std::str::from_utf8(hash).ok()?.to_owned()))
}

/// What is known of a post. Texts are as they stand in keys: long ones as their digests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(rename = "o")]
    pub(crate) owner: String,
    #[serde(rename = "k")]
    pub(crate) kind: String,
    #[serde(rename = "r")]
    pub(crate) reference: Option<String>,
    #[serde(rename = "c")]
    pub(crate) channel: Option<String>,
    /// Of the original, as its own content.
    #[serde(rename = "t")]
    own_tags: Vec<String>,
    /// Content time of the original, as bits: they survive every format.
    #[serde(rename = "b")]
    created: u64,
    /// The newest amend, if there is one.
    #[serde(rename = "a")]
    amend: Option<Amend>,
}

/// What is shown of an amend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Amend {
    #[serde(rename = "h")]
    hash: String,
    /// Its content time, as bits.
    #[serde(rename = "b")]
    time: u64,
    #[serde(rename = "t")]
    tags: Vec<String>,
}

impl Record {
    /// A post that nobody has amended.
    pub(crate) fn new(owner: &str, kind: &str, tags: Vec<String>, time: f64) -> Self {
        Self {
            owner: bounded(owner).into_owned(),
            kind: bounded(kind).into_owned(),
            reference: None,
            channel: None,
            own_tags: bounded_tags(tags),
            created: time.to_bits(),
            amend: None,
        }
    }

    pub(crate) fn created(&self) -> f64 {
        f64::from_bits(self.created)
    }

    pub(crate) fn updated(&self) -> f64 {
        self.amend.as_ref().map_or(self.created(), |amend| f64::from_bits(amend.time))
    }

    /// The newest amend, if there is one.
    pub(crate) fn amend(&self) -> Option<&String> {
        self.amend.as_ref().map(|amend| &amend.hash)
    }

    /// The tags of what is shown.
    pub(crate) fn tags(&self) -> &[String] {
        self.amend.as_ref().map_or(&self.own_tags, |amend| &amend.tags)
    }

    /// The same post as the newest of its amends shows it, `but` one that goes. An amend that is not newer than the original changes nothing.
    pub(crate) fn newest(mut self, hash: &str, but: Option<&Moment>, view: &dyn View) -> Self {
        let prefix = amends(hash).done();
        let rows = view.scan(&prefix, &end_of(&prefix), 2, true).items;
        let moments = rows.iter().filter_map(|(key, tags)| Some((Moment::of_key(&prefix, key)?, tags)));
        self.amend = None;
        for (moment, tags) in moments.filter(|(moment, _)| but != Some(moment)).take(1) {
            self = self.amended(&moment, serde_json::from_slice(tags).unwrap_or_default());
        }
        self
    }

    /// The same post with an amend more.
    pub(crate) fn amended(mut self, moment: &Moment, tags: Vec<String>) -> Self {
        let shown = self.amend.as_ref().map(|amend| Moment { time: self.updated(), item_hash: amend.hash.clone() });
        if moment.time > self.created() && shown.is_none_or(|shown| shown < *moment) {
            self.amend = Some(Amend { hash: moment.item_hash.clone(), time: moment.time.to_bits(), tags });
        }
        self
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(crate) fn find(hash: &str, view: &dyn View) -> Option<Self> {
        Self::read(&view.get(&post(hash))?)
    }

    /// The values by which it is listed.
    fn properties(&self) -> Vec<(Property, &str)> {
        let mut properties = vec![(Property::All, ""), (Property::Owner, &self.owner), (Property::Kind, &self.kind)];
        properties.extend(self.reference.iter().map(|value| (Property::Reference, value.as_str())));
        properties.extend(self.channel.iter().map(|value| (Property::Channel, value.as_str())));
        properties.extend(self.tags().iter().map(|value| (Property::Tag, value.as_str())));
        properties
    }
}

/// Tags as they stand in keys, each once.
pub(crate) fn bounded_tags(tags: Vec<String>) -> Vec<String> {
    let mut tags: Vec<String> = tags.iter().map(|tag| bounded(tag).into_owned()).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

fn post(hash: &str) -> Vec<u8> {
    Key::of(POST).last(hash)
}

/// Prefix of the amends of a post; their moments follow.
fn amends(original: &str) -> Key {
    Key::of(AMEND).text(original)
}

/// Key of the row that says that an amend changes a post.
pub(crate) fn amend(original: &str, moment: &Moment) -> Vec<u8> {
    amends(original).moment(moment)
}

/// That row.
pub(crate) fn put_amend(original: &str, moment: &Moment, tags: &[String]) -> Write {
    put(amend(original, moment), serde_json::to_vec(tags).unwrap_or_default())
}

/// What changes when a post comes, goes or becomes another: its record, where it is listed, and how many there are of a value.
pub(crate) fn change(hash: &str, before: Option<&Record>, after: Option<&Record>, view: &dyn View) -> Vec<Write> {
    if before == after {
        return Vec::new();
    }
    let record = after.map(|after| serde_json::to_vec(after).unwrap_or_default());
    let mut writes = vec![Write { key: post(hash), value: record }];
    let old = before.map(Record::properties).unwrap_or_default();
    let new = after.map(Record::properties).unwrap_or_default();
    let places = |record: Option<&Record>, properties: &[(Property, &str)]| -> Vec<Vec<u8>> {
        let updated = record.map(Record::updated).unwrap_or_default();
        properties.iter().map(|(property, value)| listed(&property.prefix(value), updated, hash)).collect()
    };
    let (gone, here) = (places(before, &old), places(after, &new));
    writes.extend(gone.iter().filter(|row| !here.contains(row)).cloned().map(delete));
    writes.extend(here.iter().filter(|row| !gone.contains(row)).cloned().map(|row| put(row, Vec::new())));
    let mut count = |(property, value): &(Property, &str), difference: i64| {
        let number = property.count(value, view).saturating_add_signed(difference);
        let value_or_none = (number > 0).then(|| number.to_be_bytes().to_vec());
        writes.push(Write { key: property.count_key(value), value: value_or_none });
    };
    old.iter().filter(|each| !new.contains(each)).for_each(|each| count(each, -1));
    new.iter().filter(|each| !old.contains(each)).for_each(|each| count(each, 1));
    writes
}
