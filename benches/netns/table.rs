//! The tables of a run: which subjects stand beside each other, at what work, and what is promised of them.

use clap::ValueEnum;

use crate::subjects::links::VETH;
use crate::subjects::overlay::{KERNEL, OPEN_VSWITCH};
use crate::subjects::{self, Subject, veths};
use crate::targets::{self, Target};
use crate::workload::Workload;

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Table {
    /// Two hosts at one switch.
    Switch,
    /// Two hosts behind a tunnel each.
    Overlay,
    /// Two hosts at one switch, by each kind of port.
    Ports,
    /// Two hosts on each type of link.
    Links,
}

impl Table {
    pub(crate) const ALL: &'static [Self] = &[Self::Switch, Self::Overlay, Self::Ports, Self::Links];

    /// Name of the files that hold it.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Switch => "netns",
            Self::Overlay => "overlay",
            Self::Ports => "ports",
            Self::Links => "links",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Switch => "Two namespaces joined by a switch",
            Self::Overlay => "Two hosts joined by VXLAN",
            Self::Ports => "Two namespaces joined by each kind of port",
            Self::Links => "Two hosts on each type of link",
        }
    }

    pub(crate) fn subjects(self) -> Vec<Box<dyn Subject>> {
        match self {
            Self::Switch => subjects::switches(),
            Self::Overlay => subjects::overlays(),
            Self::Ports => subjects::ports(),
            Self::Links => subjects::links(),
        }
    }

    pub(crate) fn workloads(self) -> &'static [Workload] {
        match self {
            Self::Switch => Workload::ALL,
            Self::Overlay | Self::Links => &[Workload::Tcp1, Workload::Udp64, Workload::Rtt],
            Self::Ports => {
                &[Workload::Tcp1, Workload::Tcp4, Workload::Udp64, Workload::Udp1514, Workload::Rtt]
            }
        }
    }

    pub(crate) fn targets(self) -> &'static [Target] {
        match self {
            Self::Switch => targets::SWITCH,
            Self::Overlay => targets::OVERLAY,
            Self::Ports => targets::PORTS,
            Self::Links => &[], // the kernel's links are what they are
        }
    }

    /// The subjects that the others are measured by, where it is not Tapway that is compared with each.
    pub(crate) fn yardsticks(self) -> &'static [&'static str] {
        match self {
            Self::Switch => &[],
            Self::Overlay => &[KERNEL, OPEN_VSWITCH],
            Self::Ports => &[veths::BRIDGE, veths::OPEN_VSWITCH],
            Self::Links => &[VETH],
        }
    }
}
