//! The interface description says what the types say: every request is a method with the same parameters, every reply
//! and error has the members it declares, and everything is documented.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use tapway_dataplane::{
    api::{
        BridgeView, Call, DESCRIPTION, DeviceSeen, DeviceView, DropView, Event, FdbCounts, FdbView,
        NeighView, Plan, PlanStep, PortStatsView, PortView, Refusal, RemoteView, Reply, Request, Status,
        Trace, TraceOutput, TraceStep, Traffic, UplinkView, WorkerView,
    },
    config::{
        BridgeSpec, DeviceSpec, FdbSpec, Mistake, NeighSpec, OnOff, PortSpec, PortType, Seconds, Topology,
        UplinkSpec,
    },
};

/// A type of the interface description language.
#[derive(Clone, Debug, PartialEq)]
enum Type {
    Bool,
    Int,
    String,
    Named(String),
    Enum(BTreeSet<String>),
    Struct(BTreeMap<String, Self>),
    Array(Box<Self>),
    Map(Box<Self>),
    Maybe(Box<Self>),
}

#[derive(Debug, Default)]
struct Interface {
    types: BTreeMap<String, Type>,
    methods: BTreeMap<String, (Type, Type)>,
    errors: BTreeMap<String, Type>,
}

/// A reader of the language as far as this interface uses it.
struct Parser {
    words: std::vec::IntoIter<String>,
    peeked: Option<String>,
}

impl Parser {
    fn new(text: &str) -> Self {
        let code: String = text.lines().map(|l| l.split('#').next().unwrap().to_owned() + "\n").collect();
        let mut words = Vec::new();
        for word in code.split_whitespace() {
            let mut rest = word;
            while !rest.is_empty() {
                let len = if rest.starts_with("->") {
                    2
                } else {
                    rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.')
                        .map_or(rest.len(), |at| at.max(1))
                };
                words.push(rest[..len].to_owned());
                rest = &rest[len..];
            }
        }
        Self { words: words.into_iter(), peeked: None }
    }

    fn next(&mut self) -> Option<String> {
        self.peeked.take().or_else(|| self.words.next())
    }

    fn word(&mut self) -> String {
        self.next().expect("another word")
    }

    fn accept(&mut self, word: &str) -> bool {
        let next = self.next();
        let same = next.as_deref() == Some(word);
        if !same {
            self.peeked = next;
        }
        same
    }

    fn expect(&mut self, word: &str) {
        assert_eq!(self.word(), word);
    }

    fn read_type(&mut self) -> Type {
        if self.accept("?") {
            return Type::Maybe(Box::new(self.read_type()));
        }
        if self.accept("[") {
            let map = self.accept("string");
            self.expect("]");
            let inner = Box::new(self.read_type());
            return if map { Type::Map(inner) } else { Type::Array(inner) };
        }
        let word = self.word();
        match word.as_str() {
            "(" => self.members(),
            "bool" => Type::Bool,
            "int" => Type::Int,
            "string" => Type::String,
            _ => Type::Named(word),
        }
    }

    /// What follows an opening parenthesis.
    fn members(&mut self) -> Type {
        let (mut names, mut fields) = (BTreeSet::new(), BTreeMap::new());
        if self.accept(")") {
            return Type::Struct(fields);
        }
        loop {
            let name = self.word();
            if self.accept(":") {
                let of = self.read_type();
                assert!(fields.insert(name.clone(), of).is_none(), "{name} twice");
            } else {
                names.insert(name);
            }
            if self.accept(")") {
                break;
            }
            self.expect(",");
        }
        if names.is_empty() { Type::Struct(fields) } else { Type::Enum(names) }
    }

    fn interface(mut self) -> Interface {
        self.expect("interface");
        self.expect("io.tapway");
        let mut all = Interface::default();
        while let Some(kind) = self.next() {
            let name = self.word();
            let one = self.read_type();
            let twice = match kind.as_str() {
                "type" => all.types.insert(name.clone(), one).is_some(),
                "error" => all.errors.insert(name.clone(), one).is_some(),
                "method" => {
                    self.expect("->");
                    let reply = self.read_type();
                    all.methods.insert(name.clone(), (one, reply)).is_some()
                }
                other => panic!("{other} is no kind of member"),
            };
            assert!(!twice, "{name} is declared twice");
        }
        all
    }
}

