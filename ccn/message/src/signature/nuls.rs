//! NULS, first version: a key and an ECDSA signature in DER, both with their lengths, in hex (ccn spec 3.8).
//!
//! Two forms of one text are taken. Wallets of NULS sign its bytes after a template; such messages are in the chains' archives, and the nodes
//! of their time hold them. The network's Python client of today puts the *printed form* of those bytes into the template (`b'\x60NULS…'`),
//! by a mistake, and so does the node beside it, which therefore refuses every genuine message. A node that takes one form alone either
//! loses the history or refuses a client of today. To take both lets nobody in whom the signer did not mean: a key signs the text in
//! either, and no text has the same bytes in the one form as another has in the other, since what follows the template is a length and the
//! name of the chain here, and a letter and a quote there.

use super::{
    SignatureError,
    secp::{self, KEY_HASH_BYTES},
    text,
};
use secp256k1::ecdsa::Signature;

const PREFIX: &[u8] = b"\x18NULS Signed Message:\n";
/// Chain, kind, hash of the key.
const ADDRESS_BYTES: usize = 2 + 1 + KEY_HASH_BYTES;
/// Those and the check byte.
const SPELLED_BYTES: usize = ADDRESS_BYTES + 1;
/// The address of a person.
const ADDRESS_TYPE: u8 = 1;
/// The only algorithm.
const ECDSA: u8 = 0;

pub(super) fn verify(sender: &str, signature: &str, text: &[u8]) -> Result<(), SignatureError> {
    let bytes = hex::decode(signature).map_err(|_| SignatureError::malformed("hex was expected"))?;
    let ends = || SignatureError::malformed("it ends too early");
    let (key_bytes, rest) = with_length(&bytes).ok_or_else(ends)?;
    let (algorithm, rest) = rest.split_first().ok_or_else(ends)?;
    let (der, rest) = with_length(rest).ok_or_else(ends)?;
    if !rest.is_empty() {
        return Err(SignatureError::malformed("something follows it"));
    }
    if *algorithm != ECDSA {
        return Err(SignatureError::malformed(format!("{algorithm} is not an algorithm that is known")));
    }
    let key = secp::public_key(key_bytes)?;
    let signature =
        Signature::from_der(der).map_err(|_| SignatureError::malformed("the signature is not DER of r and s"))?;
    // The chain that the address is of is the sender's choice.
    let spelled: [u8; SPELLED_BYTES] = text::base58(sender).ok_or(SignatureError::Wrong)?;
    if spelled != address([spelled[0], spelled[1]], key_bytes) {
        return Err(SignatureError::Wrong);
    }
    secp::verify(&signature, digest(text), &key).or_else(|_| secp::verify(&signature, printed_digest(text), &key))
}

/// Spells a signature.
#[cfg(feature = "sign")]
pub(crate) fn spell(key: &[u8], der: &[u8]) -> String {
    // Both are shorter than a byte counts.
    hex::encode([&[key.len() as u8], key, &[ECDSA, der.len() as u8], der].concat())
}

/// Cuts off what one byte says the length of.
fn with_length(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// What a wallet signs for a text.
pub(crate) fn digest(text: &[u8]) -> [u8; 32] {
    secp::sha256(&[PREFIX, &length(text), text])
}

/// What the Python client signs for a text.
pub(crate) fn printed_digest(text: &[u8]) -> [u8; 32] {
    secp::sha256(&[PREFIX, printed(&[&length(text), text].concat()).as_bytes()])
}

/// The length of a text as Bitcoin writes it. Texts are bounded far below what four bytes count.
fn length(text: &[u8]) -> Vec<u8> {
    match text.len() {
        short @ ..=0xfc => vec![short as u8],
        long @ 0xfd..=0xffff => [&[0xfd][..], &(long as u16).to_le_bytes()].concat(),
        longer => [&[0xfe][..], &u32::try_from(longer).unwrap_or(u32::MAX).to_le_bytes()].concat(),
    }
}

/// Bytes as Python prints them: in single quotes, unless there are some of those and no double ones inside.
fn printed(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for byte in bytes {
        match *byte {
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' => text.push_str("\\\\"),
            byte if char::from(byte) == quote => text.extend(['\\', quote]),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push(quote);
    text
}

/// The bytes of the address of a serialized key on a chain.
pub(crate) fn address(chain_id: [u8; 2], key: &[u8]) -> [u8; SPELLED_BYTES] {
    let mut bytes = [0; SPELLED_BYTES];
    bytes[..2].copy_from_slice(&chain_id);
    bytes[2] = ADDRESS_TYPE;
    bytes[3..ADDRESS_BYTES].copy_from_slice(&secp::key_hash(key));
    bytes[ADDRESS_BYTES] = bytes[..ADDRESS_BYTES].iter().fold(0, |all, byte| all ^ byte);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by Python 3.
    #[test]
    fn bytes_are_printed_as_python_does() {
        let all: Vec<u8> = (0..=255).collect();
        let text = printed(&all);
        assert!(text.starts_with(r"b'\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e"), "{text}");
        assert!(text.contains(r##" !"#$%&\'()*+,-./0123"##) && text.contains(r"YZ[\\]^_`abc"), "{text}");
        assert!(text.contains(r"xyz{|}~\x7f\x80") && text.ends_with(r"\xfd\xfe\xff'"), "{text}");
        assert_eq!(printed(b"a'b"), r#"b"a'b""#);
        assert_eq!(printed(b"a'\"b"), r#"b'a\'"b'"#);
        assert_eq!(printed(b"\"").as_str(), r#"b'"'"#);
    }

    #[test]
    fn lengths_are_written_as_bitcoin_does() {
        for (bytes, written) in [
            (0, &[0][..]),
            (0xfc, &[0xfc]),
            (0xfd, &[0xfd, 0xfd, 0]),
            (0xffff, &[0xfd, 0xff, 0xff]),
            (0x1_0000, &[0xfe, 0, 0, 1, 0]),
        ] {
            assert_eq!(length(&vec![0; bytes]), written);
        }
    }
}
