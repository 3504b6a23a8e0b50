//! One queue of a TAP: read and write, one frame a system call, or several in one where a ring is lent.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::super::{ErrnoClass, Received, SendResult, classify};
use crate::{
    counters::{DropReason, PortCounters},
    frame::{BATCH, Batch, Caps, MAX_FRAME, Offload},
    sys::uring::{Batcher, MAX_OPS},
    wire::{VirtioNetHdr, ethernet, virtio_net},
};

/// A queue of a TAP. It belongs to one worker at a time.
///
/// A worker gives it back instead of dropping it: closing the descriptor of a queue waits for grace periods under the
/// kernel's rtnl lock, some 20 ms, which no worker has.
/// It is to be deregistered from the poll first: the [`Tap`](super::Tap) holds the first queue's descriptor too, so
/// that closing it here would not take it out of an epoll set.
#[derive(Debug)]
pub struct TapQueue {
    fd: OwnedFd,
    caps: Caps,
    before: usize,
    /// Frames that the next receive is likely to find, and one.
    expect: usize,
    /// Octets that the frames of the last receive had on average.
    typical: usize,
    /// Whether a read of nothing says that nobody is behind the descriptor any more; of datagrams it only says that one was empty.
    ends: bool,
}

/// Up to this many frames, single system calls are cheaper than a ring's.
pub(crate) const WORTH_A_RING: usize = 2;

impl TapQueue {
    /// A queue over a descriptor that gives and takes one frame a call, with a virtio header in front where `caps` says so.
    pub fn new(fd: OwnedFd, caps: Caps) -> Self {
        Self { fd, caps, before: caps.vnet_header_len(), expect: 1, typical: 1, ends: true }
    }

    /// A queue over a socket of datagrams, each a frame without a header: it is read and written as a TAP is.
    pub(in crate::port) fn of_datagrams(fd: OwnedFd) -> Self {
        Self { ends: false, ..Self::new(fd, Caps::NONE) }
    }

    /// Another handle on the same queue, for a worker that only sends by it.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, ..*self })
    }

    /// What the interface end takes.
    #[inline]
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Octets of the virtio header before each frame, in both directions: 12, 24 where it describes tunnels, or 0 for a plain port.
    #[inline]
    pub fn vnet_header_len(&self) -> usize {
        self.before
    }

    /// Reads frames into the batch until the queue is empty or the batch full, several in one system call where `ring` is there
    /// and the last reads say that several wait.
    /// Every frame read is counted; those the switch cannot carry are dropped here, by their name.
    pub fn recv(
        &mut self,
        batch: &mut Batch,
        counters: &PortCounters,
        mut ring: Option<&mut Batcher>,
    ) -> Received {
        let mut seen = Seen::default();
        let end = loop {
            if batch.is_full() {
                break Received::Full;
            }
            let end = match ring.as_deref_mut() {
                Some(ring) if self.expect > WORTH_A_RING => self.read_many(batch, counters, &mut seen, ring),
                _ => self.read_one(batch, counters, &mut seen),
            };
            if let Some(end) = end {
                break end;
            }
        };
        // As many as came this time may come the next time; a first miss costs one read that finds nothing.
        self.expect = if end == Received::Full { BATCH } else { (seen.frames as usize + 1).min(BATCH) };
        if let Some(typical) = seen.bytes.checked_div(seen.frames) {
            self.typical = typical.max(1) as usize;
            counters.rx_frames.add(seen.frames);
            counters.rx_bytes.add(seen.bytes);
        }
        end
    }

    fn read_one(&mut self, batch: &mut Batch, counters: &PortCounters, seen: &mut Seen) -> Option<Received> {
        match rustix::io::read(&self.fd, batch.vacant(self.before)) {
            Ok(read) => self.take_in(batch, read, counters, seen),
            Err(errno) => Some(ended_by(errno, counters, seen)),
        }
    }

    fn read_many(
        &mut self,
        batch: &mut Batch,
        counters: &PortCounters,
        seen: &mut Seen,
        ring: &mut Batcher,
    ) -> Option<Received> {
        let first = batch.len();
        let mut results = [0; MAX_OPS];
        // As many as are expected and fit: super-frames fill a batch long before there are 64 of them.
        let count = self.expect.min(BATCH - first).min(batch.room() / self.typical + 1);
        let count = ring.read(self.fd.as_fd(), batch.vacancies(self.before, count), &mut results);
        let mut end = None;
        for (n, &result) in results[..count].iter().enumerate() {
            match usize::try_from(result) {
                Ok(read) => {
                    // A frame can arrive between a read that found nothing and the next one.
                    let gap = first + n - batch.len();
                    if gap > 0 {
                        batch.close_gap(gap, self.before, read);
                    }
                    end = end.or(self.take_in(batch, read, counters, seen));
                }
                Err(_) => end = end.or(Some(ended_by(Errno::from_raw_os_error(-result), counters, seen))),
            }
        }
        end
    }

    /// Takes what was read into the next free slot into the batch, if the switch can carry it.
    #[inline]
    fn take_in(
        &self,
        batch: &mut Batch,
        read: usize,
        counters: &PortCounters,
        seen: &mut Seen,
    ) -> Option<Received> {
        if read == 0 && self.ends {
            return Some(Received::Gone(Errno::BADFD)); // a TAP never ends; other descriptors do when the peer goes
        }
        let len = read.saturating_sub(self.before);
        seen.frames += 1;
        seen.bytes += len as u64;
        match admit(&batch.vacant(self.before)[..read], self.before) {
            Ok(offload) => batch.push(len, offload),
            Err(reason) => counters.drop(reason),
        }
        None
    }

    /// Writes one frame, given in parts; the first is the virtio header where [there is one](Self::vnet_header_len).
    #[inline]
    pub fn send(&self, parts: &[IoSlice<'_>]) -> SendResult {
        SendResult::from_write(match parts {
            [frame] => rustix::io::write(&self.fd, frame),
            _ => rustix::io::writev(&self.fd, parts),
        })
    }
}

