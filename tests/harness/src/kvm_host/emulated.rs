//! The emulated host: QEMU around Debian's kernel and our init, orders over a forwarded port.

use super::{Options, Output, secret};
use anyhow::{Context as _, Result, anyhow, bail};
use images::{Cache, KvmHostImage};
use kvm_host::{
    agent::{OrderError, order},
    protocol::{AGENT_PORT, Frame, Order, Program, READY_LINE},
};
use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const QEMU: &str = "qemu-system-x86_64";
/// How long the host may take to come up; a busy machine needs several times its usual five seconds.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// How often a start is tried: another program may take a port between choosing and using it.
const ATTEMPTS: usize = 3;
/// Most of the console that is kept, bytes.
const CONSOLE_MAX_BYTES: usize = 1 << 20;
const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 quiet loglevel=3 panic=-1 reboot=k random.trust_cpu=on mitigations=off";

/// A running emulator. It is killed on drop.
#[derive(Debug)]
pub(super) struct Emulated {
    qemu: Mutex<Child>,
    /// Ends the host when it ends, even if this process is killed.
    _hold: TcpStream,
    secret: String,
    /// Port inside to port outside.
    ports: HashMap<u16, u16>,
    console: Arc<Mutex<String>>,
    _scratch: TempDir,
}

impl Emulated {
    pub(super) fn start(options: &Options) -> Result<Self> {
        let image = Cache::open()?.kvm_host(&options.init, &())?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::try_start(options, &image) {
                Ok(host) => return Ok(host),
                Err(error) if error.to_string().contains("forward") => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow!("no attempt was made")))
    }

    fn try_start(options: &Options, image: &KvmHostImage) -> Result<Self> {
        let scratch = tempfile::tempdir().context("no scratch folder")?;
        let secret = secret()?;
        let secret_disk = scratch.path().join("secret");
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&secret_disk)?;
        file.write_all(secret.as_bytes())?;
        file.set_len(512)?;

        let ports = choose_ports(&options.ports)?;
        let mut qemu = Command::new(QEMU)
            .args(arguments(options, image, &secret_disk, &ports))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at a terminal is for the one who started us; what then happens here is in order.
            .process_group(0)
            .spawn()
            .map_err(|error| anyhow!("cannot start {QEMU}: {error} (apt-get install qemu-system-x86)"))?;
        let console = Arc::new(Mutex::new(String::new()));
        let ready = match (qemu.stdout.take(), qemu.stderr.take()) {
            (Some(stdout), Some(mut stderr)) => {
                let complaints = console.clone();
                thread::spawn(move || {
                    let mut text = String::new();
                    let _ = stderr.read_to_string(&mut text);
                    keep(&complaints, &text);
                });
                watch_console(stdout, console.clone())
            }
            _ => bail!("the pipes were just asked for"),
        };
        let mut qemu = Unready(Some(qemu));
        qemu.wait_until(&ready, &console)?;

        let hold = connect(&ports)?;
        order(&hold, &secret, &Order::Hold, None, |_| {}).context("the host cannot be held")?;
        let qemu = qemu.0.take().context("it was just there")?;
        Ok(Self { qemu: Mutex::new(qemu), _hold: hold, secret, ports, console, _scratch: scratch })
    }

    pub(super) fn process(&self) -> u32 {
        lock(&self.qemu).id()
    }

    pub(super) fn console(&self) -> String {
        lock(&self.console).clone()
    }

    pub(super) fn address(&self, port: u16) -> Result<String> {
        let outside =
            self.ports.get(&port).with_context(|| format!("port {port} was not asked for in Options::ports"))?;
        Ok(format!("127.0.0.1:{outside}"))
    }

    pub(super) fn write(&self, path: &str, content: &mut dyn Read) -> Result<()> {
        let order = Order::Write { path: path.to_owned(), mode: 0o755 };
        self.order(&order, Some(content), |_| {}).map(drop)
    }

    pub(super) fn read(&self, path: &str, offset: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.order(&Order::Read { path: path.to_owned(), offset }, None, |frame| {
            if let Frame::Stdout(bytes) = frame {
                content.extend_from_slice(bytes);
            }
        })?;
        Ok(content)
    }

    pub(super) fn run(&self, variables: &[&str], arguments: &[&str]) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = self.order(&Order::Run(program(variables, arguments)), None, |frame| match frame {
            Frame::Stdout(bytes) => stdout.extend_from_slice(bytes),
            Frame::Stderr(bytes) => stderr.extend_from_slice(bytes),
            Frame::Done(_) | Frame::Failed(_) => {}
        })?;
        Ok(Output { status, stdout, stderr })
    }

    pub(super) fn spawn(&self, variables: &[&str], arguments: &[&str], stdout: &str, stderr: &str) -> Result<u32> {
        let program = program(variables, arguments);
        let order = Order::Spawn { program, stdout: stdout.to_owned(), stderr: stderr.to_owned() };
        Ok(self.order(&order, None, |_| {})?.parse()?)
    }

    pub(super) fn kill(&self, process: u32, signal: u32) -> Result<()> {
        self.order(&Order::Kill { process, signal }, None, |_| {}).map(drop)
    }

    pub(super) fn state(&self, process: u32) -> Result<String> {
        self.order(&Order::State { process }, None, |_| {})
    }

    pub(super) fn processes(&self) -> Result<String> {
        let mut list = Vec::new();
        self.order(&Order::Processes, None, |frame| {
            if let Frame::Stdout(bytes) = frame {
                list.extend_from_slice(bytes);
            }
        })?;
        Ok(String::from_utf8_lossy(&list).into_owned())
    }

    fn order(&self, what: &Order, body: Option<&mut dyn Read>, take: impl FnMut(&Frame)) -> Result<String> {
        let stream = connect(&self.ports).map_err(|error| self.explain(&format!("{error:#}")))?;
        order(&stream, &self.secret, what, body, take).map_err(|error| match error {
            OrderError::Failed(reason) => anyhow!(reason),
            OrderError::Protocol(error) => self.explain(&error.to_string()),
        })
    }

    /// Why the host does not answer: what became of the emulator, and what the console said last.
    fn explain(&self, reason: &str) -> anyhow::Error {
        // An emulator that ends takes a moment to be gone.
        thread::sleep(Duration::from_millis(200));
        let emulator = match lock(&self.qemu).try_wait() {
            Ok(Some(status)) => format!("{QEMU} ended ({status})"),
            Ok(None) => format!("{QEMU} runs"),
            Err(error) => error.to_string(),
        };
        anyhow!("the emulated host does not answer: {reason}; {emulator}; its console said:\n{}", self.console())
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // Nothing in it is to be kept. Already gone is as good.
        let mut qemu = lock(&self.qemu);
        let _ = qemu.kill();
        let _ = qemu.wait();
    }
}

