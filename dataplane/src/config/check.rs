//! What settings make sense, whoever gives them: a command, a Varlink call or a file.
//!
//! Each problem names the key, the value and what is allowed.
//! Only what can be seen from one object alone is checked here; names that must exist are checked where all objects are known.

mod device;
mod tunnel;
mod vm;

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

use super::{
    spec::{BridgeSpec, FdbSpec, MAX_FDB_LIMIT, NeighSpec, PortSpec, PortType, UplinkSpec},
    words::{NAME_MAX, PortName, VlanList},
};
use crate::wire::{MacAddr, Vid};

/// The least MTU of an Ethernet interface (`ETH_MIN_MTU`).
pub const MIN_MTU: u32 = 68;
/// The greatest MTU of a TAP interface: 65535 less the Ethernet header (`tun_net_initialize`).
pub const MAX_TAP_MTU: u32 = 65_521;
/// The most queues a TAP interface can have (`MAX_TAP_QUEUES`).
pub const MAX_TAP_QUEUES: u16 = 256;
/// The least MTU the kernel lets an IPv6 address have (`IPV6_MIN_MTU`, RFC 8200 section 5).
const MIN_IPV6_MTU: u32 = 1280;
/// The longest ageing time of 802.1Q-2018 table 8-6; 0 is allowed for "do not remember".
const MAX_AGEING: u32 = 1_000_000;

const VLAN_KEYS: [&str; 3] = ["access", "native", "qinq"];

/// The numbers a key takes, where that is less than its type can hold.
pub(super) fn limit(key: &str) -> Option<RangeInclusive<u32>> {
    Some(match key {
        "mtu" => MIN_MTU..=MAX_TAP_MTU,
        "dst_port" | "dstport" => 1..=u32::from(u16::MAX),
        "queues" => 1..=u32::from(MAX_TAP_QUEUES),
        "fdb_limit" => 1..=MAX_FDB_LIMIT,
        "ageing" => 0..=MAX_AGEING,
        "vlan" => 0..=u32::from(Vid::MAX),
        _ if VLAN_KEYS.contains(&key) => u32::from(Vid::MIN)..=u32::from(Vid::MAX),
        _ => return None,
    })
}

/// Something wrong with an object whose keys can all be read.
#[derive(Debug)]
pub(super) struct Problem {
    /// The key to change.
    pub key: &'static str,
    /// The key it does not go with.
    pub with: Option<&'static str>,
    pub message: String,
}

impl Problem {
    fn new(key: &'static str, message: String) -> Self {
        Self { key, with: None, message }
    }
}

fn out_of_range(key: &'static str, value: Option<u32>) -> Option<Problem> {
    let (value, range) = (value?, limit(key)?);
    (!range.contains(&value)).then(|| {
        Problem::new(key, format!("{key}: {value} is not allowed: {} to {}", range.start(), range.end()))
    })
}

fn messages(problems: Vec<Problem>) -> Vec<String> {
    problems.into_iter().map(|p| p.message).collect()
}

/// What makes a name no interface name (`dev_valid_name`, `sysctl_dev_name_is_allowed`, and `%` which asks `TUNSETIFF` to
/// choose a number).
fn is_interface_name(name: &str) -> bool {
    let legal = |c: char| !c.is_whitespace() && !c.is_control() && !"/:%".contains(c);
    let taken = [".", "..", "all", "default"];
    !name.is_empty() && name.len() <= NAME_MAX && !taken.contains(&name) && name.chars().all(legal)
}

fn no_station(key: &'static str, mac: MacAddr) -> Option<Problem> {
    let message = || format!("{key}: {mac} is not the address of a station: it is a group address or zero");
    (!mac.is_station()).then(|| Problem::new(key, message()))
}

/// An address that no host has.
fn no_host(key: &'static str, ip: IpAddr, shown: &impl std::fmt::Display) -> Option<Problem> {
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    (ip.is_unspecified() || ip.is_multicast() || broadcast)
        .then(|| Problem::new(key, format!("{key}: {shown} is not the address of a host")))
}

