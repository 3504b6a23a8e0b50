//! Why an interface could not be taken over, or had to be let go.

use std::io;

use super::Netns;
use crate::netlink::{IngressDropError, NetlinkError};

/// Why an interface could not be taken over, or had to be let go.
#[derive(Debug, thiserror::Error)]
pub enum NetdevError {
    /// There is no such interface, or none any more.
    #[error("there is no interface {name}")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// Somebody gave it another name.
    #[error("interface {name} was renamed to {now}")]
    Renamed {
        /// The name asked for.
        name: String,
        /// The name it has now.
        now: String,
    },
    /// It is administratively down.
    #[error("interface {name} is down")]
    Down {
        /// The name.
        name: String,
    },
    /// Nobody is at its other end: a cable, the other end of a veth, a process that has the TAP open.
    #[error("interface {name} has no carrier")]
    NoCarrier {
        /// The name.
        name: String,
    },
    /// It belongs to a device of the kernel that takes its frames.
    #[error("interface {name} belongs to {master}: take it out first (ip link set {name} nomaster)")]
    HasMaster {
        /// The name.
        name: String,
        /// The bridge or bond.
        master: String,
    },
    /// Its frames are not those of Ethernet.
    #[error("interface {name} is not an Ethernet interface")]
    NotEthernet {
        /// The name.
        name: String,
    },
    /// Another switch has it.
    #[error("interface {name} is in use by another port: {source}")]
    InUse {
        /// The name.
        name: String,
        /// How that is known.
        source: IngressDropError,
    },
    /// The namespace cannot be opened or entered, or not any more.
    #[error("cannot open network namespace {netns}: {source}")]
    Netns {
        /// The namespace asked for.
        netns: Netns,
        /// Why.
        source: io::Error,
    },
    /// A system call on a packet socket failed.
    #[error("cannot {operation} a packet socket at interface {name}: {source}")]
    Socket {
        /// What was to be done, as a verb.
        operation: &'static str,
        /// The interface.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a change of the interface, or a question.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl NetdevError {
    /// Whether it may end by itself, with an interface that comes, rather than by somebody who corrects it.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Renamed { .. }
            | Self::Down { .. }
            | Self::NoCarrier { .. }
            | Self::Netns { .. } => true,
            Self::HasMaster { .. }
            | Self::NotEthernet { .. }
            | Self::InUse { .. }
            | Self::Socket { .. }
            | Self::Netlink(_) => false,
        }
    }
}
