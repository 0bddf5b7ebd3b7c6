//! Who cannot pay any more: the moment is given, so that years pass in a test.

use super::rules::{PROCESSED, program, status_within};
use crate::{
    clock::now_ms,
    pipeline::Reviewed,
    store::{
        Changes, Reader as _, StateDigest,
        confirmation::{self, ConfirmationRecord, TRANSACTION_BYTES},
        listing::{self, Filter, Order, Window},
        record::Record as _,
        schema::{Table, hash_key},
        standing,
    },
    testing::{TestNode, account},
};
use ccn_message::{
    ItemHash, MessageStatus,
    sign::{Account, Draft},
};
use serde_json::{Value, json};

const HOUR_MS: u64 = 3_600_000;
const NOTICE_MS: u64 = 25 * HOUR_MS;
const REMOVING: (MessageStatus, Option<i32>) = (MessageStatus::Removing, None);
const REMOVED: (MessageStatus, Option<i32>) = (MessageStatus::Removed, None);
const ANNOUNCED: Reviewed = Reviewed { announced: 1, recovered: 0, removed: 0 };

/// A transaction of that height vouches for these messages.
async fn confirm(node: &TestNode, hashes: &[&ItemHash], height: u64) {
    let row = ConfirmationRecord { time: height, publisher: "0xe".into() }.to_bytes();
    let key = |hash: &ItemHash| confirmation::key(hash, "ETH", "test", height, &[7; TRANSACTION_BYTES]);
    let rows = hashes.iter().map(|hash| ((Table::Confirmations, key(hash)), Some(row.clone())));
    node.service.pipeline.keep_of_chain(Changes::from_iter(rows)).await.expect("it is kept");
}

async fn review(node: &TestNode, now_ms: u64) -> Reviewed {
    node.service.pipeline.review(now_ms).await.expect("a review")
}

fn store_file(file: &ItemHash, time: f64) -> Draft {
    let content = json!({"item_type": "storage", "item_hash": file.to_string()});
    Draft::new("STORE", &content.to_string()).time(time)
}

fn forget(target: &ItemHash, time: f64) -> Draft {
    Draft::new("FORGET", &json!({"hashes": [target.to_string()]}).to_string()).time(time)
}

/// Credits that expire, in a grant of its own moment.
async fn grant(node: &TestNode, to: &Account, amount: u64, expiration_ms: u64, time: f64) {
    let grant = json!({"address": to.address(), "amount": amount, "price": "1", "tx_hash": "t", "provider": "p",
        "expiration": expiration_ms});
    let content: Value = json!({"type": "aleph_credit_distribution",
        "content": {"distribution": {"token": "T", "chain": "ETH", "credits": [grant]}}});
    let draft = Draft::new("POST", &content.to_string()).channel("ALEPH_CREDIT").time(time);
    assert_eq!(node.send(&node.treasury, draft).await.status, MessageStatus::Processed);
}

