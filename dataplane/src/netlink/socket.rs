//! One rtnetlink socket: request and acknowledgement, request and answer, dump.

use std::{fmt, io, os::fd::BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

use crate::sys::netns;

/// The dump was cut by a change in between and must be asked for again (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;
/// Attributes follow the echoed header of an acknowledgement (`NLM_F_ACK_TLVS`).
pub(super) const ACK_ATTRIBUTES: u16 = 0x200;
/// The attribute with the kernel's explanation (`NLMSGERR_ATTR_MSG`).
const ACK_MESSAGE: u16 = 1;
/// Octets of `struct nlmsghdr`, which an acknowledgement echoes before its attributes.
pub(super) const HEADER_LEN: usize = 16;
/// How often an interrupted dump is asked for again before giving up; each time some other program changed the same table.
const DUMP_ATTEMPTS: usize = 8;

/// The kernel refused, or answered what we do not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NetlinkError {
    /// What was to be done, as a verb: "set the MTU of".
    pub operation: &'static str,
    /// To what, as a noun: "interface eth0".
    pub object: String,
    /// The kernel's error number.
    pub errno: Errno,
    /// The kernel's own explanation, where it gave one.
    pub message: Option<String>,
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.object, io::Error::from(self.errno))?;
        match &self.message {
            Some(message) => write!(f, " ({message})"),
            None => Ok(()),
        }
    }
}

/// What a request is about, for the error that may come of it.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub(super) operation: &'static str,
    pub(super) object: &'a dyn fmt::Display,
}

impl Purpose<'_> {
    fn error(self, errno: Errno, message: Option<String>) -> NetlinkError {
        NetlinkError { operation: self.operation, object: self.object.to_string(), errno, message }
    }

    fn io(self, error: &io::Error) -> NetlinkError {
        self.error(Errno::from_io_error(error).unwrap_or(Errno::IO), None)
    }

    fn decode(self, why: impl fmt::Display) -> NetlinkError {
        self.error(Errno::BADMSG, Some(format!("the kernel's answer is not understood: {why}")))
    }
}

/// An rtnetlink socket in one namespace.
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Socket {
    /// A socket in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        inner.bind_auto()?;
        inner.connect(&SocketAddr::new(0, 0))?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?; // refusals echo the header alone, so that the attributes stand at a fixed place
        inner.set_netlink_get_strict_chk(true)?; // dumps honour the index they are asked for
        Ok(Self { inner, sequence: 0 })
    }

    /// A socket in another namespace. It stays there wherever it is used.
    pub fn open_in(netns: BorrowedFd<'_>) -> io::Result<Self> {
        netns::within(netns, Self::open)?
    }

    /// Sends a request that changes something, and waits for the acknowledgement.
    pub(super) fn change(
        &mut self,
        purpose: Purpose<'_>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.send(purpose, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(purpose, |_| {}).map(drop)
    }

    /// Sends a question with one answer.
    pub(super) fn ask(
        &mut self,
        purpose: Purpose<'_>,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        self.send(purpose, message, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut answer = None;
        self.receive(purpose, |message| answer = Some(message))?;
        Ok(answer)
    }

    /// Sends a question with any number of answers.
    pub(super) fn dump(
        &mut self,
        purpose: Purpose<'_>,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(purpose, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut answers = Vec::new();
            if self.receive(purpose, |message| answers.push(message))? {
                return Ok(answers);
            }
        }
        Err(purpose.error(Errno::INTR, Some("the table changed during every attempt to read it".to_owned())))
    }

    fn send(
        &mut self,
        purpose: Purpose<'_>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.inner.send(&bytes, 0).map(drop).map_err(|e| purpose.io(&e))
    }

    /// Hands every answer to `take` until the acknowledgement or the end of the dump.
    /// `false` where the dump was interrupted, so that what was taken is not to be trusted.
    fn receive(
        &mut self,
        purpose: Purpose<'_>,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, NetlinkError> {
        let mut whole = true;
        loop {
            let (datagram, _) = self.inner.recv_from_full().map_err(|e| purpose.io(&e))?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| purpose.decode(e))?;
                let aligned = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(aligned.max(HEADER_LEN)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue; // of an earlier request that ended with an error
                }
                whole &= message.header.flags & DUMP_INTERRUPTED == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => take(answer),
                    NetlinkPayload::Done(done) if done.code == 0 => return Ok(whole),
                    NetlinkPayload::Done(done) => {
                        let errno = Errno::from_raw_os_error(done.code.saturating_neg());
                        return Err(purpose.error(errno, explanation(&done.extended_ack)));
                    }
                    NetlinkPayload::Error(error) => {
                        let Some(code) = error.code else { return Ok(whole) };
                        let attributes = match message.header.flags & ACK_ATTRIBUTES {
                            0 => None,
                            _ => error.header.get(HEADER_LEN..),
                        };
                        let errno = Errno::from_raw_os_error(code.get().saturating_neg());
                        return Err(purpose.error(errno, attributes.and_then(explanation)));
                    }
                    NetlinkPayload::Overrun(_) => return Err(purpose.error(Errno::NOBUFS, None)),
                    _ => {}
                }
            }
        }
    }
}

/// The text among the attributes of a refusal.
pub(super) fn explanation(attributes: &[u8]) -> Option<String> {
    let message = NlasIterator::new(attributes).flatten().find(|a| a.kind() == ACK_MESSAGE)?;
    let text = message.value();
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    Some(String::from_utf8_lossy(text).into_owned())
}
