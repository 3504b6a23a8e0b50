//! What is answered, octet by octet; what passes; what is learned, and when it is forgotten.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::wire::{
    EtherType,
    sample::{self, SOURCE, naive_sum, pseudo_sum},
};

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The asker; its MAC address is that of every sample.
const ASKER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The neighbour.
const MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 7]);
const IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
/// The solicited-node address of the neighbour (RFC 4291 §2.7.1).
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 7);
const OTHER_MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 9]);

fn asker() -> MacAddr {
    MacAddr::from_octets(SOURCE)
}

/// A frame to all stations.
fn ethernet(tags: &[[u16; 2]], ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut frame = sample::ethernet(tags, ethertype, payload);
    frame[..6].fill(0xff);
    frame
}

fn arp_message(operation: u8, sha: MacAddr, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    let tha = [0; 6];
    [&[0, 1, 8, 0, 6, 4, 0, operation], &sha.octets()[..], &spa.octets(), &tha, &tpa.octets()].concat()
}

fn arp(operation: u8, sha: MacAddr, spa: Ipv4Addr, tpa: Ipv4Addr) -> Vec<u8> {
    ethernet(&[], EtherType::ARP, &arp_message(operation, sha, spa, tpa))
}

/// A solicitation or an advertisement in its packet; flags are of the latter.
fn nd_packet(
    kind: u8,
    flags: u8,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    target: Ipv6Addr,
    option: Option<(u8, MacAddr)>,
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some((kind, mac)) = option {
        message.extend([kind, 1]);
        message.extend(mac.octets());
    }
    let mut packet = sample::ipv6(58, &message);
    packet[7] = 255;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    finish(&mut packet);
    packet
}

/// Writes the checksum of the ICMPv6 message in a packet.
fn finish(packet: &mut [u8]) {
    packet[42..44].fill(0);
    let pseudo = pseudo_sum(packet, packet.len() - 40);
    let sum = !naive_sum(&[&pseudo.to_be_bytes(), &packet[40..]].concat());
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
}

fn six(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], EtherType::IPV6, packet)
}

fn solicitation() -> Vec<u8> {
    six(&nd_packet(SOLICITATION, 0, (ASKER6, GROUP), IP6, Some((SOURCE_MAC, asker()))))
}

fn advertisement(flags: u8, mac: MacAddr) -> Vec<u8> {
    six(&nd_packet(ADVERTISEMENT, flags, (IP6, ASKER6), IP6, Some((TARGET_MAC, mac))))
}

fn secs(secs: u64) -> Tick {
    Tick::from_secs(secs)
}

/// The neighbour, by both its addresses, in VLAN 0.
fn one() -> Neighbours {
    let neighbours = Neighbours::new();
    for ip in [IpAddr::from(IP), IP6.into()] {
        assert_eq!(neighbours.insert_static(0, ip, MAC, secs(1)), Ok(None));
    }
    neighbours
}

fn snooping() -> Neighbours {
    let neighbours = Neighbours::new();
    neighbours.set_snooping(true);
    neighbours
}

fn answer(neighbours: &Neighbours, frame: &[u8], type_at: usize) -> Option<Vec<u8>> {
    let mut reply = [0xee; MAX_ANSWER];
    let Answer { len, mac } = neighbours.answer(0, frame, type_at, &mut reply)?;
    assert_eq!(mac, MAC);
    assert!(reply[len..].iter().all(|&octet| octet == 0xee), "octets behind the answer were touched");
    Some(reply[..len].to_vec())
}

#[test]
fn a_request_for_a_neighbour_is_answered_with_its_address() {
    let reply = answer(&one(), &arp(REQUEST, asker(), ASKER, IP), 12).unwrap();
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 1,  2, 0, 0, 0, 0, 7,  0x08, 0x06,
        0, 1,  8, 0,  6, 4,  0, 2,
        2, 0, 0, 0, 0, 7,  198, 51, 100, 7,
        2, 0, 0, 0, 0, 1,  198, 51, 100, 1,
    ];
    assert_eq!(reply, expected);
}

