//! Files come in: streamed to the disk, hashed on the way, bounded while they stream (ccn spec 5.5).
//!
//! An upload may carry the signed message that keeps the file. Then the message is published here too, and its verdict is the answer; clients that
//! send the message again afterwards are told the same.

use super::{
    Api, ApiError, ApiResult, State,
    error::{details, sentence},
    now_ms,
    paced::{Paced, Unused},
    places::Pace,
    submit::{self, Taken},
};
use crate::{
    files::{Aside, FileWriter, NewFile},
    pipeline::{Funds, PriceRequest},
    store::{
        Snapshot,
        record::{FileKind, PaymentRecord},
    },
};
use axum::http::{StatusCode, header::CONTENT_LENGTH, header::CONTENT_TYPE};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{
        FromRequest as _, Multipart, Request,
        multipart::{Field, MultipartError},
    },
    response::{IntoResponse, Response},
};
use ccn_message::{
    Amount, Envelope, ErrorCode, FormatError, ItemHash, ItemType, MessageStatus,
    content::store::StoreContent,
    json::{self, Object, Value},
    signature,
};
use futures_util::StreamExt as _;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// How long an upload may stand still.
const STALL: Duration = Duration::from_secs(30);
/// Bytes of a multipart body that are not the file: boundaries, headers, the message.
const OVERHEAD_BYTES: u64 = 4 << 20;
/// Parts of a multipart body that are looked at.
const MAX_PARTS: usize = 16;
/// Deepest nesting of JSON that is stored as a file; what is deeper can be uploaded as one.
const MAX_JSON_DEPTH: usize = 64;
const MIB: u64 = 1 << 20;
/// Anybody may leave as much for a day, so no funds are asked for before the message is judged.
const UNASKED_MIB: u64 = 25;

/// Under which name a file is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Storage,
    Ipfs,
}

impl Engine {
    fn item_type(self) -> ItemType {
        match self {
            Self::Storage => ItemType::Storage,
            Self::Ipfs => ItemType::Ipfs,
        }
    }

    fn name_of(self, file: &NewFile) -> ItemHash {
        match self {
            Self::Storage => file.sha256.clone(),
            Self::Ipfs => file.cid_v0.clone(),
        }
    }

    fn signed_mib(self, api: &Api) -> u64 {
        match self {
            Self::Storage => api.service.config.limits.storage_upload_mib,
            Self::Ipfs => api.service.config.limits.ipfs_upload_mib,
        }
    }
}

/// What an upload brought.
#[derive(Default)]
struct Upload {
    file: Option<NewFile>,
    /// What the client calls it.
    name: Option<String>,
    metadata: Option<Metadata>,
}

/// What a multipart body had besides the bytes of its file.
#[derive(Default)]
pub(super) struct Parts {
    /// True when it had a file.
    pub(super) has_file: bool,
    name: Option<String>,
    pub(super) metadata: Option<Metadata>,
}

/// The message that keeps the file.
pub(super) struct Metadata {
    envelope: Envelope,
    /// As it came.
    text: String,
    pub(super) content: StoreContent,
    sync: bool,
}

/// What becomes of a file while it comes.
pub(super) trait Intake {
    /// Takes the next piece.
    fn take(&mut self, piece: &[u8]) -> impl Future<Output = ApiResult<()>> + Send;
}

/// Writes it as it is.
struct FileIntake {
    writer: FileWriter,
    limit_mib: u64,
}

impl Intake for FileIntake {
    async fn take(&mut self, piece: &[u8]) -> ApiResult<()> {
        write(&mut self.writer, piece, self.limit_mib).await
    }
}

pub(super) async fn storage_add_file(state: State, request: Request) -> ApiResult<Response> {
    let api = &*state.0;
    let place = api.uploads.take()?;
    let upload = if is_multipart(&request) {
        place.receive(read_file_parts(api, Engine::Storage, request, place.pace())).await?
    } else {
        place.receive(read_file(api, request, place.pace())).await?
    };
    store(api, Engine::Storage, upload).await
}

/// Reads a body that is the file.
async fn read_file(api: &Api, request: Request, pace: Arc<Pace>) -> ApiResult<Upload> {
    let limit = api.service.config.limits.unsigned_upload_mib;
    check_length(&request, limit * MIB)?;
    let mut writer = api.service.files.writer().await?;
    let mut body = Paced::new(request.into_body(), pace);
    while let Some(chunk) = next_chunk(&mut body).await? {
        write(&mut writer, &chunk, limit).await?;
    }
    Ok(Upload { file: Some(writer.finish().await?), ..Upload::default() })
}

