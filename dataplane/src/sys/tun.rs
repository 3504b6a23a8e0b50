//! `/dev/net/tun`: the descriptor end of a TAP (`Documentation/networking/tuntap.rst`, `drivers/net/tun.c`).
//!
//! A descriptor is bound for good to the network namespace of the thread that opened it: its socket holds a
//! reference to that namespace (`tun_chr_open`), and interface names mean that namespace's.
//! The device itself may move elsewhere without the descriptor noticing.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
};

use libc::{c_int, c_ulong};
use rustix::fs::{Mode, OFlags};

/// A TAP: frames with Ethernet headers (`IFF_TAP`).
pub const TAP: u16 = libc::IFF_TAP as u16;
/// A TUN: packets without Ethernet headers (`IFF_TUN`).
pub const TUN: u16 = libc::IFF_TUN as u16;
/// No four octets of packet information before each frame (`IFF_NO_PI`).
pub const NO_PI: u16 = libc::IFF_NO_PI as u16;
/// A virtio header before each frame (`IFF_VNET_HDR`).
pub const VNET_HDR: u16 = libc::IFF_VNET_HDR as u16;
/// Several descriptors may attach, each a queue (`IFF_MULTI_QUEUE`).
pub const MULTI_QUEUE: u16 = libc::IFF_MULTI_QUEUE as u16;
/// Create, never attach to what exists: EBUSY instead (`IFF_TUN_EXCL`).
pub const EXCLUSIVE: u16 = libc::IFF_TUN_EXCL as u16;
/// The device outlives its descriptors (`IFF_PERSIST`); read by [`interface`], set by [`set_persist`].
pub const PERSIST: u16 = libc::IFF_PERSIST as u16;

/// The longest interface name: `IFNAMSIZ` counts a terminating zero.
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;
/// The most queues of a device (`MAX_TAP_QUEUES`).
pub const QUEUES_MAX: usize = 256;

/// Partial checksums (`TUN_F_CSUM`); every other offload needs it.
pub const F_CSUM: u32 = libc::TUN_F_CSUM;
/// TCP super-frames over IPv4 (`TUN_F_TSO4`).
pub const F_TSO4: u32 = libc::TUN_F_TSO4;
/// TCP super-frames over IPv6 (`TUN_F_TSO6`).
pub const F_TSO6: u32 = libc::TUN_F_TSO6;
/// TCP super-frames with CWR (`TUN_F_TSO_ECN`).
pub const F_TSO_ECN: u32 = libc::TUN_F_TSO_ECN;
/// UDP super-frames over IPv4 (`TUN_F_USO4`, Linux 6.2); only together with [`F_USO6`].
pub const F_USO4: u32 = libc::TUN_F_USO4;
/// UDP super-frames over IPv6 (`TUN_F_USO6`, Linux 6.2); only together with [`F_USO4`].
pub const F_USO6: u32 = libc::TUN_F_USO6;
/// Super-frames inside a UDP tunnel without outer checksum (`TUN_F_UDP_TUNNEL_GSO`, Linux 6.17, linux/if_tun.h); needs a header of
/// 24 octets.
pub const F_UDP_TUNNEL_GSO: u32 = 0x080;
/// The same with outer checksums (`TUN_F_UDP_TUNNEL_GSO_CSUM`); only together with [`F_UDP_TUNNEL_GSO`].
pub const F_UDP_TUNNEL_GSO_CSUM: u32 = 0x100;

/// `struct ifreq` as the tun ioctls use it: a name and 16 bits of flags.
#[repr(C)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; REST],
}

const REST: usize = size_of::<libc::ifreq>() - libc::IFNAMSIZ - 2;
const _: () = assert!(size_of::<IfReq>() == size_of::<libc::ifreq>());

