//! What must hold of every message, whatever its type.

use crate::{
    config::Config,
    node::Node,
    pipeline::{EngineError, FileKind, SubmitError},
    store::{
        Reader as _,
        record::{CreditRecord, Record as _},
        schema::{Table, hash_key},
    },
    testing::{TestNode, account, config},
};
use ccn_message::{
    Envelope, ItemHash, ItemType, MessageStatus,
    sign::{Account, Draft, to_json},
};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn post(text: &str) -> Draft {
    Draft::new("POST", &json!({"type": "note", "content": text}).to_string()).time(1000.0)
}

/// A function on demand, made of one file.
pub(super) fn program(code: &ItemHash, payment: &str) -> Draft {
    let content = json!({
        "type": "vm-function", "allow_amend": false, "variables": {}, "on": {"http": true, "persistent": false},
        "environment": {"reproducible": false, "internet": false, "aleph_api": false, "shared_cache": false},
        "resources": {"vcpus": 1, "memory": 128, "seconds": 30},
        "code": {"encoding": "plain", "entrypoint": "main:app", "ref": code.to_string(), "use_latest": false},
        "runtime": {"ref": code.to_string(), "use_latest": false, "comment": ""},
        "volumes": [], "payment": {"chain": "ETH", "type": payment},
    });
    Draft::new("PROGRAM", &content.to_string()).time(1_788_000_000.0)
}

pub(super) fn amend(original: &ItemHash, time: f64) -> Draft {
    Draft::new("POST", &json!({"type": "amend", "ref": original.to_string(), "content": "new"}).to_string()).time(time)
}

fn sol(number: u8) -> Account {
    Account::solana([number; 32])
}

pub(super) async fn status_within(node: &TestNode, hash: &ItemHash, expect: (MessageStatus, Option<i32>)) {
    one_of_within(node, &[hash], expect).await;
}

