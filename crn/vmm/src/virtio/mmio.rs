//! The virtio-mmio transport, version 2 (virtio 1.2 section 4.2).
//!
//! ```text
//! status:  0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK        (a write of 0 resets from anywhere)
//!                                 |            |             '-> queues checked, device active
//!                                 |            '-> features checked, queues may be set up
//!                                 '-> features may be chosen
//! ```
//!
//! Only steps up this ladder are taken; writes that do not belong to the present step are ignored. A driver that
//! breaks the rules is told so (`DEVICE_NEEDS_RESET`) and left alone until it resets the device.

use super::{
    device::{Device, DeviceError, Event},
    state::{QueueRecord, StateError, TransportState},
};
use crate::{memory::Ram, vm::Slot};
use std::sync::Arc;
use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
        VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::{Queue, QueueT as _};
use vmm_sys_util::eventfd::EventFd;

const MAGIC: u32 = 0x7472_6976; // "virt"
const VERSION: u32 = 2;
const VENDOR: u32 = 0x4854_4542; // "BETH"

/// Registers.
mod register {
    pub(super) const MAGIC_VALUE: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const VENDOR_ID: u64 = 0x00c;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub(super) const QUEUE_SEL: u64 = 0x030;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x034;
    pub(super) const QUEUE_NUM: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const INTERRUPT_STATUS: u64 = 0x060;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x084;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    /// Shared memory regions: there are none, whose length reads as all ones.
    pub(super) const SHM: std::ops::RangeInclusive<u64> = 0x0b0..=0x0bc;
    pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
    pub(super) const CONFIG: u64 = 0x100;
}

/// Offset of the notification register, where KVM listens for us (virtio 1.2 section 4.2.2, `QueueNotify`).
pub const QUEUE_NOTIFY: u64 = 0x050;

/// Bits of the interrupt status.
const INTERRUPT_QUEUE: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX as u64 | 1 << VIRTIO_RING_F_INDIRECT_DESC as u64;

const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;
const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;

/// One virtio device and its registers.
#[derive(Debug)]
pub struct Transport {
    device: Box<dyn Device>,
    ram: Arc<Ram>,
    queues: Vec<Queue>,
    slot: Slot,
    status: u32,
    interrupt_status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
}

