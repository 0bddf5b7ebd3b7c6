//! The digest of the state.

use super::{
    ApiError, ApiResult, State,
    plugins::check_operator,
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::store::{Reader as _, Snapshot, StateDigest};
use axum::{
    Json,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

pub(super) fn routes(routes: Routes) -> Routes {
    let digest = Shape::text().about("Hex.");
    let shape = Shape::object([
        ("digest", digest.clone()),
        ("messages", Shape::whole().about("Messages that stand.")),
        ("parts", Shape::map(digest.clone()).about("The digest of each part of the state.")),
    ]);
    let current_digest = Operation::new(Group::Node, "The digest of the state")
        .about("Two nodes of a network that hold the same messages, files and plugins say the same.")
        .answers("The digest as commits have kept it.", &shape);
    let verified = Operation::new(Group::Operator, "Compares the digest with the rows")
        .about("Reads every row of the state.")
        .for_operator()
        .answers(
            "The digest as commits have kept it, and what the rows come to.",
            &shape.and([("recomputed", digest)]),
        );
    routes.get("/api/v0/digest", current, current_digest).post("/api/v0/digest/verify", verify, verified)
}

fn body(snapshot: &Snapshot, digest: &StateDigest) -> ApiResult<Value> {
    let messages = snapshot.message_count()?;
    let parts: Map<String, Value> = digest.parts().map(|(name, sum)| (name.to_owned(), sum.into())).collect();
    Ok(json!({"digest": digest.total(), "messages": messages, "parts": parts}))
}

/// The digest as commits have kept it, that of each part of the state, and how many messages stand. Two nodes of a network that hold the same
/// messages, files and plugins say the same.
async fn current(state: State) -> ApiResult<Response> {
    let digest = |snapshot: &Snapshot| body(snapshot, &StateDigest::of(snapshot)?);
    Ok(Json(state.read(digest).await?).into_response())
}

/// The same for the operator, and whether it is what the stored rows come to, each of which is read for it.
async fn verify(state: State, headers: HeaderMap) -> ApiResult<Response> {
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
