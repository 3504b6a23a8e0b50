//! What the project promises, checked against a run. A miss is a line in the report, never a failed run: the numbers
//! of a busy machine prove nothing.

use crate::samples::Samples;
use crate::subjects::overlay::{
    KERNEL, OPEN_VSWITCH, SOCKETS, SOCKETS_IN, SOCKETS_OUT, UPLINK_IN, UPLINK_OUT,
};
use crate::subjects::{TAPWAY, TAPWAY_TWO_WORKERS, veths};
use crate::workload::Metric;

/// A bound on a number.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

/// A promise about one metric of one subject, in multiples of a peer's or absolute.
#[derive(Debug)]
pub(crate) struct Target {
    metric: Metric,
    subject: &'static str,
    peer: Option<&'static str>,
    bound: Bound,
}

const fn target(metric: Metric, subject: &'static str, peer: Option<&'static str>, bound: Bound) -> Target {
    Target { metric, subject, peer, bound }
}

pub(crate) const SWITCH: &[Target] = &[
    target(Metric::Tcp1, TAPWAY, Some("copy-loop"), Bound::AtLeast(0.95)),
    target(Metric::Tcp1, TAPWAY, Some("ovs"), Bound::AtLeast(6.0)),
    target(Metric::Tcp4, TAPWAY_TWO_WORKERS, Some("copy-loop"), Bound::AtLeast(1.1)),
    target(Metric::Udp64, TAPWAY, Some("copy-loop"), Bound::AtLeast(0.95)),
    target(Metric::RoundTrip, TAPWAY, Some("copy-loop"), Bound::AtMost(1.2)),
    target(Metric::IdleScheduled, TAPWAY, None, Bound::Below(0.5)),
];

pub(crate) const OVERLAY: &[Target] = &[
    target(Metric::Tcp1, SOCKETS, Some(KERNEL), Bound::AtLeast(0.5)),
    target(Metric::Tcp1, SOCKETS, Some(OPEN_VSWITCH), Bound::AtLeast(6.0)),
    target(Metric::Tcp1, SOCKETS_OUT, Some(KERNEL), Bound::AtLeast(0.5)),
    target(Metric::Tcp1, SOCKETS_OUT, Some(OPEN_VSWITCH), Bound::AtLeast(6.0)),
    target(Metric::Tcp1, SOCKETS_IN, Some(KERNEL), Bound::AtLeast(0.5)),
    target(Metric::Tcp1, SOCKETS_IN, Some(OPEN_VSWITCH), Bound::AtLeast(6.0)),
    target(Metric::Tcp1, UPLINK_OUT, Some(KERNEL), Bound::AtLeast(0.7)),
    target(Metric::Tcp1, UPLINK_OUT, Some(OPEN_VSWITCH), Bound::AtLeast(10.0)),
    target(Metric::Tcp1, UPLINK_IN, Some(KERNEL), Bound::AtLeast(0.7)),
    target(Metric::Tcp1, UPLINK_IN, Some(OPEN_VSWITCH), Bound::AtLeast(10.0)),
    target(Metric::Udp64, SOCKETS, Some(OPEN_VSWITCH), Bound::AtLeast(1.3)),
    target(Metric::Udp64, SOCKETS, Some(KERNEL), Bound::AtLeast(1.0)),
];

pub(crate) const PORTS: &[Target] = &[
    target(Metric::Tcp1, veths::NETDEV, Some(veths::BRIDGE), Bound::AtLeast(0.9)),
    target(Metric::Tcp1, veths::NETDEV, Some(veths::OPEN_VSWITCH), Bound::AtLeast(6.0)),
    target(Metric::Udp64, veths::NETDEV, Some(veths::OPEN_VSWITCH), Bound::AtLeast(1.2)),
];

impl Target {
    pub(crate) fn text(&self) -> String {
        let (words, limit) = match self.bound {
            Bound::AtLeast(limit) => ("at least", limit),
            Bound::AtMost(limit) => ("at most", limit),
            Bound::Below(limit) => ("below", limit),
        };
        let of = match self.peer {
            Some(peer) => format!(" × {peer}"),
            None => format!(" {}", self.metric.unit()),
        };
        format!("{}: {} {words} {limit}{of}", self.metric.title(), self.subject)
    }

    /// The subjects it speaks of.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.subject).chain(self.peer)
    }

    /// The number the bound is on, if both sides were measured.
    pub(crate) fn value(&self, samples: &Samples) -> Option<f64> {
        match self.peer {
            Some(peer) => samples.ratio(self.metric, self.subject, peer),
            None => samples.summary(self.subject, self.metric).map(|summary| summary.median),
        }
    }

    pub(crate) fn holds(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast(limit) => value >= limit,
            Bound::AtMost(limit) => value <= limit,
            Bound::Below(limit) => value < limit,
        }
    }
}
