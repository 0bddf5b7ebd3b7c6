//! The guest's RAM: private anonymous memory with the kernel and the initramfs mapped over it.
//!
//! Nothing is copied at start: the images' pages come from the page cache, shared by all machines of
//! the host until a guest writes to one.

use crate::{
    arch::x86_64::layout,
    kernel::{self, HEADER_BYTES, KernelError, PAGE_BYTES},
};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::AsRawFd as _,
};
use vm_memory::{
    GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _, GuestRegionMmap, MmapRegion,
};

/// Guest memory as devices see it.
pub type Ram = GuestMemoryMmap<()>;

/// Largest initramfs, bytes: ours holds one small program.
pub const MAX_INITRAMFS_BYTES: u64 = 64 << 20;

/// Why memory could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused the memory.
    #[error("the host gives no {bytes} bytes of guest memory: {error}")]
    Allocate {
        /// What was asked for.
        bytes: u64,
        /// What the host said.
        error: String,
    },
    /// A file could not be read or mapped.
    #[error("cannot map the {what}: {error}")]
    Map {
        /// Which file.
        what: &'static str,
        /// What the host said.
        error: io::Error,
    },
    /// The kernel image is not one.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file ends before the data that it announces.
    #[error("the {0} is cut off")]
    Short(&'static str),
    /// Kernel and initramfs do not fit.
    #[error("kernel and initramfs do not fit into the guest's memory: {needed} bytes needed, {available} available")]
    TooSmall {
        /// Bytes from the start of the kernel's memory to the end of the initramfs.
        needed: u64,
        /// Bytes of low RAM.
        available: u64,
    },
}

/// Where the initramfs lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initramfs {
    /// Guest-physical address, page-aligned.
    pub gpa: u64,
    /// Length, bytes.
    pub bytes: u64,
}

/// Reserves RAM of that size. Pages exist once they are touched.
///
/// # Errors
/// [`MemoryError::Allocate`].
pub fn allocate(memory_bytes: u64) -> Result<Ram, MemoryError> {
    let fail = |error: String| MemoryError::Allocate { bytes: memory_bytes, error };
    let mut regions = Vec::new();
    for (start, bytes) in layout::ram_regions(memory_bytes) {
        let bytes = usize::try_from(bytes).map_err(|error| fail(error.to_string()))?;
        let mapping = MmapRegion::new(bytes).map_err(|error| fail(error.to_string()))?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(start))
            .ok_or_else(|| fail("the region ends beyond the address space".into()))?;
        regions.push(region);
    }
    GuestMemoryMmap::from_regions(regions).map_err(|error| fail(error.to_string()))
}

/// Maps the flat kernel image to its load address.
///
/// # Errors
/// The file is not a valid image, or does not fit.
pub fn map_kernel(ram: &Ram, file: &mut File) -> Result<kernel::Header, MemoryError> {
    let fail = |error| MemoryError::Map { what: "kernel", error };
    let mut bytes = [0; HEADER_BYTES];
    file.rewind().map_err(fail)?;
    match file.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(KernelError::NotFlat.into());
        }
        Err(error) => return Err(fail(error)),
    }
    let header = kernel::Header::parse(&bytes)?;
    let length = file.metadata().map_err(fail)?.len();
    if length < HEADER_BYTES as u64 + header.image_bytes {
        return Err(MemoryError::Short("kernel image"));
    }
    let available = low_ram_bytes(ram);
    if header.end_gpa > available {
        return Err(MemoryError::TooSmall { needed: header.end_gpa, available });
    }
    map_file_over(ram, header.load_gpa, header.image_bytes, file, HEADER_BYTES as u64).map_err(fail)?;
    Ok(header)
}

/// Maps the initramfs to the end of low RAM, above the kernel's own memory.
///
/// # Errors
/// It is empty, too large, or does not fit.
pub fn map_initramfs(ram: &Ram, file: &File, kernel: &kernel::Header) -> Result<Initramfs, MemoryError> {
    let fail = |error| MemoryError::Map { what: "initramfs", error };
    let bytes = file.metadata().map_err(fail)?.len();
    if bytes == 0 {
        return Err(MemoryError::Short("initramfs"));
    }
    let mapped = bytes.next_multiple_of(PAGE_BYTES);
    let available = low_ram_bytes(ram);
    let needed = kernel.end_gpa + mapped;
    if bytes > MAX_INITRAMFS_BYTES || needed > available {
        return Err(MemoryError::TooSmall { needed, available });
    }
    let gpa = (available - mapped) / PAGE_BYTES * PAGE_BYTES;
    map_file_over(ram, gpa, mapped, file, 0).map_err(fail)?;
    Ok(Initramfs { gpa, bytes })
}

