//! Which station has which IP address, so that a bridge can answer ARP requests and neighbour solicitations itself instead of
//! flooding them through its tunnels.
//!
//! Owns the neighbours of one bridge, what may be learned from passing messages, and the answers. Never looks at a forwarding
//! database, never decides where a frame goes, keeps no frame.
//!
//! All workers and the control thread share one [`Neighbours`]. A worker asks [`Neighbours::active`] first, one load, so that a
//! bridge without neighbours pays nothing; then [`concerns`] for each frame; and takes the lock, for reading, only for the messages
//! that this is about. It is taken for writing where something changes.
//!
//! Rules:
//! - Only questions are answered, and only of stations that give an address of their own. A probe, an announcement and a
//!   search for duplicates pass, so that two stations with one address find out about each other, also across tunnels.
//! - Only questions to a group are answered; others are not flooded in the first place. Whoever asks one station wants to know whether
//!   that station is still there (RFC 1122 §2.3.2.1, RFC 4861 §7.3), which nobody can answer for it. So does the kernel.
//! - A message is answered only if its receivers would believe it. What is malformed travels on.
//! - Nothing is answered about the asker itself: it wants to know whether somebody else answers.
//! - Messages behind a further tag that names a VLAN are in a customer's VLAN, of which nothing is known here.
//! - Snooping believes the latest claim, as hosts do. It never changes what the operator has set, and a full table refuses it.
//!   Where neighbours must not be claimed by others, ports are secured ([`Secure`](super::Secure)).
//!
//! Where this differs from the kernel (`br_do_proxy_suppress_arp`, `br_do_suppress_nd`):
//! - Probes, announcements, searches for duplicates and unsolicited advertisements are not kept from the tunnels. The kernel expects
//!   a control plane that knows every station of every site; here a neighbour may be known to one side only.
//! - The kernel asks the neighbour table of the bridge device, and its forwarding database whether the neighbour is behind a port with
//!   `neigh_suppress`. Here the neighbours are those of the bridge's own table, and [`Answer::mac`] leaves the second question to
//!   the caller.
//! - The kernel checks neither hop limit nor checksum of a solicitation.
//! - The kernel sends the answer to the address inside the message; here it goes to the source of the frame, which is where the port knows the
//!   asker to be.
//! - The kernel clears the router flag of whom it was not told to be a router. See [`Neighbours::answer`].

use std::{
    net::IpAddr,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crossbeam::utils::CachePadded;
use hashbrown::{HashMap, hash_map};

use crate::{
    tick::Tick,
    wire::{
        MacAddr,
        neighbour::{Claim, Message, is_station},
    },
};

#[cfg(test)]
mod tests;

pub use crate::wire::neighbour::{MAX_ANSWER, concerns};

/// The most neighbours of a bridge: eight times what the kernel keeps (`gc_thresh3`), in 1.3 MiB when all are there.
pub const LIMIT: usize = 8192;

/// Neighbours come off the wire, so the hash is seeded, per table, as that of the forwarding database is.
type Table = HashMap<Key, Entry, foldhash::quality::RandomState>;

/// The least bit of [`Neighbours::state`]; those above count neighbours.
const SNOOPING: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    vlan: u16,
    ip: IpAddr,
}

#[derive(Debug)]
struct Entry {
    mac: MacAddr,
    kind: NeighbourKind,
    /// What it has said of itself.
    router: Option<bool>,
    /// The second in which it was last heard, or set.
    stamp: AtomicU32,
}

/// How a neighbour came to be known, and with that how it may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeighbourKind {
    /// Set by the operator: changed and removed by nobody else.
    Static,
    /// Heard in passing: moves with its latest claim, ages.
    Snooped,
}

impl NeighbourKind {
    /// The word for it in the command-line tool and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Snooped => "snooped",
        }
    }
}

/// A neighbour, as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its VLAN, 0 = untagged.
    pub vlan: u16,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
    /// How it came to be known.
    pub kind: NeighbourKind,
    /// The second in which it was last heard, or set.
    pub stamp_secs: u32,
}

impl Neighbour {
    /// The time since it was last heard, or set, in whole seconds.
    pub fn age(&self, now: Tick) -> Duration {
        Duration::from_secs(u64::from(now.secs().saturating_sub(self.stamp_secs)))
    }

    fn of(key: &Key, entry: &Entry) -> Self {
        let stamp_secs = entry.stamp.load(Relaxed);
        Self { vlan: key.vlan, ip: key.ip, mac: entry.mac, kind: entry.kind, stamp_secs }
    }
}

/// Why the operator's neighbour was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeighbourError {
    /// No single station has the IP address.
    #[error("{0} is not the address of one station: it is unspecified, loopback, multicast or broadcast")]
    Ip(IpAddr),
    /// No single station has the MAC address.
    #[error("{0} is not the address of one station: it is zero or a group address")]
    Mac(MacAddr),
    /// All neighbours of the bridge are static, and as many as may be.
    #[error("the bridge has {LIMIT} static neighbours, which is the limit")]
    Full,
}

