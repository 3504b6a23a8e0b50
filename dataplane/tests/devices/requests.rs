//! Our requests are those of `ip link add` for the same device, attribute by attribute.
//!
//! Both are seen by strace, on their way into the kernel: so this holds for every kind, also one that this kernel then refuses.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command, time::Duration};

use tapway_dataplane::netlink::device::{
    Bridge, Device, FdbEntry, Geneve, Ipvlan, IpvlanFlag, IpvlanMode, Kind, Macvlan, MacvlanMode, Peer, Tos,
    Ttl, UNFINISHED_GROUP, Vlan, VlanProtocol, Vxlan, change, create,
};

use crate::topo::{Name, in_netns, look, mac, make, parent, skipped};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWNEIGH: u16 = 28;
// linux/if_link.h
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_GENEVE_TTL: u16 = 3;
const IFLA_GENEVE_LABEL: u16 = 11;
const VETH_INFO_PEER: u16 = 1;
/// Octets of `struct nlmsghdr`, of `struct ifinfomsg` and of `struct ndmsg`.
const NLMSGHDR: usize = 16;
const IFINFOMSG: usize = 16;
const NDMSG: usize = 12;

/// The index of the case, for the process that strace looks at; and the namespace of a peer.
const CASE: &str = "TAPWAY_TEST_REQUEST";
const NETNS: &str = "TAPWAY_TEST_NETNS";

