//! How the daemon begins and ends.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{
    switch::{PATIENCE, Place},
    topo::{Host, Net, wait_until},
};

/// A topology of two hosts on `br0`; the flags go to both ports.
fn two_ports(a: &Host, b: &Host, flags: &str) -> String {
    let port = |name: &str, host: &Host, n: u8| {
        format!(
            "[[port]]\nname = \"{name}\"\nbridge = \"br0\"\nnetns = \"{}\"\nifname = \"eth0\"\n\
             address = [\"198.51.100.{n}/24\"]\n{flags}\n",
            host.path().display()
        )
    };
    format!("[[bridge]]\nname = \"br0\"\n\n{}\n{}", port("a", a, 1), port("b", b, 2))
}

fn ifindex(host: &Host, ifname: &str) -> String {
    host.ip(&format!("-o link show dev {ifname}")).split(':').next().unwrap().to_owned()
}

#[test]
fn it_ends_at_sigterm_and_takes_its_interfaces_and_its_socket_away() {
    let Some(net) = Net::new() else { return };
    let (place, a) = (Place::new(), net.host("a"));
    let daemon = place.start(&net, &[]);
    daemon.bridge();
    daemon.plug("a", &a, "198.51.100.1/24");
    daemon.ok("PortAdd", json!({ "name": "here", "bridge": "br0" }));
    assert!(a.has_interface("eth0") && net.home().has_interface("here"));
    let status = daemon.end(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{}", place.log());
    assert!(!a.has_interface("eth0") && !net.home().has_interface("here"));
    assert!(!place.socket().exists());
}

#[test]
fn its_log_says_ready_once_and_has_no_colours_where_nobody_sees_them() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    let daemon = place.start(&net, &[]);
    daemon.bridge();
    daemon.plug("a", &a, "198.51.100.1/24");
    daemon.plug("b", &b, "198.51.100.2/24");
    let here = json!({ "name": "here", "bridge": "br0", "address": ["203.0.113.1/24"] });
    daemon.ok("PortAdd", here);
    let tunnel = json!({ "name": "vx", "bridge": "br0", "type": "vxlan", "vni": 7, "local": "203.0.113.1" });
    daemon.ok("PortAdd", tunnel);
    for _ in 0..20 {
        assert!(a.ping([198, 51, 100, 2]));
    }
    let before = place.log().lines().count();
    assert!(a.ping([198, 51, 100, 2]));
    assert_eq!(place.log().lines().count(), before, "no line for a frame");
    assert!(daemon.end(Signal::INT).success());
    let log = place.log();
    assert!(!log.contains('\x1b'), "{log}");
    assert_eq!(log.lines().filter(|line| line.contains(" ready ")).count(), 1, "{log}");
    assert!(log.contains("port added port=a bridge=br0 ifname=eth0 queues=2"), "{log}");
    assert!(log.contains("port added port=vx bridge=br0 path=sockets\n"), "a tunnel has no interface: {log}");
    assert!(log.lines().all(|line| line.contains(" INFO ")), "{log}");
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_the_first_goes_on() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = place.start(&net, &[]);
    let (code, said) = place.run(&net, &[]);
    assert_eq!(code, 1);
    assert!(said.contains("another daemon answers on") && said.contains("--socket"), "{said}");
    daemon.bridge();
    assert!(place.socket().exists());
}

#[test]
fn what_it_is_not_told_rightly_is_a_usage_error() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    for (args, why) in [
        (["--workers", "0"].as_slice(), "0 is not in 1..=64"),
        (&["--workers", "65"], "65 is not in 1..=64"),
        (&["--workers", "many"], "invalid digit"),
        (&["--log", "tapway=loud"], "level"),
        (&["--frobnicate"], "unexpected argument '--frobnicate'"),
        (&["br0"], "unexpected argument 'br0'"),
    ] {
        let (code, said) = place.run(&net, args);
        assert_eq!(code, 2, "{args:?}: {said}");
        assert!(said.contains(why) && said.contains("--help"), "{args:?}: {said}");
        assert!(!place.socket().exists());
    }
}

#[test]
fn killed_it_leaves_no_interface_and_the_next_start_works() {
    let Some(net) = Net::new() else { return };
    let (place, a) = (Place::new(), net.host("a"));
    let daemon = place.start(&net, &[]);
    daemon.bridge();
    daemon.plug("a", &a, "198.51.100.1/24");
    daemon.end(Signal::KILL);
    wait_until("the interface is gone", PATIENCE, || !a.has_interface("eth0"));
    assert!(place.socket().exists(), "nobody could remove it");
    let daemon = place.start(&net, &[]);
    daemon.bridge();
    daemon.plug("a", &a, "198.51.100.1/24");
    assert_eq!(daemon.port("a")["oper"], "up");
}

