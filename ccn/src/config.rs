//! Typed settings: one TOML file, then flags, then `BETH_*` variables, each over the one before.
//!
//! A key of the file that does not exist is an error. Variables share their prefix with the other programs of the project, so only those that
//! name a setting of this one are read: `BETH_LISTEN` is `listen`, `BETH_PIPELINE__HORIZON_SECONDS` is `horizon_seconds` in `[pipeline]`, and
//! `BETH_PEERS` is a list with commas.

mod files;

pub use self::files::{Files, S3, Secret};
use crate::{cli::Arguments, dev, host::Compiler, network::Network};
use ccn_message::ItemHash;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Most addresses in `development.funded`: one message funds them all.
const MAX_FUNDED: usize = 500;
/// How the variables begin that say where files are kept.
const FILES: &str = "BETH_FILES__";
/// Bounds of `poll_seconds`.
const MIN_POLL_SECONDS: f64 = 0.05;
const MAX_POLL_SECONDS: f64 = 3600.0;

/// All settings. Every one has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept that outlives a process; one node per folder.
    pub data_dir: PathBuf,
    /// Address and port of the HTTP interface.
    pub listen: SocketAddr,
    /// Core channel nodes that files are fetched from, base URLs without a slash at the end.
    pub peers: Vec<String>,
    /// Where files and folders of IPFS are looked for besides.
    pub ipfs: Ipfs,
    /// Where files are kept.
    pub files: Files,
    /// Compute nodes that are linked to this node.
    pub crns: Vec<Crn>,
    /// Folder of further plugins; by default `plugins` in the data folder.
    pub plugins: Option<PathBuf>,
    /// A private network for development, see [`crate::dev`].
    pub dev: bool,
    /// What there is in such a network; without one it means nothing.
    pub development: Development,
    /// Chains that are followed, and by which indexers.
    pub chains: Vec<Chain>,
    /// What plugins of the operator's own may do, by the sha256 of their file: `ledger`, or `read:` and a namespace.
    pub plugin_grants: BTreeMap<String, Vec<String>>,
    /// The network that this node is of.
    pub network: Network,
    /// How messages are taken in.
    pub pipeline: Pipeline,
    /// What strangers may take from the node.
    pub limits: Limits,
    /// How plugins are compiled; no setting of the operator's.
    #[serde(skip)]
    pub compiler: Compiler,
}

/// What there is in a development network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Development {
    /// True where others than this machine are to reach it; otherwise it only listens on an address of the machine itself.
    pub reachable: bool,
    /// Credits of each funded account.
    pub credits: u64,
    /// Tokens of each funded account, on Ethereum.
    pub tokens: u64,
    /// Addresses that are funded besides the accounts whose keys are printed.
    pub funded: Vec<String>,
    /// A JSON file, `{address: {key: content}}`: aggregates that are there besides those of the program's own, or in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregates: Option<PathBuf>,
    /// Images that clients find by name.
    pub images: Vec<Image>,
}

/// An image that clients of a development network find by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name; of the images of a kind the first is the default.
    pub name: String,
    /// What it is for.
    pub kind: ImageKind,
    /// The file.
    pub file: PathBuf,
}

/// What an image is for, in the words of the network's list of runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    /// Programs run in it.
    Program,
    /// The first disk of an instance.
    Instance,
    /// To look after an instance that does not start.
    Rescue,
    /// Firmware of confidential instances.
    Firmware,
}

/// Where files and folders of IPFS are looked for, and kept for others. What comes is verified block by block: none of them needs to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipfs {
    /// RPC of an IPFS node (kubo) of the operator's own, a base URL without a slash at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// What messages keep here is also given to that node and pinned there.
    pub pin: bool,
    /// Trustless gateways, base URLs without a slash at the end.
    pub gateways: Vec<String>,
}

