//! Whole Ethernet frames at an interface: an `AF_PACKET` socket.
//!
//! The tests' only `unsafe` beside the making of namespaces: three system calls that no safe wrapper offers with these
//! arguments. The kernel moves the outermost VLAN tag of a received frame out of its bytes; it is put back here.

use std::{
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr,
    time::{Duration, Instant},
};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};

/// Octets of the virtio header that `PACKET_VNET_HDR` puts before a frame (`struct virtio_net_hdr`).
pub(crate) const VNET_HDR: usize = 10;

/// The longest frame: a super-frame of 64 KiB with addresses, type and tags.
const FRAME_MAX: usize = 65_536 + 64;

/// Octets of frames, with what the kernel adds to each, that wait to be received.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket that sends and receives whole frames at one interface.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: Socket,
    vnet: bool,
}

/// A frame as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// The virtio header; zero octets from a socket without one.
    pub(crate) vnet: [u8; VNET_HDR],
    /// From the destination address on, with its VLAN tag where it has one.
    pub(crate) frame: Vec<u8>,
}

impl PacketSocket {
    /// At `ifname` of the calling thread's namespace; `vnet` puts a virtio header before each frame.
    pub(super) fn open(ifname: &str, vnet: bool) -> io::Result<Self> {
        // Protocol 0 receives nothing: no frame of another interface comes in before the socket is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        let fd = socket.as_fd();
        enable(fd, libc::PACKET_AUXDATA)?;
        enable(fd, libc::PACKET_IGNORE_OUTGOING)?;
        if vnet {
            enable(fd, libc::PACKET_VNET_HDR)?;
        }
        // Room for what comes while the test is busy sending; root gets it beyond `net.core.rmem_max`, where a few super-frames fill it.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        bind(fd, name_to_index(&socket, ifname)?)?;
        Ok(Self { socket, vnet })
    }

    /// Sends one frame as if the interface's host had.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.send_with([0; VNET_HDR], frame)
    }

    /// Sends one frame under a virtio header, however absurd; the kernel may refuse it.
    pub(crate) fn send_with(&self, vnet: [u8; VNET_HDR], frame: &[u8]) -> io::Result<()> {
        assert!(self.vnet || vnet == [0; VNET_HDR], "this socket was opened without virtio headers");
        let message = if self.vnet { [&vnet, frame].concat() } else { frame.to_vec() };
        let sent = self.socket.send(&message)?;
        assert_eq!(sent, message.len(), "a packet socket sends all or nothing");
        Ok(())
    }

    /// The next frame that came in at the interface within `timeout`.
    pub(crate) fn recv(&self, timeout: Duration) -> Option<Received> {
        let deadline = Instant::now() + timeout;
        loop {
            // A timeout of zero would mean "for ever".
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(left)).expect("timeout");
            match self.recv_once() {
                Ok(received) => return Some(received),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => panic!("packet socket: {e}"),
            }
        }
    }

    /// The next frame that `wanted` takes, leaving out the others.
    pub(crate) fn recv_where(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Option<Received> {
        let deadline = Instant::now() + timeout;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            if let Some(received) = self.recv(left).filter(|r| wanted(&r.frame)) {
                return Some(received);
            }
        }
        None
    }

    /// Everything that came in until the interface was silent for `silence`.
    pub(crate) fn drain(&self, silence: Duration) -> Vec<Received> {
        std::iter::from_fn(|| self.recv(silence)).collect()
    }

    fn recv_once(&self) -> io::Result<Received> {
        let mut bytes = vec![0; FRAME_MAX];
        let mut control = [0; 64];
        let (len, control_len) = recvmsg(self.socket.as_fd(), &mut bytes, &mut control)?;
        bytes.truncate(len);
        let mut vnet = [0; VNET_HDR];
        if self.vnet {
            let frame = bytes.split_off(VNET_HDR);
            vnet.copy_from_slice(&mem::replace(&mut bytes, frame));
        }
        if let Some(tag) = vlan_tag(&control[..control_len]) {
            bytes.splice(12..12, tag);
        }
        Ok(Received { vnet, frame: bytes })
    }
}

/// The VLAN tag in the auxiliary data of a frame: `struct cmsghdr` and `struct tpacket_auxdata`, in host byte order.
fn vlan_tag(control: &[u8]) -> Option<[u8; 4]> {
    const HEADER: usize = mem::size_of::<libc::cmsghdr>();
    let u32_at = |at| Some(u32::from_ne_bytes(*control.get(HEADER + at..)?.first_chunk()?));
    let u16_at = |at| Some(u16::from_ne_bytes(*control.get(HEADER + at..)?.first_chunk()?));
    let status = u32_at(mem::offset_of!(libc::tpacket_auxdata, tp_status))?;
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tci: u16 = u16_at(mem::offset_of!(libc::tpacket_auxdata, tp_vlan_tci))?;
    let tpid: u16 = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 {
        0x8100
    } else {
        u16_at(mem::offset_of!(libc::tpacket_auxdata, tp_vlan_tpid))?
    };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    Some([a, b, c, d])
}

fn enable(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    set_option(fd, libc::SOL_PACKET, option, 1)
}

/// Sets a socket option whose value is an `int`.
pub(super) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: setsockopt(2) reads `optlen` octets at `optval`, and `value` is that long and outlives the call.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: bind(2) reads `addrlen` octets at `addr`, and `address` is that long and outlives the call.
    let rc = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            mem::size_of_val(&address) as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One message into `bytes` and its control messages into `control`; the lengths of both.
fn recvmsg(fd: BorrowedFd<'_>, bytes: &mut [u8], control: &mut [u8]) -> io::Result<(usize, usize)> {
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is plain integers and pointers, for which all zeros is a value ("nothing").
    let mut msg: libc::msghdr = unsafe { mem::zeroed() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = control.len();
    // SAFETY: `msg` points to `iov`, and both to buffers that are as long as they say, borrowed mutably for the call.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, 0) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    assert_eq!(
        msg.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC),
        0,
        "the buffers are long enough for any frame"
    );
    Ok((n, msg.msg_controllen))
}
