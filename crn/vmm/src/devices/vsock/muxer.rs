//! All connections of a guest: packets in, packets out.

use super::{
    connection::{BUFFER_BYTES, Connection, Next, Ports, Violation},
    packet::{HOST_CID, Header, MAX_DATA_BYTES, Operation, TYPE_STREAM},
};
use std::{
    collections::{HashMap, VecDeque},
    io,
};

/// Most connections of a guest at a time. What the host asks for beyond it is closed at once, what the guest asks
/// for is reset. Each costs at most its buffer of 256 KiB.
pub const MAX_CONNECTIONS: usize = 1024;
/// Most resets that wait for a buffer of the guest; more are not sent, and the guest's requests time out.
const MAX_RESETS: usize = 256;
/// Ports that the host's side of connections takes, in turn: never the same soon again.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// A stream socket on the host's side: never blocks.
pub trait HostStream: std::fmt::Debug {
    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes what fits.
    ///
    /// # Errors
    /// `WouldBlock` when nothing fits now.
    fn write(&mut self, data: &[u8]) -> io::Result<usize>;
    /// No more will be written.
    fn shutdown_write(&mut self);
}

/// A packet towards the guest, without its data.
pub type Outgoing = Header;

/// What the muxer wants of its surroundings after a packet of the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// The guest asks for a connection to this allowed port of the host: answer with
    /// [`Muxer::accept`] or [`Muxer::refuse`].
    Accept(Header),
}

/// A connection with what the muxer keeps beside it.
#[derive(Debug)]
struct Entry<S> {
    connection: Connection<S>,
    token: u32,
    /// It is in [`Muxer::turn`].
    queued: bool,
}

/// The connections of one guest.
#[derive(Debug)]
pub struct Muxer<S> {
    guest_cid: u64,
    accept_ports: Vec<u32>,
    connections: HashMap<Ports, Entry<S>>,
    /// Stream tokens, so that readiness finds its connection.
    tokens: HashMap<u32, Ports>,
    next_token: u32,
    next_host_port: u32,
    /// Connections that may have something to send, each at most once.
    turn: VecDeque<Ports>,
    resets: VecDeque<Ports>,
    received_bytes: u64,
    sent_bytes: u64,
}

