//! Stations that move too often are held in one place.
//!
//! Owns how often each station has moved lately, where it stayed before, and which are held. Knows nothing of the table; the
//! writer asks it about each move, and marks the entry.
//!
//! An address that is heard at two places in turn is a loop, or two stations with one address. Following it costs a write
//! for each frame, its traffic goes now here, now there, and a loop goes on for ever. RFC 7432 15.1 has a rule for
//! EVPN: "a PE that detects a MAC mobility event via local learning starts an M-second timer (with a default value of
//! M = 180), and if it detects N MAC moves before the timer expires (with a default value of N = 5), it concludes that a
//! duplicate-MAC situation has occurred."
//!
//! Rules:
//! - At the move that reaches the limit the station is put back where it last stayed, and held there. In a loop that is its own
//!   place: the frames that come round let it stay nowhere. Holding it where it happens to be would leave a loop that turns
//!   one way: two switches with two cables between them each hold it on the cable that the frames come by.
//! - A place counts as one where it stayed if it came there at leisure, too. When another switch of a loop is the first to hold
//!   it, its frames may go on round one way, and it would seem to stay here where they come in; the next frame that it
//!   sends itself is then the move that ends it.
//! - While it is held, a frame that claims it elsewhere is refused, which ends the loop; at the place where it is held it works.
//! - The hold ends after its time, and counting begins anew. It ends before with its entry: an operator's entry for the
//!   address, a flush or its age are the corrective action of the RFC, which has no end of its own.
//!
//! Memory: 48 octets for each station that moved, of which there is one for 64 entries, from 64 to 4096; touched only where one did.
//! Where more move at once, some newcomers take the place of those with the fewest moves, so that of any number of
//! stations in a loop some are found, held and quiet, and then the next.

use std::{hash::BuildHasher, time::Duration};

use zerocopy::{FromZeros, error::AllocError};

use super::{
    Flush,
    entry::{Dest, EntryKind, FdbKey, Word},
};
use crate::tick::Tick;

/// Addresses come off the wire, so which share a set is nobody's to choose.
type TrackHash = foldhash::quality::RandomState;

/// Tracks of a set: where the tracks of some stations are, one of which yields to another.
const WAYS: usize = 4;
/// The most stations tracked: 192 KiB.
const TRACKS: usize = 4096;
/// Entries of a table for each station tracked: less than an octet an entry.
const ENTRIES_PER_TRACK: usize = 64;
/// The fewest stations tracked: 3 KiB.
const MIN_TRACKS: usize = 64;
/// One of so many newcomers to a set without room takes the place of another. If all did, stations that move in turn would
/// push each other out before any has moved twice; if none did, those that moved once would stay. Prime, to be out of step.
const TURNED_AWAY: u32 = 13;

/// How long a station is heard at one place for it to count as having stayed there. Frames in a loop come round in microseconds,
/// over tunnels in milliseconds; two stations with one address stay at no place or at both.
const STAY: Duration = Duration::from_secs(1);

/// When a station is held, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// The move within the window at which it is held; 0 = never.
    pub moves: u32,
    /// The window, from the first move on.
    pub window: Duration,
    /// How long a station is held.
    pub hold: Duration,
}

impl Damping {
    /// Nobody is held.
    pub const OFF: Self = Self::after(0);

    /// Holds a station for 30 s at its move number `moves` within 180 s.
    ///
    /// The window is M of RFC 7432 15.1. The hold is ours, as the RFC waits for the operator: long enough that a loop is a few frames
    /// every half minute, short enough that a station which has moved for good is not missed for longer than a spanning
    /// tree takes to converge (two times 15 s of forward delay, 802.1D-2004 table 17-1).
    pub const fn after(moves: u32) -> Self {
        Self { moves, window: Duration::from_secs(180), hold: Duration::from_secs(30) }
    }
}

