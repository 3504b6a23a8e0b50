//! Segments merged, split again, and compared with what they were: what is merged, what is not, and where.

mod properties;
mod states;

use super::*;
use crate::{
    index::RemoteIdx,
    offload::{MAX_HEADERS, Split, validate},
    wire::{EtherType, Layers, sample},
};

const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const LIMITS: Limits = Limits { mtu: 1500, udp: true };

/// One end of a connection: what it sends next.
#[derive(Clone, Debug)]
struct Sender {
    tcp: bool,
    six: bool,
    tags: Vec<[u16; 2]>,
    options: Vec<u8>,
    port: u16,
    sequence: u32,
    id: u16,
}

impl Sender {
    fn new(tcp: bool, six: bool) -> Self {
        Self {
            tcp,
            six,
            tags: vec![],
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            port: 5000,
            sequence: u32::MAX - 2000,
            id: 0xfffe,
        }
    }

    fn all() -> [Self; 4] {
        [Self::new(true, false), Self::new(true, true), Self::new(false, false), Self::new(false, true)]
    }

    /// The next segment.
    fn send(&mut self, len: usize, flags: u8) -> Vec<u8> {
        let payload: Vec<u8> = (0..len).map(|n| (self.sequence as usize + n * 7) as u8).collect();
        let (protocol, mut transport) = if self.tcp {
            (6, sample::tcp(self.sequence, ACK | flags, &self.options, &payload))
        } else {
            (17, sample::udp(5, 6, &payload))
        };
        put(&mut transport, 0, self.port);
        let mut frame = if self.six {
            sample::ethernet(&self.tags, EtherType::IPV6, &sample::ipv6(protocol, &transport))
        } else {
            let mut packet = sample::ipv4(protocol, &transport);
            put(&mut packet, 4, self.id);
            sample::ethernet(&self.tags, EtherType::IPV4, &packet)
        };
        self.sequence = self.sequence.wrapping_add(len as u32);
        self.id = self.id.wrapping_add(1);
        finish(&mut frame);
        frame
    }
}

/// Where the layers of a frame begin.
fn at(frame: &[u8]) -> (usize, usize) {
    let layers = Layers::parse(frame).unwrap();
    (layers.l3, layers.ip.unwrap().l4)
}

/// Writes the checksums of a frame, computed without any code of this module, but what the transport header is to hold.
fn finish_with(frame: &mut [u8], written: impl Fn(u16, u16) -> u16) {
    let (l3, l4) = at(frame);
    let end = Layers::parse(frame).unwrap().ip.unwrap().end;
    if frame[l3] >> 4 == 4 {
        put(frame, l3 + 10, 0);
        let sum = !sample::naive_sum(&frame[l3..l4]);
        put(frame, l3 + 10, sum);
    }
    let field = l4 + if Packet::of(frame).unwrap().tcp { 16 } else { 6 };
    put(frame, field, 0);
    let pseudo = sample::pseudo_sum(&frame[l3..], end - l4);
    let all = [&pseudo.to_be_bytes()[..], &frame[l4..end]].concat();
    let word = written(pseudo, !sample::naive_sum(&all));
    put(frame, field, word);
}

fn finish(frame: &mut [u8]) {
    finish_with(frame, |_, sum| sum);
}

/// A frame as a kernel leaves it that sends over no wire: the checksum field holds the pseudo-header sum.
fn left_partial(mut frame: Vec<u8>) -> Vec<u8> {
    finish_with(&mut frame, |pseudo, _| pseudo);
    frame
}

/// How frames lie in the memory of a batch.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// In one slot, so many octets between them.
    Together(usize),
    /// Each in a slot.
    Apart,
}

