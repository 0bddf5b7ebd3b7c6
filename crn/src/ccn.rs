//! Client of a core channel node: messages, versions of files, and the files themselves.
//!
//! What the node says is not believed where it can be checked: a message's content and a file's bytes
//! must have the hash that names them. That a message was accepted by the network, and which amend of a
//! file is the newest, only the node can tell; signatures are its business.

use crate::digest::{Digest, Unsupported};
use backon::{ExponentialBuilder, Retryable as _};
use ccn_message::{Envelope, ItemHash, content::store::StoreContent, envelope::ContentHeader};
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use reqwest::{Response, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::sync::Semaphore;

/// Longest answer to a question, bytes; also the longest content of a message. A core channel node takes
/// no message above 1 MiB, its content stored apart may be longer.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Questions under way at once; more wait. Downloads are bounded by the file cache instead.
const MAX_QUESTIONS: usize = 10;

/// Most amends of one file that are looked at: the node sends the newest first.
const MAX_AMENDS: usize = 50;

/// How long to wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Longest wait that a node may ask for between two attempts.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A core channel node.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    answer_within: Duration,
    questions: Semaphore,
}

/// A message that the network accepted, its content verified against its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The message.
    pub item_hash: ItemHash,
    /// `PROGRAM`, `STORE`, …
    pub kind: String,
    /// JSON text; owner and time are in it.
    pub content: String,
}

