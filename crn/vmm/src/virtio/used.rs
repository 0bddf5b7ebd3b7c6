//! Several buffers that become used at one moment: a driver that looks sees all of them or none (virtio 1.2 section 2.7.8).
//!
//! What goes over several buffers must be used so: a driver that finds the first looks for the others at once.

use crate::memory::Ram;
use std::sync::atomic::{Ordering, fence};
use virtio_queue::{Error, Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

/// Bytes before the entries of both rings, and of an entry of each.
const RING_HEADER_BYTES: u64 = 4;
const USED_BYTES: u64 = 8;
const AVAILABLE_BYTES: u64 = 2;

/// Uses chains, each by its head and the bytes written to it. The driver must be told by [`wants_interrupt`].
///
/// # Errors
/// The rings are broken.
pub fn add_all(queue: &mut Queue, ram: &Ram, chains: &[(u16, u32)]) -> Result<(), Error> {
    let Some(((last_head, last_written), others)) = chains.split_last() else {
        return Ok(());
    };
    for (head, written) in others {
        let slot = u64::from(queue.next_used() % queue.size());
        let entry = u64::from(*head) | u64::from(*written) << 32;
        let gpa = queue.used_ring().checked_add(RING_HEADER_BYTES + slot * USED_BYTES).ok_or(Error::AddressOverflow)?;
        ram.write_obj(entry.to_le(), GuestAddress(gpa)).map_err(Error::GuestMemory)?;
        // Seen once the index that the driver reads is written, with the last.
        queue.set_next_used(queue.next_used().wrapping_add(1));
    }
    queue.add_used(ram, *last_head, *last_written)
}

/// Whether the driver wants an interrupt for what became used since the index was `before` (section 2.7.10). The queue's own
/// answer does not know of all that [`add_all`] used.
///
/// # Errors
/// The rings are broken.
pub fn wants_interrupt(queue: &Queue, ram: &Ram, before: u16) -> Result<bool, Error> {
    let now = queue.next_used();
    if now == before || !queue.event_idx_enabled() {
        return Ok(now != before);
    }
    // What was used is seen before it is asked how much the driver has seen.
    fence(Ordering::SeqCst);
    let offset = RING_HEADER_BYTES + u64::from(queue.size()) * AVAILABLE_BYTES;
    let gpa = queue.avail_ring().checked_add(offset).ok_or(Error::AddressOverflow)?;
    let event: u16 = ram.load(GuestAddress(gpa), Ordering::Relaxed).map(u16::from_le).map_err(Error::GuestMemory)?;
    Ok(now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory, virtio::driver::Driver};

    const QUEUE_GPA: u64 = 0x1000;
    const SIZE: u16 = 8;

    #[test]
    fn all_are_used_in_their_order_around_the_ring() {
        let ram = memory::allocate(32 << 20).expect("memory");
        let mut driver = Driver::new(&ram, QUEUE_GPA, SIZE);
        let mut queue = driver.queue();
        for round in 0..10_u16 {
            let chains: Vec<_> = (0..round % 6).map(|index| (index, u32::from(round * 100 + index))).collect();
            add_all(&mut queue, &ram, &chains).expect("whole rings");
            assert_eq!(driver.used(), chains);
        }
        assert!(add_all(&mut queue, &ram, &[(0, 0), (SIZE, 0)]).is_err());
    }

    #[test]
    fn a_driver_is_interrupted_when_it_has_asked_to_be() {
        let ram = memory::allocate(32 << 20).expect("memory");
        let driver = Driver::new(&ram, QUEUE_GPA, SIZE);
        let mut queue = driver.queue();
        let event_gpa = GuestAddress(queue.avail_ring() + 4 + u64::from(SIZE) * 2);
        let before = queue.next_used();
        add_all(&mut queue, &ram, &[(0, 1), (1, 1), (2, 1)]).expect("whole rings");
        assert!(wants_interrupt(&queue, &ram, before).expect("whole rings"), "it cannot say when");
        queue.set_event_idx(true);
        // After the first, the second, the third; none of them.
        for (event, wanted) in [(0_u16, true), (1, true), (2, true), (3, false), (u16::MAX, false)] {
            ram.write_obj(event, event_gpa).expect("a write");
            assert_eq!(wants_interrupt(&queue, &ram, before).expect("whole rings"), wanted, "{event}");
        }
        ram.write_obj(0_u16, event_gpa).expect("a write");
        assert!(!wants_interrupt(&queue, &ram, queue.next_used()).expect("whole rings"), "nothing was used");
    }
}
