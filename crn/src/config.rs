//! Typed settings: one TOML file, then flags, then `BETH_*` variables, each over the one before.
//!
//! A key of the file that does not exist is an error. Variables share their prefix with the other
//! programs of the project, so only those that name a setting of this one are read:
//! `BETH_LISTEN` is `listen`, `BETH_PROGRAMS__IDLE_SECONDS` is `idle_seconds` in `[programs]`.

use crate::{cli::Arguments, network::ipv4, template::key::Level};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{
    collections::HashMap,
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// The most that numbers may be: what is added to them and multiplied with stays a number.
mod limit {
    /// Ten years.
    pub(super) const SECONDS: u64 = 315_360_000;
    /// As bytes far below what 64 bits hold.
    pub(super) const MIB: u64 = 1 << 40;
    /// Of connections, calls, programs.
    pub(super) const COUNT: u64 = 1_000_000;
    /// The ids below are for people and services: [`crate::confinement::IDS`] from 0 on hold them all, `nobody` too.
    pub(super) const FIRST_UID: std::ops::RangeInclusive<u32> =
        crate::confinement::IDS..=u32::MAX - crate::confinement::IDS;
    /// Of calls of one machine: its vsock device and its init hold 1024 streams, some of them the node's own.
    pub(super) const CALLS: u64 = 1000;
    /// Of networks and ports in a list: each is a rule or two of the packet filter.
    pub(super) const LIST: usize = 128;
    /// Megabits per second, and packets: as bytes and in their product with time far below what 64 bits hold.
    pub(super) const RATE: u64 = 1_000_000_000;
    /// Of a name that interfaces begin with: they have 15 characters, six of which number them after a dash.
    pub(super) const NAME: usize = 8;
}

/// All settings. Every one has a default; see `crn/README.md` for the operator's view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept that outlives a process; one node per folder.
    pub data_dir: PathBuf,
    /// Address and port of the HTTP interface.
    pub listen: SocketAddr,
    /// Base URL of the core channel node, without a slash at the end.
    pub ccn: String,
    /// The machine monitor; by default `vmm` beside this program.
    pub vmm: Option<PathBuf>,
    /// Folder of the guest `kernel` and `initramfs`; by default `images` beside this program, else
    /// `/usr/lib/beth/images`.
    pub images: Option<PathBuf>,
    /// Name under which the node is reached; programs answer at `<label>.<domain_name>` too.
    pub domain_name: String,
    /// Version of the production line in the `Server` header: scoring gives 0 to one it does not know.
    pub version: String,
    /// Hash under which the node is registered in the network.
    pub node_hash: Option<String>,
    /// The HTTP interface.
    pub http: Http,
    /// The machines that programs run in.
    pub programs: Programs,
    /// The network of machines.
    pub network: Network,
    /// Machines to go on from instead of booting.
    pub templates: Templates,
    /// Files of the network: code, runtimes, data, volumes.
    pub files: Files,
    /// What machines write to.
    pub volumes: Volumes,
    /// What programs print.
    pub logs: Logs,
}

/// The HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Open connections; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Longest request body, MiB; a longer one is answered 413.
    pub max_body_mib: u64,
    /// How long a client may send or take nothing before it is given up, seconds.
    pub client_idle_seconds: u64,
    /// How long a started response or a WebSocket may carry nothing before it is cut, seconds.
    pub stream_idle_seconds: u64,
}

