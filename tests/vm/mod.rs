//! Words for tests that need virtual machines.
//!
//! ```text
//!   test ── Vm ── QEMU ─┬─ Debian's kernel, and a file system in memory      as tests/guest/ has them
//!            │          ├─ first serial line: the console                   into a file, shown where a test fails
//!            └─ sh() ───┼─ second serial line: a shell, one line after the other
//!                       └─ network cards, each at a port of the switch      tests/vm/nic.rs
//! ```
//!
//! A guest runs beside the test, in a namespace of the test, and ends with its value, also when the test panics. It needs
//! about five seconds to boot where its processors are emulated: a test boots few of them, and shows much with them.
#![allow(dead_code, reason = "each test binary compiles this module for itself and speaks a part of it")]

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

#[path = "../guest/mod.rs"]
pub(crate) mod guest;
pub(crate) mod image;
pub(crate) mod nic;

use super::topo::{Host, skipped};
use guest::{Parts, QEMU};

/// The longest that a guest may take to boot, on a busy machine that emulates it.
const BOOT: Duration = Duration::from_secs(120);
/// The longest that a command in it may take.
const COMMAND: Duration = Duration::from_secs(60);
/// The longest line that a terminal hands over (`N_TTY_BUF_SIZE`, and the end of the line).
const LINE: usize = 4094;
/// What follows the output of a command, with its status.
const END: &str = "\n=== status ";
/// Of the console, where something has failed.
const TAIL: usize = 30;

/// What all guests of a test boot.
#[derive(Debug)]
pub(crate) struct Image {
    parts: Parts,
    accelerator: &'static [&'static str],
    peer: PathBuf,
    directory: TempDir,
}

impl Image {
    /// Makes it, or `None` (and a line that says why) where this machine has no guests.
    pub(crate) fn new() -> Option<Self> {
        let parts = match Parts::find() {
            Ok(parts) => parts,
            Err(e) => {
                skipped(&format!("no guest: {e:#}"));
                return None;
            }
        };
        let made = built("vm_peer").and_then(|peer| Self::of(parts, peer));
        Some(made.unwrap_or_else(|e| panic!("no image of a guest: {e:#}")))
    }

    /// Of these parts, with the end of the transfers.
    pub(crate) fn of(parts: Parts, peer: PathBuf) -> Result<Self> {
        let directory = TempDir::new()?;
        fs::write(directory.path().join("initrd"), image::image(&parts, &peer)?)?;
        let accelerator = parts.accelerator()?;
        Ok(Self { parts, accelerator, peer, directory })
    }

    /// What QEMU boots.
    pub(crate) fn kernel(&self) -> &Path {
        &self.parts.kernel.image
    }

    /// The file system that it boots with.
    pub(crate) fn initrd(&self) -> PathBuf {
        self.directory.path().join("initrd")
    }

    /// The words of QEMU for a machine without devices: processors, MiB of memory, kernel and file system.
    pub(crate) fn machine(&self, memory: u32, processors: u32) -> Vec<String> {
        let mut words: Vec<String> = self.accelerator.iter().map(ToString::to_string).collect();
        let (memory, processors) = (format!("{memory}M"), processors.to_string());
        let more = ["-m", &memory, "-smp", &processors, "-nodefaults", "-no-reboot", "-display", "none"];
        words.extend(more.map(str::to_owned));
        for (word, path) in [("-kernel", self.kernel()), ("-initrd", &self.initrd())] {
            words.extend([word.to_owned(), path.display().to_string()]);
        }
        words
    }

    /// The end of a transfer, for a namespace: a command that still lacks its words.
    pub(crate) fn peer(&self) -> Command {
        Command::new(&self.peer)
    }

    /// The same as a server in a namespace.
    pub(crate) fn serve(&self, host: &Host) -> Running {
        let mut command = self.peer();
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null());
        Running(host.run(|| command.spawn()).expect("vm_peer"))
    }
}

/// A process that ends with the value.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // an error says that it has ended
        let _ = self.0.wait();
    }
}

