//! Messages made by hand: for tests that need thousands of them, or broken ones, which no SDK makes.

use anyhow::{Context as _, Result};
use ccn_message::sign::{Account, Draft, to_json};
use harness::http::{Answer, Client};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

/// Separates the parts of an upload.
const BOUNDARY: &str = "a-boundary-of-the-tests";

/// An account from a word: the same word is the same account.
pub(super) fn account(word: &str) -> Result<Account> {
    Account::ethereum(Sha256::digest(word).into()).context("a hash is a key, as good as always")
}

/// The account with a private key in hex.
pub(super) fn account_with_key(key: &str) -> Result<Account> {
    let bytes = hex::decode(key.trim_start_matches("0x"))?;
    Account::ethereum(bytes.as_slice().try_into()?).context("this is no private key")
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A signed message as clients send it.
pub(super) fn message(account: &Account, kind: &str, content: &Value) -> Result<Value> {
    message_in(account, kind, content, "TEST")
}

/// The same in another channel.
pub(super) fn message_in(account: &Account, kind: &str, content: &Value, channel: &str) -> Result<Value> {
    let draft = Draft::new(kind, &content.to_string()).channel(channel).time(now());
    Ok(serde_json::from_str(&to_json(&draft.sign(account)))?)
}

/// A POST.
pub(super) fn post(account: &Account, text: &str) -> Result<Value> {
    message(account, "POST", &json!({"type": "note", "content": {"text": text}}))
}

/// A STORE of a file with this content, paid with credits.
pub(super) fn store(account: &Account, content: &[u8]) -> Result<Value> {
    let hash = hex::encode(Sha256::digest(content));
    let payment = json!({"type": "credit", "chain": "ETH"});
    message(account, "STORE", &json!({"item_type": "storage", "item_hash": hash, "payment": payment}))
}

/// Its hash.
pub(super) fn hash_of(message: &Value) -> &str {
    message["item_hash"].as_str().unwrap_or_default()
}

/// Publishes a message.
pub(super) fn publish(ccn: &Client, message: &Value, sync: bool) -> Result<Answer> {
    ccn.post_json("/api/v0/messages", &json!({"sync": sync, "message": message}))
}

/// Uploads a file, with its STORE message or without.
pub(super) fn upload(ccn: &Client, path: &str, content: &[u8], message: Option<&Value>) -> Result<Answer> {
    let mut body = Vec::new();
    if let Some(message) = message {
        let metadata = json!({"message": message, "sync": true});
        body.extend_from_slice(
            format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\
                 Content-Type: application/json\r\n\r\n{metadata}\r\n"
            )
            .as_bytes(),
        );
    }
    body.extend_from_slice(
        format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .as_bytes(),
    );
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    ccn.post(path, &format!("multipart/form-data; boundary={BOUNDARY}"), &body)
}
