//! Bridges, uplinks, ports, static FDB entries and known neighbours as an operator describes them.
//!
//! One field is one flag (`--fdb-limit`), one key of a file, of JSON and of Varlink (`fdb_limit`), and its comment is
//! the help text. A field left out means the default, which the comment names.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    tunnel::{self, Df, Inherit, PortRange, Reserved, VlanVni},
    vlans,
    words::{self, AdminState, BridgeName, Netns, OnOff, PortName, Seconds, Secure, VlanList},
};
use crate::wire::{GeneveOption, MacAddr, Vid, Vni};

/// The greatest `--fdb-limit`.
pub const MAX_FDB_LIMIT: u32 = 16 << 20;

pub use super::defaults::{DEFAULT_AGEING, DEFAULT_FDB_LIMIT, DEFAULT_MOVE_LIMIT, DEFAULT_SRC_PORT};

/// What can be said of a bridge beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeOptions {
    /// Forget a learned address that was not heard of for this long [default: 300s]
    #[arg(long, value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ageing: Option<Seconds>,
    /// Hold at most this many FDB entries [default: 65536]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdb_limit: Option<u32>,
    /// Hold an address for 30 s where it last stayed, at its Nth move within 180 s; 0 to follow every move [default: 5]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub move_limit: Option<u32>,
    /// Answer ARP requests and neighbour solicitations for neighbours that were heard of, too [default: off]
    #[arg(long, value_name = "on|off")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neigh_snoop: Option<OnOff>,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize)]
pub struct BridgeSpec {
    /// Name of the bridge, at most 15 bytes
    pub name: BridgeName,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub options: BridgeOptions,
}

/// What is behind a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortType {
    /// A TAP interface that the switch owns
    #[default]
    Tap,
    /// An interface that exists: the TAP of a VM, a veth end, a NIC
    Netdev,
    /// A VM over a Unix stream socket, as QEMU's -netdev stream
    Stream,
    /// A VM over Unix datagram sockets, as QEMU's -netdev dgram
    Dgram,
    /// A VM whose virtio rings the switch serves itself
    VhostUser,
    /// A VXLAN tunnel (RFC 7348)
    Vxlan,
    /// A Geneve tunnel (RFC 8926)
    Geneve,
}

impl fmt::Display for PortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tap => "tap",
            Self::Netdev => "netdev",
            Self::Stream => "stream",
            Self::Dgram => "dgram",
            Self::VhostUser => "vhost-user",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        })
    }
}

impl PortType {
    pub(super) const fn is_tap(self) -> bool {
        matches!(self, Self::Tap)
    }

    pub(super) const fn is_netdev(self) -> bool {
        matches!(self, Self::Netdev)
    }

    pub(super) const fn is_vxlan(self) -> bool {
        matches!(self, Self::Vxlan)
    }

    /// Whether an interface of the kernel is behind the port.
    pub const fn has_interface(self) -> bool {
        matches!(self, Self::Tap | Self::Netdev)
    }

    /// Whether a socket in the file system is behind the port.
    pub const fn has_path(self) -> bool {
        matches!(self, Self::Stream | Self::Dgram | Self::VhostUser)
    }

    /// Whether the switch says how long packets are, where an operator does not.
    pub(super) const fn has_mtu(self) -> bool {
        matches!(self, Self::Tap) || self.has_path()
    }

    /// Whether frames can pass with work left to do.
    pub const fn has_offload(self) -> bool {
        matches!(self, Self::Tap | Self::Netdev | Self::VhostUser)
    }

    /// Whether its connection has a side that waits for the other and one that goes to it.
    pub(super) const fn listens_or_connects(self) -> bool {
        matches!(self, Self::Stream | Self::Dgram)
    }

    pub(super) const fn is_vhost_user(self) -> bool {
        matches!(self, Self::VhostUser)
    }

    /// Whether frames leave encapsulated, for other switches.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Vxlan | Self::Geneve)
    }
}

