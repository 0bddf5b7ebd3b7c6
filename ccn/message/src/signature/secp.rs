//! What the families over secp256k1 share. Each thread has its own context of the library, made once: nothing is allocated per call.

use super::SignatureError;
use ripemd::Ripemd160;
use secp256k1::{
    Message, PublicKey,
    ecdsa::{RecoverableSignature, RecoveryId, Signature},
};
use sha2::{Digest as _, Sha256};

/// r and s.
pub(crate) const COMPACT_BYTES: usize = 64;
/// r, s, and which of the keys that fit.
pub(crate) const RECOVERABLE_BYTES: usize = COMPACT_BYTES + 1;
/// Bytes of a key's hash.
pub(crate) const KEY_HASH_BYTES: usize = 20;

/// The key that has signed a digest. High `s` values are taken.
pub(super) fn recover(compact: &[u8], recovery_id: u8, digest: [u8; 32]) -> Result<PublicKey, SignatureError> {
    let recovery_id = RecoveryId::try_from(i32::from(recovery_id))
        .map_err(|_| SignatureError::malformed(format!("{recovery_id} is no recovery id")))?;
    let signature = RecoverableSignature::from_compact(compact, recovery_id)
        .map_err(|_| SignatureError::malformed("r and s are not numbers of the curve"))?;
    signature.recover_ecdsa(Message::from_digest(digest)).map_err(|_| SignatureError::Wrong)
}

/// Whether a key has signed a digest. Of the two values that `s` can have, only the low one is taken.
pub(super) fn verify(signature: &Signature, digest: [u8; 32], key: &PublicKey) -> Result<(), SignatureError> {
    signature.verify(Message::from_digest(digest), key).map_err(|_| SignatureError::Wrong)
}

/// Reads r and s.
pub(super) fn compact(bytes: &[u8; COMPACT_BYTES]) -> Result<Signature, SignatureError> {
    Signature::from_compact(bytes).map_err(|_| SignatureError::malformed("r and s are not numbers of the curve"))
}

/// Reads a public key.
pub(super) fn public_key(bytes: &[u8]) -> Result<PublicKey, SignatureError> {
    PublicKey::from_slice(bytes).map_err(|_| SignatureError::malformed("the public key is not a point of the curve"))
}

/// RIPEMD-160 of SHA-256 of a serialized key, as Bitcoin defined it.
pub(super) fn key_hash(key: &[u8]) -> [u8; KEY_HASH_BYTES] {
    Ripemd160::digest(sha256(&[key])).into()
}

/// SHA-256 of some pieces.
pub(super) fn sha256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize().into()
}
