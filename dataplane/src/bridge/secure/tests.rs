//! Each rule with the frame that keeps it and the frame that breaks it, and every way to hide the latter.

use proptest::prelude::*;

use super::*;
use crate::wire::sample::{self, SOURCE, ethernet, ext, ipv4, ipv6, udp};

const OWN_V4: [u8; 4] = [198, 51, 100, 1];
const OTHER_V4: [u8; 4] = [198, 51, 100, 9];
const OWN_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OTHER_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1];
const NOWHERE: [u8; 16] = [0; 16];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn secure() -> Secure {
    Secure { mac: MacAddr::from_octets(SOURCE), ips: [OWN_V4.into(), OWN_V6.into()].into() }
}

fn mac_only() -> Secure {
    Secure { ips: [].into(), ..secure() }
}

fn check(frame: &[u8]) -> Result<(), DropReason> {
    secure().check(frame, 12)
}

fn four(source: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(protocol, payload);
    packet[12..16].copy_from_slice(&source);
    ethernet(&[], EtherType::IPV4, &packet)
}

fn six(source: [u8; 16], next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ipv6(next_header, payload);
    packet[8..24].copy_from_slice(&source);
    ethernet(&[], EtherType::IPV6, &packet)
}

fn arp(operation: u8, sha: [u8; 6], spa: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, operation];
    message.extend(sha);
    message.extend(spa);
    message.extend([0; 6]);
    message.extend([198, 51, 100, 2]);
    ethernet(&[], EtherType::ARP, &message)
}

/// A neighbour solicitation or advertisement with one option.
fn nd(kind: u8, target: [u8; 16], option: u8, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    message.extend([option, 1]);
    message.extend(mac);
    message
}

/// The payload of the fragment at `offset_and_more`, as the field of the fragment header has it.
fn fragment(next_header: u8, offset_and_more: u16, payload: &[u8]) -> Vec<u8> {
    let [a, b] = offset_and_more.to_be_bytes();
    [&[next_header, 0, a, b, 0, 0, 0, 1], payload].concat()
}

#[test]
fn only_the_own_mac_address_comes_in() {
    let mut frame = four(OWN_V4, 6, &sample::tcp(1, 2, &[], b""));
    assert_eq!(check(&frame), Ok(()));
    frame[11] = 9;
    assert_eq!(check(&frame), Err(SecureMac));
    assert_eq!(check(&frame[..11]), Err(SecureMalformed));
}

#[test]
fn only_the_own_ip_addresses_come_in() {
    let tcp = sample::tcp(1, 2, &[], b"");
    for (what, frame, expected) in [
        ("own IPv4", four(OWN_V4, 6, &tcp), Ok(())),
        ("another IPv4", four(OTHER_V4, 6, &tcp), Err(SecureIp)),
        ("0.0.0.0", four([0; 4], 6, &tcp), Err(SecureIp)),
        ("0.0.0.0 as a DHCP client", four([0; 4], 17, &udp(68, 67, b"")), Ok(())),
        ("0.0.0.0 to another port", four([0; 4], 17, &udp(68, 69, b"")), Err(SecureIp)),
        ("another IPv4 as a DHCP client", four(OTHER_V4, 17, &udp(68, 67, b"")), Err(SecureIp)),
        ("own IPv6", six(OWN_V6, 6, &tcp), Ok(())),
        ("own link-local", six(LINK_LOCAL, 6, &tcp), Ok(())),
        ("another IPv6", six(OTHER_V6, 6, &tcp), Err(SecureIp)),
        ("::", six(NOWHERE, 6, &tcp), Err(SecureIp)),
        (":: as a listener", six(NOWHERE, 0, &[ext(58, 8), vec![143, 0, 0, 0, 0, 0, 0, 0]].concat()), Ok(())),
        (":: with an echo request", six(NOWHERE, 58, &[128, 0, 0, 0, 0, 0, 0, 0]), Err(SecureIp)),
    ] {
        assert_eq!(check(&frame), expected, "{what}");
        if expected == Err(SecureIp) {
            assert_eq!(mac_only().check(&frame, 12), Ok(()), "{what}, where addresses are not checked");
        }
    }
}

