//! What a tunnel puts around a frame, and takes from it: the outer header, congestion marks, the source port.
//!
//! Owns the outer Ethernet, IP and UDP headers of the path on which the switch writes them itself ([`outer`]), what they take over from the
//! inner header and give back to it ([`ecn`]), and the number by which the underlay tells flows apart ([`entropy`]).
//! Of an uplink it owns what its frames are ([`uplink`]), where they go next ([`next_hop`]), and the host that the switch is there
//! ([`host`]).
//! The headers of the tunnel protocols themselves are in [`wire`](crate::wire); which remote a frame is for is not asked here.
//! Nothing is believed of a frame, inner or outer: every function takes any octets, reads no further than they reach, and says so by `None`
//! or an error where what it looks for is not there.

pub mod ecn;
pub mod entropy;
pub mod host;
pub mod next_hop;
pub mod outer;
pub mod too_big;
pub mod uplink;

pub use ecn::Ecn;
pub use entropy::flow_hash;
pub use host::Host;
pub use next_hop::NextHop;
pub use outer::Outer;
pub use uplink::Uplink;
