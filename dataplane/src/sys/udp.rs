//! UDP sockets: many datagrams a system call, each with its own address and ancillary data, and the options that neither
//! socket2 nor rustix has.
//!
//! The scratch types hold what the kernel reads and writes beside the octets. The pointers in them are written anew by each
//! call and mean nothing after it.

use std::{
    fmt, io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use libc::{c_int, c_uint};
use rustix::io::Errno;

/// The most messages of one call. The kernel takes 1024 (`UIO_MAXIOV`); what a call costs by itself is gone long before.
pub const MAX_MESSAGES: usize = 64;
/// Octets of a socket address, of either family.
const NAME: usize = size_of::<libc::sockaddr_in6>();
const _: () = assert!(size_of::<libc::sockaddr_in>() <= NAME);
/// Octets of a control message's header: its length, as a `size_t`, its level and its type.
const CMSG_HEADER: usize = size_of::<usize>() + 2 * size_of::<c_int>();
const _: () = assert!(CMSG_HEADER == size_of::<libc::cmsghdr>());
/// Room for the control messages of one message: four of them, with at most 8 octets each.
const CONTROL: usize = 4 * (CMSG_HEADER + 8);

/// An option of a socket whose value is an int; here those of UDP, and of all.
#[derive(Clone, Copy, Debug)]
pub struct SocketOption {
    pub(super) level: c_int,
    pub(super) name: c_int,
}

impl SocketOption {
    /// Receive trains of datagrams joined (`UDP_GRO`, Linux 5.0).
    pub const GRO: Self = Self { level: libc::SOL_UDP, name: libc::UDP_GRO };
    /// The receive buffer, beyond the limit of `net.core.rmem_max`; needs `CAP_NET_ADMIN`.
    pub const RECV_BUFFER_FORCE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_RCVBUFFORCE };
    /// The send buffer, beyond the limit of `net.core.wmem_max`; needs `CAP_NET_ADMIN`.
    pub const SEND_BUFFER_FORCE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_SNDBUFFORCE };
    /// Receive and send by one device alone, given by its index (Linux 5.1).
    pub const BIND_TO_DEVICE: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_BINDTOIFINDEX };
    /// Send without checksum, over IPv4.
    pub const NO_CHECKSUM_V4: Self = Self { level: libc::SOL_SOCKET, name: libc::SO_NO_CHECK };
    /// Send without checksum, over IPv6 (RFC 8200 §8.1).
    pub const NO_CHECKSUM_V6: Self = Self { level: libc::SOL_UDP, name: libc::UDP_NO_CHECK6_TX };
    /// Receive what has no checksum, over IPv6 (RFC 8200 §8.1).
    pub const TAKE_NO_CHECKSUM_V6: Self = Self { level: libc::SOL_UDP, name: libc::UDP_NO_CHECK6_RX };
    /// Path MTU discovery over IPv4: one of `libc::IP_PMTUDISC_*`.
    pub const MTU_DISCOVER_V4: Self = Self { level: libc::SOL_IP, name: libc::IP_MTU_DISCOVER };
    /// Path MTU discovery over IPv6: one of `libc::IPV6_PMTUDISC_*`.
    pub const MTU_DISCOVER_V6: Self = Self { level: libc::SOL_IPV6, name: libc::IPV6_MTU_DISCOVER };
    /// The path MTU of a connected socket over IPv4; to be read only.
    pub const MTU_V4: Self = Self { level: libc::SOL_IP, name: libc::IP_MTU };
    /// The path MTU of a connected socket over IPv6; to be read only.
    pub const MTU_V6: Self = Self { level: libc::SOL_IPV6, name: libc::IPV6_MTU };
}

/// Sets an option.
pub fn set_option(fd: BorrowedFd<'_>, option: SocketOption, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: setsockopt reads `len` octets at the pointer, which are those of `value`.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), option.level, option.name, (&raw const value).cast(), len)
    })
}

