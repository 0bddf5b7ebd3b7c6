//! The muxer between a guest of packets and streams in memory.
#![expect(clippy::cast_possible_truncation, reason = "numbers of tests are small, or meant to be cut")]

use super::super::packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::*;
use proptest::prelude::*;
use std::{cell::RefCell, rc::Rc};

const GUEST_CID: u64 = 3;
const GUEST_PORT: u32 = 80;
const HOST_PORT: u32 = 5000;
const GUEST_BUFFER_BYTES: u32 = 1000;

/// The far side of a stream.
#[derive(Debug, Default)]
struct Far {
    /// What it has to say.
    incoming: VecDeque<u8>,
    ended: bool,
    /// What it was told.
    outgoing: Vec<u8>,
    told_end: bool,
    /// How much more it takes before it blocks.
    room: usize,
    gone: bool,
}

#[derive(Debug, Clone, Default)]
struct Stream(Rc<RefCell<Far>>);

impl HostStream for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut far = self.0.borrow_mut();
        if far.incoming.is_empty() {
            return if far.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let length = far.incoming.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(far.incoming.drain(..length)) {
            *place = byte;
        }
        Ok(length)
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut far = self.0.borrow_mut();
        if far.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = data.len().min(far.room);
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        far.room -= length;
        far.outgoing.extend_from_slice(&data[..length]);
        Ok(length)
    }

    fn shutdown_write(&mut self) {
        self.0.borrow_mut().told_end = true;
    }
}

/// A muxer, its guest's view of one connection, and the stream behind it.
struct Bench {
    muxer: Muxer<Stream>,
    stream: Stream,
    token: u32,
    host_port: u32,
}

impl Bench {
    /// A connection of the host's that the guest has granted.
    fn connected() -> Self {
        let mut muxer = Muxer::new(GUEST_CID, vec![HOST_PORT]);
        let stream = Stream::default();
        stream.0.borrow_mut().room = usize::MAX;
        let token = muxer.connect(GUEST_PORT, stream.clone()).expect("there is room");
        let request = muxer.next(&mut []).expect("a request");
        assert_eq!((request.operation, request.destination_port), (Some(Operation::Request), GUEST_PORT));
        let mut bench = Self { muxer, stream, token, host_port: request.source_port };
        bench.say(Operation::Response, 0, 0, &[]);
        bench
    }

    fn header(&self, operation: Operation, flags: u32, forwarded: u32, length: usize) -> Header {
        Header {
            source_cid: GUEST_CID,
            destination_cid: HOST_CID,
            source_port: GUEST_PORT,
            destination_port: self.host_port,
            length: length as u32,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags,
            buffer_bytes: GUEST_BUFFER_BYTES,
            forwarded,
        }
    }

    fn say(&mut self, operation: Operation, flags: u32, forwarded: u32, data: &[u8]) {
        let header = self.header(operation, flags, forwarded, data.len());
        assert_eq!(self.muxer.receive(&header, data), Wish::Nothing);
    }

    /// Every packet that is due now: what it does, its flags, its data.
    fn due(&mut self) -> Vec<(Operation, u32, Vec<u8>)> {
        let mut packets = Vec::new();
        let mut buffer = [0; 4096];
        while let Some(header) = self.muxer.next(&mut buffer) {
            assert_eq!((header.source_port, header.destination_port), (self.host_port, GUEST_PORT));
            packets.push((header.operation.expect("ours"), header.flags, buffer[..header.length as usize].to_vec()));
        }
        packets
    }

    fn host_says(&mut self, data: &[u8]) {
        self.stream.0.borrow_mut().incoming.extend(data);
        self.muxer.ready(self.token, true, false, false);
    }

    fn host_ends(&mut self) {
        self.stream.0.borrow_mut().ended = true;
        self.muxer.ready(self.token, true, false, false);
    }
}

#[test]
fn bytes_go_both_ways_and_each_direction_ends_by_itself() {
    let mut bench = Bench::connected();
    bench.host_says(b"GET /");
    assert_eq!(bench.due(), [(Operation::Data, 0, b"GET /".to_vec())]);
    bench.host_ends();
    assert_eq!(bench.due(), [(Operation::Shutdown, SHUTDOWN_SEND, vec![])]);
    bench.say(Operation::Data, 0, 5, b"200 OK");
    assert_eq!(bench.stream.0.borrow().outgoing, b"200 OK");
    bench.say(Operation::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, 5, &[]);
    assert!(bench.stream.0.borrow().told_end);
    assert_eq!(bench.due(), [(Operation::Reset, 0, vec![])]);
    assert!(bench.muxer.is_empty());
    assert_eq!(bench.muxer.traffic_bytes(), (5, 6));
}

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut bench = Bench::connected();
    bench.host_says(&[7; 2500]);
    let sent = |packets: &[(Operation, u32, Vec<u8>)]| packets.iter().map(|(_, _, data)| data.len()).sum::<usize>();
    let first = bench.due();
    assert_eq!(sent(&first), GUEST_BUFFER_BYTES as usize);
    assert_eq!(first.last().map(|packet| packet.0), Some(Operation::CreditRequest));
    assert_eq!(bench.due(), [], "one question is enough");
    bench.say(Operation::CreditUpdate, 0, 600, &[]);
    assert_eq!(sent(&bench.due()), 600);
    bench.say(Operation::CreditUpdate, 0, 1600, &[]);
    assert_eq!(sent(&bench.due()), 900);
}

