use crate::Post;
use plugin_sdk::{
    Handler as _, Message, Request,
    simulation::{Simulation, message},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn post(time: f64, more: &Value) -> Message {
    let mut content = json!({"address": "0xA", "time": time, "type": "blog", "content": {"body": time}});
    content.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    message("POST", &content.to_string()).expect("a message")
}

fn ask(node: &Simulation<Post>, version: u8, parameters: &[(&str, &str)]) -> (u16, Value) {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = Request { route: format!("/api/v{version}/posts.json"), path: vec![], parameters };
    let response = Post::query(&request, &node.view);
    assert_eq!(response.content_type, "application/json");
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

fn originals(found: &Value) -> Vec<String> {
    let posts = found["posts"].as_array().expect("a list");
    posts.iter().map(|post| post["original_item_hash"].as_str().expect("a hash").to_owned()).collect()
}

#[test]
fn the_shapes_are_exact() {
    let mut node = Simulation::new("post");
    let mut original = post(1.5, &json!({"ref": "r", "content": {"tags": ["a"], "body": "first"}}));
    original.channel = Some("TEST".into());
    let amend = post(3.0, &json!({"type": "amend", "ref": original.item_hash, "content": {"body": "second"}}));
    node.submit(&original);
    node.submit(&amend);
    let text = |message: &Message| String::from_utf8(message.content.clone()).expect("text");
    let v0 = json!({
        "chain": "ETH", "item_hash": amend.item_hash, "sender": "0xA", "type": "amend", "channel": "TEST",
        "confirmed": false, "content": {"body": "second"}, "item_content": text(&amend), "item_type": "inline",
        "signature": "0x", "size": amend.content.len(), "time": 3.0, "confirmations": [],
        "original_item_hash": original.item_hash, "original_signature": "0x", "original_type": "blog",
        "hash": original.item_hash, "address": "0xA", "ref": "r",
    });
    assert_eq!(v0.as_object().map(serde_json::Map::len), Some(19));
    let page = |posts: Value| {
        json!({"posts": posts, "pagination_page": 1, "pagination_total": 1, "pagination_per_page": 20,
            "pagination_item": "posts"})
    };
    assert_eq!(ask(&node, 0, &[]), (200, page(json!([v0]))));
    let v1 = json!({
        "item_hash": amend.item_hash, "content": {"body": "second"}, "original_item_hash": original.item_hash,
        "original_type": "blog", "address": "0xA", "ref": "r", "channel": "TEST",
        "created": "1970-01-01T00:00:01.500000+00:00", "last_updated": "1970-01-01T00:00:03.000000+00:00",
    });
    assert_eq!(ask(&node, 1, &[]), (200, page(json!([v1]))));
    let (_, found) = ask(&node, 1, &[("cursor", "")]);
    assert_eq!(found, json!({"posts": [v1], "pagination_per_page": 20, "next_cursor": null}));
}

#[test]
fn a_post_that_is_not_amended_shows_itself() {
    let mut node = Simulation::new("post");
    let text = r#"{"address":"0xA","time":2,"type":"x","content":null}"#;
    node.submit(&message("POST", text).expect("a message"));
    let (_, found) = ask(&node, 0, &[]);
    let found = &found["posts"][0];
    assert_eq!((&found["item_hash"], &found["type"]), (&found["hash"], &json!("x")));
    assert_eq!((&found["content"], &found["ref"], &found["channel"]), (&json!(null), &json!(null), &json!(null)));
}

#[test]
fn filters_find_what_they_say() {
    let mut node = Simulation::new("post");
    let first = post(1.0, &json!({"ref": "r", "content": {"tags": ["a", "b"]}}));
    let second = post(2.0, &json!({"type": "note", "content": {"tags": ["b"]}}));
    let mut third = post(3.0, &json!({"address": "0xB"}));
    third.channel = Some("TEST".into());
    let amend = post(9.0, &json!({"type": "amend", "ref": first.item_hash, "content": {"tags": ["c"]}}));
    for message in [&first, &second, &third, &amend] {
        node.submit(message);
    }
    let (one, two, three) = (&first.item_hash, &second.item_hash, &third.item_hash);
    let check = |parameters: &[(&str, &str)], expect: &[&String]| {
        let (status, found) = ask(&node, 0, parameters);
        assert_eq!(status, 200, "{parameters:?}: {found}");
        assert_eq!(originals(&found).iter().collect::<Vec<_>>(), expect, "{parameters:?}");
        assert_eq!(found["pagination_total"], expect.len(), "{parameters:?}");
        let (_, by_cursor) = ask(&node, 0, &[parameters, &[("cursor", "")]].concat());
        assert_eq!(originals(&by_cursor), originals(&found), "{parameters:?}");
    };
    check(&[], &[one, three, two]);
    check(&[("sortOrder", "1")], &[two, three, one]);
    check(&[("addresses", "0xA")], &[one, two]);
    check(&[("addresses", "0xA,0xB"), ("types", "blog")], &[one, three]);
    check(&[("types", "amend")], &[]);
    check(&[("types", "blog,note"), ("addresses", "0xB,0xC")], &[three]);
    check(&[("refs", "r")], &[one]);
    check(&[("channels", "TEST")], &[three]);
    check(&[("tags", "a")], &[]);
    check(&[("tags", "b,c")], &[one, two]);
    check(&[("hashes", &format!("{two},{one},absent"))], &[one, two]);
    check(&[("hashes", two), ("addresses", "0xB")], &[]);
    check(&[("startDate", "3"), ("endDate", "9")], &[three]);
    check(&[("startDate", "2"), ("endDate", "3")], &[two]);
    check(&[("startDate", "0"), ("endDate", "0")], &[one, three, two]);
    check(&[("message_statuses", "whatever")], &[one, three, two]);
    for wrong in [("startDate", "x"), ("sortBy", "x"), ("cursor", "?"), ("cursor", "e30"), ("pagination", "x")] {
        assert_eq!(ask(&node, 0, &[wrong]).0, 422, "{wrong:?}");
    }
    assert_eq!(ask(&node, 0, &[("startDate", "3"), ("endDate", "1")]).0, 422);
    assert_eq!(ask(&node, 0, &[("cursor", ""), ("pagination", "0")]).0, 422);
}

#[test]
fn pages_are_those_of_the_path_too() {
    let mut node = Simulation::<Post>::new("post");
    for time in 0..5 {
        node.submit(&post(f64::from(time), &json!({})));
    }
    let request = Request {
        route: "/api/v1/posts/page/{page}.json".into(),
        path: vec![("page".into(), "2".into())],
        parameters: vec![("pagination".into(), "2".into())],
    };
    let response = Post::query(&request, &node.view);
    let found: Value = serde_json::from_slice(&response.body).expect("JSON");
    let bodies: Vec<&Value> =
        found["posts"].as_array().expect("a list").iter().map(|post| &post["content"]["body"]).collect();
    assert_eq!(bodies, [&json!(2.0), &json!(1.0)]);
    assert_eq!((&found["pagination_page"], &found["pagination_total"]), (&json!(2), &json!(5)));
}

/// A page of posts too large for an answer is refused by number and cut by cursor.
#[test]
fn large_posts_do_not_make_large_answers() {
    let mut node = Simulation::new("post");
    for time in 0..5 {
        node.submit(&post(f64::from(time), &json!({"content": "x".repeat(2_500_000)})));
    }
    assert_eq!(ask(&node, 1, &[]).0, 413);
    let (mut cursor, mut seen) = (String::new(), 0);
    loop {
        let (status, found) = ask(&node, 1, &[("cursor", &cursor)]);
        assert_eq!(status, 200);
        seen += originals(&found).len();
        match found["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Pages and cursors, whatever the filter, show what a search through everything finds, in its order.
    #[test]
    fn pages_and_cursors_agree(
        posts in proptest::collection::vec((0_u32..4, 0_usize..3, 0_usize..2, proptest::collection::vec("[ab]", 0..2)), 1..14),
        length in 1_u64..4, descending: bool, filter in 0_usize..6,
    ) {
        let mut node = Simulation::<Post>::new("post");
        let mut all = Vec::new();
        for (time, kind, owner, tags) in &posts {
            let (kind_name, address) = (["x", "y", "z"][*kind], ["0xA", "0xB"][*owner]);
            let more = json!({"type": kind_name, "address": address, "content": {"tags": tags}});
            let message = post(f64::from(*time), &more);
            if node.standing(&message.item_hash).is_some() {
                continue;
            }
            node.submit(&message);
            all.push((f64::from(*time), message.item_hash, *kind, *owner, tags.clone()));
        }
        let filters: [&[(&str, &str)]; 6] =
            [&[], &[("types", "x,z")], &[("tags", "a,b")], &[("types", "x"), ("addresses", "0xA")], &[("startDate", "1"), ("endDate", "3")], &[("tags", "a"), ("endDate", "2")]];
        all.retain(|(time, _, kind, owner, tags)| match filter {
            1 => *kind != 1,
            2 => !tags.is_empty(),
            3 => *kind == 0 && *owner == 0,
            4 => (1.0..3.0).contains(time),
            5 => *time < 2.0 && tags.contains(&"a".to_owned()),
            _ => true,
        });
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        all.dedup_by(|a, b| a.1 == b.1);
        let mut expected: Vec<String> = all.into_iter().map(|(_, hash, ..)| hash).collect();
        if !descending {
            expected.reverse();
        }
        let order = if descending { "-1" } else { "1" };
        let length = length.to_string();
        let base = [filters[filter], &[("sortOrder", order), ("pagination", length.as_str())]].concat();
        let mut pages = Vec::new();
        for page in 1..20_u32 {
            let number = page.to_string();
            let (status, found) = ask(&node, 1, &[base.as_slice(), &[("page", &number)]].concat());
            prop_assert_eq!(status, 200);
            prop_assert_eq!(found["pagination_total"].as_u64(), Some(expected.len() as u64));
            pages.extend(originals(&found));
        }
        prop_assert_eq!(&pages, &expected);
        let (mut by_cursor, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, found) = ask(&node, 1, &[base.as_slice(), &[("cursor", &cursor)]].concat());
            prop_assert_eq!(status, 200);
            by_cursor.extend(originals(&found));
            match found["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        prop_assert_eq!(by_cursor, expected);
    }
}

/// Clients read in the manifest what they can ask for: it must be what is kept.
#[test]
fn the_manifest_tells_the_bounds() {
    let manifest: Value = serde_json::from_str(include_str!("../../manifest.json")).expect("JSON");
    let node = Simulation::new("post");
    let operations = manifest["operations"].as_array().expect("a list");
    for (version, operation) in [(0, &operations[0]), (1, &operations[1])] {
        for parameter in operation["query"].as_array().expect("a list") {
            let (name, schema) = (parameter["name"].as_str().expect("a name"), &parameter["schema"]);
            if schema["type"] == "array" {
                assert_eq!(schema["maxItems"], super::MAX_VALUES, "{name}");
                let most = vec!["x"; super::MAX_VALUES].join(",");
                assert_eq!(ask(&node, version, &[(name, &most)]).0, 200, "{name}");
                assert_eq!(ask(&node, version, &[(name, &format!("{most},x"))]).0, 422, "{name}");
            }
            for word in schema["enum"].as_array().into_iter().flatten() {
                assert_eq!(ask(&node, version, &[(name, word.as_str().expect("a word"))]).0, 200, "{name}");
            }
            if schema.get("minimum").is_some() {
                let (status, body) = ask(&node, version, &[(name, "-1")]);
                assert_eq!((status, &body["field"]), (422, &json!(name)));
            }
        }
    }
}
