//! The single steps that creating and changing a device are made of, each with the error that an operator can act on.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;
use rustix::io::Errno;

use super::{Bridge, DeviceError, FdbEntry, Kind, Route, difference::made_up, place::Place, request};
use crate::{
    netlink::{Link, NetlinkError, Socket},
    wire::MacAddr,
};

/// The smallest MTU of any device that carries IPv4 (linux/if_ether.h).
const ETH_MIN_MTU: u32 = 68;
/// The largest (linux/if_ether.h).
const ETH_MAX_MTU: u32 = 65535;

/// One end of a device: the interface that is configured.
#[derive(Debug)]
pub(super) struct End<'a> {
    /// The device it belongs to, for errors.
    device: &'a str,
    place: &'a Place,
    socket: Socket,
    link: Link,
    mtu_range: Option<(u32, u32)>,
}

/// What a refusal means.
pub(super) fn refused(device: &str, error: NetlinkError) -> DeviceError {
    let device = device.to_owned();
    match error.errno {
        Errno::PERM | Errno::ACCESS => {
            DeviceError::Permission { device, operation: format!("{} {}", error.operation, error.object) }
        }
        _ => DeviceError::Netlink { device, source: error },
    }
}

/// What it means that the kernel did not make a device.
pub(super) fn not_made(
    device: &str,
    kind: &Kind,
    mtu: Option<u32>,
    parent_mtu: Option<u32>,
    error: NetlinkError,
) -> DeviceError {
    let max = parent_mtu.unwrap_or(ETH_MAX_MTU);
    let words = error.message.as_deref().unwrap_or_default();
    match (error.errno, mtu) {
        (Errno::OPNOTSUPP, _) if words.is_empty() && filters(kind) => without_filtering(device),
        // `rtnl_newlink`; before Linux 4.20 without words.
        (Errno::OPNOTSUPP, _) if words.is_empty() || words == "Unknown device type" => {
            DeviceError::NoSuchKind { device: device.to_owned(), kind: kind.name(), config: kind.config() }
        }
        // `veth_validate`, and `macvlan_common_newlink` and `vlan_newlink` of one above the parent's, have no words.
        (Errno::INVAL, Some(mtu)) if words.is_empty() && !(ETH_MIN_MTU..=max).contains(&mtu) => {
            let (min, max) = (Some(ETH_MIN_MTU), Some(max));
            DeviceError::Mtu { device: device.to_owned(), mtu, min, max }
        }
        // `dev_validate_mtu`: "mtu less than device minimum"; `vxlan_validate`: "MTU must be between …".
        (Errno::INVAL | Errno::RANGE, Some(mtu)) if words.to_ascii_lowercase().starts_with("mtu ") => {
            DeviceError::Mtu { device: device.to_owned(), mtu, min: None, max: None }
        }
        _ => refused(device, error),
    }
}

/// What it means that the kernel did not change the options of a device.
pub(super) fn not_changed(device: &str, kind: &Kind, error: NetlinkError) -> DeviceError {
    match error.errno {
        Errno::OPNOTSUPP if error.message.is_none() && filters(kind) => without_filtering(device),
        _ => refused(device, error),
    }
}

fn filters(kind: &Kind) -> bool {
    matches!(kind, Kind::Bridge(Bridge { vlan_filtering: Some(true), .. }))
}

fn without_filtering(device: &str) -> DeviceError {
    DeviceError::NoSuchKind {
        device: device.to_owned(),
        kind: "bridge VLAN filtering",
        config: "CONFIG_BRIDGE_VLAN_FILTERING",
    }
}

