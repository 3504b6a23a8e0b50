//! Every request, and what is said where it makes no sense.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{
    switch::{PATIENCE, Place},
    topo::{Net, wait_until},
};

#[test]
fn every_request_is_answered_as_the_contract_says() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    for host in [&a, &b] {
        host.no_ipv6("default"); // nobody speaks but the test
    }
    let daemon = place.start(&net, &[]);
    let changed = json!({ "changed": true });
    let unchanged = json!({ "changed": false });

    assert_eq!(daemon.ok("BridgeAdd", json!({ "name": "br0" })), changed);
    assert_eq!(daemon.ok("BridgeAdd", json!({ "name": "br0", "ageing": "5m" })), unchanged);
    assert_eq!(daemon.ok("BridgeSet", json!({ "name": "br0", "fdb_limit": 1000 })), changed);
    let port = json!({
        "name": "a", "bridge": "br0", "netns": a.path(), "ifname": "eth0", "access": 10, "queues": 1,
        "address": ["198.51.100.1/24"], "mac": "02:00:00:00:00:01",
    });
    assert_eq!(daemon.ok("PortAdd", port.clone()), changed);
    assert_eq!(daemon.ok("PortAdd", port), unchanged);
    daemon.plug("b", &b, "198.51.100.2/24");
    assert_eq!(daemon.ok("PortSet", json!({ "name": "b", "access": 10 })), changed);
    assert_eq!(daemon.ok("PortSet", json!({ "name": "b", "access": 10 })), unchanged);
    assert!(a.ping([198, 51, 100, 2]));

    let status = daemon.ok("Status", json!({}));
    assert_eq!(
        (&status["bridges"], &status["ports"], &status["fdb_entries"]),
        (&json!(1), &json!(2), &json!(2))
    );
    assert_eq!(status["pid"], daemon.pid());
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for worker in workers {
        assert_eq!(
            worker["generation"], status["generation"],
            "every worker works with the newest: {status}"
        );
    }
    assert!(status["features"].as_array().unwrap().contains(&json!("tun")), "{status}");

    let bridges = daemon.ok("BridgeList", json!({}));
    assert_eq!(
        (&bridges["bridges"][0]["ageing"], &bridges["bridges"][0]["fdb_limit"]),
        (&json!("300s"), &json!(1000))
    );
    assert_eq!(daemon.ok("PortList", json!({}))["ports"].as_array().unwrap().len(), 2);

    let port = daemon.port("a");
    for (key, value) in [
        ("name", json!("a")),
        ("bridge", json!("br0")),
        ("type", json!("tap")),
        ("ifname", json!("eth0")),
        ("netns", json!(a.path())),
        ("mac", json!("02:00:00:00:00:01")),
        ("mtu", json!(1500)),
        ("admin", json!("up")),
        ("oper", json!("up")),
        ("queues", json!(1)),
        ("access", json!(10)),
        ("address", json!(["198.51.100.1/24"])),
        ("macs", json!(1)),
    ] {
        assert_eq!(port[key], value, "{key} of {port}");
    }
    assert!(port["offload"].as_array().unwrap().contains(&json!("vnet_hdr")), "{port}");
    for (way, what) in [("rx", "frames"), ("rx", "bytes"), ("tx", "frames"), ("tx", "bytes")] {
        assert!(port[way][what].as_u64().unwrap() > 0, "{way} {what} of {port}");
    }
    assert!(port["drops"].is_object());
    for unset in ["trunk", "native", "qinq", "secure", "reason"] {
        assert!(port.get(unset).is_none(), "{unset} is unset: {port}");
    }

    let entry =
        json!({ "mac": "02:00:00:00:00:07", "bridge": "br0", "vlan": 10, "port": "b", "sticky": true });
    assert_eq!(daemon.ok("FdbAdd", entry.clone()), changed);
    assert_eq!(daemon.ok("FdbAdd", entry), unchanged);
    let entries = daemon.ok("FdbList", json!({ "bridge": "br0", "port": "b", "vlan": 10 }));
    let entries = entries["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{entries:?}");
    let sticky = entries.iter().find(|e| e["kind"] == "sticky").unwrap();
    assert_eq!(
        (&sticky["mac"], &sticky["vlan"], &sticky["port"]),
        (&json!("02:00:00:00:00:07"), &json!(10), &json!("b"))
    );
    assert!(sticky["age_s"].is_u64() && sticky.get("remote").is_none());

    let counters = || (daemon.ok("Stats", json!({})), daemon.ok("Drops", json!({})));
    let mut before = counters();
    wait_until("what was sent is counted", PATIENCE, || {
        thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut before, counters()) == before
    });
    let frame = "020000000007020000000001 88b5".replace(' ', "");
    let trace = daemon.ok("Trace", json!({ "port": "a", "frame": frame }));
    assert_eq!(trace["verdict"], "forward");
    assert_eq!(trace["outputs"], json!([{ "port": "b", "vlan": 10, "tagged": false }]));
    let trace = daemon.ok("Trace", json!({ "port": "a", "frame": frame, "vlan": 11 }));
    assert_eq!((&trace["verdict"], &trace["reason"]), (&json!("drop"), &json!("vlan_not_member")));
    let trace = daemon.ok("Trace", json!({ "port": "a", "frame": "ffffffffffff02000000009988b5" }));
    assert_eq!(trace["verdict"], "flood");
    let macs = |port: &str| daemon.port(port)["macs"].clone();
    assert_eq!((macs("a"), macs("b")), (json!(1), json!(1)), "a trace teaches nothing");
    assert_eq!(counters(), before, "and counts nothing");

    // A tagged frame on an access port, for a drop to show.
    a.packet_socket("eth0")
        .send(&[&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x81, 0, 0, 99, 0x88, 0xb5], &[0; 46]].concat())
        .unwrap();
    let mut drops = Value::Null;
    wait_until("the drop is counted", PATIENCE, || {
        drops = daemon.ok("Drops", json!({ "port": "a" }))["drops"].clone();
        drops.as_array().unwrap().iter().any(|d| d["reason"] == "vlan_not_member" && d["frames"] == 1)
    });
    assert_eq!(daemon.port("a")["drops"]["vlan_not_member"], 1);
    assert!(drops[0]["what"].is_string() && drops[0]["remedy"].is_string());
    assert!(daemon.ok("Stats", json!({ "port": "a" }))["stats"][0]["dropped"].as_u64().unwrap() >= 1);

    assert_eq!(
        daemon.ok("FdbDel", json!({ "mac": "02:00:00:00:00:07", "bridge": "br0", "vlan": 10 })),
        changed
    );
    assert_eq!(daemon.ok("FdbFlush", json!({ "bridge": "br0", "vlan": 10 })), json!({ "flushed": 2 }));
    assert_eq!(daemon.ok("PortSet", json!({ "name": "b", "unset": ["access"] })), changed);
    assert!(daemon.port("b").get("access").is_none());
    for port in ["a", "b"] {
        assert_eq!(daemon.ok("PortDel", json!({ "name": port })), changed);
    }
    assert_eq!(daemon.ok("BridgeDel", json!({ "name": "br0" })), changed);
    assert!(!a.has_interface("eth0") && !b.has_interface("eth0"));
    assert_eq!(daemon.ok("Export", json!({}))["topology"], "");
}

