//! Kernel devices and the life of the daemon: they outlive it, and one that is killed half way is nobody's obstacle.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    switch::{Daemon, Place},
    topo::{Host, Net, random::Random},
};

/// Points of an apply at which it is killed: one at random in each of so many parts of it.
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

    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let (mut random, mut interrupted) = (Random(seed), 0);
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
        thread::sleep(took * (100 * point + random.below(100) as u32) / (100 * POINTS));
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
    assert!(
        interrupted >= POINTS / 4,
        "only {interrupted} applies were not over before the daemon was killed"
    );
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
    let events = daemon.ok("Monitor", json!({ "after": 0 }));
    let told: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(told, ["it is not as desired: somebody has deleted it", "it is repaired"]);
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
    net.home().ip("address add 203.0.113.9/24 dev foreign");
    for (spec, why) in [
        (json!({ "name": "foreign", "type": "bridge" }), "taken by a veth that tapway did not make"),
        (json!({ "name": "m", "type": "macvlan", "parent": "nobody" }), "its parent nobody is not there"),
        (json!({ "name": "d", "type": "bridge", "master": "nobody" }), "master nobody is not there"),
        (json!({ "name": "d", "type": "bridge", "netns": "tapway-no-such" }), "tapway-no-such"),
        (json!({ "name": "other", "type": "tap" }), "did not make"),
        (
            json!({ "name": "d", "type": "bridge", "address": ["203.0.113.9/24"] }),
            "203.0.113.9 is already on foreign",
        ),
        (
            json!({ "name": "v", "type": "veth", "peer": { "name": "w", "address": ["203.0.113.9/32"] } }),
            "203.0.113.9 is already on foreign",
        ),
        (
            json!({ "name": "m", "type": "macvlan", "parent": "foreign", "mtu": 9000 }),
            "MTU 9000 is out of range: this device takes 68 to 1500",
        ),
        (
            json!({ "name": "m", "type": "macvlan", "parent": "foreign", "link_netns": "tapway-no-such" }),
            "tapway-no-such",
        ),
    ] {
        let (error, sentence) = daemon.refused("DeviceAdd", spec.clone());
        assert_eq!(error, "io.tapway.Kernel", "{spec}: {sentence}");
        assert!(sentence.contains(why), "{spec}: {sentence}");
    }
    for spec in [
        json!({ "name": "v", "type": "veth" }),
        json!({ "name": "d", "type": "bridge", "mtu": 65536 }),
        json!({ "name": "d", "type": "bridge", "mtu": 67 }),
    ] {
        assert_eq!(daemon.refused("DeviceAdd", spec).0, "io.tapway.Invalid");
    }
    // Which kinds a kernel has is not ours to say: one that it lacks is named with the option that would bring it.
    for (kind, config, more) in [
        ("dummy", "CONFIG_DUMMY", json!({})),
        ("ipvlan", "CONFIG_IPVLAN", json!({ "parent": "foreign" })),
        ("geneve", "CONFIG_GENEVE", json!({ "id": 7, "remote": "203.0.113.1" })),
    ] {
        let mut spec = json!({ "name": "d", "type": kind });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        match daemon.client().call("DeviceAdd", spec) {
            Ok(_) => drop(daemon.ok("DeviceDel", json!({ "name": "d" }))),
            Err(error) => {
                let text = format!("{error:?}");
                assert!(text.contains(&format!("this kernel has no {kind} ({config})")), "{text}");
            }
        }
    }
    assert_eq!(names(net.home()), ["foreign", "other"]);
    assert_eq!(daemon.export(), "");
}

#[test]
fn a_daemon_that_may_not_change_the_network_says_so_and_makes_nothing() {
    let Some(net) = Net::new() else { return };
    let place = Place::new();
    let daemon = place.start_without_privilege(&net);
    for (spec, what) in [
        (json!({ "name": "d", "type": "bridge" }), "cannot make interface d: permission denied"),
        (json!({ "name": "d", "type": "tap" }), "permission denied"),
        (json!({ "name": "d", "type": "veth", "peer": { "name": "w" } }), "permission denied"),
    ] {
        let (error, sentence) = daemon.refused("DeviceAdd", spec.clone());
        assert_eq!(error, "io.tapway.Kernel", "{spec}: {sentence}");
        assert!(sentence.contains(what) && sentence.contains("it takes CAP_NET_ADMIN"), "{spec}: {sentence}");
    }
    let topology = "[[bridge]]\nname = \"br0\"\n[[device]]\nname = \"d\"\ntype = \"bridge\"\n";
    let (_, sentence) = daemon.refused("Apply", json!({ "topology": topology }));
    assert!(sentence.contains("it takes CAP_NET_ADMIN"), "{sentence}");
    assert_eq!((names(net.home()), daemon.export()), (vec![], String::new()));
}