#[test]
fn an_arp_message_names_only_the_own_addresses() {
    const REQUEST: u8 = 1;
    const REPLY: u8 = 2;
    for (what, frame, expected) in [
        ("a request", arp(REQUEST, SOURCE, OWN_V4), Ok(())),
        ("a reply", arp(REPLY, SOURCE, OWN_V4), Ok(())),
        ("another's MAC address", arp(REPLY, OTHER_MAC, OWN_V4), Err(SecureArp)),
        ("another's IP address", arp(REPLY, SOURCE, OTHER_V4), Err(SecureArp)),
        ("another's IP address in a request", arp(REQUEST, SOURCE, OTHER_V4), Err(SecureArp)),
        ("a probe", arp(REQUEST, SOURCE, [0; 4]), Ok(())),
        ("a reply from nowhere", arp(REPLY, SOURCE, [0; 4]), Err(SecureArp)),
        ("a truncated one", arp(REQUEST, SOURCE, OWN_V4)[..41].to_vec(), Err(SecureMalformed)),
    ] {
        assert_eq!(check(&frame), expected, "{what}");
        let mut rarp = frame.clone();
        rarp[12..14].copy_from_slice(&RARP.0.to_be_bytes());
        assert_eq!(check(&rarp), expected, "{what}, in the reverse protocol");
    }
    assert_eq!(mac_only().check(&arp(REPLY, OTHER_MAC, OWN_V4), 12), Err(SecureArp));
    assert_eq!(mac_only().check(&arp(REPLY, SOURCE, OTHER_V4), 12), Ok(()));
    let mut other = arp(REQUEST, SOURCE, OWN_V4);
    other[18] = 8;
    assert_eq!(check(&other), Err(SecureMalformed), "addresses of another length");
}

#[test]
fn neighbour_discovery_names_only_the_own_addresses() {
    for (what, source, message, expected) in [
        ("a question", OWN_V6, nd(135, OTHER_V6, 1, SOURCE), Ok(())),
        ("a question with another's MAC address", OWN_V6, nd(135, OTHER_V6, 1, OTHER_MAC), Err(SecureNd)),
        ("an answer", OWN_V6, nd(136, OWN_V6, 2, SOURCE), Ok(())),
        ("an answer for the link-local address", LINK_LOCAL, nd(136, LINK_LOCAL, 2, SOURCE), Ok(())),
        ("an answer for another", OWN_V6, nd(136, OTHER_V6, 2, SOURCE), Err(SecureNd)),
        ("an answer with another's MAC address", OWN_V6, nd(136, OWN_V6, 2, OTHER_MAC), Err(SecureNd)),
        ("an answer from another", OTHER_V6, nd(136, OWN_V6, 2, SOURCE), Err(SecureIp)),
        ("an answer from nowhere", NOWHERE, nd(136, OWN_V6, 2, SOURCE), Err(SecureIp)),
        ("a search for duplicates", NOWHERE, nd(135, OWN_V6, 14, [0; 6]), Ok(())),
        ("a search for duplicates of another", NOWHERE, nd(135, OTHER_V6, 14, [0; 6]), Err(SecureNd)),
        ("a search for routers", NOWHERE, vec![133, 0, 0, 0, 0, 0, 0, 0], Ok(())),
        (
            "a search for routers with another's MAC address",
            OWN_V6,
            { [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &OTHER_MAC].concat() },
            Err(SecureNd),
        ),
        (
            "an option of no length",
            OWN_V6,
            [nd(135, OWN_V6, 1, SOURCE), vec![9, 0]].concat(),
            Err(SecureMalformed),
        ),
        (
            "an option beyond the end",
            OWN_V6,
            [nd(135, OWN_V6, 1, SOURCE), vec![9, 1]].concat(),
            Err(SecureMalformed),
        ),
        ("half an option", OWN_V6, [nd(135, OWN_V6, 1, SOURCE), vec![9]].concat(), Err(SecureMalformed)),
        ("a truncated one", OWN_V6, nd(136, OWN_V6, 2, SOURCE)[..20].to_vec(), Err(SecureMalformed)),
        (
            "the true MAC address before another's",
            OWN_V6,
            { [nd(136, OWN_V6, 2, SOURCE), vec![2, 1], OTHER_MAC.to_vec()].concat() },
            Err(SecureNd),
        ),
    ] {
        assert_eq!(check(&six(source, 58, &message)), expected, "{what}");
    }
    assert_eq!(mac_only().check(&six(OTHER_V6, 58, &nd(136, OTHER_V6, 2, SOURCE)), 12), Ok(()));
    assert_eq!(mac_only().check(&six(OTHER_V6, 58, &nd(136, OTHER_V6, 2, OTHER_MAC)), 12), Err(SecureNd));
}

