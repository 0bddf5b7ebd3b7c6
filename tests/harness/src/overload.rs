//! More clients than a core node has room for: websockets that are idle, uploads that hardly get on, readers that stop reading, and others who only
//! want their answers. Used by the end-to-end test, which looks at what is refused and how, and by `cargo xtask bench overload`, which looks at time.

use crate::{
    devnet::{ANSWER_WITHIN, CoreNode},
    http::Client,
};
use anyhow::{Context as _, Result, bail, ensure};
use ccn_message::sign::{Account, Draft, to_json};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::json;
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Bytes of the text of a long post, and how many there are: an answer with all of them has some 12 MiB.
const TEXT_BYTES: usize = 150_000;
const LONG_POSTS: usize = 40;
/// How long an answer may take that says that there is no room.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// What a slow upload sends, every second.
const TRICKLE: &[u8] = b"x";
/// Bytes of the upload of somebody who is not slow.
const HONEST_BYTES: usize = 1 << 20;
/// How often a client that is refused comes again.
const ATTEMPTS: usize = 12;
/// Requests of the others.
const REQUESTS: usize = 600;
/// One in how many of them is slower than the tail that is shown.
const TAIL: usize = 100;

/// How many of each there are.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Websockets on which nobody says anything. One more than the node takes is tried besides.
    pub websockets: usize,
    /// Uploads of a byte a second.
    pub uploads: usize,
    /// Clients that ask for a long answer and do not read it.
    pub readers: usize,
}

/// What became of clients of one kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Outcome {
    /// They are being served.
    pub served: usize,
    /// They were told to come again: 503 with Retry-After.
    pub refused: usize,
    /// They were answered in another way, or not in time.
    pub other: usize,
}

/// How long requests took, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// The middle.
    pub median_ms: f64,
    /// What all but one in a hundred keep below.
    pub tail_ms: f64,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Idle websockets.
    pub websockets: Outcome,
    /// True when one more was closed with the code that says to come again (1013).
    pub is_one_more_refused: bool,
    /// Slow uploads.
    pub uploads: Outcome,
    /// Clients that do not read.
    pub readers: Outcome,
    /// Attempts that an upload needed which is as fast as it can be.
    pub attempts_of_honest_upload: usize,
    /// Others, without the load.
    pub quiet: Latency,
    /// Others, under it.
    pub loaded: Latency,
    /// Memory of the node before, KiB.
    pub resident_kib_before: u64,
    /// The most that it had, KiB.
    pub resident_kib_most: u64,
}

/// Puts the load on a node and looks at what becomes of it and of others.
///
/// # Errors
/// The node does not answer those who ask for little, or something cannot be measured.
pub fn run(node: &CoreNode, load: Load, progress: impl Fn(&str)) -> Result<Report> {
    raise_limit(load)?;
    progress("publishing what is asked for");
    let paths = publish(&node.client())?;
    let resident_kib_before = resident_kib(node)?;
    let quiet = latency(node, &paths)?;
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(resident_kib(node).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let report = under_load(node, load, &paths, &progress);
        over.store(true, Ordering::Relaxed);
        let report = report?;
        Ok(Report { quiet, resident_kib_before, resident_kib_most: most.load(Ordering::Relaxed), ..report })
    })
}

fn under_load(node: &CoreNode, load: Load, paths: &[String], progress: &impl Fn(&str)) -> Result<Report> {
    let address = node.url().trim_start_matches("http://");
    progress("opening websockets");
    let (mut websockets, mut open) = (Outcome::default(), Vec::new());
    for _ in 0..load.websockets {
        let mut socket = websocket(address)?;
        match status(&mut socket, ANSWER_WITHIN)? {
            Some(Answered { status: 101, .. }) => websockets.served += 1,
            _ => websockets.other += 1,
        }
        open.push(socket);
    }
    let is_one_more_refused = is_closed_for_now(websocket(address)?)?;
    progress("starting uploads");
    let mut uploads = (0..load.uploads).map(|_| upload(address)).collect::<Result<Vec<TcpStream>>>()?;
    // One that is still being received has no answer, and is served.
    let uploads_at_first = became(&mut uploads, REFUSED_WITHIN, |answered| answered.is_none())?;
    progress("asking and not reading");
    let ask = |_: usize| send(address, &format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", paths[0]));
    let mut readers = (0..load.readers).map(ask).collect::<Result<Vec<TcpStream>>>()?;
    let readers_at_first =
        became(&mut readers, ANSWER_WITHIN, |answered| answered.is_some_and(|answered| answered.status == 200))?;
    let over = AtomicBool::new(false);
    let mut trickling = uploads.iter().map(TcpStream::try_clone).collect::<io::Result<Vec<TcpStream>>>()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // One that has to make room is closed; the rest goes on.
                trickling.retain_mut(|socket| socket.write_all(TRICKLE).is_ok());
                thread::sleep(Duration::from_secs(1));
            }
        });
        let asked = || -> Result<Report> {
            progress("asking for little");
            let loaded = latency(node, paths)?;
            progress("uploading at full speed");
            let attempts_of_honest_upload = honest_upload(&node.client())?;
            Ok(Report {
                websockets,
                is_one_more_refused,
                uploads: uploads_at_first,
                readers: readers_at_first,
                attempts_of_honest_upload,
                quiet: loaded,
                loaded,
                resident_kib_before: 0,
                resident_kib_most: 0,
            })
        };
        let report = asked();
        over.store(true, Ordering::Relaxed);
        report
    })
}

