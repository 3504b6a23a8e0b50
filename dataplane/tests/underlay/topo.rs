//! The small words the tests are written in: hosts, what they send and receive, and what is on the wire.

use std::{
    fmt::Debug,
    io::Read as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tapway_dataplane::{
    counters::PortCounters,
    frame::{Batch, Datagram},
    index::{PortIdx, RemoteIdx, TxSetIdx},
    port::{
        Received,
        underlay::{
            Delivery, Outbox, RxOptions, Sent, To, TxSet, TxSetOptions, UdpRx, UnderlayRx, UnderlayTx, Who,
        },
    },
    sys::netns,
};

pub(crate) const PORT: u16 = 4789;
pub(crate) const A4: &str = "198.51.100.1";
pub(crate) const B4: &str = "198.51.100.2";
pub(crate) const A6: &str = "2001:db8::1";
pub(crate) const B6: &str = "2001:db8::2";
pub(crate) const SOURCE_PORTS: RangeInclusive<u16> = 50_000..=50_159;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for what must not come.
const SILENCE: Duration = Duration::from_millis(100);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The endpoint at an address.
pub(crate) fn vtep(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), PORT)
}

/// A network namespace. It lives as long as the value, or a socket in it.
pub(crate) struct Host(OwnedFd);

impl Host {
    pub(crate) fn new() -> Self {
        let host = thread::spawn(|| netns::unshare().and_then(|()| netns::current())).join().unwrap();
        let host = Self(host.unwrap());
        host.ip("link set dev lo up");
        host
    }

    /// Runs `f` inside.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        netns::within(self.0.as_fd(), f).unwrap()
    }

    fn command(&self, program: &str, arguments: &str) {
        let output = self.run(|| Command::new(program).args(arguments.split_whitespace()).output().unwrap());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {text}");
    }

    pub(crate) fn ip(&self, arguments: &str) {
        self.command("ip", arguments);
    }

    pub(crate) fn tc(&self, arguments: &str) {
        self.command("tc", arguments);
    }

    /// What the tests read below /proc/net, of this namespace.
    pub(crate) fn proc_net(&self, name: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap())
    }

    pub(crate) fn sysctl(&self, knob: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{knob}"), value).unwrap());
    }

    /// The index of a device.
    pub(crate) fn index(&self, ifname: &str) -> u32 {
        self.run(|| {
            let mut socket = tapway_dataplane::netlink::Socket::open().unwrap();
            socket.link_by_name(ifname).unwrap().unwrap_or_else(|| panic!("no {ifname}")).index
        })
    }

    /// A cable to another host.
    pub(crate) fn cable(&self, mine: &str, other: &Self, theirs: &str) {
        let netns = format!("/proc/{}/fd/{}", process::id(), other.0.as_raw_fd());
        self.ip(&format!("link add name {mine} type veth peer name {theirs} netns {netns}"));
        for (host, ifname) in [(self, mine), (other, theirs)] {
            host.ip(&format!("link set dev {ifname} up"));
        }
    }

    pub(crate) fn address(&self, ifname: &str, address: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" }; // usable at once
        self.ip(&format!("address add {address} dev {ifname} {nodad}"));
    }

    /// Waits until what is sent arrives: a new link is up some time before the kernel lets packets out (`linkwatch_event`), and a
    /// neighbour is asked for again only after a second.
    pub(crate) fn await_neighbour(&self, other: &Self, from: &str, to: &str) {
        let receiver = other.run(|| UdpSocket::bind((to, 9)).unwrap());
        let sender = self.run(|| UdpSocket::bind((from, 0)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while receiver.recv(&mut [0; 8]).is_err() {
            assert!(Instant::now() < deadline, "{to} cannot be reached from {from}");
            let _ = sender.send_to(&[0], (to, 9));
        }
    }

    /// One worker's receiving end. A test opens each address once: while another test starts a program, its process holds every
    /// descriptor of this one for a moment, also those that have been closed here.
    pub(crate) fn rx(&self, local: SocketAddr) -> UnderlayRx {
        let options = RxOptions { local, zero_checksum: false, exclusive: true };
        let rx = self.run(|| UdpRx::open(&options, 1)).unwrap();
        UnderlayRx::Socket(rx.into_iter().next().unwrap())
    }

    /// One worker's sending end.
    pub(crate) fn tx(&self, options: &TxSetOptions) -> UnderlayTx {
        let tx = self.run(|| TxSet::open(options, 1)).unwrap();
        UnderlayTx::Sockets(tx.into_iter().next().unwrap())
    }

    /// What arrives at this host, and what leaves it, from now on.
    pub(crate) fn capture(&self) -> Capture {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = self.run(|| Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(all)));
        Capture(socket.unwrap())
    }
}

/// The two hosts of the picture in `main.rs`; `None`, and a line that says why, where this process may not make namespaces.
pub(crate) fn hosts() -> Option<(Host, Host)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return None;
    }
    let (a, b) = (Host::new(), Host::new());
    a.cable("eth0", &b, "eth0");
    for (host, v4, v6) in [(&a, A4, A6), (&b, B4, B6)] {
        host.address("eth0", &format!("{v4}/24"));
        host.address("eth0", &format!("{v6}/64"));
    }
    for (from, to) in [(A4, B4), (A6, B6)] {
        a.await_neighbour(&b, from, to);
    }
    Some((a, b))
}

pub(crate) fn tx_options(local: &str) -> TxSetOptions {
    let local = ip(local);
    TxSetOptions { local, ports: SOURCE_PORTS, avoid: vec![PORT], df: true, checksum: true, multicast: None }
}

