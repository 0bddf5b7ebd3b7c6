//! Hostile plugins, written in WebAssembly's text form and dropped into the folder of plugins as any other: each must fail alone.

mod keeper;
mod reads;
mod rebuild;

use super::PluginState;
use crate::testing::{TestNode, account};
use ccn_message::{MessageStatus, sign::Draft};
use harness::hand_made::{HandMade, NOTHING as PASS};
use std::{fs, path::Path};

/// A message type of its own.
const KIND: &str = "HOSTILE";

/// A component whose `validate` and `process` have these bodies.
fn component(validate: &str, process: &str, manifest: &str) -> Vec<u8> {
    let mut plugin = HandMade::new(manifest);
    (plugin.validate, plugin.process) = (validate.to_owned(), process.to_owned());
    plugin.component().expect("a component")
}

fn manifest() -> String {
    format!(
        r#"{{"name":"hostile","version":"1","wit":"aleph:plugin@0.2","kind":"handler","types":["{KIND}"],
        "state":{{"own":"hostile","version":1,"read":["store"]}},"grants":["ledger"],"routes":["/api/v0/hostile"],
        "limits":{{"fuel":2000000,"memory-mib":4,"write-kib":1,"writes":2}}}}"#
    )
}

/// A plugin with these bodies gets a message; the reason that stands in the quarantine. Other messages go on as if nothing had been.
async fn check(validate: &str, process: &str, expect: &str) {
    check_with(&manifest(), validate, process, expect).await;
}

