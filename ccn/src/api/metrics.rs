//! `/metrics`, `/metrics.json` and `/api/ws0/status`: how the node does, under the names that scoring and dashboards read (ccn spec 5.9).

use super::{
    Api, ApiResult, State,
    live::{self, End},
    reference::{Group, Operation, Shape},
    routes::Routes,
};
use crate::{
    pinning::{Pinning, PinningState, PinningStatus},
    store::{
        Reader as _, Snapshot, StoreError,
        schema::{KEPT_FILES, Table, end_of},
    },
};
use axum::{
    Json,
    extract::ws::{WebSocket, WebSocketUpgrade, close_code},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use ccn_message::item_hash::Engine;
use serde::Serialize;
use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval},
};

/// How long the numbers are good for.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// A sign of life, in intervals of the numbers.
const PING_EVERY: u32 = 3;
/// Websockets at once that are told the numbers.
const MAX_SOCKETS: usize = 1_000;
/// Most rows that are counted; a larger number shows as this.
const MAX_COUNTED: usize = 100_000;
/// The form that Prometheus reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The one member of the numbers that is none.
const BUILD: &str = "pyaleph_build_info";
/// The chain by whose height nodes are compared.
const CHAIN: &str = "ETH";

/// What the node is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Build {
    /// Others are written in Python, and those who read this want the field.
    python_version: &'static str,
    version: &'static str,
}

/// The numbers. What is none is not known: there is no such thing here, or nobody to compare with.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Metrics {
    pyaleph_build_info: Build,
    pyaleph_status_peers_total: u64,
    pyaleph_status_sync_messages_total: u64,
    pyaleph_status_sync_permanent_files_total: u64,
    pyaleph_status_sync_pending_messages_total: u64,
    pyaleph_status_sync_pending_txs_total: u64,
    pyaleph_status_chain_eth_last_committed_height: Option<u64>,
    pyaleph_processing_pending_messages_seen_ids_total: Option<u64>,
    pyaleph_processing_pending_messages_tasks_total: Option<u64>,
    pyaleph_processing_pending_messages_aggregate_tasks: u64,
    pyaleph_processing_pending_messages_forget_tasks: u64,
    pyaleph_processing_pending_messages_post_tasks: u64,
    pyaleph_processing_pending_messages_program_tasks: u64,
    pyaleph_processing_pending_messages_store_tasks: u64,
    pyaleph_processing_pending_messages_action_total: Option<u64>,
    pyaleph_status_sync_messages_reference_total: Option<u64>,
    pyaleph_status_sync_messages_remaining_total: Option<u64>,
    pyaleph_status_chain_eth_height_reference_total: Option<u64>,
    pyaleph_status_chain_eth_height_remaining_total: Option<u64>,
    pyaleph_ws_messages_active: u64,
    pyaleph_ws_status_active: u64,
    pyaleph_store_fetch_ipfs_total: u64,
    pyaleph_store_fetch_ipfs_failed_total: u64,
    pyaleph_store_fetch_ipfs_duration_ms_sum: u64,
    pyaleph_store_fetch_storage_total: u64,
    pyaleph_store_fetch_storage_failed_total: u64,
    pyaleph_store_fetch_storage_duration_ms_sum: u64,
    beth_ipfs_node_up: Option<u64>,
    beth_ipfs_pins: Option<u64>,
    beth_ipfs_pins_waiting: Option<u64>,
    beth_ipfs_pins_failing: Option<u64>,
    beth_ipfs_pins_total: Option<u64>,
    beth_ipfs_unpins_total: Option<u64>,
    beth_ipfs_pin_failures_total: Option<u64>,
}

/// The numbers as they were last counted, and who is told.
#[derive(Debug)]
pub(super) struct Board {
    last: Mutex<Option<(Instant, Arc<Metrics>)>>,
    sockets: Arc<Semaphore>,
}

impl Default for Board {
    fn default() -> Self {
        Self { last: Mutex::default(), sockets: Arc::new(Semaphore::new(MAX_SOCKETS)) }
    }
}

