//! What a handler may look at: the node's view in a plugin, a table filled by hand in tests.

use crate::{Fate, FileInfo, ItemHash, Page, StoredMessage, bindings::aleph::plugin::view as host};
use std::collections::BTreeMap;

/// Read-only facts and state; `plugins/wit/handler.wit` describes each function.
pub trait View {
    /// A key of the own namespace.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Keys of the own namespace in `start <= key < end`.
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page;
    /// A key of another namespace, if it is granted.
    fn get_in(&self, namespace: &str, key: &[u8]) -> Option<Vec<u8>>;
    /// Keys of another namespace, if it is granted.
    fn scan_in(&self, namespace: &str, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page;
    /// A message that stands, as of the position of the one that asks.
    fn message(&self, hash: &str) -> Option<StoredMessage>;
    /// What became of a message, as of the position of the one that asks.
    fn fate_of(&self, hash: &str) -> Fate;
    /// True when an earlier message that stands uses it.
    fn in_use(&self, hash: &str) -> bool;
    /// A file that is here.
    fn file(&self, hash: &str) -> Option<FileInfo>;
    /// A parameter of the network.
    fn setting(&self, name: &str) -> Option<String>;
}

/// The node's view, inside a plugin.
#[derive(Debug, Clone, Copy)]
pub struct HostView;

impl View for HostView {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        host::get(key)
    }
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        host::scan(start, end, limit, reverse)
    }
    fn get_in(&self, namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
        host::get_in(namespace, key)
    }
    fn scan_in(&self, namespace: &str, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        host::scan_in(namespace, start, end, limit, reverse)
    }
    fn message(&self, hash: &str) -> Option<StoredMessage> {
        host::message(hash)
    }
    fn fate_of(&self, hash: &str) -> Fate {
        host::fate_of(hash)
    }
    fn in_use(&self, hash: &str) -> bool {
        host::in_use(hash)
    }
    fn file(&self, hash: &str) -> Option<FileInfo> {
        host::file(hash)
    }
    fn setting(&self, name: &str) -> Option<String> {
        host::setting(name)
    }
}

/// Keys of one page, as much as the node gives at a time.
const PAGE: u32 = 1000;

/// Every row of a namespace (none: the own one) whose key starts with `prefix`, in key order. Ask it only where the number is small by nature.
pub fn scan_all(view: &dyn View, namespace: Option<&str>, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let end = crate::layout::end_of(prefix);
    let mut start = prefix.to_vec();
    let mut rows = Vec::new();
    loop {
        let page = match namespace {
            Some(namespace) => view.scan_in(namespace, &start, &end, PAGE, false),
            None => view.scan(&start, &end, PAGE, false),
        };
        if let Some((last, _)) = page.items.last() {
            start.clone_from(last);
            start.push(0);
        }
        let done = !page.more;
        rows.extend(page.items);
        if done {
            return rows;
        }
    }
}

/// A view that a test fills by hand. Applying effects to it makes it a node of one plugin.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryView {
    /// The namespace that [`View::get`] and [`View::scan`] read.
    pub own: String,
    /// State by namespace and key.
    pub state: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    /// Processed messages.
    pub messages: BTreeMap<ItemHash, StoredMessage>,
    /// Files that are here, with their sizes.
    pub files: BTreeMap<ItemHash, FileInfo>,
    /// Parameters of the network.
    pub settings: BTreeMap<String, String>,
}

impl MemoryView {
    /// An empty view of a namespace.
    #[must_use]
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    /// Applies what an accepted message writes.
    pub fn apply(&mut self, effects: &crate::Effects) {
        self.write(&effects.writes);
    }

    /// Changes the own namespace.
    pub fn write(&mut self, writes: &[crate::Write]) {
        for write in writes {
            let key = (self.own.clone(), write.key.clone());
            match &write.value {
                Some(value) => self.state.insert(key, value.clone()),
                None => self.state.remove(&key),
            };
        }
    }

    fn page(&self, namespace: &str, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> Page {
        let limit = limit.min(PAGE) as usize;
        let inside =
            |key: &(String, Vec<u8>)| key.0 == namespace && key.1.as_slice() >= start && key.1.as_slice() < end;
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = self
            .state
            .iter()
            .filter(|(key, _)| inside(key))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        if reverse {
            rows.reverse();
        }
        let more = rows.len() > limit;
        rows.truncate(limit);
        Page { items: rows, more }
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
        self.messages.get(hash).cloned()
    }
    fn fate_of(&self, hash: &str) -> Fate {
        if self.messages.contains_key(hash) { Fate::Standing } else { Fate::Unknown }
    }
    fn in_use(&self, _hash: &str) -> bool {
        false
    }
    fn file(&self, hash: &str) -> Option<FileInfo> {
        self.files.get(hash).copied()
    }
    fn setting(&self, name: &str) -> Option<String> {
        self.settings.get(name).cloned()
    }
}
