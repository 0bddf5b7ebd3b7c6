//! The network's packages of TypeScript on Node, by `flows.mjs`.

use super::{Clients, here, not_run, text, trial};
use crate::{
    answer::{expect, expect_json, sha256},
    ccn::letter::{account_with_key, hash_of, post, publish},
    stage,
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::Account, npm::Packages};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Output},
    sync::OnceLock,
};

/// What of these packages is not run, and why.
const NOT_RUN: [(&str, &str); 6] = [
    ("client watchMessages", "it listens to a node on the internet, whatever node the client has: its own defect"),
    ("client getMessageError", "it asks a node on the internet, whatever node the client has: its own defect"),
    ("evm getALEPHBalance", "it reads a contract on the internet"),
    ("ethereum getAccountFromProvider", "it asks the wallet of a browser"),
    (
        "program spawn, and programs with a file",
        "the file is paid by holding, which the network takes no more from 2027 on",
    ),
    ("superfluid", "it opens streams on a chain"),
];

static CLIENTS: OnceLock<Result<Clients<Packages>, String>> = OnceLock::new();

type Flow = fn(&Clients<Packages>) -> Result<()>;

/// Flows; each has accounts of its own.
const FLOWS: [(&str, Flow); 11] = [
    ("accounts_are_made_and_imported", accounts),
    ("an_account_of_solana_signs", solana),
    ("posts_are_created_amended_and_forgotten", posts),
    ("aggregates_are_created_and_fetched", aggregates),
    ("files_are_stored_pinned_priced_and_downloaded", files),
    ("programs_are_published_and_forgotten", programs),
    ("instances_are_created", instances),
    ("messages_are_found_by_every_filter", messages),
    ("messages_are_watched", watch),
    ("a_delegate_posts_for_another", delegates),
    ("what_the_node_refuses_is_an_error", refusals),
];

pub(super) fn trials() -> Vec<Trial> {
    let flows = FLOWS.map(|(name, flow)| trial(format!("typescript::{name}"), move || flow(clients()?)));
    flows.into_iter().chain(not_run("typescript::not_run", &NOT_RUN)).collect()
}

fn clients() -> Result<&'static Clients<Packages>> {
    stage::once(&CLIENTS, || {
        let source = here().join("typescript");
        let packages = Packages::install(&stage::cache()?, "clients-typescript", &source)?;
        let clients = Clients::with_environment("typescript", packages)?;
        // Node looks for packages beside what asks for them.
        fs::copy(source.join("flows.mjs"), clients.folder.join("flows.mjs"))?;
        symlink(clients.environment.modules(), clients.folder.join("node_modules"))?;
        Ok(clients)
    })
}

/// How a flow ends.
fn run(clients: &Clients<Packages>, account: &Account, words: &[&str]) -> Result<Output> {
    Command::new("node")
        .arg("flows.mjs")
        .args(words)
        .current_dir(&clients.folder)
        .env("CORE_URL", clients.core.url())
        .env("PRIVATE_KEY", format!("0x{}", account.key.trim_start_matches("0x")))
        .output()
        .context("cannot start node")
}

/// What a flow answers that does what it is told.
fn flow(clients: &Clients<Packages>, account: &Account, words: &[&str]) -> Result<Value> {
    let output = run(clients, account, words)?;
    let (printed, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "flows.mjs {words:?} ended with {}:\n{complained}", output.status);
    serde_json::from_str(&printed).with_context(|| format!("flows.mjs {words:?} printed no JSON: {printed}"))
}

/// Fails unless these are among what a flow answered.
fn among(answer: &Value, expected: &Value) -> Result<()> {
    for (name, value) in expected.as_object().context("names and values")? {
        ensure!(answer[name] == *value, "{name} is not {value}: {answer:#}");
    }
    Ok(())
}

fn accounts(clients: &Clients<Packages>) -> Result<()> {
    let account = clients.funded(0)?;
    let answer = flow(clients, &account, &["accounts"])?;
    ensure!(answer == json!({"address": account.address, "chain": "ETH", "same": true, "words": 12}), "{answer:#}");
    Ok(())
}

