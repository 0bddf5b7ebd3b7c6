//! The host's side of devices: a clock that steps move, a disk and a wire in memory. Each holds its device to what it promises.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vmm::devices::{
    block::{READ_ONLY_SECTORS, SECTOR_BYTES, Storage},
    network::{
        Identity, Wire, frame,
        header::{HEADER_BYTES, Offloads},
    },
    timer::Timer,
};

/// The Ethernet address of the guest's card.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The guest's IPv4 address.
pub const IPV4: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// The guest's IPv6 address.
pub const IPV6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 2);

/// Whom the guest may speak as.
#[must_use]
pub fn identity() -> Identity {
    Identity { mac: MAC, ipv4: vec![IPV4], ipv6: vec![IPV6] }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that a case moves.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Mutex<(Duration, Option<Duration>)>>);

impl Clock {
    /// Lets time pass until the alarm. False when none is set: its device waits for nothing.
    pub fn pass(&self) -> bool {
        let mut clock = lock(&self.0);
        let due = clock.1.take();
        clock.0 = due.unwrap_or(clock.0).max(clock.0);
        due.is_some()
    }
}

impl Timer for Clock {
    fn now(&self) -> Duration {
        lock(&self.0).0
    }
    fn wake_in(&mut self, time: Duration) {
        let mut clock = lock(&self.0);
        clock.1 = Some(clock.0.saturating_add(time));
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A disk in memory whose reads are short, and which fails when it is broken.
#[derive(Debug)]
pub struct Disk {
    bytes: Mutex<Vec<u8>>,
    limit: u64,
    broken: bool,
    read_only: bool,
}

impl Disk {
    /// A disk of that length.
    #[must_use]
    pub fn new(length: u16, broken: bool, read_only: bool) -> Self {
        // One that is only read says that it is longer than any file (`Block::new`), and has zeros there.
        let sectors = if read_only { READ_ONLY_SECTORS } else { u64::from(length).div_ceil(SECTOR_BYTES) };
        let limit = sectors * SECTOR_BYTES;
        Self { bytes: Mutex::new(vec![0xaa; usize::from(length)]), limit, broken, read_only }
    }

    fn check(&self, length: usize, offset: u64) -> io::Result<usize> {
        let end = offset.checked_add(length as u64);
        assert!(end.is_some_and(|end| end <= self.limit), "{length} bytes at {offset} of {}", self.limit);
        if self.broken { Err(io::Error::other("a broken disk")) } else { Ok(offset as usize) }
    }
}

impl Storage for Disk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = self.check(buffer.len(), offset)?;
        let bytes = lock(&self.bytes);
        let rest = bytes.get(offset..).unwrap_or_default();
        let length = rest.len().min(buffer.len()).min(700);
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        assert!(!self.read_only, "a disk that is only read was written");
        let offset = self.check(buffer.len(), offset)?;
        let mut bytes = lock(&self.bytes);
        let end = offset + buffer.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(buffer);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.check(0, 0).map(drop)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        assert!(!self.read_only, "what is only read was discarded");
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let offset = self.check(length, offset)?;
        let mut bytes = lock(&self.bytes);
        let end = bytes.len().min(offset + length);
        bytes.get_mut(offset..end).unwrap_or_default().fill(0);
        Ok(())
    }
}

/// A wire in memory, which takes no frame that a guest may not send.
#[derive(Debug, Clone, Default)]
pub struct Line {
    incoming: Arc<Mutex<VecDeque<Vec<u8>>>>,
    broken: bool,
}

impl Line {
    /// A wire that sends nothing if it is broken.
    #[must_use]
    pub fn new(broken: bool) -> Self {
        Self { broken, ..Self::default() }
    }

    /// Brings something for the guest.
    pub fn bring(&self, frame: Vec<u8>) {
        lock(&self.incoming).push_back(frame);
    }
}

impl Wire for Line {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let frame = lock(&self.incoming).pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let length = frame.len().min(buffer.len());
        buffer[..length].copy_from_slice(&frame[..length]);
        Ok(length)
    }

    fn send(&mut self, sent: &[u8]) -> io::Result<()> {
        let (header, sent) = sent.split_at(HEADER_BYTES);
        let transport = frame::check(sent, &identity()).expect("only frames of the guest's own are sent");
        if header[0] != 0 {
            let start = usize::from(u16::from_le_bytes([header[6], header[7]]));
            assert_eq!(transport.map(|transport| transport.offset), Some(start), "a checksum of another place");
        }
        if self.broken { Err(io::Error::other("the interface is down")) } else { Ok(()) }
    }

    fn agree(&mut self, _offloads: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
