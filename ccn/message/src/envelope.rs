//! The envelope: the outer object that travels (messages spec section 1, ccn spec 1.1).

use crate::{
    Chain, FormatError, ItemHash,
    item_hash::{Engine, loose_engine},
    json::{Object, Value},
};

/// Most characters (code points) of inline content.
pub const MAX_INLINE_CHARS: usize = 200_000;
/// Last second of the year 9999: later times are milliseconds, or nonsense.
pub const MAX_TIME: f64 = 253_402_300_799.0;
/// Longest signature, bytes; the longest real ones have a few hundred.
const MAX_SIGNATURE_BYTES: usize = 16 * 1024;

/// Where the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemType {
    /// In the envelope.
    Inline,
    /// A file of the network's storage.
    Storage,
    /// A file of IPFS.
    Ipfs,
}

impl ItemType {
    const WORDS: [(&'static str, Self); 3] =
        [("inline", Self::Inline), ("storage", Self::Storage), ("ipfs", Self::Ipfs)];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Storage => "storage",
            Self::Ipfs => "ipfs",
        }
    }

    /// The item type of that word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == name).map(|(_, item_type)| *item_type)
    }
}

/// An envelope whose form is right. Nothing is said of its signature, nor of its content beyond its hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Who signed, spelled as it came.
    pub sender: String,
    /// How it was signed.
    pub chain: Chain,
    /// The message type, as it came: whether anybody knows it is a question to the plugins.
    pub kind: String,
    /// A word that applications use to find their messages. Not signed.
    pub channel: Option<String>,
    /// Seconds since 1970. Not signed.
    pub time: f64,
    /// Where the content is.
    pub item_type: ItemType,
    /// Inline content, byte for byte: the hash covers it.
    pub item_content: Option<String>,
    /// The identity of the message.
    pub item_hash: ItemHash,
    /// The signature as text; its form depends on the chain.
    pub signature: Option<String>,
}

impl Envelope {
    /// Reads an envelope from JSON. Fields that are not of an envelope are ignored.
    ///
    /// # Errors
    /// The first rule that it breaks: error code 0.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        Self::read(Object::parse(text)?)
    }

    /// The same from an object that is already cut.
    ///
    /// # Errors
    /// See [`Envelope::parse`].
    pub fn read(mut object: Object<'_>) -> Result<Self, FormatError> {
        let sender = object.required("sender", Value::string)?;
        let chain = object.required("chain", |value| {
            value.string()?.parse().map_err(|error: crate::chain::UnknownChain| FormatError::new("", error.to_string()))
        })?;
        let kind = object.required("type", Value::string)?;
        let channel = object.optional("channel", Value::string)?;
        let time = object.required("time", read_time)?;
        let item_content = object.optional("item_content", Value::string)?;
        let item_hash_text = object.required("item_hash", Value::string)?;
        let item_type = match object.optional("item_type", |value| value.one_of(&ItemType::WORDS))? {
            Some(item_type) => item_type,
            None if item_content.is_some() => ItemType::Inline,
            None => match loose_engine(&item_hash_text) {
                Some(Engine::Storage) => ItemType::Storage,
                Some(Engine::Ipfs) => ItemType::Ipfs,
                None => {
                    return Err(FormatError::new("item_hash", "is neither a sha256 nor a CID"));
                }
            },
        };
        let item_hash =
            ItemHash::parse(&item_hash_text).map_err(|error| FormatError::new("item_hash", error.to_string()))?;
        let signature = object.optional("signature", read_signature)?.filter(|signature| !signature.is_empty());
        let envelope = Self { sender, chain, kind, channel, time, item_type, item_content, item_hash, signature };
        envelope.check_content()?;
        Ok(envelope)
    }

    /// What is signed: chain, sender, type and hash, a line each.
    #[must_use]
    pub fn verification_buffer(&self) -> String {
        format!("{}\n{}\n{}\n{}", self.chain, self.sender, self.kind, self.item_hash)
    }

    fn check_content(&self) -> Result<(), FormatError> {
        let shape = self.item_hash.engine();
        match (self.item_type, &self.item_content) {
            (ItemType::Inline, Some(content)) => {
                if content.chars().count() > MAX_INLINE_CHARS {
                    return Err(FormatError::new(
                        "item_content",
                        format!(
                            "at most {MAX_INLINE_CHARS} characters are allowed inline; upload the content and refer to it"
                        ),
                    ));
                }
                let computed = ItemHash::sha256_of(content.as_bytes());
                if computed != self.item_hash {
                    return Err(FormatError::new(
                        "item_hash",
                        format!("does not match the content, whose sha256 is {computed}"),
                    ));
                }
                Ok(())
            }
            (ItemType::Inline, None) => Err(FormatError::new("item_content", "is required for inline content")),
            (ItemType::Storage | ItemType::Ipfs, Some(_)) => {
                Err(FormatError::new("item_content", "is only allowed for inline content"))
            }
            (ItemType::Storage, None) if shape == Engine::Storage => Ok(()),
            (ItemType::Ipfs, None) if shape == Engine::Ipfs => Ok(()),
            (ItemType::Storage, None) => {
                Err(FormatError::new("item_hash", "is not a sha256, as item type storage needs"))
            }
            (ItemType::Ipfs, None) => Err(FormatError::new("item_hash", "is not a CID, as item type ipfs needs")),
        }
    }
}

