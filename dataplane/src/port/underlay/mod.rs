//! The underlay by UDP sockets: where tunnelled frames enter and leave the machine.
//!
//! Owns the sockets of a tunnel endpoint, what was agreed with the kernel about them, and the meaning of every error they give.
//! Knows datagrams, not what is in them: no tunnel header is read or written here.
//! Nothing blocks, and nothing is allocated once the scratch memory has grown to what the traffic needs.
//!
//! Datagrams come by a socket that is bound to the endpoint's address and port, one for each worker ([`UdpRx`]).
//! They leave by another set of sockets ([`TxSet`]): a socket has one source port, and the flows inside a tunnel need many, or no
//! router could spread them over its paths (RFC 7348 §5, RFC 8926 §3.3). A worker collects what it sends in an [`Outbox`].
//!
//! `docs/design/underlay.md` has the picture.

pub mod memory;
mod open;
mod outbox;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, os::fd::BorrowedFd};

use rustix::io::Errno;

pub use memory::{MemoryNet, MemoryRx, MemoryTx};
pub(super) use open::set_buffer;
pub use open::{Group, RxOptions, TxSetOptions, UnderlayError, path_mtu};
pub use outbox::{HEAD_MAX, Outbox};
pub use receive::UdpRx;
pub use send::TxSet;

use super::Received;
use crate::{
    counters::PortCounters,
    frame::{Batch, Datagram},
    index::{PortIdx, RemoteIdx, TxSetIdx},
};

/// Sockets of a set: how many source ports the flows of one endpoint are spread over.
pub const LANES: usize = 16;

/// Where datagrams come from. The set is closed: a match per call instead of a virtual call.
#[derive(Debug)]
pub enum UnderlayRx {
    /// A UDP socket.
    Socket(UdpRx),
    /// A network in memory.
    Memory(MemoryRx),
}

impl UnderlayRx {
    /// Receives what waits, as far as it fits, into the memory of the batch, which has no frames; `datagrams` then holds what came
    /// and nothing else. Never blocks.
    ///
    /// Which of the datagrams hold frames, the caller finds out, and [takes them in](Batch::push_at). They can be more than a
    /// batch takes: clearing it leaves the octets where they are, until the next receive.
    /// A train of datagrams counts as one received frame of `counters`, as a super-frame does.
    #[inline]
    pub fn recv(
        &mut self,
        batch: &mut Batch,
        datagrams: &mut Vec<Datagram>,
        counters: &PortCounters,
    ) -> Received {
        match self {
            Self::Socket(rx) => rx.recv(batch, datagrams, counters),
            Self::Memory(rx) => rx.recv(batch, datagrams, counters),
        }
    }

    /// Datagrams that the kernel has thrown away since the last call, because nobody fetched them in time.
    /// The kernel is asked after a receive that filled all its buffers.
    #[inline]
    pub fn overflowed(&mut self) -> u64 {
        match self {
            Self::Socket(rx) => rx.overflowed(),
            Self::Memory(rx) => rx.overflowed(),
        }
    }

    /// What a poll watches.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Socket(rx) => Some(rx.fd()),
            Self::Memory(_) => None,
        }
    }
}

/// Where datagrams leave.
#[derive(Debug)]
pub enum UnderlayTx {
    /// A set of UDP sockets.
    Sockets(TxSet),
    /// A network in memory.
    Memory(MemoryTx),
}

impl UnderlayTx {
    /// Whether it takes several datagrams as one message: see [`TxSet::segments`].
    pub fn segments(&self) -> bool {
        match self {
            Self::Sockets(set) => set.segments(),
            Self::Memory(_) => true,
        }
    }

    /// See [`TxSet::gso_refused`].
    pub fn gso_refused(&self) -> u64 {
        match self {
            Self::Sockets(set) => set.gso_refused(),
            Self::Memory(_) => 0,
        }
    }
}

/// Where a datagram goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// The set of sockets by which it leaves.
    pub set: TxSetIdx,
    /// A hash of the flow inside: datagrams of one flow leave from one source port, in the order in which they were pushed.
    pub flow: u32,
    /// The endpoint at the other end, or a group.
    pub addr: SocketAddr,
    /// TOS, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit; 0: what the kernel gives, which is 1 for a group.
    pub ttl: u8,
}

/// On whose account a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The tunnel port.
    pub port: PortIdx,
    /// The remote endpoint.
    pub remote: RemoteIdx,
}

/// What datagrams of one account came to, all of them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// How many.
    pub datagrams: u32,
    /// Their octets behind the UDP headers.
    pub octets: u64,
    /// How it ended.
    pub delivery: Delivery,
    /// The kernel refused to segment them, and they were sent one by one.
    pub fallback: bool,
}

/// How a send over the underlay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The kernel took it.
    Sent,
    /// No room at the moment (EAGAIN, ENOBUFS, ENOMEM).
    Full,
    /// Longer than the path MTU, and must not be fragmented (EMSGSIZE). [`path_mtu`] tells what fits.
    TooBig,
    /// No route, the device is down, or a firewall forbids it (ENETUNREACH, EHOSTUNREACH, ENETDOWN, EACCES, EPERM).
    Unreachable,
    /// The set of sockets is gone.
    Gone,
    /// The kernel does not take such a datagram.
    Refused(Errno),
}

impl Delivery {
    /// What an error of a send means (`udp_sendmsg`, `ip_make_skb`, `ip_send_skb`): the one place that knows.
    #[cold]
    fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Self::Full,
            Errno::MSGSIZE => Self::TooBig,
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::ACCESS | Errno::PERM => {
                Self::Unreachable
            }
            _ => Self::Refused(errno),
        }
    }
}
