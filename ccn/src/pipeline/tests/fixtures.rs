//! Every message of the shared fixtures that is in scope, in the order in which they are listed and in others.

use super::rebuild;
use crate::{
    pipeline::{FileKind, SubmitError},
    store::{Reader as _, Row, schema::Table},
    testing::{TestNode, fixture, fixture_json},
};
use ccn_message::{ItemHash, MessageStatus};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// A message with what is to become of it.
#[derive(Clone)]
struct Case {
    name: String,
    message: Value,
    expect: (MessageStatus, Option<i32>),
}

/// Something that reaches a node.
#[derive(Clone)]
enum Arrival {
    Message(Box<Case>),
    File(Vec<u8>),
    /// A folder, as the archive of its blocks.
    Folder(Vec<u8>),
    /// A file whose bytes nobody has any more: only that it is here matters.
    Lost(ItemHash),
}

fn expected(value: &Value) -> (MessageStatus, Option<i32>) {
    let status = value["status"].as_str().expect("a status").parse().expect("a status");
    let code = value["error_code"].as_i64().map(|code| i32::try_from(code).expect("a code"));
    (status, code)
}

/// The message of a genuine NULS wallet, which the program that the fixtures follow refuses by a mistake of its own: its signature is valid
/// (ccn spec 3.8), and so is the rest of it.
const GENUINE_NULS: &str = "real/nuls-aggregate-84afd84849.json";

fn signed() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in fixture_json("signed/index.json").as_array().expect("a list") {
        let name = entry["name"].as_str().expect("a name").to_owned();
        let fixture = fixture_json(&format!("signed/{name}.json"));
        cases.push(Case { name, message: fixture["message"].clone(), expect: expected(&fixture["expect"]) });
    }
    cases
}

fn real_and_generated() -> Vec<Case> {
    let mut cases = Vec::new();
    let index = fixture_json("messages/index.json");
    for case in index["cases"].as_array().expect("a list") {
        let name = case["file"].as_str().expect("a file").to_owned();
        let message = fixture_json(&format!("messages/{name}"));
        let genuine = name == GENUINE_NULS;
        let expect = if genuine { (MessageStatus::Processed, None) } else { expected(&case["expected"]) };
        cases.push(Case { name, message, expect });
    }
    cases
}

/// Those that are forgotten in the end, of messages that are processed first: the targets of every FORGET that is, and the amends of those.
fn mark_forgotten(cases: &mut [Case]) {
    let processed = (MessageStatus::Processed, None);
    let content = |case: &Case| serde_json::from_str::<Value>(case.message["item_content"].as_str().unwrap_or("{}"));
    let mut gone = Vec::new();
    for case in cases.iter().filter(|case| case.message["type"] == "FORGET" && case.expect == processed) {
        gone.extend(content(case).expect("JSON")["hashes"].as_array().cloned().unwrap_or_default());
    }
    for case in cases.iter_mut().filter(|case| case.expect == processed) {
        let goes_with =
            content(case).ok().filter(|content| content["type"] == "amend").map(|content| content["ref"].clone());
        if gone.contains(&case.message["item_hash"]) || goes_with.is_some_and(|original| gone.contains(&original)) {
            case.expect = (MessageStatus::Forgotten, None);
        }
    }
}

/// The files of the signed fixtures, and the folder among them.
fn files() -> Vec<Arrival> {
    let mut names: Vec<String> = Vec::new();
    for entry in fixture_json("signed/index.json").as_array().expect("a list") {
        let fixture = fixture_json(&format!("signed/{}.json", entry["name"].as_str().expect("a name")));
        names.extend(
            fixture["files"].as_array().into_iter().flatten().map(|name| name.as_str().expect("a name").to_owned()),
        );
    }
    names.sort();
    names.dedup();
    // The folder's files lie in it as well as in its archive.
    names.retain(|name| !name.ends_with('/'));
    let arrival = |name: &String| {
        let bytes = fixture(&format!("signed/{name}"));
        if name.ends_with(".car") { Arrival::Folder(bytes) } else { Arrival::File(bytes) }
    };
    names.iter().map(arrival).collect()
}

/// A small generator: the order is the same for the same seed everywhere.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for place in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(place, (seed >> 33) as usize % (place + 1));
    }
}

/// What a message ends with, once nothing waits within its horizon any more.
async fn settle(node: &TestNode, hash: &ItemHash) -> Option<(MessageStatus, Option<i32>)> {
    for _ in 0..600 {
        match node.status(hash) {
            Some((MessageStatus::Pending, _)) => tokio::time::sleep(Duration::from_millis(20)).await,
            settled => return settled,
        }
    }
    panic!("{hash} stays pending beyond its horizon");
}

