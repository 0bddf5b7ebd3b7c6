//! Solana and Eclipse: ed25519 over the text itself; the signature field is JSON text.

use super::{SignatureError, text};
use crate::json::{FormatError, Object, Value};
use ed25519_dalek::{Signature, VerifyingKey};

/// The only version of the signature object.
const VERSION: i64 = 1;

pub(super) fn verify(sender: &str, signature: &str, buffer: &[u8]) -> Result<(), SignatureError> {
    let (signature, public_key) = read(signature).map_err(|error| SignatureError::Malformed(error.to_string()))?;
    if public_key != sender {
        return Err(SignatureError::Wrong);
    }
    let malformed = |what: &str| SignatureError::Malformed(format!("{what} is not base58 of the right length"));
    let key: [u8; 32] = text::base58(&public_key).ok_or_else(|| malformed("publicKey"))?;
    let bytes: [u8; 64] = text::base58(&signature).ok_or_else(|| malformed("signature"))?;
    let key = VerifyingKey::from_bytes(&key).map_err(|_| SignatureError::Malformed("publicKey is not a key".into()))?;
    // Strict, as libsodium is: no small-order keys, one encoding per signature.
    key.verify_strict(buffer, &Signature::from_bytes(&bytes)).map_err(|_| SignatureError::Wrong)
}

fn read(text: &str) -> Result<(String, String), FormatError> {
    let mut object = Object::parse(text)?;
    let signature = object.required("signature", Value::string)?;
    let public_key = object.required("publicKey", Value::string)?;
    object.optional("version", |value| value.integer(VERSION..=VERSION))?;
    Ok((signature, public_key))
}
