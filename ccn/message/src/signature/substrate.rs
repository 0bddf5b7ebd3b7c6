//! Substrate: sr25519; the signature field is JSON text (ccn spec 3.6).

use super::{SignatureError, text};
use crate::json::{FormatError, Object, Value};
use blake2::{Blake2b512, Digest as _};
use schnorrkel::{PublicKey, Signature};

/// What signatures of this kind are made for.
pub(crate) const CONTEXT: &[u8] = b"substrate";
/// The only curve, also where none is said.
pub(crate) const CURVE: &str = "sr25519";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// Opens what the checksum of an address is computed of.
const CHECKSUM_PREFIX: &[u8] = b"SS58PRE";
/// First bytes of addresses: up to here it is the network, from here up to `LAST_TWO_BYTE_PREFIX` the first of two bytes.
const LAST_ONE_BYTE_PREFIX: u8 = 63;
const LAST_TWO_BYTE_PREFIX: u8 = 127;
const CHECKSUM_BYTES: usize = 2;

pub(super) fn verify(sender: &str, signature: &str, text: &[u8]) -> Result<(), SignatureError> {
    let (curve, data) = read(signature).map_err(|error| SignatureError::malformed(error.to_string()))?;
    if curve.is_some_and(|curve| curve != CURVE) {
        return Err(SignatureError::malformed(format!("curve: only {CURVE} is known")));
    }
    let bytes: [u8; SIGNATURE_BYTES] = data
        .strip_prefix("0x")
        .and_then(text::hex)
        .ok_or_else(|| SignatureError::malformed(format!("data is not 0x and {SIGNATURE_BYTES} bytes in hex")))?;
    let signature =
        Signature::from_bytes(&bytes).map_err(|_| SignatureError::malformed("data is not a signature over sr25519"))?;
    let key = public_key(sender).ok_or(SignatureError::Wrong)?;
    // Wallets in browsers do not sign a text that could be a transaction: they wrap it.
    let wrapped = [b"<Bytes>", text, b"</Bytes>"].concat();
    let signed = |text: &[u8]| key.verify_simple(CONTEXT, text, &signature).is_ok();
    if signed(text) || signed(&wrapped) { Ok(()) } else { Err(SignatureError::Wrong) }
}

fn read(text: &str) -> Result<(Option<String>, String), FormatError> {
    let mut object = Object::parse(text)?;
    let curve = object.optional("curve", Value::string)?;
    Ok((curve, object.required("data", Value::string)?))
}

/// The key that an address holds, whatever its network.
fn public_key(address: &str) -> Option<PublicKey> {
    let mut bytes = [0; 2 + KEY_BYTES + CHECKSUM_BYTES];
    let length = bs58::decode(address).onto(&mut bytes[..]).ok()?;
    let prefix_bytes = match bytes[0] {
        one if one <= LAST_ONE_BYTE_PREFIX => 1,
        two if two <= LAST_TWO_BYTE_PREFIX => 2,
        _ => return None,
    };
    let (body, rest) = bytes[..length].split_at_checked(prefix_bytes + KEY_BYTES)?;
    if rest != checksum(body) {
        return None;
    }
    PublicKey::from_bytes(&body[prefix_bytes..]).ok()
}

/// The address of a key on the network of that number, at most 63.
#[cfg(feature = "sign")]
pub(crate) fn address(network: u8, key: &PublicKey) -> String {
    let mut bytes = vec![network];
    bytes.extend_from_slice(&key.to_bytes());
    bytes.extend_from_slice(&checksum(&bytes));
    bs58::encode(bytes).into_string()
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Blake2b512::new().chain_update(CHECKSUM_PREFIX).chain_update(body).finalize();
    [digest[0], digest[1]]
}
