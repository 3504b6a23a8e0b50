//! IP addresses of links.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
};
use rustix::io::Errno;

use super::{
    Link,
    link::gone,
    socket::{NetlinkError, Purpose, Socket},
};

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Address and prefix length.
    pub net: IpNet,
    /// Not usable yet: duplicate address detection is under way, or has found a duplicate.
    pub tentative: bool,
}

/// An address of a link, in words.
struct On<'a>(IpNet, &'a Link);

impl fmt::Display for On<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} on {}", self.0, self.1)
    }
}

fn message(link: &Link, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.index = link.index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

impl Socket {
    /// Adds an address. An IPv6 address is usable at once: duplicate address detection is left out (`IFA_F_NODAD`),
    /// because the operator chose the address and the port may have no peer yet to ask.
    /// EEXIST says that the link has it already.
    pub fn add_address(&mut self, link: &Link, net: IpNet) -> Result<(), NetlinkError> {
        let mut message = message(link, net);
        if matches!(net, IpNet::V6(_)) {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let purpose = Purpose { operation: "add", object: &On(net, link) };
        self.change(purpose, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes an address; one that is not there is no error.
    pub fn delete_address(&mut self, link: &Link, net: IpNet) -> Result<(), NetlinkError> {
        let purpose = Purpose { operation: "remove", object: &On(net, link) };
        match self.change(purpose, RouteNetlinkMessage::DelAddress(message(link, net)), 0) {
            Err(error) if error.errno == Errno::ADDRNOTAVAIL => Ok(()),
            result => result,
        }
    }

    /// The addresses of a link.
    pub fn addresses(&mut self, link: &Link) -> Result<Vec<Address>, NetlinkError> {
        let messages = self.address_messages(Some(link.index), None)?;
        Ok(messages.iter().filter(|message| message.header.index == link.index).filter_map(address).collect())
    }

    /// The addresses of one link or of all; in another namespace where the number of one is given (`IFA_TARGET_NETNSID`).
    pub(super) fn address_messages(
        &mut self,
        index: Option<u32>,
        netnsid: Option<i32>,
    ) -> Result<Vec<AddressMessage>, NetlinkError> {
        let mut question = AddressMessage::default();
        question.header.index = index.unwrap_or_default();
        question.attributes.extend(netnsid.map(AddressAttribute::TargetNetNsId));
        let purpose = Purpose { operation: "list", object: &"addresses" };
        let answers = match self.dump(purpose, RouteNetlinkMessage::GetAddress(question)) {
            Err(error) if netnsid.is_some() && gone(&error) => Vec::new(),
            result => result?,
        };
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => Some(message),
                _ => None,
            })
            .collect())
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let tentative = message.header.flags.contains(AddressHeaderFlags::Tentative);
    Some(Address { net: net(message)?, tentative })
}

/// The address itself.
pub(super) fn net(message: &AddressMessage) -> Option<IpNet> {
    let mut local: Option<IpAddr> = None;
    let mut remote: Option<IpAddr> = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            _ => {}
        }
    }
    // The kernel leaves IFA_LOCAL out where it equals IFA_ADDRESS (IPv6 without a peer).
    IpNet::new(local.or(remote)?, message.header.prefix_len).ok()
}
