//! Packet sockets: the frames of an interface, whole (`AF_PACKET`; packet(7), net/packet/af_packet.c).
//!
//! The scratch memory holds what the kernel reads and writes beside the octets. The pointers in it are written anew by each call
//! and mean nothing after it.

use std::{
    fmt, io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use libc::{c_int, c_uint};
use rustix::io::Errno;

use super::udp::SocketOption;

/// The most messages of one call, as many as a batch has frames.
pub const MAX_MESSAGES: usize = 64;

impl SocketOption {
    /// A virtio header before each frame, in both directions (`PACKET_VNET_HDR`, Linux 2.6.27).
    pub const VNET_HDR: Self = Self { level: libc::SOL_PACKET, name: libc::PACKET_VNET_HDR };
    /// Octets of that header, 10 or 12; instead of the option above, which makes them 10 (`PACKET_VNET_HDR_SZ`, Linux 6.4).
    pub const VNET_HDR_SIZE: Self = Self { level: libc::SOL_PACKET, name: libc::PACKET_VNET_HDR_SZ };
    /// Tell of each frame what its octets do not say (`PACKET_AUXDATA`, Linux 2.6.21).
    pub const AUXDATA: Self = Self { level: libc::SOL_PACKET, name: libc::PACKET_AUXDATA };
    /// Frames that leave by the interface are not received (`PACKET_IGNORE_OUTGOING`, Linux 4.20). Not for sockets of a group: that has
    /// [a flag of its own](FANOUT_IGNORE_OUTGOING).
    pub const IGNORE_OUTGOING: Self = Self { level: libc::SOL_PACKET, name: libc::PACKET_IGNORE_OUTGOING };
    /// Frames go to the driver and not to the queueing discipline (`PACKET_QDISC_BYPASS`, Linux 3.14).
    pub const QDISC_BYPASS: Self = Self { level: libc::SOL_PACKET, name: libc::PACKET_QDISC_BYPASS };
    /// Joins a group of sockets, between which frames are dealt out (`PACKET_FANOUT`): its number in the low half, and in the high
    /// one how they are dealt out, with flags. To be read, it tells the number.
    pub const FANOUT: Self = Self { level: libc::SOL_PACKET, name: libc::PACKET_FANOUT };
}

/// A flow is one socket's, both of its directions (`PACKET_FANOUT_HASH`).
pub const FANOUT_HASH: c_uint = libc::PACKET_FANOUT_HASH;
/// The kernel is to choose a number that no other group has (`PACKET_FANOUT_FLAG_UNIQUEID`, Linux 4.12).
pub const FANOUT_UNIQUE: c_uint = libc::PACKET_FANOUT_FLAG_UNIQUEID;
/// Frames that leave by the interface are not received (`PACKET_FANOUT_FLAG_IGNORE_OUTGOING`).
pub const FANOUT_IGNORE_OUTGOING: c_uint = libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;

/// Every frame of the interface is received and may be sent, from now on. There is no other while the socket is open.
pub fn bind(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: number(ifindex)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: bind reads `len` octets at the pointer, which are those of `address`.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })
}

/// Switches the interface to promiscuous for as long as the socket is open (`PACKET_ADD_MEMBERSHIP`).
pub fn set_promiscuous(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: number(ifindex)?,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let len = size_of::<libc::packet_mreq>() as libc::socklen_t;
    // SAFETY: setsockopt reads `len` octets at the pointer, which are those of `request`.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            len,
        )
    })
}

/// Frames for which there was no room in the receive buffer since the last question, or since the socket was bound
/// (`PACKET_STATISTICS`).
pub fn lost(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: getsockopt writes at most `len` octets at the first pointer, which are those of `stats`, and their number at the second.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut len,
        )
    })?;
    Ok(stats.tp_drops)
}

fn number(ifindex: u32) -> io::Result<c_int> {
    c_int::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel told of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Octets written to the buffer.
    pub len: usize,
    /// The outermost VLAN tag, which the kernel has taken out of the octets: type and control information.
    pub tag: Option<(u16, u16)>,
    /// The transport checksum has been verified.
    pub csum_valid: bool,
    /// The frame was longer than its buffer.
    pub truncated: bool,
}

/// The one control message of a frame.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    auxdata: libc::tpacket_auxdata,
}

const CONTROL: usize = size_of::<Control>();
/// What stands there before the kernel has written: no message of any kind.
const EMPTY_CONTROL: Control = Control {
    header: libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 },
    auxdata: libc::tpacket_auxdata {
        tp_status: 0,
        tp_len: 0,
        tp_snaplen: 0,
        tp_mac: 0,
        tp_net: 0,
        tp_vlan_tci: 0,
        tp_vlan_tpid: 0,
    },
};

/// The memory of a `recvmmsg` beside the buffers.
pub struct RecvScratch {
    headers: Box<[libc::mmsghdr; MAX_MESSAGES]>,
    vectors: Box<[libc::iovec; MAX_MESSAGES]>,
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
        const HEADER: libc::mmsghdr = libc::mmsghdr {
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
        const VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            headers: Box::new([HEADER; MAX_MESSAGES]),
            vectors: Box::new([VECTOR; MAX_MESSAGES]),
            controls: Box::new([EMPTY_CONTROL; MAX_MESSAGES]),
        }
    }
}

