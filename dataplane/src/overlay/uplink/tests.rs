//! What comes in, form by form; what leaves, and that its outer checksum is the one over the finished packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::{
    frame::Gso,
    offload::checksum,
    overlay::outer::{Addresses, Df, Fields, Outer, UdpChecksum},
    wire::sample,
};

/// The drop reasons that a frame of an uplink meets by its outer headers alone; the table of what is no datagram has a frame for each.
pub(crate) const REASONS: &[DropReason] =
    &[DropReason::UnderlayMalformed, DropReason::UnderlayFragment, DropReason::NotForUs];

/// The sender of every sample, and the switch.
const HIM: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const ME: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const ME6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
/// A VXLAN header.
const TUNNEL: [u8; 8] = [8, 0, 0, 0, 0, 0, 42, 0];
/// Octets in front of the UDP payload over IPv4.
const START: usize = 42;

fn udp_frame(payload: &[u8]) -> Vec<u8> {
    sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(UDP, &sample::udp(49_152, 4789, payload)))
}

/// A whole TCP segment in Ethernet, its checksum partial, and what a port says of it.
fn partial(six: bool, payload: &[u8]) -> (Vec<u8>, Offload) {
    let tcp = sample::tcp(7, 0x10, &[], payload);
    let (ethertype, mut packet) = match six {
        false => (EtherType::IPV4, sample::ipv4(6, &tcp)),
        true => (EtherType::IPV6, sample::ipv6(6, &tcp)),
    };
    let l4 = packet.len() - tcp.len();
    let sum = sample::pseudo_sum(&packet, tcp.len());
    packet[l4 + 16..][..2].copy_from_slice(&sum.to_be_bytes());
    let csum = Checksum::Partial { start: (HEADER_LEN + l4) as u16, offset: 16 };
    (sample::ethernet(&[], ethertype, &packet), Offload { csum, gso: None })
}

fn gso(kind: GsoKind, size: u16) -> Option<Gso> {
    Some(Gso { kind, size, hdr_len: 0, ecn: false })
}

fn accepted(frame: &[u8], said: &UplinkOffload) -> Datagrams {
    match inbound(frame, said, ME) {
        Inbound::Datagrams(datagrams) => datagrams,
        other => panic!("{other:?}"),
    }
}

