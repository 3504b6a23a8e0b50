//! Super-frames split, put together again, and compared with the splitter of `tun-rs`.

use proptest::prelude::*;

use super::*;
use crate::{
    counters::DropReason::{self, GsoMalformed, SegmentLimit},
    frame::{Checksum, Gso, GsoKind, Offload},
    wire::{EtherType, Layers, VirtioNetHdr, layers::Version, sample},
};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// A super-frame, its offload state, and where its headers end.
#[derive(Clone, Debug)]
struct Super {
    frame: Vec<u8>,
    offload: Offload,
    l3: usize,
    l4: usize,
    payload: usize,
    /// Whether it has neither IP options nor extension headers.
    fixed: bool,
}

/// What a super-frame is made from.
#[derive(Clone, Debug)]
struct Recipe {
    tcp: bool,
    six: bool,
    tags: Vec<[u16; 2]>,
    /// Options of IPv4 in 4 octets, or a destination options header of IPv6 in 8.
    more: usize,
    tcp_options: usize,
    sequence: u32,
    payload: Vec<u8>,
    size: u16,
}

impl Recipe {
    fn plain(tcp: bool, six: bool, payload: usize, size: u16) -> Self {
        let payload = (0..payload).map(|n| (n * 7) as u8).collect();
        Self { tcp, six, tags: vec![], more: 0, tcp_options: 3, sequence: u32::MAX - 1000, payload, size }
    }

    fn build(&self) -> Super {
        let protocol = if self.tcp { 6 } else { 17 };
        let transport = if self.tcp {
            sample::tcp(self.sequence, FIN | PSH | ACK | CWR, &vec![1; 4 * self.tcp_options], &self.payload)
        } else {
            sample::udp(5, 6, &self.payload)
        };
        let (ethertype, mut packet) = match (self.six, self.more) {
            (false, n) => (EtherType::IPV4, sample::ipv4_with_options(protocol, &vec![1; 4 * n], &transport)),
            (true, 0) => (EtherType::IPV6, sample::ipv6(protocol, &transport)),
            (true, n) => (
                EtherType::IPV6,
                sample::ipv6(60, &[sample::ext(protocol, 8 * n), transport.clone()].concat()),
            ),
        };
        let at = packet.len() - transport.len();
        let mut for_pseudo = packet.clone();
        for_pseudo[if self.six { 6 } else { 9 }] = protocol;
        let pseudo = sample::pseudo_sum(&for_pseudo, transport.len());
        let checksum = if self.tcp { 16 } else { 6 };
        packet[at + checksum..][..2].copy_from_slice(&pseudo.to_be_bytes());
        let frame = sample::ethernet(&self.tags, ethertype, &packet);
        let l3 = frame.len() - packet.len();
        let l4 = l3 + at;
        let payload = frame.len() - self.payload.len();
        let kind = match (self.tcp, self.six) {
            (true, false) => GsoKind::TcpV4,
            (true, true) => GsoKind::TcpV6,
            (false, _) => GsoKind::Udp,
        };
        let gso = Gso { kind, size: self.size, hdr_len: payload as u16, ecn: self.tcp };
        let csum = Checksum::Partial { start: l4 as u16, offset: checksum as u16 };
        Super { frame, offload: Offload { csum, gso: Some(gso) }, l3, l4, payload, fixed: self.more == 0 }
    }
}

prop_compose! {
    fn recipe()(
        tcp: bool, six: bool, tags in prop::collection::vec(any::<u16>().prop_map(|tci| [0x8100, tci]), 0..3), more in 0usize..4,
        tcp_options in 0usize..=10, sequence: u32, payload in prop::collection::vec(any::<u8>(), 1..4000), size in 2u16..2000,
    ) -> Recipe {
        Recipe { tcp, six, tags, more, tcp_options, sequence, payload, size }
    }
}

