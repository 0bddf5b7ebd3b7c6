//! Channels, and types of posts: the names that messages bear (ccn spec 5.4, 5.6).

use super::{ApiError, ApiResult, State};
use crate::store::{
    Reader as _, Snapshot,
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

/// The names that are counted under a prefix, in their order. Those too long for a key are left out: what is kept of them is not their name.
fn names(snapshot: &Snapshot, prefix: &[u8]) -> ApiResult<Vec<String>> {
    let (mut start, end) = (prefix.to_vec(), end_of(prefix));
    let mut names = Vec::new();
    loop {
        let rows = snapshot.range(Table::Counts, &start, &end, ROWS, false)?;
        let name = |(key, _): &(Vec<u8>, Vec<u8>)| match split_text(&key[prefix.len()..]) {
            Some((name, [])) => Some(name.to_owned()),
            _ => None,
        };
        names.extend(rows.iter().filter_map(name));
        if names.len() > MAX_NAMES {
            let sentence = format!("there are more than {MAX_NAMES} names, too many for one answer");
            return Err(ApiError::too_large(sentence));
        }
        match rows.last() {
            Some((last, _)) if rows.len() == ROWS => start = [last.as_slice(), &[0]].concat(),
            _ => return Ok(names),
        }
    }
}

/// All channels.
pub(super) async fn channels(state: State) -> ApiResult<Response> {
    let work = |snapshot: &Snapshot| {
        let channels = names(snapshot, &count_key(IndexId::Channel, &[]))?;
        Ok(Json(json!({"channels": channels})).into_response())
    };
    state.read(work).await
}

/// Channels of an owner.
pub(super) async fn channels_of(state: State, Path(address): Path<String>) -> ApiResult<Response> {
    let work = move |snapshot: &Snapshot| {
        let channels = names(snapshot, &count_key(IndexId::OwnerChannel, &[&address]))?;
        Ok(Json(json!({"address": address, "channels": channels})).into_response())
    };
    state.read(work).await
}

/// Types of an owner's posts.
pub(super) async fn post_types_of(state: State, Path(address): Path<String>) -> ApiResult<Response> {
    let work = move |snapshot: &Snapshot| {
        let types = names(snapshot, &count_key(IndexId::OwnerLabel, &[&address, "POST"]))?;
        Ok(Json(json!({"address": address, "post_types": types})).into_response())
    };
    state.read(work).await
}
