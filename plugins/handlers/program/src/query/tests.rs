use crate::Program;
use plugin_sdk::{
    Handler as _, Request, Version,
    layout::machine,
    message::ItemHash,
    simulation::{Simulation, Standing, message},
};
use serde_json::{Value, json};

const ROUTE: &str = "/api/v0/programs/on/message";

fn ask(node: &Simulation<Program>, parameters: &[(&str, &str)]) -> (u16, Value) {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let response = Program::query(&Request { route: ROUTE.into(), path: vec![], parameters }, &node.view);
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

#[test]
fn programs_that_listen_are_listed_while_they_stand() {
    let mut node = Simulation::<Program>::new(machine::PROGRAM);
    let code = ItemHash::sha256_of(b"code").to_string();
    let file = ItemHash::sha256_of(b"code.file").to_string();
    node.view.add_version(Version { item_hash: &code, file: &file, size: 1, time: 1.0, updates: None });
    let program = |time: u32, subscriptions: &Value| {
        let text = json!({
            "address": "0xA", "time": time, "type": "vm-function", "allow_amend": false, "environment": {}, "resources": {},
            "code": {"encoding": "zip", "entrypoint": "main:app", "ref": code}, "runtime": {"ref": code, "comment": ""},
            "on": {"http": true, "message": subscriptions},
        });
        message("PROGRAM", &text.to_string()).expect("a message")
    };
    let (to_one, to_other) = (json!([{"sender": "0xB", "channel": "X"}]), json!([{"type": "POST"}, {"tags": ["a"]}]));
    let too_much = json!([{"content": "x".repeat(17 << 10)}]);
    let (first, second) = (program(1_780_000_000, &to_one), program(1_780_000_001, &to_other));
    for message in [&first, &second, &program(1_780_000_002, &json!([])), &program(1_780_000_003, &too_much)] {
        assert_eq!(node.submit(message), Standing::Processed);
    }
    let shown =
        |hash: &str, subscriptions: &Value| json!({"item_hash": hash, "content": {"on": {"message": subscriptions}}});
    let (one, other) = (shown(&first.item_hash, &to_one), shown(&second.item_hash, &to_other));
    assert_eq!(ask(&node, &[]), (200, json!([other, one])));
    assert_eq!(ask(&node, &[("sort_order", "1")]), (200, json!([one, other])));
    assert_eq!(ask(&node, &[("sort_order", "0")]).0, 400);
    assert_eq!(ask(&node, &[("page", "1")]).0, 400);
    node.forget(&first.item_hash, 1_780_000_100.0);
    assert_eq!(ask(&node, &[]), (200, json!([other])));
}
