use super::*;
use crate::Program;
use plugin_sdk::{
    Need, Payment, Version, Wait, Workload, WorkloadKind,
    layout::{machine, store},
    message::ItemHash,
    price::cutoff,
    simulation::{Simulation, Standing, message},
};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const LATE: f64 = 1_780_000_000.0;

fn hash(name: &str) -> String {
    ItemHash::sha256_of(name.as_bytes()).to_string()
}

fn file(name: &str) -> String {
    ItemHash::sha256_of(format!("{name}.file").as_bytes()).to_string()
}

fn add_store(node: &mut Simulation<Program>, name: &str, size: u64) {
    node.view.add_version(Version { item_hash: &hash(name), file: &file(name), size, time: 1.0, updates: None });
}

/// A newer version of what a STORE of that name brought.
fn update_store(node: &mut Simulation<Program>, name: &str, newer: &str, size: u64) {
    let (item_hash, file, updated) = (hash(newer), file(newer), hash(name));
    node.view.add_version(Version { item_hash: &item_hash, file: &file, size, time: 2.0, updates: Some(&updated) });
}

/// A node that has code, a runtime and a volume of 2 MiB.
fn node() -> Simulation<Program> {
    let mut node = Simulation::new(machine::PROGRAM);
    for (name, size) in [("code", 1 << 10), ("runtime", 64 << 20), ("volume", 2 * MIB)] {
        add_store(&mut node, name, size);
    }
    node
}

fn program_by(owner: &str, time: f64, persistent: bool, more: &str) -> Message {
    let (code, runtime) = (hash("code"), hash("runtime"));
    let text = format!(
        r#"{{"address":"{owner}","time":{time},"type":"vm-function","allow_amend":true,"environment":{{}},"resources":{{"vcpus":2,"memory":512}},
            "code":{{"encoding":"zip","entrypoint":"main:app","ref":"{code}"}},"runtime":{{"ref":"{runtime}","comment":""}},
            "on":{{"http":true,"persistent":{persistent}}}{more}}}"#
    );
    message("PROGRAM", &text).expect("a message")
}

fn program_of(more: &str) -> Message {
    program_by("0xA", LATE, false, more)
}

