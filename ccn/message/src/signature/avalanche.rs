//! Avalanche: recoverable signatures over secp256k1, spelled in base58 with a checksum; addresses in bech32 (ccn spec 3.4).

use super::{
    SignatureError,
    secp::{self, COMPACT_BYTES, RECOVERABLE_BYTES},
    text,
};
use bech32::{Bech32, Hrp};
use secp256k1::PublicKey;

/// The last bytes of the sha256 of what they follow.
const CHECKSUM_BYTES: usize = 4;
const SPELLED_BYTES: usize = RECOVERABLE_BYTES + CHECKSUM_BYTES;
const PREFIX: &[u8] = b"\x1aAvalanche Signed Message:\n";
const HRP: Hrp = Hrp::parse_unchecked("avax");

pub(super) fn verify(sender: &str, signature: &str, text: &[u8]) -> Result<(), SignatureError> {
    let bytes: [u8; SPELLED_BYTES] = text::base58(signature)
        .ok_or_else(|| SignatureError::malformed(format!("{SPELLED_BYTES} bytes in base58 were expected")))?;
    let (signed, found) = bytes.split_at(RECOVERABLE_BYTES);
    if found != checksum(signed) {
        return Err(SignatureError::malformed("its checksum does not fit"));
    }
    // An address is good on any of the network's chains: which one it names is the sender's choice.
    let (chain_id, _) = sender.split_once('-').ok_or(SignatureError::Wrong)?;
    let key = secp::recover(&signed[..COMPACT_BYTES], signed[COMPACT_BYTES], digest(text))?;
    if sender == address(chain_id, &key) { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// What a wallet signs for a text. Texts are bounded far below what four bytes count.
pub(crate) fn digest(text: &[u8]) -> [u8; 32] {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    secp::sha256(&[PREFIX, &length, text])
}

/// The address of a key on one of the network's chains, such as `X`.
pub(crate) fn address(chain_id: &str, key: &PublicKey) -> String {
    let hash = secp::key_hash(&key.serialize());
    // Twenty bytes are far below what the format takes.
    let bech32 = bech32::encode_lower::<Bech32>(HRP, &hash).unwrap_or_default();
    format!("{chain_id}-{bech32}")
}

/// Spells a signature: r, s, recovery id.
#[cfg(feature = "sign")]
pub(crate) fn spell(signature: &[u8; RECOVERABLE_BYTES]) -> String {
    let mut bytes = signature.to_vec();
    bytes.extend_from_slice(&checksum(signature));
    bs58::encode(bytes).into_string()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [.., a, b, c, d] = secp::sha256(&[bytes]);
    [a, b, c, d]
}
