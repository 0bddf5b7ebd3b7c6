//! A client that is refused hears why: an answer that comes while a body is still being sent is lost to most clients
//! when the connection closes under them, so what is left of a refused body is taken and dropped, up to a bound.

use axum::{
    body::{Body, BodyDataStream, Bytes, HttpBody as _},
    extract::Request,
    http::header::EXPECT,
    middleware::Next,
    response::Response,
};
use futures_util::{Stream, StreamExt as _};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;

/// Most bytes of a refused body that are taken. A client with more of them finds the connection closed.
const MAX_DROPPED_BYTES: u64 = 16 << 20;
/// How long they may take to come.
const DROP_WITHIN: Duration = Duration::from_secs(5);

/// The body of a request, lent to its handler.
struct Loan {
    body: BodyDataStream,
    /// True once the handler has asked for a piece.
    touched: bool,
}

/// What the handler reads.
struct Lent(Arc<Mutex<Loan>>);

impl Stream for Lent {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut loan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loan.touched = true;
        loan.body.poll_next_unpin(context)
    }
}

/// Lets a request be answered; of one that is refused, the rest of the body is heard out.
pub(super) async fn hear_out(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    // Such a client sends nothing before it is told to, and reading would tell it to.
    let waits = parts.headers.contains_key(EXPECT);
    let loan = Arc::new(Mutex::new(Loan { body: body.into_data_stream(), touched: false }));
    let response = next.run(Request::from_parts(parts, Body::from_stream(Lent(loan.clone())))).await;
    let touched = loan.lock().unwrap_or_else(PoisonError::into_inner).touched;
    if !response.status().is_success() && (touched || !waits) {
        // Whatever comes of it, the answer stands.
        let _ = timeout(DROP_WITHIN, drop_rest(Lent(loan))).await;
    }
    response
}

async fn drop_rest(mut body: Lent) {
    let mut dropped = 0;
    while let Some(Ok(piece)) = body.next().await {
        dropped += piece.len() as u64;
        if dropped > MAX_DROPPED_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Server;
    use axum::{Router, http::StatusCode, middleware::from_fn, routing::post};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    /// Sends `head`, then `length` bytes of body, and only then reads, as simple clients do.
    async fn exchange(head: &str, length: usize) -> String {
        let refuse = || async { StatusCode::PAYLOAD_TOO_LARGE };
        let router = Router::new().route("/", post(refuse)).layer(from_fn(hear_out));
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::listen(any, router, 4).await.expect("a server");
        let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        stream.write_all(&vec![0; length]).await.expect("the body is taken");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        server.stop().await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A client that sent a body which was too long found its connection broken, and never read the 413.
    #[tokio::test]
    async fn a_refusal_reaches_who_is_still_sending() {
        let length = 12 << 20;
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        let answer = exchange(&head, length).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }

    #[tokio::test]
    async fn who_waits_to_be_told_is_not_told_to_send() {
        let head =
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        let answer = exchange(head, 0).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}
