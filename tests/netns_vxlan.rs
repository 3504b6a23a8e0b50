//! VXLAN between the switch and the kernel's vxlan device, by both ways to the underlay.
//!
//! ```text
//!   client 1 ── our bridge and tunnel ── site 0 ═══ underlay ═══ site 1 ── kernel bridge and vxlan ── client 2
//! ```
//!
//! The same with the kernel at both ends is `tests/netns_underlay.rs`: what fails there is not the switch.

mod topo;

use std::time::Duration;

use topo::{
    Host, Net,
    frame::{self, BROADCAST, EXPERIMENTAL, mac},
    kernel_vtep::{VXLAN_PORT, kernel_vtep, v4, v6},
    packet::PacketSocket,
    switch::Switch,
    traffic::{self, pattern},
    underlay::{UNDERLAY, Underlay},
    vtep::{Vtep, Way},
};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);
/// Octets of Ethernet and IPv4 before the outer UDP header.
const OUTER4: usize = 14 + 20;

/// Our client at site 0, and the kernel's at site 1, each with words of its own beside the addresses.
fn with_kernel(
    net: &Net,
    switch: &Switch,
    underlay: &Underlay,
    (way, over_v6): (Way, bool),
    [ours, kernels]: [&str; 2],
) -> Option<[Host; 2]> {
    let vtep = Vtep::at(underlay, 0, way, over_v6);
    let (local, remote) = (vtep.local(), underlay.site(1).address(over_v6));
    let far = kernel_vtep(net, underlay.site(1), 2, &format!("local {remote} remote {local} {kernels}"))?;
    let near = vtep.start(net, switch, &format!("--type vxlan --remote {remote} {ours}"));
    assert!(near.ping(v4(2)), "{way:?}, {}", if over_v6 { "IPv6" } else { "IPv4" });
    Some([near, far])
}

/// The next packet over IPv4 to VXLAN's port that comes in, from its Ethernet header on.
fn outer4(socket: &PacketSocket) -> Option<Vec<u8>> {
    let port = VXLAN_PORT.to_be_bytes();
    let wanted = |f: &[u8]| f[12..14] == [0x08, 0x00] && f.get(OUTER4 + 2..OUTER4 + 4) == Some(&port);
    socket.recv_where(LONG, wanted).map(|received| received.frame)
}

/// The next of them around a UDP datagram.
fn outer4_udp(socket: &PacketSocket) -> Option<Vec<u8>> {
    const INNER: usize = OUTER4 + 8 + 8;
    std::iter::from_fn(|| outer4(socket))
        .find(|p| p.get(INNER + 12..INNER + 14) == Some(&[0x08, 0x00]) && p.get(INNER + 23) == Some(&17))
}

/// The source port of a packet of [`outer4`].
fn source_port(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[OUTER4], packet[OUTER4 + 1]])
}

#[test]
fn every_payload_reaches_the_kernel_and_comes_back() {
    for way in Way::BOTH {
        for over_v6 in [false, true] {
            // In the guest, where each costs seconds, the one that has more to go wrong.
            let numbers: &[usize] = if topo::emulated() { &[2] } else { &[1, 2] };
            for &workers in numbers {
                let Some((net, switch)) = Switch::new(workers) else { return };
                let underlay = Underlay::cable(&net, 1500);
                let words = ["--vni 42", "id 42"];
                let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, over_v6), words) else {
                    return;
                };
                traffic::payloads(&a, &b, v4(2));
                traffic::payloads(&b, &a, v6(1));
                // A solicitation of the far client can come before there is a near one to take it.
                let drops = switch.show("overlay0").drops;
                assert!(
                    drops.keys().all(|reason| reason == "no_member"),
                    "{way:?}, IPv6 {over_v6}: {drops:?}"
                );
            }
        }
    }
}

#[test]
fn a_client_without_offloads_gets_segments() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let Some([_, far]) = with_kernel(&net, &switch, &underlay, (way, false), ["--vni 42", "id 42"])
        else {
            return;
        };
        let plain = Vtep::at(&underlay, 0, way, false).client(&net, &switch, 9, "--offload off");
        let socket = plain.packet_socket("eth0");
        traffic::payloads(&far, &plain, v4(9));
        let longest = socket.drain(SHORT).iter().map(|r| r.frame.len()).max();
        assert_eq!(longest, Some(14 + 1450), "{way:?}");
    }
}

