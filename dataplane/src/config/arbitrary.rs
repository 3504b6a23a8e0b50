//! Topologies for property tests: each one makes sense.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::wire::{MacAddr, Vid, Vni};

/// Pieces of topology files, whole and broken.
pub(super) const PIECES: &[&str] = &[
    "[[bridge]]\n",
    "[[device]]\n",
    "type = \"veth\"\n",
    "parent = \"br0\"\n",
    "peer = { name = \"vm1\" }\n",
    "[device.peer]\n",
    "[[port]]\n",
    "[[fdb]]\n",
    "[[uplink]]\n",
    "[[neigh]]\n",
    "[port]\n",
    "[[port",
    "]]",
    "[",
    "name = \"br0\"\n",
    "name = \"vm1\"\n",
    "bridge = \"br0\"\n",
    "port = \"vm1\"\n",
    "mac = \"02:00:00:00:00:01\"\n",
    "vlan = 4095\n",
    "address = \"198.51.100.1/24\"\n",
    "gateway = \"198.51.100.2\"\n",
    "ip = \"198.51.100.2\"\n",
    "type = \"vxlan\"\n",
    "vni = 7\n",
    "vlan_vni = { 10 = 1010 }\n",
    "[port.vlan_vni]\n",
    "20 = 2020\n",
    "local = \"198.51.100.1\"\n",
    "remote = \"198.51.100.2\"\n",
    "type = \"netdev\"\n",
    "type = \"stream\"\n",
    "path = \"/run/vm1\"\n",
    "mtu = 1\n",
    "mtu =",
    "trunk = [1, \n",
    "\"20-30\"]\n",
    "native = 5\n",
    "access = 0x0a\n",
    "address = [\n",
    "\"\"\"",
    "'''\n",
    "{ a = 1,\n",
    "}",
    "\n",
    "\r\n",
    "# x",
    "a.b = 1\n",
    "port.x = 2\n",
    "\u{feff}",
    "\0",
    "ä",
    "= 1979-05-27\n",
    "inf",
    "\\",
];

fn vid() -> impl Strategy<Value = Vid> {
    (Vid::MIN..=Vid::MAX).prop_filter_map("a VLAN", Vid::new)
}

fn mac() -> impl Strategy<Value = MacAddr> {
    (0..4u64).prop_map(|low| MacAddr::from_bits(0x0200_0000_0001 + low))
}

fn on_off() -> impl Strategy<Value = Option<OnOff>> {
    option::of(any::<bool>().prop_map(OnOff))
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    texts: &'static [&'static str],
) -> impl Strategy<Value = T> {
    select(texts).prop_map(|text| text.parse().unwrap())
}

/// Access, trunk, native and QinQ as they go together.
fn vlans() -> impl Strategy<Value = PortOptions> {
    let trunk = || {
        vec(vid(), 1..5).prop_map(|vids| {
            let mut list = VlanList::default();
            vids.into_iter().for_each(|vid| list.insert(vid));
            Some(list)
        })
    };
    let none = PortOptions::default;
    prop_oneof![
        Just(none()),
        vid().prop_map(move |v| PortOptions { access: Some(v), ..none() }),
        (prop_oneof![trunk(), Just(Some(VlanList::all()))], option::of(vid()))
            .prop_map(move |(trunk, native)| PortOptions { trunk, native, ..none() }),
        vid().prop_map(move |v| PortOptions { qinq: Some(v), ..none() }),
    ]
}

/// The options of a port of any type.
pub(super) fn port_options() -> impl Strategy<Value = PortOptions> {
    (0..3u8, tap_options(), tunnel_keys(), vm_keys()).prop_map(|(kind, options, tunnel, vm)| {
        if kind == 0 {
            return options;
        }
        if kind == 1 {
            return vm_options(vm, options);
        }
        // What all ports have, and with VLANs of its own no VLAN flags.
        let vlans = if tunnel.vlan_vni.is_empty() { options.clone() } else { PortOptions::default() };
        PortOptions {
            access: vlans.access,
            trunk: vlans.trunk,
            native: vlans.native,
            qinq: vlans.qinq,
            learning: options.learning,
            flood: options.flood,
            hairpin: options.hairpin,
            isolated: options.isolated,
            mac_limit: options.mac_limit,
            mtu: options.mtu,
            admin: options.admin,
            secure: options.secure,
            netns: options.netns,
            ..tunnel
        }
    })
}

