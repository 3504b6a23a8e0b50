//! Header codecs on byte slices.
//!
//! Owns byte layouts, and the constants of the standards with their source.
//! Knows nothing of buffers, configuration or any other module of this crate.
//! Every reader takes a slice of any length and answers with an error where the slice is too short or its
//! fields contradict each other: no reader panics, whatever the bytes.

pub mod dot1q;
pub mod ethernet;
pub mod geneve;
pub mod layers;
pub mod neighbour;
#[cfg(test)]
pub(crate) mod sample;
pub mod stream;
pub mod virtio_net;
mod vlans;
mod vni;
pub mod vxlan;

pub use dot1q::{Tag, Tci, Vid};
pub use ethernet::{EtherType, MacAddr};
pub use geneve::{Geneve, GeneveOption};
pub use layers::Layers;
pub use virtio_net::{VirtioNetHdr, VirtioNetHdrTunnel};
pub use vlans::{VlanList, VlanListError};
pub use vni::{Vni, VniError};
pub use vxlan::Vxlan;

/// Why bytes did not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The slice ends before the header does.
    #[error("truncated")]
    Truncated,
    /// A field has a value the header cannot have; the word names the field.
    #[error("malformed {0}")]
    Malformed(&'static str),
}
