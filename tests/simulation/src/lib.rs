//! Two nodes that hold the same messages hold the same state, whatever came first.
//!
//! A history is drawn from a seed ([`history`]), and played to nodes in random orders, with duplicates and forgeries, restarts and power cuts in between
//! ([`play`]). Verdicts, digests and answers must be those of the first order. Where they are not, the history is cut down to the few messages that
//! still differ ([`shrink`]).
#![expect(clippy::print_stdout, reason = "a long run reports on standard output")]

mod disk;
mod history;
mod play;
mod shrink;

use anyhow::{Context as _, Result, bail};
use ccn::{
    config::Config,
    host::{Compiler, Plugins, Source},
};
use fastrand::Rng;
use history::History;
use play::{Outcome, Step};
use std::{collections::BTreeMap, env, path::PathBuf, sync::Arc, time::Instant};

/// How much is played.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {
    /// Histories
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub histories: u64,
    /// Orders of each
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub shuffles: u64,
    /// What they are drawn from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Histories played at once
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub at_once: usize,
    /// Instead: let the disk fail at every so many-th of its changes, in a short history of each seed
    #[arg(long, value_name = "N")]
    pub faults_every: Option<u64>,
}

/// Messages and files of a history in which the disk fails.
const ITEMS_WITH_FAULTS: usize = 60;

/// Plays histories; an error is a difference, with the few messages that make it.
///
/// # Errors
/// Two orders of one history end differently, or a node fails.
pub async fn simulate(arguments: Arguments) -> Result<()> {
    let plugins = plugins()?;
    if let Some(every) = arguments.faults_every {
        return simulate_faults(&plugins, &arguments, every.max(1)).await;
    }
    let (began, mut orders) = (Instant::now(), 0);
    let seeds: Vec<u64> = (arguments.seed..arguments.seed + arguments.histories).collect();
    for together in seeds.chunks(arguments.at_once.max(1)) {
        let plays = together.iter().map(|seed| {
            let (plugins, seed) = (plugins.clone(), *seed);
            tokio::spawn(async move {
                one(&plugins, seed, arguments.shuffles).await.with_context(|| format!("history {seed}"))
            })
        });
        for play in plays.collect::<Vec<_>>() {
            orders += play.await.context("a play ended in a panic")??;
        }
        let (last, seconds) = (together.last().copied().unwrap_or_default(), began.elapsed().as_secs_f64());
        println!("history {last}: {orders} orders so far without a difference, {seconds:.0} s");
    }
    Ok(())
}

/// Plays one history in many orders; returns how many.
async fn one(plugins: &Arc<Plugins>, seed: u64, shuffles: u64) -> Result<u64> {
    let history = History::of(seed);
    let mut rng = Rng::with_seed(seed ^ 0x5eed);
    let first = play::order(&history, &mut rng);
    let expected = play::play(plugins, &history, &first).await?;
    for _ in 1..shuffles {
        let other = play::order(&history, &mut rng);
        let found = play::play(plugins, &history, &other).await?;
        if found != expected {
            let report = shrink::shrink(plugins, &history, first, other).await?;
            bail!("two orders end differently\n{report}");
        }
    }
    Ok(shuffles)
}

/// Lets the disk fail at every so many-th of its changes.
async fn simulate_faults(plugins: &Arc<Plugins>, arguments: &Arguments, every: u64) -> Result<()> {
    let began = Instant::now();
    for seed in arguments.seed..arguments.seed + arguments.histories {
        let faults = with_faults(plugins, seed, every).await.with_context(|| format!("history {seed}"))?;
        let seconds = began.elapsed().as_secs_f64();
        println!("history {seed}: the disk failed at {faults} places, and nothing was lost, {seconds:.0} s");
    }
    Ok(())
}

/// The same for one history; returns at how many places it failed.
async fn with_faults(plugins: &Arc<Plugins>, seed: u64, every: u64) -> Result<u64> {
    let mut history = History::of(seed);
    history.items.truncate(ITEMS_WITH_FAULTS);
    let mut items: Vec<usize> = (0..history.items.len()).collect();
    Rng::with_seed(seed).shuffle(&mut items);
    let steps: Vec<Step> = items.iter().copied().map(Step::Arrives).collect();
    let expected = play::play(plugins, &history, &steps).await?;
    let mut faults = 0;
    // Not at the same kind of operation each time.
    let mut place = 1;
    while let Some(found) = play::play_with_fault(plugins, &history, &items, place)
        .await
        .with_context(|| format!("the disk failed at change {place}"))?
    {
        if found != expected {
            let differences: Vec<String> = differences(&expected, &found)
                .into_iter()
                .map(|(name, expected, found)| format!("{name}\n  without: {expected}\n  with:    {found}"))
                .collect();
            bail!("a fault at change {place} makes a difference\n{}", differences.join("\n"));
        }
        faults += 1;
        place += every;
    }
    Ok(faults)
}

/// The plugins of a node: compiled once, for all plays.
fn plugins() -> Result<Arc<Plugins>> {
    let folder = tempfile::tempdir()?;
    let source = Source {
        folder: folder.path().join("plugins"),
        cache: cache()?,
        compiler: Compiler::default(),
        pins: BTreeMap::new(),
        grants: BTreeMap::new(),
        settings: play::settings()?,
        queries: Config::default().limits.queries,
    };
    Ok(Arc::new(Plugins::load(source)?))
}

/// Where the project keeps what is slow to make.
fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = set("BETH_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("beth")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/beth")));
    Ok(root.context("none of BETH_CACHE, XDG_CACHE_HOME and HOME is set")?.join("compiled-plugins"))
}

/// What differs between two outcomes, by what was compared.
fn differences(one: &Outcome, other: &Outcome) -> Vec<(String, String, String)> {
    let none = String::new;
    let names = one.facts.keys().chain(other.facts.keys().filter(|name| !one.facts.contains_key(*name)));
    let pair = |name: &String| {
        let value = |outcome: &Outcome| outcome.facts.get(name).cloned().unwrap_or_else(none);
        (name.clone(), value(one), value(other))
    };
    names.map(pair).filter(|(_, one, other)| one != other).collect()
}

/// Steps as people read them.
fn told(history: &History, steps: &[Step]) -> String {
    let label = |item: &usize| history.items[*item].label.as_str();
    let line = |step: &Step| match step {
        Step::Arrives(item) => format!("  {}", label(item)),
        Step::Again(item) => format!("  again: {}", label(item)),
        Step::Forged(item) => format!("  forged: {}", label(item)),
        Step::Misattributed(item) => format!("  misattributed: {}", label(item)),
        Step::Altered(item) => format!("  altered: {}", label(item)),
        Step::Restart => "  restart".to_owned(),
        Step::PowerCut => "  power cut".to_owned(),
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn whatever_came_first_the_state_is_one() {
        let arguments = Arguments { histories: 4, shuffles: 60, seed: 1, at_once: 2, faults_every: None };
        simulate(arguments).await.expect("no difference");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_fails_loses_nothing() {
        let arguments = Arguments { histories: 1, shuffles: 1, seed: 1, at_once: 1, faults_every: Some(97) };
        simulate(arguments).await.expect("nothing lost");
    }
}
