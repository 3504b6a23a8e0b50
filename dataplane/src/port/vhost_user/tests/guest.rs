//! The guest's side of a pair of rings, in a file in memory: a driver that can also do what no driver does.

use std::{fs::File, sync::Arc};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use zerocopy::IntoBytes;

use super::super::{
    features,
    memory::{Memory, Region},
    queue::{Running, Slot, State, VhostQueue},
    ring::{Layout, Ring},
};
use crate::{
    counters::PortCounters,
    frame::{Batch, Offload},
    port::Received,
    wire::VirtioNetHdr,
};

/// Where the guest's memory begins, in its own addresses and in those of its monitor.
pub(super) const GUEST: u64 = 0x1_0000_0000;
pub(super) const USER: u64 = 0x7f00_0000_0000;
pub(super) const MEMORY: u64 = 4 << 20;
/// Of two regions, side by side; a buffer may span them.
pub(super) const SECOND: u64 = 1 << 20;
pub(super) const ENTRIES: u16 = 64;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Everything but event index.
pub(super) const FEATURES: u64 = features::VERSION_1
    | features::NET_MRG_RXBUF
    | features::INDIRECT_DESC
    | features::NET_GUEST_CSUM
    | features::NET_GUEST_TSO4;

/// A ring, from the guest's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct DriverRing {
    /// Where its parts begin, in the guest's memory.
    pub(super) at: u64,
    available: u16,
    seen: u16,
}

impl DriverRing {
    pub(super) const fn new(at: u64) -> Self {
        Self { at, available: 0, seen: 0 }
    }

    pub(super) const fn table(&self) -> u64 {
        GUEST + self.at
    }

    pub(super) const fn available(&self) -> u64 {
        GUEST + self.at + 0x1000
    }

    pub(super) const fn used(&self) -> u64 {
        GUEST + self.at + 0x2000
    }

    pub(super) fn layout(&self, features: u64) -> Layout {
        let user = |guest: u64| guest - GUEST + USER;
        Layout {
            size: ENTRIES.into(),
            descriptors: user(self.table()),
            available: user(self.available()),
            used: user(self.used()),
            event_idx: features & features::EVENT_IDX != 0,
            indirect: features & features::INDIRECT_DESC != 0,
        }
    }
}

/// A guest and the queue that the switch has of it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) file: File,
    pub(super) memory: Arc<Memory>,
    pub(super) transmit: DriverRing,
    pub(super) receive: DriverRing,
    pub(super) queue: VhostQueue,
    pub(super) slots: [Arc<Slot>; 2],
    pub(super) calls: [Arc<File>; 2],
    pub(super) counters: PortCounters,
    pub(super) batch: Batch,
}

pub(super) fn eventfd() -> Arc<File> {
    Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap().into())
}