/// A device, and `ip link add` for it.
fn cases() -> Vec<(Device, String)> {
    let netns = env::var(NETNS).unwrap_or_else(|_| "nobody".to_owned());
    let macvlan = |mode| Macvlan { parent: "p0".into(), mode: Some(mode) };
    let mut cases = vec![
        (
            Device {
                mac: Some(mac(1)),
                mtu: Some(1400),
                ..Device::new(
                    "x0",
                    Kind::Veth(Peer { name: "y0".into(), mac: Some(mac(2)), ..Peer::default() }),
                )
            },
            "x0 address 02:00:00:00:00:01 mtu 1400 type veth peer name y0 address 02:00:00:00:00:02"
                .to_owned(),
        ),
        (
            Device::new(
                "x0",
                Kind::Veth(Peer {
                    name: "y0".into(),
                    netns: Some(netns.parse().unwrap()),
                    ..Peer::default()
                }),
            ),
            format!("x0 type veth peer name y0 netns {netns}"),
        ),
        (
            Device::new(
                "x0",
                Kind::Bridge(Bridge {
                    ageing: Some(Duration::from_secs(77)),
                    stp: Some(true),
                    vlan_filtering: Some(true),
                    mcast_snooping: Some(false),
                }),
            ),
            "x0 type bridge ageing_time 7700 stp_state 1 vlan_filtering 1 mcast_snooping 0".to_owned(),
        ),
        (
            Device {
                netns: Some(netns.parse().unwrap()),
                ..Device::new("x0", Kind::Macvlan(macvlan(MacvlanMode::Bridge)))
            },
            format!("link p0 name x0 netns {netns} type macvlan mode bridge"),
        ),
        (Device::new("x0", Kind::Dummy), "x0 type dummy".to_owned()),
    ];
    for mode in [MacvlanMode::Vepa, MacvlanMode::Private, MacvlanMode::Passthru, MacvlanMode::Source] {
        let device = Device::new("x0", Kind::Macvlan(macvlan(mode)));
        cases.push((device, format!("link p0 name x0 type macvlan mode {mode}")));
        let device = Device::new("x0", Kind::Macvtap(macvlan(mode)));
        cases.push((device, format!("link p0 name x0 type macvtap mode {mode}")));
    }
    for mode in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s] {
        for flag in [IpvlanFlag::Bridge, IpvlanFlag::Private, IpvlanFlag::Vepa] {
            let options = Ipvlan { parent: "p0".into(), mode: Some(mode), flag: Some(flag) };
            let ip = format!("link p0 name x0 type ipvlan mode {mode} {flag}");
            cases.push((Device::new("x0", Kind::Ipvlan(options)), ip));
        }
    }
    for protocol in [VlanProtocol::Dot1q, VlanProtocol::Dot1ad] {
        let options = Vlan { parent: "p0".into(), id: 100, protocol: Some(protocol) };
        let ip = format!("link p0 name x0 type vlan id 100 protocol {protocol}");
        cases.push((Device::new("x0", Kind::Vlan(options)), ip));
    }
    let vxlan = Vxlan {
        id: 42,
        local: Some([198, 51, 100, 1].into()),
        remote: Some([198, 51, 100, 2].into()),
        dev: Some("p0".into()),
        learning: Some(false),
        ttl: Some(Ttl::Fixed(33)),
        tos: Some(Tos::Inherit),
        udpcsum: Some(true),
        ..Vxlan::default()
    };
    let six = Vxlan {
        id: 43,
        local: Some("2001:db8::1".parse().unwrap()),
        group: Some("ff05::1".parse().unwrap()),
        dev: Some("p0".into()),
        ttl: Some(Ttl::Inherit),
        tos: Some(Tos::Fixed(0x10)),
        ..Vxlan::default()
    };
    cases.extend([
        (
            Device::new("x0", Kind::Vxlan(vxlan)),
            "x0 type vxlan id 42 local 198.51.100.1 remote 198.51.100.2 dev p0 dstport 4789 nolearning ttl 33 tos inherit udpcsum"
                .to_owned(),
        ),
        (
            Device::new("x0", Kind::Vxlan(six)),
            "x0 type vxlan id 43 local 2001:db8::1 group ff05::1 dev p0 dstport 4789 ttl inherit tos 0x10".to_owned(),
        ),
        (
            Device::new("x0", Kind::Vxlan(Vxlan { external: true, ..Vxlan::default() })),
            "x0 type vxlan dstport 4789 external".to_owned(),
        ),
    ]);
    let geneve = |remote: &str, ttl, tos, udpcsum| Geneve {
        id: 42,
        remote: Some(remote.parse().unwrap()),
        ttl: Some(ttl),
        tos: Some(tos),
        udpcsum,
        ..Geneve::default()
    };
    cases.extend([
        (
            Device::new("x0", Kind::Geneve(geneve("198.51.100.2", Ttl::Fixed(9), Tos::Inherit, Some(true)))),
            "x0 type geneve id 42 remote 198.51.100.2 dstport 6081 ttl 9 tos inherit udpcsum".to_owned(),
        ),
        (
            Device::new("x0", Kind::Geneve(geneve("2001:db8::2", Ttl::Inherit, Tos::Fixed(4), Some(false)))),
            "x0 type geneve id 42 remote 2001:db8::2 dstport 6081 ttl inherit tos 4 noudpcsum".to_owned(),
        ),
    ]);
    cases
}

#[test]
#[ignore = "the process that another test looks at"]
fn one_device_is_made() {
    let Ok(case) = env::var(CASE) else { return };
    let (device, _) = &cases()[case.parse::<usize>().unwrap()];
    let _ = create(device); // a kind that this kernel has not got is asked for all the same
}

#[test]
#[ignore = "the process that another test looks at"]
fn one_bridge_and_one_vxlan_are_changed() {
    if env::var(CASE).is_err() {
        return;
    }
    let wanted = Device::new(
        "br0",
        Kind::Bridge(Bridge { ageing: Some(Duration::from_secs(7)), ..Bridge::default() }),
    );
    change(&look(&wanted), &wanted).unwrap();
    let entry = FdbEntry { mac: mac(1), dst: [198, 51, 100, 7].into(), vni: Some(9), port: Some(8472) };
    let wanted = Device::new("vx0", Kind::Vxlan(Vxlan { id: 1, fdb: vec![entry], ..Vxlan::default() }));
    change(&look(&wanted), &wanted).unwrap();
}

