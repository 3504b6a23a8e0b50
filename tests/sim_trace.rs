//! For any ports and any frames: what `trace` says is what happens, and no frame is lost without being counted once.

mod sim;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use sim::Network;
use tapway_dataplane::{
    counters::DropReason,
    frame::{Caps, MAX_FRAME},
};

/// VLANs, in which ports and frames meet often enough.
const VLANS: [u16; 3] = [10, 20, 30];

fn vlan() -> impl Strategy<Value = u16> {
    select(&VLANS[..])
}

fn port() -> impl Strategy<Value = Value> {
    let mode = prop_oneof![
        Just(json!({})),
        vlan().prop_map(|v| json!({ "access": v })),
        Just(json!({ "trunk": "all" })),
        (vlan(), vlan()).prop_map(|(a, b)| json!({ "trunk": [a, b] })),
        (vlan(), vlan()).prop_map(|(list, native)| json!({ "trunk": list, "native": native })),
        vlan().prop_map(|v| json!({ "qinq": v })),
    ];
    // Off more often than on, or nothing passes.
    let flag = || prop::bool::weighted(0.15);
    let flags = (flag(), flag(), flag(), flag(), flag(), flag(), flag(), flag());
    let more = (select(&[0u32, 0, 1, 3][..]), select(&[1500u32, 1500, 68][..]), flag());
    (mode, flags, more).prop_map(|(mut port, flags, (mac_limit, mtu, secure))| {
        let (no_learning, no_flood, no_broadcast, no_multicast, hairpin, isolated, locked, down) = flags;
        let all = port.as_object_mut().unwrap();
        all.insert("learning".into(), json!(!no_learning));
        all.insert("flood".into(), json!(!no_flood));
        all.insert("bcast_flood".into(), json!(!no_broadcast));
        all.insert("mcast_flood".into(), json!(!no_multicast));
        all.insert("hairpin".into(), json!(hairpin));
        all.insert("isolated".into(), json!(isolated));
        all.insert("locked".into(), json!(locked));
        all.insert("admin".into(), json!(if down { "down" } else { "up" }));
        all.insert("mac_limit".into(), json!(mac_limit));
        all.insert("mtu".into(), json!(mtu));
        if secure {
            all.insert("secure".into(), json!("mac=02:00:00:00:00:01"));
        }
        port
    })
}

fn address() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![
        8 => (1..6u8).prop_map(sim::mac),
        2 => Just(sim::mac(sim::ALL)),
        1 => Just([1, 0, 0x5e, 0, 0, 1]),
        1 => Just([1, 0x80, 0xc2, 0, 0, 0]),
        1 => Just([0; 6]),
    ]
}

fn tag() -> impl Strategy<Value = [u8; 4]> {
    let vid = prop_oneof![6 => vlan(), 1 => Just(0), 1 => Just(0xfff), 1 => Just(77)];
    (select(&[[0x81, 0], [0x88, 0xa8]][..]), vid, 0..8u8)
        .prop_map(|([a, b], vid, pcp)| [a, b, (vid >> 8) as u8 | pcp << 5, vid as u8])
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let rest = prop_oneof![Just(vec![0x88, 0xb5]), Just(vec![8, 6]), vec(any::<u8>(), 0..30)];
    let long = select(&[0usize, 46, 46, 80, 1600][..]);
    let whole =
        (address(), address(), vec(tag(), 0..3), rest, long).prop_map(|(to, from, tags, rest, long)| {
            [&to[..], &from, tags.as_flattened(), &rest, &vec![0x55; long]].concat()
        });
    prop_oneof![20 => whole, 1 => vec(any::<u8>(), 0..80)]
}

