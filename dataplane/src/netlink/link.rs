//! Links: what the kernel calls a network interface.

use std::{
    fmt,
    os::fd::{AsRawFd, BorrowedFd},
};

use netlink_packet_core::Nla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State},
};
use rustix::io::Errno;

use super::socket::{NetlinkError, Purpose, Socket};
use crate::wire::MacAddr;

// The attributes of a TUN or TAP (`IFLA_TUN_*`, linux/if_link.h), which the packet crate leaves as bytes.
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// The operational state of a link (RFC 2863 §3.1.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperState {
    /// The device does not say; usable where it is up.
    Unknown,
    /// A component is missing.
    NotPresent,
    /// Down.
    Down,
    /// The link below is down.
    LowerLayerDown,
    /// In a test.
    Testing,
    /// Up, but waiting for something external.
    Dormant,
    /// Up.
    Up,
}

impl fmt::Display for OperState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::NotPresent => "notpresent",
            Self::Down => "down",
            Self::LowerLayerDown => "lowerlayerdown",
            Self::Testing => "testing",
            Self::Dormant => "dormant",
            Self::Up => "up",
        })
    }
}

impl From<State> for OperState {
    fn from(state: State) -> Self {
        match state {
            State::NotPresent => Self::NotPresent,
            State::Down => Self::Down,
            State::LowerLayerDown => Self::LowerLayerDown,
            State::Testing => Self::Testing,
            State::Dormant => Self::Dormant,
            State::Up => Self::Up,
            _ => Self::Unknown,
        }
    }
}

/// What is special about a TUN or TAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunLink {
    /// A TAP; else a TUN.
    pub tap: bool,
    /// It outlives its descriptors.
    pub persist: bool,
    /// Frames carry a virtio header on its descriptors.
    pub vnet_hdr: bool,
    /// It may have several queues.
    pub multi_queue: bool,
    /// Descriptors attached, enabled or not; the kernel says so of a multi-queue device alone.
    pub queues: u32,
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number; unique in its namespace.
    pub index: u32,
    /// Its name; unique in its namespace.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Somebody is at its other end (`IFLA_CARRIER`).
    pub carrier: bool,
    /// Frames on it have Ethernet headers.
    pub ethernet: bool,
    /// The number of the device that it belongs to: a bridge, a bond.
    pub master: Option<u32>,
    /// Its Ethernet address, where it is an Ethernet link.
    pub mac: Option<MacAddr>,
    /// The longest packet, without the Ethernet header.
    pub mtu: u32,
    /// Operational state.
    pub operstate: OperState,
    /// Its kind in iproute2's words, where it has one: "veth", "tun" (also a TAP) …
    pub kind: Option<String>,
    /// What is special about a TUN or TAP.
    pub tun: Option<TunLink>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {}", self.name)
    }
}

impl Link {
    pub(super) fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: true,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            master: None,
            mac: None,
            mtu: 0,
            operstate: OperState::Unknown,
            kind: None,
            tun: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(octets) => link.mac = mac(&octets),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Carrier(carrier) => link.carrier = carrier != 0,
                LinkAttribute::Controller(master) => link.master = Some(master),
                LinkAttribute::OperState(state) => link.operstate = state.into(),
                LinkAttribute::LinkInfo(infos) => link.take_info(infos),
                _ => {}
            }
        }
        link
    }

    fn take_info(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                LinkInfo::Data(InfoData::Tun(attributes)) => self.tun = Some(TunLink::new(&attributes)),
                _ => {}
            }
        }
    }
}

impl TunLink {
    fn new(attributes: &[InfoTun]) -> Self {
        let mut tun = Self::default();
        for attribute in attributes {
            let mut value = vec![0; attribute.value_len()];
            attribute.emit_value(&mut value);
            let octet = value.first().copied().unwrap_or_default();
            let number = <[u8; 4]>::try_from(value.as_slice()).map_or(0, u32::from_ne_bytes);
            match attribute.kind() {
                IFLA_TUN_TYPE => tun.tap = i32::from(octet) == libc::IFF_TAP,
                IFLA_TUN_VNET_HDR => tun.vnet_hdr = octet != 0,
                IFLA_TUN_PERSIST => tun.persist = octet != 0,
                IFLA_TUN_MULTI_QUEUE => tun.multi_queue = octet != 0,
                IFLA_TUN_NUM_QUEUES | IFLA_TUN_NUM_DISABLED_QUEUES => tun.queues += number,
                _ => {}
            }
        }
        tun
    }
}

/// An Ethernet address; `None` where these octets are that of another kind of link.
pub(super) fn mac(octets: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(octets).ok().map(MacAddr::from_octets)
}

/// Whether a refusal says that the namespace behind a number has ended, or has none (`rtnl_get_net_ns_capable`).
pub(super) fn gone(error: &NetlinkError) -> bool {
    matches!(error.errno, Errno::INVAL | Errno::NODEV)
}

/// A link that has only been asked for by name.
struct Named<'a>(&'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interface {}", self.0)
    }
}