/// The rtnetlink messages of one type that a command sends, or `None` where there is no strace.
fn sent(command: &[&str], vars: &[(&str, &str)], kind: u16) -> Option<Vec<Vec<u8>>> {
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new("strace")
        .args(["-f", "-ff", "-e", "trace=sendto,sendmsg", "-e", "write=all", "-o"])
        .arg(dir.path().join("trace"))
        .args(command)
        .envs(vars.iter().copied())
        .output();
    match out {
        Ok(_) => {} // the kernel may refuse what was sent
        Err(error) => {
            skipped(&format!("no strace: {error}"));
            return None;
        }
    }
    let mut messages = Vec::new();
    for file in fs::read_dir(dir.path()).unwrap() {
        messages.extend(buffers(&file.unwrap().path()));
    }
    assert!(!messages.is_empty(), "strace saw nothing of {command:?}");
    // `ip` first sends one without attributes, to learn how the kernel takes errors.
    messages.retain(|m| m.len() > NLMSGHDR + IFINFOMSG && u16::from_ne_bytes([m[4], m[5]]) == kind);
    Some(messages)
}

/// What a trace says was written, one buffer after the other.
fn buffers(trace: &Path) -> Vec<Vec<u8>> {
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let Some((offset, rest)) = line.strip_prefix(" | ").and_then(|rest| rest.split_once("  ")) else {
            continue;
        };
        if offset.bytes().all(|b| b == b'0') {
            buffers.push(Vec::new());
        }
        // Two groups of eight octets, then the same as text.
        let octets = rest[..49].split_whitespace().map(|hex| u8::from_str_radix(hex, 16).unwrap());
        buffers.last_mut().unwrap().extend(octets);
    }
    buffers
}

/// Attributes by path: a number for each level.
type Attributes = BTreeMap<Vec<u16>, Vec<u8>>;

