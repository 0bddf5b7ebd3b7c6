//! One HTTP exchange with a program: a request goes down a stream, the response comes back up it.
//!
//! Called by [`crate::api::invoke`] with a stream that reaches the program's own HTTP server. HTTP is
//! carried as HTTP: bodies are streamed in both directions and never held whole, only hop-by-hop
//! headers are taken out. A stream serves one exchange and is closed after it, so nothing of one call
//! can reach the next, and its end says that the program is done with the call.
//!
//! What always holds: the *hold* given to [`carry`] is dropped when, and not before, the stream to the
//! program is closed; a client that goes away closes it.

mod activity;
mod headers;
mod upload;

#[cfg(test)]
mod tests;

pub use activity::Activity;

use activity::Watched;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    time::sleep_until,
};
use tokio_util::task::AbortOnDropHandle;
use upload::{Fault, Upload, UploadBody};

/// Most headers of a response; a program that sends more is answered for with 502.
const MAX_RESPONSE_HEADERS: usize = 256;

/// Longest head of a response, bytes; likewise.
const MAX_RESPONSE_HEAD_BYTES: usize = 256 * 1024;

/// The bounds of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest request body, bytes.
    pub max_body_bytes: u64,
    /// How long the program may take to do the next thing before its response starts: take more of the
    /// request, or, once it was given the whole, send the head of its response.
    pub answer_within: Duration,
    /// How long the client may pause within its request, and how long it may take in all beyond a least rate.
    pub client_idle: Duration,
    /// How long a started response or an upgraded connection may carry nothing either way.
    pub stream_idle: Duration,
}

/// Why there is no response of the program.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The body is longer than this node carries. The client's fault; 413.
    #[error("the request body is longer than {limit_bytes} bytes")]
    BodyTooLong {
        /// [`Limits::max_body_bytes`].
        limit_bytes: u64,
    },
    /// The client stopped sending within its request, or all but stopped. The client's fault; 408.
    #[error("the client sent nothing, or next to nothing, for {0:?}")]
    ClientStalled(Duration),
    /// The client's connection broke within its request; nobody is left to be answered.
    #[error("the request ended early: {0}")]
    ClientGone(String),
    /// The stream was closed before one byte came back: the program or its machine crashed. 502.
    #[error("the program closed the connection without an answer")]
    Closed,
    /// What came back is not an HTTP response. The program's fault; 502.
    #[error("the program's answer is not HTTP: {0}")]
    Garbage(String),
    /// [`Limits::answer_within`] passed. The program's fault; 504.
    #[error("the program did not answer within {0:?}")]
    TimedOut(Duration),
}

/// Sends a request down a stream and returns the response as soon as its head is there.
///
/// `request` has the program's path in origin form. `hold` is dropped when the stream is closed.
///
/// # Errors
/// See [`ExchangeError`]; the stream is closed then.
pub async fn carry<S, H>(
    stream: S,
    mut request: Request<Body>,
    limits: Limits,
    activity: Arc<Activity>,
    hold: H,
) -> Result<Response<Body>, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Send + Sync + 'static,
{
    let client_upgrade =
        headers::wants_upgrade(request.headers()).then(|| request.extensions_mut().remove::<OnUpgrade>()).flatten();
    let upload = Arc::new(Upload::new());
    let request = outgoing(request, client_upgrade.is_some(), &upload, limits.max_body_bytes);
    let hold = Arc::new(hold);

    let (mut sender, connection) = http1::Builder::new()
        .max_headers(MAX_RESPONSE_HEADERS)
        .max_buf_size(MAX_RESPONSE_HEAD_BYTES)
        .handshake(TokioIo::new(Watched::new(stream, activity.clone())))
        .await
        .map_err(|error| failure(&error, &activity, &upload, limits))?;
    let (answered, answer) = oneshot::channel::<()>();
    let connection = AbortOnDropHandle::new(tokio::spawn({
        let (activity, hold) = (activity.clone(), hold.clone());
        async move {
            let stalled = async {
                match answer.await {
                    Ok(()) => activity.stalled(limits.stream_idle).await,
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = connection.with_upgrades() => {}
                () = stalled => tracing::debug!("a response carried nothing for too long and was cut"),
            }
            drop(hold);
        }
    }));

    let mut sending = std::pin::pin!(sender.send_request(request));
    let mut response = loop {
        // It moves while the request is being sent, and changes sides: what was a long time for the program may have become a
        // short one for the client.
        let look = upload.deadline(&limits).at.min(Instant::now() + limits.client_idle);
        tokio::select! {
            biased;
            response = &mut sending => break response.map_err(|error| failure(&error, &activity, &upload, limits))?,
            () = sleep_until(look.into()) => {
                let deadline = upload.deadline(&limits);
                if deadline.at <= Instant::now() {
                    return Err(deadline.missed);
                }
            }
        }
    };
    let _ = answered.send(());

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client_upgrade else {
            return Err(ExchangeError::Garbage("it switches protocols unasked".to_owned()));
        };
        let program = hyper::upgrade::on(&mut response);
        connection.detach();
        tokio::spawn(splice(client, program, limits.stream_idle, activity, hold));
        headers::strip_hop_by_hop(response.headers_mut(), headers::Upgrade::Keep);
        return Ok(response.map(|_| Body::empty()));
    }
    headers::strip_hop_by_hop(response.headers_mut(), headers::Upgrade::Strip);
    Ok(response.map(|incoming| Body::new(Download { incoming, _connection: connection })))
}

/// The request as the program gets it.
fn outgoing(request: Request<Body>, upgrade: bool, upload: &Arc<Upload>, max_bytes: u64) -> Request<UploadBody> {
    let (mut parts, body) = request.into_parts();
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    let keep = if upgrade { headers::Upgrade::Keep } else { headers::Upgrade::Strip };
    headers::strip_hop_by_hop(&mut parts.headers, keep);
    headers::complete(&mut parts.headers, upgrade);
    Request::from_parts(parts, UploadBody::new(body, upload.clone(), max_bytes))
}

/// What a failed exchange means. A fault of the client's side explains the program's.
fn failure(error: &hyper::Error, activity: &Activity, upload: &Upload, limits: Limits) -> ExchangeError {
    match upload.fault() {
        Some(Fault::TooLong) => ExchangeError::BodyTooLong { limit_bytes: limits.max_body_bytes },
        Some(Fault::Broken(reason)) => ExchangeError::ClientGone(reason),
        None if activity.received_bytes() == 0 => ExchangeError::Closed,
        None => ExchangeError::Garbage(error.to_string()),
    }
}

/// Carries bytes between client and program after both agreed on another protocol.
async fn splice<H>(client: OnUpgrade, program: OnUpgrade, idle: Duration, activity: Arc<Activity>, hold: Arc<H>) {
    match tokio::try_join!(client, program) {
        Ok((client, program)) => {
            let (mut client, mut program) = (TokioIo::new(client), TokioIo::new(program));
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut program) => {}
                () = activity.stalled(idle) => tracing::debug!("an upgraded connection was idle for too long and was cut"),
            }
        }
        Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
    }
    drop(hold);
}

/// The body of a response. Dropping it early closes the stream to the program.
struct Download {
    incoming: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
