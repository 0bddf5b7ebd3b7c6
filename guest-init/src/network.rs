//! The guest's place in the network: the card `eth0` has the addresses that the host has given this machine, and no others.
//!
//! Taken at the start, and once more by each clone: what it finds are the addresses of the machine that was copied, under which its
//! card sends nothing.

use guest_protocol::{Link, Network};
use netlink_bindings::{
    rt_addr::{self, IfaFlags, Ifaddrmsg},
    rt_link::{self, IfinfoFlags, Ifinfomsg},
    rt_route::{self, Rtmsg},
    traits::NetlinkRequest,
};
use netlink_socket2::NetlinkSocket;
use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr},
};

const CARD: &std::ffi::CStr = c"eth0";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// `AF_INET`, `AF_INET6`, `AF_UNSPEC`, as one byte.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const BOTH: u8 = 0;
/// `RT_SCOPE_UNIVERSE`; addresses of other scopes are the kernel's own doing.
const UNIVERSE: u8 = 0;
/// `RT_TABLE_MAIN`, `RTPROT_BOOT`, `RTN_UNICAST`: a route as `ip route add` makes it.
const MAIN_TABLE: u8 = 254;
const BOOT: u8 = 3;
const UNICAST: u8 = 1;

/// Has the card these addresses and no others.
pub(crate) fn take(network: &Network) -> io::Result<()> {
    let mut card = Card::raise()?;
    let wanted: Vec<&Link> = [&network.ipv4].into_iter().chain(&network.ipv6).collect();
    let had = card.addresses()?;
    // Before the new ones: with the last address of a family its routes go.
    for (address, bits) in &had {
        if !wanted.iter().any(|link| (link.address, link.prefix_bits) == (*address, *bits)) {
            card.remove(*address, *bits)?;
        }
    }
    for link in wanted {
        if !had.contains(&(link.address, link.prefix_bits)) {
            card.add(link)?;
        }
        card.route_by(link.gateway)?;
    }
    if network.ipv6.is_none() && had.iter().any(|(address, _)| address.is_ipv6()) {
        card.forget_gateway6()?;
    }
    Ok(())
}

