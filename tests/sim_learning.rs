//! Stations are learned, followed and forgotten, by one switch and by several that are joined.

mod sim;

use std::time::Duration;

use serde_json::json;
use sim::{ALL, Network, frame, station};
use tapway_dataplane::frame::{Caps, Offload};

/// A switch in the middle and three around it, each with two hosts.
///
/// ```text
///        p0 p1        p0 p1
///        ┤ 1 ├        ┤ 2 ├
///          up           up
///           ╚═ d1 ┤ 0 ├ d2 ═╝
///                  p0 p1 d3 ══ up ┤ 3 ├ p0 p1
/// ```
fn tree() -> Network {
    let mut net = Network::new(4);
    for n in 0..4 {
        net.switches[n].bridge(json!({}), &[json!({}), json!({})]);
    }
    for n in 1..4 {
        let down = format!("d{n}");
        net.switches[0].change("PortAdd", json!({ "name": down, "bridge": "br0" }));
        net.switches[n].change("PortAdd", json!({ "name": "up", "bridge": "br0" }));
        net.cable((0, &down), (n, "up"));
    }
    net
}

/// Where frames came out, as `switch/port`.
fn at(arrived: &[sim::Arrived]) -> Vec<String> {
    arrived.iter().map(|(switch, port, _)| format!("{switch}/{port}")).collect()
}

#[test]
fn in_a_tree_of_switches_a_flooded_frame_reaches_every_other_host_once() {
    let mut net = tree();
    for (switch, port) in [(0, "p0"), (1, "p1"), (3, "p0")] {
        let all: Vec<String> = (0..4).flat_map(|s| [format!("{s}/p0"), format!("{s}/p1")]).collect();
        let expected: Vec<_> = all.into_iter().filter(|p| *p != format!("{switch}/{port}")).collect();
        assert_eq!(at(&net.send(switch, port, &frame(ALL, 1))), expected, "broadcast from {switch}/{port}");
        assert_eq!(at(&net.send(switch, port, &frame(99, 1))), expected, "unknown from {switch}/{port}");
    }
}

#[test]
fn a_known_station_is_reached_through_the_tree_by_no_one_elses_port() {
    let mut net = tree();
    net.send(1, "p0", &frame(ALL, 1));
    net.send(3, "p1", &frame(ALL, 2));
    assert_eq!(at(&net.send(1, "p0", &frame(2, 1))), ["3/p1"]);
    assert_eq!(at(&net.send(3, "p1", &frame(1, 2))), ["1/p0"]);
    assert_eq!(net.switches[2].place(1).as_deref(), Some("up"));
    assert_eq!(net.switches[0].place(2).as_deref(), Some("d3"));
}

#[test]
fn a_station_that_moves_within_a_switch_and_between_switches_is_followed() {
    let mut net = tree();
    net.send(3, "p1", &frame(ALL, 2));
    net.send(1, "p0", &frame(ALL, 1));
    net.send(1, "p1", &frame(ALL, 1));
    assert_eq!(at(&net.send(3, "p1", &frame(1, 2))), ["1/p1"]);
    net.send(2, "p0", &frame(ALL, 1));
    assert_eq!(at(&net.send(3, "p1", &frame(1, 2))), ["2/p0"]);
    assert_eq!(net.switches[1].place(1).as_deref(), Some("up"), "where it left, too");
}

#[test]
fn a_silent_station_is_forgotten_after_the_ageing_time_and_one_that_speaks_is_kept() {
    let mut net = Network::single(json!({ "ageing": "10s" }), &[json!({}), json!({}), json!({})]);
    net.outputs("p1", &frame(ALL, 1));
    net.outputs("p2", &frame(ALL, 2));
    for _ in 0..4 {
        net.pass(5);
        net.outputs("p1", &frame(9, 1));
    }
    assert_eq!(net.switch().place(1).as_deref(), Some("p1"), "heard five seconds ago");
    assert_eq!(net.switch().place(2), None, "silent for twenty");
    assert_eq!(net.outputs("p0", &frame(1, 3)), ["p1"]);
    assert_eq!(net.outputs("p0", &frame(2, 3)), ["p1", "p2"]);
}

#[test]
fn nothing_is_forgotten_before_the_ageing_time_is_over() {
    let mut net = Network::single(json!({ "ageing": "10s" }), &[json!({}), json!({})]);
    net.outputs("p1", &frame(ALL, 1));
    net.pass(10);
    assert_eq!(net.switch().place(1).as_deref(), Some("p1"));
    net.pass(2);
    assert_eq!(net.switch().place(1), None);
}

