//! The switches on trial, one file each.
//!
//! A subject is given a [`Site`] and joins its two hosts; what it needs for that, processes and namespaces, is its
//! [`Switch`].
//! Every subject runs with the defaults of its author, save what its file says.

mod copy_loop;
mod kernel_bridge;
pub(crate) mod links;
pub(crate) mod overlay;
mod ovs;
pub(crate) mod tapway;
mod vde;
pub(crate) mod veths;

use anyhow::Result;

use crate::process::{Process, installed};
use crate::topology::{Netns, Site};

pub(crate) const TAPWAY: &str = "tapway";
/// The same as [`TAPWAY`], where it stands beside other kinds of ports.
pub(crate) const TAPWAY_TAP: &str = "tapway-tap";
pub(crate) const TAPWAY_TWO_WORKERS: &str = "tapway-2w";

/// One way to join the two hosts.
pub(crate) trait Subject {
    /// Name in tables, files and on the command line.
    fn name(&self) -> &'static str;

    /// Why it cannot be measured on this machine, if so.
    fn missing(&self) -> Option<String>;

    /// What exactly was measured, for the report.
    fn version(&self) -> String;

    /// Joins the hosts: on return each has its `eth0`, up and with its address.
    fn start(&self, site: &Site) -> Result<Switch>;
}

/// The subjects of the switch table, in the order of the report.
pub(crate) fn switches() -> Vec<Box<dyn Subject>> {
    vec![
        Box::new(tapway::Tapway { name: TAPWAY, workers: 1 }),
        Box::new(tapway::Tapway { name: TAPWAY_TWO_WORKERS, workers: 2 }),
        Box::new(copy_loop::CopyLoop),
        Box::new(kernel_bridge::KernelBridge { name: "kernel-bridge" }),
        Box::new(ovs::OpenVswitch { name: "ovs", tso: false }),
        Box::new(ovs::OpenVswitch { name: "ovs-tso", tso: true }),
        Box::new(vde::VdeSwitch),
    ]
}

/// The subjects of the overlay table, in the order of the report.
pub(crate) fn overlays() -> Vec<Box<dyn Subject>> {
    use overlay::{Overlay, Vtep};
    let overlay = |name, near, far| -> Box<dyn Subject> { Box::new(Overlay { name, near, far }) };
    vec![
        overlay(overlay::SOCKETS, Vtep::Sockets, Vtep::Sockets),
        overlay(overlay::SOCKETS_OUT, Vtep::Sockets, Vtep::Kernel),
        overlay(overlay::SOCKETS_IN, Vtep::Kernel, Vtep::Sockets),
        overlay(overlay::UPLINK, Vtep::Uplink, Vtep::Uplink),
        overlay(overlay::UPLINK_OUT, Vtep::Uplink, Vtep::Kernel),
        overlay(overlay::UPLINK_IN, Vtep::Kernel, Vtep::Uplink),
        overlay(overlay::KERNEL, Vtep::Kernel, Vtep::Kernel),
        overlay(overlay::OPEN_VSWITCH, Vtep::OpenVswitch, Vtep::Kernel),
    ]
}

/// The subjects of the table of links, in the order of the report.
pub(crate) fn links() -> Vec<Box<dyn Subject>> {
    use links::{Link, TAPWAY_TAP, VXLAN_BRIDGE};
    use overlay::{Overlay, Vtep};
    let mut all: Vec<Box<dyn Subject>> = Vec::new();
    for link in Link::ALL {
        all.push(Box::new(link));
        if link == Link::Veth {
            all.push(Box::new(kernel_bridge::KernelBridge { name: links::VETH_BRIDGE }));
        }
    }
    all.push(Box::new(Overlay { name: VXLAN_BRIDGE, near: Vtep::Kernel, far: Vtep::Kernel }));
    all.push(Box::new(tapway::Tapway { name: TAPWAY_TAP, workers: 1 }));
    all
}

/// The subjects of the table of port kinds, in the order of the report.
pub(crate) fn ports() -> Vec<Box<dyn Subject>> {
    use veths::{BRIDGE, NETDEV, Netdev, OpenVswitch};
    vec![
        Box::new(tapway::Tapway { name: TAPWAY_TAP, workers: 1 }),
        Box::new(Netdev { name: NETDEV, workers: 1, qdisc_bypass: false }),
        Box::new(Netdev { name: "tapway-netdev-bypass", workers: 1, qdisc_bypass: true }),
        Box::new(Netdev { name: "tapway-netdev-2w", workers: 2, qdisc_bypass: false }),
        Box::new(kernel_bridge::KernelBridge { name: BRIDGE }),
        Box::new(OpenVswitch),
    ]
}

/// What a subject consists of: its processes in the order they were started, ended in the opposite order, and the
/// namespaces they ran in, which go after them.
#[derive(Debug)]
pub(crate) struct Switch {
    processes: Vec<Process>,
    _namespaces: Vec<Netns>,
}

impl Switch {
    pub(crate) fn of(
        processes: impl IntoIterator<Item = Process>,
        namespaces: impl IntoIterator<Item = Netns>,
    ) -> Self {
        Self { processes: processes.into_iter().collect(), _namespaces: namespaces.into_iter().collect() }
    }

    /// Processor time used so far, in seconds; `None` for a switch inside the kernel.
    pub(crate) fn cpu_seconds(&self) -> Result<Option<f64>> {
        if self.processes.is_empty() {
            return Ok(None);
        }
        self.processes.iter().map(Process::cpu_seconds).sum::<Result<f64>>().map(Some)
    }

    /// Resident memory in bytes; `None` for a switch inside the kernel.
    pub(crate) fn resident_memory(&self) -> Result<Option<u64>> {
        if self.processes.is_empty() {
            return Ok(None);
        }
        self.processes.iter().map(Process::resident_memory).sum::<Result<u64>>().map(Some)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

/// The first of some programs that is not installed, as a reason to skip a subject.
fn first_missing(programs: &[&str], package: &str) -> Option<String> {
    let program = programs.iter().find(|program| !installed(program))?;
    Some(format!("no {program} on this machine (package {package})"))
}
