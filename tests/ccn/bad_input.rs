//! Input that nobody should send, each with the precise error of the specification.

use super::letter::{account, hash_of, message, now, post, publish, store, upload};
use crate::{
    answer::{expect, expect_json, expect_words, sha256},
    stage::{self, VERDICT_WITHIN, wait_until},
};
use anyhow::{Result, ensure};
use harness::{
    devnet::{ANSWER_WITHIN, CoreNode},
    http::Client,
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
};

/// The record of a message.
fn record(ccn: &Client, message: &Value) -> Result<Value> {
    expect_json(200, ccn.get(&format!("/api/v0/messages/{}", hash_of(message)))?)
}

/// Published, it is a format error: 422 with these words, and no trace of it is left.
fn is_format_error(ccn: &Client, message: &Value, words: &[&str]) -> Result<()> {
    let answer = publish(ccn, message, true)?;
    // Clients parse whatever comes with this status.
    answer.json()?;
    expect_words(422, answer, words)?;
    let record = ccn.get(&format!("/api/v0/messages/{}", hash_of(message)))?;
    ensure!(record.status == 404 || record.status == 400, "a format error left {}", record.text());
    Ok(())
}

/// Published, it is rejected for good with that code.
fn is_rejected(ccn: &Client, message: &Value, code: i64) -> Result<Value> {
    let answer = expect_json(422, publish(ccn, message, true)?)?;
    ensure!(answer["message_status"] == "rejected", "{answer}");
    ensure!(answer["publication_status"]["status"].is_string(), "{answer}");
    let record = record(ccn, message)?;
    ensure!(record["status"] == "rejected" && record["error_code"] == code, "{record}");
    ensure!(record["details"]["errors"].is_array() && record["message"].is_object(), "{record}");
    Ok(record)
}

pub(crate) fn no_message() -> Result<()> {
    let ccn = stage::core()?.client();
    let deep = "[".repeat(100_000);
    for body in ["", "no JSON", "{\"message\": ", "[]", "null", "{}", "{\"message\": 7}", "{\"message\": {}}", &deep] {
        let answer = ccn.post("/api/v0/messages", "application/json", body.as_bytes())?;
        let shown: String = body.chars().take(20).collect();
        ensure!(answer.status == 422, "{shown:?} was answered {}: {}", answer.status, answer.text());
        answer.json()?;
    }
    let answer = ccn.post("/api/v0/messages", "application/json", &[0xff, 0xfe, 0x00])?;
    ensure!(answer.status == 422, "{}", answer.status);
    Ok(())
}

pub(crate) fn wrong_hash() -> Result<()> {
    let ccn = stage::core()?.client();
    let account = account("wrong hash")?;
    let mut changed = post(&account, "the text that was signed")?;
    let text = changed["item_content"].as_str().unwrap_or_default().replace("signed", "changed");
    changed["item_content"] = text.into();
    is_format_error(&ccn, &changed, &["item_hash"])?;
    let mut upper = post(&account, "in capital letters")?;
    upper["item_hash"] = hash_of(&upper).to_uppercase().into();
    expect(422, publish(&ccn, &upper, true)?).map(drop)
}

pub(crate) fn wrong_signature() -> Result<()> {
    let ccn = stage::core()?.client();
    let account = account("wrong signature")?;
    let good = post(&account, "twice, and once with a signature that is wrong")?;
    let other = post(&account, "another text")?;
    let mut bad = good.clone();
    bad["signature"] = other["signature"].clone();
    is_rejected(&ccn, &bad, 1)?;
    for wrong in [Value::Null, json!(""), json!("0x00"), json!("no hex"), json!(format!("0x{}", "ff".repeat(65)))] {
        let mut bad = good.clone();
        bad["signature"] = wrong;
        is_rejected(&ccn, &bad, 1)?;
    }
    // The good copy is taken as if nothing had been, and stays when bad copies come after it.
    ensure!(expect_json(200, publish(&ccn, &good, true)?)?["message_status"] == "processed");
    publish(&ccn, &bad, true)?;
    let kept = record(&ccn, &good)?;
    ensure!(kept["status"] == "processed" && kept["message"]["signature"] == good["signature"], "{kept}");
    // The same again is no error.
    ensure!(expect_json(200, publish(&ccn, &good, true)?)?["message_status"] == "processed");
    Ok(())
}

