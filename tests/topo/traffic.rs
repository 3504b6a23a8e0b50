//! Traffic between hosts, compared octet by octet.
//!
//! Every function here ends by a deadline, and says in its panic what arrived, and where it began to differ.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use super::pattern::pattern;
use super::{Host, emulated, packet::set_option};

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(10);

/// Octets of a transfer that takes a second where processors are emulated.
const EMULATED_MAX: usize = 128 << 10;

/// Sends `len` octets over one TCP connection from `client` to `addr` at `server`, and the same number back.
///
/// Panics if an octet differs, the connection cannot be made, or it stands still for 10 seconds.
/// In the guest, which is slow, a transfer is not longer than [`EMULATED_MAX`].
#[track_caller]
pub(crate) fn tcp(client: &Host, server: &Host, addr: impl Into<IpAddr>, len: usize) {
    let len = if emulated() { len.min(EMULATED_MAX) } else { len };
    let (near, far) = connected(client, server, addr.into());
    let (there, back) = (pattern(len, 1), pattern(len, 2));
    thread::scope(|s| {
        s.spawn(|| put(&near, &there, client));
        s.spawn(|| put(&far, &back, server));
        s.spawn(|| take(&far, &there, server));
        s.spawn(|| take(&near, &back, client));
    });
}

fn put(mut to: &TcpStream, octets: &[u8], by: &Host) {
    to.set_write_timeout(Some(STALL)).expect("timeout");
    to.write_all(octets).unwrap_or_else(|e| panic!("{} cannot send on: {e}", by.name()));
    to.shutdown(std::net::Shutdown::Write).expect("shutdown");
}

fn take(mut from: &TcpStream, want: &[u8], by: &Host) {
    from.set_read_timeout(Some(STALL)).expect("timeout");
    let mut got = Vec::with_capacity(want.len());
    if let Err(e) = from.read_to_end(&mut got) {
        panic!("{} has {} of {} octets, then: {e}", by.name(), got.len(), want.len());
    }
    compare(&got, want, by);
}

#[track_caller]
fn compare(got: &[u8], want: &[u8], by: &Host) {
    if let Some(at) = got.iter().zip(want).position(|(g, w)| g != w) {
        panic!("{}: octet {at} is {:#04x}, not {:#04x}", by.name(), got[at], want[at]);
    }
    assert_eq!(got.len(), want.len(), "{}: length of what arrived", by.name());
}

/// Sends a UDP datagram of each of `sizes` from `client` to `addr` at `server`, and each back; one at a time.
///
/// Panics if one is lost for a second or differs.
#[track_caller]
pub(crate) fn udp(client: &Host, server: &Host, addr: impl Into<IpAddr>, sizes: &[usize]) {
    let (near, far) = udp_sockets(client, server, addr.into());
    let at = far.local_addr().expect("local address");
    let mut buf = vec![0; 65_536];
    for (seed, &size) in (1..).zip(sizes) {
        let octets = pattern(size, seed);
        near.send_to(&octets, at)
            .unwrap_or_else(|e| panic!("{} cannot send {size} octets: {e}", client.name()));
        let (n, from) =
            far.recv_from(&mut buf).unwrap_or_else(|e| panic!("{size} octets to {}: {e}", server.name()));
        compare(&buf[..n], &octets, server);
        far.send_to(&octets, from).expect("send");
        let (n, _) = near
            .recv_from(&mut buf)
            .unwrap_or_else(|e| panic!("{size} octets back to {}: {e}", client.name()));
        compare(&buf[..n], &octets, client);
    }
}

/// A socket of `client`'s, and one of `server`'s at `addr`; both wait for a second.
fn udp_sockets(client: &Host, server: &Host, addr: IpAddr) -> (UdpSocket, UdpSocket) {
    let any: SocketAddr = if addr.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let far = server.run(|| UdpSocket::bind((addr, 0))).expect("bind");
    let near = client.run(|| UdpSocket::bind(any)).expect("bind");
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    }
    (near, far)
}

/// Payloads that a tunnel has to think about: small; just inside an underlay of MTU 1500; in two fragments or segments; in
/// three; and a whole super-frame.
pub(crate) const PAYLOADS: [usize; 5] = [56, 1400, 1600, 3200, 65_507];

/// [`PAYLOADS`] over UDP and TCP between `client` and `addr` at `server`, in both directions, each octet compared.
///
/// A datagram that is lost is a panic: ping first, where a peer drops what it has no neighbour for yet.
#[track_caller]
pub(crate) fn payloads(client: &Host, server: &Host, addr: impl Into<IpAddr>) {
    let addr = addr.into();
    udp(client, server, addr, &PAYLOADS);
    // No more than 64: UDP_MAX_SEGMENTS of the older kernels.
    for (size, segments) in [(56, 64), (1000, 64)] {
        udp_segments(client, server, addr, size, segments);
    }
    writes(client, server, addr, &PAYLOADS);
    tcp(client, server, addr, 4 << 20);
}

