//! JSON-RPC over HTTP to one provider: a question, an answer, and whose trouble it is when there is none.
//!
//! Providers keep their keys in their URLs: no error here and no line of the log repeats one.
//!
//! Not `alloy-provider`: of it three calls would be used, and it brings some eighty crates. Its types parse every field of a block and refuse blocks of
//! chains that have other ones; of a block four fields are read here. Numbers and hashes are those of `alloy-primitives`.

use reqwest::{StatusCode, header::RETRY_AFTER};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How long a provider may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// Longest answer, bytes; a longer one is as good as a refusal to answer so much.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Longest pause that a provider may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Longest sentence of a provider that is repeated, bytes.
const MAX_SENTENCE_BYTES: usize = 300;

/// Why a provider gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Its URL cannot be asked, or TLS cannot be set up. The operator's to mend.
    #[error("it cannot be asked: {0}")]
    Setting(String),
    /// It does not answer. Nobody's fault yet: try again.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It takes too long. Less may take less.
    #[error("it takes too long")]
    Slow,
    /// It was asked too often: try again later.
    #[error("it is asked too often: {sentence}")]
    Busy {
        /// What it says.
        sentence: String,
        /// When it says to come back.
        after: Option<Duration>,
    },
    /// It was asked for too much at once: ask for less.
    #[error("it does not answer so much at once: {0}")]
    TooMuch(String),
    /// It refuses for another reason.
    #[error("it refuses: {sentence} (code {code})")]
    Refused {
        /// The code of JSON-RPC.
        code: i64,
        /// What it says.
        sentence: String,
    },
    /// Its answer is none, or contradicts itself.
    #[error("its answer cannot be believed: {0}")]
    Nonsense(String),
}

/// One provider.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: reqwest::Client,
    url: reqwest::Url,
    number: AtomicU64,
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Complaint>,
}

#[derive(Debug, Deserialize)]
struct Complaint {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl Endpoint {
    pub(super) fn new(url: &str) -> Result<Self, EndpointError> {
        let setting = |error: &dyn std::fmt::Display| EndpointError::Setting(error.to_string());
        let url = reqwest::Url::parse(url).map_err(|error| setting(&error))?;
        // Another part of the process may have chosen one; then that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            // A provider that sends elsewhere would be sent the operator's key.
            let redirect = reqwest::redirect::Policy::none();
            reqwest::Client::builder().connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN).redirect(redirect)
        };
        let client = match builder().build() {
            Ok(client) => client,
            // A host without certificates can do without while its provider is reached by plain HTTP.
            Err(_) if url.scheme() == "http" => {
                builder().tls_certs_only([]).build().map_err(|error| setting(&error.without_url()))?
            }
            Err(error) => return Err(setting(&error.without_url())),
        };
        Ok(Self { client, url, number: AtomicU64::new(1) })
    }

    /// Asks. A result that is `null` is none.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: Value,
    ) -> Result<Option<T>, EndpointError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let question = json!({"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}).to_string();
        let request = self.client.post(self.url.clone()).header(reqwest::header::CONTENT_TYPE, "application/json");
        let response = request.body(question).send().await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        let body = body(response).await?;
        match (read(&body, number), status) {
            // Some put their complaint under a status of HTTP, some do not.
            (Ok(answer), _) => Ok(answer),
            (Err(EndpointError::Busy { sentence, .. }), _) => Err(EndpointError::Busy { sentence, after }),
            (Err(EndpointError::Nonsense(_)), status) if !status.is_success() => Err(of_status(status, after)),
            (Err(error), _) => Err(error),
        }
    }
}

