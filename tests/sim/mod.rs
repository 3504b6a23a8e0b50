//! Switches in the test's own process: ports in memory, a clock that moves when it is told to, cables from port to port, and an underlay
//! for their tunnels.
//!
//! ```text
//!   host ── p1 ┤ switch 0 ├ up ══cable══ down ┤ switch 1 ├ p1 ── host
//! ```
//!
//! A port that no cable ends at has a host: what the switch sends there is what [`Network::send`] returns.
#![allow(dead_code, unreachable_pub, reason = "shared by simulations, none of which uses all of it")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tapway_dataplane::{
    api::{Control, FdbView, Refusal, Reply, Request, Trace},
    clock::Clock,
    engine::{Engine, MemoryBackend, Opener, Options},
    frame::{Caps, Offload},
    port::{MemoryPeer, tap::Features, underlay::MemoryNet},
};

/// More turns than any network of these tests needs: frames that still travel then go round in circles.
const TURNS: usize = 64;

/// The far ends of a switch's ports, by name; one end a queue.
type Peers = Arc<Mutex<BTreeMap<String, Vec<MemoryPeer>>>>;

/// What a port has sent to its host.
pub type Arrived = (usize, String, Vec<u8>);

/// A switch whose ports end in the test's hands.
#[derive(Debug)]
pub struct Switch {
    pub engine: Engine,
    peers: Peers,
    refuse: Arc<Mutex<Option<usize>>>,
}

impl Switch {
    /// A switch of `workers` workers whose ports have as many queues and take what `caps` says of their name. Its tunnels are on
    /// `underlay`.
    pub fn new(
        clock: &Clock,
        workers: usize,
        underlay: MemoryNet,
        caps: impl Fn(&str) -> Caps + Send + 'static,
    ) -> Self {
        let peers = Peers::default();
        let refuse = Arc::new(Mutex::new(None::<usize>));
        let (open_peers, open_refuse) = (Arc::clone(&peers), Arc::clone(&refuse));
        let opener = Opener::simulated(
            move |spec, queues| {
                if let Some(left) = open_refuse.lock().unwrap().as_mut() {
                    *left = left.wrapping_sub(1);
                    if *left == usize::MAX {
                        return Err("no more of these".into());
                    }
                }
                let (mut opened, first) = MemoryBackend::open(caps(spec.name.as_str()));
                let mut ends = vec![first];
                for _ in 1..queues {
                    let (more, end) = MemoryBackend::open(caps(spec.name.as_str()));
                    opened.queues.extend(more.queues);
                    ends.push(end);
                }
                open_peers.lock().unwrap().insert(spec.name.to_string(), ends);
                Ok(opened)
            },
            underlay,
        );
        let features = Features::default();
        let engine = Engine::start(Options {
            workers,
            threads: false,
            clock: clock.clone(),
            bell: None,
            opener,
            features,
        })
        .unwrap();
        Self { engine, peers, refuse }
    }

    /// From now on `after` ports open and the one after them does not.
    pub fn refuse_to_open(&self, after: usize) {
        *self.refuse.lock().unwrap() = Some(after);
    }

    /// Asks as a client would.
    pub fn ask(&mut self, method: &str, parameters: Value) -> Result<Reply, Refusal> {
        self.engine.call(Request::from_varlink(method, parameters).unwrap())
    }

    /// Asks for a change that must be possible; says whether anything changed.
    pub fn change(&mut self, method: &str, parameters: Value) -> bool {
        match self.ask(method, parameters).unwrap() {
            Reply::Changed { changed } => changed,
            other => panic!("{method} answered {other:?}"),
        }
    }

    /// Why the switch refuses.
    pub fn refusal(&mut self, method: &str, parameters: Value) -> String {
        self.ask(method, parameters).unwrap_err().to_string()
    }