#[test]
fn a_slow_reader_fills_the_buffer_and_a_guest_that_sends_more_is_cut_off() {
    let mut bench = Bench::connected();
    bench.stream.0.borrow_mut().room = 100;
    let chunk = vec![5; 64 * 1024];
    for _ in 0..4 {
        bench.say(Operation::Data, 0, 0, &chunk);
    }
    assert!(bench.muxer.has_undelivered());
    assert_eq!(bench.due(), []);
    // 100 bytes went through: as much fits again.
    bench.say(Operation::Data, 0, 0, &[6; 100]);
    bench.say(Operation::Data, 0, 0, &[6; 1]);
    assert_eq!(bench.due(), [(Operation::Reset, 0, vec![])]);
    assert!(bench.muxer.is_empty());
}

#[test]
fn the_guest_is_told_of_room_when_a_quarter_has_become_free() {
    let mut bench = Bench::connected();
    bench.stream.0.borrow_mut().room = 0;
    bench.say(Operation::Data, 0, 0, &vec![5; 200 * 1024]);
    bench.stream.0.borrow_mut().room = 64 * 1024 - 1;
    bench.muxer.ready(bench.token, false, true, false);
    assert_eq!(bench.due(), []);
    bench.stream.0.borrow_mut().room = 1;
    bench.muxer.ready(bench.token, false, true, false);
    assert_eq!(bench.due(), [(Operation::CreditUpdate, 0, vec![])]);
}

#[test]
fn a_reader_that_is_gone_is_told_to_the_guest() {
    let mut bench = Bench::connected();
    bench.stream.0.borrow_mut().gone = true;
    bench.say(Operation::Data, 0, 0, b"anybody there?");
    assert_eq!(bench.due(), [(Operation::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, vec![])]);
    // What was under way is taken and lost.
    bench.say(Operation::Data, 0, 0, b"hello?");
    bench.say(Operation::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, 0, &[]);
    assert_eq!(bench.due(), [(Operation::Reset, 0, vec![])]);
}

#[test]
fn a_refused_connection_closes_its_stream() {
    let mut muxer = Muxer::new(GUEST_CID, vec![]);
    let stream = Stream::default();
    muxer.connect(GUEST_PORT, stream.clone()).expect("there is room");
    let request = muxer.next(&mut []).expect("a request");
    let bench = Bench { muxer, stream, token: 0, host_port: request.source_port };
    let (header, mut muxer, stream) = (bench.header(Operation::Reset, 0, 0, 0), bench.muxer, bench.stream);
    assert_eq!(muxer.receive(&header, &[]), Wish::Nothing);
    assert!(muxer.is_empty());
    assert_eq!(Rc::strong_count(&stream.0), 1, "the muxer holds it still");
}

#[test]
fn the_guest_reaches_allowed_ports_and_no_others() {
    let mut bench = Bench::connected();
    let ask = |port| Header { destination_port: port, source_port: 9, ..bench.header(Operation::Request, 0, 0, 0) };
    let (allowed, other) = (ask(HOST_PORT), ask(HOST_PORT + 1));
    assert_eq!(bench.muxer.receive(&allowed, &[]), Wish::Accept(allowed));
    assert!(bench.muxer.accept(&allowed, Stream::default()).is_some());
    let mut next = || bench.muxer.next(&mut [0; 64]).map(|header| (header.operation, header.source_port));
    assert_eq!(next(), Some((Some(Operation::Response), HOST_PORT)));
    assert_eq!(next(), None);
    assert_eq!(bench.muxer.receive(&other, &[]), Wish::Nothing);
    let reset = bench.muxer.next(&mut []).expect("a reset");
    assert_eq!((reset.operation, reset.source_port), (Some(Operation::Reset), HOST_PORT + 1));
    // Asked for a second time, the connection is reset as well.
    assert_eq!(bench.muxer.receive(&allowed, &[]), Wish::Nothing);
    assert_eq!(bench.muxer.len(), 1);
}

