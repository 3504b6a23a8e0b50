use proptest::prelude::*;
use smoltcp::wire as oracle;

use super::*;
use crate::{
    overlay::ecn,
    wire::{
        Geneve, GeneveOption, Vxlan, geneve,
        sample::{self, ext},
        vxlan::{self, Gbp, Reserved, Rules},
    },
};

const SOURCE: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 1]);
const DESTINATION: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 2]);
const V4: Addresses =
    Addresses::V4 { source: Ipv4Addr::new(198, 51, 100, 1), destination: Ipv4Addr::new(203, 0, 113, 2) };
const V6: Addresses = Addresses::V6 {
    source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2),
};
/// EF and ECT(0), so that both parts of the traffic class are seen.
const FIELDS: Fields = Fields { source_port: 49152, tos: 0xba, ttl: 64, df: Df::Set };
/// A VXLAN header of VNI 22, and an odd number of octets behind it.
const PAYLOAD: &[u8] = b"\x08\0\0\0\0\0\x16\0inner";

fn outer(addresses: Addresses, port: u16) -> Outer {
    Outer::new(SOURCE, DESTINATION, addresses, port)
}

/// The whole packet.
fn packet(outer: &Outer, fields: &Fields, checksum: UdpChecksum<'_>, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xaa; MAX_LEN];
    let len = outer.write(fields, payload.len(), checksum, &mut frame).unwrap();
    assert!(frame[len..].iter().all(|&b| b == 0xaa), "written beyond its length");
    frame.truncate(len);
    frame.extend(payload);
    frame
}

fn complete(addresses: Addresses) -> Vec<u8> {
    packet(&outer(addresses, 4789), &FIELDS, UdpChecksum::Complete(&[PAYLOAD]), PAYLOAD)
}

#[test]
fn headers_over_ipv4_are_those_of_figure_1() {
    // RFC 7348 §5, figure 1.
    let headers = |checksum, fields| packet(&outer(V4, 4789), fields, checksum, PAYLOAD)[..42].to_vec();
    let mut expected = [
        &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00][..],
        &[0x45, 0xba, 0, 41, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 1, 203, 0, 113, 2],
        &[0xc0, 0x00, 0x12, 0xb5, 0, 21, 0, 0],
    ]
    .concat();
    expected[24..26].copy_from_slice(&[0xd3, 0xd2]);
    assert_eq!(headers(UdpChecksum::Zero, &FIELDS), expected);
    expected[40..42].copy_from_slice(&[0x66, 0x5e]);
    assert_eq!(headers(UdpChecksum::Partial, &FIELDS), expected);
    expected[40..42].copy_from_slice(&[0x5f, 0x02]);
    assert_eq!(headers(UdpChecksum::Complete(&[PAYLOAD]), &FIELDS), expected);
    let fields = Fields { tos: 0, ttl: 1, df: Df::Unset { id: 0xbeef }, ..FIELDS };
    expected[14..26].copy_from_slice(&[0x45, 0, 0, 41, 0xbe, 0xef, 0, 0, 1, 17, 0x94, 0x9d]);
    assert_eq!(headers(UdpChecksum::Complete(&[PAYLOAD]), &fields), expected);
}

#[test]
fn headers_over_ipv6_are_those_of_figure_2() {
    // RFC 7348 §5, figure 2, with the port of Geneve.
    let headers = |checksum| packet(&outer(V6, 6081), &FIELDS, checksum, PAYLOAD)[..62].to_vec();
    let mut expected = [
        &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd][..],
        &[0x6b, 0xa0, 0, 0, 0, 21, 17, 64],
        &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
        &[0xc0, 0x00, 0x17, 0xc1, 0, 21, 0, 0],
    ]
    .concat();
    assert_eq!(headers(UdpChecksum::Zero), expected);
    expected[60..62].copy_from_slice(&[0x5b, 0x9c]);
    assert_eq!(headers(UdpChecksum::Partial), expected);
    expected[60..62].copy_from_slice(&[0x64, 0xb8]);
    assert_eq!(headers(UdpChecksum::Complete(&[PAYLOAD])), expected);
}

