//! A port in memory: the switch end is a queue like any other, the far end is in the hands of a test or a simulation.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use crossbeam::queue::ArrayQueue;

use super::{Received, SendResult};
use crate::{
    counters::{DropReason, PortCounters},
    frame::{Batch, Caps, Offload},
    wire::{VirtioNetHdr, ethernet, virtio_net},
};

/// Frames that wait in one direction.
const DEPTH: usize = 4096;

type Wire = Arc<ArrayQueue<(Vec<u8>, Offload)>>;

/// The end that a worker polls.
#[derive(Debug)]
pub struct MemoryQueue {
    inbound: Wire,
    outbound: Wire,
    caps: Caps,
}

/// The far end.
#[derive(Clone, Debug)]
pub struct MemoryPeer {
    inbound: Wire,
    outbound: Wire,
}

/// The two ends of a port whose far end takes what `caps` says.
pub fn pair(caps: Caps) -> (MemoryQueue, MemoryPeer) {
    let (inbound, outbound) = (Arc::new(ArrayQueue::new(DEPTH)), Arc::new(ArrayQueue::new(DEPTH)));
    let peer = MemoryPeer { inbound: Arc::clone(&inbound), outbound: Arc::clone(&outbound) };
    (MemoryQueue { inbound, outbound, caps }, peer)
}

impl MemoryPeer {
    /// Hands the switch a frame; `false` where too many wait.
    pub fn send(&self, frame: &[u8], offload: Offload) -> bool {
        self.inbound.push((frame.to_vec(), offload)).is_ok()
    }

    /// Takes the next frame that the switch has sent.
    pub fn recv(&self) -> Option<(Vec<u8>, Offload)> {
        self.outbound.pop()
    }

    /// Takes all frames that the switch has sent.
    pub fn drain(&self) -> VecDeque<(Vec<u8>, Offload)> {
        std::iter::from_fn(|| self.recv()).collect()
    }
}

impl MemoryQueue {
    /// Another handle on the same queue, for a worker that only sends.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { inbound: Arc::clone(&self.inbound), outbound: Arc::clone(&self.outbound), caps: self.caps }
    }

    pub(super) fn vnet_header_len(&self) -> usize {
        if self.caps.vnet_hdr { virtio_net::LEN } else { 0 }
    }

    pub(super) fn recv(&mut self, batch: &mut Batch, counters: &PortCounters) -> Received {
        loop {
            if batch.is_full() {
                return Received::Full;
            }
            let Some((frame, offload)) = self.inbound.pop() else { return Received::Drained };
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
                return SendResult::Refused(rustix::io::Errno::INVAL);
            };
            offload
        } else {
            Offload::NONE
        };
        match self.outbound.push((bytes, offload)) {
            Ok(()) => SendResult::Sent,
            Err(_) => SendResult::Full,
        }
    }
}
