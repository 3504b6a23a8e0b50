//! Why a device could not be made, read, changed or deleted.

use std::{io, net::IpAddr};

use super::SysctlName;
use crate::{netlink::NetlinkError, netns::Netns};

/// Why a device is not as it was wanted. Every variant names the device and what was to be done; nothing half made is left.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name is no name for an interface.
    #[error(
        "device {name:?}: an interface name has 1 to 15 octets, no slash, colon or space, and is not . or .."
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The name belongs to a device that is not ours.
    #[error(
        "device {name}: this name is taken by a {kind} that tapway did not make; rename or delete that one, or choose another name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The kind of the other: "veth", or "device" where it has none.
        kind: String,
    },
    /// There is already a device of that name, and it is ours.
    #[error("device {name} exists already")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is no such device.
    #[error("device {name} is not there")]
    Missing {
        /// The name.
        name: String,
    },
    /// The device is not ours to delete or change.
    #[error("device {name} was not made by tapway; it is left alone")]
    Foreign {
        /// The name.
        name: String,
    },
    /// The parent, or a tunnel's `dev`, is not there.
    #[error("device {device}: its parent {parent} is not there{}", within(.netns.as_ref()))]
    ParentMissing {
        /// The device.
        device: String,
        /// Its parent.
        parent: String,
        /// Where it was looked for.
        netns: Option<Netns>,
    },
    /// The master is not there.
    #[error("device {device}: its master {master} is not there{}", within(.netns.as_ref()))]
    MasterMissing {
        /// The device.
        device: String,
        /// Its master.
        master: String,
        /// Where it was looked for.
        netns: Option<Netns>,
    },
    /// A namespace does not exist (any more), or cannot be made.
    #[error("device {device}: network namespace {netns}: {source}")]
    Netns {
        /// The device.
        device: String,
        /// The namespace.
        netns: Netns,
        /// Why.
        source: io::Error,
    },
    /// The kernel was built without this kind, or its module is not installed.
    #[error("device {device}: this kernel has no {kind} ({config})")]
    NoSuchKind {
        /// The device.
        device: String,
        /// The kind.
        kind: &'static str,
        /// The build option that would bring it.
        config: &'static str,
    },
    /// An address is on another device of the namespace already.
    #[error("device {device}: address {address} is already on {other}")]
    AddressElsewhere {
        /// The device.
        device: String,
        /// The address.
        address: IpAddr,
        /// The device that has it.
        other: String,
    },
    /// The kernel does not take this MTU.
    #[error("device {device}: MTU {mtu} is out of range{}", range(*.min, *.max))]
    Mtu {
        /// The device.
        device: String,
        /// What was wanted.
        mtu: u32,
        /// The smallest the kernel takes, where it says so (`IFLA_MIN_MTU`).
        min: Option<u32>,
        /// The largest (`IFLA_MAX_MTU`).
        max: Option<u32>,
    },
    /// The kernel said yes and did nothing: it was built without this option, or is older than it.
    #[error("device {device}: this kernel did not take {option} {wanted}{}", instead(.is))]
    NotTaken {
        /// The device.
        device: String,
        /// The option, in iproute2's word.
        option: &'static str,
        /// What it is instead; empty for nothing.
        is: String,
        /// What was wanted.
        wanted: String,
    },
    /// We are not allowed to.
    #[error("device {device}: cannot {operation}: permission denied (it takes CAP_NET_ADMIN)")]
    Permission {
        /// The device.
        device: String,
        /// What was to be done.
        operation: String,
    },
    /// A sysctl could not be read or written.
    #[error("device {device}: sysctl {sysctl}: {source}")]
    Sysctl {
        /// The device.
        device: String,
        /// The sysctl.
        sysctl: SysctlName,
        /// Why.
        source: io::Error,
    },
    /// `/dev/net/tun` refused.
    #[error("device {device}: cannot {operation}: {source}")]
    Tun {
        /// The device.
        device: String,
        /// What was to be done.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("device {device}: {source}")]
    Netlink {
        /// The device.
        device: String,
        /// Why.
        source: NetlinkError,
    },
    /// No netlink socket.
    #[error("device {device}: no netlink socket: {source}")]
    Socket {
        /// The device.
        device: String,
        /// Why.
        source: io::Error,
    },
}

/// Why a device was not changed. It is as it was, as far as the kernel let us put it back.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The kernel cannot change these options on a device that exists; nothing was tried.
    #[error("the kernel cannot change {} of a device that exists", .which.join(", "))]
    NeedsReplace {
        /// The options, in iproute2's words.
        which: Vec<&'static str>,
    },
    /// A change failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

fn within(netns: Option<&Netns>) -> String {
    netns.map(|netns| format!(" in network namespace {netns}")).unwrap_or_default()
}

fn range(min: Option<u32>, max: Option<u32>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!(": this device takes {min} to {max}"),
        (Some(min), None) => format!(": this device takes {min} or more"),
        (None, Some(max)) => format!(": this device takes {max} or less"),
        (None, None) => String::new(),
    }
}

fn instead(is: &str) -> String {
    if is.is_empty() { " (it has no such option)".to_owned() } else { format!(" (it is {is})") }
}
