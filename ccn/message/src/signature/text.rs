//! Bytes of a fixed number, as signatures spell them. Another number of bytes is no spelling.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Reads base58.
pub(super) fn base58<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    // A longer text does not fit and is an error, a shorter one leaves bytes over.
    let written = bs58::decode(text).onto(&mut bytes[..]).ok()?;
    (written == LENGTH).then_some(bytes)
}

/// Reads base64 with its padding.
pub(super) fn base64<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    // The whole groups of four letters that such a text has; a longer one is not read.
    if text.len() != LENGTH.div_ceil(3) * 4 {
        return None;
    }
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Reads hex in either case.
pub(super) fn hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_right_number_of_bytes_is_read() {
        assert_eq!(hex::<2>("00fF"), Some([0, 0xff]));
        assert_eq!(hex::<2>("00f"), None);
        assert_eq!(base64::<2>("AAE="), Some([0, 1]));
        assert_eq!(base64::<2>("AAE"), None);
        assert_eq!(base64::<2>("AAEC"), None);
        assert_eq!(base58::<2>("12"), Some([0, 1]));
        assert_eq!(base58::<2>("2"), None);
        assert_eq!(base58::<2>("112"), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_spelled(bytes in any::<[u8; 33]>(), text in ".{0,80}") {
            prop_assert_eq!(base58::<33>(&bs58::encode(bytes).into_string()), Some(bytes));
            prop_assert_eq!(base64::<33>(&STANDARD.encode(bytes)), Some(bytes));
            prop_assert_eq!(hex::<33>(&::hex::encode(bytes)), Some(bytes));
            let _ = (base58::<33>(&text), base64::<33>(&text), hex::<33>(&text));
        }
    }
}