    /// Adds bridge `br0` and ports named `p0`, `p1` … with these options.
    pub fn bridge(&mut self, bridge: Value, ports: &[Value]) {
        let mut spec = json!({ "name": "br0" });
        spec.as_object_mut().unwrap().extend(bridge.as_object().unwrap().clone());
        self.change("BridgeAdd", spec);
        for (n, options) in ports.iter().enumerate() {
            let mut spec = json!({ "name": format!("p{n}"), "bridge": "br0" });
            spec.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            self.change("PortAdd", spec);
        }
    }

    /// The far end of a port's queue.
    pub fn end(&self, port: &str, queue: usize) -> MemoryPeer {
        self.peers.lock().unwrap()[port][queue].clone()
    }

    /// Every entry, as VLAN, address and port, in order.
    pub fn fdb(&mut self) -> Vec<(u16, String, String)> {
        let mut all: Vec<_> =
            self.entries().into_iter().map(|e| (e.vlan, e.mac.to_string(), e.port.to_string())).collect();
        all.sort();
        all
    }

    /// Every entry.
    pub fn entries(&mut self) -> Vec<FdbView> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            match self.ask("FdbList", json!({ "cursor": cursor })).unwrap() {
                Reply::Fdb { entries, next } => {
                    all.extend(entries);
                    cursor = next;
                    if cursor.is_none() {
                        return all;
                    }
                }
                other => panic!("FdbList answered {other:?}"),
            }
        }
    }

    /// The port behind which a station of VLAN 0 is known to be.
    pub fn place(&mut self, station: u8) -> Option<String> {
        let mac = format!("02:00:00:00:00:{station:02x}");
        self.fdb().into_iter().find(|(_, m, _)| *m == mac).map(|(.., port)| port)
    }

    /// Frames dropped on a port for a reason.
    pub fn dropped(&mut self, port: &str, reason: &str) -> u64 {
        self.drops(port).get(reason).copied().unwrap_or(0)
    }

    /// All drops of a port.
    pub fn drops(&mut self, port: &str) -> BTreeMap<String, u64> {
        self.drops_where(json!({ "port": port }))
    }

    /// All drops of all ports and endpoints.
    pub fn all_drops(&mut self) -> BTreeMap<String, u64> {
        self.drops_where(json!({}))
    }

    fn drops_where(&mut self, parameters: Value) -> BTreeMap<String, u64> {
        let Reply::Drops { drops } = self.ask("Drops", parameters).unwrap() else { panic!("no drops") };
        let mut sums = BTreeMap::new();
        drops.into_iter().for_each(|d| *sums.entry(d.reason).or_default() += d.frames);
        sums
    }

    /// What the switch says it would do with a frame.
    pub fn trace(&mut self, port: &str, frame: &[u8]) -> Trace {
        let request = Request::Trace { port: port.parse().unwrap(), frame: frame.to_vec(), vlan: None };
        match self.engine.call(request).unwrap() {
            Reply::Trace(trace) => trace,
            other => panic!("Trace answered {other:?}"),
        }
    }

    /// What runs, as a file.
    pub fn export(&mut self) -> String {
        match self.ask("Export", json!({})).unwrap() {
            Reply::Exported { topology, .. } => topology,
            other => panic!("Export answered {other:?}"),
        }
    }

    /// Applies a file; the steps, as `op kind name`.
    pub fn apply(&mut self, topology: &str, prune: bool) -> Result<Vec<String>, Refusal> {
        match self.ask("Apply", json!({ "topology": topology, "prune": prune }))? {
            Reply::Plan(plan) => {
                Ok(plan.steps.iter().map(|s| format!("{} {} {}", s.op, s.kind, s.name)).collect())
            }
            other => panic!("Apply answered {other:?}"),
        }
    }
}

/// Switches, and the cables between them.
#[derive(Debug)]
pub struct Network {
    clock: Clock,
    pub switches: Vec<Switch>,
    cables: Vec<[(usize, String); 2]>,
    /// What all tunnels send by.
    pub underlay: MemoryNet,
}

impl Network {
    /// `count` switches of one worker, without bridges.
    pub fn new(count: usize) -> Self {
        Self::with(count, 1, |_| Caps::ALL)
    }

