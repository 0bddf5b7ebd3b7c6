//! Who is in front of the machine: a supervisor on the control socket, or a person at a terminal.

use crate::{
    control::{self, ControlError, Notice, Request},
    devices::{entropy::random, vsock::muxer::MAX_CONNECTIONS},
};
use guest_protocol::record::Record;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// What the front asks of a running machine.
#[derive(Debug)]
pub enum Order {
    /// Connect this stream to a port of the guest.
    Connect(u32, UnixStream),
    /// Copy the machine, which stands still, into these files.
    Snapshot {
        /// For the memory.
        memory: File,
        /// For the rest.
        state: File,
    },
    /// Go on as the machine of this record.
    Resume(Record),
    /// Say what the machine has written to.
    TellWorkingSet,
    /// End.
    Stop,
}

/// Longest first line of a standalone connection, bytes: `CONNECT 4294967295\n`.
const MAX_CONNECT_LINE_BYTES: usize = 32;
/// How long a standalone connection may take to send it.
const CONNECT_LINE_LIMIT: Duration = Duration::from_millis(500);

/// The two fronts.
#[derive(Debug)]
pub enum Front {
    /// A supervisor, on the control socket.
    Supervised(OwnedFd),
    /// A terminal.
    Standalone(Terminal),
}

/// What a standalone machine has instead of a supervisor.
#[derive(Debug, Default)]
pub struct Terminal {
    /// Connections to the guest come in here (`CONNECT port\n`, answered `OK port\n`).
    listener: Option<UnixListener>,
    /// Connections of the guest go to sockets of this folder.
    folder: Option<PathBuf>,
    /// End at this byte of progress.
    pub exit_on_progress: Option<u8>,
    /// Write each byte of progress to standard output, at once.
    pub pass_progress: bool,
    /// Print progress and doorbells.
    pub verbose: bool,
}

impl Terminal {
    /// Puts the guest's ports into a folder: `connect` for connections to it, `port_N` for those it makes.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(&mut self, folder: &Path) -> io::Result<()> {
        let path = folder.join("connect");
        // A socket that a former machine has left.
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        self.folder = Some(folder.to_owned());
        Ok(())
    }
}

impl Front {
    /// What to watch for orders.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Supervised(socket) => Some(socket.as_fd()),
            Self::Standalone(terminal) => terminal.listener.as_ref().map(AsFd::as_fd),
        }
    }

    /// One order, when the descriptor is readable. None when there is none after all. A front that is gone, or that says what
    /// cannot be understood, has no machine any more.
    pub fn order(&self) -> Option<Order> {
        match self {
            Self::Supervised(socket) => match control::receive::<Request>(socket) {
                Ok((Request::Connect { port }, descriptors)) => {
                    let stream = descriptors.into_iter().next()?;
                    Some(Order::Connect(port, UnixStream::from(stream)))
                }
                Ok((Request::Snapshot, descriptors)) => {
                    let mut files = descriptors.into_iter().map(File::from);
                    Some(Order::Snapshot { memory: files.next()?, state: files.next()? })
                }
                Ok((Request::Resume(record), _)) => Some(Order::Resume(record)),
                Ok((Request::TellWorkingSet, _)) => Some(Order::TellWorkingSet),
                Ok((Request::Prepare(_) | Request::Start(_) | Request::Restore(_) | Request::Stop, _)) => {
                    Some(Order::Stop)
                }
                Err(ControlError::Socket(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(_) => Some(Order::Stop),
            },
            Self::Standalone(terminal) => {
                let (stream, _) = terminal.listener.as_ref()?.accept().ok()?;
                let port = read_connect_line(&stream).ok()?;
                Some(Order::Connect(port, stream))
            }
        }
    }

    /// Tells a supervisor. What does not fit its socket is not said: a supervisor that does not read is as good as gone, and the end
    /// of the socket tells it the rest.
    pub fn notify(&self, notice: &Notice, descriptors: &[BorrowedFd<'_>]) -> bool {
        match self {
            Self::Supervised(socket) => control::send(socket, notice, descriptors).is_ok(),
            Self::Standalone(_) => true,
        }
    }

    /// For a machine that stands still and whom nobody will copy: entropy, so that it goes on by itself.
    pub(super) fn seed(&self) -> Option<[u8; 32]> {
        let Self::Standalone(_) = self else { return None };
        let mut seed = [0; 32];
        // A host without random numbers gives a guest none.
        let _ = random(&mut seed);
        Some(seed)
    }

    /// How connections of the guest find their way.
    pub(super) fn acceptor(&self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Supervised(socket) => Acceptor::Supervisor(socket.try_clone()?),
            Self::Standalone(terminal) => Acceptor::Folder(terminal.folder.clone()),
        })
    }
}

/// Takes connections that the guest makes.
#[derive(Debug)]
pub(super) enum Acceptor {
    Supervisor(OwnedFd),
    Folder(Option<PathBuf>),
}

impl Acceptor {
    /// The machine's end of a stream whose other end somebody has taken.
    pub(super) fn accept(&self, port: u32) -> Option<UnixStream> {
        match self {
            Self::Supervisor(socket) => {
                let (ours, theirs) = UnixStream::pair().ok()?;
                control::send(socket, &Notice::Accepted { port }, &[theirs.as_fd()]).ok()?;
                Some(ours)
            }
            Self::Folder(folder) => UnixStream::connect(folder.as_ref()?.join(format!("port_{port}"))).ok(),
        }
    }
}

/// Reads `CONNECT port\n` and answers it. The peer is a local tool: it gets half a second.
fn read_connect_line(mut stream: &UnixStream) -> io::Result<u32> {
    let limit = Timespec::try_from(CONNECT_LINE_LIMIT).map_err(io::Error::other)?;
    let mut line = Vec::with_capacity(MAX_CONNECT_LINE_BYTES);
    while line.last() != Some(&b'\n') && line.len() < MAX_CONNECT_LINE_BYTES {
        if poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&limit))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // One byte at a time: what follows the line belongs to the guest.
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    let port = std::str::from_utf8(&line)
        .ok()
        .and_then(|line| line.strip_prefix("CONNECT ")?.trim_end().parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    writeln!(stream, "OK {port}")?;
    Ok(port)
}

/// Events that are taken from the kernel at a time.
pub(super) const EVENTS_PER_WAIT: usize = 64;

const _: () = assert!(EVENTS_PER_WAIT < MAX_CONNECTIONS);

/// Edges of a stream that the vsock device wants to hear of.
pub(super) const STREAM_EDGES: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::OUT).union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);

/// Edges of a device's own descriptors: timers and network cards, which end with the machine.
pub(super) const DESCRIPTOR_EDGES: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);