#[test]
fn an_ageing_time_of_zero_learns_nothing_and_forgets_what_was_learned() {
    let mut net = Network::single(json!({}), &[json!({}), json!({}), json!({})]);
    net.outputs("p1", &frame(ALL, 1));
    net.switch().change("FdbAdd", json!({ "mac": station(7), "bridge": "br0", "port": "p2" }));
    net.switch().change("BridgeSet", json!({ "name": "br0", "ageing": "0s" }));
    net.pass(1);
    assert_eq!(net.switch().place(1), None);
    net.outputs("p1", &frame(ALL, 1));
    assert_eq!(net.outputs("p0", &frame(1, 2)), ["p1", "p2"], "a hub");
    assert_eq!(net.outputs("p0", &frame(7, 2)), ["p2"], "but for what an operator has entered");
    net.switch().change("BridgeSet", json!({ "name": "br0", "ageing": "300s" }));
    net.outputs("p1", &frame(ALL, 1));
    assert_eq!(net.outputs("p0", &frame(1, 2)), ["p1"]);
}

#[test]
fn entries_of_an_operator_do_not_age() {
    let mut net = Network::single(json!({ "ageing": "10s" }), &[json!({}), json!({})]);
    net.switch().change("FdbAdd", json!({ "mac": station(1), "bridge": "br0", "port": "p1" }));
    net.switch()
        .change("FdbAdd", json!({ "mac": station(2), "bridge": "br0", "port": "p1", "sticky": true }));
    net.pass(100);
    assert_eq!(net.switch().fdb().len(), 2);
}

#[test]
fn a_static_entry_moves_with_its_station_and_a_sticky_one_stays_and_drops_the_impostor() {
    let mut net = Network::single(json!({}), &[json!({}), json!({}), json!({})]);
    net.switch().change("FdbAdd", json!({ "mac": station(1), "bridge": "br0", "port": "p1" }));
    net.switch()
        .change("FdbAdd", json!({ "mac": station(2), "bridge": "br0", "port": "p1", "sticky": true }));
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1", "p2"]);
    assert_eq!(net.switch().place(1).as_deref(), Some("p0"));
    assert_eq!(
        net.switch().entries().iter().find(|e| e.mac.to_string() == station(1)).unwrap().kind,
        "static"
    );
    assert_eq!(net.outputs("p0", &frame(ALL, 2)), [""; 0]);
    assert_eq!(net.switch().dropped("p0", "sticky_violation"), 1);
    assert_eq!(net.outputs("p2", &frame(2, 3)), ["p1"]);
}

#[test]
fn an_address_claimed_by_two_ports_in_turn_is_held_on_one_and_works_there() {
    let mut net = Network::single(json!({}), &[json!({}), json!({}), json!({})]);
    let notices = |net: &mut Network| match net.switch().ask("Status", json!({})).unwrap() {
        tapway_dataplane::api::Reply::Status(status) => status.notices,
        other => panic!("{other:?}"),
    };
    for _ in 0..2 {
        assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1", "p2"]);
        assert_eq!(net.outputs("p1", &frame(ALL, 1)), ["p0", "p2"]);
    }
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1", "p2"], "the fourth move");
    assert!(net.switch().entries().iter().all(|e| !e.damped) && notices(&mut net).is_empty());
    assert_eq!(net.outputs("p1", &frame(ALL, 1)), [""; 0], "the fifth is not made");
    assert_eq!(net.outputs("p1", &frame(7, 1)), [""; 0]);
    assert_eq!(net.switch().dropped("p1", "mac_damped"), 2);
    assert_eq!(net.outputs("p2", &frame(1, 2)), ["p0"], "where it is held it is reached");
    assert_eq!(net.outputs("p0", &frame(2, 1)), ["p2"], "and heard");
    assert_eq!(net.switch().trace("p1", &frame(2, 1)).reason.as_deref(), Some("mac_damped"));
    assert!(net.switch().entries().iter().all(|e| e.damped == (e.mac.to_string() == station(1))));

    net.pass(13);
    assert_eq!(
        notices(&mut net),
        ["bridge br0: 02:00:00:00:00:01 moves between port p0 and port p1, held on port p0 for 17 s"]
    );
    net.pass(17);
    assert!(notices(&mut net).is_empty());
    assert_eq!(net.outputs("p1", &frame(2, 1)), ["p2"], "released, it may move");
    assert_eq!(net.switch().place(1).as_deref(), Some("p1"));
}

