//! POST (messages spec section 5): closed.

use super::nested_tags;
use crate::{
    ItemHash,
    envelope::ContentHeader,
    json::{FormatError, Object, Value},
};

/// The type of posts that change an earlier one.
pub const AMEND: &str = "amend";

/// What a POST says. `content` is free JSON.
#[derive(Debug, Clone)]
pub struct PostContent<'a> {
    /// Owner and time.
    pub header: ContentHeader,
    /// What kind of post it is; `amend` is special.
    pub kind: String,
    /// The post itself.
    pub content: Option<Value<'a>>,
    /// Free text, or the hash of the amended post.
    pub reference: Option<String>,
    /// Tags inside `content`.
    pub tags: Vec<String>,
}

impl<'a> PostContent<'a> {
    /// Reads a content object.
    ///
    /// # Errors
    /// It is not that of a POST.
    pub fn parse(text: &'a str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        let header = ContentHeader::read(&mut object)?;
        let kind = object.required("type", Value::string)?;
        let content = object.take("content");
        let tags = content.map(nested_tags).transpose().map_err(|error| error.within("content"))?.unwrap_or_default();
        let reference = object.optional("ref", read_reference)?;
        if kind == AMEND && reference.as_ref().is_none_or(String::is_empty) {
            return Err(FormatError::new("ref", "an amend names the post that it changes"));
        }
        object.close()?;
        Ok(Self { header, kind, content, reference, tags })
    }
}

/// A text, or the header of a message (a legacy form), which stands for its hash.
fn read_reference(value: Value<'_>) -> Result<String, FormatError> {
    if !value.is_object() {
        return value.string();
    }
    let mut object = value.object()?;
    let item_hash: ItemHash = object.required("item_hash", Value::item_hash)?;
    for field in ["chain", "item_type", "sender", "signature"] {
        object.required(field, Value::string)?;
    }
    object.required("type", |value| value.one_of(&[("POST", ())]))?;
    object.required("time", Value::float)?;
    object.optional("channel", Value::string)?;
    object.optional("item_content", Value::string)?;
    object.close()?;
    Ok(item_hash.to_string())
}
