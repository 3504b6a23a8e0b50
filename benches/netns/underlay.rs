//! Two hosts on a cable: where the subjects of the overlay table work.
//!
//! ```text
//!   netns "client"    netns "near"                                  netns "far"    netns "server"
//!   eth0 ── one end of the overlay ── underlay ═══════ underlay ── the other ── eth0
//!                                  203.0.113.1       203.0.113.2
//! ```
//!
//! The cable is a veth pair with the kernel's defaults: MTU 1500; checksum, TCP and UDP segmentation and tunnel
//! segmentation offered (a virtual cable never has to do them); no receive coalescing. So a kernel that speaks to a
//! kernel passes 64 KiB super-frames inside their tunnel. The inner MTU is 1450 for every subject: 1500 less outer
//! Ethernet, IPv4, UDP and VXLAN (14 + 20 + 8 + 8 octets).

use anyhow::Result;

use crate::process::run;
use crate::topology::{End, INTERFACE, Netns, Site};

/// Name of the cable's end in each of the two.
pub(crate) const CABLE: &str = "underlay";
pub(crate) const INNER_MTU: &str = "1450";

/// The two hosts.
#[derive(Debug)]
pub(crate) struct Underlay {
    near: Netns,
    far: Netns,
}

impl Underlay {
    /// The cable is up and has no address: who has it is the subject's to say.
    pub(crate) fn create() -> Result<Self> {
        let (near, far) = (Netns::create("near")?, Netns::create("far")?);
        let path = far.path();
        let peer = ["peer", "name", CABLE, "netns", &path.to_string_lossy()];
        near.ip(&[&["link", "add", CABLE, "type", "veth"], &peer[..]].concat())?;
        for netns in [&near, &far] {
            netns.ip(&["link", "set", CABLE, "up"])?;
        }
        Ok(Self { near, far })
    }

    /// The host that an end is behind.
    pub(crate) fn netns(&self, end: End) -> &Netns {
        match end {
            End::Client => &self.near,
            End::Server => &self.far,
        }
    }

    /// Whole checksums and no super-frames on the cable, for who takes frames off it as they are.
    pub(crate) fn without_offloads(&self) -> Result<()> {
        for netns in [&self.near, &self.far] {
            run(netns.command("ethtool").args(["-K", CABLE, "tx", "off"]))?;
        }
        Ok(())
    }

    pub(crate) fn into_namespaces(self) -> [Netns; 2] {
        [self.near, self.far]
    }
}

/// The host's own address on the cable.
pub(crate) fn address(end: End) -> &'static str {
    match end {
        End::Client => "203.0.113.1",
        End::Server => "203.0.113.2",
    }
}

/// Gives `device` of a host its address on the cable.
pub(crate) fn set_address(netns: &Netns, device: &str, end: End) -> Result<()> {
    netns.ip(&["address", "add", &format!("{}/30", address(end)), "dev", device])
}

/// No packet of a client or server is larger than the tunnel takes.
pub(crate) fn set_inner_mtu(site: &Site, end: End) -> Result<()> {
    site.host(end).ip(&["link", "set", "dev", INTERFACE, "mtu", INNER_MTU])
}