#[test]
fn a_solicitation_for_a_neighbour_is_answered_with_an_advertisement() {
    let reply = answer(&one(), &solicitation(), 12).unwrap();
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 1,  2, 0, 0, 0, 0, 7,  0x86, 0xdd,
        0x60, 0, 0, 0,  0, 32,  58,  255,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        136, 0,  0x0a, 0x62,  ROUTER | SOLICITED | OVERRIDE, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
        2, 1,  2, 0, 0, 0, 0, 7,
    ];
    assert_eq!(reply, expected);
    assert_eq!(naive_sum(&[&pseudo_sum(&reply[14..], 32).to_be_bytes(), &reply[54..]].concat()), 0xffff);
    // What counts is that the frame goes to a group.
    let unicast = six(&nd_packet(SOLICITATION, 0, (ASKER6, IP6), IP6, None));
    assert_eq!(answer(&one(), &unicast, 12).unwrap(), expected);
}

#[test]
fn a_question_to_one_station_is_left_to_that_station() {
    for mut question in [arp(REQUEST, asker(), ASKER, IP), solicitation()] {
        assert!(answer(&one(), &question, 12).is_some());
        question[..6].copy_from_slice(&MAC.octets());
        assert_eq!(answer(&one(), &question, 12), None);
        assert_eq!(
            snooping().snoop(0, &question, 12, secs(1)),
            Snoop::New,
            "and something is learned from it"
        );
    }
}

#[test]
fn an_answer_wears_the_tags_of_its_question() {
    let question = arp_message(REQUEST, asker(), ASKER, IP);
    for (tags, type_at, answered) in [
        (&[][..], 12, true),
        (&[[0x8100, 0xa00a]], 16, true),
        (&[[0x88a8, 10]], 16, true),
        (&[[0x8100, 0xa000]], 12, true),
        (&[[0x88a8, 10], [0x8100, 0xe000]], 16, true),
        // A customer's VLAN inside: another broadcast domain, in which the same addresses may be used.
        (&[[0x8100, 10]], 12, false),
        (&[[0x88a8, 10], [0x8100, 20]], 16, false),
        (&[[0x8100, 0], [0x8100, 0]], 12, false),
    ] {
        let frame = ethernet(tags, EtherType::ARP, &question);
        let reply = answer(&one(), &frame, type_at);
        assert_eq!(reply.is_some(), answered, "{tags:x?}");
        assert_eq!(concerns(&frame, type_at), answered, "{tags:x?}");
        if let Some(reply) = reply {
            assert_eq!(reply[12..frame.len() - 28], frame[12..frame.len() - 28], "{tags:x?}");
            assert_eq!(reply.len(), frame.len());
        }
    }
    let tags = [[0x88a8, 10], [0x8100, 0xe000]];
    let longest = ethernet(&tags, EtherType::IPV6, &solicitation()[14..]);
    assert_eq!(answer(&one(), &longest, 16).unwrap().len(), MAX_ANSWER);
}

