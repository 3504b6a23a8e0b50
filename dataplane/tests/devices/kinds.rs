//! Every kind is made as asked for, is read back as it was made, and goes without a trace.

use std::time::Duration;

use tapway_dataplane::netlink::device::{
    Bridge, Device, FdbEntry, Geneve, Ipvlan, IpvlanFlag, IpvlanMode, Kind, Macvlan, MacvlanMode, Mark, Peer,
    Route, Tos, Ttl, Tun, Vlan, VlanProtocol, Vxlan, delete_netns, observe,
};

use crate::topo::{Container, Name, in_netns, ip, lives, look, look_at_all, mac, make, names, parent, up};

#[test]
fn a_veth_reaches_into_a_container_with_addresses_on_both_ends() {
    in_netns(|| {
        let c1 = Container::new();
        let peer = Peer {
            name: "eth0".into(),
            netns: Some(c1.netns()),
            mac: Some(mac(2)),
            addresses: vec!["198.51.100.2/24".parse().unwrap(), "2001:db8::2/64".parse().unwrap()],
        };
        let device = Device {
            mac: Some(mac(1)),
            mtu: Some(1400),
            addresses: vec!["198.51.100.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
            routes: vec![
                Route {
                    to: "203.0.113.0/24".parse().unwrap(),
                    via: Some([198, 51, 100, 2].into()),
                    src: None,
                    metric: Some(7),
                },
                Route {
                    to: "2001:db8:1::/48".parse().unwrap(),
                    via: Some("2001:db8::2".parse().unwrap()),
                    src: None,
                    metric: None,
                },
            ],
            sysctls: vec![
                ("ipv4.forwarding".parse().unwrap(), "1".into()),
                ("ipv6.accept_ra".parse().unwrap(), "0".into()),
            ],
            ..up("veth0", Kind::Veth(peer))
        };
        lives(&device, || {
            let eth0 = c1.ip("-d link show eth0");
            assert!(eth0.contains("mtu 1400") && eth0.contains("02:00:00:00:00:02"), "{eth0}");
            assert!(eth0.contains("alias tapway-peer:veth0") && eth0.contains("group default"), "{eth0}");
            assert!(ip("link show veth0").contains("alias tapway:veth0"));
            assert!(ip("route").contains("203.0.113.0/24 via 198.51.100.2 dev veth0 proto static metric 7"));
            assert_eq!(observe("eth0", Some(&c1.netns()), None).unwrap().unwrap().mark, Mark::Peer);
        });
    });
}

#[test]
fn both_ends_of_a_veth_may_be_in_one_namespace_and_in_another_than_ours() {
    in_netns(|| {
        let here = up(
            "a0",
            Kind::Veth(Peer {
                name: "b0".into(),
                addresses: vec!["198.51.100.2/24".parse().unwrap()],
                ..Peer::default()
            }),
        );
        lives(&here, || assert_eq!(names(), ["a0", "b0", "lo"]));
        let c1 = Container::new();
        let there = Device {
            netns: Some(c1.netns()),
            ..up("a0", Kind::Veth(Peer { name: "b0".into(), netns: Some(c1.netns()), ..Peer::default() }))
        };
        lives(&there, || assert_eq!(c1.run(names), ["a0", "b0", "lo"]));
        let back = Device { netns: Some(c1.netns()), ..here };
        lives(&back, || {
            assert_eq!(
                (names(), c1.run(names)),
                (vec!["b0".into(), "lo".into()], vec!["a0".into(), "lo".into()])
            )
        });
    });
}

#[test]
fn namespaces_are_made_where_that_is_asked_for() {
    in_netns(|| {
        let (first, second) = (Name::new(), Name::new());
        let device = Device {
            netns: Some(first.netns()),
            create_netns: true,
            ..up("a0", Kind::Veth(Peer { name: "b0".into(), netns: Some(second.netns()), ..Peer::default() }))
        };
        lives(&device, || {
            let both =
                ip(&format!("-n {} link show b0", second.0)) + &ip(&format!("-n {} link show a0", first.0));
            assert!(both.contains("b0") && both.contains("a0"), "{both}");
        });
        delete_netns(&first.0).unwrap();
        assert!(!first.exists() && second.exists());
    });
}

#[test]
fn a_bridge_has_its_options_and_its_members() {
    in_netns(|| {
        let bridge = Bridge {
            ageing: Some(Duration::from_secs(77)),
            stp: Some(false),
            mcast_snooping: Some(false),
            ..Bridge::default()
        };
        let device = Device { mac: Some(mac(1)), ..up("br7", Kind::Bridge(bridge)) };
        lives(&device, || {
            let shown = ip("-d link show br7");
            assert!(shown.contains("ageing_time 7700") && shown.contains("mcast_snooping 0"), "{shown}");
            let member = Device {
                master: Some("br7".into()),
                ..up("m0", Kind::Veth(Peer { name: "m1".into(), ..Peer::default() }))
            };
            lives(&member, || assert!(ip("link show m0").contains("master br7")));
        });
    });
}

#[test]
fn a_macvlan_and_a_macvtap_stand_on_their_parent_also_from_within_a_container() {
    in_netns(|| {
        parent();
        let c1 = Container::new();
        for mode in [
            MacvlanMode::Bridge,
            MacvlanMode::Vepa,
            MacvlanMode::Private,
            MacvlanMode::Passthru,
            MacvlanMode::Source,
        ] {
            let options = Macvlan { parent: "p0".into(), mode: Some(mode) };
            for kind in [Kind::Macvlan(options.clone()), Kind::Macvtap(options.clone())] {
                let device = Device { mtu: Some(1400), ..up("mv0", kind) };
                lives(&device, || {
                    let shown = ip("-d link show mv0");
                    assert!(shown.contains(&format!("mode {mode} ")), "{shown}");
                });
                let device = Device {
                    netns: Some(c1.netns()),
                    addresses: vec!["198.51.100.7/24".parse().unwrap()],
                    ..device
                };
                lives(&device, || drop(c1.ip("link show mv0")));
            }
        }
    });
}

#[test]
fn a_macvtap_that_has_its_parent_alone_shares_the_address_it_is_made_with() {
    in_netns(|| {
        parent();
        let mac = "02:00:00:00:00:07".parse().unwrap();
        let options = Macvlan { parent: "p0".into(), mode: Some(MacvlanMode::Passthru) };
        let device = Device { mac: Some(mac), ..up("mv0", Kind::Macvtap(options)) };
        lives(&device, || {
            for name in ["mv0", "p0"] {
                assert!(ip(&format!("link show {name}")).contains("02:00:00:00:00:07"), "{name}");
            }
        });
    });
}

#[test]
fn a_vxlan_has_its_options_and_its_forwarding_entries() {
    in_netns(|| {
        parent();
        let entry = |last, dst: &str, vni, port| FdbEntry {
            mac: if last == 0 { tapway_dataplane::wire::MacAddr::ZERO } else { mac(last) },
            dst: dst.parse().unwrap(),
            vni,
            port,
        };
        let v4 = Vxlan {
            id: 42,
            local: Some([198, 51, 100, 1].into()),
            dev: Some("p0".into()),
            learning: Some(false),
            ttl: Some(Ttl::Fixed(33)),
            tos: Some(Tos::Inherit),
            udpcsum: Some(true),
            fdb: vec![
                entry(0, "198.51.100.2", None, None),
                entry(0, "198.51.100.3", Some(43), None),
                entry(9, "198.51.100.3", None, Some(8472)),
            ],
            ..Vxlan::default()
        };
        lives(&up("vx0", Kind::Vxlan(v4.clone())), || {
            let shown = ip("-d link show vx0");
            for words in [
                "vxlan id 42",
                "local 198.51.100.1",
                "dev p0",
                "dstport 4789",
                "nolearning",
                "ttl 33",
                "tos inherit",
                " udpcsum",
            ] {
                assert!(shown.contains(words), "no {words:?} in {shown}");
            }
        });
        let remote = Vxlan { remote: Some([198, 51, 100, 9].into()), ..v4.clone() };
        lives(&up("vx0", Kind::Vxlan(remote)), || {});
        let group = Vxlan { group: Some([239, 1, 1, 1].into()), fdb: Vec::new(), ..v4 };
        lives(&up("vx0", Kind::Vxlan(group)), || assert!(ip("-d link show vx0").contains("group 239.1.1.1")));
        let v6 = Vxlan {
            id: 7,
            local: Some("2001:db8::1".parse().unwrap()),
            remote: Some("2001:db8::2".parse().unwrap()),
            ttl: Some(Ttl::Inherit),
            fdb: vec![entry(0, "2001:db8::3", None, None)],
            ..Vxlan::default()
        };
        lives(&up("vx0", Kind::Vxlan(v6)), || assert!(ip("-d link show vx0").contains("ttl inherit")));
        lives(&up("vx0", Kind::Vxlan(Vxlan { external: true, ..Vxlan::default() })), || {});
    });
}

#[test]
fn the_underlay_of_a_vxlan_may_be_in_another_namespace() {
    in_netns(|| {
        let c1 = Container::new();
        let options = Vxlan { id: 42, remote: Some([198, 51, 100, 2].into()), ..Vxlan::default() };
        let device = Device { netns: Some(c1.netns()), ..up("vx0", Kind::Vxlan(options)) };
        lives(&device, || {
            // The other way round it is another device.
            let other = Device { link_netns: Some(c1.netns()), ..device.clone() };
            assert!(look(&other).link_elsewhere && !look(&device).link_elsewhere);
        });
        let inside = Device { link_netns: Some(c1.netns()), ..device };
        lives(&inside, || {});
    });
}

#[test]
fn a_tun_and_a_tap_are_persistent_and_belong_to_whom_they_were_given() {
    in_netns(|| {
        let c1 = Container::new();
        for options in [
            Tun::default(),
            Tun {
                owner: Some(1000),
                group: Some(100),
                multi_queue: Some(true),
                vnet_hdr: Some(true),
                persistent: Some(true),
            },
        ] {
            lives(&Device { mtu: Some(1400), ..up("tun7", Kind::Tun(options)) }, || {
                assert!(ip("-d link show tun7").contains("type tun pi off"));
            });
            let tap = Device {
                mac: Some(mac(7)),
                netns: Some(c1.netns()),
                addresses: vec!["198.51.100.7/24".parse().unwrap()],
                ..up("tap7", Kind::Tap(options))
            };
            lives(&tap, || assert!(c1.ip("-d link show tap7").contains("persist on")));
        }
    });
}

#[test]
fn a_vlan_has_its_number_and_its_tag_in_the_guest() {
    in_netns(|| {
        parent();
        let c1 = Container::new();
        for protocol in [None, Some(VlanProtocol::Dot1q), Some(VlanProtocol::Dot1ad)] {
            let kind = Kind::Vlan(Vlan { parent: "p0".into(), id: 100, protocol });
            lives(&up("v100", kind.clone()), || drop(ip("-d link show v100")));
            lives(&Device { netns: Some(c1.netns()), ..up("v100", kind) }, || {});
        }
    });
}

#[test]
fn an_ipvlan_has_its_mode_and_its_flag_in_the_guest() {
    in_netns(|| {
        parent();
        let c1 = Container::new();
        for mode in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s] {
            for flag in [IpvlanFlag::Bridge, IpvlanFlag::Private, IpvlanFlag::Vepa] {
                let options = Ipvlan { parent: "p0".into(), mode: Some(mode), flag: Some(flag) };
                lives(&Device { netns: Some(c1.netns()), ..up("iv0", Kind::Ipvlan(options)) }, || {});
            }
        }
    });
}

