//! The memory of a guest, as its front end shares it.
//!
//! Owns the mappings. Every access names an address and a length, and is looked up in the table of regions: what is not in it cannot
//! be read or written. A guest changes its memory while it is read, so what matters is read once, into memory of the switch.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{ByteValued, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// The most regions: as many as libvhost-user has (`VHOST_USER_MAX_RAM_SLOTS`), KVM's slots less a few.
pub(super) const REGIONS_MAX: usize = 509;

/// Why a guest's memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    /// The file is too short, or the kernel does not map it.
    #[error("{len} octets of guest memory at {guest:#x} cannot be mapped: {reason}")]
    Map {
        /// Address in the guest.
        guest: u64,
        /// Octets.
        len: u64,
        /// Why.
        reason: String,
    },
    /// Two regions have an address in common.
    #[error("regions of guest memory overlap at {0:#x}")]
    Overlap(u64),
    /// There are too many.
    #[error("more than {REGIONS_MAX} regions of guest memory")]
    TooMany,
}

/// One region.
#[derive(Clone, Debug)]
pub(super) struct Region {
    mapping: Arc<MmapRegion>,
    /// Its address in the guest.
    guest: u64,
    /// Its address in the front end: where rings are is said by such addresses.
    user: u64,
    len: u64,
    /// How many times it was added. QEMU up to 8.0 adds it once for each pair of queues, and removes it as often.
    times: u64,
}

impl Region {
    /// Maps a region.
    pub(super) fn map(region: &VhostUserMemoryRegion, file: File) -> Result<Self, MemoryError> {
        let (guest, user, len) = (region.guest_phys_addr, region.user_addr, region.memory_size);
        let failed = |reason: String| MemoryError::Map { guest, len, reason };
        let size = usize::try_from(len).map_err(|e| failed(e.to_string()))?;
        let mapping = MmapRegion::from_file(FileOffset::new(file, region.mmap_offset), size)
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self { mapping: Arc::new(mapping), guest, user, len, times: 1 })
    }

    /// Whether a front end means this one.
    pub(super) fn is(&self, region: &VhostUserMemoryRegion) -> bool {
        (self.guest, self.user, self.len) == (region.guest_phys_addr, region.user_addr, region.memory_size)
    }

    /// Adds it once more.
    pub(super) fn add(&mut self) {
        self.times = self.times.saturating_add(1);
    }

    /// Removes it once; whether it is still there.
    pub(super) fn remove(&mut self) -> bool {
        self.times = self.times.saturating_sub(1);
        self.times > 0
    }

    /// Where in the mapping `addr` is, in addresses that begin at `base`.
    #[inline]
    fn offset(&self, base: u64, addr: u64) -> Option<usize> {
        addr.checked_sub(base).filter(|at| *at < self.len).map(|at| at as usize)
    }
}

/// All regions, in the order of their addresses in the guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    regions: Box<[Region]>,
}

impl Memory {
    /// The memory of these regions.
    pub(super) fn new(mut regions: Vec<Region>) -> Result<Self, MemoryError> {
        if regions.len() > REGIONS_MAX {
            return Err(MemoryError::TooMany);
        }
        regions.sort_unstable_by_key(|region| region.guest);
        for pair in regions.windows(2) {
            if let [a, b] = pair
                && a.guest.checked_add(a.len).is_none_or(|end| end > b.guest)
            {
                return Err(MemoryError::Overlap(b.guest));
            }
        }
        Ok(Self { regions: regions.into() })
    }

    pub(super) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// `len` octets at an address in the front end, within one region.
    pub(super) fn part(&self, user: u64, len: usize) -> Option<Part> {
        let (region, at) = self.regions.iter().find_map(|r| Some((r, r.offset(r.user, user)?)))?;
        at.checked_add(len).filter(|end| *end as u64 <= region.len)?;
        Some(Part { mapping: Arc::clone(&region.mapping), at, len })
    }

