//! The forwarding database of one bridge: which station is behind which port.
//!
//! Owns what may be learned, moved, evicted and aged. Never reads a clock, never blocks a reader, knows no port by
//! name and no bridge flag; a caller asks it only about stations (no group addresses, not zero).
//!
//! All workers share one [`Fdb`]. [`Fdb::lookup`] loads and does nothing else. [`Fdb::learn`] of what is known already
//! loads too, and once a second for each station refreshes a stamp with one compare-exchange. Only what changes the table
//! takes its lock: a new station, one that moved, an operator's entry, and for a region of 192 slots at a time a
//! sweep or a flush.
//!
//! `entry` packs, `table` stores and shares, `writer` knows who holds what and decides who yields; here are the rules.
//!
//! Rules:
//! - Dynamic and static entries move when their station is heard elsewhere, a static one staying static; a sticky
//!   entry never moves (kernel: `br_fdb_update`).
//! - A full table refuses a port that holds its fair share or more, and makes room for the others out of ports that
//!   hold more than theirs. So a port that floods addresses cannot push out those of the others. Static and
//!   sticky entries are never evicted. A refused station is no lost frame: it is flooded to.
//! - A station that moves too often is held where it last stayed (`damping`): what claims it elsewhere is refused without taking the lock.
//!   Sticky entries do not move and so are not held.
//! - Only dynamic entries age. An ageing time of zero means what it means to the kernel: a sweep forgets every dynamic
//!   entry, and the caller does not learn (`br_fdb_update` returns at once, "some users want to always flood").
//!   [`Duration::MAX`] never ages.
//!
//! Memory: 32 octets an entry at the limit, 4 KiB to align, up to an octet an entry for stations that move, and a page is used only once
//! something was stored in it.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crossbeam::utils::CachePadded;

mod damping;
mod entry;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use self::{
    damping::Movers,
    entry::{MAX_AGE_SECS, Word},
    stats::{StatCells, count},
    table::{Found, SLOTS, Table},
    writer::{Scan, Writer},
};
pub use self::{
    damping::{Damped, Damping, Settled},
    entry::{Dest, Entry, EntryKind, FdbKey},
    stats::FdbStats,
    table::Hashed,
};
use crate::{
    index::{PortIdx, RemoteIdx},
    tick::Tick,
};

/// The greatest limit: 16 Mi entries, 512 MiB when full.
pub const MAX_LIMIT: u32 = 1 << 24;

/// Empty regions that cost a walk as much as one bucket: their counts are one cache line.
const REGIONS_PER_UNIT: usize = 64;

/// A forwarding database that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FdbError {
    /// The limit is 0 or above [`MAX_LIMIT`].
    #[error("a forwarding database holds 1 to {MAX_LIMIT} entries, not {0}")]
    Limit(u32),
    /// The allocator refused.
    #[error("there is no memory for a forwarding database of {0} entries")]
    Memory(u32),
}

/// The table is full, and nothing in it may yield to the new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding database is full")]
pub struct TableFull;

/// What came of hearing a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// It is where it was.
    Known,
    /// It was not known.
    New,
    /// It was somewhere else.
    Moved {
        /// Where it was.
        from: Dest,
    },
    /// Nothing was learned.
    Refused(LearnRefusal),
}

/// Why nothing was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnRefusal {
    /// The port has as many dynamic entries as it may.
    PortLimit,
    /// The table is full and the port holds its fair share, or nothing was found that may yield.
    TableFull,
    /// A sticky entry says that the station is elsewhere.
    Sticky,
    /// The station moved too often and is held elsewhere.
    Damped,
}

/// Which entries to flush: those that match everything that is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Only those of this port.
    pub port: Option<PortIdx>,
    /// Only those of this VLAN; 0 is untagged.
    pub vlan: Option<u16>,
    /// Only those behind this endpoint.
    pub remote: Option<RemoteIdx>,
    /// Of which kinds.
    pub kinds: FlushKinds,
}

/// The kinds of entries to flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushKinds {
    /// Dynamic ones.
    #[default]
    Dynamic,
    /// Static and sticky ones too.
    All,
}

