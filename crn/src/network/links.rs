//! Interfaces, addresses and routes of the host over netlink (`rtnetlink(7)`): each call is one request and its answer, far below a
//! millisecond unless the host makes and removes many interfaces at once.

use ipnet::IpNet;
use netlink_bindings::{
    rt_addr::{self, IfaFlags, Ifaddrmsg},
    rt_link::{self, IfinfoFlags, Ifinfomsg},
    rt_neigh::{self, Ndmsg},
    rt_route::{self, Rtmsg},
    traits::NetlinkRequest,
};
use netlink_socket2::{NetlinkSocket, ReplyError};
use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// `AF_INET`, `AF_INET6`, as one byte.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `RTN_UNICAST`, `RT_TABLE_MAIN`: routes that lead somewhere, where routes are by default.
const UNICAST: u8 = 1;
const MAIN_TABLE: u8 = 254;
/// `NTF_PROXY`: the host answers for that address.
const PROXY: u8 = 1 << 3;
/// `NUD_PERMANENT`: what is known of a neighbour is not asked for.
const PERMANENT: u16 = 0x80;

/// A route of the host's main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; everywhere for the default.
    pub destination: IpNet,
    /// The interface's number.
    pub interface: Option<u32>,
    /// Those with less go first.
    pub metric: u32,
}

/// A socket to the kernel.
#[derive(Default)]
pub struct Links {
    socket: NetlinkSocket,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Links").finish_non_exhaustive()
    }
}

fn told(error: ReplyError) -> io::Error {
    io::Error::new(error.as_io_error().kind(), error.to_string())
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

fn number(index: u32) -> io::Result<i32> {
    i32::try_from(index).map_err(io::Error::other)
}

impl Links {
    /// Opens it with the first request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks and waits for "done".
    fn order(&mut self, request: &impl NetlinkRequest) -> io::Result<()> {
        self.socket.request(request)?.recv_ack().map_err(told)
    }

    /// All interfaces, by name with their numbers.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all(&mut self) -> io::Result<BTreeMap<String, u32>> {
        let request = rt_link::Request::new().op_getlink_dump(&Ifinfomsg::new());
        let mut answers = self.socket.request(&request)?;
        let mut all = BTreeMap::new();
        while let Some(answer) = answers.recv() {
            let (header, attributes) = answer.map_err(told)?;
            let (Ok(name), Ok(index)) = (attributes.get_ifname(), u32::try_from(header.ifi_index)) else { continue };
            all.insert(name.to_string_lossy().into_owned(), index);
        }
        Ok(all)
    }

    /// The number of the interface of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn index(&mut self, name: &str) -> io::Result<u32> {
        let mut request = rt_link::Request::new().op_getlink_do(&Ifinfomsg::new());
        request.encode().push_ifname(&CString::new(name)?);
        let mut answers = self.socket.request(&request)?;
        let (header, _) = answers.recv_one().map_err(told)?;
        u32::try_from(header.ifi_index).map_err(io::Error::other)
    }

    /// Gives an interface its Ethernet address and switches it on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn raise(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let up = IfinfoFlags::Up as u32;
        let header = Ifinfomsg { ifi_index: number(index)?, ifi_flags: up, ifi_change: up, ..Ifinfomsg::new() };
        let mut request = rt_link::Request::new().op_setlink_do(&header);
        request.encode().push_address(&mac);
        self.order(&request)
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, index: u32) -> io::Result<()> {
        let header = Ifinfomsg { ifi_index: number(index)?, ..Ifinfomsg::new() };
        self.order(&rt_link::Request::new().op_dellink_do(&header))
    }

    /// Gives the host an address on an interface, and with it the route to the network around it. Nobody else is on the wire, so
    /// nobody is asked whether it is taken.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix_bits: u8) -> io::Result<()> {
        let header = Ifaddrmsg {
            ifa_family: family(address),
            ifa_prefixlen: prefix_bits,
            ifa_flags: IfaFlags::Nodad as u8,
            ifa_index: index,
            ..Ifaddrmsg::new()
        };
        let mut request = rt_addr::Request::new().set_create().set_excl().op_newaddr_do(&header);
        request.encode().push_local(address).push_address(address);
        self.order(&request)
    }

    /// Tells the host a neighbour's Ethernet address, so that it need not ask.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
        let header =
            Ndmsg { ndm_family: family(address), ndm_ifindex: number(index)?, ndm_state: PERMANENT, ..Ndmsg::new() };
        let mut request = rt_neigh::Request::new().set_create().set_replace().op_newneigh_do(&header);
        request.encode().push_dst(address).push_lladdr(&mac);
        self.order(&request)
    }

    /// Has the host answer neighbour discovery on an interface for an address that is behind it, or no longer.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_proxy(&mut self, index: u32, address: Ipv6Addr, answers: bool) -> io::Result<()> {
        let header = Ndmsg { ndm_family: IPV6, ndm_ifindex: number(index)?, ndm_flags: PROXY, ..Ndmsg::new() };
        if answers {
            let mut request = rt_neigh::Request::new().set_create().set_replace().op_newneigh_do(&header);
            request.encode().push_dst(address.into());
            self.order(&request)
        } else {
            let mut request = rt_neigh::Request::new().op_delneigh_do(&header);
            request.encode().push_dst(address.into());
            self.order(&request)
        }
    }

    /// The addresses for which the host answers on an interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn proxies(&mut self, index: u32) -> io::Result<Vec<Ipv6Addr>> {
        let header = Ndmsg { ndm_family: IPV6, ndm_flags: PROXY, ..Ndmsg::new() };
        let request = rt_neigh::Request::new().op_getneigh_dump(&header);
        let mut answers = self.socket.request(&request)?;
        let mut all = Vec::new();
        while let Some(answer) = answers.recv() {
            let (header, attributes) = answer.map_err(told)?;
            if u32::try_from(header.ndm_ifindex) != Ok(index) || header.ndm_flags & PROXY == 0 {
                continue;
            }
            if let Ok(IpAddr::V6(address)) = attributes.get_dst() {
                all.push(address);
            }
        }
        Ok(all)
    }

    /// The routes of the main table that lead somewhere, of both families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut all = Vec::new();
        for family in [IPV4, IPV6] {
            let request = rt_route::Request::new().op_getroute_dump(&Rtmsg { rtm_family: family, ..Rtmsg::new() });
            let mut answers = self.socket.request(&request)?;
            while let Some(answer) = answers.recv() {
                let (header, attributes) = answer.map_err(told)?;
                // A kernel without IPv6 answers with all it has.
                if (header.rtm_type, header.rtm_table, header.rtm_family) != (UNICAST, MAIN_TABLE, family) {
                    continue;
                }
                let everywhere =
                    if family == IPV4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
                let address = attributes.get_dst().unwrap_or(everywhere);
                let Ok(destination) = IpNet::new(address, header.rtm_dst_len) else { continue };
                all.push(Route {
                    destination,
                    interface: attributes.get_oif().ok(),
                    metric: attributes.get_priority().unwrap_or(0),
                });
            }
        }
        Ok(all)
    }
}
