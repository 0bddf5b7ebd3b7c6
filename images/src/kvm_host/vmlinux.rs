//! Takes the kernel out of its compressed image. Emulated, decompressing it would be a third of
//! the host's start.

use crate::ImagesError;
use std::io::Read as _;

/// Offsets in the boot sector (Linux x86 boot protocol, "The Real-Mode Kernel Header").
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: (usize, &[u8; 4]) = (0x202, b"HdrS");
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The payload ends with its length after decompression.
const LENGTH_BYTES: usize = 4;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// No kernel is larger decompressed; a larger one is refused.
const KERNEL_MAX_BYTES: u64 = 256 << 20;

/// The ELF kernel in a `vmlinuz`.
pub(super) fn unpacked(image: &[u8]) -> Result<Vec<u8>, ImagesError> {
    let wrong = |reason: &str| super::wrong(&format!("its vmlinuz {reason}"));
    let payload = payload(image).ok_or_else(|| wrong("has no boot header that we understand"))?;
    if !payload.starts_with(&ZSTD_MAGIC) {
        return Err(wrong("is not compressed with zstd any more"));
    }
    let decoder = ruzstd::decoding::StreamingDecoder::new(payload).map_err(|error| wrong(&error.to_string()))?;
    let mut elf = Vec::new();
    decoder.take(KERNEL_MAX_BYTES + 1).read_to_end(&mut elf).map_err(|error| wrong(&error.to_string()))?;
    if elf.len() as u64 > KERNEL_MAX_BYTES || !elf.starts_with(b"\x7fELF") {
        return Err(wrong("does not hold an ELF kernel"));
    }
    Ok(elf)
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |offset: usize| -> Option<usize> {
        let bytes = image.get(offset..offset + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(MAGIC.0..MAGIC.0 + 4)? != MAGIC.1 {
        return None;
    }
    let setup = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup + 1).checked_mul(512)?.checked_add(word(PAYLOAD_OFFSET)?)?;
    let end = start.checked_add(word(PAYLOAD_LENGTH)?)?.checked_sub(LENGTH_BYTES)?;
    image.get(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SETUP_SECTORS] = 1;
        image[MAGIC.0..MAGIC.0 + 4].copy_from_slice(MAGIC.1);
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(&[0; 4]);
        image
    }

    #[test]
    fn the_payload_lies_behind_the_setup_sectors() {
        assert_eq!(payload(&image(b"compressed")), Some(b"compressed".as_slice()));
        assert_eq!(payload(b"short"), None);
    }

    #[test]
    fn other_compressions_are_named_as_the_reason() {
        let error = unpacked(&image(b"\x1f\x8b gzip")).expect_err("not zstd");
        assert!(error.to_string().contains("zstd"), "{error}");
    }

    proptest! {
        #[test]
        fn no_image_is_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let mut bytes = bytes;
            let _ = unpacked(&bytes);
            if bytes.len() > 0x300 {
                bytes[MAGIC.0..MAGIC.0 + 4].copy_from_slice(MAGIC.1);
                let _ = unpacked(&bytes);
            }
        }
    }
}
