//! `POST /api/v0/messages` and its older forms: messages come in (ccn spec 5.1).

use super::{
    Api, State,
    error::{ApiError, ApiResult, code_of, details, sentence},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::{
    events::{ListenError, Listener},
    pipeline::{Receipt, SubmitError},
    store::{Reader as _, record::RejectionRecord},
};
use axum::http::StatusCode;
use axum::{
    Json,
    body::Bytes,
    extract::rejection::BytesRejection,
    response::{IntoResponse, Response},
};
use ccn_message::{
    ErrorCode, FormatError, ItemHash, MessageStatus,
    json::{Object, Value},
};
use serde_json::json;
use std::time::Duration;

/// How long a synchronous submission waits for a verdict.
const SYNC_WAIT: Duration = Duration::from_secs(30);
/// The network's topic; its name has been this one since before the main network.
const TOPIC: &str = "ALEPH-TEST";

/// What became of a submission.
pub(super) struct Taken {
    pub(super) status: MessageStatus,
    pub(super) rejection: Option<RejectionRecord>,
}

impl Taken {
    /// The HTTP status of a message's (ccn spec 5.1).
    pub(super) fn code(&self) -> StatusCode {
        match self.status {
            MessageStatus::Pending => StatusCode::ACCEPTED,
            MessageStatus::Processed | MessageStatus::Removing => StatusCode::OK,
            MessageStatus::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
            MessageStatus::Forgotten | MessageStatus::Removed => StatusCode::GONE,
        }
    }
}

impl From<Receipt> for Taken {
    fn from(receipt: Receipt) -> Self {
        Self { status: receipt.status, rejection: receipt.rejection }
    }
}

pub(super) fn routes(routes: Routes) -> Routes {
    let publication =
        |words: &[&str]| Shape::object([("status", Shape::words(words)), ("failed", Shape::list(Shape::text()))]);
    let text = || Shape::text().or_null().optional();
    let envelope = Shape::open_object([
        ("sender", Shape::text()),
        ("chain", Shape::text()),
        ("signature", Shape::anything().optional()),
        ("type", Shape::text()),
        ("item_type", Shape::words(&["inline", "storage", "ipfs"]).optional()),
        ("item_content", text().about("The content as text, of an inline message.")),
        ("item_hash", Shape::text().about("Of the content.")),
        ("time", Shape::number().about("Seconds since 1970.")),
        ("channel", text()),
    ]);
    let told = |statuses: &[&str]| {
        Shape::object([("publication_status", publication(&["success"])), ("message_status", Shape::words(statuses))])
    };
    let body = Shape::open_object([
        ("message", envelope),
        ("sync", Shape::flag().or_null().about("Whether to wait for the verdict.").optional()),
    ]);
    let json = "application/json";
    let of_messages = Operation::new(Group::Messages, "Sends a message")
        .about("The message is signed by its sender. It may be sent again.")
        .takes(&body)
        .answers("It is processed.", &told(&["processed", "removing"]))
        .answers_with(202, "It is taken in, and waits.", json, &told(&["pending"]))
        .refuses(410, "It was forgotten or removed.");
    let older = || {
        let body = Shape::open_object([
            ("topic", Shape::words(&[TOPIC])),
            ("data", Shape::any_of([Shape::text(), Shape::any_object()]).about("The message, as text or as it is.")),
        ]);
        Operation::new(Group::Messages, "Sends a message, the older way")
            .takes(&body)
            .answers("It is taken in.", &publication(&["success"]))
            .refuses(403, "This topic is not published here.")
    };
    routes.post("/api/v0/messages", messages, of_messages).post("/api/v0/ipfs/pubsub/pub", publish, older()).post(
        "/api/v0/p2p/pubsub/pub",
        publish,
        older(),
    )
}

/// Takes a message in; waits for its verdict when that is asked for.
///
/// # Errors
/// It is no message, or the node cannot take it now.
pub(super) async fn take_in(api: &Api, envelope: String, sync: bool) -> Result<Taken, SubmitError> {
    // Before it is submitted: its verdict must not come between.
    let listener = sync.then(|| api.service.pipeline.events().listen());
    let receipt = api.service.pipeline.submit(envelope).await?;
    match listener {
        Some(listener) if receipt.status == MessageStatus::Pending => {
            let waited = tokio::time::timeout(SYNC_WAIT, verdict(api, listener, &receipt.item_hash)).await;
            Ok(waited.ok().flatten().unwrap_or_else(|| receipt.into()))
        }
        _ => Ok(receipt.into()),
    }
}

/// Waits until a message is no longer pending.
async fn verdict(api: &Api, mut listener: Listener, item_hash: &ItemHash) -> Option<Taken> {
    loop {
        match listener.next().await {
            Ok(event) if event.item_hash() == item_hash && event.status() != MessageStatus::Pending => {}
            // Its own event may be among those that were missed: the store knows.
            Err(ListenError::Lagged(_)) => {}
            Ok(_) => continue,
            Err(ListenError::Closed) => return None,
        }
        let hash = item_hash.clone();
        let status = api.read(move |snapshot| Ok(snapshot.status(&hash)?)).await.ok().flatten();
        if let Some(record) = status.filter(|record| record.status() != MessageStatus::Pending) {
            return Some(Taken { status: record.status(), rejection: record.rejection });
        }
    }
}

/// The body as text of the network's dialect, cut into its members.
fn members(body: &[u8]) -> ApiResult<Object<'_>> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::field("", "the body is not UTF-8"))?;
    Object::parse(text).map_err(|error| ApiError::format(&error))
}

