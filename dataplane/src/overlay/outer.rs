//! The outer Ethernet, IP and UDP headers, where the switch writes them itself: on an uplink.
//!
//! ```text
//! | Ethernet 14 | IPv4 20, IPv6 40 | UDP 8 | VXLAN or Geneve header | frame |
//! '------------- Outer -------------------'-------- payload ---------------'
//! ```
//!
//! Out, an [`Outer`] holds what all packets to one remote have in common, with its checksums summed up; a packet costs a copy of at most
//! 62 octets and a few additions. In, [`parse`] says where the payload of a packet is, and for whom, once everything in front of it holds.
//! Neither reads the payload, unless a UDP checksum over it is asked for.
//!
//! A super-frame can be longer than the 16 bits of a length field say. Its lengths are then 0, as Linux writes them
//! (`iph_set_totlen`, `ipv6_set_payload_len`), and whoever splits it writes those of the segments. The receiving half of a Linux stack wants a
//! UDP length all the same (`__udp4_lib_rcv`), so that a packet which may be delivered whole has to stay within
//! [`max_payload`](Outer::max_payload).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use crate::{
    offload::checksum::{Sum, not_zero},
    wire::{
        EtherType, Layers, MacAddr,
        ethernet::{ADDRS_LEN, HEADER_LEN},
        layers::{Fragment, be16},
    },
};

#[cfg(test)]
mod tests;

/// The most octets of outer headers: Ethernet, IPv6 and UDP.
pub const MAX_LEN: usize = HEADER_LEN + IPV6_LEN + UDP_LEN;
/// Octets of an IPv4 header without options (RFC 791 §3.1).
const IPV4_LEN: usize = 20;
/// Octets of an IPv6 header without extensions (RFC 8200 §3).
const IPV6_LEN: usize = 40;
/// Octets of a UDP header (RFC 768).
const UDP_LEN: usize = 8;
/// IP protocol number of UDP.
const UDP: u8 = 17;
/// "Don't fragment" in the word of an IPv4 header that has flags and offset.
const DF: u16 = 0x4000;

/// The addresses of both ends of a tunnel, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// An IPv4 underlay.
    V4 {
        /// Our own.
        source: Ipv4Addr,
        /// The remote's, or a multicast group.
        destination: Ipv4Addr,
    },
    /// An IPv6 underlay.
    V6 {
        /// Our own.
        source: Ipv6Addr,
        /// The remote's, or a multicast group.
        destination: Ipv6Addr,
    },
}

/// Whether routers may fragment a packet of IPv4; those of IPv6 never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Df {
    /// They may not. The identification is 0: it has no meaning in a packet that is never fragmented (RFC 6864 §4.1).
    Set,
    /// They may.
    Unset {
        /// What tells the fragments of one packet from those of another.
        id: u16,
    },
}

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The flow's number (see [`source_port`](super::entropy::source_port)).
    pub source_port: u16,
    /// Type of service, or traffic class, with its ECN bits.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// See [`Df`].
    pub df: Df,
}

/// What the UDP checksum is to be.
#[derive(Clone, Copy, Debug)]
pub enum UdpChecksum<'a> {
    /// None: "It SHOULD be transmitted as zero" (RFC 7348 §5). Geneve would rather have one (RFC 8926 §3.3), and over IPv6 the
    /// receiver has to agree (RFC 6935, RFC 6936).
    Zero,
    /// The sum of the pseudo-header alone; an offload, which begins at the UDP header, adds the rest.
    Partial,
    /// Over everything; the payload is in these slices, one behind the other.
    Complete(&'a [&'a [u8]]),
}

/// The headers of all packets to one remote.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    template: [u8; MAX_LEN],
    len: usize,
    /// Over the addresses.
    addresses: Sum,
    port: u16,
}

