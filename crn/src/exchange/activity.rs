//! How much went over a stream, and whether anything still does.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes carried by one exchange. Counters only: nothing is ordered by them.
#[derive(Debug, Default)]
pub struct Activity {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Activity {
    /// Bytes sent to the program, heads included.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed)
    }

    /// Bytes received from the program, heads included.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }

    /// Resolves once nothing was carried for `idle`: after one to two times that long, which spares a
    /// timer per byte.
    pub async fn stalled(&self, idle: Duration) {
        let carried = || (self.sent_bytes(), self.received_bytes());
        let mut before = carried();
        loop {
            tokio::time::sleep(idle).await;
            let now = carried();
            if now == before {
                return;
            }
            before = now;
        }
    }
}

pin_project_lite::pin_project! {
    /// A stream whose bytes are counted, and that can still be heard after it stopped listening: a
    /// program that answers and closes without taking the whole request has answered. So the rest of
    /// the request goes nowhere without an error, and reading on tells what there is to tell.
    pub(super) struct Watched<S> {
        #[pin]
        stream: S,
        activity: std::sync::Arc<Activity>,
    }
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: std::sync::Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

fn stopped_listening(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected)
}

impl<S: AsyncRead> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let polled = this.stream.poll_read(context, buffer);
        this.activity.received_bytes.fetch_add((buffer.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl<S: AsyncWrite> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        match this.stream.poll_write(context, bytes) {
            Poll::Ready(Ok(written)) => {
                this.activity.sent_bytes.fetch_add(written as u64, Relaxed);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) if stopped_listening(&error) => Poll::Ready(Ok(bytes.len())),
            other => other,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        match this.stream.poll_write_vectored(context, parts) {
            Poll::Ready(Ok(written)) => {
                this.activity.sent_bytes.fetch_add(written as u64, Relaxed);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) if stopped_listening(&error) => {
                Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
            }
            other => other,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(context)
    }
}
