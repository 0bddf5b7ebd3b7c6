//! The device between a wire in memory and a guest that a test plays. Its time passes when a test says so.
#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small, or meant to be cut")]

use super::*;
use crate::{
    devices::timer::manual::ManualTimer,
    memory,
    virtio::driver::{Driver, Part, QUEUE_BYTES, WRITABLE},
};
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_HDR_F_NEEDS_CSUM};
use vm_memory::{Bytes as _, GuestAddress};

mod bounds;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const TO_GUEST_GPA: u64 = 0x1000;
const FROM_GUEST_GPA: u64 = TO_GUEST_GPA + QUEUE_BYTES;
const FRAME_GPA: u64 = 0x10_0000;
const BUFFER_GPA: u64 = 0x20_0000;
const PAGE: u64 = 0x1000;
/// What guest memory holds before the device writes to it.
const UNTOUCHED: u8 = 0xee;
/// Descriptors of the queues here, and buffers in memory.
const SIZE: u16 = 16;
const ALL: u64 = Offloads::FEATURES;
const PLENTY: Rate = Rate { per_second: u64::MAX, burst: u64::MAX };
const UNBOUND: Rates = Rates { bytes: PLENTY, packets: PLENTY };
const WIRE: Event = Event::Descriptor(1);
const ALARM: Event = Event::Descriptor(TIMER);
const BUFFERS: Event = Event::Queue(TO_GUEST);
const FRAMES: Event = Event::Queue(FROM_GUEST);

/// A wire in memory.
#[derive(Debug, Clone, Default)]
struct Line(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    incoming: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    agreed: Vec<Offloads>,
    looks: u32,
    broken: bool,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    fn bring(&self, header: Header, frame: &[u8]) {
        self.state().incoming.push_back([&header.to_bytes()[..], frame].concat());
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state().sent)
    }
}

impl Wire for Line {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.looks += 1;
        let frame = state.incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let length = frame.len().min(buffer.len());
        buffer[..length].copy_from_slice(&frame[..length]);
        Ok(length)
    }
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.broken {
            return Err(io::Error::other("the interface is down"));
        }
        state.sent.push(frame.to_vec());
        Ok(())
    }
    fn agree(&mut self, offloads: Offloads) -> io::Result<()> {
        self.state().agreed.push(offloads);
        Ok(())
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn ram() -> Ram {
    let ram = memory::allocate(32 << 20).expect("memory");
    ram.write_slice(&vec![UNTOUCHED; 0x20_0000], GuestAddress(FRAME_GPA)).expect("a write");
    ram
}

/// A card, its wire and its guest.
struct Bench<'a> {
    ram: &'a Ram,
    device: Network<Line, ManualTimer>,
    line: Line,
    timer: ManualTimer,
    buffers: Driver<'a>,
    frames: Driver<'a>,
    queues: [Queue; 2],
    next_buffer: u64,
}

impl<'a> Bench<'a> {
    fn new(ram: &'a Ram, features: u64, rates: Rates) -> Self {
        let (line, timer) = (Line::default(), ManualTimer::default());
        let identity = Identity { mac: MAC, ipv4: vec![IP], ipv6: Vec::new() };
        let mut device = Network::new(line.clone(), timer.clone(), identity, rates);
        device.activate(features);
        let (buffers, frames) = (Driver::new(ram, TO_GUEST_GPA, SIZE), Driver::new(ram, FROM_GUEST_GPA, SIZE));
        let queues = [buffers.queue(), frames.queue()];
        Self { ram, device, line, timer, buffers, frames, queues, next_buffer: 0 }
    }

    fn work(&mut self, event: Event) -> Work {
        self.device.process(event, &mut self.queues, self.ram).expect("rings are whole")
    }

    /// Puts a buffer of that length into the queue; returns where it is.
    fn add_buffer(&mut self, length: u32) -> u64 {
        let gpa = BUFFER_GPA + self.next_buffer * PAGE;
        self.next_buffer += 1;
        self.buffers.add(&[(gpa, length, WRITABLE)]);
        gpa
    }

