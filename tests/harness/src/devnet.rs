//! A network of one core channel node and one or more compute nodes on this machine, and its users.
//!
//! The core node runs here in development mode, the compute nodes in a [`KvmHost`]. Nothing reaches into
//! either: money comes as the treasury's signed posts, files and programs by the official SDK.

use crate::{
    http::Client,
    installation::Installation,
    kvm_host::{HostProcess, Kind, KvmHost},
    process::Process,
    sdk::Session,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long a core node may take to be ready: the first start compiles its plugins.
const CORE_READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a compute node may take to be ready: in an emulated host everything is slow.
const COMPUTE_READY_WITHIN: Duration = Duration::from_secs(120);
/// How long a node may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// How often something awaited is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an ordinary question to a core node may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// An address with its key.
#[derive(Clone)]
pub struct Account {
    /// As the network spells it.
    pub address: String,
    /// The private key in hex.
    pub key: String,
}

impl std::fmt::Debug for Account {
    /// Its address: keys are not printed by accident.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Account({})", self.address)
    }
}

/// A core channel node.
#[derive(Debug)]
pub struct CoreNode {
    process: Process,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    url: String,
    said: Vec<String>,
}

impl CoreNode {
    /// Starts a node in `folder` with these arguments besides `--data-dir` and `--listen`; its log is `folder/ccn.log`.
    ///
    /// # Errors
    /// It does not start, or is not ready in time; the error shows its log.
    pub fn start(installation: &Installation, folder: &Path, arguments: &[String]) -> Result<Self> {
        let mut all = vec!["--data-dir".to_owned(), folder.join("data").display().to_string()];
        all.extend(arguments.iter().cloned());
        Self::launch(installation.program("ccn"), all, "127.0.0.1:0", folder.join("ccn.log"))
    }

    fn launch(program: PathBuf, arguments: Vec<String>, listen: &str, log: PathBuf) -> Result<Self> {
        let mut process = Process::start(Command::new(&program).args(&arguments).args(["--listen", listen]), &log)?;
        let said = process.wait_for_line(CORE_READY_WITHIN, |line| line.contains(" ready on http://"))?;
        let url = said.last().and_then(|line| url_in(line)).context("a ready line has a URL")?;
        Ok(Self { process, program, arguments, log, url, said })
    }

    /// Where it is, `http://host:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap_or_default()
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.url, ANSWER_WITHIN)
    }

    /// Where it logs to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The accounts of that name among those that a development node printed: `treasury` or `account`.
    #[must_use]
    pub fn accounts(&self, name: &str) -> Vec<Account> {
        self.said.iter().filter_map(|line| account_in(line, name)).collect()
    }

    /// The account that gives credits on a development network.
    ///
    /// # Errors
    /// The node printed none.
    pub fn treasury(&self) -> Result<Account> {
        self.accounts("treasury")
            .into_iter()
            .next()
            .with_context(|| format!("the node printed no `treasury 0x… key 0x…` line, but {:?}", self.said))
    }

    /// `kill -9`, and starts it again at the same address with the same arguments.
    ///
    /// # Errors
    /// It does not come back.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.restart()
    }

    /// SIGTERM, a clean end, and starts it again.
    ///
    /// # Errors
    /// It does not end cleanly, or does not come back.
    pub fn stop_and_restart(&mut self) -> Result<()> {
        self.stop()?;
        self.restart()
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// It does not end cleanly.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(STOP_WITHIN)
    }

    /// `ccn node WORDS`, said to it by its operator: what that prints, and whether it succeeded.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn operator(&self, words: &[&str]) -> Result<(bool, String)> {
        let listen = self.url.trim_start_matches("http://");
        let data = option(&self.arguments, "--data-dir").context("it has a folder")?;
        let mut command = Command::new(&self.program);
        command.arg("node").args(words).args(["--listen", listen, "--data-dir", data]);
        let output = command.output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Its process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn restart(&mut self) -> Result<()> {
        let listen = self.url.trim_start_matches("http://").to_owned();
        *self = Self::launch(self.program.clone(), self.arguments.clone(), &listen, self.log.clone())?;
        Ok(())
    }
}

