//! The bridge between real network stacks: every payload arrives as it was sent, whatever its ports can take.
//!
//! ```text
//!   host a ──eth0──┐            ┌──eth0── host b
//!                 TAP ── br0 ── TAP
//!                        └ TAP ──eth0── host c
//! ```

mod topo;

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    thread,
    time::Duration,
};

use topo::{
    Host, Net,
    frame::{self, EXPERIMENTAL, TCP4_HEADERS, mac},
    switch::Switch,
    traffic::{self, pattern},
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

const A: Ipv4Addr = v4(1);
const B: Ipv4Addr = v4(2);
const C: Ipv4Addr = v4(3);

const fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

const fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

/// A host at `br0` with the addresses of number `n`, its port called as it is.
fn host(net: &Net, switch: &Switch, name: &str, n: u8, flags: &str) -> Host {
    let host = net.host(name);
    switch.tap(name, &host, &format!("--address {}/24 {flags}", v4(n)));
    host.address("eth0", &format!("{}/64", v6(n.into())));
    host
}

/// Sends everything there is between two hosts, under both MTUs, with one and with two workers.
fn everything_arrives(a_offload: &str, b_offload: &str) {
    for (workers, mtu, pings) in [
        (1, 1500, [56, 1400, 1472]),
        (2, 1500, [56, 1400, 1472]),
        (1, 9000, [56, 1400, 8000]),
        (2, 9000, [1472, 8000, 8972]),
    ] {
        let Some((net, switch)) = Switch::new(workers) else { return };
        switch.bridge("br0");
        let flags = |offload| format!("--offload {offload} --mtu {mtu} --queues {workers}");
        let a = host(&net, &switch, "a", 1, &flags(a_offload));
        let b = host(&net, &switch, "b", 2, &flags(b_offload));
        let case = format!("{workers} workers, MTU {mtu}");
        for len in pings {
            assert!(a.ping_with(B, len, LONG).is_some(), "{len} octets, {case}");
            assert!(b.ping_with(v6(1), len.min(1400), LONG).is_some(), "{len} octets over IPv6, {case}");
        }
        traffic::tcp(&a, &b, B, 2 << 20);
        traffic::tcp(&b, &a, A, 100_000);
        traffic::tcp(&b, &a, v6(1), 1 << 20);
        traffic::udp(&a, &b, B, &[0, 1, 1400, 1472, 1473, 8000, 65_507]);
        traffic::udp(&b, &a, v6(1), &[0, 1, 1452, 1453, 8000]);
        for name in ["a", "b"] {
            let port = switch.show(name);
            assert_eq!(u16::try_from(workers), Ok(port.queues));
            assert_eq!(port.drops.iter().find(|(reason, _)| *reason != "no_member"), None, "{name}, {case}");
        }
        assert_eq!(switch.show("a").offload.is_empty(), a_offload == "off", "{case}");
        assert_eq!(switch.show("b").offload.is_empty(), b_offload == "off", "{case}");
    }
}

#[test]
fn everything_arrives_between_ports_with_offloads() {
    everything_arrives("on", "on");
}

#[test]
fn everything_arrives_between_a_port_with_offloads_and_a_plain_one() {
    everything_arrives("on", "off");
}

#[test]
fn everything_arrives_between_plain_ports() {
    everything_arrives("off", "off");
}

#[test]
fn super_frames_pass_whole_between_ports_with_offloads_and_in_segments_to_a_plain_one() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let a = host(&net, &switch, "a", 1, "");
    let b = host(&net, &switch, "b", 2, "");
    let c = host(&net, &switch, "c", 3, "--offload off");
    // Octets per frame of a transfer of 4 MiB in one direction.
    let mean = |to: &Host, addr: Ipv4Addr, name: &str| {
        let before = switch.show(name).tx;
        traffic::tcp(&a, to, addr, 4 << 20);
        let after = switch.show(name).tx;
        (after.bytes - before.bytes) / (after.frames - before.frames)
    };
    assert!(mean(&b, B, "b") > 3000, "TCP sends super-frames");
    assert!(mean(&c, C, "c") <= 1514, "and a plain port takes none");
}

#[test]
fn transfers_arrive_when_every_frame_is_flooded_to_a_mix_of_ports() {
    let Some((net, switch)) = Switch::new(2) else { return };
    switch.bridge("br0");
    let a = host(&net, &switch, "a", 1, "--learning off");
    let b = host(&net, &switch, "b", 2, "--learning off");
    let c = host(&net, &switch, "c", 3, "--learning off --offload off");
    traffic::tcp(&a, &b, B, 1 << 20);
    traffic::tcp(&a, &c, C, 1 << 20);
    traffic::tcp(&c, &b, B, 1 << 20);
    let (b, c) = (switch.show("b"), switch.show("c"));
    assert!(b.tx.bytes > 3 << 20, "b was sent all three transfers: {:?}", b.tx);
    assert!(c.tx.bytes > 3 << 20, "and so was c: {:?}", c.tx);
}

