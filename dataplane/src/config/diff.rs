//! In what two descriptions of the same object differ.
//!
//! Compares what is in force, so that writing a default down is no difference.
//! Goes over the keys as they are written in files: a field added to a struct is compared without a word here.

use std::fmt;

use serde::Serialize;
use toml::{Table, Value};

use super::spec::{BridgeSpec, FdbSpec, NeighSpec, PortSpec, UplinkSpec};

/// The keys whose change needs another interface or another place in the switch: the port is deleted and added again.
pub(super) const IMMUTABLE: [&str; 19] = [
    "bridge",
    "type",
    "ifname",
    "netns",
    "queues",
    "persist",
    "offload",
    "driver",
    "qdisc_bypass",
    "path",
    "listen",
    "connect",
    "peer_path",
    "server",
    "client",
    "local",
    "dst_port",
    "group",
    "underlay_dev",
];

/// What stands for a value that was not given and has no default.
pub(super) const UNSET: &str = "unset";

/// One key that has another value; prints as `key: old -> new`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// What is in force on one side; `unset` where nothing was said and there is no default.
    pub old: String,
    /// What is in force on the other side.
    pub new: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

impl Difference {
    pub(super) fn turned(&self) -> Self {
        Self { key: self.key.clone(), old: self.new.clone(), new: self.old.clone() }
    }
}

