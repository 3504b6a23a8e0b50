//! What a tunnel answers to the sender of a packet that does not fit: destination unreachable, fragmentation needed (RFC 792,
//! RFC 1191 §4), or packet too big (RFC 4443 §3.2).
//!
//! Owns the message, and about which packets there is none. Whether a packet fits, and what becomes of it, the caller decides.
//!
//! A tunnel between bridges has no address in the network of the stations. So the message comes from the address that the sender wrote
//! to, and from that station's MAC address, as from the kernel's bridged tunnels (`skb_tunnel_check_pmtu`,
//! `iptunnel_pmtud_build_icmp`, `iptunnel_pmtud_build_icmpv6`); the caller sends it out by the port that the packet came from.
//!
//! An IPv4 packet whose sender lets it be fragmented (DF clear) gets no message. The caller sends it on: the outer packet is
//! fragmented, and put together again at the other end.
//!
//! What is quoted is quoted as it stands, by the kernel as well:
//! - of a super-frame the headers before segmentation, with its total length. The sender's stack finds the connection by the addresses,
//!   ports and sequence number, which are those of the first segment;
//! - a partial transport checksum stays partial: nobody verifies a checksum over a payload that is cut off.
//!
//! Where this differs from the kernel:
//! - A frame with VLAN tags in it gets its message, with the same tags. The kernel looks at what follows the addresses alone.
//! - An IPv4 tunnel MTU below 576 is told as well. A Linux sender that hears of so little clears DF (`ip_rt_update_pmtu`), and with that
//!   its packets pass; with silence they would not.
//! - The first fragment of an IPv4 packet with DF gets its message, and so does a packet whose reserved bit is set. The later fragments of
//!   an IPv6 packet get none; the kernel (6.18) sends one for each.
//! - A message never comes from a multicast address (RFC 4443 §2.2), so IPv6 packets to groups get none.
//! - Addresses that RFC 1122 §3.2.2 names get none: all of network zero and class E, and none of them is a source.
//! - The message begins with a TTL of at least 64. The kernel gives it what the packet had left, so that a probe whose TTL is just
//!   used up here (tracepath) would never hear of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    offload::checksum::Sum,
    wire::{
        Layers,
        dot1q::TAG_LEN,
        ethernet::{ADDRS_LEN, HEADER_LEN},
        layers::{Fragment, Ip, MAX_TAGS, Version},
    },
};

const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
/// Octets of an ICMP or ICMPv6 header in front of what it quotes.
const ICMP_HEADER_LEN: usize = 8;

/// The longest ICMP message: "as much of the original datagram as possible without the length of the ICMP datagram exceeding 576
/// bytes" (RFC 1812 §4.3.2.3).
const MAX_IPV4: usize = 576;
/// The longest ICMPv6 message: "as much of the IPv6 offending (invoking) packet [...] as possible without making the error message
/// packet exceed the minimum IPv6 MTU" (RFC 4443 §2.4 c, RFC 8200 §5).
const MAX_IPV6: usize = 1280;
/// "Every internet module must be able to forward a datagram of 68 octets without further fragmentation" (RFC 791 §3.2).
const MIN_MTU_IPV4: u32 = 68;
/// What senders would disregard: "A node MUST NOT reduce its estimate of the Path MTU below the IPv6 minimum link MTU" (RFC 8201 §4).
const MIN_MTU_IPV6: u32 = 1280;

/// The least TTL of a message; the default of RFC 1700 and of the kernel (`IPDEFTTL`).
const MIN_TTL: u8 = 64;

/// IP protocol numbers.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// ICMP types (RFC 792).
const DESTINATION_UNREACHABLE: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
/// The code of "fragmentation needed and DF set".
const FRAGMENTATION_NEEDED: u8 = 4;

/// ICMPv6 types: errors are those below 128 (RFC 4443 §2.1); redirect is RFC 4861 §4.5.
const PACKET_TOO_BIG: u8 = 2;
const INFORMATIONAL: u8 = 128;
const REDIRECT_V6: u8 = 137;

/// "DF (don't fragment)" in the octet with the flags (RFC 791 §3.1).
const DF: u8 = 0x40;

/// The longest frame that [`reply`] writes: with the switch's own tag, and as many more as are looked through.
pub const MAX_REPLY: usize = HEADER_LEN + TAG_LEN * (1 + MAX_TAGS as usize) + MAX_IPV6;

/// Writes the message that `frame` does not fit a tunnel that takes IP packets of `mtu` octets: a whole frame with the same tags, to
/// the start of `out`, which has [`MAX_REPLY`] octets or more. Its type, or next tag, stands at octet `type_at` of `frame`.
///
/// `None` where there is to be no message: neither IPv4 with DF nor IPv6, a malformed packet, one that is an ICMP error, a fragment other
/// than the first, one from or to an address that is not of a single station, or an `mtu` that IP does not know.
pub fn reply(frame: &[u8], type_at: usize, mtu: u32, out: &mut [u8]) -> Option<usize> {
    let layers = Layers::parse_at(frame, type_at).ok()?;
    let ip = layers.ip?;
    let (destination, source) = frame.get(..ADDRS_LEN)?.split_at_checked(6)?;
    // RFC 1122 §3.2.2: not about "a datagram sent as a link-layer broadcast". And no station is called by a group.
    if destination.first()? & 1 != 0 || source.first()? & 1 != 0 {
        return None;
    }
    // RFC 1122 §3.2.2: not about "a non-initial fragment".
    if ip.fragment == Fragment::Later || is_error(frame, &ip)? {
        return None;
    }
    let packet = frame.get(layers.l3..ip.end)?;
    let (head, body) = out.split_at_mut_checked(layers.l3)?;
    let body_len = match ip.version {
        Version::V4 => fragmentation_needed(packet, mtu, body)?,
        Version::V6 => packet_too_big(packet, mtu, body)?,
    };
    let (addresses, tags_and_type) = head.split_at_mut_checked(ADDRS_LEN)?;
    let (to, from) = addresses.split_at_mut_checked(6)?;
    to.copy_from_slice(source);
    from.copy_from_slice(destination);
    tags_and_type.copy_from_slice(frame.get(ADDRS_LEN..layers.l3)?);
    Some(layers.l3 + body_len)
}

