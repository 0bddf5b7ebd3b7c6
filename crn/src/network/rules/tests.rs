//! Packets go through the table as through the kernel, and the table as `nft` would read it.

use super::*;
use crate::network::{
    ipv4::{DEFAULT_POOL, Pool},
    ipv6::Kind,
};
use std::net::IpAddr;

const OUTSIDE: &str = "eth0";
const SOMEBODY: &str = "198.51.100.7";
const SOMEBODY6: &str = "2001:db8:ffff::7";

fn machines() -> Vec<Machine> {
    let mut pool = Pool::new(DEFAULT_POOL.0, DEFAULT_POOL.1).expect("a pool");
    let hash = "d2b74aa29898457bde0560e47f7cdd4e77287e9f1f7a1456161d2fd7d5c855d7".parse().expect("an item hash");
    let network = Network::of("2001:db8:1:2::".parse().expect("an address"), Kind::Instance, &hash);
    let forwards = vec![
        Forward { protocol: Protocol::Tcp, host_port: 24000, guest_port: 22 },
        Forward { protocol: Protocol::Udp, host_port: 24001, guest_port: 53 },
    ];
    let mut link = || pool.take().expect("a link");
    vec![
        Machine { interface: "vmtap4".into(), ipv4: link(), ipv6: network, forwards },
        Machine { interface: "vmtap5".into(), ipv4: link(), ipv6: None, forwards: Vec::new() },
    ]
}

fn table(machines: &[Machine]) -> Ruleset {
    Ruleset::of(machines, Prefix4(DEFAULT_POOL.0, DEFAULT_POOL.1), OUTSIDE)
}

/// A packet as the kernel sees it.
#[derive(Debug, Clone)]
struct Packet {
    came_by: &'static str,
    leaves_by: &'static str,
    source: IpAddr,
    destination: IpAddr,
    port: Option<(Protocol, u16)>,
    is_established: bool,
}

fn packet(came_by: &'static str, source: &str, leaves_by: &'static str, destination: &str) -> Packet {
    Packet {
        came_by,
        leaves_by,
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        port: Some((Protocol::Tcp, 80)),
        is_established: false,
    }
}

fn in_prefix6(address: IpAddr, Prefix6(network, bits): Prefix6) -> bool {
    let mask = u128::MAX << (128 - u32::from(bits));
    matches!(address, IpAddr::V6(address) if (u128::from(address) ^ u128::from(network)) & mask == 0)
}

fn holds(matching: &Match, packet: &Packet) -> bool {
    match matching {
        Match::CameBy(interface) => packet.came_by == interface,
        Match::LeavesBy(interface) => packet.leaves_by == interface,
        Match::IsIpv4 => packet.source.is_ipv4(),
        Match::SourceIn4(Prefix4(network, bits)) => {
            let mask = u32::MAX << (32 - u32::from(*bits));
            matches!(packet.source, IpAddr::V4(source) if (u32::from(source) ^ u32::from(*network)) & mask == 0)
        }
        Match::SourceNot4(address) => packet.source.is_ipv4() && packet.source != IpAddr::V4(*address),
        Match::SourceNotIn6(networks) => {
            packet.source.is_ipv6() && !networks.iter().any(|network| in_prefix6(packet.source, *network))
        }
        Match::Destination4(address) => packet.destination == IpAddr::V4(*address),
        Match::DestinationIn6(network) => in_prefix6(packet.destination, *network),
        Match::IsControlMessage => packet.port.is_none(),
        Match::IsEstablished => packet.is_established,
        Match::Port(protocol, port) => packet.port == Some((*protocol, *port)),
    }
}

