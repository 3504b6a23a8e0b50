//! The message octet by octet; what gets none; and that whatever is written is a message with the right checksums.

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
use proptest::prelude::*;

use super::*;
use crate::wire::{
    EtherType,
    sample::{self, HOP_BY_HOP, ethernet, ext, ipv4, ipv4_with_options, ipv6, naive_sum, pseudo_sum},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

fn four(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], EtherType::IPV4, packet)
}

fn six(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], EtherType::IPV6, packet)
}

fn segment(payload: usize) -> Vec<u8> {
    sample::tcp(0x0102_0304, 0x10, &[], &vec![7; payload])
}

fn message(frame: &[u8], mtu: u32) -> Option<Vec<u8>> {
    message_at(frame, 12, mtu)
}

fn message_at(frame: &[u8], type_at: usize, mtu: u32) -> Option<Vec<u8>> {
    let mut out = [0xee; MAX_REPLY + 1];
    let len = reply(frame, type_at, mtu, &mut out)?;
    assert!(out[len..].iter().all(|&octet| octet == 0xee), "octets behind the message were touched");
    Some(out[..len].to_vec())
}

#[test]
fn an_ipv4_packet_with_df_gets_fragmentation_needed() {
    let packet = ipv4(TCP, &segment(1440));
    let reply = message(&four(&packet), 1400).unwrap();
    #[rustfmt::skip]
    let expected = [
        // Back to the sender, as if from whom it wrote to.
        2, 0, 0, 0, 0, 1,  2, 0, 0, 0, 0, 2,  0x08, 0x00,
        0x45, 0,  0x02, 0x40,  0, 0,  0x40, 0,  64, 1,  0xe4, 0x52,  198, 51, 100, 2,  198, 51, 100, 1,
        3, 4,  0xf8, 0xd7,  0, 0,  0x05, 0x78,
    ];
    assert_eq!(reply[..42], expected);
    assert_eq!(reply[42..], packet[..548], "as much as 576 octets hold");
    assert_eq!((naive_sum(&reply[14..34]), naive_sum(&reply[34..])), (0xffff, 0xffff));
}

#[test]
fn an_ipv6_packet_gets_packet_too_big() {
    let packet = ipv6(TCP, &segment(1440));
    let reply = message(&six(&packet), 1400).unwrap();
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 1,  2, 0, 0, 0, 0, 2,  0x86, 0xdd,
        0x60, 0, 0, 0,  0x04, 0xd8,  58,  64,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        2, 0,  0xb4, 0xcd,  0, 0, 0x05, 0x78,
    ];
    assert_eq!(reply[..62], expected);
    assert_eq!(reply[62..], packet[..1232], "as much as 1280 octets hold");
    let pseudo = pseudo_sum(&reply[14..], reply.len() - 54);
    assert_eq!(naive_sum(&[&pseudo.to_be_bytes(), &reply[54..]].concat()), 0xffff);
}

#[test]
fn a_short_packet_is_quoted_whole_and_without_padding() {
    for (mut frame, packet, headers) in [
        (four(&ipv4(UDP, &sample::udp(5, 6, b"abc"))), ipv4(UDP, &sample::udp(5, 6, b"abc")), 14 + 28),
        (six(&ipv6(UDP, &sample::udp(5, 6, b"abc"))), ipv6(UDP, &sample::udp(5, 6, b"abc")), 14 + 48),
    ] {
        frame.extend([0; 20]);
        assert_eq!(message(&frame, 1300).unwrap()[headers..], packet);
    }
}

#[test]
fn a_message_wears_the_tags_of_its_packet() {
    let tags = [[0x88a8, 0x600a], [0x8100, 20], [0x8100, 30], [0x8100, 40], [0x8100, 50]];
    for n in 0..=tags.len() {
        let frame = ethernet(&tags[..n], EtherType::IPV6, &ipv6(TCP, &segment(1440)));
        // The first is the switch's own.
        let type_at = if n > 0 { 16 } else { 12 };
        let reply = message_at(&frame, type_at, 1400).unwrap();
        assert_eq!(reply[12..14 + 4 * n], frame[12..14 + 4 * n], "{n} tags");
        assert_eq!(reply.len(), 14 + 4 * n + 1280);
        if n == tags.len() {
            assert_eq!(reply.len(), MAX_REPLY);
        }
    }
}

#[test]
fn options_and_extension_headers_are_quoted_and_looked_through() {
    let with_options = ipv4_with_options(TCP, &[1; 40], &segment(1400));
    assert_eq!(message(&four(&with_options), 1400).unwrap()[42..], with_options[..548]);
    let mut chain = ext(DESTINATION_OPTIONS, 16);
    chain.extend(ext(TCP, 8));
    chain.extend(segment(1400));
    let with_extensions = ipv6(HOP_BY_HOP, &chain);
    assert_eq!(message(&six(&with_extensions), 1400).unwrap()[62..], with_extensions[..1232]);
    for (kind, answered) in [(1, false), (128, true)] {
        let mut chain = ext(58, 16);
        chain.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message(&six(&ipv6(DESTINATION_OPTIONS, &chain)), 1400).is_some(), answered);
        let echo = ipv4_with_options(1, &[1; 8], &[if answered { 8 } else { 3 }, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message(&four(&echo), 1400).is_some(), answered);
    }
}

