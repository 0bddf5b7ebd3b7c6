//! How often a device looks at a queue before it waits.
//!
//! Who has found a queue empty asks to be notified, and looks once more when the driver was quicker (virtio 1.2 section 2.7.7). More than once
//! is never due: a driver that announces buffers adds them first. One whose rings lie over each other, so that what the device writes is what
//! it reads as an announcement, would have it look for ever.

use crate::memory::Ram;
use virtio_queue::{Error, Queue, QueueT as _};

/// Looks at one queue, in one turn.
#[derive(Debug, Default)]
pub struct Looks {
    /// The next look is one at what the driver has announced.
    announced: bool,
}

impl Looks {
    /// A buffer was found.
    pub fn found(&mut self) {
        self.announced = false;
    }

    /// There was nothing more: asks the driver for a notification. True when there is to be another look at once, because it has added
    /// something meanwhile; one that says so and shows nothing is waited for.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn again(&mut self, queue: &mut Queue, ram: &Ram) -> Result<bool, Error> {
        let announced = queue.enable_notification(ram)?;
        self.announced = announced && !self.announced;
        Ok(self.announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        devices::{
            balloon::Balloon,
            block::Block,
            entropy::Entropy,
            network::{DEFAULT_RATES, Identity, Network, Wire, header::Offloads},
            timer::manual::ManualTimer,
            vsock::{Muxer, StreamRegistry, VsockDevice},
        },
        memory,
        virtio::device::{Device, Event},
    };
    use std::{io, os::fd::BorrowedFd, os::unix::net::UnixStream};
    use vm_memory::{Bytes as _, GuestAddress};

    const TABLE_GPA: u32 = 0x1000;
    const AVAILABLE_GPA: u32 = 0x2002;
    /// Its flags, by which the device says whether it wants notifications, are the index of the other ring.
    const USED_GPA: u32 = AVAILABLE_GPA + 2;

    #[derive(Debug)]
    struct Nobody;

    impl StreamRegistry for Nobody {
        fn watch(&mut self, _: BorrowedFd<'_>, _: u32) {}
        fn accept(&mut self, _: u32) -> Option<UnixStream> {
            None
        }
    }

    impl Wire for Nobody {
        fn receive(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn send(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn agree(&mut self, _: Offloads) -> io::Result<()> {
            Ok(())
        }
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    fn queue(size: u16) -> Queue {
        let mut queue = Queue::new(size).expect("a power of two");
        queue.set_desc_table_address(Some(TABLE_GPA), None);
        queue.set_avail_ring_address(Some(AVAILABLE_GPA), None);
        queue.set_used_ring_address(Some(USED_GPA), None);
        queue.set_ready(true);
        queue
    }

    /// Found by fuzzing: the thread of the devices did not come back, and heard of no stop.
    #[test]
    fn a_driver_whose_rings_lie_over_each_other_holds_no_device() {
        let timer = ManualTimer::default;
        let identity = Identity { mac: [2; 6], ipv4: Vec::new(), ipv6: Vec::new() };
        let devices: [Box<dyn Device>; 5] = [
            Box::new(Entropy::new(timer())),
            Box::new(Balloon::new()),
            Box::new(Block::open(tempfile::tempfile().expect("a file"), 0, true).expect("a device")),
            Box::new(VsockDevice::new(Muxer::new(3, Vec::new()), Nobody)),
            Box::new(Network::new(Nobody, timer(), identity, DEFAULT_RATES)),
        ];
        for mut device in devices {
            let sizes = device.queue_sizes();
            for index in 0..sizes.len() {
                let ram = memory::allocate(4 << 20).expect("memory");
                // One queue is up, the others are not.
                let mut queues: Vec<Queue> = sizes.iter().map(|size| Queue::new(*size).expect("a queue")).collect();
                queues[index] = queue(sizes[index]);
                for _ in 0..4 {
                    let _ = device.process(Event::Queue(index), &mut queues, &ram);
                }
            }
        }
    }

    #[test]
    fn what_was_added_meanwhile_is_looked_at_once() {
        let ram = memory::allocate(4 << 20).expect("memory");
        let mut queue = queue(16);
        queue.set_used_ring_address(Some(0x3000), None);
        let announce = |index: u16| ram.write_obj(index, GuestAddress(u64::from(AVAILABLE_GPA) + 2)).expect("a write");
        let mut looks = Looks::default();
        assert!(!looks.again(&mut queue, &ram).expect("whole rings"), "nothing was added");
        announce(2);
        assert!(looks.again(&mut queue, &ram).expect("whole rings"));
        looks.found();
        assert!(looks.again(&mut queue, &ram).expect("whole rings"), "there is another one");
        assert!(!looks.again(&mut queue, &ram).expect("whole rings"), "it was looked for and not found");
        assert!(looks.again(&mut queue, &ram).expect("whole rings"), "that was another turn");
    }
}
