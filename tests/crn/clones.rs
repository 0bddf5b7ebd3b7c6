//! Programs that come up from templates.

use crate::{
    answer::{expect, expect_json},
    stage::{self, COLD_WITHIN, Network, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::ComputeNode, kvm_host::Kind};
use kvm_host::clock::{Ahead, CLOCK, COMPARE};
use serde_json::{Value, json};
use std::{collections::BTreeSet, thread, time::Duration};

/// Every call is the first of its machine.
pub(super) const COLD: &str = "programs.idle_seconds=0";
/// And goes on from a template where there is one.
pub(super) const TEMPLATES: &str = "templates.level=function";
/// Clones that are compared, if the variable does not say another number. A thousand take a quarter of an hour.
const CLONES: usize = 12;
const CLONES_VARIABLE: &str = "BETH_CLONES";

/// How often a clone is asked for its time.
const CLOCK_QUESTIONS: &str = "60";

/// Draws at random in every way that programs do, and says what its machine believes of itself.
const DRAWS: &str = "import asyncio, json, os, random, socket, ssl, tempfile, time, uuid
import beth
imported = uuid.uuid4().hex
renewed = []
@beth.after_restore
def renew():
    renewed.append(random.random())
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('only http')
    if scope['path'] == '/held':
        await asyncio.sleep(10)
    if scope['path'] == '/clock':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        return await send({'type': 'http.response.body', 'body': str(time.time_ns() // 1000).encode()})
    drawn = {
        'random': random.random(), 'urandom': os.urandom(16).hex(), 'uuid4': str(uuid.uuid4()), 'uuid1': str(uuid.uuid1()),
        'tls': ssl.RAND_bytes(16).hex(), 'name': next(tempfile._get_candidate_names()), 'hook': renewed[-1:],
        'boot_id': open('/proc/sys/kernel/random/boot_id').read().strip(),
    }
    body = {'drawn': drawn, 'imported': imported, 'renewals': len(renewed), 'time': time.time(), 'host': socket.gethostname()}
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'application/json')]})
    await send({'type': 'http.response.body', 'body': json.dumps(body).encode()})
";

/// Has forty MiB of its own.
const SMALL: &str = "from fastapi import FastAPI
kept = bytearray(b'x') * (40 << 20)
app = FastAPI()
@app.get('/')
def root():
    return len(kept)
";

/// By which ways a program came up on a node, in order.
pub(super) fn ways(node: &ComputeNode<'_>, hash: &str) -> Result<Vec<String>> {
    let log = node.process().log()?;
    let ready = log.lines().filter(|line| line.contains("a program is ready") && line.contains(hash));
    let way = |line: &str| Some(line.split_once(" way=")?.1.split_once(" process=")?.0.to_owned());
    Ok(ready.filter_map(way).collect())
}

pub(super) const FUNCTION: &str = "template of its function";
pub(super) const RUNTIME: &str = "template of its runtime";

/// The machine of the last call has ended, as all do here after one.
pub(super) fn wait_until_idle(node: &ComputeNode<'_>) -> Result<()> {
    let client = node.client(Duration::from_secs(60));
    wait_until(Duration::from_secs(300), "the machine of the last call ends", || {
        Ok(expect_json(200, client.get("/v2/about/executions/list")?)? == json!({}))
    })
}

fn call(node: &ComputeNode<'_>, hash: &str) -> Result<Value> {
    let answer = expect_json(200, node.client(COLD_WITHIN).get(&format!("/vm/{hash}/"))?)?;
    wait_until_idle(node)?;
    Ok(answer)
}

/// The host's clock, seconds.
fn host_time(network: &Network, teller: &str) -> Result<f64> {
    let text = network.host.run(&[teller, CLOCK])?.expect_success()?.text();
    let micros: f64 = text.trim().parse().with_context(|| format!("the host's clock is {text:?}"))?;
    Ok(micros / 1e6)
}

pub(crate) fn differ() -> Result<()> {
    let clones = std::env::var(CLONES_VARIABLE).map_or(Ok(CLONES), |number| number.parse())?;
    let network = stage::network()?;
    let node = network.another_compute_node("crn-clones", &[COLD, TEMPLATES])?;
    let hash = network.plain("draws", DRAWS)?;
    let teller = network.host.install(&stage::installation().program("kvm-host"), "kvm-host")?;
    let (client, path) = (node.client(COLD_WITHIN), format!("/vm/{hash}/"));
    let first = call(&node, hash)?;
    let mut answers = vec![first.clone()];
    for _ in 0..clones {
        let before = host_time(network, &teller)?;
        let answer = expect_json(200, client.get(&path)?)?;
        let after = host_time(network, &teller)?;
        wait_until_idle(&node)?;
        let clock = answer["time"].as_f64().context("a time")?;
        ensure!(
            before <= clock && clock <= after,
            "the clone's clock is at {clock}, the host's went from {before} to {after}"
        );
        answers.push(answer);
    }
    let came_up = ways(&node, hash)?;
    ensure!(came_up.first().is_some_and(|way| way != FUNCTION), "the first start makes the template: {came_up:?}");
    ensure!(came_up.len() == clones + 1 && came_up[1..].iter().all(|way| way == FUNCTION), "{came_up:?}");
    for answer in &answers {
        // They are copies of one process, and each has been told so.
        ensure!(answer["imported"] == first["imported"], "{answer}");
        ensure!(answer["renewals"].as_u64() >= Some(1), "{answer}");
        ensure!(answer["host"] == first["host"], "{answer}");
    }
    // What the first clone touched all others had before they touched it.
    let log = node.process().log()?;
    let mapped =
        log.lines().filter(|line| line.contains("mapped_ranges: ") && !line.contains("mapped_ranges: 0")).count();
    ensure!(
        mapped + 2 >= clones || network.host.kind() == Kind::Local,
        "{mapped} of {clones} clones had their pages mapped"
    );
    compare_clocks(&node, &teller, &path)?;
    for name in first["drawn"].as_object().context("an object")?.keys() {
        let drawn: BTreeSet<String> = answers.iter().map(|answer| answer["drawn"][name].to_string()).collect();
        ensure!(drawn.len() == answers.len(), "{name} repeats among {} clones: {drawn:?}", answers.len());
    }
    node.stop()
}

