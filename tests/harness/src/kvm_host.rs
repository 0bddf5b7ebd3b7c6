//! A machine that can run microVMs: this one where its KVM is usable, an emulated one where it is not.
//!
//! ```no_run
//! use harness::kvm_host::{KvmHost, Options};
//! # fn main() -> anyhow::Result<()> {
//! // Static programs: cargo build --profile guest --target x86_64-unknown-linux-musl -p kvm-host -p vmm …
//! let mut options = Options::new("target/x86_64-unknown-linux-musl/guest/vmm", "target/…/guest/kvm-host");
//! options.ports = vec![4020];
//! let host = KvmHost::start(&options)?;
//!
//! let crn = host.install("target/…/release/crn".as_ref(), "crn")?;           // a path inside
//! let output = host.run(&[&crn, "--version"])?.expect_success()?;            // to its end
//! let ccn = format!("http://{}:8000", host.outside());                       // this machine's loopback, from inside
//! let process = host.spawn("crn", &[&crn, "--listen", &host.listen(4020), "--ccn", &ccn])?;
//! process.wait_for_line(std::time::Duration::from_secs(60), |line| line.contains("ready"))?;
//! let url = format!("http://{}/", host.address(4020)?);                      // from outside
//! process.kill(9)?;                                                          // this process alone
//! # Ok(()) }
//! ```
//!
//! Everything is per host: paths are inside it ([`KvmHost::path`] makes one), ports are named by their
//! number inside and must be asked for in [`Options::ports`]. A host that was emulated is gone with the
//! value, and, however this process ends, with this process: the host powers off when the connection
//! that holds it ends. In a local host what was spawned is killed on drop.
//!
//! `BETH_KVM_HOST=emulated` or `local` chooses; without it `vmm probe` does.

mod emulated;
mod local;

use anyhow::{Context as _, Result, bail, ensure};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often a log or a process is looked at while something is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines of a log that errors show.
const SHOWN_LINES: usize = 40;

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The machine monitor, a static program: it finds out which kind of host is needed.
    pub vmm: PathBuf,
    /// The static program `kvm-host`, the emulated host's init.
    pub init: PathBuf,
    /// TCP ports inside that are to be reached from outside.
    pub ports: Vec<u16>,
    /// Read-only files that become `/dev/vdb`, `/dev/vdc`, … of an emulated host.
    pub disks: Vec<PathBuf>,
    /// Memory of an emulated host, MiB; taken from this machine as it is used.
    pub memory_mib: u32,
    /// Processors of an emulated host. With more than one it is faster where this machine has processors to
    /// spare, and falls over now and then: the kernel patches code that the others run (static keys of KVM and
    /// of the scheduler, at each machine that starts), and the emulator lets them see the breakpoint too late
    /// (`Oops: int3`, about one start in twenty).
    pub processors: u32,
    /// Which kind, instead of asking `vmm probe` and `BETH_KVM_HOST`.
    pub kind: Option<Kind>,
}

/// The kinds of host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine.
    Local,
    /// QEMU in pure emulation.
    Emulated,
}

impl Options {
    /// A host with four GiB and one processor, nothing forwarded.
    #[must_use]
    pub fn new(vmm: impl Into<PathBuf>, init: impl Into<PathBuf>) -> Self {
        Self {
            vmm: vmm.into(),
            init: init.into(),
            ports: Vec::new(),
            disks: Vec::new(),
            memory_mib: 4096,
            processors: 1,
            kind: None,
        }
    }
}

/// A machine that can run microVMs.
#[derive(Debug)]
pub struct KvmHost {
    inner: Inner,
    /// Of what was spawned in it.
    names: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
enum Inner {
    Local(local::Local),
    Emulated(emulated::Emulated),
}

/// How a program ended that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `exit 0`, `signal 9`.
    pub status: String,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its exit code, or -1 after a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.strip_prefix("exit ").and_then(|code| code.parse().ok()).unwrap_or(-1)
    }

    /// Itself, unless the program failed.
    ///
    /// # Errors
    /// It failed; the error shows what it wrote.
    pub fn expect_success(self) -> Result<Self> {
        if self.code() != 0 {
            let stderr = String::from_utf8_lossy(&self.stderr).into_owned();
            bail!("it ended with {}:\n{}{stderr}", self.status, self.text());
        }
        Ok(self)
    }
}

/// A process of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: u32,
    /// Its parent's.
    pub parent: u32,
    /// Program and arguments, by spaces.
    pub command: String,
}

