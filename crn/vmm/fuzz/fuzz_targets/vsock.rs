//! Packets of a guest, and streams of the host that are ready, full, at their end or gone, at any moment.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
};
use vmm::{
    devices::vsock::{
        Muxer, StreamRegistry, VsockDevice,
        packet::{HOST_CID, Header, TYPE_STREAM},
    },
    virtio::device::{Device, Event},
};
use vmm_fuzz::guest::{Guest, Part, Setup, Step};

const GUEST_CID: u64 = 3;
const HOST_PORT: u32 = 5000;
const FIRST_HOST_PORT: u32 = 1 << 30;
/// Streams of a case.
const MOST_STREAMS: usize = 8;
const TO_GUEST: u8 = 0;
const FROM_GUEST: u8 = 1;
/// The status register, and its bit of a device that is up.
const STATUS: u64 = 0x070;
const DRIVER_OK: u8 = 4;

/// The far ends of streams that the guest has asked for.
#[derive(Debug, Clone, Default)]
struct Registry(Arc<Mutex<Vec<UnixStream>>>);

impl StreamRegistry for Registry {
    fn watch(&mut self, _: BorrowedFd<'_>, _: u32) {}
    fn accept(&mut self, _: u32) -> Option<UnixStream> {
        let mut far = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if far.len() >= MOST_STREAMS {
            return None;
        }
        let (ours, theirs) = UnixStream::pair().ok()?;
        theirs.set_nonblocking(true).ok()?;
        far.push(theirs);
        Some(ours)
    }
}

#[derive(Debug, Arbitrary)]
struct Packet {
    operation: u8,
    guest_port: u8,
    /// The port that is allowed, one that is not, or that of a connection of the host's.
    host_port: u8,
    flags: u8,
    buffer_bytes: u32,
    forwarded: u32,
    data_bytes: u16,
    /// Said instead of the true length.
    claimed: Option<u32>,
    stranger: bool,
}

#[derive(Debug, Arbitrary)]
enum Action {
    Packet(Packet),
    Buffers { count: u8, length: u16 },
    Connect,
    Ready { token: u8, readable: bool, writable: bool, hung_up: bool },
    Say { stream: u8, bytes: u16 },
    Hear { stream: u8, bytes: u16 },
    End { stream: u8 },
    Leave { stream: u8 },
    Any(Step),
}

#[derive(Debug, Arbitrary)]
struct Case {
    setup: Setup,
    actions: Vec<Action>,
}

impl Packet {
    fn to_bytes(&self) -> [u8; 44] {
        let host_port = match self.host_port % 8 {
            7 => HOST_PORT,
            6 => HOST_PORT + 1,
            index => FIRST_HOST_PORT + u32::from(index),
        };
        let header = Header {
            source_cid: if self.stranger { 99 } else { GUEST_CID },
            destination_cid: HOST_CID,
            source_port: 80 + u32::from(self.guest_port % 3),
            destination_port: host_port,
            length: self.claimed.unwrap_or(u32::from(self.data_bytes)),
            kind: TYPE_STREAM,
            operation: None,
            flags: u32::from(self.flags % 4),
            buffer_bytes: self.buffer_bytes,
            forwarded: self.forwarded,
        };
        let mut bytes = header.to_bytes();
        bytes[30] = self.operation % 9;
        bytes
    }
}

fuzz_target!(|case: Case| {
    let registry = Registry::default();
    let device =
        || -> Box<dyn Device> { Box::new(VsockDevice::new(Muxer::new(GUEST_CID, vec![HOST_PORT]), registry.clone())) };
    let mut guest = Guest::up(device(), case.setup);
    let far = |index: u8, act: &dyn Fn(&mut UnixStream)| {
        let mut far = registry.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = far.len();
        if count > 0 {
            act(&mut far[usize::from(index) % count]);
        }
    };
    for action in case.actions.into_iter().take(64) {
        match action {
            Action::Packet(packet) => {
                let data = Part { place: 44, length: packet.data_bytes, kind: 1 };
                guest.chain(FROM_GUEST, false, &[Part { place: 0, length: 44, kind: 1 }, data], &packet.to_bytes());
                guest.event(Event::Queue(usize::from(FROM_GUEST)));
            }
            Action::Buffers { count, length } => {
                guest.step(&Step::Buffers { queue: TO_GUEST, count, length }, device);
                guest.event(Event::Queue(usize::from(TO_GUEST)));
            }
            Action::Connect => {
                if let Some(stream) = registry.clone().accept(0) {
                    guest.transport.connect(80, stream);
                }
            }
            Action::Ready { token, readable, writable, hung_up } => {
                guest.event(Event::Stream { token: u32::from(token % 8), readable, writable, hung_up });
            }
            Action::Say { stream, bytes } => far(stream, &|far| drop(far.write(&vec![1; usize::from(bytes)]))),
            Action::Hear { stream, bytes } => far(stream, &|far| drop(far.read(&mut vec![0; usize::from(bytes)]))),
            Action::End { stream } => far(stream, &|far| drop(far.shutdown(Shutdown::Write))),
            Action::Leave { stream } => far(stream, &|far| drop(far.shutdown(Shutdown::Both))),
            Action::Any(step) => guest.step(&step, device),
        }
    }
    guest.transport.settle(32);
    // A reset of a device that was up ends everything.
    let mut status = [0; 4];
    guest.transport.read(STATUS, &mut status);
    guest.write(STATUS, 0);
    assert!(status[0] & DRIVER_OK == 0 || !guest.transport.device().has_undelivered());
});