/// The address ranges of guest memory in this process.
#[must_use]
pub fn host_ranges(ram: &Ram) -> Vec<(usize, usize)> {
    ram.iter()
        .map(|region| {
            let start = region.as_ptr() as usize;
            (start, start + region.size())
        })
        .collect()
}

fn low_ram_bytes(ram: &Ram) -> u64 {
    ram.iter().next().map_or(0, |region| region.len())
}

/// Replaces a page-aligned part of RAM by a private mapping of a file: reads come from the file's
/// pages, writes stay in this process.
fn map_file_over(ram: &Ram, gpa: u64, bytes: u64, file: &File, offset: u64) -> io::Result<()> {
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    let slice = ram.get_slice(GuestAddress(gpa), length).map_err(io::Error::other)?;
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let address = slice.ptr_guard_mut().as_ptr().cast::<libc::c_void>();
    // SAFETY: `get_slice` has proved that [address, address + length) lies inside one region that `ram`
    // owns and will unmap as a whole; no reference into that memory exists (devices do not run yet, and
    // guest memory is only ever accessed through volatile copies).
    let mapped = unsafe {
        libc::mmap(
            address,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset,
        )
    };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use vm_memory::Bytes as _;

    fn kernel_file(image: &[u8]) -> (File, kernel::Header) {
        let header = kernel::Header {
            load_gpa: 0x100_0000,
            image_bytes: image.len() as u64,
            end_gpa: 0x100_0000 + image.len() as u64 + PAGE_BYTES,
            entry64_gpa: 0x100_0000,
            entry_pvh_gpa: None,
            build_id: [0; 20],
        };
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&header.to_bytes()).expect("a write");
        file.write_all(image).expect("a write");
        (file, header)
    }

    #[test]
    fn images_are_seen_by_the_guest_and_not_changed_by_it() {
        let ram = allocate(64 << 20).expect("memory");
        let (mut file, header) = kernel_file(&[0xab; 2 * 4096]);
        assert_eq!(map_kernel(&ram, &mut file).expect("mapped"), header);
        let mut initramfs = tempfile::tempfile().expect("a file");
        initramfs.write_all(b"070701 archive").expect("a write");
        let place = map_initramfs(&ram, &initramfs, &header).expect("mapped");
        assert_eq!(place, Initramfs { gpa: (64 << 20) - 4096, bytes: 14 });

        let first: u8 = ram.read_obj(GuestAddress(header.load_gpa)).expect("a read");
        assert_eq!(first, 0xab);
        ram.write_obj(1_u8, GuestAddress(header.load_gpa)).expect("a write");
        let mut text = [0; 20];
        ram.read_slice(&mut text, GuestAddress(place.gpa)).expect("a read");
        assert_eq!(&text, b"070701 archive\0\0\0\0\0\0");

        let again = allocate(64 << 20).expect("memory");
        map_kernel(&again, &mut file).expect("mapped");
        let unchanged: u8 = again.read_obj(GuestAddress(header.load_gpa)).expect("a read");
        assert_eq!(unchanged, 0xab);
    }

    #[test]
    fn a_kernel_that_does_not_fit_is_refused() {
        let ram = allocate(8 << 20).expect("memory");
        let (mut file, _) = kernel_file(&[0; 4096]);
        assert!(matches!(map_kernel(&ram, &mut file), Err(MemoryError::TooSmall { .. })));
        let ram = allocate(64 << 20).expect("memory");
        file.set_len(HEADER_BYTES as u64 + 100).expect("a cut");
        assert!(matches!(map_kernel(&ram, &mut file), Err(MemoryError::Short(_))));
        file.set_len(100).expect("a cut");
        assert!(matches!(map_kernel(&ram, &mut file), Err(MemoryError::Kernel(KernelError::NotFlat))));
    }
}
