//! What a POLL says. Closed: a field that is not known is an error.

use plugin_sdk::message::{
    ItemHash,
    json::{FormatError, Object, Value},
};

/// Longest question and longest option, characters.
const MAX_CHARS: usize = 200;
/// Most options of a poll.
pub(crate) const MAX_OPTIONS: usize = 50;

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Create { question: String, options: Vec<String> },
    Vote { poll: String, option: usize },
    Close { poll: String },
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Create,
    Vote,
    Close,
}

impl Content {
    pub(crate) fn parse(text: &str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        object.required("address", Value::string)?;
        object.required("time", Value::float)?;
        let actions = [("create", Action::Create), ("vote", Action::Vote), ("close", Action::Close)];
        let poll =
            |object: &mut Object<'_>| object.required("poll", Value::item_hash).map(|hash: ItemHash| hash.to_string());
        let content = match object.required("action", |value| value.one_of(&actions))? {
            Action::Create => Self::Create {
                question: object.required("question", |value| value.string_up_to(MAX_CHARS))?,
                options: object.required("options", options)?,
            },
            Action::Vote => {
                let most = MAX_OPTIONS as i64 - 1;
                let option = object.required("option", |value| value.integer(0..=most))?;
                Self::Vote { poll: poll(&mut object)?, option: usize::try_from(option).unwrap_or(MAX_OPTIONS) }
            }
            Action::Close => Self::Close { poll: poll(&mut object)? },
        };
        object.close()?;
        Ok(content)
    }
}

fn options(value: Value<'_>) -> Result<Vec<String>, FormatError> {
    let options = value.list_of(MAX_OPTIONS, |option| option.string_up_to(MAX_CHARS))?;
    if options.len() < 2 {
        return Err(FormatError::new("", "a poll has at least two options"));
    }
    Ok(options)
}