/// What came of snooping on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snoop {
    /// Snooping is off, or the message says nothing of a neighbour.
    Nothing,
    /// It is as it was.
    Known,
    /// It was not known.
    New,
    /// It had another MAC address.
    Moved {
        /// The one that it had.
        from: MacAddr,
    },
    /// Nothing was learned.
    Refused(SnoopRefusal),
}

/// Why nothing was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnoopRefusal {
    /// The operator has set another MAC address.
    Static,
    /// The advertisement names another MAC address but is not to override the one that is known (RFC 4861 §4.4).
    NoOverride,
    /// The bridge has as many neighbours as it may.
    Full,
}

/// An answer that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Octets of the frame.
    pub len: usize,
    /// The neighbour's MAC address, which is also the source of the frame. Where the forwarding database has it behind the port
    /// that the question came from, the neighbour hears the question and answers itself: the caller lets the question travel on, or the
    /// switch behind that port would learn the neighbour on the wrong side.
    pub mac: MacAddr,
}

/// The neighbours of one bridge.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Twice the number of neighbours, and [`SNOOPING`]; changed with the table's lock held.
    state: AtomicUsize,
    // Apart from the above, which all workers read all the time.
    table: CachePadded<RwLock<Table>>,
}

impl Neighbours {
    /// No neighbours, and snooping off. No memory is taken before one of the two changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is anything to do for a message at all: a neighbour, or snooping.
    #[inline]
    pub fn active(&self) -> bool {
        self.state.load(Relaxed) != 0
    }

    /// Whether neighbours are learned from passing messages.
    #[inline]
    pub fn snoops(&self) -> bool {
        self.state.load(Relaxed) & SNOOPING != 0
    }

    /// How many neighbours there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.state.load(Relaxed) >> 1
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Switches snooping on, or off, and then forgets what it has learned; returns how many neighbours that were.
    pub fn set_snooping(&self, on: bool) -> usize {
        let mut table = self.write();
        let before = table.len();
        if on {
            prepare(&mut table);
        } else {
            table.retain(|_, entry| entry.kind == NeighbourKind::Static);
        }
        let forgotten = before - table.len();
        self.note(&table, on);
        forgotten
    }

    /// Sets a neighbour, whatever was known about the address; returns what was.
    /// In a full table it takes the place of the snooped one that was not heard for the longest time.
    pub fn insert_static(
        &self,
        vlan: u16,
        ip: IpAddr,
        mac: MacAddr,
        now: Tick,
    ) -> Result<Option<Neighbour>, NeighbourError> {
        if !is_station(ip) {
            return Err(NeighbourError::Ip(ip));
        }
        if !mac.is_station() {
            return Err(NeighbourError::Mac(mac));
        }
        let key = Key { vlan, ip };
        let entry = Entry { mac, kind: NeighbourKind::Static, router: None, stamp: now.secs().into() };
        let mut table = self.write();
        prepare(&mut table);
        if table.len() >= LIMIT && !table.contains_key(&key) {
            let snooped = table.iter().filter(|(_, e)| e.kind == NeighbourKind::Snooped);
            let oldest = snooped.min_by_key(|(_, e)| e.stamp.load(Relaxed)).map(|(key, _)| *key);
            table.remove(&oldest.ok_or(NeighbourError::Full)?);
        }
        let was = table.insert(key, entry);
        self.note(&table, self.snoops());
        Ok(was.map(|entry| Neighbour::of(&key, &entry)))
    }

    /// Removes a neighbour of either kind; returns what it was.
    pub fn remove(&self, vlan: u16, ip: IpAddr) -> Option<Neighbour> {
        let key = Key { vlan, ip };
        let mut table = self.write();
        let entry = table.remove(&key)?;
        self.note(&table, self.snoops());
        Some(Neighbour::of(&key, &entry))
    }

    /// What is known of an address.
    pub fn get(&self, vlan: u16, ip: IpAddr) -> Option<Neighbour> {
        let key = Key { vlan, ip };
        self.read().get(&key).map(|entry| Neighbour::of(&key, entry))
    }

    /// All neighbours, by VLAN and address.
    pub fn list(&self) -> Vec<Neighbour> {
        let mut all: Vec<_> = self.read().iter().map(|(key, entry)| Neighbour::of(key, entry)).collect();
        all.sort_unstable_by_key(|n| (n.vlan, n.ip));
        all
    }