#[test]
fn the_length_that_is_quoted_of_a_super_frame_is_its_own() {
    let packet = ipv4(TCP, &segment(60_000));
    let reply = message(&four(&packet), 1400).unwrap();
    assert_eq!((reply.len(), &reply[44..46]), (14 + 576, &60_040u16.to_be_bytes()[..]));
    let packet = ipv6(TCP, &segment(60_000));
    let reply = message(&six(&packet), 1400).unwrap();
    assert_eq!((reply.len(), &reply[66..68]), (14 + 1280, &60_020u16.to_be_bytes()[..]));
}

#[test]
fn an_error_is_never_answered_with_an_error() {
    // RFC 1122 §3.2.2: "An ICMP error message MUST NOT be sent as the result of receiving: an ICMP error message".
    for kind in 0..=255 {
        let frame = four(&ipv4(1, &[kind, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(message(&frame, 1400).is_none(), [3, 4, 5, 11, 12].contains(&kind), "ICMP type {kind}");
        // RFC 4443 §2.4 e: "An ICMPv6 error message. [...] An ICMPv6 redirect message".
        let frame = six(&ipv6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(message(&frame, 1400).is_none(), kind < 128 || kind == 137, "ICMPv6 type {kind}");
    }
    assert_eq!(message(&four(&ipv4(1, &[])), 1400), None, "what cannot be told is taken for one");
    assert_eq!(message(&six(&ipv6(58, &[])), 1400), None);
}

#[test]
fn only_single_stations_get_messages_and_only_about_packets_to_single_stations() {
    let addressed = |at: usize, address: [u8; 4]| {
        let mut packet = ipv4(TCP, &segment(9));
        packet[at..at + 4].copy_from_slice(&address);
        message(&four(&packet), 1400).is_some()
    };
    for (address, station) in [
        ([198, 51, 100, 9], true),
        ([223, 255, 255, 254], true),
        ([126, 0, 0, 1], true),
        ([0, 0, 0, 0], false),
        ([0, 1, 2, 3], false),
        ([127, 0, 0, 1], false),
        ([224, 0, 0, 1], false),
        ([239, 255, 0, 1], false),
        ([240, 0, 0, 1], false),
        ([255, 255, 255, 255], false),
    ] {
        assert_eq!((addressed(12, address), addressed(16, address)), (station, station), "{address:?}");
    }
    let addressed = |at: usize, address: Ipv6Addr| {
        let mut packet = ipv6(TCP, &segment(9));
        packet[at..at + 16].copy_from_slice(&address.octets());
        message(&six(&packet), 1400).is_some()
    };
    for (address, station) in [
        ("2001:db8::9", true),
        ("fe80::1", true),
        ("::", false),
        ("::1", false),
        ("ff02::1", false),
        ("ff0e::1", false),
    ] {
        let parsed = address.parse().unwrap();
        assert_eq!((addressed(8, parsed), addressed(24, parsed)), (station, station), "{address}");
    }
    for at in [0, 6] {
        for frame in [four(&ipv4(TCP, &segment(9))), six(&ipv6(TCP, &segment(9)))] {
            let mut frame = frame;
            frame[at] = 3;
            assert_eq!(message(&frame, 1400), None, "a group's MAC address at {at}");
        }
    }
}

#[test]
fn a_packet_that_may_be_fragmented_gets_no_message() {
    let flagged = |flags_and_offset: u16| {
        let mut packet = ipv4(TCP, &segment(9));
        packet[6..8].copy_from_slice(&flags_and_offset.to_be_bytes());
        message(&four(&packet), 1400).is_some()
    };
    for (flags_and_offset, answered) in [
        (0x4000, true),
        (0x6000, true),
        (0xc000, true),
        (0x0000, false),
        (0x8000, false),
        (0x2000, false),
        (0x4001, false),
        (0x6001, false),
    ] {
        assert_eq!(flagged(flags_and_offset), answered, "{flags_and_offset:#06x}");
    }
}

#[test]
fn only_the_first_fragment_of_an_ipv6_packet_gets_a_message() {
    for (offset_and_more, answered) in [(0u16, true), (1, true), (8, false), (9, false)] {
        let [a, b] = offset_and_more.to_be_bytes();
        let fragment = [&[TCP, 0, a, b, 0, 0, 0, 1], &segment(9)[..]].concat();
        assert_eq!(message(&six(&ipv6(FRAGMENT, &fragment)), 1400).is_some(), answered, "{offset_and_more}");
    }
}

#[test]
fn the_mtu_is_told_as_far_as_the_protocol_can() {
    let (v4, v6) = (four(&ipv4(UDP, b"")), six(&ipv6(UDP, b"")));
    for (mtu, told) in
        [(67, None), (68, Some(68u16)), (575, Some(575)), (65_535, Some(65_535)), (65_536, Some(65_535))]
    {
        let reply = message(&v4, mtu);
        assert_eq!(reply.map(|reply| [reply[40], reply[41]]), told.map(u16::to_be_bytes), "{mtu}");
    }
    for (mtu, told) in [(1279, None), (1280, Some(1280u32)), (65_536, Some(65_536))] {
        let reply = message(&v6, mtu);
        assert_eq!(
            reply.map(|reply| reply[58..62].to_vec()),
            told.map(|told| told.to_be_bytes().to_vec()),
            "{mtu}"
        );
    }
}

#[test]
fn a_message_lives_as_long_as_its_packet_had_left_and_never_less_than_64_hops() {
    for (left, lives) in [(1, 64), (63, 64), (64, 64), (65, 65), (255, 255)] {
        let mut packet = ipv4(UDP, b"");
        packet[8] = left;
        assert_eq!(message(&four(&packet), 1400).unwrap()[22], lives);
        let mut packet = ipv6(UDP, b"");
        packet[7] = left;
        assert_eq!(message(&six(&packet), 1400).unwrap()[21], lives);
    }
}

#[test]
fn what_is_not_ip_or_cut_off_gets_no_message() {
    assert_eq!(message(&ethernet(&[], EtherType::ARP, &[0; 28]), 1400), None);
    assert_eq!(message(&four(&ipv6(TCP, &segment(9))), 1400), None, "one version under the other's type");
    for frame in [four(&ipv4(TCP, &segment(9))), six(&ipv6(TCP, &segment(9)))] {
        for len in 0..frame.len() {
            assert_eq!(message(&frame[..len], 1400), None, "{len} octets");
        }
        let mut out = [0; MAX_REPLY];
        let len = reply(&frame, 12, 1400, &mut out).unwrap();
        for room in 0..len {
            assert_eq!(reply(&frame, 12, 1400, &mut out[..room]), None, "room for {room} octets");
        }
        assert_eq!(reply(&frame, 12, 1400, &mut out[..len]), Some(len));
        assert_eq!(message_at(&frame, usize::MAX, 1400), None);
    }
}

/// A frame with an IP packet whose headers are right, some of its octets changed then.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        (0..1500usize).prop_map(|len| (TCP, segment(len))),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| (1, bytes)),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| (58, bytes)),
    ];
    let packet = (payload, 0..3u8, 0..10usize).prop_map(|((protocol, payload), kind, words)| match kind {
        0 => four(&ipv4_with_options(protocol, &vec![1; 4 * words], &payload)),
        1 => six(&ipv6(DESTINATION_OPTIONS, &[ext(protocol, 8 + 8 * words), payload].concat())),
        _ => six(&ipv6(protocol, &payload)),
    });
    let frame = prop_oneof![8 => packet, 1 => prop::collection::vec(any::<u8>(), 0..200)];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (frame, changes).prop_map(|(mut frame, changes)| {
        for (at, octet) in changes {
            if !frame.is_empty() {
                let at = at.index(frame.len().min(80));
                frame[at] = octet;
            }
        }
        frame
    })
}

proptest! {
    #[test]
    fn no_octets_make_it_panic_and_every_message_has_right_checksums(
        frame in any_frame(), type_at in prop_oneof![9 => Just(12usize), 1 => 0..100usize], mtu in 0..70_000u32,
    ) {
        let Some(message) = message_at(&frame, type_at, mtu) else { return Ok(()) };
        prop_assume!(type_at == 12);
        let parsed = SlicedPacket::from_ethernet(&message).unwrap();
        match (parsed.net, parsed.transport) {
            (Some(NetSlice::Ipv4(four)), Some(TransportSlice::Icmpv4(icmp))) => {
                let header = four.header().to_header();
                prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
                prop_assert_eq!(naive_sum(icmp.slice()), 0xffff);
                let next_hop_mtu = mtu.min(65_535) as u16;
                let expected = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
                prop_assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(expected));
                prop_assert!(icmp.payload().len() <= 548 && four.header().source() != [0; 4]);
            }
            (Some(NetSlice::Ipv6(six)), Some(TransportSlice::Icmpv6(icmp))) => {
                prop_assert!(icmp.is_checksum_valid(six.header().source(), six.header().destination()));
                prop_assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu });
                prop_assert!(icmp.payload().len() <= 1232 && !six.header().source_addr().is_multicast());
            }
            other => panic!("{other:?}"),
        }
        // No message about a message, whoever gets hold of it.
        prop_assert_eq!(message_at(&message, 12, mtu), None);
    }
}