/// What an option of a program was given.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().skip_while(|word| *word != name).nth(1).map(String::as_str)
}

/// The URL of a ready line such as `ccn ready on http://127.0.0.1:4024 (…)`.
fn url_in(line: &str) -> Option<String> {
    let start = line.find("http://")?;
    let url = line[start..].split_whitespace().next()?;
    Some(url.trim_end_matches(['/', ',', ')']).to_owned())
}

/// The account of a line such as `treasury 0x… key 0x…`.
fn account_in(line: &str, name: &str) -> Option<Account> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [first, address, "key", key, ..] if *first == name => {
            Some(Account { address: (*address).to_owned(), key: key.trim_start_matches("0x").to_owned() })
        }
        _ => None,
    }
}

/// The programs and images of a compute node, put into a host.
#[derive(Debug)]
pub struct ComputeSite<'a> {
    host: &'a KvmHost,
    crn: String,
}

/// A compute node.
#[derive(Debug)]
pub struct ComputeNode<'a> {
    host: &'a KvmHost,
    process: HostProcess<'a>,
    url: String,
    data_dir: String,
    name: String,
    starts: u32,
    arguments: Vec<String>,
}

impl<'a> ComputeSite<'a> {
    /// Copies what a compute node needs into a host.
    ///
    /// # Errors
    /// A file is missing, or the host has no room.
    pub fn install(host: &'a KvmHost, installation: &Installation) -> Result<Self> {
        let crn = host.install(&installation.program("crn"), "beth/crn")?;
        host.install(&installation.program("vmm"), "beth/vmm")?;
        host.install(&installation.kernel(), "beth/images/kernel")?;
        host.install(&installation.initramfs(), "beth/images/initramfs")?;
        Ok(Self { host, crn })
    }

    /// The host that it is in.
    #[must_use]
    pub fn host(&self) -> &'a KvmHost {
        self.host
    }

    /// Starts a compute node at a port of the host, for the core node at a port of this machine. Its log is `name`'s. In an emulated host
    /// it is more patient, unless `settings` say otherwise.
    ///
    /// # Errors
    /// It is not ready in time; the error shows its log.
    pub fn start(&self, name: &str, port: u16, core_port: &str, settings: &[&str]) -> Result<ComputeNode<'a>> {
        let data_dir = self.host.path(&format!("data/{name}"));
        let core = format!("http://{}:{core_port}", self.host.outside());
        let mut arguments: Vec<String> =
            [&self.crn, "--data-dir", &data_dir, "--listen", &self.host.listen(port), "--ccn", &core]
                .map(str::to_owned)
                .to_vec();
        let patient: &[&str] = if self.host.kind() == Kind::Emulated { &PATIENT } else { &[] };
        for setting in patient.iter().chain(settings) {
            arguments.extend(["--set".to_owned(), (*setting).to_owned()]);
        }
        let url = format!("http://{}", self.host.address(port)?);
        launch(self.host, name, 0, arguments, url, data_dir)
    }
}

fn launch<'a>(
    host: &'a KvmHost,
    name: &str,
    starts: u32,
    arguments: Vec<String>,
    url: String,
    data_dir: String,
) -> Result<ComputeNode<'a>> {
    // Output is appended: a log of its own for each start.
    let log = if starts == 0 { name.to_owned() } else { format!("{name}-{starts}") };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = host.spawn(&log, &words)?;
    process.wait_for_line(COMPUTE_READY_WITHIN, |line| line.contains(" ready on http://"))?;
    Ok(ComputeNode { host, process, url, data_dir, name: name.to_owned(), starts, arguments })
}

