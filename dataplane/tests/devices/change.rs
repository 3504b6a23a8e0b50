//! Changes: in place where the kernel can, named where it cannot, put back where one fails.

use std::time::Duration;

use tapway_dataplane::netlink::device::{
    Bridge, ChangeError, Device, DeviceError, FdbEntry, Geneve, Ipvlan, IpvlanFlag, IpvlanMode, Kind,
    Macvlan, MacvlanMode, Observed, Peer, Route, Tos, Ttl, Tun, Vlan, Vxlan, Whose, change, delete,
    differences,
};

use crate::topo::{Container, in_netns, ip, look, mac, made, make, parent, up};

/// Changes `old` to `new` and looks at it: the same device, all as wanted, and nothing to do a second time.
#[track_caller]
fn becomes(old: &Device, new: &Device, options: &[&str]) -> Observed {
    let before = look(new);
    let changed = change(&before, new).unwrap_or_else(|e| panic!("{} {}: {e}", old.name, old.kind.name()));
    let changed: Vec<&str> = changed.iter().map(|one| one.option).collect();
    assert_eq!(changed, options);
    let after = look(new);
    assert_eq!(differences(&after, new), [], "{after:#?}");
    assert_eq!(after.index, before.index, "it was replaced");
    assert_eq!(change(&after, new).unwrap(), []);
    after
}

/// Makes `old`, changes it to `new` in place and back again.
#[track_caller]
fn there_and_back(old: &Device, new: &Device, options: &[&str]) {
    if !made(old) {
        return;
    }
    becomes(old, new, options);
    becomes(new, old, options);
    ip(&format!("link del {}", old.name));
}

/// Makes `old`, and looks that becoming `new` needs a replacement because of `options`, and touches nothing.
#[track_caller]
fn needs_replace(old: &Device, new: &Device, options: &[&str]) {
    if !made(old) {
        return;
    }
    let before = look(new);
    match change(&before, new) {
        Err(ChangeError::NeedsReplace { which }) => assert_eq!(which, options),
        other => panic!("{other:?}"),
    }
    assert_eq!(look(new), before);
    ip(&format!("link del {}", old.name));
}

fn with_kind(device: &Device, kind: Kind) -> Device {
    Device { kind, ..device.clone() }
}

