//! Keys, destinations and entries, and how they are packed into the table's words.
//!
//! A key is the VLAN above the 48 bits of the address.
//! A word is everything else that is known about the key, so that one atomic load reads all of it:
//!
//! ```text
//!   63   62         46 45      30 29 28 27        0
//! +------+-------------+----------+-----+-----------+
//! | held | remote + 1  |   port   |kind |   stamp   |    0 = no entry (a kind is never 0)
//! +------+-------------+----------+-----+-----------+
//! ```
//!
//! A stamp is the low 28 bits of the second in which the station was last heard: it wraps after 8.5 years, and ages
//! are differences modulo 2^28.

use std::{fmt, time::Duration};

use crate::{
    index::{PortIdx, RemoteIdx},
    tick::Tick,
    wire::ethernet::MacAddr,
};

const MAC_BITS: u32 = 48;
const VLAN_MASK: u16 = 0x0fff;

const STAMP_BITS: u32 = 28;
const STAMP_MASK: u32 = (1 << STAMP_BITS) - 1;
const KIND_SHIFT: u32 = STAMP_BITS;
const KIND_MASK: u64 = 0b11;
const PORT_SHIFT: u32 = KIND_SHIFT + 2;
const REMOTE_SHIFT: u32 = PORT_SHIFT + 16;
const HELD: u64 = 1 << 63;

/// How many seconds a stamp may lie in the future and still count as "just now".
/// Workers read the clock once a batch, so the one that stamped may be ahead of the one that looks, by a batch: far
/// less than this. All other differences are ages.
const SKEW_SECS: u32 = 60;

/// What the forwarding database is looked up by: a VLAN (0 = untagged) and an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbKey(u64);

impl FdbKey {
    /// The key of `mac` in `vlan`: 0 for untagged, else 1 to 4094.
    #[inline]
    pub const fn new(vlan: u16, mac: MacAddr) -> Self {
        Self(((vlan & VLAN_MASK) as u64) << MAC_BITS | mac.bits())
    }

    /// The VLAN, 0 = untagged.
    #[inline]
    pub const fn vlan(self) -> u16 {
        (self.0 >> MAC_BITS) as u16
    }

    /// The address.
    #[inline]
    pub const fn mac(self) -> MacAddr {
        MacAddr::from_bits(self.0)
    }

    #[inline]
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for FdbKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.mac(), self.vlan())
    }
}

/// Where frames for a station go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dest {
    /// The port.
    pub port: PortIdx,
    /// The endpoint behind it, if the port is a tunnel.
    pub remote: Option<RemoteIdx>,
}

impl Dest {
    /// Behind a port that is no tunnel.
    #[inline]
    pub const fn port(port: PortIdx) -> Self {
        Self { port, remote: None }
    }

    /// Behind `remote` of the tunnel `port`.
    #[inline]
    pub const fn remote(port: PortIdx, remote: RemoteIdx) -> Self {
        Self { port, remote: Some(remote) }
    }
}

/// How an entry came to be, and with that how it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Learned: moves with its station, ages, may be evicted.
    Dynamic = 1,
    /// Set by the operator: moves with its station (as the kernel's `static` does), never ages.
    Static = 2,
    /// Set by the operator: never moves, never ages.
    Sticky = 3,
}

impl EntryKind {
    /// The word for it in the command-line tool and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Static => "static",
            Self::Sticky => "sticky",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One entry, as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// VLAN and address.
    pub key: FdbKey,
    /// Where the station is.
    pub dest: Dest,
    /// How the entry came to be.
    pub kind: EntryKind,
    /// The second in which the station was last heard (or the entry set), modulo 2^28.
    pub stamp_secs: u32,
    /// Whether it moved too often and is held.
    pub damped: bool,
}

impl Entry {
    /// The time since the station was last heard, in whole seconds.
    pub fn age(&self, now: Tick) -> Duration {
        Duration::from_secs(u64::from(stamp_age(self.stamp_secs, now)))
    }

    pub(super) fn of(key: FdbKey, word: Word) -> Self {
        Self { key, dest: word.dest(), kind: word.kind(), stamp_secs: word.stamp(), damped: word.is_held() }
    }
}

/// The stamp of a tick.
#[inline]
const fn stamp_of(now: Tick) -> u32 {
    now.secs() & STAMP_MASK
}

/// Seconds from a stamp to `now`; 0 for a stamp that is a little ahead of it.
#[inline]
const fn stamp_age(stamp: u32, now: Tick) -> u32 {
    let age = stamp_of(now).wrapping_sub(stamp) & STAMP_MASK;
    if age > STAMP_MASK - SKEW_SECS { 0 } else { age }
}

/// The greatest age that can be told from "just now".
pub(super) const MAX_AGE_SECS: u32 = STAMP_MASK - SKEW_SECS;