/// The clock of a clone is the host's, as closely as many questions to one machine can tell.
fn compare_clocks(node: &ComputeNode<'_>, teller: &str, path: &str) -> Result<()> {
    let (client, listen) = (node.client(COLD_WITHIN), node.listen().context("it listens")?);
    let output = thread::scope(|scope| {
        // One call keeps the machine. When it ends before the questions do, those that are left are to clones of their own.
        let held = scope.spawn(|| client.get(&format!("{path}held")));
        let output = node.host().run(&[teller, COMPARE, listen, &format!("{path}clock"), CLOCK_QUESTIONS]);
        held.join().map_err(|_| anyhow::anyhow!("a call panicked"))??;
        output?.expect_success()
    })?;
    let all: Vec<Ahead> = output.text().lines().filter_map(Ahead::parse).collect();
    let (first, rest) = all.split_first().context("an answer")?;
    let ahead = rest.iter().try_fold(*first, |ahead, one| ahead.and(*one));
    let ahead = ahead.with_context(|| format!("a clock that goes wrong: {all:?}"))?;
    println!("a clone's clock is ahead of the host's by {} to {} µs", ahead.at_least, ahead.at_most);
    ensure!(ahead.at_least <= 0 && ahead.at_most >= 0, "{ahead:?}");
    wait_until_idle(node)
}

pub(crate) fn fall_back() -> Result<()> {
    let network = stage::network()?;
    let mut node = network.another_compute_node("crn-fallback", &[COLD, TEMPLATES])?;
    let hash = network.plain("falls-back", &format!("# its template is damaged\n{DRAWS}"))?;
    let expected = |ways: &[&str], came_up: Vec<String>| {
        let last: Vec<&str> = came_up.iter().rev().take(ways.len()).rev().map(String::as_str).collect();
        ensure!(last == ways, "{came_up:?}, not {ways:?} in the end");
        Ok(())
    };
    call(&node, hash)?;
    call(&node, hash)?;
    expected(&[FUNCTION], ways(&node, hash)?)?;

    // The state of each template, in place, while the node has it open: no clone goes on from that. The runtime's is of no use either.
    let data_dir = node.data_dir().to_owned();
    let damage = |file: &str| {
        let script = format!(
            "for file in {data_dir}/templates/*/{file}; do head -c 100 /dev/urandom | dd of=$file bs=1 seek=200 conv=notrunc 2>/dev/null; echo $file; done"
        );
        let damaged = network.host.shell(&script)?;
        ensure!(damaged.lines().count() >= 2, "a template of the runtime and one of the program: {damaged:?}");
        Ok(())
    };
    damage("state")?;
    call(&node, hash)?;
    expected(&["boot"], ways(&node, hash)?)?;
    let log = node.process().log()?;
    let complaints = log.lines().filter(|line| line.contains("a template is of no use and goes")).count();
    ensure!(complaints == 2, "{complaints} complaints");
    // That boot has made new ones.
    call(&node, hash)?;
    expected(&[FUNCTION], ways(&node, hash)?)?;

    // After a restart they are found again; one that somebody has written to meanwhile is not believed.
    wait_for_seals(network, &node)?;
    node.stop()?;
    node.start_again()?;
    call(&node, hash)?;
    expected(&[FUNCTION], ways(&node, hash)?)?;
    node.stop()?;
    damage("memory")?;
    node.start_again()?;
    call(&node, hash)?;
    expected(&["boot"], ways(&node, hash)?)?;
    node.stop()
}

/// Templates are sealed beside the calls.
fn wait_for_seals(network: &Network, node: &ComputeNode<'_>) -> Result<()> {
    let script = format!("cd {}/templates && for key in */; do ls $key; done", node.data_dir());
    wait_until(Duration::from_secs(300), "every template has its seal", || {
        let listed = network.host.shell(&script)?;
        let count = |name: &str| listed.lines().filter(|line| *line == name).count();
        Ok(count("seal") >= 2 && count("seal") == count("state"))
    })
}

pub(crate) fn switched_off() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-no-clones", &[COLD, TEMPLATES])?;
    let client = node.client(COLD_WITHIN);
    let comes_up_at_last = |hash: &str, last: &str| {
        for _ in 0..2 {
            expect(200, client.get(&format!("/vm/{hash}/"))?)?;
            wait_until_idle(&node)?;
        }
        let came_up = ways(&node, hash)?;
        ensure!(came_up.last().is_some_and(|way| way == last), "not by {last} in the end: {came_up:?}");
        Ok(())
    };
    for (level, last) in [("off", "boot"), ("runtime", RUNTIME), ("function", FUNCTION)] {
        let hash = network.binary(&format!("snapshot {level}"), 60, json!({"BETH_SNAPSHOT": level}))?;
        comes_up_at_last(hash, last)?;
    }

    // A small machine whose program fills it: what it writes to where the template has nothing is counted once.
    let hash = network.plain_in("small", SMALL, 128, false, json!({"BETH_SNAPSHOT": "runtime"}))?;
    comes_up_at_last(hash, RUNTIME)?;
    let log = node.process().log()?;
    ensure!(!log.contains("a template is of no use"), "{log}");
    node.stop()
}
