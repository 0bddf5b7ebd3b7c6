//! The interface as a client sees it: a real node in a temporary folder, with the real plugins, over HTTP.
//!
//! One node serves all tests of a process; each test has accounts of its own, named after it.

mod authorizations;
mod credits;
mod listing;
mod lists;
mod live;
mod messages;
mod reference;
mod removal;
mod storage;
mod workloads;

use crate::{
    config::{Config, Crn},
    node::Node,
};
use ccn_message::{
    Envelope, ItemHash,
    sign::{Account, Draft, to_json},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// 2026-09-01, as in the shared fixtures.
const TIME: f64 = 1_788_220_800.0;
/// The hash under which the node's one compute node is registered.
const CRN: &str = "the compute node";

struct TestNode {
    url: String,
    _node: Node,
    _folder: TempDir,
    _runtime: Runtime,
}

/// Started on a thread of its own: tests run inside another runtime.
static NODE: LazyLock<TestNode> =
    LazyLock::new(|| std::thread::spawn(TestNode::start).join().expect("the node starts"));

/// The key of a name: the same in every run, and nobody else's.
fn account(name: &str) -> Account {
    let hash = ItemHash::sha256_of(format!("tests of the interface: {name}").as_bytes());
    Account::ethereum(*hash.sha256().expect("a sha256")).expect("a key")
}

impl TestNode {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::new().expect("a runtime");
        let data = folder.path().to_owned();
        let node = runtime.block_on(async move {
            let mut config = Config { data_dir: data.clone(), ..Config::default() };
            config.network.name = "test".into();
            config.network.credit_treasury = vec![account("treasury").address().to_owned()];
            config.network.balance_publishers = vec![account("publisher").address().to_owned()];
            config.pipeline.horizon_seconds = 1;
            config.limits.unsigned_upload_mib = 1;
            config.limits.storage_upload_mib = 2;
            config.limits.ipfs_upload_mib = 2;
            config.limits.car_upload_mib = 2;
            config.crns =
                vec![Crn { hash: CRN.into(), name: "one".into(), url: "http://127.0.0.1:9".into(), owner: None }];
            let plugins = config.plugin_folder();
            std::fs::create_dir_all(&plugins).expect("a folder");
            std::fs::write(plugins.join("note.wasm"), note_plugin()).expect("a plugin");
            config.listen = "127.0.0.1:0".parse().expect("an address");
            Node::start(config).await.expect("a node")
        });
        Self { url: format!("http://{}", node.address()), _node: node, _folder: folder, _runtime: runtime }
    }
}

/// A plugin of somebody else's: that of POST under another name, for messages of the type NOTE. Only its manifest differs, in words of equal length.
fn note_plugin() -> Vec<u8> {
    let post = plugin_bundle::BUNDLE.iter().find(|plugin| plugin.name == "post").expect("it is bundled");
    let mut bytes = post.bytes.to_vec();
    let changes = [
        ("\"name\": \"post\"", "\"name\": \"note\""),
        ("\"own\": \"post\"", "\"own\": \"note\""),
        ("[\"POST\"]", "[\"NOTE\"]"),
        ("[\"ledger\"]", "[        ]"),
        ("/api/v0/posts", "/api/v0/notes"),
        ("/api/v1/posts", "/api/v1/notes"),
        ("/api/v0/core/", "/api/v9/core/"),
        ("/api/v0/compute/", "/api/v9/compute/"),
    ];
    let manifest = bytes.windows(14).rposition(|window| window == b"aleph:manifest").expect("a manifest");
    for (from, to) in changes {
        assert_eq!(from.len(), to.len());
        let mut found = 0;
        for place in manifest..bytes.len() - from.len() {
            if bytes[place..].starts_with(from.as_bytes()) {
                bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
                found += 1;
            }
        }
        assert!(found > 0, "{from}");
    }
    bytes
}

/// An answer: status, headers and body.
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// An error with that status whose sentence has these words.
    fn refused(&self, status: u16, words: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let body = self.json();
        let sentence = body["error"].as_str().unwrap_or_else(|| panic!("{body}"));
        assert!(sentence.contains(words), "{sentence:?} should say {words:?}");
        body
    }
}

/// Sends a request. Whatever is asked, the answer must be one that the reference tells of.
async fn send(request: reqwest::RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let (method, path) = (request.method().as_str().to_lowercase(), request.url().path().to_owned());
    let response = client.execute(request).await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let answer = Answer { status, headers, body: response.bytes().await.expect("a body").to_vec() };
    reference::check(&method, &path, &answer).await;
    answer
}