/// Says whom to ask for names. The runtime's own file may be a link to what is not there.
pub(crate) fn write_name_servers(servers: &[IpAddr]) -> io::Result<()> {
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    match fs::remove_file(RESOLV_CONF) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(RESOLV_CONF, text)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

/// The card, and the kernel's ear.
struct Card {
    socket: NetlinkSocket,
    index: u32,
}

impl Card {
    /// Finds the card and switches it on.
    fn raise() -> io::Result<Self> {
        let mut socket = NetlinkSocket::new();
        let mut find = rt_link::Request::new().op_getlink_do(&Ifinfomsg::new());
        find.encode().push_ifname(CARD);
        let (header, _) = socket.request(&find)?.recv_one()?;
        let (index, is_up) = (header.ifi_index, header.ifi_flags & IfinfoFlags::Up as u32 != 0);
        let mut card = Self { socket, index: u32::try_from(index).map_err(io::Error::other)? };
        if !is_up {
            let up = IfinfoFlags::Up as u32;
            let header = Ifinfomsg { ifi_index: index, ifi_flags: up, ifi_change: up, ..Ifinfomsg::new() };
            card.order(&rt_link::Request::new().op_setlink_do(&header))?;
        }
        Ok(card)
    }

    /// Asks and waits for "done".
    fn order(&mut self, request: &impl NetlinkRequest) -> io::Result<()> {
        Ok(self.socket.request(request)?.recv_ack()?)
    }

    /// Its addresses that others may know.
    fn addresses(&mut self) -> io::Result<Vec<(IpAddr, u8)>> {
        let request = rt_addr::Request::new().op_getaddr_dump(&Ifaddrmsg { ifa_family: BOTH, ..Ifaddrmsg::new() });
        let mut answers = self.socket.request(&request)?;
        let mut all = Vec::new();
        while let Some(answer) = answers.recv() {
            let (header, attributes) = answer?;
            if (header.ifa_index, header.ifa_scope) != (self.index, UNIVERSE) {
                continue;
            }
            // Of IPv6 only this one is told; on such a link both are the same.
            if let Ok(address) = attributes.get_address() {
                all.push((address, header.ifa_prefixlen));
            }
        }
        Ok(all)
    }

    fn add(&mut self, link: &Link) -> io::Result<()> {
        let header = Ifaddrmsg {
            ifa_family: family(link.address),
            ifa_prefixlen: link.prefix_bits,
            // Nobody else is on the wire who could have it.
            ifa_flags: IfaFlags::Nodad as u8,
            ifa_index: self.index,
            ..Ifaddrmsg::new()
        };
        let mut request = rt_addr::Request::new().set_create().set_replace().op_newaddr_do(&header);
        request.encode().push_local(link.address).push_address(link.address);
        self.order(&request)
    }

    fn remove(&mut self, address: IpAddr, prefix_bits: u8) -> io::Result<()> {
        let header = Ifaddrmsg {
            ifa_family: family(address),
            ifa_prefixlen: prefix_bits,
            ifa_index: self.index,
            ..Ifaddrmsg::new()
        };
        let mut request = rt_addr::Request::new().op_deladdr_do(&header);
        request.encode().push_local(address).push_address(address);
        self.order(&request)
    }

    /// All that is not on the wire is reached by that address.
    fn route_by(&mut self, gateway: IpAddr) -> io::Result<()> {
        let mut request =
            rt_route::Request::new().set_create().set_replace().op_newroute_do(&default_route(family(gateway)));
        request.encode().push_gateway(gateway).push_oif(self.index);
        self.order(&request)
    }

    /// Routes of IPv6 do not go with the address. One that is gone already is as good.
    fn forget_gateway6(&mut self) -> io::Result<()> {
        let mut request = rt_route::Request::new().op_delroute_do(&default_route(IPV6));
        request.encode().push_dst(Ipv6Addr::UNSPECIFIED.into()).push_oif(self.index);
        match self.order(&request) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }
}

fn default_route(family: u8) -> Rtmsg {
    Rtmsg {
        rtm_family: family,
        rtm_table: MAIN_TABLE,
        rtm_protocol: BOOT,
        rtm_scope: UNIVERSE,
        rtm_type: UNICAST,
        ..Rtmsg::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::inside;

    fn link(address: &str, prefix_bits: u8, gateway: &str) -> Link {
        let parse = |text: &str| text.parse().expect("an address");
        Link { address: parse(address), prefix_bits, gateway: parse(gateway) }
    }

    /// The card's addresses, and the gateways of the default routes as the kernel writes them.
    fn found() -> (Vec<String>, Vec<String>, Vec<String>) {
        let mut addresses: Vec<String> = Card::raise()
            .and_then(|mut card| card.addresses())
            .expect("a list")
            .iter()
            .map(|(address, bits)| format!("{address}/{bits}"))
            .collect();
        addresses.sort();
        let column = |path: &str, is_default: &dyn Fn(&[&str]) -> bool, gateway: usize| {
            let table = fs::read_to_string(path).expect("a table");
            let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            rows.filter(|row| is_default(row)).map(|row| row[gateway].to_owned()).collect::<Vec<_>>()
        };
        let default4 = |row: &[&str]| row[0] == "eth0" && row[1] == "00000000";
        let default6 = |row: &[&str]| row[9] == "eth0" && row[0] == "0".repeat(32) && row[1] == "00";
        (addresses, column("/proc/self/net/route", &default4, 2), column("/proc/self/net/ipv6_route", &default6, 4))
    }

    #[test]
    fn a_card_has_the_addresses_of_its_machine_and_no_others() {
        if !inside("network::tests::a_card_has_the_addresses_of_its_machine_and_no_others") {
            return;
        }
        assert!(take(&Network { ipv4: link("10.0.0.2", 30, "10.0.0.1"), ipv6: None }).is_err(), "there is no card");
        let mut request = rt_link::Request::new().set_create().set_excl().op_newlink_do(&Ifinfomsg::new());
        request.encode().push_ifname(CARD).nested_linkinfo().push_kind(c"veth");
        NetlinkSocket::new().request(&request).expect("asked").recv_ack().expect("a card");

        let first = Network {
            ipv4: link("172.16.0.2", 30, "172.16.0.1"),
            ipv6: Some(link("2001:db8:1:2:1:aaaa:aaaa:aaa1", 124, "2001:db8:1:2:1:aaaa:aaaa:aaa0")),
        };
        // The wire's other end is up, as the host's is.
        let mut other = rt_link::Request::new().op_setlink_do(&Ifinfomsg {
            ifi_flags: IfinfoFlags::Up as u32,
            ifi_change: IfinfoFlags::Up as u32,
            ..Ifinfomsg::new()
        });
        other.encode().push_ifname(c"veth0");
        NetlinkSocket::new().request(&other).expect("asked").recv_ack().expect("up");
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let gateway6 = "20010db8000100020001aaaaaaaaaaa0";
        // A machine that goes on after it was copied takes what it has.
        for _ in 0..2 {
            take(&first).expect("taken");
            let addresses = texts(&["172.16.0.2/30", "2001:db8:1:2:1:aaaa:aaaa:aaa1/124"]);
            assert_eq!(found(), (addresses, texts(&["010010AC"]), texts(&[gateway6])));
        }
        // Its clone has others, and nothing of the first.
        take(&Network { ipv4: link("172.16.0.6", 30, "172.16.0.5"), ipv6: None }).expect("taken");
        assert_eq!(found(), (texts(&["172.16.0.6/30"]), texts(&["050010AC"]), texts(&[])));
        take(&first).expect("taken");
        assert_eq!(found().2, texts(&[gateway6]));
    }
}