impl Outer {
    /// Headers from one station to another, between these addresses, to this UDP port.
    pub fn new(source: MacAddr, destination: MacAddr, addresses: Addresses, port: u16) -> Self {
        let mut template = [0; MAX_LEN];
        template[..6].copy_from_slice(&destination.octets());
        template[6..ADDRS_LEN].copy_from_slice(&source.octets());
        let (ethertype, len, sum) = match addresses {
            Addresses::V4 { source, destination } => {
                template[26..30].copy_from_slice(&source.octets());
                template[30..34].copy_from_slice(&destination.octets());
                (EtherType::IPV4, HEADER_LEN + IPV4_LEN + UDP_LEN, Sum::of(&template[26..34]))
            }
            Addresses::V6 { source, destination } => {
                template[22..38].copy_from_slice(&source.octets());
                template[38..54].copy_from_slice(&destination.octets());
                (EtherType::IPV6, MAX_LEN, Sum::of(&template[22..54]))
            }
        };
        template[ADDRS_LEN..HEADER_LEN].copy_from_slice(&ethertype.0.to_be_bytes());
        Self { template, len, addresses: sum, port }
    }

    /// Octets of the headers: 42 over IPv4, 62 over IPv6.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "headers are never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The longest payload of which the length fields can tell the length.
    #[inline]
    pub fn max_payload(&self) -> usize {
        // The total length of IPv4 includes its header (RFC 791 §3.1), the payload length of IPv6 does not (RFC 8200 §3).
        if self.is_v4() { 0xffff - IPV4_LEN - UDP_LEN } else { 0xffff - UDP_LEN }
    }

    #[inline]
    fn is_v4(&self) -> bool {
        self.len != MAX_LEN
    }

    /// Writes the headers of a packet with `payload` octets behind them to the start of `out`, and says how many octets they have;
    /// `None` where `out` is too short.
    #[inline]
    pub fn write(
        &self,
        fields: &Fields,
        payload: usize,
        checksum: UdpChecksum<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        let udp_len = UDP_LEN + payload;
        let udp = if self.is_v4() {
            let (out, _) = out.split_first_chunk_mut::<{ HEADER_LEN + IPV4_LEN + UDP_LEN }>()?;
            let (template, _) = self.template.split_first_chunk()?;
            *out = *template;
            let (_, packet) = out.split_first_chunk_mut::<HEADER_LEN>()?;
            let (ip, udp) = packet.split_first_chunk_mut::<IPV4_LEN>()?;
            self.write_ipv4(fields, udp_len, ip);
            udp
        } else {
            let (out, _) = out.split_first_chunk_mut::<MAX_LEN>()?;
            *out = self.template;
            let (_, packet) = out.split_first_chunk_mut::<HEADER_LEN>()?;
            let (ip, udp) = packet.split_first_chunk_mut::<IPV6_LEN>()?;
            write_ipv6(fields, udp_len, ip);
            udp
        };
        let len = length(udp_len);
        // "The pseudo header … contains the source address, the destination address, the protocol, and the UDP length" (RFC 768);
        // the length is that of the whole super-frame, for whoever splits it takes that away again (`__skb_udp_tunnel_segment`).
        let pseudo = self.addresses.add(UDP.into()).add32(udp_len as u32);
        let sum = match checksum {
            UdpChecksum::Zero => 0,
            UdpChecksum::Partial => pseudo.fold(),
            UdpChecksum::Complete(payload) => {
                let header = pseudo.add(fields.source_port).add(self.port).add(len);
                not_zero(!header.and(sum_of(payload)).fold())
            }
        };
        let [s0, s1] = fields.source_port.to_be_bytes();
        let [d0, d1] = self.port.to_be_bytes();
        let [l0, l1] = len.to_be_bytes();
        let [c0, c1] = sum.to_be_bytes();
        udp.copy_from_slice(&[s0, s1, d0, d1, l0, l1, c0, c1]);
        Some(self.len)
    }

    #[inline]
    fn write_ipv4(&self, fields: &Fields, udp_len: usize, ip: &mut [u8; IPV4_LEN]) {
        let len = length(IPV4_LEN + udp_len);
        let (id, flags) = match fields.df {
            Df::Set => (0, DF),
            Df::Unset { id } => (id, 0),
        };
        let first = u16::from_be_bytes([0x45, fields.tos]);
        let ttl = u16::from_be_bytes([fields.ttl, UDP]);
        let sum = !self.addresses.add(first).add(len).add(id).add(flags).add(ttl).fold();
        let [l0, l1] = len.to_be_bytes();
        let [i0, i1] = id.to_be_bytes();
        let [f0, f1] = flags.to_be_bytes();
        let [c0, c1] = sum.to_be_bytes();
        ip[..12].copy_from_slice(&[0x45, fields.tos, l0, l1, i0, i1, f0, f1, fields.ttl, UDP, c0, c1]);
    }
}

