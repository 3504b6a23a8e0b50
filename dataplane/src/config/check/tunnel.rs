//! What makes sense for the types of a port: which keys each has, and how those of a tunnel go together.
//! How those of ports for VMs go together is in [`super::vm`].

use std::{collections::BTreeSet, net::IpAddr};

use super::{Problem, is_interface_name, no_host, out_of_range};
use crate::{
    config::{
        diff::table_of,
        keys::{keys_of, missing},
        spec::{FdbSpec, PortOptions, PortSpec, PortType, UplinkSpec},
    },
    wire::{Vni, geneve},
};

const TAP: &[PortType] = &[PortType::Tap];
const NETDEV: &[PortType] = &[PortType::Netdev];
const DGRAM: &[PortType] = &[PortType::Dgram];
const VHOST_USER: &[PortType] = &[PortType::VhostUser];
const INTERFACES: &[PortType] = &[PortType::Tap, PortType::Netdev];
const WITH_QUEUES: &[PortType] = &[PortType::Tap, PortType::Netdev, PortType::VhostUser];
const SOCKETS: &[PortType] = &[PortType::Stream, PortType::Dgram];
const PATHS: &[PortType] = &[PortType::Stream, PortType::Dgram, PortType::VhostUser];
const NAMESPACES: &[PortType] = &[PortType::Tap, PortType::Netdev, PortType::Vxlan, PortType::Geneve];
const VXLAN: &[PortType] = &[PortType::Vxlan];
const GENEVE: &[PortType] = &[PortType::Geneve];
const TUNNELS: &[PortType] = &[PortType::Vxlan, PortType::Geneve];

/// The types whose ports have a key, where not all have it.
fn types_of(key: &str) -> Option<&'static [PortType]> {
    match key {
        "address" | "mac" | "persist" => Some(TAP),
        "ifname" => Some(INTERFACES),
        "netns" => Some(NAMESPACES),
        "queues" | "offload" => Some(WITH_QUEUES),
        "driver" | "qdisc_bypass" => Some(NETDEV),
        "path" => Some(PATHS),
        "listen" | "connect" => Some(SOCKETS),
        "peer_path" => Some(DGRAM),
        "server" | "client" => Some(VHOST_USER),
        "gbp" | "gbp_id" | "reserved" => Some(VXLAN),
        "option" => Some(GENEVE),
        "vni" | "vlan_vni" | "local" | "remote" | "group" | "underlay_dev" | "dst_port" | "src_port"
        | "ttl" | "tos" | "df" | "udp_csum" | "udp6_zero_csum_rx" | "remote_check" | "bum_limit" => {
            Some(TUNNELS)
        }
        _ => None,
    }
}

fn words(types: &[PortType]) -> String {
    let mut words = types.iter().map(PortType::to_string).collect::<Vec<_>>();
    match words.pop() {
        Some(last) if !words.is_empty() => format!("{} and {last}", words.join(", ")),
        last => last.unwrap_or_default(),
    }
}

fn pair(key: &'static str, with: &'static str, message: String) -> Problem {
    Problem { key, with: Some(with), message }
}

/// Two addresses of which one cannot be reached from the other.
fn other_family(key: &'static str, ip: IpAddr, local: Option<IpAddr>) -> Option<Problem> {
    let local = local.filter(|local| local.is_ipv4() != ip.is_ipv4())?;
    Some(pair(key, "local", format!("{key}: {ip} is of another family than local, {local}")))
}

/// An address that names an IPv4 host in IPv6: no packet of either kind goes there.
fn mapped(key: &'static str, ip: IpAddr) -> Option<Problem> {
    let IpAddr::V6(v6) = ip else { return None };
    let v4 = v6.to_ipv4_mapped()?;
    Some(Problem::new(key, format!("{key}: {ip} is an IPv4 address written as IPv6; write {v4}")))
}

/// An address of one host on the underlay.
fn no_end_point(key: &'static str, ip: IpAddr) -> Option<Problem> {
    mapped(key, ip).or_else(|| no_host(key, ip, &ip))
}

