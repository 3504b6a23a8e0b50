//! Frames for the benches, put together octet by octet.
#![allow(dead_code, unreachable_pub, reason = "shared by benches, none of which uses all of them")]

use std::net::{Ipv4Addr, Ipv6Addr};

use tapway_dataplane::{
    frame::{Checksum, Gso, GsoKind, Offload},
    wire::MacAddr,
};

/// Where the frames come from.
pub const SOURCE: MacAddr = MacAddr::from_octets([2, 0, 0, 0, 0, 1]);
/// See [`SOURCE`].
pub const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// See [`SOURCE`].
pub const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Octets of the TCP headers of the frames: 20 and the timestamps option with two of padding.
const TCP_LEN: usize = 32;

fn ethernet(tags: &[[u16; 2]], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2];
    frame.extend(SOURCE.octets());
    for word in tags.as_flattened().iter().chain([&ethertype]) {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

fn tcp(payload: usize) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 9, 0x80, 0x10, 1, 2, 0, 0, 0, 0];
    segment.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    segment.extend((0..payload).map(|n| (n * 7) as u8));
    segment
}

/// An ARP request.
pub fn arp() -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1];
    message.extend(SOURCE.octets());
    message.extend(SOURCE_V4.octets());
    message.extend([0, 0, 0, 0, 0, 0, 198, 51, 100, 2]);
    ethernet(&[], 0x0806, &message)
}

/// A TCP segment over IPv4.
pub fn tcp4(tags: &[[u16; 2]], payload: usize) -> Vec<u8> {
    let segment = tcp(payload);
    let mut packet = vec![0x45, 0];
    packet.extend((20 + segment.len() as u16).to_be_bytes());
    packet.extend([0, 7, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(SOURCE_V4.octets());
    packet.extend([198, 51, 100, 2]);
    packet.extend(segment);
    ethernet(tags, 0x0800, &packet)
}

/// A TCP segment over IPv6, behind extension headers of 8 octets each.
pub fn tcp6(extensions: &[u8], payload: usize) -> Vec<u8> {
    let mut chain = extensions.to_vec();
    chain.push(6);
    let mut rest = Vec::new();
    for next in &chain[1..] {
        rest.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
    }
    rest.extend(tcp(payload));
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((rest.len() as u16).to_be_bytes());
    packet.extend([chain[0], 64]);
    packet.extend(SOURCE_V6.octets());
    packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
    packet.extend(rest);
    ethernet(&[], 0x86dd, &packet)
}

/// The offload state of a super-frame of [`tcp4`] or [`tcp6`] that has no tags and no extension headers.
pub fn super_frame(kind: GsoKind, size: u16) -> Offload {
    let start = if kind == GsoKind::TcpV6 { 54 } else { 34 };
    Offload {
        csum: Checksum::Partial { start, offset: 16 },
        gso: Some(Gso { kind, size, hdr_len: start + TCP_LEN as u16, ecn: false }),
    }
}
