//! What the control thread makes of requests: all of a change or nothing, and a refusal that says why.

mod sim;

use serde_json::json;
use sim::{ALL, Network, frame, station};

const SMALL: &str = r#"
    [[bridge]]
    name = "br0"
    [[port]]
    name = "p0"
    bridge = "br0"
    [[port]]
    name = "p1"
    bridge = "br0"
    access = 10
    [[fdb]]
    mac = "02:00:00:00:00:07"
    bridge = "br0"
    vlan = 10
    port = "p1"
"#;

/// Other than [`SMALL`] in every way: settings, a port that must be replaced, new ones, one that is gone.
const LARGE: &str = r#"
    [[bridge]]
    name = "br0"
    ageing = "60s"
    fdb_limit = 100
    [[bridge]]
    name = "br1"
    [[port]]
    name = "p1"
    bridge = "br1"
    trunk = "10,20"
    [[port]]
    name = "p2"
    bridge = "br0"
    [[port]]
    name = "p3"
    bridge = "br0"
    [[fdb]]
    mac = "02:00:00:00:00:07"
    bridge = "br1"
    vlan = 20
    port = "p1"
    sticky = true
"#;

#[test]
fn an_apply_that_fails_at_any_port_leaves_all_as_it_was() {
    for fails_at in 0..3 {
        let mut net = Network::new(1);
        net.switch().apply(SMALL, true).unwrap();
        let before = net.switch().export();
        net.switch().refuse_to_open(fails_at);
        let refusal = net.switch().apply(LARGE, true).unwrap_err().to_string();
        assert!(refusal.contains("no more of these"), "{refusal}");
        assert!(refusal.contains("nothing was changed"), "{refusal}");
        assert_eq!(net.switch().export(), before, "port number {fails_at}");
        assert_eq!(net.outputs("p0", &sim::tagged(10, &frame(7, 1))), ["p1"], "and works as before");
    }
}

#[test]
fn a_mistake_names_its_line_and_nothing_happens() {
    let mut net = Network::new(1);
    net.switch().refuse_to_open(1);
    let refusal = net.switch().apply(SMALL, false).unwrap_err().to_string();
    assert!(refusal.contains("line 7:") && refusal.contains("\"p1\""), "{refusal}");
    assert_eq!(net.switch().export(), "");
}

#[test]
fn applying_twice_changes_nothing_the_second_time() {
    let mut net = Network::new(1);
    for text in [SMALL, LARGE, SMALL] {
        assert_ne!(net.switch().apply(text, true).unwrap(), [""; 0]);
        let generation = net.switch().engine.snapshot().generation;
        assert_eq!(net.switch().apply(text, true).unwrap(), [""; 0]);
        assert_eq!(net.switch().engine.snapshot().generation, generation, "the workers hear nothing of it");
    }
}

#[test]
fn an_apply_without_prune_removes_nothing() {
    let mut net = Network::new(1);
    net.switch().apply(SMALL, true).unwrap();
    net.switch().apply("[[bridge]]\nname = \"br9\"\n", false).unwrap();
    assert!(net.switch().export().contains("br9") && net.switch().export().contains("p1"));
    assert_eq!(
        net.switch().apply("[[bridge]]\nname = \"br9\"\n", true).unwrap(),
        ["- fdb br0 vlan 10 02:00:00:00:00:07", "- port p0", "- port p1", "- bridge br0"]
    );
}

#[test]
fn what_does_not_change_is_not_touched_by_an_apply() {
    let mut net = Network::new(1);
    net.switch().apply(SMALL, true).unwrap();
    net.outputs("p1", &frame(ALL, 3));
    let more = format!("{SMALL}\n[[port]]\nname = \"p2\"\nbridge = \"br0\"\n");
    assert_eq!(net.switch().apply(&more, true).unwrap(), ["+ port p2"]);
    assert_eq!(net.outputs("p0", &sim::tagged(10, &frame(3, 1))), ["p1"], "what was learned is still known");
}

#[test]
fn an_export_applied_elsewhere_is_the_same_switch() {
    let mut net = Network::new(2);
    net.switches[0].apply(LARGE, true).unwrap();
    let text = net.switches[0].export();
    net.switches[1].apply(&text, true).unwrap();
    assert_eq!(net.switches[1].export(), text);
    assert_eq!(net.switches[0].apply(&text, true).unwrap(), [""; 0], "and nothing new where it came from");
}