/// A program that was spawned in a host. It is not killed on drop: its host's end is its own.
#[derive(Debug)]
pub struct HostProcess<'a> {
    host: &'a KvmHost,
    id: u32,
    stdout: String,
    stderr: String,
}

impl KvmHost {
    /// Starts a host: about five seconds where it is emulated.
    ///
    /// # Errors
    /// QEMU is missing, its image cannot be built, or the host does not come up; the error shows its console.
    pub fn start(options: &Options) -> Result<Self> {
        let inner = match kind(options)? {
            Kind::Local => Inner::Local(local::Local::start()?),
            Kind::Emulated => Inner::Emulated(emulated::Emulated::start(options)?),
        };
        Ok(Self { inner, names: Mutex::default() })
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.inner {
            Inner::Local(_) => Kind::Local,
            Inner::Emulated(_) => Kind::Emulated,
        }
    }

    /// The process of the emulator; nothing for a local host.
    #[must_use]
    pub fn emulator(&self) -> Option<u32> {
        match &self.inner {
            Inner::Local(_) => None,
            Inner::Emulated(host) => Some(host.process()),
        }
    }

    /// A path inside for a file or folder of that name: below `/srv`, or a scratch folder of this machine.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        match &self.inner {
            Inner::Local(host) => host.folder().join(name).display().to_string(),
            Inner::Emulated(_) => format!("/srv/{name}"),
        }
    }

    /// The address of this machine's loopback as the host sees it: for URLs of servers that run outside.
    #[must_use]
    pub fn outside(&self) -> &'static str {
        match &self.inner {
            Inner::Local(_) => "127.0.0.1",
            Inner::Emulated(_) => "10.0.2.2",
        }
    }

    /// Where a server inside listens so that it is reached at [`Self::address`]: `ADDR:PORT`.
    #[must_use]
    pub fn listen(&self, port: u16) -> String {
        match &self.inner {
            Inner::Local(_) => format!("127.0.0.1:{port}"),
            Inner::Emulated(_) => format!("0.0.0.0:{port}"),
        }
    }

    /// Where a port inside is reached from this machine: `127.0.0.1:PORT`.
    ///
    /// # Errors
    /// The port is not among [`Options::ports`].
    pub fn address(&self, port: u16) -> Result<String> {
        match &self.inner {
            Inner::Local(_) => Ok(format!("127.0.0.1:{port}")),
            Inner::Emulated(host) => host.address(port),
        }
    }

    /// Copies a file of this machine into the host and makes it executable; returns its path inside.
    ///
    /// # Errors
    /// It cannot be read, or not be written there.
    pub fn install(&self, file: &Path, name: &str) -> Result<String> {
        let path = self.path(name);
        let mut content = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        match &self.inner {
            Inner::Local(host) => host.write(&path, &mut content)?,
            Inner::Emulated(host) => host.write(&path, &mut content)?,
        }
        Ok(path)
    }

    /// Makes a file with that content; returns its path inside.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, mut content: &[u8]) -> Result<String> {
        let path = self.path(name);
        match &self.inner {
            Inner::Local(host) => host.write(&path, &mut content)?,
            Inner::Emulated(host) => host.write(&path, &mut content)?,
        }
        Ok(path)
    }

    /// Reads a file from an offset to its end.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, path: &str, offset: u64) -> Result<Vec<u8>> {
        match &self.inner {
            Inner::Local(host) => host.read(path, offset),
            Inner::Emulated(host) => host.read(path, offset),
        }
    }

    /// Runs a program to its end. An emulated host has busybox's commands too (`sh`, `ip`, `ls`, …).
    ///
    /// # Errors
    /// It does not start. That it fails is an [`Output`].
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_with(&[], arguments)
    }

    /// Like [`Self::run`], with variables `NAME=value` in the environment.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with(&self, variables: &[&str], arguments: &[&str]) -> Result<Output> {
        match &self.inner {
            Inner::Local(host) => host.run(variables, arguments),
            Inner::Emulated(host) => host.run(variables, arguments),
        }
        .with_context(|| format!("running {}", arguments.join(" ")))
    }

    /// What a script of the shell writes.
    ///
    /// # Errors
    /// It fails.
    pub fn shell(&self, script: &str) -> Result<String> {
        Ok(self.run(&["sh", "-c", script])?.expect_success()?.text())
    }

    /// Starts a program that goes on; its output goes to `logs/NAME.out` and `logs/NAME.err`.
    ///
    /// # Errors
    /// It does not start, or another was started by that name: who waits for a line would take the other's for it.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Result<HostProcess<'_>> {
        self.spawn_with(name, &[], arguments)
    }

    /// Like [`Self::spawn`], with variables `NAME=value` in the environment.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_with(&self, name: &str, variables: &[&str], arguments: &[&str]) -> Result<HostProcess<'_>> {
        let is_new = self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        ensure!(is_new, "another program of this host is called {name:?}: its log would be that of both");
        let (stdout, stderr) = (self.path(&format!("logs/{name}.out")), self.path(&format!("logs/{name}.err")));
        let id = match &self.inner {
            Inner::Local(host) => host.spawn(variables, arguments, &stdout, &stderr),
            Inner::Emulated(host) => host.spawn(variables, arguments, &stdout, &stderr),
        }
        .with_context(|| format!("starting {}", arguments.join(" ")))?;
        Ok(HostProcess { host: self, id, stdout, stderr })
    }

    /// Sends a signal to one process of the host.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&self, process: u32, signal: u32) -> Result<()> {
        match &self.inner {
            Inner::Local(host) => host.kill(process, signal),
            Inner::Emulated(host) => host.kill(process, signal),
        }
    }

    /// The processes of the host that have a command line. In a local host: of this whole machine.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn processes(&self) -> Result<Vec<Listed>> {
        let list = match &self.inner {
            Inner::Local(host) => host.processes()?,
            Inner::Emulated(host) => host.processes()?,
        };
        Ok(parse_processes(&list))
    }

    /// The processes that descend from this one, itself not among them.
    ///
    /// # Errors
    /// As [`Self::processes`].
    pub fn descendants(&self, of: u32) -> Result<Vec<Listed>> {
        let mut rest = self.processes()?;
        let mut family = vec![of];
        let mut found = Vec::new();
        loop {
            let (children, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|process| family.contains(&process.parent));
            if children.is_empty() {
                return Ok(found);
            }
            family = children.iter().map(|process| process.id).collect();
            found.extend(children);
            rest = others;
        }
    }

    /// Names of the network interfaces of the host.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn network_interfaces(&self) -> Result<Vec<String>> {
        let output = self.run(&["ls", "/sys/class/net"])?.expect_success()?;
        Ok(output.text().split_whitespace().map(str::to_owned).collect())
    }

    /// What the emulated host's console said so far; empty for a local one.
    #[must_use]
    pub fn console(&self) -> String {
        match &self.inner {
            Inner::Local(_) => String::new(),
            Inner::Emulated(host) => host.console(),
        }
    }
}