/// Frames are put into a batch by position, so many in each slot, and are in it in the order of `frames`.
fn batch_of(frames: &[Vec<u8>], lie: Lie) -> Batch {
    let mut batch = Batch::new();
    let mut at = Batch::slot_at(0);
    for (n, frame) in frames.iter().enumerate() {
        at = match lie {
            Lie::Together(gap) if at + gap + frame.len() <= Batch::slot_end(at) => at + gap,
            Lie::Together(_) => Batch::slot_at(at / Batch::slot_end(0) + 1),
            Lie::Apart => Batch::slot_at(n),
        };
        let range = at..at + frame.len();
        batch.memory_mut()[range.clone()].copy_from_slice(frame);
        at = range.end;
        batch.push_at(range, Offload::NONE, None);
    }
    batch
}

/// The frames of a batch: those that are super-frames, split.
fn split(batch: &Batch) -> Vec<Vec<Vec<u8>>> {
    let segments = |n| {
        let (frame, offload) = (batch.bytes(n), &batch.frame(n).offload);
        if offload.gso.is_none() {
            return vec![frame.to_vec()];
        }
        let split = Split::plan(frame, offload).unwrap();
        let mut header = [0xaa; MAX_HEADERS];
        (0..split.count())
            .map(|n| {
                let payload = split.segment(n, &mut header);
                [&header[..split.header_len()], &frame[payload]].concat()
            })
            .collect()
    };
    (0..batch.len()).map(segments).collect()
}

/// How many segments are in each frame of a batch.
fn sizes(batch: &Batch) -> Vec<usize> {
    split(batch).iter().map(Vec::len).collect()
}

/// Merges frames and says how many are in each that is left, which must be the very same in the order of `frames`.
fn merged(frames: &[Vec<u8>], lie: Lie) -> Vec<usize> {
    let mut batch = batch_of(frames, lie);
    merge(&mut batch, &LIMITS);
    let after = split(&batch);
    assert_eq!(after.concat(), frames);
    for n in 0..batch.len() {
        check_headers(&batch, n);
    }
    after.iter().map(Vec::len).collect()
}

/// The headers of a super-frame say what it is, with checksums computed without any code of this module.
fn check_headers(batch: &Batch, n: usize) {
    let (frame, offload) = (batch.bytes(n), &batch.frame(n).offload);
    let Some(gso) = offload.gso else { return };
    assert!(validate(frame, offload).is_ok());
    let Layers { l3, ip: Some(ip), .. } = Layers::parse(frame).unwrap() else { panic!("no IP packet") };
    assert_eq!(ip.end, frame.len());
    if ip.version == Version::V4 {
        assert_eq!(sample::naive_sum(&frame[l3..ip.l4]), 0xffff, "IPv4 header checksum");
    }
    let offset = if gso.kind == GsoKind::Udp { 6 } else { 16 };
    assert_eq!(offload.csum, Checksum::Partial { start: ip.l4 as u16, offset });
    let pseudo = sample::pseudo_sum(&frame[l3..], frame.len() - ip.l4);
    assert_eq!(be16(frame, ip.l4 + usize::from(offset)), Some(pseudo));
    if gso.kind == GsoKind::Udp {
        assert_eq!(be16(frame, ip.l4 + 4), Some((frame.len() - ip.l4) as u16), "UDP length");
    }
}

#[test]
fn consecutive_segments_become_one_super_frame_and_the_last_may_be_shorter() {
    for mut sender in Sender::all() {
        let frames: Vec<_> = [1000, 1000, 1000, 999].map(|len| sender.send(len, 0)).into();
        for lie in [Lie::Together(0), Lie::Together(8), Lie::Together(70), Lie::Apart] {
            assert_eq!(merged(&frames, lie), [4], "{lie:?} {sender:?}");
        }
    }
}

#[test]
fn a_lone_segment_stays_as_it_is_and_is_good() {
    for mut sender in Sender::all() {
        let frame = sender.send(1000, 0);
        let mut batch = batch_of(std::slice::from_ref(&frame), Lie::Apart);
        merge(&mut batch, &LIMITS);
        assert_eq!((batch.len(), batch.bytes(0), batch.frame(0).offload), (1, &frame[..], GOOD));
    }
}

