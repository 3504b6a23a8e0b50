//! A batch of frames in one arena.

use std::ops::Range;

use super::Offload;
use crate::index::RemoteIdx;

/// The most frames in a batch. 64 frames of 2 KiB stay in the L2 cache; more gain nothing (bench `forward/batch`).
pub const BATCH: usize = 64;
const _: () = assert!(BATCH == u64::BITS as usize, "`Batch::retain` has a bit for each");
/// A receive stops filling a batch at this many octets: 32 super-frames, measured with one and four TCP streams against 1, 4, 16 and 64.
pub const BATCH_BYTES: usize = 2 << 20;
/// Octets kept free before each frame: room for a virtio header in front of it.
pub const HEADROOM: usize = 64;
/// The longest frame: a 65,535-octet IP packet, Ethernet header and two tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;
/// An odd number of cache lines, so that the first octets of all slots do not fall into one cache set.
const SLOT: usize = 1059 * 64;
const _: () = assert!(SLOT > HEADROOM + MAX_FRAME);
/// The most octets of a frame that the switch makes itself: an ICMPv6 error of 1280 octets (RFC 4443 §2.4 c) with its Ethernet header and tags.
pub const MAX_REPLY: usize = 1280 + 14 + 16;
/// As [`SLOT`], for a frame that the switch makes itself.
const REPLY_SLOT: usize = 23 * 64;
const _: () = assert!(REPLY_SLOT > HEADROOM + MAX_REPLY);
/// Where the frames that the switch makes begin.
const REPLIES_AT: usize = BATCH * SLOT;
/// The most frames that the switch makes while it handles one batch: one for each frame of it.
pub const REPLIES: usize = BATCH;

/// The bounds and the offload state of one frame of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// Where it begins in the batch's memory.
    at: u32,
    /// Octets from the destination address on.
    pub len: u32,
    /// What is still to be done to it.
    pub offload: Offload,
    /// The endpoint that sent it, where it came through a tunnel.
    pub remote: Option<RemoteIdx>,
    /// Octets in front of it that hold nothing anybody needs.
    headroom: u8,
}

impl Frame {
    /// Where it begins, and where it ends, in the batch's memory.
    #[inline]
    pub const fn range(&self) -> Range<usize> {
        self.at as usize..(self.at + self.len) as usize
    }
}

