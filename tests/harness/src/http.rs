//! Plain blocking HTTP for tests: every status is an answer, not an error.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{io::Read, time::Duration};

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case with their values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not JSON; the error shows it.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {} with a body that is not JSON: {}", self.status, self.text()))
    }
}

/// A client for one server.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    /// A client of the server at `base` (`http://host:port`), no answer taking longer than `limit`.
    #[must_use]
    pub fn new(base: impl Into<String>, limit: Duration) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(limit))
            .build()
            .into();
        Self { agent, base: base.into() }
    }

    /// Where the server is.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        read(self.agent.get(&url).call().with_context(|| format!("GET {url}"))?)
    }

    /// `GET path` with these headers besides.
    ///
    /// # Errors
    /// No answer.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let request = headers.iter().fold(self.agent.get(&url), |request, (name, value)| request.header(*name, *value));
        read(request.call().with_context(|| format!("GET {url}"))?)
    }

    /// `HEAD path`.
    ///
    /// # Errors
    /// No answer.
    pub fn head(&self, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        read(self.agent.head(&url).call().with_context(|| format!("HEAD {url}"))?)
    }

    /// `GET path`, to be read by the caller as it arrives.
    ///
    /// # Errors
    /// No answer.
    pub fn get_stream(&self, path: &str) -> Result<(u16, Box<dyn Read>)> {
        let url = format!("{}{path}", self.base);
        let response = self.agent.get(&url).call().with_context(|| format!("GET {url}"))?;
        let status = response.status().as_u16();
        Ok((status, Box::new(response.into_body().into_reader())))
    }

    /// `POST path` with a body of that type.
    ///
    /// # Errors
    /// No answer.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.post(&url).header("content-type", content_type);
        read(request.send(body).with_context(|| format!("POST {url}"))?)
    }

    /// `POST path` with JSON.
    ///
    /// # Errors
    /// No answer.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Answer> {
        self.post(path, "application/json", body.to_string().as_bytes())
    }
}

fn read(response: ureq::http::Response<ureq::Body>) -> Result<Answer> {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let mut body = Vec::new();
    response.into_body().into_reader().read_to_end(&mut body).context("reading the answer's body")?;
    Ok(Answer { status, headers, body })
}