#[test]
fn packets_of_others_and_to_nobody_do_no_harm() {
    let mut bench = Bench::connected();
    let foreign = Header { source_cid: 99, ..bench.header(Operation::Reset, 0, 0, 0) };
    bench.muxer.receive(&foreign, &[]);
    assert_eq!((bench.muxer.len(), bench.muxer.next(&mut [])), (1, None));
    let stray = Header { source_port: 1, ..bench.header(Operation::Data, 0, 0, 0) };
    bench.muxer.receive(&stray, &[]);
    assert_eq!(bench.muxer.next(&mut []).and_then(|header| header.operation), Some(Operation::Reset));
}

#[test]
fn connections_and_resets_are_bounded() {
    let mut muxer = Muxer::new(GUEST_CID, vec![]);
    for _ in 0..MAX_CONNECTIONS {
        assert!(muxer.connect(GUEST_PORT, Stream::default()).is_some());
    }
    assert!(muxer.connect(GUEST_PORT, Stream::default()).is_none());
    muxer.clear();
    assert!(muxer.is_empty() && muxer.next(&mut []).is_none());
    let bench = Bench::connected();
    let stray = Header { source_port: 1, ..bench.header(Operation::Data, 0, 0, 0) };
    for _ in 0..10 * MAX_RESETS {
        muxer.receive(&stray, &[]);
    }
    let mut resets = 0;
    while muxer.next(&mut []).is_some() {
        resets += 1;
    }
    assert_eq!(resets, MAX_RESETS);
}

/// A step of a hostile guest, or of a host that goes on with its life.
#[derive(Debug, Clone)]
enum Step {
    Packet { operation: u16, port: u32, host_port: u8, flags: u32, buffer_bytes: u32, forwarded: u32, data: usize },
    Connect,
    Ready { token: u32, readable: bool, writable: bool, hung_up: bool },
    Next { room: usize },
    Host { says: usize, ends: bool, room: usize, gone: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let number = prop_oneof![0..2000_u32, any::<u32>()];
    prop_oneof![
        (0..9_u16, 78..82_u32, 0..4_u8, 0..4_u32, number.clone(), number, 0..3000_usize).prop_map(
            |(operation, port, host_port, flags, buffer_bytes, forwarded, data)| Step::Packet {
                operation,
                port,
                host_port,
                flags,
                buffer_bytes,
                forwarded,
                data
            }
        ),
        Just(Step::Connect),
        (0..4_u32, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(token, readable, writable, hung_up)| Step::Ready { token, readable, writable, hung_up }),
        (0..3000_usize).prop_map(|room| Step::Next { room }),
        (0..3000_usize, any::<bool>(), 0..3000_usize, any::<bool>()).prop_map(|(says, ends, room, gone)| Step::Host {
            says,
            ends,
            room,
            gone
        }),
    ]
}

proptest! {
    /// Whatever a guest sends: no panic, no loop without end, no packet larger than its buffer, nothing
    /// kept beyond the bounds.
    #[test]
    fn hostile_guests_are_bounded(steps in proptest::collection::vec(step(), 0..120)) {
        let mut muxer = Muxer::new(GUEST_CID, vec![HOST_PORT]);
        let stream = Stream::default();
        for step in steps {
            match step {
                Step::Packet { operation, port, host_port, flags, buffer_bytes, forwarded, data } => {
                    let mut bytes = [0; super::super::packet::HEADER_BYTES];
                    bytes[30..32].copy_from_slice(&operation.to_le_bytes());
                    let destination_port = if host_port == 3 { HOST_PORT } else { FIRST_HOST_PORT + u32::from(host_port) };
                    let header = Header {
                        source_cid: GUEST_CID,
                        destination_cid: HOST_CID,
                        source_port: port,
                        destination_port,
                        length: data as u32,
                        kind: TYPE_STREAM,
                        flags,
                        buffer_bytes,
                        forwarded,
                        ..Header::parse(&bytes)
                    };
                    if let Wish::Accept(request) = muxer.receive(&header, &vec![9; data]) {
                        muxer.accept(&request, stream.clone());
                    }
                }
                Step::Connect => drop(muxer.connect(GUEST_PORT, stream.clone())),
                Step::Ready { token, readable, writable, hung_up } => muxer.ready(token, readable, writable, hung_up),
                Step::Next { room } => {
                    let mut buffer = vec![0; room];
                    // Ends: what can be sent is bounded by what the stream has.
                    for _ in 0..64 {
                        let Some(header) = muxer.next(&mut buffer) else { break };
                        prop_assert!(header.length as usize <= room);
                    }
                }
                Step::Host { says, ends, room, gone } => {
                    let mut far = stream.0.borrow_mut();
                    far.incoming.extend(std::iter::repeat_n(1, says));
                    (far.ended, far.room, far.gone) = (ends, room, gone);
                }
            }
            prop_assert!(muxer.len() <= MAX_CONNECTIONS && muxer.resets.len() <= MAX_RESETS);
            prop_assert!(muxer.turn.len() <= muxer.len());
            prop_assert_eq!(muxer.tokens.len(), muxer.len());
        }
    }
}