#[test]
fn super_frames_arrive_as_super_frames() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, false), ["--vni 42", "id 42"]) else {
            return;
        };
        let socket = a.packet_socket("eth0");
        traffic::tcp(&b, &a, v4(1), 4 << 20);
        let longest = socket.drain(SHORT).iter().map(|r| r.frame.len()).max();
        assert!(
            longest > Some(8000),
            "{way:?}: inner TCP is merged before a TAP, or never split: {longest:?}"
        );
    }
}

#[test]
fn outer_checksums_are_there_or_not_as_asked_in_either_direction() {
    for way in Way::BOTH {
        for (over_v6, ours, kernels) in [
            (false, "--udp-csum off", "udpcsum"),
            (false, "--udp-csum on", "noudpcsum"),
            (true, "--udp-csum off", "udp6zerocsumrx"),
            (true, "--udp-csum on --udp6-zero-csum-rx on", "udp6zerocsumtx"),
        ] {
            let Some((net, switch)) = Switch::new(1) else { return };
            let underlay = Underlay::cable(&net, 1500);
            let socket = underlay.site(1).host.packet_socket(UNDERLAY);
            let words = [format!("--vni 42 {ours}"), format!("id 42 {kernels}")];
            let words = [words[0].as_str(), &words[1]];
            let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, over_v6), words) else { return };
            if !over_v6 {
                let sum = outer4(&socket).map(|p| p[OUTER4 + 6..OUTER4 + 8] != [0, 0]);
                assert_eq!(sum, Some(ours == "--udp-csum on"), "{way:?}, {ours}");
            }
            traffic::payloads(&a, &b, v4(2));
        }
    }
}

#[test]
fn a_zero_checksum_over_ipv6_is_refused_unless_it_is_accepted() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let vtep = Vtep::at(&underlay, 0, way, true);
        let (local, remote) = (vtep.local(), underlay.site(1).v6);
        let words = format!("id 42 local {remote} remote {local} udp6zerocsumtx");
        let Some(far) = kernel_vtep(&net, underlay.site(1), 2, &words) else { return };
        let _near = vtep.start(&net, &switch, &format!("--type vxlan --vni 42 --remote {remote}"));
        assert!(far.ping_with(v4(1), 56, SHORT).is_none(), "{way:?}");
        if way == Way::Uplink {
            // By sockets it is the kernel that drops it (UDP_NO_CHECK6_RX), and counts it among its own.
            switch.wait_drop("uplink0", "udp_zero_checksum");
        }
    }
}

#[test]
fn a_packet_of_another_network_is_dropped_by_name() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let (local, remote) = (vtep.local(), underlay.site(1).v4);
        let words = format!("id 43 local {remote} remote {local}");
        let Some(far) = kernel_vtep(&net, underlay.site(1), 2, &words) else { return };
        let near = vtep.start(&net, &switch, &format!("--type vxlan --vni 42 --remote {remote}"));
        let heard = near.packet_socket("eth0");
        let sent = frame::frame(BROADCAST, mac(2), &[], EXPERIMENTAL, &pattern(60, 2));
        far.packet_socket("eth0").send(&sent).unwrap();
        switch.wait_drop(&format!("vxlan {local}:4789"), "vni_unknown");
        assert!(heard.drain(SHORT).iter().all(|r| r.frame != sent), "{way:?}");
    }
}

#[test]
fn vlans_are_networks_of_their_own() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let (local, remote) = (vtep.local(), underlay.site(1).v4);
        let words = format!("id 1010 local {remote} remote {local}");
        let Some(far) = kernel_vtep(&net, underlay.site(1), 2, &words) else { return };
        vtep.tunnel(
            &switch,
            &format!("--type vxlan --vlan-vni 10=1010 --vlan-vni 20=1020 --remote {remote}"),
        );
        let ten = vtep.client(&net, &switch, 1, "--access 10");
        let twenty = vtep.client(&net, &switch, 3, "--access 20");
        assert!(ten.ping(v4(2)), "{way:?}");
        traffic::payloads(&ten, &far, v4(2));
        assert!(twenty.ping_with(v4(2), 56, SHORT).is_none(), "VLAN 20 is VNI 1020, which nobody has");
    }
}

#[test]
fn a_flow_keeps_its_source_port_and_many_flows_have_many() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let socket = underlay.site(1).host.packet_socket(UNDERLAY);
        let words = ["--vni 42 --src-port 50000-50015 --ttl 7", "id 42"];
        let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, false), words) else { return };
        socket.drain(SHORT);
        let mut ports = Vec::new();
        for _ in 0..32 {
            traffic::udp(&a, &b, v4(2), &[100, 100, 100]); // a flow of its own: the source port is new
            let packets: Vec<_> = std::iter::from_fn(|| outer4_udp(&socket)).take(3).collect();
            assert!(packets.iter().all(|p| source_port(p) == source_port(&packets[0])), "one flow, one port");
            // One hop more is taken by the host that routes an uplink.
            assert_eq!(packets[0][22], if way == Way::Uplink { 6 } else { 7 }, "TTL");
            ports.push(source_port(&packets[0]));
        }
        assert!(ports.iter().all(|port| (50_000..=50_015).contains(port)), "{way:?}: {ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() > 4, "{way:?}: 32 flows share {ports:?}");
    }
}

