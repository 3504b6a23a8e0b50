//! The kernel's virtual devices: what `ip link add … type KIND` makes.
//!
//! A [`Device`] is what somebody wants, an [`Observed`] is what the kernel has, [`differences`] says how the two differ, and
//! four functions act: [`create()`], [`change()`], [`delete`] and [`list`]. Option words and their meaning are iproute2's.
//!
//! Never adopts and never decides: who is to be made, changed or deleted, and in which order, is said by the layer above.
//! Never shells out, keeps no socket and no state: what is ours is written on the device itself.
//!
//! # Whose it is
//!
//! The kernel takes an alias (`IFLA_IFALIAS`) only from a device that exists already, so a program that is killed between
//! the two requests would leave a device that looks like somebody else's. A device group (`IFLA_GROUP`) is taken by
//! the request that creates. So a device is made inside the group [`UNFINISHED_GROUP`], and the last request of
//! [`create()`] gives it the alias `tapway:NAME` and puts it into the default group, both at once:
//!
//! | group | alias | [`Mark`] |
//! |---|---|---|
//! | ours | any | [`Mark::Unfinished`]: made by us, not to its end |
//! | of those that leave | any | [`Mark::Unfinished`]: not unmade to its end |
//! | other | `tapway:…` | [`Mark::Ours`] |
//! | other | `tapway-peer:…` | [`Mark::Peer`]: the other end of a veth of ours |
//! | other | other | [`Mark::Foreign`]: never touched, unless told |
//!
//! A TUN or TAP is made by ioctl and has no such request; it becomes persistent as the last step instead, and dies with the
//! program until then.
//!
//! # Namespaces
//!
//! A device is in one namespace and what it stands on (its parent, its underlay) may be in another, as with
//! `ip link add link PARENT netns N`. Both, and that of a veth's peer, are the daemon's own where they are not named.

mod change;
mod clear;
mod create;
mod difference;
mod error;
mod kind;
mod namespace;
mod observe;
mod place;
mod request;
mod steps;
mod sysctl;
#[cfg(test)]
mod tests;
mod tun;

use std::net::IpAddr;

use ipnet::IpNet;

pub use change::change;
pub use clear::{delete_all, delete_interfaces};
pub use create::{Whose, create, delete};
pub use difference::{Difference, differences};
pub use error::{ChangeError, DeviceError};
pub use kind::{
    Bridge, FdbEntry, Geneve, Ipvlan, IpvlanFlag, IpvlanMode, Kind, Macvlan, MacvlanMode, Peer, Tos, Ttl,
    Tun, Vlan, VlanProtocol, Vxlan,
};
pub use namespace::{add_netns, delete_netns};
pub use observe::{list, observe};
pub use sysctl::{SysctlName, SysctlNameError};
pub use tun::Held;

use super::OperState;
use crate::{netns::Netns, wire::MacAddr};

/// The group of devices that are not finished: "Tapw" as a number. Group 0 is the kernel's default (`INIT_NETDEV_GROUP`).
pub const UNFINISHED_GROUP: u32 = 0x5461_7077;

/// The group of devices that are about to be deleted together, its neighbour.
pub const LEAVING_GROUP: u32 = UNFINISHED_GROUP + 1;

/// A device as somebody wants it. What is `None` is left to the kernel, and may be anything where the device exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name, 15 octets at most.
    pub name: String,
    /// Where it is.
    pub netns: Option<Netns>,
    /// Where its parent or its underlay is (iproute2: `link-netns`); of no meaning to a kind that stands on nothing.
    pub link_netns: Option<Netns>,
    /// Make the named namespaces of the device and of its peer where they are missing, as `ip netns add` does.
    pub create_netns: bool,
    /// What it is, with the options of its kind.
    pub kind: Kind,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its MTU; also that of a veth's peer, because a pair whose ends differ drops silently.
    pub mtu: Option<u32>,
    /// All of its addresses, but for those that the kernel makes up by itself.
    pub addresses: Vec<IpNet>,
    /// Administratively up; also a veth's peer.
    pub up: bool,
    /// The device it is a port of (a bridge), in its own namespace; `None` means of none.
    pub master: Option<String>,
    /// Static routes through it, in the main table.
    pub routes: Vec<Route>,
    /// Sysctls that belong to it.
    pub sysctls: Vec<(SysctlName, String)>,
}

impl Device {
    /// A device with nothing but a name and a kind: down, no address, no master.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            netns: None,
            link_netns: None,
            create_netns: false,
            kind,
            mac: None,
            mtu: None,
            addresses: Vec::new(),
            up: false,
            master: None,
            routes: Vec::new(),
            sysctls: Vec::new(),
        }
    }
}

/// A static route through a device: `ip route add TO [via VIA] dev DEVICE [src SRC] [metric METRIC]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The destination; `0.0.0.0/0` and `::/0` are the default routes.
    pub to: IpNet,
    /// The next hop; without one the destination is on the link.
    pub via: Option<IpAddr>,
    /// The preferred source address.
    pub src: Option<IpAddr>,
    /// Its priority, lowest first; the kernel takes 0 for IPv4 and 1024 for IPv6 where there is none.
    pub metric: Option<u32>,
}

/// Whose a device is. The module's documentation says how this is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Made by us.
    Ours,
    /// The other end of a veth that was made by us; it lives and dies with that.
    Peer,
    /// Made by us, but not to its end, or half way to its end: nothing about it is to be trusted; [`delete`] takes it away.
    Unfinished,
    /// Somebody else's.
    Foreign,
}

/// A device as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its number; unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub mark: Mark,
    /// The word of its kind; empty where it has none (a NIC, the loopback interface).
    pub kind_name: String,
    /// What it is, where it is one of the kinds that can be made here.
    pub kind: Option<Kind>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its MTU.
    pub mtu: u32,
    /// The smallest and the largest MTU the kernel takes for it (`IFLA_MIN_MTU`, `IFLA_MAX_MTU`), where it says so.
    pub mtu_range: Option<(u32, u32)>,
    /// Its permanent addresses, without those the kernel made up by itself.
    pub addresses: Vec<IpNet>,
    /// Administratively up.
    pub up: bool,
    /// Its operational state.
    pub operstate: OperState,
    /// The device it is a port of.
    pub master: Option<String>,
    /// The static routes through it, in the main table.
    pub routes: Vec<Route>,
    /// The sysctls that were asked for; one that the kernel does not have is left out.
    pub sysctls: Vec<(SysctlName, String)>,
    /// The number of its parent or peer, in their namespace (`IFLA_LINK`).
    pub link_index: Option<u32>,
    /// The number by which its namespace knows that of its parent, underlay or peer (`IFLA_LINK_NETNSID`); `None` where they are in
    /// the same one.
    pub link_netnsid: Option<i32>,
    /// Its parent, underlay or peer is in another namespace than the wanted device says; `false` where nothing was said,
    /// and always of a geneve, of which the kernel does not say it.
    pub link_elsewhere: bool,
}
