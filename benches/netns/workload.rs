//! What is done to a subject, and the numbers that come of it.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::samples::Samples;
use crate::subjects::Switch;
use crate::topology::Site;
use crate::udp::FrameSize;
use crate::{host, round_trip, tcp, udp};

/// One thing to do between the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    Tcp1,
    Tcp4,
    Udp64,
    Udp1514,
    Rtt,
    Idle,
}

impl Workload {
    pub(crate) const ALL: &'static [Self] =
        &[Self::Tcp1, Self::Tcp4, Self::Udp64, Self::Udp1514, Self::Rtt, Self::Idle];

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn measure(
        self,
        subject: &str,
        site: &Site,
        switch: &Switch,
        duration: Duration,
        samples: &mut Samples,
    ) -> Result<()> {
        match self {
            Self::Tcp1 => {
                let (cpu_before, busy_before) = (switch.cpu_seconds()?, host::busy_seconds()?);
                let transfer = tcp::transfer(site, 1, duration)?;
                let (cpu_after, busy_after) = (switch.cpu_seconds()?, host::busy_seconds()?);
                samples.push(subject, Metric::Tcp1, transfer.gbit_per_second);
                let per_gbit = |seconds: f64| 1e3 * seconds / transfer.gbit;
                if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
                    samples.push(subject, Metric::CpuSwitch, per_gbit(after - before));
                }
                samples.push(subject, Metric::CpuSystem, per_gbit(busy_after - busy_before));
            }
            Self::Tcp4 => {
                samples.push(subject, Metric::Tcp4, tcp::transfer(site, 4, duration)?.gbit_per_second);
            }
            Self::Udp64 => {
                let rate = udp::frame_rate(site, FrameSize::Smallest, duration)?;
                samples.push(subject, Metric::Udp64, rate / 1e3);
            }
            Self::Udp1514 => {
                let rate = udp::frame_rate(site, FrameSize::Largest, duration)?;
                samples.push(subject, Metric::Udp1514, rate / 1e3);
            }
            Self::Rtt => {
                samples.push(subject, Metric::RoundTrip, round_trip::median_micros(site, 3 * duration / 4)?);
            }
            // Not a thing between two hosts: `idle.rs` does it once, with many ports.
            Self::Idle => {}
        }
        Ok(())
    }
}

/// One kind of number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    Tcp1,
    Tcp4,
    Udp64,
    Udp1514,
    RoundTrip,
    CpuSwitch,
    CpuSystem,
    Memory,
    IdleScheduled,
    IdleTicks,
}

impl Metric {
    /// In the order of the report.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Tcp1,
        Self::Tcp4,
        Self::Udp64,
        Self::Udp1514,
        Self::RoundTrip,
        Self::CpuSwitch,
        Self::CpuSystem,
        Self::Memory,
        Self::IdleScheduled,
        Self::IdleTicks,
    ];

    /// Key in the JSON file; stable, so that files of different commits can be compared.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp_1_stream_gbit_per_s",
            Self::Tcp4 => "tcp_4_streams_gbit_per_s",
            Self::Udp64 => "udp_64_kpps",
            Self::Udp1514 => "udp_1514_kpps",
            Self::RoundTrip => "round_trip_us",
            Self::CpuSwitch => "cpu_switch_ms_per_gbit",
            Self::CpuSystem => "cpu_system_ms_per_gbit",
            Self::Memory => "memory_mib",
            Self::IdleScheduled => "idle_64_ports_percent",
            Self::IdleTicks => "idle_64_ports_ticks_percent",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, 1 stream",
            Self::Tcp4 => "TCP, 4 streams",
            Self::Udp64 => "UDP, 64-byte frames",
            Self::Udp1514 => "UDP, 1514-byte frames",
            Self::RoundTrip => "Round trip",
            Self::CpuSwitch => "CPU of the switch",
            Self::CpuSystem => "CPU of the machine",
            Self::Memory => "Memory of the switch",
            Self::IdleScheduled => "Idle with 64 ports",
            Self::IdleTicks => "the same, by ticks",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp4 => "Gbit/s",
            Self::Udp64 | Self::Udp1514 => "kpps",
            Self::RoundTrip => "µs",
            Self::CpuSwitch | Self::CpuSystem => "ms/Gbit",
            Self::Memory => "MiB",
            Self::IdleScheduled | Self::IdleTicks => "% core",
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::Tcp1 | Self::Tcp4 | Self::Udp64 | Self::Udp1514)
    }

    /// The value with as many digits as are worth reading.
    pub(crate) fn format(self, value: f64) -> String {
        let digits = match self {
            Self::IdleScheduled | Self::IdleTicks => 3,
            _ if value < 10.0 => 2,
            _ if value < 100.0 => 1,
            _ => 0,
        };
        format!("{value:.digits$}")
    }
}
