//! The other ends of tunnels, uplinks, and neighbours.

use tapway_dataplane::api::{NeighView, RemoteView, UplinkView};

use super::stats::short;
use super::table::{Align, RED, Table, or_dash};

pub(crate) fn remotes(remotes: &[RemoteView]) -> String {
    let mut table = Table::new(&[
        ("PORT", Align::Left),
        ("REMOTE", Align::Left),
        ("PATH-MTU", Align::Right),
        ("LEARNED", Align::Right),
    ]);
    for r in remotes {
        let numbers = [or_dash(r.path_mtu.as_ref()), or_dash(r.learned.as_ref())];
        table.row([r.port.to_string(), r.remote.to_string()].into_iter().chain(numbers));
    }
    table.text()
}

pub(crate) fn neighbours(neighbours: &[NeighView]) -> String {
    let mut table = Table::new(&[
        ("BRIDGE", Align::Left),
        ("VLAN", Align::Right),
        ("IP", Align::Left),
        ("MAC", Align::Left),
        ("KIND", Align::Left),
        ("AGE", Align::Right),
    ]);
    for n in neighbours {
        // An address that an operator wrote does not age.
        let age = if n.kind == "static" { "-".to_owned() } else { format!("{}s", n.age_s) };
        let ip = n.ip.to_string();
        table.row([n.bridge.to_string(), n.vlan.to_string(), ip, n.mac.to_string(), n.kind.clone(), age]);
    }
    table.text()
}

/// As much as fits a terminal of 80 columns; `--json` has the rest.
pub(crate) fn uplinks(uplinks: &[UplinkView]) -> String {
    let mut table = Table::new(&[
        ("UPLINK", Align::Left),
        ("ADDRESS", Align::Left),
        ("GATEWAY", Align::Left),
        ("IFNAME", Align::Left),
        ("NETNS", Align::Left),
        ("MTU", Align::Right),
        ("STATE", Align::Left),
        ("RX", Align::Right),
        ("TX", Align::Right),
        ("DROPS", Align::Right),
    ]);
    for u in uplinks {
        let cells = [
            u.name.to_string(),
            u.address.to_string(),
            or_dash(u.gateway.as_ref()),
            u.ifname.clone(),
            or_dash(u.netns.as_ref()),
            u.mtu.to_string(),
            u.oper.clone(),
            short(u.rx.frames),
            short(u.tx.frames),
            short(u.drops.values().sum()),
        ];
        table.coloured((u.oper != "up").then_some(RED), cells);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_of_a_remote_is_a_dash() {
        let all: Vec<RemoteView> = serde_json::from_value(json!([
            { "port": "overlay", "remote": "198.51.100.2", "path_mtu": 1450, "learned": 7 },
            { "port": "overlay", "remote": "2001:db8::2" },
        ]))
        .unwrap();
        assert_eq!(
            strip_str(&remotes(&all)).to_string(),
            "PORT     REMOTE        PATH-MTU  LEARNED\n\
             overlay  198.51.100.2      1450        7\n\
             overlay  2001:db8::2          -        -\n"
        );
    }

    #[test]
    fn only_a_neighbour_that_was_heard_of_has_an_age() {
        let neigh = |kind: &str| json!({ "bridge": "br0", "vlan": 10, "ip": "198.51.100.7", "mac": "02:00:00:00:00:07", "kind": kind, "age_s": 12 });
        let all: Vec<NeighView> = serde_json::from_value(json!([neigh("static"), neigh("snooped")])).unwrap();
        assert_eq!(
            strip_str(&neighbours(&all)).to_string(),
            "BRIDGE  VLAN  IP            MAC                KIND     AGE\n\
             br0       10  198.51.100.7  02:00:00:00:00:07  static     -\n\
             br0       10  198.51.100.7  02:00:00:00:00:07  snooped  12s\n"
        );
    }

    #[test]
    fn an_uplink_that_is_down_is_red() {
        let all: Vec<UplinkView> = serde_json::from_value(json!([{
            "name": "up0", "address": "198.51.100.1/32", "ifname": "vtep0", "mtu": 1500, "oper": "down", "queues": 1,
            "offload": [], "rx": { "frames": 1000, "bytes": 0 }, "tx": { "frames": 2, "bytes": 0 }, "drops": { "x": 3 }
        }]))
        .unwrap();
        let text = uplinks(&all);
        assert_eq!(
            strip_str(&text).to_string(),
            "UPLINK  ADDRESS          GATEWAY  IFNAME  NETNS   MTU  STATE     RX  TX  DROPS\n\
             up0     198.51.100.1/32  -        vtep0   -      1500  down   1.00k   2      3\n"
        );
        assert!(text.contains(RED));
    }
}
