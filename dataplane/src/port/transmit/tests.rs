//! Plans carried out: octets at the far end, and counters.
//!
//! A far end is that of a pair of sockets that keep the borders of frames, or, where the kernel is to refuse something, the interface of
//! a real TAP in a namespace of the test's own.

use std::{io::Read, os::fd::OwnedFd, panic, thread, time::Duration};

use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use zerocopy::FromBytes;

use super::*;
use crate::{
    frame::{Caps, Gso, GsoKind},
    port::{
        MemoryPeer, TapQueue, memory,
        tap::{Tap, TapOptions},
    },
    sys::{netns, tun},
    wire::{EtherType, dot1q::Tag, sample},
};

const VNET: Caps = Caps { vnet_hdr: true, ..Caps::NONE };
const POP: Rewrite = Rewrite { pop: 4, push: None };

fn tag(vid: u8) -> Tag {
    Tag::from_bytes([0x81, 0, 0x60, vid])
}

fn push(vid: u8) -> Rewrite {
    Rewrite { pop: 0, push: Some(tag(vid)) }
}

fn replace(vid: u8) -> Rewrite {
    Rewrite { pop: 4, push: Some(tag(vid)) }
}

fn rewritten(rewrite: &Rewrite, frame: &[u8]) -> Vec<u8> {
    let tag = rewrite.push.map(|tag| tag.to_bytes());
    [&frame[..12], tag.as_ref().map_or(&[][..], |t| t), &frame[12 + usize::from(rewrite.pop)..]].concat()
}

/// A tagged IPv4 frame of `payload` octets whose TCP checksum is partial; a super-frame where `size` is not 0.
fn tcp(payload: usize, size: u16) -> (Vec<u8>, Offload) {
    let payload: Vec<u8> = (0..payload).map(|n| (n * 7) as u8).collect();
    let mut packet = sample::ipv4(6, &sample::tcp(1, 0x10, &[], &payload));
    let pseudo = sample::pseudo_sum(&packet, packet.len() - 20);
    packet[36..38].copy_from_slice(&pseudo.to_be_bytes());
    let frame = sample::ethernet(&[[0x8100, 7]], EtherType::IPV4, &packet);
    let gso = (size > 0).then_some(Gso { kind: GsoKind::TcpV4, size, hdr_len: 58, ecn: false });
    (frame, Offload { csum: Checksum::Partial { start: 38, offset: 16 }, gso })
}

/// A tagged frame with nothing left to do.
fn plain(payload: usize) -> (Vec<u8>, Offload) {
    (sample::ethernet(&[[0x8100, 7]], EtherType(0x88b5), &vec![0xaa; payload]), Offload::NONE)
}

fn batch(frames: &[(Vec<u8>, Offload)]) -> Batch {
    let mut batch = Batch::new();
    assert!(frames.iter().all(|(frame, offload)| batch.append(frame, *offload)));
    batch
}

fn out(slot: u8, port: u16, rewrite: Rewrite) -> TxFrame {
    TxFrame { slot, split: false, port: PortIdx(port), rewrite, hop: None }
}

fn split(slot: u8, port: u16, rewrite: Rewrite) -> TxFrame {
    TxFrame { split: true, ..out(slot, port, rewrite) }
}

/// What is behind the ports, in the order of their numbers.
struct Rig {
    ports: Vec<(Queue, PortCounters)>,
    transmitter: Transmitter,
    ring: Option<Batcher>,
}

impl Rig {
    fn new(queues: Vec<Queue>, ring: Option<Batcher>) -> Self {
        let ports = queues.into_iter().map(|queue| (queue, PortCounters::default())).collect();
        Self { ports, transmitter: Transmitter::default(), ring }
    }

    /// Carries out a plan; the ports that were lost.
    fn send(&mut self, plan: &[TxFrame], batch: &mut Batch) -> Vec<PortIdx> {
        let mut lost = Vec::new();
        let ports = &self.ports;
        let egress = |port: PortIdx| ports.get(port.at()).map(|(queue, counters)| (queue, counters));
        self.transmitter.send_all(plan, batch, self.ring.as_mut(), egress, |port| lost.push(port));
        lost
    }

