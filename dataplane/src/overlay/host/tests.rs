//! What the host answers, octet by octet where it is short; what it learns; what it stays silent about.

use std::time::Duration;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::wire::sample;

const MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 2]);
const GATEWAY_MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 1]); // that of every sample
const OTHER_MAC: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 9]);

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, last).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
}

fn host() -> Host {
    Host::new("198.51.100.2/24".parse().unwrap(), MAC, Some(v4(1)), GATEWAY_MAC)
}

fn host6() -> Host {
    Host::new("2001:db8::2/64".parse().unwrap(), MAC, Some(v6(1)), GATEWAY_MAC)
}

fn at(secs: u64) -> Tick {
    Tick::from_secs(secs)
}

/// What the host makes of a frame, and its answer.
fn handle(host: &Host, frame: &[u8]) -> (Handled, Vec<u8>) {
    let mut reply = vec![0xee; 70_000];
    let handled = host.handle(frame, at(0), &mut reply);
    reply.truncate(if let Handled::Answer(len) = handled { len } else { 0 });
    (handled, reply)
}

fn arp(operation: u8, sender_mac: MacAddr, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let message = [&head[..], &sender_mac.octets(), &sender, &[0; 6], &target].concat();
    sample::ethernet(&[], EtherType::ARP, &message)
}

/// An ICMP message to the host from the station 77 (0x4d) of its prefix.
fn icmp(six: bool, header: [u8; 8], payload: &[u8]) -> Vec<u8> {
    let mut message = [&header[..], payload].concat();
    let sum_to = |message: &mut Vec<u8>, pseudo: &[u8]| {
        let sum = !sample::naive_sum(&[pseudo, message].concat());
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    };
    if six {
        let mut packet = sample::ipv6(ICMPV6, &message);
        packet[23] = 0x4d;
        packet[39] = 2;
        let length = (message.len() as u32).to_be_bytes();
        sum_to(&mut message, &[&packet[8..40], &length, &[0, 0, 0, ICMPV6]].concat());
        packet[40..].copy_from_slice(&message);
        return sample::ethernet(&[], EtherType::IPV6, &packet);
    }
    sum_to(&mut message, &[]);
    let mut packet = sample::ipv4(ICMP, &message);
    packet[15] = 77;
    packet[10..12].fill(0);
    let sum = !sample::naive_sum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    sample::ethernet(&[], EtherType::IPV4, &packet)
}

fn echo(six: bool, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    icmp(six, [if six { ECHO_REQUEST_V6 } else { ECHO }, 0, 0, 0, 0, 7, 0, 9], &payload)
}

