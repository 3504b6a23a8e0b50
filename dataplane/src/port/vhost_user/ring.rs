//! One split virtqueue (Virtual I/O Device 1.2 §2.7), the device's side of it.
//!
//! The guest is hostile: it can write anything to the ring at any time. Every index, descriptor and length is read once and checked,
//! and what was read is what is used. A chain that makes no sense is a [`Fault`], after which the ring is not touched any more.
//! Chains are used in the order in which they were made available, so the two indices say all there is to know of a ring's state:
//! whoever takes it over finds out where to go on by the used index in the guest's memory.
//!
//! The walk is written here, on vm-memory's accessors and virtio-queue's layouts, because the iterators of virtio-queue end silently
//! at what makes no sense, its used ring is published entry by entry, and without event index it always asks for a notification.
//! Its queue is what the tests compare this one with.

use std::{
    fmt,
    fs::File,
    sync::{
        Arc,
        atomic::{
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
};

use virtio_queue::desc::split::Descriptor;

use super::memory::{Memory, Part};

/// The most entries of a ring (§2.7).
const SIZE_MAX: u16 = 32768;
/// The most descriptors of a chain, and of all chains that one frame takes: as many as QEMU's (`VIRTQUEUE_MAX_SIZE`). A guest's
/// driver uses some twenty at most.
pub(super) const SEGMENTS_MAX: usize = 1024;
/// The most chains that one frame takes: a super-frame of 64 KiB in buffers of 512 octets. Linux gives 1526 or more to each, DPDK 2 KiB;
/// a guest that gives an octet to each would have the worker walk its ring for every frame.
pub(super) const CHAINS_MAX: usize = 128;

/// Octets of a descriptor.
const DESCRIPTOR: usize = size_of::<Descriptor>();
/// Octets of an entry of the used ring: where the chain begins and what was written to it, 32 bits each.
const USED_ELEMENT: usize = size_of::<u64>();
/// Where the index stands in the available and in the used ring, behind the flags.
const INDEX: usize = 2;
/// Where the entries begin in both.
const ENTRIES: usize = 4;
/// In the flags of the available ring: the driver does not want to be told (`VRING_AVAIL_F_NO_INTERRUPT`).
const NO_INTERRUPT: u16 = 1;
/// In the flags of the used ring: the device does not want to be told (`VRING_USED_F_NO_NOTIFY`).
const NO_NOTIFY: u16 = 1;

/// What makes no sense in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The ring has a number of entries that no ring has.
    Size(u32),
    /// A part of the ring lies outside the guest's memory.
    Outside,
    /// A part of the ring does not lie where it may begin.
    Misaligned,
    /// More entries are available than there are.
    Ahead(u16),
    /// A descriptor that is not in its table.
    Index(u16),
    /// A chain that comes back to itself, or is longer than its table.
    Loop,
    /// A chain of too many descriptors.
    TooLong,
    /// A buffer to be read where one is to be written, or the reverse.
    Direction,
    /// A descriptor that refers to a table, without leave or inside such a table, or goes on behind it.
    Indirect,
    /// A table of descriptors whose length is none.
    TableLength(u32),
    /// A buffer, or a table of descriptors, outside the guest's memory.
    Buffer(u64),
    /// A chain too short for a virtio header.
    NoHeader,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "it has {size} entries, which is no power of 2 up to {SIZE_MAX}"),
            Self::Outside => f.write_str("the ring lies outside the guest's memory"),
            Self::Misaligned => f.write_str("the ring does not begin where a ring may"),
            Self::Ahead(by) => write!(f, "{by} entries are available, more than there are"),
            Self::Index(index) => write!(f, "descriptor {index} is not in its table"),
            Self::Loop => f.write_str("descriptor loop"),
            Self::TooLong => write!(f, "a chain of more than {SEGMENTS_MAX} descriptors"),
            Self::Direction => f.write_str("a buffer of the wrong direction"),
            Self::Indirect => f.write_str("an indirect descriptor where there can be none"),
            Self::TableLength(len) => write!(f, "an indirect table of {len} octets"),
            Self::Buffer(addr) => write!(f, "a buffer at {addr:#x}, outside the guest's memory"),
            Self::NoHeader => f.write_str("a buffer too short for a virtio header"),
        }
    }
}

