//! The number by which the underlay tells the flows inside a tunnel apart.
//!
//! Routers and network cards spread tunnel packets over paths and queues by the outer source port. So it "SHOULD be the same for all
//! packets belonging to a single encapsulated flow to prevent reordering due to the use of different paths", and "calculated using a hash
//! of the encapsulated packet headers using, for example, a traditional 5-tuple" (RFC 8926 §3.3).
//!
//! A flow is the two addresses, the protocol and the two ports of an IP packet; without the ports where the packet is a fragment, since
//! only the first of them has any, or of another protocol; and the two MAC addresses and the type of everything else. The VLANs always
//! belong to it. The number depends on nothing but the frame: it is the same in every worker, after every restart, and on every machine.

use std::ops::RangeInclusive;

use crate::wire::{
    EtherType, Layers,
    dot1q::TAG_LEN,
    ethernet::{ADDRS_LEN, HEADER_LEN},
    layers::{Fragment, be16, skip_tags},
};

/// The range that "it is RECOMMENDED that the value be in": the dynamic ports (RFC 7348 §5, RFC 6335 §6).
pub const DYNAMIC_PORTS: RangeInclusive<u16> = 49152..=65535;

/// Protocol numbers of IANA: TCP, UDP, DCCP, SCTP and UDP-Lite, whose headers all begin with two ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
/// The next headers that are not the upper layer: hop-by-hop, routing, fragment, authentication, destination options.
const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];
/// What stands for the protocol of every fragment of an IPv6 packet; the later ones do not know their upper layer.
const IPV6_FRAGMENT: u8 = 44;

/// Digits of pi made odd: numbers that have no pattern, and that nobody chose.
const KEYS: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1];

/// The hash of the flow that a frame belongs to.
#[inline]
pub fn flow_hash(frame: &[u8]) -> u32 {
    let Ok((tags, ethertype, l3)) = skip_tags(frame, ADDRS_LEN) else { return of_stations(frame, 0) };
    let mut vlans = 0;
    for n in 0..usize::from(tags) {
        // The last octets of a tag are its control information, of which the priority is no part of a flow.
        vlans = vlans << 12 | u64::from(be16(frame, HEADER_LEN + n * TAG_LEN).unwrap_or(0) & 0xfff);
    }
    let packet = frame.get(l3..).unwrap_or_default();
    match ethertype {
        EtherType::IPV4 => of_ipv4(packet, vlans),
        EtherType::IPV6 => of_ipv6(frame, packet, vlans),
        _ => None,
    }
    .unwrap_or_else(|| of_stations(frame, vlans))
}

#[inline]
fn of_ipv4(packet: &[u8], vlans: u64) -> Option<u32> {
    let header = packet.first_chunk::<20>()?;
    let len = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || len < 20 {
        return None;
    }
    // "More fragments", and the offset.
    let fragment = (u16::from_be_bytes([header[6], header[7]]) & 0x3fff) != 0;
    let ports = if fragment { 0 } else { ports(packet, len, header[9]) };
    let addresses = u64::from_be_bytes(*header[12..].first_chunk()?);
    Some(finish(addresses, header[9], ports, vlans))
}

#[inline]
fn of_ipv6(frame: &[u8], packet: &[u8], vlans: u64) -> Option<u32> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (protocol, ports) = if EXTENSIONS.contains(&header[6]) {
        behind_extensions(frame, header[6])
    } else {
        (header[6], ports(packet, 40, header[6]))
    };
    let ([s0, s1, d0, d1], _) = header[8..].as_chunks::<8>() else { return None };
    let [s0, s1, d0, d1] = [s0, s1, d0, d1].map(|half| u64::from_be_bytes(*half));
    let addresses = mix(s0 ^ KEYS[1], d0 ^ KEYS[2]) ^ mix(s1 ^ KEYS[0], d1 ^ KEYS[1]).rotate_left(32);
    Some(finish(addresses, protocol, ports, vlans))
}