fn read_time(value: Value<'_>) -> Result<f64, FormatError> {
    let time = match value.text() {
        // Coerced by the network's own schema.
        "true" | "false" => value.float()?,
        _ => value.strict_float()?,
    };
    if time.abs() > MAX_TIME {
        return Err(FormatError::new("", "is not in seconds since 1970"));
    }
    Ok(time)
}

/// A signature is a text; some clients send the object that it should hold.
fn read_signature(value: Value<'_>) -> Result<String, FormatError> {
    if value.text().len() > MAX_SIGNATURE_BYTES {
        return Err(FormatError::new("", format!("at most {MAX_SIGNATURE_BYTES} bytes are allowed")));
    }
    if value.is_object() {
        return Ok(value.text().to_owned());
    }
    value.string()
}

/// What every content says of itself (messages spec section 3).
#[derive(Debug, Clone, PartialEq)]
pub struct ContentHeader {
    /// The owner.
    pub address: String,
    /// Seconds since 1970, covered by the hash.
    pub time: f64,
}

/// Latest content time, seconds.
pub const MAX_CONTENT_TIME: f64 = 9_223_372_036.0;

impl ContentHeader {
    /// Reads the two fields of a content object.
    ///
    /// # Errors
    /// It is not an object, or one of the fields is missing or wrong.
    pub fn parse(content: &str) -> Result<Self, FormatError> {
        let mut object = Object::parse(content)?;
        Self::read(&mut object)
    }

    /// Takes the two fields out of a content object.
    ///
    /// # Errors
    /// See [`ContentHeader::parse`].
    pub fn read(object: &mut Object<'_>) -> Result<Self, FormatError> {
        let address = object.required("address", Value::string)?;
        let time = object.required("time", Value::float)?;
        if !(0.0..=MAX_CONTENT_TIME).contains(&time) {
            return Err(FormatError::new("time", format!("{time} is not between 0 and {MAX_CONTENT_TIME}")));
        }
        Ok(Self { address, time })
    }

