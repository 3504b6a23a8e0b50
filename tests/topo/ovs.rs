//! Open vSwitch's userspace datapath as the peer of a tunnel: for Geneve it is the peer there is.
//!
//! ```text
//!   client ──eth0 (a TAP of Open vSwitch)┤ br0 ├ tunnel      br-phy (has the site's addresses) ├ underlay0
//! ```
//!
//! An instance of its own in a site's namespace: database, sockets and logs are in a temporary directory, nothing of an
//! installed service is read or touched, and both processes end, by their ids, with the value.
//!
//! It sends and takes frames of at most one MTU with whole checksums; the underlay has to be told:
//! [`Underlay::without_offloads`](super::underlay::Underlay::without_offloads).

use std::{
    fs::{self, File},
    io,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    Host, Net,
    kernel_vtep::overlay_address,
    skipped,
    underlay::{Site, UNDERLAY},
    wait_until,
};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// For one command, and for a start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running Open vSwitch with a bridge br0.
#[derive(Debug)]
pub(crate) struct Ovs<'a> {
    site: &'a Site,
    directory: TempDir,
    // In this order: who is served ends first.
    vswitchd: Option<Daemon>,
    database: Option<Daemon>,
}

impl<'a> Ovs<'a> {
    /// Starts one at a site; `None` (and a line that says why) where it is not installed.
    pub(crate) fn start(site: &'a Site) -> Option<Self> {
        let directory = TempDir::new().expect("a temporary directory");
        let mut ovs = Self { site, directory, vswitchd: None, database: None };
        if let Err(e) = ovs.tool("ovsdb-tool", &["create", &ovs.path("conf.db"), SCHEMA]) {
            assert!(!Path::new(SCHEMA).exists(), "{e}");
            skipped(&format!("no Open vSwitch (Debian: openvswitch-switch): {e}"));
            return None;
        }
        let remote = format!("--remote=punix:{}", ovs.path("db.sock"));
        ovs.database = Some(ovs.daemon("ovsdb-server", &[&remote, &ovs.path("conf.db")]));
        // The socket is there before anybody listens at it.
        ovs.wait_for("the database", || UnixStream::connect(ovs.path("db.sock")).is_ok());
        ovs.vsctl("--no-wait init");
        let pidfile = format!("--pidfile={}", ovs.path("ovs-vswitchd.pid"));
        let socket = format!("unix:{}", ovs.path("db.sock"));
        ovs.vswitchd = Some(ovs.daemon("ovs-vswitchd", &[&pidfile, &socket]));

        // The userspace datapath finds routes and neighbours by the tables of the host, so the host's addresses belong to
        // the internal interface of a bridge that the cable is a port of (Open vSwitch's userspace tunnelling guide).
        let host = &site.host;
        ovs.vsctl("add-br br-phy -- set bridge br-phy datapath_type=netdev");
        ovs.vsctl(&format!("add-port br-phy {UNDERLAY}"));
        host.ip(&format!("address flush dev {UNDERLAY}"));
        host.ip(&format!("link set dev br-phy mtu {} up", host.mtu(UNDERLAY)));
        host.address("br-phy", &format!("{}/24", site.v4));
        host.address("br-phy", &format!("{}/64", site.v6));
        ovs.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
        Some(ovs)
    }

    /// A tunnel port of br0, its type and options in Open vSwitch's words:
    /// `type=geneve options:remote_ip=203.0.113.2 options:key=42`.
    #[track_caller]
    pub(crate) fn tunnel(&self, name: &str, words: &str) {
        self.vsctl(&format!("add-port br0 {name} -- set interface {name} {words}"));
        let error = self.vsctl(&format!("get interface {name} error"));
        assert!(matches!(error.trim(), "[]" | "\"\""), "{name}: {words}: {error}");
    }

    /// A client at br0 by a TAP of Open vSwitch's, the `n`-th of the overlay.
    #[track_caller]
    pub(crate) fn client(&self, net: &Net, n: u8, mtu: u32) -> Host {
        let (client, tap) = (net.host(&format!("client{n}")), format!("tap{n}"));
        self.vsctl(&format!("add-port br0 {tap} -- set interface {tap} type=tap"));
        self.wait_for("the TAP", || self.site.host.has_interface(&tap));
        // The descriptor end stays where it is.
        let path = client.path();
        self.site.host.ip(&format!("link set dev {tap} netns {} name eth0", path.display()));
        client.ip("link set dev eth0 up");
        overlay_address(&client, n, mtu);
        client
    }

    /// `ovs-vsctl WORDS`.
    #[track_caller]
    pub(crate) fn vsctl(&self, words: &str) -> String {
        let (database, timeout) =
            (format!("--db=unix:{}", self.path("db.sock")), format!("--timeout={}", PATIENCE.as_secs()));
        self.say("ovs-vsctl", &[&[database.as_str(), &timeout], &split(words)[..]].concat())
    }

    /// `ovs-ofctl WORDS`: flows, and the map of Geneve options (`add-tlv-map br0 {class=…,type=…,len=…}->tun_metadata0`).
    #[track_caller]
    pub(crate) fn ofctl(&self, words: &str) -> String {
        self.say("ovs-ofctl", &split(words))
    }

    /// `ovs-appctl WORDS`, said to ovs-vswitchd.
    #[track_caller]
    pub(crate) fn appctl(&self, words: &str) -> String {
        self.say("ovs-appctl", &[&["--target", "ovs-vswitchd"], &split(words)[..]].concat())
    }

    #[track_caller]
    fn say(&self, program: &str, args: &[&str]) -> String {
        self.tool(program, args)
            .unwrap_or_else(|e| panic!("{program} {}: {e}\n{}", args.join(" "), self.last_words()))
    }

    fn tool(&self, program: &str, args: &[&str]) -> io::Result<String> {
        self.site.host.command(self.private(Command::new(program).args(args)))
    }

    fn daemon(&self, program: &str, args: &[&str]) -> Daemon {
        let log = File::create(self.path(&format!("{program}.stderr"))).expect("a log");
        let mut command = Command::new(program);
        self.private(&mut command).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = self.site.host.run(|| command.spawn());
        Daemon(child.unwrap_or_else(|e| panic!("{program}: {e}")))
    }

    /// Keeps a program away from the directories of an installed service.
    fn private<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.directory.path());
        }
        command
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, cond: impl FnMut() -> bool) {
        wait_until(&format!("{what}\n{}", self.last_words()), PATIENCE, cond);
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.path("ovs-vswitchd.stderr")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Ovs<'_> {
    fn drop(&mut self) {
        drop(self.vswitchd.take());
        drop(self.database.take());
    }
}

fn split(words: &str) -> Vec<&str> {
    words.split_whitespace().collect()
}

/// A child process that ends with its owner.
#[derive(Debug)]
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
            && matches!(self.0.try_wait(), Ok(None))
        {
            // Not an error when it has just ended; it is reaped below either way.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
