//! The words for underlays and peers hold what they say, with the kernel and Open vSwitch at both ends of every tunnel.
//!
//! ```text
//!   client 1 ── VTEP ── site 0 ═══ underlay ═══ site 1 ── VTEP ── client 2
//! ```
//!
//! What fails here is the test bench, and not the switch.

mod topo;

use std::time::Duration;

use topo::{
    Host, Net,
    kernel_vtep::{self, VXLAN_PORT, kernel_vtep, v4, v6},
    ovs::Ovs,
    packet::PacketSocket,
    traffic,
    underlay::{UNDERLAY, Underlay},
};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);

/// A client behind a kernel vxlan device at each of two sites; `words` are added to those of the addresses.
fn two_kernels(net: &Net, underlay: &Underlay, over_v6: bool, words: [&str; 2]) -> Option<[Host; 2]> {
    let [a, b] = [underlay.site(0).address(over_v6), underlay.site(1).address(over_v6)];
    let near = format!("local {a} remote {b} {}", words[0]);
    let far = format!("local {b} remote {a} {}", words[1]);
    Some([kernel_vtep(net, underlay.site(0), 1, &near)?, kernel_vtep(net, underlay.site(1), 2, &far)?])
}

/// The outer UDP checksum of the next VXLAN packet over IPv4 (IPv6) that comes in.
fn outer_checksum(underlay: &PacketSocket, over_v6: bool) -> Option<[u8; 2]> {
    let (kind, udp) = if over_v6 { ([0x86, 0xdd], 14 + 40) } else { ([0x08, 0x00], 14 + 20) };
    let port = VXLAN_PORT.to_be_bytes();
    let got = underlay.recv_where(LONG, |f| f[12..14] == kind && f.get(udp + 2..udp + 4) == Some(&port))?;
    got.frame[udp + 6..udp + 8].try_into().ok()
}

#[test]
fn sites_reach_each_other_on_every_kind_of_underlay() {
    let Some(net) = Net::new() else { return };
    for underlay in [Underlay::cable(&net, 1500), Underlay::lan(&net, 3, 1500), Underlay::routed(&net, 1500)]
    {
        let first = underlay.site(0);
        for site in &underlay.sites()[1..] {
            assert!(first.host.ping(site.v4), "{site:?}");
            assert!(first.host.ping(site.v6), "{site:?}");
            assert!(
                site.host.ping_with(first.v4, 1472, LONG).is_some(),
                "1472 + 8 + 20 octets are just 1500"
            );
        }
    }
}

#[test]
fn an_underlay_has_the_mtu_that_was_asked_for() {
    let Some(net) = Net::new() else { return };
    for underlay in [Underlay::cable(&net, 1400), Underlay::lan(&net, 2, 1400)] {
        let (a, b) = (underlay.site(0), underlay.site(1));
        assert!(a.host.ping_with(b.v4, 1372, LONG).is_some());
        assert!(std::panic::catch_unwind(|| a.host.ping_with(b.v4, 1373, SHORT)).is_err(), "EMSGSIZE");
    }
}

#[test]
fn a_router_says_that_a_packet_is_too_big_for_the_second_link() {
    let Some(net) = Net::new() else { return };
    let underlay = Underlay::routed(&net, 1400);
    let (a, b) = (underlay.site(0), underlay.site(1));
    assert!(a.host.ping_with(b.v4, 1372, LONG).is_some());
    assert!(a.host.ping_with(b.v4, 1373, SHORT).is_none(), "dropped at the router");
    topo::wait_until("the site has learned the path's MTU", LONG, || {
        a.host.ip(&format!("route get {}", b.v4)).contains("mtu 1400")
    });
}

#[test]
fn a_kernel_vxlan_carries_every_payload_to_another() {
    for over_v6 in [false, true] {
        let Some(net) = Net::new() else { return };
        let underlay = Underlay::cable(&net, 1500);
        let Some([a, b]) = two_kernels(&net, &underlay, over_v6, ["id 42", "id 42"]) else { return };
        // RFC 7348 §5 over IPv4: 20 + 8 + 8 + 14 octets; IPv6 has 20 more.
        assert_eq!(a.mtu("eth0"), if over_v6 { 1430 } else { 1450 });
        assert!(a.ping(v4(2)) && b.ping(v6(1)));
        traffic::payloads(&a, &b, v4(2));
        traffic::payloads(&b, &a, v6(1));
    }
}

#[test]
fn outer_checksums_are_there_or_not_as_the_kernel_was_told() {
    for (over_v6, off) in [(false, "noudpcsum"), (true, "udp6zerocsumtx udp6zerocsumrx")] {
        let on = if over_v6 { "udp6zerocsumrx" } else { "udpcsum" };
        let Some(net) = Net::new() else { return };
        let underlay = Underlay::cable(&net, 1500);
        let words = [format!("id 42 {off}"), format!("id 42 {on}")];
        let Some([a, b]) = two_kernels(&net, &underlay, over_v6, [&words[0], &words[1]]) else { return };
        let sockets = [0, 1].map(|n| underlay.site(n).host.packet_socket(UNDERLAY));
        assert!(a.ping(v4(2)));
        assert_eq!(outer_checksum(&sockets[1], over_v6), Some([0, 0]), "{off}");
        assert!(outer_checksum(&sockets[0], over_v6).is_some_and(|sum| sum != [0, 0]), "{on}");
        traffic::payloads(&a, &b, v4(2));
    }
}