#[test]
fn ports_for_vms_are_applied_exported_and_replaced_where_they_meet_their_vm_elsewhere() {
    let file = |path: &str| {
        format!(
            r#"
            bridge = [{{ name = "br0" }}]
            port = [
                {{ name = "a", bridge = "br0", type = "netdev", ifname = "tap0", qdisc_bypass = true }},
                {{ name = "b", bridge = "br0", type = "stream", path = "{path}", connect = true }},
                {{ name = "c", bridge = "br0", type = "dgram", path = "/run/c", peer_path = "/run/d" }},
                {{ name = "d", bridge = "br0", type = "vhost-user", path = "/run/e", queues = 2, secure = "mac=02:00:00:00:00:07" }},
            ]"#
        )
    };
    let mut net = Network::new(2);
    net.switches[0].apply(&file("/run/b"), true).unwrap();
    let text = net.switches[0].export();
    net.switches[1].apply(&text, true).unwrap();
    assert_eq!(net.switches[1].export(), text);
    assert_eq!(net.switches[0].apply(&file("/run/b"), true).unwrap(), [""; 0]);
    assert_eq!(net.switches[0].apply(&file("/run/other"), true).unwrap(), ["- port b", "+ port b"]);
    assert_eq!(
        net.switches[0].apply(&file("/run/c"), true).unwrap_err().to_string().matches("is that of").count(),
        1
    );

    let switch = net.switch();
    assert!(switch.refusal("PortSet", json!({ "name": "d", "client": true })).contains("client: off -> on"));
    assert!(switch.change("PortSet", json!({ "name": "d", "mtu": 9000 })));
    let clash = json!({ "name": "e", "bridge": "br0", "type": "stream", "path": "/run/e" });
    assert!(switch.refusal("PortAdd", clash).contains("path: \"/run/e\" is that of port \"d\""));
    let clash = json!({ "name": "tap0", "bridge": "br0", "type": "netdev" });
    assert!(switch.refusal("PortAdd", clash).contains("interface \"tap0\" is that of port \"a\""));
    let nowhere = json!({ "name": "f", "bridge": "br0", "type": "vhost-user" });
    assert!(switch.refusal("PortAdd", nowhere).contains("path is missing"));
}

#[test]
fn a_bridge_with_ports_is_not_deleted() {
    let mut net = Network::single(json!({}), &[json!({}), json!({})]);
    let refusal = net.switch().refusal("BridgeDel", json!({ "name": "br0" }));
    assert!(refusal.contains("in use") && refusal.contains("port p0 and 1 more"), "{refusal}");
    net.switch().change("PortDel", json!({ "name": "p0" }));
    net.switch().change("PortDel", json!({ "name": "p1" }));
    net.switch().change("BridgeDel", json!({ "name": "br0" }));
    assert_eq!(net.switch().export(), "");
}

#[test]
fn adding_what_is_there_changes_nothing_and_adding_it_otherwise_names_the_difference() {
    let mut net = Network::single(json!({ "ageing": "60s" }), &[json!({ "access": 10 })]);
    let s = net.switch();
    assert!(!s.change("BridgeAdd", json!({ "name": "br0", "ageing": "60s" })));
    assert!(!s.change("PortAdd", json!({ "name": "p0", "bridge": "br0", "access": 10, "mtu": 1500 })));
    assert!(s.change("FdbAdd", json!({ "mac": station(1), "bridge": "br0", "vlan": 10, "port": "p0" })));
    assert!(!s.change("FdbAdd", json!({ "mac": station(1), "bridge": "br0", "vlan": 10, "port": "p0" })));
    let refusal = s.refusal("BridgeAdd", json!({ "name": "br0", "ageing": "61s" }));
    assert!(refusal.contains("ageing: 60s -> 61s"), "{refusal}");
    let refusal = s.refusal("PortAdd", json!({ "name": "p0", "bridge": "br0", "access": 11 }));
    assert!(refusal.contains("access: 10 -> 11") && refusal.contains("port set"), "{refusal}");
    let refusal = s.refusal(
        "FdbAdd",
        json!({ "mac": station(1), "bridge": "br0", "vlan": 10, "port": "p0", "sticky": true }),
    );
    assert!(refusal.contains("it is static on port p0"), "{refusal}");
}

#[test]
fn what_cannot_change_while_a_port_exists_is_refused_by_name() {
    let mut net = Network::single(json!({}), &[json!({})]);
    let before = net.switch().export();
    for (key, value) in [("queues", json!(2)), ("ifname", json!("other")), ("netns", json!("blue"))] {
        let refusal = net.switch().refusal("PortSet", json!({ "name": "p0", "mtu": 1400, key: value }));
        assert!(refusal.contains(key) && refusal.contains("delete it and add it again"), "{refusal}");
    }
    assert_eq!(net.switch().export(), before, "nor does what could be changed");
}

