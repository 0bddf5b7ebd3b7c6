//! What the IPFS node is asked, by kubo's RPC (<https://docs.ipfs.tech/reference/kubo/rpc/>): a POST, the arguments in the URL, an answer in JSON.
//!
//! It is the operator's own program, and may fail like any other: every answer has a bound in bytes and one in time.

use super::archive::Archive;
use ccn_message::ItemHash;
use reqwest::{
    Client,
    multipart::{Form, Part},
    redirect,
};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};

/// Longest answer that is read, bytes: none is longer than a list with one pin, or an error.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Characters of an error of the IPFS node that are repeated.
const MAX_SENTENCE: usize = 300;

/// How long the IPFS node may take, and is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// Until there is a connection.
    pub(super) connect: Duration,
    /// To look something up.
    pub(super) answer: Duration,
    /// To take blocks, or to pin them, besides the time for their bytes: it walks through all of them.
    pub(super) work: Duration,
    /// The rate at which it may take longer, bytes a second.
    pub(super) least_rate: u64,
    /// After the first failure with a file, until it is tried again; later pauses are longer.
    pub(super) again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            work: Duration::from_secs(300),
            least_rate: 1 << 20,
            again: Duration::from_secs(30),
        }
    }
}

impl Patience {
    fn of_work(self, bytes: u64) -> Duration {
        self.work.saturating_add(Duration::from_secs(bytes.checked_div(self.least_rate).unwrap_or(0)))
    }
}

/// Why the IPFS node did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RpcError {
    /// It is not reached: nothing else would be answered either.
    #[error("it is not reached: {0}")]
    Away(String),
    /// It did not answer in time. Either it hangs, or with this file.
    #[error("it did not answer in {0:?}")]
    Late(Duration),
    /// It refuses.
    #[error("it says: {0}")]
    Refused(String),
    /// Its answer is none, or was cut off.
    #[error("its answer is none: {0}")]
    Answer(String),
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Identity {
    /// Its peer id.
    #[serde(rename = "ID")]
    pub(super) id: String,
    /// Program and version.
    #[serde(default)]
    pub(super) agent_version: String,
}

/// `pin/ls`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pins {
    /// By CID, in whichever base the program likes.
    keys: HashMap<String, PinEntry>,
}

/// A pin. Programs before kubo 0.26 know no names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PinEntry {
    #[serde(default)]
    name: String,
}

/// An error.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    message: String,
}

/// The IPFS node.
#[derive(Debug, Clone)]
pub(super) struct Rpc {
    client: Client,
    url: String,
    patience: Patience,
}

