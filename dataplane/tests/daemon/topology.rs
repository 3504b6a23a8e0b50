//! Topology files through the socket: all of it, or nothing.

use serde_json::{Value, json};

use super::{
    life::FIVE_MISTAKES,
    switch::{Daemon, Place},
    topo::{Host, Net},
};

fn apply(daemon: &Daemon, topology: &str, prune: bool) -> Vec<String> {
    let plan = daemon.ok("Apply", json!({ "topology": topology, "prune": prune }));
    assert_eq!(plan["applied"], true);
    steps(&plan)
}

fn steps(plan: &Value) -> Vec<String> {
    let word = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
    let line = |step: &Value| format!("{} {} {}", word(step, "op"), word(step, "kind"), word(step, "name"));
    plan["steps"].as_array().unwrap().iter().map(line).collect()
}

fn port(name: &str, host: &Host, more: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"{}\"\n{more}\n", host.path().display())
}

const BR0: &str = "[[bridge]]\nname = \"br0\"\n";

#[test]
fn what_runs_can_be_exported_emptied_and_applied_again() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    let daemon = place.start(&net, &[]);
    let topology = [
        BR0,
        &port("a", &a, "ifname = \"eth0\"\naccess = 10\naddress = [\"198.51.100.1/24\"]"),
        &port("b", &b, "ifname = \"eth0\"\naccess = 10\naddress = [\"198.51.100.2/24\"]"),
        "[[fdb]]\nmac = \"02:00:00:00:00:07\"\nbridge = \"br0\"\nvlan = 10\nport = \"b\"\n",
    ]
    .concat();
    let up = ["+ bridge br0", "+ port a", "+ port b", "+ fdb br0 vlan 10 02:00:00:00:00:07"];
    let dry = daemon.ok("Apply", json!({ "topology": topology, "dry_run": true }));
    assert_eq!((steps(&dry), &dry["applied"]), (up.map(str::to_owned).to_vec(), &json!(false)));
    assert_eq!(daemon.export(), "");
    assert_eq!(apply(&daemon, &topology, false), up);
    assert!(a.ping([198, 51, 100, 2]));

    let exported = daemon.export();
    assert_eq!(apply(&daemon, &exported, true), [""; 0]);
    assert_eq!(apply(&daemon, "", false), [""; 0], "without prune what is not named stays");
    let plan = daemon.ok("Diff", json!({ "topology": "" }));
    assert_eq!(steps(&plan).len(), 4);
    assert_eq!(daemon.export(), exported, "a diff changes nothing");
    let down = ["- fdb br0 vlan 10 02:00:00:00:00:07", "- port a", "- port b", "- bridge br0"];
    assert_eq!(apply(&daemon, "", true), down);
    assert!(!a.has_interface("eth0"));
    assert_eq!(apply(&daemon, &exported, false).len(), 4);
    assert_eq!(daemon.export(), exported);
    assert!(a.ping([198, 51, 100, 2]));
}

#[test]
fn a_port_that_is_replaced_keeps_its_static_entries() {
    let Some(net) = Net::new() else { return };
    let (place, a) = (Place::new(), net.host("a"));
    let daemon = place.start(&net, &[]);
    apply(&daemon, &[BR0, &port("a", &a, "queues = 1")].concat(), false);
    daemon.ok("FdbAdd", json!({ "mac": "02:00:00:00:00:07", "bridge": "br0", "port": "a", "sticky": true }));
    apply(&daemon, &[BR0, &port("a", &a, "queues = 2")].concat(), false);
    assert_eq!(daemon.port("a")["queues"], 2);
    let entries = daemon.ok("FdbList", json!({ "port": "a" }));
    let sticky = entries["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "sticky");
    assert!(sticky.map(|entry| &entry["mac"]).eq([&json!("02:00:00:00:00:07")]), "{entries}");
}

#[test]
fn a_topology_of_five_mistakes_reports_five_and_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = place.start(&net, &[]);
    daemon.bridge();
    let before = (daemon.export(), daemon.ok("Status", json!({}))["generation"].clone());
    for method in ["Apply", "Diff"] {
        let (error, sentence) = daemon.refused(method, json!({ "topology": FIVE_MISTAKES }));
        assert_eq!(error, "io.tapway.Topology");
        assert!(sentence.starts_with("the topology has 5 mistakes; nothing was changed"), "{sentence}");
        assert_eq!(sentence.lines().filter(|l| l.starts_with("  line ")).count(), 5, "{sentence}");
    }
    assert_eq!((daemon.export(), daemon.ok("Status", json!({}))["generation"].clone()), before);
}

