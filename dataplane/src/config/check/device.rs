//! What makes sense for the types of a device: which keys each has, which it needs, and what goes together.

use std::net::IpAddr;

use super::{MIN_IPV6_MTU, MIN_MTU, Problem, is_interface_name, messages, no_host, no_station, out_of_range};
use crate::{
    config::{
        device::{DeviceGroup, DeviceOptions, DeviceSpec, DeviceType, VxlanEntry},
        diff::table_of,
        keys::{keys_of, missing},
        tunnel::Inherit,
        words::OnOff,
    },
    wire::{MacAddr, Vid, Vni},
};

/// The greatest MTU of a kernel device (`ETH_MAX_MTU`).
const MAX_MTU: u32 = 65_535;

fn words(types: &[DeviceType]) -> String {
    types.iter().map(DeviceType::to_string).collect::<Vec<_>>().join(", ")
}

fn pair(key: &'static str, with: &'static str, message: String) -> Problem {
    Problem { key, with: Some(with), message }
}

fn no_name(key: &'static str, name: Option<&str>) -> Option<Problem> {
    let name = name.filter(|name| !is_interface_name(name))?;
    let shown: String = name.chars().take(64).collect();
    let message = format!(
        "{key}: {shown:?} is no interface name: 1 to 15 bytes without spaces and / : %, not all or default"
    );
    Some(Problem::new(key, message))
}

impl DeviceSpec {
    /// What is wrong with it; nothing where it can be made.
    pub fn check(&self) -> Vec<String> {
        messages(self.problems())
    }

