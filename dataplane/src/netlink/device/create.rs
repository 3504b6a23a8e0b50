//! Making a device, all of it or nothing, and taking one away.

use std::{io, os::fd::AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::{
    Device, DeviceError, Kind, MacvlanMode, Mark, Observed,
    difference::differences,
    namespace::{add_netns, delete_netns},
    observe::{alias, observe_by, peer_alias},
    place::Place,
    request::{self, Resolved},
    steps::{End, not_made, refused},
    tun::{self, Held},
};
use crate::{
    netlink::{Link, Socket},
    netns::Netns,
    sys::tun::NAME_MAX,
};

/// The smallest MTU that a device has IPv6 with (`IPV6_MIN_MTU`).
const MIN_IPV6_MTU: u32 = 1280;

/// Which devices may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those we made, finished or not.
    Ours,
    /// Anybody's.
    Anybodys,
}

/// Makes a device, all of it or nothing: what was made is taken away again where a later step fails.
///
/// A device of this name that we left [unfinished](Mark::Unfinished) is taken away first. Where something is answered, the device lives
/// by it.
pub fn create(device: &Device) -> Result<Option<Held>, DeviceError> {
    check_name(&device.name)?;
    if let Kind::Veth(peer) = &device.kind {
        check_name(&peer.name)?;
    }
    let made = if device.create_netns { make_namespaces(device)? } else { Vec::new() };
    let result = create_in(device);
    if result.is_err() {
        remove_namespaces(&made);
    }
    result
}

/// What the kernel takes for a name (`dev_valid_name`), and no template (`tap%d`).
fn check_name(name: &str) -> Result<(), DeviceError> {
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > NAME_MAX || name == "." || name == ".." || name.contains(bad) {
        return Err(DeviceError::Name { name: name.to_owned() });
    }
    Ok(())
}

/// Makes the namespaces that are missing, and answers with their names.
fn make_namespaces(device: &Device) -> Result<Vec<String>, DeviceError> {
    let peer = match &device.kind {
        Kind::Veth(peer) => peer.netns.as_ref(),
        _ => None,
    };
    let mut made = Vec::new();
    for netns in device.netns.iter().chain(peer) {
        let Netns::Name(name) = netns else { continue };
        if netns.open().is_ok() {
            continue;
        }
        match add_netns(name) {
            Ok(()) => made.push(name.clone()),
            Err(source) => {
                remove_namespaces(&made);
                let device = device.name.clone();
                return Err(match source.kind() {
                    io::ErrorKind::PermissionDenied => DeviceError::Permission {
                        device,
                        operation: format!("make network namespace {name}"),
                    },
                    _ => DeviceError::Netns { device, netns: netns.clone(), source },
                });
            }
        }
    }
    Ok(made)
}

fn remove_namespaces(made: &[String]) {
    for name in made {
        let _ = delete_netns(name); // the failure that led here is the one to tell
    }
}

/// The namespaces that a device has to do with.
struct Places {
    own: Place,
    peer: Option<Place>,
    link: Option<Place>,
}

impl Places {
    fn open(device: &Device) -> Result<Self, DeviceError> {
        let open = |netns: &Option<Netns>| Place::open(&device.name, netns.as_ref());
        let own = open(&device.netns)?;
        let (mut peer, mut link) = (None, None);
        match &device.kind {
            Kind::Veth(end) => peer = Some(open(&end.netns)?),
            kind if kind.is_linked() => link = Some(open(&device.link_netns)?),
            _ => {}
        }
        Ok(Self { own, peer, link })
    }

    /// Whether every namespace still goes by its name. One that went meanwhile is kept alive by us alone.
    fn check(&self, device: &str) -> Result<(), DeviceError> {
        let all = [Some(&self.own), self.peer.as_ref(), self.link.as_ref()];
        all.into_iter().flatten().try_for_each(|place| place.check(device))
    }
}

