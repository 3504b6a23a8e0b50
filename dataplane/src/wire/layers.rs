//! Where the layers of a frame begin: tags, IP header, transport header.
//!
//! Owns the walk over VLAN tags and IPv6 extension headers, each with a bound, so that no frame costs more than another
//! by more than a few headers.
//! Reads positions and lengths only: checksums are not verified, addresses not judged.
//! The end of an IP packet comes from its own length field, so Ethernet padding is outside it.

use etherparse::{
    IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice,
};

use super::{Error, EtherType, dot1q::TAG_LEN, ethernet::ADDRS_LEN};

/// The most VLAN tags that are looked through. Provider bridging has two (802.1Q-2018 §6.13), its backbone form three.
pub const MAX_TAGS: u8 = 4;
/// The most IPv6 extension headers that are looked through. RFC 8200 §4.1 recommends an order in which each occurs once,
/// destination options twice: seven with the authentication header.
pub const MAX_EXTENSIONS: usize = 7;

/// Where the layers of a frame begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// VLAN tags in front of the type.
    pub tags: u8,
    /// The type after the last tag. Up to 1500 it is a length, and LLC follows (802.3-2018 §3.2.6).
    pub ethertype: EtherType,
    /// Where the network header begins: after the type, in octets from the start of the frame.
    pub l3: usize,
    /// The IP packet, where the type names one.
    pub ip: Option<Ip>,
}

/// An IP packet in a frame; all positions in octets from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Version, by which the addresses are found.
    pub version: Version,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// The upper-layer protocol, after all extension headers; in a [`Fragment::Later`] what its fragment header names.
    pub protocol: u8,
    /// Where the upper layer begins; not past `end`. In a [`Fragment::Later`] there is no transport header there.
    pub l4: usize,
    /// Where the packet ends; not past the end of the frame.
    pub end: usize,
}

/// The version of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Internet Protocol version 4.
    V4,
    /// Internet Protocol version 6.
    V6,
}

/// Whether an IP packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is a whole packet.
    No,
    /// It begins at offset 0, and others follow, or it is an atomic fragment of IPv6 (RFC 6946).
    First,
    /// It begins further on: its transport header is in another frame.
    Later,
}

impl Layers {
    /// The layers of a frame.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, Error> {
        Self::parse_at(frame, ADDRS_LEN)
    }

    /// The layers of a frame whose type, or next tag, stands at octet `type_at`.
    #[inline]
    pub fn parse_at(frame: &[u8], type_at: usize) -> Result<Self, Error> {
        let (tags, ethertype, l3) = skip_tags(frame, type_at)?;
        let ip = match ethertype {
            EtherType::IPV4 => Some(ipv4(frame, l3)?),
            EtherType::IPV6 => Some(ipv6(frame, l3)?),
            _ => None,
        };
        Ok(Self { tags, ethertype, l3, ip })
    }
}

/// How many tags stand at octet `type_at`, the type after the last of them, and where the network header begins.
#[inline]
pub(crate) fn skip_tags(frame: &[u8], type_at: usize) -> Result<(u8, EtherType, usize), Error> {
    let mut at = type_at;
    let mut tags = 0;
    loop {
        let ethertype = EtherType(be16(frame, at).ok_or(Error::Truncated)?);
        if !ethertype.is_tag() {
            return Ok((tags, ethertype, at + 2));
        }
        if tags == MAX_TAGS {
            return Err(Error::Malformed("tag count"));
        }
        tags += 1;
        at += TAG_LEN;
    }
}

