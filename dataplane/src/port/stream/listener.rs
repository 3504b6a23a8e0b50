//! How a connection comes about: somebody connects to us, or we to somebody.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, accept_with, listen, socket_with},
};

use super::{
    super::socket_file::{SocketFile, SocketFileError, address, io_error},
    Connection,
};

/// Peers that can wait to be let in. One is let in at a time; who comes second waits here until the first has gone, as at QEMU's own
/// `server=on`, and who comes when all places are taken is refused by the kernel.
const BACKLOG: i32 = 4;

/// A socket that peers connect to.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    file: SocketFile,
}

impl Listener {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Where somebody else does, something that is no socket is there, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketFileError> {
        let (fd, file) = SocketFile::bind(path, SocketType::STREAM)?;
        listen(&fd, BACKLOG).map_err(io_error("listen at", path))?;
        Ok(Self { fd, file })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Whether a peer waits to be let in.
    pub fn is_waited_at(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    /// The next peer that waits, if any.
    ///
    /// # Errors
    /// Where the process has no more descriptors or memory.
    pub fn accept(&self) -> io::Result<Option<Arc<Connection>>> {
        loop {
            match accept_with(&self.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => return Connection::new(fd).map(Some),
                Err(Errno::AGAIN) => return Ok(None),
                // The peer went away before it was let in.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Connects to who listens at `path`. Never waits: where the other end has no place for one more, that is an error like others.
///
/// # Errors
/// Where nobody listens there, or we may not connect.
pub fn connect(path: &Path) -> Result<Arc<Connection>, SocketFileError> {
    let address = address(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|fd| rustix::net::connect(&fd, &address).map(|()| fd))
        .map_err(io::Error::from)
        .and_then(Connection::new)
        .map_err(io_error("connect to", path))
}
