//! Opening the sockets of a port: everything from the options to frames that come.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use libc::{c_int, c_uint};
use rustix::io::Errno;
use socket2::{Domain, SockFilter, Socket, Type};

use super::{NetdevError, NetdevOptions, PacketQueue, queue::SHORT_HEADER};
use crate::{
    frame::Caps,
    port::underlay::set_buffer,
    sys::{
        packet::{self, FANOUT_HASH, FANOUT_IGNORE_OUTGOING, FANOUT_UNIQUE},
        udp::{self, SocketOption},
    },
    wire::virtio_net,
};

/// Octets that may wait to be received: a worker that is away for 2 ms at 25 Gbit/s loses nothing.
/// The kernel counts its own overhead too, so that small frames fill it at a tenth of their size.
const RECV_BUFFER: usize = 8 << 20;
/// Octets that may wait to be sent, in the queue of a device.
const SEND_BUFFER: usize = 4 << 20;
/// The first Linux that describes UDP super-frames in a virtio header.
const USO_SINCE: (u32, u32) = (6, 2);

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter::new(code as u16, jt, jf, k)
}

/// Takes no frame.
const NOTHING: [SockFilter; 1] = [instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)];
/// Takes every frame but those that leave by the interface (linux/filter.h: `SKF_AD_PKTTYPE`).
const INCOMING: [SockFilter; 4] = [
    instruction(
        libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
        0,
        0,
        (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned(),
    ),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, libc::PACKET_OUTGOING as u32),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
];

/// Opens the sockets of a port at the interface of this number, in the calling thread's namespace. It must be up.
pub(super) fn open(options: &NetdevOptions, ifindex: u32) -> Result<Vec<PacketQueue>, NetdevError> {
    let failed =
        |operation| move |source| NetdevError::Socket { operation, name: options.ifname.clone(), source };
    let caps = caps(options.offload);
    let mut group = None;
    let mut queues = Vec::with_capacity(options.queues);
    for _ in 0..options.queues {
        // Protocol 0 receives nothing: no frame of another interface comes in before the socket is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None).map_err(failed("open"))?;
        let fd = socket.as_fd();
        let header = set_up(&socket, options).map_err(failed("set up"))?;
        // Until it is one of the group it would receive what the others receive too.
        socket.attach_filter(&NOTHING).map_err(failed("put a filter on"))?;
        packet::bind(fd, ifindex).map_err(failed("bind"))?;
        packet::set_promiscuous(fd, ifindex).map_err(failed("set promiscuous"))?;
        let ignores = if options.queues > 1 { join(fd, &mut group).map_err(failed("join"))? } else { true };
        if ignores {
            socket.detach_filter().map_err(failed("take the filter off"))?;
        } else {
            socket.attach_filter(&INCOMING).map_err(failed("put a filter on"))?;
        }
        queues.push(PacketQueue::new(socket.into(), caps, header));
    }
    Ok(queues)
}

/// Sets what must stand before a frame comes; says how long the kernel's virtio header is.
fn set_up(socket: &Socket, options: &NetdevOptions) -> io::Result<usize> {
    let fd = socket.as_fd();
    let header = match udp::set_option(fd, SocketOption::VNET_HDR_SIZE, virtio_net::LEN as c_int) {
        Ok(()) => virtio_net::LEN,
        Err(_) => {
            udp::set_option(fd, SocketOption::VNET_HDR, 1)?;
            SHORT_HEADER
        }
    };
    udp::set_option(fd, SocketOption::AUXDATA, 1)?;
    udp::set_option(fd, SocketOption::IGNORE_OUTGOING, 1)?;
    if options.qdisc_bypass {
        udp::set_option(fd, SocketOption::QDISC_BYPASS, 1)?;
    }
    set_buffer(socket, SocketOption::RECV_BUFFER_FORCE, RECV_BUFFER, Socket::set_recv_buffer_size)?;
    set_buffer(socket, SocketOption::SEND_BUFFER_FORCE, SEND_BUFFER, Socket::set_send_buffer_size)?;
    Ok(header)
}

/// The group of a port's sockets.
#[derive(Clone, Copy)]
struct Group {
    number: c_int,
    flags: c_uint,
}

/// Joins the group, or makes it where there is none; says whether the group leaves out what leaves by the interface.
///
/// By a hash of the flow, so that its frames stay in order, and the same for both directions. Never with `PACKET_FANOUT_FLAG_ROLLOVER`,
/// which gives the frames of a queue that is full to others that are not: they would overtake. Never with
/// `PACKET_FANOUT_FLAG_DEFRAG`, which puts packets together that the switch is to carry as they are.
fn join(fd: BorrowedFd<'_>, group: &mut Option<Group>) -> io::Result<bool> {
    let set = |number: c_int, flags: c_uint| {
        let value = number.cast_unsigned() | (FANOUT_HASH | flags) << 16;
        udp::set_option(fd, SocketOption::FANOUT, value.cast_signed())
    };
    let flags = match *group {
        Some(Group { number, flags }) => {
            set(number, flags)?;
            flags
        }
        None => {
            let flags = match set(0, FANOUT_UNIQUE | FANOUT_IGNORE_OUTGOING) {
                Ok(()) => FANOUT_IGNORE_OUTGOING,
                // An older kernel, which does not know the flag.
                Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => {
                    set(0, FANOUT_UNIQUE)?;
                    0
                }
                Err(e) => return Err(e),
            };
            let number = udp::option(fd, SocketOption::FANOUT)? & 0xffff;
            *group = Some(Group { number, flags });
            flags
        }
    };
    Ok(flags & FANOUT_IGNORE_OUTGOING != 0)
}

/// What can be sent by an interface: whatever the kernel understands in a virtio header. What the device lacks, the kernel does for
/// it on the way (`validate_xmit_skb`), in one go and with the segments still in its caches: later than the switch could.
fn caps(offload: bool) -> Caps {
    if !offload {
        return Caps { vnet_hdr: true, ..Caps::NONE };
    }
    Caps { uso: release() >= USO_SINCE, ..Caps::ALL }
}

/// The kernel's version; zeros where it does not say.
fn release() -> (u32, u32) {
    version(&rustix::system::uname().release().to_string_lossy())
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_as_two_numbers() {
        assert_eq!(version("6.18.44-fc-v769"), (6, 18));
        assert_eq!(version("6.1.0-13-amd64"), (6, 1));
        assert_eq!(version("7.0"), (7, 0));
        assert_eq!(version("unknown"), (0, 0));
        assert!((6, 18) >= USO_SINCE && (5, 19) < USO_SINCE);
    }
}
