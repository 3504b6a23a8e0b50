//! Frames made by hand, and what is right about a frame that came out.

use super::packet::VNET_HDR;

/// For local experiments (IEEE 802, clause 9.2.4 of 802-2014): nobody answers it.
pub(crate) const EXPERIMENTAL: u16 = 0x88b5;
/// IPv4.
pub(crate) const IPV4: u16 = 0x0800;
/// Everybody.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
/// Octets of Ethernet, IPv4 and TCP in front of the payload of [`tcp4`].
pub(crate) const TCP4_HEADERS: usize = 14 + 20 + 20;

/// The address of station `n`.
pub(crate) const fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0x0a, n]
}

/// An 802.1Q tag.
pub(crate) const fn tag(pcp: u8, dei: bool, vid: u16) -> [u8; 4] {
    [0x81, 0, pcp << 5 | (dei as u8) << 4 | (vid >> 8) as u8, vid as u8]
}

/// A frame with these tags, outermost first.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], tags: &[[u8; 4]], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, tags.as_flattened(), &kind.to_be_bytes(), payload].concat()
}

/// TCP over IPv4 (RFC 9293, RFC 791) from 198.51.100.1 to 198.51.100.2, its TCP checksum still partial.
pub(crate) fn tcp4(to: [u8; 6], from: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let len = 40 + payload.len() as u16;
    let mut ip = [0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2];
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    let sum = !sum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut tcp = [0x10, 0, 0x20, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    tcp[16..18].copy_from_slice(&pseudo_header(&ip, len - 20).to_be_bytes());
    frame(to, from, &[], IPV4, &[&ip[..], &tcp, payload].concat())
}

/// The virtio header (virtio 1.2 §5.1.6) of a [`tcp4`] that is made of segments of `size` octets.
pub(crate) fn tcp4_vnet(size: u16) -> [u8; VNET_HDR] {
    vnet(1, 1, TCP4_HEADERS as u16, size, 34, 16)
}

/// A virtio header, field by field.
pub(crate) fn vnet(
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    start: u16,
    offset: u16,
) -> [u8; VNET_HDR] {
    let mut header = [0; VNET_HDR];
    header[..2].copy_from_slice(&[flags, gso_type]);
    for (at, value) in [(2, hdr_len), (4, gso_size), (6, start), (8, offset)] {
        header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    header
}

/// Whether both checksums of an untagged TCP or UDP frame over IPv4 without options are right.
pub(crate) fn checksums_are_right(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let len = u16::from_be_bytes([ip[2], ip[3]]);
    let (header, transport) = ip[..usize::from(len)].split_at(20);
    sum(&[header]) == 0xffff && sum(&[&pseudo_header(header, len - 20).to_be_bytes(), transport]) == 0xffff
}

/// The sum over the pseudo-header (RFC 9293 §3.1).
fn pseudo_header(ip: &[u8], transport_len: u16) -> u16 {
    sum(&[&ip[12..20], &[0, ip[9]], &transport_len.to_be_bytes()])
}

/// The one's complement sum (RFC 1071) of parts of which all but the last have an even length.
fn sum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
