//! What tests share, each part made when the first test asks for it: SDK, nodes, host, runtimes, programs.

use crate::leaks;
use anyhow::{Context as _, Result, anyhow, ensure};
use harness::{
    anvil::Anvil,
    devnet::{ComputeNode, ComputeSite, CoreNode, Program, User, wait_for_allocation, wait_for_verdict, zip},
    http::Client,
    installation::Installation,
    ipfs::IpfsProgram,
    kvm_host::{KvmHost, Options},
    process::kill_children,
    sdk::{Sdk, Session},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// Names the folder of [`cache`].
const CACHE_VARIABLE: &str = "BETH_CACHE";
/// Compute nodes that can be reached: the shared one and those that tests start for themselves.
const COMPUTE_NODES: usize = 30;
/// Credits of a test's user: years of every program here.
const CREDITS: u64 = 50_000_000_000;
/// Setting of a node whose monitors are counted: none waits for a machine.
pub(crate) const NONE_IN_ADVANCE: &str = "templates.monitors=0";
/// How long a verdict may take on a busy machine.
pub(crate) const VERDICT_WITHIN: Duration = Duration::from_secs(120);
/// How long a call may take when its program has to be booted first.
pub(crate) const COLD_WITHIN: Duration = Duration::from_secs(1200);

/// Everything that is shared.
pub(crate) struct Stage {
    installation: Installation,
    folder: PathBuf,
    core: OnceLock<Result<CoreNode, String>>,
    sdk: OnceLock<Result<Sdk, String>>,
    anvil: OnceLock<Result<PathBuf, String>>,
    ipfs: OnceLock<Result<IpfsProgram, String>>,
    session: OnceLock<Result<Session, String>>,
    /// The archive of the static HTTP server.
    binary: OnceLock<Result<PathBuf, String>>,
    network: OnceLock<Result<Network, String>>,
    files: Mutex<HashMap<String, String>>,
    programs: Mutex<HashMap<String, &'static OnceLock<Result<String, String>>>>,
    ports: Mutex<Vec<u16>>,
}

/// The nodes that programs run on.
pub(crate) struct Network {
    /// The host of the compute nodes.
    pub(crate) host: &'static KvmHost,
    /// The network interfaces that it had at first.
    interfaces: Vec<String>,
    /// Programs and images of compute nodes, in the host.
    pub(crate) site: ComputeSite<'static>,
    /// The core node, with the compute node linked.
    pub(crate) core: CoreNode,
    /// The shared compute node.
    pub(crate) compute: ComputeNode<'static>,
    /// Whose programs they are.
    pub(crate) user: User<'static>,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let installation = Installation::from_environment().unwrap_or_else(|_| Installation::at(""));
    let folder = installation.folder().parent().unwrap_or(Path::new("/tmp")).join("e2e");
    Stage {
        installation,
        folder,
        core: OnceLock::new(),
        sdk: OnceLock::new(),
        anvil: OnceLock::new(),
        ipfs: OnceLock::new(),
        session: OnceLock::new(),
        binary: OnceLock::new(),
        network: OnceLock::new(),
        files: Mutex::default(),
        programs: Mutex::default(),
        ports: Mutex::default(),
    }
});

static HOST: OnceLock<KvmHost> = OnceLock::new();

/// The host of the compute nodes, once a test has asked for it.
pub(crate) fn host() -> Option<&'static KvmHost> {
    HOST.get()
}

/// The top of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// A part that is made once; who comes later sees how that went.
pub(crate) fn once<T>(cell: &OnceLock<Result<T, String>>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    cell.get_or_init(|| make().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}

impl Stage {
    /// Whether there is an installation; empties the folder of logs.
    pub(crate) fn check() -> Result<()> {
        Installation::from_environment()?;
        let folder = &STAGE.folder;
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())
    }

    /// Ends everything that is shared, and finds out whether anything is left of it, where nothing but that can be there.
    pub(crate) fn end(all_passed: bool) -> Result<()> {
        let mut left = Ok(());
        if let Some(Ok(network)) = STAGE.network.get() {
            if let Ok(log) = network.compute.process().log() {
                let _ = fs::write(STAGE.folder.join("crn.log"), log);
            }
            let stopped = network.compute.stop();
            if all_passed {
                left = stopped.and_then(|()| leaks::check_end(network.host, &network.interfaces));
            }
            // Those of nodes that tests have started for themselves too.
            let logs = network.host.path("logs");
            let listed = network.host.run(&["ls", &logs]).map(|output| output.text()).unwrap_or_default();
            for name in listed.lines().filter(|name| name.ends_with(".err")) {
                if let Ok(log) = network.host.read(&format!("{logs}/{name}"), 0) {
                    let _ = fs::write(STAGE.folder.join(name), log);
                }
            }
        }
        // The rest needs no order: nothing of it is kept.
        kill_children();
        left
    }

    /// Where the logs are.
    pub(crate) fn logs() -> impl std::fmt::Display {
        STAGE.folder.display()
    }
}

