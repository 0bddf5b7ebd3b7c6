//! Where the vCPUs' port and register accesses go.
//!
//! The set of devices is fixed before the first instruction and never changes, so the bus is read
//! without a lock; each virtio device has its own.

use crate::{
    arch::x86_64::layout,
    devices::{console::DebugConsole, doorbell::Doorbell},
    virtio::mmio::Transport,
};
use guest_protocol::doorbell;
use std::sync::Mutex;

/// What an access asks of the machine beyond its own answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// A byte of progress.
    Progress(u8),
    /// A doorbell word.
    Doorbell(u32),
    /// The doorbell at which the machine may be copied: the processor stops.
    Freeze,
    /// A reset: the machine ends.
    Reset,
}

impl Effect {
    /// Whether it is a doorbell of that kind ([`doorbell`]).
    #[must_use]
    pub fn is_bell(&self, kind: u8) -> bool {
        matches!(self, Self::Doorbell(word) if doorbell::heard(*word).0 == kind)
    }
}

/// Command port of the keyboard controller, and the command that resets a PC.
const KEYBOARD_CONTROLLER_PORT: u16 = 0x64;
const RESET_COMMAND: u8 = 0xfe;
/// The interval timer that is not there, and the port that gates it.
const PIT_PORTS: std::ops::RangeInclusive<u16> = 0x40..=0x43;
const PIT_GATE_PORT: u16 = 0x61;

/// All devices of a machine.
#[derive(Debug)]
pub struct Bus {
    /// The virtio devices, by position.
    pub devices: Vec<Mutex<Transport>>,
    /// The debug console, when it is on.
    pub console: Option<DebugConsole>,
}

impl Bus {
    /// A port is read. Ports that nobody has read as all ones; the timer's as zero.
    pub fn port_in(&self, port: u16, data: &mut [u8]) {
        let value = match port {
            port if PIT_PORTS.contains(&port) || port == PIT_GATE_PORT => 0,
            // Ready for a command, nothing to read.
            KEYBOARD_CONTROLLER_PORT => 0,
            port => match &self.console {
                Some(console) => console.read(port),
                None => 0xff,
            },
        };
        data.fill(value);
    }

    /// A port is written.
    pub fn port_out(&self, port: u16, data: &[u8]) -> Effect {
        match port {
            doorbell::PROGRESS_PORT => data.first().map_or(Effect::None, |byte| Effect::Progress(*byte)),
            doorbell::DOORBELL_PORT => match Doorbell::word(data) {
                Some(word) if doorbell::heard(word).0 == doorbell::FREEZE => Effect::Freeze,
                Some(word) => Effect::Doorbell(word),
                None => Effect::None,
            },
            KEYBOARD_CONTROLLER_PORT if data.first() == Some(&RESET_COMMAND) => Effect::Reset,
            port => {
                if let Some(console) = &self.console {
                    console.write(port, data);
                }
                Effect::None
            }
        }
    }

    /// A register is read. Addresses that nobody has read as zero.
    pub fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some((position, offset)) = self.device_at(gpa) {
            lock(&self.devices[position]).read(offset, data);
        }
    }

    /// A register is written.
    pub fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if let Some((position, offset)) = self.device_at(gpa) {
            lock(&self.devices[position]).write(offset, data);
        }
    }

    /// The device whose page holds the address, and the offset in it.
    fn device_at(&self, gpa: u64) -> Option<(usize, u64)> {
        let offset = gpa.checked_sub(layout::VIRTIO_MMIO_GPA)?;
        let position = usize::try_from(offset / layout::VIRTIO_MMIO_BYTES).ok()?;
        (position < self.devices.len()).then_some((position, offset % layout::VIRTIO_MMIO_BYTES))
    }
}

/// A device's lock. A thread that panicked while holding it has ended the process (`panic = "abort"`),
/// so what is behind it is whole.
pub(crate) fn lock(device: &Mutex<Transport>) -> std::sync::MutexGuard<'_, Transport> {
    device.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
