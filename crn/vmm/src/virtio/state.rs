//! What is kept of a device in a snapshot: plain data, and untrusted when it comes back.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState};

/// A transport and its device as a driver left them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// The status register.
    pub status: u32,
    /// Interrupts that the driver has not acknowledged.
    pub interrupt_status: u32,
    /// Which half of the offered features is shown.
    pub device_features_sel: u32,
    /// Which half of the features the driver writes next.
    pub driver_features_sel: u32,
    /// What the driver has chosen.
    pub driver_features: u64,
    /// The queue that the queue registers are about.
    pub queue_sel: u32,
    /// The queues, in order.
    pub queues: Vec<QueueRecord>,
    /// What the device itself remembers.
    pub device: DeviceState,
}

/// What a device remembers beyond its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceState {
    /// Nothing.
    Stateless,
    /// The vsock device.
    Vsock {
        /// The port that the next connection to the guest comes from: never one that the guest may still remember.
        next_host_port: u32,
        /// Whether the guest had made connections, which a copy does not have: it is told.
        had_connections: bool,
    },
}

/// A queue: where it is and how far device and driver are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    next_avail: u16,
    next_used: u16,
    event_idx_enabled: bool,
    size: u16,
    ready: bool,
    desc_table: u64,
    avail_ring: u64,
    used_ring: u64,
}

/// Why a state is not one of this device.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another number of queues.
    #[error("the saved device has {saved} queues, this one {device}")]
    Queues {
        /// How many were saved.
        saved: usize,
        /// How many there are.
        device: usize,
    },
    /// A queue of the saved device cannot be one of this.
    #[error("a queue of the saved device is impossible here")]
    Queue,
    /// The driver uses features that this device does not have.
    #[error("the saved device's driver uses features that are not here: {0:#x}")]
    Features(u64),
    /// The state is of another kind of device.
    #[error("the saved device is of another kind")]
    Kind,
}

impl QueueRecord {
    /// The queue as it is.
    #[must_use]
    pub fn of(queue: &Queue) -> Self {
        let QueueState {
            next_avail,
            next_used,
            event_idx_enabled,
            size,
            ready,
            desc_table,
            avail_ring,
            used_ring,
            max_size: _,
        } = queue.state();
        Self { next_avail, next_used, event_idx_enabled, size, ready, desc_table, avail_ring, used_ring }
    }

    /// The queue again, of a device whose queues may have `max_size` entries. Whether its rings are in memory is for the caller to check.
    ///
    /// # Errors
    /// [`StateError::Queue`].
    pub fn to_queue(&self, max_size: u16) -> Result<Queue, StateError> {
        let Self { next_avail, next_used, event_idx_enabled, size, ready, desc_table, avail_ring, used_ring } = *self;
        let state = QueueState {
            max_size,
            next_avail,
            next_used,
            event_idx_enabled,
            size,
            ready,
            desc_table,
            avail_ring,
            used_ring,
        };
        Queue::try_from(state).map_err(|_| StateError::Queue)
    }
}