/// A piece of the guest's memory, as a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) addr: u64,
    pub(super) len: u32,
}

/// Where a ring lies, in addresses of the front end, and how it is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) event_idx: bool,
    pub(super) indirect: bool,
}

/// A ring that is in use.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<Memory>,
    descriptors: Part,
    available: Part,
    used: Part,
    size: u16,
    event_idx: bool,
    indirect: bool,
    /// The entry of the available ring that is next.
    next_available: u16,
    /// How far the guest had made entries available when it was looked last.
    seen_available: u16,
    /// The entry of the used ring that is next.
    next_used: u16,
    /// How many the guest knows to be used.
    published: u16,
    /// Whether the guest was told not to tell.
    quiet: bool,
    /// Where the guest is told.
    call: Option<Arc<File>>,
    hint: usize,
    segments: Vec<Segment>,
    chains: Vec<Chain>,
}

/// A chain that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    head: u16,
    /// Octets of its buffers.
    pub(super) len: u64,
}

/// Chains to write a frame to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// So many chains hold it.
    Chains(u16),
    /// The guest has not made enough available.
    Full,
    /// It does not fit what the guest has made available, however long one waits.
    TooSmall,
}

impl Ring {
    /// Takes a ring into use. It goes on where its used index says, whatever base the front end names: all before that entry is done,
    /// as chains are used in order, and nothing behind it. The two are the same but where a switch was killed, or where the front end
    /// knows no better (DPDK does likewise, `translate_ring_addresses` in lib/vhost/vhost_user.c).
    pub(super) fn new(memory: Arc<Memory>, layout: &Layout, call: Option<Arc<File>>) -> Result<Self, Fault> {
        let size = u16::try_from(layout.size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= SIZE_MAX)
            .ok_or(Fault::Size(layout.size))?;
        let entries = usize::from(size);
        let part = |addr, len, align| {
            let part = memory.part(addr, len).ok_or(Fault::Outside)?;
            if part.is_aligned(align) { Ok(part) } else { Err(Fault::Misaligned) }
        };
        // Sizes and alignments of §2.7; two octets more for the event index at the end of both rings.
        let descriptors = part(layout.descriptors, DESCRIPTOR * entries, 16)?;
        let available = part(layout.available, ENTRIES + 2 * entries + 2, 2)?;
        let used = part(layout.used, ENTRIES + USED_ELEMENT * entries + 2, 4)?;
        let next_used = used.load_shared(INDEX, Relaxed).ok_or(Fault::Outside)?;
        Ok(Self {
            memory,
            descriptors,
            available,
            used,
            size,
            event_idx: layout.event_idx,
            indirect: layout.indirect,
            next_available: next_used,
            seen_available: next_used,
            next_used,
            published: next_used,
            quiet: false,
            call,
            hint: 0,
            segments: Vec::with_capacity(SEGMENTS_MAX),
            chains: Vec::with_capacity(CHAINS_MAX),
        })
    }

    pub(super) fn set_call(&mut self, call: Option<Arc<File>>) {
        self.call = call;
    }

    /// The entry that is next: where another is to go on.
    pub(super) fn base(&self) -> u16 {
        self.next_available
    }

