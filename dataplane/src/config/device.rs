//! Kernel devices as an operator describes them, in iproute2's words.
//!
//! Owns the words of `device add` and of `[[device]]`, as [`super::spec`] owns those of the switch's own objects, and which
//! type of device has which of them.
//! An interface that is named here (`parent`, `dev`) is one of the namespace `link_netns`, which is the daemon's own where
//! nothing is said, as with `ip link add link … netns …`; a `master` is one of the device's namespace.

mod change;
mod needs;
mod words;

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(super) use needs::{Graph, Node};
pub use needs::{needed_first, needing};
pub use words::{DeviceGroup, DeviceMode, IpvlanFlag, Peer, Route, Sysctl, UpDown, VlanProtocol, VxlanEntry};

use super::{
    tunnel::{self, Inherit},
    words::{self as common, DeviceName, Netns, OnOff, Seconds},
};
use crate::wire::MacAddr;

/// What kind of device the kernel makes, as `ip link add type` names it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DeviceType {
    /// Two interfaces, each the other's far end
    Veth,
    /// A bridge of the kernel
    Bridge,
    /// An interface with a MAC address of its own on a parent
    Macvlan,
    /// A macvlan that a program reads and writes
    Macvtap,
    /// An interface with the MAC address of its parent
    Ipvlan,
    /// One VLAN of a parent
    Vlan,
    /// A VXLAN tunnel of the kernel
    Vxlan,
    /// A Geneve tunnel of the kernel
    Geneve,
    /// IP packets for a program
    Tun,
    /// Ethernet frames for a program
    Tap,
    /// An interface with nothing behind it
    Dummy,
}

impl DeviceType {
    /// Every type.
    pub const ALL: [Self; 11] = [
        Self::Veth,
        Self::Bridge,
        Self::Macvlan,
        Self::Macvtap,
        Self::Ipvlan,
        Self::Vlan,
        Self::Vxlan,
        Self::Geneve,
        Self::Tun,
        Self::Tap,
        Self::Dummy,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Macvtap => "macvtap",
            Self::Ipvlan => "ipvlan",
            Self::Vlan => "vlan",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Tun => "tun",
            Self::Tap => "tap",
            Self::Dummy => "dummy",
        }
    }

    /// Whether it is made on another interface, without which it cannot be.
    pub const fn has_parent(self) -> bool {
        matches!(self, Self::Macvlan | Self::Macvtap | Self::Ipvlan | Self::Vlan)
    }

    /// Whether it is a tunnel.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Vxlan | Self::Geneve)
    }

    /// The types that have a key, where not all have it.
    pub(super) fn with_key(key: &str) -> Option<&'static [Self]> {
        Some(match key {
            "peer" => &[Self::Veth],
            "parent" => &[Self::Macvlan, Self::Macvtap, Self::Ipvlan, Self::Vlan],
            "mode" => &[Self::Macvlan, Self::Macvtap, Self::Ipvlan],
            "flag" => &[Self::Ipvlan],
            "link_netns" => {
                &[Self::Macvlan, Self::Macvtap, Self::Ipvlan, Self::Vlan, Self::Vxlan, Self::Geneve]
            }
            "id" => &[Self::Vlan, Self::Vxlan, Self::Geneve],
            "protocol" => &[Self::Vlan],
            "local" | "dev" | "learning" | "external" | "fdb" => &[Self::Vxlan],
            "remote" | "dstport" | "ttl" | "tos" | "udpcsum" => &[Self::Vxlan, Self::Geneve],
            "group" => &[Self::Vxlan, Self::Tun, Self::Tap],
            "stp" | "ageing" | "vlan_filtering" | "mcast_snooping" => &[Self::Bridge],
            "owner" | "queues" | "vnet_hdr" | "persistent" => &[Self::Tun, Self::Tap],
            // A TUN has packets, not frames.
            "mac" | "master" => &[
                Self::Veth,
                Self::Bridge,
                Self::Macvlan,
                Self::Macvtap,
                Self::Ipvlan,
                Self::Vlan,
                Self::Vxlan,
                Self::Geneve,
                Self::Tap,
                Self::Dummy,
            ],
            _ => return None,
        })
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for DeviceType {
    type Err = common::WordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let problem = "is no type of device: veth, bridge, macvlan, macvtap, ipvlan, vlan, vxlan, geneve, tun, tap or dummy";
        Self::ALL.into_iter().find(|t| t.as_str() == s).ok_or_else(|| common::WordError::new(s, problem))
    }
}