#[test]
fn an_arp_request_for_the_address_is_answered_and_one_for_another_is_not() {
    let (handled, reply) = handle(&host(), &arp(1, GATEWAY_MAC, [198, 51, 100, 1], [198, 51, 100, 2]));
    assert_eq!(handled, Handled::Answer(42));
    assert_eq!(reply[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    assert_eq!(
        reply[12..],
        [
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..],
            &MAC.octets(),
            &[198, 51, 100, 2],
            &GATEWAY_MAC.octets(),
            &[198, 51, 100, 1]
        ]
        .concat()
    );
    assert_eq!(handle(&host(), &arp(1, OTHER_MAC, [198, 51, 100, 9], [198, 51, 100, 3])).0, Handled::Ignored);
    let probe = arp(1, OTHER_MAC, [0; 4], [198, 51, 100, 2]);
    assert_eq!(
        handle(&host(), &probe).0,
        Handled::Answer(42),
        "whoever wants the address is told that it is taken"
    );
}

#[test]
fn a_neighbour_solicitation_is_answered_to_its_sender_or_to_all_where_it_has_no_address() {
    let mut frame = [0; 128];
    let len = neighbour::question(v6(0x4d), GATEWAY_MAC, v6(2), None, &mut frame).unwrap();
    let (handled, reply) = handle(&host6(), &frame[..len]);
    assert_eq!(handled, Handled::Answer(86));
    let parsed = SlicedPacket::from_ethernet(&reply).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(message))) = (parsed.net, parsed.transport)
    else {
        panic!()
    };
    assert_eq!((IpAddr::V6(ip.header().destination_addr()), ip.header().hop_limit()), (v6(0x4d), 255));
    let Icmpv6Type::NeighborAdvertisement(said) = message.icmp_type() else { panic!() };
    assert!(said.solicited && said.r#override && !said.router);
    assert!(message.is_checksum_valid(ip.header().source(), ip.header().destination()));

    // A search for duplicates: from the unspecified address, without the option.
    let mut probe = frame[..len - 8].to_vec();
    probe[19] -= 8;
    probe[22..38].fill(0);
    probe[56..58].fill(0);
    let sum = !sample::naive_sum(&[&probe[22..54], &[0, 0, 0, 24, 0, 0, 0, 58], &probe[54..]].concat());
    probe[56..58].copy_from_slice(&sum.to_be_bytes());
    let (handled, reply) = handle(&host6(), &probe);
    assert_eq!(handled, Handled::Answer(86));
    assert_eq!(reply[38..54], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    assert_eq!(reply[58] & 0x40, 0, "nobody who could be named has solicited it");
}

#[test]
fn an_echo_of_any_size_is_answered_with_what_it_brought() {
    for len in [0, 1, 56, 1472, 60_001] {
        let request = echo(false, len);
        let (handled, reply) = handle(&host(), &request);
        assert_eq!(handled, Handled::Answer(request.len()), "{len} octets");
        let parsed = SlicedPacket::from_ethernet(&reply).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(message))) =
            (parsed.net, parsed.transport)
        else {
            panic!()
        };
        assert_eq!(
            (ip.header().source(), ip.header().destination()),
            ([198, 51, 100, 2], [198, 51, 100, 77])
        );
        assert_eq!(sample::naive_sum(ip.header().slice()), 0xffff);
        assert_eq!(sample::naive_sum(message.slice()), 0xffff);
        assert!(matches!(message.icmp_type(), Icmpv4Type::EchoReply(echo) if (echo.id, echo.seq) == (7, 9)));
        assert_eq!(message.payload(), &request[42..]);

        let request = echo(true, len);
        let (handled, reply) = handle(&host6(), &request);
        assert_eq!(handled, Handled::Answer(request.len()), "{len} octets");
        let parsed = SlicedPacket::from_ethernet(&reply).unwrap();
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(message))) =
            (parsed.net, parsed.transport)
        else {
            panic!()
        };
        assert!(message.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert!(matches!(message.icmp_type(), Icmpv6Type::EchoReply(echo) if (echo.id, echo.seq) == (7, 9)));
        assert_eq!(
            (message.payload(), IpAddr::V6(ip.header().destination_addr())),
            (&request[62..], v6(0x4d))
        );
    }
}

#[test]
fn an_echo_that_nobody_may_answer_is_ignored() {
    let spoilt = |at: usize, with: &[u8]| {
        let mut frame = echo(false, 20);
        frame[at..at + with.len()].copy_from_slice(with);
        // The IP header is in order again, so that the address alone is what is wrong.
        frame[24..26].fill(0);
        let sum = !sample::naive_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        handle(&host(), &frame).0
    };
    assert!(matches!(spoilt(15, &[0]), Handled::Answer(_)));
    for (why, handled) in [
        ("another destination", spoilt(33, &[3])),
        ("a broadcast", spoilt(30, &[255; 4])),
        ("from a group", spoilt(26, &[224, 0, 0, 1])),
        ("from nobody", spoilt(26, &[0; 4])),
        ("a wrong checksum", spoilt(50, &[0xee])),
        ("a fragment", spoilt(20, &[0x20])),
        ("a reply", spoilt(34, &[0])),
    ] {
        assert_eq!(handled, Handled::Ignored, "{why}");
    }
    let mut short = [0; 41];
    assert_eq!(
        host().handle(&echo(false, 20), at(0), &mut short),
        Handled::Ignored,
        "no room for the answer"
    );
}

