//! Files in an object store: a node with OpenStack Swift behind it, which is asked as S3.

use super::letter::{account_with_key, hash_of, message, now, post, publish, upload};
use crate::{
    answer::{expect, expect_json, expect_words, noise, sha256},
    stage::{self, VERDICT_WITHIN, repository, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use ccn_message::{
    ItemHash, ItemType,
    sign::{Account, Draft, to_json},
};
use harness::{
    devnet::CoreNode,
    http::{Answer, Client},
    python::Environment,
    swift::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Swift},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// The bucket of these tests, and where in it the files are.
const BUCKET: &str = "files";
const PREFIX: &str = "of/a-node";
/// Where the store keeps parts of large objects.
const PARTS: &str = "files+segments";
/// Bytes of files: none, one request, some parts of an upload.
const LENGTHS: [usize; 3] = [0, 70_000, 20 << 20];
/// A file that is not kept in memory by anybody.
const LARGE: usize = 3 << 20;
/// How long the node may take to notice that the store is back.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// What a message takes that has nothing to do with files, on a busy machine.
const UNHINDERED: Duration = Duration::from_secs(10);

fn here() -> PathBuf {
    repository().join("tests/ccn/object_store")
}

/// A store with an empty bucket.
fn store(folder: &Path) -> Result<Swift> {
    let environment = Environment::install(&stage::cache()?, "swift", &here().join("requirements.txt"), None)?;
    let folder = folder.join("swift");
    fs::create_dir_all(&folder)?;
    let store = Swift::start(environment, &folder)?;
    store.make_bucket(&here().join("buckets.py"), BUCKET)?;
    Ok(store)
}

fn objects(store: &Swift, bucket: &str) -> Result<Vec<String>> {
    store.objects(&here().join("buckets.py"), bucket)
}

/// The settings of a node with that bucket, as a table.
fn settings(endpoint: &str, bucket: &str, key: &str, secret: &str) -> String {
    format!(
        "[files.s3]\nbucket = '{bucket}'\nendpoint = '{endpoint}'\nprefix = '{PREFIX}'\naccess_key_id = '{key}'\nsecret_access_key = '{secret}'\n"
    )
}

/// A node in that folder with those settings.
fn node(folder: &Path, settings: &str, more: &[&str]) -> Result<CoreNode> {
    let file = folder.join("ccn.toml");
    fs::create_dir_all(folder)?;
    fs::write(&file, settings)?;
    let mut arguments = vec!["--dev".to_owned(), "--config".to_owned(), file.display().to_string()];
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    CoreNode::start(stage::installation(), folder, &arguments)
}

fn funded(core: &CoreNode) -> Result<Account> {
    account_with_key(&core.accounts("account").first().context("a funded account")?.key)
}

fn keep(account: &Account, engine: &str, hash: &str) -> Result<Value> {
    let payment = json!({"type": "credit", "chain": "ETH"});
    message(account, "STORE", &json!({"item_type": engine, "item_hash": hash, "payment": payment}))
}

/// A signed message whose content is uploaded apart.
fn stored_post(account: &Account, text: &str) -> Result<(Value, Vec<u8>)> {
    let time = now();
    let content = json!({"address": account.address(), "time": time, "type": "note", "content": {"text": text}});
    let content = content.to_string().into_bytes();
    let hash = ItemHash::sha256_of(&content);
    let envelope = Draft::new("POST", "").channel("TEST").time(time).sign_stored(account, hash, ItemType::Storage);
    Ok((serde_json::from_str(&to_json(&envelope))?, content))
}

fn status(ccn: &Client, message: &Value) -> Result<Value> {
    let status = expect_json(200, ccn.get(&format!("/api/v0/messages/{}/status", hash_of(message)))?)?;
    Ok(status["status"].clone())
}

/// What an answer says that two nodes must say alike.
fn essence(answer: &Answer) -> Value {
    let header = |name: &str| answer.header(name).map(str::to_owned);
    let names = ["content-length", "content-range", "content-type", "etag", "cache-control", "accept-ranges"];
    let headers: Vec<_> = names.iter().map(|name| header(name)).collect();
    json!([answer.status, headers, sha256(&answer.body)])
}

/// The archive of a folder, and its name.
fn folder_archive() -> Result<(Vec<u8>, String)> {
    let fixtures = repository().join("../shared/fixtures/signed");
    let archive = fs::read(fixtures.join("files/folder.car")).context("the shared fixtures")?;
    for entry in fs::read_dir(&fixtures)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let fixture: Value = serde_json::from_slice(&fs::read(&path)?)?;
            let files = fixture["files"].as_array();
            if files.is_some_and(|files| files.iter().any(|file| file == "files/folder.car")) {
                let content: Value =
                    serde_json::from_str(fixture["message"]["item_content"].as_str().context("a content")?)?;
                return Ok((archive, content["item_hash"].as_str().context("a name")?.to_owned()));
            }
        }
    }
    anyhow::bail!("no fixture keeps the folder")
}

