//! Kernel devices in a kernel of memory: any desired state is reached, nothing is left of the one before, what somebody else made is not
//! touched, and a step that fails takes back those before it.

use std::time::Duration;

use serde_json::{Value, json};
use tapway_dataplane::{
    api::{Control as _, DeviceView, Plan, Refusal, Reply, Request},
    clock::Clock,
    config::{DeviceSpec, Topology},
    engine::{Engine, MemoryBackend, MemoryDevice, MemoryKernel, Opener, Options, Whose},
    frame::Caps,
    port::{tap::Features, underlay::MemoryNet},
};

const STATES: usize = 1000;
/// Names that devices of the topologies have, and those that somebody else has taken.
const NAMES: u64 = 12;
const FOREIGN: [&str; 3] = ["eth0", "d3", "p5"];

/// Numbers that look random, and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// A topology of a few devices on each other and on `eth0`, and of ports beside them.
fn topology(random: &mut Random) -> String {
    let mut text = "[[bridge]]\nname = \"br0\"\n".to_owned();
    let mut below = vec!["eth0".to_owned()];
    let mut bridges = Vec::new();
    for port in 0..random.below(3) {
        text +=
            &format!("[[port]]\nname = \"vm{port}\"\nbridge = \"br0\"\nqueues = {}\n", 1 + random.below(2));
    }
    for n in 0..NAMES {
        let name = format!("d{n}");
        if random.below(2) == 0 || FOREIGN.contains(&name.as_str()) {
            continue;
        }
        let parent = below[random.below(below.len() as u64) as usize].clone();
        let id = 1 + random.below(3);
        let kind = match random.below(7) {
            0 => format!(
                "type = \"veth\"\npeer = {{ name = \"{}{n}\", netns = \"{}\" }}",
                random.of(&["q", "q", "s"]),
                random.of(&["c1", "c2"])
            ),
            1 => format!(
                "type = \"macvlan\"\nparent = \"{parent}\"\nmode = \"{}\"",
                random.of(&["bridge", "vepa", "passthru"])
            ),
            2 => format!("type = \"vlan\"\nparent = \"{parent}\"\nid = {id}"),
            3 => format!("type = \"vxlan\"\nid = {id}\ndev = \"{parent}\"\nlearning = {}", id > 1),
            4 => format!("type = \"bridge\"\nstp = {}", id > 1),
            5 => format!("type = \"tap\"\nqueues = {id}"),
            _ => "type = \"dummy\"".to_owned(),
        };
        let is_bridge = kind.starts_with("type = \"bridge\"");
        text += &format!("[[device]]\nname = \"{name}\"\n{kind}\n");
        if random.below(3) == 0 {
            text += &format!("mtu = {}\n", 1300 + random.below(3));
        }
        if random.below(4) == 0 {
            text += &format!("address = [\"198.51.100.{}/24\"]\n", 1 + random.below(3));
        }
        if random.below(5) == 0 {
            text += "up = false\n";
        }
        if random.below(4) == 0
            && let Some(master) = bridges.last()
        {
            text += &format!("master = \"{master}\"\n");
        }
        if is_bridge {
            bridges.push(name.clone());
        }
        below.push(name);
    }
    text
}

fn device(text: &str) -> DeviceSpec {
    Topology::parse(&format!("[[device]]\n{text}")).unwrap().0.device.remove(0)
}

struct World {
    engine: Engine,
    kernel: MemoryKernel,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        let kernel = MemoryKernel::default();
        let below = kernel.clone();
        let clock = Clock::stopped();
        let opener = |_: &_, _: u16| Ok(MemoryBackend::open(Caps::ALL).0);
        let opener = Opener::simulated(opener, MemoryNet::new()).with_devices(below);
        let options = Options {
            workers: 1,
            threads: false,
            clock: clock.clone(),
            bell: None,
            opener,
            features: Features::default(),
        };
        let kernel_of_others =
            FOREIGN.map(|name| device(&format!("name = \"{name}\"\ntype = \"dummy\"\nmtu = 1234\n")));
        kernel_of_others.iter().for_each(|one| kernel.plant(one));
        Self { engine: Engine::start(options).unwrap(), kernel, clock }
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Result<Reply, Refusal> {
        self.engine.call(Request::from_varlink(method, parameters).unwrap())
    }

