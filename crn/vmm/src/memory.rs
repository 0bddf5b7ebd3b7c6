//! The guest's RAM: private anonymous memory with the kernel and the initramfs copied into it, or a private view of a snapshot's.

use crate::{
    arch::x86_64::layout,
    hole::{Hole, MAX_HOLES},
    kernel::{self, HEADER_BYTES, KernelError, PAGE_BYTES},
};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    sync::Arc,
};
use vm_memory::{
    Address as _, Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap,
    GuestMemoryRegion as _, GuestRegionMmap, MmapRegion, ReadVolatile, VolatileMemory as _, VolatileMemoryError,
    VolatileSlice, bitmap::BitmapSlice, mmap::MmapRegionBuilder,
};

/// Guest memory as devices see it.
pub type Ram = GuestMemoryMmap<()>;

/// Largest initramfs, bytes: ours holds one small program.
pub const MAX_INITRAMFS_BYTES: u64 = 64 << 20;

/// RAM is read for a snapshot in pieces of that many bytes.
const SAVE_BYTES: usize = 1 << 20;

/// Size of a huge page, bytes.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

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
    /// A file could not be read.
    #[error("cannot read the {what}: {error}")]
    Read {
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

/// RAM of that size that begins as a snapshot's memory file: its pages are shared until the guest writes to them.
///
/// In `holes` the file has nothing ([`crate::hole`]); more than [`MAX_HOLES`] are not looked at, and what lies beyond the memory is not.
///
/// The caller's file must never change: a guest would see it.
///
/// # Errors
/// The file is shorter than the memory, or the host refuses.
pub fn map(file: File, memory_bytes: u64, holes: &[Hole]) -> Result<Ram, MemoryError> {
    let fail = |error: String| MemoryError::Allocate { bytes: memory_bytes, error };
    let length = file.metadata().map_err(|error| MemoryError::Read { what: "memory of the snapshot", error })?.len();
    if length < memory_bytes {
        // What lies past its end would end the process when it is touched.
        return Err(MemoryError::Short("memory of the snapshot"));
    }
    let file = Arc::new(file);
    let mut regions = Vec::new();
    let mut offset = 0;
    for (start, bytes) in layout::ram_regions(memory_bytes) {
        let length = usize::try_from(bytes).map_err(|error| fail(error.to_string()))?;
        let mapping = MmapRegionBuilder::new(length)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::from_arc(Arc::clone(&file), offset))
            .build()
            .map_err(|error| fail(error.to_string()))?;
        for hole in holes.iter().take(MAX_HOLES).map(|hole| hole.bytes()) {
            let (from, to) = (hole.start.max(offset), hole.end.min(offset + bytes));
            if from < to {
                leave_out(&mapping, from - offset, to - from).map_err(|error| fail(error.to_string()))?;
            }
        }
        refuse_huge_pages(&mapping);
        let region = GuestRegionMmap::new(mapping, GuestAddress(start))
            .ok_or_else(|| fail("the region ends beyond the address space".into()))?;
        regions.push(region);
        offset += bytes;
    }
    GuestMemoryMmap::from_regions(regions).map_err(|error| fail(error.to_string()))
}