#[test]
fn a_shorter_segment_or_push_or_fin_ends_a_super_frame() {
    for mut sender in Sender::all() {
        let frames: Vec<_> = [500, 500, 499, 499, 500].map(|len| sender.send(len, 0)).into();
        assert_eq!(merged(&frames, Lie::Apart), [3, 1, 1], "lengths, {sender:?}");
    }
    for flag in [PSH, FIN, PSH | FIN] {
        for six in [false, true] {
            let mut sender = Sender::new(true, six);
            let frames: Vec<_> = [0, flag, 0, 0, flag, flag, 0].map(|flags| sender.send(500, flags)).into();
            assert_eq!(merged(&frames, Lie::Together(8)), [2, 3, 1, 1], "flags {flag:#x}");
        }
    }
}

#[test]
fn no_super_frame_is_longer_than_an_ip_packet() {
    let mut sender = Sender::new(true, false);
    let frames: Vec<_> = (0..64).map(|_| sender.send(1448, 0)).collect();
    assert_eq!(merged(&frames, Lie::Apart), [45, 19]);
    // The longest that there is.
    let frames: Vec<_> = [32_000, 32_000, 65_535 - 52 - 64_000].map(|len| sender.send(len, 0)).into();
    assert_eq!(merged(&frames, Lie::Apart), [3]);
    let frames: Vec<_> = [32_000, 32_000, 65_536 - 52 - 64_000].map(|len| sender.send(len, 0)).into();
    assert_eq!(merged(&frames, Lie::Apart), [2, 1]);
}

/// What is done to the second of two segments that would be merged, before its checksums are written. The positions are those of the
/// network and the transport header.
type Change = fn(&mut Vec<u8>, usize, usize);

/// Both segments as they are after `change`, and whether they were merged.
fn merges_after(sender: &Sender, change: Change) -> bool {
    let mut sender = sender.clone();
    let mut frames = vec![sender.send(500, 0), sender.send(500, 0)];
    let (l3, l4) = at(&frames[1]);
    change(&mut frames[1], l3, l4);
    finish(&mut frames[1]);
    merged(&frames, Lie::Apart).len() == 1
}

#[test]
fn segments_that_differ_in_a_header_are_not_merged() {
    let any: &[(&str, Change)] = &[
        ("destination address of Ethernet", |f, _, _| f[5] ^= 4),
        ("source address of Ethernet", |f, _, _| f[11] ^= 4),
        ("source port", |f, _, l4| f[l4] ^= 1),
        ("destination port", |f, _, l4| f[l4 + 3] ^= 1),
        ("a tag", |f, _, _| drop(f.splice(12..12, [0x81, 0, 0, 5]))),
    ];
    let four: &[(&str, Change)] = &[
        ("TOS", |f, l3, _| f[l3 + 1] ^= 4),
        ("ECN", |f, l3, _| f[l3 + 1] ^= 3),
        ("identification", |f, l3, _| f[l3 + 5] ^= 2),
        ("don't fragment", |f, l3, _| f[l3 + 6] ^= 0x40),
        ("TTL", |f, l3, _| f[l3 + 8] -= 1),
        ("source", |f, l3, _| f[l3 + 15] ^= 1),
        ("destination", |f, l3, _| f[l3 + 19] ^= 1),
    ];
    let six: &[(&str, Change)] = &[
        ("traffic class", |f, l3, _| f[l3] ^= 1),
        ("ECN", |f, l3, _| f[l3 + 1] ^= 0x20),
        ("flow label", |f, l3, _| f[l3 + 3] ^= 1),
        ("hop limit", |f, l3, _| f[l3 + 7] -= 1),
        ("source", |f, l3, _| f[l3 + 23] ^= 1),
        ("destination", |f, l3, _| f[l3 + 39] ^= 1),
    ];
    let tcp: &[(&str, Change)] = &[
        ("a sequence number before", |f, _, l4| f[l4 + 7] -= 1),
        ("a sequence number behind", |f, _, l4| f[l4 + 7] += 1),
        ("acknowledgement", |f, _, l4| f[l4 + 11] += 1),
        ("reserved bits", |f, _, l4| f[l4 + 12] |= 2),
        ("accurate ECN", |f, _, l4| f[l4 + 12] |= 1),
        ("congestion experienced", |f, _, l4| f[l4 + 13] |= ECE),
        ("no acknowledgement", |f, _, l4| f[l4 + 13] &= !ACK),
        ("window", |f, _, l4| f[l4 + 15] ^= 1),
        ("urgent pointer", |f, _, l4| f[l4 + 19] ^= 1),
        ("timestamp", |f, _, l4| f[l4 + 27] ^= 1),
        ("last octet of the options", |f, _, l4| f[l4 + 31] ^= 1),
        ("fewer options", |f, _, l4| f[l4 + 12] -= 0x10),
    ];
    for sender in Sender::all() {
        assert!(merges_after(&sender, |_, _, _| ()), "as they are, {sender:?}");
        let network = if sender.six { six } else { four };
        let transport = if sender.tcp { tcp } else { &[] };
        for (why, change) in [any, network, transport].concat() {
            assert!(!merges_after(&sender, change), "{why}, {sender:?}");
        }
    }
    let mut sender = Sender::new(true, false);
    sender.tags = vec![[0x8100, 7]];
    assert!(merges_after(&sender, |_, _, _| ()));
    assert!(!merges_after(&sender, |f, _, _| f[14] ^= 0x20), "priority of the tag");
    assert!(!merges_after(&sender, |f, _, _| f[15] ^= 1), "VLAN of the tag");
}

