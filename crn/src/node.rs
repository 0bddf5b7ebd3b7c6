//! The node: its parts in the order that a call meets them, and their end in reverse.

use crate::{
    api::{self, Service},
    cache::{Cache, program::Programs},
    ccn::Client,
    config::{Config, Mode, seconds},
    confinement::Confinement,
    executor::{Executor, Workshop, admit::Need, state::Limits},
    log::Logs,
    machine::{Images, Missing, Monitor},
    meter,
    network::host::{HostNetwork, NetworkError},
    pool::Pool,
    server::Server,
    template::Templates,
    volume::Volumes,
};
use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// How long the monitor may take to find out whether this host runs guests.
const PROBE_WITHIN: Duration = Duration::from_secs(60);

/// How long the kernel may take over the network's set-up.
const NETWORK_WITHIN: Duration = Duration::from_secs(30);

/// Memory of the host that programs do not get by default, MiB.
const HOST_RESERVED_MIB: u64 = 2048;

/// Virtual processors for each of the host's by default.
const VCPUS_PER_PROCESSOR: u64 = 4;

/// Where images are when they are not beside the program.
const SYSTEM_IMAGES: &str = "/usr/lib/beth/images";

/// A node that serves.
#[derive(Debug)]
pub struct Node {
    service: Arc<Service>,
    pool: Pool,
    server: Server,
    network: Option<HostNetwork>,
    verdict: String,
    /// Held as long as the node is there: one process per folder.
    _lock: File,
}

/// Why a node does not start. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another process works in the same folder.
    #[error("another crn is running in {0}: stop it, or choose another --data-dir")]
    Locked(PathBuf),
    /// The folder cannot be used.
    #[error("the data folder {path} cannot be used: {reason}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A piece of the installation is missing.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        reason: io::Error,
    },
    /// There is to be a network (`network.mode` is `on`), and there is none.
    #[error("machines have no network: {0}")]
    Network(#[from] NetworkError),
    /// TLS cannot be set up.
    #[error("cannot make an HTTP client: {causes}. Most likely the host has no ca-certificates: install them.", causes = crate::ccn::causes(.0))]
    Client(#[from] reqwest::Error),
    /// The kernel does not say how much memory there is.
    #[error("cannot read the host's memory: {0}")]
    Host(#[from] procfs::ProcError),
}

impl Node {
    /// Starts everything.
    ///
    /// # Errors
    /// See [`NodeError`]. A host that does not run guests is none: the node then says so to every caller.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        let folder = |path: &Path| {
            let path = path.to_owned();
            move |reason| NodeError::Folder { path, reason }
        };
        let data = &config.data_dir;
        fs::create_dir_all(data).map_err(folder(data))?;
        let lock = lock(data)?;

        let (monitor, image_folder) = installation(&config);
        let confinement = Confinement::new(config.programs.first_uid, data);
        let images = Arc::new(Images::open(&monitor, &image_folder, confinement)?);
        let machines = match probe(&monitor).await {
            Ok(verdict) => Monitor::rehearse(&images).await.map(|()| verdict),
            no => no,
        };
        let client = Arc::new(Client::new(&config.ccn, seconds(config.files.answer_seconds))?);
        let files = data.join("files");
        let cache =
            Cache::open(&files, client.clone(), config.files.limit_mib << 20, seconds(config.files.stall_seconds))
                .map_err(folder(&files))?;
        let logs = data.join("logs");
        let logs = Logs::open(&logs, config.logs.max_kib << 10, config.logs.max_programs).map_err(folder(&logs))?;
        let templates = data.join("templates");
        let settings = &config.templates;
        let templates = Templates::open(&templates, settings.limit_mib << 20, settings.level, images.installation)
            .map_err(folder(&templates))?;
        let volumes = data.join("volumes");
        let volumes = Volumes::open(&volumes, config.volumes.limit_mib << 20).map_err(folder(&volumes))?;
        // Without KVM there is nothing to make in advance, and nobody to have a network.
        let monitors = if machines.is_ok() { settings.monitors } else { 0 };
        let network = if machines.is_ok() { network(&config.network, monitors).await? } else { None };
        let pool = Pool::new(Arc::clone(&images), monitors, u8::from(network.is_some()));
        let workshop = Workshop {
            templates: templates.clone(),
            volumes,
            pool: pool.clone(),
            programs: Programs::new(client, seconds(config.files.latest_seconds)),
            cache,
            images,
            logs,
            network: network.clone(),
            settings: Arc::new(config.programs.clone()),
        };
        let executor = Executor::new(workshop, limits(&config.programs)?);
        let verdict = match &machines {
            Ok(verdict) | Err(verdict) => verdict.clone(),
        };
        let service = Arc::new(Service { config, executor, templates, machines: machines.map(|_| ()) });
        let http = &service.config.http;
        let server = Server::listen(service.config.listen, api::router(service.clone()), http)
            .await
            .map_err(|reason| NodeError::Listen { address: service.config.listen, reason })?;
        Ok(Self { service, pool, server, network, verdict, _lock: lock })
    }

    /// One line for the operator: where the node is and whether it can work.
    #[must_use]
    pub fn ready_line(&self) -> String {
        format!(
            "crn ready on http://{} ({}; core channel node {})",
            self.server.address(),
            self.verdict,
            self.service.config.ccn
        )
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Lets calls end, ends all machines, then stops answering.
    pub async fn stop(self) {
        // While it drains the node still answers: that it drains.
        self.service.executor.drain().await;
        self.pool.end().await;
        self.server.stop().await;
        if let Some(network) = self.network {
            network.close();
        }
    }
}

/// The network of machines, as far as it is wanted and this host allows it; a few wires are made in advance.
async fn network(settings: &crate::config::Network, ready: usize) -> Result<Option<HostNetwork>, NetworkError> {
    if settings.mode == Mode::Off {
        return Ok(None);
    }
    let own = settings.clone();
    let set_up = tokio::task::spawn_blocking(move || HostNetwork::set_up(&own));
    let outcome = timeout(NETWORK_WITHIN, set_up).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut));
    let outcome = outcome.and_then(|joined| joined.map_err(io::Error::other));
    match outcome.unwrap_or_else(|reason| Err(NetworkError::Host { what: "set up the network".to_owned(), reason })) {
        Ok(network) => {
            network.keep_ready(ready);
            Ok(Some(network))
        }
        Err(error) if settings.mode == Mode::Auto => {
            tracing::warn!("programs that ask for the internet run without it: {error} (or set network.mode to off)");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Takes the folder for this process. The kernel gives it back however the process ends.
fn lock(data: &Path) -> Result<File, NodeError> {
    let path = data.join("lock");
    let failed = |reason| NodeError::Folder { path: data.to_owned(), reason };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(NodeError::Locked(data.to_owned())),
        Err(TryLockError::Error(reason)) => Err(failed(reason)),
    }
}

/// Where the monitor and the images are: as configured, else beside this program, else in the system.
fn installation(config: &Config) -> (PathBuf, PathBuf) {
    let beside =
        std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned())).unwrap_or_default();
    let monitor = config.vmm.clone().unwrap_or_else(|| beside.join("vmm"));
    let images = config.images.clone().unwrap_or_else(|| {
        let near = beside.join("images");
        if near.is_dir() { near } else { PathBuf::from(SYSTEM_IMAGES) }
    });
    (monitor, images)
}

