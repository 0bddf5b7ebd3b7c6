//! Several machines of one program.

use super::clones::{FUNCTION, TEMPLATES, ways};
use crate::{
    answer::{self, expect},
    stage::{self, COLD_WITHIN},
};
use anyhow::{Context as _, Result, ensure};
use harness::devnet::ComputeNode;
use serde_json::json;
use std::collections::BTreeSet;

/// How long a call takes in the program, milliseconds: longer than clones need to come up.
const CALL_MS: u64 = 8000;

/// So many calls at once; of each the machine that answered, and the most calls that this machine ever had at once.
pub(super) fn at_once(node: &ComputeNode<'_>, hash: &str, calls: usize, call_ms: u64) -> Result<Vec<(String, usize)>> {
    let client = node.client(COLD_WITHIN);
    let path = format!("/vm/{hash}/machine?{call_ms}");
    answer::at_once(calls, |_| {
        let text = expect(200, client.get(&path)?)?.text();
        let (machine, most) = text.split_once(' ').context("two words")?;
        Ok((machine.to_owned(), most.parse()?))
    })
}

pub(super) fn machines(answers: &[(String, usize)]) -> BTreeSet<&str> {
    answers.iter().map(|(machine, _)| machine.as_str()).collect()
}

pub(crate) fn one_call_each() -> Result<()> {
    const CALLS: usize = 4;
    let network = stage::network()?;
    let node =
        network.another_compute_node("crn-scale", &[TEMPLATES, "programs.max_machines=4", "programs.vcpus=16"])?;
    let hash = network.binary("one at once", 300, json!({"BETH_CONCURRENCY": "1"}))?;
    // The first makes the template, with the others waiting for it.
    let answers = at_once(&node, hash, CALLS, CALL_MS)?;
    ensure!(machines(&answers).len() == CALLS, "a machine for each of {CALLS} calls: {answers:?}");
    ensure!(answers.iter().all(|(_, most)| *most == 1), "one call at once: {answers:?}");
    let came_up = ways(&node, hash)?;
    ensure!(came_up.len() == CALLS && came_up[1..].iter().all(|way| way == FUNCTION), "{came_up:?}");
    // They are all there now. One call more than there may be machines waits for another to end.
    let again = at_once(&node, hash, CALLS + 1, 1000)?;
    ensure!(machines(&again) == machines(&answers), "{again:?} beside {answers:?}");
    ensure!(again.iter().all(|(_, most)| *most == 1), "one call at once: {again:?}");
    node.stop()
}

pub(crate) fn by_calls() -> Result<()> {
    let network = stage::network()?;
    let settings = [TEMPLATES, "programs.calls_per_machine=2", "programs.vcpus=16"];
    let node = network.another_compute_node("crn-scale-calls", &settings)?;
    let hash = network.binary("by calls", 300, json!({}))?;
    let alone = network.binary("alone", 300, json!({"BETH_MACHINES": "1"}))?;
    for hash in [hash, alone] {
        expect(200, node.client(COLD_WITHIN).get(&format!("/vm/{hash}/"))?)?;
    }
    let answers = at_once(&node, hash, 6, CALL_MS)?;
    // Nobody waited for the further machines, so the first had all calls that came before they were up; the next calls spread.
    let next = at_once(&node, hash, 6, 2000)?;
    let spread = machines(&next);
    ensure!(spread.len() == 3, "six calls, two for each machine: {answers:?}, then {next:?}");
    ensure!(ways(&node, hash)?.len() == 3, "{:?}", ways(&node, hash)?);
    let answers = at_once(&node, alone, 6, 2000)?;
    ensure!(machines(&answers).len() == 1 && ways(&node, alone)?.len() == 1, "{answers:?}");
    node.stop()
}
