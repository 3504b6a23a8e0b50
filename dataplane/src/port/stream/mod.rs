//! `stream` ports: frames over a connected Unix socket, as QEMU's `-netdev stream` and passt speak it.
//!
//! Owns the connection to one peer and the framing of both directions. Never decides when to connect: the control thread does, and
//! hands the queue of each new connection to the workers.
//!
//! - A connection has one descriptor, so one worker receives. All send: each gathers its frames, and a short lock keeps their
//!   frames whole (see `outgoing`).
//! - A frame that is too short or too long for the switch is dropped, by name, and the stream goes on: a guest can make its monitor
//!   write one. A length that no monitor can have meant ends the connection, since where the next frame begins is not known any more.
//! - There is no virtio header: frames are whole, with finished checksums, in both directions ([`Caps::NONE`](crate::frame::Caps)).

mod connection;
mod listener;
mod outgoing;
mod staging;

use std::{
    cell::RefCell,
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustix::io::Errno;

pub use connection::{Connection, Ended};
pub use listener::{Listener, connect};
use outgoing::Outgoing;
pub use staging::Staging;

use super::{ErrnoClass, Outcome, Received, SendResult, classify};
use crate::{
    counters::{DropReason, PortCounters},
    frame::{Batch, MAX_FRAME, Offload},
    wire::{ethernet, stream::Next},
};

/// A handle on a connection. It belongs to one worker at a time.
#[derive(Debug)]
pub struct StreamQueue {
    connection: Arc<Connection>,
    /// What has been received; of the handle that receives, and made when it first does.
    staging: Option<Staging>,
    outgoing: RefCell<Outgoing>,
}

impl StreamQueue {
    /// A handle on a connection. One alone may receive by it.
    pub fn new(connection: Arc<Connection>) -> Self {
        Self { connection, staging: None, outgoing: RefCell::default() }
    }

    /// Another handle, for a worker that only sends.
    #[must_use]
    pub fn share(&self) -> Self {
        Self::new(Arc::clone(&self.connection))
    }

    /// Reads frames into the batch until none waits or the batch is full. Every frame is counted; those that the switch cannot
    /// carry are dropped here, by their name.
    pub fn recv(&mut self, batch: &mut Batch, counters: &PortCounters) -> Received {
        let connection = &*self.connection;
        connection.finish_frame();
        let staging = self.staging.get_or_insert_default();
        let (mut frames, mut octets) = (0, 0);
        let end = loop {
            if batch.is_full() {
                break Received::Full;
            }
            match staging.take() {
                Next::Frame(frame) => {
                    frames += 1;
                    octets += frame.len() as u64;
                    take_in(frame, batch, counters);
                }
                Next::Incomplete => match rustix::io::read(connection, staging.vacant()) {
                    Ok(0) => break over(connection, Ended::Closed, Errno::PIPE),
                    Ok(len) => staging.filled(len),
                    Err(errno) => match classify(errno) {
                        ErrnoClass::TryAgain => break Received::Drained,
                        ErrnoClass::Transient => break Received::Full,
                        _ if errno == Errno::CONNRESET => break over(connection, Ended::Closed, errno),
                        _ => break over(connection, Ended::Failed(errno), errno),
                    },
                },
                Next::Absurd(len) => break over(connection, Ended::Absurd(len), Errno::PROTO),
            }
        };
        if frames > 0 {
            counters.rx_frames.add(frames);
            counters.rx_bytes.add(octets);
        }
        end
    }

    /// Takes a frame, given in parts. It leaves with the next [`flush`](Self::flush) at the latest, and is counted there.
    #[inline]
    pub fn hold(&self, parts: &[IoSlice<'_>]) -> SendResult {
        let len = parts.iter().map(|part| part.len()).sum();
        self.outgoing.borrow_mut().hold(len, parts.iter().map(|part| &**part), &self.connection);
        SendResult::Held
    }

    /// Writes the frames that are held, and counts them: those for which the peer leaves no room are dropped. Never waits.
    pub fn flush(&self, counters: &PortCounters) -> Outcome {
        match self.outgoing.borrow_mut().flush(&self.connection, counters) {
            true => Outcome::Done,
            false => Outcome::Gone,
        }
    }
}

#[cold]
fn over(connection: &Connection, reason: Ended, errno: Errno) -> Received {
    connection.end(reason);
    Received::Gone(errno)
}

/// Takes a frame into a batch that has room, if the switch can carry it.
#[inline]
fn take_in(frame: &[u8], batch: &mut Batch, counters: &PortCounters) {
    if frame.len() < ethernet::HEADER_LEN {
        counters.drop(DropReason::Runt);
    } else if frame.len() > MAX_FRAME {
        counters.drop(DropReason::Giant);
    } else {
        batch.vacant(0)[..frame.len()].copy_from_slice(frame);
        batch.push(frame.len(), Offload::NONE);
    }
}

impl AsFd for StreamQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
