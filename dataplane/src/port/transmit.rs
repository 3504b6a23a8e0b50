//! Carries out a plan: every entry becomes the octets that its egress takes.
//!
//! Owns the scratch memory for tags and segment headers. Decides nothing but how a frame is handed over.
//! A frame that leaves as it came, with its virtio header in front, is one contiguous write; a tag or a split makes it a vector.
//! The segments of a super-frame are made once, however many egresses need them: copies of a frame stand together in a plan.

#[cfg(test)]
mod tests;

use std::{io::IoSlice, ops::Range};

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{Queue, SendResult, tap::WORTH_A_RING};
use crate::{
    bridge::Rewrite,
    counters::{DropReason, PortCounters},
    forward::TxFrame,
    frame::{Batch, Checksum, Offload},
    index::PortIdx,
    offload::{self, MAX_HEADERS, MAX_SEGMENTS, Split},
    sys::uring::{Batcher, MAX_OPS},
    wire::{VirtioNetHdr, dot1q::TAG_LEN, ethernet::ADDRS_LEN, virtio_net},
};

/// Parts of a frame that changes on its way out: virtio header, addresses, tag, rest.
const PARTS: usize = 4;

/// The scratch memory of a worker's sends.
#[derive(Debug)]
pub struct Transmitter {
    /// The headers of the segments of the frame in `slot`, one behind the other, each `header_len` long.
    headers: Box<[u8]>,
    header_len: usize,
    payloads: Vec<Range<usize>>,
    slot: Option<u8>,
    /// What stands in front of each frame that changes on its way out, while a ring writes it.
    prefixes: Box<[Prefix; MAX_OPS]>,
}

/// A virtio header, and a tag.
type Prefix = ([u8; virtio_net::LEN], [u8; TAG_LEN]);

impl Default for Transmitter {
    fn default() -> Self {
        Self {
            headers: vec![0; MAX_SEGMENTS * MAX_HEADERS].into(),
            header_len: 0,
            payloads: Vec::with_capacity(MAX_SEGMENTS),
            slot: None,
            prefixes: Box::new([Prefix::default(); MAX_OPS]),
        }
    }
}

/// What a frame's way out came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It left, or was counted as a drop.
    Done,
    /// Its queue holds it until it is flushed.
    Held,
    /// The queue has lost its device.
    Gone,
}

impl Transmitter {
    /// Must be called when a new batch has been received: the segments made of the last one are no longer true.
    #[inline]
    pub fn next_batch(&mut self) {
        self.slot = None;
    }

