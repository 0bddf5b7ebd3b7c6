use super::*;
use crate::{Poll, query};
use plugin_sdk::{
    MemoryView, Request,
    message::ItemHash,
    simulation::{Simulation, Standing, message},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn poll_of(owner: &str, time: f64, more: &Value) -> Message {
    let mut content = json!({"address": owner, "time": time});
    content.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    message("POLL", &content.to_string()).expect("a message")
}

fn create(owner: &str, time: f64) -> Message {
    poll_of(owner, time, &json!({"action": "create", "question": "Tea?", "options": ["yes", "no", "later"]}))
}

fn vote(poll: &Message, owner: &str, time: f64, option: usize) -> Message {
    poll_of(owner, time, &json!({"action": "vote", "poll": poll.item_hash, "option": option}))
}

fn close(poll: &Message, owner: &str, time: f64) -> Message {
    poll_of(owner, time, &json!({"action": "close", "poll": poll.item_hash}))
}

fn node() -> Simulation<Poll> {
    Simulation::new("poll")
}

fn ask(view: &MemoryView, route: &str, path: &[(&str, &str)], parameters: &[(&str, &str)]) -> (u16, Value) {
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let request = Request { route: route.into(), path: owned(path), parameters: owned(parameters) };
    let response = query::answer(&request, view);
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

fn results(view: &MemoryView, poll: &Message) -> Vec<u64> {
    let (status, body) = ask(view, "/api/v0/polls/{poll}", &[("poll", &poll.item_hash)], &[]);
    assert_eq!(status, 200, "{body}");
    let votes = |result: &Value| result["votes"].as_u64().expect("a number");
    body["results"].as_array().expect("a list").iter().map(votes).collect()
}

#[test]
fn the_schema_is_checked() {
    let hash = ItemHash::sha256_of(b"a poll").to_string();
    let check = |content: Value, expect: Option<i32>| {
        let found = validate(&poll_of("0xA", 1.0, &content)).err().map(|rejection| rejection.code);
        assert_eq!(found, expect, "{content}");
    };
    check(json!({"action": "create", "question": "?", "options": ["a", "b"]}), None);
    check(json!({"action": "vote", "poll": hash, "option": 49}), None);
    check(json!({"action": "close", "poll": hash}), None);
    check(json!({"action": "open"}), Some(0));
    check(json!({"question": "?", "options": ["a", "b"]}), Some(0));
    check(json!({"action": "create", "question": "?", "options": ["a"]}), Some(0));
    check(json!({"action": "create", "question": "?", "options": vec!["a"; 51]}), Some(0));
    check(json!({"action": "create", "question": "?".repeat(201), "options": ["a", "b"]}), Some(0));
    check(json!({"action": "create", "question": "?", "options": ["a", "b"], "more": 1}), Some(0));
    check(json!({"action": "vote", "poll": "no hash", "option": 0}), Some(0));
    check(json!({"action": "vote", "poll": hash, "option": 50}), Some(0));
    check(json!({"action": "vote", "poll": hash, "option": -1}), Some(0));
    check(json!({"action": "close"}), Some(0));
}

#[test]
fn votes_wait_for_their_poll() {
    let mut node = node();
    let poll = create("0xA", 1.0);
    let early = vote(&poll, "0xB", 2.0, 1);
    assert_eq!(node.submit(&early), Standing::Waiting(UNKNOWN_POLL));
    assert_eq!(node.submit(&poll), Standing::Processed);
    assert_eq!(node.standing(&early.item_hash), Some(Standing::Processed));
    assert_eq!(results(&node.view, &poll), [0, 1, 0]);
}

#[test]
fn what_can_never_be_is_refused() {
    let mut node = node();
    let poll = create("0xA", 1.0);
    let first = vote(&poll, "0xB", 2.0, 0);
    node.submit(&poll);
    node.submit(&first);
    assert_eq!(node.submit(&vote(&poll, "0xB", 3.0, 3)), Standing::Rejected(NO_OPTION));
    assert_eq!(node.submit(&vote(&first, "0xB", 3.0, 0)), Standing::Rejected(NO_POLL));
    assert_eq!(node.submit(&close(&poll, "0xB", 3.0)), Standing::Rejected(2));
    assert_eq!(node.submit(&close(&poll, "0xa", 3.0)), Standing::Processed, "one address, whatever its case");
}

#[test]
fn the_latest_vote_of_an_address_counts_until_the_close() {
    let mut node = node();
    let poll = create("0xA", 1.0);
    let messages = [
        poll.clone(),
        vote(&poll, "0xB", 4.0, 1),
        vote(&poll, "0xb", 3.0, 0),
        vote(&poll, "0xC", 2.0, 2),
        vote(&poll, "0xC", 9.0, 0),
        vote(&poll, "0xD", 9.0, 0),
    ];
    for message in &messages {
        assert_eq!(node.submit(message), Standing::Processed);
    }
    assert_eq!(results(&node.view, &poll), [2, 1, 0]);
    // A close from the past: two votes came after it, and the earlier one of 0xC counts again.
    let late = close(&poll, "0xA", 5.0);
    assert_eq!(node.submit(&late), Standing::Processed);
    assert_eq!(results(&node.view, &poll), [0, 1, 1]);
    // An earlier one still; and a later one changes nothing.
    assert_eq!(node.submit(&close(&poll, "0xA", 3.5)), Standing::Processed);
    assert_eq!(node.submit(&close(&poll, "0xA", 8.0)), Standing::Processed);
    assert_eq!(results(&node.view, &poll), [1, 0, 1]);

    let ask_vote = |address: &str| {
        ask(&node.view, "/api/v0/polls/{poll}/votes/{address}", &[("poll", &poll.item_hash), ("address", address)], &[])
    };
    let (status, body) = ask_vote("0xB");
    assert_eq!((status, &body["option"], &body["text"]), (200, &json!(0), &json!("yes")));
    assert_eq!(ask_vote("0xD").0, 404);
}

#[test]
fn polls_are_listed_newest_first_in_pages() {
    let mut node = node();
    let polls: Vec<Message> = (0..5).map(|time| create("0xA", f64::from(time))).collect();
    for poll in &polls {
        node.submit(poll);
    }
    node.submit(&close(&polls[3], "0xA", 10.0));
    let page = |parameters: &[(&str, &str)]| {
        let (status, body) = ask(&node.view, "/api/v0/polls", &[], parameters);
        assert_eq!(status, 200, "{body}");
        let times = body["polls"].as_array().expect("a list").iter().map(|poll| poll["time"].as_f64().expect("a time"));
        (times.collect::<Vec<_>>(), body)
    };
    let (times, body) = page(&[("pagination", "2")]);
    assert_eq!(
        (times, &body["pagination_total"], &body["polls"][1]["closed"]),
        (vec![4.0, 3.0], &json!(5), &json!(10.0))
    );
    assert_eq!(page(&[("pagination", "2"), ("page", "3")]).0, [0.0]);
    assert_eq!(page(&[("sortOrder", "1")]).0, [0.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(ask(&node.view, "/api/v0/polls", &[], &[("page", "0")]).0, 422);
    assert_eq!(ask(&node.view, "/api/v0/polls/{poll}", &[("poll", "nothing")], &[]).0, 404);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever comes first, and whatever comes and goes in between, the state is that of the messages that stand.
    #[test]
    fn the_state_is_a_function_of_the_set(
        drawn in proptest::collection::vec((0_usize..2, 0_u32..6, 0_usize..3, 0_usize..4), 1..12),
        gone in proptest::collection::vec(any::<bool>(), 14),
    ) {
        let polls = [create("0xA", 1.0), create("0xB", 1.0)];
        let mut messages = polls.to_vec();
        messages.extend(drawn.iter().map(|(poll, time, who, option)| {
            let (poll, time, who) = (&polls[*poll], f64::from(*time), ["0xA", "0xa", "0xB"][*who]);
            if *option == 3 { close(poll, &poll.address, time) } else { vote(poll, who, time, *option) }
        }));
        let mut all = node().every_order(&messages, |_| {});
        let (gone, stay): (Vec<_>, Vec<_>) = messages.iter().zip(gone).partition(|(_, is_gone)| *is_gone);
        let mut some = node();
        for (message, _) in stay {
            some.submit(message);
        }
        for (message, _) in gone {
            all.void(&message.item_hash);
        }
        // The same message may have been drawn twice.
        for message in &messages {
            if some.standing(&message.item_hash).is_some() && all.standing(&message.item_hash).is_none() {
                all.submit(message);
            }
        }
        prop_assert_eq!(all.standings(), some.standings());
        prop_assert_eq!(&all.view.state, &some.view.state);
    }

    /// Whatever a stranger writes, it is judged and does no harm.
    #[test]
    fn arbitrary_content_does_no_harm(more in ".{0,200}", action in "create|vote|close|x") {
        if let Ok(message) = message("POLL", &format!(r#"{{"address":"0xA","time":1,"action":"{action}"{more}}}"#)) {
            let _ = validate(&message);
            let _ = node().submit(&message);
        }
    }
}