/// What a guest has beside its kernel.
#[derive(Debug)]
pub(crate) struct VmOptions {
    /// MiB.
    pub(crate) memory: u32,
    /// Each is a thread of QEMU.
    pub(crate) processors: u32,
    /// More words for QEMU: its network cards.
    pub(crate) words: Vec<String>,
    /// Files that QEMU gets opened for reading and writing, as its descriptors 3, 4 and so on.
    pub(crate) opened: Vec<PathBuf>,
    /// Whether its memory is a file that the back end of vhost-user is given.
    pub(crate) shares_memory: bool,
}

impl Default for VmOptions {
    fn default() -> Self {
        Self { memory: 96, processors: 1, words: Vec::new(), opened: Vec::new(), shares_memory: false }
    }
}

/// A running guest, which ends with the value.
#[derive(Debug)]
pub(crate) struct Vm {
    name: String,
    channel: Mutex<Channel>,
    console: TempDir,
    // After the channel: what it reads from ends with QEMU.
    qemu: Running,
}

/// The shell of a guest: what is written to it, and what has been read of its answers.
#[derive(Debug)]
struct Channel {
    to: ChildStdin,
    from: Receiver<Vec<u8>>,
    read: Vec<u8>,
    up: bool,
}

impl Vm {
    /// Starts a guest whose QEMU is in the namespace of `host`. The guest is up when the first command has been answered.
    #[track_caller]
    pub(crate) fn boot(image: &Image, host: &Host, name: &str, options: &VmOptions) -> Self {
        Self::start(image, host, name, options).unwrap_or_else(|e| panic!("guest {name}: {e:#}"))
    }

    fn start(image: &Image, host: &Host, name: &str, options: &VmOptions) -> Result<Self> {
        let console = TempDir::new()?;
        // A shell that becomes QEMU: only so can a descriptor have a number that both know.
        let mut script = String::new();
        for at in 0..options.opened.len() {
            write!(script, "exec {}<>\"$1\"; shift; ", 3 + at)?;
        }
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{script}exec \"$@\""), "sh"]).args(&options.opened);
        command.arg(QEMU).args(image.machine(options.memory, options.processors));
        if options.shares_memory {
            let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", options.memory);
            command.args(["-object", &memory, "-machine", "memory-backend=memory"]);
        }
        command.args(["-append", "console=ttyS0 panic=-1 oops=panic no_timer_check quiet"]);
        command.arg("-serial").arg(format!("file:{}", console.path().join("console").display()));
        command.args(["-serial", "stdio"]).args(&options.words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(fs::File::create(console.path().join("complaints"))?);
        let mut qemu = Running(host.run(|| command.spawn()).context(QEMU)?);
        let to = qemu.0.stdin.take().context("piped")?;
        let mut out = qemu.0.stdout.take().context("piped")?;
        let (heard, from) = mpsc::channel();
        // It ends with QEMU, which closes the pipe.
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut octets) {
                if heard.send(octets[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let channel = Mutex::new(Channel { to, from, read: Vec::new(), up: false });
        Ok(Self { name: name.to_owned(), channel, console, qemu })
    }

    /// The name the test gave it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The process of QEMU.
    pub(crate) fn pid(&self) -> u32 {
        self.qemu.0.id()
    }

    /// Runs a line of a shell in the guest. What it printed is the answer; a failure is a panic that shows it.
    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        let (status, printed) = self.try_sh(line);
        assert_eq!(status, 0, "guest {}: {line}: {printed}", self.name);
        printed
    }

    /// Runs a line of a shell in the guest: its status, and what it printed.
    #[track_caller]
    pub(crate) fn try_sh(&self, line: &str) -> (u8, String) {
        let mut channel = self.channel();
        self.ready(&mut channel).and_then(|()| channel.run(line)).unwrap_or_else(|e| {
            panic!("guest {}: {line}: {e:#}\n{}", self.name, self.tail());
        })
    }

    /// Waits until the guest is up.
    #[track_caller]
    pub(crate) fn wait_up(&self) {
        let mut channel = self.channel();
        self.ready(&mut channel).unwrap_or_else(|e| {
            panic!("guest {} does not come up: {e:#}\n{}", self.name, self.tail());
        });
    }

    /// Whether `count` echo requests of so many octets were all answered.
    #[track_caller]
    pub(crate) fn pings(&self, to: &str, count: u32, octets: u32) -> bool {
        self.try_sh(&format!("ping -q -c {count} -i 0.2 -W 5 -s {octets} {to}")).1.contains(" 0% packet loss")
    }

    /// Exchanges every payload with each of these pairs of an IPv4 and an IPv6 address, with all of them at once; what is wrong.
    #[track_caller]
    pub(crate) fn exchange(&self, with: &[(String, String)]) -> String {
        let all: Vec<String> = with.iter().map(|(v4, v6)| format!("{v4},{v6}")).collect();
        let printed = self.sh(&format!("exchange {}", all.join(" ")));
        let failed = printed.lines().filter(|line| line.starts_with("failed ")).map(str::to_owned);
        let missing = with.iter().filter(|(v4, _)| !printed.contains(&format!("exchanged {v4}\n")));
        let missing = missing.map(|(v4, _)| format!("not all exchanged with {v4}"));
        failed.chain(missing).map(|line| line + "\n").collect()
    }

    /// What is on its console, and what QEMU complained of.
    pub(crate) fn tail(&self) -> String {
        let read = |name| fs::read(self.console.path().join(name)).unwrap_or_default();
        let console = String::from_utf8_lossy(&read("console")).into_owned();
        let lines: Vec<&str> = console.lines().collect();
        let lines = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        format!("console:\n{lines}\nQEMU:\n{}", String::from_utf8_lossy(&read("complaints")))
    }

    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self, channel: &mut Channel) -> Result<()> {
        if !channel.up {
            channel.answer(BOOT)?;
            channel.up = true;
        }
        Ok(())
    }
}