/// The keys of a port for a VM that other ports have not.
fn vm_keys() -> impl Strategy<Value = PortOptions> {
    let none = PortOptions::default;
    let netdev = (option::of(Just(Driver::Packet)), on_off()).prop_map(move |(driver, qdisc_bypass)| {
        PortOptions { kind: Some(PortType::Netdev), driver, qdisc_bypass, ..none() }
    });
    // One of two opposite words, or none.
    let one_of_two = || option::of((any::<bool>(), any::<bool>().prop_map(OnOff)));
    let first = |word: Option<(bool, OnOff)>| word.filter(|(first, _)| *first).map(|(_, on)| on);
    let second = |word: Option<(bool, OnOff)>| word.filter(|(first, _)| !*first).map(|(_, on)| on);
    let path = || Just(Some("/run/vm".to_owned()));
    let stream = (path(), one_of_two()).prop_map(move |(path, word)| PortOptions {
        kind: Some(PortType::Stream),
        path,
        listen: first(word),
        connect: second(word),
        ..none()
    });
    let dgram = (path(), any::<bool>()).prop_map(move |(path, goes)| PortOptions {
        kind: Some(PortType::Dgram),
        path,
        peer_path: goes.then(|| "/run/monitor".to_owned()),
        ..none()
    });
    let vhost_user = (path(), one_of_two()).prop_map(move |(path, word)| PortOptions {
        kind: Some(PortType::VhostUser),
        path,
        server: first(word),
        client: second(word),
        ..none()
    });
    prop_oneof![netdev, stream, dgram, vhost_user]
}

/// The keys of a port for a VM, with those of other ports that it has, too.
fn vm_options(vm: PortOptions, other: PortOptions) -> PortOptions {
    let kind = vm.kind_or_default();
    let queues = if kind.has_offload() { (other.queues, other.offload) } else { (None, None) };
    PortOptions {
        netns: if kind.has_interface() { other.netns } else { None },
        address: Vec::new(),
        mac: None,
        persist: None,
        queues: queues.0,
        offload: queues.1,
        kind: vm.kind,
        driver: vm.driver,
        qdisc_bypass: vm.qdisc_bypass,
        path: vm.path,
        listen: vm.listen,
        connect: vm.connect,
        peer_path: vm.peer_path,
        server: vm.server,
        client: vm.client,
        ..other
    }
}

/// The keys of a tunnel that other ports have not.
fn tunnel_keys() -> impl Strategy<Value = PortOptions> {
    let networks = prop_oneof![
        Just((Some(7), vec![])),
        Just((None, vec![(10, 1010), (20, 2020)])),
        Just((Some(7), vec![(20, 1010), (10, 2020)])),
    ];
    let inherit = || option::of(parsed(&["inherit", "1", "255"]));
    let outer = (
        option::of(parsed(&["1-65535", "5000-5015"])),
        inherit(),
        inherit(),
        option::of(select(&[Df::Set, Df::Unset, Df::Inherit][..])),
        on_off(),
        on_off(),
        on_off(),
        option::of(any::<u32>()),
    );
    let ends = (
        parsed(&["198.51.0.1", "198.51.1.1", "198.51.2.1"]),
        vec(parsed(&["203.0.113.1", "203.0.113.2", "203.0.113.3"]), 0..4),
        any::<bool>(),
        any::<bool>(),
    );
    let vxlan = (option::of(any::<u16>()), option::of(select(&[Reserved::Ignore, Reserved::Drop][..])));
    let geneve = vec(parsed(&["0102:80:00001111", "ffff:01:"]), 0..3);
    (networks, outer, ends, any::<bool>(), vxlan, geneve).prop_map(
        |((vni, vlans), outer, (local, remote, group, odd_port), is_vxlan, (gbp_id, reserved), option)| {
            let (src_port, ttl, tos, df, udp_csum, udp6_zero_csum_rx, remote_check, bum_limit) = outer;
            let common = PortOptions {
                vni: vni.and_then(Vni::new),
                vlan_vni: vlan_vni(vlans),
                local: Some(local),
                group: group.then(|| "239.1.1.1".parse().unwrap()),
                underlay_dev: group.then(|| "eth0".to_owned()),
                remote: if group { Vec::new() } else { remote },
                src_port,
                ttl,
                tos,
                df,
                udp_csum,
                udp6_zero_csum_rx,
                remote_check,
                bum_limit,
                ..PortOptions::default()
            };
            if is_vxlan {
                let (kind, dst_port) = (Some(PortType::Vxlan), odd_port.then_some(4790));
                let gbp = gbp_id.map(|_| OnOff(true));
                PortOptions { kind, dst_port, gbp, gbp_id, reserved, ..common }
            } else {
                let (kind, dst_port) = (Some(PortType::Geneve), odd_port.then_some(6081));
                PortOptions { kind, dst_port, option, ..common }
            }
        },
    )
}

