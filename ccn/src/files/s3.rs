//! A bucket as the settings name it: whether it can be used is found out before anything rests on it.
//!
//! A bucket, or the part of it under a prefix, belongs to one node: what one removes, another one would miss. An object `node` says whose it is, by a
//! name that the node's folder of files holds.

use super::{
    bucket::{self, Bucket},
    complaint::Complaint,
    connector::Connector,
    leaving::Leaving,
};
use crate::config::S3;
use object_store::{
    BackoffConfig, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
    aws::AmazonS3Builder, path::Path as ObjectPath,
};
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The object that says whose the bucket is.
const MARKER: &str = "node";
/// The file that says by what name this node has it; there once files are in a bucket.
const NAME: &str = "bucket";
/// The folder of what is to be deleted.
const LEAVING: &str = "leaving";
/// Random bytes of such a name, and of that of the object that is put for a trial.
const NAME_BYTES: usize = 16;
/// Longest marker that is read, bytes.
const MAX_MARKER_BYTES: u64 = 1024;
/// Attempts at a request after the first one.
const RETRIES: usize = 3;
/// After that no further attempt is made.
const RETRY_FOR: Duration = Duration::from_secs(20);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Why the files cannot be used as the settings say. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The folder cannot be used.
    #[error("{0}")]
    Folder(io::Error),
    /// The settings do not make sense to the client.
    #[error("files.s3: {0}")]
    Settings(String),
    /// TLS cannot be set up.
    #[error("cannot make an HTTP client for files.s3: {0}")]
    Client(#[from] reqwest::Error),
    /// The bucket does not do what it has to.
    #[error("{0}")]
    Trial(String),
    /// Another node's files are there.
    #[error(
        "files.s3: {place} holds the files of another node, and each would delete what the other one keeps: choose another \
         files.s3.prefix or bucket; if they are this node's and its folder {folder} was lost, delete the object {marker} and start again"
    )]
    Taken {
        /// Bucket and prefix.
        place: String,
        /// Where this node would have its name for it.
        folder: PathBuf,
        /// The path of the marker.
        marker: String,
    },
    /// The files are still on this machine.
    #[error(
        "{folder} still holds files, and files.s3 says that they are in {place}: copy them, for example with \
         `aws s3 sync {folder} s3://{place} --exclude 'partial/*'`, then move {example} and its like away, and start again"
    )]
    NotMoved {
        /// Where they are.
        folder: PathBuf,
        /// Bucket and prefix.
        place: String,
        /// One of the folders of files.
        example: String,
    },
    /// The files are in a bucket, and none is named.
    #[error(
        "the files of this node are in an object store: name it under files.s3 again; if they were copied back to {folder}, delete {name} and start again"
    )]
    Forgotten {
        /// Where files of this machine are.
        folder: PathBuf,
        /// What says that they are in a bucket.
        name: PathBuf,
    },
}

/// Without a bucket in the settings: refuses a folder whose files are in one.
pub(super) fn refuse_forgotten(root: &Path) -> Result<(), S3Error> {
    let name = root.join(NAME);
    if name.try_exists().map_err(S3Error::Folder)? {
        return Err(S3Error::Forgotten { folder: root.to_owned(), name });
    }
    Ok(())
}

/// Opens the bucket of the settings, and finds out whether it can be used.
pub(super) async fn open(root: &Path, settings: &S3) -> Result<Bucket, S3Error> {
    let connector = Connector::new(settings.endpoint.as_deref().is_some_and(|url| url.starts_with("http://")))?;
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: MAX_PAUSE, ..BackoffConfig::default() },
        max_retries: RETRIES,
        retry_timeout: RETRY_FOR,
    };
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(&settings.access_key_id)
        .with_secret_access_key(settings.secret_access_key.reveal())
        // The settings were held to HTTPS where that is called for.
        .with_allow_http(true)
        // One deletion a request: that is what every such store knows.
        .with_disable_bulk_delete(true)
        .with_retry(retry)
        .with_http_connector(connector);
    let builder = match &settings.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    let store = builder.build().map_err(|error| S3Error::Settings(Complaint::of(&error).sentence))?;
    open_on(Arc::new(store), root, settings).await
}

/// Opens a bucket on that store.
pub(super) async fn open_on(store: Arc<dyn ObjectStore>, root: &Path, settings: &S3) -> Result<Bucket, S3Error> {
    refuse_local_files(root, settings)?;
    try_out(&*store, settings).await?;
    claim(&*store, root, settings).await?;
    let leaving = Leaving::open(&root.join(LEAVING)).map_err(S3Error::Folder)?;
    Ok(Bucket::new(store, &settings.prefix, bucket::path(&settings.prefix, MARKER), leaving))
}

