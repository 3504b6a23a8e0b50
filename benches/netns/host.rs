//! The machine a run was made on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{USER_HZ, run};

/// What a reader needs to know to judge the numbers.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) load: String,
}

impl Host {
    pub(crate) fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            commit: commit().unwrap_or_else(|_| "unknown".to_owned()),
            date: run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))
                .unwrap_or_default()
                .trim()
                .to_owned(),
            load: loadavg.split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }
}

fn commit() -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |args: &[&str]| run(Command::new("git").arg("-C").arg(root).args(args));
    let dirty = if git(&["status", "--porcelain"])?.is_empty() { "" } else { "-dirty" };
    Ok(format!("{}{dirty}", git(&["rev-parse", "HEAD"])?.trim()))
}

/// Processor time of the whole machine spent on anything but idling, in seconds (`/proc/stat`): the one figure that
/// also holds what a kernel path costs in other processes' context and in softirqs.
pub(crate) fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .context("no cpu line in /proc/stat")?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // proc(5): user nice system idle iowait irq softirq steal; guest time is in user already.
    Ok([0, 1, 2, 5, 6].iter().filter_map(|&index| fields.get(index)).sum::<f64>() / USER_HZ)
}

/// The profile's directory this program was built into: `target/release` for `target/release/deps/netns-…`.
pub(crate) fn profile_directory() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?;
    Ok(program.ancestors().nth(2).context("this program is not in a target directory")?.to_owned())
}

pub(crate) fn target_directory() -> Result<PathBuf> {
    Ok(profile_directory()?.parent().context("this program is not in a target directory")?.to_owned())
}
