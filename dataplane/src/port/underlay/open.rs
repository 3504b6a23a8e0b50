//! Opening sockets: everything from the options to one that is bound.
//!
//! A socket belongs to the network namespace of the thread that opens it, for as long as it lives.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    os::fd::AsFd,
};

use libc::c_int;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};

use super::{LANES, TxSet, UdpRx};
use crate::sys::udp::{self, SocketOption};

/// Octets that may wait to be received: a worker that is away for 2 ms at 25 Gbit/s loses nothing.
/// The kernel counts its own overhead too, so that small datagrams fill it at a fifth of their size.
const RECV_BUFFER: usize = 8 << 20;
/// Octets that may wait to be sent, in the queue of a device.
const SEND_BUFFER: usize = 4 << 20;
/// Ports of a stretch that are tried before the stretch is given up.
const ATTEMPTS: u32 = 16;
/// Rejects everything: a classic BPF program of one instruction, `BPF_RET | BPF_K` with 0.
const REJECT: [SockFilter; 1] = [SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0)];

/// What the receiving sockets of an endpoint are opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RxOptions {
    /// The address and port of the endpoint.
    pub local: SocketAddr,
    /// Take datagrams without UDP checksum over IPv6; over IPv4 they are always taken.
    // RFC 8200 §8.1: "IPv6 receivers must discard UDP packets containing a zero checksum", and then: "As an exception to the default
    // behavior, protocols that use UDP as a tunnel encapsulation may enable zero-checksum mode for a specific port".
    pub zero_checksum: bool,
    /// Fail where anybody has the port, this process included. Else only where somebody does not share it:
    /// for sockets that replace others of the same endpoint while those are still open.
    pub exclusive: bool,
}

/// A multicast group, and the device on which it is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The group.
    pub address: IpAddr,
    /// The index of the device.
    pub device: u32,
}

/// What a set of sending sockets is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxSetOptions {
    /// The source address.
    pub local: IpAddr,
    /// Where the source ports are taken from.
    pub ports: RangeInclusive<u16>,
    /// Ports that are not taken: those on which endpoints of this address receive. A socket that only sends would share the port
    /// with them, and lose what the kernel gives it of their datagrams.
    pub avoid: Vec<u16>,
    /// Set DF, or, over IPv6, never fragment here.
    pub df: bool,
    /// Compute UDP checksums. Without them the kernel does not segment (`udp_send_skb`), and each datagram is a message of its own.
    pub checksum: bool,
    /// The index of the device by which datagrams for groups leave.
    pub multicast: Option<u32>,
}

/// Why sockets of the underlay could not be opened. Nothing of them is left behind.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// The process may have no more descriptors, or the kernel has no such protocol.
    #[error("cannot open a UDP socket: {0}")]
    Open(io::Error),
    /// The kernel refused an option.
    #[error("cannot set {option} on a UDP socket of {local}: {source}")]
    Option {
        /// The option's name in the manual.
        option: &'static str,
        /// The socket's address.
        local: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody else receives there.
    #[error(
        "UDP port {} of {} is in use: by another program, or by a tunnel device of the kernel",
        .0.port(), .0.ip()
    )]
    InUse(SocketAddr),
    /// The address is not one of this host.
    #[error("no interface here has the address {0}")]
    NotHere(IpAddr),
    /// The address cannot be bound to.
    #[error("cannot bind a UDP socket to {local}: {source}")]
    Bind {
        /// The address.
        local: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// None of the ports to send from is free.
    #[error("none of the UDP ports {}-{} of {local} is free to send from", .ports.start(), .ports.end())]
    NoPort {
        /// The source address.
        local: IpAddr,
        /// The ports that were tried.
        ports: RangeInclusive<u16>,
    },
    /// The group cannot be joined.
    #[error("cannot join group {} on the device with index {}: {source}", .group.address, .group.device)]
    Join {
        /// The group.
        group: Group,
        /// Why.
        source: io::Error,
    },
}

/// Names an option in an error.
fn named(option: &'static str, local: IpAddr) -> impl FnOnce(io::Error) -> UnderlayError {
    move |source| UnderlayError::Option { option, local, source }
}