#[test]
fn a_remote_in_the_prefix_is_its_own_next_hop_and_any_other_has_the_gateway() {
    let host = host();
    let (gateway, near) = (host.next_hop("203.0.113.7".parse().unwrap()), host.next_hop(v4(50)));
    assert!(Arc::ptr_eq(&gateway, &host.next_hop("203.0.113.8".parse().unwrap())));
    assert_eq!((gateway.ip(), near.ip()), (Some(v4(1)), Some(v4(50))));
    drop(near);
    host.prune();
    assert_eq!(host.hops().len(), 1, "nobody knows the neighbour any more; the gateway stays");

    let alone = Host::new("198.51.100.2/32".parse().unwrap(), MAC, None, OTHER_MAC);
    assert_eq!(alone.next_hop(v4(50)).mac(at(0)), Ok(OTHER_MAC), "the interface routes");
    alone.due(at(0), |_| panic!("nobody to ask"));
    // The interface has another MAC address now, which its host's questions tell.
    assert_eq!(
        handle(&alone, &arp(1, GATEWAY_MAC, [203, 0, 113, 1], [198, 51, 100, 2])).0,
        Handled::Answer(42)
    );
    assert_eq!(alone.next_hop(v4(50)).mac(at(0)), Ok(GATEWAY_MAC));
}

#[test]
fn a_next_hop_is_asked_for_and_its_answer_believed() {
    let host = host();
    let gateway = host.next_hop("203.0.113.7".parse().unwrap());
    let mut asked = Vec::new();
    host.due(at(0), |frame| asked.push(frame.to_vec()));
    host.due(at(0), |_| panic!("not twice"));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0][..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 2, 8, 6]);
    assert_eq!(asked[0][38..42], [198, 51, 100, 1]);
    assert_eq!(gateway.mac(at(0)), Ok(GATEWAY_MAC), "the other end was set up as the gateway");
    let answer = arp(2, OTHER_MAC, [198, 51, 100, 1], [198, 51, 100, 2]);
    assert_eq!(handle(&host, &answer).0, Handled::Learned);
    assert_eq!(gateway.mac(at(0)), Ok(OTHER_MAC), "who answers is believed");
    let answer = arp(2, GATEWAY_MAC, [198, 51, 100, 1], [198, 51, 100, 2]);
    assert_eq!(handle(&host, &answer).0, Handled::Learned);
    assert_eq!(gateway.mac(at(0)), Ok(GATEWAY_MAC));
    let other = arp(2, OTHER_MAC, [198, 51, 100, 2], [198, 51, 100, 1]);
    assert_eq!(handle(&host, &other).0, Handled::Ignored, "somebody else with our address");
    // Also by a question of its own.
    let question = arp(1, OTHER_MAC, [198, 51, 100, 1], [198, 51, 100, 2]);
    assert_eq!(handle(&host, &question).0, Handled::Answer(42));
    assert_eq!(gateway.mac(at(0)), Ok(OTHER_MAC));
    // Used and old: the neighbour itself is asked.
    assert!(gateway.mac(at(20)).is_ok());
    let mut frame = [0; 128];
    let len = host.ask(&gateway, at(0).after(Duration::from_secs(31)), &mut frame).unwrap();
    assert_eq!((len, &frame[..6]), (42, &OTHER_MAC.octets()[..]));
}

