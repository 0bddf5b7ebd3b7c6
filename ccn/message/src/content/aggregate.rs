//! AGGREGATE (messages spec section 5): closed.

use super::nested_tags;
use crate::{
    envelope::ContentHeader,
    json::{FormatError, Object, Value},
};

/// What an AGGREGATE says: new values for some subkeys of one key.
#[derive(Debug, Clone)]
pub struct AggregateContent<'a> {
    /// Owner and time.
    pub header: ContentHeader,
    /// Which aggregate of the owner.
    pub key: String,
    /// Subkeys and their new values, free JSON each.
    pub content: Object<'a>,
    /// Tags inside the content.
    pub tags: Vec<String>,
}

impl<'a> AggregateContent<'a> {
    /// Reads a content object.
    ///
    /// # Errors
    /// It is not that of an AGGREGATE.
    pub fn parse(text: &'a str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        let header = ContentHeader::read(&mut object)?;
        let key = object.required("key", read_key)?;
        let value = object.require("content")?;
        let content = value.object().map_err(|error| error.within("content"))?;
        let tags = nested_tags(value).map_err(|error| error.within("content"))?;
        object.close()?;
        Ok(Self { header, key, content, tags })
    }
}

/// A text, or `{"name": text}`, a legacy form.
fn read_key(value: Value<'_>) -> Result<String, FormatError> {
    if !value.is_object() {
        return value.string();
    }
    let mut object = value.object()?;
    let name = object.required("name", Value::string)?;
    object.close()?;
    Ok(name)
}
