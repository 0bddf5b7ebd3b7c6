//! Tezos: three curves, and two ways to sign a text (ccn spec 3.7); the signature field is JSON text.
//!
//! | address | key | signature | curve |
//! |---|---|---|---|
//! | tz1 | edpk | edsig | ed25519 |
//! | tz2 | sppk | spsig1 | secp256k1 |
//! | tz3 | p2pk | p2sig | P-256 |
//!
//! A signature may also be spelled `sig`, whatever its curve.

use super::{SignatureError, secp};
use crate::json::{FormatError, Object, Value};
use blake2::{
    Blake2b, Digest as _,
    digest::consts::{U20, U32},
};
use jiff::{SignedDuration, civil::DateTime};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;

const SIGNATURE_BYTES: usize = 64;
/// The longest of prefix, signature and checksum.
const MAX_SPELLED_BYTES: usize = 5 + SIGNATURE_BYTES + 4;
/// What stands before a signature of any curve.
const GENERIC_SIGNATURE: [u8; 3] = [4, 130, 43];
/// The application that a wallet shows where the signature names none.
const DEFAULT_APPLICATION: &str = "aleph.im";

/// A curve of Tezos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// Addresses `tz1…`.
    Ed25519,
    /// Addresses `tz2…`.
    Secp256k1,
    /// Addresses `tz3…`.
    P256,
}

/// The bytes that make texts of a curve begin with their letters.
#[derive(Debug)]
struct Prefixes {
    address: [u8; 3],
    key: [u8; 4],
    key_bytes: usize,
    signature: &'static [u8],
}

impl Curve {
    const ALL: [Self; 3] = [Self::Ed25519, Self::Secp256k1, Self::P256];

    fn prefixes(self) -> Prefixes {
        match self {
            Self::Ed25519 => Prefixes {
                address: [6, 161, 159],
                key: [13, 15, 37, 217],
                key_bytes: 32,
                signature: &[9, 245, 205, 134, 18],
            },
            Self::Secp256k1 => Prefixes {
                address: [6, 161, 161],
                key: [3, 254, 226, 86],
                key_bytes: 33,
                signature: &[13, 115, 101, 19, 63],
            },
            Self::P256 => Prefixes {
                address: [6, 161, 164],
                key: [3, 178, 139, 127],
                key_bytes: 33,
                signature: &[54, 240, 44, 52],
            },
        }
    }

    /// The address of a key.
    pub(crate) fn address(self, key: &[u8]) -> String {
        spell(&self.prefixes().address, &Blake2b::<U20>::digest(key))
    }

    /// The text of a key.
    #[cfg(feature = "sign")]
    pub(crate) fn spell_key(self, key: &[u8]) -> String {
        spell(&self.prefixes().key, key)
    }

    /// The text of a signature.
    #[cfg(feature = "sign")]
    pub(crate) fn spell_signature(self, signature: &[u8]) -> String {
        spell(self.prefixes().signature, signature)
    }

    fn verify(self, key: &[u8], signature: &[u8; SIGNATURE_BYTES], digest: [u8; 32]) -> Result<(), SignatureError> {
        let no_key = || SignatureError::malformed("publicKey is not a point of its curve");
        match self {
            Self::Ed25519 => {
                let bytes = key.try_into().map_err(|_| no_key())?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| no_key())?;
                let signature = ed25519_dalek::Signature::from_bytes(signature);
                key.verify_strict(&digest, &signature).map_err(|_| SignatureError::Wrong)
            }
            Self::Secp256k1 => secp::verify(&secp::compact(signature)?, digest, &secp::public_key(key)?),
            Self::P256 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(|_| no_key())?;
                let signature = p256::ecdsa::Signature::from_slice(signature)
                    .map_err(|_| SignatureError::malformed("r and s are not numbers of the curve"))?;
                key.verify_prehash(&digest, &signature).map_err(|_| SignatureError::Wrong)
            }
        }
    }
}

/// What the signature field holds.
struct Fields {
    signature: String,
    public_key: String,
    micheline: bool,
    application: Option<String>,
}

pub(super) fn verify(sender: &str, signature: &str, text: &[u8], time: f64) -> Result<(), SignatureError> {
    let fields = read(signature).map_err(|error| SignatureError::malformed(error.to_string()))?;
    let (curve, key) = read_key(&fields.public_key)
        .ok_or_else(|| SignatureError::malformed("publicKey is none of edpk, sppk and p2pk"))?;
    let signature = read_signature(&fields.signature, curve)
        .ok_or_else(|| SignatureError::malformed("signature is none of the kind of its key"))?;
    if curve.address(&key) != sender {
        return Err(SignatureError::Wrong);
    }
    let digest = if fields.micheline {
        let application = fields.application.as_deref().unwrap_or(DEFAULT_APPLICATION);
        digest(&micheline(text, application, time)?)
    } else {
        digest(text)
    };
    curve.verify(&key, &signature, digest)
}

