use crate::Aggregate;
use plugin_sdk::{
    Handler as _, Request,
    layout::aggregate,
    simulation::{Simulation, message},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn submit(node: &mut Simulation<Aggregate>, owner: &str, key: &str, time: f64, content: &Value) -> String {
    let text = json!({"address": owner, "time": time, "key": key, "content": content}).to_string();
    let message = message("AGGREGATE", &text).expect("a message");
    node.submit(&message);
    message.item_hash
}

fn ask(node: &Simulation<Aggregate>, path: &[(&str, &str)], parameters: &[(&str, &str)]) -> (u16, Value) {
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let route = if path.is_empty() { "/api/v0/aggregates" } else { "/api/v0/aggregates/{address}.json" };
    let request = Request { route: route.to_owned(), path: pairs(path), parameters: pairs(parameters) };
    let response = Aggregate::query(&request, &node.view);
    assert_eq!(response.content_type, "application/json");
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

fn node() -> Simulation<Aggregate> {
    Simulation::new(aggregate::NAMESPACE)
}

#[test]
fn aggregates_of_an_owner() {
    let mut node = node();
    let first = submit(&mut node, "0xA", "profile", 1.5, &json!({"name": "a", "age": 1}));
    let last = submit(&mut node, "0xA", "profile", 3.0, &json!({"age": 2}));
    submit(&mut node, "0xA", "settings", 2.0, &json!({"x": null}));
    submit(&mut node, "0xB", "profile", 9.0, &json!({"name": "b"}));
    let owner = [("address", "0xA")];
    let (profile, settings) = (json!({"name": "a", "age": 2}), json!({"x": null}));
    let all = json!({"address": "0xA", "data": {"profile": profile, "settings": settings}, "info": {}});
    assert_eq!(ask(&node, &owner, &[]), (200, all));
    let one = json!({"address": "0xA", "data": {"profile": profile}, "info": {}});
    assert_eq!(ask(&node, &owner, &[("keys", "profile,absent"), ("limit", "50")]), (200, one));
    let info = json!({"created": "1970-01-01T00:00:01.500000+00:00", "last_updated": "1970-01-01T00:00:03.000000+00:00",
        "original_item_hash": first, "last_update_item_hash": last});
    let (status, found) = ask(&node, &owner, &[("keys", "profile"), ("with_info", "true")]);
    assert_eq!((status, &found["info"]), (200, &json!({"profile": info})));
    assert_eq!(ask(&node, &owner, &[("keys", "profile"), ("value_only", "true")]), (200, profile));
    let missing = (404, json!({"error": "No aggregate found for this address"}));
    assert_eq!(ask(&node, &owner, &[("keys", "absent")]), missing);
    assert_eq!(ask(&node, &[("address", "0xa")], &[]), missing, "addresses are spelled exactly");
}

#[test]
fn listings_have_pages() {
    let mut node = node();
    for (owner, key, time) in [("0xA", "k", 1.0), ("0xB", "k", 2.0), ("0xA", "other", 3.0), ("0xB", "k", 4.0)] {
        submit(&mut node, owner, key, time, &json!({"at": time}));
    }
    let names = |parameters: &[(&str, &str)]| {
        let (status, found) = ask(&node, &[], parameters);
        assert_eq!(status, 200, "{found}");
        let list = found["aggregates"].as_array().expect("a list");
        let name = |entry: &Value| {
            format!("{}/{}", entry["address"].as_str().expect("text"), entry["key"].as_str().expect("text"))
        };
        (list.iter().map(name).collect::<Vec<String>>(), found["pagination_total"].as_u64())
    };
    assert_eq!(names(&[]), (vec!["0xB/k".into(), "0xA/other".into(), "0xA/k".into()], Some(3)));
    assert_eq!(names(&[("sortOrder", "1")]).0, ["0xA/k", "0xA/other", "0xB/k"]);
    assert_eq!(names(&[("sortBy", "creation_time")]).0, ["0xA/other", "0xB/k", "0xA/k"]);
    assert_eq!(names(&[("keys", "k")]), (vec!["0xB/k".into(), "0xA/k".into()], Some(2)));
    assert_eq!(names(&[("addresses", "0xA"), ("pagination", "1")]), (vec!["0xA/other".into()], Some(2)));
    assert_eq!(
        names(&[("addresses", "0xA,0xB"), ("keys", "k,absent")]),
        (vec!["0xB/k".into(), "0xA/k".into()], Some(2))
    );
    assert_eq!(names(&[("pagination", "2"), ("page", "2")]).0, ["0xA/k"]);
    let (_, found) = ask(&node, &[], &[("keys", "other")]);
    let expected = json!({"aggregates": [{"address": "0xA", "key": "other", "content": {"at": 3.0},
            "created": "1970-01-01T00:00:03.000000+00:00", "last_updated": "1970-01-01T00:00:03.000000+00:00"}],
        "pagination_page": 1, "pagination_total": 1, "pagination_per_page": 20, "pagination_item": "aggregates"});
    assert_eq!(found, expected);
    for wrong in [("pagination", "0"), ("pagination", "501"), ("sortBy", "x"), ("cursor", "?"), ("page", "999999999")] {
        assert_eq!(ask(&node, &[], &[wrong]).0, 422, "{wrong:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Cursors visit every aggregate once, in the order of the pages.
    #[test]
    fn cursors_miss_nothing(
        elements in proptest::collection::vec((0_usize..3, 0_usize..3, 0_u32..3), 1..12),
        page in 1_u64..4, descending: bool, filtered in 0_usize..3,
    ) {
        let mut node = node();
        for (owner, key, time) in elements {
            submit(&mut node, ["0xA", "0xB", "0xC"][owner], ["k", "l", "m"][key], f64::from(time), &json!({}));
        }
        let order = if descending { "-1" } else { "1" };
        let filter = [("x", ""), ("keys", "k,m"), ("addresses", "0xA,0xC")][filtered];
        let list = |found: &Value| found["aggregates"].as_array().expect("a list").clone();
        let whole = list(&ask(&node, &[], &[filter, ("sortOrder", order), ("pagination", "500")]).1);
        let (mut visited, mut cursor) = (Vec::new(), String::new());
        loop {
            let length = page.to_string();
            let (status, found) = ask(&node, &[], &[filter, ("sortOrder", order), ("pagination", &length), ("cursor", &cursor)]);
            prop_assert_eq!(status, 200);
            visited.extend(list(&found));
            match found["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        prop_assert_eq!(visited, whole);
    }
}

/// Clients read in the manifest what they can ask for: it must be what is kept.
#[test]
fn the_manifest_tells_the_bounds() {
    let manifest: Value = serde_json::from_str(include_str!("../../manifest.json")).expect("JSON");
    let told = |operation: &Value, name: &str| {
        let query = operation["query"].as_array().expect("a list");
        query.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}"))["schema"].clone()
    };
    let [of_owner, listing] = manifest["operations"].as_array().expect("a list").as_slice() else { panic!("two") };
    assert_eq!(told(of_owner, "keys")["maxItems"], super::MAX_NAMES);
    assert_eq!(told(listing, "addresses")["maxItems"], super::MAX_NAMES);
    assert_eq!(told(listing, "pagination")["maximum"], super::MAX_PAGE);
    let most = super::MAX_PAGE + 1;
    let node = node();
    assert_eq!(ask(&node, &[], &[("pagination", &most.to_string())]).0, 422);
    for word in told(listing, "sortBy")["enum"].as_array().expect("a list") {
        let word = word.as_str().expect("a word");
        assert_eq!(ask(&node, &[], &[("sortBy", word)]).0, 200, "{word}");
    }
}