    /// Has the guest send a frame in one descriptor.
    fn send(&mut self, header: Header, frame: &[u8]) -> Work {
        self.write(header, frame);
        self.frames.add(&[(FRAME_GPA, (HEADER_BYTES + frame.len()) as u32, 0)]);
        self.work(FRAMES)
    }

    fn write(&self, header: Header, frame: &[u8]) {
        let bytes = [&header.to_bytes()[..], frame].concat();
        self.ram.write_slice(&bytes, GuestAddress(FRAME_GPA)).expect("a write");
    }

    fn bytes_at(&self, gpa: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.ram.read_slice(&mut bytes, GuestAddress(gpa)).expect("a read");
        bytes
    }

    fn header_at(&self, gpa: u64) -> Header {
        Header::parse(self.bytes_at(gpa, HEADER_BYTES).first_chunk().expect("a header"))
    }
}

/// A TCP packet of the guest of that length in all.
fn packet(source: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|index| index as u8).collect();
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame[14] = 0x45;
    frame[20..22].fill(0);
    frame[23] = 6;
    frame[26..30].copy_from_slice(&source.octets());
    frame
}

const PLAIN: Header = Header {
    flags: 0,
    segments: 0,
    header_bytes: 0,
    segment_bytes: 0,
    checksum_start: 0,
    checksum_offset: 0,
    buffers: 0,
};
const CHECKSUM: Header =
    Header { flags: VIRTIO_NET_HDR_F_NEEDS_CSUM as u8, checksum_start: 34, checksum_offset: 16, ..PLAIN };
const SEGMENTS: Header = Header { segments: 1, segment_bytes: 100, header_bytes: 54, ..CHECKSUM };

#[test]
fn frames_of_the_guest_reach_the_wire() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    let frame = packet(IP, 600);
    for header in [PLAIN, CHECKSUM, SEGMENTS] {
        let work = bench.send(Header { buffers: 9, ..header }, &frame);
        assert!(work.has_used(FROM_GUEST) && !work.is_unfinished());
        assert_eq!(bench.line.sent(), [[&header.to_bytes()[..], &frame].concat()]);
    }
    assert_eq!(bench.frames.used(), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(bench.device.traffic_bytes(), (0, 3 * 600));
    assert_eq!(bench.line.state().agreed, [Offloads::chosen(ALL)]);
}

#[test]
fn a_frame_may_lie_in_any_parts() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    let frame = packet(IP, 600);
    bench.write(CHECKSUM, &frame);
    let parts: Vec<Part> =
        [(0, 5), (5, 8), (13, 0), (13, 100), (113, 499)].map(|(at, length)| (FRAME_GPA + at, length, 0)).to_vec();
    bench.frames.add(&parts);
    bench.work(FRAMES);
    assert_eq!(bench.line.sent(), [[&CHECKSUM.to_bytes()[..], &frame].concat()]);
}

#[test]
fn what_a_guest_may_not_send_is_dropped_and_counted() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL & !1, UNBOUND);
    bench.send(PLAIN, &packet(Ipv4Addr::new(172, 16, 0, 3), 60));
    let mut foreign = packet(IP, 60);
    foreign[11] = 2;
    bench.send(PLAIN, &foreign);
    bench.send(CHECKSUM, &packet(IP, 60));
    bench.send(PLAIN, &[]);
    // Less than a header, more than any frame, outside of memory, and nothing to read.
    for part in [(FRAME_GPA, 11, 0), (0, 70_000, 0), (u64::MAX, 100, 0), (FRAME_GPA, 100, WRITABLE)] {
        bench.frames.add(&[part]);
    }
    bench.work(FRAMES);
    assert_eq!(bench.line.sent(), Vec::<Vec<u8>>::new());
    assert_eq!(bench.frames.used().len(), 8);
    let counts = [Refusal::Address, Refusal::Mac, Refusal::Offload, Refusal::Malformed, Refusal::Host]
        .map(|refusal| bench.device.refused(refusal));
    assert_eq!((counts, bench.device.refused_frames()), ([1, 1, 1, 5, 0], 8));
    assert_eq!(bench.device.traffic_bytes(), (0, 0));
}

#[test]
fn what_the_host_does_not_take_is_lost() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    bench.line.state().broken = true;
    bench.send(PLAIN, &packet(IP, 60));
    assert_eq!((bench.frames.used().len(), bench.device.refused(Refusal::Host)), (1, 1));
}

