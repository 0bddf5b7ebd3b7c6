//! `cargo xtask demo`: the product in two minutes. A user's ordinary client signs a message, the core node takes it, a compute
//! node boots a microVM, and the user's web application answers.

mod story;

use crate::{build, command::repository, images, progress::Progress, setup};
use ::images::Cache;
use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE32_NOPAD;
use harness::{
    devnet::{ComputeNode, ComputeSite, CoreNode, Program, User, wait_for_allocation, wait_for_verdict, zip},
    http::{Answer, Client},
    interrupt::Interrupt,
    kvm_host::{Kind, KvmHost, Options},
    sdk::{Sdk, Session},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use story::{Story, median};

/// The compute node's port inside its host.
const COMPUTE_PORT: u16 = 4020;
/// What the treasury gives: about a thousand days of the program.
const CREDITS: u64 = 1_000_000_000;
/// How long a message may wait for its verdict, and a program for its node.
const VERDICT_WITHIN: Duration = Duration::from_secs(60);
/// How long the first call may take: in an emulated host a boot takes a minute or two.
const COLD_WITHIN: Duration = Duration::from_secs(1200);
/// Calls whose median is the warm figure.
const WARM_CALLS: usize = 5;

/// How to run the demo.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End once the application has answered, instead of running until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Write steps, times and URLs to a file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, yes: bool) -> Result<()> {
    let mut story = Story::begin();
    let interrupt = Interrupt::watch()?;
    let played = play(&mut story, arguments, yes, &interrupt);
    if played.is_err() {
        // It says which step.
        write_report(&story, arguments)?;
    }
    played
}

fn write_report(story: &Story, arguments: &Arguments) -> Result<()> {
    let Some(path) = &arguments.json else { return Ok(()) };
    fs::write(path, story.to_json()).with_context(|| format!("cannot write {}", path.display()))
}

fn play(story: &mut Story, arguments: &Arguments, yes: bool, interrupt: &Interrupt) -> Result<()> {
    println!("Beth: a signed message becomes a web application in a microVM\n");
    story.chapter("set-up (kept for the next time)");
    let installation = build::installation();
    story.step("tools", |_| {
        setup::packages(&[setup::TO_COMPILE, setup::TO_RUN], yes)?;
        setup::targets(&[setup::STATIC_TARGET, setup::PLUGIN_TARGET])?;
        Ok(((), "system packages and Rust targets are there".to_owned()))
    })?;
    story.step("images", |_| {
        images::make(&images::RUNTIMES, yes)?;
        Ok(((), "guest kernel, init, runtimes, microVM monitor, compute node".to_owned()))
    })?;
    story.step("core node", |progress| {
        build::core_node(progress)?;
        Ok(((), "ccn with its plugins".to_owned()))
    })?;
    let session = story.step("Python SDK", |progress| {
        let (sdk, session) = sdk(progress)?;
        Ok(((sdk, session), "aleph-sdk-python, the official one".to_owned()))
    })?;

    let folder = scratch()?;
    story.chapter("nodes");
    let host = story.step("KVM host", |progress| {
        progress.status("looking whether this machine runs microVMs");
        let mut options = Options::new(installation.program("vmm"), installation.program("kvm-host"));
        options.ports = vec![COMPUTE_PORT];
        let host = KvmHost::start(&options)?;
        let text = match host.kind() {
            Kind::Local => "this machine: its KVM runs microVMs",
            Kind::Emulated => "emulated by QEMU, which is slow; `cargo xtask doctor` says why",
        };
        Ok((host, text.to_owned()))
    })?;
    let emulated = host.kind() == Kind::Emulated;
    let compute_url = format!("http://{}", host.address(COMPUTE_PORT)?);
    let mut core = story.step("core channel node", |progress| {
        progress.status("starting ccn --dev");
        let core =
            CoreNode::start(&installation, &folder, &["--dev".to_owned(), "--crn".to_owned(), compute_url.clone()])?;
        let text = format!("{} (a network of its own, with a treasury)", core.url());
        Ok((core, text))
    })?;
    let compute = story.step("compute node", |progress| {
        progress.status("copying crn, vmm, kernel and init");
        let site = ComputeSite::install(&host, &installation)?;
        progress.status("starting crn");
        let compute = site.start("crn", COMPUTE_PORT, core.port(), &[])?;
        let text = compute.url().to_owned();
        Ok((compute, text))
    })?;

    let (sdk, session) = session;
    let told = with_nodes(story, &sdk, &session, &core, &compute, &folder, emulated);
    let log = keep_log(&compute, &folder);
    told.with_context(|| format!("the nodes' logs: {} and {}", core.log().display(), log.display()))?;
    write_report(story, arguments)?;
    if arguments.once {
        story.say("Stopping the nodes; without --once they stay until Ctrl-C.");
    } else {
        story.say("Running until Ctrl-C.");
        interrupt.wait();
        println!();
    }
    compute.stop()?;
    core.stop()?;
    keep_log(&compute, &folder);
    Ok(())
}

