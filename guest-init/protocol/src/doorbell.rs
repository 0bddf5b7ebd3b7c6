//! Doorbells: I/O ports that a write to makes the guest leave to the host, at a known instruction.
//!
//! They work before any driver does and need none. A write that nobody listens to does nothing, so
//! the same init runs under any machine monitor.

/// One byte of progress, seen at once and in order. The port is the one that QEMU's
/// `isa-debugcon` and Bochs use, so that start times can be compared.
pub const PROGRESS_PORT: u16 = 0xe9;

/// Init's first instruction in user space.
pub const PROGRESS_INIT: u8 = b'I';

/// The doorbell itself: a 32-bit write, the kind in the high byte, a value in the low 24 bits.
pub const DOORBELL_PORT: u16 = 0x0be0;

/// Init is up and listens on [`crate::CONTROL_PORT`]. Value: [`crate::VERSION`].
pub const INIT_UP: u8 = 1;
/// The program listens.
pub const PROGRAM_READY: u8 = 2;
/// The guest is done; the machine monitor ends. Value: the exit status to report, 0 to 255.
pub const EXIT: u8 = 3;
/// Init has no stream open and waits at this instruction: a snapshot may be taken here. The register RDI holds the virtual address of
/// init's [`crate::record`] page. When the processor goes on, in this machine or in a clone of it, the host has written a record there.
pub const FREEZE: u8 = 4;
/// Init has made the record its own; the machine is itself and takes streams. Value: the record's generation, its low 24 bits.
pub const THAWED: u8 = 5;

/// Packs a doorbell's kind and value (its low 24 bits) into the word that is written.
#[must_use]
pub const fn ring(kind: u8, value: u32) -> u32 {
    ((kind as u32) << 24) | (value & 0x00ff_ffff)
}

/// Splits a doorbell word into kind and value.
#[must_use]
pub const fn heard(word: u32) -> (u8, u32) {
    ((word >> 24) as u8, word & 0x00ff_ffff)
}