fn socket(local: IpAddr) -> io::Result<Socket> {
    let domain = if local.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind(socket: &Socket, local: SocketAddr) -> Result<(), UnderlayError> {
    socket.bind(&local.into()).map_err(|source| match source.raw_os_error() {
        Some(libc::EADDRINUSE) => UnderlayError::InUse(local),
        Some(libc::EADDRNOTAVAIL) => UnderlayError::NotHere(local.ip()),
        _ => UnderlayError::Bind { local, source },
    })
}

/// Sets a buffer's size as far as this process may: as asked with `CAP_NET_ADMIN`, else up to the limit of the system.
pub(in crate::port) fn set_buffer(
    socket: &Socket,
    force: SocketOption,
    size: usize,
    plain: impl Fn(&Socket, usize) -> io::Result<()>,
) -> io::Result<()> {
    udp::set_option(socket.as_fd(), force, size as c_int).or_else(|_| plain(socket, size))
}

/// Fails where any socket receives at this address and port, also one that would share it.
fn claim(local: SocketAddr) -> Result<(), UnderlayError> {
    let socket = socket(local.ip()).map_err(UnderlayError::Open)?;
    bind(&socket, local)?;
    // From here on it shares: the ones to come need not wait until it is gone, which a fork elsewhere in the process can delay.
    socket.set_reuse_port(true).map_err(named("SO_REUSEPORT", local.ip()))
}

/// A socket that receives at `address`, which is the endpoint's or a group's.
fn receiver(options: &RxOptions, address: IpAddr, device: Option<u32>) -> Result<Socket, UnderlayError> {
    let at = SocketAddr::new(address, options.local.port());
    let socket = socket(address).map_err(UnderlayError::Open)?;
    let fd = socket.as_fd();
    udp::set_option(fd, SocketOption::GRO, 1).map_err(named("UDP_GRO", address))?;
    set_buffer(&socket, SocketOption::RECV_BUFFER_FORCE, RECV_BUFFER, Socket::set_recv_buffer_size)
        .map_err(named("SO_RCVBUF", address))?;
    if address.is_ipv4() {
        socket.set_recv_tos_v4(true).map_err(named("IP_RECVTOS", address))?;
        socket.set_multicast_all_v4(false).map_err(named("IP_MULTICAST_ALL", address))?;
    } else {
        socket.set_recv_tclass_v6(true).map_err(named("IPV6_RECVTCLASS", address))?;
        socket.set_multicast_all_v6(false).map_err(named("IPV6_MULTICAST_ALL", address))?;
        let take = c_int::from(options.zero_checksum);
        udp::set_option(fd, SocketOption::TAKE_NO_CHECKSUM_V6, take)
            .map_err(named("UDP_NO_CHECK6_RX", address))?;
    }
    if let Some(device) = device {
        udp::set_option(fd, SocketOption::BIND_TO_DEVICE, device as c_int)
            .map_err(named("SO_BINDTOIFINDEX", address))?;
    }
    socket.set_reuse_port(true).map_err(named("SO_REUSEPORT", address))?;
    bind(&socket, at)?;
    Ok(socket)
}

impl UdpRx {
    /// Opens the sockets by which `workers` workers receive, in the calling thread's network namespace.
    /// The kernel gives each flow of the underlay, by its addresses and ports, to one of them (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// Where the port is taken, the address is not this host's, or the kernel refuses an option.
    pub fn open(options: &RxOptions, workers: usize) -> Result<Vec<Self>, UnderlayError> {
        if options.exclusive {
            claim(options.local)?;
        }
        (0..workers).map(|_| Ok(Self::new(receiver(options, options.local.ip(), None)?))).collect()
    }

    /// Opens the socket that receives what is sent to `group`, and joins it; the kernel speaks IGMP or MLD.
    /// There is one, for one worker: the kernel delivers multicast to *every* socket that shares a port.
    /// It is to be given back rather than dropped by a worker: leaving a group waits for the kernel's rtnl lock (`ip_mc_drop_socket`).
    ///
    /// # Errors
    /// Where the port is taken, the device is not there, or the kernel refuses an option.
    pub fn join(options: &RxOptions, group: Group) -> Result<Self, UnderlayError> {
        let at = SocketAddr::new(group.address, options.local.port());
        if options.exclusive {
            claim(at)?;
        }
        // Over IPv6 the kernel gives a group's datagrams to who joined it on any device (`inet6_mc_check`).
        let socket = receiver(options, group.address, Some(group.device))?;
        let joined = match group.address {
            IpAddr::V4(v4) => socket.join_multicast_v4_n(&v4, &InterfaceIndexOrAddress::Index(group.device)),
            IpAddr::V6(v6) => socket.join_multicast_v6(&v6, group.device),
        };
        joined.map_err(|source| UnderlayError::Join { group, source })?;
        Ok(Self::new(socket))
    }
}

impl TxSet {
    /// Opens a set of sockets for each of `workers` workers, in the calling thread's network namespace.
    ///
    /// All sets have the same source ports, so a flow keeps its port when another worker sends it. The ports are spread over the
    /// range; one that somebody else holds is passed over.
    ///
    /// # Errors
    /// Where no port is free, the address is not this host's, or the kernel refuses an option.
    pub fn open(options: &TxSetOptions, workers: usize) -> Result<Vec<Self>, UnderlayError> {
        let mut sets: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::with_capacity(LANES)).collect();
        for stretch in stretches(&options.ports) {
            for port in stretch.take(ATTEMPTS as usize).filter(|port| !options.avoid.contains(port)) {
                let local = SocketAddr::new(options.local, port);
                match (0..workers).map(|_| sender(options, local)).collect::<Result<Vec<_>, _>>() {
                    Ok(sockets) => {
                        sets.iter_mut().zip(sockets).for_each(|(set, socket)| set.push(socket));
                        break;
                    }
                    Err(UnderlayError::InUse(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if sets.iter().any(Vec::is_empty) {
            return Err(UnderlayError::NoPort { local: options.local, ports: options.ports.clone() });
        }
        Ok(sets.into_iter().map(|sockets| Self::new(sockets, options.checksum)).collect())
    }
}

/// Cuts a range of ports into [`LANES`] stretches of about the same length, or fewer where it is shorter.
fn stretches(ports: &RangeInclusive<u16>) -> impl Iterator<Item = RangeInclusive<u16>> {
    let (first, last) = (u32::from(*ports.start()), u32::from(*ports.end()));
    let len = (last + 1).saturating_sub(first);
    let count = len.min(LANES as u32);
    (0..count).map(move |n| {
        let start = first + n * len / count;
        let end = first + (n + 1) * len / count - 1;
        start as u16..=end as u16
    })
}

/// A socket that only sends.
fn sender(options: &TxSetOptions, local: SocketAddr) -> Result<Socket, UnderlayError> {
    let ip = options.local;
    let socket = socket(ip).map_err(UnderlayError::Open)?;
    let fd = socket.as_fd();
    // What is sent to its port is not ours; nobody would fetch it.
    socket.attach_filter(&REJECT).map_err(named("SO_ATTACH_FILTER", ip))?;
    socket.set_recv_buffer_size(0).map_err(named("SO_RCVBUF", ip))?;
    set_buffer(&socket, SocketOption::SEND_BUFFER_FORCE, SEND_BUFFER, Socket::set_send_buffer_size)
        .map_err(named("SO_SNDBUF", ip))?;
    let (discover, on, off) = match ip {
        IpAddr::V4(_) => (SocketOption::MTU_DISCOVER_V4, libc::IP_PMTUDISC_DO, libc::IP_PMTUDISC_DONT),
        IpAddr::V6(_) => (SocketOption::MTU_DISCOVER_V6, libc::IPV6_PMTUDISC_DO, libc::IPV6_PMTUDISC_DONT),
    };
    udp::set_option(fd, discover, if options.df { on } else { off }).map_err(named("IP_MTU_DISCOVER", ip))?;
    if !options.checksum {
        let none = if ip.is_ipv4() { SocketOption::NO_CHECKSUM_V4 } else { SocketOption::NO_CHECKSUM_V6 };
        udp::set_option(fd, none, 1).map_err(named("SO_NO_CHECK", ip))?;
    }
    if let Some(device) = options.multicast {
        set_multicast_device(&socket, ip, device).map_err(named("IP_MULTICAST_IF", ip))?;
        // Our own endpoint must not hear what it sends to its group.
        let looped = if ip.is_ipv4() { Socket::set_multicast_loop_v4 } else { Socket::set_multicast_loop_v6 };
        looped(&socket, false).map_err(named("IP_MULTICAST_LOOP", ip))?;
    }
    socket.set_reuse_port(true).map_err(named("SO_REUSEPORT", ip))?;
    bind(&socket, local)?;
    Ok(socket)
}

fn set_multicast_device(socket: &Socket, local: IpAddr, device: u32) -> io::Result<()> {
    match local {
        IpAddr::V4(_) => udp::set_multicast_device_v4(socket.as_fd(), device),
        IpAddr::V6(_) => socket.set_multicast_if_v6(device),
    }
}

/// The MTU of the path from `local` to `remote` as the kernel knows it now: that of the route, or what a router has told (ICMP).
/// Octets of a whole IP packet. `device` is the one by which multicast leaves. In the calling thread's network namespace.
///
/// # Errors
/// Where there is no route, or the address is not this host's.
pub fn path_mtu(local: IpAddr, remote: SocketAddr, device: Option<u32>) -> io::Result<u32> {
    let socket = socket(local)?;
    if let Some(device) = device {
        set_multicast_device(&socket, local, device)?;
    }
    socket.bind(&SocketAddr::new(local, 0).into())?;
    socket.connect(&remote.into())?; // sends nothing: for UDP this looks up the route
    let option = if local.is_ipv4() { SocketOption::MTU_V4 } else { SocketOption::MTU_V6 };
    Ok(udp::option(socket.as_fd(), option)?.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_cover_a_range_once_and_spread_over_it() {
        for ports in [49_152..=65_535, 0..=65_535, 1000..=1015, 1000..=1016, 7..=9, 7..=7] {
            let found: Vec<_> = stretches(&ports).collect();
            assert_eq!(found.len(), ports.len().min(LANES), "{ports:?}");
            assert_eq!((found[0].start(), found[found.len() - 1].end()), (ports.start(), ports.end()));
            for pair in found.windows(2) {
                assert_eq!(u32::from(*pair[0].end()) + 1, u32::from(*pair[1].start()), "{ports:?}");
                assert!(pair[0].len().abs_diff(pair[1].len()) <= 1, "{ports:?}");
            }
        }
        #[expect(clippy::reversed_empty_ranges, reason = "an operator can write one")]
        let none = stretches(&(9..=8)).count();
        assert_eq!(none, 0);
    }
}