#[test]
fn what_is_no_question_for_a_neighbour_passes() {
    let neighbours = one();
    let nowhere = Ipv4Addr::UNSPECIFIED;
    let nd = |source, target| six(&nd_packet(SOLICITATION, 0, (source, GROUP), target, None));
    for (what, frame) in [
        // RFC 5227 §2.1.1: "The 'sender IP address' field MUST be set to all zeroes".
        ("an ARP probe", arp(REQUEST, asker(), nowhere, IP)),
        // RFC 5227 §2.3: "the sender and target IP addresses are both set to the host's newly selected IPv4 address".
        ("an ARP announcement", arp(REQUEST, asker(), IP, IP)),
        ("an ARP reply", arp(REPLY, asker(), ASKER, IP)),
        ("an inverse ARP request", arp(8, asker(), ASKER, IP)),
        ("a request for somebody else", arp(REQUEST, asker(), ASKER, Ipv4Addr::new(198, 51, 100, 8))),
        ("a request from a group", arp(REQUEST, asker(), Ipv4Addr::new(224, 0, 0, 1), IP)),
        ("a request by the neighbour", arp(REQUEST, MAC, ASKER, IP)),
        ("a request by nobody", arp(REQUEST, MacAddr::ZERO, ASKER, IP)),
        // RFC 4862 §5.4.2: "the IP source is set to the unspecified address".
        ("a search for duplicates", nd(Ipv6Addr::UNSPECIFIED, IP6)),
        ("a solicitation for its own source", nd(IP6, IP6)),
        ("a solicitation for somebody else", nd(ASKER6, Ipv6Addr::LOCALHOST)),
        ("an advertisement", advertisement(SOLICITED, MAC)),
        ("an echo request", six(&sample::ipv6(58, &[128, 0, 0, 0, 0, 0, 0, 0]))),
        ("an IPv4 packet", ethernet(&[], EtherType::IPV4, &sample::ipv4(58, &solicitation()[54..]))),
        ("reverse ARP", ethernet(&[], EtherType(0x8035), &arp_message(REQUEST, asker(), ASKER, IP))),
    ] {
        assert_eq!(answer(&neighbours, &frame, 12), None, "{what}");
    }
    let mut by_neighbour = arp(REQUEST, asker(), ASKER, IP);
    by_neighbour[6..12].copy_from_slice(&MAC.octets());
    assert_eq!(answer(&neighbours, &by_neighbour, 12), None, "from the neighbour's port");
    let question = arp(REQUEST, asker(), ASKER, IP);
    assert_eq!(neighbours.answer(10, &question, 12, &mut [0; MAX_ANSWER]), None, "in another VLAN");
    assert_eq!(neighbours.answer(0, &question, 12, &mut [0; 41]), None, "without room for it");
    assert_eq!(Neighbours::new().answer(0, &question, 12, &mut [0; MAX_ANSWER]), None, "without neighbours");
}

#[test]
fn a_malformed_question_is_not_answered_and_nothing_is_learned_from_it() {
    let neighbours = one();
    neighbours.set_snooping(true);
    let check = |what: &str, frame: &[u8]| {
        assert_eq!(answer(&neighbours, frame, 12), None, "{what}");
        assert_eq!(neighbours.snoop(0, frame, 12, secs(2)), Snoop::Nothing, "{what}");
    };
    let good = arp(REQUEST, asker(), ASKER, IP);
    for (what, at, octet) in [
        ("hardware type", 15, 6),
        ("protocol type", 16, 0x86),
        ("hardware length", 18, 8),
        ("protocol length", 19, 16),
    ] {
        let mut bad = good.clone();
        bad[at] = octet;
        check(what, &bad);
    }
    for len in 0..good.len() {
        check("a truncated request", &good[..len]);
    }

    let good = solicitation();
    for len in 0..good.len() {
        check("a truncated solicitation", &good[..len]);
    }
    // Each with a checksum that is right, so that nothing else is wrong.
    type Change = fn(&mut Vec<u8>);
    for (what, change) in [
        // RFC 4861 §7.1.1: "A node MUST silently discard any received Neighbor Solicitation messages that do not satisfy all".
        ("a hop limit of 254", (|packet| packet[7] = 254) as Change),
        ("a code", |packet| packet[41] = 1),
        ("a target that is a group", |packet| packet[48] = 0xff),
        ("an option without length", |packet| packet[65] = 0),
        ("an option beyond the packet", |packet| packet[65] = 2),
        ("half an option", |packet| {
            packet.truncate(68);
            packet[5] = 28;
        }),
        ("20 octets", |packet| {
            packet.truncate(60);
            packet[5] = 20;
        }),
        ("IPv4's version", |packet| packet[0] = 0x40),
        ("another protocol", |packet| packet[6] = 17),
    ] {
        let mut packet = good[14..].to_vec();
        change(&mut packet);
        finish(&mut packet);
        check(what, &six(&packet));
    }
    let mut packet = good[14..].to_vec();
    packet[43] ^= 1;
    check("a wrong checksum", &six(&packet));
    // RFC 4861 §7.1.2.
    let to_all = nd_packet(ADVERTISEMENT, SOLICITED, (IP6, GROUP), IP6, Some((TARGET_MAC, MAC)));
    check("an advertisement to a group that says it was solicited", &six(&to_all));
    for type_at in [good.len() - 1, good.len(), usize::MAX] {
        assert_eq!(answer(&neighbours, &good, type_at), None);
        assert!(!concerns(&good, type_at));
    }
    assert_eq!(neighbours.len(), 2);
}