#[test]
fn segments_of_these_kinds_are_never_merged() {
    let longer: Change = |f, l3, _| {
        f.push(1);
        let len = (f.len() - l3) as u16;
        if f[l3] >> 4 == 4 {
            put(f, l3 + 2, len)
        } else {
            put(f, l3 + 4, len - 40)
        }
        let l4 = l3 + if f[l3] >> 4 == 4 { 20 } else { 40 };
        if !Packet::of(f).unwrap().tcp {
            put(f, l4 + 4, len - (l4 - l3) as u16);
        }
    };
    let surplus: Change = |f, _, l4| put(f, l4 + 4, 400);
    for sender in Sender::all() {
        assert!(!merges_after(&sender, longer), "longer than the first, {sender:?}");
        assert!(!merges_after(&sender, |f, _, _| f.extend([0; 4])), "padding, {sender:?}");
        if !sender.tcp {
            assert!(!merges_after(&sender, surplus), "a datagram shorter than its packet");
        }
        for flag in [SYN, RST, URG, CWR] {
            let mut sender = sender.clone();
            if sender.tcp {
                let frames: Vec<_> = [0, 0, flag, flag, 0, 0].map(|flags| sender.send(300, flags)).into();
                assert_eq!(merged(&frames, Lie::Apart), [2, 1, 1, 2], "flag {flag:#x}");
            }
        }
        let mut sender = sender.clone();
        let frames: Vec<_> = [300, 300, 0, 0, 300, 300].map(|len| sender.send(len, 0)).into();
        assert_eq!(merged(&frames, Lie::Apart), [2, 1, 1, 2], "nothing in it, {sender:?}");
    }
}

#[test]
fn identifications_count_up_or_are_all_one() {
    let send = |dont_fragment: bool, ids: &[u16]| {
        let mut sender = Sender::new(true, false);
        let frames: Vec<_> = ids
            .iter()
            .map(|&id| {
                sender.id = id;
                let mut frame = sender.send(100, 0);
                frame[20] = u8::from(dont_fragment) << 6;
                finish(&mut frame);
                frame
            })
            .collect();
        let mut batch = batch_of(&frames, Lie::Apart);
        merge(&mut batch, &LIMITS);
        sizes(&batch)
    };
    assert_eq!(send(true, &[0xffff, 0, 1, 2]), [4]);
    assert_eq!(send(false, &[0xffff, 0, 1, 2]), [4]);
    assert_eq!(send(true, &[7, 7, 7]), [3], "an atomic datagram needs no identification");
    assert_eq!(send(true, &[7, 7, 8]), [2, 1]);
    assert_eq!(send(true, &[7, 8, 8]), [2, 1]);
    assert_eq!(send(false, &[7, 7]), [1, 1]);
    assert_eq!(send(true, &[7, 9]), [1, 1]);
}

