//! What programs write, and what is there afterwards.

use super::{
    clones::{COLD, FUNCTION, RUNTIME, TEMPLATES, wait_until_idle, ways},
    scale,
};
use crate::{
    answer::{expect, expect_words, sha256},
    stage::{self, COLD_WITHIN, NONE_IN_ADVANCE, Network},
};
use anyhow::{Context as _, Result, ensure};
use harness::{devnet::ComputeNode, http::Client, kvm_host::Kind};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How often the machine is cut off, instead of [`USUAL_ROUNDS`].
const ROUNDS_VARIABLE: &str = "BETH_CRASH_ROUNDS";
/// As many as an ordinary run has time for. Two hundred were, by hand.
const USUAL_ROUNDS: u32 = 3;

fn persistent_data(size_mib: u32) -> Value {
    json!([{"persistence": "host", "name": "data", "size_mib": size_mib, "mount": "/data"}])
}

fn program(network: &Network, name: &str, volumes: &Value) -> Result<&'static str> {
    network.binary_with(name, 300, json!({"VOLUME": "/data", "NAME": name}), volumes)
}

fn get(client: &Client, hash: &str, path: &str) -> Result<String> {
    Ok(expect(200, client.get(&format!("/vm/{hash}/{path}"))?)?.text())
}

/// The files of the node's persistent volumes, in the host.
fn files(node: &ComputeNode<'_>) -> Result<Vec<String>> {
    let found = node.host().run(&["find", &format!("{}/volumes", node.data_dir()), "-type", "f"])?.expect_success()?;
    Ok(found.text().lines().map(str::to_owned).collect())
}

/// A copy of a volume, checked by `e2fsck`: first what the next mount does too (replay the journal, drop what was deleted), then every
/// block, without leave to repair any. Returns whether there was something to replay.
fn check_file_system(node: &ComputeNode<'_>, file: &str, copy: &Path) -> Result<bool> {
    fs::write(copy, node.host().read(file, 0)?)?;
    let check = |options: &str| -> Result<(Option<i32>, String)> {
        let output = Command::new("/sbin/e2fsck").arg(options).arg(copy).output();
        let output = output.context("e2fsck is needed: apt-get install e2fsprogs")?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (code, said) = check("-p")?;
    ensure!(matches!(code, Some(0 | 1)), "e2fsck -p: {code:?}: {said}");
    let replayed = said.contains("recovering journal");
    let (code, said) = check("-fn")?;
    ensure!(code == Some(0), "e2fsck -fn: {code:?}: {said}");
    Ok(replayed)
}

pub(crate) fn ephemeral() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-ephemeral", &[COLD, TEMPLATES])?;
    let hash = program(network, "ephemeral", &json!([{"ephemeral": true, "size_mib": 20, "mount": "/data"}]))?;
    let client = node.client(COLD_WITHIN);
    for call in 0..5 {
        // What the program has written when it started is there, in a clone too; what others have written is not.
        let visits = get(&client, hash, "visit")?;
        ensure!(visits == "1", "call {call} finds {visits} visits");
        wait_until_idle(&node)?;
        if call == 2 {
            let filled = get(&client, hash, "fill")?;
            ensure!(filled.contains("os error 28"), "{filled}");
            wait_until_idle(&node)?;
        }
    }
    let mounts = get(&client, hash, "mounts")?;
    ensure!(mounts.lines().any(|line| line.starts_with("/dev/vdc /data ext4 rw")), "{mounts}");
    wait_until_idle(&node)?;
    let came_up = ways(&node, hash)?;
    ensure!(came_up.len() == 7 && came_up[1..].iter().all(|way| way == FUNCTION), "{came_up:?}");
    ensure!(files(&node)?.is_empty(), "nothing of them has a name");
    node.stop()
}

