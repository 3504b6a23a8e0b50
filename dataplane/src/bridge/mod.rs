//! Who may talk to whom.
//!
//! Owns VLAN admission and the tags of a port, the members of each VLAN, the policy of a port, its storm limit, and the neighbours
//! that a bridge answers for.
//! Never touches encapsulation, buffers or I/O; answers with values that `forward` acts on.

pub mod member;
pub mod neigh;
pub mod secure;
pub mod storm;
pub mod vlan;

pub use member::{Class, Member, Members};
pub use neigh::Neighbours;
pub use secure::Secure;
pub use storm::Storm;
pub use vlan::{Admitted, Rewrite, VlanMode};
