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
use crate::topology::{End, Site};

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
        let programs = ["ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"];
        first_missing(&programs, "openvswitch-switch").or_else(|| {
            (!Path::new(SCHEMA).is_file()).then(|| format!("no {SCHEMA} (package openvswitch-switch)"))
        })
    }

    fn version(&self) -> String {
        let printed = run(Command::new("ovs-vswitchd").arg("--version")).unwrap_or_default();
        let tso = if self.tso { ", userspace-tso-enable" } else { "" };
        format!("{}, userspace datapath, TAPs{tso}", printed.lines().next().unwrap_or("Open vSwitch"))
    }

    fn start(&self, site: &Site) -> Result<Switch> {
        // A fresh database each time: the last round's ports are not this round's.
        if Path::new(DIRECTORY).exists() {
            std::fs::remove_dir_all(DIRECTORY)?;
        }
        std::fs::create_dir(DIRECTORY).with_context(|| format!("creating {DIRECTORY}"))?;
        let (database, socket) = (format!("{DIRECTORY}/conf.db"), format!("{DIRECTORY}/db.sock"));
        run(private(&mut Command::new("ovsdb-tool")).args(["create", &database, SCHEMA]))?;

        let mut server = site.switch.command("ovsdb-server");
        let remote = format!("--remote=punix:{socket}");
        let mut server = Process::start("ovsdb-server", private(&mut server).args([&remote, &database]))?;
        server.wait_until("database socket", || Path::new(&socket).exists())?;
        let client = format!("unix:{socket}");
        let vsctl = |args: &[&str]| {
            run(private(&mut Command::new("ovs-vsctl"))
                .arg(format!("--db={client}"))
                .arg("--timeout=10")
                .args(args))
        };
        vsctl(&["--no-wait", "init"])?;
        if self.tso {
            // Read once, at the start of the daemon.
            vsctl(&["--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true"])?;
        }

        let mut vswitchd = site.switch.command("ovs-vswitchd");
        let mut vswitchd = Process::start("ovs-vswitchd", private(&mut vswitchd).arg(&client))?;
        vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
        for end in End::BOTH {
            let tap = format!("ovs-{}", end.name());
            vsctl(&["add-port", "br0", &tap, "--", "set", "interface", &tap, "type=tap"])?;
            site.hand_over(&mut vswitchd, &tap, end)?;
        }
        Ok(Switch::of([server, vswitchd]))
    }
}

/// Keeps an Open vSwitch program away from the directories of the installed service.
fn private(command: &mut Command) -> &mut Command {
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, DIRECTORY);
    }
    command
}
