use super::*;
use crate::Instance;
use plugin_sdk::{
    CostLine, Payment, Version, Workload, WorkloadKind,
    layout::machine,
    message::ItemHash,
    price::cutoff,
    simulation::{Simulation, Standing, message},
};
use serde_json::{Value, json};

const LATE: f64 = 1_780_000_000.0;
const MIB: u64 = 1 << 20;

fn hash(name: &str) -> String {
    ItemHash::sha256_of(name.as_bytes()).to_string()
}

/// An image that a STORE of that name brought.
fn add_image(node: &mut Simulation<Instance>, name: &str, size: u64) {
    let (item_hash, file) = (hash(name), hash(&format!("{name}.file")));
    node.view.add_version(Version { item_hash: &item_hash, file: &file, size, time: 1.0, updates: None });
}

fn node() -> Simulation<Instance> {
    let mut node = Simulation::new(machine::INSTANCE);
    add_image(&mut node, "image", 2 * MIB);
    node
}

fn instance(more: &Value) -> Message {
    let mut content = json!({
        "address": "0xA", "time": LATE, "allow_amend": false, "environment": {"hypervisor": "qemu"},
        "resources": {"vcpus": 1, "memory": 2048}, "payment": {"type": "credit"},
        "rootfs": {"parent": {"ref": hash("image")}, "persistence": "host", "size_mib": 20480},
    });
    content.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    message("INSTANCE", &content.to_string()).expect("a message")
}

#[test]
fn an_instance_is_something_to_run() {
    let mut node = node();
    let more = json!({
        "volumes": [{"size_mib": 5, "mount": "/data"}, {"ephemeral": true, "size_mib": 7}],
        "requirements": {"node": {"node_hash": hash("node")}}, "metadata": {"tags": ["a"]},
    });
    let message = instance(&more);
    let labels = validate(&message).expect("valid").labels;
    let labels: Vec<(&str, &str)> = labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
    assert_eq!(labels, [("payment-type", "credit"), ("tag", "a")]);
    assert_eq!(node.submit(&message), Standing::Processed);
    let effects = &node.effects[&message.item_hash];
    let expected = Workload {
        kind: WorkloadKind::Instance,
        vcpus: 1,
        memory_mib: 2048,
        disk_mib: 20480 + 12,
        payment: Payment::Credit,
        node: Some(hash("node")),
    };
    assert_eq!(effects.workload, Some(expected));
    assert_eq!(effects.uses, [hash("image")]);
}

#[test]
fn what_is_missing_is_waited_for() {
    let mut node = node();
    let absent = instance(&json!({
        "rootfs": {"parent": {"ref": hash("absent"), "use_latest": false}, "persistence": "host", "size_mib": 1},
        "payment": {"type": "hold"},
    }));
    // Hold has ended for instances, but what is missing comes first.
    assert_eq!(node.submit(&absent), Standing::Waiting(301));
    let errors = &node.rejection(&absent.item_hash).expect("it waits").errors;
    assert_eq!(*errors, [format!("{:?}", hash("absent"))]);
    add_image(&mut node, "absent", MIB);
    node.settle();
    assert_eq!(node.standing(&absent.item_hash), Some(Standing::Rejected(202)));
}

#[test]
fn the_root_holds_its_image() {
    let mut node = node();
    let sized = |size_mib: u64, use_latest: bool| {
        let parent = json!({"ref": hash("image"), "use_latest": use_latest});
        instance(&json!({"rootfs": {"parent": parent, "persistence": "host", "size_mib": size_mib}}))
    };
    assert_eq!(node.submit(&sized(2, true)), Standing::Processed);
    let small = sized(1, false);
    assert_eq!(node.submit(&small), Standing::Rejected(304));
    let details: Value =
        serde_json::from_str(&node.rejection(&small.item_hash).expect("refused").errors[0]).expect("JSON");
    let expected = json!({"volume_name": "rootfs", "parent_ref": hash("image"), "parent_file": hash("image.file"),
        "parent_size": 2 * MIB, "volume_size": MIB});
    assert_eq!(details, expected);
    assert_eq!(node.submit(&sized(1, true)), Standing::Waiting(304), "another version may come");
}

/// Only programs are replaced on this network.
#[test]
fn instances_are_not_replaced() {
    let mut node = node();
    let first = instance(&json!({"allow_amend": true}));
    let second = instance(&json!({"replaces": first.item_hash}));
    assert_eq!(node.submit(&second), Standing::Waiting(300));
    node.submit(&first);
    assert_eq!(node.standing(&second.item_hash), Some(Standing::Rejected(300)));
}

