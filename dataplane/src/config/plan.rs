//! From what runs to what is wanted, step by step.
//!
//! Owns the order: whatever is in the way goes first, neighbours and entries before ports before uplinks before devices
//! before bridges; then bridges, devices, uplinks, ports, entries and neighbours come, so that at every step all names in
//! use exist. A device that needs a port's interface, or another device, stands on the other side of it.
//! Each step can be undone, and undoing all of them in reverse leads back.
//! Both topologies must make sense alone, as [`Topology::parse`] and the checks of each object see to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    device::{DeviceSpec, Graph, Node},
    diff::{Difference, UNSET},
    spec::{BridgeSpec, FdbSpec, NeighSpec, PortSpec, UplinkSpec},
    topology::Topology,
    words::{DeviceName, PortName},
};

/// One step. Of a changed object it has both descriptions and in what they differ.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Change {
    AddBridge(BridgeSpec),
    SetBridge {
        old: BridgeSpec,
        new: BridgeSpec,
        differences: Vec<Difference>,
    },
    DelBridge(BridgeSpec),
    AddDevice(Box<DeviceSpec>),
    SetDevice {
        old: Box<DeviceSpec>,
        new: Box<DeviceSpec>,
        differences: Vec<Difference>,
    },
    /// `differences` say why the device is replaced; none where it is not wanted any more.
    DelDevice {
        device: Box<DeviceSpec>,
        differences: Vec<Difference>,
    },
    AddUplink(Box<UplinkSpec>),
    /// `differences` say why the uplink is replaced; none where it is not wanted any more.
    DelUplink {
        uplink: Box<UplinkSpec>,
        differences: Vec<Difference>,
    },
    AddPort(Box<PortSpec>),
    SetPort {
        old: Box<PortSpec>,
        new: Box<PortSpec>,
        differences: Vec<Difference>,
    },
    /// `differences` say why the port is replaced; none where it is not wanted any more.
    DelPort {
        port: Box<PortSpec>,
        differences: Vec<Difference>,
    },
    AddFdb(FdbSpec),
    SetFdb {
        old: FdbSpec,
        new: FdbSpec,
        differences: Vec<Difference>,
    },
    DelFdb(FdbSpec),
    AddNeigh(NeighSpec),
    SetNeigh {
        old: NeighSpec,
        new: NeighSpec,
        differences: Vec<Difference>,
    },
    DelNeigh(NeighSpec),
}

impl Change {
    /// Whether it makes or changes something; else it takes something away.
    pub fn makes(&self) -> bool {
        !matches!(
            self,
            Self::DelBridge(_)
                | Self::DelDevice { .. }
                | Self::DelUplink { .. }
                | Self::DelPort { .. }
                | Self::DelFdb(_)
                | Self::DelNeigh(_)
        )
    }

    /// The step back.
    #[must_use]
    pub fn undo(&self) -> Self {
        let turned = |all: &[Difference]| all.iter().map(Difference::turned).collect();
        match self.clone() {
            Self::AddBridge(bridge) => Self::DelBridge(bridge),
            Self::DelBridge(bridge) => Self::AddBridge(bridge),
            Self::SetBridge { old, new, differences } => {
                Self::SetBridge { old: new, new: old, differences: turned(&differences) }
            }
            Self::AddDevice(device) => Self::DelDevice { device, differences: Vec::new() },
            Self::DelDevice { device, .. } => Self::AddDevice(device),
            Self::SetDevice { old, new, differences } => {
                Self::SetDevice { old: new, new: old, differences: turned(&differences) }
            }
            Self::AddUplink(uplink) => Self::DelUplink { uplink, differences: Vec::new() },
            Self::DelUplink { uplink, .. } => Self::AddUplink(uplink),
            Self::AddPort(port) => Self::DelPort { port, differences: Vec::new() },
            Self::DelPort { port, .. } => Self::AddPort(port),
            Self::SetPort { old, new, differences } => {
                Self::SetPort { old: new, new: old, differences: turned(&differences) }
            }
            Self::AddFdb(entry) => Self::DelFdb(entry),
            Self::DelFdb(entry) => Self::AddFdb(entry),
            Self::SetFdb { old, new, differences } => {
                Self::SetFdb { old: new, new: old, differences: turned(&differences) }
            }
            Self::AddNeigh(neigh) => Self::DelNeigh(neigh),
            Self::DelNeigh(neigh) => Self::AddNeigh(neigh),
            Self::SetNeigh { old, new, differences } => {
                Self::SetNeigh { old: new, new: old, differences: turned(&differences) }
            }
        }
    }
}

