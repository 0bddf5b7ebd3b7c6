//! EVM chains: EIP-191 `personal_sign` over secp256k1.

use super::{
    SignatureError,
    secp::{self, COMPACT_BYTES, RECOVERABLE_BYTES},
    text,
};
use alloy_primitives::{Address, eip191_hash_message};

/// First `v` of EIP-155, which carries the chain id and the parity.
const EIP_155_START: u8 = 35;

/// The address that belongs to a public key.
#[must_use]
pub fn address_of(key: &secp256k1::PublicKey) -> Address {
    // Without the byte that says the key is uncompressed.
    Address::from_raw_public_key(&key.serialize_uncompressed()[1..])
}

/// What a wallet signs when it is asked to sign `message` (EIP-191 version 0x45).
#[must_use]
pub fn message_digest(message: &[u8]) -> [u8; 32] {
    eip191_hash_message(message).0
}

/// The address that has signed a message. High `s` values are taken, as the network does.
///
/// # Errors
/// The signature is malformed, or belongs to no key.
pub fn recover(signature: &str, message: &[u8]) -> Result<Address, SignatureError> {
    let digits = signature.strip_prefix("0x").or_else(|| signature.strip_prefix("0X")).unwrap_or(signature);
    let bytes: [u8; RECOVERABLE_BYTES] = text::hex(digits)
        .ok_or_else(|| SignatureError::malformed(format!("{RECOVERABLE_BYTES} bytes in hex were expected")))?;
    let (compact, v) = (&bytes[..COMPACT_BYTES], bytes[COMPACT_BYTES]);
    let parity = match v {
        0 | 1 => v,
        27 | 28 => v - 27,
        EIP_155_START.. => (v - EIP_155_START) % 2,
        _ => return Err(SignatureError::malformed("its last byte is no recovery id")),
    };
    let key = secp::recover(compact, parity, message_digest(message))?;
    Ok(address_of(&key))
}

pub(super) fn verify(sender: &str, signature: &str, buffer: &[u8]) -> Result<(), SignatureError> {
    let signer = recover(signature, buffer)?;
    // The sender is compared whatever its case; a sender that is no address matches nobody.
    let matches = sender.starts_with("0x") && sender.parse::<Address>().is_ok_and(|sender| sender == signer);
    if matches { Ok(()) } else { Err(SignatureError::Wrong) }
}