impl<'a> End<'a> {
    /// The interface of this name, or of this number where the name may change.
    pub(super) fn find(
        device: &'a str,
        name: &str,
        index: Option<u32>,
        place: &'a Place,
    ) -> Result<Self, DeviceError> {
        let mut socket = place.socket(device)?;
        let message = match index {
            Some(index) => socket.link_message_by_index(index, None),
            None => socket.link_message_by_name(name),
        };
        let message = message
            .map_err(|error| refused(device, error))?
            .ok_or_else(|| DeviceError::Missing { name: name.to_owned() })?;
        let (mut min, mut max) = (0, 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::MinMtu(mtu) => min = *mtu,
                LinkAttribute::MaxMtu(mtu) => max = *mtu,
                _ => {}
            }
        }
        let mtu_range = (max != 0).then_some((min, max));
        Ok(Self { device, place, socket, link: Link::from_message(message), mtu_range })
    }

    pub(super) const fn index(&self) -> u32 {
        self.link.index
    }

    pub(super) fn name(&self) -> &str {
        &self.link.name
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn refused(&self, error: NetlinkError) -> DeviceError {
        refused(self.device, error)
    }

    pub(super) fn set_sysctls<'s>(
        &self,
        sysctls: impl Iterator<Item = &'s (super::SysctlName, String)>,
    ) -> Result<(), DeviceError> {
        for (name, value) in sysctls {
            super::sysctl::write(self.place, &self.link.name, name, value)?;
        }
        Ok(())
    }

    pub(super) fn set_mac(&mut self, mac: MacAddr) -> Result<(), DeviceError> {
        self.maybe_down(|socket, link| socket.set_link_mac(link, mac))
    }

    pub(super) fn rename(&mut self, name: &str) -> Result<(), DeviceError> {
        self.maybe_down(|socket, link| socket.rename_link(link, name))?;
        name.clone_into(&mut self.link.name);
        Ok(())
    }

    pub(super) fn set_mtu(&mut self, mtu: u32) -> Result<(), DeviceError> {
        let result = self.socket.set_link_mtu(&self.link, mtu);
        result.map_err(|error| match (error.errno, self.mtu_range) {
            // Inside its own range it is above that of its parent.
            (Errno::INVAL | Errno::RANGE, range) => DeviceError::Mtu {
                device: self.device.to_owned(),
                mtu,
                min: range.map(|(min, _)| min).filter(|min| mtu < *min),
                max: range.map(|(_, max)| max).filter(|max| mtu > *max),
            },
            _ => self.refused(error),
        })
    }

    /// Does what some drivers refuse to do while the device is up (`EBUSY`), in that case between down and up.
    fn maybe_down(
        &mut self,
        f: impl Fn(&mut Socket, &Link) -> Result<(), NetlinkError>,
    ) -> Result<(), DeviceError> {
        match f(&mut self.socket, &self.link) {
            Err(error) if error.errno == Errno::BUSY && self.link.up => {
                self.set_up(false)?;
                let result = f(&mut self.socket, &self.link).map_err(|error| self.refused(error));
                self.set_up(true)?;
                result
            }
            result => result.map_err(|error| self.refused(error)),
        }
    }

    pub(super) fn set_up(&mut self, up: bool) -> Result<(), DeviceError> {
        self.socket.set_link_up(&self.link, up).map_err(|error| self.refused(error))?;
        self.link.up = up;
        Ok(())
    }

    pub(super) const fn is_up(&self) -> bool {
        self.link.up
    }

    pub(super) fn set_master(&mut self, master: Option<&str>) -> Result<(), DeviceError> {
        let index = match master {
            None => 0,
            Some(name) => {
                let found = self.socket.link_by_name(name).map_err(|error| self.refused(error))?;
                let missing = || DeviceError::MasterMissing {
                    device: self.device.to_owned(),
                    master: name.to_owned(),
                    netns: self.place.name.clone(),
                };
                found.ok_or_else(missing)?.index
            }
        };
        let operation = if master.is_some() { "set the master of" } else { "take the master from" };
        self.set(operation, vec![LinkAttribute::Controller(index)])
    }

    fn set(&mut self, operation: &'static str, attributes: Vec<LinkAttribute>) -> Result<(), DeviceError> {
        let Link { index, name, .. } = &self.link;
        let result = self.socket.set_attributes(operation, *index, name, None, attributes);
        result.map_err(|error| self.refused(error))
    }

    /// Says on the device whose it is, and that it is finished, in one request.
    pub(super) fn finish(&mut self, alias: String) -> Result<(), DeviceError> {
        let attributes = vec![
            LinkAttribute::Group(0), // INIT_NETDEV_GROUP
            LinkAttribute::IfAlias(alias),
        ];
        self.set("mark", attributes)
    }

    /// Removes the addresses that are there and not wanted, then adds those that are wanted and not there.
    pub(super) fn set_addresses(&mut self, is: &[IpNet], wanted: &[IpNet]) -> Result<(), DeviceError> {
        let (is, wanted): (BTreeSet<_>, BTreeSet<_>) = (is.iter().collect(), wanted.iter().collect());
        let missing: Vec<IpNet> = wanted.difference(&is).map(|net| **net).collect();
        // Before anything is touched: who else has them?
        self.check_addresses(&missing)?;
        for net in is.difference(&wanted).filter(|net| !made_up(net)) {
            self.socket.delete_address(&self.link, **net).map_err(|error| self.refused(error))?;
        }
        for net in missing {
            match self.socket.add_address(&self.link, net) {
                Err(error) if error.errno != Errno::EXIST => return Err(self.refused(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Linux takes the same address on two devices; whoever asks for it has made a mistake.
    fn check_addresses(&mut self, wanted: &[IpNet]) -> Result<(), DeviceError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let messages = self.socket.address_messages(None, None).map_err(|error| self.refused(error))?;
        for message in messages.iter().filter(|message| message.header.index != self.link.index) {
            let Some(net) = crate::netlink::address::net(message) else { continue };
            // Link-local addresses are unique by link.
            if made_up(&net) || !wanted.iter().any(|wanted| wanted.addr() == net.addr()) {
                continue;
            }
            let other =
                self.socket.link_by_index(message.header.index).map_err(|error| self.refused(error))?;
            let other = other.map_or_else(|| format!("interface {}", message.header.index), |link| link.name);
            return Err(DeviceError::AddressElsewhere {
                device: self.device.to_owned(),
                address: net.addr(),
                other,
            });
        }
        Ok(())
    }

    /// Removes the routes that are there and not wanted, then adds those that are wanted and not there.
    pub(super) fn set_routes(&mut self, is: &[Route], wanted: &[Route]) -> Result<(), DeviceError> {
        let is: BTreeSet<Route> = is.iter().copied().collect();
        let wanted: BTreeSet<Route> = wanted.iter().map(|route| route.normal()).collect();
        for route in is.difference(&wanted) {
            self.socket.delete_route(&self.link, route).map_err(|error| self.refused(error))?;
        }
        // Routes on the link first: the next hop of another may be behind one of them.
        let mut missing: Vec<&Route> = wanted.difference(&is).collect();
        missing.sort_by_key(|route| route.via.is_some());
        for route in missing {
            self.socket.add_route(&self.link, route).map_err(|error| self.refused(error))?;
        }
        Ok(())
    }

    /// Removes the forwarding entries that are there and not wanted, then adds those that are wanted and not there.
    pub(super) fn set_fdb(&mut self, is: &[FdbEntry], wanted: &[FdbEntry]) -> Result<(), DeviceError> {
        let (is, wanted): (BTreeSet<_>, BTreeSet<_>) = (is.iter().collect(), wanted.iter().collect());
        for entry in is.difference(&wanted) {
            let message = request::fdb_entry(self.link.index, entry);
            self.socket.delete_neighbour(entry, message).map_err(|error| self.refused(error))?;
        }
        for entry in wanted.difference(&is) {
            let several = entry.mac.is_group() || entry.mac == MacAddr::ZERO;
            let message = request::fdb_entry(self.link.index, entry);
            self.socket.add_neighbour(entry, message, several).map_err(|error| self.refused(error))?;
        }
        Ok(())
    }
}
