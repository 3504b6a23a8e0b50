//! A stream to one peer, as all handles on it share it.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rustix::{
    io::{Errno, ioctl_fionbio},
    net::{SendFlags, send, sockopt},
};

use super::super::{ErrnoClass, classify};
use crate::wire::stream::{FRAME_MAX, Next, PREFIX_LEN, next};

/// Octets that may wait for the peer: as many as a batch has when it is full of super-frames. The kernel doubles it for what its
/// buffers cost beside their octets.
const SEND_BUFFER: usize = crate::frame::BATCH_BYTES;

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer has closed it.
    Closed,
    /// The peer announced a frame of so many octets, which is none: where the next frame begins is not known any more.
    Absurd(u32),
    /// The kernel gave an error.
    Failed(Errno),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed the connection"),
            Self::Absurd(len) => {
                write!(f, "it announced a frame of {len} octets; at most {FRAME_MAX} can be meant")
            }
            Self::Failed(errno) => write!(f, "the connection failed: {}", io::Error::from(*errno)),
        }
    }
}

/// What became of frames that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All left.
    All,
    /// So many left, which have so many octets with their lengths; there was no room for the others.
    Some { frames: u64, octets: usize },
    /// There is no peer any more.
    Ended,
}

/// A stream to one peer. Closed when the last handle on it is dropped.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    /// The end of a frame of which the kernel took only the beginning. Nothing may be written before it.
    rest: Mutex<Vec<u8>>,
    /// Whether there is one; to be asked without the lock.
    has_rest: AtomicBool,
    ended: OnceLock<Ended>,
}

impl Connection {
    /// A connection over a stream socket.
    ///
    /// # Errors
    /// Where it cannot be made non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Arc<Self>> {
        ioctl_fionbio(&fd, true)?;
        // Beyond the limit of net.core.wmem_max where we may, else up to it: less only means that drops begin earlier.
        if sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
        }
        Ok(Arc::new(Self {
            fd,
            rest: Mutex::new(Vec::with_capacity(PREFIX_LEN + FRAME_MAX)),
            has_rest: AtomicBool::new(false),
            ended: OnceLock::new(),
        }))
    }

    /// Why it has ended; `None` as long as it stands.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.get().copied()
    }

    /// Whether only the beginning of a frame has left so far.
    pub fn has_rest(&self) -> bool {
        self.has_rest.load(Relaxed)
    }

    /// Writes the rest of a frame of which only the beginning has left, as far as there is room now. To be called when nothing else
    /// is written for a while: whatever is written does the same first.
    pub fn finish_frame(&self) {
        if self.has_rest() {
            self.write_rest(&mut self.lock());
        }
    }

    /// Says why it has ended. The first reason stays.
    pub(super) fn end(&self, reason: Ended) {
        let _ = self.ended.set(reason);
    }

    /// Writes whole frames, each with its length in front. Where the kernel takes only the beginning of one, that one has left, and
    /// its end is kept.
    pub(super) fn write(&self, frames: &[u8]) -> Written {
        let mut rest = self.lock();
        if self.ended.get().is_some() {
            return Written::Ended;
        }
        if !self.write_rest(&mut rest) {
            return if self.ended.get().is_some() { Written::Ended } else { NONE };
        }
        match self.send(frames) {
            Ok(n) if n == frames.len() => Written::All,
            Ok(n) => {
                let (mut count, mut end) = (0, 0);
                while end < n
                    && let Next::Frame(frame) = next(&frames[end..])
                {
                    end += PREFIX_LEN + frame.len();
                    count += 1;
                }
                rest.extend_from_slice(frames.get(n..end).unwrap_or_default());
                self.has_rest.store(!rest.is_empty(), Relaxed);
                Written::Some { frames: count, octets: end }
            }
            Err(None) => NONE,
            Err(Some(reason)) => {
                self.end(reason);
                Written::Ended
            }
        }
    }

    /// Writes what is left of a frame; whether nothing is left of it.
    fn write_rest(&self, rest: &mut Vec<u8>) -> bool {
        if rest.is_empty() {
            return true;
        }
        match self.send(rest) {
            Ok(n) => drop(rest.drain(..n)),
            Err(None) => {}
            Err(Some(reason)) => self.end(reason),
        }
        self.has_rest.store(!rest.is_empty(), Relaxed);
        rest.is_empty()
    }

    /// One system call. The error is why the connection has ended, or `None` where there is no room.
    fn send(&self, octets: &[u8]) -> Result<usize, Option<Ended>> {
        send(&self.fd, octets, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map_err(|errno| {
            match (errno, classify(errno)) {
                (_, ErrnoClass::TryAgain | ErrnoClass::Transient) => None,
                (Errno::PIPE | Errno::CONNRESET, _) => Some(Ended::Closed),
                _ => Some(Ended::Failed(errno)),
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No room for any.
const NONE: Written = Written::Some { frames: 0, octets: 0 };

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
