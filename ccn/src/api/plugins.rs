//! Plugins: what they are and how they do, what the operator does about them, and the paths that no route has, which are a plugin's own or nobody's.

use super::{
    ApiError, ApiResult, State,
    error::code_of,
    parameters::{Hash, Number, Parameter, Parameters},
    reference::{Group, Operation, Shape},
    routes::Routes,
    submit,
};
use crate::{
    host::{HostError, Request as Order, RequestError},
    store::{
        Reader as _, Snapshot,
        record::{QuarantineRecord, Record as _},
        schema::{Key, Table, end_of, split_hash},
    },
};
use axum::http::{
    HeaderMap, HeaderValue, Method, StatusCode, header::ALLOW, header::AUTHORIZATION, header::CONTENT_TYPE,
};
use axum::{
    Json,
    body::Body,
    extract::{Path, Request},
    response::{IntoResponse, Response},
};
use ccn_message::ItemHash;
use serde_json::{Value, json};

static PAGINATION: Parameter<Number> = Parameter::number(&["pagination"], "Rows of a page.", 50, 1..=500);
static AFTER: Parameter<Hash> = Parameter::hash(&["after"], "Those after this one: the `next` of the last page.");
/// Longest error of a plugin that is given the form of the node's own.
const MAX_ERROR_BYTES: usize = 64 << 10;

pub(super) fn routes(routes: Routes) -> Routes {
    let (text, texts) = (|| Shape::text().optional(), || Shape::list(Shape::text()));
    let quantiles = || Shape::object([("p50", Shape::whole()), ("p99", Shape::whole())]);
    let failures = Shape::object([
        ("deterministic", Shape::whole()),
        ("out-of-fuel", Shape::whole()),
        ("not-portable", Shape::whole()),
        ("node", Shape::whole()),
    ]);
    let limits = Shape::object([
        ("fuel", Shape::whole()),
        ("memory-mib", Shape::whole()),
        ("write-kib", Shape::whole()),
        ("writes", Shape::whole()),
    ]);
    let statistics = Shape::object([
        ("calls", Shape::whole()),
        ("accepted", Shape::whole()),
        ("rejected", Shape::whole()),
        ("waiting", Shape::whole()),
        ("failed", failures),
        ("queries", Shape::whole()),
        ("twice", Shape::whole()),
        ("deferred", Shape::whole()),
        ("fuel", Shape::whole()),
        ("micros", Shape::whole()),
        ("memory_peak_kib", Shape::whole()),
        ("fuel_per_call", quantiles()),
        ("micros_per_call", quantiles()),
    ]);
    let states = ["active", "compiling", "rebuilding", "refused", "suspended", "removed"];
    let plugin = Shape::object([
        ("name", text()),
        ("version", text()),
        ("sha256", text()),
        ("origin", Shape::words(&["bundled", "file"])),
        ("file", text()),
        ("state", Shape::words(&states)),
        ("reason", text()),
        ("types", texts().about("Message types.")),
        ("routes", texts()),
        ("profile", Shape::text()),
        ("limits", limits.optional()),
        ("asks", texts()),
        ("grants", texts()),
        ("statistics", statistics.optional()),
    ]);
    let deviation =
        Shape::object([("type", Shape::text()), ("pinned", Shape::text()), ("found", Shape::text().or_null())]);
    let all = Shape::object([("plugins", Shape::list(plugin)), ("deviations", Shape::list(deviation))]);
    let row = Shape::object([
        ("item_hash", Shape::hash()),
        ("type", Shape::text()),
        ("sender", Shape::text()),
        ("plugin", Shape::text()),
        ("sha256", Shape::text()),
        ("class", Shape::text()),
        ("reason", Shape::text()),
        ("time", Shape::number().about("Seconds since 1970.")),
    ]);
    let rows = Shape::object([("quarantine", Shape::list(row)), ("next", Shape::hash().or_null())]);
    let done = Shape::object([("status", Shape::words(&["done"]))]);
    let decided = Shape::object([("item_hash", Shape::hash()), ("message_status", Shape::text())]);
    let of_plugin = |summary| {
        let operation = Operation::new(Group::Operator, summary).for_operator();
        let operation = operation.path("name", "The plugin.", &Shape::text().with("minLength", 1));
        operation.answers("It is done.", &done).refuses(404, "No such plugin.").refuses(409, "It cannot be done now.")
    };
    let of_all = Operation::new(Group::Node, "Plugins, and message types that are not handled as the network says")
        .answers("Them.", &all);
    let of_quarantine = Operation::new(Group::Node, "Messages that were put aside because their plugin failed")
        .query([&AFTER, &PAGINATION])
        .answers("A page of them, in the order of their hashes.", &rows);
    let of_retry = Operation::new(Group::Operator, "Has a message decided anew")
        .for_operator()
        .hash("The message.")
        .answers("What became of it.", &decided)
        .refuses(404, "It is not put aside.");
    routes
        .get("/api/v0/plugins", list, of_all)
        .get("/api/v0/plugins/quarantine", quarantine, of_quarantine)
        .post("/api/v0/plugins/quarantine/{hash}/retry", retry, of_retry)
        .post("/api/v0/plugins/{name}/resume", resume, of_plugin("Calls a suspended plugin again"))
        .post("/api/v0/plugins/{name}/drop-state", drop_state, of_plugin("Deletes what a removed plugin has left"))
}

