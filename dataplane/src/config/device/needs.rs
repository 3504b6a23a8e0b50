//! Which objects need which: a device its parent and its master, a tunnel the device that it leaves by, a netdev port its interface.
//!
//! Only what a topology has itself is looked at; an interface that is not in it is the host's, and has to be there.

use std::collections::{BTreeMap, BTreeSet};

use super::DeviceSpec;
use crate::config::{
    spec::{PortSpec, UplinkSpec},
    words::{DeviceName, Netns, PortName},
};

/// An object that brings interfaces or needs them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) enum Node {
    Device(DeviceName),
    Uplink(PortName),
    Port(PortName),
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device {name}"),
            Self::Uplink(name) => write!(f, "uplink {name}"),
            Self::Port(name) => write!(f, "port {name}"),
        }
    }
}

/// What is on the interfaces of an object, the `kind` it is and its `name` as in `tapwayctl KIND del NAME`, and by which key.
pub fn needing<'a>(
    devices: impl Iterator<Item = &'a DeviceSpec> + Clone,
    uplinks: impl Iterator<Item = &'a UplinkSpec> + Clone,
    ports: impl Iterator<Item = &'a PortSpec> + Clone,
    (kind, name): (&str, &str),
) -> Option<(String, &'static str)> {
    let graph = Graph::of(devices, uplinks, ports);
    let same = format!("{kind} {name}");
    let (who, all) = graph.needs.iter().find(|(_, all)| all.iter().any(|(of, _)| of.to_string() == same))?;
    let (_, key) = all.iter().find(|(of, _)| of.to_string() == same)?;
    Some((who.to_string(), *key))
}

/// These devices, each after those that it is on.
pub fn needed_first(devices: Vec<DeviceSpec>) -> Vec<DeviceSpec> {
    let graph = Graph::of(devices.iter(), std::iter::empty(), std::iter::empty());
    let nodes = devices.iter().map(|d| Node::Device(d.name.clone())).collect();
    let mut by_name: BTreeMap<Node, DeviceSpec> =
        devices.into_iter().map(|d| (Node::Device(d.name.clone()), d)).collect();
    graph.needed_first(nodes).iter().filter_map(|node| by_name.remove(node)).collect()
}

