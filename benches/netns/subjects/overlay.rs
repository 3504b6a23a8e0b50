//! VXLAN between two hosts, VNI 42 on port 4789, each end of a kind.
//!
//! The client sends, so the near end encapsulates the TCP stream and the far end takes it out again: `…-out` has Tapway
//! at the near end and the kernel at the far end, `…-in` the other way round.

use anyhow::{Context as _, Result};

use super::kernel_bridge::{self, BRIDGE};
use super::{Subject, Switch, first_missing, ovs, tapway};
use crate::process::Process;
use crate::topology::{End, Netns, Site};
use crate::underlay::{self, CABLE, INNER_MTU, Underlay};

pub(crate) const KERNEL: &str = "kernel-vxlan";
pub(crate) const OPEN_VSWITCH: &str = "ovs-vxlan";
pub(crate) const SOCKETS: &str = "tapway-sockets";
pub(crate) const SOCKETS_OUT: &str = "tapway-sockets-out";
pub(crate) const SOCKETS_IN: &str = "tapway-sockets-in";
pub(crate) const UPLINK: &str = "tapway-uplink";
pub(crate) const UPLINK_OUT: &str = "tapway-uplink-out";
pub(crate) const UPLINK_IN: &str = "tapway-uplink-in";

const VNI: &str = "42";
/// IANA's; also what `ip` has to be told, its own default is older (8472).
const PORT: &str = "4789";

/// What encapsulates at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vtep {
    /// A vxlan device and a veth pair at a bridge.
    Kernel,
    /// `tapwayd` with one worker: a TAP port and a vxlan port, over UDP sockets.
    Sockets,
    /// The same over an uplink: the tunnel's address is the switch's own.
    Uplink,
    /// Open vSwitch's userspace datapath, a TAP and a vxlan port.
    OpenVswitch,
}

pub(crate) struct Overlay {
    pub(crate) name: &'static str,
    /// The client is behind this one.
    pub(crate) near: Vtep,
    /// The server is behind this one.
    pub(crate) far: Vtep,
}

impl Overlay {
    fn vtep(&self, end: End) -> Vtep {
        match end {
            End::Client => self.near,
            End::Server => self.far,
        }
    }
}

impl Subject for Overlay {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        End::BOTH.into_iter().find_map(|end| self.vtep(end).missing())
    }

    fn version(&self) -> String {
        format!("{} to {}", self.near.version(), self.far.version())
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let underlay = Underlay::create()?;
        let mut processes = Vec::new();
        for end in End::BOTH {
            let tunnel = Tunnel { site, underlay: &underlay, end, far: self.vtep(end.other()) };
            processes.extend(tunnel.start(self.vtep(end)).with_context(|| format!("{} end", end.name()))?);
        }
        Ok(Switch::of(processes, underlay.into_namespaces()))
    }
}

impl Vtep {
    fn missing(self) -> Option<String> {
        match self {
            Self::Kernel => None,
            Self::Sockets | Self::Uplink => tapway::missing(),
            Self::OpenVswitch => ovs::missing().or_else(|| first_missing(&["ethtool"], "ethtool")),
        }
    }

    fn version(self) -> String {
        match self {
            Self::Kernel => "kernel vxlan, bridge, veth, bridge-nf-call-* off".to_owned(),
            Self::Sockets => "tapwayd over UDP sockets".to_owned(),
            Self::Uplink => "tapwayd over an uplink".to_owned(),
            Self::OpenVswitch => {
                format!("{}, userspace datapath, tx offloads of the cable off", ovs::version())
            }
        }
    }

    /// The address its tunnel is from.
    fn address(self, end: End) -> &'static str {
        match (self, end) {
            (Self::Uplink, End::Client) => "203.0.113.129",
            (Self::Uplink, End::Server) => "203.0.113.133",
            (_, end) => underlay::address(end),
        }
    }

    /// What the other host has to route to this one, where the address is not the host's own.
    fn prefix(self, end: End) -> Option<&'static str> {
        match (self, end) {
            (Self::Uplink, End::Client) => Some("203.0.113.128/30"),
            (Self::Uplink, End::Server) => Some("203.0.113.132/30"),
            _ => None,
        }
    }
}

