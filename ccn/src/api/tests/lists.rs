//! Lists about messages: channels, types of posts, numbers by address, costs; and the node's own numbers.

use super::*;

#[tokio::test]
async fn names_of_channels_and_posts_are_listed_while_they_are_used() {
    let sender = account("names_of_channels");
    let address = sender.address();
    let post =
        |kind: &str, channel: &str| draft("POST", &json!({"type": kind, "content": {}})).channel(channel).sign(&sender);
    let first = processed(&post("names-b", "names/two")).await;
    processed(&post("names-a", "names/one")).await;
    processed(&post("names-a", &"x".repeat(300))).await;
    let channels = async || get_json(&format!("/api/v0/addresses/{address}/channels")).await;
    assert_eq!(channels().await, json!({"address": address, "channels": ["names/one", "names/two"]}));
    let types = get_json(&format!("/api/v0/addresses/{address}/post_types")).await;
    assert_eq!(types, json!({"address": address, "post_types": ["names-a", "names-b"]}));
    let all = get_json("/api/v0/channels/list.json").await["channels"].clone();
    let all: Vec<&str> = all.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(all.contains(&"names/one") && all.contains(&"TEST"), "{all:?}");
    assert!(all.iter().all(|name| name.len() <= 256));
    processed(&draft("FORGET", &json!({"hashes": [first]})).sign(&sender)).await;
    assert_eq!(channels().await["channels"], json!(["TEST", "names/one"]));
    let nobody = get_json("/api/v0/addresses/0xNobody/channels").await;
    assert_eq!(nobody, json!({"address": "0xNobody", "channels": []}));
    let nobody = get_json("/api/v0/addresses/0xNobody/post_types").await;
    assert_eq!(nobody, json!({"address": "0xNobody", "post_types": []}));
}

const STATS: [&str; 7] = ["messages", "aggregate", "forget", "instance", "post", "program", "store"];

