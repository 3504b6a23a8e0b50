//! The kernel beneath the daemon, through netlink: from the words of operators to those of the kernel, and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{DeviceKernel, Seen, Whose};
use crate::{
    api::DeviceSeen,
    config::{
        DeviceSpec, DeviceType, Difference, Inherit, Netns,
        device::{self as words, DeviceGroup, DeviceMode},
    },
    engine::BackendError,
    netlink::{
        Event, Monitor,
        device::{
            self, Bridge, Device, DeviceError, FdbEntry, Geneve, Held, Ipvlan, IpvlanFlag, IpvlanMode, Kind,
            Macvlan, MacvlanMode, Mark, Observed, Peer, Route, Tos, Ttl, Tun, Vlan, VlanProtocol, Vxlan,
        },
    },
    wire::MacAddr,
};

/// An interface, by namespace and name.
type Place = (Option<Netns>, String);

fn place(spec: &DeviceSpec) -> Place {
    (spec.options.netns.clone(), spec.name.to_string())
}

/// Devices of the kernel.
#[derive(Debug, Default)]
pub(in crate::engine) struct NetlinkDevices {
    watched: BTreeSet<Place>,
    watches: BTreeMap<Option<Netns>, Watch>,
    /// Interfaces whose watch began after they were last looked at.
    unseen: BTreeSet<Place>,
    /// What devices live by that are not persistent.
    held: BTreeMap<Place, Held>,
}

/// What tells of changes in a namespace.
#[derive(Debug)]
struct Watch {
    monitor: Monitor,
    /// Device and inode of the namespace: a name can come to mean another.
    identity: Option<(u64, u64)>,
    /// The names of interfaces, which some notifications have not.
    names: BTreeMap<u32, String>,
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

impl Watch {
    fn open(netns: Option<&Netns>) -> io::Result<Self> {
        let Some(netns) = netns else {
            return Ok(Self { monitor: Monitor::open()?, identity: None, names: BTreeMap::new() });
        };
        let fd = netns.open()?;
        let (monitor, identity) = (Monitor::open_in(fd.as_fd())?, Some(identity(&fd)?));
        Ok(Self { monitor, identity, names: BTreeMap::new() })
    }

    /// Whether the namespace still has its name. A watch keeps it alive, so one that is named no more is given up.
    fn is_current(&self, netns: Option<&Netns>) -> bool {
        netns.is_none_or(|netns| netns.open().and_then(|fd| identity(&fd)).ok() == self.identity)
    }