impl Transport {
    /// Registers for a device at a place with as many notifications as it has queues.
    ///
    /// # Errors
    /// A queue size of the device is not a power of two.
    pub fn new(device: Box<dyn Device>, ram: Arc<Ram>, slot: Slot) -> std::io::Result<Self> {
        debug_assert!(slot.notifications.len() >= device.queue_sizes().len());
        let queues = device
            .queue_sizes()
            .iter()
            .map(|size| Queue::new(*size).map_err(std::io::Error::other))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            device,
            ram,
            queues,
            slot,
            status: 0,
            interrupt_status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
        })
    }

    /// The event descriptors of the queues, in order.
    #[must_use]
    pub fn notifications(&self) -> &[EventFd] {
        &self.slot.notifications
    }

    /// The device model.
    #[must_use]
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Connects a host stream to a port of the guest (vsock only).
    pub fn connect(&mut self, port: u32, stream: std::os::unix::net::UnixStream) {
        self.device.connect(port, stream);
        // The request waits in the device until the driver gives it a buffer.
        self.process(Event::Queue(0));
    }

    /// Lets the device work on an event. Does nothing before the driver is up. True when there is more to do, of which the device's first
    /// queue is notified.
    pub fn process(&mut self, event: Event) -> bool {
        if !self.is_active() {
            return false;
        }
        match self.device.process(event, &mut self.queues, &self.ram) {
            Ok(work) => {
                let mut wanted = work.is_interrupt_wanted();
                for (index, queue) in self.queues.iter_mut().enumerate() {
                    if work.has_used(index) {
                        // A driver whose rings cannot be read gets the interrupt anyway.
                        wanted |= queue.needs_notification(&*self.ram).unwrap_or(true);
                    }
                }
                if wanted {
                    self.interrupt(INTERRUPT_QUEUE);
                }
                if work.is_unfinished()
                    && let Some(notification) = self.slot.notifications.first()
                {
                    // As if the driver had notified again; an eventfd that is full is readable already.
                    let _ = notification.write(1);
                }
                work.is_unfinished()
            }
            Err(DeviceError::Queue { .. }) => {
                self.ask_for_reset();
                false
            }
        }
    }

    /// Works on every queue as if the driver had notified each, until nothing is left or `turns` are over: before a snapshot, what the
    /// guest has handed over is carried out, so that it is in no copy twice and none without it. True when nothing is left.
    pub fn settle(&mut self, turns: usize) -> bool {
        for _ in 0..turns {
            for notification in &self.slot.notifications {
                let _ = notification.read();
            }
            if !self.take_up() {
                return true;
            }
        }
        false
    }

    /// Everything that a driver has told the registers and the device.
    #[must_use]
    pub fn save(&self) -> TransportState {
        TransportState {
            status: self.status,
            interrupt_status: self.interrupt_status,
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            driver_features: self.driver_features,
            queue_sel: self.queue_sel,
            queues: self.queues.iter().map(QueueRecord::of).collect(),
            device: self.device.save(),
        }
    }

    /// Takes the place of a transport that was saved, its guest's memory being there already. An interrupt that was not acknowledged is
    /// raised again; what else may have been on its way then is done by [`Self::take_up`], once the guest runs.
    ///
    /// # Errors
    /// The state is not one of this device. The transport is of no use then.
    pub fn restore(&mut self, state: &TransportState) -> Result<(), StateError> {
        if state.queues.len() != self.queues.len() {
            return Err(StateError::Queues { saved: state.queues.len(), device: self.queues.len() });
        }
        if state.driver_features & !self.offered() != 0 {
            return Err(StateError::Features(state.driver_features & !self.offered()));
        }
        for (queue, record) in self.queues.iter_mut().zip(&state.queues) {
            *queue = record.to_queue(queue.max_size())?;
        }
        self.status = state.status;
        self.interrupt_status = state.interrupt_status;
        self.device_features_sel = state.device_features_sel;
        self.driver_features_sel = state.driver_features_sel;
        self.driver_features = state.driver_features;
        self.queue_sel = state.queue_sel;
        if self.is_active() && !self.queues.iter().all(|queue| !queue.ready() || queue.is_valid(&*self.ram)) {
            return Err(StateError::Queue);
        }
        self.device.restore(&state.device)?;
        if self.is_active() {
            self.device.activate(self.driver_features);
        }
        if self.interrupt_status != 0 {
            let _ = self.slot.line.write(1);
        }
        Ok(())
    }

    /// Works once on every queue as if the driver had notified each: it may have just before its machine was copied. The notifications
    /// themselves are not written and read for that: they are many system calls of a clone's few. True when something is left.
    pub fn take_up(&mut self) -> bool {
        let mut unfinished = false;
        for index in 0..self.queues.len() {
            unfinished |= self.process(Event::Queue(index));
        }
        unfinished
    }

    /// True between the driver's last step up and a reset.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status & DRIVER_OK != 0 && self.status & (NEEDS_RESET | FAILED) == 0
    }

    /// A register is read. Below the configuration only whole registers are read.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(config) = offset.checked_sub(register::CONFIG) {
            self.device.read_config(config, data);
            return;
        }
        let Ok(bytes) = <&mut [u8; 4]>::try_from(data) else {
            return;
        };
        let queue = self.queues.get(self.queue_sel as usize);
        let value = match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device.kind(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.offered(), self.device_features_sel),
            register::QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            register::QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            register::INTERRUPT_STATUS => self.interrupt_status,
            register::STATUS => self.status,
            // The configuration of our devices never changes.
            register::CONFIG_GENERATION => 0,
            offset if register::SHM.contains(&offset) => u32::MAX,
            _ => 0,
        };
        *bytes = value.to_le_bytes();
    }

    /// A register is written. Only whole registers are; the configuration of our devices is read-only.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::DRIVER_FEATURES => self.choose_features(value),
            register::QUEUE_SEL => self.queue_sel = value,
            register::INTERRUPT_ACK => self.interrupt_status &= !value,
            register::STATUS => self.write_status(value),
            _ => self.write_queue(offset, value),
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | FEATURES
    }

    fn choose_features(&mut self, value: u32) {
        if self.status & (DRIVER | FEATURES_OK) != DRIVER {
            return;
        }
        let shift = match self.driver_features_sel {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features &= !(u64::from(u32::MAX) << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        // Queues are set up between FEATURES_OK and DRIVER_OK, and at no other time.
        if self.status & (FEATURES_OK | DRIVER_OK) != FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else {
            return;
        };
        match offset {
            // A size that is no u16 is refused by the queue as zero is.
            register::QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            register::QUEUE_READY => queue.set_ready(value == 1),
            register::QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            register::QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            register::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            register::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let added = value & !self.status;
        let kept = self.status & !NEEDS_RESET;
        if value & kept != kept {
            return; // bits are only ever added
        }
        match (self.status & !(NEEDS_RESET | FAILED), added) {
            (_, bit) if bit & FAILED != 0 => self.status |= FAILED,
            (0, ACKNOWLEDGE) => self.status |= ACKNOWLEDGE,
            (ACKNOWLEDGE, DRIVER) => self.status |= DRIVER,
            (step, FEATURES_OK) if step == ACKNOWLEDGE | DRIVER => {
                let known = self.driver_features & !self.offered() == 0;
                if known && self.driver_features >> VIRTIO_F_VERSION_1 & 1 == 1 {
                    self.status |= FEATURES_OK;
                }
            }
            (step, DRIVER_OK) if step == ACKNOWLEDGE | DRIVER | FEATURES_OK => self.activate(),
            _ => {}
        }
    }

    fn activate(&mut self) {
        self.status |= DRIVER_OK;
        let event_idx = self.driver_features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1;
        for queue in &mut self.queues {
            queue.set_event_idx(event_idx);
        }
        if !self.queues.iter().all(|queue| !queue.ready() || queue.is_valid(&*self.ram)) {
            self.ask_for_reset();
            return;
        }
        self.device.activate(self.driver_features);
        // What was notified before the device was up would be lost otherwise.
        for notification in &self.slot.notifications {
            // An eventfd that is full is readable already.
            let _ = notification.write(1);
        }
    }

    fn reset(&mut self) {
        // A driver resets a device before it first uses it, too; what the host has already asked of the device
        // is not the driver's to forget.
        if self.status & DRIVER_OK != 0 {
            self.device.reset();
        }
        for queue in &mut self.queues {
            queue.reset();
        }
        self.status = 0;
        self.interrupt_status = 0;
        self.driver_features = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
    }

    fn ask_for_reset(&mut self) {
        self.status |= NEEDS_RESET;
        self.interrupt(INTERRUPT_CONFIG);
    }

    fn interrupt(&mut self, cause: u32) {
        self.interrupt_status |= cause;
        // An eventfd that is full is pending already.
        let _ = self.slot.line.write(1);
    }
}

fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => u32::try_from(features & u64::from(u32::MAX)).unwrap_or(0),
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
