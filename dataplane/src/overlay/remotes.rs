//! The tunnel endpoints that frames go to and come from, shared by all workers.
//!
//! Owns what the rest names by a [`RemoteIdx`]: its address, path MTU and when it was heard. Knows no VNI, port or station, and does
//! not decide who may be a remote; a caller asks only about those that may.
//!
//! A forwarding database, a snapshot and a batch carry an index of 16 bits instead of an address. [`Remotes`] gives it
//! out, under a lock that each worker takes once for each remote, as its [`RemoteCache`] remembers the rest.
//! Who has an index reads what is behind it without a lock.
//!
//! **An index is given back in steps**, because it may stand in a forwarding database and in the hands of workers:
//! 1. [`Remotes::expire`] or [`Remotes::of_vtep_gone`]: nobody finds it any more, and the new epoch empties the caches. It keeps its address.
//! 2. All workers pass between two batches. From here on nobody learns it.
//! 3. The forwarding databases are flushed of it, and it leaves the snapshot. From here on nobody looks it up.
//! 4. All workers pass between two batches again. Nobody holds it.
//! 5. [`Remotes::free`]: it may be given to another.
//!
//! **Ordering.** All fields of a slot are relaxed. What is behind an index is stored before the index leaves the lock for the first time,
//! and everything by which an index reaches a reader orders that store before the read:
//! - the lock, and a cache that was filled under it by the same thread;
//! - the word of a forwarding database: stored with release and loaded with acquire order (`fdb/table.rs`), also where it was refreshed
//!   meanwhile, since who refreshes has loaded the word with acquire before, and stores it with release;
//! - a snapshot or a message: they travel through a channel.
//!
//! It is stored a second time only after step 4, whose reports came through a channel from all who had read before; so
//! nobody reads an address while it is written, and the two halves of an IPv6 address are of one address. Path MTU and stamp
//! change at any time, and are one word each.
//!
//! **Memory.** A slot has 32 octets and they come 1024 at a time, so an empty table has none. Beside the slot a remote costs 8
//! octets for its owner and 38 to 76 in the map, and as much again in the cache of each worker that hears it: less than
//! 300 octets with two workers, 16 MiB for all 65,536. Finding room for a new one allocates; hearing one that is known does not.

use std::{
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use crossbeam::utils::CachePadded;
use hashbrown::HashMap;

use crate::{
    index::{RemoteIdx, VtepIdx},
    tick::Tick,
};

/// The most remotes: a forwarding database has 17 bits for a remote or none.
pub const MAX_REMOTES: usize = 1 << 16;

/// Slots of a chunk: 32 KiB.
const CHUNK: usize = 1024;
const CHUNKS: usize = MAX_REMOTES / CHUNK;

/// Addresses come off the wire, so the hash is seeded, and of the kind that makes it hard to find collisions.
type AddressHash = foldhash::quality::RandomState;

/// A remote of a VTEP, as it is hashed and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    high: u64,
    low: u64,
    vtep: u16,
    family: u8,
}

/// The tags of the families in a key and a slot; 0 is an empty slot.
const V4: u8 = 4;
const V6: u8 = 6;

impl Key {
    #[inline]
    fn new(vtep: VtepIdx, ip: IpAddr) -> Self {
        let (bits, family) = match ip {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), V4),
            IpAddr::V6(ip) => (ip.to_bits(), V6),
        };
        Self { high: (bits >> 64) as u64, low: bits as u64, vtep: vtep.0, family }
    }

    fn ip(&self) -> IpAddr {
        address(self.high, self.low, self.family)
    }
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from(self.high) << 64 | u128::from(self.low));
        state.write_u32(u32::from(self.vtep) << 8 | u32::from(self.family));
    }
}

#[inline]
fn address(high: u64, low: u64, family: u8) -> IpAddr {
    if family == V4 {
        Ipv4Addr::from_bits(low as u32).into()
    } else {
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
    }
}

/// What is behind an index; all zero is nothing.
#[derive(Debug, Default)]
struct Slot {
    high: AtomicU64,
    low: AtomicU64,
    family: AtomicU32,
    path_mtu: AtomicU32,
    /// The second it was last heard, and one; 0 = never.
    heard: AtomicU32,
}

