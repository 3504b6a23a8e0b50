//! The kinds of devices, each with the options that people set with `ip link`.

use std::{fmt, net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::{netns::Netns, wire::MacAddr};

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pair: what enters one end leaves by the other.
    Veth(Peer),
    /// The kernel's own Ethernet bridge.
    Bridge(Bridge),
    /// A further Ethernet address on its parent.
    Macvlan(Macvlan),
    /// The same with the descriptor end of a TAP (`/dev/tapN`), for a virtual machine.
    Macvtap(Macvlan),
    /// A further device on its parent that shares the parent's Ethernet address.
    Ipvlan(Ipvlan),
    /// The frames of its parent with one VLAN tag.
    Vlan(Vlan),
    /// A VXLAN tunnel (RFC 7348).
    Vxlan(Vxlan),
    /// A Geneve tunnel (RFC 8926).
    Geneve(Geneve),
    /// A TUN: packets to and from a program.
    Tun(Tun),
    /// A TAP: frames to and from a program.
    Tap(Tun),
    /// A device that loses what it is given.
    Dummy,
}

impl Kind {
    /// iproute2's word for it, which is also the kernel's (`IFLA_INFO_KIND`) but for TUN and TAP.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Veth(_) => "veth",
            Self::Bridge(_) => "bridge",
            Self::Macvlan(_) => "macvlan",
            Self::Macvtap(_) => "macvtap",
            Self::Ipvlan(_) => "ipvlan",
            Self::Vlan(_) => "vlan",
            Self::Vxlan(_) => "vxlan",
            Self::Geneve(_) => "geneve",
            Self::Tun(_) => "tun",
            Self::Tap(_) => "tap",
            Self::Dummy => "dummy",
        }
    }

    /// The kernel's build option that brings it.
    #[must_use]
    pub const fn config(&self) -> &'static str {
        match self {
            Self::Veth(_) => "CONFIG_VETH",
            Self::Bridge(_) => "CONFIG_BRIDGE",
            Self::Macvlan(_) => "CONFIG_MACVLAN",
            Self::Macvtap(_) => "CONFIG_MACVTAP",
            Self::Ipvlan(_) => "CONFIG_IPVLAN",
            Self::Vlan(_) => "CONFIG_VLAN_8021Q",
            Self::Vxlan(_) => "CONFIG_VXLAN",
            Self::Geneve(_) => "CONFIG_GENEVE",
            Self::Tun(_) | Self::Tap(_) => "CONFIG_TUN",
            Self::Dummy => "CONFIG_DUMMY",
        }
    }

    /// The device it stands on, which is in [`link_netns`](super::Device::link_netns): a parent, or a tunnel's `dev`.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        match self {
            Self::Macvlan(Macvlan { parent, .. })
            | Self::Macvtap(Macvlan { parent, .. })
            | Self::Ipvlan(Ipvlan { parent, .. })
            | Self::Vlan(Vlan { parent, .. }) => Some(parent),
            Self::Vxlan(vxlan) => vxlan.dev.as_deref(),
            _ => None,
        }
    }

    /// Whether it has a lower end, a parent or an underlay, that may be in another namespace than the device.
    #[must_use]
    pub const fn is_linked(&self) -> bool {
        matches!(
            self,
            Self::Macvlan(_)
                | Self::Macvtap(_)
                | Self::Ipvlan(_)
                | Self::Vlan(_)
                | Self::Vxlan(_)
                | Self::Geneve(_)
        )
    }
}

/// The other end of a veth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub netns: Option<Netns>,
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Its addresses, but for those that the kernel makes up by itself.
    pub addresses: Vec<IpNet>,
}

/// The options of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// How long it remembers a station that is silent (`IFLA_BR_AGEING_TIME`); the kernel counts in 1/100 s.
    pub ageing: Option<Duration>,
    /// Spanning tree (`IFLA_BR_STP_STATE`).
    pub stp: Option<bool>,
    /// VLAN aware (`IFLA_BR_VLAN_FILTERING`).
    pub vlan_filtering: Option<bool>,
    /// Multicast only where it is asked for (`IFLA_BR_MCAST_SNOOPING`).
    pub mcast_snooping: Option<bool>,
}