    fn apply(&mut self, topology: &str) -> Result<Plan, Refusal> {
        match self.ask("Apply", json!({ "topology": topology, "prune": true }))? {
            Reply::Plan(plan) => Ok(plan),
            other => panic!("Apply answered {other:?}"),
        }
    }

    fn export(&mut self) -> String {
        match self.ask("Export", json!({})).unwrap() {
            Reply::Exported { topology, .. } => topology,
            other => panic!("Export answered {other:?}"),
        }
    }

    fn notices(&mut self) -> Vec<String> {
        match self.ask("Status", json!({})).unwrap() {
            Reply::Status(status) => status.notices,
            other => panic!("Status answered {other:?}"),
        }
    }

    fn show(&mut self, name: &str) -> DeviceView {
        match self.ask("DeviceShow", json!({ "name": name })).unwrap() {
            Reply::Device { device } => *device,
            other => panic!("DeviceShow answered {other:?}"),
        }
    }

    fn second(&mut self) {
        self.clock.advance(Duration::from_secs(1));
        self.engine.housekeep();
    }

    fn of(&self, whose: Whose) -> Vec<MemoryDevice> {
        self.kernel.devices().into_iter().filter(|d| d.whose == whose).collect()
    }

    /// Everything that is not somebody else's, as it was asked for.
    fn assert_is(&self, topology: &str) {
        let wanted = Topology::parse(topology).unwrap().0.device;
        let ours = self.of(Whose::Ours);
        assert_eq!(ours.len(), wanted.len(), "residue, or something is missing: {topology}");
        for spec in &wanted {
            let is =
                ours.iter().find(|d| d.spec.name == spec.name).unwrap_or_else(|| panic!("no {}", spec.name));
            assert_eq!(spec.drift(is.spec.kind, &is.spec.options), [], "{}", spec.name);
        }
    }
}

#[test]
fn a_thousand_desired_states_in_a_row_are_each_reached_at_once_and_leave_nothing() {
    let mut world = World::new();
    let foreign = world.of(Whose::Foreign);
    let mut random = Random(7);
    for state in 0..STATES {
        let wanted = topology(&mut random);
        let steps = world.apply(&wanted).unwrap_or_else(|e| panic!("state {state}: {e}\n{wanted}")).steps;
        let devices = wanted.matches("[[device]]").count() + 2 * NAMES as usize;
        assert!(steps.len() <= 2 * devices + 10, "state {state} took {} steps", steps.len());
        world.assert_is(&wanted);
        let requests = world.kernel.requests();
        assert_eq!(world.apply(&wanted).unwrap().steps, [], "state {state}");
        assert_eq!(world.kernel.requests(), requests, "the second time nothing is asked of the kernel");
        assert_eq!(world.of(Whose::Foreign), foreign, "state {state}");
        let exported = world.export();
        assert_eq!(world.apply(&exported).unwrap().steps, [], "state {state}: what is exported is what runs");
    }
    world.apply("").unwrap();
    assert_eq!(world.kernel.devices(), foreign);
}

