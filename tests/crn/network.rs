//! Machines in a network: what they reach, what they do not, and that clones are not each other. What the host's packet filter does
//! with each kind of packet is tried by `crn/tests/network.rs`; here are guests, cards and programs.
//!
//! The internet is a namespace of the host with one wire to it:
//!
//! ```text
//!  guest ── tap ── host ── inet0 203.0.113.1 ─── 203.0.113.2 ── the world: 198.51.100.7 (web), 198.51.100.53 (names),
//!                                                              10.9.9.9 and 169.254.169.254 (web, not for machines)
//!                 2001:db8:9::1 ─── 2001:db8:9::2 ──────────── 2001:db8:ffff::7 (web)
//! ```

use crate::{
    answer::{at_once, expect_json},
    stage::{self, COLD_WITHIN, NONE_IN_ADVANCE, Network, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use harness::{
    devnet::ComputeNode,
    kvm_host::{HostProcess, Kind},
};
use kvm_host::names::NAMES;
use serde_json::{Value, json};
use std::{collections::BTreeSet, thread, time::Duration};

/// Tries what it is told to, and listens on a port of its own.
const PROGRAM: &str = "import asyncio, fcntl, json, socket, struct, threading, time
served = socket.create_server(('0.0.0.0', 9000))
def serve():
    while True:
        stream, peer = served.accept()
        stream.sendall(b'hello')
        stream.close()
threading.Thread(target=serve, daemon=True).start()
def tcp(host, port, wait):
    with socket.create_connection((host, port), timeout=wait) as stream:
        stream.sendall(b'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n')
        answer = b''
        while chunk := stream.recv(65536):
            answer += chunk
        return answer.decode().split()[-1]
def resolve(name):
    return socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
def address(interface):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        return socket.inet_ntoa(fcntl.ioctl(asked, 0x8915, struct.pack('256s', interface.encode()))[20:24])
def interfaces():
    return [name for _, name in socket.if_nameindex()]
def spoof(source, destination, count):
    header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(destination))
    total = sum(struct.unpack('!10H', header))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    header = header[:10] + struct.pack('!H', ~total & 0xffff) + header[12:]
    packet = header + struct.pack('!HHHH', 4000, 5000, 8, 0)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(('eth0', 0))
        own = wire.getsockname()[4]
        for _ in range(count):
            wire.send(b'\\x02\\xbe\\x74\\x00\\x00\\x01' + own + b'\\x08\\x00' + packet)
    return count
def attempt(words):
    try:
        return globals()[words[0]](*words[1:])
    except OSError as error:
        return {'error': f'{type(error).__name__}: {error}'}
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('only http')
    body, more = b'', True
    while more:
        part = await receive()
        body, more = body + part.get('body', b''), part.get('more_body', False)
    attempts = [await asyncio.to_thread(attempt, words) for words in json.loads(body or b'[]')]
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'application/json')]})
    await send({'type': 'http.response.body', 'body': json.dumps(attempts).encode()})
def hold(seconds):
    time.sleep(seconds)
";

/// How long a connection is waited for that is to come about, and one that is not, seconds.
const OPEN: u32 = 120;
const SHUT: u32 = 3;
/// Clones that run at the same time.
const CLONES: usize = 3;
/// A port of the host.
const SERVICE: u16 = 7777;

/// Makes the world; its processes end with the one that holds its namespace.
const WORLD: &str = "set -e
ip link add name inet0 type veth
ip link set veth0 netns $1
ip addr add 203.0.113.1/24 dev inet0
ip link set inet0 up
world=\"nsenter -t $1 -n\"
$world ip link set lo up
$world ip link set veth0 up
$world ip addr add 203.0.113.2/24 dev veth0
for address in 198.51.100.7 198.51.100.53 10.9.9.9 169.254.169.254; do
    $world ip addr add $address/32 dev lo
    ip route add $address/32 via 203.0.113.2
done
mkdir -p $2/cgi-bin
printf '#!/bin/sh\\necho\\necho $REMOTE_ADDR\\n' > $2/cgi-bin/who
chmod 755 $2/cgi-bin/who
$world httpd -p 0.0.0.0:80 -h $2
ip -6 addr add 2001:db8:9::1/64 dev inet0
ip -6 route add 2001:db8:ffff::/48 via 2001:db8:9::2
$world ip -6 addr add 2001:db8:9::2/64 dev veth0
$world ip -6 addr add 2001:db8:ffff::7/128 dev lo
$world ip -6 route add 2001:db8:1:2::/64 via 2001:db8:9::1
sleep 4
$world httpd -p '[2001:db8:ffff::7]:80' -h $2
";

/// A namespace that plays the internet.
struct World<'a> {
    holder: HostProcess<'a>,
    names: HostProcess<'a>,
}