/// The uplinks in the way, with why, and the steps that make those wanted. One that differs is in the way, too.
fn uplinks<'a>(
    running: &'a Topology,
    desired: &Topology,
    prune: bool,
    workers: u16,
) -> (BTreeMap<&'a PortName, Vec<Difference>>, Vec<Change>) {
    let wanted: BTreeMap<_, _> = desired.uplink.iter().map(|u| (&u.name, u)).collect();
    let mut gone = BTreeMap::new();
    for uplink in &running.uplink {
        let differences = wanted.get(&uplink.name).map(|wanted| uplink.differences(wanted, workers));
        match differences {
            None if prune => drop(gone.insert(&uplink.name, Vec::new())),
            Some(differences) if !differences.is_empty() => drop(gone.insert(&uplink.name, differences)),
            _ => {}
        }
    }
    let stays = |name: &PortName| running.uplink.iter().any(|u| u.name == *name) && !gone.contains_key(name);
    let new = desired.uplink.iter().filter(|wanted| !stays(&wanted.name));
    let new = new.map(|wanted| Change::AddUplink(Box::new(wanted.clone()))).collect();
    (gone, new)
}

/// Why a tunnel goes by another uplink than before, or by one that is another now.
fn rerouted(before: Option<&UplinkSpec>, after: Option<&UplinkSpec>, workers: u16) -> Option<Difference> {
    let name =
        |uplink: Option<&UplinkSpec>| uplink.map_or_else(|| "unset".to_owned(), |u| u.name.to_string());
    let mut difference = Difference { key: "uplink".to_owned(), old: name(before), new: name(after) };
    if let (Some(before), Some(after)) = (before, after.filter(|_| difference.old == difference.new)) {
        let changes = before.difference(after, workers);
        difference.new += &format!(" with {}", changes.join(", "));
        return (!changes.is_empty()).then_some(difference);
    }
    (difference.old != difference.new).then_some(difference)
}

/// The steps that take neighbours away, and those that change and make them.
fn neighbours(running: &Topology, desired: &Topology, prune: bool) -> (Vec<Change>, Vec<Change>) {
    let key = |neigh: &NeighSpec| (neigh.bridge.clone(), neigh.vlan, neigh.ip);
    let known: BTreeMap<_, _> = running.neigh.iter().map(|n| (key(n), n)).collect();
    let wanted: BTreeSet<_> = desired.neigh.iter().map(key).collect();
    let gone = running.neigh.iter().filter(|n| prune && !wanted.contains(&key(n)));
    let changed = desired.neigh.iter().filter_map(|wanted| {
        let Some(neigh) = known.get(&key(wanted)) else { return Some(Change::AddNeigh(wanted.clone())) };
        let differences = neigh.differences(wanted);
        let (old, new) = ((*neigh).clone(), wanted.clone());
        (!differences.is_empty()).then_some(Change::SetNeigh { old, new, differences })
    });
    (gone.cloned().map(Change::DelNeigh).collect(), changed.collect())
}

/// The devices in the way, with why. A veth whose other end gets another name is, where something is on it, or wants that name.
fn devices<'a>(
    running: &'a Topology,
    desired: &Topology,
    graph: &Graph,
    prune: bool,
) -> BTreeMap<&'a DeviceName, Vec<Difference>> {
    let wanted: BTreeMap<_, _> = desired.device.iter().map(|d| (&d.name, d)).collect();
    let mut gone = BTreeMap::new();
    for device in &running.device {
        let Some(wanted) = wanted.get(&device.name) else {
            if prune {
                gone.insert(&device.name, Vec::new());
            }
            continue;
        };
        let differences = device.differences(wanted);
        let renamed = differences.iter().any(|difference| difference.key == "peer");
        if differences.iter().any(|difference| device.is_immutable(wanted, difference))
            || (renamed
                && (graph.is_needed(&Node::Device(device.name.clone())) || is_wanted(device, desired)))
        {
            gone.insert(&device.name, differences);
        }
    }
    gone
}

