//! Desired state, as people and files describe it.
//!
//! Owns the words: every flag of `tapwayctl`, every key of a topology file, of `--json` and of a Varlink call is one
//! field of one struct in [`spec`], spelled once.
//! Knows names, not indices; `engine` compiles it to a snapshot.

pub mod spec;
pub mod topology;
pub mod words;

pub use spec::{BridgeOptions, BridgeSpec, FdbSpec, PortOptions, PortSpec, PortType};
pub use topology::{Mistake, Topology};
pub use words::{AdminState, BridgeName, Netns, OnOff, PortName, Seconds, Secure, VlanList};