impl<'a> World<'a> {
    fn make(network: &'a Network) -> Result<Self> {
        let host = network.host;
        let holder = host.spawn("world", &["unshare", "-n", "sleep", "100000"])?;
        let id = holder.id().to_string();
        // The name of the namespace is there before the program that holds it.
        let own = host.run(&["readlink", "/proc/1/ns/net"])?.expect_success()?.text();
        wait_until(Duration::from_secs(60), "the world has a namespace", || {
            Ok(host.run(&["readlink", &format!("/proc/{id}/ns/net")])?.text() != own)
        })?;
        host.run(&["sh", "-c", WORLD, "world", &id, &host.path("world")])?.expect_success()?;
        let program = host.install(&stage::installation().program("kvm-host"), "names")?;
        let names = ["nsenter", "-t", &id, "-n", &program, NAMES, "198.51.100.53:53", "198.51.100.7"];
        let names = host.spawn("names", &names)?;
        // What is not for machines is there for the host.
        for address in ["198.51.100.7", "10.9.9.9", "169.254.169.254"] {
            let answer = host.run(&["wget", "-q", "-O", "-", &format!("http://{address}/cgi-bin/who")])?;
            let answer = answer.expect_success()?.text();
            ensure!(answer.trim() == "203.0.113.1", "{address} says {answer:?}");
        }
        Ok(Self { holder, names })
    }

    /// Its web server may hold it a little longer; the wire to it does not wait for that.
    fn end(self, network: &Network) -> Result<()> {
        network.host.run(&["ip", "link", "del", "inet0"])?.expect_success()?;
        self.names.kill(9)?;
        self.holder.kill(9)
    }
}

/// Has a program try things; each says what came of it.
fn attempts(node: &ComputeNode<'_>, hash: &str, list: Value) -> Result<Vec<Value>> {
    let answer =
        node.client(COLD_WITHIN).post(&format!("/vm/{hash}/"), "application/json", list.to_string().as_bytes())?;
    expect_json(200, answer)?.as_array().cloned().context("a list")
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("not a text: {value}"))
}

pub(crate) fn internet() -> Result<()> {
    let network = stage::network()?;
    if network.host.kind() != Kind::Emulated {
        println!("not run: it changes routes of its host");
        return Ok(());
    }
    let world = World::make(network)?;
    let settings = [
        NONE_IN_ADVANCE,
        "network.mode=on",
        "network.name=e2e",
        "network.ipv4_pool=10.77.0.0/16",
        "network.ipv6_pool=2001:db8:1:2::/64",
        "network.external_interface=inet0",
        "network.name_servers=198.51.100.53",
        "templates.level=function",
        "programs.idle_seconds=0",
    ];
    let node = network.another_compute_node("crn-network", &settings)?;
    let one =
        network.plain_with("network-one", &format!("# one\n{PROGRAM}"), true, json!({"BETH_CONCURRENCY": "1"}))?;
    let other = network.plain_with("network-other", &format!("# other\n{PROGRAM}"), true, json!({}))?;
    let alone = network.plain_with("network-none", &format!("# alone\n{PROGRAM}"), false, json!({}))?;

    // Each of these boots, and makes a template that the next machine of the program goes on from.
    let first = attempts(
        &node,
        one,
        json!([["address", "eth0"], ["tcp", "198.51.100.7", 80, OPEN], ["tcp", "2001:db8:ffff::7", 80, OPEN]]),
    )?;
    ensure!(first[1] == "203.0.113.1", "the world sees the host: {first:?}");
    let own = format!("[{}]", public(one)?);
    ensure!(first[2] == own, "the world sees {own}: {first:?}");
    let neighbour = attempts(&node, other, json!([["address", "eth0"]]))?;
    ensure!(text(&neighbour[0])? != text(&first[0])?, "{neighbour:?} {first:?}");

    // A program that asks for no network has loopback, and that works.
    let lonely = attempts(&node, alone, json!([["interfaces"], ["tcp", "127.0.0.1", 9000, OPEN]]))?;
    ensure!(lonely == [json!(["lo"]), json!("hello")], "{lonely:?}");

    hostile(network, &world, &node, one, other)?;
    clones(&node, one)?;

    // What the node has set up goes with it.
    let wires =
        || Ok(network.host.run(&["sh", "-c", "ls /sys/class/net | grep -c e2e- || true"])?.text().trim() == "0");
    node.stop()?;
    wait_until(Duration::from_secs(60), "the wires are gone", wires)?;
    world.end(network)
}

