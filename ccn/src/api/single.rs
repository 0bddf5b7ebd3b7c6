//! One message by its hash: what became of it, and what it says (ccn spec 5.2).

use super::{
    ApiError, ApiResult, State,
    element::{Element, json_text, with_content},
    error::details,
    moment,
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::store::{
    Reader as _, Snapshot, StoreError,
    record::{ForgottenRecord, MessageRecord, PaymentRecord, PendingRecord, Record as _, RemovedRecord, StatusRecord},
    schema::{Table, hash_key},
    standing::{self, Position},
};
use axum::http::StatusCode;
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use ccn_message::{ItemHash, MessageStatus, json::Object};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

/// Most copies of one waiting message that are shown.
const MAX_COPIES: usize = 16;
/// The label under which a message is found by how it is paid.
pub(super) const PAYMENT_LABEL: &str = "payment-type";

/// What is said of a message with one of these statuses.
pub(super) fn status_shape(words: &[&str]) -> Shape {
    Shape::object([("status", Shape::words(words)), ("item_hash", Shape::hash()), ("reception_time", Shape::moment())])
}

pub(super) fn routes(routes: Routes) -> Routes {
    let element = || Shape::named(super::element::NAME);
    let processed = status_shape(&["processed", "removing"])
        .and([("message", element()), ("reason", Shape::text().about("Why it is being removed.").optional())]);
    let pending =
        status_shape(&["pending"]).and([("messages", Shape::list(element())), ("message", element().or_null())]);
    let rejected = status_shape(&["rejected"]).and([
        ("message", Shape::any_object().or_null().about("As it was sent.")),
        ("error_code", Shape::integer()),
        ("details", Shape::anything()),
    ]);
    let hashes = Shape::list(Shape::hash()).about("The messages that hide it.");
    let hidden = status_shape(&["forgotten"]).and([("message", skeleton_shape()), ("forgotten_by", hashes)]);
    let gone = status_shape(&["removed"]).and([
        ("message", skeleton_shape()),
        ("reason", Shape::text()),
        ("removed_at", Shape::number().about("Seconds since 1970.")),
        ("size", Shape::whole()),
    ]);
    let operation = |summary| {
        let operation = Operation::new(Group::Messages, summary).hash("The message.");
        operation.refuses(404, "No such message is known.")
    };
    let of_one = operation("A message, and what became of it")
        .answers("It, by its status.", &Shape::any_of([processed, pending, rejected, hidden, gone]))
        .answers_with(410, "Nothing but its status is known.", "application/json", &status_shape(&["removed"]));
    let of_status = operation("What became of a message").answers("Its status.", &status_shape(&MessageStatus::NAMES));
    let of_content = operation("What a message says")
        .answers("Its content; of a POST, what its owner wrote.", &Shape::anything())
        .refuses(422, "It is not processed.");
    routes.get("/api/v0/messages/{hash}", one, of_one).get("/api/v0/messages/{hash}/status", status, of_status).get(
        "/api/v0/messages/{hash}/content",
        content,
        of_content,
    )
}

/// The shape of what is still said of a message that is no more.
pub(super) fn skeleton_shape() -> Shape {
    Shape::object([
        ("sender", Shape::text()),
        ("chain", Shape::text()),
        ("type", Shape::text()),
        ("channel", Shape::text().or_null()),
        ("time", Shape::moment()),
        ("item_type", Shape::words(&["inline", "storage", "ipfs"])),
        ("item_hash", Shape::hash()),
        ("signature", Shape::text().or_null()),
        ("owner", Shape::text()),
        ("size", Shape::whole()),
        ("payment_type", Shape::text()),
        ("forgotten_at", Shape::number().or_null().optional()),
        ("status", Shape::words(&["forgotten", "removed"]).optional()),
        ("forgotten_by", Shape::list(Shape::hash()).optional()),
        ("reason", Shape::text().optional()),
        ("removed_at", Shape::number().optional()),
    ])
}

async fn one(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    state.read(move |snapshot| describe(snapshot, &hash)).await
}

fn status_of(snapshot: &Snapshot, hash: &ItemHash) -> ApiResult<StatusRecord> {
    snapshot.status(hash)?.ok_or_else(|| ApiError::not_found("Message not found"))
}

/// The fields that every status has.
#[derive(Serialize)]
struct Status {
    status: &'static str,
    item_hash: String,
    reception_time: String,
}

impl Status {
    fn of(record: &StatusRecord, hash: &ItemHash) -> Self {
        Self {
            status: record.status().name(),
            item_hash: hash.to_string(),
            reception_time: moment::iso(record.reception_time),
        }
    }
}

#[derive(Serialize)]
struct Described<T: Serialize> {
    #[serde(flatten)]
    status: Status,
    #[serde(flatten)]
    more: T,
}

#[derive(Serialize)]
struct Processed {
    message: Element,
    /// Why it is being removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Pending {
    messages: Vec<Element>,
    /// Clients that know no waiting messages read this one.
    message: Option<Element>,
}

#[derive(Serialize)]
struct Rejected {
    /// As it was sent; with a content, without which clients do not read it.
    message: Option<Box<RawValue>>,
    error_code: i32,
    details: Value,
}

fn describe(snapshot: &Snapshot, hash: &ItemHash) -> ApiResult<Response> {
    let record = status_of(snapshot, hash)?;
    let status = Status::of(&record, hash);
    let damaged = || ApiError::internal(format!("the record of message {hash} is damaged"));
    let reason = (record.status() == MessageStatus::Removing).then(|| removal_reason(snapshot, hash)).transpose()?;
    Ok(match record.status() {
        MessageStatus::Processed | MessageStatus::Removing => {
            let message = snapshot.message(hash)?.as_ref().and_then(Element::single).ok_or_else(damaged)?;
            let message = message.confirmed_by(snapshot.confirmations(hash)?);
            Json(Described { status, more: Processed { message, reason } }).into_response()
        }
        MessageStatus::Pending => {
            let prefix = hash_key(hash);
            let end = crate::store::schema::end_of(&prefix);
            let rows = snapshot.range(Table::Pending, &prefix, &end, MAX_COPIES, false)?;
            let copies = rows.iter().map(|(_, row)| PendingRecord::read(row).map_err(StoreError::from));
            let copies: Vec<PendingRecord> = copies.collect::<Result<_, _>>()?;
            let messages = copies.iter().filter_map(Element::pending).collect();
            let message = copies.first().and_then(Element::waiting);
            Json(Described { status, more: Pending { messages, message } }).into_response()
        }
        MessageStatus::Rejected => {
            let rejection = record.rejection.ok_or_else(damaged)?;
            let details = details(&rejection.errors);
            let more = Rejected { message: with_content(&rejection.message), error_code: rejection.code, details };
            Json(Described { status, more }).into_response()
        }
        MessageStatus::Forgotten => match standing::forgotten(snapshot, hash)? {
            Some(record) => Json(Described { status, more: forgotten(snapshot, hash, &record)? }).into_response(),
            None => return Err(damaged()),
        },
        MessageStatus::Removed => match standing::removed(snapshot, hash)? {
            Some(record) => Json(Described { status, more: removed(hash, &record) }).into_response(),
            None => (StatusCode::GONE, Json(Described { status, more: json!({}) })).into_response(),
        },
    })
}

/// Whose want it is that a message is removed for: what it is paid with.
fn removal_reason(snapshot: &Snapshot, hash: &ItemHash) -> ApiResult<&'static str> {
    Ok(removal_word(snapshot.costs(hash)?.map(|costs| costs.payment)))
}

