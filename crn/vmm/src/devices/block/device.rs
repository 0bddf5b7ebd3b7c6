//! The device: takes requests from its queue, carries them out on a file, answers.

use super::request::{
    DISCARD_BYTES, HEADER_BYTES, ID_BYTES, MAX_DISCARD_BYTES, Request, RequestError, SECTOR_BYTES, discarded,
};
use crate::{
    memory::Ram,
    virtio::{
        device::{Device, DeviceError, Event, Work, read_config_bytes},
        looks::Looks,
    },
};
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
};
use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_S_IOERR,
        VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _, Reader, Writer};

/// Queues of the device.
pub const BLOCK_QUEUES: usize = 1;
const QUEUE_SIZE: u16 = 128;
/// Data buffers of one request: a queue's worth without header and status.
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Requests carried out before other devices and the control socket have their turn.
const REQUESTS_PER_TURN: u16 = QUEUE_SIZE;
/// What a device that is only read says of its length, sectors: 1 TiB. What is not in the file reads as zeros.
pub const READ_ONLY_SECTORS: u64 = (1 << 40) / SECTOR_BYTES;
/// Ranges of one discard, and what they are best multiples of: the pages that files are made of, sectors.
const DISCARD_RANGES: u32 = 1;
const DISCARD_SECTORS: u64 = 4096 / SECTOR_BYTES;
/// Bytes moved between file and guest at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where the sectors are. Files in the product; tests make it fail.
pub trait Storage: std::fmt::Debug + Send {
    /// Reads at an offset; fewer bytes than asked at the end of the file.
    ///
    /// # Errors
    /// The host's disk.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    /// The host's disk.
    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written durable.
    ///
    /// # Errors
    /// The host's disk.
    fn flush(&self) -> io::Result<()>;
    /// Gives the space of a range back, which then reads as zeros.
    ///
    /// # Errors
    /// The host's disk; `Unsupported` where it cannot.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;
}

impl Storage for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, buffer, offset)
    }
    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        Ok(fallocate(self, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)?)
    }
}

/// A block device on some storage.
#[derive(Debug)]
pub struct Block<S> {
    storage: S,
    capacity_sectors: u64,
    read_only: bool,
    id: [u8; ID_BYTES],
    /// Made for the first request: a disk that nobody reads costs nothing.
    buffer: Vec<u8>,
    read_bytes: u64,
    written_bytes: u64,
}

impl Block<File> {
    /// The device of a file. Its length is rounded up to whole sectors; what lies past its end reads as zeros.
    ///
    /// # Errors
    /// The file's length cannot be asked.
    pub fn open(file: File, position: usize, read_only: bool) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self::new(file, length, position, read_only))
    }
}