#[test]
fn frames_of_the_wire_reach_the_guest() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    let (first, second) = (bench.add_buffer(2048), bench.add_buffer(2048));
    let frames = [packet(IP, 60), packet(IP, 1514)];
    bench.line.bring(PLAIN, &frames[0]);
    bench.line.bring(CHECKSUM, &frames[1]);
    let work = bench.work(WIRE);
    assert!(work.is_interrupt_wanted() && !work.is_unfinished());
    assert_eq!(bench.buffers.used(), [(0, 72), (1, 1526)]);
    assert_eq!(bench.header_at(first), Header { buffers: 1, ..PLAIN });
    assert_eq!(bench.header_at(second), Header { buffers: 1, ..CHECKSUM });
    assert_eq!(bench.bytes_at(first + 12, 61), [&frames[0][..], &[UNTOUCHED]].concat());
    assert_eq!(bench.bytes_at(second + 12, 1514), frames[1]);
    assert_eq!(bench.device.traffic_bytes(), (1574, 0));
    assert!(!bench.work(BUFFERS).is_interrupt_wanted());
}

#[test]
fn a_large_frame_fills_several_buffers() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    let buffers = [bench.add_buffer(1000), bench.add_buffer(1000), bench.add_buffer(1000), bench.add_buffer(1000)];
    let frame = packet(IP, 2500);
    bench.line.bring(SEGMENTS, &frame);
    bench.work(WIRE);
    assert_eq!(bench.buffers.used(), [(0, 1000), (1, 1000), (2, 512)]);
    assert_eq!(bench.header_at(buffers[0]), Header { buffers: 3, ..SEGMENTS });
    let got = [bench.bytes_at(buffers[0] + 12, 988), bench.bytes_at(buffers[1], 1000), bench.bytes_at(buffers[2], 512)];
    assert_eq!(got.concat(), frame);
    assert_eq!(bench.bytes_at(buffers[2] + 512, 1), [UNTOUCHED]);
}

/// A guest that gives no buffers, or too few, costs nothing until it gives more.
#[test]
fn a_frame_waits_for_buffers() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    let frame = packet(IP, 1500);
    bench.line.bring(PLAIN, &frame);
    bench.line.bring(PLAIN, &frame);
    assert_eq!(bench.work(WIRE), Work::new());
    bench.add_buffer(1000);
    for _ in 0..3 {
        assert_eq!(bench.work(BUFFERS), Work::new());
        assert_eq!(bench.work(WIRE), Work::new());
    }
    assert_eq!(bench.line.state().looks, 1, "one frame is taken, and no other before it was given");
    assert_eq!(bench.buffers.used(), []);
    bench.add_buffer(1000);
    assert!(bench.work(BUFFERS).is_interrupt_wanted());
    assert_eq!(bench.buffers.used(), [(0, 1000), (1, 512)]);
}

#[test]
fn what_fits_no_buffers_is_lost_and_what_comes_after_is_not() {
    let ram = ram();
    let small = packet(IP, 60);
    // Without merging a frame must fit its buffer.
    let mut bench = Bench::new(&ram, ALL & !(1 << VIRTIO_NET_F_MRG_RXBUF), UNBOUND);
    let buffer = bench.add_buffer(1000);
    bench.line.bring(PLAIN, &packet(IP, 1500));
    bench.line.bring(PLAIN, &small);
    bench.work(WIRE);
    assert_eq!(bench.buffers.used(), [(0, 72)]);
    assert_eq!(bench.bytes_at(buffer + 12, 60), small);
    // And merged the whole queue.
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    for _ in 0..SIZE {
        bench.add_buffer(20);
    }
    bench.line.bring(PLAIN, &packet(IP, 400));
    bench.line.bring(PLAIN, &small);
    bench.work(WIRE);
    assert_eq!(bench.buffers.used(), [(0, 20), (1, 20), (2, 20), (3, 12)]);
}