#[test]
fn what_only_infrastructure_sends_does_not_come_in() {
    let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let with_destination = |mac: [u8; 6], payload: &[u8]| {
        let mut frame = ethernet(&[], EtherType(payload.len() as u16), payload);
        frame[..6].copy_from_slice(&mac);
        frame
    };
    for (what, frame, expected) in [
        ("a router advertisement", six(LINK_LOCAL, 58, &advertisement), SecureRa),
        ("a redirect", six(LINK_LOCAL, 58, &[137, 0, 0, 0]), SecureRa),
        ("a DHCP offer", four(OWN_V4, 17, &udp(67, 68, b"")), SecureDhcpServer),
        ("a DHCP offer from another port", four(OWN_V4, 17, &udp(1067, 68, b"")), SecureDhcpServer),
        ("a DHCP relay", four(OWN_V4, 17, &udp(67, 67, b"")), SecureDhcpServer),
        ("a DHCPv6 advertisement", six(LINK_LOCAL, 17, &udp(547, 546, b"")), SecureDhcpServer),
        ("a DHCPv6 advertisement from another port", six(OWN_V6, 17, &udp(1547, 546, b"")), SecureDhcpServer),
        ("a BPDU", with_destination([1, 0x80, 0xc2, 0, 0, 0], &[0x42, 0x42, 3, 0, 0, 0, 0]), SecureBpdu),
        ("a BPDU for one station", with_destination(OTHER_MAC, &[0x42, 0x42, 3, 0, 0, 0, 0]), SecureBpdu),
        (
            "a BPDU of one VLAN",
            with_destination([1, 0, 0x0c, 0xcc, 0xcc, 0xcd], &[0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b]),
            SecureBpdu,
        ),
    ] {
        assert_eq!(check(&frame), Err(expected), "{what}");
        assert_eq!(mac_only().check(&frame, 12), Err(expected), "{what}, where addresses are not checked");
        let tagged = [&frame[..12], &[0x81, 0, 0, 0, 0x88, 0xa8, 0, 7][..], &frame[12..]].concat();
        assert_eq!(check(&tagged), Err(expected), "{what}, behind tags");
        assert_eq!(secure().check(&tagged, 16), Err(expected), "{what}, behind a tag the port has looked at");
    }
    assert_eq!(check(&four(OWN_V4, 17, &udp(68, 67, b""))), Ok(()), "a DHCP request");
    assert_eq!(check(&six(LINK_LOCAL, 17, &udp(546, 547, b""))), Ok(()), "a DHCPv6 request");
}