fn vlan_vni(all: impl IntoIterator<Item = (u16, u32)>) -> VlanVni {
    let mut map = VlanVni::default();
    for (vlan, vni) in all {
        map.insert(Vid::new(vlan).unwrap(), Vni::new(vni).unwrap()).unwrap();
    }
    map
}

/// The same port with networks and a socket that no port of another number has.
fn numbered(mut options: PortOptions, number: u32) -> PortOptions {
    options.path = options.path.map(|path| format!("{path}{number}"));
    options.vni = options.vni.and_then(|vni| Vni::new(10 * vni.get() + number));
    let own = options.vlan_vni.iter().map(|(vlan, vni)| (vlan.get(), 10 * vni.get() + number));
    options.vlan_vni = vlan_vni(own);
    options
}

/// The options of a port whose interface has the port's name.
fn tap_options() -> impl Strategy<Value = PortOptions> {
    let policy = (on_off(), on_off(), on_off(), on_off(), on_off(), on_off(), on_off());
    let numbers = (
        option::of(any::<u32>()),
        option::of(any::<u32>()),
        option::of(1280..=MAX_TAP_MTU),
        option::of(1..=4u16),
    );
    let tap = (
        option::of(Just(PortType::Tap)),
        option::of(select(&[AdminState::Up, AdminState::Down][..])),
        option::of(parsed(&[
            "mac=02:00:00:00:00:09",
            "mac=02:00:00:00:00:09,ip=198.51.100.9,ip=2001:db8::9",
        ])),
        option::of(parsed(&["blue", "17", "/proc/17/ns/net"])),
        vec(parsed(&["198.51.100.1/24", "203.0.113.1/32", "2001:db8::1/64"]), 0..3),
        option::of(mac()),
        on_off(),
        on_off(),
    );
    (vlans(), policy, numbers, tap).prop_map(|(vlans, policy, numbers, tap)| {
        let (learning, flood, bcast_flood, mcast_flood, hairpin, isolated, locked) = policy;
        let (mac_limit, storm_limit, mtu, queues) = numbers;
        let (kind, admin, secure, netns, address, mac, persist, offload) = tap;
        PortOptions {
            kind,
            learning,
            flood,
            bcast_flood,
            mcast_flood,
            hairpin,
            isolated,
            locked,
            mac_limit,
            storm_limit,
            mtu,
            admin,
            secure,
            netns,
            address,
            mac,
            queues,
            persist,
            offload,
            ..vlans
        }
    })
}

fn bridges() -> impl Strategy<Value = Vec<BridgeSpec>> {
    let options = (
        option::of((0..=1_000_000u32).prop_map(Seconds)),
        option::of(1..=spec::MAX_FDB_LIMIT),
        option::of(0..10u32),
        on_off(),
    );
    let options = options.prop_map(|(ageing, fdb_limit, move_limit, neigh_snoop)| BridgeOptions {
        ageing,
        fdb_limit,
        move_limit,
        neigh_snoop,
    });
    proptest::collection::btree_map(0..3u8, options, 0..3).prop_map(|all| {
        all.into_iter()
            .map(|(n, options)| BridgeSpec { name: format!("br{n}").parse().unwrap(), options })
            .collect()
    })
}

