//! One connection: two directions, each with its own end and its own credit.
//!
//! ```text
//!            request sent                 response
//!  connect ----------------> Requested ------------> Established --- both directions ended ---> gone
//!                               '------- reset -------'---- reset / protocol error ----------->
//! ```

use super::{
    muxer::HostStream,
    packet::{Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND},
};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
};

/// Receive buffer of each connection, bytes: what a guest may send before the host's reader takes it.
pub const BUFFER_BYTES: u32 = 256 * 1024;
/// The guest is told of room once this much has become free since it was last told.
const CREDIT_STEP_BYTES: u32 = BUFFER_BYTES / 4;

/// Which connection: the host's port and the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// Port on the host's side.
    pub host: u32,
    /// Port on the guest's side.
    pub guest: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The guest has been, or will be, asked for it.
    Requested,
    Established,
}

/// Packets that are due, at most one of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Due {
    request: bool,
    response: bool,
    shutdown: bool,
    credit_update: bool,
    credit_request: bool,
}

/// What the host's side can do next.
#[derive(Debug)]
pub enum Next {
    /// A packet without data.
    Packet(Operation, u32),
    /// Data may be read from the host stream, at most this many bytes.
    Data(usize),
    /// Nothing.
    Nothing,
    /// The connection is over: send a reset and forget it.
    Over,
}

/// Why a packet ends its connection. The guest's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A packet that does not belong to the state.
    #[error("a packet that does not belong to the state of its connection")]
    State,
    /// More data than there was room for.
    #[error("more data than there was room for")]
    Credit,
}

/// One connection of a guest.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    state: State,
    due: Due,

    // Guest to host.
    /// Received, not yet written to the stream: at most [`BUFFER_BYTES`].
    buffer: VecDeque<u8>,
    /// Bytes written to the stream since the start.
    forwarded: u32,
    /// The value of `forwarded` that the guest knows.
    told_forwarded: u32,
    /// The guest sends no more.
    guest_done: bool,
    /// The stream takes no more, or has been told that no more comes.
    stream_write_closed: bool,

    // Host to guest.
    /// The guest's buffer and how much it has taken out of it.
    guest_buffer_bytes: u32,
    guest_forwarded: u32,
    /// Bytes sent to the guest since the start.
    sent: u32,
    /// The guest takes no more.
    guest_deaf: bool,
    /// The stream may have data: an edge that was not yet used up.
    readable: bool,
    /// The stream has ended.
    stream_ended: bool,
    /// The stream's other side is closed for good, not only for writing.
    hung_up: bool,
    /// A credit request is on its way; one is enough.
    asked_for_credit: bool,
}

impl<S: HostStream> Connection<S> {
    /// A connection that the host asks for.
    pub fn to_guest(stream: S) -> Self {
        let due = Due { request: true, ..Due::default() };
        Self::new(stream, State::Requested, due)
    }

    /// A connection that the guest has asked for with this packet.
    pub fn from_guest(stream: S, request: &Header) -> Self {
        let due = Due { response: true, ..Due::default() };
        let mut connection = Self::new(stream, State::Established, due);
        connection.note_credit(request);
        connection
    }

    fn new(stream: S, state: State, due: Due) -> Self {
        Self {
            stream,
            state,
            due,
            buffer: VecDeque::new(),
            forwarded: 0,
            told_forwarded: 0,
            guest_done: false,
            stream_write_closed: false,
            guest_buffer_bytes: 0,
            guest_forwarded: 0,
            sent: 0,
            guest_deaf: false,
            readable: true,
            stream_ended: false,
            hung_up: false,
            asked_for_credit: false,
        }
    }

    /// What is received so far and was not yet asked for by the stream's reader, in header terms.
    #[must_use]
    pub fn forwarded(&self) -> u32 {
        self.forwarded
    }

    /// The packet that carries [`Connection::forwarded`] is on its way.
    pub fn told(&mut self) {
        self.told_forwarded = self.forwarded;
        self.due.credit_update = false;
    }

    /// The guest's packet, without its data. Data follows with [`Connection::receive`].
    ///
    /// # Errors
    /// It breaks a rule; reset the connection.
    pub fn handle(&mut self, header: &Header, operation: Operation) -> Result<(), Violation> {
        self.note_credit(header);
        match (self.state, operation) {
            (State::Requested, Operation::Response) => self.state = State::Established,
            (State::Established, Operation::Shutdown) => {
                self.guest_deaf |= header.flags & SHUTDOWN_RECEIVE != 0;
                self.guest_done |= header.flags & SHUTDOWN_SEND != 0;
                self.flush();
            }
            (State::Established, Operation::CreditUpdate) => {}
            (State::Established, Operation::CreditRequest) => self.due.credit_update = true,
            (State::Established, Operation::Data) if !self.guest_done => {
                let waiting = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
                if header.length > BUFFER_BYTES.saturating_sub(waiting) {
                    return Err(Violation::Credit);
                }
            }
            _ => return Err(Violation::State),
        }
        Ok(())
    }

    /// Data of a packet that [`Connection::handle`] has accepted: to the stream, or into the buffer.
    pub fn receive(&mut self, data: &[u8]) {
        let mut rest = data;
        if self.buffer.is_empty() && !self.stream_write_closed {
            let written = write_to(&mut self.stream, rest);
            rest = &rest[written.bytes..];
            self.note_written(written);
        }
        if self.stream_write_closed {
            // Nobody reads: the guest is told with a shutdown, what it still sends is taken and lost.
            self.forwarded = self.forwarded.wrapping_add(u32::try_from(rest.len()).unwrap_or(0));
        } else {
            self.buffer.extend(rest);
        }
        self.note_room();
    }