/// What Linux 6.18 sent: `ping -s 4` through a vxlan device over IPv4, with a checksum, a group policy and the type of service inherited,
/// and through one over IPv6 that had no options but the last.
const LINUX: [&[u8]; 2] = [
    &[
        0x02, 0, 0, 0, 0, 0x0b, 0x02, 0, 0, 0, 0, 0x0a, 0x08, 0x00, 0x45, 0xba, //
        0x00, 0x52, 0x16, 0xbe, 0x00, 0x00, 0x09, 0x11, 0x45, 0xb9, 0xc6, 0x33, 0x64, 0x01, 0xc6,
        0x33, //
        0x64, 0x02, 0xcf, 0xab, 0x12, 0xb5, 0x00, 0x3e, 0x0a, 0x15, 0x88, 0x48, 0x12, 0x34, 0x00,
        0x00, //
        0x16, 0x00, 0x02, 0, 0, 0, 0x01, 0x0b, 0x02, 0, 0, 0, 0x01, 0x0a, 0x08, 0x00, //
        0x45, 0xba, 0x00, 0x20, 0x75, 0x8e, 0x40, 0x00, 0x40, 0x01, 0x4c, 0x90, 0xcb, 0x00, 0x71,
        0x01, //
        0xcb, 0x00, 0x71, 0x02, 0x08, 0x00, 0xf2, 0x89, 0x03, 0x71, 0x00, 0x01, 0x00, 0x01, 0x02, 0x03,
    ],
    &[
        0x02, 0, 0, 0, 0, 0x0b, 0x02, 0, 0, 0, 0, 0x0a, 0x86, 0xdd, 0x60, 0x10, //
        0x00, 0x00, 0x00, 0x3e, 0x11, 0x09, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0x01, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0x02, 0xc7, 0x39, 0x12, 0xb5, 0x00, 0x3e, 0xbf, 0xf5, 0x08, 0x00, //
        0x00, 0x00, 0x00, 0x03, 0xf2, 0x00, 0x02, 0, 0, 0, 0x02, 0x0b, 0x02, 0, 0, 0, //
        0x02, 0x0a, 0x08, 0x00, 0x45, 0x01, 0x00, 0x20, 0xf8, 0x07, 0x40, 0x00, 0x40, 0x01, 0xc9,
        0xcf, //
        0xcb, 0x00, 0x71, 0x81, 0xcb, 0x00, 0x71, 0x82, 0x08, 0x00, 0xf2, 0x7d, 0x03, 0x7d, 0x00,
        0x01, //
        0x00, 0x01, 0x02, 0x03,
    ],
];

#[test]
fn what_linux_sent_is_read_and_written_octet_by_octet() {
    let v4 =
        Addresses::V4 { source: Ipv4Addr::new(198, 51, 100, 1), destination: Ipv4Addr::new(198, 51, 100, 2) };
    let v6 = Addresses::V6 {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };
    let gbp = Some(Gbp { group: 0x1234, dont_learn: true, applied: true });
    for (sent, addresses, id, vni, gbp) in [(LINUX[0], v4, 0x16be, 22, gbp), (LINUX[1], v6, 0, 1010, None)] {
        let inbound = parse(sent, false).unwrap();
        assert!(inbound.has_checksum && verify(sent, &inbound));
        let (payload, rules) =
            (&sent[inbound.payload.clone()], Rules { reserved: Reserved::Refuse, gbp: true });
        let header = Vxlan::parse(payload, rules).unwrap();
        assert_eq!((header.vni.get(), header.gbp), (vni, gbp));
        let frame = &payload[vxlan::LEN..];
        let (tos, _) = ecn::of(frame).unwrap();

        let stations =
            [MacAddr::from_octets([2, 0, 0, 0, 0, 0x0a]), MacAddr::from_octets([2, 0, 0, 0, 0, 0x0b])];
        let outer = Outer::new(stations[0], stations[1], addresses, vxlan::PORT);
        let df = Df::Unset { id };
        let fields = Fields { source_port: inbound.source_port, tos, ttl: 9, df };
        let header = header.to_bytes();
        let mut written = [0; MAX_LEN];
        let checksum = UdpChecksum::Complete(&[&header, frame]);
        let len = outer.write(&fields, payload.len(), checksum, &mut written).unwrap();
        assert_eq!([&written[..len], &header, frame].concat(), sent);
    }
}

