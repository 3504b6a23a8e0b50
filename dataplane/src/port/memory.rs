//! A port in memory: the switch end is a queue like any other, the far end is in the hands of a test or a simulation.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::IoSlice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crossbeam::queue::ArrayQueue;
use rustix::io::Errno;

use super::{Outcome, Received, SendResult};
use crate::{
    counters::{DropReason, PortCounters},
    frame::{Batch, Caps, Offload},
    wire::{VirtioNetHdr, ethernet, virtio_net},
};

/// Frames that wait in one direction.
const DEPTH: usize = 4096;

/// A frame, and what is left to do for it.
type Queued = (Vec<u8>, Offload);

/// What is between the two ends.
#[derive(Debug)]
struct Wire {
    inbound: ArrayQueue<Queued>,
    outbound: ArrayQueue<Queued>,
    /// The far end has hung up.
    ended: AtomicBool,
}

/// The end that a worker polls.
#[derive(Debug)]
pub struct MemoryQueue {
    wire: Arc<Wire>,
    caps: Caps,
    /// Frames that leave together, where they do.
    held: Option<RefCell<Vec<Queued>>>,
}

/// The far end.
#[derive(Clone, Debug)]
pub struct MemoryPeer(Arc<Wire>);

/// The two ends of a port whose far end takes what `caps` says.
pub fn pair(caps: Caps) -> (MemoryQueue, MemoryPeer) {
    let (inbound, outbound) = (ArrayQueue::new(DEPTH), ArrayQueue::new(DEPTH));
    let wire = Arc::new(Wire { inbound, outbound, ended: AtomicBool::new(false) });
    (MemoryQueue { wire: Arc::clone(&wire), caps, held: None }, MemoryPeer(wire))
}

/// The same, of a port that holds what it is to send until it is flushed.
pub fn gathering_pair(caps: Caps) -> (MemoryQueue, MemoryPeer) {
    let (queue, peer) = pair(caps);
    (MemoryQueue { held: Some(RefCell::default()), ..queue }, peer)
}

impl MemoryPeer {
    /// Hands the switch a frame; `false` where too many wait.
    pub fn send(&self, frame: &[u8], offload: Offload) -> bool {
        self.0.inbound.push((frame.to_vec(), offload)).is_ok()
    }

    /// Takes the next frame that the switch has sent.
    pub fn recv(&self) -> Option<(Vec<u8>, Offload)> {
        self.0.outbound.pop()
    }

    /// Takes all frames that the switch has sent.
    pub fn drain(&self) -> VecDeque<(Vec<u8>, Offload)> {
        std::iter::from_fn(|| self.recv()).collect()
    }

    /// Ends the port, as a device that is deleted: what was sent is still received, and then the queue is gone.
    pub fn hang_up(&self) {
        self.0.ended.store(true, Relaxed);
    }
}

impl MemoryQueue {
    /// Another handle on the same queue, for a worker that only sends. It holds frames of its own.
    #[must_use]
    pub fn share(&self) -> Self {
        let held = self.held.as_ref().map(|_| RefCell::default());
        Self { wire: Arc::clone(&self.wire), caps: self.caps, held }
    }

    pub(super) fn vnet_header_len(&self) -> usize {
        if self.caps.vnet_hdr { virtio_net::LEN } else { 0 }
    }

    pub(super) fn recv(&mut self, batch: &mut Batch, counters: &PortCounters) -> Received {
        loop {
            if batch.is_full() {
                return Received::Full;
            }
            let Some((frame, offload)) = self.wire.inbound.pop() else {
                let ended = self.wire.ended.load(Relaxed);
                return if ended { Received::Gone(Errno::BADFD) } else { Received::Drained };
            };
            counters.rx_frames.add(1);
            counters.rx_bytes.add(frame.len() as u64);
            if frame.len() < ethernet::HEADER_LEN {
                counters.drop(DropReason::Runt);
            } else if !batch.append(&frame, offload) {
                counters.drop(DropReason::Giant);
            }
        }
    }

    pub(super) fn send(&self, parts: &[IoSlice<'_>]) -> SendResult {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        let offload = if self.caps.vnet_hdr {
            let (header, _) =
                zerocopy::FromBytes::read_from_prefix(&bytes).unwrap_or((VirtioNetHdr::default(), &[]));
            bytes.drain(..virtio_net::LEN);
            let Some(offload) = Offload::from_vnet(&header, bytes.len()) else {
                return SendResult::Refused(Errno::INVAL);
            };
            offload
        } else {
            Offload::NONE
        };
        match &self.held {
            Some(held) => {
                held.borrow_mut().push((bytes, offload));
                SendResult::Held
            }
            None => self.push((bytes, offload)),
        }
    }

    pub(super) fn flush(&self, counters: &PortCounters) -> Outcome {
        let held = self.held.as_ref().map(RefCell::take).unwrap_or_default();
        let mut outcome = Outcome::Done;
        for frame in held {
            let len = frame.0.len();
            match self.push(frame) {
                SendResult::Gone(_) => {
                    counters.drop(DropReason::EgressDown);
                    outcome = Outcome::Gone;
                }
                SendResult::Full => counters.drop(DropReason::EgressFull),
                _ => {
                    counters.tx_frames.add(1);
                    counters.tx_bytes.add(len as u64);
                }
            }
        }
        outcome
    }

    fn push(&self, frame: Queued) -> SendResult {
        if self.wire.ended.load(Relaxed) {
            return SendResult::Gone(Errno::BADFD);
        }
        match self.wire.outbound.push(frame) {
            Ok(()) => SendResult::Sent,
            Err(_) => SendResult::Full,
        }
    }
}
