//! What a machine takes of its host besides a processor, and what it gives back.

use crate::{
    answer::{expect, expect_json},
    stage::{self, COLD_WITHIN, NONE_IN_ADVANCE, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use kvm_host::measure::field;
use std::time::Duration;

/// Reads the host's random bytes, and holds memory from one call to another.
const PROGRAM: &str = "import json
held = []
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('only http')
    said = {}
    if scope['path'] == '/entropy':
        with open('/dev/hwrng', 'rb', buffering=0) as device:
            said['bytes'] = device.read(32).hex()
        with open('/sys/class/misc/hw_random/rng_current') as name:
            said['source'] = name.read().strip()
    elif scope['path'] == '/hold':
        held.append(bytearray(b'\\xaa') * (MIB << 20))
    elif scope['path'] == '/free':
        held.clear()
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'application/json')]})
    await send({'type': 'http.response.body', 'body': json.dumps(said).encode()})
";

/// Memory that the program holds, MiB, and how much of that must be seen to come and go.
const HELD_MIB: u64 = 96;
const SEEN_KIB: u64 = (HELD_MIB << 10) * 3 / 4;
/// A guest looks for free blocks every two seconds of its own.
const REPORTED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn entropy_and_free_memory() -> Result<()> {
    let network = stage::network()?;
    let node = network.another_compute_node("crn-devices", &[NONE_IN_ADVANCE])?;
    let client = node.client(COLD_WITHIN);
    let hash = network.plain("devices", &PROGRAM.replace("MIB", &HELD_MIB.to_string()))?;
    let get = |path: &str| client.get(&format!("/vm/{hash}{path}"));

    let (first, second) = (expect_json(200, get("/entropy")?)?, expect_json(200, get("/entropy")?)?);
    ensure!(first["source"] == "virtio_rng.0", "{first}");
    ensure!(first["bytes"].as_str().is_some_and(|text| text.len() == 64), "{first}");
    ensure!(first["bytes"] != second["bytes"], "{first} {second}");

    let monitors = node.monitors()?;
    let [monitor] = monitors[..] else {
        anyhow::bail!("one machine runs, not {monitors:?}");
    };
    let resident_kib = || -> Result<u64> {
        let status = String::from_utf8(network.host.read(&format!("/proc/{monitor}/status"), 0)?)?;
        field(&status, "VmRSS:").context("a resident size")
    };
    let before = resident_kib()?;
    expect(200, get("/hold")?)?;
    let held = resident_kib()?;
    ensure!(held > before + SEEN_KIB, "{before} KiB, then {held}");
    expect(200, get("/free")?)?;
    wait_until(REPORTED_WITHIN, "free memory goes back to the host", || Ok(resident_kib()? + SEEN_KIB < held))?;
    node.stop()
}