/// The machines that programs run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Programs {
    /// How long a program stays up without a call, seconds.
    pub idle_seconds: u64,
    /// Memory for all machines together, MiB; 0 means what the host has less 2,048 (at least half of it).
    pub memory_mib: u64,
    /// Virtual processors for all machines together; 0 means four times the host's.
    pub vcpus: u32,
    /// Machines that boot at once; more wait their turn.
    pub concurrent_boots: usize,
    /// Calls that wait for one program to start; more are answered 503.
    pub max_waiting_calls: usize,
    /// Calls that one machine serves at once; more wait `patience_seconds` for one of them to end and are then answered 503.
    pub max_calls: usize,
    /// Calls at once for each of a program's machines at which it gets another one, unless the program says how many it bears.
    pub calls_per_machine: usize,
    /// Machines of one program at once.
    pub max_machines: usize,
    /// From spawn to a guest that can be configured, seconds.
    pub boot_seconds: u64,
    /// From configuration to a program that listens, seconds.
    pub start_seconds: u64,
    /// How long a call waits for a binary that runs but does not listen before it gets the loading
    /// page, seconds.
    pub loading_seconds: u64,
    /// How long a call waits for room when every machine is busy, seconds.
    pub patience_seconds: u64,
    /// How long a program may take to end when asked, seconds.
    pub stop_seconds: u64,
    /// How long calls may take to end when the node stops, seconds.
    pub drain_seconds: u64,
    /// Whether the traceback of a program that does not start is shown to its callers.
    pub show_tracebacks: bool,
    /// The first of the user and group ids that machines have, one each ([`crate::confinement::IDS`] of them), when the
    /// node runs as root.
    pub first_uid: u32,
}

/// The network of machines whose programs ask for the internet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Whether there is one.
    pub mode: Mode,
    /// Of the packet filter's table, and how interfaces begin: `NAME-0`, `NAME-1`, …
    pub name: String,
    /// Where private addresses are from, four for each machine. What the host has routes to is left out.
    pub ipv4_pool: Ipv4Net,
    /// A public /64 that is routed to this host or is on its wire; without it machines have IPv4 only.
    pub ipv6_pool: Option<Ipv6Net>,
    /// Whether the host answers neighbour discovery for its machines, as it must where the /64 is not routed to it.
    pub ndp_proxy: bool,
    /// The interface that leads outside; by default that of the default route, for each family its own.
    pub external_interface: Option<String>,
    /// Who answers machines' questions for names; by default whom the host asks.
    #[serde(deserialize_with = "list")]
    pub name_servers: Vec<IpAddr>,
    /// Networks that machines do not reach, but for questions to name servers.
    #[serde(deserialize_with = "list")]
    pub refused: Vec<IpNet>,
    /// TCP ports of this host that machines may use.
    #[serde(deserialize_with = "list")]
    pub host_ports: Vec<u16>,
    /// What goes through a machine's card in each direction, megabits per second.
    pub megabits_per_second: u64,
    /// The same in packets per second.
    pub packets_per_second: u64,
}

/// Whether there is a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// If this host allows it; else it is said once, and programs run without.
    Auto,
    /// A node without it does not start.
    On,
    /// No.
    Off,
}

/// Machines to go on from instead of booting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Templates {
    /// How far they go: `off`, `runtime` (a booted guest without a program) or `function` (a program that listens).
    pub level: Level,
    /// Disk space for them, MiB; those go first that save the least for the room they take.
    pub limit_mib: u64,
    /// Machine monitors that wait for a machine; 0 makes each when it is needed.
    pub monitors: usize,
}

/// Files of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// Disk space for files, MiB; the least recently used go first, those in use stay.
    pub limit_mib: u64,
    /// How long a download may deliver nothing before it is taken up anew, seconds.
    pub stall_seconds: u64,
    /// How long the newest version of a file is believed to be the newest, seconds.
    pub latest_seconds: u64,
    /// How long the core channel node has to answer a question, all attempts together, seconds.
    pub answer_seconds: u64,
}

/// What machines write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Volumes {
    /// What all volumes may take together if programs fill them, MiB: persistent ones that there are and ephemeral ones that are in use.
    pub limit_mib: u64,
}

