//! Playing a history to a node: real pipeline, real store on a disk in memory, real components; restarts and power cuts in between.

use crate::{
    disk::Disk,
    history::{History, Item, What, treasury, with},
};
use anyhow::{Context as _, Result, anyhow, bail};
use axum::{body::Body, http::Request};
use ccn::{
    api,
    chains::Chains,
    config::Config,
    fetch::{Fetcher, Settings},
    files::Files,
    host::Plugins,
    network::Network,
    node::Service,
    pipeline::{FileKind, Pipeline, SubmitError},
    store::{Reader as _, StateDigest, Store},
};
use ccn_message::ItemHash;
use fastrand::Rng;
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// How long a message that lacks something counts as pending, seconds: longer than any play.
const HORIZON_SECONDS: u64 = 24 * 3600;
/// How often it is looked whether all is decided, and how long at most.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// What happens to a node.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// An item of the history.
    Arrives(usize),
    /// It comes again: nothing is to come of that.
    Again(usize),
    /// It comes with another signature, which is none: nothing is to come of that.
    Forged(usize),
    /// It comes in the name of somebody who never signed it: nothing is to come of that.
    Misattributed(usize),
    /// It comes again, and a relay has altered what nobody signs: nothing is to come of that.
    Altered(usize),
    /// The node stops and starts again.
    Restart,
    /// The power fails.
    PowerCut,
}

/// An order of a history, with what is put in between.
pub(crate) fn order(history: &History, rng: &mut Rng) -> Vec<Step> {
    let mut steps: Vec<Step> = (0..history.items.len()).map(Step::Arrives).collect();
    rng.shuffle(&mut steps);
    for _ in 0..history.items.len() / 8 {
        let item = rng.usize(0..history.items.len());
        let step = [Step::Again(item), Step::Forged(item), Step::Misattributed(item)];
        let step = step[rng.usize(0..3)].clone();
        put(&mut steps, 0, step, rng);
    }
    for _ in 0..history.items.len() / 16 {
        let item = rng.usize(0..history.items.len());
        let came = steps.iter().position(|step| matches!(step, Step::Arrives(arrived) if *arrived == item));
        put(&mut steps, came.map_or(0, |came| came + 1), Step::Altered(item), rng);
    }
    for _ in 0..rng.usize(0..3) {
        put(&mut steps, 0, Step::Restart, rng);
    }
    for _ in 0..rng.usize(0..3) {
        put(&mut steps, 0, Step::PowerCut, rng);
    }
    steps
}

/// Puts a step somewhere from a place on.
fn put(steps: &mut Vec<Step>, from: usize, step: Step, rng: &mut Rng) {
    let place = rng.usize(from..=steps.len());
    steps.insert(place, step);
}

/// What became of a history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    /// By what is compared: a status, an answer, the digest.
    pub(crate) facts: BTreeMap<String, String>,
}

/// A node on a disk in memory.
struct Node {
    plugins: Arc<Plugins>,
    disk: Disk,
    folder: TempDir,
    service: Arc<Service>,
}

fn config(folder: &TempDir) -> Config {
    let treasury = treasury().address().to_owned();
    let network = Network {
        credit_treasury: vec![treasury.clone()],
        credit_minters: vec![treasury.clone()],
        balance_publishers: vec![treasury],
        ..Network::default()
    };
    let mut config = Config { data_dir: folder.path().to_owned(), network, ..Config::default() };
    config.pipeline.horizon_seconds = HORIZON_SECONDS;
    config
}

/// The settings that plugins read in every play.
pub(crate) fn settings() -> Result<BTreeMap<String, String>> {
    let folder = tempfile::tempdir()?;
    Ok(config(&folder).network.settings())
}

fn open(plugins: &Arc<Plugins>, disk: &Disk, folder: &TempDir) -> Result<Arc<Service>> {
    let config = config(folder);
    let store = Store::with_journal(disk.database.clone(), disk.journal.clone())?;
    let files = Files::open_folder(&folder.path().join("files"))?;
    let fetcher = Fetcher::new(files.clone(), Settings::default())?;
    let pipeline = Pipeline::start(&config, store.clone(), files.clone(), plugins.clone(), fetcher.clone())?;
    Ok(Arc::new(Service {
        config,
        pipeline,
        store,
        plugins: plugins.clone(),
        keeper: None,
        chains: Chains::none(),
        files,
        fetcher,
        pinning: None,
        word: None,
    }))
}

impl Node {
    fn new(plugins: &Arc<Plugins>) -> Result<Self> {
        let (disk, folder) = (Disk::default(), tempfile::tempdir()?);
        let service = open(plugins, &disk, &folder)?;
        Ok(Self { plugins: plugins.clone(), disk, folder, service })
    }

