//! Congestion marks across a tunnel (RFC 6040), and the inner octets that an outer header may inherit.
//!
//! Both ways the two bits follow the RFC: in, the normal mode of §4.1; out, the table of §4.2.
//! The four combinations of the table that "cannot result from any transition" and yet are forwarded are treated as it says and not
//! logged: whoever can send to a tunnel could write the log. The one that is dropped is counted, as every drop is.

use crate::wire::{EtherType, ethernet::ADDRS_LEN, layers::skip_tags};

/// Octets of an IPv4 header without options (RFC 791 §3.1).
const IPV4_LEN: usize = 20;
/// Octets of an IPv6 header without extensions (RFC 8200 §3).
const IPV6_LEN: usize = 40;
/// The two bits of ECN in the IPv4 type of service or the IPv6 traffic class (RFC 3168 §5).
const MASK: u8 = 0b11;

/// An ECN codepoint (RFC 3168 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not know ECN.
    #[default]
    NotEct = 0b00,
    /// It does: the codepoint ECT(1).
    Ect1 = 0b01,
    /// It does: the codepoint ECT(0).
    Ect0 = 0b10,
    /// A router on the way met congestion.
    Ce = 0b11,
}

/// The outer header says congestion and the inner transport would not understand: the frame is dropped in the mark's stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("congestion marked on a frame whose transport does not know ECN")]
pub struct Invalid;

impl Ecn {
    /// The codepoint in the type of service of an IPv4 header, or the traffic class of an IPv6 header.
    #[inline]
    pub const fn of_tos(tos: u8) -> Self {
        match tos & MASK {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// `tos` with this codepoint in the place of its own.
    #[inline]
    pub const fn in_tos(self, tos: u8) -> u8 {
        tos & !MASK | self as u8
    }
}

/// The codepoint of the outer header: that of the inner one, which is the normal mode that every tunnel ingress has to have
/// (RFC 6040 §4.1, figure 3). A frame that is no IP packet counts as [`Ecn::NotEct`].
#[inline]
pub const fn encapsulate(inner: Ecn) -> Ecn {
    inner
}

/// The codepoint that the inner header leaves the tunnel with:
///
/// ```text
/// +---------+------------------------------------------------+
/// |Arriving |            Arriving Outer Header               |
/// |   Inner +---------+------------+------------+------------+
/// |  Header | Not-ECT | ECT(0)     | ECT(1)     |     CE     |
/// +---------+---------+------------+------------+------------+
/// | Not-ECT | Not-ECT |Not-ECT(!!!)|Not-ECT(!!!)| <drop>(!!!)|
/// |  ECT(0) |  ECT(0) | ECT(0)     | ECT(1)     |     CE     |
/// |  ECT(1) |  ECT(1) | ECT(1) (!) | ECT(1)     |     CE     |
/// |    CE   |      CE |     CE     |     CE(!!!)|     CE     |
/// +---------+---------+------------+------------+------------+
///        Figure 4: New IP in IP Decapsulation Behaviour
/// ```
///
/// "a compliant tunnel egress MUST set the outgoing ECN field to the codepoint at the intersection of the appropriate arriving inner header
/// (row) and outer header (column) in Figure 4" (RFC 6040 §4.2). Combinations with exclamation marks should not occur; apart from the
/// one that is dropped they are forwarded with what stands beside the marks. Linux does the same (`__INET_ECN_decapsulate`).
#[inline]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Result<Ecn, Invalid> {
    Ok(match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => return Err(Invalid),
        (Ecn::NotEct, _) => Ecn::NotEct,
        (Ecn::Ce, _) | (_, Ecn::Ce) => Ecn::Ce,
        (Ecn::Ect1, _) | (_, Ecn::Ect1) => Ecn::Ect1,
        (Ecn::Ect0, Ecn::NotEct | Ecn::Ect0) => Ecn::Ect0,
    })
}

