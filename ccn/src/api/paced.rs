//! The body of an upload, a piece at a time: no reader is carried further ahead than it wants, and no sender is waited for without end.

use super::places::Pace;
use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::{Stream, StreamExt as _};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;

/// Bytes that may come before the reader makes something of them: the head of a part of a multipart body is not longer.
const MAX_UNUSED_BYTES: u64 = 64 << 10;
/// How long an upload may take whatever its length, and at which rate it may take longer, bytes a second.
const AT_ONCE: Duration = Duration::from_secs(60);
const LEAST_RATE: u64 = 8 << 10;

/// Why a body is not read on. The client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("the head of a part has more than {MAX_UNUSED_BYTES} bytes")]
    Head,
    #[error("it is slower than {LEAST_RATE} bytes a second")]
    Slow,
}

/// A body that is being read.
pub(super) struct Paced {
    body: BodyDataStream,
    /// True when the last answer was a piece: the reader looks at it before there is another one.
    gave: bool,
    started: Instant,
    received: u64,
    unused: Unused,
    pace: Arc<Pace>,
}

/// Bytes that came and of which the reader has made nothing yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Unused(Arc<AtomicU64>);

impl Unused {
    /// The reader has made something of what came.
    pub(super) fn used(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Paced {
    pub(super) fn new(body: Body, pace: Arc<Pace>) -> Self {
        Self {
            body: body.into_data_stream(),
            gave: false,
            started: Instant::now(),
            received: 0,
            unused: Unused::default(),
            pace,
        }
    }

    pub(super) fn unused(&self) -> Unused {
        self.unused.clone()
    }
}

/// Why nothing more is read.
fn refused(unused: u64, received: u64, elapsed: Duration) -> Option<Refused> {
    let patience = AT_ONCE + Duration::from_secs(received / LEAST_RATE);
    if unused > MAX_UNUSED_BYTES {
        Some(Refused::Head)
    } else if elapsed > patience {
        Some(Refused::Slow)
    } else {
        None
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The reader of multipart bodies asks until nothing is there, and would hold all that a fast client sends.
        if std::mem::take(&mut self.gave) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let unused = self.unused.0.load(Ordering::Relaxed);
        if let Some(refused) = refused(unused, self.received, self.started.elapsed()) {
            return Poll::Ready(Some(Err(axum::Error::new(refused))));
        }
        let polled = self.body.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            self.gave = true;
            self.received += piece.len() as u64;
            self.pace.received(piece.len() as u64);
            self.unused.0.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_has_a_longest_length() {
        let piece = || Ok::<_, axum::Error>(Bytes::from_static(&[0; 1024]));
        let places = super::super::places::Places::new(1);
        let place = places.take().expect("it is free");
        let body = Body::from_stream(futures_util::stream::repeat_with(piece));
        let mut paced = Paced::new(body, place.pace());
        let unused = paced.unused();
        let mut used = 0;
        let error = loop {
            match paced.next().await.expect("it has no end") {
                Ok(piece) if used < 1 << 20 => {
                    unused.used();
                    used += piece.len() as u64;
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(paced.received, (1 << 20) + MAX_UNUSED_BYTES + 1024);
        assert_eq!(error.to_string(), Refused::Head.to_string());
    }

    #[test]
    fn who_is_too_slow_is_let_go() {
        let check = |received, seconds, expect| {
            assert_eq!(refused(0, received, Duration::from_secs(seconds)), expect, "{received} in {seconds} s");
        };
        check(0, 60, None);
        check(1000, 61, Some(Refused::Slow));
        check(100 * LEAST_RATE, 160, None);
        check(100 * LEAST_RATE, 161, Some(Refused::Slow));
    }
}
