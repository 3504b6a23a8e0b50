//! Time as the pure layer knows it: a number that someone else read off a clock.

use std::time::Duration;

/// Nanoseconds since an arbitrary start; a worker reads the clock once per batch and passes the tick down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// The tick `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The tick `secs` seconds after the start.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// Nanoseconds since the start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the start: the resolution of the forwarding database's stamps.
    pub const fn secs(self) -> u32 {
        (self.0 / 1_000_000_000) as u32
    }

    /// This tick and `by` after it.
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0 + by.as_nanos() as u64)
    }
}