/// The type of service and the time to live of the IPv4 packet in a frame, or the traffic class and the hop limit of the IPv6 packet;
/// `None` where there is neither, behind up to four tags.
#[inline]
pub fn of(frame: &[u8]) -> Option<(u8, u8)> {
    let (_, ethertype, l3) = skip_tags(frame, ADDRS_LEN).ok()?;
    let packet = frame.get(l3..)?;
    match ethertype {
        EtherType::IPV4 => {
            let header = packet.first_chunk::<IPV4_LEN>()?;
            (header[0] >> 4 == 4).then_some((header[1], header[8]))
        }
        EtherType::IPV6 => {
            let header = packet.first_chunk::<IPV6_LEN>()?;
            (header[0] >> 4 == 6).then_some((header[0] << 4 | header[1] >> 4, header[7]))
        }
        _ => None,
    }
}

/// Sets the codepoint of the IP packet in a frame, behind up to four tags, and keeps the checksum of an IPv4 header as right, or
/// wrong, as it was. A frame that is no IP packet is left as it is.
#[inline]
pub fn mark(frame: &mut [u8], ecn: Ecn) {
    let Ok((_, ethertype, l3)) = skip_tags(frame, ADDRS_LEN) else { return };
    let Some(packet) = frame.get_mut(l3..) else { return };
    match ethertype {
        EtherType::IPV4 => {
            let Some(header) = packet.first_chunk_mut::<IPV4_LEN>() else { return };
            let tos = ecn.in_tos(header[1]);
            if header[0] >> 4 != 4 || header[1] == tos {
                return;
            }
            let before = u16::from_be_bytes([header[0], header[1]]);
            header[1] = tos;
            let after = u16::from_be_bytes([header[0], tos]);
            let checksum = u16::from_be_bytes([header[10], header[11]]);
            [header[10], header[11]] = updated(checksum, before, after).to_be_bytes();
        }
        EtherType::IPV6 => {
            let Some(header) = packet.first_chunk_mut::<IPV6_LEN>() else { return };
            if header[0] >> 4 == 6 {
                // The traffic class stands across two octets, its last bits at 4 and 5 of the second.
                header[1] = header[1] & !(MASK << 4) | (ecn as u8) << 4;
            }
        }
        _ => {}
    }
}

