//! Create account, upload code, publish the PROGRAM, wait until processed, call it.

use crate::{
    answer::{expect, expect_json, expect_words},
    stage::{self, VERDICT_WITHIN},
};
use anyhow::{Context as _, Result, bail, ensure};
use harness::devnet::{Program, wait_for_allocation, wait_for_verdict};
use serde_json::json;

const HELLO: &str = "async def app(scope, receive, send):
    assert scope['type'] == 'http'
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})
    await send({'type': 'http.response.body', 'body': b'NAME says hello to ' + scope['path'].encode()})
";

pub(crate) fn an_account_a_program_an_answer() -> Result<()> {
    let network = stage::network()?;
    let ccn = network.core.client();
    // Somebody who never was here, with an account of their own.
    let user = stage::user(&network.core, 1_000_000_000)?;
    let address = user.account().address.clone();
    let file = stage::folder("archives")?.join("hello.py");
    std::fs::write(&file, HELLO.replace("NAME", "a new user"))?;
    let code = user.upload(&file)?;

    let runtime = network.runtime("python")?;
    let (hash, answered) = user.publish(&Program {
        code: &code,
        runtime: &runtime,
        entrypoint: "main:app",
        encoding: "plain",
        memory_mib: 256,
        seconds: 300,
        variables: json!({}),
        internet: false,
    })?;
    ensure!(answered == "pending" || answered == "processed", "it was answered {answered}");
    let waited = user.run(&["wait", &hash])?;
    ensure!(waited["status"] == "processed", "the SDK saw {waited}");

    let record = expect_json(200, ccn.get(&format!("/api/v0/messages/{hash}"))?)?;
    ensure!(record["status"] == "processed" && record["item_hash"] == hash, "{record}");
    ensure!(record["message"]["sender"] == address && record["message"]["type"] == "PROGRAM", "{record}");
    ensure!(record["message"]["content"]["code"]["ref"] == code, "{record}");
    let listed = user.run(&["messages", "--type", "PROGRAM"])?;
    ensure!(listed["hashes"] == json!([hash]), "the SDK lists {listed}");

    let node = wait_for_allocation(&ccn, &hash, VERDICT_WITHIN)?;
    let url = node["url"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    ensure!(url == network.compute.url(), "assigned to {node}");
    let plan = expect_json(200, ccn.get("/api/v0/plan")?)?;
    ensure!(plan.to_string().contains(node["node_id"].as_str().unwrap_or("no node_id")), "{node} is not in {plan}");

    let answer = expect(200, network.client().get(&format!("/vm/{hash}/some/where"))?)?;
    ensure!(answer.text() == "a new user says hello to /some/where", "{}", answer.text());
    ensure!(answer.header("aleph-program-itemhash") == Some(hash.as_str()), "{:?}", answer.headers);
    ensure!(answer.header("aleph-program-code-ref") == Some(code.as_str()), "{:?}", answer.headers);
    ensure!(answer.header("server").is_some_and(|server| server.starts_with("aleph-vm/")), "{:?}", answer.headers);
    Ok(())
}

pub(crate) fn paid_or_refused() -> Result<()> {
    let network = stage::network()?;
    let ccn = network.core.client();
    let (code, runtime) = (network.python("guestbook")?, network.runtime("python")?);
    // The code of another's program: its STORE message is what a PROGRAM names.
    let code_ref = expect_json(200, ccn.get(&format!("/api/v0/messages/{code}"))?)?;
    let code_ref = code_ref["message"]["content"]["code"]["ref"].as_str().unwrap_or_default().to_owned();
    let program = Program {
        code: &code_ref,
        runtime: &runtime,
        entrypoint: "main:app",
        encoding: "zip",
        memory_mib: 256,
        seconds: 30,
        variables: json!({}),
        internet: false,
    };

    let poor = stage::user(&network.core, 0)?;
    // What the user sees: the SDK reads the record of the rejection and raises it.
    let Err(refusal) = poor.publish(&program) else { bail!("a program was taken from an address without credits") };
    let text = format!("{refusal:#}");
    let told = text.lines().find(|line| line.contains("'error_code': 6")).with_context(|| text.clone())?;
    let detail = |name: &str| -> Result<&str> {
        let (_, rest) = told.split_once(&format!("'{name}': ")).with_context(|| told.to_owned())?;
        Ok(rest.trim_start_matches('\'').split(['\'', ',', '}']).next().unwrap_or_default())
    };
    ensure!(detail("account_credits")? == "0" && detail("min_runtime_days")? == "1", "{told}");
    let required: f64 = detail("required_credits")?.parse()?;
    ensure!(required > 0.0, "{told}");
    let path = format!("/api/v0/messages.json?addresses={}&msgTypes=PROGRAM", poor.account().address);
    let listed = expect_json(200, ccn.get(&path)?)?;
    ensure!(listed["messages"] == json!([]), "{listed}");

    // Somebody with money publishes the same, and it is taken.
    let rich = stage::user(&network.core, 1_000_000_000)?;
    let (hash, _) = rich.publish(&program)?;
    let seen = wait_for_verdict(&ccn, &hash, VERDICT_WITHIN)?;
    ensure!(seen.last().is_some_and(|status| status == "processed"), "{seen:?}");
    let price = expect_json(200, ccn.get(&format!("/api/v0/price/{hash}"))?)?;
    let cost: f64 = price["cost"].as_str().unwrap_or_default().parse()?;
    ensure!(price["payment_type"] == "credit" && cost > 0.0, "{price}");
    // What it costs a day is what was required, to a credit.
    ensure!((cost * 86_400.0 - required).abs() <= 1.0, "{cost} a second and {required} a day");
    Ok(())
}

pub(crate) fn another_program() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let first = network.plain("update-1", &HELLO.replace("NAME", "version 1"))?;
    let second = network.plain("update-2", &HELLO.replace("NAME", "version 2"))?;
    ensure!(first != second, "programs of different code are different programs");
    for (hash, version) in [(first, "version 1"), (second, "version 2")] {
        let answer = expect(200, client.get(&format!("/vm/{hash}/"))?)?;
        ensure!(answer.text() == format!("{version} says hello to /"), "{}", answer.text());
    }
    Ok(())
}

pub(crate) fn rejected_or_unknown() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let unknown = "0".repeat(64);
    expect_words(404, client.get(&format!("/vm/{unknown}/"))?, &["error"])?;
    expect_words(400, client.get("/vm/not-a-hash/")?, &["Invalid message reference: not-a-hash"])?;
    // A message that is there and is no program.
    let post = network.user.run(&["post", "note", "{\"text\": \"no program\"}"])?;
    let hash = post["item_hash"].as_str().unwrap_or_default();
    expect_words(400, client.get(&format!("/vm/{hash}/"))?, &["not a program"])
}