/// Up to [`BATCH`] frames that came from one port, and the frames that the switch made in answer to them.
///
/// Frames are numbered by slots: from 0 those that came, from [`BATCH`] those that were made.
/// A frame of a port lies in the memory of its slot, behind headroom. A frame out of a tunnel lies where its datagram was received,
/// wherever that is: several frames share a slot where one receive brought several datagrams.
#[derive(Debug)]
pub struct Batch {
    memory: Box<[u8]>,
    frames: [Frame; BATCH + REPLIES],
    len: usize,
    replies: usize,
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
            memory: vec![0; REPLIES_AT + REPLIES * REPLY_SLOT].into_boxed_slice(),
            frames: [Frame::default(); BATCH + REPLIES],
            len: 0,
            replies: 0,
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
        self.replies = 0;
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
        self.memory[start..REPLIES_AT]
            .chunks_exact_mut(SLOT)
            .take(count)
            .map(move |s| &mut s[HEADROOM - before..])
    }

    /// Takes the frame of `len` octets in the next free slot into the batch.
    #[inline]
    pub fn push(&mut self, len: usize, offload: Offload) {
        assert!(len <= SLOT - HEADROOM);
        let at = Self::slot_at(self.len) as u32;
        self.frames[self.len] =
            Frame { at, len: len as u32, offload, remote: None, headroom: HEADROOM as u8 };
        self.len += 1;
        self.bytes += len;
    }

    /// As [`push`](Self::push), for a frame that begins `before` octets earlier: what was put into it after it was received grew into
    /// its headroom.
    ///
    /// # Panics
    /// Where `before` exceeds [`HEADROOM`].
    #[inline]
    pub fn push_grown(&mut self, before: usize, len: usize, offload: Offload) {
        assert!(before <= HEADROOM && len <= SLOT - HEADROOM + before);
        let (at, headroom) = (Self::slot_at(self.len) - before, HEADROOM - before);
        self.frames[self.len] =
            Frame { at: at as u32, len: len as u32, offload, remote: None, headroom: headroom as u8 };
        self.len += 1;
        self.bytes += len;
    }

    /// Where the octets of slot `n`, behind its headroom, begin in the memory.
    #[inline]
    pub const fn slot_at(n: usize) -> usize {
        n * SLOT + HEADROOM
    }

    /// Where the memory of the slot in which `at` lies ends: how far a frame there can grow.
    #[inline]
    pub const fn slot_end(at: usize) -> usize {
        (at / SLOT + 1) * SLOT
    }

    /// Takes a frame into the batch that lies in the memory already, out of a tunnel from `remote`.
    ///
    /// # Panics
    /// Where there are [`BATCH`] frames.
    #[inline]
    pub fn push_at(&mut self, range: Range<usize>, offload: Offload, remote: Option<RemoteIdx>) {
        debug_assert!(range.end <= REPLIES_AT);
        self.frames[..BATCH][self.len] =
            Frame { at: range.start as u32, len: range.len() as u32, offload, remote, headroom: 0 };
        self.len += 1;
        self.bytes += range.len();
    }

    /// All memory of the batch: what the ranges of frames and datagrams are ranges of.
    #[inline]
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// All memory of the batch, to be changed.
    #[inline]
    pub fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Gives the last frame other bounds, for a frame that grew by its successor or lost octets.
    #[inline]
    pub fn resize(&mut self, n: usize, len: usize) {
        self.frames[n].len = len as u32;
    }

    /// Moves the octets at `from` directly behind frame `n`, which grows by them. What stood there is lost.
    ///
    /// # Panics
    /// Where they do not fit into the memory.
    #[inline]
    pub fn extend(&mut self, n: usize, from: Range<usize>) {
        let frame = &mut self.frames[n];
        let end = frame.range().end;
        frame.len += from.len() as u32;
        self.memory.copy_within(from, end);
    }

    /// Forgets every frame that came and whose bit in `keep` is not set. The others move up, in their order.
    #[inline]
    pub fn retain(&mut self, keep: u64) {
        let mut kept = 0;
        for n in 0..self.len {
            if keep >> n & 1 == 1 {
                self.frames[kept] = self.frames[n];
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Forgets all frames from number `len` on.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The octets of frame `n`, and the memory for a frame that answers it.
    #[inline]
    pub fn answering(&mut self, n: usize) -> (&[u8], &mut [u8]) {
        let start = REPLIES_AT + self.replies.min(REPLIES - 1) * REPLY_SLOT + HEADROOM;
        let range = self.frames[n].range();
        let (received, made) = self.memory.split_at_mut(start);
        (&received[range], &mut made[..MAX_REPLY])
    }

    /// Takes the `len` octets that were written to the memory for an answer into the batch; says in which slot they are.
    /// `None` where there are [`REPLIES`] answers.
    #[inline]
    pub fn push_reply(&mut self, len: usize) -> Option<u8> {
        if self.replies == REPLIES || len > MAX_REPLY {
            return None;
        }
        let slot = BATCH + self.replies;
        let at = (REPLIES_AT + self.replies * REPLY_SLOT + HEADROOM) as u32;
        self.frames[slot] =
            Frame { at, len: len as u32, offload: Offload::NONE, remote: None, headroom: HEADROOM as u8 };
        self.replies += 1;
        Some(slot as u8)
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
        &self.frames[n]
    }

    /// The notes on frame `n`, to be changed.
    #[inline]
    pub fn frame_mut(&mut self, n: usize) -> &mut Frame {
        &mut self.frames[n]
    }

    /// The octets of frame `n`.
    #[inline]
    pub fn bytes(&self, n: usize) -> &[u8] {
        &self.memory[self.frames[n].range()]
    }

    /// The octets of frame `n`, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self, n: usize) -> &mut [u8] {
        &mut self.memory[self.frames[n].range()]
    }

    /// Whether there is room for `before` octets in front of frame `n`.
    #[inline]
    pub fn has_headroom(&self, n: usize, before: usize) -> bool {
        usize::from(self.frames[n].headroom) >= before
    }

    /// Frame `n` with the `before` octets of headroom in front of it.
    #[inline]
    pub fn bytes_with(&self, n: usize, before: usize) -> &[u8] {
        let range = self.frames[n].range();
        &self.memory[range.start - before..range.end]
    }

    /// The `before` octets in front of frame `n`, to be changed.
    ///
    /// # Panics
    /// Where it [has not so many](Self::has_headroom): what stands there belongs to another frame.
    #[inline]
    pub fn headroom_mut(&mut self, n: usize, before: usize) -> &mut [u8] {
        assert!(self.has_headroom(n, before));
        let start = self.frames[n].at as usize;
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
