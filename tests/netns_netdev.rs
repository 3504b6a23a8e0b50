//! Netdev ports between real network stacks: interfaces of the switch's own namespace, taken over.
//!
//! ```text
//!   host a ──eth0══a──┐                ┌──b══eth0── host b        ══ a veth, its end in the home of the switch taken over
//!                   netdev ── br0 ── netdev
//!                              └ TAP ──eth0── host c
//! ```

mod topo;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tapway_dataplane::{
    api::{Control as _, Request},
    clock::Clock,
    config::{BridgeSpec, PortSpec},
    engine::{Engine, Opener, Options},
    port::tap::Features,
};
use topo::{
    Host, Net,
    frame::{self, EXPERIMENTAL, TCP4_HEADERS, mac, tag},
    switch::{Switch, parse},
    traffic, wait_until,
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

const fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

const fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

/// A cable from `name` in the home of the switch to eth0 of a host, which has the addresses of number `n`.
fn cable(net: &Net, host: &Host, n: u8, mtu: u32) {
    net.veth(host.name(), host, "eth0");
    host.ip(&format!("link set dev eth0 mtu {mtu}"));
    address(host, n);
}

fn address(host: &Host, n: u8) {
    host.address("eth0", &format!("{}/24", v4(n)));
    host.address("eth0", &format!("{}/64", v6(n.into())));
}

/// `tapwayctl port add NAME --bridge br0 --type netdev --ifname NAME FLAGS`.
#[track_caller]
fn take(switch: &Switch, name: &str, flags: &str) {
    switch.port(&format!("{name} --bridge br0 --type netdev --ifname {name} {flags}"));
}

/// Two hosts behind netdev ports, one behind a TAP.
fn three(workers: usize, mtu: u32, flags: &str) -> Option<(Net, Switch, [Host; 3])> {
    let (net, switch) = Switch::new(workers)?;
    switch.bridge("br0");
    let hosts = ["a", "b", "c"].map(|name| net.host(name));
    let [a, b, c] = &hosts;
    for (n, host) in [(1, a), (2, b)] {
        cable(&net, host, n, mtu);
        take(&switch, host.name(), &format!("--mtu {mtu} {flags}"));
    }
    switch.tap("c", c, &format!("--mtu {mtu}"));
    address(c, 3);
    Some((net, switch, hosts))
}

/// Sends everything there is between netdev ports, and between one and a TAP.
fn everything_arrives(flags: &str) {
    for (workers, mtu, pings) in [
        (1, 1500, [56, 1400, 1472]),
        (2, 1500, [56, 1400, 1472]),
        (1, 9000, [56, 1400, 8000]),
        (2, 9000, [1472, 8000, 8972]),
    ] {
        let Some((_net, switch, [a, b, c])) = three(workers, mtu, flags) else { return };
        let case = format!("{workers} workers, MTU {mtu}");
        for (from, to, n) in [(&a, &b, 2), (&a, &c, 3), (&c, &b, 2)] {
            for len in pings {
                assert!(from.ping_with(v4(n), len, LONG).is_some(), "{len} octets, {case}");
            }
            assert!(from.ping_with(v6(n.into()), 1400, LONG).is_some(), "{case}");
            traffic::tcp(from, to, v4(n), 2 << 20);
            traffic::tcp(from, to, v6(n.into()), 1 << 20);
            traffic::udp(from, to, v4(n), &[0, 1, 56, 1400, 1472, 1473, 8000, 65_507]);
            traffic::udp(from, to, v6(n.into()), &[0, 1, 1452, 1453, 8000]);
            traffic::udp_segments(from, to, v4(n), 1000, 40);
        }
        for name in ["a", "b"] {
            let port = switch.show(name);
            assert_eq!(u16::try_from(workers), Ok(port.queues));
            assert_eq!(port.drops.iter().find(|(reason, _)| *reason != "no_member"), None, "{name}, {case}");
        }
    }
}

#[test]
fn everything_arrives_through_netdev_ports() {
    everything_arrives("");
}

#[test]
fn everything_arrives_past_the_queueing_discipline_and_without_offloads() {
    everything_arrives("--qdisc-bypass on --offload off");
}

#[test]
fn super_frames_pass_whole_in_both_directions() {
    let Some((_net, switch, [a, b, c])) = three(1, 1500, "") else { return };
    let mean = |from: &Host, to: &Host, n: u8| {
        let before = switch.show(to.name()).tx;
        traffic::tcp(from, to, v4(n), 4 << 20);
        let after = switch.show(to.name()).tx;
        (after.bytes - before.bytes) / (after.frames - before.frames)
    };
    for (from, to, n) in [(&a, &b, 2), (&a, &c, 3), (&c, &b, 2)] {
        assert!(mean(from, to, n) > 3000, "{} to {}", from.name(), to.name());
    }
    for name in ["a", "b", "c"] {
        assert_eq!(switch.status().ports, 3);
        assert_eq!(switch.show(name).drops.iter().find(|(reason, _)| *reason != "no_member"), None);
    }
}

#[test]
fn tags_come_back_and_go_with_the_checksum_in_its_place() {
    let Some((net, switch)) = Switch::new(2) else { return };
    switch.bridge("br0");
    let [a, b, c] = ["a", "b", "c"].map(|name| net.host(name));
    for host in [&a, &b, &c] {
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    }
    net.veth("a", &a, "eth0");
    net.veth("b", &b, "eth0");
    take(&switch, "a", "--trunk 10,20");
    take(&switch, "b", "--trunk 10,20");
    switch.tap("c", &c, "--access 10");
    let [from, trunk, access] = [&a, &b, &c].map(|host| host.vnet_socket("eth0"));

    let sent = frame::frame(mac(9), mac(1), &[tag(3, true, 20)], EXPERIMENTAL, &[7; 100]);
    from.send(&sent).expect("sends");
    assert_eq!(trunk.recv(LONG).expect("in VLAN 20").frame, sent);
    assert_eq!(access.recv(SHORT), None);

    // Two tags: only the outer one is the bridge's.
    let sent = frame::frame(mac(9), mac(1), &[tag(0, false, 20), tag(1, false, 7)], EXPERIMENTAL, &[8; 100]);
    from.send(&sent).expect("sends");
    assert_eq!(trunk.recv(LONG).expect("in VLAN 20").frame, sent);

    // A super-frame in a tag: its positions are those of the tagged frame where it is sent, and without the tag where it leaves so.
    let payload = vec![5; 20_000];
    let plain = frame::tcp4(mac(9), mac(1), &payload);
    let tagged = [&plain[..12], &tag(0, false, 10), &plain[12..]].concat();
    from.send_with(frame::vnet(1, 1, TCP4_HEADERS as u16 + 4, 1400, 38, 16), &tagged).expect("sends");
    let untagged = access.recv(LONG).expect("in VLAN 10");
    assert_eq!(untagged.frame, plain);
    assert_eq!(&untagged.vnet[4..10], &frame::tcp4_vnet(1400)[4..10]);
    let kept = trunk.recv(LONG).expect("in VLAN 10");
    assert_eq!(kept.frame, tagged);
    assert_eq!(&kept.vnet[4..10], &frame::tcp4_vnet(1400)[4..10], "the kernel has taken the tag out again");
    for name in ["a", "b", "c"] {
        assert_eq!(switch.drops(name, "vnet_header_invalid"), 0);
    }
}

#[test]
fn the_host_of_the_switch_is_silent_on_what_a_port_has() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let a = net.host("a");
    cable(&net, &a, 1, 1500);
    net.home().address("a", &format!("{}/24", v4(9)));
    assert!(a.ping(v4(9)), "the interface is the host's");
    take(&switch, "a", "");
    a.ip("neigh flush all");
    let heard = |timeout| a.ping_with(v4(9), 56, timeout).is_some();
    assert!(!heard(Duration::from_secs(1)));
    assert!(switch.show("a").rx.frames > 0, "the port has heard the question");
    switch.del("a");
    assert!(heard(LONG), "the interface is the host's again");
}

