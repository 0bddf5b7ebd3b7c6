//! Places for uploads. When all are taken, the slowest makes room for the next one, if it is slow indeed: else a few who send next to nothing would
//! keep everybody else out.

use super::{ApiError, ApiResult};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How long an upload has its place, or an answer waits, whatever its rate.
pub(super) const UNDISTURBED: Duration = Duration::from_secs(5);
/// The rate from which on nobody has to make room, bytes a second.
const FAIR_RATE: u64 = 64 << 10;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Vec<Arc<Pace>>>,
}

/// How an upload gets on.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
    /// Bytes.
    received: AtomicU64,
    /// True when nothing more is to come.
    is_complete: AtomicBool,
    made_room: CancellationToken,
}

/// One's place, as long as one has it.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    pace: Arc<Pace>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// Takes a place: a free one, or that of the slowest.
    pub(super) fn take(&self) -> ApiResult<Place<'_>> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> ApiResult<Place<'_>> {
        let pace = Arc::new(Pace {
            started: now,
            received: AtomicU64::new(0),
            is_complete: AtomicBool::new(false),
            made_room: CancellationToken::new(),
        });
        let mut taken = self.taken();
        if taken.len() >= self.most {
            let slow = taken.iter().enumerate().filter_map(|(place, pace)| Some((pace.slow_rate(now)?, place)));
            let Some((_, slowest)) = slow.min() else {
                return Err(ApiError::overloaded("too many uploads are under way; send it again in a few seconds"));
            };
            taken.swap_remove(slowest).made_room.cancel();
        }
        taken.push(pace.clone());
        drop(taken);
        Ok(Place { places: self, pace })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<Pace>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// So much more has come.
    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes a second, of one that is so slow that it has to make room.
    fn slow_rate(&self, now: Instant) -> Option<u64> {
        if self.is_complete.load(Ordering::Relaxed) {
            return None;
        }
        slow_rate(self.received.load(Ordering::Relaxed), now.saturating_duration_since(self.started))
    }
}

/// Bytes a second, of what has had so many bytes in that time and is so slow that it has to make room.
pub(super) fn slow_rate(bytes: u64, elapsed: Duration) -> Option<u64> {
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = bytes.saturating_mul(1000) / milliseconds;
    (elapsed >= UNDISTURBED && rate < FAIR_RATE).then_some(rate)
}

impl Place<'_> {
    pub(super) fn pace(&self) -> Arc<Pace> {
        self.pace.clone()
    }

    /// Receives, unless one has to make room meanwhile. What follows is no longer disturbed.
    pub(super) async fn receive<T>(&self, work: impl Future<Output = ApiResult<T>>) -> ApiResult<T> {
        tokio::select! {
            received = work => {
                self.pace.is_complete.store(true, Ordering::Relaxed);
                received
            }
            () = self.pace.made_room.cancelled() => {
                let sentence = "too many uploads are under way, and this was the slowest; send it again in a few seconds";
                Err(ApiError::overloaded(sentence))
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.taken().retain(|pace| !Arc::ptr_eq(pace, &self.pace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_slowest_makes_room_and_nobody_else() {
        let places = Places::new(3);
        let now = Instant::now();
        let [fast, slow, slower] = [(); 3].map(|()| places.take_at(now).expect("it is free"));
        let later = now + UNDISTURBED;
        let full = |at| places.take_at(at).expect_err("all are taken").status();
        assert_eq!(full(later - Duration::from_millis(1)), 503);
        fast.pace().received(FAIR_RATE * UNDISTURBED.as_secs());
        slow.pace().received(FAIR_RATE);
        slower.pace().received(1);
        let waiting = slower.receive(std::future::pending::<ApiResult<()>>());
        let next = places.take_at(later).expect("the slowest makes room");
        assert_eq!(waiting.await.expect_err("it had to").status(), 503);
        drop(slower);
        // What has come whole is not disturbed, however long it took.
        slow.receive(async { Ok(()) }).await.expect("it came");
        assert_eq!(full(later), 503);
        drop(next);
        drop(places.take_at(later).expect("it is free again"));
        drop((fast, slow));
        assert_eq!(places.taken().len(), 0);
    }
}
