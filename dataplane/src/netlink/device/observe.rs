//! Reading devices back from the kernel.

use std::{collections::HashMap, net::IpAddr, os::fd::AsFd, time::Duration};

use ipnet::IpNet;
use netlink_packet_core::Nla;
use netlink_packet_route::{
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol},
    link::{
        BridgeStpState, InfoBridge, InfoData, InfoGeneve, InfoIpVlan, InfoKind, InfoMacVlan, InfoMacVtap,
        InfoTun, InfoVlan, InfoVxlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage, MacVlanMode, VlanProtocol as WireProtocol,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};

use super::{
    Bridge, Device, DeviceError, FdbEntry, Geneve, Ipvlan, IpvlanFlag, IpvlanMode, Kind, LEAVING_GROUP,
    Macvlan, MacvlanMode, Mark, Observed, Peer, Tos, Ttl, Tun, UNFINISHED_GROUP, Vlan, VlanProtocol, Vxlan,
    place::Place,
    request::{NUD_PERMANENT, TOS_INHERIT},
};
use crate::{
    netlink::{NetlinkError, OperState, Socket, link},
    netns::Netns,
    wire::MacAddr,
};

/// The alias of a device of ours starts with this …
const ALIAS: &str = "tapway:";
/// … and that of the other end of a veth of ours with this.
const PEER_ALIAS: &str = "tapway-peer:";

/// The alias that says that this device is ours.
pub(super) fn alias(name: &str) -> String {
    format!("{ALIAS}{name}")
}

/// The alias of the other end of a veth of ours.
pub(super) fn peer_alias(name: &str) -> String {
    format!("{PEER_ALIAS}{name}")
}

// The attributes of a TUN or TAP (`IFLA_TUN_*`, linux/if_link.h), which the packet crate leaves as bytes.
const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_GROUP: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;

/// The device of this name, or `None` where there is none.
///
/// Sysctls are read as far as `wanted` has them, and its namespaces are those that
/// [`link_elsewhere`](Observed::link_elsewhere) is about.
pub fn observe(
    name: &str,
    netns: Option<&Netns>,
    wanted: Option<&Device>,
) -> Result<Option<Observed>, DeviceError> {
    let place = Place::open(name, netns)?;
    let mut socket = place.socket(name)?;
    observe_by(name, &place, &mut socket, wanted)
}

/// The same in a namespace that is open already.
pub(super) fn observe_by(
    name: &str,
    place: &Place,
    socket: &mut Socket,
    wanted: Option<&Device>,
) -> Result<Option<Observed>, DeviceError> {
    let refused = |source| DeviceError::Netlink { device: name.to_owned(), source };
    let Some(message) = socket.link_message_by_name(name).map_err(refused)? else { return Ok(None) };
    // A link is found by its alternative names too; those do not make it this device.
    if text(&message, |a| match a {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    }) != Some(name)
    {
        return Ok(None);
    }
    let index = message.header.index;
    let mut tables = Tables::new(socket, Some(index));
    let mut observed = tables.observed(&message).map_err(refused)?;
    complete(&mut observed, place, socket, wanted)?;
    Ok(Some(observed))
}

/// Every device of a namespace, also those that are not ours.
pub fn list(netns: Option<&Netns>, wanted: &[&Device]) -> Result<Vec<Observed>, DeviceError> {
    let every = "*";
    let place = Place::open(every, netns)?;
    let mut socket = place.socket(every)?;
    let refused = |source| DeviceError::Netlink { device: every.to_owned(), source };
    let messages = socket.link_messages().map_err(refused)?;
    let mut tables = Tables::new(&mut socket, None);
    for message in &messages {
        if let Some(name) = text(message, |a| match a {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        }) {
            tables.names.insert((None, message.header.index), Some(name.to_owned()));
        }
    }
    let mut all =
        messages.iter().map(|m| tables.observed(m)).collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let wanted: HashMap<&str, &Device> =
        wanted.iter().map(|device| (device.name.as_str(), *device)).collect();
    for observed in &mut all {
        if let Some(wanted) = wanted.get(observed.name.as_str()) {
            complete(observed, &place, &mut socket, Some(wanted))?;
        }
    }
    Ok(all)
}