/// Everything that a user does, with what they see.
fn with_nodes(
    story: &mut Story,
    sdk: &Sdk,
    session: &Session,
    core: &CoreNode,
    compute: &ComputeNode<'_>,
    folder: &Path,
    emulated: bool,
) -> Result<()> {
    let ccn = core.client();
    story.chapter("a user with the official SDK");
    let user = story.step("wallet", |_| {
        let user = User::new(session, core.url())?;
        let text = user.account().address.clone();
        Ok((user, text))
    })?;
    story.step("credits", |_| {
        let treasury = User::with(session, core.url(), core.treasury()?);
        treasury.distribute(&user.account().address, CREDITS)?;
        let balance = ccn.get(&format!("/api/v0/addresses/{}/balance", user.account().address))?.json()?;
        ensure!(balance["credit_balance"] == CREDITS, "the balance is {balance}");
        Ok(((), format!("{CREDITS}, by a signed post of the treasury")))
    })?;
    let runtime = story.step("runtime uploaded", |progress| {
        let image = build::installation().runtime("python");
        let size = fs::metadata(&image).with_context(|| image.display().to_string())?.len();
        progress.status("the SDK sends it with a signed STORE message");
        let hash = user.upload(&image)?;
        Ok((hash.clone(), format!("Python with FastAPI, {} MB, {}", size / 1_000_000, short(&hash))))
    })?;
    let code = story.step("code uploaded", |_| {
        let archive = folder.join("guestbook.zip");
        zip(sdk.python(), &archive, &[&repository().join("tests/programs/guestbook/main.py")])?;
        let hash = user.upload(&archive)?;
        Ok((hash.clone(), format!("tests/programs/guestbook/main.py, {}", short(&hash))))
    })?;
    let (program, answered) = story.step("PROGRAM published", |_| {
        let (hash, answered) = user.publish(&Program {
            code: &code,
            runtime: &runtime,
            entrypoint: "main:app",
            encoding: "zip",
            memory_mib: 256,
            seconds: if emulated { 300 } else { 30 },
            variables: serde_json::json!({}),
            internet: false,
        })?;
        Ok(((hash.clone(), answered), hash))
    })?;
    story.step("processed", |_| {
        let seen = wait_for_verdict(&ccn, &program, VERDICT_WITHIN)?;
        if seen.last().is_some_and(|status| status != "processed") {
            let record = ccn.get(&format!("/api/v0/messages/{program}"))?.text();
            anyhow::bail!("the core node did not process the message: {record}");
        }
        let mut path = vec![answered.clone()];
        path.extend(seen);
        path.dedup();
        Ok(((), format!("{}; paid for, and its files are there", path.join(" → "))))
    })?;
    story.step("scheduled", |_| {
        let node = wait_for_allocation(&ccn, &program, VERDICT_WITHIN)?;
        let url = node["url"].as_str().unwrap_or("a node without a URL");
        ensure!(
            url.trim_end_matches('/') == compute.url(),
            "it was assigned to {node}, and not to the one compute node at {}",
            compute.url()
        );
        Ok(((), format!("on {url}")))
    })?;

    story.chapter("the application");
    let client = compute.client(COLD_WITHIN);
    let path = format!("/vm/{program}");
    let cold = story.step("cold call", |progress| {
        let answer = watched(progress, compute, &program, || client.get(&format!("{path}/")))?;
        ensure!(answer.status == 200, "the application answered {}: {}", answer.status, answer.text());
        Ok((answer.json()?, "200, from a microVM that was not there before".to_owned()))
    })?;
    story.set_cold();
    story
        .step("warm call", |_| {
            let mut times = Vec::new();
            for _ in 0..WARM_CALLS {
                let began = Instant::now();
                let answer = client.get(&format!("{path}/"))?;
                times.push(began.elapsed());
                ensure!(answer.status == 200, "the application answered {}: {}", answer.status, answer.text());
            }
            let median = median(&mut times);
            Ok((median, format!("200, in {:.1} ms (the median of {WARM_CALLS})", median.as_secs_f64() * 1e3)))
        })
        .map(|median| story.set_warm(median))?;
    story.step("guestbook signed", |_| {
        let entry = serde_json::json!({"name": "Ada", "message": "signed from the demo"});
        let answer = client.post_json(&format!("{path}/"), &entry)?;
        ensure!(answer.status == 201, "the application answered {}: {}", answer.status, answer.text());
        let entries = client.get(&format!("{path}/entries"))?;
        ensure!(entries.text().contains("signed from the demo"), "the entry is not there: {}", entries.text());
        Ok(((), "one entry, kept by the running machine".to_owned()))
    })?;
    epilogue(story, core, compute, &program, &cold)
}

