//! Files go out: as they are, in pieces, or as base64 for other nodes (ccn spec 5.5).

use super::{
    ApiError, ApiResult, State, folder,
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::{
    files::{OpenFile, Reading},
    store::{
        Reader as _,
        record::{FileKind, FileRecord},
    },
};
use axum::http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
        RANGE, X_CONTENT_TYPE_OPTIONS,
    },
};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::Path,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ccn_message::{ItemHash, item_hash::Engine};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

/// Bytes read at a time.
pub(super) const CHUNK_BYTES: usize = 128 << 10;
/// Largest file that is given as base64.
const MAX_BASE64_BYTES: u64 = 100 << 20;
/// Bytes that make a line of base64, 76 characters.
const LINE_BYTES: usize = 57;
/// What a hash names never changes.
pub(super) const FOREVER: &str = "public, max-age=31536000, immutable";

/// The form of files: what they are is not known.
pub(super) const BYTES: &str = "application/octet-stream";

pub(super) fn routes(routes: Routes) -> Routes {
    let operation = |summary| {
        let operation = Operation::new(Group::Files, summary).hash("The file.");
        operation.refuses(404, "No message and no upload brought it here.")
    };
    let content = Shape::object([
        ("status", Shape::words(&["success"])),
        ("hash", Shape::hash()),
        ("engine", Shape::words(&["storage", "ipfs"])),
        ("content", Shape::text().about("Base64, in lines.")),
    ]);
    let known = Shape::object([
        ("file_hash", Shape::hash()),
        ("type", Shape::words(&["file", "directory"])),
        ("size", Shape::whole().about("Bytes.")),
        ("download_url", Shape::text()),
    ]);
    let bytes = || Shape::whole().about("Bytes.");
    let bounds = Shape::object([
        ("storage", Shape::object([("max_file_size", bytes()), ("max_unauthenticated_upload_file_size", bytes())])),
        (
            "ipfs",
            Shape::object([
                ("max_upload_file_size", bytes()),
                ("max_upload_car_size", bytes()),
                ("max_unauthenticated_upload_file_size", bytes()),
            ]),
        ),
    ]);
    let of_raw = operation("A file, or a folder")
        .about("A folder is sent as an archive of its files, without ranges; everything lies in a folder that is called as the hash is.")
        .header("Range", "Some of its bytes, as `bytes=FIRST-LAST`.")
        .answers_with(200, "Its bytes, or those of the archive.", BYTES, &Shape::text())
        .or_in(200, folder::TAR, &Shape::text())
        .answers_with(206, "Some of its bytes.", BYTES, &Shape::text())
        .answers_empty(304, "The client has it.")
        .refuses(406, "The folder has a name that no file can have.")
        .refuses(413, "The folder is too large for this form.")
        .refuses(416, "None of its bytes are in this range.");
    let of_base64 =
        operation("A file inside JSON").answers("The file.", &content).refuses(413, "It is too large for this form.");
    let of_metadata = operation("What is known of a file").answers("Its size and kind.", &known);
    let of_count = operation("How many messages keep a file").answers("Their number.", &Shape::whole());
    let of_limits = Operation::new(Group::Files, "How large files may be").answers("Bounds.", &bounds);
    routes
        .get("/api/v0/storage/limits.json", limits, of_limits)
        .get("/api/v0/storage/raw/{hash}", raw, of_raw)
        .get("/api/v0/storage/metadata/{hash}", metadata, of_metadata)
        .get("/api/v0/storage/count/{hash}", count, of_count)
        .get("/api/v0/storage/{hash}", base64, of_base64)
}

/// A file that is here.
struct Found {
    hash: ItemHash,
    file: OpenFile,
}

pub(super) async fn record(state: &State, hash: &ItemHash) -> ApiResult<FileRecord> {
    let hash = hash.clone();
    let missing = || ApiError::not_found(format!("File not found: no message and no upload brought {hash} here"));
    let wanted = hash.clone();
    state.read(move |snapshot| Ok(snapshot.file(&wanted)?)).await?.ok_or_else(missing)
}