/// What can be said of a device beside its name and its type.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceOptions {
    /// Network namespace of the interface: a name, a process number or a path [default: the daemon's own]
    #[arg(long, value_name = "NAME|PID|PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// Make the namespaces of device and peer that are named and not there [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_netns: Option<OnOff>,
    /// MAC address [default: the kernel chooses]
    #[arg(long, value_name = "MAC")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Longest IP packet in octets, 68 to 65535 [default: the kernel chooses]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Address; may be given several times
    #[arg(long, value_name = "CIDR", value_parser = common::address)]
    #[serde(default, deserialize_with = "common::addresses", skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<IpNet>,
    /// Bridge of the kernel that the device belongs to, in the same namespace
    #[arg(long, value_name = "DEV")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "UpDown::is_unset")]
    #[allow(missing_docs)]
    pub up: UpDown,
    /// Route by the device; may be given several times
    #[arg(long, value_name = "CIDR|default[ via IP][ metric N]")]
    #[serde(default, deserialize_with = "words::list", skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<Route>,
    /// Setting of the device below net/ipv4/conf or net/ipv6/conf; may be given several times
    #[arg(long, value_name = "ipv4|ipv6.KEY=VALUE")]
    #[serde(default, deserialize_with = "words::list", skip_serializing_if = "Vec::is_empty")]
    pub sysctl: Vec<Sysctl>,

    #[command(flatten)]
    #[serde(default, skip_serializing_if = "Peer::is_unset")]
    #[allow(missing_docs)]
    pub peer: Peer,

    /// Interface that the device is on, in the namespace --link-netns
    #[arg(long, value_name = "DEV", help_heading = "Type macvlan, macvtap, ipvlan, vlan")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Network namespace of parent and dev, and of the socket of a tunnel [default: the daemon's own]
    #[arg(long, value_name = "NAME|PID|PATH", help_heading = "Type macvlan, macvtap, ipvlan, vlan")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_netns: Option<Netns>,
    /// How the devices of one parent reach each other: bridge, vepa, private, passthru or source; l2, l3 or l3s of ipvlan [default: bridge, of ipvlan l2]
    #[arg(long, value_name = "MODE", help_heading = "Type macvlan, macvtap, ipvlan, vlan")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<DeviceMode>,
    /// Who on the same parent reaches an ipvlan: bridge is everybody, private nobody, vepa whom a switch outside sends back to [default: bridge]
    #[arg(long, value_name = "bridge|private|vepa", help_heading = "Type macvlan, macvtap, ipvlan, vlan")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<IpvlanFlag>,
    /// VLAN of a vlan, 1 to 4094; network of a tunnel, 0 to 16777215
    #[arg(long, value_name = "VID|VNI", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Tag of the VLAN [default: 802.1q]
    #[arg(long, value_name = "802.1q|802.1ad", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<VlanProtocol>,
    /// Address of this end
    #[arg(long, value_name = "IP", value_parser = tunnel::ip, help_heading = "Type vlan, vxlan, geneve")]
    #[serde(default, deserialize_with = "tunnel::maybe_ip", skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Address of the other end
    #[arg(long, value_name = "IP", value_parser = tunnel::ip, help_heading = "Type vlan, vxlan, geneve")]
    #[serde(default, deserialize_with = "tunnel::maybe_ip", skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// Multicast group of a vxlan; number of the group that may open a tun or tap
    #[arg(long, value_name = "IP|GID", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<DeviceGroup>,
    /// Interface that packets leave by, in the namespace --link-netns
    #[arg(long, value_name = "DEV", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// UDP port of all ends [default: 4789 of vxlan, 6081 of geneve]
    #[arg(long, value_name = "N", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dstport: Option<u16>,
    /// TTL or hop limit of the outer header, 1 to 255 [default: the kernel chooses]
    #[arg(long, value_name = "N|inherit", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Inherit<u8>>,
    /// TOS or traffic class of the outer header [default: 0]
    #[arg(long, value_name = "N|inherit", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<Inherit<u8>>,
    /// Learn behind which end addresses are [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<OnOff>,
    /// Send a UDP checksum in the outer IPv4 header [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udpcsum: Option<OnOff>,
    /// Take network and ends from what each packet carries, instead of id and remote [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<OnOff>,
    /// Static forwarding entry of a vxlan, 00:00:00:00:00:00 for every unknown address; may be given several times
    #[arg(long, value_name = "MAC dst IP[ vni N][ port N]", help_heading = "Type vlan, vxlan, geneve")]
    #[serde(default, deserialize_with = "words::list", skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<VxlanEntry>,

    /// Speak the spanning tree protocol [default: off]
    #[arg(long, value_name = "on|off", help_heading = "Type bridge")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stp: Option<OnOff>,
    /// Forget a learned address that was not heard of for this long [default: 300s]
    #[arg(long, value_name = "DURATION", help_heading = "Type bridge")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ageing: Option<Seconds>,
    /// Look at VLAN tags [default: off]
    #[arg(long, value_name = "on|off", help_heading = "Type bridge")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_filtering: Option<OnOff>,
    /// Send multicast only to where it was asked for [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Type bridge")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcast_snooping: Option<OnOff>,

    /// Number of the user that may open it [default: root alone]
    #[arg(long, value_name = "UID", help_heading = "Type tun, tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// Descriptors that can be open at once, 1 to 256; the kernel tells one from several [default: 1]
    #[arg(long, value_name = "N", help_heading = "Type tun, tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Frames carry a virtio header [default: whoever opens it decides]
    #[arg(long, value_name = "on|off", help_heading = "Type tun, tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnet_hdr: Option<OnOff>,
    /// Stay when the daemon ends; without it the daemon holds one of several queues, and the device ends with it [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Type tun, tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<OnOff>,
}

