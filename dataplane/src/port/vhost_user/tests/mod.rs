//! Rings worked on as a guest's driver, good or hostile, leaves them.

mod guest;
mod hostile;
mod protocol;

use std::io::IoSlice;

use zerocopy::{FromBytes, IntoBytes};

use super::features;
use crate::{
    counters::DropReason,
    frame::{BATCH, Checksum, GsoKind, MAX_FRAME},
    port::{Received, SendResult},
    wire::{VirtioNetHdr, virtio_net},
};
use guest::{ENTRIES, FEATURES, GUEST, Guest, INDIRECT, NEXT, SECOND, told};

/// The reasons that a vhost-user port alone gives.
pub(crate) const REASONS: &[DropReason] = &[DropReason::GuestBuffer];

fn tcp4() -> VirtioNetHdr {
    VirtioNetHdr {
        flags: virtio_net::F_NEEDS_CSUM,
        gso_type: virtio_net::GSO_TCPV4,
        hdr_len: 54.into(),
        gso_size: 1448.into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
        num_buffers: 0.into(),
    }
}

fn octets(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 256) as u8).collect()
}

impl Guest {
    /// Sends a frame to the guest, as a transmitter does.
    fn send(&self, header: &VirtioNetHdr, frame: &[u8]) -> SendResult {
        let (a, b) = frame.split_at(frame.len() / 2);
        self.queue.send(&[IoSlice::new(header.as_bytes()), IoSlice::new(a), IoSlice::new(b)])
    }

    /// Takes a frame out of the buffers that were used for it: its header and its octets.
    fn receive(&self, used: &[(u32, u32)]) -> (VirtioNetHdr, Vec<u8>) {
        let octets: Vec<u8> =
            used.iter().flat_map(|&(n, len)| self.read(self.buffer(n as u16), len as usize)).collect();
        let (header, frame) = VirtioNetHdr::read_from_prefix(&octets).unwrap();
        (header, frame.to_vec())
    }
}

#[test]
fn frames_of_the_guest_come_with_their_offload_state_and_its_buffers_go_back_at_once() {
    let mut guest = Guest::new(FEATURES);
    guest.transmit(0, &VirtioNetHdr::default(), &octets(60));
    guest.transmit(1, &tcp4(), &octets(9000));
    assert_eq!(guest.recv(), Received::Drained);
    let frames = guest.frames();
    assert_eq!((frames[0].0.clone(), frames[0].1.is_plain()), (octets(60), true));
    assert_eq!(frames[1].0, octets(9000));
    assert_eq!(frames[1].1.csum, Checksum::Partial { start: 34, offset: 16 });
    assert_eq!(frames[1].1.gso.map(|gso| (gso.kind, gso.size)), Some((GsoKind::TcpV4, 1448)));
    assert_eq!(guest.used_transmit(), [(0, 0), (1, 0)]);
    assert_eq!(told(&guest.calls[0]), 1, "once for both");
    assert_eq!((guest.counters.rx_frames.get(), guest.counters.rx_bytes.get()), (2, 9060));
    assert_eq!(guest.recv(), Received::Drained);
    assert!(guest.frames().is_empty() && guest.used_transmit().is_empty() && told(&guest.calls[0]) == 0);
}

#[test]
fn a_frame_may_lie_in_a_chain_in_a_table_of_its_own_and_across_two_regions() {
    let mut guest = Guest::new(FEATURES);
    let frame = octets(3000);
    let across = GUEST + SECOND - 700;
    for (round, table) in [(0, guest.transmit.table()), (1, GUEST + 0x3_0007)] {
        guest.write(GUEST + 0x4_0000, &[0; 12]);
        guest.write(GUEST + 0x4_1000, &frame[..1]);
        guest.write(across, &frame[1..]);
        guest.describe(table, 3, GUEST + 0x4_0000, 12, NEXT, 7);
        guest.describe(table, 7, GUEST + 0x4_1000, 1, NEXT, 2);
        guest.describe(table, 2, across, 2999, 0, 0);
        if round == 0 {
            guest.offer_transmit(3);
        } else {
            guest.describe(table, 0, GUEST + 0x4_0000, 12, NEXT, 7);
            guest.describe(guest.transmit.table(), 9, table, 8 * 16, INDIRECT, 0);
            guest.offer_transmit(9);
        }
        assert_eq!(guest.recv(), Received::Drained, "{}", guest.state(0));
        assert_eq!(guest.frames()[0].0, frame);
        assert_eq!(guest.used_transmit(), [(if round == 0 { 3 } else { 9 }, 0)]);
    }
}