pub(crate) fn persistent() -> Result<()> {
    let network = stage::network()?;
    let mut node =
        network.another_compute_node("crn-persistent", &[COLD, TEMPLATES, "programs.calls_per_machine=1"])?;
    let hash = program(network, "persistent", &persistent_data(5))?;
    let client = node.client(COLD_WITHIN);
    let expected = Cell::new(1);
    let visit = || {
        let visits = get(&client, hash, "visit")?;
        ensure!(visits == expected.get().to_string(), "{visits} visits instead of {}", expected.get());
        // This one, and the start of the next machine.
        expected.set(expected.get() + 2);
        Ok(())
    };
    // Each machine is told to end when its call has been answered, and the next one waits for its volume.
    for _ in 0..3 {
        visit()?;
    }
    wait_until_idle(&node)?;
    // Not from a template that has the volume mounted: its memory knows a file system that has changed since.
    let came_up = ways(&node, hash)?;
    ensure!(came_up.len() == 3 && came_up[1..].iter().all(|way| way == RUNTIME), "{came_up:?}");
    // However many calls there are, one machine has the volume. Its start was a visit.
    let answers = scale::at_once(&node, hash, 3, 2000)?;
    ensure!(scale::machines(&answers).len() == 1, "{answers:?}");
    expected.set(expected.get() + 1);
    wait_until_idle(&node)?;
    node.stop()?;
    node.start_again()?;
    visit()?;
    node.kill()?;
    node.start_again()?;
    visit()?;
    wait_until_idle(&node)?;

    let other = program(network, "persistent too", &persistent_data(5))?;
    let visits = get(&client, other, "visit")?;
    ensure!(visits == "1", "another program's volume of the same name is another: {visits} visits");
    wait_until_idle(&node)?;
    let files = files(&node)?;
    ensure!(files.len() == 2, "{files:?}");
    for file in &files {
        let replayed = check_file_system(&node, file, &stage::folder("volumes")?.join("persistent"))?;
        ensure!(!replayed, "a machine that was asked to end has unmounted its volumes: {file}");
    }
    node.stop()
}

pub(crate) fn full() -> Result<()> {
    let network = stage::network()?;
    let name = "crn-full";
    let emulated = network.host.kind() == Kind::Emulated;
    if emulated {
        // A disk that is smaller than what is promised on it.
        let folder = network.host.path(&format!("data/{name}/volumes"));
        let script = format!("mkdir -p {folder} && mount -t tmpfs -o size=6m tmpfs {folder}");
        network.host.shell(&script)?;
    }
    let node = network.another_compute_node(name, &[NONE_IN_ADVANCE, "volumes.limit_mib=30"])?;
    let client = node.client(COLD_WITHIN);

    let hash = program(network, "fills its volume", &persistent_data(3))?;
    let filled = get(&client, hash, "fill")?;
    ensure!(filled.contains("os error 28"), "{filled}");
    let written: u64 = filled.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    ensure!((1 << 20..3 << 20).contains(&written), "{written} bytes went into 3 MiB");
    let taken = || -> Result<u64> {
        let script = format!("du -k {}/volumes/*/* | cut -f 1", node.data_dir());
        Ok(network.host.shell(&script)?.trim().parse()?)
    };
    let before = taken()?;
    get(&client, hash, "empty")?;
    get(&client, hash, "visit")?;
    stage::wait_until(Duration::from_secs(120), "what was deleted takes no space of the host", || {
        Ok(taken()? + 1024 < before)
    })?;

    let greedy = program(network, "asks for too much", &persistent_data(28))?;
    expect_words(
        503,
        client.get(&format!("/vm/{greedy}/"))?,
        &["a volume of 28 MiB does not fit: 27 MiB of the 30 MiB"],
    )?;

    if emulated {
        let victim = program(network, "fills the disk", &persistent_data(20))?;
        let filled = get(&client, victim, "fill")?;
        ensure!(filled.contains("os error 5") || filled.contains("os error 30"), "{filled}");
        // Neither its machine nor the node hangs.
        expect(200, client.get(&format!("/vm/{victim}/mounts"))?)?;
        expect(200, client.get(&format!("/vm/{hash}/"))?)?;
        ensure!(node.monitors()?.len() == 2, "both machines are there");
        // Its operator makes room; the next machine writes again.
        let folder = network.host.path(&format!("data/{name}/volumes"));
        network.host.run(&["mount", "-o", "remount,size=60m", &folder])?.expect_success()?;
        for monitor in node.monitors()? {
            network.host.kill(monitor, 9)?;
        }
        wait_until_idle(&node)?;
        get(&client, victim, "empty")?;
        get(&client, victim, "visit")?;
    }
    node.stop()
}