/// All segments, as whole frames.
fn split(frame: &[u8], offload: &Offload) -> Result<Vec<Vec<u8>>, DropReason> {
    let split = Split::plan(frame, offload)?;
    let mut header = [0xaa; MAX_HEADERS];
    Ok((0..split.count())
        .map(|n| {
            let payload = split.segment(n, &mut header);
            [&header[..split.header_len()], &frame[payload]].concat()
        })
        .collect())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// What a receiver checks of a frame: its lengths and its checksums, computed without any code of this module.
fn verify(frame: &[u8]) {
    let Layers { l3, ip: Some(ip), .. } = Layers::parse(frame).unwrap() else { panic!("no IP packet") };
    assert_eq!(ip.end, frame.len(), "the IP length is that of the segment");
    let mut header = frame[l3..ip.l4].to_vec();
    if ip.version == Version::V4 {
        assert_eq!(sample::naive_sum(&header), 0xffff, "IPv4 header checksum");
    } else {
        header[6] = ip.protocol;
    }
    let transport = &frame[ip.l4..];
    let mut all = sample::pseudo_sum(&header, transport.len()).to_be_bytes().to_vec();
    all.extend(transport);
    assert_eq!(sample::naive_sum(&all), 0xffff, "transport checksum");
    if ip.protocol == 17 {
        assert_eq!(usize::from(u16_at(transport, 4)), transport.len(), "UDP length");
        assert_ne!(u16_at(transport, 6), 0, "a UDP checksum of zero says there is none");
    }
}

#[test]
fn flags_identification_and_sequence_move_from_segment_to_segment() {
    let s = Recipe::plain(true, false, 3500, 1400).build();
    let segments = split(&s.frame, &s.offload).unwrap();
    let seen: Vec<_> = segments
        .iter()
        .map(|f| {
            let sequence = u32::from_be_bytes(f[s.l4 + 4..s.l4 + 8].try_into().unwrap());
            (f.len() - s.payload, u16_at(f, s.l3 + 4), sequence, f[s.l4 + 13])
        })
        .collect();
    let first = u32::MAX - 1000;
    assert_eq!(
        seen,
        [
            (1400, 0xfffe, first, ACK | CWR),
            (1400, 0xffff, first.wrapping_add(1400), ACK),
            (700, 0x0000, first.wrapping_add(2800), ACK | FIN | PSH),
        ]
    );
}

#[test]
fn a_super_frame_of_one_segment_or_none_stays_one_frame() {
    for (payload, size) in [(0, 1400), (1, 1400), (1400, 1400)] {
        for tcp in [false, true] {
            let s = Recipe::plain(tcp, false, payload, size).build();
            let segments = split(&s.frame, &s.offload).unwrap();
            assert_eq!(segments.len(), 1, "{payload} octets");
            verify(&segments[0]);
            if tcp {
                assert_eq!(segments[0][s.l4 + 13], FIN | PSH | ACK | CWR);
            }
        }
    }
}

#[test]
fn absurdly_small_segments_are_refused_where_they_would_be_made_and_not_before() {
    let s = Recipe::plain(true, false, MAX_SEGMENTS + 1, 1).build();
    assert!(validate(&s.frame, &s.offload).is_ok());
    assert_eq!(split(&s.frame, &s.offload).unwrap_err(), SegmentLimit);
    let s = Recipe::plain(true, false, MAX_SEGMENTS, 1).build();
    assert_eq!(split(&s.frame, &s.offload).unwrap().len(), MAX_SEGMENTS);
}

#[test]
fn a_udp_checksum_of_zero_is_written_as_ones() {
    let mut recipe = Recipe::plain(false, false, 4, 2);
    recipe.payload.fill(0);
    let checksum = |recipe: &Recipe| {
        let s = recipe.build();
        u16_at(&split(&s.frame, &s.offload).unwrap()[0], s.l4 + 6)
    };
    // The payload that makes the sum all ones, whose complement is zero.
    let word = checksum(&recipe);
    recipe.payload[..2].copy_from_slice(&word.to_be_bytes());
    assert_eq!(checksum(&recipe), 0xffff);
}

#[test]
fn padding_behind_the_packet_is_in_no_segment() {
    let mut s = Recipe::plain(false, false, 10, 6).build();
    s.frame.extend([0; 20]);
    let segments = split(&s.frame, &s.offload).unwrap();
    assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [42 + 6, 42 + 4]);
}

#[test]
fn a_frame_that_is_no_super_frame_is_not_looked_at() {
    assert_eq!(validate(&[], &Offload::NONE), Ok(None));
    assert_eq!(Split::plan(&[0; 60], &Offload::NONE).unwrap_err(), GsoMalformed);
}

