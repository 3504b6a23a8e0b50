//! What can be asked of a running daemon, and what it answers: the words shared with `tapwayctl`.
//!
//! Owns the requests, the replies, the refusals and the protocol version; the Varlink interface description
//! `io.tapway.varlink` beside this file says the same in the form that other clients read, and a test compares them.
//! Knows nothing of how the engine does it.

mod call;
mod device;
mod event;
pub mod hex;
mod overlay;
mod plan;
mod vm;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::{
    call::{Call, CallError, MIN_INTERVAL},
    device::{DeviceSeen, DeviceView},
    event::Event,
    overlay::{NeighView, RemoteView, TunnelView, UplinkView},
    vm::VmView,
};
use crate::{
    config::{
        AdminState, BridgeName, BridgeSpec, DeviceName, DeviceOptions, DeviceSpec, FdbSpec, Mistake,
        NeighSpec, Netns, OnOff, PortName, PortOptions, PortSpec, PortType, Seconds, Secure, Topology,
        UplinkSpec, VlanList,
    },
    wire::{MacAddr, Vid, Vni},
};

/// Changes when a client of the version before would misunderstand.
pub const PROTOCOL_VERSION: u32 = 1;

/// The Varlink interface.
pub const INTERFACE: &str = "io.tapway";

/// The interface description that introspection gives.
pub const DESCRIPTION: &str = include_str!("io.tapway.varlink");

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Request {
    /// How the daemon is.
    Status,
    /// Make a bridge; nothing happens where it exists with the same settings.
    BridgeAdd(BridgeSpec),
    /// Change the options that are given.
    BridgeSet(BridgeSpec),
    /// Delete a bridge that has no ports.
    BridgeDel { name: BridgeName },
    /// All bridges.
    BridgeList,
    /// Make a port; nothing happens where it exists with the same settings.
    PortAdd(Box<PortSpec>),
    /// Change the options that are given, and put those named in `unset` back to their default.
    /// Naming any VLAN option replaces all of them.
    PortSet { name: PortName, options: Box<PortOptions>, unset: Vec<String> },
    /// Delete a port.
    PortDel { name: PortName },
    /// All ports.
    PortList,
    /// One port.
    PortShow { name: PortName },
    /// Make a static or sticky entry.
    FdbAdd(FdbSpec),
    /// Delete an entry of any kind.
    FdbDel { mac: MacAddr, bridge: BridgeName, vlan: u16 },
    /// Entries, in no order, at most about `limit` of them; `cursor` is the `next` of the page before.
    FdbList {
        bridge: Option<BridgeName>,
        port: Option<PortName>,
        vlan: Option<u16>,
        cursor: Option<u64>,
        limit: Option<u32>,
    },
    /// Forget learned entries.
    FdbFlush { bridge: Option<BridgeName>, port: Option<PortName>, vlan: Option<u16> },
    /// Add another end to a tunnel; nothing happens where it is there.
    RemoteAdd { port: PortName, remote: IpAddr },
    /// Take another end from a tunnel.
    RemoteDel { port: PortName, remote: IpAddr },
    /// The other ends of a tunnel.
    RemoteList { port: PortName },
    /// Answer for a neighbour; nothing happens where it is known with the same address.
    NeighAdd(NeighSpec),
    /// Forget a neighbour of either kind.
    NeighDel { ip: IpAddr, bridge: BridgeName, vlan: u16 },
    /// Neighbours of one or all bridges.
    NeighList { bridge: Option<BridgeName> },
    /// Make a kernel device; nothing happens where it exists with the same settings.
    DeviceAdd(Box<DeviceSpec>),
    /// Change the options that are given, and put those named in `unset` back to their default.
    DeviceSet { name: DeviceName, options: Box<DeviceOptions>, unset: Vec<String> },
    /// Delete a device that nothing is on.
    DeviceDel { name: DeviceName },
    /// All devices.
    DeviceList,
    /// One device.
    DeviceShow { name: DeviceName },
    /// Make an uplink; nothing happens where it exists with the same settings.
    UplinkAdd(Box<UplinkSpec>),
    /// Delete an uplink that no tunnel goes by.
    UplinkDel { name: PortName },
    /// All uplinks.
    UplinkList,
    /// Make what runs equal to a topology file: all of it or nothing.
    Apply { topology: String, dry_run: bool, prune: bool },
    /// What runs, as a topology file.
    Export,
    /// What `Apply` with `prune` would do.
    Diff { topology: String },
    /// Counters of one or all ports.
    Stats { port: Option<PortName> },
    /// Frames that did not leave, by port and reason.
    Drops { port: Option<PortName> },
    /// What has happened since a reply whose `next` was `after`; without it nothing, and where to go on from.
    Monitor { after: Option<u64> },
    /// What the switch would do with a frame; nothing is sent and nothing learned.
    Trace { port: PortName, frame: Vec<u8>, vlan: Option<Vid> },
}

