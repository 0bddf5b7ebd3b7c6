//! The flat kernel image: a kernel as the guest sees it in memory, so that loading it is one read.
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 8 | magic `BETHKRNL` |
//! | 8 | 4 | version, little-endian like everything below |
//! | 12 | 4 | header length: 4,096, so that the image is page-aligned in the file too |
//! | 16 | 8 | load address: guest-physical address of the image's first byte, page-aligned |
//! | 24 | 8 | image length, bytes, a multiple of the page size |
//! | 32 | 8 | memory end: first guest-physical address after the kernel's own memory (BSS, brk) |
//! | 40 | 8 | 64-bit entry point |
//! | 48 | 8 | PVH entry point, 0 when the kernel has none |
//! | 56 | 20 | GNU build id, zeros when the kernel has none |
//! | 76 | | zeros up to 4,096, then the image |
//!
//! `flatten` (feature of the same name, used where images are built) makes one from an ELF `vmlinux`.

#[cfg(feature = "flatten")]
mod flatten;
#[cfg(feature = "flatten")]
pub use flatten::{FlattenError, flatten};

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"BETHKRNL";
/// Version of the layout above.
pub const VERSION: u32 = 1;
/// Length of the header, bytes: one page.
pub const HEADER_BYTES: usize = 4096;
/// Size of a page, bytes: the unit of everything in the image.
pub const PAGE_BYTES: u64 = 4096;
/// Where a kernel may be loaded: not below 1 MiB, where tables and firmware data live.
pub const MIN_LOAD_GPA: u64 = 0x10_0000;
/// Where a kernel must end, so that it fits a guest of [`crate::config::MIN_MEMORY_MIB`] with an initramfs.
pub const MAX_END_GPA: u64 = 0x1000_0000;

const BUILD_ID_BYTES: usize = 20;
const END_OF_FIELDS: usize = 76;

// The layout is on disk: whoever changes it must raise VERSION and say so in the table above.
const _: () = assert!(END_OF_FIELDS == 56 + BUILD_ID_BYTES && END_OF_FIELDS <= HEADER_BYTES);
const _: () = assert!(HEADER_BYTES as u64 == PAGE_BYTES);

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Guest-physical address of the image's first byte.
    pub load_gpa: u64,
    /// Length of the image in the file, bytes.
    pub image_bytes: u64,
    /// First guest-physical address after the kernel's own memory.
    pub end_gpa: u64,
    /// The 64-bit entry point.
    pub entry64_gpa: u64,
    /// The PVH entry point, if there is one.
    pub entry_pvh_gpa: Option<u64>,
    /// The kernel's GNU build id.
    pub build_id: [u8; BUILD_ID_BYTES],
}

/// Why bytes are not the header of a flat kernel image. Whoever made the file is at fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The file is shorter than a header, or is something else.
    #[error("not a flat kernel image (`cargo xtask images` makes one from a vmlinux)")]
    NotFlat,
    /// A layout this program does not know.
    #[error("flat kernel image of version {0}, this program reads version {VERSION}: build the images again")]
    Version(u32),
    /// The addresses contradict each other or the limits.
    #[error("flat kernel image with impossible addresses: {0}")]
    Addresses(&'static str),
}