impl HostProcess<'_> {
    /// Its process id inside.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sends it a signal: it alone, not its children.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self, signal: u32) -> Result<()> {
        self.host.kill(self.id, signal)
    }

    /// Nothing while it runs, else how it ended (`exit 0`, `signal 9`).
    ///
    /// # Errors
    /// The host does not answer.
    pub fn status(&self) -> Result<Option<String>> {
        let state = match &self.host.inner {
            Inner::Local(host) => host.state(self.id)?,
            Inner::Emulated(host) => host.state(self.id)?,
        };
        Ok((state != "running").then_some(state))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs when the time is over; the error shows its log.
    pub fn wait(&self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("still running after {limit:?}; it logged:\n{}", self.log_end());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// It does not end in time, or not with status 0.
    pub fn terminate(&self, limit: Duration) -> Result<()> {
        self.kill(15)?;
        match self.wait(limit)?.as_str() {
            "exit 0" => Ok(()),
            status => bail!("it ended with {status}:\n{}", self.log_end()),
        }
    }

    /// Waits for a line on its standard output; returns it.
    ///
    /// # Errors
    /// It ended or the time is over; the error shows its log.
    pub fn wait_for_line(&self, limit: Duration, is_it: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            // Asked before its output is read: what an ended program said is all there.
            let status = self.status()?;
            let text = self.stdout()?;
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(line) = whole.lines().find(|line| is_it(line)) {
                return Ok(line.to_owned());
            }
            match status {
                Some(status) => bail!("it ended ({status}); it said {text:?} and logged:\n{}", self.log_end()),
                None if Instant::now() >= deadline => {
                    bail!("not there after {limit:?}; it said {text:?} and logged:\n{}", self.log_end())
                }
                None => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Its standard output so far (of all programs that were spawned under its name).
    ///
    /// # Errors
    /// The host does not answer.
    pub fn stdout(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.host.read(&self.stdout, 0)?).into_owned())
    }

    /// Its standard error so far, likewise: where programs log.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.host.read(&self.stderr, 0)?).into_owned())
    }

    /// The last lines of its log, for errors.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = self.log().unwrap_or_else(|error| format!("(no log: {error})"));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

/// Which kind of host: as told, else what `vmm probe` finds.
fn kind(options: &Options) -> Result<Kind> {
    if let Some(kind) = options.kind {
        return Ok(kind);
    }
    match std::env::var("BETH_KVM_HOST").as_deref() {
        Ok("local") => return Ok(Kind::Local),
        Ok("emulated") => return Ok(Kind::Emulated),
        Ok("") | Err(_) => {}
        Ok(other) => bail!("BETH_KVM_HOST is `local` or `emulated`, not {other:?}"),
    }
    let probe = Command::new(&options.vmm)
        .arg("probe")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", options.vmm.display()))?;
    Ok(if probe.status.success() { Kind::Local } else { Kind::Emulated })
}

fn parse_processes(list: &str) -> Vec<Listed> {
    list.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ' ');
            let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(Listed { id, parent, command: fields.next()?.to_owned() })
        })
        .collect()
}

