//! What clients look for at fixed addresses: aggregates with prices, settings, images and nodes, and the images themselves.
//!
//! Everything is said once and again when it has changed: what was said last is noted in a file of the data folder. A crash between the two has it said
//! twice, which changes nothing. Aggregates are merged key by key, as everybody's are: what a later start leaves out stays.

use super::{DevError, Keys, node_hash, processed};
use crate::{
    config::{Config, Image, ImageKind},
    files::{Files, NewFile},
    node::Service,
    pipeline::FileKind,
};
use ccn_message::{
    ItemHash,
    sign::{Draft, to_json},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, io, path::Path, time::SystemTime};
use tokio::io::AsyncReadExt as _;

/// Prices as they were on the public network in November 2026, and settings that no compute node is too old for.
const DEFAULTS: &str = include_str!("defaults.json");
/// Where it is noted what was said.
const NOTES_FILE: &str = "dev-said.json";
/// Longest file of aggregates.
const MAX_AGGREGATES_BYTES: u64 = 4 << 20;
/// The channel of these messages.
const CHANNEL: &str = "development";
/// Bytes of an image that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What was said: hashes by what they are of.
type Notes = BTreeMap<String, String>;

/// An aggregate: address, key, content.
type Seed = (String, String, Value);

/// Says what has not been said yet.
pub(super) async fn sow(keys: &Keys, service: &Service) -> Result<(), DevError> {
    let config = &service.config;
    let path = config.data_dir.join(NOTES_FILE);
    let mut notes = read_notes(&path)?;
    let before = notes.clone();
    let mut images = Vec::new();
    for image in &config.development.images {
        images.push((image, store_image(keys, service, image, &mut notes).await?));
    }
    for (address, key, content) in seeds(keys, config, &images)? {
        let hash = ItemHash::sha256_of(content.to_string().as_bytes()).to_string();
        let name = format!("aggregate {address} {key}");
        if notes.get(&name) != Some(&hash) {
            let envelope = vouched(&address, &key, &content, crate::clock::now_ms());
            processed(&format!("the aggregate {key}"), service.pipeline.submit_vouched(envelope).await)?;
            notes.insert(name, hash);
        }
    }
    if notes == before { Ok(()) } else { write_notes(&path, &notes) }
}

/// All aggregates, those of the operator's file over the program's own.
fn seeds(keys: &Keys, config: &Config, images: &[(&Image, String)]) -> Result<Vec<Seed>, DevError> {
    let mut defaults: Map<String, Value> = serde_json::from_str(DEFAULTS).expect("the program's own file is JSON");
    // Nothing is to go to the public network's own wallet.
    defaults["settings"]["community_wallet_address"] = keys.treasury.account.address().into();
    defaults.insert("runtimes".to_owned(), runtimes(images));
    defaults.insert("vm-images".to_owned(), vm_images(images));
    let network = &config.network;
    let mut seeds: BTreeMap<(String, String), Value> =
        defaults.into_iter().map(|(key, content)| ((network.pricing_owner.clone(), key), content)).collect();
    let core_channel = (network.corechannel_owner.clone(), "corechannel".to_owned());
    seeds.insert(core_channel, nodes(keys, config));
    if let Some(path) = &config.development.aggregates {
        for (address, aggregates) in read_aggregates(path)? {
            seeds.extend(aggregates.into_iter().map(|(key, content)| ((address.clone(), key), content.into())));
        }
    }
    Ok(seeds.into_iter().map(|((address, key), content)| (address, key, content)).collect())
}

/// Contents of aggregates by address and key.
type Aggregates = BTreeMap<String, BTreeMap<String, Map<String, Value>>>;

/// The operator's aggregates.
fn read_aggregates(path: &Path) -> Result<Aggregates, DevError> {
    let failed = |reason: String| DevError::File { path: path.to_owned(), reason };
    let size = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_AGGREGATES_BYTES {
        return Err(failed(format!("{size} bytes, and at most {MAX_AGGREGATES_BYTES} are read")));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| {
        failed(format!("aggregates are {{address: {{key: content}}}} with objects as content: {error}"))
    })
}