    /// Carries out a plan. `egress` gives the queue and the counters of a port, or `None` where it has none (any more);
    /// `lost` is told the ports whose queue has lost its device.
    /// Where `ring` is there, runs of frames leave by one system call. Queues that hold frames are flushed at the end.
    #[inline]
    pub fn send_all<'q>(
        &mut self,
        plan: &[TxFrame],
        batch: &mut Batch,
        mut ring: Option<&mut Batcher>,
        egress: impl Fn(PortIdx) -> Option<(&'q Queue, &'q PortCounters)>,
        mut lost: impl FnMut(PortIdx),
    ) {
        let mut rest = plan;
        let mut held = false;
        while let Some(first) = rest.first() {
            let run = match ring {
                // Not every queue is the kernel's to write, frame by frame.
                Some(_) => rest
                    .iter()
                    .take(MAX_OPS)
                    .take_while(|out| {
                        !out.split && egress(out.port).is_some_and(|(q, _)| q.ring_fd().is_some())
                    })
                    .count(),
                None => 0,
            };
            let done = match ring.as_deref_mut() {
                Some(ring) if run > WORTH_A_RING => {
                    self.send_run(&rest[..run], batch, ring, &egress, &mut lost);
                    run
                }
                _ => {
                    if let Some((queue, counters)) = egress(first.port) {
                        match self.send(first, batch, queue, counters) {
                            Outcome::Done => {}
                            Outcome::Held => held = true,
                            Outcome::Gone => lost(first.port),
                        }
                    }
                    1
                }
            };
            rest = &rest[done..];
        }
        if held {
            flush_all(plan, &egress, &mut lost);
        }
    }

    /// Sends at most [`MAX_OPS`] entries by one system call: none of them is split, and all have a descriptor to leave by.
    /// What the kernel refuses is finished and sent when all have been written, behind the other frames of its run.
    fn send_run<'q>(
        &mut self,
        run: &[TxFrame],
        batch: &mut Batch,
        ring: &mut Batcher,
        egress: &impl Fn(PortIdx) -> Option<(&'q Queue, &'q PortCounters)>,
        lost: &mut impl FnMut(PortIdx),
    ) {
        let mut plain = [true; MAX_OPS];
        for ((out, (header, tag)), plain) in run.iter().zip(self.prefixes.iter_mut()).zip(&mut plain) {
            let slot = usize::from(out.slot);
            let offload = batch.frame(slot).offload;
            *plain = offload.is_plain();
            let vnet = offload.to_vnet(out.rewrite.shift());
            if leaves_whole(out, batch) {
                batch.headroom_mut(slot, virtio_net::LEN).copy_from_slice(vnet.as_bytes());
            } else {
                header.copy_from_slice(vnet.as_bytes());
                *tag = out.rewrite.push.map_or([0; TAG_LEN], |tag| tag.to_bytes());
            }
        }
        let mut vectors = [[IoSlice::new(&[]); PARTS]; MAX_OPS];
        for ((out, (header, tag)), vector) in run.iter().zip(self.prefixes.iter()).zip(&mut vectors) {
            let Some((queue, _)) = egress(out.port) else { continue };
            let before = queue.vnet_header_len();
            let slot = usize::from(out.slot);
            *vector = if leaves_whole(out, batch) {
                let empty = IoSlice::new(&[]);
                [IoSlice::new(batch.bytes_with(slot, before)), empty, empty, empty]
            } else {
                let (addresses, rest) = batch.bytes(slot).split_at(ADDRS_LEN);
                [
                    IoSlice::new(&header[..before]),
                    IoSlice::new(addresses),
                    IoSlice::new(if out.rewrite.push.is_some() { tag } else { &[] }),
                    IoSlice::new(&rest[usize::from(out.rewrite.pop)..]),
                ]
            };
        }
        let writes = run.iter().zip(&vectors).filter_map(|(out, vector)| {
            let parts = if leaves_whole(out, batch) { &vector[..1] } else { &vector[..] };
            Some((egress(out.port)?.0.ring_fd()?, parts))
        });
        let mut results = [0; MAX_OPS];
        ring.write(writes, &mut results);
        for ((out, &result), &plain) in run.iter().zip(&results).zip(&plain) {
            let Some((queue, counters)) = egress(out.port) else { continue };
            let result = SendResult::from_write(
                usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result)),
            );
            if self.settle(result, plain, out, batch, queue, counters) == Outcome::Gone {
                lost(out.port);
            }
        }
    }

    /// Sends one entry of a plan to its egress.
    #[inline]
    pub fn send(
        &mut self,
        out: &TxFrame,
        batch: &mut Batch,
        queue: &Queue,
        counters: &PortCounters,
    ) -> Outcome {
        if out.split {
            return self.send_split(out, batch, queue, counters);
        }
        let slot = usize::from(out.slot);
        let before = queue.vnet_header_len();
        let offload = batch.frame(slot).offload;
        let header = offload.to_vnet(out.rewrite.shift());
        let result = if leaves_whole(out, batch) {
            if before > 0 {
                batch.headroom_mut(slot, before).copy_from_slice(header.as_bytes());
            }
            queue.send(&[IoSlice::new(batch.bytes_with(slot, before))])
        } else {
            send_parts(queue, &header, &out.rewrite, batch.bytes(slot), &[])
        };
        self.settle(result, offload.is_plain(), out, batch, queue, counters)
    }

    /// Counts a frame that was sent as one, or does what its failure calls for. `plain` says that it asked for nothing when it was
    /// written: in a run, a copy that was refused before this one may have finished it since.
    #[inline]
    fn settle(
        &mut self,
        result: SendResult,
        plain: bool,
        out: &TxFrame,
        batch: &mut Batch,
        queue: &Queue,
        counters: &PortCounters,
    ) -> Outcome {
        let frame = batch.frame(out.slot.into());
        match result {
            SendResult::Sent => {
                counters.tx_frames.add(1);
                counters.tx_bytes.add(u64::from(frame.len).wrapping_add_signed(out.rewrite.shift().into()));
                Outcome::Done
            }
            SendResult::Held => Outcome::Held,
            SendResult::Refused(_) if !plain => self.send_plain(out, batch, queue, counters),
            failed => account(failed, counters),
        }
    }

    /// The kernel refused a frame whose offloads it had agreed to (some kernels did, see docs/design/offload.md): finish it in software.
    #[cold]
    fn send_plain(
        &mut self,
        out: &TxFrame,
        batch: &mut Batch,
        queue: &Queue,
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
        queue: &Queue,
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
        let mut outcome = Outcome::Done;
        for (header, payload) in self.headers.chunks_exact(self.header_len).zip(&self.payloads) {
            let payload = &frame[payload.clone()];
            match send_parts(queue, &VirtioNetHdr::default(), &out.rewrite, header, payload) {
                SendResult::Sent => {
                    let len = (header.len() + payload.len()).wrapping_add_signed(out.rewrite.shift().into());
                    counters.tx_frames.add(1);
                    counters.tx_bytes.add(len as u64);
                }
                failed => match account(failed, counters) {
                    Outcome::Done => {}
                    Outcome::Held => outcome = Outcome::Held,
                    Outcome::Gone => return Outcome::Gone,
                },
            }
        }
        outcome
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

/// Whether a frame leaves in one piece, with its virtio header written in front of it.
#[inline]
fn leaves_whole(out: &TxFrame, batch: &Batch) -> bool {
    out.rewrite == Rewrite::KEEP && batch.has_headroom(out.slot.into(), virtio_net::LEN)
}

/// Sends `head` and `payload` as one frame, its outermost tag changed.
fn send_parts(
    queue: &Queue,
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

/// Flushes the queues of a plan; to flush one twice does nothing.
fn flush_all<'q>(
    plan: &[TxFrame],
    egress: &impl Fn(PortIdx) -> Option<(&'q Queue, &'q PortCounters)>,
    lost: &mut impl FnMut(PortIdx),
) {
    for of_port in plan.chunk_by(|a, b| a.port == b.port) {
        let Some(port) = of_port.first().map(|out| out.port) else { continue };
        if let Some((queue, counters)) = egress(port)
            && queue.flush(counters) == Outcome::Gone
        {
            lost(port);
        }
    }
}

/// Counts a frame that the egress did not take.
fn account(failed: SendResult, counters: &PortCounters) -> Outcome {
    let (reason, outcome) = match failed {
        SendResult::Sent => return Outcome::Done,
        SendResult::Held => return Outcome::Held,
        SendResult::Full => (DropReason::EgressFull, Outcome::Done),
        SendResult::Down => (DropReason::EgressDown, Outcome::Done),
        // The interface's MTU has become less than the port's.
        SendResult::Refused(Errno::MSGSIZE) => (DropReason::MtuExceeded, Outcome::Done),
        SendResult::Refused(_) => (DropReason::EgressRefused, Outcome::Done),
        SendResult::Gone(_) => (DropReason::EgressDown, Outcome::Gone),
    };
    counters.drop(reason);
    outcome
}
