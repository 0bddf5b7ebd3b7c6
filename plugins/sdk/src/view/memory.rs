//! A view that tests fill by hand.

use super::{PAGE, View};
use crate::{Effects, Fate, FileInfo, ItemHash, Page, StoredMessage, Write, layout::Moment};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// A view that a test fills by hand. Applying effects to it makes it a node of one plugin; [`crate::simulation`] makes it a node of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryView {
    /// The namespace that [`View::get`] and [`View::scan`] read.
    pub own: String,
    /// When the message that asks was made, at least: its own time, or that of the latest message that it names. None for a query, which sees what
    /// stands.
    pub at: Option<Moment>,
    /// State by namespace and key.
    pub state: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    /// Messages that stand.
    pub messages: BTreeMap<ItemHash, StoredMessage>,
    /// Messages that were forgotten, and the positions of those that forget them.
    pub forgotten: BTreeMap<ItemHash, (StoredMessage, BTreeSet<Position>)>,
    /// Messages that are used, and by whom.
    pub uses: BTreeMap<ItemHash, Vec<Use>>,
    /// Files that are here, with their sizes.
    pub files: BTreeMap<ItemHash, FileInfo>,
    /// Parameters of the network.
    pub settings: BTreeMap<String, String>,
}

/// A moment that can be put in order: the time as bits, which sort as times do because none is negative.
pub type Position = (u64, ItemHash);

/// That a message uses another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Who.
    pub by: Position,
    /// When it was forgotten, if it was.
    pub until: Option<Position>,
}

/// A moment as a position.
pub(crate) fn position(moment: &Moment) -> Position {
    (moment.time.max(0.0).to_bits(), moment.item_hash.clone())
}

impl MemoryView {
    /// An empty view of a namespace.
    #[must_use]
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    /// Applies what an accepted message writes.
    pub fn apply(&mut self, effects: &Effects) {
        self.write(&effects.writes);
    }

    /// Changes the own namespace.
    pub fn write(&mut self, writes: &[Write]) {
        self.write_in(&self.own.clone(), writes);
    }

    /// Changes a namespace.
    pub(crate) fn write_in(&mut self, namespace: &str, writes: &[Write]) {
        for write in writes {
            let key = (namespace.to_owned(), write.key.clone());
            match &write.value {
                Some(value) => self.state.insert(key, value.clone()),
                None => self.state.remove(&key),
            };
        }
    }

    /// A message as of a position.
    pub(crate) fn message_at(&self, hash: &str, at: Option<&Moment>) -> Option<&StoredMessage> {
        let kept = || self.messages.get(hash).or_else(|| self.forgotten.get(hash).map(|(stored, _)| stored));
        if self.fate_at(hash, at) == Fate::Standing { kept() } else { None }
    }

    /// What became of a message as of a position. Of one time, whoever forgets comes last.
    pub(crate) fn fate_at(&self, hash: &str, at: Option<&Moment>) -> Fate {
        if self.messages.contains_key(hash) {
            return Fate::Standing;
        }
        let Some((_, forgetters)) = self.forgotten.get(hash) else { return Fate::Unknown };
        let at = at.map(position);
        let earlier = |(at, _): Position| forgetters.first().is_some_and(|(first, _)| *first < at);
        if at.is_none_or(earlier) { Fate::Forgotten } else { Fate::Standing }
    }

    /// Whether a message is in use as of a position.
    pub(crate) fn in_use_at(&self, hash: &str, at: Option<&Moment>) -> bool {
        let at = at.map(position);
        let counts = |used: &Use| match &at {
            None => used.until.is_none(),
            Some((at, _)) => used.by.0 <= *at && used.until.as_ref().is_none_or(|(until, _)| until >= at),
        };
        self.uses.get(hash).is_some_and(|uses| uses.iter().any(counts))
    }

    /// A page of a namespace.
    pub(crate) fn page(&self, namespace: &str, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        if start >= end {
            return Page { items: Vec::new(), more: false };
        }
        let limit = limit.min(PAGE) as usize;
        let bound = |key: &[u8]| (namespace.to_owned(), key.to_vec());
        let range = self.state.range((Bound::Included(bound(start)), Bound::Excluded(bound(end))));
        let row = |((_, key), value): (&(String, Vec<u8>), &Vec<u8>)| (key.clone(), value.clone());
        let mut items: Vec<(Vec<u8>, Vec<u8>)> = match reverse {
            false => range.take(limit + 1).map(row).collect(),
            true => range.rev().take(limit + 1).map(row).collect(),
        };
        let more = items.len() > limit;
        items.truncate(limit);
        Page { items, more }
    }
}

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get_in(&self.own, key)
    }
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        self.page(&self.own, start, end, limit, reverse)
    }
    fn get_in(&self, namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.state.get(&(namespace.to_owned(), key.to_vec())).cloned()
    }
    fn scan_in(&self, namespace: &str, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        self.page(namespace, start, end, limit, reverse)
    }
    fn message(&self, hash: &str) -> Option<StoredMessage> {
        self.message_at(hash, self.at.as_ref()).cloned()
    }
    fn kind_of(&self, hash: &str) -> Option<String> {
        self.message_at(hash, self.at.as_ref()).map(|stored| stored.message.kind.clone())
    }
    fn fate_of(&self, hash: &str) -> Fate {
        self.fate_at(hash, self.at.as_ref())
    }
    fn in_use(&self, hash: &str) -> bool {
        self.in_use_at(hash, self.at.as_ref())
    }
    fn file(&self, hash: &str) -> Option<FileInfo> {
        self.files.get(hash).copied()
    }
    fn setting(&self, name: &str) -> Option<String> {
        self.settings.get(name).cloned()
    }
}