fn refused(frame: &[u8], said: &UplinkOffload) -> DropReason {
    match inbound(frame, said, ME) {
        Inbound::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn outside(csum: Checksum, gso: Option<Gso>) -> UplinkOffload {
    UplinkOffload { offload: Offload { csum, gso }, tunnel: None }
}

#[test]
fn a_plain_datagram_is_found_with_all_that_its_headers_say() {
    let frame = udp_frame(&[&TUNNEL[..], &[7; 60]].concat());
    assert_eq!(
        accepted(&frame, &UplinkOffload::NONE),
        Datagrams {
            payload: START..START + 68,
            stride: 68,
            from: HIM,
            from_port: 49_152,
            to_port: 4789,
            tos: 0,
            ttl: 64,
            offload: Offload::NONE,
            has_checksum: false,
        }
    );
}

#[test]
fn a_checksum_that_nobody_vouches_for_is_verified() {
    let mut frame = udp_frame(&[1; 70]);
    let udp = frame.len() - 78;
    let pseudo = sample::pseudo_sum(&frame[14..], 78);
    frame[udp + 6..udp + 8].copy_from_slice(&pseudo.to_be_bytes());
    let partial = outside(Checksum::Partial { start: 34, offset: 6 }, None);
    assert!(accepted(&frame, &partial).has_checksum, "left to be finished: its sender is on this host");
    assert_eq!(refused(&frame, &UplinkOffload::NONE), DropReason::UnderlayMalformed);
    checksum::complete(&mut frame, udp, 6).unwrap();
    assert!(accepted(&frame, &UplinkOffload::NONE).has_checksum);
    frame[60] ^= 1;
    assert_eq!(refused(&frame, &UplinkOffload::NONE), DropReason::UnderlayMalformed);
    assert!(accepted(&frame, &outside(Checksum::Good, None)).has_checksum, "the kernel has looked");
}

#[test]
fn a_super_frame_in_a_tunnel_is_one_inner_super_frame() {
    let (inner, offload) = partial(false, &[3; 4000]);
    let frame = udp_frame(&[&TUNNEL[..], &inner].concat());
    let at = (START + TUNNEL.len()) as u16;
    let tunnel = TunnelGso { v6: false, csum: false, outer_l4: 34, inner_l3: at + 14 };
    let inner_offload = Offload { gso: gso(GsoKind::TcpV4, 1398), ..offload };
    let said = UplinkOffload { offload: inner_offload.behind(at), tunnel: Some(tunnel) };
    let datagrams = accepted(&frame, &said);
    assert_eq!((datagrams.payload.clone(), datagrams.stride), (START..frame.len(), frame.len() - START));
    assert_eq!(datagrams.offload.within(8).unwrap().csum, offload.csum, "as in the inner frame itself");
    assert!(crate::offload::validate(&inner, &datagrams.offload.within(8).unwrap()).unwrap().is_some());
    for wrong in [
        TunnelGso { outer_l4: 38, ..tunnel },
        TunnelGso { v6: true, ..tunnel },
        TunnelGso { inner_l3: 41, ..tunnel },
    ] {
        let said = UplinkOffload { tunnel: Some(wrong), ..said };
        assert_eq!(refused(&frame, &said), DropReason::VnetHeaderInvalid, "{wrong:?}");
    }
}

#[test]
fn a_train_has_a_stride_and_only_of_the_outer_datagram() {
    let frame = udp_frame(&[5; 4000]);
    let csum = Checksum::Partial { start: 34, offset: 6 };
    let train = accepted(&frame, &outside(csum, gso(GsoKind::Udp, 1450)));
    assert_eq!(train.stride, 1450);
    let Datagram { at, len, stride, from, .. } = train.of_batch(1000);
    assert_eq!((at, len, stride, from), (1042, 4000, 1450, HIM));
    assert_eq!(accepted(&frame, &UplinkOffload::NONE).of_batch(0).stride, 0, "one datagram is no train");
    for (why, said) in [
        ("TCP segments", outside(csum, gso(GsoKind::TcpV4, 1450))),
        ("another field", outside(Checksum::Partial { start: 34, offset: 16 }, gso(GsoKind::Udp, 1450))),
        ("an inner datagram", outside(Checksum::Partial { start: 84, offset: 6 }, gso(GsoKind::Udp, 1450))),
        ("a checksum in the outer UDP header", outside(Checksum::Partial { start: 35, offset: 6 }, None)),
        ("a field that is not UDP's", outside(Checksum::Partial { start: 34, offset: 16 }, None)),
    ] {
        assert_eq!(refused(&frame, &said), DropReason::VnetHeaderInvalid, "{why}");
    }
}

#[test]
fn what_is_no_datagram_for_the_switch_is_told_apart() {
    let icmp = sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]));
    let tcp = sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(6, &sample::tcp(1, 2, &[], &[])));
    let arp = sample::ethernet(&[], EtherType::ARP, &[0; 28]);
    let tagged =
        sample::ethernet(&[[0x8100, 5]], EtherType::IPV4, &sample::ipv4(UDP, &sample::udp(1, 2, &[])));
    let mut fragment = udp_frame(&[1; 40]);
    fragment[20..22].copy_from_slice(&[0x20, 0]);
    let sum = !sample::naive_sum(&[&fragment[14..24], &fragment[26..34]].concat());
    fragment[24..26].copy_from_slice(&sum.to_be_bytes());
    let mut header = udp_frame(&[1; 40]);
    header[22] ^= 1;
    let mut elsewhere = udp_frame(&[1; 40]);
    elsewhere[33] = 9;
    let sum = !sample::naive_sum(&[&elsewhere[14..24], &elsewhere[26..34]].concat());
    elsewhere[24..26].copy_from_slice(&sum.to_be_bytes());
    let local = Inbound::Local;
    let refused = Inbound::Refused;
    let host =
        Host::new("198.51.100.2/24".parse().unwrap(), MacAddr::from_bits(2), None, MacAddr::from_bits(1));
    let (address, mac) = (ME, MacAddr::from_bits(2));
    let uplink = Uplink { address, mac, caps: Caps::NONE, mtu: 1500, host: Arc::new(host) };
    let mut given = Vec::new();
    for (what, frame, expected) in [
        ("ICMP", &icmp, local.clone()),
        ("ARP", &arp, local),
        ("TCP", &tcp, refused(DropReason::NotForUs)),
        ("a VLAN", &tagged, refused(DropReason::NotForUs)),
        ("somebody else's", &elsewhere, refused(DropReason::NotForUs)),
        ("a fragment", &fragment, refused(DropReason::UnderlayFragment)),
        ("a wrong header checksum", &header, refused(DropReason::UnderlayMalformed)),
    ] {
        assert_eq!(inbound(frame, &UplinkOffload::NONE, ME), expected, "{what}");
        if let Inbound::Refused(reason) = expected {
            let arrival = uplink.receive(&[], frame, Tick::default(), &mut []);
            assert_eq!(arrival, Arrival::Drop(reason), "{what} is for a worker to count");
            given.push(reason);
        }
    }
    assert!(REASONS.iter().all(|reason| given.contains(reason)));
    let solicitation = sample::ethernet(&[], EtherType::IPV6, &{
        let mut packet = sample::ipv6(ICMPV6, &[135; 24]);
        packet[24] = 0xff;
        packet
    });
    assert_eq!(inbound(&solicitation, &UplinkOffload::NONE, ME6), Inbound::Local);
    assert_eq!(inbound(&arp, &UplinkOffload::NONE, ME6), refused(DropReason::NotForUs));
}

