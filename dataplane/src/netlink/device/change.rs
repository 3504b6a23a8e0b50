//! Changing a device in place.

use super::{
    Bridge, ChangeError, Device, DeviceError, Difference, Kind, Mark, Observed, Peer, Tun,
    create::parent,
    difference::differences,
    observe::observe_by,
    place::Place,
    request,
    steps::{End, not_changed},
    tun,
};

/// Makes a device as it is wanted, and answers with what that took; where nothing differs, nothing is sent.
///
/// Options that the kernel cannot change on a device that exists are named before anything is touched. Where a change
/// fails half way, what was changed is put back.
/// Only a device of ours is changed.
pub fn change(observed: &Observed, wanted: &Device) -> Result<Vec<Difference>, ChangeError> {
    let all = differences(observed, wanted);
    let which: Vec<&'static str> = all.iter().filter(|one| !one.in_place).map(|one| one.option).collect();
    if !which.is_empty() {
        return Err(ChangeError::NeedsReplace { which });
    }
    if all.is_empty() {
        return Ok(all);
    }
    if observed.mark != Mark::Ours {
        return Err(DeviceError::Foreign { name: observed.name.clone() }.into());
    }
    let place = Place::open(&wanted.name, wanted.netns.as_ref())?;
    let mut end = End::find(&wanted.name, &wanted.name, Some(observed.index), &place)?;
    if let Err(error) = apply(observed, wanted, &all, &place, &mut end) {
        put_back(observed, wanted, &place, &mut end);
        return Err(error.into());
    }
    Ok(all)
}

/// As far as the kernel lets us. What it refuses here it had taken before; the first failure is the one to tell.
fn put_back(observed: &Observed, wanted: &Device, place: &Place, end: &mut End<'_>) {
    let Some(old) = observed.to_device(wanted) else { return };
    if let Ok(Some(now)) = observe_by(&wanted.name, place, end.socket(), Some(&old)) {
        let _ = apply(&now, &old, &differences(&now, &old), place, end);
    }
}

impl Observed {
    /// The device as one that could be wanted: with the namespaces and the sysctls that `like` names.
    /// `None` where it is of a kind that cannot be made here.
    #[must_use]
    pub fn to_device(&self, like: &Device) -> Option<Device> {
        let mut kind = self.kind.clone()?;
        if let (Kind::Veth(peer), Kind::Veth(like)) = (&mut kind, &like.kind) {
            peer.netns.clone_from(&like.netns);
        }
        Some(Device {
            name: self.name.clone(),
            netns: like.netns.clone(),
            link_netns: like.link_netns.clone(),
            create_netns: like.create_netns,
            kind,
            mac: self.mac,
            mtu: Some(self.mtu),
            addresses: self.addresses.clone(),
            up: self.up,
            master: self.master.clone(),
            routes: self.routes.clone(),
            sysctls: self.sysctls.clone(),
        })
    }
}

fn apply(
    observed: &Observed,
    wanted: &Device,
    all: &[Difference],
    place: &Place,
    end: &mut End<'_>,
) -> Result<(), DeviceError> {
    let differs = |options: &[&str]| all.iter().any(|one| options.contains(&one.option));
    if differs(&["sysctl"]) {
        let is = &observed.sysctls;
        end.set_sysctls(wanted.sysctls.iter().filter(|one| !is.contains(one)))?;
    }
    if observed.up && !wanted.up {
        end.set_up(false)?;
    }
    if let Some(mac) = wanted.mac.filter(|_| differs(&["mac"])) {
        end.set_mac(mac)?;
    }
    change_kind(observed, wanted, place, end, &differs)?;
    if let Some(mtu) = wanted.mtu.filter(|_| differs(&["mtu"])) {
        end.set_mtu(mtu)?;
    }
    if differs(&["master"]) {
        end.set_master(wanted.master.as_deref())?;
    }
    // Up before addresses: going down takes IPv6 addresses along, so what is there is to be asked again.
    if wanted.up && !observed.up {
        end.set_up(true)?;
    }
    if differs(&["admin", "address"]) {
        let now = again(observed, place, end)?;
        end.set_addresses(&now.addresses, &wanted.addresses)?;
    }
    if wanted.up && differs(&["admin", "address", "route", "mac"]) {
        let now = again(observed, place, end)?;
        end.set_routes(&now.routes, &wanted.routes)?;
    }
    Ok(())
}

fn again(observed: &Observed, place: &Place, end: &mut End<'_>) -> Result<Observed, DeviceError> {
    observe_by(&observed.name, place, end.socket(), None)?
        .ok_or_else(|| DeviceError::Missing { name: observed.name.clone() })
}

