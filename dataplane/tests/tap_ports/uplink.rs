//! An uplink against the real stack: it answers for its address, and tunnel super-frames pass whole, both ways.
//!
//! ```text
//!   station            the test's namespace: switch and host              peer
//!  ┌─────────┐       ┌───────────────────────────────────────┐       ┌─────────────────┐
//!  │ s0 ─────┼── TAP ┼─ relay ── TAP ── up0 ═ routes ═ nic ──┼─ veth ┼─ eth0  vxlan0   │
//!  └─────────┘       └───────────────────────────────────────┘       └─────────────────┘
//! ```

use std::{
    fs,
    io::{IoSlice, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec};
use tapway_dataplane::{
    api::{Control, Refusal, Reply, Request, UplinkView},
    clock::Clock,
    config::UplinkSpec,
    counters::{DropReason, PortCounters},
    engine::{self, Engine, Opener},
    frame::{Batch, Checksum, Offload, UplinkOffload},
    netlink::Socket,
    offload::{self, MAX_HEADERS, Split},
    overlay::{
        outer::{Addresses, Df, Fields, Outer},
        uplink::{Arrival, Envelope},
    },
    port::{
        Received, SendResult, TapQueue,
        tap::{Features, TapOptions},
        uplink::{Uplink, UplinkError},
    },
    sys::udp::{self, SendScratch},
    tick::Tick,
    wire::MacAddr,
};
use zerocopy::IntoBytes;

use crate::topo::{Container, in_netns, names, open, t0, wait_until};

/// A VXLAN header with VNI 42.
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 42, 0];
const STATION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 129);
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 130);
const VTEP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER_VTEP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const VTEP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const PEER_VTEP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);

fn ip(args: &str) {
    let out = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

fn shown(args: &str) -> String {
    String::from_utf8(Command::new("ip").args(args.split_whitespace()).output().unwrap().stdout).unwrap()
}

fn up0() -> TapOptions {
    TapOptions { ifname: Some("up0".into()), ..TapOptions::default() }
}

fn uplink(address: &str, gateway: Option<&str>) -> Uplink {
    uplink_with(up0(), address, gateway)
}

fn uplink_with(options: TapOptions, address: &str, gateway: Option<&str>) -> Uplink {
    Uplink::open(options, address.parse().unwrap(), gateway.map(|ip| ip.parse().unwrap()))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn now(start: Instant) -> Tick {
    Tick::from_nanos(start.elapsed().as_nanos() as u64)
}

fn send(queue: &TapQueue, header: &[u8], parts: [&[u8]; 2]) {
    let header = &header[..queue.vnet_header_len()];
    let parts = [IoSlice::new(header), IoSlice::new(parts[0]), IoSlice::new(parts[1])];
    let result = queue.send(&parts[usize::from(header.is_empty())..]);
    assert!(matches!(result, SendResult::Sent | SendResult::Full), "{result:?}");
}

/// What the relay has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Super-frames in tunnels that came from the kernel, and that it took.
    tunnel_in: usize,
    tunnel_out: usize,
    longest_in: usize,
}

/// The switch: a station's TAP, the uplink, and a tunnel between them.
struct Relay<'a> {
    uplink: &'a Uplink,
    up: TapQueue,
    station: Option<TapQueue>,
    remote: IpAddr,
    udp_csum: bool,
    start: Instant,
    seen: Seen,
}

