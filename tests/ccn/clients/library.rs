//! Flows of the library, by `flows.py`.

use super::{CRN, Clients, here};
use anyhow::{Context as _, Result, ensure};
use harness::aleph::Aleph;
use serde_json::{Value, json};
use std::process::Command;

/// The account of the library's flows that count what it has; others have it from 0 on.
const COUNTED: usize = 8;

/// What a flow answers.
pub(super) fn flow(somebody: &Aleph, words: &[&str]) -> Result<Value> {
    let mut command: Command = somebody.command("python");
    let output = command.arg(here().join("flows.py")).args(words).output().context("cannot start Python")?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "flows.py {words:?} failed:\n{complained}");
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("flows.py {words:?} printed no JSON: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Fails unless a flow answers that.
fn answers(somebody: &Aleph, name: &str, expected: &Value) -> Result<()> {
    let answer = flow(somebody, &[name])?;
    ensure!(answer == *expected, "{name} answers\n{answer:#}\nand not\n{expected:#}");
    Ok(())
}

pub(super) fn posts(clients: &Clients) -> Result<()> {
    let expected = json!({
        "status": "processed", "titles": ["", "b"], "total": 2, "pages": [2, 1], "item_type": "storage", "length": 100_000,
        "forgotten": true, "unknown": true, "left": 1, "status_of_forgotten": "forgotten",
    });
    answers(&clients.somebody(COUNTED)?, "posts", &expected)
}

pub(super) fn aggregates(clients: &Clients) -> Result<()> {
    let profile = json!({"name": "Ada", "age": 37});
    let expected = json!({
        "one": profile, "all": {"profile": profile, "other": {"a": [1, null]}}, "none": null, "listed": ["other", "profile"],
        "total": 2,
    });
    answers(&clients.somebody(9)?, "aggregates", &expected)
}

pub(super) fn files(clients: &Clients) -> Result<()> {
    let answer = flow(&clients.somebody(7)?, &["files"])?;
    for (name, expected) in [
        ("status", json!("processed")),
        ("small", json!("hello world\n")),
        ("big", json!(true)),
        ("listed", json!(true)),
        ("size", json!(256 * 20_000 + 12)),
    ] {
        ensure!(answer[name] == expected, "{name} is not {expected}: {answer:#}");
    }
    ensure!(answer["cid"].as_str().is_some_and(|cid| cid.starts_with("Qm")), "{answer:#}");
    ensure!(answer["stored"] == answer["cid"], "{answer:#}");
    // 25 MiB, the least that is paid for, at 0.18 credits an hour; 30 MiB at a third of a token.
    ensure!(answer["price"] == json!(["credit", "0.001250000000000000"]), "{answer:#}");
    ensure!(answer["estimate"] == json!(["hold", "9.999999990000000000"]), "{answer:#}");
    Ok(())
}

pub(super) fn funds(clients: &Clients) -> Result<()> {
    let answer = flow(&clients.stranger()?, &["funds", &clients.image()?])?;
    ensure!(answer["balance"] == json!(["0.0", 0]) && answer["hold"] == json!(["ALEPH", true]), "{answer:#}");
    // Of credits it knows no such error, and shows what the node answered.
    let credit = answer["credit"].to_string();
    ensure!(credit.contains("'error_code': 6") && credit.contains("'required_credits'"), "{answer:#}");
    Ok(())
}

pub(super) fn network(clients: &Clients) -> Result<()> {
    let answer = flow(&clients.somebody(0)?, &["network"])?;
    let entities = [
        "instance",
        "instance_confidential",
        "instance_gpu_premium",
        "instance_gpu_standard",
        "program",
        "program_persistent",
        "storage",
        "web3_hosting",
    ];
    ensure!(answer["entities"] == json!(entities) && answer["gpus"] == 4, "{answer:#}");
    ensure!(answer["crns"] == json!([[clients.compute_node()?, CRN]]), "{answer:#}");
    if let Some(runtimes) = answer.get("runtimes") {
        ensure!(*runtimes == json!([["base", "program", clients.image()?, true]]), "{answer:#}");
    }
    Ok(())
}

pub(super) fn watch(clients: &Clients) -> Result<()> {
    let answer = flow(&clients.somebody(6)?, &["watch"])?;
    let heard: Vec<i64> = answer["heard"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    ensure!(heard.len() == 3 && heard.windows(2).all(|pair| pair[1] == pair[0] + 1), "some were left out: {answer}");
    Ok(())
}

pub(super) fn accounts(clients: &Clients) -> Result<()> {
    let answer = flow(&clients.somebody(5)?, &["accounts"])?;
    ensure!(answer["history"] == json!([1_000_000_000_000_i64]), "{answer:#}");
    ensure!(answer["balances"].as_array().is_some_and(|list| list.len() == 1), "{answer:#}");
    Ok(())
}