/// The options of a macvlan or macvtap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Macvlan {
    /// The device it is on.
    pub parent: String,
    /// Who on the same parent reaches it (`IFLA_MACVLAN_MODE`); the kernel's default is vepa.
    pub mode: Option<MacvlanMode>,
}

/// Who on the same parent reaches a macvlan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Its sisters, directly (`MACVLAN_MODE_BRIDGE`).
    Bridge,
    /// Its sisters, if the switch outside sends their frames back (`MACVLAN_MODE_VEPA`).
    Vepa,
    /// No sister (`MACVLAN_MODE_PRIVATE`).
    Private,
    /// It has the parent for itself (`MACVLAN_MODE_PASSTHRU`).
    Passthru,
    /// Whoever is on a list (`MACVLAN_MODE_SOURCE`).
    Source,
}

impl fmt::Display for MacvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Vepa => "vepa",
            Self::Private => "private",
            Self::Passthru => "passthru",
            Self::Source => "source",
        })
    }
}

/// The options of an ipvlan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipvlan {
    /// The device it is on.
    pub parent: String,
    /// Where it switches (`IFLA_IPVLAN_MODE`); the kernel's default is l3. One parent has one mode: all its ipvlans follow.
    pub mode: Option<IpvlanMode>,
    /// Who on the same parent reaches it (`IFLA_IPVLAN_FLAGS`); the kernel's default is bridge.
    pub flag: Option<IpvlanFlag>,
}

/// Where an ipvlan switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanMode {
    /// By Ethernet, in the device's own namespace (`IPVLAN_MODE_L2`).
    L2,
    /// By routing, in the parent's namespace, past its netfilter (`IPVLAN_MODE_L3`).
    L3,
    /// The same through the parent's netfilter (`IPVLAN_MODE_L3S`).
    L3s,
}

impl fmt::Display for IpvlanMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L2 => "l2",
            Self::L3 => "l3",
            Self::L3s => "l3s",
        })
    }
}

/// Who on the same parent reaches an ipvlan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// Its sisters, directly (no flag).
    Bridge,
    /// No sister (`IPVLAN_F_PRIVATE`).
    Private,
    /// Its sisters, if the switch outside sends their frames back (`IPVLAN_F_VEPA`).
    Vepa,
}

impl fmt::Display for IpvlanFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Private => "private",
            Self::Vepa => "vepa",
        })
    }
}

/// The options of a vlan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vlan {
    /// The device it is on.
    pub parent: String,
    /// The VLAN (`IFLA_VLAN_ID`).
    pub id: u16,
    /// The EtherType of the tag (`IFLA_VLAN_PROTOCOL`); the kernel's default is 802.1Q.
    pub protocol: Option<VlanProtocol>,
}

/// The EtherType of a VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanProtocol {
    /// 0x8100, a customer tag (`ETH_P_8021Q`).
    Dot1q,
    /// 0x88a8, a service tag (`ETH_P_8021AD`).
    Dot1ad,
}

impl fmt::Display for VlanProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dot1q => "802.1q",
            Self::Dot1ad => "802.1ad",
        })
    }
}

/// The time to live of outer packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// That of the packet inside.
    Inherit,
    /// This one; 0 is the host's default.
    Fixed(u8),
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => f.write_str("inherit"),
            Self::Fixed(ttl) => ttl.fmt(f),
        }
    }
}

/// The type of service of outer packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tos {
    /// That of the packet inside. The kernel writes it as 1.
    Inherit,
    /// This one.
    Fixed(u8),
}

impl fmt::Display for Tos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit => f.write_str("inherit"),
            Self::Fixed(tos) => write!(f, "{tos:#x}"),
        }
    }
}

