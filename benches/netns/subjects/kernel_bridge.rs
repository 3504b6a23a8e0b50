//! The kernel's own bridge between two veth pairs: what a userspace switch is up against.

use anyhow::Result;

use super::{Subject, Switch};
use crate::topology::{End, Netns, Site};

pub(super) const BRIDGE: &str = "br0";

/// Where `br_netfilter` is loaded, each of these sends every bridged frame through the firewall hooks of layer 3.
const NETFILTER: [&str; 3] = [
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
];

pub(crate) struct KernelBridge {
    pub(crate) name: &'static str,
}

impl Subject for KernelBridge {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn version(&self) -> String {
        "veth pairs, bridge-nf-call-* off".to_owned()
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        bridge(&netns)?;
        for end in End::BOTH {
            site.veth(&netns, end.name(), end)?;
            netns.ip(&["link", "set", end.name(), "master", BRIDGE])?;
        }
        Ok(Switch::of([], [netns]))
    }
}

/// Makes [`BRIDGE`], out of the firewall's sight.
pub(super) fn bridge(netns: &Netns) -> Result<()> {
    netns.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    netns.ip(&["link", "set", BRIDGE, "up"])?;
    // Per namespace since Linux 5.3. On an older kernel a namespace does not show them, and the machine's are not
    // ours to change.
    for key in NETFILTER {
        if netns.has_sysctl(key) {
            netns.sysctl(key, "0")?;
        }
    }
    Ok(())
}