#[test]
fn headers_that_contradict_the_virtio_header_are_refused() {
    type Change = fn(&mut Super);
    let cases: [(&str, Change); 14] = [
        ("IPv6 said to be IPv4", |s| s.offload.gso.as_mut().unwrap().kind = GsoKind::TcpV6),
        ("TCP said to be UDP", |s| s.offload.gso.as_mut().unwrap().kind = GsoKind::Udp),
        ("another protocol", |s| s.frame[s.l3 + 9] = 132),
        ("no IP packet", |s| s.frame[12] = 0x09),
        ("a fragment", |s| s.frame[s.l3 + 6] = 0x20),
        ("a packet that ends within its TCP header", |s| {
            s.frame[s.l3 + 2..s.l3 + 4].copy_from_slice(&[0, 51]);
        }),
        ("a packet longer than the frame", |s| s.frame[s.l3 + 3] += 1),
        ("a TCP header of 16 octets", |s| s.frame[s.l4 + 12] = 0x40),
        ("a TCP header longer than the frame", |s| s.frame.truncate(s.l4 + 30)),
        ("a checksum that starts elsewhere", |s| {
            s.offload.csum = Checksum::Partial { start: s.l4 as u16 + 2, offset: 16 };
        }),
        ("the checksum of UDP in TCP", |s| {
            s.offload.csum = Checksum::Partial { start: s.l4 as u16, offset: 6 };
        }),
        ("a finished checksum", |s| s.offload.csum = Checksum::Good),
        ("segments of no octets", |s| s.offload.gso.as_mut().unwrap().size = 0),
        ("an Ethernet header and no more", |s| s.frame.truncate(14)),
    ];
    let good = Recipe::plain(true, false, 3000, 1400).build();
    assert_eq!(validate(&good.frame, &good.offload), Ok(Some(20 + 32 + 1400)));
    for (why, change) in cases {
        let mut s = good.clone();
        change(&mut s);
        assert_eq!(validate(&s.frame, &s.offload), Err(GsoMalformed), "{why}");
        assert_eq!(Split::plan(&s.frame, &s.offload).unwrap_err(), GsoMalformed, "{why}");
    }
}

#[test]
fn headers_longer_than_the_scratch_are_refused() {
    // Ethernet 14, IPv6 40, destination options, TCP 60.
    for (octets, fits) in [(136, true), (144, false)] {
        let mut recipe = Recipe::plain(true, true, 3000, 1400);
        recipe.more = octets / 8;
        recipe.tcp_options = 10;
        let s = recipe.build();
        assert_eq!(s.payload <= MAX_HEADERS, fits);
        assert_eq!(validate(&s.frame, &s.offload).is_ok(), fits, "{} octets", s.payload);
        assert_eq!(Split::plan(&s.frame, &s.offload).is_ok(), fits);
    }
}

#[test]
fn a_routing_header_does_not_spoil_the_checksum() {
    // The packet is on its way to an intermediate node, 2001:db8::2; its last segment list entry is where TCP runs, 2001:db8::9.
    let last = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let mut routing = vec![6, 2, 2, 1, 0, 0, 0, 0];
    routing.extend(last);
    let mut transport = sample::tcp(1, ACK, &[], &[0x5a; 300]);
    let final_pseudo = |len| {
        let mut packet = sample::ipv6(6, &[]);
        packet[24..40].copy_from_slice(&last);
        sample::pseudo_sum(&packet, len)
    };
    let pseudo = final_pseudo(transport.len());
    transport[16..18].copy_from_slice(&pseudo.to_be_bytes());
    let frame = sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(43, &[routing, transport].concat()));
    let l4 = 14 + 40 + 24;
    let offload = Offload {
        csum: Checksum::Partial { start: l4 as u16, offset: 16 },
        gso: Some(Gso { kind: GsoKind::TcpV6, size: 77, hdr_len: 0, ecn: false }),
    };
    let segments = split(&frame, &offload).unwrap();
    assert_eq!(segments.len(), 4);
    for segment in segments {
        let mut all = final_pseudo(segment.len() - l4).to_be_bytes().to_vec();
        all.extend(&segment[l4..]);
        assert_eq!(sample::naive_sum(&all), 0xffff);
    }
}

