//! The digest of the state.

use super::{ApiError, ApiResult, State, plugins::check_operator};
use crate::store::{Reader as _, Snapshot, StateDigest};
use axum::{
    Json,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

fn body(snapshot: &Snapshot, digest: &StateDigest) -> ApiResult<Value> {
    let messages = snapshot.message_count()?;
    let parts: Map<String, Value> = digest.parts().map(|(name, sum)| (name.to_owned(), sum.into())).collect();
    Ok(json!({"digest": digest.total(), "messages": messages, "parts": parts}))
}

/// The digest as commits have kept it, that of each part of the state, and how many messages stand. Two nodes of a network that hold the same
/// messages, files and plugins say the same.
pub(super) async fn current(state: State) -> ApiResult<Response> {
    let digest = |snapshot: &Snapshot| body(snapshot, &StateDigest::of(snapshot)?);
    Ok(Json(state.read(digest).await?).into_response())
}

/// The same for the operator, and whether it is what the stored rows come to, each of which is read for it.
pub(super) async fn verify(state: State, headers: HeaderMap) -> ApiResult<Response> {
    check_operator(&state, &headers)?;
    let compared = |snapshot: &Snapshot| {
        let kept = StateDigest::of(snapshot)?;
        let counted = StateDigest::recomputed(snapshot)?;
        let mut body = body(snapshot, &kept)?;
        body["recomputed"] = counted.total().into();
        Ok::<_, ApiError>(body)
    };
    Ok(Json(state.read(compared).await?).into_response())
}