/// The upper layer and the ports of an IPv6 packet with extension headers; `next`, and none, where they cannot be walked.
fn behind_extensions(frame: &[u8], next: u8) -> (u8, u32) {
    match Layers::parse(frame) {
        Ok(Layers { ip: Some(ip), .. }) if ip.fragment == Fragment::No => {
            (ip.protocol, ports(frame, ip.l4, ip.protocol))
        }
        Ok(_) => (IPV6_FRAGMENT, 0),
        Err(_) => (next, 0),
    }
}

/// The two ports at octet `at`, or 0 where the protocol has none or the packet ends before.
#[inline]
fn ports(bytes: &[u8], at: usize, protocol: u8) -> u32 {
    if !WITH_PORTS.contains(&protocol) {
        return 0;
    }
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}

/// The hash of a frame that is no IP packet: of its two addresses and the type behind its tags.
fn of_stations(frame: &[u8], vlans: u64) -> u32 {
    let Some((stations, rest)) = frame.split_first_chunk::<ADDRS_LEN>() else { return 0 };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *stations;
    let destination = u64::from_be_bytes([0, 0, d0, d1, d2, d3, d4, d5]);
    let source = u64::from_be_bytes([s4, s5, 0, 0, s0, s1, s2, s3]);
    let ethertype = match skip_tags(frame, ADDRS_LEN) {
        Ok((_, ethertype, _)) => ethertype.0,
        Err(_) => be16(rest, 0).unwrap_or(0),
    };
    finish(mix(destination ^ KEYS[1], source ^ KEYS[2]), 0, ethertype.into(), vlans)
}

/// The hash of everything that makes a flow: two multiplications, so that each bit of it has a part in each bit of the result.
#[inline]
fn finish(addresses: u64, protocol: u8, ports: u32, vlans: u64) -> u32 {
    let upper = u64::from(protocol) << 32 | u64::from(ports);
    let hash = mix(addresses ^ KEYS[0], upper ^ vlans.rotate_left(40) ^ KEYS[1]);
    let hash = mix(hash ^ KEYS[2], KEYS[0]);
    hash as u32
}