pub(crate) fn to(addr: SocketAddr, flow: u32) -> To {
    To { set: TxSetIdx(0), flow, addr, tos: 0, ttl: 0 }
}

/// Sends one datagram after the other by one flush; all of them with a head of 8 octets, the rest from the batch's memory.
pub(crate) fn send(tx: &UnderlayTx, datagrams: &[(To, Vec<u8>)]) -> Vec<Sent> {
    let memory: Vec<u8> = datagrams.iter().flat_map(|(_, d)| d).copied().collect();
    let (mut outbox, mut at, mut sent) = (Outbox::default(), 0, Vec::new());
    let who = Who { port: PortIdx(3), remote: RemoteIdx(4) };
    for (to, datagram) in datagrams {
        let end = at + datagram.len();
        if outbox.is_full() {
            outbox.flush(&memory, |_| Some(tx), |_, s| sent.push(s));
        }
        outbox.push(to, who, &[&datagram[..4], &datagram[4..8]], at + 8..end, &memory);
        at = end;
    }
    outbox.flush(
        &memory,
        |_| Some(tx),
        |w, s| {
            assert_eq!(w, who);
            sent.push(s);
        },
    );
    let all: u32 = sent.iter().map(|s| s.datagrams).sum();
    assert_eq!(all as usize, datagrams.len(), "each is told of once: {sent:?}");
    sent
}

/// That all was sent, in so many messages.
pub(crate) fn assert_sent(sent: &[Sent], messages: usize) {
    assert_eq!(sent.len(), messages, "{sent:?}");
    assert!(sent.iter().all(|s| s.delivery == Delivery::Sent && !s.fallback), "{sent:?}");
}

/// Octets that tell one datagram from another.
pub(crate) fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 2) as u8 ^ number as u8).collect()
}

/// A receive, as it came, and its octets.
pub(crate) type Arrived = (Datagram, Vec<u8>);

fn receive_once(rx: &mut UnderlayRx) -> (Vec<Arrived>, Received) {
    let (mut batch, mut datagrams) = (Batch::new(), Vec::new());
    let received = rx.recv(&mut batch, &mut datagrams, &PortCounters::default());
    let arrived = datagrams.iter().map(|d| (*d, batch.memory()[d.range()].to_vec())).collect();
    (arrived, received)
}

/// Receives until `octets` octets have come.
pub(crate) fn receive(rx: &mut UnderlayRx, octets: usize) -> Vec<Arrived> {
    let (deadline, mut all) = (Instant::now() + PATIENCE, Vec::new());
    while octets_of(&all) < octets {
        assert!(Instant::now() < deadline, "{} of {octets} octets came", octets_of(&all));
        all.extend(receive_once(rx).0);
        thread::sleep(Duration::from_millis(1));
    }
    all
}

/// Receives what waits.
pub(crate) fn drain(rx: &mut UnderlayRx) -> Vec<Arrived> {
    let mut all = Vec::new();
    loop {
        let (some, received) = receive_once(rx);
        all.extend(some);
        if received == Received::Drained {
            return all;
        }
    }
}

/// That nothing comes.
pub(crate) fn assert_silent(rx: &mut UnderlayRx) {
    thread::sleep(SILENCE);
    assert_eq!(drain(rx), []);
}

fn octets_of(all: &[Arrived]) -> usize {
    all.iter().map(|(_, octets)| octets.len()).sum()
}

/// Trains taken apart.
pub(crate) fn datagrams(all: &[Arrived]) -> Vec<Vec<u8>> {
    let apart = |(d, octets): &Arrived| {
        let stride = if d.stride == 0 { octets.len() } else { d.stride as usize };
        octets.chunks(stride).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    all.iter().flat_map(apart).collect()
}

/// Compares without printing kilobytes.
pub(crate) fn assert_same<T: PartialEq + Debug>(found: &[T], expected: &[T]) {
    assert_eq!(found.len(), expected.len());
    for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(found == expected, "number {n} differs");
    }
}

/// A tap on the wire.
pub(crate) struct Capture(Socket);

/// A UDP packet as it was on the wire.
#[derive(Debug)]
pub(crate) struct OnWire {
    /// Octets of the IP packet; more than the MTU where the kernel left the segmentation to the device.
    pub(crate) len: usize,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    /// `None` over IPv6.
    pub(crate) df: Option<bool>,
    pub(crate) source_port: u16,
    pub(crate) checksum: u16,
}

impl Capture {
    /// The packets for `port` that were captured until now.
    pub(crate) fn udp(&mut self, port: u16) -> Vec<OnWire> {
        let (mut frame, mut found) = (vec![0; 70_000], Vec::new());
        while let Ok(len) = self.0.read(&mut frame) {
            found.extend(
                OnWire::parse(&frame[14..len]).filter(|(_, to)| *to == port).map(|(packet, _)| packet),
            );
        }
        found
    }
}

impl OnWire {
    fn parse(ip: &[u8]) -> Option<(Self, u16)> {
        let short = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        let (udp, tos, ttl, df, protocol) = match ip.first()? >> 4 {
            4 if short(6) & 0x1fff == 0 => {
                (usize::from(ip[0] & 15) * 4, ip[1], ip[8], Some(ip[6] & 0x40 != 0), ip[9])
            }
            6 => (40, (short(0) >> 4) as u8, ip[7], None, ip[6]),
            _ => return None,
        };
        if protocol != 17 || ip.len() < udp + 8 {
            return None;
        }
        let (source_port, checksum) = (short(udp), short(udp + 6));
        Some((Self { len: ip.len(), tos, ttl, df, source_port, checksum }, short(udp + 2)))
    }
}