impl Header {
    /// Reads a header, [`HEADER_BYTES`] long.
    ///
    /// # Errors
    /// Anything but a header whose addresses make sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, KernelError> {
        if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(KernelError::NotFlat);
        }
        let version = read_u32(bytes, 8);
        if version != VERSION {
            return Err(KernelError::Version(version));
        }
        if read_u32(bytes, 12) as usize != HEADER_BYTES {
            return Err(KernelError::NotFlat);
        }
        let mut build_id = [0; BUILD_ID_BYTES];
        build_id.copy_from_slice(&bytes[56..END_OF_FIELDS]);
        let header = Self {
            load_gpa: read_u64(bytes, 16),
            image_bytes: read_u64(bytes, 24),
            end_gpa: read_u64(bytes, 32),
            entry64_gpa: read_u64(bytes, 40),
            entry_pvh_gpa: match read_u64(bytes, 48) {
                0 => None,
                address => Some(address),
            },
            build_id,
        };
        header.check()?;
        Ok(header)
    }

    /// Writes a header.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a page")]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.load_gpa.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.image_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.end_gpa.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.entry64_gpa.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.entry_pvh_gpa.unwrap_or(0).to_le_bytes());
        bytes[56..END_OF_FIELDS].copy_from_slice(&self.build_id);
        bytes
    }

    fn check(&self) -> Result<(), KernelError> {
        let image_end = self.load_gpa.checked_add(self.image_bytes);
        let inside = |entry: u64| entry >= self.load_gpa && Some(entry) < image_end;
        if !self.load_gpa.is_multiple_of(PAGE_BYTES) || !self.image_bytes.is_multiple_of(PAGE_BYTES) {
            return Err(KernelError::Addresses("not on page boundaries"));
        }
        if self.load_gpa < MIN_LOAD_GPA || self.end_gpa > MAX_END_GPA {
            return Err(KernelError::Addresses("outside the memory that kernels load to"));
        }
        if self.image_bytes == 0 || image_end.is_none_or(|end| end > self.end_gpa) {
            return Err(KernelError::Addresses("the image does not fit before its own end"));
        }
        if !inside(self.entry64_gpa) || self.entry_pvh_gpa.is_some_and(|entry| !inside(entry)) {
            return Err(KernelError::Addresses("an entry point outside the image"));
        }
        Ok(())
    }
}

fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}

fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Header {
        Header {
            load_gpa: 0x100_0000,
            image_bytes: 0x80_0000,
            end_gpa: 0x1a0_0000,
            entry64_gpa: 0x100_0000,
            entry_pvh_gpa: Some(0x100_0123),
            build_id: [7; BUILD_ID_BYTES],
        }
    }

    /// The bytes of version 1, as every image built with it has them.
    #[test]
    fn golden_header() {
        let bytes = example().to_bytes();
        let golden = concat!(
            "424554484b524e4c",
            "01000000",
            "00100000",
            "0000000100000000",
            "0000800000000000",
            "0000a00100000000",
            "0000000100000000",
            "2301000100000000",
            "0707070707070707070707070707070707070707",
        );
        let hex: String = bytes[..END_OF_FIELDS].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert!(bytes[END_OF_FIELDS..].iter().all(|byte| *byte == 0));
        assert_eq!(Header::parse(&bytes), Ok(example()));
    }

    #[test]
    fn impossible_addresses_are_refused() {
        let refused = |change: fn(&mut Header)| {
            let mut header = example();
            change(&mut header);
            matches!(Header::parse(&header.to_bytes()), Err(KernelError::Addresses(_)))
        };
        assert!(refused(|header| header.load_gpa += 1));
        assert!(refused(|header| header.image_bytes = 0));
        assert!(refused(|header| header.image_bytes = u64::MAX - 0xfff));
        assert!(refused(|header| header.end_gpa = header.load_gpa));
        assert!(refused(|header| header.end_gpa = MAX_END_GPA + 1));
        assert!(refused(|header| header.load_gpa = 0));
        assert!(refused(|header| header.entry64_gpa = header.load_gpa - 1));
        assert!(refused(|header| header.entry_pvh_gpa = Some(header.load_gpa + header.image_bytes)));
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        assert_eq!(Header::parse(b"\x7fELF"), Err(KernelError::NotFlat));
        let mut bytes = example().to_bytes();
        bytes[8] = 9;
        assert_eq!(Header::parse(&bytes), Err(KernelError::Version(9)));
    }

    proptest! {
        #[test]
        fn whatever_parses_makes_sense(fields in proptest::collection::vec(any::<u64>(), 5), pages in 1_u64..0x1000) {
            let mut header = Header {
                load_gpa: fields[0], image_bytes: fields[1], end_gpa: fields[2],
                entry64_gpa: fields[3], entry_pvh_gpa: Some(fields[4]), build_id: [0; BUILD_ID_BYTES],
            };
            let _ = Header::parse(&header.to_bytes());
            // Near the valid ones as well.
            header.load_gpa = MIN_LOAD_GPA;
            header.image_bytes = pages * PAGE_BYTES;
            header.end_gpa = header.load_gpa + header.image_bytes;
            header.entry64_gpa = header.load_gpa + fields[3] % header.image_bytes;
            header.entry_pvh_gpa = None;
            prop_assert_eq!(Header::parse(&header.to_bytes()), Ok(header));
        }
    }
}