/// Frames of all ports together that were received, sent, and dropped on the way in and on the way out.
fn counted(net: &mut Network) -> [u64; 4] {
    let mut sum = [0; 4];
    for port in net.switch().engine.snapshot().ports.iter().flatten() {
        let totals = port.stats.total();
        sum[0] += totals.rx_frames;
        sum[1] += totals.tx_frames;
        for (reason, n) in totals.drops() {
            let out = reason.side() == tapway_dataplane::counters::Side::Egress;
            sum[2 + usize::from(out)] += n;
        }
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_trace_says_happens_and_every_frame_is_sent_or_counted(
        ports in vec(port(), 1..6),
        entries in vec((1..6u8, select(&[0, 10, 20, 30][..]), 0..6usize, any::<bool>()), 0..4),
        frames in vec((0..6usize, frame()), 1..40),
    ) {
        let mut net = Network::with(1, 1, |name| if name == "p1" { Caps::NONE } else { Caps::ALL });
        net.switch().bridge(json!({ "fdb_limit": 64 }), &ports);
        for (station, vlan, port, sticky) in entries {
            let port = format!("p{}", port % ports.len());
            let entry = json!({
                "mac": sim::station(station), "bridge": "br0", "vlan": vlan, "port": port, "sticky": sticky,
            });
            let _ = net.switch().ask("FdbAdd", entry);
        }
        for (from, frame) in &frames {
            let from = format!("p{}", from % ports.len());
            let (before, fdb) = (counted(&mut net), net.switch().fdb());
            let trace = net.switch().trace(&from, frame);
            prop_assert_eq!(counted(&mut net), before, "a trace counts nothing");
            prop_assert_eq!(net.switch().fdb(), fdb, "a trace learns nothing");

            let arrived = net.send(0, &from, frame);
            let after = counted(&mut net);
            let [rx, tx, ingress, egress] = [0, 1, 2, 3].map(|n| after[n] - before[n]);
            let mut said: Vec<(String, bool)> =
                trace.outputs.iter().map(|o| (o.port.to_string(), o.tagged)).collect();
            said.sort();
            let came: Vec<&str> = arrived.iter().map(|(_, port, _)| port.as_str()).collect();
            prop_assert_eq!(said.iter().map(|(p, _)| p.as_str()).collect::<Vec<_>>(), came, "{:?}", trace);
            for ((port, tagged), (_, _, octets)) in said.iter().zip(&arrived) {
                let wears = octets[12..14] == [0x81, 0] || octets[12..14] == [0x88, 0xa8];
                prop_assert!(wears || !tagged, "{} should leave {} with a tag", from, port);
            }
            prop_assert_eq!((rx, tx), (1, arrived.len() as u64));
            // Dropped on the way in, once, or sent, or each copy dropped on the way out.
            prop_assert_eq!(ingress, u64::from(tx + egress == 0), "{:?}", trace);
            match (trace.verdict.as_str(), &trace.reason) {
                ("drop", Some(reason)) => {
                    prop_assert_eq!(tx, 0);
                    let ports: Vec<String> = (0..ports.len()).map(|n| format!("p{n}")).collect();
                    prop_assert!(ports.iter().any(|p| net.switch().dropped(p, reason) > 0), "{}", reason);
                    prop_assert!(DropReason::ALL.iter().any(|r| r.name() == reason));
                }
                ("forward", None) => prop_assert_eq!(tx, 1),
                ("flood", None) => prop_assert!(tx >= 1),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

#[test]
fn a_trace_says_that_the_address_limit_would_stop_learning() {
    let mut net = Network::single(json!({}), &[json!({ "mac_limit": 1 }), json!({})]);
    net.outputs("p0", &sim::frame(sim::ALL, 1));
    let trace = net.switch().trace("p0", &sim::frame(2, 2));
    let learn = trace.steps.iter().find(|s| s.step == "learn").unwrap();
    assert!(learn.detail.contains("--mac-limit"), "{learn:?}");
    assert_eq!((trace.verdict.as_str(), trace.outputs.len()), ("flood", 1));
}

#[test]
fn a_frame_to_its_own_sender_goes_nowhere_and_the_trace_knows() {
    let mut net = Network::single(json!({}), &[json!({}), json!({})]);
    let trace = net.switch().trace("p0", &sim::frame(1, 1));
    assert_eq!(trace.reason.as_deref(), Some("same_port"));
    assert_eq!(net.outputs("p0", &sim::frame(1, 1)), [""; 0]);
}

#[test]
fn the_longest_frame_is_traced_and_one_octet_more_is_none() {
    let mut net = Network::single(json!({}), &[json!({}), json!({})]);
    let longest = [sim::frame(2, 1), vec![0; MAX_FRAME - 60]].concat();
    assert_eq!(net.switch().trace("p0", &longest).reason.as_deref(), Some("mtu_exceeded"));
    let giant = [longest, vec![0]].concat();
    let refusal = net
        .switch()
        .refusal("Trace", json!({ "port": "p0", "frame": tapway_dataplane::api::hex::encode(&giant) }));
    assert!(refusal.contains("more than a frame can have"), "{refusal}");
    assert_eq!(net.outputs("p0", &giant), [""; 0]);
    assert_eq!(net.switch().dropped("p0", "giant"), 1);
}