/// Waits until one of these messages is as expected; which. None of none.
async fn one_of_within(node: &TestNode, hashes: &[&ItemHash], expect: (MessageStatus, Option<i32>)) -> Option<usize> {
    let first = hashes.first()?;
    for _ in 0..250 {
        if let Some(place) = hashes.iter().position(|hash| node.status(hash) == Some(expect)) {
            return Some(place);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{first} is {:?}, expected {expect:?}", node.status(first));
}

pub(super) const PROCESSED: (MessageStatus, Option<i32>) = (MessageStatus::Processed, None);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_copy_neither_blocks_nor_replaces_the_good_one() {
    let node = TestNode::new().await;
    let good = post("text").sign(&account(1));
    let with = |signature: Option<String>| Envelope { signature, ..good.clone() };
    let hash = &good.item_hash;
    let zeros = format!("0x{}", "00".repeat(65));
    for bad in [with(None), with(Some("0x00".into())), with(Some(zeros))] {
        let receipt = node.service.pipeline.submit(to_json(&bad)).await.expect("a receipt");
        assert_eq!(
            (receipt.status, receipt.rejection.map(|rejection| rejection.code)),
            (MessageStatus::Rejected, Some(1))
        );
        assert_eq!(node.status(hash), Some((MessageStatus::Rejected, Some(1))));
    }
    for _ in 0..2 {
        let receipt = node.service.pipeline.submit(to_json(&good)).await.expect("a receipt");
        assert_eq!(receipt.status, MessageStatus::Processed);
    }
    let receipt = node.service.pipeline.submit(to_json(&with(None))).await.expect("a receipt");
    assert_eq!(receipt.rejection.map(|rejection| rejection.code), Some(1));
    assert_eq!(node.status(hash), Some(PROCESSED));
    let count = node.service.store.snapshot().expect("a snapshot").range(Table::Messages, &[], &[255], 9, false);
    assert_eq!(count.expect("rows").len(), 1, "stored once");
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_copy_leaves_a_waiting_one_alone() {
    let node = TestNode::new().await;
    let original = post("text").sign(&account(1));
    let good = amend(&original.item_hash, 1001.0).sign(&account(1));
    let bad = Envelope { signature: None, ..good.clone() };
    for envelope in [&bad, &good, &bad] {
        node.service.pipeline.submit(to_json(envelope)).await.expect("a receipt");
    }
    assert_eq!(node.status(&good.item_hash), Some((MessageStatus::Pending, None)));
    node.service.pipeline.submit(to_json(&original)).await.expect("a receipt");
    status_within(&node, &good.item_hash, PROCESSED).await;
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_leaves_nothing_behind() {
    let node = TestNode::new().await;
    let good = post("text").sign(&account(1));
    let text = to_json(&good);
    let other_hash = text.replace(&good.item_hash.to_string(), &ItemHash::sha256_of(b"x").to_string());
    // What no plugin knows is kept when it is signed, and is nothing when it is not.
    let unknown = Draft::new("BOGUS", "{}").sign(&account(1));
    let unknown = Envelope { signature: None, ..unknown };
    let extra = Draft::new("POST", r#"{"type":"t","more":1}"#).sign(&account(1));
    let unverifiable = text.replace("\"ETH\"", "\"AURORA\"");
    let too_long = post(&"x".repeat(200_000)).sign(&account(1));
    let cases = [
        ("{", None, "expected"),
        (other_hash.as_str(), Some(ItemHash::sha256_of(b"x")), "item_hash: does not match the content"),
        (&to_json(&unknown), Some(unknown.item_hash.clone()), "message type `BOGUS`"),
        (&to_json(&extra), Some(extra.item_hash.clone()), "more"),
        (&unverifiable, Some(good.item_hash.clone()), "AURORA"),
        (&to_json(&too_long), Some(too_long.item_hash.clone()), "at most 200000 characters"),
    ];
    for (text, hash, expect) in cases {
        match node.service.pipeline.submit(text.to_owned()).await {
            Err(SubmitError::Format { item_hash, error }) => {
                assert_eq!(item_hash, hash, "{error}");
                assert!(error.to_string().contains(expect), "{error}, expected {expect:?}");
            }
            other => panic!("{other:?}"),
        }
        if let Some(hash) = hash {
            assert_eq!(node.status(&hash), None, "{expect}");
        }
    }
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_shows_as_refused_after_the_horizon_and_ends_with_what_was_lacked() {
    let node = TestNode::with(|config| config.pipeline.horizon_seconds = 1).await;
    let original = post("text").sign(&account(1));
    let receipt = node.send(&account(1), amend(&original.item_hash, 1001.0)).await;
    assert_eq!(receipt.status, MessageStatus::Pending);
    status_within(&node, &receipt.item_hash, (MessageStatus::Rejected, Some(101))).await;
    // Also over a restart.
    let node = node.restarted().await;
    node.service.pipeline.submit(to_json(&original)).await.expect("a receipt");
    status_within(&node, &receipt.item_hash, PROCESSED).await;
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    for table in [Table::Pending, Table::Horizon, Table::Wakes] {
        assert_eq!(snapshot.prefixed(table, &[]).expect("rows"), [], "{table:?}");
    }
    // It goes on looking at its original.
    assert_eq!(snapshot.prefixed(Table::Needs, &[]).expect("rows").len(), 1);
    assert_eq!(snapshot.number(Table::Meta, b"waiting").expect("a number"), 0);
    drop(snapshot);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_wait_for_one() {
    const COUNT: u32 = 700;
    let node = TestNode::new().await;
    let original = post("text").sign(&account(1));
    let mut hashes = Vec::new();
    for number in 0..COUNT {
        hashes.push(node.send(&account(1), amend(&original.item_hash, 1001.0 + f64::from(number))).await.item_hash);
    }
    node.service.pipeline.submit(to_json(&original)).await.expect("a receipt");
    for hash in &hashes {
        status_within(&node, hash, PROCESSED).await;
    }
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_has_a_bound() {
    let node = TestNode::with(|config| config.pipeline.max_waiting = 2).await;
    let nobody = ItemHash::sha256_of(b"nobody");
    let statuses = [1001.0, 1002.0, 1003.0].map(|time| amend(&nobody, time));
    let mut found = Vec::new();
    for draft in statuses {
        found.push(node.send(&account(1), draft).await.status);
    }
    assert_eq!(found, [MessageStatus::Pending, MessageStatus::Pending, MessageStatus::Rejected]);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegation_that_comes_late_counts() {
    let node = TestNode::new().await;
    let (owner, delegate, stranger) = (account(1), account(2), account(3));
    let for_owner = |text: &str| post(text).address(owner.address());
    let by_delegate = node.send(&delegate, for_owner("a")).await;
    let by_stranger = node.send(&stranger, for_owner("b")).await;
    for receipt in [&by_delegate, &by_stranger] {
        assert_eq!(node.status(&receipt.item_hash), Some((MessageStatus::Rejected, Some(2))));
    }
    let security = json!({"key": "security", "content": {"authorizations": [
        {"address": delegate.address().to_lowercase(), "types": ["POST"], "post_types": ["note"]}]}});
    let receipt = node.send(&owner, Draft::new("AGGREGATE", &security.to_string()).time(1002.0)).await;
    assert_eq!(receipt.status, MessageStatus::Processed);
    status_within(&node, &by_delegate.item_hash, PROCESSED).await;
    assert_eq!(node.status(&by_stranger.item_hash), Some((MessageStatus::Rejected, Some(2))));
    node.service.pipeline.stop().await;
}

/// More of them than are read in one go made the node decide the first ones again and again, for ever, and never stop: whoever was still refused stood
/// where the reading began anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_go_on_waiting_are_decided_once_per_arrival() {
    const REFUSED: u64 = 210;
    let node = TestNode::new().await;
    let (owner, stranger) = (account(1), account(3));
    for number in 0..REFUSED {
        let content = json!({"type": "note", "address": owner.address(), "content": number}).to_string();
        let receipt = node.send(&stranger, Draft::new("POST", &content).time(1000.0)).await;
        assert_eq!(receipt.rejection.map(|rejection| rejection.code), Some(2));
    }
    let calls = || {
        let post = |plugin: &crate::host::PluginInfo| plugin.types == ["POST"];
        let post = node.service.plugins.list().into_iter().find(post).expect("the plugin");
        post.statistics.expect("of an active plugin").calls
    };
    let before = calls();
    let security = json!({"key": "security", "content": {"authorizations": [{"address": account(2).address()}]}});
    node.send(&owner, Draft::new("AGGREGATE", &security.to_string()).time(1002.0)).await;
    let waking = || {
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        !snapshot.prefixed(Table::Wakes, &[]).expect("rows").is_empty()
    };
    for _ in 0..500 {
        if !waking() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!waking(), "the pass does not end");
    assert_eq!(calls() - before, REFUSED, "each is looked at once");
    node.service.pipeline.stop().await;
}

/// A node that has many to wake stops all the same; they are woken at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_those_who_wait() {
    let node = TestNode::new().await;
    let (owner, delegate) = (account(1), account(2));
    let mut sent = Vec::new();
    for number in 0..60 {
        let content = json!({"type": "note", "address": owner.address(), "content": number}).to_string();
        sent.push(node.send(&delegate, Draft::new("POST", &content).time(1000.0)).await.item_hash);
    }
    let security = json!({"key": "security", "content": {"authorizations": [{"address": delegate.address()}]}});
    node.send(&owner, Draft::new("AGGREGATE", &security.to_string()).time(1002.0)).await;
    let node = node.restarted().await;
    for hash in &sent {
        status_within(&node, hash, PROCESSED).await;
    }
    node.service.pipeline.stop().await;
}

/// One cheap sender made every later message wait: transfers of nothing much, and then others that come before them all, each of which has all the others
/// made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_that_come_late_do_not_keep_others_waiting() {
    const EARLY: u64 = 1000;
    const LATE: u64 = 60;
    let node = TestNode::new().await;
    let (sender, recipient) = (account(1), account(2));
    node.fund(sender.address(), 0, EARLY + LATE).await;
    let transfer = |time: f64| {
        let credits = json!([{"address": recipient.address(), "amount": 1}]);
        let content = json!({"type": "aleph_credit_transfer", "content": {"transfer": {"credits": credits}}});
        Draft::new("POST", &content.to_string()).channel("ALEPH_CREDIT").time(time).sign(&sender)
    };
    let early = (0..EARLY).map(|number| transfer(1_785_000_000.0 + number as f64));
    let late = (0..LATE).map(|number| transfer(1_784_000_000.0 - number as f64));
    let mut sent = Vec::new();
    for envelope in early.chain(late) {
        let receipt = node.service.pipeline.submit(to_json(&envelope)).await.expect("a receipt");
        assert!(matches!(receipt.status, MessageStatus::Processed | MessageStatus::Pending), "{receipt:?}");
        sent.push(receipt);
    }
    let waiting = sent.iter().filter(|receipt| receipt.status == MessageStatus::Pending).count();
    assert!(waiting > 0, "the late ones use up the ration");
    assert_eq!(node.send(&account(3), post("another's")).await.status, MessageStatus::Processed);
    // Those that wait are put in order one after the other, in a quarter of the time, so how long all of them take is the machine's; that one does
    // is not.
    let mut waiting: Vec<&ItemHash> = sent.iter().map(|receipt| &receipt.item_hash).collect();
    while let Some(next) = one_of_within(&node, &waiting, PROCESSED).await {
        waiting.swap_remove(next);
    }
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let balance = |account: &Account| crate::ledger::balance(&snapshot, account.address(), 0).expect("a balance");
    assert_eq!((balance(&sender).credits, balance(&recipient).credits), (0, u128::from(EARLY + LATE)));
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn funds_are_asked_for_with_figures() {
    let node = TestNode::new().await;
    let code = node.put_file(b"code").await;
    let store = json!({"item_type": "storage", "item_hash": code.to_string()});
    let code = node.send(&account(1), Draft::new("STORE", &store.to_string()).time(1000.0)).await.item_hash;
    let program = |payment: &str| program(&code, payment);
    let errors = |receipt: crate::pipeline::Receipt| {
        let rejection = receipt.rejection.expect("a rejection");
        let errors: Vec<Value> =
            rejection.errors.iter().map(|error| serde_json::from_str(error).expect("JSON")).collect();
        (rejection.code, errors)
    };
    let (code, details) = errors(node.send(&account(1), program("hold")).await);
    // The file is free and counts all the same.
    let expected = json!({"required_balance": "200.000001271565753936", "account_balance": "0"});
    assert_eq!((code, details), (5, vec![expected]));
    let (code, details) = errors(node.send(&account(1), program("credit")).await);
    let expected = json!({"required_credits": "263999.999999999999952", "account_credits": "0", "min_runtime_days": 1});
    assert_eq!((code, details), (6, vec![expected]));

    node.fund(account(1).address(), 201, 264_000).await;
    for payment in ["hold", "credit"] {
        let receipt = node.send(&account(1), program(payment)).await;
        assert_eq!(receipt.status, MessageStatus::Processed, "{receipt:?}");
    }
    // All of it is spoken for now.
    for (payment, code) in [("hold", 5), ("credit", 6)] {
        let another = node.send(&account(1), program(payment).time(1_788_000_001.0)).await;
        assert_eq!(errors(another).0, code);
    }
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    assert_eq!(snapshot.prefixed(Table::Workloads, &[]).expect("rows").len(), 2);
    drop(snapshot);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_are_handed_on_when_they_are_there() {
    let node = TestNode::new().await;
    let transfer = json!({"type": "aleph_credit_transfer",
        "content": {"transfer": {"credits": [{"address": account(2).address(), "amount": 5}]}}});
    let draft = Draft::new("POST", &transfer.to_string()).channel("ALEPH_CREDIT").time(1_790_000_000.0);
    let refused = node.send(&account(1), draft).await;
    let rejection = refused.rejection.expect("a rejection");
    assert_eq!(
        (rejection.code, rejection.errors),
        (0, vec!["\"a transfer of 5 credits is not covered: 0 are there\"".into()])
    );
    // A grant of an earlier moment arrives: the transfer was covered all along.
    node.fund(account(1).address(), 0, 7).await;
    status_within(&node, &refused.item_hash, PROCESSED).await;
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let credits = |number| crate::ledger::balance(&snapshot, account(number).address(), 0).expect("a balance").credits;
    assert_eq!((credits(1), credits(2)), (2, 5));
    let movements: usize = snapshot
        .prefixed(Table::Credits, &[])
        .expect("rows")
        .iter()
        .map(|(_, row)| CreditRecord::read(row).expect("a record").movements.len())
        .sum();
    assert_eq!(movements, 2);
    drop(snapshot);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_and_files_come_from_peers() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = Node::start(Config { listen: ([127, 0, 0, 1], 0).into(), ..config(&folder) }).await.expect("a peer");
    let content =
        json!({"address": account(1).address(), "time": 1000.0, "type": "note", "content": "far"}).to_string();
    let put = async |bytes: &[u8]| {
        let mut writer = peer.service().files.writer().await.expect("a file");
        writer.write(bytes).await.expect("a write");
        let file = writer.finish().await.expect("a file");
        let hash = file.sha256.clone();
        peer.service().files.publish(file, &hash).await.expect("a name");
        peer.service().pipeline.add_file(hash.clone(), 0, FileKind::File).await.expect("a record");
        hash
    };
    let (content_hash, file) = (put(content.as_bytes()).await, put(&[7; 300_000]).await);
    let lying = put(b"true").await;
    peer.service().files.forge(&lying, b"lies");

    let url = format!("http://{}", peer.address());
    let node = TestNode::with(|config| config.peers = vec!["http://127.0.0.1:9".into(), url]).await;
    let stored =
        Draft::new("POST", "{}").time(1000.0).sign_stored(&account(1), content_hash.clone(), ItemType::Storage);
    let receipt = node.service.pipeline.submit(to_json(&stored)).await.expect("a receipt");
    assert_eq!(receipt.status, MessageStatus::Pending);
    status_within(&node, &content_hash, PROCESSED).await;
    let record = node.service.store.snapshot().expect("a snapshot").message(&content_hash).expect("no error");
    let record = record.expect("the message");
    assert_eq!((record.content(), record.size), (content.as_str(), content.len() as u64));

    let store = |file: &ItemHash| {
        let content = json!({"item_type": "storage", "item_hash": file.to_string()});
        Draft::new("STORE", &content.to_string()).time(1000.0)
    };
    let receipt = node.send(&account(1), store(&file)).await;
    status_within(&node, &receipt.item_hash, PROCESSED).await;
    assert_eq!(node.service.files.size(&file).expect("no error"), Some(300_000));
    let receipt = node.send(&account(1), store(&lying)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.status(&receipt.item_hash), Some((MessageStatus::Pending, None)));
    assert_eq!(node.service.files.size(&lying).expect("no error"), None, "what is not what it is called is not kept");
    node.service.pipeline.stop().await;
    peer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_nobody_keeps_goes() {
    let node = TestNode::with(|config| config.pipeline.grace_seconds = 1).await;
    let kept = node.put_file(b"kept").await;
    let lost = node.put_file(b"lost").await;
    let content = json!({"item_type": "storage", "item_hash": kept.to_string()}).to_string();
    node.send(&account(1), Draft::new("STORE", &content).time(1000.0)).await;
    let size = |hash: &ItemHash| node.service.files.size(hash).expect("no error");
    assert!(size(&kept).is_some() && size(&lost).is_some());
    for _ in 0..250 {
        if size(&lost).is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    assert_eq!(snapshot.file(&lost).expect("no error"), None);
    let file = snapshot.file(&kept).expect("no error").expect("the file");
    assert_eq!((file.pins, file.grace, size(&kept), size(&lost)), (1, None, Some(4), None));
    drop(snapshot);
    let announced = node.service.pipeline.add_file(lost.clone(), 4, FileKind::File).await;
    assert!(matches!(announced, Err(EngineError::NoSuchFile(hash)) if hash == lost));
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_is_there_after_a_restart() {
    let node = TestNode::new().await;
    let mut sent = Vec::new();
    for number in 0..50 {
        sent.push(node.send(&sol(1), post(&number.to_string())).await.item_hash);
    }
    let node = node.restarted().await;
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    for hash in &sent {
        assert_eq!(node.status(hash), Some(PROCESSED));
        assert!(snapshot.get(Table::Sequence, &hash_key(hash)).expect("no error").is_some());
    }
    drop(snapshot);
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_there_are_places_for_is_told_to_come_again() {
    let node = TestNode::with(|config| config.pipeline.queue = 2).await;
    let pipeline = &node.service.pipeline;
    let all = (0..60).map(|number| pipeline.submit(to_json(&post(&number.to_string()).sign(&account(1)))));
    let answers = futures_util::future::join_all(all).await;
    let overloaded = answers.iter().filter(|answer| matches!(answer, Err(SubmitError::Overloaded))).count();
    let processed = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(overloaded > 0 && processed >= 2 && overloaded + processed == 60, "{overloaded} {processed}");
    pipeline.stop().await;
    let late = pipeline.submit(to_json(&post("late").sign(&account(1)))).await;
    assert!(matches!(late, Err(SubmitError::Engine(EngineError::Stopped))), "{late:?}");
}
