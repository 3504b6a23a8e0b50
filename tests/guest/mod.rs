//! A machine of its own for tests that the host's kernel has no devices for.
//!
//! ```text
//!   host: cargo test ── QEMU ─┬─ Debian's kernel                 no disk, no network
//!            ▲                ├─ memory: busybox, modules, ip, the test executables
//!            └── serial console ◄── /init runs them, and says how each ended
//! ```
//!
//! The kernel and busybox are unpacked below `target/guest` by `.ci/guest` and never installed.
//! KVM is used where it works, and else QEMU's own emulation: the guest is up after some seconds, and runs at a tenth of the
//! speed.
#![allow(dead_code, reason = "each test binary compiles this module for itself and speaks a part of it")]

use std::{
    collections::BTreeMap,
    env,
    fs::{self, OpenOptions},
    io::{self, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

mod cpio;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod report;

use kernel::Kernel;
use report::Report;

pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// The words of QEMU for real processors, and for emulated ones.
const KVM: &[&str] = &["-accel", "kvm", "-cpu", "host"];
const TCG: &[&str] = &["-accel", "tcg,thread=multi", "-cpu", "max"];
/// Where `/dev/kvm` can be opened but runs no guest, nothing is ever heard of the kernel; where it does, within a second.
const KVM_SILENCE: Duration = Duration::from_secs(5);
/// Of the console, where a run has failed.
const TAIL: usize = 150;

/// A test executable, and the words it is called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    /// The name of the file in `tests/`.
    pub(crate) name: String,
    /// Filters, and other words of libtest.
    pub(crate) words: Vec<String>,
}

impl Suite {
    /// From `NAME WORDS…`.
    pub(crate) fn new(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        Self { name: words.next().unwrap_or_default(), words: words.collect() }
    }

    /// The same again.
    pub(crate) fn line(&self) -> String {
        [std::slice::from_ref(&self.name), &self.words[..]].concat().join(" ")
    }
}

/// What a guest is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// What it boots.
    pub(crate) kernel: Kernel,
    /// A static one.
    pub(crate) busybox: PathBuf,
}

/// How a guest was run, and what it said.
#[derive(Debug)]
pub(crate) struct Console {
    /// `kvm` or `tcg`.
    pub(crate) accelerator: &'static str,
    /// Everything.
    pub(crate) text: String,
    /// Whether it ended by itself, in time.
    pub(crate) in_time: bool,
    /// From the start to the end.
    pub(crate) took: Duration,
}

impl Parts {
    /// Looks for QEMU and for what `.ci/guest` has unpacked; the error says what there is not.
    pub(crate) fn find() -> Result<Self> {
        Command::new(QEMU).arg("--version").stdin(Stdio::null()).output().with_context(|| QEMU.to_owned())?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest/root");
        let busybox = root.join("bin/busybox");
        if !busybox.exists() {
            bail!("no {}; .ci/guest unpacks it", busybox.display());
        }
        Ok(Self { kernel: Kernel::find(&root)?, busybox })
    }

    /// Runs these suites, one after the other, and reads how they ended.
    pub(crate) fn run(&self, suites: &[Suite], within: Duration) -> Result<(Console, Report)> {
        let mut executables = executables(suites)?;
        let mut with = Vec::new();
        for suite in suites {
            let executable =
                executables.remove(&suite.name).with_context(|| format!("no test {}", suite.name))?;
            with.push((suite.clone(), executable));
        }
        let binaries = if image::needs_binaries(suites) { binaries()? } else { BTreeMap::new() };
        let console = self.boot(&image::image(&self.kernel, &self.busybox, &with, &binaries)?, within)?;
        let report = Report::read(&console.text, suites);
        Ok((console, report))
    }

    /// Runs nothing but these words of a shell.
    pub(crate) fn shell(&self, words: &str, within: Duration) -> Result<Console> {
        self.boot(&image::shell(&self.busybox, words)?, within)
    }

