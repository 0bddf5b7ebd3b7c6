//! A post as clients read it: two shapes, from the original and its newest amend (ccn spec 5.4).

use crate::state::Record;
use plugin_sdk::{
    Message, StoredMessage, View, answer,
    message::{content::post::PostContent, json::Object},
};
use serde::Serialize;
use serde_json::value::RawValue;

/// A post with the messages that it is made of.
pub(crate) struct Post {
    record: Record,
    original: StoredMessage,
    /// The newest amend.
    amend: Option<StoredMessage>,
}

impl Post {
    pub(crate) fn find(hash: &str, view: &dyn View) -> Option<Self> {
        let record = Record::find(hash, view)?;
        let original = view.message(hash)?;
        let amend = record.amend().and_then(|amend| view.message(amend));
        Some(Self { record, original, amend })
    }

    fn latest(&self) -> &StoredMessage {
        self.amend.as_ref().unwrap_or(&self.original)
    }

    /// The shape of `/api/v0/posts.json`: nineteen fields, which clients hold against a closed model.
    pub(crate) fn to_v0(&self) -> Option<V0> {
        let latest = self.latest();
        let shown = Shown::read(&latest.message)?;
        let original = Shown::read(&self.original.message)?;
        let inline = latest.item_type == "inline";
        let confirmations = raw(&latest.confirmations).or_else(|| raw("[]"))?;
        Some(V0 {
            chain: latest.message.chain.clone(),
            item_hash: latest.message.item_hash.clone(),
            sender: self.original.message.address.clone(),
            kind: shown.kind,
            channel: self.original.message.channel.clone(),
            confirmed: confirmations.get() != "[]",
            content: shown.content,
            item_content: if inline { String::from_utf8(latest.message.content.clone()).ok() } else { None },
            item_type: latest.item_type.clone(),
            signature: latest.signature.clone(),
            size: latest.size,
            time: self.record.updated(),
            confirmations,
            original_item_hash: self.original.message.item_hash.clone(),
            original_signature: self.original.signature.clone(),
            original_type: original.kind,
            hash: self.original.message.item_hash.clone(),
            address: self.original.message.address.clone(),
            reference: original.reference,
        })
    }

    /// The shape of `/api/v1/posts.json`.
    pub(crate) fn to_v1(&self) -> Option<V1> {
        let latest = self.latest();
        let original = Shown::read(&self.original.message)?;
        Some(V1 {
            item_hash: latest.message.item_hash.clone(),
            content: Shown::read(&latest.message)?.content,
            original_item_hash: self.original.message.item_hash.clone(),
            original_type: original.kind,
            address: self.original.message.address.clone(),
            reference: original.reference,
            channel: self.original.message.channel.clone(),
            created: answer::iso_time(self.record.created()),
            last_updated: answer::iso_time(self.record.updated()),
        })
    }
}

/// What a message shows of itself.
struct Shown {
    kind: String,
    content: Box<RawValue>,
    reference: Option<String>,
}

impl Shown {
    fn read(message: &Message) -> Option<Self> {
        let text = std::str::from_utf8(&message.content).ok()?;
        let PostContent { kind, reference, .. } = PostContent::parse(text).ok()?;
        // As it was written, a null included.
        let content = Object::parse(text).ok()?.take_raw("content");
        Some(Self { kind, content: raw(content.map_or("null", |content| content.text()))?, reference })
    }
}

fn raw(json: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).ok()
}

#[derive(Serialize)]
pub(crate) struct V0 {
    chain: String,
    item_hash: String,
    sender: String,
    #[serde(rename = "type")]
    kind: String,
    channel: Option<String>,
    confirmed: bool,
    content: Box<RawValue>,
    item_content: Option<String>,
    item_type: String,
    signature: Option<String>,
    size: u64,
    time: f64,
    confirmations: Box<RawValue>,
    original_item_hash: String,
    original_signature: Option<String>,
    original_type: String,
    hash: String,
    address: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct V1 {
    item_hash: String,
    content: Box<RawValue>,
    original_item_hash: String,
    original_type: String,
    address: String,
    #[serde(rename = "ref")]
    reference: Option<String>,
    channel: Option<String>,
    created: String,
    last_updated: String,
}