pub(super) async fn ipfs_add_file(state: State, request: Request) -> ApiResult<Response> {
    let api = &*state.0;
    let place = api.uploads.take()?;
    require_multipart(&request)?;
    let upload = place.receive(read_file_parts(api, Engine::Ipfs, request, place.pace())).await?;
    store(api, Engine::Ipfs, upload).await
}

pub(super) async fn storage_add_json(state: State, request: Request) -> ApiResult<Response> {
    add_json(state, Engine::Storage, request).await
}

pub(super) async fn ipfs_add_json(state: State, request: Request) -> ApiResult<Response> {
    add_json(state, Engine::Ipfs, request).await
}

fn is_multipart(request: &Request) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.trim_start().to_ascii_lowercase().starts_with("multipart/"))
}

pub(super) fn require_multipart(request: &Request) -> ApiResult<()> {
    let sentence = "send the file as the part `file` of a multipart/form-data body";
    if is_multipart(request) { Ok(()) } else { Err(ApiError::new(StatusCode::BAD_REQUEST, sentence)) }
}

/// Refuses what says that it is too long before it is sent.
fn check_length(request: &Request, limit_bytes: u64) -> ApiResult<()> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > limit_bytes => Err(too_large(limit_bytes / MIB)),
        _ => Ok(()),
    }
}

pub(super) fn too_large(limit_mib: u64) -> ApiError {
    ApiError::too_large(format!("the file is larger than the {limit_mib} MiB that are taken here in this way"))
}

/// The next piece of a body that keeps coming.
async fn next_chunk(body: &mut Paced) -> ApiResult<Option<Bytes>> {
    let stalled = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the upload stood still for 30 seconds");
    let chunk = tokio::time::timeout(STALL, body.next()).await.map_err(stalled)?;
    body.unused().used();
    chunk.transpose().map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, format!("the upload broke off: {error}")))
}

async fn write(writer: &mut FileWriter, chunk: &[u8], limit_mib: u64) -> ApiResult<()> {
    if writer.size() + chunk.len() as u64 > limit_mib * MIB {
        return Err(too_large(limit_mib));
    }
    Ok(writer.write(chunk).await?)
}

async fn read_file_parts(api: &Api, engine: Engine, request: Request, pace: Arc<Pace>) -> ApiResult<Upload> {
    // Before the message is known, the file may be as large as a signed one.
    let limit_mib = engine.signed_mib(api);
    let mut intake = FileIntake { writer: api.service.files.writer().await?, limit_mib };
    let parts = read_parts(api, limit_mib, request, pace, &mut intake).await?;
    let file = if parts.has_file { Some(intake.writer.finish().await?) } else { None };
    Ok(Upload { file, name: parts.name, metadata: parts.metadata })
}

/// Reads a multipart body whose parts come in any order.
pub(super) async fn read_parts(
    api: &Api,
    limit_mib: u64,
    request: Request,
    pace: Arc<Pace>,
    intake: &mut impl Intake,
) -> ApiResult<Parts> {
    check_length(&request, (limit_mib * MIB).saturating_add(OVERHEAD_BYTES))?;
    let broken =
        |error: String| ApiError::new(StatusCode::BAD_REQUEST, format!("the multipart body is broken: {error}"));
    let (head, body) = request.into_parts();
    let body = Paced::new(body, pace);
    let unused = body.unused();
    let request = Request::from_parts(head, Body::from_stream(body));
    let mut parts = Multipart::from_request(request, &()).await.map_err(|error| broken(error.body_text()))?;
    let mut found = Parts::default();
    for _ in 0..MAX_PARTS {
        let stalled = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the upload stood still for 30 seconds");
        let part = tokio::time::timeout(STALL, parts.next_field()).await.map_err(stalled)?;
        let Some(mut part) = part.map_err(|error| broken(body_error(&error)))? else { break };
        unused.used();
        match part.name() {
            Some("file") if !found.has_file => {
                found.has_file = true;
                found.name = part.file_name().map(str::to_owned);
                while let Some(piece) = next_of_part(&mut part, &unused).await? {
                    intake.take(&piece).await?;
                }
            }
            Some("metadata") if found.metadata.is_none() => {
                found.metadata = Some(read_metadata(&read_text(api, part, &unused).await?)?);
            }
            // Parts of other names are ignored, as long as the whole is not longer than a file may be.
            _ => {
                let mut ignored = 0;
                while let Some(chunk) = next_of_part(&mut part, &unused).await? {
                    ignored += chunk.len() as u64;
                    if ignored > limit_mib * MIB {
                        return Err(too_large(limit_mib));
                    }
                }
            }
        }
    }
    Ok(found)
}

