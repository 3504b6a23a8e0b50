//! The kernel's virtual interfaces, each as the only thing between the two hosts, and Tapway's TAPs beside them.
//!
//! ```text
//!   veth     eth0 ═════════ eth0          the two ends of one pair
//!   macvlan  eth0 ┐ parent ┌ eth0         two on one parent, which nothing leaves by
//!   vlan     eth0 ─ cable ═ cable ─ eth0  on, or in a tunnel through, the two ends of one pair
//! ```
//!
//! A macvtap is the end of a macvlan for a program, so it has no stack to measure with; a dummy has no other end.

use anyhow::Result;

use super::{Subject, Switch};
use crate::topology::{End, INTERFACE, Netns, Site};

pub(crate) const VETH: &str = "veth";
/// Two pairs and a bridge between them.
pub(crate) const VETH_BRIDGE: &str = "veth-bridge";
/// Two TAP ports of Tapway, as in the table of switches.
pub(crate) const TAPWAY_TAP: &str = "tapway-tap";
/// A veth pair, a bridge and a vxlan device at either end: containers of two hosts.
pub(crate) const VXLAN_BRIDGE: &str = "vxlan-bridge";

/// What macvlan and ipvlan devices are on.
const PARENT: &str = "parent";
/// What VLANs and tunnels go through.
const CABLE: &str = "cable";
const VNI: &str = "42";

/// How the two hosts are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The ends of one pair.
    Veth,
    /// Devices in mode `bridge` of one parent.
    Macvlan,
    /// Devices in mode `l2` of one parent.
    Ipvlan,
    /// VLAN 7 of a veth pair.
    Vlan,
    /// A tunnel over a veth pair.
    Vxlan,
    /// The other tunnel.
    Geneve,
}

impl Link {
    pub(crate) const ALL: [Self; 6] =
        [Self::Veth, Self::Macvlan, Self::Ipvlan, Self::Vlan, Self::Vxlan, Self::Geneve];

    /// The kind in `ip link`, and in the report.
    const fn kind(self) -> &'static str {
        match self {
            Self::Veth => VETH,
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Vlan => "vlan",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }

    /// The option that builds it into a kernel.
    const fn option(self) -> &'static str {
        match self {
            Self::Veth => "CONFIG_VETH",
            Self::Macvlan => "CONFIG_MACVLAN",
            Self::Ipvlan => "CONFIG_IPVLAN",
            Self::Vlan => "CONFIG_VLAN_8021Q",
            Self::Vxlan => "CONFIG_VXLAN",
            Self::Geneve => "CONFIG_GENEVE",
        }
    }

    /// What `ip link add link BELOW name eth0` is to end with at one end.
    fn words(self, end: End) -> Vec<&'static str> {
        let (local, remote) = (address(end), address(end.other()));
        match self {
            Self::Veth => vec!["type", "veth"],
            Self::Macvlan => vec!["type", "macvlan", "mode", "bridge"],
            Self::Ipvlan => vec!["type", "ipvlan", "mode", "l2"],
            Self::Vlan => vec!["type", "vlan", "id", "7"],
            Self::Vxlan => {
                vec![
                    "type", "vxlan", "id", VNI, "dstport", "4789", "local", local, "remote", remote, "dev",
                    CABLE,
                ]
            }
            Self::Geneve => vec!["type", "geneve", "id", VNI, "remote", remote],
        }
    }

    /// Both on an interface of a third namespace, from which they are moved.
    fn on_a_parent(self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        parent(&netns)?;
        for end in End::BOTH {
            let link = ["link", "add", "link", PARENT, "name", end.name(), "netns"];
            let path = site.host(end).path();
            let path = path.to_string_lossy();
            netns.ip(&[&link[..], &[&path], &self.words(end)].concat())?;
            site.host(end).ip(&["link", "set", "dev", end.name(), "name", INTERFACE])?;
            site.address(end)?;
        }
        Ok(Switch::of([], [netns]))
    }

    /// Each on its end of a cable, which has addresses for tunnels.
    fn over_a_cable(self, site: &Site) -> Result<Switch> {
        let path = site.server.path();
        let peer = ["peer", "name", CABLE, "netns", &path.to_string_lossy()];
        site.client.ip(&[&["link", "add", CABLE, "type", "veth"], &peer[..]].concat())?;
        for end in End::BOTH {
            let host = site.host(end);
            host.ip(&["address", "add", &format!("{}/30", address(end)), "dev", CABLE])?;
            host.ip(&["link", "set", "dev", CABLE, "up"])?;
            let below: &[&str] = if self == Self::Vlan { &["link", CABLE] } else { &[] };
            host.ip(&[&["link", "add"], below, &["name", INTERFACE], &self.words(end)].concat())?;
            site.address(end)?;
        }
        Ok(Switch::of([], []))
    }

    /// Makes one where nobody sees it.
    fn probe(self) -> Result<()> {
        let netns = Netns::create("probe")?;
        netns.ip(&["link", "add", CABLE, "type", "veth", "peer", "name", PARENT])?;
        let below: &[&str] = match self {
            Self::Macvlan | Self::Ipvlan | Self::Vlan => &["link", CABLE],
            Self::Veth | Self::Vxlan | Self::Geneve => &[],
        };
        netns.ip(&[&["link", "add"], below, &["name", INTERFACE], &self.words(End::Client)].concat())
    }
}

impl Subject for Link {
    fn name(&self) -> &'static str {
        self.kind()
    }

    fn missing(&self) -> Option<String> {
        let error = format!("{:#}", self.probe().err()?);
        // What the kernel says of a kind that it does not know, with its extended acknowledgement and without.
        let unknown = ["Unknown device type", "Operation not supported", "Not supported"];
        Some(if unknown.iter().any(|words| error.contains(words)) {
            format!("not in this kernel ({})", self.option())
        } else {
            error
        })
    }

    fn version(&self) -> String {
        match self {
            Self::Veth => "the two ends of a pair",
            Self::Macvlan => "mode bridge, two on one parent",
            Self::Ipvlan => "mode l2, two on one parent",
            Self::Vlan => "802.1Q over a veth pair",
            Self::Vxlan => "one remote, over a veth pair, MTU 1450",
            Self::Geneve => "over a veth pair, MTU 1450",
        }
        .to_owned()
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        match self {
            Self::Veth => {
                // The pair is made where the client is, and both ends are called alike.
                let path = site.server.path();
                let peer = ["peer", "name", INTERFACE, "netns", &path.to_string_lossy()];
                site.client.ip(&[&["link", "add", INTERFACE, "type", "veth"], &peer[..]].concat())?;
                End::BOTH.into_iter().try_for_each(|end| site.address(end))?;
                Ok(Switch::of([], []))
            }
            Self::Macvlan | Self::Ipvlan => self.on_a_parent(site),
            Self::Vlan | Self::Vxlan | Self::Geneve => self.over_a_cable(site),
        }
    }
}

/// An interface that is up, and whose cable leads to nobody.
fn parent(netns: &Netns) -> Result<()> {
    netns.ip(&["link", "add", PARENT, "type", "veth", "peer", "name", "nobody"])?;
    ["nobody", PARENT].iter().try_for_each(|name| netns.ip(&["link", "set", "dev", name, "up"]))
}

/// A host's address on the cable.
const fn address(end: End) -> &'static str {
    match end {
        End::Client => "203.0.113.1",
        End::Server => "203.0.113.2",
    }
}
