use std::time::Duration;

use netlink_packet_core::{Emitable as _, Nla as _, Parseable as _};
use netlink_packet_route::link::{InfoData, InfoMacVlan, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};

use super::{
    Bridge, Device, Difference, FdbEntry, Geneve, Ipvlan, IpvlanFlag, IpvlanMode, Kind, Macvlan, MacvlanMode,
    Mark, Observed, Peer, Route, SysctlName, Tos, Ttl, Tun, UNFINISHED_GROUP, Vlan, VlanProtocol, Vxlan,
    differences, observe,
    request::{self, Resolved},
};
use crate::{netlink::OperState, wire::MacAddr};

const PARENT: Resolved = Resolved { parent: Some(7), netns: None, peer_netns: None };

fn mac(last: u8) -> MacAddr {
    MacAddr::from_octets([2, 0, 0, 0, 0, last])
}

/// The request for a device as the kernel sees it: through bytes and back.
fn request(device: &Device, resolved: Resolved) -> LinkMessage {
    through_bytes(&request::new_link(device, resolved))
}

fn through_bytes(message: &LinkMessage) -> LinkMessage {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    LinkMessage::parse(&bytes[..]).unwrap()
}

fn info(message: &LinkMessage) -> (String, Option<InfoData>) {
    let infos = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let (mut kind, mut data) = (String::new(), None);
    for info in infos.unwrap() {
        match info {
            LinkInfo::Kind(found) => kind = found.to_string(),
            LinkInfo::Data(found) => data = Some(found.clone()),
            _ => {}
        }
    }
    (kind, data)
}

/// The numbers of the options of a request for a kind.
fn numbers(message: &LinkMessage) -> Vec<u16> {
    let mut numbers: Vec<u16> = match info(message).1 {
        Some(InfoData::Vxlan(data)) => data.iter().map(|one| one.kind()).collect(),
        Some(InfoData::Geneve(data)) => data.iter().map(|one| one.kind()).collect(),
        other => panic!("{other:?}"),
    };
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_is_asked_for_is_what_would_be_read() {
    let options = Bridge {
        ageing: Some(Duration::from_millis(12_340)),
        stp: Some(true),
        vlan_filtering: Some(true),
        mcast_snooping: Some(false),
    };
    let (kind, data) = info(&request(&Device::new("x", Kind::Bridge(options)), Resolved::default()));
    let Some(InfoData::Bridge(data)) = data else { panic!("{data:?}") };
    assert_eq!((kind.as_str(), observe::bridge(&data)), ("bridge", options));

    for mode in [
        MacvlanMode::Bridge,
        MacvlanMode::Vepa,
        MacvlanMode::Private,
        MacvlanMode::Passthru,
        MacvlanMode::Source,
    ] {
        let options = Macvlan { parent: "p".into(), mode: Some(mode) };
        let (kind, data) = info(&request(&Device::new("x", Kind::Macvlan(options.clone())), PARENT));
        let Some(InfoData::MacVlan(data)) = data else { panic!("{data:?}") };
        let [InfoMacVlan::Mode(read)] = data[..] else { panic!("{data:?}") };
        assert_eq!((kind.as_str(), observe::macvlan_mode(read)), ("macvlan", Some(mode)));
        let (kind, _) = info(&request(&Device::new("x", Kind::Macvtap(options)), PARENT));
        assert_eq!(kind, "macvtap");
    }

    for mode in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s] {
        for flag in [IpvlanFlag::Bridge, IpvlanFlag::Private, IpvlanFlag::Vepa] {
            let options = Ipvlan { parent: "p".into(), mode: Some(mode), flag: Some(flag) };
            let (_, data) = info(&request(&Device::new("x", Kind::Ipvlan(options.clone())), PARENT));
            let Some(InfoData::IpVlan(data)) = data else { panic!("{data:?}") };
            assert_eq!(observe::ipvlan(&data, "p".into()), options);
        }
    }

    for protocol in [VlanProtocol::Dot1q, VlanProtocol::Dot1ad] {
        let options = Vlan { parent: "p".into(), id: 4094, protocol: Some(protocol) };
        let (_, data) = info(&request(&Device::new("x", Kind::Vlan(options.clone())), PARENT));
        let Some(InfoData::Vlan(data)) = data else { panic!("{data:?}") };
        assert_eq!(observe::vlan(&data, "p".into()), options);
    }

    for remote in ["198.51.100.1", "2001:db8::1"] {
        for (ttl, tos) in [(Ttl::Inherit, Tos::Inherit), (Ttl::Fixed(3), Tos::Fixed(8))] {
            let options = Geneve {
                id: 0x00ff_fffe,
                remote: Some(remote.parse().unwrap()),
                dstport: 6082,
                ttl: Some(ttl),
                tos: Some(tos),
                udpcsum: Some(true),
            };
            let (_, data) =
                info(&request(&Device::new("x", Kind::Geneve(options.clone())), Resolved::default()));
            let Some(InfoData::Geneve(data)) = data else { panic!("{data:?}") };
            assert_eq!(observe::geneve(&data), options);
        }
    }
}