/// What went wrong with a body, down to the cause.
fn body_error(error: &MultipartError) -> String {
    let mut sentence = error.body_text();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        sentence = error.to_string();
        cause = error.source();
    }
    sentence
}

async fn next_of_part(part: &mut Field<'_>, unused: &Unused) -> ApiResult<Option<Bytes>> {
    let stalled = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the upload stood still for 30 seconds");
    let chunk = tokio::time::timeout(STALL, part.chunk()).await.map_err(stalled)?;
    unused.used();
    let broken =
        |error| ApiError::new(StatusCode::BAD_REQUEST, format!("the upload broke off: {}", body_error(&error)));
    chunk.map_err(broken)
}

async fn read_text(api: &Api, mut part: Field<'_>, unused: &Unused) -> ApiResult<String> {
    let limit = usize::try_from(api.service.config.limits.body_kib.saturating_mul(1 << 10)).unwrap_or(usize::MAX);
    let mut text = Vec::new();
    while let Some(chunk) = next_of_part(&mut part, unused).await? {
        if text.len() + chunk.len() > limit {
            return Err(ApiError::too_large(format!("metadata: at most {limit} bytes are taken")));
        }
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).map_err(|_| ApiError::field("metadata", "is not UTF-8"))
}

/// Reads the message of an upload: a STORE, inline, rightly signed.
fn read_metadata(text: &str) -> ApiResult<Metadata> {
    let refuse = |error: FormatError| ApiError::format(&error.within("metadata"));
    let mut object = Object::parse(text).map_err(refuse)?;
    let message = object.require("message").map_err(refuse)?;
    let sync = object.optional("sync", Value::boolean).map_err(refuse)?.unwrap_or(false);
    let within = |error: FormatError| refuse(error.within("message"));
    let envelope = message.object().and_then(Envelope::read).map_err(within)?;
    if envelope.kind != "STORE" {
        return Err(within(FormatError::new("type", "a file is kept by a STORE message")));
    }
    let Some(content) = &envelope.item_content else {
        return Err(within(FormatError::new("item_type", "the message of an upload is inline")));
    };
    let content = StoreContent::parse(content).map_err(|error| within(error.within("item_content")))?;
    match signature::verify(&envelope) {
        Ok(()) => {}
        Err(error) if error.code() == ErrorCode::InvalidSignature => {
            let refused = ApiError::new(StatusCode::FORBIDDEN, format!("metadata.message.signature: {error}"));
            return Err(refused.with("error_code", ErrorCode::InvalidSignature.number()));
        }
        Err(error) => return Err(within(FormatError::new("chain", error.to_string()))),
    }
    Ok(Metadata { envelope, text: message.text().to_owned(), content, sync })
}

/// Keeps what was uploaded, and publishes the message that came with it.
async fn store(api: &Api, engine: Engine, upload: Upload) -> ApiResult<Response> {
    let file = upload.file.ok_or_else(no_file)?;
    let size = file.size;
    let mut answer = json!({"status": "success"});
    let (hash, code) = match upload.metadata {
        None => {
            let limit = api.service.config.limits.unsigned_upload_mib;
            if size > limit * MIB {
                return Err(too_large(limit));
            }
            let hash = engine.name_of(&file);
            keep(api, file, &hash).await?;
            (hash, StatusCode::OK)
        }
        Some(metadata) => {
            let hash = metadata.content.item_hash.clone();
            let right = match engine {
                Engine::Storage => hash == file.sha256,
                Engine::Ipfs => hash.engine() == ccn_message::item_hash::Engine::Ipfs && file.is(&hash),
            };
            if !right {
                let computed = engine.name_of(&file);
                let sentence = format!(
                    "File hash does not match ({computed} was computed, the message of item type {} names {hash})",
                    engine.item_type().name()
                );
                return Err(ApiError::field("metadata.message.content.item_hash", sentence));
            }
            check_funds(api, &metadata, size).await?;
            keep(api, file, &hash).await?;
            let code = publish(api, metadata, &hash, &mut answer).await?;
            (hash, code)
        }
    };
    answer["hash"] = hash.to_string().into();
    if engine == Engine::Ipfs {
        answer["name"] = upload.name.unwrap_or_else(|| hash.to_string()).into();
        answer["size"] = size.into();
    }
    Ok((code, Json(answer)).into_response())
}

pub(super) fn no_file() -> ApiError {
    let sentence = "no file: send it as the part `file` of a multipart/form-data body";
    ApiError::new(StatusCode::BAD_REQUEST, sentence)
}