fn waits(node: &Simulation<Program>, message: &Message) -> Wait {
    match process(message, &node.view) {
        Outcome::Waiting(wait) => wait,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_schema_is_checked_first() {
    let check = |more: &str, expect: Option<i32>| {
        assert_eq!(validate(&program_of(more)).err().map(|rejection| rejection.code), expect, "{more}");
    };
    check("", None);
    check(r#","unknown":1"#, Some(0));
    check(r#","metadata":[]"#, Some(0));
    check(r#","resources":{"vcpus":257}"#, Some(0));
    check(r#","volumes":[{"ephemeral":true,"size_mib":1001}]"#, Some(0));
}

#[test]
fn labels_say_what_clients_filter_by() {
    let plan = validate(&program_of(r#","metadata":{"name":"x","tags":["a","b"]},"payment":{"type":"credit"}"#));
    let labels = plan.expect("valid").labels;
    let labels: Vec<(&str, &str)> = labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
    assert_eq!(labels, [("payment-type", "credit"), ("tag", "a"), ("tag", "b")]);
}

#[test]
fn missing_files_are_waited_for_together() {
    let mut node = node();
    let (one, two) = (hash("one"), hash("two"));
    let program = program_of(&format!(
        r#","data":{{"encoding":"zip","mount":"/d","ref":"{one}"}},
           "volumes":[{{"ref":"{two}"}},{{"ref":"{two}","mount":"/again"}},{{"size_mib":5,"parent":{{"ref":"{one}"}}}}]"#
    ));
    let wait = waits(&node, &program);
    let version = |hash: &str| Need::State((store::NAMESPACE.to_owned(), store::tally(hash)));
    let mut expected = vec![Need::Message(one.clone()), Need::Message(two.clone()), version(&one), version(&two)];
    for need in &wait.missing {
        let place = expected.iter().position(|each| each == need).expect("it is missing");
        expected.remove(place);
    }
    assert_eq!(expected, []);
    assert_eq!(wait.otherwise.code, 301);
    assert_eq!(wait.otherwise.errors, [format!("\"{one}\""), format!("\"{two}\"")]);
    assert_eq!(node.submit(&program), Standing::Waiting(301));
    add_store(&mut node, "one", 10);
    node.settle();
    assert_eq!(node.standing(&program.item_hash), Some(Standing::Waiting(301)));
    add_store(&mut node, "two", 10);
    node.settle();
    assert_eq!(node.standing(&program.item_hash), Some(Standing::Processed));
}

#[test]
fn the_newest_version_counts_where_it_is_wished_for() {
    let mut node = node();
    let reference = |use_latest: bool| {
        let text = format!(r#","volumes":[{{"ref":"{}","use_latest":{use_latest}}}]"#, hash("volume"));
        program_of(&text)
    };
    update_store(&mut node, "volume", "newer", 3 * MIB);
    let size = |message: &Message| {
        let costs = price(message, &node.view).expect("a price");
        costs.lines.iter().find(|line| line.name.starts_with('#')).and_then(|line| line.size_mib.clone())
    };
    assert_eq!(size(&reference(true)).as_deref(), Some("3"));
    assert_eq!(size(&reference(false)).as_deref(), Some("2"));
}

#[test]
fn replacements_need_permission() {
    let mut node = node();
    let first = program_of("");
    let closed = program_of(r#","allow_amend":false"#);
    let replacing =
        |owner: &str, replaced: &str| program_by(owner, LATE + 1.0, false, &format!(r#","replaces":"{replaced}""#));
    let replacement = replacing("0xA", &first.item_hash);
    assert_eq!(node.submit(&replacement), Standing::Waiting(300));
    assert_eq!(waits(&node, &replacement).missing, [Need::Message(first.item_hash.clone())]);
    assert_eq!(node.submit(&first), Standing::Processed);
    assert_eq!(node.standing(&replacement.item_hash), Some(Standing::Processed), "it was woken");
    assert_eq!(node.submit(&closed), Standing::Processed);
    assert_eq!(node.submit(&replacing("0xA", &closed.item_hash)), Standing::Rejected(302));
    assert_eq!(node.submit(&replacing("0xA", &replacement.item_hash)), Standing::Rejected(303));
    assert_eq!(node.submit(&replacing("0xB", &first.item_hash)), Standing::Rejected(2));
    assert_eq!(node.submit(&replacing("0xA", "no hash")), Standing::Rejected(300));
}

#[test]
fn volumes_hold_what_they_start_as() {
    let mut node = node();
    let starting = |size_mib: u64, use_latest: bool| {
        let parent = hash("volume");
        program_of(&format!(
            r#","volumes":[{{"size_mib":{size_mib},"name":"disk","parent":{{"ref":"{parent}","use_latest":{use_latest}}}}}]"#
        ))
    };
    assert_eq!(node.submit(&starting(2, true)), Standing::Processed);
    let Outcome::Rejected(rejection) = process(&starting(1, false), &node.view) else { panic!("it is refused") };
    assert_eq!(rejection.code, 304);
    let details: Value = serde_json::from_str(&rejection.errors[0]).expect("JSON");
    let expected = json!({"volume_name": "disk", "parent_ref": hash("volume"), "parent_file": file("volume"),
        "parent_size": 2 * MIB, "volume_size": MIB});
    assert_eq!(details, expected);
    // Another version that would fit may still come.
    update_store(&mut node, "volume", "newer", 3 * MIB);
    let wait = waits(&node, &starting(2, true));
    assert_eq!(wait.missing, [Need::State((store::NAMESPACE.into(), store::tally(&hash("volume"))))]);
    assert_eq!(wait.otherwise.code, 304);
    assert_eq!(node.submit(&starting(2, false)), Standing::Processed);
}

#[test]
fn payments_follow_the_calendar() {
    let check = |persistent: bool, envelope_time: f64, payment: &str, expect: Result<bool, i32>| {
        let requirements = format!(r#","requirements":{{"node":{{"node_hash":"{}"}}}}"#, hash("node"));
        let more = format!(r#"{requirements},"payment":{{"type":"{payment}"}}"#);
        let mut message = program_by("0xA", LATE, persistent, &more);
        message.envelope_time = envelope_time;
        let found = match process(&message, &node().view) {
            Outcome::Accepted(effects) => Ok(effects.costs.expect("a price").enforced),
            Outcome::Rejected(rejection) => Err(rejection.code),
            Outcome::Waiting(wait) => panic!("{wait:?}"),
        };
        assert_eq!(found, expect, "{persistent} {envelope_time} {payment}");
    };
    check(false, cutoff::FREE_UNTIL - 1.0, "hold", Ok(false));
    check(true, cutoff::FREE_UNTIL - 1.0, "hold", Ok(true));
    check(false, cutoff::FREE_UNTIL, "hold", Ok(true));
    check(false, cutoff::FREE_UNTIL, "superfluid", Ok(false));
    check(true, cutoff::PERSISTENT_BY_CREDIT - 1.0, "hold", Ok(true));
    check(true, cutoff::PERSISTENT_BY_CREDIT, "hold", Err(202));
    check(true, cutoff::PERSISTENT_BY_CREDIT, "superfluid", Err(202));
    check(true, cutoff::PERSISTENT_BY_CREDIT, "credit", Ok(true));
    check(false, cutoff::PERSISTENT_BY_CREDIT, "hold", Ok(true));
    check(false, cutoff::ALL_BY_CREDIT, "hold", Err(202));
    check(false, cutoff::ALL_BY_CREDIT, "credit", Ok(true));
}

#[test]
fn what_is_missing_counts_before_how_it_is_paid() {
    let absent = hash("absent");
    let persistent = program_by("0xA", LATE, true, &format!(r#","volumes":[{{"ref":"{absent}"}}]"#));
    assert_eq!(node().submit(&persistent), Standing::Waiting(301));
    assert_eq!(node().submit(&program_by("0xA", LATE, true, "")), Standing::Rejected(202));
}

#[test]
fn a_program_is_something_to_run() {
    let mut node = node();
    let chosen = hash("node");
    let more = format!(
        r#","payment":{{"type":"credit"}},"requirements":{{"node":{{"node_hash":"{chosen}"}}}},
           "volumes":[{{"ephemeral":true,"size_mib":100}},{{"size_mib":5}},{{"ref":"{}"}}]"#,
        hash("volume")
    );
    let program = program_by("0xA", LATE, true, &more);
    assert_eq!(node.submit(&program), Standing::Processed);
    let effects = &node.effects[&program.item_hash];
    let expected = Workload {
        kind: WorkloadKind::PersistentProgram,
        vcpus: 2,
        memory_mib: 512,
        disk_mib: 105,
        payment: Payment::Credit,
        node: Some(chosen),
    };
    assert_eq!(effects.workload, Some(expected));
    let mut used = ["code", "runtime", "volume"].map(hash);
    used.sort_unstable();
    assert_eq!(effects.uses, used);
    let watched = ["runtime", "volume"].map(|name| (store::NAMESPACE.to_owned(), store::tally(&hash(name))));
    assert!(effects.watches.len() == 2 && watched.iter().all(|key| effects.watches.contains(key)));
}

/// A published message is charged for its files, whatever size it claims for them.
#[test]
fn estimates_are_not_believed() {
    let mut node = node();
    let program = program_of(&format!(r#","volumes":[{{"ref":"{}","estimated_size_mib":0}}]"#, hash("volume")));
    assert_eq!(node.submit(&program), Standing::Processed);
    let costs = node.effects[&program.item_hash].costs.as_ref().expect("a price");
    let volume = costs.lines.iter().find(|line| line.name.starts_with('#')).expect("a row");
    assert_eq!(volume.size_mib.as_deref(), Some("2"));
}
