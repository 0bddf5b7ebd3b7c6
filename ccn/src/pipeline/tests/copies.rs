//! Copies of one hash: which of them stands, whoever sends what after it, and in whatever order.

use super::rules::{PROCESSED, amend, post, status_within};
use crate::{
    store::{
        Reader as _, StateDigest,
        record::{CreditRecord, MessageRecord, Record as _},
        schema::Table,
    },
    testing::{TestNode, account},
};
use ccn_message::{
    Envelope, ItemHash, ItemType, MessageStatus,
    sign::{Account, Draft, to_json},
};
use serde_json::json;

async fn submit(node: &TestNode, envelope: &Envelope) -> MessageStatus {
    node.service.pipeline.submit(to_json(envelope)).await.expect("a receipt").status
}

fn stands(node: &TestNode, hash: &ItemHash) -> MessageRecord {
    node.service.store.snapshot().expect("a snapshot").message(hash).expect("no error").expect("a message that stands")
}

fn credits(node: &TestNode, number: u8) -> u128 {
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    crate::ledger::balance(&snapshot, account(number).address(), 0).expect("a balance").credits
}

/// A post of the first account that hands five credits to the second.
fn transfer() -> Draft {
    let content = json!({"type": "aleph_credit_transfer",
        "content": {"transfer": {"credits": [{"address": account(2).address(), "amount": 5}]}}});
    Draft::new("POST", &content.to_string()).address(account(1).address()).channel("ALEPH_CREDIT").time(1_790_000_000.0)
}

/// Has the first account let the third one act for it.
async fn delegate(node: &TestNode) {
    let content = json!({"key": "security", "content": {"authorizations": [{"address": account(3).address()}]}});
    let receipt = node.send(&account(1), Draft::new("AGGREGATE", &content.to_string()).time(900.0)).await;
    assert_eq!(receipt.status, MessageStatus::Processed);
}

/// Anybody could undo a transfer of credits: the same signed words in another channel, nearer in time to their content, took its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_relays_alter_takes_nobodys_place() {
    let node = TestNode::new().await;
    node.fund(account(1).address(), 0, 7).await;
    let own = Envelope { time: 1_790_000_003.0, ..transfer().sign(&account(1)) };
    assert_eq!(submit(&node, &own).await, MessageStatus::Processed);
    assert_eq!((credits(&node, 1), credits(&node, 2)), (2, 5));
    for channel in [None, Some("x"), Some("y"), Some("z")] {
        let altered = Envelope { time: 1_790_000_000.0, channel: channel.map(str::to_owned), ..own.clone() };
        assert_eq!(submit(&node, &altered).await, MessageStatus::Processed);
    }
    assert_eq!((credits(&node, 1), credits(&node, 2)), (2, 5));
    let record = stands(&node, &own.item_hash);
    assert_eq!((record.envelope.time, record.envelope.channel.as_deref()), (own.time, Some("ALEPH_CREDIT")));
    node.service.pipeline.stop().await;
}

/// Copies have one row in the ledger: the one that was put behind took the other's away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_of_a_transfer_that_is_not_covered_are_one_movement() {
    for order in [[1, 3], [3, 1]] {
        let node = TestNode::new().await;
        delegate(&node).await;
        let copies = order.map(|number| transfer().sign(&account(number)));
        for copy in &copies {
            assert_eq!(submit(&node, copy).await, MessageStatus::Rejected);
        }
        node.fund(account(1).address(), 0, 7).await;
        status_within(&node, &copies[0].item_hash, PROCESSED).await;
        assert_eq!(stands(&node, &copies[0].item_hash).envelope.sender, account(1).address(), "order {order:?}");
        assert_eq!((credits(&node, 1), credits(&node, 2)), (2, 5), "order {order:?}");
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        let rows = snapshot.prefixed(Table::Credits, &[]).expect("rows");
        let movements = rows.iter().map(|(_, row)| CreditRecord::read(row).expect("a record").movements.len());
        assert_eq!(movements.sum::<usize>(), 2, "order {order:?}");
        drop(snapshot);
        node.service.pipeline.stop().await;
    }
}