impl Flush {
    fn takes(&self, found: &Found) -> bool {
        (self.kinds == FlushKinds::All || found.word.kind() == EntryKind::Dynamic)
            && self.covers(found.key, found.word.dest())
    }

    fn covers(&self, key: FdbKey, dest: Dest) -> bool {
        self.port.is_none_or(|p| p == dest.port)
            && self.vlan.is_none_or(|v| v == key.vlan())
            && self.remote.is_none_or(|r| Some(r) == dest.remote)
    }
}

/// What one call of [`Fdb::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries it looked at.
    pub examined: usize,
    /// Entries it removed.
    pub expired: usize,
    /// Whether it reached the end of the table; the next call begins at the start.
    pub done: bool,
}

/// What [`Fdb::copy_into`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Entries that are in the other table now.
    pub copied: usize,
    /// Entries that the other table knew better already.
    pub superseded: usize,
    /// Entries that did not fit.
    pub dropped: usize,
}

/// Where a listing goes on; the default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(usize);

impl Cursor {
    /// As a number below 2^32, for a caller that must hand it out.
    pub const fn bits(self) -> u64 {
        self.0 as u64
    }

    /// The cursor with this number; one that was never handed out lists nothing or begins somewhere else.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits as usize)
    }
}

/// The forwarding database of one bridge.
pub struct Fdb {
    table: Table,
    limit: u32,
    bytes: usize,
    // Apart from the above, which all workers read all the time.
    writer: CachePadded<Mutex<Writer>>,
    stats: CachePadded<StatCells>,
}