fn epilogue(
    story: &mut Story,
    core: &CoreNode,
    compute: &ComputeNode<'_>,
    program: &str,
    answer: &serde_json::Value,
) -> Result<()> {
    let application = format!("{}/vm/{program}/", compute.url());
    let port = compute.url().rsplit(':').next().unwrap_or_default();
    let own = format!("http://{}.localhost:{port}/", label(program)?);
    story.url("application", &application);
    story.url("own origin", &own);
    story.url("API docs", &format!("{own}docs"));
    story.url("message", &format!("{}/api/v0/messages/{program}", core.url()));
    story.url("assignment", &format!("{}/api/v0/allocation/{program}", core.url()));
    story.url("core node", core.url());
    story.url("compute node", compute.url());
    println!("\nThe application says:\n{}", serde_json::to_string_pretty(answer)?);
    println!("\nTry next:");
    println!(
        "  curl -X POST {application} -H 'content-type: application/json' -d '{{\"name\": \"you\", \"message\": \"hello\"}}'"
    );
    println!("  curl {application}entries");
    println!("  change tests/programs/guestbook/main.py, and run the demo again");
    Ok(())
}

/// Says what the node is doing about the program while a call waits for it.
fn watched(
    progress: &Progress,
    compute: &ComputeNode<'_>,
    program: &str,
    call: impl FnOnce() -> Result<Answer>,
) -> Result<Answer> {
    let over = AtomicBool::new(false);
    let status = Client::new(compute.url(), Duration::from_secs(5));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if let Some(phase) = phase(&status, program) {
                    progress.status(phase);
                }
                thread::sleep(Duration::from_millis(300));
            }
        });
        let answer = call();
        over.store(true, Ordering::Relaxed);
        answer
    })
}

fn phase(compute: &Client, program: &str) -> Option<&'static str> {
    let list = compute.get("/v2/about/executions/list").ok()?.json().ok()?;
    let status = &list[program]["status"];
    let reached = |name: &str| status[name].is_string();
    Some(match () {
        () if reached("started_at") => "the application is up and answers",
        () if reached("starting_at") => "booting the microVM, then the application",
        () if reached("preparing_at") => "fetching and verifying code and runtime",
        () => "asking the core node for the message",
    })
}

/// The SDK's environment, with an interpreter running in it.
pub(crate) fn sdk(progress: &Progress) -> Result<(Sdk, Session)> {
    progress.status("a virtual environment with the SDK (first use)");
    let sdk = Sdk::install(Cache::open()?.root(), &repository().join("tests/both/sdk"))?;
    progress.status("starting Python");
    let session = sdk.session()?;
    session.user(&["new-account"])?;
    Ok((sdk, session))
}

/// An empty folder for this run; the logs of the run before are in it until then.
fn scratch() -> Result<PathBuf> {
    let folder = build::target_folder().join("demo");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Copies the compute node's log out of its host.
fn keep_log(compute: &ComputeNode<'_>, folder: &Path) -> PathBuf {
    let path = folder.join("crn.log");
    // A host that is gone has no log any more.
    if let Ok(log) = compute.process().log() {
        let _ = fs::write(&path, log);
    }
    path
}

/// The host label of a program: its hash in base32.
fn label(item_hash: &str) -> Result<String> {
    let bytes = data_encoding::HEXLOWER.decode(item_hash.as_bytes()).context("a message's hash is hex")?;
    Ok(BASE32_NOPAD.encode(&bytes).to_lowercase())
}

fn short(hash: &str) -> String {
    hash.chars().take(12).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_a_host_label() {
        let hash = "00".repeat(32);
        assert_eq!(label(&hash).expect("a label"), "a".repeat(52));
        assert!(label("nonsense").is_err());
        assert_eq!(short(&hash), "000000000000…");
    }
}
