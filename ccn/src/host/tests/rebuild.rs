//! State that is made anew: for a version with another layout, for a message that could not be taken out, after it was dropped.

use super::{
    KIND, PASS,
    keeper::{folder, node, processed, put, shown, until},
    manifest,
};
use crate::{
    host::{PluginState, Request, state_key},
    pipeline::Receipt,
    store::{
        Reader as _,
        schema::{Key, Table},
    },
    testing::{TestNode, account},
};
use ccn_message::{ItemHash, MessageStatus, sign::Draft};
use harness::hand_made::HandMade;
use std::{collections::BTreeMap, fs};

/// Accepted, with one write: the message's hash, and a value of so many bytes.
fn remember(bytes: u32) -> String {
    format!(
        "(i32.store (i32.const 8200) (i32.const 16384)) (i32.store (i32.const 8204) (i32.const 1))
        (i32.store (i32.const 16384) (i32.load (local.get 0)))
        (i32.store (i32.const 16388) (i32.load (i32.add (local.get 0) (i32.const 4))))
        (i32.store8 (i32.const 16392) (i32.const 1)) (i32.store (i32.const 16396) (i32.const 1024))
        (i32.store (i32.const 16400) (i32.const {bytes})) (i32.const 8192)"
    )
}

/// Deletes what [`remember`] has written.
const FORGET: &str = "(i32.store (i32.const 8192) (i32.const 16384)) (i32.store (i32.const 8196) (i32.const 1))
    (i32.store (i32.const 16384) (i32.load (local.get 0)))
    (i32.store (i32.const 16388) (i32.load (i32.add (local.get 0) (i32.const 4))))
    (i32.const 8192)";

/// Before what follows, so many rounds of nothing.
fn slowly(rounds: u32, then: &str) -> String {
    format!(
        "(local.set $i (i32.const {rounds}))
        (loop $on (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $on (local.get $i))) {then}"
    )
}

/// Refuses the message of that time, and does the rest with others.
fn refuse(time: u32, others: &str) -> String {
    format!(
        "(if (f64.eq (f64.load (i32.add (local.get 0) (i32.const 56))) (f64.const {time}))
            (then (i32.store (i32.const 8192) (i32.const 1)) (return (i32.const 8192)))) {others}"
    )
}