/// The word for what there was too little of.
pub(super) fn removal_word(payment: Option<PaymentRecord>) -> &'static str {
    match payment {
        Some(PaymentRecord::Credit) => "credit_insufficient",
        Some(PaymentRecord::Hold | PaymentRecord::Superfluid) | None => "balance_insufficient",
    }
}

/// What is still said of a message that is hidden: its envelope without the content, and who hides it.
fn forgotten(snapshot: &Snapshot, hash: &ItemHash, record: &ForgottenRecord) -> ApiResult<Value> {
    let by = standing::hidden_by(snapshot, hash, record)?;
    let message = forgotten_skeleton(hash, &record.message, &by);
    Ok(json!({"message": message, "forgotten_by": forgotten_by(&by)}))
}

/// What is still said of a message that was removed.
fn removed(hash: &ItemHash, record: &RemovedRecord) -> Value {
    json!({
        "message": removed_skeleton(hash, record),
        "reason": removal_word(Some(record.payment)),
        "removed_at": record.removed_at as f64 / 1e3,
        "size": record.size,
    })
}

/// The hashes of those that hide a message.
pub(super) fn forgotten_by(by: &[Position]) -> Vec<String> {
    by.iter().filter_map(Position::hash).map(|hash| hash.to_string()).collect()
}

