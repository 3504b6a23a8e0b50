//! What a port lets in and out, and what changes while frames pass.

mod sim;

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use sim::{ALL, Network, frame, mac, station, tagged};
use tapway_dataplane::frame::{Caps, Checksum, Offload};

const NOBODY: [&str; 0] = [];

#[test]
fn isolated_ports_reach_only_the_others() {
    let isolated = json!({ "isolated": "on" });
    let mut net = Network::single(json!({}), &[isolated.clone(), isolated, json!({})]);
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p2"]);
    assert_eq!(net.outputs("p2", &frame(ALL, 3)), ["p0", "p1"]);
    net.outputs("p1", &frame(ALL, 2));
    assert_eq!(net.outputs("p0", &frame(2, 1)), NOBODY);
    assert_eq!(net.switch().dropped("p0", "isolated"), 1);
    net.switch().change("PortSet", json!({ "name": "p1", "isolated": "off" }));
    assert_eq!(net.outputs("p0", &frame(2, 1)), ["p1"]);
}

#[test]
fn a_hairpin_port_reflects_between_stations_behind_it() {
    let mut net = Network::single(json!({}), &[json!({ "hairpin": "on" }), json!({})]);
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p0", "p1"]);
    net.outputs("p0", &frame(ALL, 2));
    assert_eq!(net.outputs("p0", &frame(1, 2)), ["p0"]);
    net.switch().change("PortSet", json!({ "name": "p0", "hairpin": "off" }));
    assert_eq!(net.outputs("p0", &frame(1, 2)), NOBODY);
    assert_eq!(net.switch().dropped("p0", "same_port"), 1);
}

#[test]
fn a_locked_port_lets_in_whom_the_operator_entered() {
    let mut net = Network::single(json!({}), &[json!({ "locked": "on" }), json!({})]);
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), NOBODY);
    net.switch().change("FdbAdd", json!({ "mac": station(1), "bridge": "br0", "port": "p0" }));
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1"]);
    net.outputs("p1", &frame(ALL, 1));
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), NOBODY, "its station is elsewhere now");
    assert_eq!(net.switch().dropped("p0", "locked"), 2);
}

#[test]
fn the_storm_limit_is_a_rate_of_flooded_frames_and_not_of_known_ones() {
    let mut net = Network::single(json!({}), &[json!({ "storm_limit": 100 }), json!({}), json!({})]);
    net.outputs("p1", &frame(ALL, 2));
    let mut passed = 0;
    for n in 0..5000 {
        net.advance(Duration::from_millis(1));
        let kind = [frame(ALL, 1), frame(99, 1), [&[1, 0, 0x5e, 0, 0, 1], &frame(ALL, 1)[6..]].concat()];
        passed += net.outputs("p0", &kind[n % 3]).len() / 2;
        assert_eq!(net.outputs("p0", &frame(2, 1)), ["p1"], "known unicast has no limit");
    }
    assert!((500..=511).contains(&passed), "{passed} in five seconds at 100 a second");
    assert_eq!(net.switch().dropped("p0", "storm_limit"), 5000 - passed as u64);
}

#[test]
fn a_secured_port_sends_under_its_own_addresses_only() {
    let secure = json!({ "secure": "mac=02:00:00:00:00:01,ip=198.51.100.1" });
    let mut net = Network::single(json!({}), &[secure, json!({})]);
    let ip = |from: u8, last: u8| {
        let head = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 198, 51, 100, last, 198, 51, 100, 9];
        [&mac(ALL)[..], &mac(from), &[8, 0], &head, &[0; 26]].concat()
    };
    assert_eq!(net.outputs("p0", &ip(1, 1)), ["p1"]);
    assert_eq!(net.outputs("p0", &ip(2, 1)), NOBODY);
    assert_eq!(net.outputs("p0", &ip(1, 2)), NOBODY);
    let drops = net.switch().drops("p0");
    assert_eq!((drops["secure_mac"], drops["secure_ip"], drops.len()), (1, 1, 2));
    assert_eq!(net.switch().place(2), None, "what is refused is not learned");
    net.switch().change("PortSet", json!({ "name": "p0", "unset": ["secure"] }));
    assert_eq!(net.outputs("p0", &ip(2, 2)), ["p1"]);
}

