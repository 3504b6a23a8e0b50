//! One file for all of it: kernel devices, bridges, ports, static entries and neighbours are applied, changed and pruned, and the kernel
//! has what the file says.

mod topo;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tapway_dataplane::{
    api::{DeviceView, Plan, Refusal, Reply, Request},
    config::{DeviceOptions, DeviceSpec},
    netlink::Monitor,
};
use topo::{Host, switch::Switch, wait_until};

const LONG: Duration = Duration::from_secs(5);

fn apply(switch: &Switch, text: &str) -> Result<Vec<String>, Refusal> {
    let plan =
        |plan: Plan| plan.steps.iter().map(|s| format!("{} {} {}", s.op, s.kind, s.name)).collect::<Vec<_>>();
    let request = Request::Apply { topology: text.to_owned(), dry_run: false, prune: true };
    match switch.call(request)? {
        Reply::Plan(steps) => Ok(plan(steps)),
        other => panic!("Apply answered {other:?}"),
    }
}

fn export(switch: &Switch) -> String {
    match switch.call(Request::Export).unwrap() {
        Reply::Exported { topology, .. } => topology,
        other => panic!("Export answered {other:?}"),
    }
}

fn devices(switch: &Switch) -> Vec<DeviceView> {
    match switch.call(Request::DeviceList).unwrap() {
        Reply::Devices { devices } => devices,
        other => panic!("DeviceList answered {other:?}"),
    }
}

fn assert_ok(switch: &Switch) {
    for device in devices(switch) {
        assert_eq!((device.state.as_str(), &device.drift), ("ok", &Vec::new()), "{}", device.name);
    }
}

/// Two containers on a bridge of the kernel, and a third on a port; a neighbour and a static entry.
fn text(a: &Host, b: &Host, mtu: u32) -> String {
    let (a, b) = (a.path(), b.path());
    format!(
        r#"
[[device]]
name = "va"
type = "veth"
master = "kbr"
mtu = {mtu}
peer = {{ name = "eth0", netns = "{a}", address = ["198.51.100.1/24"], mac = "02:00:00:00:00:01" }}

[[device]]
name = "vb"
type = "veth"
master = "kbr"
mtu = {mtu}
peer = {{ name = "eth0", netns = "{b}", address = ["198.51.100.2/24", "2001:db8::2/64"] }}

[[device]]
name = "kbr"
type = "bridge"
address = ["198.51.100.254/24"]
route = ["203.0.113.0/24 via 198.51.100.2"]
sysctl = ["ipv4.rp_filter=2"]

[[device]]
name = "mv0"
type = "macvlan"
parent = "kbr"
mac = "02:00:00:00:00:77"

[[device]]
name = "tun0"
type = "tun"
owner = 1000
address = ["203.0.113.1/30"]

[[bridge]]
name = "br0"

[[port]]
name = "vm1"
bridge = "br0"
netns = "{a}"
ifname = "eth1"
access = 10

[[fdb]]
bridge = "br0"
vlan = 10
mac = "02:00:00:00:00:07"
port = "vm1"

[[neigh]]
ip = "198.51.100.7"
mac = "02:00:00:00:00:07"
bridge = "br0"
vlan = 10
"#,
        a = a.display(),
        b = b.display(),
    )
}