/// What the chain decides; nothing when it goes back.
fn ask(table: &Ruleset, name: &str, packet: &Packet) -> Option<Verdict> {
    let chain = table.chains.iter().find(|chain| chain.name == name).expect("a chain of the table");
    for rule in &chain.rules {
        if !rule.matches.iter().all(|matching| holds(matching, packet)) {
            continue;
        }
        let (map, interface) = match &rule.verdict {
            Verdict::Jump(chain) => match ask(table, chain, packet) {
                Some(verdict) => return Some(verdict),
                None => continue,
            },
            Verdict::JumpByCameBy(map) => (map, packet.came_by),
            Verdict::JumpByLeavesBy(map) => (map, packet.leaves_by),
            verdict => return Some(verdict.clone()),
        };
        let chain = map.iter().find(|(own, _)| own == interface);
        if let Some(verdict) = chain.and_then(|(_, chain)| ask(table, chain, packet)) {
            return Some(verdict);
        }
    }
    None
}

fn passes(chain: &str, packet: &Packet) -> bool {
    ask(&table(&machines()), chain, packet) != Some(Verdict::Drop)
}

#[test]
fn a_machine_reaches_the_world_under_its_own_name_only() {
    for (source, destination, passed) in [
        ("172.16.0.2", SOMEBODY, true),
        ("172.16.0.6", SOMEBODY, false),
        ("172.16.0.1", SOMEBODY, false),
        ("2001:db8:1:2:3:d2b7:4aa2:9891", SOMEBODY6, true),
        ("2001:db8:1:2:3:d2b7:4aa2:989f", SOMEBODY6, true),
        ("2001:db8:1:2:3:d2b7:4aa2:98a1", SOMEBODY6, false),
    ] {
        let mut packet = packet("vmtap4", source, OUTSIDE, destination);
        assert_eq!(passes("forward", &packet), passed, "{packet:?}");
        // Nor in an old conversation.
        packet.is_established = true;
        assert_eq!(passes("forward", &packet), passed, "{packet:?}");
        assert_eq!(passes("input", &packet), passed, "{packet:?}");
    }
    // The other machine has no public network.
    assert!(!passes("forward", &packet("vmtap5", "2001:db8:1:2:3:d2b7:4aa2:9891", OUTSIDE, SOMEBODY6)));
}

#[test]
fn private_addresses_are_between_a_machine_and_its_host() {
    assert!(!passes("forward", &packet("vmtap4", "172.16.0.2", "vmtap5", "172.16.0.6")));
    assert!(!passes("forward", &packet("vmtap5", "172.16.0.6", "vmtap4", "172.16.0.2")));
    assert!(!passes("forward", &packet(OUTSIDE, SOMEBODY, "vmtap4", "172.16.0.2")));
    let mut answer = packet(OUTSIDE, SOMEBODY, "vmtap4", "172.16.0.2");
    answer.is_established = true;
    assert!(passes("forward", &answer));
    let mut table = table(&machines());
    let outgoing = packet("vmtap4", "172.16.0.2", OUTSIDE, SOMEBODY);
    assert_eq!(ask(&table, "postrouting", &outgoing), Some(Verdict::Masquerade));
    table = Ruleset::of(&[], Prefix4(DEFAULT_POOL.0, DEFAULT_POOL.1), OUTSIDE);
    assert_eq!(ask(&table, "postrouting", &packet("lo", SOMEBODY, OUTSIDE, SOMEBODY)), None);
}

#[test]
fn public_addresses_are_reached_from_anywhere() {
    let guest = "2001:db8:1:2:3:d2b7:4aa2:9891";
    assert!(passes("forward", &packet(OUTSIDE, SOMEBODY6, "vmtap4", guest)));
    assert!(passes("forward", &packet("eth1", SOMEBODY6, "vmtap4", guest)));
}

#[test]
fn a_forwarded_port_leads_to_its_machine_and_no_other_does() {
    let table = table(&machines());
    let at_host =
        |protocol, port| Packet { port: Some((protocol, port)), ..packet(OUTSIDE, SOMEBODY, "", "192.0.2.1") };
    let guest = Ipv4Addr::new(172, 16, 0, 2);
    assert_eq!(ask(&table, "prerouting", &at_host(Protocol::Tcp, 24000)), Some(Verdict::Redirect(guest, 22)));
    assert_eq!(ask(&table, "prerouting", &at_host(Protocol::Udp, 24001)), Some(Verdict::Redirect(guest, 53)));
    for (protocol, port) in [(Protocol::Udp, 24000), (Protocol::Tcp, 24001), (Protocol::Tcp, 22)] {
        assert_eq!(ask(&table, "prerouting", &at_host(protocol, port)), None);
    }
    // After that it is for the machine's own port.
    for (protocol, port, passed) in [(Protocol::Tcp, 22, true), (Protocol::Udp, 53, true), (Protocol::Tcp, 53, false)] {
        let there = Packet { port: Some((protocol, port)), ..packet(OUTSIDE, SOMEBODY, "vmtap4", "172.16.0.2") };
        assert_eq!(passes("forward", &there), passed, "{there:?}");
    }
}