/// This node and the compute nodes that are linked to it, as the network's registry lists them.
fn nodes(keys: &Keys, config: &Config) -> Value {
    let treasury = keys.treasury.account.address();
    let this = node_hash(&config.network);
    let common = |hash: &str, name: &str, owner: &str| {
        json!({
            "hash": hash, "name": name, "owner": owner, "reward": owner, "stream_reward": owner, "manager": "",
            "time": keys.since, "score": 1.0, "score_updated": true, "decentralization": 1.0, "performance": 1.0,
            "locked": false, "authorized": [], "inactive_since": null, "picture": "", "banner": "", "description": "",
            "registration_url": "", "terms_and_conditions": "",
        })
    };
    let with = |mut node: Value, more: Value| {
        if let (Value::Object(node), Value::Object(more)) = (&mut node, more) {
            node.extend(more);
        }
        node
    };
    let crns: Vec<Value> = config
        .crns
        .iter()
        .map(|crn| {
            let node = common(&crn.hash, &crn.name, crn.owner.as_deref().unwrap_or(treasury));
            with(node, json!({"type": "compute", "address": crn.url, "parent": this, "status": "linked"}))
        })
        .collect();
    let hashes: Vec<&str> = config.crns.iter().map(|crn| crn.hash.as_str()).collect();
    // It does not gossip, and so has no address for that; where it listens may be another place at every start.
    let core = with(
        common(&this, "development node", treasury),
        json!({
            "address": "", "multiaddress": "", "status": "active", "stakers": {}, "total_staked": 0,
            "resource_nodes": hashes, "has_bonus": false,
        }),
    );
    json!({"nodes": [core], "resource_nodes": crns})
}

/// The images of a kind with the hashes of their messages.
fn of_kind<'a>(images: &'a [(&Image, String)], kind: ImageKind) -> impl Iterator<Item = (&'a str, &'a str)> {
    images.iter().filter(move |(image, _)| image.kind == kind).map(|(image, hash)| (image.name.as_str(), hash.as_str()))
}

/// The list of images that the Python client reads.
fn runtimes(images: &[(&Image, String)]) -> Value {
    let kinds = [ImageKind::Program, ImageKind::Instance, ImageKind::Rescue, ImageKind::Firmware];
    let of_kind = |kind: ImageKind| {
        of_kind(images, kind).enumerate().map(move |(place, (name, hash))| {
            json!({"id": name, "name": name, "type": kind, "item_hash": hash, "default": place == 0})
        })
    };
    json!({"entries": kinds.into_iter().flat_map(of_kind).collect::<Vec<Value>>()})
}

/// The list of images that the Rust client reads.
fn vm_images(images: &[(&Image, String)]) -> Value {
    let all = |kind| {
        let entry = |(name, hash): (&str, &str)| (name.to_owned(), json!({"hash": hash, "display_name": name}));
        Value::Object(of_kind(images, kind).map(entry).collect())
    };
    let default = |kind| of_kind(images, kind).next().map(|(name, _)| name);
    json!({
        "rootfs": all(ImageKind::Instance),
        "runtimes": all(ImageKind::Program),
        "firmwares": all(ImageKind::Firmware),
        "defaults": {
            "rootfs": default(ImageKind::Instance),
            "runtime": default(ImageKind::Program),
            "firmware": default(ImageKind::Firmware),
        },
    })
}

/// An aggregate of an address whose key nobody here has.
fn vouched(address: &str, key: &str, content: &Value, now_ms: u64) -> String {
    let time = now_ms as f64 / 1000.0;
    let content = json!({"address": address, "time": time, "key": key, "content": content}).to_string();
    json!({
        "sender": address, "chain": "ETH", "type": "AGGREGATE", "channel": CHANNEL, "time": time, "item_type": "inline",
        "item_hash": ItemHash::sha256_of(content.as_bytes()).to_string(), "item_content": content, "signature": null,
    })
    .to_string()
}

/// The hash of the message that stores an image; the treasury pays for it. A file that was stored before is not read again while it has its size and date.
async fn store_image(keys: &Keys, service: &Service, image: &Image, notes: &mut Notes) -> Result<String, DevError> {
    let failed = |error: io::Error| DevError::File { path: image.file.clone(), reason: error.to_string() };
    let metadata = fs::metadata(&image.file).map_err(failed)?;
    let modified = metadata.modified().map_err(failed)?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = format!("image {} {} {}", image.file.display(), metadata.len(), modified.as_nanos());
    if let Some(hash) = notes.get(&name) {
        return Ok(hash.clone());
    }
    let file = copy(&image.file, &service.files).await.map_err(failed)?;
    let (hash, size) = (file.sha256.clone(), file.size);
    service.files.publish(file, &hash).await.map_err(failed)?;
    service.pipeline.add_file(hash.clone(), size, FileKind::File).await?;
    let now_ms = crate::clock::now_ms();
    let content = json!({"item_type": "storage", "item_hash": hash, "payment": {"chain": "ETH", "type": "credit"}});
    let draft = Draft::new("STORE", &content.to_string()).channel(CHANNEL).time(now_ms as f64 / 1000.0);
    let receipt = service.pipeline.submit(to_json(&draft.sign(&keys.treasury.account))).await;
    let message = processed(&format!("the image {}", image.name), receipt)?;
    notes.insert(name, message.clone());
    Ok(message)
}

async fn copy(path: &Path, files: &Files) -> io::Result<NewFile> {
    let mut source = tokio::fs::File::open(path).await?;
    let mut writer = files.writer().await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match source.read(&mut chunk).await? {
            0 => return writer.finish().await,
            length => writer.write(&chunk[..length]).await?,
        }
    }
}