#[test]
fn messages_that_this_is_about_are_told_by_type_and_protocol() {
    assert!(concerns(&arp(REPLY, asker(), ASKER, IP), 12));
    assert!(concerns(&solicitation(), 12) && concerns(&advertisement(0, MAC), 12));
    assert!(!concerns(&six(&sample::ipv6(58, &[134, 0, 0, 0])), 12), "a router advertisement");
    assert!(!concerns(&six(&sample::ipv6(17, &[135, 0, 0, 0])), 12), "a datagram");
    assert!(!concerns(&six(&sample::ipv6(58, &[])), 12), "no message");
    assert!(!concerns(&ethernet(&[], EtherType::IPV4, &sample::ipv4(6, &[])), 12));
}

#[test]
fn an_advertisement_clears_the_router_flag_only_of_whom_it_heard_to_be_no_router() {
    let flags = |neighbours: &Neighbours| answer(neighbours, &solicitation(), 12).unwrap()[58];
    let neighbours = one();
    assert_eq!(flags(&neighbours), ROUTER | SOLICITED | OVERRIDE, "nothing is known");
    neighbours.set_snooping(true);
    assert_eq!(neighbours.snoop(0, &advertisement(SOLICITED, MAC), 12, secs(2)), Snoop::Known);
    assert_eq!(flags(&neighbours), SOLICITED | OVERRIDE, "it says that it is none");
    let asks = six(&nd_packet(SOLICITATION, 0, (IP6, GROUP), ASKER6, Some((SOURCE_MAC, MAC))));
    assert_eq!(neighbours.snoop(0, &asks, 12, secs(2)), Snoop::Known);
    assert_eq!(flags(&neighbours), SOLICITED | OVERRIDE, "a solicitation does not say");
    assert_eq!(neighbours.snoop(0, &advertisement(ROUTER, MAC), 12, secs(2)), Snoop::Known);
    assert_eq!(flags(&neighbours), ROUTER | SOLICITED | OVERRIDE, "it has become one");
}

#[test]
fn senders_and_advertised_targets_are_learned() {
    let solicits = six(&nd_packet(SOLICITATION, 0, (IP6, GROUP), ASKER6, Some((SOURCE_MAC, MAC))));
    for (what, frame, ip) in [
        ("a request", arp(REQUEST, MAC, IP, ASKER), IpAddr::from(IP)),
        ("a reply", arp(REPLY, MAC, IP, ASKER), IP.into()),
        ("an announcement", arp(REQUEST, MAC, IP, IP), IP.into()),
        ("an announcement by reply", arp(REPLY, MAC, IP, IP), IP.into()),
        ("a solicitation", solicits, IP6.into()),
        ("a solicited advertisement", advertisement(SOLICITED, MAC), IP6.into()),
        ("an unsolicited advertisement", advertisement(OVERRIDE, MAC), IP6.into()),
    ] {
        let neighbours = snooping();
        assert_eq!(neighbours.snoop(10, &frame, 12, secs(5)), Snoop::New, "{what}");
        let expected = Neighbour { vlan: 10, ip, mac: MAC, kind: NeighbourKind::Snooped, stamp_secs: 5 };
        assert_eq!(neighbours.list(), [expected], "{what}");
        assert_eq!(neighbours.snoop(10, &frame, 12, secs(8)), Snoop::Known, "{what}");
        assert_eq!(neighbours.list(), [Neighbour { stamp_secs: 8, ..expected }], "{what}");
    }
}