fn ports(bridges: Vec<BridgeSpec>) -> BoxedStrategy<(Vec<BridgeSpec>, Vec<PortSpec>)> {
    if bridges.is_empty() {
        return Just((bridges, Vec::new())).boxed();
    }
    let port = (0..bridges.len(), port_options());
    let ports = proptest::collection::hash_map(0..5u8, port, 0..5);
    (ports, 0..5u32)
        .prop_map(move |(all, first)| {
            let port = |(n, (bridge, options)): (u8, (usize, PortOptions))| PortSpec {
                name: format!("vm{n}").parse().unwrap(),
                bridge: bridges[bridge].name.clone(),
                options: numbered(options, (first + u32::from(n)) % 5),
            };
            let ports = all.into_iter().map(port).collect();
            (bridges.clone(), ports)
        })
        .boxed()
}

/// Uplinks, each with the address of its number.
fn uplinks() -> impl Strategy<Value = Vec<UplinkSpec>> {
    let options = (
        option::of(Just(254u8)),
        option::of(parsed(&["blue", "17"])),
        option::of(mac()),
        option::of(68..=MAX_TAP_MTU),
        option::of(1..=4u16),
        on_off(),
    );
    proptest::collection::btree_map(0..3u8, options, 0..3).prop_map(|all| {
        let uplink = |(n, (gateway, netns, mac, mtu, queues, offload)): (u8, (Option<u8>, _, _, _, _, _))| {
            let gateway = gateway.map(|last| format!("198.51.{n}.{last}").parse().unwrap());
            let options = UplinkOptions { gateway, ifname: None, netns, mac, mtu, queues, offload };
            let address = format!("198.51.{n}.1/24").parse().unwrap();
            UplinkSpec { name: format!("up{n}").parse().unwrap(), address, options }
        };
        all.into_iter().map(uplink).collect()
    })
}

/// Devices, each on what comes before it, on a port's interface or on the host's.
fn devices(ports: &[PortSpec]) -> BoxedStrategy<Vec<DeviceSpec>> {
    let is_near = |p: &&PortSpec| p.options.kind_or_default().is_tap() && p.options.netns.is_none();
    let taps: Vec<String> = ports.iter().filter(is_near).map(|p| p.name.to_string()).collect();
    let common = (
        option::of(1280..=9000u32),
        option::of(mac()),
        vec(parsed(&["198.51.100.1/24", "203.0.113.1/32", "2001:db8::1/64"]), 0..3),
        option::of(any::<bool>()),
        option::of(parsed(&["203.0.113.0/25", "203.0.113.128/25 via 198.51.100.9 metric 7"])),
        option::of(parsed(&["ipv4.forwarding=1", "ipv6.accept_ra=0"])),
    );
    let own = (0..9u8, 0..4usize, 0..4u32, on_off(), on_off());
    let device = (common, own, any::<prop::sample::Index>(), any::<bool>());
    proptest::collection::btree_map(0..5u8, device, 0..5)
        .prop_map(move |all| {
            let mut made: Vec<DeviceSpec> = Vec::new();
            for (n, ((mtu, mac, address, up, route, sysctl), own, on, master)) in all {
                let (kind, mode, id, one, other) = own;
                let mut below: Vec<String> = vec!["eth0".to_owned()];
                below.extend(taps.iter().cloned());
                below.extend(made.iter().map(|d| d.name.to_string()));
                let parent = || Some(below[on.index(below.len())].clone());
                let bridge = made.iter().find(|d| d.kind == DeviceType::Bridge).map(|d| d.name.to_string());
                let up = up.map_or_else(device::UpDown::default, device::UpDown::of);
                let route = route.filter(|_| up.is_up()).into_iter().collect();
                let common = DeviceOptions {
                    mtu,
                    mac,
                    address,
                    up,
                    route,
                    sysctl: sysctl.into_iter().collect(),
                    master: bridge.filter(|_| master),
                    ..DeviceOptions::default()
                };
                let mode = |modes: [&str; 4]| modes[mode].parse().ok();
                let (kind, options) = match kind {
                    0 => {
                        let name = Some(format!("p{n}{id}").parse().unwrap());
                        let netns = one.map(|_| "blue".parse().unwrap());
                        let peer = device::Peer { name, netns, ..device::Peer::default() };
                        (DeviceType::Veth, DeviceOptions { peer, ..common })
                    }
                    1 => (DeviceType::Bridge, DeviceOptions { stp: one, vlan_filtering: other, ..common }),
                    2 => {
                        let mode = mode(["", "bridge", "private", "passthru"]);
                        (DeviceType::Macvlan, DeviceOptions { parent: parent(), mode, ..common })
                    }
                    3 => {
                        let mode = mode(["", "l2", "l3", "l3s"]);
                        let flag = one.map(|_| device::IpvlanFlag::Private);
                        (DeviceType::Ipvlan, DeviceOptions { parent: parent(), mode, flag, ..common })
                    }
                    4 => (DeviceType::Vlan, DeviceOptions { parent: parent(), id: Some(id + 1), ..common }),
                    5 => {
                        let dev = one.and_then(|_| parent());
                        let entry = "02:00:00:00:00:07 dst 203.0.113.7 port 4790".parse().unwrap();
                        let (id, fdb) = (Some(id), other.map(|_| entry).into_iter().collect());
                        (
                            DeviceType::Vxlan,
                            DeviceOptions { id, dev, learning: one, udpcsum: other, fdb, ..common },
                        )
                    }
                    6 => {
                        let remote = parsed_ip(
                            ["203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8::2"][id as usize],
                        );
                        (DeviceType::Geneve, DeviceOptions { id: Some(7), remote, udpcsum: other, ..common })
                    }
                    7 => (DeviceType::Tap, DeviceOptions { owner: Some(id), vnet_hdr: other, ..common }),
                    _ => (DeviceType::Dummy, common),
                };
                made.push(DeviceSpec { name: format!("d{n}").parse().unwrap(), kind, options });
            }
            made
        })
        .boxed()
}

