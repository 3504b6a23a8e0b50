//! A pair of rings as a queue of a port: frames come out of the guest's transmit ring and go into its receive ring.
//!
//! A frame is copied once each way, and the guest has its buffers back when the batch is done. Used entries are published, and the
//! guest is told, once a batch. The worker polls the eventfd by which the guest says that it has transmitted.
//!
//! Each ring is behind a lock that nobody holds longer than a batch takes: the control thread stops, replaces and starts rings while
//! workers have the queue, and workers without a ring of their own to poll send into one that they share. A batch is received under
//! one lock; a frame is sent under one, which costs less than anything that could be done to avoid it while nobody else wants it.

use std::{
    cell::Cell,
    fs::File,
    io::{IoSlice, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    super::{Outcome, Received, SendResult},
    ring::{Chain, Fault, Ring, Room},
};
use crate::{
    counters::{DropReason, PortCounters},
    frame::{BATCH, Batch, Caps, MAX_FRAME, Offload},
    wire::{VirtioNetHdr, ethernet, virtio_net},
};

/// What stands where a ring is, or is to be.
#[derive(Debug, Default)]
pub(super) enum State {
    /// The guest's driver has not started it.
    #[default]
    Stopped,
    /// It runs.
    Running(Box<Running>),
    /// It made no sense and is not touched any more.
    Broken(Fault),
}

/// A ring that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ring: Ring,
    /// A disabled ring takes no frames, and what it gives goes nowhere.
    pub(super) enabled: bool,
    /// What the guest takes.
    pub(super) caps: Caps,
    /// Octets of the virtio header.
    pub(super) header: usize,
    /// Whether a frame may span several chains.
    pub(super) mergeable: bool,
}

/// A ring with its lock.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

impl Slot {
    /// The ring; whoever panicked with it has left it as it can be used.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pair of rings.
#[derive(Debug)]
pub struct VhostQueue {
    /// The guest's transmit ring.
    receive: Arc<Slot>,
    /// The guest's receive ring.
    send: Arc<Slot>,
    /// Readable when the guest has transmitted.
    kick: Arc<File>,
    deal: (u64, u64),
    held: Cell<Held>,
}

/// What a queue has taken since it was flushed last.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    frames: u64,
    bytes: u64,
    /// Frames for which no buffer of the guest is large enough.
    too_large: u64,
}

impl VhostQueue {
    pub(super) fn new(receive: Arc<Slot>, send: Arc<Slot>, kick: Arc<File>, deal: (u64, u64)) -> Self {
        Self { receive, send, kick, deal, held: Cell::default() }
    }

    /// Which state of its two rings it was made for: while that is the same, it can stay with its worker.
    pub(super) fn deal(&self) -> (u64, u64) {
        self.deal
    }

    /// Another handle on the same rings, for a worker that only sends.
    #[must_use]
    pub fn share(&self) -> Self {
        let (receive, send) = (Arc::clone(&self.receive), Arc::clone(&self.send));
        Self { receive, send, kick: Arc::clone(&self.kick), deal: self.deal, held: Cell::default() }
    }

    /// Takes frames out of the guest's transmit ring until it is empty or the batch full.
    /// Every frame is counted; those that the switch cannot carry are dropped here, by their name.
    pub fn recv(&mut self, batch: &mut Batch, counters: &PortCounters) -> Received {
        let mut state = self.receive.lock();
        let State::Running(running) = &mut *state else { return Received::Drained };
        let (result, call) = running.receive(batch, counters);
        let end = result.unwrap_or_else(|fault| {
            *state = State::Broken(fault);
            Received::Gone(Errno::PROTO)
        });
        drop(state);
        tell(call);
        end
    }

    /// Puts one frame into the guest's receive ring; `parts` begin with a virtio header of 12 octets.
    /// It is counted, and the guest told, when the queue is [flushed](Self::flush).
    pub fn send(&self, parts: &[IoSlice<'_>]) -> SendResult {
        let mut state = self.send.lock();
        let State::Running(running) = &mut *state else { return SendResult::Down };
        let mut held = self.held.get();
        let result = match running.send(parts, &mut held) {
            Ok(result) => result,
            Err(fault) => {
                *state = State::Broken(fault);
                SendResult::Gone(Errno::PROTO)
            }
        };
        self.held.set(held);
        result
    }

    /// Lets the guest see the frames that were sent since the last time, and counts them.
    pub fn flush(&self, counters: &PortCounters) -> Outcome {
        let held = self.held.take();
        if held.frames > 0 {
            counters.tx_frames.add(held.frames);
            counters.tx_bytes.add(held.bytes);
            let mut state = self.send.lock();
            let call = if let State::Running(running) = &mut *state { running.ring.publish() } else { None };
            drop(state);
            tell(call);
        }
        if held.too_large > 0 {
            counters.drop_many(DropReason::GuestBuffer, held.too_large);
        }
        Outcome::Done
    }
}

/// Tells the guest. An eventfd that is full is one that the guest has not looked at yet.
#[inline]
pub(super) fn tell(call: Option<Arc<File>>) {
    if let Some(call) = call {
        let _ = (&*call).write(&1u64.to_ne_bytes());
    }
}

impl AsFd for VhostQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }
}

