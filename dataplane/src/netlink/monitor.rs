//! What the kernel tells about the devices of a namespace without being asked.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};

use crate::sys::netns;

// linux/rtnetlink.h, `enum rtnetlink_groups`
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// Octets of notifications the kernel keeps for us; more than that are [`Event::Lost`]. A burst is a link message (about 1.5 kB, counted
/// with its overhead) for each step of each of some hundreds of devices.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Octets of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

/// Something about the devices of a namespace changed. What it is now is for [`observe`](super::device::observe) to tell: it may
/// have changed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device came, or something about it changed: its name, state, options, master.
    Link {
        /// Its number.
        index: u32,
        /// Its name.
        name: String,
    },
    /// A device was deleted, or left the namespace.
    LinkGone {
        /// Its number.
        index: u32,
        /// Its name.
        name: String,
    },
    /// The addresses of a device changed.
    Address {
        /// The number of the device.
        index: u32,
    },
    /// The routes through a device changed.
    Route {
        /// The number of the device.
        index: u32,
    },
    /// There was more to tell than the kernel could keep (`ENOBUFS`): anything may have changed.
    Lost,
}

/// Listens to one namespace. Poll it for reading: it does not block.
///
/// It keeps its namespace alive, unlike everything else here: drop it when the namespace has lost its name or its last process.
pub struct Monitor {
    inner: netlink_sys::Socket,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("fd", &self.inner.as_raw_fd()).finish()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl Monitor {
    /// Listens to the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        Self::of(&[
            RTNLGRP_LINK,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_ROUTE,
        ])
    }

    /// Listens to another namespace.
    pub fn open_in(netns: BorrowedFd<'_>) -> io::Result<Self> {
        netns::within(netns, Self::open)?
    }

    /// Listens to another namespace for devices alone, not for their addresses and routes.
    pub fn links(netns: BorrowedFd<'_>) -> io::Result<Self> {
        netns::within(netns, || Self::of(&[RTNLGRP_LINK]))?
    }

    fn of(groups: &[u32]) -> io::Result<Self> {
        let mut inner = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        inner.bind(&SocketAddr::new(0, 0))?;
        inner.set_rx_buf_sz(RECEIVE_BUFFER)?;
        for &group in groups {
            inner.add_membership(group)?;
        }
        inner.set_non_blocking(true)?;
        Ok(Self { inner })
    }

    /// Takes everything that has been told by now.
    pub fn read(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            match self.inner.recv_from_full() {
                Ok((datagram, _)) => take(&datagram, &mut events),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => events.push(Event::Lost),
                Err(error) => return Err(error),
            }
        }
    }
}

fn take(datagram: &[u8], events: &mut Vec<Event>) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            // Something happened, and we do not understand what.
            events.push(Event::Lost);
            return;
        };
        let aligned = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(aligned.max(HEADER_LEN)..).unwrap_or_default();
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        let event = match message {
            RouteNetlinkMessage::NewLink(message) => {
                Event::Link { index: message.header.index, name: name(message) }
            }
            RouteNetlinkMessage::DelLink(message) => {
                Event::LinkGone { index: message.header.index, name: name(message) }
            }
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
                Event::Address { index: message.header.index }
            }
            RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
                match super::route::link_of(&message) {
                    Some(index) => Event::Route { index },
                    None => continue,
                }
            }
            _ => continue,
        };
        // One change of a device makes a dozen of them in a row.
        if events.last() != Some(&event) {
            events.push(event);
        }
    }
}

fn name(message: LinkMessage) -> String {
    let name = message.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    });
    name.unwrap_or_default()
}
