//! The vocabulary of `tests/topo` holds what it says, with the kernel's own bridge where the switch will stand.
//!
//! ```text
//!   host a ──eth0──veth──┐          ┌──veth──eth0── host b
//!                     p0 ┤ br0      ├ p1
//!                        └── home ──┘
//! ```

mod topo;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use topo::{Host, Net, packet::VNET_HDR, traffic};

const A4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const B4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const SHORT: Duration = Duration::from_millis(200);

/// Two hosts at a bridge of the kernel.
fn two_hosts(net: &Net) -> (Host, Host) {
    let (a, b) = (net.host("a"), net.host("b"));
    net.kernel_bridge("br0");
    net.plug("br0", "p0", &a, "eth0");
    net.plug("br0", "p1", &b, "eth0");
    (a, b)
}

fn two_addressed_hosts(net: &Net) -> (Host, Host) {
    let (a, b) = two_hosts(net);
    a.address("eth0", "198.51.100.1/24");
    a.address("eth0", "2001:db8::1/64");
    b.address("eth0", "198.51.100.2/24");
    b.address("eth0", "2001:db8::2/64");
    (a, b)
}

/// Two hosts that say nothing of themselves.
fn two_silent_hosts(net: &Net) -> (Host, Host) {
    let (a, b) = two_hosts(net);
    a.no_ipv6("eth0");
    b.no_ipv6("eth0");
    (a, b)
}

/// A frame of a local experimental EtherType (IEEE 802: 0x88b5), with an 802.1Q tag: priority 5, VLAN 10.
fn tagged_frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0xa0, 10, 0x88, 0xb5];
    frame.extend(traffic::pattern(46, 7));
    frame
}

#[test]
fn hosts_answer_pings_and_nobody_does_not() {
    let Some(net) = Net::new() else { return };
    let (a, b) = two_addressed_hosts(&net);
    assert!(a.ping(B4));
    assert!(a.ping(B6));
    assert!(b.ping(A4));
    assert!(a.ping_with(NOBODY, 56, SHORT).is_none());
}

#[test]
fn a_ping_longer_than_the_mtu_is_not_fragmented() {
    let Some(net) = Net::new() else { return };
    let (a, _b) = two_addressed_hosts(&net);
    assert!(a.ping_with(B4, 1472, SHORT).is_some(), "1472 + 8 + 20 octets are just 1500");
    let refused = std::panic::catch_unwind(|| a.ping_with(B4, 1473, SHORT));
    assert!(refused.is_err(), "the kernel says EMSGSIZE");
}

#[test]
fn tcp_and_udp_payloads_arrive_as_they_were_sent() {
    let Some(net) = Net::new() else { return };
    let (a, b) = two_addressed_hosts(&net);
    traffic::tcp(&a, &b, B4, 4 << 20);
    traffic::tcp(&b, &a, A4, 1);
    traffic::tcp(&a, &b, B6, 100_000);
    traffic::udp(&a, &b, B4, &[0, 1, 1472, 1473, 65_507]);
    traffic::udp(&a, &b, B6, &[1452, 9000]);
}

#[test]
fn a_raw_frame_keeps_its_tag() {
    let Some(net) = Net::new() else { return };
    let (a, b) = two_silent_hosts(&net);
    let (from, to) = (a.packet_socket("eth0"), b.packet_socket("eth0"));
    from.send(&tagged_frame()).unwrap();
    let got = to.recv(Duration::from_secs(1)).expect("the bridge floods it");
    assert_eq!(got.frame, tagged_frame());
    assert_eq!(from.drain(SHORT), [], "a socket does not see what left its own interface");
    assert_eq!(to.drain(SHORT), [], "and it came once");
}

#[test]
fn recv_where_leaves_other_frames_out() {
    let Some(net) = Net::new() else { return };
    let (a, b) = two_silent_hosts(&net);
    let (from, to) = (a.packet_socket("eth0"), b.packet_socket("eth0"));
    let mut other = tagged_frame();
    other[17] = 0xb6;
    from.send(&other).unwrap();
    from.send(&tagged_frame()).unwrap();
    let got = to.recv_where(Duration::from_secs(1), |f| f[17] == 0xb5).expect("the second frame");
    assert_eq!(got.frame, tagged_frame());
    assert!(to.recv_where(SHORT, |_| true).is_none());
}

#[test]
fn a_super_frame_stays_one_under_its_virtio_header() {
    let Some(net) = Net::new() else { return };
    let (a, b) = two_silent_hosts(&net);
    let (from, to) = (a.vnet_socket("eth0"), b.vnet_socket("eth0"));
    let payload = traffic::pattern(4000, 3);
    // Ethernet, IPv4 (RFC 791) from A4 to B4, TCP (RFC 9293) with nothing but a data offset and ACK.
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend((40 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2]);
    frame.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(&payload);
    // flags NEEDS_CSUM, gso_type TCPV4, hdr_len 54, gso_size 1000, csum_start 34, csum_offset 16 (virtio 1.2 §5.1.6)
    let mut vnet = [0; VNET_HDR];
    vnet[..2].copy_from_slice(&[1, 1]);
    for (at, value) in [(2, 54u16), (4, 1000), (6, 34), (8, 16)] {
        vnet[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    from.send_with(vnet, &frame).unwrap();
    let got = to.recv(Duration::from_secs(1)).expect("the bridge floods it");
    assert_eq!(got.frame, frame);
    assert_eq!(&got.vnet[4..6], &1000u16.to_le_bytes(), "gso_size");
    assert_eq!(got.vnet[0] & 1, 1, "the checksum is still partial");
}

#[test]
fn the_kernel_refuses_a_checksum_outside_the_frame() {
    let Some(net) = Net::new() else { return };
    let (a, _b) = two_silent_hosts(&net);
    let mut vnet = [0; VNET_HDR];
    vnet[0] = 1;
    vnet[6..8].copy_from_slice(&60_000u16.to_le_bytes());
    let error = a.vnet_socket("eth0").send_with(vnet, &tagged_frame()).expect_err("absurd");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn the_path_of_a_host_names_its_namespace() {
    let Some(net) = Net::new() else { return };
    let a = net.host("a");
    net.home().ip("link add name sent type veth peer name kept");
    net.home().ip(&format!("link set dev sent netns {}", a.path().display()));
    topo::wait_until("the interface is in the namespace", Duration::from_secs(1), || a.has_interface("sent"));
    assert!(!net.home().has_interface("sent"));
}

#[test]
fn a_namespace_ends_with_its_host() {
    let Some(net) = Net::new() else { return };
    let a = net.host("a");
    net.veth("p0", &a, "eth0");
    assert!(net.home().has_interface("p0"));
    drop(a);
    topo::wait_until("the veth goes with its other end", Duration::from_secs(10), || {
        !net.home().has_interface("p0")
    });
}
