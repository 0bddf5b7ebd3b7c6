//! The network's own clients, unchanged, against a development node: the command line `aleph` and the library `aleph-sdk-python`, each in an environment
//! of its own, the command line in Rust ([`rust`]) and the packages of TypeScript ([`typescript`]). A test runs the real program and looks at what it
//! prints and how it ends.
//!
//! | environment | what is in it |
//! |---|---|
//! | `pinned` | the pair that the clients were recorded with |
//! | `newest` | the command line that PyPI installs today, with the library that it asks for |
//! | `newest_sdk` | the library that PyPI installs today |
//!
//! [`NOT_RUN`] says what of them is not run, and why, as those of the other clients do; such tests show as ignored.

mod commands;
mod library;
mod rust;
mod typescript;

use crate::{
    answer::{expect_json, sha256},
    stage,
};
use anyhow::{Context as _, Result, ensure};
use harness::{
    aleph::Aleph,
    devnet::{Account, CoreNode},
    python::Environment,
};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

/// How long what was the newest counts as the newest.
const NEWEST_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// A compute node that is registered and not there.
const CRN: &str = "http://127.0.0.1:9";

/// What of these clients is not run, and why.
const NOT_RUN: [(&str, &str); 12] = [
    ("file upload of a folder", "it sends folders to an IPFS gateway on the internet, whatever node it is pointed to"),
    ("file download --use-ipfs", "it reads from an IPFS gateway on the internet"),
    ("account vouchers", "they are read from contracts and from a service on the internet"),
    ("domain add, and the checks of domain info", "they ask for DNS records of a domain that somebody owns"),
    ("instance create to its end", "it reserves and starts on a compute node with QEMU, and there is none yet"),
    (
        "instance create by holding or by stream",
        "the network refuses the one since March 2026, the other needs a chain",
    ),
    (
        "instance start, stop, reboot, logs, backup, rescue, confidential",
        "they talk to a compute node with the instance",
    ),
    ("instance list of what is paid by holding", "the scheduler's address on the internet is part of the program"),
    ("program logs and runtime-checker", "they ask compute nodes on the internet"),
    (
        "program upload --persistent, program persist",
        "1.9.3 pays by holding, which the network refuses since March 2026",
    ),
    ("program list --json", "1.9.3 fails at what it prints itself: its own defect"),
    ("account create, config, migrate", "they ask nobody"),
];

/// What clients run in, and the node that they are pointed to.
pub(super) struct Clients<E = Environment> {
    name: &'static str,
    environment: E,
    core: CoreNode,
    folder: PathBuf,
}

static PINNED: OnceLock<Result<Clients, String>> = OnceLock::new();
static NEWEST: OnceLock<Result<Clients, String>> = OnceLock::new();
static NEWEST_SDK: OnceLock<Result<Clients, String>> = OnceLock::new();

type Flow = fn(&Clients) -> Result<()>;

/// Flows of the command line; each has accounts of its own.
const COMMANDS: [(&str, Flow); 9] = [
    ("accounts_and_credits_are_shown", commands::accounts),
    ("messages_are_posted_found_amended_watched_and_forgotten", commands::messages),
    ("aggregates_are_set_read_and_emptied", commands::aggregates),
    ("authorizations_are_given_and_taken_back", commands::authorizations),
    ("files_go_up_and_come_back", commands::files),
    ("programs_are_uploaded_updated_and_deleted", commands::programs),
    ("instances_are_listed_forwarded_and_deleted", commands::instances),
    ("domains_are_attached_and_detached", commands::domains),
    ("prices_and_nodes_are_shown", commands::network),
];

/// Flows of the library.
const LIBRARY: [(&str, Flow); 7] = [
    ("posts_and_pages", library::posts),
    ("aggregates", library::aggregates),
    ("files_and_prices", library::files),
    ("lack_of_funds_is_understood", library::funds),
    ("the_network_of_itself", library::network),
    ("messages_are_watched", library::watch),
    ("lists_of_accounts", library::accounts),
];

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, flow) in COMMANDS {
        trials.push(trial(format!("aleph::{name}"), move || flow(pinned()?)));
    }
    for (name, flow) in LIBRARY {
        trials.push(trial(format!("sdk::{name}"), move || flow(pinned()?)));
        trials.push(trial(format!("newest_sdk::{name}"), move || flow(newest_sdk()?)));
    }
    trials.push(trial("newest::the_command_line_passes_the_same_flows".to_owned(), newest_commands));
    trials.extend(not_run("not_run", &NOT_RUN));
    trials.extend(rust::trials());
    trials.extend(typescript::trials());
    trials
}

/// A flow as a test.
fn trial(name: String, flow: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let test = move || flow().map_err(|error| Failed::from(format!("{error:#}")));
    Trial::test(format!("ccn::clients::{name}"), test)
}

/// What is not run, each with its reason, as tests that are ignored.
fn not_run(place: &str, list: &[(&'static str, &'static str)]) -> Vec<Trial> {
    let refuse = |&(what, reason): &(&'static str, &'static str)| {
        let name = format!("{place}::{}", what.replace(' ', "_"));
        trial(name, move || anyhow::bail!("{what} cannot be run here: {reason}")).with_ignored_flag(true)
    };
    list.iter().map(refuse).collect()
}

