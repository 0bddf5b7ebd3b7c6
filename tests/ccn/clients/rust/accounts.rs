//! Flows of accounts: what they have, what they sign with, whom they trust.

use super::{SIGNED, json, submit, text};
use crate::{
    answer::{expect, expect_json, sha256},
    ccn::{
        clients::Clients,
        letter::{account_with_key, message, publish},
    },
};
use anyhow::{Result, ensure};
use harness::devnet::Account;
use serde_json::{Value, json as value};
use std::path::PathBuf;

/// What each of the funded accounts has.
const CREDITS: i64 = 1_000_000_000_000;

pub(super) fn credits(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(0)?;
    let address = somebody.account().address.as_str();
    let balance = json(&somebody, &["account", "balance", address])?;
    ensure!(balance["address"] == address && balance["aleph_tokens"] == 1_000_000.0, "{balance:#}");
    ensure!(balance["credits"] == CREDITS, "{balance:#}");
    somebody.complains(1, &["account", "balance"], &["no default account set"])?;

    let other = clients.stranger()?;
    let transfer = ["credit", "transfer", "--to", &other.account().address, "--amount", "1000000", "--yes"];
    submit(clients, &somebody, &transfer)?;
    let balance = json(&other, &["account", "balance", &other.account().address])?;
    ensure!(balance["credits"] == 1_000_000, "{balance:#}");
    let history = json(&somebody, &["credit", "history", "--address", address])?;
    ensure!(amounts(&history) == [-1_000_000, CREDITS], "{history:#}");
    let summary = json(&somebody, &["credit", "summary", "--address", address, "--expenses"])?;
    ensure!(summary["entry_count"] == 1 && summary["total_outgoing"] == 1_000_000, "{summary:#}");
    // More than there is.
    let transfer = ["credit", "transfer", "--to", address, "--amount", "2000000", "--yes"];
    other.complains(1, &[&transfer[..], &SIGNED].concat(), &["rejected"])
}

fn amounts(history: &Value) -> Vec<i64> {
    history["credit_history"].as_array().into_iter().flatten().filter_map(|entry| entry["amount"].as_i64()).collect()
}

pub(super) fn encrypted(clients: &Clients<PathBuf>) -> Result<()> {
    let mut somebody = clients.somebody(1)?;
    let (address, key) = (somebody.account().address.clone(), somebody.account().key.clone());
    // From now on its key is in its own store and nowhere else.
    somebody.unset("ALEPH_PRIVATE_KEY");
    somebody.set("ALEPH_PASSWORD", "a password");
    let none = ["post", "create", "--type", "note", "--content", "{}"];
    somebody.complains(1, &none, &["no default account set"])?;
    somebody.succeed(&["account", "import", "ada", "--private-key", &key, "--encrypted"])?;
    somebody.succeed(&["account", "use", "ada"])?;
    let shown = json(&somebody, &["account", "show"])?;
    ensure!(shown["address"] == address && shown["name"] == "ada", "{shown:#}");
    let balance = json(&somebody, &["account", "balance"])?;
    ensure!(balance["address"] == address, "{balance:#}");
    let sent = json(&somebody, &["post", "create", "--type", "note", "--content", "{\"title\": \"sealed\"}"])?;
    ensure!(sent["sender"] == address && sent["message_status"] == "processed", "{sent:#}");
    somebody.set("ALEPH_PASSWORD", "another password");
    somebody.complains(1, &["post", "create", "--type", "note", "--content", "{}"], &["password"])?;

    somebody.succeed(&["account", "alias", "add", "friend", &clients.funded(0)?.address])?;
    let balance = json(&somebody, &["account", "balance", "friend"])?;
    ensure!(balance["address"] == clients.funded(0)?.address, "{balance:#}");
    somebody.succeed(&["account", "remove", "ada", "--yes"])?;
    somebody.complains(1, &["account", "show", "ada"], &["not found"])
}