/// Fills in what only somebody's wishes say where to look for.
fn complete(
    observed: &mut Observed,
    place: &Place,
    socket: &mut Socket,
    wanted: Option<&Device>,
) -> Result<(), DeviceError> {
    let Some(wanted) = wanted else { return Ok(()) };
    observed.sysctls = super::sysctl::read(place, &wanted.name, &wanted.sysctls)?;
    if observed.kind.as_ref().map(Kind::name) != Some(wanted.kind.name()) {
        return Ok(());
    }
    let expected = match &wanted.kind {
        Kind::Veth(peer) => peer.netns.as_ref(),
        kind if kind.is_linked() => wanted.link_netns.as_ref(),
        _ => return Ok(()),
    };
    // A namespace that is gone took its devices along: what stands on them is gone too, or stands elsewhere.
    let Ok(expected) = Place::open(&wanted.name, expected) else {
        observed.link_elsewhere = true;
        return Ok(());
    };
    observed.link_elsewhere = match observed.link_netnsid {
        // `geneve_link_ops` has no `get_link_net`: where its underlay is, nobody can know.
        None if matches!(wanted.kind, Kind::Geneve(_)) => false,
        None => !expected.is(place),
        Some(_) if expected.is(place) => true,
        Some(id) => {
            let known = socket
                .netns_id(expected.netns.as_fd())
                .map_err(|source| DeviceError::Netlink { device: wanted.name.clone(), source })?;
            known != Some(id)
        }
    };
    Ok(())
}

/// What one socket has been asked so far: tables that hold the answers for many devices are read once.
struct Tables<'a> {
    socket: &'a mut Socket,
    /// Of this device alone.
    only: Option<u32>,
    /// Names by namespace and number.
    names: HashMap<(Option<i32>, u32), Option<String>>,
    /// Addresses by namespace.
    addresses: HashMap<Option<i32>, Vec<AddressMessage>>,
    routes: Option<Vec<(u32, super::Route)>>,
    fdb: Option<Vec<NeighbourMessage>>,
}

impl<'a> Tables<'a> {
    fn new(socket: &'a mut Socket, only: Option<u32>) -> Self {
        Self { socket, only, names: HashMap::new(), addresses: HashMap::new(), routes: None, fdb: None }
    }

