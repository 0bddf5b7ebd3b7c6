//! Messages come in, and are read by their hash.

use super::*;

#[tokio::test]
async fn a_message_is_processed_and_read_back() {
    let sender = account("a_message_is_processed");
    let message = post_of(&sender, &json!({"body": "hello", "tags": ["a"]}));
    let answer = submit(&message).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected = json!({"publication_status": {"status": "success", "failed": []}, "message_status": "processed"});
    assert_eq!(answer.json(), expected);

    let hash = message.item_hash.to_string();
    let found = get_json(&format!("/api/v0/messages/{hash}")).await;
    assert_fields(&found, &["status", "item_hash", "reception_time", "message"]);
    assert_eq!((&found["status"], &found["item_hash"]), (&json!("processed"), &json!(hash)));
    let moment = found["reception_time"].as_str().expect("text");
    assert!(moment.ends_with("+00:00") && moment.contains('T') && moment.contains('.'), "{moment}");
    let mut single: Vec<&str> = MESSAGE.to_vec();
    single.push("confirmations");
    let inner = &found["message"];
    assert_fields(inner, &single);
    assert_eq!(inner["item_content"].as_str(), message.item_content.as_deref());
    assert_eq!(inner["content"]["content"], json!({"body": "hello", "tags": ["a"]}));
    assert_eq!(
        (&inner["time"], &inner["confirmed"], &inner["confirmations"]),
        (&json!(message.time), &json!(false), &json!([]))
    );
    assert_eq!(
        (&inner["type"], &inner["item_type"], &inner["channel"]),
        (&json!("POST"), &json!("inline"), &json!("TEST"))
    );

    let status = get_json(&format!("/api/v0/messages/{hash}/status")).await;
    assert_eq!(status, json!({"status": "processed", "item_hash": hash, "reception_time": moment}));
    let content = get_json(&format!("/api/v0/messages/{hash}/content")).await;
    assert_eq!(content, json!({"body": "hello", "tags": ["a"]}));

    // The same message again changes nothing, and is answered at once.
    let again = submit(&message).await;
    assert_eq!((again.status, again.json()), (200, expected));
}

#[tokio::test]
async fn what_nobody_knows_is_404_and_what_is_no_hash_400() {
    let unknown = ItemHash::sha256_of(b"nobody's");
    for path in ["", "/status", "/content"] {
        get(&format!("/api/v0/messages/{unknown}{path}")).await.refused(404, "Message not found");
        get(&format!("/api/v0/messages/nonsense{path}")).await.refused(400, "`nonsense` is not an item hash");
    }
}