#[test]
fn what_no_station_can_have_is_not_learned() {
    let group = MacAddr::from_octets([3, 0, 0, 0, 0, 7]);
    let neighbours = snooping();
    let nd = |source, option| six(&nd_packet(SOLICITATION, 0, (source, GROUP), ASKER6, option));
    for (what, frame) in [
        ("a group's MAC address", arp(REPLY, group, IP, ASKER)),
        ("broadcast", arp(REPLY, MacAddr::BROADCAST, IP, ASKER)),
        ("zero", arp(REPLY, MacAddr::ZERO, IP, ASKER)),
        ("an ARP probe", arp(REQUEST, MAC, Ipv4Addr::UNSPECIFIED, IP)),
        ("a multicast address", arp(REPLY, MAC, Ipv4Addr::new(239, 0, 0, 1), ASKER)),
        ("the broadcast address", arp(REPLY, MAC, Ipv4Addr::BROADCAST, ASKER)),
        ("a loopback address", arp(REPLY, MAC, Ipv4Addr::LOCALHOST, ASKER)),
        ("a search for duplicates", nd(Ipv6Addr::UNSPECIFIED, Some((SOURCE_MAC, MAC)))),
        ("a solicitation without option", nd(IP6, None)),
        ("a solicitation with the other option", nd(IP6, Some((TARGET_MAC, MAC)))),
        ("a group's MAC address in an option", nd(IP6, Some((SOURCE_MAC, group)))),
        (
            "an advertisement without option",
            six(&nd_packet(ADVERTISEMENT, OVERRIDE, (IP6, ASKER6), IP6, None)),
        ),
    ] {
        assert_eq!(neighbours.snoop(0, &frame, 12, secs(1)), Snoop::Nothing, "{what}");
    }
    assert!(neighbours.is_empty());
}

#[test]
fn a_snooped_neighbour_moves_with_its_latest_claim_and_a_static_one_does_not() {
    let neighbours = snooping();
    assert_eq!(neighbours.snoop(0, &arp(REPLY, MAC, IP, ASKER), 12, secs(1)), Snoop::New);
    let moved = neighbours.snoop(0, &arp(REPLY, OTHER_MAC, IP, ASKER), 12, secs(2));
    assert_eq!(moved, Snoop::Moved { from: MAC });
    let listed = neighbours.list()[0];
    assert_eq!((listed.mac, listed.stamp_secs), (OTHER_MAC, 2));

    let was = neighbours.insert_static(0, IP.into(), MAC, secs(3)).unwrap();
    assert_eq!(was.map(|was| (was.mac, was.kind)), Some((OTHER_MAC, NeighbourKind::Snooped)));
    let refused = neighbours.snoop(0, &arp(REPLY, OTHER_MAC, IP, ASKER), 12, secs(4));
    assert_eq!(refused, Snoop::Refused(SnoopRefusal::Static));
    assert_eq!(neighbours.snoop(0, &arp(REPLY, MAC, IP, ASKER), 12, secs(5)), Snoop::Known);
    let expected = Neighbour { vlan: 0, ip: IP.into(), mac: MAC, kind: NeighbourKind::Static, stamp_secs: 5 };
    assert_eq!(neighbours.list(), [expected]);
    assert_eq!(neighbours.remove(0, IP.into()), Some(expected));
    assert_eq!(neighbours.remove(0, IP.into()), None);
}

#[test]
fn an_advertisement_that_is_not_to_override_changes_nothing_that_is_known() {
    let neighbours = snooping();
    assert_eq!(neighbours.snoop(0, &advertisement(0, MAC), 12, secs(1)), Snoop::New);
    let refused = neighbours.snoop(0, &advertisement(0, OTHER_MAC), 12, secs(2));
    assert_eq!(refused, Snoop::Refused(SnoopRefusal::NoOverride));
    let moved = neighbours.snoop(0, &advertisement(OVERRIDE, OTHER_MAC), 12, secs(2));
    assert_eq!(moved, Snoop::Moved { from: MAC });
}

#[test]
fn the_operator_cannot_set_what_no_station_has() {
    let neighbours = Neighbours::new();
    for ip in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"] {
        let ip = ip.parse().unwrap();
        assert_eq!(neighbours.insert_static(0, ip, MAC, secs(1)), Err(NeighbourError::Ip(ip)));
    }
    for mac in [MacAddr::ZERO, MacAddr::BROADCAST] {
        assert_eq!(neighbours.insert_static(0, IP.into(), mac, secs(1)), Err(NeighbourError::Mac(mac)));
    }
    assert!(!neighbours.active());
}