#[test]
fn interleaved_flows_are_merged_each_for_itself_and_stay_in_the_order_of_their_first_segments() {
    let mut senders: Vec<_> =
        (0..8).map(|n| Sender { port: 4000 + n, ..Sender::all()[usize::from(n) % 4].clone() }).collect();
    let mut frames = Vec::new();
    for _ in 0..3 {
        for sender in &mut senders {
            frames.push(sender.send(200, 0));
        }
    }
    let mut batch = batch_of(&frames, Lie::Apart);
    merge(&mut batch, &LIMITS);
    let after = split(&batch);
    for (n, segments) in after.iter().enumerate() {
        assert_eq!(segments, &[frames[n].clone(), frames[n + 8].clone(), frames[n + 16].clone()]);
    }
    assert_eq!(after.len(), 8);
}

#[test]
fn more_flows_than_can_be_open_are_merged_less_and_lose_nothing() {
    let mut senders: Vec<_> = (0..16).map(|n| Sender { port: n, ..Sender::new(true, false) }).collect();
    let frames: Vec<_> = (0..64).map(|n| senders[n % 16].send(200, 0)).collect();
    assert_eq!(merged(&frames, Lie::Apart), [1; 64]);
    let frames: Vec<_> = (0..64).map(|n| senders[n / 4].send(200, 0)).collect();
    assert_eq!(merged(&frames, Lie::Apart), [4; 16]);
}

#[test]
fn what_cannot_be_merged_closes_the_super_frame_of_its_flow_alone() {
    let mut one = Sender::new(true, false);
    let mut other = Sender { port: 1, ..one.clone() };
    let mut frames = vec![one.send(100, 0), other.send(100, 0)];
    // A segment that was damaged, behind which the one that was sent after it must not pass.
    frames.push(one.send(100, 0));
    *frames[2].last_mut().unwrap() ^= 1;
    frames.push(one.send(100, 0));
    frames.push(other.send(100, 0));
    frames.push(one.send(100, 0));
    let mut batch = batch_of(&frames, Lie::Apart);
    merge(&mut batch, &LIMITS);
    let after = split(&batch);
    let expected = [vec![0], vec![1, 4], vec![2], vec![3, 5]]
        .map(|f| f.iter().map(|&n| frames[n].clone()).collect::<Vec<_>>());
    assert_eq!(after, expected);
    assert_eq!(batch.frame(2).offload, Offload::NONE, "a wrong checksum travels on");
}

#[test]
fn a_fragment_closes_the_super_frames_of_its_protocol_between_its_hosts() {
    let mut tcp = Sender::new(true, false);
    let mut udp = Sender::new(false, false);
    let mut other = Sender { port: 1, ..udp.clone() };
    let mut frames =
        [tcp.send(100, 0), udp.send(100, 0), other.send(100, 0), tcp.send(100, 0), udp.send(100, 0)];
    let mut batch = batch_of(&frames, Lie::Apart);
    merge(&mut batch, &LIMITS);
    assert_eq!(sizes(&batch), [2, 2, 1], "as they are");
    let fragment = &mut frames[2];
    fragment[20] = 0x20;
    finish(fragment);
    let mut batch = batch_of(&frames, Lie::Apart);
    merge(&mut batch, &LIMITS);
    assert_eq!(sizes(&batch), [2, 1, 1, 1]);
    assert_eq!(batch.frame(2).offload, Offload::NONE);
}

