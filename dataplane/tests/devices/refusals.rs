//! Bad input: a specific error, nothing half made, and others' devices untouched.

use tapway_dataplane::{
    netlink::device::{
        Bridge, Device, DeviceError, FdbEntry, Kind, Macvlan, Mark, Peer, Route, Tun, Vxlan, Whose, create,
        delete, delete_all, observe,
    },
    netns::Netns,
};

use crate::topo::{Container, Name, in_netns, ip, look, look_at_all, mac, make, names, parent, up};

/// Tries to make a device that cannot be made; the words of the refusal. Whatever was there before is there after, and nothing else.
#[track_caller]
fn refused(device: &Device) -> String {
    let everything = || look_at_all(None, &[]);
    let before = everything();
    let error = create(device).expect_err("it was made").to_string();
    assert_eq!(everything(), before, "after {error}");
    error
}

fn veth(name: &str, peer: &str) -> Device {
    up(name, Kind::Veth(Peer { name: peer.into(), ..Peer::default() }))
}

#[test]
fn a_parent_or_a_master_that_is_missing_is_named() {
    in_netns(|| {
        let macvlan = up("mv0", Kind::Macvlan(Macvlan { parent: "nope".into(), mode: None }));
        assert_eq!(refused(&macvlan), "device mv0: its parent nope is not there");
        let vxlan = up("vx0", Kind::Vxlan(Vxlan { dev: Some("nope".into()), ..Vxlan::default() }));
        assert_eq!(refused(&vxlan), "device vx0: its parent nope is not there");
        let c1 = Container::new();
        let there = Device { link_netns: Some(c1.netns()), ..macvlan };
        assert_eq!(
            refused(&there),
            format!("device mv0: its parent nope is not there in network namespace {}", c1.netns())
        );
        let port = Device { master: Some("br9".into()), ..veth("a0", "b0") };
        assert_eq!(refused(&port), "device a0: its master br9 is not there");
    });
}

#[test]
fn a_name_that_somebody_else_has_stays_theirs() {
    in_netns(|| {
        ip("link add taken type bridge");
        let words = "this name is taken by a bridge that tapway did not make; rename or delete that one, or choose another name";
        assert_eq!(refused(&veth("taken", "b0")), format!("device taken: {words}"));
        assert_eq!(refused(&veth("a0", "taken")), format!("device taken: {words}"));
        assert!(refused(&up("taken", Kind::Tap(Tun::default()))).ends_with(words));
        assert_eq!(
            delete("taken", None, Whose::Ours).unwrap_err().to_string(),
            "device taken was not made by tapway; it is left alone"
        );
        assert!(ip("link").contains("taken"));
        delete("taken", None, Whose::Anybodys).unwrap();
        assert_eq!(names(), ["lo"]);
        assert!(refused(&veth("lo", "b0")).contains("taken by a device"));
    });
}

#[test]
fn an_alternative_name_is_not_the_device_and_is_not_lost() {
    in_netns(|| {
        ip("link add br0 type bridge");
        ip("link property add dev br0 altname other");
        let error = refused(&veth("other", "b0"));
        assert!(error.contains("File exists"), "{error}");
        assert_eq!(observe("other", None, None).unwrap(), None);
        assert!(matches!(delete("other", None, Whose::Anybodys), Err(DeviceError::Missing { .. })));
    });
}

#[test]
fn a_name_that_is_none_is_refused() {
    in_netns(|| {
        for name in ["", ".", "..", "a/b", "a b", "a:b", "tap%d", "a-name-too-long-", "a\0b"] {
            let error = refused(&veth(name, "b0"));
            assert!(error.contains("an interface name has 1 to 15 octets"), "{error}");
            refused(&veth("a0", name));
        }
    });
}

#[test]
fn an_address_that_is_elsewhere_is_named_with_its_place() {
    in_netns(|| {
        ip("link add other type bridge");
        ip("address add 198.51.100.9/24 dev other");
        ip("address add 2001:db8::9/64 dev other nodad");
        for address in ["198.51.100.9/32", "2001:db8::9/64"] {
            let net: ipnet::IpNet = address.parse().unwrap();
            let device =
                Device { addresses: vec!["203.0.113.1/24".parse().unwrap(), net], ..veth("a0", "b0") };
            assert_eq!(refused(&device), format!("device a0: address {} is already on other", net.addr()));
            let peer = Peer { name: "b0".into(), addresses: vec![net], ..Peer::default() };
            assert_eq!(
                refused(&up("a0", Kind::Veth(peer))),
                format!("device a0: address {} is already on other", net.addr())
            );
            let tap = Device { addresses: vec![net], ..up("t0", Kind::Tap(Tun::default())) };
            assert_eq!(refused(&tap), format!("device t0: address {} is already on other", net.addr()));
        }
    });
}

