//! Entropy: the host's random bytes (virtio 1.2 section 5.4).
//!
//! A guest asks seldom: its own generator takes 64 bytes a minute. One that asks all the time gets no more than
//! [`RATE`] and waits for the rest in the event loop. There is nothing to save of the device but its queue.

use super::{
    timer::Timer,
    token_bucket::{Rate, TokenBucket},
};
use crate::{
    memory::Ram,
    virtio::{
        device::{Device, DeviceError, Event, Work},
        looks::Looks,
    },
};
use rustix::{
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};
use std::{io::Write as _, os::fd::BorrowedFd};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};

/// Queues of the device.
pub const ENTROPY_QUEUES: usize = 1;
const QUEUE_SIZE: u16 = 16;
/// Requests served before other devices have their turn.
const REQUESTS_PER_TURN: u16 = QUEUE_SIZE;
/// Most bytes of one request: as many as the host's generator gives at once and whole (`getrandom(2)`). A device may
/// fill a part of a buffer.
const BYTES_PER_REQUEST: usize = 256;
/// What any request costs, tokens, however small its buffer: as much as the ones that Linux makes.
const LEAST_TOKENS_PER_REQUEST: usize = 64;
/// Random bytes of a guest: enough at once for keys of every kind; one that asks all the time has 256 requests of Linux's size
/// served in a second.
pub const RATE: Rate = Rate { per_second: 16 << 10, burst: 64 << 10 };

/// The entropy device.
#[derive(Debug)]
pub struct Entropy<T> {
    timer: T,
    bucket: TokenBucket,
    /// The timer is set: until it goes off, notifications change nothing.
    waits: bool,
    given_bytes: u64,
}

impl<T: Timer> Entropy<T> {
    /// A device whose bucket is full.
    #[must_use]
    pub fn new(timer: T) -> Self {
        Self { timer, bucket: TokenBucket::new(RATE), waits: false, given_bytes: 0 }
    }

    /// Serves requests until there are none, others should have their turn, or the next must wait.
    fn serve(&mut self, queue: &mut Queue, ram: &Ram, work: &mut Work) -> Result<(), virtio_queue::Error> {
        let (mut served, mut looks) = (0, Looks::default());
        loop {
            queue.disable_notification(ram)?;
            while let Some(chain) = queue.iter(ram)?.next() {
                looks.found();
                let head = chain.head_index();
                let Some(written) = self.fill(chain, ram) else {
                    queue.go_to_previous_position();
                    return Ok(());
                };
                queue.add_used(ram, head, written)?;
                work.used(0);
                served += 1;
                if served == REQUESTS_PER_TURN {
                    work.unfinished();
                    return Ok(());
                }
            }
            if !looks.again(queue, ram)? {
                return Ok(());
            }
        }
    }

    /// Fills the writable part of a chain; returns how many bytes were written, none for a chain that has no room or
    /// lies outside of memory. Nothing at all when it must wait: the timer is set.
    fn fill(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) -> Option<u32> {
        let mut writer = chain.writer::<()>(ram).ok();
        let room = writer.as_ref().map_or(0, |writer| writer.available_bytes()).min(BYTES_PER_REQUEST);
        let tokens = room.max(LEAST_TOKENS_PER_REQUEST) as u64;
        let now = self.timer.now();
        let wait = self.bucket.wait_for(tokens, now);
        if !wait.is_zero() {
            self.timer.wake_in(wait);
            self.waits = true;
            return None;
        }
        self.bucket.take(tokens, now);
        let mut bytes = [0; BYTES_PER_REQUEST];
        let random = random(&mut bytes[..room]);
        let written = writer.as_mut().and_then(|writer| writer.write_all(random).ok()).map_or(0, |()| random.len());
        self.given_bytes += written as u64;
        u32::try_from(written).ok()
    }
}

/// The host's random bytes, into that buffer: all of it, or nothing from a host that has none.
pub(crate) fn random(buffer: &mut [u8]) -> &[u8] {
    loop {
        match getrandom(&mut *buffer, GetRandomFlags::empty()) {
            Ok(length) => return &buffer[..length],
            Err(Errno::INTR) => {}
            Err(_) => return &[],
        }
    }
}

impl<T: Timer> Device for Entropy<T> {
    fn kind(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; ENTROPY_QUEUES]
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.timer.descriptor().into_iter().collect()
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn process(&mut self, event: Event, queues: &mut [Queue], ram: &Ram) -> Result<Work, DeviceError> {
        let mut work = Work::new();
        if matches!(event, Event::Descriptor(_)) {
            self.waits = false;
        }
        if let Some(queue) = queues.first_mut().filter(|queue| queue.ready() && !self.waits) {
            self.serve(queue, ram, &mut work).map_err(|error| DeviceError::Queue { queue: 0, error })?;
        }
        Ok(work)
    }

    fn reset(&mut self) {
        // The bucket is the host's: a guest fills it by no reset.
        self.waits = false;
    }

    fn traffic_bytes(&self) -> (u64, u64) {
        (self.given_bytes, 0)
    }
}

#[cfg(test)]
mod tests;
