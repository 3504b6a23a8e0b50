//! What a plan's entry is on the wire: the far end of a memory port sees frame and offload state, that of a socket octets.

use std::fs::File;

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::*;
use crate::{
    frame::Caps,
    port::{
        MemoryPeer, TapQueue, memory,
        tests::{send, socket, superframe},
    },
    wire::{EtherType, Layers, Tag, Tci, sample},
};

fn memory_port(caps: Caps) -> (Queue, MemoryPeer) {
    let (queue, peer) = memory::pair(caps);
    (Queue::Memory(queue), peer)
}

fn tag(vlan: u16) -> Tag {
    Tag { tpid: EtherType::VLAN, tci: Tci(vlan) }
}

fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &tag(vlan).to_bytes(), &frame[12..]].concat()
}

const PUSH: Rewrite = Rewrite { pop: 0, push: Some(Tag { tpid: EtherType::VLAN, tci: Tci(10) }) };
const POP: Rewrite = Rewrite { pop: 4, push: None };
const CHANGE: Rewrite = Rewrite { pop: 4, push: Some(Tag { tpid: EtherType::VLAN, tci: Tci(10) }) };

#[test]
fn tags_are_put_in_taken_out_and_changed_with_and_without_a_virtio_header() {
    let frame = sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(1, &[9; 40]));
    let five = tagged(5, &frame);
    for caps in [Caps::NONE, Caps::ALL] {
        for (rewrite, before, after) in [
            (Rewrite::KEEP, &frame, frame.clone()),
            (PUSH, &frame, tagged(10, &frame)),
            (POP, &five, frame.clone()),
            (CHANGE, &five, tagged(10, &frame)),
            (PUSH, &five, tagged(10, &five)),
        ] {
            let (mut queue, peer) = memory_port(caps);
            let (counters, outcome) = send(&mut queue, &(before.clone(), Offload::NONE), rewrite, false, 1);
            assert_eq!(outcome, Outcome::Done);
            assert_eq!(counters.tx_bytes.get(), after.len() as u64);
            assert_eq!(peer.drain(), [(after, Offload::NONE)], "{rewrite:?} {caps:?}");
        }
    }
}

#[test]
fn the_virtio_header_moves_with_the_tag() {
    let (frame, offload) = superframe(5000, 1000);
    let behind_a_tag = Offload { csum: Checksum::Partial { start: 38, offset: 16 }, ..offload };
    let start = |offload: Offload| match offload.csum {
        Checksum::Partial { start, .. } => start,
        other => panic!("{other:?}"),
    };
    for (before, state, rewrite, expected) in [
        (frame.clone(), offload, Rewrite::KEEP, 34),
        (frame.clone(), offload, PUSH, 38),
        (tagged(5, &frame), behind_a_tag, POP, 34),
        (tagged(5, &frame), behind_a_tag, CHANGE, 38),
    ] {
        let (mut queue, peer) = memory_port(Caps::ALL);
        send(&mut queue, &(before, state), rewrite, false, 1);
        let (sent, state) = peer.recv().unwrap();
        assert_eq!(start(state), expected, "{rewrite:?}");
        assert_eq!(state.gso.unwrap().size, 1000);
        assert_eq!(Layers::parse(&sent).unwrap().ip.unwrap().l4, usize::from(expected), "where TCP begins");
    }
}

/// The payload of TCP segments, whose headers are checked on the way.
fn payload(segments: impl IntoIterator<Item = Vec<u8>>, vlan: Option<u16>) -> Vec<u8> {
    let mut all = Vec::new();
    for segment in segments {
        let layers = Layers::parse(&segment).unwrap();
        let ip = layers.ip.unwrap();
        assert_eq!(layers.tags, u8::from(vlan.is_some()));
        assert!(vlan.is_none_or(|v| segment[12..16] == tag(v).to_bytes()));
        assert_eq!(ip.end, segment.len());
        let packet = &segment[layers.l3..];
        let transport = &segment[ip.l4..];
        let mut sum = sample::pseudo_sum(packet, transport.len()).to_be_bytes().to_vec();
        sum.extend(transport);
        assert_eq!(sample::naive_sum(&sum), 0xffff, "the checksum of the segment");
        all.extend(&segment[ip.l4 + 20..]);
    }
    all
}

