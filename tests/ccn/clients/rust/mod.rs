//! The command line in Rust, of the crate `aleph-cli`, told of the node as a network of its own.
//!
//! It is not of the workspace: what it is compiled with are the versions of its own lock file.

mod accounts;
mod files;
mod machines;
mod messages;
mod network;

use super::{Clients, CommandLine, not_run, text, trial};
use crate::stage;
use anyhow::{Result, ensure};
use harness::{aleph::Aleph, crates, devnet::Account};
use libtest_mimic::Trial;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What somebody gets who compiles it today.
const VERSION: &str = "0.22.0";

/// What of it is not run, and why.
const NOT_RUN: [(&str, &str); 11] = [
    ("file upload --use-gateway-relay", "it sends folders to an IPFS gateway on the internet"),
    ("account create, import without --encrypted", "they keep keys in a desktop's keyring"),
    ("account import --ledger", "it asks a device"),
    ("account migrate, config, completions", "they ask nobody; what the tests need of config they use"),
    ("credit buy, token swap", "they pay on a chain"),
    ("instance create --interactive", "it asks a terminal"),
    ("instance create --confidential, --encrypt-rootfs", "they measure images of the network, and encrypt as root"),
    (
        "instance start, stop, reboot, erase, logs, ssh, reinstall, backup, confidential, attest, unlock",
        "they talk to a compute node with the instance",
    ),
    ("instance port-forward refresh", "it talks to a compute node with the instance"),
    ("vprogram create, run, call", "they need images of the network, QEMU and SEV-SNP"),
    (
        "message forget --aggregates, aggregate forget",
        "they name aggregates by hashes, the network by keys: its own defect",
    ),
];

static CLIENTS: OnceLock<Result<Clients<PathBuf>, String>> = OnceLock::new();

type Flow = fn(&Clients<PathBuf>) -> Result<()>;

/// Flows; each has accounts of its own.
const FLOWS: [(&str, Flow); 16] = [
    ("balances_and_credits_are_shown", accounts::credits),
    ("an_encrypted_account_signs", accounts::encrypted),
    ("keys_for_instances_are_registered", accounts::ssh_keys),
    ("an_account_of_solana_signs", accounts::solana),
    ("authorizations_are_given_and_taken_back", accounts::authorizations),
    ("posts_are_created_amended_found_and_forgotten", messages::posts),
    ("rejected_messages_are_sent_again", messages::retry),
    ("messages_are_carried_from_node_to_node", messages::sync),
    ("aggregates_are_created_edited_and_listed", messages::aggregates),
    ("files_go_up_and_come_back", files::files),
    ("folders_go_up_as_one", files::folders),
    ("websites_are_deployed_with_their_domains", files::websites),
    ("programs_are_created_updated_and_deleted", machines::programs),
    ("instances_are_created_forwarded_and_deleted", machines::instances),
    ("prices_are_shown", network::prices),
    ("nodes_are_listed_and_their_operators_heard", network::nodes),
];

pub(super) fn trials() -> Vec<Trial> {
    let flows = FLOWS.map(|(name, flow)| trial(format!("rust::{name}"), move || flow(clients()?)));
    flows.into_iter().chain(not_run("rust::not_run", &NOT_RUN)).collect()
}

fn clients() -> Result<&'static Clients<PathBuf>> {
    stage::once(&CLIENTS, || {
        let programs = crates::install(&stage::cache()?, "aleph-cli", VERSION)?;
        Clients::with_environment("rust", programs)
    })
}

impl CommandLine for PathBuf {
    fn aleph(&self, core_url: &str, home: &Path, account: Account) -> Result<Aleph> {
        Aleph::in_rust(self, core_url, home, account)
    }
}

/// What a command prints as JSON.
fn json(somebody: &Aleph, words: &[&str]) -> Result<Value> {
    somebody.json(&[words, &["--json"]].concat())
}

/// Signs and sends what a command is for; returns the hash of the message, which the node has processed.
fn submit(clients: &Clients<PathBuf>, somebody: &Aleph, words: &[&str]) -> Result<String> {
    let sent = json(somebody, &[words, &SIGNED].concat())?;
    let hash = text(&sent, "item_hash")?;
    ensure!(sent["message_status"] == "processed", "{words:?} printed {sent:#}");
    ensure!(clients.message(hash)?["status"] == "processed", "the node thinks otherwise of {sent:#}");
    Ok(hash.to_owned())
}

/// What the key in the environment signs for.
const SIGNED: [&str; 2] = ["--chain", "eth"];