fn change_kind(
    observed: &Observed,
    wanted: &Device,
    place: &Place,
    end: &mut End<'_>,
    differs: &dyn Fn(&[&str]) -> bool,
) -> Result<(), DeviceError> {
    match (&observed.kind, &wanted.kind) {
        (Some(Kind::Veth(is)), Kind::Veth(peer))
            if differs(&["peer", "peer-mac", "peer-address", "mtu", "admin"]) =>
        {
            change_peer(observed, wanted, is, peer)?;
        }
        (Some(Kind::Tun(is) | Kind::Tap(is)), Kind::Tun(options) | Kind::Tap(options))
            if differs(&["owner", "group", "vnet-hdr"]) =>
        {
            let options = Tun {
                owner: options.owner,
                group: options.group,
                multi_queue: is.multi_queue,
                vnet_hdr: options.vnet_hdr.or(is.vnet_hdr),
                persistent: None,
            };
            tun::change(&wanted.name, &wanted.kind, options, place)?;
        }
        (Some(Kind::Vxlan(is)), Kind::Vxlan(vxlan)) => {
            if differs(&["local", "remote", "group", "dev", "learning", "ttl", "tos"]) {
                // The kernel joins the group and takes the device it joins it on when it goes up (`vxlan_open`).
                let rejoin = differs(&["group", "dev", "remote"])
                    && end.is_up()
                    && (is.group.is_some() || vxlan.group.is_some());
                if rejoin {
                    end.set_up(false)?;
                }
                send_kind(wanted, end)?;
                if rejoin {
                    end.set_up(true)?;
                }
            }
            // A new default destination is in the table under another name.
            if differs(&["fdb", "remote", "group"]) {
                let now = again(observed, place, end)?;
                if let Some(Kind::Vxlan(is)) = &now.kind {
                    end.set_fdb(&is.fdb, &vxlan.fdb)?;
                }
            }
        }
        (_, Kind::Bridge(bridge)) => {
            // The kernel takes one after the other, and stops at one that it does not know: only what differs is said.
            let options = Bridge {
                ageing: bridge.ageing.filter(|_| differs(&["ageing"])),
                stp: bridge.stp.filter(|_| differs(&["stp"])),
                vlan_filtering: bridge.vlan_filtering.filter(|_| differs(&["vlan-filtering"])),
                mcast_snooping: bridge.mcast_snooping.filter(|_| differs(&["mcast-snooping"])),
            };
            if options != Bridge::default() {
                send_kind(&Device { kind: Kind::Bridge(options), ..wanted.clone() }, end)?;
            }
        }
        (_, Kind::Macvlan(_) | Kind::Macvtap(_) | Kind::Ipvlan(_)) if differs(&["mode", "flag"]) => {
            send_kind(wanted, end)?;
        }
        (_, Kind::Geneve(_)) if differs(&["remote", "ttl", "tos"]) => send_kind(wanted, end)?,
        _ => {}
    }
    Ok(())
}

/// Sends the options of the kind that are said.
fn send_kind(wanted: &Device, end: &mut End<'_>) -> Result<(), DeviceError> {
    let parent = match wanted.kind.parent() {
        Some(name) if wanted.kind.is_linked() => {
            let place = Place::open(&wanted.name, wanted.link_netns.as_ref())?;
            let mut socket = place.socket(&wanted.name)?;
            Some(parent(wanted, name, &place, &mut socket)?.index)
        }
        _ => None,
    };
    let message = request::change_link(end.index(), &wanted.kind, parent);
    let name = end.name().to_owned();
    end.socket()
        .new_link("change the options of", &name, message, 0)
        .map_err(|error| not_changed(&wanted.name, &wanted.kind, error))
}

fn change_peer(observed: &Observed, wanted: &Device, is: &Peer, peer: &Peer) -> Result<(), DeviceError> {
    let place = Place::open(&wanted.name, peer.netns.as_ref())?;
    let mut end = End::find(&wanted.name, &peer.name, observed.link_index, &place)?;
    if is.name != peer.name {
        end.rename(&peer.name)?;
    }
    if let Some(mac) = peer.mac.filter(|mac| is.mac != Some(*mac)) {
        end.set_mac(mac)?;
    }
    if let Some(mtu) = wanted.mtu.filter(|mtu| *mtu != observed.mtu) {
        end.set_mtu(mtu)?;
    }
    if end.is_up() != wanted.up {
        end.set_up(wanted.up)?;
    }
    let now = observe_by(&peer.name, &place, end.socket(), None)?;
    let addresses = now.map(|now| now.addresses).unwrap_or_default();
    end.set_addresses(&addresses, &peer.addresses)
}
