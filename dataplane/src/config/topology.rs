//! The topology file (TOML): what it holds, its mistakes, and how it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BridgeSpec, FdbSpec, PortSpec, parse};

/// A whole configuration: the document form of a topology file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Topology {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bridge: Vec<BridgeSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port: Vec<PortSpec>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fdb: Vec<FdbSpec>,
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
    /// The line of `[[kind]]` for the object `name` (of an FDB entry [`FdbSpec::key`]).
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
        self.bridge.sort_by(|a, b| a.name.cmp(&b.name));
        self.port.sort_by(|a, b| a.name.cmp(&b.name));
        self.fdb.sort_by(|a, b| (&a.bridge, a.vlan, a.mac).cmp(&(&b.bridge, b.vlan, b.mac)));
    }

    /// As a topology file: what was set and nothing else, by name; [`Topology::parse`] reads the same from it.
    pub fn to_toml(&self) -> String {
        let mut sorted = self.clone();
        sorted.sort();
        // Cannot fail: the words serialize as text, booleans, arrays of text and numbers below 2^32.
        toml::to_string(&sorted).unwrap_or_default()
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
            fdb = [{ mac = "02:00:00:00:00:07", bridge = "br0", vlan = 10, port = "vm2", sticky = true }]
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
