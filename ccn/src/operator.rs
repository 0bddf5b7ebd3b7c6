//! The operator's own door: a word that only those have who can read the data folder, and the commands that use it.
//!
//! A request that comes from this machine proves nothing, since a proxy in front of the node is on this machine too. The word does.

use crate::{cli::Order, config::Config};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// The file in the data folder.
const FILE: &str = "operator-word";
/// Random bytes of the word.
const WORD_BYTES: usize = 32;
/// How long the node may take to answer: a plugin may have to be compiled first.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// The word, as its hash: it is compared, never shown.
#[derive(Clone)]
pub struct Word([u8; 32]);

impl std::fmt::Debug for Word {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Word")
    }
}

impl Word {
    /// The word of a data folder; made at the first start.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub fn open(data: &Path) -> io::Result<Self> {
        let path = data.join(FILE);
        let word = match fs::read_to_string(&path) {
            Ok(word) if word.trim().len() == 2 * WORD_BYTES => word.trim().to_owned(),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // None, or what a power cut left of one.
            Ok(_) | Err(_) => {
                let mut bytes = [0; WORD_BYTES];
                getrandom::fill(&mut bytes).map_err(io::Error::other)?;
                let word = hex::encode(bytes);
                let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
                file.write_all(word.as_bytes())?;
                file.sync_all()?;
                word
            }
        };
        Ok(Self(Sha256::digest(word).into()))
    }

    /// True for the word itself. Hashes are compared: how long it takes tells nothing of the word.
    #[must_use]
    pub fn is(&self, claimed: &str) -> bool {
        self.0 == <[u8; 32]>::from(Sha256::digest(claimed.trim()))
    }
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The word is not there: no node has run in that folder, or it is another user's.
    #[error("{path}: {reason}; run this as the user of the node, with its --data-dir")]
    Word {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// The node does not answer.
    #[error("the node does not answer at {url}: {reason}; is it running, and is this its --listen?")]
    Silent {
        /// Where it was asked.
        url: String,
        /// What happened.
        reason: reqwest::Error,
    },
    /// It is not said that it is meant.
    #[error("this deletes all that the removed plugin `{0}` has written; if that is meant, say it again with --yes")]
    Unconfirmed(String),
    /// The node refuses.
    #[error("{0}")]
    Refused(String),
}

/// Asks the node that runs with these settings; its answer, for people.
///
/// # Errors
/// See [`CommandError`].
pub async fn run(order: &Order, config: &Config) -> Result<String, CommandError> {
    let (is_question, path) = match order {
        Order::Plugins => (true, "/api/v0/plugins".to_owned()),
        Order::Quarantine => (true, "/api/v0/plugins/quarantine?pagination=500".to_owned()),
        Order::Pins => (true, "/api/v0/ipfs/pins".to_owned()),
        Order::Digest { verify: false } => (true, "/api/v0/digest".to_owned()),
        Order::Digest { verify: true } => (false, "/api/v0/digest/verify".to_owned()),
        Order::Retry { hash } => (false, format!("/api/v0/plugins/quarantine/{}/retry", in_path(hash))),
        Order::Resume { plugin } => (false, format!("/api/v0/plugins/{}/resume", in_path(plugin))),
        Order::DropState { plugin, yes: false } => return Err(CommandError::Unconfirmed(plugin.clone())),
        Order::DropState { plugin, yes: true } => (false, format!("/api/v0/plugins/{}/drop-state", in_path(plugin))),
    };
    let file = config.data_dir.join(FILE);
    let word = fs::read_to_string(&file).map_err(|reason| CommandError::Word { path: file, reason })?;
    let url = format!("http://{}{path}", reachable(config.listen));
    let silent = |reason| CommandError::Silent { url: url.clone(), reason };
    // It speaks to its own machine: no TLS, no authorities.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER_WITHIN);
    let client = client.build().map_err(silent)?;
    let request = if is_question { client.get(&url) } else { client.post(&url).bearer_auth(word.trim()) };
    let answer = request.send().await.map_err(silent)?;
    let is_good = answer.status().is_success();
    let body = answer.bytes().await.map_err(silent)?;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if !is_good {
        return Err(CommandError::Refused(body["error"].as_str().unwrap_or("the node refuses").to_owned()));
    }
    Ok(match order {
        Order::Plugins => plugins(&body),
        Order::Quarantine => quarantine(&body),
        Order::Pins => pins(&body),
        Order::Digest { .. } => digest(&body)?,
        Order::Retry { .. } => format!("{}\n", body["message_status"].as_str().unwrap_or("retried")),
        Order::Resume { .. } | Order::DropState { .. } => "done\n".to_owned(),
    })
}

