//! Switches that take over one end of a veth pair each, where the host has the other: Tapway's netdev ports, and Open vSwitch's
//! userspace datapath. Both use packet sockets; the kernel's bridge has the same veths beside them.

use std::process::Command;

use anyhow::Result;

use super::{
    Subject, Switch, first_missing, ovs,
    tapway::{self, Daemon},
};
use crate::process::run;
use crate::topology::{End, INTERFACE, Netns, Site};

pub(crate) const NETDEV: &str = "tapway-netdev";
pub(crate) const BRIDGE: &str = "veth-bridge";
pub(crate) const OPEN_VSWITCH: &str = "ovs-veth";

/// Netdev ports.
pub(crate) struct Netdev {
    pub(crate) name: &'static str,
    /// Workers of the daemon, and queues of each port.
    pub(crate) workers: usize,
    /// `--qdisc-bypass`
    pub(crate) qdisc_bypass: bool,
}

impl Subject for Netdev {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        tapway::missing()
    }

    fn version(&self) -> String {
        let plural = if self.workers == 1 { "" } else { "s" };
        let bypass = if self.qdisc_bypass { ", qdisc bypass" } else { "" };
        format!("tapwayd, {} worker{plural}, netdev ports at veths{bypass}", self.workers)
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        let daemon = Daemon::start("tapwayd", &netns, self.workers)?;
        daemon.ctl(&["bridge", "add", "br0"])?;
        for end in End::BOTH {
            site.veth(&netns, end.name(), end)?;
            let port = ["port", "add", end.name(), "--bridge", "br0", "--type", "netdev"];
            let bypass = ["--qdisc-bypass", if self.qdisc_bypass { "on" } else { "off" }];
            daemon.ctl(&[&port[..], &bypass].concat())?;
        }
        Ok(Switch::of([daemon.into_process()], [netns]))
    }
}

/// Open vSwitch's userspace datapath. It takes frames as they are, so the hosts have to finish them.
pub(crate) struct OpenVswitch;

impl Subject for OpenVswitch {
    fn name(&self) -> &'static str {
        OPEN_VSWITCH
    }

    fn missing(&self) -> Option<String> {
        ovs::missing().or_else(|| first_missing(&["ethtool"], "ethtool"))
    }

    fn version(&self) -> String {
        format!("{}, userspace datapath, veths, tx offloads of the hosts off", ovs::version())
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        let instance = ovs::Instance::start(&netns, false)?;
        instance.bridge("br0")?;
        for end in End::BOTH {
            site.veth(&netns, end.name(), end)?;
            without_offloads(site.host(end).command("ethtool"))?;
            instance.port("br0", end.name(), &["type=system"])?;
        }
        Ok(Switch::of(instance.into_processes(), [netns]))
    }
}

fn without_offloads(mut ethtool: Command) -> Result<()> {
    run(ethtool.args(["-K", INTERFACE, "tx", "off"])).map(drop)
}