#[test]
fn the_mistakes_of_tunnels_and_uplinks_are_told_with_their_lines() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = place.start(&net, &[]);
    let topology = r#"[[bridge]]
name = "br0"
[[port]]
name = "a"
bridge = "br0"
type = "vxlan"
vlan_vni = { 4095 = 7 }
remote = "2001:db8::2"
ifname = "eth0"
[[port]]
name = "b"
bridge = "br0"
type = "geneve"
local = "198.51.100.1"
[[uplink]]
name = "b"
address = "198.51.100.1/30"
gateway = "198.51.100.1"
"#;
    let (error, sentence) = daemon.refused("Apply", json!({ "topology": topology }));
    assert_eq!(error, "io.tapway.Topology");
    let line = |line: &str| line.strip_prefix("  line ")?.split(':').next()?.parse::<u32>().ok();
    let lines: Vec<_> = sentence.lines().filter_map(line).collect();
    assert_eq!(lines, [3, 7, 9, 10, 11, 18], "{sentence}");
    assert_eq!(daemon.export(), "");
}

#[test]
fn where_the_kernel_refuses_the_last_port_everything_before_it_is_undone() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    let daemon = place.start(&net, &[]);
    let running = [
        BR0,
        "[[bridge]]\nname = \"old\"\nageing = \"60s\"\n",
        &port("changed", &a, "ifname = \"eth0\"\naddress = [\"198.51.100.1/24\"]\nmtu = 1400\naccess = 10"),
        &port("replaced", &a, "ifname = \"eth1\"\nqueues = 1"),
        &port("unwanted", &a, "ifname = \"eth2\""),
        &port("peer", &b, "ifname = \"eth0\"\naddress = [\"198.51.100.2/24\"]\nmtu = 1400\naccess = 10"),
        "[[fdb]]\nmac = \"02:00:00:00:00:07\"\nbridge = \"br0\"\nport = \"replaced\"\nsticky = true\n",
        "[[fdb]]\nmac = \"02:00:00:00:00:08\"\nbridge = \"br0\"\nport = \"peer\"\n",
    ]
    .concat();
    apply(&daemon, &running, false);
    assert!(a.ping([198, 51, 100, 2]));
    // Interfaces as an operator knows them: index and MAC address of a replaced one are new.
    let seen = |host: &Host| {
        let mut lines: Vec<String> = host
            .ip("-br address show up")
            .lines()
            .map(|l| l.split_whitespace().filter(|w| !w.starts_with("fe80")).collect::<Vec<_>>().join(" "))
            .collect();
        lines.sort();
        lines
    };
    let before = (daemon.export(), seen(&a), seen(&b), net.home().ip("-br link"));

    let wanted = [
        "[[bridge]]\nname = \"br0\"\nageing = \"30s\"\n",
        "[[bridge]]\nname = \"new\"\n",
        &port("changed", &a, "ifname = \"eth0\"\naddress = [\"198.51.100.9/24\"]\naccess = 20"),
        &port("replaced", &a, "ifname = \"eth1\"\nqueues = 2\npersist = true"),
        &port("peer", &b, "ifname = \"eth0\"\naddress = [\"198.51.100.2/24\"]"),
        &port("fresh", &b, "ifname = \"eth3\"\npersist = true"),
        "[[port]]\nname = \"last\"\nbridge = \"new\"\nnetns = \"tapway-no-such\"\n",
        "[[fdb]]\nmac = \"02:00:00:00:00:08\"\nbridge = \"br0\"\nport = \"fresh\"\n",
    ]
    .concat();
    let line = 1 + wanted.lines().take_while(|l| !l.contains("last")).count();
    let (error, sentence) = daemon.refused("Apply", json!({ "topology": wanted, "prune": true }));
    assert_eq!(error, "io.tapway.Topology");
    assert!(sentence.contains("port \"last\"") && sentence.contains("tapway-no-such"), "{sentence}");
    let (at, _) = sentence.split_once("  line ").and_then(|(_, rest)| rest.split_once(':')).unwrap();
    let at: usize = at.parse().unwrap();
    assert!(at == line || at + 1 == line, "line {at}, not {line}: {sentence}");
    assert_eq!((daemon.export(), seen(&a), seen(&b), net.home().ip("-br link")), before);
    assert!(a.ping([198, 51, 100, 2]));
    assert!(!place.log().contains("could not be undone"), "{}", place.log());
}