/// Where a node that listens there is reached from its own machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// A name as a part of a path.
fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn list(value: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    value.as_array().into_iter().flatten()
}

fn plugins(answer: &serde_json::Value) -> String {
    let mut lines = String::new();
    for plugin in list(&answer["plugins"]) {
        let types: Vec<&str> = list(&plugin["types"]).map(text).collect();
        let name = plugin["name"].as_str().unwrap_or_else(|| text(&plugin["file"]));
        let reason = plugin["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        let (version, sha256) = (text(&plugin["version"]), text(&plugin["sha256"]));
        let (origin, state) = (text(&plugin["origin"]), text(&plugin["state"]));
        lines
            .push_str(&format!("{name} {version} {origin} {} {state}{reason}\n    sha256 {sha256}\n", types.join(",")));
    }
    for deviation in list(&answer["deviations"]) {
        lines.push_str(&format!(
            "DEVIATES: {} is pinned to {}, and {} is active\n",
            text(&deviation["type"]),
            text(&deviation["pinned"]),
            deviation["found"].as_str().unwrap_or("nothing"),
        ));
    }
    lines
}

fn pins(answer: &serde_json::Value) -> String {
    let pinning = &answer["pinning"];
    if pinning.is_null() {
        return "nothing is pinned: there is no ipfs.api, or ipfs.pin is false\n".to_owned();
    }
    let (state, agent, node) = (text(&pinning["state"]), text(&pinning["agent"]), text(&pinning["node"]));
    let mut lines = format!("{state}: {agent} {node}\n");
    if let Some(sentence) = pinning["last_error"]["sentence"].as_str() {
        lines.push_str(&format!("AWAY: {sentence}\n"));
    }
    let more = if pinning["walking"] == true { " and maybe more" } else { "" };
    lines.push_str(&format!(
        "{} pinned as {}, {} pinned by others before, {} waiting{more}, {} failing\n",
        pinning["pinned"],
        text(&pinning["name"]),
        pinning["found"],
        pinning["waiting"],
        pinning["failing"],
    ));
    for failure in list(&pinning["failures"]) {
        let (hash, reason) = (text(&failure["item_hash"]), text(&failure["reason"]));
        lines.push_str(&format!("{hash} failed {} times: {reason}\n", failure["attempts"]));
    }
    lines
}

fn digest(answer: &serde_json::Value) -> Result<String, CommandError> {
    let mut lines = format!("{} of {} messages\n", text(&answer["digest"]), answer["messages"]);
    for (name, part) in answer["parts"].as_object().into_iter().flatten() {
        lines.push_str(&format!("  {name}: {}\n", text(part)));
    }
    match answer["recomputed"].as_str() {
        None => Ok(lines),
        Some(recomputed) if answer["digest"] == recomputed => Ok(lines + "the stored rows come to the same\n"),
        Some(recomputed) => {
            let sentence = "the store is damaged: put a backup in its place, or take all messages in again";
            Err(CommandError::Refused(format!("{lines}the stored rows come to {recomputed}: {sentence}")))
        }
    }
}

fn quarantine(answer: &serde_json::Value) -> String {
    let mut lines = String::new();
    for row in list(&answer["quarantine"]) {
        let (hash, kind, plugin) = (text(&row["item_hash"]), text(&row["type"]), text(&row["plugin"]));
        lines.push_str(&format!("{hash} {kind} {plugin} {}: {}\n", text(&row["class"]), text(&row["reason"])));
    }
    if answer["next"].is_string() {
        lines.push_str("and more\n");
    }
    if lines.is_empty() { "no message is put aside\n".to_owned() } else { lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_folders_own_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        Word::open(folder.path()).expect("a word");
        let written = fs::read_to_string(folder.path().join(FILE)).expect("a file");
        let word = Word::open(folder.path()).expect("the same word");
        assert!(word.is(&written) && word.is(&format!("{written}\n")));
        assert!(!word.is("") && !word.is(&written[1..]));
        fs::write(folder.path().join(FILE), "").expect("what a power cut leaves");
        assert!(!Word::open(folder.path()).expect("a new word").is(""));
    }

    #[test]
    fn names_do_not_leave_their_place_in_a_path() {
        assert_eq!(in_path("a/../b?c é"), "a%2F..%2Fb%3Fc%20%C3%A9");
        assert_eq!(reachable("0.0.0.0:7".parse().expect("an address")).to_string(), "127.0.0.1:7");
    }
}