impl Board {
    /// The numbers, counted anew when they are old; by one of those who ask, while the others wait.
    async fn current(&self, api: &Api) -> ApiResult<Arc<Metrics>> {
        let mut last = self.last.lock().await;
        if let Some((counted, metrics)) = &*last
            && counted.elapsed() < GOOD_FOR
        {
            return Ok(metrics.clone());
        }
        let counts = api.read(|snapshot| Ok(Counts::of(snapshot)?)).await?;
        let metrics = Arc::new(counts.with(api));
        *last = Some((Instant::now(), metrics.clone()));
        Ok(metrics)
    }
}

/// What the store knows.
struct Counts {
    messages: u64,
    files: u64,
    pending: u64,
    transactions: u64,
}

impl Counts {
    fn of(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let rows =
            |table| Ok::<_, StoreError>(snapshot.range(table, &[], &end_of(&[]), MAX_COUNTED, false)?.len() as u64);
        Ok(Self {
            messages: snapshot.message_count()?,
            files: snapshot.number(Table::Meta, KEPT_FILES)?,
            // What waits beyond its horizon shows as refused, and is not waited for.
            pending: rows(Table::Horizon)?,
            transactions: rows(Table::ChainWork)?,
        })
    }

    fn with(self, api: &Api) -> Metrics {
        let chains = api.service.chains.status();
        let followers = chains.iter().filter(|chain| chain.name == CHAIN).flat_map(|chain| &chain.indexers);
        // Of several who follow it, the one that is furthest behind.
        let furthest = followers.max_by_key(|follower| follower.lag);
        let pinning = api.service.pinning.as_ref().map(Pinning::status);
        let of_pinning = |number: fn(&PinningStatus) -> u64| pinning.as_ref().map(number);
        let limit = api.service.config.limits.websockets;
        let active = |limit: usize, left: usize| limit.saturating_sub(left) as u64;
        let tally = api.service.fetcher.tally();
        let (ipfs, storage) = (tally.searched(Engine::Ipfs), tally.searched(Engine::Storage));
        let milliseconds = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Metrics {
            pyaleph_build_info: Build { python_version: "none", version: env!("CARGO_PKG_VERSION") },
            pyaleph_status_sync_messages_total: self.messages,
            pyaleph_status_sync_permanent_files_total: self.files,
            pyaleph_status_sync_pending_messages_total: self.pending,
            pyaleph_status_sync_pending_txs_total: self.transactions,
            pyaleph_status_chain_eth_last_committed_height: furthest.and_then(|follower| follower.height),
            pyaleph_status_chain_eth_height_reference_total: furthest.and_then(|follower| follower.target),
            pyaleph_status_chain_eth_height_remaining_total: furthest.and_then(|follower| follower.lag),
            pyaleph_ws_messages_active: active(limit, api.websockets.available_permits()),
            pyaleph_ws_status_active: active(MAX_SOCKETS, api.metrics.sockets.available_permits()),
            pyaleph_store_fetch_ipfs_total: ipfs.total,
            pyaleph_store_fetch_ipfs_failed_total: ipfs.failed,
            pyaleph_store_fetch_ipfs_duration_ms_sum: milliseconds(ipfs.took),
            pyaleph_store_fetch_storage_total: storage.total,
            pyaleph_store_fetch_storage_failed_total: storage.failed,
            pyaleph_store_fetch_storage_duration_ms_sum: milliseconds(storage.took),
            beth_ipfs_node_up: of_pinning(|status| {
                u64::from(matches!(status.state, PinningState::Working | PinningState::Current))
            }),
            beth_ipfs_pins: of_pinning(|status| status.pinned),
            beth_ipfs_pins_waiting: of_pinning(|status| status.waiting),
            beth_ipfs_pins_failing: of_pinning(|status| status.failing),
            beth_ipfs_pins_total: of_pinning(|status| status.pins_total),
            beth_ipfs_unpins_total: of_pinning(|status| status.unpins_total),
            beth_ipfs_pin_failures_total: of_pinning(|status| status.failures_total),
            // It does not gossip yet. One thread decides, and has decided before it is asked: nothing is under way.
            ..Metrics::default()
        }
    }
}

