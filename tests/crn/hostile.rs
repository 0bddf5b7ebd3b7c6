//! Guests that are out to harm their host, and what becomes of it: nothing.

use crate::stage::{self, COLD_WITHIN, NONE_IN_ADVANCE, repository, wait_until};
use anyhow::{Context as _, Result, ensure};
use harness::kvm_host::{HostProcess, Kind, KvmHost};
use serde_json::json;
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};
use vmm::kernel::{HEADER_BYTES, Header, PAGE_BYTES};

/// Where the hostile kernel is linked to be.
const LOAD_GPA: u64 = 0x100_0000;
/// Memory of its machine, MiB.
const GUEST_MIB: u64 = 128;
/// For how long it is let, in all; `BETH_HOSTILE_SECONDS` says otherwise.
const SECONDS: u64 = 20;
/// Memory of a monitor besides its guest's, KiB: what its control group gives it.
const MONITOR_KIB: u64 = 8 << 10;
/// What a monitor may write about a guest, whatever that does, bytes.
const LOG_BYTES: usize = 64 << 10;
/// Threads and descriptors of a monitor with one processor and these devices.
const THREADS: usize = 4;
const DESCRIPTORS: usize = 96;
/// Exits for devices that the guest must be seen to have made, or nothing was tried.
const EXITS: u64 = 5_000;

/// The kernel, as a monitor takes it: made by the C compiler that every Rust installation needs anyway.
fn kernel() -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let flat = folder.path().join("kernel");
    let output = Command::new("cc")
        .args(["-nostdlib", "-static", "-no-pie", "-Wl,--oformat=binary", "-Wl,--build-id=none"])
        .arg(format!("-Wl,-Ttext={LOAD_GPA:#x}"))
        .arg("-o")
        .arg(&flat)
        .arg(repository().join("tests/programs/hostile-kernel/kernel.S"))
        .output()
        .context("cannot start cc")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    let mut image = fs::read(&flat)?;
    image.resize(image.len().next_multiple_of(usize::try_from(PAGE_BYTES)?), 0);
    let image_bytes = image.len() as u64;
    let header = Header {
        load_gpa: LOAD_GPA,
        image_bytes,
        end_gpa: LOAD_GPA + image_bytes,
        entry64_gpa: LOAD_GPA,
        entry_pvh_gpa: None,
        build_id: [0; 20],
    };
    let mut kernel = Vec::with_capacity(HEADER_BYTES + image.len());
    kernel.extend(header.to_bytes());
    kernel.extend(image);
    Ok(kernel)
}

/// What KVM has counted for the machines that are there.
fn exits(host: &KvmHost) -> Result<u64> {
    let counters = "[ -e /sys/kernel/debug/kvm ] || mount -t debugfs debugfs /sys/kernel/debug; cat /sys/kernel/debug/kvm/mmio_exits /sys/kernel/debug/kvm/io_exits";
    let text = host.shell(counters)?;
    text.split_whitespace().map(|word| Ok(word.parse::<u64>()?)).sum()
}

/// What a process takes: resident memory at its most, KiB; threads; descriptors.
fn footprint(host: &KvmHost, process: u32) -> Result<Option<(u64, usize, usize)>> {
    let script = format!(
        "cd /proc/{process} 2>/dev/null && sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' status && ls task | wc -l && ls fd | wc -l; true"
    );
    let text = host.shell(&script)?;
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [resident, threads, descriptors] => Ok(Some((resident.parse()?, threads.parse()?, descriptors.parse()?))),
        // It has ended, or is ending.
        _ => Ok(None),
    }
}

/// A monitor that ended was ended by its guest in a way that guests have, or by the test: it did not crash.
fn ended_well(process: &HostProcess<'_>) -> Result<()> {
    let Some(status) = process.status()? else { return Ok(()) };
    ensure!(status.starts_with("exit ") && status != "exit 101", "a monitor ended with {status}: {}", process.log()?);
    Ok(())
}

