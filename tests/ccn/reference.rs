//! The reference of the HTTP interface: its document against the node that serves it, and its page in a browser.

use super::letter::{account_with_key, hash_of, message, now, post, publish, store, upload};
use crate::{
    answer::{expect, expect_json},
    stage,
};
use anyhow::{Context as _, Result, bail, ensure};
use harness::{browser::Browser, devnet::CoreNode, python::Environment};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Cases for each operation and phase.
const EXAMPLES: &str = "25";
/// Where the random choices begin: a run can be repeated.
const SEED: &str = "20260901";
/// How long the page may take for a step.
const STEP_WITHIN: Duration = Duration::from_secs(30);

/// Where the settings of the tests are.
fn here() -> PathBuf {
    stage::repository().join("tests/ccn/reference")
}

/// A node with something of each kind in it, and the hashes to ask for.
fn furnished(name: &str) -> Result<(CoreNode, Value)> {
    let folder = stage::folder(name)?;
    let core = CoreNode::start(stage::installation(), &folder, &["--dev".to_owned()])?;
    let ccn = core.client();
    let funded = core.accounts("account").into_iter().next().context("accounts are funded")?;
    let account = account_with_key(&funded.key)?;
    let note = post(&account, "asked for by the tests of the reference")?;
    let hidden = post(&account, "forgotten")?;
    let forget = message(&account, "FORGET", &json!({"hashes": [hash_of(&hidden)]}))?;
    let amended = json!({"type": "amend", "ref": hash_of(&note), "content": {"text": "amended"}});
    let amend = message(&account, "POST", &amended)?;
    let aggregate = message(&account, "AGGREGATE", &json!({"key": "profile", "content": {"name": "x"}}))?;
    for sent in [&note, &hidden, &amend, &aggregate, &forget] {
        expect(200, publish(&ccn, sent, true)?)?;
    }
    let content = format!("a file of {}", now());
    let stored = store(&account, content.as_bytes())?;
    expect(200, upload(&ccn, "/api/v0/storage/add_file", content.as_bytes(), Some(&stored))?)?;
    let file = expect_json(200, ccn.get(&format!("/api/v0/messages/{}", hash_of(&stored)))?)?;
    let file = file["message"]["content"]["item_hash"].clone();
    let waiting = message(&account, "POST", &json!({"type": "amend", "ref": "0".repeat(64), "content": {}}))?;
    publish(&ccn, &waiting, false)?;
    let known = json!({
        "address": funded.address,
        "messages": [hash_of(&note), hash_of(&stored), hash_of(&hidden), hash_of(&waiting)],
        "file": file,
    });
    Ok((core, known))
}

/// Every operation of the document is asked, with values that fit it and with values that do not. Nothing that comes back may be an error of the
/// node's, or of a status, a form or a shape that the document does not have; what does not fit must be refused.
pub(crate) fn conformance() -> Result<()> {
    let (core, known) = furnished("reference")?;
    let document = expect_json(200, core.client().get("/api/v0/openapi.json")?)?;
    ensure!(document["openapi"] == "3.1.0", "{}", document["openapi"]);
    let operations: usize = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, methods)| methods.as_object())
        .map(|methods| methods.len())
        .sum();
    let folder = stage::folder("reference")?;
    let found = schemathesis(&core, &folder, &here().join("schemathesis.toml"), "any")?;
    // It leaves out the document itself, which it has read already.
    let operations = operations - 1;
    for all in [format!("Selected: {operations}/{operations}\n"), format!("Tested: {operations}\n")] {
        ensure!(found.contains(&all), "not all are asked:\n{found}");
    }
    // The same, where something is found: ours are the values for the parts of paths.
    let settings = fs::read_to_string(here().join("schemathesis.toml"))?;
    let settings = format!("{settings}\n{}", values(&known));
    let path = folder.join("known.toml");
    fs::write(&path, settings)?;
    let found = schemathesis(&core, &folder, &path, "known")?;
    // It says what was never there.
    for path in ["storage/metadata/{hash}", "storage/raw/{hash}", "addresses/{address}/files"] {
        ensure!(!found.contains(&format!("GET /api/v0/{path}\n")), "{path} was never there:\n{found}");
    }
    Ok(())
}