/// Hashes of what lists show of an address, in both orders, and how many a counter counts.
fn listed(node: &TestNode, owner: &Account, removing: Option<bool>) -> (Vec<ItemHash>, u64) {
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let owners = vec![owner.address().to_owned()];
    let (filter, all) = (Filter { owners, removing, ..Filter::default() }, Filter { removing, ..Filter::default() });
    let by = |order, filter: &Filter| {
        let window = Window { order, descending: false, skip: 0, limit: 50, after: None };
        let mut found = listing::list(&snapshot, filter, &window).expect("a list").messages;
        found.retain(|(_, record)| record.owner == owner.address());
        found.into_iter().map(|(hash, _)| hash).collect::<Vec<_>>()
    };
    let by_time = by(Order::Time, &filter);
    let sorted = |mut hashes: Vec<ItemHash>| {
        hashes.sort();
        hashes
    };
    // The one is put in order, the other met on the way through all that is confirmed or not.
    for filter in [&filter, &all] {
        assert_eq!(sorted(by(Order::FirstConfirmed, filter)), sorted(by_time.clone()));
    }
    (by_time, listing::count(&snapshot, &filter).expect("a count"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_credits_do_not_pay_is_announced_recovers_and_goes() {
    let node = TestNode::new().await;
    let owner = account(1);
    let file = node.put_file(b"code").await;
    let code = node.send(&owner, store_file(&file, 1000.0)).await.item_hash;
    // Credits for a day, two days from now.
    let now = now_ms();
    let (first, second) = (now + 48 * HOUR_MS, now + 96 * HOUR_MS);
    grant(&node, &owner, 300_000, first, 1_780_000_000.0).await;
    let receipt = node.send(&owner, program(&code, "credit")).await;
    assert_eq!(receipt.status, MessageStatus::Processed, "{receipt:?}");
    let hash = receipt.item_hash;

    // What no chain vouches for stays, paid or not.
    assert_eq!(review(&node, first).await, Reviewed::default());
    confirm(&node, &[&code, &hash], 30_000_000).await;
    assert_eq!(review(&node, first - 1).await, Reviewed::default());
    assert_eq!(review(&node, first).await, ANNOUNCED);
    assert_eq!((node.status(&hash), node.status(&code)), (Some(REMOVING), Some(PROCESSED)));
    assert_eq!(listed(&node, &owner, None), (vec![code.clone(), hash.clone()], 2));
    assert_eq!(listed(&node, &owner, Some(true)), (vec![hash.clone()], 1));
    assert_eq!(listed(&node, &owner, Some(false)), (vec![code.clone()], 1));
    let runs = || {
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        snapshot.get(Table::Workloads, &hash_key(&hash)).expect("no error").is_some()
    };
    assert!(!runs(), "nobody is asked to run what is not paid");
    assert_eq!(review(&node, first + NOTICE_MS - 1).await, Reviewed::default());

    // Others are as good.
    grant(&node, &owner, 300_000, second, 1_780_000_001.0).await;
    assert_eq!(review(&node, first + NOTICE_MS).await, Reviewed { recovered: 1, ..Reviewed::default() });
    assert_eq!(node.status(&hash), Some(PROCESSED));
    assert!(runs());

    let digest = || StateDigest::of(&node.service.store.snapshot().expect("a snapshot")).expect("a digest");
    let before = digest();
    assert_eq!(review(&node, second).await, ANNOUNCED);
    assert_eq!(digest(), before, "what is announced is said by this node alone");
    assert_eq!(review(&node, second + NOTICE_MS).await, Reviewed { removed: 1, ..Reviewed::default() });
    assert_eq!(node.status(&hash), Some(REMOVED));
    assert_eq!(listed(&node, &owner, None), (vec![code.clone()], 1));
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let record = standing::removed(&snapshot, &hash).expect("no error").expect("a record");
    assert_eq!((record.removed_at, record.message.envelope.item_content), (second + NOTICE_MS, None));
    assert!(snapshot.costs(&hash).expect("no error").is_none());
    drop(snapshot);
    // It is not taken in again, and what it used is in use until its owner forgets it.
    assert_eq!(node.send(&owner, program(&code, "credit")).await.status, MessageStatus::Removed);
    assert_eq!(node.send(&owner, forget(&code, 1_788_000_001.0)).await.rejection.expect("refused").code, 503);
    assert_eq!(node.send(&owner, forget(&hash, 1_788_000_002.0)).await.status, MessageStatus::Processed);
    assert_eq!(node.status(&hash), Some((MessageStatus::Forgotten, None)));
    assert_eq!(node.send(&owner, forget(&code, 1_788_000_003.0)).await.status, MessageStatus::Processed);
    status_within(&node, &code, (MessageStatus::Forgotten, None)).await;
    let (left, count) = listed(&node, &owner, None);
    assert_eq!((left.len(), count), (2, 2), "the two that forget");
    node.service.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tokens_do_not_hold_loses_its_file() {
    let node = TestNode::with(|config| config.network.paid_from_height = 100).await;
    let owner = account(1);
    node.fund(owner.address(), 100, 1).await;
    let mut stored = Vec::new();
    // 26 MiB each: beyond what is spared, and about 8.7 tokens.
    for number in 0..4_u8 {
        let file = node.put_file(&vec![number; 26 << 20]).await;
        let receipt = node.send(&owner, store_file(&file, 1_788_000_000.0 + f64::from(number))).await;
        assert_eq!(receipt.status, MessageStatus::Processed, "{receipt:?}");
        stored.push((receipt.item_hash, file));
    }
    let [(early, _), (first, _), (second, file), (unconfirmed, _)] = &stored[..] else { panic!("four files") };
    confirm(&node, &[early], 99).await;
    confirm(&node, &[first, second], 100).await;
    let now = now_ms();
    assert_eq!(review(&node, now).await, Reviewed::default());
    let balances = json!({"type": "balances-update",
        "content": {"chain": "ETH", "main_height": 2, "balances": {owner.address(): 18}}});
    node.send(&node.treasury, Draft::new("POST", &balances.to_string()).time(1_789_000_000.0)).await;

    // Enough for two: the early one counts and would stay anyway.
    assert_eq!(review(&node, now).await, ANNOUNCED);
    assert_eq!(node.status(second), Some(REMOVING));
    let node = node.restarted().await;
    assert_eq!(review(&node, now + NOTICE_MS).await, Reviewed { removed: 1, ..Reviewed::default() });
    for (hash, expected) in [(early, PROCESSED), (first, PROCESSED), (second, REMOVED), (unconfirmed, PROCESSED)] {
        assert_eq!(node.status(hash), Some(expected));
    }
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let record = standing::removed(&snapshot, second).expect("no error").expect("a record");
    assert_eq!(record.size, 26 << 20);
    let kept = snapshot.file(file).expect("no error").expect("a record");
    assert_eq!((kept.pins, kept.grace), (0, Some(now + NOTICE_MS)), "the collector has it next");
    assert_eq!(listed(&node, &owner, None).1, 3);
    drop(snapshot);
    node.service.pipeline.stop().await;
}