    /// The next chain, of buffers to be read; `None` where there is none at the moment.
    #[inline]
    pub(super) fn next_readable(&mut self) -> Result<Option<Chain>, Fault> {
        if !self.has_available(0)? {
            return Ok(None);
        }
        self.segments.clear();
        let chain = self.walk(self.next_available, false)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Reads what the chain that was taken last holds; `buf` is no longer than [its buffers](Chain::len).
    #[inline]
    pub(super) fn read(&mut self, mut buf: &mut [u8]) -> Result<(), Fault> {
        for segment in &self.segments {
            let (now, later) = buf.split_at_mut(buf.len().min(segment.len as usize));
            self.memory.read(&mut self.hint, segment.addr, now).ok_or(Fault::Buffer(segment.addr))?;
            buf = later;
        }
        Ok(())
    }

    /// Takes as many chains of buffers to be written as `len` octets need, or one where a frame may not span several.
    /// They are given back unless [`fill`](Self::fill) follows.
    #[inline]
    pub(super) fn gather(&mut self, len: u64, several: bool, header: u64) -> Result<Room, Fault> {
        self.segments.clear();
        self.chains.clear();
        let mut room = 0;
        while room < len {
            let taken = self.chains.len() as u16;
            if taken > 0 && !several || taken == self.size || self.chains.len() == CHAINS_MAX {
                return Ok(Room::TooSmall);
            }
            if !self.has_available(taken)? {
                return Ok(Room::Full);
            }
            let chain = self.walk(self.next_available.wrapping_add(taken), true)?;
            if taken == 0 && chain.len < header {
                return Err(Fault::NoHeader);
            }
            room += chain.len;
            self.chains.push(chain);
        }
        Ok(Room::Chains(self.chains.len() as u16))
    }

    /// Writes `parts`, one behind the other, to the chains that were gathered for them, and takes the chains as used.
    #[inline]
    pub(super) fn fill<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> Result<(), Fault> {
        let mut segments = self.segments.iter();
        let mut room = Segment { addr: 0, len: 0 };
        let mut total = 0;
        for mut part in parts {
            total += part.len() as u64;
            while !part.is_empty() {
                if room.len == 0 {
                    room = *segments.next().ok_or(Fault::NoHeader)?;
                    continue;
                }
                let (now, later) = part.split_at(part.len().min(room.len as usize));
                self.memory.write(&mut self.hint, room.addr, now).ok_or(Fault::Buffer(room.addr))?;
                // The end of a buffer at the end of all addresses is where no other begins.
                room.addr = room.addr.wrapping_add(now.len() as u64);
                room.len -= now.len() as u32;
                part = later;
            }
        }
        for n in 0..self.chains.len() {
            let Some(chain) = self.chains.get(n).copied() else { break };
            let written = total.min(chain.len);
            total -= written;
            self.put_used(chain, written as u32)?;
        }
        self.next_available = self.next_available.wrapping_add(self.chains.len() as u16);
        Ok(())
    }

    /// Puts a chain into the used ring, with so many octets written to it. The guest does not see it before it is
    /// [published](Self::publish).
    #[inline]
    pub(super) fn put_used(&mut self, chain: Chain, written: u32) -> Result<(), Fault> {
        let at = ENTRIES + usize::from(self.next_used & (self.size - 1)) * USED_ELEMENT;
        let element = u64::from(chain.head) | u64::from(written) << 32;
        self.used.store(at, element.to_le()).ok_or(Fault::Outside)?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Lets the guest see all chains that were put into the used ring; says where it wants to be told of them, where it does.
    #[inline]
    pub(super) fn publish(&mut self) -> Option<Arc<File>> {
        if self.next_used == self.published {
            return None;
        }
        let before = std::mem::replace(&mut self.published, self.next_used);
        self.used.store_shared(INDEX, self.next_used, Release)?;
        // The index is to be seen before it is looked whether the guest wants to be told (§2.7.7.1).
        fence(SeqCst);
        let wanted = if self.event_idx {
            let event = self.available.load_shared(ENTRIES + 2 * usize::from(self.size), Relaxed)?;
            // vring_need_event: the entry that it waits for is among those.
            self.next_used.wrapping_sub(event).wrapping_sub(1) < self.next_used.wrapping_sub(before)
        } else {
            self.available.load_shared(0, Relaxed)? & NO_INTERRUPT == 0
        };
        self.call.as_ref().filter(|_| wanted).map(Arc::clone)
    }

    /// Tells the guest that it need not tell: the ring is looked at anyway.
    #[inline]
    pub(super) fn hush(&mut self) {
        // With event index it tells once, when the entry is reached that was named last.
        if !self.event_idx && !self.quiet {
            self.quiet = true;
            let _ = self.used.store_shared(0, NO_NOTIFY, Relaxed); // a ring that is in use has flags
        }
    }

    /// Asks the guest to tell when it makes the next entry available; `false` where it just has.
    #[inline]
    pub(super) fn await_kick(&mut self) -> Result<bool, Fault> {
        if self.event_idx {
            let event = ENTRIES + USED_ELEMENT * usize::from(self.size);
            self.used.store_shared(event, self.next_available, Relaxed).ok_or(Fault::Outside)?;
        } else {
            self.quiet = false;
            self.used.store_shared(0, 0, Relaxed).ok_or(Fault::Outside)?;
        }
        // What was asked for is to be seen before it is looked whether there is something (§2.7.10.1).
        fence(SeqCst);
        Ok(!self.has_available(0)?)
    }

    /// Whether there is a chain, `ahead` behind the next.
    #[inline]
    fn has_available(&mut self, ahead: u16) -> Result<bool, Fault> {
        let known = self.seen_available.wrapping_sub(self.next_available);
        if known > ahead {
            return Ok(true);
        }
        // Everything that the guest wrote before the index is seen behind it (§2.7.13.3).
        self.seen_available = self.available.load_shared(INDEX, Acquire).ok_or(Fault::Outside)?;
        let known = self.seen_available.wrapping_sub(self.next_available);
        if known > self.size { Err(Fault::Ahead(known)) } else { Ok(known > ahead) }
    }

    /// Appends the descriptors of the chain at an entry of the available ring to the segments.
    #[inline]
    fn walk(&mut self, entry: u16, writable: bool) -> Result<Chain, Fault> {
        let at = ENTRIES + 2 * usize::from(entry & (self.size - 1));
        let head = u16::from_le(self.available.load(at).ok_or(Fault::Outside)?);
        let first = self.descriptor(head)?;
        // One descriptor is what nearly every chain is.
        if !first.has_next() && !first.refers_to_indirect_table() {
            self.push(&first, writable)?;
            return Ok(Chain { head, len: first.len().into() });
        }
        let len = self.walk_on(first, writable)?;
        Ok(Chain { head, len })
    }

    /// The rest of a chain that has more than one descriptor.
    fn walk_on(&mut self, mut descriptor: Descriptor, writable: bool) -> Result<u64, Fault> {
        let mut len = 0;
        for _ in 0..self.size {
            if descriptor.refers_to_indirect_table() {
                return Ok(len + self.walk_table(&descriptor, writable)?);
            }
            self.push(&descriptor, writable)?;
            len += u64::from(descriptor.len());
            if !descriptor.has_next() {
                return Ok(len);
            }
            descriptor = self.descriptor(descriptor.next())?;
        }
        Err(Fault::Loop)
    }

    /// A chain in a table of its own (§2.7.5.3).
    fn walk_table(&mut self, table: &Descriptor, writable: bool) -> Result<u64, Fault> {
        // The driver must not set both NEXT and INDIRECT (§2.7.5.3.1).
        if !self.indirect || table.has_next() {
            return Err(Fault::Indirect);
        }
        let entries = table.len() as usize / DESCRIPTOR;
        if entries == 0 || entries * DESCRIPTOR != table.len() as usize {
            return Err(Fault::TableLength(table.len()));
        }
        let (mut len, mut index) = (0, 0);
        for _ in 0..entries.min(SEGMENTS_MAX + 1) {
            if usize::from(index) >= entries {
                return Err(Fault::Index(index));
            }
            let outside = Fault::Buffer(table.addr().0);
            let at = table.addr().0.checked_add((usize::from(index) * DESCRIPTOR) as u64).ok_or(outside)?;
            let descriptor: Descriptor = self.memory.value(&mut self.hint, at).ok_or(outside)?;
            if descriptor.refers_to_indirect_table() {
                return Err(Fault::Indirect);
            }
            self.push(&descriptor, writable)?;
            len += u64::from(descriptor.len());
            if !descriptor.has_next() {
                return Ok(len);
            }
            index = descriptor.next();
        }
        Err(Fault::Loop)
    }

    #[inline]
    fn descriptor(&self, index: u16) -> Result<Descriptor, Fault> {
        if index >= self.size {
            return Err(Fault::Index(index));
        }
        self.descriptors.load(usize::from(index) * DESCRIPTOR).ok_or(Fault::Outside)
    }

    #[inline]
    fn push(&mut self, descriptor: &Descriptor, writable: bool) -> Result<(), Fault> {
        if descriptor.is_write_only() != writable {
            return Err(Fault::Direction);
        }
        if self.segments.len() == SEGMENTS_MAX {
            return Err(Fault::TooLong);
        }
        self.segments.push(Segment { addr: descriptor.addr().0, len: descriptor.len() });
        Ok(())
    }
}
