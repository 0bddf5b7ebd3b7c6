//! `kill -9`.

use super::jail;
use crate::{
    answer::{expect, expect_words},
    stage::{self, COLD_WITHIN, NONE_IN_ADVANCE, wait_until},
};
use anyhow::{Result, ensure};
use harness::kvm_host::Kind;
use std::{thread, time::Duration};

/// Holds a call for as long as it is told.
const HOLDS: &str = "import asyncio
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('only http')
    if scope['path'].startswith('/hold/'):
        await asyncio.sleep(float(scope['path'][6:]))
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})
    await send({'type': 'http.response.body', 'body': b'NAME'})
";

pub(crate) fn monitor() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-kill", &[NONE_IN_ADVANCE])?;
    let client = node.client(COLD_WITHIN);
    let victim = network.plain("victim", &HOLDS.replace("NAME", "victim"))?;
    let other = network.plain("bystander", &HOLDS.replace("NAME", "bystander"))?;
    expect(200, client.get(&format!("/vm/{victim}/"))?)?;
    let monitors = node.monitors()?;
    ensure!(monitors.len() == 1, "one machine runs, not {monitors:?}");
    expect(200, client.get(&format!("/vm/{other}/"))?)?;
    thread::scope(|scope| -> Result<()> {
        let held: Vec<_> = (0..3).map(|_| scope.spawn(|| client.get(&format!("/vm/{victim}/hold/300")))).collect();
        let beside = scope.spawn(|| client.get(&format!("/vm/{other}/hold/10")));
        thread::sleep(Duration::from_secs(3));
        ensure!(held.iter().all(|call| !call.is_finished()), "the calls are held");
        network.host.kill(monitors[0], 9)?;
        for call in held {
            let answer = call.join().map_err(|_| anyhow::anyhow!("a call panicked"))??;
            expect_words(502, answer, &["VM did not respond and was shut down"])?;
        }
        let answer = beside.join().map_err(|_| anyhow::anyhow!("a call panicked"))??;
        expect_words(200, answer, &["bystander"])
    })?;
    expect_words(200, client.get(&format!("/vm/{victim}/"))?, &["victim"])?;
    node.stop()
}

pub(crate) fn node() -> Result<()> {
    let network = stage::network()?;
    let interfaces = network.host.network_interfaces()?;
    let mut node = network.another_compute_node("crn-killed", &[NONE_IN_ADVANCE])?;
    let hash = network.plain("orphan", &HOLDS.replace("NAME", "orphan"))?;
    expect(200, node.client(COLD_WITHIN).get(&format!("/vm/{hash}/"))?)?;
    let monitors = node.monitors()?;
    ensure!(monitors.len() == 1, "one machine runs, not {monitors:?}");
    node.kill()?;
    wait_until(Duration::from_secs(30), "the machine ends with its node", || {
        Ok(!network.host.processes()?.iter().any(|process| monitors.contains(&process.id)))
    })?;
    ensure!(network.host.network_interfaces()? == interfaces, "no network card is left");
    // No lock is left: the same folder is opened again, and the program runs.
    node.start_again()?;
    expect_words(200, node.client(COLD_WITHIN).get(&format!("/vm/{hash}/"))?, &["orphan"])?;
    ensure!(node.monitors()?.len() == 1, "one machine runs again");
    if network.host.kind() == Kind::Emulated {
        let groups = jail::machine_groups(&node)?;
        ensure!(groups.len() == 1, "the control group of the killed node's machine is still there: {groups:?}");
    }
    node.stop()
}
