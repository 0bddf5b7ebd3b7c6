//! A static executable that serves HTTP on port 8080: the simplest binary program.
//!
//! Paths: `/` says hello, `/arguments` and `/environment` show what it was started with, `/slow-start` is
//! answered like `/`; with the variable `START_DELAY_MS` it listens only after that time, with `EXIT_AT_START` it
//! ends before it listens; `/exit` ends it while a request waits; `/garbage` answers what is not HTTP. `/machine?MS` takes
//! that long and tells machines apart; with the variable `CHAIN` it computes from its start on, and `/chain` says what ([`chain`]).
//! With a volume at the folder that the variable `VOLUME` names: `/mounts` shows all mounts; `/visit` counts visits there, of which a
//! start is one; `/records` and `/write` are about durable records ([`volume`]), `/fill` and `/empty` about room.
#![expect(clippy::print_stdout, reason = "what it prints is part of what tests look at")]

mod chain;
mod volume;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Calls of `/machine` under way, and the most that ever were.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn main() -> std::io::Result<()> {
    if let Ok(text) = std::env::var("EXIT_AT_START") {
        eprintln!("ending before listening, as asked");
        std::process::exit(text.parse().unwrap_or(3));
    }
    if std::env::var_os("CHAIN").is_some() {
        chain::begin()?;
    }
    if let Some(delay) = std::env::var("START_DELAY_MS").ok().and_then(|text| text.parse().ok()) {
        std::thread::sleep(Duration::from_millis(delay));
    }
    volume::started();
    // Before: whoever is copied as soon as it listens would be at another step in each copy.
    chain::listens()?;
    let listener = TcpListener::bind(("0.0.0.0", 8080))?;
    println!("listening on 8080");
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("a connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut length = 0_u64;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let read = std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let path = line.split_whitespace().nth(1).unwrap_or("/");
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "/arguments" => answer(&mut stream, &std::env::args().skip(1).collect::<Vec<_>>().join("\n")),
        "/environment" => {
            let lines: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            answer(&mut stream, &lines.join("\n"))
        }
        "/machine" => {
            MOST.fetch_max(UNDER_WAY.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(query.parse().unwrap_or(0)));
            UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
            let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
            answer(&mut stream, &format!("{} {}", boot.trim(), MOST.load(Ordering::SeqCst)))
        }
        "/chain" => chain::answer(&mut stream),
        "/exit" => std::process::exit(7),
        "/garbage" => stream.write_all(b"this is not HTTP at all\r\n\r\n"),
        "/mounts" => answer(&mut stream, &std::fs::read_to_string("/proc/mounts")?),
        "/visit" => outcome(&mut stream, volume::visit().map(|before| before.to_string())),
        "/records" => outcome(&mut stream, volume::records().map(|(log, state)| format!("{log} {state}"))),
        "/write" => volume::write_records(&mut stream),
        "/fill" => outcome(&mut stream, volume::fill().map(|(written, error)| format!("{written} {error}"))),
        "/empty" => outcome(&mut stream, volume::empty().map(|()| "emptied".to_owned())),
        _ => answer(&mut stream, &format!("hello from a static binary: {} ({read} bytes of body)\n", line.trim())),
    }
}

fn outcome(stream: &mut impl Write, outcome: Result<String, impl std::fmt::Display>) -> std::io::Result<()> {
    match outcome {
        Ok(body) => answer(stream, &body),
        Err(error) => answer_with(stream, "500 Internal Server Error", &error.to_string()),
    }
}

fn answer(stream: &mut impl Write, body: &str) -> std::io::Result<()> {
    answer_with(stream, "200 OK", body)
}

fn answer_with(stream: &mut impl Write, status: &str, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