/// How the frames of an interface are reached that is not the switch's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// Packet sockets (AF_PACKET)
    #[default]
    Packet,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Packet => "packet",
        })
    }
}

/// What can be said of a port beside its name and its bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortOptions {
    /// What is behind the port [default: tap]
    #[arg(long = "type", value_name = "TYPE")]
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<PortType>,

    /// Untagged in and out, member of this VLAN alone
    #[arg(long, value_name = "V", help_heading = "VLAN", conflicts_with_all = ["trunk", "native", "qinq"])]
    #[serde(default, deserialize_with = "vlans::vid", skip_serializing_if = "Option::is_none")]
    pub access: Option<Vid>,
    /// Tagged member of these VLANs: 10,20,100-199 or all
    #[arg(long, value_name = "LIST", help_heading = "VLAN", conflicts_with = "qinq")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<VlanList>,
    /// VLAN of a trunk's untagged frames; without it they are dropped
    #[arg(long, value_name = "V", help_heading = "VLAN")]
    #[serde(default, deserialize_with = "vlans::vid", skip_serializing_if = "Option::is_none")]
    pub native: Option<Vid>,
    /// Customer tags are payload; this is the service VLAN, an 802.1ad tag on trunks
    #[arg(long, value_name = "V", help_heading = "VLAN")]
    #[serde(default, deserialize_with = "vlans::vid", skip_serializing_if = "Option::is_none")]
    pub qinq: Option<Vid>,

    /// Learn source addresses [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<OnOff>,
    /// Send unknown unicast out of this port [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<OnOff>,
    /// Send broadcast out of this port [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bcast_flood: Option<OnOff>,
    /// Send multicast out of this port [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcast_flood: Option<OnOff>,
    /// Send frames back out of the port they came from [default: off]
    #[arg(long, value_name = "on|off", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hairpin: Option<OnOff>,
    /// Reach only ports that are not isolated [default: off]
    #[arg(long, value_name = "on|off", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolated: Option<OnOff>,
    /// Let only known source addresses enter [default: off]
    #[arg(long, value_name = "on|off", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<OnOff>,
    /// Learn at most this many addresses, 0 for no limit [default: 0, with secure one a VLAN]
    #[arg(long, value_name = "N", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// Broadcast, unknown unicast and multicast frames a second that may enter, 0 for no limit [default: 0, with secure 1000]
    #[arg(long, value_name = "PPS", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm_limit: Option<u32>,
    /// Longest IP packet in octets, 68 to 65521 [default: 1500, of a netdev what its interface has, of a tunnel what its underlay carries]
    #[arg(long, value_name = "N", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether the port carries frames [default: up]
    #[arg(long, value_name = "up|down", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminState>,
    /// Let only these source addresses enter, ARP and ND checked too; no DHCP server, router advertisement or BPDU
    #[arg(long, value_name = "mac=MAC[,ip=IP…]", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<Secure>,

    /// Name of the interface [default: the port's name]
    #[arg(long, value_name = "NAME", help_heading = "Type tap, netdev")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Network namespace of the interface, or of a tunnel's sockets: a name, a process number or a path [default: the daemon's own]
    #[arg(long, value_name = "NAME|PID|PATH", help_heading = "Type tap, netdev")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// Address of the interface; may be given several times
    #[arg(long, value_name = "CIDR", value_parser = words::address, help_heading = "Type tap")]
    #[serde(default, deserialize_with = "words::addresses", skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<IpNet>,
    /// MAC address of the interface [default: the kernel chooses]
    #[arg(long, value_name = "MAC", help_heading = "Type tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Queues of the interface, or pairs of queues of a VM at most, 1 to 256 [default: one a worker]
    #[arg(long, value_name = "N", help_heading = "Type tap, netdev, vhost-user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Keep the interface when the daemon ends [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", help_heading = "Type tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<OnOff>,
    /// Checksum and segmentation offload between switch and kernel, or switch and VM [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Type tap, netdev, vhost-user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload: Option<OnOff>,

    /// How frames are taken from the interface and given to it [default: packet]
    #[arg(long, value_name = "DRIVER", help_heading = "Type netdev")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// Send past the interface's queueing discipline: faster, without its shaping [default: off]
    #[arg(long, value_name = "on|off", help_heading = "Type netdev")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qdisc_bypass: Option<OnOff>,

    /// Socket in the file system that the port and the VM meet at: an absolute path
    #[arg(long, value_name = "PATH", help_heading = "Type stream, dgram, vhost-user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Make the socket and wait for the VM [default: on, of a dgram port with peer-path off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", conflicts_with = "connect", help_heading = "Type stream, dgram")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<OnOff>,
    /// Go to the VM, which waits [default: off, of a dgram port with peer-path on]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", help_heading = "Type stream, dgram")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<OnOff>,
    /// The VM's own socket, to which frames go; without it to whoever sends first, until that one is gone
    #[arg(long, value_name = "PATH", help_heading = "Type dgram")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_path: Option<String>,
    /// Make the socket and wait for the VM [default: on]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", conflicts_with = "client", help_heading = "Type vhost-user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<OnOff>,
    /// Go to the VM, which waits [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", help_heading = "Type vhost-user")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<OnOff>,

    /// Network of all VLANs that vlan-vni does not name
    #[arg(long, value_name = "N", help_heading = tunnel::HEADING)]
    #[serde(default, deserialize_with = "tunnel::vni", skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "VlanVni::is_empty")]
    #[allow(missing_docs)]
    pub vlan_vni: VlanVni,
    /// Address of this end, which a tunnel needs
    #[arg(long, value_name = "IP", value_parser = tunnel::ip, help_heading = tunnel::HEADING)]
    #[serde(default, deserialize_with = "tunnel::maybe_ip", skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Address of another end, what is flooded goes to each; may be given several times
    #[arg(long, value_name = "IP", value_parser = tunnel::ip, help_heading = tunnel::HEADING)]
    #[serde(default, deserialize_with = "tunnel::ips", skip_serializing_if = "Vec::is_empty")]
    pub remote: Vec<IpAddr>,
    /// Multicast group to which what is flooded goes, instead of to remotes
    #[arg(long, value_name = "IP", value_parser = tunnel::ip, help_heading = tunnel::HEADING)]
    #[serde(default, deserialize_with = "tunnel::maybe_ip", skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// Interface on which the group is joined
    #[arg(long, value_name = "IF", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay_dev: Option<String>,
    /// UDP port of all ends [default: 4789 of vxlan, 6081 of geneve]
    #[arg(long, value_name = "N", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// Source ports, one for each flow; the sockets of a tunnel use 16 of the range [default: 49152-65535]
    #[arg(long, value_name = "MIN-MAX", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<PortRange>,
    /// TTL or hop limit of the outer header, 1 to 255 [default: 64]
    #[arg(long, value_name = "N|inherit", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Inherit<u8>>,
    /// TOS or traffic class of the outer header, 0 to 255; its ECN bits are those of RFC 6040 in any case [default: 0]
    #[arg(long, value_name = "N|inherit", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<Inherit<u8>>,
    /// Don't Fragment of the outer IPv4 header [default: unset]
    #[arg(long, value_name = "set|unset|inherit", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub df: Option<Df>,
    /// Send a UDP checksum in the outer header [default: on]
    #[arg(long, value_name = "on|off", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_csum: Option<OnOff>,
    /// Take an outer UDP checksum of zero over IPv6, too (RFC 6935) [default: off]
    #[arg(long, value_name = "on|off", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp6_zero_csum_rx: Option<OnOff>,
    /// Drop what comes from an address that is none of the remotes [default: on where learning is off, else off]
    #[arg(long, value_name = "on|off", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_check: Option<OnOff>,
    /// Broadcast, unknown unicast and multicast frames a second that may leave by the tunnel, 0 for no limit [default: 0]
    #[arg(long, value_name = "PPS", help_heading = tunnel::HEADING)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bum_limit: Option<u32>,

    /// Speak the group policy extension [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", help_heading = "Type vxlan")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbp: Option<OnOff>,
    /// Group of what leaves by the tunnel, 0 to 65535
    #[arg(long, value_name = "N", help_heading = "Type vxlan")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbp_id: Option<u16>,
    /// What to do with reserved bits that are set: ignore, as RFC 7348 says, or drop, as Linux does [default: ignore]
    #[arg(long, value_name = "ignore|drop", help_heading = "Type vxlan")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    /// Option of every packet, in hexadecimal; may be given several times
    #[arg(long, value_name = "CLASS:TYPE:HEX", help_heading = "Type geneve")]
    #[serde(default, deserialize_with = "tunnel::options", skip_serializing_if = "Vec::is_empty")]
    pub option: Vec<GeneveOption>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize)]
