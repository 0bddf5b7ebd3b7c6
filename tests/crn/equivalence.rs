//! A machine that was copied and its copies go on alike.

use super::clones::{COLD, FUNCTION, TEMPLATES, wait_until_idle, ways};
use crate::{
    answer::expect,
    stage::{self, COLD_WITHIN, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// Instants at which machines are copied, and copies of each.
const INSTANTS: usize = 3;
const COPIES: usize = 2;
/// Latest instant after the computation has begun, milliseconds; it ends a while after the program listens, and that is later.
const LATEST_MS: u64 = 1500;
/// Steps of the computation between two lines that it writes.
const SAID_EVERY: u64 = 4_000_000;

/// What a machine says of its computation.
#[derive(Debug, PartialEq, Eq)]
struct Computed {
    seed: String,
    steps: u64,
    state: String,
    region: Vec<u8>,
}

fn parse(body: &[u8]) -> Result<Computed> {
    let end = body.iter().position(|byte| *byte == b'\n').context("a line")?;
    let head = String::from_utf8(body[..end].to_vec())?;
    let [seed, steps, state] = head.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("three words, not {head:?}");
    };
    Ok(Computed {
        seed: seed.to_owned(),
        steps: steps.parse()?,
        state: state.to_owned(),
        region: body[end + 1..].to_vec(),
    })
}

/// The program computes without a pause while its machine is copied, wherever it is by then. Machine and copies must come to the
/// same end: every word of the region, all that is sent of it, and every line that is printed on the way.
pub(crate) fn at_any_instant() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-equivalence", &[COLD, TEMPLATES])?;
    let client = node.client(COLD_WITHIN);
    let seed = std::env::var("BETH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("BETH_SEED={seed} chooses these instants again");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seeds = BTreeMap::new();
    for instant in 0..INSTANTS {
        let delay_ms = random.u64(..LATEST_MS);
        let variables = json!({"CHAIN": "1", "START_DELAY_MS": delay_ms.to_string(), "COPY": instant.to_string()});
        let hash = network.binary(&format!("chain {instant} {delay_ms}"), 300, variables)?;
        let mut results = Vec::new();
        for _ in 0..=COPIES {
            let answer = expect(200, client.get(&format!("/vm/{hash}/chain"))?)?;
            results.push(parse(&answer.body)?);
            wait_until_idle(&node)?;
        }
        let came_up = ways(&node, hash)?;
        ensure!(came_up.len() == COPIES + 1 && came_up[1..].iter().all(|way| way == FUNCTION), "{came_up:?}");
        let first = &results[0];
        for other in &results[1..] {
            ensure!(
                other == first,
                "copied after {delay_ms} ms: seed {} against {}, {} steps against {}, {} against {}, {} bytes differ",
                other.seed,
                first.seed,
                other.steps,
                first.steps,
                other.state,
                first.state,
                other.region.iter().zip(&first.region).filter(|(one, other)| one != other).count()
            );
        }
        ensure!(seeds.insert(first.seed.clone(), instant).is_none(), "a seed is drawn once");

        // On the console: what was said before the copy once, what came after once by each, and never two things at one step.
        let path = format!("{}/logs/{hash}.log", node.data_dir());
        let said = || -> Result<BTreeMap<String, usize>> {
            let log = String::from_utf8_lossy(&network.host.read(&path, 0)?).into_owned();
            let mut lines = BTreeMap::new();
            // A record of the log is a line of JSON that has one or more of the program's.
            let said = log.split("\\n").filter_map(|line| line.rfind("chain ").map(|at| line[at..].to_owned()));
            for line in said {
                *lines.entry(line).or_insert(0) += 1;
            }
            Ok(lines)
        };
        let count = usize::try_from(first.steps / SAID_EVERY)?;
        let all = wait_until(Duration::from_secs(60), "all lines are in the log", || {
            let lines = said()?;
            Ok(lines.len() == count && lines.values().any(|times| *times == COPIES + 1))
        });
        all.with_context(|| format!("{:?}", said()))?;
        let lines = said()?;
        ensure!(lines.len() == count, "{count} steps are told of: {lines:?}");
        ensure!(lines.values().all(|times| [1, COPIES + 1].contains(times)), "once, or once by each: {lines:?}");
    }
    node.stop()
}