#[test]
fn frames_to_the_guest_span_as_many_buffers_as_they_need_and_are_seen_and_counted_when_flushed() {
    let mut guest = Guest::new(FEATURES);
    guest.buffers(8, 2048);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Held);
    assert_eq!(guest.send(&tcp4(), &octets(5000)), SendResult::Held);
    assert!(guest.used_receive().is_empty(), "not before the flush");
    guest.queue.flush(&guest.counters);
    let used = guest.used_receive();
    assert_eq!(used, [(0, 72), (1, 2048), (2, 2048), (3, 5012 - 4096)]);
    let (header, frame) = guest.receive(&used[..1]);
    assert_eq!((header.num_buffers.get(), frame), (1, octets(60)));
    let (header, frame) = guest.receive(&used[1..]);
    assert_eq!((header.num_buffers.get(), header.gso_size.get(), frame), (3, 1448, octets(5000)));
    assert_eq!(told(&guest.calls[1]), 1);
    assert_eq!((guest.counters.tx_frames.get(), guest.counters.tx_bytes.get()), (2, 5060));
    guest.queue.flush(&guest.counters);
    assert_eq!(guest.counters.tx_frames.get(), 2, "to flush twice does nothing");
}

#[test]
fn a_frame_for_which_there_are_too_few_buffers_takes_none() {
    let mut guest = Guest::new(FEATURES);
    guest.buffers(2, 1000);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(3000)), SendResult::Full);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(1500)), SendResult::Held);
    guest.queue.flush(&guest.counters);
    assert_eq!(guest.used_receive(), [(0, 1000), (1, 512)]);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Full);
}

#[test]
fn a_guest_without_mergeable_buffers_gets_what_fits_one_and_the_rest_is_counted() {
    let mut guest = Guest::new(features::VERSION_1);
    guest.buffers(4, 1526);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(1515)), SendResult::Held);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(1514)), SendResult::Held);
    guest.queue.flush(&guest.counters);
    let used = guest.used_receive();
    assert_eq!(used, [(0, 1526)]);
    assert_eq!(guest.receive(&used).1, octets(1514));
    assert_eq!(guest.counters.dropped(DropReason::GuestBuffer), 1);
    assert_eq!(guest.counters.tx_frames.get(), 1);
}

#[test]
fn a_guest_of_before_virtio_1_has_the_short_header_both_ways() {
    let mut guest = Guest::new(0);
    guest.write(GUEST + 0x4_0000, &[[0; 10].as_slice(), &octets(60)].concat());
    guest.describe(guest.transmit.table(), 0, GUEST + 0x4_0000, 70, 0, 0);
    guest.offer_transmit(0);
    assert_eq!(guest.recv(), Received::Drained);
    assert_eq!(guest.frames()[0].0, octets(60));
    guest.buffers(1, 2000);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(100)), SendResult::Held);
    guest.queue.flush(&guest.counters);
    assert_eq!(guest.used_receive(), [(0, 110)]);
    assert_eq!(guest.read(guest.buffer(0) + 10, 100), octets(100));
}

#[test]
fn a_guest_is_told_nothing_that_it_has_not_agreed_to() {
    let mut guest = Guest::new(FEATURES & !features::NET_GUEST_TSO4);
    guest.buffers(8, 2048);
    assert!(matches!(guest.send(&tcp4(), &octets(5000)), SendResult::Refused(_)));
    let partial = VirtioNetHdr { gso_type: 0, gso_size: 0.into(), ..tcp4() };
    assert_eq!(guest.send(&partial, &octets(1000)), SendResult::Held);
    let mut bare = Guest::new(features::VERSION_1 | features::NET_MRG_RXBUF);
    bare.buffers(8, 2048);
    assert!(matches!(bare.send(&partial, &octets(1000)), SendResult::Refused(_)));
    let good = VirtioNetHdr { flags: virtio_net::F_DATA_VALID, ..VirtioNetHdr::default() };
    assert_eq!(bare.send(&good, &octets(60)), SendResult::Held);
    bare.queue.flush(&bare.counters);
    let used = bare.used_receive();
    assert_eq!(bare.receive(&used).0.flags, 0);
}