#[test]
fn a_next_hop_of_ipv6_is_asked_for_in_its_group() {
    let host = host6();
    let gateway = host.next_hop(v6(1));
    let mut asked = Vec::new();
    host.due(at(0), |frame| asked.push(frame.to_vec()));
    assert_eq!(asked[0][..6], [0x33, 0x33, 0xff, 0, 0, 1]);
    assert_eq!(asked[0][38..54], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1).octets());
    // The gateway's kernel is another host of ours: its answer to the question is what we would answer.
    let other = Host::new("2001:db8::1/64".parse().unwrap(), OTHER_MAC, None, MAC);
    let (handled, answer) = handle(&other, &asked[0]);
    assert_eq!(handled, Handled::Answer(86));
    assert_eq!(handle(&host, &answer).0, Handled::Learned);
    assert_eq!(gateway.mac(at(0)), Ok(OTHER_MAC));
}

/// "Fragmentation needed" or "packet too big" with this MTU, from a router, about a UDP packet of ours to the remote.
fn too_long(six: bool, mtu: u32, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let udp = sample::udp(50_000, 4789, &[1; 20]);
    let [m0, m1, m2, m3] = mtu.to_be_bytes();
    if six {
        let mut quoted = sample::ipv6(UDP, &udp);
        quoted[23] = 2;
        quoted[39] = 0x99;
        change(&mut quoted);
        return icmp(true, [PACKET_TOO_BIG, 0, 0, 0, m0, m1, m2, m3], &quoted);
    }
    let mut quoted = sample::ipv4(UDP, &udp);
    quoted[12..20].copy_from_slice(&[198, 51, 100, 2, 203, 0, 113, 9]);
    quoted[2..4].copy_from_slice(&1500u16.to_be_bytes());
    change(&mut quoted);
    icmp(false, [DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, m2, m3], &quoted)
}

#[test]
fn the_path_mtu_to_a_remote_is_heard_of() {
    let four = |mtu| handle(&host(), &too_long(false, mtu, |_| {})).0;
    let remote = "203.0.113.9".parse().unwrap();
    assert_eq!(four(1400), Handled::PathMtu { remote, mtu: 1400 });
    assert_eq!(
        four(0),
        Handled::PathMtu { remote, mtu: 1492 },
        "a router that does not say: the next plateau"
    );
    assert_eq!(four(67), Handled::Ignored);
    let six = |mtu| handle(&host6(), &too_long(true, mtu, |_| {})).0;
    assert_eq!(six(1400), Handled::PathMtu { remote: v6(0x99), mtu: 1400 });
    assert_eq!(six(1279), Handled::Ignored);
}

#[test]
fn a_path_mtu_of_packets_that_are_not_ours_is_ignored() {
    for (why, at, with) in [("from somebody else", 15, 3), ("not UDP", 9, 6)] {
        assert_eq!(
            handle(&host(), &too_long(false, 1400, |quoted| quoted[at] = with)).0,
            Handled::Ignored,
            "{why}"
        );
    }
    let cut = too_long(false, 1400, |quoted| quoted.truncate(19));
    assert_eq!(handle(&host(), &cut).0, Handled::Ignored);
}

proptest! {
    #[test]
    fn no_octets_make_it_panic_and_no_answer_is_longer_than_its_room(
        six: bool, kind in 0usize..4, changes in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4), cut: prop::sample::Index,
        room in 0usize..200,
    ) {
        let host = if six { host6() } else { host() };
        let mut question = [0; 128];
        let len = neighbour::question(v6(0x4d), OTHER_MAC, v6(2), None, &mut question).unwrap();
        let mut frame = match kind {
            0 => arp(1, OTHER_MAC, [198, 51, 100, 1], [198, 51, 100, 2]),
            1 => question[..len].to_vec(),
            2 => echo(six, 30),
            _ => too_long(six, 1400, |_| {}),
        };
        for (at, octet) in changes {
            let at = at.index(frame.len());
            frame[at] = octet;
        }
        frame.truncate(cut.index(frame.len() + 40).min(frame.len()));
        let mut reply = vec![0; room];
        if let Handled::Answer(len) = host.handle(&frame, at(0), &mut reply) {
            prop_assert!(len <= room);
        }
    }
}