/// An address that is not for one host of its network.
fn no_single_host(key: &'static str, ip: IpAddr, network: &IpNet) -> Option<Problem> {
    // A prefix of two addresses is a link between two hosts and has none that is kept (RFC 3021, RFC 6164).
    let what = match network {
        IpNet::V4(net) if net.prefix_len() < 31 && ip == net.network() => "the number of its network",
        IpNet::V4(net) if net.prefix_len() < 31 && ip == net.broadcast() => {
            "the broadcast address of its network"
        }
        // "The 'subnet prefix' in an anycast address is the prefix that identifies a specific link" (RFC 4291 §2.6.1).
        IpNet::V6(net) if net.prefix_len() < 127 && ip == net.network() => {
            "the subnet-router anycast address of its network"
        }
        _ => return None,
    };
    Some(Problem::new(key, format!("{key}: {ip} is {what} {}, not the address of a host", network.trunc())))
}

/// What is wrong with the name of an interface, which is that of the object `name` where none is given.
fn no_interface_name(name: &PortName, ifname: Option<&str>) -> Option<Problem> {
    let allowed = "is no interface name: 1 to 15 bytes without spaces and / : %, not all or default";
    match ifname {
        Some(ifname) if !is_interface_name(ifname) => {
            let shown: String = ifname.chars().take(64).collect();
            Some(Problem::new("ifname", format!("ifname: {shown:?} {allowed}")))
        }
        None if !is_interface_name(name.as_str()) => Some(Problem {
            key: "name",
            with: Some("ifname"),
            message: format!("name: \"{name}\" {allowed}; give the interface another name with ifname"),
        }),
        _ => None,
    }
}

impl BridgeSpec {
    /// What is wrong with it; nothing where it can be made.
    pub fn check(&self) -> Vec<String> {
        messages(self.problems())
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let o = &self.options;
        out_of_range("ageing", o.ageing.map(|s| s.0))
            .into_iter()
            .chain(out_of_range("fdb_limit", o.fdb_limit))
            .collect()
    }
}

impl PortSpec {
    /// What is wrong with it; nothing where it can be made.
    pub fn check(&self) -> Vec<String> {
        messages(self.problems())
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.vlan_problems();
        problems.extend(self.type_problems());
        match self.options.kind_or_default() {
            PortType::Tap => problems.extend(self.tap_problems()),
            PortType::Netdev | PortType::Stream | PortType::Dgram | PortType::VhostUser => {
                problems.extend(self.vm_problems());
            }
            PortType::Vxlan | PortType::Geneve => problems.extend(self.tunnel_problems()),
        }
        let secure = self.options.secure.as_ref();
        problems.extend(secure.and_then(|secure| no_station("secure", secure.mac)));
        problems
    }

    fn vlan_problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let excludes = |key, with| Problem {
            key,
            with: Some(with),
            message: format!("{key} and {with} exclude each other: give one of access, trunk and qinq"),
        };
        let mut problems = Vec::new();
        if o.access.is_some() && o.trunk.is_some() {
            problems.push(excludes("trunk", "access"));
        }
        if o.qinq.is_some() && (o.access.is_some() || o.trunk.is_some()) {
            problems.push(excludes("qinq", if o.access.is_some() { "access" } else { "trunk" }));
        }
        if let Some(native) = o.native
            && o.trunk.is_none()
        {
            problems.push(Problem {
                key: "native",
                with: Some("trunk"),
                message: format!(
                    "native: {native} needs a trunk: it is the VLAN of a trunk's untagged frames"
                ),
            });
        }
        if o.trunk.as_ref().is_some_and(VlanList::is_empty) {
            problems
                .push(Problem::new("trunk", "trunk: no VLAN is given: write 10,20,100-199 or all".into()));
        }
        problems
    }

    fn tap_problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let mut problems: Vec<Problem> =
            [out_of_range("mtu", o.mtu), out_of_range("queues", o.queues.map(u32::from))]
                .into_iter()
                .flatten()
                .collect();
        problems.extend(no_interface_name(&self.name, o.ifname.as_deref()));
        problems.extend(o.mac.and_then(|mac| no_station("mac", mac)));
        for address in &o.address {
            let (ip, mtu) = (address.addr(), o.mtu_or_default());
            if let Some(problem) = no_host("address", ip, address) {
                problems.push(problem);
            } else if matches!(ip, IpAddr::V6(_)) && (MIN_MTU..MIN_IPV6_MTU).contains(&mtu) {
                problems.push(Problem {
                    key: "address",
                    with: Some("mtu"),
                    message: format!("address: {address} needs an mtu of at least {MIN_IPV6_MTU}, not {mtu}"),
                });
            }
        }
        problems
    }
}