async fn list(state: State) -> Response {
    let plugins = &state.service.plugins;
    let all = [plugins.list(), state.service.chains.plugins()].concat();
    Json(json!({"plugins": all, "deviations": plugins.deviations()})).into_response()
}

/// Messages that were put aside because their plugin failed, in the order of their hashes: `after` and `pagination` make a page.
async fn quarantine(state: State, parameters: Parameters) -> ApiResult<Response> {
    let rows = usize::try_from(PAGINATION.read(&parameters)?).unwrap_or(1);
    let after = AFTER.read(&parameters)?;
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
    let status = if given.is_some() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
    Err(ApiError::new(status, sentence))
}

async fn retry(state: State, Path(hash): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    check_operator(&state, &headers)?;
    let hash = ItemHash::parse(&hash)?;
    let receipt = state.service.pipeline.retry(&hash).await.map_err(submit::refusal)?;
    let receipt = receipt.ok_or_else(|| ApiError::not_found(format!("{hash} is not in the quarantine")))?;
    tracing::warn!("the operator has {hash} decided anew: {}", receipt.status.name());
    Ok(Json(json!({"item_hash": hash.to_string(), "message_status": receipt.status.name()})).into_response())
}

async fn resume(state: State, Path(name): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    order(&state, &headers, Order::Resume(name)).await
}

async fn drop_state(state: State, Path(name): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
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
    let (service, pairs) = (&state.service, parameters.into_pairs());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        if !service.plugins.answers(path) && !service.chains.answers(path) {
            return Err(nobodys());
        }
        let mut refused = wrong_method(request).await.into_response();
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
        return Ok(refused);
    }
    let answer = match service.plugins.query(&service.store, path, pairs.clone()).await {
        None => service.chains.query(&service.store, path, pairs).await,
        some => some,
    };
    let Some(answer) = answer else { return Err(nobodys()) };
    let answer = answer.map_err(refusal)?;
    let status = StatusCode::from_u16(answer.status).map_err(ApiError::internal)?;
    let content_type = HeaderValue::from_str(&answer.content_type).map_err(ApiError::internal)?;
    let body = if status.is_success() { answer.body } else { error_body(status, answer.body) };
    Ok((status, [(CONTENT_TYPE, content_type)], Body::from(body)).into_response())
}

/// A plugin's error says what kind it is, as the node's own do. What is not in their form is passed on as it is.
fn error_body(status: StatusCode, body: Vec<u8>) -> Vec<u8> {
    if body.len() > MAX_ERROR_BYTES {
        return body;
    }
    let Ok(Value::Object(mut members)) = serde_json::from_slice(&body) else { return body };
    if !members.get("error").is_some_and(Value::is_string) {
        return body;
    }
    members.entry("code").or_insert_with(|| code_of(status).into());
    Value::Object(members).to_string().into_bytes()
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
