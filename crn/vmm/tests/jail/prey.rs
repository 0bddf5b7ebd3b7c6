//! What the acts aim at: another machine's monitor, and services of the host.

use crate::{PART, Part, Supervisor};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, BufRead as _, BufReader, Read as _},
    net::TcpListener,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
};

/// What is in the other monitor's memory.
pub(crate) const SECRET: u64 = 0x5ec2_e7a1_1ce0_b0b5;

/// A number that a descriptor is open under that nobody has closed.
pub(crate) const LEFT_OPEN: i32 = 50;

/// Where to find it all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prey {
    /// The other monitor.
    pub(crate) process: i32,
    /// Where [`SECRET`] is in its memory.
    pub(crate) secret: usize,
    /// Its System V shared memory.
    pub(crate) shared_memory: i32,
    /// A folder that everybody may write to.
    pub(crate) folder: PathBuf,
    /// A socket in it.
    pub(crate) socket: PathBuf,
    /// A socket that has a name and no path.
    pub(crate) name: String,
    /// A TCP port of the host's loopback.
    pub(crate) port: u16,
    /// The host's name.
    pub(crate) host_name: String,
}

/// The prey, as long as this is there.
#[derive(Debug)]
pub(crate) struct Hunt {
    pub(crate) prey: Prey,
    process: Child,
    _folder: tempfile::TempDir,
    _listeners: (UnixListener, UnixListener, TcpListener),
}

impl Hunt {
    pub(crate) fn start(supervisor: Supervisor) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))?;
        let socket = folder.path().join("socket");
        let by_path = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777))?;
        let name = format!("beth-test-jail-{}-{}", std::process::id(), supervisor.name());
        let by_name = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let mut process = Command::new(std::env::current_exe()?)
            .env(PART, serde_json::to_string(&Part::Prey { supervisor })?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let (secret, shared_memory) = serde_json::from_str(&line)?;
        let prey = Prey {
            process: i32::try_from(process.id()).map_err(io::Error::other)?,
            secret,
            shared_memory,
            folder: folder.path().to_owned(),
            socket,
            name,
            port: tcp.local_addr()?.port(),
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        Ok(Self { prey, process, _folder: folder, _listeners: (by_path, by_name, tcp) })
    }
}

impl Drop for Hunt {
    fn drop(&mut self) {
        // It ends when its standard input does, and removes what it shares.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The other monitor: has a secret, and waits until standard input ends.
#[expect(clippy::print_stdout, reason = "the test reads it")]
pub(crate) fn wait_as_prey() -> ExitCode {
    let secret = Box::new(SECRET);
    // Where Yama is strict, the acts outside of the jail are let through as well.
    // SAFETY: a number.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
    // SAFETY: three numbers.
    let shared = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o666) };
    println!("[{}, {shared}]", &raw const *secret as usize);
    let _ = io::stdin().read_to_end(&mut Vec::new());
    // SAFETY: removes what was made above; no structure is taken.
    unsafe { libc::shmctl(shared, libc::IPC_RMID, std::ptr::null_mut()) };
    drop(secret);
    ExitCode::SUCCESS
}

/// Leaves a descriptor open as whoever started a supervisor may have.
pub(crate) fn leave_descriptor_open() -> io::Result<()> {
    let file = std::fs::File::open("/dev/null")?;
    // SAFETY: nothing has that number in a process that has just begun, and nothing here takes it for its own.
    match unsafe { libc::dup2(file.as_raw_fd(), LEFT_OPEN) } {
        LEFT_OPEN => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
