//! What a forwarding database counts.
//!
//! Any worker may count, some without the table's lock, so unlike a port's counters these are read-modify-writes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a forwarding database has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbStats {
    /// Stations learned.
    pub learned: u64,
    /// Entries that followed their station to another destination.
    pub moved: u64,
    /// Stations not learned because the table was full.
    pub refused_full: u64,
    /// Stations not learned because their port was at its limit.
    pub refused_port_limit: u64,
    /// Frames whose source a sticky entry has elsewhere.
    pub refused_sticky: u64,
    /// Times that a station was held because it moved too often.
    pub damped: u64,
    /// Frames that claimed a held station elsewhere.
    pub refused_damped: u64,
    /// Entries that made room for another port's.
    pub evicted: u64,
    /// Entries that aged out.
    pub expired: u64,
    /// Entries flushed.
    pub flushed: u64,
}

#[derive(Debug, Default)]
pub(super) struct StatCells {
    pub(super) learned: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_port_limit: AtomicU64,
    pub(super) refused_sticky: AtomicU64,
    pub(super) damped: AtomicU64,
    pub(super) refused_damped: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) flushed: AtomicU64,
}

impl StatCells {
    pub(super) fn read(&self) -> FdbStats {
        FdbStats {
            learned: self.learned.load(Relaxed),
            moved: self.moved.load(Relaxed),
            refused_full: self.refused_full.load(Relaxed),
            refused_port_limit: self.refused_port_limit.load(Relaxed),
            refused_sticky: self.refused_sticky.load(Relaxed),
            damped: self.damped.load(Relaxed),
            refused_damped: self.refused_damped.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            expired: self.expired.load(Relaxed),
            flushed: self.flushed.load(Relaxed),
        }
    }
}

/// Adds `n`; only what changes or refuses something counts, never a frame from a known station.
pub(super) fn count(cell: &AtomicU64, n: usize) {
    cell.fetch_add(n as u64, Relaxed);
}