/// Has a part of a new mapping be zeros of its own instead of the file's.
fn leave_out(mapping: &MmapRegion, offset: u64, bytes: u64) -> io::Result<()> {
    let slice = usize::try_from(offset).ok().zip(usize::try_from(bytes).ok());
    let slice = slice.and_then(|(offset, length)| mapping.get_slice(offset, length).ok());
    let slice = slice.ok_or(io::ErrorKind::InvalidInput)?;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let flags = flags | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let address = slice.ptr_guard_mut().as_ptr().cast::<libc::c_void>();
    // SAFETY: `get_slice` has proved that the range lies inside `mapping`, which is private, new, and used by nobody yet; whoever unmaps it
    // unmaps this part with it. A range that does not begin at a page is refused by the kernel.
    match unsafe { libc::mmap(address, slice.len(), protection, flags, -1, 0) } {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Writes RAM into an empty file that is as long as it, leaving holes where it is zero. Returns how many bytes are not in holes. No
/// processor runs meanwhile.
///
/// # Errors
/// The host's disk.
pub fn save(ram: &Ram, file: &File) -> io::Result<u64> {
    let mut buffer = vec![0; SAVE_BYTES];
    let mut offset = 0;
    let mut kept = 0;
    for region in ram.iter() {
        let mut at = 0;
        while at < region.len() {
            let length = usize::try_from(region.len() - at).map_or(SAVE_BYTES, |left| left.min(SAVE_BYTES));
            let chunk = &mut buffer[..length];
            let address = region.start_addr().unchecked_add(at);
            ram.read_slice(chunk, address).map_err(io::Error::other)?;
            for (from, to) in full_pages(chunk) {
                file.write_all_at(&chunk[from..to], offset + at + from as u64)?;
                kept += (to - from) as u64;
            }
            at += length as u64;
        }
        offset += region.len();
    }
    Ok(kept)
}

/// Ranges of whole pages of which each holds a byte that is not zero.
fn full_pages(chunk: &[u8]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    #[expect(clippy::cast_possible_truncation, reason = "a page is 4096 bytes")]
    const PAGE: usize = PAGE_BYTES as usize;
    for (index, page) in chunk.chunks(PAGE).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let from = index * PAGE;
        match ranges.last_mut() {
            Some(last) if last.1 == from => last.1 += page.len(),
            _ => ranges.push((from, from + page.len())),
        }
    }
    ranges
}

/// Copies the flat kernel image to its load address, into huge pages where the host has them.
///
/// Mapping the file instead would copy nothing here, and more later: a starting kernel patches itself all
/// over its text, so that nearly each of its small pages was faulted in, then copied, one exit each
/// (counted: 6,100 exits from entry to init when mapped, 1,200 when copied).
///
/// # Errors
/// The file is not a valid image, or does not fit.
pub fn load_kernel(ram: &Ram, file: &mut File) -> Result<kernel::Header, MemoryError> {
    let fail = |error| MemoryError::Read { what: "kernel", error };
    let mut bytes = [0; HEADER_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
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
    prefer_huge_pages(ram, header.load_gpa, header.end_gpa.next_multiple_of(HUGE_PAGE_BYTES).min(available));
    copy_to(ram, header.load_gpa, header.image_bytes, FileAt { file, offset: HEADER_BYTES as u64 }).map_err(fail)?;
    Ok(header)
}

/// Copies the initramfs to where the kernel's own memory ends: into the kernel's last huge page, as a rule.
///
/// # Errors
/// It is empty, too large, or does not fit.
pub fn load_initramfs(ram: &Ram, file: &mut File, kernel: &kernel::Header) -> Result<Initramfs, MemoryError> {
    let fail = |error| MemoryError::Read { what: "initramfs", error };
    let bytes = file.metadata().map_err(fail)?.len();
    if bytes == 0 {
        return Err(MemoryError::Short("initramfs"));
    }
    let gpa = kernel.end_gpa.next_multiple_of(PAGE_BYTES);
    let available = low_ram_bytes(ram);
    let needed = gpa.saturating_add(bytes.next_multiple_of(PAGE_BYTES));
    if bytes > MAX_INITRAMFS_BYTES || needed > available {
        return Err(MemoryError::TooSmall { needed, available });
    }
    copy_to(ram, gpa, bytes, FileAt { file, offset: 0 }).map_err(fail)?;
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

/// Gives the pages of a range back to the host. False, and nothing done, when the range is not whole pages of one region, or
/// the host refuses.
///
/// What is read there afterwards is what the mapping began with: zeros in anonymous memory, the file's bytes in a private
/// mapping of a file. Pages of a guest must go only when it says that it does not need them.
#[must_use]
pub fn release(ram: &Ram, gpa: u64, bytes: u64) -> bool {
    let Ok(length) = usize::try_from(bytes) else {
        return false;
    };
    if length == 0 || !gpa.is_multiple_of(PAGE_BYTES) || !bytes.is_multiple_of(PAGE_BYTES) {
        return false;
    }
    let Ok(slice) = ram.get_slice(GuestAddress(gpa), length) else {
        return false;
    };
    let address = slice.ptr_guard_mut().as_ptr().cast::<libc::c_void>();
    // SAFETY: `get_slice` has proved that the range lies inside one region that `ram` owns, and regions begin at pages. The
    // mapping stays; that its content changes without a write of ours is what guest memory does at all times, and nothing
    // but volatile accesses looks at it.
    unsafe { libc::madvise(address, length, libc::MADV_DONTNEED) == 0 }
}

fn low_ram_bytes(ram: &Ram) -> u64 {
    ram.iter().next().map_or(0, |region| region.len())
}

fn copy_to(ram: &Ram, gpa: u64, bytes: u64, mut file: FileAt<'_>) -> io::Result<()> {
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    ram.read_exact_volatile_from(GuestAddress(gpa), &mut file, length).map_err(io::Error::other)
}

/// A file that is read from an offset of our own: its position belongs to all monitors that were handed the same open file.
struct FileAt<'a> {
    file: &'a File,
    offset: u64,
}

impl ReadVolatile for FileAt<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let offset = libc::off64_t::try_from(self.offset)
            .map_err(|error| VolatileMemoryError::IOError(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let guard = buffer.ptr_guard_mut();
        let read = loop {
            // SAFETY: the slice owns `buffer.len()` bytes from this pointer on, and is borrowed exclusively; the kernel writes no more than
            // that. What a guest makes of the bytes meanwhile is defined for volatile memory, and there is no guest yet.
            let read = unsafe {
                libc::pread64(self.file.as_raw_fd(), guard.as_ptr().cast::<libc::c_void>(), buffer.len(), offset)
            };
            if let Ok(read) = usize::try_from(read) {
                break read;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(VolatileMemoryError::IOError(error));
            }
        };
        buffer.bitmap().mark_dirty(0, read);
        self.offset += read as u64;
        Ok(read)
    }
}

/// Has all of a mapping come in small pages: an idle clone touches a few hundred here and there, and would have two MiB for each.
fn refuse_huge_pages(mapping: &MmapRegion) {
    let address = mapping.as_ptr().cast::<libc::c_void>();
    // SAFETY: the range is that of `mapping`; the advice changes the size of its pages, not what is in them. A host without huge pages
    // refuses it, and has small ones.
    unsafe { libc::madvise(address, mapping.size(), libc::MADV_NOHUGEPAGE) };
}

/// Asks for huge pages for a part of RAM. A host without them gives small ones.
fn prefer_huge_pages(ram: &Ram, from_gpa: u64, to_gpa: u64) {
    let Ok(length) = usize::try_from(to_gpa - from_gpa) else {
        return;
    };
    let Ok(slice) = ram.get_slice(GuestAddress(from_gpa), length) else {
        return;
    };
    let address = slice.ptr_guard_mut().as_ptr().cast::<libc::c_void>();
    // SAFETY: `get_slice` has proved that the range lies inside one region that `ram` owns; the advice
    // changes the size of its pages, not what is in them.
    unsafe { libc::madvise(address, length, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hole;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::{io::Write as _, os::unix::fs::MetadataExt as _};

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
        assert_eq!(load_kernel(&ram, &mut file).expect("loaded"), header);
        let mut initramfs = tempfile::tempfile().expect("a file");
        initramfs.write_all(b"070701 archive").expect("a write");
        let place = load_initramfs(&ram, &mut initramfs, &header).expect("loaded");
        assert_eq!(place, Initramfs { gpa: header.end_gpa, bytes: 14 });

        let first: u8 = ram.read_obj(GuestAddress(header.load_gpa)).expect("a read");
        assert_eq!(first, 0xab);
        ram.write_obj(1_u8, GuestAddress(header.load_gpa)).expect("a write");
        let mut text = [0; 20];
        ram.read_slice(&mut text, GuestAddress(place.gpa)).expect("a read");
        assert_eq!(&text, b"070701 archive\0\0\0\0\0\0");
        let empty = tempfile::tempfile().expect("a file");
        let refused = load_initramfs(&ram, &mut { empty }, &header);
        assert!(matches!(refused, Err(MemoryError::Short(_))), "{refused:?}");

        let again = allocate(64 << 20).expect("memory");
        load_kernel(&again, &mut file).expect("loaded");
        let unchanged: u8 = again.read_obj(GuestAddress(header.load_gpa)).expect("a read");
        assert_eq!(unchanged, 0xab);
    }

    /// Monitors of one node are handed the same open file, and with it its position: two that started at once each read parts of the
    /// kernel, and both failed.
    #[test]
    fn machines_that_start_at_once_read_the_whole_kernel_each() {
        // No page is like another.
        let image: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
        let (file, header) = kernel_file(&image);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let mut file = file.try_clone().expect("the same open file");
                let image = &image;
                scope.spawn(move || {
                    for _ in 0..4 {
                        let ram = allocate(64 << 20).expect("memory");
                        assert_eq!(load_kernel(&ram, &mut file).expect("loaded"), header);
                        let mut read = vec![0; image.len()];
                        ram.read_slice(&mut read, GuestAddress(header.load_gpa)).expect("a read");
                        assert!(read == *image, "parts of the kernel are missing");
                    }
                });
            }
        });
    }

    /// Files in memory have a page from then on for what a clone writes to; holes that are left out have none.
    #[test]
    fn a_hole_is_zero_and_what_is_written_there_is_the_clones_alone() {
        const PAGES: u32 = 1024;
        let file = File::from(memfd_create("memory", MemfdFlags::CLOEXEC).expect("a file in memory"));
        let bytes = u64::from(PAGES) * PAGE_BYTES;
        file.set_len(bytes).expect("a length");
        file.write_all_at(&[7; 2 * 4096], 0).expect("a write");
        file.write_all_at(&[7; 4096], bytes - PAGE_BYTES).expect("a write");
        let pages_of_file = || file.metadata().expect("metadata").blocks() * 512 / PAGE_BYTES;
        assert_eq!(pages_of_file(), 3);
        let all = Hole { first: 2, pages: PAGES - 3 };
        assert_eq!(hole::largest(&file).expect("looked at"), [all]);
        // What lies beyond the memory is nobody's, and the fifth is not looked at.
        let holes = [all, Hole { first: PAGES, pages: 7 }, Hole { first: u32::MAX, pages: u32::MAX }];
        let beyond = [holes.as_slice(), &[Hole { first: 0, pages: 0 }, Hole { first: 0, pages: PAGES }]].concat();
        let clone = map(file.try_clone().expect("the same file"), bytes, &beyond).expect("memory");
        let read = |page: u32| clone.read_obj::<u8>(GuestAddress(u64::from(page) * PAGE_BYTES)).expect("a read");
        assert_eq!([0, 1, 2, PAGES - 2, PAGES - 1].map(read), [7, 7, 0, 0, 7]);
        for page in (0..u64::from(PAGES)).step_by(16) {
            clone.write_obj(9_u8, GuestAddress(page * PAGE_BYTES)).expect("a write");
        }
        assert_eq!([0, 1, 16, PAGES - 16, PAGES - 1].map(read), [9, 7, 9, 9, 7]);
        assert_eq!(pages_of_file(), 3, "pages of the file came to be");
        assert!(release(&clone, 16 * PAGE_BYTES, PAGE_BYTES));
        assert_eq!(read(16), 0);
    }

    /// A clone's memory is a private mapping of a template: what it gives back is its own copy, and the template stays.
    #[test]
    fn a_released_page_is_what_the_mapping_began_with() {
        let (own, template) = ([7_u8; 4096], [3_u8; 4096]);
        let mut file = tempfile::tempfile().expect("a file");
        for _ in 0..4 {
            file.write_all(&template).expect("a write");
        }
        let mapping = MmapRegionBuilder::new(4 * 4096)
            .with_file_offset(FileOffset::new(file.try_clone().expect("the same file"), 0))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .build()
            .expect("a mapping");
        let region = GuestRegionMmap::new(mapping, GuestAddress(0)).expect("a region");
        let clone = GuestMemoryMmap::from_regions(vec![region]).expect("memory");
        for (ram, first) in [(clone, template), (allocate(4 << 20).expect("memory"), [0; 4096])] {
            for page in 0..4 {
                ram.write_slice(&own, GuestAddress(page * 4096)).expect("a write");
            }
            assert!(release(&ram, 4096, 2 * 4096));
            let mut pages = [0; 4 * 4096];
            ram.read_slice(&mut pages, GuestAddress(0)).expect("a read");
            assert!(pages[..] == [own, first, first, own].concat());
        }
        let mut kept = [0; 4096];
        file.read_exact_at(&mut kept, 4096).expect("a read");
        assert!(kept == template);
    }

    #[test]
    fn a_range_over_a_hole_is_not_released() {
        let ram = allocate(layout::LOW_RAM_END_GPA + (1 << 20)).expect("memory");
        let last = layout::LOW_RAM_END_GPA - 4096;
        ram.write_obj(1_u8, GuestAddress(last)).expect("a write");
        assert!(!release(&ram, last, 2 * 4096));
        assert!(!release(&ram, last, (layout::HIGH_RAM_GPA - last) + 4096));
        assert_eq!(ram.read_obj::<u8>(GuestAddress(last)).expect("a read"), 1);
        assert!(release(&ram, last, 4096) && release(&ram, layout::HIGH_RAM_GPA, 4096));
        assert_eq!(ram.read_obj::<u8>(GuestAddress(last)).expect("a read"), 0);
    }

    #[test]
    fn memory_comes_back_from_its_file_and_what_is_zero_takes_no_room() {
        use std::os::unix::fs::MetadataExt as _;
        const BYTES: u64 = 64 << 20;
        let ram = allocate(BYTES).expect("memory");
        let pages = [0_u64, 1, 255, 256, 4000, BYTES / PAGE_BYTES - 1];
        for page in pages {
            ram.write_obj(page + 1, GuestAddress(page * PAGE_BYTES + 8 * (page % 512))).expect("a write");
        }
        let file = tempfile::tempfile().expect("a file");
        file.set_len(BYTES).expect("a length");
        assert_eq!(save(&ram, &file).expect("saved"), pages.len() as u64 * PAGE_BYTES);
        assert!(file.metadata().expect("metadata").blocks() * 512 <= 64 * PAGE_BYTES, "holes are holes");

        let clones = [0, 1].map(|_| map(file.try_clone().expect("a descriptor"), BYTES, &[]).expect("mapped"));
        for (clone, mark) in clones.iter().zip([0xaa_u8, 0xbb]) {
            for page in pages {
                let at = GuestAddress(page * PAGE_BYTES + 8 * (page % 512));
                assert_eq!(clone.read_obj::<u64>(at).expect("a read"), page + 1);
            }
            clone.write_obj(mark, GuestAddress(2 * PAGE_BYTES)).expect("a write");
        }
        let marks = clones.map(|clone| clone.read_obj::<u8>(GuestAddress(2 * PAGE_BYTES)).expect("a read"));
        assert_eq!(marks, [0xaa, 0xbb], "clones do not see each other's writes");
        let mut byte = [1];
        file.read_exact_at(&mut byte, 2 * PAGE_BYTES).expect("a read");
        assert_eq!(byte, [0], "nor does the file");
        file.set_len(BYTES - 1).expect("a cut");
        assert!(matches!(map(file, BYTES, &[]), Err(MemoryError::Short(_))));
    }

    #[test]
    fn a_kernel_that_does_not_fit_is_refused() {
        let ram = allocate(8 << 20).expect("memory");
        let (mut file, _) = kernel_file(&[0; 4096]);
        assert!(matches!(load_kernel(&ram, &mut file), Err(MemoryError::TooSmall { .. })));
        let ram = allocate(64 << 20).expect("memory");
        file.set_len(HEADER_BYTES as u64 + 100).expect("a cut");
        assert!(matches!(load_kernel(&ram, &mut file), Err(MemoryError::Short(_))));
        file.set_len(100).expect("a cut");
        assert!(matches!(load_kernel(&ram, &mut file), Err(MemoryError::Kernel(KernelError::NotFlat))));
    }
}
