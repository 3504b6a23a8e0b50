//! What leaves where: the result of the packet path.

use crate::{bridge::Rewrite, frame::BATCH, index::PortIdx, overlay::Hop};

/// One frame of a batch on its way out of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxFrame {
    /// The frame's place in the batch.
    pub slot: u8,
    /// It leaves as segments, since the egress does not take the super-frame.
    pub split: bool,
    /// The egress.
    pub port: PortIdx,
    /// What happens to its outermost tag.
    pub rewrite: Rewrite,
    /// Through which tunnel it leaves, where the egress is one.
    pub hop: Option<Hop>,
}

/// What leaves where, in the order of the batch; all copies of a frame stand together.
#[derive(Debug)]
pub struct TxPlan {
    frames: Vec<TxFrame>,
}

impl Default for TxPlan {
    fn default() -> Self {
        Self { frames: Vec::with_capacity(4 * BATCH) }
    }
}

impl TxPlan {
    /// Everything that leaves.
    #[inline]
    pub fn frames(&self) -> &[TxFrame] {
        &self.frames
    }

    /// Forgets everything; the memory stays, so a warmed-up plan allocates nothing.
    #[inline]
    pub fn clear(&mut self) {
        self.frames.clear();
    }

    #[inline]
    pub(super) fn push(&mut self, frame: TxFrame) {
        self.frames.push(frame);
    }
}