#[test]
fn a_topology_is_applied_changed_and_pruned_and_the_second_time_nothing_happens() {
    let Some((net, switch)) = Switch::new(1) else { return };
    let (a, b, home) = (net.host("a"), net.host("b"), net.home());
    let steps = apply(&switch, &text(&a, &b, 1500)).unwrap();
    assert_eq!(
        steps,
        [
            "+ bridge br0",
            "+ device kbr",
            "+ device va",
            "+ device vb",
            "+ device mv0",
            "+ device tun0",
            "+ port vm1",
            "+ fdb br0 vlan 10 02:00:00:00:00:07",
            "+ neigh br0 vlan 10 198.51.100.7"
        ]
    );
    assert_ok(&switch);
    wait_until("the containers reach each other", LONG, || a.ping([198, 51, 100, 2]));
    assert!(home.ping([198, 51, 100, 1]));
    assert!(home.ip("route show 203.0.113.0/24").contains("via 198.51.100.2 dev kbr"));

    let before = home.ip("address");
    let mut monitors = [&a, &b, home].map(|host| host.run(|| Monitor::open().unwrap()));
    let at = Instant::now();
    assert_eq!(apply(&switch, &text(&a, &b, 1500)).unwrap(), [""; 0]);
    assert!(at.elapsed() < Duration::from_millis(200), "{:?}", at.elapsed());
    assert_eq!(apply(&switch, &export(&switch)).unwrap(), [""; 0]);
    assert_eq!(home.ip("address"), before);
    for monitor in &mut monitors {
        assert_eq!(monitor.read().unwrap(), [], "the kernel was asked for nothing");
    }

    let index =
        |name: &str| home.ip(&format!("-o link show dev {name}")).split(':').next().unwrap().to_owned();
    let va = index("va");
    let changed = text(&a, &b, 1400)
        .replace("198.51.100.254/24", "198.51.100.253/24")
        .replace("owner = 1000\n", "owner = 1001\nqueues = 2\n");
    assert_eq!(
        apply(&switch, &changed).unwrap(),
        ["- device tun0", "~ device kbr", "~ device va", "~ device vb", "+ device tun0"]
    );
    assert_ok(&switch);
    assert_eq!(index("va"), va, "changed in place");
    assert!(a.ip("link show eth0").contains("mtu 1400"));
    wait_until("the containers reach each other again", LONG, || a.ping([198, 51, 100, 253]));

    assert_eq!(apply(&switch, "").unwrap().len(), 9);
    for name in ["va", "vb", "kbr", "mv0", "tun0"] {
        assert!(!home.has_interface(name), "{name}");
    }
    assert!(!a.has_interface("eth0") && !b.has_interface("eth0") && !a.has_interface("eth1"));
}

