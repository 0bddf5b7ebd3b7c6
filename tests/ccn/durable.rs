//! What was acknowledged stays, however the node ends.

use super::letter::{account, account_with_key, hash_of, message_in, post, publish, store, upload};
use crate::{
    answer::{expect, expect_json, sha256},
    stage::{self, VERDICT_WITHIN, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use ccn_message::sign::Account;
use harness::{devnet::CoreNode, http::Client};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// How often the node is killed, and the variable that says otherwise.
const KILLS: u64 = 20;
const KILLS_VARIABLE: &str = "BETH_TEST_KILLS";
/// Clients that send all the time.
const CLIENTS: usize = 4;
/// Every so manieth message carries a file.
const FILE_EVERY: usize = 8;

/// What the node said yes to.
enum Acknowledged {
    Message(String),
    File { message: String, content: Vec<u8> },
}

/// Sends until it is told to stop; an answer of 200 or 202 is the node's word.
fn send(ccn: &Client, account: &Account, client: usize, over: &AtomicBool) -> Result<Vec<Acknowledged>> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        if number % FILE_EVERY == 0 {
            let content = format!("file {number} of client {client}").into_bytes();
            let message = store(account, &content)?;
            match upload(ccn, "/api/v0/storage/add_file", &content, Some(&message)) {
                Ok(answer) if answer.status == 200 || answer.status == 202 => {
                    acknowledged.push(Acknowledged::File { message: hash_of(&message).to_owned(), content });
                }
                Ok(answer) if answer.status != 503 => {
                    anyhow::bail!("an upload was answered {}: {}", answer.status, answer.text());
                }
                // The node is gone, or says that it has too much to do: its word was not given.
                Ok(_) | Err(_) => thread::sleep(Duration::from_millis(20)),
            }
            continue;
        }
        let message = post(account, &format!("message {number} of client {client}"))?;
        match publish(ccn, &message, number % 2 == 0) {
            Ok(answer) if answer.status == 200 || answer.status == 202 => {
                acknowledged.push(Acknowledged::Message(hash_of(&message).to_owned()));
            }
            Ok(answer) if answer.status != 503 => {
                anyhow::bail!("a message was answered {}: {}", answer.status, answer.text());
            }
            Ok(_) | Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
    Ok(acknowledged)
}

pub(crate) fn kill_under_load() -> Result<()> {
    let wanted = match std::env::var(KILLS_VARIABLE) {
        Ok(kills) => kills.parse().with_context(|| format!("{KILLS_VARIABLE} is a number"))?,
        Err(_) => KILLS,
    };
    let folder = stage::folder("killed")?;
    let mut core = CoreNode::start(stage::installation(), &folder, &["--dev".to_owned()])?;
    let treasury = account_with_key(&core.treasury()?.key)?;
    let accounts: Vec<Account> =
        (0..CLIENTS).map(|client| account(&format!("client {client}"))).collect::<Result<_>>()?;
    let credits: Vec<Value> = accounts
        .iter()
        .map(|account| {
            json!({"address": account.address(), "amount": 1_000_000_000_u64, "price": "1", "tx_hash": "0x00", "provider": "tests"})
        })
        .collect();
    let distribution = json!({
        "type": "aleph_credit_distribution",
        "content": {"distribution": {"token": "ALEPH", "chain": "ETH", "credits": credits}},
    });
    expect(200, publish(&core.client(), &message_in(&treasury, "POST", &distribution, "ALEPH_CREDIT")?, true)?)?;

    let ccn = Client::new(core.url(), Duration::from_secs(20));
    let over = AtomicBool::new(false);
    let kills = AtomicUsize::new(0);
    let acknowledged: Vec<Acknowledged> = thread::scope(|scope| -> Result<Vec<Acknowledged>> {
        let clients: Vec<_> = accounts
            .iter()
            .enumerate()
            .map(|(index, account)| {
                let (ccn, over) = (&ccn, &over);
                scope.spawn(move || send(ccn, account, index, over))
            })
            .collect();
        let killed = (0..wanted).try_for_each(|turn| -> Result<()> {
            // A different moment each time, always under load.
            thread::sleep(Duration::from_millis(150 + turn * 97 % 500));
            core.kill_and_restart().with_context(|| format!("after kill {turn}"))?;
            kills.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        thread::sleep(Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        killed.map(|()| all)
    })?;

    let client = core.client();
    let mut lost = Vec::new();
    let mut files = 0;
    for item in &acknowledged {
        let (Acknowledged::Message(hash) | Acknowledged::File { message: hash, .. }) = item;
        // It may still be on its way; it may not be unknown.
        let status = client.get(&format!("/api/v0/messages/{hash}/status"))?;
        if status.status != 200 {
            lost.push(hash.clone());
            continue;
        }
        wait_until(VERDICT_WITHIN, "it is processed", || {
            let status = expect_json(200, client.get(&format!("/api/v0/messages/{hash}/status"))?)?;
            ensure!(status["status"] != "rejected", "{status}");
            Ok(status["status"] == "processed")
        })?;
        if let Acknowledged::File { content, .. } = item {
            files += 1;
            let kept = client.get(&format!("/api/v0/storage/raw/{}", sha256(content)))?;
            if kept.status != 200 || kept.body != *content {
                lost.push(format!("the file of {hash}"));
            }
        }
    }
    let kills = kills.load(Ordering::Relaxed);
    println!(
        "{} acknowledged under {kills} kills, {files} of them with a file, {} lost",
        acknowledged.len(),
        lost.len()
    );
    ensure!(lost.is_empty(), "lost: {lost:?}");
    let (is_good, said) = core.operator(&["digest", "--verify"])?;
    ensure!(is_good && said.contains("the stored rows come to the same"), "{said}");
    ensure!(kills as u64 == wanted && acknowledged.len() > 200 && files > 10, "this was no load");
    core.stop()
}

pub(crate) fn restart() -> Result<()> {
    let folder = stage::folder("restarted")?;
    let mut core = CoreNode::start(stage::installation(), &folder, &["--dev".to_owned()])?;
    let account = account("restart")?;
    let original = post(&account, "the original")?;
    expect(200, publish(&core.client(), &original, true)?)?;
    let waiting =
        super::letter::message(&account, "POST", &json!({"type": "amend", "ref": sha256(b"nothing"), "content": {}}))?;
    expect(202, publish(&core.client(), &waiting, false)?)?;
    let treasury = core.treasury()?.address;
    let questions = [
        format!("/api/v0/messages/{}", hash_of(&original)),
        format!("/api/v0/messages/{}", hash_of(&waiting)),
        format!("/api/v0/posts.json?addresses={}", account.address()),
        "/api/v0/messages.json?pagination=100".to_owned(),
        format!("/api/v0/addresses/{}/balance", core.accounts("account").first().context("a funded account")?.address),
    ];
    let ask = |core: &CoreNode| -> Result<Vec<Value>> {
        questions.iter().map(|question| expect_json(200, core.client().get(question)?)).collect()
    };
    let before = ask(&core)?;
    ensure!(before[4]["credit_balance"].as_u64().is_some_and(|credits| credits > 0), "{}", before[4]);
    core.stop_and_restart()?;
    ensure!(ask(&core)? == before, "a restart changed answers");
    ensure!(core.treasury()?.address == treasury, "a development node keeps its keys");
    core.kill_and_restart()?;
    ensure!(ask(&core)? == before, "a kill changed answers");
    core.stop()?;
    Ok(())
}
