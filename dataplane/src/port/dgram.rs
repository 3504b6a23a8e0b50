//! `dgram` ports: each frame a datagram between two Unix sockets, as QEMU's `-netdev dgram` has it.
//!
//! Both ends have a file. Ours is made with the port and stays as long; the peer's comes and goes with the peer, and each time it is
//! another socket of the same name. So the control thread connects again and again: to who is the peer already that changes
//! nothing, and the workers' queues stay what they are. The kernel then lets nobody but the peer send to us (`unix_may_send`).
//!
//! How many datagrams can wait for the peer is set where the peer makes its socket (`net.unix.max_dgram_qlen`, which is 10 on many
//! systems): a stream takes bursts better. A datagram that does not fit is dropped, and counted.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{SocketAddrUnix, SocketType, connect, sockopt},
};

use super::{
    Received, SendResult,
    socket_file::{SocketFile, SocketFileError, address, io_error},
    tap::TapQueue,
};
use crate::{counters::PortCounters, frame::Batch, sys::uring::Batcher};

/// Octets that may wait for the peer, whatever their number.
const SEND_BUFFER: usize = crate::frame::BATCH_BYTES;

/// The control thread's end of a `dgram` port.
#[derive(Debug)]
pub struct DgramSocket {
    fd: OwnedFd,
    file: SocketFile,
    peer: PathBuf,
    address: SocketAddrUnix,
}

impl DgramSocket {
    /// A socket at `path` for datagrams from and to the socket at `peer`, which need not be there yet, and its queue.
    ///
    /// # Errors
    /// Where somebody else is at `path`, something that is no socket is, or the kernel refuses.
    pub fn open(path: &Path, peer: &Path) -> Result<(Self, DgramQueue), SocketFileError> {
        let address = address(peer)?;
        let (fd, file) = SocketFile::bind(path, SocketType::DGRAM)?;
        // Beyond the limit of net.core.wmem_max where we may, else up to it.
        if sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
        }
        let queue = fd.try_clone().map_err(io_error("share the socket of", path))?;
        let queue = DgramQueue(TapQueue::of_datagrams(queue));
        Ok((Self { fd, file, peer: peer.to_owned(), address }, queue))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Where its peer is to be.
    pub fn peer(&self) -> &Path {
        &self.peer
    }

    /// Connects to whoever is at the peer's path now. To be called again and again.
    ///
    /// # Errors
    /// `ENOENT` and `ECONNREFUSED` where nobody is; `EPERM` where the peer is connected to somebody else.
    pub fn meet(&self) -> Result<(), Errno> {
        connect(&self.fd, &self.address)
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