/// Whether the packet is an ICMP error; `None` where it is ICMP but its type is not there.
/// RFC 4443 §2.4 e: not about "an ICMPv6 error message" nor "an ICMPv6 redirect message"; RFC 1122 §3.2.2: not about "an ICMP error
/// message".
fn is_error(frame: &[u8], ip: &Ip) -> Option<bool> {
    let kind = || frame.get(ip.l4..ip.end)?.first();
    Some(match (ip.version, ip.protocol) {
        (Version::V4, ICMP) => matches!(
            *kind()?,
            DESTINATION_UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        ),
        (Version::V6, ICMPV6) => matches!(*kind()?, 0..INFORMATIONAL | REDIRECT_V6),
        _ => false,
    })
}

fn fragmentation_needed(packet: &[u8], mtu: u32, out: &mut [u8]) -> Option<usize> {
    let header = packet.first_chunk::<IPV4_HEADER_LEN>()?;
    let &[_, _, _, _, _, _, flags, _, ttl, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    if flags & DF == 0 || mtu < MIN_MTU_IPV4 || !is_host_v4(source.into()) || !is_host_v4(destination.into())
    {
        return None;
    }
    let quote = packet.get(..packet.len().min(MAX_IPV4 - IPV4_HEADER_LEN - ICMP_HEADER_LEN))?;
    let len = IPV4_HEADER_LEN + ICMP_HEADER_LEN + quote.len();

    // RFC 1191 §4: the next-hop MTU is in "the low-order 16 bits of the ICMP header field that is labelled 'unused'".
    let [m0, m1] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
    let mut icmp = [DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, m0, m1];
    let sum = !Sum::of(&icmp).and(Sum::of(quote)).fold();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let [l0, l1] = (len as u16).to_be_bytes();
    let ttl = ttl.max(MIN_TTL);
    let mut ip = [0x45, 0, l0, l1, 0, 0, DF, 0, ttl, ICMP, 0, 0, d0, d1, d2, d3, s0, s1, s2, s3];
    let sum = !Sum::of(&ip).fold();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    write(out, &[&ip, &icmp, quote])
}

fn packet_too_big(packet: &[u8], mtu: u32, out: &mut [u8]) -> Option<usize> {
    let header = packet.first_chunk::<IPV6_HEADER_LEN>()?;
    let source: [u8; 16] = *header.get(8..)?.first_chunk()?;
    let destination: [u8; 16] = *header.get(24..)?.first_chunk()?;
    if mtu < MIN_MTU_IPV6 || !is_host_v6(source.into()) || !is_host_v6(destination.into()) {
        return None;
    }
    let quote = packet.get(..packet.len().min(MAX_IPV6 - IPV6_HEADER_LEN - ICMP_HEADER_LEN))?;
    let len = ICMP_HEADER_LEN + quote.len();

    let [m0, m1, m2, m3] = mtu.to_be_bytes();
    let mut icmp = [PACKET_TOO_BIG, 0, 0, 0, m0, m1, m2, m3];
    // The pseudo-header: both addresses, the length, the protocol (RFC 4443 §2.3).
    let pseudo = Sum::of(&source).and(Sum::of(&destination)).add32(len as u32).add32(u32::from(ICMPV6));
    let sum = !pseudo.and(Sum::of(&icmp)).and(Sum::of(quote)).fold();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let [l0, l1] = (len as u16).to_be_bytes();
    let hop_limit = header[7].max(MIN_TTL);
    let ip = [0x60, 0, 0, 0, l0, l1, ICMPV6, hop_limit];
    write(out, &[&ip, &destination, &source, &icmp, quote])
}

/// Writes the parts one after the other; `None` where they do not fit.
fn write(mut out: &mut [u8], parts: &[&[u8]]) -> Option<usize> {
    for part in parts {
        let (place, rest) = out.split_at_mut_checked(part.len())?;
        place.copy_from_slice(part);
        out = rest;
    }
    Some(parts.iter().map(|part| part.len()).sum())
}

/// RFC 1122 §3.2.2: not about "a datagram destined to an IP broadcast or IP multicast address" nor "a datagram whose source address
/// does not define a single host -- e.g., a zero address, a loopback address, a broadcast address, a multicast address, or a
/// Class E address". Broadcast addresses of a subnet cannot be told here; their frames are broadcast.
fn is_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// RFC 4443 §2.4 e: not about "a packet whose source address does not uniquely identify a single node -- e.g., the IPv6 Unspecified
/// Address, an IPv6 multicast address". Loopback is never on a wire (RFC 4291 §2.5.3).
fn is_host_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests;
