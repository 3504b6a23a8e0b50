//! A batch of frames in one arena.

use super::Offload;

/// The most frames in a batch. 64 frames of 2 KiB stay in the L2 cache; more gain nothing (bench `forward/batch`).
pub const BATCH: usize = 64;
/// A receive stops filling a batch at this many octets: 32 super-frames, measured with one and four TCP streams against 1, 4, 16 and 64.
pub const BATCH_BYTES: usize = 2 << 20;
/// Octets kept free before each frame: room for a virtio header in front of it.
pub const HEADROOM: usize = 64;
/// The longest frame: a 65,535-octet IP packet, Ethernet header and two tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;
/// An odd number of cache lines, so that the first octets of all slots do not fall into one cache set.
const SLOT: usize = 1059 * 64;
const _: () = assert!(SLOT > HEADROOM + MAX_FRAME);

/// The bounds and the offload state of one frame of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// Octets from the destination address on.
    pub len: u32,
    /// What is still to be done to it.
    pub offload: Offload,
}

/// Up to [`BATCH`] frames that came from one port.
#[derive(Debug)]
pub struct Batch {
    memory: Box<[u8]>,
    frames: [Frame; BATCH],
    len: usize,
    bytes: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty batch. The only allocation it ever makes; pages are touched when frames first use them.
    pub fn new() -> Self {
        Self {
            memory: vec![0; BATCH * SLOT].into_boxed_slice(),
            frames: [Frame::default(); BATCH],
            len: 0,
            bytes: 0,
        }
    }

    /// Frames in the batch.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a receive should stop here: [`BATCH`] frames, or [`BATCH_BYTES`] octets.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == BATCH || self.bytes >= BATCH_BYTES
    }

    /// Octets that a receive should still put into it.
    #[inline]
    pub fn room(&self) -> usize {
        BATCH_BYTES.saturating_sub(self.bytes)
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
        self.bytes = 0;
    }

    /// The next free slot's memory, `before` octets of headroom included: where a receive puts
    /// a header of `before` octets and the frame behind it.
    ///
    /// # Panics
    /// Where the batch [is full](Self::is_full), or `before` exceeds [`HEADROOM`].
    #[inline]
    pub fn vacant(&mut self, before: usize) -> &mut [u8] {
        Self::slot(&mut self.memory, self.len, before)
    }

    #[inline]
    fn slot(memory: &mut [u8], n: usize, before: usize) -> &mut [u8] {
        assert!(n < BATCH && before <= HEADROOM);
        &mut memory[n * SLOT + HEADROOM - before..(n + 1) * SLOT]
    }

    /// The memory of the `count` slots after the last frame, each with `before` octets of headroom: for a receive of several at once.
    #[inline]
    pub fn vacancies(&mut self, before: usize, count: usize) -> impl Iterator<Item = &mut [u8]> {
        assert!(before <= HEADROOM);
        let start = self.len * SLOT;
        self.memory[start..].chunks_exact_mut(SLOT).take(count).map(move |s| &mut s[HEADROOM - before..])
    }

    /// Takes the frame of `len` octets in the next free slot into the batch.
    #[inline]
    pub fn push(&mut self, len: usize, offload: Offload) {
        assert!(len <= SLOT - HEADROOM);
        self.frames[self.len] = Frame { len: len as u32, offload };
        self.len += 1;
        self.bytes += len;
    }

    /// Moves the first `len` octets of the slot `by` places behind the next free one into that one, `before` octets of headroom
    /// included: closes the gap where a receive of several at once left one.
    pub fn close_gap(&mut self, by: usize, before: usize, len: usize) {
        let to = self.len * SLOT + HEADROOM - before;
        let from = to + by * SLOT;
        self.memory.copy_within(from..from + len, to);
    }

    /// The notes on frame `n`.
    #[inline]
    pub fn frame(&self, n: usize) -> &Frame {
        &self.frames[..self.len][n]
    }

    /// The notes on frame `n`, to be changed.
    #[inline]
    pub fn frame_mut(&mut self, n: usize) -> &mut Frame {
        &mut self.frames[..self.len][n]
    }

    /// The octets of frame `n`.
    #[inline]
    pub fn bytes(&self, n: usize) -> &[u8] {
        let start = n * SLOT + HEADROOM;
        &self.memory[start..start + self.frame(n).len as usize]
    }

    /// The octets of frame `n`, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self, n: usize) -> &mut [u8] {
        let start = n * SLOT + HEADROOM;
        let end = start + self.frame(n).len as usize;
        &mut self.memory[start..end]
    }

    /// Frame `n` with the `before` octets of headroom in front of it.
    #[inline]
    pub fn bytes_with(&self, n: usize, before: usize) -> &[u8] {
        let start = n * SLOT + HEADROOM;
        &self.memory[start - before..start + self.frame(n).len as usize]
    }

    /// The `before` octets in front of frame `n`, to be changed.
    #[inline]
    pub fn headroom_mut(&mut self, n: usize, before: usize) -> &mut [u8] {
        let start = n * SLOT + HEADROOM;
        &mut self.memory[start - before..start]
    }

    /// Appends a frame with these octets, for tests and tracing; `false` where the batch is full or the frame too long.
    pub fn append(&mut self, frame: &[u8], offload: Offload) -> bool {
        if self.is_full() || frame.len() > MAX_FRAME {
            return false;
        }
        self.vacant(0)[..frame.len()].copy_from_slice(frame);
        self.push(frame.len(), offload);
        true
    }
}
