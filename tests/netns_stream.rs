//! `stream` and `dgram` ports between real network stacks.
//!
//! ```text
//!   "vm": eth0 ── Monitor ══ a Unix socket ══ switch ── TAP eth0 :"host"
//!   edge's stack ── passt ══ a Unix socket ══ switch ── TAP eth0 :"guest"
//! ```

mod topo;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, UdpSocket},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use topo::{
    Host, Net,
    monitor::{Monitor, Wire},
    skipped,
    switch::Switch,
    traffic, wait_until,
};

const VM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Reconnecting takes a second at most; the rest is for a machine under load.
const SOON: Duration = Duration::from_secs(10);

/// A switch with hosts `host` and `other` at TAPs, and a directory for sockets.
struct World {
    switch: Switch,
    net: Net,
    host: Host,
    other: Host,
    dir: TempDir,
}

impl World {
    fn new(workers: usize) -> Option<Self> {
        let (net, switch) = Switch::new(workers)?;
        let (host, other) = (net.host("host"), net.host("other"));
        switch.bridge("br0");
        switch.tap("host", &host, "--address 198.51.100.2/24");
        switch.tap("other", &other, "--address 198.51.100.3/24");
        let dir = tempfile::tempdir().expect("a temporary directory");
        Some(Self { switch, net, host, other, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A port `vm` of this type with a socket `port.sock`; its path.
    fn port(&self, kind: &str, words: &str) -> PathBuf {
        let path = self.path("port.sock");
        self.switch.port(&format!("vm --bridge br0 --type {kind} --path {} {words}", path.display()));
        path
    }

    fn vm(&self) -> Host {
        self.net.host("vm")
    }

    /// A machine at the port.
    fn start(&self, vm: &Host, wire: Wire) -> Monitor {
        let monitor = Monitor::start(vm, "198.51.100.1/24", 1500, wire);
        self.switch.wait_oper("vm", "up");
        monitor
    }
}

#[test]
fn a_machine_on_a_stream_and_a_host_on_a_tap_reach_each_other() {
    for (workers, way) in [(1, "--listen"), (3, "--connect")] {
        let Some(world) = World::new(workers) else { return };
        let (vm, path) = (world.vm(), world.path("port.sock"));
        let listener = (way == "--connect").then(|| UnixListener::bind(&path).expect("a socket"));
        world.port("stream", way);
        let wire = listener.as_ref().map_or_else(|| Wire::connect(&path), Wire::accept);
        let _monitor = world.start(&vm, wire);
        assert!(world.host.ping(VM) && vm.ping(HOST) && vm.ping(OTHER));
        traffic::payloads(&world.host, &vm, VM);
        traffic::payloads(&vm, &world.host, HOST);
        let port = world.switch.show("vm");
        assert_eq!((port.oper.as_str(), port.reason), ("up", None));
        assert!(port.rx.frames > 0 && port.tx.frames > 0);
    }
}

#[test]
fn jumbo_frames_cross_a_stream() {
    let Some(world) = World::new(2) else { return };
    let vm = world.vm();
    let path = world.port("stream", "--mtu 9000");
    world.switch.set("host --mtu 9000");
    let _monitor = Monitor::start(&vm, "198.51.100.1/24", 9000, Wire::connect(&path));
    world.switch.wait_oper("vm", "up");
    assert!(world.host.ping(VM));
    assert!(world.host.ping_with(VM, 8972, Duration::from_secs(5)).is_some());
    traffic::payloads(&world.host, &vm, VM);
}

#[test]
fn machines_on_datagrams_are_reached_where_the_peer_is_named_and_where_it_is_not() {
    for named in [true, false] {
        let Some(world) = World::new(2) else { return };
        let (vm, own) = (world.vm(), world.path("vm.sock"));
        // As many datagrams as a super-frame has segments, and more.
        vm.sysctl("net/unix/max_dgram_qlen", "512");
        let words = if named { format!("--peer-path {}", own.display()) } else { String::new() };
        let path = world.port("dgram", &words);
        let reason = world.switch.wait_oper("vm", "down").expect("a reason");
        let place = if named { own.display() } else { path.display() };
        assert!(
            reason.starts_with("waiting for a peer ") && reason.ends_with(&place.to_string()),
            "{reason}"
        );
        for _ in 0..2 {
            let _monitor = world.start(&vm, Wire::dgram(&vm, &own, &path));
            assert!(vm.ping(HOST) && world.host.ping(VM));
            traffic::payloads(&world.host, &vm, VM);
            // It is switched off, and on again.
        }
        let reason = world.switch.wait_oper("vm", "down");
        assert!(reason.is_some());
        world.switch.del("vm");
        assert!(!path.exists());
    }
}

#[test]
fn a_machine_that_is_switched_off_and_on_finds_its_port_as_it_was() {
    let Some(world) = World::new(2) else { return };
    let vm = world.vm();
    let path = world.port("stream", "--access 10");
    world.switch.set("host --access 10");
    let reason = format!("waiting for a peer at {}", path.display());
    assert_eq!(world.switch.wait_oper("vm", "down").as_deref(), Some(reason.as_str()));
    let monitor = world.start(&vm, Wire::connect(&path));
    assert!(world.host.ping(VM));
    let before = world.switch.show("vm");
    assert!(world.switch.knows("vm"), "the machine's address is learned on its port");

    drop(monitor);
    let gone = format!("{reason}; the last one is gone: it closed the connection");
    assert_eq!(world.switch.wait_oper("vm", "down").as_deref(), Some(gone.as_str()));
    assert!(!world.switch.knows("vm"), "what was learned is forgotten");
    assert!(world.host.ping_with(VM, 56, Duration::from_millis(300)).is_none());

    let _monitor = world.start(&vm, Wire::connect(&path));
    assert!(world.host.ping(VM) && world.other.ping_with(VM, 56, Duration::from_millis(300)).is_none());
    let after = world.switch.show("vm");
    assert!(after.rx.frames > before.rx.frames && after.tx.frames > before.tx.frames, "counters go on");
}

#[test]
fn what_a_machine_sends_first_is_not_lost() {
    let Some(world) = World::new(2) else { return };
    let path = world.port("stream", "");
    let (own, other) = (world.path("vm.sock"), world.path("other.sock"));
    world.switch.port(&format!("vm2 --bridge br0 --type dgram --path {}", other.display()));
    let host = world.host.packet_socket("eth0");
    let hello = |last| [[0xff; 6], [2, 0, 0, 0, 0, last], [0x88, 0xb5, last, 0, 0, 0]].concat();
    let hears = |frame: Vec<u8>| host.recv_where(SOON, |heard| heard.starts_with(&frame)).is_some();
    for last in 1..=3 {
        let mut stream = UnixStream::connect(&path).expect("a connection");
        stream.write_all(&[&18u32.to_be_bytes()[..], &hello(last)].concat()).expect("room");
        assert!(hears(hello(last)), "{last}");
    }
    let socket = UnixDatagram::bind(&own).expect("a socket");
    socket.send_to(&hello(4), &other).expect("room");
    assert!(hears(hello(4)));
    assert_eq!(world.switch.drops("vm", "port_down") + world.switch.drops("vm2", "port_down"), 0);
}

#[test]
fn a_switch_goes_to_a_machine_that_comes_and_goes() {
    let Some(world) = World::new(2) else { return };
    let (vm, path) = (world.vm(), world.path("port.sock"));
    world.port("stream", "--connect");
    assert!(world.switch.wait_oper("vm", "down").is_some());
    for _ in 0..2 {
        let listener = UnixListener::bind(&path).expect("a socket");
        let _monitor = world.start(&vm, Wire::accept(&listener));
        assert!(world.host.ping(VM));
        fs::remove_file(&path).expect("the machine's socket");
        // The machine is switched off.
    }
    world.switch.del("vm");
}

#[test]
fn who_comes_second_waits_until_the_first_is_gone() {
    let Some(world) = World::new(2) else { return };
    let (first, second) = (world.vm(), world.vm());
    let path = world.port("stream", "--listen");
    let monitor = world.start(&first, Wire::connect(&path));
    assert!(world.host.ping(VM));
    let _waiting = Monitor::start(&second, "198.51.100.9/24", 1500, Wire::connect(&path));
    assert!(world.host.ping_with([198, 51, 100, 9], 56, Duration::from_millis(1300)).is_none());
    assert!(world.host.ping(VM), "the first is not disturbed");
    drop(monitor);
    wait_until("the second is let in", SOON, || {
        world.host.ping_with([198, 51, 100, 9], 56, Duration::from_millis(500)).is_some()
    });
}

#[test]
fn a_machine_that_lies_about_a_length_loses_its_connection_and_nobody_else_notices() {
    let Some(world) = World::new(2) else { return };
    let path = world.port("stream", "");
    let mut liar = UnixStream::connect(&path).expect("a connection");
    world.switch.wait_oper("vm", "up");
    liar.write_all(&[0xff; 8]).expect("room");
    let reason = world.switch.wait_oper("vm", "down").expect("a reason");
    assert!(
        reason.ends_with("it announced a frame of 4294967295 octets; at most 69632 can be meant"),
        "{reason}"
    );
    assert_eq!(liar.read(&mut [0; 8]).map_err(|e| e.kind()).unwrap_or(0), 0);
    assert!(world.host.ping(OTHER));
    // It comes back at once, again and again: it is let in once a second.
    let started = std::time::Instant::now();
    for _ in 0..2 {
        let mut liar = UnixStream::connect(&path).expect("a connection");
        liar.write_all(&[0xff; 8]).expect("room");
        let _ = liar.read(&mut [0; 8]);
    }
    assert!(started.elapsed() > Duration::from_secs(1), "{:?}", started.elapsed());
    let vm = world.vm();
    let _monitor = world.start(&vm, Wire::connect(&path));
    wait_until("an honest one is let in", SOON, || world.host.ping(VM));
}

#[test]
fn a_machine_that_stops_reading_costs_its_own_frames() {
    let Some(world) = World::new(2) else { return };
    let vm = world.vm();
    let path = world.port("stream", "");
    let monitor = world.start(&vm, Wire::connect(&path));
    assert!(world.host.ping(VM) && world.host.ping(OTHER));
    monitor.pause(true);
    let socket = world.host.run(|| UdpSocket::bind((HOST, 0))).expect("a socket");
    wait_until("frames find no room", SOON, || {
        for _ in 0..100 {
            let _ = socket.send_to(&[7; 1400], (VM, 9));
        }
        world.switch.drops("vm", "egress_full") > 0
    });
    assert!(world.host.ping(OTHER));
    assert_eq!(world.switch.show("vm").oper, "up");
    monitor.pause(false);
    wait_until("there is room again", SOON, || {
        world.host.ping_with(VM, 56, Duration::from_millis(200)).is_some()
    });
    traffic::tcp(&world.host, &vm, VM, 1 << 20);
}

#[test]
fn sockets_have_files_that_come_and_go_with_their_ports() {
    let Some(world) = World::new(1) else { return };
    let path = world.port("stream", "");
    assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o660);
    world.switch.del("vm");
    assert!(!path.exists());
    let add = |words: &str| {
        let words = format!("vm --bridge br0 --type {words} --path {}", path.display());
        world.switch.refused(&words)
    };
    fs::write(&path, "precious").expect("a file");
    assert!(add("stream").contains("exists and is no socket"));
    fs::remove_file(&path).expect("the file");
    let listener = UnixListener::bind(&path).expect("a socket");
    assert!(add("stream").contains("another process is at"));
    assert!(add("dgram").contains("another process is at"));
    drop(listener);
    world.port("stream", ""); // what a process that died left is replaced
}

/// passt in the namespace of a host, which has an address and a default route.
struct Passt {
    process: Child,
    log: PathBuf,
}

impl Passt {
    /// Its socket and its log are in a directory. `None` (and a line that says why) where it is not installed.
    fn start(edge: &Host, dir: &Path) -> Option<Self> {
        let log = dir.join("log");
        let mut command = Command::new("passt");
        command.args("--foreground --stderr --ipv4-only --dns none --search none --mtu 1500".split(' '));
        command.args("--address 198.51.100.77 --netmask 24 --gateway 198.51.100.254".split(' '));
        command.args("--mac-addr 02:00:00:00:00:fe --socket".split(' ')).arg(dir.join("passt.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).expect("a log"));
        match edge.run(|| command.spawn()) {
            Ok(process) => Some(Self { process, log }),
            Err(e) => {
                skipped(&format!("no passt (Debian: passt): {e}"));
                None
            }
        }
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Asks for an address by DHCP; what is offered.
fn dhcp_offer(guest: &Host) -> Option<Ipv4Addr> {
    let shown = guest.ip("-o link show dev eth0");
    let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1)?;
    let mac: Vec<u8> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hex")).collect();
    // RFC 2131 §2: BOOTREQUEST over Ethernet, a transaction number, the client's address; RFC 2132 §9.6: DHCPDISCOVER.
    let mut discover = vec![0; 236];
    discover[..8].copy_from_slice(&[1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    discover[28..34].copy_from_slice(&mac);
    discover.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    // The offer is for an address that the guest has not got: its stack would not take it.
    let frames = guest.packet_socket("eth0");
    let socket = guest.run(|| UdpSocket::bind("0.0.0.0:68")).expect("a socket");
    socket.set_broadcast(true).expect("broadcast");
    socket.send_to(&discover, "255.255.255.255:67").expect("a broadcast");
    let to_client = |frame: &[u8]| frame.get(36..38) == Some(&[0, 68]) && frame.get(42) == Some(&2);
    let offer = frames.recv_where(Duration::from_millis(500), to_client)?.frame;
    assert_eq!(offer[46..50], discover[4..8], "the transaction");
    Some(Ipv4Addr::new(offer[58], offer[59], offer[60], offer[61]))
}

#[test]
fn passt_is_the_other_end_of_a_stream_port_and_gives_a_guest_the_network_of_its_own() {
    let Some((net, switch)) = Switch::new(2) else { return };
    let (edge, world, guest) = (net.host("edge"), net.host("world"), net.host("guest"));
    edge.veth("up", &world, "down");
    edge.address("up", "203.0.113.1/24");
    world.address("down", "203.0.113.2/24");
    edge.ip("route add default via 203.0.113.2");
    // passt asks for an echo without a privilege, as the group nobody, or root where a user namespace has no other.
    let groups = fs::read_to_string("/proc/self/gid_map").expect("a map");
    let all = groups.split_whitespace().eq(["0", "0", "4294967295"]);
    edge.sysctl("net/ipv4/ping_group_range", if all { "0 2147483647" } else { "0 0" });
    let dir = tempfile::tempdir().expect("a temporary directory");
    // It gives up being root before it makes its socket.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    let Some(passt) = Passt::start(&edge, dir.path()) else { return };

    switch.bridge("br0");
    let path = dir.path().join("passt.sock");
    switch.port(&format!("net --bridge br0 --type stream --connect --path {}", path.display()));
    switch.tap("guest", &guest, "");
    switch.wait_oper("net", "up");
    // DHCP, then ARP and echo, then TCP: each of them is passt's answer, or what it passes on.
    guest.ip("route add default dev eth0");
    let mut offered = None;
    wait_until("passt offers an address", SOON, || {
        offered = dhcp_offer(&guest);
        offered.is_some()
    });
    assert_eq!(offered, Some(Ipv4Addr::new(198, 51, 100, 77)));
    guest.ip("route del default");
    guest.address("eth0", "198.51.100.77/24");
    guest.ip("route add default via 198.51.100.254");
    assert!(guest.ping([203, 0, 113, 2]));
    assert!(guest.ip("neigh show dev eth0").contains("02:00:00:00:00:fe"));
    // One direction after the other: with both at once on a busy machine, passt of March 2023 sends its guest more octets than the
    // server did, without a switch between them too.
    traffic::writes(&guest, &world, [203, 0, 113, 2], &traffic::PAYLOADS);
    traffic::udp(&guest, &world, [203, 0, 113, 2], &[56, 1400]);

    drop(passt);
    switch.wait_oper("net", "down");
    let _passt = Passt::start(&edge, dir.path());
    switch.wait_oper("net", "up");
    assert!(guest.ping([203, 0, 113, 2]), "the port goes to it again");
}
