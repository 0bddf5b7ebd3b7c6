//! What a device model offers its transport.

use super::state::{DeviceState, StateError};
use crate::memory::Ram;
use std::os::fd::BorrowedFd;
use virtio_queue::Queue;

/// What made a device look at its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The driver has put something into the queue of that index.
    Queue(usize),
    /// A descriptor of the device's own ([`Device::descriptors`]) is ready.
    Descriptor(usize),
    /// One of the device's host streams is ready.
    Stream {
        /// The token it was registered with.
        token: u32,
        /// It may be read without blocking; at its end too.
        readable: bool,
        /// It may be written without blocking; when nobody reads any more too.
        writable: bool,
        /// Its other side is closed for good.
        hung_up: bool,
    },
}

/// What a device has done when it was asked to work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    used: u8,
    interrupt: bool,
    unfinished: bool,
}

impl Work {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Buffers of that queue were used: the driver may want an interrupt.
    pub fn used(&mut self, queue: usize) {
        debug_assert!(queue < 8);
        self.used |= 1 << (queue & 7);
    }

    /// The driver wants an interrupt: the device has asked it itself.
    pub fn interrupt(&mut self) {
        self.interrupt = true;
    }

    /// There is more to do, after others have had their turn.
    pub fn unfinished(&mut self) {
        self.unfinished = true;
    }

    /// Whether buffers of that queue were used.
    #[must_use]
    pub fn has_used(self, queue: usize) -> bool {
        self.used >> (queue & 7) & 1 == 1
    }

    /// Whether the driver wants an interrupt in any case.
    #[must_use]
    pub fn is_interrupt_wanted(self) -> bool {
        self.interrupt
    }

    /// Whether there is more to do.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        self.unfinished
    }
}

/// The guest's driver broke a rule of the device; the device stops until it is reset. The guest's fault.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The queue's rings or descriptors are broken.
    #[error("queue {queue}: {error}")]
    Queue {
        /// Index of the queue.
        queue: usize,
        /// What is wrong.
        error: virtio_queue::Error,
    },
}

/// A device model: features, configuration, and what it does with its queues.
pub trait Device: std::fmt::Debug + Send {
    /// Device type (virtio 1.2 section 5).
    fn kind(&self) -> u32;
    /// Feature bits of the device type; the transport adds its own.
    fn features(&self) -> u64;
    /// Largest size of each queue.
    fn queue_sizes(&self) -> &'static [u16];
    /// What the device has watched besides its queues, for as long as it lives. It hears of every edge.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
    /// Reads configuration space; bytes past its end stay zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// The driver is up and has chosen those of the features, the transport's among them.
    fn activate(&mut self, features: u64) {
        let _ = features;
    }
    /// Works for a bounded turn: until queues and streams have nothing more, or others should have
    /// theirs ([`Work::unfinished`]). Called only while the driver is up.
    ///
    /// # Errors
    /// The driver broke a rule; the transport asks it for a reset.
    fn process(&mut self, event: Event, queues: &mut [Queue], ram: &Ram) -> Result<Work, DeviceError>;
    /// Forgets everything that the driver knew.
    fn reset(&mut self);
    /// Connects a host stream to a guest port; only the vsock device can.
    fn connect(&mut self, port: u32, stream: std::os::unix::net::UnixStream) {
        let _ = (port, stream);
    }
    /// True while bytes of the guest wait for a reader on the host.
    fn has_undelivered(&self) -> bool {
        false
    }
    /// What a copy of the device must know beyond its queues.
    fn save(&self) -> DeviceState {
        DeviceState::Stateless
    }
    /// Becomes the copy of a device that was saved.
    ///
    /// # Errors
    /// [`StateError::Kind`].
    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        match state {
            DeviceState::Stateless => Ok(()),
            DeviceState::Vsock { .. } => Err(StateError::Kind),
        }
    }
    /// Bytes that went through, for statistics: (towards the guest, from the guest).
    fn traffic_bytes(&self) -> (u64, u64);
    /// Frames of the guest that were not sent; only a network card has any.
    fn refused_frames(&self) -> u64 {
        0
    }
}

/// Copies the part of a configuration structure that a driver reads.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)) else {
        return;
    };
    let length = rest.len().min(data.len());
    data[..length].copy_from_slice(&rest[..length]);
}
