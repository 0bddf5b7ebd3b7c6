//! Bodies that are longer than any buffer, and answers that have no end yet.

use crate::{
    answer::{expect_json, noise, sha256},
    stage,
};
use anyhow::{Result, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{
    io::Read as _,
    time::{Duration, Instant},
};

const FIVE_MEGABYTES: usize = 5_000_000;

pub(crate) fn upload() -> Result<()> {
    let network = stage::network()?;
    let hash = network.python("conformance")?;
    let body = noise(FIVE_MEGABYTES);
    let answer = network.client().post(&format!("/vm/{hash}/upload"), "application/octet-stream", &body)?;
    let received = expect_json(200, answer)?;
    ensure!(received["size"] == FIVE_MEGABYTES && received["sha256"] == sha256(&body), "{received}");
    // The program read it as it came.
    ensure!(received["chunks"].as_u64().is_some_and(|chunks| chunks > 3), "{received}");
    Ok(())
}

pub(crate) fn download() -> Result<()> {
    let network = stage::network()?;
    let hash = network.python("conformance")?;
    let (status, mut body) = network.client().get_stream(&format!("/vm/{hash}/download/{FIVE_MEGABYTES}"))?;
    ensure!(status == 200, "{status}");
    let mut received = Vec::new();
    body.read_to_end(&mut received)?;
    // As the program makes them: block i is the sha256 of i, over and over.
    let mut wanted = Vec::new();
    for index in 0.. {
        if wanted.len() >= FIVE_MEGABYTES {
            break;
        }
        wanted.extend_from_slice(&Sha256::digest(index.to_string()).repeat(2048));
    }
    wanted.truncate(FIVE_MEGABYTES);
    ensure!(received == wanted, "{} bytes of {}, the wrong ones", received.len(), sha256(&received));
    Ok(())
}

pub(crate) fn events() -> Result<()> {
    let network = stage::network()?;
    let hash = network.python("conformance")?;
    let (status, mut body) = network.client().get_stream(&format!("/vm/{hash}/events?count=5&gap=0.7"))?;
    ensure!(status == 200, "{status}");
    let mut text = String::new();
    let mut arrivals = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = body.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
        let events = text.matches("\n\n").count();
        arrivals.resize_with(events, Instant::now);
    }
    ensure!(arrivals.len() == 5 && text.ends_with("id: 4\ndata: tick 4\n\n"), "{text:?}");
    let spread = arrivals[4].duration_since(arrivals[0]);
    // Four gaps lie between: an answer that is held back to its end comes at once.
    ensure!(spread > Duration::from_millis(1500), "all five within {spread:?}");
    Ok(())
}

pub(crate) fn websocket() -> Result<()> {
    let network = stage::network()?;
    let hash = network.python("conformance")?;
    // Up, so that the handshake does not wait for a boot.
    expect_json(200, network.client().get(&format!("/vm/{hash}/"))?)?;
    let url = format!("{}/vm/{hash}/echo", network.compute.url().replace("http://", "ws://"));
    let long = "x".repeat(200_000);
    let heard = stage::session()?.user(&["websocket", &url, "one", "zwei ü", &long])?;
    let reversed: Vec<u8> = (0..=255).cycle().take(256 * 64).collect::<Vec<u8>>().into_iter().rev().collect();
    let wanted = json!(["echo: one", "echo: zwei ü", format!("echo: {long}"), hex::encode(reversed)]);
    ensure!(heard["answers"] == wanted, "the echo is another");
    ensure!(heard["close_code"] == 1000, "closed with {}", heard["close_code"]);
    Ok(())
}
