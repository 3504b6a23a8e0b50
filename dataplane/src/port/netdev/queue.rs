//! One packet socket of a netdev port: a batch of frames for a `recvmmsg`, a write for a frame.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

use super::super::{ErrnoClass, Received, SendResult, classify};
use crate::{
    counters::{DropReason, PortCounters},
    frame::{BATCH, Batch, Caps, Checksum, MAX_FRAME, Offload},
    sys::packet::{Arrival, MAX_MESSAGES, RecvScratch},
    wire::{
        EtherType, VirtioNetHdr,
        dot1q::{TAG_LEN, Tag, Tci},
        ethernet::{ADDRS_LEN, HEADER_LEN},
        virtio_net,
    },
};

/// Octets of the virtio header of kernels that know no other: `struct virtio_net_hdr`, without `num_buffers`.
pub(super) const SHORT_HEADER: usize = 10;
/// Buffers of the first receive, and the fewest of any: what a buffer costs that is not filled can hardly be measured.
const BUFFERS_MIN: usize = 8;
/// Parts of a frame that is sent, at most: virtio header, addresses, tag, headers, payload.
const PARTS: usize = 5;
const _: () = assert!(MAX_MESSAGES >= BATCH);

/// A packet socket that is bound to an interface. It belongs to one worker at a time.
///
/// A worker gives it back instead of dropping it: closing the socket waits for a grace period (`packet_release`).
#[derive(Debug)]
pub struct PacketQueue {
    fd: OwnedFd,
    caps: Caps,
    /// Octets of virtio header before each frame, as the kernel has it: 12, or [`SHORT_HEADER`].
    header: usize,
    scratch: RecvScratch,
    /// Frames that the next receive is likely to find.
    expect: usize,
    /// Octets that the frames of the last receive had on average.
    typical: usize,
}

impl PacketQueue {
    /// A queue over a socket that gives and takes `header` octets of virtio header before each frame.
    pub(super) fn new(fd: OwnedFd, caps: Caps, header: usize) -> Self {
        let scratch = RecvScratch::default();
        Self { fd, caps, header, scratch, expect: BUFFERS_MIN, typical: 1 }
    }