#[test]
fn unknown_names_and_impossible_settings_are_refused_with_the_name() {
    let mut net = Network::single(json!({}), &[json!({})]);
    let s = net.switch();
    s.change("BridgeAdd", json!({ "name": "br1" }));
    for (method, parameters, words) in [
        ("PortAdd", json!({ "name": "p9", "bridge": "br9" }), "bridge \"br9\" does not exist"),
        ("PortSet", json!({ "name": "p9", "mtu": 1400 }), "port \"p9\" does not exist"),
        ("PortShow", json!({ "name": "p9" }), "port \"p9\" does not exist"),
        ("PortDel", json!({ "name": "p9" }), "port \"p9\" does not exist"),
        ("BridgeSet", json!({ "name": "br9", "ageing": "1s" }), "bridge \"br9\" does not exist"),
        ("BridgeDel", json!({ "name": "br9" }), "bridge \"br9\" does not exist"),
        ("FdbDel", json!({ "mac": station(1), "bridge": "br0" }), station(1).as_str()),
        (
            "FdbAdd",
            json!({ "mac": station(1), "bridge": "br1", "port": "p0" }),
            "belongs to bridge br0, not to br1",
        ),
        ("FdbAdd", json!({ "mac": "01:00:5e:00:00:01", "bridge": "br0", "port": "p0" }), "group address"),
        ("FdbFlush", json!({ "bridge": "br1", "port": "p0" }), "belongs to bridge br0"),
        (
            "PortAdd",
            json!({ "name": "p9", "bridge": "br0", "mtu": 67 }),
            "mtu: 67 is not allowed: 68 to 65521",
        ),
        ("PortSet", json!({ "name": "p0", "access": 1, "trunk": "2" }), "exclude each other"),
        ("PortSet", json!({ "name": "p0", "native": 1 }), "needs a trunk"),
        ("PortSet", json!({ "name": "p0", "unset": ["acces"] }), "did you mean \"access\"?"),
        ("BridgeSet", json!({ "name": "br0", "fdb_limit": 0 }), "fdb_limit: 0 is not allowed: 1 to 16777216"),
        ("Trace", json!({ "port": "p9", "frame": "00" }), "port \"p9\" does not exist"),
        ("Drops", json!({ "port": "p9" }), "port \"p9\" does not exist"),
    ] {
        let refusal = s.refusal(method, parameters);
        assert!(refusal.contains(words), "{method}: {refusal}");
    }
}

#[test]
fn a_full_table_says_how_to_make_room() {
    let mut net = Network::single(json!({ "fdb_limit": 2 }), &[json!({})]);
    for n in 1..=2 {
        net.switch().change("FdbAdd", json!({ "mac": station(n), "bridge": "br0", "port": "p0" }));
    }
    let refusal = net.switch().refusal("FdbAdd", json!({ "mac": station(3), "bridge": "br0", "port": "p0" }));
    assert!(refusal.contains("full") && refusal.contains("bridge set br0 --fdb-limit"), "{refusal}");
}

#[test]
fn a_port_that_does_not_open_leaves_nothing_behind() {
    let mut net = Network::single(json!({}), &[json!({}), json!({})]);
    net.switch().refuse_to_open(0);
    let refusal = net.switch().refusal("PortAdd", json!({ "name": "p2", "bridge": "br0" }));
    assert!(refusal.contains("\"p2\": no more of these"), "{refusal}");
    assert!(net.switch().refusal("PortShow", json!({ "name": "p2" })).contains("does not exist"));
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1"]);
    assert!(net.switch().change("PortAdd", json!({ "name": "p2", "bridge": "br0" })), "the next attempt");
}

#[test]
fn a_listing_of_many_entries_comes_in_pages_and_is_whole() {
    let mut net = Network::single(json!({}), &[json!({}), json!({})]);
    net.switch().change("BridgeAdd", json!({ "name": "br1" }));
    for n in 0..3000u16 {
        let mut f = frame(ALL, 1);
        f[6..12].copy_from_slice(&[2, 0xee, 0, 0, (n >> 8) as u8, n as u8]);
        net.outputs("p0", &f);
    }
    let (mut seen, mut cursor, mut pages) = (std::collections::BTreeSet::new(), None, 0);
    loop {
        let page = net.switch().ask("FdbList", json!({ "cursor": cursor, "limit": 100 })).unwrap();
        let tapway_dataplane::api::Reply::Fdb { entries, next } = page else { panic!("{page:?}") };
        assert!(entries.len() <= 110, "{}", entries.len());
        pages += 1;
        assert!(entries.iter().all(|e| seen.insert(e.mac)), "no entry twice");
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 3000);
    assert!(pages >= 27, "{pages}");
}
