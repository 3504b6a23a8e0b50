//! VLANs between real network stacks: two switches' worth of bridges, joined by trunks over the kernel's bridge.
//!
//! ```text
//!   a ── access 10 ┐             ┌ access 10 ── b
//!   c ── access 20 ┤ br0     br1 ├ access 20 ── d
//!   e ── access 30 ┘  │       │  └ access 30 ── f
//!                     t0      t1     trunk 10,20, native 30
//!                     └─ w-t0 ┘      the kernel's bridge, which looks at no tag
//! ```

mod topo;

use std::{net::Ipv4Addr, time::Duration};

use topo::{
    Host, Net,
    frame::{self, EXPERIMENTAL, mac, tag},
    switch::Switch,
    traffic::{self, pattern},
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

const fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

/// Joins two ports, said as in `port add`, by a bridge of the kernel.
fn cable(net: &Net, switch: &Switch, one: &str, other: &str) {
    let name = |port: &str| port.split(' ').next().unwrap_or(port).to_owned();
    let wire = format!("w-{}", name(one));
    net.kernel_bridge(&wire);
    for port in [one, other] {
        switch.port(port);
        net.home().no_ipv6(&name(port));
        net.home().ip(&format!("link set dev {} master {wire}", name(port)));
    }
}

/// Two bridges whose trunks, with these flags, are joined.
fn joined(net: &Net, switch: &Switch, flags: &str) {
    switch.bridge("br0");
    switch.bridge("br1");
    cable(net, switch, &format!("t0 --bridge br0 {flags}"), &format!("t1 --bridge br1 {flags}"));
}

fn host(net: &Net, switch: &Switch, bridge: &str, name: &str, n: u8, flags: &str) -> Host {
    let host = net.host(name);
    host.sysctl("net/ipv6/conf/default/disable_ipv6", "1"); // it is to say nothing of itself
    switch.tap_at(bridge, name, &host, &format!("--address {}/24 {flags}", v4(n)));
    host
}

/// A host that says nothing of itself.
fn silent(net: &Net, switch: &Switch, name: &str, flags: &str) -> Host {
    let host = net.host(name);
    switch.silent_tap(name, &host, flags);
    host
}

/// The outermost tag of a frame that begins with one.
fn outer(frame: &[u8]) -> Option<[u8; 4]> {
    (frame[12..14] == [0x81, 0] || frame[12..14] == [0x88, 0xa8])
        .then(|| frame[12..16].try_into().expect("four octets"))
}

#[test]
fn super_frames_cross_a_trunk_under_their_tag() {
    for (offload, trunk) in [("on", "on"), ("on", "off"), ("off", "on")] {
        let Some((net, switch)) = Switch::new(2) else { return };
        joined(&net, &switch, &format!("--trunk 10,20 --native 30 --offload {trunk}"));
        let [a, b, e, f] =
            [("br0", "a", 1, 10), ("br1", "b", 2, 10), ("br0", "e", 5, 30), ("br1", "f", 6, 30)].map(
                |(bridge, name, n, vlan)| {
                    host(&net, &switch, bridge, name, n, &format!("--access {vlan} --offload {offload}"))
                },
            );
        let trunk_socket = net.home().packet_socket("t0");
        traffic::tcp(&a, &b, v4(2), 4 << 20);
        traffic::udp(&b, &a, v4(1), &[1, 1472, 9000]);
        let seen = trunk_socket.drain(SHORT);
        assert!(!seen.is_empty() && seen.iter().all(|r| outer(&r.frame) == Some(tag(0, false, 10))));
        let longest = seen.iter().map(|r| r.frame.len()).max();
        let whole = longest > Some(4000);
        assert_eq!(whole, offload == "on" && trunk == "on", "longest frame on the trunk: {longest:?}");

        traffic::tcp(&e, &f, v4(6), 1 << 20);
        let seen = trunk_socket.drain(SHORT);
        assert!(
            !seen.is_empty() && seen.iter().all(|r| outer(&r.frame).is_none()),
            "the native VLAN has no tag"
        );
        assert!(a.ping_with(v4(5), 56, SHORT).is_none(), "VLAN 10 does not reach VLAN 30");
    }
}

#[test]
fn vlans_do_not_reach_each_other_with_the_same_addresses_in_each() {
    let Some((net, switch)) = Switch::new(1) else { return };
    joined(&net, &switch, "--trunk 10,20 --native 30");
    let vlans: Vec<(Host, Host)> = [10, 20, 30]
        .map(|vlan| {
            let flags = format!("--access {vlan} --mac 02:00:00:00:00:01");
            let near = host(&net, &switch, "br0", &format!("near{vlan}"), 1, &flags);
            let flags = format!("--access {vlan} --mac 02:00:00:00:00:02");
            let far = host(&net, &switch, "br1", &format!("far{vlan}"), 2, &flags);
            (near, far)
        })
        .into();
    for (near, far) in &vlans {
        traffic::tcp(near, far, v4(2), 100_000);
    }
    let before: Vec<_> = [20, 30].map(|vlan| switch.show(&format!("far{vlan}")).tx).into();
    traffic::tcp(&vlans[0].0, &vlans[0].1, v4(2), 1 << 20);
    for (vlan, before) in [20, 30].into_iter().zip(before) {
        let after = switch.show(&format!("far{vlan}")).tx;
        assert!(after.bytes - before.bytes < 10_000, "VLAN {vlan} hears nothing of the transfer in VLAN 10");
    }
}

#[test]
fn customer_tags_cross_a_trunk_inside_a_service_vlan() {
    let Some((net, switch)) = Switch::new(1) else { return };
    joined(&net, &switch, "--trunk 100,200");
    // A site each: a bridge of the customer's, whose trunk ends at a port of the provider's.
    for (n, offload) in [(0, "on"), (1, "off")] {
        switch.bridge(&format!("site{n}"));
        let customer = format!("c{n} --bridge site{n} --trunk 7,8 --native 9");
        cable(&net, &switch, &customer, &format!("p{n} --bridge br{n} --qinq 100 --offload {offload}"));
    }
    let [a, b, c, d] =
        [("site0", "a", 1, 7), ("site1", "b", 2, 7), ("site0", "c", 3, 9), ("site1", "d", 4, 9)]
            .map(|(site, name, n, vlan)| host(&net, &switch, site, name, n, &format!("--access {vlan}")));
    let other = net.host("other");
    other.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    switch.tap_at("br1", "other", &other, "--qinq 200");
    let (trunk, stranger) = (net.home().packet_socket("t0"), other.packet_socket("eth0"));
    let service = Some([0x88, 0xa8, 0, 100]);

    traffic::tcp(&a, &b, v4(2), 4 << 20);
    traffic::udp(&b, &a, v4(1), &[1, 1400, 9000]);
    let seen = trunk.drain(SHORT);
    assert!(
        !seen.is_empty() && seen.iter().all(|r| outer(&r.frame) == service),
        "the service tag is outermost"
    );
    assert!(seen.iter().all(|r| r.frame[16..20] == tag(0, false, 7)), "the customer's tag is behind it");
    assert!(seen.iter().any(|r| r.frame.len() > 4000), "super-frames cross under both tags");

    traffic::tcp(&d, &c, v4(3), 1 << 20);
    let seen = trunk.drain(SHORT);
    assert!(!seen.is_empty() && seen.iter().all(|r| outer(&r.frame) == service));
    assert!(seen.iter().all(|r| r.frame[16..18] != [0x81, 0]), "the customer's untagged frames have one tag");
    assert!(a.ping_with(v4(4), 56, SHORT).is_none(), "the customer's VLANs stay apart");
    assert_eq!(stranger.drain(SHORT), [], "a site of another service hears nothing");
}

#[test]
fn tags_come_and_go_with_their_priority() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let access = silent(&net, &switch, "access", "--access 10").packet_socket("eth0");
    let peer = silent(&net, &switch, "peer", "--access 10").packet_socket("eth0");
    let trunk = silent(&net, &switch, "trunk", "--trunk 10,20").packet_socket("eth0");
    let native = silent(&net, &switch, "native", "--trunk 20 --native 10").packet_socket("eth0");
    let other = silent(&net, &switch, "other", "--access 20").packet_socket("eth0");
    let made = |tags: &[[u8; 4]]| frame::frame(mac(9), mac(1), tags, EXPERIMENTAL, &pattern(60, 3));
    let plain = made(&[]);
    for (what, from, sent, out) in [
        ("no tag", &access, plain.clone(), tag(0, false, 10)),
        ("a priority tag", &access, made(&[tag(3, true, 0)]), tag(3, true, 10)),
        ("its tag", &trunk, made(&[tag(5, true, 10)]), tag(5, true, 10)),
        ("no tag, native", &native, plain.clone(), tag(0, false, 10)),
        ("a priority tag, native", &native, made(&[tag(7, false, 0)]), tag(7, false, 10)),
    ] {
        switch.flush();
        from.send(&sent).unwrap();
        for (name, to, want) in [
            ("access", &access, &plain),
            ("peer", &peer, &plain),
            ("trunk", &trunk, &made(&[out])),
            ("native", &native, &plain),
        ] {
            if !std::ptr::eq(to, from) {
                assert_eq!(to.recv(LONG).map(|r| r.frame).as_ref(), Some(want), "{what}, at {name}");
            }
        }
        assert_eq!(other.drain(Duration::from_millis(20)), [], "{what}: VLAN 20 hears nothing");
    }
    for (port, socket, vlan, reason) in [
        ("access", &access, 10, "vlan_not_member"),
        ("trunk", &trunk, 30, "vlan_not_member"),
        ("trunk", &trunk, 4095, "vlan_reserved"),
    ] {
        let before = switch.drops(port, reason);
        socket.send(&made(&[tag(0, false, vlan)])).unwrap();
        topo::wait_until("the drop", LONG, || switch.drops(port, reason) == before + 1);
    }
    trunk.send(&plain).unwrap();
    topo::wait_until("the drop", LONG, || switch.drops("trunk", "no_native_vlan") == 1);
    for socket in [&access, &peer, &trunk, &native, &other] {
        assert_eq!(socket.drain(Duration::from_millis(20)), [], "what was dropped went nowhere");
    }
}

#[test]
fn ports_without_vlan_flags_pass_every_tag_unchanged() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let (a, b) = (silent(&net, &switch, "a", ""), silent(&net, &switch, "b", "--offload off"));
    let (from, to) = (a.packet_socket("eth0"), b.packet_socket("eth0"));
    for tags in [
        vec![],
        vec![tag(6, true, 0)],
        vec![tag(5, true, 10)],
        vec![[0x88, 0xa8, 0xb0, 99], tag(1, false, 7)],
        vec![tag(1, false, 7), tag(2, true, 8), tag(3, false, 9)],
    ] {
        let sent = frame::frame(mac(2), mac(1), &tags, EXPERIMENTAL, &pattern(60, 4));
        from.send(&sent).unwrap();
        assert_eq!(to.recv(LONG).map(|r| r.frame), Some(sent), "{tags:x?}");
    }
}
