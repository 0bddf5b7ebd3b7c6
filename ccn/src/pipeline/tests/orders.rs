//! Small sets of messages in every order of arrival: what stands is the same in the end.

use super::fixtures::state;
use crate::{
    store::{Reader as _, Row, schema::Table},
    testing::{TestNode, account},
};
use ccn_message::{
    Envelope, ItemHash, MessageStatus,
    sign::{Account, Draft, to_json},
};
use serde_json::{Value, json};
use std::time::Duration;

const STANDS: (MessageStatus, Option<i32>) = (MessageStatus::Processed, None);
const HIDDEN: (MessageStatus, Option<i32>) = (MessageStatus::Forgotten, None);

fn refused(code: i32) -> (MessageStatus, Option<i32>) {
    (MessageStatus::Rejected, Some(code))
}

fn sign(account: &Account, owner: &Account, kind: &str, mut content: Value, time: f64) -> Envelope {
    content["address"] = Value::from(owner.address());
    Draft::new(kind, &content.to_string()).channel("ALEPH_CREDIT").time(time).sign(account)
}

fn note(account: &Account, owner: &Account, time: f64) -> Envelope {
    sign(account, owner, "POST", json!({"type": "note", "content": time}), time)
}

fn delegations(owner: &Account, to: &[&Account], time: f64) -> Envelope {
    let entries: Vec<Value> = to.iter().map(|account| json!({"address": account.address()})).collect();
    sign(owner, owner, "AGGREGATE", json!({"key": "security", "content": {"authorizations": entries}}), time)
}

fn forget(account: &Account, targets: &[&Envelope], time: f64) -> Envelope {
    let hashes: Vec<String> = targets.iter().map(|target| target.item_hash.to_string()).collect();
    sign(account, account, "FORGET", json!({"hashes": hashes}), time)
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let insert = |order: &Vec<usize>, place: usize| {
        let mut order = order.clone();
        order.insert(place, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |place| insert(order, place))).collect()
}