fn solana(clients: &Clients<Packages>) -> Result<()> {
    let answer = flow(clients, &clients.funded(0)?, &["solana"])?;
    among(&answer, &json!({"chain": "SOL", "mine": true, "profile": {"name": "Sol"}}))?;
    ensure!(clients.message(text(&answer, "hash")?)?["status"] == "processed", "{answer:#}");
    Ok(())
}

fn posts(clients: &Clients<Packages>) -> Result<()> {
    let account = clients.funded(1)?;
    let answer = flow(clients, &account, &["posts"])?;
    let expected = json!({
        "titles": ["a", "b"], "newest": true, "total": 4, "page": 3, "length": 100_000, "left": 3,
        "engines": ["inline", "storage", "storage", "ipfs"],
        "forgotten": "ForgottenMessageError", "unknown": "MessageNotFoundError", "gone": "MessageNotFoundError",
    });
    among(&answer, &expected)?;
    ensure!(clients.message(text(&answer, "hash")?)?["status"] == "forgotten", "the node keeps it: {answer:#}");
    let path = format!("/api/v0/posts.json?addresses={}", account.address);
    let posts = expect_json(200, clients.core.client().get(&path)?)?;
    ensure!(posts["pagination_total"] == 3, "{posts:#}");
    Ok(())
}

fn aggregates(clients: &Clients<Packages>) -> Result<()> {
    let account = clients.funded(2)?;
    let answer = flow(clients, &account, &["aggregates"])?;
    let (profile, other) = (json!({"name": "Ada", "age": 37}), json!({"a": [1, null]}));
    let all = json!({"profile": profile, "other": other});
    let expected = json!({"one": profile, "all": all, "some": {"other": other}, "none": "MessageNotFoundError"});
    ensure!(answer == expected, "{answer:#}");
    let path = format!("/api/v0/aggregates/{}.json", account.address);
    let kept = expect_json(200, clients.core.client().get(&path)?)?;
    ensure!(kept["data"] == all, "{kept:#}");
    Ok(())
}

fn files(clients: &Clients<Packages>) -> Result<()> {
    let account = clients.funded(3)?;
    let answer = flow(clients, &account, &["files"])?;
    // 25 MiB, the least that is paid for, at 0.18 credits an hour; 30 MiB at a third of a token.
    let expected = json!({
        "small": "hello world\n", "large": true, "hash": sha256(b"hello world\n"),
        "price": ["credit", "0.001250000000000000"], "estimate": ["hold", "9.999999990000000000", 1],
    });
    among(&answer, &expected)?;
    let (hash, cid) = (text(&answer, "hash")?, text(&answer, "cid")?);
    ensure!(cid.starts_with("Qm"), "{answer:#}");
    let client = clients.core.client();
    for message in answer["messages"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        ensure!(clients.message(message)?["status"] == "processed", "{message} of {answer:#}");
    }
    let listed = expect_json(200, client.get(&format!("/api/v0/addresses/{}/files", account.address))?)?;
    let kept: Vec<&str> =
        listed["files"].as_array().into_iter().flatten().filter_map(|file| file["file_hash"].as_str()).collect();
    ensure!(kept.contains(&hash) && kept.contains(&cid), "{listed:#}");
    let raw = expect(200, client.get(&format!("/api/v0/storage/raw/{hash}"))?)?;
    ensure!(raw.text() == "hello world\n", "another file came back for {hash}");
    Ok(())
}

fn programs(clients: &Clients<Packages>) -> Result<()> {
    let account = clients.funded(4)?;
    let answer = flow(clients, &account, &["programs", &clients.image()?])?;
    let expected = json!({
        "name": "one", "variables": {"GREETING": "hello"}, "code": true, "same": true, "payment": "credit",
        "forgotten": "ForgottenMessageError",
    });
    among(&answer, &expected)?;
    ensure!(text(&answer, "unknown")?.contains("does not exist on Aleph network"), "{answer:#}");
    ensure!(clients.message(text(&answer, "hash")?)?["status"] == "forgotten", "the node keeps it: {answer:#}");
    Ok(())
}

