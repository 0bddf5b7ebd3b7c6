//! A stranger's plugin: the guide for authors, followed to the letter in a folder outside of the workspace.
//!
//! Every command of the guide is run as it is printed. What differs is what differs on every machine: where the folders are, at which address the node
//! listens, and that the environment of the SDK is the one that other tests have, of the same requirements.

use crate::{
    answer::expect_json,
    stage::{self, VERDICT_WITHIN, repository, wait_until},
};
use anyhow::{Context as _, Result, bail, ensure};
use harness::{http::Client, process::Process};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Where the guide has the node listen.
const ADDRESS: &str = "127.0.0.1:4024";
/// How long the node may take to be built, if it is not, and to start.
const READY_WITHIN: Duration = Duration::from_secs(900);
/// How long an answer may take on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A section of the guide.
struct Guide {
    commands: Vec<String>,
    /// Lines that go and lines that come, in the order in which they are printed.
    changes: Vec<(Vec<String>, Vec<String>)>,
}

impl Guide {
    fn section(title: &str) -> Result<Self> {
        let path = repository().join("plugins/README.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let begin = text.find(&format!("\n## {title}\n")).with_context(|| format!("no section {title:?}"))? + 1;
        let end = text[begin..].find("\n## ").map_or(text.len(), |length| begin + length);
        let mut guide = Self { commands: Vec::new(), changes: Vec::new() };
        let mut language = None;
        for line in text[begin..end].lines() {
            match (line.strip_prefix("```"), language) {
                (Some(_), Some(_)) => language = None,
                (Some(begins), None) => {
                    language = Some(begins);
                    if begins == "diff" {
                        guide.changes.push((Vec::new(), Vec::new()));
                    }
                }
                (None, Some("sh")) => guide.commands.push(line.to_owned()),
                (None, Some("diff")) => {
                    let (old, new) = guide.changes.last_mut().context("a change has begun")?;
                    match line.split_at_checked(1) {
                        Some(("-", rest)) => old.push(rest.to_owned()),
                        Some(("+", rest)) => new.push(rest.to_owned()),
                        _ => bail!("a change that says neither what goes nor what comes: {line:?}"),
                    }
                }
                (None, Some(other)) => bail!("nobody follows a block of {other:?}"),
                (None, None) => {}
            }
        }
        ensure!(!guide.commands.is_empty(), "no commands in {title:?}");
        Ok(guide)
    }
}

/// Somebody who follows the guide.
struct Stranger {
    guide: Guide,
    /// Where the folder of the checkout is, as far as the guide is concerned.
    folder: tempfile::TempDir,
    /// Where the next command is run.
    place: PathBuf,
    /// What is printed, and what stands there on this machine.
    meant: Vec<(&'static str, String)>,
    done: BTreeSet<usize>,
}

impl Stranger {
    fn new(title: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        ensure!(!folder.path().starts_with(repository()), "a stranger does not work in the checkout");
        Ok(Self {
            guide: Guide::section(title)?,
            meant: vec![("../", format!("{}/", folder.path().display()))],
            folder,
            place: repository(),
            done: BTreeSet::new(),
        })
    }

    /// The next command of the guide that reads so; as it reads here.
    fn next(&mut self, printed: &str) -> Result<String> {
        let mut places = (0..).zip(&self.guide.commands).filter(|(place, _)| !self.done.contains(place));
        let (place, _) = places.next().with_context(|| format!("the guide has ended, and not with {printed:?}"))?;
        let found = &self.guide.commands[place];
        ensure!(found == printed, "the guide goes on with {found:?}, and not with {printed:?}");
        self.done.insert(place);
        Ok(self.meant.iter().fold(printed.to_owned(), |line, (word, meaning)| line.replace(word, meaning)))
    }

