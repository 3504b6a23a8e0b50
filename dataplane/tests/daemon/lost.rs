//! Interfaces that change behind the daemon's back: the port says so, the daemon and the other ports go on.

use serde_json::json;

use super::{
    switch::{Daemon, PATIENCE, Place},
    topo::{Host, Net, wait_until},
};

/// Waits until a port is down; the reason.
fn down(daemon: &Daemon, port: &str) -> String {
    wait_until("the port is down", PATIENCE, || daemon.port(port)["oper"] == "down");
    daemon.port(port)["reason"].as_str().expect("a reason").to_owned()
}

fn three_ports(net: &Net, place: &Place) -> (Daemon, [Host; 3]) {
    let hosts = ["a", "b", "c"].map(|name| net.host(name));
    let daemon = place.start(net, &[]);
    daemon.bridge();
    for (n, host) in (1..).zip(&hosts) {
        daemon.plug(host.name(), host, &format!("198.51.100.{n}/24"));
    }
    assert!(hosts[0].ping([198, 51, 100, 3]) && hosts[0].ping([198, 51, 100, 2]));
    (daemon, hosts)
}

#[test]
fn an_interface_that_is_deleted_takes_its_port_down_and_the_port_can_be_made_again() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let (daemon, [a, b, c]) = three_ports(&net, &place);
    c.ip("link delete dev eth0");
    let reason = down(&daemon, "c");
    assert!(reason.contains("eth0") || reason.contains("delete"), "{reason}");
    let status = daemon.ok("Status", json!({}));
    assert!(status["notices"].to_string().contains("port c is down"), "{status}");
    assert!(a.ping([198, 51, 100, 2]));
    let entries = daemon.ok("FdbList", json!({ "port": "c" }));
    assert_eq!(entries["entries"], json!([]), "what was learned there is forgotten");
    daemon.ok("PortDel", json!({ "name": "c" }));
    daemon.plug("c", &c, "198.51.100.3/24");
    assert!(b.ping([198, 51, 100, 3]));
    assert_eq!(daemon.port("c")["oper"], "up");
}

#[test]
fn an_interface_that_is_renamed_takes_its_port_down_until_it_has_its_name_again() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let (daemon, [a, _, c]) = three_ports(&net, &place);
    c.ip("link set dev eth0 down");
    c.ip("link set dev eth0 name other up");
    let reason = down(&daemon, "c");
    assert!(reason.contains("renamed to other"), "{reason}");
    c.ip("link set dev other down");
    c.ip("link set dev other name eth0 up");
    wait_until("the port is up", PATIENCE, || daemon.port("c")["oper"] == "up");
    assert!(a.ping([198, 51, 100, 3]));
    assert!(daemon.port("c").get("reason").is_none());
}

#[test]
fn a_namespace_that_ends_takes_its_port_down_and_the_daemon_lives() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let (daemon, [a, b, c]) = three_ports(&net, &place);
    drop(c);
    let reason = down(&daemon, "c");
    assert!(reason.contains("namespace"), "{reason}");
    assert!(a.ping([198, 51, 100, 2]));
    let plan = daemon.ok("Diff", json!({ "topology": daemon.export() }));
    assert_eq!(plan["steps"], json!([]));
    daemon.ok("PortDel", json!({ "name": "c" }));
    let c = net.host("c");
    daemon.plug("c", &c, "198.51.100.3/24");
    assert!(b.ping([198, 51, 100, 3]));
}