impl Slot {
    fn put(&self, key: &Key, heard: u32) {
        self.high.store(key.high, Relaxed);
        self.low.store(key.low, Relaxed);
        self.family.store(key.family.into(), Relaxed);
        self.path_mtu.store(0, Relaxed);
        self.heard.store(heard, Relaxed);
    }

    #[inline]
    fn touch(&self, heard: u32) {
        // A worker whose batch began a little earlier does not turn it back.
        if self.heard.load(Relaxed) < heard {
            self.heard.store(heard, Relaxed);
        }
    }
}

/// The stamp of a tick.
#[inline]
const fn stamp_of(now: Tick) -> u32 {
    now.secs().saturating_add(1)
}

/// Whose an index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    /// A remote of this VTEP, pinned so many times.
    Remote { vtep: VtepIdx, pins: u32 },
    /// Nobody finds it any more, but somebody may have it.
    Leaving,
}

/// What only the holder of the lock sees.
#[derive(Debug, Default)]
struct Directory {
    indices: HashMap<Key, RemoteIdx, AddressHash>,
    /// By index, up to the greatest that was ever given out.
    owners: Vec<Owner>,
    /// Indices that were given back, the one that waited longest first: one that is held by mistake shows nothing else for long.
    free: VecDeque<RemoteIdx>,
}

/// A remote, as it was when it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its index.
    pub idx: RemoteIdx,
    /// The VTEP it is a remote of.
    pub vtep: VtepIdx,
    /// Its address.
    pub ip: IpAddr,
    /// Whether an operator has configured it.
    pub pinned: bool,
    /// Octets of the longest outer IP packet that reaches it; 0 = unknown.
    pub path_mtu: u32,
    /// When it was last heard, in whole seconds; `None` = never.
    pub last_heard: Option<Tick>,
}

/// The remotes of all VTEPs.
pub struct Remotes {
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
    /// How often remotes were taken out of the directory; a cache that was filled in an earlier one is not believed.
    epoch: CachePadded<AtomicU32>,
    directory: CachePadded<Mutex<Directory>>,
}

impl fmt::Debug for Remotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remotes").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Default for Remotes {
    fn default() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            epoch: CachePadded::default(),
            directory: CachePadded::default(),
        }
    }
}

