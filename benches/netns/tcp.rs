//! Throughput: iperf3 from the client to the server.
//!
//! iperf3 and not a sender of our own, because everybody can repeat it by hand. Its one thread serves all streams, so
//! with four streams a switch with two workers has one core left for it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::Process;
use crate::topology::{SERVER_ADDRESS, Site};

const PORT: u16 = 5201;

/// What arrived at the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) gbit: f64,
    pub(crate) gbit_per_second: f64,
}

pub(crate) fn transfer(site: &Site, streams: usize, duration: Duration) -> Result<Transfer> {
    let mut server =
        Process::start("iperf3-server", site.server.command("iperf3").args(["-s", "-1", "-i", "0"]))?;
    server.wait_bound("tcp", PORT)?;
    let client = Process::start(
        "iperf3-client",
        site.client
            .command("iperf3")
            .args(["-c", SERVER_ADDRESS, "-J", "-i", "0", "--connect-timeout", "3000"])
            .args(["-t", &duration.as_secs().max(1).to_string(), "-P", &streams.to_string()]),
    )?;
    let output: Value = serde_json::from_str(&client.finish(duration + Duration::from_secs(20))?)?;
    let received = &output["end"]["sum_received"];
    let number = |key: &str| received[key].as_f64().with_context(|| format!("iperf3 printed no {key}"));
    Ok(Transfer { gbit: number("bytes")? * 8.0 / 1e9, gbit_per_second: number("bits_per_second")? / 1e9 })
}