#[test]
fn two_cables_between_two_switches_are_no_storm_for_ever() {
    let mut net = Network::new(2);
    for n in 0..2 {
        net.switches[n].bridge(json!({}), &[json!({}), json!({}), json!({})]);
    }
    net.cable((0, "p1"), (1, "p1"));
    net.cable((0, "p2"), (1, "p2"));
    // In each switch the station is held at its own place or at the cable its first frame came by. Where the second switch is
    // first to do so, frames go on one way until the station speaks again.
    let speaks = |net: &Network| assert!(net.switches[0].end("p0", 0).send(&frame(ALL, 1), Offload::NONE));
    speaks(&net);
    if !net.comes_to_rest(20) {
        net.pass(5);
        speaks(&net);
    }
    assert!(net.comes_to_rest(20));
    assert_eq!(net.switches[0].place(1).as_deref(), Some("p0"));
    assert!(net.switches[0].dropped("p1", "mac_damped") + net.switches[0].dropped("p2", "mac_damped") > 0);
    net.run();
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), ["1/p0"], "once, by one of the cables");
    assert_eq!(at(&net.send(1, "p0", &frame(1, 2))), ["0/p0"], "and it is reached from the other");
}

#[test]
fn the_move_limit_changes_on_live_traffic() {
    let mut net = Network::single(json!({ "move_limit": 0 }), &[json!({}), json!({}), json!({})]);
    for _ in 0..50 {
        assert_eq!(net.outputs("p0", &frame(ALL, 1)).len(), 2);
        assert_eq!(net.outputs("p1", &frame(ALL, 1)).len(), 2);
    }
    assert!(net.switch().change("BridgeSet", json!({ "name": "br0", "move_limit": 1 })));
    assert!(net.switch().export().contains("move_limit = 1"));
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), [""; 0]);
    // A table of another size starts without holds, and with the limit.
    net.switch().change("BridgeSet", json!({ "name": "br0", "fdb_limit": 1000 }));
    assert!(net.switch().entries().iter().all(|e| !e.damped));
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), [""; 0]);
    net.switch().change("BridgeSet", json!({ "name": "br0", "move_limit": 0 }));
    net.pass(1);
    assert_eq!(net.outputs("p0", &frame(ALL, 1)), ["p1", "p2"]);
}

#[test]
fn a_port_that_floods_addresses_leaves_the_entries_of_others() {
    let mut net = Network::single(json!({ "fdb_limit": 64 }), &[json!({}), json!({}), json!({})]);
    for n in 1..=10 {
        net.outputs("p1", &frame(ALL, n));
    }
    for n in 0..2000u16 {
        let mut f = frame(ALL, 1);
        f[6..12].copy_from_slice(&[2, 0xee, 0, 0, (n >> 8) as u8, n as u8]);
        assert_eq!(net.outputs("p0", &f).len(), 2, "what is not learned is forwarded all the same");
    }
    for n in 1..=10 {
        assert_eq!(net.switch().place(n).as_deref(), Some("p1"), "station {n}");
    }
    net.outputs("p2", &frame(ALL, 200));
    assert_eq!(net.switch().place(200).as_deref(), Some("p2"), "a port with few entries still gets one");
    assert!(net.switch().fdb().len() <= 64);
}

#[test]
fn another_limit_keeps_the_entries_and_their_ages() {
    let mut net = Network::single(json!({ "ageing": "10s", "fdb_limit": 1000 }), &[json!({}), json!({})]);
    for n in 1..=100 {
        net.outputs("p1", &frame(ALL, n));
    }
    net.switch().change("FdbAdd", json!({ "mac": station(150), "bridge": "br0", "port": "p0" }));
    let before = net.switch().fdb();
    net.pass(8);
    for limit in [5000, 200] {
        net.switch().change("BridgeSet", json!({ "name": "br0", "fdb_limit": limit }));
        assert_eq!(net.switch().fdb(), before, "limit {limit}");
    }
    net.pass(4);
    assert_eq!(net.switch().fdb().len(), 1, "twelve seconds old, whenever they were copied");
}

