//! What a plain UDP socket sees of a kernel vxlan device as its peer, over a virtual underlay.
//!
//! ```text
//!   host a: a socket at 4789 ──── veth ──── host b: vx0, into which a super-frame is put whole
//! ```
//! Both super-frames arrive as *one* datagram that no MTU would let pass, with the inner checksum unfinished, and what `UDP_GRO` tells
//! is not about the datagram. So a stride alone must never be used to cut a datagram up.

use std::{
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::topo::*;

const VXLAN: usize = 8;
/// Ethernet, IPv4, and TCP or UDP.
const TCP_HEADERS: usize = 14 + 20 + 20;
const UDP_HEADERS: usize = 14 + 20 + 8;

/// Puts a super-frame into a device, as a guest behind it would: a packet socket with a virtio header (packet(7), `PACKET_VNET_HDR`).
fn inject(host: &Host, ifname: &str, header: [u8; 10], frame: &[u8]) {
    let index = host.index(ifname);
    let octets = [&header[..], frame].concat();
    host.run(|| {
        // SAFETY: takes numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(fd >= 0);
        // SAFETY: the descriptor was made for this call, and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let on: libc::c_int = 1;
        // SAFETY: reads one int, which outlives the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                4,
            )
        };
        assert_eq!(set, 0);
        // SAFETY: all zeros is a `sockaddr_ll`.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: reads the octets and the address, which outlive the call.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                octets.as_ptr().cast(),
                octets.len(),
                0,
                (&raw const to).cast(),
                len,
            )
        };
        assert_eq!(sent, octets.len() as isize, "{}", std::io::Error::last_os_error());
    });
}

/// One's complement sum over 16-bit words, folded.
fn sum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) as u16 + (sum >> 16) as u16
}

/// A super-frame from 203.0.113.2 to 203.0.113.1; its checksum is the sum of the pseudo-header.
fn superframe(protocol: u8, payload: usize) -> Vec<u8> {
    let l4 = if protocol == 6 { 20 } else { 8 };
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 203, 0, 113, 2, 203, 0, 113, 1];
    ip[2..4].copy_from_slice(&((20 + l4 + payload) as u16).to_be_bytes());
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut transport = vec![0; l4];
    transport[..4].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    let len = (l4 + payload) as u16;
    let pseudo = sum(&[&ip[12..20], &[0, protocol], &len.to_be_bytes()].concat());
    if protocol == 6 {
        transport[12..14].copy_from_slice(&[5 << 4, 0x10]);
        transport[16..18].copy_from_slice(&pseudo.to_be_bytes());
    } else {
        transport[4..6].copy_from_slice(&len.to_be_bytes());
        transport[6..8].copy_from_slice(&pseudo.to_be_bytes());
    }
    let addresses = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    [&addresses[..], &ip, &transport, &super::topo::payload(5, payload)].concat()
}

/// A virtio header: the checksum to be finished, the kind of super-frame, and the size of its segments.
fn virtio(kind: u8, headers: usize, size: u16, offset: u16) -> [u8; 10] {
    let mut header = [1, kind, headers as u8, 0, 0, 0, 34, 0, 0, 0];
    header[4..6].copy_from_slice(&size.to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    header
}

/// Injects a super-frame of this protocol into a kernel vxlan device, and gives what the socket at the other end received.
fn through_kernel_vxlan(protocol: u8, payload: usize, size: u16) -> Option<(Vec<u8>, Vec<Arrived>)> {
    let (a, b) = hosts()?;
    let mut rx = a.rx(vtep(A4));
    b.ip(&format!("link add vx0 type vxlan id 42 dstport {PORT} remote {A4} local {B4} dev eth0"));
    b.sysctl("ipv6/conf/vx0/disable_ipv6", "1");
    b.ip("link set dev vx0 up");
    let frame = superframe(protocol, payload);
    let header = match protocol {
        6 => virtio(1, TCP_HEADERS, size, 16),
        _ => virtio(5, UDP_HEADERS, size, 6),
    };
    inject(&b, "vx0", header, &frame);
    let arrived = receive(&mut rx, VXLAN + frame.len());
    Some((frame, arrived))
}

#[test]
fn an_inner_tcp_super_frame_comes_whole_with_its_checksum_unfinished_and_no_segment_size() {
    let Some((frame, arrived)) = through_kernel_vxlan(6, 20_000, 1398) else { return };
    assert_eq!(arrived.len(), 1, "one datagram");
    let (datagram, octets) = &arrived[0];
    assert_eq!(octets.len(), VXLAN + frame.len(), "{datagram:?}");
    assert!(octets[VXLAN..] == frame, "as it was, the sum of the pseudo-header in its checksum");
    // Not 1398, by which the inner payload would have to be cut; and nothing by which the datagram could be cut.
    assert!(datagram.stride == 0 || datagram.stride as usize >= octets.len(), "{datagram:?}");
}

#[test]
fn an_inner_udp_super_frame_comes_whole_and_the_stride_is_that_of_the_inner_datagrams() {
    let Some((frame, arrived)) = through_kernel_vxlan(17, 20_000, 1000) else { return };
    assert_eq!(arrived.len(), 1, "one datagram");
    let (datagram, octets) = &arrived[0];
    assert!(octets[VXLAN..] == frame, "{datagram:?}");
    assert_eq!(datagram.stride, 1000, "not a size of which datagrams of the underlay are");
}