#[tokio::test]
async fn format_errors_name_the_field_and_leave_nothing_behind() {
    let sender = account("format_errors");
    let good: Value = serde_json::from_str(&to_json(&post_of(&sender, &json!({})))).expect("JSON");
    let check = async |field: &str, value: Value, words: &str| {
        let mut message = good.clone();
        message[field] = value;
        let answer = post_json("/api/v0/messages", &json!({"message": message, "sync": true})).await;
        let body = answer.refused(422, words);
        assert_eq!(body["message_status"], "rejected");
        assert_eq!(body["publication_status"]["status"], "error", "one of the words that clients know");
        assert_eq!(body["field"], field, "{body}");
        assert_eq!(body["error_code"], 0);
    };
    check("item_hash", json!(ItemHash::sha256_of(b"other").to_string()), "does not match the content").await;
    check("item_hash", json!("x"), "is not an item hash").await;
    check("time", json!("2026-09-01"), "a number was expected").await;
    check("chain", json!("NOPE"), "is not a chain").await;
    check("sender", json!(null), "is required").await;
    check("item_content", json!("x".repeat(200_001)), "at most 200000 characters").await;
    let hash = good["item_hash"].as_str().expect("a hash");
    get(&format!("/api/v0/messages/{hash}")).await.refused(404, "not found");
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused() {
    let check = async |body: &[u8], words: &str| {
        post("/api/v0/messages", "application/json", body).await.refused(422, words);
    };
    check(b"", "not JSON").await;
    check(b"{", "not JSON").await;
    check(b"[]", "an object was expected").await;
    check(b"{}", "message: is required").await;
    check(b"{\"message\": 5}", "message: an object was expected").await;
    check(b"{\"message\": {}, \"sync\": 5}", "sync: true or false was expected").await;
    check(b"\xff\xfe", "is not UTF-8").await;
    check(br#"{"message":{"a":"\u0000"}}"#, "not allowed").await;
    check(br#"{"message":{"a":NaN}}"#, "not JSON").await;
    check(("[".repeat(100_000)).as_bytes(), "nested deeper").await;
    let large = post("/api/v0/messages", "application/json", vec![b' '; 2 << 20]).await;
    large.refused(413, "too long");
}

#[tokio::test]
async fn a_wrong_signature_is_readable_and_harms_nobody() {
    let sender = account("a_wrong_signature");
    let good = post_of(&sender, &json!({"x": 1}));
    let mut forged = good.clone();
    forged.signature = post_of(&sender, &json!({"x": 2})).signature;
    let answer = submit(&forged).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["message_status"], &body["error_code"]), (&json!("rejected"), &json!(1)));
    assert_eq!(body["publication_status"]["status"], "success");
    let found = get_json(&format!("/api/v0/messages/{}", good.item_hash)).await;
    assert_fields(&found, &["status", "item_hash", "reception_time", "message", "error_code", "details"]);
    assert_eq!((&found["status"], &found["error_code"]), (&json!("rejected"), &json!(1)));
    assert_eq!(found["message"]["sender"], sender.address());
    assert!(found["details"]["errors"].is_array());
    get(&format!("/api/v0/messages/{}/content", good.item_hash)).await.refused(422, "rejected");
    // Who has the right one is heard.
    processed(&good).await;
    let again = submit(&forged).await;
    assert_eq!((again.status, again.json()["error_code"].clone()), (422, json!(1)));
    assert_eq!(get_json(&format!("/api/v0/messages/{}/status", good.item_hash)).await["status"], "processed");
}

#[tokio::test]
async fn unknown_types_are_rejected_in_words() {
    let message = draft("NONSENSE", &json!({})).sign(&account("unknown_types"));
    let answer = submit(&message).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["error_code"], 0, "{body}");
    assert!(body["error"].as_str().is_some_and(|sentence| sentence.contains("NONSENSE")), "{body}");
}