    fn boot(&self, image: &[u8], within: Duration) -> Result<Console> {
        let directory = TempDir::new()?;
        let initrd = directory.path().join("initrd");
        fs::write(&initrd, image)?;
        if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() {
            let console = self.qemu("kvm", KVM, &initrd, KVM_SILENCE, within)?;
            if !console.text.is_empty() {
                return Ok(console);
            }
        }
        self.qemu("tcg", TCG, &initrd, within, within)
    }

    /// The words of QEMU for processors as they can be had here, for guests that run beside the test: found out once, by a guest
    /// that ends as soon as it is up.
    pub(crate) fn accelerator(&self) -> Result<&'static [&'static str]> {
        static FOUND: OnceLock<&[&str]> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        let mut works = false;
        if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() {
            let directory = TempDir::new()?;
            let initrd = directory.path().join("initrd");
            fs::write(&initrd, image::shell(&self.busybox, "poweroff -f")?)?;
            works = !self.qemu("kvm", KVM, &initrd, KVM_SILENCE, 2 * KVM_SILENCE)?.text.is_empty();
        }
        Ok(FOUND.get_or_init(|| if works { KVM } else { TCG }))
    }

    /// Runs QEMU until it ends, or says nothing at all for `silence`, or has not ended `within`.
    fn qemu(
        &self,
        accelerator: &'static str,
        flags: &[&str],
        initrd: &Path,
        silence: Duration,
        within: Duration,
    ) -> Result<Console> {
        let start = Instant::now();
        let mut command = Command::new(QEMU);
        command.args(flags).args([
            "-smp",
            "2",
            "-m",
            "1024",
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
        ]);
        command.args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1 oops=panic no_timer_check"]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(initrd);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut qemu = Qemu(command.spawn().context(QEMU)?);
        let mut out = BufReader::new(qemu.0.stdout.take().context("piped")?);
        let (heard, hears) = mpsc::channel();
        // It ends with QEMU, which closes the pipe.
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut octets) {
                if heard.send(octets[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let (mut said, mut deadline) = (Vec::new(), start + silence.min(within));
        let in_time = loop {
            match hears.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(octets) => {
                    said.extend(octets);
                    deadline = start + within;
                }
                Err(RecvTimeoutError::Timeout) => break false,
                Err(RecvTimeoutError::Disconnected) => break true,
            }
        };
        drop(qemu);
        let text = String::from_utf8_lossy(&said).into_owned();
        Ok(Console { accelerator, text, in_time, took: start.elapsed() })
    }
}

impl Console {
    /// Its last lines.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

/// A running QEMU, which ends with the value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill(); // an error says that it has ended
        let _ = self.0.wait();
    }
}

/// The executables of these tests, built if a source is newer: the same command as that of `make test`, so that nothing is
/// built twice, and none is of yesterday.
fn executables(suites: &[Suite]) -> Result<BTreeMap<String, PathBuf>> {
    let tests = suites.iter().flat_map(|suite| ["--test", &suite.name]);
    built(["test", "--workspace", "--no-run"].into_iter().chain(tests), true)
}

/// `tapwayd` and `tapwayctl`, as the sources are now.
fn binaries() -> Result<BTreeMap<String, PathBuf>> {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    built(["build", "--bins", "--profile", profile], false)
}

/// What cargo builds with these words, by name: of the tests, or of the programs.
fn built<'a>(words: impl IntoIterator<Item = &'a str>, tests: bool) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(words);
    cargo.args(["--locked", "--offline", "--quiet", "--message-format=json-render-diagnostics"]);
    let built = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cargo")?;
    if !built.status.success() {
        bail!("cargo: {}", built.status);
    }
    let mut executables = BTreeMap::new();
    for line in String::from_utf8(built.stdout)?.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let (name, executable) = (message["target"]["name"].as_str(), message["executable"].as_str());
        if message["profile"]["test"] == tests
            && let (Some(name), Some(executable)) = (name, executable)
        {
            executables.insert(name.to_owned(), executable.into());
        }
    }
    Ok(executables)
}

/// Says a line, also when the test harness captures what tests print.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "guest: {line}"); // if standard error is gone, there is nobody to tell
}
