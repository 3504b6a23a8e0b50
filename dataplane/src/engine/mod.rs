//! The control thread's half of the switch: all state that can change, and the order in which it changes.
//!
//! Owns bridges and ports by name, their forwarding databases and counters, the workers, and the newest snapshot.
//! Never looks at a frame (but for [`trace`](crate::api::Request::Trace)).
//!
//! Every change is made before the old is broken. In this order:
//!
//! 1. check: everything that an operator can get wrong surfaces here, nothing has happened yet;
//! 2. make kernel devices;
//! 3. hand their queues to the workers;
//! 4. publish a snapshot that knows them; what went before has an undo, what comes after cannot fail;
//! 5. wait until every worker works with it;
//! 6. take queues back, forget addresses, delete devices.

mod apply;
mod backend;
mod bridges;
mod compile;
mod damped;
mod devices;
mod events;
mod fdb;
mod neigh;
mod ports;
mod remotes;
mod tend;
mod trace;
mod tunnels;
mod underlay;
mod uplinks;
mod view;
mod watch;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use mio::{Registry, Token, Waker};

pub use backend::{Backend, BackendError, Desk, MemoryBackend, Opened, Opener, TapBackend};
use bridges::BridgeState;
use devices::DeviceState;
pub use devices::{DeviceKernel, MemoryDevice, MemoryKernel, Seen, Whose};
use events::Events;
use ports::PortState;
use underlay::Underlay;
use uplinks::UplinkState;
use watch::Watch;
use workers::Workers;

use crate::{
    api::{Control, Refusal, Reply, Request},
    clock::Clock,
    config::{BridgeName, DeviceName, PortName},
    index::{PortIdx, RemoteIdx},
    port::tap::Features,
    snapshot::Snapshot,
    tick::Tick,
    worker::Report,
};

/// How often ageing and the health of devices are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// FDB buckets that one round of ageing looks at in each bridge: a table of 3 million entries in one round, the largest in eight.
const SWEEP_BUDGET: usize = 1 << 20;

/// How an engine is made.
#[derive(Debug)]
pub struct Options {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Whether workers are threads; otherwise they work when [`Engine::run_inline`] is called.
    pub threads: bool,
    /// The time.
    pub clock: Clock,
    /// What rings when a worker has something to say.
    pub bell: Option<Arc<Waker>>,
    /// How ports are opened.
    pub opener: Opener,
    /// What the kernel has and lacks.
    pub features: Features,
}

/// The switch.
#[derive(Debug)]
pub struct Engine {
    clock: Clock,
    opener: Opener,
    features: Features,
    started: Tick,
    bridges: BTreeMap<BridgeName, BridgeState>,
    ports: BTreeMap<PortName, PortState>,
    /// What was behind ports that a plan deletes, to be ended together; nothing where none is carried out.
    leaving: Option<Vec<(PortName, Box<dyn Backend>)>>,
    uplinks: BTreeMap<PortName, UplinkState>,
    devices: BTreeMap<DeviceName, DeviceState>,
    /// Whether devices that somebody has changed are put back.
    enforce: bool,
    events: Events,
    /// Names by index; a free place is reused.
    port_names: Vec<Option<PortName>>,
    bridge_names: Vec<Option<BridgeName>>,
    snapshot: Arc<Snapshot>,
    workers: Workers,
    watch: Watch,
    underlay: Underlay,
    /// The remotes behind static entries of the FDB, and the tunnels they are behind.
    fdb_remotes: BTreeSet<(PortIdx, RemoteIdx)>,
    /// The remote whose path was asked for last.
    next_path: usize,
    next_housekeeping: Tick,
    revision: u64,
}

