//! Sites joined by tunnels: each a switch with hosts of its own, all of them on one underlay, in virtual time.

mod sim;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use proptest::prelude::*;
use serde_json::{Value, json};
use sim::{ALL, Arrived, Network, frame, mac, station, tagged};
use tapway_dataplane::{
    api::Reply,
    frame::{Caps, Checksum, Gso, GsoKind, Offload},
};

/// Sites of the mesh.
const SITES: usize = 8;

/// The address of a site on the underlay.
fn site(n: usize) -> String {
    format!("198.51.100.{}", n + 1)
}

/// What a tunnel needs at site `n` of `sites`, all others being its remotes.
fn mesh_port(n: usize, sites: usize, more: Value) -> Value {
    let remotes: Vec<_> = (0..sites).filter(|&other| other != n).map(site).collect();
    with(
        json!({ "name": "overlay", "bridge": "br0", "type": "vxlan", "local": site(n), "remote": remotes }),
        more,
    )
}

/// Settings with others over them.
fn with(mut settings: Value, more: Value) -> Value {
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

/// Sites with two hosts each, `p0` and `p1`, in a full mesh of VXLAN.
fn mesh(sites: usize) -> Network {
    let mut net = Network::new(sites);
    for n in 0..sites {
        net.switches[n].bridge(json!({}), &[json!({}), json!({})]);
        net.switches[n].change("PortAdd", mesh_port(n, sites, json!({ "vni": 1010 })));
    }
    net
}

/// Counts what is sent over the underlay.
fn count(net: &Network) -> Arc<AtomicUsize> {
    let sent = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&sent);
    net.underlay.set_loss(move |_| {
        seen.fetch_add(1, Relaxed);
        false
    });
    sent
}

/// Where frames came out, as `site/port`.
fn at(arrived: &[Arrived]) -> Vec<String> {
    arrived.iter().map(|(switch, port, _)| format!("{switch}/{port}")).collect()
}

/// All hosts of these sites but one.
fn all_but(sites: impl Iterator<Item = usize>, but: &str) -> Vec<String> {
    sites.flat_map(|s| [format!("{s}/p0"), format!("{s}/p1")]).filter(|place| place != but).collect()
}

#[test]
fn in_a_full_mesh_a_flooded_frame_comes_to_every_site_once_and_never_back() {
    let mut net = mesh(SITES);
    let sent = count(&net);
    for from in 0..SITES {
        for to in [ALL, 99] {
            sent.store(0, Relaxed);
            let arrived = net.send(from, "p0", &frame(to, from as u8));
            assert_eq!(at(&arrived), all_but(0..SITES, &format!("{from}/p0")));
            assert!(arrived.iter().all(|(.., octets)| *octets == frame(to, from as u8)));
            assert_eq!(sent.load(Relaxed), SITES - 1, "each site is sent one copy, and sends none on");
        }
    }
    for switch in &mut net.switches {
        assert!(switch.drops("overlay").is_empty());
    }
}

#[test]
fn a_known_station_is_sent_to_at_its_site_alone() {
    let mut net = mesh(SITES);
    for n in 0..SITES {
        net.send(n, "p0", &frame(ALL, n as u8 + 1));
    }
    let sent = count(&net);
    for from in 0..SITES {
        for to in (0..SITES).filter(|&to| to != from) {
            sent.store(0, Relaxed);
            let f = frame(to as u8 + 1, from as u8 + 1);
            assert_eq!(net.send(from, "p0", &f), [(to, "p0".to_owned(), f.clone())]);
            assert_eq!(sent.load(Relaxed), 1);
        }
    }
    let learned = net.switch().entries().into_iter().find(|e| e.mac.to_string() == station(3)).unwrap();
    assert_eq!((learned.port.as_str(), learned.remote.unwrap().to_string()), ("overlay", site(2)));
}