/// What Open vSwitch 3.1 sent from its userspace datapath, through a Geneve port with a checksum, two options and the type of service
/// inherited.
const OPEN_VSWITCH: &[u8] = &[
    0x02, 0, 0, 0, 0, 0x0b, 0x02, 0, 0, 0, 0, 0x0a, 0x08, 0x00, 0x45, 0xba, //
    0x00, 0x66, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xe5, 0x62, 0xc6, 0x33, 0x64, 0x01, 0xc6, 0x33, //
    0x64, 0x02, 0xe2, 0x52, 0x17, 0xc1, 0x00, 0x52, 0x31, 0xe6, 0x05, 0x40, 0x65, 0x58, 0x00, 0x0c, //
    0xe5, 0x00, 0x01, 0x02, 0x80, 0x01, 0x00, 0x00, 0x11, 0x11, 0xff, 0xff, 0x7f, 0x02, 0x01, 0x02, //
    0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x02, 0, 0, 0, 0x01, 0x0b, 0x02, 0, 0, 0, //
    0x01, 0x0a, 0x08, 0x00, 0x45, 0xba, 0x00, 0x20, 0x75, 0x8e, 0x40, 0x00, 0x40, 0x01, 0x4c, 0x90, //
    0xcb, 0x00, 0x71, 0x01, 0xcb, 0x00, 0x71, 0x02, 0x08, 0x00, 0xf2, 0x89, 0x03, 0x71, 0x00, 0x01, //
    0x00, 0x01, 0x02, 0x03,
];

#[test]
fn what_open_vswitch_sent_is_read_and_written_octet_by_octet() {
    let sent = OPEN_VSWITCH;
    let inbound = parse(sent, false).unwrap();
    assert!(inbound.has_checksum && verify(sent, &inbound));
    let payload = &sent[inbound.payload.clone()];
    assert_eq!(Geneve::parse(payload, &[]), Err(geneve::Invalid::CriticalOption));
    let header = Geneve::parse(payload, &[(0x0102, 0x80)]).unwrap();
    assert_eq!((header.vni.get(), header.critical), (3301, true));
    let options = ["0102:80:00001111", "ffff:7f:0102030405060708"]
        .map(|option| option.parse::<GeneveOption>().unwrap());
    assert_eq!(header.options, &*geneve::options(&options).unwrap());
    let frame = &payload[header.header_len..];
    let (tos, _) = ecn::of(frame).unwrap();

    let (IpAddr::V4(source), IpAddr::V4(destination)) = (inbound.source, inbound.destination) else {
        panic!("sent over IPv4")
    };
    let addresses = Addresses::V4 { source, destination };
    let stations = [MacAddr::from_octets([2, 0, 0, 0, 0, 0x0a]), MacAddr::from_octets([2, 0, 0, 0, 0, 0x0b])];
    let outer = Outer::new(stations[0], stations[1], addresses, geneve::PORT);
    let fields = Fields { source_port: inbound.source_port, tos, ttl: 64, df: Df::Set };
    let mut tunnel = [0; geneve::LEN + geneve::MAX_OPTIONS];
    let tunnel_len = Geneve::emit(header.vni, header.options, &mut tunnel).unwrap();
    let mut written = [0; MAX_LEN];
    let checksum = UdpChecksum::Complete(&[&tunnel[..tunnel_len], frame]);
    let len = outer.write(&fields, payload.len(), checksum, &mut written).unwrap();
    assert_eq!([&written[..len], &tunnel[..tunnel_len], frame].concat(), sent);
}

#[test]
fn a_checksum_of_zero_is_written_as_ones() {
    // RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
    let mut payload = PAYLOAD[..12].to_vec();
    let sum = |payload: &[u8]| {
        let frame = packet(&outer(V4, 4789), &FIELDS, UdpChecksum::Complete(&[payload]), payload);
        u16::from_be_bytes([frame[40], frame[41]])
    };
    payload[10..12].fill(0);
    let rest = sum(&payload);
    payload[10..12].copy_from_slice(&rest.to_be_bytes());
    assert_eq!(sum(&payload), 0xffff);
}