impl RecvScratch {
    /// Receives one frame into each buffer, as many as wait, at most [`MAX_MESSAGES`]; never blocks (`recvmmsg`).
    /// Says how many came; [`arrival`](Self::arrival) tells of each. An error is that of the first.
    pub fn receive<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        buffers: impl Iterator<Item = &'a mut [u8]>,
    ) -> Result<usize, Errno> {
        let mut count = 0;
        let places = self.headers.iter_mut().zip(self.vectors.iter_mut().zip(self.controls.iter_mut()));
        for ((header, (vector, control)), buffer) in places.zip(buffers) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let message = &mut header.msg_hdr;
            message.msg_iov = vector;
            message.msg_iovlen = 1;
            message.msg_control = ptr::from_mut(control).cast();
            message.msg_controllen = CONTROL as _;
            message.msg_flags = 0;
            count += 1;
        }
        // SAFETY: the first `count` headers lead to controls of the length they state, in a box that this exclusive borrow keeps in
        // place, and to buffers that are borrowed for 'a, which outlives the call.
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

    /// What the kernel told of the frame in buffer `n` of the last receive, which must have filled it.
    #[inline]
    pub fn arrival(&self, n: usize) -> Arrival {
        let header = &self.headers[n];
        let message = &header.msg_hdr;
        let told = message.msg_controllen >= mem::offset_of!(Control, auxdata);
        let control = if told { &self.controls[n] } else { &EMPTY_CONTROL };
        let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
        Arrival { truncated, ..arrival(header.msg_len as usize, control) }
    }
}

/// What a control message says.
#[inline]
fn arrival(len: usize, control: &Control) -> Arrival {
    let Control { header, auxdata } = control;
    let status = match (header.cmsg_level, header.cmsg_type) {
        (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            if header.cmsg_len >= mem::offset_of!(Control, auxdata) + size_of::<libc::tpacket_auxdata>() =>
        {
            auxdata.tp_status
        }
        _ => 0,
    };
    let tag = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
        // Kernels before 3.14 do not tell the type.
        let known = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        (if known { auxdata.tp_vlan_tpid } else { libc::ETH_P_8021Q as u16 }, auxdata.tp_vlan_tci)
    });
    Arrival { len, tag, csum_valid: status & libc::TP_STATUS_CSUM_VALID != 0, truncated: false }
}

#[cold]
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn control(status: u32) -> Control {
        Control {
            header: libc::cmsghdr {
                cmsg_len: (mem::offset_of!(Control, auxdata) + size_of::<libc::tpacket_auxdata>()) as _,
                cmsg_level: libc::SOL_PACKET,
                cmsg_type: libc::PACKET_AUXDATA,
            },
            auxdata: libc::tpacket_auxdata {
                tp_status: status,
                tp_vlan_tci: 0xa02a,
                tp_vlan_tpid: 0x88a8,
                ..EMPTY_CONTROL.auxdata
            },
        }
    }

    #[test]
    fn a_tag_is_there_where_the_kernel_says_so_and_its_type_is_that_of_802_1q_where_it_does_not_say() {
        const BOTH: u32 = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        assert_eq!(arrival(60, &control(BOTH)).tag, Some((0x88a8, 0xa02a)));
        assert_eq!(arrival(60, &control(libc::TP_STATUS_VLAN_VALID)).tag, Some((0x8100, 0xa02a)));
        let checked = arrival(60, &control(libc::TP_STATUS_CSUM_VALID));
        assert_eq!(checked, Arrival { len: 60, csum_valid: true, ..Arrival::default() });
    }

    #[test]
    fn another_control_message_and_one_cut_off_say_nothing() {
        let mut other = control(u32::MAX);
        other.header.cmsg_type += 1;
        let mut short = control(u32::MAX);
        short.header.cmsg_len -= 1;
        for control in [other, short, EMPTY_CONTROL] {
            assert_eq!(arrival(60, &control), Arrival { len: 60, ..Arrival::default() });
        }
    }

    /// cmsg(3): `CMSG_SPACE` is what a message takes with its padding.
    #[test]
    fn the_control_message_is_laid_out_as_the_kernel_writes_it() {
        // SAFETY: computes a number from a number.
        let space = unsafe { libc::CMSG_SPACE(size_of::<libc::tpacket_auxdata>() as c_uint) };
        assert_eq!(CONTROL, space as usize);
        // SAFETY: computes a number from a number.
        let header = unsafe { libc::CMSG_LEN(0) };
        assert_eq!(mem::offset_of!(Control, auxdata), header as usize);
    }

    #[test]
    fn frames_are_received_one_a_buffer_and_one_that_does_not_fit_is_marked() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::NONBLOCK, None).unwrap();
        let mut scratch = RecvScratch::default();
        let mut memory = [[0u8; 8]; 3];
        for message in [&b"one"[..], b"longer than 8"] {
            rustix::io::write(&far, message).unwrap();
        }
        assert_eq!(scratch.receive(near.as_fd(), memory.iter_mut().map(|m| &mut m[..])), Ok(2));
        assert_eq!(&memory[0][..3], b"one");
        assert_eq!(scratch.arrival(0), Arrival { len: 3, ..Arrival::default() });
        assert_eq!(scratch.arrival(1), Arrival { len: 8, truncated: true, ..Arrival::default() });
        let again = scratch.receive(near.as_fd(), memory.iter_mut().map(|m| &mut m[..]));
        assert_eq!(again, Err(Errno::AGAIN));
    }
}
