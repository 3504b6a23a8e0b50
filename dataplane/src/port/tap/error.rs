//! Why a TAP could not be opened or changed.

use std::io;

use super::Netns;
use crate::{netlink::NetlinkError, sys::tun};

/// Why a TAP could not be opened or changed. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface can have this name.
    #[error("\"{name}\" cannot be an interface name: {reason}")]
    NameInvalid {
        /// The name asked for.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another interface has the name.
    #[error(
        "the name {name} is taken: the namespace has an interface of that name that is not a persistent TAP"
    )]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// The TAP exists, and somebody has it open; the kernel does not say whether it is this process.
    #[error("TAP {name} is in use by another port or process")]
    InUse {
        /// The name asked for.
        name: String,
    },
    /// The persistent TAP of this name was made for one queue and several are asked for, or the reverse.
    #[error("the persistent TAP {name} was made {}: ask for the same, or delete it first", if *.multi_queue { "for several queues" } else { "for one queue" })]
    QueueKind {
        /// The name asked for.
        name: String,
        /// What it was made for.
        multi_queue: bool,
    },
    /// More queues than a TAP can have, or none.
    #[error("{queues} queues: a TAP has 1 to {}", tun::QUEUES_MAX)]
    Queues {
        /// How many were asked for.
        queues: usize,
    },
    /// The namespace cannot be opened or entered.
    #[error("cannot open network namespace {netns}: {source}")]
    Netns {
        /// The namespace asked for.
        netns: Netns,
        /// Why.
        source: io::Error,
    },
    /// The device is not there any more.
    #[error("interface {name} does not exist any more")]
    Gone {
        /// Its name when it was last seen.
        name: String,
    },
    /// A system call on the descriptor end failed.
    #[error("cannot {operation} TAP {name}: {source}")]
    Device {
        /// What was to be done, as a verb.
        operation: &'static str,
        /// The device.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a change of the interface end.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