#[test]
fn a_super_frame_longer_than_its_length_fields_has_none() {
    for (addresses, l3, most) in [(V4, 16, 65507), (V6, 18, 65527)] {
        let outer = outer(addresses, 4789);
        assert_eq!(outer.max_payload(), most);
        let udp = outer.len() - 4;
        for (payload, field, udp_field) in [
            (most, 65535, 8 + most as u16),
            (most + 1, 0, (8 + most + 1).try_into().unwrap_or(0)),
            (70_000, 0, 0),
        ] {
            let payload = vec![7; payload];
            let frame = packet(&outer, &FIELDS, UdpChecksum::Partial, &payload);
            assert_eq!(be16(&frame, l3), Some(field), "IP length for {}", payload.len());
            assert_eq!(be16(&frame, udp), Some(udp_field), "UDP length for {}", payload.len());
            let inbound = parse(&frame, true).unwrap();
            assert_eq!(inbound.payload, outer.len()..frame.len());
            assert_eq!(parse(&frame, false).is_ok(), payload.len() <= most, "{}", payload.len());
            // The partial sum is over the true length: finishing it as one would a short packet's gives a checksum that holds.
            let mut whole = frame.clone();
            crate::offload::checksum::complete(&mut whole, outer.len() - 8, 6).unwrap();
            assert!(verify(&whole, &inbound));
        }
    }
}

#[test]
fn a_buffer_that_is_too_short_is_not_written_to() {
    for addresses in [V4, V6] {
        let outer = outer(addresses, 4789);
        for n in 0..outer.len() {
            let mut out = vec![0xaa; n];
            assert_eq!(outer.write(&FIELDS, 9, UdpChecksum::Zero, &mut out), None, "{n} octets");
            assert_eq!(out, vec![0xaa; n]);
        }
    }
}

#[test]
fn what_was_written_is_read() {
    for addresses in [V4, V6] {
        let (source, destination): (IpAddr, IpAddr) = match addresses {
            Addresses::V4 { source, destination } => (source.into(), destination.into()),
            Addresses::V6 { source, destination } => (source.into(), destination.into()),
        };
        let frame = complete(addresses);
        let inbound = parse(&frame, false).unwrap();
        assert_eq!(
            inbound,
            Inbound {
                source,
                destination,
                source_port: 49152,
                destination_port: 4789,
                tos: 0xba,
                ttl: 64,
                payload: frame.len() - PAYLOAD.len()..frame.len(),
                has_checksum: true,
            }
        );
        assert!(verify(&frame, &inbound));
    }
}

#[test]
fn a_packet_without_a_checksum_is_told_from_one_whose_checksum_is_wrong() {
    for addresses in [V4, V6] {
        let zero = packet(&outer(addresses, 4789), &FIELDS, UdpChecksum::Zero, PAYLOAD);
        let inbound = parse(&zero, false).unwrap();
        assert!(!inbound.has_checksum && verify(&zero, &inbound));
        let right = complete(addresses);
        let inbound = parse(&right, false).unwrap();
        for at in inbound.payload.start - 8..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            assert!(!verify(&wrong, &inbound), "octet {at}");
        }
        assert!(!verify(&right[..right.len() - 1], &inbound), "another frame");
        assert!(!verify(&right, &Inbound { payload: 3..9, ..inbound }));
    }
}

#[test]
fn padding_behind_the_packet_is_no_payload() {
    for addresses in [V4, V6] {
        let mut frame = complete(addresses);
        let end = frame.len();
        frame.extend([0; 7]);
        assert_eq!(parse(&frame, false).unwrap().payload.end, end);
        // "UDP length" below the IP length: what is behind it belongs to nobody.
        let udp = parse(&frame, false).unwrap().payload.start - 4;
        frame[udp + 1] -= 1;
        assert_eq!(parse(&frame, false).unwrap().payload.end, end - 1);
    }
}

