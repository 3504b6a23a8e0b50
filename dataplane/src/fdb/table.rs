//! The hash table under the forwarding database: buckets of one cache line, read without locks.
//!
//! Owns where a key is stored and how readers and the writer share a bucket. Knows nothing of ports, kinds or ages.
//!
//! ```text
//!  64 octets: | version | key 0 | key 1 | key 2 | word 0 | word 1 | word 2 | overflow |
//! ```
//!
//! **Memory.** Two entries a bucket when the table is full, so 32 octets an entry, a third of the slots free.
//! It is allocated zeroed and untouched: an all-zero table is an empty table, and pages nobody has stored in cost
//! nothing. (`Box<[T]>` with `align(64)` would not do: Rust's system allocator fills over-aligned zeroed memory by
//! hand and so touches all of it. The cells are plain 8-octet words and the first bucket is where a page begins.)
//! One octet per page counts the entries in it, so that walks need not touch empty pages.
//!
//! **Probing.** A key goes to the first bucket with a free slot from its home on. Every bucket passed over counts it in
//! its `overflow` (F14's idea), so a search ends at the first bucket that nobody overflowed, and removing leaves no
//! tombstone. An entry never changes its slot. No key is stored more than [`MAX_REACH`] buckets from home: that bounds a
//! search, whatever the keys.
//!
//! **One writer.** What changes more than a stamp takes a `&mut Turn`, of which the caller has one per table.
//!
//! **Many readers.** They load, and never wait for a writer, even one that was preempted half way:
//! - a word of 0 means the slot is empty, whatever its key says; removing stores that 0 and nothing else;
//! - filling an empty slot stores the key, then a new version, then the word, each with release order;
//! - a reader loads version, key, word, each with acquire order, and the version once more.
//!
//! If a reader sees the old key and the new word, then the word's release made the new version visible, and it starts over.
//! If it had begun with the new version, that one's release made the new key visible, and it would not have matched.
//! If it sees the new key, it cannot see the old word, because the 0 lies between. So a pair is never torn.
//!
//! A stamp is refreshed by a compare-exchange on the word alone, by anybody. The exchange could hit another key only
//! if the slot was given to one with the very same port, remote, kind and stamp meanwhile; that one is then kept a
//! second or so longer than it should, which is harmless.

use std::{
    hash::BuildHasher,
    sync::atomic::{
        AtomicU8, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use zerocopy::{FromZeros, error::AllocError};

use super::entry::{FdbKey, Word};

/// Keys come off the wire, so the hash is seeded, per table. foldhash makes no claim against an attacker who can watch
/// lookups being slow; if that matters, `std::hash::RandomState` (SipHash-1-3) fits here and costs some 14 ns a hash.
type TableHash = foldhash::quality::RandomState;

/// Slots of a bucket.
pub(super) const SLOTS: usize = 3;
/// Cells of a bucket: 64 octets.
const CELLS: usize = 8;
const VERSION: usize = 0;
const KEYS: usize = 1;
const WORDS: usize = KEYS + SLOTS;
const OVERFLOW: usize = WORDS + SLOTS;

/// Buckets of a region: a page of 4 KiB.
pub(super) const REGION: usize = 64;
const PAGE: usize = 4096;

/// Entries per bucket at the limit: a load of two thirds.
const ENTRIES_PER_BUCKET: usize = 2;

/// The most buckets a search looks at.
/// Full tables of random keys were seen to need 24 at 65,536 entries, 33 at a million and 56 at sixteen million (1.23 on
/// average); only keys chosen with knowledge of the seed go further, and those are refused.
pub(super) const MAX_REACH: usize = 128;

type Bucket = [AtomicU64; CELLS];

/// A key and its hash in one table: lets a caller hash once and use it for warming, lookup and learning.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    key: FdbKey,
    hash: u64,
}

impl Hashed {
    /// The key.
    #[inline]
    pub const fn key(&self) -> FdbKey {
        self.key
    }
}

/// The right to change a table; there is one per table, behind its lock.
#[derive(Debug)]
pub(super) struct Turn(());

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    bucket: usize,
    slot: usize,
}

/// An entry and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) slot: Slot,
    pub(super) key: FdbKey,
    pub(super) word: Word,
}

pub(super) struct Table {
    cells: Box<[AtomicU64]>,
    /// The cell where the first bucket begins.
    first: usize,
    buckets: usize,
    /// The most buckets a search looks at: [`MAX_REACH`], or all of a small table.
    reach: usize,
    /// Entries in each region; at most 192.
    occupancy: Box<[AtomicU8]>,
    hash: TableHash,
}

