//! Plugins: what they are and how they do, what the operator does about them, and the paths that no route has, which are a plugin's own or nobody's.

use super::{ApiError, ApiResult, State, parameters::Parameters, submit};
use crate::{
    host::{HostError, Request as Order, RequestError},
    store::{
        Reader as _, Snapshot,
        record::{QuarantineRecord, Record as _},
        schema::{Key, Table, end_of, split_hash},
    },
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header::AUTHORIZATION, header::CONTENT_TYPE};
use axum::{
    Json,
    body::Body,
    extract::{Path, Request},
    response::{IntoResponse, Response},
};
use ccn_message::ItemHash;
use serde_json::{Value, json};

/// Most rows of a page of the quarantine.
const MAX_ROWS: u64 = 500;
/// Rows of a page when nothing is said.
const ROWS: u64 = 50;

pub(super) async fn list(state: State) -> Response {
    let plugins = &state.service.plugins;
    let all = [plugins.list(), state.service.chains.plugins()].concat();
    Json(json!({"plugins": all, "deviations": plugins.deviations()})).into_response()
}

/// Messages that were put aside because their plugin failed, in the order of their hashes: `after` and `pagination` make a page.
pub(super) async fn quarantine(state: State, parameters: Parameters) -> ApiResult<Response> {
    let rows = usize::try_from(parameters.number(&["pagination"], ROWS)?.clamp(1, MAX_ROWS)).unwrap_or(1);
    let after = parameters.get(&["after"]).map(ItemHash::parse).transpose()?;
    let work = move |snapshot: &Snapshot| {
        // The first key behind that one.
        let start = after.map_or_else(Vec::new, |hash| Key::new().hash(&hash).bytes(&[0]).done());
        let mut found = snapshot.range(Table::Quarantine, &start, &end_of(&[]), rows + 1, false)?;
        let has_more = found.len() > rows;
        found.truncate(rows);
        let next =
            found.last().filter(|_| has_more).and_then(|(key, _)| split_hash(key)).map(|(hash, _)| hash.to_string());
        let shown = |(key, row): &(Vec<u8>, Vec<u8>)| -> ApiResult<Value> {
            let record = QuarantineRecord::read(row).map_err(ApiError::internal)?;
            Ok(json!({
                "item_hash": split_hash(key).map(|(hash, _)| hash.to_string()),
                "type": record.envelope.kind,
                "sender": record.envelope.sender,
                "plugin": record.plugin,
                "sha256": record.sha256,
                "class": record.class,
                "reason": record.reason,
                "time": record.reception_time as f64 / 1000.0,
            }))
        };
        Ok((found.iter().map(shown).collect::<ApiResult<Vec<Value>>>()?, next))
    };
    let (rows, next) = state.read(work).await?;
    Ok(Json(json!({"quarantine": rows, "next": next})).into_response())
}

/// Only those who can read the data folder may go on.
pub(super) fn check_operator(state: &State, headers: &HeaderMap) -> ApiResult<()> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let word = given.and_then(|value| value.strip_prefix("Bearer "));
    if word.zip(state.service.word.as_ref()).is_some_and(|(claimed, word)| word.is(claimed)) {
        return Ok(());
    }
    let sentence =
        "only the operator of this node may do that: use the command line of ccn, or the word in its data folder";
    Err(ApiError::new(StatusCode::FORBIDDEN, sentence))
}

pub(super) async fn retry(state: State, Path(hash): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    check_operator(&state, &headers)?;
    let hash = ItemHash::parse(&hash)?;
    let receipt = state.service.pipeline.retry(&hash).await.map_err(submit::refusal)?;
    let receipt = receipt.ok_or_else(|| ApiError::not_found(format!("{hash} is not in the quarantine")))?;
    tracing::warn!("the operator has {hash} decided anew: {}", receipt.status.name());
    Ok(Json(json!({"item_hash": hash.to_string(), "message_status": receipt.status.name()})).into_response())
}

pub(super) async fn resume(state: State, Path(name): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    order(&state, &headers, Order::Resume(name)).await
}

pub(super) async fn drop_state(state: State, Path(name): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    order(&state, &headers, Order::DropState(name)).await
}

async fn order(state: &State, headers: &HeaderMap, order: Order) -> ApiResult<Response> {
    check_operator(state, headers)?;
    let keeper = state.service.keeper.as_ref().ok_or(RequestError::Busy);
    let done = match keeper {
        Ok(keeper) => keeper.ask(order).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => Ok(Json(json!({"status": "done"})).into_response()),
        Err(error @ RequestError::NoSuchPlugin(..)) => Err(ApiError::not_found(error.to_string())),
        Err(error @ RequestError::Busy) => Err(ApiError::overloaded(error.to_string())),
        Err(error @ RequestError::Refused(_)) => Err(ApiError::new(StatusCode::CONFLICT, error.to_string())),
        Err(RequestError::Engine(error)) => Err(error.into()),
    }
}

pub(super) async fn answer(state: State, parameters: Parameters, request: Request) -> ApiResult<Response> {
    let path = request.uri().path();
    let nobodys = || ApiError::not_found(format!("no such path: {path}; /api/v0/plugins lists what plugins answer"));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(nobodys());
    }
    let service = &state.service;
    let answer = match service.plugins.query(&service.store, path, parameters.0.clone()).await {
        None => service.chains.query(&service.store, path, parameters.0).await,
        some => some,
    };
    let Some(answer) = answer else { return Err(nobodys()) };
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
        HostError::Suspended { plugin, .. } => {
            let sentence = format!("the plugin {plugin} is suspended by this node; /api/v0/plugins says why");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
        }
        HostError::Trapped { .. } | HostError::NotPortable { .. } | HostError::Store(_) => ApiError::internal(error),
    }
}

pub(super) async fn wrong_method(request: Request) -> ApiError {
    let sentence = format!("{} is not possible here", request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
}