#[test]
fn a_limit_below_the_entries_of_the_operator_is_refused() {
    let mut net = Network::single(json!({}), &[json!({}), json!({})]);
    for n in 1..=5 {
        net.switch().change("FdbAdd", json!({ "mac": station(n), "bridge": "br0", "port": "p0" }));
    }
    let before = net.switch().export();
    let refusal = net.switch().refusal("BridgeSet", json!({ "name": "br0", "fdb_limit": 4 }));
    assert!(refusal.contains("br0") && refusal.contains("5 static entries"), "{refusal}");
    assert_eq!(net.switch().export(), before);
    assert!(net.switch().change("BridgeSet", json!({ "name": "br0", "fdb_limit": 5 })));
    assert_eq!(net.switch().fdb().len(), 5);
}

#[test]
fn two_workers_share_what_they_learn() {
    let mut net = Network::with(1, 2, |_| Caps::ALL);
    net.switch().bridge(json!({}), &[json!({}), json!({}), json!({})]);
    let put = |net: &mut Network, port: &str, queue, f: &[u8]| {
        net.switch().end(port, queue).send(f, Offload::NONE);
        net.run().into_iter().map(|(_, port, _)| port).collect::<Vec<_>>()
    };
    assert_eq!(put(&mut net, "p0", 0, &frame(ALL, 1)), ["p1", "p2"]);
    assert_eq!(put(&mut net, "p1", 1, &frame(1, 2)), ["p0"], "learned by worker 0, used by worker 1");
    assert_eq!(put(&mut net, "p0", 0, &frame(2, 1)), ["p1"], "and the other way round");
    put(&mut net, "p2", 1, &frame(ALL, 1));
    assert_eq!(put(&mut net, "p1", 0, &frame(1, 2)), ["p2"], "a move seen by worker 1 counts for worker 0");
    assert_eq!(net.switch().fdb().len(), 2);
}

#[test]
fn a_second_worker_sends_by_its_own_queue() {
    let mut net = Network::with(1, 2, |_| Caps::ALL);
    net.switch().bridge(json!({}), &[json!({}), json!({})]);
    for queue in [0, 1] {
        net.switch().end("p0", queue).send(&frame(ALL, 1), Offload::NONE);
        net.switch().engine.run_inline();
        assert_eq!(net.switch().end("p1", queue).drain().len(), 1);
        assert_eq!(net.switch().end("p1", 1 - queue).drain().len(), 0);
    }
}

#[test]
fn mac_limit_stops_learning_and_not_frames() {
    let mut net = Network::single(json!({ "ageing": "10s" }), &[json!({ "mac_limit": 2 }), json!({})]);
    for n in 1..=5 {
        assert_eq!(net.outputs("p0", &frame(ALL, n)), ["p1"]);
    }
    assert_eq!(net.switch().fdb().len(), 2);
    net.outputs("p1", &frame(ALL, 9));
    assert_eq!(net.switch().place(9).as_deref(), Some("p1"));
    net.outputs("p0", &frame(ALL, 9));
    assert_eq!(net.switch().place(9).as_deref(), Some("p1"), "nothing moves to a port at its limit either");
    net.pass(13);
    net.outputs("p0", &frame(ALL, 5));
    assert_eq!(net.switch().place(5).as_deref(), Some("p0"), "room again");
}

#[test]
fn a_flush_forgets_what_was_learned_in_its_scope_only() {
    let mut net = Network::single(json!({}), &[json!({}), json!({})]);
    net.outputs("p0", &frame(ALL, 1));
    net.outputs("p1", &frame(ALL, 2));
    net.outputs("p1", &sim::tagged(7, &frame(ALL, 3)));
    net.switch().change("FdbAdd", json!({ "mac": station(4), "bridge": "br0", "port": "p1" }));
    let flushed = net.switch().ask("FdbFlush", json!({ "port": "p1", "vlan": 0 })).unwrap();
    assert_eq!(flushed, tapway_dataplane::api::Reply::Flushed { flushed: 1 });
    let left: Vec<String> = net.switch().fdb().into_iter().map(|(_, mac, _)| mac).collect();
    assert_eq!(left, [station(1), station(4), station(3)]);
}

#[test]
fn time_is_what_ages_and_not_the_number_of_looks() {
    let mut net = Network::single(json!({ "ageing": "10s" }), &[json!({}), json!({})]);
    net.outputs("p1", &frame(ALL, 1));
    for _ in 0..100 {
        net.advance(Duration::from_millis(90));
        net.switch().engine.housekeep();
    }
    assert_eq!(net.switch().place(1).as_deref(), Some("p1"), "nine seconds, a hundred looks");
}