/// A compute node that is linked to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "CrnForm")]
pub struct Crn {
    /// Under which it is registered; of an unregistered one, the sha256 of its URL.
    pub hash: String,
    /// What people call it.
    pub name: String,
    /// Base URL without a slash at the end.
    pub url: String,
    /// Address of its operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// A compute node as it may be written: its URL, or all of it.
#[derive(Deserialize)]
#[serde(untagged)]
enum CrnForm {
    Url(String),
    Table { url: String, hash: Option<String>, name: Option<String>, owner: Option<String> },
}

impl From<CrnForm> for Crn {
    fn from(form: CrnForm) -> Self {
        let (url, hash, name, owner) = match form {
            CrnForm::Url(url) => (url, None, None, None),
            CrnForm::Table { url, hash, name, owner } => (url, hash, name, owner),
        };
        let url = url.trim_end_matches('/').to_owned();
        let hash = hash.unwrap_or_else(|| ItemHash::sha256_of(url.as_bytes()).to_string());
        let name = name.unwrap_or_else(|| url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).to_owned());
        Self { hash, name, url, owner }
    }
}

/// A chain that is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The network's name of it, for example `ETH`.
    pub name: String,
    /// A provider: URL of JSON-RPC over HTTP. It may hold a key: nothing but these settings repeats it.
    pub rpc: String,
    /// First block; the settings of an indexer may say a later one.
    #[serde(default)]
    pub start: u64,
    /// Blocks from a block to the newest, itself counted in, after which it is final; 0 takes the newest for final. Without it, what the provider calls
    /// `finalized` is, or 64 blocks where it does not know that word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finality: Option<u64>,
    /// Most blocks that are asked for at once. Less is asked for where the provider does not bear it.
    #[serde(default = "usual_batch")]
    pub batch: u64,
    /// How often to look for new blocks, seconds.
    #[serde(default = "usual_poll")]
    pub poll_seconds: f64,
    /// Who says what events mean.
    pub indexers: Vec<ChainIndexer>,
}

/// An indexer that a chain is followed for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainIndexer {
    /// Its name: one of the node's own (`ethereum`, `erc20`), or of a file in the folder of plugins.
    pub plugin: String,
    /// Its settings.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// The default of `batch`: what most providers bear.
fn usual_batch() -> u64 {
    2_000
}

/// The default of `poll_seconds`: a block of Ethereum.
fn usual_poll() -> f64 {
    12.0
}

/// How messages are taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// How long a message that lacks something counts as pending, seconds. After that it shows as rejected, and is still taken up when what it
    /// lacks arrives.
    pub horizon_seconds: u64,
    /// How long a file is kept that nothing refers to, seconds.
    pub grace_seconds: u64,
    /// Messages that wait at once; beyond it a message that would wait is rejected instead.
    pub max_waiting: u64,
    /// Messages that no plugin handles and that are kept for one, at once.
    pub max_unhandled: u64,
    /// Room for them, MiB; one sender has a sixteenth of it.
    pub unhandled_mib: u64,
    /// Messages and files on their way to the store at once; more are answered 503.
    pub queue: usize,
    /// How often it is looked who can pay for what they store and run, seconds; 0 for never.
    pub review_seconds: u64,
}

/// What strangers may take from the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Longest body of a request that carries no file, KiB.
    pub body_kib: u64,
    /// Largest file in an upload without a signed message, MiB.
    pub unsigned_upload_mib: u64,
    /// Largest file in an upload to storage with a signed message, MiB.
    pub storage_upload_mib: u64,
    /// Largest file in an upload to IPFS with a signed message, MiB.
    pub ipfs_upload_mib: u64,
    /// Largest archive in an upload of a folder to IPFS, MiB.
    pub car_upload_mib: u64,
    /// Largest file or folder that is fetched, MiB.
    pub fetch_mib: u64,
    /// Uploads at once; the next one has the place of the slowest, if that is slow, or is answered 503.
    pub uploads: usize,
    /// Websockets at once.
    pub websockets: usize,
    /// Questions to plugins at once; more wait.
    pub queries: usize,
    /// Files fetched at once; more wait.
    pub fetches: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/beth/ccn"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4024)),
            peers: Vec::new(),
            ipfs: Ipfs::default(),
            files: Files::default(),
            crns: Vec::new(),
            plugins: None,
            dev: false,
            development: Development::default(),
            chains: Vec::new(),
            plugin_grants: BTreeMap::new(),
            network: Network::default(),
            pipeline: Pipeline::default(),
            limits: Limits::default(),
            compiler: Compiler::default(),
        }
    }
}