/// Brings files in all ways there are; what was answered.
fn bring(core: &CoreNode) -> Result<Vec<Value>> {
    let (ccn, account) = (core.client(), funded(core)?);
    let mut said = Vec::new();
    for length in LENGTHS {
        let content = noise(length);
        let signed = keep(&account, "storage", &sha256(&content))?;
        let answer = expect(200, upload(&ccn, "/api/v0/storage/add_file", &content, Some(&signed))?)?.json()?;
        said.push(json!([answer["status"], answer["hash"]]));
    }
    let unsigned = noise(LARGE);
    said.push(expect_json(200, upload(&ccn, "/api/v0/storage/add_file", &unsigned, None)?)?);
    said.push(expect_json(200, upload(&ccn, "/api/v0/ipfs/add_file", &noise(600_000), None)?)?);
    said.push(expect_json(200, ccn.post_json("/api/v0/storage/add_json", &json!({"b": 1, "a": [2]}))?)?);
    let (archive, root) = folder_archive()?;
    let signed = keep(&account, "ipfs", &root)?;
    let answer = expect_json(200, upload(&ccn, "/api/v0/ipfs/add_car", &archive, Some(&signed))?)?;
    said.push(json!([answer["status"], answer["hash"], answer["size"]]));
    // The content of a message is a file, too.
    let (message, content) = stored_post(&account, "in storage")?;
    expect(200, upload(&ccn, "/api/v0/storage/add_file", &content, None)?)?;
    said.push(json!(expect(200, publish(&ccn, &message, true)?)?.status));
    let read = expect_json(200, ccn.get(&format!("/api/v0/messages/{}", hash_of(&message)))?)?;
    ensure!(read["message"]["content"]["content"]["text"] == "in storage", "{read}");
    Ok(said)
}

/// Asks for them in all ways; what was answered. The bytes are held against what was brought.
fn ask(core: &CoreNode) -> Result<Vec<Value>> {
    let ccn = core.client();
    let mut said = Vec::new();
    for length in LENGTHS.into_iter().chain([LARGE]) {
        let content = noise(length);
        let path = format!("/api/v0/storage/raw/{}", sha256(&content));
        let whole = expect(200, ccn.get(&path)?)?;
        ensure!(whole.body == content, "{length} bytes came back otherwise");
        said.push(essence(&whole));
        let head = expect(200, ccn.head(&path)?)?;
        ensure!(head.body.is_empty() && head.header("content-length") == Some(&length.to_string()), "{head:?}");
        said.push(essence(&head));
        let tag = whole.header("etag").context("a tag")?;
        said.push(essence(&expect(304, ccn.get_with(&path, &[("if-none-match", tag)])?)?));
        for range in ["bytes=0-0", "bytes=5-1004", "bytes=9000000-", "bytes=-7", "bytes=99999999-", "bytes=2-1"] {
            let part = ccn.get_with(&path, &[("range", range)])?;
            if part.status == 206 {
                let named =
                    part.header("content-range").and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
                let (first, last) = named.and_then(|(range, _)| range.split_once('-')).context("a range")?;
                ensure!(part.body == content[first.parse()?..=last.parse()?], "{range} of {length} bytes");
            }
            said.push(essence(&part));
        }
        for way in ["metadata", "count"] {
            said.push(essence(&ccn.get(&format!("/api/v0/storage/{way}/{}", sha256(&content)))?));
        }
    }
    said.push(essence(&expect(200, ccn.get(&format!("/api/v0/storage/{}", sha256(&noise(LARGE))))?)?));
    let (_, root) = folder_archive()?;
    said.push(essence(&expect(200, ccn.get(&format!("/ipfs/{root}?format=car"))?)?));
    said.push(essence(&expect(200, ccn.head(&format!("/ipfs/{root}?format=car"))?)?));
    said.push(essence(&ccn.get(&format!("/api/v0/storage/raw/{root}"))?));
    said.push(essence(&expect(404, ccn.get(&format!("/api/v0/storage/raw/{}", sha256(b"nobody's")))?)?));
    Ok(said)
}