#[test]
fn where_the_kernel_refuses_any_step_those_before_it_are_undone() {
    let mut random = Random(11);
    let mut refused = 0;
    for _ in 0..20 {
        let (first, second) = (topology(&mut random), topology(&mut random));
        let mut after = 0;
        loop {
            let mut world = World::new();
            world.apply(&first).unwrap();
            let before = (world.export(), plain(&world.kernel));
            world.kernel.refuse_once_after(after);
            let result = world.apply(&second);
            let Err(error) = result else { break };
            refused += 1;
            assert!(error.to_string().contains("nothing was changed"), "{error}");
            assert_eq!(world.export(), before.0, "request {after} of\n{first}\nto\n{second}");
            assert_eq!(plain(&world.kernel), before.1, "request {after} of\n{first}\nto\n{second}");
            after += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}

/// What there is, without the numbers that a device gets anew when it is made again. An MTU that nobody has chosen is one, too.
fn plain(kernel: &MemoryKernel) -> Vec<(DeviceSpec, Whose)> {
    let effective = |d: MemoryDevice| {
        let mut options = d.spec.effective();
        options.mtu.get_or_insert(1500);
        (DeviceSpec { options, ..d.spec }, d.whose)
    };
    kernel.devices().into_iter().map(effective).collect()
}

#[test]
fn a_name_that_somebody_else_has_is_refused_and_nothing_happens() {
    let mut world = World::new();
    let before = world.kernel.devices();
    let text = "[[device]]\nname = \"d0\"\ntype = \"dummy\"\n[[device]]\nname = \"d3\"\ntype = \"dummy\"\n";
    let refusal = world.apply(text).unwrap_err().to_string();
    assert!(
        refusal.contains("line 4: device \"d3\": this name is taken by a dummy that tapway did not make"),
        "{refusal}"
    );
    assert_eq!((world.kernel.devices(), world.export()), (before, String::new()));
}

const PAIR: &str = r#"
    [[device]]
    name = "v"
    type = "veth"
    mtu = 1400
    peer = { name = "w", netns = "c1" }
    [[device]]
    name = "m"
    type = "macvlan"
    parent = "v"
"#;

#[test]
fn what_somebody_else_changes_or_deletes_is_told_and_the_next_apply_repairs_it() {
    let mut world = World::new();
    world.apply(PAIR).unwrap();
    world.second();
    assert_eq!(world.notices(), [""; 0]);
    world.kernel.tamper(None, "v", |device| device.spec.options.mtu = Some(9000));
    world.second();
    assert_eq!(world.notices(), ["device v is not as desired: somebody has changed it: mtu: 1400 -> 9000"]);
    let view = world.show("v");
    assert_eq!(
        (view.state.as_str(), view.drift.as_slice()),
        ("drifted", &["mtu: 1400 -> 9000".to_owned()][..])
    );
    assert_eq!(view.observed.unwrap().mtu, 9000);
    let steps = world.apply(PAIR).unwrap().steps;
    assert_eq!(
        (steps[0].op.as_str(), steps[0].changes.as_slice()),
        ("~", &["mtu: 9000 -> 1400".to_owned()][..])
    );
    world.assert_is(PAIR);
    assert_eq!(world.notices(), [""; 0]);

    world.kernel.take_away(None, "v");
    world.second();
    let gone = |name: &str| format!("device {name} is not as desired: somebody has deleted it");
    assert_eq!(world.notices(), [gone("m"), gone("v")], "the kernel takes away what is on it");
    assert_eq!((world.show("m").state.as_str(), world.show("m").observed), ("missing", None));
    let names: Vec<_> = world.apply(PAIR).unwrap().steps.into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["v", "m"]);
    world.assert_is(PAIR);
}

#[test]
fn with_enforce_it_is_put_back_by_itself_and_a_foreign_device_in_its_place_is_left_alone() {
    let mut world = World::new();
    world.engine.enforce_devices();
    world.apply(PAIR).unwrap();
    world.kernel.take_away(None, "v");
    world.second();
    world.assert_is(PAIR);
    assert_eq!(world.notices(), [""; 0]);
    world.kernel.tamper(None, "m", |device| {
        device.spec.options.up = tapway_dataplane::config::device::UpDown::of(false)
    });
    world.second();
    world.assert_is(PAIR);

    let events =
        |world: &mut World, after: Value| match world.ask("Monitor", json!({ "after": after })).unwrap() {
            Reply::Events { events, next } => (events, next),
            other => panic!("Monitor answered {other:?}"),
        };
    let (all, next) = events(&mut world, json!(0));
    let all: Vec<_> = all.iter().map(|e| format!("{} {}: {}", e.kind, e.name, e.text)).collect();
    assert_eq!(
        all,
        [
            "device m: it is not as desired: somebody has deleted it",
            "device v: it is not as desired: somebody has deleted it",
            "device v: it is repaired",
            "device m: it is repaired",
            "device m: it is not as desired: somebody has changed it: up: on -> off",
            "device m: it is repaired",
        ]
    );
    assert_eq!(events(&mut world, json!(next)), (Vec::new(), next));
    assert_eq!(events(&mut world, json!(null)), (Vec::new(), next));

    world.kernel.take_away(None, "m");
    let other = device("name = \"m\"\ntype = \"tap\"\n");
    world.kernel.plant(&other);
    for _ in 0..3 {
        world.second();
    }
    assert!(world.of(Whose::Foreign).iter().any(|d| d.spec == other));
    let notices = world.notices();
    assert!(
        notices[0].contains("did not make") && notices[0].contains("could not be repaired"),
        "{notices:?}"
    );
    assert_eq!(world.show("m").state, "foreign");
    world.ask("DeviceDel", json!({ "name": "m" })).unwrap();
    assert!(world.of(Whose::Foreign).iter().any(|d| d.spec == other), "only the wish is gone");
}

#[test]
fn a_device_that_something_is_on_is_in_use_and_one_interface_has_one_owner() {
    let mut world = World::new();
    world.apply(PAIR).unwrap();
    let refusal = world.ask("DeviceDel", json!({ "name": "v" })).unwrap_err().to_string();
    assert!(refusal.contains("device m is on it (parent)"), "{refusal}");
    world.ask("BridgeAdd", json!({ "name": "br0" })).unwrap();
    let refusal = world.ask("PortAdd", json!({ "name": "v", "bridge": "br0" })).unwrap_err().to_string();
    assert!(refusal.contains("interface \"v\" is that of device v"), "{refusal}");
    world.ask("PortAdd", json!({ "name": "vm1", "bridge": "br0" })).unwrap();
    let refusal = world.ask("DeviceAdd", json!({ "name": "vm1", "type": "dummy" })).unwrap_err().to_string();
    assert!(refusal.contains("interface \"vm1\" is that of port vm1"), "{refusal}");
}

#[test]
fn a_set_changes_in_place_or_is_refused_and_adding_again_changes_nothing() {
    let mut world = World::new();
    let spec = json!({ "name": "x", "type": "vxlan", "id": 7, "learning": false });
    assert_eq!(world.ask("DeviceAdd", spec.clone()), Ok(Reply::Changed { changed: true }));
    assert_eq!(world.ask("DeviceAdd", spec), Ok(Reply::Changed { changed: false }));
    let refusal =
        world.ask("DeviceAdd", json!({ "name": "x", "type": "vxlan", "id": 8 })).unwrap_err().to_string();
    assert!(refusal.contains("id: 7 -> 8") && refusal.contains("tapwayctl device del"), "{refusal}");
    let refusal = world.ask("DeviceSet", json!({ "name": "x", "id": 8 })).unwrap_err().to_string();
    assert!(refusal.contains("id: 7 -> 8 cannot be changed while the device exists"), "{refusal}");
    let set = json!({ "name": "x", "mtu": 1400, "unset": ["learning"] });
    assert_eq!(world.ask("DeviceSet", set), Ok(Reply::Changed { changed: true }));
    let index = world.show("x").observed.unwrap().index;
    assert_eq!(world.show("x").drift, [""; 0]);
    assert_eq!(
        world.ask("DeviceSet", json!({ "name": "x", "mtu": 1400 })),
        Ok(Reply::Changed { changed: false })
    );
    assert_eq!(world.show("x").observed.unwrap().index, index, "it is the same device");
    assert!(
        world
            .ask("DeviceSet", json!({ "name": "y", "mtu": 1400 }))
            .unwrap_err()
            .to_string()
            .contains("does not exist")
    );
}

#[test]
fn a_daemon_that_starts_again_takes_over_what_it_made_and_finishes_what_it_did_not() {
    let mut world = World::new();
    world.apply(PAIR).unwrap();
    world.kernel.tamper(None, "v", |device| device.whose = Whose::Unfinished);
    let below = world.kernel.clone();
    let opener = |_: &_, _: u16| Ok(MemoryBackend::open(Caps::ALL).0);
    let opener = Opener::simulated(opener, MemoryNet::new()).with_devices(below);
    let clock = world.clock.clone();
    let features = Features::default();
    world.engine =
        Engine::start(Options { workers: 1, threads: false, clock, bell: None, opener, features }).unwrap();
    world.apply(PAIR).unwrap();
    world.assert_is(PAIR);
    let requests = world.kernel.requests();
    assert_eq!(world.apply(PAIR).unwrap().steps, []);
    assert_eq!(world.kernel.requests(), requests);
}