/// What was built.
pub(crate) fn installation() -> &'static Installation {
    &STAGE.installation
}

/// An empty folder for one test, kept for its logs.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let folder = STAGE.folder.join(name);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Where clients, environments and images are kept.
pub(crate) fn cache() -> Result<PathBuf> {
    env::var_os(CACHE_VARIABLE).map(PathBuf::from).context("`cargo xtask test` names the cache")
}

/// The official SDK.
pub(crate) fn sdk() -> Result<&'static Sdk> {
    once(&STAGE.sdk, || Sdk::install(&cache()?, &repository().join("tests/both/sdk")))
}

/// The program of a development chain.
pub(crate) fn anvil() -> Result<PathBuf> {
    once(&STAGE.anvil, || Anvil::install(&cache()?, &repository().join("tests/ccn/evm"))).cloned()
}

/// The program of an IPFS node.
pub(crate) fn ipfs() -> Result<&'static IpfsProgram> {
    once(&STAGE.ipfs, || IpfsProgram::install(&cache()?, &repository().join("tests/ccn/ipfs")))
}

/// An interpreter with the SDK.
pub(crate) fn session() -> Result<&'static Session> {
    once(&STAGE.session, || sdk()?.session())
}

/// A development node of its own kind: no compute node, many messages.
pub(crate) fn core() -> Result<&'static CoreNode> {
    once(&STAGE.core, || CoreNode::start(installation(), &folder("core")?, &["--dev".to_owned()]))
}

/// A user of a node with credits, or with none.
pub(crate) fn user(core: &CoreNode, credits: u64) -> Result<User<'static>> {
    let session = session()?;
    let user = User::new(session, core.url())?;
    if credits > 0 {
        User::with(session, core.url(), core.treasury()?).distribute(&user.account().address, credits)?;
    }
    Ok(user)
}

/// Core node, host and compute node.
pub(crate) fn network() -> Result<&'static Network> {
    once(&STAGE.network, || {
        let installation = installation();
        let mut options = Options::new(installation.program("vmm"), installation.program("kvm-host"));
        // Programs get what the host has less two GiB.
        options.memory_mib = 6144;
        options.ports = free_ports(COMPUTE_NODES)?;
        STAGE.ports.lock().unwrap_or_else(PoisonError::into_inner).extend(options.ports.iter().skip(1));
        let host = KvmHost::start(&options)?;
        let host = HOST.get_or_init(|| host);
        let interfaces = host.network_interfaces()?;
        let port = options.ports.first().copied().context("a port was asked for")?;
        let link = format!("http://{}", host.address(port)?);
        let core = CoreNode::start(installation, &folder("network")?, &["--dev".to_owned(), "--crn".to_owned(), link])?;
        let site = ComputeSite::install(host, installation)?;
        let compute = site.start("crn", port, core.port(), &[])?;
        let user = user(&core, CREDITS)?;
        Ok(Network { host, interfaces, site, core, compute, user })
    })
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All are held until all are chosen, so that they differ.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().context("no free port")?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

impl Network {
    /// A client of the shared compute node.
    pub(crate) fn client(&self) -> Client {
        self.compute.client(COLD_WITHIN)
    }

