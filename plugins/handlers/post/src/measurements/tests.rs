use super::*;
use crate::Post;
use plugin_sdk::{
    Handler as _,
    simulation::{Simulation, message},
};

const PROBER: &str = "0xP";

fn node() -> Simulation<Post> {
    let mut node = Simulation::new("post");
    let settings = [(PROBERS, "0xO, 0xP"), (CHANNEL, "aleph-scoring")];
    node.view.settings.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    node
}

fn measured(address: &str, channel: &str, time: f64, metrics: &Value) -> Message {
    let content =
        json!({"address": address, "time": time, "type": KIND, "content": {"tags": ["mainnet"], "metrics": metrics}});
    let mut message = message("POST", &content.to_string()).expect("a message");
    message.channel = Some(channel.to_owned());
    message
}

fn core(node: &str, at: f64, latency: f64) -> Value {
    json!({"node_id": node, "measured_at": at, "base_latency": latency, "pending_messages": 3, "url": "http://x", "as_name": "AS"})
}

fn ask(node: &Simulation<Post>, kind: &str, name: &str, parameters: &[(&str, &str)]) -> (u16, Value) {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let path = vec![("node_id".to_owned(), name.to_owned())];
    let request = Request { route: format!("/api/v0/{kind}/{{node_id}}/metrics"), path, parameters };
    let response = Post::query(&request, &node.view);
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

#[test]
fn measurements_become_series() {
    let mut node = node();
    let crn = json!({"node_id": "r", "measured_at": 50.0, "full_check_latency": 0.25, "diagnostic_vm_latency": null});
    let first = measured(PROBER, "aleph-scoring", 100.0, &json!({"ccn": [core("n", 90.5, 0.1), core("m", 91.0, 0.2)]}));
    let second = measured("0xO", "aleph-scoring", 200.0, &json!({"ccn": [core("n", 190.0, 0.3)], "crn": [crn]}));
    node.submit(&second);
    node.submit(&first);
    let (status, found) = ask(&node, "core", "n", &[]);
    assert_eq!(status, 200);
    let hashes = json!([first.item_hash, second.item_hash]);
    let expected = json!({"metrics": {
        "item_hash": hashes, "measured_at": [90.5, 190.0], "base_latency": [0.1, 0.3], "base_latency_ipv4": [null, null],
        "metrics_latency": [null, null], "aggregate_latency": [null, null], "file_download_latency": [null, null],
        "pending_messages": [3, 3], "eth_height_remaining": [null, null],
    }});
    assert_eq!(found, expected);
    let names: Vec<&String> = found["metrics"].as_object().expect("an object").keys().collect();
    assert_eq!(names.len(), 9);
    let (_, found) = ask(&node, "core", "n", &[("sort", "DESC"), ("start_date", "90.5"), ("end_date", "190.5")]);
    assert_eq!(found["metrics"]["measured_at"], json!([190.0, 90.5]));
    let (_, found) = ask(&node, "core", "n", &[("end_date", "190")]);
    assert_eq!(found["metrics"]["measured_at"], json!([90.5]));
    let (_, found) = ask(&node, "compute", "r", &[]);
    assert_eq!(found["metrics"]["full_check_latency"], json!([0.25]));
    assert_eq!(found["metrics"].as_object().map(Map::len), Some(6));
    for (kind, name) in [("core", "r"), ("compute", "n"), ("core", "")] {
        assert_eq!(ask(&node, kind, name, &[]).0, 404, "{kind} {name}");
    }
    for wrong in [("sort", "up"), ("start_date", "today"), ("end_date", "-1")] {
        assert_eq!(ask(&node, "core", "n", &[wrong]).0, 422, "{wrong:?}");
    }
    assert_eq!(ask(&node, "core", "n", &[("start_date", "2"), ("end_date", "1")]).0, 422);
    node.forget(&first.item_hash, 300.0);
    assert_eq!(ask(&node, "core", "m", &[]).0, 404);
    assert_eq!(ask(&node, "core", "n", &[]).1["metrics"]["measured_at"], json!([190.0]));
}

#[test]
fn without_dates_it_is_the_last_fourteen_days() {
    let mut node = node();
    for day in 0_u8..30 {
        let at = f64::from(day) * 86_400.0;
        node.submit(&measured(PROBER, "aleph-scoring", at + 1.0, &json!({"ccn": [core("n", at, 0.1)]})));
    }
    let (_, found) = ask(&node, "core", "n", &[]);
    let times = found["metrics"]["measured_at"].as_array().expect("a list");
    assert_eq!((times.len(), &times[0]), (15, &json!(15.0 * 86_400.0)));
}

#[test]
fn others_measure_nothing_and_nonsense_is_passed_over() {
    let mut node = node();
    let metrics = json!({"ccn": [core("n", 1.0, 0.1)]});
    node.submit(&measured("0xX", "aleph-scoring", 1.0, &metrics));
    node.submit(&measured(PROBER, "elsewhere", 2.0, &metrics));
    for (time, metrics) in [
        (3.0, json!([])),
        (4.0, json!({"ccn": 1})),
        (5.0, json!({"ccn": [1, {}, {"node_id": "n"}, {"node_id": "n", "measured_at": -1}]})),
    ] {
        node.submit(&measured(PROBER, "aleph-scoring", time, &metrics));
    }
    assert_eq!(ask(&node, "core", "n", &[]).0, 404);
}
