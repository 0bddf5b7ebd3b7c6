//! Balloon: memory that the guest does not use goes back to the host (virtio 1.2 section 5.5).
//!
//! The guest reports blocks that have been free for a while, whenever there are some (section 5.5.6.7); nobody asks it to
//! inflate anything, so its memory is all its own. A driver that inflates nonetheless has those pages given back as well.
//!
//! Whatever a page holds when the guest takes it into use again is right. A driver that expects free pages to keep their
//! content, a poison or zeros, says so with `PAGE_POISON`; it is not offered, and a driver that would need it reports
//! nothing (so does Linux with `init_on_free` or `page_poison`). Two kinds of memory answer differently:
//!
//! - Private anonymous memory: the page reads as zeros.
//! - A private mapping of a template: the guest's own copy goes, and the template's bytes are seen again. That gives back
//!   as much, since the template's page belongs to the host's page cache and to all clones. Those are bytes that this very
//!   guest was started with, so it learns nothing.
//!
//! There is nothing to save of the device but its queues.

use crate::{
    memory::{self, Ram},
    virtio::{
        device::{Device, DeviceError, Event, Work, read_config_bytes},
        looks::Looks,
    },
};
use std::io::Read as _;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};

/// Bit of the feature (section 5.5.3): free pages are reported.
const F_PAGE_REPORTING: u64 = 5;
/// Length of the configuration (section 5.5.4): pages asked for, pages given, two fields of features that are not offered.
/// All are zero.
const CONFIG_BYTES: usize = 16;
/// Unit of page numbers, bytes.
const PAGE_BYTES: u64 = 4096;

const QUEUE_SIZE: u16 = 64;
/// Queues. Those of features that are not offered do not exist, and the ones after them move up: so Linux numbers them.
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORT: usize = 2;
/// Queues of the device.
pub const BALLOON_QUEUES: usize = REPORT + 1;

/// Chains taken from each queue before other devices have their turn.
const CHAINS_PER_TURN: u16 = 16;
/// Ranges of one report that are looked at: as many as Linux puts into one.
const RANGES_PER_REPORT: usize = 32;
/// Bytes of one report that are given back: as many as 32 of Linux's largest blocks.
const BYTES_PER_REPORT: u64 = 128 << 20;
/// Page numbers of one chain that are looked at: as many as Linux puts into one.
const PAGES_PER_CHAIN: usize = 256;

/// The balloon of a machine.
#[derive(Debug, Default)]
pub struct Balloon {
    released_bytes: u64,
}

impl Balloon {
    /// A balloon that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Works on the chains of one queue.
    fn serve(
        &mut self,
        index: usize,
        queue: &mut Queue,
        ram: &Ram,
        work: &mut Work,
    ) -> Result<(), virtio_queue::Error> {
        let (mut served, mut looks) = (0, Looks::default());
        loop {
            queue.disable_notification(ram)?;
            while let Some(chain) = queue.iter(ram)?.next() {
                looks.found();
                let head = chain.head_index();
                match index {
                    INFLATE => self.inflate(chain, ram),
                    // A page that is taken out of the balloon comes back when it is touched.
                    DEFLATE => {}
                    _ => self.release_reported(chain, ram),
                }
                queue.add_used(ram, head, 0)?;
                work.used(index);
                served += 1;
                if served == CHAINS_PER_TURN {
                    work.unfinished();
                    return Ok(());
                }
            }
            if !looks.again(queue, ram)? {
                return Ok(());
            }
        }
    }

    /// Gives back the ranges that a report's buffers lie in: the device owns them until it returns the chain.
    fn release_reported(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) {
        let mut left = BYTES_PER_REPORT;
        for range in chain.writable().take(RANGES_PER_REPORT) {
            let bytes = u64::from(range.len());
            let Some(rest) = left.checked_sub(bytes) else {
                // To report is to offer: what is not given back stays as it is.
                return;
            };
            left = rest;
            self.release(range.addr().0, bytes, ram);
        }
    }

    /// Gives back pages whose numbers a chain holds.
    fn inflate(&mut self, chain: DescriptorChain<&Ram>, ram: &Ram) {
        let Ok(mut reader) = chain.reader::<()>(ram) else {
            return;
        };
        let mut number = [0; 4];
        for _ in 0..PAGES_PER_CHAIN {
            if reader.read_exact(&mut number).is_err() {
                return;
            }
            self.release(u64::from(u32::from_le_bytes(number)) * PAGE_BYTES, PAGE_BYTES, ram);
        }
    }

    fn release(&mut self, gpa: u64, bytes: u64, ram: &Ram) {
        if memory::release(ram, gpa, bytes) {
            self.released_bytes += bytes;
        }
    }
}

impl Device for Balloon {
    fn kind(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        1 << F_PAGE_REPORTING
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE; BALLOON_QUEUES]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&[0; CONFIG_BYTES], offset, data);
    }

    fn process(&mut self, _event: Event, queues: &mut [Queue], ram: &Ram) -> Result<Work, DeviceError> {
        let mut work = Work::new();
        // All of them: a turn that was not finished goes on with a notification of the first.
        for (index, queue) in queues.iter_mut().enumerate().filter(|(_, queue)| queue.ready()) {
            self.serve(index, queue, ram, &mut work).map_err(|error| DeviceError::Queue { queue: index, error })?;
        }
        Ok(work)
    }

    fn reset(&mut self) {}

    fn traffic_bytes(&self) -> (u64, u64) {
        (0, self.released_bytes)
    }
}

#[cfg(test)]
mod tests;