impl Relay<'_> {
    fn run(mut self, stop: &AtomicBool) -> Seen {
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        let mut scratch = vec![0; 70_000];
        while !stop.load(Relaxed) {
            self.uplink.look_after_next_hops(now(self.start));
            batch.clear();
            let mut more = self.up.recv(&mut batch, &counters, None) == Received::Full;
            (0..batch.len()).for_each(|n| self.take_from_uplink(&batch, n, &mut scratch));
            if let Some(mut station) = self.station.take() {
                batch.clear();
                more |= station.recv(&mut batch, &counters, None) == Received::Full;
                (0..batch.len())
                    .for_each(|n| self.take_from_station(batch.bytes(n), &batch.frame(n).offload));
                self.station = Some(station);
            }
            if !more {
                let station = self.station.as_ref().map(AsFd::as_fd);
                let fds = [Some(self.up.as_fd()), station];
                let mut poll: Vec<PollFd<'_>> =
                    fds.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
                let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                rustix::event::poll(&mut poll, Some(&timeout)).unwrap();
            }
        }
        for reason in DropReason::ALL {
            assert_eq!(counters.dropped(*reason), 0, "{reason}");
        }
        self.seen
    }

    fn take_from_uplink(&mut self, batch: &Batch, n: usize, scratch: &mut [u8]) {
        let before = self.up.vnet_header_len();
        let frame = batch.bytes(n);
        let header = &batch.bytes_with(n, before)[..before];
        let datagrams = match self.uplink.path().receive(header, frame, now(self.start), scratch) {
            Arrival::Datagrams(datagrams) => datagrams,
            Arrival::Answer(answer) => {
                send(&self.up, UplinkOffload::NONE.to_vnet().as_bytes(), [answer, &[]]);
                return;
            }
            Arrival::Learned => return,
            // Groups that the host's stack joins.
            Arrival::Drop(DropReason::NotForUs) => return,
            other => panic!("{other:?}"),
        };
        if header.get(1).is_some_and(|gso_type| gso_type & 0x60 != 0) {
            self.seen.tunnel_in += 1;
            self.seen.longest_in = self.seen.longest_in.max(frame.len());
        }
        assert_eq!((datagrams.from, datagrams.to_port), (self.remote, 4789));
        assert_eq!(datagrams.has_checksum, self.udp_csum, "what the peer was told to send");
        let payload = &frame[datagrams.payload.clone()];
        assert_eq!((&payload[..8], datagrams.stride), (&VXLAN[..], payload.len()));
        let (inner, state) = (&payload[8..], datagrams.offload.within(8).unwrap());
        offload::validate(inner, &state).unwrap();
        if let Some(station) = &self.station {
            send(station, state.to_vnet(0).as_bytes(), [inner, &[]]);
        }
    }

    fn take_from_station(&mut self, inner: &[u8], state: &Offload) {
        let path = self.uplink.path();
        let hop = path.host.next_hop(self.remote);
        let Ok(to) = hop.mac(now(self.start)) else { return };
        let addresses = match (path.address, self.remote) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Addresses::V4 { source, destination },
            (IpAddr::V6(source), IpAddr::V6(destination)) => Addresses::V6 { source, destination },
            other => panic!("{other:?}"),
        };
        let outer = Outer::new(path.mac, MacAddr::ZERO, addresses, 4789);
        let fields = Fields { source_port: 50_000, tos: 0, ttl: 64, df: Df::Set };
        let envelope =
            Envelope { outer: &outer, to, fields: &fields, tunnel: &VXLAN, udp_csum: self.udp_csum };
        let mut head = [0; 100];
        let mut leave = |inner: [&[u8]; 2], state: &Offload| {
            assert!(path.takes(&envelope, state, inner[0].len() + inner[1].len()));
            let len = path.seal(&envelope, inner, state, 14, &mut head).unwrap();
            let parts = [IoSlice::new(&head[..len]), IoSlice::new(inner[0]), IoSlice::new(inner[1])];
            let result = self.up.send(&parts);
            assert!(matches!(result, SendResult::Sent | SendResult::Full), "{result:?}");
        };
        if path.takes(&envelope, state, inner.len()) {
            leave([inner, &[]], state);
            self.seen.tunnel_out += usize::from(state.gso.is_some());
        } else if state.gso.is_some() {
            let (split, mut header) = (Split::plan(inner, state).unwrap(), [0; MAX_HEADERS]);
            for n in 0..split.count() {
                let payload = &inner[split.segment(n, &mut header)];
                leave([&header[..split.header_len()], payload], &Offload::NONE);
            }
        } else if let Checksum::Partial { start, offset } = state.csum {
            let mut inner = inner.to_vec();
            offload::checksum::complete(&mut inner, start.into(), offset.into()).unwrap();
            leave([&inner, &[]], &Offload::NONE);
        }
    }
}