async fn check_with(manifest: &str, validate: &str, process: &str, expect: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("hostile.wasm"), component(validate, process, manifest)).expect("a file");
    let node = TestNode::with(|config| config.plugins = Some(folder.path().to_owned())).await;
    let hostile = node.send(&account(1), Draft::new(KIND, "{}").time(1.0)).await;
    let rejection = hostile.rejection.expect("a rejection");
    assert_eq!((hostile.status, rejection.code), (MessageStatus::Rejected, -1));
    assert!(rejection.errors[0].contains(expect), "{:?}, expected {expect:?}", rejection.errors);
    let kept = node.quarantined(&hostile.item_hash).expect("a row in the quarantine");
    assert!(kept.reason.contains(expect) && kept.plugin == "hostile", "{kept:?}");
    let post = node.send(&account(1), Draft::new("POST", r#"{"type":"t"}"#).time(1.0)).await;
    assert_eq!(post.status, MessageStatus::Processed);
    // The same again has the same end, or waits for time if it took long; it is no danger either.
    let again = node.send(&account(1), Draft::new(KIND, "{}").time(1.0)).await;
    assert_ne!(again.status, MessageStatus::Processed);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_work_uses_up_its_fuel() {
    check(PASS, "(loop $on (br $on)) unreachable", "used up its fuel of 2000000").await;
    check("(loop $on (br $on)) unreachable", PASS, "used up its fuel").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_ends_at_the_limit_of_the_manifest() {
    // Grows until it may not, then ends by itself: 4 MiB are 64 pages, of which it starts with 2.
    let process = "(loop $on (br_if $on (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))
        (if (i32.eq (memory.size) (i32.const 64)) (then unreachable)) (i32.const 4096)";
    let rich = manifest().replace("2000000", "20000000");
    check_with(&rich, PASS, process, "unreachable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_paid_for() {
    // 30 pages are 1,966,080 bytes, and the fuel is 2,000,000: what it starts with costs nothing, nor does what it does not get.
    let grow = |pages: u32| format!("(drop (memory.grow (i32.const {pages})))");
    check(PASS, &format!("{} {} unreachable", grow(30), grow(10_000)), "unreachable").await;
    check(PASS, &format!("{} {} unreachable", grow(30), grow(1)), "used up its fuel of 2000000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_and_garbage_are_told() {
    check(PASS, "unreachable", "unreachable").await;
    check(PASS, "(call $deep (i32.const 0))", "stack").await;
    check(PASS, "(i32.load (i32.const -1))", "out of bounds").await;
    // An outcome of a kind that there is not.
    check(PASS, "(i32.store (i32.const 8192) (i32.const 77)) (i32.const 8192)", "discriminant").await;
    // An answer outside of memory.
    check(PASS, "i32.const -8", "pointer").await;
    // Waiting for nothing: kind 2, and empty lists.
    check(PASS, "(i32.store (i32.const 8192) (i32.const 2)) (i32.const 8192)", "it waits for nothing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_has_bounds() {
    let read = "(call $get (i32.const 1024) (i32.const 6) (i32.const 8192))";
    check(&format!("{read} (i32.const 4096)"), PASS, "looked at more than the message").await;
    let flood = format!("(loop $on {read} (br $on)) unreachable");
    check(PASS, &flood, "used up its fuel of 2000000").await;
    let rich = manifest().replace("2000000", "10000000000");
    check_with(&rich, PASS, &flood, "more than 100000 questions").await;
    let long = "(call $get (i32.const 0) (i32.const 600) (i32.const 8192)) (i32.const 4096)";
    check(PASS, long, "a key has 600 bytes").await;
    // The manifest asks for the namespace, and the operator has not granted it.
    let foreign = "(i32.store (i32.const 2048) (i32.const 0x726f7473)) (i32.store8 (i32.const 2052) (i32.const 101))
        (call $get_in (i32.const 2048) (i32.const 5) (i32.const 1024) (i32.const 6) (i32.const 8192)) (i32.const 4096)";
    check(PASS, foreign, "may not read the namespace `store`").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_arithmetic_is_right_and_is_paid_for() {
    // The sha256 of `secret` begins with 2bb80d53; anything else would be a division by zero.
    let right = "(call $hash (i32.const 0) (i32.const 1024) (i32.const 6) (i32.const 8192))
        (if (i32.ne (i32.load (i32.load (i32.const 8192))) (i32.const 0x530db82b))
            (then (drop (i32.div_u (i32.const 1) (i32.const 0))))) unreachable";
    check(PASS, right, "unreachable").await;
    // Once is cheaper than 2,000,000, twice is not.
    let hash = "(call $hash (i32.const 0) (i32.const 0) (i32.const 50000) (i32.const 8192))";
    check(PASS, &format!("{hash} unreachable"), "unreachable").await;
    check(PASS, &format!("{hash} {hash} unreachable"), "used up its fuel of 2000000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_counted() {
    // Accepted, with three writes of an empty key: the manifest allows two.
    let process = "(i32.store (i32.const 8200) (i32.const 16384)) (i32.store (i32.const 8204) (i32.const 3))
        (i32.const 8192)";
    check(PASS, process, "3 keys written, more than 2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_harmless_plugin_of_the_operators_own_works_until_a_restart_and_after() {
    let folder = tempfile::tempdir().expect("a folder");
    // Accepted, without effects.
    fs::write(folder.path().join("own.wasm"), component(PASS, PASS, &manifest())).expect("a file");
    let node = TestNode::with(|config| config.plugins = Some(folder.path().to_owned())).await;
    let first = node.send(&account(1), Draft::new(KIND, "{}").time(1.0)).await;
    assert_eq!(first.status, MessageStatus::Processed);
    let node = node.restarted().await;
    assert_eq!(node.status(&first.item_hash), Some((MessageStatus::Processed, None)));
    let info = node.service.plugins.list();
    let own = info.iter().find(|plugin| plugin.name.as_deref() == Some("hostile")).expect("the plugin");
    assert!(own.origin == "file" && own.types == [KIND] && own.state == PluginState::Active);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_or_foreign_is_not_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = manifest().replace(KIND, "POST");
    fs::write(folder.path().join("a.wasm"), component(PASS, PASS, &taken)).expect("a file");
    fs::write(folder.path().join("b.wasm"), b"no component").expect("a file");
    let outside = manifest().replace("/api/v0/hostile", "/etc");
    fs::write(folder.path().join("c.wasm"), component(PASS, PASS, &outside)).expect("a file");
    let node = TestNode::with(|config| config.plugins = Some(folder.path().to_owned())).await;
    assert!(node.service.plugins.all().iter().all(|plugin| plugin.is_bundled()));
    let list = node.service.plugins.list();
    for (file, words) in [
        ("a.wasm", "the message type `POST` is that of the plugin post"),
        ("b.wasm", "it is no WebAssembly component"),
        ("c.wasm", "no route pattern under `/api/`"),
    ] {
        let refused = list.iter().find(|plugin| plugin.file.as_deref() == Some(file)).expect("it is shown");
        assert_eq!(refused.state, PluginState::Refused);
        assert!(refused.reason.as_ref().is_some_and(|reason| reason.contains(words)), "{refused:?}");
    }
    node.service.pipeline.stop().await;
}

#[test]
fn compiled_code_without_the_nodes_own_mark_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = super::profile::engine(true).expect("an engine");
    let cache = super::cache::Cache::open(&engine, folder.path()).expect("a cache");
    let code = engine.precompile_component(&component(PASS, PASS, &manifest())).expect("code");
    assert!(cache.kept("name").is_none());
    cache.keep("name", &code).expect("a component");
    assert!(cache.kept("name").is_some());
    let of_engine = fs::read_dir(folder.path()).expect("a folder").filter_map(|entry| Some(entry.ok()?.path()));
    let of_engine = of_engine.into_iter().find(|path| path.is_dir()).expect("a folder of the engine");
    let path = of_engine.join("name.cwasm");
    let good = fs::read(&path).expect("the file");
    let flipped = |place: usize| {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        bytes
    };
    for bad in [flipped(0), flipped(40), flipped(good.len() - 1), good[..20].to_vec(), Vec::new()] {
        fs::write(&path, bad).expect("a write");
        assert!(cache.kept("name").is_none());
    }
    // The mark of one plugin is none of another's.
    fs::write(of_engine.join("other.cwasm"), &good).expect("a copy");
    assert!(cache.kept("other").is_none());
}

#[test]
fn what_is_compiled_without_a_pool_runs_in_one() {
    // The process that compiles has no room for a pool.
    let code =
        super::profile::compiler(true).expect("an engine").precompile_component(&component(PASS, PASS, &manifest()));
    let folder = tempfile::tempdir().expect("a folder");
    let engine = super::profile::engine(true).expect("an engine");
    let cache = super::cache::Cache::open(&engine, folder.path()).expect("a cache");
    cache.keep("name", &code.expect("code")).expect("a component");
}

/// The host must not know any message type: what types mean is in plugins, and only there.
#[test]
fn no_message_type_is_named_in_the_host() {
    let words = ["post", "aggregate", "store", "program", "forget", "amend"];
    // In lower case, `instance` is a word of schedulers.
    let types = ["POST", "AGGREGATE", "STORE", "PROGRAM", "INSTANCE", "V-PROGRAM", "FORGET"];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    let mut folders = vec![source.join("host"), source.join("pipeline"), source.join("ledger"), source.join("store")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name == "tests" || name == "tests.rs") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
            looked_at += 1;
            for word in words.iter().chain(&types) {
                assert!(!code.contains(&format!("\"{word}\"")), "{} names {word:?}", path.display());
            }
            for word in ["aleph_credit", "balances-update", "content::post", "content::store", "content::program"] {
                assert!(!code.contains(word), "{} names {word}", path.display());
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} files were looked at");
}
