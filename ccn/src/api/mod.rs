//! The HTTP interface: routes, and what they share.
//!
//! Handlers are thin. What is known is read from a snapshot, on a thread that may block; what changes goes through the pipeline; what a message type
//! answers by itself is asked of its plugin, for every path that no route here has. A browser may call everything from anywhere (CORS `*`): there are
//! no cookies and no sessions that it could misuse.

mod about;
mod addresses;
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
mod linger;
mod live;
mod messages;
mod metrics;
mod moment;
mod names;
mod paced;
mod paging;
mod parameters;
mod places;
mod plain;
mod plugins;
mod price;
mod schedule;
mod single;
mod stats;
mod submit;
mod upload;

use crate::{node::Service, store::Snapshot};
use axum::http::{Method, header};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::from_fn,
    routing::{get, post},
};
use error::{ApiError, ApiResult};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::Semaphore;
use tower_http::cors::{Any, CorsLayer};

/// What handlers work with.
#[derive(Debug)]
struct Api {
    service: Arc<Service>,
    /// Reads of the store at once; more wait. Their number is bounded by that of connections.
    readers: Semaphore,
    /// Uploads at once.
    uploads: places::Places,
    /// Websockets at once; more are closed.
    websockets: Arc<Semaphore>,
    /// What compute nodes say of themselves.
    crns: crns::Crns,
    /// How the node does.
    metrics: metrics::Board,
}

type State = axum::extract::State<Arc<Api>>;

/// All routes.
pub fn router(service: Arc<Service>) -> Router {
    let limits = &service.config.limits;
    let body_bytes = usize::try_from(limits.body_kib.saturating_mul(1 << 10)).unwrap_or(usize::MAX);
    let api = Arc::new(Api {
        readers: Semaphore::new(limits.queries),
        uploads: places::Places::new(limits.uploads),
        websockets: Arc::new(Semaphore::new(limits.websockets)),
        crns: crns::Crns::new(),
        metrics: metrics::Board::default(),
        service,
    });
    // Uploads are bounded while they stream; what they may hold depends on what they say.
    let uploads = Router::new()
        .route("/api/v0/storage/add_file", post(upload::storage_add_file))
        .route("/api/v0/storage/add_json", post(upload::storage_add_json))
        .route("/api/v0/ipfs/add_file", post(upload::ipfs_add_file))
        .route("/api/v0/ipfs/add_json", post(upload::ipfs_add_json))
        .route("/api/v0/ipfs/add_car", post(archive::add))
        .method_not_allowed_fallback(plugins::wrong_method)
        .layer(DefaultBodyLimit::disable());
    let rest = Router::new()
        .route("/", get(about::page))
        .route("/version", get(about::version))
        .route("/api/v0/version", get(about::version))
        .route("/api/v0/digest", get(digest::current))
        .route("/api/v0/digest/verify", post(digest::verify))
        .route("/api/v0/plugins", get(plugins::list))
        .route("/api/v0/plugins/quarantine", get(plugins::quarantine))
        .route("/api/v0/plugins/quarantine/{hash}/retry", post(plugins::retry))
        .route("/api/v0/plugins/{name}/resume", post(plugins::resume))
        .route("/api/v0/plugins/{name}/drop-state", post(plugins::drop_state))
        .route("/api/v0/chains", get(chains::list))
        .route("/api/v0/info/public.json", get(about::public))
        .route("/api/v0/messages", post(submit::messages))
        .route("/api/v0/ipfs/pubsub/pub", post(submit::publish))
        .route("/api/v0/p2p/pubsub/pub", post(submit::publish))
        .route("/api/v0/messages.json", get(messages::list))
        .route("/api/v0/messages/page/{page}", get(messages::page))
        .route("/api/v0/messages/{hash}", get(single::one))
        .route("/api/v0/messages/{hash}/content", get(single::content))
        .route("/api/v0/messages/{hash}/status", get(single::status))
        .route("/api/v0/messages/{hash}/consumed_credits", get(credits::consumed))
        .route("/api/ws0/messages", get(live::messages))
        .route("/api/ws0/status", get(metrics::socket))
        .route("/metrics", get(metrics::text))
        .route("/metrics.json", get(metrics::json))
        .route("/api/v0/channels/list.json", get(names::channels))
        .route("/api/v0/addresses/stats.json", get(stats::named))
        .route("/api/v1/addresses/stats.json", get(stats::sorted))
        .route("/api/v0/balances", get(balances::list))
        .route("/api/v0/credit_balances", get(credits::balances))
        .route("/api/v0/costs", get(costs::list))
        .route("/api/v0/storage/limits.json", get(download::limits))
        .route("/api/v0/storage/raw/{hash}", get(download::raw))
        .route("/api/v0/storage/metadata/{hash}", get(download::metadata))
        .route("/api/v0/storage/count/{hash}", get(download::count))
        .route("/api/v0/storage/{hash}", get(download::base64))
        .route("/ipfs/{cid}", get(archive::get))
        .route("/api/v0/addresses/{address}/balance", get(addresses::balance))
        .route("/api/v0/addresses/{address}/files", get(addresses::files))
        .route("/api/v0/addresses/{address}/channels", get(names::channels_of))
        .route("/api/v0/addresses/{address}/post_types", get(names::post_types_of))
        .route("/api/v0/addresses/{address}/credit_history", get(credits::history))
        .route("/api/v0/addresses/{address}/credit_history/summary", get(credits::summary))
        .route("/api/v0/authorizations/granted/{address}", get(authorizations::of_granter))
        .route("/api/v0/authorizations/received/{address}", get(authorizations::of_grantee))
        .route("/api/v0/price/estimate", post(price::estimate))
        .route("/api/v0/price/estimate/instance", post(price::estimate_instance))
        .route("/api/v0/price/{hash}", get(price::of_message))
        .route("/api/v0/plan", get(schedule::plan))
        .route("/api/v0/nodes", get(schedule::nodes))
        .route("/api/v0/allocation/{vm}", get(schedule::allocation))
        .route("/api/v1/vms", get(schedule::vms))
        .route("/api/v1/vms/{vm}", get(schedule::vm))
        .route("/api/v1/nodes", get(schedule::node_rows))
        .route("/api/v1/nodes/{node}", get(schedule::node))
        .route("/crns.json", get(crns::list))
        .fallback(plugins::answer)
        .method_not_allowed_fallback(plugins::wrong_method)
        .layer(DefaultBodyLimit::max(body_bytes));
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::OPTIONS])
        .allow_headers(Any)
        .expose_headers([header::CONTENT_RANGE, header::ETAG, header::RETRY_AFTER]);
    rest.merge(uploads).layer(from_fn(plain::as_json)).layer(from_fn(linger::hear_out)).layer(cors).with_state(api)
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

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