/// The keys that are set, in the order of the fields.
pub(super) fn table_of(options: &impl Serialize) -> Table {
    // Cannot fail: the words serialize as text, booleans, arrays of text, numbers below 2^32 and tables of these.
    Table::try_from(options).unwrap_or_default()
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => UNSET.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Boolean(on)) => if *on { "on" } else { "off" }.to_owned(),
        Some(Value::Array(all)) => all.iter().map(|v| shown(Some(v))).collect::<Vec<_>>().join(","),
        Some(Value::Table(all)) => {
            all.iter().map(|(key, v)| format!("{key}={}", shown(Some(v)))).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

pub(super) fn between(old: &Table, new: &Table) -> Vec<Difference> {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    let keys = old.keys().chain(added).filter(|key| old.get(*key) != new.get(*key));
    keys.map(|key| Difference { key: key.clone(), old: shown(old.get(key)), new: shown(new.get(key)) })
        .collect()
}

pub(super) fn texts(differences: Vec<Difference>) -> Vec<String> {
    differences.iter().map(Difference::to_string).collect()
}

impl BridgeSpec {
    /// What would change were `new` in force, as `key: old -> new`.
    pub fn difference(&self, new: &Self) -> Vec<String> {
        texts(self.differences(new))
    }

    pub(super) fn differences(&self, new: &Self) -> Vec<Difference> {
        between(&table_of(&self.options.effective()), &table_of(&new.options.effective()))
    }
}

impl PortSpec {
    /// What would change were `new` in force, as `key: old -> new`, in a daemon of `workers` workers.
    pub fn difference(&self, new: &Self, workers: u16) -> Vec<String> {
        texts(self.differences(new, workers))
    }

    /// Those of the differences that a port cannot change while it lives.
    pub fn immutable_differences(&self, new: &Self, workers: u16) -> Vec<String> {
        let mut all = self.differences(new, workers);
        all.retain(Difference::is_immutable);
        texts(all)
    }

    pub(super) fn differences(&self, new: &Self, workers: u16) -> Vec<Difference> {
        let all = |spec: &Self| {
            let mut table = table_of(&spec.effective(workers));
            table.insert("bridge".into(), spec.bridge.as_str().into());
            table
        };
        between(&all(self), &all(new))
    }
}

impl Difference {
    /// Whether a port has to be deleted and added again for it.
    pub(super) fn is_immutable(&self) -> bool {
        IMMUTABLE.contains(&self.key.as_str())
    }
}

impl FdbSpec {
    /// What would change were `new` in force, as `key: old -> new`.
    pub fn difference(&self, new: &Self) -> Vec<String> {
        texts(self.differences(new))
    }

    pub(super) fn differences(&self, new: &Self) -> Vec<Difference> {
        let all = |spec: &Self| {
            let mut table = table_of(spec);
            table.insert("sticky".into(), spec.sticky.into());
            table
        };
        between(&all(self), &all(new))
    }
}

impl NeighSpec {
    /// What would change were `new` in force, as `key: old -> new`.
    pub fn difference(&self, new: &Self) -> Vec<String> {
        texts(self.differences(new))
    }

    pub(super) fn differences(&self, new: &Self) -> Vec<Difference> {
        between(&table_of(self), &table_of(new))
    }
}

impl UplinkSpec {
    /// What would change were `new` in force, as `key: old -> new`, in a daemon of `workers` workers. Nothing of an
    /// uplink changes while it lives: it is deleted and added again.
    pub fn difference(&self, new: &Self, workers: u16) -> Vec<String> {
        texts(self.differences(new, workers))
    }

    pub(super) fn differences(&self, new: &Self, workers: u16) -> Vec<Difference> {
        let all = |spec: &Self| {
            let mut table = table_of(&spec.effective(workers));
            table.insert("address".into(), spec.address.to_string().into());
            table
        };
        between(&all(self), &all(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PortOptions, keys_of};

    fn port(toml: &str) -> PortSpec {
        toml::from_str(&format!("name = \"vm1\"\nbridge = \"br0\"\n{toml}")).unwrap()
    }

    #[test]
    fn a_default_that_is_written_down_is_no_difference() {
        let written = port(
            "type = \"tap\"\nlearning = true\nflood = true\nhairpin = false\nmac_limit = 0\nmtu = 1500\nadmin = \"up\"\nifname = \"vm1\"\nqueues = 2\npersist = false\noffload = true",
        );
        assert_eq!(port("").difference(&written, 2), [""; 0]);
        assert_eq!(port("").difference(&written, 3), ["queues: 3 -> 2"]);
        let old: BridgeSpec = toml::from_str("name = \"br0\"\nageing = \"5m\"").unwrap();
        let new: BridgeSpec = toml::from_str("name = \"br0\"\nfdb_limit = 1000").unwrap();
        assert_eq!(old.difference(&new), ["fdb_limit: 65536 -> 1000"]);
    }

    #[test]
    fn the_order_of_addresses_is_no_difference() {
        let a = port("address = [\"198.51.100.1/24\", \"2001:db8::1/64\"]");
        let b = port("address = [\"2001:db8::1/64\", \"198.51.100.1/24\"]");
        assert_eq!(a.difference(&b, 1), [""; 0]);
        let c = port("address = [\"198.51.100.1/24\"]");
        assert_eq!(a.difference(&c, 1), ["address: 198.51.100.1/24,2001:db8::1/64 -> 198.51.100.1/24"]);
    }

    #[test]
    fn differences_print_the_key_and_both_values() {
        let old = port("access = 10\nflood = false");
        let new = port("trunk = \"all\"\nsecure = \"mac=02:00:00:00:00:01\"\nnetns = \"blue\"");
        assert_eq!(
            old.difference(&new, 1),
            [
                "access: 10 -> unset",
                "flood: off -> on",
                "mac_limit: 0 -> 64",
                "storm_limit: 0 -> 1000",
                "trunk: unset -> all",
                "secure: unset -> mac=02:00:00:00:00:01",
                "netns: unset -> blue"
            ]
        );
        assert_eq!(old.immutable_differences(&new, 1), ["netns: unset -> blue"]);
        let fdb: FdbSpec =
            toml::from_str("mac = \"02:00:00:00:00:01\"\nbridge = \"br0\"\nport = \"vm1\"").unwrap();
        let sticky = FdbSpec { sticky: true, ..fdb.clone() };
        assert_eq!(fdb.difference(&sticky), ["sticky: off -> on"]);
        let neigh: NeighSpec =
            toml::from_str("ip = \"198.51.100.1\"\nmac = \"02:00:00:00:00:01\"\nbridge = \"br0\"").unwrap();
        let other = NeighSpec { mac: "02:00:00:00:00:02".parse().unwrap(), ..neigh.clone() };
        assert_eq!(neigh.difference(&other), ["mac: 02:00:00:00:00:01 -> 02:00:00:00:00:02"]);
        let uplink =
            |toml: &str| -> UplinkSpec { toml::from_str(&format!("name = \"up0\"\n{toml}")).unwrap() };
        let plain = uplink("address = \"198.51.100.1/30\"");
        let same =
            uplink("address = \"198.51.100.1/30\"\ngateway = \"198.51.100.2\"\nqueues = 1\nmtu = 1500");
        assert_eq!(plain.difference(&same, 1), [""; 0]);
        assert_eq!(
            plain.difference(&uplink("address = \"198.51.100.2/30\"\nmtu = 9000"), 1),
            [
                "gateway: 198.51.100.2 -> 198.51.100.1",
                "mtu: 1500 -> 9000",
                "address: 198.51.100.1/30 -> 198.51.100.2/30"
            ]
        );
    }

    #[test]
    fn a_tunnel_changes_all_but_its_sockets_while_it_lives() {
        let tunnel = "type = \"vxlan\"\nlocal = \"198.51.100.1\"\n";
        let old = port(&format!("{tunnel}vlan_vni = {{ 20 = 7, 10 = 1010 }}\nremote = \"198.51.100.2\""));
        let new = port(&format!(
            "{tunnel}vni = 5\nremote = [\"198.51.100.3\", \"198.51.100.2\"]\nttl = \"inherit\"\nlearning = false"
        ));
        assert_eq!(
            old.difference(&new, 1),
            [
                "learning: on -> off",
                "vlan_vni: 10=1010,20=7 -> unset",
                "remote: 198.51.100.2 -> 198.51.100.2,198.51.100.3",
                "ttl: 64 -> inherit",
                "remote_check: off -> on",
                "vni: unset -> 5",
            ]
        );
        assert_eq!(old.immutable_differences(&new, 1), [""; 0]);
        let moved = port(
            "type = \"vxlan\"\nlocal = \"198.51.100.9\"\ndst_port = 4790\nvni = 5\ngroup = \"239.1.1.1\"\nunderlay_dev = \"eth0\"",
        );
        assert_eq!(
            new.immutable_differences(&moved, 1),
            [
                "local: 198.51.100.1 -> 198.51.100.9",
                "dst_port: 4789 -> 4790",
                "group: unset -> 239.1.1.1",
                "underlay_dev: unset -> eth0",
            ]
        );
        let written = port(&format!(
            "{tunnel}vni = 5\nremote = \"198.51.100.2\"\ndst_port = 4789\nsrc_port = \"49152-65535\"\nttl = 64\ntos = 0\ndf = \"unset\"\nudp_csum = true\nudp6_zero_csum_rx = false\nremote_check = false\nbum_limit = 0\ngbp = false\nreserved = \"ignore\""
        ));
        assert_eq!(
            port(&format!("{tunnel}vni = 5\nremote = \"198.51.100.2\"")).difference(&written, 1),
            [""; 0]
        );
    }

    #[test]
    fn the_immutable_keys_are_keys() {
        let keys = keys_of::<PortOptions>();
        assert!(IMMUTABLE.iter().all(|k| *k == "bridge" || keys.contains(k)));
    }
}