/// What programs print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Length of one program's log, KiB; one older file of that length is kept beside it.
    pub max_kib: u64,
    /// Programs whose logs are kept; the oldest go first.
    pub max_programs: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/beth/crn"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4020)),
            ccn: "https://official.aleph.cloud".to_owned(),
            vmm: None,
            images: None,
            domain_name: "localhost".to_owned(),
            version: "1.13.0".to_owned(),
            node_hash: None,
            http: Http::default(),
            programs: Programs::default(),
            network: Network::default(),
            templates: Templates::default(),
            files: Files::default(),
            volumes: Volumes::default(),
            logs: Logs::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { max_connections: 4096, max_body_mib: 1024, client_idle_seconds: 300, stream_idle_seconds: 300 }
    }
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            idle_seconds: 3600,
            memory_mib: 0,
            vcpus: 0,
            concurrent_boots: 4,
            max_waiting_calls: 1024,
            max_calls: 512,
            calls_per_machine: 100,
            max_machines: 16,
            boot_seconds: 30,
            start_seconds: 120,
            loading_seconds: 5,
            patience_seconds: 10,
            stop_seconds: 10,
            drain_seconds: 30,
            show_tracebacks: true,
            first_uid: 524_288,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        // What is not the internet (RFC 6890): this host, private networks, those of providers, links and the services of metadata
        // there, tests and groups.
        let refused4 = [
            ([0, 0, 0, 0], 8),
            ([10, 0, 0, 0], 8),
            ([100, 64, 0, 0], 10),
            ([127, 0, 0, 0], 8),
            ([169, 254, 0, 0], 16),
            ([172, 16, 0, 0], 12),
            ([192, 0, 0, 0], 24),
            ([192, 168, 0, 0], 16),
            ([198, 18, 0, 0], 15),
            ([224, 0, 0, 0], 4),
            ([240, 0, 0, 0], 4),
        ];
        let refused6 = [([0xfc00, 0], 7), ([0xfe80, 0], 10), ([0xff00, 0], 8), ([0x64, 0xff9b], 96)];
        let refused4 = refused4.map(|(address, bits)| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(address), bits)));
        let refused6 =
            refused6.map(|([a, b], bits)| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), bits)));
        Self {
            mode: Mode::Auto,
            name: "beth".to_owned(),
            ipv4_pool: ipv4::DEFAULT_POOL,
            ipv6_pool: None,
            ndp_proxy: true,
            external_interface: None,
            name_servers: Vec::new(),
            refused: refused4.into_iter().chain(refused6).collect(),
            host_ports: Vec::new(),
            megabits_per_second: 1000,
            packets_per_second: 100_000,
        }
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self { level: Level::Function, limit_mib: 16 * 1024, monitors: 4 }
    }
}

impl Default for Files {
    fn default() -> Self {
        Self { limit_mib: 64 * 1024, stall_seconds: 60, latest_seconds: 10, answer_seconds: 20 }
    }
}

impl Default for Volumes {
    fn default() -> Self {
        Self { limit_mib: 64 * 1024 }
    }
}

impl Default for Logs {
    fn default() -> Self {
        Self { max_kib: 4096, max_programs: 2048 }
    }
}