    /// The content of a message that was fetched, with the owner and time that it lacks taken from the envelope (ccn spec 1.1).
    ///
    /// # Errors
    /// It is not an object of the network's dialect.
    pub fn complete(content: &str, envelope: &Envelope) -> Result<String, FormatError> {
        let mut object = Object::parse(content)?;
        let mut added = String::new();
        if object.take_raw("address").is_none() {
            let address = serde_json::to_string(&envelope.sender).unwrap_or_default();
            added.push_str(&format!(",\"address\":{address}"));
        }
        if object.take_raw("time").is_none() {
            added.push_str(&format!(",\"time\":{}", serde_json::to_string(&envelope.time).unwrap_or_default()));
        }
        if added.is_empty() {
            return Ok(content.to_owned());
        }
        let body = content.trim_end().strip_suffix('}').unwrap_or(content);
        let is_empty = body.trim_start().trim_start_matches('{').trim().is_empty();
        let added = if is_empty { added.trim_start_matches(',') } else { &added };
        Ok(format!("{body}{added}}}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(changes: &[(&str, &str)]) -> String {
        let content = r#"{\"address\":\"0xA\",\"time\":1}"#;
        let hash = ItemHash::sha256_of(content.replace('\\', "").as_bytes());
        let mut fields = vec![
            ("sender".to_owned(), "\"0xA\"".to_owned()),
            ("chain".to_owned(), "\"ETH\"".to_owned()),
            ("type".to_owned(), "\"POST\"".to_owned()),
            ("time".to_owned(), "1788220801.5".to_owned()),
            ("item_type".to_owned(), "\"inline\"".to_owned()),
            ("item_content".to_owned(), format!("\"{content}\"")),
            ("item_hash".to_owned(), format!("\"{hash}\"")),
            ("signature".to_owned(), "\"0x00\"".to_owned()),
        ];
        for (name, value) in changes {
            fields.retain(|(field, _)| field != name);
            if !value.is_empty() {
                fields.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        let body: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", body.join(","))
    }

    fn check(changes: &[(&str, &str)], expect: Result<ItemType, &str>) {
        match (Envelope::parse(&text(changes)), expect) {
            (Ok(envelope), Ok(item_type)) => {
                assert_eq!(envelope.item_type, item_type, "{changes:?}")
            }
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{changes:?}: {error}")
            }
            (result, expect) => panic!("{changes:?}: {result:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn envelopes_are_held_against_the_rules() {
        const CID: &str = "\"QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o\"";
        check(&[], Ok(ItemType::Inline));
        check(&[("item_type", "")], Ok(ItemType::Inline));
        check(&[("item_type", ""), ("item_content", "")], Ok(ItemType::Storage));
        check(&[("item_type", ""), ("item_content", ""), ("item_hash", CID)], Ok(ItemType::Ipfs));
        check(&[("item_type", "null"), ("item_content", "null")], Ok(ItemType::Storage));
        check(
            &[("item_type", "\"storage\""), ("item_content", ""), ("item_hash", CID)],
            Err("item_hash: is not a sha256"),
        );
        check(&[("item_type", "\"storage\"")], Err("item_content: is only allowed"));
        check(&[("item_content", "")], Err("item_content: is required"));
        check(&[("item_type", "\"INLINE\"")], Err("item_type: `INLINE` is none of"));
        check(&[("item_content", "\"{}\"")], Err("item_hash: does not match"));
        check(&[("chain", "\"eth\"")], Err("chain: `eth` is not a chain"));
        check(&[("sender", "")], Err("sender: is required"));
        check(&[("time", "\"1\"")], Err("time: a number was expected"));
        check(&[("time", "1788220801000")], Err("time: is not in seconds"));
        check(&[("time", "-5")], Ok(ItemType::Inline));
        check(&[("time", "true")], Ok(ItemType::Inline));
        check(&[("channel", "5")], Err("channel: a string"));
        check(&[("content", "{\"address\":\"0xB\"}"), ("size", "7"), ("_id", "{}")], Ok(ItemType::Inline));
    }

    #[test]
    fn missing_signatures_are_none_and_objects_become_text() {
        let signature = |value| Envelope::parse(&text(&[("signature", value)])).expect("an envelope").signature;
        assert_eq!(signature(""), None);
        assert_eq!(signature("null"), None);
        assert_eq!(signature("\"\""), None);
        assert_eq!(
            signature(r#"{"publicKey":"a","signature":"b"}"#).as_deref(),
            Some(r#"{"publicKey":"a","signature":"b"}"#)
        );
        assert!(Envelope::parse(&text(&[("signature", "5")])).is_err());
    }

    #[test]
    fn the_limit_of_inline_content_counts_code_points() {
        let envelope = |letters: usize| {
            let content = format!("{{\"a\":\"{}\"}}", "é".repeat(letters - 8));
            let hash = ItemHash::sha256_of(content.as_bytes());
            let quoted = serde_json::to_string(&content).expect("a string");
            Envelope::parse(&text(&[("item_content", &quoted), ("item_hash", &format!("\"{hash}\""))]))
        };
        assert!(envelope(MAX_INLINE_CHARS).is_ok());
        assert!(envelope(MAX_INLINE_CHARS + 1).is_err());
    }

    #[test]
    fn fetched_content_is_completed() {
        let envelope = Envelope::parse(&text(&[])).expect("an envelope");
        let complete = |content: &str| ContentHeader::complete(content, &envelope).expect("content");
        assert_eq!(complete(r#"{"address":"0xB","time":2}"#), r#"{"address":"0xB","time":2}"#);
        assert_eq!(complete(r#"{"x":1} "#), r#"{"x":1,"address":"0xA","time":1788220801.5}"#);
        assert_eq!(complete("{ }"), r#"{ "address":"0xA","time":1788220801.5}"#);
        assert_eq!(complete(r#"{"time":3}"#), r#"{"time":3,"address":"0xA"}"#);
        for content in [complete("{}"), complete(r#"{"a":{}}"#)] {
            assert_eq!(ContentHeader::parse(&content).expect("a header").address, "0xA");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_no_harm(text in ".{0,300}") {
            let _ = Envelope::parse(&text);
            let _ = ContentHeader::parse(&text);
        }
    }
}