#[test]
fn a_machine_that_moves_is_followed_by_every_site_from_its_first_frame_on() {
    let mut net = mesh(SITES);
    for n in 0..SITES {
        net.send(n, "p0", &frame(ALL, n as u8 + 1));
    }
    let vm = 0x77;
    for (home, port) in [(2, "p1"), (5, "p1"), (0, "p1"), (7, "p0"), (2, "p1")] {
        net.pass(2);
        net.send(home, port, &frame(ALL, vm));
        for from in (0..SITES).filter(|&from| from != home) {
            let arrived = net.send(from, "p0", &frame(vm, from as u8 + 1));
            assert_eq!(at(&arrived), [format!("{home}/{port}")], "from {from}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Stations that say so when they move, by a broadcast, are reached where they are, and nothing comes twice or where it should not.
    #[test]
    fn whoever_moves_wherever_every_frame_goes_where_its_station_is(
        frames in prop::collection::vec((0u8..6, 0..4usize, 0..2usize, 0u8..8), 1..40),
    ) {
        const MESH: usize = 4;
        let mut net = mesh(MESH);
        for switch in &mut net.switches {
            switch.change("BridgeSet", json!({ "name": "br0", "ageing": "3600s" }));
        }
        let mut places: [Option<(usize, usize)>; 8] = [None; 8];
        for (from, site, port, to) in frames {
            // Who has not moved far speaks from where it is.
            let place = match places[usize::from(from)] {
                Some(place) if to % 2 == 1 => place,
                _ => (site, port),
            };
            let moved = places[usize::from(from)] != Some(place);
            if moved {
                // Five moves in three minutes would be too many to follow.
                net.advance(Duration::from_secs(50));
                places[usize::from(from)] = Some(place);
            }
            let here = format!("{}/p{}", place.0, place.1);
            let known = if moved { None } else { places[usize::from(to)] };
            let f = frame(if moved { ALL } else { to }, from);
            let arrived = at(&net.send(place.0, &format!("p{}", place.1), &f));
            match known {
                Some(to) if to == place => prop_assert!(arrived.is_empty(), "{arrived:?}"),
                Some((site, port)) => prop_assert_eq!(arrived, [format!("{site}/p{port}")]),
                None => prop_assert_eq!(arrived, all_but(0..MESH, &here)),
            }
        }
    }
}

#[test]
fn networks_with_the_same_addresses_in_them_do_not_touch() {
    let mut net = Network::new(3);
    for n in 0..3 {
        let switch = &mut net.switches[n];
        for (bridge, port, tunnel, vni) in [("red", "p0", "to-red", 1), ("blue", "p1", "to-blue", 2)] {
            switch.change("BridgeAdd", json!({ "name": bridge }));
            switch.change("PortAdd", json!({ "name": port, "bridge": bridge }));
            // One endpoint for both: the VNI alone tells them apart.
            let more = json!({ "name": tunnel, "bridge": bridge, "vni": vni });
            switch.change("PortAdd", mesh_port(n, 3, more));
        }
    }
    for port in ["p0", "p1"] {
        assert_eq!(at(&net.send(0, port, &frame(ALL, 1))), [format!("1/{port}"), format!("2/{port}")]);
    }
    // Station 9 is at site 1 in one network and at site 2 in the other.
    net.send(1, "p0", &frame(ALL, 9));
    net.send(2, "p1", &frame(ALL, 9));
    assert_eq!(at(&net.send(0, "p0", &frame(9, 1))), ["1/p0"]);
    assert_eq!(at(&net.send(0, "p1", &frame(9, 1))), ["2/p1"]);
    // A network that only two sites have is nobody's at the third.
    net.switches[2].change("PortDel", json!({ "name": "to-blue" }));
    assert_eq!(at(&net.send(0, "p1", &frame(ALL, 1))), ["1/p1"]);
    assert_eq!(net.switches[2].all_drops()["vni_unknown"], 1);
}

#[test]
fn vlans_travel_in_networks_of_their_own_and_the_rest_in_another() {
    let mut net = Network::new(2);
    let vlan_vni = json!({ "10": 1010, "20": 2020 });
    for n in 0..2 {
        // Each site has its own idea of how its hosts tag.
        let ports = [
            [json!({ "access": 10 }), json!({ "access": 20 }), json!({ "trunk": "10,20,30" })],
            [json!({ "trunk": "10", "native": 20 }), json!({ "access": 30 }), json!({ "access": 10 })],
        ];
        net.switches[n].bridge(json!({}), &ports[n]);
        net.switches[n].change("PortAdd", mesh_port(n, 2, json!({ "vni": 7, "vlan_vni": vlan_vni })));
    }
    let f = frame(ALL, 1);
    let (ten, thirty) = (tagged(10, &f), tagged(30, &f));
    let here = |port: &str, octets: &Vec<u8>| (0, port.to_owned(), octets.clone());
    let there = |port: &str, octets: &Vec<u8>| (1, port.to_owned(), octets.clone());
    assert_eq!(net.send(0, "p0", &f), [here("p2", &ten), there("p0", &ten), there("p2", &f)]);
    assert_eq!(net.send(0, "p1", &f), [here("p2", &tagged(20, &f)), there("p0", &f)]);
    assert_eq!(net.send(0, "p2", &thirty), [there("p1", &f)], "the VNI of the rest, its tag inside");
    assert_eq!(net.send(1, "p1", &f), [here("p2", &thirty)]);
    assert_eq!(net.send(1, "p0", &f), [here("p1", &f), here("p2", &tagged(20, &f))]);
}

#[test]
fn sites_come_and_go_under_traffic_and_what_was_learned_goes_with_them() {
    let mut net = mesh(4);
    for n in 0..4 {
        net.send(n, "p0", &frame(ALL, n as u8 + 1));
    }
    let remote = |n| json!({ "port": "overlay", "remote": site(n) });
    net.switches[0].change("RemoteDel", remote(3));
    assert_eq!(net.switch().place(4), None, "who was behind it is unknown again");
    assert_eq!(net.switch().place(2).as_deref(), Some("overlay"), "the others are not");
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), all_but(0..3, "0/p0"));
    assert_eq!(at(&net.send(0, "p0", &frame(3, 1))), ["2/p0"]);
    net.switches[0].change("RemoteAdd", remote(3));
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), all_but(0..4, "0/p0"));
    // Twice is not two copies.
    assert!(!net.switches[0].change("RemoteAdd", remote(3)));
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), all_but(0..4, "0/p0"));
}

