//! Money and machines: balances, prices, programs and where they run.

use super::*;

async fn store(owner: &Account, bytes: &[u8]) -> String {
    post("/api/v0/storage/add_file", "application/octet-stream", bytes).await;
    let content =
        json!({"item_type": "storage", "item_hash": ItemHash::sha256_of(bytes), "payment": {"type": "credit"}});
    processed(&draft("STORE", &content).sign(owner)).await
}

fn program(code: &str, runtime: &str, more: &Value) -> Value {
    let mut content = json!({
        "type": "vm-function", "allow_amend": false, "environment": {"internet": false},
        "resources": {"vcpus": 1, "memory": 256, "seconds": 30}, "payment": {"chain": "ETH", "type": "credit"},
        "code": {"encoding": "zip", "entrypoint": "main:app", "ref": code}, "on": {"http": true, "persistent": false},
        "runtime": {"ref": runtime, "comment": ""}, "volumes": [],
    });
    content.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    content
}

#[tokio::test]
async fn balances_are_numbers() {
    let unknown = get_json("/api/v0/addresses/0xUnknown/balance").await;
    let expected = json!({"address": "0xUnknown", "balance": 0.0, "details": {}, "locked_amount": 0.0,
        "credit_balance": 0, "credit_balance_details": null});
    assert_eq!(unknown, expected);
    let owner = account("balances_are_numbers");
    fund(&owner, 1234).await;
    let path = format!("/api/v0/addresses/{}/balance", owner.address());
    assert_eq!(get_json(&path).await["credit_balance"], 1234);
    let detailed = get_json(&format!("{path}?include_credit_details=true")).await;
    assert_eq!(detailed["credit_balance_details"], json!([{"expiration_date": null, "amount": 1234}]));
}