#[test]
fn a_geneve_has_its_options_in_the_guest() {
    in_netns(|| {
        let v4 = Geneve {
            id: 42,
            remote: Some([198, 51, 100, 2].into()),
            ttl: Some(Ttl::Fixed(9)),
            tos: Some(Tos::Inherit),
            udpcsum: Some(true),
            ..Geneve::default()
        };
        lives(&up("gn0", Kind::Geneve(v4)), || drop(ip("-d link show gn0")));
        let v6 = Geneve {
            id: 43,
            remote: Some("2001:db8::2".parse().unwrap()),
            ttl: Some(Ttl::Inherit),
            dstport: 6082,
            ..Geneve::default()
        };
        lives(&up("gn0", Kind::Geneve(v6)), || {});
    });
}

#[test]
fn a_dummy_has_addresses_in_the_guest() {
    in_netns(|| {
        let addresses = vec!["198.51.100.1/32".parse().unwrap(), "2001:db8::1/128".parse().unwrap()];
        lives(&Device { mac: Some(mac(1)), addresses, ..up("d0", Kind::Dummy) }, || {});
    });
}

#[test]
fn a_bridge_filters_vlans_in_the_guest() {
    in_netns(|| {
        let device = up("br0", Kind::Bridge(Bridge { vlan_filtering: Some(true), ..Bridge::default() }));
        lives(&device, || assert!(ip("-d link show br0").contains("vlan_filtering 1")));
    });
}