pub struct PortSpec {
    /// Name of the port, at most 15 bytes
    pub name: PortName,
    /// Bridge the port belongs to
    #[arg(long, value_name = "BR")]
    pub bridge: BridgeName,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub options: PortOptions,
}

/// A static or sticky FDB entry.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize)]
pub struct FdbSpec {
    /// The address
    pub mac: MacAddr,
    /// Bridge of the entry
    #[arg(long, value_name = "BR")]
    pub bridge: BridgeName,
    /// VLAN of the entry; 0 is for untagged frames of ports without VLAN flags
    #[arg(long, value_name = "V", default_value_t = 0)]
    pub vlan: u16,
    /// Port behind which the address is
    #[arg(long, value_name = "P")]
    pub port: PortName,
    /// Other end of the tunnel behind which the address is
    #[arg(long, value_name = "IP", value_parser = tunnel::ip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// The address never moves to another port, and a frame that claims it elsewhere is dropped
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
}

/// A neighbour that the bridge answers for.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize)]
pub struct NeighSpec {
    /// The neighbour's IP address
    #[arg(value_parser = tunnel::ip)]
    pub ip: IpAddr,
    /// Its MAC address
    pub mac: MacAddr,
    /// Bridge that answers for it
    #[arg(long, value_name = "BR")]
    pub bridge: BridgeName,
    /// VLAN of the neighbour; 0 is for untagged frames of ports without VLAN flags
    #[arg(long, value_name = "V", default_value_t = 0)]
    pub vlan: u16,
}