/// The state is that of the best copy, whichever came first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owners_copy_stands_in_every_order() {
    let mut digests = Vec::new();
    for order in [[1, 3], [3, 1]] {
        let node = TestNode::new().await;
        delegate(&node).await;
        let copies = order.map(|number| post("text").address(account(1).address()).sign(&account(number)));
        for copy in &copies {
            submit(&node, copy).await;
        }
        status_within(&node, &copies[0].item_hash, PROCESSED).await;
        assert_eq!(stands(&node, &copies[0].item_hash).envelope.sender, account(1).address(), "order {order:?}");
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        digests.push(StateDigest::of(&snapshot).expect("a digest"));
        drop(snapshot);
        node.service.pipeline.stop().await;
    }
    assert_eq!(digests[0], digests[1]);
}

/// Strangers signed what a delegate's message waited with, and it was forgotten about without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_put_nothing_aside_that_waits() {
    let node = TestNode::new().await;
    delegate(&node).await;
    let original = post("text").sign(&account(1));
    let amend = || amend(&original.item_hash, 1001.0).address(account(1).address());
    let file = ItemHash::sha256_of(b"a file");
    let store = json!({"item_type": "storage", "item_hash": file.to_string()}).to_string();
    let store = || Draft::new("STORE", &store).address(account(1).address()).time(1000.0);
    let waiting: [&dyn Fn() -> Draft; 2] = [&amend, &store];
    for draft in waiting {
        assert_eq!(submit(&node, &draft().sign(&account(3))).await, MessageStatus::Pending);
        for number in 10..30 {
            // Refused, made to wait, or told that there is no room.
            let _ = node.service.pipeline.submit(to_json(&draft().sign(&account(number)))).await;
        }
    }
    // The owner's own always has a place.
    assert_eq!(submit(&node, &amend().sign(&account(1))).await, MessageStatus::Pending);
    submit(&node, &original).await;
    assert_eq!(node.put_file(b"a file").await, file);
    for draft in waiting {
        status_within(&node, &draft().sign(&account(1)).item_hash, PROCESSED).await;
    }
    assert_eq!(stands(&node, &store().sign(&account(3)).item_hash).envelope.sender, account(3).address());
    node.service.pipeline.stop().await;
}

/// Where the content is, is signed by nobody: a copy without it took the place of one that had it and waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hollow_copy_takes_no_content_away() {
    let node = TestNode::new().await;
    let original = post("text").sign(&account(1));
    let waiting = amend(&original.item_hash, 1001.0).sign(&account(1));
    let hollow = Envelope { item_type: ItemType::Storage, item_content: None, ..waiting.clone() };
    for copy in [&waiting, &hollow] {
        assert_eq!(submit(&node, copy).await, MessageStatus::Pending);
    }
    submit(&node, &original).await;
    status_within(&node, &waiting.item_hash, PROCESSED).await;
    assert_eq!(stands(&node, &waiting.item_hash).envelope.item_content, waiting.item_content);
    node.service.pipeline.stop().await;
}

/// Content that names no owner is each signer's own: a key with a smaller digest would have been enough to take it over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_no_owner_stays_with_whom_it_came_first() {
    let node = TestNode::new().await;
    let content = json!({"type": "note", "content": "of nobody", "time": 1000.0}).to_string();
    let hash = node.put_file(content.as_bytes()).await;
    let copy =
        |account: &Account| Draft::new("POST", "{}").time(1000.0).sign_stored(account, hash.clone(), ItemType::Storage);
    assert_eq!(submit(&node, &copy(&account(1))).await, MessageStatus::Processed);
    for number in 2..12 {
        assert_eq!(submit(&node, &copy(&account(number))).await, MessageStatus::Rejected);
    }
    assert_eq!(stands(&node, &hash).envelope.sender, account(1).address());
    node.service.pipeline.stop().await;
}

/// What is said of a message that was refused is said of what somebody signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_copy_does_not_cover_up_why_the_signed_one_was_refused() {
    let node = TestNode::new().await;
    let signed = Draft::new("FORGET", r#"{"hashes":[]}"#).time(1000.0).sign(&account(1));
    let forged = Envelope { signature: None, ..signed.clone() };
    for (copy, code) in [(&forged, 1), (&signed, 500), (&forged, 500)] {
        submit(&node, copy).await;
        assert_eq!(node.status(&signed.item_hash), Some((MessageStatus::Rejected, Some(code))));
    }
    node.service.pipeline.stop().await;
}
