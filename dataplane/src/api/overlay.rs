//! What is shown of tunnels, their other ends, the uplinks that they go by, and the neighbours that bridges answer for.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Traffic;
use crate::{
    config::{BridgeName, Df, Inherit, Netns, OnOff, PortName, PortOptions, PortRange, Reserved, VlanVni},
    wire::{GeneveOption, MacAddr, Vni},
};

/// What a port has that is a tunnel: its settings in force, and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TunnelView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    #[serde(skip_serializing_if = "VlanVni::is_empty", default)]
    pub vlan_vni: VlanVni,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// Those that an operator has named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remotes: Option<Vec<IpAddr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay_dev: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<PortRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Inherit<u8>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<Inherit<u8>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub df: Option<Df>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_csum: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp6_zero_csum_rx: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_check: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bum_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbp: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gbp_id: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub option: Vec<GeneveOption>,
    /// Longest IP packet that the underlay carries inside the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_mtu: Option<u32>,
    /// How packets leave: `sockets`, or `uplink NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

impl TunnelView {
    /// The settings of a port, which are those in force; nothing where it is no tunnel.
    pub fn of(options: PortOptions) -> Self {
        if !options.kind_or_default().is_tunnel() {
            return Self::default();
        }
        Self {
            vni: options.vni,
            vlan_vni: options.vlan_vni,
            local: options.local,
            remotes: Some(options.remote),
            group: options.group,
            underlay_dev: options.underlay_dev,
            dst_port: options.dst_port,
            src_port: options.src_port,
            ttl: options.ttl,
            tos: options.tos,
            df: options.df,
            udp_csum: options.udp_csum,
            udp6_zero_csum_rx: options.udp6_zero_csum_rx,
            remote_check: options.remote_check,
            bum_limit: options.bum_limit,
            gbp: options.gbp,
            gbp_id: options.gbp_id,
            reserved: options.reserved,
            option: options.option,
            inner_mtu: None,
            via: None,
        }
    }
}

/// Another end of a tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RemoteView {
    pub port: PortName,
    pub remote: IpAddr,
    /// Longest outer IP packet that goes there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
    /// Addresses that were learned behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<u64>,
}

/// A neighbour that a bridge answers for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NeighView {
    pub bridge: BridgeName,
    pub vlan: u16,
    pub ip: IpAddr,
    pub mac: MacAddr,
    /// `static` or `snooped`.
    pub kind: String,
    /// Seconds since the neighbour was last heard of, or entered.
    pub age_s: u32,
}

/// An uplink as it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct UplinkView {
    pub name: PortName,
    pub address: IpNet,
    /// None where the prefix has no other address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    pub ifname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    pub mtu: u32,
    /// `up` or `down`.
    pub oper: String,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub queues: u16,
    /// What was negotiated with the kernel; empty without offload.
    pub offload: Vec<String>,
    pub rx: Traffic,
    pub tx: Traffic,
    pub drops: BTreeMap<String, u64>,
}