/// A message that waits is shown twice: as all clients know it, and as those that know no waiting messages read it.
#[tokio::test]
async fn a_message_that_waits_is_shown_and_woken() {
    let sender = account("a_message_that_waits");
    let original = post_of(&sender, &json!({"body": "first"}));
    let amend = draft("POST", &json!({"type": "amend", "ref": original.item_hash, "content": {"body": "second"}}));
    let amend = amend.sign(&sender);
    let message: Value = serde_json::from_str(&to_json(&amend)).expect("JSON");
    let answer = post_json("/api/v0/messages", &json!({"message": message})).await;
    assert_eq!((answer.status, answer.json()["message_status"].clone()), (202, json!("pending")));
    let found = get_json(&format!("/api/v0/messages/{}", amend.item_hash)).await;
    if found["status"] == "pending" {
        assert_fields(&found, &["status", "item_hash", "reception_time", "messages", "message"]);
        let copy = &found["messages"][0];
        assert!(copy["time"].is_string() && copy["reception_time"].is_string(), "{copy}");
        assert_eq!(copy["content"]["type"], "amend");
        assert_eq!((&found["message"]["time"], &found["message"]["confirmations"]), (&json!(amend.time), &json!([])));
    }
    processed(&original).await;
    for _ in 0..100 {
        if get_json(&format!("/api/v0/messages/{}/status", amend.item_hash)).await["status"] == "processed" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let posts = get_json(&format!("/api/v0/posts.json?addresses={}", sender.address())).await;
    assert_eq!(posts["posts"][0]["content"], json!({"body": "second"}));
    assert_eq!(posts["posts"][0]["hash"], original.item_hash.to_string());
}

/// The Rust client reads the time of a hidden message as a text, and Python's no refused or waiting message that has no content.
#[tokio::test]
async fn what_became_of_a_message_is_shown_as_clients_read_it() {
    let sender = account("what_became");
    let target = post_of(&sender, &json!({"body": "x"}));
    let hash = processed(&target).await;
    let forget = processed(&draft("FORGET", &json!({"hashes": [hash], "reason": "test"})).sign(&sender)).await;
    let forget_time = get_json(&format!("/api/v0/messages/{forget}")).await["message"]["content"]["time"].clone();
    let found = get_json(&format!("/api/v0/messages/{hash}")).await;
    assert_fields(&found, &["status", "item_hash", "reception_time", "message", "forgotten_by"]);
    assert_eq!((&found["status"], &found["forgotten_by"]), (&json!("forgotten"), &json!([forget])));
    let skeleton = &found["message"];
    let fields = ["sender", "chain", "type", "channel", "time", "item_type", "item_hash", "signature"];
    assert_fields(skeleton, &[&fields[..], &["owner", "size", "payment_type", "forgotten_at"]].concat());
    let time = skeleton["time"].as_str().expect("a text");
    assert!(time.starts_with("2026-09-01T") && time.ends_with("+00:00"), "{time}");
    assert_eq!((&skeleton["payment_type"], &skeleton["forgotten_at"]), (&json!("hold"), &forget_time));
    assert_eq!(skeleton["owner"], sender.address());

    let mut forged = post_of(&sender, &json!({"body": "y"}));
    forged.signature = target.signature.clone();
    assert_eq!(submit(&forged).await.status, 422);
    let found = get_json(&format!("/api/v0/messages/{}", forged.item_hash)).await;
    assert_eq!(
        (&found["status"], &found["message"]["content"]["content"]),
        (&json!("rejected"), &json!({"body": "y"}))
    );
    assert_eq!(found["message"]["item_content"].as_str(), forged.item_content.as_deref());

    let nowhere = ItemHash::sha256_of(b"a content that is nowhere");
    let waiting =
        Draft::new("POST", "{}").time(TIME).sign_stored(&sender, nowhere.clone(), ccn_message::ItemType::Storage);
    let message: Value = serde_json::from_str(&to_json(&waiting)).expect("JSON");
    post_json("/api/v0/messages", &json!({"message": message})).await;
    let found = get_json(&format!("/api/v0/messages/{nowhere}")).await;
    // After the horizon it shows as refused, and is no less readable.
    let content = json!({"address": sender.address(), "time": TIME});
    assert_eq!(found["message"]["content"], content, "{found}");
}

/// The older way in, to which clients fall back.
#[tokio::test]
async fn the_older_form_publishes_too() {
    let message = post_of(&account("the_older_form"), &json!({}));
    for path in ["/api/v0/ipfs/pubsub/pub", "/api/v0/p2p/pubsub/pub"] {
        let answer = post_json(path, &json!({"topic": "ALEPH-TEST", "data": to_json(&message)})).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"status": "success", "failed": []})));
        post_json(path, &json!({"topic": "OTHER", "data": "{}"})).await.refused(403, "ALEPH-TEST");
        let object: Value = serde_json::from_str(&to_json(&message)).expect("JSON");
        let answer = post_json(path, &json!({"topic": "ALEPH-TEST", "data": object})).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"status": "success", "failed": []})));
        post_json(path, &json!({"topic": "ALEPH-TEST", "data": 5})).await.refused(422, "data: an object was expected");
        post_json(path, &json!({"topic": "ALEPH-TEST", "data": "{}"})).await.refused(422, "is required");
    }
    assert_eq!(get_json(&format!("/api/v0/messages/{}/status", message.item_hash)).await["status"], "processed");
}