fn create_in(device: &Device) -> Result<Option<Held>, DeviceError> {
    let places = Places::open(device)?;
    let mut socket = places.own.socket(&device.name)?;
    make_way(&device.name, &device.name, &places.own, &mut socket)?;
    if let (Kind::Veth(end), Some(place)) = (&device.kind, &places.peer) {
        make_way(&device.name, &end.name, place, &mut place.socket(&device.name)?)?;
    }
    if let Kind::Tun(options) | Kind::Tap(options) = &device.kind {
        // Until the last line, the device goes with `made`.
        let made = tun::make(&device.name, &device.kind, *options, &places.own)?;
        let mut end = End::find(&device.name, &device.name, None, &places.own)?;
        if let Some(mac) = device.mac {
            end.set_mac(mac)?;
        }
        if let Some(mtu) = device.mtu {
            end.set_mtu(mtu)?;
        }
        furnish(device, &places, &mut end)?;
        end.finish(alias(&device.name))?;
        return made.keep(&device.name, *options);
    }
    add(device, &places, &mut socket)?;
    let mut end = End::find(&device.name, &device.name, None, &places.own)?;
    let result = furnish(device, &places, &mut end).and_then(|()| {
        finish_peer(device, &places, &mut end)?;
        end.finish(alias(&device.name))
    });
    if result.is_err() {
        let (index, name) = (end.index(), end.name().to_owned());
        let _ = end.socket().delete_index(index, &name); // the failure that led here is the one to tell
    }
    result.map(|()| None)
}

/// Looks whether a name is free, and takes away what we left there unfinished.
fn make_way(device: &str, name: &str, place: &Place, socket: &mut Socket) -> Result<(), DeviceError> {
    let Some(found) = observe_by(name, place, socket, None)? else { return Ok(()) };
    match found.mark {
        Mark::Unfinished => socket.delete_index(found.index, name).map_err(|error| refused(device, error)),
        Mark::Ours => Err(DeviceError::Exists { name: name.to_owned() }),
        Mark::Peer | Mark::Foreign => {
            let kind = if found.kind_name.is_empty() { "device".to_owned() } else { found.kind_name };
            Err(DeviceError::NameTaken { name: name.to_owned(), kind })
        }
    }
}

/// Sends the request that makes the device. It goes to the namespace that the parent is in, because a parent is a number there.
fn add(device: &Device, places: &Places, socket: &mut Socket) -> Result<(), DeviceError> {
    let name = &device.name;
    let mut resolved = Resolved::default();
    let mut mtu_max = None;
    let mut there;
    let socket = match &places.link {
        Some(link) => {
            there = link.socket(name)?;
            if let Some(name) = device.kind.parent() {
                let parent = parent(device, name, link, &mut there)?;
                resolved.parent = Some(parent.index);
                mtu_max = Some(parent.mtu);
            }
            if !link.is(&places.own) {
                resolved.netns = Some(places.own.netns.as_raw_fd());
            }
            &mut there
        }
        None => socket,
    };
    if let Some(peer) = &places.peer
        && !peer.is(&places.own)
    {
        resolved.peer_netns = Some(peer.netns.as_raw_fd());
    }
    let message = request::new_link(device, resolved);
    socket
        .new_link("make", name, message, NLM_F_CREATE | NLM_F_EXCL)
        .map_err(|error| not_made(name, &device.kind, device.mtu, mtu_max, error))
}

/// A device's parent.
pub(super) fn parent(
    device: &Device,
    parent: &str,
    place: &Place,
    socket: &mut Socket,
) -> Result<Link, DeviceError> {
    let found = socket.link_by_name(parent).map_err(|error| refused(&device.name, error))?;
    let missing = || DeviceError::ParentMissing {
        device: device.name.clone(),
        parent: parent.to_owned(),
        netns: place.name.clone(),
    };
    found.ok_or_else(missing)
}

