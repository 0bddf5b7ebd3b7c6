//! The device: moves frames between the tap and the guest's queues.

use super::{
    frame::{self, Identity, MAX_FRAME_BYTES, Refusal},
    header::{HEADER_BYTES, Header, Offloads},
};
use crate::{
    devices::{
        timer::Timer,
        token_bucket::{Rate, TokenBucket},
    },
    memory::Ram,
    virtio::{
        device::{Device, DeviceError, Event, Work, read_config_bytes},
        looks::Looks,
        used,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read as _, Write as _},
    os::fd::BorrowedFd,
    time::Duration,
};
use virtio_bindings::{virtio_ids::VIRTIO_ID_NET, virtio_net::VIRTIO_NET_F_MAC};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};

/// Queues of the device.
pub const NETWORK_QUEUES: usize = 2;
const QUEUE_SIZE: u16 = 256;
/// Queues: frames to the guest, frames from it.
const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
/// The timer among the device's descriptors; the wire is the other.
const TIMER: usize = 0;
/// Frames moved in each direction before other devices have their turn.
const FRAMES_PER_TURN: u16 = 64;
/// A header and the longest frame.
const BUFFER_BYTES: usize = HEADER_BYTES + MAX_FRAME_BYTES;

/// How much goes through in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Bytes of frames.
    pub bytes: Rate,
    /// Packets on the wire, of which a frame can be several.
    pub packets: Rate,
}

/// What a card has in each direction: a gigabit per second, in packets of 1,250 bytes on average. Bursts are what goes
/// through in 50 ms.
pub const DEFAULT_RATES: Rates = Rates { bytes: Rate::of(125_000_000), packets: Rate::of(100_000) };

/// The wire: a tap in the product.
pub trait Wire: std::fmt::Debug + Send {
    /// The next frame with its header, or the part of it that fits.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, or the host's.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Sends a frame with its header.
    ///
    /// # Errors
    /// The host does not take it.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
    /// From now on frames towards the guest are as it takes them.
    ///
    /// # Errors
    /// The host's.
    fn agree(&mut self, offloads: Offloads) -> io::Result<()>;
    /// What becomes ready when there are frames.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// The bound of one direction.
#[derive(Debug)]
struct Limit {
    bytes: TokenBucket,
    packets: TokenBucket,
}

impl Limit {
    fn new(rates: Rates) -> Self {
        Self { bytes: TokenBucket::new(rates.bytes), packets: TokenBucket::new(rates.packets) }
    }

    /// Takes what a frame costs, or says how long it must wait.
    fn take(&mut self, bytes: usize, packets: u64, now: Duration) -> Result<(), Duration> {
        let wait = self.bytes.wait_for(bytes as u64, now).max(self.packets.wait_for(packets, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        self.bytes.take(bytes as u64, now);
        self.packets.take(packets, now);
        Ok(())
    }
}

/// A frame of the wire that the guest has not got yet; its bytes are in the buffer.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// With its header.
    bytes: usize,
    /// It was counted already.
    is_paid: bool,
}

/// The network card of a machine.
#[derive(Debug)]
pub struct Network<W, T> {
    wire: W,
    timer: T,
    /// When the timer goes off, if it is set.
    alarm: Option<Duration>,
    identity: Identity,
    offloads: Offloads,
    /// The wire was not told yet.
    offloads_are_new: bool,
    to_guest: Limit,
    from_guest: Limit,
    /// Frames may wait in the wire.
    readable: bool,
    waiting: Option<Waiting>,
    incoming: Box<[u8]>,
    outgoing: Box<[u8]>,
    /// Chains of the frame that is given at the moment; kept to be used again.
    chains: Vec<(u16, u32)>,
    in_bytes: u64,
    out_bytes: u64,
    refused: [u64; Refusal::COUNT],
}

/// What became of a frame towards the guest.
enum Delivery {
    Given,
    /// There are too few buffers.
    Waits,
    /// No buffers of this driver will do.
    Impossible,
}

impl<W: Wire, T: Timer> Network<W, T> {
    /// A card on that wire whose guest speaks as that.
    #[must_use]
    pub fn new(wire: W, timer: T, identity: Identity, rates: Rates) -> Self {
        Self {
            wire,
            timer,
            alarm: None,
            identity,
            offloads: Offloads::default(),
            offloads_are_new: true,
            to_guest: Limit::new(rates),
            from_guest: Limit::new(rates),
            readable: true,
            waiting: None,
            incoming: vec![0; BUFFER_BYTES].into_boxed_slice(),
            outgoing: vec![0; BUFFER_BYTES].into_boxed_slice(),
            chains: Vec::with_capacity(usize::from(QUEUE_SIZE)),
            in_bytes: 0,
            out_bytes: 0,
            refused: [0; Refusal::COUNT],
        }
    }