    fn observed(&mut self, message: &LinkMessage) -> Result<Observed, NetlinkError> {
        let index = message.header.index;
        let mut observed = Observed {
            index,
            name: String::new(),
            mark: Mark::Foreign,
            kind_name: String::new(),
            kind: None,
            mac: None,
            mtu: 0,
            mtu_range: None,
            addresses: self.addresses(None, index)?,
            up: message.header.flags.contains(LinkFlags::Up),
            operstate: OperState::Unknown,
            master: None,
            routes: self.routes(index)?,
            sysctls: Vec::new(),
            link_index: None,
            link_netnsid: None,
            link_elsewhere: false,
        };
        let (mut group, mut label, mut info) = (0, "", None);
        let (mut min, mut max) = (0, 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => observed.name.clone_from(name),
                LinkAttribute::Address(octets) => observed.mac = link::mac(octets),
                LinkAttribute::Mtu(mtu) => observed.mtu = *mtu,
                LinkAttribute::MinMtu(mtu) => min = *mtu,
                LinkAttribute::MaxMtu(mtu) => max = *mtu,
                LinkAttribute::OperState(state) => observed.operstate = (*state).into(),
                LinkAttribute::Controller(master) => observed.master = self.name(None, *master)?,
                LinkAttribute::Link(link) if *link != index => observed.link_index = Some(*link),
                LinkAttribute::LinkNetNsId(id) => observed.link_netnsid = Some(*id),
                LinkAttribute::Group(number) => group = *number,
                LinkAttribute::IfAlias(alias) => label = alias.trim_end_matches('\0'),
                LinkAttribute::LinkInfo(infos) => info = Some(infos),
                _ => {}
            }
        }
        // A veth's peer may have its very number in another namespace.
        if observed.link_index.is_none() && observed.link_netnsid.is_some() {
            observed.link_index = message.attributes.iter().find_map(|a| match a {
                LinkAttribute::Link(link) => Some(*link),
                _ => None,
            });
        }
        if max != 0 {
            observed.mtu_range = Some((min, max));
        }
        observed.mark = if matches!(group, UNFINISHED_GROUP | LEAVING_GROUP) {
            Mark::Unfinished
        } else if label.starts_with(ALIAS) {
            Mark::Ours
        } else if label.starts_with(PEER_ALIAS) {
            Mark::Peer
        } else {
            Mark::Foreign
        };
        if let Some(infos) = info {
            self.kind(infos, &mut observed)?;
        }
        Ok(observed)
    }

    /// The name of a device, in another namespace where a number for it is given.
    fn name(&mut self, netnsid: Option<i32>, index: u32) -> Result<Option<String>, NetlinkError> {
        if index == 0 {
            return Ok(None);
        }
        if let Some(name) = self.names.get(&(netnsid, index)) {
            return Ok(name.clone());
        }
        let message = self.socket.link_message_by_index(index, netnsid)?;
        let name = message.and_then(|message| {
            message.attributes.into_iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        });
        self.names.insert((netnsid, index), name.clone());
        Ok(name)
    }

    fn addresses(&mut self, netnsid: Option<i32>, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        if !self.addresses.contains_key(&netnsid) {
            let only = self.only.filter(|_| netnsid.is_none());
            let messages = self.socket.address_messages(only, netnsid)?;
            self.addresses.insert(netnsid, messages);
        }
        let messages = self.addresses.get(&netnsid).map(Vec::as_slice).unwrap_or_default();
        Ok(messages.iter().filter(|m| m.header.index == index).filter_map(chosen_address).collect())
    }

    fn routes(&mut self, index: u32) -> Result<Vec<super::Route>, NetlinkError> {
        let routes = match &mut self.routes {
            Some(routes) => routes,
            unread => unread.insert(self.socket.static_routes(self.only)?),
        };
        Ok(routes.iter().filter(|(by, _)| *by == index).map(|(_, route)| *route).collect())
    }

    fn kind(&mut self, infos: &[LinkInfo], observed: &mut Observed) -> Result<(), NetlinkError> {
        let mut kind = None;
        let mut data = None;
        for info in infos {
            match info {
                LinkInfo::Kind(found) => kind = Some(found),
                LinkInfo::Data(found) => data = Some(found),
                _ => {}
            }
        }
        let Some(kind) = kind else { return Ok(()) };
        observed.kind_name = kind.to_string();
        observed.kind = match (kind, data) {
            (InfoKind::Dummy, _) => Some(Kind::Dummy),
            (InfoKind::Veth, _) => Some(Kind::Veth(self.peer(observed)?)),
            (_, Some(InfoData::Bridge(data))) => Some(Kind::Bridge(bridge(data))),
            (_, Some(InfoData::MacVlan(data))) => {
                let mode = data
                    .iter()
                    .find_map(|a| if let InfoMacVlan::Mode(m) = a { macvlan_mode(*m) } else { None });
                Some(Kind::Macvlan(Macvlan { parent: self.parent(observed)?, mode }))
            }
            (_, Some(InfoData::MacVtap(data))) => {
                let mode = data
                    .iter()
                    .find_map(|a| if let InfoMacVtap::Mode(m) = a { macvlan_mode(*m) } else { None });
                Some(Kind::Macvtap(Macvlan { parent: self.parent(observed)?, mode }))
            }
            (_, Some(InfoData::IpVlan(data))) => Some(Kind::Ipvlan(ipvlan(data, self.parent(observed)?))),
            (_, Some(InfoData::Vlan(data))) => Some(Kind::Vlan(vlan(data, self.parent(observed)?))),
            (_, Some(InfoData::Vxlan(data))) => Some(Kind::Vxlan(self.vxlan(data, observed)?)),
            (_, Some(InfoData::Geneve(data))) => Some(Kind::Geneve(geneve(data))),
            (_, Some(InfoData::Tun(data))) => {
                let kind = tun(data);
                kind.name().clone_into(&mut observed.kind_name);
                Some(kind)
            }
            _ => None,
        };
        Ok(())
    }

    fn parent(&mut self, observed: &Observed) -> Result<String, NetlinkError> {
        let Some(index) = observed.link_index else { return Ok(String::new()) };
        Ok(self.name(observed.link_netnsid, index)?.unwrap_or_default())
    }

    fn peer(&mut self, observed: &Observed) -> Result<Peer, NetlinkError> {
        let Some(index) = observed.link_index else { return Ok(Peer::default()) };
        let netnsid = observed.link_netnsid;
        let Some(message) = self.socket.link_message_by_index(index, netnsid)? else {
            return Ok(Peer::default());
        };
        let mut peer = Peer::default();
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => peer.name = name,
                LinkAttribute::Address(octets) => peer.mac = link::mac(&octets),
                _ => {}
            }
        }
        // Both ends are in the same table where they are in the same namespace, unless that was read for one of them alone.
        peer.addresses = if netnsid.is_none() && self.only.is_some() {
            let messages = self.socket.address_messages(Some(index), None)?;
            messages.iter().filter(|m| m.header.index == index).filter_map(chosen_address).collect()
        } else {
            self.addresses(netnsid, index)?
        };
        Ok(peer)
    }

    fn vxlan(&mut self, data: &[InfoVxlan], observed: &Observed) -> Result<Vxlan, NetlinkError> {
        let mut vxlan = Vxlan { dstport: 0, ..Vxlan::default() };
        let mut to = None;
        for attribute in data {
            match attribute {
                InfoVxlan::Id(id) => vxlan.id = *id,
                InfoVxlan::Group(address) => to = Some(IpAddr::V4(*address)),
                InfoVxlan::Group6(address) => to = Some(IpAddr::V6(*address)),
                InfoVxlan::Local(address) => vxlan.local = Some(IpAddr::V4(*address)),
                InfoVxlan::Local6(address) => vxlan.local = Some(IpAddr::V6(*address)),
                InfoVxlan::Link(dev) => vxlan.dev = self.name(observed.link_netnsid, *dev)?,
                InfoVxlan::Port(port) => vxlan.dstport = *port,
                InfoVxlan::Learning(on) => vxlan.learning = Some(*on),
                InfoVxlan::Ttl(ttl) => vxlan.ttl = vxlan.ttl.or(Some(Ttl::Fixed(*ttl))),
                InfoVxlan::TtlInherit(1..) | InfoVxlan::TtlInheritFlag => vxlan.ttl = Some(Ttl::Inherit),
                InfoVxlan::Tos(tos) => vxlan.tos = Some(tos_of(*tos)),
                InfoVxlan::UDPCsum(on) => vxlan.udpcsum = Some(*on),
                InfoVxlan::CollectMetadata(on) => vxlan.external = *on,
                _ => {}
            }
        }
        match to {
            Some(to) if to.is_multicast() => vxlan.group = Some(to),
            to => vxlan.remote = to,
        }
        let fdb = match &mut self.fdb {
            Some(fdb) => fdb,
            unread => unread.insert(self.socket.bridge_neighbours(self.only)?),
        };
        let own = FdbEntry { mac: MacAddr::ZERO, dst: to.unwrap_or(UNSPECIFIED), vni: None, port: None };
        vxlan.fdb = fdb
            .iter()
            .filter(|m| m.header.ifindex == observed.index)
            .filter_map(|m| fdb_entry(m, &vxlan))
            .filter(|entry| *entry != own)
            .collect();
        Ok(vxlan)
    }
}