impl fmt::Debug for Fdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fdb").field("len", &self.len()).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Fdb {
    /// An empty table for at most `limit` entries, in which stations move as often as they like ([`Fdb::set_damping`]).
    pub fn new(limit: u32) -> Result<Self, FdbError> {
        if limit == 0 || limit > MAX_LIMIT {
            return Err(FdbError::Limit(limit));
        }
        let (table, turn) = Table::new(limit as usize).map_err(|_| FdbError::Memory(limit))?;
        let movers = Movers::new(limit as usize).map_err(|_| FdbError::Memory(limit))?;
        Ok(Self {
            bytes: size_of::<Self>() + table.bytes() + movers.bytes(),
            table,
            limit,
            writer: CachePadded::new(Mutex::new(Writer::new(turn, limit as usize, movers))),
            stats: CachePadded::default(),
        })
    }

    /// The most entries it holds.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.write().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many dynamic entries a port has.
    pub fn port_len(&self, port: PortIdx) -> usize {
        self.write().port_len(port)
    }

    /// Octets of memory when every page is in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it has counted.
    pub fn stats(&self) -> FdbStats {
        self.stats.read()
    }

    /// Hashes a key, for this table only.
    #[inline]
    pub fn prepare(&self, key: FdbKey) -> Hashed {
        self.table.prepare(key)
    }

    /// Loads the first cache line that a lookup of the key will need, so that a caller can start the loads of a whole batch
    /// before it waits for the first. The number means nothing; it is there for the load to be needed.
    #[inline]
    pub fn warm(&self, hashed: &Hashed) -> u64 {
        self.table.warm(hashed)
    }

    /// Where frames for the station go; `None` if it is not known.
    #[inline]
    pub fn lookup(&self, key: FdbKey) -> Option<Dest> {
        self.lookup_hashed(&self.prepare(key))
    }

    /// [`Fdb::lookup`] of a key that was hashed before.
    #[inline]
    pub fn lookup_hashed(&self, hashed: &Hashed) -> Option<Dest> {
        self.table.find(hashed).map(|found| found.word.dest())
    }

    /// All that is known about a key.
    pub fn get(&self, key: FdbKey) -> Option<Entry> {
        self.table.find(&self.prepare(key)).map(|found| Entry::of(key, found.word))
    }

    /// Notes that the station was heard from `from`, which may hold `port_limit` dynamic entries (0 = no limit).
    #[inline]
    pub fn learn(&self, key: FdbKey, from: Dest, port_limit: u32, now: Tick) -> Learn {
        self.learn_hashed(&self.prepare(key), from, port_limit, now)
    }

    /// [`Fdb::learn`] of a key that was hashed before.
    #[inline]
    pub fn learn_hashed(&self, hashed: &Hashed, from: Dest, port_limit: u32, now: Tick) -> Learn {
        if let Some(found) = self.table.find(hashed) {
            if found.word.dest() == from {
                match found.word.refreshed(now) {
                    Some(word) if !self.table.refresh(found.slot, found.word, word) => {}
                    _ => return Learn::Known,
                }
            } else if found.word.kind() == EntryKind::Sticky {
                count(&self.stats.refused_sticky, 1);
                return Learn::Refused(LearnRefusal::Sticky);
            } else if found.word.is_held() {
                count(&self.stats.refused_damped, 1);
                return Learn::Refused(LearnRefusal::Damped);
            }
        }
        self.learn_changed(hashed.key(), from, port_limit, now)
    }

    /// Learns with the lock held, whatever was the case before it was.
    #[cold]
    fn learn_changed(&self, key: FdbKey, from: Dest, port_limit: u32, now: Tick) -> Learn {
        // Hashed again: what is stored must not depend on the caller having asked the right table to prepare it.
        let hashed = self.prepare(key);
        let mut writer = self.write();
        let at_limit = |writer: &Writer| port_limit != 0 && writer.port_len(from.port) >= port_limit as usize;
        let refused = |refusal| {
            let cell = match refusal {
                LearnRefusal::PortLimit => &self.stats.refused_port_limit,
                LearnRefusal::TableFull => &self.stats.refused_full,
                LearnRefusal::Sticky => &self.stats.refused_sticky,
                LearnRefusal::Damped => &self.stats.refused_damped,
            };
            count(cell, 1);
            Learn::Refused(refusal)
        };

        let Some(found) = self.table.find(&hashed) else {
            if at_limit(&writer) {
                return refused(LearnRefusal::PortLimit);
            }
            let word = Word::new(from, EntryKind::Dynamic, now);
            return match self.add(&mut writer, &hashed, word, Scan::Bounded, now) {
                Ok(()) => {
                    count(&self.stats.learned, 1);
                    Learn::New
                }
                Err(TableFull) => refused(LearnRefusal::TableFull),
            };
        };

        let (was, kind) = (found.word.dest(), found.word.kind());
        if was == from {
            if let Some(word) = found.word.refreshed(now) {
                // Fails only if another worker has refreshed it this instant, which is as good.
                self.table.refresh(found.slot, found.word, word);
            }
            return Learn::Known;
        }
        if kind == EntryKind::Sticky {
            return refused(LearnRefusal::Sticky);
        }
        if found.word.is_held() {
            return refused(LearnRefusal::Damped);
        }
        if kind == EntryKind::Dynamic && was.port != from.port && at_limit(&writer) {
            return refused(LearnRefusal::PortLimit);
        }
        if let Some(on) = writer.movers.count(key, was, from, now) {
            writer.replace(&self.table, &found, Word::new(on, kind, now).held());
            count(&self.stats.damped, 1);
            if on != from {
                return refused(LearnRefusal::Damped);
            }
        } else {
            writer.replace(&self.table, &found, Word::new(from, kind, now));
        }
        count(&self.stats.moved, 1);
        Learn::Moved { from: was }
    }

    /// Stores a key that is not in the table, evicting if it is full.
    fn add(
        &self,
        writer: &mut Writer,
        hashed: &Hashed,
        word: Word,
        scan: Scan,
        now: Tick,
    ) -> Result<(), TableFull> {
        // The slot first: nothing is evicted for a key that has none within reach.
        let slot = self.table.vacancy(hashed).ok_or(TableFull)?;
        if writer.is_full() {
            if !writer.evict_for(&self.table, word, scan, now) {
                return Err(TableFull);
            }
            count(&self.stats.evicted, 1);
        }
        writer.fill(&self.table, hashed, slot, word);
        Ok(())
    }

    /// Sets an entry, whatever was known about the key; returns what was.
    /// In a full table a static or sticky entry takes the place of a dynamic one of a port that holds more than its
    /// fair share, and a dynamic one is treated as if it were learned.
    pub fn insert(
        &self,
        key: FdbKey,
        dest: Dest,
        kind: EntryKind,
        now: Tick,
    ) -> Result<Option<Entry>, TableFull> {
        let hashed = self.prepare(key);
        let word = Word::new(dest, kind, now);
        let mut writer = self.write();
        writer.movers.release(key);
        if let Some(found) = self.table.find(&hashed) {
            writer.replace(&self.table, &found, word);
            return Ok(Some(Entry::of(key, found.word)));
        }
        self.add(&mut writer, &hashed, word, Scan::Whole, now).map(|()| None)
    }

    /// Removes an entry of any kind; returns what it was.
    pub fn remove(&self, key: FdbKey) -> Option<Entry> {
        let mut writer = self.write();
        writer.movers.release(key);
        let found = self.table.find(&self.prepare(key))?;
        writer.clear(&self.table, &found);
        Some(Entry::of(key, found.word))
    }

    /// Removes the entries that match; returns how many.
    /// What is learned while it runs may stay.
    pub fn flush(&self, flush: &Flush) -> usize {
        let mut flushed = 0;
        let mut at = self.table.skip_empty(0, usize::MAX);
        while at < self.table.buckets() {
            let end = self.table.region_end(at);
            let mut writer = self.write();
            for bucket in at..end {
                for found in self.table.entries(bucket).filter(|found| flush.takes(found)) {
                    writer.clear(&self.table, &found);
                    flushed += 1;
                }
            }
            drop(writer);
            at = self.table.skip_empty(end, usize::MAX);
        }
        self.write().movers.flush(flush);
        count(&self.stats.flushed, flushed);
        flushed
    }

    /// Removes dynamic entries whose station has not been heard for more than `ageing`, going on where the last call stopped.
    /// Looks at no more than `budget` buckets (three slots, one cache line each); 64 empty pages count as one of them.
    ///
    /// Stamps are whole seconds, so an entry goes between zero and two seconds after it could, and never before.
    /// Zero forgets every dynamic entry; more than 8 years is never.
    pub fn sweep(&self, now: Tick, ageing: Duration, budget: usize) -> Swept {
        let never = ageing.as_secs() >= u64::from(MAX_AGE_SECS);
        let max_age = ageing.as_secs() + u64::from(ageing.subsec_nanos() > 0 && !never);
        let expires = |found: &Found| {
            found.word.kind() == EntryKind::Dynamic
                && !never
                && (ageing.is_zero() || u64::from(found.word.age(now)) > max_age)
        };
        let mut swept = Swept::default();
        let mut left = budget;
        while left > 0 && !swept.done {
            let mut writer = self.write();
            let begin = self.table.skip_empty(writer.sweep_at, left.saturating_mul(REGIONS_PER_UNIT));
            let skipped = (begin - writer.sweep_at) / table::REGION;
            left -= skipped.div_ceil(REGIONS_PER_UNIT).min(left);
            let end = self.table.region_end(begin).min(begin + left).min(self.table.buckets());
            for bucket in begin..end {
                for found in self.table.entries(bucket) {
                    swept.examined += 1;
                    if expires(&found) && writer.clear_unchanged(&self.table, &found) {
                        swept.expired += 1;
                    }
                }
            }
            left -= end.saturating_sub(begin);
            swept.done = end == self.table.buckets();
            writer.sweep_at = if swept.done { 0 } else { end };
        }
        count(&self.stats.expired, swept.expired);
        swept
    }

    /// Says from now on when stations are held, and for how long. One that is held stays held, its time reckoned anew; where the
    /// new limit is 0 until the next [`Fdb::settle`].
    pub fn set_damping(&self, damping: Damping) {
        self.write().movers.set_damping(damping);
    }

    /// When stations are held, and for how long.
    pub fn damping(&self) -> Damping {
        self.write().movers.damping()
    }

    /// The stations that are held, in no order.
    pub fn damped(&self) -> Vec<Damped> {
        let writer = self.write();
        let held = writer.movers.held();
        let of = |found: Found, track| writer.movers.describe(track, found.word.dest());
        held.iter().filter_map(|track| self.held(track.key()).map(|found| of(found, track))).collect()
    }

    /// Releases the stations whose hold has had its time, and tells what has changed since the last call; to be called about once a
    /// second. Holds that ended with their entry are not told.
    pub fn settle(&self, now: Tick) -> Settled {
        let mut writer = self.write();
        let mut settled = Settled::default();
        for track in writer.movers.held() {
            let Some(found) = self.held(track.key()) else {
                writer.movers.release(track.key());
                continue;
            };
            let damped = writer.movers.describe(&track, found.word.dest());
            if writer.movers.is_over(&track, now) {
                writer.replace(&self.table, &found, found.word.released());
                writer.movers.release(track.key());
                settled.released.push(damped);
            } else if !track.is_told() {
                writer.movers.tell(track.key());
                settled.held.push(damped);
            }
        }
        settled
    }

    /// The entry of a key, if it is held.
    fn held(&self, key: FdbKey) -> Option<Found> {
        self.table.find(&self.prepare(key)).filter(|found| found.word.is_held())
    }

    /// Appends up to `max` entries to `out`, from a cursor on; returns where to go on, `None` at the end.
    /// Takes no lock. An entry that stays while the pages are taken is listed once; one that comes or goes may be
    /// listed or not. The order is the table's and must not be shown to those who might learn the hash from it: sort.
    pub fn page(&self, from: Cursor, out: &mut Vec<Entry>, max: usize) -> Option<Cursor> {
        let end = self.table.buckets() * SLOTS;
        let mut left = max;
        let mut at = from.0;
        while at < end {
            let bucket = at / SLOTS;
            let occupied = self.table.skip_empty(bucket, usize::MAX);
            if occupied > bucket {
                at = occupied * SLOTS;
                continue;
            }
            let region_end = self.table.region_end(bucket) * SLOTS;
            while at < region_end {
                if left == 0 {
                    return Some(Cursor(at));
                }
                if let Some(found) = self.table.entry(at) {
                    out.push(Entry::of(found.key, found.word));
                    left -= 1;
                }
                at += 1;
            }
        }
        None
    }

    /// Copies everything into another table, static and sticky entries first, with their stamps.
    ///
    /// The other may be in use: what it has learned already is newer and stays, except that a static or sticky entry
    /// replaces a dynamic one. If it is smaller, its fair shares decide who is dropped. Nobody is held in the copy.
    pub fn copy_into(&self, other: &Self, now: Tick) -> Copied {
        let mut copied = Copied::default();
        for dynamic in [false, true] {
            let mut at = self.table.skip_empty(0, usize::MAX);
            while at < self.table.buckets() {
                for found in self.table.entries(at) {
                    if (found.word.kind() == EntryKind::Dynamic) == dynamic {
                        other.adopt(found.key, found.word.released(), now, &mut copied);
                    }
                }
                at = self.table.skip_empty(at + 1, usize::MAX);
            }
        }
        copied
    }

    fn adopt(&self, key: FdbKey, word: Word, now: Tick, copied: &mut Copied) {
        let hashed = self.prepare(key);
        let mut writer = self.write();
        if let Some(found) = self.table.find(&hashed) {
            if word.kind() != EntryKind::Dynamic && found.word.kind() == EntryKind::Dynamic {
                writer.replace(&self.table, &found, word);
                copied.copied += 1;
            } else {
                copied.superseded += 1;
            }
            return;
        }
        let full = writer.is_full();
        match self.add(&mut writer, &hashed, word, Scan::Whole, now) {
            // In for one out.
            Ok(()) if full => copied.dropped += 1,
            Ok(()) => copied.copied += 1,
            Err(TableFull) => copied.dropped += 1,
        }
    }

    fn write(&self) -> MutexGuard<'_, Writer> {
        // The counts are kept by code that does not panic between two of them.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
