//! Nodes with messages: in this process, and in one of their own.

use super::{READY_WITHIN, SLICE, workload::Workload};
use anyhow::{Context as _, Result, ensure};
use ccn::{config::Config, node::Service};
use ccn_message::MessageStatus;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) async fn open(folder: &Path) -> Result<Arc<Service>> {
    fs::create_dir_all(folder)?;
    let config = Config { data_dir: folder.to_owned(), ..Config::default() };
    Ok(Arc::new(Service::open(config).await?))
}

pub(super) async fn submit_all(service: &Arc<Service>, texts: Vec<String>) -> Result<()> {
    for receipt in service.pipeline.submit_bulk(texts).await {
        let receipt = receipt?;
        // One that refers to another in flight may wait for it a moment.
        ensure!(receipt.status != MessageStatus::Rejected, "{receipt:?}");
    }
    Ok(())
}

pub(super) async fn close(service: Arc<Service>) {
    service.pipeline.stop().await;
    drop(service);
    // A search for a file may hold the store for a moment longer.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Adds messages to a store, by the way that they take on any other day; the next ones are signed meanwhile. Returns their bytes.
pub(super) async fn fill(folder: &Path, mut workload: Workload, mut missing: usize) -> Result<u64> {
    let mut bytes = 0;
    if missing == 0 {
        return Ok(bytes);
    }
    let service = open(folder).await?;
    let mut texts = Vec::new();
    while missing > 0 || !texts.is_empty() {
        let count = missing.min(SLICE);
        missing -= count;
        let signing = tokio::task::spawn_blocking(move || {
            let texts: Vec<String> = workload.take(count).iter().map(ccn_message::sign::to_json).collect();
            (workload, texts)
        });
        submit_all(&service, texts).await?;
        (workload, texts) = signing.await?;
        bytes += texts.iter().map(|text| text.len() as u64).sum::<u64>();
    }
    close(service).await;
    Ok(bytes)
}

/// A real node.
pub(super) struct Served {
    child: Child,
    pub(super) url: String,
    /// From its start to its ready line.
    pub(super) ready: Duration,
}

impl Served {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        use std::io::BufRead as _;
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ccn"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        loop {
            let line = lines.recv_timeout(READY_WITHIN).context("the node is not ready")?;
            if let Some(at) = line.find("http://") {
                let url = line[at..].split_whitespace().next().unwrap_or_default().to_owned();
                return Ok(Self { child, url, ready: started.elapsed() });
            }
        }
    }

    /// User and system time, from `/proc/PID/stat` (fields 14 and 15, in clock ticks of 10 ms).
    pub(super) fn cpu(&self) -> Result<Duration> {
        const TICK_MS: u64 = 10;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("a stat line")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).context("a number");
        Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * TICK_MS))
    }

    /// Resident memory, KiB, from `/proc/PID/status`.
    pub(super) fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a line VmRSS")?;
        line.split_whitespace().next().and_then(|number| number.parse().ok()).context("a number")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
