//! Sites on an underlay: hosts that have a VTEP each, and what carries their tunnels.
//!
//! ```text
//!  cable    site 0 ═════════════════════════ site 1
//!
//!  lan      site 0 ═══╗                 ╔═══ site 2
//!           site 1 ═══╩═ kernel bridge ═╝
//!
//!  routed   site 0 ════════ router ════════ site 1        the second link has an MTU of its own
//! ```
//!
//! A site's interface is called [`UNDERLAY`]. Its addresses are from the documentation ranges and have nothing in common
//! with those of the clients behind the tunnels (198.51.100.0/24 and 2001:db8::/64), so that no frame arrives for the
//! wrong reason.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Command,
    time::Duration,
};

use super::{Host, Net, skipped, wait_until};

/// Name of a site's interface to the underlay.
pub(crate) const UNDERLAY: &str = "underlay0";

/// A host on the underlay.
#[derive(Debug)]
pub(crate) struct Site {
    /// Its namespace.
    pub(crate) host: Host,
    /// Its address.
    pub(crate) v4: Ipv4Addr,
    /// The same for IPv6.
    pub(crate) v6: Ipv6Addr,
}

impl Site {
    /// Its address of a family.
    pub(crate) fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }
}

/// Some sites, and what is between them.
#[derive(Debug)]
pub(crate) struct Underlay {
    sites: Vec<Site>,
    between: Option<Host>,
    routed: bool,
}

impl Underlay {
    /// Two sites, 203.0.113.1 and .2, 2001:db8:ff::1 and ::2, on a veth pair of this MTU.
    pub(crate) fn cable(net: &Net, mtu: u32) -> Self {
        let hosts = [net.host("site0"), net.host("site1")];
        let path = hosts[1].path();
        hosts[0].ip(&format!("link add {UNDERLAY} type veth peer name {UNDERLAY} netns {}", path.display()));
        for host in &hosts {
            host.ip(&format!("link set dev {UNDERLAY} mtu {mtu} up"));
        }
        Self::of(hosts.into_iter().zip(1..).map(|(host, n)| on_link(host, n)).collect(), None, false)
    }

    /// Some sites, 203.0.113.1 and on, 2001:db8:ff::1 and on, at a kernel bridge that floods multicast.
    pub(crate) fn lan(net: &Net, sites: u8, mtu: u32) -> Self {
        let lan = net.host("lan");
        lan.kernel_bridge("br0");
        let sites = (1..=sites).map(|n| {
            let (host, port) = (net.host(&format!("site{}", n - 1)), format!("p{n}"));
            lan.plug("br0", &port, &host, UNDERLAY);
            lan.ip(&format!("link set dev {port} mtu {mtu}"));
            host.ip(&format!("link set dev {UNDERLAY} mtu {mtu}"));
            on_link(host, n)
        });
        Self::of(sites.collect(), Some(lan), false)
    }

    /// Two sites on links of their own, 203.0.113.1 and .65, 2001:db8:ff01::1 and 2001:db8:ff02::1, with a router between.
    ///
    /// Both sites have an MTU of 1500 to the router, and so has the router to site 0: the link to site 1 is the one with
    /// `mtu`, and that no site is told of before a packet of it is too big (RFC 1191, RFC 8201).
    pub(crate) fn routed(net: &Net, mtu: u32) -> Self {
        let router = net.host("router");
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        let sites = (0..2u8).map(|n| {
            let (host, port) = (net.host(&format!("site{n}")), format!("p{n}"));
            let path = host.path();
            router.ip(&format!("link add {port} type veth peer name {UNDERLAY} netns {}", path.display()));
            let site = Site {
                host,
                v4: Ipv4Addr::new(203, 0, 113, 64 * n + 1),
                v6: Ipv6Addr::new(0x2001, 0xdb8, 0xff01 + u16::from(n), 0, 0, 0, 0, 1),
            };
            let (gateway4, gateway6) =
                (format!("203.0.113.{}", 64 * n + 62), format!("2001:db8:ff{:02}::ff", n + 1));
            router.address(&port, &format!("{gateway4}/26"));
            router.address(&port, &format!("{gateway6}/64"));
            site.host.address(UNDERLAY, &format!("{}/26", site.v4));
            site.host.address(UNDERLAY, &format!("{}/64", site.v6));
            router.ip(&format!("link set dev {port} up"));
            site.host.ip(&format!("link set dev {UNDERLAY} up"));
            site.host.ip(&format!("route add default via {gateway4}"));
            site.host.ip(&format!("-6 route add default via {gateway6}"));
            site
        });
        let sites = sites.collect();
        router.ip(&format!("link set dev p1 mtu {mtu}"));
        Self::of(sites, Some(router), true)
    }

    fn of(sites: Vec<Site>, between: Option<Host>, routed: bool) -> Self {
        for site in &sites {
            wait_until("the underlay has a carrier", Duration::from_secs(5), || {
                site.host.ip(&format!("link show dev {UNDERLAY}")).contains("LOWER_UP")
            });
        }
        Self { sites, between, routed }
    }

    /// A site, counted from 0.
    #[track_caller]
    pub(crate) fn site(&self, n: usize) -> &Site {
        &self.sites[n]
    }

    /// All of them.
    pub(crate) fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Everybody's way to `prefix`, which is behind site `n`; and the site's host becomes a router.
    pub(crate) fn route(&self, prefix: &str, n: usize) {
        let site = self.site(n);
        site.host.sysctl("net/ipv4/ip_forward", "1");
        site.host.sysctl("net/ipv6/conf/all/forwarding", "1");
        let words = format!("route replace {prefix} via {}", site.address(prefix.contains(':')));
        if self.routed {
            self.between.iter().for_each(|router| drop(router.ip(&words)));
        } else {
            self.sites
                .iter()
                .filter(|other| other.v4 != site.v4)
                .for_each(|other| drop(other.host.ip(&words)));
        }
    }

    /// Whole checksums and no super-frames from any site, for a peer that takes frames off the cable as they are (Open
    /// vSwitch's userspace datapath); false (and a line that says why) where that cannot be had.
    #[must_use]
    pub(crate) fn without_offloads(&self) -> bool {
        self.sites.iter().all(|site| {
            let done = site.host.command(Command::new("ethtool").args(["-K", UNDERLAY, "tx", "off"]));
            if let Err(e) = &done {
                skipped(&format!("{}: ethtool -K {UNDERLAY} tx off: {e}", site.host.name()));
            }
            done.is_ok()
        })
    }
}

/// Site `n`, which has all others on its link.
fn on_link(host: Host, n: u8) -> Site {
    let site = Site {
        host,
        v4: Ipv4Addr::new(203, 0, 113, n),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, n.into()),
    };
    site.host.address(UNDERLAY, &format!("{}/24", site.v4));
    site.host.address(UNDERLAY, &format!("{}/64", site.v6));
    site
}