/// Destination, kind and stamp of a key; never 0, which is the word of an empty slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    #[inline]
    pub(super) const fn new(dest: Dest, kind: EntryKind, now: Tick) -> Self {
        let remote = match dest.remote {
            Some(r) => r.0 as u64 + 1,
            None => 0,
        };
        let place = remote << REMOTE_SHIFT | (dest.port.0 as u64) << PORT_SHIFT;
        Self(place | (kind as u64) << KIND_SHIFT | stamp_of(now) as u64)
    }

    #[inline]
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The word in a slot, `None` if the slot is empty.
    #[inline]
    pub(super) const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    #[inline]
    pub(super) const fn port(self) -> PortIdx {
        PortIdx((self.0 >> PORT_SHIFT) as u16)
    }

    #[inline]
    pub(super) const fn dest(self) -> Dest {
        let remote = match (self.0 & !HELD) >> REMOTE_SHIFT {
            0 => None,
            r => Some(RemoteIdx((r - 1) as u16)),
        };
        Dest { port: self.port(), remote }
    }

    #[inline]
    pub(super) const fn kind(self) -> EntryKind {
        match (self.0 >> KIND_SHIFT) & KIND_MASK {
            1 => EntryKind::Dynamic,
            2 => EntryKind::Static,
            _ => EntryKind::Sticky,
        }
    }

    #[inline]
    pub(super) const fn stamp(self) -> u32 {
        self.0 as u32 & STAMP_MASK
    }

    #[inline]
    pub(super) const fn age(self, now: Tick) -> u32 {
        stamp_age(self.stamp(), now)
    }

    /// Whether the station moved too often and is held.
    #[inline]
    pub(super) const fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// The same, held.
    pub(super) const fn held(self) -> Self {
        Self(self.0 | HELD)
    }

    /// The same, not held.
    pub(super) const fn released(self) -> Self {
        Self(self.0 & !HELD)
    }

    /// The same, heard at `now`; `None` if that is what it says already (or the word is ahead).
    #[inline]
    pub(super) const fn refreshed(self, now: Tick) -> Option<Self> {
        if self.age(now) == 0 {
            None
        } else {
            Some(Self(self.0 & !(STAMP_MASK as u64) | stamp_of(now) as u64))
        }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} {}", self.dest(), self.kind(), self.stamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_gives_back_what_was_packed_up_to_the_greatest_numbers() {
        for remote in [None, Some(RemoteIdx(0)), Some(RemoteIdx(u16::MAX))] {
            for port in [0, 1, u16::MAX] {
                for kind in [EntryKind::Dynamic, EntryKind::Static, EntryKind::Sticky] {
                    let dest = Dest { port: PortIdx(port), remote };
                    let word = Word::new(dest, kind, Tick::from_secs(u64::from(STAMP_MASK)));
                    assert_eq!((word.dest(), word.kind(), word.stamp()), (dest, kind, STAMP_MASK));
                    assert_eq!(Word::from_bits(word.bits()), Some(word));
                    assert_ne!(Word::new(dest, kind, Tick::default()).bits(), 0);
                    let held = word.held();
                    assert_eq!((held.dest(), held.kind(), held.stamp()), (dest, kind, STAMP_MASK));
                    assert!(held.is_held() && !word.is_held() && held.released() == word);
                    assert!(held.refreshed(Tick::from_secs(7)).unwrap().is_held());
                }
            }
        }
    }

    #[test]
    fn a_key_gives_back_vlan_and_address() {
        let mac = MacAddr::from_bits(0x02ff_ffff_fffe);
        for vlan in [0, 1, 4094] {
            let key = FdbKey::new(vlan, mac);
            assert_eq!((key.vlan(), key.mac()), (vlan, mac));
        }
    }

    #[test]
    fn ages_are_right_across_the_wrap_of_the_stamp() {
        let dest = Dest::port(PortIdx(1));
        let wrap = u64::from(STAMP_MASK) + 1;
        let word = Word::new(dest, EntryKind::Dynamic, Tick::from_secs(wrap - 10));
        assert_eq!(word.age(Tick::from_secs(wrap + 5)), 15);
        assert_eq!(word.age(Tick::from_secs(wrap - 10)), 0);
        assert_eq!(word.refreshed(Tick::from_secs(wrap + 5)).map(Word::stamp), Some(5));
        // Half a wrap is an age like any other, not the future.
        assert_eq!(word.age(Tick::from_secs(wrap - 10 + wrap / 2)), 1 << 27);
        // A worker whose batch began a little earlier neither ages nor rewinds the stamp.
        assert_eq!(word.age(Tick::from_secs(wrap - 12)), 0);
        assert_eq!(word.refreshed(Tick::from_secs(wrap - 12)), None);
    }
}