fn interface() -> Interface {
    Parser::new(DESCRIPTION).interface()
}

impl Interface {
    /// Whether a value that has every member is exactly of a type: nothing missing and nothing more on either side.
    fn conforms(&self, value: &Value, of: &Type, at: &str) {
        match (of, value) {
            (Type::Bool, Value::Bool(_)) | (Type::String, Value::String(_)) => {}
            (Type::Int, Value::Number(n)) => assert!(n.is_u64() || n.is_i64(), "{at}: {n} is no integer"),
            (Type::Named(name), _) => {
                let of = self.types.get(name).unwrap_or_else(|| panic!("{at}: no type {name}"));
                self.conforms(value, of, &format!("{at}.{name}"));
            }
            (Type::Enum(words), Value::String(s)) => {
                assert!(words.contains(s), "{at}: {s} is not in {words:?}")
            }
            (Type::Array(of), Value::Array(all)) => {
                assert!(!all.is_empty(), "{at}: the sample should have elements");
                all.iter().for_each(|one| self.conforms(one, of, at));
            }
            (Type::Map(of), Value::Object(all)) => all.values().for_each(|one| self.conforms(one, of, at)),
            (Type::Maybe(of), _) => self.conforms(value, of, at),
            (Type::Struct(fields), Value::Object(all)) => {
                let names = |keys: &mut dyn Iterator<Item = &String>| keys.cloned().collect::<BTreeSet<_>>();
                assert_eq!(names(&mut fields.keys()), names(&mut all.keys()), "{at}");
                fields.iter().for_each(|(name, of)| self.conforms(&all[name], of, &format!("{at}.{name}")));
            }
            _ => panic!("{at}: {value} is not of {of:?}"),
        }
    }
}

const PORT: &str = r#"{ "type": "tap", "access": 10, "trunk": "20-29", "native": 20, "qinq": 30, "learning": true,
    "flood": true, "bcast_flood": true, "mcast_flood": true, "hairpin": false, "isolated": false, "locked": false,
    "mac_limit": 5, "storm_limit": 6, "mtu": 9000, "admin": "up", "secure": "mac=02:00:00:00:00:01,ip=198.51.100.1",
    "ifname": "eth0", "netns": "blue", "address": ["198.51.100.1/24"], "mac": "02:00:00:00:00:01", "queues": 2,
    "persist": true, "offload": true, "driver": "packet", "qdisc_bypass": true, "path": "/run/vm1", "listen": true,
    "connect": false, "peer_path": "/run/vm2", "server": true, "client": false, "vni": 7, "vlan_vni": { "10": 1010 }, "local": "198.51.100.1",
    "remote": ["198.51.100.2"], "group": "239.1.1.1", "underlay_dev": "eth0", "dst_port": 4790, "src_port": "1-2",
    "ttl": "inherit", "tos": "8", "df": "inherit", "udp_csum": false, "udp6_zero_csum_rx": true, "remote_check": true,
    "bum_limit": 7, "gbp": true, "gbp_id": 8, "reserved": "drop", "option": ["0102:80:00001111"] }"#;

const DEVICE: &str = r#"{ "name": "v0", "type": "veth", "netns": "blue", "create_netns": true, "mac": "02:00:00:00:00:01",
    "mtu": 9000, "address": ["198.51.100.1/24"], "master": "kbr", "up": true, "route": ["default via 198.51.100.2"],
    "sysctl": ["ipv4.forwarding=1"],
    "peer": { "name": "eth0", "netns": "c1", "address": ["198.51.100.2/24"], "mac": "02:00:00:00:00:02" },
    "parent": "eth0", "link_netns": "c1", "mode": "l2", "flag": "vepa", "id": 7, "protocol": "802.1ad", "local": "198.51.100.1", "remote": "198.51.100.2",
    "group": "239.1.1.1", "dev": "eth0", "dstport": 4789, "ttl": "inherit", "tos": "8", "learning": false, "udpcsum": false,
    "external": true, "fdb": ["02:00:00:00:00:07 dst 198.51.100.2 vni 8"], "stp": true, "ageing": "300s", "vlan_filtering": true, "mcast_snooping": false, "owner": 1000,
    "queues": 2, "vnet_hdr": true, "persistent": false }"#;