/// Forgets the largest file, and waits until it is collected.
fn forget(core: &CoreNode) -> Result<()> {
    let (ccn, account) = (core.client(), funded(core)?);
    let path = format!("/api/v0/storage/raw/{}", sha256(&noise(LENGTHS[2])));
    let list =
        expect_json(200, ccn.get(&format!("/api/v0/messages.json?msgTypes=STORE&addresses={}", account.address()))?)?;
    let keeping = |message: &&Value| message["content"]["item_hash"] == sha256(&noise(LENGTHS[2]));
    let kept = list["messages"].as_array().into_iter().flatten().find(keeping).context("the message that keeps it")?;
    let forgetting = message(&account, "FORGET", &json!({"hashes": [hash_of(kept)]}))?;
    expect(200, publish(&ccn, &forgetting, true)?)?;
    // Its bytes are not asked for: who reads a file while its parts are deleted is cut off.
    wait_until(VERDICT_WITHIN, "the file is collected", || Ok(ccn.head(&path)?.status == 404))?;
    expect(404, ccn.get(&path)?).map(drop)
}

pub(crate) fn alike() -> Result<()> {
    let folder = stage::folder("object-store-alike")?;
    let mut store = store(&folder)?;
    let settings = settings(&store.url(), BUCKET, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let mut local = node(&folder.join("local"), "", &[])?;
    let mut remote = node(&folder.join("remote"), &settings, &[])?;
    let begun = Instant::now();
    let expected = bring(&local)?;
    let in_folder = begun.elapsed();
    let begun = Instant::now();
    ensure!(bring(&remote)? == expected, "uploads were answered otherwise");
    println!("uploads: {in_folder:.2?} in a folder, {:.2?} in the bucket", begun.elapsed());
    let expected = ask(&local)?;
    let same = |core: &CoreNode| -> Result<()> {
        for (found, expected) in ask(core)?.iter().zip(&expected) {
            ensure!(found == expected, "{found} instead of {expected}");
        }
        Ok(())
    };
    same(&remote)?;
    // Nothing is on the disk of the node, and all is in the bucket by the names that a folder has.
    let large = sha256(&noise(LENGTHS[2]));
    let object = format!("{PREFIX}/{}/{large}", &large[62..]);
    let (_, root) = folder_archive()?;
    let archive = format!("{PREFIX}/{}/{root}.car", &root[root.len() - 2..]);
    let names = objects(&store, BUCKET)?;
    ensure!(names.contains(&object) && names.contains(&archive), "{names:?}");
    ensure!(!names.iter().any(|name| name.contains("trial")), "what was put for a trial is gone: {names:?}");
    ensure!(!folder.join("remote/data/files").join(&large[62..]).exists(), "it is in the folder");
    ensure!(fs::read_dir(folder.join("remote/data/files/partial"))?.next().is_none(), "something is left aside");

    // Another node cannot have it as well.
    let refusal = format!("{:#}", node(&folder.join("another"), &settings, &[]).err().context("it started")?);
    ensure!(refusal.contains(&format!("{BUCKET}/{PREFIX} holds the files of another node")), "{refusal}");

    // Nothing of it is in memory any more, neither of the node nor of the store.
    remote.kill_and_restart()?;
    same(&remote)?;
    store.kill()?;
    store.start_again()?;
    wait_until(BACK_WITHIN, "the store is back", || Ok(same(&remote).is_ok()))?;
    same(&remote)?;

    // What is collected leaves the bucket, with its parts.
    local.stop()?;
    remote.stop()?;
    ensure!(!objects(&store, PARTS)?.is_empty(), "it was sent in parts");
    for (name, settings) in [("local", ""), ("remote", settings.as_str())] {
        let mut core = node(&folder.join(name), settings, &["--set", "pipeline.grace_seconds=1"])?;
        forget(&core)?;
        if name == "remote" {
            wait_until(VERDICT_WITHIN, "its object is deleted", || Ok(!objects(&store, BUCKET)?.contains(&object)))?;
            let parts = objects(&store, PARTS)?;
            ensure!(!parts.iter().any(|part| part.contains(&large)), "{parts:?}");
            let log = fs::read_to_string(core.log())?;
            ensure!(!log.contains(SECRET_ACCESS_KEY), "the secret is in the log");
        }
        core.stop()?;
    }
    store.kill()
}

pub(crate) fn away() -> Result<()> {
    let folder = stage::folder("object-store-away")?;
    let mut store = store(&folder)?;
    let settings = settings(&store.url(), BUCKET, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    let mut core = node(&folder.join("node"), &settings, &[])?;
    let (ccn, account) = (core.client(), funded(&core)?);
    let content = noise(LARGE);
    let path = format!("/api/v0/storage/raw/{}", sha256(&content));
    let signed = keep(&account, "storage", &sha256(&content))?;
    expect(200, upload(&ccn, "/api/v0/storage/add_file", &content, Some(&signed))?)?;
    let other = noise(LARGE + 1);
    expect(200, upload(&ccn, "/api/v0/storage/add_file", &other, None)?)?;
    // Longer than what is kept in memory.
    let (message, content_of_message) = stored_post(&account, &"long ".repeat(500_000))?;
    expect(200, upload(&ccn, "/api/v0/storage/add_file", &content_of_message, None)?)?;
    let (early, content_of_early) = stored_post(&account, &"early ".repeat(500_000))?;

    store.kill()?;
    let is_away = |answer: Answer| -> Result<()> {
        ensure!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
        expect_words(503, answer, &["object store", "try again in a moment"])
    };
    is_away(ccn.get(&path)?)?;
    is_away(ccn.get_with(&path, &[("range", "bytes=5-9")])?)?;
    is_away(upload(&ccn, "/api/v0/storage/add_file", &content_of_early, None)?)?;
    expect(404, ccn.get(&format!("/api/v0/storage/raw/{}", sha256(b"nobody's")))?)?;
    // Messages whose content cannot be read wait, and hold up nobody.
    expect(202, publish(&ccn, &message, false)?)?;
    expect(202, publish(&ccn, &early, false)?)?;
    let begun = Instant::now();
    for number in 0..20 {
        expect(200, publish(&ccn, &post(&account, &format!("meanwhile {number}"))?, true)?)?;
    }
    let took = begun.elapsed();
    ensure!(took < UNHINDERED, "20 messages took {took:?} while the store was away");
    ensure!(status(&ccn, &message)? == "pending" && status(&ccn, &early)? == "pending");
    // A node cannot be started without it, and says so at once.
    core.kill_and_restart().err().context("it started without its files")?;
    store.start_again()?;
    let mut core = node(&folder.join("node"), &settings, &[])?;
    let ccn = core.client();
    // What waited then is looked for after a restart, too.
    wait_until(BACK_WITHIN, "the message that waited is decided", || Ok(status(&ccn, &message)? == "processed"))?;
    ensure!(status(&ccn, &early)? == "pending", "its content never came");
    ensure!(expect(200, ccn.get(&path)?)?.body == content, "the file came back otherwise");

    // One that hangs is noticed by whoever asks first, and holds up nobody after that.
    store.freeze()?;
    let begun = Instant::now();
    is_away(ccn.get(&path)?)?;
    ensure!(begun.elapsed() < UNHINDERED, "it took {:?} to notice that the store hangs", begun.elapsed());
    let hanging = stored_message_of(&account, &other)?;
    let begun = Instant::now();
    expect(202, publish(&ccn, &hanging, false)?)?;
    is_away(ccn.get(&path)?)?;
    expect(200, publish(&ccn, &post(&account, "while it hangs")?, true)?)?;
    ensure!(begun.elapsed() < UNHINDERED, "it took {:?} while the store hung", begun.elapsed());
    store.thaw()?;
    wait_until(BACK_WITHIN, "the store is heard of", || Ok(ccn.get(&path)?.status == 200))?;
    // Its content was recorded all along; that it is none is found once it can be read.
    wait_until(BACK_WITHIN, "it is decided", || Ok(status(&ccn, &hanging)? == "rejected"))?;

    // And once more without a restart of the node.
    store.kill()?;
    let (late, content_of_late) = stored_post(&account, &"late ".repeat(500_000))?;
    is_away(ccn.get(&path)?)?;
    is_away(upload(&ccn, "/api/v0/storage/add_file", &content_of_early, None)?)?;
    expect(202, publish(&ccn, &late, false)?)?;
    store.start_again()?;
    wait_until(BACK_WITHIN, "the store is heard of", || Ok(ccn.get(&path)?.status == 200))?;
    for (message, content) in [(&early, &content_of_early), (&late, &content_of_late)] {
        expect(200, upload(&ccn, "/api/v0/storage/add_file", content, None)?)?;
        wait_until(BACK_WITHIN, "it is decided", || Ok(status(&ccn, message)? == "processed"))?;
    }
    core.stop()?;
    store.kill()
}

/// A signed message whose content is said to be that file, which is none.
fn stored_message_of(account: &Account, content: &[u8]) -> Result<Value> {
    let hash = ItemHash::sha256_of(content);
    let envelope = Draft::new("POST", "").channel("TEST").time(now()).sign_stored(account, hash, ItemType::Storage);
    Ok(serde_json::from_str(&to_json(&envelope))?)
}

pub(crate) fn refusals() -> Result<()> {
    let folder = stage::folder("object-store-refusals")?;
    let mut store = store(&folder)?;
    let url = store.url();
    let refused = |settings: &str, words: &[&str]| -> Result<()> {
        let begun = Instant::now();
        let error = format!("{:#}", node(&folder.join("node"), settings, &[]).err().context("it started")?);
        for word in words {
            ensure!(error.contains(word), "{word:?} is not in {error}");
        }
        ensure!(!error.contains(SECRET_ACCESS_KEY) && !error.contains("a wrong secret"), "{error}");
        ensure!(begun.elapsed() < Duration::from_secs(40), "it took {:?}", begun.elapsed());
        Ok(())
    };
    let (key, secret) = (ACCESS_KEY_ID, SECRET_ACCESS_KEY);
    refused(&settings(&url, "nothing", key, secret), &["there is no bucket nothing at", "make it"])?;
    // This store does not say which of the two is wrong.
    let words = ["files.s3.secret_access_key", "has no key", "correct access_key_id, secret_access_key or region"];
    refused(&settings(&url, BUCKET, "nobody", secret), &words)?;
    refused(&settings(&url, BUCKET, key, "a wrong secret"), &words)?;
    refused(&settings("http://127.0.0.1:1", BUCKET, key, secret), &["files.s3.endpoint", "is not reached"])?;
    refused(&settings("http://192.0.2.1", BUCKET, key, secret), &["files.s3.allow_http=true"])?;
    refused(&settings(&url, BUCKET, key, ""), &["BETH_FILES__S3__SECRET_ACCESS_KEY"])?;

    // A key that is all digits stays as it is written, in a variable too; and settings are shown without the secret.
    let file = folder.join("shown.toml");
    fs::write(&file, settings(&url, BUCKET, key, ""))?;
    let mut command = Command::new(stage::installation().program("ccn"));
    command.arg("--print-config").arg("--config").arg(&file);
    let output =
        command.env("BETH_FILES__S3__SECRET_ACCESS_KEY", "00123").env("BETH_FILES__S3__REGION", "eu-1").output()?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && shown.contains("region = \"eu-1\"") && shown.contains(key), "{shown}");
    ensure!(!shown.contains("00123") && !shown.contains("secret"), "{shown}");

    // Files that were not moved are not left behind.
    let local = folder.join("moved");
    let mut core = node(&local, "", &[])?;
    let content = b"some content".as_slice();
    let signed = keep(&funded(&core)?, "storage", &sha256(content))?;
    expect(200, upload(&core.client(), "/api/v0/storage/add_file", content, Some(&signed))?)?;
    core.stop()?;
    let in_bucket = settings(&url, BUCKET, key, secret);
    let error = format!("{:#}", node(&local, &in_bucket, &[]).err().context("it started")?);
    ensure!(error.contains("aws s3 sync"), "{error}");
    store.kill()
}
