//! Where the frames of a batch lie in its memory, and so how far one can grow.

use crate::frame::{BATCH, Batch};

/// Where the frames of a batch lie, as far as they are still there.
#[derive(Debug)]
pub(super) struct Places {
    /// The frames in the order of their octets in the memory.
    order: [u8; BATCH],
    /// The place of each frame in that order.
    rank: [u8; BATCH],
    /// A bit for each place whose frame is still there.
    live: u64,
}

impl Places {
    pub(super) fn new(batch: &Batch) -> Self {
        /// The order of frames that lie in the memory in the order in which they are in the batch, as they nearly always do.
        const SORTED: [u8; BATCH] = {
            let mut order = [0; BATCH];
            let mut n = 0;
            while n < BATCH {
                order[n] = n as u8;
                n += 1;
            }
            order
        };
        let start = |n: usize| batch.frame(n).range().start;
        let live = !0 >> (BATCH - batch.len()).min(BATCH - 1);
        if (1..batch.len()).all(|n| start(n - 1) <= start(n)) {
            return Self { order: SORTED, rank: SORTED, live };
        }
        let (mut order, mut rank) = (SORTED, SORTED);
        order[..batch.len()].sort_unstable_by_key(|&n| start(n.into()));
        for (place, &n) in order.iter().enumerate() {
            rank[usize::from(n)] = place as u8;
        }
        Self { order, rank, live }
    }

    /// Where the octets end that frame `n` can grow over when it takes in frame `taken`.
    #[inline]
    pub(super) fn room_end(&self, batch: &Batch, n: usize, taken: usize) -> usize {
        let behind = !1 << self.rank[n];
        let next = self.live & behind & !(1 << self.rank[taken]);
        let slot_end = Batch::slot_end(batch.frame(n).range().start);
        match self.order.get(next.trailing_zeros() as usize) {
            Some(&next) => slot_end.min(batch.frame(usize::from(next)).range().start),
            None => slot_end,
        }
    }

    /// Frame `n` was taken in.
    #[inline]
    pub(super) fn remove(&mut self, n: usize) {
        self.live &= !(1 << self.rank[n]);
    }
}