impl Engine {
    /// An engine without bridges, its workers running.
    ///
    /// # Errors
    /// Where the kernel has no more threads or descriptors.
    pub fn start(options: Options) -> io::Result<Self> {
        let Options { workers, threads, clock, bell, opener, features } = options;
        let now = clock.now();
        Ok(Self {
            workers: Workers::start(workers, threads, &clock, bell)?,
            watch: Watch::new()?,
            clock,
            opener,
            features,
            started: now,
            bridges: BTreeMap::new(),
            ports: BTreeMap::new(),
            leaving: None,
            uplinks: BTreeMap::new(),
            devices: BTreeMap::new(),
            enforce: false,
            events: Events::default(),
            port_names: Vec::new(),
            bridge_names: Vec::new(),
            snapshot: Arc::default(),
            underlay: Underlay::default(),
            fdb_remotes: BTreeSet::new(),
            next_path: 0,
            next_housekeeping: now.after(HOUSEKEEPING),
            revision: 0,
        })
    }

    /// Makes a poll tell under `token` when [`housekeep`](Self::housekeep) has something to do for a port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        self.watch.register(registry, token)
    }

    /// From now on kernel devices that somebody has changed or deleted are put back.
    pub fn enforce_devices(&mut self) {
        self.enforce = true;
    }

    /// Looks after what workers have reported, what ports wait for, ageing and devices; says how long it can be left alone.
    pub fn housekeep(&mut self) -> Duration {
        let reports: Vec<Report> = self.workers.events().collect();
        for report in reports {
            match report {
                Report::Gone { port, deal } => {
                    if let Some(name) = self.port_name(port).cloned() {
                        self.port_lost(&name, deal);
                        self.uplink_lost(&name, deal);
                    }
                }
                Report::PathTooNarrow { remote } => {
                    self.look_up_path(remote);
                    self.follow_paths();
                }
                Report::Done { .. } => {} // is read where mail is sent
            }
        }
        for port in self.watch.readable() {
            if let Some(name) = self.port_name(port).cloned() {
                self.tend(&name);
            }
        }
        let now = self.clock.now();
        if now >= self.next_housekeeping {
            self.next_housekeeping = now.after(HOUSEKEEPING);
            for bridge in self.bridges.values() {
                let ageing = bridge.options.ageing_or_default().duration();
                bridge.fdb.sweep(now, ageing, SWEEP_BUDGET);
                bridge.neighbours.sweep(now, ageing);
            }
            self.settle_damped(now);
            self.housekeep_uplinks(now);
            let names: Vec<PortName> = self.ports.keys().cloned().collect();
            names.iter().for_each(|name| self.tend(name));
            self.housekeep_devices();
            self.housekeep_tunnels(now);
        }
        Duration::from_nanos(self.next_housekeeping.nanos().saturating_sub(now.nanos()))
    }

    /// Lets every worker handle what waits in its queues; only without threads.
    pub fn run_inline(&mut self) {
        self.workers.run_inline();
    }

    /// Counts the requests that have changed what an export says.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The state the workers work with.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Ends all ports and workers; interfaces that do not persist disappear.
    pub fn stop(mut self) {
        self.workers.stop();
    }

    fn port_name(&self, idx: PortIdx) -> Option<&PortName> {
        self.port_names.get(idx.at())?.as_ref()
    }

    fn bridge(&self, name: &BridgeName) -> Result<&BridgeState, Refusal> {
        self.bridges.get(name).ok_or_else(|| not_found("bridge", name))
    }

    fn port(&self, name: &PortName) -> Result<&PortState, Refusal> {
        self.ports.get(name).ok_or_else(|| not_found("port", name))
    }

    /// Compiles what has changed, hands it to the workers and waits until all work with it.
    fn publish(&mut self) {
        self.snapshot = Arc::new(self.compile());
        self.workers.publish(&self.snapshot);
    }
}

/// The first free place of a table, or a new one at its end.
fn free_place<T>(table: &[Option<T>]) -> usize {
    table.iter().position(Option::is_none).unwrap_or(table.len())
}

fn place<T>(table: &mut Vec<Option<T>>, at: usize, value: T) {
    if table.len() <= at {
        table.resize_with(at + 1, || None);
    }
    table[at] = Some(value);
}

fn not_found(kind: &'static str, name: impl ToString) -> Refusal {
    Refusal::NotFound { kind, name: name.to_string() }
}