/// What can be said of an uplink beside its name and its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkOptions {
    /// Address of the interface's other end, the host's, and the switch's next hop [default: the first other address of the prefix]
    #[arg(long, value_name = "IP", value_parser = tunnel::ip)]
    #[serde(default, deserialize_with = "tunnel::maybe_ip", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name of the interface [default: the uplink's name]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Network namespace of the interface: a name, a process number or a path [default: the daemon's own]
    #[arg(long, value_name = "NAME|PID|PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// MAC address of the interface [default: the kernel chooses]
    #[arg(long, value_name = "MAC")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Longest outer IP packet in octets, 68 to 65521 [default: 1500]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Queues of the interface, 1 to 256 [default: one a worker]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Checksum and segmentation offload between switch and kernel, that of tunnels included [default: on]
    #[arg(long, value_name = "on|off")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload: Option<OnOff>,
}

/// A routed TAP between the host's stack and the switch, which owns an address at its end.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize)]
pub struct UplinkSpec {
    /// Name of the uplink, at most 15 bytes; no port has it
    pub name: PortName,
    /// The switch's own address; a tunnel whose local address it is uses the uplink
    #[arg(long, value_name = "CIDR", value_parser = words::address)]
    pub address: IpNet,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub options: UplinkOptions,
}
