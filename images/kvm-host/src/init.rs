//! The first process of the emulated host: mounts, modules, network, agent; then it reaps orphans until
//! the agent has ended, and powers off.

use crate::protocol::SECRET_BYTES;
use rustix::{
    mount::{MountFlags, mount, mount_bind, mount_move},
    process::{Pid, Resource, Rlimit, WaitOptions, chdir, chroot, setrlimit},
    system::{RebootCommand, finit_module, reboot},
};
use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _},
    process::{Command, ExitCode, Stdio},
};

/// The word that makes this program the agent.
pub const AGENT: &str = "agent";
/// The disk that begins with the secret.
const SECRET_DISK: &str = "/dev/vda";
/// Modules in the order that they are loaded in.
const MODULE_LIST: &str = "/lib/modules/order";
/// QEMU's user network.
const NETWORK: [&str; 4] =
    ["link set lo up", "link set eth0 up", "addr add 10.0.2.15/24 dev eth0", "route add default via 10.0.2.2"];

/// Descriptors that a program may have open, as the units of our nodes say: by itself the kernel gives 4096, which are 450 machines.
const DESCRIPTORS: u64 = 1 << 20;

/// What is mounted: type, where, options.
const MOUNTS: [(&str, &str, &str); 8] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=755"),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777"),
    // Programs and their data: as much as the machine has.
    ("tmpfs", "/srv", "mode=755,size=90%"),
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// The life of the host. Comes back only when powering off fails.
#[must_use]
pub fn run() -> ExitCode {
    tell("mount the root", mount_root());
    for (kind, path, options) in MOUNTS {
        tell(&format!("mount {path}"), mount_at(kind, path, options));
    }
    tell("load modules", load_modules());
    let descriptors = Rlimit { current: Some(1024), maximum: Some(DESCRIPTORS) };
    tell("raise the limit of descriptors", setrlimit(Resource::Nofile, descriptors).map_err(io::Error::from));
    for arguments in NETWORK {
        tell(&format!("ip {arguments}"), ip(arguments));
    }
    // Devices of modules that were just loaded are there: loading waits for them.
    match agent() {
        Ok(agent) => reap_until(agent),
        Err(error) => tell("start the agent", Err(error)),
    }
    rustix::fs::sync();
    tell("power off", reboot(RebootCommand::PowerOff).map_err(io::Error::from));
    ExitCode::FAILURE
}

/// The secret that orders must begin with.
///
/// # Errors
/// The disk is not there.
pub fn read_secret() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    File::open(SECRET_DISK)?.read_exact(&mut bytes)?;
    String::from_utf8(bytes.to_vec()).map_err(io::Error::other)
}

/// What fails is told on the console; a host that lacks a piece is still one that can be looked into.
fn tell(what: &str, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        eprintln!("kvm-host: cannot {what}: {error}");
    }
}

/// Makes the root a mount of its own, as it is in other hosts. The initramfs itself cannot be left for another root
/// (pivot_root(2)), which is what machine monitors do.
fn mount_root() -> io::Result<()> {
    const PLACE: &str = "/root-mount";
    fs::create_dir_all(PLACE)?;
    mount_bind("/", PLACE)?;
    chdir(PLACE)?;
    mount_move(".", "/")?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn mount_at(kind: &str, path: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let data = CString::new(options).map_err(io::Error::other)?;
    let options = (!options.is_empty()).then_some(data.as_c_str());
    Ok(mount(kind, path, kind, MountFlags::empty(), options)?)
}

fn load_modules() -> io::Result<()> {
    for path in fs::read_to_string(MODULE_LIST)?.lines() {
        let file = File::open(path)?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => tell(&format!("load {path}"), Err(error.into())),
        }
    }
    Ok(())
}

fn ip(arguments: &str) -> io::Result<()> {
    let status = Command::new("/bin/ip").args(arguments.split(' ')).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}

fn agent() -> io::Result<Pid> {
    let child = Command::new("/init")
        .arg(AGENT)
        .env_clear()
        .env("PATH", "/bin:/sbin")
        .env("HOME", "/root")
        .current_dir("/")
        .stdin(Stdio::null())
        .spawn()?;
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process id"))
}

/// Reaps whatever ends, up to the agent.
fn reap_until(agent: Pid) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((ended, _))) if ended == agent => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tell("wait for children", Err(error.into()));
                return;
            }
        }
    }
}
