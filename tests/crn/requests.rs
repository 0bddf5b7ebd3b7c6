//! Ordinary requests to an ordinary application.

use crate::{
    answer::{expect, expect_json, expect_words},
    stage,
};
use anyhow::{Context as _, Result, ensure};
use harness::http::{Answer, Client};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The conformance application: a client of its node, and its path.
fn application() -> Result<(Client, String)> {
    let network = stage::network()?;
    let hash = network.python("conformance")?;
    Ok((network.client(), format!("/vm/{hash}")))
}

fn get(path: &str) -> Result<Answer> {
    let (client, base) = application()?;
    client.get(&format!("{base}{path}"))
}

/// A request that HTTP libraries would tidy up, and its whole answer.
fn raw(request: &str) -> Result<String> {
    let network = stage::network()?;
    let mut stream = TcpStream::connect(network.compute.url().trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(Duration::from_secs(600)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn path_and_query() -> Result<()> {
    ensure!(expect_json(200, get("/")?)? == json!({"Example": "conformance", "startup_hooks": 1}));
    let item = expect_json(200, get("/items/42?q=some+text%21&limit=3")?)?;
    ensure!(item == json!({"item_id": 42, "q": "some text!", "limit": 3}), "{item}");
    ensure!(expect_json(200, get("/items/1")?)? == json!({"item_id": 1, "q": null, "limit": 10}));
    // The framework's own refusal, untouched.
    expect_words(422, get("/items/no-number")?, &["int_parsing", "item_id"])
}

pub(crate) fn json_and_form_bodies() -> Result<()> {
    let (client, base) = application()?;
    let body = json!({"name": "Tür", "price": 1.25, "tags": ["a", "ß"]});
    let made = expect_json(200, client.post_json(&format!("{base}/items"), &body)?)?;
    ensure!(made == json!({"name": "Tür", "total": 2.5, "tags": ["a", "ß"]}), "{made}");
    let refused = client.post(&format!("{base}/items"), "application/json", b"{\"name\": ")?;
    expect_words(422, refused, &["json_invalid"])?;
    let form = b"text=two+words+%26+more&number=7";
    let sent = client.post(&format!("{base}/form"), "application/x-www-form-urlencoded", form)?;
    ensure!(expect_json(200, sent)? == json!({"text": "two words & more", "number": 7}));
    Ok(())
}

pub(crate) fn the_whole_scope_arrives() -> Result<()> {
    let (client, base) = application()?;
    let scope = expect_json(200, client.get(&format!("{base}/scope/a%2Fb/%C3%BC?x=%26y&x=%3D&empty"))?)?;
    ensure!(scope["method"] == "GET" && scope["http_version"] == "1.1", "{scope}");
    ensure!(scope["path"] == "/scope/a/b/ü", "{scope}");
    ensure!(scope["raw_path"] == "/scope/a%2Fb/%C3%BC", "{scope}");
    ensure!(scope["query_string"] == "x=%26y&x=%3D&empty", "{scope}");
    let headers: Vec<(String, String)> = serde_json::from_value(scope["headers"].clone())?;
    ensure!(headers.iter().any(|(name, _)| name == "host"), "{headers:?}");

    // Duplicates stay two, in order; names are lower case.
    let network = stage::network()?;
    let host = network.compute.url().trim_start_matches("http://").to_owned();
    let answer = raw(&format!(
        "GET {base}/scope/raw HTTP/1.1\r\nHost: {host}\r\nX-Twice: one\r\nx-twice: two\r\nConnection: close\r\n\r\n"
    ))?;
    let start = answer.find('{').context("a JSON body")?;
    let end = answer.rfind('}').context("a JSON body")?;
    let scope: Value = serde_json::from_str(&answer[start..=end]).with_context(|| answer.clone())?;
    let headers: Vec<(String, String)> = serde_json::from_value(scope["headers"].clone())?;
    let twice: Vec<&str> =
        headers.iter().filter(|(name, _)| name == "x-twice").map(|(_, value)| value.as_str()).collect();
    ensure!(twice == ["one", "two"], "{headers:?}");
    Ok(())
}

pub(crate) fn methods() -> Result<()> {
    let (_, base) = application()?;
    let network = stage::network()?;
    let host = network.compute.url().trim_start_matches("http://").to_owned();
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = raw(&format!(
            "{method} {base}/scope/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ))?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
        ensure!(answer.contains(&format!("\"method\":\"{method}\"")), "{method}: {answer}");
    }
    let answer = raw(&format!("TRACE {base}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))?;
    ensure!(answer.starts_with("HTTP/1.1 405"), "the framework's own refusal: {answer}");
    Ok(())
}

pub(crate) fn headers_of_answers_are_kept() -> Result<()> {
    let missing = expect(404, get("/missing")?)?;
    ensure!(missing.header("x-own") == Some("yes"), "{:?}", missing.headers);
    ensure!(missing.json()? == json!({"detail": "the program's own 404"}), "{}", missing.text());
    expect_words(404, get("/no/such/route")?, &["\"detail\":\"Not Found\""])?;
    expect_words(418, get("/teapot")?, &["short and stout"])?;
    let redirect = expect(307, get("/redirect")?)?;
    ensure!(redirect.header("location") == Some("/items/7"), "{:?}", redirect.headers);
    let cookies = expect(200, get("/cookies")?)?;
    let set = cookies.headers.iter().filter(|(name, _)| name == "set-cookie").count();
    ensure!(set == 2, "{:?}", cookies.headers);
    Ok(())
}

pub(crate) fn hooks() -> Result<()> {
    let state = expect_json(200, get("/lifespan")?)?;
    let wanted = json!({"app_state": "set by the startup hook", "request_state": "state reaches requests"});
    ensure!(state == wanted, "{state}");
    Ok(())
}

pub(crate) fn environment() -> Result<()> {
    let variables = expect_json(200, get("/environ")?)?;
    ensure!(variables["GREETING"] == "from the message" && variables["EMPTY"] == "", "{variables}");
    Ok(())
}

pub(crate) fn clock_and_randomness() -> Result<()> {
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let clock = expect_json(200, get("/clock")?)?["time"].as_f64().context("a number")?;
    let after = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    // An emulated processor under load loses ticks; what is asked for here is the right day, not the right second.
    ensure!(clock > before - 120.0 && clock < after + 120.0, "{before} … {clock} … {after}");
    let (first, second) = (expect_json(200, get("/random")?)?, expect_json(200, get("/random")?)?);
    ensure!(first != second && first["bytes"].as_str().is_some_and(|text| text.len() == 32), "{first} {second}");
    Ok(())
}

pub(crate) fn by_host_name() -> Result<()> {
    let network = stage::network()?;
    let hash = network.python("conformance")?;
    let label = base32(&hex::decode(hash)?);
    for host in [format!("{label}.example.org"), format!("{}.localhost:4020", label.to_uppercase())] {
        let answer = raw(&format!("GET /items/5?q=h HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))?;
        ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"item_id\":5"), "{host}: {answer}");
    }
    Ok(())
}

/// RFC 4648 without padding, lower case, written out here so that the node's own coder is checked by another.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(buffer >> bits & 31) as usize]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(buffer << (5 - bits) & 31) as usize]));
    }
    text
}

pub(crate) fn static_binary() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let hash = network.binary("plain", 60, json!({}))?;
    let answer = expect(200, client.get(&format!("/vm/{hash}/a?b=c"))?)?;
    ensure!(answer.text().starts_with("hello from a static binary: GET /a?b=c HTTP/1.1"), "{}", answer.text());
    let posted = client.post(&format!("/vm/{hash}/"), "application/octet-stream", &[7; 100_000])?;
    expect_words(200, posted, &["(100000 bytes of body)"])?;

    let slow = network.binary("slow", 120, json!({"START_DELAY_MS": "2500", "COLOUR": "green"}))?;
    expect_words(200, client.get(&format!("/vm/{slow}/environment"))?, &["COLOUR=green"])
}