/// Whether something else is to have the name that the other end of a veth has.
fn is_wanted(veth: &DeviceSpec, desired: &Topology) -> bool {
    let Some(place) = veth.interfaces().nth(1) else { return false };
    let mut devices = desired.device.iter().filter(|d| d.name != veth.name).flat_map(DeviceSpec::interfaces);
    let mut uplinks = desired.uplink.iter().map(|u| (u.options.netns.as_ref(), u.ifname_or_default()));
    let ports = desired.port.iter().filter(|p| !p.options.kind_or_default().is_tunnel());
    let mut ports = { ports }.map(|p| (p.options.netns.as_ref(), p.ifname_or_default()));
    devices.any(|other| other == place)
        || uplinks.any(|other| other == place)
        || ports.any(|other| other == place)
}

/// Why an object has to go for a while: what it is on goes.
fn undermined(of: &Node, key: &str, returns: bool) -> Difference {
    let new = if returns { format!("{of}, made again") } else { UNSET.to_owned() };
    Difference { key: key.to_owned(), old: of.to_string(), new }
}

/// The steps that change devices and make them, those again that only had to make room.
fn device_changes<'a>(
    running: &'a Topology,
    desired: &'a Topology,
    gone: &BTreeMap<&DeviceName, Vec<Difference>>,
    future: impl Fn(&DeviceName) -> Option<&'a DeviceSpec>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for wanted in &desired.device {
        match running.device.iter().find(|d| d.name == wanted.name) {
            Some(device) if !gone.contains_key(&device.name) => {
                let differences = device.differences(wanted);
                if !differences.is_empty() {
                    let (old, new) = (Box::new(device.clone()), Box::new(wanted.clone()));
                    changes.push(Change::SetDevice { old, new, differences });
                }
            }
            _ => changes.push(Change::AddDevice(Box::new(wanted.clone()))),
        }
    }
    let wanted = |name: &DeviceName| desired.device.iter().any(|d| d.name == *name);
    let room = running.device.iter().filter(|d| gone.contains_key(&d.name) && !wanted(&d.name));
    changes.extend(room.filter_map(|d| future(&d.name)).map(|d| Change::AddDevice(Box::new(d.clone()))));
    changes
}

/// These steps, each after those of what its object needs.
fn made_in_order(
    devices: Vec<Change>,
    uplinks: Vec<Change>,
    ports: Vec<Change>,
    graph: &Graph,
) -> Vec<Change> {
    let mut steps: BTreeMap<Node, Change> = BTreeMap::new();
    let mut nodes = Vec::new();
    for change in devices.into_iter().chain(uplinks).chain(ports) {
        let node = match &change {
            Change::AddDevice(d) => Node::Device(d.name.clone()),
            Change::SetDevice { new, .. } => Node::Device(new.name.clone()),
            Change::AddUplink(u) => Node::Uplink(u.name.clone()),
            Change::AddPort(p) => Node::Port(p.name.clone()),
            Change::SetPort { new, .. } => Node::Port(new.name.clone()),
            _ => continue, // nothing else is made here
        };
        nodes.push(node.clone());
        steps.insert(node, change);
    }
    graph.needed_first(nodes).iter().filter_map(|node| steps.remove(node)).collect()
}

