//! A folder goes out as an archive of its files (ccn spec 5.5), made of the archive of its blocks while it is sent.

use super::{Api, ApiError, ApiResult, download::FOREVER};
use crate::{
    dag::{
        archived::Archived,
        cid::Cid,
        tar::{self, Tar, TarError},
    },
    store::record::FileKind,
};
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse as _, Response},
};
use ccn_message::ItemHash;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{io, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The form of archives of files.
pub(super) const TAR: &str = "application/x-tar";
/// Folders that are sent at once; where the blocks of each are takes up to some 30 MB.
const PLACES: usize = 8;
/// Largest folder, with everything as often as it is linked, bytes: one of a few blocks may link itself to any size.
const MAX_BYTES: u64 = 64 << 30;

/// Who may send folders.
#[derive(Debug, Clone)]
pub(super) struct Folders(Arc<Semaphore>);

impl Default for Folders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

/// A folder that is being sent.
struct Sending {
    tar: Tar,
    blocks: Archived,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// Answers with a folder whose size, everything as often as it is linked, is that.
pub(super) async fn send(api: &Api, hash: &ItemHash, size: u64) -> ApiResult<Response> {
    let of_blocks = format!("its blocks are at /ipfs/{hash}?format=car");
    if size > MAX_BYTES {
        return Err(ApiError::too_large(format!("the folder has {size} bytes, more than {MAX_BYTES}; {of_blocks}")));
    }
    let place = api.folders.0.clone().try_acquire_owned();
    let place = place
        .map_err(|_| ApiError::overloaded(format!("{PLACES} folders are being sent; try again, or {of_blocks}")))?;
    let Some((file, _)) = api.service.files.open_on_disk(hash, FileKind::Directory).await? else {
        return Err(ApiError::internal(format!("folder {hash} is recorded and is not in the folder of files")));
    };
    // All of it is looked at before the first byte is sent: an error could not be told afterwards.
    let looked_at = tokio::task::spawn_blocking(move || Archived::open(file, tar::check)).await;
    let blocks = match looked_at.map_err(ApiError::internal)? {
        Ok(blocks) => blocks,
        Err(TarError::Header(error)) => return Err(error.into()),
        Err(error) => {
            let sentence = format!("this folder cannot be sent as an archive of files: {error}; {of_blocks}");
            return Err(ApiError::new(StatusCode::NOT_ACCEPTABLE, sentence));
        }
    };
    let root = Cid::try_from(hash).map_err(ApiError::internal)?;
    let sending = Sending { tar: Tar::new(root), blocks, is_over: false, _place: place };
    let pieces = stream::try_unfold(sending, |mut sending| async move {
        let pieces = next(&mut sending).await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(pieces.map(|pieces| (stream::iter(pieces).map(Ok::<_, io::Error>), sending)))
    });
    let mut answer = HeaderMap::new();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static(TAR));
    answer.insert(CACHE_CONTROL, HeaderValue::from_static(FOREVER));
    answer.insert(ETAG, HeaderValue::from_str(&format!("\"{hash}.tar\"")).map_err(ApiError::internal)?);
    answer.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    answer.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok((answer, Body::from_stream(pieces.try_flatten())).into_response())
}

/// What comes next in the archive; None after its end.
async fn next(sending: &mut Sending) -> Result<Option<Vec<bytes::Bytes>>, TarError> {
    if sending.is_over {
        return Ok(None);
    }
    let Some(cid) = sending.tar.wanted()?.cloned() else {
        sending.is_over = true;
        return sending.tar.end().map(|end| Some(vec![end]));
    };
    let block = sending.blocks.block(&cid).await?;
    sending.tar.take(&block).map(Some)
}
