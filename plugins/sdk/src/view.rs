//! What a handler may look at: the node's view in a plugin, a table filled by hand in tests.

pub(crate) mod memory;
pub(crate) mod version;

use crate::{Fate, FileInfo, Page, StoredMessage, bindings::aleph::plugin::view as host};
pub use memory::{MemoryView, Position, Use};
pub use version::Version;

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
    /// The type of that message: small, however long the message is.
    fn kind_of(&self, hash: &str) -> Option<String>;
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
    fn kind_of(&self, hash: &str) -> Option<String> {
        host::kind_of(hash)
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
