//! How far chains are followed.

use super::{
    State,
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::json;

pub(super) fn routes(routes: Routes) -> Routes {
    let height = || Shape::whole().or_null();
    let states = ["starting", "clearing", "following", "current", "retrying", "stopped"];
    let trouble = Shape::object([("sentence", Shape::text()), ("time", Shape::number().about("Seconds since 1970."))]);
    let follower = Shape::object([
        ("indexer", Shape::text().about("The plugin that says what its events mean.")),
        ("sha256", Shape::text()),
        ("state", Shape::words(&states)),
        ("height", height().about("The last block that is followed.")),
        ("final_height", height().about("The last one that can no longer be taken back.")),
        ("target", height().about("The newest block that the provider has.")),
        ("lag", height().about("Blocks between the two.")),
        ("batch", Shape::whole().about("Blocks asked for at once.")),
        ("events", Shape::whole()),
        ("open", Shape::whole().about("What blocks told and is still to be done.")),
        ("reorganisations", Shape::whole()),
        ("last_error", trouble.or_null()),
    ]);
    let chain = Shape::object([("name", Shape::text()), ("indexers", Shape::list(follower))]);
    let shape = Shape::object([("chains", Shape::list(chain))]);
    routes.get(
        "/api/v0/chains",
        list,
        Operation::new(Group::Chains, "How far chains are followed").answers("Them.", &shape),
    )
}

async fn list(state: State) -> Response {
    Json(json!({"chains": state.service.chains.status()})).into_response()
}
