//! From an ELF `vmlinux` to a flat image. Runs where images are built, on trusted input; what is
//! wrong with the input is said, not worked around.

use super::{HEADER_BYTES, Header, KernelError, PAGE_BYTES};
use object::{
    Object as _,
    elf::{FileHeader64, NoteType, PT_LOAD, PT_NOTE},
    endian::LittleEndian,
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _},
};

/// The note that holds the PVH entry point: type 18 of vendor `Xen` (vmm spec 1.1).
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);

/// Why an ELF file cannot be flattened.
#[derive(Debug, thiserror::Error)]
pub enum FlattenError {
    /// Not an ELF file for this machine.
    #[error("not a 64-bit little-endian ELF file: {0}")]
    Elf(#[from] object::Error),
    /// Nothing to load.
    #[error("the ELF file has nothing to load")]
    Empty,
    /// The result would not be a valid image.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Makes a flat image of an ELF kernel: header and memory contents, ready to be written to a file.
///
/// # Errors
/// The file is not a kernel that [`Header::parse`] would accept.
pub fn flatten(elf: &[u8]) -> Result<Vec<u8>, FlattenError> {
    let file = ElfFile64::<LittleEndian>::parse(elf)?;
    let header: &FileHeader64<LittleEndian> = file.elf_header();
    let little = LittleEndian;
    let segments = header.program_headers(little, elf)?;
    let loaded = || segments.iter().filter(|segment| segment.p_type(little) == PT_LOAD && segment.p_memsz(little) > 0);

    let start = loaded().map(|segment| segment.p_paddr(little)).min().ok_or(FlattenError::Empty)?;
    let file_end = loaded().map(|segment| segment.p_paddr(little).saturating_add(segment.p_filesz(little))).max();
    let memory_end = loaded().map(|segment| segment.p_paddr(little).saturating_add(segment.p_memsz(little))).max();
    let load_gpa = start - start % PAGE_BYTES;
    let image_bytes = (file_end.unwrap_or(start) - load_gpa).next_multiple_of(PAGE_BYTES);

    let mut pvh = None;
    for segment in segments.iter().filter(|segment| segment.p_type(little) == PT_NOTE) {
        let Some(mut notes) = segment.notes(little, elf)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() == b"Xen" && note.n_type(little) == XEN_ELFNOTE_PHYS32_ENTRY {
                let mut address = [0; 8];
                let length = note.desc().len().min(8);
                address[..length].copy_from_slice(&note.desc()[..length]);
                pvh = Some(u64::from_le_bytes(address));
            }
        }
    }
    let mut build_id = [0; super::BUILD_ID_BYTES];
    if let Some(bytes) = file.build_id()? {
        let length = bytes.len().min(build_id.len());
        build_id[..length].copy_from_slice(&bytes[..length]);
    }
    let flat = Header {
        load_gpa,
        image_bytes,
        end_gpa: memory_end.unwrap_or(start).next_multiple_of(PAGE_BYTES).max(load_gpa + image_bytes),
        // x86 kernels are linked with the physical address of startup_64 as their entry.
        entry64_gpa: header.e_entry(little),
        entry_pvh_gpa: pvh,
        build_id,
    };
    flat.check()?;

    let mut image = flat.to_bytes().to_vec();
    // Bounded: check() has limited the image to MAX_END_GPA.
    let inside = |bytes: u64| usize::try_from(bytes).map_err(|_| FlattenError::Empty);
    image.resize(HEADER_BYTES + inside(image_bytes)?, 0);
    for segment in loaded() {
        let data = segment.data(little, elf).map_err(|()| FlattenError::Empty)?;
        let offset = HEADER_BYTES + inside(segment.p_paddr(little) - load_gpa)?;
        image[offset..offset + data.len()].copy_from_slice(data);
    }
    Ok(image)
}
