//! Octets of a stream between the read that brought them and the batch that takes their frames.
//!
//! Does no I/O: whoever reads fills it, in pieces of any size. One read brings as many frames as fit, and each is copied once into
//! the slot of a batch, behind headroom: most leave the switch from there in one piece, which saves more than the copy costs.
//! A read is only made when less than one frame is staged, so what is moved to the front before it is shorter than a frame.

use std::fmt;

use crate::wire::stream::{FRAME_MAX, Next, PREFIX_LEN, next};

/// Room for the longest frame and as much behind it as QEMU writes before it looks at its guest again; stays in the L2 cache.
const ROOM: usize = 128 << 10;
const _: () = assert!(ROOM > PREFIX_LEN + FRAME_MAX);

/// Octets that have been received, up to the frame that is not yet complete.
pub struct Staging {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging").field("staged", &(self.end - self.start)).finish_non_exhaustive()
    }
}

impl Default for Staging {
    fn default() -> Self {
        Self { memory: vec![0; ROOM].into(), start: 0, end: 0 }
    }
}

impl Staging {
    /// Where the next octets of the stream belong. Never empty where [`take`](Self::take) has just said that no frame is complete.
    #[inline]
    pub fn vacant(&mut self) -> &mut [u8] {
        self.memory.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        &mut self.memory[self.end..]
    }

    /// The first `len` octets of what was [vacant](Self::vacant) have been filled.
    #[inline]
    pub fn filled(&mut self, len: usize) {
        self.end = (self.end + len).min(ROOM);
    }

    /// Takes the next frame, if all of it is here.
    #[inline]
    pub fn take(&mut self) -> Next<'_> {
        let next = next(&self.memory[self.start..self.end]);
        if let Next::Frame(frame) = next {
            self.start += PREFIX_LEN + frame.len();
        }
        next
    }
}