pub(crate) fn unknown_type() -> Result<()> {
    let ccn = stage::core()?.client();
    let account = account("unknown type")?;
    let strange = message(&account, "SOMETHING-ELSE", &json!({"a": 1}))?;
    let answer = publish(&ccn, &strange, true)?;
    expect_words(422, answer, &[])?;
    let record = ccn.get(&format!("/api/v0/messages/{}", hash_of(&strange)))?;
    if record.status == 200 {
        ensure!(record.json()?["error_code"] == 0, "{}", record.text());
    }
    Ok(())
}

pub(crate) fn too_long() -> Result<()> {
    let ccn = stage::core()?.client();
    let account = account("too long")?;
    // Two hundred thousand characters may be inline; the frame around the text counts too.
    let frame = post(&account, "")?["item_content"].as_str().unwrap_or_default().chars().count();
    let longest = post(&account, &"ü".repeat(200_000 - frame - 8))?;
    ensure!(expect_json(200, publish(&ccn, &longest, true)?)?["message_status"] == "processed");
    let longer = post(&account, &"x".repeat(200_001))?;
    is_format_error(&ccn, &longer, &["item_content"])?;
    // What is far too long is refused before all of it was sent: the rest may find the door closed.
    let mut stream = TcpStream::connect(ccn.base().trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut sending = stream.try_clone()?;
    thread::spawn(move || {
        let head = "POST /api/v0/messages HTTP/1.1\r\nHost: ccn\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n";
        let _ = sending.write_all(head.as_bytes()).and_then(|()| sending.write_all(&[b' '; 3_000_000]));
    });
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    ensure!(answer == *b"HTTP/1.1 413", "{}", String::from_utf8_lossy(&answer));
    let tags: Vec<String> = (0..17).map(|index| format!("tag {index}")).collect();
    let tagged = message(&account, "POST", &json!({"type": "note", "content": {"tags": tags}}))?;
    is_format_error(&ccn, &tagged, &["tags"])
}

pub(crate) fn unknown_reference() -> Result<()> {
    // Short, so that the test sees the end of the wait.
    let settings = ["--dev", "--set", "pipeline.horizon_seconds=2"].map(str::to_owned);
    let core = CoreNode::start(stage::installation(), &stage::folder("waiting")?, &settings)?;
    let ccn = core.client();
    let account = account("unknown reference")?;

    let original = post(&account, "the original")?;
    let amend =
        message(&account, "POST", &json!({"type": "amend", "ref": hash_of(&original), "content": {"text": "better"}}))?;
    let answer = publish(&ccn, &amend, false)?;
    ensure!(expect_json(202, answer)?["message_status"] == "pending");
    let waiting = record(&ccn, &amend)?;
    ensure!(waiting["status"] == "pending" && waiting["messages"].is_array(), "{waiting}");
    wait_until(VERDICT_WITHIN, "it counts as rejected", || Ok(record(&ccn, &amend)?["status"] == "rejected"))?;
    let told = record(&ccn, &amend)?;
    ensure!(told["error_code"] == 101, "{told}");
    // What it lacked arrives, late: it is woken all the same.
    expect(200, publish(&ccn, &original, true)?)?;
    wait_until(VERDICT_WITHIN, "the amend is woken", || Ok(record(&ccn, &amend)?["status"] == "processed"))?;

    let missing = sha256(b"a file that nobody has");
    let stored = message(&account, "STORE", &json!({"item_type": "storage", "item_hash": missing}))?;
    ensure!(expect_json(202, publish(&ccn, &stored, false)?)?["message_status"] == "pending");
    wait_until(VERDICT_WITHIN, "it counts as rejected", || Ok(record(&ccn, &stored)?["error_code"] == 4))?;

    let program = message(&account, "PROGRAM", &program(&sha256(b"no code"), &sha256(b"no runtime")))?;
    ensure!(expect_json(202, publish(&ccn, &program, false)?)?["message_status"] == "pending");
    wait_until(VERDICT_WITHIN, "it counts as rejected", || Ok(record(&ccn, &program)?["status"] == "rejected"))?;
    let told = record(&ccn, &program)?;
    ensure!(told["error_code"] == 301, "{told}");
    let details = told["details"].to_string();
    for lacking in [sha256(b"no code"), sha256(b"no runtime")] {
        ensure!(details.contains(&lacking), "{lacking} is not in {details}");
    }
    Ok(())
}

/// The content of a PROGRAM, all defaults spelt out as publishers must.
fn program(code: &str, runtime: &str) -> Value {
    json!({
        "type": "vm-function",
        "allow_amend": false,
        "code": {"encoding": "zip", "entrypoint": "main:app", "ref": code, "use_latest": false},
        "runtime": {"ref": runtime, "use_latest": false, "comment": ""},
        "on": {"http": true, "persistent": false},
        "environment": {"reproducible": false, "internet": false, "aleph_api": true, "shared_cache": false},
        "resources": {"vcpus": 1, "memory": 128, "seconds": 30},
        "payment": {"chain": "ETH", "type": "credit"},
        "volumes": [],
    })
}

pub(crate) fn uploads() -> Result<()> {
    let core = stage::core()?;
    let ccn = core.client();
    let account = account("uploads")?;
    let path = "/api/v0/storage/add_file";
    let content = format!("a file of the tests, {}", now()).into_bytes();

    let signed = store(&account, b"another file")?;
    expect(422, upload(&ccn, path, &content, Some(&signed))?)?;
    let mut forged = store(&account, &content)?;
    forged["signature"] = store(&account, b"x")?["signature"].clone();
    expect(403, upload(&ccn, path, &content, Some(&forged))?)?;
    // Nobody gave this account credits. Such a file stays for a day, as one without a message does.
    let unpaid = format!("a file that nobody pays for, {}", now()).into_bytes();
    expect(402, upload(&ccn, path, &unpaid, Some(&store(&account, &unpaid)?))?)?;
    expect(422, upload(&ccn, path, &content, Some(&json!({"no": "message"})))?)?;
    let none = ccn.post(path, "multipart/form-data; boundary=x", b"--x--\r\n")?;
    expect(400, none)?;
    let large = vec![7; (25 << 20) + 1];
    expect(413, upload(&ccn, path, &large, None)?)?;
    // Nothing of all that is kept.
    expect(404, ccn.get(&format!("/api/v0/storage/raw/{}", sha256(&content)))?)?;
    expect(200, upload(&ccn, path, &content, None)?)?;
    let kept = expect(200, ccn.get(&format!("/api/v0/storage/raw/{}", sha256(&content)))?)?;
    ensure!(kept.body == content, "another file came back");
    Ok(())
}

pub(crate) fn questions() -> Result<()> {
    let ccn = stage::core()?.client();
    let unknown = sha256(b"nobody ever said this");
    let nobody = "0x0000000000000000000000000000000000000001";
    for (status, path) in [
        (404, format!("/api/v0/messages/{unknown}")),
        (404, format!("/api/v0/messages/{unknown}/status")),
        (400, "/api/v0/messages/no-hash".to_owned()),
        (404, format!("/api/v0/storage/raw/{unknown}")),
        (404, format!("/api/v0/storage/{unknown}")),
        (404, format!("/api/v0/aggregates/{nobody}.json")),
        (404, format!("/api/v0/allocation/{unknown}")),
        (404, format!("/api/v0/price/{unknown}")),
        (404, "/api/v0/nothing/of/this/name".to_owned()),
        (422, "/api/v0/messages.json?startDate=9&endDate=3".to_owned()),
        (422, "/api/v0/messages.json?pagination=-1".to_owned()),
    ] {
        let answer = ccn.get(&path)?;
        ensure!(answer.status == status, "{path}: {} instead of {status}: {}", answer.status, answer.text());
    }
    // Nothing known of somebody is an answer, not an error.
    let balance = expect_json(200, ccn.get(&format!("/api/v0/addresses/{nobody}/balance"))?)?;
    ensure!(balance["balance"].as_f64() == Some(0.0) && balance["credit_balance"] == 0, "{balance}");
    let list = expect_json(200, ccn.get(&format!("/api/v0/messages.json?addresses={nobody}"))?)?;
    ensure!(list["messages"] == json!([]) && list["pagination_total"] == 0, "{list}");
    Ok(())
}
