//! The command line of the bench.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;

use crate::table::Table;
use crate::workload::Workload;

/// Measures Tapway and its peers between network namespaces, in interleaved rounds.
#[derive(Debug, Parser)]
#[command(
    name = "netns",
    after_help = "Examples: cargo bench -p tapway --bench netns -- --rounds 3 --only tapway,copy-loop\n          \
                  cargo bench -p tapway --bench netns -- --table overlay,links"
)]
pub(crate) struct Args {
    /// Rounds of every subject; the medians are over these
    #[arg(long, value_name = "N", default_value_t = 5, env = "TAPWAY_BENCH_ROUNDS",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// Make only these tables
    #[arg(long, value_name = "TABLE,…", value_delimiter = ',', value_enum, env = "TAPWAY_BENCH_TABLE")]
    pub(crate) table: Vec<Table>,
    /// Measure only these subjects: tapway, tapway-2w, copy-loop, kernel-bridge, ovs, ovs-tso, vde; of the overlay
    /// tapway-sockets, tapway-sockets-out, tapway-sockets-in, tapway-uplink, tapway-uplink-out, tapway-uplink-in,
    /// kernel-vxlan, ovs-vxlan; of the port kinds tapway-tap, tapway-netdev, tapway-netdev-bypass, tapway-netdev-2w, veth-bridge,
    /// ovs-veth; of the links veth, veth-bridge, macvlan, ipvlan, vlan, vxlan, geneve, vxlan-bridge, tapway-tap
    #[arg(long, value_name = "SUBJECT,…", value_delimiter = ',', env = "TAPWAY_BENCH_ONLY")]
    pub(crate) only: Vec<String>,
    /// Run only these workloads
    #[arg(long, value_name = "WORKLOAD,…", value_delimiter = ',', value_enum)]
    pub(crate) metrics: Vec<Workload>,
    /// How long one workload runs; idle is measured five times as long
    #[arg(long, value_name = "S", default_value_t = 2, env = "TAPWAY_BENCH_SECONDS",
          value_parser = clap::value_parser!(u16).range(1..=60))]
    pub(crate) seconds: u16,
    /// One round of one second: shows that everything works, and no more
    #[arg(long)]
    pub(crate) quick: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    /// Given by the bench to itself: this process already runs in the sandbox
    #[arg(long, hide = true)]
    pub(crate) inside: bool,
}

impl Args {
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { usize::from(self.rounds) }
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { u64::from(self.seconds) })
    }

    /// An idle switch wakes now and then, if at all: it takes a longer look to see how often.
    pub(crate) fn idle_time(&self) -> Duration {
        5 * self.duration()
    }

    pub(crate) fn tables(&self) -> &[Table] {
        if self.table.is_empty() { Table::ALL } else { &self.table }
    }

    /// The table's workloads, as far as they are asked for.
    pub(crate) fn workloads(&self, table: Table) -> Vec<Workload> {
        let asked = |workload: &Workload| self.metrics.is_empty() || self.metrics.contains(workload);
        table.workloads().iter().copied().filter(asked).collect()
    }

    /// Whether a subject is asked for.
    pub(crate) fn measures(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    pub(crate) fn check_names(&self) -> Result<()> {
        let known: Vec<_> =
            self.tables().iter().flat_map(|table| table.subjects()).map(|subject| subject.name()).collect();
        for name in &self.only {
            if !known.contains(&name.as_str()) {
                bail!("no subject is called {name}: there are {}", known.join(", "));
            }
        }
        Ok(())
    }
}
