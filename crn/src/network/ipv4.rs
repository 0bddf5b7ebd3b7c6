//! Private IPv4 addresses: each machine has a /30 of its own with the host.
//!
//! A /30 and not a /31 (RFC 3021), although two of its four addresses are never used: every guest system knows what it is, and
//! a /12 has a quarter of a million of them.

use ipnet::Ipv4Net;
use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive};

/// The pool of a node that was told of no other (spec: crn, section 5): a part of RFC 1918.
pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12);
/// Bits of the network part of a link.
pub const LINK_BITS: u8 = 30;

const BITS: u8 = 32;
const ADDRESSES_PER_LINK: u32 = 1 << (BITS - LINK_BITS);

/// The network between the host and one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    network: u32,
}

impl Link {
    /// The host's address, which is the machine's gateway.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    /// The machine's address.
    #[must_use]
    pub fn guest(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 2)
    }
}

/// Why a pool is none. The operator's to mend.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a network of IPv4 that holds a /{LINK_BITS}")]
pub struct PoolError(Ipv4Net);

/// The links of a node.
#[derive(Debug, Clone)]
pub struct Pool {
    first: u32,
    links: u32,
    taken: BTreeSet<u32>,
    /// Links that are somebody else's.
    avoided: Vec<RangeInclusive<u32>>,
    next: u32,
}

impl Pool {
    /// A pool of which nothing is taken.
    ///
    /// # Errors
    /// The address is not the first of a network of so many bits, or the network is smaller than a link.
    pub fn new(network: Ipv4Net) -> Result<Self, PoolError> {
        let (first, bits) = (u32::from(network.addr()), network.prefix_len());
        let size = (1..=LINK_BITS).contains(&bits).then(|| 1_u32 << (BITS - bits));
        match size {
            Some(size) if first.is_multiple_of(size) => Ok(Self {
                first,
                links: size / ADDRESSES_PER_LINK,
                taken: BTreeSet::new(),
                avoided: Vec::new(),
                next: 0,
            }),
            _ => Err(PoolError(network)),
        }
    }

    /// Gives no link from now on that shares an address with that network. The pool is as large as a network that others use
    /// parts of: bridges of containers, a provider's own addresses.
    pub fn avoid(&mut self, network: Ipv4Net) {
        let last = self.first + (self.links * ADDRESSES_PER_LINK - 1);
        let (from, to) = (u32::from(network.network()).max(self.first), u32::from(network.broadcast()).min(last));
        if from <= to {
            self.avoided.push((from - self.first) / ADDRESSES_PER_LINK..=(to - self.first) / ADDRESSES_PER_LINK);
        }
    }

    /// A link that nobody has; none when all are taken. The one that follows the last: an address rests as long as it can
    /// before it is another machine's, so that what was meant for the one before finds nobody.
    pub fn take(&mut self) -> Option<Link> {
        let is_free =
            |index: &u32| !self.taken.contains(index) && !self.avoided.iter().any(|range| range.contains(index));
        let index = (self.next..self.links).chain(0..self.next).find(is_free)?;
        self.taken.insert(index);
        self.next = (index + 1) % self.links;
        Some(Link { network: self.first + index * ADDRESSES_PER_LINK })
    }

    /// Takes the link with that address of a machine, which had it before the node was started again. None when it is taken
    /// or no such link is in the pool.
    pub fn take_again(&mut self, guest: Ipv4Addr) -> Option<Link> {
        let offset = u32::from(guest).checked_sub(self.first)?;
        let index = offset / ADDRESSES_PER_LINK;
        let link = Link { network: self.first + index.checked_mul(ADDRESSES_PER_LINK)? };
        (index < self.links && link.guest() == guest && self.taken.insert(index)).then_some(link)
    }

    /// Which one of the pool's links this is.
    #[must_use]
    pub fn number(&self, link: Link) -> u32 {
        link.network.saturating_sub(self.first) / ADDRESSES_PER_LINK
    }

    /// Gives a link of this pool back.
    pub fn give_back(&mut self, link: Link) {
        if let Some(offset) = link.network.checked_sub(self.first) {
            self.taken.remove(&(offset / ADDRESSES_PER_LINK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Pool {
        // Four links.
        Pool::new("10.0.0.16/28".parse().expect("a network")).expect("a pool")
    }

    #[test]
    fn a_link_is_two_addresses_of_a_network_of_its_own() {
        let mut pool = Pool::new(DEFAULT_POOL).expect("a pool");
        let (first, second) = (pool.take().expect("a link"), pool.take().expect("a link"));
        assert_eq!([first.host(), first.guest()], [Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(172, 16, 0, 2)]);
        assert_eq!([second.host(), second.guest()], [Ipv4Addr::new(172, 16, 0, 5), Ipv4Addr::new(172, 16, 0, 6)]);
    }

    #[test]
    fn an_address_rests_before_it_is_used_again() {
        let mut pool = small();
        let first = pool.take().expect("a link");
        pool.give_back(first);
        for _ in 0..3 {
            assert_ne!(pool.take().expect("a link"), first);
        }
        assert_eq!(pool.take(), Some(first));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn what_a_machine_had_is_taken_again() {
        let mut pool = small();
        let guest = Ipv4Addr::new(10, 0, 0, 22);
        let link = pool.take_again(guest).expect("a link");
        assert_eq!(link.guest(), guest);
        for other in [guest, link.host(), Ipv4Addr::new(10, 0, 0, 14), Ipv4Addr::new(10, 0, 0, 34), Ipv4Addr::BROADCAST]
        {
            assert_eq!(pool.take_again(other), None, "{other}");
        }
        let others: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(others.len(), 3);
        assert!(!others.contains(&link));
    }

    #[test]
    fn a_pool_is_a_network() {
        for text in ["10.0.0.1/24", "10.0.0.0/31", "0.0.0.0/0", "10.0.0.8/28"] {
            let network = text.parse().expect("an address and bits");
            assert_eq!(Pool::new(network).err(), Some(PoolError(network)));
        }
        let mut last = Pool::new("255.255.255.252/30".parse().expect("a network")).expect("a pool");
        assert_eq!(last.take().map(Link::guest), Some(Ipv4Addr::new(255, 255, 255, 254)));
    }

    #[test]
    fn what_others_use_is_not_given() {
        let mut pool = small();
        for text in ["10.0.0.21/32", "10.0.0.28/30", "192.0.2.0/24", "10.0.0.0/29"] {
            pool.avoid(text.parse().expect("a network"));
        }
        let given: Vec<_> = std::iter::from_fn(|| pool.take()).map(|link| link.guest().to_string()).collect();
        assert_eq!(given, ["10.0.0.18", "10.0.0.26"]);
        let mut pool = small();
        pool.avoid("10.0.0.0/8".parse().expect("a network"));
        assert_eq!(pool.take(), None);
    }

    proptest! {
        /// Links that are taken are of the pool and never of two machines.
        #[test]
        fn no_link_is_taken_twice(steps in proptest::collection::vec((any::<bool>(), 0..8_usize), 0..60)) {
            let mut pool = small();
            let mut taken: Vec<Link> = Vec::new();
            for (takes, which) in steps {
                if takes {
                    match pool.take() {
                        Some(link) => {
                            prop_assert!(!taken.contains(&link) && link.network >= pool.first);
                            taken.push(link);
                        }
                        None => prop_assert_eq!(taken.len(), 4),
                    }
                } else if which < taken.len() {
                    pool.give_back(taken.swap_remove(which));
                }
            }
        }
    }
}