fn parsed_ip(text: &str) -> Option<std::net::IpAddr> {
    text.parse().ok()
}

/// Neighbours of these bridges.
fn neighbours(bridges: &[BridgeSpec]) -> BoxedStrategy<Vec<NeighSpec>> {
    if bridges.is_empty() {
        return Just(Vec::new()).boxed();
    }
    let bridges: Vec<BridgeName> = bridges.iter().map(|b| b.name.clone()).collect();
    let ip = parsed(&["198.51.100.1", "198.51.100.2", "2001:db8::1"]);
    let key = (select(bridges), select(&[0u16, 10][..]), ip);
    let all = proptest::collection::hash_map(key, mac(), 0..4);
    let neigh = |((bridge, vlan, ip), mac)| NeighSpec { ip, mac, bridge, vlan };
    all.prop_map(move |all| all.into_iter().map(neigh).collect()).boxed()
}

/// Any topology of a few bridges, uplinks, ports, entries and neighbours; those of two calls share names.
pub(super) fn topology() -> impl Strategy<Value = Topology> {
    let with_fdb = |(bridge, port): (Vec<BridgeSpec>, Vec<PortSpec>)| {
        if port.is_empty() {
            return Just(Topology { bridge, port, ..Topology::default() }).boxed();
        }
        let remote = option::of(parsed(&["203.0.113.1", "203.0.113.2"]));
        let entry = (mac(), select(&[0u16, 10, 4094][..]), 0..port.len(), remote, any::<bool>());
        vec(entry, 0..5)
            .prop_map(move |all| {
                let mut fdb: Vec<FdbSpec> = Vec::new();
                for (mac, vlan, owner, remote, sticky) in all {
                    let owner = &port[owner];
                    let remote = remote.filter(|_| owner.options.kind_or_default().is_tunnel());
                    let (bridge, port) = (owner.bridge.clone(), owner.name.clone());
                    let entry = FdbSpec { mac, bridge, vlan, port, remote, sticky };
                    if fdb.iter().all(|other| other.key() != entry.key()) {
                        fdb.push(entry);
                    }
                }
                Topology { bridge: bridge.clone(), port: port.clone(), fdb, ..Topology::default() }
            })
            .boxed()
    };
    let with_neighbours = |topology: Topology| {
        let neighbours = neighbours(&topology.bridge);
        (Just(topology), neighbours).prop_map(|(topology, neigh)| Topology { neigh, ..topology })
    };
    let all = bridges().prop_flat_map(ports).prop_flat_map(with_fdb).prop_flat_map(with_neighbours);
    let with_devices = |topology: Topology| {
        let devices = devices(&topology.port);
        (Just(topology), devices).prop_map(|(topology, device)| Topology { device, ..topology })
    };
    (all, uplinks())
        .prop_map(|(topology, uplink)| Topology { uplink, ..topology })
        .prop_flat_map(with_devices)
}
