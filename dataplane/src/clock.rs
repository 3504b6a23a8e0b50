//! The one place where time is read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::tick::Tick;

/// A source of ticks: the monotonic clock, or a number that a simulation moves.
#[derive(Clone, Debug)]
pub enum Clock {
    /// Time since this instant.
    Monotonic(Instant),
    /// Nanoseconds.
    Virtual(Arc<AtomicU64>),
}

impl Clock {
    /// The monotonic clock; its first tick is one second, so that no stamp is zero.
    pub fn monotonic() -> Self {
        Self::Monotonic(Instant::now())
    }

    /// A clock that stands still at one second until it is [moved](Self::advance).
    pub fn stopped() -> Self {
        Self::Virtual(Arc::new(AtomicU64::new(Tick::from_secs(1).nanos())))
    }

    /// The time.
    #[inline]
    pub fn now(&self) -> Tick {
        match self {
            Self::Monotonic(start) => Tick::from_secs(1).after(start.elapsed()),
            Self::Virtual(nanos) => Tick::from_nanos(nanos.load(Relaxed)),
        }
    }

    /// Moves a virtual clock; the monotonic one moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Virtual(nanos) = self {
            nanos.fetch_add(by.as_nanos() as u64, Relaxed);
        }
    }
}