    /// What a port has counted: frames, octets, fallbacks, and drops with their reasons.
    fn counted(&self, port: usize) -> (u64, u64, u64, Vec<(DropReason, u64)>) {
        let c = &self.ports[port].1;
        let drops = DropReason::ALL.iter().map(|&r| (r, c.dropped(r))).filter(|(_, n)| *n > 0).collect();
        (c.tx_frames.get(), c.tx_bytes.get(), c.offload_fallbacks.get(), drops)
    }
}

/// No ring, and a ring where the kernel has one.
fn rings() -> Vec<Option<Batcher>> {
    match Batcher::new() {
        Ok(ring) => vec![None, Some(ring)],
        Err(e) => {
            println!("without a ring only: {e}");
            vec![None]
        }
    }
}

fn pair(caps: Caps) -> (Queue, OwnedFd) {
    let (near, far) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
    sockopt::set_socket_send_buffer_size(&near, 400_000).unwrap();
    (Queue::Tap(TapQueue::new(near, caps)), far)
}

/// Everything that waits at a far end.
fn arrived(far: &OwnedFd) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    std::iter::from_fn(|| match rustix::io::read(far, &mut buffer[..]) {
        Ok(0) | Err(_) => None,
        Ok(len) => Some(buffer[..len].to_vec()),
    })
    .collect()
}

/// The same, each frame apart from the virtio header in front of it.
fn arrived_vnet(far: &OwnedFd) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let apart = |wire: Vec<u8>| {
        let (header, frame) = VirtioNetHdr::read_from_prefix(&wire).unwrap();
        (header, frame.to_vec())
    };
    arrived(far).into_iter().map(apart).collect()
}

/// The segments of a super-frame as `offload::Split` makes them.
fn segments((frame, offload): &(Vec<u8>, Offload)) -> Vec<Vec<u8>> {
    let split = Split::plan(frame, offload).unwrap();
    let mut header = [0; MAX_HEADERS];
    (0..split.count())
        .map(|n| {
            let payload = split.segment(n, &mut header);
            [&header[..split.header_len()], &frame[payload]].concat()
        })
        .collect()
}

#[test]
fn a_tag_is_pushed_popped_and_replaced_and_the_virtio_header_moves_with_it() {
    let rewrites = [Rewrite::KEEP, push(9), POP, replace(8)];
    for ring in rings() {
        let (vnet, far) = pair(Caps::ALL);
        let (bare, bare_far) = pair(Caps::NONE);
        let mut rig = Rig::new(vec![vnet, bare], ring);
        let frames = [plain(46), tcp(500, 0), tcp(5000, 1000)];
        let mut plan: Vec<_> = (0..3).flat_map(|slot| rewrites.map(|r| out(slot, 0, r))).collect();
        plan.extend(rewrites.map(|r| out(0, 1, r)));
        assert_eq!(rig.send(&plan, &mut batch(&frames)), []);
        let got = arrived_vnet(&far);
        assert_eq!(got.len(), 12);
        for (n, (header, octets)) in got.iter().enumerate() {
            let ((frame, offload), rewrite) = (&frames[n / 4], rewrites[n % 4]);
            assert_eq!(*octets, rewritten(&rewrite, frame), "{rewrite:?}");
            let moved = [0, 4, -4, 0][n % 4];
            let expected = match (n / 4, offload.gso) {
                (0, _) => (0, 0, 0, 0),
                (_, None) => (1, 38 + moved, 0, 0),
                (_, Some(_)) => (1, 38 + moved, 58 + moved, 1000),
            };
            let start = i32::from(header.csum_start.get());
            let hdr_len = i32::from(header.hdr_len.get());
            assert_eq!((header.flags, start, hdr_len, header.gso_size.get()), expected, "{rewrite:?}");
        }
        assert_eq!(arrived(&bare_far), rewrites.map(|r| rewritten(&r, &frames[0].0)), "no header");
        let octets = got.iter().map(|(_, octets)| octets.len() as u64).sum();
        assert_eq!(rig.counted(0), (12, octets, 0, vec![]));
    }
}