#[test]
fn a_persistent_interface_outlives_the_daemon_and_is_adopted_by_the_next() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    let config = place.file("topology.toml", &two_ports(&a, &b, "persist = true"));
    let mut indices = Vec::new();
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
        let daemon = place.start(&net, &["--config", &config]);
        assert!(a.ping([198, 51, 100, 2]));
        assert_eq!(daemon.port("a")["persist"], true);
        indices.push(ifindex(&a, "eth0"));
        daemon.end(signal);
        assert!(a.has_interface("eth0") && b.has_interface("eth0"), "after {signal:?}");
    }
    assert!(indices.windows(2).all(|pair| pair[0] == pair[1]), "{indices:?}");
    // It was there before this daemon, and may be somebody else's: it stays when the port is deleted.
    let daemon = place.start(&net, &["--config", &config]);
    daemon.ok("PortDel", json!({ "name": "a" }));
    assert!(a.has_interface("eth0"));
    // What a daemon has made itself goes with its port, persistent or not.
    daemon.ok("PortAdd", json!({ "name": "c", "bridge": "br0", "persist": true, "netns": a.path() }));
    assert!(a.has_interface("c"));
    daemon.ok("PortDel", json!({ "name": "c" }));
    assert!(!a.has_interface("c"));
}

#[test]
fn the_topology_it_begins_with_runs_when_it_is_ready() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    let config = place.file("topology.toml", &two_ports(&a, &b, "access = 10"));
    let daemon = place.start(&net, &["--config", &config]);
    assert!(a.ping([198, 51, 100, 2]));
    let plan = daemon.ok("Diff", json!({ "topology": std::fs::read_to_string(&config).unwrap() }));
    assert_eq!(plan["steps"], json!([]));
}

#[test]
fn a_topology_with_five_mistakes_ends_it_with_five_lines_and_nothing_left() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let config = place.file("topology.toml", FIVE_MISTAKES);
    let (code, said) = place.run(&net, &["--config", &config]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&config) && said.contains("5 mistakes"), "{said}");
    let lines: Vec<&str> = said.lines().filter(|l| l.starts_with("  line ")).collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(!place.socket().exists() && !said.contains(" ready "), "{said}");
}

/// One on each of the lines 2, 7, 8, 13 and 17.
pub(crate) const FIVE_MISTAKES: &str = "[[bridge]]
name = \"a-name-of-16-byt\"

[[port]]
name = \"vm1\"
bridge = \"br0\"
access = 4095
queues = 0

[[port]]
name = \"vm2\"
bridge = \"br1\"
colour = \"green\"

[[bridge]]
name = \"br1\"
ageing = \"soon\"
";

#[test]
fn a_topology_that_cannot_be_read_or_done_ends_it_with_the_reason_and_nothing_left() {
    let Some(net) = Net::new() else { return };
    let (place, a) = (Place::new(), net.host("a"));
    let (code, said) = place.run(&net, &["--config", "/nonexistent/topology.toml"]);
    assert_eq!(code, 1);
    assert!(said.contains("cannot read /nonexistent/topology.toml: No such file"), "{said}");
    let topology = two_ports(&a, &a, "persist = true");
    let config =
        place.file("topology.toml", &topology.replacen("br0\"\nnetns", "br0\"\nqueues = 1\nnetns", 1));
    let (code, said) = place.run(&net, &["--config", &config]);
    assert_eq!(code, 1, "both are eth0: {said}");
    assert!(said.contains("port \"b\"") && said.contains("eth0"), "{said}");
    assert!(!a.has_interface("eth0"), "persistent or not");
    assert!(!place.socket().exists());
}

#[test]
fn an_interface_that_it_had_taken_over_is_the_hosts_again_however_it_ends() {
    let Some(net) = Net::new() else { return };
    let (place, a) = (Place::new(), net.host("a"));
    net.veth("a", &a, "eth0");
    a.address("eth0", "198.51.100.1/24");
    net.home().address("a", "198.51.100.9/24");
    let heard = |timeout| a.ping_with([198, 51, 100, 9], 56, timeout).is_some();
    assert!(heard(PATIENCE));
    for signal in [Signal::KILL, Signal::TERM] {
        let daemon = place.start(&net, &[]);
        daemon.bridge();
        daemon.ok("PortAdd", json!({ "name": "a", "bridge": "br0", "type": "netdev" }));
        assert_eq!(daemon.port("a")["oper"], "up");
        assert!(!heard(Duration::from_millis(300)), "the switch has it");
        daemon.end(signal);
        assert!(heard(PATIENCE), "after {signal:?}");
    }
}
