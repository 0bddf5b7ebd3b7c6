//! A message as clients read it. Python clients hold these objects against a closed model: no field may be added.

use super::{moment, reference::Shape};
use crate::store::{
    confirmation::Confirmation,
    record::{MessageRecord, PendingRecord},
};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use ccn_message::{Envelope, json::Object};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The names of the shapes of a message, and of what vouches for one.
pub(super) const NAME: &str = "Message";
pub(super) const CONFIRMATION: &str = "Confirmation";

/// The shape of a message.
pub(super) fn shape() -> Shape {
    let time = Shape::any_of([Shape::number(), Shape::moment()]);
    Shape::object([
        ("sender", Shape::text()),
        ("chain", Shape::text()),
        ("signature", Shape::text().or_null()),
        ("type", Shape::text()),
        ("channel", Shape::text().or_null()),
        ("time", time.about("Seconds since 1970; a moment where the message waits.")),
        ("item_type", Shape::words(&["inline", "storage", "ipfs"])),
        ("item_content", Shape::text().or_null()),
        ("item_hash", Shape::hash()),
        ("content", Shape::any_object().optional()),
        ("size", Shape::whole().optional()),
        ("confirmed", Shape::flag().optional()),
        ("confirmations", Shape::list(Shape::named(CONFIRMATION)).optional()),
        ("reception_time", Shape::moment().optional()),
    ])
}

/// The shape of a transaction that vouches for a message.
pub(super) fn confirmation() -> Shape {
    Shape::object([
        ("chain", Shape::text()),
        ("height", Shape::whole().about("Of the block.")),
        ("hash", Shape::text().about("Of the transaction.")),
        ("time", Shape::whole().about("Of the block, seconds since 1970.")),
        ("publisher", Shape::text()),
    ])
}

/// How much of the content is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentFormat {
    Full,
    /// The owner, and what the type's listings are about.
    Headers,
    None,
}

/// A message.
#[derive(Debug, Serialize)]
pub(super) struct Element {
    sender: String,
    chain: String,
    signature: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    channel: Option<String>,
    time: Time,
    item_type: &'static str,
    item_content: Option<String>,
    item_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmations: Option<Vec<Confirmation>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reception_time: Option<String>,
}

/// Seconds since 1970, or a text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Time {
    Seconds(f64),
    Text(String),
}

impl Element {
    fn new(envelope: Envelope, content: Option<Box<RawValue>>) -> Self {
        Self {
            sender: envelope.sender,
            chain: envelope.chain.name().to_owned(),
            signature: envelope.signature,
            kind: envelope.kind,
            channel: envelope.channel,
            time: Time::Seconds(envelope.time),
            item_type: envelope.item_type.name(),
            item_content: envelope.item_content,
            item_hash: envelope.item_hash.to_string(),
            content,
            size: None,
            confirmed: Some(false),
            confirmations: Some(Vec::new()),
            reception_time: None,
        }
    }

    /// A processed message by itself.
    pub(super) fn single(record: &MessageRecord) -> Option<Self> {
        let envelope = record.envelope.clone().envelope().ok()?;
        Some(Self::new(envelope, raw(record.content())))
    }

    /// A processed message of a list.
    pub(super) fn listed(record: &MessageRecord, format: ContentFormat) -> Option<Self> {
        let envelope = record.envelope.clone().envelope().ok()?;
        let content = match format {
            ContentFormat::Full => raw(record.content()),
            ContentFormat::Headers => headers(&envelope.kind, record.content()),
            ContentFormat::None => None,
        };
        Some(Self { size: Some(record.size), ..Self::new(envelope, content) })
    }

    /// With the transactions that vouch for it.
    pub(super) fn confirmed_by(self, confirmations: Vec<Confirmation>) -> Self {
        Self { confirmed: Some(!confirmations.is_empty()), confirmations: Some(confirmations), ..self }
    }

    /// A message that waits, as if it were processed.
    pub(super) fn waiting(record: &PendingRecord) -> Option<Self> {
        let envelope = record.envelope.clone().envelope().ok()?;
        let inline = envelope.item_content.as_deref().and_then(raw);
        let content = inline.or_else(|| stand_in(&envelope.sender, envelope.time));
        Some(Self::new(envelope, content))
    }

    /// A message that waits, as the list of its copies has it: moments are texts.
    pub(super) fn pending(record: &PendingRecord) -> Option<Self> {
        let element = Self::waiting(record)?;
        let time = Time::Text(moment::iso_seconds(record.envelope.time));
        let reception_time = Some(moment::iso(record.reception_time));
        Some(Self { time, reception_time, confirmed: None, confirmations: None, ..element })
    }
}

/// What stands for a content that is not here: the fields that every content has, of the envelope. Clients read no message without any.
fn stand_in(sender: &str, time: f64) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(&serde_json::json!({"address": sender, "time": time})).ok()
}

/// A refused message, JSON text, with its content beside it as that of every other: what is inline, if it is an object, else what stands for it.
pub(super) fn with_content(message: &str) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Head {
        sender: String,
        time: f64,
        item_content: Option<String>,
    }
    let Head { sender, time, item_content } = serde_json::from_str(message).ok()?;
    let is_object = |text: &String| Object::parse(text).is_ok();
    let content = item_content.filter(is_object).and_then(|text| raw(&text)).or_else(|| stand_in(&sender, time))?;
    let text = message.trim_end().strip_suffix('}')?;
    raw(&format!("{text},\"content\":{content}}}"))
}

/// JSON text as it is.
pub(super) fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

/// What `contentFormat=headers` leaves of a content, by message type.
const HEADERS: [(&str, &[&str]); 3] =
    [("POST", &["type", "ref"]), ("AGGREGATE", &["key"]), ("STORE", &["item_hash", "ref"])];

fn headers(kind: &str, content: &str) -> Option<Box<RawValue>> {
    let mut object = Object::parse(content).ok()?;
    let further = HEADERS.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, fields)| fields);
    let fields = ["address"].iter().chain(further);
    let kept = fields.filter_map(|field| Some((*field, raw(object.take_raw(field)?.text())?)));
    let kept: BTreeMap<&str, Box<RawValue>> = kept.collect();
    serde_json::value::to_raw_value(&kept).ok()
}

/// JSON text as an answer.
pub(super) fn json_text(json: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], json).into_response()
}