impl Running {
    /// Fills a batch; says how that ended, and where the guest wants to be told of the buffers that it has back.
    fn receive(
        &mut self,
        batch: &mut Batch,
        counters: &PortCounters,
    ) -> (Result<Received, Fault>, Option<Arc<File>>) {
        self.ring.hush();
        let mut seen = (0, 0);
        let end = loop {
            // Chains that hold no frame count too, or a guest that sends nothing else would keep the worker for itself.
            if batch.is_full() || seen.0 >= BATCH as u64 {
                break Ok(Received::Full);
            }
            match self.receive_one(batch, counters, &mut seen) {
                Ok(true) => {}
                Ok(false) => match self.ring.await_kick() {
                    Ok(true) => break Ok(Received::Drained),
                    Ok(false) => self.ring.hush(),
                    Err(fault) => break Err(fault),
                },
                Err(fault) => break Err(fault),
            }
        };
        if seen.0 > 0 {
            counters.rx_frames.add(seen.0);
            counters.rx_bytes.add(seen.1);
        }
        (end, self.ring.publish())
    }

    /// Takes one frame; `false` where there is none.
    #[inline]
    fn receive_one(
        &mut self,
        batch: &mut Batch,
        counters: &PortCounters,
        (frames, bytes): &mut (u64, u64),
    ) -> Result<bool, Fault> {
        let Some(chain) = self.ring.next_readable()? else { return Ok(false) };
        let len = chain.len.saturating_sub(self.header as u64);
        *frames += 1;
        *bytes += len;
        match self.take_in(batch, chain)? {
            Ok(offload) if self.enabled => batch.push(len as usize, offload),
            // A disabled ring is emptied all the same (vhost-user, "Ring states").
            Ok(_) => counters.drop(DropReason::PortDown),
            Err(reason) => counters.drop(reason),
        }
        self.ring.put_used(chain, 0)?;
        Ok(true)
    }

    /// Copies a frame to the next free slot of a batch; its offload state, or why it cannot be carried.
    #[inline]
    fn take_in(&mut self, batch: &mut Batch, chain: Chain) -> Result<Result<Offload, DropReason>, Fault> {
        let len = chain.len.saturating_sub(self.header as u64);
        if len < ethernet::HEADER_LEN as u64 {
            return Ok(Err(DropReason::Runt));
        }
        if len > MAX_FRAME as u64 {
            return Ok(Err(DropReason::Giant));
        }
        let slot = &mut batch.vacant(self.header)[..self.header + len as usize];
        self.ring.read(slot)?;
        let mut header = [0; virtio_net::LEN];
        header[..self.header].copy_from_slice(&slot[..self.header]);
        let Ok(header) = VirtioNetHdr::ref_from_bytes(&header) else {
            return Ok(Err(DropReason::VnetHeaderInvalid));
        };
        Ok(Offload::from_vnet(header, len as usize).ok_or(DropReason::VnetHeaderInvalid))
    }

    #[inline]
    fn send(&mut self, parts: &[IoSlice<'_>], held: &mut Held) -> Result<SendResult, Fault> {
        if !self.enabled {
            return Ok(SendResult::Down);
        }
        let Some((first, rest)) = parts.split_first() else { return Ok(SendResult::Refused(Errno::INVAL)) };
        let Ok((header, first)) = VirtioNetHdr::read_from_prefix(first) else {
            return Ok(SendResult::Refused(Errno::INVAL));
        };
        let len = first.len() + rest.iter().map(|part| part.len()).sum::<usize>();
        let Some(mut header) = self.admit(header, len) else { return Ok(SendResult::Refused(Errno::INVAL)) };
        let total = (self.header + len) as u64;
        match self.ring.gather(total, self.mergeable, self.header as u64)? {
            Room::Chains(chains) => header.num_buffers = chains.into(),
            Room::Full => return Ok(SendResult::Full),
            Room::TooSmall => {
                held.too_large += 1;
                return Ok(SendResult::Held);
            }
        }
        let parts = [&header.as_bytes()[..self.header], first].into_iter();
        self.ring.fill(parts.chain(rest.iter().map(|part| &**part)))?;
        held.frames += 1;
        held.bytes += len as u64;
        Ok(SendResult::Held)
    }

    /// The header as this guest takes it; `None` where it has not agreed to what the header says. The workers may know of another
    /// guest's agreement for a moment, while one driver follows another.
    #[inline]
    fn admit(&self, mut header: VirtioNetHdr, len: usize) -> Option<VirtioNetHdr> {
        if header.flags & virtio_net::F_NEEDS_CSUM != 0 || header.gso_type != virtio_net::GSO_NONE {
            return self.caps.take(&Offload::from_vnet(&header, len)?).then_some(header);
        }
        if !self.caps.csum {
            header.flags = 0; // nor may it be told that a checksum is good (§5.1.6.4.1)
        }
        Some(header)
    }
}