/// Why there is no configuration. The operator's to correct; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source does not parse, or has a key or a type that does not exist.
    #[error("the configuration is not valid: {0}")]
    Invalid(#[from] config::ConfigError),
    /// A `--set` without an equals sign.
    #[error("--set takes KEY=VALUE, for example programs.idle_seconds=600, not {0:?}")]
    Assignment(String),
    /// A number that must be positive is zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A number that is more than the node can count with.
    #[error("{0} must be at most {1}")]
    TooMuch(&'static str, u64),
    /// The ids of machines are others' too.
    #[error("programs.first_uid must be between {first} and {last}, not {0}", first = limit::FIRST_UID.start(), last = limit::FIRST_UID.end())]
    FirstUid(u32),
    /// The name of the network is none for an interface.
    #[error("network.name must be a lowercase letter and at most {max} more letters and digits, not {0:?}", max = limit::NAME - 1)]
    NetworkName(String),
    /// A pool is none.
    #[error("network.{0} must be {1}, not {2}")]
    Pool(&'static str, &'static str, String),
    /// A list is too long.
    #[error("{0} must have at most {max} entries", max = limit::LIST)]
    List(&'static str),
    /// The URL of the core channel node is none.
    #[error("ccn must be an http or https URL, not {0:?}")]
    Url(String),
    /// The version cannot be put into a header.
    #[error("version must be printable ASCII, not {0:?}")]
    Version(String),
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
        let variables = config::Environment::with_prefix("BETH")
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .source(Some(ours(variables)));
        let sources = sources.add_source(flags(arguments)?).add_source(variables);
        let mut config: Self = sources.build()?.try_deserialize()?;
        config.ccn.truncate(config.ccn.trim_end_matches('/').len());
        config.check()?;
        Ok(config)
    }

    /// Holds the values against their limits.
    fn check(&self) -> Result<(), ConfigError> {
        let scheme = reqwest::Url::parse(&self.ccn).ok().map(|url| url.scheme().to_owned());
        if !matches!(scheme.as_deref(), Some("http" | "https")) {
            return Err(ConfigError::Url(self.ccn.clone()));
        }
        if self.version.is_empty() || !self.version.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigError::Version(self.version.clone()));
        }
        if !limit::FIRST_UID.contains(&self.programs.first_uid) {
            return Err(ConfigError::FirstUid(self.programs.first_uid));
        }
        self.network.check()?;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (name, value, at_least, at_most) in [
            ("http.max_connections", count(self.http.max_connections), 1, limit::COUNT),
            ("http.max_body_mib", self.http.max_body_mib, 1, limit::MIB),
            ("http.client_idle_seconds", self.http.client_idle_seconds, 1, limit::SECONDS),
            ("http.stream_idle_seconds", self.http.stream_idle_seconds, 1, limit::SECONDS),
            ("programs.idle_seconds", self.programs.idle_seconds, 0, limit::SECONDS),
            ("programs.memory_mib", self.programs.memory_mib, 0, limit::MIB),
            ("programs.concurrent_boots", count(self.programs.concurrent_boots), 1, limit::COUNT),
            ("programs.max_waiting_calls", count(self.programs.max_waiting_calls), 1, limit::COUNT),
            ("programs.max_calls", count(self.programs.max_calls), 1, limit::CALLS),
            ("programs.calls_per_machine", count(self.programs.calls_per_machine), 1, limit::CALLS),
            ("programs.max_machines", count(self.programs.max_machines), 1, limit::COUNT),
            ("programs.boot_seconds", self.programs.boot_seconds, 1, limit::SECONDS),
            ("programs.start_seconds", self.programs.start_seconds, 1, limit::SECONDS),
            ("programs.loading_seconds", self.programs.loading_seconds, 0, limit::SECONDS),
            ("programs.patience_seconds", self.programs.patience_seconds, 0, limit::SECONDS),
            ("programs.stop_seconds", self.programs.stop_seconds, 0, limit::SECONDS),
            ("programs.drain_seconds", self.programs.drain_seconds, 0, limit::SECONDS),
            ("network.megabits_per_second", self.network.megabits_per_second, 1, limit::RATE),
            ("network.packets_per_second", self.network.packets_per_second, 1, limit::RATE),
            ("templates.limit_mib", self.templates.limit_mib, 0, limit::MIB),
            ("templates.monitors", count(self.templates.monitors), 0, limit::COUNT),
            ("files.limit_mib", self.files.limit_mib, 1, limit::MIB),
            ("files.stall_seconds", self.files.stall_seconds, 1, limit::SECONDS),
            ("files.latest_seconds", self.files.latest_seconds, 0, limit::SECONDS),
            ("files.answer_seconds", self.files.answer_seconds, 1, limit::SECONDS),
            ("volumes.limit_mib", self.volumes.limit_mib, 0, limit::MIB),
            ("logs.max_kib", self.logs.max_kib, 1, limit::MIB),
            ("logs.max_programs", count(self.logs.max_programs), 1, limit::COUNT),
        ] {
            if value < at_least {
                return Err(ConfigError::Zero(name));
            }
            if value > at_most {
                return Err(ConfigError::TooMuch(name, at_most));
            }
        }
        Ok(())
    }

    /// The effective settings as a file that [`Config::load`] reads.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("strings, numbers and tables have a TOML form")
    }
}

