//! The topology file (TOML): what it holds, its mistakes, and how it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BridgeSpec, DeviceSpec, FdbSpec, NeighSpec, PortSpec, UplinkSpec, diff::table_of, parse};

/// A whole configuration: the document form of a topology file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Topology {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<DeviceSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bridge: Vec<BridgeSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uplink: Vec<UplinkSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port: Vec<PortSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<FdbSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neigh: Vec<NeighSpec>,
}

/// One mistake of a topology file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mistake {
    /// Line of the file, from 1.
    pub line: u32,
    /// What is wrong and what would be right.
    pub message: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// Where in its file each object of a topology begins, for what turns out only when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceLines(pub(super) BTreeMap<(&'static str, String), u32>);

impl SourceLines {
    /// The line of `[[kind]]` for the object `name` (of an FDB entry [`FdbSpec::key`], of a neighbour [`NeighSpec::key`]).
    pub fn line(&self, kind: &'static str, name: &str) -> Option<u32> {
        self.0.get(&(kind, name.to_owned())).copied()
    }
}

impl FdbSpec {
    /// What tells one entry from another, in words: bridge, VLAN and address.
    pub fn key(&self) -> String {
        format!("{} vlan {} {}", self.bridge, self.vlan, self.mac)
    }
}

impl NeighSpec {
    /// What tells one neighbour from another, in words: bridge, VLAN and address.
    pub fn key(&self) -> String {
        format!("{} vlan {} {}", self.bridge, self.vlan, self.ip)
    }
}

/// One object as `[[kind]]` and its keys, each in a line: also a table within it, which a topology file is easier to
/// read with.
fn write(kind: &str, object: &impl Serialize, out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
    *out += &format!("[[{kind}]]\n");
    for (key, value) in table_of(object) {
        *out += &format!("{key} = {value}\n");
    }
}

impl Topology {
    /// Reads a topology file.
    ///
    /// # Errors
    /// Every mistake of the file, by line.
    pub fn parse(text: &str) -> Result<(Self, SourceLines), Vec<Mistake>> {
        parse::parse(text)
    }

    /// Puts the objects in the order of their names.
    pub fn sort(&mut self) {
        self.device.sort_by(|a, b| a.name.cmp(&b.name));
        self.bridge.sort_by(|a, b| a.name.cmp(&b.name));
        self.uplink.sort_by(|a, b| a.name.cmp(&b.name));
        self.port.sort_by(|a, b| a.name.cmp(&b.name));
        self.fdb.sort_by(|a, b| (&a.bridge, a.vlan, a.mac).cmp(&(&b.bridge, b.vlan, b.mac)));
        self.neigh.sort_by(|a, b| (&a.bridge, a.vlan, a.ip).cmp(&(&b.bridge, b.vlan, b.ip)));
    }

    /// As a topology file: what was set and nothing else, by name; [`Topology::parse`] reads the same from it.
    pub fn to_toml(&self) -> String {
        let mut sorted = self.clone();
        sorted.sort();
        let Self { device, bridge, uplink, port, fdb, neigh } = &sorted;
        let mut text = String::new();
        device.iter().for_each(|one| write("device", one, &mut text));
        bridge.iter().for_each(|one| write("bridge", one, &mut text));
        uplink.iter().for_each(|one| write("uplink", one, &mut text));
        port.iter().for_each(|one| write("port", one, &mut text));
        fdb.iter().for_each(|one| write("fdb", one, &mut text));
        neigh.iter().for_each(|one| write("neigh", one, &mut text));
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::arbitrary;

    #[test]
    fn an_export_reads_well() {
        let text = r#"
            fdb = [
                { mac = "02:00:00:00:00:07", bridge = "br0", vlan = 10, port = "vm2", sticky = true },
                { mac = "02:00:00:00:00:08", bridge = "br0", vlan = 10, port = "overlay", remote = "198.51.100.2" }]
            [[port]]
            name = "vm2"
            bridge = "br0"
            trunk = [10, "20-29"]
            flood = "off"
            address = ["198.51.100.1/24", "2001:db8::1/64"]
            [[port]]
            bridge = "br0"
            name = "vm1" # the first
            access = 10
            [[port]]
            name = "overlay"
            bridge = "br0"
            type = "vxlan"
            local = "198.51.100.1"
            remote = ["198.51.100.3", "198.51.100.2"]
            ttl = 64
            gbp = "on"
            [port.vlan_vni]
            20 = 2020
            10 = 1010
            [[neigh]]
            ip = "198.51.100.7"
            bridge = "br0"
            mac = "02:00:00:00:00:07"
            [[uplink]]
            address = "203.0.113.1/30"
            name = "up0"
            [[bridge]]
            ageing = "5m"
            name = "br0"
        "#;
        let (topology, _) = Topology::parse(text).unwrap();
        assert_eq!(
            topology.to_toml(),
            r#"[[bridge]]
name = "br0"
ageing = "300s"

[[uplink]]
name = "up0"
address = "203.0.113.1/30"

[[port]]
name = "overlay"
bridge = "br0"
type = "vxlan"
vlan_vni = { 10 = 1010, 20 = 2020 }
local = "198.51.100.1"
remote = ["198.51.100.3", "198.51.100.2"]
ttl = "64"
gbp = true

[[port]]
name = "vm1"
bridge = "br0"
access = 10

[[port]]
name = "vm2"
bridge = "br0"
trunk = "10,20-29"
flood = false
address = ["198.51.100.1/24", "2001:db8::1/64"]

[[fdb]]
mac = "02:00:00:00:00:07"
bridge = "br0"
vlan = 10
port = "vm2"
sticky = true

[[fdb]]
mac = "02:00:00:00:00:08"
bridge = "br0"
vlan = 10
port = "overlay"
remote = "198.51.100.2"

[[neigh]]
ip = "198.51.100.7"
mac = "02:00:00:00:00:07"
bridge = "br0"
vlan = 0
"#
        );
    }

    #[test]
    fn the_source_lines_tell_where_an_object_begins() {
        let text = "[[bridge]]\nname = \"br0\"\n\n# two\n[[port]]\nname = \"vm1\"\nbridge = \"br0\"\n[[fdb]]\nbridge = \"br0\"\nmac = \"02:00:00:00:00:07\"\nport = \"vm1\"\n";
        let (topology, lines) = Topology::parse(text).unwrap();
        assert_eq!((lines.line("bridge", "br0"), lines.line("port", "vm1")), (Some(1), Some(5)));
        assert_eq!(lines.line("fdb", &topology.fdb[0].key()), Some(8));
        assert_eq!(lines.line("port", "br0"), None);
    }

    proptest! {
        #[test]
        fn what_is_exported_is_read_again_the_same(mut topology in arbitrary::topology()) {
            let text = topology.to_toml();
            let read = Topology::parse(&text);
            topology.sort();
            prop_assert_eq!(read.map(|(topology, _)| topology), Ok(topology), "{}", text);
        }
    }
}