#[test]
fn a_secured_port_has_its_limits_by_the_one_flag_and_each_drop_has_a_name() {
    let secure = "mac=02:00:00:00:00:01";
    let ports = [json!({ "trunk": "10,20", "native": 5, "secure": secure }), json!({ "trunk": "all" })];
    let mut net = Network::single(json!({}), &ports);
    // A guest may be in each of its VLANs; a port without VLANs of its own in 64.
    for vlan in [10, 20] {
        assert_eq!(net.outputs("p0", &tagged(vlan, &frame(ALL, 1))), ["p1"]);
    }
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1"]);
    net.switch().change("PortAdd", json!({ "name": "p2", "bridge": "br0", "secure": secure }));
    net.switch().change("PortDel", json!({ "name": "p0" }));
    let passed =
        (1..=100).filter(|vlan| net.outputs("p2", &tagged(*vlan, &frame(ALL, 1))).contains(&"p1".into()));
    assert_eq!(passed.count(), 64);
    assert_eq!(net.switch().drops("p2"), [("secure_mac_limit".to_owned(), 36)].into());

    let known = net.switch().fdb().len();
    assert!(known <= 64, "{known} entries of one guest");
    net.switch().change("PortSet", json!({ "name": "p2", "access": 10 }));
    net.advance(Duration::from_secs(1));
    let passed = (0..5000).filter(|_| {
        net.advance(Duration::from_millis(1) / 10);
        !net.outputs("p2", &frame(ALL, 1)).is_empty()
    });
    let passed = passed.count();
    assert!((590..=610).contains(&passed), "{passed} in half a second at 1,000 a second and a burst of 100");
    assert_eq!(net.switch().dropped("p2", "storm_limit"), 5000 - passed as u64);

    net.switch().change("PortSet", json!({ "name": "p2", "storm_limit": 0, "mac_limit": 0 }));
    assert!(
        (0..5000).all(|_| !net.outputs("p2", &frame(ALL, 1)).is_empty()),
        "an operator may think otherwise"
    );
}

#[test]
fn flooding_of_each_class_is_the_ports_choice() {
    let mut net = Network::single(
        json!({}),
        &[
            json!({}),
            json!({ "flood": "off" }),
            json!({ "bcast_flood": "off" }),
            json!({ "mcast_flood": "off" }),
        ],
    );
    let multicast = [&[1, 0, 0x5e, 0, 0, 1], &frame(ALL, 1)[6..]].concat();
    assert_eq!(net.outputs("p0", &frame(99, 1)), ["p2", "p3"]);
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1", "p3"]);
    assert_eq!(net.outputs("p0", &multicast), ["p1", "p2"]);
}

#[test]
fn a_port_whose_vlan_changes_gets_frames_of_the_new_one_only() {
    let vlan = |v: u16| json!({ "access": v });
    let mut net = Network::single(json!({}), &[vlan(10), vlan(10), vlan(20), json!({ "trunk": "10,20" })]);
    net.outputs("p1", &frame(ALL, 2));
    assert_eq!(net.outputs("p0", &frame(2, 1)), ["p1"]);
    // Frames wait at the port while the change is made: they are of the VLAN that the port is in when they are read.
    net.switch().end("p1", 0).send(&frame(ALL, 2), Offload::NONE);
    net.switch().change("PortSet", json!({ "name": "p1", "access": 20 }));
    let arrived = net.run();
    assert_eq!(arrived.iter().map(|(_, p, _)| p.as_str()).collect::<Vec<_>>(), ["p2", "p3"]);
    assert_eq!(arrived[1].2, tagged(20, &frame(ALL, 2)));
    assert_eq!(net.outputs("p0", &frame(2, 1)), ["p3"], "not to where station 2 was in VLAN 10");
    assert_eq!(net.outputs("p2", &frame(2, 3)), ["p1"]);
}

#[test]
fn a_deleted_port_gets_nothing_and_its_place_is_no_ones_heir() {
    let mut net = Network::single(json!({}), &[json!({}), json!({}), json!({})]);
    net.outputs("p1", &frame(ALL, 2));
    net.switch().change("FdbAdd", json!({ "mac": station(7), "bridge": "br0", "port": "p1" }));
    let gone = net.switch().end("p1", 0);
    net.switch().change("PortDel", json!({ "name": "p1" }));
    assert_eq!(net.outputs("p0", &frame(2, 1)), ["p2"], "unknown now");
    assert_eq!(gone.drain().len(), 0);
    // The next port takes the free index, and with it nothing of what was said of the old one.
    net.switch().change("PortAdd", json!({ "name": "p3", "bridge": "br0", "access": 5 }));
    assert_eq!(net.outputs("p0", &frame(2, 1)), ["p2"]);
    assert_eq!(net.outputs("p0", &frame(7, 1)), ["p2"]);
    assert_eq!(net.switch().drops("p3").len(), 0);
    assert!(net.switch().export().lines().all(|l| !l.contains("fdb")));
}