impl Remotes {
    /// How many there are; those that are leaving do not count.
    pub fn len(&self) -> usize {
        self.lock().indices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index of a remote, if there is one. Takes the lock.
    pub fn find(&self, vtep: VtepIdx, ip: IpAddr) -> Option<RemoteIdx> {
        self.lock().indices.get(&Key::new(vtep, ip)).copied()
    }

    /// The index of a remote that was heard `now`, a new one if it has none; `None` where 65,536 are in use. Takes the lock: workers
    /// ask their [`RemoteCache`].
    pub fn find_or_add(&self, vtep: VtepIdx, ip: IpAddr, now: Tick) -> Option<RemoteIdx> {
        let mut directory = self.lock();
        let idx = self.add(&mut directory, Key::new(vtep, ip))?;
        // Before the lock is let go, or a new one could expire at once.
        self.touch(idx, now);
        Some(idx)
    }

    /// The index of a remote that an operator has configured, and which stays until it is unpinned as often as it was pinned.
    pub fn pin(&self, vtep: VtepIdx, ip: IpAddr) -> Option<RemoteIdx> {
        let mut directory = self.lock();
        let idx = self.add(&mut directory, Key::new(vtep, ip))?;
        if let Some(Owner::Remote { pins, .. }) = directory.owners.get_mut(idx.at()) {
            *pins = pins.saturating_add(1);
        }
        Some(idx)
    }

    /// Takes one pin back. The remote stays as one that was learned, and expires if it was not heard.
    pub fn unpin(&self, idx: RemoteIdx) {
        if let Some(Owner::Remote { pins, .. }) = self.lock().owners.get_mut(idx.at()) {
            *pins = pins.saturating_sub(1);
        }
    }

    fn add(&self, directory: &mut Directory, key: Key) -> Option<RemoteIdx> {
        if let Some(&idx) = directory.indices.get(&key) {
            return Some(idx);
        }
        let idx = match directory.free.pop_front() {
            Some(idx) => idx,
            None => {
                let idx = u16::try_from(directory.owners.len()).ok().map(RemoteIdx)?;
                directory.owners.push(Owner::Nobody);
                idx
            }
        };
        self.chunk(idx).get_or_init(|| (0..CHUNK).map(|_| Slot::default()).collect());
        if let (Some(slot), Some(owner)) = (self.slot(idx), directory.owners.get_mut(idx.at())) {
            slot.put(&key, 0);
            *owner = Owner::Remote { vtep: VtepIdx(key.vtep), pins: 0 };
            directory.indices.insert(key, idx);
        }
        Some(idx)
    }

    #[inline]
    fn chunk(&self, idx: RemoteIdx) -> &OnceLock<Box<[Slot]>> {
        // In bounds whatever the index: 16 bits less those of a chunk.
        &self.chunks[idx.at() / CHUNK]
    }

    #[inline]
    fn slot(&self, idx: RemoteIdx) -> Option<&Slot> {
        self.chunk(idx).get()?.get(idx.at() % CHUNK)
    }

    /// The address behind an index; `None` for one that is not given out.
    #[inline]
    pub fn address(&self, idx: RemoteIdx) -> Option<IpAddr> {
        let slot = self.slot(idx)?;
        let family = slot.family.load(Relaxed) as u8;
        (family != 0).then(|| address(slot.high.load(Relaxed), slot.low.load(Relaxed), family))
    }

    /// Octets of the longest outer IP packet that reaches the remote; 0 = unknown.
    #[inline]
    pub fn path_mtu(&self, idx: RemoteIdx) -> u32 {
        self.slot(idx).map_or(0, |slot| slot.path_mtu.load(Relaxed))
    }

    /// Notes what [`Remotes::path_mtu`] says from now on.
    pub fn set_path_mtu(&self, idx: RemoteIdx, octets: u32) {
        if let Some(slot) = self.slot(idx) {
            slot.path_mtu.store(octets, Relaxed);
        }
    }

    /// Takes up that packets to a remote may be no longer than `octets`, if there is such a remote and that is news.
    pub fn narrow(&self, vtep: VtepIdx, ip: IpAddr, octets: u32) {
        if let Some(idx) = self.find(vtep, ip)
            && (self.path_mtu(idx) == 0 || octets < self.path_mtu(idx))
        {
            self.set_path_mtu(idx, octets);
        }
    }

    /// Notes that the remote was heard; writes once a second.
    #[inline]
    pub fn touch(&self, idx: RemoteIdx, now: Tick) {
        if let Some(slot) = self.slot(idx) {
            slot.touch(stamp_of(now));
        }
    }

    /// When the remote was last heard, in whole seconds; `None` = never.
    pub fn last_heard(&self, idx: RemoteIdx) -> Option<Tick> {
        let stamp = self.slot(idx)?.heard.load(Relaxed);
        stamp.checked_sub(1).map(|secs| Tick::from_secs(secs.into()))
    }

    /// Changes whenever remotes have left; what was found before need not be there any more.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Acquire)
    }

    /// Takes out those that are not pinned and were not heard for more than `age`, and returns their indices: step 1 of giving them back.
    pub fn expire(&self, now: Tick, age: Duration) -> Vec<RemoteIdx> {
        self.take_out(|owner, slot| {
            let heard = u64::from(slot.heard.load(Relaxed));
            let silent = u64::from(stamp_of(now)).saturating_sub(heard);
            matches!(owner, Owner::Remote { pins: 0, .. }) && (heard == 0 || silent > age.as_secs())
        })
    }

    /// Takes out all remotes of a VTEP, pinned or not, and returns their indices: step 1 of giving them back.
    pub fn of_vtep_gone(&self, gone: VtepIdx) -> Vec<RemoteIdx> {
        self.take_out(|owner, _| matches!(owner, Owner::Remote { vtep, .. } if *vtep == gone))
    }

    fn take_out(&self, leaves: impl Fn(&Owner, &Slot) -> bool) -> Vec<RemoteIdx> {
        let mut directory = self.lock();
        let Directory { indices, owners, .. } = &mut *directory;
        let mut left = Vec::new();
        indices.retain(|_, idx| {
            let (Some(owner), Some(slot)) = (owners.get_mut(idx.at()), self.slot(*idx)) else { return true };
            let leaving = leaves(owner, slot);
            if leaving {
                *owner = Owner::Leaving;
                left.push(*idx);
            }
            !leaving
        });
        if !left.is_empty() {
            // With the lock held, so that who sees it and asks finds what is left.
            self.epoch.store(self.epoch.load(Relaxed).wrapping_add(1), Release);
        }
        left
    }

