//! The socket by which one worker receives the datagrams of an endpoint: one `recvmmsg` a batch.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use socket2::Socket;

use super::super::Received;
use crate::{
    counters::{DropReason, PortCounters},
    frame::{BATCH, BATCH_BYTES, Batch, Datagram, Offload},
    sys::udp::{self, RecvScratch},
};

/// Buffers of the first receive, and the fewest of any: what a buffer costs that is not filled can hardly be measured.
const BUFFERS_MIN: usize = 8;

/// A receiving socket.
#[derive(Debug)]
pub struct UdpRx {
    socket: Socket,
    scratch: RecvScratch,
    /// Messages that the next receive is likely to find.
    expect: usize,
    /// Octets that the messages of the last receive had on average.
    typical: usize,
    /// The kernel's count of datagrams lost, as last told.
    lost: u32,
    /// So many have come at once that others may have been lost, and nobody has asked yet.
    crowded: bool,
}

impl UdpRx {
    pub(super) fn new(socket: Socket) -> Self {
        let scratch = RecvScratch::default();
        Self { socket, scratch, expect: BUFFERS_MIN, typical: 1, lost: 0, crowded: false }
    }

    /// See [`UnderlayRx::recv`](super::UnderlayRx::recv).
    pub fn recv(
        &mut self,
        batch: &mut Batch,
        datagrams: &mut Vec<Datagram>,
        counters: &PortCounters,
    ) -> Received {
        debug_assert!(batch.is_empty());
        datagrams.clear();
        let count = self.expect.min(BATCH_BYTES / self.typical);
        let got = match self.scratch.receive(self.socket.as_fd(), batch.vacancies(0, count)) {
            Ok(got) => got,
            Err(errno) => return ended_by(errno),
        };
        let mut octets = 0;
        for n in 0..got {
            let arrival = self.scratch.arrival(n);
            octets += arrival.len;
            let Some(from) = arrival.from.filter(|_| !arrival.truncated) else {
                counters.drop(DropReason::Giant); // a slot is longer than a datagram can be
                continue;
            };
            datagrams.push(Datagram {
                at: Batch::slot_at(n) as u32,
                len: arrival.len as u32,
                stride: arrival.stride,
                from: from.ip(),
                tos: arrival.tos,
                offload: Offload::NONE,
            });
        }
        counters.rx_frames.add(got as u64);
        counters.rx_bytes.add(octets as u64);
        self.typical = octets.checked_div(got).unwrap_or(1).clamp(1, BATCH_BYTES);
        // As many as came this time may come the next time; where all buffers were filled, more.
        let full = got == count;
        self.crowded |= full;
        self.expect = if full { (2 * count).min(BATCH) } else { got.max(BUFFERS_MIN) };
        if full { Received::Full } else { Received::Drained }
    }

    /// See [`UnderlayRx::overflowed`](super::UnderlayRx::overflowed).
    ///
    /// Asks the kernel where a receive has filled all its buffers: a receive buffer that overflows has more than that.
    #[inline]
    pub fn overflowed(&mut self) -> u64 {
        if !std::mem::take(&mut self.crowded) {
            return 0;
        }
        // An error is one of kernels that do not know the question, and would have been one the first time.
        let lost = udp::lost(self.socket.as_fd()).unwrap_or(self.lost);
        lost.wrapping_sub(std::mem::replace(&mut self.lost, lost)).into()
    }

    /// What a poll watches.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How an error of a receive ends it.
#[cold]
fn ended_by(errno: Errno) -> Received {
    match errno {
        Errno::AGAIN => Received::Drained,
        Errno::BADF | Errno::NOTSOCK => Received::Gone(errno),
        // Memory is short, or the error is one that an ICMP message left behind, and is gone by now: come back when others have
        // had their turn.
        _ => Received::Full,
    }
}