#[test]
fn under_changes_every_frame_arrives_or_is_counted_as_a_drop_and_none_twice_at_a_port() {
    // Stations are heard everywhere, and nobody is to be held for it.
    let bridge = json!({ "move_limit": 0 });
    let mut net = Network::single(bridge, &[json!({}), json!({ "access": 10 }), json!({ "trunk": "10,20" })]);
    let (mut sent, mut seed) = (0u32, 7u32);
    let mut arrived = BTreeSet::new();
    for round in 0..300u32 {
        for port in ["p0", "p1", "p2"] {
            for _ in 0..3 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [a, b, c, _] = seed.to_be_bytes();
                let mut f = frame(1 + a % 5, 1 + b % 5);
                f.truncate(14);
                f.extend(sent.to_be_bytes());
                let f = if c % 2 == 0 { tagged(10 + u16::from(c % 3) * 5, &f) } else { f };
                net.switch().end(port, 0).send(&f, Offload::NONE);
                sent += 1;
            }
        }
        // Frames wait at all ports while the change is made.
        let vlan = if round % 2 == 0 { 10 } else { 20 };
        match round % 4 {
            0 => net.switch().change("PortSet", json!({ "name": "p1", "access": vlan })),
            1 => net.switch().change("PortSet", json!({ "name": "p1", "trunk": vlan })),
            2 => net.switch().change("PortSet", json!({ "name": "p0", "admin": "down" })),
            _ => net.switch().change("PortSet", json!({ "name": "p0", "admin": "up" })),
        };
        for (_, port, f) in net.run() {
            assert!(
                port != "p2" || f[12..14] == [0x81, 0],
                "a trunk without native VLAN sends no untagged frame"
            );
            let number = u32::from_be_bytes(*f.last_chunk().unwrap());
            assert!(arrived.insert((number, port)), "one copy of frame {number} for each port");
        }
    }
    let frames: BTreeSet<u32> = arrived.iter().map(|(number, _)| *number).collect();
    let drops: u64 = ["p0", "p1", "p2"].iter().flat_map(|p| net.switch().drops(p).into_values()).sum();
    assert_eq!(frames.len() as u64 + drops, u64::from(sent));
    assert!(frames.len() > 300 && drops > 300, "{} and {drops} of {sent}", frames.len());
}

#[test]
fn a_port_that_is_down_takes_and_gives_nothing_and_forgets_its_stations() {
    let mut net = Network::single(json!({}), &[json!({}), json!({}), json!({})]);
    net.outputs("p1", &frame(ALL, 2));
    net.switch().change("PortSet", json!({ "name": "p1", "admin": "down" }));
    assert_eq!(net.outputs("p0", &frame(2, 1)), ["p2"]);
    assert_eq!(net.outputs("p1", &frame(ALL, 2)), NOBODY);
    assert_eq!(net.switch().dropped("p1", "port_down"), 1);
    net.switch().change("PortSet", json!({ "name": "p1", "admin": "up" }));
    assert_eq!(net.outputs("p1", &frame(ALL, 2)), ["p0", "p2"]);
}

/// Octets of an IPv6 packet from 2001:db8::1 without payload, the address at 22.
fn six() -> Vec<u8> {
    let source = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    [&mac(ALL)[..], &mac(1), &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64], &source, &[0xff; 16], &[0; 6]]
        .concat()
}

#[test]
fn a_checksum_left_to_the_switch_does_not_rewrite_what_a_secured_port_has_checked() {
    for caps in [Caps::NONE, Caps::ALL] {
        let mut net = Network::with(1, 1, move |name| if name == "p1" { caps } else { Caps::ALL });
        let secure = json!({ "secure": "mac=02:00:00:00:00:01,ip=2001:db8::1" });
        net.switch().bridge(json!({}), &[secure, json!({})]);
        let own = six();
        assert_eq!(net.outputs("p0", &own), ["p1"]);
        // The field is the end of the source address: whoever finishes the checksum writes another address there.
        let csum = Checksum::Partial { start: 34, offset: 2 };
        net.switch().end("p0", 0).send(&own, Offload { csum, gso: None });
        assert_eq!(net.run(), []);
        assert_eq!(net.switch().dropped("p0", "secure_ip"), 1);
    }
}

#[test]
fn the_checksum_of_a_transport_stays_partial_on_a_secured_port() {
    let mut net = Network::with(1, 1, |_| Caps::ALL);
    let secure = json!({ "secure": "mac=02:00:00:00:00:01,ip=198.51.100.1" });
    net.switch().bridge(json!({}), &[secure, json!({})]);
    let head = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 1, 198, 51, 100, 9];
    let datagram = [&mac(ALL)[..], &mac(1), &[8, 0], &head, &[0x10, 0, 0x20, 0, 0, 8, 0, 0]].concat();
    let offload = Offload { csum: Checksum::Partial { start: 34, offset: 6 }, gso: None };
    net.switch().end("p0", 0).send(&datagram, offload);
    net.switch().engine.run_inline();
    assert_eq!(net.switch().end("p1", 0).recv(), Some((datagram, offload)), "the far end does it");
}
