//! `GET /api/ws0/messages`: the newest messages, then each as it is processed, one to a frame (ccn spec 5.3).

use super::{
    Api, ApiResult, State,
    element::{ContentFormat, Element},
    messages::{FILTERS, filter},
    parameters::{Number, Parameter, Parameters},
    reference::{Group, Operation},
    routes::Routes,
};
use crate::{
    events::{Event, ListenError, Listener},
    store::{
        Reader as _, Snapshot,
        listing::{self, Filter},
    },
};
use axum::{
    extract::ws::{
        CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection,
    },
    response::Response,
};
use futures_util::SinkExt as _;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

static HISTORY: Parameter<Number> =
    Parameter::number(&["history"], "Messages of the past that are sent first.", 10, 0..=199);
/// A sign of life.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may take to accept a frame; a slower one is let go.
const SEND_WAIT: Duration = Duration::from_secs(30);
/// Longest frame that a client sends: it has nothing to say.
const MAX_CLIENT_FRAME_BYTES: usize = 16 << 10;

pub(super) fn routes(routes: Routes) -> Routes {
    let operation = websocket(Group::Messages, "Messages as they are processed")
        .about("First the newest that match, the oldest of them first, then each that matches as it comes, one to a frame.")
        .query(FILTERS)
        .query([&HISTORY]);
    routes.get("/api/ws0/messages", messages, operation)
}

/// A route that becomes a websocket.
pub(super) fn websocket(group: Group, summary: &'static str) -> Operation {
    Operation::new(group, summary)
        .answers_empty(101, "The websocket begins: frames are JSON texts.")
        .refuses(400, "This is no request for a websocket.")
        .refuses(426, "The connection cannot become a websocket.")
}

async fn messages(
    state: State,
    parameters: Parameters,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> ApiResult<Response> {
    let filter = filter(&state, &parameters)?;
    let history = HISTORY.read(&parameters)?;
    let upgrade = upgrade?;
    let api = state.0.clone();
    let place = api.websockets.clone().try_acquire_owned().ok();
    Ok(bounded(upgrade).on_upgrade(move |socket| serve(api, socket, filter, history, place)))
}

/// A websocket whose client has nothing to say.
pub(super) fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .max_message_size(MAX_CLIENT_FRAME_BYTES)
        .max_frame_size(MAX_CLIENT_FRAME_BYTES)
        .read_buffer_size(MAX_CLIENT_FRAME_BYTES)
        .write_buffer_size(MAX_CLIENT_FRAME_BYTES)
}

/// Why a websocket ends.
pub(super) enum End {
    /// The client went, or does not read.
    Gone,
    /// The node ends it, with a reason.
    Closed(u16, String),
}

async fn serve(
    api: Arc<Api>,
    mut socket: WebSocket,
    filter: Filter,
    history: u64,
    place: Option<OwnedSemaphorePermit>,
) {
    let end = match place {
        Some(_place) => follow(&api, &mut socket, filter, history).await,
        None => End::Closed(close_code::AGAIN, "too many websockets are open; try again later".to_owned()),
    };
    close(&mut socket, end).await;
}

/// Ends a websocket.
pub(super) async fn close(socket: &mut WebSocket, end: End) {
    if let End::Closed(code, reason) = end {
        let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // Whether it still hears the reason is the client's business.
        let _ = timeout(SEND_WAIT, socket.send(frame)).await;
        let _ = timeout(SEND_WAIT, socket.close()).await;
    }
}

async fn follow(api: &Api, socket: &mut WebSocket, filter: Filter, history: u64) -> End {
    // Before the past is read, so that nothing falls between.
    let listener = api.service.pipeline.events().listen();
    match tell_past(api, socket, filter.clone(), history).await {
        Ok(Ok(())) => {}
        Ok(Err(end)) => return end,
        Err(error) => {
            tracing::error!("a websocket's history cannot be read: {error:?}");
            return End::Closed(close_code::ERROR, "the node failed to read the past messages".to_owned());
        }
    }
    present(socket, &filter, listener).await
}

/// Sends the newest messages, oldest first. Each is read when it is its turn: a client that does not read holds one.
async fn tell_past(api: &Api, socket: &mut WebSocket, filter: Filter, history: u64) -> ApiResult<Result<(), End>> {
    let hashes = api.read(move |snapshot| Ok(listing::hashes(snapshot, &filter, true, history)?)).await?;
    for hash in hashes.into_iter().rev() {
        let read = move |snapshot: &Snapshot| {
            // It may be gone meanwhile.
            let Some(record) = snapshot.message(&hash)? else { return Ok(None) };
            let element = Element::listed(&record, ContentFormat::Full);
            let confirmations = snapshot.confirmations(&hash)?;
            Ok(element.map(|element| element.confirmed_by(confirmations)))
        };
        if let Some(element) = api.read(read).await?
            && let Err(end) = send(socket, &element).await
        {
            return Ok(Err(end));
        }
    }
    Ok(Ok(()))
}

async fn present(socket: &mut WebSocket, filter: &Filter, mut listener: Listener) -> End {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = listener.next() => match event {
                Ok(Event::Committed { item_hash, record, frame }) => {
                    // It is in no block yet.
                    if !filter.blocks.admit(None) || !filter.matches(&item_hash, &record, record.envelope.chain()) {
                        continue;
                    }
                    let write = || serde_json::to_string(&Element::single(&record)?).ok().map(Utf8Bytes::from);
                    let frame = frame.get_or_init(write).clone();
                    if let Some(frame) = frame
                        && let Err(end) = send_frame(socket, Message::Text(frame)).await
                    {
                        return end;
                    }
                }
                Ok(Event::Verdict { .. }) => {}
                // Leaving some out without a word would be worse.
                Err(ListenError::Lagged(count)) => {
                    let reason = format!("{count} messages came faster than this client read; connect again, with `history`");
                    return End::Closed(close_code::AGAIN, reason);
                }
                Err(ListenError::Closed) => return End::Closed(close_code::AWAY, "the node stops".to_owned()),
            },
            _ = pings.tick() => {
                if let Err(end) = ping(socket).await {
                    return end;
                }
            }
            frame = socket.recv() => {
                if is_gone(frame.as_ref()) {
                    return End::Gone;
                }
            }
        }
    }
}

/// True when the client has gone. What clients say has no meaning; pings are answered by the protocol itself.
pub(super) fn is_gone(frame: Option<&Result<Message, axum::Error>>) -> bool {
    matches!(frame, Some(Ok(Message::Close(_)) | Err(_)) | None)
}

/// Gives a sign of life.
pub(super) async fn ping(socket: &mut WebSocket) -> Result<(), End> {
    send_frame(socket, Message::Ping(Vec::new().into())).await
}

pub(super) async fn send(socket: &mut WebSocket, element: &impl Serialize) -> Result<(), End> {
    match serde_json::to_string(element) {
        Ok(json) => send_frame(socket, Message::Text(json.into())).await,
        Err(error) => Err(End::Closed(close_code::ERROR, error.to_string())),
    }
}

async fn send_frame(socket: &mut WebSocket, frame: Message) -> Result<(), End> {
    match timeout(SEND_WAIT, socket.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Gone),
    }
}
