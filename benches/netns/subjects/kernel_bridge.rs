//! The kernel's own bridge between two veth pairs: what a userspace switch is up against.

use anyhow::Result;

use super::{Subject, Switch};
use crate::topology::{End, INTERFACE, Site};

/// Where `br_netfilter` is loaded, each of these sends every bridged frame through the firewall hooks of layer 3.
const NETFILTER: [&str; 3] = [
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
];

pub(crate) struct KernelBridge;

impl Subject for KernelBridge {
    fn name(&self) -> &'static str {
        "kernel-bridge"
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn version(&self) -> String {
        "veth pairs, bridge-nf-call-* off".to_owned()
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        site.switch.ip(&["link", "add", "br0", "type", "bridge"])?;
        site.switch.ip(&["link", "set", "br0", "up"])?;
        // Per namespace since Linux 5.3. On an older kernel a namespace does not show them, and the machine's are
        // not ours to change.
        for key in NETFILTER {
            if site.switch.has_sysctl(key) {
                site.switch.sysctl(key, "0")?;
            }
        }
        for end in End::BOTH {
            let (host, port) = (site.host(end).path(), end.name());
            site.switch.ip(&[
                "link",
                "add",
                port,
                "type",
                "veth",
                "peer",
                "name",
                INTERFACE,
                "netns",
                &host.to_string_lossy(),
            ])?;
            site.switch.ip(&["link", "set", port, "master", "br0", "up"])?;
            site.address(end)?;
        }
        Ok(Switch::default())
    }
}
