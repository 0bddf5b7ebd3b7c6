//! FORGET (messages spec section 5): closed.

use crate::{
    ItemHash,
    envelope::ContentHeader,
    json::{FormatError, Object, Value},
};

/// Most messages, and most aggregates, of a FORGET.
pub const MAX_TARGETS: usize = 1000;
/// Longest reason, characters.
const MAX_REASON_CHARS: usize = 1000;

/// What a FORGET says. Both lists may be empty: that is not for the schema to judge.
#[derive(Debug, Clone)]
pub struct ForgetContent {
    /// Owner and time. Whose messages are meant is not said here.
    pub header: ContentHeader,
    /// Messages.
    pub hashes: Vec<ItemHash>,
    /// Keys of aggregates of the owner; only those that look like an item hash can be named.
    pub aggregates: Vec<ItemHash>,
    /// Why, in the owner's words.
    pub reason: Option<String>,
}

impl ForgetContent {
    /// Reads a content object.
    ///
    /// # Errors
    /// It is not that of a FORGET.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        let header = ContentHeader::read(&mut object)?;
        let read_hashes = |value: Value<'_>| value.list_of(MAX_TARGETS, Value::item_hash);
        let hashes = object.required("hashes", read_hashes)?;
        let aggregates = object.defaulted("aggregates", read_hashes)?.unwrap_or_default();
        let reason = object.optional("reason", |value| value.string_up_to(MAX_REASON_CHARS))?;
        object.close()?;
        Ok(Self { header, hashes, aggregates, reason })
    }
}