async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, EndpointError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(EndpointError::TooMuch(format!("the answer has more than {MAX_ANSWER_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: &reqwest::Error) -> EndpointError {
    if error.is_timeout() && !error.is_connect() {
        return EndpointError::Slow;
    }
    // The kind alone: the whole error names the URL.
    let kind = match error {
        error if error.is_connect() => "no connection",
        error if error.is_body() || error.is_decode() => "the connection broke",
        _ => "the request failed",
    };
    EndpointError::Unreachable(kind.to_owned())
}

fn of_status(status: StatusCode, after: Option<Duration>) -> EndpointError {
    match status {
        StatusCode::TOO_MANY_REQUESTS => EndpointError::Busy { sentence: status.to_string(), after },
        StatusCode::SERVICE_UNAVAILABLE if after.is_some() => {
            EndpointError::Busy { sentence: status.to_string(), after }
        }
        StatusCode::PAYLOAD_TOO_LARGE => EndpointError::TooMuch(status.to_string()),
        StatusCode::GATEWAY_TIMEOUT => EndpointError::Slow,
        status if status.is_server_error() => EndpointError::Unreachable(status.to_string()),
        status => EndpointError::Refused { code: i64::from(status.as_u16()), sentence: status.to_string() },
    }
}

/// Reads an answer to the question of that number.
fn read<T: DeserializeOwned>(body: &[u8], number: u64) -> Result<Option<T>, EndpointError> {
    let nonsense = |error: serde_json::Error| EndpointError::Nonsense(cut(&error.to_string()));
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(nonsense)?;
    if let Some(complaint) = answer.error {
        return Err(complaint.error());
    }
    if answer.id != Some(number) {
        return Err(EndpointError::Nonsense("it answers another question".to_owned()));
    }
    answer.result.map(|result| serde_json::from_str(result.get())).transpose().map_err(nonsense)
}

/// What providers say when they are asked too often. Some use the code of the other complaint for it: words go first.
const OFTEN: [&str; 9] = [
    "rate limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "per second",
    "request rate",
    "daily request",
    "compute units",
    "quota",
];
/// What they say when they are asked for too much.
const MUCH: [&str; 12] = [
    "range",
    "more than",
    "too many results",
    "too many logs",
    "too large",
    "too wide",
    "too big",
    "response size",
    "limit exceeded",
    "exceeds",
    "exceed maximum",
    "query timeout",
];
/// The code of "limit exceeded" (EIP-1474).
const LIMIT_EXCEEDED: i64 = -32005;

impl Complaint {
    fn error(self) -> EndpointError {
        let Self { code, message } = self;
        let words = message.to_lowercase();
        let says = |list: &[&str]| list.iter().any(|each| words.contains(each));
        let sentence = cut(&message);
        if says(&OFTEN) || code == 429 {
            EndpointError::Busy { sentence, after: None }
        } else if says(&MUCH) || code == LIMIT_EXCEEDED {
            EndpointError::TooMuch(sentence)
        } else {
            EndpointError::Refused { code, sentence }
        }
    }
}

/// A provider's words as far as they are repeated, in one line.
fn cut(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(MAX_SENTENCE_BYTES)];
    cut.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(code: i64, message: &str, expect: &str) {
        let body = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}).to_string();
        let error = read::<Value>(body.as_bytes(), 1).expect_err("a complaint");
        let kind = match &error {
            EndpointError::Busy { .. } => "busy",
            EndpointError::TooMuch(_) => "much",
            EndpointError::Refused { .. } => "refused",
            other => panic!("{other}"),
        };
        assert_eq!(kind, expect, "{message}");
    }

    /// As providers word it.
    #[test]
    fn complaints_are_told_apart() {
        check(-32005, "query returned more than 10000 results", "much");
        check(-32005, "daily request count exceeded, request rate limited", "busy");
        check(
            -32602,
            "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range",
            "much",
        );
        check(-32614, "eth_getLogs is limited to a 10,000 range", "much");
        check(-32600, "block range is too wide", "much");
        check(-32000, "query timeout exceeded", "much");
        check(-32701, "exceed maximum block range: 50000", "much");
        check(-32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800", "much");
        check(-32005, "", "much");
        check(429, "Your app has exceeded its compute units per second capacity", "busy");
        check(-32016, "rate limit exceeded", "busy");
        check(-32601, "the method eth_getLogs does not exist", "refused");
        check(-32000, "unknown block", "refused");
    }

    #[test]
    fn answers_belong_to_their_question() {
        let read = |body: &str| read::<u64>(body.as_bytes(), 7);
        assert_eq!(read(r#"{"id":7,"result":5}"#), Ok(Some(5)));
        assert_eq!(read(r#"{"id":7,"result":null}"#), Ok(None));
        for wrong in [r#"{"id":8,"result":5}"#, r#"{"result":5}"#, r#"{"id":7,"result":"x"}"#, "<html>", "[]", ""] {
            assert!(matches!(read(wrong), Err(EndpointError::Nonsense(_))), "{wrong}");
        }
    }

    #[test]
    fn errors_do_not_repeat_the_key() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Nobody listens on the port of discard.
        let endpoint = Endpoint::new("http://127.0.0.1:9/v3/secret-key").expect("an endpoint");
        let error = runtime.block_on(endpoint.ask::<Value>("eth_chainId", json!([]))).expect_err("nobody there");
        assert!(matches!(&error, EndpointError::Unreachable(_)) && !error.to_string().contains("secret"), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,400}") {
            let _ = read::<Value>(&body, 1);
            prop_assert!(cut(&text).len() <= MAX_SENTENCE_BYTES);
        }
    }
}
