//! Routes to one host by a link.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rustix::io::Errno;

use super::{
    Link,
    socket::{NetlinkError, Purpose, Socket},
};

/// A route by a link, in words.
struct By<'a>(IpAddr, &'a Link);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {} by {}", self.0, self.1)
    }
}

/// The route to one address, which is directly behind the link, in the main table.
fn message(link: &Link, to: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
        destination_prefix_length: IpNet::from(to).prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        // IPv6 routes have no scope; the kernel reports them as global.
        scope: if to.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    let destination = match to {
        IpAddr::V4(to) => RouteAddress::Inet(to),
        IpAddr::V6(to) => RouteAddress::Inet6(to),
    };
    message.attributes = vec![RouteAttribute::Destination(destination), RouteAttribute::Oif(link.index)];
    message
}

impl Socket {
    /// Adds the route to one address that is directly behind the link (`ip route add ADDRESS dev LINK`); the link must be up.
    /// EEXIST says that there is a route to this address.
    pub fn add_host_route(&mut self, link: &Link, to: IpAddr) -> Result<(), NetlinkError> {
        let purpose = Purpose { operation: "add", object: &By(to, link) };
        self.change(purpose, RouteNetlinkMessage::NewRoute(message(link, to)), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes such a route; one that is not there is no error.
    pub fn delete_host_route(&mut self, link: &Link, to: IpAddr) -> Result<(), NetlinkError> {
        let purpose = Purpose { operation: "remove", object: &By(to, link) };
        match self.change(purpose, RouteNetlinkMessage::DelRoute(message(link, to)), 0) {
            Err(error) if error.errno == Errno::SRCH => Ok(()),
            result => result,
        }
    }
}