#[test]
fn ipv4_options_and_ipv6_extension_headers_are_skipped() {
    let udp = sample::udp(49152, 4789, PAYLOAD);
    let four = sample::ethernet(&[], EtherType::IPV4, &sample::ipv4_with_options(17, &[1; 8], &udp));
    assert_eq!(parse(&four, false).unwrap().payload, 50..63);
    let chain = |next, first: &[u8]| {
        sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(next, &[first, &udp[..]].concat()))
    };
    assert_eq!(parse(&chain(60, &ext(17, 16)), false).unwrap().payload, 78..91);
    assert_eq!(parse(&chain(44, &[17, 0, 0, 1, 0, 0, 0, 9]), false), Err(Invalid::Fragment));
    assert_eq!(parse(&chain(44, &[17, 0, 0, 8, 0, 0, 0, 9]), false), Err(Invalid::Fragment));
    assert_eq!(parse(&chain(60, &ext(58, 8)), false), Err(Invalid::NotUdp));
    assert_eq!(parse(&chain(60, &[17, 9, 0, 0]), false), Err(Invalid::IpHeader));
}

#[test]
fn every_field_that_lies_has_its_own_reason() {
    let four = |change: &dyn Fn(&mut [u8])| {
        let mut frame = complete(V4);
        change(&mut frame[14..]);
        frame[24..26].fill(0);
        let sum = !sample::naive_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        parse(&frame, false)
    };
    let six = |change: &dyn Fn(&mut [u8])| {
        let mut frame = complete(V6);
        change(&mut frame[14..]);
        parse(&frame, false)
    };
    assert!(four(&|_| {}).is_ok() && six(&|_| {}).is_ok());
    for (why, got, expected) in [
        ("a header of 16 octets", four(&|p| p[0] = 0x44), Invalid::IpHeader),
        ("a header longer than the frame", four(&|p| p[0] = 0x4f), Invalid::Truncated),
        ("IPv6 under the type of IPv4", four(&|p| p[0] = 0x65), Invalid::IpHeader),
        ("a packet longer than the frame", four(&|p| p[3] += 1), Invalid::IpLength),
        ("a packet shorter than its header", four(&|p| p[3] = 19), Invalid::IpLength),
        ("a packet of no length", four(&|p| p[3] = 0), Invalid::IpLength),
        ("a packet shorter than the datagram", four(&|p| p[3] -= 1), Invalid::UdpLength),
        ("a packet that ends in the UDP header", four(&|p| p[3] = 27), Invalid::UdpLength),
        ("the first fragment", four(&|p| p[6] = 0x20), Invalid::Fragment),
        ("a later fragment", four(&|p| p[7] = 1), Invalid::Fragment),
        ("TCP", four(&|p| p[9] = 6), Invalid::NotUdp),
        ("a datagram longer than the packet", four(&|p| p[25] += 1), Invalid::UdpLength),
        ("a datagram shorter than its header", four(&|p| p[25] = 7), Invalid::UdpLength),
        ("IPv4 under the type of IPv6", six(&|p| p[0] = 0x45), Invalid::IpHeader),
        ("a packet longer than the frame", six(&|p| p[5] += 1), Invalid::IpLength),
        ("a packet of no length", six(&|p| p[5] = 0), Invalid::UdpLength),
        ("TCP", six(&|p| p[6] = 6), Invalid::NotUdp),
        ("a datagram longer than the packet", six(&|p| p[45] += 1), Invalid::UdpLength),
        ("a datagram of no length", six(&|p| p[45] = 0), Invalid::UdpLength),
    ] {
        assert_eq!(got, Err(expected), "{why}");
    }
    let mut frame = complete(V4);
    frame[25] ^= 1;
    assert_eq!(parse(&frame, false), Err(Invalid::Ipv4Checksum));
    for ethertype in [EtherType::ARP, EtherType::VLAN, EtherType(46)] {
        assert_eq!(parse(&sample::ethernet(&[], ethertype, &[0; 46]), false), Err(Invalid::NotUdp));
    }
    // The reserved bit of RFC 791 says nothing.
    assert!(four(&|p| p[6] = 0xc0).is_ok());
}

#[test]
fn every_prefix_of_a_packet_is_refused() {
    for addresses in [V4, V6] {
        let frame = complete(addresses);
        for n in 0..frame.len() {
            let got = parse(&frame[..n], false);
            assert!(matches!(got, Err(Invalid::Truncated | Invalid::IpLength)), "{n} octets: {got:?}");
            assert!(parse(&frame[..n], true).is_err(), "{n} octets: its lengths are no zeros");
        }
    }
}

