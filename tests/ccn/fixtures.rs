//! Every shared fixture, over HTTP, with the verdict that its author expects: all types, all chains. How many there are is known: none goes missing.

use super::letter::{account, message_in, publish, upload};
use crate::{
    answer::{expect, expect_json},
    stage::{self, VERDICT_WITHIN, repository},
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::CoreNode, http::Client};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// The message of a genuine NULS wallet, which the program that the fixtures follow refuses by a mistake of its own: its signature is valid
/// (ccn spec 3.8), and so is the rest of it.
const GENUINE_NULS: &str = "real/nuls-aggregate-84afd84849";
/// A FORGET of a STORE whose file nobody has any more, so that the STORE never stands: what the collection says of it alone.
const FORGETS_A_LOST_FILE: &str = "real/eth-forget-5e40c8e219";
/// How long a message counts as pending, seconds: short, so that the end of the wait is seen.
const HORIZON_SECONDS: u32 = 2;

/// What a fixture is and what shall become of it.
struct Case {
    name: String,
    message: Value,
    expected: Verdict,
    /// It is decided at once, or only when the wait is over.
    waits: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Processed,
    Rejected(i64),
}

fn fixtures() -> Result<PathBuf> {
    let path = repository().join("../shared/fixtures");
    path.canonicalize().with_context(|| format!("the shared fixtures are expected at {}", path.display()))
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// A node of a network whose treasury and whose balances are the tests' own.
fn node(name: &str) -> Result<CoreNode> {
    let folder = stage::folder(name)?;
    let (treasury, oracle) = (account("treasury of the fixtures")?, account("oracle of the fixtures")?);
    let config = folder.join("ccn.toml");
    fs::write(
        &config,
        format!(
            "[network]\nname = \"fixtures\"\ncredit_treasury = [\"{}\"]\nbalance_publishers = [\"{}\"]\n\n\
             [pipeline]\nhorizon_seconds = {HORIZON_SECONDS}\n",
            treasury.address(),
            oracle.address()
        ),
    )?;
    CoreNode::start(stage::installation(), &folder, &["--config".to_owned(), config.display().to_string()])
}

/// Gives an address tokens and credits, as oracle and treasury do it.
fn fund(ccn: &Client, address: &str) -> Result<()> {
    let (treasury, oracle) = (account("treasury of the fixtures")?, account("oracle of the fixtures")?);
    let balances = json!({
        "type": "balances-update",
        "content": {"chain": "ETH", "main_height": 30_000_000, "balances": {address: 20_000}},
    });
    expect(200, publish(ccn, &message_in(&oracle, "POST", &balances, "SYSTEM")?, true)?)?;
    let distribution = json!({
        "type": "aleph_credit_distribution",
        "content": {"distribution": {"token": "ALEPH", "chain": "ETH", "credits": [
            {"address": address, "amount": 100_000_000, "price": "1", "tx_hash": "0x00", "provider": "tests"},
        ]}},
    });
    expect(200, publish(ccn, &message_in(&treasury, "POST", &distribution, "ALEPH_CREDIT")?, true)?).map(drop)
}

/// What became of a message so far: nothing while it is pending.
fn verdict(ccn: &Client, message: &Value) -> Result<Option<Verdict>> {
    let answer = publish(ccn, message, true)?;
    let hash = message["item_hash"].as_str().unwrap_or_default();
    match answer.status {
        200 => Ok(Some(Verdict::Processed)),
        202 => Ok(None),
        422 => {
            let record = ccn.get(&format!("/api/v0/messages/{hash}"))?;
            match record.status {
                // A format error leaves no trace; other messages of that hash may.
                404 | 400 => Ok(Some(Verdict::Rejected(0))),
                _ => {
                    let record = record.json()?;
                    let code = record["error_code"].as_i64();
                    Ok(Some(code.map_or(Verdict::Rejected(0), Verdict::Rejected)))
                }
            }
        }
        status => anyhow::bail!("it was answered {status}: {}", answer.text()),
    }
}

/// What the wait ended with.
fn verdict_after_waiting(ccn: &Client, message: &Value) -> Result<Verdict> {
    let hash = message["item_hash"].as_str().unwrap_or_default();
    let deadline = Instant::now() + VERDICT_WITHIN;
    loop {
        let record = expect_json(200, ccn.get(&format!("/api/v0/messages/{hash}"))?)?;
        match record["status"].as_str() {
            // What is forgotten stood before.
            Some("processed" | "forgotten") => return Ok(Verdict::Processed),
            Some("rejected") => return Ok(Verdict::Rejected(record["error_code"].as_i64().unwrap_or(-99))),
            _ => ensure!(Instant::now() < deadline, "still pending: {record}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Sends all in order, looks at what becomes of each.
fn decide(ccn: &Client, cases: &[Case], count: usize) -> Result<()> {
    let mut wrong = Vec::new();
    let mut waiting = Vec::new();
    for case in cases {
        match (verdict(ccn, &case.message), case.waits) {
            (Ok(Some(found)), false) if found == case.expected => {}
            (Ok(None), true) => waiting.push(case),
            // Sent again within its time, or long after: decided by now.
            (Ok(Some(found)), true) if found == case.expected => {}
            (Ok(None), false) => match verdict_after_waiting(ccn, &case.message) {
                Ok(found) if found == case.expected => {}
                found => wrong.push(format!("{}: {found:?} after a wait, not {:?}", case.name, case.expected)),
            },
            (found, _) => wrong.push(format!("{}: {found:?} and not {:?}", case.name, case.expected)),
        }
    }
    for case in waiting {
        match verdict_after_waiting(ccn, &case.message) {
            Ok(found) if found == case.expected => {}
            found => wrong.push(format!("{}: {found:?} after its wait, not {:?}", case.name, case.expected)),
        }
    }
    wrong.extend(at_the_end(ccn, cases)?);
    println!("{} fixtures decided, {} wrong", cases.len(), wrong.len());
    ensure!(wrong.is_empty(), "{} wrong verdicts:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(cases.len() == count, "{} fixtures were decided, and there are {count}", cases.len());
    Ok(())
}

/// Where what was processed does not stand as it should once everything is there: it is forgotten when a FORGET names it, or the post that it
/// amends, and processed otherwise.
fn at_the_end(ccn: &Client, cases: &[Case]) -> Result<Vec<String>> {
    let content = |case: &Case| -> Value {
        case.message["item_content"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    let stands = |case: &&Case| case.expected == Verdict::Processed;
    let mut forgotten: Vec<Value> = Vec::new();
    for case in cases.iter().filter(stands).filter(|case| case.message["type"] == "FORGET") {
        forgotten.extend(content(case)["hashes"].as_array().cloned().unwrap_or_default());
    }
    ensure!(!forgotten.is_empty(), "nothing is forgotten, and the fixtures have messages that are");
    let mut wrong = Vec::new();
    for case in cases.iter().filter(stands) {
        let content = content(case);
        let amended = (content["type"] == "amend").then(|| &content["ref"]);
        let goes = std::iter::once(&case.message["item_hash"]).chain(amended).any(|hash| forgotten.contains(hash));
        let expect = if goes { "forgotten" } else { "processed" };
        let hash = case.message["item_hash"].as_str().unwrap_or_default();
        let found = expect_json(200, ccn.get(&format!("/api/v0/messages/{hash}/status"))?)?;
        if found["status"] != expect {
            wrong.push(format!("{}: {} in the end and not {expect}", case.name, found["status"]));
        }
    }
    Ok(wrong)
}

fn expected(status: &str, code: &Value) -> Result<Verdict> {
    match status {
        "processed" => Ok(Verdict::Processed),
        "rejected" => Ok(Verdict::Rejected(code.as_i64().context("a rejection has a code")?)),
        other => anyhow::bail!("an expectation of {other}"),
    }
}

pub(crate) fn signed() -> Result<()> {
    let folder = fixtures()?.join("signed");
    let core = node("fixtures-signed")?;
    let ccn = core.client();
    let keys = read(&folder.join("keys.json"))?;
    for (owner, key) in keys.as_object().context("accounts by name")? {
        if owner == "alice" {
            fund(&ccn, key["address"].as_str().context("an address")?)?;
        }
    }
    // The files that the messages speak of, as submit.py beside them uploads them.
    for entry in fs::read_dir(folder.join("files"))? {
        let path = entry?.path();
        if !path.is_file() || path.extension().is_some_and(|extension| extension == "car") {
            continue;
        }
        let content = fs::read(&path)?;
        expect(200, upload(&ccn, "/api/v0/storage/add_file", &content, None)?)?;
        let name = path.file_name().unwrap_or_default();
        if name == "blob-600k.bin" || name == "post-ipfs.item_content.json" {
            expect(200, upload(&ccn, "/api/v0/ipfs/add_file", &content, None)?)?;
        }
    }

    let index = read(&folder.join("index.json"))?;
    let mut cases = Vec::new();
    for entry in index.as_array().context("a list")? {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let name = text("name").to_owned();
        let mut fixture = read(&folder.join(format!("{name}.json")))?;
        let message = fixture["message"].take();
        // A folder is taken with the message that keeps it.
        let files = fixture["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for archive in files.filter(|file| file.ends_with(".car")) {
            let content = fs::read(folder.join(archive)).with_context(|| archive.to_owned())?;
            expect(200, upload(&ccn, "/api/v0/ipfs/add_car", &content, Some(&message))?)?;
        }
        let expected = expected(text("status"), &entry["error_code"])?;
        cases.push(Case { message, expected, waits: text("how") == "after_retries", name });
    }
    decide(&ccn, &cases, 110)
}

pub(crate) fn messages() -> Result<()> {
    let folder = fixtures()?.join("messages");
    let core = node("fixtures-messages")?;
    let index = read(&folder.join("index.json"))?;
    let mut cases: Vec<(u64, Case)> = Vec::new();
    for entry in index["cases"].as_array().context("a list of cases")? {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let name = text("file").trim_end_matches(".json").to_owned();
        let message = read(&folder.join(text("file")))?;
        let mut verdict =
            expected(entry["expected"]["status"].as_str().unwrap_or_default(), &entry["expected"]["error_code"])?;
        let mut waits = entry["expected"]["how"].as_str().is_some_and(|how| how.starts_with("after"));
        // No file of these is there: what the collection says of such a message is "4 after retries".
        let needs_file = text("type") == "STORE" && (verdict == Verdict::Processed || verdict == Verdict::Rejected(6));
        if name == GENUINE_NULS {
            verdict = Verdict::Processed;
        }
        if needs_file {
            (verdict, waits) = (Verdict::Rejected(4), true);
        }
        if name == FORGETS_A_LOST_FILE {
            (verdict, waits) = (Verdict::Rejected(501), true);
        }
        cases.push((entry["seq"].as_u64().unwrap_or(0), Case { name, message, expected: verdict, waits }));
    }
    // Bad copies of a message before the good one, as on a node that knows nothing yet; then each group in its order.
    cases.sort_by_key(|(sequence, case)| (case.expected != Verdict::Rejected(1), *sequence));
    let cases: Vec<Case> = cases.into_iter().map(|(_, case)| case).collect();
    decide(&core.client(), &cases, 105)
}
