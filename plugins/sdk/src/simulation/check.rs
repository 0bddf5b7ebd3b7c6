//! What the contract demands of a plugin, held against each message. Failures are the plugin's, and end the test with a sentence.

use super::facts::{Plugin, Seen};
use crate::{Effects, MemoryView, Message, Outcome, Withdrawal, Write, layout::Moment};
use std::collections::BTreeMap;

/// Bounds of the contract, bytes.
const MAX_KEY_BYTES: usize = 512;
const MAX_VALUE_BYTES: usize = 1 << 20;

/// Keys and values are within bounds, and no key is written twice with different values.
pub(super) fn writes(message: &Message, writes: &[Write]) {
    let mut seen = BTreeMap::new();
    for write in writes {
        let (hash, key) = (&message.item_hash, String::from_utf8_lossy(&write.key));
        let (key_bytes, value_bytes) = (write.key.len(), write.value.as_ref().map_or(0, Vec::len));
        assert!(key_bytes <= MAX_KEY_BYTES, "{hash} writes a key of {key_bytes} bytes, more than {MAX_KEY_BYTES}");
        assert!(value_bytes <= MAX_VALUE_BYTES, "{hash} writes {value_bytes} bytes, more than {MAX_VALUE_BYTES}");
        let other = seen.insert(&write.key, &write.value);
        assert!(other.is_none_or(|other| *other == write.value), "{hash} writes two values at {key:?}");
    }
}

/// A function gives the same answer twice.
pub(super) fn same_twice(message: &Message, first: &Outcome, second: &Outcome) {
    assert_eq!(first, second, "`process` of {} says something else the second time", message.item_hash);
}

/// `withdraw` undoes what `process` adds: at once, and after the message was forgotten.
pub(super) fn round_trip(message: &Message, effects: &Effects, plugin: &Plugin, before: &MemoryView) {
    let at = Moment::of(message);
    // Messages are not needed for it: they are what they were.
    let mut after = before.clone();
    let namespace = plugin.namespace.as_str();
    let take_out = |view: &mut MemoryView, why: Withdrawal| {
        let taken = (plugin.withdraw)(message, why, &Seen::new(view, namespace, &at));
        writes(message, &taken);
        view.write_in(namespace, &taken);
    };
    after.write_in(namespace, &effects.writes);
    let added = after.clone();
    take_out(&mut after, Withdrawal::Void);
    same_state(message, "`withdraw(void)` after `process` leaves", before, &after);

    let mut after = added.clone();
    take_out(&mut after, Withdrawal::Forgotten);
    let hidden = after.clone();
    take_out(&mut after, Withdrawal::Void);
    same_state(message, "`withdraw(void)` after `withdraw(forgotten)` leaves", before, &after);

    let mut after = hidden;
    let outcome = (plugin.process)(message, &Seen::new(&after, namespace, &at));
    if let Outcome::Accepted(again) = outcome {
        after.write_in(namespace, &again.writes);
        same_state(message, "`process` after `withdraw(forgotten)` makes", &added, &after);
    }
}

fn same_state(message: &Message, what: &str, expected: &MemoryView, found: &MemoryView) {
    let show = |(namespace, key): &(String, Vec<u8>)| format!("{namespace}: {:?}", String::from_utf8_lossy(key));
    let differs =
        expected.state.keys().chain(found.state.keys()).find(|key| expected.state.get(key) != found.state.get(key));
    if let Some(key) = differs {
        panic!("{what} another state for {} {}: {}", message.kind, message.item_hash, show(key));
    }
}