/// What one receive has read.
#[derive(Default)]
struct Seen {
    frames: u64,
    bytes: u64,
}

/// How an error of a read ends the receive.
#[cold]
fn ended_by(errno: Errno, counters: &PortCounters, seen: &mut Seen) -> Received {
    if errno == Errno::INVAL {
        // The kernel took a frame off the queue for which it can make no virtio header (`tun_put_user`).
        seen.frames += 1;
        counters.drop(DropReason::VnetHeaderInvalid);
        return Received::Full;
    }
    match classify(errno) {
        ErrnoClass::TryAgain | ErrnoClass::Down => Received::Drained,
        // Something may wait all the same: come back when others have had their turn.
        ErrnoClass::Transient => Received::Full,
        ErrnoClass::Gone | ErrnoClass::Refused => Received::Gone(errno),
    }
}

/// The offload state of what a read returned, `before` octets of virtio header and a frame, or why it cannot be carried.
/// The longer header, of an uplink, is not looked at here: it stays in front of the frame, for `overlay::uplink`, which alone
/// knows what its frames are.
#[inline]
fn admit(read: &[u8], before: usize) -> Result<Offload, DropReason> {
    let len = read.len().saturating_sub(before);
    if len < ethernet::HEADER_LEN {
        return Err(DropReason::Runt);
    }
    if len > MAX_FRAME {
        return Err(DropReason::Giant); // perhaps longer still: the slot cuts it off, and is longer than a frame
    }
    if before != virtio_net::LEN {
        return Ok(Offload::NONE);
    }
    let header = VirtioNetHdr::ref_from_prefix(read).map_err(|_| DropReason::VnetHeaderInvalid)?.0;
    Offload::from_vnet(header, len).ok_or(DropReason::VnetHeaderInvalid)
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for TapQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    //! The descriptor is one end of a pair of datagram sockets, which keeps the borders of frames as a TAP does.

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
    use zerocopy::IntoBytes;

    use super::*;
    use crate::frame::{BATCH, Checksum, GsoKind};

    fn pair(caps: Caps) -> (TapQueue, OwnedFd) {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
        for end in [&near, &far] {
            sockopt::set_socket_send_buffer_size(end, 400_000).unwrap();
        }
        (TapQueue::new(near, caps), far)
    }

    fn put(far: &OwnedFd, header: &VirtioNetHdr, frame: &[u8]) {
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(frame);
        rustix::io::write(far, &bytes).unwrap();
    }

    const TCP4: VirtioNetHdr = VirtioNetHdr {
        flags: virtio_net::F_NEEDS_CSUM,
        gso_type: virtio_net::GSO_TCPV4,
        hdr_len: zerocopy::little_endian::U16::from_bytes([54, 0]),
        gso_size: zerocopy::little_endian::U16::from_bytes([0xa8, 0x05]),
        csum_start: zerocopy::little_endian::U16::from_bytes([34, 0]),
        csum_offset: zerocopy::little_endian::U16::from_bytes([16, 0]),
        num_buffers: zerocopy::little_endian::U16::ZERO,
    };

    #[test]
    fn header_and_frame_land_in_one_read_and_the_offload_state_is_kept() {
        let (mut queue, far) = pair(Caps::ALL);
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        put(&far, &VirtioNetHdr::default(), &[1; 60]);
        put(&far, &TCP4, &[2; 9000]);
        assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
        assert_eq!(batch.len(), 2);
        assert_eq!((batch.bytes(0), batch.frame(0).offload), (&[1; 60][..], Offload::NONE));
        assert_eq!(batch.bytes(1), &[2; 9000][..]);
        let offload = batch.frame(1).offload;
        assert_eq!(offload.csum, Checksum::Partial { start: 34, offset: 16 });
        assert_eq!(offload.gso.map(|g| (g.kind, g.size)), Some((GsoKind::TcpV4, 1448)));
        assert_eq!((counters.rx_frames.get(), counters.rx_bytes.get()), (2, 9060));
    }

    #[test]
    fn a_frame_that_cannot_be_carried_is_counted_by_its_reason_and_the_next_one_is_not_harmed() {
        let (mut queue, far) = pair(Caps::ALL);
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let beyond = VirtioNetHdr { csum_start: 200.into(), ..TCP4 };
        put(&far, &beyond, &[0; 60]);
        put(&far, &VirtioNetHdr::default(), &[0; 13]);
        put(&far, &VirtioNetHdr::default(), &vec![0; MAX_FRAME + 1]);
        put(&far, &VirtioNetHdr::default(), &vec![7; MAX_FRAME]);
        rustix::io::write(&far, &[0; 5]).unwrap();
        assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
        assert_eq!(batch.len(), 1);
        assert_eq!(batch.bytes(0), vec![7; MAX_FRAME]);
        assert_eq!(counters.dropped(DropReason::VnetHeaderInvalid), 1);
        assert_eq!(counters.dropped(DropReason::Runt), 2);
        assert_eq!(counters.dropped(DropReason::Giant), 1);
        assert_eq!(counters.rx_frames.get(), 5, "dropped frames are received frames too");
        assert_eq!(counters.rx_bytes.get(), (60 + 13 + 2 * MAX_FRAME + 1) as u64);
    }

    #[test]
    fn a_full_batch_says_that_more_may_wait() {
        let (mut queue, far) = pair(Caps::NONE);
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        for round in 0..2 {
            // The kernel lets ten datagrams wait in a Unix socket, fewer than a batch has room for.
            for n in 0..BATCH {
                rustix::io::write(&far, &[n as u8; 20]).unwrap();
                let got = queue.recv(&mut batch, &counters, None);
                let last = n + 1 == BATCH;
                assert_eq!(
                    got,
                    if last { Received::Full } else { Received::Drained },
                    "round {round}, frame {n}"
                );
            }
            assert_eq!(batch.len(), BATCH);
            batch.clear();
        }
        assert_eq!(counters.rx_frames.get(), 2 * BATCH as u64);
    }

    #[test]
    fn a_ring_reads_what_single_calls_would_in_the_same_order() {
        let Ok(mut ring) = Batcher::new() else {
            println!("skipped: no io_uring here");
            return;
        };
        let (mut queue, far) = pair(Caps::ALL);
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        queue.expect = BATCH;
        // The second cannot be carried: the frame behind it moves up into its slot.
        put(&far, &VirtioNetHdr::default(), &[1; 60]);
        put(&far, &VirtioNetHdr { csum_start: 200.into(), ..TCP4 }, &[2; 60]);
        put(&far, &TCP4, &[3; 9000]);
        assert_eq!(queue.recv(&mut batch, &counters, Some(&mut ring)), Received::Drained);
        assert_eq!(batch.len(), 2);
        assert_eq!((batch.bytes(0), batch.bytes(1)), (&[1; 60][..], &[3; 9000][..]));
        assert_eq!(batch.frame(1).offload.gso.map(|g| g.size), Some(1448));
        assert_eq!((counters.rx_frames.get(), counters.dropped(DropReason::VnetHeaderInvalid)), (3, 1));
        assert_eq!(queue.expect, 4, "what came this time may come the next time");
        drop(far);
    }

    #[test]
    fn a_plain_queue_has_no_header() {
        let (mut queue, far) = pair(Caps::NONE);
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        rustix::io::write(&far, &[9; 14]).unwrap();
        queue.recv(&mut batch, &counters, None);
        assert_eq!((queue.vnet_header_len(), batch.bytes(0)), (0, &[9; 14][..]));
        assert_eq!(queue.send(&[IoSlice::new(&[1; 12]), IoSlice::new(&[2; 30])]), SendResult::Sent);
        let mut read = [0; 64];
        assert_eq!(rustix::io::read(&far, &mut read), Ok(42), "parts leave as one frame");
    }

    #[test]
    fn every_errno_of_a_tap_has_its_meaning() {
        for (errno, result) in [
            (Errno::AGAIN, SendResult::Full),
            (Errno::NOBUFS, SendResult::Full),
            (Errno::NOMEM, SendResult::Full),
            (Errno::IO, SendResult::Down),
            (Errno::INVAL, SendResult::Refused(Errno::INVAL)),
            (Errno::BADFD, SendResult::Gone(Errno::BADFD)),
        ] {
            assert_eq!(SendResult::from_write(Err(errno)), result, "{errno}");
        }
    }
}
