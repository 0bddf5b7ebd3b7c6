//! Lists of messages: shapes, filters, pages and cursors.

use super::*;

/// Some messages of one account, oldest first.
async fn some(name: &str) -> (Account, Vec<String>) {
    let sender = account(name);
    let drafts = [
        draft("POST", &json!({"type": "blog", "ref": "r", "content": {"tags": ["a", "b"]}})),
        draft("AGGREGATE", &json!({"key": "profile", "content": {"x": 1}})).channel("OTHER"),
        draft("POST", &json!({"type": "note", "content": {"tags": ["b"]}})),
    ];
    let mut hashes = Vec::new();
    for draft in drafts {
        hashes.push(processed(&draft.sign(&sender)).await);
    }
    (sender, hashes)
}

fn hashes(found: &Value) -> Vec<String> {
    let messages = found["messages"].as_array().unwrap_or_else(|| panic!("{found}"));
    messages.iter().map(|message| message["item_hash"].as_str().expect("a hash").to_owned()).collect()
}

#[tokio::test]
async fn pages_have_the_exact_shape() {
    let (sender, sent) = some("pages_have_the_exact_shape").await;
    let found = get_json(&format!("/api/v0/messages.json?addresses={}&message_statuses=x", sender.address())).await;
    let page = ["messages", "pagination_per_page", "pagination_page", "pagination_total", "pagination_item"];
    assert_fields(&found, &page);
    assert_eq!(hashes(&found), [sent[2].clone(), sent[1].clone(), sent[0].clone()], "newest first");
    assert_eq!((&found["pagination_total"], &found["pagination_page"]), (&json!(3), &json!(1)));
    assert_eq!((&found["pagination_per_page"], &found["pagination_item"]), (&json!(20), &json!("messages")));
    let mut listed: Vec<&str> = MESSAGE.to_vec();
    listed.extend(["size", "confirmations"]);
    for message in found["messages"].as_array().expect("a list") {
        assert_fields(message, &listed);
        assert!(message["time"].is_f64() && message["size"].is_u64() && message["confirmations"] == json!([]));
        assert!(message["content"].is_object());
    }
    let path = format!("/api/v0/messages/page/2.json?addresses={}&pagination=2", sender.address());
    let second = get_json(&path).await;
    assert_eq!((hashes(&second), &second["pagination_page"]), (vec![sent[0].clone()], &json!(2)));
    get("/api/v0/messages/page/x.json").await.refused(404, "NUMBER.json");
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let (sender, sent) = some("filters_find").await;
    let address = sender.address();
    let check = async |parameters: &str, places: &[usize]| {
        let found = get_json(&format!("/api/v0/messages.json?addresses={address}&{parameters}")).await;
        let expected: Vec<String> = places.iter().map(|place| sent[*place].clone()).collect();
        assert_eq!(hashes(&found), expected, "{parameters}");
        assert_eq!(found["pagination_total"], places.len(), "{parameters}");
    };
    check("msgType=POST", &[2, 0]).await;
    check("msgTypes=POST,AGGREGATE&sortOrder=1", &[0, 1, 2]).await;
    check("msg_types=AGGREGATE", &[1]).await;
    check(&format!("owners={address}&channels=OTHER"), &[1]).await;
    check("channels=TEST&tags=b", &[2, 0]).await;
    check("tags=a,b", &[2, 0]).await;
    check("refs=r", &[0]).await;
    check("contentTypes=note", &[2]).await;
    check("contentKeys=profile", &[1]).await;
    check("chains=ETH", &[2, 1, 0]).await;
    check("chains=SOL", &[]).await;
    check(&format!("hashes={},{}", sent[0], sent[2]), &[2, 0]).await;
    check(&format!("hashes={}&msgType=AGGREGATE", sent[0]), &[]).await;
    check("msgStatuses=processed,removing", &[2, 1, 0]).await;
    check("msgStatuses=forgotten", &[]).await;
    check("startDate=9000000000", &[]).await;
    check("endDate=1000000000", &[]).await;
    check("startDate=0&endDate=0&pagination=0", &[2, 1, 0]).await;
    check("sortBy=tx-time", &[2, 1, 0]).await;

    // The beginning is included, the end is not.
    let times: Vec<f64> = get_json(&format!("/api/v0/messages.json?addresses={address}&sortOrder=1")).await["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|message| message["time"].as_f64().expect("a number"))
        .collect();
    check(&format!("startDate={}&endDate={}", times[1], times[2]), &[1]).await;
}

/// Found with the console, which lists what was forgotten: the list was always empty.
#[tokio::test]
async fn what_is_hidden_is_listed_by_when_it_was() {
    let (sender, sent) = some("what_is_hidden").await;
    let address = sender.address();
    let forget =
        async |hash: &str| processed(&draft("FORGET", &json!({"hashes": [hash]})).channel("OTHER").sign(&sender)).await;
    let (second, first) = (forget(&sent[2]).await, forget(&sent[0]).await);
    let list =
        async |parameters: &str| get_json(&format!("/api/v0/messages.json?msgStatuses=forgotten&{parameters}")).await;
    let check = async |parameters: &str, expect: &[&String]| {
        let found = list(&format!("addresses={address}&{parameters}")).await;
        assert_eq!(hashes(&found).iter().collect::<Vec<_>>(), expect, "{parameters}: {found}");
        assert_eq!(found["pagination_total"], expect.len(), "{parameters}");
    };
    check("", &[&sent[0], &sent[2]]).await;
    check("sortOrder=1", &[&sent[2], &sent[0]]).await;
    check("msgType=POST&channels=TEST", &[&sent[0], &sent[2]]).await;
    check("msgType=STORE", &[]).await;
    check(&format!("owners={address}"), &[&sent[0], &sent[2]]).await;
    check(&format!("hashes={}", sent[2]), &[&sent[2]]).await;
    check("chains=SOL", &[]).await;
    check("paymentTypes=hold&endDate=1000000000", &[]).await;
    let page = list(&format!("addresses={address}&pagination=1&page=2")).await;
    assert_eq!((hashes(&page), &page["pagination_total"]), (vec![sent[2].clone()], &json!(2)));
    let found = list(&format!("addresses={address}")).await;
    assert_eq!(
        (&found["messages"][0]["forgotten_by"], &found["messages"][1]["forgotten_by"]),
        (&json!([first]), &json!([second]))
    );
    let moment = found["messages"][1]["forgotten_at"].as_f64().expect("a number");
    check(&format!("startDate={moment}"), &[&sent[0], &sent[2]]).await;
    check(&format!("endDate={moment}"), &[]).await;
    let rest = get_json(&format!("/api/v0/messages.json?addresses={address}&msgTypes=POST,AGGREGATE")).await;
    assert_eq!(hashes(&rest), [sent[1].clone()]);
    get("/api/v0/messages.json?msgStatuses=forgotten&tags=a").await.refused(400, "tags: messages that are no more");
    get("/api/v0/messages.json?msgStatuses=removed&cursor=").await.refused(400, "cursor");
    let removed = get_json(&format!("/api/v0/messages.json?msgStatuses=removed&addresses={address}")).await;
    assert_eq!(removed["pagination_total"], 0);
}

#[tokio::test]
async fn contents_can_be_left_out() {
    let (sender, sent) = some("contents_can_be_left_out").await;
    let first = async |format: &str| {
        let path = format!("/api/v0/messages.json?addresses={}&{format}&sortOrder=1", sender.address());
        get_json(&path).await["messages"].clone()
    };
    let headers = first("contentFormat=headers").await;
    assert_eq!(headers[0]["content"], json!({"address": sender.address(), "type": "blog", "ref": "r"}));
    assert_eq!(headers[1]["content"], json!({"address": sender.address(), "key": "profile"}));
    for format in ["contentFormat=none", "excludeContent=true"] {
        let none = first(format).await;
        assert!(none[0].get("content").is_none() && none[0]["item_hash"] == sent[0].as_str());
    }
}

#[tokio::test]
async fn cursors_go_through_everything() {
    let (sender, sent) = some("cursors_go").await;
    for (order, expected) in [("-1", [2, 1, 0]), ("1", [0, 1, 2])] {
        let (mut visited, mut cursor) = (Vec::new(), String::new());
        loop {
            let address = sender.address();
            let path =
                format!("/api/v0/messages.json?addresses={address}&pagination=1&sortOrder={order}&cursor={cursor}");
            let found = get_json(&path).await;
            assert_fields(&found, &["messages", "pagination_per_page", "next_cursor"]);
            visited.extend(hashes(&found));
            match found["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(visited, expected.map(|place| sent[place].clone()));
    }
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let check = async |parameters: &str, status: u16, words: &str| {
        get(&format!("/api/v0/messages.json?{parameters}")).await.refused(status, words);
    };
    check("pagination=x", 422, "pagination: a whole number").await;
    check("pagination=-1", 422, "pagination: a whole number").await;
    check("page=0", 422, "page: pages are counted from 1").await;
    check("sortBy=size", 422, "sortBy: `size` is none of").await;
    check("sortOrder=0", 422, "sortOrder").await;
    check("startDate=2&endDate=1", 422, "endDate: must not be before").await;
    check("startDate=soon", 422, "startDate: seconds").await;
    check("hashes=x", 422, "hashes: `x` is not an item hash").await;
    check("cursor=x", 422, "cursor: take the one").await;
    check("cursor=&pagination=0", 422, "pagination: a page with a cursor").await;
    check("cursor=&sortBy=tx-time", 422, "sortBy: with a cursor").await;
    check("msgStatuses=forgotten,processed", 400, "cannot be combined").await;
    check("msgStatuses=lost", 422, "msgStatuses: `lost` is none of: pending").await;
    check("contentFormat=short", 422, "contentFormat").await;
    check(&format!("tags={}", "a,".repeat(1001)), 422, "tags: at most 1000").await;
}

#[tokio::test]
async fn posts_have_the_exact_shapes() {
    let (sender, sent) = some("posts_have").await;
    let v0 = get_json(&format!("/api/v0/posts.json?addresses={}&types=blog", sender.address())).await;
    let fields = [
        "chain",
        "item_hash",
        "sender",
        "type",
        "channel",
        "confirmed",
        "content",
        "item_content",
        "item_type",
        "signature",
        "size",
        "time",
        "confirmations",
        "original_item_hash",
        "original_signature",
        "original_type",
        "hash",
        "ref",
        "address",
    ];
    assert_fields(&v0["posts"][0], &fields);
    assert_eq!(v0["posts"][0]["hash"], sent[0].as_str());
    assert_eq!((&v0["pagination_total"], &v0["pagination_item"]), (&json!(1), &json!("posts")));
    let v1 = get_json(&format!("/api/v1/posts.json?addresses={}", sender.address())).await;
    let fields = [
        "item_hash",
        "content",
        "original_item_hash",
        "original_type",
        "address",
        "ref",
        "channel",
        "created",
        "last_updated",
    ];
    assert_eq!(v1["pagination_total"], 2);
    assert_fields(&v1["posts"][0], &fields);
    let page = get_json(&format!("/api/v0/posts/page/2.json?pagination=1&addresses={}", sender.address())).await;
    assert_eq!(page["posts"][0]["hash"], sent[0].as_str());
}
