//! Packets go through the table as through the kernel, and the table as `nft` would read it. That the kernel does the same is found
//! out by `crn/tests/network.rs`.

use super::*;
use crate::config;

const OUTSIDE: &str = "eth0";
const SOMEBODY: &str = "198.51.100.7";
const SOMEBODY6: &str = "2001:db8:ffff::7";
/// Two machines, the first with a public network.
const FIRST: &str = "beth-0";
const SECOND: &str = "beth-1";
const FIRST4: &str = "172.16.0.2";
const SECOND4: &str = "172.16.0.6";
const FIRST6: &str = "2001:db8:1:2:3:d2b7:4aa2:9891";

fn network(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// Where the host would send to, by that interface.
fn behind(interface: &str) -> Vec<IpNet> {
    match interface {
        FIRST => vec![network("172.16.0.0/30"), network("2001:db8:1:2:3:d2b7:4aa2:9890/124"), network("fe80::/64")],
        SECOND => vec![network("172.16.0.4/30"), network("fe80::/64")],
        _ => vec![network("0.0.0.0/0"), network("::/0")],
    }
}

fn plan() -> Plan {
    let guest = FIRST4.parse().expect("an address");
    Plan {
        table: "beth".to_owned(),
        machines: "beth-".to_owned(),
        pool: crate::network::ipv4::DEFAULT_POOL,
        outside: vec![OUTSIDE.to_owned()],
        name_servers: vec!["10.0.0.53".parse().expect("an address")],
        refused: config::Network::default().refused,
        host_ports: vec![443],
        forwards: vec![
            Forward { protocol: Protocol::Tcp, host_port: 24000, guest, guest_port: 22 },
            Forward { protocol: Protocol::Udp, host_port: 24001, guest, guest_port: 53 },
        ],
    }
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
    is_forwarded: bool,
}

fn packet(came_by: &'static str, source: &str, leaves_by: &'static str, destination: &str) -> Packet {
    Packet {
        came_by,
        leaves_by,
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        port: Some((Protocol::Tcp, 80)),
        is_established: false,
        is_forwarded: false,
    }
}

fn is(interface: &Interface, name: &str) -> bool {
    match interface {
        Interface::Named(own) => own == name,
        Interface::Prefixed(prefix) => name.starts_with(prefix.as_str()),
    }
}

fn holds(matching: &Match, packet: &Packet) -> bool {
    match matching {
        Match::CameBy(interface) => is(interface, packet.came_by),
        Match::LeavesBy(interface) => is(interface, packet.leaves_by),
        Match::IsIpv4 => packet.source.is_ipv4(),
        Match::IsForeign => !behind(packet.came_by).iter().any(|network| network.contains(&packet.source)),
        Match::SourceIn(network) => network.contains(&packet.source),
        Match::DestinationIn(network) => network.contains(&packet.destination),
        Match::IsControlMessage { ipv6 } => packet.port.is_none() && packet.source.is_ipv6() == *ipv6,
        Match::IsEstablished => packet.is_established,
        Match::IsForwarded => packet.is_forwarded,
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
        match &rule.verdict {
            Verdict::Jump(chain) => match ask(table, chain, packet) {
                Some(verdict) => return Some(verdict),
                None => continue,
            },
            Verdict::Return => return None,
            verdict => return Some(verdict.clone()),
        }
    }
    None
}

fn passes(chain: &str, packet: &Packet) -> bool {
    ask(&Ruleset::of(&plan()), chain, packet) != Some(Verdict::Drop)
}

#[test]
fn a_machine_reaches_the_world_under_its_own_name_only() {
    for (source, destination, passed) in [
        (FIRST4, SOMEBODY, true),
        (SECOND4, SOMEBODY, false),
        ("198.51.100.9", SOMEBODY, false),
        (FIRST6, SOMEBODY6, true),
        ("2001:db8:1:2:3:d2b7:4aa2:989f", SOMEBODY6, true),
        ("2001:db8:1:2:3:d2b7:4aa2:98a1", SOMEBODY6, false),
        ("::", SOMEBODY6, false),
    ] {
        let mut packet = packet(FIRST, source, OUTSIDE, destination);
        assert_eq!(passes("forward", &packet), passed, "{packet:?}");
        // Nor in an old conversation.
        packet.is_established = true;
        assert_eq!(passes("forward", &packet), passed, "{packet:?}");
        packet.port = None;
        assert_eq!(passes("input", &packet), passed, "{packet:?}");
    }
    // The other machine has no public network.
    assert!(!passes("forward", &packet(SECOND, FIRST6, OUTSIDE, SOMEBODY6)));
}

#[test]
fn private_addresses_are_between_a_machine_and_its_host() {
    assert!(!passes("forward", &packet(FIRST, FIRST4, SECOND, SECOND4)));
    assert!(!passes("forward", &packet(SECOND, SECOND4, FIRST, FIRST4)));
    assert!(!passes("forward", &packet(OUTSIDE, SOMEBODY, FIRST, FIRST4)));
    let mut answer = packet(OUTSIDE, SOMEBODY, FIRST, FIRST4);
    answer.is_established = true;
    assert!(passes("forward", &answer));
    let table = Ruleset::of(&plan());
    let outgoing = packet(FIRST, FIRST4, OUTSIDE, SOMEBODY);
    assert_eq!(ask(&table, "postrouting", &outgoing), Some(Verdict::Masquerade));
    // What the host itself says, to others and to its machine.
    assert_eq!(ask(&table, "postrouting", &packet("", "192.0.2.1", OUTSIDE, SOMEBODY)), None);
    assert_eq!(ask(&table, "postrouting", &packet("", "172.16.0.1", FIRST, FIRST4)), None);
}

#[test]
fn outside_is_what_the_operator_says_and_no_other_interface() {
    assert!(passes("forward", &packet(FIRST, FIRST4, OUTSIDE, SOMEBODY)));
    assert!(!passes("forward", &packet(FIRST, FIRST4, "docker0", SOMEBODY)));
    assert!(!passes("forward", &packet(FIRST, FIRST6, "wg0", SOMEBODY6)));
    // Others' packets are none of ours.
    assert!(passes("forward", &packet("docker0", SOMEBODY, OUTSIDE, "10.0.0.1")));
}

#[test]
fn private_networks_and_metadata_are_not_the_internet() {
    for destination in
        ["10.0.0.1", "172.20.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1", "0.0.0.1"]
    {
        assert!(!passes("forward", &packet(FIRST, FIRST4, OUTSIDE, destination)), "{destination}");
    }
    for destination in ["fc00::1", "fd00:ec2::254", "fe80::a9fe:a9fe", "ff05::2", "64:ff9b::a9fe:a9fe"] {
        assert!(!passes("forward", &packet(FIRST, FIRST6, OUTSIDE, destination)), "{destination}");
    }
    // But for the questions that the host asks there too.
    for (port, passed) in [
        ((Protocol::Udp, 53), true),
        ((Protocol::Tcp, 53), true),
        ((Protocol::Tcp, 80), false),
        ((Protocol::Udp, 123), false),
    ] {
        let question = Packet { port: Some(port), ..packet(FIRST, FIRST4, OUTSIDE, "10.0.0.53") };
        assert_eq!(passes("forward", &question), passed, "{question:?}");
    }
}

#[test]
fn public_addresses_are_reached_from_anywhere() {
    assert!(passes("forward", &packet(OUTSIDE, SOMEBODY6, FIRST, FIRST6)));
    assert!(passes("forward", &packet("eth1", SOMEBODY6, FIRST, FIRST6)));
}

#[test]
fn a_forwarded_port_leads_to_its_machine_and_no_other_does() {
    let table = Ruleset::of(&plan());
    let at_host =
        |protocol, port| Packet { port: Some((protocol, port)), ..packet(OUTSIDE, SOMEBODY, "", "192.0.2.1") };
    let guest = Ipv4Addr::new(172, 16, 0, 2);
    assert_eq!(ask(&table, "prerouting", &at_host(Protocol::Tcp, 24000)), Some(Verdict::Redirect(guest, 22)));
    assert_eq!(ask(&table, "prerouting", &at_host(Protocol::Udp, 24001)), Some(Verdict::Redirect(guest, 53)));
    for (protocol, port) in [(Protocol::Udp, 24000), (Protocol::Tcp, 24001), (Protocol::Tcp, 22)] {
        assert_eq!(ask(&table, "prerouting", &at_host(protocol, port)), None);
    }
    // After that it is for the machine's own port.
    for is_forwarded in [true, false] {
        let there = Packet { is_forwarded, ..packet(OUTSIDE, SOMEBODY, FIRST, FIRST4) };
        assert_eq!(passes("forward", &there), is_forwarded, "{there:?}");
    }
}

#[test]
fn the_hosts_own_services_are_not_for_its_guests() {
    for (source, destination) in [
        (FIRST4, "172.16.0.1"),
        (FIRST4, "192.0.2.1"),
        (FIRST6, "2001:db8:1:2:3:d2b7:4aa2:9890"),
        (FIRST6, "2001:db8::1"),
        ("fe80::1", "fe80::2"),
    ] {
        let mut packet = packet(FIRST, source, "", destination);
        assert!(!passes("input", &packet), "{packet:?}");
        packet.is_established = true;
        assert!(!passes("input", &packet), "{packet:?}");
        packet.port = None;
        assert!(passes("input", &packet), "{packet:?}");
        packet.port = Some((Protocol::Tcp, 443));
        assert!(passes("input", &packet), "{packet:?}");
    }
    // All others are none of ours.
    assert!(passes("input", &packet("eth0", SOMEBODY, "", "192.0.2.1")));
}

#[test]
fn the_table_is_what_nft_reads() {
    let mut plan = plan();
    plan.refused = vec![network("10.0.0.0/8"), network("fc00::/7")];
    let expected = "\
table inet beth
delete table inet beth
table inet beth {
	chain sender {
		fib saddr . iif oif missing drop
	}
	chain host {
		jump sender
		ip protocol icmp accept
		meta l4proto ipv6-icmp accept
		tcp dport 443 accept
		drop
	}
	chain outwards {
		oifname \"beth-*\" meta nfproto ipv4 drop
		ip daddr 10.0.0.53/32 udp dport 53 accept
		ip daddr 10.0.0.53/32 tcp dport 53 accept
		ip daddr 10.0.0.0/8 drop
		ip6 daddr fc00::/7 drop
		oifname \"eth0\" return
		oifname \"beth-*\" return
		drop
	}
	chain inwards {
		meta nfproto ipv4 ct status dnat accept
		meta nfproto ipv4 drop
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname \"eth0\" meta nfproto ipv4 tcp dport 24000 dnat ip to 172.16.0.2:22
		iifname \"eth0\" meta nfproto ipv4 udp dport 24001 dnat ip to 172.16.0.2:53
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname \"beth-*\" jump host
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname \"beth-*\" jump sender
		iifname \"beth-*\" ct state established,related accept
		oifname \"beth-*\" ct state established,related accept
		iifname \"beth-*\" jump outwards
		oifname \"beth-*\" jump inwards
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"beth-*\" return
		ip saddr 172.16.0.0/12 masquerade
	}
}
";
    assert_eq!(Ruleset::of(&plan).to_string(), expected);
}