#[test]
fn a_super_frame_leaves_a_plain_port_as_its_segments_each_with_the_tag_changed() {
    let super_frame = tcp(3500, 1000);
    let rewrites = [Rewrite::KEEP, push(9), POP, replace(8)];
    for ring in rings() {
        let (bare, far) = pair(Caps::NONE);
        let (vnet, vnet_far) = pair(VNET);
        let mut rig = Rig::new(vec![bare, vnet], ring);
        let plan: Vec<_> = [0, 1].into_iter().flat_map(|port| rewrites.map(|r| split(0, port, r))).collect();
        assert_eq!(rig.send(&plan, &mut batch(std::slice::from_ref(&super_frame))), []);
        let expected: Vec<Vec<u8>> = rewrites
            .iter()
            .flat_map(|r| segments(&super_frame).into_iter().map(|segment| rewritten(r, &segment)))
            .collect();
        assert_eq!(expected.len(), 16);
        assert_eq!(arrived(&far), expected);
        let with_header: Vec<_> = expected.iter().map(|f| (VirtioNetHdr::default(), f.clone())).collect();
        assert_eq!(arrived_vnet(&vnet_far), with_header, "a header that asks for nothing");
        let octets = expected.iter().map(|f| f.len() as u64).sum();
        assert_eq!(rig.counted(0), (16, octets, 0, vec![]), "a segment is a frame");
    }
}

#[test]
fn the_segments_are_made_once_for_all_egresses_and_anew_for_the_next_batch() {
    let (one, one_far) = pair(Caps::NONE);
    let (two, two_far) = pair(Caps::NONE);
    let mut rig = Rig::new(vec![one, two], None);
    let super_frame = tcp(3500, 1000);
    let mut rx = batch(std::slice::from_ref(&super_frame));
    rig.send(&[split(0, 0, Rewrite::KEEP)], &mut rx);
    // Whoever looked at the headers again would find none.
    rx.bytes_mut(0)[..58].fill(0);
    rig.send(&[split(0, 1, Rewrite::KEEP)], &mut rx);
    let first = arrived(&one_far);
    assert_eq!(first, segments(&super_frame));
    assert_eq!(arrived(&two_far), first);
    let other = tcp(2222, 700);
    rig.transmitter.next_batch();
    rig.send(&[split(0, 0, Rewrite::KEEP)], &mut batch(std::slice::from_ref(&other)));
    assert_eq!(arrived(&one_far), segments(&other));
}

#[test]
fn two_super_frames_of_a_batch_do_not_share_their_segments() {
    let (bare, far) = pair(Caps::NONE);
    let mut rig = Rig::new(vec![bare], None);
    let frames = [tcp(2000, 1000), tcp(900, 300)];
    let plan = [split(0, 0, Rewrite::KEEP), split(1, 0, Rewrite::KEEP), split(0, 0, Rewrite::KEEP)];
    rig.send(&plan, &mut batch(&frames));
    let expected = [segments(&frames[0]), segments(&frames[1]), segments(&frames[0])].concat();
    assert_eq!(arrived(&far), expected);
}

#[test]
fn a_super_frame_of_too_many_segments_is_dropped_on_the_egress_that_needs_them() {
    let (bare, far) = pair(Caps::NONE);
    let (vnet, vnet_far) = pair(Caps::ALL);
    let mut rig = Rig::new(vec![bare, vnet], None);
    let frames = [tcp(MAX_SEGMENTS + 1, 1), plain(46)];
    let plan = [split(0, 0, Rewrite::KEEP), out(0, 1, Rewrite::KEEP), out(1, 0, Rewrite::KEEP)];
    assert_eq!(rig.send(&plan, &mut batch(&frames)), []);
    assert_eq!(arrived(&far), [&frames[1].0[..]], "the next one leaves");
    assert_eq!(arrived_vnet(&vnet_far)[0].1, frames[0].0, "whole, where it is taken whole");
    assert_eq!(rig.counted(0).3, [(DropReason::SegmentLimit, 1)]);
    assert_eq!(rig.counted(1).3, []);
}

#[test]
fn what_a_full_queue_does_not_take_is_counted_and_the_rest_leaves() {
    for ring in rings() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        sockopt::set_socket_send_buffer_size(&near, 5000).unwrap();
        let (other, other_far) = pair(Caps::ALL);
        let mut rig = Rig::new(vec![Queue::Tap(TapQueue::new(near, Caps::ALL)), other], ring);
        let frames: Vec<_> = (0..32).map(|_| plain(1000)).collect();
        let plan: Vec<_> =
            (0..32).flat_map(|n| [out(n, 0, Rewrite::KEEP), out(n, 1, Rewrite::KEEP)]).collect();
        assert_eq!(rig.send(&plan, &mut batch(&frames)), []);
        let some = arrived(&far).len() as u64;
        assert!((1..32).contains(&some), "{some}");
        assert_eq!(rig.counted(0), (some, some * 1018, 0, vec![(DropReason::EgressFull, 32 - some)]));
        assert_eq!(arrived(&other_far).len(), 32);
        assert_eq!(rig.send(&plan[..1], &mut batch(&frames)), [], "there is room again");
        assert_eq!(rig.counted(0).0, some + 1);
    }
}

