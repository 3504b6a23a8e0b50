//! Ports.

use tapway_dataplane::{
    api::{PortView, TunnelView, VmView},
    config::{AdminState, PortType},
};

use super::stats::short;
use super::table::{Align, RED, Table, YELLOW, or_dash, pairs, words};

/// As much as fits a terminal of 80 columns; `port show` has the rest.
pub(crate) fn ports(ports: &[PortView]) -> String {
    let mut table = Table::new(&[
        ("PORT", Align::Left),
        ("BRIDGE", Align::Left),
        ("TYPE", Align::Left),
        ("IFNAME", Align::Left),
        ("NETNS", Align::Left),
        ("VLAN", Align::Left),
        ("STATE", Align::Left),
        ("RX", Align::Right),
        ("TX", Align::Right),
        ("DROPS", Align::Right),
    ]);
    for p in ports {
        let colour = match (p.admin, p.oper.as_str()) {
            (AdminState::Down, _) => Some(YELLOW),
            (AdminState::Up, "up") => None,
            (AdminState::Up, _) => Some(RED),
        };
        let cells = [
            p.name.to_string(),
            p.bridge.to_string(),
            kind(p),
            or_dash(p.ifname.as_ref()),
            or_dash(p.netns.as_ref()),
            networks(p).unwrap_or_else(|| vlan(p)),
            if p.admin == AdminState::Down { "admin-down".to_owned() } else { p.oper.clone() },
            short(p.rx.frames),
            short(p.tx.frames),
            short(p.drops.values().sum()),
        ];
        table.coloured(colour, cells);
    }
    table.text()
}

pub(crate) fn port(p: &PortView) -> String {
    let oper = match &p.reason {
        Some(reason) => format!("{}: {reason}", p.oper),
        None => p.oper.clone(),
    };
    let addresses: Vec<_> = p.address.iter().map(ToString::to_string).collect();
    let limit = |n: u32| if n == 0 { "none".to_owned() } else { n.to_string() };
    let traffic = |t: tapway_dataplane::api::Traffic| format!("{} frames, {} bytes", t.frames, t.bytes);
    let mut lines = vec![("name", p.name.to_string()), ("bridge", p.bridge.to_string()), ("type", kind(p))];
    if p.kind.has_interface() {
        lines.push(("ifname", or_dash(p.ifname.as_ref())));
    }
    lines.extend(vm(&p.vm));
    lines.extend([
        ("netns", or_dash(p.netns.as_ref())),
        ("mac", or_dash(p.mac.as_ref())),
        ("mtu", p.mtu.to_string()),
        ("address", words(&addresses)),
        ("admin", p.admin.to_string()),
        ("oper", oper),
        ("queues", p.queues.to_string()),
        ("offload", words(&p.offload)),
        ("persist", or_dash(p.persist.as_ref())),
        ("vlan", vlan(p)),
        ("learning", p.learning.to_string()),
        ("flood", p.flood.to_string()),
        ("bcast-flood", p.bcast_flood.to_string()),
        ("mcast-flood", p.mcast_flood.to_string()),
        ("hairpin", p.hairpin.to_string()),
        ("isolated", p.isolated.to_string()),
        ("locked", p.locked.to_string()),
        ("mac-limit", limit(p.mac_limit)),
        ("storm-limit", limit(p.storm_limit)),
        ("secure", or_dash(p.secure.as_ref())),
    ]);
    // What only an interface has says nothing of other ports, and what only ours can have nothing of others.
    let not_here: &[&str] = match p.kind {
        PortType::Tap => &[],
        PortType::Netdev => &["address", "persist"],
        PortType::Vxlan | PortType::Geneve => &["mac", "address", "persist"],
        PortType::Stream | PortType::Dgram | PortType::VhostUser => &["netns", "mac", "address", "persist"],
    };
    lines.retain(|(name, _)| !not_here.contains(name));
    if p.tunnel.local.is_some() {
        lines.extend(tunnel(&p.tunnel));
    }
    lines.extend([("macs", p.macs.to_string()), ("rx", traffic(p.rx)), ("tx", traffic(p.tx))]);
    let drops: Vec<_> = p.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    lines.push(("drops", if drops.is_empty() { "none".to_owned() } else { drops.join(", ") }));
    pairs(&lines)
}

