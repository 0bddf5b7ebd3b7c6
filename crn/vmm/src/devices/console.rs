//! The debug console: just enough of a serial port for `earlyprintk=ttyS0` to print the kernel's log.
//!
//! Off in production: each character costs two exits.

use std::{
    fs::File,
    io::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// First register of the first serial port of a PC.
const BASE_PORT: u16 = 0x3f8;
/// Transmit holding register, and the line status register: empty and idle, always.
const TRANSMIT: u16 = 0;
const LINE_STATUS: u16 = 5;
const TRANSMITTER_IDLE: u8 = 0x60;

/// Most bytes a guest may print in its life; what is more is dropped. A guest can loop for ever.
pub const MAX_CONSOLE_BYTES: u64 = 4 << 20;

/// The port and where its bytes go.
#[derive(Debug)]
pub struct DebugConsole {
    sink: File,
    written: AtomicU64,
}

impl DebugConsole {
    /// A console that prints to `sink`.
    #[must_use]
    pub fn new(sink: File) -> Self {
        Self { sink, written: AtomicU64::new(0) }
    }

    /// A register is read; ports that are not its own read as all ones.
    #[must_use]
    pub fn read(&self, port: u16) -> u8 {
        match port.checked_sub(BASE_PORT) {
            Some(LINE_STATUS) => TRANSMITTER_IDLE,
            Some(0..8) => 0,
            Some(_) | None => 0xff,
        }
    }

    /// A register is written; only the transmitter does something.
    pub fn write(&self, port: u16, data: &[u8]) {
        if port == BASE_PORT + TRANSMIT
            && let Some(byte) = data.first()
            && self.written.fetch_add(1, Relaxed) < MAX_CONSOLE_BYTES
        {
            // A sink that is gone loses output, nothing else.
            let _ = (&self.sink).write_all(&[*byte]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _};

    #[test]
    fn prints_characters_and_is_always_ready() {
        let mut file = tempfile::tempfile().expect("a file");
        let console = DebugConsole::new(file.try_clone().expect("a clone"));
        console.write(0x3f8, b"h");
        console.write(0x3f8, b"i");
        console.write(0x3fc, b"x");
        assert_eq!((console.read(0x3fd), console.read(0x3f8), console.read(0x3f7)), (0x60, 0, 0xff));
        file.rewind().expect("a seek");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("a read");
        assert_eq!(text, "hi");
    }

    #[test]
    fn a_flood_is_bounded() {
        let file = tempfile::tempfile().expect("a file");
        let console = DebugConsole::new(file.try_clone().expect("a clone"));
        console.written.store(MAX_CONSOLE_BYTES - 1, Relaxed);
        for _ in 0..10 {
            console.write(0x3f8, b"x");
        }
        assert_eq!(file.metadata().expect("metadata").len(), 1);
    }
}
