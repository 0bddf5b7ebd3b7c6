//! What a microVM is made of: plain data, decided by whoever starts it.
//!
//! File descriptors are not here: they travel beside it, in the order that [`Config::descriptors`]
//! says, so that this record can be stored, compared and kept inside a snapshot.

use crate::devices::{
    balloon::BALLOON_QUEUES,
    block::BLOCK_QUEUES,
    entropy::ENTROPY_QUEUES,
    network::{NETWORK_QUEUES, Rates},
    vsock::VSOCK_QUEUES,
};
use crate::{hole::Hole, working_set::WorkingSet};
use guest_protocol::record::Record;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Least memory of a guest, MiB: what the kernel and init need before a program runs.
pub const MIN_MEMORY_MIB: u32 = 32;
/// Most memory of a guest, MiB (crn spec section 1).
pub const MAX_MEMORY_MIB: u32 = 1_048_576;
/// Most vCPUs of a guest. The MP table holds no more than fit below 1 MiB; the network allows 256.
pub const MAX_VCPUS: u8 = 64;
/// Most devices: each takes one of the interrupt lines 5 to 23.
pub const MAX_DEVICES: usize = 19;
/// Most block devices: what vsock, entropy and balloon leave.
pub const MAX_DISKS: usize = MAX_DEVICES - 3;
/// Most network cards.
pub const MAX_NETS: usize = 4;
/// Most addresses of a network card: IPv4, and a /124 of IPv6.
pub const MAX_ADDRESSES: usize = 17;
/// Longest addition to the kernel's command line, bytes (the kernel reads 2,048 in all).
pub const MAX_EXTRA_COMMAND_LINE_BYTES: usize = 1024;

/// A microVM before it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Guest memory, MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u8,
    /// How the kernel is entered.
    pub entry: Entry,
    /// The block devices, in order: the first is the guest's `/dev/vda`.
    pub disks: Vec<Disk>,
    /// Whether there is a vsock device.
    pub vsock: Option<Vsock>,
    /// Whether the guest gets random bytes of the host.
    pub entropy: bool,
    /// Whether memory that the guest has freed goes back to the host.
    pub balloon: bool,
    /// The network cards, in order: the first is the guest's `eth0`.
    pub nets: Vec<Net>,
    /// True to pass the kernel's own messages out of the debug console (slow; off in production).
    pub console: bool,
    /// Added to the end of the kernel's command line.
    pub extra_command_line: String,
    /// True to measure the process's memory at every doorbell (a walk through its page tables; for benchmarks).
    pub measure_memory: bool,
}

/// The two ways into a kernel (vmm spec 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The 64-bit Linux entry: long mode is set up outside. Nothing runs unpaged, which emulating
    /// hosts are slow at.
    Linux64,
    /// The Xen PVH entry: 32-bit protected mode, the kernel builds its own page tables.
    Pvh,
}

/// What a machine needs of KVM and of the host before anything else is known of it: enough to make all that in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Virtual processors.
    pub vcpus: u8,
    /// Whether there is a vsock device.
    pub vsock: bool,
    /// Whether there is an entropy device.
    pub entropy: bool,
    /// Whether there is a balloon.
    pub balloon: bool,
    /// Network cards.
    pub nets: u8,
    /// Places for disks; a machine may leave some empty.
    pub disks: u8,
}

impl Shape {
    /// Queues of the devices by position. Disks come last, since their number is what differs.
    #[must_use]
    pub fn queues(&self) -> Vec<usize> {
        let some = |count: u8, queues: usize| (0..count).map(move |_| queues);
        some(self.vsock.into(), VSOCK_QUEUES)
            .chain(some(self.entropy.into(), ENTROPY_QUEUES))
            .chain(some(self.balloon.into(), BALLOON_QUEUES))
            .chain(some(self.nets, NETWORK_QUEUES))
            .chain(some(self.disks, BLOCK_QUEUES))
            .collect()
    }

    /// Whether a machine of that configuration can be made of it.
    #[must_use]
    pub fn fits(&self, config: &Config) -> bool {
        let needed = config.shape();
        Self { disks: needed.disks, ..*self } == needed && self.disks >= needed.disks
    }
}

/// A clone to be: the machine that a snapshot was taken of, and what makes it another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// What the machine is made of, as when the snapshot was taken.
    pub config: Config,
    /// What the guest is told. The wall clock in it is set by the monitor, when the guest goes on.
    pub record: Record,
    /// Where the memory file has nothing, as its supervisor has found it; at most [`crate::hole::MAX_HOLES`].
    pub holes: Vec<Hole>,
    /// What clones of this snapshot touch; empty when nobody knows yet.
    pub working_set: WorkingSet,
    /// Whether this clone is to find that out.
    pub watched: bool,
}