impl Network {
    fn check(&self) -> Result<(), ConfigError> {
        let mut letters = self.name.chars();
        let fits = letters.next().is_some_and(|first| first.is_ascii_lowercase())
            && letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        if !fits || self.name.len() > limit::NAME {
            return Err(ConfigError::NetworkName(self.name.clone()));
        }
        if let Err(error) = ipv4::Pool::new(self.ipv4_pool) {
            return Err(ConfigError::Pool("ipv4_pool", "a network that is cut into /30", error.to_string()));
        }
        if let Some(pool) = self.ipv6_pool
            && (pool.prefix_len() > 64 || pool.trunc() != pool)
        {
            return Err(ConfigError::Pool("ipv6_pool", "a network of 64 bits or less", pool.to_string()));
        }
        for (name, length) in [
            ("network.name_servers", self.name_servers.len()),
            ("network.refused", self.refused.len()),
            ("network.host_ports", self.host_ports.len()),
        ] {
            if length > limit::LIST {
                return Err(ConfigError::List(name));
            }
        }
        Ok(())
    }
}

/// A list as files have it, or as flags and variables have it: one text with commas.
fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + std::str::FromStr<Err: Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<T> {
        List(Vec<T>),
        Number(u16),
        Text(String),
    }
    let text = match Written::deserialize(from)? {
        Written::List(list) => return Ok(list),
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.parse().map_err(|error| de::Error::custom(format!("{item:?}: {error}")))).collect()
}

/// The flags as a source of settings.
fn flags(arguments: &Arguments) -> Result<config::Config, ConfigError> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(Path::to_string_lossy).map(String::from);
    let mut flags = config::Config::builder()
        .set_override_option("data_dir", path(&arguments.data_dir))?
        .set_override_option("listen", arguments.listen.map(|address| address.to_string()))?
        .set_override_option("ccn", arguments.ccn.clone())?
        .set_override_option("vmm", path(&arguments.vmm))?
        .set_override_option("images", path(&arguments.images))?
        .set_override_option("domain_name", arguments.domain_name.clone())?;
    for assignment in &arguments.set {
        let (key, value) = assignment.split_once('=').ok_or_else(|| ConfigError::Assignment(assignment.clone()))?;
        flags = flags.set_override(key.trim(), value.trim())?;
    }
    Ok(flags.build()?)
}

