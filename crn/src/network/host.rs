//! The host's side of the network: what is set up once, the wires that wait for machines, and how a machine gets one.
//!
//! ```text
//!   start:    lock ─ remove what a killed node left ─ packet filter ─ forwarding ─ first wire
//!   then:     a few wires wait: a tap that is up, its /30, its switches
//!   machine:  takes one, adds the /124 of its message if there is a public network and no other machine has it
//!   stop:     the packet filter goes; each tap went with its machine
//! ```

use super::{
    card::{Card, GUEST_MAC, HOST_MAC, Slot},
    ipv4::{self, LINK_BITS, PoolError},
    ipv6::{self, Kind, NETWORK_BITS},
    links::{Links, Route},
    name_servers, netfilter,
    rules::{Plan, Ruleset},
    sysctl,
};
use crate::config;
use ccn_message::ItemHash;
use ipnet::{IpNet, Ipv4Net};
use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    fs, io,
    net::{IpAddr, Ipv6Addr},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::sync::Notify;
use vmm::devices::{
    network::{Rates, Tap},
    token_bucket::Rate,
};

/// Where the host says whom it asks for names, and where it says so when it asks itself first.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// How many taps are tried: the name of one that a machine has just left is free a moment later.
const ATTEMPTS: usize = 16;
/// Bytes per second in a megabit per second.
const MEGABIT_BYTES: u64 = 125_000;

/// Why there is no network. The operator's to mend; the sentences say how.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// This process may not, or the kernel cannot.
    #[error("cannot {what}: {reason}{}", advice(.reason))]
    Host {
        /// What was tried.
        what: String,
        /// What the kernel says.
        reason: io::Error,
    },
    /// Another node of this host has it.
    #[error(
        "another node of this host has the network named {0:?}: stop it, or give this one another network.name and ipv4_pool"
    )]
    Taken(String),
    /// There is no default route.
    #[error("this host has no default route, so it is not known which way is out: set network.external_interface")]
    NoWayOut,
    /// The interface that was named is not there.
    #[error("network.external_interface is {0:?}, and this host has no such interface")]
    NoInterface(String),
    /// The pool is none.
    #[error("network.ipv4_pool: {0}")]
    Pool(#[from] PoolError),
    /// All addresses are taken, or are others'.
    #[error("no address of network.ipv4_pool ({0}) is free: it is too small, or this host has routes to all of it")]
    Exhausted(Ipv4Net),
}

fn advice(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::PermissionDenied => ". Run crn as root, or with CAP_NET_ADMIN and /dev/net/tun",
        io::ErrorKind::NotFound => {
            ". The kernel needs tun, nf_tables, nft_chain_nat, nft_masq, nft_ct and nft_fib_inet"
        }
        io::ErrorKind::ReadOnlyFilesystem => ". /proc/sys must be writable, or the switch be set already",
        _ => "",
    }
}

fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    |reason| NetworkError::Host { what: what.into(), reason }
}

/// The network of this node. Clones share it.
#[derive(Debug, Clone)]
pub struct HostNetwork {
    shared: Arc<Shared>,
}

/// What cards and the network have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// How the names of taps begin.
    prefix: String,
    table: String,
    pool: Ipv4Net,
    pub(super) rates: Rates,
    name_servers: Vec<IpAddr>,
    ipv6: Option<Public>,
    state: Mutex<State>,
    taken: Arc<Notify>,
    /// Says in this network namespace that the name is taken; the kernel releases it however this process ends.
    _lock: UnixDatagram,
}

/// The public network.
#[derive(Debug)]
struct Public {
    pool: Ipv6Addr,
    /// The interface on which the host answers for its machines, if it is to.
    proxy: Option<u32>,
}

#[derive(Debug)]
struct State {
    pool: ipv4::Pool,
    /// Wires that wait.
    waiting: VecDeque<Slot>,
    /// Public networks that machines have.
    public: HashSet<ipv6::Network>,
}

