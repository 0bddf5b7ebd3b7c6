//! Prices: of a message that is here, and of one that is only thought of (ccn spec 5.7).

use super::{
    ApiError, ApiResult, State, moment, now_ms,
    parameters::{Flag, Parameter, Parameters},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::{
    pipeline::PriceRequest,
    store::{
        Reader as _, Snapshot, StoreError,
        record::{CostLineRecord, CostRecord, PaymentRecord, Record as _},
        schema::{Table, hash_key},
        standing,
    },
};
use axum::http::StatusCode;
use axum::{
    Json,
    body::Bytes,
    extract::{Path, rejection::BytesRejection},
    response::{IntoResponse, Response},
};
use ccn_message::{
    Amount, FormatError, ItemHash, MessageStatus,
    json::{Object, Value},
};
use serde_json::json;

static WITH_SIZES: Parameter<Flag> = Parameter::flag(&["include_size"], "Whether rows have a size.");

pub(super) fn routes(routes: Routes) -> Routes {
    let price = Shape::object([
        ("required_tokens", Shape::number()),
        ("payment_type", Shape::words(&["hold", "superfluid", "credit"])),
        ("cost", Shape::text().about("To hold, or to pay every second, by the payment type.")),
        ("detail", Shape::list(row_shape())),
        ("charged_address", Shape::text()),
    ]);
    let operation = |summary| {
        Operation::new(Group::Prices, summary)
            .query([&WITH_SIZES])
            .answers("The price.", &price)
            .refuses(400, "Messages of this type have no price.")
    };
    let of_hash = operation("What a message costs")
        .hash("The message.")
        .refuses(404, "It is not known, or not processed.")
        .refuses(410, "It is gone.");
    let time =
        || Shape::any_of([Shape::number(), Shape::moment()]).about("Seconds since 1970, or a moment.").optional();
    let text = || Shape::text().or_null().optional();
    let message = Shape::open_object([
        ("type", Shape::text()),
        ("content", Shape::any_object().optional()),
        ("item_content", text().about("Instead of `content`: its text.")),
        ("sender", text()),
        ("chain", text()),
        ("channel", text()),
        ("time", time()),
    ]);
    let of_draft = operation("What a message would cost")
        .about("Nothing is verified: who asks has not signed yet.")
        .takes(&Shape::open_object([("message", message)]));
    let content = Shape::any_object().about("The content of an instance; `time` and `allow_amend` may be missing.");
    let of_instance = operation("What an instance would cost").takes(&content);
    routes.get("/api/v0/price/{hash}", of_message, of_hash).post("/api/v0/price/estimate", estimate, of_draft).post(
        "/api/v0/price/estimate/instance",
        estimate_instance,
        of_instance,
    )
}

async fn of_message(state: State, Path(hash): Path<String>, parameters: Parameters) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    let with_sizes = WITH_SIZES.read(&parameters)?;
    let work = move |snapshot: &Snapshot| {
        let status = snapshot.status(&hash)?.map(|record| record.status());
        let mut table = Table::Costs;
        match status {
            None => return Err(ApiError::not_found("Message not found with the given hash")),
            Some(MessageStatus::Rejected) => return Err(ApiError::not_found("This message was rejected")),
            Some(MessageStatus::Pending) => {
                return Err(ApiError::not_found(
                    "This message still waits for something; ask again when it is processed",
                ));
            }
            Some(MessageStatus::Forgotten | MessageStatus::Removed) if is_file(snapshot, &hash)? => {
                table = Table::Refunded;
            }
            Some(MessageStatus::Forgotten | MessageStatus::Removed) => {
                return Err(ApiError::new(StatusCode::GONE, "This message is gone"));
            }
            Some(MessageStatus::Processed | MessageStatus::Removing) => {}
        }
        let row = snapshot.get(table, &hash_key(&hash))?;
        let costs = CostRecord::read(&row.ok_or_else(no_price)?).map_err(StoreError::from)?;
        Ok(answer(&costs.address, costs.payment, &costs.lines, with_sizes))
    };
    state.read(work).await
}

/// True for a message that kept a file and is no more: what it cost is still told.
fn is_file(snapshot: &Snapshot, hash: &ItemHash) -> ApiResult<bool> {
    if let Some(record) = standing::forgotten(snapshot, hash)? {
        return Ok(record.message.envelope.kind == "STORE");
    }
    Ok(standing::removed(snapshot, hash)?.is_some_and(|record| record.message.envelope.kind == "STORE"))
}

/// What a message would cost. Nothing is verified: who asks has not signed yet.
async fn estimate(state: State, parameters: Parameters, body: Result<Bytes, BytesRejection>) -> ApiResult<Response> {
    priced(&state, &parameters, body, read).await
}

/// The same of the bare content of an INSTANCE, which may lack the fields that a client fills in last.
async fn estimate_instance(
    state: State,
    parameters: Parameters,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Response> {
    priced(&state, &parameters, body, read_instance).await
}

/// The price of what a body asks for.
async fn priced(
    state: &State,
    parameters: &Parameters,
    body: Result<Bytes, BytesRejection>,
    read: fn(&str) -> Result<PriceRequest, FormatError>,
) -> ApiResult<Response> {
    let body = body?;
    let text = std::str::from_utf8(&body).map_err(|_| ApiError::field("", "the body is not UTF-8"))?;
    let request = read(text).map_err(|error| ApiError::format(&error))?;
    let with_sizes = WITH_SIZES.read(parameters)?;
    match state.service.pipeline.price(request).await? {
        Some(costs) => Ok(answer(&costs.address, costs.payment, &costs.lines, with_sizes)),
        None => Err(no_price()),
    }
}

fn no_price() -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "Messages of this type have no price")
}

