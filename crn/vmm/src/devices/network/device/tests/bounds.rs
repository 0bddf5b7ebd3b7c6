//! Turns, and how much goes through over time.

use super::*;

#[test]
fn a_turn_is_bounded_and_goes_on() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, UNBOUND);
    let count = FRAMES_PER_TURN + 3;
    for _ in 0..count {
        bench.line.bring(PLAIN, &packet(IP, 60));
    }
    let mut bytes = 0;
    let mut turns = 0;
    loop {
        for _ in 0..SIZE {
            bench.next_buffer = 0;
            bench.add_buffer(2048);
        }
        let work = bench.work(BUFFERS);
        bytes += bench.buffers.used().len();
        turns += 1;
        assert!(!work.is_unfinished(), "it waits for buffers");
        if bytes == usize::from(count) {
            break;
        }
    }
    assert_eq!(turns, usize::from(count).div_ceil(SIZE.into()));

    // Frames that no buffers will do for are taken in turns as well.
    let mut bench = Bench::new(&ram, ALL & !(1 << VIRTIO_NET_F_MRG_RXBUF), UNBOUND);
    bench.add_buffer(100);
    for _ in 0..count {
        bench.line.bring(PLAIN, &packet(IP, 1000));
    }
    assert!(bench.work(WIRE).is_unfinished());
    assert_eq!(bench.line.state().incoming.len(), 3);
    assert!(!bench.work(BUFFERS).is_unfinished());
    assert!(bench.line.state().incoming.is_empty());
}

/// A bound on bytes of 1,000 at once and per second.
const NARROW: Rates = Rates { bytes: Rate { per_second: 1000, burst: 1000 }, packets: PLENTY };

#[test]
fn a_guest_that_sends_more_than_it_may_waits() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, NARROW);
    bench.send(PLAIN, &packet(IP, 600));
    bench.send(PLAIN, &packet(IP, 600));
    assert_eq!((bench.line.sent().len(), bench.timer.times_set()), (1, 1));
    for event in [FRAMES, BUFFERS, WIRE] {
        assert_eq!(bench.work(event), Work::new());
    }
    assert_eq!((bench.line.sent().len(), bench.timer.times_set()), (0, 1));
    assert!(bench.timer.pass());
    bench.work(ALARM);
    assert_eq!((bench.line.sent().len(), bench.frames.used().len()), (1, 2));
    assert!(!bench.timer.pass(), "nothing waits, and the timer is set");
    // What is dropped costs the wire nothing.
    for _ in 0..5 {
        bench.send(PLAIN, &packet(Ipv4Addr::UNSPECIFIED, 600));
    }
    assert_eq!(bench.frames.used().len(), 5);
}

#[test]
fn the_host_waits_too_and_the_earlier_alarm_counts() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, NARROW);
    for _ in 0..3 {
        bench.add_buffer(2048);
        bench.line.bring(PLAIN, &packet(IP, 600));
    }
    bench.work(WIRE);
    assert_eq!(bench.buffers.used().len(), 1);
    bench.send(PLAIN, &packet(IP, 900));
    bench.send(PLAIN, &packet(IP, 200));
    assert_eq!(bench.line.sent().len(), 1);
    // The frame from the guest first, then the two to it.
    for (to_guest, from_guest) in [(0, 1), (1, 0), (1, 0)] {
        assert!(bench.timer.pass());
        bench.work(ALARM);
        assert_eq!((bench.buffers.used().len(), bench.line.sent().len()), (to_guest, from_guest));
    }
    assert!(!bench.timer.pass());
}

#[test]
fn a_frame_that_waits_for_buffers_is_paid_once() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, NARROW);
    bench.line.bring(PLAIN, &packet(IP, 600));
    for _ in 0..3 {
        bench.work(WIRE);
    }
    bench.add_buffer(2048);
    bench.work(BUFFERS);
    assert_eq!((bench.buffers.used().len(), bench.timer.times_set()), (1, 0));
}

#[test]
fn segments_count_as_packets() {
    let ram = ram();
    let few = Rates { bytes: PLENTY, packets: Rate { per_second: 1, burst: 20 } };
    let mut bench = Bench::new(&ram, ALL, few);
    for _ in 0..3 {
        bench.send(SEGMENTS, &packet(IP, 1000));
    }
    assert_eq!(bench.line.sent().len(), 2);
}

#[test]
fn a_reset_forgets_the_frame_and_the_alarm_and_not_the_bound() {
    let ram = ram();
    let mut bench = Bench::new(&ram, ALL, NARROW);
    bench.send(PLAIN, &packet(IP, 1000));
    bench.line.bring(PLAIN, &packet(IP, 700));
    bench.work(WIRE);
    assert!(bench.line.state().incoming.is_empty(), "it waits for a buffer");
    bench.send(PLAIN, &packet(IP, 100));
    assert_eq!((bench.line.sent().len(), bench.timer.times_set()), (1, 1));
    bench.device.reset();
    bench.device.activate(0);
    (bench.buffers, bench.frames) = (Driver::new(&ram, TO_GUEST_GPA, SIZE), Driver::new(&ram, FROM_GUEST_GPA, SIZE));
    bench.queues = [bench.buffers.queue(), bench.frames.queue()];
    bench.add_buffer(2048);
    bench.send(PLAIN, &packet(IP, 100));
    assert_eq!((bench.buffers.used(), bench.line.sent().len()), (vec![], 0));
    assert_eq!(bench.timer.times_set(), 2, "the new driver waits with an alarm of its own");
    assert_eq!(bench.line.state().agreed, [Offloads::chosen(ALL), Offloads::default()]);
}