#[inline]
fn write_ipv6(fields: &Fields, udp_len: usize, ip: &mut [u8; IPV6_LEN]) {
    // The flow label stays 0: the source port says all there is to say of the flow.
    let [l0, l1] = length(udp_len).to_be_bytes();
    ip[..8].copy_from_slice(&[0x60 | fields.tos >> 4, fields.tos << 4, 0, 0, l0, l1, UDP, fields.ttl]);
}

/// A length field: 0 where the length has more than 16 bits.
#[inline]
fn length(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(0)
}

/// The sum over slices one behind the other. At an odd distance from the start the octets of each word change their places, and so do
/// those of the sum (RFC 1071 §2 B).
#[inline]
fn sum_of(slices: &[&[u8]]) -> Sum {
    let mut sum = Sum::default();
    let mut odd = false;
    for slice in slices {
        let part = Sum::of(slice);
        sum = if odd { sum.add(part.fold().swap_bytes()) } else { sum.and(part) };
        odd ^= slice.len() % 2 != 0;
    }
    sum
}

/// A UDP packet that came in by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Who sent it.
    pub source: IpAddr,
    /// One of our own addresses, or a multicast group: of the same family.
    pub destination: IpAddr,
    /// The flow's number.
    pub source_port: u16,
    /// Which tunnel it is for.
    pub destination_port: u16,
    /// Type of service, or traffic class, with its ECN bits.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Where the UDP payload is, in octets from the start of the frame.
    pub payload: Range<usize>,
    /// Whether there is a UDP checksum, which [`verify`] verifies. Without one, a packet over IPv4 "MUST be accepted for decapsulation"
    /// (RFC 7348 §5); over IPv6 only where that was agreed upon (RFC 6935, RFC 6936 §4).
    pub has_checksum: bool,
}

/// Why a frame from an uplink is no packet for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The frame ends before the headers do.
    #[error("truncated")]
    Truncated,
    /// It is something else, perhaps in good order: tagged, not IP, or not UDP.
    #[error("not UDP")]
    NotUdp,
    /// The IP header, or an extension header, contradicts itself.
    #[error("malformed IP header")]
    IpHeader,
    /// The checksum of the IPv4 header is wrong.
    #[error("IPv4 header checksum")]
    Ipv4Checksum,
    /// The IP packet is longer than the frame, or shorter than its header.
    #[error("IP length")]
    IpLength,
    /// It is a fragment: "The destination VTEP MAY silently discard such VXLAN fragments" (RFC 7348 §4.3).
    #[error("fragment")]
    Fragment,
    /// The UDP datagram is longer than the IP packet, or shorter than its header.
    #[error("UDP length")]
    UdpLength,
}

