//! The requests that make and change devices: from words to attributes. No I/O.
//!
//! What `ip link add` sends for the same device, attribute by attribute, and one more: the group that says that the
//! device is not finished.

use std::{net::IpAddr, os::fd::RawFd, time::Duration};

use netlink_packet_route::{
    AddressFamily,
    link::{
        BridgeStpState, InfoBridge, InfoData, InfoGeneve, InfoIpVlan, InfoKind, InfoMacVlan, InfoMacVtap,
        InfoVeth, InfoVlan, InfoVxlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkInfo, LinkMessage,
        MacVlanMode, VlanProtocol as WireProtocol,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{
    Bridge, Device, FdbEntry, Geneve, Ipvlan, IpvlanFlag, IpvlanMode, Kind, MacvlanMode, Peer, Tos, Ttl,
    UNFINISHED_GROUP, Vlan, VlanProtocol, Vxlan,
};

/// The kernel writes "that of the packet inside" as a type of service of 1 (`vxlan_xmit_one`, `geneve_get_v4_rt`).
pub(super) const TOS_INHERIT: u8 = 1;

// The states of a forwarding entry that does not age (linux/neighbour.h).
pub(super) const NUD_PERMANENT: u16 = 0x80;
const NUD_NOARP: u16 = 0x40;

/// What the words of a device stand for right now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resolved {
    /// The number of the parent.
    pub(super) parent: Option<u32>,
    /// The namespace of the device, where the request is sent in another.
    pub(super) netns: Option<RawFd>,
    /// The namespace of a veth's peer, where the request is sent in another.
    pub(super) peer_netns: Option<RawFd>,
}

/// `ip link add`: the request that makes a device; not for a TUN or TAP, which are made by ioctl.
pub(super) fn new_link(device: &Device, resolved: Resolved) -> LinkMessage {
    let mut message = LinkMessage::default();
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(device.name.clone()));
    if let (Some(parent), false) = (resolved.parent, matches!(device.kind, Kind::Vxlan(_))) {
        attributes.push(LinkAttribute::Link(parent));
    }
    if let Some(mac) = device.mac {
        attributes.push(LinkAttribute::Address(mac.octets().to_vec()));
    }
    if let Some(mtu) = device.mtu {
        attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(netns) = resolved.netns {
        attributes.push(LinkAttribute::NetNsFd(netns));
    }
    attributes.push(LinkAttribute::Group(UNFINISHED_GROUP));
    let mut info = vec![LinkInfo::Kind(info_kind(&device.kind))];
    info.extend(new_data(device, resolved).map(LinkInfo::Data));
    attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// `ip link set DEVICE type KIND …`: changes the options that are given in `kind`, and no other.
pub(super) fn change_link(index: u32, kind: &Kind, parent: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mut info = vec![LinkInfo::Kind(info_kind(kind))];
    info.extend(data(kind, parent, Request::Change).map(LinkInfo::Data));
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

fn info_kind(kind: &Kind) -> InfoKind {
    match kind {
        Kind::Veth(_) => InfoKind::Veth,
        Kind::Bridge(_) => InfoKind::Bridge,
        Kind::Macvlan(_) => InfoKind::MacVlan,
        Kind::Macvtap(_) => InfoKind::MacVtap,
        Kind::Ipvlan(_) => InfoKind::IpVlan,
        Kind::Vlan(_) => InfoKind::Vlan,
        Kind::Vxlan(_) => InfoKind::Vxlan,
        Kind::Geneve(_) => InfoKind::Geneve,
        Kind::Tun(_) | Kind::Tap(_) => InfoKind::Tun,
        Kind::Dummy => InfoKind::Dummy,
    }
}

fn new_data(device: &Device, resolved: Resolved) -> Option<InfoData> {
    match &device.kind {
        Kind::Veth(peer) => Some(InfoData::Veth(InfoVeth::Peer(peer_message(peer, device.mtu, resolved)))),
        kind => data(kind, resolved.parent, Request::New),
    }
}

/// The other end, as an `ip link add` of its own inside the first one (`VETH_INFO_PEER`).
fn peer_message(peer: &Peer, mtu: Option<u32>, resolved: Resolved) -> LinkMessage {
    let mut message = LinkMessage::default();
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(peer.name.clone()));
    if let Some(mac) = peer.mac {
        attributes.push(LinkAttribute::Address(mac.octets().to_vec()));
    }
    if let Some(mtu) = mtu {
        attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(netns) = resolved.peer_netns {
        attributes.push(LinkAttribute::NetNsFd(netns));
    }
    attributes.push(LinkAttribute::Group(UNFINISHED_GROUP));
    message
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    New,
    /// Without what the kernel refuses to hear of a device that exists, even where it stays the same.
    Change,
}

/// The options of a kind (`IFLA_INFO_DATA`); `None` where none is given.
fn data(kind: &Kind, parent: Option<u32>, request: Request) -> Option<InfoData> {
    let some = |given: bool, data: InfoData| given.then_some(data);
    match kind {
        Kind::Bridge(bridge) => {
            let mut bridge = *bridge;
            // A kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses to hear of it, even where it is to be off as it is anyway.
            if request == Request::New {
                bridge.vlan_filtering = bridge.vlan_filtering.filter(|on| *on);
            }
            let data = bridge_data(bridge);
            some(!data.is_empty(), InfoData::Bridge(data))
        }
        Kind::Macvlan(macvlan) => {
            macvlan.mode.map(|mode| InfoData::MacVlan(vec![InfoMacVlan::Mode(macvlan_mode(mode))]))
        }
        Kind::Macvtap(macvtap) => {
            macvtap.mode.map(|mode| InfoData::MacVtap(vec![InfoMacVtap::Mode(macvlan_mode(mode))]))
        }
        Kind::Ipvlan(ipvlan) => {
            let data = ipvlan_data(ipvlan);
            some(!data.is_empty(), InfoData::IpVlan(data))
        }
        Kind::Vlan(vlan) => some(request == Request::New, InfoData::Vlan(vlan_data(vlan))),
        Kind::Vxlan(vxlan) => Some(InfoData::Vxlan(vxlan_data(vxlan, parent, request))),
        Kind::Geneve(geneve) => Some(InfoData::Geneve(geneve_data(geneve, request))),
        Kind::Veth(_) | Kind::Tun(_) | Kind::Tap(_) | Kind::Dummy => None,
    }
}

fn bridge_data(bridge: Bridge) -> Vec<InfoBridge> {
    let mut data = Vec::new();
    data.extend(bridge.ageing.map(|ageing| InfoBridge::AgeingTime(centiseconds(ageing))));
    data.extend(bridge.stp.map(|stp| {
        InfoBridge::StpState(if stp { BridgeStpState::KernelStp } else { BridgeStpState::Disabled })
    }));
    data.extend(bridge.vlan_filtering.map(InfoBridge::VlanFiltering));
    data.extend(bridge.mcast_snooping.map(InfoBridge::MulticastSnooping));
    data
}

/// The kernel's clock ticks for userspace (`USER_HZ`, 100 on every machine).
pub(super) fn centiseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 10).unwrap_or(u32::MAX)
}

fn macvlan_mode(mode: MacvlanMode) -> MacVlanMode {
    match mode {
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
        MacvlanMode::Source => MacVlanMode::Source,
    }
}

fn ipvlan_data(ipvlan: &Ipvlan) -> Vec<InfoIpVlan> {
    let mut data = Vec::new();
    data.extend(ipvlan.mode.map(|mode| {
        InfoIpVlan::Mode(match mode {
            IpvlanMode::L2 => IpVlanMode::L2,
            IpvlanMode::L3 => IpVlanMode::L3,
            IpvlanMode::L3s => IpVlanMode::L3S,
        })
    }));
    data.extend(ipvlan.flag.map(|flag| {
        InfoIpVlan::Flags(match flag {
            IpvlanFlag::Bridge => IpVlanFlags::empty(),
            IpvlanFlag::Private => IpVlanFlags::Private,
            IpvlanFlag::Vepa => IpVlanFlags::Vepa,
        })
    }));
    data
}

fn vlan_data(vlan: &Vlan) -> Vec<InfoVlan> {
    let mut data = vec![InfoVlan::Id(vlan.id)];
    data.extend(vlan.protocol.map(|protocol| {
        InfoVlan::Protocol(match protocol {
            VlanProtocol::Dot1q => WireProtocol::Ieee8021Q,
            VlanProtocol::Dot1ad => WireProtocol::Ieee8021Ad,
        })
    }));
    data
}

fn vxlan_data(vxlan: &Vxlan, dev: Option<u32>, request: Request) -> Vec<InfoVxlan> {
    let mut data = Vec::new();
    // `vxlan_nl2conf` refuses to hear of these on a device that exists: "Cannot change …".
    if request == Request::New {
        if !(vxlan.external && vxlan.id == 0) {
            data.push(InfoVxlan::Id(vxlan.id));
        }
        data.push(InfoVxlan::Port(vxlan.dstport));
        data.extend(vxlan.udpcsum.map(InfoVxlan::UDPCsum));
        if vxlan.external {
            data.push(InfoVxlan::CollectMetadata(true));
        }
        // What iproute2 takes for granted, and the kernel in part: there is nothing to learn where destinations come with the packet.
        if vxlan.learning.is_none() {
            data.push(InfoVxlan::Learning(!vxlan.external));
        }
        if vxlan.ttl == Some(Ttl::Inherit) {
            data.push(InfoVxlan::TtlInheritFlag);
        }
    }
    data.extend(vxlan.group.or(vxlan.remote).map(|to| match to {
        IpAddr::V4(to) => InfoVxlan::Group(to),
        IpAddr::V6(to) => InfoVxlan::Group6(to),
    }));
    data.extend(vxlan.local.map(|from| match from {
        IpAddr::V4(from) => InfoVxlan::Local(from),
        IpAddr::V6(from) => InfoVxlan::Local6(from),
    }));
    data.extend(dev.map(InfoVxlan::Link));
    if let Some(Ttl::Fixed(ttl)) = vxlan.ttl {
        data.push(InfoVxlan::Ttl(ttl));
    }
    data.extend(vxlan.tos.map(|tos| InfoVxlan::Tos(tos_octet(tos))));
    data.extend(vxlan.learning.map(InfoVxlan::Learning));
    data
}

fn geneve_data(geneve: &Geneve, request: Request) -> Vec<InfoGeneve> {
    let mut data = Vec::new();
    // `geneve_nl2info` refuses to hear of these on a device that exists: "Changing … is not supported".
    if request == Request::New {
        data.push(InfoGeneve::Id(geneve.id));
        data.push(InfoGeneve::Port(geneve.dstport));
        data.extend(geneve.udpcsum.map(InfoGeneve::UdpCsum));
    }
    data.extend(geneve.remote.map(|to| match to {
        IpAddr::V4(to) => InfoGeneve::Remote(to),
        IpAddr::V6(to) => InfoGeneve::Remote6(to),
    }));
    data.extend(geneve.ttl.map(|ttl| match ttl {
        Ttl::Inherit => InfoGeneve::TtlInherit(true),
        Ttl::Fixed(ttl) => InfoGeneve::Ttl(ttl),
    }));
    data.extend(geneve.tos.map(|tos| InfoGeneve::Tos(tos_octet(tos))));
    data
}

fn tos_octet(tos: Tos) -> u8 {
    match tos {
        Tos::Inherit => TOS_INHERIT,
        Tos::Fixed(tos) => tos,
    }
}

/// One forwarding entry of a vxlan, to add or to delete (`bridge fdb append|del MAC dev VXLAN dst DST self permanent`).
pub(super) fn fdb_entry(index: u32, entry: &FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Other(NUD_PERMANENT | NUD_NOARP); // as `bridge fdb` has it
    message.header.flags = NeighbourFlags::Own; // NTF_SELF: the device's own table, not that of a bridge it is in
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(entry.mac.octets().to_vec()),
        NeighbourAttribute::Destination(match entry.dst {
            IpAddr::V4(dst) => NeighbourAddress::Inet(dst),
            IpAddr::V6(dst) => NeighbourAddress::Inet6(dst),
        }),
    ];
    message.attributes.extend(entry.vni.map(NeighbourAttribute::Vni));
    message.attributes.extend(entry.port.map(NeighbourAttribute::Port));
    message
}