const UPLINK: &str = r#"{ "name": "up0", "address": "198.51.100.1/30", "gateway": "198.51.100.2", "ifname": "vtep0",
    "netns": "blue", "mac": "02:00:00:00:00:01", "mtu": 9000, "queues": 2, "offload": true }"#;

const NEIGH: &str = r#"{ "ip": "2001:db8::7", "mac": "02:00:00:00:00:07", "bridge": "br0", "vlan": 10 }"#;

fn with(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

/// A call of every method with every parameter.
fn calls() -> BTreeMap<&'static str, Value> {
    let port: Value = serde_json::from_str(PORT).unwrap();
    let bridge =
        json!({ "name": "br0", "ageing": "300s", "fdb_limit": 10, "move_limit": 3, "neigh_snoop": true });
    let name = json!({ "name": "x" });
    let interval = json!({ "interval_ms": 1000 });
    let entry = json!({ "mac": "02:00:00:00:00:07", "bridge": "br0", "vlan": 10 });
    let some = json!({ "bridge": "br0", "port": "vm1", "vlan": 10 });
    let remote = json!({ "port": "vm1", "remote": "198.51.100.2" });
    let device: Value = serde_json::from_str(DEVICE).unwrap();
    let mut device_set = with(device.clone(), json!({ "unset": ["mtu"] }));
    device_set.as_object_mut().unwrap().remove("type");
    BTreeMap::from([
        ("Status", interval.clone()),
        ("BridgeAdd", bridge.clone()),
        ("BridgeSet", bridge),
        ("BridgeDel", name.clone()),
        ("BridgeList", json!({})),
        ("PortAdd", with(port.clone(), json!({ "name": "vm1", "bridge": "br0" }))),
        ("PortSet", with(port, json!({ "name": "vm1", "unset": ["mtu"] }))),
        ("PortDel", name.clone()),
        ("PortList", interval.clone()),
        ("PortShow", name),
        ("FdbAdd", with(entry.clone(), json!({ "port": "vm1", "remote": "198.51.100.2", "sticky": true }))),
        ("FdbDel", entry),
        ("FdbList", with(some.clone(), json!({ "cursor": 5, "limit": 6 }))),
        ("FdbFlush", some),
        ("RemoteAdd", remote.clone()),
        ("RemoteDel", remote),
        ("RemoteList", json!({ "port": "vm1" })),
        ("NeighAdd", serde_json::from_str(NEIGH).unwrap()),
        ("NeighDel", json!({ "ip": "198.51.100.7", "bridge": "br0", "vlan": 10 })),
        ("NeighList", json!({ "bridge": "br0" })),
        ("DeviceAdd", device.clone()),
        ("DeviceSet", device_set),
        ("DeviceDel", json!({ "name": "v0" })),
        ("DeviceList", json!({})),
        ("DeviceShow", json!({ "name": "v0" })),
        ("UplinkAdd", serde_json::from_str(UPLINK).unwrap()),
        ("UplinkDel", json!({ "name": "up0" })),
        ("UplinkList", json!({})),
        ("Apply", json!({ "topology": "", "dry_run": true, "prune": true })),
        ("Export", json!({})),
        ("Diff", json!({ "topology": "" })),
        ("Stats", with(interval.clone(), json!({ "port": "vm1" }))),
        ("Drops", with(interval.clone(), json!({ "port": "vm1" }))),
        ("Monitor", with(interval, json!({ "after": 7 }))),
        ("Trace", json!({ "port": "vm1", "frame": "0200", "vlan": 10 })),
    ])
}

#[test]
fn every_request_is_a_method_with_the_same_parameters() {
    let interface = interface();
    let calls = calls();
    let declared: BTreeSet<_> =
        interface.methods.keys().map(String::as_str).filter(|m| *m != "Protocol").collect();
    assert_eq!(declared, Request::METHODS.iter().copied().collect());
    assert_eq!(declared, calls.keys().copied().collect());
    for (method, parameters) in calls {
        interface.conforms(&parameters, &interface.methods[method].0, method);
        let Call { request, interval } = Call::from_varlink(method, parameters.clone()).unwrap();
        assert_eq!(request.method(), method);
        let mut back = request.parameters();
        if let Some(interval) = interval {
            back["interval_ms"] = json!(interval.as_millis() as u64);
        }
        assert_eq!(back, parameters, "{method}");
        // What the description says may be left out may, and nothing else.
        let Type::Struct(fields) = &interface.methods[method].0 else { panic!() };
        let needed = |name: &String| !matches!(fields[name], Type::Maybe(_));
        let all = parameters.as_object().unwrap();
        let least: Map<_, _> = all.clone().into_iter().filter(|(name, _)| needed(name)).collect();
        assert!(Call::from_varlink(method, Value::Object(least.clone())).is_ok(), "{method}");
        for name in least.keys() {
            let mut without = least.clone();
            without.remove(name);
            assert!(Call::from_varlink(method, Value::Object(without)).is_err(), "{method} needs {name}");
        }
    }
}