fn attributes(mut bytes: &[u8], path: &[u16], into: &mut Attributes) {
    while bytes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff; // without NLA_F_NESTED
        let value = &bytes[4..len];
        let path = [path, &[kind]].concat();
        match path[..] {
            [IFLA_LINKINFO] | [IFLA_LINKINFO, IFLA_INFO_DATA] => attributes(value, &path, into),
            [IFLA_LINKINFO, IFLA_INFO_DATA, VETH_INFO_PEER] if value.len() >= IFINFOMSG => {
                into.insert([&path[..], &[0]].concat(), value[..IFINFOMSG].to_vec());
                attributes(&value[IFINFOMSG..], &path, into);
            }
            // Descriptors are numbers of a process.
            [IFLA_NET_NS_FD] | [IFLA_LINKINFO, IFLA_INFO_DATA, VETH_INFO_PEER, IFLA_NET_NS_FD] => {
                into.insert(path, b"a descriptor".to_vec());
            }
            // Strings may end with a zero or with the attribute.
            _ => {
                let value = if path.last() == Some(&1) || path == [3] { trimmed(value) } else { value };
                into.insert(path, value.to_vec());
            }
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn trimmed(value: &[u8]) -> &[u8] {
    // A number of four octets is no text.
    if value.len() == 4 { value } else { value.strip_suffix(&[0]).unwrap_or(value) }
}

fn decoded(message: &[u8], header: usize) -> (Vec<u8>, Attributes) {
    let mut found = Attributes::new();
    attributes(&message[NLMSGHDR + header..], &[], &mut found);
    (message[NLMSGHDR..NLMSGHDR + header].to_vec(), found)
}

fn flags(message: &[u8]) -> u16 {
    u16::from_ne_bytes([message[6], message[7]])
}

#[test]
fn a_device_is_asked_for_as_ip_link_add_asks() {
    let own = env::current_exe().unwrap();
    for case in 0..cases().len() {
        let own = own.to_str().unwrap().to_owned();
        in_netns(move || {
            parent();
            let netns = Name::new();
            tapway_dataplane::netlink::device::add_netns(&netns.0).unwrap();
            let vars = [(CASE, &*case.to_string()), (NETNS, &*netns.0)];
            let helper = [&*own, "--ignored", "--exact", "requests::one_device_is_made"];
            let Some(ours) = sent(&helper, &vars, RTM_NEWLINK) else { return };
            // Where it worked, what `ip` asks for has to have a free name again.
            let _ = Command::new("ip").args(["link", "del", "x0"]).output();
            let _ = Command::new("ip").args(["-n", &netns.0, "link", "del", "x0"]).output();
            let mut words = vec!["ip", "link", "add"];
            let line = {
                let line = cases().swap_remove(case).1;
                line.replace("nobody", &netns.0)
            };
            words.extend(line.split_whitespace());
            let theirs = sent(&words, &[], RTM_NEWLINK).unwrap();
            let ([ours], [theirs]) = (&ours[..], &theirs[..]) else {
                panic!("{line}: {} of ours, {} of theirs", ours.len(), theirs.len())
            };
            assert_eq!(flags(ours), flags(theirs), "{line}");
            let (mut ours, mut theirs) = (decoded(ours, IFINFOMSG), decoded(theirs, IFINFOMSG));
            // What we ask for on top: that the device is not finished, and the same MTU at both ends.
            let peer = [IFLA_LINKINFO, IFLA_INFO_DATA, VETH_INFO_PEER];
            let group = ours.1.remove(&vec![IFLA_GROUP]);
            assert_eq!(group.as_deref(), Some(&UNFINISHED_GROUP.to_ne_bytes()[..]), "{line}");
            if line.contains("veth") {
                let group = ours.1.remove([&peer[..], &[IFLA_GROUP]].concat().as_slice());
                assert_eq!(group.as_deref(), Some(&UNFINISHED_GROUP.to_ne_bytes()[..]), "{line}");
                let mtu = ours.1.remove([&peer[..], &[IFLA_MTU]].concat().as_slice());
                assert_eq!(mtu.as_ref(), ours.1.get(&vec![IFLA_MTU]), "{line}");
            }
            // What they ask for on top: that a flow label is 0, which it is.
            if line.contains("geneve") {
                let label = theirs.1.remove([IFLA_LINKINFO, IFLA_INFO_DATA, IFLA_GENEVE_LABEL].as_slice());
                assert_eq!(label.as_deref(), Some(&[0; 4][..]), "{line}");
            }
            // And that a TTL which is inherited is 0 as well, which the kernel does not look at.
            if line.contains("geneve") && line.contains("ttl inherit") {
                let ttl = theirs.1.remove([IFLA_LINKINFO, IFLA_INFO_DATA, IFLA_GENEVE_TTL].as_slice());
                assert_eq!(ttl.as_deref(), Some(&[0][..]), "{line}");
            }
            assert_eq!(ours, theirs, "{line}");
        });
    }
}

#[test]
fn a_change_is_asked_for_as_ip_and_bridge_ask() {
    let own = env::current_exe().unwrap();
    in_netns(move || {
        make(&Device::new("br0", Kind::Bridge(Bridge::default())));
        make(&Device::new("vx0", Kind::Vxlan(Vxlan { id: 1, ..Vxlan::default() })));
        let helper =
            [own.to_str().unwrap(), "--ignored", "--exact", "requests::one_bridge_and_one_vxlan_are_changed"];
        let vars = [(CASE, "0")];
        let Some(ours) = sent(&helper, &vars, RTM_NEWLINK) else { return };
        let theirs =
            sent(&["ip", "link", "set", "br0", "type", "bridge", "ageing_time", "700"], &[], RTM_NEWLINK)
                .unwrap();
        let all = |messages: &[Vec<u8>], header| {
            messages.iter().map(|message| (flags(message), decoded(message, header))).collect::<Vec<_>>()
        };
        assert_eq!(all(&ours, IFINFOMSG), all(&theirs, IFINFOMSG));
        let line = "bridge fdb del 02:00:00:00:00:01 dev vx0";
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
        let ours = sent(&helper, &vars, RTM_NEWNEIGH).unwrap();
        let line = "bridge fdb add 02:00:00:00:00:01 dev vx0 dst 198.51.100.7 vni 9 port 8472";
        let theirs = sent(&line.split_whitespace().collect::<Vec<_>>(), &[], RTM_NEWNEIGH).unwrap();
        assert_eq!(all(&ours, NDMSG), all(&theirs, NDMSG));
    });
}
