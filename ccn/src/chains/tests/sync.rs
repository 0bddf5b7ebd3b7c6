//! Sync and message events: confirmations, archives, messages of contracts.

use super::fake::{EMITTER, FakeProvider, Manners, asked, message_event, sync_event, syncs, time_of};
use crate::{
    store::{
        Reader as _,
        confirmation::Confirmation,
        listing::{self, Blocks, Filter},
    },
    testing::{TestNode, account},
};
use ccn_message::{
    ItemHash, MessageStatus,
    sign::{Draft, to_json},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a message may take.
const WITHIN: Duration = Duration::from_secs(30);

fn signed(text: &str) -> Value {
    let content = json!({"type": "t", "content": {"text": text}}).to_string();
    let message = Draft::new("POST", &content).time(1_780_000_000.0).sign(&account(1));
    serde_json::from_str(&to_json(&message)).expect("JSON")
}

fn hash_of(message: &Value) -> ItemHash {
    ItemHash::parse(message["item_hash"].as_str().expect("a hash")).expect("a hash")
}

fn document(messages: &[Value]) -> Value {
    json!({"protocol": "aleph", "version": 1, "content": {"messages": messages}})
}

fn confirmations(node: &TestNode, message: &ItemHash) -> Vec<Confirmation> {
    node.service.store.snapshot().expect("a snapshot").confirmations(message).expect("confirmations")
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn node_of(provider: &FakeProvider, finality: u64) -> TestNode {
    let chain = provider.chain(Some(finality), &[syncs()]);
    TestNode::with(|config| config.chains = vec![chain]).await
}

fn status(node: &TestNode, message: &ItemHash) -> Option<MessageStatus> {
    node.status(message).map(|(status, _)| status)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_the_emitter_are_taken_in_and_confirmed() {
    let provider = FakeProvider::start(Manners::default()).await;
    let (one, two) = (signed("one"), signed("two"));
    let mut forged = signed("three");
    forged["signature"] = json!(format!("0x{}", "11".repeat(65)));
    provider.mine(vec![sync_event(EMITTER, &document(&[one.clone(), forged.clone(), json!({"no": "message"})]))]);
    provider.mine(vec![sync_event([9; 20], &document(std::slice::from_ref(&two)))]);
    let node = node_of(&provider, 20).await;
    provider.followed_by(&node).await;
    let hash = hash_of(&one);
    until("a confirmation", || !confirmations(&node, &hash).is_empty()).await;
    assert_eq!(status(&node, &hash), Some(MessageStatus::Processed));
    let [confirmation] = confirmations(&node, &hash).try_into().expect("one");
    assert_eq!((confirmation.chain.as_str(), confirmation.height, confirmation.time), ("ETH", 1, time_of(1)));
    assert_eq!(confirmation.publisher, format!("0x{}", hex::encode(EMITTER)));
    assert!(confirmation.hash.len() == 66 && confirmation.hash.starts_with("0x"));
    // A stranger's event says nothing, and a copy with a wrong signature says nothing about its message.
    assert_eq!(status(&node, &hash_of(&two)), None);
    assert_eq!(confirmations(&node, &hash_of(&forged)), []);

    // The transaction moves to another block.
    provider.take_back(2);
    provider.mine_empty(3);
    provider.followed_by(&node).await;
    assert_eq!(confirmations(&node, &hash), []);
    assert_eq!(status(&node, &hash), Some(MessageStatus::Processed), "its signature stands");
    provider.mine(vec![sync_event(EMITTER, &document(std::slice::from_ref(&one)))]);
    provider.mine(vec![sync_event(EMITTER, &document(&[one]))]);
    provider.followed_by(&node).await;
    until("both confirmations", || confirmations(&node, &hash).len() == 2).await;
    assert_eq!(confirmations(&node, &hash)[0].height, 4);
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    for (start, end, expect) in [(0, None, 1), (4, Some(5), 1), (5, None, 0), (0, Some(4), 0)] {
        let filter = Filter { blocks: Blocks { start, end }, ..Filter::default() };
        assert_eq!(listing::count(&snapshot, &filter).expect("a count"), expect, "{start} {end:?}");
    }
    let listed = asked(&node, "/api/v0/syncs/ETH").await;
    assert_eq!(listed["syncs"].as_array().map(Vec::len), Some(2), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_unpacked_when_they_are_here() {
    let provider = FakeProvider::start(Manners::default()).await;
    let messages: Vec<Value> = (0..300).map(|number| signed(&format!("number {number}"))).collect();
    let archive = document(&messages).to_string();
    let file = ItemHash::sha256_of(archive.as_bytes()).to_string();
    provider.mine(vec![sync_event(EMITTER, &json!({"protocol": "aleph-offchain", "version": 1, "content": file}))]);
    // What is no archive is given up, and nobody stops for it.
    let other = ItemHash::sha256_of(b"no archive").to_string();
    provider.mine(vec![sync_event(EMITTER, &json!({"protocol": "aleph-offchain", "version": 1, "content": other}))]);
    let node = node_of(&provider, 1).await;
    provider.followed_by(&node).await;
    assert_eq!(status(&node, &hash_of(&messages[0])), None);
    node.put_file(b"no archive").await;
    provider.status_of(&node, |status| status.open == 1).await;
    // It is still known after a restart.
    node.service.chains.stop().await;
    let node = node.restarted().await;
    node.put_file(archive.as_bytes()).await;
    until("all confirmations", || messages.iter().all(|message| confirmations(&node, &hash_of(message)).len() == 1))
        .await;
    assert!(messages.iter().all(|message| status(&node, &hash_of(message)) == Some(MessageStatus::Processed)));
    provider.status_of(&node, |status| status.open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_contracts_stand_once_their_block_is_final() {
    let provider = FakeProvider::start(Manners::default()).await;
    let sender = [0xab; 20];
    let address = format!("0x{}", hex::encode(sender));
    let content =
        |text: &str| json!({"address": address, "time": 5.0, "type": "t", "content": {"text": text}}).to_string();
    let foreign = json!({"address": "0xB", "time": 5.0, "type": "t", "content": {}}).to_string();
    let hash = |content: &str| ItemHash::sha256_of(content.as_bytes());
    provider.mine(vec![message_event(sender, "POST", &content("kept")), message_event(sender, "POST", &foreign)]);
    provider.mine(vec![message_event(sender, "POST", &content("taken back")), message_event(sender, "POST", "{")]);
    let node = node_of(&provider, 4).await;
    provider.followed_by(&node).await;
    provider.status_of(&node, |status| status.open == 4).await;
    assert_eq!(status(&node, &hash(&content("kept"))), None);
    provider.take_back(1);
    provider.mine_empty(5);
    provider.followed_by(&node).await;
    until("the message", || status(&node, &hash(&content("kept"))) == Some(MessageStatus::Processed)).await;
    provider.status_of(&node, |status| status.open == 0).await;
    assert_eq!(status(&node, &hash(&content("taken back"))), None);
    // A contract speaks for its caller, and for nobody else.
    assert_eq!(node.status(&hash(&foreign)), Some((MessageStatus::Rejected, Some(2))));
    let record = node.service.store.snapshot().expect("a snapshot").message(&hash(&content("kept"))).expect("no error");
    let envelope = record.expect("a message").envelope;
    assert_eq!((envelope.sender.as_str(), envelope.signature), (address.as_str(), None));
    assert_eq!(envelope.time, time_of(1) as f64);
    assert_eq!(confirmations(&node, &hash(&content("kept"))).len(), 1);
    // Nobody can send such a message by another way.
    let text = json!({"sender": address, "chain": "ETH", "type": "POST", "time": 5.0, "item_type": "inline",
        "item_content": content("taken back"), "item_hash": hash(&content("taken back")).to_string()});
    let receipt = node.submit(&text).await.expect("a receipt");
    assert_eq!((receipt.status, receipt.rejection.map(|rejection| rejection.code)), (MessageStatus::Rejected, Some(1)));
}