impl HostNetwork {
    /// Sets the host up, and removes what an earlier node has left.
    ///
    /// # Errors
    /// See [`NetworkError`]. What was done until then stays; it is found the next time.
    pub fn set_up(settings: &config::Network) -> Result<Self, NetworkError> {
        let lock = lock(&settings.name)?;
        let prefix = format!("{}-", settings.name);
        let mut links = Links::new();
        let interfaces = links.all().map_err(cannot("list interfaces"))?;
        for (name, index) in interfaces.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            tracing::info!(name, "an earlier node has left an interface, which goes");
            links.remove(*index).map_err(cannot(format!("remove the interface {name}")))?;
        }
        let routes = links.routes().map_err(cannot("list routes"))?;
        let outside = match &settings.external_interface {
            Some(name) if interfaces.contains_key(name) => vec![name.clone()],
            Some(name) => return Err(NetworkError::NoInterface(name.clone())),
            None => ways_out(&routes).filter_map(|index| name_of(&interfaces, index)).collect(),
        };
        if outside.is_empty() {
            return Err(NetworkError::NoWayOut);
        }
        let name_servers = match &settings.name_servers[..] {
            [] => RESOLV_CONF
                .iter()
                .map(|path| name_servers::of(&fs::read_to_string(path).unwrap_or_default()))
                .find(|servers| !servers.is_empty())
                .unwrap_or_default(),
            said => said.to_vec(),
        };
        if name_servers.is_empty() {
            tracing::warn!("machines have nobody to ask for names: set network.name_servers");
        }
        let mut pool = ipv4::Pool::new(settings.ipv4_pool)?;
        for network in others(&routes, &name_servers) {
            pool.avoid(network);
        }
        let ruleset = Ruleset::of(&Plan {
            table: settings.name.clone(),
            machines: prefix.clone(),
            pool: settings.ipv4_pool,
            outside: outside.clone(),
            name_servers: name_servers.clone(),
            refused: settings.refused.clone(),
            host_ports: settings.host_ports.clone(),
            forwards: Vec::new(),
        });
        netfilter::replace(&ruleset).map_err(cannot(format!("set up the packet filter (table {})", settings.name)))?;
        switch_on("ipv4/ip_forward", "1")?;
        let ipv6 = match settings.ipv6_pool {
            None => None,
            Some(network) => Some(set_up_public(network.addr(), settings.ndp_proxy, &routes, &interfaces, &mut links)?),
        };
        let rates = Rates {
            bytes: Rate::of(settings.megabits_per_second * MEGABIT_BYTES),
            packets: Rate::of(settings.packets_per_second),
        };
        let shared = Arc::new(Shared {
            prefix,
            table: settings.name.clone(),
            pool: settings.ipv4_pool,
            rates,
            name_servers,
            ipv6,
            state: Mutex::new(State { pool, waiting: VecDeque::new(), public: HashSet::new() }),
            taken: Arc::new(Notify::new()),
            _lock: lock,
        });
        // One is made now, so that what a host does not allow is known when the node starts.
        let first = shared.make_slot()?;
        shared.state().waiting.push_back(first);
        tracing::info!(
            outside = outside.join(" "),
            ipv4 = %settings.ipv4_pool,
            ipv6 = %settings.ipv6_pool.map_or_else(|| "none".to_owned(), |network| network.to_string()),
            name_servers = ?shared.name_servers,
            "machines that ask for the internet get it"
        );
        Ok(Self { shared })
    }

    /// Keeps that many wires ready, for as long as the network is there.
    pub fn keep_ready(&self, count: usize) {
        tokio::spawn(fill(Arc::downgrade(&self.shared), Arc::clone(&self.shared.taken), count));
    }

    /// Who answers machines' questions for names.
    #[must_use]
    pub fn name_servers(&self) -> &[IpAddr] {
        &self.shared.name_servers
    }

    /// A card for a machine of that message.
    ///
    /// # Errors
    /// All addresses are taken, or the host refuses a tap.
    pub async fn card(&self, kind: Kind, item_hash: &ItemHash) -> Result<Card, NetworkError> {
        let waiting = self.shared.state().waiting.pop_front();
        self.shared.taken.notify_one();
        let public = self.shared.ipv6.as_ref().and_then(|public| ipv6::Network::of(public.pool, kind, item_hash));
        let shared = Arc::clone(&self.shared);
        match (waiting, public) {
            (Some(slot), None) => Ok(Card { shared, link: slot.link, slot: Some(slot), ipv6: None }),
            (waiting, public) => {
                let made = tokio::task::spawn_blocking(move || shared.make_card(waiting, public)).await;
                made.unwrap_or_else(|panic| Err(cannot("make a network card")(io::Error::other(panic))))
            }
        }
    }

    /// Takes the packet filter away. For the end of a node: its machines are gone.
    pub fn close(&self) {
        self.shared.state().waiting.clear();
        if let Err(error) = netfilter::remove(&self.shared.table) {
            tracing::warn!(%error, table = self.shared.table, "the packet filter's table stays");
        }
    }
}

