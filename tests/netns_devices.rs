//! What becomes of a port when somebody else lays hands on its interface: deletes it, renames it, takes it down, ends its
//! namespace, or writes nonsense under raw virtio headers. The rest of the switch must not notice.

mod topo;

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use tapway_dataplane::{counters::Totals, index::PortIdx};
use topo::{
    Host, Net,
    frame::{self, BROADCAST, EXPERIMENTAL, mac, vnet},
    packet::VNET_HDR,
    random::Random,
    switch::Switch,
    traffic::{self, pattern},
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

const fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

fn host(net: &Net, switch: &Switch, name: &str, n: u8) -> Host {
    let host = net.host(name);
    plug(switch, name, &host, n);
    host
}

fn plug(switch: &Switch, name: &str, host: &Host, n: u8) {
    // Its address stays when the port is made again, so that others need not ask for it anew.
    switch.tap(name, host, &format!("--address {}/24 --mac 02:00:00:00:0b:{n:02x}", v4(n)));
}

/// Two hosts that exchange payloads as long as `meanwhile` takes, and none is lost.
fn under_traffic(a: &Host, b: &Host, b_addr: Ipv4Addr, meanwhile: impl FnOnce()) {
    let end = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            while !end.load(Relaxed) {
                traffic::tcp(a, b, b_addr, 1 << 20);
                traffic::udp(a, b, b_addr, &[1, 1400, 9000]);
            }
        });
        // Also where it panics: the scope waits for the traffic to end.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        end.store(true, Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn totals(switch: &Switch, port: u16) -> Totals {
    switch.with(move |engine| engine.snapshot().port(PortIdx(port)).expect("a port").stats.total())
}

#[test]
fn a_port_whose_interface_is_deleted_is_down_and_can_be_made_again() {
    let Some((net, switch)) = Switch::new(2) else { return };
    switch.bridge("br0");
    let [a, b, c] = [("a", 1), ("b", 2), ("c", 3)].map(|(name, n)| host(&net, &switch, name, n));
    under_traffic(&a, &b, v4(2), || {
        for _ in 0..3 {
            assert!(a.ping_with(v4(3), 56, LONG).is_some());
            c.ip("link delete dev eth0");
            assert_eq!(switch.wait_oper("c", "down").as_deref(), Some("the interface was deleted"));
            assert!(a.ping_with(v4(3), 56, SHORT).is_none());
            let notices = switch.status().notices;
            assert!(notices.iter().any(|n| n == "port c is down: the interface was deleted"), "{notices:?}");
            switch.del("c");
            plug(&switch, "c", &c, 3);
        }
    });
    assert!(a.ping_with(v4(3), 56, LONG).is_some());
}

#[test]
fn a_port_whose_namespace_ends_is_down_and_can_be_made_again() {
    let Some((net, switch)) = Switch::new(2) else { return };
    switch.bridge("br0");
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, n)| host(&net, &switch, name, n));
    under_traffic(&a, &b, v4(2), || {
        for _ in 0..3 {
            let c = host(&net, &switch, "c", 3);
            assert!(c.ping_with(v4(1), 56, LONG).is_some());
            drop(c);
            assert_eq!(switch.wait_oper("c", "down").as_deref(), Some("its network namespace ended"));
            switch.del("c");
        }
    });
}

#[test]
fn a_port_whose_interface_is_renamed_or_moved_is_down_until_it_is_back() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let [a, b, c] = [("a", 1), ("b", 2), ("c", 3)].map(|(name, n)| host(&net, &switch, name, n));
    let elsewhere = net.host("elsewhere");
    let rename = |from: &str, to: &str| {
        c.ip(&format!("link set dev {from} down"));
        c.ip(&format!("link set dev {from} name {to}"));
        c.ip(&format!("link set dev {to} up"));
    };
    under_traffic(&a, &b, v4(2), || {
        rename("eth0", "other0");
        topo::wait_until("the port says why", Duration::from_secs(5), || {
            switch.show("c").reason.as_deref() == Some("the interface was renamed to other0")
        });
        assert!(a.ping_with(v4(3), 56, SHORT).is_none());
        rename("other0", "eth0");
        switch.wait_oper("c", "up");
        // The host may just be giving up the neighbour it asked for in vain; what waits for that one is lost with it.
        topo::wait_until("it answers again", LONG, || a.ping_with(v4(3), 56, SHORT).is_some());

        c.ip(&format!("link set dev eth0 netns {}", elsewhere.path().display()));
        let reason = switch.wait_oper("c", "down");
        assert_eq!(reason.as_deref(), Some("the interface was moved to another network namespace"));
        switch.del("c");
        plug(&switch, "c", &c, 3);
        assert!(a.ping_with(v4(3), 56, LONG).is_some());
        assert!(!elsewhere.has_interface("eth0"), "the interface went with its port, wherever it was");
    });
}

