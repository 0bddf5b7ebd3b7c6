//! The time of a device, and how it has itself woken later: it waits in the event loop, not in its thread.

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use std::{
    fmt::Debug,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

/// A clock with one alarm. Tests turn it by hand.
pub trait Timer: Debug + Send {
    /// Time since a fixed moment.
    fn now(&self) -> Duration;
    /// Makes the descriptor ready after that time, instead of any time that was set before.
    fn wake_in(&mut self, time: Duration);
    /// What becomes ready; nothing for a timer that needs no event loop.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// The host's monotonic clock and a timer of its (`timerfd_create(2)`).
#[derive(Debug)]
pub struct MonotonicTimer(OwnedFd);

impl MonotonicTimer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }
}

impl Timer for MonotonicTimer {
    fn now(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
    }

    fn wake_in(&mut self, time: Duration) {
        // A time of zero would unset it.
        let Ok(value) = Timespec::try_from(time.max(Duration::from_nanos(1))) else {
            return;
        };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        // It is heard of by its edge: nobody reads how often it went off, and setting it takes that back. A valid time and
        // an open timer are all that this call asks for.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// A timer whose time passes when a test says so.
#[cfg(test)]
pub(crate) mod manual {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Shared between a test and its device.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct ManualTimer(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        now: Duration,
        due: Option<Duration>,
        set: u32,
    }

    impl ManualTimer {
        /// Lets the time pass until the alarm; false when none is set.
        pub(crate) fn pass(&self) -> bool {
            let mut state = self.0.lock().expect("no panic");
            let due = state.due.take();
            state.now = due.unwrap_or(state.now).max(state.now);
            due.is_some()
        }

        /// How often an alarm was set.
        pub(crate) fn times_set(&self) -> u32 {
            self.0.lock().expect("no panic").set
        }
    }

    impl Timer for ManualTimer {
        fn now(&self) -> Duration {
            self.0.lock().expect("no panic").now
        }
        fn wake_in(&mut self, time: Duration) {
            let mut state = self.0.lock().expect("no panic");
            state.due = Some(state.now + time);
            state.set += 1;
        }
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec as Limit, poll};

    #[test]
    fn the_alarm_goes_off_after_its_time_and_again_when_set_again() {
        let mut timer = MonotonicTimer::new().expect("a timer");
        let ready = |timer: &MonotonicTimer, limit: Limit| {
            poll(&mut [PollFd::new(&timer.0, PollFlags::IN)], Some(&limit)).expect("a poll") == 1
        };
        assert!(!ready(&timer, Limit::default()));
        for _ in 0..2 {
            let began = timer.now();
            timer.wake_in(Duration::from_millis(2));
            assert!(ready(&timer, Limit { tv_sec: 60, tv_nsec: 0 }));
            assert!(timer.now() >= began + Duration::from_millis(2));
        }
        // At once, and not never.
        timer.wake_in(Duration::ZERO);
        assert!(ready(&timer, Limit { tv_sec: 60, tv_nsec: 0 }));
    }
}