    /// The names of the interfaces that have changed; `None` where any may have.
    fn changed(&mut self) -> Option<BTreeSet<String>> {
        let mut changed = BTreeSet::new();
        let mut all = false;
        for event in self.monitor.read().unwrap_or_else(|_| vec![Event::Lost]) {
            match event {
                Event::Link { index, name } => {
                    // An interface may have been renamed.
                    changed.extend(self.names.insert(index, name.clone()));
                    changed.insert(name);
                }
                Event::LinkGone { index, name } => {
                    changed.extend(self.names.remove(&index));
                    changed.insert(name);
                }
                Event::Address { index } | Event::Route { index } => match self.names.get(&index) {
                    Some(name) => drop(changed.insert(name.clone())),
                    None => all = true,
                },
                Event::Lost => all = true,
            }
        }
        (!all).then_some(changed)
    }
}

fn ttl(ttl: Inherit<u8>) -> Ttl {
    match ttl {
        Inherit::Inherit => Ttl::Inherit,
        Inherit::Fixed(ttl) => Ttl::Fixed(ttl),
    }
}

fn tos(tos: Inherit<u8>) -> Tos {
    match tos {
        Inherit::Inherit => Tos::Inherit,
        Inherit::Fixed(tos) => Tos::Fixed(tos),
    }
}

fn macvlan(options: &words::DeviceOptions) -> Macvlan {
    Macvlan {
        parent: options.parent.clone().unwrap_or_default(),
        mode: options.mode.and_then(|mode| match mode {
            DeviceMode::Bridge => Some(MacvlanMode::Bridge),
            DeviceMode::Vepa => Some(MacvlanMode::Vepa),
            DeviceMode::Private => Some(MacvlanMode::Private),
            DeviceMode::Passthru => Some(MacvlanMode::Passthru),
            DeviceMode::Source => Some(MacvlanMode::Source),
            DeviceMode::L2 | DeviceMode::L3 | DeviceMode::L3s => None,
        }),
    }
}

fn ipvlan(options: &words::DeviceOptions) -> Ipvlan {
    Ipvlan {
        parent: options.parent.clone().unwrap_or_default(),
        mode: options.mode.and_then(|mode| match mode {
            DeviceMode::L2 => Some(IpvlanMode::L2),
            DeviceMode::L3 => Some(IpvlanMode::L3),
            DeviceMode::L3s => Some(IpvlanMode::L3s),
            _ => None,
        }),
        flag: options.flag.map(|flag| match flag {
            words::IpvlanFlag::Bridge => IpvlanFlag::Bridge,
            words::IpvlanFlag::Private => IpvlanFlag::Private,
            words::IpvlanFlag::Vepa => IpvlanFlag::Vepa,
        }),
    }
}

/// What a description says of a tun or tap. Whoever attaches may change `vnet_hdr`, so that only what was said is asked for.
fn tun(spec: &DeviceSpec) -> Tun {
    let o = &spec.options;
    let group = match o.group {
        Some(DeviceGroup::Users(gid)) => Some(gid),
        _ => None,
    };
    Tun {
        owner: o.owner,
        group,
        multi_queue: Some(o.queues.is_some_and(|queues| queues > 1)),
        vnet_hdr: o.vnet_hdr.map(|on| on.0),
        persistent: o.persistent.map(|on| on.0),
    }
}

/// The forwarding entries of a vxlan as the kernel tells them: without what they have from the device, and without that of
/// `remote` or `group`.
fn entries(o: &words::DeviceOptions) -> Vec<FdbEntry> {
    let port = o.dstport.unwrap_or(crate::wire::vxlan::PORT);
    let to = match o.group {
        Some(DeviceGroup::Multicast(ip)) => Some(ip),
        _ => o.remote,
    };
    let entry = |e: &words::VxlanEntry| FdbEntry {
        mac: e.mac,
        dst: e.dst,
        vni: e.vni.filter(|vni| o.id != Some(*vni)),
        port: e.port.filter(|other| *other != port),
    };
    let own = to.map(|dst| FdbEntry { mac: MacAddr::ZERO, dst, vni: None, port: None });
    o.fdb.iter().map(entry).filter(|entry| Some(*entry) != own).collect()
}

fn kind(spec: &DeviceSpec, o: &words::DeviceOptions) -> Kind {
    match spec.kind {
        DeviceType::Veth => Kind::Veth(Peer {
            name: o.peer.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            netns: o.peer.netns.clone(),
            mac: o.peer.mac,
            addresses: o.peer.address.clone(),
        }),
        DeviceType::Bridge => Kind::Bridge(Bridge {
            ageing: o.ageing.map(|ageing| ageing.duration()),
            stp: o.stp.map(|on| on.0),
            vlan_filtering: o.vlan_filtering.map(|on| on.0),
            mcast_snooping: o.mcast_snooping.map(|on| on.0),
        }),
        DeviceType::Macvlan => Kind::Macvlan(macvlan(o)),
        DeviceType::Macvtap => Kind::Macvtap(macvlan(o)),
        DeviceType::Ipvlan => Kind::Ipvlan(ipvlan(o)),
        DeviceType::Vlan => Kind::Vlan(Vlan {
            parent: o.parent.clone().unwrap_or_default(),
            id: o.id.and_then(|id| id.try_into().ok()).unwrap_or_default(),
            protocol: o.protocol.map(|protocol| match protocol {
                words::VlanProtocol::Dot1q => VlanProtocol::Dot1q,
                words::VlanProtocol::Dot1ad => VlanProtocol::Dot1ad,
            }),
        }),
        DeviceType::Vxlan => Kind::Vxlan(Vxlan {
            id: o.id.unwrap_or_default(),
            local: o.local,
            remote: o.remote,
            group: match o.group {
                Some(DeviceGroup::Multicast(ip)) => Some(ip),
                _ => None,
            },
            dev: o.dev.clone(),
            dstport: o.dstport.unwrap_or(crate::wire::vxlan::PORT),
            learning: o.learning.map(|on| on.0),
            ttl: o.ttl.map(ttl),
            tos: o.tos.map(tos),
            udpcsum: o.udpcsum.map(|on| on.0),
            external: o.external.is_some_and(|on| on.0),
            fdb: entries(o),
        }),
        DeviceType::Geneve => Kind::Geneve(Geneve {
            id: o.id.unwrap_or_default(),
            remote: o.remote,
            dstport: o.dstport.unwrap_or(crate::wire::geneve::PORT),
            ttl: o.ttl.map(ttl),
            tos: o.tos.map(tos),
            udpcsum: o.udpcsum.map(|on| on.0),
        }),
        DeviceType::Tun => Kind::Tun(tun(spec)),
        DeviceType::Tap => Kind::Tap(tun(spec)),
        DeviceType::Dummy => Kind::Dummy,
    }
}

/// A description in the kernel's words.
fn device(spec: &DeviceSpec) -> Result<Device, BackendError> {
    let o = spec.effective();
    let sysctl = |one: &words::Sysctl| {
        let name = format!("{}.{}", if one.ipv6 { "ipv6" } else { "ipv4" }, one.key);
        Ok::<_, BackendError>((name.parse()?, one.value.to_string()))
    };
    Ok(Device {
        name: spec.name.to_string(),
        netns: o.netns.clone(),
        link_netns: o.link_netns.clone(),
        create_netns: o.create_netns.is_some_and(|on| on.0),
        kind: kind(spec, &o),
        mac: o.mac,
        mtu: o.mtu,
        up: o.up.is_up(),
        master: o.master.clone(),
        routes: o.route.iter().map(|r| Route { to: r.to, via: r.via, src: None, metric: r.metric }).collect(),
        sysctls: o.sysctl.iter().map(sysctl).collect::<Result<_, _>>()?,
        addresses: o.address,
    })
}

/// The error without the name of the device, which whoever shows it puts in front.
fn error(spec: &DeviceSpec, error: impl ToString) -> BackendError {
    let text = error.to_string();
    text.strip_prefix(&format!("device {}: ", spec.name)).unwrap_or(&text).into()
}

fn seen(wanted: &Device, observed: Observed) -> Seen {
    let or_unset = |text: String| if text.is_empty() { "unset".to_owned() } else { text };
    let differences = device::differences(&observed, wanted);
    Seen {
        whose: match observed.mark {
            Mark::Ours => Whose::Ours,
            Mark::Unfinished => Whose::Unfinished,
            Mark::Peer | Mark::Foreign => Whose::Foreign,
        },
        in_place: differences.iter().all(|difference| difference.in_place),
        drift: differences
            .into_iter()
            .map(|d| Difference { key: d.option.to_owned(), old: or_unset(d.wanted), new: or_unset(d.is) })
            .collect(),
        device: DeviceSeen {
            index: observed.index,
            kind: observed.kind_name,
            mac: observed.mac,
            mtu: observed.mtu,
            address: observed.addresses,
            master: observed.master,
            up: observed.up,
            oper: observed.operstate.to_string(),
        },
    }
}

impl DeviceKernel for NetlinkDevices {
    fn look(&mut self, spec: &DeviceSpec) -> Result<Option<Seen>, BackendError> {
        let wanted = device(spec)?;
        let netns = &spec.options.netns;
        match device::observe(&wanted.name, netns.as_ref(), Some(&wanted)) {
            Ok(Some(observed)) => {
                if let Some(watch) = self.watches.get_mut(netns) {
                    watch.names.insert(observed.index, observed.name.clone());
                }
                Ok(Some(seen(&wanted, observed)))
            }
            Ok(None) => Ok(None),
            // A namespace that is not there has no device; where it is to be made, making the device makes it.
            Err(DeviceError::Netns { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error(spec, e)),
        }
    }

    fn create(&mut self, spec: &DeviceSpec) -> Result<(), BackendError> {
        let held = device::create(&device(spec)?).map_err(|e| error(spec, e))?;
        self.held.extend(held.map(|held| (place(spec), held)));
        Ok(())
    }

    fn change(&mut self, spec: &DeviceSpec) -> Result<(), BackendError> {
        let wanted = device(spec)?;
        let observed = device::observe(&wanted.name, spec.options.netns.as_ref(), Some(&wanted));
        let Some(observed) = observed.map_err(|e| error(spec, e))? else {
            return Err("it is not there any more".into());
        };
        device::change(&observed, &wanted).map(drop).map_err(|e| error(spec, e))
    }

    fn delete(&mut self, spec: &DeviceSpec) -> Result<(), BackendError> {
        device::delete(spec.name.as_str(), spec.options.netns.as_ref(), device::Whose::Ours)
            .map_err(|e| error(spec, e))?;
        self.held.remove(&place(spec));
        Ok(())
    }

    fn delete_all(&mut self, specs: &[&DeviceSpec]) -> Result<(), (usize, BackendError)> {
        let names: Vec<_> = specs.iter().map(|s| (s.name.as_str(), s.options.netns.as_ref())).collect();
        let result = device::delete_all(&names).map_err(|(at, e)| (at, error(specs[at], e)));
        let gone = result.as_ref().err().map_or(specs.len(), |(at, _)| *at);
        specs[..gone].iter().for_each(|spec| drop(self.held.remove(&place(spec))));
        result
    }

    fn delete_interfaces(&mut self, interfaces: &[(OwnedFd, u32)]) {
        device::delete_interfaces(interfaces);
    }

    fn watch(&mut self, devices: &mut dyn Iterator<Item = &DeviceSpec>) {
        let mut watched = BTreeSet::new();
        for spec in devices {
            watched.extend(spec.interfaces().map(|(netns, name)| (netns.cloned(), name.to_owned())));
        }
        let namespaces: BTreeSet<&Option<Netns>> = watched.iter().map(|(netns, _)| netns).collect();
        self.watches.retain(|netns, _| namespaces.contains(netns));
        for netns in namespaces {
            if !self.watches.contains_key(netns)
                && let Ok(watch) = Watch::open(netns.as_ref())
            {
                self.watches.insert(netns.clone(), watch);
                self.unseen.extend(watched.iter().filter(|(at, _)| at == netns).cloned());
            }
        }
        self.watched = watched;
    }

    fn changed(&mut self) -> BTreeSet<Place> {
        let mut changed = std::mem::take(&mut self.unseen);
        let namespaces: BTreeSet<Option<Netns>> =
            self.watched.iter().map(|(netns, _)| netns.clone()).collect();
        for netns in namespaces {
            if self.watches.get(&netns).is_some_and(|watch| !watch.is_current(netns.as_ref())) {
                self.watches.remove(&netns);
            }
            let names = match self.watches.get_mut(&netns) {
                Some(watch) => watch.changed(),
                None => {
                    // It may be there again.
                    if let Ok(watch) = Watch::open(netns.as_ref()) {
                        self.watches.insert(netns.clone(), watch);
                    }
                    None
                }
            };
            changed.extend(
                self.watched
                    .iter()
                    .filter(|(at, name)| {
                        *at == netns && names.as_ref().is_none_or(|names| names.contains(name))
                    })
                    .cloned(),
            );
        }
        changed
    }
}