fn views() -> Vec<(&'static str, Reply)> {
    let traffic = Traffic { frames: 1, bytes: 64 };
    let on = OnOff(true);
    // The keys of a tunnel under the names of a view, and what the daemon adds.
    let mut tunnel: Value = serde_json::from_str(PORT).unwrap();
    tunnel["remotes"] = tunnel["remote"].clone();
    tunnel = with(tunnel, json!({ "inner_mtu": 1450, "via": "uplink up0" }));
    let port = PortView {
        name: "vm1".parse().unwrap(),
        bridge: "br0".parse().unwrap(),
        kind: PortType::Tap,
        ifname: Some("eth0".to_owned()),
        netns: Some("blue".parse().unwrap()),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        mtu: 1500,
        address: vec!["198.51.100.1/24".parse().unwrap()],
        admin: "up".parse().unwrap(),
        oper: "down".to_owned(),
        reason: Some("its interface is gone".to_owned()),
        queues: 2,
        offload: vec!["csum".to_owned()],
        persist: Some(on),
        access: Some(10.try_into().unwrap()),
        trunk: Some("10-20".parse().unwrap()),
        native: Some(10.try_into().unwrap()),
        qinq: Some(10.try_into().unwrap()),
        learning: on,
        flood: on,
        bcast_flood: on,
        mcast_flood: on,
        hairpin: on,
        isolated: on,
        locked: on,
        mac_limit: 5,
        storm_limit: 6,
        secure: Some("mac=02:00:00:00:00:01".parse().unwrap()),
        vm: serde_json::from_value(tunnel.clone()).unwrap(),
        tunnel: serde_json::from_value(tunnel).unwrap(),
        macs: 1,
        rx: traffic,
        tx: traffic,
        drops: BTreeMap::from([("runt".to_owned(), 1)]),
    };
    let some = || vec!["some".to_owned()];
    let step = |op: &str, kind: &str| PlanStep {
        op: op.to_owned(),
        kind: kind.to_owned(),
        name: "x".to_owned(),
        changes: some(),
    };
    let plan = Reply::Plan(Plan {
        steps: vec![
            step("+", "bridge"),
            step("~", "port"),
            step("-", "fdb"),
            step("-", "uplink"),
            step("+", "device"),
            step("~", "neigh"),
        ],
        applied: true,
    });
    let entry = FdbView {
        bridge: "br0".parse().unwrap(),
        vlan: 10,
        mac: "02:00:00:00:00:07".parse().unwrap(),
        port: "vm1".parse().unwrap(),
        remote: Some("198.51.100.2".parse().unwrap()),
        kind: "sticky".to_owned(),
        age_s: 5,
        damped: true,
    };
    let options: Value = serde_json::from_str(PORT).unwrap();
    let topology = Topology {
        bridge: vec![BridgeSpec {
            name: "br0".parse().unwrap(),
            options: serde_json::from_value(
                json!({ "ageing": "300s", "fdb_limit": 10, "move_limit": 3, "neigh_snoop": true }),
            )
            .unwrap(),
        }],
        device: vec![serde_json::from_str::<DeviceSpec>(DEVICE).unwrap()],
        uplink: vec![serde_json::from_str::<UplinkSpec>(UPLINK).unwrap()],
        neigh: vec![serde_json::from_str::<NeighSpec>(NEIGH).unwrap()],
        port: vec![PortSpec {
            name: "vm1".parse().unwrap(),
            bridge: "br0".parse().unwrap(),
            options: serde_json::from_value(options).unwrap(),
        }],
        fdb: vec![FdbSpec {
            mac: "02:00:00:00:00:07".parse().unwrap(),
            bridge: "br0".parse().unwrap(),
            vlan: 10,
            port: "vm1".parse().unwrap(),
            remote: Some("198.51.100.2".parse().unwrap()),
            sticky: true,
        }],
    };
    let status = Status {
        workers: vec![WorkerView::default()],
        features: some(),
        missing: some(),
        notices: some(),
        ..Default::default()
    };
    let bridge = BridgeView {
        name: "br0".parse().unwrap(),
        ageing: Seconds(300),
        fdb_limit: 10,
        move_limit: 3,
        neigh_snoop: on,
        neighbours: 1,
        ports: 1,
        fdb: FdbCounts::default(),
    };
    let changed = || Reply::Changed { changed: true };
    let trace = Trace {
        verdict: "drop".to_owned(),
        reason: Some("runt".to_owned()),
        steps: vec![TraceStep { step: "parse".to_owned(), detail: "a runt".to_owned() }],
        outputs: vec![TraceOutput {
            port: "vm1".parse().unwrap(),
            vlan: 10,
            tagged: true,
            remote: Some("198.51.100.2".parse().unwrap()),
            vni: Some(1010.try_into().unwrap()),
        }],
    };
    let remote = RemoteView {
        port: "vm1".parse().unwrap(),
        remote: "198.51.100.2".parse().unwrap(),
        path_mtu: Some(1500),
        learned: Some(3),
    };
    let neighbour = NeighView {
        bridge: "br0".parse().unwrap(),
        vlan: 10,
        ip: "198.51.100.7".parse().unwrap(),
        mac: "02:00:00:00:00:07".parse().unwrap(),
        kind: "snooped".to_owned(),
        age_s: 5,
    };
    let device = DeviceView {
        name: "v0".parse().unwrap(),
        kind: "veth".parse().unwrap(),
        netns: Some("blue".parse().unwrap()),
        state: "drifted".to_owned(),
        drift: some(),
        desired: serde_json::from_str(DEVICE).unwrap(),
        observed: Some(DeviceSeen {
            index: 7,
            kind: "veth".to_owned(),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            mtu: 1500,
            address: vec!["198.51.100.1/24".parse().unwrap()],
            master: Some("kbr".to_owned()),
            up: true,
            oper: "up".to_owned(),
        }),
    };
    let uplink = UplinkView {
        name: "up0".parse().unwrap(),
        address: "198.51.100.1/30".parse().unwrap(),
        gateway: Some("198.51.100.2".parse().unwrap()),
        ifname: "vtep0".to_owned(),
        netns: Some("blue".parse().unwrap()),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        mtu: 1500,
        oper: "down".to_owned(),
        reason: Some("its interface is gone".to_owned()),
        queues: 2,
        offload: some(),
        rx: traffic,
        tx: traffic,
        drops: BTreeMap::from([("runt".to_owned(), 1)]),
    };
    let drops = DropView {
        port: Some("vm1".parse().unwrap()),
        vtep: Some("vxlan 198.51.100.1:4789".to_owned()),
        reason: "runt".to_owned(),
        frames: 1,
        what: "w".to_owned(),
        remedy: "r".to_owned(),
    };
    vec![
        ("Status", Reply::Status(Box::new(status))),
        ("BridgeAdd", changed()),
        ("BridgeSet", changed()),
        ("BridgeDel", changed()),
        ("BridgeList", Reply::Bridges { bridges: vec![bridge] }),
        ("PortAdd", changed()),
        ("PortSet", changed()),
        ("PortDel", changed()),
        ("PortList", Reply::Ports { ports: vec![port.clone()] }),
        ("PortShow", Reply::Port { port: Box::new(port) }),
        ("FdbAdd", changed()),
        ("FdbDel", changed()),
        ("FdbList", Reply::Fdb { entries: vec![entry], next: Some(5) }),
        ("FdbFlush", Reply::Flushed { flushed: 3 }),
        ("RemoteAdd", changed()),
        ("RemoteDel", changed()),
        ("RemoteList", Reply::Remotes { remotes: vec![remote] }),
        ("NeighAdd", changed()),
        ("NeighDel", changed()),
        ("NeighList", Reply::Neighbours { neighbours: vec![neighbour] }),
        ("DeviceAdd", changed()),
        ("DeviceSet", changed()),
        ("DeviceDel", changed()),
        ("DeviceList", Reply::Devices { devices: vec![device.clone()] }),
        ("DeviceShow", Reply::Device { device: Box::new(device) }),
        ("UplinkAdd", changed()),
        ("UplinkDel", changed()),
        ("UplinkList", Reply::Uplinks { uplinks: vec![uplink] }),
        ("Apply", plan.clone()),
        ("Export", Reply::Exported { topology: String::new(), config: topology }),
        ("Diff", plan),
        (
            "Stats",
            Reply::Stats {
                stats: vec![PortStatsView {
                    port: "vm1".parse().unwrap(),
                    rx: traffic,
                    tx: traffic,
                    dropped: 1,
                }],
            },
        ),
        ("Drops", Reply::Drops { drops: vec![drops] }),
        (
            "Monitor",
            Reply::Events {
                events: vec![Event {
                    uptime_s: 7,
                    kind: "device".to_owned(),
                    name: "v0".to_owned(),
                    text: "it is repaired".to_owned(),
                }],
                next: 8,
            },
        ),
        ("Trace", Reply::Trace(trace)),
    ]
}

