//! A connection with a front end: which messages are complete, and what their end is.
//!
//! The crate reads a message with calls that wait. Here it is asked to only when the whole message is there, which the header says and
//! the kernel counts (`SIOCINQ`): a front end that sends half of one holds up nobody. The timeouts of the socket are for what remains,
//! a front end that takes no answers.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
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
use vhost::vhost_user::{BackendReqHandler, Error, VhostUserBackendReqHandlerMut as _, message::FrontendReq};

use super::{Change, device::Device, queue::VhostQueue};
use crate::frame::Caps;

/// How long the socket may hold up the control thread.
const PATIENCE: Duration = Duration::from_millis(100);
/// Messages that are answered before others have their turn; a whole set-up is some thirty.
const MESSAGES: usize = 64;
/// Octets of a message's header: request, flags, size.
const HEADER: usize = 12;
/// Octets behind the header of `SET_VRING_ENABLE`: which ring, and whether.
const ENABLE_BODY: usize = 8;
/// The longest message that the crate takes (`MAX_MSG_SIZE`).
const MESSAGE_MAX: u32 = 0x1000;
/// In a header's flags: the version of the protocol, that the message is an answer, and that it wants one ("Header").
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

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
            match self.next() {
                Ok(Next::Nothing) => break,
                Ok(Next::Enable) => self.enable().map_err(Ended::from)?,
                Ok(Next::Message) => self.handler.handle_request().map_err(Ended::from)?,
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

    /// What waits. Something that is no message is the crate's: it says what is wrong with it.
    fn next(&self) -> Result<Next, Errno> {
        let mut header = [0; HEADER];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let there = match recv(&self.stream, &mut header[..], peek) {
            Ok((0, _)) => return Err(Errno::CONNRESET),
            Ok((there, _)) => there,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Next::Nothing),
            Err(errno) => return Err(errno),
        };
        if there < HEADER {
            return Ok(Next::Nothing);
        }
        let [request, _, size] = words(&header);
        if size <= MESSAGE_MAX && ioctl_fionread(&self.stream)? < HEADER as u64 + u64::from(size) {
            return Ok(Next::Nothing);
        }
        let enable = request == FrontendReq::SET_VRING_ENABLE as u32 && size == ENABLE_BODY as u32;
        Ok(if enable { Next::Enable } else { Next::Message })
    }

    /// Answers `SET_VRING_ENABLE`. The crate refuses it to a front end that has not accepted `VHOST_USER_F_PROTOCOL_FEATURES` together
    /// with the virtio features, as the protocol says; QEMU's network device sends it all the same (7.2 and others: it loses the bit
    /// in `vhost_net_init`), and every other back end takes it.
    fn enable(&mut self) -> Result<(), Error> {
        let mut message = [0; HEADER + ENABLE_BODY];
        self.stream.read_exact(&mut message).map_err(Error::SocketError)?;
        let [request, flags, _, index, enable] = words(&message);
        if flags & !NEED_REPLY != VERSION || enable > 1 {
            return Err(Error::InvalidMessage);
        }
        let mut device = self.device();
        let result = device.set_vring_enable(index, enable == 1);
        let answers = flags & NEED_REPLY != 0 && device.answers();
        drop(device);
        if answers {
            let header = [request, VERSION | REPLY, size_of::<u64>() as u32];
            let body = u64::from(result.is_err());
            let header = header.iter().flat_map(|word| word.to_ne_bytes());
            let answer: Vec<u8> = header.chain(body.to_ne_bytes()).collect();
            self.stream.write_all(&answer).map_err(Error::SocketError)?;
        }
        result
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

/// What waits on a connection.
enum Next {
    /// Nothing, or less than a message.
    Nothing,
    /// A message that the crate takes.
    Message,
    /// `SET_VRING_ENABLE`.
    Enable,
}

/// The words of 32 bits that a message begins with.
fn words<const N: usize>(octets: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, octets) in words.iter_mut().zip(octets.as_chunks().0) {
        *word = u32::from_ne_bytes(*octets);
    }
    words
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::Disconnected => Self::Left,
            error => Self::Error(error),
        }
    }
}