    /// Lets indices that [`Remotes::expire`] or [`Remotes::of_vtep_gone`] returned be given out again: the last step. Others are left
    /// alone.
    pub fn free(&self, indices: &[RemoteIdx]) {
        let mut directory = self.lock();
        for &idx in indices {
            let (Some(owner), Some(slot)) = (directory.owners.get_mut(idx.at()), self.slot(idx)) else {
                continue;
            };
            if *owner == Owner::Leaving {
                *owner = Owner::Nobody;
                slot.put(&Key { high: 0, low: 0, vtep: 0, family: 0 }, 0);
                directory.free.push_back(idx);
            }
        }
    }

    /// A remote, if there is one and it is not leaving.
    pub fn get(&self, idx: RemoteIdx) -> Option<Remote> {
        let directory = self.lock();
        let &Owner::Remote { vtep, pins } = directory.owners.get(idx.at())? else { return None };
        Some(Remote {
            idx,
            vtep,
            ip: self.address(idx)?,
            pinned: pins > 0,
            path_mtu: self.path_mtu(idx),
            last_heard: self.last_heard(idx),
        })
    }

    /// Every remote, in no order; those that are leaving are not among them.
    pub fn iter(&self) -> std::vec::IntoIter<Remote> {
        let directory = self.lock();
        let one = |(key, &idx): (&Key, &RemoteIdx)| Remote {
            idx,
            vtep: VtepIdx(key.vtep),
            ip: key.ip(),
            pinned: matches!(directory.owners.get(idx.at()), Some(Owner::Remote { pins: 1.., .. })),
            path_mtu: self.path_mtu(idx),
            last_heard: self.last_heard(idx),
        };
        directory.indices.iter().map(one).collect::<Vec<_>>().into_iter()
    }

    fn lock(&self) -> MutexGuard<'_, Directory> {
        // Nothing in it panics between two changes that belong together.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was asked last.
#[derive(Clone, Copy, Debug)]
struct Last {
    key: Key,
    idx: Option<RemoteIdx>,
    secs: u32,
}

/// A remote that one worker has heard, and when it noted that last.
#[derive(Clone, Copy, Debug)]
struct Known {
    idx: RemoteIdx,
    secs: u32,
}

/// The remotes that one worker has heard.
#[derive(Debug, Default)]
pub struct RemoteCache {
    epoch: u32,
    last: Option<Last>,
    indices: HashMap<Key, Known, AddressHash>,
}

impl RemoteCache {
    /// The index of a remote that was heard `now`, a new one if it has none; `None` where 65,536 are in use.
    /// Takes the lock of `remotes` only for one that is new to this cache, and after remotes have left.
    #[inline]
    pub fn index(&mut self, remotes: &Remotes, vtep: VtepIdx, ip: IpAddr, now: Tick) -> Option<RemoteIdx> {
        let epoch = remotes.epoch();
        if epoch != self.epoch {
            self.forget(epoch);
        }
        let (key, secs) = (Key::new(vtep, ip), now.secs());
        // The same as of the frame before, in the same second: that it was heard is noted, and that there was no room may still hold.
        if let Some(last) = self.last.filter(|last| last.key == key && last.secs == secs) {
            return last.idx;
        }
        let idx = match self.indices.get_mut(&key) {
            Some(known) => {
                // Its slot is another cache line, which is left alone until there is something to note.
                if known.secs != secs {
                    known.secs = secs;
                    remotes.touch(known.idx, now);
                }
                Some(known.idx)
            }
            None => self.ask(remotes, key, now),
        };
        self.last = Some(Last { key, idx, secs });
        idx
    }

    #[cold]
    fn ask(&mut self, remotes: &Remotes, key: Key, now: Tick) -> Option<RemoteIdx> {
        let idx = remotes.find_or_add(VtepIdx(key.vtep), key.ip(), now)?;
        self.indices.insert(key, Known { idx, secs: now.secs() });
        Some(idx)
    }

    #[cold]
    fn forget(&mut self, epoch: u32) {
        self.indices.clear();
        self.last = None;
        self.epoch = epoch;
    }
}

#[cfg(test)]
mod tests;