/// A station that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damped {
    /// VLAN and address.
    pub key: FdbKey,
    /// Where it is held.
    pub dest: Dest,
    /// The other place: where it was heard when it was one move too many, or was before.
    pub elsewhere: Dest,
    /// Moves within the window, the last one included.
    pub moves: u32,
    /// When the hold ends; the next [`Fdb::settle`](super::Fdb::settle) after it ends it.
    pub until: Tick,
}

/// What [`Fdb::settle`](super::Fdb::settle) has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Stations held since the last call, and still held.
    pub held: Vec<Damped>,
    /// Stations whose hold has ended with its time; they are where they were, and may move.
    pub released: Vec<Damped>,
}

/// How often a station has moved lately; all zero is none.
#[derive(Clone, Copy, Debug, Default, FromZeros)]
pub(super) struct Track {
    key: u64,
    /// Nanoseconds: when the window began, or the hold.
    began: u64,
    /// Nanoseconds: when it moved last.
    moved: u64,
    /// Where it last stayed, as the bits of a word.
    stayed: u64,
    /// [`Damped::elsewhere`], as the bits of a word; 0 while the station is not held.
    elsewhere: u64,
    moves: u32,
    /// Whether the last move came after it had stayed, be it where it may.
    at_leisure: bool,
    /// Whether [`Settled::held`] has had it.
    told: bool,
}

impl Track {
    fn begin(key: FdbKey, was: Dest, now: Tick) -> Self {
        let nanos = now.nanos();
        let key = key.bits();
        Self { key, began: nanos, moved: nanos, stayed: place(was), at_leisure: true, ..Self::default() }
    }

    fn is_held(&self) -> bool {
        self.elsewhere != 0
    }

    /// Whether `time` has passed since it began; workers whose batches began earlier are not surprised.
    fn is_over(&self, time: Duration, now: Tick) -> bool {
        has_passed(time, self.began, now)
    }

    pub(super) fn key(&self) -> FdbKey {
        FdbKey::from_bits(self.key)
    }

    pub(super) fn is_told(&self) -> bool {
        self.told
    }
}

/// A place as the bits of a word, whose kind and stamp mean nothing; never 0.
fn place(dest: Dest) -> u64 {
    Word::new(dest, EntryKind::Dynamic, Tick::default()).bits()
}

fn has_passed(time: Duration, since: u64, now: Tick) -> bool {
    u128::from(now.nanos().saturating_sub(since)) >= time.as_nanos()
}

/// The stations that moved lately.
#[derive(Debug)]
pub(super) struct Movers {
    damping: Damping,
    /// Sets of [`WAYS`].
    tracks: Box<[Track]>,
    held: usize,
    /// Newcomers to sets without room.
    turned_away: u32,
    hash: TrackHash,
}