#[test]
fn a_bridge_is_active_while_it_has_neighbours_or_snoops() {
    let neighbours = Neighbours::new();
    assert!(!neighbours.active() && !neighbours.snoops() && neighbours.is_empty());
    let heard = arp(REPLY, OTHER_MAC, ASKER, IP);
    assert_eq!(neighbours.snoop(0, &heard, 12, secs(1)), Snoop::Nothing, "snooping is off");
    assert!(!neighbours.active());
    neighbours.insert_static(0, IP.into(), MAC, secs(1)).unwrap();
    assert!(neighbours.active() && !neighbours.snoops() && neighbours.len() == 1);
    assert_eq!(neighbours.set_snooping(true), 0);
    neighbours.snoop(0, &heard, 12, secs(1));
    assert_eq!((neighbours.len(), neighbours.set_snooping(false)), (2, 1), "what was learned is forgotten");
    assert!(neighbours.active() && neighbours.list()[0].kind == NeighbourKind::Static);
    neighbours.remove(0, IP.into());
    assert!(!neighbours.active());
}

#[test]
fn snooped_neighbours_age_out_after_more_than_the_ageing_time_and_static_ones_never() {
    let neighbours = one();
    neighbours.set_snooping(true);
    for (last, heard) in [(1, 100), (2, 110), (3, 120)] {
        let ip = Ipv4Addr::new(203, 0, 113, last);
        assert_eq!(neighbours.snoop(0, &arp(REPLY, OTHER_MAC, ip, IP), 12, secs(heard)), Snoop::New);
    }
    let ageing = Duration::from_secs(60);
    assert_eq!(neighbours.sweep(secs(160), ageing), 0);
    assert_eq!(neighbours.sweep(secs(161), ageing), 1);
    assert_eq!(neighbours.sweep(secs(90), ageing), 0, "a tick before the stamps is no age");
    assert_eq!(neighbours.sweep(secs(1_000_000), Duration::MAX), 0);
    assert_eq!((neighbours.sweep(secs(120), Duration::ZERO), neighbours.len()), (2, 2));
    assert_eq!(neighbours.sweep(secs(1_000_000), ageing), 0);
}

#[test]
fn neighbours_are_listed_by_vlan_and_address() {
    let neighbours = Neighbours::new();
    for (vlan, ip) in [(20, "198.51.100.9"), (0, "2001:db8::1"), (20, "198.51.100.10"), (0, "203.0.113.1")] {
        neighbours.insert_static(vlan, ip.parse().unwrap(), MAC, secs(1)).unwrap();
    }
    let listed: Vec<_> = neighbours.list().iter().map(|n| format!("{} {}", n.vlan, n.ip)).collect();
    assert_eq!(listed, ["0 203.0.113.1", "0 2001:db8::1", "20 198.51.100.9", "20 198.51.100.10"]);
}

fn numbered(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0001 + n)
}

#[test]
fn a_full_table_refuses_what_it_hears_and_makes_room_for_the_operator() {
    let neighbours = snooping();
    for n in 0..LIMIT as u32 {
        // The first to be heard is the last by address.
        let frame = arp(REPLY, MAC, numbered(n), ASKER);
        assert_eq!(neighbours.snoop(0, &frame, 12, secs(u64::from(LIMIT as u32 - n))), Snoop::New);
    }
    let frame = arp(REPLY, MAC, IP, ASKER);
    assert_eq!(neighbours.snoop(0, &frame, 12, secs(9999)), Snoop::Refused(SnoopRefusal::Full));
    let known = arp(REPLY, OTHER_MAC, numbered(0), ASKER);
    assert_eq!(
        neighbours.snoop(0, &known, 12, secs(9999)),
        Snoop::Moved { from: MAC },
        "known ones may move"
    );

    assert_eq!(neighbours.insert_static(0, IP.into(), MAC, secs(9999)), Ok(None));
    assert_eq!(neighbours.len(), LIMIT);
    let oldest = numbered(LIMIT as u32 - 1);
    assert_eq!(neighbours.remove(0, oldest.into()), None, "it has made room");

    for n in 0..LIMIT as u32 - 1 {
        assert!(neighbours.insert_static(0, numbered(n).into(), MAC, secs(9999)).is_ok());
    }
    assert_eq!(neighbours.insert_static(0, oldest.into(), MAC, secs(9999)), Err(NeighbourError::Full));
    assert_eq!(neighbours.len(), LIMIT);
    assert!(
        neighbours.insert_static(0, IP.into(), OTHER_MAC, secs(9999)).is_ok(),
        "one that is there may change"
    );
}