/// How the other side is met, of a port whose other side something else opens.
fn vm(v: &VmView) -> Vec<(&'static str, String)> {
    let lines = [
        ("driver", v.driver.map(|driver| driver.to_string())),
        ("qdisc-bypass", v.qdisc_bypass.map(|on| on.to_string())),
        ("path", v.path.clone()),
        ("listen", v.listen.map(|on| on.to_string())),
        ("peer-path", v.peer_path.clone()),
        ("server", v.server.map(|on| on.to_string())),
    ];
    lines.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The settings of a tunnel, but for those that are not set, and what became of them.
fn tunnel(t: &TunnelView) -> Vec<(&'static str, String)> {
    fn all(list: &[impl ToString]) -> Option<String> {
        (!list.is_empty()).then(|| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }
    fn one(value: Option<&impl ToString>) -> Option<String> {
        value.map(ToString::to_string)
    }
    let bum_limit = t.bum_limit.map(|n| if n == 0 { "none".to_owned() } else { n.to_string() });
    let lines = [
        ("vni", one(t.vni.as_ref())),
        ("vlan-vni", (!t.vlan_vni.is_empty()).then(|| t.vlan_vni.to_string())),
        ("local", one(t.local.as_ref())),
        ("remotes", t.remotes.as_deref().map(|r| all(r).unwrap_or_else(|| "-".to_owned()))),
        ("group", one(t.group.as_ref())),
        ("underlay-dev", t.underlay_dev.clone()),
        ("via", t.via.clone()),
        ("inner-mtu", one(t.inner_mtu.as_ref())),
        ("dst-port", one(t.dst_port.as_ref())),
        ("src-port", one(t.src_port.as_ref())),
        ("ttl", one(t.ttl.as_ref())),
        ("tos", one(t.tos.as_ref())),
        ("df", one(t.df.as_ref())),
        ("udp-csum", one(t.udp_csum.as_ref())),
        ("udp6-zero-csum-rx", one(t.udp6_zero_csum_rx.as_ref())),
        ("remote-check", one(t.remote_check.as_ref())),
        ("bum-limit", bum_limit),
        ("gbp", one(t.gbp.as_ref())),
        ("gbp-id", one(t.gbp_id.as_ref())),
        ("reserved", one(t.reserved.as_ref())),
        ("option", all(&t.option)),
    ];
    lines.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The networks of a tunnel, in a few words.
fn networks(p: &PortView) -> Option<String> {
    let t = &p.tunnel;
    t.local?;
    let vni = t.vni.map(|vni| format!("vni {vni}"));
    let vlans = match t.vlan_vni.iter().count() {
        0 => None,
        1..=2 => Some(format!("vlan-vni {}", t.vlan_vni)),
        n => Some(format!("{n} vlan-vni")),
    };
    let flags = Some(vlan(p)).filter(|flags| flags != "any");
    Some([vni, vlans, flags].into_iter().flatten().collect::<Vec<_>>().join(" "))
}

/// The word of a type, as on the command line.
fn kind(p: &PortView) -> String {
    p.kind.to_string()
}

/// The VLAN flags, as on the command line but for the dashes; `any` VLAN, unchanged, where there are none.
fn vlan(p: &PortView) -> String {
    let mut flags = Vec::new();
    let mut flag = |name: &str, value: Option<String>| flags.extend(value.map(|v| format!("{name} {v}")));
    flag("access", p.access.map(|v| v.to_string()));
    flag("trunk", p.trunk.as_ref().map(ToString::to_string));
    flag("native", p.native.map(|v| v.to_string()));
    flag("qinq", p.qinq.map(|v| v.to_string()));
    if flags.is_empty() { "any".to_owned() } else { flags.join(" ") }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use serde_json::{Value, json};

    use super::*;

    fn view(more: Value) -> PortView {
        let mut all = json!({
            "name": "vm1", "bridge": "br0", "type": "tap", "ifname": "eth0", "mtu": 1500, "admin": "up",
            "oper": "up", "queues": 2, "offload": ["vnet_hdr", "csum"], "persist": false, "learning": true,
            "flood": true, "bcast_flood": true, "mcast_flood": true, "hairpin": false, "isolated": false,
            "locked": false, "mac_limit": 0, "storm_limit": 1000, "macs": 1, "rx": { "frames": 5, "bytes": 300 },
            "tx": { "frames": 6, "bytes": 360 }, "drops": { "runt": 2, "isolated": 1 }
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_port_without_vlan_flags_carries_every_vlan_unchanged() {
        assert_eq!(vlan(&view(json!({}))), "any");
        assert_eq!(vlan(&view(json!({ "access": 10 }))), "access 10");
        assert_eq!(vlan(&view(json!({ "trunk": "10,20-29", "native": 1 }))), "trunk 10,20-29 native 1");
        assert_eq!(vlan(&view(json!({ "qinq": 100 }))), "qinq 100");
    }

    #[test]
    fn a_port_that_should_be_up_and_is_not_stands_out() {
        let down = view(json!({ "name": "vm2", "oper": "down", "netns": "blue" }));
        let off = view(json!({ "name": "vm3", "admin": "down", "oper": "down" }));
        let text = ports(&[view(json!({ "access": 10 })), down, off]);
        assert_eq!(
            strip_str(&text).to_string(),
            "PORT  BRIDGE  TYPE  IFNAME  NETNS  VLAN       STATE       RX  TX  DROPS\n\
             vm1   br0     tap   eth0    -      access 10  up           5   6      3\n\
             vm2   br0     tap   eth0    blue   any        down         5   6      3\n\
             vm3   br0     tap   eth0    -      any        admin-down   5   6      3\n"
        );
        assert!(text.lines().nth(2).unwrap().starts_with(RED) && !text.lines().nth(1).unwrap().contains(RED));
    }

    fn overlay(more: Value) -> PortView {
        let mut all = json!({
            "name": "overlay", "type": "vxlan", "ifname": null, "persist": null, "queues": 2, "offload": ["csum"],
            "mtu": 1450, "vlan_vni": { "20": 1020, "10": 1010 }, "local": "198.51.100.1", "dst_port": 4789,
            "remotes": ["198.51.100.2", "198.51.100.3"], "src_port": "49152-65535", "ttl": "64", "df": "unset",
            "udp_csum": true, "bum_limit": 0, "inner_mtu": 1450, "via": "sockets", "drops": {}
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        view(all)
    }

    #[test]
    fn a_tunnel_has_networks_in_the_place_of_an_interface() {
        let many = json!({ "name": "many", "vlan_vni": { "1": 1, "2": 2, "3": 3 }, "vni": 7 });
        let text = ports(&[overlay(json!({})), overlay(many)]);
        assert_eq!(
            strip_str(&text).to_string(),
            "PORT     BRIDGE  TYPE   IFNAME  NETNS  VLAN                      STATE  RX  TX  DROPS\n\
             overlay  br0     vxlan  -       -      vlan-vni 10=1010,20=1020  up      5   6      0\n\
             many     br0     vxlan  -       -      vni 7 3 vlan-vni          up      5   6      0\n"
        );
        let text = strip_str(&port(&overlay(json!({})))).to_string();
        for line in [
            "vlan-vni",
            "10=1010,20=1020",
            "remotes",
            "198.51.100.2 198.51.100.3",
            "via",
            "sockets",
            "bum-limit",
            "none",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        for name in ["ifname", "address", "persist", "group", "gbp", "option"] {
            assert!(text.lines().all(|line| line.split(' ').next() != Some(name)), "{name}: {text}");
        }
    }

    #[test]
    fn a_port_for_a_vm_shows_where_they_meet_in_the_place_of_an_interface() {
        let stream = view(
            json!({ "name": "vm2", "type": "stream", "ifname": null, "persist": null, "queues": 0,
            "path": "/run/vm2.sock", "listen": true, "connect": false, "oper": "down", "reason": "no VM is connected" }),
        );
        let netdev = view(
            json!({ "name": "vm3", "type": "netdev", "ifname": "tap3", "persist": null, "driver": "packet",
            "qdisc_bypass": false, "netns": "blue" }),
        );
        let text = strip_str(&ports(&[stream.clone(), netdev.clone()])).to_string();
        assert_eq!(
            text,
            "PORT  BRIDGE  TYPE    IFNAME  NETNS  VLAN  STATE  RX  TX  DROPS\n\
             vm2   br0     stream  -       -      any   down    5   6      3\n\
             vm3   br0     netdev  tap3    blue   any   up      5   6      3\n"
        );
        let has = |text: &str, name: &str, value: &str| {
            assert!(text.contains(&format!("{name:12}  {value}\n")), "{name}: {text}");
        };
        let names = |text: &str| {
            text.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect::<Vec<_>>()
        };
        let text = strip_str(&port(&stream)).to_string();
        assert!(text.contains("path         /run/vm2.sock\nlisten       on\n"), "{text}");
        assert!(text.contains("down: no VM is connected"), "{text}");
        for name in ["ifname", "netns", "mac", "address", "persist", "driver", "server"] {
            assert!(!names(&text).contains(&name.to_owned()), "{name}: {text}");
        }
        let text = strip_str(&port(&netdev)).to_string();
        has(&text, "ifname", "tap3");
        has(&text, "qdisc-bypass", "off");
        assert!(!names(&text).contains(&"path".to_owned()), "{text}");
    }

    #[test]
    fn one_port_shows_why_it_is_down_and_what_it_dropped() {
        let p = view(
            json!({ "oper": "down", "reason": "the interface is gone", "address": ["198.51.100.1/24"] }),
        );
        let text = strip_str(&port(&p)).to_string();
        let has =
            |name: &str, value: &str| assert!(text.contains(&format!("{name:11}  {value}\n")), "{text}");
        has("oper", "down: the interface is gone");
        has("address", "198.51.100.1/24");
        has("mac-limit", "none");
        has("storm-limit", "1000");
        has("rx", "5 frames, 300 bytes");
        has("drops", "isolated 1, runt 2");
    }
}