#[test]
fn frames_of_two_remotes_are_not_merged() {
    let mut sender = Sender::new(true, false);
    let frames: Vec<_> = (0..4).map(|_| sender.send(100, 0)).collect();
    let mut batch = batch_of(&frames, Lie::Apart);
    for n in 0..4 {
        batch.frame_mut(n).remote = Some(RemoteIdx(n as u16 / 2));
    }
    merge(&mut batch, &LIMITS);
    assert_eq!(sizes(&batch), [2, 2]);
    assert_eq!(batch.frame(1).remote, Some(RemoteIdx(1)));
}

#[test]
fn datagrams_stay_alone_where_nobody_takes_them_merged() {
    let mut sender = Sender::new(false, false);
    let frames: Vec<_> = (0..4).map(|_| sender.send(100, 0)).collect();
    let mut batch = batch_of(&frames, Lie::Apart);
    merge(&mut batch, &Limits { udp: false, ..LIMITS });
    assert_eq!(split(&batch).concat(), frames);
    assert!((0..4).all(|n| batch.frame(n).offload == GOOD));
}

#[test]
fn a_super_frame_ends_before_the_next_frame_in_the_memory_and_at_the_end_of_the_slot() {
    // In one slot, in turn: behind the first lies one of another flow.
    let mut one = Sender::new(true, false);
    let mut other = Sender { port: 1, ..one.clone() };
    let frames = [one.send(500, 0), other.send(500, 0), one.send(500, 0), other.send(500, 0)];
    let mut batch = batch_of(&frames, Lie::Together(8));
    merge(&mut batch, &LIMITS);
    assert_eq!(split(&batch), frames.map(|f| vec![f]), "each is behind another of the other flow");
    // A frame that no one takes in ends the one before it; a gap as long as the payload is enough.
    let gap_and_expected = [(499, vec![1, 1, 1]), (500, vec![2, 1])];
    for (gap, expected) in gap_and_expected {
        let mut one = one.clone();
        let frames = [one.send(500, 0), vec![0xee; 60], one.send(500, 0)];
        let mut batch = batch_of(&frames, Lie::Together(gap));
        merge(&mut batch, &LIMITS);
        let after = split(&batch);
        assert_eq!(after.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{gap} octets");
        let order = if expected.len() == 2 { [0, 2, 1] } else { [0, 1, 2] };
        assert_eq!(after.concat(), order.map(|n| frames[n].clone()));
    }
    // At the end of a slot there is no room for another.
    let frames = [one.send(500, 0), one.send(500, 0), one.send(500, 0)];
    let mut batch = Batch::new();
    let end = Batch::slot_end(0);
    let len = frames[0].len();
    for (frame, at) in frames.iter().zip([end - len - 500, Batch::slot_at(1), Batch::slot_at(2)]) {
        batch.memory_mut()[at..at + len].copy_from_slice(frame);
        batch.push_at(at..at + len, Offload::NONE, None);
    }
    merge(&mut batch, &LIMITS);
    let after = split(&batch);
    assert_eq!(after, [frames[..2].to_vec(), frames[2..].to_vec()]);
    assert_eq!(batch.frame(0).range().end, end);
}

#[test]
fn frames_in_any_order_of_the_memory_are_merged() {
    let mut sender = Sender::new(true, false);
    let frames: Vec<_> = (0..6).map(|_| sender.send(300, 0)).collect();
    let mut batch = Batch::new();
    for (n, frame) in frames.iter().enumerate() {
        let at = Batch::slot_at(0) + [3, 0, 5, 1, 4, 2][n] * (frame.len() + 8);
        batch.memory_mut()[at..at + frame.len()].copy_from_slice(frame);
        batch.push_at(at..at + frame.len(), Offload::NONE, None);
    }
    merge(&mut batch, &LIMITS);
    // Behind the first lies the fifth, and behind that the third: it is in the way until it is the one to be taken in.
    assert_eq!(split(&batch).concat(), frames);
    assert!(batch.len() < 6, "{} frames", batch.len());
}