/// The answer to a [`Request`], of the same name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Reply {
    Status(Box<Status>),
    /// The request changed something, or found nothing to change.
    Changed {
        changed: bool,
    },
    Bridges {
        bridges: Vec<BridgeView>,
    },
    Ports {
        ports: Vec<PortView>,
    },
    Port {
        port: Box<PortView>,
    },
    /// A page of entries; `next` is the cursor of the page after it, `None` on the last.
    Fdb {
        entries: Vec<FdbView>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
    },
    Flushed {
        flushed: u64,
    },
    Remotes {
        remotes: Vec<RemoteView>,
    },
    Neighbours {
        neighbours: Vec<NeighView>,
    },
    Devices {
        devices: Vec<DeviceView>,
    },
    Device {
        device: Box<DeviceView>,
    },
    Uplinks {
        uplinks: Vec<UplinkView>,
    },
    Plan(Plan),
    Exported {
        topology: String,
        config: Topology,
    },
    Stats {
        stats: Vec<PortStatsView>,
    },
    Drops {
        drops: Vec<DropView>,
    },
    /// What has happened, in order; `next` leads on.
    Events {
        events: Vec<Event>,
        next: u64,
    },
    Trace(Trace),
}

/// Why the daemon refused; the message names object, reason and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    /// No object of that name.
    #[error("{kind} \"{name}\" does not exist; tapwayctl {kind} list shows those that do")]
    NotFound { kind: &'static str, name: String },
    /// It exists with other settings.
    #[error(
        "{kind} \"{name}\" exists with other settings: {difference}; {}", if *.replace {
            format!("tapwayctl {kind} del makes room for it")
        } else {
            format!("change it with tapwayctl {kind} set")
        }
    )]
    Exists {
        kind: &'static str,
        name: String,
        difference: String,
        /// Whether it has to go first, because what differs cannot be changed.
        replace: bool,
    },
    /// Something else still needs it.
    #[error("{kind} \"{name}\" is in use: {by}; delete that first")]
    InUse { kind: &'static str, name: String, by: String },
    /// The settings make no sense, alone or with what runs.
    #[error("{kind} \"{name}\": {reason}")]
    Invalid { kind: &'static str, name: String, reason: String },
    /// The kernel refused.
    #[error("{kind} \"{name}\": {reason}")]
    Kernel { kind: &'static str, name: String, reason: String },
    /// Mistakes in a topology file, all of them; nothing was changed.
    #[error("the topology has {} mistake{}; nothing was changed{}", .mistakes.len(), if .mistakes.len() == 1 { "" } else { "s" },
        .mistakes.iter().map(|m| format!("\n  {m}")).collect::<String>())]
    Topology { mistakes: Vec<Mistake> },
}

/// Whoever answers requests: the engine, or a stand-in in the tests of the server.
pub trait Control {
    /// Does one thing, whole or not at all.
    ///
    /// # Errors
    /// A [`Refusal`] where nothing was changed.
    fn call(&mut self, request: Request) -> Result<Reply, Refusal>;
}

/// How the daemon is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Status {
    pub version: String,
    /// See [`PROTOCOL_VERSION`].
    pub protocol: u32,
    pub pid: u32,
    pub uptime_s: u64,
    pub generation: u64,
    pub bridges: usize,
    pub ports: usize,
    pub fdb_entries: usize,
    pub workers: Vec<WorkerView>,
    pub kernel: String,
    /// Kernel features found: `tun`, `vnet_hdr`, `multi_queue`, `csum`, `tso4`, `tso6`, `tso_ecn`, `uso`.
    pub features: Vec<String>,
    /// Those looked for and not found.
    pub missing: Vec<String>,
    /// Things an operator should know: an offload given up at run time, a port whose interface went away.
    pub notices: Vec<String>,
}

/// A worker thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Number, from 0.
    pub worker: usize,
    /// The newest snapshot it has taken up.
    pub generation: u64,
    /// Queues it polls.
    pub queues: usize,
    /// Times it woke up.
    pub wakeups: u64,
    /// Batches it handled.
    pub batches: u64,
    /// Frames it received.
    pub frames: u64,
}

