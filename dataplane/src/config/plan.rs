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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::arbitrary;

    const WORKERS: u16 = 2;

    fn topology(text: &str) -> Topology {
        Topology::parse(text).unwrap().0
    }

    fn base() -> Topology {
        topology(
            r#"
            bridge = [{ name = "br0" }, { name = "br1" }]
            port = [{ name = "a", bridge = "br0" }, { name = "b", bridge = "br0", access = 10 }]
            fdb = [
                { mac = "02:00:00:00:00:01", bridge = "br0", port = "a" },
                { mac = "02:00:00:00:00:02", bridge = "br0", vlan = 10, port = "b" },
            ]"#,
        )
    }

    fn words(plan: &[Change]) -> Vec<String> {
        let said = |all: &[Difference]| all.iter().map(|d| format!(" {d}")).collect::<String>();
        let word = |change: &Change| match change {
            Change::AddBridge(b) => format!("+ bridge {}", b.name),
            Change::SetBridge { new, differences, .. } => {
                format!("~ bridge {}{}", new.name, said(differences))
            }
            Change::DelBridge(b) => format!("- bridge {}", b.name),
            Change::AddPort(p) => format!("+ port {}", p.name),
            Change::SetPort { new, differences, .. } => format!("~ port {}{}", new.name, said(differences)),
            Change::DelPort { port, differences } => format!("- port {}{}", port.name, said(differences)),
            Change::AddFdb(f) => format!("+ fdb {}", f.key()),
            Change::SetFdb { new, differences, .. } => format!("~ fdb {}{}", new.key(), said(differences)),
            Change::DelFdb(f) => format!("- fdb {}", f.key()),
            Change::AddUplink(u) => format!("+ uplink {}", u.name),
            Change::DelUplink { uplink, differences } => {
                format!("- uplink {}{}", uplink.name, said(differences))
            }
            Change::AddNeigh(n) => format!("+ neigh {}", n.key()),
            Change::SetNeigh { new, differences, .. } => {
                format!("~ neigh {}{}", new.key(), said(differences))
            }
            Change::DelNeigh(n) => format!("- neigh {}", n.key()),
        };
        plan.iter().map(word).collect()
    }

    #[test]
    fn what_runs_already_needs_no_step() {
        assert_eq!(plan(&base(), &base(), true, WORKERS), []);
        let mut explicit = base();
        explicit.port[0].options.queues = Some(WORKERS);
        explicit.port.reverse();
        assert_eq!(plan(&base(), &explicit, true, WORKERS), []);
    }

    #[test]
    fn from_nothing_bridges_come_before_ports_before_entries_and_go_the_other_way() {
        let up = plan(&Topology::default(), &base(), false, WORKERS);
        assert_eq!(
            words(&up),
            [
                "+ bridge br0",
                "+ bridge br1",
                "+ port a",
                "+ port b",
                "+ fdb br0 vlan 0 02:00:00:00:00:01",
                "+ fdb br0 vlan 10 02:00:00:00:00:02"
            ]
        );
        let down = plan(&base(), &Topology::default(), true, WORKERS);
        assert_eq!(
            words(&down),
            [
                "- fdb br0 vlan 0 02:00:00:00:00:01",
                "- fdb br0 vlan 10 02:00:00:00:00:02",
                "- port a",
                "- port b",
                "- bridge br0",
                "- bridge br1"
            ]
        );
    }

    #[test]
    fn without_prune_what_is_not_wanted_stays() {
        assert_eq!(plan(&base(), &Topology::default(), false, WORKERS), []);
    }

    #[test]
    fn what_a_port_can_change_while_it_lives_is_changed_in_place() {
        let mut desired = base();
        desired.port[1].options = toml::from_str("trunk = \"10,20\"\nmtu = 9000").unwrap();
        desired.bridge[0].options.fdb_limit = Some(9);
        desired.fdb[0].sticky = true;
        assert_eq!(
            words(&plan(&base(), &desired, true, WORKERS)),
            [
                "~ bridge br0 fdb_limit: 65536 -> 9",
                "~ port b access: 10 -> unset mtu: 1500 -> 9000 trunk: unset -> 10,20",
                "~ fdb br0 vlan 0 02:00:00:00:00:01 sticky: off -> on"
            ]
        );
    }

    #[test]
    fn a_port_that_cannot_change_is_replaced_with_its_entries() {
        let mut desired = base();
        desired.port[0].options.queues = Some(1);
        desired.fdb.remove(0);
        let steps = ["- fdb br0 vlan 0 02:00:00:00:00:01", "- port a queues: 2 -> 1", "+ port a"];
        assert_eq!(words(&plan(&base(), &desired, true, WORKERS)), steps);
        let kept = [&steps[..], &["+ fdb br0 vlan 0 02:00:00:00:00:01"]].concat();
        assert_eq!(words(&plan(&base(), &desired, false, WORKERS)), kept);
    }

    #[test]
    fn uplinks_stand_between_bridges_and_ports_and_neighbours_at_the_ends() {
        let mut with = base();
        let more = topology(
            r#"
            bridge = [{ name = "br0" }]
            uplink = [{ name = "up0", address = "198.51.100.1/30" }]
            neigh = [{ ip = "198.51.100.7", mac = "02:00:00:00:00:07", bridge = "br0", vlan = 10 }]"#,
        );
        (with.uplink, with.neigh) = (more.uplink, more.neigh);
        let up = words(&plan(&Topology::default(), &with, false, WORKERS));
        assert_eq!(up[2..4], ["+ uplink up0", "+ port a"]);
        assert_eq!(up.last().unwrap(), "+ neigh br0 vlan 10 198.51.100.7");
        let down = words(&plan(&with, &Topology::default(), true, WORKERS));
        assert_eq!(down[0], "- neigh br0 vlan 10 198.51.100.7");
        assert_eq!(down[4..6], ["- port b", "- uplink up0"]);

        let mut changed = with.clone();
        changed.uplink[0].options.mtu = Some(9000);
        changed.neigh[0].mac = "02:00:00:00:00:08".parse().unwrap();
        assert_eq!(
            words(&plan(&with, &changed, false, WORKERS)),
            [
                "- uplink up0 mtu: 1500 -> 9000",
                "+ uplink up0",
                "~ neigh br0 vlan 10 198.51.100.7 mac: 02:00:00:00:00:07 -> 02:00:00:00:00:08"
            ]
        );
    }

    fn overlay(ports: &str, uplinks: &str) -> Topology {
        topology(&format!("bridge = [{{ name = \"br0\" }}]\nuplink = [{uplinks}]\nport = [{ports}]"))
    }

    fn tunnel(name: &str, more: &str) -> String {
        format!(
            "{{ name = \"{name}\", bridge = \"br0\", type = \"vxlan\", local = \"198.51.100.1\", {more} }},"
        )
    }

    #[test]
    fn a_tunnel_is_made_again_where_its_uplink_comes_goes_or_changes() {
        let (t, uplink) = (tunnel("t", "vni = 7"), "{ name = \"up0\", address = \"198.51.100.1/30\" }");
        let (without, with) = (overlay(&t, ""), overlay(&t, uplink));
        let changed = overlay(&t, &uplink.replace(" }", ", mtu = 9000 }"));
        let again = |running, desired, prune| words(&plan(running, desired, prune, WORKERS));
        assert_eq!(
            again(&without, &with, false),
            ["- port t uplink: unset -> up0", "+ uplink up0", "+ port t"]
        );
        assert_eq!(
            again(&with, &without, true),
            ["- port t uplink: up0 -> unset", "- uplink up0", "+ port t"]
        );
        assert_eq!(again(&with, &without, false), [""; 0]);
        let replaced = [
            "- port t uplink: up0 -> up0 with mtu: 1500 -> 9000",
            "- uplink up0 mtu: 1500 -> 9000",
            "+ uplink up0",
            "+ port t",
        ];
        assert_eq!(again(&with, &changed, true), replaced);
        let mut nameless = changed.clone();
        nameless.port.clear();
        assert_eq!(again(&with, &nameless, false), replaced, "a port that is not named stays");
    }

    #[test]
    fn tunnels_can_swap_their_networks() {
        let ports = |a: u32, b: u32| {
            overlay(&(tunnel("a", &format!("vni = {a}")) + &tunnel("b", &format!("vni = {b}"))), "")
        };
        let swap = plan(&ports(7, 8), &ports(8, 7), false, WORKERS);
        assert_eq!(words(&swap), ["- port a vni: 7 -> 8", "~ port b vni: 8 -> 7", "+ port a"]);
        assert_eq!(words(&plan(&ports(7, 8), &ports(7, 9), false, WORKERS)), ["~ port b vni: 8 -> 9"]);
    }

    #[test]
    fn a_port_that_moves_to_another_bridge_leaves_its_entries() {
        let mut desired = base();
        desired.port[0].bridge = "br1".parse().unwrap();
        desired.fdb.remove(0);
        assert_eq!(
            words(&plan(&base(), &desired, false, WORKERS)),
            ["- fdb br0 vlan 0 02:00:00:00:00:01", "- port a bridge: br0 -> br1", "+ port a"]
        );
    }

    /// What runs, which refuses what a switch refuses.
    #[derive(Clone, Debug)]
    struct Model(Topology);

    impl Model {
        fn apply(&mut self, change: &Change) {
            let Topology { bridge, uplink, port, fdb, neigh } = &mut self.0;
            match change {
                Change::AddBridge(b) => {
                    assert!(bridge.iter().all(|x| x.name != b.name));
                    bridge.push(b.clone());
                }
                Change::DelBridge(b) => {
                    assert!(port.iter().all(|p| p.bridge != b.name), "bridge in use");
                    assert!(neigh.iter().all(|n| n.bridge != b.name), "neighbours would be lost");
                    bridge.remove(bridge.iter().position(|x| x == b).expect("the bridge as described"));
                }
                Change::SetBridge { old, new, differences } => {
                    assert!(!differences.is_empty());
                    *bridge.iter_mut().find(|x| *x == old).expect("the bridge as described") = new.clone();
                }
                Change::AddPort(p) => {
                    assert!(port.iter().all(|x| x.name != p.name), "port exists");
                    assert!(bridge.iter().any(|b| b.name == p.bridge), "no such bridge");
                    assert!(port.iter().all(|x| p.clash(x).is_none()), "network in use");
                    port.push((**p).clone());
                }
                Change::DelPort { port: p, .. } => {
                    assert!(fdb.iter().all(|f| f.port != p.name), "port in use");
                    port.remove(port.iter().position(|x| *x == **p).expect("the port as described"));
                }
                Change::SetPort { old, new, differences } => {
                    assert!(!differences.is_empty() && old.immutable_differences(new, WORKERS).is_empty());
                    assert!(
                        port.iter().all(|x| x.name == new.name || new.clash(x).is_none()),
                        "network in use"
                    );
                    *port.iter_mut().find(|x| **x == **old).expect("the port as described") = (**new).clone();
                }
                Change::AddFdb(f) => {
                    assert!(fdb.iter().all(|x| x.key() != f.key()), "entry exists");
                    assert!(
                        port.iter().any(|p| p.name == f.port && p.bridge == f.bridge),
                        "no such port there"
                    );
                    fdb.push(f.clone());
                }
                Change::SetFdb { old, new, .. } => {
                    assert!(
                        port.iter().any(|p| p.name == new.port && p.bridge == new.bridge),
                        "no such port there"
                    );
                    *fdb.iter_mut().find(|x| *x == old).expect("the entry as described") = new.clone();
                }
                Change::DelFdb(f) => {
                    fdb.remove(fdb.iter().position(|x| x == f).expect("the entry as described"));
                }
                Change::AddUplink(u) => {
                    assert!(uplink.iter().all(|x| x.name != u.name), "uplink exists");
                    assert!(port.iter().all(|x| x.name != u.name), "a port has that name");
                    assert!(uplink.iter().all(|x| x.address.addr() != u.address.addr()), "address taken");
                    assert!(port.iter().all(|x| !x.uses(u)), "a tunnel runs without its uplink");
                    uplink.push((**u).clone());
                }
                Change::DelUplink { uplink: u, .. } => {
                    assert!(port.iter().all(|x| !x.uses(u)), "uplink in use");
                    uplink.remove(uplink.iter().position(|x| *x == **u).expect("the uplink as described"));
                }
                Change::AddNeigh(n) => {
                    assert!(neigh.iter().all(|x| x.key() != n.key()), "neighbour exists");
                    assert!(bridge.iter().any(|b| b.name == n.bridge), "no such bridge");
                    neigh.push(n.clone());
                }
                Change::SetNeigh { old, new, differences } => {
                    assert!(!differences.is_empty());
                    *neigh.iter_mut().find(|x| *x == old).expect("the neighbour as described") = new.clone();
                }
                Change::DelNeigh(n) => {
                    neigh.remove(neigh.iter().position(|x| x == n).expect("the neighbour as described"));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_plan_leads_to_what_is_wanted_and_undoing_it_leads_back(
            running in arbitrary::topology(), desired in arbitrary::topology(), prune in any::<bool>()
        ) {
            let steps = plan(&running, &desired, prune, WORKERS);
            let mut model = Model(running.clone());
            steps.iter().for_each(|step| model.apply(step));
            prop_assert_eq!(plan(&model.0, &desired, prune, WORKERS), []);
            if prune {
                prop_assert_eq!(plan(&desired, &model.0, true, WORKERS), []);
            } else {
                let ports = running.port.iter().filter(|p| desired.port.iter().all(|d| d.name != p.name));
                prop_assert!(ports.into_iter().all(|p| model.0.port.contains(p)));
            }
            steps.iter().rev().for_each(|step| model.apply(&step.undo()));
            let mut before = running;
            before.sort();
            model.0.sort();
            prop_assert_eq!(model.0, before);
            let back = |step: &Change| matches!(step, Change::DelPort { .. } | Change::DelUplink { .. }) || step.undo().undo() == *step;
            prop_assert!(steps.iter().all(back));
        }
    }
}
