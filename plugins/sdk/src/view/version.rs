//! What a test puts into a view where the messages of other types matter only as others see them.

use super::MemoryView;
use crate::{
    FileInfo, FileKind, Label, Message, StoredMessage,
    layout::{Moment, store},
    simulation::message,
};
use serde_json::json;

/// A version of a file, as a STORE message brings it.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// The hash of the message.
    pub item_hash: &'a str,
    /// The hash of the file.
    pub file: &'a str,
    /// Of the file, bytes.
    pub size: u64,
    /// When the message was made.
    pub time: f64,
    /// The message of the version that it is a newer one of, if it is.
    pub updates: Option<&'a str>,
}

/// A message as a node keeps it.
pub(crate) fn stored(message: Message, labels: Vec<Label>) -> StoredMessage {
    StoredMessage {
        size: message.content.len() as u64,
        message,
        signature: Some("0x".to_owned()),
        item_type: "inline".to_owned(),
        labels,
        confirmations: "[]".to_owned(),
    }
}

impl MemoryView {
    /// A message stands: nobody decides on it, and it has no effects.
    pub fn add_message(&mut self, message: Message) {
        self.messages.insert(message.item_hash.clone(), stored(message, Vec::new()));
    }

    /// A file is here, with the STORE message of `0xA` that brought it and what others read of that.
    ///
    /// # Panics
    /// The time is none.
    pub fn add_version(&mut self, version: Version<'_>) {
        let mut content =
            json!({"address": "0xA", "time": version.time, "item_type": "storage", "item_hash": version.file});
        if let Some(updated) = version.updates {
            content["ref"] = updated.into();
        }
        let stored = message("STORE", &content.to_string()).expect("a content with owner and time");
        let stored = Message { item_hash: version.item_hash.to_owned(), ..stored };
        let tag = version.updates.unwrap_or(version.item_hash);
        let row = store::versions(tag).moment(&Moment::of(&stored));
        self.state.insert((store::NAMESPACE.to_owned(), row), version.file.as_bytes().to_vec());
        // How many there are: nobody reads it, everybody sees that it changes.
        self.state.entry((store::NAMESPACE.to_owned(), store::tally(tag))).or_default().push(1);
        self.add_message(stored);
        self.files.insert(version.file.to_owned(), FileInfo { size: version.size, kind: FileKind::File });
    }
}