/// Runs `f` while the switch at the uplink's end works; what it has seen.
fn while_relayed(relay: Relay<'_>, f: impl FnOnce()) -> Seen {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let relaying = scope.spawn(|| relay.run(&stop));
        f();
        stop.store(true, Relaxed);
        relaying.join().unwrap()
    })
}

#[test]
fn the_host_reaches_the_address_and_both_are_gone_with_the_uplink() {
    in_netns(|| {
        ip("link set lo up");
        for (offload, address, gateway, route) in [
            (true, "198.51.100.1/30", Some("198.51.100.2"), "198.51.100.1 dev up0 proto static scope link"),
            (false, "198.51.100.1/30", Some("198.51.100.2"), "198.51.100.1 dev up0 proto static scope link"),
            (
                true,
                "2001:db8:1::1/64",
                Some("2001:db8:1::2"),
                "2001:db8:1::1 dev up0 proto static metric 1024",
            ),
        ] {
            let mut uplink = uplink_with(TapOptions { offload, ..up0() }, address, gateway);
            let six = address.contains(':');
            let family = if six { "-6" } else { "-4" };
            let routes = shown(&format!("{family} route show"));
            assert!(routes.lines().any(|line| line.starts_with(route)), "{routes}");
            assert!(
                !routes.contains("/30") && !routes.contains(":1::/64"),
                "no route to the prefix: {routes}"
            );
            let addresses = shown(&format!("{family} address show dev up0"));
            assert!(addresses.contains(gateway.unwrap()), "{addresses}");

            let up = uplink.take_queues().remove(0);
            let target = uplink.path().address;
            let (remote, start) = (target, Instant::now());
            let relay = Relay {
                uplink: &uplink,
                up,
                station: None,
                remote,
                udp_csum: false,
                start,
                seen: Seen::default(),
            };
            while_relayed(relay, || {
                for size in [56, 1400] {
                    let args = ["-c", "1", "-W", "5", "-s", &size.to_string(), &target.to_string()];
                    let out = Command::new("ping").args(args).output().unwrap();
                    assert!(
                        out.status.success(),
                        "{target}, {size} octets: {}",
                        String::from_utf8_lossy(&out.stdout)
                    );
                }
            });
            let known = uplink.path().host.next_hop(gateway.unwrap().parse().unwrap());
            assert_eq!(known.peek(), Some(uplink.tap().mac()), "the gateway has answered");
            uplink.destroy().unwrap();
            wait_until("nothing but lo is left, which a fork elsewhere can delay", || names() == ["lo"]);
            assert!(!shown(&format!("{family} route show")).contains("up0"));
        }
    });
}

#[test]
fn an_address_that_the_host_keeps_to_itself_is_refused_and_nothing_is_left() {
    in_netns(|| {
        ip("link set lo up");
        ip("address add 198.51.100.1/24 dev lo");
        let open = || Uplink::open(up0(), "198.51.100.1/32".parse().unwrap(), None);
        let error = open().unwrap_err();
        assert!(matches!(&error, UplinkError::AddressTaken { ifname, .. } if ifname == "lo"), "{error}");
        wait_until("nothing but lo is left, which a fork elsewhere can delay", || names() == ["lo"]);
        ip("address del 198.51.100.1/24 dev lo");
        ip("route add 198.51.100.1/32 dev lo scope link");
        let error = open().unwrap_err();
        assert!(matches!(error, UplinkError::RouteTaken { .. }), "{error}");
        wait_until("nothing but lo is left, which a fork elsewhere can delay", || names() == ["lo"]);
        ip("route del 198.51.100.1/32 dev lo scope link");
        assert!(open().is_ok());
    });
}

#[test]
fn without_a_gateway_the_interface_itself_is_the_next_hop() {
    in_netns(|| {
        let uplink = uplink("198.51.100.1/32", None);
        let hop = uplink.path().host.next_hop("203.0.113.7".parse().unwrap());
        assert_eq!(hop.mac(Tick::from_secs(1)), Ok(uplink.tap().mac()));
        assert_ne!(uplink.path().mac, uplink.tap().mac());
        assert!(shown("-4 address show dev up0").trim().is_empty());
    });
}

