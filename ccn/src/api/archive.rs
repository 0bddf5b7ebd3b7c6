//! Folders come and go as archives of their blocks (CAR): uploaded with the message that keeps them (ccn spec 5.5), and given to whoever asks the way
//! trustless gateways are asked.

use super::{
    Api, ApiError, ApiResult, State,
    download::{CHUNK_BYTES, FOREVER, record},
    parameters::{Parameter, Parameters, Text},
    reference::{Group, Operation, Shape},
    routes::Routes,
    upload::{Intake, check_funds, no_file, publish, read_parts, require_multipart, too_large},
};
use crate::{
    dag::{
        self, Blocks, CarError, DagError, SpoolError,
        car::{CarReader, Item},
        cid::Cid,
        spool::Spool,
    },
    store::record::FileKind,
};
use axum::{
    Json,
    body::Body,
    extract::{Path, Request},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use ccn_message::ItemHash;
use serde_json::json;
use std::io;
use tokio_util::io::ReaderStream;

const MIB: u64 = 1 << 20;
/// What archives are called, and in which order ours are: depth first, no block twice.
const ARCHIVE: &str = "application/vnd.ipld.car";
const OUR_ARCHIVE: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";

/// An archive that is coming in: its blocks are compared with their names and put aside.
struct ArchiveIntake {
    reader: CarReader,
    spool: Spool,
    roots: Option<Vec<cid::Cid>>,
    /// Bytes so far; blocks that come again are not kept, and count.
    received: u64,
    limit_mib: u64,
}

impl ArchiveIntake {
    /// The name of what is in it.
    fn root(&self) -> ApiResult<String> {
        match self.roots.as_deref() {
            Some([root]) => Ok(root.to_string()),
            roots => {
                let count = roots.map_or(0, <[_]>::len);
                Err(ApiError::field("file", format!("an archive with one root is taken, and it has {count}")))
            }
        }
    }
}

impl Intake for ArchiveIntake {
    async fn take(&mut self, piece: &[u8]) -> ApiResult<()> {
        self.received += piece.len() as u64;
        if self.received > self.limit_mib.saturating_mul(MIB) {
            return Err(too_large(self.limit_mib));
        }
        self.reader.push(piece);
        while let Some(item) = self.reader.next().map_err(malformed)? {
            match item {
                Item::Roots(roots) => self.roots = Some(roots),
                Item::Block(cid, block) => self.spool.put(&cid, &block).await.map_err(|error| match error {
                    SpoolError::TooLarge(_) => too_large(self.limit_mib),
                    SpoolError::TooMany => ApiError::field("file", error.to_string()),
                    SpoolError::Disk(error) => error.into(),
                })?,
            }
        }
        Ok(())
    }
}

impl Blocks for ArchiveIntake {
    type Error = Unusable;
    async fn block(&mut self, cid: &Cid) -> Result<Vec<u8>, Unusable> {
        self.spool.get(cid).await?.ok_or_else(|| Unusable::Missing(cid.to_string()))
    }
}

/// Why nothing is made of the blocks.
enum Unusable {
    Missing(String),
    Dag(DagError),
    Disk(io::Error),
}

impl From<DagError> for Unusable {
    fn from(error: DagError) -> Self {
        Self::Dag(error)
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<Unusable> for ApiError {
    fn from(error: Unusable) -> Self {
        match error {
            Unusable::Missing(cid) => Self::field("file", format!("the archive lacks the block {cid}")),
            Unusable::Dag(error) => Self::field("file", error.to_string()),
            Unusable::Disk(error) => error.into(),
        }
    }
}

fn malformed(error: CarError) -> ApiError {
    ApiError::field("file", error.to_string())
}

/// Takes a folder, or a file in blocks, with the message that keeps it.
pub(super) async fn add(state: State, request: Request) -> ApiResult<Response> {
    let api: &Api = &state.0;
    let place = api.uploads.take()?;
    require_multipart(&request)?;
    let limit_mib = api.service.config.limits.car_upload_mib;
    let max_bytes = limit_mib.saturating_mul(MIB);
    let spool = Spool::new(&api.service.files, max_bytes).await?;
    let mut archive = ArchiveIntake { reader: CarReader::default(), spool, roots: None, received: 0, limit_mib };
    let parts = place.receive(read_parts(api, limit_mib, request, place.pace(), &mut archive)).await?;
    if !parts.has_file {
        return Err(no_file());
    }
    archive.reader.finish().map_err(malformed)?;
    let Some(metadata) = parts.metadata else {
        return Err(ApiError::field("metadata", "an archive is only taken with the message that keeps it"));
    };
    let (root, hash) = (archive.root()?, metadata.content.item_hash.clone());
    if root != hash.to_string() {
        // Clients find the two in these parentheses.
        let sentence = format!(
            "Root CID does not match ({root} != {hash}): the archive has the first, the message names the second"
        );
        return Err(ApiError::field("metadata.message.content.item_hash", sentence));
    }
    let followed = dag::assemble(&api.service.files, &hash, &mut archive, max_bytes).await?;
    // What is put together lies beside its blocks; only one of the two is needed from here on.
    drop(archive);
    let (kind, size) = (followed.kind, followed.size);
    check_funds(api, &metadata, size).await?;
    followed.publish(&api.service.files).await?;
    api.service.pipeline.add_file(hash.clone(), size, kind).await?;
    let mut answer = json!({"status": "success", "hash": hash.to_string(), "size": size});
    let code = publish(api, metadata, &hash, &mut answer).await?;
    Ok((code, Json(answer)).into_response())
}

/// The form in which something of IPFS is asked for.
static FORMAT: Parameter<Text> =
    Parameter::text(&["format"], "`car`; needed unless the header `Accept` asks for archives.");

pub(super) fn routes(routes: Routes) -> Routes {
    let operation = Operation::new(Group::Files, "A folder, as the archive of its blocks")
        .path("cid", "The folder.", &Shape::hash())
        .query([&FORMAT])
        .answers_with(200, "The archive.", OUR_ARCHIVE, &Shape::text())
        .refuses(404, "It is not here, or is a file.")
        .refuses(406, "Nothing but archives is given here.");
    routes.get("/ipfs/{cid}", get, operation)
}

/// Gives a folder as the archive of its blocks, `?format=car`. Files have no blocks here: they are given as they are, under `/api/v0/storage/raw`.
async fn get(
    state: State,
    method: Method,
    Path(cid): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let hash = ItemHash::parse(&cid)?;
    let accepts =
        || headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|text| text.contains(ARCHIVE));
    if FORMAT.read(&parameters)?.map_or_else(|| !accepts(), |format| format != "car") {
        let sentence = "only archives of folders are given here: ask with ?format=car";
        return Err(ApiError::new(StatusCode::NOT_ACCEPTABLE, sentence));
    }
    let found = record(&state, &hash).await?;
    if found.kind == FileKind::File {
        let sentence = format!("{hash} is a file, not a folder: it is at /api/v0/storage/raw/{hash}");
        return Err(ApiError::not_found(sentence));
    }
    let Some(file) = state.service.files.open_archive(&hash).await? else {
        return Err(ApiError::internal(format!("folder {hash} is recorded and is not in the folder of files")));
    };
    let mut answer = HeaderMap::new();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(OUR_ARCHIVE));
    answer.insert(CONTENT_LENGTH, HeaderValue::from(file.size()));
    answer.insert(CACHE_CONTROL, HeaderValue::from_static(FOREVER));
    answer.insert(ETAG, HeaderValue::from_str(&format!("\"{hash}.car\"")).map_err(ApiError::internal)?);
    answer.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if method == Method::HEAD {
        return Ok((answer, Body::empty()).into_response());
    }
    Ok((answer, Body::from_stream(ReaderStream::with_capacity(file.read_all().await?, CHUNK_BYTES))).into_response())
}