impl ComputeNode<'_> {
    /// Where it is reached from here, `http://host:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens inside its host, `address:port`.
    #[must_use]
    pub fn listen(&self) -> Option<&str> {
        option(&self.arguments, "--listen")
    }

    /// A client of it; no answer takes longer than `limit`.
    #[must_use]
    pub fn client(&self, limit: Duration) -> Client {
        Client::new(&self.url, limit)
    }

    /// The host that it is in.
    #[must_use]
    pub fn host(&self) -> &KvmHost {
        self.host
    }

    /// Its folder inside the host.
    #[must_use]
    pub fn data_dir(&self) -> &str {
        &self.data_dir
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &HostProcess<'_> {
        &self.process
    }

    /// Ids of the machine monitors that it runs.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn monitors(&self) -> Result<Vec<u32>> {
        let family = self.host.descendants(self.process.id())?;
        Ok(family.into_iter().filter(|process| process.command.contains("vmm")).map(|process| process.id).collect())
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// It does not end cleanly.
    pub fn stop(&self) -> Result<()> {
        self.process.terminate(STOP_WITHIN)
    }

    /// `kill -9` of the node's own process, and waits until it is gone.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&self) -> Result<()> {
        self.process.kill(9)?;
        self.process.wait(STOP_WITHIN).map(drop)
    }

    /// Starts it again with the same folder and arguments, after its end.
    ///
    /// # Errors
    /// As [`ComputeSite::start`].
    pub fn start_again(&mut self) -> Result<()> {
        let (arguments, url, data_dir) = (self.arguments.clone(), self.url.clone(), self.data_dir.clone());
        *self = launch(self.host, &self.name, self.starts + 1, arguments, url, data_dir)?;
        Ok(())
    }
}

/// Somebody with an account, who uses the official SDK.
#[derive(Debug)]
pub struct User<'a> {
    session: &'a Session,
    ccn: String,
    account: Account,
}

/// A program to be published.
#[derive(Debug, Clone)]
pub struct Program<'a> {
    /// The STORE message of its code.
    pub code: &'a str,
    /// The STORE message of its runtime.
    pub runtime: &'a str,
    /// `module:app`, or an executable's path.
    pub entrypoint: &'a str,
    /// `zip`, `squashfs` or `plain`.
    pub encoding: &'a str,
    /// MiB.
    pub memory_mib: u32,
    /// How long a call may take, seconds.
    pub seconds: u32,
    /// Its environment.
    pub variables: Value,
    /// Whether it asks for a network.
    pub internet: bool,
}

impl<'a> User<'a> {
    /// Somebody with a new account and no money.
    ///
    /// # Errors
    /// The SDK says so.
    pub fn new(session: &'a Session, ccn: &str) -> Result<Self> {
        let made = session.user(&["new-account"])?;
        let text = |name: &str| made[name].as_str().map(str::to_owned).context("an account has an address and a key");
        Ok(Self::with(session, ccn, Account { address: text("address")?, key: text("private_key")? }))
    }

    /// Somebody with an account that exists.
    #[must_use]
    pub fn with(session: &'a Session, ccn: &str, account: Account) -> Self {
        Self { session, ccn: ccn.to_owned(), account }
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Runs a command of `user.py` with this account.
    ///
    /// # Errors
    /// The command fails.
    pub fn run(&self, command: &[&str]) -> Result<Value> {
        let mut words = vec!["--ccn", &self.ccn, "--key", &self.account.key];
        words.extend(command);
        self.session.user(&words)
    }

    /// Gives credits, as the network's treasury does: by a signed post. Returns the post's hash.
    ///
    /// # Errors
    /// The node does not take the post.
    pub fn distribute(&self, address: &str, amount: u64) -> Result<String> {
        let content = json!({
            "distribution": {
                "token": "ALEPH",
                "chain": "ETH",
                "credits": [{
                    "address": address,
                    "amount": amount,
                    "price": "1",
                    "tx_hash": format!("0x{:064x}", u128::from(amount)),
                    "provider": "development",
                }],
            },
        });
        let command = ["post", "aleph_credit_distribution", &content.to_string(), "--channel", "ALEPH_CREDIT"];
        processed(&self.run(&command)?)
    }

    /// Uploads a file with a signed STORE message, paid with credits; returns the message's hash.
    ///
    /// # Errors
    /// The node does not take it.
    pub fn upload(&self, file: &Path) -> Result<String> {
        let path = file.to_str().context("paths of files to upload are plain text")?;
        processed(&self.run(&["upload", path])?)
    }

    /// Publishes a program, without waiting for it; returns its hash and the status that the node answered.
    ///
    /// # Errors
    /// The node refuses it at once.
    pub fn publish(&self, program: &Program<'_>) -> Result<(String, String)> {
        self.publish_with(program, &json!([]))
    }

    /// The same, of a program with these volumes.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_with(&self, program: &Program<'_>, volumes: &Value) -> Result<(String, String)> {
        let (memory, seconds, variables) =
            (program.memory_mib.to_string(), program.seconds.to_string(), program.variables.to_string());
        let volumes = volumes.to_string();
        let mut words = vec![
            "publish",
            "--code",
            program.code,
            "--runtime",
            program.runtime,
            "--entrypoint",
            program.entrypoint,
            "--encoding",
            program.encoding,
            "--memory",
            &memory,
            "--seconds",
            &seconds,
            "--variables",
            &variables,
            "--volumes",
            &volumes,
        ];
        if program.internet {
            words.push("--internet");
        }
        let answer = self.run(&words)?;
        let status = answer["status"].as_str().unwrap_or_default().to_owned();
        Ok((item_hash(&answer)?, status))
    }
}