#[test]
fn a_list_holds_ours_and_others_each_as_a_look_at_it_alone_tells() {
    in_netns(|| {
        parent();
        let c1 = Container::new();
        let bridge = up("br0", Kind::Bridge(Bridge::default()));
        let veth = Device {
            master: Some("br0".into()),
            ..up(
                "veth0",
                Kind::Veth(Peer {
                    name: "eth0".into(),
                    netns: Some(c1.netns()),
                    addresses: vec!["198.51.100.2/24".parse().unwrap()],
                    ..Peer::default()
                }),
            )
        };
        let vxlan = Device {
            addresses: vec!["203.0.113.1/24".parse().unwrap()],
            sysctls: vec![("ipv4.rp_filter".parse().unwrap(), "2".into())],
            ..up(
                "vx0",
                Kind::Vxlan(Vxlan {
                    id: 1,
                    dev: Some("p0".into()),
                    fdb: vec![FdbEntry { mac: mac(3), dst: [198, 51, 100, 7].into(), vni: None, port: None }],
                    ..Vxlan::default()
                }),
            )
        };
        let wanted = [&bridge, &veth, &vxlan];
        wanted.into_iter().for_each(make);
        let all = look_at_all(None, &wanted);
        let mut found: Vec<_> = all.iter().map(|o| (o.name.as_str(), o.kind_name.as_str(), o.mark)).collect();
        found.sort_by_key(|(name, ..)| *name);
        let expected = [
            ("br0", "bridge", Mark::Ours),
            ("lo", "", Mark::Foreign),
            ("p0", "veth", Mark::Foreign),
            ("p1", "veth", Mark::Foreign),
            ("veth0", "veth", Mark::Ours),
            ("vx0", "vxlan", Mark::Ours),
        ];
        assert_eq!(found, expected);
        for device in wanted {
            assert_eq!(all.iter().find(|one| one.name == device.name), Some(&look(device)));
        }
    });
}