#[test]
fn the_port_goes_down_with_its_interface_and_up_with_the_next() {
    for workers in [1, 2] {
        let Some((net, switch)) = Switch::new(workers) else { return };
        switch.bridge("br0");
        let [a, b] = ["a", "b"].map(|name| net.host(name));
        switch.tap("b", &b, "");
        address(&b, 2);
        // There is none yet: a VM that has not started.
        take(&switch, "a", "");
        assert_eq!(switch.show("a").reason.as_deref(), Some("there is no interface a"));
        for mtu in [1500, 9000] {
            net.home().ip(&format!(
                "link add name a mtu {mtu} type veth peer name eth0 netns {}",
                a.path().display()
            ));
            a.ip("link set dev eth0 up");
            address(&a, 1);
            switch.wait_oper("a", "up");
            assert_eq!(switch.show("a").mtu, mtu, "the interface's own");
            assert!(a.ping(v4(2)));
            traffic::tcp(&b, &a, v4(1), 1 << 20);
            net.home().ip("link del dev a");
            assert_eq!(switch.wait_oper("a", "down").as_deref(), Some("there is no interface a"));
            assert_eq!(switch.show("a").queues, 0);
            let before = switch.drops("a", "egress_down") + switch.drops("b", "no_member");
            let _ = b.ping_with(v4(1), 56, SHORT);
            wait_until("what is for it is counted", LONG, || {
                switch.drops("a", "egress_down") + switch.drops("b", "no_member") > before
            });
        }
        let rx = switch.show("a").rx.frames;
        assert!(rx > 0, "it is the same port");
    }
}