async fn find(state: &State, hash: ItemHash) -> ApiResult<Found> {
    match state.service.files.open(&hash).await? {
        Some(file) => Ok(Found { hash, file }),
        None => Err(ApiError::internal(format!("file {hash} is recorded and is not in the folder of files"))),
    }
}

/// Which bytes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// From the first up to and with the last.
    Bytes {
        first: u64,
        last: u64,
    },
    Unsatisfiable,
}

impl Part {
    /// Reads a range. One that is not understood, or several at once, ask for the whole.
    fn read(range: &str, size: u64) -> Self {
        let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
            return Self::Whole;
        };
        let number = |text: &str| if text.is_empty() { Some(None) } else { digits(text).map(Some) };
        match (number(first), number(last)) {
            (Some(Some(first)), Some(last)) if last.is_none_or(|last| first <= last) => {
                if first >= size {
                    return Self::Unsatisfiable;
                }
                Self::Bytes { first, last: last.unwrap_or(u64::MAX).min(size - 1) }
            }
            (Some(None), Some(Some(0))) => Self::Unsatisfiable,
            (Some(None), Some(Some(_))) if size == 0 => Self::Unsatisfiable,
            (Some(None), Some(Some(length))) => Self::Bytes { first: size.saturating_sub(length), last: size - 1 },
            _ => Self::Whole,
        }
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The bytes. Ranges make downloads resumable; the hash is the tag.
async fn raw(state: State, method: Method, Path(hash): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    let record = record(&state, &hash).await?;
    if record.kind == FileKind::Directory {
        return folder::send(&state, &hash, record.size).await;
    }
    let Found { hash, file } = find(&state, hash).await?;
    let size = file.size();
    let tag = format!("\"{hash}\"");
    let text = |name| headers.get(&name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut answer = HeaderMap::new();
    answer.insert(CACHE_CONTROL, HeaderValue::from_static(FOREVER));
    answer.insert(ETAG, HeaderValue::from_str(&tag).map_err(ApiError::internal)?);
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if text(IF_NONE_MATCH).is_some_and(|tags| tags == "*" || tags.contains(&tag)) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(BYTES));
    // Strangers wrote it: no browser is to take it for a page.
    answer.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let same = text(IF_RANGE).is_none_or(|condition| condition == tag);
    let part = text(RANGE).filter(|_| same).map_or(Part::Whole, |range| Part::read(range, size));
    let (status, first, length) = match part {
        Part::Whole => (StatusCode::OK, 0, size),
        Part::Bytes { first, last } => {
            answer.insert(CONTENT_RANGE, content_range(&format!("{first}-{last}"), size)?);
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Part::Unsatisfiable => {
            let sentence = format!("the file has {size} bytes, none of which is in this range");
            let mut refused = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, sentence).into_response();
            refused.headers_mut().insert(CONTENT_RANGE, content_range("*", size)?);
            return Ok(refused);
        }
    };
    answer.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if method == Method::HEAD {
        return Ok((status, answer, Body::empty()).into_response());
    }
    let body = Body::from_stream(ReaderStream::with_capacity(file.read(first, length).await?, CHUNK_BYTES));
    Ok((status, answer, body).into_response())
}

fn content_range(range: &str, size: u64) -> ApiResult<HeaderValue> {
    HeaderValue::from_str(&format!("bytes {range}/{size}")).map_err(ApiError::internal)
}

/// A file inside JSON, which is how other nodes of the network fetch it. Written as it is read.
async fn base64(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    if record(&state, &hash).await?.kind == FileKind::Directory {
        let sentence = format!("{hash} is a folder: its files are at /api/v0/storage/raw/{hash}");
        return Err(ApiError::not_found(sentence));
    }
    let Found { hash, file } = find(&state, hash).await?;
    let size = file.size();
    if size > MAX_BASE64_BYTES {
        let sentence = format!("the file has {size} bytes; fetch it from /api/v0/storage/raw/{hash}");
        return Err(ApiError::too_large(sentence));
    }
    let engine = match hash.engine() {
        Engine::Storage => "storage",
        Engine::Ipfs => "ipfs",
    };
    let head = format!(r#"{{"status":"success","hash":"{hash}","engine":"{engine}","content":""#);
    let lines = stream::unfold(Some(file.read_all().await?), |file| async {
        let mut file = file?;
        match read_lines(&mut file).await {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some((Ok(base64_lines(&chunk)), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    });
    let whole = |text: String| stream::once(async { Ok(Bytes::from(text)) });
    let body = whole(head).chain(lines).chain(whole("\"}".to_owned()));
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
}

/// As many whole lines as fit into a chunk; fewer bytes only at the end.
async fn read_lines(file: &mut Reading) -> std::io::Result<Vec<u8>> {
    let wanted = CHUNK_BYTES - CHUNK_BYTES % LINE_BYTES;
    let mut chunk = Vec::with_capacity(wanted);
    let mut part = file.take(wanted as u64);
    part.read_to_end(&mut chunk).await?;
    Ok(chunk)
}

/// Base64 with the end of a line after every 76 characters, as text inside JSON.
fn base64_lines(bytes: &[u8]) -> Bytes {
    let mut text = String::with_capacity(bytes.len() * 3 / 2);
    for line in bytes.chunks(LINE_BYTES) {
        STANDARD.encode_string(line, &mut text);
        text.push_str("\\n");
    }
    text.into()
}

async fn metadata(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    let record = record(&state, &hash).await?;
    Ok(Json(json!({
        "file_hash": hash.to_string(),
        "type": kind_name(record.kind),
        "size": record.size,
        "download_url": format!("/api/v0/storage/raw/{hash}"),
    }))
    .into_response())
}

/// The network's word.
pub(super) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
    }
}

/// How many messages keep a file.
async fn count(state: State, Path(hash): Path<String>) -> ApiResult<Response> {
    let hash = ItemHash::parse(&hash)?;
    Ok(Json(record(&state, &hash).await?.pins).into_response())
}

/// How large files may be.
async fn limits(state: State) -> Response {
    let limits = &state.service.config.limits;
    let bytes = |mib: u64| mib.saturating_mul(1 << 20);
    Json(json!({
        "storage": {
            "max_file_size": bytes(limits.storage_upload_mib),
            "max_unauthenticated_upload_file_size": bytes(limits.unsigned_upload_mib),
        },
        "ipfs": {
            "max_upload_file_size": bytes(limits.ipfs_upload_mib),
            "max_upload_car_size": bytes(limits.car_upload_mib),
            "max_unauthenticated_upload_file_size": bytes(limits.unsigned_upload_mib),
        },
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_or_ignored() {
        let check = |range: &str, expect: Part| assert_eq!(Part::read(range, 100), expect, "{range}");
        let bytes = |first, last| Part::Bytes { first, last };
        check("bytes=0-0", bytes(0, 0));
        check("bytes=10-", bytes(10, 99));
        check("bytes=10-19", bytes(10, 19));
        check("bytes=10-1000", bytes(10, 99));
        check("bytes=-30", bytes(70, 99));
        check("bytes=-1000", bytes(0, 99));
        check("bytes=100-", Part::Unsatisfiable);
        check("bytes=-0", Part::Unsatisfiable);
        for ignored in ["bytes=5-4", "bytes=-", "bytes=a-b", "bytes=0-1,5-6", "lines=0-1", "bytes=+1-2", "", "bytes="] {
            check(ignored, Part::Whole);
        }
        assert_eq!(Part::read("bytes=0-", 0), Part::Unsatisfiable);
        assert_eq!(Part::read("bytes=-5", 0), Part::Unsatisfiable);
    }

    #[test]
    fn lines_of_base64_have_76_characters() {
        let text = String::from_utf8(base64_lines(&[7; 100]).to_vec()).expect("text");
        let lines: Vec<&str> = text.split("\\n").collect();
        assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>(), [76, 60, 0]);
    }

    proptest! {
        /// Whatever range is asked for, it is inside the file.
        #[test]
        fn ranges_stay_inside(range in "bytes=[0-9]{0,22}-[0-9]{0,22}", size in 0_u64..1000) {
            if let Part::Bytes { first, last } = Part::read(&range, size) {
                prop_assert!(first <= last && last < size);
            }
        }
    }
}
