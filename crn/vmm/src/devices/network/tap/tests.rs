//! A real tap: the card of a guest that a test plays, in a network of its own.

use super::*;
use crate::{
    devices::{
        network::{DEFAULT_RATES, Identity, Network},
        timer::MonotonicTimer,
    },
    memory::{self, Ram},
    virtio::{
        device::{Device as _, Event},
        driver::{Driver, QUEUE_BYTES, WRITABLE},
    },
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::{Ipv4Addr, UdpSocket};
use virtio_queue::Queue;
use vm_memory::{Bytes as _, GuestAddress};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const GUEST_PORT: u16 = 4000;
const QUEUE_GPA: u64 = 0x1000;
const FRAME_GPA: u64 = 0x10_0000;
const BUFFER_GPA: u64 = 0x20_0000;
const SIZE: u16 = 64;
const NAME: &str = "beth0";
/// Set in the process that has a network of its own.
const INSIDE: &str = "BETH_TEST_TAP";
const TEST: &str = "devices::network::tap::tests::a_guest_and_its_host_talk_over_a_tap";

#[test]
fn what_is_no_tap_is_refused() {
    let file = tempfile::tempfile().expect("a file");
    assert_eq!(Tap::new(file.into()).expect_err("a file").kind(), io::ErrorKind::InvalidInput);
    let null = File::open("/dev/null").expect("a device");
    assert_eq!(Tap::new(null.into()).expect_err("a device").kind(), io::ErrorKind::InvalidInput);
    assert_eq!(interface("a-name-of-16-char").map(drop).expect_err("too long").kind(), io::ErrorKind::InvalidInput);
}

/// This very test, in a network namespace that ends with it: for any user who may make one.
#[test]
fn a_guest_and_its_host_talk_over_a_tap() {
    if std::env::var_os(INSIDE).is_some() {
        return talk();
    }
    let program = std::env::current_exe().expect("this program");
    let run = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .args(["--exact", TEST, "--nocapture", "--test-threads", "1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux");
    let said = [run.stdout, run.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(run.status.success(), "this test needs {DEVICE} and user namespaces with networks of their own:\n{said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// Gives the host's end its address and takes it up (`netdevice(7)`).
fn configure() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let address = |address: Ipv4Addr| libc::sockaddr {
        sa_family: libc::AF_INET.unsigned_abs().try_into().expect("a family"),
        sa_data: {
            let mut data = [0; 14];
            for (place, byte) in data[2..].iter_mut().zip(address.octets()) {
                *place = c_char::from_ne_bytes([byte]);
            }
            data
        },
    };
    let mut request = interface(NAME)?;
    let mut ask = |number: libc::Ioctl, set: &dyn Fn(&mut libc::ifreq)| {
        set(&mut request);
        // SAFETY: these calls read one `ifreq`, which `request` is.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw const request) })
    };
    ask(libc::SIOCSIFADDR, &|request| request.ifr_ifru.ifru_addr = address(HOST))?;
    ask(libc::SIOCSIFNETMASK, &|request| request.ifr_ifru.ifru_netmask = address(Ipv4Addr::new(255, 255, 255, 252)))?;
    let up = c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    ask(libc::SIOCSIFFLAGS, &|request| request.ifr_ifru.ifru_flags = up)
}

/// The guest and its card.
struct Guest<'a> {
    ram: &'a Ram,
    card: Network<Tap, MonotonicTimer>,
    buffers: Driver<'a>,
    frames: Driver<'a>,
    queues: [Queue; 2],
    next_buffer: u64,
}

impl Guest<'_> {
    fn add_buffer(&mut self) {
        self.buffers.add(&[(BUFFER_GPA + self.next_buffer * 0x1000, 0x1000, WRITABLE)]);
        self.next_buffer += 1;
    }

    /// The next frame of that EtherType, with its header: all else that a host says is passed over.
    fn next(&mut self, kind: [u8; 2]) -> Vec<u8> {
        loop {
            let used = self.buffers.used();
            if used.is_empty() {
                let own = self.card.descriptors();
                let waits = PollFd::from_borrowed_fd(own[1], PollFlags::IN);
                let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
                assert_eq!(poll(&mut [waits], Some(&limit)).expect("a poll"), 1, "the host sends nothing");
                drop(own);
                self.card.process(Event::Descriptor(1), &mut self.queues, self.ram).expect("whole rings");
            }
            for (head, length) in used {
                let mut frame = vec![0; length as usize];
                let gpa = GuestAddress(BUFFER_GPA + u64::from(head) * 0x1000);
                self.ram.read_slice(&mut frame, gpa).expect("a read");
                self.add_buffer();
                if frame[HEADER_BYTES + 12..HEADER_BYTES + 14] == kind {
                    return frame;
                }
            }
        }
    }

    fn send(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) {
        self.ram.write_slice(&[&header, frame].concat(), GuestAddress(FRAME_GPA)).expect("a write");
        let length = u32::try_from(HEADER_BYTES + frame.len()).expect("a frame");
        self.frames.add(&[(FRAME_GPA, length, 0)]);
        self.card.process(Event::Queue(1), &mut self.queues, self.ram).expect("whole rings");
        assert_eq!(self.frames.used().len(), 1);
    }
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

fn talk() {
    let tap = Tap::open(NAME).expect("a tap");
    assert!(Tap::open(NAME).is_err(), "a tap has one user");
    configure().expect("an interface");
    let ram = memory::allocate(32 << 20).expect("memory");
    let identity = Identity { mac: MAC, ipv4: vec![GUEST], ipv6: Vec::new() };
    let card =
        Network::new(Tap::new(tap).expect("a tap"), MonotonicTimer::new().expect("a timer"), identity, DEFAULT_RATES);
    let (buffers, frames) = (Driver::new(&ram, QUEUE_GPA, SIZE), Driver::new(&ram, QUEUE_GPA + QUEUE_BYTES, SIZE));
    let queues = [buffers.queue(), frames.queue()];
    let mut guest = Guest { ram: &ram, card, buffers, frames, queues, next_buffer: 0 };
    guest.card.activate(Offloads::FEATURES);
    for _ in 0..8 {
        guest.add_buffer();
    }

    // As after any start of a driver: the tap learns what the guest takes.
    guest.card.process(Event::Queue(0), &mut guest.queues, &ram).expect("whole rings");

    // The host asks for the guest's address; the guest answers.
    let socket = UdpSocket::bind((HOST, 0)).expect("a socket");
    socket.send_to(b"hello", (GUEST, GUEST_PORT)).expect("sent");
    let question = guest.next([8, 6]);
    let question = &question[HEADER_BYTES..];
    let host_mac = &question[6..12];
    let mut answer =
        [host_mac, &MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &MAC, &GUEST.octets(), host_mac, &HOST.octets()].concat();
    guest.send([0; HEADER_BYTES], &answer);

    // What waited comes, its checksum left to whoever needs one: that was agreed upon.
    let packet = guest.next([8, 0]);
    assert_eq!(packet[HEADER_BYTES + 42..], *b"hello");
    assert_eq!(packet[..HEADER_BYTES], [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 1, 0]);

    // The guest answers the same way, and the host takes it.
    let mut reply = packet[HEADER_BYTES..].to_vec();
    reply.copy_within(6..12, 0);
    reply[6..12].copy_from_slice(&MAC);
    reply[26..30].copy_from_slice(&GUEST.octets());
    reply[30..34].copy_from_slice(&HOST.octets());
    reply[34..36].copy_from_slice(&GUEST_PORT.to_be_bytes());
    reply[36..38].copy_from_slice(&socket.local_addr().expect("bound").port().to_be_bytes());
    reply[24..26].fill(0);
    let header_sum = !sum(&reply[14..34]);
    reply[24..26].copy_from_slice(&header_sum.to_be_bytes());
    // The part of the checksum that covers addresses, protocol and length; the rest is the host's work.
    let pseudo = [&reply[26..34], &[0, 17], &reply[38..40]].concat();
    reply[40..42].copy_from_slice(&sum(&pseudo).to_be_bytes());
    guest.send([1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0], &reply);
    let mut text = [0; 16];
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
    let (length, from) = socket.recv_from(&mut text).expect("an answer");
    assert_eq!((&text[..length], from), (&b"hello"[..], (GUEST, GUEST_PORT).into()));

    // Nobody else's: the host does not hear of it.
    answer[31] = 9;
    guest.send([0; HEADER_BYTES], &answer);
    assert_eq!(guest.card.refused_frames(), 1);
}