/// Numbers of records that a program says are durable, until its answer ends.
fn take_numbers(client: &Client, hash: &str, mut taken: impl FnMut(u64)) -> Result<()> {
    let (status, stream) = client.get_stream(&format!("/vm/{hash}/write"))?;
    ensure!(status == 200, "{status}");
    for line in BufReader::new(stream).lines() {
        // The answer is cut off, as it must be.
        let Ok(line) = line else { break };
        taken(line.parse()?);
    }
    Ok(())
}

pub(crate) fn killed() -> Result<()> {
    let rounds = std::env::var(ROUNDS_VARIABLE).ok().map_or(Ok(USUAL_ROUNDS), |rounds| rounds.parse())?;
    let network = stage::network()?;
    let mut node = network.another_compute_node("crn-cut", &[NONE_IN_ADVANCE, TEMPLATES])?;
    let hash = program(network, "is cut off", &persistent_data(20))?;
    let client = node.client(COLD_WITHIN);
    let folder = stage::folder("volumes")?;
    let copy: PathBuf = folder.join("cut");
    let mut report = fs::File::create(folder.join("rounds"))?;
    let (mut replays, mut all) = (0, 0);
    for round in 1..=rounds {
        let began = Instant::now();
        get(&client, hash, "records")?;
        let monitors = node.monitors()?;
        ensure!(monitors.len() == 1, "{monitors:?}");
        // After some records, and then at any instant of what comes next.
        let random = sha256(&round.to_le_bytes());
        let records = u64::from_str_radix(&random[..2], 16)? % 40;
        let delay = Duration::from_micros(u64::from_str_radix(&random[2..8], 16)? % 150_000);
        let (mut count, mut durable, mut killing) = (0, 0, None);
        take_numbers(&client, hash, |number| {
            (count, durable) = (count + 1, number);
            if count == records + 1 {
                let (host, monitor) = (network.host, monitors[0]);
                killing = Some(thread::spawn(move || {
                    thread::sleep(delay);
                    host.kill(monitor, 9)
                }));
            }
        })?;
        let killing = killing.context("the machine ended before it was killed")?;
        killing.join().map_err(|_| anyhow::anyhow!("the killer panicked"))??;

        let files = files(&node)?;
        ensure!(files.len() == 1, "{files:?}");
        let replayed = check_file_system(&node, &files[0], &copy).with_context(|| format!("round {round}"))?;
        let found = get(&client, hash, "records").with_context(|| format!("round {round}"))?;
        let numbers: Vec<u64> = found.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [log, state] = numbers[..] else { anyhow::bail!("round {round}: {found}") };
        ensure!(log >= durable && state >= durable, "round {round}: {durable} were durable, there are {found}");
        ensure!(state <= log && log <= state + 1, "round {round}: {found}");
        replays += u32::from(replayed);
        all = log;
        let took = began.elapsed().as_secs();
        writeln!(
            report,
            "round {round}: {count} records, {durable} durable, found {found}, replayed {replayed}, {took} s"
        )?;
    }
    // The node and its machine at once: the volume is free when that is gone.
    node.kill()?;
    node.start_again()?;
    let found = get(&client, hash, "records")?;
    ensure!(found.starts_with(&format!("{all} ")), "{found} instead of {all}");
    writeln!(report, "{rounds} rounds, {replays} with a journal to replay, {all} records, all there")?;
    ensure!(replays > 0, "no journal was ever replayed: the machine was never cut off while it wrote");
    node.stop()
}
