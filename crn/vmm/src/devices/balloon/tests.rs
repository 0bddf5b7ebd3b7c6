//! The device, driven as a guest drives it. Memory that was given back reads as zeros here.
#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small, or meant to be cut")]

use super::*;
use crate::virtio::driver::{Driver, Part, QUEUE_BYTES, WRITABLE};
use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};

const RAM_BYTES: u64 = 32 << 20;
const QUEUE_GPA: u64 = 0x1000;
const FREE_GPA: u64 = 0x10_0000;
const FREE_BYTES: usize = 64 * PAGE_BYTES as usize;
/// What guest memory holds before the device gives it back.
const UNTOUCHED: u8 = 0xee;

fn ram() -> Ram {
    let ram = memory::allocate(RAM_BYTES).expect("memory");
    ram.write_slice(&[UNTOUCHED; FREE_BYTES], GuestAddress(FREE_GPA)).expect("a write");
    ram
}

/// Puts a chain into the queue of that index and has it returned.
fn drive(device: &mut Balloon, ram: &Ram, index: usize, parts: &[Part]) {
    let mut drivers: Vec<_> =
        (0..BALLOON_QUEUES as u64).map(|queue| Driver::new(ram, QUEUE_GPA + queue * QUEUE_BYTES, QUEUE_SIZE)).collect();
    let mut queues: Vec<_> = drivers.iter().map(Driver::queue).collect();
    let head = drivers[index].add(parts);
    let work = device.process(Event::Queue(index), &mut queues, ram).expect("rings are whole");
    assert!(work.has_used(index) && !work.is_unfinished());
    assert_eq!(drivers[index].used(), [(head, 0)]);
}

/// The pages from [`FREE_GPA`] on that read as zeros; all others must be untouched.
fn released(ram: &Ram) -> Vec<usize> {
    let mut bytes = vec![0; FREE_BYTES];
    ram.read_slice(&mut bytes, GuestAddress(FREE_GPA)).expect("a read");
    let pages = bytes.chunks(PAGE_BYTES as usize).enumerate();
    pages
        .filter_map(|(index, page)| {
            let zeros = page.iter().all(|byte| *byte == 0);
            assert!(zeros || page.iter().all(|byte| *byte == UNTOUCHED), "page {index} was changed in part");
            zeros.then_some(index)
        })
        .collect()
}

#[test]
fn reported_blocks_go_back() {
    let ram = ram();
    let mut device = Balloon::new();
    let page = PAGE_BYTES as u32;
    drive(
        &mut device,
        &ram,
        REPORT,
        &[(FREE_GPA + PAGE_BYTES, page, WRITABLE), (FREE_GPA + 4 * PAGE_BYTES, 3 * page, WRITABLE)],
    );
    assert_eq!(released(&ram), [1, 4, 5, 6]);
    assert_eq!(device.traffic_bytes(), (0, 4 * PAGE_BYTES));
}

#[test]
fn what_is_no_free_block_stays() {
    let ram = ram();
    let page = PAGE_BYTES as u32;
    for part in [
        // Not what a report is.
        (FREE_GPA, page, 0),
        // Not whole pages.
        (FREE_GPA + 1, page, WRITABLE),
        (FREE_GPA, page - 1, WRITABLE),
        (FREE_GPA, 0, WRITABLE),
        // Not all in memory.
        (RAM_BYTES - PAGE_BYTES, 2 * page, WRITABLE),
        (RAM_BYTES, page, WRITABLE),
        (0xd000_0000, page, WRITABLE),
        (u64::MAX - PAGE_BYTES + 1, page, WRITABLE),
        (u64::MAX - PAGE_BYTES + 1, 2 * page, WRITABLE),
    ] {
        let mut device = Balloon::new();
        drive(&mut device, &ram, REPORT, &[part]);
        assert_eq!((released(&ram), device.traffic_bytes()), (vec![], (0, 0)), "{part:x?}");
    }
}

