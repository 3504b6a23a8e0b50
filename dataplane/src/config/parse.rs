//! From the text of a topology file to specs, or to every mistake in it.
//!
//! A file is mended in an editor, so one mistake at a time is one round at a time: each key is tried alone, and what a
//! mistake causes elsewhere is not told as another one.
//! A kind of object is one [`Object`]; `parse` reads each kind and then compares the names they use.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{
    check::Problem,
    device::{DeviceSpec, Graph, Node},
    keys::{missing, unknown},
    spec::{BridgeSpec, FdbSpec, NeighSpec, PortSpec, UplinkSpec},
    syntax::{Lines, is_header, sound},
    topology::{Mistake, SourceLines, Topology},
};

/// Mistakes told of one file, beyond which they are counted: a file of so many is not a topology.
const MISTAKES_MAX: usize = 1000;

/// A kind of table in a topology file.
trait Object: DeserializeOwned {
    const TABLE: &'static str;
    /// The keys that must be there, each with a value that is legal, which stands in while other keys are tried.
    const REQUIRED: &'static [(&'static str, &'static str)];

    fn problems(&self) -> Vec<Problem>;
    /// What tells one object of the kind from another.
    fn name(&self) -> String;
}

impl Object for DeviceSpec {
    const TABLE: &'static str = "device";
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("name", "x"), ("type", "dummy")];

    fn problems(&self) -> Vec<Problem> {
        self.problems()
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl Object for BridgeSpec {
    const TABLE: &'static str = "bridge";
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("name", "x")];

    fn problems(&self) -> Vec<Problem> {
        self.problems()
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl Object for PortSpec {
    const TABLE: &'static str = "port";
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("name", "x"), ("bridge", "x")];

    fn problems(&self) -> Vec<Problem> {
        self.problems()
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl Object for FdbSpec {
    const TABLE: &'static str = "fdb";
    const REQUIRED: &'static [(&'static str, &'static str)] =
        &[("mac", "02:00:00:00:00:01"), ("bridge", "x"), ("port", "x")];

    fn problems(&self) -> Vec<Problem> {
        self.problems()
    }

    fn name(&self) -> String {
        self.key()
    }
}

impl Object for UplinkSpec {
    const TABLE: &'static str = "uplink";
    const REQUIRED: &'static [(&'static str, &'static str)] =
        &[("name", "x"), ("address", "198.51.100.1/24")];

    fn problems(&self) -> Vec<Problem> {
        self.problems()
    }

    fn name(&self) -> String {
        self.name.to_string()
    }
}

impl Object for NeighSpec {
    const TABLE: &'static str = "neigh";
    const REQUIRED: &'static [(&'static str, &'static str)] =
        &[("ip", "198.51.100.1"), ("mac", "02:00:00:00:00:01"), ("bridge", "x")];

    fn problems(&self) -> Vec<Problem> {
        self.problems()
    }

    fn name(&self) -> String {
        self.key()
    }
}

const TABLES: [&str; 6] = [
    DeviceSpec::TABLE,
    BridgeSpec::TABLE,
    UplinkSpec::TABLE,
    PortSpec::TABLE,
    FdbSpec::TABLE,
    NeighSpec::TABLE,
];

/// An object as far as it could be read.
struct Draft<T> {
    spec: T,
    /// Line of its header.
    line: u32,
    /// Lines of the keys that could be read.
    read: BTreeMap<String, u32>,
    /// The keys that are there and could not be read; `spec` has a stand-in or nothing for them.
    unread: BTreeSet<String>,
}

impl<T: Object> Draft<T> {
    fn line_of(&self, key: &str) -> u32 {
        self.read.get(key).copied().unwrap_or(self.line)
    }

    /// Whether `spec` says of these keys what the file says; the required among them must be there.
    fn knows(&self, keys: &[&str]) -> bool {
        let required = |key: &str| T::REQUIRED.iter().any(|(name, _)| *name == key);
        keys.iter().all(|key| !self.unread.contains(*key) && (self.read.contains_key(*key) || !required(key)))
    }
}

struct Parser<'a> {
    lines: &'a Lines,
    /// The lines that are headers, damaged ones included.
    headers: Vec<u32>,
    blanked: &'a BTreeSet<u32>,
    mistakes: Vec<Mistake>,
    /// Those beyond [`MISTAKES_MAX`].
    more: usize,
}

/// Reads one object from its keys; a required key that is not among them has its stand-in.
fn read_with_stand_ins<T: Object>(mut table: DeTable<'_>) -> Result<T, String> {
    for (key, value) in T::REQUIRED {
        if !table.contains_key(*key) {
            let value = DeValue::String(Cow::Borrowed(value));
            table.insert(Spanned::new(0..0, Cow::Borrowed(*key)), Spanned::new(0..0, value));
        }
    }
    T::deserialize(Deserializer::from(Spanned::new(0..0, table))).map_err(|e| e.message().to_owned())
}

/// The object in front of a message: `port "vm1"`.
fn label<T: Object>(table: &DeTable<'_>) -> String {
    let name = T::REQUIRED.first().and_then(|(key, _)| table.get(*key)?.get_ref().as_str());
    match name {
        Some(name) => format!("{} {:?}", T::TABLE, name.chars().take(64).collect::<String>()),
        None => T::TABLE.to_owned(),
    }
}

pub(super) fn parse(text: &str) -> Result<(Topology, SourceLines), Vec<Mistake>> {
    let lines = Lines::of(text);
    let sound = sound(text, &lines);
    let headers = text.split('\n').zip(1..).filter(|(line, _)| is_header(line)).map(|(_, number)| number);
    let mut parser = Parser {
        lines: &lines,
        headers: headers.collect(),
        blanked: &sound.blanked,
        mistakes: Vec::new(),
        more: 0,
    };
    for Mistake { line, message } in sound.mistakes.clone() {
        parser.mistake(line, message);
    }
    let (document, _) = DeTable::parse_recoverable(&sound.text);
    let mut document = document.into_inner();

    let devices = parser.read::<DeviceSpec>(&mut document);
    let bridges = parser.read::<BridgeSpec>(&mut document);
    let uplinks = parser.read::<UplinkSpec>(&mut document);
    let ports = parser.read::<PortSpec>(&mut document);
    let fdb = parser.read::<FdbSpec>(&mut document);
    let neighs = parser.read::<NeighSpec>(&mut document);
    parser.refuse_rest(&document);
    parser.refuse_twins(&devices, &["name"]);
    parser.refuse_twins(&bridges, &["name"]);
    parser.refuse_twins(&uplinks, &["name"]);
    parser.refuse_twins(&ports, &["name"]);
    parser.refuse_twins(&fdb, &["mac", "bridge", "vlan"]);
    parser.refuse_twins(&neighs, &["ip", "bridge", "vlan"]);
    parser.refuse_shared_names(&uplinks, &ports);
    parser.refuse_shared_addresses(&uplinks);
    parser.refuse_shared_interfaces(&devices, &uplinks, &ports);
    parser.refuse_shared_networks(&ports);
    parser.refuse_shared_paths(&ports);
    parser.refuse_cycles(&devices, &uplinks, &ports);
    if sound.mistakes.is_empty() {
        parser.refuse_unknown_names(&bridges, &ports, &fdb, &neighs);
    }

    let Parser { mut mistakes, more, .. } = parser;
    if mistakes.is_empty() {
        let mut source = SourceLines::default();
        let topology = Topology {
            device: keep(devices, &mut source),
            bridge: keep(bridges, &mut source),
            uplink: keep(uplinks, &mut source),
            port: keep(ports, &mut source),
            fdb: keep(fdb, &mut source),
            neigh: keep(neighs, &mut source),
        };
        return Ok((topology, source));
    }
    mistakes.sort();
    mistakes.dedup();
    if more > 0 {
        let line = mistakes.last().map_or(1, |m| m.line);
        mistakes.push(Mistake { line, message: format!("{more} more mistakes are not shown") });
    }
    Err(mistakes)
}

fn keep<T: Object>(drafts: Vec<Draft<T>>, source: &mut SourceLines) -> Vec<T> {
    let each = drafts.into_iter().map(|draft| {
        source.0.insert((T::TABLE, draft.spec.name()), draft.line);
        draft.spec
    });
    each.collect()
}

impl Parser<'_> {
    fn mistake(&mut self, line: u32, message: String) {
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(Mistake { line, message });
        } else {
            self.more += 1;
        }
    }

    /// Takes all objects of a kind out of the document.
    fn read<T: Object>(&mut self, document: &mut DeTable<'_>) -> Vec<Draft<T>> {
        let Some((key, value)) = document.remove_entry(T::TABLE) else { return Vec::new() };
        let wrong = format!("{0} is written as [[{0}]], once for each {0}", T::TABLE);
        let DeValue::Array(array) = value.into_inner() else {
            self.mistake(self.lines.at(key.span().start), wrong);
            return Vec::new();
        };
        let mut drafts = Vec::new();
        for element in array {
            let line = self.lines.at(element.span().start);
            match element.into_inner() {
                DeValue::Table(table) => drafts.extend(self.draft::<T>(line, &table)),
                _ => self.mistake(line, wrong.clone()),
            }
        }
        drafts
    }

    /// Tries each key of one object alone, then all good ones together.
    fn draft<T: Object>(&mut self, line: u32, table: &DeTable<'_>) -> Option<Draft<T>> {
        let (mut good, mut read, mut unread) = (DeTable::new(), BTreeMap::new(), BTreeSet::new());
        for (key, value) in table {
            let (name, at) = (key.get_ref().to_string(), self.lines.at(key.span().start));
            let mut alone = DeTable::new();
            alone.insert(key.clone(), value.clone());
            match read_with_stand_ins::<T>(alone) {
                Ok(_) => {
                    good.insert(key.clone(), value.clone());
                    read.insert(name, at);
                }
                Err(message) => {
                    self.mistake(at, format!("{}: {message}", label::<T>(table)));
                    unread.insert(name);
                }
            }
        }
        // Keys do not depend on each other in being read; should they ever, no object is lost in silence.
        let spec = match read_with_stand_ins::<T>(good) {
            Ok(spec) => spec,
            Err(message) => {
                self.mistake(line, format!("{}: {message}", label::<T>(table)));
                return None;
            }
        };
        let draft = Draft { spec, line, read, unread };
        if !self.is_damaged(line) {
            for (key, _) in T::REQUIRED.iter().filter(|(key, _)| !table.contains_key(*key)) {
                self.mistake(line, format!("{}: {}", label::<T>(table), missing(key)));
            }
            for problem in draft.spec.problems() {
                let concerned: Vec<&str> = problem.with.into_iter().chain([problem.key]).collect();
                if draft.knows(&concerned) {
                    self.mistake(
                        draft.line_of(problem.key),
                        format!("{}: {}", label::<T>(table), problem.message),
                    );
                }
            }
        }
        Some(draft)
    }

    /// Whether a line between this header and the next could not be read.
    fn is_damaged(&self, header: u32) -> bool {
        let next = self.headers.partition_point(|line| *line <= header);
        let end = self.headers.get(next).copied().unwrap_or(u32::MAX);
        self.blanked.range(header..end).next().is_some()
    }

    /// What is left in the document is no table of a topology.
    fn refuse_rest(&mut self, document: &DeTable<'_>) {
        for (key, value) in document {
            let message = unknown("table", key.get_ref(), &TABLES);
            match value.get_ref() {
                DeValue::Array(all) if !all.is_empty() && all.iter().all(|v| v.get_ref().is_table()) => {
                    for element in all.iter() {
                        self.mistake(self.lines.at(element.span().start), message.clone());
                    }
                }
                _ => self.mistake(self.lines.at(key.span().start), message),
            }
        }
    }

    /// Two objects of one kind with one name, which `keys` make up.
    fn refuse_twins<T: Object>(&mut self, drafts: &[Draft<T>], keys: &[&str]) {
        let mut first = BTreeMap::new();
        for draft in drafts.iter().filter(|draft| draft.knows(keys)) {
            let (name, line) = (draft.spec.name(), draft.line_of(keys[0]));
            match first.get(&name) {
                Some(first) => {
                    self.mistake(line, format!("{} \"{name}\" is there already, on line {first}", T::TABLE));
                }
                None => drop(first.insert(name, line)),
            }
        }
    }

    /// Ports and uplinks share their names: both are what `--from PORT` and the like can mean.
    fn refuse_shared_names(&mut self, uplinks: &[Draft<UplinkSpec>], ports: &[Draft<PortSpec>]) {
        let taken: BTreeMap<_, _> = uplinks
            .iter()
            .filter(|u| u.knows(&["name"]))
            .map(|u| (&u.spec.name, u.line_of("name")))
            .collect();
        for port in ports.iter().filter(|port| port.knows(&["name"])) {
            if let Some(line) = taken.get(&port.spec.name) {
                let message =
                    format!("port \"{0}\": uplink \"{0}\" has that name, on line {line}", port.spec.name);
                self.mistake(port.line_of("name"), message);
            }
        }
    }

    /// Two uplinks that own one address.
    fn refuse_shared_addresses(&mut self, uplinks: &[Draft<UplinkSpec>]) {
        let mut owners = BTreeMap::<_, &UplinkSpec>::new();
        for draft in uplinks.iter().filter(|draft| draft.knows(&["name", "address"])) {
            let uplink = &draft.spec;
            let owner = *owners.entry(uplink.address.addr()).or_insert(uplink);
            if owner.name != uplink.name {
                let message = format!(
                    "uplink \"{}\": address: {} is that of uplink \"{}\"",
                    uplink.name,
                    uplink.address.addr(),
                    owner.name
                );
                self.mistake(draft.line_of("address"), message);
            }
        }
    }

    /// Two devices, ports or uplinks that own one interface. A netdev port takes that of a device.
    fn refuse_shared_interfaces(
        &mut self,
        devices: &[Draft<DeviceSpec>],
        uplinks: &[Draft<UplinkSpec>],
        ports: &[Draft<PortSpec>],
    ) {
        let mut owners = BTreeMap::new();
        let devices =
            devices.iter().filter(|draft| draft.knows(&["name", "netns", "peer"])).flat_map(|draft| {
                draft.spec.interfaces().enumerate().map(|(end, (netns, ifname))| {
                    let key = if end == 0 { "name" } else { "peer" };
                    (("device", draft.spec.name.as_str()), (netns, ifname), draft.line_of(key), false)
                })
            });
        let uplinks = uplinks.iter().filter(|draft| draft.knows(&["name", "ifname", "netns"])).map(|draft| {
            let UplinkSpec { name, options, .. } = &draft.spec;
            let key = if options.ifname.is_some() { "ifname" } else { "name" };
            let place = (options.netns.as_ref(), draft.spec.ifname_or_default());
            (("uplink", name.as_str()), place, draft.line_of(key), false)
        });
        let has_one = |port: &&Draft<PortSpec>| {
            port.knows(&["name", "type", "ifname", "netns"])
                && port.spec.options.kind_or_default().has_interface()
        };
        let ports = ports.iter().filter(has_one).map(|draft| {
            let PortSpec { name, options, .. } = &draft.spec;
            let key = if options.ifname.is_some() { "ifname" } else { "name" };
            let place = (options.netns.as_ref(), draft.spec.ifname_or_default());
            let takes = options.kind_or_default().is_netdev();
            (("port", name.as_str()), place, draft.line_of(key), takes)
        });
        for ((kind, name), (netns, ifname), line, takes) in devices.chain(uplinks).chain(ports) {
            let place = (netns.map(ToString::to_string), ifname);
            let (of, owner) = *owners.entry(place.clone()).or_insert((kind, name));
            if takes && of == "device" {
                owners.insert(place, (kind, name));
                continue;
            }
            // A name twice is one mistake, not also an interface twice.
            let twins = owner == name && (kind == "device") == (of == "device");
            if !twins {
                let message =
                    format!("{kind} \"{name}\": interface \"{ifname}\" is that of {of} \"{owner}\"");
                self.mistake(line, message);
            }
        }
    }

    /// Two ports that have one socket in the file system.
    fn refuse_shared_paths(&mut self, ports: &[Draft<PortSpec>]) {
        let keys = ["name", "type", "path", "listen", "connect", "peer_path", "server", "client"];
        let mut of_path = BTreeMap::<_, Vec<&PortSpec>>::new();
        for draft in ports.iter().filter(|draft| draft.knows(&keys)) {
            let port = &draft.spec;
            let Some(path) = port.options.path.as_deref() else { continue };
            let others = of_path.entry(path).or_default();
            if let Some(why) = others.iter().filter(|o| o.name != port.name).find_map(|o| port.clash(o)) {
                self.mistake(draft.line_of("path"), format!("port \"{}\": {why}", port.name));
            }
            others.push(port);
        }
    }

    /// Two tunnels that take the same packets.
    fn refuse_shared_networks(&mut self, ports: &[Draft<PortSpec>]) {
        let keys = ["name", "type", "local", "dst_port", "netns", "vni", "vlan_vni"];
        // Those with which a port can clash at all: thousands may share an address.
        let mut of_network = BTreeMap::<_, Vec<&PortSpec>>::new();
        let mut of_type = BTreeMap::<_, Vec<&PortSpec>>::new();
        for draft in ports.iter().filter(|draft| draft.knows(&keys)) {
            let (port, options) = (&draft.spec, &draft.spec.options);
            let Some(local) = options.local else { continue };
            let place = (local, options.dst_port_or_default());
            let mut others = of_type.get(&place).cloned().unwrap_or_default();
            others.extend(options.networks().filter_map(|vni| of_network.get(&(place, vni))).flatten());
            if let Some(why) = others.iter().filter(|o| o.name != port.name).find_map(|o| port.clash(o)) {
                let key = ["vni", "vlan_vni", "local"].into_iter().find(|key| draft.read.contains_key(*key));
                let line = key.map_or(draft.line, |key| draft.line_of(key));
                self.mistake(line, format!("port \"{}\": {why}", port.name));
            }
            let like = |o: &&PortSpec| o.options.kind == options.kind && o.options.netns == options.netns;
            if !others.iter().any(like) {
                of_type.entry(place).or_default().push(port);
            }
            options.networks().for_each(|vni| of_network.entry((place, vni)).or_default().push(port));
        }
    }

    /// Devices that need each other, one by one in a circle.
    fn refuse_cycles(
        &mut self,
        devices: &[Draft<DeviceSpec>],
        uplinks: &[Draft<UplinkSpec>],
        ports: &[Draft<PortSpec>],
    ) {
        let of = |drafts: &[Draft<DeviceSpec>]| -> Vec<DeviceSpec> {
            let known = |draft: &&Draft<DeviceSpec>| draft.knows(&["name", "netns"]);
            drafts.iter().filter(known).map(|draft| draft.spec.clone()).collect()
        };
        let known = of(devices);
        let graph = Graph::of(
            known.iter(),
            uplinks.iter().filter(|u| u.knows(&["name"])).map(|u| &u.spec),
            ports.iter().filter(|p| p.knows(&["name"])).map(|p| &p.spec),
        );
        for cycle in graph.cycles() {
            let way = cycle.iter().zip(cycle.iter().cycle().skip(1));
            let way: Vec<_> =
                way.map(|((from, key), (to, _))| format!("{from} needs {to} ({key})")).collect();
            let named = cycle.iter().find_map(|(node, key)| {
                let Node::Device(name) = node else { return None };
                devices.iter().find(|d| d.spec.name == *name).map(|d| (name, *key, d.line_of(key)))
            });
            let Some((name, key, line)) = named else { continue };
            self.mistake(
                line,
                format!("device \"{name}\": {key}: it goes round in a circle: {}", way.join(", ")),
            );
        }
    }

    /// Names of bridges and ports that are not in the file.
    fn refuse_unknown_names(
        &mut self,
        bridges: &[Draft<BridgeSpec>],
        ports: &[Draft<PortSpec>],
        fdb: &[Draft<FdbSpec>],
        neighs: &[Draft<NeighSpec>],
    ) {
        // Where the name of a bridge could not be read, it may be the one that is missing elsewhere.
        let all_bridges = bridges.iter().all(|b| b.knows(&["name"]));
        let all_ports = ports.iter().all(|p| p.knows(&["name"]));
        let names: BTreeSet<_> = bridges.iter().map(|b| &b.spec.name).collect();
        let owners: BTreeMap<_, _> = ports.iter().map(|p| (&p.spec.name, p)).collect();
        let no_bridge =
            |name| format!("bridge: \"{name}\" is not in this file; add a [[bridge]] of that name");
        for port in ports.iter().filter(|p| all_bridges && p.knows(&["bridge"])) {
            if !names.contains(&port.spec.bridge) {
                let label = if port.knows(&["name"]) {
                    format!("port \"{}\"", port.spec.name)
                } else {
                    "port".into()
                };
                self.mistake(port.line_of("bridge"), format!("{label}: {}", no_bridge(&port.spec.bridge)));
            }
        }
        for neigh in neighs.iter().filter(|n| all_bridges && n.knows(&["bridge"])) {
            if !names.contains(&neigh.spec.bridge) {
                let label = if neigh.knows(&["ip"]) {
                    format!("neigh \"{}\"", neigh.spec.ip)
                } else {
                    "neigh".into()
                };
                self.mistake(neigh.line_of("bridge"), format!("{label}: {}", no_bridge(&neigh.spec.bridge)));
            }
        }
        for entry in fdb {
            let label =
                if entry.knows(&["mac"]) { format!("fdb \"{}\"", entry.spec.mac) } else { "fdb".into() };
            if all_bridges && entry.knows(&["bridge"]) && !names.contains(&entry.spec.bridge) {
                self.mistake(entry.line_of("bridge"), format!("{label}: {}", no_bridge(&entry.spec.bridge)));
                continue;
            }
            let (name, bridge) = (&entry.spec.port, &entry.spec.bridge);
            if let Some(port) = owners.get(name).filter(|port| port.knows(&["type", "local"]))
                && let Some(why) = entry.spec.remote_at(&port.spec)
            {
                self.mistake(entry.line_of("remote"), format!("{label}: {why}"));
            }
            let problem = match owners.get(name) {
                None if all_ports => "is not in this file; add a [[port]] of that name".to_owned(),
                Some(port)
                    if entry.knows(&["bridge"]) && port.knows(&["bridge"]) && port.spec.bridge != *bridge =>
                {
                    format!("is a port of bridge \"{}\", not of \"{bridge}\"", port.spec.bridge)
                }
                _ => continue,
            };
            if entry.knows(&["port"]) {
                self.mistake(entry.line_of("port"), format!("{label}: port: \"{name}\" {problem}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