/// Everything that the request which made the device could not say.
fn furnish(device: &Device, places: &Places, end: &mut End<'_>) -> Result<(), DeviceError> {
    end.set_sysctls(device.sysctls.iter())?;
    if let (Kind::Bridge(_), Some(mtu)) = (&device.kind, device.mtu) {
        // A bridge goes by the smallest of its ports (`br_mtu_auto_adjust`) unless somebody has changed its MTU; that it was made
        // with one does not count, nor that it is set to what it is (`br_change_mtu`).
        end.set_mtu(if mtu > MIN_IPV6_MTU { mtu - 1 } else { mtu + 1 })?;
        end.set_mtu(mtu)?;
    }
    if let (Kind::Macvlan(options) | Kind::Macvtap(options), Some(mac)) = (&device.kind, device.mac)
        && options.mode == Some(MacvlanMode::Passthru)
    {
        // Made, it has its parent's (`macvlan_common_newlink`); given another, both have that (`macvlan_set_mac_address`).
        end.set_mac(mac)?;
    }
    if let Some(master) = &device.master {
        end.set_master(Some(master))?;
    }
    if let (Kind::Veth(peer), Some(place)) = (&device.kind, &places.peer) {
        let mut other = End::find(&device.name, &peer.name, None, place)?;
        other.set_addresses(&[], &peer.addresses)?;
        if device.up {
            other.set_up(true)?;
        }
    }
    end.set_addresses(&[], &device.addresses)?;
    if device.up {
        end.set_up(true)?;
        end.set_routes(&[], &device.routes)?;
    }
    if let Kind::Vxlan(vxlan) = &device.kind {
        end.set_fdb(&[], &vxlan.fdb)?;
    }
    let observed = observe_by(&device.name, &places.own, end.socket(), Some(device))?
        .ok_or_else(|| DeviceError::Missing { name: device.name.clone() })?;
    check_taken(device, &observed)?;
    places.check(&device.name)
}

fn finish_peer(device: &Device, places: &Places, end: &mut End<'_>) -> Result<(), DeviceError> {
    let (Kind::Veth(peer), Some(place)) = (&device.kind, &places.peer) else { return Ok(()) };
    let mut other = End::find(&device.name, &peer.name, None, place)?;
    other.finish(peer_alias(end.name()))
}

/// A kernel skips attributes that it does not know, or was built without, and some drivers take less than they were asked
/// for: it said yes and did something else.
fn check_taken(device: &Device, observed: &Observed) -> Result<(), DeviceError> {
    if let Some(mtu) = device.mtu.filter(|mtu| observed.mtu < *mtu) {
        return Err(DeviceError::Mtu {
            device: device.name.clone(),
            mtu,
            min: None,
            max: Some(observed.mtu),
        });
    }
    let mut kind = device.kind.clone();
    if let Kind::Tun(options) | Kind::Tap(options) = &mut kind {
        options.persistent = None; // the last step of all
    }
    let wanted = Device {
        mac: device.mac,
        mtu: device.mtu,
        up: observed.up,
        master: observed.master.clone(),
        ..Device::new(device.name.as_str(), kind)
    };
    let observed = Observed {
        mark: Mark::Ours,
        addresses: Vec::new(),
        routes: Vec::new(),
        link_elsewhere: false,
        ..observed.clone()
    };
    match differences(&observed, &wanted).into_iter().next() {
        None => Ok(()),
        Some(difference) => Err(DeviceError::NotTaken {
            device: device.name.clone(),
            option: difference.option,
            is: difference.is,
            wanted: difference.wanted,
        }),
    }
}

/// Takes a device away, and with it everything that stands on it. One that is not there is an error.
pub fn delete(name: &str, netns: Option<&Netns>, whose: Whose) -> Result<(), DeviceError> {
    let place = Place::open(name, netns)?;
    let mut socket = place.socket(name)?;
    let observed = observe_by(name, &place, &mut socket, None)?
        .ok_or_else(|| DeviceError::Missing { name: name.to_owned() })?;
    match (observed.mark, whose) {
        (Mark::Ours | Mark::Unfinished, _) | (_, Whose::Anybodys) => {
            socket.delete_index(observed.index, name).map_err(|error| refused(name, error))
        }
        (Mark::Peer | Mark::Foreign, Whose::Ours) => Err(DeviceError::Foreign { name: name.to_owned() }),
    }
}
