//! What the standard plugins read, held against the bounds of a call, where a stranger decides how much there is.

use crate::{
    host::Outcome,
    store::{Reader, Row, StoreError, record::MessageRecord, schema::Table, standing::Fate},
    testing::{TestNode, account},
};
use ccn_message::{ItemHash, MessageStatus, sign::Draft};
use serde_json::json;
use std::sync::Arc;

/// Most messages that one FORGET may name.
const TARGETS: usize = 1000;
/// An inline content can have more than twice as much. All targets together have more than a call may be answered.
const CONTENT_BYTES: usize = 300_000;

/// A store in which every hash is that of one and the same message.
struct Everywhere(MessageRecord);

impl Reader for Everywhere {
    fn get(&self, _table: Table, _key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }
    fn range(&self, _: Table, _: &[u8], _: &[u8], _: usize, _: bool) -> Result<Vec<Row>, StoreError> {
        Ok(Vec::new())
    }
    fn standing(&self, _hash: &ItemHash) -> Result<(Fate, Option<MessageRecord>), StoreError> {
        Ok((Fate::Standing, Some(self.0.clone())))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forget_of_the_most_messages_is_accepted_however_long_they_are() {
    let node = TestNode::new().await;
    let post = node.send(&account(1), Draft::new("POST", r#"{"type":"t"}"#).time(1.0)).await;
    assert_eq!(post.status, MessageStatus::Processed);
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    let mut record = snapshot.message(&post.item_hash).expect("no error").expect("the post");
    record.content = Some("x".repeat(CONTENT_BYTES));

    let mut hashes: Vec<String> = (0..TARGETS).map(|n| ItemHash::sha256_of(&n.to_be_bytes()).to_string()).collect();
    let content = json!({"address": record.owner, "time": 2.0, "hashes": hashes}).to_string();
    let message = crate::host::contract::Message {
        item_hash: ItemHash::sha256_of(content.as_bytes()).to_string(),
        kind: "FORGET".to_owned(),
        sender: record.owner.clone(),
        chain: "ETH".to_owned(),
        channel: None,
        address: record.owner.clone(),
        time: 2.0,
        envelope_time: 2.0,
        content: content.into_bytes(),
    };
    let plugin = node.service.plugins.for_kind("FORGET").expect("the plugin");
    let outcome = plugin.process(&message, Arc::new(Everywhere(record))).expect("it does not fail");
    let Outcome::Accepted(effects) = outcome else { panic!("{outcome:?}") };
    let found: Vec<String> = effects.forgets.iter().map(ToString::to_string).collect();
    hashes.sort_unstable();
    assert!(found == hashes, "{} of {TARGETS} are forgotten", found.len());
    node.service.pipeline.stop().await;
}