/// A device of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize)]
pub struct DeviceSpec {
    /// Name of the device and of its interface, at most 15 bytes
    pub name: DeviceName,
    /// What kind of device it is
    #[arg(long = "type", value_name = "TYPE")]
    #[serde(rename = "type")]
    pub kind: DeviceType,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub options: DeviceOptions,
}

impl DeviceSpec {
    /// Every setting in force: what has no default and was not given stays away, and the kernel chooses.
    pub fn effective(&self) -> DeviceOptions {
        let mut all = self.options.clone();
        all.up = UpDown::of(all.up.is_up());
        all.create_netns.get_or_insert(OnOff(false));
        all.address.sort_unstable();
        all.address.dedup();
        all.route.sort_unstable();
        all.route.dedup();
        all.sysctl.sort_unstable();
        all.sysctl.dedup();
        all.fdb.sort_unstable();
        all.fdb.dedup();
        all.peer.address.sort_unstable();
        all.peer.address.dedup();
        match self.kind {
            DeviceType::Macvlan | DeviceType::Macvtap => {
                all.mode.get_or_insert(DeviceMode::Bridge);
            }
            DeviceType::Ipvlan => {
                all.mode.get_or_insert(DeviceMode::L2);
                all.flag.get_or_insert(IpvlanFlag::Bridge);
            }
            DeviceType::Vlan => {
                all.protocol.get_or_insert(VlanProtocol::Dot1q);
            }
            DeviceType::Bridge => {
                all.stp.get_or_insert(OnOff(false));
                all.ageing.get_or_insert(super::defaults::DEFAULT_AGEING);
                all.vlan_filtering.get_or_insert(OnOff(false));
                all.mcast_snooping.get_or_insert(OnOff(true));
            }
            DeviceType::Vxlan | DeviceType::Geneve => {
                let port = if self.kind == DeviceType::Vxlan {
                    all.learning.get_or_insert(OnOff(true));
                    all.external.get_or_insert(OnOff(false));
                    crate::wire::vxlan::PORT
                } else {
                    crate::wire::geneve::PORT
                };
                all.dstport.get_or_insert(port);
                all.tos.get_or_insert(Inherit::Fixed(0));
                all.udpcsum.get_or_insert(OnOff(true));
            }
            DeviceType::Tun | DeviceType::Tap => {
                all.queues.get_or_insert(1);
                all.persistent.get_or_insert(OnOff(true));
            }
            DeviceType::Veth | DeviceType::Dummy => {}
        }
        all
    }

    /// The interfaces that it brings, by namespace and name: one, of a veth two.
    pub fn interfaces(&self) -> impl Iterator<Item = (Option<&Netns>, &str)> {
        let peer = &self.options.peer;
        let other = peer.name.as_ref().filter(|_| self.kind == DeviceType::Veth);
        let own = (self.options.netns.as_ref(), self.name.as_str());
        std::iter::once(own).chain(other.map(|name| (peer.netns.as_ref(), name.as_str())))
    }
}
