//! How a VM is attached to a port: what its monitor is to be told, word for word.
//!
//! From a port's settings alone: nothing is asked of a monitor, and nothing is started. What is printed on stdout is for the monitor and
//! can be used as it is, `qemu-system-x86_64 … $(tapwayctl port show vm1 --for qemu)`, but for a tap port, whose last line is for the
//! shell that starts the monitor: it opens the macvtap. What somebody has to do besides is a note.
//! Where a monitor has no way to a type of port, that is one sentence.

mod cloud_hypervisor;
mod firecracker;
mod libvirt;
mod qemu;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use serde_json::{Value, json};
use tapway_dataplane::{
    config::{PortName, PortOptions, PortSpec, PortType},
    wire::MacAddr,
};

/// The MTU that a guest has where its monitor says nothing (`ETH_DATA_LEN`).
const USUAL_MTU: u32 = 1500;

/// What runs virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Monitor {
    /// QEMU: options of its command line
    Qemu,
    /// libvirt: elements of a domain
    Libvirt,
    /// Cloud Hypervisor: options of its command line
    CloudHypervisor,
    /// Firecracker: a part of its configuration file
    Firecracker,
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "QEMU",
            Self::Libvirt => "libvirt",
            Self::CloudHypervisor => "Cloud Hypervisor",
            Self::Firecracker => "Firecracker",
        })
    }
}

/// Octets of memory as monitors write them: `512M`, `2G`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory(String);

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix(['M', 'G']).unwrap_or_default();
        let number =
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        number.then(|| Self(text.to_owned())).ok_or_else(|| format!("{text:?} is no size: write 512M or 2G"))
    }
}

/// What a monitor has to know of a port.
#[derive(Clone, Debug)]
pub(crate) struct SwitchEnd {
    name: PortName,
    /// Every setting in force.
    options: PortOptions,
    mtu: u32,
    memory: Memory,
}

impl SwitchEnd {
    /// The port as it was made, in a daemon of `workers` workers, and the MTU that it has there.
    pub(crate) fn new(spec: &PortSpec, workers: u16, mtu: u32, memory: Memory) -> Self {
        Self { name: spec.name.clone(), options: spec.effective(workers), mtu, memory }
    }

    fn kind(&self) -> PortType {
        self.options.kind_or_default()
    }

    /// The guest's MAC address: the only one that may enter, or the one that the interface was given.
    fn mac(&self) -> Option<MacAddr> {
        self.options.secure.as_ref().map(|secure| secure.mac).or(self.options.mac)
    }

    fn queues(&self) -> u16 {
        self.options.queues.unwrap_or(1)
    }

    fn ifname(&self) -> &str {
        self.options.ifname.as_deref().unwrap_or(self.name.as_str())
    }

    fn path(&self) -> &str {
        self.options.path.as_deref().unwrap_or_default()
    }

    fn offload(&self) -> bool {
        self.options.offload_or_default().0
    }

    /// A name for the macvtap on the interface of a tap port, which a shell takes as it is.
    fn macvtap(&self) -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
        // With the suffix no more than the 15 octets of an interface name.
        self.name.as_str().chars().map(legal).take(13).chain("-m".chars()).collect()
    }

    /// Where the switch makes the TAP, a monitor takes a macvtap on it. A monitor of the daemon's own namespace finds it there.
    fn macvtap_notes(&self, monitor: Monitor) -> Result<Vec<String>, NoWay> {
        if let Some(netns) = &self.options.netns {
            return Err(NoWay(format!(
                "port {0} is a tap in namespace {netns}, where {monitor} finds no macvtap on it: give the VM a port of type netdev",
                self.name
            )));
        }
        let mac = self.mac().map(|mac| format!(" --mac {mac}")).unwrap_or_default();
        let macvtap = self.macvtap();
        Ok(vec![
            format!(
                "the switch has the descriptor end of {ifname} itself, so the VM gets a macvtap on it: \
                 tapwayctl device add {macvtap} --type macvtap --parent {ifname} --mode passthru{mac}",
                ifname = quoted(self.ifname()),
            ),
            format!(
                "a macvtap keeps multicast from the guest, and IPv6 needs it: ip link set {macvtap} allmulticast on"
            ),
        ])
    }

    /// How somebody makes the TAP whose interface end a netdev port takes, where its monitor does not.
    fn make_tap(&self) -> String {
        let several = if self.queues() > 1 { format!(" --queues {}", self.queues()) } else { String::new() };
        format!("tapwayctl device add {} --type tap{several}", quoted(self.ifname()))
    }

    /// What an interface in another namespace asks of who starts the monitor.
    fn namespace_note(&self) -> Option<String> {
        let netns = self.options.netns.as_ref()?;
        Some(format!("the interface is in namespace {netns}: start the monitor there"))
    }

    /// What only the guest can set.
    fn mtu_note(&self) -> Option<String> {
        (self.mtu != USUAL_MTU).then(|| format!("set the MTU of the guest's interface to {}", self.mtu))
    }
}

/// What a monitor is told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    /// Options of a command line, one a line, and what the shell does for them.
    Arguments(Vec<[String; 2]>, Option<String>),
    /// Elements of a domain.
    Xml(String),
    /// A part of a configuration file.
    Config(Value),
}

/// How a port and a monitor come together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attachment {
    told: Told,
    /// What somebody has to do besides, one a sentence.
    pub(crate) notes: Vec<String>,
}

/// A monitor has no way to a port: why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoWay(String);

/// How a monitor attaches a VM to a port.
pub(crate) fn attach(end: &SwitchEnd, monitor: Monitor) -> Result<Attachment, NoWay> {
    if end.kind().is_tunnel() {
        return Err(NoWay(format!("port {} is a {} tunnel: no VM is attached to it", end.name, end.kind())));
    }
    match monitor {
        Monitor::Qemu => qemu::attach(end),
        Monitor::Libvirt => libvirt::attach(end),
        Monitor::CloudHypervisor => cloud_hypervisor::attach(end),
        Monitor::Firecracker => firecracker::attach(end),
    }
}

/// The sentence for a type of port that a monitor has no words for.
fn no_way(end: &SwitchEnd, monitor: Monitor, instead: &str) -> NoWay {
    NoWay(format!("{monitor} cannot use port {}, which is of type {}: {instead}", end.name, end.kind()))
}

impl Attachment {
    /// For the monitor, and for who pastes it.
    pub(crate) fn text(&self) -> String {
        match &self.told {
            Told::Arguments(options, shell) => {
                let mut lines: Vec<_> = options.iter().map(|[o, v]| format!("{o} {}", quoted(v))).collect();
                lines.extend(shell.clone());
                lines.join("\n") + "\n"
            }
            Told::Xml(xml) => xml.clone(),
            Told::Config(config) => format!("{config:#}\n"),
        }
    }

    /// For programs; a program needs no quotes.
    pub(crate) fn document(&self) -> Value {
        let mut document = match &self.told {
            Told::Arguments(options, None) => json!({ "arguments": options.concat() }),
            Told::Arguments(options, Some(shell)) => json!({ "arguments": options.concat(), "shell": shell }),
            Told::Xml(xml) => json!({ "xml": xml }),
            Told::Config(config) => json!({ "config": config }),
        };
        if !self.notes.is_empty() {
            document["notes"] = json!(self.notes);
        }
        document
    }
}

/// A word that a shell takes as one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/+@%".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