/// Both halves of the product, one folded over the other.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The source port of a flow within `ports`, every one of which comes up about as often as any other (as `udp_flow_src_port`).
#[inline]
pub fn source_port(hash: u32, ports: &RangeInclusive<u16>) -> u16 {
    let (first, last) = (*ports.start(), *ports.end());
    let count = u64::from(last.saturating_sub(first)) + 1;
    // Below `count`, hence the sum is at most `last`, or `first` where the range is empty.
    first.saturating_add(((u64::from(hash) * count) >> 32) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sample::{self, ext};

    /// TCP from one port to another, from a host to another of 198.51.100.0/24 or 2001:db8::/64.
    fn tcp(six: bool, hosts: [u8; 2], ports: [u16; 2], sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut segment = sample::tcp(sequence, 0x18, &[], payload);
        segment[..2].copy_from_slice(&ports[0].to_be_bytes());
        segment[2..4].copy_from_slice(&ports[1].to_be_bytes());
        if six {
            let mut packet = sample::ipv6(6, &segment);
            (packet[23], packet[39]) = (hosts[0], hosts[1]);
            sample::ethernet(&[], EtherType::IPV6, &packet)
        } else {
            let mut packet = sample::ipv4(6, &segment);
            (packet[15], packet[19]) = (hosts[0], hosts[1]);
            sample::ethernet(&[], EtherType::IPV4, &packet)
        }
    }

    /// A thousand flows, as they differ in real networks: by the ports, by the hosts, by a counter in one place.
    fn thousand(six: bool, kind: usize) -> Vec<Vec<u8>> {
        (0..1000u16)
            .map(|n| match kind {
                0 => tcp(six, [1, 2], [32768 + n, 443], 1, b""),
                1 => tcp(six, [(n % 250) as u8, 2], [40000, 80 + n / 250], 1, b""),
                2 => tcp(six, [(n % 32) as u8, (n / 32) as u8], [5000, 5000], 1, b""),
                _ => tcp(six, [1, 2], [n, n], 1, b""),
            })
            .collect()
    }

    #[test]
    fn a_thousand_flows_spread_over_sixteen_buckets() {
        // RFC 7348 §5: "This is to enable a level of entropy for the ECMP/load-balancing of the VM-to-VM traffic".
        // 62.5 in each on average, with a deviation of 7.7: four of them either way, in the high bits, the low ones, and the port.
        for six in [false, true] {
            for kind in 0..4 {
                let hashes: Vec<u32> = thousand(six, kind).iter().map(|f| flow_hash(f)).collect();
                let buckets: [fn(u32) -> usize; 3] = [
                    |h| (h >> 28) as usize,
                    |h| (h & 15) as usize,
                    |h| usize::from(source_port(h, &DYNAMIC_PORTS) & 15),
                ];
                for (which, bucket) in buckets.iter().enumerate() {
                    let mut counts = [0; 16];
                    hashes.iter().for_each(|&h| counts[bucket(h)] += 1);
                    assert!(
                        counts.iter().all(|c| (32..=93).contains(c)),
                        "IPv6 {six}, kind {kind}, bits {which}: {counts:?}"
                    );
                }
                let mut distinct = hashes.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert!(distinct.len() >= 998, "IPv6 {six}, kind {kind}: {} values", distinct.len());
            }
        }
    }

    #[test]
    fn one_flow_has_one_value_whatever_it_carries() {
        // RFC 8926 §3.3: "This source port SHOULD be the same for all packets belonging to a single encapsulated flow".
        for six in [false, true] {
            let one = flow_hash(&tcp(six, [1, 2], [40000, 443], 1, b""));
            let mut other = tcp(six, [1, 2], [40000, 443], 77_000, &[9; 1400]);
            assert_eq!(flow_hash(&other), one, "payload, length, sequence number");
            let (tos, ttl, id) = if six { (15, 21, 16) } else { (15, 22, 18) };
            for at in [0, 6, tos, ttl, id, id + 1] {
                other[at] ^= 0x05;
                assert_eq!(flow_hash(&other), one, "octet {at} of the frame");
            }
        }
    }

    #[test]
    fn everything_that_makes_a_flow_makes_a_difference() {
        for six in [false, true] {
            let frame = tcp(six, [1, 2], [40000, 443], 1, b"x");
            let (source, destination, protocol, l4) =
                if six { (22..38, 38..54, 20, 54) } else { (26..30, 30..34, 23, 34) };
            for at in source.chain(destination).chain([protocol]).chain(l4..l4 + 4) {
                let mut other = frame.clone();
                other[at] ^= 1;
                assert_ne!(flow_hash(&other), flow_hash(&frame), "octet {at}");
            }
            let l3 = &frame[14..];
            let ethertype = EtherType(u16::from_be_bytes([frame[12], frame[13]]));
            let tagged = |tags: &[[u16; 2]]| flow_hash(&sample::ethernet(tags, ethertype, l3));
            let one = tagged(&[[0x8100, 7]]);
            assert_ne!(one, tagged(&[]));
            assert_ne!(one, tagged(&[[0x8100, 8]]));
            assert_eq!(one, tagged(&[[0x88a8, 0xe007]]), "the type of the tag, and the priority");
            assert_ne!(tagged(&[[0x88a8, 7], [0x8100, 8]]), tagged(&[[0x88a8, 8], [0x8100, 7]]));
        }
    }

    #[test]
    fn a_frame_that_is_no_ip_packet_goes_by_its_stations_type_and_vlan() {
        let frame =
            |tags: &[[u16; 2]], ethertype, fill| sample::ethernet(tags, EtherType(ethertype), &[fill; 46]);
        let one = flow_hash(&frame(&[], 0x0806, 1));
        assert_eq!(one, flow_hash(&frame(&[], 0x0806, 2)), "payload");
        assert_ne!(one, flow_hash(&frame(&[], 0x0807, 1)));
        assert_ne!(one, flow_hash(&frame(&[[0x8100, 1]], 0x0806, 1)));
        for at in 0..12 {
            let mut other = frame(&[], 0x0806, 1);
            other[at] ^= 1;
            assert_ne!(flow_hash(&other), one, "octet {at}");
        }
        assert_ne!(
            flow_hash(&frame(&[], 0x0800, 0x65)),
            flow_hash(&frame(&[], 0x86dd, 0x45)),
            "no IP headers"
        );
    }

    #[test]
    fn all_fragments_of_a_packet_take_one_way() {
        let datagram = sample::udp(5, 6, &[7; 100]);
        let four = |bits: u16, ports: u8| {
            let mut packet = sample::ipv4(17, &datagram);
            packet[6..8].copy_from_slice(&bits.to_be_bytes());
            packet[20] = ports;
            flow_hash(&sample::ethernet(&[], EtherType::IPV4, &packet))
        };
        assert_eq!(four(0x2000, 1), four(0x2000, 2), "the first has ports, which do not count");
        assert_eq!(four(0x2000, 1), four(0x20b9, 9));
        assert_eq!(four(0x2000, 1), four(0x0172, 3), "the last");
        assert_ne!(four(0x4000, 1), four(0x4000, 2), "no fragment");
        let six = |bits: u16, next: u8| {
            let mut header = ext(next, 8);
            header[2..4].copy_from_slice(&bits.to_be_bytes());
            flow_hash(&sample::ethernet(
                &[],
                EtherType::IPV6,
                &sample::ipv6(44, &[header, datagram.clone()].concat()),
            ))
        };
        assert_eq!(six(0x0001, 17), six(0x0099, 17));
        assert_eq!(six(0x0001, 17), six(0x0098, 60), "whatever a later fragment says of the upper layer");
    }

    #[test]
    fn extension_headers_do_not_hide_the_flow() {
        let datagram = sample::udp(5, 6, b"x");
        let plain = sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(17, &datagram));
        let behind = |next| {
            let chain = [ext(60, 8), ext(17, 16), datagram.clone()].concat();
            sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(next, &chain))
        };
        assert_eq!(flow_hash(&behind(0)), flow_hash(&plain));
        let mut cut = behind(0);
        cut.truncate(60);
        assert_ne!(flow_hash(&cut), flow_hash(&plain), "a chain that is cut off: the addresses alone");
        cut[20] = 59;
        assert_ne!(flow_hash(&cut), flow_hash(&plain), "no next header");
    }

    #[test]
    fn the_values_stay_what_they_are() {
        // A release that changed them would move every flow to another path once, and could reorder it.
        assert_eq!(flow_hash(&tcp(false, [1, 2], [40000, 443], 1, b"")), 2_157_664_359);
        assert_eq!(flow_hash(&tcp(true, [1, 2], [40000, 443], 1, b"")), 4_175_031_115);
        assert_eq!(flow_hash(&sample::ethernet(&[[0x8100, 7]], EtherType::ARP, &[0; 28])), 1_459_064_295);
    }

    #[test]
    fn ports_stay_within_their_range_and_reach_both_ends() {
        for (hash, port) in [(0, 49152), (u32::MAX, 65535), (1 << 31, 57344)] {
            assert_eq!(source_port(hash, &DYNAMIC_PORTS), port);
        }
        assert_eq!((source_port(0, &(0..=65535)), source_port(u32::MAX, &(0..=65535))), (0, 65535));
        assert_eq!((source_port(0, &(7..=7)), source_port(u32::MAX, &(7..=7))), (7, 7));
        #[allow(clippy::reversed_empty_ranges, reason = "what a caller that did not check would pass")]
        let empty = 9..=8;
        assert_eq!(source_port(u32::MAX, &empty), 9);
    }

    proptest! {
        #[test]
        fn any_octets_have_a_hash(frame in prop::collection::vec(any::<u8>(), 0..80), kind in 0usize..4) {
            let mut frame = frame;
            if frame.len() >= 24 {
                let head: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 1, 8, 0, 0x4f], &[]];
                frame[12..12 + head[kind].len()].copy_from_slice(head[kind]);
            }
            prop_assert_eq!(flow_hash(&frame), flow_hash(&frame.clone()));
        }
    }
}
