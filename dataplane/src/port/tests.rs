//! The drop reasons that ports give, each with a queue and a frame that meet it.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::{
    bridge::Rewrite,
    counters::{DropReason, PortCounters},
    forward::TxFrame,
    frame::{Batch, Caps, Checksum, Gso, GsoKind, MAX_FRAME, Offload},
    index::PortIdx,
    wire::{EtherType, VirtioNetHdr, sample, virtio_net},
};

/// All reasons that a receive or a send gives; the packet path gives the others, and has a table like this one.
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::Giant,
    DropReason::VnetHeaderInvalid,
    DropReason::SegmentLimit,
    DropReason::EgressFull,
    DropReason::EgressRefused,
];

/// A queue over a socket, which keeps the borders of frames as a TAP does, and the far end.
pub(super) fn socket(caps: Caps) -> (Queue, OwnedFd) {
    let (near, far) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
    (Queue::Tap(TapQueue::new(near, caps)), far)
}

/// A TCP super-frame in segments of `size` octets.
pub(super) fn superframe(payload: usize, size: u16) -> (Vec<u8>, Offload) {
    let mut segment = sample::tcp(1, 0x10, &[], &vec![7; payload]);
    let pseudo = sample::pseudo_sum(&sample::ipv4(6, &segment), segment.len());
    segment[16..18].copy_from_slice(&pseudo.to_be_bytes());
    let frame = sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(6, &segment));
    let gso = Gso { kind: GsoKind::TcpV4, size, hdr_len: 54, ecn: false };
    (frame, Offload { csum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) })
}

/// Sends one frame `times` times; the counters afterwards and the last outcome.
pub(super) fn send(
    queue: &mut Queue,
    (frame, offload): &(Vec<u8>, Offload),
    rewrite: Rewrite,
    split: bool,
    times: usize,
) -> (PortCounters, Outcome) {
    let counters = PortCounters::default();
    let mut batch = Batch::new();
    assert!(batch.append(frame, *offload));
    let out = TxFrame { slot: 0, split, port: PortIdx(0), rewrite, hop: None };
    let mut transmitter = Transmitter::default();
    let outcomes: Vec<_> = (0..times).map(|_| transmitter.send(&out, &mut batch, queue, &counters)).collect();
    (counters, outcomes[times - 1])
}

fn receive(bytes: &[u8]) -> PortCounters {
    let (mut queue, far) = socket(Caps::ALL);
    rustix::net::sockopt::set_socket_send_buffer_size(&far, 400_000).unwrap();
    rustix::io::write(&far, bytes).unwrap();
    let (counters, mut batch) = (PortCounters::default(), Batch::new());
    assert_eq!(queue.recv(&mut batch, &counters, None), Received::Drained);
    assert!(batch.is_empty());
    counters
}

#[test]
fn every_reason_that_a_port_gives_can_happen_and_is_counted_once() {
    let plain = (vec![2; 60], Offload::NONE);
    for reason in REASONS {
        let counters = match reason {
            DropReason::Giant => receive(&vec![0; virtio_net::LEN + MAX_FRAME + 1]),
            DropReason::VnetHeaderInvalid => {
                let mut bytes = vec![0; virtio_net::LEN + 60];
                bytes[1] = 77; // no such kind of super-frame
                receive(&bytes)
            }
            DropReason::SegmentLimit => {
                send(&mut socket(Caps::NONE).0, &superframe(5000, 1), Rewrite::KEEP, true, 1).0
            }
            DropReason::EgressFull => {
                // Nobody reads the far end.
                let (mut queue, _far) = socket(Caps::NONE);
                let (filled, _) = send(&mut queue, &plain, Rewrite::KEEP, false, 1000);
                assert!((1..1000).contains(&filled.tx_frames.get()));
                send(&mut queue, &plain, Rewrite::KEEP, false, 1).0
            }
            DropReason::EgressRefused => {
                // Nothing may be written any more (EPIPE), and there is no offload to blame.
                let (mut queue, _far) = socket(Caps::NONE);
                rustix::net::shutdown(queue.fd().unwrap(), rustix::net::Shutdown::Write).unwrap();
                send(&mut queue, &plain, Rewrite::KEEP, false, 1).0
            }
            other => panic!("no case for {other}"),
        };
        for other in DropReason::ALL {
            assert_eq!(counters.dropped(*other), u64::from(other == reason), "{other} for {reason}");
        }
        assert_eq!(counters.tx_frames.get(), 0, "{reason}");
    }
}

#[test]
fn a_frame_that_the_egress_finds_too_long_exceeds_its_mtu() {
    // A datagram above the socket's buffer is refused (EMSGSIZE).
    let (mut queue, _far) = socket(Caps::NONE);
    let Queue::Tap(tap) = &queue else { unreachable!() };
    rustix::net::sockopt::set_socket_send_buffer_size(tap, 4096).unwrap();
    let long = (vec![2; 60_000], Offload::NONE);
    let (counters, _) = send(&mut queue, &long, Rewrite::KEEP, false, 1);
    assert_eq!(counters.dropped(DropReason::MtuExceeded), 1);
}

#[test]
fn a_virtio_header_is_twelve_octets() {
    assert_eq!(virtio_net::LEN, size_of::<VirtioNetHdr>());
}
