//! A new TAP: where it appears, what it is like, and that a failure leaves nothing.

use tapway_dataplane::{
    netlink::Socket,
    netns::Netns,
    port::tap::{Tap, TapError, TapOptions},
};

use crate::topo::{Container, Named, Process, in_netns, names, names_by, open, t0};

#[test]
fn a_tap_appears_in_its_namespace_up_with_mac_mtu_and_addresses() {
    in_netns(|| {
        let container = Container::new();
        let options = TapOptions {
            mac: Some("02:00:00:00:00:0a".parse().unwrap()),
            mtu: Some(9000),
            addresses: vec!["198.51.100.10/24".parse().unwrap(), "2001:db8::10/64".parse().unwrap()],
            ..t0(&container)
        };
        let tap = open(&options);
        let link = container.link("t0");
        assert!(link.up);
        assert_eq!((link.mac, link.mtu), (options.mac, 9000));
        assert_eq!((tap.ifname(), tap.ifindex(), tap.mtu()), ("t0", link.index, 9000));
        assert_eq!(Some(tap.mac()), options.mac);
        let addresses = container.netlink().addresses(&link).unwrap();
        for wanted in &options.addresses {
            let found = addresses.iter().find(|a| a.net == *wanted);
            assert!(found.is_some_and(|a| !a.tentative), "{wanted} is to be usable at once: {addresses:?}");
        }
        assert_eq!(names(), ["lo"], "nothing is left where it was made");
    });
}

#[test]
fn a_namespace_is_found_by_name_by_process_and_by_path() {
    in_netns(|| {
        let container = Container::new();
        let named = Named::new(&container);
        let process = Process::new(&container);
        for netns in [Netns::Name(named.0.clone()), Netns::Pid(process.0.id()), container.netns()] {
            let tap = open(&TapOptions { netns: Some(netns.clone()), ..t0(&container) });
            assert_eq!(names_by(container.netlink()), ["lo", "t0"], "{netns}");
            drop(tap);
            assert_eq!(names_by(container.netlink()), ["lo"], "{netns}: a closed TAP is gone");
        }
    });
}

#[test]
fn without_a_namespace_the_tap_appears_in_the_daemons_own() {
    in_netns(|| {
        let tap = open(&TapOptions { ifname: Some("here".into()), ..TapOptions::default() });
        assert_eq!(names(), ["here", "lo"]);
        assert!(Socket::open().unwrap().link_by_index(tap.ifindex()).unwrap().unwrap().up);
    });
}

#[test]
fn without_a_name_the_kernel_chooses_the_first_free_one() {
    in_netns(|| {
        let container = Container::new();
        let there = TapOptions { ifname: None, ..t0(&container) };
        let here = TapOptions { netns: None, ..there.clone() };
        let taps = [open(&there), open(&there), open(&here), open(&TapOptions { offload: false, ..here })];
        assert_eq!(taps.each_ref().map(|tap| tap.ifname()), ["tap0", "tap1", "tap0", "tap1"]);
        assert_eq!(names_by(container.netlink()), ["lo", "tap0", "tap1"]);
    });
}

#[test]
fn a_tap_has_as_many_queues_as_asked_for() {
    in_netns(|| {
        let container = Container::new();
        for (queues, offload) in [(1, true), (4, true), (4, false), (1, false)] {
            let mut tap = open(&TapOptions { queues, offload, ..t0(&container) });
            let taken = tap.take_queues();
            assert_eq!(taken.len(), queues);
            assert!(tap.take_queues().is_empty());
            let tun = container.link("t0").tun.unwrap();
            assert_eq!((tun.multi_queue, tun.vnet_hdr), (queues > 1, offload), "{queues} queues");
            if queues > 1 {
                assert_eq!(tun.queues as usize, queues);
            }
            drop(tap);
            assert_eq!(names_by(container.netlink()), ["lo", "t0"], "the workers still have the queues");
            drop(taken);
            assert_eq!(names_by(container.netlink()), ["lo"]);
        }
    });
}

#[test]
fn offloads_are_negotiated_or_left_off() {
    in_netns(|| {
        let container = Container::new();
        let tap = open(&t0(&container));
        let caps = *tap.caps();
        // Linux has had these since 2.6.27; USO came with 6.2.
        assert!(caps.vnet_hdr && caps.csum && caps.tso4 && caps.tso6 && caps.tso_ecn, "{caps:?}");
        assert_eq!(tap.vnet_header_len(), 12);
        assert_eq!(tap.offloads()[..5], ["vnet_hdr", "csum", "tso4", "tso6", "tso_ecn"]);
        drop(tap);
        let tap = open(&TapOptions { offload: false, ..t0(&container) });
        assert_eq!((tap.vnet_header_len(), tap.offloads().len()), (0, 0));
        assert!(!tap.caps().vnet_hdr);
    });
}

#[test]
fn a_failure_names_operation_and_object_and_leaves_nothing() {
    in_netns(|| {
        let container = Container::new();
        let t0 = t0(&container);
        let no_such = Netns::Name("tapway-test-no-such".into());
        for (options, message) in [
            (TapOptions { ifname: Some("lo".into()), ..t0.clone() }, "the name lo is taken"),
            (TapOptions { ifname: Some("lo".into()), netns: None, ..t0.clone() }, "the name lo is taken"),
            (
                TapOptions { netns: Some(no_such), ..t0.clone() },
                "cannot open network namespace tapway-test-no-such: No such file",
            ),
            (
                TapOptions { netns: Some(Netns::Path("/dev/null".into())), ..t0.clone() },
                "cannot open network namespace /dev/null: this file is not a network namespace",
            ),
            (
                TapOptions { addresses: vec!["ff02::1/64".parse().unwrap()], ..t0.clone() },
                "cannot add address ff02::1/64 on interface t0: ",
            ),
            (
                TapOptions { mtu: Some(100_000), ..t0.clone() },
                "cannot set the MTU of interface t0: Invalid argument (os error 22) (mtu greater than device maximum)",
            ),
            (
                TapOptions { mac: Some("01:00:00:00:00:01".parse().unwrap()), ..t0.clone() },
                "cannot set the MAC address of interface t0: ",
            ),
            (TapOptions { queues: 0, ..t0.clone() }, "0 queues: a TAP has 1 to 256"),
            (TapOptions { queues: 257, ..t0.clone() }, "257 queues: a TAP has 1 to 256"),
        ] {
            for (persist, offload) in [(false, true), (true, true), (true, false)] {
                let options = TapOptions { persist, offload, ..options.clone() };
                let error = Tap::open(&options).unwrap_err().to_string();
                assert!(error.starts_with(message), "{error}");
                assert_eq!(names(), ["lo"], "after: {error}");
                assert_eq!(names_by(container.netlink()), ["lo"], "after: {error}");
            }
        }
    });
}

#[test]
fn a_name_that_another_interface_answers_to_is_taken() {
    in_netns(|| {
        let container = Container::new();
        // A TUN of the name, held open: neither ours to adopt nor a TAP.
        let tun = container.run(|| {
            let fd = tapway_dataplane::sys::tun::open().unwrap();
            tapway_dataplane::sys::tun::attach(
                std::os::fd::AsFd::as_fd(&fd),
                "t0",
                libc::IFF_TUN as u16 | tapway_dataplane::sys::tun::NO_PI,
            )
            .unwrap();
            fd
        });
        let error = Tap::open(&t0(&container)).unwrap_err();
        assert!(matches!(&error, TapError::NameTaken { name } if name == "t0"), "{error}");
        assert_eq!(names_by(container.netlink()), ["lo", "t0"]);
        drop(tun);
        open(&t0(&container));
    });
}
