//! Frames of a guest, its own and those it should not send.

use super::*;
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const OTHER_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 6);
const IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 1, 0, 0, 1);
const OTHER_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 1, 0, 0, 0x11);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const NOBODY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn identity() -> Identity {
    Identity { mac: MAC, ipv4: vec![IP], ipv6: vec![IP6] }
}

fn ethernet(source: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&HOST_MAC[..], &source, &kind.to_be_bytes(), payload].concat()
}

fn arp(operation: u8, mac: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    let packet = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &sender.octets(), &[0; 6], &[172, 16, 0, 1]].concat();
    ethernet(MAC, ARP, &packet)
}

fn ipv4(source: Ipv4Addr, protocol: u8, fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20 + options * 4];
    header[0] = 0x45 + u8::try_from(options).expect("a few");
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    ethernet(MAC, IPV4, &[&header, payload].concat())
}

fn ipv6(source: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let header = [&[0x60, 0, 0, 0, 0, 0, next, 64][..], &source.octets(), &[0; 16]].concat();
    ethernet(MAC, IPV6, &[&header, payload].concat())
}

fn udp(to: u16) -> Vec<u8> {
    [&1000_u16.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

/// A message of neighbour discovery: kind, target, one option with an Ethernet address.
fn neighbour(kind: u8, target: Ipv6Addr, option: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[option, 1], &mac].concat()
}

fn verdict(frame: &[u8]) -> Result<Option<Transport>, Refusal> {
    check(frame, &identity())
}

#[test]
fn a_guest_speaks_under_its_own_name() {
    for frame in [
        arp(1, MAC, IP),
        arp(2, MAC, IP),
        arp(1, MAC, Ipv4Addr::UNSPECIFIED),
        ipv4(IP, 1, 0, 0, &[8, 0]),
        ipv6(IP6, ICMPV6, &[128, 0]),
        ipv6(LINK_LOCAL, ICMPV6, &neighbour(NEIGHBOUR_SOLICITATION, OTHER_IP6, 1, MAC)),
        ipv6(NOBODY6, ICMPV6, &neighbour(NEIGHBOUR_SOLICITATION, IP6, 14, OTHER_MAC)),
        ipv6(IP6, ICMPV6, &neighbour(NEIGHBOUR_ADVERTISEMENT, IP6, 2, MAC)),
        ipv6(NOBODY6, ICMPV6, &[ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]),
        ipv6(NOBODY6, HOP_BY_HOP, &[&[ICMPV6, 0, 5, 2, 0, 0, 0, 0], &[LISTENER_REPORT_2; 8][..]].concat()),
        ipv6(IP6, 59, &[]),
    ] {
        assert_eq!(verdict(&frame), Ok(None), "{frame:x?}");
    }
}

#[test]
fn nobody_speaks_under_another_name() {
    let mut elsewhere = arp(2, MAC, IP);
    elsewhere[6..12].copy_from_slice(&OTHER_MAC);
    for (frame, refusal) in [
        (elsewhere, Refusal::Mac),
        (arp(2, OTHER_MAC, IP), Refusal::Mac),
        (arp(2, MAC, OTHER_IP), Refusal::Address),
        (arp(2, MAC, Ipv4Addr::UNSPECIFIED), Refusal::Address),
        (ipv4(OTHER_IP, TCP, 0, 0, &[0; 20]), Refusal::Address),
        (ipv4(Ipv4Addr::UNSPECIFIED, UDP, 0, 0, &udp(67)), Refusal::Address),
        // A later fragment.
        (ipv4(OTHER_IP, UDP, 5, 0, &[0; 20]), Refusal::Address),
        (ipv6(OTHER_IP6, TCP, &[0; 20]), Refusal::Address),
        (ipv6(OTHER_IP6, FRAGMENT, &[UDP, 0, 0, 8, 0, 0, 0, 0]), Refusal::Address),
        (ipv6(OTHER_IP6, ICMPV6, &[128]), Refusal::Address),
        (ipv6(NOBODY6, ICMPV6, &[128]), Refusal::Address),
        (ipv6(OTHER_IP6, ICMPV6, &neighbour(NEIGHBOUR_SOLICITATION, IP6, 1, MAC)), Refusal::Address),
        (ipv6(NOBODY6, UDP, &udp(53)), Refusal::Address),
        (ipv6(IP6, ICMPV6, &neighbour(NEIGHBOUR_ADVERTISEMENT, OTHER_IP6, 2, MAC)), Refusal::Address),
        (ipv6(IP6, ICMPV6, &neighbour(NEIGHBOUR_ADVERTISEMENT, IP6, 2, OTHER_MAC)), Refusal::Mac),
        (ipv6(IP6, ICMPV6, &neighbour(NEIGHBOUR_SOLICITATION, IP6, 1, OTHER_MAC)), Refusal::Mac),
    ] {
        assert_eq!(verdict(&frame), Err(refusal), "{frame:x?}");
    }
}

#[test]
fn nobody_speaks_as_a_server_or_a_router() {
    let advertisement = [ROUTER_ADVERTISEMENT; 16];
    let behind_options = [&[ICMPV6, 0, 1, 4, 0, 0, 0, 0][..], &advertisement].concat();
    let behind_two = [&[DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0][..], &behind_options].concat();
    let fragment = [&[ICMPV6, 0, 0, 1, 0, 0, 0, 0][..], &advertisement].concat();
    for (frame, refusal) in [
        (ipv4(IP, UDP, 0, 0, &udp(DHCP_CLIENT)), Refusal::Server),
        (ipv4(IP, UDP, 0x2000, 3, &udp(DHCP_CLIENT)), Refusal::Server),
        (ipv6(LINK_LOCAL, UDP, &udp(DHCPV6_CLIENT)), Refusal::Server),
        (ipv6(LINK_LOCAL, ICMPV6, &advertisement), Refusal::Router),
        (ipv6(LINK_LOCAL, ICMPV6, &[REDIRECT; 40]), Refusal::Router),
        (ipv6(LINK_LOCAL, DESTINATION_OPTIONS, &behind_options), Refusal::Router),
        (ipv6(LINK_LOCAL, HOP_BY_HOP, &behind_two), Refusal::Router),
        (ipv6(LINK_LOCAL, FRAGMENT, &fragment), Refusal::Router),
    ] {
        assert_eq!(verdict(&frame), Err(refusal), "{frame:x?}");
    }
}

#[test]
fn what_is_not_understood_is_dropped() {
    let options = |count: usize| [[DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0]; 16][..count].concat();
    let end = [59, 0, 1, 4, 0, 0, 0, 0];
    let hidden = [&[ICMPV6, 0, 0, 1, 0, 0, 0, 0][..], &neighbour(NEIGHBOUR_SOLICITATION, IP6, 1, MAC)].concat();
    let mut short_ihl = ipv4(IP, TCP, 0, 0, &[0; 20]);
    short_ihl[14] = 0x44;
    let mut no_length = neighbour(NEIGHBOUR_ADVERTISEMENT, IP6, 2, MAC);
    no_length[25] = 0;
    for (frame, refusal) in [
        (vec![], Refusal::Malformed),
        (ethernet(MAC, 0x8100, &[0; 100]), Refusal::Kind),
        (ethernet(MAC, 0x0101, &[0; 100]), Refusal::Kind),
        (ethernet(MAC, ARP, &[0; 28]), Refusal::Kind),
        (ethernet(MAC, ARP, &[0; 27]), Refusal::Malformed),
        (ethernet(MAC, IPV4, &[0x60; 40]), Refusal::Malformed),
        (ethernet(MAC, IPV6, &[0x45; 40]), Refusal::Malformed),
        (short_ihl, Refusal::Malformed),
        (ipv4(IP, UDP, 0, 0, &[0; 3]), Refusal::Malformed),
        (ipv4(IP, TCP, 0, 11, &[])[..60].to_vec(), Refusal::Malformed),
        (ipv6(IP6, HOP_BY_HOP, &[UDP, 1, 0, 0, 0, 0, 0, 0]), Refusal::Malformed),
        (ipv6(IP6, ICMPV6, &[]), Refusal::Malformed),
        (ipv6(IP6, ICMPV6, &no_length), Refusal::Malformed),
        (ipv6(IP6, FRAGMENT, &hidden), Refusal::Malformed),
        (ipv6(IP6, DESTINATION_OPTIONS, &[options(8), end.to_vec()].concat()), Refusal::Malformed),
    ] {
        assert_eq!(verdict(&frame), Err(refusal), "{frame:x?}");
    }
    let many = ipv6(IP6, DESTINATION_OPTIONS, &[options(7), end.to_vec()].concat());
    assert_eq!(verdict(&many), Ok(None));
}

#[test]
fn transport_headers_are_found() {
    for (frame, is_ipv6, is_tcp, offset) in [
        (ipv4(IP, TCP, 0x4000, 0, &[0; 20]), false, true, 34),
        (ipv4(IP, UDP, 0, 2, &udp(53)), false, false, 42),
        (ipv6(IP6, TCP, &[0; 20]), true, true, 54),
        (ipv6(IP6, HOP_BY_HOP, &[&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp(53)].concat()), true, false, 62),
    ] {
        assert_eq!(verdict(&frame), Ok(Some(Transport { is_ipv6, is_tcp, offset })), "{frame:x?}");
    }
}

/// The frames above, any of which a hostile guest could start from.
fn frames() -> Vec<Vec<u8>> {
    vec![
        arp(2, MAC, IP),
        ipv4(IP, UDP, 0, 2, &udp(53)),
        ipv6(IP6, ICMPV6, &neighbour(NEIGHBOUR_ADVERTISEMENT, IP6, 2, MAC)),
        ipv6(LINK_LOCAL, FRAGMENT, &[&[ICMPV6, 0, 0, 1, 0, 0, 0, 0][..], &[128; 16]].concat()),
        ipv6(IP6, HOP_BY_HOP, &[&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &udp(53)].concat()),
    ]
}

proptest! {
    /// Any bytes have a verdict, and what passes has the card's address and, at its plain place, an address of the guest's.
    #[test]
    fn any_bytes_have_a_verdict(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..120),
            (0..5_usize, proptest::collection::vec((12..100_usize, any::<u8>()), 0..6), 0..100_usize).prop_map(
                |(which, changes, cut)| {
                    let mut frame = frames().swap_remove(which);
                    for (at, byte) in changes {
                        if let Some(place) = frame.get_mut(at) {
                            *place = byte;
                        }
                    }
                    frame.truncate(frame.len().saturating_sub(cut.saturating_sub(50)));
                    frame
                }
            ),
        ]
    ) {
        if let Ok(transport) = verdict(&bytes) {
            prop_assert_eq!(&bytes[6..12], &MAC);
            match u16::from_be_bytes([bytes[12], bytes[13]]) {
                ARP => prop_assert!(bytes[28..32] == IP.octets() || bytes[28..32] == [0; 4]),
                IPV4 => prop_assert_eq!(&bytes[26..30], &IP.octets()),
                IPV6 => {
                    let source = address_at(&bytes, 22).expect("a whole header");
                    prop_assert!(source == IP6 || source.is_unicast_link_local() || source == NOBODY6);
                }
                kind => prop_assert!(false, "{kind:#x} passed"),
            }
            if let Some(transport) = transport {
                prop_assert!(transport.offset >= ETHERNET_BYTES + 20 && transport.offset <= bytes.len());
            }
        }
    }
}