/// A bridge as it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BridgeView {
    pub name: BridgeName,
    pub ageing: Seconds,
    pub fdb_limit: u32,
    pub move_limit: u32,
    pub neigh_snoop: OnOff,
    /// Neighbours that it answers for.
    pub neighbours: usize,
    pub ports: usize,
    pub fdb: FdbCounts,
}

/// What a bridge's FDB has counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FdbCounts {
    pub entries: u64,
    pub learned: u64,
    pub moved: u64,
    pub expired: u64,
    pub flushed: u64,
    pub evicted: u64,
    /// Not learned because the table was full.
    pub refused_full: u64,
    /// Not learned because of `--mac-limit`.
    pub refused_mac_limit: u64,
    /// Not learned because a sticky entry stands elsewhere.
    pub refused_sticky: u64,
    /// Held because of `--move-limit`.
    pub damped: u64,
    /// Frames that claimed a held address elsewhere.
    pub refused_damped: u64,
}

/// A port as it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PortView {
    pub name: PortName,
    pub bridge: BridgeName,
    #[serde(rename = "type")]
    pub kind: PortType,
    /// Of a TAP or netdev port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    pub mtu: u32,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub address: Vec<IpNet>,
    pub admin: AdminState,
    /// `up` or `down`.
    pub oper: String,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Those that the workers have: none while the port waits for what is behind it.
    pub queues: u16,
    /// What was negotiated with the kernel or the VM: `vnet_hdr`, `csum`, `tso4`, …; empty without offload.
    pub offload: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<OnOff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Vid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<VlanList>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<Vid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qinq: Option<Vid>,
    pub learning: OnOff,
    pub flood: OnOff,
    pub bcast_flood: OnOff,
    pub mcast_flood: OnOff,
    pub hairpin: OnOff,
    pub isolated: OnOff,
    pub locked: OnOff,
    pub mac_limit: u32,
    pub storm_limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<Secure>,
    /// What a port has beside that whose other side something else opens; nothing of another port.
    #[serde(flatten)]
    pub vm: VmView,
    /// What a tunnel has beside that; nothing of another port.
    #[serde(flatten)]
    pub tunnel: TunnelView,
    /// Learned addresses.
    pub macs: u64,
    pub rx: Traffic,
    pub tx: Traffic,
    pub drops: BTreeMap<String, u64>,
}

/// Frames and octets of one direction, seen from the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Traffic {
    pub frames: u64,
    pub bytes: u64,
}

/// An FDB entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct FdbView {
    pub bridge: BridgeName,
    pub vlan: u16,
    pub mac: MacAddr,
    pub port: PortName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// `dynamic`, `static` or `sticky`.
    pub kind: String,
    /// Seconds since the address was last heard of.
    pub age_s: u32,
    /// Whether the address moved too often and is held.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub damped: bool,
}

/// Counters of a port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PortStatsView {
    pub port: PortName,
    pub rx: Traffic,
    pub tx: Traffic,
    /// All reasons together.
    pub dropped: u64,
}

/// Frames of one port that did not leave for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DropView {
    /// None where the frames could not be given to a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// The tunnel end that they came to then: `vxlan 198.51.100.1:4789`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vtep: Option<String>,
    pub reason: String,
    pub frames: u64,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// What `apply` does, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps; none where the topology already runs.
    pub steps: Vec<PlanStep>,
    /// Whether they were carried out.
    pub applied: bool,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// `+` add, `~` change, `-` remove.
    pub op: String,
    /// `device`, `bridge`, `uplink`, `port`, `fdb` or `neigh`.
    pub kind: String,
    /// Its name; of an FDB entry and a neighbour bridge, VLAN and address.
    pub name: String,
    /// What changes, as `key: old -> new`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub changes: Vec<String>,
}

/// What the switch would do with a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Trace {
    /// `forward`, `flood`, `drop` or `local`.
    pub verdict: String,
    /// The drop reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub steps: Vec<TraceStep>,
    pub outputs: Vec<TraceOutput>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// `parse`, `admit`, `learn`, `lookup`, `egress`.
    pub step: String,
    /// What was decided and why.
    pub detail: String,
}

/// A frame that would leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TraceOutput {
    pub port: PortName,
    pub vlan: u16,
    pub tagged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
}
