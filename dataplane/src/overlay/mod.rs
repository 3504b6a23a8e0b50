//! Tunnels: which VNI a VLAN has, who is at the far end, and what stands in front of a frame on its way there.
//!
//! Owns the semantics of VXLAN (RFC 7348) and Geneve (RFC 8926) above their codecs in `wire`.
//! Never touches sockets or the forwarding database, and decides nothing about VLANs: a frame that has been decapsulated enters the
//! bridge by its tunnel port as any other frame does by its port.

pub mod decap;
pub mod ecn;
pub mod entropy;
pub mod outer;
pub mod remotes;
pub mod too_big;
pub mod tunnel;

pub use decap::{Arrivals, Decapsulator, Entrance, Ingress, Segment, Vtep};
pub use remotes::{RemoteCache, Remotes};
pub use tunnel::{Encap, Fragmentation, Hop, Inherit, OuterFields, Tunnel, Via};
