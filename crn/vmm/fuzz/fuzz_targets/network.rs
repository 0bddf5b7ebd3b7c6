//! Frames in both directions with any header; the wire takes none that the guest may not send.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm::{
    devices::network::{Network, Rates, header::HEADER_BYTES},
    devices::token_bucket::Rate,
    virtio::device::{Device, Event},
};
use vmm_fuzz::{
    guest::{Guest, Part, Setup, Step},
    host::{Clock, IPV4, IPV6, Line, MAC, identity},
};

const TO_GUEST: u8 = 0;
const FROM_GUEST: u8 = 1;
/// Small enough that cases meet their bounds.
const RATE: Rate = Rate { per_second: 1000, burst: 5000 };

/// A frame of the guest, of its own address and a known kind unless it is raw.
#[derive(Debug, Arbitrary)]
struct Frame {
    header: [u8; HEADER_BYTES],
    kind: u8,
    body: Vec<u8>,
    /// Bytes more, which are whatever is in memory.
    more: u16,
}

impl Frame {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.to_vec();
        if self.kind % 4 == 0 {
            bytes.extend(&self.body);
            return bytes;
        }
        bytes.extend([2, 0, 0, 0, 0, 9]);
        bytes.extend(MAC);
        let mut body = self.body.clone();
        let own: (u16, usize, Vec<u8>) = match self.kind % 4 {
            1 => (0x0806, 8, [&MAC[..], &IPV4.octets()].concat()),
            2 => (0x0800, 12, IPV4.octets().to_vec()),
            _ => (0x86dd, 8, IPV6.octets().to_vec()),
        };
        bytes.extend(own.0.to_be_bytes());
        if let Some(place) = body.get_mut(own.1..own.1 + own.2.len()) {
            place.copy_from_slice(&own.2);
        }
        bytes.extend(body);
        bytes
    }
}

#[derive(Debug, Arbitrary)]
enum Action {
    Send(Frame),
    Bring(Frame),
    Buffers {
        count: u8,
        length: u16,
    },
    /// Time passes until the device's alarm, if one is set.
    Wait,
    Any(Step),
}

#[derive(Debug, Arbitrary)]
struct Case {
    broken: bool,
    setup: Setup,
    actions: Vec<Action>,
}

fuzz_target!(|case: Case| {
    let (line, clock) = (Line::new(case.broken), Clock::default());
    let rates = Rates { bytes: RATE, packets: RATE };
    let device = || -> Box<dyn Device> { Box::new(Network::new(line.clone(), clock.clone(), identity(), rates)) };
    let mut guest = Guest::up(device(), case.setup);
    for action in case.actions.into_iter().take(64) {
        match action {
            Action::Send(frame) => {
                let bytes = frame.to_bytes();
                let length = (bytes.len() as u16).saturating_add(frame.more);
                guest.chain(FROM_GUEST, false, &[Part { place: 0, length, kind: 1 }], &bytes);
                guest.event(Event::Queue(usize::from(FROM_GUEST)));
            }
            Action::Bring(frame) => {
                let mut bytes = frame.to_bytes();
                bytes.resize(bytes.len() + usize::from(frame.more), 7);
                line.bring(bytes);
                guest.event(Event::Descriptor(1));
            }
            Action::Buffers { count, length } => {
                guest.step(&Step::Buffers { queue: TO_GUEST, count, length }, device);
                guest.event(Event::Queue(usize::from(TO_GUEST)));
            }
            Action::Wait => {
                if clock.pass() {
                    guest.event(Event::Descriptor(0));
                }
            }
            Action::Any(step) => guest.step(&step, device),
        }
    }
    guest.transport.settle(32);
});
