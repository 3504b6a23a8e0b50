//! Child processes: started in a namespace, watched, accounted for, and ended with their owner.
//!
//! Every child gets a pipe as standard input that closes with its [`Process`]: some programs (`vde_switch`) end on
//! it, the sink takes it as the word to stop. Output goes to files, never to a pipe somebody would have to drain.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Output of the children; `/run` is private to the sandbox.
pub(crate) const LOGS: &str = "/run/bench-logs";

/// `USER_HZ`: the unit of utime and stime in `/proc/PID/stat`, 100 on every Linux this builds for (proc(5)).
pub(crate) const USER_HZ: f64 = 100.0;

const POLL: Duration = Duration::from_millis(5);
/// How long an orderly end may take before the child is killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs a short command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program can be found, so that a missing peer is skipped and not failed.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A child process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        let stdout = Path::new(LOGS).join(format!("{name}.stdout"));
        let stderr = Path::new(LOGS).join(format!("{name}.stderr"));
        let child = command
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` holds; the child's own words are in the error when it ends first or takes too long.
    pub(crate) fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}{}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{}: no {what} within 10 s{}", self.name, self.last_words());
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Waits for a socket of the child bound to `port`.
    pub(crate) fn wait_bound(&mut self, protocol: &str, port: u16) -> Result<()> {
        let id = self.id();
        self.wait_until("socket", || is_bound(id, protocol, port))
    }

    /// Lets the child know that it should come to its end.
    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for a child that ends by itself, and returns what it printed.
    pub(crate) fn finish(mut self, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(fs::read_to_string(&self.stdout)?),
                Some(status) => bail!("{}: {status}{}", self.name, self.last_words()),
                None if Instant::now() > deadline => {
                    bail!("{} did not end within {} s{}", self.name, within.as_secs(), self.last_words())
                }
                None => sleep(POLL),
            }
        }
    }

    /// Processor time of all its threads so far, user and system, in seconds (`/proc/PID/stat`).
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = self.proc_file("stat")?;
        // The second field is the command name in parentheses and may hold anything; count from its end.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| -> Result<f64> {
            Ok(fields.get(index).with_context(|| format!("short stat line of {}", self.name))?.parse()?)
        };
        // proc(5): utime is field 14 and stime field 15; the state after the name is field 3.
        Ok((ticks(11)? + ticks(12)?) / USER_HZ)
    }

    /// Processor time of all its living threads, in seconds, to the nanosecond (`/proc/PID/task/TID/schedstat`).
    pub(crate) fn scheduled_seconds(&self) -> Result<f64> {
        let mut nanos = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += schedstat.split_whitespace().next().context("empty schedstat")?.parse::<f64>()?;
        }
        Ok(nanos / 1e9)
    }

    /// Resident memory in bytes (`VmRSS`).
    pub(crate) fn resident_memory(&self) -> Result<u64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    fn proc_file(&self, file: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.id()))
            .with_context(|| format!("{} is gone", self.name))
    }

    fn last_words(&self) -> String {
        let mut words = String::new();
        for path in [&self.stdout, &self.stderr] {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(8)..] {
                words.push_str("\n    ");
                words.push_str(line);
            }
        }
        words
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.close_stdin();
        if let Some(pid) = i32::try_from(self.id()).ok().and_then(Pid::from_raw)
            && matches!(self.child.try_wait(), Ok(None))
        {
            // Not an error when it has just ended; it is reaped below either way.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(POLL);
        }
    }
}

/// Whether the process `id` sees a socket bound to `port` in its namespace: a TCP listener or any UDP socket.
fn is_bound(id: u32, protocol: &str, port: u16) -> bool {
    // include/net/tcp_states.h: TCP_LISTEN is 0A; an unconnected UDP socket shows as 07 (TCP_CLOSE).
    let state = if protocol == "tcp" { "0A" } else { "07" };
    let suffix = format!(":{port:04X}");
    ["", "6"].iter().any(|family| {
        let table = fs::read_to_string(format!("/proc/{id}/net/{protocol}{family}")).unwrap_or_default();
        table.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or("");
            local.ends_with(&suffix) && fields.nth(1) == Some(state)
        })
    })
}