/// Whether somebody else finds all lengths and checksums of a packet right.
fn holds(frame: &[u8], payload: &[u8]) -> bool {
    let packet = &frame[14..];
    let checksums = |source, destination, udp: &[u8]| {
        let udp = oracle::UdpPacket::new_checked(udp).unwrap();
        udp.payload() == payload && udp.verify_checksum(&source, &destination)
    };
    if packet[0] >> 4 == 4 {
        let ip = oracle::Ipv4Packet::new_checked(packet).unwrap();
        ip.verify_checksum() && checksums(ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
    } else {
        let ip = oracle::Ipv6Packet::new_checked(packet).unwrap();
        checksums(ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
    }
}

fn addresses() -> impl Strategy<Value = Addresses> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(source, destination)| Addresses::V4 { source, destination }),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(source, destination)| Addresses::V6 { source, destination }),
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    (any::<u16>(), any::<u8>(), any::<u8>(), any::<Option<u16>>()).prop_map(|(source_port, tos, ttl, id)| {
        Fields { source_port, tos, ttl, df: id.map_or(Df::Set, |id| Df::Unset { id }) }
    })
}

proptest! {
    #[test]
    fn every_packet_holds_and_is_read_back(
        addresses in addresses(), fields in fields(), port: u16,
        payload in prop::collection::vec(any::<u8>(), 0..300), cuts in any::<[prop::sample::Index; 2]>(),
    ) {
        let outer = outer(addresses, port);
        let mut cuts = cuts.map(|c| c.index(payload.len() + 1));
        cuts.sort_unstable();
        let slices = [&payload[..cuts[0]], &payload[cuts[0]..cuts[1]], &payload[cuts[1]..]];
        let frame = packet(&outer, &fields, UdpChecksum::Complete(&slices), &payload);
        prop_assert!(holds(&frame, &payload));
        let inbound = parse(&frame, false).unwrap();
        prop_assert!(inbound.has_checksum && verify(&frame, &inbound));
        prop_assert_eq!(
            (inbound.tos, inbound.ttl, inbound.source_port, inbound.destination_port, inbound.payload.clone()),
            (fields.tos, fields.ttl, fields.source_port, port, outer.len()..frame.len())
        );

        let mut partial = packet(&outer, &fields, UdpChecksum::Partial, &payload);
        crate::offload::checksum::complete(&mut partial, outer.len() - 8, 6).unwrap();
        prop_assert_eq!(&partial, &frame, "a partial checksum that is finished");

        let zero = packet(&outer, &fields, UdpChecksum::Zero, &payload);
        let at = outer.len() - 2;
        prop_assert_eq!((&zero[..at], &zero[at..at + 2]), (&frame[..at], &[0, 0][..]));
        prop_assert_eq!(parse(&zero, true).unwrap(), Inbound { has_checksum: false, ..inbound });
    }

    #[test]
    fn any_octets_are_read_or_refused(
        mut frame in prop::collection::vec(any::<u8>(), 0..120), six: bool, super_frame: bool, short: u8,
    ) {
        if frame.len() >= 62 {
            let head: &[u8] = if six { &[0x86, 0xdd, 0x60] } else { &[0x08, 0x00, 0x45] };
            frame[12..15].copy_from_slice(head);
            if six {
                frame[18..21].copy_from_slice(&[0, short & 0x7f, 17]);
            } else {
                frame[16..18].copy_from_slice(&[0, short & 0x7f]);
                frame[20..24].copy_from_slice(&[0x40, 0, 64, 17]);
                frame[24..26].fill(0);
                let sum = !sample::naive_sum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
        }
        if let Ok(inbound) = parse(&frame, super_frame) {
            prop_assert!(inbound.payload.start >= 42 && inbound.payload.start <= inbound.payload.end);
            prop_assert!(inbound.payload.end <= frame.len());
            prop_assert_eq!(inbound.source.is_ipv4(), inbound.destination.is_ipv4());
            verify(&frame, &inbound);
        }
    }
}