#[tokio::test]
async fn estimates_need_no_signature() {
    let content = json!({"address": "0xA", "time": 1, "item_type": "storage", "item_hash": ItemHash::sha256_of(b"not here"),
        "payment": {"type": "credit"}, "estimated_size_mib": 30});
    let message = json!({"type": "STORE", "chain": "ETH", "sender": "0x0", "time": "2026-09-01T00:00:00.000000+00:00",
        "signature": null, "channel": null, "item_type": "inline", "item_content": content.to_string(), "item_hash": "x"});
    let answer = post_json("/api/v0/price/estimate", &json!({"message": message})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let found = answer.json();
    assert_fields(&found, &["required_tokens", "payment_type", "cost", "detail", "charged_address"]);
    assert_eq!((&found["cost"], &found["payment_type"]), (&json!("0.001497290752552175"), &json!("credit")));
    assert_eq!((&found["required_tokens"], &found["charged_address"]), (&json!(0.001497290752552175), &json!("0xA")));
    assert_fields(&found["detail"][0], &["type", "name", "cost_hold", "cost_stream", "cost_credit", "size_mib"]);
    assert_eq!(found["detail"][0]["cost_hold"], "9.999999990000000000");

    let unknown = ItemHash::sha256_of(b"no such volume").to_string();
    let mut content = program(&unknown, &unknown, &json!({}));
    content["address"] = json!("0xA");
    content["time"] = json!(1);
    let message = json!({"type": "PROGRAM", "content": content});
    let answer = post_json("/api/v0/price/estimate", &json!({"message": message})).await;
    assert_eq!(answer.status, 200, "what is not here costs nothing: {}", answer.text());

    post_json("/api/v0/price/estimate", &json!({"message": {"type": "STORE", "content": {}}})).await.refused(422, "");
    let unpriced = json!({"type": "POST", "content": {"address": "0xA", "time": 1, "type": "x"}});
    post_json("/api/v0/price/estimate", &json!({"message": unpriced})).await.refused(400, "no price");
    post("/api/v0/price/estimate", "application/json", "nonsense").await.refused(422, "not JSON");
}

/// The content alone, without the fields that a client fills in last.
#[tokio::test]
async fn an_instance_is_estimated_from_its_content() {
    let rootfs = json!({"parent": {"ref": ItemHash::sha256_of(b"no such volume"), "use_latest": true},
        "persistence": "host", "size_mib": 20480});
    let content = json!({"address": "0xA", "environment": {"internet": true}, "rootfs": rootfs, "volumes": [],
        "resources": {"vcpus": 1, "memory": 2048, "seconds": 30}, "payment": {"chain": "ETH", "type": "credit"}});
    let path = "/api/v0/price/estimate/instance";
    let found = post_json(path, &content).await;
    assert_eq!(found.status, 200, "{}", found.text());
    let found = found.json();
    assert_eq!((&found["payment_type"], &found["charged_address"]), (&json!("credit"), &json!("0xA")));
    assert_eq!(found["cost"], "3.958333333333333333");
    let mut full = content.clone();
    full["time"] = json!("2026-09-01T00:00:00.000000+00:00");
    full["allow_amend"] = json!(false);
    assert_eq!(post_json(path, &full).await.json(), found);
    post_json(path, &json!({})).await.refused(422, "");
    post_json(path, &json!([])).await.refused(422, "an object was expected");
}

#[tokio::test]
async fn a_program_is_paid_and_placed() {
    let owner = account("a_program_is_paid");
    fund(&owner, 1_000).await;
    let (code, runtime) = (store(&owner, b"code").await, store(&owner, b"runtime").await);
    let unpaid = submit(&draft("PROGRAM", &program(&code, &runtime, &json!({}))).sign(&owner)).await;
    assert_eq!(unpaid.status, 422, "{}", unpaid.text());
    let body = unpaid.json();
    assert_eq!(body["error_code"], 6, "{body}");
    assert_fields(&body["details"]["errors"][0], &["required_credits", "account_credits", "min_runtime_days"]);
    assert_eq!(body["details"]["errors"][0]["min_runtime_days"], 1);

    fund(&owner, 10_000_000).await;
    let vm = processed(&draft("PROGRAM", &program(&code, &runtime, &json!({}))).sign(&owner)).await;
    let price = get_json(&format!("/api/v0/price/{vm}")).await;
    assert_eq!((&price["payment_type"], &price["charged_address"]), (&json!("credit"), &json!(owner.address())));
    assert!(price["cost"].as_str().is_some_and(|cost| cost.starts_with("3.0")), "{price}");

    let allocation = get_json(&format!("/api/v0/allocation/{vm}")).await;
    assert_fields(&allocation, &["vm_hash", "vm_type", "vm_ipv6", "period", "node"]);
    let node = json!({"node_id": CRN, "url": "http://127.0.0.1:9", "ipv6": null, "supports_ipv6": false});
    assert_eq!((&allocation["vm_type"], &allocation["node"]), (&json!("micro_vm"), &node));
    assert_fields(&allocation["period"], &["start_timestamp", "duration_seconds"]);
    let plan = get_json("/api/v0/plan").await;
    assert_fields(&plan["plan"][CRN], &["persistent_vms", "instances", "on_demand_vms", "jobs"]);
    assert!(plan["plan"][CRN]["on_demand_vms"].as_array().is_some_and(|list| list.contains(&json!(vm))), "{plan}");
    assert_eq!(get_json("/api/v0/nodes").await, json!({"nodes": [node]}));

    let elsewhere = ItemHash::sha256_of(b"another node").to_string();
    let pinned = json!({"requirements": {"node": {"node_hash": elsewhere}}});
    let pinned = processed(&draft("PROGRAM", &program(&code, &runtime, &pinned)).sign(&owner)).await;
    get(&format!("/api/v0/allocation/{pinned}")).await.refused(404, "not linked");

    let rows = get_json(&format!("/api/v1/vms?owner={}&page_size=200", owner.address())).await;
    assert_eq!(rows["items"].as_array().map(Vec::len), Some(2));
    let row = get_json(&format!("/api/v1/vms/{vm}")).await;
    assert_eq!((&row["allocated_node"], &row["status"]), (&json!(CRN), &json!("scheduled")));
    assert_eq!(get_json(&format!("/api/v1/vms/{pinned}")).await["status"], "unschedulable");
    let unplaced = get_json(&format!("/api/v1/vms?owner={}&status=unschedulable", owner.address())).await;
    assert_eq!(unplaced["items"][0]["vm_hash"], pinned);
    let senders = |sender: &Account| format!("/api/v1/vms?owner={}&sender={}", owner.address(), sender.address());
    assert_eq!(get_json(&senders(&owner)).await["pagination"]["total_items"], 2);
    assert_eq!(get_json(&senders(&account("somebody else"))).await["items"], json!([]));
    get("/api/v1/vms?page_size=201").await.refused(422, "page_size");
    get(&format!("/api/v0/allocation/{code}")).await.refused(404, "something to run");
}

#[tokio::test]
async fn compute_nodes_are_found_by_their_hash_and_listed() {
    // The hash of this node has spaces.
    let path = CRN.replace(' ', "%20");
    let node = get_json(&format!("/api/v1/nodes/{path}")).await;
    assert_eq!((&node["node_hash"], &node["address"]), (&json!(CRN), &json!("http://127.0.0.1:9")));
    for (fragment, found) in [("the%20comp", 1), ("node", 1), ("compute", 0)] {
        let nodes = get_json(&format!("/api/v1/nodes?hash={fragment}")).await;
        assert_eq!(nodes["pagination"]["total_items"], found, "{fragment}");
    }
    get("/api/v1/nodes/another").await.refused(404, "not linked");
    let all = get_json("/crns.json").await;
    assert_eq!((&all["crns"][0]["hash"], &all["crns"][0]["system_usage"]), (&json!(CRN), &Value::Null));
    assert_eq!(get_json("/crns.json?filter_inactive=true").await, json!({"crns": []}));
}

#[tokio::test]
async fn only_what_has_a_price_has_one() {
    let message = processed(&post_of(&account("only_what_has_a_price"), &json!({}))).await;
    get(&format!("/api/v0/price/{message}")).await.refused(400, "no price");
    get(&format!("/api/v0/price/{}", ItemHash::sha256_of(b"unknown"))).await.refused(404, "not found");
}

#[tokio::test]
async fn a_missing_volume_is_named() {
    let owner = account("a_missing_volume");
    let missing = ItemHash::sha256_of(b"no such file").to_string();
    let message = draft("PROGRAM", &program(&missing, &missing, &json!({}))).sign(&owner);
    let answer = submit(&message).await;
    // The test's horizon is a second; a synchronous answer comes after it.
    assert_eq!(answer.status, 422, "{}", answer.text());
    let found = get_json(&format!("/api/v0/messages/{}", message.item_hash)).await;
    assert_eq!((&found["error_code"], &found["details"]), (&json!(301), &json!({"errors": [missing]})));
}

#[tokio::test]
async fn what_a_forgotten_file_cost_is_still_told() {
    let owner = account("what_a_forgotten_file_cost");
    fund(&owner, 10_000_000).await;
    let (file, code, runtime) =
        (store(&owner, b"a file").await, store(&owner, b"code 2").await, store(&owner, b"runtime 2").await);
    let machine = processed(&draft("PROGRAM", &program(&code, &runtime, &json!({}))).sign(&owner)).await;
    let path = |hash: &str| format!("/api/v0/price/{hash}");
    let before = get_json(&path(&file)).await;
    processed(&draft("FORGET", &json!({"hashes": [file, machine]})).sign(&owner)).await;
    assert_eq!(get_json(&path(&file)).await, before);
    get(&path(&machine)).await.refused(410, "gone");
}
