//! The registers, driven as a driver drives them, and as none would.
#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small, or meant to be cut")]

use super::*;
use crate::{
    memory,
    virtio::{device::Work, state::DeviceState},
};
use proptest::prelude::*;
use std::sync::Mutex;

/// A device that remembers what it was asked.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<Event>,
    resets: u32,
    breaks: bool,
    /// It has asked the driver itself, and used nothing by the queue's own count.
    interrupts: Option<bool>,
    features: Vec<u64>,
}

const DEVICE_FEATURE: u64 = 1 << 9;
const QUEUE_SIZE: u16 = 64;

impl Device for Recorder {
    fn kind(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        DEVICE_FEATURE
    }
    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; 2]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::super::device::read_config_bytes(b"configuration", offset, data);
    }
    fn process(&mut self, event: Event, _queues: &mut [Queue], _ram: &Ram) -> Result<Work, DeviceError> {
        let mut recorded = self.0.lock().expect("no panic");
        recorded.events.push(event);
        if recorded.breaks {
            return Err(DeviceError::Queue { queue: 0, error: virtio_queue::Error::InvalidAvailRingIndex });
        }
        let mut work = Work::new();
        match recorded.interrupts {
            None => work.used(0),
            Some(true) => work.interrupt(),
            Some(false) => {}
        }
        Ok(work)
    }
    fn activate(&mut self, features: u64) {
        self.0.lock().expect("no panic").features.push(features);
    }
    fn reset(&mut self) {
        self.0.lock().expect("no panic").resets += 1;
    }
    fn traffic_bytes(&self) -> (u64, u64) {
        (0, 0)
    }
}

struct Bench {
    transport: Transport,
    recorder: Recorder,
}

impl Bench {
    fn new() -> Self {
        let recorder = Recorder::default();
        let ram = Arc::new(memory::allocate(32 << 20).expect("memory"));
        Self::with(ram, recorder)
    }

    fn with(ram: Arc<Ram>, recorder: Recorder) -> Self {
        let slot = Slot::new(recorder.queue_sizes().len()).expect("eventfds");
        let transport = Transport::new(Box::new(recorder.clone()), ram, slot).expect("a transport");
        Self { transport, recorder }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.transport.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Steps up the ladder; returns the status at the end.
    fn steps(&mut self, steps: &[u32]) -> u32 {
        for step in steps {
            let status = self.read(register::STATUS);
            self.write(register::STATUS, status | step);
        }
        self.read(register::STATUS)
    }

    fn choose(&mut self, features: u64) {
        for (select, value) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(register::DRIVER_FEATURES_SEL, select);
            self.write(register::DRIVER_FEATURES, value);
        }
    }

    /// Up to FEATURES_OK with the features that the transport insists on.
    fn negotiate(&mut self) -> u32 {
        self.steps(&[ACKNOWLEDGE, DRIVER]);
        self.choose(1 << VIRTIO_F_VERSION_1 | DEVICE_FEATURE);
        self.steps(&[FEATURES_OK])
    }

    fn set_queue(&mut self, index: u32, gpa: u32) {
        self.write(register::QUEUE_SEL, index);
        self.write(register::QUEUE_NUM, QUEUE_SIZE.into());
        self.write(register::QUEUE_DESC_LOW, gpa);
        self.write(register::QUEUE_DRIVER_LOW, gpa + 0x1000);
        self.write(register::QUEUE_DEVICE_LOW, gpa + 0x2000);
        self.write(register::QUEUE_READY, 1);
    }

    fn interrupts(&self) -> u64 {
        self.transport.slot.line.read().unwrap_or(0)
    }
}

#[test]
fn the_registers_say_what_the_device_is() {
    let mut bench = Bench::new();
    let read = [register::MAGIC_VALUE, register::VERSION, register::DEVICE_ID].map(|offset| bench.read(offset));
    assert_eq!(read, [0x7472_6976, 2, 42]);
    assert_eq!(bench.read(register::QUEUE_NUM_MAX), u32::from(QUEUE_SIZE));
    bench.write(register::QUEUE_SEL, 2);
    assert_eq!(bench.read(register::QUEUE_NUM_MAX), 0);
    let low = bench.read(register::DEVICE_FEATURES);
    bench.write(register::DEVICE_FEATURES_SEL, 1);
    let high = bench.read(register::DEVICE_FEATURES);
    assert_eq!(u64::from(low) | u64::from(high) << 32, DEVICE_FEATURE | FEATURES);
    bench.write(register::DEVICE_FEATURES_SEL, 2);
    assert_eq!(bench.read(register::DEVICE_FEATURES), 0);
    assert_eq!(bench.read(0xb0), u32::MAX);
    let mut text = [0; 6];
    bench.transport.read(register::CONFIG + 3, &mut text);
    assert_eq!(&text, b"figura");
}