fn read_notes(path: &Path) -> Result<Notes, DevError> {
    match fs::read(path) {
        // What a power cut leaves of one that was being written: everything is said again.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Notes::new()),
        Err(error) => Err(DevError::File { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn write_notes(path: &Path, notes: &Notes) -> Result<(), DevError> {
    let failed = |error: io::Error| DevError::File { path: path.to_owned(), reason: error.to_string() };
    let text = serde_json::to_vec_pretty(notes).map_err(|error| failed(error.into()))?;
    fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Node;

    /// What somebody without a key reads.
    async fn aggregate(node: &Node, address: &str, key: &str) -> Value {
        let url = format!("http://{}/api/v0/aggregates/{address}.json?keys={key}", node.address());
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        let answer = client.get(url).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{key}: {}", answer.status());
        let answer: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
        answer["data"][key].clone()
    }

    async fn messages(node: &Node) -> Value {
        let url = format!("http://{}/api/v0/messages.json?msgTypes=AGGREGATE", node.address());
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        let answer = client.get(url).send().await.expect("an answer").bytes().await.expect("a body");
        serde_json::from_slice::<Value>(&answer).expect("JSON")["pagination_total"].clone()
    }

    fn config(folder: &Path) -> Config {
        let mut config = Config { data_dir: folder.join("data"), dev: true, ..Config::default() };
        config.listen = "127.0.0.1:0".parse().expect("an address");
        config.crns = vec![crate::config::Crn {
            hash: "c".repeat(64),
            name: "one".into(),
            url: "http://127.0.0.1:9".into(),
            owner: None,
        }];
        config
    }

    #[tokio::test]
    async fn clients_find_what_they_look_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(folder.path());
        let (pricing, core_channel) = (config.network.pricing_owner.clone(), config.network.corechannel_owner.clone());
        let node = Node::start(config.clone()).await.expect("a node");
        let prices = aggregate(&node, &pricing, "pricing").await;
        assert_eq!(prices["program"]["price"]["compute_unit"]["credit"], "11000");
        let settings = aggregate(&node, &pricing, "settings").await;
        let wallet = settings["community_wallet_address"].as_str().expect("a wallet").to_owned();
        assert!(node.lines()[1].starts_with(&format!("treasury {wallet} key 0x")), "{wallet}");
        assert_eq!(node.lines().iter().filter(|line| line.starts_with("account 0x")).count(), 10);
        assert_eq!(aggregate(&node, &pricing, "runtimes").await, json!({"entries": []}));
        let nodes = aggregate(&node, &core_channel, "corechannel").await;
        assert_eq!(nodes["resource_nodes"][0]["address"], "http://127.0.0.1:9");
        assert_eq!(nodes["resource_nodes"][0]["parent"], nodes["nodes"][0]["hash"]);
        assert_eq!(messages(&node).await, 5);
        node.stop().await;

        // Another price, an image and an account of somebody's own come with the next start; the rest is not said again.
        let image = folder.path().join("base.img");
        fs::write(&image, "an image").expect("a file");
        let file = folder.path().join("aggregates.json");
        let storage = json!({"price": {"storage": {"holding": "1", "credit": "2"}}});
        fs::write(&file, json!({&pricing: {"pricing": {"storage": storage}}}).to_string()).expect("a file");
        config.development.aggregates = Some(file.clone());
        config.development.images = vec![Image { name: "base".into(), kind: ImageKind::Program, file: image }];
        config.development.funded = vec!["0xSomebody".into()];
        let node = Node::start(config.clone()).await.expect("a node");
        let prices = aggregate(&node, &pricing, "pricing").await;
        assert_eq!((&prices["storage"], &prices["program"]["compute_unit"]["vcpus"]), (&storage, &json!(1)));
        let entry = aggregate(&node, &pricing, "runtimes").await["entries"][0].clone();
        assert_eq!(
            (&entry["id"], &entry["type"], &entry["default"]),
            (&json!("base"), &json!("program"), &json!(true))
        );
        let images = aggregate(&node, &pricing, "vm-images").await;
        assert_eq!(images["runtimes"]["base"]["hash"], entry["item_hash"]);
        assert_eq!((&images["defaults"]["runtime"], &images["defaults"]["rootfs"]), (&json!("base"), &Value::Null));
        assert_eq!(messages(&node).await, 8);
        let snapshot = node.service().store.snapshot().expect("a snapshot");
        let balance = crate::ledger::balance(&snapshot, "0xSomebody", crate::clock::now_ms()).expect("a balance");
        assert_eq!((balance.credits, balance.chains.len()), (1_000_000_000_000, 1));
        drop(snapshot);
        node.stop().await;

        fs::write(&file, "{\"0xA\": {\"key\": []}}").expect("a file");
        let refusal = Node::start(config).await.expect_err("no aggregates").to_string();
        assert!(refusal.contains("aggregates.json: aggregates are {address: {key: content}}"), "{refusal}");
    }
}
