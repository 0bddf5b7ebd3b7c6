//! `GET /crns.json`: the linked compute nodes and what each says of itself, in the form of the network's list (clients spec, section 3).
//!
//! Clients choose from it where an instance runs. A node is asked at most every half minute, whoever asks here; what it says is passed on only in the form
//! that clients parse, because some of them drop the whole list for one entry that they cannot read.

use super::{
    ApiResult, State,
    parameters::{Flag, Parameter, Parameters},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::{
    config::{Config, Crn},
    dev,
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use moka::future::Cache;
use reqwest::{Client, redirect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// How long it is believed what a node said, or that it said nothing.
const BELIEVED_FOR: Duration = Duration::from_secs(30);
/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Longest answer of a node.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Nodes that are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// Nodes whose answers are kept; more are asked again sooner.
const MAX_KEPT: u64 = 10_000;
/// What a node of the network calls itself before its version.
const SERVER: &str = "aleph-vm/";

/// Who asks the nodes.
#[derive(Debug)]
pub(super) struct Crns {
    /// None where TLS cannot be set up.
    client: OnceLock<Option<Client>>,
    said: Cache<String, Arc<Said>>,
}

/// What a node says of itself.
#[derive(Debug, Default)]
struct Said {
    version: Option<String>,
    usage: Option<Usage>,
    config: Option<NodeConfig>,
    ipv6: Option<BTreeMap<String, bool>>,
}

/// `GET /about/usage/system`, as far as clients read it.
#[derive(Debug, Serialize, Deserialize)]
struct Usage {
    cpu: Cpu,
    mem: Amount,
    disk: Amount,
    period: Value,
    properties: Properties,
    #[serde(default)]
    gpu: Gpus,
    active: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cpu {
    count: u32,
    load_average: Load,
    core_frequencies: Frequencies,
}

#[derive(Debug, Serialize, Deserialize)]
struct Load {
    load1: f64,
    load5: f64,
    load15: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Frequencies {
    min: f64,
    max: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "the names of the API")]
struct Amount {
    total_kB: u64,
    available_kB: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Properties {
    cpu: Processor,
}

#[derive(Debug, Serialize, Deserialize)]
struct Processor {
    architecture: String,
    vendor: String,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Gpus {
    #[serde(default)]
    devices: Vec<Gpu>,
    #[serde(default)]
    available_devices: Vec<Gpu>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Gpu {
    vendor: String,
    model: String,
    device_name: String,
    device_class: String,
    pci_host: String,
    device_id: String,
    #[serde(default)]
    compatible: bool,
}

/// `GET /status/config`, as far as it is passed on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeConfig {
    version: Option<String>,
    payment: Payment,
    computing: Computing,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Payment {
    payment_receiver_address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
struct Computing {
    enable_qemu_support: bool,
    enable_confidential_computing: bool,
    enable_gpu_support: bool,
}

impl Crns {
    pub(super) fn new() -> Self {
        let said = Cache::builder().max_capacity(MAX_KEPT).time_to_live(BELIEVED_FOR).build();
        Self { client: OnceLock::new(), said }
    }

    /// What a node says, or said not long ago. Several who ask at once wait for one answer.
    async fn said(&self, url: &str) -> Arc<Said> {
        let ask = async { Arc::new(self.ask(url).await) };
        self.said.get_with_by_ref(url, ask).await
    }

    async fn ask(&self, url: &str) -> Said {
        let Some(client) = self.client.get_or_init(client).as_ref() else { return Said::default() };
        let (usage, config, ipv6) = tokio::join!(
            get::<Usage>(client, url, "/about/usage/system"),
            get::<NodeConfig>(client, url, "/status/config"),
            get::<BTreeMap<String, bool>>(client, url, "/status/check/ipv6"),
        );
        let version = usage.1.or(config.1).or_else(|| config.0.as_ref()?.version.clone());
        // Clients refuse a machine without a processor.
        let usage = usage.0.filter(|usage| usage.cpu.count > 0);
        Said { version, usage, config: config.0, ipv6: ipv6.0 }
    }
}

fn client() -> Option<Client> {
    // Another part of the process may have chosen one; then that is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || Client::builder().timeout(ANSWER_WITHIN).redirect(redirect::Policy::none());
    // A host without certificates reaches those that speak plain HTTP.
    let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    client.inspect_err(|error| tracing::warn!("compute nodes are not asked how they are: {error}")).ok()
}

/// An answer in that form, and the version that its head tells. A node that does not answer is seen in the list, and is no event.
async fn get<T: serde::de::DeserializeOwned>(client: &Client, url: &str, path: &str) -> (Option<T>, Option<String>) {
    let Ok(mut answer) = client.get(format!("{url}{path}")).send().await else { return (None, None) };
    let server = answer.headers().get(reqwest::header::SERVER).and_then(|server| server.to_str().ok());
    let version = server.and_then(|server| server.strip_prefix(SERVER)).map(str::to_owned);
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return (None, version);
        }
        body.extend_from_slice(&chunk);
    }
    (serde_json::from_slice(&body).ok(), version)
}

/// A node as the list shows it.
fn entry(config: &Config, crn: &Crn, said: &Said) -> Value {
    let treasury = config.network.credit_treasury.first().filter(|_| config.dev);
    let owner = crn.owner.as_ref().or(treasury);
    let computing = said.config.as_ref().map(|config| &config.computing);
    let gpus = said.usage.as_ref().map(|usage| &usage.gpu);
    let compatible = |devices: &[Gpu]| devices.iter().filter(|gpu| gpu.compatible).cloned().collect::<Vec<Gpu>>();
    json!({
        "hash": crn.hash,
        "name": crn.name,
        "address": crn.url,
        "owner": owner.map_or("", String::as_str),
        "reward": owner.map_or("", String::as_str),
        "parent": config.dev.then(|| dev::node_hash(&config.network)),
        "status": "linked",
        "score": if said.usage.is_some() { 1.0 } else { 0.0 },
        "version": said.version,
        "payment_receiver_address": said.config.as_ref().and_then(|config| config.payment.payment_receiver_address.as_ref()),
        "qemu_support": computing.is_some_and(|computing| computing.enable_qemu_support),
        "confidential_support": computing.is_some_and(|computing| computing.enable_confidential_computing),
        "gpu_support": computing.is_some_and(|computing| computing.enable_gpu_support),
        "terms_and_conditions": null,
        "compatible_gpus": gpus.map_or_else(Vec::new, |gpus| compatible(&gpus.devices)),
        "compatible_available_gpus": gpus.map_or_else(Vec::new, |gpus| compatible(&gpus.available_devices)),
        "ipv6_check": said.ipv6,
        "system_usage": said.usage,
    })
}

static ACTIVE_ALONE: Parameter<Flag> =
    Parameter::flag(&["filter_inactive"], "Whether to leave out nodes that do not say that they take workloads.");

pub(super) fn routes(routes: Routes) -> Routes {
    let (text, gpus) = (|| Shape::text().or_null(), || Shape::list(Shape::any_object()));
    let crn = Shape::object([
        ("hash", Shape::text()),
        ("name", Shape::text()),
        ("address", Shape::text().about("Its URL.")),
        ("owner", Shape::text()),
        ("reward", Shape::text()),
        ("parent", text()),
        ("status", Shape::text()),
        ("score", Shape::number()),
        ("version", text()),
        ("payment_receiver_address", text()),
        ("qemu_support", Shape::flag()),
        ("confidential_support", Shape::flag()),
        ("gpu_support", Shape::flag()),
        ("terms_and_conditions", text()),
        ("compatible_gpus", gpus()),
        ("compatible_available_gpus", gpus()),
        ("ipv6_check", Shape::map(Shape::flag()).or_null()),
        (
            "system_usage",
            Shape::any_object().or_null().about("What it says of its use; null for one that says nothing."),
        ),
    ]);
    let operation = Operation::new(Group::Compute, "The linked compute nodes, and what each says of itself")
        .query([&ACTIVE_ALONE])
        .answers("The nodes.", &Shape::object([("crns", Shape::list(crn))]));
    routes.get("/crns.json", list, operation)
}

async fn list(state: State, parameters: Parameters) -> ApiResult<Response> {
    let active_alone = ACTIVE_ALONE.read(&parameters)?;
    let config = &state.service.config;
    let asked = stream::iter(config.crns.clone()).map(|crn| {
        let state = state.0.clone();
        async move {
            let said = state.crns.said(&crn.url).await;
            (crn, said)
        }
    });
    let answers: Vec<(Crn, Arc<Said>)> = asked.buffered(ASKED_AT_ONCE).collect().await;
    let shown =
        answers.iter().filter(|(_, said)| !active_alone || said.usage.as_ref().is_some_and(|usage| usage.active));
    let crns: Vec<Value> = shown.map(|(crn, said)| entry(config, crn, said)).collect();
    Ok(Json(json!({"crns": crns})).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Server;
    use axum::{Router, routing};

    /// A compute node that says this of itself.
    async fn node(usage: Value, config: Value) -> Server {
        let answer = |value: Value| routing::get(async move || ([("server", "aleph-vm/1.2.3")], Json(value)));
        let router = Router::new().route("/about/usage/system", answer(usage)).route("/status/config", answer(config));
        Server::listen("127.0.0.1:0".parse().expect("an address"), router, 8).await.expect("a server")
    }

    fn usage(count: u32) -> Value {
        let gpu = |compatible: bool| {
            json!({"vendor": "NVIDIA", "model": "H100", "device_name": "GH100", "device_class": "0302", "pci_host": "01:00.0",
                "device_id": "10de:2331", "compatible": compatible})
        };
        json!({
            "cpu": {"count": count, "load_average": {"load1": 0.5, "load5": 0, "load15": 0}, "core_frequencies": {"min": 1, "max": 2}},
            "mem": {"total_kB": 2, "available_kB": 1}, "disk": {"total_kB": 4, "available_kB": 3},
            "period": {"start_timestamp": "2026-09-01T00:00:00+00:00", "duration_seconds": 60},
            "properties": {"cpu": {"architecture": "x86_64", "vendor": "AuthenticAMD", "features": ["sev"]}},
            "gpu": {"devices": [gpu(true), gpu(false)], "available_devices": [gpu(true)]}, "active": true, "more": "is left out",
        })
    }

    async fn entry_of(config: &Config, url: String) -> Value {
        let crn = Crn { hash: "h".into(), name: "n".into(), url, owner: Some("0xA".into()) };
        entry(config, &crn, &*Crns::new().said(&crn.url).await)
    }

    #[tokio::test]
    async fn what_a_node_says_is_shown_as_far_as_clients_read_it() {
        let config = json!({"version": "9", "payment": {"PAYMENT_RECEIVER_ADDRESS": "0xB"}, "computing": {"ENABLE_QEMU_SUPPORT": true}});
        let good = node(usage(4), config).await;
        let shown = entry_of(&Config::default(), format!("http://{}", good.address())).await;
        assert_eq!((&shown["version"], &shown["payment_receiver_address"]), (&json!("1.2.3"), &json!("0xB")));
        assert_eq!((&shown["qemu_support"], &shown["gpu_support"]), (&json!(true), &json!(false)));
        assert_eq!((&shown["owner"], &shown["reward"], &shown["parent"]), (&json!("0xA"), &json!("0xA"), &Value::Null));
        assert_eq!((&shown["system_usage"]["cpu"]["count"], &shown["score"]), (&json!(4), &json!(1.0)));
        assert_eq!(shown["system_usage"]["more"], Value::Null);
        assert_eq!(shown["compatible_gpus"].as_array().map(Vec::len), Some(1));
        assert_eq!(shown["compatible_available_gpus"][0]["device_id"], "10de:2331");
        // That one has no such check.
        assert_eq!(shown["ipv6_check"], Value::Null);
        good.stop().await;
    }

    #[tokio::test]
    async fn what_clients_cannot_read_is_left_out() {
        for said in [json!([]), usage(0), json!({"cpu": {"count": "many"}}), json!("x".repeat(MAX_ANSWER_BYTES))] {
            let bad = node(said, json!({"version": 1})).await;
            let shown = entry_of(&Config::default(), format!("http://{}", bad.address())).await;
            assert_eq!((&shown["system_usage"], &shown["score"]), (&Value::Null, &json!(0.0)));
            assert_eq!((&shown["qemu_support"], &shown["compatible_available_gpus"]), (&json!(false), &json!([])));
            bad.stop().await;
        }
        let gone = entry_of(&Config::default(), "http://127.0.0.1:9".into()).await;
        assert_eq!((&gone["version"], &gone["address"]), (&Value::Null, &json!("http://127.0.0.1:9")));
    }
}