#[tokio::test]
async fn content_outside_the_message_is_uploaded_first() {
    let sender = account("content_outside");
    let content = json!({"type": "note", "time": TIME, "address": sender.address(), "content": {"n": 1}});
    let stored = post_json("/api/v0/storage/add_json", &content).await.json();
    let hash = ItemHash::parse(stored["hash"].as_str().expect("a hash")).expect("a hash");
    let message =
        Draft::new("POST", "{}").time(TIME).sign_stored(&sender, hash.clone(), ccn_message::ItemType::Storage);
    processed(&message).await;
    let found = get_json(&format!("/api/v0/messages/{hash}")).await;
    assert_eq!((&found["message"]["item_content"], &found["message"]["content"]), (&json!(null), &content));
}

#[tokio::test]
async fn aggregates_are_answered_by_their_plugin() {
    let sender = account("aggregates");
    let address = sender.address();
    get(&format!("/api/v0/aggregates/{address}.json")).await.refused(404, "No aggregate found for this address");
    processed(&draft("AGGREGATE", &json!({"key": "profile", "content": {"name": "a", "age": 1}})).sign(&sender)).await;
    processed(&draft("AGGREGATE", &json!({"key": "profile", "content": {"age": 2}})).sign(&sender)).await;
    let found = get_json(&format!("/api/v0/aggregates/{address}.json?keys=profile,other")).await;
    assert_eq!(found, json!({"address": address, "data": {"profile": {"name": "a", "age": 2}}, "info": {}}));
    let listed = get_json(&format!("/api/v0/aggregates?addresses={address}&sortBy=last_modified")).await;
    assert_fields(&listed["aggregates"][0], &["address", "key", "content", "created", "last_updated"]);
    assert_eq!(listed["pagination_total"], 1);
}

#[tokio::test]
async fn delegates_may_do_what_they_may() {
    let (owner, delegate) = (account("delegating owner"), account("delegate"));
    let post = |kind: &str| {
        let content = json!({"type": kind, "content": {}});
        draft("POST", &content).address(owner.address()).sign(&delegate)
    };
    let early = submit(&post("allowed")).await;
    assert_eq!((early.status, early.json()["error_code"].clone()), (422, json!(2)), "{}", early.text());
    let rights = json!([{"address": delegate.address(), "types": ["POST"], "post_types": ["allowed"]}]);
    processed(&draft("AGGREGATE", &json!({"key": "security", "content": {"authorizations": rights}})).sign(&owner))
        .await;
    processed(&post("allowed")).await;
    let other = submit(&post("other")).await;
    assert_eq!((other.status, other.json()["error_code"].clone()), (422, json!(2)), "{}", other.text());
}

/// Found with the official Python client: one message of a type that it does not know, and it fails on the whole page.
#[tokio::test]
async fn types_of_other_plugins_are_listed_for_who_asks() {
    let sender = account("types_of_other_plugins");
    let known = processed(&post_of(&sender, &json!({}))).await;
    let note = draft("NOTE", &json!({"type": "memo", "content": {"body": "x"}})).sign(&sender);
    let note = processed(&note).await;
    let list = async |parameters: &str| {
        let path = format!("/api/v0/messages.json?addresses={}&{parameters}", sender.address());
        let found = get_json(&path).await;
        let hashes = found["messages"].as_array().expect("a list").iter().map(|message| message["item_hash"].clone());
        (hashes.collect::<Vec<Value>>(), found["pagination_total"].clone())
    };
    assert_eq!(list("").await, (vec![json!(known)], json!(1)));
    assert_eq!(list("msgType=NOTE").await, (vec![json!(note)], json!(1)));
    assert_eq!(list("msgTypes=POST,NOTE").await, (vec![json!(note), json!(known)], json!(2)));
    assert_eq!(list(&format!("hashes={note}")).await, (vec![json!(note)], json!(1)));
    assert_eq!(get_json(&format!("/api/v0/messages/{note}")).await["message"]["type"], "NOTE");
    let answered = get_json(&format!("/api/v0/notes.json?addresses={}", sender.address())).await;
    assert_eq!(answered["posts"][0]["content"], json!({"body": "x"}));
}
