//! What only the holder of the table's lock sees: who holds how many entries, who moves how often, and where the walks stopped.
//!
//! Owns the numbers that limits and fair shares are decided by. Every change of the table's entries goes through here, so
//! that the numbers and the table agree.

use hashbrown::HashMap;

use super::{
    damping::Movers,
    entry::{EntryKind, Word},
    table::{Found, Hashed, Slot, Table, Turn},
};
use crate::{index::PortIdx, tick::Tick};

/// Port numbers come from the snapshot, not off the wire, so the cheapest hash does.
type PortHash = foldhash::fast::RandomState;

/// Buckets that one learned address may look at to find an entry to evict: a few microseconds.
const EVICT_SCAN: usize = 64;
/// Evictable entries after which the search stops and the oldest of them goes.
const EVICT_CANDIDATES: usize = 16;

/// How far a search for an entry to evict may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// A bounded number of buckets: a frame is waiting.
    Bounded,
    /// Round the whole table: an operator is waiting, and would rather have the entry.
    Whole,
}

/// The writer's side of a forwarding database.
#[derive(Debug)]
pub(super) struct Writer {
    turn: Turn,
    limit: usize,
    /// Dynamic entries of each port that ever had one. A port stays when its count falls to 0, so that learning in a
    /// table that has seen its ports allocates nothing.
    ports: HashMap<PortIdx, usize, PortHash>,
    /// Ports whose count is not 0.
    holders: usize,
    dynamic: usize,
    /// Static and sticky entries.
    pinned: usize,
    /// How often stations have moved. Whatever entry is marked as held is held here too; not the other way round, as an entry can
    /// go at any time.
    pub(super) movers: Movers,
    /// The bucket where the next sweep goes on.
    pub(super) sweep_at: usize,
    /// The bucket where the next search for an entry to evict goes on, so that searches share the table's entries out.
    hand: usize,
}

impl Writer {
    pub(super) fn new(turn: Turn, limit: usize, movers: Movers) -> Self {
        let ports = HashMap::with_hasher(PortHash::default());
        Self { turn, limit, ports, holders: 0, dynamic: 0, pinned: 0, movers, sweep_at: 0, hand: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.dynamic + self.pinned
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// How many dynamic entries a port has.
    pub(super) fn port_len(&self, port: PortIdx) -> usize {
        self.ports.get(&port).copied().unwrap_or(0)
    }

    pub(super) fn fill(&mut self, table: &Table, hashed: &Hashed, slot: Slot, word: Word) {
        table.fill(&mut self.turn, hashed, slot, word);
        self.count(word);
    }

    pub(super) fn replace(&mut self, table: &Table, found: &Found, word: Word) {
        table.replace(&mut self.turn, found.slot, word);
        self.uncount(found.word);
        self.count(word);
    }

    pub(super) fn clear(&mut self, table: &Table, found: &Found) {
        table.clear(&mut self.turn, found);
        self.uncount(found.word);
    }

    pub(super) fn clear_unchanged(&mut self, table: &Table, found: &Found) -> bool {
        let cleared = table.clear_unchanged(&mut self.turn, found);
        if cleared {
            self.uncount(found.word);
        }
        cleared
    }

    /// Evicts one dynamic entry of a port that holds more than its fair share, so that `word` finds room in a full table;
    /// whether that was possible.
    ///
    /// The room that static and sticky entries leave is shared equally by the ports that hold dynamic entries,
    /// `word`'s port among them. Open vSwitch has the idea (`lib/mac-learning.h`, complication 2): a port that floods
    /// addresses must not push out those of the others.
    pub(super) fn evict_for(&mut self, table: &Table, word: Word, scan: Scan, now: Tick) -> bool {
        let share = if word.kind() == EntryKind::Dynamic {
            let held = self.port_len(word.port());
            // With more ports than places some port has one entry and this one may have none.
            let places = self.limit.saturating_sub(self.pinned);
            let holders = self.holders + usize::from(held == 0);
            let share = places.checked_div(holders).unwrap_or(0).max(1);
            if held >= share {
                return false;
            }
            share
        } else {
            let places = self.limit.saturating_sub(self.pinned + 1);
            places.checked_div(self.holders).unwrap_or(0)
        };
        let Some(victim) = self.oldest_above(table, share, scan, now) else { return false };
        self.clear(table, &victim);
        true
    }

    /// The oldest of some dynamic entries whose ports have more than `share`.
    fn oldest_above(&mut self, table: &Table, share: usize, scan: Scan, now: Tick) -> Option<Found> {
        if self.dynamic == 0 {
            return None;
        }
        let mut left = match scan {
            Scan::Bounded => EVICT_SCAN.min(table.buckets()),
            Scan::Whole => table.buckets(),
        };
        let mut candidates = 0;
        let mut oldest: Option<Found> = None;
        while left > 0 && candidates < EVICT_CANDIDATES {
            for found in table.entries(self.hand) {
                if found.word.kind() != EntryKind::Dynamic || self.port_len(found.word.port()) <= share {
                    continue;
                }
                candidates += 1;
                if oldest.is_none_or(|o| found.word.age(now) > o.word.age(now)) {
                    oldest = Some(found);
                }
            }
            self.hand = if self.hand + 1 >= table.buckets() { 0 } else { self.hand + 1 };
            left -= 1;
        }
        oldest
    }

    fn count(&mut self, word: Word) {
        if word.kind() != EntryKind::Dynamic {
            self.pinned += 1;
            return;
        }
        let held = self.ports.entry(word.port()).or_insert(0);
        self.holders += usize::from(*held == 0);
        *held += 1;
        self.dynamic += 1;
    }

    fn uncount(&mut self, word: Word) {
        if word.kind() != EntryKind::Dynamic {
            self.pinned -= 1;
            return;
        }
        if let Some(held) = self.ports.get_mut(&word.port()) {
            *held -= 1;
            self.holders -= usize::from(*held == 0);
        }
        self.dynamic -= 1;
    }
}

#[cfg(test)]
use super::damping::Track;

#[cfg(test)]
impl Writer {
    /// Recomputes every number from the table and compares.
    pub(super) fn check(&self, table: &Table) {
        let mut ports: HashMap<PortIdx, usize, PortHash> = HashMap::default();
        let (mut dynamic, mut pinned) = (0, 0);
        let held: Vec<_> = self.movers.held().iter().map(Track::key).collect();
        for found in (0..table.buckets()).flat_map(|b| table.entries(b)) {
            assert!(!found.word.is_held() || held.contains(&found.key), "{:?} is held for ever", found.key);
            if found.word.kind() == EntryKind::Dynamic {
                *ports.entry(found.word.port()).or_default() += 1;
                dynamic += 1;
            } else {
                pinned += 1;
            }
        }
        assert_eq!((self.dynamic, self.pinned, self.holders), (dynamic, pinned, ports.len()));
        assert!(self.len() <= self.limit);
        for (&port, &held) in &self.ports {
            assert_eq!(held, ports.get(&port).copied().unwrap_or(0), "entries of {port:?}");
        }
    }
}