#[test]
fn an_mtu_out_of_range_is_named() {
    in_netns(|| {
        parent();
        for (mtu, words) in [(67, "68 or more"), (70_000, "65521 or less")] {
            let veth = Device { mtu: Some(mtu), ..veth("a0", "b0") };
            assert_eq!(
                refused(&veth),
                format!("device a0: MTU {mtu} is out of range: this device takes 68 to 65535")
            );
            let tap = Device { mtu: Some(mtu), ..up("t0", Kind::Tap(Tun::default())) };
            assert_eq!(
                refused(&tap),
                format!("device t0: MTU {mtu} is out of range: this device takes {words}")
            );
            let bridge = Device { mtu: Some(mtu), ..up("br0", Kind::Bridge(Bridge::default())) };
            assert!(refused(&bridge).starts_with(&format!("device br0: MTU {mtu} is out of range")));
        }
        let large = Device {
            mtu: Some(1501),
            ..up("mv0", Kind::Macvlan(Macvlan { parent: "p0".into(), mode: None }))
        };
        assert_eq!(refused(&large), "device mv0: MTU 1501 is out of range: this device takes 68 to 1500");
        // `vxlan_dev_configure` takes less than it was asked for, and does not say so.
        let vxlan = Vxlan { dev: Some("p0".into()), ..Vxlan::default() };
        let vxlan = Device { mtu: Some(1451), ..up("vx0", Kind::Vxlan(vxlan)) };
        assert_eq!(refused(&vxlan), "device vx0: MTU 1451 is out of range: this device takes 1450 or less");
        let vxlan = Device { mtu: Some(67), ..up("vx0", Kind::Vxlan(Vxlan::default())) };
        assert!(refused(&vxlan).starts_with("device vx0: MTU 67 is out of range"));
    });
}

#[test]
fn a_namespace_that_is_missing_is_named_and_those_made_for_it_go_again() {
    in_netns(|| {
        let name = Name::new();
        let device = Device { netns: Some(name.netns()), ..veth("a0", "b0") };
        let missing = format!("device a0: network namespace {}: ", name.0);
        assert!(refused(&device).starts_with(&missing));
        let peer = Peer { name: "b0".into(), netns: Some(name.netns()), ..Peer::default() };
        assert!(refused(&up("a0", Kind::Veth(peer))).starts_with(&missing));
        let gone = Device { netns: Some(Netns::Pid(i32::MAX as u32)), ..device.clone() };
        assert!(refused(&gone).contains("No such file"));
        // Made, and in vain.
        let device = Device { create_netns: true, master: Some("nope".into()), ..device };
        assert_eq!(
            refused(&device),
            format!("device a0: its master nope is not there in network namespace {}", name.0)
        );
        assert!(!name.exists());
    });
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    in_netns(|| {
        parent();
        let c1 = Container::new();
        let good = Device {
            netns: Some(c1.netns()),
            addresses: vec!["198.51.100.1/24".parse().unwrap()],
            routes: vec![Route { to: "203.0.113.0/24".parse().unwrap(), via: None, src: None, metric: None }],
            ..veth("a0", "b0")
        };
        let far = Route {
            to: "10.0.0.0/8".parse().unwrap(),
            via: Some([203, 0, 113, 1].into()),
            src: None,
            metric: None,
        };
        let entry = FdbEntry { mac: mac(1), dst: "2001:db8::1".parse().unwrap(), vni: None, port: None };
        let vxlan = Vxlan { remote: Some([198, 51, 100, 1].into()), fdb: vec![entry], ..Vxlan::default() };
        for (bad, words) in [
            (
                Device { sysctls: vec![("ipv4.nonsense".parse().unwrap(), "1".into())], ..good.clone() },
                "sysctl ipv4.nonsense: ",
            ),
            (
                Device { sysctls: vec![("ipv4.rp_filter".parse().unwrap(), "x".into())], ..good.clone() },
                "sysctl ipv4.rp_filter: ",
            ),
            (
                Device {
                    mac: Some(mac(1)),
                    routes: vec![Route { via: Some([192, 168, 0, 1].into()), ..far }],
                    ..good.clone()
                },
                "route to 10.0.0.0/8 via 192.168.0.1 by interface a0: Network is unreachable",
            ),
            (Device { master: Some("a0".into()), ..good.clone() }, "cannot set the master of interface a0"),
            (
                Device { kind: Kind::Vxlan(vxlan), ..good.clone() },
                "cannot add 02:00:00:00:00:01 dst 2001:db8::1",
            ),
            (
                Device { kind: Kind::Macvlan(Macvlan { parent: "lo".into(), mode: None }), ..good.clone() },
                "cannot make interface a0",
            ),
        ] {
            let error = refused(&bad);
            assert!(error.contains(words), "{error}");
            assert_eq!(c1.run(names), ["lo"], "after {error}");
        }
        make(&good);
    });
}

