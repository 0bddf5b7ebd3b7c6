//! The device against a storage in memory, driven as a guest drives it: descriptors in, used ring out.
#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small, or meant to be cut")]

use super::*;
use crate::memory;
use proptest::prelude::*;
use std::{
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};
use virtio_bindings::{
    virtio_blk::{VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT},
    virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE},
};
use virtio_queue::{
    desc::{RawDescriptor, split::Descriptor},
    mock::MockSplitQueue,
};
use vm_memory::{Bytes as _, GuestAddress};

const RAM_BYTES: u64 = 32 << 20;
const HEADER_GPA: u64 = 0x10_0000;
const DATA_GPA: u64 = 0x11_0000;
const STATUS_GPA: u64 = 0x14_0000;
/// What guest memory holds before the device writes to it.
const UNTOUCHED: u8 = 0xee;

/// Sectors in memory, which fail when told to.
#[derive(Debug, Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    broken: bool,
    flushes: Arc<Mutex<u32>>,
}

impl Memory {
    fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), ..Self::default() }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken { Err(io::Error::other("a broken disk")) } else { Ok(()) }
    }
}

impl Storage for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check()?;
        let bytes = self.bytes.lock().expect("no panic");
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        // Short reads, as files give them.
        let length = rest.len().min(buffer.len()).min(700);
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.check()?;
        let mut bytes = self.bytes.lock().expect("no panic");
        let end = offset as usize + buffer.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(buffer);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.check()?;
        *self.flushes.lock().expect("no panic") += 1;
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check()?;
        let mut bytes = self.bytes.lock().expect("no panic");
        let end = bytes.len().min((offset + length) as usize);
        bytes.get_mut(offset as usize..end).unwrap_or_default().fill(0);
        Ok(())
    }
}

fn ram() -> Ram {
    let ram = memory::allocate(RAM_BYTES).expect("memory");
    ram.write_slice(&[UNTOUCHED; 0x5_0000], GuestAddress(HEADER_GPA)).expect("a write");
    ram
}

/// A descriptor: address, length, whether the device writes to it.
type Part = (u64, u32, bool);

/// Puts one chain into the queue, lets the device work, returns what the used ring says it wrote.
fn drive<S: Storage>(device: &mut Block<S>, ram: &Ram, parts: &[Part]) -> u32 {
    let driver = MockSplitQueue::create(ram, GuestAddress(0x1000), 16);
    let last = parts.len() - 1;
    let descriptors: Vec<RawDescriptor> = parts
        .iter()
        .enumerate()
        .map(|(index, (address, length, written))| {
            let next = if index < last { VRING_DESC_F_NEXT } else { 0 };
            let write = if *written { VRING_DESC_F_WRITE } else { 0 };
            Descriptor::new(*address, *length, (next | write) as u16, index as u16 + 1).into()
        })
        .collect();
    driver.add_desc_chains(&descriptors, 0).expect("a chain");
    let mut queues = [driver.create_queue::<Queue>().expect("a queue")];
    let work = device.process(Event::Queue(0), &mut queues, ram).expect("rings are whole");
    assert!(work.has_used(0));
    driver.used().ring().ref_at(0).expect("an entry").load().len()
}

