//! Frames for tests, put together from their layers, and checksums computed the slow and obvious way.

use super::EtherType;

/// The protocol number of hop-by-hop options.
pub(crate) const HOP_BY_HOP: u8 = 0;
/// The source address of every sample.
pub(crate) const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An Ethernet frame with these tags, each its type and its control information.
pub(crate) fn ethernet(tags: &[[u16; 2]], ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2];
    frame.extend(SOURCE);
    for word in tags.as_flattened().iter().chain([&ethertype.0]) {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// An IPv4 packet from 198.51.100.1 to 198.51.100.2.
pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with_options(protocol, &[], payload)
}

/// The same with options, a multiple of 4 octets.
pub(crate) fn ipv4_with_options(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
    packet.extend(((header_len + payload.len()) as u16).to_be_bytes());
    packet.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2]);
    packet.extend(options);
    let sum = !naive_sum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet from 2001:db8::1 to 2001:db8::2.
pub(crate) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    for last in [1, 2] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of `len` octets, a multiple of 8, before `next_header`.
pub(crate) fn ext(next_header: u8, len: usize) -> Vec<u8> {
    let mut header = vec![0; len];
    header[0] = next_header;
    header[1] = (len / 8 - 1) as u8;
    header
}

/// A TCP segment with an empty checksum.
pub(crate) fn tcp(sequence: u32, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0x14, 0x51];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 9, ((5 + options.len() / 4) << 4) as u8, flags, 1, 2, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

/// A UDP datagram with an empty checksum.
pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    for word in [source, destination, 8 + payload.len() as u16, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

/// The one's complement sum of RFC 1071 §1, word by word.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0u16, |sum, word| {
        let word = u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// The sum over the pseudo-header of an IP packet without extension headers, and `transport_len` (RFC 9293 §3.1, RFC 8200 §8.1).
pub(crate) fn pseudo_sum(packet: &[u8], transport_len: usize) -> u16 {
    let (addresses, protocol) =
        if packet[0] >> 4 == 4 { (&packet[12..20], packet[9]) } else { (&packet[8..40], packet[6]) };
    let mut bytes = addresses.to_vec();
    bytes.extend((transport_len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    naive_sum(&bytes)
}