fn client() -> reqwest::Client {
    // The node sets the provider of TLS, which a client needs even without it.
    let _ = &NODE.url;
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client")
}

async fn get(path: &str) -> Answer {
    send(client().get(format!("{}{path}", NODE.url))).await
}

async fn get_json(path: &str) -> Value {
    let answer = get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

async fn post(path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = client().post(format!("{}{path}", NODE.url)).header("content-type", content_type);
    send(request.body(body.into())).await
}

async fn post_json(path: &str, body: &Value) -> Answer {
    post(path, "application/json", body.to_string()).await
}

/// Sends a message and waits for its verdict.
async fn submit(envelope: &Envelope) -> Answer {
    let message: Value = serde_json::from_str(&to_json(envelope)).expect("JSON");
    post_json("/api/v0/messages", &json!({"sync": true, "message": message})).await
}

/// Sends a message that must be processed; returns its hash.
async fn processed(envelope: &Envelope) -> String {
    let answer = submit(envelope).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["message_status"], "processed");
    envelope.item_hash.to_string()
}

/// A draft of that type; each has a time of its own, later ones later.
fn draft(kind: &str, content: &Value) -> Draft {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let place = MADE.fetch_add(1, Ordering::Relaxed);
    Draft::new(kind, &content.to_string()).time(TIME + place as f64).channel("TEST")
}

fn post_of(account: &Account, content: &Value) -> Envelope {
    draft("POST", &json!({"type": "note", "content": content})).sign(account)
}

/// Credits for an account, as the network gives them.
async fn fund(account: &Account, amount: u64) {
    let credits =
        [json!({"address": account.address(), "amount": amount, "price": "1", "tx_hash": "0x1", "provider": "TEST"})];
    let content = json!({"type": "aleph_credit_distribution",
        "content": {"distribution": {"token": "TEST", "chain": "ETH", "credits": credits}}});
    processed(&draft("POST", &content).channel("ALEPH_CREDIT").sign(&self::account("treasury"))).await;
}

/// The fields of an object, no more and no less.
fn assert_fields(object: &Value, fields: &[&str]) {
    let found: BTreeSet<&str> =
        object.as_object().unwrap_or_else(|| panic!("{object}")).keys().map(String::as_str).collect();
    assert_eq!(found, fields.iter().copied().collect(), "{object}");
}

/// The fields of a message, as Python clients know them.
const MESSAGE: [&str; 11] = [
    "sender",
    "chain",
    "signature",
    "type",
    "channel",
    "time",
    "item_type",
    "item_content",
    "item_hash",
    "content",
    "confirmed",
];

#[tokio::test]
async fn the_node_says_what_it_is() {
    for path in ["/version", "/api/v0/version"] {
        assert_eq!(get_json(path).await, json!({"version": env!("CARGO_PKG_VERSION")}));
    }
    let plugins = get_json("/api/v0/plugins").await;
    let names: Vec<&str> =
        plugins["plugins"].as_array().expect("a list").iter().filter_map(|plugin| plugin["name"].as_str()).collect();
    for name in ["aggregate", "post", "program", "store"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(get_json("/api/v0/info/public.json").await, json!({"node_multi_addresses": []}));
    let page = get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.text().contains("Core channel node"));
}

#[tokio::test]
async fn what_is_not_here_says_so() {
    get("/api/v0/nothing").await.refused(404, "no such path: /api/v0/nothing");
    post_json("/api/v0/nothing", &json!({})).await.refused(404, "no such path");
    get("/api/v0/price/estimate").await.refused(405, "GET is not possible here");
    post_json("/api/v0/messages.json", &json!({})).await.refused(405, "POST is not possible here");
    get("/api/v0/storage/add_file").await.refused(405, "GET is not possible here");
    get("/api/v0/messages/%ff/status").await.refused(400, "Invalid URL");
    get("/ipfs/x?format=car&format=car").await.refused(400, "not an item hash");
    get("/api/ws0/messages").await.refused(400, "Connection");
}

#[tokio::test]
async fn browsers_may_call_from_anywhere() {
    let request = client().request(reqwest::Method::OPTIONS, format!("{}/api/v0/messages", NODE.url));
    let request = request
        .header("origin", "https://example.org")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-anything");
    let answer = send(request).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "*"));
    assert_eq!(answer.header("access-control-allow-headers"), "*");
    let answer = send(client().get(format!("{}/version", NODE.url)).header("origin", "https://example.org")).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}
