//! Where frames enter and leave the switch.
//!
//! Owns the descriptors of a port, their negotiation with the kernel, and the meaning of every error a descriptor
//! gives. Never decides where a frame goes, and reads no frame beyond its length and its virtio header.
//! A queue never blocks: what does not fit is the caller's to count.

pub mod dgram;
pub(crate) mod encap;
pub mod memory;
pub mod netdev;
mod queue;
pub mod socket_file;
pub mod stream;
pub mod tap;
#[cfg(test)]
pub(crate) mod tests;
mod transmit;
pub mod underlay;
pub mod uplink;
pub mod vhost_user;

use rustix::io::Errno;

pub use dgram::DgramQueue;
pub use encap::{Encapsulator, Exits, UplinkExit};
pub use memory::{MemoryPeer, MemoryQueue};
pub use netdev::PacketQueue;
pub use queue::Queue;
pub use stream::StreamQueue;
pub use tap::TapQueue;
pub use transmit::{Outcome, Transmitter};
pub use underlay::{UnderlayRx, UnderlayTx};
pub use vhost_user::VhostQueue;

/// How a receive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The queue is empty; the poll will tell when it is not.
    Drained,
    /// The batch is full and more may wait; the poll will not tell again.
    Full,
    /// The queue gives nothing any more: its device is deleted (EBADFD), its peer has gone, or an error nobody expects.
    Gone(Errno),
}

/// How a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendResult {
    /// The kernel took the frame.
    Sent,
    /// The queue took the frame, sends it together with others when it is told to ([`Queue::flush`]), and counts it itself.
    Held,
    /// No room at the moment (EAGAIN, ENOBUFS, ENOMEM).
    Full,
    /// The interface is administratively down (EIO), or nobody is at the other end (ECONNREFUSED …).
    Down,
    /// The kernel does not take such a frame (EINVAL …).
    Refused(Errno),
    /// The device is deleted (EBADFD).
    Gone(Errno),
}

/// What an error of a descriptor means: the one place that knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrnoClass {
    /// Nothing to read, or no room to write at the moment.
    TryAgain,
    /// Memory is short; the next call may succeed.
    Transient,
    /// The interface end is down, or the peer of a socket is away.
    Down,
    /// The descriptor lost its device.
    Gone,
    /// The call itself is not acceptable.
    Refused,
}

/// Classifies an error of a read from, or a write to, a queue (`tun_get_user`, `tun_do_read` in drivers/net/tun.c;
/// `unix_dgram_sendmsg` and `unix_dgram_disconnected` in net/unix/af_unix.c).
pub(crate) const fn classify(errno: Errno) -> ErrnoClass {
    match errno {
        Errno::AGAIN => ErrnoClass::TryAgain,
        Errno::INTR | Errno::NOBUFS | Errno::NOMEM => ErrnoClass::Transient,
        Errno::IO | Errno::NETDOWN => ErrnoClass::Down,
        Errno::CONNREFUSED | Errno::NOTCONN | Errno::CONNRESET => ErrnoClass::Down,
        Errno::BADFD | Errno::BADF | Errno::NODEV | Errno::NXIO => ErrnoClass::Gone,
        _ => ErrnoClass::Refused,
    }
}

impl SendResult {
    /// What a write meant.
    #[inline]
    pub(crate) fn from_write(result: Result<usize, Errno>) -> Self {
        match result {
            Ok(_) => Self::Sent,
            Err(errno) => Self::from_errno(errno),
        }
    }

    #[cold]
    fn from_errno(errno: Errno) -> Self {
        match classify(errno) {
            ErrnoClass::TryAgain | ErrnoClass::Transient => Self::Full,
            ErrnoClass::Down => Self::Down,
            ErrnoClass::Gone => Self::Gone(errno),
            ErrnoClass::Refused => Self::Refused(errno),
        }
    }
}