/// Settings that ask for what is there.
fn values(known: &Value) -> String {
    let mut text = format!("[parameters]\n\"path.address\" = {}\n", known["address"]);
    for (paths, hashes) in [
        ("^/api/v0/(messages|price|storage/by-message-hash)/", &known["messages"]),
        ("^/api/v0/storage/(raw/|metadata/|count/)?\\\\{", &known["file"]),
    ] {
        text.push_str(&format!(
            "[[operations]]\ninclude-path-regex = \"{paths}\"\nparameters = {{ \"path.hash\" = {hashes} }}\n"
        ));
    }
    text
}

/// Runs it against a node; returns what it says.
fn schemathesis(core: &CoreNode, folder: &Path, settings: &Path, name: &str) -> Result<String> {
    let environment = Environment::install(&stage::cache()?, "reference", &here().join("requirements.txt"), None)?;
    let mut command = Command::new(environment.programs().join("schemathesis"));
    command.arg("--config-file").arg(settings).arg("run").arg(format!("{}/api/v0/openapi.json", core.url()));
    command.args(["--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED]);
    command.args(["--generation-database", "none", "--no-color"]);
    let output = command.current_dir(folder).output().context("schemathesis is installed")?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    fs::write(folder.join(format!("{name}.txt")), &text)?;
    if !output.status.success() {
        bail!("schemathesis found something:\n{text}");
    }
    Ok(text)
}

/// Somebody opens the page, looks for an operation, and sends its request.
pub(crate) fn page() -> Result<()> {
    let core = stage::core()?;
    let document = expect_json(200, core.client().get("/api/v0/openapi.json")?)?;
    let answer = expect(200, core.client().get("/docs")?)?;
    let policy = answer.header("content-security-policy").unwrap_or_default();
    ensure!(policy.starts_with("default-src 'none'"), "{policy}");

    let mut browser = Browser::start(&stage::folder("browser")?)?;
    browser.open(&format!("{}/docs", core.url()))?;
    browser.wait_until("document.body?.dataset.ready === 'yes'", STEP_WITHIN)?;
    let shown = browser.value("[...document.querySelectorAll('details .path')].map((path) => path.textContent)")?;
    let shown = shown.as_array().context("a list")?;
    for path in document["paths"].as_object().context("paths")?.keys() {
        ensure!(shown.iter().any(|shown| shown == path), "{path} is not shown");
    }

    // What is typed above leaves what it names.
    let look_for = |word: &str| {
        format!(
            "(() => {{ const filter = document.getElementById('filter'); filter.value = '{word}'; filter.dispatchEvent(new Event('input')); return [...document.querySelectorAll('details:not([hidden]) .path')].map((path) => path.textContent); }})()"
        )
    };
    let found = browser.value(&look_for("credit_history summary"))?;
    ensure!(found == json!(["/api/v0/addresses/{address}/credit_history/summary"]), "{found}");
    browser.value(&look_for(""))?;

    try_it(&mut browser, "get_api_v0_version", &[], "200", "\"version\"")?;
    let unknown = "0".repeat(64);
    try_it(&mut browser, "get_api_v0_messages_hash", &[("hash", &unknown)], "404", "\"not_found\"")?;
    try_it(&mut browser, "get_api_v0_messages_json", &[("pagination", "1")], "200", "\"pagination_per_page\": 1")?;
    try_it(&mut browser, "post_api_v0_messages", &[], "422", "\"field\"")?;
    try_it(&mut browser, "post_api_v0_digest_verify", &[], "401", "\"unauthorized\"")?;
    try_it(&mut browser, "get_api_ws0_status", &[], "connected", "pyaleph_status_sync_messages_total")?;
    let troubles = browser.troubles();
    ensure!(troubles.is_empty(), "{troubles:#?}");
    Ok(())
}

/// Opens an operation, fills its form in, sends it, and waits for an answer with that status and these words.
fn try_it(browser: &mut Browser, id: &str, values: &[(&str, &str)], status: &str, words: &str) -> Result<()> {
    let operation = format!("document.getElementById('{id}')");
    browser.value(&format!("{operation}.querySelector('summary').click()"))?;
    browser.wait_until(&format!("{operation}.querySelector('button.send') !== null"), STEP_WITHIN)?;
    for (name, value) in values {
        browser.value(&format!("{operation}.querySelector('input[data-name={name}]').value = '{value}'"))?;
    }
    browser.value(&format!("{operation}.querySelector('button.send').click()"))?;
    let answer = |part: &str| format!("({operation}.querySelector('.answer .{part}')?.textContent ?? '')");
    let condition =
        format!("{}.startsWith({}) && {}.includes({})", answer("status"), json!(status), answer("body"), json!(words));
    browser.wait_until(&condition, STEP_WITHIN).with_context(|| id.to_owned())
}
