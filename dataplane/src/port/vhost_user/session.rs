//! A connection with a front end: which messages are complete, and what their end is.
//!
//! The crate reads a message with calls that wait. Here it is asked to only when the whole message is there, which the header says and
//! the kernel counts (`SIOCINQ`): a front end that sends half of one holds up nobody. The timeouts of the socket are for what remains,
//! a front end that takes no answers.

use std::{
    fmt, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    io::{Errno, ioctl_fionread},
    net::{RecvFlags, recv},
};
use vhost::vhost_user::{BackendReqHandler, Error};

use super::{Change, device::Device, queue::VhostQueue};
use crate::frame::Caps;

/// How long the socket may hold up the control thread.
const PATIENCE: Duration = Duration::from_millis(100);
/// Messages that are answered before others have their turn; a whole set-up is some thirty.
const MESSAGES: usize = 64;
/// Octets of a message's header: request, flags, size.
const HEADER: usize = 12;
/// The longest message that the crate takes (`MAX_MSG_SIZE`).
const MESSAGE_MAX: u32 = 0x1000;

/// How a connection has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The front end has closed it.
    Left,
    /// A message made no sense, or could not be answered.
    Error(Error),
}

/// A connection.
pub(super) struct Session {
    handler: BackendReqHandler<Mutex<Device>>,
    /// Another handle on the socket, to look into it.
    stream: UnixStream,
    device: Arc<Mutex<Device>>,
    /// What the pairs are made for that are out.
    out: Vec<(u64, u64)>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn begin(stream: UnixStream, pairs: u16, offload: bool) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let device = Arc::new(Mutex::new(Device::new(pairs, offload)));
        let handler = BackendReqHandler::from_stream(stream.try_clone()?, Arc::clone(&device));
        Ok(Self { handler, stream, device, out: Vec::new() })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Answers the messages that are there.
    pub(super) fn serve(&mut self) -> Result<Change, Ended> {
        for _ in 0..MESSAGES {
            match self.next_is_complete() {
                Ok(true) => self.handler.handle_request().map_err(Ended::from)?,
                Ok(false) => break,
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(Ended::Left),
                Err(errno) => return Err(Ended::Error(Error::SocketError(errno.into()))),
            }
        }
        let mut device = self.device();
        device.report_faults();
        let out: Vec<_> = device.queues().iter().map(VhostQueue::deal).collect();
        drop(device);
        let same = out == self.out;
        self.out = out;
        Ok(if same { Change::None } else { Change::Queues })
    }

    /// Whether a whole message waits, or something that is none: the crate says what is wrong with that.
    fn next_is_complete(&self) -> Result<bool, Errno> {
        let mut header = [0; HEADER];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let there = match recv(&self.stream, &mut header[..], peek) {
            Ok((0, _)) => return Err(Errno::CONNRESET),
            Ok((there, _)) => there,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        if there < HEADER {
            return Ok(false);
        }
        let [.., a, b, c, d] = header;
        let size = u32::from_ne_bytes([a, b, c, d]);
        Ok(size > MESSAGE_MAX || ioctl_fionread(&self.stream)? >= HEADER as u64 + u64::from(size))
    }

    pub(super) fn queues(&self) -> Vec<VhostQueue> {
        self.device().queues()
    }

    pub(super) fn caps(&self) -> Caps {
        self.device().caps()
    }

    pub(super) fn health(&self) -> Result<(), String> {
        let device = self.device();
        if let Some((ring, fault)) = device.fault() {
            let what = if ring.is_multiple_of(2) { "receive" } else { "transmit" };
            return Err(format!("{what} ring {} of the guest: {fault}", ring / 2));
        }
        if self.out.is_empty() {
            return Err("the guest's driver has not started its rings".to_owned());
        }
        Ok(())
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::Disconnected => Self::Left,
            error => Self::Error(error),
        }
    }
}
