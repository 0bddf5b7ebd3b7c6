//! NULS, second version: a recoverable signature in base64 (ccn spec 3.8).

use super::{
    SignatureError, nuls,
    secp::{self, RECOVERABLE_BYTES},
    text,
};
use secp256k1::PublicKey;

/// The two chains, with what their addresses begin with.
const CHAINS: [(u16, &str); 2] = [(1, "NULSd"), (2, "tNULSe")];
/// First byte of a signature by a compressed key.
pub(crate) const FIRST_HEADER: u8 = 27;

pub(super) fn verify(sender: &str, signature: &str, text: &[u8]) -> Result<(), SignatureError> {
    let bytes: [u8; RECOVERABLE_BYTES] = text::base64(signature)
        .ok_or_else(|| SignatureError::malformed(format!("{RECOVERABLE_BYTES} bytes in base64 were expected")))?;
    let (header, compact) = (bytes[0], &bytes[1..]);
    let recovery_id = header.checked_sub(FIRST_HEADER).ok_or_else(|| {
        SignatureError::malformed(format!("its first byte is {header}, and a compressed key has 27 to 30"))
    })?;
    let chain = CHAINS.iter().find(|(_, prefix)| sender.starts_with(prefix)).ok_or(SignatureError::Wrong)?;
    let key = secp::recover(compact, recovery_id, nuls::digest(text))?;
    if sender == address(*chain, &key) { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// The address of a key on a chain.
pub(super) fn address((chain_id, prefix): (u16, &str), key: &PublicKey) -> String {
    let bytes = nuls::address(chain_id.to_le_bytes(), &key.serialize());
    format!("{prefix}{}", bs58::encode(bytes).into_string())
}

/// The address of a key on the main chain.
#[cfg(feature = "sign")]
pub(crate) fn main_address(key: &PublicKey) -> String {
    address(CHAINS[0], key)
}