/// An IPv4 packet of `len` octets with DF, from one station to another.
fn packet(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut header = [&[0x45, 0][..], &(len as u16).to_be_bytes(), &[0, 1, 0x40, 0, 64, 253, 0, 0]].concat();
    header.extend([203, 0, 113, from, 203, 0, 113, to]);
    let sum: u32 = header.as_chunks::<2>().0.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&mac(to)[..], &mac(from), &[8, 0], &header, &vec![0xaa; len - 20]].concat()
}

#[test]
fn when_a_path_becomes_narrow_senders_are_told_and_smaller_packets_pass() {
    let mut net = mesh(2);
    net.send(1, "p0", &frame(ALL, 2));
    assert_eq!(at(&net.send(0, "p0", &packet(2, 1, 1450))), ["1/p0"]);
    net.underlay.set_mtu(1400);
    // The first to meet it is lost, and the switch asks how long a packet may be.
    assert_eq!(net.send(0, "p0", &packet(2, 1, 1450)), []);
    assert_eq!(net.switch().dropped("overlay", "tunnel_mtu_exceeded"), 1);
    net.pass(1);
    let [(0, port, message)] = &net.send(0, "p0", &packet(2, 1, 1450))[..] else { panic!("no message") };
    assert_eq!((port.as_str(), &message[..12]), ("p0", &[mac(1), mac(2)].concat()[..]));
    let told = u16::from_be_bytes([message[40], message[41]]);
    assert_eq!((&message[34..36], told), (&[3, 4][..], 1350), "fragmentation needed");
    assert_eq!(net.switch().dropped("overlay", "tunnel_mtu_exceeded"), 2);
    assert_eq!(at(&net.send(0, "p0", &packet(2, 1, told.into()))), ["1/p0"]);
    // And wide again.
    net.underlay.set_mtu(1500);
    net.pass(600);
    net.send(1, "p0", &frame(ALL, 2));
    assert_eq!(at(&net.send(0, "p0", &packet(2, 1, 1450))), ["1/p0"]);
}

