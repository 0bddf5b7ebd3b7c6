//! Who signed: one file per family of chains (messages spec section 4, ccn spec 3).
//!
//! A sender that is longer than any address, and a signature that is longer than any wallet makes, are refused before anything is
//! computed, so a check costs at most one hash of the text and two operations on a curve.

pub(crate) mod avalanche;
pub(crate) mod cosmos;
mod ed25519;
pub mod evm;
pub(crate) mod nuls;
pub(crate) mod nuls2;
pub(crate) mod secp;
pub(crate) mod substrate;
mod text;
pub mod tezos;

use crate::{Envelope, ErrorCode, chain::Family};

/// Longest signature field that is looked at, bytes; the longest that wallets make have about three hundred.
pub const MAX_SIGNATURE_BYTES: usize = 4096;
/// Longest sender that is looked at, bytes: an address in bech32 has at most 90, with the name of a chain before it.
pub const MAX_SENDER_BYTES: usize = 128;

/// Why a signature does not stand. Whatever its bytes are, this is a verdict and never a panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is none. The sender's fault, or a relay's (code 1).
    #[error("the message is not signed")]
    Missing,
    /// It is not what a signature of this chain looks like (code 1).
    #[error("the signature is malformed: {0}")]
    Malformed(String),
    /// It is well-formed and does not fit message and sender (code 1).
    #[error("the signature does not match the message and its sender")]
    Wrong,
    /// The chain is known but has no verifier (code 0).
    #[error("messages of chain {0} cannot be verified")]
    Unverifiable(&'static str),
}

impl SignatureError {
    /// The public error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing | Self::Malformed(_) | Self::Wrong => ErrorCode::InvalidSignature,
            Self::Unverifiable(_) => ErrorCode::InvalidFormat,
        }
    }

    fn malformed(problem: impl Into<String>) -> Self {
        Self::Malformed(problem.into())
    }
}

/// Verifies the signature of an envelope.
///
/// # Errors
/// Why it does not stand.
pub fn verify(envelope: &Envelope) -> Result<(), SignatureError> {
    let family = envelope.chain.family();
    if family == Family::Unverifiable {
        return Err(SignatureError::Unverifiable(envelope.chain.name()));
    }
    let signature = envelope.signature.as_deref().ok_or(SignatureError::Missing)?;
    if signature.len() > MAX_SIGNATURE_BYTES {
        let problem = format!("it has {} bytes, and none has more than {MAX_SIGNATURE_BYTES}", signature.len());
        return Err(SignatureError::Malformed(problem));
    }
    let sender = envelope.sender.as_str();
    if sender.len() > MAX_SENDER_BYTES {
        return Err(SignatureError::Wrong);
    }
    let text = envelope.verification_buffer();
    match family {
        Family::Evm => evm::verify(sender, signature, text.as_bytes()),
        Family::Ed25519 => ed25519::verify(sender, signature, text.as_bytes()),
        Family::Avalanche => avalanche::verify(sender, signature, text.as_bytes()),
        Family::Cosmos => cosmos::verify(sender, signature, &text),
        Family::Substrate => substrate::verify(sender, signature, text.as_bytes()),
        Family::Tezos => tezos::verify(sender, signature, text.as_bytes(), envelope.time),
        Family::Nuls => nuls::verify(sender, signature, text.as_bytes()),
        Family::Nuls2 => nuls2::verify(sender, signature, text.as_bytes()),
        Family::Unverifiable => Err(SignatureError::Unverifiable(envelope.chain.name())),
    }
}

#[cfg(all(test, feature = "sign"))]
mod tests;
