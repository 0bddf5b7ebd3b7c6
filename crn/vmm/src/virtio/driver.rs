//! A driver's side of a queue, for tests of devices: puts chains in, sees what was used.
#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small, or meant to be cut")]

use crate::memory::Ram;
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

/// One descriptor of a chain: guest-physical address, length in bytes, flags besides the link to the next.
pub(crate) type Part = (u64, u32, u32);

/// The flag of what the device may write to.
pub(crate) const WRITABLE: u32 = VRING_DESC_F_WRITE;

/// What a queue takes of memory, at least: three pages, for up to 256 descriptors.
pub(crate) const QUEUE_BYTES: u64 = 0x3000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;

/// A driver of one queue.
#[derive(Debug)]
pub(crate) struct Driver<'a> {
    ram: &'a Ram,
    gpa: u64,
    size: u16,
    next_descriptor: u16,
    available: u16,
    seen: u16,
}

impl<'a> Driver<'a> {
    /// An empty queue of that size at that address.
    pub(crate) fn new(ram: &'a Ram, gpa: u64, size: u16) -> Self {
        ram.write_slice(&[0; QUEUE_BYTES as usize], GuestAddress(gpa)).expect("a queue in memory");
        Self { ram, gpa, size, next_descriptor: 0, available: 0, seen: 0 }
    }

    /// The device's side.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).expect("a power of two");
        queue.set_desc_table_address(Some(self.gpa as u32), None);
        queue.set_avail_ring_address(Some((self.gpa + AVAILABLE) as u32), None);
        queue.set_used_ring_address(Some((self.gpa + USED) as u32), None);
        queue.set_ready(true);
        queue
    }

    /// Makes a chain available; returns its head. Descriptors are used in turn: no more of them may be under way than the
    /// queue has.
    pub(crate) fn add(&mut self, parts: &[Part]) -> u16 {
        let head = self.next_descriptor;
        for (index, (gpa, length, flags)) in parts.iter().enumerate() {
            let own = self.next_descriptor;
            self.next_descriptor = (own + 1) % self.size;
            let link = if index + 1 < parts.len() { VRING_DESC_F_NEXT } else { 0 };
            let address = GuestAddress(self.gpa + u64::from(own) * 16);
            self.ram.write_obj(*gpa, address).expect("a write");
            self.ram.write_obj(*length, GuestAddress(address.0 + 8)).expect("a write");
            self.ram.write_obj((flags | link) as u16, GuestAddress(address.0 + 12)).expect("a write");
            self.ram.write_obj(self.next_descriptor, GuestAddress(address.0 + 14)).expect("a write");
        }
        let slot = u64::from(self.available % self.size);
        self.ram.write_obj(head, GuestAddress(self.gpa + AVAILABLE + 4 + slot * 2)).expect("a write");
        self.available = self.available.wrapping_add(1);
        self.ram.write_obj(self.available, GuestAddress(self.gpa + AVAILABLE + 2)).expect("a write");
        head
    }

    /// What was used since it was last asked: (head, bytes written), in order.
    pub(crate) fn used(&mut self) -> Vec<(u16, u32)> {
        let index: u16 = self.ram.read_obj(GuestAddress(self.gpa + USED + 2)).expect("a read");
        let mut used = Vec::new();
        while self.seen != index {
            let entry = self.gpa + USED + 4 + u64::from(self.seen % self.size) * 8;
            let head: u32 = self.ram.read_obj(GuestAddress(entry)).expect("a read");
            let written: u32 = self.ram.read_obj(GuestAddress(entry + 4)).expect("a read");
            used.push((head as u16, written));
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }
}
