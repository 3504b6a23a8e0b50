//! A limit on the broadcast, unknown unicast and multicast frames that enter by a port.
//!
//! The generic cell rate algorithm (ITU-T I.371): one number, the time at which the next frame would be due if frames
//! came exactly at the limit. Workers share it; it is written only by frames that the limit is about.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::tick::Tick;

/// Frames may come early by as much as the limit lets through in this time, in nanoseconds: short bursts such as the
/// ARP requests of a booting host pass.
const BURST: u64 = 100_000_000;
const SECOND: u64 = 1_000_000_000;

/// The storm limit of a port.
#[derive(Debug)]
pub struct Storm {
    interval: u64,
    due: AtomicU64,
}

impl Storm {
    /// A limit of `pps` frames a second, at least 1.
    pub fn new(pps: u32) -> Self {
        Self { interval: SECOND / u64::from(pps.max(1)), due: AtomicU64::new(0) }
    }

    /// Whether a frame may enter at `now`; counts it if so.
    #[inline]
    pub fn admit(&self, now: Tick) -> bool {
        let now = now.nanos();
        self.due
            .fetch_update(Relaxed, Relaxed, |due| {
                let due = due.max(now);
                (due - now <= BURST.saturating_sub(self.interval)).then_some(due + self.interval)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn let_through(pps: u32, seconds: u64, offered_each_ms: u32) -> u32 {
        let storm = Storm::new(pps);
        let mut n = 0;
        for ms in 0..seconds * 1000 {
            let now = Tick::from_secs(1).after(Duration::from_millis(ms));
            n += (0..offered_each_ms).filter(|_| storm.admit(now)).count() as u32;
        }
        n
    }

    #[test]
    fn the_limit_and_one_burst_pass_in_the_long_run() {
        for pps in [1, 5, 10, 100, 1000, 100_000] {
            let n = let_through(pps, 5, 200);
            let burst = pps / 10 + 1;
            assert!((5 * pps..=5 * pps + burst).contains(&n), "{pps} a second: {n} in five seconds");
        }
    }

    #[test]
    fn a_port_below_its_limit_loses_nothing() {
        assert_eq!(let_through(1000, 3, 1), 3000);
    }
}