async fn messages(state: State, body: Result<Bytes, BytesRejection>) -> ApiResult<Response> {
    let body = body?;
    let (envelope, sync) = {
        let mut object = members(&body)?;
        let envelope = object.required("message", |value| value.object().map(|_| value.text().to_owned()));
        let sync = object.optional("sync", Value::boolean);
        (envelope.map_err(|error| ApiError::format(&error))?, sync.map_err(|error| ApiError::format(&error))?)
    };
    match take_in(&state.0, envelope, sync.unwrap_or(false)).await {
        Ok(taken) => Ok((taken.code(), Json(answer(&taken))).into_response()),
        Err(SubmitError::Format { item_hash, error }) => {
            let code = StatusCode::UNPROCESSABLE_ENTITY;
            Ok((code, Json(format_answer(item_hash.as_ref(), &error))).into_response())
        }
        Err(error) => Err(refusal(error)),
    }
}

fn answer(taken: &Taken) -> serde_json::Value {
    let mut answer = json!({
        "publication_status": {"status": "success", "failed": []},
        "message_status": taken.status.name(),
    });
    if let Some(rejection) = &taken.rejection {
        answer["error"] = sentence(rejection.code, &rejection.errors).into();
        answer["error_code"] = rejection.code.into();
        answer["details"] = details(&rejection.errors);
    }
    explain(taken, &mut answer);
    answer
}

/// What is no success says so as all errors do.
pub(super) fn explain(taken: &Taken, answer: &mut serde_json::Value) {
    let code = taken.code();
    if code.is_success() {
        return;
    }
    if answer.get("error").is_none() {
        answer["error"] = format!("this message is {}", taken.status.name()).into();
    }
    answer["code"] = code_of(code).into();
}

/// A format error leaves no status behind. Clients parse what they parse for a rejected message, people read the sentence.
fn format_answer(item_hash: Option<&ItemHash>, error: &FormatError) -> serde_json::Value {
    json!({
        "publication_status": {"status": "error", "failed": ["p2p"]},
        "message_status": MessageStatus::Rejected.name(),
        "error": error.to_string(),
        "code": code_of(StatusCode::UNPROCESSABLE_ENTITY),
        "error_code": ErrorCode::InvalidFormat.number(),
        "field": error.field,
        "details": {"errors": [error.to_string()]},
        "item_hash": item_hash.map(ToString::to_string),
    })
}

/// Why a submission came to nothing.
pub(super) fn refusal(error: SubmitError) -> ApiError {
    match error {
        SubmitError::Format { error, .. } => {
            ApiError::format(&error).with("error_code", ErrorCode::InvalidFormat.number())
        }
        SubmitError::Overloaded => ApiError::overloaded(error.to_string()),
        SubmitError::Engine(error) => error.into(),
    }
}

/// A message as text, or as the object that the text would be: clients send both.
fn text_or_object(value: Value<'_>) -> Result<String, FormatError> {
    if value.is_string() { value.string() } else { value.object().map(|_| value.text().to_owned()) }
}

/// The older form: a topic, and the message. It never waits.
async fn publish(state: State, body: Result<Bytes, BytesRejection>) -> ApiResult<Response> {
    let body = body?;
    let data = {
        let mut object = members(&body)?;
        let topic = object.required("topic", Value::string).map_err(|error| ApiError::format(&error))?;
        if topic != TOPIC {
            let sentence = format!("topic: only {TOPIC} is published here");
            return Err(ApiError::new(StatusCode::FORBIDDEN, sentence).with("field", "topic"));
        }
        object.required("data", text_or_object).map_err(|error| ApiError::format(&error))?
    };
    match take_in(&state.0, data, false).await {
        Ok(_) => Ok(Json(json!({"status": "success", "failed": []})).into_response()),
        Err(error) => Err(refusal(error)),
    }
}
