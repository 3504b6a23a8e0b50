//! A daemon without a switch: the real server over a stand-in for the engine, for the tests of server and tool.
#![allow(dead_code, unreachable_pub, missing_docs)] // Each test binary uses its part.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker};
use tapway_dataplane::{
    api::{
        BridgeView, Control, DeviceSeen, DeviceView, DropView, Event, FdbCounts, FdbView, NeighView,
        PROTOCOL_VERSION, Plan, PlanStep, PortStatsView, PortView, Refusal, RemoteView, Reply, Request,
        Status, Trace, TraceOutput, TraceStep, Traffic, TunnelView, UplinkView, VmView, WorkerView,
    },
    config::{
        BridgeName, BridgeSpec, DeviceName, DeviceSpec, Mistake, NeighSpec, OnOff, PortName, PortSpec,
        PortType, Topology, UplinkSpec,
    },
    server::{Limits, Server},
};

const STOP: Token = Token(0);

/// A running daemon; it ends with the value.
pub struct Daemon {
    dir: tempfile::TempDir,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// One with bridge `br0` and ports `vm1` (access 10) and `vm2` (down).
    pub fn start() -> Self {
        Self::with(Limits::default(), StandIn::example())
    }

    pub fn with(limits: Limits, mut control: StandIn) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), STOP).unwrap());
        let mut server = Server::bind(&dir.path().join("tapway.sock"), limits).unwrap();
        server.register(poll.registry()).unwrap();
        let thread = std::thread::spawn(move || {
            let mut events = Events::with_capacity(64);
            loop {
                let timeout = server.timers(Instant::now(), &mut control);
                if let Err(e) = poll.poll(&mut events, timeout) {
                    assert_eq!(e.kind(), std::io::ErrorKind::Interrupted);
                }
                for event in &events {
                    if event.token() == STOP {
                        return;
                    }
                    assert!(Server::owns(event.token()));
                    server.handle(event.token(), &mut control);
                }
            }
        });
        Self { dir, waker, thread: Some(thread) }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("tapway.sock")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.waker.wake().unwrap();
        let outcome = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}

/// Objects by name, and numbers that grow with each question.
#[derive(Debug, Default)]
pub struct StandIn {
    pub bridges: BTreeMap<BridgeName, BridgeSpec>,
    pub ports: BTreeMap<PortName, PortSpec>,
    pub fdb: Vec<FdbView>,
    pub neighbours: Vec<NeighSpec>,
    pub uplinks: BTreeMap<PortName, UplinkSpec>,
    pub devices: BTreeMap<DeviceName, DeviceSpec>,
    asked: u64,
}

impl StandIn {
    pub fn example() -> Self {
        let mut it = Self::default();
        let ask = |it: &mut Self, method, parameters| {
            it.call(Request::from_varlink(method, parameters).unwrap()).unwrap();
        };
        ask(&mut it, "BridgeAdd", serde_json::json!({ "name": "br0" }));
        ask(&mut it, "PortAdd", serde_json::json!({ "name": "vm1", "bridge": "br0", "access": 10 }));
        ask(&mut it, "PortAdd", serde_json::json!({ "name": "vm2", "bridge": "br0", "admin": "down" }));
        it.fill_fdb(3);
        it
    }

    /// Makes `n` entries, all different where 7919 does not divide `n`, and not in order.
    pub fn fill_fdb(&mut self, n: u64) {
        self.fdb = (0..n)
            .map(|i| FdbView {
                bridge: "br0".parse().unwrap(),
                vlan: 10,
                mac: tapway_dataplane::wire::MacAddr::from_bits(0x0200_0000_0001 + i * 7919 % n),
                port: "vm1".parse().unwrap(),
                remote: None,
                kind: "dynamic".to_owned(),
                age_s: i as u32,
                damped: false,
            })
            .collect();
    }