#[test]
fn what_every_device_has_is_changed_in_place() {
    in_netns(|| {
        make(&up("br0", Kind::Bridge(Bridge::default())));
        let c1 = Container::new();
        let peer = Peer {
            name: "eth0".into(),
            netns: Some(c1.netns()),
            mac: Some(mac(2)),
            addresses: vec!["198.51.100.2/24".parse().unwrap()],
        };
        let old = Device {
            mac: Some(mac(1)),
            mtu: Some(1500),
            addresses: vec!["198.51.100.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
            routes: vec![Route { to: "203.0.113.0/24".parse().unwrap(), via: None, src: None, metric: None }],
            sysctls: vec![("ipv4.forwarding".parse().unwrap(), "0".into())],
            ..up("veth0", Kind::Veth(peer.clone()))
        };
        make(&old);
        let new = Device {
            mac: Some(mac(3)),
            mtu: Some(1300),
            addresses: vec!["198.51.100.3/24".parse().unwrap(), "2001:db8::3/64".parse().unwrap()],
            routes: vec![Route {
                to: "203.0.113.0/24".parse().unwrap(),
                via: Some([198, 51, 100, 2].into()),
                src: Some([198, 51, 100, 3].into()),
                metric: Some(5),
            }],
            sysctls: vec![("ipv4.forwarding".parse().unwrap(), "1".into())],
            master: Some("br0".into()),
            ..with_kind(
                &old,
                Kind::Veth(Peer {
                    name: "eth1".into(),
                    mac: Some(mac(4)),
                    addresses: vec!["198.51.100.2/24".parse().unwrap(), "2001:db8::2/64".parse().unwrap()],
                    ..peer
                }),
            )
        };
        let options =
            ["peer", "peer-mac", "peer-address", "mac", "mtu", "master", "address", "route", "sysctl"];
        becomes(&old, &new, &options);
        assert!(c1.ip("link show eth1").contains("mtu 1300"));
        becomes(&new, &old, &options);
        // A device that goes down keeps the addresses it is to have, also those of IPv6, which the kernel takes away.
        let down = Device { up: false, ..old.clone() };
        becomes(&old, &down, &["admin"]);
        becomes(&down, &old, &["admin", "route"]);
    });
}

#[test]
fn the_options_of_a_bridge_are_changed_in_place() {
    in_netns(|| {
        let old = Bridge {
            ageing: Some(Duration::from_secs(300)),
            stp: Some(false),
            mcast_snooping: Some(true),
            ..Bridge::default()
        };
        let new = Bridge {
            ageing: Some(Duration::from_millis(1500)),
            stp: Some(true),
            mcast_snooping: Some(false),
            ..old
        };
        let [old, new] = [old, new].map(|options| up("br0", Kind::Bridge(options)));
        there_and_back(&old, &new, &["ageing", "stp", "mcast-snooping"]);
    });
}

#[test]
fn the_mode_of_a_macvlan_is_changed_in_place_unless_it_is_passthru() {
    in_netns(|| {
        parent();
        let with = |mode| Macvlan { parent: "p0".into(), mode: Some(mode) };
        for kind in [Kind::Macvlan as fn(Macvlan) -> Kind, Kind::Macvtap] {
            let [bridge, private, passthru] =
                [MacvlanMode::Bridge, MacvlanMode::Private, MacvlanMode::Passthru]
                    .map(|mode| up("mv0", kind(with(mode))));
            there_and_back(&bridge, &private, &["mode"]);
            needs_replace(&bridge, &passthru, &["mode"]);
            needs_replace(&passthru, &bridge, &["mode"]);
            let other = Macvlan { parent: "p1".into(), mode: None };
            needs_replace(&bridge, &up("mv0", kind(other)), &["parent"]);
        }
    });
}

#[test]
fn a_vxlan_is_changed_in_place_as_far_as_the_kernel_can() {
    in_netns(|| {
        parent();
        let entry = |last, dst| FdbEntry { mac: mac(last), dst, vni: None, port: None };
        let base = Vxlan {
            id: 42,
            local: Some([198, 51, 100, 1].into()),
            remote: Some([198, 51, 100, 2].into()),
            learning: Some(true),
            ttl: Some(Ttl::Fixed(3)),
            tos: Some(Tos::Fixed(0)),
            fdb: vec![entry(1, [198, 51, 100, 3].into()), entry(2, [198, 51, 100, 3].into())],
            ..Vxlan::default()
        };
        let old = up("vx0", Kind::Vxlan(base.clone()));
        let with = |vxlan: Vxlan| up("vx0", Kind::Vxlan(vxlan));
        let new = Vxlan {
            local: Some([198, 51, 100, 9].into()),
            remote: Some([198, 51, 100, 8].into()),
            learning: Some(false),
            ttl: Some(Ttl::Fixed(4)),
            tos: Some(Tos::Inherit),
            fdb: vec![entry(2, [198, 51, 100, 4].into()), entry(3, [198, 51, 100, 3].into())],
            ..base.clone()
        };
        there_and_back(&old, &with(new), &["local", "remote", "learning", "ttl", "tos", "fdb"]);
        for (new, option) in [
            (Vxlan { id: 43, ..base.clone() }, "id"),
            (Vxlan { dstport: 4790, ..base.clone() }, "dstport"),
            (Vxlan { udpcsum: Some(false), ..base.clone() }, "udpcsum"),
            (Vxlan { ttl: Some(Ttl::Inherit), ..base.clone() }, "ttl"),
            (Vxlan { remote: Some("2001:db8::1".parse().unwrap()), ..base.clone() }, "remote"),
            (Vxlan { external: true, id: 42, ..base.clone() }, "external"),
        ] {
            needs_replace(&old, &with(new), &[option]);
        }
        let group = |last| Vxlan {
            group: Some([239, 1, 1, last].into()),
            dev: Some("p0".into()),
            remote: None,
            fdb: Vec::new(),
            ..base.clone()
        };
        make(&with(group(1)));
        becomes(&with(group(1)), &with(group(2)), &["group"]);
        assert!(ip("maddr show dev p0").contains("239.1.1.2"), "the new group is not joined");
    });
}

#[test]
fn owner_group_and_header_of_a_tap_are_changed_in_place() {
    in_netns(|| {
        let of = |owner, vnet_hdr| {
            let options = Tun {
                owner: Some(owner),
                group: Some(owner),
                vnet_hdr: Some(vnet_hdr),
                multi_queue: Some(true),
                persistent: Some(true),
            };
            up("tap0", Kind::Tap(options))
        };
        there_and_back(&of(1000, false), &of(1001, true), &["owner", "group", "vnet-hdr"]);
        let single = up("tap0", Kind::Tap(Tun { multi_queue: Some(false), ..Tun::default() }));
        needs_replace(&of(1, false), &single, &["multi-queue"]);
        needs_replace(&single, &up("tap0", Kind::Tun(Tun::default())), &["type"]);
    });
}

#[test]
fn a_vlan_of_another_number_is_another_vlan_in_the_guest() {
    in_netns(|| {
        parent();
        let of = |id, parent: &str| up("v0", Kind::Vlan(Vlan { parent: parent.into(), id, protocol: None }));
        needs_replace(&of(1, "p0"), &of(2, "p0"), &["id"]);
        needs_replace(&of(1, "p0"), &of(1, "p1"), &["parent"]);
    });
}

#[test]
fn mode_and_flag_of_an_ipvlan_are_changed_in_place_in_the_guest() {
    in_netns(|| {
        parent();
        let of =
            |mode, flag| Kind::Ipvlan(Ipvlan { parent: "p0".into(), mode: Some(mode), flag: Some(flag) });
        let old = up("iv0", of(IpvlanMode::L2, IpvlanFlag::Bridge));
        there_and_back(&old, &up("iv0", of(IpvlanMode::L3, IpvlanFlag::Private)), &["mode", "flag"]);
    });
}

#[test]
fn a_geneve_is_changed_in_place_as_far_as_the_kernel_can_in_the_guest() {
    in_netns(|| {
        let base = Geneve {
            id: 1,
            remote: Some([198, 51, 100, 2].into()),
            ttl: Some(Ttl::Fixed(3)),
            ..Geneve::default()
        };
        let with = |geneve: Geneve| up("gn0", Kind::Geneve(geneve));
        let old = with(base.clone());
        let new = Geneve { remote: Some([198, 51, 100, 3].into()), ttl: Some(Ttl::Inherit), ..base.clone() };
        there_and_back(&old, &with(new), &["remote", "ttl"]);
        needs_replace(&old, &with(Geneve { id: 2, ..base.clone() }), &["id"]);
        needs_replace(&old, &with(Geneve { dstport: 6082, ..base }), &["dstport"]);
    });
}

#[test]
fn a_parent_or_a_peer_in_another_namespace_needs_a_replacement() {
    in_netns(|| {
        let c1 = Container::new();
        let veth = |netns| up("a0", Kind::Veth(Peer { name: "b0".into(), netns, ..Peer::default() }));
        needs_replace(&veth(None), &veth(Some(c1.netns())), &["peer-netns"]);
        needs_replace(&veth(Some(c1.netns())), &veth(None), &["peer-netns"]);
    });
}

#[test]
fn a_change_that_fails_half_way_is_put_back() {
    in_netns(|| {
        ip("link add other type veth peer name other2");
        ip("address add 198.51.100.9/24 dev other");
        let old = Device {
            mac: Some(mac(1)),
            mtu: Some(1500),
            addresses: vec!["203.0.113.1/24".parse().unwrap()],
            ..up("br0", Kind::Bridge(Bridge { ageing: Some(Duration::from_secs(300)), ..Bridge::default() }))
        };
        make(&old);
        let before = look(&old);
        let new = Device {
            mac: Some(mac(2)),
            mtu: Some(1400),
            addresses: vec!["198.51.100.9/24".parse().unwrap()],
            kind: Kind::Bridge(Bridge { ageing: Some(Duration::from_secs(7)), ..Bridge::default() }),
            ..old.clone()
        };
        match change(&before, &new) {
            Err(ChangeError::Device(DeviceError::AddressElsewhere { other, .. })) => {
                assert_eq!(other, "other")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(look(&old), before);
        for (mtu, name) in [(70_000, "large"), (5, "small")] {
            let error = change(&before, &Device { mtu: Some(mtu), ..old.clone() }).unwrap_err();
            assert!(matches!(error, ChangeError::Device(DeviceError::Mtu { .. })), "{name}: {error}");
            assert_eq!(look(&old), before);
        }
    });
}

#[test]
fn a_foreign_device_is_not_changed_but_may_be_as_wanted() {
    in_netns(|| {
        ip("link add br0 type bridge");
        let wanted = Device::new("br0", Kind::Bridge(Bridge::default()));
        assert_eq!(change(&look(&wanted), &wanted).unwrap(), []);
        let wanted = Device { mtu: Some(1400), ..wanted };
        let error = change(&look(&wanted), &wanted).unwrap_err();
        assert!(matches!(error, ChangeError::Device(DeviceError::Foreign { .. })), "{error}");
        assert!(ip("link show br0").contains("mtu 1500"));
    });
}

#[test]
fn a_bridge_keeps_the_mtu_it_was_made_with_whatever_joins_it() {
    in_netns(|| {
        for mtu in [1280, 1500, 9000] {
            let bridge = Device { mtu: Some(mtu), ..up("br0", Kind::Bridge(Bridge::default())) };
            make(&bridge);
            ip("link add a0 mtu 1400 type veth peer name b0");
            ip("link set a0 master br0");
            assert_eq!(look(&bridge).mtu, mtu);
            ip("link del a0");
            delete("br0", None, Whose::Ours).unwrap();
        }
    });
}