/// The headers of the samples' addresses in front of `payload`, with the checksum that `csum` asks for.
fn encapsulate(six: bool, csum: OuterChecksum, inner: &[u8], cut: usize) -> Vec<u8> {
    let addresses = match six {
        false => Addresses::V4 { source: [198, 51, 100, 1].into(), destination: [198, 51, 100, 2].into() },
        true => {
            let end = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
            Addresses::V6 { source: end(1), destination: end(2) }
        }
    };
    let outer = Outer::new(MacAddr::from_bits(2), MacAddr::from_bits(4), addresses, 4789);
    let fields = Fields { source_port: 50_000, tos: 0, ttl: 64, df: Df::Set };
    let mut word = [0; 2];
    let [a, b] = csum.covers(inner.split_at(cut).into(), &mut word);
    let slices: [&[u8]; 3] = [&TUNNEL, a, b];
    let checksum = match csum {
        OuterChecksum::Zero => UdpChecksum::Zero,
        OuterChecksum::Partial => UdpChecksum::Partial,
        OuterChecksum::Local { .. } | OuterChecksum::Complete => UdpChecksum::Complete(&slices),
    };
    let mut frame = vec![0; outer.len()];
    outer.write(&fields, TUNNEL.len() + inner.len(), checksum, &mut frame).unwrap();
    frame.extend(TUNNEL);
    frame.extend(inner);
    frame
}

fn around(six: bool, udp_csum: bool) -> Encapsulation {
    if six {
        Encapsulation { v6: true, l4: 54, len: 70, udp_csum }
    } else {
        Encapsulation { v6: false, l4: 34, len: 50, udp_csum }
    }
}

#[test]
fn a_super_frame_leaves_with_the_positions_of_both_headers() {
    let inner = Offload {
        csum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind: GsoKind::TcpV4, size: 1398, hdr_len: 66, ecn: true }),
    };
    let (said, csum) = outbound(&Caps::UPLINK, &around(false, false), &inner, 14);
    assert_eq!(said.offload, inner.behind(50));
    assert_eq!(said.tunnel, Some(TunnelGso { v6: false, csum: false, outer_l4: 34, inner_l3: 64 }));
    assert_eq!(csum, OuterChecksum::Zero);
    let (said, csum) = outbound(&Caps::UPLINK, &around(true, true), &inner, 18);
    assert_eq!(said.tunnel, Some(TunnelGso { v6: true, csum: true, outer_l4: 54, inner_l3: 88 }));
    assert_eq!(csum, OuterChecksum::Partial, "every segment gets its own");
}

#[test]
fn what_the_kernel_takes_of_a_tunnel_depends_on_its_checksum_and_its_length() {
    let frame = Offload { csum: Checksum::Partial { start: 34, offset: 16 }, gso: gso(GsoKind::TcpV4, 1398) };
    let no_csum = Caps { tunnel_csum: false, ..Caps::UPLINK };
    for (what, caps, len, udp_csum, expected) in [
        ("all", Caps::UPLINK, 65_535, true, true),
        ("longer than a packet", Caps::UPLINK, 65_536, false, false),
        ("checksums that it does not know", no_csum, 9000, true, false),
        ("none", no_csum, 9000, false, true),
        ("no tunnels", Caps::ALL, 9000, false, false),
    ] {
        assert_eq!(caps.take_tunnelled(&frame, len, udp_csum), expected, "{what}");
    }
    assert!(Caps::ALL.take_tunnelled(&Offload { gso: None, ..frame }, 1500, true), "no super-frame");
}