impl Channel {
    fn run(&mut self, line: &str) -> Result<(u8, String)> {
        if line.contains('\n') || line.len() > LINE {
            bail!("more than one line, or more than a line can be");
        }
        writeln!(self.to, "{line}")?;
        self.to.flush()?;
        self.answer(COMMAND)
    }

    /// Reads to the end of what a command prints.
    fn answer(&mut self, within: Duration) -> Result<(u8, String)> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(answer) = self.whole() {
                return answer;
            }
            match self.from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(octets) => self.read.extend(octets),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("nothing within {within:?} but {:?}", String::from_utf8_lossy(&self.read))
                }
                Err(RecvTimeoutError::Disconnected) => bail!("QEMU has ended"),
            }
        }
    }

    /// Takes an answer out of what has been read, if it is all there.
    fn whole(&mut self) -> Option<Result<(u8, String)>> {
        let find = |octets: &[u8], what: &[u8]| octets.windows(what.len()).position(|window| window == what);
        let end = find(&self.read, END.as_bytes())?;
        let status = end + END.len();
        let line = status + find(&self.read[status..], b"\n")?;
        let answer = self.read.drain(..=line).collect::<Vec<_>>();
        let printed = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = String::from_utf8_lossy(&answer[status..line]).trim().parse();
        Some(status.context("a status").map(|status| (status, printed)))
    }
}

/// Whether this process may make and open the nodes of devices: root may, and who is root in a user namespace alone may not.
pub(crate) fn may_open_devices() -> bool {
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && ids.split_whitespace().nth(2) == Some("4294967295")
}

/// An example program of this package, as the sources are now.
pub(crate) fn built(example: &str) -> Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--locked", "--offline", "-p", "tapway", "--example", example]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.stdin(Stdio::null()).status().context("cargo")?;
    if !status.success() {
        bail!("cargo: {status}");
    }
    // This test is in a directory beside examples/.
    let test = env::current_exe()?;
    Ok(test.ancestors().nth(2).context("two directories up")?.join("examples").join(example))
}