const UNSPECIFIED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

fn text<'a>(
    message: &'a LinkMessage,
    of: impl Fn(&'a LinkAttribute) -> Option<&'a String>,
) -> Option<&'a str> {
    message.attributes.iter().find_map(of).map(String::as_str)
}

/// An address that somebody chose: not one that runs out, nor one that the kernel made up by itself.
fn chosen_address(message: &AddressMessage) -> Option<IpNet> {
    if !message.header.flags.contains(AddressHeaderFlags::Permanent) {
        return None;
    }
    let made_up = message.attributes.iter().any(|a| {
        matches!(
            a,
            AddressAttribute::Protocol(
                AddressProtocol::Loopback | AddressProtocol::RouterAnnouncement | AddressProtocol::LinkLocal
            )
        )
    });
    if made_up {
        return None;
    }
    crate::netlink::address::net(message)
}

fn fdb_entry(message: &NeighbourMessage, vxlan: &Vxlan) -> Option<FdbEntry> {
    let permanent = u16::from(message.header.state) & NUD_PERMANENT != 0;
    if !permanent || !message.header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let (mut mac, mut dst, mut vni, mut port) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => mac = link::mac(octets),
            NeighbourAttribute::Destination(address) => dst = ip(address),
            NeighbourAttribute::Vni(number) => vni = Some(*number).filter(|vni| *vni != vxlan.id),
            NeighbourAttribute::Port(number) => port = Some(*number).filter(|port| *port != vxlan.dstport),
            _ => {}
        }
    }
    Some(FdbEntry { mac: mac?, dst: dst?, vni, port })
}

fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        // The packet crate goes by the family of the table, which is that of a bridge.
        NeighbourAddress::Other(octets) => <[u8; 4]>::try_from(octets.as_slice())
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(octets.as_slice()).map(IpAddr::from))
            .ok(),
        _ => None,
    }
}

pub(super) fn bridge(data: &[InfoBridge]) -> Bridge {
    let mut bridge = Bridge::default();
    for attribute in data {
        match attribute {
            InfoBridge::AgeingTime(time) => {
                bridge.ageing = Some(Duration::from_millis(u64::from(*time) * 10))
            }
            InfoBridge::StpState(state) => bridge.stp = Some(*state != BridgeStpState::Disabled),
            InfoBridge::VlanFiltering(on) => bridge.vlan_filtering = Some(*on),
            InfoBridge::MulticastSnooping(on) => bridge.mcast_snooping = Some(*on),
            _ => {}
        }
    }
    bridge
}