impl Default for Ipfs {
    fn default() -> Self {
        // Whoever runs an IPFS node beside this one wants the network's files to be found there: to fetch them, gateways would do.
        Self { api: None, pin: true, gateways: Vec::new() }
    }
}

impl Default for Development {
    fn default() -> Self {
        Self {
            reachable: false,
            // A million dollars' worth.
            credits: 1_000_000_000_000,
            tokens: 1_000_000,
            funded: Vec::new(),
            aggregates: None,
            images: Vec::new(),
        }
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            horizon_seconds: 405,
            grace_seconds: 24 * 3600,
            max_waiting: 1_000_000,
            max_unhandled: 1_000_000,
            unhandled_mib: 1024,
            queue: 10_000,
            review_seconds: 3600,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // More than websockets, which may be idle for ever: others must get in.
            max_connections: 12_288,
            body_kib: 1024,
            unsigned_upload_mib: 25,
            storage_upload_mib: 100,
            ipfs_upload_mib: 1024,
            car_upload_mib: 4096,
            fetch_mib: 1024,
            uploads: 64,
            websockets: 10_000,
            queries: 16,
            fetches: 8,
        }
    }
}

/// Why there is no configuration. The operator's to correct; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source does not parse, or has a key or a type that does not exist.
    #[error("the configuration is not valid: {0}")]
    Invalid(#[from] config::ConfigError),
    /// A `--set` without an equals sign.
    #[error("--set takes KEY=VALUE, for example pipeline.horizon_seconds=60, not {0:?}")]
    Assignment(String),
    /// A number that must be positive is zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A URL is none.
    #[error("{name} must be an http or https URL, not {value:?}")]
    Url {
        /// The setting.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// The bucket cannot be used as it is written.
    #[error("files.s3.{setting}: {problem}")]
    S3 {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The sha256 of a plugin is none.
    #[error("network.plugins pins {kind} to {value:?}, which is no sha256 of a file")]
    Pin {
        /// The message type.
        kind: String,
        /// What it says.
        value: String,
    },
    /// A chain cannot be followed as it is written.
    #[error("chains: {name}: {problem}")]
    Chain {
        /// The chain.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A development network has made-up accounts, and no other network has.
    #[error("--dev makes a network of its own: leave out network.name, which says {0:?}")]
    DevNetwork(String),
    /// Only a development network is called so: a node of another kind would take its folder for its own.
    #[error("network.name: `{name}` is the name of development networks; start it with --dev, or choose another name", name = dev::NETWORK)]
    DevName,
    /// Whoever reaches a development network can spend its money and fill its disk.
    #[error(
        "--dev serves this machine alone, and {0} is reached from others: listen on 127.0.0.1, or say development.reachable=true"
    )]
    DevReachable(SocketAddr),
    /// The list of funded addresses is too long.
    #[error("development.funded: at most {MAX_FUNDED} addresses are funded, not {0}")]
    DevFunded(usize),
}

impl Config {
    /// Reads the file that the arguments name, the arguments and the variables.
    ///
    /// # Errors
    /// The first thing that is wrong, in a sentence that names it.
    pub fn load(
        arguments: &Arguments,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut sources = config::Config::builder();
        if let Some(path) = &arguments.config {
            sources = sources.add_source(config::File::from(path.as_path()).format(config::FileFormat::Toml));
        }
        let ours = ours(variables);
        let (of_files, others) = ours.into_iter().partition(|(name, _)| name.to_ascii_uppercase().starts_with(FILES));
        let environment = || config::Environment::with_prefix("BETH").prefix_separator("_").separator("__");
        // A key that looks like a number is none.
        let of_files = environment().source(Some(of_files));
        let variables = environment()
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("peers")
            .with_list_parse_key("crns")
            .with_list_parse_key("ipfs.gateways")
            .with_list_parse_key("development.funded")
            .source(Some(others));
        let sources = sources.add_source(flags(arguments)?).add_source(variables).add_source(of_files);
        let mut config: Self = sources.build()?.try_deserialize()?;
        let endpoint = config.files.s3.as_mut().and_then(|s3| s3.endpoint.as_mut());
        let urls = config.peers.iter_mut().chain(&mut config.ipfs.api).chain(&mut config.ipfs.gateways);
        for url in urls.chain(endpoint) {
            url.truncate(url.trim_end_matches('/').len());
        }
        config.check()?;
        Ok(config)
    }

    /// Holds the values against their limits.
    fn check(&self) -> Result<(), ConfigError> {
        let peers = self.peers.iter().map(|url| ("peers", url));
        let ipfs = self.ipfs.api.iter().map(|url| ("ipfs.api", url));
        let gateways = self.ipfs.gateways.iter().map(|url| ("ipfs.gateways", url));
        let crns = self.crns.iter().map(|crn| ("crns", &crn.url));
        for (name, url) in peers.chain(ipfs).chain(gateways).chain(crns) {
            let scheme = reqwest::Url::parse(url).ok().map(|url| url.scheme().to_owned());
            if !matches!(scheme.as_deref(), Some("http" | "https")) {
                return Err(ConfigError::Url { name, value: url.clone() });
            }
        }
        self.check_chains()?;
        self.files.s3.as_ref().map_or(Ok(()), S3::check)?;
        for (name, value) in [
            ("pipeline.queue", self.pipeline.queue as u64),
            ("pipeline.horizon_seconds", self.pipeline.horizon_seconds),
            ("limits.max_connections", self.limits.max_connections as u64),
            ("limits.body_kib", self.limits.body_kib),
            ("limits.fetch_mib", self.limits.fetch_mib),
            ("limits.uploads", self.limits.uploads as u64),
            ("limits.websockets", self.limits.websockets as u64),
            ("limits.queries", self.limits.queries as u64),
            ("limits.fetches", self.limits.fetches as u64),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
        }
        for (kind, sha256) in &self.network.plugins {
            if !ItemHash::parse(sha256).is_ok_and(|hash| hash.sha256().is_some()) {
                return Err(ConfigError::Pin { kind: kind.clone(), value: sha256.clone() });
            }
        }
        if self.dev && self.network.name != Network::default().name {
            return Err(ConfigError::DevNetwork(self.network.name.clone()));
        }
        if !self.dev && self.network.name == dev::NETWORK {
            return Err(ConfigError::DevName);
        }
        if self.dev && !self.listen.ip().is_loopback() && !self.development.reachable {
            return Err(ConfigError::DevReachable(self.listen));
        }
        if self.development.funded.len() > MAX_FUNDED {
            return Err(ConfigError::DevFunded(self.development.funded.len()));
        }
        Ok(())
    }

    fn check_chains(&self) -> Result<(), ConfigError> {
        for (place, chain) in self.chains.iter().enumerate() {
            let wrong = |problem: String| Err(ConfigError::Chain { name: chain.name.clone(), problem });
            if chain.name.parse::<ccn_message::Chain>().is_err() {
                return wrong("the network knows no chain of this name".to_owned());
            }
            if self.chains[..place].iter().any(|other| other.name == chain.name) {
                return wrong("it is named twice".to_owned());
            }
            let scheme = reqwest::Url::parse(&chain.rpc).ok().map(|url| url.scheme().to_owned());
            if !matches!(scheme.as_deref(), Some("http" | "https")) {
                return wrong("rpc must be an http or https URL".to_owned());
            }
            if chain.batch == 0 {
                return wrong("batch must be at least 1".to_owned());
            }
            if !(MIN_POLL_SECONDS..=MAX_POLL_SECONDS).contains(&chain.poll_seconds) {
                return wrong(format!("poll_seconds must be from {MIN_POLL_SECONDS} to {MAX_POLL_SECONDS}"));
            }
            if chain.indexers.is_empty() {
                return wrong("it needs at least one indexer".to_owned());
            }
            for (place, indexer) in chain.indexers.iter().enumerate() {
                if chain.indexers[..place].iter().any(|other| other.plugin == indexer.plugin) {
                    return wrong(format!("the indexer {} is named twice", indexer.plugin));
                }
            }
        }
        Ok(())
    }

    /// The effective settings as a file that [`Config::load`] reads.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("strings, numbers and tables have a TOML form")
    }

    /// The folder of further plugins.
    #[must_use]
    pub fn plugin_folder(&self) -> PathBuf {
        self.plugins.clone().unwrap_or_else(|| self.data_dir.join("plugins"))
    }
}

