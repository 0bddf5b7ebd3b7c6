//! The core node as the official SDK uses it.

use super::letter::{self, account, hash_of, publish};
use crate::{
    answer::{expect, expect_json, noise, sha256},
    stage,
};
use anyhow::{Result, ensure};
use harness::devnet::User;
use serde_json::{Value, json};
use std::{fs, thread, time::Duration};

fn post_with(user: &User<'_>, kind: &str, content: &Value) -> Result<String> {
    let posted = user.run(&["post", kind, &content.to_string()])?;
    ensure!(posted["status"] == "processed", "{posted}");
    Ok(posted["item_hash"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn post() -> Result<()> {
    let core = stage::core()?;
    let ccn = core.client();
    let user = stage::user(core, 0)?;
    let address = user.account().address.clone();
    let hash = post_with(&user, "note", &json!({"text": "grüße", "tags": ["a", "b"]}))?;
    ensure!(user.run(&["messages"])?["hashes"] == json!([hash]));

    let record = expect_json(200, ccn.get(&format!("/api/v0/messages/{hash}"))?)?;
    ensure!(record["message"]["content"]["content"]["text"] == "grüße", "{record}");
    ensure!(record["message"]["time"].is_number() && record["reception_time"].is_string(), "{record}");
    let content = expect_json(200, ccn.get(&format!("/api/v0/messages/{hash}/content"))?)?;
    ensure!(content["text"] == "grüße", "{content}");
    let listed = expect_json(200, ccn.get(&format!("/api/v0/messages.json?addresses={address}&tags=b"))?)?;
    ensure!(listed["pagination_total"] == 1 && listed["messages"][0]["item_hash"] == hash, "{listed}");
    for version in ["v0", "v1"] {
        let posts = expect_json(200, ccn.get(&format!("/api/{version}/posts.json?addresses={address}"))?)?;
        ensure!(posts["posts"][0]["item_hash"] == hash && posts["pagination_item"] == "posts", "{posts}");
    }
    Ok(())
}

pub(crate) fn aggregate() -> Result<()> {
    let core = stage::core()?;
    let user = stage::user(core, 0)?;
    let first = user.run(&["aggregate", "profile", "{\"name\": \"Ada\", \"age\": 36}"])?;
    ensure!(first["fetched"] == json!({"name": "Ada", "age": 36}), "{first}");
    let second = user.run(&["aggregate", "profile", "{\"age\": 37, \"city\": \"London\"}"])?;
    ensure!(second["fetched"] == json!({"name": "Ada", "age": 37, "city": "London"}), "{second}");
    let path = format!("/api/v0/aggregates/{}.json?keys=profile&with_info=true", user.account().address);
    let answer = expect_json(200, core.client().get(&path)?)?;
    ensure!(answer["data"]["profile"]["city"] == "London", "{answer}");
    ensure!(answer["info"]["profile"]["original_item_hash"] == first["item_hash"], "{answer}");
    ensure!(answer["info"]["profile"]["last_update_item_hash"] == second["item_hash"], "{answer}");
    Ok(())
}

pub(crate) fn file() -> Result<()> {
    let core = stage::core()?;
    let ccn = core.client();
    let user = stage::user(core, 1_000_000_000)?;
    let content = noise(6_000_001);
    let path = stage::folder("archives")?.join("noise");
    fs::write(&path, &content)?;
    let hash = user.upload(&path)?;
    let file = sha256(&content);

    let raw = expect(200, ccn.get(&format!("/api/v0/storage/raw/{file}"))?)?;
    ensure!(raw.body == content, "another file came back");
    ensure!(raw.header("content-length") == Some("6000001"), "{:?}", raw.headers);
    let described = expect_json(200, ccn.get(&format!("/api/v0/storage/by-message-hash/{hash}"))?)?;
    ensure!(described["file_hash"] == file && described["size"] == 6_000_001, "{described}");
    ensure!(described["owner"] == user.account().address, "{described}");
    let price = expect_json(200, ccn.get(&format!("/api/v0/price/{hash}"))?)?;
    ensure!(price["payment_type"] == "credit", "{price}");
    Ok(())
}

pub(crate) fn credits() -> Result<()> {
    let core = stage::core()?;
    let user = stage::user(core, 123_456)?;
    let balance = |user: &User<'_>| -> Result<Value> {
        let path = format!("/api/v0/addresses/{}/balance", user.account().address);
        Ok(expect_json(200, core.client().get(&path)?)?["credit_balance"].take())
    };
    ensure!(balance(&user)? == 123_456, "{}", balance(&user)?);
    ensure!(user.run(&["balance"])?["credit_balance"] == 123_456, "the SDK reads another balance");
    // Anybody may publish such a post; it means nothing.
    user.distribute(&user.account().address, 1_000_000)?;
    ensure!(balance(&user)? == 123_456, "{}", balance(&user)?);
    let treasury = User::with(stage::session()?, core.url(), core.treasury()?);
    treasury.distribute(&user.account().address, 4)?;
    ensure!(balance(&user)? == 123_460, "{}", balance(&user)?);
    Ok(())
}

pub(crate) fn websocket() -> Result<()> {
    const MESSAGES: usize = 3;
    let core = stage::core()?;
    let account = account("heard")?;
    let url = format!(
        "{}/api/ws0/messages?addresses={}&history=0",
        core.url().replace("http://", "ws://"),
        account.address()
    );
    let sdk = stage::sdk()?;
    thread::scope(|scope| -> Result<()> {
        let listening = scope.spawn(|| sdk.user(&["listen", &url, &MESSAGES.to_string()]));
        let mut sent = Vec::new();
        // It hears what comes after it has connected, and nobody says when that is.
        for number in 0..600 {
            if listening.is_finished() {
                break;
            }
            let message = letter::post(&account, &format!("number {number}"))?;
            expect(200, publish(&core.client(), &message, true)?)?;
            sent.push(hash_of(&message).to_owned());
            thread::sleep(Duration::from_millis(100));
        }
        let heard = listening.join().map_err(|_| anyhow::anyhow!("the listener panicked"))??;
        let heard: Vec<&str> = heard["messages"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|message| message["item_hash"].as_str())
            .collect();
        ensure!(heard.len() == MESSAGES, "{heard:?}");
        let start = sent.iter().position(|hash| Some(&hash.as_str()) == heard.first());
        let start = start.ok_or_else(|| anyhow::anyhow!("{heard:?} was never sent"))?;
        ensure!(sent[start..start + MESSAGES] == heard, "some were left out: {heard:?} of {sent:?}");
        Ok(())
    })
}
