//! A file from a core channel node to disk: resumed after interruptions, verified as it comes.

use super::{CacheError, Folder, READ_BYTES, blocking};
use crate::{
    ccn::{CcnError, causes},
    digest::Digest,
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use ccn_message::ItemHash;
use futures_util::StreamExt as _;
use http::{StatusCode, header::CONTENT_RANGE};
use reqwest::Response;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, time::timeout};

/// Failures in a row, none of them after at least one new byte, that end a download.
const MAX_FRUITLESS_ATTEMPTS: usize = 5;

/// Room that is kept ahead of a download whose length was not announced, bytes.
const STEP_BYTES: u64 = 64 * 1024 * 1024;

/// The beginning of a file on disk and its running hash, always of the same length.
struct Part {
    file: tokio::fs::File,
    digest: Digest,
    length_bytes: u64,
    /// Whether bytes of an earlier process are in it.
    inherited: bool,
}

/// How one attempt ended.
enum Attempt {
    /// The node sent all of it.
    Complete,
    /// Something was cut off; another attempt can go on from here.
    Cut(String),
    /// What is on disk is not the beginning of what the node has.
    Restart,
}

impl Folder {
    /// Fetches a file into its place.
    pub(super) async fn download(self: &Arc<Self>, hash: &ItemHash) -> Result<(), CacheError> {
        let mut part = self.clone().open_part(hash.clone()).await?;
        let pauses = || {
            ExponentialBuilder::new()
                .with_jitter()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(5))
                .with_max_times(MAX_FRUITLESS_ATTEMPTS - 1)
                .build()
        };
        let mut pause = pauses();
        loop {
            let before = part.length_bytes;
            let reason = match self.attempt(hash, &mut part).await? {
                Attempt::Complete => {
                    if self.settle(hash, part).await? {
                        return Ok(());
                    }
                    part = self.clone().open_part(hash.clone()).await?;
                    continue;
                }
                Attempt::Restart => {
                    part = self.discard(hash).await?;
                    "the node went on from another byte than the one asked for".to_owned()
                }
                Attempt::Cut(reason) => reason,
            };
            if part.length_bytes > before {
                pause = pauses();
            }
            tracing::debug!(%hash, at_bytes = part.length_bytes, reason, "a download was cut off");
            let Some(pause) = pause.next() else {
                return Err(CacheError::Interrupted { hash: hash.clone(), at_bytes: part.length_bytes, reason });
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks for what is missing and writes what comes.
    async fn attempt(self: &Arc<Self>, hash: &ItemHash, part: &mut Part) -> Result<Attempt, CacheError> {
        let answer = match self.client.open_file(hash, part.length_bytes).await {
            Ok(answer) => answer,
            // All of it is here already, or more than there is.
            Err(CcnError::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) => return Ok(Attempt::Complete),
            Err(error) if error.is_transient() => return Ok(Attempt::Cut(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let starts_at = match answer.status() {
            StatusCode::PARTIAL_CONTENT => range_start(&answer),
            _ => Some(0),
        };
        if starts_at != Some(part.length_bytes) {
            if answer.status() == StatusCode::PARTIAL_CONTENT {
                return Ok(Attempt::Restart);
            }
            // The node does not resume: its answer is the file from the first byte on.
            *part = self.discard(hash).await?;
        }
        let announced = answer.content_length().map(|length| part.length_bytes.saturating_add(length));
        let mut reserved = announced.unwrap_or(part.length_bytes.saturating_add(STEP_BYTES));
        self.reserve(hash, reserved)?;
        let mut chunks = answer.bytes_stream();
        loop {
            let chunk = match timeout(self.stall, chunks.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Ok(Attempt::Cut(causes(&error))),
                Ok(None) => break,
                Err(_) => return Ok(Attempt::Cut(format!("nothing came for {:?}", self.stall))),
            };
            let length_bytes = part.length_bytes + chunk.len() as u64;
            if length_bytes > reserved {
                reserved = length_bytes.saturating_add(STEP_BYTES);
                self.reserve(hash, reserved)?;
            }
            part.file.write_all(&chunk).await.map_err(|error| self.disk(&self.part(hash), error))?;
            part.digest.update(&chunk);
            part.length_bytes = length_bytes;
        }
        match announced {
            Some(announced) if part.length_bytes < announced => Ok(Attempt::Cut("the answer was short".to_owned())),
            _ => Ok(Attempt::Complete),
        }
    }

    /// Puts a complete file in its place. False when the bytes were wrong and may come right when fetched
    /// anew, because a beginning of unknown age was among them.
    async fn settle(self: &Arc<Self>, hash: &ItemHash, mut part: Part) -> Result<bool, CacheError> {
        let failed = |error| self.disk(&self.part(hash), error);
        part.file.flush().await.map_err(failed)?;
        if part.digest.matches() {
            // The rename must not survive a power cut that the bytes do not.
            part.file.sync_all().await.map_err(failed)?;
            fs::rename(self.part(hash), self.file(hash)).map_err(failed)?;
            self.trust(hash, &part.file.into_std().await)?;
            return Ok(true);
        }
        fs::remove_file(self.part(hash)).map_err(failed)?;
        if part.inherited {
            return Ok(false);
        }
        Err(CcnError::Mismatch { base: self.client.base().to_owned(), hash: hash.clone() }.into())
    }

    async fn discard(self: &Arc<Self>, hash: &ItemHash) -> Result<Part, CacheError> {
        fs::remove_file(self.part(hash)).map_err(|error| self.disk(&self.part(hash), error))?;
        self.clone().open_part(hash.clone()).await
    }

    /// Opens the beginning of a file, empty if there is none, and hashes what is there.
    async fn open_part(self: Arc<Self>, hash: ItemHash) -> Result<Part, CacheError> {
        blocking(move || {
            let mut digest = Digest::of(&hash)?;
            let path: PathBuf = self.part(&hash);
            let (file, length_bytes) = open_and_hash(&path, &mut digest).map_err(|error| self.disk(&path, error))?;
            Ok(Part { file: tokio::fs::File::from_std(file), digest, length_bytes, inherited: length_bytes > 0 })
        })
        .await
    }
}

fn open_and_hash(path: &PathBuf, digest: &mut Digest) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut length_bytes = 0;
    let mut piece = vec![0; READ_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((file, length_bytes)),
            length => {
                digest.update(&piece[..length]);
                length_bytes += length as u64;
            }
        }
    }
}

/// The first byte of a partial answer: `Content-Range: bytes FIRST-LAST/LENGTH`.
fn range_start(answer: &Response) -> Option<u64> {
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}
