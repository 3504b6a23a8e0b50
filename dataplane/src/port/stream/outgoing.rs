//! Frames on their way into a stream, gathered so that many leave by one system call.
//!
//! Each handle on a connection gathers its own, without a lock. What is shared is the end of a frame of which the kernel took only
//! the beginning: it must be the next that is written, by whichever worker, or nobody understands the rest of the stream. So
//! a lock is held around each write, which does not wait, and is the one lock on the packet path: one stream takes one writer
//! at a time whatever we do, and ports of other kinds know nothing of it.
//!
//! There is no queue here. A socket has one, whose length is set when the connection is made; when it is full, frames are dropped
//! and counted, as a TAP's are.

use super::connection::{Connection, Written};
use crate::{
    counters::{DropReason, PortCounters},
    wire::stream::{FRAME_MAX, PREFIX_LEN, prefix},
};

/// Octets that are gathered before they are written: what the kernel puts into one buffer (`UNIX_SKB_FRAGS_SZ` in net/unix/af_unix.c),
/// and takes whole or not at all. A longer frame is written alone, and may be cut in two.
const GATHER: usize = 32 << 10;

/// What one handle has gathered, and what became of what it has written.
#[derive(Debug)]
pub(super) struct Outgoing {
    gathered: Vec<u8>,
    frames: u64,
    sent: u64,
    sent_bytes: u64,
    full: u64,
    lost: u64,
}

impl Default for Outgoing {
    fn default() -> Self {
        let gathered = Vec::with_capacity(PREFIX_LEN + FRAME_MAX);
        Self { gathered, frames: 0, sent: 0, sent_bytes: 0, full: 0, lost: 0 }
    }
}

impl Outgoing {
    /// Takes a frame of `len` octets, given in parts; writes what was gathered before where there is no room beside it.
    #[inline]
    pub(super) fn hold<'a>(
        &mut self,
        len: usize,
        parts: impl Iterator<Item = &'a [u8]>,
        connection: &Connection,
    ) {
        if !self.gathered.is_empty() && self.gathered.len() + PREFIX_LEN + len > GATHER {
            self.write(connection);
        }
        self.gathered.extend_from_slice(&prefix(len));
        parts.for_each(|part| self.gathered.extend_from_slice(part));
        self.frames += 1;
    }

    /// Writes what was gathered, and notes what became of it.
    pub(super) fn write(&mut self, connection: &Connection) {
        if self.frames == 0 {
            return;
        }
        let frames = std::mem::take(&mut self.frames);
        let octets = self.gathered.len() as u64;
        match connection.write(&self.gathered) {
            Written::All => {
                self.sent += frames;
                self.sent_bytes += octets - frames * PREFIX_LEN as u64;
            }
            Written::Some { frames: sent, octets } => {
                self.sent += sent;
                self.sent_bytes += octets as u64 - sent * PREFIX_LEN as u64;
                self.full += frames - sent;
            }
            Written::Ended => self.lost += frames,
        }
        self.gathered.clear();
    }

    /// Writes what was gathered and counts all since the last time; whether the connection still stands.
    pub(super) fn flush(&mut self, connection: &Connection, counters: &PortCounters) -> bool {
        self.write(connection);
        counters.tx_frames.add(std::mem::take(&mut self.sent));
        counters.tx_bytes.add(std::mem::take(&mut self.sent_bytes));
        for (reason, n) in [
            (DropReason::EgressFull, std::mem::take(&mut self.full)),
            (DropReason::EgressDown, std::mem::take(&mut self.lost)),
        ] {
            if n > 0 {
                counters.drop_many(reason, n);
            }
        }
        connection.ended().is_none()
    }
}