pub(super) fn ssh_keys(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(2)?;
    let address = somebody.account().address.as_str();
    let list = ["account", "ssh-key", "list", "--address", address];
    ensure!(json(&somebody, &list)? == value!([]), "there are keys from the start");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKkn3OXbvOKsi1fFDHUJ9BoTyjyzHJ0mTDBVRfl6bS ada@home";
    submit(clients, &somebody, &["account", "ssh-key", "add", "laptop", "--key", key])?;
    let listed = json(&somebody, &list)?;
    ensure!(listed[0]["label"] == "laptop" && listed[0]["key"] == key, "{listed:#}");
    submit(clients, &somebody, &["account", "ssh-key", "remove", "laptop", "--yes"])?;
    ensure!(json(&somebody, &list)? == value!([]), "the key is still there");
    Ok(())
}

pub(super) fn solana(clients: &Clients<PathBuf>) -> Result<()> {
    // A key of Solana is as long as one of Ethereum.
    let key = sha256(b"somebody with an account of Solana");
    let somebody = clients.with(Account { address: "somebody-of-solana".to_owned(), key })?;
    let post = ["post", "create", "--type", "note", "--content", "{\"title\": \"from afar\"}", "--chain", "sol"];
    let sent = json(&somebody, &post)?;
    ensure!(sent["message_status"] == "processed" && sent["chain"] == "SOL", "{sent:#}");
    let kept = clients.message(text(&sent, "item_hash")?)?["message"].take();
    // It sends its signature as an object; the network wants the JSON of it as text.
    let signature: Value = serde_json::from_str(text(&kept, "signature")?)?;
    ensure!(signature["publicKey"] == sent["sender"] && signature["signature"].is_string(), "{kept:#}");
    Ok(())
}

pub(super) fn authorizations(clients: &Clients<PathBuf>) -> Result<()> {
    let (owner, delegate) = (clients.somebody(3)?, clients.stranger()?);
    let (mine, address) = (owner.account().address.as_str(), delegate.account().address.as_str());
    let client = clients.core.client();
    let aggregate = message(
        &account_with_key(&delegate.account().key)?,
        "AGGREGATE",
        &value!({"key": "profile", "address": mine, "content": {"name": "Eve"}}),
    )?;
    let post = ["post", "create", "--type", "note", "--content", "{\"a\": 1}", "--on-behalf-of", mine];
    delegate.complains(1, &[&post[..], &SIGNED].concat(), &["rejected"])?;
    let add = ["authorization", "add", address, "--message-types", "post", "--post-types", "note"];
    submit(clients, &owner, &add)?;
    let listed = json(&owner, &["authorization", "list", "--address", mine])?;
    ensure!(listed[0]["address"] == address && listed[0]["types"] == value!(["POST"]), "{listed:#}");
    ensure!(listed[0]["post_types"] == value!(["note"]), "{listed:#}");
    let received =
        || -> Result<String> { Ok(json(&delegate, &["authorization", "received", "--address", address])?.to_string()) };
    ensure!(received()?.contains(mine) && received()?.contains("note"), "{}", received()?);
    let hash = submit(clients, &delegate, &post)?;
    ensure!(clients.message(&hash)?["message"]["content"]["address"] == mine, "it is not the owner's");
    expect(422, publish(&client, &aggregate, true)?)?;
    submit(clients, &owner, &["authorization", "revoke", address])?;
    ensure!(json(&owner, &["authorization", "list", "--address", mine])? == value!([]), "one is left");
    ensure!(!received()?.contains(mine), "{}", received()?);
    delegate.complains(1, &[&post[..], &SIGNED].concat(), &["rejected"])?;
    let kept = expect_json(200, client.get(&format!("/api/v0/aggregates/{mine}.json?keys=security"))?)?;
    ensure!(kept["data"]["security"] == value!({"authorizations": []}), "{kept:#}");
    Ok(())
}
