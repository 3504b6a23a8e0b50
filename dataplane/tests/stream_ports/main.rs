//! `stream` and `dgram` ports alone, against real Unix sockets: the far end is the test, and speaks as QEMU does.
//!
//! ```text
//!   the switch's end                         the test
//!   Listener / connect ─▶ StreamQueue ═══ a stream: length, frame, length, frame …
//!   DgramSocket ────────▶ DgramQueue  ─── datagrams, each a frame
//! ```
//! Needs no privilege.

mod dgram;
mod meeting;
mod stream;

use std::path::PathBuf;

use tapway_dataplane::{
    counters::{DropReason, PortCounters},
    frame::Batch,
    wire::stream::prefix,
};

/// Frames as they stand in a stream.
fn framed(frames: &[&[u8]]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&prefix(frame.len())[..], frame].concat()).collect()
}

fn frames_of(batch: &Batch) -> Vec<Vec<u8>> {
    (0..batch.len()).map(|n| batch.bytes(n).to_vec()).collect()
}

/// The reasons that have counted, with their numbers.
fn drops(counters: &PortCounters) -> Vec<(DropReason, u64)> {
    let all = DropReason::ALL.iter().map(|&reason| (reason, counters.dropped(reason)));
    all.filter(|&(_, n)| n > 0).collect()
}

/// A directory for sockets, and a path in it.
fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    (dir, path)
}