fn instances(clients: &Clients<Packages>) -> Result<()> {
    let account = clients.funded(5)?;
    let node = clients.compute_node()?;
    let answer = flow(clients, &account, &["instances", &node, &clients.image()?])?;
    // 14250 credits an hour for the one compute unit, whose disk is as large as the machine's.
    among(&answer, &json!({"estimate": ["credit", "3.958333333333333333"], "same": true}))?;
    let hash = text(&answer, "hash")?;
    ensure!(clients.message(hash)?["status"] == "processed", "{answer:#}");
    let path = format!("/api/v1/vms?owners={}", account.address);
    let mine = expect_json(200, clients.core.client().get(&path)?)?;
    ensure!(mine["items"][0]["vm_hash"] == hash && mine["items"][0]["allocated_node"] == node, "{mine:#}");
    Ok(())
}

fn messages(clients: &Clients<Packages>) -> Result<()> {
    let answer = flow(clients, &clients.funded(6)?, &["messages"])?;
    let expected = json!({
        "all": [3, 2, 1, 0], "channel": [2, 1], "types": [3, 2, 1, 0], "type": [3], "kinds": [2, 0], "keys": [3],
        "refs": [2, 1, 0], "tags": [0], "hashes": [3, 1], "chains": [3, 2, 1, 0], "other_chain": [], "paid": [],
        "since": [3, 2, 1, 0], "until": [], "page": [[0], 4],
    });
    ensure!(answer == expected, "{answer:#}\nis not\n{expected:#}");
    Ok(())
}

fn watch(clients: &Clients<Packages>) -> Result<()> {
    let answer = flow(clients, &clients.funded(7)?, &["watch"])?;
    let heard: Vec<i64> = answer["heard"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    ensure!(heard.len() >= 3 && heard.windows(2).all(|pair| pair[1] == pair[0] + 1), "some were left out: {answer}");
    ensure!(answer["open"] == true, "the node closed the socket: {answer}");
    Ok(())
}

fn delegates(clients: &Clients<Packages>) -> Result<()> {
    let (owner, delegate) = (clients.funded(8)?, clients.penniless()?);
    let answer = flow(clients, &owner, &["delegates", &delegate.key])?;
    let expected = json!({"before": "InvalidMessageError", "address": owner.address, "sender": delegate.address});
    ensure!(answer == expected, "{answer:#}");
    Ok(())
}

fn refusals(clients: &Clients<Packages>) -> Result<()> {
    let client = clients.core.client();
    let post = post(&account_with_key(&clients.funded(9)?.key)?, "mine")?;
    expect(200, publish(&client, &post, true)?)?;
    fails(clients, &clients.funded(0)?, &["amend", hash_of(&post)])?;
    let posts = expect_json(200, client.get(&format!("/api/v0/posts.json?hashes={}", hash_of(&post)))?)?;
    ensure!(posts["posts"][0]["content"]["text"] == "mine", "somebody else amended it: {posts:#}");

    let stranger = clients.penniless()?;
    fails(clients, &stranger, &["overspend", &clients.image()?])?;
    let path = format!("/api/v0/messages.json?msgTypes=INSTANCE&addresses={}", stranger.address);
    let instances = expect_json(200, client.get(&path)?)?;
    ensure!(instances["pagination_total"] == 0, "nobody paid for it: {instances:#}");
    Ok(())
}

/// Fails unless a flow is ended by the error of what the node refuses.
fn fails(clients: &Clients<Packages>, account: &Account, words: &[&str]) -> Result<()> {
    let output = run(clients, account, words)?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "flows.mjs {words:?} ended with {}:\n{complained}", output.status);
    for word in ["InvalidMessageError", "Request failed with status code 422"] {
        ensure!(complained.contains(word), "{word:?} is not in what flows.mjs {words:?} complained of:\n{complained}");
    }
    Ok(())
}