    /// The octets from an address in the guest on, at most `len`, as far as its region goes. `hint` is where the last one was found:
    /// a guest's buffers mostly lie in one region.
    #[inline]
    pub(super) fn slice(&self, hint: &mut usize, addr: u64, len: usize) -> Option<VolatileSlice<'_>> {
        let at_hint = self.regions.get(*hint).and_then(|r| Some((r, r.offset(r.guest, addr)?)));
        let (region, at) = match at_hint {
            Some(found) => found,
            None => {
                *hint = self.regions.partition_point(|r| r.guest <= addr).checked_sub(1)?;
                let region = self.regions.get(*hint)?;
                (region, region.offset(region.guest, addr)?)
            }
        };
        region.mapping.get_slice(at, len.min(region.len as usize - at)).ok()
    }

    /// Reads all of `buf` at an address in the guest; `None` where some of it is outside.
    #[inline]
    pub(super) fn read(&self, hint: &mut usize, mut addr: u64, mut buf: &mut [u8]) -> Option<()> {
        while !buf.is_empty() {
            let read = self.slice(hint, addr, buf.len())?.copy_to(buf);
            buf = buf.get_mut(read..).filter(|_| read > 0)?;
            addr = addr.checked_add(read as u64)?;
        }
        Some(())
    }

    /// Writes all of `bytes` at an address in the guest; `None` where some of it is outside.
    #[inline]
    pub(super) fn write(&self, hint: &mut usize, mut addr: u64, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let slice = self.slice(hint, addr, bytes.len())?;
            slice.copy_from(bytes);
            let written = slice.len();
            bytes = bytes.get(written..).filter(|_| written > 0)?;
            addr = addr.checked_add(written as u64)?;
        }
        Some(())
    }

    /// Reads a value, once, at an address in the guest; `None` where some of it is outside, or where it spans two regions.
    #[inline]
    pub(super) fn value<T: ByteValued>(&self, hint: &mut usize, addr: u64) -> Option<T> {
        Some(self.slice(hint, addr, size_of::<T>())?.get_ref(0).ok()?.load())
    }
}

/// A piece of one region, looked up once: where a ring lies.
#[derive(Clone, Debug)]
pub(super) struct Part {
    mapping: Arc<MmapRegion>,
    at: usize,
    len: usize,
}

impl Part {
    /// Whether it begins at a multiple of `octets`; mappings begin at pages.
    pub(super) fn is_aligned(&self, octets: usize) -> bool {
        self.at.is_multiple_of(octets)
    }

    /// Sixteen bits at `offset`, which the other side writes at the same time.
    #[inline]
    pub(super) fn load_shared(&self, offset: usize, order: Ordering) -> Option<u16> {
        Some(u16::from_le(self.shared(offset)?.load(order)))
    }

    /// Writes sixteen bits at `offset`, which the other side reads at the same time.
    #[inline]
    pub(super) fn store_shared(&self, offset: usize, value: u16, order: Ordering) -> Option<()> {
        self.shared(offset)?.store(value.to_le(), order);
        Some(())
    }

    #[inline]
    fn shared(&self, offset: usize) -> Option<&AtomicU16> {
        self.within(offset, size_of::<u16>())?;
        self.mapping.get_atomic_ref(self.at + offset).ok()
    }

    /// The value at `offset`, read once.
    #[inline]
    pub(super) fn load<T: ByteValued>(&self, offset: usize) -> Option<T> {
        self.within(offset, size_of::<T>())?;
        Some(self.mapping.get_ref(self.at + offset).ok()?.load())
    }

    /// Writes the value at `offset`.
    #[inline]
    pub(super) fn store<T: ByteValued>(&self, offset: usize, value: T) -> Option<()> {
        self.within(offset, size_of::<T>())?;
        self.mapping.get_ref(self.at + offset).ok()?.store(value);
        Some(())
    }

    #[inline]
    fn within(&self, offset: usize, len: usize) -> Option<()> {
        (offset.checked_add(len)? <= self.len).then_some(())
    }
}

impl From<MemoryError> for vhost::vhost_user::Error {
    fn from(error: MemoryError) -> Self {
        Self::ReqHandlerError(io::Error::other(error))
    }
}