#[test]
fn a_new_device_is_in_the_group_of_the_unfinished_and_so_is_its_peer() {
    let peer = Peer { name: "y".into(), mac: Some(mac(2)), ..Peer::default() };
    let device = Device { mac: Some(mac(1)), mtu: Some(1400), ..Device::new("x", Kind::Veth(peer)) };
    let resolved = Resolved { parent: None, netns: None, peer_netns: Some(5) };
    let message = request(&device, resolved);
    let Some(InfoData::Veth(InfoVeth::Peer(peer))) = info(&message).1 else { panic!("{message:?}") };
    for (message, name, last) in [(&message, "x", 1), (&peer, "y", 2)] {
        for attribute in [
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Address(mac(last).octets().to_vec()),
            LinkAttribute::Mtu(1400),
            LinkAttribute::Group(UNFINISHED_GROUP),
        ] {
            assert!(message.attributes.contains(&attribute), "no {attribute:?} in {message:?}");
        }
    }
    assert!(peer.attributes.contains(&LinkAttribute::NetNsFd(5)));
    assert!(!message.attributes.contains(&LinkAttribute::NetNsFd(5)));
}

#[test]
fn the_parent_is_an_attribute_of_the_link_but_of_a_vxlan_an_option() {
    let with_parent =
        |kind| request(&Device::new("x", kind), PARENT).attributes.contains(&LinkAttribute::Link(7));
    assert!(with_parent(Kind::Macvlan(Macvlan::default())));
    assert!(with_parent(Kind::Macvtap(Macvlan::default())));
    assert!(with_parent(Kind::Ipvlan(Ipvlan::default())));
    assert!(with_parent(Kind::Vlan(Vlan::default())));
    let vxlan = Kind::Vxlan(Vxlan { dev: Some("p".into()), ..Vxlan::default() });
    assert!(!with_parent(vxlan.clone()));
    assert!(numbers(&request(&Device::new("x", vxlan), PARENT)).contains(&3)); // IFLA_VXLAN_LINK
}

#[test]
fn a_change_does_not_speak_of_what_cannot_be_changed() {
    let kind = Kind::Vxlan(Vxlan {
        id: 1,
        local: Some([198, 51, 100, 1].into()),
        remote: Some([198, 51, 100, 2].into()),
        udpcsum: Some(true),
        learning: Some(true),
        ttl: Some(Ttl::Inherit),
        tos: Some(Tos::Inherit),
        ..Vxlan::default()
    });
    // IFLA_VXLAN_ID, _GROUP, _LOCAL, _TOS, _LEARNING, _PORT, _UDP_CSUM, _TTL_INHERIT
    assert_eq!(
        numbers(&request(&Device::new("x", kind.clone()), Resolved::default())),
        [1, 2, 4, 6, 7, 15, 18, 28]
    );
    assert_eq!(numbers(&through_bytes(&request::change_link(1, &kind, None))), [2, 4, 6, 7]);

    let kind = Kind::Geneve(Geneve {
        id: 1,
        remote: Some([198, 51, 100, 2].into()),
        ttl: Some(Ttl::Fixed(1)),
        tos: Some(Tos::Inherit),
        udpcsum: Some(true),
        ..Geneve::default()
    });
    // IFLA_GENEVE_ID, _REMOTE, _TTL, _TOS, _PORT, _UDP_CSUM
    assert_eq!(numbers(&request(&Device::new("x", kind.clone()), Resolved::default())), [1, 2, 3, 4, 5, 8]);
    assert_eq!(numbers(&through_bytes(&request::change_link(1, &kind, None))), [2, 3, 4]);

    let kind = Kind::Vlan(Vlan { id: 1, ..Vlan::default() });
    assert_eq!(info(&through_bytes(&request::change_link(1, &kind, None))), ("vlan".into(), None));
}