#[test]
fn where_the_last_step_fails_the_kernel_is_as_it_was() {
    let Some((net, switch)) = Switch::new(1) else { return };
    let (a, b, home) = (net.host("a"), net.host("b"), net.home());
    home.ip("link add foreign type veth peer name other");
    let seen = || {
        let all =
            [home.ip("-br link"), home.ip("-br address"), a.ip("-br address"), b.ip("-br address")].concat();
        let words = |line: &str| {
            // Numbers and addresses that the kernel makes up are new each time.
            line.split_whitespace()
                .filter(|w| !w.starts_with("fe80") && w.matches(':').count() != 5)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut lines: Vec<String> =
            all.lines().map(words).map(|l| l.split('@').next().unwrap().to_owned()).collect();
        lines.sort();
        lines
    };
    let empty = seen();
    let first = "[[device]]\nname = \"d\"\ntype = \"bridge\"\naddress = \"198.51.100.9/24\"\n";
    apply(&switch, first).unwrap();
    let before = (seen(), export(&switch));
    let all = text(&a, &b, 1500);
    let bad = format!("{all}\n[[device]]\nname = \"foreign\"\ntype = \"bridge\"\n");
    let line = 1 + bad.lines().take_while(|l| *l != "name = \"foreign\"").count() - 1;
    let refusal = apply(&switch, &bad).unwrap_err().to_string();
    assert!(
        refusal.contains("taken by a veth that tapway did not make")
            && refusal.contains(&format!("line {line}:")),
        "{line}: {refusal}"
    );
    assert_eq!((seen(), export(&switch)), before);
    let lost = format!("{all}\n[[device]]\nname = \"gone\"\ntype = \"macvlan\"\nparent = \"nobody\"\n");
    let refusal = apply(&switch, &lost).unwrap_err().to_string();
    assert!(refusal.contains("its parent nobody is not there"), "{refusal}");
    assert_eq!((seen(), export(&switch)), before);
    apply(&switch, "").unwrap();
    assert_eq!(seen(), empty, "and what somebody else made is there");
}

#[test]
fn what_somebody_does_to_a_device_is_noticed_and_repaired_where_that_is_wanted() {
    let Some((net, switch)) = Switch::new(1) else { return };
    let (a, b, home) = (net.host("a"), net.host("b"), net.home());
    apply(&switch, &text(&a, &b, 1500)).unwrap();
    let drifted = |name: &'static str, why: &'static str| {
        let notice = format!("device {name} is not as desired");
        wait_until(why, LONG, || {
            let Ok(Reply::Status(status)) = switch.call(Request::Status) else { panic!("no status") };
            status.notices.iter().any(|n| n.starts_with(&notice) && n.contains(why))
        });
    };
    home.ip("link set vb mtu 1300");
    drifted("vb", "1300");
    a.ip("address del 198.51.100.1/24 dev eth0");
    drifted("va", "peer-address");
    home.ip("link del mv0");
    drifted("mv0", "somebody has deleted it");
    let steps = apply(&switch, &text(&a, &b, 1500)).unwrap();
    assert_eq!(steps.len(), 3, "{steps:?}");
    assert_ok(&switch);

    switch.with(tapway_dataplane::engine::Engine::enforce_devices);
    home.ip("link del kbr");
    home.ip("link set vb down");
    wait_until("all is repaired", LONG, || devices(&switch).iter().all(|d| d.state == "ok"));
    wait_until("the containers reach each other", LONG, || a.ping([198, 51, 100, 2]));
    assert!(home.has_interface("mv0"), "what was on it is there again, too");
}

/// Each type with all of its settings, and other values for those that can change.
const TYPES: &[(&str, &str)] = &[
    (
        "veth --peer far --peer-mac 02:00:00:00:00:09 --peer-address 198.51.100.9/24 --mac 02:00:00:00:00:08 --mtu 1400 --down",
        "--peer-address 198.51.100.8/24 --mtu 1300 --up --address 203.0.113.1/24 --route 198.51.101.0/24",
    ),
    ("veth --peer far --peer-address 198.51.100.9/24", "--peer other"),
    (
        "bridge --stp on --ageing 60s --vlan-filtering on --mcast-snooping off --sysctl ipv4.rp_filter=2",
        "--stp off --ageing 5m --vlan-filtering off --mcast-snooping on --sysctl ipv4.rp_filter=0",
    ),
    ("bridge --ageing 60s --stp on", "--ageing 61s --stp off --mcast-snooping off --sysctl ipv6.accept_ra=0"),
    ("macvlan --parent low --mode private --mac 02:00:00:00:00:08", "--mode vepa"),
    ("macvtap --parent low --mode bridge", "--mode vepa --mtu 1400"),
    ("ipvlan --parent low --mode l3s --flag private --address 2001:db8::1/64", "--mode l2 --flag vepa"),
    ("vlan --parent low --id 4094 --protocol 802.1ad", "--mtu 1400"),
    (
        "vxlan --id 7 --local 198.51.100.1 --remote 198.51.100.2 --dstport 4790 --ttl 9 --tos 8 --learning off --udpcsum off",
        "--remote 198.51.100.3 --ttl 10 --tos inherit --learning on",
    ),
    ("vxlan --id 8 --group 239.1.1.1 --dev low --ttl inherit", "--group 239.1.1.2"),
    ("vxlan --id 9 --local 2001:db8::1 --remote 2001:db8::2", "--remote 2001:db8::3"),
    (
        "vxlan --id 10 --remote 198.51.100.2 --fdb=02:00:00:00:00:07\u{a0}dst\u{a0}198.51.100.3",
        "--fdb=02:00:00:00:00:07\u{a0}dst\u{a0}198.51.100.4\u{a0}port\u{a0}4790",
    ),
    ("vxlan --external", "--mtu 1400"),
    (
        "geneve --id 7 --remote 198.51.100.2 --dstport 6082 --ttl 9 --tos 8 --udpcsum off",
        "--remote 198.51.100.3 --ttl inherit",
    ),
    (
        "tun --owner 1000 --group 1000 --queues 4 --vnet-hdr on --address 203.0.113.1/30",
        "--owner 1001 --group 1001 --mtu 1400",
    ),
    ("tap --queues 1 --mac 02:00:00:00:00:08", "--mtu 9000"),
    ("tap --queues 2 --persistent off --owner 1001", "--owner 1000 --mtu 1400"),
    ("dummy --address 198.51.100.1/32 --address 2001:db8::1/128", "--address 198.51.100.2/32 --down"),
];

#[test]
fn each_type_is_made_with_every_setting_and_changed_in_place_and_is_as_desired() {
    let Some((net, switch)) = Switch::new(1) else { return };
    let home = net.home();
    home.ip("link add low type veth peer name lower");
    home.ip("link set low up");
    let changed = |request| match switch.call(request) {
        Ok(Reply::Changed { changed }) => Ok(changed),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.to_string()),
    };
    let mut made = 0;
    for (words, more) in TYPES {
        let (kind, flags) = words.split_once(' ').unwrap();
        let spec: DeviceSpec = topo::switch::parse(&format!("dut --type {kind} {flags}"));
        match changed(Request::DeviceAdd(Box::new(spec.clone()))) {
            Err(refusal) if refusal.contains("this kernel has no") => {
                println!("made in the guest alone: {refusal}");
                continue;
            }
            result => assert_eq!(result, Ok(true), "{words}"),
        }
        made += 1;
        assert_ok(&switch);
        assert_eq!(changed(Request::DeviceAdd(Box::new(spec))), Ok(false), "{words}");
        let index = devices(&switch)[0].observed.as_ref().unwrap().index;
        let options: DeviceOptions = topo::switch::parse(more);
        let set = || Request::DeviceSet {
            name: "dut".parse().unwrap(),
            options: Box::new(options.clone()),
            unset: Vec::new(),
        };
        assert_eq!(changed(set()), Ok(true), "{words} {more}");
        assert_ok(&switch);
        assert_eq!(devices(&switch)[0].observed.as_ref().unwrap().index, index, "in place: {words} {more}");
        assert_eq!(changed(set()), Ok(false), "{words} {more}");
        assert_eq!(changed(Request::DeviceDel { name: "dut".parse().unwrap() }), Ok(true));
        assert!(!home.has_interface("dut"), "{words}");
    }
    let known = if topo::emulated() { TYPES.len() } else { 6 };
    assert!(made >= known, "only {made} types could be made");
    assert!(home.has_interface("low"));
}

