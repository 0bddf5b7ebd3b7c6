//! Paths that no route has: a plugin's own, or nobody's.

use super::{ApiError, ApiResult, State, parameters::Parameters};
use crate::host::HostError;
use axum::http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};

pub(super) async fn answer(state: State, parameters: Parameters, request: Request) -> ApiResult<Response> {
    let path = request.uri().path();
    let nobodys = || ApiError::not_found(format!("no such path: {path}; /api/v0/plugins lists what plugins answer"));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(nobodys());
    }
    let service = &state.service;
    let Some(answer) = service.plugins.query(&service.store, path, parameters.0).await else {
        return Err(nobodys());
    };
    let answer = answer.map_err(refusal)?;
    let status = StatusCode::from_u16(answer.status).map_err(ApiError::internal)?;
    let content_type = HeaderValue::from_str(&answer.content_type).map_err(ApiError::internal)?;
    Ok((status, [(CONTENT_TYPE, content_type)], Body::from(answer.body)).into_response())
}

/// A question that is too large is the client's to narrow; other failures are not.
fn refusal(error: HostError) -> ApiError {
    match &error {
        HostError::OutOfFuel { .. } | HostError::Overrun { .. } => {
            tracing::warn!("a question went too far: {error}");
            let sentence = "this takes more than one answer may: narrow the filters, or ask for a smaller page";
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
        }
        HostError::Node { .. } => {
            ApiError::overloaded("the node has no room for this question now; ask again in a few seconds")
        }
        HostError::Trapped { .. } | HostError::Store(_) => ApiError::internal(error),
    }
}

pub(super) async fn wrong_method(request: Request) -> ApiError {
    let sentence = format!("{} is not possible here", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}
