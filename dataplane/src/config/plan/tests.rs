//! Plans, step by step, and a model that carries them out.

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
        Change::AddDevice(d) => format!("+ device {}", d.name),
        Change::SetDevice { new, differences, .. } => {
            format!("~ device {}{}", new.name, said(differences))
        }
        Change::DelDevice { device, differences } => {
            format!("- device {}{}", device.name, said(differences))
        }
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
    format!("{{ name = \"{name}\", bridge = \"br0\", type = \"vxlan\", local = \"198.51.100.1\", {more} }},")
}

#[test]
fn a_tunnel_is_made_again_where_its_uplink_comes_goes_or_changes() {
    let (t, uplink) = (tunnel("t", "vni = 7"), "{ name = \"up0\", address = \"198.51.100.1/30\" }");
    let (without, with) = (overlay(&t, ""), overlay(&t, uplink));
    let changed = overlay(&t, &uplink.replace(" }", ", mtu = 9000 }"));
    let again = |running, desired, prune| words(&plan(running, desired, prune, WORKERS));
    assert_eq!(again(&without, &with, false), ["- port t uplink: unset -> up0", "+ uplink up0", "+ port t"]);
    assert_eq!(again(&with, &without, true), ["- port t uplink: up0 -> unset", "- uplink up0", "+ port t"]);
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

fn devices(text: &str) -> Topology {
    topology(&format!("bridge = [{{ name = \"br0\" }}]\ndevice = [{text}]"))
}

#[test]
fn a_device_comes_after_what_it_is_on_and_goes_before_it() {
    let text = r#"
        { name = "m", type = "macvlan", parent = "v" },
        { name = "v", type = "veth", peer = { name = "w" }, master = "kbr" },
        { name = "kbr", type = "bridge" }"#;
    let none = Topology { bridge: devices("").bridge, ..Topology::default() };
    let up = plan(&none, &devices(text), false, WORKERS);
    assert_eq!(words(&up), ["+ device kbr", "+ device v", "+ device m"]);
    let down = plan(&devices(text), &none, true, WORKERS);
    assert_eq!(words(&down), ["- device m", "- device v", "- device kbr"]);
    assert_eq!(plan(&devices(text), &none, false, WORKERS), []);

    let changed = text.replace("\"macvlan\"", "\"macvlan\", mode = \"vepa\"");
    let changed = changed.replace("type = \"bridge\"", "type = \"bridge\", stp = true");
    assert_eq!(
        words(&plan(&devices(text), &devices(&changed), true, WORKERS)),
        ["~ device m mode: bridge -> vepa", "~ device kbr stp: off -> on"]
    );
}

#[test]
fn what_is_on_a_device_that_is_replaced_is_made_again_with_the_reason() {
    let text = r#"
        { name = "m", type = "macvlan", parent = "v" },
        { name = "v", type = "veth", peer = { name = "w" } }"#;
    let renamed = text.replace("\"w\"", "\"x\"");
    let steps = [
        "- device m parent: device v -> device v, made again",
        "- device v peer: w -> x",
        "+ device v",
        "+ device m",
    ];
    assert_eq!(words(&plan(&devices(text), &devices(&renamed), true, WORKERS)), steps);
    let alone = r#"{ name = "v", type = "veth", peer = { name = "x" } }"#;
    assert_eq!(words(&plan(&devices(text), &devices(alone), false, WORKERS)), steps);
}

#[test]
fn the_other_end_of_a_veth_is_renamed_in_place_unless_somebody_is_in_the_way() {
    let veth = |name: &str, peer: &str| {
        format!("{{ name = \"{name}\", type = \"veth\", peer = {{ name = \"{peer}\" }} }},")
    };
    let before = devices(&(veth("v", "w") + &veth("y", "z")));
    let alone = devices(&(veth("v", "x") + &veth("y", "z")));
    assert_eq!(words(&plan(&before, &alone, true, WORKERS)), ["~ device v peer: w -> x"]);
    let swapped = devices(&(veth("v", "z") + &veth("y", "w")));
    assert_eq!(
        words(&plan(&before, &swapped, true, WORKERS)),
        ["- device y peer: z -> w", "- device v peer: w -> z", "+ device v", "+ device y"]
    );
}

#[test]
fn a_tunnel_is_made_again_with_the_device_that_has_its_address_and_a_vlan_with_the_port_it_is_on() {
    let text = |mtu: &str, queues: u16| {
        topology(&format!(
            r#"
            bridge = [{{ name = "br0" }}]
            device = [
                {{ name = "x", type = "vlan", id = 7, parent = "vm1" }},
                {{ name = "d", type = "dummy", address = "198.51.100.1/24", {mtu} }},
            ]
            port = [
                {{ name = "t", bridge = "br0", type = "vxlan", vni = 7, local = "198.51.100.1" }},
                {{ name = "vm1", bridge = "br0", queues = {queues} }},
            ]"#
        ))
    };
    assert_eq!(
        words(&plan(&text("mtu = 9000", 1), &text("", 1), true, WORKERS)),
        [
            "- port t local: device d -> device d, made again",
            "- device d mtu: 9000 -> unset",
            "+ device d",
            "+ port t"
        ]
    );
    assert_eq!(
        words(&plan(&text("", 1), &text("", 2), true, WORKERS)),
        [
            "- device x parent: port vm1 -> port vm1, made again",
            "- port vm1 queues: 1 -> 2",
            "+ port vm1",
            "+ device x"
        ]
    );
}

/// What runs, which refuses what a switch refuses.
#[derive(Clone, Debug)]
struct Model(Topology);

impl Model {
    fn apply(&mut self, change: &Change) {
        let node = match change {
            Change::AddDevice(d) => Some(Node::Device(d.name.clone())),
            Change::DelDevice { device, .. } => Some(Node::Device(device.name.clone())),
            Change::AddPort(p) => Some(Node::Port(p.name.clone())),
            Change::DelPort { port, .. } => Some(Node::Port(port.name.clone())),
            _ => None,
        };
        let is_needed = |all: &Topology| {
            let graph = Graph::of(all.device.iter(), all.uplink.iter(), all.port.iter());
            let nodes = all.device.iter().map(|d| Node::Device(d.name.clone()));
            let mut needs = nodes.flat_map(|n| graph.needs(&n).to_vec());
            node.as_ref().is_some_and(|node| needs.any(|(of, _)| of == *node))
        };
        assert!(!is_needed(&self.0), "{change:?}: a device is on it");
        let Topology { device, bridge, uplink, port, fdb, neigh } = &mut self.0;
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
                assert!(port.iter().all(|x| x.name == new.name || new.clash(x).is_none()), "network in use");
                *port.iter_mut().find(|x| **x == **old).expect("the port as described") = (**new).clone();
            }
            Change::AddFdb(f) => {
                assert!(fdb.iter().all(|x| x.key() != f.key()), "entry exists");
                assert!(port.iter().any(|p| p.name == f.port && p.bridge == f.bridge), "no such port there");
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
            Change::AddDevice(d) => {
                assert!(device.iter().all(|x| x.name != d.name), "device exists");
                device.push((**d).clone());
            }
            Change::DelDevice { device: d, .. } => {
                device.remove(device.iter().position(|x| *x == **d).expect("the device as described"));
            }
            Change::SetDevice { old, new, differences } => {
                assert!(!differences.is_empty());
                // On the way back the kernel gets again what it had chosen.
                assert!(
                    old.immutable_differences(new).is_empty() || new.immutable_differences(old).is_empty()
                );
                *device.iter_mut().find(|x| **x == **old).expect("the device as described") = (**new).clone();
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
        assert!(!is_needed(&self.0), "{change:?}: a device was there before what it is on");
    }
}

proptest! {
    #[test]
    fn a_plan_leads_to_what_is_wanted_and_undoing_it_leads_back(
        running in arbitrary::topology(), desired in arbitrary::topology(), prune in any::<bool>()
    ) {
        // A port that stays and one that comes cannot have one network: the switch refuses that, and undoes what it has done.
        let stays = |p: &&PortSpec| !prune && desired.port.iter().all(|d| d.name != p.name);
        let to_be: Vec<_> = running.port.iter().filter(stays).chain(&desired.port).collect();
        prop_assume!(to_be.iter().all(|a| to_be.iter().all(|b| a.name == b.name || a.clash(b).is_none())));
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
        let back = |step: &Change| matches!(step, Change::DelPort { .. } | Change::DelUplink { .. } | Change::DelDevice { .. }) || step.undo().undo() == *step;
        prop_assert!(steps.iter().all(back));
    }
}