    /// Frames of the guest that were dropped for that reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize]
    }

    /// Takes frames of the guest.
    fn take(&mut self, queue: &mut Queue, ram: &Ram, work: &mut Work) -> Result<(), virtio_queue::Error> {
        let now = self.timer.now();
        let (mut taken, mut looks) = (0, Looks::default());
        loop {
            queue.disable_notification(ram)?;
            while let Some(chain) = queue.iter(ram)?.next() {
                looks.found();
                let head = chain.head_index();
                let sent = match self.read(chain, ram) {
                    Err(refusal) => Err(refusal),
                    Ok((bytes, packets)) => {
                        if let Err(wait) = self.from_guest.take(bytes - HEADER_BYTES, packets, now) {
                            queue.go_to_previous_position();
                            self.wake_in(wait, now);
                            return Ok(());
                        }
                        self.send(bytes)
                    }
                };
                match sent {
                    Ok(bytes) => self.out_bytes += bytes as u64,
                    Err(refusal) => self.refused[refusal as usize] += 1,
                }
                queue.add_used(ram, head, 0)?;
                work.used(FROM_GUEST);
                taken += 1;
                if taken == FRAMES_PER_TURN {
                    work.unfinished();
                    return Ok(());
                }
            }
            if !looks.again(queue, ram)? {
                return Ok(());
            }
        }
    }

    /// Copies a frame of the guest out of its reach and looks at it; returns its length with the header, and its packets.
    fn read(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) -> Result<(usize, u64), Refusal> {
        let mut reader = chain.reader::<()>(ram).map_err(|_| Refusal::Malformed)?;
        let bytes = reader.available_bytes();
        let (header, frame) = self
            .outgoing
            .get_mut(..bytes)
            .and_then(<[u8]>::split_first_chunk_mut::<HEADER_BYTES>)
            .ok_or(Refusal::Malformed)?;
        reader.read_exact(header).and_then(|()| reader.read_exact(frame)).map_err(|_| Refusal::Malformed)?;
        let transport = frame::check(frame, &self.identity)?;
        let clean = Header::parse(header).towards_host(frame.len(), transport, self.offloads)?;
        *header = clean.to_bytes();
        Ok((bytes, clean.packets(frame.len())))
    }

    /// Sends what [`Self::read`] has read. What the host does not take is lost, as on any wire.
    fn send(&mut self, bytes: usize) -> Result<usize, Refusal> {
        self.wire.send(&self.outgoing[..bytes]).map_err(|_| Refusal::Host)?;
        Ok(bytes - HEADER_BYTES)
    }

    /// Gives frames to the guest while there are frames and buffers.
    fn give(&mut self, queue: &mut Queue, ram: &Ram, work: &mut Work) -> Result<(), virtio_queue::Error> {
        let now = self.timer.now();
        let before = queue.next_used();
        let mut given = 0;
        while let Some(mut waiting) = self.next_frame() {
            if !waiting.is_paid {
                let frame = &self.incoming[..waiting.bytes];
                let packets = frame.first_chunk().map_or(1, |header| Header::parse(header).packets(waiting.bytes));
                if let Err(wait) = self.to_guest.take(waiting.bytes - HEADER_BYTES, packets, now) {
                    self.wake_in(wait, now);
                    break;
                }
                waiting.is_paid = true;
                self.waiting = Some(waiting);
            }
            match self.deliver(waiting.bytes, queue, ram)? {
                Delivery::Given => self.in_bytes += (waiting.bytes - HEADER_BYTES) as u64,
                Delivery::Impossible => {}
                Delivery::Waits => break,
            }
            self.waiting = None;
            given += 1;
            if given == FRAMES_PER_TURN {
                work.unfinished();
                break;
            }
        }
        if used::wants_interrupt(queue, ram, before)? {
            work.interrupt();
        }
        Ok(())
    }

