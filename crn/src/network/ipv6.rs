//! Public IPv6 addresses: each machine has a /124 in the node's network, by a rule that scoring and clients know too (spec:
//! crn, section 5).

use ccn_message::ItemHash;
use std::net::Ipv6Addr;

/// Bits of the network part of a machine's network: 16 addresses, the first of which is the host's.
pub const NETWORK_BITS: u8 = 124;
/// The pool of a node that was told of no other: private, so that nothing is reached from outside.
pub const DEFAULT_POOL: Ipv6Addr = Ipv6Addr::new(0xfc00, 1, 2, 3, 0, 0, 0, 0);

/// The kinds of machine, as addresses number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A program that is started by calls.
    OnDemand = 1,
    /// A program that always runs.
    Persistent = 2,
    /// An instance.
    Instance = 3,
}

/// The network between the host and one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    groups: [u16; 8],
}

impl Network {
    /// Of the machine of a message, in the network whose first four groups the pool has. None for a message that is named by
    /// a CID: the rule takes hex digits.
    #[must_use]
    pub fn of(pool: Ipv6Addr, kind: Kind, item_hash: &ItemHash) -> Option<Self> {
        let text = item_hash.to_string();
        let bytes = hex::decode(&text).ok()?;
        let [first, second, third, fourth, fifth, sixth, ..] = bytes[..] else {
            return None;
        };
        let [a, b, c, d, ..] = pool.segments();
        let group = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        // Eleven digits of the hash; the twelfth numbers the addresses.
        let last = group(fifth, sixth) & 0xfff0;
        Some(Self { groups: [a, b, c, d, kind as u16, group(first, second), group(third, fourth), last] })
    }

    /// The host's address, which is the machine's gateway and the network's first.
    #[must_use]
    pub fn host(self) -> Ipv6Addr {
        Ipv6Addr::from(self.groups)
    }

    /// The machine's address.
    #[must_use]
    pub fn guest(self) -> Ipv6Addr {
        let mut groups = self.groups;
        groups[7] |= 1;
        Ipv6Addr::from(groups)
    }

    /// All addresses that are the machine's: the network without the host's.
    pub fn guests(self) -> impl Iterator<Item = Ipv6Addr> {
        (1..16).map(move |number| {
            let mut groups = self.groups;
            groups[7] |= number;
            Ipv6Addr::from(groups)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the specification.
    #[test]
    fn a_machines_network_follows_from_its_message() {
        let pool: Ipv6Addr = "2001:db8:1:2::".parse().expect("an address");
        let hash: ItemHash =
            "d2b74aa29898457bde0560e47f7cdd4e77287e9f1f7a1456161d2fd7d5c855d7".parse().expect("an item hash");
        let network = Network::of(pool, Kind::OnDemand, &hash).expect("a network");
        assert_eq!(network.host().to_string(), "2001:db8:1:2:1:d2b7:4aa2:9890");
        assert_eq!(network.guest().to_string(), "2001:db8:1:2:1:d2b7:4aa2:9891");
        let instance = Network::of(pool, Kind::Instance, &hash).expect("a network");
        assert_eq!(instance.guest().to_string(), "2001:db8:1:2:3:d2b7:4aa2:9891");
        let guests: Vec<_> = network.guests().collect();
        assert_eq!((guests.len(), guests[0]), (15, network.guest()));
        assert!(!guests.contains(&network.host()));
        assert_eq!(guests[14].to_string(), "2001:db8:1:2:1:d2b7:4aa2:989f");
    }

    #[test]
    fn a_message_that_is_named_by_a_cid_has_no_such_network() {
        let hash: ItemHash = "QmYULJoNGPDmoRq4WNWTDTUvJGJv1hosox8H6vVd1kCsY8".parse().expect("an item hash");
        assert_eq!(Network::of(DEFAULT_POOL, Kind::Instance, &hash), None);
    }
}