    fn port(&self, name: &PortName) -> Result<PortView, Refusal> {
        let spec = self.ports.get(name).ok_or_else(|| not_found("port", name))?;
        let up = OnOff(true);
        let kind = spec.options.kind_or_default();
        let down = spec.options.admin.is_some_and(|a| a.to_string() == "down");
        Ok(PortView {
            name: name.clone(),
            bridge: spec.bridge.clone(),
            kind,
            ifname: kind.has_interface().then(|| name.to_string()),
            netns: spec.options.netns.clone(),
            mac: spec.options.mac,
            mtu: spec.options.mtu.unwrap_or(1500),
            address: spec.options.address.clone(),
            admin: spec.options.admin.unwrap_or_default(),
            oper: if down { "down" } else { "up" }.to_owned(),
            reason: down.then(|| "administratively down".to_owned()),
            queues: 1,
            offload: vec!["vnet_hdr".to_owned(), "csum".to_owned()],
            persist: (kind == PortType::Tap).then_some(OnOff(false)),
            access: spec.options.access,
            trunk: spec.options.trunk.clone(),
            native: spec.options.native,
            qinq: spec.options.qinq,
            learning: up,
            flood: up,
            bcast_flood: up,
            mcast_flood: up,
            hairpin: OnOff(false),
            isolated: OnOff(false),
            locked: OnOff(false),
            mac_limit: 0,
            storm_limit: 0,
            secure: spec.options.secure.clone(),
            vm: VmView::of(spec.effective(1)),
            tunnel: TunnelView::of(spec.effective(1)),
            macs: 1,
            rx: self.traffic(),
            tx: Traffic { frames: 7, bytes: 700 },
            drops: BTreeMap::from([("vlan_not_member".to_owned(), 3)]),
        })
    }

    /// A device that somebody has given another MTU.
    fn device(&self, spec: &DeviceSpec) -> DeviceView {
        let drift = spec.options.mtu.map(|mtu| format!("mtu: {mtu} -> 1500"));
        DeviceView {
            name: spec.name.clone(),
            kind: spec.kind,
            netns: spec.options.netns.clone(),
            state: if drift.is_some() { "drifted" } else { "ok" }.to_owned(),
            drift: drift.into_iter().collect(),
            desired: spec.clone(),
            observed: Some(DeviceSeen {
                index: 7,
                kind: spec.kind.to_string(),
                mtu: 1500,
                address: spec.options.address.clone(),
                master: spec.options.master.clone(),
                up: true,
                oper: "up".to_owned(),
                ..DeviceSeen::default()
            }),
        }
    }

    fn uplink(&self, spec: &UplinkSpec) -> UplinkView {
        let all = spec.effective(1);
        UplinkView {
            name: spec.name.clone(),
            address: spec.address,
            gateway: all.gateway,
            ifname: spec.ifname_or_default().to_owned(),
            netns: all.netns,
            mac: all.mac,
            mtu: all.mtu.unwrap(),
            oper: "up".to_owned(),
            reason: None,
            queues: 1,
            offload: vec!["csum".to_owned()],
            rx: self.traffic(),
            tx: Traffic { frames: 7, bytes: 700 },
            drops: BTreeMap::new(),
        }
    }

    fn traffic(&self) -> Traffic {
        Traffic { frames: 1000 * self.asked, bytes: 100_000 * self.asked }
    }

    fn plan(topology: &str, applied: bool) -> Result<Reply, Refusal> {
        let bad = topology.lines().enumerate().filter(|(_, line)| line.contains("mistake"));
        let mistakes: Vec<_> = bad
            .map(|(i, line)| Mistake { line: i as u32 + 1, message: format!("{line} is no key") })
            .collect();
        if !mistakes.is_empty() {
            return Err(Refusal::Topology { mistakes });
        }
        let step = |op: &str, name: &str, changes: &[&str]| PlanStep {
            op: op.to_owned(),
            kind: "port".to_owned(),
            name: name.to_owned(),
            changes: changes.iter().map(|&c| c.to_owned()).collect(),
        };
        let mut steps = Vec::new();
        if !topology.is_empty() {
            steps.push(step("+", "vm3", &[]));
            steps.push(step("~", "vm1", &["access: 10 -> 20"]));
            steps.push(step("-", "vm2", &[]));
        }
        Ok(Reply::Plan(Plan { steps, applied }))
    }
}