    /// The frame that waits, or the wire's next.
    fn next_frame(&mut self) -> Option<Waiting> {
        while self.waiting.is_none() && self.readable {
            match self.wire.receive(&mut self.incoming) {
                Ok(bytes) if bytes > HEADER_BYTES => {
                    self.waiting = Some(Waiting { bytes, is_paid: false });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // There are no more, or none at all while the interface is down. The next edge tells.
                Ok(_) | Err(_) => self.readable = false,
            }
        }
        self.waiting
    }

    /// Puts the frame into the guest's buffers: one, or several of a driver that merges them.
    fn deliver(&mut self, bytes: usize, queue: &mut Queue, ram: &Ram) -> Result<Delivery, virtio_queue::Error> {
        let start = queue.next_avail();
        let (header, frame) = self.incoming.split_at(HEADER_BYTES);
        let mut rest = &frame[..bytes - HEADER_BYTES];
        let mut header_place = None;
        let mut looks = Looks::default();
        self.chains.clear();
        while !rest.is_empty() || header_place.is_none() {
            if self.chains.len() == usize::from(queue.size()) {
                // More buffers than a queue holds do not come.
                queue.set_next_avail(start);
                return Ok(Delivery::Impossible);
            }
            let Some(chain) = queue.iter(ram)?.next() else {
                // The driver notifies when it has added a buffer to those that were looked at, unless it has already.
                if looks.again(queue, ram)? {
                    continue;
                }
                queue.set_next_avail(start);
                return Ok(Delivery::Waits);
            };
            looks.found();
            let head = chain.head_index();
            let mut writer = chain.writer::<()>(ram)?;
            let mut room = writer.available_bytes();
            let mut written = 0;
            if header_place.is_none() {
                if room < HEADER_BYTES {
                    return Err(virtio_queue::Error::InvalidChain);
                }
                let frame_place = writer.split_at(HEADER_BYTES).map_err(|_| virtio_queue::Error::InvalidChain)?;
                header_place = Some(writer);
                writer = frame_place;
                room -= HEADER_BYTES;
                written = HEADER_BYTES;
            }
            let (part, later) = rest.split_at(room.min(rest.len()));
            if !later.is_empty() && !self.offloads.mergeable {
                queue.set_next_avail(start);
                return Ok(Delivery::Impossible);
            }
            writer.write_all(part).map_err(|_| virtio_queue::Error::InvalidChain)?;
            rest = later;
            let written = u32::try_from(written + part.len()).map_err(|_| virtio_queue::Error::InvalidChain)?;
            self.chains.push((head, written));
        }
        if let (Some(mut place), Some(header)) = (header_place, header.first_chunk()) {
            let mut header = Header::parse(header).towards_guest(self.offloads);
            header.buffers = u16::try_from(self.chains.len()).map_err(|_| virtio_queue::Error::InvalidChain)?;
            place.write_all(&header.to_bytes()).map_err(|_| virtio_queue::Error::InvalidChain)?;
        }
        used::add_all(queue, ram, &self.chains)?;
        Ok(Delivery::Given)
    }

    /// Sets the timer, unless it goes off earlier anyway.
    fn wake_in(&mut self, wait: Duration, now: Duration) {
        let due = now.saturating_add(wait);
        if self.alarm.is_none_or(|alarm| alarm > due) {
            self.alarm = Some(due);
            self.timer.wake_in(wait);
        }
    }
}

impl<W: Wire, T: Timer> Device for Network<W, T> {
    fn kind(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC | Offloads::FEATURES
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; NETWORK_QUEUES]
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.timer.descriptor().into_iter().chain(self.wire.descriptor()).collect()
    }

    fn activate(&mut self, features: u64) {
        self.offloads = Offloads::chosen(features);
        self.offloads_are_new = true;
        // Edges before this were lost.
        self.readable = true;
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.identity.mac, offset, data);
    }

    fn process(&mut self, event: Event, queues: &mut [Queue], ram: &Ram) -> Result<Work, DeviceError> {
        let mut work = Work::new();
        match event {
            Event::Descriptor(TIMER) => self.alarm = None,
            Event::Descriptor(_) => self.readable = true,
            Event::Queue(_) | Event::Stream { .. } => {}
        }
        let [to_guest, from_guest] = queues else {
            return Ok(work);
        };
        // Here and not when the driver comes up: that is a processor's thread, which makes no such call.
        if self.offloads_are_new {
            // A tap without offloads gives plain frames, which every driver takes.
            let _ = self.wire.agree(self.offloads);
            self.offloads_are_new = false;
        }
        if from_guest.ready() {
            self.take(from_guest, ram, &mut work).map_err(|error| DeviceError::Queue { queue: FROM_GUEST, error })?;
        }
        if to_guest.ready() {
            self.give(to_guest, ram, &mut work).map_err(|error| DeviceError::Queue { queue: TO_GUEST, error })?;
        }
        Ok(work)
    }

    fn reset(&mut self) {
        // What waits was meant for the driver that is gone. Bounds hold on.
        self.waiting = None;
        self.alarm = None;
    }

    fn traffic_bytes(&self) -> (u64, u64) {
        (self.in_bytes, self.out_bytes)
    }

    fn refused_frames(&self) -> u64 {
        self.refused.iter().sum()
    }
}

#[cfg(test)]
mod tests;