#[test]
fn an_adopted_interface_stays_without_the_address_and_the_route() {
    in_netns(|| {
        ip("tuntap add up0 mode tap vnet_hdr");
        drop(uplink("198.51.100.1/30", Some("198.51.100.2"))); // as a daemon that is killed
        assert!(shown("-4 route show").contains("up0"));
        uplink("198.51.100.1/30", Some("198.51.100.2")).destroy().unwrap();
        assert_eq!(names(), ["lo", "up0"]);
        assert!(shown("-4 address show dev up0").trim().is_empty());
        assert!(!shown("-4 route show").contains("up0"));
    });
}

/// A kernel vxlan device behind a veth, and what the host routes to it.
fn kernel_peer(six: bool, udp_csum: bool) -> Container {
    let peer = Container::new();
    ip("link set lo up");
    ip("link add nic type veth peer name eth0");
    let mut socket = Socket::open().unwrap();
    let eth0 = socket.link_by_name("eth0").unwrap().unwrap();
    socket.move_link(&eth0, peer.fd().as_fd(), "eth0").unwrap();
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    ip("address add 203.0.113.1/25 dev nic");
    ip("address add 2001:db8:2::1/64 dev nic nodad");
    ip("link set nic up");
    let csum = if udp_csum { "udpcsum" } else { "noudpcsum" };
    peer.run(|| {
        ip("link set eth0 up");
        ip("address add 203.0.113.2/25 dev eth0");
        ip("address add 2001:db8:2::2/64 dev eth0 nodad");
        ip("route add 198.51.100.0/24 via 203.0.113.1");
        ip("route add 2001:db8:1::/64 via 2001:db8:2::1");
        ip(&match six {
            false => format!("link add vxlan0 type vxlan id 42 local {PEER_VTEP} remote {VTEP} dstport 4789 {csum}"),
            true => format!(
                "link add vxlan0 type vxlan id 42 local {PEER_VTEP6} remote {VTEP6} dstport 4789 udp6zerocsumrx {}",
                if udp_csum { "noudp6zerocsumtx" } else { "udp6zerocsumtx" }
            ),
        });
        ip("address add 203.0.113.130/25 dev vxlan0");
        ip("link set vxlan0 mtu 1420 up");
    });
    peer
}

/// A transfer to a listener of `to`, and what arrived of it.
fn transfer(from: &Container, to: &Container, address: Ipv4Addr, sent: &[u8]) -> Vec<u8> {
    let mut received = Vec::new();
    thread::scope(|scope| {
        let listener = to.run(|| TcpListener::bind((address, 6000)).unwrap());
        let sending = scope.spawn(move || {
            let to = (address, 6000).into();
            let mut stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap());
            stream.write_all(sent).unwrap();
        });
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        sending.join().unwrap();
    });
    received
}

