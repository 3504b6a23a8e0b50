//! Static routes by a link.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rustix::io::Errno;

use super::{
    Link,
    device::Route,
    socket::{NetlinkError, Purpose, Socket},
};

/// A route by a link, in words.
struct By<'a>(IpAddr, &'a Link);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {} by {}", self.0, self.1)
    }
}

/// A route by a link with its next hop, in words.
struct Via<'a>(&'a Route, &'a Link);

impl fmt::Display for Via<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route to {} by {}", self.0, self.1)
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn route_message(link: &Link, route: &Route) -> RouteMessage {
    let on_link = route.via.is_none() && route.to.addr().is_ipv4();
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: if route.to.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
        destination_prefix_length: route.to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: if on_link { RouteScope::Link } else { RouteScope::Universe },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    // A default route has no destination.
    if route.to.prefix_len() != 0 {
        message.attributes.push(RouteAttribute::Destination(route_address(route.to.network())));
    }
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(route_address(via))));
    message.attributes.extend(route.src.map(|src| RouteAttribute::PrefSource(route_address(src))));
    message.attributes.push(RouteAttribute::Oif(link.index));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// A static route through one link, with the number of that.
fn static_route(message: &RouteMessage) -> Option<(u32, Route)> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.protocol != RouteProtocol::Static
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut to, mut by) = (any, None);
    let mut route = Route { to: any.into(), via: None, src: None, metric: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Gateway(address) => route.via = Some(ip(address)?),
            RouteAttribute::PrefSource(address) => route.src = Some(ip(address)?),
            RouteAttribute::Oif(index) => by = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            _ => {}
        }
    }
    route.to = IpNet::new(to, header.destination_prefix_length).ok()?;
    Some((by?, route.normal()))
}

/// The number of the link that a route goes by.
pub(super) fn link_of(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

impl Route {
    /// The same without what goes without saying, so that equal routes are equal.
    #[must_use]
    pub(super) fn normal(mut self) -> Self {
        self.to = self.to.trunc();
        let default = if self.to.addr().is_ipv4() { 0 } else { IP6_RT_PRIO_USER };
        self.metric = self.metric.filter(|metric| *metric != default);
        self
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to.fmt(f)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        if let Some(metric) = self.metric {
            write!(f, " metric {metric}")?;
        }
        Ok(())
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

/// Whether a refusal only says that there is no such table: the kernel makes the main table with its first route.
fn no_table(error: &NetlinkError) -> bool {
    error.errno == Errno::NOENT
}

/// The kernel's priority of an IPv6 route that has none (`IP6_RT_PRIO_USER`); IPv4 has 0.
const IP6_RT_PRIO_USER: u32 = 1024;

impl Socket {
    /// Adds a route (`ip route add TO [via VIA] dev LINK [src SRC] [metric METRIC] proto static`); the link must be up.
    pub(super) fn add_route(&mut self, link: &Link, route: &Route) -> Result<(), NetlinkError> {
        let purpose = Purpose { operation: "add", object: &Via(route, link) };
        self.change(
            purpose,
            RouteNetlinkMessage::NewRoute(route_message(link, route)),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Removes such a route; one that is not there is no error.
    pub(super) fn delete_route(&mut self, link: &Link, route: &Route) -> Result<(), NetlinkError> {
        let purpose = Purpose { operation: "remove", object: &Via(route, link) };
        match self.change(purpose, RouteNetlinkMessage::DelRoute(route_message(link, route)), 0) {
            Err(error) if error.errno == Errno::SRCH => Ok(()),
            result => result,
        }
    }

    /// The static routes by one link or by all, each with the number of its link, in the main table.
    pub(super) fn static_routes(&mut self, index: Option<u32>) -> Result<Vec<(u32, Route)>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            question.header.table = RouteHeader::RT_TABLE_MAIN;
            question.attributes.extend(index.map(RouteAttribute::Oif));
            let purpose = Purpose { operation: "list", object: &"routes" };
            match self.dump(purpose, RouteNetlinkMessage::GetRoute(question)) {
                Ok(answers) => routes.extend(answers.iter().filter_map(|answer| match answer {
                    RouteNetlinkMessage::NewRoute(message) => static_route(message),
                    _ => None,
                })),
                Err(error) if no_table(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

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
