//! Plugins that come, change, go and misbehave while a node runs.

use super::{KIND, PASS, component, manifest};
use crate::{
    config::Config,
    host::{Compiler, HostError, PluginInfo, PluginState, Request, profile},
    pipeline::Receipt,
    store::{
        Changes, Reader, Row, StoreError,
        schema::{Table, end_of},
    },
    testing::{TestNode, account},
};
use ccn_message::{
    ItemHash, MessageStatus,
    sign::{Draft, to_json},
};
use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

/// A folder for plugins.
pub(super) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

pub(super) async fn node(folder: &Path) -> TestNode {
    TestNode::with(|config| config.plugins = Some(folder.to_owned())).await
}

pub(super) fn put(folder: &TempDir, plugin: &[u8]) {
    // Aside and renamed, or copied: either way it is looked at when it is whole.
    fs::write(folder.path().join("new"), plugin).expect("a file");
    fs::rename(folder.path().join("new"), folder.path().join("own.wasm")).expect("a name");
}

fn harmless(version: &str) -> Vec<u8> {
    component(PASS, PASS, &manifest().replace(r#""version":"1""#, &format!(r#""version":"{version}""#)))
}

async fn send(node: &TestNode, time: u32) -> Receipt {
    node.send(&account(1), Draft::new(KIND, "{}").time(f64::from(time))).await
}

fn signed(kind: &str, content: &str, time: u32) -> String {
    to_json(&Draft::new(kind, content).time(f64::from(time)).sign(&account(1)))
}

pub(super) fn shown(node: &TestNode, file: &str) -> Option<PluginInfo> {
    let mut list = node.service.plugins.list().into_iter().filter(|plugin| plugin.file.as_deref() == Some(file));
    list.next_back()
}

/// Waits until something holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not come to hold");
}

pub(super) async fn processed(node: &TestNode, hash: &ItemHash) {
    until("a message is processed", || node.status(hash) == Some((MessageStatus::Processed, None))).await;
}

/// The status of a question to the plugin's route.
async fn asked(node: &TestNode) -> Option<Result<u16, String>> {
    let answer = node.service.plugins.query(&node.service.store, "/api/v0/hostile", vec![]).await?;
    Some(answer.map(|answer| answer.status).map_err(|error| error.to_string()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_comes_changes_and_goes_while_the_node_runs() {
    let folder = folder();
    let node = node(folder.path()).await;
    let early = send(&node, 1).await;
    let rejection = early.rejection.expect("a rejection");
    assert_eq!((early.status, rejection.code), (MessageStatus::Rejected, 0));
    assert!(rejection.errors[0].contains("it is kept and decided when there is one"), "{rejection:?}");
    assert_eq!(asked(&node).await, None);

    put(&folder, &harmless("1"));
    processed(&node, &early.item_hash).await;
    assert_eq!(asked(&node).await, Some(Ok(200)));
    assert_eq!(send(&node, 2).await.status, MessageStatus::Processed);

    put(&folder, &harmless("2"));
    let version = |wanted: &'static str| {
        let node = &node;
        move || shown(node, "own.wasm").and_then(|plugin| plugin.version).as_deref() == Some(wanted)
    };
    until("the second version is active", version("2")).await;
    assert_eq!(send(&node, 3).await.status, MessageStatus::Processed);

    // What is broken is shown, and harms nothing.
    put(&folder, b"no component");
    until("it is refused", || shown(&node, "own.wasm").is_some_and(|plugin| plugin.state == PluginState::Refused))
        .await;
    assert_eq!(send(&node, 4).await.status, MessageStatus::Processed);
    let all = node.service.plugins.all();
    let active = all.iter().find(|plugin| !plugin.is_bundled()).expect("the one before");
    assert_eq!(active.manifest().version, "2");

    fs::remove_file(folder.path().join("own.wasm")).expect("it is there");
    until("it is removed", || node.service.plugins.for_kind(KIND).is_none()).await;
    assert_eq!(asked(&node).await, None);
    let late = send(&node, 5).await;
    assert_eq!(late.rejection.map(|rejection| rejection.code), Some(0));
    let removed = node.service.plugins.list().into_iter().find(|plugin| plugin.state == PluginState::Removed);
    assert_eq!(removed.and_then(|plugin| plugin.version).as_deref(), Some("2"));

    // What came meanwhile is not lost over a restart either.
    let node = node.restarted().await;
    put(&folder, &harmless("3"));
    processed(&node, &late.item_hash).await;
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_a_plugin_are_bounded() {
    let folder = folder();
    let node = TestNode::with(|config| {
        config.plugins = Some(folder.path().to_owned());
        config.pipeline.max_unhandled = 2;
    })
    .await;
    let mut kept = Vec::new();
    for time in 0..4 {
        let receipt = send(&node, time).await;
        let sentence = receipt.rejection.expect("a rejection").errors.concat();
        assert_eq!(sentence.contains("it is kept"), time < 2, "{sentence}");
        assert_eq!(sentence.contains("no room"), time >= 2, "{sentence}");
        kept.push(receipt.item_hash);
    }
    put(&folder, &harmless("1"));
    processed(&node, &kept[0]).await;
    processed(&node, &kept[1]).await;
    assert_eq!(node.status(&kept[2]), Some((MessageStatus::Rejected, Some(0))));
    // There is room again: what is sent again is taken.
    assert_eq!(send(&node, 2).await.status, MessageStatus::Processed);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_often_is_stopped_and_its_messages_wait() {
    let folder = folder();
    put(&folder, &component(PASS, "unreachable", &manifest()));
    let node = node(folder.path()).await;
    let mut sent = Vec::new();
    for time in 0..45 {
        sent.push(send(&node, time).await);
    }
    // On a slow machine some wait until the plugin may fail again.
    let decided = |receipt: &Receipt| node.status(&receipt.item_hash).is_some_and(|(_, code)| code.is_some());
    until("all are decided", || sent.iter().all(decided)).await;
    // Each message is two calls, one of which fails: after 40 calls, 20 have.
    let put_aside = sent.iter().filter(|receipt| node.quarantined(&receipt.item_hash).is_some()).count();
    assert_eq!(put_aside, 20);
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let last = sent.last().and_then(|receipt| snapshot.status(&receipt.item_hash).expect("no error")?.rejection);
    let last = last.expect("a rejection");
    assert!(last.code == 0 && last.errors[0].contains("is suspended"), "{last:?}");
    drop(snapshot);
    let info = shown(&node, "own.wasm").expect("it is shown");
    assert_eq!(info.state, PluginState::Suspended);
    assert!(info.reason.is_some_and(|reason| reason.contains("20 of its last 40 calls failed")));
    assert!(asked(&node).await.is_some_and(|answer| answer.is_err_and(|error| error.contains("suspended"))));
    let row = node.quarantined(&sent[0].item_hash).expect("a row in the quarantine");
    assert_eq!((row.class.as_str(), Some(row.sha256)), ("deterministic", info.sha256));
    let post = node.send(&account(1), Draft::new("POST", r#"{"type":"t"}"#).time(1.0)).await;
    assert_eq!(post.status, MessageStatus::Processed);
    until("it is written down", || {
        let rows = node.service.store.snapshot().and_then(|snapshot| snapshot.prefixed(Table::Suspended, &[]));
        rows.is_ok_and(|rows| rows.len() == 1)
    })
    .await;

    // A restart is no pardon.
    let node = node.restarted().await;
    assert_eq!(shown(&node, "own.wasm").map(|plugin| plugin.state), Some(PluginState::Suspended));
    let keeper = node.service.keeper.as_ref().expect("a keeper");
    keeper.ask(Request::Resume("hostile".into())).await.expect("it is resumed");
    // What waited is decided by it at once, and stops it again.
    until("it is suspended again", || {
        let plugin = shown(&node, "own.wasm").expect("it is shown");
        plugin.state == PluginState::Suspended && plugin.statistics.is_some_and(|statistics| statistics.calls > 0)
    })
    .await;
    keeper.ask(Request::Resume("nobody".into())).await.expect_err("there is none");

    // A version that does not fail gets what waited; what was put aside is the operator's to try again.
    let waits = |receipt: &&Receipt| node.status(&receipt.item_hash) == Some((MessageStatus::Rejected, Some(0)));
    let waiting: Vec<&Receipt> = sent.iter().filter(waits).collect();
    assert!(!waiting.is_empty());
    put(&folder, &harmless("2"));
    for receipt in waiting {
        processed(&node, &receipt.item_hash).await;
    }
    let retried = node.service.pipeline.retry(&sent[0].item_hash).await.expect("no error").expect("it was there");
    assert_eq!(retried.status, MessageStatus::Processed);
    assert!(node.quarantined(&sent[0].item_hash).is_none());
    assert!(node.service.pipeline.retry(&sent[0].item_hash).await.expect("no error").is_none());
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_plugin_has_its_share_and_everything_is_decided() {
    let folder = folder();
    // Each call takes most of its fuel, and succeeds.
    let slow = "(local.set $i (i32.const 12000000))
        (loop $on (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $on (local.get $i))) (i32.const 4096)";
    put(&folder, &component(PASS, slow, &manifest().replace("2000000", "100000000")));
    let node = node(folder.path()).await;
    let mut hashes = Vec::new();
    for time in 0..60 {
        let receipt = send(&node, time).await;
        assert!(matches!(receipt.status, MessageStatus::Processed | MessageStatus::Pending), "{receipt:?}");
        hashes.push(receipt.item_hash);
    }
    let plugin = node.service.plugins.for_kind(KIND).expect("it is active");
    assert!(plugin.statistics().deferred > 0, "{:?}", plugin.statistics());
    let post = node.send(&account(1), Draft::new("POST", r#"{"type":"t"}"#).time(1.0)).await;
    assert_eq!(post.status, MessageStatus::Processed);
    for hash in &hashes {
        processed(&node, hash).await;
    }
    node.service.pipeline.stop().await;
}

/// Looking at a message took the time that it had waited for, so that it waited again, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_slow_to_look_at_messages_decides_them_too() {
    let folder = folder();
    let slow = "(local.set $i (i32.const 12000000))
        (loop $on (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $on (local.get $i))) (i32.const 4096)";
    put(&folder, &component(slow, PASS, &manifest().replace("2000000", "100000000")));
    let node = node(folder.path()).await;
    let mut hashes = Vec::new();
    for time in 0..40 {
        hashes.push(send(&node, time).await.item_hash);
    }
    let plugin = node.service.plugins.for_kind(KIND).expect("it is active");
    assert!(plugin.statistics().deferred > 0, "{:?}", plugin.statistics());
    for hash in &hashes {
        processed(&node, hash).await;
    }
    node.service.pipeline.stop().await;
}

/// Clients that wait for their answers send nothing meanwhile: that is no quiet in which a plugin may take as long as it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_call_does_not_earn_its_plugin_more_time() {
    const SENT: u32 = 30;
    let folder = folder();
    // Each call takes longer than what counts as quiet.
    let long = "(local.set $i (i32.const 140000000))
        (loop $on (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $on (local.get $i))) (i32.const 4096)";
    put(&folder, &component(PASS, long, &manifest().replace("2000000", "1200000000")));
    let node = node(folder.path()).await;
    let submit = |text: String| {
        let pipeline = node.service.pipeline.clone();
        tokio::spawn(async move { pipeline.submit(text).await.expect("a receipt") })
    };
    let sent: Vec<_> = (0..SENT).map(|time| submit(signed(KIND, "{}", time))).collect();
    let posts: Vec<_> = (0..8_u32)
        .map(|client| {
            let pipeline = node.service.pipeline.clone();
            tokio::spawn(async move {
                for number in 0..5 {
                    let receipt = pipeline.submit(signed("POST", r#"{"type":"t"}"#, client * 5 + number)).await;
                    assert_eq!(receipt.expect("a receipt").status, MessageStatus::Processed);
                }
            })
        })
        .collect();
    for client in posts {
        client.await.expect("every POST is processed");
    }
    let plugin = node.service.plugins.for_kind(KIND).expect("it is active");
    let accepted = plugin.statistics().accepted;
    assert!(accepted < u64::from(SENT) / 2, "{accepted} long calls were made while POSTs waited");
    for hostile in sent {
        hostile.abort();
    }
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_what_another_has_gets_it_when_the_other_goes() {
    let folder = folder();
    fs::write(folder.path().join("own.wasm"), harmless("1")).expect("a file");
    let other = component(PASS, PASS, &manifest().replace(r#""name":"hostile""#, r#""name":"other""#));
    fs::write(folder.path().join("second.wasm"), other).expect("a file");
    let node = node(folder.path()).await;
    let second = || shown(&node, "second.wasm").expect("it is shown");
    assert!(second().reason.is_some_and(|reason| reason.contains("namespace `hostile` is that of the plugin hostile")));
    // Touched, so that the keeper itself has looked at it.
    fs::write(folder.path().join("second.wasm"), fs::read(folder.path().join("second.wasm")).expect("it")).expect("it");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(second().state, PluginState::Refused);
    fs::remove_file(folder.path().join("own.wasm")).expect("it is there");
    until("the other is active", || second().state == PluginState::Active).await;
    node.service.pipeline.stop().await;
}

/// Whatever becomes of a plugin meanwhile, who asks for the list finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_shown_at_any_instant() {
    const ROUNDS: usize = 3_000;
    let folder = folder();
    let node = TestNode::new().await;
    let path = folder.path().join("own.wasm");
    fs::write(&path, harmless("1")).expect("a file");
    let plugins = &node.service.plugins;
    let plugin = plugins.prepare(&path, true).expect("a plugin").expect("a new one");
    let is_over = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut missed = 0;
            while !is_over.load(Ordering::Relaxed) {
                missed += usize::from(shown(&node, "own.wasm").is_none());
            }
            missed
        });
        for _ in 0..ROUNDS {
            plugins.activate(&plugin);
            plugins.remove(&path).expect("it was active");
            plugins.begin_rebuild(&plugin);
            plugins.stop_rebuild(&plugin, "it does not work".to_owned());
            plugins.begin_rebuild(&plugin);
            assert!(plugins.switch_to(&plugin));
            plugins.remove(&path).expect("it was active");
            plugins.say(&plugin, PluginState::Refused, "no reason".to_owned());
        }
        is_over.store(true, Ordering::Relaxed);
        looking.join().expect("it looks")
    });
    assert_eq!(missed, 0, "of {ROUNDS} rounds");
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_type_is_that_plugins_alone() {
    let folder = folder();
    let (right, wrong) = (harmless("1"), harmless("2"));
    let sha256 = ItemHash::sha256_of(&right).to_string();
    put(&folder, &wrong);
    let node = TestNode::with(|config: &mut Config| {
        config.plugins = Some(folder.path().to_owned());
        config.network.plugins = [(KIND.to_owned(), sha256.clone())].into();
    })
    .await;
    let info = shown(&node, "own.wasm").expect("it is shown");
    assert_eq!(info.state, PluginState::Refused);
    assert!(info.reason.is_some_and(|reason| reason.contains("the network pins the message type `HOSTILE`")));
    let [deviation] = &node.service.plugins.deviations()[..] else { panic!("no deviation") };
    assert_eq!((deviation.pinned.as_str(), &deviation.found), (sha256.as_str(), &None));
    put(&folder, &right);
    until("the pinned one is active", || node.service.plugins.deviations().is_empty()).await;
    node.service.pipeline.stop().await;
}

/// A store that says something else each time it is asked: what no store does, so that a plugin can be seen to depend on more than its arguments.
struct Fickle(AtomicU64);

impl Reader for Fickle {
    fn get(&self, _table: Table, _key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok((self.0.fetch_add(1, Ordering::Relaxed) % 2 == 1).then(|| vec![1; 8]))
    }

    fn range(&self, _: Table, _: &[u8], _: &[u8], _: usize, _: bool) -> Result<Vec<Row>, StoreError> {
        Ok(Vec::new())
    }
}

/// The sandbox leaves a plugin nothing to be undetermined by: no clock, no randomness, canonical NaNs, memory that is as it was compiled, growth that
/// is refused by its manifest alone. So it is the host that is made to lie here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_answers_to_one_question_suspend_a_plugin() {
    let folder = folder();
    // It traps, or not, by what it reads.
    let process = "(call $get (i32.const 1024) (i32.const 6) (i32.const 8192))
        (if (i32.load8_u (i32.const 8192)) (then unreachable)) (i32.const 4096)";
    put(&folder, &component(PASS, process, &manifest()));
    let node = node(folder.path()).await;
    let plugin = node.service.plugins.for_kind(KIND).expect("it is active");
    let message = crate::host::contract::Message {
        item_hash: ItemHash::sha256_of(b"").to_string(),
        kind: KIND.into(),
        sender: "0x".into(),
        address: "0x".into(),
        chain: "ETH".into(),
        channel: None,
        time: 1.0,
        envelope_time: 1.0,
        content: b"{}".to_vec(),
    };
    plugin
        .process(&message, Arc::new(node.service.store.snapshot().expect("a snapshot")))
        .expect("the store is steady");
    let error = plugin.process(&message, Arc::new(Fickle(AtomicU64::new(0)))).expect_err("it is suspended");
    assert!(matches!(&error, HostError::Suspended { reason, .. } if reason.contains("not deterministic")), "{error}");
    let receipt = send(&node, 1).await;
    assert_eq!(receipt.rejection.map(|rejection| rejection.code), Some(0));
    node.service.pipeline.stop().await;
}

/// What a plugin can try by itself, into one write whose key is empty: bits of NaNs, growth that fails, memory that nobody has written, what a
/// call before has left.
fn looks_at_the_machine() -> String {
    let sources = "(f64.store (i32.const 12288) (f64.div (f64.const 0) (f64.const 0)))
        (f64.store (i32.const 12296) (f64.sqrt (f64.const -1)))
        (i32.store (i32.const 12304) (memory.grow (i32.const 100000)))
        (i32.store (i32.const 12308) (memory.grow (i32.const 3)))
        (i32.store (i32.const 12312) (i32.load (i32.const 200000)))
        (i32.store (i32.const 200000) (i32.const 77))
        (i32.store (i32.const 12316) (memory.size))";
    format!(
        "{sources} (i32.store (i32.const 8200) (i32.const 16384)) (i32.store (i32.const 8204) (i32.const 1))
        (i32.store8 (i32.const 16392) (i32.const 1)) (i32.store (i32.const 16396) (i32.const 12288))
        (i32.store (i32.const 16400) (i32.const 32)) (i32.const 8192)"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_machine_shows_inside() {
    let folder = folder();
    put(&folder, &component(PASS, &looks_at_the_machine(), &manifest()));
    let node = node(folder.path()).await;
    let mut values = std::collections::BTreeSet::new();
    for time in 0..30 {
        let receipt = send(&node, time).await;
        assert_eq!(receipt.status, MessageStatus::Processed, "{receipt:?}");
        let prefix = crate::host::state_key("hostile", &[]);
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        values.insert(snapshot.prefixed(Table::State, &prefix).expect("no error"));
    }
    assert_eq!(values.len(), 1, "{values:?}");
    let [(_, value)] = &values.first().expect("one")[..] else { panic!("{values:?}") };
    let nan = 0x7ff8_0000_0000_0000_u64.to_le_bytes();
    assert_eq!((&value[..8], &value[8..16], &value[16..20]), (&nan[..], &nan[..], &[0xff; 4][..]));
    assert_eq!(&value[20..], [2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    let plugin = node.service.plugins.for_kind(KIND).expect("it is active");
    assert!(plugin.statistics().twice >= 20);
    node.service.pipeline.stop().await;
}

/// Everything that plugins have written, and the fuel that each took.
fn result(node: &TestNode) -> (Changes, Vec<(String, u64)>) {
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let rows = snapshot.range(Table::State, &[], &end_of(&[]), usize::MAX, false).expect("no error");
    let rows = rows.into_iter().map(|(key, value)| ((Table::State, key), Some(value))).collect();
    let fuel = |plugin: &Arc<crate::host::Plugin>| (plugin.manifest().name.clone(), plugin.statistics().fuel);
    (rows, node.service.plugins.all().iter().map(fuel).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_is_compiled_otherwise_gives_the_same_state_for_the_same_fuel() {
    let folder = folder();
    let looking = component(PASS, &looks_at_the_machine(), &manifest());
    put(&folder, &looking);
    // The comparison would mean nothing otherwise.
    let [fast, plain] = [true, false].map(|optimize| {
        profile::compiler(optimize).and_then(|engine| engine.precompile_component(&looking)).expect("code")
    });
    assert_ne!(fast, plain, "the settings make no difference to the code");
    let mut results = Vec::new();
    for optimize in [true, false] {
        let node = TestNode::with(|config| {
            config.compiler = Compiler { program: None, optimize };
            config.plugins = Some(folder.path().to_owned());
        })
        .await;
        node.fund(account(2).address(), 1_000, 1_000_000).await;
        for number in 0..40_u32 {
            let time = 1_790_000_000.0 + f64::from(number * 7919 % 40);
            let text = "x".repeat(1 + number as usize * 37 % 400);
            let post = serde_json::json!({"type": "note", "content": {"text": text, "number": number}});
            let aggregate =
                serde_json::json!({"key": format!("key {}", number % 3), "content": {format!("{}", number % 5): text}});
            let look = serde_json::json!({});
            for (kind, content) in [("POST", post), ("AGGREGATE", aggregate), (KIND, look)] {
                let draft = Draft::new(kind, &content.to_string()).time(time);
                let receipt = node.send(&account(number as u8 % 4 + 1), draft).await;
                assert_eq!(receipt.status, MessageStatus::Processed, "{receipt:?}");
            }
        }
        results.push(result(&node));
        node.service.pipeline.stop().await;
    }
    assert!(results[0].0.len() > 100 && results[0].1.iter().any(|(_, fuel)| *fuel > 1_000_000));
    assert_eq!(results[0], results[1]);
}