fn not_found(kind: &'static str, name: impl ToString) -> Refusal {
    Refusal::NotFound { kind, name: name.to_string() }
}

impl Control for StandIn {
    fn call(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.asked += 1;
        let changed = |changed| Ok(Reply::Changed { changed });
        match request {
            Request::Status => Ok(Reply::Status(Box::new(Status {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: PROTOCOL_VERSION,
                pid: std::process::id(),
                uptime_s: 3700,
                generation: self.asked,
                bridges: self.bridges.len(),
                ports: self.ports.len(),
                fdb_entries: self.fdb.len(),
                workers: vec![WorkerView {
                    worker: 0,
                    generation: self.asked,
                    queues: 2,
                    ..Default::default()
                }],
                kernel: "6.18.0".to_owned(),
                features: vec!["tun".to_owned(), "vnet_hdr".to_owned()],
                missing: vec!["uso".to_owned()],
                notices: vec![],
            }))),
            Request::BridgeAdd(spec) => match self.bridges.get(&spec.name) {
                None => {
                    self.bridges.insert(spec.name.clone(), spec);
                    changed(true)
                }
                Some(old) if *old == spec => changed(false),
                Some(_) => Err(Refusal::Exists {
                    kind: "bridge",
                    name: spec.name.to_string(),
                    difference: "ageing is 300s".to_owned(),
                    replace: false,
                }),
            },
            Request::BridgeSet(spec) => match self.bridges.get_mut(&spec.name) {
                None => Err(not_found("bridge", &spec.name)),
                Some(old) => {
                    let differs = *old != spec;
                    *old = spec;
                    changed(differs)
                }
            },
            Request::BridgeDel { name } => {
                if let Some(port) = self.ports.values().find(|p| p.bridge == name) {
                    let by = format!("port \"{}\" belongs to it", port.name);
                    return Err(Refusal::InUse { kind: "bridge", name: name.to_string(), by });
                }
                match self.bridges.remove(&name) {
                    Some(_) => changed(true),
                    None => Err(not_found("bridge", &name)),
                }
            }
            Request::BridgeList => {
                let view = |spec: &BridgeSpec| BridgeView {
                    name: spec.name.clone(),
                    ageing: spec.options.ageing_or_default(),
                    fdb_limit: spec.options.fdb_limit_or_default(),
                    move_limit: spec.options.move_limit_or_default(),
                    neigh_snoop: spec.options.neigh_snoop_or_default(),
                    neighbours: self.neighbours.iter().filter(|n| n.bridge == spec.name).count(),
                    ports: self.ports.values().filter(|p| p.bridge == spec.name).count(),
                    fdb: FdbCounts { entries: self.fdb.len() as u64, ..Default::default() },
                };
                Ok(Reply::Bridges { bridges: self.bridges.values().map(view).collect() })
            }
            Request::PortAdd(spec) => {
                if !self.bridges.contains_key(&spec.bridge) {
                    return Err(not_found("bridge", &spec.bridge));
                }
                changed(self.ports.insert(spec.name.clone(), *spec).is_none())
            }
            Request::PortSet { name, options, unset } => match self.ports.get_mut(&name) {
                None => Err(not_found("port", &name)),
                Some(_) if unset.iter().any(|flag| flag == "bridge") => Err(Refusal::Invalid {
                    kind: "port",
                    name: name.to_string(),
                    reason: "bridge has no default".to_owned(),
                }),
                Some(spec) => {
                    spec.options = *options;
                    changed(true)
                }
            },
            Request::PortDel { name } => match self.ports.remove(&name) {
                Some(_) => changed(true),
                None => Err(not_found("port", &name)),
            },
            Request::PortList => {
                let ports = self.ports.keys().map(|name| self.port(name)).collect::<Result<_, _>>()?;
                Ok(Reply::Ports { ports })
            }
            Request::PortShow { name } => Ok(Reply::Port { port: Box::new(self.port(&name)?) }),
            Request::FdbAdd(_) | Request::FdbDel { .. } => changed(true),
            Request::FdbList { cursor, limit, .. } => {
                let from = cursor.unwrap_or(0) as usize;
                let to = self.fdb.len().min(from + limit.unwrap() as usize);
                let next = (to < self.fdb.len()).then_some(to as u64);
                Ok(Reply::Fdb { entries: self.fdb[from..to].to_vec(), next })
            }
            Request::FdbFlush { .. } => {
                Ok(Reply::Flushed { flushed: std::mem::take(&mut self.fdb).len() as u64 })
            }
            Request::RemoteAdd { port, remote } => match self.ports.get_mut(&port) {
                None => Err(not_found("port", &port)),
                Some(spec) if spec.options.remote.contains(&remote) => changed(false),
                Some(spec) => {
                    spec.options.remote.push(remote);
                    changed(true)
                }
            },
            Request::RemoteDel { port, remote } => match self.ports.get_mut(&port) {
                Some(spec) if spec.options.remote.contains(&remote) => {
                    spec.options.remote.retain(|r| *r != remote);
                    changed(true)
                }
                _ => Err(not_found("remote", format!("{remote} of port {port}"))),
            },
            Request::RemoteList { port } => {
                let spec = self.ports.get(&port).ok_or_else(|| not_found("port", &port))?;
                let view = |remote: &std::net::IpAddr| RemoteView {
                    port: port.clone(),
                    remote: *remote,
                    path_mtu: Some(1500),
                    learned: None,
                };
                Ok(Reply::Remotes { remotes: spec.options.remote.iter().map(view).collect() })
            }
            Request::NeighAdd(spec) => {
                let known = self.neighbours.contains(&spec);
                if !known {
                    self.neighbours.push(spec);
                }
                changed(!known)
            }
            Request::NeighDel { ip, bridge, vlan } => {
                let before = self.neighbours.len();
                self.neighbours.retain(|n| (n.ip, &n.bridge, n.vlan) != (ip, &bridge, vlan));
                if self.neighbours.len() == before {
                    return Err(not_found("neigh", format!("{bridge} vlan {vlan} {ip}")));
                }
                changed(true)
            }
            Request::NeighList { bridge } => {
                let wanted =
                    self.neighbours.iter().filter(|n| bridge.as_ref().is_none_or(|b| *b == n.bridge));
                let view = |n: &NeighSpec| NeighView {
                    bridge: n.bridge.clone(),
                    vlan: n.vlan,
                    ip: n.ip,
                    mac: n.mac,
                    kind: "static".to_owned(),
                    age_s: 5,
                };
                Ok(Reply::Neighbours { neighbours: wanted.map(view).collect() })
            }
            Request::DeviceAdd(spec) => match self.devices.get(&spec.name) {
                Some(old) if *old == *spec => changed(false),
                Some(old) => Err(Refusal::Exists {
                    kind: "device",
                    name: spec.name.to_string(),
                    difference: old.difference(&spec).join(", "),
                    replace: !old.immutable_differences(&spec).is_empty(),
                }),
                None => {
                    self.devices.insert(spec.name.clone(), *spec);
                    changed(true)
                }
            },
            Request::DeviceSet { name, options, unset } => {
                let old = self.devices.get(&name).ok_or_else(|| not_found("device", &name))?;
                let new = DeviceSpec { options: old.merge(&options, &unset).unwrap(), ..old.clone() };
                let differs = *old != new;
                self.devices.insert(name, new);
                changed(differs)
            }
            Request::DeviceDel { name } => match self.devices.remove(&name) {
                Some(_) => changed(true),
                None => Err(not_found("device", &name)),
            },
            Request::DeviceList => {
                Ok(Reply::Devices { devices: self.devices.values().map(|d| self.device(d)).collect() })
            }
            Request::DeviceShow { name } => {
                let spec = self.devices.get(&name).ok_or_else(|| not_found("device", &name))?;
                Ok(Reply::Device { device: Box::new(self.device(spec)) })
            }
            Request::UplinkAdd(spec) => match self.uplinks.get(&spec.name) {
                Some(old) if *old == *spec => changed(false),
                Some(old) => Err(Refusal::Exists {
                    kind: "uplink",
                    name: spec.name.to_string(),
                    difference: old.difference(&spec, 1).join(", "),
                    replace: true,
                }),
                None => {
                    self.uplinks.insert(spec.name.clone(), *spec);
                    changed(true)
                }
            },
            Request::UplinkDel { name } => match self.uplinks.remove(&name) {
                Some(_) => changed(true),
                None => Err(not_found("uplink", &name)),
            },
            Request::UplinkList => {
                Ok(Reply::Uplinks { uplinks: self.uplinks.values().map(|u| self.uplink(u)).collect() })
            }
            Request::Apply { topology, dry_run, .. } => Self::plan(&topology, !dry_run),
            Request::Diff { topology } => Self::plan(&topology, false),
            Request::Export => {
                let config = Topology {
                    bridge: self.bridges.values().cloned().collect(),
                    port: self.ports.values().cloned().collect(),
                    ..Default::default()
                };
                Ok(Reply::Exported { topology: config.to_toml(), config })
            }
            Request::Stats { port } => {
                if let Some(name) = &port {
                    self.port(name)?;
                }
                let names = self.ports.keys().filter(|name| port.as_ref().is_none_or(|p| p == *name));
                let tx = Traffic { frames: 7, bytes: 700 };
                let view = |name: &PortName| PortStatsView {
                    port: name.clone(),
                    rx: self.traffic(),
                    tx,
                    dropped: 3,
                };
                Ok(Reply::Stats { stats: names.map(view).collect() })
            }
            Request::Monitor { after } => {
                let next = after.map_or(0, |after| after + 1);
                let event = |kind: &str, name: &str, text: &str| Event {
                    uptime_s: next,
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    text: text.to_owned(),
                };
                let both = [
                    event("port", "vm1", "it is down: the interface is down"),
                    event("device", "v0", "it is repaired"),
                ];
                Ok(Reply::Events { events: after.map_or(Vec::new(), |_| both.into()), next })
            }
            Request::Drops { .. } => Ok(Reply::Drops {
                drops: vec![DropView {
                    port: Some("vm1".parse().unwrap()),
                    vtep: None,
                    reason: "vlan_not_member".to_owned(),
                    frames: 3,
                    what: "The frame's VLAN is not among those of the port.".to_owned(),
                    remedy: "Add the VLAN to the port.".to_owned(),
                }],
            }),
            Request::Trace { port, frame, vlan } => {
                self.port(&port)?;
                Ok(Reply::Trace(Trace {
                    verdict: "forward".to_owned(),
                    reason: None,
                    steps: vec![TraceStep {
                        step: "parse".to_owned(),
                        detail: format!("{} octets, VLAN {}", frame.len(), vlan.map_or(0, |v| v.get())),
                    }],
                    outputs: vec![TraceOutput {
                        port: "vm2".parse().unwrap(),
                        vlan: 10,
                        tagged: false,
                        remote: None,
                        vni: None,
                    }],
                }))
            }
        }
    }
}

/// Waits until `done`, or panics.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}