fn invalid(kind: &'static str, name: impl ToString, reason: impl ToString) -> Refusal {
    Refusal::Invalid { kind, name: name.to_string(), reason: reason.to_string() }
}

impl Control for Engine {
    fn call(&mut self, request: Request) -> Result<Reply, Refusal> {
        let reply = self.answer(request)?;
        let changed = match &reply {
            Reply::Changed { changed } => *changed,
            Reply::Plan(plan) => plan.applied && !plan.steps.is_empty(),
            _ => false,
        };
        self.revision += u64::from(changed);
        Ok(reply)
    }
}

impl Engine {
    fn answer(&mut self, request: Request) -> Result<Reply, Refusal> {
        let changed = |changed| Reply::Changed { changed };
        match request {
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::BridgeAdd(spec) => self.bridge_add(&spec).map(changed),
            Request::BridgeSet(spec) => self.bridge_set(&spec).map(changed),
            Request::BridgeDel { name } => self.bridge_del(&name).map(|()| changed(true)),
            Request::BridgeList => Ok(Reply::Bridges { bridges: self.bridge_views() }),
            Request::PortAdd(spec) => self.port_add(&spec).map(changed),
            Request::PortSet { name, options, unset } => self.port_set(&name, &options, &unset).map(changed),
            Request::PortDel { name } => self.port_del(&name).map(|()| changed(true)),
            Request::PortList => {
                Ok(Reply::Ports { ports: self.ports.values().map(|p| self.port_view(p)).collect() })
            }
            Request::PortShow { name } => {
                Ok(Reply::Port { port: Box::new(self.port_view(self.port(&name)?)) })
            }
            Request::FdbAdd(spec) => self.fdb_add(&spec).map(changed),
            Request::FdbDel { mac, bridge, vlan } => self.fdb_del(mac, &bridge, vlan).map(|()| changed(true)),
            Request::FdbList { bridge, port, vlan, cursor, limit } => {
                self.fdb_page(bridge.as_ref(), port.as_ref(), vlan, cursor, limit)
            }
            Request::FdbFlush { bridge, port, vlan } => self.fdb_flush(bridge.as_ref(), port.as_ref(), vlan),
            Request::RemoteAdd { port, remote } => self.remote_add(&port, remote).map(changed),
            Request::RemoteDel { port, remote } => self.remote_del(&port, remote).map(|()| changed(true)),
            Request::RemoteList { port } => Ok(Reply::Remotes { remotes: self.remote_views(&port)? }),
            Request::NeighAdd(spec) => self.neigh_add(&spec).map(changed),
            Request::NeighDel { ip, bridge, vlan } => {
                self.neigh_del(&bridge, vlan, ip).map(|()| changed(true))
            }
            Request::NeighList { bridge } => {
                Ok(Reply::Neighbours { neighbours: self.neigh_views(bridge.as_ref())? })
            }
            Request::DeviceAdd(spec) => self.device_add(&spec).map(changed),
            Request::DeviceSet { name, options, unset } => {
                self.device_set(&name, &options, &unset).map(changed)
            }
            Request::DeviceDel { name } => self.device_del(&name).map(|()| changed(true)),
            Request::DeviceList => Ok(Reply::Devices { devices: self.device_views() }),
            Request::DeviceShow { name } => Ok(Reply::Device { device: Box::new(self.device_show(&name)?) }),
            Request::UplinkAdd(spec) => self.uplink_add(&spec).map(changed),
            Request::UplinkDel { name } => self.uplink_del(&name).map(|()| changed(true)),
            Request::UplinkList => Ok(Reply::Uplinks { uplinks: self.uplink_views() }),
            Request::Apply { topology, dry_run, prune } => self.apply(&topology, dry_run, prune),
            Request::Export => Ok(self.export()),
            Request::Diff { topology } => self.apply(&topology, true, true),
            Request::Stats { port } => self.stats(port.as_ref()),
            Request::Monitor { after } => Ok(self.monitor(after)),
            Request::Drops { port } => self.drops(port.as_ref()),
            Request::Trace { port, frame, vlan } => self.trace(&port, &frame, vlan).map(Reply::Trace),
        }
    }
}
