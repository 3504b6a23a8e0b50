//! `dgram` ports: each frame a datagram between two Unix sockets, as QEMU's `-netdev dgram` has it.
//!
//! Both ends have a file. Ours is made with the port and stays as long; the peer's comes and goes with the peer, and each time it is
//! another socket of the same name. So the control thread connects again and again: to who is the peer already that changes
//! nothing, and the workers' queues stay what they are. As long as there is a peer, the kernel lets nobody else send to us
//! (`unix_may_send` in net/unix/af_unix.c).
//! Where the peer is not named, it is who sends first, until it is gone.
//!
//! How many datagrams can wait for the peer is set where the peer makes its socket (`net.unix.max_dgram_qlen`, which is 10 on many
//! systems): a stream takes bursts better. A datagram that does not fit is dropped, and counted.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SocketAddrUnix, SocketType, connect, connect_unspec, recv, recvfrom, sockopt},
};

use super::{
    Received, SendResult,
    socket_file::{SocketFile, SocketFileError, address},
    tap::TapQueue,
};
use crate::{counters::PortCounters, frame::Batch, sys::uring::Batcher};

/// Octets that may wait for the peer, whatever their number.
const SEND_BUFFER: usize = crate::frame::BATCH_BYTES;
/// Datagrams of strangers that are looked at in one go.
const STRANGERS: usize = 64;

/// Nobody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away {
    /// `ENOENT` and `ECONNREFUSED` where there is nobody; `EPERM` where the peer is connected to somebody else; `EAGAIN` where the
    /// peer has no name and nobody has sent; others where something else is wrong.
    pub reason: Errno,
    /// Datagrams of others, which were discarded.
    pub discarded: usize,
}

/// The control thread's end of a `dgram` port.
#[derive(Debug)]
pub struct DgramSocket {
    fd: OwnedFd,
    file: SocketFile,
    /// The peer, as long as one is known.
    peer: Option<SocketAddrUnix>,
    /// Whether it is known for good.
    is_named: bool,
}

impl DgramSocket {
    /// A socket at `path` for datagrams from and to the socket at `peer`, which need not be there yet, or from and to whoever sends.
    ///
    /// # Errors
    /// Where somebody else is at `path`, something that is no socket is, or the kernel refuses.
    pub fn open(path: &Path, peer: Option<&Path>) -> Result<Self, SocketFileError> {
        let peer = peer.map(address).transpose()?;
        let (fd, file) = SocketFile::bind(path, SocketType::DGRAM)?;
        // Beyond the limit of net.core.wmem_max where we may, else up to it.
        if sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
        }
        Ok(Self { fd, file, is_named: peer.is_some(), peer })
    }

    /// A queue. One alone may receive.
    ///
    /// # Errors
    /// Where the process has no more descriptors.
    pub fn queue(&self) -> io::Result<DgramQueue> {
        Ok(DgramQueue(TapQueue::of_datagrams(self.fd.try_clone()?)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Connects to whoever is the peer now. To be called again and again. Where there is none, what others have sent is discarded.
    ///
    /// # Errors
    /// Where nobody is there.
    pub fn meet(&mut self) -> Result<(), Away> {
        let Err(reason) = self.peer.as_ref().map_or(Err(Errno::AGAIN), |peer| connect(&self.fd, peer)) else {
            return Ok(());
        };
        // Who was the peer is not, for the kernel neither.
        let _ = connect_unspec(&self.fd);
        if self.is_named {
            let discarded = (0..STRANGERS).take_while(|_| self.discard().is_ok()).count();
            return Err(Away { reason, discarded });
        }
        self.peer = None;
        self.meet_sender()
    }

    /// Connects to who has sent the datagram that waits first, which stays.
    fn meet_sender(&mut self) -> Result<(), Away> {
        for discarded in 0..STRANGERS {
            let away = |reason| Away { reason, discarded };
            let (_, _, sender) = recvfrom(&self.fd, &mut [0; 1], RecvFlags::PEEK).map_err(away)?;
            // One without a name, one that has gone since, or one that is connected to somebody else: nothing could be sent to it.
            if let Some(sender) = sender.and_then(|sender| SocketAddrUnix::try_from(sender).ok())
                && connect(&self.fd, &sender).is_ok()
            {
                self.peer = Some(sender);
                return Ok(());
            }
            self.discard().map_err(away)?;
        }
        Err(Away { reason: Errno::AGAIN, discarded: STRANGERS })
    }

    fn discard(&self) -> Result<(), Errno> {
        recv(&self.fd, &mut [0; 1], RecvFlags::empty()).map(drop)
    }
}

impl AsFd for DgramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A handle on the socket. It belongs to one worker at a time.
#[derive(Debug)]
pub struct DgramQueue(TapQueue);

impl DgramQueue {
    /// Reads frames into the batch, as [`TapQueue::recv`] does.
    #[inline]
    pub fn recv(
        &mut self,
        batch: &mut Batch,
        counters: &PortCounters,
        ring: Option<&mut Batcher>,
    ) -> Received {
        self.0.recv(batch, counters, ring)
    }

    /// Sends one frame, given in parts.
    #[inline]
    pub fn send(&self, parts: &[IoSlice<'_>]) -> SendResult {
        self.0.send(parts)
    }

    /// Another handle, for a worker that only sends.
    ///
    /// # Errors
    /// Where the process has no more descriptors.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self(self.0.share()?))
    }
}

impl AsFd for DgramQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
