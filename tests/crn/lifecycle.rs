//! How machines come and go.

use crate::{
    answer::{at_once, expect, expect_json, expect_words},
    stage::{self, COLD_WITHIN, NONE_IN_ADVANCE, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use harness::devnet::ComputeNode;
use serde_json::json;
use std::{collections::BTreeSet, thread, time::Duration};

/// Says which start of the program answers; a process has one.
const WHICH: &str = "import asyncio, uuid
boot = uuid.uuid4().hex
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        await send({'type': 'lifespan.startup.complete'})
        await receive()
        print('the shutdown hook ran', flush=True)
        await send({'type': 'lifespan.shutdown.complete'})
        return
    if scope['path'].startswith('/sleep/'):
        await asyncio.sleep(float(scope['path'][7:]))
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})
    await send({'type': 'http.response.body', 'body': boot.encode() + b' ' + scope['path'].encode()})
";

/// How often the node says that this program was started.
fn boots(node: &ComputeNode<'_>, hash: &str) -> Result<usize> {
    let log = node.process().log()?;
    Ok(log.lines().filter(|line| line.contains("a program is ready") && line.contains(hash)).count())
}

pub(crate) fn one_boot() -> Result<()> {
    const CALLS: usize = 100;
    let network = stage::network()?;
    let hash = network.plain("a-hundred", &format!("# a hundred at once\n{WHICH}"))?;
    let client = network.client();
    let answers = at_once(CALLS, |index| {
        // All are there long before the program is. The emulated host's network resets connections of a burst that its one queue
        // has no room for.
        thread::sleep(Duration::from_millis(20 * index as u64));
        let path = format!("/call/{index}");
        let text = expect(200, client.get(&format!("/vm/{hash}{path}"))?)?.text();
        let (boot, answered) = text.split_once(' ').context("two words")?;
        ensure!(answered == path, "{path} was answered with {answered}");
        Ok(boot.to_owned())
    })?;
    let boots_seen: BTreeSet<String> = answers.into_iter().collect();
    ensure!(boots_seen.len() == 1, "answers of {} starts", boots_seen.len());
    let booted = boots(&network.compute, hash)?;
    ensure!(booted == 1, "the node started it {booted} times");
    Ok(())
}

pub(crate) fn beside_each_other() -> Result<()> {
    let network = stage::network()?;
    // One is slow to start; the other must not wait for it.
    let slow = network.binary("slow-start", 200, json!({"START_DELAY_MS": "45000", "N": "1"}))?;
    let quick = network.binary("quick-start", 200, json!({"N": "2"}))?;
    let client = network.client();
    thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| client.get(&format!("/vm/{slow}/")));
        // The slow one is on its way.
        wait_until(Duration::from_secs(120), "the slow program is being started", || {
            Ok(expect_json(200, client.get("/v2/about/executions/list")?)?[slow].is_object())
        })?;
        expect_words(200, client.get(&format!("/vm/{quick}/"))?, &["hello from a static binary"])?;
        ensure!(!waiting.is_finished(), "the quick program waited for the slow one");
        let answer = waiting.join().map_err(|_| anyhow::anyhow!("a call panicked"))??;
        expect(200, answer).map(drop)
    })
}

pub(crate) fn idle() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-idle", &["programs.idle_seconds=2", NONE_IN_ADVANCE])?;
    let client = node.client(COLD_WITHIN);
    let hash = network.plain("idle", &format!("# goes to sleep\n{WHICH}"))?;
    let first = expect(200, client.get(&format!("/vm/{hash}/"))?)?.text();
    ensure!(node.monitors()?.len() == 1, "one machine runs");
    wait_until(Duration::from_secs(120), "the idle machine is gone", || Ok(node.monitors()?.is_empty()))?;
    let log = network.host.shell(&format!("cat {}/logs/*", node.data_dir()))?;
    ensure!(log.contains("the shutdown hook ran"), "the program was not asked to end: {log}");
    let second = expect(200, client.get(&format!("/vm/{hash}/"))?)?.text();
    ensure!(first != second, "the next call is answered by a new machine");
    node.stop()
}

pub(crate) fn clean_stop() -> Result<()> {
    let network = stage::network()?;
    let mut node = network.another_compute_node("crn-stop", &[NONE_IN_ADVANCE])?;
    let client = node.client(COLD_WITHIN);
    let hash = network.plain("stop", &format!("# is asked to end\n{WHICH}"))?;
    expect(200, client.get(&format!("/vm/{hash}/"))?)?;
    let monitors = node.monitors()?;
    ensure!(monitors.len() == 1, "one machine runs, not {monitors:?}");
    thread::scope(|scope| -> Result<()> {
        let call = scope.spawn(|| client.get(&format!("/vm/{hash}/sleep/6")));
        thread::sleep(Duration::from_secs(2));
        node.stop()?;
        // The call that was there is answered, although the node was told to stop.
        let answer = call.join().map_err(|_| anyhow::anyhow!("a call panicked"))??;
        expect_words(200, answer, &["/sleep/6"])
    })?;
    // By their ids: what a stopped node left would not be its child any more.
    let left: Vec<_> = network.host.processes()?.into_iter().filter(|process| monitors.contains(&process.id)).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    node.start_again()?;
    expect(200, node.client(COLD_WITHIN).get(&format!("/vm/{hash}/"))?)?;
    node.stop()
}

pub(crate) fn damaged_cache() -> Result<()> {
    let network = stage::network()?;
    let mut node = network.another_compute_node("crn-cache", &[NONE_IN_ADVANCE])?;
    let hash = network.binary("plain", 60, json!({}))?;
    expect(200, node.client(COLD_WITHIN).get(&format!("/vm/{hash}/"))?)?;
    let monitors = node.monitors()?;
    node.kill()?;
    wait_until(Duration::from_secs(60), "its machine is gone", || {
        Ok(!network.host.processes()?.iter().any(|process| monitors.contains(&process.id)))
    })?;
    // Sixteen bytes in the middle of every file that it keeps: code and runtime.
    let damage = format!(
        "for file in $(find {0}/files -type f); do size=$(stat -c %s $file); \
         dd if=/dev/zero of=$file bs=16 count=1 seek=$((size / 32)) conv=notrunc 2>/dev/null && echo $file; done",
        node.data_dir()
    );
    let damaged = network.host.shell(&damage)?;
    ensure!(damaged.lines().count() >= 2, "code and runtime are kept: {damaged:?}");
    node.start_again()?;
    // It may notice when it starts, or when the program does not; then the next call works.
    let client = node.client(COLD_WITHIN);
    let mut answer = client.get(&format!("/vm/{hash}/"))?;
    if answer.status != 200 {
        ensure!(answer.status >= 500, "{}: {}", answer.status, answer.text());
        answer = client.get(&format!("/vm/{hash}/"))?;
    }
    expect_words(200, answer, &["hello from a static binary"])?;
    node.stop()
}