/// One end of the tunnel, to be made.
struct Tunnel<'run> {
    site: &'run Site,
    underlay: &'run Underlay,
    end: End,
    /// What is at the other end.
    far: Vtep,
}

impl Tunnel<'_> {
    fn netns(&self) -> &Netns {
        self.underlay.netns(self.end)
    }

    fn remote(&self) -> &'static str {
        self.far.address(self.end.other())
    }

    fn start(&self, vtep: Vtep) -> Result<Vec<Process>> {
        let processes = match vtep {
            Vtep::Kernel => self.kernel()?,
            Vtep::Sockets | Vtep::Uplink => self.tapway(vtep)?,
            Vtep::OpenVswitch => self.open_vswitch()?,
        };
        underlay::set_inner_mtu(self.site, self.end)?;
        Ok(processes)
    }

    /// Gives `device` the host's address, and the host the way to the other end.
    fn address(&self, device: &str) -> Result<()> {
        underlay::set_address(self.netns(), device, self.end)?;
        if let Some(prefix) = self.far.prefix(self.end.other()) {
            self.netns().ip(&["route", "add", prefix, "via", underlay::address(self.end.other())])?;
        }
        Ok(())
    }

    fn kernel(&self) -> Result<Vec<Process>> {
        let (netns, port) = (self.netns(), self.end.name());
        self.address(CABLE)?;
        kernel_bridge::bridge(netns)?;
        let ends = ["local", underlay::address(self.end), "remote", self.remote()];
        // With the device named, the kernel takes the 50 octets of the outer headers off its MTU by itself.
        let device = ["link", "add", "vxlan0", "type", "vxlan", "id", VNI, "dstport", PORT, "dev", CABLE];
        netns.ip(&[&device[..], &ends].concat())?;
        self.site.veth(netns, port, self.end)?;
        for device in ["vxlan0", port] {
            netns.ip(&["link", "set", device, "mtu", INNER_MTU, "master", BRIDGE, "up"])?;
        }
        Ok(Vec::new())
    }

    fn tapway(&self, vtep: Vtep) -> Result<Vec<Process>> {
        let (netns, local) = (self.netns(), vtep.address(self.end));
        self.address(CABLE)?;
        let daemon = tapway::Daemon::start(&format!("tapwayd-{}", self.end.name()), netns, 1)?;
        if vtep == Vtep::Uplink {
            // The host is the router between its cable and the switch.
            netns.sysctl("net.ipv4.ip_forward", "1")?;
            let (cidr, path) = (format!("{local}/30"), netns.path());
            daemon.ctl(&[
                "uplink",
                "add",
                "uplink0",
                "--address",
                &cidr,
                "--netns",
                &path.to_string_lossy(),
            ])?;
        }
        daemon.ctl(&["bridge", "add", BRIDGE])?;
        daemon.tap(self.site, self.end, &["--mtu", INNER_MTU])?;
        let port = ["port", "add", "overlay", "--bridge", BRIDGE, "--type", "vxlan"];
        let tunnel = ["--vni", VNI, "--local", local, "--remote", self.remote(), "--dst-port", PORT];
        daemon.ctl(&[&port[..], &tunnel].concat())?;
        Ok(vec![daemon.into_process()])
    }

    /// The cable is a port of a bridge of its own, whose internal interface has the host's address: so Open vSwitch's
    /// documentation wants it, because the userspace datapath finds routes and neighbours by the host's tables.
    fn open_vswitch(&self) -> Result<Vec<Process>> {
        let netns = self.netns();
        // It reads the cable by AF_PACKET without vnet header: it would drop super-frames, and outer headers whose
        // checksum the sender's kernel left for the hardware.
        self.underlay.without_offloads()?;
        let mut instance = ovs::Instance::start(netns, false)?;
        instance.bridge("br-phy")?;
        instance.port("br-phy", CABLE, &["type=system"])?;
        self.address("br-phy")?;
        netns.ip(&["link", "set", "br-phy", "up"])?;
        instance.bridge(BRIDGE)?;
        let remote = format!("options:remote_ip={}", self.remote());
        let (key, port) = (format!("options:key={VNI}"), format!("options:dst_port={PORT}"));
        instance.port(BRIDGE, "overlay", &["type=vxlan", &remote, &key, &port])?;
        instance.tap(netns, self.site, self.end)?;
        Ok(instance.into_processes().into())
    }
}