    /// Runs the next command, which reads so; returns what it prints.
    fn does(&mut self, printed: &str) -> Result<String> {
        let line = self.next(printed)?;
        if let Some(folder) = line.strip_prefix("cd ") {
            self.place = PathBuf::from(folder);
            return Ok(String::new());
        }
        let output = self.shell(&line).output().with_context(|| line.clone())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{line}` fails ({}):\n{said}\n{complained}", output.status);
        Ok(said)
    }

    /// The same, where it prints JSON.
    fn asks(&mut self, printed: &str) -> Result<Value> {
        let said = self.does(printed)?;
        serde_json::from_str(&said).with_context(|| format!("`{printed}` says {said:?}"))
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-ec", line]).current_dir(&self.place);
        // What cargo tells the programs that it runs is not a stranger's.
        for (variable, _) in env::vars_os() {
            let text = variable.to_string_lossy();
            let prefixes = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_"];
            if prefixes.iter().any(|prefix| text.starts_with(prefix)) || ["CARGO", "RUSTUP_TOOLCHAIN"].contains(&&*text)
            {
                command.env_remove(&variable);
            }
        }
        command
    }

    /// Makes the next change of the guide in a file.
    fn changes(&mut self, file: &str) -> Result<()> {
        ensure!(!self.guide.changes.is_empty(), "the guide has no further change");
        let (old, new) = self.guide.changes.remove(0);
        let path = self.place.join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (old, new) = (old.join("\n"), new.join("\n"));
        ensure!(text.matches(&old).count() == 1, "{file} does not have, just once:\n{old}");
        Ok(fs::write(&path, text.replacen(&old, &new, 1))?)
    }

    /// The guide is at its end.
    fn is_done(&self) -> Result<()> {
        let left: Vec<&String> = self.guide.commands.iter().skip(self.done.len()).collect();
        ensure!(left.is_empty() && self.guide.changes.is_empty(), "nobody has done {left:?}, {:?}", self.guide.changes);
        Ok(())
    }
}

/// Waits until the plugin of that name is shown as active in that version.
fn wait_for_version(ccn: &Client, name: &str, version: &str) -> Result<()> {
    let mut last = Value::Null;
    wait_until(VERDICT_WITHIN, "a plugin", || {
        last = expect_json(200, ccn.get("/api/v0/plugins")?)?;
        let plugins = last["plugins"].as_array().into_iter().flatten();
        Ok(plugins.into_iter().any(|it| it["name"] == name && it["version"] == version && it["state"] == "active"))
    })
    .with_context(|| format!("{name} {version} is not active: {last}"))
}

fn wait_for_status(ccn: &Client, hash: &str, status: &str) -> Result<()> {
    wait_until(VERDICT_WITHIN, status, || {
        Ok(expect_json(200, ccn.get(&format!("/api/v0/messages/{hash}/status"))?)?["status"] == status)
    })
}

fn text_of(value: &Value, name: &str) -> Result<String> {
    Ok(value[name].as_str().with_context(|| format!("no {name} in {value}"))?.to_owned())
}

pub(crate) fn guide() -> Result<()> {
    let mut stranger = Stranger::new("A plugin in ten minutes")?;
    stranger.does("cargo xtask plugin new greeting ../greeting")?;
    stranger.does("cd ../greeting")?;
    // What is built is kept for the next time.
    let built = stage::installation().folder().with_file_name("stranger");
    fs::create_dir_all(&built)?;
    std::os::unix::fs::symlink(&built, stranger.place.join("target"))?;

    let said = stranger.does("cargo test")?;
    ensure!(said.contains("test result: ok"), "{said}");
    stranger.does("cargo xtask plugin build")?;
    let said = stranger.does("cargo xtask plugin check greeting.wasm")?;
    ensure!(said.contains("greeting 0.1.0") && said.contains("GREETING"), "{said}");
    let said = stranger.does("cargo xtask plugin run greeting.wasm fixtures")?;
    ensure!(said.contains("one state, one set of verdicts, one set of answers"), "{said}");

    let line = stranger.next("cargo xtask plugin node")? + " --listen 127.0.0.1:0";
    let log = stage::folder("stranger")?.join("ccn.log");
    let mut node = Process::start(&mut stranger.shell(&format!("exec {line}")), &log)?;
    let ready = node.wait_for_line(READY_WITHIN, |line| line.contains(" ready on http://"))?;
    let url = ready.last().and_then(|line| Some(line.split_once(" ready on ")?.1)).context("a ready line has a URL")?;
    let url = url.split_whitespace().next().unwrap_or_default().to_owned();
    stranger.meant.push((ADDRESS, url.trim_start_matches("http://").to_owned()));
    let ccn = Client::new(&url, ANSWER_WITHIN);

    stranger.does("cp greeting.wasm node/plugins/")?;
    wait_for_version(&ccn, "greeting", "0.1.0")?;
    let listed = stranger.asks("curl http://127.0.0.1:4024/api/v0/plugins")?;
    let ours = listed["plugins"].as_array().into_iter().flatten().find(|plugin| plugin["name"] == "greeting");
    ensure!(ours.is_some_and(|plugin| plugin["types"][0] == "GREETING"), "{listed}");

    has_the_sdk(&mut stranger)?;
    let sent = stranger.asks("sdk/bin/python send.py http://127.0.0.1:4024 '{\"text\": \"hello\"}'")?;
    ensure!(sent["status"] == "processed", "{sent}");
    stranger.meant.push(("ADDRESS", text_of(&sent, "address")?));
    let first = text_of(&sent, "item_hash")?;
    let answer = stranger.asks("curl http://127.0.0.1:4024/api/v0/greeting/ADDRESS")?;
    ensure!(answer["text"] == "hello" && answer["item_hash"] == first.as_str(), "{answer}");

    stranger.changes("src/lib.rs")?;
    stranger.changes("src/lib.rs")?;
    stranger.changes("manifest.json")?;
    stranger.does("cargo test")?;
    stranger.does("cargo xtask plugin build")?;
    stranger.does("cp greeting.wasm node/plugins/")?;
    wait_for_version(&ccn, "greeting", "0.2.0")?;
    let answer = stranger.asks("curl http://127.0.0.1:4024/api/v0/greeting/ADDRESS")?;
    ensure!(answer["text"] == "hello" && answer["times"] == 1, "{answer}");

    stranger.does("rm node/plugins/greeting.wasm")?;
    let path = "/api/v0/greeting/x";
    let is_nobodys = || Ok(ccn.get(path)?.text().contains("no such path"));
    wait_until(VERDICT_WITHIN, "the end of its routes", is_nobodys)?;
    let sent = stranger.asks("sdk/bin/python send.py http://127.0.0.1:4024 '{\"text\": \"is anybody there?\"}'")?;
    ensure!(sent["status"] == "rejected", "{sent}");
    let kept = text_of(&sent, "item_hash")?;
    wait_for_status(&ccn, &first, "processed")?;
    stranger.does("cp greeting.wasm node/plugins/")?;
    wait_for_version(&ccn, "greeting", "0.2.0")?;
    wait_for_status(&ccn, &kept, "processed")?;
    let answer = stranger.asks("curl http://127.0.0.1:4024/api/v0/greeting/ADDRESS")?;
    ensure!(answer["text"] == "is anybody there?" && answer["times"] == 2, "{answer}");
    stranger.is_done()?;

    // And again, beyond the guide: whoever goes and comes back finds what was there.
    let plugin = stranger.place.join("node/plugins/greeting.wasm");
    let aside = stranger.folder.path().join("greeting.wasm");
    fs::copy(&plugin, &aside)?;
    fs::remove_file(&plugin)?;
    wait_until(VERDICT_WITHIN, "the end of its routes", is_nobodys)?;
    wait_for_status(&ccn, &kept, "processed")?;
    fs::copy(&aside, &plugin)?;
    wait_for_version(&ccn, "greeting", "0.2.0")?;
    let again = stranger.shell(&format!("curl {url}/api/v0/greeting/{}", text_of(&sent, "address")?)).output()?;
    ensure!(serde_json::from_slice::<Value>(&again.stdout)? == answer, "{}", String::from_utf8_lossy(&again.stdout));
    node.terminate(ANSWER_WITHIN)
}

/// Two lines of the guide that fetch what other tests have fetched before, of the same requirements.
fn has_the_sdk(stranger: &mut Stranger) -> Result<()> {
    stranger.next("python3 -m venv sdk")?;
    stranger.next("sdk/bin/pip install --quiet -r requirements.txt")?;
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let theirs = read(&stranger.place.join("requirements.txt"))?;
    ensure!(theirs == read(&repository().join("tests/both/sdk/requirements.txt"))?, "other requirements: {theirs}");
    let environment =
        stage::sdk()?.python().parent().and_then(Path::parent).context("an interpreter is in a folder")?;
    Ok(std::os::unix::fs::symlink(environment, stranger.place.join("sdk"))?)
}

pub(crate) fn python() -> Result<()> {
    let mut stranger = Stranger::new("The same in Python")?;
    stranger.does("cp -r plugins/examples/poll-python ../poll-python")?;
    stranger.does("cargo xtask plugin build ../poll-python")?;
    let said = stranger.does("cargo xtask plugin check ../poll-python/poll-python.wasm")?;
    ensure!(said.contains("poll-python 0.1.0") && said.contains("POLL"), "{said}");
    let run = "cargo xtask plugin run ../poll-python/poll-python.wasm plugins/examples/poll/fixtures";
    let said = stranger.does(run)?;
    ensure!(said.contains("one state, one set of verdicts, one set of answers"), "{said}");
    stranger.is_done()
}