/// Monitors by themselves, with every device that there is.
pub(crate) fn kernel_against_devices() -> Result<()> {
    let network = stage::network()?;
    let host = network.host;
    if host.kind() != Kind::Emulated {
        println!("skipped: it counts what the whole host does");
        return Ok(());
    }
    let seconds = std::env::var("BETH_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let kernel = host.write("hostile/kernel", &kernel()?)?;
    let initramfs = host.write("hostile/initramfs", &[0; 4096])?;
    let disk = host.write("hostile/disk", &vec![7; 1 << 20])?;
    let vmm = host.install(&stage::installation().program("vmm"), "hostile/vmm")?;
    let sockets = host.path("hostile/sockets");
    host.run(&["mkdir", "-p", &sockets])?.expect_success()?;
    // Of this machine only: those of other tests are counted without it.
    let mut made = 0;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut machines = 0;
    while Instant::now() < until {
        machines += 1;
        let process = host.spawn(
            &format!("hostile-{machines}"),
            &[
                &vmm,
                "run",
                "--quiet",
                "--kernel",
                &kernel,
                "--initramfs",
                &initramfs,
                "--disk",
                &kernel,
                "--disk-rw",
                &disk,
                "--vsock-dir",
                &sockets,
                "--accept-port",
                "53",
                "--entropy",
                "--balloon",
                "--tap",
                "hostile",
                "--address",
                "10.9.0.2",
                "--memory-mib",
                &GUEST_MIB.to_string(),
            ],
        )?;
        // Some of its ports end a machine; the next one begins elsewhere.
        let (others, mut most) = (exits(host)?, 0);
        while Instant::now() < until && process.status()?.is_none() {
            if let Some((resident_kib, threads, descriptors)) = footprint(host, process.id())? {
                ensure!(resident_kib <= (GUEST_MIB << 10) + MONITOR_KIB, "a monitor of {resident_kib} KiB");
                ensure!(threads <= THREADS, "{threads} threads");
                ensure!(descriptors <= DESCRIPTORS, "{descriptors} descriptors");
                most = most.max(exits(host)?.saturating_sub(others));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        made += most;
        ended_well(&process)?;
        if process.status()?.is_none() {
            process.kill(15)?;
            process.wait(Duration::from_secs(30))?;
        }
        let written = process.log()?.len() + process.stdout()?.len();
        ensure!(written <= LOG_BYTES, "{written} bytes of log");
    }
    println!("{machines} machines of a hostile kernel, {made} exits for devices and ports in {seconds} s");
    ensure!(made >= EXITS, "{made} exits only");
    Ok(())
}

/// A node whose guests are all such machines: it says so to who calls, and stays what it was.
pub(crate) fn kernel_against_node() -> Result<()> {
    let network = stage::network()?;
    let host = network.host;
    host.write("hostile-images/kernel", &kernel()?)?;
    host.write("hostile-images/initramfs", &[0; 4096])?;
    let images = format!("images={}", host.path("hostile-images"));
    let node = network.another_compute_node("crn-hostile", &[&images, NONE_IN_ADVANCE, "programs.boot_seconds=15"])?;
    let client = node.client(COLD_WITHIN);
    let hash = network.binary("hostile", 60, json!({}))?;
    let descriptors = || -> Result<usize> {
        let text = host.run(&["ls", &format!("/proc/{}/fd", node.process().id())])?.expect_success()?.text();
        Ok(text.lines().count())
    };
    let mut before = None;
    for _ in 0..3 {
        let answer = client.get(&format!("/vm/{hash}/"))?;
        ensure!((500..600).contains(&answer.status), "{}: {}", answer.status, answer.text());
        wait_until(Duration::from_secs(60), "the hostile machine is gone", || Ok(node.monitors()?.is_empty()))?;
        before = before.or(Some(descriptors()?));
    }
    let (first, last) = (before.context("three calls")?, descriptors()?);
    ensure!(last <= first + 4, "{first} descriptors after the first call, {last} after the third");
    let log = node.process().log()?;
    ensure!(log.len() <= LOG_BYTES, "{} bytes of log", log.len());
    ensure!(client.get("/about/usage/system")?.status == 200, "the node answers");
    node.stop()
}

/// Prints 16 MiB; or answers calls without reading what came with them.
const LOUD_AND_DEAF: &str = "import sys
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('only http')
    if scope['path'] == '/loud':
        for line in range(2048):
            sys.stdout.write(f'{line:08}' + 'x' * 8183 + '\\n')
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': scope['path'].encode()})
";
/// Length of a program's log in that test, KiB.
const LOUD_LOG_KIB: u64 = 512;
/// What the node may take for it besides, KiB.
const NODE_MAY_GROW_KIB: u64 = 24 << 10;

/// A guest that floods its output, and one that does not read: neither costs the node more than it allows, and both go on.
pub(crate) fn loud_and_deaf() -> Result<()> {
    let network = stage::network()?;
    let settings = [format!("logs.max_kib={LOUD_LOG_KIB}")];
    let node = network.another_compute_node("crn-loud", &[&settings[0]])?;
    let hash = network.plain("loud and deaf", LOUD_AND_DEAF)?;
    let client = node.client(COLD_WITHIN);
    let path = |name: &str| format!("/vm/{hash}/{name}");
    ensure!(client.get(&path("quiet"))?.text() == "/quiet", "the program runs");
    let taken = || footprint(network.host, node.process().id())?.context("the node runs");
    let before = taken()?;

    ensure!(client.get(&path("loud"))?.text() == "/loud", "a program that prints goes on");
    let body = vec![b'x'; 16 << 20];
    for _ in 0..3 {
        // Its client may be cut off while it still sends, as by any server that has answered.
        if let Ok(answer) = client.post(&path("deaf"), "application/octet-stream", &body) {
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        }
    }
    ensure!(client.get(&path("quiet"))?.text() == "/quiet", "the program still answers");

    let logs = format!("du -k {}/logs | tail -1", node.data_dir());
    let kept_kib: u64 = network.host.shell(&logs)?.split_whitespace().next().context("a size")?.parse()?;
    ensure!((1..=2 * LOUD_LOG_KIB + 64).contains(&kept_kib), "{kept_kib} KiB of logs");
    let after = taken()?;
    println!(
        "the node: {before:?} before, {after:?} after (KiB at most, threads, descriptors); logs of {kept_kib} KiB"
    );
    ensure!(after.0 <= before.0 + NODE_MAY_GROW_KIB, "{before:?} before, {after:?} after");
    ensure!(after.1 <= before.1 + 8 && after.2 <= before.2 + 8, "{before:?} before, {after:?} after");
    ensure!(node.process().log()?.len() <= LOG_BYTES, "the node's own log");
    node.stop()
}
