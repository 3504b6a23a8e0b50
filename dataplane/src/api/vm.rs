//! What is shown of ports whose other side something else opens: a VM monitor, an operator.

use serde::{Deserialize, Serialize};

use crate::config::{Driver, OnOff, PortOptions};

/// What a netdev, stream, dgram or vhost-user port has: its settings in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VmView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qdisc_bypass: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<OnOff>,
}

impl VmView {
    /// The settings of a port, which are those in force; nothing where its type has none of them.
    pub fn of(options: PortOptions) -> Self {
        let PortOptions { driver, qdisc_bypass, path, listen, connect, peer_path, server, client, .. } =
            options;
        Self { driver, qdisc_bypass, path, listen, connect, peer_path, server, client }
    }
}