#[test]
fn what_is_refused_without_offloads_too_is_counted_by_its_reason() {
    for ring in rings() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        // A socket refuses what its whole buffer could not hold (EMSGSIZE).
        sockopt::set_socket_send_buffer_size(&near, 3000).unwrap();
        let mut rig = Rig::new(vec![Queue::Tap(TapQueue::new(near, Caps::ALL))], ring);
        let frames = [plain(9000), tcp(9000, 0), tcp(21_000, 7000), plain(46)];
        let plan = [0, 1, 2, 3].map(|n| out(n, 0, Rewrite::KEEP));
        assert_eq!(rig.send(&plan, &mut batch(&frames)), []);
        assert_eq!(arrived_vnet(&far), [(VirtioNetHdr::default(), frames[3].0.clone())]);
        // One each, and the three segments of the super-frame.
        assert_eq!(rig.counted(0), (1, 64, 2, vec![(DropReason::MtuExceeded, 5)]));
    }
}

#[test]
fn a_queue_without_its_device_is_told_lost_and_its_frames_are_counted() {
    for ring in rings() {
        let (near, far) = pair(Caps::ALL);
        // A descriptor that is attached to no device (any more): EBADFD.
        let Ok(unattached) = tun::open() else {
            println!("skipped: no /dev/net/tun here");
            return;
        };
        let gone = Queue::Tap(TapQueue::new(unattached, Caps::ALL));
        let mut rig = Rig::new(vec![near, gone], ring);
        let frames = [plain(46), plain(46), tcp(3000, 1000)];
        let plan = [out(0, 1, Rewrite::KEEP), out(1, 0, Rewrite::KEEP), out(1, 1, POP)];
        assert_eq!(rig.send(&plan, &mut batch(&frames)), [PortIdx(1), PortIdx(1)]);
        assert_eq!(rig.send(&[split(2, 1, Rewrite::KEEP)], &mut batch(&frames)), [PortIdx(1)]);
        assert_eq!(rig.counted(1), (0, 0, 0, vec![(DropReason::EgressDown, 3)]));
        assert_eq!((arrived(&far).len(), rig.counted(0).3), (1, vec![]));
    }
}

#[test]
fn an_entry_for_a_port_without_a_queue_holds_up_no_other() {
    for ring in rings() {
        let (near, far) = pair(Caps::ALL);
        let mut rig = Rig::new(vec![near], ring);
        let plan = [0, 9, 0, 0, 0, 9].map(|port| out(0, port, Rewrite::KEEP));
        assert_eq!(rig.send(&plan, &mut batch(&[plain(46)])), []);
        assert_eq!(arrived(&far).len(), 4);
    }
}

/// Runs a test on a thread in a namespace of its own.
fn in_netns(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let thread = thread::spawn(|| {
        netns::unshare().unwrap();
        test();
    });
    if let Err(failure) = thread.join() {
        panic::resume_unwind(failure);
    }
}

/// Everything that this namespace's interfaces receive (`ETH_P_ALL`), apart from what the kernel itself sends.
struct Capture(Socket);

