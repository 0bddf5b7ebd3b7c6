use super::*;
use crate::VProgram;
use plugin_sdk::{
    message::ItemHash,
    simulation::{Simulation, Standing, message},
};
use serde_json::{Value, json};

fn hash(name: &str) -> String {
    ItemHash::sha256_of(name.as_bytes()).to_string()
}

fn vprogram(more: &Value) -> Message {
    let volume =
        |image: &str, tree: &str| json!({"ref": hash(image), "hash_tree": hash(tree), "roothash": hash("root")});
    let mut content = json!({
        "address": "0xA", "time": 1_788_220_861.0, "allow_amend": false, "environment": {},
        "resources": {"vcpus": 2, "memory": 4096}, "payment": {"type": "credit"}, "metadata": {"tags": ["a"]},
        "runtime": {"ref": hash("runtime")}, "workload": volume("image", "tree"),
        "volumes": [volume("image", "other tree")],
        "verification": {"backend": "sev_snp", "measurements": [
            {"platform": "sev_snp", "registers": {"launch": "a".repeat(96)}},
        ]},
    });
    content.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    message("V-PROGRAM", &content.to_string()).expect("a message")
}

/// Nothing that it names is here: it stands all the same, and what it names is in use.
#[test]
fn it_stands_and_uses_what_it_names() {
    let mut node = Simulation::<VProgram>::new("vprogram");
    let pinned = vprogram(&json!({"requirements": {"node": {"node_hash": hash("node")}}}));
    assert_eq!(node.submit(&pinned), Standing::Processed);
    let effects = &node.effects[&pinned.item_hash];
    let mut uses = ["runtime", "image", "tree", "other tree"].map(hash);
    uses.sort_unstable();
    assert_eq!(effects.uses, uses);
    let expected = Workload {
        kind: WorkloadKind::Instance,
        vcpus: 2,
        memory_mib: 4096,
        disk_mib: 0,
        payment: Payment::Credit,
        node: Some(hash("node")),
    };
    assert_eq!(effects.workload, Some(expected));
    let costs = effects.costs.as_ref().expect("a price");
    assert!(costs.enforced);
    let [line] = costs.lines.as_slice() else { panic!("{costs:?}") };
    let amounts = (line.hold.as_str(), line.stream.as_str(), line.credit.as_str());
    assert_eq!((line.kind.as_str(), line.name.as_str()), ("EXECUTION", "instance_confidential"));
    assert_eq!(amounts, ("4000", "0.000061111111111111", "15.833333333333333333"));
}

#[test]
fn the_schema_is_checked() {
    let code = |more: &Value| validate(&vprogram(more)).map(|plan| plan.labels.len()).map_err(|refusal| refusal.code);
    assert_eq!(code(&json!({})), Ok(2));
    assert_eq!(code(&json!({"payment": {"type": "hold"}})), Err(0));
    assert_eq!(code(&json!({"variables": {"A": "b"}})), Err(0));
    assert_eq!(code(&json!({"environment": {"internet": 1}})), Err(0));
}