/// A machine that tries all it should not reach, while another one runs.
fn hostile(network: &Network, world: &World<'_>, node: &ComputeNode<'_>, one: &str, other: &str) -> Result<()> {
    // The host serves something that is for everybody else; it ends with this host.
    let host = network.host;
    let listen = format!("0.0.0.0:{SERVICE}");
    host.run(&["httpd", "-p", &listen, "-h", &host.path("world")])?.expect_success()?;
    let page = host.run(&["wget", "-q", "-O", "-", &format!("http://203.0.113.1:{SERVICE}/cgi-bin/who")])?;
    page.expect_success()?;
    thread::scope(|scope| -> Result<()> {
        let held = scope.spawn(|| attempts(node, other, json!([["hold", 90]])));
        let address = wait_for_address(network, node)?;
        let gateway = {
            let own = attempts(node, one, json!([["address", "eth0"]]))?;
            let octets: std::net::Ipv4Addr = text(&own[0])?.parse()?;
            std::net::Ipv4Addr::from(u32::from(octets) - 1).to_string()
        };
        // The other machine is reached from outside under the address that follows from its message, as scoring does it.
        let (holder, public) = (world.holder.id().to_string(), public(other)?);
        network.host.run(&["nsenter", "-t", &holder, "-n", "ping6", "-c", "1", &public])?.expect_success()?;
        let tried = attempts(
            node,
            one,
            json!([
                ["resolve", "example.test"],
                ["tcp", "example.test", 80, OPEN],
                ["tcp", address, 9000, SHUT],
                ["tcp", gateway, SERVICE, SHUT],
                ["tcp", "203.0.113.1", SERVICE, SHUT],
                ["tcp", "169.254.169.254", 80, SHUT],
                ["tcp", "10.9.9.9", 80, SHUT],
                ["spoof", address, "198.51.100.7", 5],
                ["tcp", "198.51.100.7", 80, OPEN],
            ]),
        )?;
        ensure!(tried[0] == "198.51.100.7" && tried[1] == "203.0.113.1" && tried[8] == "203.0.113.1", "{tried:?}");
        for refused in &tried[2..7] {
            ensure!(refused["error"].as_str().is_some_and(|error| error.contains("imed")), "{tried:?}");
        }
        ensure!(tried[7] == 5, "{tried:?}");
        held.join().map_err(|_| anyhow::anyhow!("a call panicked"))??;
        // What it sent under the other's address did not leave its card.
        wait_until(Duration::from_secs(120), "a machine's card has refused five frames", || {
            let log = node.process().log()?;
            Ok(log.lines().any(|line| line.contains(one) && line.contains("network_refused_frames: 5")))
        })
    })
}

/// The public address of a program's machine (crn spec section 5).
fn public(hash: &str) -> Result<String> {
    let digits = |from: usize| hash.get(from..from + 4).context("an item hash is longer");
    let group = |from| -> Result<u16> { Ok(u16::from_str_radix(digits(from)?, 16)?) };
    let [a, b, c] = [group(0)?, group(4)?, group(8)? & 0xfff0 | 1];
    Ok(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 1, a, b, c).to_string())
}

/// The private address of the one machine that runs, as its host knows it.
fn wait_for_address(network: &Network, node: &ComputeNode<'_>) -> Result<String> {
    let mut found = None;
    wait_until(COLD_WITHIN, "one machine runs", || {
        let list = node.monitors()?;
        let routes = network.host.run(&["ip", "route"])?.text();
        let wires: Vec<&str> = routes.lines().filter(|line| line.contains("e2e-")).collect();
        if list.len() != 1 || wires.len() != 1 {
            return Ok(false);
        }
        found = wires.iter().filter_map(|line| line.split_once("/30")?.0.parse::<std::net::Ipv4Addr>().ok()).max();
        Ok(found.is_some())
    })?;
    let network = found.context("an address")?;
    Ok(std::net::Ipv4Addr::from(u32::from(network) + 2).to_string())
}

/// Clones of one template at the same time, each with a network under an address of its own.
fn clones(node: &ComputeNode<'_>, hash: &str) -> Result<()> {
    // One of them has the public address; the others' addresses of IPv6 are nobody's.
    let list = json!([
        ["address", "eth0"],
        ["tcp", "198.51.100.7", 80, OPEN],
        ["resolve", "example.test"],
        ["hold", 30],
        ["tcp", "2001:db8:ffff::7", 80, SHUT],
    ]);
    let said = at_once(CLONES, |_| attempts(node, hash, list.clone()))?;
    let mut addresses = BTreeSet::new();
    for said in &said {
        ensure!(said[1] == "203.0.113.1" && said[2] == "198.51.100.7", "{said:?}");
        ensure!(addresses.insert(text(&said[0])?), "{said:?} is the address of another clone: {addresses:?}");
    }
    let public = said.iter().filter(|said| said[4].is_string()).count();
    ensure!(public == 1, "{said:?}");
    let log = node.process().log()?;
    let cloned = log.lines().filter(|line| line.contains(hash) && line.contains("template of its function")).count();
    ensure!(cloned >= CLONES, "{cloned} machines went on from the template");
    Ok(())
}
