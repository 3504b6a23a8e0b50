//! Kernel network devices, through rtnetlink.
//!
//! Owns the conversation with the kernel: requests, acknowledgements, dumps, and the kernel's own words where it
//! refuses. One file an object: `link`, `address`, `route`, `neighbour`; [`device`] makes whole devices of them, and
//! [`Monitor`] listens. `nftables` speaks to netfilter, for the one table that there is to make.
//! Never touches frames, never keeps a socket: a [`Socket`] belongs to the namespace it was opened in and keeps
//! that namespace alive, so it is opened for one operation and dropped after it. A [`Monitor`] and an [`IngressDrop`] alone are
//! kept, by who watches and who has taken an interface over.
//! The packet crates change often; their types do not leave this module.

mod address;
pub mod device;
mod link;
mod monitor;
mod neighbour;
mod nftables;
mod route;
mod socket;

pub use address::Address;
pub use link::{Link, OperState, TunLink};
pub use monitor::{Event, Monitor};
pub use nftables::{IngressDrop, IngressDropError};
pub use socket::{NetlinkError, Socket};
