//! Bridges, uplinks, ports, static FDB entries and known neighbours as an operator describes them.
//!
//! One field is one flag (`--fdb-limit`), one key of a file, of JSON and of Varlink (`fdb_limit`), and its comment is
//! the help text. A field left out means the default, which the comment names.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    vlans,
    words::{self, AdminState, BridgeName, Netns, OnOff, PortName, Seconds, Secure, VlanList},
};
use crate::wire::{MacAddr, Vid};

/// The greatest `--fdb-limit`.
pub const MAX_FDB_LIMIT: u32 = 16 << 20;

pub use super::defaults::{DEFAULT_AGEING, DEFAULT_FDB_LIMIT};

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
    /// Learn at most this many addresses, 0 for no limit [default: 0]
    #[arg(long, value_name = "N", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_limit: Option<u32>,
    /// Broadcast, unknown unicast and multicast frames a second that may enter, 0 for no limit [default: 0]
    #[arg(long, value_name = "PPS", help_heading = "Policy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storm_limit: Option<u32>,
    /// Longest IP packet in octets, 68 to 65521 [default: 1500]
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
    #[arg(long, value_name = "NAME", help_heading = "Type tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Network namespace of the interface: a name, a process number or a path [default: the daemon's own]
    #[arg(long, value_name = "NAME|PID|PATH", help_heading = "Type tap")]
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
    /// Queues of the interface, 1 to 256 [default: one a worker]
    #[arg(long, value_name = "N", help_heading = "Type tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Keep the interface when the daemon ends [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", help_heading = "Type tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<OnOff>,
    /// Checksum and segmentation offload between switch and kernel [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Type tap")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload: Option<OnOff>,
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
    /// The address never moves to another port, and a frame that claims it elsewhere is dropped
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
}

/// A neighbour that the bridge answers for.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args, Serialize)]
pub struct NeighSpec {
    /// The neighbour's IP address
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
    #[arg(long, value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
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