/// The big-endian number at octet `at`.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
fn ipv4(frame: &[u8], l3: usize) -> Result<Ip, Error> {
    let rest = frame.get(l3..).ok_or(Error::Truncated)?;
    let header = Ipv4HeaderSlice::from_slice(rest).map_err(|_| header_error(rest, 4, "IPv4 header"))?;
    let (header_len, total_len) = (header.slice().len(), usize::from(header.total_len()));
    if total_len < header_len {
        return Err(Error::Malformed("IPv4 total length"));
    }
    if total_len > rest.len() {
        return Err(Error::Truncated);
    }
    let fragment = match (header.fragments_offset().value(), header.more_fragments()) {
        (0, false) => Fragment::No,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    Ok(Ip {
        version: Version::V4,
        fragment,
        protocol: header.protocol().0,
        l4: l3 + header_len,
        end: l3 + total_len,
    })
}

#[inline]
fn ipv6(frame: &[u8], l3: usize) -> Result<Ip, Error> {
    let rest = frame.get(l3..).ok_or(Error::Truncated)?;
    let header = Ipv6HeaderSlice::from_slice(rest).map_err(|_| header_error(rest, 6, "IPv6 header"))?;
    let mut at = header.slice().len();
    let packet = rest.get(..at + usize::from(header.payload_length())).ok_or(Error::Truncated)?;
    let mut fragment = Fragment::No;
    let mut next = header.next_header();
    let mut extensions = 0;
    while fragment != Fragment::Later {
        let ext = packet.get(at..).ok_or(Error::Truncated)?;
        let (after, len) = match next {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => {
                let ext = Ipv6RawExtHeaderSlice::from_slice(ext).map_err(|_| Error::Truncated)?;
                (ext.next_header(), ext.slice().len())
            }
            IpNumber::AUTHENTICATION_HEADER => {
                let ext = IpAuthHeaderSlice::from_slice(ext)
                    .map_err(|_| Error::Malformed("authentication header"))?;
                (ext.next_header(), ext.slice().len())
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let ext = Ipv6FragmentHeaderSlice::from_slice(ext).map_err(|_| Error::Truncated)?;
                fragment = if ext.fragment_offset().value() == 0 { Fragment::First } else { Fragment::Later };
                (ext.next_header(), ext.slice().len())
            }
            _ => break,
        };
        extensions += 1;
        if extensions > MAX_EXTENSIONS {
            return Err(Error::Malformed("extension header count"));
        }
        at += len;
        next = after;
    }
    Ok(Ip { version: Version::V6, fragment, protocol: next.0, l4: l3 + at, end: l3 + packet.len() })
}

/// Why a header did not parse: too short for its version, or of another version.
#[cold]
fn header_error(rest: &[u8], version: u8, what: &'static str) -> Error {
    match rest.first() {
        Some(first) if first >> 4 != version => Error::Malformed(what),
        Some(first) if version == 4 && first & 0xf < 5 => Error::Malformed(what),
        _ => Error::Truncated,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sample::{self, HOP_BY_HOP, ext};

    fn ip(frame: &[u8]) -> Ip {
        Layers::parse(frame).unwrap().ip.unwrap()
    }

    #[test]
    fn an_untagged_tcp_frame_has_its_layers_where_the_standards_put_them() {
        let frame =
            sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(6, &sample::tcp(1, 0x10, &[], b"hello")));
        let layers = Layers::parse(&frame).unwrap();
        assert_eq!((layers.tags, layers.ethertype, layers.l3), (0, EtherType::IPV4, 14));
        assert_eq!(
            layers.ip,
            Some(Ip { version: Version::V4, fragment: Fragment::No, protocol: 6, l4: 34, end: 59 })
        );
    }

    #[test]
    fn tags_are_looked_through_up_to_the_bound_and_no_further() {
        for n in 0..=MAX_TAGS + 1 {
            let tags: Vec<_> = (0..n).map(|i| [if i == 0 { 0x88a8u16 } else { 0x8100 }, 7]).collect();
            let frame = sample::ethernet(&tags, EtherType::ARP, &[0; 28]);
            let parsed = Layers::parse(&frame);
            if n <= MAX_TAGS {
                let layers = parsed.unwrap();
                assert_eq!((layers.tags, layers.l3, layers.ip), (n, 14 + 4 * usize::from(n), None));
                assert_eq!(layers.ethertype, EtherType::ARP);
            } else {
                assert_eq!(parsed, Err(Error::Malformed("tag count")));
            }
        }
    }

    #[test]
    fn options_move_the_transport_header_and_padding_does_not_move_the_end() {
        let mut packet = sample::ipv4_with_options(17, &[1; 12], &sample::udp(5, 6, b"x"));
        let end = 14 + packet.len();
        packet.extend([0; 9]);
        let frame = sample::ethernet(&[], EtherType::IPV4, &packet);
        assert_eq!((ip(&frame).l4, ip(&frame).end, ip(&frame).protocol), (14 + 32, end, 17));
    }

    #[test]
    fn extension_headers_are_looked_through_to_the_transport_header() {
        // Hop-by-hop (8 octets), routing (24), authentication (24), destination options (16), then UDP.
        let mut packet = ext(43, 8);
        packet.extend(ext(51, 24));
        packet.extend([60, 4]); // the authentication header counts in 4-octet units less 2 (RFC 4302 §2.2)
        packet.extend([0; 22]);
        packet.extend(ext(17, 16));
        packet.extend(sample::udp(5, 6, b"x"));
        let frame = sample::ethernet(&[[0x8100, 1]], EtherType::IPV6, &sample::ipv6(HOP_BY_HOP, &packet));
        let expected = Ip {
            version: Version::V6,
            fragment: Fragment::No,
            protocol: 17,
            l4: 18 + 40 + 72,
            end: 18 + 40 + 72 + 9,
        };
        assert_eq!(ip(&frame), expected);
    }

    #[test]
    fn a_chain_of_extension_headers_without_end_is_refused() {
        let mut packet = Vec::new();
        for _ in 0..MAX_EXTENSIONS {
            packet.extend(ext(60, 8));
        }
        let chain =
            sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(60, &[&packet[..], &ext(17, 8)].concat()));
        assert_eq!(Layers::parse(&chain), Err(Error::Malformed("extension header count")));
        let last = packet.len() - 8;
        packet[last] = 17;
        let chain = sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(60, &packet));
        assert_eq!(ip(&chain).protocol, 17);
    }

    #[test]
    fn the_walk_ends_at_a_later_fragment_and_goes_on_behind_a_first_one() {
        let fragment = |offset_and_more: u16| {
            let [a, b] = offset_and_more.to_be_bytes();
            let mut packet = vec![60, 0, a, b, 0, 0, 0, 1];
            packet.extend(ext(58, 8));
            packet.extend([134, 0, 0, 0]);
            sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(44, &packet))
        };
        for (bits, kind, protocol, l4) in [
            (0u16, Fragment::First, 58, 14 + 40 + 16),
            (1, Fragment::First, 58, 14 + 40 + 16),
            (8, Fragment::Later, 60, 14 + 40 + 8),
        ] {
            let ip = ip(&fragment(bits));
            assert_eq!((ip.fragment, ip.protocol, ip.l4), (kind, protocol, l4), "{bits:#x}");
        }
        for (bits, kind) in [(0x4000u16, Fragment::No), (0x2000, Fragment::First), (0x0001, Fragment::Later)]
        {
            let mut packet = sample::ipv4(17, &sample::udp(5, 6, b""));
            packet[6..8].copy_from_slice(&bits.to_be_bytes());
            assert_eq!(ip(&sample::ethernet(&[], EtherType::IPV4, &packet)).fragment, kind, "{bits:#x}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let good = sample::ethernet(&[], EtherType::IPV4, &sample::ipv4(17, &sample::udp(5, 6, b"")));
        let with = |at: usize, bytes: &[u8]| {
            let mut frame = good.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            Layers::parse(&frame)
        };
        assert!(with(14, &[0x45]).is_ok());
        assert_eq!(with(14, &[0x44]), Err(Error::Malformed("IPv4 header")), "a header of 16 octets");
        assert_eq!(with(14, &[0x65]), Err(Error::Malformed("IPv4 header")), "IPv6 under the type of IPv4");
        assert_eq!(with(14, &[0x4f]), Err(Error::Truncated), "a header longer than the frame");
        assert_eq!(
            with(16, &[0, 19]),
            Err(Error::Malformed("IPv4 total length")),
            "a packet within its header"
        );
        assert_eq!(with(16, &[0, 29]), Err(Error::Truncated), "a packet longer than the frame");
        let mut six = sample::ethernet(&[], EtherType::IPV6, &sample::ipv6(17, &sample::udp(5, 6, b"")));
        six[19] += 1;
        assert_eq!(Layers::parse(&six), Err(Error::Truncated), "an IPv6 payload longer than the frame");
    }

    #[test]
    fn every_prefix_of_a_frame_is_truncated_or_shorter_and_none_panics() {
        let mut packet = ext(17, 8);
        packet.extend(sample::udp(5, 6, b""));
        let frame =
            sample::ethernet(&[[0x88a8, 1], [0x8100, 2]], EtherType::IPV6, &sample::ipv6(60, &packet));
        for n in 0..frame.len() {
            assert_eq!(Layers::parse(&frame[..n]), Err(Error::Truncated), "{n} octets");
        }
        assert!(Layers::parse(&frame).is_ok());
        assert_eq!(Layers::parse_at(&frame, usize::MAX), Err(Error::Truncated));
    }

    proptest! {
        #[test]
        fn positions_are_in_order_and_inside_the_frame(
            mut frame in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..4, first in any::<u8>(),
        ) {
            // Random bytes rarely hold a type that is looked into; write one in.
            if frame.len() > 22 {
                let head: [&[u8]; 4] = [&[8, 0, 0x45], &[0x86, 0xdd, 0x60], &[0x81, 0, 0, 1, 8, 0, 0x46], &[]];
                frame[12..12 + head[kind].len()].copy_from_slice(head[kind]);
                if kind < 2 {
                    frame[16..20].copy_from_slice(&[0, first, 0, first]);
                }
            }
            if let Ok(layers) = Layers::parse(&frame) {
                prop_assert!(layers.l3 <= frame.len());
                if let Some(ip) = layers.ip {
                    prop_assert!(layers.l3 < ip.l4 && ip.l4 <= ip.end && ip.end <= frame.len());
                }
            }
        }

        /// The whole-packet parser of etherparse, too slow for the path, is the oracle.
        #[test]
        fn layers_agree_with_etherparse(
            tags in prop::collection::vec(any::<bool>(), 0..3), six: bool, tcp: bool, exts in 0usize..3, len in 0usize..50,
        ) {
            let transport = if tcp { sample::tcp(9, 0x18, &[1; 4], &vec![7; len]) } else { sample::udp(5, 6, &vec![7; len]) };
            let protocol = if tcp { 6 } else { 17 };
            let (ethertype, packet) = if six {
                // The order etherparse accepts: destination options, then routing.
                let payload = match exts {
                    0 => transport,
                    1 => [ext(protocol, 16), transport].concat(),
                    _ => [ext(43, 16), ext(protocol, 8), transport].concat(),
                };
                (EtherType::IPV6, sample::ipv6(if exts == 0 { protocol } else { 60 }, &payload))
            } else {
                (EtherType::IPV4, sample::ipv4_with_options(protocol, &vec![1; 4 * exts], &transport))
            };
            let tags: Vec<_> = tags.iter().map(|&s| [if s { 0x88a8u16 } else { 0x8100 }, 5]).collect();
            let frame = sample::ethernet(&tags, ethertype, &packet);
            let ours = Layers::parse(&frame).unwrap();
            let theirs = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let payload = theirs.ip_payload().unwrap();
            prop_assert_eq!(usize::from(ours.tags), theirs.link_exts.len());
            let ip = ours.ip.unwrap();
            prop_assert_eq!(ip.protocol, payload.ip_number.0);
            prop_assert_eq!(&frame[ip.l4..ip.end], payload.payload);
        }
    }
}