#[test]
fn extension_headers_and_fragments_hide_nothing() {
    let ra = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let answer = nd(136, OWN_V6, 2, SOURCE);
    let hidden = [ext(58, 8), ra.to_vec()].concat();
    for (what, frame, expected) in [
        ("behind options", six(OWN_V6, 0, &[ext(60, 8), hidden.clone()].concat()), Err(SecureRa)),
        ("in an atomic fragment", six(OWN_V6, 44, &fragment(60, 0, &hidden)), Err(SecureRa)),
        ("in a first fragment", six(OWN_V6, 44, &fragment(60, 1, &hidden)), Err(SecureRa)),
        ("in a later fragment", six(OWN_V6, 44, &fragment(60, 8, &hidden)), Ok(())),
        ("in a later fragment from another", six(OTHER_V6, 44, &fragment(60, 8, &hidden)), Err(SecureIp)),
        (
            "in the fragment after one of options alone",
            six(OWN_V6, 44, &fragment(60, 1, &ext(58, 8))),
            Err(SecureMalformed),
        ),
        (
            "in the fragment after half of the options",
            six(OWN_V6, 44, &fragment(60, 1, &ext(58, 16)[..8])),
            Err(SecureMalformed),
        ),
        (
            "an answer whose options come later",
            six(OWN_V6, 44, &fragment(58, 1, &answer)),
            Err(SecureMalformed),
        ),
        (
            "a DHCP offer in a first fragment",
            six(OWN_V6, 44, &fragment(17, 1, &udp(547, 546, b""))),
            Err(SecureDhcpServer),
        ),
        (
            "half of a UDP header",
            six(OWN_V6, 44, &fragment(17, 1, &udp(547, 546, b"")[..4])),
            Err(SecureMalformed),
        ),
        (
            "a first fragment that ends before TCP",
            six(OWN_V6, 44, &fragment(6, 1, b"")),
            Err(SecureMalformed),
        ),
        ("nothing at all", six(OWN_V6, 44, &fragment(59, 1, b"")), Ok(())),
    ] {
        assert_eq!(check(&frame), expected, "{what}");
    }
    for (what, bits, payload, expected) in [
        ("a first fragment", 0x2000u16, &udp(67, 68, b"offer")[..], Err(SecureDhcpServer)),
        ("a first fragment without the ports", 0x2000, &[][..], Err(SecureMalformed)),
        ("a first fragment with half of the ports", 0x2000, &[0, 67][..], Err(SecureMalformed)),
        ("a later fragment", 0x0001, &udp(67, 68, b"offer")[..], Ok(())),
    ] {
        let mut frame = four(OWN_V4, 17, payload);
        frame[20..22].copy_from_slice(&bits.to_be_bytes());
        assert_eq!(check(&frame), expected, "{what}");
    }
}

#[test]
fn ip_in_llc_is_not_let_in_unchecked() {
    let llc = |head: &[u8]| {
        let payload = [head, &ipv4(17, &udp(67, 68, b""))].concat();
        ethernet(&[[0x8100, 0]], EtherType(payload.len() as u16), &payload)
    };
    assert_eq!(check(&llc(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])), Err(SecureMalformed));
    assert_eq!(check(&llc(&[0xaa, 0xaa, 3, 0, 0, 0xf8, 8, 0])), Err(SecureMalformed));
    assert_eq!(check(&llc(&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0])), Ok(()), "another organization's protocol");
    assert_eq!(check(&llc(&[0xfe, 0xfe, 3])), Ok(()), "another protocol of LLC");
    assert_eq!(check(&ethernet(&[], EtherType(0x88cc), &[])), Ok(()), "another type");
}

proptest! {
    #[test]
    fn whatever_is_let_in_has_the_own_source_and_no_octets_panic(
        start in 0usize..8, changes in prop::collection::vec((any::<u8>(), any::<u8>()), 0..6), cut in 0usize..120, type_at in 0usize..140,
    ) {
        let starts = [
            four(OWN_V4, 17, &udp(68, 67, b"")),
            six(OWN_V6, 58, &nd(136, OWN_V6, 2, SOURCE)),
            six(OWN_V6, 0, &[ext(44, 8), fragment(60, 1, &ext(58, 8)), vec![134, 0, 0, 0]].concat()),
            arp(1, SOURCE, OWN_V4),
            ethernet(&[[0x88a8, 1], [0x8100, 0]], EtherType::IPV4, &ipv4(6, &sample::tcp(1, 2, &[], b""))),
            ethernet(&[], EtherType(40), &[0xaa; 40]),
            six(NOWHERE, 58, &nd(135, OWN_V6, 14, [0; 6])),
            four(OWN_V4, 1, &[8, 0]),
        ];
        let mut frame = starts[start].clone();
        for (at, value) in changes {
            let at = usize::from(at) % frame.len();
            frame[at] = value;
        }
        frame.truncate(cut);
        let _ = secure().check(&frame, type_at);
        if check(&frame).is_ok() {
            prop_assert_eq!(&frame[6..12], &SOURCE);
            if let Layers { l3, ip: Some(Ip { version: Version::V4, .. }), .. } = Layers::parse(&frame).unwrap() {
                let source = &frame[l3 + 12..l3 + 16];
                prop_assert!(source == OWN_V4 || source == [0; 4]);
            }
        }
    }
}
