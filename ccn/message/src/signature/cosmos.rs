//! Cosmos: ECDSA over a transaction that does nothing but hold the text (ccn spec 3.5); the signature field is JSON text.

use super::{
    SignatureError,
    secp::{self, COMPACT_BYTES},
    text,
};
use crate::json::{FormatError, Object, Value};
use bech32::{Bech32, Hrp};

/// The only kind of key.
pub(crate) const KEY_TYPE: &str = "tendermint/PubKeySecp256k1";
/// A compressed key.
const KEY_BYTES: usize = 33;

pub(super) fn verify(sender: &str, signature: &str, text: &str) -> Result<(), SignatureError> {
    let (signature, key_type, key) = read(signature).map_err(|error| SignatureError::malformed(error.to_string()))?;
    if key_type != KEY_TYPE {
        return Err(SignatureError::malformed(format!("pub_key.type: only {KEY_TYPE} is known")));
    }
    let wrong = |what: &'static str, bytes: usize| {
        move || SignatureError::malformed(format!("{what} is not {bytes} bytes in base64"))
    };
    let key: [u8; KEY_BYTES] = text::base64(&key).ok_or_else(wrong("pub_key.value", KEY_BYTES))?;
    let signature: [u8; COMPACT_BYTES] = text::base64(&signature).ok_or_else(wrong("signature", COMPACT_BYTES))?;
    let key = secp::public_key(&key)?;
    let mut signature = secp::compact(&signature)?;
    // The prefix is that of the sender's own network, and the letter before the data part is the last `1`.
    let (prefix, _) = sender.rsplit_once('1').ok_or(SignatureError::Wrong)?;
    if address(prefix, &key).as_deref() != Some(sender) {
        return Err(SignatureError::Wrong);
    }
    // Both values of `s` are taken, as the network does.
    signature.normalize_s();
    secp::verify(&signature, digest(sender, text), &key)
}

fn read(text: &str) -> Result<(String, String, String), FormatError> {
    let mut object = Object::parse(text)?;
    let signature = object.required("signature", Value::string)?;
    let mut key = object.required("pub_key", Value::object)?;
    let within = |error: FormatError| error.within("pub_key");
    let key_type = key.required("type", Value::string).map_err(within)?;
    let value = key.required("value", Value::string).map_err(within)?;
    Ok((signature, key_type, value))
}

/// What a wallet signs for a text: compact JSON with sorted keys.
pub(crate) fn digest(signer: &str, text: &str) -> [u8; 32] {
    let value = serde_json::json!({"message": text, "signer": signer});
    let message = serde_json::json!({"type": "signutil/MsgSignText", "value": value}).to_string();
    let transaction = [
        r#"{"account_number":"0","chain_id":"signed-message-v1","fee":{"amount":[],"gas":"0"},"memo":"","msgs":["#,
        &message,
        r#"],"sequence":"0"}"#,
    ];
    secp::sha256(&transaction.map(str::as_bytes))
}

/// The address of a key on the network of that prefix; none if it can be no prefix.
pub(crate) fn address(prefix: &str, key: &secp256k1::PublicKey) -> Option<String> {
    let prefix = Hrp::parse(prefix).ok()?;
    bech32::encode_lower::<Bech32>(prefix, &secp::key_hash(&key.serialize())).ok()
}