impl PortSpec {
    /// The keys that a port of its type has not.
    pub(super) fn type_problems(&self) -> Vec<Problem> {
        let (kind, given) = (self.options.kind_or_default(), table_of(&self.options));
        let wrong = keys_of::<PortOptions>().iter().filter_map(|key| {
            let types = types_of(key).filter(|types| given.contains_key(*key) && !types.contains(&kind))?;
            let message = format!("{key}: a port of type {kind} has none; it is for {}", words(types));
            Some(pair(key, "type", message))
        });
        wrong.collect()
    }

    pub(super) fn tunnel_problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let mut problems = self.network_problems();
        problems.extend(self.end_point_problems());
        problems.extend(out_of_range("mtu", o.mtu));
        problems.extend(out_of_range("dst_port", o.dst_port.map(u32::from)));
        if o.ttl == Some(crate::config::Inherit::Fixed(0)) {
            problems.push(Problem::new("ttl", "ttl: 0 is not allowed: 1 to 255, or inherit".into()));
        }
        if let Some(group) = o.gbp_id.filter(|_| !o.gbp_or_default().0) {
            let message = format!("gbp_id: {group} needs gbp: without the extension no packet has a group");
            problems.push(pair("gbp_id", "gbp", message));
        }
        if let Err(error) = geneve::options(&o.option) {
            problems.push(Problem::new("option", format!("option: {error}")));
        }
        problems
    }

    /// VNIs and VLANs.
    fn network_problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let mut problems = Vec::new();
        if o.vni.is_none() && o.vlan_vni.is_empty() {
            let message = format!("{}: a tunnel needs vni, vlan_vni or both", missing("vni"));
            problems.push(pair("vni", "vlan_vni", message));
        }
        if let Some((vlan, vni)) = o.vlan_vni.iter().find(|(_, vni)| Some(*vni) == o.vni) {
            problems.push(pair(
                "vni",
                "vlan_vni",
                format!("vni: {vni} is the network of VLAN {vlan} in vlan_vni"),
            ));
        }
        let vlan_keys = [
            ("access", o.access.is_some()),
            ("trunk", o.trunk.is_some()),
            ("native", o.native.is_some()),
            ("qinq", o.qinq.is_some()),
        ];
        for (key, _) in vlan_keys.iter().filter(|(_, given)| *given && !o.vlan_vni.is_empty()) {
            let message =
                format!("{key} and vlan_vni exclude each other: the VLANs of the port are those of vlan_vni");
            problems.push(pair(key, "vlan_vni", message));
        }
        problems
    }

    /// Addresses of the underlay.
    fn end_point_problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let mut problems = Vec::new();
        match o.local {
            None => problems.push(Problem::new("local", missing("local"))),
            Some(local) => problems.extend(no_end_point("local", local)),
        }
        for remote in &o.remote {
            if Some(*remote) == o.local {
                problems.push(pair("remote", "local", format!("remote: {remote} is the local address")));
            }
            problems
                .extend(no_end_point("remote", *remote).or_else(|| other_family("remote", *remote, o.local)));
        }
        if let Some(group) = o.group {
            if group.is_multicast() {
                problems.extend(other_family("group", group, o.local));
            } else {
                problems.push(Problem::new("group", format!("group: {group} is no multicast address")));
            }
            if o.underlay_dev.is_none() {
                let message =
                    format!("group: {group} needs underlay_dev, the interface on which it is joined");
                problems.push(pair("group", "underlay_dev", message));
            }
            if !o.remote.is_empty() {
                let message =
                    "group and remote exclude each other: what is flooded goes to one or the others";
                problems.push(pair("group", "remote", message.into()));
            }
        }
        if let Some(dev) = &o.underlay_dev {
            let shown: String = dev.chars().take(64).collect();
            if !is_interface_name(dev) {
                problems.push(Problem::new(
                    "underlay_dev",
                    format!("underlay_dev: {shown:?} is no interface name"),
                ));
            } else if o.group.is_none() {
                let message = format!(
                    "underlay_dev: {shown:?} needs a group: it is the interface on which that is joined"
                );
                problems.push(pair("underlay_dev", "group", message));
            }
        }
        problems
    }

    /// Whether its packets go by this uplink.
    pub fn uses(&self, uplink: &UplinkSpec) -> bool {
        self.options.kind_or_default().is_tunnel() && self.options.local == Some(uplink.address.addr())
    }

    /// Why two ports cannot be there together: both are tunnels that take what comes to one address and port in one namespace, or what
    /// is behind them is the same interface or socket.
    pub fn clash(&self, other: &Self) -> Option<String> {
        let (a, b) = (&self.options, &other.options);
        if !a.kind_or_default().is_tunnel() {
            return self.same_place(other);
        }
        let at = |o: &PortOptions| (o.kind_or_default().is_tunnel(), o.local, o.dst_port_or_default());
        // Asked of every pair, so what tells most of them apart goes first.
        let local = a.local.filter(|_| at(a) == at(b) && a.netns == b.netns)?;
        let place = || format!("{local} port {}", a.dst_port_or_default());
        if a.kind_or_default() != b.kind_or_default() {
            return Some(format!("{} is that of port \"{}\", which is of another type", place(), other.name));
        }
        let vni = if b.vlan_vni.is_empty() {
            a.networks().find(|vni| b.vni == Some(*vni))?
        } else {
            let theirs: BTreeSet<_> = b.networks().collect();
            a.networks().find(|vni| theirs.contains(vni))?
        };
        Some(format!("VNI {vni} at {} is that of port \"{}\"", place(), other.name))
    }
}