#[test]
fn a_report_is_followed_as_far_as_its_bounds() {
    let ram = ram();
    let page = PAGE_BYTES as u32;
    let parts: Vec<Part> = (0..40).map(|index| (FREE_GPA + index * PAGE_BYTES, page, WRITABLE)).collect();
    let mut device = Balloon::new();
    drive(&mut device, &ram, REPORT, &parts);
    assert_eq!(released(&ram), (0..RANGES_PER_REPORT).collect::<Vec<_>>());
    // More bytes than a report may hold, then a page.
    let huge = BYTES_PER_REPORT as u32;
    drive(&mut device, &ram, REPORT, &[(0, huge, WRITABLE), (FREE_GPA + 40 * PAGE_BYTES, page, WRITABLE)]);
    assert_eq!(released(&ram), (0..RANGES_PER_REPORT).collect::<Vec<_>>());
}

#[test]
fn a_turn_is_bounded_and_goes_on() {
    let ram = ram();
    let mut device = Balloon::new();
    let mut drivers: Vec<_> = (0..BALLOON_QUEUES as u64)
        .map(|queue| Driver::new(&ram, QUEUE_GPA + queue * QUEUE_BYTES, QUEUE_SIZE))
        .collect();
    let mut queues: Vec<_> = drivers.iter().map(Driver::queue).collect();
    for index in 0..u64::from(CHAINS_PER_TURN) + 3 {
        drivers[REPORT].add(&[(FREE_GPA + index * PAGE_BYTES, PAGE_BYTES as u32, WRITABLE)]);
    }
    let work = device.process(Event::Queue(REPORT), &mut queues, &ram).expect("rings are whole");
    assert!(work.is_unfinished());
    assert_eq!(drivers[REPORT].used().len(), usize::from(CHAINS_PER_TURN));
    // The transport has the first queue notified.
    let work = device.process(Event::Queue(0), &mut queues, &ram).expect("rings are whole");
    assert!(!work.is_unfinished());
    assert_eq!(drivers[REPORT].used().len(), 3);
}

#[test]
fn a_driver_that_inflates_gives_pages_back_and_one_that_deflates_takes_them() {
    let ram = ram();
    let mut device = Balloon::new();
    let numbers_gpa = 0x2_0000;
    let first = (FREE_GPA / PAGE_BYTES) as u32;
    // The last two are not in memory; a part of a number is none.
    let numbers = [first + 2, first + 7, (RAM_BYTES / PAGE_BYTES) as u32, u32::MAX];
    for (index, number) in (0..).zip(numbers) {
        ram.write_obj(number, GuestAddress(numbers_gpa + index * 4)).expect("a write");
    }
    drive(&mut device, &ram, INFLATE, &[(numbers_gpa, 7, 0), (numbers_gpa + 7, 12, 0)]);
    assert_eq!(released(&ram), [2, 7]);
    drive(&mut device, &ram, DEFLATE, &[(numbers_gpa, 8, 0)]);
    assert_eq!(released(&ram), [2, 7]);
    let mut asked = [UNTOUCHED; 4];
    device.read_config(0, &mut asked);
    assert_eq!(asked, [0; 4], "nobody asks for pages");
}

proptest! {
    /// Whatever a guest reports: no panic, and only whole pages that it named go.
    #[test]
    fn hostile_reports_release_what_they_name(
        parts in proptest::collection::vec(
            (
                prop_oneof![(0..64_u64).prop_map(|page| FREE_GPA + page * PAGE_BYTES), 0..RAM_BYTES, any::<u64>()],
                prop_oneof![(0..9_u32).prop_map(|pages| pages * PAGE_BYTES as u32), any::<u32>()],
                prop_oneof![Just(WRITABLE), 0..8_u32],
            ),
            1..8,
        ),
    ) {
        let ram = ram();
        let mut driver = Driver::new(&ram, QUEUE_GPA, QUEUE_SIZE);
        driver.add(&parts);
        let mut queues = [Queue::new(QUEUE_SIZE).expect("a queue"), Queue::new(QUEUE_SIZE).expect("a queue"), driver.queue()];
        // A report of the queue itself is the guest's to make: its rings are zeros then, which is an error or nothing.
        let _ = Balloon::new().process(Event::Queue(REPORT), &mut queues, &ram);
        for page in released(&ram) {
            let gpa = FREE_GPA + page as u64 * PAGE_BYTES;
            let named = parts.iter().any(|(start, length, flags)| {
                let end = start.saturating_add(u64::from(*length));
                flags & WRITABLE != 0 && *start <= gpa && gpa + PAGE_BYTES <= end
            });
            prop_assert!(named, "{gpa:#x} went");
        }
    }
}