impl FdbSpec {
    /// What is wrong with it; nothing where it can be made.
    pub fn check(&self) -> Vec<String> {
        messages(self.problems())
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = out_of_range("vlan", Some(self.vlan.into())).into_iter().collect();
        problems.extend(no_station("mac", self.mac));
        problems.extend(self.remote_problem());
        problems
    }
}

impl NeighSpec {
    /// What is wrong with it; nothing where it can be made.
    pub fn check(&self) -> Vec<String> {
        messages(self.problems())
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let range = out_of_range("vlan", Some(self.vlan.into()));
        let message =
            || format!("ip: {} is not the address of a neighbour: it is a loopback address", self.ip);
        let host = match self.ip.is_loopback() {
            true => Some(Problem::new("ip", message())),
            false => no_host("ip", self.ip, &self.ip),
        };
        range.into_iter().chain(host).chain(no_station("mac", self.mac)).collect()
    }
}

impl UplinkSpec {
    /// What is wrong with it; nothing where it can be made.
    pub fn check(&self) -> Vec<String> {
        messages(self.problems())
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let o = &self.options;
        let mut problems: Vec<Problem> = out_of_range("mtu", o.mtu).into_iter().collect();
        problems.extend(out_of_range("queues", o.queues.map(u32::from)));
        problems.extend(no_interface_name(&self.name, o.ifname.as_deref()));
        problems.extend(o.mac.and_then(|mac| no_station("mac", mac)));
        let (ip, mtu) = (self.address.addr(), o.mtu_or_default());
        problems.extend(self.address_problem(ip));
        if ip.is_ipv6() && (MIN_MTU..MIN_IPV6_MTU).contains(&mtu) {
            problems.push(Problem {
                key: "mtu",
                with: Some("address"),
                message: format!("mtu: {mtu} is too little for {}: IPv6 needs {MIN_IPV6_MTU}", self.address),
            });
        }
        problems.extend(o.gateway.and_then(|gateway| self.gateway_problem(gateway)));
        problems
    }

    fn address_problem(&self, ip: IpAddr) -> Option<Problem> {
        if ip.is_loopback() {
            let message =
                format!("address: {} is a loopback address, which no other host reaches", self.address);
            return Some(Problem::new("address", message));
        }
        no_host("address", ip, &self.address).or_else(|| no_single_host("address", ip, &self.address))
    }

