//! Errors as clients read them: `{"error": sentence, "code": word, …}` with the status that the network gives them, and `field` where one is to blame.

use crate::{
    files::is_away,
    pipeline::{EngineError, PriceError},
    store::StoreError,
};
use axum::http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use axum::{
    Json,
    extract::{rejection::BytesRejection, ws::rejection::WebSocketUpgradeRejection},
    response::{IntoResponse, Response},
};
use ccn_message::{FormatError, item_hash::InvalidItemHash};
use serde_json::{Map, Value};

/// When to try again after an overload, seconds.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What kind of error a status is, as a word for programs: part of the interface.
pub(super) const CODES: [(StatusCode, &str); 17] = [
    (StatusCode::BAD_REQUEST, "bad_request"),
    (StatusCode::UNAUTHORIZED, "unauthorized"),
    (StatusCode::PAYMENT_REQUIRED, "insufficient_funds"),
    (StatusCode::FORBIDDEN, "forbidden"),
    (StatusCode::NOT_FOUND, "not_found"),
    (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    (StatusCode::NOT_ACCEPTABLE, "not_acceptable"),
    (StatusCode::REQUEST_TIMEOUT, "too_slow"),
    (StatusCode::CONFLICT, "conflict"),
    (StatusCode::GONE, "gone"),
    (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_form"),
    (StatusCode::RANGE_NOT_SATISFIABLE, "no_such_range"),
    (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
    (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
    (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
];

/// The word for a status; of one that has none, that of the usual one of its kind.
pub(super) fn code_of(status: StatusCode) -> &'static str {
    let usual = if status.is_server_error() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
    let word = |status| CODES.iter().find(|(of, _)| *of == status).map(|(_, word)| *word);
    word(status).or_else(|| word(usual)).unwrap_or_default()
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Map<String, Value>,
}

pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// With one sentence that says what to do.
    pub(super) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("error".to_owned(), Value::String(sentence.into()));
        body.insert("code".to_owned(), code_of(status).into());
        Self { status, body }
    }

    /// With more for programs to read.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.insert(name.to_owned(), value.into());
        self
    }

    /// The request's form is wrong: which field, and how.
    pub(super) fn field(field: &str, problem: impl AsRef<str>) -> Self {
        Self::format(&FormatError::new(field, problem.as_ref()))
    }

    pub(super) fn format(error: &FormatError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).with("field", error.field.as_str())
    }

    pub(super) fn not_found(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, sentence)
    }

    pub(super) fn too_large(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    }

    pub(super) fn overloaded(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    }

    /// The node's own mistake: the log has the reason, the client an apology.
    pub(super) fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!("a request failed: {reason}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the node failed to answer; its operator finds the reason in the log",
        )
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        if is_away(&error) {
            // The log said so when it began.
            return Self::overloaded(
                "the node's files are in an object store that does not answer now: try again in a moment",
            );
        }
        Self::internal(error)
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Stopped => Self::overloaded("the node stops; try another one, or again in a moment"),
            EngineError::Store(_) | EngineError::NoSuchFile(_) | EngineError::Plugin(_) => Self::internal(error),
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(
                "the body is too long for a request without a file; upload large content and name its hash",
            ),
            status => Self::new(status, format!("the body could not be read: {}", rejection.body_text())),
        }
    }
}

impl From<WebSocketUpgradeRejection> for ApiError {
    fn from(rejection: WebSocketUpgradeRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<InvalidItemHash> for ApiError {
    fn from(error: InvalidItemHash) -> Self {
        // Hashes are read from paths alone, under this name.
        Self::new(StatusCode::BAD_REQUEST, error.to_string()).with("field", "hash")
    }
}

impl From<PriceError> for ApiError {
    fn from(error: PriceError) -> Self {
        match error {
            PriceError::Format(error) => Self::format(&error),
            PriceError::Rejected { code, errors } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("this message would be refused: {}", errors.join(", ")),
            )
            .with("error_code", code)
            .with("details", details(&errors)),
            PriceError::Overloaded => Self::overloaded(error.to_string()),
            PriceError::Plugin(_) => Self::internal(error),
            PriceError::Engine(error) => error.into(),
        }
    }
}

/// The details of a rejection: each error is JSON as text.
pub(super) fn details(errors: &[String]) -> Value {
    let value = |error: &String| serde_json::from_str(error).unwrap_or_else(|_| Value::String(error.clone()));
    let errors: Vec<Value> = errors.iter().map(value).collect();
    serde_json::json!({ "errors": errors })
}

/// The sentence of a rejection: its first error, if that is one.
pub(super) fn sentence(code: i32, errors: &[String]) -> String {
    match errors.first().map(|error| serde_json::from_str(error)) {
        Some(Ok(Value::String(sentence))) => sentence,
        Some(Ok(value)) => format!("refused with code {code}: {value}"),
        _ => format!("refused with code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_says_when_to_come_back() {
        let response = ApiError::overloaded("too much").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get(RETRY_AFTER), Some(&HeaderValue::from(RETRY_AFTER_SECONDS)));
        assert!(ApiError::not_found("x").into_response().headers().get(RETRY_AFTER).is_none());
    }

    #[test]
    fn sentences_come_from_what_plugins_say() {
        let errors = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        assert_eq!(sentence(101, &errors(&["\"no such post\""])), "no such post");
        assert_eq!(sentence(6, &errors(&[r#"{"a":1}"#])), r#"refused with code 6: {"a":1}"#);
        assert_eq!(sentence(6, &[]), "refused with code 6");
        assert_eq!(details(&errors(&["\"a\"", "no JSON"])), serde_json::json!({"errors": ["a", "no JSON"]}));
    }
}
