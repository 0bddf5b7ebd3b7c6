//! A guest that does what bytes say: registers, memory, chains of descriptors and notifications, in any order.

use arbitrary::Arbitrary;
use std::sync::Arc;
use vm_memory::{Bytes as _, GuestAddress};
use vmm::{
    memory::{self, Ram},
    virtio::{
        device::{Device, Event},
        mmio::Transport,
    },
    vm::Slot,
};

/// Memory of the guest, bytes.
const RAM_BYTES: u64 = 4 << 20;
/// Where the queues are unless a case says otherwise: descriptors, what is available, what was used, a page each.
const QUEUES_GPA: u64 = 0x1_0000;
const QUEUE_BYTES: u64 = 0x4000;
const PAGE_BYTES: u64 = 0x1000;
/// Where buffers of chains are.
const BUFFERS_GPA: u64 = 0x10_0000;
/// Descriptors of each queue at most: with few of them, rings wrap and meet.
const MOST_DESCRIPTORS: u16 = 16;
/// Steps of a case that are taken.
const MOST_STEPS: usize = 64;
/// Turns until a device is left alone: a guest whose rings lie over each other can keep it busy for ever, a turn at a time.
const MOST_TURNS: usize = 32;

/// Registers that a driver writes to bring its device up (virtio 1.2 section 4.2.2).
mod register {
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_NUM: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
}

/// Steps of the status register, in order.
const LADDER: [u32; 4] = [1, 3, 11, 15];
const DESCRIPTOR_NEXT: u16 = 1;
const DESCRIPTOR_WRITE: u16 = 2;
const DESCRIPTOR_INDIRECT: u16 = 4;

/// How a driver brings its device up.
#[derive(Debug, Arbitrary)]
pub struct Setup {
    /// Of the device's features, those that it takes.
    pub features: u64,
    /// Queues that are not where they are expected: which one, and the places of its three parts from the start of all queues.
    pub moved: Option<(u8, [u16; 3])>,
    /// The logarithm of the queues' size.
    pub size: u8,
}

/// A descriptor.
#[derive(Debug, Arbitrary)]
pub struct Part {
    /// From the start of the buffers; far outside of memory in one of 256.
    pub place: u16,
    /// Bytes.
    pub length: u16,
    /// Above half of what a byte can be: the device may write to it.
    pub kind: u8,
}

/// What a guest does next.
#[derive(Debug, Arbitrary)]
pub enum Step {
    /// Notifies a queue.
    Notify(u8),
    /// Makes a chain available whose first readable bytes are those.
    Chain {
        /// Index of the queue.
        queue: u8,
        /// Its descriptors are in a table of their own.
        indirect: bool,
        /// What it is made of; the first few.
        parts: Vec<Part>,
        /// What is in it.
        content: Vec<u8>,
    },
    /// Makes a number of buffers available, all of that length.
    Buffers {
        /// Index of the queue.
        queue: u8,
        /// How many.
        count: u8,
        /// Bytes of each.
        length: u16,
    },
    /// Writes to memory, from the start of the queues.
    Poke {
        /// Where.
        place: u16,
        /// What.
        bytes: [u8; 4],
    },
    /// Writes a register.
    Write {
        /// A quarter of its offset.
        register: u8,
        /// What.
        value: u32,
    },
    /// Reads registers or configuration.
    Read {
        /// Where.
        offset: u16,
        /// Bytes.
        length: u8,
    },
    /// A descriptor of the device's own is ready.
    Descriptor(u8),
    /// Its device is copied, and the copy goes on in its place.
    Copy,
}

/// A guest, its memory and one device.
#[derive(Debug)]
pub struct Guest {
    /// The device behind its registers.
    pub transport: Transport,
    ram: Arc<Ram>,
    queues: usize,
    size: u16,
    descriptors: Vec<u16>,
    available: Vec<u16>,
    places: Vec<[u64; 3]>,
    setup: Option<Setup>,
}

/// A transport around that device.
fn transport(device: Box<dyn Device>, ram: &Arc<Ram>) -> Transport {
    let slot = Slot::new(device.queue_sizes().len()).expect("descriptors");
    Transport::new(device, Arc::clone(ram), slot).expect("sizes of queues are powers of two")
}

impl Guest {
    /// A guest that has not touched its device.
    #[must_use]
    pub fn new(device: Box<dyn Device>) -> Self {
        let ram = Arc::new(memory::allocate(RAM_BYTES).expect("memory"));
        let queues = device.queue_sizes().len();
        let places = (0..queues as u64).map(|queue| {
            let start = QUEUES_GPA + queue * QUEUE_BYTES;
            [start, start + PAGE_BYTES, start + 2 * PAGE_BYTES]
        });
        Self {
            transport: transport(device, &ram),
            queues,
            size: MOST_DESCRIPTORS,
            descriptors: vec![0; queues],
            available: vec![0; queues],
            places: places.collect(),
            ram,
            setup: None,
        }
    }