pub(super) fn macvlan_mode(mode: MacVlanMode) -> Option<MacvlanMode> {
    match mode {
        MacVlanMode::Bridge => Some(MacvlanMode::Bridge),
        MacVlanMode::Vepa => Some(MacvlanMode::Vepa),
        MacVlanMode::Private => Some(MacvlanMode::Private),
        MacVlanMode::Passthrough => Some(MacvlanMode::Passthru),
        MacVlanMode::Source => Some(MacvlanMode::Source),
        _ => None,
    }
}

pub(super) fn ipvlan(data: &[InfoIpVlan], parent: String) -> Ipvlan {
    let mut ipvlan = Ipvlan { parent, mode: None, flag: None };
    for attribute in data {
        match attribute {
            InfoIpVlan::Mode(IpVlanMode::L2) => ipvlan.mode = Some(IpvlanMode::L2),
            InfoIpVlan::Mode(IpVlanMode::L3) => ipvlan.mode = Some(IpvlanMode::L3),
            InfoIpVlan::Mode(IpVlanMode::L3S) => ipvlan.mode = Some(IpvlanMode::L3s),
            InfoIpVlan::Flags(flags) if flags.contains(IpVlanFlags::Private) => {
                ipvlan.flag = Some(IpvlanFlag::Private);
            }
            InfoIpVlan::Flags(flags) if flags.contains(IpVlanFlags::Vepa) => {
                ipvlan.flag = Some(IpvlanFlag::Vepa)
            }
            InfoIpVlan::Flags(_) => ipvlan.flag = Some(IpvlanFlag::Bridge),
            _ => {}
        }
    }
    ipvlan
}

pub(super) fn vlan(data: &[InfoVlan], parent: String) -> Vlan {
    let mut vlan = Vlan { parent, ..Vlan::default() };
    for attribute in data {
        match attribute {
            InfoVlan::Id(id) => vlan.id = *id,
            InfoVlan::Protocol(WireProtocol::Ieee8021Ad) => vlan.protocol = Some(VlanProtocol::Dot1ad),
            InfoVlan::Protocol(_) => vlan.protocol = Some(VlanProtocol::Dot1q),
            _ => {}
        }
    }
    vlan
}

pub(super) fn geneve(data: &[InfoGeneve]) -> Geneve {
    let mut geneve = Geneve { dstport: 0, ..Geneve::default() };
    for attribute in data {
        match attribute {
            InfoGeneve::Id(id) => geneve.id = *id,
            InfoGeneve::Remote(address) => geneve.remote = Some(IpAddr::V4(*address)),
            InfoGeneve::Remote6(address) => geneve.remote = Some(IpAddr::V6(*address)),
            InfoGeneve::Port(port) => geneve.dstport = *port,
            InfoGeneve::Ttl(ttl) => geneve.ttl = geneve.ttl.or(Some(Ttl::Fixed(*ttl))),
            InfoGeneve::TtlInherit(true) => geneve.ttl = Some(Ttl::Inherit),
            InfoGeneve::Tos(tos) => geneve.tos = Some(tos_of(*tos)),
            InfoGeneve::UdpCsum(on) => geneve.udpcsum = Some(*on),
            _ => {}
        }
    }
    geneve
}

fn tos_of(tos: u8) -> Tos {
    if tos == TOS_INHERIT { Tos::Inherit } else { Tos::Fixed(tos) }
}

fn tun(data: &[InfoTun]) -> Kind {
    // An owner or group that nobody set is left out.
    let mut tun =
        Tun { multi_queue: Some(false), vnet_hdr: Some(false), persistent: Some(false), ..Tun::default() };
    let mut tap = false;
    for attribute in data {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        let octet = value.first().copied().unwrap_or_default();
        let number = <[u8; 4]>::try_from(value.as_slice()).ok().map(u32::from_ne_bytes);
        match attribute.kind() {
            IFLA_TUN_OWNER => tun.owner = number,
            IFLA_TUN_GROUP => tun.group = number,
            IFLA_TUN_TYPE => tap = i32::from(octet) == libc::IFF_TAP,
            IFLA_TUN_VNET_HDR => tun.vnet_hdr = Some(octet != 0),
            IFLA_TUN_PERSIST => tun.persistent = Some(octet != 0),
            IFLA_TUN_MULTI_QUEUE => tun.multi_queue = Some(octet != 0),
            _ => {}
        }
    }
    if tap { Kind::Tap(tun) } else { Kind::Tun(tun) }
}
