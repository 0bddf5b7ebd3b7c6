//! The device, driven as a guest drives it: descriptors in, used ring out. Its time passes when a test says so.
#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small, or meant to be cut")]

use super::*;
use crate::{
    devices::timer::manual::ManualTimer,
    memory,
    virtio::driver::{Driver, Part, QUEUE_BYTES, WRITABLE},
};
use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};

const QUEUE_GPA: u64 = 0x1000;
const BUFFER_GPA: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
const BUFFER_BYTES: u64 = QUEUE_SIZE as u64 * PAGE;
/// What guest memory holds before the device writes to it.
const UNTOUCHED: u8 = 0xee;

fn ram() -> Ram {
    let ram = memory::allocate(32 << 20).expect("memory");
    ram.write_slice(&[UNTOUCHED; BUFFER_BYTES as usize], GuestAddress(BUFFER_GPA)).expect("a write");
    ram
}

fn device() -> (Entropy<ManualTimer>, ManualTimer) {
    let timer = ManualTimer::default();
    (Entropy::new(timer.clone()), timer)
}

/// That many chains of one buffer each, a page apart.
fn ask(driver: &mut Driver<'_>, count: u16, length: u32) {
    for index in 0..count {
        driver.add(&[(BUFFER_GPA + u64::from(index) * PAGE, length, WRITABLE)]);
    }
}

fn work(device: &mut Entropy<ManualTimer>, event: Event, queue: &mut [Queue; 1], ram: &Ram) -> Work {
    device.process(event, queue, ram).expect("rings are whole")
}

fn written(driver: &mut Driver<'_>) -> Vec<u32> {
    driver.used().into_iter().map(|(_, written)| written).collect()
}

fn bytes_at(ram: &Ram, gpa: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ram.read_slice(&mut bytes, GuestAddress(gpa)).expect("a read");
    bytes
}

#[test]
fn every_request_gets_bytes_of_its_own() {
    let ram = ram();
    let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
    let (mut device, _) = device();
    ask(&mut driver, 3, 64);
    let work = work(&mut device, Event::Queue(0), &mut [driver.queue()], &ram);
    assert!(work.has_used(0) && !work.is_unfinished());
    assert_eq!(driver.used(), [(0, 64), (1, 64), (2, 64)]);
    let given: Vec<_> = (0..3).map(|index| bytes_at(&ram, BUFFER_GPA + index * PAGE, 65)).collect();
    for bytes in &given {
        assert_ne!(bytes[..64], [UNTOUCHED; 64]);
        assert_eq!(bytes[64], UNTOUCHED);
    }
    assert!(given[0] != given[1] && given[1] != given[2], "bytes repeat: {given:?}");
    assert_eq!(device.traffic_bytes(), (3 * 64, 0));
}

#[test]
fn a_request_gets_a_bounded_part_of_a_large_buffer() {
    let ram = ram();
    let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
    let (mut device, _) = device();
    ask(&mut driver, 1, 1 << 20);
    work(&mut device, Event::Queue(0), &mut [driver.queue()], &ram);
    assert_eq!(written(&mut driver), [BYTES_PER_REQUEST as u32]);
    assert_eq!(bytes_at(&ram, BUFFER_GPA + BYTES_PER_REQUEST as u64, 64), [UNTOUCHED; 64]);
}

#[test]
fn a_chain_without_room_is_returned_empty() {
    let ram = ram();
    let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
    let (mut device, _) = device();
    for part in [
        (BUFFER_GPA, 64, 0),
        (BUFFER_GPA, 0, WRITABLE),
        (u64::MAX - 10, 64, WRITABLE),
        // The registers of a device are no memory.
        (0xd000_0000, 64, WRITABLE),
    ] {
        driver.add(&[part]);
    }
    work(&mut device, Event::Queue(0), &mut [driver.queue()], &ram);
    assert_eq!(written(&mut driver), [0; 4]);
    assert_eq!(bytes_at(&ram, BUFFER_GPA, 64), [UNTOUCHED; 64]);
}