#[test]
fn two_tunnels_of_one_bridge_do_not_feed_each_other() {
    // Site 0 is in two meshes; sites 1 and 2 in one each.
    let mut net = Network::new(3);
    for n in 0..3 {
        net.switches[n].bridge(json!({}), &[json!({}), json!({})]);
    }
    let tunnel = |name: &str, from, to, vni| {
        let mut spec = mesh_port(from, 0, json!({ "name": name, "vni": vni }));
        spec["remote"] = json!([site(to)]);
        spec
    };
    net.switches[0].change("PortAdd", tunnel("a", 0, 1, 1));
    net.switches[0].change("PortAdd", tunnel("b", 0, 2, 2));
    net.switches[1].change("PortAdd", tunnel("overlay", 1, 0, 1));
    net.switches[2].change("PortAdd", tunnel("overlay", 2, 0, 2));
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), all_but(0..3, "0/p0"));
    assert_eq!(at(&net.send(1, "p0", &frame(ALL, 2))), ["0/p0", "0/p1", "1/p1"]);
    net.send(2, "p0", &frame(ALL, 3));
    assert_eq!(net.send(1, "p0", &frame(3, 2)), [(1, "p1".to_owned(), frame(3, 2))], "unknown at site 1");
    assert_eq!(net.switch().dropped("a", "split_horizon"), 1, "and known at site 0, behind the other tunnel");
    assert_eq!(at(&net.send(0, "p0", &frame(3, 1))), ["2/p0"]);
}

#[test]
fn a_group_reaches_its_members_once_and_known_stations_are_sent_to_alone() {
    let mut net = Network::new(4);
    for n in 0..4 {
        net.switches[n].bridge(json!({}), &[json!({}), json!({})]);
        let more = json!({ "vni": 7, "group": "239.1.1.1", "underlay_dev": "eth0" });
        let mut spec = mesh_port(n, 0, more);
        if n == 3 {
            spec["group"] = json!("239.1.1.2");
        }
        net.switches[n].change("PortAdd", spec);
    }
    let sent = count(&net);
    for n in 0..3 {
        sent.store(0, Relaxed);
        assert_eq!(at(&net.send(n, "p0", &frame(ALL, n as u8 + 1))), all_but(0..3, &format!("{n}/p0")));
        assert_eq!(sent.load(Relaxed), 1, "the underlay makes the copies");
    }
    assert_eq!(at(&net.send(0, "p0", &frame(3, 1))), ["2/p0"]);
    let learned = net.switch().entries().into_iter().find(|e| e.mac.to_string() == station(3)).unwrap();
    assert_eq!(learned.remote.unwrap().to_string(), site(2), "behind who sent it, not behind the group");
    match net.switches[0].ask("RemoteList", json!({ "port": "overlay" })).unwrap() {
        Reply::Remotes { remotes } => {
            let heard: Vec<_> = remotes.iter().map(|r| (r.remote.to_string(), r.learned)).collect();
            assert_eq!(heard, [(site(1), Some(1)), (site(2), Some(1))], "no settings name them");
        }
        other => panic!("RemoteList answered {other:?}"),
    }
    // A member that leaves gets nothing more, and one that comes back gets everything once.
    let spec = mesh_port(2, 0, json!({ "vni": 7, "group": "239.1.1.1", "underlay_dev": "eth0" }));
    net.switches[2].change("PortDel", json!({ "name": "overlay" }));
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), all_but(0..2, "0/p0"));
    net.switches[2].change("PortAdd", spec);
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), all_but(0..3, "0/p0"));
}

#[test]
fn a_network_gets_another_number_on_live_traffic() {
    let mut net = mesh(2);
    net.send(1, "p0", &frame(ALL, 2));
    for n in 0..2 {
        let set = json!({ "name": "overlay", "vni": 2020 });
        net.switches[n].change("PortSet", set);
        if n == 0 {
            // Half way: what the one end sends is no network of the other.
            assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), ["0/p1"]);
            assert_eq!(net.switches[1].all_drops()["vni_unknown"], 1);
            assert_eq!(
                net.switches[0].place(2),
                None,
                "who was heard in the old network is not in the new one"
            );
        }
    }
    assert_eq!(at(&net.send(0, "p0", &frame(ALL, 1))), all_but(0..2, "0/p0"));
    assert_eq!(at(&net.send(1, "p0", &frame(1, 2))), ["0/p0"]);
}