fn read(text: &str) -> Result<Fields, FormatError> {
    let mut object = Object::parse(text)?;
    Ok(Fields {
        signature: object.required("signature", Value::string)?,
        public_key: object.required("publicKey", Value::string)?,
        micheline: object
            .optional("signingType", |value| value.one_of(&[("raw", false), ("micheline", true)]))?
            .unwrap_or(false),
        application: object.optional("dAppUrl", Value::string)?,
    })
}

fn read_key(text: &str) -> Option<(Curve, Vec<u8>)> {
    let bytes = unspell(text)?;
    Curve::ALL.into_iter().find_map(|curve| {
        let prefixes = curve.prefixes();
        let key = bytes.strip_prefix(&prefixes.key).filter(|key| key.len() == prefixes.key_bytes)?;
        Some((curve, key.to_vec()))
    })
}

fn read_signature(text: &str, curve: Curve) -> Option<[u8; SIGNATURE_BYTES]> {
    let bytes = unspell(text)?;
    let mut prefixes = [curve.prefixes().signature, &GENERIC_SIGNATURE].into_iter();
    prefixes.find_map(|prefix| bytes.strip_prefix(prefix)?.try_into().ok())
}

/// Base58 with a checksum.
fn spell(prefix: &[u8], bytes: &[u8]) -> String {
    bs58::encode([prefix, bytes].concat()).with_check().into_string()
}

/// The bytes of a text in base58 with a checksum; none if there are more than the longest text has.
fn unspell(text: &str) -> Option<Vec<u8>> {
    let mut bytes = [0; MAX_SPELLED_BYTES];
    let length = bs58::decode(text).with_check(None).onto(&mut bytes[..]).ok()?;
    Some(bytes.get(..length)?.to_vec())
}

/// What a key signs for some bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Blake2b::<U32>::digest(bytes).into()
}

/// The text as a wallet shows it before it signs: packed Micheline, but with its length in hex digits as decimal text, as the network's
/// clients have always made it. This is the one way to sign that covers the time of the envelope.
pub(crate) fn micheline(text: &[u8], application: &str, time: f64) -> Result<Vec<u8>, SignatureError> {
    let time = iso_time(time).ok_or_else(|| SignatureError::malformed("the time of the message is no date"))?;
    let mut payload = format!("Tezos Signed Message: {application} {time} ").into_bytes();
    payload.extend_from_slice(text);
    let mut bytes = vec![5, 1, 0];
    bytes.extend_from_slice((payload.len() * 2).to_string().as_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// Seconds since 1970 as a date with milliseconds: to the nearest microsecond, then cut.
fn iso_time(time: f64) -> Option<String> {
    let seconds = time.floor();
    // Both fit where it is a date: the fraction has six digits, and what is too large for the type is too late for a calendar.
    let microseconds = ((time - seconds) * 1e6).round_ties_even() as i64;
    let since = SignedDuration::from_secs(seconds as i64).checked_add(SignedDuration::from_micros(microseconds))?;
    let date = DateTime::constant(1970, 1, 1, 0, 0, 0, 0).checked_add(since).ok()?;
    let (year, month, day) = (date.year(), date.month(), date.day());
    let (hour, minute, second, millisecond) = (date.hour(), date.minute(), date.second(), date.millisecond());
    (year >= 1).then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_milliseconds() {
        assert_eq!(iso_time(1_663_944_079.029).as_deref(), Some("2022-09-23T14:41:19.029Z"));
        assert_eq!(iso_time(1_663_944_079.029_999_4).as_deref(), Some("2022-09-23T14:41:19.029Z"));
        assert_eq!(iso_time(1_657_534_863.999_999_9).as_deref(), Some("2022-07-11T10:21:04.000Z"));
        assert_eq!(iso_time(-0.5).as_deref(), Some("1969-12-31T23:59:59.500Z"));
        assert_eq!(iso_time(253_402_300_799.0).as_deref(), Some("9999-12-31T23:59:59.000Z"));
        assert_eq!(iso_time(-253_402_300_799.0), None);
        assert_eq!(iso_time(f64::MAX), None);
    }

    #[test]
    fn the_prefixes_make_their_letters() {
        for (curve, letters) in
            Curve::ALL.into_iter().zip([["tz1", "edpk", "edsig"], ["tz2", "sppk", "spsig1"], ["tz3", "p2pk", "p2sig"]])
        {
            let prefixes = curve.prefixes();
            for fill in [0, 0x80, 0xff] {
                let texts = [
                    spell(&prefixes.address, &[fill; 20]),
                    spell(&prefixes.key, &vec![fill; prefixes.key_bytes]),
                    spell(prefixes.signature, &[fill; SIGNATURE_BYTES]),
                ];
                for (text, letters) in texts.iter().zip(letters) {
                    assert!(text.starts_with(letters), "{text}");
                }
            }
        }
        assert!(spell(&GENERIC_SIGNATURE, &[7; SIGNATURE_BYTES]).starts_with("sig"));
    }
}
