//! Programs that fail in every way a program can.

use crate::{
    answer::{expect, expect_words},
    stage,
};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Instant;

pub(crate) fn exception() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let hash = network.python("conformance")?;
    expect_words(500, client.get(&format!("/vm/{hash}/raise"))?, &["Traceback", "a mistake of the application"])?;
    expect_words(500, client.get(&format!("/vm/{hash}/raise-sync"))?, &["Traceback", "ZeroDivisionError"])?;
    // The program is as it was.
    expect_words(200, client.get(&format!("/vm/{hash}/"))?, &["conformance"])
}

/// A program of its own: what it takes with it when it ends must be nobody else's.
///
/// It says which machine answers. What a program draws while it starts does not: machines that go on from one template share that.
const CRASHER: &str = "import os
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('only http')
    if scope['path'] == '/crash':
        os._exit(1)
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})
    boot_id = open('/proc/sys/kernel/random/boot_id').read()
    await send({'type': 'http.response.body', 'body': boot_id.encode()})
";

pub(crate) fn crash() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let hash = network.plain("crasher", CRASHER)?;
    let first = expect(200, client.get(&format!("/vm/{hash}/"))?)?.text();
    expect_words(502, client.get(&format!("/vm/{hash}/crash"))?, &["VM did not respond and was shut down"])?;
    let second = expect(200, client.get(&format!("/vm/{hash}/"))?)?.text();
    ensure!(first != second, "the next call is answered by a new machine");
    Ok(())
}

pub(crate) fn broken_import() -> Result<()> {
    let network = stage::network()?;
    let hash = network.python("broken_import")?;
    let answer = network.client().get(&format!("/vm/{hash}/"))?;
    expect_words(500, answer, &["Error during vm initialisation", "a_module_that_nobody_has_installed", "Traceback"])
}

pub(crate) fn broken_startup() -> Result<()> {
    let network = stage::network()?;
    let hash = network.python("broken_startup")?;
    let answer = network.client().get(&format!("/vm/{hash}/"))?;
    expect_words(500, answer, &["Error during vm initialisation", "the database is not there"])
}

pub(crate) fn silent() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let hash = network.python_limited("silent", 3)?;
    for _ in 0..2 {
        let began = Instant::now();
        let answer = client.get(&format!("/vm/{hash}/"))?;
        expect_words(504, answer, &["Program did not respond within resource.seconds"])?;
        ensure!(began.elapsed().as_secs() >= 3, "it had its three seconds");
    }
    Ok(())
}

pub(crate) fn bad_binaries() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let hash = network.binary("plain", 60, json!({}))?;
    expect_words(502, client.get(&format!("/vm/{hash}/garbage"))?, &["Invalid response from VM"])?;
    expect(200, client.get(&format!("/vm/{hash}/"))?)?;

    let ends = network.binary("ends", 60, json!({"EXIT_AT_START": "3"}))?;
    expect_words(500, client.get(&format!("/vm/{ends}/"))?, &["Error during vm initialisation"])?;

    let exits = network.binary("exits", 60, json!({"NAME": "exits"}))?;
    expect(200, client.get(&format!("/vm/{exits}/"))?)?;
    expect_words(502, client.get(&format!("/vm/{exits}/exit"))?, &["VM did not respond and was shut down"])?;
    expect(200, client.get(&format!("/vm/{exits}/"))?).map(drop)
}
