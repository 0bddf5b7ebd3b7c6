//! The messages themselves.

use alloc::{string::String, vec::Vec};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Host to guest, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a guest receives two commands in its life, each used at once")]
pub enum Command {
    /// What every program of a runtime needs: mounts the root. First, and once per life of a guest.
    Prepare(Preparation),
    /// What to run. Once per life of a guest.
    Configure(Configuration),
    /// Close the control and log streams and ring [`crate::doorbell::FREEZE`]: after [`Event::Prepared`], or after [`Event::Ready`]
    /// while no call is under way. Then the guest is greeted anew.
    Freeze,
    /// End the program (SIGTERM, then SIGKILL after the grace), sync, unmount, ring
    /// [`crate::doorbell::EXIT`].
    Shutdown {
        /// How long the program may take, milliseconds.
        grace_ms: u32,
    },
}

/// Guest to host, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first frame of every control stream.
    Hello {
        /// [`crate::VERSION`] of the guest.
        version: u16,
    },
    /// The root is mounted: the guest can become any program of its runtime.
    Prepared,
    /// The program runs; it may not listen yet.
    Started,
    /// The program listens: [`crate::HTTP_PORT`] reaches it.
    Ready,
    /// The guest could not do what it was configured to.
    Failed(Failure),
    /// The program ended by itself. The guest rings [`crate::doorbell::EXIT`] next.
    Exited {
        /// Exit code, or 128 + signal number as shells count.
        status: u8,
    },
}

/// Why a program could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub stage: Stage,
    /// One sentence for the program's author.
    pub error: String,
    /// The program's own traceback, empty when there is none. At most [`MAX_TRACEBACK_BYTES`].
    pub traceback: String,
}

/// Longest traceback that a guest reports, bytes; what is longer keeps its end.
pub const MAX_TRACEBACK_BYTES: usize = 256 * 1024;

/// The steps from configuration to a listening program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// A root, code or volume device does not mount.
    Mount,
    /// The code archive does not unpack: damaged, hostile or larger than allowed.
    Unpack,
    /// The network could not be set up.
    Network,
    /// The program does not start: no such entry point, import error, failing startup hook.
    Start,
}

/// What a guest can be told before it is known which program it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// The read-only root file system of the runtime.
    pub root: Device,
}

/// Everything a guest needs to know to become one program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Host name, and `ALEPH_ADDRESS_TO_USE`: the base32 label of the item hash.
    pub hostname: String,
    /// Wall clock, microseconds since 1970.
    pub wall_time_us: u64,
    /// Entropy for the kernel's generator, given before anything else runs.
    pub seed: [u8; 32],
    /// The program's code.
    pub code: Code,
    /// How the code is run.
    pub program: Program,
    /// Arguments of the entry point.
    pub arguments: Vec<String>,
    /// Environment of the program.
    pub variables: Vec<(String, String)>,
    /// A zip of data that is unpacked to `/data`.
    pub data: Option<Device>,
    /// Further volumes, in mount order.
    pub volumes: Vec<Volume>,
    /// Keys for `/root/.ssh/authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Who is asked for names. Empty leaves the runtime's own `/etc/resolv.conf`.
    pub name_servers: Vec<IpAddr>,
    /// The guest's place in the network; none for one that has loopback only.
    pub network: Option<Network>,
}

/// A guest's place in the network: what its card `eth0` is called there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its private address.
    pub ipv4: Link,
    /// Its public address, where it has one.
    pub ipv6: Option<Link>,
}

/// An address, and the way from it to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The guest's own.
    pub address: IpAddr,
    /// How many bits of it are the network's.
    pub prefix_bits: u8,
    /// The host's, in the same network.
    pub gateway: IpAddr,
}

/// A block device of the guest, by its position: 0 is `/dev/vda`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Position among the virtio block devices.
    pub index: u8,
    /// Length of what it holds, bytes: devices end at a multiple of 512, files do not.
    pub length_bytes: u64,
}

/// Where the code is and in what form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// The device that holds it.
    pub device: Device,
    /// Its form there.
    pub encoding: Encoding,
    /// `module.path:attribute` for ASGI, else a path inside the code.
    pub entrypoint: String,
}

/// How code is packed (crn spec section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// One plain file: a Python source, or the executable itself.
    Plain,
    /// A zip archive.
    Zip,
    /// A file system image, mounted read-only.
    Squashfs,
}

/// The kinds of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A Python ASGI application, served on a local socket by the runtime's ASGI server.
    Asgi,
    /// An executable that serves HTTP on TCP port 8080.
    Binary,
}

/// A volume and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The device.
    pub device: Device,
    /// Absolute path of the mount point.
    pub mount: String,
    /// True for a file system that is mounted read-only.
    pub read_only: bool,
}

/// One piece of output of the program, on the log stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Where it was printed.
    pub source: LogSource,
    /// Wall clock when init read it, microseconds since 1970.
    pub wall_time_us: u64,
    /// What was printed, at most [`MAX_LOG_BYTES`].
    pub bytes: Vec<u8>,
    /// Bytes thrown away before this record because the host read too slowly.
    pub dropped_bytes: u64,
}

/// Longest piece of output in one record, bytes.
pub const MAX_LOG_BYTES: usize = 16 * 1024;

/// Who printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSource {
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
    /// Init itself.
    Init,
}