#[test]
fn whatever_comes_and_goes_the_table_takes_no_more_memory() {
    let neighbours = snooping();
    let taken = neighbours.read().allocation_size();
    for n in 0..6 * LIMIT as u32 {
        // Full from the first round on, with one leaving for each that comes.
        if let Some(oldest) = n.checked_sub(LIMIT as u32) {
            assert!(neighbours.remove(0, numbered(oldest).into()).is_some());
        }
        let frame = arp(REPLY, MAC, numbered(n), ASKER);
        assert_eq!(neighbours.snoop(0, &frame, 12, secs(1)), Snoop::New);
    }
    assert_eq!(neighbours.read().allocation_size(), taken);
    assert!(taken < 1_400_000, "{taken} octets");
}

#[test]
fn workers_that_hear_at_once_agree() {
    let neighbours = snooping();
    std::thread::scope(|scope| {
        for worker in 0..4u32 {
            let neighbours = &neighbours;
            scope.spawn(move || {
                for n in 0..500 {
                    let frame = arp(REPLY, MAC, numbered(n), ASKER);
                    let snoop = neighbours.snoop(0, &frame, 12, secs(u64::from(worker + n)));
                    assert!(matches!(snoop, Snoop::New | Snoop::Known));
                }
            });
        }
    });
    assert_eq!((neighbours.len(), neighbours.list().len()), (500, 500));
}

/// A frame from its start, with a message of one kind in it, some of whose octets may have been changed.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![
        Just(arp(REQUEST, asker(), ASKER, IP)),
        Just(solicitation()),
        Just(advertisement(OVERRIDE, MAC)),
        prop::collection::vec(any::<u8>(), 0..120),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (kinds, changes, any::<bool>()).prop_map(|(mut frame, changes, finished)| {
        for (at, octet) in changes {
            if !frame.is_empty() {
                let at = at.index(frame.len());
                frame[at] = octet;
            }
        }
        if finished && frame.len() >= 62 {
            finish(&mut frame[14..]);
        }
        frame
    })
}

proptest! {
    #[test]
    fn no_octets_make_it_panic_and_every_answer_is_a_message_to_the_asker(
        frame in any_message(), type_at in prop_oneof![9 => Just(12usize), 1 => 0..100usize], room in 0..=MAX_ANSWER,
    ) {
        let neighbours = one();
        neighbours.set_snooping(true);
        let mut reply = [0; MAX_ANSWER];
        if let Some(Answer { len, mac }) = neighbours.answer(0, &frame, type_at, &mut reply) {
            prop_assert!(concerns(&frame, type_at), "what is answered passes the cheap test");
            prop_assert_eq!((&reply[..6], &reply[6..12]), (&frame[6..12], &mac.octets()[..]));
            let parsed = SlicedPacket::from_ethernet(&reply[..len]).unwrap();
            match parsed.net {
                Some(NetSlice::Arp(arp)) => {
                    let arp = arp.to_packet().try_eth_ipv4().unwrap();
                    prop_assert_eq!(arp.operation.0, u16::from(REPLY));
                    prop_assert_eq!((arp.sender_mac, arp.sender_ipv4), (mac.octets(), IP.octets()));
                }
                Some(NetSlice::Ipv6(six)) => {
                    let Some(TransportSlice::Icmpv6(message)) = parsed.transport else { panic!("ICMPv6") };
                    prop_assert!(message.is_checksum_valid(
                        six.header().source(), six.header().destination()));
                    prop_assert!(matches!(message.icmp_type(), Icmpv6Type::NeighborAdvertisement(_)));
                    prop_assert_eq!(six.header().source_addr(), IP6);
                    prop_assert_eq!(six.header().hop_limit(), 255);
                }
                other => panic!("{other:?}"),
            }
        }
        neighbours.answer(0, &frame, type_at, &mut reply[..room]);
        if neighbours.snoop(0, &frame, type_at, secs(1)) != Snoop::Nothing {
            prop_assert!(concerns(&frame, type_at), "what is learned from passes the cheap test");
        }
        prop_assert!(neighbours.list().iter().all(|n| n.mac.is_station() && is_station(n.ip)));
    }
}