#[test]
fn a_group_reaches_us_and_two_kernels() {
    // A group is joined by a socket; an uplink has none.
    for group in ["239.1.1.1", "ff05::4242"] {
        let over_v6 = group.contains(':');
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::lan(&net, 3, 1500);
        let ours = Vtep::at(&underlay, 0, Way::Sockets, over_v6).start(
            &net,
            &switch,
            &format!("--type vxlan --vni 42 --group {group} --underlay-dev {UNDERLAY}"),
        );
        let kernels = [1, 2].map(|n| {
            let site = underlay.site(n);
            let words = format!("id 42 local {} group {group}", site.address(over_v6));
            kernel_vtep(&net, site, n as u8 + 1, &words)
        });
        let [Some(b), Some(c)] = kernels else { return };
        for (from, to) in [(&ours, 2), (&ours, 3), (&b, 1), (&c, 1), (&b, 3)] {
            assert!(from.ping(v4(to)), "{} to {to}, group {group}", from.name());
        }
        traffic::payloads(&ours, &b, v4(2));
        traffic::payloads(&c, &ours, v6(1));
    }
}

#[test]
fn what_is_flooded_reaches_each_remote_once_and_never_another_tunnel() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::lan(&net, 3, 1500);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let kernels = [1, 2].map(|n| {
            let site = underlay.site(n);
            // They do not know each other: only we could bring them together, and must not (split horizon).
            let words = format!("id 42 local {} remote {}", site.v4, vtep.local());
            kernel_vtep(&net, site, n as u8 + 1, &words)
        });
        let [Some(b), Some(c)] = kernels else { return };
        let remotes = [1, 2].map(|n| format!("--remote {}", underlay.site(n).v4)).join(" ");
        let a = vtep.start(&net, &switch, &format!("--type vxlan --vni 42 {remotes}"));
        assert!(a.ping(v4(2)) && a.ping(v4(3)));

        let sockets = [&a, &b, &c].map(|host| host.packet_socket("eth0"));
        let flooded = |n: u8| frame::frame(BROADCAST, mac(n), &[], EXPERIMENTAL, &pattern(60, n.into()));
        let copies = |socket: &PacketSocket, frame: &[u8]| {
            socket.drain(SHORT).iter().filter(|r| r.frame == frame).count()
        };
        sockets[0].send(&flooded(1)).unwrap();
        assert_eq!([1, 2].map(|n| copies(&sockets[n], &flooded(1))), [1, 1], "{way:?}: one copy each");
        sockets[1].send(&flooded(2)).unwrap();
        assert_eq!([0, 2].map(|n| copies(&sockets[n], &flooded(2))), [1, 0], "{way:?}: ours alone");
        assert!(b.ping_with(v4(3), 56, SHORT).is_none(), "{way:?}");
    }
}

#[test]
fn ours_and_ours_carry_every_payload() {
    for ways in [[Way::Sockets; 2], [Way::Uplink; 2], [Way::Sockets, Way::Uplink]] {
        for over_v6 in [false, true] {
            let Some((net, switch)) = Switch::new(2) else { return };
            let underlay = Underlay::cable(&net, 1500);
            let ends = [0, 1].map(|n| Vtep::at(&underlay, n, ways[n], over_v6));
            let [a, b] = [0, 1].map(|n| {
                let words = format!("--type vxlan --vni 42 --remote {}", ends[1 - n].local());
                ends[n].start(&net, &switch, &words)
            });
            assert!(a.ping(v4(2)) && b.ping(v6(1)), "{ways:?}, IPv6 {over_v6}");
            traffic::payloads(&a, &b, v4(2));
            traffic::payloads(&b, &a, v6(1));
        }
    }
}