/// An emulator whose host is not up yet; killed on drop.
struct Unready(Option<Child>);

impl Unready {
    fn wait_until(&mut self, ready: &mpsc::Receiver<()>, console: &Mutex<String>) -> Result<()> {
        let deadline = Instant::now() + UP_WITHIN;
        loop {
            match ready.recv_timeout(Duration::from_millis(100)) {
                Ok(()) => return Ok(()),
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the emulated host was not up after {UP_WITHIN:?}; its console:\n{}", lock(console));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.0.as_mut().map(Child::wait).transpose()?;
                    // The other pipe's last words.
                    thread::sleep(Duration::from_millis(100));
                    let status = status.map(|status| status.to_string()).unwrap_or_default();
                    bail!("{QEMU} ended ({status}) before its host was up:\n{}", lock(console));
                }
            }
        }
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(qemu) = &mut self.0 {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

fn arguments(options: &Options, image: &KvmHostImage, secret: &Path, ports: &HashMap<u16, u16>) -> Vec<String> {
    let mut arguments: Vec<String> = [
        // A single address space of translated code for the host, its guests and their guests.
        ["-accel", "tcg,thread=multi,tb-size=1024"],
        ["-machine", "q35,kernel-irqchip=off"],
        // Without ERMS: with it kernels clear and copy memory by the byte, and the emulator carries out each
        // byte by itself. Without it they do so eight bytes at a time: guests start in half the time.
        ["-cpu", "max,-erms"],
        ["-append", KERNEL_COMMAND_LINE],
        ["-serial", "stdio"],
        ["-monitor", "none"],
        ["-display", "none"],
        ["-device", "virtio-rng-pci"],
    ]
    .into_iter()
    .flatten()
    .map(str::to_owned)
    .collect();
    arguments.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    add("-m", options.memory_mib.to_string());
    add("-smp", options.processors.to_string());
    add("-kernel", image.kernel.display().to_string());
    add("-initrd", image.initramfs.display().to_string());
    let mut network = "user,id=net".to_owned();
    for (inside, outside) in ports {
        network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{outside}-:{inside}"));
    }
    add("-netdev", network);
    add("-device", "virtio-net-pci,netdev=net,romfile=".to_owned());
    let disks = [secret].into_iter().chain(options.disks.iter().map(std::path::PathBuf::as_path));
    for disk in disks {
        // A comma in a path is written twice.
        let path = disk.display().to_string().replace(',', ",,");
        add("-drive", format!("file={path},format=raw,readonly=on,if=virtio"));
    }
    arguments
}

/// A free port outside for each port inside, and for the agent.
fn choose_ports(wanted: &[u16]) -> Result<HashMap<u16, u16>> {
    // All are held until all are chosen, so that they differ.
    let mut held = Vec::new();
    let mut ports = HashMap::new();
    for inside in wanted.iter().copied().chain([AGENT_PORT]) {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        ports.insert(inside, listener.local_addr()?.port());
        held.push(listener);
    }
    Ok(ports)
}

fn connect(ports: &HashMap<u16, u16>) -> Result<TcpStream> {
    let port = ports.get(&AGENT_PORT).copied().context("the agent's port is always forwarded")?;
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn program(variables: &[&str], arguments: &[&str]) -> Program {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Program { arguments: own(arguments), variables: own(variables) }
}

/// Keeps what the console says, and tells when the host is ready.
fn watch_console(stdout: ChildStdout, console: Arc<Mutex<String>>) -> mpsc::Receiver<()> {
    let (sender, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains(READY_LINE) {
                let _ = sender.send(());
            }
            keep(&console, &format!("{}\n", line.trim_end()));
        }
    });
    ready
}

fn keep(console: &Mutex<String>, text: &str) {
    let mut console = lock(console);
    if console.len() + text.len() <= CONSOLE_MAX_BYTES {
        console.push_str(text);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
