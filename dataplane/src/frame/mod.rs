//! Where frames live while a worker handles them.
//!
//! Owns batch memory, the bounds of each frame in it, and the offload state that travels with a frame.
//! Knows nothing of what headers mean.
//! A [`Batch`] is one allocation made at start; it is filled by a receive, read by `forward`, sent from, and cleared.
//! That is the whole lifetime of a frame: no pool, no reference count, no free list.

mod batch;
mod datagram;
mod offload;
mod uplink;

pub use batch::{BATCH, BATCH_BYTES, Batch, Frame, HEADROOM, MAX_FRAME, MAX_REPLY, REPLIES};
pub use datagram::Datagram;
pub use offload::{Caps, Checksum, Gso, GsoKind, Offload};
pub use uplink::{TunnelGso, UplinkOffload};
