//! The control stream: frames in, frames out, never blocking longer than it must.

use guest_protocol::{
    Command, Event, VERSION,
    frame::{self, FrameError, LENGTH_BYTES},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd},
};
use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
};

/// The stream and what has arrived of the next frame.
#[derive(Debug)]
pub(crate) struct Control {
    stream: File,
    received: Vec<u8>,
}

/// Why there is no next command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the host is gone")]
    Closed,
    #[error("the control stream failed: {0}")]
    Stream(#[from] io::Error),
    #[error("the host is out of step: {0}")]
    Frame(#[from] FrameError),
}

impl Control {
    /// A stream of the host, which is told who answers.
    pub(crate) fn greet(stream: File) -> Result<Self, ControlError> {
        let mut control = Self { stream, received: Vec::new() };
        control.send(&Event::Hello { version: VERSION })?;
        Ok(control)
    }

    /// Sends an event whole.
    pub(crate) fn send(&mut self, event: &Event) -> Result<(), ControlError> {
        let bytes = frame::encode(event)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(ControlError::Closed),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Err(ControlError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next command that has arrived whole; none yet is fine.
    pub(crate) fn receive(&mut self) -> Result<Option<Command>, ControlError> {
        loop {
            if let Some(command) = self.take_frame()? {
                return Ok(Some(command));
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ControlError::Closed),
                // Bounded: a frame is taken as soon as it is whole, and its length is limited.
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(ControlError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for a command.
    pub(crate) fn wait_for_command(&mut self) -> Result<Command, ControlError> {
        loop {
            if let Some(command) = self.receive()? {
                return Ok(command);
            }
            self.wait(PollFlags::IN)?;
        }
    }

    fn take_frame(&mut self) -> Result<Option<Command>, FrameError> {
        let Some(header) = self.received.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let end = LENGTH_BYTES + frame::body_length(*header)?;
        let Some(body) = self.received.get(LENGTH_BYTES..end) else {
            return Ok(None);
        };
        let command = frame::decode(body)?;
        self.received.drain(..end);
        Ok(Some(command))
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.stream, flags)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