#[test]
fn a_kernel_without_vlan_filtering_is_not_asked_to_leave_it_off() {
    let kind = Kind::Bridge(Bridge { vlan_filtering: Some(false), ..Bridge::default() });
    assert_eq!(info(&request(&Device::new("x", kind), Resolved::default())).1, None);
}

/// As the kernel would have it: all is said.
fn observed(kind: Kind) -> Observed {
    Observed {
        index: 1,
        name: "x".into(),
        mark: Mark::Ours,
        kind_name: kind.name().into(),
        kind: Some(kind),
        mac: Some(mac(1)),
        mtu: 1500,
        mtu_range: None,
        addresses: Vec::new(),
        up: false,
        operstate: OperState::Down,
        master: None,
        routes: Vec::new(),
        sysctls: Vec::new(),
        link_index: None,
        link_netnsid: None,
        link_elsewhere: false,
    }
}

#[test]
fn what_is_not_said_may_be_anything_and_what_is_said_has_to_be_so() {
    let bridge = Bridge { ageing: Some(Duration::from_secs(300)), stp: Some(true), ..Bridge::default() };
    let is = observed(Kind::Bridge(bridge));
    let wanted = Device::new("x", Kind::Bridge(Bridge::default()));
    assert_eq!(differences(&is, &wanted), []);

    let net = "198.51.100.1/24".parse().unwrap();
    let sysctl: SysctlName = "ipv6.accept_ra".parse().unwrap();
    let wanted = Device {
        mac: Some(mac(2)),
        mtu: Some(1400),
        addresses: vec![net],
        up: true,
        master: Some("br0".into()),
        routes: vec![Route {
            to: "0.0.0.0/0".parse().unwrap(),
            via: Some([198, 51, 100, 9].into()),
            src: None,
            metric: Some(0),
        }],
        sysctls: vec![(sysctl, "0".into())],
        kind: Kind::Bridge(Bridge { ageing: Some(Duration::from_secs(15)), ..bridge }),
        ..wanted
    };
    let found: Vec<_> =
        differences(&is, &wanted).into_iter().map(|d| (d.option, d.is, d.wanted, d.in_place)).collect();
    let words = |option, is: &str, wanted: &str| (option, is.to_owned(), wanted.to_owned(), true);
    assert_eq!(
        found,
        [
            words("ageing", "300s", "15s"),
            words("mac", "02:00:00:00:00:01", "02:00:00:00:00:02"),
            words("mtu", "1500", "1400"),
            words("master", "", "br0"),
            words("admin", "down", "up"),
            words("address", "", "198.51.100.1/24"),
            words("route", "", "0.0.0.0/0 via 198.51.100.9"),
            words("sysctl", "ipv6.accept_ra=", "ipv6.accept_ra=0"),
        ]
    );
}

#[test]
fn what_was_there_and_is_not_wanted_is_a_difference_but_for_what_the_kernel_made_up() {
    let mut is = observed(Kind::Dummy);
    is.addresses = vec!["fe80::1/64".parse().unwrap(), "2001:db8::1/64".parse().unwrap()];
    is.master = Some("br0".into());
    let found = differences(&is, &Device::new("x", Kind::Dummy));
    let expected = [("master", "br0"), ("address", "2001:db8::1/64")].map(|(option, is)| Difference {
        option,
        is: is.into(),
        wanted: String::new(),
        in_place: true,
    });
    assert_eq!(found, expected);
}

