//! What a guest may send: a frame goes in, a verdict comes out. Pure, for any bytes.
//!
//! Passed are ARP, IPv4 and IPv6 under the guest's own addresses, without VLAN tags. Dropped besides are the words of those
//! whom others believe: of DHCP servers and of IPv6 routers. Headers are read where the receiver will read them: behind
//! options and extension headers, and in the first fragment, which must hold them all (RFC 7112).

use crate::config::Net;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
/// Longest frame: an Ethernet header and the longest IP packet.
pub const MAX_FRAME_BYTES: usize = ETHERNET_BYTES + 65_535;

/// Extension headers of an IPv6 packet that are looked behind; a packet with more is dropped.
const MAX_EXTENSION_HEADERS: usize = 8;

/// EtherTypes.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Numbers of protocols, which are those of IPv6's next headers too.
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// Ports where DHCP clients listen (RFC 2131, RFC 8415): who sends there is a server.
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
/// Kinds of ICMPv6 messages (RFC 4861, RFC 2710, RFC 3810).
const LISTENER_REPORT: u8 = 131;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const LISTENER_REPORT_2: u8 = 143;
/// Options of neighbour discovery that hold Ethernet addresses: the sender's and the target's.
const LINK_ADDRESSES: [u8; 2] = [1, 2];

/// Whom a guest may speak as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its card's Ethernet address.
    pub mac: [u8; 6],
    /// Its IPv4 addresses.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses. Link-local ones are its own choice: no router carries them further.
    pub ipv6: Vec<Ipv6Addr>,
}

impl Identity {
    /// Of the guest with that card.
    #[must_use]
    pub fn of(net: &Net) -> Self {
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for address in &net.addresses {
            match address {
                IpAddr::V4(address) => ipv4.push(*address),
                IpAddr::V6(address) => ipv6.push(*address),
            }
        }
        Self { mac: net.mac, ipv4, ipv6 }
    }
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It ends, or says that it does, before what must be in it.
    #[error("it is cut off or malformed")]
    Malformed,
    /// It is neither ARP nor IP.
    #[error("it is neither ARP nor IP")]
    Kind,
    /// Its sender's Ethernet address, in any place, is not the card's.
    #[error("it has another sender's Ethernet address")]
    Mac,
    /// Its sender's address, in any place, is none of the guest's.
    #[error("it has another sender's address")]
    Address,
    /// It is an answer of a DHCP server.
    #[error("it is of a DHCP server")]
    Server,
    /// It is an advertisement or a redirect of an IPv6 router.
    #[error("it is of a router")]
    Router,
    /// It asks the host for work that was not agreed upon or would change something else than checksums and segments.
    #[error("it asks for an offload that does not fit it")]
    Offload,
    /// The host's side took it not.
    #[error("the host did not take it")]
    Host,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = Self::Host as usize + 1;
}

/// Where a frame's TCP or UDP header is; nothing else has work for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Whether it is IPv6, else it is IPv4.
    pub is_ipv6: bool,
    /// Whether it is TCP, else it is UDP.
    pub is_tcp: bool,
    /// Bytes from the start of the frame.
    pub offset: usize,
}

/// Whether a guest may send this frame; where its transport header is, if it has one.
///
/// # Errors
/// Why not.
pub fn check(frame: &[u8], identity: &Identity) -> Result<Option<Transport>, Refusal> {
    let (header, packet) = frame.split_first_chunk::<ETHERNET_BYTES>().ok_or(Refusal::Malformed)?;
    if header[6..12] != identity.mac {
        return Err(Refusal::Mac);
    }
    match u16::from_be_bytes([header[12], header[13]]) {
        ARP => check_arp(packet, identity).map(|()| None),
        IPV4 => check_ipv4(packet, identity),
        IPV6 => check_ipv6(packet, identity),
        _ => Err(Refusal::Kind),
    }
}

/// RFC 826 for Ethernet and IPv4. A question whose sender is 0.0.0.0 asks whether an address is taken (RFC 5227).
fn check_arp(packet: &[u8], identity: &Identity) -> Result<(), Refusal> {
    const QUESTION: [u8; 2] = [0, 1];
    let packet = packet.first_chunk::<28>().ok_or(Refusal::Malformed)?;
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return Err(Refusal::Kind);
    }
    if packet[8..14] != identity.mac {
        return Err(Refusal::Mac);
    }
    let sender = Ipv4Addr::new(packet[14], packet[15], packet[16], packet[17]);
    let asks_only = sender.is_unspecified() && packet[6..8] == QUESTION;
    if asks_only || identity.ipv4.contains(&sender) { Ok(()) } else { Err(Refusal::Address) }
}

