//! Tapway itself: the daemon and the tool an operator would use, nothing linked in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Subject, Switch};
use crate::host;
use crate::process::{Process, run};
use crate::topology::{End, INTERFACE, Site};

/// Socket and state of the daemon.
const DIRECTORY: &str = "/run/bench-tapway";
const SOCKET: &str = "/run/bench-tapway/tapway.sock";

pub(crate) struct Tapway {
    pub(crate) name: &'static str,
    /// Workers of the daemon, and queues of each TAP.
    pub(crate) workers: usize,
}

impl Subject for Tapway {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        let program = ["tapwayd", "tapwayctl"].into_iter().find(|program| !binary(program).is_file())?;
        Some(format!(
            "{} is not built: run `make bench`, or `cargo build --release`",
            binary(program).display()
        ))
    }

    fn version(&self) -> String {
        let plural = if self.workers == 1 { "" } else { "s" };
        format!("tapwayd, {0} worker{plural}, TAPs with {0} queue{plural}", self.workers)
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let daemon = Daemon::start(site, self.workers)?;
        daemon.ctl(&["bridge", "add", "br0"])?;
        for end in End::BOTH {
            let netns = site.host(end).path();
            daemon.ctl(&[
                "port",
                "add",
                end.name(),
                "--bridge",
                "br0",
                "--ifname",
                INTERFACE,
                "--netns",
                &netns.to_string_lossy(),
                "--address",
                &end.cidr(),
                "--queues",
                &self.workers.to_string(),
            ])?;
        }
        Ok(Switch::of([daemon.process]))
    }
}

/// A `tapwayd` in the switch's namespace, and its socket.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
}

impl Daemon {
    pub(crate) fn start(site: &Site, workers: usize) -> Result<Self> {
        // Each daemon starts with no memory of the one before.
        if Path::new(DIRECTORY).exists() {
            std::fs::remove_dir_all(DIRECTORY)?;
        }
        std::fs::create_dir(DIRECTORY).with_context(|| format!("creating {DIRECTORY}"))?;
        let mut command = site.switch.command(binary("tapwayd"));
        command.args(["--socket", SOCKET, "--state-dir", DIRECTORY, "--workers", &workers.to_string()]);
        let mut daemon = Self { process: Process::start("tapwayd", &mut command)? };
        daemon.process.wait_until("socket", || Path::new(SOCKET).exists())?;
        daemon.ctl(&["status", "--wait", "5s"])?;
        Ok(daemon)
    }

    /// One `tapwayctl` command; the daemon's refusal is the error.
    pub(crate) fn ctl(&self, args: &[&str]) -> Result<()> {
        run(Command::new(binary("tapwayctl")).args(["--socket", SOCKET]).args(args)).map(drop)
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }
}

/// A program of the workspace, as built beside this bench.
fn binary(program: &str) -> PathBuf {
    host::profile_directory().unwrap_or_default().join(program)
}