/// What became of these clients within that time, all of them together; `is_served` is told their answers, or that there is none yet. Those that
/// were not refused are left.
fn became(
    sockets: &mut Vec<TcpStream>,
    limit: Duration,
    is_served: impl Fn(Option<&Answered>) -> bool,
) -> Result<Outcome> {
    let (mut outcome, mut left, until) = (Outcome::default(), Vec::new(), Instant::now() + limit);
    for mut socket in sockets.drain(..) {
        let rest = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let answered = status(&mut socket, rest)?;
        match &answered {
            Some(Answered { status: 503, has_retry_after: true }) => {
                outcome.refused += 1;
                continue;
            }
            answered if is_served(answered.as_ref()) => outcome.served += 1,
            _ => outcome.other += 1,
        }
        left.push(socket);
    }
    *sockets = left;
    Ok(outcome)
}

/// As many open files as there will be connections.
fn raise_limit(load: Load) -> Result<()> {
    // The uploads are there twice: to be written to, and to be read from.
    let wanted = (load.websockets + 2 * load.uploads + load.readers + 256) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        ensure!(
            maximum.is_none_or(|maximum| maximum >= wanted),
            "{wanted} open files are needed and {maximum:?} allowed: raise ulimit -Hn"
        );
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    }
    Ok(())
}

/// Publishes long posts; returns the path of all of them, and paths of small things.
fn publish(client: &Client) -> Result<Vec<String>> {
    let account = Account::ethereum([77; 32]).context("a key")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
    let mut last = String::new();
    for number in 0..LONG_POSTS {
        let content = json!({"type": "long", "content": {"number": number, "text": "x".repeat(TEXT_BYTES)}});
        let post = Draft::new("POST", &content.to_string()).time(now + number as f64 / 1e3).sign(&account);
        let body = format!(r#"{{"sync":true,"message":{}}}"#, to_json(&post));
        let answer = client.post("/api/v0/messages", "application/json", body.as_bytes())?;
        ensure!(answer.status == 200, "a post is answered {}: {}", answer.status, answer.text());
        last = post.item_hash.to_string();
    }
    let address = account.address();
    Ok(vec![
        format!("/api/v0/messages.json?addresses={address}&pagination={LONG_POSTS}"),
        format!("/api/v0/messages/{last}/status"),
        format!("/api/v0/addresses/{address}/balance"),
        format!("/api/v0/messages.json?addresses={address}&pagination=1&contentFormat=none"),
        "/api/v0/version".to_owned(),
    ])
}

/// How long those wait who ask for little.
fn latency(node: &CoreNode, paths: &[String]) -> Result<Latency> {
    let client = node.client();
    let mut took = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        let path = &paths[1 + number % (paths.len() - 1)];
        let asked = Instant::now();
        let answer = client.get(path)?;
        ensure!(answer.status == 200, "{path} is answered {}: {}", answer.status, answer.text());
        took.push(asked.elapsed());
    }
    took.sort();
    let ms = |place: usize| took[place].as_secs_f64() * 1e3;
    Ok(Latency { median_ms: ms(REQUESTS / 2), tail_ms: ms(REQUESTS - 1 - REQUESTS / TAIL) })
}

/// Uploads as fast as it can, and comes again as often as it is told to; returns how often it tried.
fn honest_upload(client: &Client) -> Result<usize> {
    let bytes: Vec<u8> = (0..HONEST_BYTES).map(|place| (place % 251) as u8).collect();
    for attempt in 1..=ATTEMPTS {
        let answer = client.post("/api/v0/storage/add_file", "application/octet-stream", &bytes)?;
        match answer.status {
            200 => return Ok(attempt),
            503 => {
                let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
                thread::sleep(Duration::from_secs(seconds.context("a refusal says when to come again")?));
            }
            other => bail!("an upload is answered {other}: {}", answer.text()),
        }
    }
    bail!("an upload was refused {ATTEMPTS} times, each time after the pause that was asked for")
}

fn send(address: &str, request: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address).with_context(|| format!("no connection to {address}"))?;
    socket.write_all(request.as_bytes())?;
    Ok(socket)
}

fn websocket(address: &str) -> Result<TcpStream> {
    send(
        address,
        &format!(
            "GET /api/ws0/messages?history=0&addresses=nobody HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    )
}

/// An upload that has begun and has hardly anything of what it announces.
fn upload(address: &str) -> Result<TcpStream> {
    let head = format!(
        "POST /api/v0/storage/add_file HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/octet-stream\r\nContent-Length: {HONEST_BYTES}\r\n\r\n"
    );
    send(address, &head)
}

/// The head of an answer.
struct Answered {
    status: u16,
    has_retry_after: bool,
}

/// Reads the head of an answer and nothing after it; none when it does not come in time.
fn status(socket: &mut TcpStream, limit: Duration) -> Result<Option<Answered>> {
    const MAX_HEAD_BYTES: usize = 4096;
    socket.set_read_timeout(Some(limit))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            _ => bail!("the connection ended inside the head {:?}", String::from_utf8_lossy(&head)),
        }
        ensure!(head.len() <= MAX_HEAD_BYTES, "a head is longer than {MAX_HEAD_BYTES} bytes");
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    Ok(Some(Answered { status, has_retry_after: head.contains("\r\nretry-after:") }))
}

/// True for a websocket that is closed with the code that says to come again later.
fn is_closed_for_now(mut socket: TcpStream) -> Result<bool> {
    const CLOSE: u8 = 0x88;
    const AGAIN: [u8; 2] = 1013_u16.to_be_bytes();
    let Some(Answered { status: 101, .. }) = status(&mut socket, ANSWER_WITHIN)? else { return Ok(false) };
    let mut frame = [0; 4];
    socket.read_exact(&mut frame).context("it is neither served nor closed")?;
    Ok(frame[0] == CLOSE && frame[2..] == AGAIN)
}

/// Memory of the node, KiB.
fn resident_kib(node: &CoreNode) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process_id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a size")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