/// Why a core channel node could not help.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CcnError {
    /// No connection, no answer in time, or a connection that broke. Retry.
    #[error("the core channel node at {base} cannot be reached: {reason}")]
    Unreachable {
        /// Whom we asked.
        base: String,
        /// What happened.
        reason: String,
    },
    /// It answered with a status that is none of ours. Retry when 5xx or 429.
    #[error("the core channel node at {base} answered {status} for {path}")]
    Status {
        /// Whom we asked.
        base: String,
        /// What for.
        path: String,
        /// What it said.
        status: StatusCode,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// It does not know the item. Reject; the item may arrive later.
    #[error("Item hash {0} not found")]
    Unknown(ItemHash),
    /// The message waits for something. Retry.
    #[error("message {0} is still pending")]
    Pending(ItemHash),
    /// The network refused the message. Reject.
    #[error("message {0} was rejected by the network")]
    Rejected(ItemHash),
    /// The message was there: forgotten by its author, or removed for lack of payment. Reject.
    #[error("message {hash} was {status}")]
    Gone {
        /// The message.
        hash: ItemHash,
        /// `forgotten` or `removed`.
        status: String,
    },
    /// What came is not what the hash names. The node's fault. Reject.
    #[error("the core channel node at {base} sent bytes for {hash} that do not have this hash")]
    Mismatch {
        /// Whom we asked.
        base: String,
        /// What for.
        hash: ItemHash,
    },
    /// The answer is not one of this API. The node's fault. Reject.
    #[error("the core channel node at {base} gave an answer for {path} that is not valid: {reason}")]
    Malformed {
        /// Whom we asked.
        base: String,
        /// What for.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A hash that cannot be verified.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

impl CcnError {
    /// True when the same question may be answered a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown(_)
            | Self::Pending(_)
            | Self::Rejected(_)
            | Self::Gone { .. }
            | Self::Mismatch { .. }
            | Self::Malformed { .. }
            | Self::Unsupported(_) => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// `GET /api/v0/messages/{hash}`.
#[derive(Deserialize)]
struct MessageAnswer<'a> {
    status: String,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

/// `GET /api/v0/messages.json`.
#[derive(Deserialize)]
struct MessagesAnswer<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

impl Client {
    /// A client of the node at that URL, which has `answer_within` for a question, all attempts together.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(base: &str, answer_within: Duration) -> Result<Self, reqwest::Error> {
        // Another part of the process may have installed it; any is good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_WITHIN.min(answer_within))
                .user_agent(concat!("beth-crn/", env!("CARGO_PKG_VERSION")))
        };
        let base = base.trim_end_matches('/').to_owned();
        let http = match builder().build() {
            // A host without certificates of authorities cannot check anybody's; over plain HTTP none is asked for.
            Err(_) if base.starts_with("http://") => builder().tls_certs_only([]).build()?,
            built => built?,
        };
        Ok(Self { http, base, answer_within, questions: Semaphore::new(MAX_QUESTIONS) })
    }

    /// The node's URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A message that is in force.
    ///
    /// # Errors
    /// See [`CcnError`].
    pub async fn message(&self, hash: &ItemHash) -> Result<Message, CcnError> {
        let path = format!("/api/v0/messages/{hash}");
        let answer = match self.ask(&path).await {
            Err(CcnError::Status { status: StatusCode::NOT_FOUND, .. }) => return Err(CcnError::Unknown(hash.clone())),
            Err(CcnError::Status { status: StatusCode::GONE, .. }) => {
                return Err(CcnError::Gone { hash: hash.clone(), status: "removed".to_owned() });
            }
            other => other?,
        };
        let answer: MessageAnswer<'_> = self.parse(&path, &answer)?;
        match (answer.status.as_str(), answer.message) {
            // In force until it is removed for lack of payment.
            ("processed" | "removing", Some(envelope)) => {
                let message = self.verified(&path, envelope).await?;
                if message.item_hash != *hash {
                    return Err(self.malformed(&path, format!("it is about {}", message.item_hash)));
                }
                Ok(message)
            }
            ("pending", _) => Err(CcnError::Pending(hash.clone())),
            ("rejected", _) => Err(CcnError::Rejected(hash.clone())),
            (status @ ("forgotten" | "removed"), _) => {
                Err(CcnError::Gone { hash: hash.clone(), status: status.to_owned() })
            }
            (status, _) => Err(self.malformed(&path, format!("status {status:?}"))),
        }
    }

    /// The STORE message of that hash.
    ///
    /// # Errors
    /// See [`CcnError`]; a message of another type is [`CcnError::Unknown`] as a file.
    pub async fn store(&self, hash: &ItemHash) -> Result<StoreContent, CcnError> {
        let message = self.message(hash).await?;
        if message.kind != "STORE" {
            return Err(CcnError::Unknown(hash.clone()));
        }
        StoreContent::parse(&message.content)
            .map_err(|error| self.malformed(&format!("/api/v0/messages/{hash}"), error.to_string()))
    }

    /// The newest version of a file: the last by (time, item hash) of the STORE messages that update
    /// `original` and have the same owner, if there is one (spec: crn, section 7.4).
    ///
    /// # Errors
    /// See [`CcnError`].
    pub async fn newest_amend(
        &self,
        original: &ItemHash,
        owner: &str,
    ) -> Result<Option<(ItemHash, StoreContent)>, CcnError> {
        let mut url = Url::parse(&self.base).map_err(|error| self.malformed("", error.to_string()))?;
        url.query_pairs_mut()
            .append_pair("msgType", "STORE")
            .append_pair("sortOrder", "-1")
            .append_pair("pagination", &MAX_AMENDS.to_string())
            .append_pair("refs", &original.to_string())
            .append_pair("owners", owner);
        let path = format!("/api/v0/messages.json?{}", url.query().unwrap_or_default());
        let bytes = self.ask(&path).await?;
        let answer: MessagesAnswer<'_> = self.parse(&path, &bytes)?;
        let mut newest: Option<(ItemHash, StoreContent)> = None;
        for envelope in answer.messages.into_iter().take(MAX_AMENDS) {
            let message = self.verified(&path, envelope).await?;
            if message.kind != "STORE" {
                continue;
            }
            let Ok(store) = StoreContent::parse(&message.content) else {
                continue;
            };
            if store.header.address != owner || store.reference.as_deref() != Some(original.to_string().as_str()) {
                continue;
            }
            let later = newest.as_ref().is_none_or(|(best_hash, best)| {
                store.header.time.total_cmp(&best.header.time).then_with(|| message.item_hash.cmp(best_hash)).is_gt()
            });
            if later {
                newest = Some((message.item_hash, store));
            }
        }
        Ok(newest)
    }

    /// Opens a file from a byte on; the node may start at the first instead (status 200). One attempt.
    ///
    /// # Errors
    /// See [`CcnError`]; 416 is a [`CcnError::Status`].
    pub async fn open_file(&self, hash: &ItemHash, from_byte: u64) -> Result<Response, CcnError> {
        let path = format!("/api/v0/storage/raw/{hash}");
        let mut request = self.http.get(format!("{}{path}", self.base));
        if from_byte > 0 {
            request = request.header(header::RANGE, format!("bytes={from_byte}-"));
        }
        let answer = tokio::time::timeout(self.answer_within, request.send())
            .await
            .map_err(|_| self.unreachable("no answer in time".to_owned()))?
            .map_err(|error| self.unreachable(causes(&error)))?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(answer),
            StatusCode::NOT_FOUND => Err(CcnError::Unknown(hash.clone())),
            _ => Err(self.status(&path, &answer)),
        }
    }

    /// The content of a message, from inside it or from the files, held against the message's hash.
    async fn verified(&self, path: &str, envelope: &RawValue) -> Result<Message, CcnError> {
        let malformed = |error: &dyn std::error::Error| self.malformed(path, error.to_string());
        let mut envelope = Envelope::parse(envelope.get()).map_err(|error| malformed(&error))?;
        let content = match envelope.item_content.take() {
            // An envelope whose inline content has another hash does not parse.
            Some(content) => content,
            None => {
                let mut digest = Digest::of(&envelope.item_hash)?;
                let file = self.open_file(&envelope.item_hash, 0).await?;
                let bytes = tokio::time::timeout(self.answer_within, self.collect(file))
                    .await
                    .map_err(|_| self.unreachable("its answer does not end".to_owned()))??;
                digest.update(&bytes);
                if !digest.matches() {
                    return Err(CcnError::Mismatch { base: self.base.clone(), hash: envelope.item_hash });
                }
                String::from_utf8(bytes).map_err(|error| malformed(&error))?
            }
        };
        let content = ContentHeader::complete(&content, &envelope).map_err(|error| malformed(&error))?;
        Ok(Message { item_hash: envelope.item_hash, kind: envelope.kind, content })
    }

    /// Asks until there is an answer, an error that stays, or no time left.
    async fn ask(&self, path: &str) -> Result<Vec<u8>, CcnError> {
        let last = Mutex::new(None);
        let attempt = || async {
            // Given back between attempts: who waits for the next one holds nobody up.
            let answer = {
                let _permit = self.questions.acquire().await;
                self.ask_once(path).await
            };
            if let Err(error) = &answer {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            }
            answer
        };
        let pauses = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times();
        let asking = attempt
            .retry(pauses)
            .when(CcnError::is_transient)
            .adjust(|error, pause| pause.map(|pause| error.retry_after().map_or(pause, |asked| asked.max(pause))));
        match tokio::time::timeout(self.answer_within, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(last
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .unwrap_or_else(|| self.unreachable("no answer in time".to_owned()))),
        }
    }

    async fn ask_once(&self, path: &str) -> Result<Vec<u8>, CcnError> {
        let answer = self
            .http
            .get(format!("{}{path}", self.base))
            .send()
            .await
            .map_err(|error| self.unreachable(causes(&error)))?;
        if answer.status() != StatusCode::OK {
            return Err(self.status(path, &answer));
        }
        self.collect(answer).await
    }

    /// An answer's body, bounded by [`MAX_ANSWER_BYTES`].
    async fn collect(&self, answer: Response) -> Result<Vec<u8>, CcnError> {
        let path = answer.url().path().to_owned();
        let mut bytes = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.unreachable(causes(&error)))?;
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.malformed(&path, format!("it is longer than {MAX_ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn parse<'a, T: Deserialize<'a>>(&self, path: &str, bytes: &'a [u8]) -> Result<T, CcnError> {
        serde_json::from_slice(bytes).map_err(|error| self.malformed(path, error.to_string()))
    }

    fn malformed(&self, path: &str, reason: String) -> CcnError {
        CcnError::Malformed { base: self.base.clone(), path: path.to_owned(), reason }
    }

    fn status(&self, path: &str, answer: &Response) -> CcnError {
        CcnError::Status {
            base: self.base.clone(),
            path: path.to_owned(),
            status: answer.status(),
            retry_after: answer
                .headers()
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| retry_after(value, SystemTime::now())),
        }
    }

    /// A connection failure as an error.
    pub(crate) fn unreachable(&self, reason: String) -> CcnError {
        CcnError::Unreachable { base: self.base.clone(), reason }
    }
}

/// An error with the causes below it: what helps is a level or two down.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The wait that a `Retry-After` header asks for (RFC 9110, section 10.2.3), at most [`MAX_RETRY_AFTER`].
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests;
