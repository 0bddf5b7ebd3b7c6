//! The device: moves packets between the muxer and the guest's queues.

use super::{
    muxer::{Muxer, Wish},
    packet::{HEADER_BYTES, Header, MAX_DATA_BYTES},
};
use crate::{
    memory::Ram,
    virtio::{
        device::{Device, DeviceError, Event, Work, read_config_bytes},
        looks::Looks,
        state::{DeviceState, StateError},
    },
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
const EVENTS: usize = 2;
/// The one event there is: all connections are gone, as after a restore (virtio 1.2 section 5.10.6.5).
const EVENT_TRANSPORT_RESET: u32 = 0;
/// How many queues that are.
pub const VSOCK_QUEUES: usize = 3;
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
    /// As long as the longest packet so far: most guests send and take short ones.
    buffer: Vec<u8>,
    /// The guest believes in connections that are not here, and is to be told.
    reset_due: bool,
}

impl<R: StreamRegistry> VsockDevice<R> {
    /// A device without connections.
    #[must_use]
    pub fn new(muxer: Muxer<UnixStream>, registry: R) -> Self {
        Self { muxer, registry, buffer: Vec::new(), reset_due: false }
    }

    /// Takes packets of the guest.
    fn take(&mut self, queue: &mut Queue, ram: &Ram, work: &mut Work) -> Result<(), virtio_queue::Error> {
        let (mut taken, mut looks) = (0, Looks::default());
        loop {
            queue.disable_notification(ram)?;
            while let Some(chain) = queue.iter(ram)?.next() {
                looks.found();
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
            if !looks.again(queue, ram)? {
                return Ok(());
            }
        }
    }

    /// Tells the guest that its connections are gone, once it has a buffer for that.
    fn tell_reset(&mut self, queue: &mut Queue, ram: &Ram, work: &mut Work) -> Result<(), virtio_queue::Error> {
        let (mut looked_at, mut looks) = (0, Looks::default());
        while self.reset_due {
            let Some(chain) = queue.iter(ram)?.next() else {
                // The driver notifies when it has added one.
                if looks.again(queue, ram)? {
                    continue;
                }
                return Ok(());
            };
            looks.found();
            let head = chain.head_index();
            let event = EVENT_TRANSPORT_RESET.to_le_bytes();
            let told = chain.writer::<()>(ram).is_ok_and(|mut writer| writer.write_all(&event).is_ok());
            // A buffer that holds no event is returned empty; the next one may.
            queue.add_used(ram, head, if told { u32::try_from(event.len()).unwrap_or(0) } else { 0 })?;
            work.used(EVENTS);
            self.reset_due = !told;
            looked_at += 1;
            if looked_at == PACKETS_PER_TURN {
                work.unfinished();
                return Ok(());
            }
        }
        Ok(())
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
        if header.length > MAX_DATA_BYTES {
            return;
        }
        let data = at_least(&mut self.buffer, header.length as usize);
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
        let (mut given, mut looks) = (0, Looks::default());
        // No buffers and nothing to send both end the loop: it never spins.
        while self.muxer.has_next() {
            let Some(chain) = queue.iter(ram)?.next() else {
                // The driver notifies when it has added buffers.
                if looks.again(queue, ram)? {
                    continue;
                }
                return Ok(());
            };
            looks.found();
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

    /// Fills one buffer. None when there was nothing to send after all; a buffer that is too small for a header and a byte
    /// of data is returned empty.
    fn give_packet(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) -> Option<u32> {
        let Ok(mut writer) = chain.writer::<()>(ram) else {
            return Some(0);
        };
        // Nothing read from a stream into no room looks like the stream's end.
        let Some(room) = writer.available_bytes().checked_sub(HEADER_BYTES).filter(|room| *room > 0) else {
            return Some(0);
        };
        let room = room.min(MAX_DATA_BYTES as usize);
        let header = self.muxer.next(at_least(&mut self.buffer, room))?;
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

/// The beginning of a buffer that is made longer where it is too short.
fn at_least(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

impl<R: StreamRegistry> Device for VsockDevice<R> {
    fn kind(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; VSOCK_QUEUES]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.muxer.guest_cid().to_le_bytes(), offset, data);
    }

    fn process(&mut self, event: Event, queues: &mut [Queue], ram: &Ram) -> Result<Work, DeviceError> {
        let mut work = Work::new();
        let [to_guest, from_guest, events] = queues else {
            return Ok(work);
        };
        // Before anything new: the reset would end that too.
        if self.reset_due && events.ready() {
            self.tell_reset(events, ram, &mut work).map_err(|error| DeviceError::Queue { queue: EVENTS, error })?;
        }
        match event {
            Event::Stream { token, readable, writable, hung_up } => {
                self.muxer.ready(token, readable, writable, hung_up);
            }
            Event::Descriptor(_) => {}
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
        self.reset_due = false;
    }

    fn connect(&mut self, port: u32, stream: UnixStream) {
        self.add(stream, |muxer, stream| muxer.connect(port, stream));
    }

    fn save(&self) -> DeviceState {
        DeviceState::Vsock {
            next_host_port: self.muxer.next_host_port(),
            had_connections: self.muxer.guest_has_connected() || self.reset_due,
        }
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::Vsock { next_host_port, had_connections } = *state else {
            return Err(StateError::Kind);
        };
        self.muxer.continue_at(next_host_port);
        self.reset_due = had_connections;
        Ok(())
    }

    fn has_undelivered(&self) -> bool {
        self.muxer.has_undelivered()
    }

    fn traffic_bytes(&self) -> (u64, u64) {
        self.muxer.traffic_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Operation, TYPE_STREAM};
    use super::*;
    use crate::memory;
    use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
    use virtio_queue::{
        desc::{RawDescriptor, split::Descriptor},
        mock::MockSplitQueue,
    };
    use vm_memory::{Bytes as _, GuestAddress};

    const GUEST_CID: u64 = 3;
    const GUEST_PORT: u32 = 80;
    const FIRST_BUFFER_GPA: u64 = 0x10_0000;
    const BUFFER_STEP: u64 = 0x1000;

    #[derive(Debug)]
    struct Nobody;

    impl StreamRegistry for Nobody {
        fn watch(&mut self, _: BorrowedFd<'_>, _: u32) {}
        fn accept(&mut self, _: u32) -> Option<UnixStream> {
            None
        }
    }

    /// A buffer for a header alone made the device read nothing from the stream, and take that for the stream's end.
    #[test]
    fn a_buffer_without_room_for_data_ends_no_stream() {
        let ram = memory::allocate(32 << 20).expect("memory");
        let mut device = VsockDevice::new(Muxer::new(GUEST_CID, Vec::new()), Nobody);
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(b"hello").expect("a write");
        Device::connect(&mut device, GUEST_PORT, ours);

        let driver = MockSplitQueue::create(&ram, GuestAddress(0x1000), 16);
        // The second and third have room for nothing but a header.
        let lengths = [4096, 44, 44, 4096, 4096];
        let descriptors: Vec<RawDescriptor> = (0_u64..)
            .zip(lengths)
            .map(|(index, length)| {
                let write = u16::try_from(VRING_DESC_F_WRITE).expect("a flag");
                Descriptor::new(FIRST_BUFFER_GPA + index * BUFFER_STEP, length, write, 0).into()
            })
            .collect();
        driver.add_desc_chains(&descriptors, 0).expect("chains");
        let mut queue: Queue = driver.create_queue().expect("a queue");
        let header_at = |index: u64| {
            let mut bytes = [0; HEADER_BYTES];
            ram.read_slice(&mut bytes, GuestAddress(FIRST_BUFFER_GPA + index * BUFFER_STEP)).expect("a read");
            Header::parse(&bytes)
        };

        let mut work = Work::new();
        device.give(&mut queue, &ram, &mut work).expect("a good queue");
        let request = header_at(0);
        assert_eq!(request.operation, Some(Operation::Request));
        let response = Header {
            source_cid: GUEST_CID,
            destination_cid: request.source_cid,
            source_port: GUEST_PORT,
            destination_port: request.source_port,
            length: 0,
            kind: TYPE_STREAM,
            operation: Some(Operation::Response),
            flags: 0,
            buffer_bytes: 4096,
            forwarded: 0,
        };
        assert_eq!(device.muxer.receive(&response, &[]), Wish::Nothing);
        device.give(&mut queue, &ram, &mut work).expect("a good queue");
        let data = header_at(3);
        assert_eq!((data.operation, data.length), (Some(Operation::Data), 5));
        assert_eq!(header_at(4).operation, None, "the stream has not ended");
    }

    /// Both rings in one place, as no driver has them but a state can say: each buffer that is returned is another one that is available, and
    /// none of them holds an event.
    #[test]
    fn a_reset_that_finds_no_buffer_ends_its_turn() {
        let ram = memory::allocate(32 << 20).expect("memory");
        let mut device = VsockDevice::new(Muxer::new(GUEST_CID, Vec::new()), Nobody);
        let copy = DeviceState::Vsock { next_host_port: 1 << 30, had_connections: true };
        device.restore(&copy).expect("a state of this device");
        let mut queue = Queue::new(16).expect("a queue");
        queue.set_desc_table_address(Some(0x1000), None);
        queue.set_avail_ring_address(Some(0x2000), None);
        queue.set_used_ring_address(Some(0x2000), None);
        queue.set_next_used(1);
        queue.set_ready(true);
        ram.write_obj(1_u16, GuestAddress(0x2002)).expect("a write");
        let mut work = Work::new();
        device.tell_reset(&mut queue, &ram, &mut work).expect("whole rings");
        assert!(work.is_unfinished() && device.reset_due);
    }
}
