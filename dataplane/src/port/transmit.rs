//! Carries out a plan: every entry becomes the octets that its egress takes.
//!
//! Owns the scratch memory for tags and segment headers. Decides nothing but how a frame is handed over.
//! A frame that leaves as it came, with its virtio header in front, is one contiguous write; a tag or a split makes it a vector.
//! The segments of a super-frame are made once, however many egresses need them: copies of a frame stand together in a plan.

#[cfg(test)]
mod tests;

use std::{io::IoSlice, ops::Range};

use zerocopy::IntoBytes;

use super::{Queue, SendResult};
use crate::{
    bridge::Rewrite,
    counters::{DropReason, PortCounters},
    forward::TxFrame,
    frame::{Batch, Checksum, Offload},
    offload::{self, MAX_HEADERS, MAX_SEGMENTS, Split},
    wire::{VirtioNetHdr, ethernet::ADDRS_LEN, virtio_net},
};

/// The scratch memory of a worker's sends.
#[derive(Debug)]
pub struct Transmitter {
    /// The headers of the segments of the frame in `slot`, one behind the other, each `header_len` long.
    headers: Box<[u8]>,
    header_len: usize,
    payloads: Vec<Range<usize>>,
    slot: Option<u8>,
}

impl Default for Transmitter {
    fn default() -> Self {
        Self {
            headers: vec![0; MAX_SEGMENTS * MAX_HEADERS].into(),
            header_len: 0,
            payloads: Vec::with_capacity(MAX_SEGMENTS),
            slot: None,
        }
    }
}

/// What a frame's way out came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It left, or was counted as a drop.
    Done,
    /// The queue has lost its device.
    Gone,
}

impl Transmitter {
    /// Must be called when a new batch has been received: the segments made of the last one are no longer true.
    #[inline]
    pub fn next_batch(&mut self) {
        self.slot = None;
    }

    /// Sends one entry of a plan to its egress.
    #[inline]
    pub fn send(
        &mut self,
        out: &TxFrame,
        batch: &mut Batch,
        queue: &mut Queue,
        counters: &PortCounters,
    ) -> Outcome {
        if out.split {
            return self.send_split(out, batch, queue, counters);
        }
        let slot = usize::from(out.slot);
        let before = queue.vnet_header_len();
        let offload = batch.frame(slot).offload;
        let len = batch.frame(slot).len as usize;
        let header = offload.to_vnet(out.rewrite.shift());
        let result = if out.rewrite == Rewrite::KEEP {
            if before > 0 {
                batch.headroom_mut(slot, before).copy_from_slice(header.as_bytes());
            }
            queue.send(&[IoSlice::new(batch.bytes_with(slot, before))])
        } else {
            send_parts(queue, &header, &out.rewrite, batch.bytes(slot), &[])
        };
        match result {
            SendResult::Sent => {
                counters.tx_frames.add(1);
                counters.tx_bytes.add(len.wrapping_add_signed(out.rewrite.shift().into()) as u64);
                Outcome::Done
            }
            SendResult::Refused(_) if !offload.is_plain() => self.send_plain(out, batch, queue, counters),
            failed => account(failed, counters),
        }
    }

    /// The kernel refused a frame whose offloads it had agreed to (some kernels did, see docs/design/offload.md): finish it in software.
    #[cold]
    fn send_plain(
        &mut self,
        out: &TxFrame,
        batch: &mut Batch,
        queue: &mut Queue,
        counters: &PortCounters,
    ) -> Outcome {
        counters.offload_fallbacks.add(1);
        let slot = usize::from(out.slot);
        let offload = batch.frame(slot).offload;
        if offload.gso.is_some() {
            return self.send_split(out, batch, queue, counters);
        }
        if let Checksum::Partial { start, offset } = offload.csum {
            if let Err(reason) =
                offload::checksum::complete(batch.bytes_mut(slot), start.into(), offset.into())
            {
                counters.drop(reason);
                return Outcome::Done;
            }
            batch.frame_mut(slot).offload.csum = Checksum::Good;
        }
        match send_parts(queue, &VirtioNetHdr::default(), &out.rewrite, batch.bytes(slot), &[]) {
            SendResult::Sent => {
                counters.tx_frames.add(1);
                counters
                    .tx_bytes
                    .add((batch.frame(slot).len as usize).wrapping_add_signed(out.rewrite.shift().into())
                        as u64);
                Outcome::Done
            }
            failed => account(failed, counters),
        }
    }

    fn send_split(
        &mut self,
        out: &TxFrame,
        batch: &Batch,
        queue: &mut Queue,
        counters: &PortCounters,
    ) -> Outcome {
        let slot = usize::from(out.slot);
        let frame = batch.bytes(slot);
        if self.slot != Some(out.slot)
            && let Err(reason) = self.split(out.slot, frame, &batch.frame(slot).offload)
        {
            counters.drop(reason);
            return Outcome::Done;
        }
        for (header, payload) in self.headers.chunks_exact(self.header_len).zip(&self.payloads) {
            let payload = &frame[payload.clone()];
            match send_parts(queue, &VirtioNetHdr::default(), &out.rewrite, header, payload) {
                SendResult::Sent => {
                    let len = (header.len() + payload.len()).wrapping_add_signed(out.rewrite.shift().into());
                    counters.tx_frames.add(1);
                    counters.tx_bytes.add(len as u64);
                }
                failed => {
                    if account(failed, counters) == Outcome::Gone {
                        return Outcome::Gone;
                    }
                }
            }
        }
        Outcome::Done
    }

    /// Makes the segments of a super-frame.
    fn split(&mut self, slot: u8, frame: &[u8], offload: &Offload) -> Result<(), DropReason> {
        self.slot = None;
        let split = Split::plan(frame, offload)?;
        self.header_len = split.header_len();
        self.payloads.clear();
        let mut header = [0; MAX_HEADERS];
        for (n, space) in self.headers.chunks_exact_mut(self.header_len).take(split.count()).enumerate() {
            self.payloads.push(split.segment(n, &mut header));
            space.copy_from_slice(&header[..self.header_len]);
        }
        self.slot = Some(slot);
        Ok(())
    }
}

/// Sends `head` and `payload` as one frame, its outermost tag changed.
fn send_parts(
    queue: &mut Queue,
    header: &VirtioNetHdr,
    rewrite: &Rewrite,
    head: &[u8],
    payload: &[u8],
) -> SendResult {
    let tag = rewrite.push.map(|tag| tag.to_bytes());
    let (addresses, rest) = head.split_at(ADDRS_LEN);
    let parts = [
        IoSlice::new(header.as_bytes()),
        IoSlice::new(addresses),
        IoSlice::new(tag.as_ref().map_or(&[], |t| t)),
        IoSlice::new(&rest[usize::from(rewrite.pop)..]),
        IoSlice::new(payload),
    ];
    let skip = usize::from(queue.vnet_header_len() != virtio_net::LEN);
    queue.send(&parts[skip..])
}

/// Counts a frame that the egress did not take.
#[cold]
fn account(failed: SendResult, counters: &PortCounters) -> Outcome {
    let (reason, outcome) = match failed {
        SendResult::Sent => return Outcome::Done,
        SendResult::Full => (DropReason::EgressFull, Outcome::Done),
        SendResult::Down => (DropReason::EgressDown, Outcome::Done),
        SendResult::Refused(_) => (DropReason::EgressRefused, Outcome::Done),
        SendResult::Gone(_) => (DropReason::EgressDown, Outcome::Gone),
    };
    counters.drop(reason);
    outcome
}
