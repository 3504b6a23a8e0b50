//! Kernel devices and the life of the daemon: they outlive it, and one that is killed half way is nobody's obstacle.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    switch::{Daemon, Place},
    topo::{Host, Net},
};

/// Points of an apply at which it is killed.
const POINTS: u32 = 20;

fn apply(daemon: &Daemon, topology: &str) -> Value {
    daemon.ok("Apply", json!({ "topology": topology, "prune": true }))
}

/// A bridge of the kernel with containers, devices on each other, and ports of the switch beside them.
fn topology(hosts: &[Host]) -> String {
    let mut text = "[[bridge]]\nname = \"br0\"\n[[device]]\nname = \"kbr\"\ntype = \"bridge\"\naddress = \"198.51.100.254/24\"\n".to_owned();
    for (n, host) in hosts.iter().enumerate() {
        let netns = host.path();
        let netns = netns.display();
        text += &format!(
            "[[device]]\nname = \"v{n}\"\ntype = \"veth\"\nmtu = 1400\nmaster = \"kbr\"\n\
             peer = {{ name = \"eth0\", netns = \"{netns}\", address = [\"198.51.100.{a}/24\"] }}\n\
             [[device]]\nname = \"tap{n}\"\ntype = \"tap\"\nowner = 1000\nmaster = \"kbr\"\n\
             [[device]]\nname = \"vx{n}\"\ntype = \"vxlan\"\nid = {n}\nlocal = \"198.51.100.254\"\nremote = \"203.0.113.1\"\n\
             [[port]]\nname = \"p{n}\"\nbridge = \"br0\"\nnetns = \"{netns}\"\nifname = \"eth1\"\n",
            a = n + 1,
        );
    }
    text
}

/// The devices of a namespace by name, without the loopback interface.
fn names(host: &Host) -> Vec<String> {
    let all = host.ip("-o -br link");
    let mut names: Vec<String> = all
        .lines()
        .filter_map(|l| l.split(['@', ' ']).next())
        .filter(|n| *n != "lo")
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

fn assert_all_ok(daemon: &Daemon, count: usize) {
    let devices = daemon.ok("DeviceList", json!({}));
    let devices = devices["devices"].as_array().unwrap();
    assert_eq!(devices.len(), count);
    for device in devices {
        assert_eq!(device["state"], "ok", "{device}");
    }
}

#[test]
fn devices_outlive_the_daemon_and_the_next_one_takes_them_over_from_its_state_directory() {
    let Some(net) = Net::new() else { return };
    let (place, host, state) = (Place::new(), net.host("a"), tempfile::tempdir().unwrap());
    let args = ["--state-dir", state.path().to_str().unwrap()];
    let text = topology(std::slice::from_ref(&host));
    let daemon = place.start(&net, &args);
    apply(&daemon, &text);
    assert!(daemon.end(Signal::TERM).success());
    assert!(net.home().has_interface("kbr") && host.has_interface("eth0") && !host.has_interface("eth1"));
    let index = net.home().ip("-o link show dev kbr");
    let daemon = place.start(&net, &args);
    assert_all_ok(&daemon, 4);
    assert_eq!(apply(&daemon, &text)["steps"], json!([]));
    assert_eq!(
        net.home().ip("-o link show dev kbr").split(':').next(),
        index.split(':').next(),
        "it is the same device"
    );
    apply(&daemon, "");
    assert_eq!((names(net.home()), names(&host)), (vec![], vec![]));
}

#[test]
fn after_a_kill_at_any_point_of_an_apply_the_next_apply_reaches_what_is_desired() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let hosts = ["a", "b", "c", "d"].map(|name| net.host(name));
    net.home().ip("link add foreign type veth peer name other");
    let (before, text) = (names(net.home()), topology(&hosts));
    let daemon = place.start(&net, &[]);
    let at = Instant::now();
    apply(&daemon, &text);
    let (took, whole) = (at.elapsed(), names(net.home()));
    assert_eq!(whole.len(), before.len() + 1 + 3 * hosts.len());
    apply(&daemon, "");
    assert_eq!(names(net.home()), before);
    drop(daemon);

    let mut interrupted = 0;
    for point in 0..POINTS {
        let daemon = place.start(&net, &[]);
        let mut client = daemon.client();
        let sent = text.clone();
        let asking = thread::spawn(move || {
            // The daemon ends before it answers, or not.
            let ask = std::panic::AssertUnwindSafe(|| {
                client.call("Apply", json!({ "topology": sent, "prune": true })).is_ok()
            });
            std::panic::catch_unwind(ask).unwrap_or(false)
        });
        thread::sleep(took * (2 * point + 1) / (2 * POINTS) + Duration::from_millis(1));
        daemon.end(Signal::KILL);
        let answered = asking.join().unwrap();
        interrupted += u32::from(!answered);
        let daemon = place.start(&net, &[]);
        apply(&daemon, &text);
        assert_all_ok(&daemon, 1 + 3 * hosts.len());
        assert_eq!(names(net.home()), whole, "point {point}, answered: {answered}");
        assert!(hosts[0].ping([198, 51, 100, 2]), "point {point}");
        apply(&daemon, "");
        assert_eq!(names(net.home()), before, "point {point}");
        assert!(hosts.iter().all(|host| names(host).is_empty()), "point {point}");
    }
    assert!(interrupted > 0, "every apply was over before its daemon was killed");
}

#[test]
fn with_enforce_the_daemon_puts_a_deleted_device_back_and_says_so_once() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = place.start(&net, &["--enforce"]);
    daemon.ok("DeviceAdd", json!({ "name": "kbr", "type": "bridge", "mtu": 1400 }));
    net.home().ip("link del kbr");
    super::topo::wait_until("the bridge is there again", Duration::from_secs(5), || {
        net.home().has_interface("kbr")
    });
    super::topo::wait_until("the log says so", Duration::from_secs(5), || {
        place.log().contains("the device is repaired")
    });
    let log = place.log();
    assert_eq!(log.matches("the device is not as desired: somebody has deleted it").count(), 1, "{log}");
    assert_all_ok(&daemon, 1);
}

#[test]
fn what_the_kernel_refuses_is_told_in_its_words_and_a_foreign_device_is_left_alone() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = place.start(&net, &[]);
    net.home().ip("link add foreign type veth peer name other");
    for (spec, why) in [
        (json!({ "name": "foreign", "type": "bridge" }), "taken by a veth that tapway did not make"),
        (json!({ "name": "m", "type": "macvlan", "parent": "nobody" }), "its parent nobody is not there"),
        (json!({ "name": "d", "type": "bridge", "master": "nobody" }), "master nobody is not there"),
        (json!({ "name": "d", "type": "bridge", "netns": "tapway-no-such" }), "tapway-no-such"),
        (json!({ "name": "other", "type": "tap" }), "did not make"),
    ] {
        let (error, sentence) = daemon.refused("DeviceAdd", spec.clone());
        assert_eq!(error, "io.tapway.Kernel", "{spec}: {sentence}");
        assert!(sentence.contains(why), "{spec}: {sentence}");
    }
    let (error, _) = daemon.refused("DeviceAdd", json!({ "name": "v", "type": "veth" }));
    assert_eq!(error, "io.tapway.Invalid");
    assert_eq!(names(net.home()), ["foreign", "other"]);
    assert_eq!(daemon.export(), "");
}