/// A guest that asks all the time waits for the timer: it is not served in between, and the device neither sets the timer
/// again nor asks for another turn at once.
#[test]
fn a_guest_that_asks_all_the_time_waits() {
    let ram = ram();
    let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
    let (mut device, timer) = device();
    let mut queue = [driver.queue()];
    let turns = RATE.burst / (BYTES_PER_REQUEST as u64 * u64::from(REQUESTS_PER_TURN));
    for _ in 0..turns {
        ask(&mut driver, REQUESTS_PER_TURN, BYTES_PER_REQUEST as u32);
        assert!(work(&mut device, Event::Queue(0), &mut queue, &ram).is_unfinished());
        assert_eq!(written(&mut driver), [BYTES_PER_REQUEST as u32; REQUESTS_PER_TURN as usize]);
    }
    ask(&mut driver, 3, BYTES_PER_REQUEST as u32);
    for _ in 0..10 {
        assert_eq!(work(&mut device, Event::Queue(0), &mut queue, &ram), Work::new());
    }
    assert_eq!((written(&mut driver), timer.times_set()), (vec![], 1));
    // From where it was left, one at a time as tokens come back.
    for times_set in [2, 3, 3] {
        assert!(timer.pass());
        assert!(work(&mut device, Event::Descriptor(0), &mut queue, &ram).has_used(0));
        assert_eq!((written(&mut driver).len(), timer.times_set()), (1, times_set));
    }
    assert!(!timer.pass(), "nothing waits, and the timer is set");
}

#[test]
fn a_reset_fills_no_bucket() {
    let ram = ram();
    let (mut device, timer) = device();
    device.bucket.take(RATE.burst, timer.now());
    for times_set in 1..3 {
        let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
        ask(&mut driver, 1, 64);
        work(&mut device, Event::Queue(0), &mut [driver.queue()], &ram);
        assert_eq!((written(&mut driver), timer.times_set()), (vec![], times_set));
        device.reset();
    }
}

#[test]
fn requests_for_nothing_are_not_free() {
    let ram = ram();
    let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
    let (mut device, timer) = device();
    device.bucket.take(RATE.burst - 64, timer.now());
    ask(&mut driver, 2, 0);
    work(&mut device, Event::Queue(0), &mut [driver.queue()], &ram);
    assert_eq!(written(&mut driver), [0]);
}

proptest! {
    /// Whatever a guest chains together: no panic, and nothing written beside the buffers it gave for writing.
    #[test]
    fn hostile_chains_stay_in_their_buffers(
        parts in proptest::collection::vec(
            (0..16_u64, prop_oneof![0..300_u32, any::<u32>()], prop_oneof![Just(WRITABLE), 0..8_u32]),
            1..8,
        ),
    ) {
        let ram = ram();
        let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
        let parts: Vec<Part> =
            parts.iter().map(|(page, length, flags)| (BUFFER_GPA + page * PAGE, *length, *flags)).collect();
        driver.add(&parts);
        let (mut device, _) = device();
        let _ = device.process(Event::Queue(0), &mut [driver.queue()], &ram);
        for (offset, byte) in bytes_at(&ram, BUFFER_GPA, BUFFER_BYTES as usize).into_iter().enumerate() {
            let gpa = BUFFER_GPA + offset as u64;
            let given = parts.iter().any(|(start, length, flags)| {
                flags & WRITABLE != 0 && (*start..*start + u64::from(*length)).contains(&gpa)
            });
            prop_assert!(given || byte == UNTOUCHED, "{gpa:#x} was written");
        }
    }

    /// Rings of any content: an error for the transport, or an answer, never a panic.
    #[test]
    fn hostile_rings_are_an_error_at_most(content in proptest::collection::vec(any::<u8>(), 512), at in 0..QUEUE_BYTES / 8) {
        let ram = ram();
        let driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
        ram.write_slice(&content, GuestAddress(QUEUE_GPA + at * 8)).expect("a write");
        let (mut device, _) = device();
        let _ = device.process(Event::Queue(0), &mut [driver.queue()], &ram);
    }
}