impl Table {
    /// A table with room for `limit` entries, and the turn to write it.
    pub(super) fn new(limit: usize) -> Result<(Self, Turn), AllocError> {
        let buckets = limit / ENTRIES_PER_BUCKET + 1;
        let cells = <[AtomicU64]>::new_box_zeroed_with_elems(buckets * CELLS + PAGE / size_of::<u64>())?;
        let first = cells.as_ptr().align_offset(PAGE);
        let occupancy = <[AtomicU8]>::new_box_zeroed_with_elems(buckets.div_ceil(REGION))?;
        let reach = buckets.min(MAX_REACH);
        Ok((Self { cells, first, buckets, reach, occupancy, hash: TableHash::default() }, Turn(())))
    }

    /// How many buckets there are.
    #[inline]
    pub(super) fn buckets(&self) -> usize {
        self.buckets
    }

    /// Octets of memory when every page is in use.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.cells) + size_of_val(&*self.occupancy)
    }

    #[inline]
    pub(super) fn prepare(&self, key: FdbKey) -> Hashed {
        Hashed { key, hash: self.hash.hash_one(key.bits()) }
    }

    /// Multiplies instead of dividing, and needs no power of two (D. Lemire, "Fast random integer generation in an interval").
    #[inline]
    fn home(&self, hashed: &Hashed) -> usize {
        ((u128::from(hashed.hash) * self.buckets as u128) >> 64) as usize
    }

    #[inline]
    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets { 0 } else { bucket + 1 }
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        &self.cells[self.first..].as_chunks().0[at]
    }

    /// Loads the header of the key's home bucket and nothing else.
    #[inline]
    pub(super) fn warm(&self, hashed: &Hashed) -> u64 {
        self.bucket(self.home(hashed))[VERSION].load(Relaxed)
    }

    /// The entry of a key.
    #[inline]
    pub(super) fn find(&self, hashed: &Hashed) -> Option<Found> {
        let key = hashed.key.bits();
        let mut at = self.home(hashed);
        for _ in 0..self.reach {
            let bucket = self.bucket(at);
            if let Some((slot, word)) = find_in(bucket, key) {
                return Some(Found { slot: Slot { bucket: at, slot }, key: hashed.key, word });
            }
            if bucket[OVERFLOW].load(Acquire) == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Replaces a word that still is `old`; whether it was.
    #[inline]
    pub(super) fn refresh(&self, slot: Slot, old: Word, new: Word) -> bool {
        self.word(slot).compare_exchange(old.bits(), new.bits(), Release, Relaxed).is_ok()
    }

    /// The entries of a bucket, each read whole.
    pub(super) fn entries(&self, at: usize) -> impl Iterator<Item = Found> + '_ {
        let bucket = self.bucket(at);
        (0..SLOTS).filter_map(move |slot| {
            let (key, word) = read(bucket, slot)?;
            Some(Found { slot: Slot { bucket: at, slot }, key, word })
        })
    }

    /// The entry in slot number `n`, counted through the whole table.
    pub(super) fn entry(&self, n: usize) -> Option<Found> {
        let slot = Slot { bucket: n / SLOTS, slot: n % SLOTS };
        let (key, word) = read(self.bucket(slot.bucket), slot.slot)?;
        Some(Found { slot, key, word })
    }

    /// The first bucket from `at` on that is not in an empty region; the number of buckets if there is none.
    /// Looks at no more than `regions` regions, and returns where it stopped.
    pub(super) fn skip_empty(&self, at: usize, regions: usize) -> usize {
        let from = at / REGION;
        let counts = self.occupancy.get(from..).unwrap_or_default();
        let counts = &counts[..counts.len().min(regions)];
        match counts.iter().position(|n| n.load(Relaxed) != 0) {
            Some(0) => at,
            Some(n) => (from + n) * REGION,
            None => ((from + counts.len()) * REGION).min(self.buckets),
        }
    }

    /// The end of the region that bucket `at` is in.
    pub(super) fn region_end(&self, at: usize) -> usize {
        ((at / REGION + 1) * REGION).min(self.buckets)
    }

    /// A free slot for a key that is not in the table; `None` if there is none within reach.
    pub(super) fn vacancy(&self, hashed: &Hashed) -> Option<Slot> {
        let mut at = self.home(hashed);
        for _ in 0..self.reach {
            let bucket = self.bucket(at);
            if let Some(slot) = (0..SLOTS).find(|slot| bucket[WORDS + slot].load(Relaxed) == 0) {
                return Some(Slot { bucket: at, slot });
            }
            at = self.next(at);
        }
        None
    }

    /// Stores a key that is not in the table in a slot that [`Table::vacancy`] gave for it.
    pub(super) fn fill(&self, _: &mut Turn, hashed: &Hashed, slot: Slot, word: Word) {
        self.count_overflow(hashed, slot, |n| n + 1);
        let bucket = self.bucket(slot.bucket);
        bucket[KEYS + slot.slot].store(hashed.key.bits(), Release);
        bucket[VERSION].store(bucket[VERSION].load(Relaxed).wrapping_add(1), Release);
        bucket[WORDS + slot.slot].store(word.bits(), Release);
        let occupancy = &self.occupancy[slot.bucket / REGION];
        occupancy.store(occupancy.load(Relaxed) + 1, Relaxed);
    }

    /// Gives an entry another word.
    pub(super) fn replace(&self, _: &mut Turn, slot: Slot, word: Word) {
        self.word(slot).store(word.bits(), Release);
    }

    /// Removes an entry.
    pub(super) fn clear(&self, turn: &mut Turn, found: &Found) {
        self.word(found.slot).store(0, Release);
        self.cleared(turn, found);
    }

    /// Removes an entry unless it was refreshed since it was read; whether it was removed.
    pub(super) fn clear_unchanged(&self, turn: &mut Turn, found: &Found) -> bool {
        let word = found.word.bits();
        let cleared = self.word(found.slot).compare_exchange(word, 0, Release, Relaxed).is_ok();
        if cleared {
            self.cleared(turn, found);
        }
        cleared
    }

    fn cleared(&self, _: &mut Turn, found: &Found) {
        self.count_overflow(&self.prepare(found.key), found.slot, |n| n.saturating_sub(1));
        let occupancy = &self.occupancy[found.slot.bucket / REGION];
        occupancy.store(occupancy.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// Changes the overflow counts of the buckets that a key in `slot` has passed over.
    fn count_overflow(&self, hashed: &Hashed, slot: Slot, change: impl Fn(u64) -> u64) {
        let mut at = self.home(hashed);
        while at != slot.bucket {
            let overflow = &self.bucket(at)[OVERFLOW];
            overflow.store(change(overflow.load(Relaxed)), Release);
            at = self.next(at);
        }
    }

    #[inline]
    fn word(&self, slot: Slot) -> &AtomicU64 {
        &self.bucket(slot.bucket)[WORDS + slot.slot]
    }
}

/// Slot and word of a key in a bucket.
#[inline]
fn find_in(bucket: &Bucket, key: u64) -> Option<(usize, Word)> {
    'bucket: loop {
        let version = bucket[VERSION].load(Acquire);
        for slot in 0..SLOTS {
            if bucket[KEYS + slot].load(Acquire) == key
                && let Some(word) = Word::from_bits(bucket[WORDS + slot].load(Acquire))
            {
                if bucket[VERSION].load(Relaxed) != version {
                    continue 'bucket;
                }
                return Some((slot, word));
            }
        }
        return None;
    }
}

/// Key and word of a slot.
fn read(bucket: &Bucket, slot: usize) -> Option<(FdbKey, Word)> {
    loop {
        let version = bucket[VERSION].load(Acquire);
        let key = bucket[KEYS + slot].load(Acquire);
        let word = Word::from_bits(bucket[WORDS + slot].load(Acquire))?;
        if bucket[VERSION].load(Relaxed) == version {
            return Some((FdbKey::from_bits(key), word));
        }
    }
}

#[cfg(test)]
impl Table {
    /// Recomputes every count from the entries and compares.
    pub(super) fn check(&self) {
        let mut overflow = vec![0u64; self.buckets];
        let mut occupancy = vec![0usize; self.occupancy.len()];
        let mut keys = std::collections::HashSet::new();
        for found in (0..self.buckets).flat_map(|b| self.entries(b)) {
            assert!(keys.insert(found.key), "{:?} is stored twice", found.key);
            let hashed = self.prepare(found.key);
            assert_eq!(self.find(&hashed).map(|f| f.slot), Some(found.slot), "{:?} is not found", found.key);
            occupancy[found.slot.bucket / REGION] += 1;
            let mut at = self.home(&hashed);
            while at != found.slot.bucket {
                overflow[at] += 1;
                at = self.next(at);
            }
        }
        for (at, expected) in overflow.into_iter().enumerate() {
            assert_eq!(self.bucket(at)[OVERFLOW].load(Relaxed), expected, "overflow count of bucket {at}");
        }
        for (region, expected) in occupancy.into_iter().enumerate() {
            assert_eq!(
                usize::from(self.occupancy[region].load(Relaxed)),
                expected,
                "entries of region {region}"
            );
        }
    }

    /// The home bucket of a key.
    pub(super) fn home_of(&self, key: FdbKey) -> usize {
        self.home(&self.prepare(key))
    }

    /// How many buckets a search for an entry looks at.
    pub(super) fn distance(&self, found: &Found) -> usize {
        let home = self.home_of(found.key);
        (found.slot.bucket + self.buckets - home) % self.buckets + 1
    }

    /// Whether buckets begin where cache lines do.
    pub(super) fn is_aligned(&self) -> bool {
        self.bucket(0).as_ptr().addr().is_multiple_of(PAGE)
    }
}
