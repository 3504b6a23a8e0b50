//! One queue of a port, whatever is behind it.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    DgramQueue, MemoryQueue, Outcome, PacketQueue, Received, SendResult, StreamQueue, TapQueue, VhostQueue,
};
use crate::{counters::PortCounters, frame::Batch, sys::uring::Batcher, wire::virtio_net};

/// A queue that a worker polls or sends by. The set is closed: a match per call instead of a virtual call.
#[derive(Debug)]
pub enum Queue {
    /// Of a TAP.
    Tap(TapQueue),
    /// A packet socket at an interface.
    Packet(PacketQueue),
    /// In memory.
    Memory(MemoryQueue),
    /// Of a stream to a peer.
    Stream(StreamQueue),
    /// Of datagrams to and from a peer.
    Dgram(DgramQueue),
    /// In a guest's memory.
    Vhost(VhostQueue),
}

impl Queue {
    /// Octets of virtio header in front of each frame.
    #[inline]
    pub fn vnet_header_len(&self) -> usize {
        match self {
            Self::Tap(q) => q.vnet_header_len(),
            Self::Packet(q) => q.vnet_header_len(),
            Self::Memory(q) => q.vnet_header_len(),
            Self::Stream(_) | Self::Dgram(_) => 0,
            Self::Vhost(_) => virtio_net::LEN,
        }
    }

    /// Fills the batch with frames until the queue is empty or the batch full; never blocks.
    /// Counts every frame, and drops those that the switch cannot carry.
    #[inline]
    pub fn recv(
        &mut self,
        batch: &mut Batch,
        counters: &PortCounters,
        ring: Option<&mut Batcher>,
    ) -> Received {
        match self {
            Self::Tap(q) => q.recv(batch, counters, ring),
            Self::Packet(q) => q.recv(batch, counters),
            Self::Memory(q) => q.recv(batch, counters),
            Self::Stream(q) => q.recv(batch, counters),
            Self::Dgram(q) => q.recv(batch, counters, ring),
            Self::Vhost(q) => q.recv(batch, counters),
        }
    }

    /// Sends one frame, in parts, of which the first is the virtio header where there is one; never blocks.
    #[inline]
    pub fn send(&self, parts: &[IoSlice<'_>]) -> SendResult {
        match self {
            Self::Tap(q) => q.send(parts),
            Self::Packet(q) => q.send(parts),
            Self::Memory(q) => q.send(parts),
            Self::Stream(q) => q.hold(parts),
            Self::Dgram(q) => q.send(parts),
            Self::Vhost(q) => q.send(parts),
        }
    }

    /// Sends what the queue holds ([`SendResult::Held`]), and counts it.
    #[inline]
    pub fn flush(&self, counters: &PortCounters) -> Outcome {
        match self {
            Self::Tap(_) | Self::Packet(_) | Self::Dgram(_) => Outcome::Done,
            Self::Memory(q) => q.flush(counters),
            Self::Stream(q) => q.flush(counters),
            Self::Vhost(q) => q.flush(counters),
        }
    }

    /// Another handle on the same queue, for a worker that only sends by it.
    ///
    /// # Errors
    /// Where the process has no more descriptors.
    pub fn share(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tap(q) => Self::Tap(q.share()?),
            Self::Packet(q) => Self::Packet(q.share()?),
            Self::Memory(q) => Self::Memory(q.share()),
            Self::Stream(q) => Self::Stream(q.share()),
            Self::Dgram(q) => Self::Dgram(q.share()?),
            Self::Vhost(q) => Self::Vhost(q.share()),
        })
    }

    /// The descriptor that a ring may write frames to, each with one write.
    #[inline]
    pub fn ring_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tap(q) => Some(q.as_fd()),
            Self::Packet(q) => q.ring_fd(),
            Self::Dgram(q) => Some(q.as_fd()),
            Self::Memory(_) | Self::Stream(_) | Self::Vhost(_) => None,
        }
    }

    /// What a poll watches.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tap(q) => Some(q.as_fd()),
            Self::Packet(q) => Some(q.as_fd()),
            Self::Memory(_) => None,
            Self::Stream(q) => Some(q.as_fd()),
            Self::Dgram(q) => Some(q.as_fd()),
            Self::Vhost(q) => Some(q.as_fd()),
        }
    }
}