    /// Removes snooped neighbours that have not been heard for more than `ageing`; returns how many.
    /// An ageing time of zero removes all of them, as in the forwarding database; [`Duration::MAX`] none.
    pub fn sweep(&self, now: Tick, ageing: Duration) -> usize {
        let gone = |key: &Key, entry: &Entry| {
            entry.kind == NeighbourKind::Snooped
                && (ageing.is_zero() || Neighbour::of(key, entry).age(now) > ageing)
        };
        // Most sweeps find nothing, and then no worker has to wait.
        if !self.read().iter().any(|(key, entry)| gone(key, entry)) {
            return 0;
        }
        let mut table = self.write();
        let before = table.len();
        table.retain(|key, entry| !gone(key, entry));
        let removed = before - table.len();
        self.note(&table, self.snoops());
        removed
    }

    /// Learns from a message what it says of its sender (ARP, solicitations) or its target (advertisements).
    pub fn snoop(&self, vlan: u16, frame: &[u8], type_at: usize, now: Tick) -> Snoop {
        if !self.snoops() {
            return Snoop::Nothing;
        }
        let Some(claim) = Message::parse(frame, type_at).and_then(|message| message.claim()) else {
            return Snoop::Nothing;
        };
        let key = Key { vlan, ip: claim.ip };
        if let Some(entry) = self.read().get(&key)
            && entry.mac == claim.mac
            && claim.router.is_none_or(|router| entry.router == Some(router))
        {
            entry.heard(now);
            return Snoop::Known;
        }
        self.learn(key, &claim, now)
    }

    /// Learns with the lock held, whatever was the case before it was.
    #[cold]
    fn learn(&self, key: Key, claim: &Claim, now: Tick) -> Snoop {
        let mut table = self.write();
        let full = table.len() >= LIMIT;
        // Switched off since: nothing may stay behind.
        if !self.snoops() {
            return Snoop::Nothing;
        }
        let snoop = match table.entry(key) {
            hash_map::Entry::Occupied(mut entry) => entry.get_mut().update(claim, now),
            hash_map::Entry::Vacant(_) if full => Snoop::Refused(SnoopRefusal::Full),
            hash_map::Entry::Vacant(vacant) => {
                let Claim { mac, router, .. } = *claim;
                vacant.insert(Entry { mac, kind: NeighbourKind::Snooped, router, stamp: now.secs().into() });
                Snoop::New
            }
        };
        self.note(&table, true);
        snoop
    }

    /// Answers a question for a known neighbour: writes the whole frame, with the tags of the question, to the start of `reply`, which
    /// has [`MAX_ANSWER`] octets or more. `None` where it is no question, or not of a known neighbour, or malformed.
    ///
    /// An advertisement says that the neighbour is a router unless it was heard to say that it is none. "In those cases where the IsRouter
    /// flag changes from TRUE to FALSE as a result of this update, the node MUST remove that router from the Default Router
    /// List" (RFC 4861 §7.2.5): a flag that is cleared for want of knowledge would cut hosts off, while one that is set makes nobody a
    /// router, since that takes a router advertisement.
    pub fn answer(&self, vlan: u16, frame: &[u8], type_at: usize, reply: &mut [u8]) -> Option<Answer> {
        if self.is_empty() {
            return None;
        }
        let message = Message::parse(frame, type_at)?;
        let ip = message.asks_for()?;
        let (mac, router) = {
            let table = self.read();
            let entry = table.get(&Key { vlan, ip })?;
            (entry.mac, entry.router != Some(false))
        };
        let len = message.answer(frame, mac, router, reply)?;
        Some(Answer { len, mac })
    }

    /// Keeps the state in step with the table.
    fn note(&self, table: &Table, snooping: bool) {
        self.state.store(table.len() << 1 | usize::from(snooping), Relaxed);
    }

    // A thread that panicked with the lock held has left a table that is whole: hashbrown's calls either happen or do not.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Notes that the neighbour was heard; once a second at most, so that workers do not fight for the cache line.
    fn heard(&self, now: Tick) {
        if self.stamp.load(Relaxed) != now.secs() {
            self.stamp.store(now.secs(), Relaxed);
        }
    }

    fn update(&mut self, claim: &Claim, now: Tick) -> Snoop {
        if self.mac == claim.mac {
            self.router = claim.router.or(self.router);
            self.heard(now);
            return Snoop::Known;
        }
        if self.kind == NeighbourKind::Static {
            return Snoop::Refused(SnoopRefusal::Static);
        }
        if !claim.overrides {
            return Snoop::Refused(SnoopRefusal::NoOverride);
        }
        let from = self.mac;
        (self.mac, self.router) = (claim.mac, claim.router);
        self.heard(now);
        Snoop::Moved { from }
    }
}

/// Takes the memory, once, so that a worker that learns never does. Twice the limit: then the table makes room for itself by
/// tidying up in place, whatever comes and goes.
fn prepare(table: &mut Table) {
    if table.capacity() == 0 {
        table.reserve(2 * LIMIT);
    }
}