impl<S: HostStream> Muxer<S> {
    /// No connections yet.
    #[must_use]
    pub fn new(guest_cid: u64, accept_ports: Vec<u32>) -> Self {
        Self {
            guest_cid,
            accept_ports,
            connections: HashMap::new(),
            tokens: HashMap::new(),
            next_token: 0,
            next_host_port: FIRST_HOST_PORT,
            turn: VecDeque::new(),
            resets: VecDeque::new(),
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// The port that the next connection to the guest comes from.
    #[must_use]
    pub fn next_host_port(&self) -> u32 {
        self.next_host_port
    }

    /// Goes on with host ports where another muxer has stopped.
    pub fn continue_at(&mut self, next_host_port: u32) {
        self.next_host_port = next_host_port.max(FIRST_HOST_PORT);
    }

    /// Whether there is a connection that the guest has asked for. Those that the host has asked for are closed by a guest before it is
    /// copied; what its kernel still says of them is answered with a reset, as of any connection that is not there.
    #[must_use]
    pub fn guest_has_connected(&self) -> bool {
        self.connections.keys().any(|ports| ports.host < FIRST_HOST_PORT)
    }

    /// The guest's address.
    #[must_use]
    pub fn guest_cid(&self) -> u64 {
        self.guest_cid
    }

    /// Bytes of data so far: (towards the guest, from the guest).
    #[must_use]
    pub fn traffic_bytes(&self) -> (u64, u64) {
        (self.sent_bytes, self.received_bytes)
    }

    /// True while a stream's reader has not taken all that the guest has sent.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        self.connections.values().any(|entry| entry.connection.has_undelivered())
    }

    /// Connections that exist.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// True without connections.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Asks the guest for a connection. Returns the token under which the stream's readiness is to be reported; none
    /// when there are [`MAX_CONNECTIONS`], and the stream is closed.
    pub fn connect(&mut self, guest_port: u32, stream: S) -> Option<u32> {
        if self.connections.len() >= MAX_CONNECTIONS {
            return None;
        }
        let ports = loop {
            let ports = Ports { host: self.next_host_port, guest: guest_port };
            self.next_host_port = self.next_host_port.wrapping_add(1).max(FIRST_HOST_PORT);
            if !self.connections.contains_key(&ports) {
                break ports;
            }
        };
        Some(self.insert(ports, Connection::to_guest(stream)))
    }

    /// Grants a connection that the guest has asked for. Returns the stream's token.
    pub fn accept(&mut self, request: &Header, stream: S) -> Option<u32> {
        let ports = ports_of(request);
        if self.connections.len() >= MAX_CONNECTIONS || self.connections.contains_key(&ports) {
            self.reset(ports);
            return None;
        }
        Some(self.insert(ports, Connection::from_guest(stream, request)))
    }

    /// Refuses a connection that the guest has asked for.
    pub fn refuse(&mut self, request: &Header) {
        self.reset(ports_of(request));
    }

    fn insert(&mut self, ports: Ports, connection: Connection<S>) -> u32 {
        while self.tokens.contains_key(&self.next_token) {
            self.next_token = self.next_token.wrapping_add(1);
        }
        let token = self.next_token;
        self.next_token = self.next_token.wrapping_add(1);
        self.tokens.insert(token, ports);
        self.connections.insert(ports, Entry { connection, token, queued: true });
        self.turn.push_back(ports);
        token
    }

    /// The host's side of the connection with that token.
    #[must_use]
    pub fn stream(&self, token: u32) -> Option<&S> {
        let ports = self.tokens.get(&token)?;
        self.connections.get(ports).map(|entry| entry.connection.stream())
    }

    /// A packet of the guest; `data` is what follows the header, as long as it says.
    pub fn receive(&mut self, header: &Header, data: &[u8]) -> Wish {
        let ports = ports_of(header);
        let sane = header.destination_cid == HOST_CID && header.source_cid == self.guest_cid;
        if !sane {
            return Wish::Nothing; // not for us: nobody to answer to
        }
        if header.kind != TYPE_STREAM {
            self.reset(ports);
            return Wish::Nothing;
        }
        let Some(operation) = header.operation else {
            self.drop_connection(ports);
            return Wish::Nothing;
        };
        match operation {
            Operation::Reset => {
                self.remove(ports);
                return Wish::Nothing;
            }
            Operation::Request => {
                if self.accept_ports.contains(&ports.host) && !self.connections.contains_key(&ports) {
                    return Wish::Accept(*header);
                }
                self.drop_connection(ports);
                return Wish::Nothing;
            }
            Operation::Response
            | Operation::Shutdown
            | Operation::Data
            | Operation::CreditUpdate
            | Operation::CreditRequest => {}
        }
        let Some(entry) = self.connections.get_mut(&ports) else {
            self.reset(ports);
            return Wish::Nothing;
        };
        match entry.connection.handle(header, operation) {
            Ok(()) => {
                if operation == Operation::Data {
                    self.received_bytes += data.len() as u64;
                    entry.connection.receive(data);
                }
                self.queue(ports);
            }
            Err(Violation::State | Violation::Credit) => self.drop_connection(ports),
        }
        Wish::Nothing
    }

    /// A host stream became ready.
    pub fn ready(&mut self, token: u32, readable: bool, writable: bool, hung_up: bool) {
        if let Some(ports) = self.tokens.get(&token).copied()
            && let Some(entry) = self.connections.get_mut(&ports)
        {
            entry.connection.ready(readable, writable, hung_up);
            self.queue(ports);
        }
    }

    /// True when there may be a packet for the guest.
    #[must_use]
    pub fn has_next(&self) -> bool {
        !self.turn.is_empty() || !self.resets.is_empty()
    }

    /// The next packet for the guest, with its data in `buffer`, of which at most `buffer.len()` bytes are used.
    /// Connections take turns.
    pub fn next(&mut self, buffer: &mut [u8]) -> Option<Outgoing> {
        if let Some(ports) = self.resets.pop_front() {
            return Some(self.header(ports, Operation::Reset, 0, 0, 0));
        }
        while let Some(ports) = self.turn.pop_front() {
            let Some(entry) = self.connections.get_mut(&ports) else {
                continue;
            };
            entry.queued = false;
            let connection = &mut entry.connection;
            let (operation, flags, length) = match connection.next_step() {
                Next::Nothing => continue,
                Next::Over => {
                    self.remove(ports);
                    return Some(self.header(ports, Operation::Reset, 0, 0, 0));
                }
                Next::Packet(operation, flags) => (operation, flags, 0),
                Next::Data(credit) => {
                    let room = credit.min(buffer.len()).min(MAX_DATA_BYTES as usize);
                    let read = connection.read(&mut buffer[..room]);
                    if read == 0 {
                        // Its end, or nothing now: it may still have a packet to send.
                        entry.queued = true;
                        self.turn.push_front(ports);
                        continue;
                    }
                    (Operation::Data, 0, u32::try_from(read).unwrap_or(MAX_DATA_BYTES))
                }
            };
            let forwarded = connection.forwarded();
            connection.told();
            entry.queued = true;
            self.turn.push_back(ports);
            self.sent_bytes += u64::from(length);
            return Some(self.header(ports, operation, flags, length, forwarded));
        }
        None
    }

    /// Everything ends: the driver has reset the device. Streams close.
    pub fn clear(&mut self) {
        self.connections.clear();
        self.tokens.clear();
        self.turn.clear();
        self.resets.clear();
    }

    fn header(&self, ports: Ports, operation: Operation, flags: u32, length: u32, forwarded: u32) -> Header {
        Header {
            source_cid: HOST_CID,
            destination_cid: self.guest_cid,
            source_port: ports.host,
            destination_port: ports.guest,
            length,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags,
            buffer_bytes: BUFFER_BYTES,
            forwarded,
        }
    }

    fn queue(&mut self, ports: Ports) {
        if let Some(entry) = self.connections.get_mut(&ports)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.turn.push_back(ports);
        }
    }

    /// Ends a connection from our side, if it exists, and tells the guest.
    fn drop_connection(&mut self, ports: Ports) {
        self.remove(ports);
        self.reset(ports);
    }

    fn remove(&mut self, ports: Ports) {
        if let Some(entry) = self.connections.remove(&ports) {
            self.tokens.remove(&entry.token);
            if entry.queued {
                self.turn.retain(|of| *of != ports);
            }
        }
    }

    fn reset(&mut self, ports: Ports) {
        if self.resets.len() < MAX_RESETS {
            self.resets.push_back(ports);
        }
    }
}

/// The connection that a packet of the guest belongs to.
fn ports_of(header: &Header) -> Ports {
    Ports { host: header.destination_port, guest: header.source_port }
}

#[cfg(test)]
mod tests;