/// Keeps of each message a value of so many bytes: which is also the version of its state.
fn version(bytes: u32, process: &str, withdraw: &str) -> Vec<u8> {
    let manifest = manifest()
        .replace(r#""version":1"#, &format!(r#""version":{bytes}"#))
        .replace(r#""version":"1""#, &format!(r#""version":"{bytes}""#))
        .replace("2000000", "100000000");
    let mut plugin = HandMade::new(&manifest);
    (plugin.validate, plugin.process, plugin.withdraw) = (PASS.to_owned(), process.to_owned(), withdraw.to_owned());
    plugin.component().expect("a component")
}

fn simple(bytes: u32) -> Vec<u8> {
    version(bytes, &remember(bytes), FORGET)
}

async fn send(node: &TestNode, time: u32) -> Receipt {
    node.send(&account(1), Draft::new(KIND, "{}").time(f64::from(time))).await
}

async fn forget(node: &TestNode, hash: &ItemHash, time: u32) {
    let content = serde_json::json!({"hashes": [hash.to_string()]}).to_string();
    let receipt = node.send(&account(1), Draft::new("FORGET", &content).time(f64::from(time))).await;
    assert_eq!(receipt.status, MessageStatus::Processed, "{receipt:?}");
}

/// Lengths of values by hash.
fn state(node: &TestNode) -> BTreeMap<String, usize> {
    let prefix = state_key("hostile", &[]);
    let rows = node.service.store.snapshot().expect("a snapshot").prefixed(Table::State, &prefix).expect("no error");
    let text = |key: &[u8]| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
    rows.into_iter().map(|(key, value)| (text(&key), value.len())).collect()
}

/// What is left of the making of a state.
fn rows_left(node: &TestNode) -> usize {
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    [Table::Rebuilds, Table::Rebuilt].map(|table| snapshot.prefixed(table, &[]).expect("no error").len()).iter().sum()
}

fn is_active(node: &TestNode, version: &str) -> bool {
    node.service.plugins.for_kind(KIND).is_some_and(|plugin| plugin.manifest().version == version)
        && rows_left(node) == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_with_another_state_gets_it_while_the_old_one_serves() {
    let folder = folder();
    put(&folder, &simple(1));
    let node = node(folder.path()).await;
    let mut expected = BTreeMap::new();
    let mut hashes = Vec::new();
    for time in 0..250 {
        let receipt = send(&node, time).await;
        expected.insert(receipt.item_hash.to_string(), 2);
        hashes.push(receipt.item_hash);
    }
    assert_eq!(state(&node).len(), 250);
    for (place, time) in [(3, 1000), (120, 1001)] {
        forget(&node, &hashes[place], time).await;
        expected.remove(&hashes[place].to_string());
    }
    // Slow enough that much happens meanwhile.
    put(&folder, &version(2, &slowly(3_000_000, &remember(2)), FORGET));
    until("it is begun", || shown(&node, "own.wasm").is_some_and(|plugin| plugin.state == PluginState::Rebuilding))
        .await;
    let mut seen = Vec::new();
    let mut time = 0;
    while !is_active(&node, "2") {
        let old = node.service.plugins.for_kind(KIND).expect("one of both serves");
        if old.manifest().version == "1" {
            seen.extend(shown(&node, "own.wasm").and_then(|plugin| plugin.reason));
        }
        // Before, among and after what is replayed.
        let receipt = send(&node, 2000 - time).await;
        expected.insert(receipt.item_hash.to_string(), 2);
        if time % 5 == 0 && (time as usize) < hashes.len() / 2 {
            let place = hashes.len() - 1 - time as usize;
            if place != 120 {
                forget(&node, &hashes[place], 3000 + time).await;
                expected.remove(&hashes[place].to_string());
            }
        }
        time += 1;
        processed(&node, &receipt.item_hash).await;
    }
    assert!(seen.iter().any(|reason| reason.contains("messages are replayed")), "{seen:?}");
    assert_eq!(state(&node), expected);
    forget(&node, &hashes[1], 5000).await;
    expected.remove(&hashes[1].to_string());
    assert_eq!(state(&node), expected);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_where_it_was_after_a_restart_and_the_old_version_serves_again() {
    const SENT: u64 = 150;
    let folder = folder();
    put(&folder, &simple(1));
    let node = node(folder.path()).await;
    for time in 0..SENT {
        send(&node, time as u32).await;
    }
    put(&folder, &version(2, &slowly(6_000_000, &remember(2)), FORGET));
    let replayed = |node: &TestNode| {
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        let record = crate::pipeline::rebuild::progress(&snapshot, "hostile").expect("no error");
        record.map_or(0, |record| record.replayed)
    };
    until("some are replayed", || replayed(&node) > SENT / 4).await;
    let node = node.restarted().await;
    let kept = replayed(&node);
    assert!(kept > SENT / 4 && kept < SENT, "{kept}");
    let old = node.service.plugins.for_kind(KIND).expect("the old one serves");
    assert_eq!(old.manifest().version, "1");
    let between = send(&node, 10_000).await;
    assert_eq!(between.status, MessageStatus::Processed);
    until("the second version is active", || is_active(&node, "2")).await;
    assert_eq!(state(&node).values().filter(|length| **length == 2).count() as u64, SENT + 1);
    let calls = node.service.plugins.for_kind(KIND).expect("the new one").statistics().calls;
    assert!(calls < 2 * (SENT + 1 - kept) + SENT / 4, "{calls} calls for what was left of {SENT} after {kept}");
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_new_version_refuses_is_decided_anew() {
    let folder = folder();
    put(&folder, &simple(1));
    let node = node(folder.path()).await;
    let mut hashes = Vec::new();
    for time in 1..6 {
        hashes.push(send(&node, time).await.item_hash);
    }
    put(&folder, &version(2, &refuse(3, &remember(2)), FORGET));
    until("the second version is active", || is_active(&node, "2")).await;
    until("it refuses", || node.status(&hashes[2]) == Some((MessageStatus::Rejected, Some(0)))).await;
    assert_eq!(state(&node).len(), 4);
    // And the first one accepts what it accepted, as long as somebody sends it again.
    put(&folder, &simple(1));
    until("the first version is active", || is_active(&node, "1")).await;
    assert_eq!(send(&node, 3).await.status, MessageStatus::Processed);
    assert!(state(&node).len() == 5 && state(&node).values().all(|length| *length == 1));
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_out_while_the_plugin_is_gone_is_not_in_its_state_when_it_is_back() {
    let folder = folder();
    put(&folder, &simple(1));
    let node = node(folder.path()).await;
    let (first, second) = (send(&node, 1).await.item_hash, send(&node, 2).await.item_hash);
    fs::remove_file(folder.path().join("own.wasm")).expect("it is there");
    until("it is removed", || node.service.plugins.for_kind(KIND).is_none()).await;
    forget(&node, &first, 3).await;
    let late = send(&node, 4).await.item_hash;
    assert_eq!(state(&node).len(), 2, "nobody can take it out");
    // Over a restart, too, the node knows what it has left, and what is wrong with it.
    let node = node.restarted().await;
    let removed = || node.service.plugins.list().into_iter().find(|plugin| plugin.state == PluginState::Removed);
    assert_eq!(removed().and_then(|plugin| plugin.name).as_deref(), Some("hostile"));
    put(&folder, &simple(1));
    processed(&node, &late).await;
    until("it is made anew", || is_active(&node, "1")).await;
    assert_eq!(state(&node).into_keys().collect::<Vec<_>>(), sorted([&second, &late]));
    assert_eq!(removed(), None);
    node.service.pipeline.stop().await;
}

fn sorted<const COUNT: usize>(hashes: [&ItemHash; COUNT]) -> Vec<String> {
    let mut texts: Vec<String> = hashes.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_cannot_take_out_a_message_gets_a_state_without_it() {
    let folder = folder();
    put(&folder, &version(1, &remember(1), "unreachable"));
    let node = node(folder.path()).await;
    let (first, second) = (send(&node, 1).await.item_hash, send(&node, 2).await.item_hash);
    forget(&node, &first, 3).await;
    until("it is made anew", || state(&node).len() == 1 && is_active(&node, "1")).await;
    assert_eq!(state(&node).into_keys().collect::<Vec<_>>(), sorted([&second]));
    assert_eq!(send(&node, 4).await.status, MessageStatus::Processed);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_dropped_when_its_plugin_is_gone_and_made_anew_when_it_is_back() {
    let folder = folder();
    put(&folder, &simple(1));
    let node = node(folder.path()).await;
    let mut hashes = Vec::new();
    for time in 0..250 {
        hashes.push(send(&node, time).await.item_hash);
    }
    let keeper = node.service.keeper.as_ref().expect("a keeper");
    let drop_state = || keeper.ask(Request::DropState("hostile".into()));
    drop_state().await.expect_err("it is there");
    fs::remove_file(folder.path().join("own.wasm")).expect("it is there");
    until("it is removed", || node.service.plugins.for_kind(KIND).is_none()).await;
    assert_eq!(state(&node).len(), 250);
    drop_state().await.expect("it is dropped");
    assert_eq!(state(&node).len(), 0);
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    assert_eq!(snapshot.get(Table::Namespaces, &Key::new().text("hostile").done()).expect("no error"), None);
    assert!(node.service.plugins.list().iter().all(|plugin| plugin.name.as_deref() != Some("hostile")));
    drop_state().await.expect_err("there is nothing more");
    put(&folder, &simple(2));
    until("it is made anew", || is_active(&node, "2")).await;
    assert_eq!(state(&node).len(), 250);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_on_what_is_stored_does_not_come_and_the_old_one_stays() {
    let folder = folder();
    put(&folder, &simple(1));
    let node = node(folder.path()).await;
    for time in 0..100 {
        send(&node, time).await;
    }
    put(&folder, &version(2, "unreachable", FORGET));
    until("it is stopped", || shown(&node, "own.wasm").is_some_and(|plugin| plugin.state == PluginState::Suspended))
        .await;
    assert_eq!(send(&node, 1000).await.status, MessageStatus::Processed);
    assert!(state(&node).values().all(|length| *length == 1) && state(&node).len() == 101);
    put(&folder, &simple(2));
    until("a version that works is active", || is_active(&node, "2")).await;
    assert!(state(&node).values().all(|length| *length == 2) && state(&node).len() == 101);
    node.service.pipeline.stop().await;
}
