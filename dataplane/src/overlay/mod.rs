//! Tunnels: which VNI a VLAN has, who is at the far end, and what stands in front of a frame on its way there.
//!
//! Owns the semantics of VXLAN (RFC 7348) and Geneve (RFC 8926) above their codecs in [`wire`](crate::wire): the way in ([`decap`]) and
//! out ([`tunnel`]), the far ends ([`remotes`]), congestion marks ([`ecn`]), the number by which the underlay tells flows apart
//! ([`entropy`]), and what a sender is told whose packet does not fit ([`too_big`]).
//! Where the switch writes the outer headers itself it owns these too ([`outer`]): what the frames of an uplink are ([`uplink`]), where they
//! go next ([`next_hop`]), and the host that the switch is there ([`host`]).
//! Never touches sockets or the forwarding database, and decides nothing about VLANs: a frame that has been decapsulated enters the
//! bridge by its tunnel port as any other frame does by its port.
//! Nothing is believed of a frame, inner or outer: every function takes any octets and reads no further than they reach.

pub mod decap;
pub mod ecn;
pub mod entropy;
pub mod host;
pub mod next_hop;
pub mod outer;
pub mod remotes;
pub mod too_big;
pub mod tunnel;
pub mod uplink;

pub use decap::{Arrivals, Decapsulator, Entrance, Ingress, Segment, Vtep};
pub use ecn::Ecn;
pub use entropy::flow_hash;
pub use host::Host;
pub use next_hop::NextHop;
pub use outer::Outer;
pub use remotes::{RemoteCache, Remotes};
pub use tunnel::{Encap, Fragmentation, Hop, Inherit, OuterFields, Tunnel, Via};
pub use uplink::Uplink;