/// A checksum after one word under it has changed: `HC' = ~(~HC + ~m + m')` (RFC 1624 §3, equation 3).
#[inline]
const fn updated(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = !checksum as u32 + !before as u32 + after as u32; // below 3 * 2^16
    let sum = (sum & 0xffff) + (sum >> 16); // at most 2^16 + 1
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sample;

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

    fn frame(tags: usize, six: bool, tos: u8) -> Vec<u8> {
        let tags: Vec<_> = (0..tags).map(|n| [if n == 0 { 0x88a8 } else { 0x8100 }, 7]).collect();
        let udp = sample::udp(5, 6, b"payload");
        if six {
            let mut packet = sample::ipv6(17, &udp);
            packet[0] |= tos >> 4;
            packet[1] = tos << 4 | 0x0b; // and a flow label
            sample::ethernet(&tags, EtherType::IPV6, &packet)
        } else {
            let mut packet = sample::ipv4(17, &udp);
            packet[1] = tos;
            packet[10..12].fill(0);
            let sum = !sample::naive_sum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            sample::ethernet(&tags, EtherType::IPV4, &packet)
        }
    }

    #[test]
    fn the_outer_header_has_the_codepoint_of_the_inner_one() {
        // RFC 6040 §4.1, figure 3, "Normal Mode": Not-ECT, ECT(0), ECT(1) and CE each become what they are.
        for ecn in ALL {
            assert_eq!(encapsulate(ecn), ecn);
        }
    }

    #[test]
    fn every_entry_of_figure_4_comes_out_as_printed() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        for (inner, row) in [
            //        Not-ECT      ECT(0)       ECT(1)       CE
            (NotEct, [Ok(NotEct), Ok(NotEct), Ok(NotEct), Err(Invalid)]),
            (Ect0, [Ok(Ect0), Ok(Ect0), Ok(Ect1), Ok(Ce)]),
            (Ect1, [Ok(Ect1), Ok(Ect1), Ok(Ect1), Ok(Ce)]),
            (Ce, [Ok(Ce), Ok(Ce), Ok(Ce), Ok(Ce)]),
        ] {
            for (outer, expected) in ALL.into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn codepoints_have_the_bits_of_rfc_3168() {
        for (ecn, bits) in [(Ecn::NotEct, 0), (Ecn::Ect1, 1), (Ecn::Ect0, 2), (Ecn::Ce, 3)] {
            assert_eq!((Ecn::of_tos(0xb8 | bits), ecn.in_tos(0xbb), ecn.in_tos(0)), (ecn, 0xb8 | bits, bits));
        }
    }

    #[test]
    fn what_can_be_inherited_is_found_behind_up_to_four_tags() {
        for tags in 0..=5 {
            for six in [false, true] {
                let found = of(&frame(tags, six, 0xb9));
                assert_eq!(found, (tags <= 4).then_some((0xb9, 64)), "{tags} tags, IPv6 {six}");
            }
        }
        assert_eq!(of(&sample::ethernet(&[], EtherType::ARP, &[0x45; 28])), None);
        assert_eq!(
            of(&sample::ethernet(&[], EtherType::IPV4, &[0x65; 40])),
            None,
            "IPv6 under the type of IPv4"
        );
        assert_eq!(of(&sample::ethernet(&[], EtherType::IPV6, &[0x45; 40])), None);
    }

    #[test]
    fn a_mark_changes_the_codepoint_and_the_checksum_alone() {
        // 0x4500 becomes 0x4503 in a header whose checksum is that of the sample.
        let mut marked = frame(0, false, 0);
        let plain = marked.clone();
        mark(&mut marked, Ecn::Ce);
        let changed: Vec<_> = (0..plain.len()).filter(|&n| plain[n] != marked[n]).collect();
        assert_eq!(changed, [15, 25], "the type of service, and the low octet of the checksum");
        assert_eq!((marked[15], plain[25].wrapping_sub(marked[25])), (3, 3));
        assert_eq!(sample::naive_sum(&marked[14..34]), 0xffff);
        let mut six = frame(2, true, 0xb8);
        mark(&mut six, Ecn::Ect1);
        assert_eq!(six, frame(2, true, 0xb9));
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_zero() {
        // RFC 1624 §4: "HC' = ~(~HC + ~m + m') = ~(0x22D2 + ~5555 + 3285) = ~(0xFFFF) = 0x0000".
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn what_is_no_ip_packet_is_left_alone() {
        for frame in [
            sample::ethernet(&[], EtherType::ARP, &[0x45; 28]),
            sample::ethernet(&[], EtherType::IPV4, &[0x45; 19]),
            sample::ethernet(&[], EtherType::IPV4, &[0x65; 40]),
            sample::ethernet(&[], EtherType::IPV6, &[0x60; 39]),
            sample::ethernet(&[], EtherType::IPV6, &[0x45; 40]),
            sample::ethernet(&[[0x8100, 1]; 5], EtherType::IPV4, &[0x45; 40]),
            vec![0; 13],
        ] {
            let mut marked = frame.clone();
            mark(&mut marked, Ecn::Ce);
            assert_eq!(marked, frame);
        }
    }

    proptest! {
        #[test]
        fn a_marked_frame_is_the_frame_built_with_the_mark(tags in 0usize..5, six: bool, tos: u8, n in 0usize..4) {
            let mut marked = frame(tags, six, tos);
            mark(&mut marked, ALL[n]);
            prop_assert_eq!(&marked, &frame(tags, six, ALL[n].in_tos(tos)));
            prop_assert_eq!(of(&marked).map(|(tos, _)| Ecn::of_tos(tos)), Some(ALL[n]));
        }

        #[test]
        fn any_octets_can_be_marked_and_a_wrong_checksum_stays_as_wrong(
            mut packet in prop::collection::vec(any::<u8>(), 20..60), n in 0usize..4,
        ) {
            packet[0] = 0x45;
            let before = sample::naive_sum(&packet[..20]);
            let mut frame = sample::ethernet(&[], EtherType::IPV4, &packet);
            mark(&mut frame, ALL[n]);
            prop_assert_eq!(sample::naive_sum(&frame[14..34]) % 0xffff, before % 0xffff);
        }
    }
}
