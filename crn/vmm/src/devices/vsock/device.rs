//! The device: moves packets between the muxer and the guest's queues.

use super::{
    muxer::{Muxer, Wish},
    packet::{HEADER_BYTES, Header, MAX_DATA_BYTES},
};
use crate::{
    memory::Ram,
    virtio::device::{Device, DeviceError, Event, Work, read_config_bytes},
};
use std::{
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};

const QUEUE_SIZE: u16 = 256;
/// Queues: packets to the guest, packets from it, events.
const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
/// Packets moved in each direction before others have their turn.
const PACKETS_PER_TURN: u16 = QUEUE_SIZE;

/// Where the device has its host streams watched and announces connections of the guest.
pub trait StreamRegistry: std::fmt::Debug + Send {
    /// Reports readiness of this stream with that token, at every edge, until it is closed.
    fn watch(&mut self, stream: BorrowedFd<'_>, token: u32);
    /// The guest connects to this port of the host: gives the other end of the stream to whoever asked for such
    /// connections. None when nobody takes it.
    fn accept(&mut self, port: u32) -> Option<UnixStream>;
}

/// The vsock device of a machine.
#[derive(Debug)]
pub struct VsockDevice<R> {
    muxer: Muxer<UnixStream>,
    registry: R,
    buffer: Box<[u8]>,
}

impl<R: StreamRegistry> VsockDevice<R> {
    /// A device without connections.
    #[must_use]
    pub fn new(muxer: Muxer<UnixStream>, registry: R) -> Self {
        Self { muxer, registry, buffer: vec![0; MAX_DATA_BYTES as usize].into_boxed_slice() }
    }

    /// Takes packets of the guest.
    fn take(&mut self, queue: &mut Queue, ram: &Ram, work: &mut Work) -> Result<(), virtio_queue::Error> {
        let mut taken = 0;
        loop {
            queue.disable_notification(ram)?;
            while let Some(chain) = queue.iter(ram)?.next() {
                let head = chain.head_index();
                self.take_packet(chain, ram);
                queue.add_used(ram, head, 0)?;
                work.used(FROM_GUEST);
                taken += 1;
                if taken == PACKETS_PER_TURN {
                    work.unfinished();
                    return Ok(());
                }
            }
            if !queue.enable_notification(ram)? {
                return Ok(());
            }
        }
    }

    /// One packet. The header and its data may be spread over any descriptors; a packet that is shorter than it says is
    /// not one and is dropped, as a wire would.
    fn take_packet(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) {
        let Ok(mut reader) = chain.reader::<()>(ram) else {
            return;
        };
        let mut bytes = [0; HEADER_BYTES];
        if reader.read_exact(&mut bytes).is_err() {
            return;
        }
        let header = Header::parse(&bytes);
        let Some(data) = self.buffer.get_mut(..header.length as usize) else {
            return;
        };
        if reader.read_exact(data).is_err() {
            return;
        }
        match self.muxer.receive(&header, data) {
            Wish::Nothing => {}
            Wish::Accept(request) => match self.registry.accept(request.destination_port) {
                Some(stream) => self.add(stream, |muxer, stream| muxer.accept(&request, stream)),
                None => self.muxer.refuse(&request),
            },
        }
    }

    /// Gives packets to the guest while it has buffers and there are packets.
    fn give(&mut self, queue: &mut Queue, ram: &Ram, work: &mut Work) -> Result<(), virtio_queue::Error> {
        let mut given = 0;
        // No buffers and nothing to send both end the loop: it never spins.
        while self.muxer.has_next() {
            let Some(chain) = queue.iter(ram)?.next() else {
                // The driver notifies when it has added buffers.
                if queue.enable_notification(ram)? {
                    continue;
                }
                return Ok(());
            };
            let head = chain.head_index();
            match self.give_packet(chain, ram) {
                Some(written) => {
                    queue.add_used(ram, head, written)?;
                    work.used(TO_GUEST);
                }
                None => {
                    queue.go_to_previous_position();
                    return Ok(());
                }
            }
            given += 1;
            if given == PACKETS_PER_TURN {
                work.unfinished();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Fills one buffer. None when there was nothing to send after all; a buffer that is too small for a header is
    /// returned empty.
    fn give_packet(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) -> Option<u32> {
        let Ok(mut writer) = chain.writer::<()>(ram) else {
            return Some(0);
        };
        let Some(room) = writer.available_bytes().checked_sub(HEADER_BYTES) else {
            return Some(0);
        };
        let room = room.min(self.buffer.len());
        let header = self.muxer.next(&mut self.buffer[..room])?;
        let data = &self.buffer[..header.length as usize];
        match writer.write_all(&header.to_bytes()).and_then(|()| writer.write_all(data)) {
            Ok(()) => u32::try_from(writer.bytes_written()).ok(),
            Err(_) => Some(0),
        }
    }

    fn add(&mut self, stream: UnixStream, insert: impl FnOnce(&mut Muxer<UnixStream>, UnixStream) -> Option<u32>) {
        // A stream that cannot be made non-blocking is closed: it must never hold the device up.
        if stream.set_nonblocking(true).is_ok()
            && let Some(token) = insert(&mut self.muxer, stream)
            && let Some(stream) = self.muxer.stream(token)
        {
            self.registry.watch(stream.as_fd(), token);
        }
    }
}

impl<R: StreamRegistry> Device for VsockDevice<R> {
    fn kind(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; 3]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.muxer.guest_cid().to_le_bytes(), offset, data);
    }

    fn process(&mut self, event: Event, queues: &mut [Queue], ram: &Ram) -> Result<Work, DeviceError> {
        let mut work = Work::new();
        let [to_guest, from_guest, ..] = queues else {
            return Ok(work);
        };
        match event {
            Event::Stream { token, readable, writable, hung_up } => {
                self.muxer.ready(token, readable, writable, hung_up);
            }
            Event::Queue(_) if !from_guest.ready() => {}
            Event::Queue(_) => self
                .take(from_guest, ram, &mut work)
                .map_err(|error| DeviceError::Queue { queue: FROM_GUEST, error })?,
        }
        if to_guest.ready() {
            self.give(to_guest, ram, &mut work).map_err(|error| DeviceError::Queue { queue: TO_GUEST, error })?;
        }
        Ok(work)
    }

    fn reset(&mut self) {
        self.muxer.clear();
    }

    fn connect(&mut self, port: u32, stream: UnixStream) {
        self.add(stream, |muxer, stream| muxer.connect(port, stream));
    }

    fn has_undelivered(&self) -> bool {
        self.muxer.has_undelivered()
    }

    fn traffic_bytes(&self) -> (u64, u64) {
        self.muxer.traffic_bytes()
    }
}