impl PortOptions {
    /// All networks of a tunnel.
    pub(in crate::config) fn networks(&self) -> impl Iterator<Item = Vni> + '_ {
        self.vni.into_iter().chain(self.vlan_vni.iter().map(|(_, vni)| vni))
    }
}

impl FdbSpec {
    pub(super) fn remote_problem(&self) -> Option<Problem> {
        no_end_point("remote", self.remote?)
    }

    /// Why the entry cannot stand at the port that it names.
    pub fn remote_at(&self, port: &PortSpec) -> Option<String> {
        let remote = self.remote?;
        let kind = port.options.kind_or_default();
        if !kind.is_tunnel() {
            return Some(format!(
                "remote: {remote} is behind a tunnel, and port \"{}\" is of type {kind}",
                port.name
            ));
        }
        Some(other_family("remote", remote, port.options.local)?.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(toml: &str) -> PortSpec {
        toml::from_str(&format!("name = \"overlay\"\nbridge = \"br0\"\n{toml}")).unwrap()
    }

    /// A tunnel that makes sense, with more said of it.
    fn tunnel(kind: &str, more: &str) -> Vec<String> {
        port(&format!("type = \"{kind}\"\nlocal = \"198.51.100.1\"\n{more}")).check()
    }

    #[test]
    fn combinations_that_make_sense_pass() {
        let option = format!("0102:80:{}", "00".repeat(124));
        for (kind, good) in [
            ("vxlan", "vni = 0"),
            ("vxlan", "vlan_vni = { 10 = 1010 }"),
            ("vxlan", "vni = 7\nvlan_vni = { 10 = 1010, 20 = 16777215 }"),
            ("vxlan", "vni = 7\naccess = 10"),
            ("geneve", "vni = 7\ntrunk = \"all\"\nnative = 5"),
            (
                "vxlan",
                "vni = 7\nremote = [\"198.51.100.2\", \"198.51.100.3\"]\nnetns = \"blue\"\nmtu = 65521",
            ),
            ("vxlan", "vni = 7\ngroup = \"239.1.1.1\"\nunderlay_dev = \"eth0\""),
            ("vxlan", "vni = 7\ngbp = true\ngbp_id = 65535\nreserved = \"drop\""),
            (
                "geneve",
                "vni = 7\ndst_port = 65535\nsrc_port = \"1-65535\"\nttl = \"inherit\"\ntos = 255\ndf = \"inherit\"",
            ),
            ("geneve", &format!("vni = 7\noption = [\"{0}\", \"{0}\"]", &option[..option.len() - 8])),
            ("vxlan", "vni = 7\nlearning = false\nbum_limit = 4294967295\nlocked = true\nmac_limit = 5"),
        ] {
            assert_eq!(tunnel(kind, good), [""; 0], "{kind} {good}");
        }
        let v6 = "type = \"vxlan\"\nvni = 7\nlocal = \"2001:db8::1\"\nremote = \"2001:db8::2\"\nudp6_zero_csum_rx = true";
        assert_eq!(port(v6).check(), [""; 0]);
    }

    #[test]
    fn every_key_is_of_all_types_or_of_those_whose_heading_it_stands_under() {
        use clap::Args as _;
        let command = PortOptions::augment_args(clap::Command::new("x"));
        for arg in command.get_arguments() {
            let key = arg.get_id().as_str();
            let key = if key == "kind" { "type" } else { key };
            let heading = arg.get_help_heading().and_then(|heading| heading.strip_prefix("Type "));
            let types = types_of(key).map(|types| words(types).replace(" and ", ", "));
            assert!(types.as_deref() == heading || key == "netns", "{key}: {types:?}, {heading:?}");
        }
    }

    #[test]
    fn what_a_tunnel_needs_is_asked_for() {
        assert_eq!(
            port("type = \"vxlan\"").check(),
            ["vni is missing: a tunnel needs vni, vlan_vni or both", "local is missing"]
        );
    }

    #[test]
    fn every_problem_names_key_value_and_what_is_allowed() {
        let option = format!("0102:80:{}", "00".repeat(124));
        for (bad, messages) in [
            ("vni = 7\nvlan_vni = { 10 = 7 }", vec!["vni: 7 is the network of VLAN 10 in vlan_vni"]),
            (
                "vlan_vni = { 10 = 7 }\naccess = 10",
                vec!["access and vlan_vni exclude each other: the VLANs of the port are those of vlan_vni"],
            ),
            (
                "vlan_vni = { 10 = 7 }\ntrunk = \"10\"\nnative = 5",
                vec![
                    "trunk and vlan_vni exclude each other: the VLANs of the port are those of vlan_vni",
                    "native and vlan_vni exclude each other: the VLANs of the port are those of vlan_vni",
                ],
            ),
            (
                "vni = 7\nremote = [\"2001:db8::2\", \"198.51.100.1\", \"224.0.0.1\", \"255.255.255.255\", \"::ffff:198.51.100.2\"]",
                vec![
                    "remote: 2001:db8::2 is of another family than local, 198.51.100.1",
                    "remote: 198.51.100.1 is the local address",
                    "remote: 224.0.0.1 is not the address of a host",
                    "remote: 255.255.255.255 is not the address of a host",
                    "remote: ::ffff:198.51.100.2 is an IPv4 address written as IPv6; write 198.51.100.2",
                ],
            ),
            (
                "vni = 7\ngroup = \"ff02::7\"\nunderlay_dev = \"eth0\"",
                vec!["group: ff02::7 is of another family than local, 198.51.100.1"],
            ),
            (
                "vni = 7\ngroup = \"198.51.100.7\"\nremote = \"198.51.100.2\"",
                vec![
                    "group: 198.51.100.7 is no multicast address",
                    "group: 198.51.100.7 needs underlay_dev, the interface on which it is joined",
                    "group and remote exclude each other: what is flooded goes to one or the others",
                ],
            ),
            (
                "vni = 7\nunderlay_dev = \"eth0\"",
                vec!["underlay_dev: \"eth0\" needs a group: it is the interface on which that is joined"],
            ),
            ("vni = 7\nunderlay_dev = \"a b\"", vec!["underlay_dev: \"a b\" is no interface name"]),
            (
                "vni = 7\nmtu = 65522\ndst_port = 0\nttl = 0",
                vec![
                    "mtu: 65522 is not allowed: 68 to 65521",
                    "dst_port: 0 is not allowed: 1 to 65535",
                    "ttl: 0 is not allowed: 1 to 255, or inherit",
                ],
            ),
            ("vni = 7\ngbp_id = 5", vec!["gbp_id: 5 needs gbp: without the extension no packet has a group"]),
            (
                "vni = 7\nifname = \"x\"\naddress = \"198.51.100.1/24\"\nmac = \"02:00:00:00:00:01\"\nqueues = 2\npersist = true\noffload = true\noption = [\"0102:80:\"]",
                vec![
                    "ifname: a port of type vxlan has none; it is for tap and netdev",
                    "address: a port of type vxlan has none; it is for tap",
                    "mac: a port of type vxlan has none; it is for tap",
                    "queues: a port of type vxlan has none; it is for tap, netdev and vhost-user",
                    "persist: a port of type vxlan has none; it is for tap",
                    "offload: a port of type vxlan has none; it is for tap, netdev and vhost-user",
                    "option: a port of type vxlan has none; it is for geneve",
                ],
            ),
        ] {
            assert_eq!(tunnel("vxlan", bad), messages, "{bad}");
        }
        assert_eq!(
            tunnel("geneve", &format!("vni = 7\ngbp = false\noption = [\"{option}\", \"{option}\"]")),
            [
                "gbp: a port of type geneve has none; it is for vxlan",
                "option: the options take 256 octets together, each with 4 of its own; a Geneve header has room for 252"
            ]
        );
        for bad in ["0.0.0.0", "::", "239.1.1.1", "255.255.255.255"] {
            let spec = port(&format!("type = \"vxlan\"\nvni = 7\nlocal = \"{bad}\""));
            assert_eq!(spec.check(), [format!("local: {bad} is not the address of a host")]);
        }
        assert_eq!(
            port("vni = 7\nlocal = \"198.51.100.1\"").check(),
            [
                "vni: a port of type tap has none; it is for vxlan and geneve",
                "local: a port of type tap has none; it is for vxlan and geneve"
            ]
        );
    }

    #[test]
    fn two_tunnels_share_an_address_but_no_network() {
        let tunnel = |name: &str, more: &str| {
            let mut spec = port(&format!("local = \"198.51.100.1\"\n{more}"));
            spec.name = name.parse().unwrap();
            spec
        };
        let one = tunnel("one", "type = \"vxlan\"\nvni = 7\nvlan_vni = { 10 = 1010 }");
        for fine in [
            "type = \"vxlan\"\nvni = 8",
            "type = \"vxlan\"\nvni = 7\ndst_port = 4790",
            "type = \"vxlan\"\nvni = 7\nnetns = \"blue\"",
            "type = \"geneve\"\nvni = 7",
        ] {
            assert_eq!(tunnel("two", fine).clash(&one), None, "{fine}");
        }
        let clash = |more: &str| tunnel("two", more).clash(&one).unwrap();
        assert_eq!(
            clash("type = \"vxlan\"\nvlan_vni = { 20 = 1010 }"),
            "VNI 1010 at 198.51.100.1 port 4789 is that of port \"one\""
        );
        assert_eq!(
            clash("type = \"geneve\"\nvni = 9\ndst_port = 4789"),
            "198.51.100.1 port 4789 is that of port \"one\", which is of another type"
        );
        assert_eq!(tunnel("tap", "").clash(&tunnel("tap2", "")), None);
    }

    #[test]
    fn an_entry_has_a_remote_behind_a_tunnel_only() {
        let entry = |remote: &str| -> FdbSpec {
            let text = format!(
                "mac = \"02:00:00:00:00:07\"\nbridge = \"br0\"\nport = \"overlay\"\nremote = \"{remote}\""
            );
            toml::from_str(&text).unwrap()
        };
        let tunnel = port("type = \"vxlan\"\nvni = 7\nlocal = \"198.51.100.1\"");
        assert_eq!(entry("198.51.100.2").remote_at(&tunnel), None);
        assert_eq!(
            entry("2001:db8::2").remote_at(&tunnel).unwrap(),
            "remote: 2001:db8::2 is of another family than local, 198.51.100.1"
        );
        assert_eq!(
            entry("198.51.100.2").remote_at(&port("")).unwrap(),
            "remote: 198.51.100.2 is behind a tunnel, and port \"overlay\" is of type tap"
        );
        assert_eq!(entry("0.0.0.0").check(), ["remote: 0.0.0.0 is not the address of a host"]);
    }
}