/// Has the monitor run a few guest instructions. The sentence is its own.
async fn probe(monitor: &Path) -> Result<String, String> {
    let mut probe = Command::new(monitor);
    probe.arg("probe").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PROBE_WITHIN, probe.output())
        .await
        .map_err(|_| format!("the check of KVM did not end within {PROBE_WITHIN:?}"))?
        .map_err(|error| format!("{} does not start: {error}", monitor.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let sentences: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if output.status.success() {
        Ok(sentences.first().copied().unwrap_or("KVM runs guests").to_owned())
    } else if sentences.is_empty() {
        Err(format!("the check of KVM ended with {}", output.status))
    } else {
        Err(sentences.join(". "))
    }
}

/// The executor's bounds, with what the host has where nothing was said.
fn limits(settings: &crate::config::Programs) -> Result<Limits, NodeError> {
    let memory_mib = match settings.memory_mib {
        0 => {
            let host = meter::host_memory_mib()?;
            host.saturating_sub(HOST_RESERVED_MIB).max(host / 2)
        }
        said => said,
    };
    let vcpus = match settings.vcpus {
        0 => std::thread::available_parallelism().map_or(1, |count| count.get() as u64) * VCPUS_PER_PROCESSOR,
        said => u64::from(said),
    };
    Ok(Limits {
        capacity: Need { memory_mib, vcpus },
        concurrent_boots: settings.concurrent_boots,
        max_waiting_calls: settings.max_waiting_calls,
        max_calls: settings.max_calls,
        calls_per_machine: settings.calls_per_machine,
        max_machines: settings.max_machines,
        idle: seconds(settings.idle_seconds),
        loading: seconds(settings.loading_seconds),
        patience: seconds(settings.patience_seconds),
        drain: seconds(settings.drain_seconds),
    })
}
