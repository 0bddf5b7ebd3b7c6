//! The body of a request on its way to the program: bounded, and watched for who holds it up.

use super::{ExchangeError, Limits};
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Least rate of a request body, bytes a second, over all the time that its client was waited for: a byte a moment is no pause, and
/// would hold a machine for ever.
const LEAST_RATE: u64 = 1024;

/// How far a request got, seen by the exchange and written by its body.
#[derive(Debug)]
pub(super) struct Upload {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whose turn it is: true while the client owes more of the body.
    waits_for_client: bool,
    /// Since when.
    since: Instant,
    /// How long the client was waited for before, and what came of it.
    waited: Duration,
    received_bytes: u64,
    fault: Option<Fault>,
}

/// What ended a body before its end.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// It is longer than allowed.
    TooLong,
    /// The client's connection failed, for this reason.
    Broken(String),
}

/// A moment, and what it means when it comes.
#[derive(Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) missed: ExchangeError,
}

impl Upload {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                waits_for_client: false,
                since: Instant::now(),
                waited: Duration::ZERO,
                received_bytes: 0,
                fault: None,
            }),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.with(|state| state.fault.clone())
    }

    /// When the side whose turn it is has taken too long.
    pub(super) fn deadline(&self, limits: &Limits) -> Deadline {
        self.with(|state| {
            if state.waits_for_client {
                let earned = limits.client_idle + Duration::from_secs(state.received_bytes / LEAST_RATE);
                Deadline {
                    at: state.since + limits.client_idle.min(earned.saturating_sub(state.waited)),
                    missed: ExchangeError::ClientStalled(limits.client_idle),
                }
            } else {
                Deadline {
                    at: state.since + limits.answer_within,
                    missed: ExchangeError::TimedOut(limits.answer_within),
                }
            }
        })
    }
}

/// The body itself.
#[derive(Debug)]
pub(super) struct UploadBody {
    body: Body,
    upload: Arc<Upload>,
    left_bytes: u64,
}

impl UploadBody {
    pub(super) fn new(body: Body, upload: Arc<Upload>, max_bytes: u64) -> Self {
        Self { body, upload, left_bytes: max_bytes }
    }
}

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let length = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => 0,
        };
        let left_bytes = self.left_bytes.checked_sub(length);
        self.left_bytes = left_bytes.unwrap_or(0);
        self.upload.with(|state| match polled {
            Poll::Pending => {
                if !state.waits_for_client {
                    state.waits_for_client = true;
                    state.since = Instant::now();
                }
                Poll::Pending
            }
            Poll::Ready(frame) => {
                let now = Instant::now();
                if std::mem::take(&mut state.waits_for_client) {
                    state.waited += now.saturating_duration_since(state.since);
                }
                state.since = now;
                state.received_bytes += length;
                Poll::Ready(match frame {
                    Some(Ok(_)) if left_bytes.is_none() => {
                        state.fault = Some(Fault::TooLong);
                        Some(Err(io::Error::other("the body is too long")))
                    }
                    Some(Err(error)) => {
                        state.fault = Some(Fault::Broken(error.to_string()));
                        Some(Err(io::Error::other(error)))
                    }
                    other => other.map(|frame| frame.map_err(io::Error::other)),
                })
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
