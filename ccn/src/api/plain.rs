//! Errors that the framework answers by itself (a path that is no UTF-8, a query, a websocket that is none) in the form of all others.

use super::error::ApiError;
use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// Longest sentence of the framework's that is passed on, bytes.
const MAX_SENTENCE_BYTES: usize = 4096;

/// Passes answers on; of errors without a form of their own, the sentence becomes JSON.
pub(super) async fn as_json(request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    let status = answer.status();
    let is_plain = answer.headers().get(CONTENT_TYPE).is_none_or(|form| form.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_plain {
        return answer;
    }
    let (head, body) = answer.into_parts();
    let sentence = to_bytes(body, MAX_SENTENCE_BYTES).await.unwrap_or_default();
    let sentence = String::from_utf8_lossy(&sentence);
    let usual = status.canonical_reason().unwrap_or("this is refused");
    let sentence = if sentence.trim().is_empty() { usual } else { sentence.trim() };
    let mut answer = ApiError::new(status, sentence).into_response();
    for (name, value) in &head.headers {
        if *name != CONTENT_TYPE && *name != CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer.map(Body::new)
}