impl Movers {
    /// Room for the stations of a table of `limit` entries.
    pub(super) fn new(limit: usize) -> Result<Self, AllocError> {
        let tracks = (limit / ENTRIES_PER_TRACK).clamp(MIN_TRACKS, TRACKS).next_multiple_of(WAYS);
        let tracks = <[Track]>::new_box_zeroed_with_elems(tracks)?;
        Ok(Self { damping: Damping::OFF, tracks, held: 0, turned_away: 0, hash: TrackHash::default() })
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.tracks)
    }

    pub(super) fn damping(&self) -> Damping {
        self.damping
    }

    pub(super) fn set_damping(&mut self, damping: Damping) {
        self.damping = damping;
    }

    fn set(&mut self, key: FdbKey) -> &mut [Track] {
        let (sets, _) = self.tracks.as_chunks_mut::<WAYS>();
        let at = (u128::from(self.hash.hash_one(key.bits())) * sets.len() as u128) >> 64;
        sets.get_mut(at as usize).map_or(&mut [], |set| set)
    }

    fn track(&mut self, key: FdbKey) -> Option<&mut Track> {
        self.set(key).iter_mut().find(|track| track.key == key.bits())
    }

    /// Counts a move from `was` to `to` of a station whose entry is not held. If it is one too many, the place where the station is
    /// held from now on.
    pub(super) fn count(&mut self, key: FdbKey, was: Dest, to: Dest, now: Tick) -> Option<Dest> {
        let Damping { moves: limit, window, .. } = self.damping;
        if limit == 0 {
            return None;
        }
        let known = self.set(key).iter().position(|track| track.key == key.bits());
        let at = known.or_else(|| self.yielding(key, now))?;
        let track = self.set(key).get_mut(at)?;
        // A track that is held has lost its entry meanwhile, and the hold has ended with that.
        let lapsed = track.is_held();
        if track.key != key.bits() || lapsed || track.is_over(window, now) {
            *track = Track::begin(key, was, now);
        } else {
            let at_leisure = has_passed(STAY, track.moved, now);
            if at_leisure && track.at_leisure {
                track.stayed = place(was);
            }
            track.at_leisure = at_leisure;
            track.moved = now.nanos();
        }
        track.moves = track.moves.saturating_add(1);
        let hold = (track.moves >= limit).then(|| {
            let on = Word::from_bits(track.stayed).map_or(was, Word::dest);
            track.elsewhere = place(if on == to { was } else { to });
            track.began = now.nanos();
            on
        });
        self.held = self.held + usize::from(hold.is_some()) - usize::from(lapsed);
        hold
    }

    /// The place in its set for a station that has none: one whose window is over, if need be one that moved least, and of these the
    /// one whose window began first. `None` where it is turned away, or all are held; it then moves uncounted.
    fn yielding(&mut self, key: FdbKey, now: Tick) -> Option<usize> {
        let window = self.damping.window;
        let free = |track: &Track| track.key == 0 || track.is_over(window, now);
        let others = self.set(key).iter().enumerate().filter(|(_, track)| !track.is_held());
        let (at, track) = others.min_by_key(|(_, track)| (!free(track), track.moves, track.began))?;
        if free(track) {
            return Some(at);
        }
        self.turned_away = (self.turned_away + 1) % TURNED_AWAY;
        (self.turned_away == 0).then_some(at)
    }

    /// The tracks that are held.
    pub(super) fn held(&self) -> Vec<Track> {
        if self.held == 0 {
            return Vec::new(); // without touching the tracks
        }
        self.tracks.iter().filter(|track| track.is_held()).copied().collect()
    }

    /// Whether a hold has had its time, or there is none any more.
    pub(super) fn is_over(&self, track: &Track, now: Tick) -> bool {
        self.damping.moves == 0 || track.is_over(self.damping.hold, now)
    }

    /// Forgets the moves of stations that stayed where entries are flushed: they must not be put back there.
    pub(super) fn flush(&mut self, flush: &Flush) {
        for track in self.tracks.iter_mut().filter(|track| track.key != 0 && !track.is_held()) {
            let stayed = Word::from_bits(track.stayed);
            if stayed.is_some_and(|word| flush.covers(track.key(), word.dest())) {
                *track = Track::default();
            }
        }
    }

    /// Ends a hold and forgets the moves.
    pub(super) fn release(&mut self, key: FdbKey) {
        if let Some(track) = self.track(key) {
            let held = track.is_held();
            *track = Track::default();
            self.held -= usize::from(held);
        }
    }

    pub(super) fn tell(&mut self, key: FdbKey) {
        if let Some(track) = self.track(key) {
            track.told = true;
        }
    }

    /// A held track for those who are not in here; `dest` is where its entry is.
    pub(super) fn describe(&self, track: &Track, dest: Dest) -> Damped {
        Damped {
            key: track.key(),
            dest,
            elsewhere: Word::from_bits(track.elsewhere).map_or(dest, Word::dest),
            moves: track.moves,
            until: Tick::from_nanos(track.began).after(self.damping.hold),
        }
    }
}

#[cfg(test)]
mod tests;