/// The variables that name a setting.
fn ours(variables: impl IntoIterator<Item = (String, String)>) -> HashMap<String, String> {
    let known = toml::Table::try_from(Config {
        // Optional settings have to be there to be known.
        vmm: Some(PathBuf::new()),
        images: Some(PathBuf::new()),
        node_hash: Some(String::new()),
        network: Network {
            ipv6_pool: Some(Ipv6Net::default()),
            external_interface: Some(String::new()),
            ..Network::default()
        },
        ..Config::default()
    })
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

/// A number of seconds as a duration.
#[must_use]
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
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
        let arguments = ["crn", "--config", &path].into_iter().chain(flags.iter().copied());
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
        let file = "ccn = 'http://file:1/'\ndomain_name = 'file'\n[programs]\nidle_seconds = 1\nmax_calls = 7";
        let flags = ["--ccn", "http://flag:1", "--domain-name", "flag", "--set", "programs.idle_seconds=2"];
        let config = load(file, &flags, &[("BETH_CCN", "http://variable:1"), ("BETH_HTTP__MAX_BODY_MIB", "3")]);
        let config = config.expect("a configuration");
        assert_eq!(config.ccn, "http://variable:1");
        assert_eq!(config.domain_name, "flag");
        assert_eq!((config.programs.idle_seconds, config.programs.max_calls), (2, 7));
        assert_eq!(config.http.max_body_mib, 3);
    }

    #[test]
    fn a_url_loses_the_slash_at_its_end() {
        assert_eq!(load("ccn = 'http://node:1/'", &[], &[]).expect("a configuration").ccn, "http://node:1");
    }

    #[test]
    fn unknown_keys_are_named() {
        assert!(refused("lissten = '127.0.0.1:1'", &[], &[]).contains("lissten"));
        assert!(refused("[programs]\nidle = 1", &[], &[]).contains("idle"));
        assert!(refused("", &["--set", "files.limit=1"], &[]).contains("limit"));
        assert!(refused("", &[], &[("BETH_PROGRAMS__IDLE", "1")]).contains("idle"));
    }

    #[test]
    fn variables_of_other_programs_are_not_ours() {
        let others = [("BETH_CACHE", "/tmp/x"), ("BETH_REQUIRE_KVM", "1"), ("PATH", "/bin"), ("BETH_HTTP", "no")];
        assert_eq!(load("", &[], &others).expect("defaults"), Config::default());
    }

    #[test]
    fn values_have_limits() {
        assert_eq!(refused("[http]\nmax_connections = 0", &[], &[]), "http.max_connections must be at least 1");
        assert!(refused("ccn = 'ftp://node'", &[], &[]).contains("ftp://node"));
        // "For ever" as operators write it: added to the time of day it ended the one task that answers calls.
        let forever = refused("[programs]\nidle_seconds = 9223372036854775807", &[], &[]);
        assert_eq!(forever, "programs.idle_seconds must be at most 315360000");
        assert!(refused("[http]\nmax_body_mib = 17592186044417", &[], &[]).contains("at most"));
        assert!(refused("[http]\nmax_connections = 9223372036854775807", &[], &[]).contains("at most"));
        let nobody = refused("[programs]\nfirst_uid = 65534", &[], &[]);
        assert_eq!(nobody, "programs.first_uid must be between 65536 and 4294901759, not 65534");
        assert!(refused("[programs]\nfirst_uid = 4294901760", &[], &[]).contains("4294901760"));
        assert!(refused("version = 'a b'", &[], &[]).contains("a b"));
        assert!(refused("", &["--set", "programs.idle_seconds"], &[]).contains("KEY=VALUE"));
    }

    #[test]
    fn lists_are_lists_or_texts_with_commas() {
        let file = "[network]\nname_servers = ['192.0.2.1']\nrefused = ['10.0.0.0/8', 'fc00::/7']\nhost_ports = [443]";
        let network = load(file, &[], &[]).expect("a configuration").network;
        assert_eq!((network.name_servers.len(), network.refused.len(), &network.host_ports[..]), (1, 2, &[443][..]));
        let flags = ["--set", "network.refused=", "--set", "network.name_servers=192.0.2.1, 2001:db8::1"];
        let network = load(file, &flags, &[("BETH_NETWORK__HOST_PORTS", "80")]).expect("a configuration").network;
        assert_eq!((network.name_servers.len(), network.refused.len(), &network.host_ports[..]), (2, 0, &[80][..]));
        assert!(refused("[network]\nname_servers = 'somebody'", &[], &[]).contains("somebody"));
    }

    #[test]
    fn networks_are_networks() {
        for (key, value, sentence) in [
            ("name", "'Beth-1'", "network.name must be"),
            ("name", "'eightorso'", "network.name must be"),
            ("ipv4_pool", "'172.16.0.1/12'", "network.ipv4_pool must be"),
            ("ipv4_pool", "'172.16.0.0/31'", "network.ipv4_pool must be"),
            ("ipv4_pool", "'everything'", "ipv4_pool"),
            ("ipv6_pool", "'2001:db8::/96'", "network.ipv6_pool must be"),
            ("ipv6_pool", "'2001:db8::1/64'", "network.ipv6_pool must be"),
            ("mode", "'maybe'", "maybe"),
            ("megabits_per_second", "0", "network.megabits_per_second must be at least 1"),
        ] {
            let error = refused(&format!("[network]\n{key} = {value}"), &[], &[]);
            assert!(error.contains(sentence), "{key} = {value}: {error}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        let config = load("node_hash = 'abc'\n[logs]\nmax_kib = 9", &[], &[]).expect("a configuration");
        assert_eq!(load(&config.to_toml(), &[], &[]).expect("a configuration"), config);
    }
}