/// Reads the headers of a frame from an uplink. `super_frame` says that it is one: then its lengths may be those that [`Outer`] writes
/// where they have more than 16 bits.
#[inline]
pub fn parse(frame: &[u8], super_frame: bool) -> Result<Inbound, Invalid> {
    let ethertype = EtherType(be16(frame, ADDRS_LEN).ok_or(Invalid::Truncated)?);
    let packet = frame.get(HEADER_LEN..).ok_or(Invalid::Truncated)?;
    // What a length field says, the rest of the frame where it says nothing of a super-frame.
    let ends = |fixed: usize, field: [u8; 2]| match u16::from_be_bytes(field) {
        0 if super_frame => packet.len(),
        len => fixed + usize::from(len),
    };
    match ethertype {
        EtherType::IPV4 => {
            let header = packet.first_chunk::<IPV4_LEN>().ok_or(Invalid::Truncated)?;
            let len = usize::from(header[0] & 0xf) * 4;
            if header[0] >> 4 != 4 || len < IPV4_LEN {
                return Err(Invalid::IpHeader);
            }
            // The sum over a length that is known beforehand costs a third.
            let sum = match len {
                IPV4_LEN => Sum::of(header),
                _ => Sum::of(packet.get(..len).ok_or(Invalid::Truncated)?),
            };
            if sum.fold() != 0xffff {
                return Err(Invalid::Ipv4Checksum);
            }
            let datagram = packet.get(len..ends(0, [header[2], header[3]])).ok_or(Invalid::IpLength)?;
            if header[9] != UDP {
                return Err(Invalid::NotUdp);
            }
            if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
                return Err(Invalid::Fragment); // "more fragments", or an offset
            }
            let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
            let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
            let ip = Ip { tos: header[1], ttl: header[8], source, destination };
            ip.inbound(datagram, HEADER_LEN + len, super_frame)
        }
        EtherType::IPV6 => {
            let header = packet.first_chunk::<IPV6_LEN>().ok_or(Invalid::Truncated)?;
            if header[0] >> 4 != 6 {
                return Err(Invalid::IpHeader);
            }
            let end = ends(IPV6_LEN, [header[4], header[5]]);
            let l4 = if header[6] == UDP { IPV6_LEN } else { behind_extensions(frame)? };
            let datagram = packet.get(l4..end).ok_or(Invalid::IpLength)?;
            let ([source, destination], _) = header[8..].as_chunks::<16>() else {
                return Err(Invalid::IpHeader);
            };
            let tos = header[0] << 4 | header[1] >> 4;
            let ip = Ip { tos, ttl: header[7], source: *source, destination: *destination };
            ip.inbound(datagram, HEADER_LEN + l4, super_frame)
        }
        _ => Err(Invalid::NotUdp),
    }
}

/// Where the UDP header of an IPv6 packet with extension headers begins, in octets from the start of the packet.
#[cold]
fn behind_extensions(frame: &[u8]) -> Result<usize, Invalid> {
    match Layers::parse(frame) {
        Ok(Layers { ip: Some(ip), l3, .. }) if ip.protocol == UDP => match ip.fragment {
            Fragment::No => Ok(ip.l4 - l3),
            Fragment::First | Fragment::Later => Err(Invalid::Fragment),
        },
        Ok(_) => Err(Invalid::NotUdp),
        Err(_) => Err(Invalid::IpHeader),
    }
}

/// What is read of an IP header.
struct Ip<A> {
    tos: u8,
    ttl: u8,
    source: A,
    destination: A,
}

impl<A: Into<IpAddr>> Ip<A> {
    /// The packet with this datagram, which begins at octet `l4` of the frame.
    #[inline]
    fn inbound(self, datagram: &[u8], l4: usize, super_frame: bool) -> Result<Inbound, Invalid> {
        let &[s0, s1, d0, d1, l0, l1, c0, c1] = datagram.first_chunk().ok_or(Invalid::UdpLength)?;
        let len = if super_frame && datagram.len() > 0xffff {
            datagram.len() // Linux writes the low 16 bits (`udp_tunnel_xmit_skb`), or 0
        } else {
            usize::from(u16::from_be_bytes([l0, l1]))
        };
        if len < UDP_LEN || len > datagram.len() {
            return Err(Invalid::UdpLength);
        }
        Ok(Inbound {
            source: self.source.into(),
            destination: self.destination.into(),
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            tos: self.tos,
            ttl: self.ttl,
            payload: l4 + UDP_LEN..l4 + len,
            has_checksum: [c0, c1] != [0, 0],
        })
    }
}

/// Whether the UDP checksum of a packet holds, or there is none. `inbound` is what [`parse`] said of `frame`.
///
/// To be asked only where nobody vouches for the checksum. "If it chooses to perform such verification, and the verification fails, the
/// packet MUST be dropped" (RFC 7348 §5).
pub fn verify(frame: &[u8], inbound: &Inbound) -> bool {
    if !inbound.has_checksum {
        return true;
    }
    let Range { start, end } = inbound.payload;
    let Some(datagram) = start.checked_sub(UDP_LEN).and_then(|start| frame.get(start..end)) else {
        return false;
    };
    let address = |address: &IpAddr| match address {
        IpAddr::V4(address) => Sum::of(&address.octets()),
        IpAddr::V6(address) => Sum::of(&address.octets()),
    };
    let pseudo = address(&inbound.source).and(address(&inbound.destination));
    pseudo.add(UDP.into()).add32(datagram.len() as u32).and(Sum::of(datagram)).fold() == 0xffff
}
