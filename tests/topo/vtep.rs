//! Our own end of a tunnel at a site: a bridge with a tunnel port and a client, all in one switch.
//!
//! ```text
//!   client ──eth0 (TAP)┤ br0 ├ overlay0 ── sockets in site 0 ══ underlay0
//!   client ──eth0 (TAP)┤ br1 ├ overlay1 ── uplink1, routed by site 1 ══ underlay0
//! ```
//!
//! The switch stays in its home namespace: sockets and uplinks are opened in the namespace of the site.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Host, Net,
    kernel_vtep::{v4, v6},
    switch::Switch,
    underlay::{Site, UNDERLAY, Underlay},
};

/// How a tunnel gets to the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// UDP sockets with the site's address.
    Sockets,
    /// An uplink with an address of its own, to which the site routes.
    Uplink,
}

impl Way {
    /// What every test of a tunnel is to hold for.
    pub(crate) const BOTH: [Self; 2] = [Self::Sockets, Self::Uplink];
}

/// An end of ours at a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vtep<'a> {
    underlay: &'a Underlay,
    n: usize,
    way: Way,
    over_v6: bool,
}

impl<'a> Vtep<'a> {
    /// At site `n`, not made yet.
    pub(crate) fn at(underlay: &'a Underlay, n: usize, way: Way, over_v6: bool) -> Self {
        Self { underlay, n, way, over_v6 }
    }

    fn site(&self) -> &'a Site {
        self.underlay.site(self.n)
    }

    /// The address its tunnel is from.
    pub(crate) fn local(&self) -> IpAddr {
        match (self.way, self.over_v6) {
            (Way::Sockets, v6) => self.site().address(v6),
            (Way::Uplink, false) => Ipv4Addr::new(203, 0, 113, 129 + 4 * self.n as u8).into(),
            (Way::Uplink, true) => Ipv6Addr::new(0x2001, 0xdb8, 0xfe, self.n as u16, 0, 0, 0, 1).into(),
        }
    }

    /// The address of site 1 or, from there, site 0: of whoever else is on a cable.
    pub(crate) fn far(&self) -> IpAddr {
        self.underlay.site(1 - self.n).address(self.over_v6)
    }

    /// The tunnel port's name.
    pub(crate) fn port(&self) -> String {
        format!("overlay{}", self.n)
    }

    /// The bridge's name.
    pub(crate) fn bridge(&self) -> String {
        format!("br{}", self.n)
    }

    /// The longest packet that fits: the underlay's less IP, UDP, VXLAN or Geneve without options, and Ethernet.
    pub(crate) fn inner_mtu(&self) -> u32 {
        self.site().host.mtu(UNDERLAY) - if self.over_v6 { 40 } else { 20 } - 8 - 8 - 14
    }

    /// Makes the bridge, the tunnel port with `words` (`--type vxlan --vni 42 --remote …`), and a client behind:
    /// [`v4`]`(n + 1)`, [`v6`]`(n + 1)`.
    #[track_caller]
    pub(crate) fn start(&self, net: &Net, switch: &Switch, words: &str) -> Host {
        self.tunnel(switch, words);
        self.client(net, switch, self.n as u8 + 1, "")
    }

    /// Makes the bridge and the tunnel port.
    #[track_caller]
    pub(crate) fn tunnel(&self, switch: &Switch, words: &str) {
        let (netns, local) = (self.site().host.path(), self.local());
        let netns = netns.display();
        let place = match self.way {
            Way::Sockets => format!("--netns {netns}"),
            Way::Uplink => {
                let (n, len) = (self.n, if self.over_v6 { 64 } else { 30 });
                switch.apply(&format!(
                    "[[uplink]]\nname = \"uplink{n}\"\naddress = \"{local}/{len}\"\nnetns = \"{netns}\"\n"
                ));
                let prefix = if self.over_v6 {
                    format!("{}/64", Ipv6Addr::new(0x2001, 0xdb8, 0xfe, n as u16, 0, 0, 0, 0))
                } else {
                    format!("{}/30", Ipv4Addr::new(203, 0, 113, 128 + 4 * n as u8))
                };
                self.underlay.route(&prefix, n);
                String::new()
            }
        };
        switch.bridge(&self.bridge());
        switch.port(&format!("{} --bridge {} --local {local} {place} {words}", self.port(), self.bridge()));
    }

    /// A client at the bridge, the `n`-th of the overlay.
    #[track_caller]
    pub(crate) fn client(&self, net: &Net, switch: &Switch, n: u8, flags: &str) -> Host {
        let client = net.host(&format!("client{n}"));
        let addresses = format!("--address {}/24 --address {}/64", v4(n), v6(n));
        let flags = format!("--mtu {} {addresses} {flags}", self.inner_mtu());
        switch.tap_at(&self.bridge(), client.name(), &client, &flags);
        client
    }
}