    pub(in crate::config) fn problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let mut problems = self.keys_of_other_types();
        problems.extend(no_name("name", Some(self.name.as_str())));
        problems.extend(o.mac.and_then(|mac| no_station("mac", mac)));
        if let Some(mtu) = o.mtu.filter(|mtu| !(MIN_MTU..=MAX_MTU).contains(mtu)) {
            problems.push(Problem::new("mtu", format!("mtu: {mtu} is not allowed: {MIN_MTU} to {MAX_MTU}")));
        }
        problems.extend(self.address_problems());
        for (key, name) in [("master", &o.master), ("parent", &o.parent), ("dev", &o.dev)] {
            problems.extend(no_name(key, name.as_deref()));
        }
        if o.master.as_deref() == Some(self.name.as_str()) {
            problems.push(pair("master", "name", "master: a device cannot belong to itself".to_owned()));
        }
        match self.kind {
            DeviceType::Veth => problems.extend(self.peer_problems()),
            DeviceType::Macvlan | DeviceType::Macvtap | DeviceType::Ipvlan => {
                problems.extend(self.mode_problem());
            }
            DeviceType::Vlan => problems.extend(self.vlan_problem()),
            DeviceType::Vxlan | DeviceType::Geneve => problems.extend(self.tunnel_problems()),
            DeviceType::Tun | DeviceType::Tap => {
                problems.extend(out_of_range("queues", o.queues.map(u32::from)));
                if let Some(DeviceGroup::Multicast(ip)) = o.group {
                    let message = format!("group: {ip} is no number of a group of users");
                    problems.push(pair("group", "type", message));
                }
                if o.persistent == Some(OnOff(false)) && o.queues.unwrap_or(1) < 2 {
                    let message = "persistent: without it the daemon holds one of several queues: set queues to 2 or more";
                    problems.push(pair("persistent", "queues", message.to_owned()));
                }
            }
            DeviceType::Bridge => problems.extend(out_of_range("ageing", o.ageing.map(|s| s.0))),
            DeviceType::Dummy => {}
        }
        if self.kind.has_parent() && o.parent.is_none() {
            let message = format!("{}: a {} is on another interface", missing("parent"), self.kind);
            problems.push(pair("parent", "type", message));
        }
        problems
    }

    /// The keys that a device of its type has not.
    fn keys_of_other_types(&self) -> Vec<Problem> {
        let given = table_of(&self.options);
        let wrong = keys_of::<DeviceOptions>().iter().filter_map(|key| {
            let types = DeviceType::with_key(key)?;
            if types.contains(&self.kind) || !given.contains_key(*key) {
                return None;
            }
            let message =
                format!("{key}: a device of type {} has none; it is for {}", self.kind, words(types));
            Some(pair(key, "type", message))
        });
        wrong.collect()
    }

    fn address_problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let small = o.mtu.filter(|mtu| (MIN_MTU..MIN_IPV6_MTU).contains(mtu));
        let mut problems = Vec::new();
        for (key, addresses) in [("address", &o.address), ("peer", &o.peer.address)] {
            for address in addresses {
                if let Some(problem) = no_host(key, address.addr(), address) {
                    problems.push(problem);
                } else if let Some(mtu) = small.filter(|_| address.addr().is_ipv6() && key == "address") {
                    let message =
                        format!("{key}: {address} needs an mtu of at least {MIN_IPV6_MTU}, not {mtu}");
                    problems.push(pair(key, "mtu", message));
                }
            }
        }
        for route in &o.route {
            if let Some(problem) = route.via.and_then(|via| no_host("route", via, &via)) {
                problems.push(problem);
            } else if !o.up.is_up() {
                let message = format!("route: {route} needs the device up");
                problems.push(pair("route", "up", message));
            }
        }
        for (at, one) in o.sysctl.iter().enumerate() {
            if o.sysctl[..at].iter().any(|other| other.is_of(one)) {
                problems.push(Problem::new("sysctl", format!("sysctl: {one} is set twice")));
            }
        }
        problems
    }

    fn peer_problems(&self) -> Vec<Problem> {
        let peer = &self.options.peer;
        let mut problems: Vec<Problem> = peer
            .mac
            .filter(|mac| !mac.is_station())
            .map(|mac| {
                Problem::new(
                    "peer",
                    format!(
                        "peer: mac: {mac} is not the address of a station: it is a group address or zero"
                    ),
                )
            })
            .into_iter()
            .collect();
        match &peer.name {
            None => {
                let message =
                    format!("{}: a veth has two ends, this is the name of the other", missing("peer"));
                problems.push(pair("peer", "type", message));
            }
            Some(name) => {
                problems.extend(no_name("peer", Some(name.as_str())));
                if *name == self.name && peer.netns == self.options.netns {
                    let message = format!("peer: both ends are named \"{name}\", in one namespace");
                    problems.push(pair("peer", "name", message));
                }
            }
        }
        problems
    }

    fn mode_problem(&self) -> Option<Problem> {
        let mode = self.options.mode?;
        let allowed = match self.kind {
            DeviceType::Ipvlan if !mode.is_ipvlan() => "l2, l3 or l3s",
            DeviceType::Macvlan | DeviceType::Macvtap if mode.is_ipvlan() => {
                "bridge, vepa, private, passthru or source"
            }
            _ => return None,
        };
        let message = format!("mode: a device of type {} has no mode {mode}: {allowed}", self.kind);
        Some(pair("mode", "type", message))
    }

    fn vlan_problem(&self) -> Option<Problem> {
        let Some(id) = self.options.id else {
            return Some(pair("id", "type", format!("{}: it is the number of the VLAN", missing("id"))));
        };
        let legal = u16::try_from(id).ok().and_then(Vid::new).is_some();
        let message =
            || format!("id: {id} is not a VLAN: a number from 1 to 4094 (0 and 4095 are reserved by 802.1Q)");
        (!legal).then(|| pair("id", "type", message()))
    }

    fn tunnel_problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let mut problems: Vec<Problem> =
            out_of_range("dstport", o.dstport.map(u32::from)).into_iter().collect();
        let external = o.external.is_some_and(|external| external.0);
        match o.id {
            None if !external => {
                let message = format!("{}: it is the network of the tunnel", missing("id"));
                problems.push(pair("id", "external", message));
            }
            Some(id) if Vni::new(id).is_none() => {
                let message = format!("id: {id} is not a VNI: a number from 0 to 16777215 (24 bits)");
                problems.push(pair("id", "type", message));
            }
            Some(_) if external => {
                let message = "id and external exclude each other: each packet carries its own".to_owned();
                problems.push(pair("id", "external", message));
            }
            _ => {}
        }
        if o.ttl == Some(Inherit::Fixed(0)) {
            problems.push(Problem::new("ttl", "ttl: 0 is not allowed: 1 to 255, or inherit".to_owned()));
        }
        for (key, ip) in [("local", o.local), ("remote", o.remote)] {
            problems.extend(ip.and_then(|ip| no_host(key, ip, &ip)));
        }
        if self.kind == DeviceType::Geneve {
            if o.remote.is_none() {
                let message = format!("{}: a geneve has one other end", missing("remote"));
                problems.push(pair("remote", "type", message));
            }
            return problems;
        }
        let mut ends = vec![("local", o.local), ("remote", o.remote)];
        match o.group {
            Some(DeviceGroup::Users(gid)) => {
                problems.push(pair("group", "type", format!("group: {gid} is no multicast address")));
            }
            Some(DeviceGroup::Multicast(ip)) => {
                ends.push(("group", Some(ip)));
                if !ip.is_multicast() {
                    problems.push(Problem::new("group", format!("group: {ip} is no multicast address")));
                }
                if o.remote.is_some() {
                    let message = "group and remote exclude each other".to_owned();
                    problems.push(pair("group", "remote", message));
                }
                if o.dev.is_none() {
                    let message = format!("{}: the group {ip} is joined on an interface", missing("dev"));
                    problems.push(pair("dev", "group", message));
                }
            }
            None => {}
        }
        for entry in &o.fdb {
            let wrong = if entry.mac.is_group() {
                Some("it is a group address, and that of a station is wanted, or zero".to_owned())
            } else if entry.vni.is_some_and(|vni| Vni::new(vni).is_none()) {
                Some("a VNI is a number from 0 to 16777215 (24 bits)".to_owned())
            } else if entry.port == Some(0) {
                Some("a UDP port is a number from 1 to 65535".to_owned())
            } else {
                None
            };
            problems.extend(wrong.map(|why| Problem::new("fdb", format!("fdb: {entry}: {why}"))));
            ends.push(("fdb", Some(entry.dst)));
        }
        for (at, entry) in o.fdb.iter().enumerate() {
            // The kernel has one destination of a station, and any number for those that it does not know.
            let twin = |other: &VxlanEntry| other.mac == entry.mac && other != entry;
            if entry.mac != MacAddr::ZERO && o.fdb[..at].iter().any(twin) {
                let message = format!("fdb: {entry}: {} has an entry already", entry.mac);
                problems.push(Problem::new("fdb", message));
            }
        }
        let family = |ip: IpAddr| ip.is_ipv4();
        let mut known = ends.into_iter().filter_map(|(key, ip)| Some((key, ip?)));
        if let Some((first, ip)) = known.next() {
            for (key, other) in known.filter(|(_, other)| family(*other) != family(ip)) {
                let message = format!("{key}: {other} is of another family than {first}, {ip}");
                problems.push(pair(key, first, message));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, more: &str) -> Vec<String> {
        toml::from_str::<DeviceSpec>(&format!("name = \"d\"\ntype = \"{kind}\"\n{more}")).unwrap().check()
    }

    #[test]
    fn what_each_type_needs_is_enough() {
        for (kind, more) in [
            ("veth", "peer = { name = \"p\" }"),
            ("veth", "peer = { name = \"d\", netns = \"c1\" }"),
            ("bridge", ""),
            ("macvlan", "parent = \"eth0\""),
            ("macvtap", "parent = \"eth0\"\nmode = \"passthru\""),
            ("ipvlan", "parent = \"eth0\"\nmode = \"l3s\""),
            ("vlan", "parent = \"eth0\"\nid = 4094"),
            ("vxlan", "id = 0"),
            ("vxlan", "id = 7\ngroup = \"239.1.1.1\"\ndev = \"eth0\"\nlocal = \"198.51.100.1\""),
            ("vxlan", "external = true"),
            (
                "vxlan",
                "id = 7\nlink_netns = \"c1\"\nfdb = [\"00:00:00:00:00:00 dst 198.51.100.1\", \"00:00:00:00:00:00 dst 198.51.100.2\"]",
            ),
            ("ipvlan", "parent = \"eth0\"\nflag = \"private\"\nlink_netns = \"/proc/7/ns/net\""),
            ("tap", "persistent = false\nqueues = 2"),
            ("geneve", "id = 7\nremote = \"2001:db8::1\""),
            ("tun", "owner = 1000\ngroup = 1000\nqueues = 256"),
            ("tap", "vnet_hdr = true\nmaster = \"kbr\""),
            ("dummy", "route = [\"203.0.113.0/24\"]\nsysctl = [\"ipv4.rp_filter=0\", \"ipv6.accept_ra=0\"]"),
        ] {
            assert_eq!(check(kind, more), [""; 0], "{kind}: {more}");
        }
    }

    #[test]
    fn every_problem_names_key_value_and_what_is_allowed() {
        for (kind, more, problems) in [
            ("veth", "", vec!["peer is missing: a veth has two ends, this is the name of the other"]),
            ("veth", "peer = { name = \"d\" }", vec!["peer: both ends are named \"d\", in one namespace"]),
            (
                "veth",
                "peer = { name = \"p\", mac = \"01:00:5e:00:00:01\" }",
                vec![
                    "peer: mac: 01:00:5e:00:00:01 is not the address of a station: it is a group address or zero",
                ],
            ),
            ("macvlan", "", vec!["parent is missing: a macvlan is on another interface"]),
            (
                "macvlan",
                "parent = \"eth0\"\nmode = \"l2\"",
                vec![
                    "mode: a device of type macvlan has no mode l2: bridge, vepa, private, passthru or source",
                ],
            ),
            (
                "ipvlan",
                "parent = \"eth0\"\nmode = \"vepa\"",
                vec!["mode: a device of type ipvlan has no mode vepa: l2, l3 or l3s"],
            ),
            (
                "vlan",
                "parent = \"eth0\"\nid = 4095",
                vec!["id: 4095 is not a VLAN: a number from 1 to 4094 (0 and 4095 are reserved by 802.1Q)"],
            ),
            ("vlan", "parent = \"eth0\"", vec!["id is missing: it is the number of the VLAN"]),
            ("vxlan", "", vec!["id is missing: it is the network of the tunnel"]),
            (
                "vxlan",
                "id = 16777216\nremote = \"198.51.100.1\"\nlocal = \"2001:db8::1\"",
                vec![
                    "id: 16777216 is not a VNI: a number from 0 to 16777215 (24 bits)",
                    "remote: 198.51.100.1 is of another family than local, 2001:db8::1",
                ],
            ),
            (
                "vxlan",
                "id = 7\ngroup = \"198.51.100.1\"\nremote = \"198.51.100.2\"",
                vec![
                    "group: 198.51.100.1 is no multicast address",
                    "group and remote exclude each other",
                    "dev is missing: the group 198.51.100.1 is joined on an interface",
                ],
            ),
            (
                "vxlan",
                "id = 7\nremote = \"198.51.100.1\"\nfdb = [\"01:00:5e:00:00:01 dst 198.51.100.2\", \"02:00:00:00:00:07 dst 2001:db8::1\", \"02:00:00:00:00:07 dst 198.51.100.2 vni 16777216\"]",
                vec![
                    "fdb: 01:00:5e:00:00:01 dst 198.51.100.2: it is a group address, and that of a station is wanted, or zero",
                    "fdb: 02:00:00:00:00:07 dst 198.51.100.2 vni 16777216: a VNI is a number from 0 to 16777215 (24 bits)",
                    "fdb: 02:00:00:00:00:07 dst 198.51.100.2 vni 16777216: 02:00:00:00:00:07 has an entry already",
                    "fdb: 2001:db8::1 is of another family than remote, 198.51.100.1",
                ],
            ),
            (
                "macvlan",
                "parent = \"eth0\"\nflag = \"private\"\nfdb = \"02:00:00:00:00:07 dst 198.51.100.2\"",
                vec![
                    "flag: a device of type macvlan has none; it is for ipvlan",
                    "fdb: a device of type macvlan has none; it is for vxlan",
                ],
            ),
            (
                "tap",
                "persistent = false",
                vec![
                    "persistent: without it the daemon holds one of several queues: set queues to 2 or more",
                ],
            ),
            ("geneve", "id = 7", vec!["remote is missing: a geneve has one other end"]),
            (
                "dummy",
                "id = 7\nstp = true\nmtu = 67",
                vec![
                    "id: a device of type dummy has none; it is for vlan, vxlan, geneve",
                    "stp: a device of type dummy has none; it is for bridge",
                    "mtu: 67 is not allowed: 68 to 65535",
                ],
            ),
            (
                "dummy",
                "address = [\"224.0.0.1/4\", \"2001:db8::1/64\"]\nmtu = 1000",
                vec![
                    "address: 224.0.0.1/4 is not the address of a host",
                    "address: 2001:db8::1/64 needs an mtu of at least 1280, not 1000",
                ],
            ),
            (
                "dummy",
                "route = \"default via 198.51.100.1\"\nup = false",
                vec!["route: default via 198.51.100.1 needs the device up"],
            ),
            (
                "dummy",
                "sysctl = [\"ipv4.forwarding=0\", \"ipv4.forwarding=1\"]",
                vec!["sysctl: ipv4.forwarding=1 is set twice"],
            ),
            ("dummy", "master = \"d\"", vec!["master: a device cannot belong to itself"]),
            (
                "dummy",
                "master = \"a b\"",
                vec![
                    "master: \"a b\" is no interface name: 1 to 15 bytes without spaces and / : %, not all or default",
                ],
            ),
            (
                "tap",
                "queues = 257\ngroup = \"239.1.1.1\"",
                vec![
                    "queues: 257 is not allowed: 1 to 256",
                    "group: 239.1.1.1 is no number of a group of users",
                ],
            ),
            (
                "tun",
                "mac = \"02:00:00:00:00:01\"",
                vec![
                    "mac: a device of type tun has none; it is for veth, bridge, macvlan, macvtap, ipvlan, vlan, vxlan, geneve, tap, dummy",
                ],
            ),
        ] {
            assert_eq!(check(kind, more), problems, "{kind}: {more}");
        }
    }

    #[test]
    fn every_key_is_of_all_types_or_of_some() {
        let common = ["netns", "create_netns", "mtu", "address", "up", "route", "sysctl"];
        for key in keys_of::<DeviceOptions>() {
            assert_eq!(DeviceType::with_key(key).is_none(), common.contains(key), "{key}");
        }
        assert_eq!(super::super::limit("dstport"), Some(1..=65_535));
    }
}
