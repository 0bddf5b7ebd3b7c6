use crate::Store;
use plugin_sdk::{
    FileInfo, FileKind, Handler as _, Request,
    layout::store,
    simulation::{Simulation, message},
};
use serde_json::{Value, json};

const FILE: &str = "5ccdd7bcdf7cc0d9a1f1b6c8a4ed3f4cfbe9b5e6cb5a9d1b0f4e6a7c8d9e0f11";

fn ask(node: &Simulation<Store>, route: &str, path: &[(&str, &str)]) -> (u16, Value) {
    let path = path.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = Request { route: route.to_owned(), path, parameters: vec![] };
    let response = Store::query(&request, &node.view);
    assert_eq!(response.content_type, "application/json");
    (response.status, serde_json::from_slice(&response.body).expect("JSON"))
}

#[test]
fn files_are_found_by_message_and_by_reference() {
    let mut node = Simulation::new(store::NAMESPACE);
    node.view.files.insert(FILE.into(), FileInfo { size: 12, kind: FileKind::File });
    let content = |more: &str| {
        let text = format!(r#"{{"address":"0xA","time":1,"item_type":"storage","item_hash":"{FILE}"{more}}}"#);
        message("STORE", &text).expect("a message")
    };
    let (plain, named) = (content(""), content(r#","ref":"my/file""#));
    node.submit(&plain);
    node.submit(&named);
    let described = |reference: &str| json!({"ref": reference, "owner": "0xA", "file_hash": FILE, "size": 12, "download_url": format!("/api/v0/storage/raw/{FILE}")});
    let by_message = "/api/v0/storage/by-message-hash/{hash}";
    let by_ref = "/api/v0/storage/by-ref/{ref}";
    let by_owner = "/api/v0/storage/by-ref/{address}/{ref}";
    assert_eq!(ask(&node, by_message, &[("hash", &plain.item_hash)]), (200, described(&plain.item_hash)));
    assert_eq!(ask(&node, by_message, &[("hash", &named.item_hash)]), (200, described("my/file")));
    assert_eq!(ask(&node, by_message, &[("hash", FILE)]).0, 404);
    assert_eq!(ask(&node, by_message, &[("hash", "x")]).0, 400);
    assert_eq!(ask(&node, by_ref, &[("ref", &plain.item_hash)]), (200, described(&plain.item_hash)));
    assert_eq!(ask(&node, by_ref, &[("ref", "my/file")]).0, 400);
    assert_eq!(ask(&node, by_owner, &[("address", "0xA"), ("ref", "my/file")]), (200, described("my/file")));
    assert_eq!(ask(&node, by_owner, &[("address", "0xB"), ("ref", "my/file")]).0, 404);
    assert_eq!(
        ask(&node, by_owner, &[("address", "0xB"), ("ref", &plain.item_hash)]),
        (200, described(&plain.item_hash))
    );
}
