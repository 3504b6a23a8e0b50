//! Desired state, as people and files describe it.
//!
//! Owns the words: every flag of `tapwayctl`, every key of a topology file, of `--json` and of a Varlink call is one
//! field of one struct in [`spec`], spelled once.
//! Everything else is derived from those structs: which keys there are, what differs, what a change does, what a file says.
//! Knows names, not indices; `engine` compiles it to a snapshot.
//! Does no I/O: it turns text into specs, specs into differences, differences into an ordered plan.

mod check;
mod defaults;
pub mod device;
mod diff;
mod keys;
mod merge;
mod parse;
mod plan;
pub mod spec;
mod syntax;
pub mod topology;
mod tunnel;
mod vlans;
pub mod words;

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod reference;

pub use check::{MAX_TAP_MTU, MAX_TAP_QUEUES, MIN_MTU};
pub use defaults::DEFAULT_MTU;
pub use device::{DeviceOptions, DeviceSpec, DeviceType};
pub use diff::Difference;
pub use keys::keys_of;
pub use merge::MergeError;
pub use plan::{Change, plan};
pub use spec::{
    BridgeOptions, BridgeSpec, Driver, FdbSpec, NeighSpec, PortOptions, PortSpec, PortType, UplinkOptions,
    UplinkSpec,
};
pub use topology::{Mistake, SourceLines, Topology};
pub use tunnel::{Df, Inherit, PortRange, Reserved, VlanVni};
pub use words::{AdminState, BridgeName, DeviceName, Netns, OnOff, PortName, Seconds, Secure, VlanList};