#[test]
fn payments_follow_the_calendar() {
    let check = |envelope_time: f64, payment: &str, expect: Result<bool, i32>| {
        let mut message = instance(&json!({"payment": {"type": payment}}));
        message.envelope_time = envelope_time;
        let found = match process(&message, &node().view) {
            Outcome::Accepted(effects) => Ok(effects.costs.expect("a price").enforced),
            Outcome::Rejected(rejection) => Err(rejection.code),
            Outcome::Waiting(wait) => panic!("{wait:?}"),
        };
        assert_eq!(found, expect, "{envelope_time} {payment}");
    };
    check(cutoff::FREE_UNTIL - 1.0, "hold", Ok(true));
    check(cutoff::PERSISTENT_BY_CREDIT - 1.0, "hold", Ok(true));
    check(cutoff::PERSISTENT_BY_CREDIT - 1.0, "superfluid", Ok(false));
    check(cutoff::PERSISTENT_BY_CREDIT, "hold", Err(202));
    check(cutoff::PERSISTENT_BY_CREDIT, "superfluid", Err(202));
    check(cutoff::PERSISTENT_BY_CREDIT, "credit", Ok(true));
}

fn lines(more: &Value) -> Vec<CostLine> {
    price(&instance(more), &node().view).expect("a price").lines
}

type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

fn row(line: &CostLine) -> Row<'_> {
    (&line.kind, &line.name, &line.hold, &line.stream, &line.credit)
}

fn rows(lines: &[CostLine]) -> Vec<Row<'_>> {
    lines.iter().map(row).collect()
}

/// The vector of ccn spec 6.3.
#[test]
fn prices_are_exact() {
    let found = lines(&json!({}));
    let expected: [Row<'_>; 3] = [
        ("EXECUTION", "instance", "1000", "0.000015277777777777", "3.958333333333333333"),
        (
            "EXECUTION_INSTANCE_VOLUME_ROOTFS",
            "EXECUTION_INSTANCE_VOLUME_ROOTFS",
            "1024",
            "0.000005558044444444",
            "1.022150487075618588",
        ),
        (
            "EXECUTION_VOLUME_DISCOUNT",
            "EXECUTION_VOLUME_DISCOUNT",
            "-1024",
            "-0.000005558044444444",
            "-1.022150487075618588",
        ),
    ];
    assert_eq!(rows(&found), expected);
}

#[test]
fn confidential_instances_cost_twice_as_much() {
    let environment = json!({"hypervisor": "qemu", "trusted_execution": {"policy": 1}});
    let found = lines(&json!({"environment": environment, "resources": {"vcpus": 2, "memory": 2049}}));
    let expected: Row<'_> =
        ("EXECUTION", "instance_confidential", "4000", "0.000061111111111111", "15.833333333333333333");
    assert_eq!(rows(&found)[0], expected);
}

#[test]
fn devices_are_charged_by_their_models() {
    let with = |ids: &[&str], resources: Value| {
        let gpu = |id: &&str| json!({"vendor": "NVIDIA", "device_name": "d", "device_class": "0300", "device_id": id});
        lines(&json!({"requirements": {"gpu": ids.iter().map(gpu).collect::<Vec<Value>>()}, "resources": resources}))
    };
    let small = json!({"vcpus": 1, "memory": 6144});
    // Three units of the standard product; its disk costs nothing to hold.
    let one = with(&["10de:27b0"], small.clone());
    let expected: [Row<'_>; 3] = [
        ("EXECUTION", "instance_gpu_standard", "840", "0.000233333333333333", "35.9375"),
        (
            "EXECUTION_INSTANCE_VOLUME_ROOTFS",
            "EXECUTION_INSTANCE_VOLUME_ROOTFS",
            "0",
            "0.000005558044444444",
            "1.022150487075618588",
        ),
        (
            "EXECUTION_VOLUME_DISCOUNT",
            "EXECUTION_VOLUME_DISCOUNT",
            "0",
            "-0.000005558044444444",
            "-1.022150487075618588",
        ),
    ];
    assert_eq!(rows(&one), expected);
    // Both products, and what is larger than the devices goes to the dearer one: 24 + 3 units and 3 more.
    let both = with(&["10de:2330", "10de:27b0"], json!({"vcpus": 30, "memory": 6144}));
    let executions: [Row<'_>; 2] = [
        ("EXECUTION", "instance_gpu_premium", "15120", "0.0042", "646.874999999999999999"),
        ("EXECUTION", "instance_gpu_standard", "840", "0.000233333333333333", "35.9375"),
    ];
    assert_eq!(rows(&both)[..2], executions);
    // A device that is not listed is charged by the size of the machine.
    let unknown = with(&["10de:ffff"], json!({"vcpus": 2, "memory": 6144}));
    assert_eq!(rows(&unknown)[0].1, "instance_gpu_premium");
    assert_eq!(rows(&unknown)[0].2, "1120");
}