#[test]
fn a_flooded_super_frame_is_right_for_each_port() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let hosts = ["a", "b", "c", "d"].map(|name| net.host(name));
    let flags = ["", "--offload off", "", "--offload off"];
    for (host, flags) in hosts.iter().zip(flags) {
        switch.silent_tap(host.name(), host, flags);
    }
    let [a, b, c, d] = &hosts;
    let (whole, segments) = (c.vnet_socket("eth0"), [b.packet_socket("eth0"), d.packet_socket("eth0")]);
    let payload = pattern(4321, 5);
    let sent = frame::tcp4(mac(2), mac(1), &payload);
    a.vnet_socket("eth0").send_with(frame::tcp4_vnet(1000), &sent).unwrap();

    let got = whole.recv(LONG).expect("the super-frame");
    assert_eq!(got.frame, sent, "whole, its checksum partial as it came");
    assert_eq!((got.vnet[0] & 1, &got.vnet[4..6]), (1, &1000u16.to_le_bytes()[..]), "{:?}", got.vnet);
    for socket in &segments {
        let mut got: Vec<u8> = Vec::new();
        for n in 0..5 {
            let segment = socket.recv(LONG).unwrap_or_else(|| panic!("segment {n}")).frame;
            assert!(frame::checksums_are_right(&segment), "segment {n}");
            let sequence = u32::from_be_bytes(*segment[38..].first_chunk().unwrap());
            assert_eq!(sequence as usize, 9 + got.len(), "segment {n}");
            got.extend(&segment[TCP4_HEADERS..]);
        }
        assert_eq!(got, payload);
    }
    assert_eq!(segments[0].drain(SHORT), []);
    assert_eq!(whole.drain(SHORT), []);
}

#[test]
fn broadcast_and_multicast_datagrams_reach_every_kind_of_port() {
    /// MCAST-TEST-NET (RFC 6676).
    const GROUP: Ipv4Addr = Ipv4Addr::new(233, 252, 0, 1);
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let a = host(&net, &switch, "a", 1, "");
    let others = [
        (host(&net, &switch, "b", 2, "--offload off"), B),
        (host(&net, &switch, "c", 3, ""), C),
        (host(&net, &switch, "d", 4, "--offload off"), v4(4)),
    ];
    let listeners: Vec<UdpSocket> = others
        .iter()
        .map(|(host, addr)| {
            let socket = host.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 4000))).unwrap();
            socket.join_multicast_v4(&GROUP, addr).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket
        })
        .collect();
    let socket = a.run(|| UdpSocket::bind((A, 0))).unwrap();
    socket.set_broadcast(true).unwrap();
    a.ip(&format!("route add {GROUP}/32 dev eth0"));
    let mut buf = vec![0; 65_536];
    for (seed, to) in [(1, v4(255)), (2, GROUP)] {
        for size in [1, 999, 1472, 8000] {
            let sent = pattern(size, seed);
            socket.send_to(&sent, (to, 4000)).unwrap();
            for ((host, _), listener) in others.iter().zip(&listeners) {
                let n = listener.recv(&mut buf).unwrap_or_else(|e| panic!("{size} to {}: {e}", host.name()));
                assert_eq!(buf[..n], sent, "{size} octets to {to}, at {}", host.name());
            }
        }
    }
}

#[test]
fn a_third_host_does_not_see_what_two_others_say() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        let host = net.host(name);
        switch.silent_tap(name, &host, "");
        host
    });
    let (from, to, third) = (a.packet_socket("eth0"), b.packet_socket("eth0"), c.packet_socket("eth0"));
    to.send(&frame::frame(mac(1), mac(2), &[], EXPERIMENTAL, &[0; 46])).unwrap();
    assert!(third.recv(LONG).is_some(), "an unknown destination is flooded");
    assert!(from.recv(LONG).is_some());
    let secret = frame::frame(mac(2), mac(1), &[], EXPERIMENTAL, &[7; 46]);
    from.send(&secret).unwrap();
    assert_eq!(to.recv(LONG).map(|r| r.frame), Some(secret));
    assert_eq!(third.drain(SHORT), [], "a known one is not");
    assert_eq!(from.drain(SHORT), [], "and nothing comes back");
}

#[test]
fn three_pairs_talk_at_once_over_two_workers() {
    let Some((net, switch)) = Switch::new(2) else { return };
    switch.bridge("br0");
    let hosts: Vec<Host> = (1..=6)
        .map(|n| host(&net, &switch, &format!("h{n}"), n, if n % 3 == 0 { "--offload off" } else { "" }))
        .collect();
    thread::scope(|s| {
        for (n, pair) in (1u8..).step_by(2).zip(hosts.chunks(2)) {
            s.spawn(move || {
                traffic::tcp(&pair[0], &pair[1], v4(n + 1), 4 << 20);
                traffic::udp(&pair[1], &pair[0], v4(n), &[1, 1472, 9000]);
            });
        }
    });
}
