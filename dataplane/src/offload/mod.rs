//! Finishing and verifying checksums, splitting super-frames and making them, in software.
//!
//! Owns what an egress without the offload needs done to a frame, [`checksum::complete`] and [`Split`], and the reverse, which is done to
//! frames out of a tunnel: [`merge()`].
//! Never decides where a frame goes, never copies payload but to merge it, and never believes a virtio header: what it says of a
//! super-frame is checked against the frame's own headers once, on the way in, by [`validate`].
//! The lengths of segments come from where the headers end and the IP packet ends, not from the sender's hint `hdr_len`.

pub mod checksum;
mod headers;
pub mod merge;
mod split;
#[cfg(test)]
mod tests;

pub use headers::{MAX_HEADERS, is_transport_checksum, validate};
pub use merge::{Limits, merge, verify};
pub use split::{MAX_SEGMENTS, Split};
