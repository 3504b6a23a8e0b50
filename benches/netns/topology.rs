//! The two ends a subject joins: fresh network namespaces, and the ways to hang an interface into them.
//!
//! Owns the names, addresses and lifetimes of namespaces and interfaces; knows no subject and no workload.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{Process, run};

/// RFC 5737 addresses of the two ends.
pub(crate) const CLIENT_ADDRESS: &str = "198.51.100.1";
pub(crate) const SERVER_ADDRESS: &str = "198.51.100.2";
/// Name of the interface at both ends, whoever made it.
pub(crate) const INTERFACE: &str = "eth0";

/// A named network namespace, deleted when dropped.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    pub(crate) fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let netns = Self { name: name.to_owned() };
        // Without this every interface that comes up sends router solicitations and multicast reports in the middle
        // of somebody's measurement, and a switch with 64 ports is not idle.
        netns.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in this namespace. `nsenter` replaces itself by the program, so the process id of the
    /// child is the program's.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    pub(crate) fn ip(&self, args: &[&str]) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(args)).map(drop)
    }

    pub(crate) fn has_interface(&self, name: &str) -> bool {
        self.ip(&["link", "show", "dev", name]).is_ok()
    }

    /// Sets a sysctl of this namespace. A sysctl that is not per namespace does not show here and is an error: it
    /// cannot be the machine's that gets changed.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        run(self.command("sh").args(["-c", "echo \"$1\" > \"$2\"", "sh", value, &path])).map(drop)
    }

    pub(crate) fn has_sysctl(&self, key: &str) -> bool {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        run(self.command("test").args(["-e", &path])).is_ok()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{error:#}");
        }
    }
}

/// Which of the two hosts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Client,
    Server,
}

impl End {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    pub(crate) fn cidr(self) -> String {
        match self {
            Self::Client => format!("{CLIENT_ADDRESS}/24"),
            Self::Server => format!("{SERVER_ADDRESS}/24"),
        }
    }
}

/// Two hosts with nothing between them: that is the subject's to make.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) client: Netns,
    pub(crate) server: Netns,
}

impl Site {
    pub(crate) fn create() -> Result<Self> {
        // Plain names: the sandbox's `/run/netns` holds nobody else's.
        Ok(Self { client: Netns::create(End::Client.name())?, server: Netns::create(End::Server.name())? })
    }

    pub(crate) fn host(&self, end: End) -> &Netns {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    /// Gives a host the interface `device` that `owner` makes in its namespace `from` (it was started by
    /// [`Netns::command`]), as `eth0` with the host's address. A TAP keeps its descriptor end through the move.
    pub(crate) fn hand_over(&self, from: &Netns, owner: &mut Process, device: &str, end: End) -> Result<()> {
        owner.wait_until(&format!("interface {device}"), || from.has_interface(device))?;
        let path = self.host(end).path();
        from.ip(&["link", "set", "dev", device, "netns", &path.to_string_lossy(), "name", INTERFACE])?;
        self.address(end)
    }

    /// Gives a host one end of a veth pair as `eth0` with the host's address; the other is `port` in `switch`.
    pub(crate) fn veth(&self, switch: &Netns, port: &str, end: End) -> Result<()> {
        let path = self.host(end).path();
        switch.ip(&[
            "link",
            "add",
            port,
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            &path.to_string_lossy(),
        ])?;
        switch.ip(&["link", "set", port, "up"])?;
        self.address(end)
    }

    /// Brings `eth0` of a host up with the host's address.
    pub(crate) fn address(&self, end: End) -> Result<()> {
        let host = self.host(end);
        host.ip(&["address", "add", &end.cidr(), "dev", INTERFACE])?;
        host.ip(&["link", "set", "dev", INTERFACE, "up"])
    }
}