impl IfReq {
    fn new(name: &str, flags: u16) -> io::Result<Self> {
        let mut request = Self { name: [0; libc::IFNAMSIZ], flags, rest: [0; REST] };
        if name.len() > NAME_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn name(&self) -> String {
        let end = self.name.iter().position(|&b| b == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Opens `/dev/net/tun`, not blocking, in the calling thread's network namespace.
pub fn open() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/net/tun", flags, Mode::empty())?)
}

/// Creates the device `name`, or attaches to it where it exists (`TUNSETIFF`); answers with its name.
pub fn attach(fd: BorrowedFd<'_>, name: &str, flags: u16) -> io::Result<String> {
    let mut request = IfReq::new(name, flags)?;
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose size and layout `IfReq` has (asserted above);
    // the exclusive reference keeps it alive for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(request.name())
}

/// Creates or attaches a single-queue TAP without any header, not blocking, through the `tun-tap` crate, which knows no other kind.
pub fn attach_plain(name: &str) -> io::Result<OwnedFd> {
    if name.len() > NAME_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)); // tun-tap would cut it off silently
    }
    let iface = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tap)?;
    iface.set_non_blocking()?;
    // SAFETY: `into_raw_fd` gives up the only owner of an open descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(iface.into_raw_fd()) })
}

/// The name the device has now, and its flags (`TUNGETIFF`). EBADFD says that the device is gone.
pub fn interface(fd: BorrowedFd<'_>) -> io::Result<(String, u16)> {
    let mut request = IfReq::new("", 0)?;
    // SAFETY: TUNGETIFF writes one `struct ifreq`, whose size and layout `IfReq` has (asserted above);
    // the exclusive reference keeps it alive for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    Ok((request.name(), request.flags))
}

/// The network namespace the device is in now (`TUNGETDEVNETNS`, Linux 5.2). EBADFD says that the device is gone.
pub fn device_netns(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: TUNGETDEVNETNS takes no argument.
    let netns = check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETDEVNETNS) })?;
    // SAFETY: the kernel made this descriptor for the call above (`open_related_ns`); nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(netns) })
}

/// Sets the octets of the header before each frame (`TUNSETVNETHDRSZ`); a property of the device.
pub fn set_vnet_header_len(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = c_int::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) }).map(drop)
}

/// Makes the header little endian on every machine (`TUNSETVNETLE`); a property of the device.
pub fn set_vnet_little_endian(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: TUNSETVNETLE reads one int, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETLE, &raw const on) }).map(drop)
}

/// Sets what this end takes, a set of `F_*` (`TUNSETOFFLOAD`); a property of the device, kept while it persists.
/// EINVAL says that the kernel does not know one of them.
pub fn set_offload(fd: BorrowedFd<'_>, mask: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(mask)) }).map(drop)
}

/// Makes the device outlive its descriptors, or not (`TUNSETPERSIST`).
pub fn set_persist(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, c_ulong::from(on)) }).map(drop)
}

/// Makes a descriptor of a device with several queues one that takes part, or one that gets nothing (`TUNSETQUEUE`).
/// EINVAL says that the device has but one queue.
pub fn set_queue(fd: BorrowedFd<'_>, attached: bool) -> io::Result<()> {
    let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    let mut request = IfReq::new("", flag as u16)?;
    // SAFETY: TUNSETQUEUE reads one `struct ifreq`, whose size and layout `IfReq` has (asserted above);
    // the exclusive reference keeps it alive for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &raw mut request) }).map(drop)
}

/// Lets a user attach without privilege (`TUNSETOWNER`).
pub fn set_owner(fd: BorrowedFd<'_>, owner: u32) -> io::Result<()> {
    // SAFETY: TUNSETOWNER takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOWNER, c_ulong::from(owner)) }).map(drop)
}

/// Lets the members of a group attach without privilege (`TUNSETGROUP`).
pub fn set_group(fd: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    // SAFETY: TUNSETGROUP takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETGROUP, c_ulong::from(group)) }).map(drop)
}