#[test]
fn frames_that_the_switch_cannot_carry_are_counted_and_their_buffers_go_back() {
    let mut guest = Guest::new(FEATURES);
    guest.transmit(0, &VirtioNetHdr { csum_start: 200.into(), ..tcp4() }, &octets(60));
    guest.transmit(1, &VirtioNetHdr::default(), &octets(13));
    guest.describe(guest.transmit.table(), 2, GUEST + SECOND, MAX_FRAME as u32 + 13, 0, 0);
    guest.offer_transmit(2);
    guest.describe(guest.transmit.table(), 3, GUEST + SECOND, 5, 0, 0);
    guest.offer_transmit(3);
    guest.transmit(4, &VirtioNetHdr::default(), &octets(60));
    assert_eq!(guest.recv(), Received::Drained);
    assert_eq!(guest.frames().len(), 1);
    assert_eq!(guest.counters.dropped(DropReason::VnetHeaderInvalid), 1);
    assert_eq!(guest.counters.dropped(DropReason::Runt), 2);
    assert_eq!(guest.counters.dropped(DropReason::Giant), 1);
    assert_eq!((guest.counters.rx_frames.get(), guest.used_transmit().len()), (5, 5));
}

#[test]
fn the_guest_is_told_only_when_it_wants_to_be() {
    let mut guest = Guest::new(FEATURES);
    guest.write(guest.transmit.available(), &1u16.to_le_bytes()); // VRING_AVAIL_F_NO_INTERRUPT
    guest.transmit(0, &VirtioNetHdr::default(), &octets(60));
    guest.recv();
    assert_eq!((guest.used_transmit().len(), told(&guest.calls[0])), (1, 0));
    assert_eq!(guest.read(guest.transmit.used(), 2), [0, 0], "the ring is empty: a kick is wanted");

    let mut guest = Guest::new(FEATURES | features::EVENT_IDX);
    let used_event = guest.transmit.available() + 4 + 2 * u64::from(ENTRIES);
    guest.write(used_event, &1u16.to_le_bytes());
    for (n, expected) in [(0, 0), (1, 1), (2, 0)] {
        guest.transmit(n, &VirtioNetHdr::default(), &octets(60));
        guest.recv();
        assert_eq!(told(&guest.calls[0]), expected, "after entry {n}");
        let avail_event = guest.read(guest.transmit.used() + 4 + 8 * u64::from(ENTRIES), 2);
        assert_eq!(avail_event, (n + 1).to_le_bytes(), "the next entry is waited for");
    }
}

#[test]
fn a_full_batch_leaves_the_rest_for_the_next() {
    let mut guest = Guest::new(FEATURES);
    for n in 0..ENTRIES {
        guest.transmit(n, &VirtioNetHdr::default(), &octets(60));
    }
    assert_eq!(guest.recv(), Received::Full);
    assert_eq!((guest.frames().len(), guest.used_transmit().len()), (BATCH, BATCH));
    assert_eq!(guest.recv(), Received::Drained);
    for round in 0..3000u32 {
        guest.transmit((round % 7) as u16, &VirtioNetHdr::default(), &octets(60));
        guest.recv();
        assert_eq!((guest.frames().len(), guest.used_transmit().len()), (1, 1), "round {round}");
    }
}

#[test]
fn a_disabled_ring_gives_and_takes_nothing_and_is_emptied_all_the_same() {
    let mut guest = Guest::new(FEATURES);
    for slot in &guest.slots {
        if let super::queue::State::Running(running) = &mut *slot.lock() {
            running.enabled = false;
        }
    }
    guest.transmit(0, &VirtioNetHdr::default(), &octets(60));
    assert_eq!(guest.recv(), Received::Drained);
    assert!(guest.frames().is_empty());
    assert_eq!((guest.used_transmit().len(), guest.counters.dropped(DropReason::PortDown)), (1, 1));
    guest.buffers(1, 2048);
    assert_eq!(guest.send(&VirtioNetHdr::default(), &octets(60)), SendResult::Down);
}

#[test]
fn a_shared_handle_sends_into_the_same_ring_in_order() {
    let mut guest = Guest::new(FEATURES);
    guest.buffers(4, 2048);
    let other = guest.queue.share();
    let header = VirtioNetHdr::default();
    assert_eq!(guest.send(&header, &octets(60)), SendResult::Held);
    let frame = octets(70);
    assert_eq!(other.send(&[IoSlice::new(header.as_bytes()), IoSlice::new(&frame)]), SendResult::Held);
    other.flush(&guest.counters);
    assert_eq!(guest.counters.tx_frames.get(), 1, "each handle counts what it took");
    guest.queue.flush(&guest.counters);
    assert_eq!(guest.used_receive(), [(0, 72), (1, 82)]);
    assert_eq!(guest.counters.tx_frames.get(), 2);
}
