//! The topology file (TOML) and its mistakes.

use serde::{Deserialize, Serialize};

use super::{BridgeSpec, FdbSpec, PortSpec};

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