/// Objects of which each needs the next by a key, and the last the first.
type Cycle = Vec<(Node, &'static str)>;

type Needs = BTreeMap<Node, Vec<(Node, &'static str)>>;

/// What needs what.
#[derive(Debug, Default)]
pub(in crate::config) struct Graph {
    needs: Needs,
    needed_by: BTreeMap<Node, Vec<Node>>,
}

impl Graph {
    pub(in crate::config) fn of<'a>(
        devices: impl Iterator<Item = &'a DeviceSpec> + Clone,
        uplinks: impl Iterator<Item = &'a UplinkSpec> + Clone,
        ports: impl Iterator<Item = &'a PortSpec> + Clone,
    ) -> Self {
        // Without devices nothing here needs anything: a tunnel and its uplink have rules of their own.
        if devices.clone().next().is_none() {
            return Self::default();
        }
        let mut brings: BTreeMap<(Option<&Netns>, &str), Node> = BTreeMap::new();
        for device in devices.clone() {
            for place in device.interfaces() {
                brings.entry(place).or_insert_with(|| Node::Device(device.name.clone()));
            }
        }
        for uplink in uplinks {
            let place = (uplink.options.netns.as_ref(), uplink.ifname_or_default());
            brings.entry(place).or_insert_with(|| Node::Uplink(uplink.name.clone()));
        }
        for port in ports.clone().filter(|p| p.options.kind_or_default().is_tap()) {
            let place = (port.options.netns.as_ref(), port.ifname_or_default());
            brings.entry(place).or_insert_with(|| Node::Port(port.name.clone()));
        }
        let mut owners = BTreeMap::new();
        for device in devices.clone() {
            let (own, peer) = (&device.options, &device.options.peer);
            for address in &own.address {
                owners.insert((own.netns.as_ref(), address.addr()), &device.name);
            }
            for address in &peer.address {
                owners.insert((peer.netns.as_ref(), address.addr()), &device.name);
            }
        }

        let mut needs = Needs::new();
        let mut need = |who: &Node, key: &'static str, of: Option<&Node>| {
            if let Some(of) = of {
                needs.entry(who.clone()).or_default().push((of.clone(), key));
            }
        };
        for device in devices {
            let (node, o) = (Node::Device(device.name.clone()), &device.options);
            let below = o.link_netns.as_ref();
            for (key, netns, name) in [
                ("parent", below, &o.parent),
                ("dev", below, &o.dev),
                ("master", o.netns.as_ref(), &o.master),
            ] {
                need(&node, key, name.as_deref().and_then(|name| brings.get(&(netns, name))));
            }
        }
        for port in ports.clone().filter(|p| p.options.kind_or_default().is_netdev()) {
            let place = (port.options.netns.as_ref(), port.ifname_or_default());
            need(&Node::Port(port.name.clone()), "ifname", brings.get(&place));
        }
        for port in ports.filter(|p| p.options.kind_or_default().is_tunnel()) {
            let (node, o) = (Node::Port(port.name.clone()), &port.options);
            let netns = o.netns.as_ref();
            need(&node, "underlay_dev", o.underlay_dev.as_deref().and_then(|dev| brings.get(&(netns, dev))));
            let owner = o.local.and_then(|local| owners.get(&(netns, local)));
            need(&node, "local", owner.map(|name| Node::Device((*name).clone())).as_ref());
        }
        let mut needed_by: BTreeMap<Node, Vec<Node>> = BTreeMap::new();
        for (who, all) in &needs {
            for (of, _) in all {
                needed_by.entry(of.clone()).or_default().push(who.clone());
            }
        }
        Self { needs, needed_by }
    }

    /// What an object needs, and by which key.
    pub(in crate::config) fn needs(&self, node: &Node) -> &[(Node, &'static str)] {
        self.needs.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether anything needs it.
    pub(in crate::config) fn is_needed(&self, node: &Node) -> bool {
        self.needed_by.contains_key(node)
    }

    /// These objects, each after those that it needs and otherwise as they come.
    pub(in crate::config) fn needed_first(&self, nodes: Vec<Node>) -> Vec<Node> {
        in_order(nodes, |node| self.needs(node).iter().map(|(of, _)| of))
    }

    /// These objects, each before those that it needs and otherwise as they come.
    pub(in crate::config) fn needing_first(&self, nodes: Vec<Node>) -> Vec<Node> {
        in_order(nodes, |node| self.needed_by.get(node).into_iter().flatten())
    }

    /// Objects that need each other in a circle, each circle once.
    pub(in crate::config) fn cycles(&self) -> Vec<Cycle> {
        let (mut done, mut cycles) = (BTreeSet::new(), Vec::new());
        for start in self.needs.keys() {
            // The way from `start`: each object, and which of its needs is looked at next.
            let mut way: Vec<(&Node, usize)> = vec![(start, 0)];
            while let Some((node, next)) = way.last_mut() {
                let node = *node;
                let need = if done.contains(node) { None } else { self.needs(node).get(*next) };
                let Some((of, _)) = need else {
                    done.insert(node);
                    way.pop();
                    continue;
                };
                *next += 1;
                match way.iter().position(|(on_it, _)| *on_it == of) {
                    None => way.push((of, 0)),
                    Some(at) => cycles.push(
                        way[at..].iter().map(|(n, next)| ((*n).clone(), self.needs(n)[next - 1].1)).collect(),
                    ),
                }
            }
        }
        cycles
    }
}

/// Depth first: before each object those that `before` names, if they are among them.
fn in_order<'a, I: Iterator<Item = &'a Node>>(nodes: Vec<Node>, before: impl Fn(&Node) -> I) -> Vec<Node> {
    let among: BTreeSet<Node> = nodes.iter().cloned().collect();
    let (mut seen, mut out) = (BTreeSet::new(), Vec::with_capacity(nodes.len()));
    for node in nodes {
        if !seen.insert(node.clone()) {
            continue;
        }
        let firsts = before(&node).cloned().collect::<Vec<_>>();
        let mut way = vec![(node, firsts.into_iter())];
        while let Some((_, firsts)) = way.last_mut() {
            match firsts.next() {
                Some(first) => {
                    if among.contains(&first) && seen.insert(first.clone()) {
                        let more = before(&first).cloned().collect::<Vec<_>>();
                        way.push((first, more.into_iter()));
                    }
                }
                None => out.extend(way.pop().map(|(node, _)| node)),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Topology;

    fn graph(text: &str) -> Graph {
        let topology: Topology = Topology::parse(text).unwrap().0;
        Graph::of(topology.device.iter(), topology.uplink.iter(), topology.port.iter())
    }

    fn device(name: &str) -> Node {
        Node::Device(name.parse().unwrap())
    }

    #[test]
    fn a_netdev_port_needs_the_device_whose_interface_it_takes() {
        let text = r#"
            bridge = [{ name = "br0" }]
            device = [{ name = "v", type = "veth", peer = { name = "w", netns = "c1" } }, { name = "d", type = "dummy" }]
            port = [
                { name = "v", bridge = "br0", type = "netdev" },
                { name = "p", bridge = "br0", type = "netdev", ifname = "w", netns = "c1" },
                { name = "q", bridge = "br0", type = "netdev", ifname = "w" },
            ]"#;
        let graph = graph(text);
        let port = |name: &str| Node::Port(name.parse().unwrap());
        assert_eq!(graph.needs(&port("v")), [(device("v"), "ifname")]);
        assert_eq!(graph.needs(&port("p")), [(device("v"), "ifname")]);
        assert_eq!(graph.needs(&port("q")), []);
        let order = graph.needing_first(vec![device("v"), device("d"), port("p"), port("v")]);
        assert_eq!(order, [port("p"), port("v"), device("v"), device("d")]);
    }

    #[test]
    fn a_device_needs_its_parent_and_its_master_and_a_tunnel_where_it_leaves() {
        let text = r#"
            bridge = [{ name = "br0" }]
            device = [
                { name = "m", type = "macvlan", parent = "v" },
                { name = "e", type = "dummy", master = "kbr" },
                { name = "v", type = "veth", peer = { name = "w", netns = "c1", address = "198.51.100.1/24" } },
                { name = "kbr", type = "bridge" },
                { name = "x", type = "vlan", id = 7, parent = "vm1" },
                { name = "y", type = "vlan", id = 7, parent = "w", link_netns = "c1" },
            ]
            port = [
                { name = "vm1", bridge = "br0" },
                { name = "t", bridge = "br0", type = "vxlan", vni = 7, local = "198.51.100.1", netns = "c1" },
            ]"#;
        let graph = graph(text);
        assert_eq!(graph.needs(&device("m")), [(device("v"), "parent")]);
        assert_eq!(graph.needs(&device("e")), [(device("kbr"), "master")]);
        assert_eq!(graph.needs(&device("y")), [(device("v"), "parent")]);
        let (vm1, t) = (Node::Port("vm1".parse().unwrap()), Node::Port("t".parse().unwrap()));
        assert_eq!(graph.needs(&device("x")), [(vm1.clone(), "parent")]);
        assert_eq!(graph.needs(&t), [(device("v"), "local")]);
        let all = ["m", "e", "v", "kbr", "x"].map(device).into_iter().chain([vm1.clone(), t.clone()]);
        let order = graph.needed_first(all.clone().collect());
        let names: Vec<_> = order.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["device v", "device m", "device kbr", "device e", "port vm1", "device x", "port t"]
        );
        let order = graph.needing_first(all.collect());
        let at = |node: &Node| order.iter().position(|n| n == node).unwrap();
        assert!(
            at(&t) < at(&device("v")) && at(&device("m")) < at(&device("v")) && at(&device("x")) < at(&vm1)
        );
    }
}