    /// Another handle on the same socket, for a worker that only sends by it.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self::new(self.fd.try_clone()?, self.caps, self.header))
    }

    /// What the interface takes.
    #[inline]
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Octets of the virtio header before each frame that is sent.
    #[inline]
    pub fn vnet_header_len(&self) -> usize {
        virtio_net::LEN
    }

    /// The descriptor that a ring may write frames to, where the kernel's header is as long as ours.
    #[inline]
    pub fn ring_fd(&self) -> Option<BorrowedFd<'_>> {
        (self.header == virtio_net::LEN).then(|| self.fd.as_fd())
    }

    /// Receives frames into the batch until none waits or the batch is full.
    /// Every frame received is counted; those the switch cannot carry are dropped here, by their name.
    pub fn recv(&mut self, batch: &mut Batch, counters: &PortCounters) -> Received {
        let mut seen = Seen::default();
        let end = loop {
            // What is dropped fills no batch, but keeps others waiting all the same.
            if batch.is_full() || seen.frames >= BATCH as u64 {
                break Received::Full;
            }
            if let Some(end) = self.receive(batch, counters, &mut seen) {
                break end;
            }
        };
        self.expect =
            if end == Received::Full { BATCH } else { (seen.frames as usize).clamp(BUFFERS_MIN, BATCH) };
        if let Some(typical) = seen.bytes.checked_div(seen.frames) {
            self.typical = typical.max(1) as usize;
            counters.rx_frames.add(seen.frames);
            counters.rx_bytes.add(seen.bytes);
        }
        end
    }

    /// Receives once; says how it ended where there is nothing more to come.
    fn receive(&mut self, batch: &mut Batch, counters: &PortCounters, seen: &mut Seen) -> Option<Received> {
        let first = batch.len();
        // As many as are expected and fit: super-frames fill a batch long before there are 64 of them.
        let count = self.expect.min(BATCH - first).min(batch.room() / self.typical + 1);
        let got = match self.scratch.receive(self.fd.as_fd(), batch.vacancies(self.header, count)) {
            Ok(got) => got,
            Err(errno) => return Some(ended_by(errno, counters, seen)),
        };
        for n in 0..got {
            let arrival = self.scratch.arrival(n);
            // A frame that was dropped leaves its place to the next.
            let gap = first + n - batch.len();
            if gap > 0 {
                batch.close_gap(gap, self.header, arrival.len);
            }
            self.take_in(batch, &arrival, counters, seen);
        }
        // Also where fewer came than there was room for: an error behind them is told by the next call alone, which goes on where
        // frames wait behind that.
        None
    }

    /// Takes what was received into the next free slot into the batch, with its tag, if the switch can carry it.
    #[inline]
    fn take_in(&self, batch: &mut Batch, arrival: &Arrival, counters: &PortCounters, seen: &mut Seen) {
        let grown = if arrival.tag.is_some() { TAG_LEN } else { 0 };
        let len = arrival.len.saturating_sub(self.header);
        seen.frames += 1;
        seen.bytes += (len + grown) as u64;
        match admit(&batch.vacant(self.header)[..arrival.len], self.header, arrival) {
            Ok(offload) => match arrival.tag {
                None => batch.push(len, offload),
                Some((tpid, tci)) => {
                    put_back(batch.vacant(TAG_LEN), Tag { tpid: EtherType(tpid), tci: Tci(tci) });
                    batch.push_grown(TAG_LEN, TAG_LEN + len, offload);
                }
            },
            Err(reason) => counters.drop(reason),
        }
    }

    /// Sends one frame, given in parts; the first begins with the virtio header.
    #[inline]
    pub fn send(&self, parts: &[IoSlice<'_>]) -> SendResult {
        SendResult::from_write(match parts {
            _ if self.header != virtio_net::LEN => self.send_short(parts),
            [frame] => rustix::io::write(&self.fd, frame),
            _ => rustix::io::writev(&self.fd, parts),
        })
    }

    /// Sends to a kernel whose header is shorter: leaves out what it lacks.
    fn send_short(&self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let mut vector = [IoSlice::new(&[]); PARTS + 1];
        let Some((first, rest)) = parts.split_first() else { return Err(Errno::INVAL) };
        let (header, frame) = first.split_at_checked(virtio_net::LEN).ok_or(Errno::INVAL)?;
        let used = vector.get_mut(..2 + rest.len()).ok_or(Errno::INVAL)?;
        used[0] = IoSlice::new(&header[..self.header]);
        used[1] = IoSlice::new(frame);
        used[2..].copy_from_slice(rest);
        rustix::io::writev(&self.fd, used)
    }
}

/// What one receive has brought.
#[derive(Default)]
struct Seen {
    frames: u64,
    bytes: u64,
}

/// How an error of a receive ends it.
#[cold]
fn ended_by(errno: Errno, counters: &PortCounters, seen: &mut Seen) -> Received {
    if errno == Errno::INVAL {
        // The kernel took a frame off the queue for which it can make no virtio header (`packet_rcv_vnet`).
        seen.frames += 1;
        counters.drop(DropReason::VnetHeaderInvalid);
        return Received::Full;
    }
    match classify(errno) {
        ErrnoClass::TryAgain => Received::Drained,
        // Told once, when the interface goes down or away; what came before may still wait. Once the interface is up again, the socket
        // goes on by itself (`packet_notifier`).
        ErrnoClass::Down | ErrnoClass::Transient => Received::Full,
        ErrnoClass::Gone | ErrnoClass::Refused => Received::Gone(errno),
    }
}

/// The offload state, behind its tag, of what was received, `header` octets of virtio header and a frame; or why it cannot be carried.
#[inline]
fn admit(received: &[u8], header: usize, arrival: &Arrival) -> Result<Offload, DropReason> {
    let grown = if arrival.tag.is_some() { TAG_LEN } else { 0 };
    let (vnet, frame) = received.split_at_checked(header).ok_or(DropReason::Runt)?;
    if frame.len() < HEADER_LEN {
        return Err(DropReason::Runt);
    }
    if arrival.truncated || frame.len() + grown > MAX_FRAME {
        return Err(DropReason::Giant);
    }
    // In the byte order of the machine, which is little endian on x86 and arm64.
    let mut hdr = VirtioNetHdr::new_zeroed();
    hdr.as_mut_bytes()[..header].copy_from_slice(vnet);
    // Its positions are those without the tag (`packet_rcv_vnet`).
    let mut offload = Offload::from_vnet(&hdr, frame.len()).ok_or(DropReason::VnetHeaderInvalid)?;
    if offload.csum == Checksum::Unknown && arrival.csum_valid {
        offload.csum = Checksum::Good;
    }
    Ok(if grown > 0 { offload.moved(TAG_LEN as i16) } else { offload })
}