proptest! {
    #[test]
    fn segments_are_whole_frames_that_make_up_the_super_frame(recipe in recipe()) {
        let s = recipe.build();
        let plan = Split::plan(&s.frame, &s.offload);
        if recipe.payload.len().div_ceil(recipe.size.into()) > MAX_SEGMENTS {
            prop_assert_eq!(plan.unwrap_err(), SegmentLimit);
            return Ok(());
        }
        let plan = plan.unwrap();
        let segments = split(&s.frame, &s.offload).unwrap();
        prop_assert_eq!(plan.header_len(), s.payload);
        prop_assert_eq!(plan.bytes(), segments.iter().map(Vec::len).sum::<usize>());
        prop_assert_eq!(Some(plan.l3_len()), segments.iter().map(|f| f.len() - s.l3).max());
        prop_assert_eq!(validate(&s.frame, &s.offload), Ok(Some(plan.l3_len())));
        let mut payload: Vec<u8> = Vec::new();
        for (n, segment) in segments.iter().enumerate() {
            verify(segment);
            if recipe.tcp {
                let sequence = u32::from_be_bytes(segment[s.l4 + 4..s.l4 + 8].try_into().unwrap());
                prop_assert_eq!(sequence, recipe.sequence.wrapping_add(payload.len() as u32));
                let flags = segment[s.l4 + 13];
                prop_assert_eq!(flags & CWR != 0, n == 0);
                prop_assert_eq!(flags & (FIN | PSH) != 0, n + 1 == segments.len());
            }
            prop_assert_eq!(&segment[..s.l3], &s.frame[..s.l3], "addresses, tags and type stay");
            prop_assert!(segment.len() - s.payload == usize::from(recipe.size) || n + 1 == segments.len());
            payload.extend(&segment[s.payload..]);
        }
        prop_assert_eq!(payload, recipe.payload);
    }

    /// `tun_rs::gso_split` takes an IP packet and is the oracle.
    #[test]
    fn segments_are_those_of_the_reference_splitter(recipe in recipe()) {
        let s = recipe.build();
        prop_assume!(s.fixed && recipe.payload.len().div_ceil(recipe.size.into()) <= MAX_SEGMENTS);
        let ours = split(&s.frame, &s.offload).unwrap();
        let gso_type = match (recipe.tcp, recipe.six) {
            (true, false) => tun_rs::VIRTIO_NET_HDR_GSO_TCPV4,
            (true, true) => tun_rs::VIRTIO_NET_HDR_GSO_TCPV6,
            (false, _) => tun_rs::VIRTIO_NET_HDR_GSO_UDP_L4,
        };
        let hdr = tun_rs::VirtioNetHdr {
            flags: 1,
            gso_type,
            hdr_len: (s.payload - s.l3) as u16,
            gso_size: recipe.size,
            csum_start: (s.l4 - s.l3) as u16,
            csum_offset: if recipe.tcp { 16 } else { 6 },
        };
        let mut packet = s.frame[s.l3..].to_vec();
        let mut out = vec![vec![0; s.frame.len()]; ours.len()];
        let mut sizes = vec![0; ours.len()];
        let n = tun_rs::gso_split(&mut packet, hdr, &mut out, &mut sizes, 0, recipe.six).unwrap();
        prop_assert_eq!(n, ours.len());
        for ((ours, theirs), &len) in ours.iter().zip(&out).zip(&sizes) {
            prop_assert_eq!(&ours[s.l3..], &theirs[..len]);
        }
    }

    #[test]
    fn no_bytes_and_no_virtio_header_lead_outside_the_frame(
        recipe in recipe(), hdr in any::<[u8; 12]>(), keep in any::<[bool; 12]>(), noise in prop::collection::vec(any::<(u8, u8)>(), 0..4),
        cut in 0usize..5000,
    ) {
        // A good super-frame and its header, with some octets of both changed and the end cut off.
        let s = recipe.build();
        let mut frame = s.frame;
        for (at, value) in noise {
            let at = usize::from(at) % frame.len();
            frame[at] = value;
        }
        frame.truncate(cut);
        let mut octets: [u8; 12] = zerocopy::IntoBytes::as_bytes(&s.offload.to_vnet(0)).try_into().unwrap();
        for ((octet, value), keep) in octets.iter_mut().zip(hdr).zip(keep) {
            if !keep && value % 3 == 0 {
                *octet = value;
            }
        }
        let hdr: VirtioNetHdr = zerocopy::transmute!(octets);
        let Some(offload) = Offload::from_vnet(&hdr, frame.len()) else { return Ok(()) };
        if let Checksum::Partial { start, offset } = offload.csum {
            prop_assert!(checksum::complete(&mut frame.clone(), start.into(), offset.into()).is_ok());
        }
        let valid = validate(&frame, &offload);
        if offload.gso.is_none() {
            prop_assert_eq!(valid, Ok(None));
            return Ok(());
        }
        match Split::plan(&frame, &offload) {
            Err(reason) => prop_assert!(reason == SegmentLimit || valid == Err(reason)),
            Ok(split) => {
                prop_assert_eq!(valid, Ok(Some(split.l3_len())));
                let mut at = split.header_len();
                let mut header = [0; MAX_HEADERS];
                for n in 0..split.count() {
                    let payload = split.segment(n, &mut header);
                    prop_assert_eq!(payload.start, at);
                    prop_assert!(payload.end <= frame.len());
                    at = payload.end;
                }
            }
        }
    }
}