#[test]
fn a_super_frame_is_split_for_a_plain_port_with_its_tag_on_every_segment() {
    let whole = superframe(4500, 1000);
    for (rewrite, vlan) in [(Rewrite::KEEP, None), (PUSH, Some(10))] {
        let (mut queue, peer) = memory_port(Caps::NONE);
        let (counters, _) = send(&mut queue, &whole, rewrite, true, 1);
        let segments = peer.drain();
        assert_eq!((segments.len(), counters.tx_frames.get()), (5, 5));
        let octets: usize = segments.iter().map(|(s, _)| s.len()).sum();
        assert_eq!(counters.tx_bytes.get(), octets as u64);
        assert_eq!(payload(segments.into_iter().map(|(s, _)| s), vlan), [7; 4500]);
        assert_eq!(counters.offload_fallbacks.get(), 0, "nobody had agreed to anything");
    }
}

#[test]
fn segments_are_made_once_for_all_copies_and_anew_for_the_next_batch() {
    let (queue, peer) = memory_port(Caps::NONE);
    let (mut batch, counters) = (Batch::new(), PortCounters::default());
    let mut transmitter = Transmitter::default();
    let out = TxFrame { slot: 0, split: true, port: crate::index::PortIdx(0), rewrite: Rewrite::KEEP };
    for (octets, copies) in [(3000, 3), (1500, 2)] {
        batch.clear();
        transmitter.next_batch();
        let (frame, offload) = superframe(octets, 1000);
        batch.append(&frame, offload);
        for _ in 0..copies {
            transmitter.send(&out, &mut batch, &queue, &counters);
        }
        let sent = payload(peer.drain().into_iter().map(|(s, _)| s), None);
        assert_eq!(sent.len(), octets * copies);
    }
}

#[test]
fn a_super_frame_that_the_kernel_refuses_is_split_after_all_and_that_is_counted() {
    // A socket refuses a datagram above its buffer (EMSGSIZE), and takes the segments.
    let (mut queue, far) = socket(Caps::ALL);
    let Queue::Tap(tap) = &queue else { unreachable!() };
    set_socket_send_buffer_size(tap, 8192).unwrap();
    let (counters, outcome) = send(&mut queue, &superframe(30_000, 10_000), PUSH, false, 1);
    assert_eq!((outcome, counters.offload_fallbacks.get()), (Outcome::Done, 1));
    assert_eq!(counters.tx_frames.get() + counters.dropped(DropReason::EgressFull), 3);
    let mut read = vec![0; 20_000];
    let len = rustix::io::read(&far, &mut read).unwrap();
    assert_eq!(read[..virtio_net::LEN], [0; virtio_net::LEN], "a plain frame, nothing left to do");
    let first = read[virtio_net::LEN..len].to_vec();
    assert_eq!(payload([first], Some(10)), [7; 10_000]);
}

#[test]
fn a_partial_checksum_that_the_kernel_refuses_is_finished_in_software() {
    // Without its tag the frame has a checksum that would begin within the IP header, which the far end does not take.
    let (frame, offload) = superframe(500, 1000);
    let state = Offload { csum: Checksum::Partial { start: 34, offset: 20 }, gso: None };
    let (mut queue, peer) = memory_port(Caps::ALL);
    let (counters, _) = send(&mut queue, &(tagged(5, &frame), state), POP, false, 1);
    assert_eq!((counters.offload_fallbacks.get(), counters.tx_frames.get()), (1, 1));
    let (sent, state) = peer.recv().unwrap();
    assert_eq!((sent.len(), state), (frame.len(), Offload::NONE));
    assert_ne!(sent[50..52], frame[50..52], "something was written where the checksum stands");
    assert!(matches!(offload.csum, Checksum::Partial { .. }));
}

#[test]
fn a_queue_that_lost_its_device_says_so_and_counts_the_frame() {
    // Open for reading only: a write is EBADF, as it is EBADFD on a TAP whose device is deleted.
    let mut queue = Queue::Tap(TapQueue::new(File::open("/dev/null").unwrap().into(), Caps::NONE));
    let (counters, outcome) = send(&mut queue, &(vec![2; 60], Offload::NONE), Rewrite::KEEP, false, 1);
    assert_eq!((outcome, counters.dropped(DropReason::EgressDown)), (Outcome::Gone, 1));
    let (counters, outcome) = send(&mut queue, &superframe(5000, 1000), Rewrite::KEEP, true, 1);
    assert_eq!(outcome, Outcome::Gone);
    assert_eq!(counters.dropped(DropReason::EgressDown), 1, "the rest of the segments is not tried");
}
