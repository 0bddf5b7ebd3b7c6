//! Channels, and types of posts: the names that messages bear (ccn spec 5.4, 5.6).

use super::{
    ApiError, ApiResult, State,
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::store::{
    Snapshot, Walk,
    schema::{IndexId, Table, count_key, end_of, split_text},
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Names that are read at a time.
const ROWS: usize = 1000;
/// Most names in an answer.
const MAX_NAMES: usize = 1_000_000;

pub(super) fn routes(routes: Routes) -> Routes {
    let names = |member| (member, Shape::list(Shape::text()));
    let of_address = |summary, member| {
        let shape = Shape::object([("address", Shape::text()), names(member)]);
        let about = "Of the messages that stand; of nobody, none.";
        Operation::new(Group::Accounts, summary).address().answers(about, &shape).refuses(413, "They are too many.")
    };
    let all = Operation::new(Group::Messages, "All channels")
        .answers("Their names.", &Shape::object([names("channels")]))
        .refuses(413, "They are too many.");
    let channels_of_address = of_address("The channels that an address uses", "channels");
    let post_types = of_address("The types of an address's posts", "post_types");
    routes
        .get("/api/v0/channels/list.json", channels, all)
        .get("/api/v0/addresses/{address}/channels", channels_of, channels_of_address)
        .get("/api/v0/addresses/{address}/post_types", post_types_of, post_types)
}

/// The names that are counted under a prefix, in their order. Those too long for a key are left out: what is kept of them is not their name.
fn names(snapshot: &Snapshot, prefix: &[u8]) -> ApiResult<Vec<String>> {
    let mut names = Vec::new();
    for row in Walk::new(snapshot, Table::Counts, (prefix.to_vec(), end_of(prefix)), false, ROWS) {
        let (key, _) = row?;
        if let Some((name, [])) = split_text(&key[prefix.len()..]) {
            names.push(name.to_owned());
        }
        if names.len() > MAX_NAMES {
            let sentence = format!("there are more than {MAX_NAMES} names, too many for one answer");
            return Err(ApiError::too_large(sentence));
        }
    }
    Ok(names)
}

/// All channels.
async fn channels(state: State) -> ApiResult<Response> {
    let work = |snapshot: &Snapshot| {
        let channels = names(snapshot, &count_key(IndexId::Channel, &[]))?;
        Ok(Json(json!({"channels": channels})).into_response())
    };
    state.read(work).await
}

/// Channels of an owner.
async fn channels_of(state: State, Path(address): Path<String>) -> ApiResult<Response> {
    let work = move |snapshot: &Snapshot| {
        let channels = names(snapshot, &count_key(IndexId::OwnerChannel, &[&address]))?;
        Ok(Json(json!({"address": address, "channels": channels})).into_response())
    };
    state.read(work).await
}

/// Types of an owner's posts.
async fn post_types_of(state: State, Path(address): Path<String>) -> ApiResult<Response> {
    let work = move |snapshot: &Snapshot| {
        let types = names(snapshot, &count_key(IndexId::OwnerLabel, &[&address, "POST"]))?;
        Ok(Json(json!({"address": address, "post_types": types})).into_response())
    };
    state.read(work).await
}