/// TCP both ways between a station of the switch and a kernel vxlan device; what the relay has seen of it.
/// `None` where the kernel has not what is to be tried.
fn tcp_both_ways(six: bool, udp_csum: bool, offload: bool) -> Option<Seen> {
    let peer = kernel_peer(six, udp_csum);
    let station = Container::new();
    let addresses = vec![format!("{STATION}/25").parse().unwrap()];
    let mut tap = open(&TapOptions { addresses, mtu: Some(1420), ..t0(&station) });
    let (address, gateway, remote): (_, _, IpAddr) = match six {
        false => ("198.51.100.1/30", "198.51.100.2", PEER_VTEP.into()),
        true => ("2001:db8:1::1/64", "2001:db8:1::2", PEER_VTEP6.into()),
    };
    let mut uplink = uplink_with(TapOptions { offload, ..up0() }, address, Some(gateway));
    if offload && !uplink.caps().tunnel_csum {
        println!("skipped: this kernel has no UDP tunnel GSO for TAPs (Linux 6.17 has)");
        return None;
    }
    assert_eq!(uplink.tap().vnet_header_len(), if offload { 24 } else { 0 });
    let up = uplink.take_queues().remove(0);
    let relay = Relay {
        uplink: &uplink,
        up,
        station: Some(tap.take_queues().remove(0)),
        remote,
        udp_csum,
        start: Instant::now(),
        seen: Seen::default(),
    };
    let sent: Vec<u8> = (0..4_000_000u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    Some(while_relayed(relay, || {
        assert!(transfer(&station, &peer, PEER, &sent) == sent, "to the peer");
        assert!(transfer(&peer, &station, STATION, &sent) == sent, "from the peer");
    }))
}

#[test]
fn tcp_to_a_kernel_vxlan_device_passes_in_whole_super_frames_both_ways() {
    for (six, udp_csum) in [(false, false), (false, true), (true, true), (true, false)] {
        in_netns(move || {
            let Some(seen) = tcp_both_ways(six, udp_csum, true) else { return };
            assert!(seen.tunnel_out > 10 && seen.tunnel_in > 10, "{seen:?}");
            assert!(seen.longest_in > 9000, "{seen:?}");
        });
    }
}

#[test]
fn tcp_to_a_kernel_vxlan_device_passes_in_segments_where_the_kernel_takes_nothing_else() {
    for (six, udp_csum) in [(false, false), (false, true), (true, true)] {
        in_netns(move || {
            let seen = tcp_both_ways(six, udp_csum, false).unwrap();
            assert_eq!((seen.tunnel_out, seen.tunnel_in), (0, 0), "{seen:?}");
        });
    }
}

#[test]
fn without_a_gateway_the_host_reaches_the_address_from_any_of_its_own() {
    in_netns(|| {
        ip("link set lo up");
        ip("address add 203.0.113.1/32 dev lo");
        ip("address add 2001:db8:2::1/128 dev lo");
        for address in ["198.51.100.1/32", "2001:db8:1::1/128"] {
            let mut uplink = uplink(address, None);
            let up = uplink.take_queues().remove(0);
            let remote = uplink.path().address;
            let start = Instant::now();
            let relay = Relay {
                uplink: &uplink,
                up,
                station: None,
                remote,
                udp_csum: false,
                start,
                seen: Seen::default(),
            };
            while_relayed(relay, || {
                let out =
                    Command::new("ping").args(["-c", "3", "-W", "2", &remote.to_string()]).output().unwrap();
                assert!(out.status.success(), "{remote}: {}", String::from_utf8_lossy(&out.stdout));
            });
        }
    });
}

#[test]
fn a_train_that_a_socket_sent_at_once_comes_as_one_frame_with_its_stride() {
    in_netns(|| {
        let peer = kernel_peer(false, false);
        let mut uplink = uplink("198.51.100.1/30", Some("198.51.100.2"));
        if !uplink.caps().uso {
            println!("skipped: this kernel has no UDP segmentation offload for TAPs (Linux 6.2 has)");
            return;
        }
        let mut queue = uplink.take_queues().remove(0);
        let socket = peer.run(|| UdpSocket::bind((PEER_VTEP, 0)).unwrap());
        let to = (VTEP, 4789).into();
        let payload: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let (mut batch, counters, mut scratch) = (Batch::new(), PortCounters::default(), vec![0; 2000]);
        let mut out = SendScratch::default();
        let mut found = None;
        wait_until("received", || {
            let envelope = udp::Envelope { to, tos: 0, ttl: 0, segment: Some(1200) };
            let _ = out.send(socket.as_fd(), [(envelope, [&payload[..]].into_iter())].into_iter());
            batch.clear();
            queue.recv(&mut batch, &counters, None);
            for n in 0..batch.len() {
                let (frame, before) = (batch.bytes(n), queue.vnet_header_len());
                let header = &batch.bytes_with(n, before)[..before];
                match uplink.path().receive(header, frame, Tick::default(), &mut scratch) {
                    Arrival::Datagrams(datagrams) => {
                        let payload = frame[datagrams.payload].to_vec();
                        found = Some((datagrams.stride, datagrams.has_checksum, payload));
                    }
                    Arrival::Answer(answer) => {
                        send(&queue, UplinkOffload::NONE.to_vnet().as_bytes(), [answer, &[]]);
                    }
                    _ => {}
                }
            }
            found.is_some()
        });
        assert_eq!(found, Some((1200, true, payload)));
    });
}

#[test]
fn a_header_that_the_kernel_takes_for_a_lie_is_refused_and_the_queue_lives_on() {
    in_netns(|| {
        let mut uplink = uplink("198.51.100.1/30", Some("198.51.100.2"));
        let queue = uplink.take_queues().remove(0);
        let frame = [0; 200];
        let mut said = UplinkOffload::NONE.to_vnet();
        said.hdr.gso_type = 0x21; // a tunnel without a checksum to be finished
        let write = |header: &[u8]| {
            queue.send(&[IoSlice::new(&header[..queue.vnet_header_len()]), IoSlice::new(&frame)])
        };
        assert!(matches!(write(said.as_bytes()), SendResult::Refused(_)));
        let csum = Checksum::Partial { start: 34, offset: 6 };
        let said = UplinkOffload { offload: Offload { csum, gso: None }, tunnel: None };
        assert_eq!(write(said.to_vnet().as_bytes()), SendResult::Sent);
        assert_ne!(uplink.path().mac, MacAddr::ZERO);
    });
}

#[test]
fn the_engine_adds_lists_and_deletes_uplinks() {
    in_netns(|| {
        let mut engine = Engine::start(engine::Options {
            workers: 2,
            threads: false,
            clock: Clock::monotonic(),
            bell: None,
            opener: Opener::kernel(),
            features: Features::default(),
        })
        .unwrap();
        let spec = |address: &str| -> UplinkSpec {
            serde_json::from_value(serde_json::json!({ "name": "up0", "address": address })).unwrap()
        };
        let add = |spec: UplinkSpec| Request::UplinkAdd(Box::new(spec));
        let list = |engine: &mut Engine| -> Vec<UplinkView> {
            match engine.call(Request::UplinkList) {
                Ok(Reply::Uplinks { uplinks }) => uplinks,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(engine.call(add(spec("198.51.100.1/30"))), Ok(Reply::Changed { changed: true }));
        assert_eq!(engine.call(add(spec("198.51.100.1/30"))), Ok(Reply::Changed { changed: false }));
        let refused = engine.call(add(spec("198.51.100.5/30"))).unwrap_err();
        assert!(matches!(refused, Refusal::Exists { kind: "uplink", replace: true, .. }), "{refused:?}");
        let same = UplinkSpec { name: "up1".parse().unwrap(), ..spec("198.51.100.1/24") };
        assert!(matches!(engine.call(add(same)), Err(Refusal::Invalid { .. })), "the address of another");

        let listed = list(&mut engine);
        assert_eq!(listed.len(), 1);
        let up0 = &listed[0];
        assert_eq!((up0.ifname.as_str(), up0.mtu, up0.queues, up0.oper.as_str()), ("up0", 1500, 2, "up"));
        assert_eq!(up0.gateway, Some("198.51.100.2".parse().unwrap()));
        assert!(up0.offload.iter().any(|word| word == "csum"), "{:?}", up0.offload);
        assert_eq!(names(), ["lo", "up0"]);
        engine
            .call(Request::from_varlink("BridgeAdd", serde_json::json!({ "name": "br0" })).unwrap())
            .unwrap();
        let netdev = serde_json::json!({ "name": "p", "bridge": "br0", "type": "netdev", "ifname": "up0" });
        let refused = engine.call(Request::from_varlink("PortAdd", netdev).unwrap()).unwrap_err().to_string();
        assert_eq!(refused, "port \"p\": interface \"up0\" is that of uplink up0");

        let del = || Request::UplinkDel { name: "up0".parse().unwrap() };
        assert_eq!(engine.call(del()), Ok(Reply::Changed { changed: true }));
        assert!(matches!(engine.call(del()), Err(Refusal::NotFound { kind: "uplink", .. })));
        wait_until("nothing but lo is left, which a fork elsewhere can delay", || names() == ["lo"]);

        // One whose interface is deleted says so, and its place can be had again.
        engine.call(add(spec("198.51.100.1/30"))).unwrap();
        ip("link del up0");
        thread::sleep(Duration::from_millis(1100)); // the pace of housekeeping
        engine.housekeep();
        let up0 = list(&mut engine).remove(0);
        assert_eq!((up0.oper.as_str(), up0.reason.is_some()), ("down", true), "{up0:?}");
        assert_eq!(engine.call(del()), Ok(Reply::Changed { changed: true }));
        assert!(list(&mut engine).is_empty());
        engine.stop();
    });
}
