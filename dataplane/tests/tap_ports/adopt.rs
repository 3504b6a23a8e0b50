//! Persistent TAPs: they stay, are adopted again, and are left alone where somebody has them open.

use tapway_dataplane::port::tap::{Health, Tap, TapError, TapOptions};

use crate::topo::{Container, in_netns, names_by, open, t0};

fn persistent(container: &Container) -> TapOptions {
    TapOptions { persist: true, ..t0(container) }
}

#[test]
fn a_persistent_tap_stays_and_is_adopted_by_the_next_daemon() {
    in_netns(|| {
        let container = Container::new();
        for (queues, offload) in [(1, true), (3, true), (1, false), (3, false)] {
            let options = TapOptions { queues, offload, ..persistent(&container) };
            let first = open(&options);
            assert!(!first.is_adopted());
            let index = first.ifindex();
            drop(first);
            assert_eq!(names_by(container.netlink()), ["lo", "t0"]);
            assert!(container.link("t0").tun.unwrap().persist);

            // Whether it persists is a property it has already: the flag does not matter.
            let mut again = open(&TapOptions { persist: false, ..options.clone() });
            assert!(again.is_adopted());
            assert_eq!(again.ifindex(), index, "the same device, not a new one");
            assert_eq!(again.take_queues().len(), queues);
            assert_eq!(again.health().unwrap(), Health::Up);
            again.destroy().unwrap();
            assert_eq!(
                names_by(container.netlink()),
                ["lo", "t0"],
                "an adopted TAP is left where it was found"
            );
            let link = container.link("t0");
            container.netlink().delete_link(&link).unwrap();
        }
    });
}

#[test]
fn a_persistent_tap_that_the_port_made_goes_with_the_port() {
    in_netns(|| {
        let container = Container::new();
        let mut tap = open(&persistent(&container));
        let queues = tap.take_queues();
        tap.destroy().unwrap();
        assert_eq!(names_by(container.netlink()), ["lo", "t0"], "a worker still has its queue");
        drop(queues);
        assert_eq!(names_by(container.netlink()), ["lo"]);
    });
}

#[test]
fn a_tap_that_somebody_has_open_is_in_use() {
    in_netns(|| {
        let container = Container::new();
        for persist in [false, true] {
            for queues in [1, 2] {
                let options = TapOptions { persist, queues, ..t0(&container) };
                let tap = open(&options);
                let error = Tap::open(&options).unwrap_err();
                assert!(matches!(error, TapError::InUse { .. }), "{error}");
                assert_eq!(error.to_string(), "TAP t0 is in use by another port or process");
                assert_eq!(tap.health().unwrap(), Health::Up, "and is not disturbed");
                if queues > 1 {
                    assert_eq!(
                        container.link("t0").tun.unwrap().queues,
                        2,
                        "no queue was attached beside its own"
                    );
                }
                tap.destroy().unwrap();
            }
        }
    });
}

#[test]
fn a_tap_made_for_another_number_of_queues_is_not_adopted() {
    in_netns(|| {
        let container = Container::new();
        for (made, asked) in [(1, 2), (2, 1)] {
            drop(open(&TapOptions { queues: made, ..persistent(&container) }));
            let error = Tap::open(&TapOptions { queues: asked, ..persistent(&container) }).unwrap_err();
            assert!(
                matches!(error, TapError::QueueKind { multi_queue, .. } if multi_queue == (made > 1)),
                "{error}"
            );
            let link = container.link("t0");
            container.netlink().delete_link(&link).unwrap();
        }
    });
}

#[test]
fn an_adoption_that_fails_leaves_the_interface_as_it_was() {
    in_netns(|| {
        let container = Container::new();
        let kept = "198.51.100.1/24".parse().unwrap();
        let made = open(&TapOptions { mtu: Some(1400), addresses: vec![kept], ..persistent(&container) });
        made.set_admin(false).unwrap();
        drop(made);
        let before = container.link("t0");
        let addresses = container.netlink().addresses(&before).unwrap();

        let options = TapOptions {
            mtu: Some(9000),
            mac: Some("02:00:00:00:00:0b".parse().unwrap()),
            addresses: vec![kept, "203.0.113.1/24".parse().unwrap(), "ff02::1/64".parse().unwrap()],
            ..persistent(&container)
        };
        Tap::open(&options).unwrap_err();
        let after = container.link("t0");
        assert_eq!((after.mac, after.mtu, after.up), (before.mac, before.mtu, before.up));
        assert_eq!(container.netlink().addresses(&after).unwrap(), addresses);
        assert!(!open(&persistent(&container)).offloads().is_empty(), "and can be adopted");
    });
}