#[test]
fn each_option_is_changed_in_place_or_needs_a_replacement() {
    let vxlan = Vxlan {
        id: 1,
        remote: Some([198, 51, 100, 1].into()),
        ttl: Some(Ttl::Fixed(1)),
        udpcsum: Some(true),
        ..Vxlan::default()
    };
    let geneve = Geneve {
        id: 1,
        remote: Some([198, 51, 100, 1].into()),
        ttl: Some(Ttl::Fixed(1)),
        ..Geneve::default()
    };
    let macvlan = |mode| Kind::Macvlan(Macvlan { parent: "p".into(), mode: Some(mode) });
    let tap = Tun { multi_queue: Some(false), vnet_hdr: Some(false), ..Tun::default() };
    let six = Some("2001:db8::1".parse().unwrap());
    let entry = FdbEntry { mac: mac(1), dst: [198, 51, 100, 1].into(), vni: None, port: None };
    for (is, wanted, option, in_place) in [
        (Kind::Vxlan(vxlan.clone()), Kind::Vxlan(Vxlan { id: 2, ..vxlan.clone() }), "id", false),
        (Kind::Vxlan(vxlan.clone()), Kind::Vxlan(Vxlan { dstport: 1, ..vxlan.clone() }), "dstport", false),
        (
            Kind::Vxlan(vxlan.clone()),
            Kind::Vxlan(Vxlan { ttl: Some(Ttl::Fixed(2)), ..vxlan.clone() }),
            "ttl",
            true,
        ),
        (
            Kind::Vxlan(vxlan.clone()),
            Kind::Vxlan(Vxlan { ttl: Some(Ttl::Inherit), ..vxlan.clone() }),
            "ttl",
            false,
        ),
        (Kind::Vxlan(vxlan.clone()), Kind::Vxlan(Vxlan { remote: six, ..vxlan.clone() }), "remote", false),
        (
            Kind::Vxlan(vxlan.clone()),
            Kind::Vxlan(Vxlan { remote: Some([198, 51, 100, 2].into()), ..vxlan.clone() }),
            "remote",
            true,
        ),
        (
            Kind::Vxlan(vxlan.clone()),
            Kind::Vxlan(Vxlan { udpcsum: Some(false), ..vxlan.clone() }),
            "udpcsum",
            false,
        ),
        (Kind::Vxlan(vxlan.clone()), Kind::Vxlan(Vxlan { fdb: vec![entry], ..vxlan }), "fdb", true),
        (Kind::Geneve(geneve.clone()), Kind::Geneve(Geneve { id: 2, ..geneve.clone() }), "id", false),
        (
            Kind::Geneve(geneve.clone()),
            Kind::Geneve(Geneve { ttl: Some(Ttl::Inherit), ..geneve.clone() }),
            "ttl",
            true,
        ),
        (Kind::Geneve(geneve.clone()), Kind::Geneve(Geneve { remote: six, ..geneve }), "remote", false),
        (macvlan(MacvlanMode::Bridge), macvlan(MacvlanMode::Vepa), "mode", true),
        (macvlan(MacvlanMode::Bridge), macvlan(MacvlanMode::Passthru), "mode", false),
        (macvlan(MacvlanMode::Passthru), macvlan(MacvlanMode::Bridge), "mode", false),
        (Kind::Tap(tap), Kind::Tap(Tun { multi_queue: Some(true), ..tap }), "multi-queue", false),
        (Kind::Tap(tap), Kind::Tap(Tun { vnet_hdr: Some(true), ..tap }), "vnet-hdr", true),
        (Kind::Tap(tap), Kind::Tun(tap), "type", false),
        (Kind::Dummy, Kind::Bridge(Bridge::default()), "type", false),
    ] {
        let found = differences(&observed(is.clone()), &Device::new("x", wanted.clone()));
        let [difference] = &found[..] else { panic!("{is:?} to {wanted:?}: {found:?}") };
        assert_eq!((difference.option, difference.in_place), (option, in_place), "{is:?} to {wanted:?}");
    }
}

#[test]
fn a_device_that_was_made_half_is_to_be_replaced() {
    let is = Observed { mark: Mark::Unfinished, ..observed(Kind::Dummy) };
    let found = differences(&is, &Device::new("x", Kind::Dummy));
    assert_eq!(found.iter().map(|d| (d.option, d.in_place)).collect::<Vec<_>>(), [("unfinished", false)]);
}

#[test]
fn the_name_of_a_sysctl_cannot_lead_out_of_its_directory() {
    for name in ["ipv4.forwarding", "ipv6.accept_ra", "ipv4.rp_filter"] {
        assert_eq!(name.parse::<SysctlName>().unwrap().to_string(), name);
    }
    for name in
        ["", "ipv4", "ipv4.", "ipv5.x", "ipv4.../../x", "ipv4.a/b", "ipv4.a.b", "ipv4.A", "net.ipv4.x"]
    {
        assert!(name.parse::<SysctlName>().is_err(), "{name}");
    }
}