#[test]
fn a_driver_goes_up_the_ladder_and_the_device_works() {
    let mut bench = Bench::new();
    assert_eq!(bench.negotiate(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    bench.set_queue(0, 0x10_0000);
    bench.transport.process(Event::Queue(0));
    assert!(bench.recorder.0.lock().expect("no panic").events.is_empty(), "it worked before the driver was up");
    assert_eq!(bench.steps(&[DRIVER_OK]), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    // A notification that came too early is not lost.
    assert_eq!(bench.transport.notifications()[0].read().expect("notified"), 1);
    bench.transport.process(Event::Queue(0));
    assert_eq!(bench.recorder.0.lock().expect("no panic").events, [Event::Queue(0)]);
    assert_eq!((bench.interrupts(), bench.read(register::INTERRUPT_STATUS)), (1, INTERRUPT_QUEUE));
    bench.write(register::INTERRUPT_ACK, INTERRUPT_QUEUE);
    assert_eq!(bench.read(register::INTERRUPT_STATUS), 0);
}

#[test]
fn a_device_says_itself_whether_to_interrupt() {
    let mut bench = Bench::new();
    bench.negotiate();
    bench.set_queue(0, 0x10_0000);
    bench.steps(&[DRIVER_OK]);
    for (interrupts, expected) in [(false, (0, 0)), (true, (1, INTERRUPT_QUEUE))] {
        bench.recorder.0.lock().expect("no panic").interrupts = Some(interrupts);
        bench.transport.process(Event::Queue(0));
        assert_eq!((bench.interrupts(), bench.read(register::INTERRUPT_STATUS)), expected);
    }
}

#[test]
fn a_device_hears_which_features_were_chosen() {
    let mut bench = Bench::new();
    bench.negotiate();
    // Queues outside of memory are no driver's that is up.
    bench.set_queue(0, 0xf000_0000);
    bench.steps(&[DRIVER_OK]);
    assert!(bench.recorder.0.lock().expect("no panic").features.is_empty());
    bench.write(register::STATUS, 0);
    bench.negotiate();
    bench.set_queue(0, 0x10_0000);
    bench.steps(&[DRIVER_OK]);
    assert_eq!(bench.recorder.0.lock().expect("no panic").features, [1 << VIRTIO_F_VERSION_1 | DEVICE_FEATURE]);
}

#[test]
fn no_step_of_the_ladder_is_left_out() {
    for steps in [
        &[DRIVER][..],
        &[DRIVER_OK],
        &[ACKNOWLEDGE, FEATURES_OK],
        &[ACKNOWLEDGE, DRIVER_OK],
        &[ACKNOWLEDGE, DRIVER, DRIVER_OK],
        // Without VERSION_1 there is no FEATURES_OK.
        &[ACKNOWLEDGE, DRIVER, FEATURES_OK],
        &[ACKNOWLEDGE | DRIVER],
    ] {
        let status = Bench::new().steps(steps);
        let last = steps.last().copied().unwrap_or(0);
        assert_ne!(status & last, last, "{steps:?} gave {status:#x}");
    }
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut bench = Bench::new();
    bench.steps(&[ACKNOWLEDGE, DRIVER]);
    bench.choose(1 << VIRTIO_F_VERSION_1 | 1 << 3);
    assert_eq!(bench.steps(&[FEATURES_OK]), ACKNOWLEDGE | DRIVER);
    bench.choose(1 << VIRTIO_F_VERSION_1);
    assert_eq!(bench.steps(&[FEATURES_OK]), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    // Chosen is chosen.
    bench.choose(0);
    assert_eq!(bench.transport.driver_features, 1 << VIRTIO_F_VERSION_1);
}

#[test]
fn queues_are_set_up_at_their_time_only() {
    let mut bench = Bench::new();
    bench.steps(&[ACKNOWLEDGE, DRIVER]);
    bench.set_queue(0, 0x10_0000);
    assert_eq!(bench.read(register::QUEUE_READY), 0);
    bench.choose(1 << VIRTIO_F_VERSION_1);
    bench.steps(&[FEATURES_OK]);
    bench.set_queue(0, 0x10_0000);
    assert_eq!(bench.read(register::QUEUE_READY), 1);
    bench.steps(&[DRIVER_OK]);
    bench.write(register::QUEUE_READY, 0);
    assert_eq!(bench.read(register::QUEUE_READY), 1);
}

#[test]
fn a_queue_outside_of_memory_asks_for_a_reset_and_the_reset_helps() {
    let mut bench = Bench::new();
    bench.negotiate();
    bench.set_queue(0, 0xf000_0000);
    assert_ne!(bench.steps(&[DRIVER_OK]) & NEEDS_RESET, 0);
    assert_eq!((bench.interrupts(), bench.read(register::INTERRUPT_STATUS)), (1, INTERRUPT_CONFIG));
    bench.transport.process(Event::Queue(0));
    assert!(bench.recorder.0.lock().expect("no panic").events.is_empty());
    bench.write(register::STATUS, 0);
    assert_eq!((bench.read(register::STATUS), bench.read(register::INTERRUPT_STATUS)), (0, 0));
    assert_eq!(bench.recorder.0.lock().expect("no panic").resets, 1);
    bench.negotiate();
    bench.set_queue(0, 0x10_0000);
    assert_eq!(bench.steps(&[DRIVER_OK]) & NEEDS_RESET, 0);
}

#[test]
fn a_driver_that_breaks_its_rings_is_left_alone_until_it_resets() {
    let mut bench = Bench::new();
    bench.negotiate();
    bench.set_queue(0, 0x10_0000);
    bench.steps(&[DRIVER_OK]);
    bench.recorder.0.lock().expect("no panic").breaks = true;
    bench.transport.process(Event::Queue(0));
    assert_ne!(bench.read(register::STATUS) & NEEDS_RESET, 0);
    bench.transport.process(Event::Queue(0));
    assert_eq!(bench.recorder.0.lock().expect("no panic").events.len(), 1);
}

#[test]
fn a_reset_before_the_device_was_up_keeps_what_the_host_asked_for() {
    let mut bench = Bench::new();
    bench.negotiate();
    bench.write(register::STATUS, 0);
    assert_eq!(bench.recorder.0.lock().expect("no panic").resets, 0);
}

proptest! {
    /// Any accesses in any order: no panic, and the device works only for a driver that took all steps.
    #[test]
    fn no_access_is_a_panic(accesses in proptest::collection::vec((
        prop_oneof![Just(register::STATUS), (0..0x120_u64).prop_map(|offset| offset & !3), any::<u64>()],
        prop_oneof![0..16_u32, any::<u32>()],
        0..4_u8,
    ), 0..80)) {
        let mut bench = Bench::new();
        for (offset, value, what) in accesses {
            match what {
                0 => { bench.read(offset); }
                1 => bench.transport.write(offset, &value.to_le_bytes()[..2]),
                2 => drop(bench.transport.process(Event::Queue(value as usize))),
                _ => bench.write(offset, value),
            }
            if bench.transport.is_active() {
                let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
                prop_assert_eq!(bench.read(register::STATUS) & all, all);
                prop_assert_eq!(bench.transport.driver_features & !bench.transport.offered(), 0);
            }
        }
    }
}

/// A driver that was interrupted, and has notified, before a snapshot is interrupted and served after it.
#[test]
fn a_copy_goes_on_where_the_driver_was() {
    let mut bench = Bench::new();
    bench.negotiate();
    bench.set_queue(0, 0x1_0000);
    bench.set_queue(1, 0x2_0000);
    bench.steps(&[DRIVER_OK]);
    bench.transport.process(Event::Queue(0));
    assert_eq!(bench.interrupts(), 1);
    let state = bench.transport.save();

    let mut copy = Bench::with(Arc::clone(&bench.transport.ram), Recorder::default());
    copy.transport.restore(&state).expect("restored");
    assert_eq!(copy.transport.save(), state);
    assert_eq!(copy.interrupts(), 1, "the interrupt may not have reached the driver");
    copy.transport.take_up();
    let looked_at = copy.recorder.0.lock().expect("no panic").events.clone();
    assert_eq!(looked_at, [Event::Queue(0), Event::Queue(1)], "what was notified is looked at");
}

#[test]
fn the_state_of_another_device_is_refused() {
    let mut bench = Bench::new();
    bench.negotiate();
    bench.set_queue(0, 0x1_0000);
    bench.steps(&[DRIVER_OK]);
    let state = bench.transport.save();
    let refusal = |change: &dyn Fn(&mut TransportState)| {
        let mut state = state.clone();
        change(&mut state);
        let mut copy = Bench::with(Arc::clone(&bench.transport.ram), Recorder::default());
        copy.transport.restore(&state).expect_err("refused")
    };
    assert_eq!(refusal(&|state| state.queues.truncate(1)), StateError::Queues { saved: 1, device: 2 });
    assert_eq!(refusal(&|state| state.driver_features |= 1 << 10), StateError::Features(1 << 10));
    let vsock = DeviceState::Vsock { next_host_port: 0, had_connections: false };
    assert_eq!(refusal(&|state| state.device = vsock), StateError::Kind);
    let far = Queue::new(QUEUE_SIZE).map(|mut queue| {
        queue.set_desc_table_address(Some(0xf000_0000), None);
        queue.set_ready(true);
        QueueRecord::of(&queue)
    });
    let far = far.expect("a queue");
    assert_eq!(refusal(&|state| state.queues[1] = far), StateError::Queue);
}
