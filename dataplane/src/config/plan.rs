//! From what runs to what is wanted, step by step.
//!
//! Owns the order: whatever is in the way goes first, neighbours and entries before ports before uplinks before bridges;
//! then bridges, uplinks, ports, entries and neighbours come, so that at every step all names in use exist.
//! Each step can be undone, and undoing all of them in reverse leads back.
//! Both topologies must make sense alone, as [`Topology::parse`] and the checks of each object see to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    diff::Difference,
    spec::{BridgeSpec, FdbSpec, NeighSpec, PortSpec, UplinkSpec},
    topology::Topology,
    words::PortName,
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

/// What makes `running` equal to `desired` in a daemon of `workers` workers.
///
/// Without `prune` what runs and is not wanted stays, save what a change of another object forbids: a static entry
/// behind a port that moves to another bridge. A tunnel is made again where the uplink that it goes by is another.
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
    let future =
        |name| wanted_ports.get(name).copied().or_else(|| ports.get(name).copied().filter(|_| !prune));
    let stays = |uplink: &&UplinkSpec| {
        !gone_uplinks.contains_key(&uplink.name) && desired.uplink.iter().all(|u| u.name != uplink.name)
    };
    let uplinks_to_be: Vec<_> = running.uplink.iter().filter(stays).chain(&desired.uplink).collect();

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

    for port in &running.port {
        if let Some(differences) = gone_ports.remove(&port.name) {
            plan.push(Change::DelPort { port: Box::new(port.clone()), differences });
        }
    }
    for uplink in &running.uplink {
        if let Some(differences) = gone_uplinks.remove(&uplink.name) {
            plan.push(Change::DelUplink { uplink: Box::new(uplink.clone()), differences });
        }
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
    plan.extend(uplink_changes);
    plan.extend(port_changes);
    plan.extend(entry_changes);
    plan.extend(neighbour_changes);
    plan
}

#[cfg(test)]
mod tests;
