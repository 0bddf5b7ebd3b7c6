//! Answers that wait to be read. Clients that stop reading would hold as much memory as they ask for: all answers together have a bound, and where it
//! is reached, the one that is read slowest makes room, if it is slow indeed.

use super::{ApiError, places::slow_rate};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderValue, header::CONTENT_LENGTH},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

/// Bytes of all answers that wait.
const MAX_BYTES: usize = 128 << 20;
/// Shorter answers are not counted: there is at most one for each connection.
const SHORT_BYTES: u64 = 16 << 10;
/// What is given out at a time: so much of an answer may lie with the connection.
const PIECE_BYTES: usize = 64 << 10;

/// All answers that wait. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<Arc<Waiting>>>>);

/// An answer that waits.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    bytes: usize,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    bytes: Bytes,
    made_room: bool,
}

/// The body of an answer that waits.
struct Held {
    answers: Answers,
    waiting: Arc<Waiting>,
}

/// The rest was given up, because it was read too slowly and others asked for something.
#[derive(Debug, thiserror::Error)]
#[error("the answer was read too slowly while others waited for room")]
struct MadeRoom;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    /// Bytes a second at which it is read, of one that is so slow that it has to make room.
    fn slow_rate(&self, now: Instant) -> Option<u64> {
        let read = self.bytes - lock(&self.left).bytes.len();
        slow_rate(read as u64, now.saturating_duration_since(self.since))
    }

    fn make_room(&self) {
        *lock(&self.left) = Left { bytes: Bytes::new(), made_room: true };
    }
}

impl Answers {
    /// False when an answer of about that length would find no room, so that it need not be made.
    pub(super) fn have_room(&self, bytes: usize) -> bool {
        self.have_room_at(bytes, Instant::now())
    }

    fn have_room_at(&self, bytes: usize, now: Instant) -> bool {
        let all = lock(&self.0);
        let staying = all.iter().filter(|waiting| waiting.slow_rate(now).is_none());
        staying.map(|waiting| waiting.bytes).sum::<usize>() + bytes <= MAX_BYTES
    }

    /// Lets an answer wait, if there is room for it.
    fn hold(&self, bytes: Bytes, now: Instant) -> Option<Held> {
        let mut all = lock(&self.0);
        let mut total: usize = all.iter().map(|waiting| waiting.bytes).sum();
        while total + bytes.len() > MAX_BYTES {
            let slow = all.iter().enumerate().filter_map(|(place, waiting)| Some((waiting.slow_rate(now)?, place)));
            let (_, slowest) = slow.min()?;
            let slowest = all.swap_remove(slowest);
            slowest.make_room();
            total -= slowest.bytes;
        }
        let left = Mutex::new(Left { bytes: bytes.clone(), made_room: false });
        let waiting = Arc::new(Waiting { since: now, bytes: bytes.len(), left });
        all.push(waiting.clone());
        Some(Held { answers: self.clone(), waiting })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.answers.0).retain(|waiting| !Arc::ptr_eq(waiting, &self.waiting));
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = MadeRoom;

    fn poll_frame(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, MadeRoom>>> {
        let mut left = lock(&self.waiting.left);
        if left.made_room {
            return Poll::Ready(Some(Err(MadeRoom)));
        }
        let length = left.bytes.len().min(PIECE_BYTES);
        if length == 0 {
            return Poll::Ready(None);
        }
        // A copy: a part of these bytes would keep all of them.
        let piece = Bytes::copy_from_slice(&left.bytes.split_to(length));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(lock(&self.waiting.left).bytes.len() as u64)
    }
}

/// Passes answers on; long ones wait within the bound for all of them. What is streamed from the disk has bounds of its own.
pub(super) async fn within(State(answers): State<Answers>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    let length = answer.body().size_hint().exact().filter(|length| *length > SHORT_BYTES);
    let Some(length) = length else { return answer };
    let (mut head, body) = answer.into_parts();
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    match answers.hold(bytes, Instant::now()) {
        Some(held) => {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Response::from_parts(head, Body::new(held))
        }
        None => no_room().into_response(),
    }
}

/// There are as many answers as there may be.
pub(super) fn no_room() -> ApiError {
    ApiError::overloaded("too many long answers wait to be read; ask for less, or again in a few seconds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::places::UNDISTURBED;
    use futures_util::StreamExt as _;
    use std::time::Duration;

    fn long(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[tokio::test]
    async fn an_answer_is_given_out_in_pieces() {
        let answers = Answers::default();
        let held = answers.hold(long(200_000), Instant::now()).expect("room");
        assert_eq!(held.size_hint().exact(), Some(200_000));
        let mut pieces = Body::new(held).into_data_stream();
        let mut lengths = Vec::new();
        while let Some(piece) = pieces.next().await {
            lengths.push(piece.expect("a piece").len());
        }
        assert_eq!(lengths, [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 200_000 - 3 * PIECE_BYTES]);
        drop(pieces);
        assert!(lock(&answers.0).is_empty());
    }

    #[tokio::test]
    async fn the_one_that_is_read_slowest_makes_room_and_nobody_else() {
        let (answers, now) = (Answers::default(), Instant::now());
        let half = MAX_BYTES / 2;
        let hold = |bytes, at| answers.hold(long(bytes), at);
        let slow = hold(half, now).expect("room");
        let fast = hold(half, now).expect("room");
        let soon = now + UNDISTURBED - Duration::from_millis(1);
        assert!(hold(1, soon).is_none() && !answers.have_room_at(1, soon), "nobody is slow yet");
        let later = now + UNDISTURBED;
        let mut read = Body::new(fast).into_data_stream();
        for _ in 0..=UNDISTURBED.as_secs() {
            read.next().await.expect("a piece").expect("bytes");
        }
        assert!(answers.have_room_at(half, later) && !answers.have_room_at(half + 1, later));
        let next = hold(half, later).expect("the slowest makes room");
        assert!(hold(1, later).is_none(), "the others are as fast as need be");
        let error = Body::new(slow).into_data_stream().next().await.expect("an error").expect_err("the rest is gone");
        assert!(error.to_string().contains("too slowly"), "{error}");
        read.next().await.expect("a piece").expect("bytes");
        drop((read, next));
        assert!(lock(&answers.0).is_empty() && hold(MAX_BYTES, later).is_some());
        assert!(hold(MAX_BYTES + 1, later).is_none());
    }
}