impl Socket {
    /// The link of this name (or alternative name), or `None` where there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.link_message_by_name(name)?.map(Link::from_message))
    }

    /// The link of this number, or `None` where there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        Ok(self.link_message_by_index(index, None)?.map(Link::from_message))
    }

    pub(super) fn link_message_by_name(&mut self, name: &str) -> Result<Option<LinkMessage>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link_message(Purpose { operation: "look up", object: &Named(name) }, message)
    }

    /// In another namespace where the number of one is given (`IFLA_TARGET_NETNSID`).
    pub(super) fn link_message_by_index(
        &mut self,
        index: u32,
        netnsid: Option<i32>,
    ) -> Result<Option<LinkMessage>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.extend(netnsid.map(LinkAttribute::IfNetnsId));
        let object = format!("interface number {index}");
        match self.link_message(Purpose { operation: "look up", object: &object }, message) {
            Err(error) if netnsid.is_some() && gone(&error) => Ok(None),
            result => result,
        }
    }

    fn link_message(
        &mut self,
        purpose: Purpose<'_>,
        message: LinkMessage,
    ) -> Result<Option<LinkMessage>, NetlinkError> {
        match self.ask(purpose, RouteNetlinkMessage::GetLink(message)) {
            Ok(Some(RouteNetlinkMessage::NewLink(answer))) => Ok(Some(answer)),
            Ok(_) => Ok(None),
            Err(error) if error.errno == Errno::NODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        Ok(self.link_messages()?.into_iter().map(Link::from_message).collect())
    }

    pub(super) fn link_messages(&mut self) -> Result<Vec<LinkMessage>, NetlinkError> {
        let purpose = Purpose { operation: "list", object: &"interfaces" };
        let answers = self.dump(purpose, RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(message),
                _ => None,
            })
            .collect())
    }

    /// Sends a request to make a link, or to change its options (`RTM_NEWLINK`).
    pub(super) fn new_link(
        &mut self,
        operation: &'static str,
        name: &str,
        message: LinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let purpose = Purpose { operation, object: &Named(name) };
        self.change(purpose, RouteNetlinkMessage::NewLink(message), flags)
    }

    /// Changes attributes of a link (`RTM_SETLINK`).
    pub(super) fn set_attributes(
        &mut self,
        operation: &'static str,
        index: u32,
        name: &str,
        up: Option<bool>,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = attributes;
        if let Some(up) = up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        self.change(Purpose { operation, object: &Named(name) }, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes the link of this number; one that is not there is no error.
    pub(super) fn delete_index(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let purpose = Purpose { operation: "delete", object: &Named(name) };
        match self.change(purpose, RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if error.errno == Errno::NODEV => Ok(()),
            result => result,
        }
    }

    /// Deletes all links of a group at once: the kernel waits for its readers once, and not once for each.
    pub(super) fn delete_group(&mut self, group: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        let purpose = Purpose { operation: "delete", object: &"a group of interfaces" };
        match self.change(purpose, RouteNetlinkMessage::DelLink(message), 0) {
            // `rtnl_group_dellink`: nobody is in it.
            Err(error) if error.errno == Errno::NODEV => Ok(()),
            result => result,
        }
    }

    /// Moves a link into another namespace and gives it its name there; `%d` in the name stands for the first free number.
    /// EEXIST says that the name is taken there: the link may then have arrived under its old one.
    pub fn move_link(&mut self, link: &Link, netns: BorrowedFd<'_>, name: &str) -> Result<(), NetlinkError> {
        let attributes =
            vec![LinkAttribute::NetNsFd(netns.as_raw_fd()), LinkAttribute::IfName(name.to_owned())];
        self.set_link("move to its namespace", link, None, attributes)
    }

    /// Renames a link.
    pub fn rename_link(&mut self, link: &Link, name: &str) -> Result<(), NetlinkError> {
        self.set_link("rename", link, None, vec![LinkAttribute::IfName(name.to_owned())])
    }

    /// Sets a link's Ethernet address.
    pub fn set_link_mac(&mut self, link: &Link, mac: MacAddr) -> Result<(), NetlinkError> {
        let attributes = vec![LinkAttribute::Address(mac.octets().to_vec())];
        self.set_link("set the MAC address of", link, None, attributes)
    }

    /// Sets a link's MTU.
    pub fn set_link_mtu(&mut self, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link("set the MTU of", link, None, vec![LinkAttribute::Mtu(mtu)])
    }

    /// Sets a link administratively up or down.
    pub fn set_link_up(&mut self, link: &Link, up: bool) -> Result<(), NetlinkError> {
        self.set_link(if up { "set up" } else { "set down" }, link, Some(up), Vec::new())
    }

    fn set_link(
        &mut self,
        operation: &'static str,
        link: &Link,
        up: Option<bool>,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), NetlinkError> {
        self.set_attributes(operation, link.index, &link.name, up, attributes)
    }

    /// Deletes a link.
    pub fn delete_link(&mut self, link: &Link) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let purpose = Purpose { operation: "delete", object: link };
        self.change(purpose, RouteNetlinkMessage::DelLink(message), 0)
    }
}
