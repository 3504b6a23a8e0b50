//! What the control thread is to be told of for the sake of ports: descriptors that backends name, in a poll of the engine's own.
//!
//! That poll is one descriptor in the poll of whoever runs the engine, so neither knows the other's tokens.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use mio::{Events, Interest, Poll, Registry, Token, unix::SourceFd};

use crate::index::PortIdx;

/// Descriptors that became readable, taken note of in one look; more are seen in the next.
const EVENTS: usize = 256;

/// The descriptors of all ports.
#[derive(Debug)]
pub(super) struct Watch {
    poll: Poll,
    events: Events,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS) })
    }

    /// Makes a poll tell under `token` when one of the descriptors is readable.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.poll.as_raw_fd()), token, Interest::READABLE)
    }

    /// Watches these descriptors of a port from now on. One that is readable already is told of, too.
    pub(super) fn begin(&self, port: PortIdx, watched: &[BorrowedFd<'_>]) {
        for fd in watched {
            let token = Token(port.at());
            let registered =
                self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE);
            if let Err(error) = registered {
                // What is behind the port is still looked at each second.
                tracing::warn!(%error, "a descriptor of a port cannot be watched");
            }
        }
    }

    /// Watches these no more. To be called while they are open: one that is closed may have another handle, which would keep it here.
    pub(super) fn end(&self, watched: &[BorrowedFd<'_>]) {
        for fd in watched {
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }

    /// The ports of which a descriptor has become readable, each once.
    pub(super) fn readable(&mut self) -> Vec<PortIdx> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                tracing::error!(%error, "the descriptors of ports cannot be polled");
            }
            _ => {}
        }
        let mut ports: Vec<PortIdx> =
            self.events.iter().map(|event| PortIdx(event.token().0 as u16)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}