/// What makes `running` equal to `desired` in a daemon of `workers` workers.
///
/// Without `prune` what runs and is not wanted stays, save what a change of another object forbids: a static entry
/// behind a port that moves to another bridge. A tunnel is made again where the uplink that it goes by is another, and
/// whatever is on a device is made again with that device.
pub fn plan(running: &Topology, desired: &Topology, prune: bool, workers: u16) -> Vec<Change> {
    let bridges: BTreeMap<_, _> = running.bridge.iter().map(|b| (&b.name, b)).collect();
    let wanted_bridges: BTreeMap<_, _> = desired.bridge.iter().map(|b| (&b.name, b)).collect();
    let ports: BTreeMap<_, _> = running.port.iter().map(|p| (&p.name, p)).collect();
    let wanted_ports: BTreeMap<_, _> = desired.port.iter().map(|p| (&p.name, p)).collect();
    let key = |entry: &FdbSpec| (entry.bridge.clone(), entry.vlan, entry.mac);
    let entries: BTreeMap<_, _> = running.fdb.iter().map(|f| (key(f), f)).collect();
    let wanted_entries: BTreeMap<_, _> = desired.fdb.iter().map(|f| (key(f), f)).collect();

    let (mut gone_uplinks, uplink_changes) = uplinks(running, desired, prune, workers);
    let (gone_neighbours, neighbour_changes) = neighbours(running, desired, prune);
    // What a port will be: what is wanted of it, or without a wish what it is.
    let future = |name: &PortName| -> Option<&PortSpec> {
        wanted_ports.get(name).copied().or_else(|| ports.get(name).copied().filter(|_| !prune))
    };
    let stays = |uplink: &&UplinkSpec| {
        !gone_uplinks.contains_key(&uplink.name) && desired.uplink.iter().all(|u| u.name != uplink.name)
    };
    let uplinks_to_be: Vec<_> = running.uplink.iter().filter(stays).chain(&desired.uplink).collect();

    let wanted_devices: BTreeMap<_, _> = desired.device.iter().map(|d| (&d.name, d)).collect();
    let before = Graph::of(running.device.iter(), running.uplink.iter(), running.port.iter());
    let mut gone_devices = devices(running, desired, &before, prune);
    let future_device = |name: &DeviceName| -> Option<&DeviceSpec> {
        let known = || running.device.iter().find(|d| d.name == *name).filter(|_| !prune);
        wanted_devices.get(name).copied().or_else(known)
    };

    let mut gone_ports = BTreeMap::new();
    for port in &running.port {
        let Some(wanted) = future(&port.name) else {
            gone_ports.insert(&port.name, Vec::new());
            continue;
        };
        let mut differences = port.differences(wanted, workers);
        let before = running.uplink.iter().find(|u| port.uses(u));
        let after = uplinks_to_be.iter().copied().find(|u| wanted.uses(u));
        let rerouted = rerouted(before, after, workers);
        if rerouted.is_some() || differences.iter().any(Difference::is_immutable) {
            differences.extend(rerouted);
            gone_ports.insert(&port.name, differences);
        }
    }
    // A tunnel cannot take a network that another still has, so it takes it anew, when all have let go of theirs.
    for port in &running.port {
        let Some(wanted) = future(&port.name).filter(|_| !gone_ports.contains_key(&port.name)) else {
            continue;
        };
        let others = running.port.iter().filter(|o| o.name != port.name && !gone_ports.contains_key(&o.name));
        if wanted != port && others.into_iter().any(|other| wanted.clash(other).is_some()) {
            gone_ports.insert(&port.name, port.differences(wanted, workers));
        }
    }
    loop {
        let is_gone = |node: &Node| match node {
            Node::Device(name) => gone_devices.contains_key(name),
            Node::Uplink(name) => gone_uplinks.contains_key(name),
            Node::Port(name) => gone_ports.contains_key(name),
        };
        let returns = |node: &Node| match node {
            Node::Device(name) => future_device(name).is_some(),
            Node::Uplink(name) => uplinks_to_be.iter().any(|u| u.name == *name),
            Node::Port(name) => future(name).is_some(),
        };
        let why = |node: &Node| -> Option<Difference> {
            let (of, key) = before.needs(node).iter().find(|(of, _)| is_gone(of))?;
            (!is_gone(node)).then(|| undermined(of, key, returns(of)))
        };
        let device = running.device.iter().find_map(|d| Some((&d.name, why(&Node::Device(d.name.clone()))?)));
        let port = running.port.iter().find_map(|p| Some((&p.name, why(&Node::Port(p.name.clone()))?)));
        if let Some((name, why)) = device {
            let changes = future_device(name)
                .and_then(|new| Some(running.device.iter().find(|d| d.name == *name)?.differences(new)));
            gone_devices.insert(name, changes.into_iter().flatten().chain([why]).collect());
        } else if let Some((name, why)) = port {
            let changes = future(name).and_then(|new| Some(ports.get(name)?.differences(new, workers)));
            gone_ports.insert(name, changes.into_iter().flatten().chain([why]).collect());
        } else {
            break;
        }
    }
    let (mut port_changes, mut new_ports) = (Vec::new(), Vec::new());
    for wanted in &desired.port {
        match ports.get(&wanted.name) {
            Some(port) if !gone_ports.contains_key(&port.name) => {
                let differences = port.differences(wanted, workers);
                if !differences.is_empty() {
                    let (old, new) = (Box::new((*port).clone()), Box::new(wanted.clone()));
                    port_changes.push(Change::SetPort { old, new, differences });
                }
            }
            _ => new_ports.push(Change::AddPort(Box::new(wanted.clone()))),
        }
    }
    for port in running
        .port
        .iter()
        .filter(|p| gone_ports.contains_key(&p.name) && !wanted_ports.contains_key(&p.name))
    {
        new_ports.extend(future(&port.name).map(|port| Change::AddPort(Box::new(port.clone()))));
    }
    port_changes.extend(new_ports);

    let mut plan = gone_neighbours;
    let mut entry_changes = Vec::new();
    for entry in &running.fdb {
        let wanted = wanted_entries.get(&key(entry));
        if gone_ports.contains_key(&entry.port) {
            plan.push(Change::DelFdb(entry.clone()));
            // It comes back with its port, unless that is on another bridge now.
            let returns = !prune && future(&entry.port).is_some_and(|p| p.bridge == entry.bridge);
            if wanted.is_none() && returns {
                entry_changes.push(Change::AddFdb(entry.clone()));
            }
        } else if wanted.is_none() && prune {
            plan.push(Change::DelFdb(entry.clone()));
        }
    }
    for wanted in &desired.fdb {
        match entries.get(&key(wanted)) {
            Some(entry) if !gone_ports.contains_key(&entry.port) => {
                let differences = entry.differences(wanted);
                if !differences.is_empty() {
                    let (old, new) = ((*entry).clone(), wanted.clone());
                    entry_changes.push(Change::SetFdb { old, new, differences });
                }
            }
            _ => entry_changes.push(Change::AddFdb(wanted.clone())),
        }
    }

    let in_the_way = running.port.iter().map(|p| Node::Port(p.name.clone()));
    let in_the_way = in_the_way.chain(running.uplink.iter().map(|u| Node::Uplink(u.name.clone())));
    let in_the_way = in_the_way.chain(running.device.iter().rev().map(|d| Node::Device(d.name.clone())));
    for node in before.needing_first(in_the_way.collect()) {
        plan.extend(match &node {
            Node::Port(name) => gone_ports.remove(name).and_then(|differences| {
                Some(Change::DelPort { port: Box::new((*ports.get(name)?).clone()), differences })
            }),
            Node::Uplink(name) => gone_uplinks.remove(name).and_then(|differences| {
                let uplink = running.uplink.iter().find(|u| u.name == *name)?;
                Some(Change::DelUplink { uplink: Box::new(uplink.clone()), differences })
            }),
            Node::Device(name) => gone_devices.get(name).cloned().and_then(|differences| {
                let device = running.device.iter().find(|d| d.name == *name)?;
                Some(Change::DelDevice { device: Box::new(device.clone()), differences })
            }),
        });
    }
    let unwanted = running.bridge.iter().filter(|b| prune && !wanted_bridges.contains_key(&b.name));
    plan.extend(unwanted.cloned().map(Change::DelBridge));
    for wanted in &desired.bridge {
        match bridges.get(&wanted.name) {
            None => plan.push(Change::AddBridge(wanted.clone())),
            Some(bridge) => {
                let differences = bridge.differences(wanted);
                if !differences.is_empty() {
                    let (old, new) = ((*bridge).clone(), wanted.clone());
                    plan.push(Change::SetBridge { old, new, differences });
                }
            }
        }
    }
    plan.extend(made_in_order(
        device_changes(running, desired, &gone_devices, future_device),
        uplink_changes,
        port_changes,
        &Graph::of(
            desired
                .device
                .iter()
                .chain(running.device.iter().filter(|d| !prune && !wanted_devices.contains_key(&d.name))),
            uplinks_to_be.iter().copied(),
            desired
                .port
                .iter()
                .chain(running.port.iter().filter(|p| !prune && !wanted_ports.contains_key(&p.name))),
        ),
    ));
    plan.extend(entry_changes);
    plan.extend(neighbour_changes);
    plan
}

#[cfg(test)]
mod tests;