fn check_ipv4(packet: &[u8], identity: &Identity) -> Result<Option<Transport>, Refusal> {
    let header = packet.first_chunk::<20>().ok_or(Refusal::Malformed)?;
    let header_bytes = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || header_bytes < header.len() {
        return Err(Refusal::Malformed);
    }
    let payload = packet.get(header_bytes..).ok_or(Refusal::Malformed)?;
    if !identity.ipv4.contains(&Ipv4Addr::new(header[12], header[13], header[14], header[15])) {
        return Err(Refusal::Address);
    }
    // Later fragments have no header; those that would lie over the first one's lie behind its ports.
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return Ok(None);
    }
    let offset = ETHERNET_BYTES + header_bytes;
    check_transport(header[9], payload, DHCP_CLIENT)
        .map(|is_tcp| is_tcp.map(|is_tcp| Transport { is_ipv6: false, is_tcp, offset }))
}

fn check_ipv6(packet: &[u8], identity: &Identity) -> Result<Option<Transport>, Refusal> {
    let (header, mut payload) = packet.split_first_chunk::<40>().ok_or(Refusal::Malformed)?;
    if header[0] >> 4 != 6 {
        return Err(Refusal::Malformed);
    }
    let source = address_at(header, 8)?;
    let mut next = header[6];
    let mut fragmented = false;
    let mut later_fragment = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(byte_at(payload, 1)?) + 1) * 8,
            AUTHENTICATION => (usize::from(byte_at(payload, 1)?) + 2) * 4,
            FRAGMENT => {
                fragmented = true;
                later_fragment = u16::from_be_bytes([byte_at(payload, 2)?, byte_at(payload, 3)?]) & !7 != 0;
                8
            }
            _ => break,
        };
        next = byte_at(payload, 0)?;
        payload = payload.get(length..).ok_or(Refusal::Malformed)?;
        if later_fragment {
            return if is_own(source, identity) { Ok(None) } else { Err(Refusal::Address) };
        }
    }
    if matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT) {
        return Err(Refusal::Malformed);
    }
    if next == ICMPV6 {
        return check_icmpv6(payload, source, fragmented, identity).map(|()| None);
    }
    if !is_own(source, identity) {
        return Err(Refusal::Address);
    }
    let offset = ETHERNET_BYTES + packet.len() - payload.len();
    check_transport(next, payload, DHCPV6_CLIENT)
        .map(|is_tcp| is_tcp.map(|is_tcp| Transport { is_ipv6: true, is_tcp, offset }))
}

/// Whether it is TCP, or UDP, or neither.
fn check_transport(protocol: u8, payload: &[u8], dhcp_client: u16) -> Result<Option<bool>, Refusal> {
    match protocol {
        TCP => Ok(Some(true)),
        UDP => match u16::from_be_bytes([byte_at(payload, 2)?, byte_at(payload, 3)?]) {
            port if port == dhcp_client => Err(Refusal::Server),
            _ => Ok(Some(false)),
        },
        _ => Ok(None),
    }
}

/// ICMPv6, and with it neighbour discovery, which is ARP for IPv6 (RFC 4861): that a guest speaks of itself only.
fn check_icmpv6(message: &[u8], source: Ipv6Addr, fragmented: bool, identity: &Identity) -> Result<(), Refusal> {
    let kind = byte_at(message, 0)?;
    // A guest that has no address yet asks whether one is taken, for routers, and joins groups.
    let nameless = matches!(kind, NEIGHBOUR_SOLICITATION | ROUTER_SOLICITATION | LISTENER_REPORT | LISTENER_REPORT_2);
    let allowed = is_own(source, identity) || (source.is_unspecified() && nameless);
    if !allowed {
        return Err(Refusal::Address);
    }
    let options = match kind {
        ROUTER_ADVERTISEMENT | REDIRECT => return Err(Refusal::Router),
        ROUTER_SOLICITATION => message.get(8..),
        NEIGHBOUR_SOLICITATION => message.get(24..),
        NEIGHBOUR_ADVERTISEMENT => {
            if !is_own(address_at(message, 8)?, identity) {
                return Err(Refusal::Address);
            }
            message.get(24..)
        }
        _ => return Ok(()),
    };
    // Nobody fragments these but to hide them (RFC 6980).
    let mut options = options.filter(|_| !fragmented).ok_or(Refusal::Malformed)?;
    while !options.is_empty() {
        // An option without length would be looked at for ever.
        let length = usize::from(byte_at(options, 1)?) * 8;
        let option = options.get(..length).filter(|option| !option.is_empty()).ok_or(Refusal::Malformed)?;
        if LINK_ADDRESSES.contains(&option[0]) && option[2..8] != identity.mac {
            return Err(Refusal::Mac);
        }
        options = &options[length..];
    }
    Ok(())
}

fn is_own(address: Ipv6Addr, identity: &Identity) -> bool {
    address.is_unicast_link_local() || identity.ipv6.contains(&address)
}

fn byte_at(bytes: &[u8], offset: usize) -> Result<u8, Refusal> {
    bytes.get(offset).copied().ok_or(Refusal::Malformed)
}

fn address_at(bytes: &[u8], offset: usize) -> Result<Ipv6Addr, Refusal> {
    let bytes = bytes.get(offset..).and_then(|rest| rest.first_chunk::<16>()).ok_or(Refusal::Malformed)?;
    Ok(Ipv6Addr::from(*bytes))
}

#[cfg(test)]
mod tests;
