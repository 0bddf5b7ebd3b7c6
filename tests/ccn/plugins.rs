//! Plugins that are dropped into a running node, by the operator's own means: a folder and the command line.

use super::letter::{account, hash_of, message, post, publish};
use crate::{
    answer::{expect, expect_json},
    stage::{self, VERDICT_WITHIN, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::CoreNode, hand_made::HandMade, http::Client};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A message type of this test's own.
const KIND: &str = "DROPPED";

fn manifest(version: &str) -> String {
    json!({
        "name": "dropped", "version": version, "wit": "aleph:plugin@0.2", "kind": "handler", "types": [KIND],
        "state": {"own": "dropped", "version": 1}, "grants": [], "routes": ["/api/v0/dropped"],
        "limits": {"fuel": 10_000_000, "memory-mib": 4, "write-kib": 1, "writes": 1},
    })
    .to_string()
}

/// A node of its own, with its folder.
struct Site {
    folder: tempfile::TempDir,
    node: CoreNode,
}

impl Site {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let node = CoreNode::start(stage::installation(), folder.path(), &["--dev".to_owned()])?;
        Ok(Self { folder, node })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn put(&self, plugin: &[u8]) -> Result<PathBuf> {
        let path = self.data().join("plugins/dropped.wasm");
        fs::write(&path, plugin)?;
        Ok(path)
    }

    /// What the file shows as.
    fn shown(&self) -> Result<Option<Value>> {
        let list = expect_json(200, self.node.client().get("/api/v0/plugins")?)?;
        let mut of_file = list["plugins"].as_array().into_iter().flatten().filter(|it| it["file"] == "dropped.wasm");
        Ok(of_file.next_back().cloned())
    }

    fn wait_for_state(&self, state: &str) -> Result<Value> {
        let mut last = None;
        wait_until(VERDICT_WITHIN, "the plugin's state", || {
            last = self.shown()?;
            Ok(last.as_ref().is_some_and(|plugin| plugin["state"] == state))
        })
        .with_context(|| format!("{last:?} is not {state}"))?;
        last.context("it is shown")
    }

    /// `ccn node WORDS`; what it prints, and whether it succeeded.
    fn command(&self, words: &[&str]) -> Result<(bool, String)> {
        self.node.operator(words)
    }
}

fn status_of(ccn: &Client, message: &Value) -> Result<String> {
    let answer = expect_json(200, ccn.get(&format!("/api/v0/messages/{}/status", hash_of(message)))?)?;
    Ok(answer["status"].as_str().unwrap_or_default().to_owned())
}

fn becomes_processed(ccn: &Client, message: &Value) -> Result<()> {
    wait_until(VERDICT_WITHIN, "a verdict", || Ok(status_of(ccn, message)? == "processed"))
}

pub(crate) fn drop_in() -> Result<()> {
    let site = Site::new()?;
    let ccn = site.node.client();
    let account = account("drop in")?;
    let early = message(&account, KIND, &json!({"number": 1}))?;
    let answer = expect_json(422, publish(&ccn, &early, true)?)?;
    ensure!(answer["error_code"] == 0 && answer["message_status"] == "rejected", "{answer}");
    expect(404, ccn.get("/api/v0/dropped")?)?;

    // Compiled in a process of its own, and active.
    let path = site.put(&HandMade::new(&manifest("1")).component()?)?;
    becomes_processed(&ccn, &early)?;
    let shown = site.wait_for_state("active")?;
    ensure!(shown["types"] == json!([KIND]) && shown["origin"] == "file", "{shown}");
    expect(200, ccn.get("/api/v0/dropped")?)?;
    let (is_good, text) = site.command(&["plugins"])?;
    ensure!(is_good && text.contains("dropped 1 file DROPPED active"), "{text}");

    // What does not compile is refused by the process that compiles, and the one before goes on.
    let whole = HandMade::new(&manifest("2")).component()?;
    let manifest_at = whole.windows(14).position(|window| window == b"aleph:manifest").context("it has a manifest")?;
    let mut broken = whole.clone();
    // Somewhere in the code before it.
    for byte in &mut broken[manifest_at / 2..manifest_at / 2 + 40] {
        *byte ^= 0x55;
    }
    site.put(&broken)?;
    let refused = site.wait_for_state("refused")?;
    ensure!(refused["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{refused}");
    let second = message(&account, KIND, &json!({"number": 2}))?;
    expect(200, publish(&ccn, &second, true)?)?;
    site.put(&whole)?;
    wait_until(VERDICT_WITHIN, "the second version", || {
        Ok(site.shown()?.is_some_and(|plugin| plugin["version"] == "2"))
    })?;

    fs::remove_file(path)?;
    wait_until(VERDICT_WITHIN, "the end of its routes", || Ok(ccn.get("/api/v0/dropped")?.status == 404))?;
    let late = message(&account, KIND, &json!({"number": 3}))?;
    expect(422, publish(&ccn, &late, true)?)?;
    site.put(&whole)?;
    becomes_processed(&ccn, &late)
}

pub(crate) fn hostile() -> Result<()> {
    let site = Site::new()?;
    let ccn = site.node.client();
    let account = account("hostile")?;
    let mut trap = HandMade::new(&manifest("1"));
    trap.process = "unreachable".to_owned();
    site.put(&trap.component()?)?;
    site.wait_for_state("active")?;
    let mut sent = Vec::new();
    for number in 0..30 {
        let message = message(&account, KIND, &json!({"number": number}))?;
        publish(&ccn, &message, false)?;
        expect(200, publish(&ccn, &post(&account, &format!("beside {number}"))?, true)?)?;
        sent.push(message);
    }
    let shown = site.wait_for_state("suspended")?;
    ensure!(shown["reason"].as_str().is_some_and(|reason| reason.contains("calls failed")), "{shown}");
    ensure!(shown["statistics"]["failed"]["deterministic"].as_u64() >= Some(20), "{shown}");
    expect(503, ccn.get("/api/v0/dropped")?)?;
    let put_aside = expect_json(200, ccn.get("/api/v0/plugins/quarantine?pagination=7")?)?;
    let rows = put_aside["quarantine"].as_array().context("a list")?;
    ensure!(rows.len() == 7 && put_aside["next"] == rows[6]["item_hash"], "{put_aside}");
    ensure!(rows[0]["plugin"] == "dropped" && rows[0]["class"] == "deterministic", "{put_aside}");
    let first = rows[0]["item_hash"].as_str().unwrap_or_default().to_owned();

    // Nobody without the operator's word may do anything about it.
    for path in ["dropped/resume".to_owned(), "dropped/drop-state".to_owned(), format!("quarantine/{first}/retry")] {
        expect(401, ccn.post_json(&format!("/api/v0/plugins/{path}"), &json!({}))?)?;
    }
    let (is_good, text) = site.command(&["quarantine"])?;
    ensure!(is_good && text.contains(&first) && text.contains("unreachable"), "{text}");

    // A version that works gets what waited; what was put aside is tried again by hand.
    site.put(&HandMade::new(&manifest("2")).component()?)?;
    site.wait_for_state("active")?;
    let (is_good, text) = site.command(&["retry", &first])?;
    ensure!(is_good && text == "processed\n", "{text}");
    let (is_good, text) = site.command(&["retry", &first])?;
    ensure!(!is_good && text.contains("not in the quarantine"), "{text}");
    let waited: Vec<&Value> = sent
        .iter()
        .filter(|message| {
            ccn.get(&format!("/api/v0/messages/{}", hash_of(message))).is_ok_and(|it| it.text().contains("processed"))
        })
        .collect();
    ensure!(waited.len() >= 5, "only {} messages that waited were decided", waited.len());
    Ok(())
}

/// A version with another layout of its state has it made anew from the messages: killed on the way, it goes on, and the old version serves. What a
/// removed plugin leaves is the operator's to delete.
pub(crate) fn another_state() -> Result<()> {
    const SENT: usize = 120;
    let mut site = Site::new()?;
    let ccn = site.node.client();
    let account = account("another state")?;
    site.put(&HandMade::new(&manifest("1")).component()?)?;
    site.wait_for_state("active")?;
    for number in 0..SENT {
        expect(200, publish(&ccn, &message(&account, KIND, &json!({"number": number}))?, true)?)?;
    }
    // About ten milliseconds a message.
    let changed = manifest("2").replace(r#""version":1"#, r#""version":2"#).replace("10000000", "100000000");
    let mut slow = HandMade::new(&changed);
    slow.process = "(local.set $i (i32.const 12000000))
        (loop $on (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $on (local.get $i))) (i32.const 4096)"
        .to_owned();
    site.put(&slow.component()?)?;
    let replayed = |site: &Site| -> Result<Option<usize>> {
        let shown = site.shown()?.filter(|plugin| plugin["state"] == "rebuilding");
        let reason = shown.and_then(|plugin| Some(plugin["reason"].as_str()?.to_owned()));
        Ok(reason.and_then(|reason| reason.strip_suffix(" messages are replayed")?.split(' ').next()?.parse().ok()))
    };
    wait_until(VERDICT_WITHIN, "some messages to be replayed", || Ok(replayed(&site)? > Some(SENT / 4)))?;
    site.node.kill_and_restart()?;
    let ccn = site.node.client();
    expect(200, ccn.get("/api/v0/dropped")?)?;
    let list = expect_json(200, ccn.get("/api/v0/plugins")?)?;
    let of_name = |version: &str| {
        let mut all = list["plugins"].as_array().into_iter().flatten();
        all.find(|plugin| plugin["name"] == "dropped" && plugin["version"] == version).cloned()
    };
    ensure!(of_name("1").is_some_and(|plugin| plugin["state"] == "active"), "the old version does not serve: {list}");
    ensure!(of_name("2").is_some_and(|plugin| plugin["state"] == "rebuilding"), "the new one is not shown: {list}");
    expect(200, publish(&ccn, &message(&account, KIND, &json!({"number": "meanwhile"}))?, true)?)?;
    site.wait_for_state("active")?;
    wait_until(VERDICT_WITHIN, "the second version", || {
        Ok(site.shown()?.is_some_and(|plugin| plugin["state"] == "active" && plugin["version"] == "2"))
    })?;
    let log = fs::read_to_string(site.node.log())?;
    ensure!(log.contains("goes on being made anew"), "the log does not say that it went on");

    fs::remove_file(site.data().join("plugins/dropped.wasm"))?;
    wait_until(VERDICT_WITHIN, "the end of its routes", || Ok(ccn.get("/api/v0/dropped")?.status == 404))?;
    let (is_good, text) = site.command(&["drop-state", "dropped"])?;
    ensure!(!is_good && text.contains("--yes"), "{text}");
    let (is_good, text) = site.command(&["drop-state", "dropped", "--yes"])?;
    ensure!(is_good && text == "done\n", "{text}");
    let (is_good, text) = site.command(&["drop-state", "dropped", "--yes"])?;
    ensure!(!is_good && text.contains("no plugin `dropped` is removed"), "{text}");
    Ok(())
}

/// The folder of compiled code is believed only with the node's own mark.
pub(crate) fn corrupted_code() -> Result<()> {
    let mut site = Site::new()?;
    site.put(&HandMade::new(&manifest("1")).component()?)?;
    let shown = site.wait_for_state("active")?;
    let sha256 = shown["sha256"].as_str().context("a hash")?.to_owned();
    let code = find(&site.data().join("compiled-plugins"), &format!("{sha256}.cwasm"))?;
    let good = fs::read(&code)?;
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&code, bad)?;
    site.node.stop_and_restart()?;
    site.wait_for_state("active")?;
    ensure!(fs::read(&code)? == good, "it was not made anew");
    let log = fs::read_to_string(site.node.log())?;
    ensure!(log.contains("does not carry this node's mark"), "the log does not say so");
    Ok(())
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let folders = fs::read_dir(folder)?.flatten().map(|entry| entry.path().join(name));
    folders.into_iter().find(|path| path.is_file()).with_context(|| format!("no {name} in {}", folder.display()))
}