#[test]
fn down_and_renamed_are_told_and_pass() {
    let Some((net, switch, [a, b, _])) = three(2, 1500, "") else { return };
    assert!(a.ping(v4(2)));
    net.home().ip("link set dev a down");
    assert_eq!(switch.wait_oper("a", "down").as_deref(), Some("interface a is down"));
    net.home().ip("link set dev a up");
    switch.wait_oper("a", "up");
    assert!(a.ping(v4(2)));
    net.home().ip("link set dev b down");
    net.home().ip("link set dev b name z");
    wait_until("it is renamed", LONG, || {
        switch.show("b").reason.as_deref() == Some("interface b was renamed to z")
    });
    net.home().ip("link set dev z name b");
    switch.wait_oper("b", "up");
    assert!(b.ping(v4(1)));
}

#[test]
fn an_interface_of_a_bridge_or_of_another_port_is_refused() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let [a, b] = ["a", "b"].map(|name| net.host(name));
    net.kernel_bridge("kernel0");
    net.plug("kernel0", "a", &a, "eth0");
    net.veth("b", &b, "eth0");
    take(&switch, "b", "");
    let refused = |words: &str| {
        let spec = parse::<PortSpec>(words);
        switch.call(Request::PortAdd(Box::new(spec))).expect_err("is refused").to_string()
    };
    let reason = refused("a --bridge br0 --type netdev --ifname a");
    assert!(reason.contains("interface a belongs to kernel0"), "{reason}");
    let reason = refused("again --bridge br0 --type netdev --ifname b");
    assert!(reason.contains("\"b\" is that of port \"b\""), "{reason}");
    // The same interface by another name of its namespace, which only the kernel knows to be the same.
    let home = net.home().path();
    let reason = refused(&format!("again --bridge br0 --type netdev --ifname b --netns {}", home.display()));
    assert!(reason.contains("interface b is in use by another port"), "{reason}");
}

#[test]
fn frames_that_the_kernel_had_no_room_for_are_counted() {
    let Some(net) = Net::new() else { return };
    let a = net.host("a");
    a.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    net.veth("a", &a, "eth0");
    let flood = a.vnet_socket("eth0");
    net.home().run(|| {
        // A worker that works when it is told to.
        let mut engine = Engine::start(Options {
            workers: 1,
            threads: false,
            clock: Clock::monotonic(),
            bell: None,
            opener: Opener::kernel(),
            features: Features::default(),
        })
        .expect("an engine");
        engine.call(Request::BridgeAdd(parse::<BridgeSpec>("br0"))).expect("a bridge");
        let port = parse::<PortSpec>("a --bridge br0 --type netdev --ifname a");
        engine.call(Request::PortAdd(Box::new(port))).expect("a port");
        let superframe = frame::tcp4(mac(9), mac(1), &vec![5; 60_000]);
        for _ in 0..600 {
            flood.send_with(frame::tcp4_vnet(1400), &superframe).expect("sends");
        }
        let count = |engine: &mut Engine| {
            let port = engine.call(Request::PortShow { name: "a".parse().expect("a name") });
            let tapway_dataplane::api::Reply::Port { port } = port.expect("a port") else { panic!() };
            let lost = port.drops.iter().find(|(reason, _)| *reason == "rx_overflow").map_or(0, |(_, n)| *n);
            (port.rx.frames, lost)
        };
        wait_until("lost frames are counted", LONG, || {
            engine.run_inline();
            engine.housekeep();
            let (taken, lost) = count(&mut engine);
            lost > 100 && taken + lost == 600
        });
        engine.stop();
    });
}