/// Puts a tag behind the addresses of a frame, which move into the headroom in front of them.
fn put_back(slot: &mut [u8], tag: Tag) {
    slot.copy_within(TAG_LEN..TAG_LEN + ADDRS_LEN, 0);
    slot[ADDRS_LEN..ADDRS_LEN + TAG_LEN].copy_from_slice(&tag.to_bytes());
}

impl AsFd for PacketQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    //! The descriptor is one end of a pair of datagram sockets, which keeps the borders of frames as a packet socket does. What it
    //! does not have, auxiliary data, is shown against the kernel in `tests/netdev_ports`.

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

    use super::*;
    use crate::frame::GsoKind;

    fn pair(header: usize) -> (PacketQueue, OwnedFd) {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
        for end in [&near, &far] {
            sockopt::set_socket_send_buffer_size(end, 400_000).unwrap();
        }
        (PacketQueue::new(near, Caps::ALL, header), far)
    }

    fn put(far: &OwnedFd, header: &[u8], frame: &[u8]) {
        rustix::io::write(far, &[header, frame].concat()).unwrap();
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
    fn a_short_header_says_the_same_as_a_long_one_in_both_directions() {
        for header in [virtio_net::LEN, SHORT_HEADER] {
            let (mut queue, far) = pair(header);
            let (mut batch, counters) = (Batch::new(), PortCounters::default());
            put(&far, &VirtioNetHdr::default().as_bytes()[..header], &[1; 60]);
            put(&far, &TCP4.as_bytes()[..header], &[2; 9000]);
            assert_eq!(queue.recv(&mut batch, &counters), Received::Drained);
            assert_eq!((batch.bytes(0), batch.frame(0).offload), (&[1; 60][..], Offload::NONE));
            assert_eq!(batch.bytes(1), &[2; 9000][..]);
            let offload = batch.frame(1).offload;
            assert_eq!(offload.csum, Checksum::Partial { start: 34, offset: 16 });
            assert_eq!(offload.gso.map(|g| (g.kind, g.size)), Some((GsoKind::TcpV4, 1448)));
            assert_eq!((counters.rx_frames.get(), counters.rx_bytes.get()), (2, 9060));

            let (whole, frame) = ([TCP4.as_bytes(), &[7; 60]].concat(), [7; 60]);
            let parts = [TCP4.as_bytes(), &frame[..12], &[], &frame[12..40], &frame[40..]].map(IoSlice::new);
            for parts in [&[IoSlice::new(&whole)][..], &parts[..]] {
                assert_eq!(queue.send(parts), SendResult::Sent);
                let mut read = [0; 128];
                assert_eq!(rustix::io::read(&far, &mut read), Ok(header + 60));
                assert_eq!(read[..header], TCP4.as_bytes()[..header]);
                assert_eq!(read[header..header + 60], frame);
            }
            assert_eq!(queue.ring_fd().is_some(), header == virtio_net::LEN);
        }
    }

    #[test]
    fn a_frame_that_cannot_be_carried_is_counted_by_its_reason_and_the_next_one_is_not_harmed() {
        let (mut queue, far) = pair(virtio_net::LEN);
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let plain = VirtioNetHdr::default();
        put(&far, VirtioNetHdr { csum_start: 200.into(), ..TCP4 }.as_bytes(), &[0; 60]);
        put(&far, plain.as_bytes(), &[0; 13]);
        put(&far, plain.as_bytes(), &vec![0; MAX_FRAME + 1]);
        put(&far, plain.as_bytes(), &vec![0; MAX_FRAME + 10_000]);
        put(&far, plain.as_bytes(), &vec![7; MAX_FRAME]);
        rustix::io::write(&far, &[0; 5]).unwrap();
        assert_eq!(queue.recv(&mut batch, &counters), Received::Drained);
        assert_eq!(batch.len(), 1);
        assert_eq!(batch.bytes(0), vec![7; MAX_FRAME]);
        assert_eq!(counters.dropped(DropReason::VnetHeaderInvalid), 1);
        assert_eq!(counters.dropped(DropReason::Runt), 2);
        assert_eq!(counters.dropped(DropReason::Giant), 2);
        assert_eq!(counters.rx_frames.get(), 6, "dropped frames are received frames too");
    }

    #[test]
    fn a_full_batch_says_that_more_may_wait_and_so_do_as_many_frames_that_are_dropped() {
        for (frame, taken) in [(&[0; 40][..], BATCH), (&[0; 20], 0)] {
            let (mut queue, far) = pair(virtio_net::LEN);
            let (mut batch, counters) = (Batch::new(), PortCounters::default());
            // The kernel lets ten datagrams wait in a Unix socket, fewer than a batch has room for.
            let mut rounds = 0;
            while batch.len() < taken || counters.rx_frames.get() == 0 {
                rustix::io::write(&far, frame).unwrap();
                let full = queue.recv(&mut batch, &counters) == Received::Full;
                rounds += 1;
                assert_eq!(full, rounds == BATCH, "frame {rounds}");
            }
            assert_eq!(batch.len(), taken);
        }
    }

    #[test]
    fn a_tag_goes_back_behind_the_addresses_and_the_checksum_moves_with_it() {
        let arrival = Arrival { len: 12 + 60, tag: Some((0x88a8, 0xa064)), ..Arrival::default() };
        let received = [TCP4.as_bytes(), &[9; 60]].concat();
        let offload = admit(&received, virtio_net::LEN, &arrival).unwrap();
        assert_eq!(offload.csum, Checksum::Partial { start: 38, offset: 16 });
        assert_eq!(offload.gso.map(|g| g.hdr_len), Some(58));
        let mut slot: Vec<u8> = [&[0; TAG_LEN][..], &[1; ADDRS_LEN], &[2; 48]].concat();
        put_back(&mut slot, Tag { tpid: EtherType(0x88a8), tci: Tci(0xa064) });
        assert_eq!(slot, [&[1; ADDRS_LEN][..], &[0x88, 0xa8, 0xa0, 0x64], &[2; 48]].concat());
    }

    #[test]
    fn with_its_tag_a_frame_may_be_too_long() {
        let tagged = Arrival { tag: Some((0x8100, 1)), ..Arrival::default() };
        let received = vec![0; virtio_net::LEN + MAX_FRAME];
        assert_eq!(admit(&received, virtio_net::LEN, &tagged), Err(DropReason::Giant));
        assert_eq!(admit(&received, virtio_net::LEN, &Arrival::default()), Ok(Offload::NONE));
    }

    #[test]
    fn a_verified_checksum_is_good_unless_the_header_says_otherwise() {
        let arrival = Arrival { csum_valid: true, ..Arrival::default() };
        let admitted = |header: VirtioNetHdr| {
            admit(&[header.as_bytes(), &[0; 60]].concat(), virtio_net::LEN, &arrival).unwrap().csum
        };
        assert_eq!(admitted(VirtioNetHdr::default()), Checksum::Good);
        assert_eq!(admitted(TCP4), Checksum::Partial { start: 34, offset: 16 });
    }

    #[test]
    fn every_errno_of_a_packet_socket_has_its_meaning() {
        for (errno, result) in [
            (Errno::AGAIN, SendResult::Full),
            (Errno::NOBUFS, SendResult::Full),
            (Errno::NETDOWN, SendResult::Down),
            (Errno::INVAL, SendResult::Refused(Errno::INVAL)),
            (Errno::MSGSIZE, SendResult::Refused(Errno::MSGSIZE)),
            (Errno::NXIO, SendResult::Gone(Errno::NXIO)),
        ] {
            assert_eq!(SendResult::from_write(Err(errno)), result, "{errno}");
        }
        let (counters, mut seen) = (PortCounters::default(), Seen::default());
        for (errno, end) in [
            (Errno::AGAIN, Received::Drained),
            (Errno::NETDOWN, Received::Full),
            (Errno::INVAL, Received::Full),
            (Errno::BADF, Received::Gone(Errno::BADF)),
        ] {
            assert_eq!(ended_by(errno, &counters, &mut seen), end, "{errno}");
        }
        assert_eq!((seen.frames, counters.dropped(DropReason::VnetHeaderInvalid)), (1, 1));
    }
}
