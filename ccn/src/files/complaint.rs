//! What an object store complains of, without what it repeats of a request: keys and signatures are among that.

use object_store::{Error, client::HttpError};
use std::error::Error as StdError;

/// Longest code of an answer that is repeated; S3's have some thirty letters.
const MAX_CODE_CHARS: usize = 64;

/// A complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// S3's word for it, if it answered in its form.
    pub(super) code: Option<String>,
    /// The status of the answer, if there was one.
    pub(super) status: Option<u16>,
    /// What happened, part of a sentence.
    pub(super) sentence: String,
    /// True when it is not this request that is wrong: another one would fare no better now.
    pub(super) is_outage: bool,
}

impl Complaint {
    pub(super) fn of(error: &Error) -> Self {
        let text = error.to_string();
        // The crate's own error of an answer has no public name.
        let code = between(&text, "<Code>", "</Code>").filter(|code| is_code(code)).map(str::to_owned);
        let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
        let sentence = match (&code, status, transport(error)) {
            (Some(code), Some(status), _) => format!("it answered {status} {code}"),
            (Some(code), None, _) => format!("it answered {code}"),
            (None, Some(status), _) => format!("it answered {status}"),
            (None, None, Some(reason)) => reason,
            (None, None, None) => kind(error).to_owned(),
        };
        let is_refusal = !matches!(error, Error::Generic { .. });
        let is_outage = match status {
            Some(status) => status >= 500 || status == 429,
            None => !is_refusal,
        };
        Self { code, status, sentence, is_outage }
    }

    /// It did not answer.
    pub(super) fn late() -> Self {
        Self { code: None, status: None, sentence: "it did not answer in time".to_owned(), is_outage: true }
    }
}

fn between<'text>(text: &'text str, start: &str, end: &str) -> Option<&'text str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

fn is_code(code: &str) -> bool {
    !code.is_empty() && code.len() <= MAX_CODE_CHARS && code.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What the system says of a connection, if that is what failed: the last of the causes.
fn transport(error: &Error) -> Option<String> {
    let mut cause: &dyn StdError = error;
    let mut is_transport = false;
    while let Some(source) = cause.source() {
        is_transport |= source.is::<HttpError>();
        cause = source;
    }
    is_transport.then(|| cause.to_string())
}

/// What there is to say of an error that is no answer.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::NotFound { .. } => "it has no such object",
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => "it refuses this key",
        Error::AlreadyExists { .. } | Error::Precondition { .. } => "it has another object of that name",
        Error::NotSupported { .. } | Error::NotImplemented { .. } => "it does not know this kind of request",
        _ => "it failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: &Error, code: Option<&str>, sentence: &str, is_outage: bool) {
        let complaint = Complaint::of(error);
        assert_eq!(
            (complaint.code.as_deref(), complaint.sentence.as_str(), complaint.is_outage),
            (code, sentence, is_outage)
        );
    }

    #[test]
    fn a_complaint_repeats_codes_and_no_keys() {
        let generic = |text: &str| Error::Generic { store: "S3", source: text.to_owned().into() };
        let body = "Server returned non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        check(&generic(body), Some("SlowDown"), "it answered 503 SlowDown", true);
        let body = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><StringToSign>x</StringToSign></Error>";
        let denied = Error::PermissionDenied { path: "a".to_owned(), source: body.to_owned().into() };
        check(&denied, Some("SignatureDoesNotMatch"), "it answered 403 SignatureDoesNotMatch", false);
        check(&generic("status code: 416 Range: "), None, "it answered 416", false);
        check(&generic("<Code>evil\nline</Code>"), None, "it failed", true);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = HttpError::new(object_store::client::HttpErrorKind::Connect, refused);
        check(&Error::Generic { store: "S3", source: Box::new(refused) }, None, "connection refused", true);
    }
}