/// The envelope of a message that is hidden by these.
pub(super) fn forgotten_skeleton(hash: &ItemHash, record: &MessageRecord, by: &[Position]) -> Value {
    let mut skeleton = skeleton(hash, record, record.size);
    skeleton["forgotten_at"] = by.first().map(Position::time).into();
    skeleton
}

/// The envelope of a message that was removed.
pub(super) fn removed_skeleton(hash: &ItemHash, record: &RemovedRecord) -> Value {
    skeleton(hash, &record.message, record.size)
}

/// What is still said of a message that is no more. Its time is a text, as the network has it here: clients read nothing else.
fn skeleton(hash: &ItemHash, record: &MessageRecord, size: u64) -> Value {
    let MessageRecord { envelope, owner, .. } = record;
    json!({
        "sender": envelope.sender,
        "chain": envelope.chain(),
        "type": envelope.kind,
        "channel": envelope.channel,
        "time": moment::iso_seconds(envelope.time),
        "item_type": envelope.item_type(),
        "item_hash": hash,
        "signature": envelope.signature,
        "owner": owner,
        "size": size,
        "payment_type": payment_type(record),
    })
}

/// How a message was to be paid; what names nothing is paid by holding.
fn payment_type(record: &MessageRecord) -> &str {
    let labelled = record.labels.iter().find(|(name, _)| name == PAYMENT_LABEL);
    labelled.map_or(PaymentRecord::Hold.name(), |(_, value)| value)
}

async fn status(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    state.read(move |snapshot| Ok(Json(Status::of(&status_of(snapshot, &hash)?, &hash)).into_response())).await
}

/// The content; of a POST, what its owner wrote.
async fn content(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    let work = move |snapshot: &Snapshot| {
        let status = status_of(snapshot, &hash)?.status();
        let record = match status {
            MessageStatus::Processed | MessageStatus::Removing => snapshot.message(&hash)?,
            _ => None,
        };
        let Some(record) = record else {
            let sentence = format!("Invalid message status: {status}; only a processed message has content");
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, sentence));
        };
        let content = record.content();
        if record.envelope.kind != "POST" {
            return Ok(json_text(content.to_owned()));
        }
        let mut object = Object::parse(content).map_err(|error| ApiError::format(&error))?;
        Ok(json_text(object.take_raw("content").map_or("null", |value| value.text()).to_owned()))
    };
    state.read(work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changes, Store};
    use ccn_message::sign::{Account, Draft};

    /// Clients stop at any answer that is no success: what was removed is one.
    #[tokio::test]
    async fn what_was_removed_is_shown_without_its_content() {
        let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
        let account = Account::ethereum([7; 32]).expect("a key");
        let mut envelope = Draft::new("POST", r#"{"type":"x","content":{}}"#).time(5.0).sign(&account);
        let hash = envelope.item_hash.clone();
        envelope.item_content = None;
        let message = MessageRecord {
            envelope: (&envelope).into(),
            content: None,
            size: 1,
            owner: envelope.sender.clone(),
            content_time: 5.0,
            labels: vec![(PAYMENT_LABEL.to_owned(), "credit".to_owned())],
            reception_time: 0,
        };
        let record = RemovedRecord { message, payment: PaymentRecord::Credit, removed_at: 7_500, size: 9 };
        let status = StatusRecord::new(MessageStatus::Removed, 1_000, None);
        let rows = [
            ((Table::Status, hash_key(&hash)), Some(status.to_bytes())),
            ((Table::Removed, hash_key(&hash)), Some(record.to_bytes())),
        ];
        store.commit(&Changes::from(rows)).expect("a commit");
        let answer = describe(&store.snapshot().expect("a snapshot"), &hash).expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let found: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&found["status"], &found["reason"]), (&json!("removed"), &json!("credit_insufficient")));
        assert_eq!((&found["removed_at"], &found["size"]), (&json!(7.5), &json!(9)));
        let skeleton = &found["message"];
        assert_eq!((&skeleton["sender"], &skeleton["payment_type"]), (&json!(envelope.sender), &json!("credit")));
        assert_eq!(skeleton["time"], "1970-01-01T00:00:05.000000+00:00");
        assert!(skeleton.get("content").is_none() && skeleton.get("item_content").is_none());
    }
}
