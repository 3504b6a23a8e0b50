//! Many changes: nothing is left behind by any of them.

use std::fs;

use serde_json::{Value, json};

use super::{
    switch::{Daemon, Place},
    topo::Net,
};

/// Descriptors, threads, and resident memory in KiB.
fn holds(daemon: &Daemon) -> (usize, usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    (count("fd"), count("task"), line.trim().trim_end_matches(" kB").parse().unwrap())
}

#[test]
fn a_thousand_changes_leave_no_descriptor_no_thread_and_no_memory_behind() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    let daemon = place.start(&net, &[]);
    daemon.bridge();
    daemon.plug("a", &a, "198.51.100.1/24");
    daemon.plug("b", &b, "198.51.100.2/24");
    let mut client = daemon.client();
    let generation = |status: Value| status["generation"].as_u64().unwrap();
    let mut commands = 0;
    let mut round = |n: usize| {
        let mut ask = |method: &str, parameters: Value| {
            client.ok(method, parameters);
            commands += 1;
        };
        let vlan = n % 4094 + 1;
        ask("BridgeAdd", json!({ "name": "br1" }));
        ask(
            "PortAdd",
            json!({ "name": "c", "bridge": "br1", "access": vlan, "netns": a.path(), "persist": n.is_multiple_of(2) }),
        );
        ask("FdbAdd", json!({ "mac": "02:00:00:00:00:07", "bridge": "br1", "vlan": vlan, "port": "c" }));
        ask("PortSet", json!({ "name": "c", "trunk": "10,20-29", "native": vlan, "storm_limit": 1000 }));
        ask(
            "PortSet",
            json!({ "name": "c", "mtu": 1280 + n % 200, "address": ["203.0.113.1/24"], "unset": ["storm_limit"] }),
        );
        ask(
            "PortSet",
            json!({ "name": "c", "admin": "down", "secure": "mac=02:00:00:00:00:01,ip=203.0.113.1" }),
        );
        ask("BridgeSet", json!({ "name": "br1", "fdb_limit": 100 + n }));
        ask("FdbDel", json!({ "mac": "02:00:00:00:00:07", "bridge": "br1", "vlan": vlan }));
        ask("PortDel", json!({ "name": "c" }));
        ask("BridgeDel", json!({ "name": "br1" }));
    };
    // The allocator has what it needs after some.
    (0..50).for_each(&mut round);
    let before = (holds(&daemon), daemon.export(), generation(daemon.ok("Status", json!({}))));
    (50..150).for_each(&mut round);
    let after = (holds(&daemon), daemon.export(), generation(daemon.ok("Status", json!({}))));
    assert_eq!(commands, 1500);
    assert_eq!(((after.0).0, (after.0).1), ((before.0).0, (before.0).1), "descriptors and threads");
    let grown = (after.0).2.saturating_sub((before.0).2);
    assert!(grown < 2048, "{grown} KiB more");
    assert_eq!(after.1, before.1);
    assert!(after.2 >= before.2 + 700, "every change is a new generation: {} after {}", after.2, before.2);
    assert!(a.ping([198, 51, 100, 2]));
    assert!(!place.log().contains(" WARN ") && !place.log().contains("ERROR"), "{}", place.log());
}