/// Reads an option.
pub fn option(fd: BorrowedFd<'_>, option: SocketOption) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: getsockopt writes at most `len` octets at the first pointer, which are those of `value`, and their number at the second.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), option.level, option.name, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}

/// Datagrams that this socket has lost since it was made, modulo 2³² (`SO_MEMINFO`, Linux 4.12).
///
/// `SO_RXQ_OVFL` would tell the same with every datagram. But where the datagram is a TCP segment that a kernel tunnel on this
/// machine has wrapped, the count lies in memory that a hardened kernel (`CONFIG_HARDENED_USERCOPY`) refuses to copy to user
/// space: it stops the thread with an oops (`__sock_recv_cmsgs` of a socket buffer from `skbuff_fclone_cache`; seen on 6.1).
pub fn lost(fd: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` (linux/sock_diag.h), the last of the values.
    const DROPS: usize = 8;
    let mut values = [0u32; DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: getsockopt writes at most `len` octets at the first pointer, which are those of `values`, and their number at the second.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(values[DROPS])
}

/// Sets the device by which IPv4 multicast leaves, by its index (`IP_MULTICAST_IF`).
pub fn set_multicast_device_v4(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: c_int::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?,
    };
    let len = size_of::<libc::ip_mreqn>() as libc::socklen_t;
    // SAFETY: setsockopt reads `len` octets at the pointer, which are those of `request`.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_MULTICAST_IF,
            (&raw const request).cast(),
            len,
        )
    })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel told of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Octets written to the buffer.
    pub len: usize,
    /// Who sent it; `None` where the kernel gave no address.
    pub from: Option<SocketAddr>,
    /// TOS, or traffic class.
    pub tos: u8,
    /// The size in the `UDP_GRO` control message; 0 without one.
    pub stride: u32,
    /// The datagram was longer than its buffer.
    pub truncated: bool,
}

/// The memory of a `recvmmsg` beside the buffers.
pub struct RecvScratch {
    headers: Box<[libc::mmsghdr; MAX_MESSAGES]>,
    vectors: Box<[libc::iovec; MAX_MESSAGES]>,
    names: Box<[Name; MAX_MESSAGES]>,
    controls: Box<[Control; MAX_MESSAGES]>,
}

// SAFETY: the pointers within lead into the value's own boxes, or are stale, and are written anew by each call before the kernel
// reads them; nothing else reads them.
unsafe impl Send for RecvScratch {}

impl fmt::Debug for RecvScratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecvScratch")
    }
}

impl Default for RecvScratch {
    fn default() -> Self {
        Self {
            headers: Box::new([EMPTY_HEADER; MAX_MESSAGES]),
            vectors: Box::new([EMPTY_VECTOR; MAX_MESSAGES]),
            names: Box::new([Name([0; NAME]); MAX_MESSAGES]),
            controls: Box::new([Control([0; CONTROL]); MAX_MESSAGES]),
        }
    }
}

impl RecvScratch {
    /// Receives one datagram into each buffer, as many as wait, at most [`MAX_MESSAGES`]; never blocks (`recvmmsg`).
    /// Says how many came; [`arrival`](Self::arrival) tells of each.
    pub fn receive<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> Result<usize, Errno> {
        let mut count = 0;
        let places = self.headers.iter_mut().zip(self.vectors.iter_mut());
        let places = places.zip(self.names.iter_mut().zip(self.controls.iter_mut()));
        for (((header, vector), (name, control)), buffer) in places.zip(buffers) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let message = &mut header.msg_hdr;
            message.msg_name = name.0.as_mut_ptr().cast();
            message.msg_namelen = NAME as libc::socklen_t;
            message.msg_iov = vector;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = CONTROL as _;
            message.msg_flags = 0;
            count += 1;
        }
        // SAFETY: the first `count` headers lead to names and controls of the lengths they state, in boxes that this exclusive
        // borrow keeps in place, and to buffers that are borrowed for 'a, which outlives the call.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| last_errno())
    }

    /// What the kernel told of the datagram in buffer `n` of the last receive, which must have filled it.
    pub fn arrival(&self, n: usize) -> Arrival {
        let header = &self.headers[n];
        let message = &header.msg_hdr;
        let mut arrival = Arrival {
            len: header.msg_len as usize,
            from: self.names[n].read(message.msg_namelen as usize),
            tos: 0,
            stride: 0,
            truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        };
        for (level, kind, value) in self.controls[n].read(message.msg_controllen) {
            match (level, kind) {
                (libc::SOL_IP, libc::IP_TOS) => arrival.tos = value.first().copied().unwrap_or(0),
                (libc::SOL_IPV6, libc::IPV6_TCLASS) => arrival.tos = int(value) as u8,
                (libc::SOL_UDP, libc::UDP_GRO) => arrival.stride = int(value),
                _ => {}
            }
        }
        arrival
    }
}

/// Where a message goes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// To whom.
    pub to: SocketAddr,
    /// TOS, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit; 0: as the socket says.
    pub ttl: u8,
    /// The kernel is to cut the message into datagrams of this size, the last may be shorter (`UDP_SEGMENT`, Linux 4.18).
    pub segment: Option<u16>,
}

/// The memory of a `sendmmsg` beside the octets.
pub struct SendScratch {
    headers: Box<[libc::mmsghdr; MAX_MESSAGES]>,
    names: Box<[Name; MAX_MESSAGES]>,
    controls: Box<[Control; MAX_MESSAGES]>,
    vectors: Vec<libc::iovec>,
}

// SAFETY: the pointers within lead into the value's own boxes and vector, or are stale, and are written anew by each call before
// the kernel reads them; nothing else reads them.
unsafe impl Send for SendScratch {}

impl fmt::Debug for SendScratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendScratch")
    }
}

impl Default for SendScratch {
    fn default() -> Self {
        Self {
            headers: Box::new([EMPTY_HEADER; MAX_MESSAGES]),
            names: Box::new([Name([0; NAME]); MAX_MESSAGES]),
            controls: Box::new([Control([0; CONTROL]); MAX_MESSAGES]),
            vectors: Vec::with_capacity(2 * libc::UIO_MAXIOV as usize),
        }
    }
}

impl SendScratch {
    /// Sends messages, each given in parts, in order, at most [`MAX_MESSAGES`]; never blocks (`sendmmsg`).
    /// Says how many the kernel took before it refused one. An error is that of the first.
    pub fn send<'a, P: Iterator<Item = &'a [u8]>>(
        &mut self,
        fd: BorrowedFd<'_>,
        messages: impl Iterator<Item = (Envelope, P)>,
    ) -> Result<usize, Errno> {
        let mut count = 0;
        self.vectors.clear();
        let places = self.headers.iter_mut().zip(self.names.iter_mut().zip(self.controls.iter_mut()));
        for ((header, (name, control)), (envelope, parts)) in places.zip(messages) {
            let first = self.vectors.len();
            self.vectors.extend(
                parts.map(|p| libc::iovec { iov_base: p.as_ptr().cast_mut().cast(), iov_len: p.len() }),
            );
            let message = &mut header.msg_hdr;
            message.msg_namelen = name.write(&envelope.to) as libc::socklen_t;
            message.msg_name = name.0.as_mut_ptr().cast();
            message.msg_iovlen = (self.vectors.len() - first) as _;
            message.msg_controllen = control.write(&envelope) as _;
            message.msg_control = control.0.as_mut_ptr().cast();
            count += 1;
        }
        // Only now: the vector moves when it grows.
        let mut vectors = self.vectors.as_mut_slice();
        for header in &mut self.headers[..count] {
            let (own, rest) = mem::take(&mut vectors).split_at_mut(header.msg_hdr.msg_iovlen);
            header.msg_hdr.msg_iov = own.as_mut_ptr();
            vectors = rest;
        }
        // SAFETY: the first `count` headers lead to names, controls and vectors of the lengths they state, which this exclusive borrow
        // keeps in place; the vectors lead to parts that are borrowed for 'a, which outlives the call, and that sendmmsg only reads.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(sent).map_err(|_| last_errno())
    }
}

#[cold]
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

const EMPTY_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
const EMPTY_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

/// A `sockaddr_in` or `sockaddr_in6`, as octets: family, port, and then `in_addr`, or flow label, `in6_addr` and scope.
#[derive(Clone, Copy)]
#[repr(align(4))]
struct Name([u8; NAME]);

impl Name {
    /// Writes an address; says how long it is.
    fn write(&mut self, address: &SocketAddr) -> usize {
        let family = match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        self.0[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        self.0[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                self.0[4..8].copy_from_slice(&v4.ip().octets());
                self.0[8..16].fill(0);
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                self.0[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                self.0[8..24].copy_from_slice(&v6.ip().octets());
                self.0[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                size_of::<libc::sockaddr_in6>()
            }
        }
    }

    fn read(&self, len: usize) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, rest @ ..] = &self.0;
        let port = u16::from_be_bytes([*p0, *p1]);
        let ip: IpAddr = match c_int::from(libc::sa_family_t::from_ne_bytes([*f0, *f1])) {
            libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
                Ipv4Addr::from(*rest.first_chunk::<4>()?).into()
            }
            libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
                Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?).into()
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// Control messages, one behind the other: a header, the value, and padding up to the size of a pointer (cmsg(3)).
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL]);

impl Control {
    /// Writes what an envelope asks for; says how many octets that are.
    fn write(&mut self, envelope: &Envelope) -> usize {
        let mut at = 0;
        let (level, tos, ttl) = match envelope.to {
            SocketAddr::V4(_) => (libc::SOL_IP, libc::IP_TOS, libc::IP_TTL),
            SocketAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
        };
        if envelope.tos != 0 {
            at = self.put(at, level, tos, &c_int::from(envelope.tos).to_ne_bytes());
        }
        if envelope.ttl != 0 {
            at = self.put(at, level, ttl, &c_int::from(envelope.ttl).to_ne_bytes());
        }
        if let Some(segment) = envelope.segment {
            at = self.put(at, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        at
    }

    fn put(&mut self, at: usize, level: c_int, kind: c_int, value: &[u8]) -> usize {
        let (header, rest) = self.0[at..].split_at_mut(CMSG_HEADER);
        let (len, header) = header.split_at_mut(size_of::<usize>());
        len.copy_from_slice(&(CMSG_HEADER + value.len()).to_ne_bytes());
        header[..4].copy_from_slice(&level.to_ne_bytes());
        header[4..].copy_from_slice(&kind.to_ne_bytes());
        rest[..value.len()].copy_from_slice(value);
        at + (CMSG_HEADER + value.len()).next_multiple_of(size_of::<usize>())
    }

    /// Level, type and value of each message in the first `len` octets.
    fn read(&self, len: usize) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
        let mut rest = &self.0[..len.min(CONTROL)];
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk()?;
            let (level, after) = after.split_first_chunk()?;
            let (kind, _) = after.split_first_chunk()?;
            let len = usize::from_ne_bytes(*len);
            let value = rest.get(CMSG_HEADER..len)?;
            rest = rest.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or(&[]);
            Some((c_int::from_ne_bytes(*level), c_int::from_ne_bytes(*kind), value))
        })
    }
}

/// The value of a control message that is an int.
fn int(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |v| u32::from_ne_bytes(*v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        for address in ["198.51.100.7:4789", "[2001:db8::7]:6081"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut name = Name([0xff; NAME]);
            let len = name.write(&address);
            assert_eq!(name.read(len), Some(address));
            assert_eq!(name.read(len - 1), None, "cut off");
            assert_eq!(socket2::SockAddr::from(address).len() as usize, len);
        }
    }

    #[test]
    fn control_messages_are_laid_out_as_the_kernel_reads_them() {
        let to = "198.51.100.7:4789".parse().unwrap();
        let mut control = Control([0xff; CONTROL]);
        let len = control.write(&Envelope { to, tos: 0xb8, ttl: 3, segment: Some(1450) });
        let found: Vec<_> = control.read(len).map(|(l, k, v)| (l, k, v.len(), v[0])).collect();
        assert_eq!(
            found,
            [
                (libc::SOL_IP, libc::IP_TOS, 4, 0xb8),
                (libc::SOL_IP, libc::IP_TTL, 4, 3),
                (libc::SOL_UDP, libc::UDP_SEGMENT, 2, 1450_u16.to_ne_bytes()[0]),
            ]
        );
        // cmsg(3): CMSG_SPACE is what a message takes with its padding.
        // SAFETY: computes a number from a number.
        let space = |len| unsafe { libc::CMSG_SPACE(len) } as usize;
        assert_eq!(len, 2 * space(4) + space(2));
        assert_eq!(control.write(&Envelope { to, tos: 0, ttl: 0, segment: None }), 0);
    }

    #[test]
    fn control_messages_that_lie_about_their_length_end_the_walk() {
        for len in [0, CMSG_HEADER - 1, CONTROL + 1, usize::MAX - 3] {
            let mut control = Control([0; CONTROL]);
            control.0[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(control.read(CONTROL).count(), 0, "{len}");
        }
    }
}
