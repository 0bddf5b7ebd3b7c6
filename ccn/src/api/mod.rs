//! The HTTP interface: routes, and what they share.
//!
//! Each module adds its routes to one table ([`routes`]), together with what they do. The table is what is served, and what the reference is made from
//! (`/docs`, [`reference`]).
//!
//! Handlers are thin. What is known is read from a snapshot, on a thread that may block; what changes goes through the pipeline; what a message type
//! answers by itself is asked of its plugin, for every path that no route here has. A browser may call everything from anywhere (CORS `*`): there are
//! no cookies and no sessions that it could misuse.

mod about;
mod addresses;
mod answers;
mod archive;
mod authorizations;
mod balances;
mod chains;
mod costs;
mod credits;
mod crns;
mod digest;
mod download;
mod element;
mod ended;
mod error;
mod folder;
mod hashes;
mod linger;
mod live;
mod messages;
mod metrics;
mod moment;
mod names;
mod paced;
mod paging;
mod parameters;
mod pins;
mod places;
mod plain;
mod plugins;
mod price;
mod reference;
mod routes;
mod schedule;
mod single;
mod stats;
mod submit;
mod upload;
mod uploads;

use crate::{node::Service, store::Snapshot};
use axum::http::{Method, header};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
};
use error::{ApiError, ApiResult};
use reference::Reference;
use routes::Routes;
use std::{sync::Arc, time::SystemTime};
use tokio::sync::Semaphore;
use tower_http::cors::{Any, CorsLayer};

/// Long texts that are made at once, each of up to some 20 MiB: pages of messages, JSON that is rewritten. It takes a few times that in memory.
const LONG_TEXTS: usize = 2;

/// What handlers work with.
#[derive(Debug)]
struct Api {
    service: Arc<Service>,
    /// Reads of the store at once; more wait. Their number is bounded by that of connections.
    readers: Semaphore,
    /// Uploads at once.
    uploads: places::Places,
    /// Long texts that are made at once.
    long_texts: Arc<Semaphore>,
    /// Answers that wait to be read.
    answers: answers::Answers,
    /// Folders that are sent as archives of files.
    folders: folder::Folders,
    /// Websockets at once; more are closed.
    websockets: Arc<Semaphore>,
    /// What compute nodes say of themselves.
    crns: crns::Crns,
    /// How the node does.
    metrics: metrics::Board,
    /// What all routes do.
    reference: Reference,
}

type State = axum::extract::State<Arc<Api>>;

/// All routes.
pub fn router(service: Arc<Service>) -> Router {
    let limits = &service.config.limits;
    let body_bytes = usize::try_from(limits.body_kib.saturating_mul(1 << 10)).unwrap_or(usize::MAX);
    // Uploads are bounded while they stream; what they may hold depends on what they say.
    let (uploads, mut entries) = Routes::default().with(uploads::routes).split();
    let (rest, others) = bounded().split();
    entries.extend(others);
    let api = Arc::new(Api {
        readers: Semaphore::new(limits.queries),
        uploads: places::Places::new(limits.uploads),
        long_texts: Arc::new(Semaphore::new(LONG_TEXTS)),
        answers: answers::Answers::default(),
        folders: folder::Folders::default(),
        websockets: Arc::new(Semaphore::new(limits.websockets)),
        crns: crns::Crns::new(),
        metrics: metrics::Board::default(),
        reference: Reference::of(&entries),
        service,
    });
    let uploads = uploads.method_not_allowed_fallback(plugins::wrong_method).layer(DefaultBodyLimit::disable());
    let rest = rest
        .fallback(plugins::answer)
        .method_not_allowed_fallback(plugins::wrong_method)
        .layer(DefaultBodyLimit::max(body_bytes));
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::OPTIONS])
        .allow_headers(Any)
        .expose_headers([header::CONTENT_RANGE, header::ETAG, header::RETRY_AFTER]);
    let answers = from_fn_with_state(api.answers.clone(), answers::within);
    rest.merge(uploads)
        .layer(from_fn(plain::as_json))
        .layer(answers)
        .layer(from_fn(linger::hear_out))
        .layer(cors)
        .with_state(api)
}

impl Api {
    /// Reads what the store holds now, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        // The semaphore is never closed.
        let _permit = self.readers.acquire().await.map_err(ApiError::internal)?;
        let store = self.service.store.clone();
        let work = tokio::task::spawn_blocking(move || work(&store.snapshot()?));
        work.await.map_err(ApiError::internal)?
    }
}

/// The routes whose bodies are bounded.
fn bounded() -> Routes {
    Routes::default()
        .with(about::routes)
        .with(reference::routes)
        .with(digest::routes)
        .with(plugins::routes)
        .with(chains::routes)
        .with(pins::routes)
        .with(submit::routes)
        .with(messages::routes)
        .with(hashes::routes)
        .with(single::routes)
        .with(live::routes)
        .with(metrics::routes)
        .with(names::routes)
        .with(addresses::routes)
        .with(authorizations::routes)
        .with(stats::routes)
        .with(balances::routes)
        .with(credits::routes)
        .with(costs::routes)
        .with(download::routes)
        .with(archive::routes)
        .with(price::routes)
        .with(schedule::routes)
        .with(crns::routes)
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