/// One block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// True when writes are refused.
    pub read_only: bool,
}

/// The vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vsock {
    /// The guest's own address.
    pub guest_cid: u64,
    /// Ports of the host that the guest may connect to; a connection to another is reset.
    pub accept_ports: Vec<u32>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Net {
    /// The card's Ethernet address, of one station.
    pub mac: [u8; 6],
    /// The addresses that the guest may send from.
    pub addresses: Vec<IpAddr>,
    /// How much goes through in each direction.
    pub rates: Rates,
}

/// A role among the descriptors that accompany a [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// The flat kernel image ([`crate::kernel`]), readable.
    Kernel,
    /// The initramfs, readable.
    Initramfs,
    /// Disk of that index, readable, and writable unless read-only.
    Disk(usize),
    /// The tap of the network card of that index, with virtio's headers.
    Net(usize),
    /// Where the debug console's bytes go, writable; present when [`Config::console`] is set.
    Console,
    /// A snapshot's memory file, readable.
    Memory,
    /// A snapshot's state file, readable.
    State,
}

/// Why a configuration is not one. The caller's fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Memory outside the limits.
    #[error("memory of {0} MiB is not between {MIN_MEMORY_MIB} and {MAX_MEMORY_MIB} MiB")]
    Memory(u32),
    /// No vCPU, or too many.
    #[error("{0} vCPUs: from 1 to {MAX_VCPUS} are possible")]
    Vcpus(u8),
    /// Too many block devices.
    #[error("{0} disks: at most {MAX_DISKS} are possible")]
    Disks(usize),
    /// Too many network cards.
    #[error("{0} network cards: at most {MAX_NETS} are possible")]
    Nets(usize),
    /// A network card's own address is not one of a single station, or it has too many others.
    #[error("a network card needs an Ethernet address of its own and at most {MAX_ADDRESSES} addresses")]
    Net,
    /// Too many devices of all kinds.
    #[error("{0} devices: at most {MAX_DEVICES} are possible")]
    Devices(usize),
    /// The addition to the command line is too long, or holds a byte that has no place in it.
    #[error("the extra kernel command line must be at most {MAX_EXTRA_COMMAND_LINE_BYTES} printable ASCII characters")]
    CommandLine,
    /// The descriptors do not match the configuration.
    #[error("{given} file descriptors came with a configuration that needs {needed}")]
    Descriptors {
        /// How many came.
        given: usize,
        /// How many it takes.
        needed: usize,
    },
}

impl Config {
    /// A guest of that size with nothing attached.
    #[must_use]
    pub fn new(memory_mib: u32, vcpus: u8) -> Self {
        Self {
            memory_mib,
            vcpus,
            entry: Entry::Linux64,
            disks: Vec::new(),
            vsock: None,
            entropy: false,
            balloon: false,
            nets: Vec::new(),
            console: false,
            extra_command_line: String::new(),
            measure_memory: false,
        }
    }