#[test]
fn a_group_reaches_three_sites() {
    for group in ["239.1.1.1", "ff05::4242"] {
        let Some(net) = Net::new() else { return };
        let underlay = Underlay::lan(&net, 3, 1500);
        let vteps = (1..).zip(underlay.sites()).map(|(n, site)| {
            let local = site.address(group.contains(':'));
            kernel_vtep(&net, site, n, &format!("id 42 local {local} group {group}"))
        });
        let Some(clients) = vteps.collect::<Option<Vec<_>>>() else { return };
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            assert!(clients[a].ping(v4(b as u8 + 1)), "{a} to {b}, group {group}");
        }
    }
}

#[test]
fn head_end_replication_reaches_three_sites() {
    let Some(net) = Net::new() else { return };
    let underlay = Underlay::lan(&net, 3, 1500);
    let mut clients = Vec::new();
    for (n, site) in (1..).zip(underlay.sites()) {
        let Some(client) = kernel_vtep(&net, site, n, &format!("id 42 local {} nolearning", site.v4)) else {
            return;
        };
        for other in underlay.sites().iter().filter(|other| other.v4 != site.v4) {
            kernel_vtep::fdb(site, &format!("append 00:00:00:00:00:00 dev vxlan0 dst {}", other.v4));
        }
        clients.push(client);
    }
    assert!(clients[0].ping(v4(2)) && clients[0].ping(v4(3)) && clients[1].ping(v6(3)));
}

#[test]
fn nothing_passes_between_different_networks() {
    let Some(net) = Net::new() else { return };
    let underlay = Underlay::cable(&net, 1500);
    let Some([a, _b]) = two_kernels(&net, &underlay, false, ["id 42", "id 43"]) else { return };
    let socket = underlay.site(1).host.packet_socket(UNDERLAY);
    assert!(a.ping_with(v4(2), 56, SHORT).is_none());
    assert!(outer_checksum(&socket, false).is_some(), "it arrives at the other site");
}

#[test]
fn open_vswitch_vxlan_carries_every_payload_to_the_kernel() {
    let Some(net) = Net::new() else { return };
    let underlay = Underlay::cable(&net, 1500);
    if !underlay.without_offloads() {
        return;
    }
    let (a, b) = (underlay.site(0), underlay.site(1));
    let words = format!("id 42 local {} remote {}", b.v4, a.v4);
    let Some(far) = kernel_vtep(&net, b, 2, &words) else { return };
    let Some(ovs) = Ovs::start(a) else { return };
    ovs.tunnel("vxlan0", &format!("type=vxlan options:remote_ip={} options:key=42", b.v4));
    let near = ovs.client(&net, 1, 1450);
    assert!(near.ping(v4(2)) && far.ping(v6(1)));
    traffic::payloads(&near, &far, v4(2));
    traffic::payloads(&far, &near, v6(1));
}

#[test]
fn open_vswitch_geneve_carries_every_payload_to_another() {
    for over_v6 in [false, true] {
        let Some(net) = Net::new() else { return };
        let underlay = Underlay::cable(&net, 1500);
        if !underlay.without_offloads() {
            return;
        }
        let [a, b] = [underlay.site(0), underlay.site(1)];
        let (Some(near), Some(far)) = (Ovs::start(a), Ovs::start(b)) else { return };
        for (ovs, remote) in [(&near, b), (&far, a)] {
            let remote = remote.address(over_v6);
            ovs.tunnel("gnv0", &format!("type=geneve options:remote_ip={remote} options:key=42"));
        }
        let (a, b) = (near.client(&net, 1, 1400), far.client(&net, 2, 1400));
        assert!(a.ping(v4(2)) && b.ping(v6(1)));
        traffic::payloads(&a, &b, v4(2));
        traffic::payloads(&b, &a, v6(1));
    }
}

#[test]
fn open_vswitch_adds_and_matches_geneve_options() {
    let Some(net) = Net::new() else { return };
    let underlay = Underlay::cable(&net, 1500);
    if !underlay.without_offloads() {
        return;
    }
    let [a, b] = [underlay.site(0), underlay.site(1)];
    let (Some(near), Some(far)) = (Ovs::start(a), Ovs::start(b)) else { return };
    for (ovs, remote) in [(&near, b), (&far, a)] {
        ovs.tunnel("gnv0", &format!("type=geneve options:remote_ip={} options:key=42", remote.v4));
        ovs.ofctl("add-tlv-map br0 {class=0x102,type=0x10,len=4}->tun_metadata0");
    }
    let (a, _b) = (near.client(&net, 1, 1400), far.client(&net, 2, 1400));
    far.ofctl("add-flow br0 priority=9,in_port=gnv0,tun_metadata0=0x01020304,actions=normal");
    far.ofctl("add-flow br0 priority=8,in_port=gnv0,actions=drop");
    assert!(a.ping_with(v4(2), 56, SHORT).is_none(), "without the option");
    near.ofctl("add-flow br0 actions=set_field:0x01020304->tun_metadata0,normal");
    assert!(a.ping(v4(2)), "with it");
}