proptest! {
    /// The oracle is the receiver's check of the whole packet, both checksums finished.
    #[test]
    fn the_outer_checksum_holds_once_the_inner_one_is_finished(
        six: bool, inner_six: bool, is_partial: bool, csum_cap: bool, payload in prop::collection::vec(any::<u8>(), 0..200), cut: prop::sample::Index,
    ) {
        let (mut inner, offload) = partial(inner_six, &payload);
        let Checksum::Partial { start, offset } = offload.csum else { panic!() };
        let caps = Caps { csum: csum_cap || is_partial, ..Caps::NONE };
        let offload = if is_partial { offload } else {
            checksum::complete(&mut inner, start.into(), offset.into()).unwrap();
            Offload::NONE
        };
        let around = around(six, true);
        let (said, csum) = outbound(&caps, &around, &offload, 14);
        // A partial checksum lies in the first part, as the headers of a frame do.
        let cut = if is_partial { inner.len() } else { cut.index(inner.len() + 1) };
        let mut frame = encapsulate(six, csum, &inner, cut);
        prop_assert_eq!(frame.len(), inner.len() + usize::from(around.len));

        // A receiver on the same host sees it as it is.
        let me = if six { ME6 } else { ME };
        let Inbound::Datagrams(datagrams) = inbound(&frame, &said, me) else { panic!() };
        prop_assert!(datagrams.has_checksum);
        prop_assert_eq!(datagrams.offload.within(8).unwrap().csum, offload.csum);
        // One that flips a bit in front of what the inner checksum covers is found out.
        if is_partial {
            frame[usize::from(around.len) + 3] ^= 4;
            prop_assert!(matches!(inbound(&frame, &said, me), Inbound::Refused(_)));
            frame[usize::from(around.len) + 3] ^= 4;
        }

        // The kernel, or a NIC, finishes the one partial checksum that there is.
        if let Checksum::Partial { start, offset } = said.offload.csum {
            checksum::complete(&mut frame, start.into(), offset.into()).unwrap();
        }
        let inner = &frame[around.len.into()..];
        let (l4, len) = (usize::from(start), inner.len() - usize::from(start));
        let all = [&sample::pseudo_sum(&inner[14..], len).to_be_bytes()[..], &inner[l4..]].concat();
        prop_assert_eq!(sample::naive_sum(&all), 0xffff, "the inner checksum");
        let (l4, len) = (usize::from(around.l4), frame.len() - usize::from(around.l4));
        let all = [&sample::pseudo_sum(&frame[14..], len).to_be_bytes()[..], &frame[l4..]].concat();
        prop_assert_eq!(sample::naive_sum(&all), 0xffff, "the outer checksum");
        prop_assert!(matches!(inbound(&frame, &UplinkOffload::NONE, me), Inbound::Datagrams(_)));
    }

    #[test]
    fn no_octets_make_it_panic_and_a_payload_lies_inside_the_frame(
        mut frame in prop::collection::vec(any::<u8>(), 0..300), header: [u8; 24], kind in 0usize..5, known: bool,
    ) {
        if frame.len() > 70 {
            let head: [&[u8]; 5] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[8, 6], &[0x81, 0], &[]];
            frame[12..12 + head[kind].len()].copy_from_slice(head[kind]);
            let len = frame.len() as u16;
            if kind == 0 {
                frame[16..24].copy_from_slice(&[(len - 14).to_be_bytes()[0], (len - 14).to_be_bytes()[1], 0, 0, 0, 0, 64, UDP]);
                frame[30..34].copy_from_slice(&[198, 51, 100, 2]);
                frame[24..26].fill(0);
                let sum = !sample::naive_sum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
                frame[38..40].copy_from_slice(&(len - 34).to_be_bytes());
            }
        }
        let said = UplinkOffload::parse(&header, frame.len()).filter(|_| known).unwrap_or_default();
        for me in [ME, ME6] {
            if let Inbound::Datagrams(datagrams) = inbound(&frame, &said, me) {
                prop_assert!(frame.get(datagrams.payload.clone()).is_some());
                prop_assert_eq!(datagrams.from.is_ipv4(), me.is_ipv4());
            }
        }
    }
}