#[test]
fn a_known_neighbour_costs_the_underlay_nothing() {
    let mut net = mesh(3);
    let sent = count(&net);
    let question = |target: u8| {
        let message =
            [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac(1), &[203, 0, 113, 1], &[0; 6], &[203, 0, 113, target]];
        [&mac(ALL)[..], &mac(1), &[8, 6], &message.concat()].concat()
    };
    let neigh = json!({ "ip": "203.0.113.7", "mac": station(7), "bridge": "br0" });
    net.switches[0].change("NeighAdd", neigh);
    let arrived = net.send(0, "p0", &question(7));
    let [(0, port, answer)] = &arrived[..] else { panic!("{arrived:?}") };
    assert_eq!((port.as_str(), &answer[..12]), ("p0", &[mac(1), mac(7)].concat()[..]));
    assert_eq!(sent.load(Relaxed), 0);
    // A question from another site is answered back to that site, and no other.
    let arrived = net.send(1, "p0", &question(7));
    let answers: Vec<_> = arrived.iter().filter(|(.., octets)| octets[6..12] == mac(7)).collect();
    assert_eq!(at(&answers.into_iter().cloned().collect::<Vec<_>>()), ["1/p0"]);
    assert_eq!(at(&net.send(0, "p0", &question(8))), all_but(0..3, "0/p0"));
}

#[test]
fn what_comes_faster_than_it_is_taken_is_counted() {
    let mut net = mesh(2);
    net.underlay.set_depth(10);
    for n in 0..30 {
        assert!(net.switches[0].end("p0", 0).send(&frame(ALL, n + 1), Offload::NONE));
    }
    let arrived = net.run();
    assert_eq!(arrived.iter().filter(|(switch, port, _)| (*switch, &**port) == (1, "p0")).count(), 10);
    assert_eq!(net.switches[1].all_drops(), [("underlay_overflow".to_owned(), 20)].into());
}

#[test]
fn a_super_frame_is_one_again_at_the_other_site() {
    for trains in [false, true] {
        let mut net = Network::with(2, 1, |_| Caps::ALL);
        for n in 0..2 {
            net.switches[n].bridge(json!({}), &[json!({})]);
            net.switches[n].change("PortAdd", mesh_port(n, 2, json!({ "vni": 7 })));
        }
        net.underlay.deliver_trains(trains);
        let (f, offload) = super_frame(30_000, 1398);
        assert!(net.switches[0].end("p0", 0).send(&f, offload));
        while net.underlay.waiting() > 0 || !net.switches[0].end("p0", 0).drain().is_empty() {
            net.switches.iter_mut().for_each(|s| s.engine.run_inline());
        }
        net.switches.iter_mut().for_each(|s| s.engine.run_inline());
        net.switches.iter_mut().for_each(|s| s.engine.run_inline());
        let arrived = net.switches[1].end("p0", 0).drain();
        assert_eq!(arrived.len(), 1, "trains {trains}");
        assert_eq!(arrived[0], (f, offload));
    }
}

/// An IPv4 TCP super-frame, its checksum partial.
fn super_frame(payload: usize, size: u16) -> (Vec<u8>, Offload) {
    let len = payload + 40;
    let mut f = packet(ALL, 1, len);
    f[23] = 6;
    let transport = [0x10, 0, 0x10, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
    f[34..54].copy_from_slice(&transport);
    let sum = |octets: &[u8]| {
        let sum: u32 = octets.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    };
    f[24..26].fill(0);
    let header = !sum(&f[14..34]);
    f[24..26].copy_from_slice(&header.to_be_bytes());
    let pseudo = [&f[26..34], &[0, 6], &(len as u16 - 20).to_be_bytes()].concat();
    let pseudo = sum(&pseudo);
    f[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let gso = Gso { kind: GsoKind::TcpV4, size, hdr_len: 54, ecn: false };
    (f, Offload { csum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) })
}