#[test]
fn the_hosts_own_services_are_not_for_its_guests() {
    let own = "2001:db8:1:2:3:d2b7:4aa2:9891";
    for (source, destination, passed) in [
        ("172.16.0.2", "172.16.0.1", false),
        (own, "2001:db8:1:2:3:d2b7:4aa2:9890", false),
        ("fe80::1", "fe80::2", false),
        // What the host shows to the world it shows to them.
        ("172.16.0.2", "192.0.2.1", true),
        (own, "2001:db8::1", true),
    ] {
        let mut packet = packet("vmtap4", source, "", destination);
        assert_eq!(passes("input", &packet), passed, "{packet:?}");
        packet.port = None;
        assert!(passes("input", &packet), "{packet:?}");
    }
    // Who has no address yet asks whether one is taken.
    let nobody = Packet { port: None, ..packet("vmtap4", "::", "", "ff02::1:ff00:1") };
    assert!(passes("input", &nobody));
    // All others are none of ours.
    assert!(passes("input", &packet("eth0", SOMEBODY, "", "192.0.2.1")));
}

#[test]
fn the_table_is_what_nft_reads() {
    let text = table(&machines()).to_string();
    let expected = "\
table inet beth
delete table inet beth
table inet beth {
	chain from_vmtap4 {
		ip saddr != 172.16.0.2 drop
		ip6 saddr != { fe80::/10, ::/128, 2001:db8:1:2:3:d2b7:4aa2:9890/124 } drop
	}
	chain host_vmtap4 {
		jump from_vmtap4
		meta l4proto { icmp, ipv6-icmp } accept
		ip daddr 172.16.0.1 drop
		ip6 daddr 2001:db8:1:2:3:d2b7:4aa2:9890/128 drop
		ip6 daddr fe80::/10 drop
	}
	chain to_vmtap4 {
		meta nfproto ipv4 tcp dport 22 accept
		meta nfproto ipv4 udp dport 53 accept
		meta nfproto ipv4 drop
	}
	chain from_vmtap5 {
		ip saddr != 172.16.0.6 drop
		ip6 saddr != { fe80::/10, ::/128 } drop
	}
	chain host_vmtap5 {
		jump from_vmtap5
		meta l4proto { icmp, ipv6-icmp } accept
		ip daddr 172.16.0.5 drop
		ip6 daddr fe80::/10 drop
	}
	chain to_vmtap5 {
		meta nfproto ipv4 drop
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname \"eth0\" meta nfproto ipv4 tcp dport 24000 dnat ip to 172.16.0.2:22
		iifname \"eth0\" meta nfproto ipv4 udp dport 24001 dnat ip to 172.16.0.2:53
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname vmap { \"vmtap4\" : jump host_vmtap4, \"vmtap5\" : jump host_vmtap5 }
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname vmap { \"vmtap4\" : jump from_vmtap4, \"vmtap5\" : jump from_vmtap5 }
		ct state established,related accept
		oifname vmap { \"vmtap4\" : jump to_vmtap4, \"vmtap5\" : jump to_vmtap5 }
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"eth0\" ip saddr 172.16.0.0/12 masquerade
	}
}
";
    assert_eq!(text, expected);
    let empty = Ruleset::of(&[], Prefix4(DEFAULT_POOL.0, DEFAULT_POOL.1), OUTSIDE).to_string();
    assert!(!empty.contains("vmap"), "{empty}");
}