/// Publishes the message that keeps what is here now, and says in the answer what became of it.
pub(super) async fn publish(
    api: &Api,
    metadata: Metadata,
    hash: &ItemHash,
    answer: &mut serde_json::Value,
) -> ApiResult<StatusCode> {
    let taken = submit::take_in(api, metadata.text, metadata.sync).await.map_err(submit::refusal)?;
    if taken.status == MessageStatus::Rejected {
        return Err(refused(&taken, hash));
    }
    answer["message_status"] = taken.status.name().into();
    submit::explain(&taken, answer);
    Ok(taken.code())
}

/// The message was refused: without funds 402, else 422. The file stays for a day, for another try.
fn refused(taken: &Taken, hash: &ItemHash) -> ApiError {
    let (code, errors) = taken
        .rejection
        .as_ref()
        .map_or((ErrorCode::Internal.number(), &[][..]), |rejection| (rejection.code, &rejection.errors));
    let unfunded = [ErrorCode::BalanceInsufficient, ErrorCode::CreditInsufficient];
    let status = if unfunded.iter().any(|each| each.number() == code) {
        StatusCode::PAYMENT_REQUIRED
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    ApiError::new(status, sentence(code, errors))
        .with("status", "error")
        .with("hash", hash.to_string())
        .with("message_status", taken.status.name())
        .with("error_code", code)
        .with("details", details(errors))
}

/// Refuses a large file whose owner cannot pay for it before it takes room; smaller ones are judged with their message.
pub(super) async fn check_funds(api: &Api, metadata: &Metadata, size: u64) -> ApiResult<()> {
    if size <= UNASKED_MIB * MIB {
        return Ok(());
    }
    let content = metadata.envelope.item_content.as_deref().unwrap_or_default();
    // A size in MiB is exact: bytes are divided by a power of two.
    let size_mib = size as f64 / MIB as f64;
    let Some(open) = content.trim_end().strip_suffix('}') else { return Ok(()) };
    let request = PriceRequest {
        kind: metadata.envelope.kind.clone(),
        sender: metadata.envelope.sender.clone(),
        chain: metadata.envelope.chain.name().to_owned(),
        channel: metadata.envelope.channel.clone(),
        time: metadata.envelope.time,
        content: format!("{open},\"estimated_size_mib\":{size_mib}}}"),
    };
    let Some(costs) = api.service.pipeline.price(request).await? else { return Ok(()) };
    let cost: Amount = costs.lines.iter().map(|line| line.amount(costs.payment)).sum();
    let refusal = api.read(move |snapshot| Ok(lacking(snapshot, &costs.address, costs.payment, cost)?)).await?;
    refusal.map_or(Ok(()), Err)
}

/// Why an address cannot pay, if it cannot.
fn lacking(
    snapshot: &Snapshot,
    address: &str,
    payment: PaymentRecord,
    cost: Amount,
) -> Result<Option<ApiError>, crate::store::StoreError> {
    let funds = Funds::of(snapshot, address, payment, now_ms())?;
    let (available, Some(required)) = (funds.available, funds.lack(cost)) else { return Ok(None) };
    let (code, names) = match payment {
        PaymentRecord::Hold | PaymentRecord::Superfluid => {
            (ErrorCode::BalanceInsufficient, ["required_balance", "account_balance"])
        }
        PaymentRecord::Credit => (ErrorCode::CreditInsufficient, ["required_credits", "account_credits"]),
    };
    let errors = json!({"errors": [{names[0]: required.to_string(), names[1]: available.to_string()}]});
    let sentence = format!("the owner has {available} and needs {required}: add funds, or store less");
    let refused = ApiError::new(StatusCode::PAYMENT_REQUIRED, sentence);
    Ok(Some(refused.with("status", "error").with("error_code", code.number()).with("details", errors)))
}

async fn keep(api: &Api, file: NewFile, hash: &ItemHash) -> ApiResult<()> {
    let size = file.size;
    api.service.files.publish(file, hash).await?;
    Ok(api.service.pipeline.add_file(hash.clone(), size, FileKind::File).await?)
}

/// Stores a JSON value as a file: compact, keys in order, numbers and texts as they were written.
async fn add_json(state: State, engine: Engine, request: Request) -> ApiResult<Response> {
    let api = &*state.0;
    let place = api.uploads.take()?;
    let limit = api.service.config.limits.unsigned_upload_mib;
    check_length(&request, limit * MIB)?;
    let mut spool = api.service.files.aside().await?;
    place.receive(spool_body(request.into_body(), limit, place.pace(), &mut spool)).await?;
    // What comes slowly waits on the disk; in memory it is all there at once, so few are at a time.
    let turn = api.long_texts.acquire().await.map_err(ApiError::internal)?;
    let bytes = spool.read(0, usize::try_from(spool.size()).map_err(ApiError::internal)?).await?;
    let text = String::from_utf8(bytes).map_err(|_| ApiError::field("", "the body is not UTF-8"))?;
    let compact = tokio::task::spawn_blocking(move || {
        json::check(&text)?;
        compact(&text)
    });
    let compact = compact.await.map_err(ApiError::internal)?.map_err(|error| ApiError::format(&error))?;
    let mut writer = api.service.files.writer().await?;
    writer.write(compact.as_bytes()).await?;
    drop((compact, turn));
    store(api, engine, Upload { file: Some(writer.finish().await?), ..Upload::default() }).await
}

async fn spool_body(body: Body, limit_mib: u64, pace: Arc<Pace>, spool: &mut Aside) -> ApiResult<()> {
    let mut body = Paced::new(body, pace);
    while let Some(chunk) = next_chunk(&mut body).await? {
        if spool.size() + chunk.len() as u64 > limit_mib * MIB {
            return Err(too_large(limit_mib));
        }
        spool.write(&chunk).await?;
    }
    Ok(())
}

/// A JSON text, already checked, without spaces between its tokens and with its keys in order; of equal keys the last.
fn compact(text: &str) -> Result<String, FormatError> {
    let mut output = String::with_capacity(text.len());
    // An object's member is cut out by the same reader that messages are read with.
    let wrapped = format!("{{\"value\":{text}}}");
    let value =
        Object::parse(&wrapped)?.take_raw("value").ok_or_else(|| FormatError::new("", "a value was expected"))?;
    write_compact(value, 0, &mut output)?;
    Ok(output)
}

fn write_compact(value: Value<'_>, depth: usize, output: &mut String) -> Result<(), FormatError> {
    if depth > MAX_JSON_DEPTH {
        let problem = format!("nested deeper than {MAX_JSON_DEPTH} levels: upload it as a file, with add_file");
        return Err(FormatError::new("", problem));
    }
    if value.is_object() {
        output.push('{');
        for (place, (key, member)) in value.object()?.rest().enumerate() {
            if place > 0 {
                output.push(',');
            }
            output.push_str(&serde_json::Value::from(key).to_string());
            output.push(':');
            write_compact(member, depth + 1, output)?;
        }
        output.push('}');
    } else if value.text().starts_with('[') {
        output.push('[');
        for (place, member) in value.list(usize::MAX)?.into_iter().enumerate() {
            if place > 0 {
                output.push(',');
            }
            write_compact(member, depth + 1, output)?;
        }
        output.push(']');
    } else {
        output.push_str(value.text());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_is_stored_in_one_form() {
        let check = |text: &str, expect: &str| assert_eq!(compact(text).expect("JSON"), expect, "{text}");
        check(
            r#" { "b" : [ 1, 2.50 , 1E3 ], "a" : { "é" : "\u00e9 x" } } "#,
            r#"{"a":{"é":"\u00e9 x"},"b":[1,2.50,1E3]}"#,
        );
        check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#);
        check("12345678901234567890123", "12345678901234567890123");
        check("null", "null");
        check("[]", "[]");
        check("{}", "{}");
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(compact(&deep(MAX_JSON_DEPTH)).is_ok());
        assert!(compact(&deep(MAX_JSON_DEPTH + 2)).is_err());
    }

    proptest! {
        /// The form is of the value: writing it again changes nothing, and it means the same.
        #[test]
        fn the_form_is_final(keys in proptest::collection::vec("[a-c\"é]{0,3}", 0..6), numbers in proptest::collection::vec(any::<i64>(), 0..4)) {
            let value = serde_json::json!({"list": numbers, "nested": keys.iter().map(|key| (key.clone(), serde_json::json!(key))).collect::<serde_json::Map<_, _>>()});
            let once = compact(&serde_json::to_string_pretty(&value).expect("JSON")).expect("JSON");
            prop_assert_eq!(compact(&once).expect("JSON"), once.clone());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&once).expect("JSON"), value);
        }

        #[test]
        fn arbitrary_metadata_does_no_harm(text in ".{0,200}") {
            let _ = read_metadata(&text);
            let _ = read_metadata(&format!(r#"{{"message":{text}}}"#));
            if json::check(&text).is_ok() {
                let _ = compact(&text);
            }
        }
    }
}