impl Shared {
    /// The state. A thread that panicked while it held it has left it whole: each change is one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tap with its link.
    fn make_slot(&self) -> Result<Slot, NetworkError> {
        let mut busy = Vec::new();
        let mut made = Err(NetworkError::Exhausted(self.pool));
        for _ in 0..ATTEMPTS {
            let (link, number) = {
                let mut state = self.state();
                let Some(link) = state.pool.take() else { break };
                (link, state.pool.number(link))
            };
            let name = format!("{}{number}", self.prefix);
            made = self.make_tap(&name, link).map_err(cannot(format!("make the tap {name}")));
            match &made {
                Err(NetworkError::Host { reason, .. }) if reason.kind() == io::ErrorKind::ResourceBusy => {
                    busy.push(link)
                }
                Err(_) => {
                    busy.push(link);
                    break;
                }
                Ok(_) => break,
            }
        }
        let mut state = self.state();
        for link in busy {
            state.pool.give_back(link);
        }
        made
    }

    fn make_tap(&self, name: &str, link: ipv4::Link) -> io::Result<Slot> {
        let tap = Tap::open(name)?;
        let mut links = Links::new();
        let index = links.index(name)?;
        // Before it is up: an interface that comes up gives itself an address.
        match self.ipv6 {
            Some(_) => {
                sysctl::set_if_there(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
                sysctl::set_if_there(&format!("ipv6/conf/{name}/accept_redirects"), "0")?;
            }
            None => drop(sysctl::set_if_there(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?),
        }
        sysctl::set(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
        sysctl::set(&format!("ipv4/conf/{name}/accept_redirects"), "0")?;
        links.raise(index, HOST_MAC)?;
        links.add_address(index, link.host().into(), LINK_BITS)?;
        links.add_neighbour(index, link.guest().into(), GUEST_MAC)?;
        Ok(Slot { tap, index, link })
    }

    fn make_card(self: Arc<Self>, waiting: Option<Slot>, public: Option<ipv6::Network>) -> Result<Card, NetworkError> {
        let slot = match waiting {
            Some(slot) => slot,
            None => self.make_slot()?,
        };
        // A second machine of a message at the same time has no public address: there is one for each message.
        let own = public.filter(|network| self.state().public.insert(*network));
        let index = slot.index;
        let card = Card { shared: Arc::clone(&self), link: slot.link, slot: Some(slot), ipv6: own };
        if let Some(network) = own {
            let mut links = Links::new();
            links
                .add_address(index, network.host().into(), NETWORK_BITS)
                .and_then(|()| links.add_neighbour(index, network.guest().into(), GUEST_MAC))
                .map_err(cannot(format!("give the host the address {}", network.host())))?;
            if let Some(outside) = self.ipv6.as_ref().and_then(|public| public.proxy) {
                links
                    .set_proxy(outside, network.guest(), true)
                    .map_err(cannot(format!("answer neighbour discovery for {}", network.guest())))?;
            }
        }
        Ok(card)
    }

    /// A machine is gone: its tap ends with the descriptor, its addresses are free.
    pub(super) fn take_back(&self, slot: Slot, public: Option<ipv6::Network>) {
        if let (Some(network), Some(outside)) = (public, self.ipv6.as_ref().and_then(|public| public.proxy))
            && let Err(error) = Links::new().set_proxy(outside, network.guest(), false)
        {
            tracing::debug!(%error, address = %network.guest(), "the host went on answering for a machine that is gone");
        }
        let Slot { tap, link, .. } = slot;
        drop(tap);
        let mut state = self.state();
        state.pool.give_back(link);
        if let Some(network) = public {
            state.public.remove(&network);
        }
    }
}

/// Keeps wires ready until the network is gone.
async fn fill(shared: Weak<Shared>, taken: Arc<Notify>, count: usize) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        if shared.state().waiting.len() >= count {
            drop(shared);
            taken.notified().await;
            continue;
        }
        let maker = Arc::clone(&shared);
        match tokio::task::spawn_blocking(move || maker.make_slot()).await {
            Ok(Ok(slot)) => shared.state().waiting.push_back(slot),
            Ok(Err(error)) => {
                tracing::warn!(%error, "no network card can be made in advance");
                // The next start finds out whether one can be made at all.
                drop(shared);
                taken.notified().await;
            }
            Err(_) => return,
        }
    }
}

/// One node per name and network namespace.
fn lock(name: &str) -> Result<UnixDatagram, NetworkError> {
    let address = SocketAddr::from_abstract_name(format!("beth/network/{name}")).map_err(cannot("name a socket"))?;
    UnixDatagram::bind_addr(&address).map_err(|reason| match reason.kind() {
        io::ErrorKind::AddrInUse => NetworkError::Taken(name.to_owned()),
        _ => cannot("take the network's name")(reason),
    })
}

/// Sets a switch of the kernel, and says so: others on this host see it too.
fn switch_on(name: &str, value: &str) -> Result<(), NetworkError> {
    let changed = sysctl::set(name, value).map_err(cannot(format!("set net/{name} to {value}")))?;
    if changed {
        tracing::info!("the switch net.{} is {value} from now on, for all of this host", name.replace('/', "."));
    }
    Ok(())
}

/// Forwarding of IPv6, and who answers for machines where the public network is not routed to this host.
fn set_up_public(
    pool: Ipv6Addr,
    ndp_proxy: bool,
    routes: &[Route],
    interfaces: &std::collections::BTreeMap<String, u32>,
    links: &mut Links,
) -> Result<Public, NetworkError> {
    let way_out = way_out(routes, true);
    if let Some(name) = way_out.and_then(|index| name_of(interfaces, index)) {
        // A host that forwards does not listen to routers any more unless told to, and would lose its own way out.
        let switch = format!("ipv6/conf/{name}/accept_ra");
        if sysctl::read(&switch).is_ok_and(|value| value == "1") {
            switch_on(&switch, "2")?;
        }
        if ndp_proxy {
            switch_on(&format!("ipv6/conf/{name}/proxy_ndp"), "1")?;
        }
    }
    switch_on("ipv6/conf/all/forwarding", "1")?;
    let proxy = way_out.filter(|_| ndp_proxy);
    if let Some(index) = proxy {
        let ours = |address: &Ipv6Addr| address.segments()[..4] == pool.segments()[..4];
        for address in links.proxies(index).map_err(cannot("list neighbour proxies"))?.into_iter().filter(ours) {
            links.set_proxy(index, address, false).map_err(cannot(format!("stop answering for {address}")))?;
        }
    }
    Ok(Public { pool, proxy })
}

fn name_of(interfaces: &std::collections::BTreeMap<String, u32>, index: u32) -> Option<String> {
    interfaces.iter().find(|(_, other)| **other == index).map(|(name, _)| name.clone())
}

/// The interface of the best default route of a family.
fn way_out(routes: &[Route], ipv6: bool) -> Option<u32> {
    let default =
        |route: &&Route| route.destination.prefix_len() == 0 && matches!(route.destination, IpNet::V6(_)) == ipv6;
    routes
        .iter()
        .filter(default)
        .filter_map(|route| Some((route.metric, route.interface?)))
        .min()
        .map(|(_, index)| index)
}

/// Those of both families.
fn ways_out(routes: &[Route]) -> impl Iterator<Item = u32> {
    let both: BTreeSet<u32> = [false, true].into_iter().filter_map(|ipv6| way_out(routes, ipv6)).collect();
    both.into_iter()
}

/// Networks of IPv4 that somebody else has: what the host has routes to, and its name servers.
fn others(routes: &[Route], name_servers: &[IpAddr]) -> Vec<Ipv4Net> {
    let routed = routes.iter().map(|route| route.destination).filter(|network| network.prefix_len() > 0);
    routed
        .chain(name_servers.iter().copied().map(IpNet::from))
        .filter_map(|network| match network {
            IpNet::V4(network) => Some(network),
            IpNet::V6(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, interface: u32, metric: u32) -> Route {
        Route { destination: destination.parse().expect("a network"), interface: Some(interface), metric }
    }

    #[test]
    fn the_way_out_is_the_best_default_route_of_each_family() {
        let routes = [
            route("192.0.2.0/24", 1, 0),
            route("0.0.0.0/0", 3, 600),
            route("0.0.0.0/0", 2, 100),
            route("::/0", 4, 1024),
            Route { interface: None, ..route("0.0.0.0/0", 0, 0) },
        ];
        assert_eq!(ways_out(&routes).collect::<Vec<_>>(), [2, 4]);
        assert_eq!((way_out(&routes, false), way_out(&routes, true)), (Some(2), Some(4)));
        assert_eq!(ways_out(&routes[..1]).count(), 0);
    }

    #[test]
    fn addresses_that_are_routed_elsewhere_are_others() {
        let routes = [route("0.0.0.0/0", 2, 0), route("172.17.0.0/16", 3, 0), route("2001:db8::/64", 2, 0)];
        let servers = ["172.16.5.1", "2001:db8::1"].map(|text| text.parse().expect("an address"));
        let others: Vec<String> = others(&routes, &servers).iter().map(Ipv4Net::to_string).collect();
        assert_eq!(others, ["172.17.0.0/16", "172.16.5.1/32"]);
    }
}
