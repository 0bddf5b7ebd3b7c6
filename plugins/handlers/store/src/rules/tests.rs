use super::*;
use crate::Store;
use plugin_sdk::{
    FileInfo, FileKind,
    simulation::{Simulation, Standing, message},
};
use proptest::prelude::*;

const OWNER: &str = "0xA";
const MIB: u64 = 1 << 20;
const LATE: f64 = 1_780_000_000.0;

fn file(name: &str) -> String {
    ItemHash::sha256_of(name.as_bytes()).to_string()
}

/// A node that has the files `a`, `b` and `big`.
fn node() -> Simulation<Store> {
    let mut node = Simulation::new(store::NAMESPACE);
    for (name, size) in [("a", 10 * MIB), ("b", 20 * MIB), ("big", 30 * MIB)] {
        node.view.files.insert(file(name), FileInfo { size, kind: FileKind::File });
    }
    node
}

fn store_by(owner: &str, name: &str, time: f64, more: &str) -> Message {
    let hash = file(name);
    let content = format!(r#"{{"address":"{owner}","time":{time},"item_type":"storage","item_hash":"{hash}"{more}}}"#);
    message("STORE", &content).expect("a message")
}

fn store_of(name: &str, time: f64, more: &str) -> Message {
    store_by(OWNER, name, time, more)
}

fn update_of(first: &Message, name: &str, time: f64) -> Message {
    store_of(name, time, &format!(r#","ref":"{}""#, first.item_hash))
}

fn newest(node: &Simulation<Store>, tag: &str) -> Option<String> {
    let value = node.view.state.get(&(store::NAMESPACE.to_owned(), store::latest(tag)))?;
    store::read_latest(value).map(|(_, file)| file.to_owned())
}

#[test]
fn the_schema_is_checked_before_anything_else() {
    let check = |more: &str, expect: i32| {
        let refusal = validate(&store_of("a", LATE, more)).expect_err("refused");
        assert_eq!(refusal.code, expect, "{more}");
        assert_eq!(refusal.errors.len(), 1);
    };
    check(r#","payment":{"type":"superfluid"}"#, 0);
    check(r#","item_type":"ipfs""#, 0);
    check(r#","item_type":"inline""#, 0);
    check(r#","ref":5"#, 0);
    check(r#","tags":["a",""]"#, 0);
    assert!(validate(&store_of("a", LATE, r#","mime_type":"text/plain""#)).is_ok(), "STORE is open");
}

#[test]
fn labels_say_what_clients_filter_by() {
    let plan =
        validate(&store_of("a", LATE, r#","ref":"r","tags":["x","y"],"payment":{"type":"credit"}"#)).expect("valid");
    assert_eq!(plan.subjects, [Subject::ThisMessage]);
    let labels: Vec<(&str, &str)> =
        plan.labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
    let hash = file("a");
    assert_eq!(
        labels,
        [("content-hash", hash.as_str()), ("payment-type", "credit"), ("content-ref", "r"), ("tag", "x"), ("tag", "y")]
    );
}

#[test]
fn a_file_comes_before_everything() {
    let mut node = node();
    let absent =
        store_of("absent", LATE, r#","ref":"1111111111111111111111111111111111111111111111111111111111111111""#);
    let Outcome::Waiting(wait) = process(&absent, &node.view) else { panic!("it waits") };
    assert_eq!(wait.missing, [Need::File(file("absent"))]);
    assert_eq!(wait.otherwise.code, 4);
    assert_eq!(node.submit(&absent), Standing::Waiting(4));
    node.view.files.insert(file("absent"), FileInfo { size: 1, kind: FileKind::File });
    node.settle();
    assert_eq!(node.standing(&absent.item_hash), Some(Standing::Waiting(200)));
}

#[test]
fn updates_name_the_first_version() {
    let mut node = node();
    let first = store_of("a", LATE, "");
    let update = update_of(&first, "b", LATE + 1.0);
    assert_eq!(node.submit(&update), Standing::Waiting(200), "the first version is not here");
    assert_eq!(node.submit(&first), Standing::Processed);
    assert_eq!(node.standing(&update.item_hash), Some(Standing::Processed), "it was woken");
    assert_eq!(node.submit(&update_of(&update, "a", LATE + 2.0)), Standing::Rejected(201));
    let foreign = store_by("0xB", "b", LATE, &format!(r#","ref":"{}""#, first.item_hash));
    assert_eq!(node.submit(&foreign), Standing::Rejected(2));
    assert_eq!(newest(&node, &first.item_hash), Some(file("b")));
}

#[test]
fn what_is_no_store_is_no_first_version() {
    let mut node = node();
    let post = message("POST", r#"{"address":"0xA","time":1,"type":"x"}"#).expect("a message");
    let update = update_of(&post, "a", LATE);
    assert_eq!(node.submit(&update), Standing::Waiting(200));
    node.view.add_message(post);
    node.settle();
    assert_eq!(node.standing(&update.item_hash), Some(Standing::Rejected(200)));
}

#[test]
fn names_belong_to_their_owner() {
    let mut node = node();
    assert_eq!(node.submit(&store_of("a", LATE, r#","ref":"mine""#)), Standing::Processed);
    assert_eq!(node.submit(&store_by("0xB", "b", LATE + 1.0, r#","ref":"mine""#)), Standing::Processed);
    assert_eq!(newest(&node, "0xA/mine"), Some(file("a")));
    assert_eq!(newest(&node, "0xB/mine"), Some(file("b")));
    let long = format!(r#","ref":"{}""#, "n".repeat(100_000));
    assert_eq!(node.submit(&store_of("a", LATE, &long)), Standing::Processed);
    assert!(node.view.state.keys().all(|(_, key)| key.len() <= 512), "keys are bounded");
}

#[test]
fn payments_follow_the_calendar() {
    let check = |name: &str, envelope_time: f64, more: &str, expect: Result<bool, i32>| {
        let mut message = store_of(name, LATE, more);
        message.envelope_time = envelope_time;
        let found = match process(&message, &node().view) {
            Outcome::Accepted(effects) => Ok(effects.costs.expect("a price").enforced),
            Outcome::Rejected(rejection) => Err(rejection.code),
            Outcome::Waiting(wait) => panic!("{wait:?}"),
        };
        assert_eq!(found, expect, "{name} at {envelope_time}{more}");
    };
    let credit = r#","payment":{"type":"credit"}"#;
    check("big", cutoff::FREE_UNTIL - 1.0, "", Ok(false));
    check("big", cutoff::FREE_UNTIL - 1.0, credit, Ok(false));
    check("big", cutoff::FREE_UNTIL, "", Ok(true));
    check("b", cutoff::FREE_UNTIL, "", Ok(false));
    check("b", cutoff::FREE_UNTIL, credit, Ok(true));
    check("b", cutoff::ALL_BY_CREDIT - 0.5, r#","payment":{"type":"hold"}"#, Ok(false));
    check("b", cutoff::ALL_BY_CREDIT, "", Err(202));
    check("b", cutoff::ALL_BY_CREDIT, credit, Ok(true));
}

/// The vectors of ccn spec 6.3.
#[test]
fn prices_are_exact() {
    let check = |name: &str, more: &str, hold: &str, credit: &str, size: &str| {
        let costs = price(&store_of(name, LATE, more), &node().view).expect("a price");
        let [line] = costs.lines.as_slice() else { panic!("{costs:?}") };
        assert_eq!((line.kind.as_str(), line.stream.as_str()), ("STORAGE", "0"));
        assert_eq!((line.hold.as_str(), line.credit.as_str()), (hold, credit), "{name}{more}");
        assert_eq!(line.size_mib.as_deref(), Some(size));
    };
    let credit = r#","payment":{"type":"credit"}"#;
    check("big", "", "9.99999999", "0.001497290752552175", "30");
    check("big", credit, "9.99999999", "0.001497290752552175", "30");
    check("a", credit, "8.333333325", "0.001247742293793479", "10");
    check("a", "", "3.33333333", "0.000499096917517391", "10");
    check("absent", r#","estimated_size_mib":30"#, "9.99999999", "0.001497290752552175", "30");
    check("absent", r#","estimated_size_mib":0.5"#, "0.1666666665", "0.000024954845875869", "0.5");
    let nothing = price(&store_of("absent", LATE, ""), &node().view).expect("a price");
    assert!(nothing.lines.is_empty(), "a file that is not here has no size");
    for size in ["-1", "1e300"] {
        let wrong = store_of("a", LATE, &format!(r#","estimated_size_mib":{size}"#));
        assert_eq!(price(&wrong, &node().view).expect_err("refused").code, 0, "{size}");
    }
}

#[test]
fn a_store_pins_its_file() {
    let mut node = node();
    let named = store_of("a", LATE, r#","ref":"mine""#);
    node.submit(&named);
    assert_eq!(node.effects[&named.item_hash].pins, [Pin { file: file("a"), ref_: Some("mine".into()) }]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever comes first, goes and comes back, the state is the same, and the newest by (time, hash) counts.
    #[test]
    fn the_order_of_arrival_is_forgotten(
        versions in proptest::collection::vec((0_usize..3, 0_usize..3, 0_u32..3), 1..8),
    ) {
        let first = store_of("a", LATE, "");
        let mut messages = vec![first.clone()];
        for (name, reference, time) in versions {
            let name = ["a", "b", "big"][name];
            let time = LATE + f64::from(time);
            messages.push(match reference {
                0 => update_of(&first, name, time),
                1 => store_of(name, time, r#","ref":"mine""#),
                _ => store_of(name, time, r#","ref":"mine","tags":["again"]"#),
            });
        }
        messages.sort_by(|a, b| a.item_hash.cmp(&b.item_hash));
        messages.dedup_by(|a, b| a.item_hash == b.item_hash);
        let found = node().every_order(&messages, |node| {
            assert!(messages.iter().all(|message| node.standing(&message.item_hash) == Some(Standing::Processed)));
        });
        let winner = messages
            .iter()
            .filter(|message| message.item_hash == first.item_hash || text_of(message).expect("text").contains(&first.item_hash))
            .max_by(|a, b| (a.time, &a.item_hash).partial_cmp(&(b.time, &b.item_hash)).expect("ordered"))
            .expect("the first");
        let hash = StoreContent::parse(text_of(winner).expect("text")).expect("a STORE").item_hash.to_string();
        prop_assert_eq!(newest(&found, &first.item_hash), Some(hash));
    }
}
