//! What the host and the guest's init say to each other.
//!
//! Three channels, all opened by the host over vsock once init has rung [`doorbell::INIT_UP`]:
//!
//! * [`CONTROL_PORT`]: one stream of [frames](frame): the host configures, the guest reports.
//! * [`LOG_PORT`]: one stream of [`LogRecord`] frames, guest to host: what the program prints.
//! * [`HTTP_PORT`]: any number of streams of raw bytes, spliced to the program's own socket.
//!   HTTP travels as HTTP; init neither parses nor buffers it.
//!
//! And a fourth way in that needs no stream: the [`record`] that makes a clone itself, written by the host into a page of init's
//! while the guest stands still at [`doorbell::FREEZE`].
//!
//! The guest side of this contract lives on inside snapshots: [`VERSION`] names it, golden frames in `tests/goldens` pin its bytes.
#![no_std]

extern crate alloc;

pub mod doorbell;
pub mod frame;
pub mod record;
mod words;

pub use words::*;

/// The version of these words. The guest says it first, in [`Event::Hello`]; a host that does not
/// know it refuses the guest.
pub const VERSION: u16 = 3;

/// The guest's vsock address, the same in every guest: the host side is a socket per guest.
pub const GUEST_CID: u64 = 3;

/// Guest port of the control stream.
pub const CONTROL_PORT: u32 = 1024;
/// Guest port of the log stream.
pub const LOG_PORT: u32 = 1025;
/// Guest port whose streams reach the program's HTTP server.
pub const HTTP_PORT: u32 = 80;

#[cfg(test)]
mod tests;