fn header(kind: u32, sector: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// One well-formed request; returns its status, and how much was written in all.
fn request<S: Storage>(device: &mut Block<S>, ram: &Ram, kind: u32, sector: u64, data: Part) -> (u8, u32) {
    ram.write_slice(&header(kind, sector), GuestAddress(HEADER_GPA)).expect("a write");
    ram.write_obj(UNTOUCHED, GuestAddress(STATUS_GPA)).expect("a write");
    let parts = [(HEADER_GPA, HEADER_BYTES as u32, false), data, (STATUS_GPA, 1, true)];
    let parts: Vec<Part> = parts.into_iter().filter(|(_, length, _)| *length > 0).collect();
    let written = drive(device, ram, &parts);
    (ram.read_obj(GuestAddress(STATUS_GPA)).expect("a read"), written)
}

fn guest_bytes(ram: &Ram, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ram.read_slice(&mut bytes, GuestAddress(DATA_GPA)).expect("a read");
    bytes
}

const OK: u8 = VIRTIO_BLK_S_OK as u8;
const IOERR: u8 = VIRTIO_BLK_S_IOERR as u8;
const UNSUPP: u8 = VIRTIO_BLK_S_UNSUPP as u8;

#[test]
fn a_read_gives_the_sectors_and_zeros_past_the_end_of_the_file() {
    let ram = ram();
    let content: Vec<u8> = (0..200_000_u32).map(|index| index as u8).collect();
    let mut device = Block::new(Memory::holding(content.clone()), content.len() as u64, 0, true);
    // 200,000 bytes are 390.6 sectors: the last is partly zeros.
    let length = 391 * 512 - 512;
    let (status, written) = request(&mut device, &ram, VIRTIO_BLK_T_IN, 1, (DATA_GPA, length, true));
    assert_eq!((status, written), (OK, length + 1));
    let mut expected = content[512..].to_vec();
    expected.resize(length as usize, 0);
    assert_eq!(guest_bytes(&ram, length as usize), expected);
    assert_eq!(device.traffic_bytes(), (content.len() as u64 - 512, 0));
}

#[test]
fn a_write_reaches_the_storage_and_a_flush_too() {
    let ram = ram();
    let storage = Memory::holding(vec![1; 4096]);
    let mut device = Block::new(storage.clone(), 4096, 0, false);
    ram.write_slice(&[7; 1024], GuestAddress(DATA_GPA)).expect("a write");
    assert_eq!(request(&mut device, &ram, VIRTIO_BLK_T_OUT, 2, (DATA_GPA, 1024, false)), (OK, 1));
    let bytes = storage.bytes.lock().expect("no panic").clone();
    assert_eq!((&bytes[..1024], &bytes[1024..2048], &bytes[2048..]), (&[1; 1024][..], &[7; 1024][..], &[1; 2048][..]));
    assert_eq!(request(&mut device, &ram, VIRTIO_BLK_T_FLUSH, 0, (0, 0, false)), (OK, 1));
    assert_eq!(*storage.flushes.lock().expect("no panic"), 1);
    assert_eq!(device.traffic_bytes(), (0, 1024));
}

#[test]
fn what_is_discarded_reads_as_zeros_and_takes_no_room() {
    let ram = ram();
    let file = tempfile::tempfile().expect("a file");
    let mut device = Block::open(file.try_clone().expect("a descriptor"), 0, false).expect("a device");
    assert_eq!(device.features() >> VIRTIO_BLK_F_DISCARD & 1, 1);
    Storage::write_all_at(&file, &[7; 64 * 1024], 0).expect("a write");
    device.capacity_sectors = 128;
    let blocks = |file: &File| std::os::unix::fs::MetadataExt::blocks(&file.metadata().expect("metadata"));
    let before = blocks(&file);
    let mut discard = |sector: u64, sectors: u32, length| {
        ram.write_slice(&[&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &[0; 4]].concat(), GuestAddress(DATA_GPA))
            .expect("a write");
        request(&mut device, &ram, VIRTIO_BLK_T_DISCARD, 0, (DATA_GPA, length, false))
    };
    assert_eq!(discard(8, 112, 16), (OK, 1));
    assert_eq!((discard(8, 0, 16), discard(8, 121, 16)), ((OK, 1), (IOERR, 1)));
    assert_eq!((discard(8, 1, 15).0, discard(8, 1, 0).0), (IOERR, IOERR));
    let mut bytes = vec![0; 64 * 1024];
    file.read_exact_at(&mut bytes, 0).expect("a read");
    let expected = [vec![7; 4096], vec![0; 56 * 1024], vec![7; 4096]].concat();
    assert!(bytes == expected && blocks(&file) < before, "{} blocks of {before}", blocks(&file));
    let mut read_only = Block::new(Memory::holding(vec![1; 4096]), 4096, 0, true);
    assert_eq!(read_only.features() >> VIRTIO_BLK_F_DISCARD & 1, 0);
    assert_eq!(request(&mut read_only, &ram, VIRTIO_BLK_T_DISCARD, 0, (DATA_GPA, 16, false)), (IOERR, 1));
}

#[test]
fn a_read_only_disk_refuses_writes_and_says_so_beforehand() {
    let ram = ram();
    let storage = Memory::holding(vec![1; 4096]);
    let mut device = Block::new(storage.clone(), 4096, 0, true);
    assert_eq!(device.features() >> VIRTIO_BLK_F_RO & 1, 1);
    assert_eq!(request(&mut device, &ram, VIRTIO_BLK_T_OUT, 0, (DATA_GPA, 512, false)), (IOERR, 1));
    assert_eq!(*storage.bytes.lock().expect("no panic"), vec![1; 4096]);
}

#[test]
fn what_is_not_a_request_gets_its_status() {
    let ram = ram();
    let mut device = Block::new(Memory::holding(vec![1; 4096]), 4096, 3, false);
    let mut check = |kind, sector, data, expected| {
        assert_eq!(request(&mut device, &ram, kind, sector, data).0, expected, "{kind} at {sector}");
    };
    check(VIRTIO_BLK_T_IN, 8, (DATA_GPA, 512, true), IOERR);
    check(VIRTIO_BLK_T_IN, u64::MAX, (DATA_GPA, 512, true), IOERR);
    check(VIRTIO_BLK_T_IN, 0, (DATA_GPA, 100, true), IOERR);
    check(99, 0, (DATA_GPA, 512, true), UNSUPP);
    check(VIRTIO_BLK_T_GET_ID, 0, (DATA_GPA, 20, true), OK);
    assert_eq!(&guest_bytes(&ram, 11), b"beth-disk-3");
}

#[test]
fn a_broken_disk_is_an_error_of_the_request_alone() {
    let ram = ram();
    let storage = Memory { broken: true, ..Memory::holding(vec![1; 4096]) };
    let mut device = Block::new(storage, 4096, 0, false);
    for (kind, written) in [(VIRTIO_BLK_T_IN, true), (VIRTIO_BLK_T_OUT, false), (VIRTIO_BLK_T_FLUSH, false)] {
        assert_eq!(request(&mut device, &ram, kind, 0, (DATA_GPA, 512, written)).0, IOERR);
    }
}

#[test]
fn a_chain_without_a_place_for_the_status_is_returned_empty() {
    let ram = ram();
    let mut device = Block::new(Memory::holding(vec![1; 4096]), 4096, 0, false);
    assert_eq!(drive(&mut device, &ram, &[(HEADER_GPA, 16, false)]), 0);
    // The status alone: there is no header.
    assert_eq!(drive(&mut device, &ram, &[(STATUS_GPA, 1, true)]), 1);
    assert_eq!(ram.read_obj::<u8>(GuestAddress(STATUS_GPA)).expect("a read"), IOERR);
}

#[test]
fn the_configuration_is_the_size_and_reads_past_it_change_nothing() {
    let device = Block::new(Memory::default(), 1000, 0, false);
    let mut bytes = [UNTOUCHED; 56];
    device.read_config(0, &mut bytes);
    assert_eq!(bytes[..8], 2_u64.to_le_bytes());
    assert_eq!(bytes[36..48], [0, 0, 2, 0, 1, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(bytes[48..], [UNTOUCHED; 8]);
    let mut bytes = [UNTOUCHED; 4];
    device.read_config(u64::MAX, &mut bytes);
    assert_eq!(bytes, [UNTOUCHED; 4]);
}

/// A guest that went on from another program's machine could not read code that is longer than that program's was: I/O errors.
#[test]
fn a_disk_that_is_only_read_is_longer_than_any_file() {
    let capacity = |read_only| {
        let device = Block::new(Memory::holding(vec![1; 512]), 512, 0, read_only);
        let mut sectors = [0; 8];
        device.read_config(0, &mut sectors);
        u64::from_le_bytes(sectors)
    };
    assert_eq!((capacity(true), capacity(false)), (READ_ONLY_SECTORS, 1));
    let ram = ram();
    let mut device = Block::new(Memory::holding(vec![1; 512]), 512, 0, true);
    ram.write_slice(&header(VIRTIO_BLK_T_IN, 1 << 20), GuestAddress(HEADER_GPA)).expect("a write");
    drive(&mut device, &ram, &[(HEADER_GPA, HEADER_BYTES as u32, false), (DATA_GPA, 512, true), (STATUS_GPA, 1, true)]);
    let mut read = [UNTOUCHED; 512];
    ram.read_slice(&mut read, GuestAddress(DATA_GPA)).expect("a read");
    assert_eq!(read, [0; 512]);
    assert_eq!(ram.read_obj::<u8>(GuestAddress(STATUS_GPA)).expect("a read"), 0);
}

proptest! {
    /// Whatever a guest chains together: no panic, nothing written beside the buffers it gave, and no
    /// request that changes more of the storage than there are sectors.
    #[test]
    fn hostile_chains_stay_in_their_buffers(
        kind in prop_oneof![0..5_u32, Just(VIRTIO_BLK_T_DISCARD), any::<u32>()],
        sector in prop_oneof![0..10_u64, any::<u64>()],
        parts in proptest::collection::vec((0..64_u64, prop_oneof![0..2000_u32, any::<u32>()], any::<bool>()), 1..8),
        read_only: bool,
    ) {
        let ram = ram();
        ram.write_slice(&header(kind, sector), GuestAddress(HEADER_GPA)).expect("a write");
        let storage = Memory::holding(vec![1; 4096]);
        let mut device = Block::new(storage.clone(), 4096, 0, read_only);
        let mut chain: Vec<Part> = vec![(HEADER_GPA, HEADER_BYTES as u32, false)];
        chain.extend(parts.iter().map(|(page, length, written)| (DATA_GPA + page * 4096, *length, *written)));
        drive(&mut device, &ram, &chain);
        prop_assert!(storage.bytes.lock().expect("no panic").len() <= 4096);
        let mut all = vec![0; 0x5_0000];
        ram.read_slice(&mut all, GuestAddress(HEADER_GPA)).expect("a read");
        for (offset, byte) in all.iter().enumerate().skip(HEADER_BYTES) {
            let gpa = HEADER_GPA + offset as u64;
            let given = chain.iter().any(|(start, length, written)| *written && (*start..*start + u64::from(*length)).contains(&gpa));
            prop_assert!(given || *byte == UNTOUCHED, "{gpa:#x} was written");
        }
    }

    /// Rings of any content: an error for the transport, or an answer, never a panic.
    #[test]
    fn hostile_rings_are_an_error_at_most(content in proptest::collection::vec(any::<u8>(), 1024), at in 0..64_u64) {
        let ram = ram();
        let driver = MockSplitQueue::create(&ram, GuestAddress(0x1000), 16);
        let mut queues = [driver.create_queue::<Queue>().expect("a queue")];
        ram.write_slice(&content, GuestAddress(0x1000 + at * 8)).expect("a write");
        let mut device = Block::new(Memory::holding(vec![1; 4096]), 4096, 0, false);
        let _ = device.process(Event::Queue(0), &mut queues, &ram);
    }
}