    /// The stream became ready.
    pub fn ready(&mut self, readable: bool, writable: bool, hung_up: bool) {
        self.readable |= readable;
        self.hung_up |= hung_up;
        if self.hung_up && self.stream_ended {
            self.stream_failed();
        }
        if writable {
            self.flush();
        }
    }

    /// True while bytes of the guest wait for the stream's reader.
    pub fn has_undelivered(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The host's side of the connection.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Reads from the stream for a data packet, into a buffer no larger than [`Next::Data`] has said.
    /// Returns how much there was; nothing when there is nothing to send after all.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.hung_up => {
                    self.stream_failed();
                    return 0;
                }
                Ok(0) => {
                    self.stream_ended = true;
                    self.readable = false;
                    self.due.shutdown = true;
                    return 0;
                }
                Ok(read) => {
                    self.sent = self.sent.wrapping_add(u32::try_from(read).unwrap_or(0));
                    return read;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return 0;
                }
                Err(_) => {
                    self.stream_failed();
                    return 0;
                }
            }
        }
    }

    /// What the host's side does next. The caller sends it, then asks again.
    pub fn next_step(&mut self) -> Next {
        if std::mem::take(&mut self.due.request) {
            return Next::Packet(Operation::Request, 0);
        }
        if std::mem::take(&mut self.due.response) {
            return Next::Packet(Operation::Response, 0);
        }
        if self.state != State::Established {
            return Next::Nothing;
        }
        if std::mem::take(&mut self.due.credit_update) {
            return Next::Packet(Operation::CreditUpdate, 0);
        }
        if std::mem::take(&mut self.due.credit_request) {
            return Next::Packet(Operation::CreditRequest, 0);
        }
        if self.readable && !self.stream_ended && !self.guest_deaf {
            match self.credit() {
                0 if self.asked_for_credit => {}
                0 => {
                    self.asked_for_credit = true;
                    return Next::Packet(Operation::CreditRequest, 0);
                }
                credit => return Next::Data(credit as usize),
            }
        }
        if self.is_over() {
            return Next::Over;
        }
        if std::mem::take(&mut self.due.shutdown) {
            let send = if self.stream_ended { SHUTDOWN_SEND } else { 0 };
            let receive = if self.stream_write_closed && !self.guest_done { SHUTDOWN_RECEIVE } else { 0 };
            return Next::Packet(Operation::Shutdown, send | receive);
        }
        Next::Nothing
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_buffer_bytes.saturating_sub(in_flight)
    }

    /// Both directions have ended and everything is delivered. A guest that will hear no more makes what
    /// the stream still says pointless.
    fn is_over(&self) -> bool {
        let towards_host = self.guest_done && self.buffer.is_empty();
        let towards_guest = self.stream_ended || self.guest_deaf;
        towards_host && towards_guest
    }

    fn note_credit(&mut self, header: &Header) {
        self.guest_buffer_bytes = header.buffer_bytes;
        self.guest_forwarded = header.forwarded;
        self.asked_for_credit = false;
    }

    /// Writes what is buffered, then passes the guest's end on.
    fn flush(&mut self) {
        while !self.buffer.is_empty() && !self.stream_write_closed {
            let (front, _) = self.buffer.as_slices();
            let written = write_to(&mut self.stream, front);
            let stuck = written.bytes < front.len();
            self.buffer.drain(..written.bytes);
            self.note_written(written);
            if stuck {
                break;
            }
        }
        if self.stream_write_closed {
            let lost = u32::try_from(self.buffer.len()).unwrap_or(0);
            self.forwarded = self.forwarded.wrapping_add(lost);
            self.buffer.clear();
        }
        if self.buffer.is_empty() {
            // An idle connection costs no buffer.
            self.buffer = VecDeque::new();
            if self.guest_done && !self.stream_write_closed {
                self.stream.shutdown_write();
                self.stream_write_closed = true;
            }
        }
        self.note_room();
    }

    fn note_written(&mut self, written: Written) {
        self.forwarded = self.forwarded.wrapping_add(u32::try_from(written.bytes).unwrap_or(0));
        if written.failed {
            self.stream_failed();
        }
    }

    /// The stream's other side is gone: nothing more in either direction.
    fn stream_failed(&mut self) {
        self.stream_ended = true;
        self.stream_write_closed = true;
        self.readable = false;
        self.due.shutdown = true;
    }

    fn note_room(&mut self) {
        if self.forwarded.wrapping_sub(self.told_forwarded) >= CREDIT_STEP_BYTES && !self.guest_done {
            self.due.credit_update = true;
        }
    }
}

/// How a write to a stream went.
#[derive(Debug, Clone, Copy)]
struct Written {
    bytes: usize,
    /// Nobody will ever read more.
    failed: bool,
}

/// Writes to a stream as much as it takes.
fn write_to<S: HostStream>(stream: &mut S, data: &[u8]) -> Written {
    let mut bytes = 0;
    while bytes < data.len() {
        match stream.write(&data[bytes..]) {
            Ok(0) => break,
            Ok(length) => bytes += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => {
                return Written { bytes, failed: true };
            }
        }
    }
    Written { bytes, failed: false }
}

impl HostStream for std::os::unix::net::UnixStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, buffer)
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        rustix::net::send(&*self, data, rustix::net::SendFlags::NOSIGNAL).map_err(Into::into)
    }
    fn shutdown_write(&mut self) {
        // A stream whose other side is gone needs no telling.
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}