/// The options of a vxlan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The VNI (`IFLA_VXLAN_ID`); 0 together with [`external`](Self::external).
    pub id: u32,
    /// The source address of outer packets (`IFLA_VXLAN_LOCAL`, `IFLA_VXLAN_LOCAL6`).
    pub local: Option<IpAddr>,
    /// Where unknown destinations go: one peer (`IFLA_VXLAN_GROUP`, `IFLA_VXLAN_GROUP6`).
    pub remote: Option<IpAddr>,
    /// Where unknown destinations go: a multicast group (the same attributes); needs [`dev`](Self::dev).
    pub group: Option<IpAddr>,
    /// The device outer packets leave by (`IFLA_VXLAN_LINK`).
    pub dev: Option<String>,
    /// The UDP port (`IFLA_VXLAN_PORT`). Always said: what the kernel takes for want of one (8472) is older than the RFC's 4789.
    pub dstport: u16,
    /// Learn stations from what arrives (`IFLA_VXLAN_LEARNING`).
    pub learning: Option<bool>,
    /// `IFLA_VXLAN_TTL`, `IFLA_VXLAN_TTL_INHERIT`.
    pub ttl: Option<Ttl>,
    /// `IFLA_VXLAN_TOS`.
    pub tos: Option<Tos>,
    /// Outer UDP checksums over IPv4 (`IFLA_VXLAN_UDP_CSUM`).
    pub udpcsum: Option<bool>,
    /// Destination and VNI come with each packet (`IFLA_VXLAN_COLLECT_METADATA`).
    pub external: bool,
    /// Its static forwarding entries, but for the one that [`remote`](Self::remote) or [`group`](Self::group) stands for.
    pub fdb: Vec<FdbEntry>,
}

impl Default for Vxlan {
    fn default() -> Self {
        Self {
            id: 0,
            local: None,
            remote: None,
            group: None,
            dev: None,
            dstport: 4789, // RFC 7348 §5
            learning: None,
            ttl: None,
            tos: None,
            udpcsum: None,
            external: false,
            fdb: Vec::new(),
        }
    }
}

/// A static forwarding entry of a vxlan: `bridge fdb append MAC dev VXLAN dst DST [vni VNI] [port PORT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdbEntry {
    /// The station; 00:00:00:00:00:00 stands for every unknown one, and may have several entries.
    pub mac: MacAddr,
    /// The peer it is behind.
    pub dst: IpAddr,
    /// The VNI, where it is not the device's own.
    pub vni: Option<u32>,
    /// The UDP port, where it is not the device's own.
    pub port: Option<u16>,
}

impl fmt::Display for FdbEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dst {}", self.mac, self.dst)?;
        if let Some(vni) = self.vni {
            write!(f, " vni {vni}")?;
        }
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        Ok(())
    }
}

/// The options of a geneve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geneve {
    /// The VNI (`IFLA_GENEVE_ID`).
    pub id: u32,
    /// The peer (`IFLA_GENEVE_REMOTE`, `IFLA_GENEVE_REMOTE6`).
    pub remote: Option<IpAddr>,
    /// The UDP port (`IFLA_GENEVE_PORT`).
    pub dstport: u16,
    /// `IFLA_GENEVE_TTL`, `IFLA_GENEVE_TTL_INHERIT`.
    pub ttl: Option<Ttl>,
    /// `IFLA_GENEVE_TOS`.
    pub tos: Option<Tos>,
    /// Outer UDP checksums over IPv4 (`IFLA_GENEVE_UDP_CSUM`).
    pub udpcsum: Option<bool>,
}

impl Default for Geneve {
    fn default() -> Self {
        Self {
            id: 0,
            remote: None,
            dstport: 6081, /* RFC 8926 §3.3 */
            ttl: None,
            tos: None,
            udpcsum: None,
        }
    }
}

/// The options of a TUN or TAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tun {
    /// The user who may attach without privilege (`TUNSETOWNER`, `IFLA_TUN_OWNER`).
    pub owner: Option<u32>,
    /// The group whose members may (`TUNSETGROUP`, `IFLA_TUN_GROUP`).
    pub group: Option<u32>,
    /// Several programs, or threads, may attach (`IFF_MULTI_QUEUE`). How many do is theirs to decide; the device has no number.
    pub multi_queue: Option<bool>,
    /// A virtio header before each packet (`IFF_VNET_HDR`); whoever attaches may change it.
    pub vnet_hdr: Option<bool>,
    /// It outlives the descriptors that are open (`TUNSETPERSIST`, `IFLA_TUN_PERSIST`). Without it, it lives as long as [`Held`](super::Held), or
    /// another descriptor.
    pub persistent: Option<bool>,
}