#[test]
fn frames_for_an_interface_that_is_down_are_counted_and_it_comes_back_by_itself() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let [a, b] = ["a", "b"].map(|name| {
        let host = net.host(name);
        switch.silent_tap(name, &host, "");
        host
    });
    switch.with(|engine| {
        use tapway_dataplane::{api::Control as _, api::Request, config::FdbSpec, wire::MacAddr};
        let mac = MacAddr::from_octets(mac(2));
        let name = |s: &str| s.parse().expect("a name");
        let entry = FdbSpec {
            mac,
            bridge: "br0".parse().expect("a name"),
            vlan: 0,
            port: name("b"),
            remote: None,
            sticky: false,
        };
        engine.call(Request::FdbAdd(entry)).expect("a static entry");
    });
    let from = a.packet_socket("eth0");
    let sent = frame::frame(mac(2), mac(1), &[], EXPERIMENTAL, &[1; 46]);
    b.ip("link set dev eth0 down");
    for n in 1..=5 {
        from.send(&sent).unwrap();
        topo::wait_until("the drop is counted", LONG, || switch.drops("b", "egress_down") == n);
    }
    assert_eq!(switch.wait_oper("b", "down").as_deref(), Some("the interface is down"));
    from.send(&sent).unwrap();
    topo::wait_until("so is the next, by the snapshot", LONG, || switch.drops("b", "egress_down") == 6);
    from.send(&frame::frame(BROADCAST, mac(1), &[], EXPERIMENTAL, &[1; 46])).unwrap();
    topo::wait_until("what is flooded has nowhere to go", LONG, || switch.drops("a", "no_member") == 1);
    b.ip("link set dev eth0 up");
    switch.wait_oper("b", "up");
    let to = b.packet_socket("eth0");
    from.send(&sent).unwrap();
    assert_eq!(to.recv(LONG).map(|r| r.frame), Some(sent));
    topo::wait_until("it is counted", LONG, || switch.show("b").tx.frames == 1);
}

/// A frame that is TCP or UDP over IPv4, or only looks like it, and a virtio header of which up to two fields are absurd.
/// A little is wrong with each rather than much, because the kernel refuses what is quite wrong.
fn nonsense(random: &mut Random, to: [u8; 6]) -> ([u8; VNET_HDR], Vec<u8>) {
    let gso = random.one(&[0, 1, 1, 1, 3, 4, 5, 5, 0x81, 0x85]);
    let lens: &[usize] =
        if gso == 0 { &[0, 1, 46, 100, 1000, 1460] } else { &[1, 100, 1500, 5000, 20_000, 60_000] };
    let len = random.one(lens);
    let mut sent = frame::tcp4(to, mac(1), &pattern(len, 1));
    let udp = gso & 0x7f == 5 || random.below(10) == 0;
    if udp {
        sent[23] = 17; // over what was made as TCP: the length field of UDP lies
    }
    for _ in 0..random.one(&[0, 0, 0, 1, 3]) {
        let at = 12 + random.below(50.min(sent.len() - 12));
        sent[at] = random.below(256) as u8;
    }
    if random.below(10) == 0 {
        sent.truncate(14 + random.below(60));
    }
    let mut fields = [54, random.one(&[1, 8, 500, 1000, 1460, 9000]), 34, if udp { 6 } else { 16 }];
    for _ in 0..random.one(&[0, 1, 1, 2]) {
        let limit = random.one(&[80, 2000, 1 << 16]);
        fields[random.below(4)] = random.below(limit) as u16;
    }
    let [hdr_len, size, start, offset] = fields;
    (vnet(random.one(&[0, 1, 1, 1, 1, 3, 0xff]), gso, hdr_len, size, start, offset), sent)
}