/// How often an eventfd was written to since the last time.
pub(super) fn told(call: &File) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(call, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

/// The file that a guest's memory is, and the two regions of it.
pub(super) fn file() -> File {
    let file: File = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap().into();
    ftruncate(&file, MEMORY).unwrap();
    file
}

pub(super) fn memory(file: &File) -> Arc<Memory> {
    let region = |at: u64, len: u64| {
        let region = VhostUserMemoryRegion::new(GUEST + at, len, USER + at, at);
        Region::map(&region, file.try_clone().unwrap()).unwrap()
    };
    Arc::new(Memory::new(vec![region(SECOND, MEMORY - SECOND), region(0, SECOND)]).unwrap())
}

impl Guest {
    pub(super) fn new(features: u64) -> Self {
        let file = file();
        let memory = memory(&file);
        let (transmit, receive) = (DriverRing::new(0x1_0000), DriverRing::new(0x2_0000));
        let calls = [eventfd(), eventfd()];
        let slots: [Arc<Slot>; 2] = Default::default();
        for ((slot, ring), call) in slots.iter().zip([transmit, receive]).zip(&calls) {
            let ring =
                Ring::new(Arc::clone(&memory), &ring.layout(features), Some(Arc::clone(call))).unwrap();
            *slot.lock() = State::Running(Box::new(Running {
                ring,
                enabled: true,
                caps: features::caps(features),
                header: features::header_len(features),
                mergeable: features & features::NET_MRG_RXBUF != 0,
            }));
        }
        let queue = VhostQueue::new(Arc::clone(&slots[0]), Arc::clone(&slots[1]), eventfd(), (0, 0));
        let (counters, batch) = (PortCounters::default(), Batch::new());
        Self { file, memory, transmit, receive, queue, slots, calls, counters, batch }
    }

    pub(super) fn write(&self, addr: u64, octets: &[u8]) {
        self.memory.write(&mut 0, addr, octets).unwrap();
    }

    pub(super) fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        self.memory.read(&mut 0, addr, &mut octets).unwrap();
        octets
    }

    fn word(&self, addr: u64) -> u16 {
        u16::from_le_bytes(self.read(addr, 2).try_into().unwrap())
    }

    /// Writes descriptor `n` of a table.
    pub(super) fn describe(&self, table: u64, n: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut octets = addr.to_le_bytes().to_vec();
        octets.extend(len.to_le_bytes());
        octets.extend(flags.to_le_bytes());
        octets.extend(next.to_le_bytes());
        self.write(table + 16 * u64::from(n), &octets);
    }

    /// Makes the chain that begins at `head` available.
    pub(super) fn offer(&self, ring: &mut DriverRing, head: u16) {
        let entry = u64::from(ring.available % ENTRIES);
        self.write(ring.available() + 4 + 2 * entry, &head.to_le_bytes());
        ring.available = ring.available.wrapping_add(1);
        self.write(ring.available() + 2, &ring.available.to_le_bytes());
    }

    pub(super) fn offer_transmit(&mut self, head: u16) {
        let mut ring = self.transmit;
        self.offer(&mut ring, head);
        self.transmit = ring;
    }

    pub(super) fn offer_receive(&mut self, head: u16) {
        let mut ring = self.receive;
        self.offer(&mut ring, head);
        self.receive = ring;
    }

    /// What has been used since the last time: where each chain begins, and how many octets were written to it.
    pub(super) fn used(&self, ring: &mut DriverRing) -> Vec<(u32, u32)> {
        let index = self.word(ring.used() + 2);
        let mut used = Vec::new();
        while ring.seen != index {
            let element = self.read(ring.used() + 4 + 8 * u64::from(ring.seen % ENTRIES), 8);
            let word = |at: usize| u32::from_le_bytes(element[at..at + 4].try_into().unwrap());
            used.push((word(0), word(4)));
            ring.seen = ring.seen.wrapping_add(1);
        }
        used
    }

    pub(super) fn used_transmit(&mut self) -> Vec<(u32, u32)> {
        let mut ring = self.transmit;
        let used = self.used(&mut ring);
        self.transmit = ring;
        used
    }

    pub(super) fn used_receive(&mut self) -> Vec<(u32, u32)> {
        let mut ring = self.receive;
        let used = self.used(&mut ring);
        self.receive = ring;
        used
    }

    /// Transmits a frame in one descriptor, its number `n`.
    pub(super) fn transmit(&mut self, n: u16, header: &VirtioNetHdr, frame: &[u8]) {
        let at = GUEST + 0x10_0000 + u64::from(n) * 0x4000;
        self.write(at, header.as_bytes());
        self.write(at + 12, frame);
        self.describe(self.transmit.table(), n, at, 12 + frame.len() as u32, 0, 0);
        self.offer_transmit(n);
    }

    /// Makes `count` buffers of `len` octets available to receive into.
    pub(super) fn buffers(&mut self, count: u16, len: u32) {
        for n in 0..count {
            self.describe(self.receive.table(), n, self.buffer(n), len, WRITE, 0);
            self.offer_receive(n);
        }
    }

    pub(super) fn buffer(&self, n: u16) -> u64 {
        GUEST + 0x4_0000 + u64::from(n) * 0x2000
    }

    pub(super) fn recv(&mut self) -> Received {
        self.batch.clear();
        self.queue.recv(&mut self.batch, &self.counters)
    }

    /// The frames of the last receive.
    pub(super) fn frames(&self) -> Vec<(Vec<u8>, Offload)> {
        (0..self.batch.len()).map(|n| (self.batch.bytes(n).to_vec(), self.batch.frame(n).offload)).collect()
    }

    /// What a ring is now.
    pub(super) fn state(&self, n: usize) -> String {
        match &*self.slots[n].lock() {
            State::Stopped => "stopped".to_owned(),
            State::Running(_) => "running".to_owned(),
            State::Broken(fault) => fault.to_string(),
        }
    }
}
