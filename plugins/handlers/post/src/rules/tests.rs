use super::*;
use crate::Post;
use plugin_sdk::simulation::{Simulation, Standing, message};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{fs, path::Path};

const NAMESPACE: &str = "post";

fn post_of(owner: &str, time: f64, more: &Value) -> Message {
    let mut content = json!({"address": owner, "time": time, "type": "blog", "content": {"body": "first"}});
    content.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    message("POST", &content.to_string()).expect("a message")
}

fn amend_of(original: &str, owner: &str, time: f64, body: &str) -> Message {
    post_of(owner, time, &json!({"type": "amend", "ref": original, "content": {"body": body}}))
}

fn node() -> Simulation<Post> {
    Simulation::new(NAMESPACE)
}

/// The amend that is shown.
fn shown(node: &Simulation<Post>, original: &str) -> Option<String> {
    Record::find(original, &node.view).expect("a post").amend().cloned()
}

#[test]
fn the_schema_is_checked() {
    let check = |content: &str, expect: Option<i32>| {
        let message = message("POST", &format!(r#"{{"address":"0xA","time":1{content}}}"#)).expect("a message");
        assert_eq!(validate(&message).err().map(|rejection| rejection.code), expect, "{content}");
    };
    check(r#","type":"x""#, None);
    check(r#","type":"x","content":[1,null]"#, None);
    check(r#","type":"x","ref":"free text""#, None);
    check(r#","content":{}"#, Some(0));
    check(r#","type":"x","extra":1"#, Some(0));
    check(r#","type":"amend""#, Some(0));
    check(r#","type":"amend","ref":"""#, Some(0));
    check(r#","type":"x","content":{"tags":["a",5]}"#, Some(0));
}

#[test]
fn labels_and_subjects_say_what_a_post_is() {
    let plan = |message: &Message| {
        let plan = validate(message).expect("valid");
        let labels = plan.labels.into_iter().map(|label| (label.name, label.value)).collect::<Vec<_>>();
        (plan.subjects, labels)
    };
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let tagged = post_of("0xA", 1.0, &json!({"ref": "r", "content": {"tags": ["a", "b"]}}));
    let expected = vec![label("content-type", "blog"), label("content-ref", "r"), label("tag", "a"), label("tag", "b")];
    assert_eq!(plan(&tagged), (vec![Subject::ThisMessage], expected));
    let amend = amend_of(&tagged.item_hash, "0xA", 2.0, "x");
    let expected = vec![label("content-type", "amend"), label("content-ref", &tagged.item_hash)];
    assert_eq!(plan(&amend), (vec![Subject::OtherMessage(tagged.item_hash.clone())], expected));
    assert_eq!(plan(&amend_of("no hash", "0xA", 2.0, "x")).0, [Subject::ThisMessage]);
}

#[test]
fn amends_wait_for_what_they_amend() {
    let mut node = node();
    let original = post_of("0xA", 1.0, &json!({}));
    let amend = amend_of(&original.item_hash, "0xA", 2.0, "second");
    assert_eq!(node.submit(&amend), Standing::Waiting(101));
    let Outcome::Waiting(wait) = process(&amend, &node.view) else { panic!("it waits") };
    assert_eq!(wait.missing, [Need::Message(original.item_hash.clone())]);
    assert_eq!(node.submit(&original), Standing::Processed);
    assert_eq!(node.standing(&amend.item_hash), Some(Standing::Processed));
    assert_eq!(shown(&node, &original.item_hash), Some(amend.item_hash));
}

#[test]
fn amends_that_can_never_be_are_refused() {
    let mut node = node();
    let original = post_of("0xA", 1.0, &json!({}));
    let amend = amend_of(&original.item_hash, "0xA", 2.0, "second");
    node.submit(&original);
    node.submit(&amend);
    assert_eq!(node.submit(&amend_of(&amend.item_hash, "0xA", 3.0, "x")), Standing::Rejected(102));
    assert_eq!(node.submit(&amend_of("no hash", "0xA", 3.0, "x")), Standing::Rejected(101));
    assert_eq!(node.submit(&amend_of(&original.item_hash, "0xB", 3.0, "x")), Standing::Rejected(2));
    assert_eq!(node.submit(&amend_of(&original.item_hash, "0xa", 3.0, "x")), Standing::Rejected(2), "case counts");
    let mut aggregate = node.view.messages[&original.item_hash].clone();
    aggregate.message.kind = "AGGREGATE".into();
    let hash = ItemHash::sha256_of(b"an aggregate").to_string();
    node.view.messages.insert(hash.clone(), aggregate);
    assert_eq!(node.submit(&amend_of(&hash, "0xA", 3.0, "x")), Standing::Rejected(101));
}

/// A post may have megabytes: whoever amends it looks at its record.
#[test]
fn a_post_that_stands_is_not_read_by_its_amends() {
    let mut node = node();
    let original = post_of("0xA", 1.0, &json!({}));
    node.submit(&original);
    node.view.messages.get_mut(&original.item_hash).expect("it stands").message.content = b"not to be read".to_vec();
    assert_eq!(node.submit(&amend_of(&original.item_hash, "0xB", 2.0, "x")), Standing::Rejected(2));
    assert_eq!(node.submit(&amend_of(&original.item_hash, "0xA", 2.0, "x")), Standing::Processed);
}

#[test]
fn the_newest_amend_is_shown() {
    let mut node = node();
    let original = post_of("0xA", 5.0, &json!({}));
    let (early, newer) =
        (amend_of(&original.item_hash, "0xA", 6.0, "a"), amend_of(&original.item_hash, "0xA", 8.0, "b"));
    let before = amend_of(&original.item_hash, "0xA", 5.0, "not newer than the original");
    for message in [&original, &newer, &early, &before] {
        assert_eq!(node.submit(message), Standing::Processed);
    }
    assert_eq!(shown(&node, &original.item_hash), Some(newer.item_hash));
}

/// The legacy form of a reference is a whole message header.
#[test]
fn a_header_as_reference_stands_for_its_hash() {
    let mut node = node();
    let original = post_of("0xA", 1.0, &json!({}));
    node.submit(&original);
    let header = json!({"chain": "ETH", "item_hash": original.item_hash, "item_type": "inline", "item_content": "{}",
        "sender": "0xA", "signature": "0x", "time": 1, "type": "POST"});
    let amend = post_of("0xA", 2.0, &json!({"type": "amend", "ref": header}));
    assert_eq!(node.submit(&amend), Standing::Processed);
    assert_eq!(shown(&node, &original.item_hash), Some(amend.item_hash));
}

/// An amend moves a post in the listings: it is in each of them once.
#[test]
fn listings_have_no_traces_of_what_was() {
    let mut node = node();
    let original = post_of("0xA", 1.0, &json!({"content": {"tags": ["old", "kept"]}, "ref": "r"}));
    let amend =
        post_of("0xA", 2.0, &json!({"type": "amend", "ref": original.item_hash, "content": {"tags": ["kept", "new"]}}));
    node.submit(&original);
    let rows = |node: &Simulation<Post>| node.view.state.len();
    let before = rows(&node);
    node.submit(&amend);
    assert_eq!(rows(&node), before + 1, "the amend's own row; a tag went and another came");
    let count = |value: &str| state::Property::Tag.count(value, &node.view);
    assert_eq!((count("old"), count("kept"), count("new")), (0, 1, 1));
}

/// Fixtures of the shared set: posts and amends, in the order given and backwards.
#[test]
fn the_shared_posts_are_judged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/fixtures");
    let read = |name: &str| -> Value {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        serde_json::from_str(&text).expect("a fixture is JSON")
    };
    let index = read("signed/index.json");
    let (mut cases, mut checked) = (Vec::new(), 0);
    for entry in index.as_array().expect("a list") {
        let fixture = read(&format!("signed/{}.json", entry["name"].as_str().expect("a name")));
        let envelope = &fixture["message"];
        let Some(content) = envelope["item_content"].as_str() else { continue };
        // Forms, signatures and permissions are judged elsewhere.
        let code = fixture["expect"]["error_code"].as_i64();
        if envelope["type"] != "POST" || matches!(code, Some(1 | 2)) {
            continue;
        }
        let Ok(message) = message("POST", content) else { continue };
        if envelope["item_hash"] == message.item_hash.as_str() {
            cases.push((entry["name"].to_string(), message, code));
        }
    }
    for backwards in [false, true] {
        let mut node = node();
        if backwards {
            cases.reverse();
        }
        for (_, message, _) in &cases {
            node.submit(message);
        }
        for (name, message, code) in &cases {
            let expected = match code {
                None => Standing::Processed,
                Some(101) => Standing::Waiting(101),
                Some(0) if validate(message).is_ok() => continue,
                Some(code) => Standing::Rejected(i32::try_from(*code).expect("a code")),
            };
            assert_eq!(node.standing(&message.item_hash), Some(expected), "{name}");
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever comes first, goes and comes back, the state is the same, and the newest amend by (time, hash) is shown.
    #[test]
    fn the_order_of_arrival_is_forgotten(
        posts in proptest::collection::vec((0_usize..2, 0_u32..4, proptest::collection::vec("[ab]", 0..3)), 1..9),
    ) {
        let originals = [post_of("0xA", 1.0, &json!({})), post_of("0xA", 2.0, &json!({"ref": "r"}))];
        let mut messages = originals.to_vec();
        messages.extend(posts.iter().map(|(original, time, tags)| {
            let more = json!({"type": "amend", "ref": originals[*original].item_hash, "content": {"tags": tags}});
            post_of("0xA", f64::from(*time), &more)
        }));
        messages.sort_by(|a, b| a.item_hash.cmp(&b.item_hash));
        messages.dedup_by(|a, b| a.item_hash == b.item_hash);
        let found = node().every_order(&messages, |node| {
            assert!(messages.iter().all(|message| node.standing(&message.item_hash) == Some(Standing::Processed)));
        });
        for original in &originals {
            let newest = messages
                .iter()
                .filter(|message| text_of(message).expect("text").contains(&original.item_hash) && message.time > original.time)
                .max_by(|a, b| a.time.total_cmp(&b.time).then_with(|| a.item_hash.cmp(&b.item_hash)));
            prop_assert_eq!(shown(&found, &original.item_hash), newest.map(|amend| amend.item_hash.clone()));
        }
    }

    /// Whatever a stranger writes as content, it is judged and does no harm.
    #[test]
    fn arbitrary_content_does_no_harm(more in ".{0,200}", kind in "amend|balances-update|aleph_credit_transfer|x") {
        if let Ok(message) = message("POST", &format!(r#"{{"address":"0xA","time":1,"type":"{kind}"{more}}}"#)) {
            let _ = validate(&message);
            let _ = node().submit(&message);
        }
    }
}