    /// Another compute node, for one test alone.
    pub(crate) fn another_compute_node(&self, name: &str, more: &[&str]) -> Result<ComputeNode<'static>> {
        let port = STAGE.ports.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let port = port.context("COMPUTE_NODES is too small")?;
        let mut all = Vec::new();
        // What a stopped node leaves stays in the host's memory: those keep templates that are about them.
        if !more.iter().any(|setting| setting.starts_with("templates.level=")) {
            all.push("templates.level=off");
        }
        all.extend(more);
        self.site.start(name, port, self.core.port(), &all)
    }

    /// The STORE message of a file, uploaded when first asked for.
    pub(crate) fn upload(&self, file: &Path) -> Result<String> {
        // Held for the whole upload: two uploads at once would only be slower.
        let mut files = STAGE.files.lock().unwrap_or_else(PoisonError::into_inner);
        let key = file.display().to_string();
        if let Some(hash) = files.get(&key) {
            return Ok(hash.clone());
        }
        let hash = self.user.upload(file).with_context(|| format!("uploading {key}"))?;
        files.insert(key, hash.clone());
        Ok(hash)
    }

    /// The STORE message of a runtime.
    pub(crate) fn runtime(&self, name: &str) -> Result<String> {
        self.upload(&installation().runtime(name))
    }

    /// Publishes a program and waits until it is processed.
    pub(crate) fn publish(&self, program: &Program<'_>) -> Result<String> {
        self.publish_with(program, &json!([]))
    }

    /// The same, of a program with volumes.
    pub(crate) fn publish_with(&self, program: &Program<'_>, volumes: &Value) -> Result<String> {
        let (hash, _) = self.user.publish_with(program, volumes)?;
        let client = self.core.client();
        let seen = wait_for_verdict(&client, &hash, VERDICT_WITHIN)?;
        if seen.last().is_some_and(|status| status != "processed") {
            let record = client.get(&format!("/api/v0/messages/{hash}"))?.text();
            return Err(anyhow!("the program was not processed: {record}"));
        }
        let node = wait_for_allocation(&client, &hash, VERDICT_WITHIN)?;
        ensure!(!node.is_null(), "an allocation names a node");
        Ok(hash)
    }

    /// A Python program of `tests/programs`, published when first asked for.
    pub(crate) fn python(&self, name: &'static str) -> Result<&'static str> {
        self.python_limited(name, 300)
    }

    /// The same, with the time that a call may take, in seconds.
    pub(crate) fn python_limited(&self, name: &'static str, seconds: u32) -> Result<&'static str> {
        self.deploy(&format!("{name} {seconds}"), || {
            let archive = folder("archives")?.join(format!("{name}.zip"));
            zip(sdk()?.python(), &archive, &[&repository().join("tests/programs").join(name).join("main.py")])?;
            self.publish(&Program {
                code: &self.upload(&archive)?,
                runtime: &self.runtime("python")?,
                entrypoint: "main:app",
                encoding: "zip",
                memory_mib: 256,
                seconds,
                variables: json!({"GREETING": "from the message", "EMPTY": ""}),
                internet: false,
            })
        })
    }

    /// The static HTTP server as a program of its own with these variables.
    pub(crate) fn binary(&self, name: &str, seconds: u32, variables: Value) -> Result<&'static str> {
        self.binary_with(name, seconds, variables, &json!([]))
    }

    /// The same with volumes.
    pub(crate) fn binary_with(
        &self,
        name: &str,
        seconds: u32,
        variables: Value,
        volumes: &Value,
    ) -> Result<&'static str> {
        self.deploy(&format!("binary {name}"), || {
            // Two tests that made it at once uploaded half of it.
            let archive = once(&STAGE.binary, || {
                let archive = folder("archives")?.join("binary.zip");
                zip(sdk()?.python(), &archive, &[&installation().program("static-http")])?;
                Ok(archive)
            })?;
            let program = Program {
                code: &self.upload(archive)?,
                runtime: &self.runtime("base")?,
                entrypoint: "static-http",
                encoding: "zip",
                memory_mib: 128,
                seconds,
                variables,
                internet: false,
            };
            self.publish_with(&program, volumes)
        })
    }

    /// One file of Python, uploaded as it is.
    pub(crate) fn plain(&self, name: &str, source: &str) -> Result<&'static str> {
        self.plain_with(name, source, false, json!({}))
    }

    /// The same with these variables, as a program that asks for the internet, if it is to.
    pub(crate) fn plain_with(
        &self,
        name: &str,
        source: &str,
        internet: bool,
        variables: Value,
    ) -> Result<&'static str> {
        self.plain_in(name, source, 256, internet, variables)
    }

    /// The same in a machine with that much memory.
    pub(crate) fn plain_in(
        &self,
        name: &str,
        source: &str,
        memory_mib: u32,
        internet: bool,
        variables: Value,
    ) -> Result<&'static str> {
        self.deploy(&format!("plain {name}"), || {
            let file = folder("archives")?.join(format!("{name}.py"));
            fs::write(&file, source)?;
            self.publish(&Program {
                code: &self.upload(&file)?,
                runtime: &self.runtime("python")?,
                entrypoint: "main:app",
                encoding: "plain",
                memory_mib,
                seconds: 300,
                variables,
                internet,
            })
        })
    }

    /// A file that somebody made badly, as the code of a Python program.
    pub(crate) fn hostile(&self, file: &Path, encoding: &str) -> Result<String> {
        self.publish(&Program {
            code: &self.upload(file)?,
            runtime: &self.runtime("python")?,
            entrypoint: "main:app",
            encoding,
            memory_mib: 128,
            seconds: 60,
            variables: json!({}),
            internet: false,
        })
    }

    fn deploy(&self, key: &str, publish: impl FnOnce() -> Result<String>) -> Result<&'static str> {
        let cell = {
            let mut programs = STAGE.programs.lock().unwrap_or_else(PoisonError::into_inner);
            *programs.entry(key.to_owned()).or_insert_with(|| Box::leak(Box::new(OnceLock::new())))
        };
        once(cell, publish).map(String::as_str)
    }
}

/// Looks every 100 ms until something is so.
pub(crate) fn wait_until(limit: Duration, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "not after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