    fn gateway_problem(&self, gateway: IpAddr) -> Option<Problem> {
        let address = self.address;
        let message = if gateway == address.addr() {
            format!("gateway: {gateway} is the address of the switch itself")
        } else if !address.contains(&gateway) {
            format!("gateway: {gateway} is not in the prefix of {address}")
        } else {
            return no_host("gateway", gateway, &gateway)
                .or_else(|| no_single_host("gateway", gateway, &address));
        };
        Some(Problem { key: "gateway", with: Some("address"), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BridgeOptions, PortOptions, Seconds, keys_of};

    fn port(toml: &str) -> Vec<String> {
        toml::from_str::<PortSpec>(&format!("name = \"vm1\"\nbridge = \"br0\"\n{toml}")).unwrap().check()
    }

    #[test]
    fn combinations_that_make_sense_pass() {
        for good in [
            "",
            "access = 10",
            "trunk = \"all\"",
            "trunk = \"10,20\"\nnative = 10",
            "trunk = \"10,20\"\nnative = 30",
            "qinq = 100",
            "mtu = 68\nqueues = 256\nstorm_limit = 4294967295\nmac_limit = 4294967295",
            "mtu = 65521",
            "queues = 4\noffload = false",
            "mtu = 1280\naddress = [\"2001:db8::1/64\"]",
            "mtu = 68\naddress = \"198.51.100.1/24\"",
            "ifname = \"ä-1.2@x\"",
            "mac = \"02:00:00:00:00:01\"\nsecure = \"mac=02:00:00:00:00:01\"",
        ] {
            assert_eq!(port(good), [""; 0], "{good}");
        }
    }

    #[test]
    fn every_problem_names_key_value_and_what_is_allowed() {
        for (bad, messages) in [
            (
                "access = 1\ntrunk = 2",
                vec!["trunk and access exclude each other: give one of access, trunk and qinq"],
            ),
            (
                "qinq = 1\ntrunk = 2",
                vec!["qinq and trunk exclude each other: give one of access, trunk and qinq"],
            ),
            ("native = 5", vec!["native: 5 needs a trunk: it is the VLAN of a trunk's untagged frames"]),
            (
                "access = 1\nnative = 5",
                vec!["native: 5 needs a trunk: it is the VLAN of a trunk's untagged frames"],
            ),
            (
                "mtu = 67\nqueues = 0",
                vec!["mtu: 67 is not allowed: 68 to 65521", "queues: 0 is not allowed: 1 to 256"],
            ),
            (
                "mtu = 65522\nqueues = 257",
                vec!["mtu: 65522 is not allowed: 68 to 65521", "queues: 257 is not allowed: 1 to 256"],
            ),
            (
                "ifname = \"a b\"",
                vec![
                    "ifname: \"a b\" is no interface name: 1 to 15 bytes without spaces and / : %, not all or default",
                ],
            ),
            (
                "ifname = \"all\"",
                vec![
                    "ifname: \"all\" is no interface name: 1 to 15 bytes without spaces and / : %, not all or default",
                ],
            ),
            (
                "ifname = \"\"",
                vec![
                    "ifname: \"\" is no interface name: 1 to 15 bytes without spaces and / : %, not all or default",
                ],
            ),
            (
                "mac = \"01:00:5e:00:00:01\"",
                vec!["mac: 01:00:5e:00:00:01 is not the address of a station: it is a group address or zero"],
            ),
            (
                "secure = \"mac=00:00:00:00:00:00\"",
                vec![
                    "secure: 00:00:00:00:00:00 is not the address of a station: it is a group address or zero",
                ],
            ),
            ("address = [\"224.0.0.1/4\"]", vec!["address: 224.0.0.1/4 is not the address of a host"]),
            (
                "mtu = 1000\naddress = [\"2001:db8::1/64\"]",
                vec!["address: 2001:db8::1/64 needs an mtu of at least 1280, not 1000"],
            ),
        ] {
            assert_eq!(port(bad), messages, "{bad}");
        }
        let options = BridgeOptions {
            ageing: Some(Seconds(1_000_001)),
            fdb_limit: Some(0),
            move_limit: None,
            neigh_snoop: None,
        };
        assert_eq!(
            BridgeSpec { name: "br0".parse().unwrap(), options }.check(),
            ["ageing: 1000001 is not allowed: 0 to 1000000", "fdb_limit: 0 is not allowed: 1 to 16777216"]
        );
        let fdb: FdbSpec =
            toml::from_str("mac = \"ff:ff:ff:ff:ff:ff\"\nbridge = \"br0\"\nport = \"vm1\"\nvlan = 4095")
                .unwrap();
        assert_eq!(
            fdb.check(),
            [
                "vlan: 4095 is not allowed: 0 to 4094",
                "mac: ff:ff:ff:ff:ff:ff is not the address of a station: it is a group address or zero"
            ]
        );
    }

    #[test]
    fn a_neighbour_is_a_host_with_the_address_of_a_station() {
        let neigh = |text: &str| toml::from_str::<NeighSpec>(text).unwrap().check();
        assert_eq!(
            neigh("ip = \"198.51.100.1\"\nmac = \"02:00:00:00:00:01\"\nbridge = \"br0\"\nvlan = 10"),
            [""; 0]
        );
        assert_eq!(
            neigh("ip = \"ff02::1\"\nmac = \"33:33:00:00:00:01\"\nbridge = \"br0\"\nvlan = 4095"),
            [
                "vlan: 4095 is not allowed: 0 to 4094",
                "ip: ff02::1 is not the address of a host",
                "mac: 33:33:00:00:00:01 is not the address of a station: it is a group address or zero"
            ]
        );
    }

    #[test]
    fn an_uplink_has_its_gateway_in_its_prefix() {
        let uplink = |address: &str, more: &str| {
            let text = format!("name = \"up0\"\naddress = \"{address}\"\n{more}");
            toml::from_str::<UplinkSpec>(&text).unwrap().check()
        };
        for (address, more) in [
            ("198.51.100.1/24", "gateway = \"198.51.100.254\"\nmtu = 9000\nqueues = 2"),
            ("198.51.100.1/32", "mtu = 68"),
            ("198.51.100.8/31", "gateway = \"198.51.100.9\""),
            ("2001:db8::/128", ""),
            ("2001:db8::1/127", "gateway = \"2001:db8::\"\nmtu = 1280"),
        ] {
            assert_eq!(uplink(address, more), [""; 0], "{address} {more}");
        }
        for (address, more, message) in [
            ("0.0.0.0/0", "", "address: 0.0.0.0/0 is not the address of a host"),
            ("127.0.0.1/32", "", "address: 127.0.0.1/32 is a loopback address, which no other host reaches"),
            ("::1/128", "", "address: ::1/128 is a loopback address, which no other host reaches"),
            (
                "198.51.100.8/30",
                "",
                "address: 198.51.100.8 is the number of its network 198.51.100.8/30, not the address of a host",
            ),
            (
                "198.51.100.11/30",
                "",
                "address: 198.51.100.11 is the broadcast address of its network 198.51.100.8/30, not the address of a host",
            ),
            (
                "2001:db8::/64",
                "",
                "address: 2001:db8:: is the subnet-router anycast address of its network 2001:db8::/64, not the address of a host",
            ),
            (
                "198.51.100.9/30",
                "gateway = \"198.51.100.11\"",
                "gateway: 198.51.100.11 is the broadcast address of its network 198.51.100.8/30, not the address of a host",
            ),
            (
                "198.51.100.1/24",
                "gateway = \"203.0.113.1\"",
                "gateway: 203.0.113.1 is not in the prefix of 198.51.100.1/24",
            ),
            (
                "198.51.100.1/24",
                "gateway = \"2001:db8::1\"",
                "gateway: 2001:db8::1 is not in the prefix of 198.51.100.1/24",
            ),
            (
                "198.51.100.1/32",
                "gateway = \"198.51.100.1\"",
                "gateway: 198.51.100.1 is the address of the switch itself",
            ),
            ("2001:db8::1/64", "mtu = 1000", "mtu: 1000 is too little for 2001:db8::1/64: IPv6 needs 1280"),
            ("198.51.100.1/24", "mtu = 9", "mtu: 9 is not allowed: 68 to 65521"),
            ("198.51.100.1/24", "queues = 0", "queues: 0 is not allowed: 1 to 256"),
        ] {
            assert_eq!(uplink(address, more), [message], "{address} {more}");
        }
    }

    #[test]
    fn a_port_whose_name_is_no_interface_name_needs_one() {
        let mut spec: PortSpec = toml::from_str("name = \"tap%d\"\nbridge = \"br0\"").unwrap();
        assert!(spec.check()[0].contains("give the interface another name with ifname"));
        spec.options.ifname = Some("tap0".into());
        assert_eq!(spec.check(), [""; 0]);
    }

    #[test]
    fn every_limit_belongs_to_a_key() {
        let keys = [
            keys_of::<BridgeOptions>(),
            keys_of::<PortOptions>(),
            keys_of::<crate::config::UplinkOptions>(),
            keys_of::<crate::config::keys::FdbOptions>(),
        ]
        .concat();
        let limited =
            ["mtu", "queues", "dst_port", "fdb_limit", "ageing", "vlan", "access", "native", "qinq"];
        assert!(limited.iter().all(|k| keys.contains(k) && limit(k).is_some()));
    }
}
