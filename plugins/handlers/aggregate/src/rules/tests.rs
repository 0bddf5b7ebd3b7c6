use super::*;
use crate::Aggregate;
use plugin_sdk::{
    Authorization,
    layout::aggregate::Current,
    simulation::{Simulation, Standing, message},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::{fs, path::Path};

const OWNER: &str = "0xA";
/// A key that a FORGET can name: what was forgotten leaves traces.
const HASH: &str = "5ccdd7bcdf7cc0d9a1f1b6c8a4ed3f4cfbe9b5e6cb5a9d1b0f4e6a7c8d9e0f11";

fn element(key: &str, time: f64, content: &Value) -> Message {
    let text = json!({"address": OWNER, "time": time, "key": key, "content": content}).to_string();
    message("AGGREGATE", &text).expect("a message")
}

fn node() -> Simulation<Aggregate> {
    Simulation::new(aggregate::NAMESPACE)
}

/// The merged value of a key.
fn merged(node: &Simulation<Aggregate>, owner: &str, key: &str) -> Value {
    let rows = plugin_sdk::scan_all(&node.view, None, &aggregate::all_current(owner, key));
    let members = rows.iter().map(|(_, value)| {
        let current = Current::read(value).expect("a current value");
        let json = current.value(&node.view).expect("a value");
        (current.subkey.to_owned(), serde_json::from_str(&json).expect("JSON"))
    });
    Value::Object(members.collect())
}

#[test]
fn the_schema_is_checked() {
    let check = |content: &str, expect: Option<i32>| {
        let text = format!(r#"{{"address":"0xA","time":1{content}}}"#);
        let message = message("AGGREGATE", &text).expect("a message");
        assert_eq!(validate(&message).err().map(|rejection| rejection.code), expect, "{content}");
    };
    check(r#","key":"a","content":{}"#, None);
    check(r#","key":"","content":{"x":null}"#, None);
    check(r#","key":{"name":"a"},"content":{}"#, None);
    check(r#","key":{"name":"a","b":1},"content":{}"#, Some(0));
    check(r#","key":"a""#, Some(0));
    check(r#","key":5,"content":{}"#, Some(0));
    check(r#","key":"a","content":[]"#, Some(0));
    check(r#","key":"a","content":{},"ref":"x""#, Some(0));
    check(r#","key":"a","content":{"tags":[""]}"#, Some(0));
}

#[test]
fn labels_say_what_clients_filter_by() {
    let plan = validate(&element("profile", 1.0, &json!({"tags": ["a", "b"], "x": 1}))).expect("valid");
    let labels: Vec<(&str, &str)> = plan.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
    assert_eq!(labels, [("content-key", "profile"), ("tag", "a"), ("tag", "b")]);
    assert_eq!(plan.subjects, [Subject::ThisMessage]);
}

#[test]
fn later_values_win_and_null_is_one() {
    let mut node = node();
    node.submit(&element("k", 1.0, &json!({"a": 1, "b": {"x": 1}})));
    node.submit(&element("k", 3.0, &json!({"b": {"y": 2}, "c": null})));
    node.submit(&element("k", 2.0, &json!({"a": 2, "c": 5, "d": "x"})));
    assert_eq!(merged(&node, OWNER, "k"), json!({"a": 2, "b": {"y": 2}, "c": null, "d": "x"}));
    assert_eq!(merged(&node, OWNER, "other"), json!({}));
}

/// A view that counts what is asked and answered.
struct Counted<'a>(&'a plugin_sdk::MemoryView, std::cell::Cell<(usize, usize)>);

impl Counted<'_> {
    fn count(&self, bytes: usize) {
        let (asked, answered) = self.1.get();
        self.1.set((asked + 1, answered + bytes));
    }
}

impl View for Counted<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.0.get(key);
        self.count(value.as_ref().map_or(0, Vec::len));
        value
    }
    fn scan(&self, start: &[u8], end: &[u8], limit: u32, reverse: bool) -> plugin_sdk::Page {
        let page = self.0.scan(start, end, limit, reverse);
        self.count(page.items.iter().map(|(key, value)| key.len() + value.len()).sum());
        page
    }
    fn get_in(&self, _namespace: &str, _key: &[u8]) -> Option<Vec<u8>> {
        unreachable!("elements rest on nothing else")
    }
    fn scan_in(&self, _: &str, _: &[u8], _: &[u8], _: u32, _: bool) -> plugin_sdk::Page {
        unreachable!("elements rest on nothing else")
    }
    fn message(&self, _hash: &str) -> Option<plugin_sdk::StoredMessage> {
        unreachable!("elements rest on nothing else")
    }
    fn kind_of(&self, hash: &str) -> Option<String> {
        self.message(hash).map(|stored| stored.message.kind)
    }
    fn fate_of(&self, _hash: &str) -> plugin_sdk::Fate {
        unreachable!("elements rest on nothing else")
    }
    fn in_use(&self, _hash: &str) -> bool {
        unreachable!("elements rest on nothing else")
    }
    fn file(&self, _hash: &str) -> Option<plugin_sdk::FileInfo> {
        unreachable!("elements rest on nothing else")
    }
    fn setting(&self, _name: &str) -> Option<String> {
        unreachable!("elements rest on nothing else")
    }
}

/// An element that changes one subkey of ten thousand reads and writes a handful of rows, and so does whoever takes it out again.
#[test]
fn a_change_costs_what_it_changes() {
    let mut node = node();
    let large: Map<String, Value> = (0..10_000).map(|number| (format!("subkey {number}"), json!(number))).collect();
    node.submit(&element("k", 1.0, &Value::Object(large)));
    let small = element("k", 2.0, &json!({"subkey 7": "changed"}));
    let check = |node: &Simulation<Aggregate>, writes: &dyn Fn(&dyn View) -> Vec<Write>| {
        let view = Counted(&node.view, std::cell::Cell::default());
        let writes = writes(&view);
        let (asked, answered) = view.1.get();
        assert!(writes.len() < 10 && asked < 10 && answered < 2000, "{} {asked} {answered}", writes.len());
    };
    check(&node, &|view| {
        let Outcome::Accepted(effects) = process(&small, view) else { panic!("it is accepted") };
        effects.writes
    });
    node.submit(&small);
    check(&node, &|view| withdraw(&small, Withdrawal::Forgotten, view));
}

/// A value too long for its row is found in the message that set it, and one that is covered by it comes back.
#[test]
fn long_values_are_read_from_their_message() {
    let mut node = node();
    let long = "x".repeat(5000);
    node.submit(&element("k", 1.0, &json!({"a": 1, "b": long})));
    let covers = element("k", 2.0, &json!({"a": long}));
    node.submit(&covers);
    assert_eq!(merged(&node, OWNER, "k"), json!({"a": long, "b": long}));
    node.void(&covers.item_hash);
    assert_eq!(merged(&node, OWNER, "k"), json!({"a": 1, "b": long}));
}

#[test]
fn subkeys_are_bounded() {
    let many = |count: usize| -> Value {
        (0..count).map(|number| (number.to_string(), json!(0))).collect::<Map<_, _>>().into()
    };
    assert!(validate(&element("k", 1.0, &many(MAX_SUBKEYS))).is_ok());
    assert_eq!(validate(&element("k", 1.0, &many(MAX_SUBKEYS + 1))).expect_err("refused").code, 0);
}

#[test]
fn numbers_are_kept_as_they_were_written() {
    let mut node = node();
    let text = r#"{"address":"0xA","time":1,"key":"k","content":{"a":2.50,"b":12345678901234567890123}}"#;
    node.submit(&message("AGGREGATE", text).expect("a message"));
    let row = node.view.get(&aggregate::current(OWNER, "k", "b")).expect("a row");
    assert_eq!(Current::read(&row).expect("a value").json, "12345678901234567890123");
}

#[test]
fn the_security_aggregate_delegates() {
    let mut node = node();
    let entry = |address: &str| Authorization {
        address: address.into(),
        chain: None,
        channels: vec![],
        kinds: vec![],
        labels: vec![],
    };
    let first = element("security", 2.0, &json!({"authorizations": [{"address": "0xB"}]}));
    let late = element("security", 1.0, &json!({"authorizations": [{"address": "0xC"}]}));
    let other = element("security", 3.0, &json!({"note": "nothing about delegations"}));
    let last = element("security", 4.0, &json!({"authorizations": []}));
    let elsewhere = element("profile", 5.0, &json!({"authorizations": [{"address": "0xD"}]}));
    for message in [&first, &late, &other, &last, &elsewhere] {
        assert_eq!(node.submit(message), Standing::Processed);
    }
    let effect = |message: &Message| node.effects[&message.item_hash].authorizations.clone();
    assert_eq!(effect(&first), Some(vec![entry("0xB")]));
    assert_eq!(effect(&late), Some(vec![entry("0xC")]), "it counts until the next one");
    assert_eq!(effect(&other), None);
    assert_eq!(effect(&last), Some(vec![]));
    assert_eq!(effect(&elsewhere), None);
}

/// Found in the network's own rules: a delegate without a filter could rewrite the list of delegates.
#[test]
fn delegates_do_not_delegate() {
    let mut node = node();
    let mut theirs = element("security", 1.0, &json!({"authorizations": [{"address": "0xE"}]}));
    theirs.sender = "0xB".into();
    assert_eq!(node.submit(&theirs), Standing::Rejected(2));
    let mut other = element("profile", 1.0, &json!({"a": 1}));
    other.sender = "0xB".into();
    assert_eq!(node.submit(&other), Standing::Processed);
    let mut spelled = element("security", 2.0, &json!({"authorizations": []}));
    spelled.sender = "0xa".into();
    assert_eq!(node.submit(&spelled), Standing::Processed);
}

#[test]
fn one_owner_is_never_built() {
    let mut node = node();
    let text = json!({"address": NEVER_BUILT, "time": 1, "key": "k", "content": {"a": 1}}).to_string();
    assert_eq!(node.submit(&message("AGGREGATE", &text).expect("a message")), Standing::Processed);
    assert!(node.view.state.is_empty());
}

/// Fixtures of the shared set whose elements once made nodes disagree: each order of arrival ends with the same value.
#[test]
fn the_shared_elements_merge() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/fixtures");
    let read = |name: &str| -> Value {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        serde_json::from_str(&text).expect("a fixture is JSON")
    };
    let content = |envelope: &Value| message("AGGREGATE", envelope["item_content"].as_str().expect("inline"));
    let order = [1, 2, 3].map(|number| content(&read(&format!("messages/generated/agg-order-{number}.json"))));
    let order = order.map(|message| message.expect("a message"));
    let mut expected: Vec<&Message> = order.iter().collect();
    expected.sort_by(|a, b| a.time.total_cmp(&b.time).then_with(|| a.item_hash.cmp(&b.item_hash)));
    let mut model = Map::new();
    for message in expected {
        let content: Value = serde_json::from_slice(&message.content).expect("JSON");
        model.extend(content["content"].as_object().expect("an object").clone());
    }
    let key = AggregateContent::parse(text_of(&order[0]).expect("text")).expect("an element").key;
    for places in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut node = node();
        for place in places {
            assert_eq!(node.submit(&order[place]), Standing::Processed);
        }
        assert_eq!(merged(&node, &order[0].address, &key), Value::Object(model.clone()), "{places:?}");
    }
    let signed = ["aggregate-create", "aggregate-update", "aggregate-null-subkey"];
    let signed = signed.map(|name| content(&read(&format!("signed/{name}.json"))["message"]).expect("a message"));
    let mut node = node();
    for message in signed.iter().rev() {
        assert_eq!(node.submit(message), Standing::Processed);
    }
    let newest: Value = serde_json::from_slice(&signed[2].content).expect("JSON");
    let found = merged(&node, &signed[2].address, newest["key"].as_str().expect("a key"));
    for (subkey, value) in newest["content"].as_object().expect("an object") {
        assert_eq!(&found[subkey], value, "{subkey}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever comes first, goes and comes back, the state is the same, and the value is the merge by (time, hash).
    #[test]
    fn the_order_of_arrival_is_forgotten(
        elements in proptest::collection::vec((0_usize..2, 0_u32..3, proptest::collection::btree_map("[ab]", 0_u8..4, 0..3)), 1..10),
    ) {
        let mut messages: Vec<Message> = elements
            .iter()
            .map(|(key, time, content)| element([HASH, "security"][*key], f64::from(*time), &json!(content)))
            .collect();
        messages.sort_by(|a, b| a.item_hash.cmp(&b.item_hash));
        messages.dedup_by(|a, b| a.item_hash == b.item_hash);
        let found = node().every_order(&messages, |_| {});
        messages.sort_by(|a, b| a.time.total_cmp(&b.time).then_with(|| a.item_hash.cmp(&b.item_hash)));
        let mut model = Map::new();
        for message in &messages {
            let content: Value = serde_json::from_slice(&message.content).expect("JSON");
            if content["key"] == HASH {
                model.extend(content["content"].as_object().expect("an object").clone());
            }
        }
        prop_assert_eq!(merged(&found, OWNER, HASH), Value::Object(model));
    }

    /// Whatever a stranger writes as content, it is judged and does no harm.
    #[test]
    fn arbitrary_content_does_no_harm(more in ".{0,200}") {
        if let Ok(message) = message("AGGREGATE", &format!(r#"{{"address":"0xA","time":1{more}}}"#)) {
            let _ = validate(&message);
            let _ = node().submit(&message);
        }
    }
}