/// Sends absurd frames by `evil`, between them good ones that must arrive at `to`, each intact and in order.
fn send_nonsense(random: &mut Random, evil: &Host, to: &Host, count: usize) {
    // The kernel makes thousands of frames of a super-frame with a tiny segment size: a TAP whose queue is full of them loses a good one
    // before the switch can see it.
    evil.ip("link set dev eth0 txqueuelen 100000");
    let (from, to) = (evil.vnet_socket("eth0"), to.packet_socket("eth0"));
    let mut refused = 0;
    for n in 0..count {
        let address = random.one(&[mac(2), mac(9), BROADCAST]);
        let (header, sent) = nonsense(random, address);
        refused += usize::from(from.send_with(header, &sent).is_err());
        if n % 20 == 19 {
            let good = frame::frame(mac(9), mac(1), &[], EXPERIMENTAL, &pattern(46 + n % 1400, n as u64));
            from.send(&good).unwrap();
            assert!(to.recv_where(LONG, |f| f == good).is_some(), "the good frame after {n} absurd ones");
        }
    }
    assert!(refused < count * 7 / 10, "the kernel let some through: it refused {refused} of {count}");
}

#[test]
fn absurd_virtio_headers_harm_nobody_and_every_frame_is_accounted_for() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for seed in [1, seed] {
        let Some((net, switch)) = Switch::new(1) else { return };
        switch.bridge("br0");
        let [a, b] = ["a", "b"].map(|name| {
            let host = net.host(name);
            switch.silent_tap(name, &host, "");
            host
        });
        send_nonsense(&mut Random(seed), &a, &b, 1000);
        topo::wait_until("every frame that came has left or is counted as a drop", LONG, || {
            let (from, to) = (totals(&switch, 0), totals(&switch, 1));
            let drops: u64 = from.drops().chain(to.drops()).map(|(_, n)| n).sum();
            println!("seed {seed}: {from:?}, then {to:?}");
            assert_eq!(to.rx_frames, 0, "b is silent");
            assert_eq!(to.offload_fallbacks, 0, "the kernel takes what it has agreed to take");
            from.rx_frames > 100 && from.rx_frames == to.tx_frames + drops
        });
        for port in ["a", "b"] {
            assert_eq!(switch.show(port).oper, "up");
        }
    }
}

#[test]
fn absurd_virtio_headers_reach_no_plain_port_and_disturb_no_transfer() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let Some((net, switch)) = Switch::new(2) else { return };
    switch.bridge("br0");
    let evil = net.host("evil");
    switch.silent_tap("evil", &evil, "");
    let plain = net.host("plain");
    switch.silent_tap("plain", &plain, "--offload off");
    let [a, b] = [("a", 11), ("b", 12)].map(|(name, n)| host(&net, &switch, name, n));
    let watch = plain.packet_socket("eth0");
    under_traffic(&a, &b, v4(12), || send_nonsense(&mut Random(seed), &evil, &plain, 1000));
    for received in watch.drain(SHORT) {
        // A tag does not count, and a frame may have one that it came with.
        assert!(received.frame.len() <= 1518, "{} octets: a super-frame", received.frame.len());
    }
    for port in ["evil", "plain", "a", "b"] {
        assert_eq!(switch.show(port).oper, "up");
    }
}

#[test]
fn what_the_kernel_lets_through_and_nobody_can_split_is_a_named_drop() {
    let Some((net, switch)) = Switch::new(1) else { return };
    switch.bridge("br0");
    let [a, b] = [("a", ""), ("b", "--offload off")].map(|(name, flags)| {
        let host = net.host(name);
        switch.silent_tap(name, &host, flags);
        host
    });
    let (socket, to) = (a.vnet_socket("eth0"), b.packet_socket("eth0"));
    let made = |at: usize, octet: u8| {
        let mut made = frame::tcp4(mac(2), mac(1), &pattern(8000, 1));
        made[at] = octet;
        made
    };
    for (port, reason, size, sent) in [
        ("a", "gso_malformed", 1000, made(20, 0x20)), // a fragment
        ("b", "segment_limit", 1, made(20, 0)),       // 8,000 segments
        ("b", "mtu_exceeded", 4000, made(20, 0)),
    ] {
        let before = switch.drops(port, reason);
        socket.send_with(frame::tcp4_vnet(size), &sent).unwrap();
        topo::wait_until(reason, LONG, || switch.drops(port, reason) == before + 1);
    }
    assert_eq!(switch.show("b").tx.frames, 0);
    assert_eq!(to.drain(SHORT), []);
}
