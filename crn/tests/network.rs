//! The network of machines in the kernel: frames go in at the wires of machines and at one that leads outside, and are looked for at
//! the others. In network namespaces of their own, which takes root or user namespaces; where there are none it says so.

mod namespace;

use ccn_message::ItemHash;
use crn::{
    config::{self, Mode},
    network::{
        card::{Card, GUEST_MAC, HOST_MAC},
        host::{HostNetwork, NetworkError},
        ipv6::Kind,
        links::Links,
    },
};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use namespace::inside;
use netlink_bindings::rt_route::{self, Rtmsg};
use netlink_socket2::NetlinkSocket;
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};
use vmm::devices::network::{Tap, Wire};

/// How long a frame is waited for that should not come; the kernel takes microseconds.
const NOTHING_WITHIN: Duration = Duration::from_millis(200);
const SOMETHING_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of virtio's header before each frame.
const HEADER_BYTES: usize = 12;

const OUTSIDE: &str = "out0";
const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 254];
const HOST4: &str = "198.51.100.1";
const ROUTER4: &str = "198.51.100.254";
const HOST6: &str = "2001:db8:9::1";
const ROUTER6: &str = "2001:db8:9::254";
const SOMEBODY4: &str = "203.0.113.5";
const SOMEBODY6: &str = "2001:db8:ffff::5";
const PUBLIC: &str = "2001:db8:1:2::/64";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn hash(digit: char) -> ItemHash {
    digit.to_string().repeat(64).parse().expect("an item hash")
}

/// The end of a wire.
struct End(Tap);

impl End {
    fn of(card: &Card) -> Self {
        Self(Tap::new(card.tap().try_clone_to_owned().expect("a descriptor")).expect("a tap"))
    }

    fn send(&mut self, frame: &[u8]) {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(frame);
        self.0.send(&bytes).expect("the tap takes it");
    }

