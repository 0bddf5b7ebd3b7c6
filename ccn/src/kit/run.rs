//! `ccn plugin run`: every message of a folder, in many orders, through the pipeline of a node.

use super::{
    check,
    fixture::{Fixture, Folder},
    probe,
    report::{self, Line},
    scene::{self, Scene},
};
use crate::{
    host::{self, Plugin},
    pipeline::{FileKind, SubmitError},
    store::{Reader as _, Row},
};
use anyhow::{Context as _, Result, bail};
use ccn_message::MessageStatus;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// What `run` is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The plugin
    file: PathBuf,
    /// Messages (NAME.json), the files that they keep (files/), questions (queries.txt)
    folder: PathBuf,
    /// Orders in which the messages are played
    #[arg(long, default_value_t = 20, value_name = "N")]
    orders: u64,
    /// What the orders are drawn from
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// What became of the messages of one order.
#[derive(Debug, PartialEq, Eq)]
struct Outcomes {
    verdicts: BTreeMap<String, (String, Option<i32>)>,
    state: Vec<Row>,
    answers: Vec<(u16, String)>,
}

pub(super) async fn run(arguments: Arguments) -> Result<bool> {
    let scratch = tempfile::tempdir()?;
    let (plugins, plugin) = host::inspect(scene::source(scratch.path())?, &arguments.file)?;
    // What was compiled before is there at once; the first time is not the plugin's.
    let began = Instant::now();
    let kind = plugin.manifest().types.first().context("the plugin has no message types")?;
    let folder = Folder::read(&arguments.folder, kind)?;
    check::describe(plugin.manifest(), plugin.sha256());
    let mut complaints = Vec::new();

    let (scene, first) = play(&plugins, &plugin, &folder, &folder.messages.iter().collect::<Vec<_>>()).await?;
    let mut lines = Vec::new();
    for fixture in &folder.messages {
        let verdict = first.verdicts[&fixture.name].clone();
        let mut line = Line { name: fixture.name.clone(), verdict: verdict.clone(), cost: None };
        let mut complain = |what: String| complaints.push(format!("{}: {what}", fixture.name));
        if let Some(expect) = &fixture.expect
            && (&expect.status, expect.error_code) != (&verdict.0, verdict.1)
        {
            complain(format!("{} was expected", report::verdict(&(expect.status.clone(), expect.error_code))));
        }
        if let Some(message) = probe::shown(fixture, &plugin)? {
            let (cost, differs) = probe::twice(&scene, &plugin, &message)?;
            line.cost = Some(cost);
            differs.into_iter().for_each(&mut complain);
            if verdict.0 == MessageStatus::Processed.name() {
                probe::there_and_back(&scene, &plugin, &message, fixture)?.into_iter().for_each(&mut complain);
            }
        }
        lines.push(line);
    }
    scene.stop().await;

    for order in 1..arguments.orders {
        let mut messages: Vec<&Fixture> = folder.messages.iter().collect();
        shuffle(&mut messages, arguments.seed.wrapping_mul(1_000_003).wrapping_add(order));
        let (scene, found) = play(&plugins, &plugin, &folder, &messages).await?;
        scene.stop().await;
        if found != first {
            let names: Vec<&str> = messages.iter().map(|fixture| fixture.name.as_str()).collect();
            complaints.push(format!("in the order {}: {}", names.join(", "), different(&first, &found)));
            break;
        }
    }
    report::print(&plugin, &lines, &folder.queries, &first.answers);
    for complaint in &complaints {
        println!("WRONG  {complaint}");
    }
    let verdict = if complaints.is_empty() {
        "one state, one set of verdicts, one set of answers"
    } else {
        "not a plugin that nodes can agree on"
    };
    println!(
        "{} messages, {} orders (seed {}), {:.2} s: {verdict}",
        folder.messages.len(),
        arguments.orders,
        arguments.seed,
        began.elapsed().as_secs_f64()
    );
    Ok(complaints.is_empty())
}

/// What differs between two orders.
fn different(first: &Outcomes, found: &Outcomes) -> String {
    for (name, verdict) in &first.verdicts {
        let other = &found.verdicts[name];
        if verdict != other {
            return format!(
                "{name} is {}, and {} in the order of names",
                report::verdict(other),
                report::verdict(verdict)
            );
        }
    }
    let answers = || {
        let place = first.answers.iter().zip(&found.answers).position(|(one, other)| one != other)?;
        Some(format!("question {} is answered {:?}, and {:?}", place + 1, first.answers[place], found.answers[place]))
    };
    probe::difference(&first.state, &found.state).or_else(answers).unwrap_or_default()
}

/// Plays messages in an order on a new node.
async fn play(
    plugins: &Arc<host::Plugins>,
    plugin: &Arc<Plugin>,
    folder: &Folder,
    messages: &[&Fixture],
) -> Result<(Scene, Outcomes)> {
    let scene = Scene::new(plugins.clone())?;
    for path in &folder.files {
        put_file(&scene, path).await.with_context(|| path.display().to_string())?;
    }
    let mut verdicts = BTreeMap::new();
    for fixture in messages {
        match scene.service.pipeline.submit(fixture.envelope.clone()).await {
            Ok(_) => {}
            // What is no message leaves no trace, so that it is remembered here.
            Err(SubmitError::Format { .. }) => {
                verdicts.insert(fixture.name.clone(), (MessageStatus::Rejected.name().to_owned(), Some(0)));
            }
            Err(error) => bail!("{}: {error}", fixture.name),
        }
    }
    scene.settle().await?;
    let snapshot = scene.service.store.snapshot()?;
    for fixture in messages {
        if let Some(record) = snapshot.status(&fixture.hash)? {
            let code = record.rejection.as_ref().map(|rejection| rejection.code);
            verdicts.insert(fixture.name.clone(), (record.status().name().to_owned(), code));
        }
        verdicts.entry(fixture.name.clone()).or_insert_with(|| ("unknown".to_owned(), None));
    }
    let mut answers = Vec::new();
    for query in &folder.queries {
        answers.push(ask(&scene, plugins, query).await?);
    }
    let state = scene.state(plugin.manifest().namespace())?;
    Ok((scene, Outcomes { verdicts, state, answers }))
}

async fn put_file(scene: &Scene, path: &Path) -> Result<()> {
    let service = &scene.service;
    let mut writer = service.files.writer().await?;
    writer.write(&std::fs::read(path)?).await?;
    let file = writer.finish().await?;
    let (hash, size) = (file.sha256.clone(), file.size);
    service.files.publish(file, &hash).await?;
    service.pipeline.add_file(hash, size, FileKind::File).await?;
    Ok(())
}

/// Asks the plugins what stands in a path.
async fn ask(scene: &Scene, plugins: &Arc<host::Plugins>, query: &str) -> Result<(u16, String)> {
    let (path, question) = query.split_once('?').unwrap_or((query, ""));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    let parameters = question.split('&').filter(|each| !each.is_empty()).map(pair).collect();
    let answer = plugins.query(&scene.service.store, path, parameters).await;
    let answer = answer.with_context(|| format!("no plugin answers {path}"))?;
    let answer = answer.with_context(|| query.to_owned())?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

/// A small generator: the order is the same for the same seed everywhere.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for place in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(place, (seed >> 33) as usize % (place + 1));
    }
}