impl Capture {
    fn new() -> Self {
        let all = Protocol::from(i32::from(3u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self(socket)
    }

    /// The next `count` frames of the samples' sender.
    fn take(&self, count: usize) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        let mut frames = Vec::new();
        while frames.len() < count {
            let len = (&self.0).read(&mut buffer).expect("a frame within five seconds");
            if buffer[6..12] == sample::SOURCE {
                frames.push(buffer[..len].to_vec());
            }
        }
        frames
    }
}

/// A TAP whose interface is up, and its queue.
fn tap() -> (Tap, Queue) {
    let mut tap = Tap::open(&TapOptions::default()).unwrap();
    tap.set_admin(true).unwrap();
    let queue = tap.take_queues().pop().unwrap();
    (tap, Queue::Tap(queue))
}

/// An untagged frame whose checksum begins right behind the Ethernet header. Linux refuses to finish such a one (EINVAL): it looks for an IP
/// header in front (`virtio_net_hdr_to_skb`).
fn without_ip() -> (Vec<u8>, Offload) {
    let frame = sample::ethernet(&[], EtherType(0x88b5), &[3; 60]);
    (frame, Offload { csum: Checksum::Partial { start: 14, offset: 2 }, gso: None })
}

/// The same frame, finished.
fn finished() -> Vec<u8> {
    let mut frame = without_ip().0;
    let sum = !sample::naive_sum(&frame[14..]);
    frame[16..18].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_super_frame_that_the_kernel_refuses_leaves_as_its_segments() {
    in_netns(|| {
        for ring in rings() {
            let (tap, queue) = tap();
            let capture = Capture::new();
            let mut rig = Rig::new(vec![queue], ring);
            // "All headers" longer than the frame: EINVAL (`tun_get_user`).
            let lie = |(frame, offload): (Vec<u8>, Offload)| {
                let gso = offload.gso.map(|gso| Gso { hdr_len: 9000, ..gso });
                (frame, Offload { gso, ..offload })
            };
            let refused = lie(tcp(3500, 1000));
            let frames = [tcp(2000, 1000), refused.clone(), tcp(100, 0)];
            let plan = [0, 1, 2].map(|n| out(n, 0, POP));
            assert_eq!(rig.send(&plan, &mut batch(&frames)), []);
            let mut got = capture.take(6);
            // A ring has written the run before it learns what was refused.
            got.sort_by_key(Vec::len);
            let mut expected: Vec<_> = segments(&refused).iter().map(|s| rewritten(&POP, s)).collect();
            expected.extend([&frames[0].0, &frames[2].0].map(|f| rewritten(&POP, f)));
            expected.sort_by_key(Vec::len);
            assert_eq!(got, expected);
            let (sent, _, fallbacks, drops) = rig.counted(0);
            assert_eq!((sent, fallbacks, drops), (6, 1, vec![]));
            tap.destroy().unwrap();
        }
    });
}

#[test]
fn a_partial_checksum_that_the_kernel_refuses_is_finished_for_every_copy() {
    in_netns(|| {
        for ring in rings() {
            let (taps, queues): (Vec<_>, Vec<_>) = (0..3).map(|_| tap()).unzip();
            let capture = Capture::new();
            let mut rig = Rig::new(queues, ring);
            let plan = [0, 1, 2].map(|port| out(0, port, Rewrite::KEEP));
            assert_eq!(rig.send(&plan, &mut batch(&[without_ip()])), []);
            let counted: Vec<_> = (0..3).map(|port| rig.counted(port)).collect();
            assert!(
                counted
                    .iter()
                    .all(|(sent, octets, _, drops)| (*sent, *octets) == (1, 74) && drops.is_empty()),
                "{counted:?}"
            );
            assert!(counted[0].2 == 1, "{counted:?}");
            assert_eq!(capture.take(3), [finished(), finished(), finished()]);
            taps.into_iter().for_each(|tap| tap.destroy().unwrap());
        }
    });
}

#[test]
fn an_interface_that_is_down_takes_nothing_and_is_not_lost() {
    in_netns(|| {
        for ring in rings() {
            let (tap, queue) = tap();
            tap.set_admin(false).unwrap();
            let mut rig = Rig::new(vec![queue], ring);
            let plan = [0, 1, 2].map(|_| out(0, 0, Rewrite::KEEP));
            assert_eq!(rig.send(&plan, &mut batch(&[plain(46)])), []);
            assert_eq!(rig.counted(0), (0, 0, 0, vec![(DropReason::EgressDown, 3)]));
            tap.destroy().unwrap();
        }
    });
}

/// Any entry that [`forward`](crate::forward::forward) could make for the ports of the property, or that arrives too late for its port.
fn entry(frames: u8) -> impl Strategy<Value = (u8, u16, u8, bool)> {
    (0..frames, 0u16..6, 0u8..4, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn with_a_ring_and_without_the_same_octets_leave_in_the_same_order(
        kinds in prop::collection::vec((0u8..3, 1usize..3000, 300u16..1500), 1..8),
        entries in prop::collection::vec(entry(8), 1..90),
    ) {
        let Ok(ring) = Batcher::new() else {
            println!("skipped: no io_uring here");
            return Ok(());
        };
        let frames: Vec<_> = kinds
            .iter()
            .map(|&(kind, payload, size)| match kind {
                0 => plain(payload),
                1 => tcp(payload, 0),
                _ => tcp(payload, size),
            })
            .collect();
        let plan: Vec<_> = entries
            .iter()
            .map(|&(slot, port, rewrite, split)| {
                let slot = slot % frames.len() as u8;
                let rewrite = [Rewrite::KEEP, push(9), POP, replace(8)][usize::from(rewrite)];
                // Port 2 takes no super-frame.
                let split = frames[usize::from(slot)].1.gso.is_some() && (split || port == 2);
                TxFrame { slot, split, port: PortIdx(port), rewrite, hop: None }
            })
            .collect();
        let run = |ring| {
            let (queues, far): (Vec<_>, Vec<_>) = [Caps::ALL, VNET, Caps::NONE, Caps::ALL].map(pair).into_iter().unzip();
            let (memory, peer): (_, MemoryPeer) = memory::pair(Caps::ALL);
            let mut rig = Rig::new(queues.into_iter().chain([Queue::Memory(memory)]).collect(), ring);
            let (mut rx, mut seen) = (batch(&frames), vec![Vec::new(); 4]);
            // A few at a time, so that no far end is full.
            for part in plan.chunks(30) {
                assert_eq!(rig.send(part, &mut rx), []);
                far.iter().zip(&mut seen).for_each(|(far, seen)| seen.extend(arrived(far)));
            }
            let counted: Vec<_> = (0..5).map(|port| rig.counted(port)).collect();
            (seen, peer.drain(), counted)
        };
        let (single, together) = (run(None), run(Some(ring)));
        prop_assert!(single.2.iter().all(|port| port.3.is_empty()), "{:?}", single.2);
        prop_assert_eq!(single, together);
    }
}

#[test]
fn frames_that_a_queue_holds_leave_together_at_the_end_of_the_plan_and_are_counted_once() {
    for ring in rings() {
        let (gathering, far) = memory::gathering_pair(Caps::ALL);
        let (plain_port, plain_far) = memory::pair(Caps::NONE);
        let (tap, tap_far) = pair(Caps::ALL);
        let queues = vec![Queue::Memory(gathering), Queue::Memory(plain_port), tap];
        let mut rig = Rig::new(queues, ring);
        let frames = [plain(46), tcp(500, 0), tcp(5000, 1000)];
        let plan = [
            out(0, 0, Rewrite::KEEP),
            out(0, 1, Rewrite::KEEP),
            out(1, 2, Rewrite::KEEP),
            out(1, 0, push(9)),
            split(2, 0, Rewrite::KEEP),
            out(2, 2, Rewrite::KEEP),
        ];
        assert_eq!(rig.send(&plan, &mut batch(&frames)), []);
        let mut expected = vec![frames[0].0.clone(), rewritten(&push(9), &frames[1].0)];
        expected.extend(segments(&frames[2]));
        let arrived_there: Vec<Vec<u8>> = far.drain().into_iter().map(|(frame, _)| frame).collect();
        assert_eq!(arrived_there, expected, "in the order of the plan");
        let octets = expected.iter().map(|frame| frame.len() as u64).sum();
        assert_eq!(rig.counted(0), (expected.len() as u64, octets, 0, vec![]));
        assert_eq!((plain_far.drain().len(), arrived(&tap_far).len()), (1, 2));
        assert_eq!(rig.counted(1).0, 1);
    }
}

#[test]
fn a_queue_that_finds_its_device_gone_when_it_is_flushed_is_lost_and_its_frames_are_counted() {
    let (gathering, far) = memory::gathering_pair(Caps::NONE);
    let (other, other_far) = memory::pair(Caps::NONE);
    let mut rig = Rig::new(vec![Queue::Memory(gathering), Queue::Memory(other)], None);
    let plan = [out(0, 0, Rewrite::KEEP), out(0, 1, Rewrite::KEEP), out(0, 0, push(9))];
    far.hang_up();
    assert_eq!(rig.send(&plan, &mut batch(&[plain(46)])), [PortIdx(0)]);
    assert_eq!(rig.counted(0), (0, 0, 0, vec![(DropReason::EgressDown, 2)]));
    assert_eq!((rig.counted(1).0, other_far.drain().len()), (1, 1), "the others have theirs");
}