fn pinned() -> Result<&'static Clients> {
    stage::once(&PINNED, || Clients::start("pinned", None))
}

fn newest() -> Result<&'static Clients> {
    stage::once(&NEWEST, || Clients::start("newest", Some(NEWEST_FOR)))
}

fn newest_sdk() -> Result<&'static Clients> {
    stage::once(&NEWEST_SDK, || Clients::start("newest_sdk", Some(NEWEST_FOR)))
}

/// All flows with the newest command line. While that is the pinned one, only some: what it is installed with may differ.
fn newest_commands() -> Result<()> {
    let (newest, pinned) = (newest()?, pinned()?);
    for package in ["aleph-client", "aleph-sdk-python"] {
        if newest.environment.version(package)? != pinned.environment.version(package)? {
            return COMMANDS.iter().try_for_each(|(name, flow)| flow(newest).context(*name));
        }
    }
    commands::accounts(newest)?;
    commands::aggregates(newest)
}

impl Clients {
    fn start(name: &'static str, fresh_for: Option<Duration>) -> Result<Self> {
        let requirements = here().join(format!("{name}.txt"));
        let environment = Environment::install(&stage::cache()?, &format!("clients-{name}"), &requirements, fresh_for)?;
        Self::with_environment(name, environment)
    }
}

/// What a command line runs in.
pub(super) trait CommandLine {
    /// Somebody who uses it with that core node; what it keeps is in `home`.
    fn aleph(&self, core_url: &str, home: &Path, account: Account) -> Result<Aleph>;
}

impl CommandLine for Environment {
    fn aleph(&self, core_url: &str, home: &Path, account: Account) -> Result<Aleph> {
        Aleph::in_python(self, core_url, home, account)
    }
}

impl<E: CommandLine> Clients<E> {
    /// Somebody with one of the funded accounts.
    fn somebody(&self, number: usize) -> Result<Aleph> {
        self.with(self.funded(number)?)
    }

    /// Somebody who has nothing.
    fn stranger(&self) -> Result<Aleph> {
        self.with(self.penniless()?)
    }

    fn with(&self, account: Account) -> Result<Aleph> {
        let home = self.folder.join(&account.address);
        self.environment.aleph(self.core.url(), &home, account)
    }
}

impl<E> Clients<E> {
    /// Starts the node that these clients are pointed to.
    fn with_environment(name: &'static str, environment: E) -> Result<Self> {
        let folder = stage::folder(&format!("clients-{name}"))?;
        let image = folder.join("image");
        fs::write(&image, "what an image is does not matter to a core node")?;
        let settings = folder.join("ccn.toml");
        let images = format!("[[development.images]]\nname = \"base\"\nkind = \"program\"\nfile = {}\n", json!(image));
        fs::write(&settings, format!("crns = [{}]\n{images}", json!(CRN)))?;
        let arguments = ["--dev".to_owned(), "--config".to_owned(), settings.display().to_string()];
        let core = CoreNode::start(stage::installation(), &folder, &arguments)?;
        Ok(Self { name, environment, core, folder })
    }

    /// One of the funded accounts.
    fn funded(&self, number: usize) -> Result<Account> {
        let accounts = self.core.accounts("account");
        ensure!(accounts.len() == 10, "ten accounts are funded, not {}", accounts.len());
        accounts.into_iter().nth(number).context("there are ten accounts")
    }

    /// The account of somebody who has nothing.
    fn penniless(&self) -> Result<Account> {
        self.unfunded("a stranger")
    }

    /// An account of their own for whom a test calls that, and who has nothing.
    fn unfunded(&self, who: &str) -> Result<Account> {
        let word = format!("{who} to {}", self.name);
        let account = super::letter::account(&word)?;
        Ok(Account { address: account.address().to_owned(), key: format!("0x{}", sha256(word.as_bytes())) })
    }

    /// The hash of the image that is there from the start.
    fn image(&self) -> Result<String> {
        let path = "/api/v0/aggregates/0xFba561a84A537fCaa567bb7A2257e7142701ae2A.json?keys=runtimes";
        let answer = expect_json(200, self.core.client().get(path)?)?;
        let hash = answer["data"]["runtimes"]["entries"][0]["item_hash"].as_str();
        Ok(hash.with_context(|| format!("no image: {answer}"))?.to_owned())
    }

    /// The hash of the compute node that is registered.
    fn compute_node(&self) -> Result<String> {
        let answer = expect_json(200, self.core.client().get("/api/v0/nodes")?)?;
        Ok(answer["nodes"][0]["node_id"].as_str().context("one is registered")?.to_owned())
    }

    /// What the node says of a message.
    fn message(&self, hash: &str) -> Result<Value> {
        expect_json(200, self.core.client().get(&format!("/api/v0/messages/{hash}"))?)
    }
}

/// A text by its name.
fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}

/// Where these tests are.
fn here() -> PathBuf {
    stage::repository().join("tests/ccn/clients")
}