/// A secret that nobody guesses, in hex.
fn secret() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; kvm_host::protocol::SECRET_BYTES / 2];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> KvmHost {
        let options = Options { kind: Some(Kind::Local), ..Options::new("/nonexistent", "/nonexistent") };
        KvmHost::start(&options).expect("this machine is there")
    }

    #[test]
    fn programs_run_in_a_local_host_as_in_an_emulated_one() {
        let host = local();
        let output = host.run_with(&["GREETING=hello"], &["sh", "-c", "echo $GREETING; exit 3"]).expect("it runs");
        assert_eq!((output.text().as_str(), output.code()), ("hello\n", 3));
        assert!(output.expect_success().expect_err("3 is no success").to_string().contains("hello"));
        assert!(host.run(&["/no/such/program"]).is_err());
        let path = host.write("deep/file", b"content").expect("written");
        assert_eq!(host.read(&path, 3).expect("read"), b"tent");
        assert_eq!(host.listen(7), host.address(7).expect("any port"));
    }

    #[test]
    fn what_was_spawned_is_watched_and_gone_with_the_host() {
        let host = local();
        // It is up once its child is another program than itself.
        let script =
            "sleep 4714 & until grep -q sleep /proc/$!/comm; do sleep 0.01; done; echo oops >&2; echo up; wait";
        let process = host.spawn("sleeper", &["sh", "-c", script]).expect("it starts");
        assert!(host.spawn("sleeper", &["true"]).is_err(), "whose line would be awaited?");
        let up = process.wait_for_line(Duration::from_secs(10), |line| line == "up").expect("it says so");
        assert_eq!((up.as_str(), process.status().expect("asked")), ("up", None));
        assert!(process.log_end().contains("oops"));
        let children = host.descendants(process.id()).expect("a list");
        let sleep = children.iter().find(|child| child.command == "sleep 4714").expect("its child").id;
        assert!(process.wait(Duration::from_millis(100)).is_err());
        process.kill(9).expect("it is there");
        assert_eq!(process.wait(Duration::from_secs(10)).expect("it ends"), "signal 9");
        assert!(process.wait_for_line(Duration::from_secs(1), |line| line == "more").is_err());
        // Killed alone, it left its child; that one is not ours to find at the end.
        host.kill(sleep, 9).expect("it is there");
        let other = host.spawn("other", &["sh", "-c", "exec sleep 4715"]).expect("it starts").id();
        drop(host);
        assert!(!Path::new(&format!("/proc/{other}")).exists());
    }

    #[test]
    fn processes_are_read_from_lines() {
        let listed = parse_processes("1 0 /init agent\n77 1 sh -c a b\nnot a line\n");
        assert_eq!(listed.len(), 2);
        assert_eq!((listed[1].id, listed[1].parent, listed[1].command.as_str()), (77, 1, "sh -c a b"));
        assert_eq!(parse_processes(""), []);
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (secret().expect("entropy"), secret().expect("entropy"));
        assert_eq!(one.len(), kvm_host::protocol::SECRET_BYTES);
        assert_ne!(one, other);
    }
}
