//! Random topologies of kernel devices, one after the other through `apply`: each is reached in one pass, nothing is left of the one
//! before, and what somebody else made does not notice. `tests/sim_devices.rs` does the same a thousand times in a kernel of memory.

mod topo;

use std::fmt::Write as _;

use tapway_dataplane::api::{Reply, Request};
use topo::{Host, random::Random, switch::Switch};

/// As many as the time allows: each is some dozens of devices made, changed and deleted in the kernel. `TAPWAY_RANDOM_STATES=1000`
/// takes more of it.
const STATES: usize = 120;

fn apply(switch: &Switch, text: &str) -> usize {
    let request = Request::Apply { topology: text.to_owned(), dry_run: false, prune: true };
    match switch.call(request) {
        Ok(Reply::Plan(plan)) => plan.steps.len(),
        other => panic!("Apply answered {other:?} to\n{text}"),
    }
}

/// A topology, and the interfaces that it has at home and in the other namespace.
fn topology(random: &mut Random, other: &str) -> (String, [Vec<String>; 2]) {
    let mut text = "[[bridge]]\nname = \"br0\"\n".to_owned();
    let mut names = [Vec::new(), Vec::new()];
    let mut bridge = None;
    for n in 0..8 {
        if random.below(3) == 0 {
            continue;
        }
        let name = format!("d{n}");
        let kind = match random.below(6) {
            0 => {
                let peer = format!("{}{n}", random.one(&["p", "q"]));
                let there = random.below(2);
                let netns = if there == 1 { format!(", netns = \"{other}\"") } else { String::new() };
                names[there].push(peer.clone());
                format!(
                    "type = \"veth\"\npeer = {{ name = \"{peer}\", address = \"203.0.113.{n}/32\"{netns} }}"
                )
            }
            1 => format!("type = \"bridge\"\nstp = {}", random.one(&["true", "false"])),
            2 => {
                let mode = random.one(&["bridge", "vepa", "private"]);
                format!("type = \"macvlan\"\nparent = \"low\"\nmode = \"{mode}\"")
            }
            3 => {
                let (to, entry) = (random.below(3) + 1, random.below(3) + 1);
                format!(
                    "type = \"vxlan\"\nid = {n}\nremote = \"192.168.7.{to}\"\n\
                     fdb = [\"02:00:00:00:00:07 dst 192.168.7.{entry}\"]"
                )
            }
            _ => format!("type = \"tap\"\nqueues = {}", random.below(2) + 1),
        };
        let is_bridge = kind.contains("\"bridge\"\nstp");
        let _ = writeln!(text, "[[device]]\nname = \"{name}\"\n{kind}");
        if random.below(3) == 0 {
            let _ = writeln!(text, "mtu = {}", random.one(&[1300, 1400]));
        }
        if random.below(3) == 0 {
            let _ = writeln!(text, "address = [\"198.51.100.{}/32\"]", 10 * n + random.below(3));
        }
        if random.below(4) == 0 {
            text += "up = false\n";
        }
        match &bridge {
            None if is_bridge => bridge = Some(name.clone()),
            Some(master) if !is_bridge && random.below(2) == 0 => {
                let _ = writeln!(text, "master = \"{master}\"");
            }
            _ => {}
        }
        names[0].push(name);
    }
    for n in 0..random.below(3) {
        let _ = writeln!(text, "[[port]]\nname = \"vm{n}\"\nbridge = \"br0\"");
        names[0].push(format!("vm{n}"));
    }
    names.iter_mut().for_each(|all| all.sort());
    (text, names)
}

/// The interfaces that are not somebody else's, in order.
fn interfaces(host: &Host, foreign: &[&str]) -> Vec<String> {
    let all = host.ip("-br link");
    let names = all.lines().filter_map(|line| line.split(['@', ' ']).next());
    let mut names: Vec<String> = names.filter(|n| !foreign.contains(n)).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn any_topology_follows_any_other_in_one_pass_and_foreign_devices_do_not_notice() {
    const FOREIGN: [&str; 4] = ["lo", "low", "lower", "foreign"];
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let Some((net, switch)) = Switch::new(1) else { return };
    let (home, other) = (net.home(), net.host("other"));
    home.ip("link add low type veth peer name lower");
    home.ip("link add foreign type bridge ageing_time 1234");
    home.ip("address add 192.168.9.1/24 dev foreign");
    home.ip("link set low up");
    let foreign =
        || ["low", "lower", "foreign"].map(|name| home.ip(&format!("-d -o address show dev {name}")));
    let before = foreign();
    let netns = other.path().display().to_string();
    let mut random = Random(seed);
    let states = std::env::var("TAPWAY_RANDOM_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(STATES);
    for state in 0..states {
        let (text, [here, there]) = topology(&mut random, &netns);
        apply(&switch, &text);
        assert_eq!(apply(&switch, &text), 0, "state {state}: one pass was not enough for\n{text}");
        match switch.call(Request::DeviceList) {
            Ok(Reply::Devices { devices }) => {
                for device in devices {
                    let is = (device.state.as_str(), &device.drift);
                    assert_eq!(is, ("ok", &Vec::new()), "state {state}: {} of\n{text}", device.name);
                }
            }
            answer => panic!("DeviceList answered {answer:?}"),
        }
        assert_eq!(interfaces(home, &FOREIGN), here, "state {state}:\n{text}");
        assert_eq!(interfaces(&other, &["lo"]), there, "state {state}:\n{text}");
        assert_eq!(foreign(), before, "state {state}:\n{text}");
    }
    apply(&switch, "");
    assert_eq!((interfaces(home, &FOREIGN), interfaces(&other, &["lo"])), (Vec::new(), Vec::new()));
    assert_eq!(foreign(), before);
}