    /// `count` switches of `workers` workers, whose ports take what `caps` says of their name.
    pub fn with(count: usize, workers: usize, caps: impl Fn(&str) -> Caps + Send + Clone + 'static) -> Self {
        let clock = Clock::stopped();
        let underlay = MemoryNet::new();
        let switches =
            (0..count).map(|_| Switch::new(&clock, workers, underlay.clone(), caps.clone())).collect();
        Self { clock, switches, cables: Vec::new(), underlay }
    }

    /// One switch with a bridge and these ports.
    pub fn single(bridge: Value, ports: &[Value]) -> Self {
        let mut net = Self::new(1);
        net.switches[0].bridge(bridge, ports);
        net
    }

    /// The first switch.
    pub fn switch(&mut self) -> &mut Switch {
        &mut self.switches[0]
    }

    /// A cable between two ports.
    pub fn cable(&mut self, a: (usize, &str), b: (usize, &str)) {
        self.cables.push([a, b].map(|(switch, port)| (switch, port.to_owned())));
    }

    /// Lets time pass, second by second, as the daemon lives it.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.advance(Duration::from_secs(1));
            for switch in &mut self.switches {
                switch.engine.housekeep();
            }
        }
    }

    /// Moves the clock, and nothing else happens.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// A host sends a plain frame; what arrives at hosts, in the order of their ports.
    pub fn send(&mut self, switch: usize, port: &str, frame: &[u8]) -> Vec<Arrived> {
        assert!(self.switches[switch].end(port, 0).send(frame, Offload::NONE), "too many frames wait");
        self.run()
    }

    /// The names of the ports of the first switch by which a plain frame leaves.
    pub fn outputs(&mut self, port: &str, frame: &[u8]) -> Vec<String> {
        self.send(0, port, frame).into_iter().map(|(_, port, _)| port).collect()
    }

    /// Lets the switches work and carries frames along the cables and through the underlay until nothing moves; what arrives at
    /// hosts.
    pub fn run(&mut self) -> Vec<Arrived> {
        assert!(self.comes_to_rest(TURNS), "frames go round in circles");
        self.arrived()
    }

    /// The same for so many turns at most; whether nothing moves any more.
    pub fn comes_to_rest(&mut self, turns: usize) -> bool {
        for _ in 0..turns {
            self.switches.iter_mut().for_each(|s| s.engine.run_inline());
            let mut moved = self.underlay.waiting() > 0;
            for [a, b] in &self.cables {
                for (from, to) in [(a, b), (b, a)] {
                    let to = self.switches[to.0].end(&to.1, 0);
                    for (frame, offload) in self.switches[from.0].end(&from.1, 0).drain() {
                        assert!(to.send(&frame, offload));
                        moved = true;
                    }
                }
            }
            if !moved {
                return true;
            }
        }
        false
    }

    fn arrived(&self) -> Vec<Arrived> {
        let mut all = Vec::new();
        for (n, switch) in self.switches.iter().enumerate() {
            for (port, ends) in switch.peers.lock().unwrap().iter() {
                if self.cables.iter().flatten().any(|end| *end == (n, port.clone())) {
                    continue;
                }
                let frames = ends.iter().flat_map(MemoryPeer::drain);
                all.extend(frames.map(|(frame, _)| (n, port.clone(), frame)));
            }
        }
        all
    }
}

/// Stands for the broadcast address in [`frame`].
pub const ALL: u8 = 0xff;

/// The octets of station `n`.
pub fn mac(n: u8) -> [u8; 6] {
    if n == ALL { [0xff; 6] } else { [2, 0, 0, 0, 0, n] }
}

/// The address of station `n`, as an operator writes it.
pub fn station(n: u8) -> String {
    format!("02:00:00:00:00:{n:02x}")
}

/// An untagged frame from one station to another.
pub fn frame(to: u8, from: u8) -> Vec<u8> {
    [&mac(to)[..], &mac(from), &[0x88, 0xb5], &[0xaa; 46]].concat()
}

/// The same with a VLAN tag.
pub fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    let [a, b] = vlan.to_be_bytes();
    [&frame[..12], &[0x81, 0, a, b], &frame[12..]].concat()
}