    /// A guest whose driver has brought the device up.
    #[must_use]
    pub fn up(device: Box<dyn Device>, setup: Setup) -> Self {
        let features = (device.features() | 1 << 29 | 1 << 28) & setup.features | 1 << 32;
        let mut guest = Self::new(device);
        guest.size = 1 << (setup.size % 5);
        if let Some((queue, places)) = setup.moved {
            let queue = usize::from(queue) % guest.queues;
            guest.places[queue] = places.map(|place| QUEUES_GPA + u64::from(place));
        }
        guest.write(register::STATUS, LADDER[0]);
        guest.write(register::STATUS, LADDER[1]);
        for half in 0..2 {
            guest.write(register::DRIVER_FEATURES_SEL, half);
            guest.write(register::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        guest.write(register::STATUS, LADDER[2]);
        for queue in 0..guest.queues {
            let [descriptors, driver, device] = guest.places[queue];
            guest.write(register::QUEUE_SEL, queue as u32);
            guest.write(register::QUEUE_NUM, u32::from(guest.size));
            guest.write(register::QUEUE_DESC_LOW, descriptors as u32);
            guest.write(register::QUEUE_DRIVER_LOW, driver as u32);
            guest.write(register::QUEUE_DEVICE_LOW, device as u32);
            guest.write(register::QUEUE_READY, 1);
        }
        guest.write(register::STATUS, LADDER[3]);
        guest.setup = Some(setup);
        guest
    }

    /// Takes steps; `copy` makes a device for a copy of this one.
    pub fn take(&mut self, steps: &[Step], copy: impl Fn() -> Box<dyn Device>) {
        for step in steps.iter().take(MOST_STEPS) {
            self.step(step, &copy);
        }
        self.transport.settle(MOST_TURNS);
    }

    /// Takes one step.
    pub fn step(&mut self, step: &Step, copy: impl Fn() -> Box<dyn Device>) {
        match step {
            Step::Notify(queue) => self.event(Event::Queue(usize::from(*queue) % self.queues)),
            Step::Chain { queue, indirect, parts, content } => self.chain(*queue, *indirect, parts, content),
            Step::Buffers { queue, count, length } => {
                for index in 0..u16::from(*count).min(self.size) {
                    self.chain(
                        *queue,
                        false,
                        &[Part { place: index * 0x800, length: *length, kind: u8::MAX - 1 }],
                        &[],
                    );
                }
            }
            Step::Poke { place, bytes } => self.poke(QUEUES_GPA + u64::from(*place), bytes),
            Step::Write { register, value } => self.write(u64::from(*register) * 4, *value),
            Step::Read { offset, length } => {
                self.transport.read(u64::from(*offset), &mut vec![0; usize::from(*length)]);
            }
            Step::Descriptor(index) => self.event(Event::Descriptor(usize::from(*index) % 2)),
            Step::Copy => self.copy(copy()),
        }
    }

    /// Something that the device hears of, and what it goes on with by itself.
    pub fn event(&mut self, event: Event) {
        self.transport.process(event);
    }

    /// Makes a chain available.
    pub fn chain(&mut self, queue: u8, indirect: bool, parts: &[Part], content: &[u8]) {
        let queue = usize::from(queue) % self.queues;
        let [table, driver, _] = self.places[queue];
        let parts = &parts[..parts.len().min(usize::from(self.size))];
        let head = self.descriptors[queue] % self.size;
        let table = if indirect { BUFFERS_GPA - PAGE_BYTES } else { table };
        let mut rest = content;
        for (index, part) in parts.iter().enumerate() {
            let address = match part.kind {
                0 => u64::MAX - u64::from(part.place),
                _ => BUFFERS_GPA + u64::from(part.place),
            };
            let write = if part.kind > 127 { DESCRIPTOR_WRITE } else { 0 };
            if write == 0 {
                let (here, later) = rest.split_at(rest.len().min(usize::from(part.length)));
                self.poke(address, here);
                rest = later;
            }
            let next = if index + 1 < parts.len() { DESCRIPTOR_NEXT } else { 0 };
            let own = if indirect { index as u16 } else { (head + index as u16) % self.size };
            let link = if indirect { own + 1 } else { (own + 1) % self.size };
            self.describe(table + u64::from(own) * 16, address, u32::from(part.length), write | next, link);
        }
        if indirect {
            let length = parts.len() as u32 * 16;
            self.describe(self.places[queue][0] + u64::from(head) * 16, table, length, DESCRIPTOR_INDIRECT, 0);
        }
        let used = if indirect { 1 } else { parts.len() as u16 };
        self.descriptors[queue] = self.descriptors[queue].wrapping_add(used);
        let slot = u64::from(self.available[queue] % self.size);
        self.poke(driver + 4 + slot * 2, &head.to_le_bytes());
        self.available[queue] = self.available[queue].wrapping_add(1);
        self.poke(driver + 2, &self.available[queue].to_le_bytes());
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn describe(&self, at: u64, address: u64, length: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.poke(at, &bytes);
    }

    /// Writes to memory; outside of it nothing happens.
    fn poke(&self, gpa: u64, bytes: &[u8]) {
        let _ = self.ram.write(bytes, GuestAddress(gpa));
    }

    /// Whatever its driver did, a device that is up has a copy.
    fn copy(&mut self, device: Box<dyn Device>) {
        let mut copy = transport(device, &self.ram);
        let restored = copy.restore(&self.transport.save());
        if self.transport.is_active() {
            restored.expect("a device that is up can be copied");
            assert_eq!(copy.save(), self.transport.save());
        }
        if copy.is_active() == self.transport.is_active() {
            copy.take_up();
            self.transport = copy;
        }
    }
}