/// Packs files as a user would: `python -m zipfile -c ARCHIVE FILE…`.
///
/// # Errors
/// Python says so.
pub fn zip(python: &Path, archive: &Path, files: &[&Path]) -> Result<()> {
    let output = Command::new(python).args(["-m", "zipfile", "-c"]).arg(archive).args(files).output()?;
    ensure!(output.status.success(), "cannot make {}: {}", archive.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn item_hash(answer: &Value) -> Result<String> {
    answer["item_hash"].as_str().map(str::to_owned).with_context(|| format!("no item hash in {answer}"))
}

fn processed(answer: &Value) -> Result<String> {
    ensure!(answer["status"] == "processed", "the message is {}, not processed: {answer}", answer["status"]);
    item_hash(answer)
}

/// Waits until a message has left `pending`; returns its status and all statuses that were seen, in order.
///
/// # Errors
/// It is still pending when the time is over, or the node does not answer.
pub fn wait_for_verdict(ccn: &Client, item_hash: &str, limit: Duration) -> Result<Vec<String>> {
    let deadline = Instant::now() + limit;
    let mut seen: Vec<String> = Vec::new();
    loop {
        let answer = ccn.get(&format!("/api/v0/messages/{item_hash}/status"))?;
        if answer.status == 200 {
            let status = answer.json()?["status"].as_str().unwrap_or_default().to_owned();
            if seen.last() != Some(&status) {
                seen.push(status.clone());
            }
            if status != "pending" {
                return Ok(seen);
            }
        }
        ensure!(Instant::now() < deadline, "{item_hash} has no verdict after {limit:?}: {}", answer.text());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until a program is assigned to a compute node; returns that node's description.
///
/// # Errors
/// It is not assigned in time.
pub fn wait_for_allocation(ccn: &Client, item_hash: &str, limit: Duration) -> Result<Value> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = ccn.get(&format!("/api/v0/allocation/{item_hash}"))?;
        if answer.status == 200 {
            return Ok(answer.json()?["node"].take());
        }
        ensure!(Instant::now() < deadline, "{item_hash} is not assigned after {limit:?}: {}", answer.text());
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Settings of a compute node in an emulated host, where a boot takes a minute and not a tenth of a second.
const PATIENT: [&str; 5] = [
    "programs.boot_seconds=300",
    "programs.start_seconds=900",
    "programs.loading_seconds=120",
    "programs.stop_seconds=60",
    // The host's disk is its memory.
    "templates.limit_mib=400",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_has_a_url() {
        let line = "ccn ready on http://127.0.0.1:4024 (network dev)";
        assert_eq!(url_in(line).as_deref(), Some("http://127.0.0.1:4024"));
        assert_eq!(url_in("nothing here"), None);
    }

    #[test]
    fn accounts_are_read_from_what_a_development_node_prints() {
        let account = account_in("treasury 0xAb key 0x12", "treasury").expect("an account");
        assert_eq!((account.address.as_str(), account.key.as_str()), ("0xAb", "12"));
        assert!(account_in("account 0xAb key 0x12", "treasury").is_none());
        assert!(!format!("{account:?}").contains("12"), "keys are not printed by accident");
    }
}
