//! Finding out which pages a clone touches, in its monitor's own page table.

use super::{Half, WorkingSet};
use crate::{
    kernel::PAGE_BYTES,
    memory::{self, Ram},
};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
};
use vm_memory::{Address as _, GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

/// Entries of the page map that are read at once.
const ENTRIES: usize = 512;
const ENTRY_BYTES: usize = 8;
/// Bits of an entry: there is a page; it is in swap; it is a file's.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// `linux/userfaultfd.h`: requests, the version, what is asked for.
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
/// Faults in kernel mode are not told: what nobody needs a capability for.
const USER_MODE_ONLY: UserfaultfdFlags = UserfaultfdFlags::from_bits_retain(1);

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// Says which pages of this process there are (`proc_pid_pagemap(5)`).
#[derive(Debug)]
pub struct PageMap(File);

impl PageMap {
    /// Opens that of this process, while it has a `/proc`. Of physical memory it says nothing to a process that has no capabilities then.
    ///
    /// # Errors
    /// The kernel has none, or refuses.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Watches a private mapping of a file that nobody has touched yet.
    #[must_use]
    pub fn watch(self, ram: &Ram) -> Watch {
        Watch { page_map: self.0, alone: keep_neighbours_out(ram).ok() }
    }
}

/// As long as what is returned is open, no page of `ram` is mapped that was not touched.
///
/// # Errors
/// The kernel has no userfaultfd that bears that, which came with Linux 6.7, or does not allow it.
fn keep_neighbours_out(ram: &Ram) -> io::Result<OwnedFd> {
    // SAFETY: faults in kernel mode, which KVM's are, stay the kernel's own: nothing waits for an answer from here.
    let alone = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC | USER_MODE_ONLY)? };
    let checked = |result| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let mut api = UffdioApi { api: UFFD_API, features: UFFD_FEATURE_WP_ASYNC, ioctls: 0 };
    // SAFETY: the request reads and writes one `uffdio_api`, which `api` is.
    checked(unsafe { ioctl_with_mut_ref(&alone, UFFDIO_API, &mut api) })?;
    for (start, end) in memory::host_ranges(ram) {
        let (start, length) = (start as u64, (end - start) as u64);
        let mut register = UffdioRegister { start, length, mode: UFFDIO_REGISTER_MODE_WP, ioctls: 0 };
        // SAFETY: the request reads and writes one `uffdio_register`; it changes how pages of `ram` come, not what is in them.
        checked(unsafe { ioctl_with_mut_ref(&alone, UFFDIO_REGISTER, &mut register) })?;
    }
    Ok(alone)
}

/// Guest memory that is watched.
#[derive(Debug)]
pub struct Watch {
    page_map: File,
    /// None on a host that maps neighbours of what is read: of it only what was written is known.
    alone: Option<OwnedFd>,
}

impl Watch {
    /// What was touched of the memory that is watched.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn touched(&self, ram: &Ram) -> io::Result<WorkingSet> {
        let (mut written, mut read) = (Half::default(), Half::default());
        let mut bytes = [0; ENTRIES * ENTRY_BYTES];
        let start_of = |pages: u64| pages * PAGE_BYTES;
        for (region, (start, _)) in ram.iter().zip(memory::host_ranges(ram)) {
            let (pages, first_gpa) = (region.len() / PAGE_BYTES, region.start_addr().raw_value());
            let mut page = 0;
            while page < pages {
                let count = usize::try_from(pages - page).map_or(ENTRIES, |left| left.min(ENTRIES));
                let chunk = &mut bytes[..count * ENTRY_BYTES];
                let entry = (start as u64 + start_of(page)) / PAGE_BYTES;
                self.page_map.read_exact_at(chunk, entry * ENTRY_BYTES as u64)?;
                let entries = chunk
                    .chunks_exact(ENTRY_BYTES)
                    .map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()));
                for (gpa, entry) in (first_gpa + start_of(page)..).step_by(4096).zip(entries) {
                    if entry & (PRESENT | SWAPPED) != 0 {
                        let half = if entry & OF_FILE == 0 { &mut written } else { &mut read };
                        half.add(gpa / PAGE_BYTES);
                    }
                }
                page += count as u64;
            }
        }
        let read = self.alone.as_ref().map(|_| read.ranges);
        Ok(WorkingSet { written: written.ranges, read: read.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::working_set::{PageRange, have_read, have_written};
    use vm_memory::{Bytes as _, GuestAddress};

    /// None on a kernel that maps neighbours.
    #[expect(clippy::print_stdout, reason = "who reads the run sees what was left out")]
    fn watch(ram: &Ram) -> Option<Watch> {
        let watch = PageMap::open().expect("a page map").watch(ram);
        if watch.alone.is_none() {
            println!("skipped: this kernel maps neighbours of what is read");
        }
        watch.alone.is_some().then_some(watch)
    }

    #[test]
    fn what_is_written_is_known_on_any_kernel() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(16 << 20).expect("a length");
        let ram = memory::map(file, 16 << 20, &[]).expect("memory");
        let watch = Watch { page_map: PageMap::open().expect("a page map").0, alone: None };
        assert_eq!(ram.read_obj::<u8>(GuestAddress(5 * PAGE_BYTES)).expect("a read"), 0);
        ram.write_obj(7_u8, GuestAddress(9 * PAGE_BYTES)).expect("a write");
        let written = vec![PageRange { first: 9, pages: 1 }];
        assert_eq!(watch.touched(&ram).expect("an answer"), WorkingSet { written, read: Vec::new() });
    }

    #[test]
    fn what_is_read_and_what_is_written_is_told_apart_without_neighbours() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(16 << 20).expect("a length");
        file.write_all_at(&[1; 1 << 20], 0).expect("a write");
        let ram = memory::map(file, 16 << 20, &[]).expect("memory");
        let Some(watch) = watch(&ram) else { return };
        assert!(watch.touched(&ram).expect("an answer").is_empty());
        let read = |page: u64| ram.read_obj::<u8>(GuestAddress(page * PAGE_BYTES)).expect("a read");
        assert_eq!((read(3), read(4), read(9), read(1000)), (1, 1, 1, 0));
        for page in [9, 2000] {
            ram.write_obj(7_u8, GuestAddress(page * PAGE_BYTES)).expect("a write");
        }
        let ranges = |pages: &[(u32, u16)]| {
            pages.iter().map(|(first, pages)| PageRange { first: *first, pages: *pages }).collect()
        };
        let expected = WorkingSet { written: ranges(&[(9, 1), (2000, 1)]), read: ranges(&[(3, 2), (1000, 1)]) };
        assert_eq!(watch.touched(&ram).expect("an answer"), expected);
    }

    /// An access that changes nothing is a read in the eyes of an optimizer that knows it.
    #[test]
    fn a_set_that_one_machine_had_the_next_has_before_it_runs() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(16 << 20).expect("a length");
        let ram = memory::map(file, 16 << 20, &[]).expect("memory");
        let Some(watch) = watch(&ram) else { return };
        let range = |first, pages| PageRange { first, pages };
        let set = WorkingSet { written: vec![range(9, 3), range(2000, 1)], read: vec![range(3, 2), range(4095, 1)] };
        have_written(&ram, &set);
        have_read(&ram, &set);
        assert_eq!(watch.touched(&ram).expect("an answer"), set);
    }
}