#[test]
fn every_member_of_a_reply_is_declared_and_every_declared_one_is_there() {
    let interface = interface();
    let views = views();
    assert_eq!(
        views.iter().map(|(m, _)| *m).collect::<Vec<_>>(),
        Request::METHODS,
        "one reply of each method"
    );
    for (method, reply) in views {
        interface.conforms(&json!(reply), &interface.methods[method].1, method);
    }
}

#[test]
fn every_refusal_is_a_declared_error_with_its_sentence() {
    let interface = interface();
    let (kind, name) = ("port", "vm1".to_owned());
    let text = || "x".to_owned();
    let refusals = [
        Refusal::NotFound { kind, name: name.clone() },
        Refusal::Exists { kind, name: name.clone(), difference: text(), replace: false },
        Refusal::InUse { kind, name: name.clone(), by: text() },
        Refusal::Invalid { kind, name: name.clone(), reason: text() },
        Refusal::Kernel { kind, name, reason: text() },
        Refusal::Topology { mistakes: vec![Mistake { line: 1, message: text() }] },
    ];
    let of_the_server = ["TooManyClients", "PermissionDenied", "TooLarge", "Malformed"];
    let mut named: BTreeSet<_> = of_the_server.map(str::to_owned).into();
    for refusal in refusals {
        let (error, parameters) = refusal.to_varlink();
        let error = error.strip_prefix("io.tapway.").unwrap();
        interface.conforms(&parameters, &interface.errors[error], error);
        assert_eq!(parameters["message"], refusal.to_string());
        named.insert(error.to_owned());
    }
    assert_eq!(named, interface.errors.into_keys().collect());
}