#[test]
fn the_kernels_own_words_are_passed_on() {
    in_netns(|| {
        let vxlan = Vxlan { id: 1 << 24, ..Vxlan::default() };
        let error = refused(&up("vx0", Kind::Vxlan(vxlan)));
        assert!(
            error.contains("VXLAN network identifier value is too large") || error.contains("(VXLAN "),
            "{error}"
        );
        make(&up("br0", Kind::Bridge(Bridge::default())));
        let error =
            refused(&Device { master: Some("br0".into()), ..up("br1", Kind::Bridge(Bridge::default())) });
        assert!(error.contains("(Can not enslave a bridge to a bridge)"), "{error}");
    });
}

#[test]
fn what_was_left_unfinished_is_taken_away_and_made_anew() {
    in_netns(|| {
        // As a program leaves it that is killed after its first request.
        ip("link add a0 group 1415671927 type veth peer name b0");
        let device = veth("a0", "b0");
        let left = observe("a0", None, None).unwrap().unwrap();
        assert_eq!(left.mark, Mark::Unfinished);
        make(&device);
        assert_ne!(look(&device).index, left.index);
        // The other end alone, of a device that is to have another name now.
        ip("link del a0");
        ip("link add c0 type veth peer name b0 group 1415671927");
        make(&device);
        assert_eq!(names(), ["a0", "b0", "lo"]);
        ip("link set a0 group 1415671927");
        delete("a0", None, Whose::Ours).unwrap();
        assert_eq!(names(), ["lo"]);
    });
}

#[test]
fn many_are_deleted_at_once_with_what_is_on_them_and_others_devices_stay() {
    in_netns(|| {
        let (c1, c2) = (Container::new(), Container::new());
        let homes = [None, Some(c1.netns()), Some(c2.netns())];
        let mut made = Vec::new();
        for (n, netns) in homes.iter().enumerate() {
            let there = |device: Device| Device { netns: netns.clone(), link_netns: netns.clone(), ..device };
            let pair = Peer { name: format!("b{n}"), netns: homes[(n + 1) % 3].clone(), ..Peer::default() };
            let on = Macvlan { parent: format!("a{n}"), mode: None };
            for device in [
                there(up(&format!("a{n}"), Kind::Veth(pair))),
                there(up(&format!("m{n}"), Kind::Macvlan(on))),
                there(up(&format!("t{n}"), Kind::Tap(Tun::default()))),
                there(up(&format!("br{n}"), Kind::Bridge(Bridge::default()))),
            ] {
                make(&device);
                made.push((device.name.clone(), netns.clone()));
            }
        }
        ip("link add foreign type bridge");
        ip("link add left group 1415671928 type bridge"); // as a program leaves it that is killed half way
        assert_eq!(observe("left", None, None).unwrap().unwrap().mark, Mark::Unfinished);
        // Those that stand on others come first.
        let mut all: Vec<_> =
            made.iter().rev().map(|(name, netns)| (name.as_str(), netns.as_ref())).collect();
        let foreign = |result: &Result<(), (usize, DeviceError)>, wanted: usize| matches!(result, Err((at, DeviceError::Foreign { .. })) if *at == wanted);
        let before = (names(), c1.run(names));
        assert!(foreign(&delete_all(&[("foreign", None), all[0]]), 0));
        assert_eq!(
            (names(), c1.run(names)),
            before,
            "what comes after the one that cannot be deleted is left"
        );
        assert!(foreign(&delete_all(&[all[0], ("b2", None), all[1]]), 1));
        all.remove(0);
        all.push(("nobody", None));
        delete_all(&all).unwrap();
        assert_eq!(names(), ["foreign", "lo"]);
        assert_eq!((c1.run(names), c2.run(names)), (vec!["lo".to_owned()], vec!["lo".to_owned()]));
    });
}

#[test]
fn without_privilege_the_error_says_so() {
    in_netns(|| {
        make(&veth("a0", "b0"));
        // This thread alone gives up what it may do.
        let none = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none).unwrap();
        for device in [veth("c0", "d0"), up("t0", Kind::Tap(Tun::default()))] {
            let error = create(&device).unwrap_err();
            assert!(matches!(error, DeviceError::Permission { .. }), "{error}");
            assert!(error.to_string().contains("it takes CAP_NET_ADMIN"), "{error}");
        }
        let error = delete("a0", None, Whose::Ours).unwrap_err();
        assert!(matches!(error, DeviceError::Permission { .. }), "{error}");
        assert_eq!(names(), ["a0", "b0", "lo"]);
    });
}
