//! Change under traffic, and many ports: what is not changed does not notice.
//!
//! With `TAPWAY_TEST_LONG=1` as many changes and ports as the switch is promised to bear, two minutes long; else a part of them.

mod topo;

use std::{
    env,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use topo::{
    Host,
    frame::{self, BROADCAST, EXPERIMENTAL, mac},
    packet::PacketSocket,
    skipped,
    switch::Switch,
    traffic,
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

fn long() -> bool {
    env::var_os("TAPWAY_TEST_LONG").is_some_and(|v| v == "1")
}

/// Sends a datagram a millisecond from `a` to `b` and back until `end`; none may be lost. How many, and the longest round trip.
fn ping_pong(a: &Host, b: &Host, end: &AtomicBool) -> (u64, Duration) {
    let far = b.run(|| UdpSocket::bind((B, 0))).expect("bind");
    let near = a.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("bind");
    near.connect(far.local_addr().expect("address")).expect("connect");
    near.set_read_timeout(Some(LONG)).expect("timeout");
    far.set_read_timeout(Some(LONG)).expect("timeout");
    let (mut buf, mut longest, mut count) = ([0; 8], Duration::ZERO, 0u64);
    while !end.load(Relaxed) {
        let start = Instant::now();
        near.send(&count.to_be_bytes()).expect("send");
        let (_, from) = far.recv_from(&mut buf).unwrap_or_else(|e| panic!("datagram {count} there: {e}"));
        far.send_to(&buf, from).expect("send");
        near.recv(&mut buf).unwrap_or_else(|e| panic!("datagram {count} back: {e}"));
        assert_eq!(buf, count.to_be_bytes(), "in order");
        longest = longest.max(start.elapsed());
        count += 1;
        thread::sleep(Duration::from_millis(1));
    }
    (count, longest)
}

/// The life of a port, its VLANs and its entries.
fn change(switch: &Switch, n: usize) {
    let vlan = 10 + n % 4000;
    switch.port(&format!("x --bridge br0 --ifname x --queues 2 --access {vlan}"));
    for words in [
        format!("--trunk 10,{vlan},4000-4094 --native 5"),
        "--mtu 1400".to_owned(),
        "--flood off --mcast-flood off".to_owned(),
        "--isolated on --hairpin on --mac-limit 3".to_owned(),
        "--admin down".to_owned(),
        "--admin up --trunk all".to_owned(),
        format!("--qinq {vlan}"),
    ] {
        switch.set(&format!("x {words}"));
    }
    switch.bridge("y");
    switch.port("z --bridge y --ifname z");
    switch.del("z");
    switch.bridge_del("y");
    if n % 10 == 9 {
        switch.flush(); // also a and b: they are found again by flooding
    }
    switch.del("x");
}

#[test]
fn a_transfer_and_a_ping_lose_nothing_while_other_ports_and_vlans_come_change_and_go() {
    let changes = if long() { 1000 } else { 50 };
    let Some((net, switch)) = Switch::new(2) else { return };
    net.home().sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    switch.bridge("br0");
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, n)| {
        let host = net.host(name);
        switch.silent_tap(name, &host, &format!("--queues 2 --address 198.51.100.{n}/24"));
        host
    });
    let end = AtomicBool::new(false);
    thread::scope(|s| {
        let ping = s.spawn(|| ping_pong(&a, &b, &end));
        let transfer = s.spawn(|| {
            while !end.load(Relaxed) {
                traffic::tcp(&a, &b, B, 16 << 20);
            }
        });
        let start = Instant::now();
        for n in 0..changes {
            change(&switch, n);
            assert!(!ping.is_finished() && !transfer.is_finished(), "both survived {n} changes");
        }
        println!("{changes} ports came, changed and went in {:?}", start.elapsed());
        end.store(true, Relaxed);
        let (count, longest) = ping.join().expect("no datagram was lost");
        transfer.join().expect("every octet of the transfers arrived");
        println!("{count} round trips, the longest {longest:?}");
        assert!(count > changes as u64, "the ping went on: {count}");
    });
    topo::wait_until("each frame of the one left by the other, and none was dropped", LONG, || {
        let (a, b) = (switch.show("a"), switch.show("b"));
        assert!(a.drops.is_empty() && b.drops.is_empty(), "{:?} {:?}", a.drops, b.drops);
        a.rx == b.tx && b.rx == a.tx
    });
    assert!(switch.status().generation > changes as u64 * 8);
}

#[test]
fn many_ports_of_two_queues_all_carry_traffic() {
    let ports = if long() { 256 } else { 64 };
    // Descriptors: a port has its queues, one more for the control thread, one for each worker to send by, and the test's
    // socket. The daemon raises its limit in the same way. It is the one thing here that concerns other tests: it harms none.
    let limit = getrlimit(Resource::Nofile);
    let needed = 6 * ports as u64 + 256;
    if limit.maximum.is_some_and(|max| max < needed) {
        return skipped(&format!("the hard limit on open files is below {needed}"));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("the soft limit is raised");
    let Some((net, switch)) = Switch::new(2) else { return };
    let home = net.home();
    home.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    switch.bridge("br0");
    let start = Instant::now();
    for n in 0..ports {
        switch.port(&format!("p{n} --bridge br0 --queues 2"));
    }
    println!("{ports} ports of 2 queues in {:?}", start.elapsed());
    let sockets: Vec<PacketSocket> = (0..ports).map(|n| home.packet_socket(&format!("p{n}"))).collect();

    let sender = |n: usize| mac(n as u8);
    let made =
        |to, n: usize| frame::frame(to, sender(n), &[], EXPERIMENTAL, &(n as u64).to_be_bytes().repeat(6));
    // A few at a time, so that no socket's buffer is too short for what they all send.
    for some in (0..ports).collect::<Vec<_>>().chunks(64) {
        for &n in some {
            sockets[n].send(&made(BROADCAST, n)).unwrap();
        }
        for (at, socket) in sockets.iter().enumerate() {
            let mut missing: Vec<usize> = some.iter().copied().filter(|&n| n != at).collect();
            while !missing.is_empty() {
                let got = socket.recv(LONG).unwrap_or_else(|| panic!("port {at} misses {missing:?}")).frame;
                let from = missing.iter().position(|&n| made(BROADCAST, n) == got);
                missing.swap_remove(from.unwrap_or_else(|| panic!("port {at} got this twice: {got:02x?}")));
            }
        }
    }
    for (n, socket) in sockets.iter().enumerate() {
        socket.send(&made(sender((n + 1) % ports), n)).unwrap();
    }
    for (at, socket) in sockets.iter().enumerate() {
        let from = (at + ports - 1) % ports;
        let got = socket.recv(LONG).unwrap_or_else(|| panic!("port {at} misses that of {from}")).frame;
        assert_eq!(got, made(sender(at), from), "known by now: it came here alone");
    }
    assert_eq!(sockets[0].drain(SHORT), []);
    for (at, socket) in sockets.iter().enumerate() {
        assert_eq!(socket.drain(Duration::from_millis(1)), [], "port {at}");
    }
    let status = switch.status();
    assert_eq!((status.ports, status.fdb_entries), (ports, ports));
    for worker in &status.workers {
        assert_eq!(worker.queues, ports, "queues are dealt out evenly");
    }
}