/// One UDP super-frame (`UDP_SEGMENT`) of so many `segments` of `size` octets from `client` to `addr` at `server`, and the
/// same back; it arrives as one datagram a segment.
#[track_caller]
pub(crate) fn udp_segments(
    client: &Host,
    server: &Host,
    addr: impl Into<IpAddr>,
    size: u16,
    segments: usize,
) {
    let (near, far) = udp_sockets(client, server, addr.into());
    near.connect(far.local_addr().expect("local address")).expect("connect");
    let octets = pattern(usize::from(size) * segments, size.into());
    for (from, to, sender, receiver) in [(&near, &far, client, server), (&far, &near, server, client)] {
        set_option(from.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, size.into()).expect("UDP_SEGMENT");
        from.send(&octets)
            .unwrap_or_else(|e| panic!("{} cannot send {segments} segments of {size}: {e}", sender.name()));
        let mut buf = vec![0; 65_536];
        for (n, segment) in octets.chunks(size.into()).enumerate() {
            let (len, peer) = to
                .recv_from(&mut buf)
                .unwrap_or_else(|e| panic!("segment {n} of {segments} to {}: {e}", receiver.name()));
            compare(&buf[..len], segment, receiver);
            to.connect(peer).expect("connect"); // to whoever sent: the near one is connected already
        }
    }
}

/// Writes of each of `sizes` over one TCP connection from `client` to `addr` at `server`, each sent at once, and each back.
///
/// Panics if an octet differs, the connection cannot be made, or it stands still for 10 seconds.
#[track_caller]
pub(crate) fn writes(client: &Host, server: &Host, addr: impl Into<IpAddr>, sizes: &[usize]) {
    let (near, far) = connected(client, server, addr.into());
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(STALL)).expect("timeout");
        stream.set_write_timeout(Some(STALL)).expect("timeout");
    }
    for (seed, &size) in (1..).zip(sizes) {
        let octets = pattern(size, seed);
        for (mut from, mut to, sender, receiver) in
            [(&near, &far, client, server), (&far, &near, server, client)]
        {
            thread::scope(|s| {
                s.spawn(|| {
                    from.write_all(&octets)
                        .unwrap_or_else(|e| panic!("{} cannot send {size} octets on: {e}", sender.name()));
                });
                let mut got = vec![0; size];
                to.read_exact(&mut got)
                    .unwrap_or_else(|e| panic!("{size} octets to {}: {e}", receiver.name()));
                compare(&got, &octets, receiver);
            });
        }
    }
}

/// A connection from `client` to `addr` at `server`: its two ends.
#[track_caller]
fn connected(client: &Host, server: &Host, addr: IpAddr) -> (TcpStream, TcpStream) {
    let listener = server.run(|| TcpListener::bind((addr, 0))).expect("bind");
    let at = listener.local_addr().expect("local address");
    let near = client
        .run(|| TcpStream::connect_timeout(&at, STALL))
        .unwrap_or_else(|e| panic!("{} cannot connect to {} at {at}: {e}", client.name(), server.name()));
    let (far, _) = listener.accept().expect("accept");
    (near, far)
}

/// One echo request from the calling thread's namespace; see [`Host::ping_with`].
pub(super) fn echo(to: IpAddr, len: usize, timeout: Duration) -> io::Result<Option<Duration>> {
    static SEQUENCE: AtomicU16 = AtomicU16::new(1);
    let sequence = SEQUENCE.fetch_add(1, Relaxed);
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    if to.is_ipv4() {
        rustix::net::sockopt::set_ip_mtu_discover(&socket, rustix::net::sockopt::Ipv4PathMtuDiscovery::DO)?;
    }
    let mut message = vec![request, 0, 0, 0, 0x74, 0x77];
    message.extend(sequence.to_be_bytes());
    message.extend(pattern(len, sequence.into()));
    if to.is_ipv4() {
        let sum = internet_checksum(&message); // for ICMPv6 the kernel does it (RFC 3542 §3.1)
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let start = Instant::now();
    match socket.send_to(&message, &SocketAddr::new(to, 0).into()) {
        Ok(_) => {}
        // No route, or a neighbour that did not answer: not an answer, and not the test's mistake either.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    }
    let mut buf = vec![0; len + 128];
    while let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        let n = match socket.read(&mut buf) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(e) if e.raw_os_error() == Some(libc::EHOSTUNREACH) => break,
            Err(e) => return Err(e),
        };
        // A raw IPv4 socket hands out the IP header too.
        let skip = if to.is_ipv4() { usize::from(buf[0] & 0xf) * 4 } else { 0 };
        let answer = buf.get(skip..n).unwrap_or_default();
        if answer.first() == Some(&reply) && answer.get(4..) == message.get(4..) {
            return Ok(Some(start.elapsed()));
        }
    }
    Ok(None)
}

/// The Internet checksum of RFC 1071.
fn internet_checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