#[test]
fn a_buffer_that_holds_no_header_is_the_drivers_fault() {
    let ram = ram();
    for part in [(BUFFER_GPA, 11, WRITABLE), (BUFFER_GPA, 2000, 0), (u64::MAX, 2000, WRITABLE)] {
        let mut bench = Bench::new(&ram, ALL, UNBOUND);
        bench.buffers.add(&[part]);
        bench.line.bring(PLAIN, &packet(IP, 60));
        let broken = bench.device.process(WIRE, &mut bench.queues, &ram);
        assert!(matches!(broken, Err(DeviceError::Queue { queue: TO_GUEST, .. })), "{part:x?}: {broken:?}");
    }
}

/// Nobody hears of an edge while no driver is up.
#[test]
fn what_came_before_the_driver_is_given_to_it() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    bench.work(WIRE);
    bench.device.reset();
    bench.line.bring(PLAIN, &packet(IP, 60));
    bench.device.activate(ALL);
    bench.add_buffer(2048);
    bench.work(BUFFERS);
    assert_eq!(bench.buffers.used(), [(0, 72)]);
}

#[test]
fn the_configuration_is_the_address() {
    let ram = ram();
    let bench = Bench::new(&ram, ALL, UNBOUND);
    let mut bytes = [UNTOUCHED; 8];
    bench.device.read_config(0, &mut bytes);
    assert_eq!(bytes, [2, 0, 0, 0, 0, 1, UNTOUCHED, UNTOUCHED]);
}

/// Chains of a hostile guest in a region of memory.
fn chains() -> impl Strategy<Value = Vec<Vec<Part>>> {
    let part = (
        (0..8_u64, 0..16_u64).prop_map(|(page, offset)| BUFFER_GPA + page * PAGE + offset),
        prop_oneof![0..3000_u32, any::<u32>()],
        prop_oneof![Just(WRITABLE), Just(0), 0..8_u32],
    );
    proptest::collection::vec(proptest::collection::vec(part, 1..4), 1..5)
}

proptest! {
    /// Whatever a guest chains together: no panic, nothing is written beside the buffers it gave for writing, and nothing is
    /// sent that is not its own.
    #[test]
    fn hostile_chains_stay_in_their_buffers(
        buffers in chains(),
        frames in chains(),
        lengths in proptest::collection::vec(0..4000_usize, 0..4),
        features: u64,
    ) {
        let ram = ram();
        let mut bench = Bench::new(&ram, features, UNBOUND);
        for chain in &buffers {
            bench.buffers.add(chain);
        }
        for chain in &frames {
            bench.frames.add(chain);
        }
        for length in lengths {
            bench.line.bring(SEGMENTS, &packet(IP, length.max(60)));
        }
        let _ = bench.device.process(WIRE, &mut bench.queues, &ram);
        for (offset, byte) in bench.bytes_at(BUFFER_GPA, 0x1_0000).into_iter().enumerate() {
            let gpa = BUFFER_GPA + offset as u64;
            let given = buffers.iter().flatten().any(|(start, length, flags)| {
                flags & WRITABLE != 0 && (*start..*start + u64::from(*length)).contains(&gpa)
            });
            prop_assert!(given || byte == UNTOUCHED, "{gpa:#x} was written");
        }
        for frame in bench.line.sent() {
            prop_assert_eq!(&frame[HEADER_BYTES + 6..HEADER_BYTES + 12], &MAC);
        }
    }

    /// Rings of any content: an error for the transport, or an answer, never a panic.
    #[test]
    fn hostile_rings_are_an_error_at_most(
        content in proptest::collection::vec(any::<u8>(), 512),
        at in 0..2 * QUEUE_BYTES / 8,
        event_index: bool,
    ) {
        let ram = ram();
        let mut bench = Bench::new(&ram, ALL, UNBOUND);
        bench.queues.iter_mut().for_each(|queue| queue.set_event_idx(event_index));
        bench.add_buffer(100);
        bench.line.bring(PLAIN, &packet(IP, 600));
        bench.write(PLAIN, &packet(IP, 600));
        bench.frames.add(&[(FRAME_GPA, 612, 0)]);
        ram.write_slice(&content, GuestAddress(TO_GUEST_GPA + at * 8)).expect("a write");
        for _ in 0..3 {
            let _ = bench.device.process(WIRE, &mut bench.queues, &ram);
        }
    }
}