    /// How many devices it has.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.disks.len()
            + self.nets.len()
            + usize::from(self.vsock.is_some())
            + usize::from(self.entropy)
            + usize::from(self.balloon)
    }

    /// What it takes to make it.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let count = |length| u8::try_from(length).unwrap_or(u8::MAX);
        Shape {
            vcpus: self.vcpus,
            vsock: self.vsock.is_some(),
            entropy: self.entropy,
            balloon: self.balloon,
            nets: count(self.nets.len()),
            disks: count(self.disks.len()),
        }
    }

    /// The roles of the descriptors that must accompany it when it is booted, in order.
    #[must_use]
    pub fn descriptors(&self) -> Vec<Descriptor> {
        self.with_attachments([Descriptor::Kernel, Descriptor::Initramfs])
    }

    /// The same when it is restored.
    #[must_use]
    pub fn restore_descriptors(&self) -> Vec<Descriptor> {
        self.with_attachments([Descriptor::Memory, Descriptor::State])
    }

    fn with_attachments(&self, first: [Descriptor; 2]) -> Vec<Descriptor> {
        let mut roles = Vec::from(first);
        roles.extend((0..self.disks.len()).map(Descriptor::Disk));
        roles.extend((0..self.nets.len()).map(Descriptor::Net));
        if self.console {
            roles.push(Descriptor::Console);
        }
        roles
    }

    /// Holds it against the limits of this module.
    ///
    /// # Errors
    /// The first limit that is broken.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            return Err(ConfigError::Memory(self.memory_mib));
        }
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return Err(ConfigError::Vcpus(self.vcpus));
        }
        if self.disks.len() > MAX_DISKS {
            return Err(ConfigError::Disks(self.disks.len()));
        }
        if self.nets.len() > MAX_NETS {
            return Err(ConfigError::Nets(self.nets.len()));
        }
        // The lowest bit of the first byte makes an address one of a group.
        if self.nets.iter().any(|net| net.mac[0] & 1 == 1 || net.mac == [0; 6] || net.addresses.len() > MAX_ADDRESSES) {
            return Err(ConfigError::Net);
        }
        if self.devices() > MAX_DEVICES {
            return Err(ConfigError::Devices(self.devices()));
        }
        let text = &self.extra_command_line;
        if text.len() > MAX_EXTRA_COMMAND_LINE_BYTES || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(ConfigError::CommandLine);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::network::DEFAULT_RATES;

    #[test]
    fn limits_are_inclusive() {
        assert_eq!(Config::new(MIN_MEMORY_MIB, 1).check(), Ok(()));
        assert_eq!(Config::new(MIN_MEMORY_MIB - 1, 1).check(), Err(ConfigError::Memory(MIN_MEMORY_MIB - 1)));
        assert_eq!(Config::new(128, 0).check(), Err(ConfigError::Vcpus(0)));
        assert_eq!(Config::new(128, MAX_VCPUS).check(), Ok(()));
        let mut config = Config::new(128, 1);
        config.disks = vec![Disk { read_only: true }; MAX_DISKS + 1];
        assert_eq!(config.check(), Err(ConfigError::Disks(MAX_DISKS + 1)));
    }

    const NET: Net = Net { mac: [2, 0, 0, 0, 0, 1], addresses: Vec::new(), rates: DEFAULT_RATES };

    #[test]
    fn devices_share_the_interrupt_lines() {
        let mut config = Config::new(128, 1);
        config.disks = vec![Disk { read_only: true }; MAX_DISKS];
        config.vsock = Some(Vsock { guest_cid: 3, accept_ports: Vec::new() });
        (config.entropy, config.balloon) = (true, true);
        assert_eq!((config.devices(), config.check()), (MAX_DEVICES, Ok(())));
        config.nets = vec![NET];
        assert_eq!(config.check(), Err(ConfigError::Devices(MAX_DEVICES + 1)));
        config.nets = vec![NET; MAX_NETS + 1];
        assert_eq!(config.check(), Err(ConfigError::Nets(MAX_NETS + 1)));
    }

    #[test]
    fn a_card_is_one_station() {
        let check = |net| {
            let mut config = Config::new(128, 1);
            config.nets = vec![net];
            config.check()
        };
        assert_eq!(check(NET), Ok(()));
        let many = vec![IpAddr::from([0, 0, 0, 0]); MAX_ADDRESSES + 1];
        for net in [Net { mac: [3, 0, 0, 0, 0, 1], ..NET }, Net { mac: [0; 6], ..NET }, Net { addresses: many, ..NET }]
        {
            assert_eq!(check(net), Err(ConfigError::Net));
        }
    }

    #[test]
    fn a_shape_with_places_to_spare_fits() {
        let mut config = Config::new(128, 1);
        config.disks = vec![Disk { read_only: true }; 2];
        config.vsock = Some(Vsock { guest_cid: 3, accept_ports: vec![] });
        config.entropy = true;
        let shape = config.shape();
        assert_eq!(shape, Shape { vcpus: 1, vsock: true, entropy: true, balloon: false, nets: 0, disks: 2 });
        assert_eq!(shape.queues(), [3, 1, 1, 1]);
        assert_eq!(Shape { balloon: true, nets: 1, ..shape }.queues(), [3, 1, 3, 2, 1, 1]);
        assert!(shape.fits(&config) && Shape { disks: 9, ..shape }.fits(&config));
        for other in [
            Shape { disks: 1, ..shape },
            Shape { vcpus: 2, ..shape },
            Shape { vsock: false, ..shape },
            Shape { entropy: false, ..shape },
            Shape { balloon: true, ..shape },
            Shape { nets: 1, ..shape },
        ] {
            assert!(!other.fits(&config), "{other:?}");
        }
    }

    #[test]
    fn a_command_line_is_printable() {
        let mut config = Config::new(128, 1);
        config.extra_command_line = "quiet\nrdinit=/bin/sh".into();
        assert_eq!(config.check(), Err(ConfigError::CommandLine));
    }

    #[test]
    fn descriptors_come_in_a_fixed_order() {
        let mut config = Config::new(128, 1);
        config.disks = vec![Disk { read_only: true }, Disk { read_only: false }];
        config.nets = vec![NET];
        config.console = true;
        use Descriptor as D;
        assert_eq!(config.descriptors(), [D::Kernel, D::Initramfs, D::Disk(0), D::Disk(1), D::Net(0), D::Console]);
        assert_eq!(config.restore_descriptors(), [D::Memory, D::State, D::Disk(0), D::Disk(1), D::Net(0), D::Console]);
    }
}