#[tokio::test]
async fn messages_are_counted_by_sender_and_type() {
    let (one, two) = (account("counted: one"), account("counted: two"));
    let mut last = String::new();
    for place in 0..40 {
        last = processed(&post_of(&one, &json!({"n": place}))).await;
    }
    processed(&draft("AGGREGATE", &json!({"key": "k", "content": {}})).sign(&one)).await;
    processed(&draft("FORGET", &json!({"hashes": [last]})).sign(&one)).await;
    processed(&post_of(&two, &json!({}))).await;
    let path = format!(
        "/api/v0/addresses/stats.json?addresses[]={}&addresses[]={}&addresses[]=0xNobody",
        one.address(),
        two.address()
    );
    let found = get_json(&path).await;
    assert_fields(&found, &["data"]);
    // The client of the time before V-PROGRAM knows no field of that name.
    assert_fields(&found["data"][one.address()], &STATS);
    let expect =
        json!({"messages": 41, "aggregate": 1, "forget": 1, "instance": 0, "post": 39, "program": 0, "store": 0});
    assert_eq!(found["data"][one.address()], expect);
    assert_eq!(found["data"][two.address()]["messages"], 1);
    assert_eq!(found["data"]["0xNobody"]["messages"], 0);
    assert!(get_json("/api/v0/addresses/stats.json").await["data"].as_object().expect("an object").len() > 2);

    let page = async |parameters: &str| get_json(&format!("/api/v1/addresses/stats.json?{parameters}")).await;
    let found = page("sortBy=post&pagination=1").await;
    assert_fields(&found, &["data", "pagination_per_page", "pagination_page", "pagination_total", "pagination_item"]);
    assert_eq!((&found["data"][one.address()], &found["pagination_item"]), (&expect, &json!("addresses")));
    // No other test sends so many.
    let part = &one.address()[10..30].to_uppercase();
    let found = page(&format!("addressContains={part}")).await;
    assert_eq!((&found["data"], &found["pagination_total"]), (&json!({one.address(): expect}), &json!(1)));
    let (mut visited, mut cursor) = (BTreeSet::new(), String::new());
    let mut pages = 0;
    // Others send at the same time: whose number changes may be met twice, or not at all.
    while pages < 1000 {
        pages += 1;
        let found = page(&format!("pagination=200&sortOrder=1&sortBy=aggregate&cursor={cursor}")).await;
        visited.extend(found["data"].as_object().expect("an object").keys().cloned());
        match found["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert!(visited.contains(one.address()) && !visited.contains(two.address()));
    let wrong = async |parameters: &str, words: &str| {
        get(&format!("/api/v1/addresses/stats.json?{parameters}")).await.refused(422, words);
    };
    wrong("sortBy=size", "sortBy").await;
    wrong(&format!("addressContains={}", "a".repeat(67)), "at most 66").await;
}

#[tokio::test]
async fn costs_are_summed_and_listed() {
    let owner = account("costs_are_summed");
    fund(&owner, 10_000_000).await;
    let mut files = Vec::new();
    for content in [b"costs: one".as_slice(), b"costs: two"] {
        post("/api/v0/storage/add_file", "application/octet-stream", content).await;
        let content =
            json!({"item_type": "storage", "item_hash": ItemHash::sha256_of(content), "payment": {"type": "credit"}});
        files.push(processed(&draft("STORE", &content).sign(&owner)).await);
    }
    let expense = json!([{"address": owner.address(), "amount": 7, "execution_id": files[0]}]);
    let content = json!({"type": "aleph_credit_expense", "content": {"expense": {"credits": expense}}});
    processed(&draft("POST", &content).channel("ALEPH_CREDIT").sign(&account("treasury"))).await;
    let costs =
        async |parameters: &str| get_json(&format!("/api/v0/costs?address={}&{parameters}", owner.address())).await;
    let found = costs("").await;
    assert_fields(&found, &["summary", "filters"]);
    let summary =
        ["total_consumed_credits", "total_cost_hold", "total_cost_stream", "total_cost_credit", "resource_count"];
    assert_fields(&found["summary"], &summary);
    assert_eq!(found["filters"], json!({"address": owner.address(), "item_hash": null, "payment_type": "credit"}));
    assert_eq!(
        (&found["summary"]["resource_count"], &found["summary"]["total_consumed_credits"]),
        (&json!(2), &json!(7))
    );
    // Each costs as much as 25 MiB.
    assert_eq!(found["summary"]["total_cost_credit"], "0.002495484587586958");
    let listed = costs("include_details=1").await;
    let resource =
        ["item_hash", "owner", "payment_type", "consumed_credits", "cost_hold", "cost_stream", "cost_credit"];
    let entries = listed["resources"].as_array().expect("a list");
    assert_eq!(
        (entries.len(), &listed["pagination_total"], &listed["pagination_item"]),
        (2, &json!(2), &json!("resources"))
    );
    entries.iter().for_each(|entry| assert_fields(entry, &resource));
    let one = get_json(&format!("/api/v0/costs?item_hash={}&include_details=2&include_size=true", files[0])).await;
    let entry = &one["resources"][0];
    assert_eq!((&entry["consumed_credits"], &entry["owner"]), (&json!(7), &json!(owner.address())));
    assert_fields(&entry["detail"][0], &["type", "name", "cost_hold", "cost_stream", "cost_credit", "size_mib"]);
    assert_eq!(one["summary"]["resource_count"], 1);
    assert_eq!(costs("payment_type=hold").await["summary"]["resource_count"], 0);
    let everybody = get_json("/api/v0/costs").await["summary"]["resource_count"].as_u64().expect("a number");
    assert!(everybody >= 2);
    processed(&draft("FORGET", &json!({"hashes": [files[0]]})).sign(&owner)).await;
    let left = costs("include_details=1").await;
    assert_eq!(
        (&left["summary"]["resource_count"], &left["summary"]["total_consumed_credits"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(left["resources"][0]["item_hash"], files[1].as_str());
    get("/api/v0/costs?include_details=2").await.refused(400, "needs an address or an item_hash");
    get("/api/v0/costs?pagination=9").await.refused(422, "10 to 1000");
    get("/api/v0/costs?payment_type=free").await.refused(422, "payment_type");
}

#[tokio::test]
async fn the_node_tells_how_it_does() {
    processed(&post_of(&account("the_node_tells"), &json!({}))).await;
    let found = get_json("/metrics.json").await;
    assert_fields(&found["pyaleph_build_info"], &["python_version", "version"]);
    assert!(found["pyaleph_status_sync_messages_total"].is_u64());
    for field in [
        "pyaleph_status_sync_pending_messages_total",
        "pyaleph_status_sync_pending_txs_total",
        "pyaleph_status_peers_total",
    ] {
        assert!(found[field].is_u64(), "{field}: {found}");
    }
    // It follows no chain.
    assert_eq!(found["pyaleph_status_chain_eth_height_remaining_total"], Value::Null);
    let text = get("/metrics").await;
    assert_eq!((text.status, text.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        text.text().starts_with(&format!("pyaleph_build_info{{python_version=\"none\",version=\"{version}\"}} 1\n"))
    );
    assert!(text.text().contains("\npyaleph_status_sync_permanent_files_total "));
    assert!(!text.text().contains("null"));
}

#[tokio::test]
async fn hashes_are_listed_by_when_they_came() {
    let sender = account("hashes_are_listed");
    let before =
        get_json("/api/v0/messages/hashes?status=processed").await["pagination_total"].as_u64().expect("a number");
    let first = processed(&post_of(&sender, &json!({"n": 1}))).await;
    let second = processed(&post_of(&sender, &json!({"n": 2}))).await;
    let found = get_json("/api/v0/messages/hashes?status=processed&pagination=1000").await;
    assert_fields(&found, &["hashes", "pagination_per_page", "pagination_page", "pagination_total", "pagination_item"]);
    assert_eq!(found["pagination_item"], "hashes");
    assert!(found["pagination_total"].as_u64().expect("a number") >= before + 2);
    let place =
        |found: &Value, hash: &str| found["hashes"].as_array().expect("a list").iter().position(|other| other == hash);
    let (later, earlier) = (place(&found, &second).expect("it"), place(&found, &first).expect("it"));
    assert!(later < earlier, "the last one comes first");

    let told = get_json("/api/v0/messages/hashes?hash_only=false&pagination=1000&sortOrder=1").await;
    let told = told["hashes"].as_array().expect("a list");
    let entry = told.iter().find(|entry| entry["item_hash"] == first.as_str()).expect("it");
    assert_eq!(*entry, get_json(&format!("/api/v0/messages/{first}/status")).await);
    let moments: Vec<&str> = told.iter().filter_map(|entry| entry["reception_time"].as_str()).collect();
    assert!(moments.len() == told.len() && moments.is_sorted());

    processed(&draft("FORGET", &json!({"hashes": [first]})).sign(&sender)).await;
    let of = async |status: &str| get_json(&format!("/api/v0/messages/hashes?status={status}&pagination=1000")).await;
    assert!(place(&of("forgotten").await, &first).is_some());
    assert!(place(&of("processed").await, &first).is_none());
    assert!(place(&of("processed,forgotten").await, &first).is_some());
    let past = get_json("/api/v0/messages/hashes?endDate=1000").await;
    assert_eq!((past["hashes"].clone(), past["pagination_total"].clone()), (json!([]), json!(0)));
    let since = get_json("/api/v0/messages/hashes?startDate=1000&pagination=1000").await;
    assert!(place(&since, &second).is_some());
    get("/api/v0/messages/hashes?status=lost").await.refused(422, "status");
    get("/api/v0/messages/hashes?startDate=5&endDate=2").await.refused(422, "endDate");
}
