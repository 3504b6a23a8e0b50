//! Tapway itself: the daemon and the tool an operator would use, nothing linked in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Subject, Switch};
use crate::host;
use crate::process::{Process, run};
use crate::topology::{End, INTERFACE, Netns, Site};

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
        missing()
    }

    fn version(&self) -> String {
        let plural = if self.workers == 1 { "" } else { "s" };
        format!("tapwayd, {0} worker{plural}, TAPs with {0} queue{plural}", self.workers)
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        let daemon = Daemon::start("tapwayd", &netns, self.workers)?;
        daemon.ctl(&["bridge", "add", "br0"])?;
        for end in End::BOTH {
            daemon.tap(site, end, &["--queues", &self.workers.to_string()])?;
        }
        Ok(Switch::of([daemon.process], [netns]))
    }
}

/// Why Tapway cannot be measured here, if so.
pub(super) fn missing() -> Option<String> {
    let program = ["tapwayd", "tapwayctl"].into_iter().find(|program| !binary(program).is_file())?;
    Some(format!("{} is not built: run `make bench`, or `cargo build --release`", binary(program).display()))
}

/// A `tapwayd` in a namespace, and its socket.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    socket: PathBuf,
}

impl Daemon {
    /// `name` tells it from the other daemons of a subject.
    pub(crate) fn start(name: &str, netns: &Netns, workers: usize) -> Result<Self> {
        let directory = Path::new("/run").join(format!("bench-{name}"));
        // Each daemon starts with no memory of the one before.
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let socket = directory.join("tapway.sock");
        let mut command = netns.command(binary("tapwayd"));
        command.arg("--socket").arg(&socket).arg("--state-dir").arg(&directory);
        command.args(["--workers", &workers.to_string()]);
        let mut daemon = Self { process: Process::start(name, &mut command)?, socket };
        daemon.process.wait_until("socket", || daemon.socket.exists())?;
        daemon.ctl(&["status", "--wait", "5s"])?;
        Ok(daemon)
    }

    /// One `tapwayctl` command; the daemon's refusal is the error.
    pub(crate) fn ctl(&self, args: &[&str]) -> Result<()> {
        run(Command::new(binary("tapwayctl")).arg("--socket").arg(&self.socket).args(args)).map(drop)
    }

    /// A TAP port of br0 whose interface is a host's `eth0`, with the host's address.
    pub(super) fn tap(&self, site: &Site, end: End, flags: &[&str]) -> Result<()> {
        let netns = site.host(end).path();
        let port = ["port", "add", end.name(), "--bridge", "br0", "--ifname", INTERFACE];
        let place = ["--netns", &netns.to_string_lossy(), "--address", &end.cidr()];
        self.ctl(&[&port[..], &place, flags].concat())
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn into_process(self) -> Process {
        self.process
    }
}

/// A program of the workspace, as built beside this bench.
fn binary(program: &str) -> PathBuf {
    host::profile_directory().unwrap_or_default().join(program)
}