impl Rpc {
    /// At a base URL without a slash at the end.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(url: &str, patience: Patience) -> Result<Self, reqwest::Error> {
        // Another part of the process may have chosen one; then that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A connection that has lain idle may be closed at the moment at which it is used again, and a POST is not sent twice by itself.
        let lasting = || Client::builder().connect_timeout(patience.connect).redirect(redirect::Policy::none());
        let builder = || lasting().pool_max_idle_per_host(0);
        let client = match builder().build() {
            Ok(client) => client,
            // A host without certificates can do without where it is reached by plain HTTP.
            Err(_) if url.starts_with("http://") => builder().tls_certs_only([]).build()?,
            Err(error) => return Err(error),
        };
        Ok(Self { client, url: url.to_owned(), patience })
    }

    /// Who it is.
    pub(super) async fn identity(&self) -> Result<Identity, RpcError> {
        read(&self.call("id", &[], None, self.patience.answer).await?)
    }

    /// The name of the pin of a file with all that is below it, empty where it has none; none when it is not pinned so.
    pub(super) async fn pin(&self, hash: &ItemHash) -> Result<Option<String>, RpcError> {
        self.pin_of(hash, "recursive").await
    }

    /// True when the first block of a file is pinned by itself. A pin with all that is below it takes the place of that one.
    pub(super) async fn has_direct_pin(&self, hash: &ItemHash) -> Result<bool, RpcError> {
        Ok(self.pin_of(hash, "direct").await?.is_some())
    }

    async fn pin_of(&self, hash: &ItemHash, kind: &str) -> Result<Option<String>, RpcError> {
        let cid = hash.to_string();
        let query = [("arg", cid.as_str()), ("type", kind), ("names", "true")];
        match self.call("pin/ls", &query, None, self.patience.answer).await {
            // It was asked for one; how it writes that one is its own affair.
            Ok(answer) => Ok(read::<Pins>(&answer)?.keys.into_values().next().map(|pin| pin.name)),
            Err(error) if is_not_pinned(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pins a file of that many bytes with all that is below it. What it lacks it looks for in its network.
    pub(super) async fn add_pin(&self, hash: &ItemHash, bytes: u64, name: &str) -> Result<(), RpcError> {
        let cid = hash.to_string();
        let query = [("arg", cid.as_str()), ("recursive", "true"), ("name", name)];
        self.call("pin/add", &query, None, self.patience.of_work(bytes)).await.map(drop)
    }

    /// Pins a file no longer. That it is not pinned is no error.
    pub(super) async fn remove_pin(&self, hash: &ItemHash) -> Result<(), RpcError> {
        let cid = hash.to_string();
        let query = [("arg", cid.as_str()), ("recursive", "true")];
        match self.call("pin/rm", &query, None, self.patience.answer).await {
            Err(error) if !is_not_pinned(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives it blocks. They are pinned afterwards: a pin that is made here could have no name.
    pub(super) async fn import(&self, archive: Archive) -> Result<(), RpcError> {
        // Kubo refuses blocks of more than a mebibyte by default; ours are those that IPFS passes on.
        let query = [("pin-roots", "false"), ("stats", "true"), ("allow-big-block", "true")];
        let within = self.patience.of_work(archive.bytes);
        let part = Part::stream(archive.into_body()).file_name("file.car").mime_str("application/vnd.ipld.car");
        let part = part.map_err(|error| RpcError::Answer(error.to_string()))?;
        self.call("dag/import", &query, Some(Form::new().part("file", part)), within).await.map(drop)
    }

    async fn call(
        &self,
        command: &str,
        query: &[(&str, &str)],
        form: Option<Form>,
        within: Duration,
    ) -> Result<Vec<u8>, RpcError> {
        let words: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.client.post(format!("{}/api/v0/{command}?{}", self.url, words.join("&")));
        if let Some(form) = form {
            request = request.multipart(form);
        }
        let called = async {
            let mut response = request.send().await.map_err(unreached)?;
            let (status, mut answer) = (response.status(), Vec::new());
            while let Some(piece) = response.chunk().await.map_err(broken)? {
                if answer.len() + piece.len() > MAX_ANSWER_BYTES {
                    return Err(RpcError::Answer(format!("it has more than {MAX_ANSWER_BYTES} bytes")));
                }
                answer.extend_from_slice(&piece);
            }
            Ok((status, answer))
        };
        let (status, answer) = tokio::time::timeout(within, called).await.map_err(|_| RpcError::Late(within))??;
        if status.is_success() {
            return Ok(answer);
        }
        // What is in front of it, or something else in its place, says it in words of its own.
        let said = serde_json::from_slice::<Refusal>(&answer).map_or_else(|_| status.to_string(), |said| said.message);
        Err(RpcError::Refused(said.chars().take(MAX_SENTENCE).collect()))
    }
}

fn is_not_pinned(error: &RpcError) -> bool {
    // There is no code for it. "… is not pinned", and of one inside another "not pinned or pinned indirectly".
    matches!(error, RpcError::Refused(message) if message.contains("not pinned"))
}

/// The last reason of an error, without the URL, which may hold a password.
fn reason(error: reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = &error.without_url();
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

fn unreached(error: reqwest::Error) -> RpcError {
    if error.is_connect() { RpcError::Away(reason(error)) } else { broken(error) }
}

fn broken(error: reqwest::Error) -> RpcError {
    RpcError::Answer(reason(error))
}

fn read<'answer, T: Deserialize<'answer>>(answer: &'answer [u8]) -> Result<T, RpcError> {
    serde_json::from_slice(answer).map_err(|error| RpcError::Answer(error.to_string()))
}