fn read_instance(text: &str) -> Result<PriceRequest, FormatError> {
    let mut content = Object::parse(text)?;
    let sender = content.optional("address", Value::string)?.unwrap_or_default();
    let time = content.optional("time", read_time)?.unwrap_or_else(now);
    let has_amend = content.optional("allow_amend", Value::boolean)?.is_some();
    // These three may be missing or null, and the time a moment as text.
    let mut members = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
        .map_err(|error| FormatError::new("", error.to_string()))?;
    members.insert("address".to_owned(), sender.as_str().into());
    members.insert("time".to_owned(), time.into());
    if !has_amend {
        members.insert("allow_amend".to_owned(), false.into());
    }
    let content = serde_json::Value::Object(members).to_string();
    Ok(PriceRequest { kind: "INSTANCE".to_owned(), sender, chain: "ETH".to_owned(), channel: None, time, content })
}

fn now() -> f64 {
    now_ms() as f64 / 1e3
}

fn read(text: &str) -> Result<PriceRequest, FormatError> {
    let mut body = Object::parse(text)?;
    let mut message = body.required("message", Value::object)?;
    let within = |error: FormatError| error.within("message");
    let optional = |message: &mut Object<'_>, name: &str| message.optional(name, Value::string).map_err(within);
    let kind = message.required("type", Value::string).map_err(within)?;
    let content = match optional(&mut message, "item_content")? {
        Some(content) => content,
        None => message.required("content", |value| value.object().map(|_| value.text().to_owned())).map_err(within)?,
    };
    let time = message.optional("time", read_time).map_err(within)?;
    Ok(PriceRequest {
        kind,
        sender: optional(&mut message, "sender")?.unwrap_or_default(),
        chain: optional(&mut message, "chain")?.unwrap_or_else(|| "ETH".to_owned()),
        channel: optional(&mut message, "channel")?,
        time: time.unwrap_or_else(now),
        content,
    })
}

/// Seconds since 1970, or a moment as text, as the Python client sends one.
fn read_time(value: Value<'_>) -> Result<f64, FormatError> {
    if !value.is_string() {
        return value.float();
    }
    let text = value.string()?;
    // Without an offset, it is universal time.
    let moment = moment::read_iso(&text).or_else(|| moment::read_iso(&format!("{text}Z")));
    moment.map_or_else(|| value.float(), Ok)
}

/// The shape of a row of a price.
pub(super) fn row_shape() -> Shape {
    Shape::object([
        ("type", Shape::text()),
        ("name", Shape::text()),
        ("cost_hold", Shape::text()),
        ("cost_stream", Shape::text()),
        ("cost_credit", Shape::text()),
        ("size_mib", Shape::text().or_null()),
    ])
}

/// A row of a price.
pub(super) fn row(line: &CostLineRecord, with_sizes: bool) -> serde_json::Value {
    json!({
        "type": line.kind,
        "name": line.name,
        "cost_hold": line.hold().to_fixed(),
        "cost_stream": line.stream().to_fixed(),
        "cost_credit": line.credit().to_fixed(),
        "size_mib": line.size_mib.as_ref().filter(|_| with_sizes),
    })
}

fn answer(address: &str, payment: PaymentRecord, lines: &[CostLineRecord], with_sizes: bool) -> Response {
    let total: Amount = lines.iter().map(|line| line.amount(payment)).sum();
    Json(json!({
        "required_tokens": total.to_f64(),
        "payment_type": payment.name(),
        "cost": total.to_fixed(),
        "detail": lines.iter().map(|line| row(line, with_sizes)).collect::<Vec<_>>(),
        "charged_address": address,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn estimates_are_read_as_clients_write_them() {
        let content = r#"{\"address\":\"0xA\"}"#;
        let check = |more: &str, expect: Result<f64, &str>| {
            let text = format!(r#"{{"message":{{"type":"STORE","item_content":"{content}"{more}}},"other":1}}"#);
            match (read(&text), expect) {
                (Ok(request), Ok(time)) => {
                    assert_eq!((request.time, request.content.as_str()), (time, r#"{"address":"0xA"}"#), "{more}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{more}: {error}"),
                (found, _) => panic!("{more}: {found:?}"),
            }
        };
        check(r#","time":1788220801.5"#, Ok(1_788_220_801.5));
        check(r#","time":"2026-09-01T00:00:01.500000+00:00""#, Ok(1_788_220_801.5));
        check(r#","time":"2026-09-01T00:00:01.500000Z""#, Ok(1_788_220_801.5));
        check(r#","time":"2026-09-01T00:00:01.5""#, Ok(1_788_220_801.5));
        check(r#","time":"yesterday""#, Err("message.time"));
        check(r#","time":1,"channel":null,"signature":null,"item_hash":"x""#, Ok(1.0));
        let object = r#"{"message":{"type":"STORE","content":{"address":"0xB"},"item_content":null}}"#;
        assert_eq!(read(object).expect("a request").content, r#"{"address":"0xB"}"#);
        for wrong in ["[]", "{}", r#"{"message":{}}"#, r#"{"message":{"type":"STORE"}}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_do_no_harm(text in ".{0,200}") {
            let _ = read(&text);
            let _ = read(&format!(r#"{{"message":{text}}}"#));
        }
    }
}
