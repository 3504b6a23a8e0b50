//! Open vSwitch's userspace datapath with two TAPs of its own.
//!
//! A private instance: database, sockets and logs are below the sandbox's `/run`, nothing of an installed service is
//! read or touched. With Open vSwitch's defaults (`ovs`) the TAPs carry no vnet header, so every frame it forwards is
//! at most one MTU. `ovs-tso` sets `userspace-tso-enable`, which its documentation calls experimental and which is off by default: then
//! super-frames pass whole, and it would be dishonest not to show that beside our own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Subject, Switch, first_missing};
use crate::process::{Process, run};
use crate::topology::{End, Netns, Site};

const DIRECTORY: &str = "/run/bench-ovs";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

pub(crate) struct OpenVswitch {
    pub(crate) name: &'static str,
    /// `other_config:userspace-tso-enable`
    pub(crate) tso: bool,
}

impl Subject for OpenVswitch {
    fn name(&self) -> &'static str {
        self.name
    }

    fn missing(&self) -> Option<String> {
        missing()
    }

    fn version(&self) -> String {
        let tso = if self.tso { ", userspace-tso-enable" } else { "" };
        format!("{}, userspace datapath, TAPs{tso}", version())
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        let netns = Netns::create("switch")?;
        let mut instance = Instance::start(&netns, self.tso)?;
        instance.bridge("br0")?;
        for end in End::BOTH {
            instance.tap(&netns, site, end)?;
        }
        Ok(Switch::of(instance.into_processes(), [netns]))
    }
}

/// Why it cannot be measured here, if so.
pub(super) fn missing() -> Option<String> {
    let programs = ["ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"];
    first_missing(&programs, "openvswitch-switch").or_else(|| {
        (!Path::new(SCHEMA).is_file()).then(|| format!("no {SCHEMA} (package openvswitch-switch)"))
    })
}

pub(super) fn version() -> String {
    let printed = run(Command::new("ovs-vswitchd").arg("--version")).unwrap_or_default();
    printed.lines().next().unwrap_or("Open vSwitch").to_owned()
}

/// An Open vSwitch in a namespace, without a bridge.
#[derive(Debug)]
pub(super) struct Instance {
    // In this order: who is served ends first.
    vswitchd: Process,
    server: Process,
}

impl Instance {
    pub(super) fn start(netns: &Netns, tso: bool) -> Result<Self> {
        // A fresh database each time: the last round's ports are not this round's.
        if Path::new(DIRECTORY).exists() {
            std::fs::remove_dir_all(DIRECTORY)?;
        }
        std::fs::create_dir(DIRECTORY).with_context(|| format!("creating {DIRECTORY}"))?;
        let database = format!("{DIRECTORY}/conf.db");
        run(private(&mut Command::new("ovsdb-tool")).args(["create", &database, SCHEMA]))?;

        let mut server = netns.command("ovsdb-server");
        let remote = format!("--remote=punix:{}", socket());
        let mut server = Process::start("ovsdb-server", private(&mut server).args([&remote, &database]))?;
        server.wait_until("database socket", || Path::new(&socket()).exists())?;
        vsctl(&["--no-wait", "init"])?;
        if tso {
            // Read once, at the start of the daemon.
            vsctl(&["--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true"])?;
        }

        let mut vswitchd = netns.command("ovs-vswitchd");
        let vswitchd =
            Process::start("ovs-vswitchd", private(&mut vswitchd).arg(format!("unix:{}", socket())))?;
        Ok(Self { vswitchd, server })
    }

    /// A bridge in the userspace datapath.
    pub(super) fn bridge(&self, name: &str) -> Result<()> {
        vsctl(&["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev"])
    }

    /// A port of a bridge; `settings` are of its row in the table `Interface`.
    pub(super) fn port(&self, bridge: &str, name: &str, settings: &[&str]) -> Result<()> {
        let words = ["add-port", bridge, name, "--", "set", "interface", name];
        vsctl(&[&words[..], settings].concat())
    }

    /// A TAP of br0, handed over to a host.
    pub(super) fn tap(&mut self, netns: &Netns, site: &Site, end: End) -> Result<()> {
        let tap = format!("ovs-{}", end.name());
        self.port("br0", &tap, &["type=tap"])?;
        site.hand_over(netns, &mut self.vswitchd, &tap, end)
    }

    /// In the order they were started.
    pub(super) fn into_processes(self) -> [Process; 2] {
        [self.server, self.vswitchd]
    }
}

fn socket() -> String {
    format!("{DIRECTORY}/db.sock")
}

fn vsctl(args: &[&str]) -> Result<()> {
    let database = format!("--db=unix:{}", socket());
    run(private(&mut Command::new("ovs-vsctl")).args([&database, "--timeout=10"]).args(args)).map(drop)
}

/// Keeps an Open vSwitch program away from the directories of the installed service.
fn private(command: &mut Command) -> &mut Command {
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, DIRECTORY);
    }
    command
}
