//! Arithmetic that is slow in the sandbox, done by native libraries, and what the host's work costs a plugin.
//!
//! Everything here is a function of its arguments alone, on every machine. What it costs is fuel from the same tank as the plugin's own
//! instructions, by constants that are part of the profile: about 8,000 are a microsecond of a plugin's own work.

use super::{
    bindings::aleph::plugin::crypto::{self, Digest, Scheme},
    view::Host,
};
use alloy_primitives::keccak256;
use blake2::{Blake2b, digest::consts::U32};
use ed25519_dalek::{Signature, VerifyingKey};
use secp256k1::{
    Message,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use sha2::{Digest as _, Sha256};

/// Fuel for being called.
const CALL_FUEL: u64 = 2_000;
/// Fuel per byte that is hashed. Of sha256, as long as a processor without instructions for it takes.
const SHA256_BYTE_FUEL: u64 = 24;
const KECCAK256_BYTE_FUEL: u64 = 32;
const BLAKE2B256_BYTE_FUEL: u64 = 12;
/// Fuel for a signature: about 45 microseconds.
const SIGNATURE_FUEL: u64 = 400_000;
/// Fuel per signed byte, which ed25519 hashes.
const SIGNED_BYTE_FUEL: u64 = 24;

/// Fuel for a question about the store.
pub(super) const QUESTION_FUEL: u64 = 8_000;
/// Fuel for a row of a page.
pub(super) const ROW_FUEL: u64 = 1_000;
/// Fuel per byte that is answered.
pub(super) const ANSWERED_BYTE_FUEL: u64 = 1;
/// Fuel per byte of memory that a call asks for on top of what it starts with: its pages cost the system time when they are touched for the first
/// time, and when they are given back.
pub(super) const MEMORY_BYTE_FUEL: u64 = 1;
/// Fuel for a line in the log.
pub(super) const LINE_FUEL: u64 = 20_000;

impl crypto::Host for Host {
    fn hash(&mut self, kind: Digest, data: Vec<u8>) -> wasmtime::Result<Vec<u8>> {
        let byte = match kind {
            Digest::Sha256 => SHA256_BYTE_FUEL,
            Digest::Keccak256 => KECCAK256_BYTE_FUEL,
            Digest::Blake2b256 => BLAKE2B256_BYTE_FUEL,
        };
        self.charge(CALL_FUEL + byte * data.len() as u64)?;
        Ok(hash(kind, &data).to_vec())
    }

    fn verify(&mut self, scheme: Scheme, key: Vec<u8>, signature: Vec<u8>, data: Vec<u8>) -> wasmtime::Result<bool> {
        self.charge(CALL_FUEL + SIGNATURE_FUEL + SIGNED_BYTE_FUEL * data.len() as u64)?;
        Ok(verify(scheme, &key, &signature, &data).is_some())
    }
}

fn hash(kind: Digest, data: &[u8]) -> [u8; 32] {
    match kind {
        Digest::Sha256 => Sha256::digest(data).into(),
        Digest::Keccak256 => keccak256(data).0,
        Digest::Blake2b256 => Blake2b::<U32>::digest(data).into(),
    }
}

/// Something when the signature is of that key; nothing for whatever is malformed.
fn verify(scheme: Scheme, key: &[u8], signature: &[u8], data: &[u8]) -> Option<()> {
    match scheme {
        Scheme::Secp256k1Recover => {
            let (compact, v) = signature.split_at_checked(64)?;
            let parity = match v {
                [v @ (0 | 1)] => *v,
                [v @ (27 | 28)] => v - 27,
                _ => return None,
            };
            let recovery = RecoveryId::try_from(i32::from(parity)).ok()?;
            let signature = RecoverableSignature::from_compact(compact, recovery).ok()?;
            let signer = signature.recover_ecdsa(Message::from_digest(data.try_into().ok()?)).ok()?;
            (ccn_message::signature::evm::address_of(&signer).as_slice() == key).then_some(())
        }
        Scheme::Ed25519 => {
            let key = VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
            // Strict: no keys of small order, one encoding per signature, so that every library says the same.
            key.verify_strict(data, &Signature::from_bytes(signature.try_into().ok()?)).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).expect("hex")
    }

    #[test]
    fn hashes_are_those_of_everybody() {
        let check = |kind, expect: &str| assert_eq!(hex::encode(hash(kind, b"abc")), expect);
        check(Digest::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check(Digest::Keccak256, "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45");
        check(Digest::Blake2b256, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    }

    #[test]
    fn a_signature_of_an_ethereum_key_is_known() {
        let account = ccn_message::sign::Account::ethereum([7; 32]).expect("a key");
        let secret = secp256k1::SecretKey::from_secret_bytes([7; 32]).expect("a key");
        let digest = hash(Digest::Keccak256, b"text");
        let signature = RecoverableSignature::sign_ecdsa_recoverable(Message::from_digest(digest), &secret);
        let (recovery, compact) = signature.serialize_compact();
        let v = recovery.to_u8();
        let signed = |v: u8| [compact.as_slice(), &[v]].concat();
        let key = bytes(account.address().trim_start_matches("0x"));
        let check = |key: &[u8], signature: &[u8], data: &[u8]| verify(Scheme::Secp256k1Recover, key, signature, data);
        assert!(check(&key, &signed(v), &digest).is_some() && check(&key, &signed(v + 27), &digest).is_some());
        assert!(check(&key, &signed(v ^ 1), &digest).is_none() && check(&key, &signed(v + 4), &digest).is_none());
        assert!(check(&[0; 20], &signed(v), &digest).is_none() && check(&key[1..], &signed(v), &digest).is_none());
        assert!(check(&key, &compact, &digest).is_none() && check(&key, &signed(v), &digest[1..]).is_none());
        assert!(check(&key, &signed(v), &[1; 32]).is_none());
    }

    #[test]
    fn a_signature_of_rfc_8032_is_known() {
        let key = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = bytes(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        let check = |key: &[u8], signature: &[u8], data: &[u8]| verify(Scheme::Ed25519, key, signature, data);
        assert!(check(&key, &signature, &[0x72]).is_some());
        assert!(check(&key, &signature, &[0x73]).is_none() && check(&key, &signature[1..], &[0x72]).is_none());
        // The point of order one signs everything, for those who are not strict.
        let one = [&[1_u8][..], &[0; 31]].concat();
        assert!(check(&one, &[one.as_slice(), &[0; 32]].concat(), b"anything").is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_signatures(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            signature in proptest::collection::vec(any::<u8>(), 60..70),
            data in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assert!(verify(Scheme::Secp256k1Recover, &key, &signature, &data).is_none());
            prop_assert!(verify(Scheme::Ed25519, &key, &signature, &data).is_none());
        }
    }
}
