//! Files with mistakes, and the mistakes they are said to have.

use proptest::prelude::*;

use super::*;
use crate::config::arbitrary;

fn mistakes(text: &str) -> Vec<String> {
    Topology::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_file_with_five_mistakes_reports_five_mistakes() {
    let text = r#"
[[bridge]]
name = "br0"
ageing = "soon"

[[port]]
name = "vm1"
bridge = "br1"
mtuu = 1500

[[port]]
name = "vm2"
bridge = "br0"
access = 4095

[[gadget]]
name = "x"
"#;
    assert_eq!(
        mistakes(text),
        [
            "line 4: bridge \"br0\": ageing: \"soon\" is no duration: write 300s, 5m or 1h",
            "line 8: port \"vm1\": bridge: \"br1\" is not in this file; add a [[bridge]] of that name",
            "line 9: port \"vm1\": unknown key \"mtuu\"; did you mean \"mtu\"?",
            "line 14: port \"vm2\": access: \"4095\" is not a VLAN: a number from 1 to 4094 (0 and 4095 are reserved by 802.1Q)",
            "line 16: unknown table \"gadget\"; the tables are device, bridge, uplink, port, fdb, neigh",
        ]
    );
}

#[test]
fn broken_toml_does_not_hide_the_other_mistakes() {
    let text = r#"[[bridge]]
name = "br0"
fdb_limit =

[[port]]
name = "vm1
bridge = "br0"

[[port
name = "vm2"
bridge = "br7"

[[port]]
bridge = "br0"
mtu = 20
flood
"vlan" = 1

[[fdb]]
bridge = "br0"
port = "vm2"
mac = "01:00:00:00:00:00"
"#;
    let lines: Vec<u32> = Topology::parse(text).unwrap_err().iter().map(|m| m.line).collect();
    assert_eq!(lines, [3, 6, 9, 16, 17, 22], "{:#?}", mistakes(text));
}

#[test]
fn all_bad_keys_of_one_table_are_reported() {
    let text = "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"a b\"\nbridge = 5\ntype = \"tun\"\ntrunk = []\nnative = 0\nflood = 1\nmtu = \"x\"\nsecure = \"y\"\nnetns = \"\"\naddress = [\"198.51.100.1\"]\nmac = \"z\"\nqueues = -1\n";
    let found = mistakes(text);
    assert_eq!(found.len(), 12, "{found:#?}");
    assert!(
        found.iter().zip(4..).all(|(m, line)| m.starts_with(&format!("line {line}: port \"a b\": "))),
        "{found:#?}"
    );
}

#[test]
fn a_mistake_is_not_told_again_where_it_has_consequences() {
    for text in [
        // A bridge whose name is bad is not unknown.
        "[[bridge]]\nname = \"br/0\"\n[[port]]\nname = \"p\"\nbridge = \"br0\"",
        "[[bridge]]\n[[port]]\nname = \"p\"\nbridge = \"br0\"",
        // A bad trunk is a trunk.
        "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"p\"\nbridge = \"br0\"\ntrunk = \"x\"\nnative = 5",
        // The same name twice is not the same interface twice.
        "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"p\"\nbridge = \"br0\"\n[[port]]\nname = \"p\"\nbridge = \"br0\"",
        // A port without a name is not unknown, and entries of an unknown bridge have no port there.
        "[[bridge]]\nname = \"br0\"\n[[port]]\nbridge = \"br0\"\n[[fdb]]\nmac = \"02:00:00:00:00:01\"\nbridge = \"br0\"\nport = \"p\"",
        "[[fdb]]\nmac = \"02:00:00:00:00:01\"\nbridge = \"br0\"\nport = \"p\"",
        // A bad VLAN is not VLAN 0.
        "[[bridge]]\nname = \"br0\"\n[[port]]\nname = \"p\"\nbridge = \"br0\"\n[[fdb]]\nmac = \"02:00:00:00:00:01\"\nbridge = \"br0\"\nport = \"p\"\n[[fdb]]\nmac = \"02:00:00:00:00:01\"\nbridge = \"br0\"\nport = \"p\"\nvlan = \"x\"",
    ] {
        assert_eq!(mistakes(text).len(), 1, "{text}\n{:#?}", mistakes(text));
    }
}

#[test]
fn names_that_are_missing_twice_or_unknown_are_reported() {
    let text = r#"[[bridge]]
name = "br0"
[[bridge]]
name = "br1"
[[bridge]]
name = "br0"
[[port]]
name = "p"
bridge = "br0"
[[port]]
ifname = "p"
[[port]]
name = "q"
bridge = "br0"
ifname = "p"
[[fdb]]
mac = "02:00:00:00:00:01"
bridge = "br1"
port = "p"
[[fdb]]
mac = "02:00:00:00:00:01"
bridge = "br2"
port = "q"
[[fdb]]
mac = "02:00:00:00:00:02"
bridge = "br0"
port = "q"
vlan = 4095
[[fdb]]
mac = "00:00:00:00:00:00"
bridge = "br0"
port = "q"
"#;
    assert_eq!(
        mistakes(text),
        [
            "line 6: bridge \"br0\" is there already, on line 2",
            "line 10: port: bridge is missing",
            "line 10: port: name is missing",
            "line 15: port \"q\": interface \"p\" is that of port \"p\"",
            "line 19: fdb \"02:00:00:00:00:01\": port: \"p\" is a port of bridge \"br0\", not of \"br1\"",
            "line 22: fdb \"02:00:00:00:00:01\": bridge: \"br2\" is not in this file; add a [[bridge]] of that name",
            "line 28: fdb \"02:00:00:00:00:02\": vlan: 4095 is not allowed: 0 to 4094",
            "line 30: fdb \"00:00:00:00:00:00\": mac: 00:00:00:00:00:00 is not the address of a station: it is a group address or zero",
        ]
    );
}

#[test]
fn uplinks_and_neighbours_have_their_mistakes_told_too() {
    let text = r#"[[bridge]]
name = "br0"
neigh_snoop = "maybe"
[[uplink]]
name = "up0"
address = "198.51.100.1"
[[uplink]]
name = "up1"
address = "198.51.100.1/30"
gateway = "198.51.100.9"
[[uplink]]
name = "up2"
address = "198.51.100.1/24"
ifname = "up1"
[[uplink]]
adress = "203.0.113.1/24"
[[port]]
name = "up1"
bridge = "br0"
netns = "blue"
[[port]]
name = "up0"
bridge = "br0"
ifname = "up1"
[[neigh]]
ip = "198.51.100.300"
mac = "02:00:00:00:00:01"
bridge = "br0"
[[neigh]]
ip = "198.51.100.7"
mac = "02:00:00:00:00:07"
bridge = "br1"
[[neigh]]
ip = "198.51.100.7"
mac = "02:00:00:00:00:08"
bridge = "br1"
"#;
    assert_eq!(
        mistakes(text),
        [
            "line 3: bridge \"br0\": neigh_snoop: \"maybe\" is neither on nor off",
            "line 6: uplink \"up0\": address: \"198.51.100.1\" is no address with a prefix length: write 198.51.100.1/24 or 2001:db8::1/64",
            "line 10: uplink \"up1\": gateway: 198.51.100.9 is not in the prefix of 198.51.100.1/30",
            "line 13: uplink \"up2\": address: 198.51.100.1 is that of uplink \"up1\"",
            "line 14: uplink \"up2\": interface \"up1\" is that of uplink \"up1\"",
            "line 15: uplink: address is missing",
            "line 15: uplink: name is missing",
            "line 16: uplink: unknown key \"adress\"; did you mean \"address\"?",
            "line 18: port \"up1\": uplink \"up1\" has that name, on line 8",
            "line 22: port \"up0\": uplink \"up0\" has that name, on line 5",
            "line 24: port \"up0\": interface \"up1\" is that of uplink \"up1\"",
            "line 26: neigh \"198.51.100.300\": ip: \"198.51.100.300\" is no IP address: write 198.51.100.1 or 2001:db8::1",
            "line 32: neigh \"198.51.100.7\": bridge: \"br1\" is not in this file; add a [[bridge]] of that name",
            "line 34: neigh \"br1 vlan 0 198.51.100.7\" is there already, on line 30",
            "line 36: neigh \"198.51.100.7\": bridge: \"br1\" is not in this file; add a [[bridge]] of that name",
        ]
    );
}

#[test]
fn each_mistake_of_a_device_has_its_line_and_so_has_a_circle() {
    let text = r#"[[device]]
name = "v0"
type = "veth"
[[device]]
name = "v1"
type = "veht"
[[device]]
name = "m"
type = "macvlan"
mode = "l2"
stp = true
[[device]]
name = "a"
type = "macvlan"
parent = "b"
[[device]]
name = "b"
type = "vlan"
id = 7
parent = "c"
[[device]]
name = "c"
type = "veth"
peer = { name = "d", nets = "c1" }
master = "a"
[[device]]
name = "e"
type = "veth"
peer = { name = "vm1" }
[[device]]
type = "dummy"
[[device]]
name = "c"
type = "dummy"
[[bridge]]
name = "br0"
[[port]]
name = "vm1"
bridge = "br0"
"#;
    assert_eq!(
        mistakes(text),
        [
            "line 1: device \"v0\": peer is missing: a veth has two ends, this is the name of the other",
            "line 6: device \"v1\": type: \"veht\" is no type of device: veth, bridge, macvlan, macvtap, ipvlan, vlan, vxlan, geneve, tun, tap or dummy",
            "line 7: device \"m\": parent is missing: a macvlan is on another interface",
            "line 10: device \"m\": mode: a device of type macvlan has no mode l2: bridge, vepa, private, passthru or source",
            "line 11: device \"m\": stp: a device of type macvlan has none; it is for bridge",
            "line 15: device \"a\": parent: it goes round in a circle: device a needs device b (parent), device b needs device c (parent), device c needs device a (master)",
            "line 24: device \"c\": peer: unknown field `nets`, expected one of `name`, `netns`, `address`, `mac`",
            "line 30: device: name is missing",
            "line 33: device \"c\" is there already, on line 22",
            "line 38: port \"vm1\": interface \"vm1\" is that of device \"e\"",
        ]
    );
}

#[test]
fn each_mistake_of_a_port_for_a_vm_has_its_line() {
    let text = r#"[[bridge]]
name = "br0"
[[device]]
name = "v0"
type = "veth"
peer = { name = "v1" }
[[port]]
name = "fine"
bridge = "br0"
type = "netdev"
ifname = "v0"
[[port]]
name = "twice"
bridge = "br0"
ifname = "v0"
type = "netdev"
[[port]]
name = "tap"
bridge = "br0"
ifname = "v1"
[[port]]
name = "a"
bridge = "br0"
type = "stream"
path = "/run/a"
[[port]]
name = "b"
bridge = "br0"
type = "vhost-user"
client = true
path = "/run/a"
[[port]]
name = "c"
bridge = "br0"
type = "dgram"
path = "c"
listen = "maybe"
[[port]]
name = "d"
bridge = "br0"
type = "vhost-user"
queues = 0
[[port]]
name = "e"
bridge = "br0"
type = "netdev"
driver = "xdp"
path = "/run/e"
"#;
    assert_eq!(
        mistakes(text),
        [
            "line 15: port \"twice\": interface \"v0\" is that of port \"fine\"",
            "line 20: port \"tap\": interface \"v1\" is that of device \"v0\"",
            "line 31: port \"b\": path: \"/run/a\" is that of port \"a\"",
            "line 36: port \"c\": path: \"c\" is no absolute path of a socket",
            "line 37: port \"c\": listen: \"maybe\" is neither on nor off",
            "line 38: port \"d\": path is missing",
            "line 42: port \"d\": queues: 0 is not allowed: 1 to 256",
            "line 47: port \"e\": driver: unknown variant `xdp`, expected `packet`",
            "line 48: port \"e\": path: a port of type netdev has none; it is for stream, dgram and vhost-user",
        ]
    );
}

#[test]
fn each_mistake_of_a_tunnel_has_its_line() {
    let text = r#"[[bridge]]
name = "br0"
[[port]]
name = "a"
bridge = "br0"
type = "vxlan"
vlan_vni = { 10 = 1010, 4095 = 7 }
remote = ["198.51.100.2", "x"]
ttl = 300
gbp_id = 5
[[port]]
name = "b"
bridge = "br0"
type = "geneve"
vni = 7
local = "198.51.100.1"
remote = "2001:db8::2"
reserved = "drop"
option = ["0102:80:00"]
src_port = "9-8"
[[port]]
name = "c"
bridge = "br0"
type = "vxlan"
vlan_vni = { 10 = 1010 }
local = "198.51.100.1"
trunk = "10"
df = "maybe"
[[port]]
name = "d"
bridge = "br0"
type = "vxlan"
vni = 1010
local = "198.51.100.1"
group = "239.1.1.1"
[port.vlan_vni]
20 = 1011
30 = 1012
[[port]]
name = "e"
bridge = "br0"
local = "198.51.100.1"
[[fdb]]
mac = "02:00:00:00:00:01"
bridge = "br0"
port = "e"
remote = "198.51.100.2"
[[fdb]]
mac = "02:00:00:00:00:02"
bridge = "br0"
port = "d"
remote = "2001:db8::2"
"#;
    assert_eq!(
        mistakes(text),
        [
            "line 3: port \"a\": local is missing",
            "line 7: port \"a\": vlan_vni: \"4095\" is not a VLAN: a number from 1 to 4094 (0 and 4095 are reserved by 802.1Q)",
            "line 8: port \"a\": remote: \"x\" is no IP address: write 198.51.100.1 or 2001:db8::1",
            "line 9: port \"a\": ttl: \"300\" is neither a number up to 255 nor inherit",
            "line 10: port \"a\": gbp_id: 5 needs gbp: without the extension no packet has a group",
            "line 17: port \"b\": remote: 2001:db8::2 is of another family than local, 198.51.100.1",
            "line 18: port \"b\": reserved: a port of type geneve has none; it is for vxlan",
            "line 19: port \"b\": option: \"0102:80:00\" is no Geneve option: write CLASS:TYPE:DATA in hexadecimal, as 0102:80:00001111, with a multiple of 4 octets of data up to 124",
            "line 20: port \"b\": src_port: \"9-8\" is no range of ports: write MIN-MAX, such as 49152-65535, from 1 to 65535",
            "line 27: port \"c\": trunk and vlan_vni exclude each other: the VLANs of the port are those of vlan_vni",
            "line 28: port \"c\": df: \"maybe\" is none of set, unset and inherit",
            "line 33: port \"d\": VNI 1010 at 198.51.100.1 port 4789 is that of port \"c\"",
            "line 35: port \"d\": group: 239.1.1.1 needs underlay_dev, the interface on which it is joined",
            "line 42: port \"e\": local: a port of type tap has none; it is for vxlan and geneve",
            "line 47: fdb \"02:00:00:00:00:01\": remote: 198.51.100.2 is behind a tunnel, and port \"e\" is of type tap",
            "line 52: fdb \"02:00:00:00:00:02\": remote: 2001:db8::2 is of another family than local, 198.51.100.1",
        ]
    );
}

#[test]
fn among_ten_thousand_tunnels_the_one_that_takes_the_network_of_another_is_found() {
    let mut text = "[[bridge]]\nname = \"br0\"\n".to_owned();
    for n in 0..10_000 {
        text += &format!(
            "[[port]]\nname = \"t{n}\"\nbridge = \"br0\"\ntype = \"vxlan\"\nlocal = \"198.51.100.1\"\nvni = {n}\n"
        );
    }
    assert_eq!(Topology::parse(&text).unwrap().0.port.len(), 10_000);
    let last = text.replace("vni = 9999\n", "vni = 7\n");
    assert_eq!(
        mistakes(&last),
        ["line 60002: port \"t9999\": VNI 7 at 198.51.100.1 port 4789 is that of port \"t7\""]
    );
}

#[test]
fn tables_are_written_with_two_brackets() {
    let text = "mtu = 5\n[bridge]\nname = \"br0\"\n[port.a]\nx = 1\n[foo]\n[[bar]]\n[[bar]]\n[[ports]]\n";
    assert_eq!(
        mistakes(text),
        [
            "line 1: unknown table \"mtu\"; the tables are device, bridge, uplink, port, fdb, neigh",
            "line 2: bridge is written as [[bridge]], once for each bridge",
            "line 4: port is written as [[port]], once for each port",
            "line 6: unknown table \"foo\"; the tables are device, bridge, uplink, port, fdb, neigh",
            "line 7: unknown table \"bar\"; the tables are device, bridge, uplink, port, fdb, neigh",
            "line 8: unknown table \"bar\"; the tables are device, bridge, uplink, port, fdb, neigh",
            "line 9: unknown table \"ports\"; did you mean \"port\"?",
        ]
    );
    assert_eq!(mistakes("port = 5\nfdb = [1]").len(), 2);
    assert_eq!(Topology::parse("").unwrap().0, Topology::default());
}

#[test]
fn more_mistakes_than_anybody_reads_are_counted() {
    let found = mistakes(&"[[port]]\nx = 1\n".repeat(1000));
    assert_eq!(found.len(), MISTAKES_MAX + 1);
    assert_eq!(found[MISTAKES_MAX], "line 668: 2000 more mistakes are not shown");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = Topology::parse(&text);
    }

    /// Pieces of topology files in any order, which come further than characters do.
    #[test]
    fn arbitrary_pieces_never_panic_and_mistakes_are_sorted_lines_of_the_file(
        pieces in prop::collection::vec(prop::sample::select(arbitrary::PIECES), 0..40)
    ) {
        let text = pieces.concat();
        if let Err(mistakes) = Topology::parse(&text) {
            prop_assert!(!mistakes.is_empty() && mistakes.is_sorted());
            let lines = u32::try_from(text.split('\n').count()).unwrap();
            prop_assert!(mistakes.iter().all(|m| (1..=lines).contains(&m.line)), "{:?}", mistakes);
        }
    }

    #[test]
    fn one_damaged_character_never_panics(
        topology in arbitrary::topology(), at in any::<prop::sample::Index>(), with in any::<char>()
    ) {
        let mut text: Vec<char> = topology.to_toml().chars().collect();
        if !text.is_empty() {
            let at = at.index(text.len());
            text[at] = with;
        }
        let _ = Topology::parse(&text.into_iter().collect::<String>());
    }
}
