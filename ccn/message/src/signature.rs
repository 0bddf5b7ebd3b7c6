//! Who signed: one file per family of chains (messages spec section 4, ccn spec 3).

mod ed25519;
pub mod evm;

use crate::{Envelope, ErrorCode, chain::Family};

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
    /// The chain's family is not implemented yet (code 1: the message counts as unsigned here).
    #[error("signatures of chain {0} are not supported by this version")]
    Unsupported(&'static str),
}

impl SignatureError {
    /// The public error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing | Self::Malformed(_) | Self::Wrong | Self::Unsupported(_) => ErrorCode::InvalidSignature,
            Self::Unverifiable(_) => ErrorCode::InvalidFormat,
        }
    }
}

/// Verifies the signature of an envelope.
///
/// # Errors
/// Why it does not stand.
pub fn verify(envelope: &Envelope) -> Result<(), SignatureError> {
    let family = envelope.chain.family();
    let name = envelope.chain.name();
    if family == Family::Unverifiable {
        return Err(SignatureError::Unverifiable(name));
    }
    let signature = envelope.signature.as_deref().ok_or(SignatureError::Missing)?;
    let buffer = envelope.verification_buffer();
    match family {
        Family::Evm => evm::verify(&envelope.sender, signature, buffer.as_bytes()),
        Family::Ed25519 => ed25519::verify(&envelope.sender, signature, buffer.as_bytes()),
        Family::Avalanche | Family::Cosmos | Family::Substrate | Family::Tezos | Family::Nuls | Family::Nuls2 => {
            Err(SignatureError::Unsupported(name))
        }
        Family::Unverifiable => Err(SignatureError::Unverifiable(name)),
    }
}

#[cfg(all(test, feature = "sign"))]
mod tests;