/// A request that is refused: its method, its parameters, the name of the error, and words that must be in its sentence.
type Refused = (&'static str, Value, &'static str, &'static [&'static str]);

#[test]
fn what_makes_no_sense_is_refused_with_its_reason_and_leaves_nothing_half_done() {
    let Some(net) = Net::new() else { return };
    let (place, a, b) = (Place::new(), net.host("a"), net.host("b"));
    let daemon = place.start(&net, &[]);
    daemon.bridge();
    daemon.ok("BridgeAdd", json!({ "name": "br1" }));
    daemon.plug("a", &a, "198.51.100.1/24");
    daemon.plug("b", &b, "198.51.100.2/24");
    daemon.ok("FdbAdd", json!({ "mac": "02:00:00:00:00:07", "bridge": "br0", "port": "a" }));
    b.ip("link add name taken type veth peer name cable");
    let port = |more: Value| {
        let mut all = json!({ "name": "c", "bridge": "br0", "netns": b.path() });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let fdb =
        |mac: &str, vlan: u32, port: &str| json!({ "mac": mac, "bridge": "br0", "vlan": vlan, "port": port });
    let known = "02:00:00:00:00:07";

    let cases: Vec<Refused> = vec![
        (
            "BridgeAdd",
            json!({ "name": "a-name-of-16-byt" }),
            "InvalidParameter",
            &["name", "more than 15 bytes"],
        ),
        ("BridgeAdd", json!({ "name": "" }), "InvalidParameter", &["name"]),
        ("BridgeAdd", json!({ "name": "a/b" }), "InvalidParameter", &["name"]),
        (
            "BridgeAdd",
            json!({ "name": "br0", "ageing": "10m" }),
            "Exists",
            &["\"br0\"", "ageing: 300s -> 600s", "bridge set"],
        ),
        ("BridgeAdd", json!({ "name": "br2", "ageing": "soon" }), "InvalidParameter", &["ageing"]),
        (
            "BridgeSet",
            json!({ "name": "br9", "ageing": "10m" }),
            "NotFound",
            &["bridge \"br9\" does not exist"],
        ),
        (
            "BridgeDel",
            json!({ "name": "br9" }),
            "NotFound",
            &["bridge \"br9\" does not exist", "bridge list"],
        ),
        (
            "BridgeDel",
            json!({ "name": "br0" }),
            "InUse",
            &["\"br0\" is in use", "port a and 1 more", "delete"],
        ),
        ("BridgeDel", json!({}), "InvalidParameter", &["name"]),
        ("PortAdd", json!({ "name": "c", "bridge": "br9" }), "NotFound", &["bridge \"br9\" does not exist"]),
        (
            "PortAdd",
            port(json!({ "name": "a-name-of-16-byt" })),
            "InvalidParameter",
            &["name", "more than 15 bytes"],
        ),
        ("PortAdd", port(json!({ "ifname": "a-name-of-16-byt" })), "Invalid", &["ifname", "1 to 15 bytes"]),
        ("PortAdd", port(json!({ "access": 0 })), "InvalidParameter", &["access", "1 to 4094"]),
        ("PortAdd", port(json!({ "access": 4095 })), "InvalidParameter", &["access", "1 to 4094"]),
        ("PortAdd", port(json!({ "trunk": "10,4095" })), "InvalidParameter", &["trunk", "10,4095"]),
        ("PortAdd", port(json!({ "native": 10 })), "Invalid", &["port \"c\"", "native", "trunk"]),
        ("PortAdd", port(json!({ "access": 10, "qinq": 20 })), "Invalid", &["port \"c\"", "access", "qinq"]),
        ("PortAdd", port(json!({ "colour": "green" })), "InvalidParameter", &["colour"]),
        ("PortAdd", port(json!({ "mtu": 67 })), "Invalid", &["mtu: 67", "68 to"]),
        ("PortAdd", port(json!({ "queues": 0 })), "Invalid", &["queues: 0"]),
        ("PortAdd", port(json!({ "mac": "01:00:00:00:00:01" })), "Invalid", &["mac", "group address"]),
        ("PortAdd", port(json!({ "mac": "02:00" })), "InvalidParameter", &["mac"]),
        (
            "PortAdd",
            port(json!({ "netns": "tapway-no-such" })),
            "Kernel",
            &["port \"c\"", "namespace tapway-no-such", "No such file"],
        ),
        (
            "PortAdd",
            port(json!({ "netns": "/dev/null" })),
            "Kernel",
            &["/dev/null", "not a network namespace"],
        ),
        ("PortAdd", port(json!({ "ifname": "taken" })), "Kernel", &["port \"c\"", "taken"]),
        ("PortAdd", port(json!({ "ifname": "lo" })), "Kernel", &["the name lo is taken"]),
        ("PortAdd", port(json!({ "ifname": "eth0" })), "Kernel", &["eth0", "another port or process"]),
        (
            "PortAdd",
            json!({ "name": "a", "bridge": "br0", "netns": a.path(), "ifname": "eth0", "address": ["198.51.100.1/24"], "mtu": 1400 }),
            "Exists",
            &["port \"a\" exists", "mtu: 1500 -> 1400", "port set"],
        ),
        (
            "PortAdd",
            json!({ "name": "a", "bridge": "br1", "netns": a.path(), "ifname": "eth0", "address": ["198.51.100.1/24"] }),
            "Exists",
            &["port \"a\" exists", "bridge: br0 -> br1", "port del"],
        ),
        (
            "PortSet",
            json!({ "name": "c", "mtu": 1400 }),
            "NotFound",
            &["port \"c\" does not exist", "port list"],
        ),
        ("PortSet", json!({ "name": "a", "access": 0 }), "InvalidParameter", &["access"]),
        ("PortSet", json!({ "name": "a", "native": 10 }), "Invalid", &["port \"a\"", "native", "trunk"]),
        (
            "PortSet",
            json!({ "name": "a", "ifname": "eth1" }),
            "Invalid",
            &["ifname: eth0 -> eth1", "cannot be changed"],
        ),
        ("PortSet", json!({ "name": "a", "netns": b.path() }), "Invalid", &["netns", "cannot be changed"]),
        ("PortSet", json!({ "name": "a", "queues": 1 }), "Invalid", &["queues", "cannot be changed"]),
        ("PortSet", json!({ "name": "a", "unset": ["colour"] }), "Invalid", &["colour"]),
        ("PortSet", json!({ "name": "a", "mtu": 1400, "unset": ["mtu"] }), "Invalid", &["mtu"]),
        (
            "PortSet",
            json!({ "name": "a", "mtu": 1400, "address": ["198.51.100.1/24", "203.0.113.0/24", "127.0.0.0/8"], "mac": "01:00:00:00:00:00" }),
            "Invalid",
            &["mac"],
        ),
        ("PortDel", json!({ "name": "c" }), "NotFound", &["port \"c\" does not exist", "port list"]),
        ("PortShow", json!({ "name": "c" }), "NotFound", &["port \"c\" does not exist"]),
        ("FdbAdd", fdb(known, 0, "b"), "Exists", &["static on port a", "fdb del"]),
        ("FdbAdd", fdb(known, 4095, "b"), "Invalid", &["4095", "0 to 4094"]),
        ("FdbAdd", fdb(known, 65536, "b"), "InvalidParameter", &["vlan"]),
        ("FdbAdd", fdb("ff:ff:ff:ff:ff:ff", 0, "b"), "Invalid", &["group address"]),
        ("FdbAdd", fdb(known, 0, "c"), "NotFound", &["port \"c\" does not exist"]),
        (
            "FdbAdd",
            json!({ "mac": known, "bridge": "br1", "port": "a" }),
            "Invalid",
            &["port a belongs to bridge br0, not to br1"],
        ),
        (
            "FdbDel",
            json!({ "mac": known, "bridge": "br0", "vlan": 10 }),
            "NotFound",
            &["br0 vlan 10 02:00:00:00:00:07", "does not exist"],
        ),
        ("FdbDel", json!({ "mac": known, "bridge": "br9" }), "NotFound", &["bridge \"br9\""]),
        ("FdbDel", json!({ "mac": known, "bridge": "br0", "vlan": 4095 }), "Invalid", &["4095", "0 to 4094"]),
        ("FdbList", json!({ "vlan": 4095 }), "Invalid", &["4095", "0 to 4094"]),
        ("FdbList", json!({ "port": "c" }), "NotFound", &["port \"c\""]),
        ("FdbList", json!({ "bridge": "br1", "port": "a" }), "Invalid", &["bridge br0, not to br1"]),
        ("FdbFlush", json!({ "vlan": 9999 }), "Invalid", &["9999", "0 to 4094"]),
        ("FdbFlush", json!({ "bridge": "br9" }), "NotFound", &["bridge \"br9\""]),
        ("Stats", json!({ "port": "c" }), "NotFound", &["port \"c\""]),
        ("Drops", json!({ "port": "c" }), "NotFound", &["port \"c\""]),
        ("Trace", json!({ "port": "c", "frame": "00" }), "NotFound", &["port \"c\""]),
        ("Trace", json!({ "port": "a", "frame": "0" }), "InvalidParameter", &["frame"]),
        (
            "Trace",
            json!({ "port": "a", "frame": "00", "vlan": 7 }),
            "Invalid",
            &["port \"a\"", "no place for a tag"],
        ),
        (
            "Trace",
            json!({ "port": "a", "frame": "00".repeat(100_000) }),
            "Invalid",
            &["port \"a\"", "100000 octets"],
        ),
        ("Apply", json!({}), "InvalidParameter", &["topology"]),
        ("Frobnicate", json!({}), "MethodNotFound", &[]),
        ("org.example.Ping", json!({}), "InterfaceNotFound", &[]),
    ];
    let ways = || (daemon.export(), a.ip("-o address"), b.ip("-o address"), net.home().ip("-o address"));
    let before = ways();
    let mut wrong = Vec::new();
    for (method, parameters, error, words) in cases {
        let (refusal, sentence) = daemon.refused(method, parameters.clone());
        if refusal.rsplit('.').next() != Some(error) || !words.iter().all(|w| sentence.contains(w)) {
            wrong.push(format!("{method} {parameters}\n  -> {refusal}: {sentence}\n  not {error} {words:?}"));
        }
        assert_eq!(ways(), before, "{method} {parameters} left something");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(a.ping([198, 51, 100, 2]));
}