    async fn arrives(&self, item: &Item) -> Result<()> {
        match &item.what {
            What::Message(json, _) => self.submit(json).await,
            What::File(bytes) => {
                let mut writer = self.service.files.writer().await?;
                writer.write(bytes).await?;
                let file = writer.finish().await?;
                let (hash, size) = (file.sha256.clone(), file.size);
                self.service.files.publish(file, &hash).await?;
                Ok(self.service.pipeline.add_file(hash, size, FileKind::File).await?)
            }
        }
    }

    /// Takes an item to a node whose disk may fail meanwhile. False when the node does not have it then.
    async fn is_taken(&self, item: &Item) -> Result<bool> {
        match &item.what {
            What::Message(json, _) => match self.service.pipeline.submit(json.to_string()).await {
                Ok(_) | Err(SubmitError::Format { .. }) => Ok(true),
                Err(SubmitError::Engine(_)) => Ok(false),
                Err(error @ SubmitError::Overloaded) => Err(error.into()),
            },
            What::File(_) => Ok(self.arrives(item).await.is_ok()),
        }
    }

    async fn submit(&self, json: &Value) -> Result<()> {
        match self.service.pipeline.submit(json.to_string()).await {
            // What is no message is refused whenever it comes.
            Ok(_) | Err(SubmitError::Format { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn step(&mut self, history: &History, step: &Step) -> Result<()> {
        match step {
            Step::Arrives(item) | Step::Again(item) => self.arrives(&history.items[*item]).await,
            Step::Forged(item) => match &history.items[*item].what {
                What::Message(json, _) => self.submit(&with(json, "signature", forged(&json["signature"]))).await,
                What::File(_) => Ok(()),
            },
            Step::Misattributed(item) => match &history.items[*item].what {
                What::Message(json, _) => {
                    let other = history.addresses.iter().find(|address| json["sender"] != address.as_str());
                    self.submit(&with(json, "sender", other.cloned().into())).await
                }
                What::File(_) => Ok(()),
            },
            Step::Altered(item) => match &history.items[*item].what {
                What::Message(json, hash) => {
                    let time = json["time"].as_f64().unwrap_or_default() + 7.0;
                    let mut altered = with(json, "time", time.into());
                    // By its channel a message may be permitted or not, so one that does not stand may yet come to stand by another.
                    let stands = self.service.store.snapshot()?.message(hash)?;
                    if stands.is_some_and(|stands| json["sender"] == stands.envelope.sender.as_str()) {
                        altered = with(&altered, "channel", "C".into());
                    }
                    self.submit(&altered).await
                }
                What::File(_) => Ok(()),
            },
            Step::Restart => {
                self.service.pipeline.stop().await;
                self.reopen().await
            }
            Step::PowerCut => {
                self.disk = self.disk.after_power_cut();
                self.reopen().await
            }
        }
    }

    async fn reopen(&mut self) -> Result<()> {
        // Whoever holds the store last, such as a search for a file, lets go of it in a moment.
        self.disk = self.disk.after_power_cut();
        self.service = open(&self.plugins, &self.disk, &self.folder)?;
        Ok(())
    }

    /// Waits until nobody waits for what has arrived, or for time.
    async fn settle(&self) -> Result<()> {
        let wakes = async {
            loop {
                if self.service.pipeline.is_at_rest()? {
                    return Ok::<_, anyhow::Error>(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(SETTLED_WITHIN, wakes).await.map_err(|_| anyhow!("it never settles"))?
    }

    /// Fails unless everything that was taken is known.
    fn has(&self, history: &History, taken: &[usize]) -> Result<()> {
        let snapshot = self.service.store.snapshot()?;
        for item in taken {
            let Item { label, what } = &history.items[*item];
            let is_here = match what {
                What::Message(_, hash) => snapshot.status(hash)?.is_some(),
                What::File(bytes) => snapshot.file(&ItemHash::sha256_of(bytes))?.is_some(),
            };
            if !is_here {
                bail!("{label} was taken, and is lost");
            }
        }
        Ok(())
    }

    async fn outcome(&self, history: &History) -> Result<Outcome> {
        let mut facts = BTreeMap::new();
        let snapshot = self.service.store.snapshot()?;
        for item in &history.items {
            let What::Message(_, hash) = &item.what else { continue };
            let status = snapshot.status(hash)?.map(|record| {
                let code = record.rejection.as_ref().map(|rejection| rejection.code);
                format!("{} {code:?}", record.status().name())
            });
            facts.insert(format!("status of {hash}"), status.unwrap_or_else(|| "unknown".to_owned()));
        }
        drop(snapshot);
        let router = api::router(self.service.clone());
        for question in questions(history) {
            let request = Request::get(question.as_str()).body(Body::empty())?;
            let response = router.clone().oneshot(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            let body = comparable(&body);
            facts.insert(question, format!("{status} {body}"));
        }
        Ok(Outcome { facts })
    }
}

/// Another signature of the same length.
fn forged(signature: &Value) -> Value {
    let text = signature.as_str().unwrap_or_default();
    let swap = |(place, letter): (usize, char)| match letter {
        '1'..='8' if (8..20).contains(&place) => char::from(letter as u8 + 1),
        other => other,
    };
    text.chars().enumerate().map(swap).collect::<String>().into()
}

/// What is asked of every node.
fn questions(history: &History) -> Vec<String> {
    let mut questions: Vec<String> = [
        "/api/v0/digest",
        "/api/v0/posts.json?pagination=500",
        "/api/v1/posts.json?pagination=500&sortOrder=1",
        "/api/v0/posts.json?tags=x&pagination=500",
        "/api/v0/posts.json?refs=topic&types=blog",
        "/api/v0/aggregates.json?pagination=500",
        "/api/v0/messages.json?pagination=500",
        "/api/v0/messages.json?msgTypes=FORGET,STORE&pagination=500",
        "/api/v0/messages.json?channels=A&pagination=500",
    ]
    .map(str::to_owned)
    .to_vec();
    for address in &history.addresses {
        questions.push(format!("/api/v0/aggregates/{address}.json?with_info=1"));
        questions.push(format!("/api/v0/addresses/{address}/balance"));
        questions.push(format!("/api/v0/addresses/{address}/files?pagination=200"));
        questions.push(format!("/api/v0/messages.json?addresses={address}&pagination=500"));
    }
    for item in &history.items {
        if let What::Message(json, hash) = &item.what
            && ["PROGRAM", "INSTANCE", "V-PROGRAM"].iter().any(|kind| json["type"] == *kind)
        {
            questions.push(format!("/api/v0/price/{hash}"));
        }
    }
    questions
}

/// A body without what is this node's own: when something came to it, and which of two came first where their time is the same.
fn comparable(body: &[u8]) -> String {
    let Ok(mut body) = serde_json::from_slice::<Value>(body) else {
        return String::from_utf8_lossy(body).into_owned();
    };
    if let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) {
        messages.sort_by_key(|message| message["item_hash"].as_str().unwrap_or_default().to_owned());
    }
    forget_moments(&mut body);
    body.to_string()
}

fn forget_moments(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("reception_time");
            fields.values_mut().for_each(forget_moments);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_moments),
        _ => {}
    }
}

/// Plays steps to a new node.
pub(crate) async fn play(plugins: &Arc<Plugins>, history: &History, steps: &[Step]) -> Result<Outcome> {
    let mut node = Node::new(plugins)?;
    for item in &history.beginning {
        node.arrives(item).await.context("the beginning")?;
    }
    for step in steps {
        node.step(history, step).await.with_context(|| format!("{step:?}"))?;
    }
    node.settle().await?;
    let outcome = node.outcome(history).await;
    node.service.pipeline.stop().await;
    outcome
}

/// Plays items to a new node whose disk fails at one of its changes: the node is started again with what was synced by then, has all that it said it
/// had, and goes on. None when the disk made fewer changes.
pub(crate) async fn play_with_fault(
    plugins: &Arc<Plugins>,
    history: &History,
    items: &[usize],
    fails_at: u64,
) -> Result<Option<Outcome>> {
    let mut node = Node::new(plugins)?;
    for item in &history.beginning {
        node.arrives(item).await.context("the beginning")?;
    }
    node.disk.fail_at(node.disk.operations() + fails_at);
    let mut has_failed = false;
    let mut taken = Vec::new();
    for item in items {
        if !node.is_taken(&history.items[*item]).await? {
            if has_failed {
                bail!("{} is not taken by a disk that works", history.items[*item].label);
            }
            has_failed = true;
            node.service.pipeline.stop().await;
            node.reopen().await?;
            node.has(history, &taken)?;
            node.arrives(&history.items[*item]).await.context("after the fault")?;
        }
        taken.push(*item);
    }
    if !has_failed && !node.disk.has_failed() {
        return Ok(None);
    }
    if !has_failed {
        // It failed at what the node did by itself afterwards.
        node.service.pipeline.stop().await;
        node.reopen().await?;
        node.has(history, &taken)?;
    }
    node.settle().await?;
    let outcome = node.outcome(history).await?;
    let snapshot = node.service.store.snapshot()?;
    if StateDigest::of(&snapshot)? != StateDigest::recomputed(&snapshot)? {
        bail!("the digest is not that of the rows");
    }
    drop(snapshot);
    node.service.pipeline.stop().await;
    Ok(Some(outcome))
}