#[test]
fn a_parent_may_be_in_another_namespace_and_a_device_of_the_file() {
    let Some((net, switch)) = Switch::new(1) else { return };
    let (a, home) = (net.host("a"), net.home());
    let netns = a.path();
    let text = format!(
        "[[device]]\nname = \"mv0\"\ntype = \"macvlan\"\nparent = \"eth0\"\nlink_netns = \"{0}\"\n\
         [[device]]\nname = \"vx0\"\ntype = \"vxlan\"\nid = 7\ndev = \"eth0\"\nlink_netns = \"{0}\"\n\
         fdb = [\"00:00:00:00:00:00 dst 198.51.100.2\", \"00:00:00:00:00:00 dst 198.51.100.3 port 4790\"]\n\
         [[device]]\nname = \"va\"\ntype = \"veth\"\npeer = {{ name = \"eth0\", netns = \"{0}\" }}\n",
        netns.display()
    );
    assert_eq!(apply(&switch, &text).unwrap(), ["+ device va", "+ device mv0", "+ device vx0"]);
    assert_ok(&switch);
    assert!(home.ip("-d link show mv0").contains("link-netnsid"));
    let fdb = home.command(Command::new("bridge").args(["fdb", "show", "dev", "vx0"])).unwrap();
    assert!(fdb.contains("dst 198.51.100.2") && fdb.contains("dst 198.51.100.3 port 4790"), "{fdb}");
    assert_eq!(apply(&switch, &text).unwrap(), [""; 0]);
    assert_eq!(apply(&switch, &export(&switch)).unwrap(), [""; 0]);
    // What stands on it goes first, and comes after it.
    let renamed = text.replace("\"eth0\"", "\"eth1\"");
    assert_eq!(
        apply(&switch, &renamed).unwrap(),
        ["- device vx0", "- device mv0", "- device va", "+ device va", "+ device mv0", "+ device vx0"]
    );
    assert_ok(&switch);
    apply(&switch, "").unwrap();
    assert!(!home.has_interface("mv0") && !a.has_interface("eth1"));
}

#[test]
fn a_tap_that_is_not_persistent_ends_with_the_switch() {
    let Some((net, switch)) = Switch::new(1) else { return };
    let text = |persistent| {
        format!("[[device]]\nname = \"tap0\"\ntype = \"tap\"\nqueues = 2\npersistent = {persistent}\n")
    };
    let (stays, ends) = (text(true), text(false));
    apply(&switch, &stays).unwrap();
    assert_eq!(apply(&switch, &ends).unwrap(), ["- device tap0", "+ device tap0"]);
    assert_ok(&switch);
    assert!(net.home().has_interface("tap0"));
    assert_eq!(apply(&switch, &ends).unwrap(), [""; 0]);
    drop(switch);
    wait_until("it is gone", LONG, || !net.home().has_interface("tap0"));
}

#[test]
fn a_namespace_that_is_not_there_is_named_and_nothing_is_made() {
    let Some((_net, switch)) = Switch::new(1) else { return };
    let spec: DeviceSpec = topo::switch::parse("dut --type bridge --netns tapway-test-no-such");
    let refusal = switch.call(Request::DeviceAdd(Box::new(spec))).unwrap_err().to_string();
    assert!(refusal.contains("tapway-test-no-such"), "{refusal}");
    assert_eq!(devices(&switch), []);
}