impl<S: Storage> Block<S> {
    /// The device of some storage of that length. One that is only read says that it is longer than any file: a guest may be copied before it is
    /// known which file its copies read, and what a device is long is asked once.
    #[must_use]
    pub fn new(storage: S, length_bytes: u64, position: usize, read_only: bool) -> Self {
        let mut id = [0; ID_BYTES];
        let name = format!("beth-disk-{position}");
        let length = name.len().min(ID_BYTES);
        id[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self {
            storage,
            capacity_sectors: if read_only { READ_ONLY_SECTORS } else { length_bytes.div_ceil(SECTOR_BYTES) },
            read_only,
            id,
            buffer: Vec::new(),
            read_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Carries one chain out; returns how many bytes were written to guest memory.
    fn serve(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) -> u32 {
        let Ok(mut reader) = chain.clone().reader::<()>(ram) else {
            return 0;
        };
        let Ok(mut writer) = chain.writer::<()>(ram) else {
            return 0;
        };
        // The status is the last writable byte, wherever the driver has put buffer boundaries.
        let Some(data_bytes) = writer.available_bytes().checked_sub(1) else {
            return 0;
        };
        let Ok(mut status) = writer.split_at(data_bytes) else {
            return 0;
        };
        let mut header = [0; HEADER_BYTES];
        let done = match reader.read_exact(&mut header) {
            Ok(()) => self.execute(header, &mut reader, &mut writer),
            Err(_) => Err(Failure::Storage),
        };
        let code = match done {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(Failure::Request(RequestError::Unsupported(_)) | Failure::Unable) => VIRTIO_BLK_S_UNSUPP,
            Err(Failure::Request(RequestError::Range { .. } | RequestError::ReadOnly) | Failure::Storage) => {
                VIRTIO_BLK_S_IOERR
            }
        };
        let written = writer.bytes_written();
        match status.write_all(&code.to_le_bytes()[..1]) {
            Ok(()) => u32::try_from(written + 1).unwrap_or(u32::MAX),
            Err(_) => 0,
        }
    }

    fn execute(
        &mut self,
        header: [u8; HEADER_BYTES],
        reader: &mut Reader<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<(), Failure> {
        let readable = reader.available_bytes() as u64;
        let writable = writer.available_bytes() as u64;
        let request = Request::parse(header, readable, writable, self.capacity_sectors, self.read_only)?;
        self.buffer.resize(CHUNK_BYTES, 0);
        match request {
            Request::Read { offset, length } => self.read(offset, length, writer)?,
            Request::Write { offset, length } => self.write(offset, length, reader)?,
            Request::Flush => self.storage.flush()?,
            Request::Discard => {
                let mut range = [0; DISCARD_BYTES];
                reader.read_exact(&mut range)?;
                match discarded(range, self.capacity_sectors)? {
                    (_, 0) => {}
                    (offset, length) => self.storage.discard(offset, length)?,
                }
            }
            Request::Identify => {
                let length = writer.available_bytes().min(ID_BYTES);
                writer.write_all(&self.id[..length])?;
            }
        }
        Ok(())
    }

    fn read(&mut self, mut offset: u64, mut length: u64, writer: &mut Writer<'_>) -> io::Result<()> {
        while length > 0 {
            let part = usize::try_from(length).map_or(CHUNK_BYTES, |length| length.min(CHUNK_BYTES));
            let chunk = &mut self.buffer[..part];
            let mut filled = 0;
            while filled < chunk.len() {
                match self.storage.read_at(&mut chunk[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            chunk[filled..].fill(0);
            writer.write_all(chunk)?;
            self.read_bytes += filled as u64;
            offset += part as u64;
            length -= part as u64;
        }
        Ok(())
    }

    fn write(&mut self, mut offset: u64, mut length: u64, reader: &mut Reader<'_>) -> io::Result<()> {
        while length > 0 {
            let part = usize::try_from(length).map_or(CHUNK_BYTES, |length| length.min(CHUNK_BYTES));
            let chunk = &mut self.buffer[..part];
            reader.read_exact(chunk)?;
            self.storage.write_all_at(chunk, offset)?;
            self.written_bytes += part as u64;
            offset += part as u64;
            length -= part as u64;
        }
        Ok(())
    }
}

/// Why a request was not carried out.
enum Failure {
    Request(RequestError),
    /// The host's disk, or buffers that cannot be read.
    Storage,
    /// The host's disk cannot do that at all.
    Unable,
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::Unsupported { Self::Unable } else { Self::Storage }
    }
}

impl<S: Storage> Device for Block<S> {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let own = if self.read_only { 1 << VIRTIO_BLK_F_RO } else { 1 << VIRTIO_BLK_F_DISCARD };
        1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_SEG_MAX | own
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; BLOCK_QUEUES]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // `struct virtio_blk_config` (virtio 1.2, section 5.2.4) as far as what discards may be.
        let mut config = [0; 48];
        config[..8].copy_from_slice(&self.capacity_sectors.to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS.to_le_bytes());
        if !self.read_only {
            let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
            config[36..40].copy_from_slice(&word(MAX_DISCARD_BYTES / SECTOR_BYTES));
            config[40..44].copy_from_slice(&DISCARD_RANGES.to_le_bytes());
            config[44..].copy_from_slice(&word(DISCARD_SECTORS));
        }
        read_config_bytes(&config, offset, data);
    }

    fn process(&mut self, _event: Event, queues: &mut [Queue], ram: &Ram) -> Result<Work, DeviceError> {
        let mut work = Work::new();
        let Some(queue) = queues.first_mut().filter(|queue| queue.ready()) else {
            return Ok(work);
        };
        let broken = |error| DeviceError::Queue { queue: 0, error };
        let (mut served, mut looks) = (0, Looks::default());
        loop {
            queue.disable_notification(ram).map_err(broken)?;
            while let Some(chain) = queue.iter(ram).map_err(broken)?.next() {
                looks.found();
                let head = chain.head_index();
                let written = self.serve(chain, ram);
                queue.add_used(ram, head, written).map_err(broken)?;
                work.used(0);
                served += 1;
                if served == REQUESTS_PER_TURN {
                    work.unfinished();
                    return Ok(work);
                }
            }
            if !looks.again(queue, ram).map_err(broken)? {
                return Ok(work);
            }
        }
    }

    fn reset(&mut self) {}

    fn traffic_bytes(&self) -> (u64, u64) {
        (self.read_bytes, self.written_bytes)
    }
}

#[cfg(test)]
mod tests;