/// Lines of `name value`; of what is no number, its fields as labels of a 1. What is not known has no line.
fn prometheus(metrics: &Metrics) -> Result<String, serde_json::Error> {
    let serde_json::Value::Object(members) = serde_json::to_value(metrics)? else { return Ok(String::new()) };
    let mut text = String::new();
    for (name, value) in members {
        // Writing to a string does not fail.
        let _ = match value {
            serde_json::Value::Null => Ok(()),
            serde_json::Value::Object(labels) => {
                let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
                writeln!(text, "{name}{{{}}} 1", labels.join(","))
            }
            value => writeln!(text, "{name} {value}"),
        };
    }
    Ok(text)
}

pub(super) fn routes(routes: Routes) -> Routes {
    let names = serde_json::to_value(Metrics::default()).unwrap_or_default();
    let mut numbers =
        Shape::object([(BUILD, Shape::object([("python_version", Shape::text()), ("version", Shape::text())]))]);
    for name in names.as_object().into_iter().flat_map(|names| names.keys()).filter(|name| *name != BUILD) {
        numbers = numbers.and([(name.as_str(), Shape::whole().or_null())]);
    }
    let of_text = Operation::new(Group::Node, "How the node does, for Prometheus").answers_with(
        200,
        "Lines of a name and a number.",
        TEXT,
        &Shape::text(),
    );
    let of_json = Operation::new(Group::Node, "How the node does")
        .about("What is null is not known: there is no such thing here, or nobody to compare with.")
        .answers("Numbers, counted at most ten seconds ago.", &numbers);
    routes.get("/metrics", text, of_text).get("/metrics.json", json, of_json).get(
        "/api/ws0/status",
        socket,
        live::websocket(Group::Node, "How the node does, whenever that changes"),
    )
}

async fn text(state: State) -> ApiResult<Response> {
    let metrics = state.metrics.current(&state).await?;
    let text = prometheus(&metrics).map_err(super::ApiError::internal)?;
    Ok(([(CONTENT_TYPE, TEXT)], text).into_response())
}

async fn json(state: State) -> ApiResult<Response> {
    let metrics = state.metrics.current(&state).await?;
    Ok(Json(&*metrics).into_response())
}

/// The numbers, and again whenever they have changed.
async fn socket(state: State, upgrade: WebSocketUpgrade) -> Response {
    let api = state.0.clone();
    let place = api.metrics.sockets.clone().try_acquire_owned().ok();
    live::bounded(upgrade).on_upgrade(move |socket| serve(api, socket, place))
}

async fn serve(api: Arc<Api>, mut socket: WebSocket, place: Option<OwnedSemaphorePermit>) {
    let end = match place {
        Some(_place) => follow(&api, &mut socket).await,
        None => End::Closed(close_code::AGAIN, "too many websockets are open; try again later".to_owned()),
    };
    live::close(&mut socket, end).await;
}

async fn follow(api: &Api, socket: &mut WebSocket) -> End {
    let mut last = None;
    let (mut ticks, mut quiet) = (interval(GOOD_FOR), 0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let Ok(metrics) = api.metrics.current(api).await else {
                    return End::Closed(close_code::ERROR, "the node failed to count".to_owned());
                };
                quiet += 1;
                let sent = if last.as_ref() != Some(&metrics) {
                    live::send(socket, &*metrics).await
                } else if quiet % PING_EVERY == 0 {
                    live::ping(socket).await
                } else {
                    Ok(())
                };
                if let Err(end) = sent {
                    return end;
                }
                last = Some(metrics);
            }
            frame = socket.recv() => {
                if live::is_gone(frame.as_ref()) {
                    return End::Gone;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_has_no_line() {
        let metrics = Metrics {
            pyaleph_build_info: Build { python_version: "none", version: "1" },
            pyaleph_status_sync_messages_total: 3,
            pyaleph_status_chain_eth_height_reference_total: Some(9),
            pyaleph_status_chain_eth_height_remaining_total: Some(2),
            ..Metrics::default()
        };
        let text = prometheus(&metrics).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#"pyaleph_build_info{python_version="none",version="1"} 1"#);
        assert!(lines.contains(&"pyaleph_status_sync_messages_total 3"));
        assert!(lines.contains(&"pyaleph_status_chain_eth_height_remaining_total 2"));
        assert!(!text.contains("last_committed_height") && !text.contains("null"));
    }
}
