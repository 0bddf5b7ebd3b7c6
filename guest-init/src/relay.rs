//! Streams between the host and the program: bytes in both directions, each with its own end.
//!
//! Init neither parses nor buffers HTTP. A direction reads only when its last bytes are written, so a slow reader slows its own writer
//! and nobody else; what waits is bounded by one read.

use crate::program::{BINARY_PORT, SOCKET_PATH};
use guest_protocol::Program;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, ipproto, shutdown, socket_with,
        sockopt::{set_tcp_nodelay, socket_error},
    },
};
use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
};

/// Most bytes read at a time, and so most that wait in a direction.
pub(crate) const CHUNK_BYTES: usize = 32 * 1024;
/// Reads of one relay before others have their turn.
const READS_PER_TURN: usize = 16;

/// A non-blocking connection to the program. It may not be complete yet; [`Relay`] sees to that.
pub(crate) fn connect_to(program: Program) -> io::Result<File> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match program {
        Program::Asgi => {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            connect(&socket, &SocketAddrUnix::new(SOCKET_PATH)?)?;
            socket
        }
        Program::Binary => {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?;
            set_tcp_nodelay(&socket, true)?;
            match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, BINARY_PORT)) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            socket
        }
    };
    Ok(File::from(socket))
}

/// One side of a relay.
#[derive(Debug)]
struct Side {
    socket: File,
    readable: bool,
    writable: bool,
}

impl Side {
    fn new(socket: File) -> Self {
        // Sockets are tried before they are waited for.
        Self { socket, readable: true, writable: true }
    }
}

/// Bytes on their way from one side to the other.
#[derive(Debug, Default)]
struct Direction {
    waiting: Vec<u8>,
    /// How much of `waiting` is written.
    written: usize,
    /// The source has ended.
    ended: bool,
    /// The destination has been told so, or is gone.
    closed: bool,
}

/// Which side of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Host,
    Program,
}

/// What to do with a relay after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for one of its sides.
    Waits,
    /// It has more to do; others first.
    More,
    /// Both directions have ended, or one side is gone: close both.
    Over,
}

/// A stream of the host and its connection to the program.
#[derive(Debug)]
pub(crate) struct Relay {
    host: Side,
    program: Side,
    to_program: Direction,
    to_host: Direction,
}

impl Relay {
    pub(crate) fn new(host: File, program: File) -> Self {
        Self {
            host: Side::new(host),
            program: Side::new(program),
            to_program: Direction::default(),
            to_host: Direction::default(),
        }
    }

    /// The two sockets, to be watched for edges.
    pub(crate) fn sockets(&self) -> (&File, &File) {
        (&self.host.socket, &self.program.socket)
    }

    /// A side became ready.
    pub(crate) fn ready(&mut self, which: Which, readable: bool, writable: bool) {
        let side = match which {
            Which::Host => &mut self.host,
            Which::Program => &mut self.program,
        };
        side.readable |= readable;
        side.writable |= writable;
    }

    /// Moves bytes until both sides would block, for a bounded turn.
    pub(crate) fn pump(&mut self, chunk: &mut [u8]) -> Turn {
        // A connection that was refused shows here; the host sees a stream that ends without a byte.
        if !matches!(socket_error(&self.program.socket), Ok(Ok(()))) {
            return Turn::Over;
        }
        let inward = self.to_program.pump(&mut self.host, &mut self.program, chunk);
        let outward = self.to_host.pump(&mut self.program, &mut self.host, chunk);
        match (inward, outward) {
            (Err(_), _) | (_, Err(_)) => Turn::Over,
            _ if self.to_program.closed && self.to_host.closed => Turn::Over,
            // A program that has closed its side answers no more; what the host still sends has no reader.
            _ if self.to_host.closed && self.program_is_gone() => Turn::Over,
            (Ok(true), _) | (_, Ok(true)) => Turn::More,
            (Ok(false), Ok(false)) => Turn::Waits,
        }
    }

    /// After the program's end of output: whether it also stopped listening to us.
    fn program_is_gone(&self) -> bool {
        self.to_program.closed || {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let mut descriptors = [PollFd::new(&self.program.socket, PollFlags::empty())];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut descriptors, Some(&now)).is_ok()
                && descriptors[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
        }
    }
}

impl Direction {
    /// Moves bytes from a side to the other. True when the turn ended before the bytes did.
    fn pump(&mut self, from: &mut Side, to: &mut Side, chunk: &mut [u8]) -> io::Result<bool> {
        let mut reads = 0;
        loop {
            if self.written < self.waiting.len() {
                if !to.writable {
                    return Ok(false);
                }
                self.write(to)?;
                continue;
            }
            if self.ended {
                if !self.closed {
                    self.closed = true;
                    match shutdown(&to.socket, Shutdown::Write) {
                        Ok(()) | Err(Errno::NOTCONN) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                return Ok(false);
            }
            if !from.readable {
                return Ok(false);
            }
            if reads == READS_PER_TURN {
                return Ok(true);
            }
            reads += 1;
            match from.socket.read(chunk) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    let written = write_some(to, &chunk[..read])?;
                    if written < read {
                        self.waiting.clear();
                        self.waiting.extend_from_slice(&chunk[written..read]);
                        self.written = 0;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => from.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A TCP connection that is still being made.
                Err(error) if error.kind() == ErrorKind::NotConnected => from.readable = false,
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, to: &mut Side) -> io::Result<()> {
        self.written += write_some(to, &self.waiting[self.written..])?;
        if self.written == self.waiting.len() {
            // An idle stream costs no buffer.
            *self = Self { ended: self.ended, closed: self.closed, ..Self::default() };
        }
        Ok(())
    }
}

/// Writes what fits now.
fn write_some(to: &mut Side, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() && to.writable {
        match to.socket.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => to.writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => to.writable = false,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
