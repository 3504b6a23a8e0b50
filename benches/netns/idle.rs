//! What a switch with many ports costs while nothing happens.
//!
//! Tapway alone: its promise to sleep when there is nothing to do is the thing on trial, not the peers'.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::samples::Samples;
use crate::subjects::{TAPWAY, tapway};
use crate::topology::{End, Netns};
use crate::workload::Metric;

pub(crate) const PORTS: usize = 64;

/// Time for the work of the configuration to end.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn measure(duration: Duration, samples: &mut Samples) -> Result<()> {
    let (client, switch) = (Netns::create(End::Client.name())?, Netns::create("switch")?);
    let daemon = tapway::Daemon::start("tapwayd", &switch, 1)?;
    daemon.ctl(&["bridge", "add", "br0"])?;
    let host = client.path();
    for port in 0..PORTS {
        let (name, interface) = (format!("idle{port}"), format!("eth{port}"));
        daemon.ctl(&[
            "port",
            "add",
            &name,
            "--bridge",
            "br0",
            "--ifname",
            &interface,
            "--netns",
            &host.to_string_lossy(),
        ])?;
    }
    sleep(SETTLE);
    let process = daemon.process();
    let (ticks, scheduled, start) = (process.cpu_seconds()?, process.scheduled_seconds()?, Instant::now());
    sleep(duration);
    let percent = |seconds: f64| 100.0 * seconds / start.elapsed().as_secs_f64();
    samples.push(TAPWAY, Metric::IdleScheduled, percent(process.scheduled_seconds()? - scheduled));
    samples.push(TAPWAY, Metric::IdleTicks, percent(process.cpu_seconds()? - ticks));
    Ok(())
}
