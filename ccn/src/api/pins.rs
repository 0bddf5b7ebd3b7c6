//! How pinning at the operator's IPFS node goes.

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
    let time = || Shape::number().about("Seconds since 1970.");
    let failure = Shape::object([
        ("item_hash", Shape::hash()),
        ("reason", Shape::text()),
        ("attempts", Shape::whole()),
        ("next", time().about("When it is tried again, seconds since 1970.")),
    ]);
    let trouble = Shape::object([("sentence", Shape::text()), ("time", time())]);
    let pinning = Shape::object([
        ("state", Shape::words(&["starting", "away", "working", "current"])),
        ("node", Shape::text().about("The peer id of the IPFS node.").or_null()),
        ("agent", Shape::text().about("Its program.").or_null()),
        ("name", Shape::text().about("What pins of this node are called there.")),
        ("pinned", Shape::whole().about("Pins that this node has made.")),
        ("found", Shape::whole().about("Files that somebody else had pinned; those pins stay.")),
        ("begun", Shape::whole().about("Pins that were begun.")),
        ("waiting", Shape::whole().about("Files that are to be looked at; there may be more while `walking`.")),
        ("walking", Shape::flag().about("Everything is being looked through.")),
        ("failing", Shape::whole().about("Files with which it did not go well.")),
        ("failures", Shape::list(failure).about("Some of them.")),
        ("pins_total", Shape::whole().about("Files pinned since the start.")),
        ("unpins_total", Shape::whole().about("Files unpinned since the start.")),
        ("failures_total", Shape::whole().about("Attempts that failed since the start.")),
        ("last_error", trouble.about("Why the IPFS node was not reached; null while it is there.").or_null()),
    ]);
    let shape = Shape::object([("pinning", pinning.about("Null where nothing is pinned.").or_null())]);
    let operation = Operation::new(Group::Node, "How pinning at the operator's IPFS node goes").answers("It.", &shape);
    routes.get("/api/v0/ipfs/pins", show, operation)
}

async fn show(state: State) -> Response {
    let pinning = state.service.pinning.as_ref().map(crate::pinning::Pinning::status);
    Json(json!({"pinning": pinning})).into_response()
}
