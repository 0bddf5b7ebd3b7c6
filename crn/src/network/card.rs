//! The network of one machine: a tap, the host's end of it, and addresses. Whoever holds it has it; on drop its addresses go back.
//!
//! The tap ends with its descriptor, and with it the host's addresses and routes there. The monitor of the machine gets a copy of
//! the descriptor and nothing else: it has no interface to look at and no address to change.

use super::{
    host::Shared,
    ipv4::{self, LINK_BITS},
    ipv6::{self, NETWORK_BITS},
};
use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};
use vmm::config::Net;

/// The Ethernet addresses of a machine and of its host. Each wire has these two ends alone, so all have the same, and a clone's card
/// is its template's.
pub const GUEST_MAC: [u8; 6] = [0x02, 0xbe, 0x74, 0, 0, 2];
/// The host's.
pub const HOST_MAC: [u8; 6] = [0x02, 0xbe, 0x74, 0, 0, 1];

/// A tap that is up, with its private link.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tap: OwnedFd,
    /// The interface's number.
    pub(super) index: u32,
    pub(super) link: ipv4::Link,
}

/// A machine's network card and where it leads.
#[derive(Debug)]
pub struct Card {
    pub(super) shared: Arc<Shared>,
    /// Taken on drop.
    pub(super) slot: Option<Slot>,
    pub(super) link: ipv4::Link,
    pub(super) ipv6: Option<ipv6::Network>,
}

impl Card {
    /// The tap, for the machine's monitor.
    ///
    /// # Panics
    /// Never: it is there until drop.
    #[must_use]
    pub fn tap(&self) -> BorrowedFd<'_> {
        self.slot.as_ref().expect("a card has its tap until it is dropped").tap.as_fd()
    }

    /// The card as the monitor makes it. Its guest speaks under these addresses or not at all.
    #[must_use]
    pub fn net(&self) -> Net {
        let mut addresses = vec![IpAddr::V4(self.link.guest())];
        addresses.extend(self.ipv6.into_iter().flat_map(ipv6::Network::guests).map(IpAddr::V6));
        Net { mac: GUEST_MAC, addresses, rates: self.shared.rates }
    }

    /// What the guest is told.
    #[must_use]
    pub fn guest(&self) -> guest_protocol::Network {
        let link = |address, prefix_bits, gateway| guest_protocol::Link { address, prefix_bits, gateway };
        guest_protocol::Network {
            ipv4: link(self.link.guest().into(), LINK_BITS, self.link.host().into()),
            ipv6: self.ipv6.map(|network| link(network.guest().into(), NETWORK_BITS, network.host().into())),
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.take_back(slot, self.ipv6);
        }
    }
}