#[test]
fn everything_in_the_description_is_documented() {
    let lines: Vec<_> = DESCRIPTION.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let member = ["type ", "method ", "error "].iter().any(|kind| line.starts_with(kind));
        // The parameters of a method are documented above it.
        let above = lines[..i].iter().rev().find(|l| !l.starts_with("  ") && !l.is_empty());
        let field = line.starts_with("  ") && !line.trim_start().starts_with('#');
        let of_a_type = above.is_some_and(|l| l.starts_with("type "));
        if member || field && of_a_type {
            assert!(lines[i - 1].trim_start().starts_with("# "), "line {}: {line} is not documented", i + 1);
        }
    }
}

#[test]
fn the_protocol_page_lists_every_error_and_the_limits_in_force() {
    let page = include_str!("../../docs/reference/protocol.md");
    let row = |line: &str| Some(line.strip_prefix("| `io.tapway.")?.split_once('`')?.0.to_owned());
    let listed: BTreeSet<_> = page.lines().filter_map(row).collect();
    assert_eq!(listed, interface().errors.into_keys().collect());
    let limits = tapway_dataplane::server::Limits::default();
    for line in [
        format!("| Clients at once | {} |", limits.max_clients),
        format!("| A request | {} MiB |", limits.max_request >> 20),
        format!("above which it gets no further one | {} KiB |", limits.max_output >> 10),
        format!("must take some | {} s |", limits.stall.as_secs()),
    ] {
        assert!(page.contains(&line), "{line}");
    }
}