async fn settled(node: &TestNode) {
    for _ in 0..500 {
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        if snapshot.prefixed(Table::Wakes, &[]).expect("rows").is_empty() {
            return;
        }
        drop(snapshot);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to rest");
}

type State = Vec<(Table, Vec<Row>)>;

/// Plays messages in every order; each must end as it says, and the state must be one.
async fn check(file: Option<&[u8]>, credits: Option<&Account>, cases: &[(&Envelope, (MessageStatus, Option<i32>))]) {
    let mut first: Option<State> = None;
    for order in orders(cases.len()) {
        let node = TestNode::with(|config| config.pipeline.horizon_seconds = 0).await;
        if let Some(file) = file {
            node.put_file(file).await;
        }
        if let Some(account) = credits {
            node.fund(account.address(), 0, 10).await;
        }
        for place in &order {
            node.service.pipeline.submit(to_json(cases[*place].0)).await.expect("a receipt");
        }
        settled(&node).await;
        for (place, (envelope, expect)) in cases.iter().enumerate() {
            let mut found = node.status(&envelope.item_hash);
            for _ in 0..100 {
                if found == Some(*expect) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                found = node.status(&envelope.item_hash);
            }
            assert_eq!(found, Some(*expect), "message {place} in the order {order:?}");
        }
        let state = state(&node);
        node.service.pipeline.stop().await;
        match &first {
            None => first = Some(state),
            Some(first) => {
                for ((table, rows), (_, others)) in first.iter().zip(&state) {
                    assert_eq!(rows, others, "{table:?} in the order {order:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_goes_with_its_amends() {
    let owner = account(1);
    let original = note(&owner, &owner, 1000.0);
    let amend = |time: f64| {
        let content = json!({"type": "amend", "ref": original.item_hash, "content": time});
        sign(&owner, &owner, "POST", content, time)
    };
    let (before, after) = (amend(1001.0), amend(1003.0));
    let gone = forget(&owner, &[&original], 1002.0);
    // An amend of a later position sees no original.
    check(None, None, &[(&original, HIDDEN), (&before, HIDDEN), (&gone, STANDS), (&after, refused(101))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegation_counts_from_its_moment_to_that_of_its_end() {
    let (owner, delegate) = (account(1), account(2));
    let (given, ended) = (delegations(&owner, &[&delegate], 1000.0), delegations(&owner, &[], 2000.0));
    let (during, after) = (note(&delegate, &owner, 1500.0), note(&delegate, &owner, 2500.0));
    check(None, None, &[(&given, STANDS), (&ended, STANDS), (&during, STANDS), (&after, refused(2))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_no_longer_act_does_not_forget() {
    let (owner, delegate) = (account(1), account(2));
    let (given, ended) = (delegations(&owner, &[&delegate], 1000.0), delegations(&owner, &[], 2000.0));
    let target = note(&owner, &owner, 1100.0);
    let late = forget(&delegate, &[&target], 3000.0);
    check(None, None, &[(&given, STANDS), (&ended, STANDS), (&target, STANDS), (&late, refused(2))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_delegation_ends_where_it_was_forgotten() {
    let (owner, delegate) = (account(1), account(2));
    let given = delegations(&owner, &[&delegate], 1000.0);
    let gone = forget(&owner, &[&given], 2000.0);
    let (during, after) = (note(&delegate, &owner, 1500.0), note(&delegate, &owner, 2500.0));
    check(None, None, &[(&given, HIDDEN), (&gone, STANDS), (&during, STANDS), (&after, refused(2))]).await;
}

/// A FORGET rests on a message of a delegate, and takes the delegation away: it took its own ground away, too, when that delegation was of a moment
/// soon after the message, and nothing came to rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_a_delegation_away_may_rest_on_it() {
    let (owner, delegate) = (account(1), account(2));
    let aggregate =
        |key: &str, time: f64| sign(&delegate, &owner, "AGGREGATE", json!({"key": key, "content": {"a": time}}), time);
    let given = delegations(&owner, &[&delegate], 1075.0);
    // A key that a FORGET names looks as a hash does.
    let key = ItemHash::sha256_of(b"one").to_string();
    let (before, after) = (aggregate(&key, 1018.0), aggregate("two", 1028.0));
    let targets = json!({"hashes": [given.item_hash.to_string()], "aggregates": [key]});
    let gone = sign(&owner, &owner, "FORGET", targets, 1024.0);
    check(None, None, &[(&given, HIDDEN), (&before, HIDDEN), (&after, STANDS), (&gone, STANDS)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegation_is_forgotten_by_its_owner_alone() {
    let (owner, delegate) = (account(1), account(2));
    let given = delegations(&owner, &[&delegate], 1000.0);
    let forgotten = forget(&delegate, &[&given], 2000.0);
    check(None, None, &[(&given, STANDS), (&forgotten, refused(2))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_are_handed_on_in_the_order_of_their_moments() {
    let (sender, one, other) = (account(1), account(2), account(3));
    let transfer = |to: &Account, amount: u64, time: f64| {
        let credits = json!([{"address": to.address(), "amount": amount}]);
        let content = json!({"type": "aleph_credit_transfer", "content": {"transfer": {"credits": credits}}});
        sign(&sender, &sender, "POST", content, time)
    };
    // Ten are there since 1,780,000,000.
    let first = transfer(&one, 7, 1_780_000_001.0);
    let second = transfer(&other, 5, 1_780_000_002.0);
    let third = transfer(&other, 3, 1_780_000_003.0);
    check(None, Some(&sender), &[(&first, STANDS), (&second, refused(0)), (&third, STANDS)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_program_uses_is_not_forgotten_and_one_that_is_forgotten_is_not_used() {
    let owner = account(1);
    let file = b"code of a program";
    let hash = ItemHash::sha256_of(file);
    let stored = sign(&owner, &owner, "STORE", json!({"item_type": "storage", "item_hash": hash}), 1_700_000_000.0);
    let program = |time: f64| {
        let reference = stored.item_hash.to_string();
        let content = json!({
            "type": "vm-function", "allow_amend": false, "environment": {}, "resources": {},
            "on": {"http": true},
            "code": {"encoding": "plain", "entrypoint": "main", "ref": reference},
            "runtime": {"ref": reference, "comment": ""},
        });
        sign(&owner, &owner, "PROGRAM", content, time)
    };
    let gone = forget(&owner, &[&stored], 1_700_000_002.0);
    let before = program(1_700_000_001.0);
    check(Some(file), None, &[(&stored, STANDS), (&before, STANDS), (&gone, refused(503))]).await;
    let after = program(1_700_000_003.0);
    check(Some(file), None, &[(&stored, HIDDEN), (&after, refused(301)), (&gone, STANDS)]).await;
}

/// What was deleted was decided anew for want of its ground, and waited for a content that nobody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_stays_forgotten() {
    let (owner, delegate) = (account(1), account(2));
    let node = TestNode::with(|config| config.pipeline.grace_seconds = 0).await;
    let target = note(&delegate, &owner, 1500.0);
    for envelope in [delegations(&owner, &[&delegate], 1000.0), target.clone(), forget(&owner, &[&target], 2000.0)] {
        node.service.pipeline.submit(to_json(&envelope)).await.expect("a receipt");
    }
    let deleted = || {
        let snapshot = node.service.store.snapshot().expect("a snapshot");
        let record = crate::store::standing::forgotten(&snapshot, &target.item_hash).expect("no error");
        record.is_some_and(|record| record.purged && record.message.envelope.item_content.is_none())
    };
    for _ in 0..500 {
        if deleted() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(deleted());
    let ended = delegations(&owner, &[], 1200.0);
    node.service.pipeline.submit(to_json(&ended)).await.expect("a receipt");
    settled(&node).await;
    assert_eq!(node.status(&target.item_hash), Some(HIDDEN));
    assert!(deleted());
    node.service.pipeline.stop().await;
}
