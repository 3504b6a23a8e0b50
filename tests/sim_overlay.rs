//! What the control thread makes of tunnels, their remotes and neighbours: all of a change or nothing, and a refusal that says why.

mod sim;

use serde_json::json;
use sim::{Network, station};
use tapway_dataplane::api::{NeighView, PortView, RemoteView, Reply};

fn tunnel(more: serde_json::Value) -> serde_json::Value {
    let mut all = json!({ "type": "vxlan", "vni": 7, "local": "198.51.100.1" });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn remotes(net: &mut Network, port: &str) -> Vec<RemoteView> {
    match net.switch().ask("RemoteList", json!({ "port": port })).unwrap() {
        Reply::Remotes { remotes } => remotes,
        other => panic!("RemoteList answered {other:?}"),
    }
}

fn neighbours(net: &mut Network) -> Vec<NeighView> {
    match net.switch().ask("NeighList", json!({})).unwrap() {
        Reply::Neighbours { neighbours } => neighbours,
        other => panic!("NeighList answered {other:?}"),
    }
}

fn show(net: &mut Network, port: &str) -> PortView {
    match net.switch().ask("PortShow", json!({ "name": port })).unwrap() {
        Reply::Port { port } => *port,
        other => panic!("PortShow answered {other:?}"),
    }
}

#[test]
fn remotes_are_settings_of_their_port() {
    let mut net = Network::single(json!({}), &[tunnel(json!({ "remote": ["198.51.100.3"] })), json!({})]);
    let remote = |port: &str, remote: &str| json!({ "port": port, "remote": remote });
    assert!(net.switch().change("RemoteAdd", remote("p0", "198.51.100.2")));
    assert!(!net.switch().change("RemoteAdd", remote("p0", "198.51.100.2")));
    let all: Vec<_> = remotes(&mut net, "p0").iter().map(|r| r.remote.to_string()).collect();
    assert_eq!(all, ["198.51.100.2", "198.51.100.3"]);
    assert!(net.switch().export().contains("remote = [\"198.51.100.3\", \"198.51.100.2\"]"));
    assert!(net.switch().change("RemoteDel", remote("p0", "198.51.100.3")));
    assert_eq!(remotes(&mut net, "p0").len(), 1);

    let s = net.switch();
    for (method, port, ip, why) in [
        ("RemoteDel", "p0", "198.51.100.3", "remote \"198.51.100.3 of port p0\" does not exist"),
        ("RemoteAdd", "p0", "2001:db8::2", "of another family than local, 198.51.100.1"),
        ("RemoteAdd", "p0", "198.51.100.1", "is the local address"),
        ("RemoteAdd", "p0", "239.1.1.1", "not the address of a host"),
        ("RemoteAdd", "p1", "198.51.100.2", "it is of type tap and has no remotes"),
        ("RemoteDel", "p9", "198.51.100.2", "port \"p9\" does not exist"),
    ] {
        let refusal = s.refusal(method, remote(port, ip));
        assert!(refusal.contains(why), "{method} {port} {ip}: {refusal}");
    }
    assert_eq!(remotes(&mut net, "p0").len(), 1);
}

#[test]
fn a_tunnel_shows_what_is_in_force_and_other_ports_nothing_of_it() {
    let more = json!({ "learning": false, "vlan_vni": { "20": 1020, "10": 1010 }, "ttl": 9 });
    let mut net = Network::single(json!({}), &[tunnel(more), json!({})]);
    let port = show(&mut net, "p0");
    assert_eq!((port.ifname, port.persist), (None, None));
    assert_eq!(port.tunnel.vlan_vni.to_string(), "10=1010,20=1020");
    assert_eq!((port.tunnel.dst_port, port.tunnel.remotes), (Some(4789), Some(vec![])));
    assert!(port.tunnel.remote_check.unwrap().0, "who may send is not learned");
    assert_eq!(port.tunnel.ttl.unwrap().to_string(), "9");
    let tap = show(&mut net, "p1");
    assert!(tap.ifname.is_some() && tap.persist.is_some() && tap.tunnel == Default::default());
}

#[test]
fn a_tunnel_is_set_on_live_traffic_but_for_its_sockets() {
    let mut net = Network::single(json!({}), &[tunnel(json!({ "remote": ["198.51.100.2"] }))]);
    let s = net.switch();
    assert!(s.change("PortSet", json!({ "name": "p0", "vni": 8, "tos": "inherit", "udp_csum": false })));
    assert!(
        s.change("PortSet", json!({ "name": "p0", "vlan_vni": { "10": 1010 }, "unset": ["vni", "remote"] }))
    );
    let refusal = s.refusal("PortSet", json!({ "name": "p0", "local": "198.51.100.9" }));
    assert!(refusal.contains("local: 198.51.100.1 -> 198.51.100.9 cannot be changed"), "{refusal}");
    let refusal = s.refusal("PortSet", json!({ "name": "p0", "unset": ["vlan-vni"] }));
    assert!(refusal.contains("vni is missing: a tunnel needs vni, vlan_vni or both"), "{refusal}");
    let refusal = s.refusal("PortSet", json!({ "name": "p0", "access": 5 }));
    assert!(refusal.contains("access and vlan_vni exclude each other"), "{refusal}");
    assert_eq!(show(&mut net, "p0").tunnel.vlan_vni.to_string(), "10=1010");
}

#[test]
fn a_network_belongs_to_one_tunnel_of_an_address() {
    let mut net = Network::single(json!({}), &[tunnel(json!({})), tunnel(json!({ "vni": 8 }))]);
    let s = net.switch();
    let refusal = s.refusal("PortSet", json!({ "name": "p1", "vni": 7 }));
    assert!(refusal.contains("VNI 7 at 198.51.100.1 port 4789 is that of port \"p0\""), "{refusal}");
    let more = json!({ "name": "p2", "bridge": "br0", "type": "geneve", "dst_port": 4789 });
    let mut spec = tunnel(json!({}));
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let refusal = s.refusal("PortAdd", spec);
    assert!(refusal.contains("is that of port \"p0\", which is of another type"), "{refusal}");
    let entry = |port: &str, remote: &str| json!({ "mac": station(1), "bridge": "br0", "port": port, "remote": remote });
    let refusal = s.refusal("FdbAdd", entry("p0", "2001:db8::2"));
    assert!(refusal.contains("of another family than local"), "{refusal}");
    s.change("PortAdd", json!({ "name": "p3", "bridge": "br0" }));
    let refusal = s.refusal("FdbAdd", entry("p3", "198.51.100.2"));
    assert!(refusal.contains("is behind a tunnel, and port \"p3\" is of type tap"), "{refusal}");

    let swapped = net
        .switch()
        .export()
        .replace("vni = 7", "vni = 9")
        .replace("vni = 8", "vni = 7")
        .replace("vni = 9", "vni = 8");
    assert_eq!(net.switch().apply(&swapped, true).unwrap(), ["- port p0", "~ port p1", "+ port p0"]);
    assert_eq!(net.switch().export(), swapped);
}

#[test]
fn a_neighbour_is_static_until_it_is_deleted() {
    let mut net = Network::single(json!({}), &[json!({})]);
    let neigh = |mac: &str| json!({ "ip": "198.51.100.7", "mac": mac, "bridge": "br0", "vlan": 10 });
    assert!(net.switch().change("NeighAdd", neigh(&station(7))));
    assert!(!net.switch().change("NeighAdd", neigh(&station(7))));
    let refusal = net.switch().refusal("NeighAdd", neigh(&station(8)));
    assert!(
        refusal.contains(&format!("mac: {} -> {}", station(7), station(8))) && refusal.contains("neigh del"),
        "{refusal}"
    );
    net.pass(5);
    let all = neighbours(&mut net);
    assert_eq!((all.len(), all[0].kind.as_str(), all[0].age_s), (1, "static", 5));
    assert_eq!(all[0].mac.to_string(), station(7), "as it was before the refusal");

    let s = net.switch();
    for (parameters, why) in [
        (
            json!({ "ip": "198.51.100.7", "mac": station(7), "bridge": "br9" }),
            "bridge \"br9\" does not exist",
        ),
        (json!({ "ip": "127.0.0.1", "mac": station(7), "bridge": "br0" }), "loopback"),
        (json!({ "ip": "198.51.100.7", "mac": "ff:ff:ff:ff:ff:ff", "bridge": "br0" }), "group address"),
        (json!({ "ip": "198.51.100.7", "mac": station(7), "bridge": "br0", "vlan": 4095 }), "0 to 4094"),
    ] {
        let refusal = s.refusal("NeighAdd", parameters);
        assert!(refusal.contains(why), "{refusal}");
    }
    let refusal = s.refusal("NeighDel", json!({ "ip": "198.51.100.7", "bridge": "br0" }));
    assert!(refusal.contains("neigh \"br0 vlan 0 198.51.100.7\" does not exist"), "{refusal}");
    assert!(s.change("NeighDel", json!({ "ip": "198.51.100.7", "bridge": "br0", "vlan": 10 })));
    assert_eq!(neighbours(&mut net), []);
}

#[test]
fn neighbours_of_a_topology_come_go_and_come_back_when_it_fails() {
    let mut net = Network::new(1);
    let file = "[[bridge]]\nname = \"br0\"\nneigh_snoop = true\n\n[[neigh]]\nip = \"198.51.100.7\"\nmac = \"02:00:00:00:00:07\"\nbridge = \"br0\"\nvlan = 0\n";
    assert_eq!(net.switch().apply(file, true).unwrap(), ["+ bridge br0", "+ neigh br0 vlan 0 198.51.100.7"]);
    assert_eq!(net.switch().export(), file);
    let moved = file.replace("00:07\"", "00:08\"").replace("snoop = true", "snoop = false");
    assert_eq!(
        net.switch().apply(&moved, true).unwrap(),
        ["~ bridge br0", "~ neigh br0 vlan 0 198.51.100.7"]
    );
    assert_eq!(net.switch().export(), moved);

    net.switch().refuse_to_open(0);
    let fails = "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"p0\"\nbridge = \"br0\"\n";
    assert!(net.switch().apply(fails, true).unwrap_err().to_string().contains("no more of these"));
    assert_eq!(net.switch().export(), moved);
    assert_eq!(net.switch().apply("", true).unwrap(), ["- neigh br0 vlan 0 198.51.100.7", "- bridge br0"]);
}