/// Files that were not moved would be missed one by one.
fn refuse_local_files(root: &Path, settings: &S3) -> Result<(), S3Error> {
    for entry in fs::read_dir(root).map_err(S3Error::Folder)? {
        let entry = entry.map_err(S3Error::Folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A folder of files is named like the last two letters of theirs.
        let is_of_files = name.len() == 2 && entry.path().is_dir();
        if is_of_files && fs::read_dir(entry.path()).map_err(S3Error::Folder)?.next().is_some() {
            return Err(S3Error::NotMoved { folder: root.to_owned(), place: settings.place(), example: name });
        }
    }
    Ok(())
}

/// Puts an object, gets it and deletes it.
async fn try_out(store: &dyn ObjectStore, settings: &S3) -> Result<(), S3Error> {
    let content = random_name().map_err(S3Error::Folder)?;
    let path = bucket::path(&settings.prefix, &format!("trial-{content}"));
    let failed = |doing: &'static str| move |error: Error| S3Error::Trial(advice(&error, doing, settings));
    store.put(&path, PutPayload::from(content.clone().into_bytes())).await.map_err(failed("put objects into"))?;
    let found = read_marker(store, &path).await.map_err(failed("get objects from"))?;
    store.delete(&path).await.map_err(failed("delete objects from"))?;
    if found.as_deref() != Some(content.as_str()) {
        let sentence = "an object that was put there came back otherwise: it is not usable for files";
        return Err(S3Error::Trial(format!("files.s3: {}: {sentence}", settings.place())));
    }
    // Without the right to list, what is not there is refused instead.
    match store.head(&path).await {
        Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(failed("learn what is not in")(error)),
        Ok(_) => {
            let sentence = "an object is still there after it was deleted: switch off object locks on the bucket";
            Err(S3Error::Trial(format!("files.s3: {}: {sentence}", settings.place())))
        }
    }
}

/// Takes the bucket for this node, or finds that it has it.
async fn claim(store: &dyn ObjectStore, root: &Path, settings: &S3) -> Result<(), S3Error> {
    let name = own_name(root).map_err(S3Error::Folder)?;
    let path = bucket::path(&settings.prefix, MARKER);
    let failed = |error: Error| S3Error::Trial(advice(&error, "put objects into", settings));
    let mut found = read_marker(store, &path).await.map_err(failed)?;
    if found.is_none() {
        let create = PutOptions::from(PutMode::Create);
        match store.put_opts(&path, PutPayload::from(name.clone().into_bytes()), create).await {
            Ok(_) => {}
            // Another node was faster, or the request is one that the store does not know.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                store.put(&path, PutPayload::from(name.clone().into_bytes())).await.map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        found = read_marker(store, &path).await.map_err(failed)?;
    }
    match found {
        Some(found) if found.trim() == name => Ok(()),
        _ => Err(S3Error::Taken {
            place: settings.place(),
            folder: root.to_owned(),
            marker: format!("s3://{}/{path}", settings.bucket),
        }),
    }
}

/// A short text in the bucket; of a longer one its beginning is none. None if there is no such object.
async fn read_marker(store: &dyn ObjectStore, path: &ObjectPath) -> object_store::Result<Option<String>> {
    match store.get(path).await {
        Ok(found) if found.meta.size > MAX_MARKER_BYTES => Ok(Some(String::new())),
        Ok(found) => Ok(Some(String::from_utf8_lossy(&found.bytes().await?).into_owned())),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// By what name this node has its bucket; made when it has one for the first time.
fn own_name(root: &Path) -> io::Result<String> {
    let path = root.join(NAME);
    match fs::read_to_string(&path) {
        Ok(name) if name.trim().len() == 2 * NAME_BYTES => return Ok(name.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // None, or what a power cut left of one.
        Ok(_) | Err(_) => {}
    }
    let name = random_name()?;
    let mut file = fs::File::create(&path)?;
    file.write_all(name.as_bytes())?;
    file.sync_all()?;
    fs::File::open(root)?.sync_all()?;
    Ok(name)
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; NAME_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// What to do about it that the bucket does not let the node do something.
fn advice(error: &Error, doing: &str, settings: &S3) -> String {
    let S3 { bucket, region, access_key_id, .. } = settings;
    let endpoint = settings.endpoint.clone().unwrap_or_else(|| format!("the S3 of the region {region}"));
    let complaint = Complaint::of(error);
    let said = &complaint.sentence;
    match complaint.code.as_deref() {
        Some("NoSuchBucket") => {
            format!("files.s3.bucket: there is no bucket {bucket} at {endpoint}: make it, or correct the name")
        }
        Some("InvalidAccessKeyId") => {
            format!(
                "files.s3.access_key_id: {endpoint} does not know the key {access_key_id}: correct it, or make it there"
            )
        }
        Some("SignatureDoesNotMatch") => format!(
            "files.s3.secret_access_key: {endpoint} has no key {access_key_id} with this secret, or its region is not {region}: correct \
             access_key_id, secret_access_key or region"
        ),
        Some("AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "PermanentRedirect") => {
            format!("files.s3.region: the bucket {bucket} is not in the region {region} ({said}): correct it")
        }
        Some("RequestTimeTooSkewed") => {
            format!("files.s3: the clock of this machine differs too much from that of {endpoint}: set it")
        }
        _ if matches!(complaint.status, Some(401 | 403)) || matches!(error, Error::PermissionDenied { .. }) => format!(
            "files.s3: the key {access_key_id} may not {doing} {bucket} ({said}): allow it s3:PutObject, s3:GetObject, s3:DeleteObject and \
             s3:AbortMultipartUpload on its objects and s3:ListBucket on the bucket; without the last one, what is not there is refused"
        ),
        _ if complaint.status.is_none() && complaint.is_outage => {
            format!(
                "files.s3.endpoint: {endpoint} is not reached ({said}): correct it, or start the object store first"
            )
        }
        _ if matches!(error, Error::NotFound { .. }) => {
            format!("files.s3: {endpoint} knows no bucket {bucket} ({said}): correct endpoint and bucket")
        }
        _ => format!("files.s3: cannot {doing} the bucket {bucket} at {endpoint}: {said}"),
    }
}
