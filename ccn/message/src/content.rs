//! Contents: what the network's own message types say (messages spec sections 5 and 6).
//!
//! Each is read by hand from raw JSON: closed objects refuse unknown fields, open ones ignore them, numbers and booleans are as lenient as the
//! network is, free JSON stays raw text.

pub mod aggregate;
pub mod forget;
pub mod instance;
pub mod machine;
mod pattern;
pub mod payment;
pub mod post;
pub mod program;
pub mod store;
pub mod trusted;
pub mod volume;
pub mod vprogram;

use crate::json::{FormatError, Value};

/// Most tags of a message.
pub const MAX_TAGS: usize = 16;
/// Longest tag, characters; the shortest has one.
pub const MAX_TAG_CHARS: usize = 256;

/// Reads a list of tags.
///
/// # Errors
/// Not a list of 1 to 256 characters each, 16 at most.
pub fn read_tags(value: Value<'_>) -> Result<Vec<String>, FormatError> {
    value.list_of(MAX_TAGS, |tag| {
        let tag = tag.string_up_to(MAX_TAG_CHARS)?;
        if tag.is_empty() {
            return Err(FormatError::new("", "a tag has at least one character"));
        }
        Ok(tag)
    })
}

/// The tags inside free JSON: the member `tags` of an object, if it is there and not null.
///
/// # Errors
/// It is there and is not a list of tags.
pub fn nested_tags(value: Value<'_>) -> Result<Vec<String>, FormatError> {
    if !value.is_object() {
        return Ok(Vec::new());
    }
    Ok(value.object()?.optional("tags", read_tags)?.unwrap_or_default())
}
