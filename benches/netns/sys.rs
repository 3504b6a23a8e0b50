//! The system calls of the bench that no safe wrapper in the tree offers: making a TAP, and UDP in batches.
//!
//! The only `unsafe` of the bench. One function per system call (three for a TAP's three), slices and owned
//! descriptors at the border, nothing of the kernel's layout leaves.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use libc::{c_int, c_short, c_uint, c_ulong, c_void, iovec, mmsghdr};

/// Datagrams given to the kernel, or asked of it, in one call.
pub(crate) const BURST: usize = 64;

/// Bytes of the vnet header of a [`vnet_tap`]: `struct virtio_net_hdr_mrg_rxbuf`.
const VNET_HEADER: c_int = 12;

/// Everything a switch that passes super-frames through can promise: partial checksums, TCP and UDP segmentation.
const OFFLOADS: c_uint = libc::TUN_F_CSUM
    | libc::TUN_F_TSO4
    | libc::TUN_F_TSO6
    | libc::TUN_F_TSO_ECN
    | libc::TUN_F_USO4
    | libc::TUN_F_USO6;

/// A new TAP with a 12-byte vnet header and all offloads, its descriptor end non-blocking.
pub(crate) fn vnet_tap(name: &str) -> io::Result<OwnedFd> {
    let tap =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data for the kernel: numbers, characters and a union of such; all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq; `request` lives and is exclusively ours during the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    set_vnet_header(&tap, VNET_HEADER)?;
    set_offloads(&tap, OFFLOADS)?;
    Ok(tap.into())
}

fn set_vnet_header(tap: &File, size: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int through the pointer; `size` lives during the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) }).map(drop)
}

fn set_offloads(tap: &File, mask: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes the mask by value; no memory is involved.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(mask)) }).map(drop)
}

/// Sends `payload` [`BURST`] times over a connected socket; returns how many datagrams the kernel took.
pub(crate) fn send_burst(socket: &UdpSocket, payload: &[u8]) -> io::Result<usize> {
    let mut vector = iovec { iov_base: payload.as_ptr().cast_mut().cast::<c_void>(), iov_len: payload.len() };
    let mut messages = [message(&mut vector); BURST];
    // SAFETY: the headers and the one vector they all point at live on this frame during the call, and the kernel
    // only reads the payload of a message it sends (sendmmsg(2)), so the cast to *mut is never used to write.
    let sent =
        check(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BURST as c_uint, 0) })?;
    Ok(sent.unsigned_abs() as usize)
}

/// Buffers for [`receive_burst`]: one datagram each.
pub(crate) type Datagrams = [[u8; 2048]; BURST];

/// Waits for a datagram, as long as the socket's receive timeout allows, then takes all that are there, up to
/// [`BURST`]; returns how many.
pub(crate) fn receive_burst(socket: &UdpSocket, datagrams: &mut Datagrams) -> io::Result<usize> {
    let mut vectors = datagrams
        .each_mut()
        .map(|datagram| iovec { iov_base: datagram.as_mut_ptr().cast::<c_void>(), iov_len: datagram.len() });
    let mut messages = vectors.each_mut().map(message);
    // SAFETY: headers, vectors and the distinct buffers they point at are borrowed by this frame for the whole call;
    // a null timeout is allowed (recvmmsg(2)).
    let received = check(unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            BURST as c_uint,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    })?;
    Ok(received.unsigned_abs() as usize)
}

/// A message of one part, without address or control data. The caller keeps `vector` alive while the kernel reads it.
fn message(vector: &mut iovec) -> mmsghdr {
    // SAFETY: mmsghdr is numbers and pointers; zero and null are the documented "none" of each field (recvmsg(2)).
    let mut message: mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = vector;
    message.msg_hdr.msg_iovlen = 1;
    message
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