    /// The frame with that payload, if it comes.
    fn take(&mut self, payload: &[u8], within: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + within;
        let mut buffer = vec![0; 70_000];
        loop {
            match self.0.receive(&mut buffer) {
                Ok(bytes) if buffer[HEADER_BYTES..bytes].ends_with(payload) => {
                    return Some(buffer[HEADER_BYTES..bytes].to_vec());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > deadline {
                        return None;
                    }
                    sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Source and destination of a datagram.
fn ends_of(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a packet");
    let (source, destination): (IpAddr, IpAddr) = match packet.net.expect("IP") {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => panic!("ARP"),
    };
    match packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            (SocketAddr::new(source, udp.source_port()), SocketAddr::new(destination, udp.destination_port()))
        }
        Some(TransportSlice::Tcp(tcp)) => {
            (SocketAddr::new(source, tcp.source_port()), SocketAddr::new(destination, tcp.destination_port()))
        }
        _ => (SocketAddr::new(source, 0), SocketAddr::new(destination, 0)),
    }
}

enum What {
    Datagram(u16, u16),
    Segment(u16, u16),
    Echo,
}

fn frame(macs: ([u8; 6], [u8; 6]), source: IpAddr, destination: IpAddr, what: What, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0, macs.1);
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => builder.ipv4(source.octets(), destination.octets(), 64),
        (IpAddr::V6(source), IpAddr::V6(destination)) => builder.ipv6(source.octets(), destination.octets(), 64),
        _ => panic!("two families"),
    };
    let mut frame = Vec::new();
    match (what, source) {
        (What::Datagram(from, to), _) => builder.udp(from, to).write(&mut frame, payload),
        (What::Segment(from, to), _) => builder.tcp(from, to, 1, 1024).syn().write(&mut frame, payload),
        (What::Echo, IpAddr::V4(_)) => builder.icmpv4_echo_request(1, 1).write(&mut frame, payload),
        (What::Echo, IpAddr::V6(_)) => builder.icmpv6_echo_request(1, 1).write(&mut frame, payload),
    }
    .expect("a vector takes it");
    frame
}

/// A host with a way out.
struct World {
    runtime: tokio::runtime::Runtime,
    outside: End,
    count: u32,
}

impl World {
    fn new() -> Self {
        let tap = Tap::open(OUTSIDE).expect("a tap");
        let mut links = Links::new();
        let loopback = links.index("lo").expect("loopback");
        links.raise(loopback, [0; 6]).expect("loopback is up");
        let index = links.index(OUTSIDE).expect("its number");
        links.raise(index, OUTSIDE_MAC).expect("it is up");
        for (own, bits, router) in [(HOST4, 24, ROUTER4), (HOST6, 64, ROUTER6)] {
            links.add_address(index, address(own), bits).expect("an address");
            links.add_neighbour(index, address(router), ROUTER_MAC).expect("a neighbour");
            default_route(index, address(router));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        Self { runtime, outside: End(Tap::new(tap).expect("a tap")), count: 0 }
    }

    fn card(&self, network: &HostNetwork, digit: char) -> Card {
        self.runtime.block_on(network.card(Kind::OnDemand, &hash(digit))).expect("a card")
    }

    /// A payload that no other packet has.
    fn payload(&mut self) -> Vec<u8> {
        self.count += 1;
        format!("payload {:08}", self.count).into_bytes()
    }

    /// What comes out of what a machine sends outside.
    fn goes_out(
        &mut self,
        guest: &mut End,
        source: IpAddr,
        destination: &str,
        what: What,
        within: Duration,
    ) -> Option<Vec<u8>> {
        let payload = self.payload();
        guest.send(&frame((GUEST_MAC, HOST_MAC), source, address(destination), what, &payload));
        self.outside.take(&payload, within)
    }

    fn passes(&mut self, guest: &mut End, source: IpAddr, destination: &str, what: What) {
        assert!(
            self.goes_out(guest, source, destination, what, SOMETHING_WITHIN).is_some(),
            "{source} to {destination}"
        );
    }

    fn is_dropped(&mut self, guest: &mut End, source: IpAddr, destination: &str, what: What) {
        let out = self.goes_out(guest, source, destination, what, NOTHING_WITHIN);
        assert!(out.is_none(), "{source} to {destination}: {out:?}");
    }
}

fn default_route(index: u32, router: IpAddr) {
    let header = Rtmsg {
        rtm_family: if router.is_ipv4() { 2 } else { 10 },
        rtm_table: 254,
        rtm_protocol: 3,
        rtm_type: 1,
        ..Rtmsg::new()
    };
    let mut request = rt_route::Request::new().set_create().op_newroute_do(&header);
    request.encode().push_gateway(router).push_oif(index);
    NetlinkSocket::new().request(&request).expect("asked").recv_ack().expect("a route");
}

fn settings() -> config::Network {
    config::Network {
        mode: Mode::On,
        ipv6_pool: Some(PUBLIC.parse().expect("a network")),
        name_servers: vec![address("10.0.0.53")],
        ..config::Network::default()
    }
}

fn guest4(card: &Card) -> IpAddr {
    card.guest().ipv4.address
}

fn guest6(card: &Card) -> IpAddr {
    card.guest().ipv6.expect("a public address").address
}

#[test]
fn a_machine_has_the_internet_and_nothing_else() {
    if !inside("a_machine_has_the_internet_and_nothing_else") {
        return;
    }
    let mut world = World::new();
    let network = HostNetwork::set_up(&settings()).expect("a network");
    let (one, other) = (world.card(&network, 'a'), world.card(&network, 'b'));
    let (mut guest, mut neighbour) = (End::of(&one), End::of(&other));
    let own = guest4(&one);
    let udp = || What::Datagram(4000, 5000);

    // Out under the host's address, and the answer back.
    let out = world.goes_out(&mut guest, own, SOMEBODY4, udp(), SOMETHING_WITHIN).expect("it goes out");
    let (from, to) = ends_of(&out);
    assert_eq!((from.ip(), to), (address(HOST4), SocketAddr::new(address(SOMEBODY4), 5000)));
    let payload = world.payload();
    let answer = What::Datagram(5000, from.port());
    world.outside.send(&frame((ROUTER_MAC, OUTSIDE_MAC), to.ip(), from.ip(), answer, &payload));
    let back = guest.take(&payload, SOMETHING_WITHIN).expect("the answer comes back");
    assert_eq!(ends_of(&back), (to, SocketAddr::new(own, 4000)));

    // As somebody else.
    for source in [guest4(&other), address("198.51.100.77"), one.guest().ipv4.gateway, address(HOST4)] {
        world.is_dropped(&mut guest, source, SOMEBODY4, udp());
    }
    // To the other machine, whatever it is to be.
    for what in [udp(), What::Segment(4000, 80), What::Echo] {
        let payload = world.payload();
        guest.send(&frame((GUEST_MAC, HOST_MAC), own, guest4(&other), what, &payload));
        assert!(neighbour.take(&payload, NOTHING_WITHIN).is_none());
    }
    // Nor does anybody outside reach one.
    let payload = world.payload();
    world.outside.send(&frame((ROUTER_MAC, OUTSIDE_MAC), address(SOMEBODY4), own, udp(), &payload));
    assert!(guest.take(&payload, NOTHING_WITHIN).is_none());

    // Private networks and metadata, but for questions to the name server.
    for destination in ["10.0.0.1", "192.168.1.1", "172.31.0.1", "169.254.169.254", "100.64.0.1", "10.0.0.53"] {
        world.is_dropped(&mut guest, own, destination, What::Segment(4000, 80));
    }
    world.passes(&mut guest, own, "10.0.0.53", What::Datagram(4000, 53));
    world.passes(&mut guest, own, "10.0.0.53", What::Segment(4000, 53));
}

#[test]
fn the_host_answers_pings_of_its_machines_and_nothing_else() {
    if !inside("the_host_answers_pings_of_its_machines_and_nothing_else") {
        return;
    }
    let mut world = World::new();
    let network = HostNetwork::set_up(&settings()).expect("a network");
    let card = world.card(&network, 'a');
    let mut guest = End::of(&card);
    let (own, gateway) = (guest4(&card), card.guest().ipv4.gateway);
    let service = UdpSocket::bind("0.0.0.0:7777").expect("a socket");
    let heard = |payload: &[u8], within: Duration| {
        service.set_read_timeout(Some(within)).expect("a time");
        let mut buffer = [0; 100];
        service.recv(&mut buffer).is_ok_and(|bytes| buffer[..bytes] == *payload)
    };
    // From outside it is heard, so it is there.
    let payload = world.payload();
    let call = What::Datagram(4000, 7777);
    world.outside.send(&frame((ROUTER_MAC, OUTSIDE_MAC), address(SOMEBODY4), address(HOST4), call, &payload));
    assert!(heard(&payload, SOMETHING_WITHIN));
    let call = |world: &mut World, guest: &mut End, destination: IpAddr| {
        let payload = world.payload();
        let what = What::Datagram(4000, 7777);
        guest.send(&frame((GUEST_MAC, HOST_MAC), own, destination, what, &payload));
        payload
    };
    for destination in [gateway, address(HOST4), address("127.0.0.1")] {
        let payload = call(&mut world, &mut guest, destination);
        assert!(!heard(&payload, NOTHING_WITHIN), "{destination}");
    }
    let payload = world.payload();
    guest.send(&frame((GUEST_MAC, HOST_MAC), own, gateway, What::Echo, &payload));
    let echo = guest.take(&payload, SOMETHING_WITHIN).expect("an echo");
    assert_eq!(ends_of(&echo).1.ip(), own);
    // Without the table it is heard: it was the table that held it.
    network.close();
    let payload = call(&mut world, &mut guest, gateway);
    assert!(heard(&payload, SOMETHING_WITHIN));
}

#[test]
fn a_public_address_is_the_messages_own() {
    if !inside("a_public_address_is_the_messages_own") {
        return;
    }
    let mut world = World::new();
    let network = HostNetwork::set_up(&settings()).expect("a network");
    let (one, other) = (world.card(&network, 'a'), world.card(&network, 'b'));
    let (mut guest, mut neighbour) = (End::of(&one), End::of(&other));
    let (own, theirs) = (guest6(&one), guest6(&other));
    assert_eq!(own, address("2001:db8:1:2:1:aaaa:aaaa:aaa1"));
    let udp = || What::Datagram(4000, 5000);

    let out = world.goes_out(&mut guest, own, SOMEBODY6, udp(), SOMETHING_WITHIN).expect("it goes out");
    assert_eq!(ends_of(&out).0, SocketAddr::new(own, 4000), "as it is");
    for source in [theirs, address("2001:db8:9::77"), address(HOST6)] {
        world.is_dropped(&mut guest, source, SOMEBODY6, udp());
    }
    for destination in ["fd00:ec2::254", "fc00::1"] {
        world.is_dropped(&mut guest, own, destination, udp());
    }
    // From outside and from another machine, as from anywhere.
    let payload = world.payload();
    world.outside.send(&frame((ROUTER_MAC, OUTSIDE_MAC), address(SOMEBODY6), own, What::Echo, &payload));
    assert!(guest.take(&payload, SOMETHING_WITHIN).is_some());
    let payload = world.payload();
    neighbour.send(&frame((GUEST_MAC, HOST_MAC), theirs, own, udp(), &payload));
    assert!(guest.take(&payload, SOMETHING_WITHIN).is_some());

    // The host answers for both, and stops when they are gone.
    let mut links = Links::new();
    let index = links.index(OUTSIDE).expect("its number");
    assert_eq!(links.proxies(index).expect("a list").len(), 2);
    // A second machine of a message at the same time has a private address of its own and no public one.
    let clone = world.card(&network, 'a');
    assert!(clone.guest().ipv6.is_none() && guest4(&clone) != guest4(&one));
    let mut cloned = End::of(&clone);
    world.is_dropped(&mut cloned, own, SOMEBODY6, udp());
    world.is_dropped(&mut cloned, guest4(&one), SOMEBODY4, udp());
    world.passes(&mut cloned, guest4(&clone), SOMEBODY4, udp());
    drop((one, guest));
    assert_eq!(links.proxies(index).expect("a list").len(), 1);
    let again = world.card(&network, 'a');
    assert_eq!(guest6(&again), own);
}

#[test]
fn what_a_node_has_left_goes_and_what_a_machine_has_left_is_gone() {
    if !inside("what_a_node_has_left_goes_and_what_a_machine_has_left_is_gone") {
        return;
    }
    let world = World::new();
    let _left = Tap::open("beth-99").expect("a tap");
    let names = || Links::new().all().expect("a list").into_keys().filter(|name| name.starts_with("beth-")).count();
    let network = HostNetwork::set_up(&settings()).expect("a network");
    // The one that waits for a machine.
    assert_eq!(names(), 1);
    assert!(matches!(HostNetwork::set_up(&settings()), Err(NetworkError::Taken(name)) if name == "beth"));
    let card = world.card(&network, 'a');
    let monitor = card.tap().try_clone_to_owned().expect("a descriptor");
    let address = guest4(&card);
    drop(card);
    // As long as the machine's monitor is there so is its wire, and nobody else gets it.
    assert_eq!(names(), 1);
    let others: Vec<Card> = (0..40).map(|_| world.card(&network, 'b')).collect();
    assert!(others.iter().all(|card| guest4(card) != address));
    drop((monitor, others));
    let deadline = Instant::now() + SOMETHING_WITHIN;
    while names() > 0 {
        assert!(Instant::now() < deadline, "{} wires are left", names());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_node_that_may_not_says_so() {
    if !inside("a_node_that_may_not_says_so") {
        return;
    }
    let no_way_out = HostNetwork::set_up(&config::Network::default());
    assert!(matches!(no_way_out, Err(NetworkError::NoWayOut)), "{no_way_out:?}");
    let _world = World::new();
    let elsewhere = config::Network { external_interface: Some("eth7".to_owned()), ..settings() };
    assert!(matches!(HostNetwork::set_up(&elsewhere), Err(NetworkError::NoInterface(name)) if name == "eth7"));
    let taken = config::Network { ipv4_pool: "198.51.100.0/25".parse().expect("a network"), ..settings() };
    assert!(matches!(HostNetwork::set_up(&taken), Err(NetworkError::Exhausted(_))));
}