/// The flags as a source of settings.
fn flags(arguments: &Arguments) -> Result<config::Config, ConfigError> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(Path::to_string_lossy).map(String::from);
    let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
    let mut flags = config::Config::builder()
        .set_override_option("data_dir", path(&arguments.data_dir))?
        .set_override_option("listen", arguments.listen.map(|address| address.to_string()))?
        .set_override_option("peers", list(&arguments.peers))?
        .set_override_option("crns", list(&arguments.crns))?
        .set_override_option("plugins", path(&arguments.plugins))?
        .set_override_option("dev", arguments.dev.then_some(true))?;
    for assignment in &arguments.set {
        let (key, value) = assignment.split_once('=').ok_or_else(|| ConfigError::Assignment(assignment.clone()))?;
        flags = flags.set_override(key.trim(), value.trim())?;
    }
    Ok(flags.build()?)
}

/// The variables that name a setting.
fn ours(variables: impl IntoIterator<Item = (String, String)>) -> HashMap<String, String> {
    // Optional settings have to be there to be known.
    let known = toml::Table::try_from(Config { plugins: Some(PathBuf::new()), ..Config::default() })
        .expect("settings have a TOML form");
    variables
        .into_iter()
        .filter(|(name, _)| {
            let Some(name) = name.strip_prefix("BETH_") else { return false };
            let name = name.to_ascii_lowercase();
            match name.split_once("__") {
                None => known.get(&name).is_some_and(|value| !value.is_table()),
                // A misspelt key of a table of ours is an error, as it is in the file.
                Some((table, _)) => known.get(table).is_some_and(toml::Value::is_table),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::io::Write as _;

    fn load(file: &str, flags: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut saved = tempfile::NamedTempFile::with_suffix(".toml").expect("a file");
        saved.write_all(file.as_bytes()).expect("a write");
        let path = saved.path().to_string_lossy().into_owned();
        let arguments = ["ccn", "--config", &path].into_iter().chain(flags.iter().copied());
        let arguments = Arguments::try_parse_from(arguments).expect("flags that parse");
        Config::load(&arguments, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn refused(file: &str, flags: &[&str], variables: &[(&str, &str)]) -> String {
        load(file, flags, variables).expect_err("a refusal").to_string()
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(load("", &[], &[]).expect("defaults"), Config::default());
    }

    #[test]
    fn variables_go_over_flags_and_flags_over_the_file() {
        let file = "peers = ['http://file:1']\ndata_dir = '/file'\n[pipeline]\nqueue = 1\nhorizon_seconds = 7";
        let flags = ["--peer", "http://flag:1/", "--data-dir", "/flag", "--set", "pipeline.queue=2"];
        let config = load(file, &flags, &[("BETH_DATA_DIR", "/variable"), ("BETH_LIMITS__BODY_KIB", "3")]);
        let config = config.expect("a configuration");
        assert_eq!(
            (config.data_dir.as_path(), config.peers),
            (Path::new("/variable"), vec!["http://flag:1".to_owned()])
        );
        assert_eq!((config.pipeline.queue, config.pipeline.horizon_seconds, config.limits.body_kib), (2, 7, 3));
        let config = load("", &[], &[("BETH_PEERS", "http://a:1,http://b:2")]).expect("a configuration");
        assert_eq!(config.peers, ["http://a:1", "http://b:2"]);
    }

    #[test]
    fn a_key_in_a_variable_is_no_number() {
        let file = "[files.s3]\nbucket = 'b'\naccess_key_id = 'in the file'\nendpoint = 'http://s3.example.org/'";
        let variables = [
            ("BETH_FILES__S3__SECRET_ACCESS_KEY", "00123"),
            ("BETH_FILES__S3__ACCESS_KEY_ID", "1e3"),
            ("BETH_FILES__S3__ALLOW_HTTP", "true"),
            ("BETH_LIMITS__BODY_KIB", "3"),
        ];
        let config = load(file, &[], &variables).expect("a configuration");
        let s3 = config.files.s3.as_ref().expect("a bucket");
        assert_eq!((s3.secret_access_key.reveal(), s3.access_key_id.as_str()), ("00123", "1e3"));
        assert_eq!(s3.endpoint.as_deref(), Some("http://s3.example.org"));
        assert_eq!((s3.allow_http, config.limits.body_kib), (true, 3));
        // What is printed reads back with the secret beside it.
        assert!(!config.to_toml().contains("00123"));
        assert_eq!(load(&config.to_toml(), &[], &variables[..1]).expect("a configuration"), config);
        assert!(refused(file, &[], &variables[1..]).contains("files.s3.secret_access_key: it is needed"));
        assert!(refused(file, &[], &[("BETH_FILES__S3__BUCKETT", "b")]).contains("buckett"));
    }

    #[test]
    fn an_ipfs_node_pins_unless_it_is_told_otherwise() {
        let ipfs =
            |flags: &[&str], variables| load("[ipfs]\napi = 'http://i:1/'", flags, variables).map(|all| all.ipfs);
        let usual = ipfs(&[], &[]).expect("a configuration");
        assert_eq!((usual.api.as_deref(), usual.pin), (Some("http://i:1"), true));
        assert!(!ipfs(&["--set", "ipfs.pin=false"], &[]).expect("a configuration").pin);
        assert!(!ipfs(&[], &[("BETH_IPFS__PIN", "false")]).expect("a configuration").pin);
        assert!(refused("[ipfs]\npinn = true", &[], &[]).contains("pinn"));
    }

    #[test]
    fn compute_nodes_are_written_short_or_long() {
        let short = load("", &["--crn", "http://127.0.0.1:4020/"], &[]).expect("a configuration").crns;
        let hash = ItemHash::sha256_of(b"http://127.0.0.1:4020").to_string();
        assert_eq!(
            short,
            [Crn { hash, name: "127.0.0.1:4020".into(), url: "http://127.0.0.1:4020".into(), owner: None }]
        );
        let long = load("[[crns]]\nurl = 'https://c'\nhash = 'h'\nname = 'n'\nowner = '0xA'", &[], &[]);
        let long = long.expect("a configuration").crns;
        assert_eq!(
            long,
            [Crn { hash: "h".into(), name: "n".into(), url: "https://c".into(), owner: Some("0xA".into()) }]
        );
    }

    #[test]
    fn unknown_keys_are_named() {
        assert!(refused("lissten = '127.0.0.1:1'", &[], &[]).contains("lissten"));
        assert!(refused("[pipeline]\nhorizon = 1", &[], &[]).contains("horizon"));
        assert!(refused("", &["--set", "limits.body=1"], &[]).contains("body"));
        assert!(refused("", &[], &[("BETH_LIMITS__BODY", "1")]).contains("body"));
    }

    #[test]
    fn variables_of_other_programs_are_not_ours() {
        let others = [("BETH_CACHE", "/tmp/x"), ("BETH_CCN", "http://x"), ("PATH", "/bin"), ("BETH_LIMITS", "no")];
        assert_eq!(load("", &[], &others).expect("defaults"), Config::default());
    }

    #[test]
    fn values_have_limits() {
        assert_eq!(refused("[pipeline]\nqueue = 0", &[], &[]), "pipeline.queue must be at least 1");
        assert!(refused("peers = ['ftp://node']", &[], &[]).contains("ftp://node"));
        assert!(refused("", &["--set", "pipeline.queue"], &[]).contains("KEY=VALUE"));
        assert!(refused("[network]\nname = 'other'", &["--dev"], &[]).contains("other"));
    }

    #[test]
    fn a_development_network_is_meant_or_refused() {
        let check = |file: &str, flags: &[&str], expect: &str| {
            let refusal = refused(file, flags, &[]);
            assert!(refusal.contains(expect), "{refusal}");
        };
        check("", &["--dev", "--listen", "0.0.0.0:1"], "0.0.0.0:1 is reached from others");
        check("dev = true\nlisten = '192.0.2.1:1'", &[], "development.reachable=true");
        check("[network]\nname = 'dev'", &[], "start it with --dev");
        check("[network]\nname = 'mine'", &["--dev"], "leave out network.name");
        check(
            &format!("[development]\nfunded = {:?}", vec!["0x"; MAX_FUNDED + 1]),
            &["--dev"],
            "at most 500 addresses",
        );
        check("[[development.images]]\nname = 'a'\nkind = 'kernel'\nfile = '/a'", &[], "kernel");
        load("", &["--dev", "--listen", "[::1]:1"], &[]).expect("this machine");
        let open = ["--dev", "--listen", "0.0.0.0:1", "--set", "development.reachable=true"];
        load("", &open, &[("BETH_DEVELOPMENT__FUNDED", "0xA,0xB")]).expect("it was said twice");
    }

    #[test]
    fn chains_are_held_against_their_limits() {
        let good = "[[chains]]\nname = 'ETH'\nrpc = 'http://r:1'\n[[chains.indexers]]\nplugin = 'erc20'\n";
        let chain = load(good, &[], &[]).expect("a configuration").chains.remove(0);
        assert_eq!((chain.batch, chain.start, chain.finality), (2000, 0, None));
        let check = |from: &str, to: &str, expect: &str| {
            let refusal = refused(&good.replace(from, to), &[], &[]);
            assert!(refusal.contains(expect), "{refusal}");
        };
        check("'ETH'", "'ETC'", "no chain of this name");
        check("'http://r:1'", "'ws://r:1/secret'", "http or https");
        check("rpc =", "batch = 0\nrpc =", "batch must be at least 1");
        check("rpc =", "poll_seconds = 0.0\nrpc =", "poll_seconds must be");
        check("[[chains.indexers]]\nplugin = 'erc20'", "indexers = []", "at least one indexer");
        check("rpc =", "prc =", "prc");
        assert!(refused(&format!("{good}{good}"), &[], &[]).contains("named twice"));
        let twice = format!("{good}[[chains.indexers]]\nplugin = 'erc20'\n");
        assert!(refused(&twice, &[], &[]).contains("erc20 is named twice"));
        // The key that it may hold is not repeated.
        assert!(!refused(&good.replace("http:", "ws:"), &[], &[]).contains("r:1"));
    }

    #[test]
    fn what_is_printed_reads_back() {
        let file = "plugins = '/p'\ncrns = ['http://c:1']\n[development]\naggregates = '/a'\n[[development.images]]\nname = 'a'\nkind = 'rescue'\n\
            file = '/b'\n[plugin_grants]\nabc = ['ledger']\n[network]\nname = 'x'\n[[chains]]\nname = 'ETH'\n\
            rpc = 'http://r:1'\nfinality = 3\n[[chains.indexers]]\nplugin = 'erc20'\nconfig = { tokens = [{ decimals = 18 }] }";
        let config = load(file, &[], &[]).expect("a configuration");
        assert_eq!(load(&config.to_toml(), &[], &[]).expect("a configuration"), config);
    }
}
