//! What sync events, archives and message events carry (ccn spec 4.2).

use plugin_sdk::{indexer::ContractMessage, message::ItemHash};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Most messages of one event or archive; the network's emitter packs up to 10,000.
const MAX_MESSAGES: usize = 100_000;
/// The word by which a contract stores a file of IPFS.
const STORE_IPFS: &str = "STORE_IPFS";
/// Latest content time, seconds.
const MAX_TIME: u64 = 9_223_372_036;

/// What a sync event says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Messages, each as JSON text.
    Inline(Vec<String>),
    /// A file with such a document.
    OffChain(String),
}

#[derive(Deserialize)]
struct Document<'a> {
    protocol: String,
    version: u64,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Messages<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

/// Reads what a sync event carries.
pub(crate) fn sync(message: &str) -> Result<Sync, String> {
    let document: Document<'_> = serde_json::from_str(message).map_err(|error| error.to_string())?;
    if document.version != 1 {
        return Err(format!("version {} is not known", document.version));
    }
    match document.protocol.as_str() {
        "aleph" => messages(document.content).map(Sync::Inline),
        "aleph-offchain" => {
            let reference: String = serde_json::from_str(document.content.get()).map_err(|error| error.to_string())?;
            let reference = ItemHash::parse(&reference).map_err(|error| error.to_string())?;
            Ok(Sync::OffChain(reference.to_string()))
        }
        other => Err(format!("the protocol {other:?} is not known")),
    }
}

/// The messages of an archive. A message that is none is the node's to refuse: here it is only cut out.
pub(crate) fn archive(file: &[u8]) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(file).map_err(|error| error.to_string())?;
    match sync(text)? {
        Sync::Inline(messages) => Ok(messages),
        Sync::OffChain(_) => Err("an archive does not refer to another one".to_owned()),
    }
}

fn messages(content: &RawValue) -> Result<Vec<String>, String> {
    let list: Messages<'_> = serde_json::from_str(content.get()).map_err(|error| error.to_string())?;
    if list.messages.len() > MAX_MESSAGES {
        return Err(format!("it has {} messages, more than {MAX_MESSAGES}", list.messages.len()));
    }
    Ok(list.messages.into_iter().map(|message| message.get().to_owned()).collect())
}

/// The message of a contract; none when it can be none.
pub(crate) fn contract_message(
    sender: &str,
    timestamp: Option<u64>,
    kind: String,
    content: String,
) -> Option<ContractMessage> {
    if kind != STORE_IPFS {
        return Some(ContractMessage { sender: sender.to_owned(), kind, content });
    }
    let time = timestamp.filter(|time| *time <= MAX_TIME)?;
    let file = ItemHash::parse(&content).ok()?;
    // Its sha256 is the item hash: spaces and order are those of the network's first node.
    let content = format!(r#"{{"address": "{sender}", "time": {time}.0, "item_type": "ipfs", "item_hash": "{file}"}}"#);
    Some(ContractMessage { sender: sender.to_owned(), kind: "STORE".to_owned(), content })
}