#[test]
fn tcp_through_a_narrow_link_of_the_underlay_recovers_by_icmp() {
    for way in Way::BOTH {
        for over_v6 in [false, true] {
            let Some((net, switch)) = Switch::new(1) else { return };
            let underlay = Underlay::routed(&net, 1400);
            let words = ["--vni 42 --df set", "id 42 df set"];
            let Some([a, b]) = with_kernel(&net, &switch, &underlay, (way, over_v6), words) else { return };
            // The kernel's bridge does not always answer what is too long for its own tunnel (seen on 6.18), so that its client sends
            // what fits, and says that it takes more.
            for prefix in ["198.51.100.0/24", "2001:db8::/64 proto kernel metric 256"] {
                b.ip(&format!("route replace {prefix} dev eth0 mtu 1300 advmss 1390"));
            }
            traffic::tcp(&a, &b, v4(2), 1 << 20);
            traffic::tcp(&a, &b, v6(2), 1 << 20);
            // 1400 less IP, UDP, VXLAN and Ethernet: what the client was told, not what it guessed.
            let fits = if over_v6 { "mtu 1330" } else { "mtu 1350" };
            for family in [v4(2).to_string(), v6(2).to_string()] {
                let route = a.ip(&format!("route get {family}"));
                assert!(route.contains(fits), "{way:?}, IPv6 {over_v6}: {route}");
            }
        }
    }
}

#[test]
fn a_tunnel_carries_what_its_underlay_carries() {
    let Some((net, switch)) = Switch::new(1) else { return };
    let underlay = Underlay::cable(&net, 9000);
    let [a, _] = [0, 1].map(|n| {
        let vtep = Vtep::at(&underlay, n, Way::Sockets, false);
        vtep.start(&net, &switch, &format!("--type vxlan --vni 42 --remote {}", vtep.far()))
    });
    assert!(a.ping(v4(2)));
    assert!(a.ping_with(v4(2), 8000, LONG).is_some());
    let overlay = switch.show("overlay0");
    assert_eq!((overlay.mtu, overlay.drops), (8950, [].into()));
}

#[test]
fn a_tunnel_is_down_while_its_uplink_is_and_comes_back_with_it() {
    for over_v6 in [false, true] {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::cable(&net, 1500);
        let words = ["--vni 42", "id 42"];
        let Some([a, _b]) = with_kernel(&net, &switch, &underlay, (Way::Uplink, over_v6), words) else {
            return;
        };
        let host = &underlay.site(0).host;
        // The kernel takes its route away with it, and over IPv6 its addresses.
        host.ip("link set dev uplink0 down");
        let reason = switch.wait_oper("overlay0", "down");
        assert!(reason.is_some_and(|reason| reason.starts_with("its uplink uplink0 is down")));
        host.ip("link set dev uplink0 up");
        switch.wait_oper("overlay0", "up");
        topo::wait_until("the client is reached again", LONG, || a.ping_with(v4(2), 56, SHORT).is_some());
    }
}

#[test]
fn a_static_entry_leads_to_its_remote_without_flooding() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::lan(&net, 3, 1500);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let kernels = [1, 2].map(|n| {
            let site = underlay.site(n);
            kernel_vtep(&net, site, n as u8 + 1, &format!("id 42 local {} remote {}", site.v4, vtep.local()))
        });
        let [Some(b), Some(c)] = kernels else { return };
        let remotes = [1, 2].map(|n| format!("--remote {}", underlay.site(n).v4)).join(" ");
        let a = vtep.start(&net, &switch, &format!("--type vxlan --vni 42 --learning off {remotes}"));
        switch
            .fdb(&format!("02:00:00:00:0a:07 --bridge br0 --port overlay0 --remote {}", underlay.site(2).v4));
        let sockets = [&a, &b, &c].map(|host| host.packet_socket("eth0"));
        let sent = frame::frame(mac(7), mac(1), &[], EXPERIMENTAL, &pattern(60, 7));
        sockets[0].send(&sent).unwrap();
        assert!(sockets[2].recv_where(LONG, |f| f == sent).is_some(), "{way:?}");
        assert!(sockets[1].drain(SHORT).iter().all(|r| r.frame != sent), "{way:?}: not flooded");
    }
}

#[test]
fn a_stranger_is_refused_where_learning_is_off() {
    for way in Way::BOTH {
        let Some((net, switch)) = Switch::new(1) else { return };
        let underlay = Underlay::lan(&net, 3, 1500);
        let vtep = Vtep::at(&underlay, 0, way, false);
        let site = underlay.site(2);
        let words = format!("id 42 local {} remote {}", site.v4, vtep.local());
        let Some(stranger) = kernel_vtep(&net, site, 3, &words) else { return };
        let remote = underlay.site(1).v4;
        let _a =
            vtep.start(&net, &switch, &format!("--type vxlan --vni 42 --learning off --remote {remote}"));
        assert!(stranger.ping_with(v4(1), 56, SHORT).is_none());
        switch.wait_drop("overlay0", "remote_unknown");
    }
}