/// Everything that is a function of the set of messages.
pub(super) fn state(node: &TestNode) -> Vec<(Table, Vec<Row>)> {
    let tables = [
        Table::State,
        Table::Delegations,
        Table::Forgets,
        Table::Uses,
        Table::Counts,
        Table::Costs,
        Table::Spending,
        Table::Pins,
        Table::Balances,
        Table::Credits,
        Table::Movers,
        Table::Lots,
        Table::Ranks,
        Table::Tallies,
        Table::Priced,
        Table::Totals,
        Table::Consumed,
        Table::History,
    ];
    let snapshot = node.service.store.snapshot().expect("a snapshot");
    tables.into_iter().map(|table| (table, snapshot.prefixed(table, &[]).expect("rows"))).collect()
}

/// Sends everything; returns what is not as expected, and the state.
async fn run(arrivals: &[Arrival], funded: Option<&str>) -> (Vec<String>, Vec<(Table, Vec<Row>)>) {
    let node = TestNode::with(|config| config.pipeline.horizon_seconds = 4).await;
    if let Some(address) = funded {
        node.fund(address, 20_000, 100_000_000).await;
    }
    let mut refused_at_once = BTreeMap::new();
    for arrival in arrivals {
        match arrival {
            Arrival::File(bytes) => {
                node.put_file(bytes).await;
            }
            Arrival::Folder(archive) => {
                node.put_archive(archive).await;
            }
            Arrival::Lost(hash) => {
                node.service.files.forge(hash, b"lost");
                node.service.pipeline.add_file(hash.clone(), 4, FileKind::File).await.expect("a record");
            }
            Arrival::Message(case) => match node.submit(&case.message).await {
                Ok(receipt) if receipt.status == MessageStatus::Rejected => {
                    let code = receipt.rejection.map(|rejection| rejection.code);
                    refused_at_once.insert(case.name.clone(), (MessageStatus::Rejected, code));
                }
                Ok(_) => {}
                Err(SubmitError::Format { .. }) => {
                    refused_at_once.insert(case.name.clone(), (MessageStatus::Rejected, Some(0)));
                }
                Err(error) => panic!("{}: {error}", case.name),
            },
        }
    }
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for arrival in arrivals {
        if let Arrival::Message(case) = arrival {
            *copies.entry(case.message["item_hash"].to_string()).or_default() += 1;
        }
    }
    let mut differences = Vec::new();
    for arrival in arrivals {
        let Arrival::Message(case) = arrival else { continue };
        // Of several copies of a hash, and of what is no message, the answer is all that there is.
        let is_copy = copies[&case.message["item_hash"].to_string()] > 1;
        let refused = refused_at_once.get(&case.name).copied();
        let hash = case.message["item_hash"].as_str().and_then(|hash| ItemHash::parse(hash).ok());
        let mut found = refused;
        if let Some(hash) = hash.filter(|_| !(is_copy && refused.is_some())) {
            found = settle(&node, &hash).await.or(refused);
        }
        if found != Some(case.expect) {
            differences.push(format!("{}: {found:?}, expected {:?}", case.name, case.expect));
        }
    }
    let state = state(&node);
    rebuild::check(&node, &state).await;
    node.service.pipeline.stop().await;
    (differences, state)
}

/// Sends everything in order, then in other orders, to new nodes: all end alike.
async fn check_all_orders(mut arrivals: Vec<Arrival>, funded: Option<&str>) {
    let (differences, state) = run(&arrivals, funded).await;
    assert_eq!(differences, [""; 0], "in order");
    for seed in [1, 2, 3] {
        shuffle(&mut arrivals, seed);
        let (differences, other) = run(&arrivals, funded).await;
        assert_eq!(differences, [""; 0], "seed {seed}");
        for ((table, rows), (_, others)) in state.iter().zip(&other) {
            assert_eq!(rows, others, "{table:?}, seed {seed}");
        }
    }
}

/// The files that messages keep which are expected to find them.
fn lost_files(cases: &[Case]) -> Vec<Arrival> {
    let file = |case: &Case| {
        let content: Value = serde_json::from_str(case.message["item_content"].as_str()?).ok()?;
        let hash = ItemHash::parse(content["item_hash"].as_str()?).ok()?;
        matches!(case.expect.1, None | Some(6)).then_some(Arrival::Lost(hash))
    };
    cases.iter().filter_map(file).collect()
}

fn arrivals(files: Vec<Arrival>, cases: &[Case]) -> Vec<Arrival> {
    let messages = cases.iter().map(|case| Arrival::Message(Box::new(case.clone())));
    files.into_iter().chain(messages).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_fixtures_in_any_order() {
    let mut cases = signed();
    mark_forgotten(&mut cases);
    let alice = fixture_json("signed/keys.json")["alice"]["address"].as_str().expect("an address").to_owned();
    check_all_orders(arrivals(files(), &cases), Some(&alice)).await;
    assert_eq!(cases.len(), 110);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_and_generated_fixtures_in_any_order() {
    let mut cases = real_and_generated();
    mark_forgotten(&mut cases);
    let mut arrivals = arrivals(Vec::new(), &cases);
    arrivals.splice(0..0, lost_files(&cases));
    check_all_orders(arrivals, None).await;
    assert_eq!(cases.len(), 105);
}
