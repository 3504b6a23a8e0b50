//! An open TAP: changed by us, and changed behind our back.

use std::{io::IoSlice, os::fd::AsFd};

use rustix::io::Errno;
use tapway_dataplane::{
    counters::PortCounters,
    frame::Batch,
    netlink::Socket,
    port::{
        Received, SendResult,
        tap::{GoneReason, Health, TapError, TapOptions, TapQueue},
    },
    sys::netns,
};

use crate::topo::{Container, Named, in_netns, names_by, open, t0, wait_until};

fn receive(queue: &mut TapQueue) -> Received {
    queue.recv(&mut Batch::new(), &PortCounters::default(), None)
}

fn send(queue: &TapQueue) -> SendResult {
    queue.send(&[IoSlice::new(&[0; 12]), IoSlice::new(&[0xff; 60])])
}

#[test]
fn mtu_mac_state_and_addresses_change_while_it_is_open() {
    in_netns(|| {
        let container = Container::new();
        let [a, b, foreign] =
            ["198.51.100.1/24", "2001:db8::1/64", "203.0.113.9/24"].map(|a| a.parse().unwrap());
        let mut tap = open(&TapOptions { addresses: vec![a], ..t0(&container) });
        tap.set_mtu(1400).unwrap();
        let mac = "02:00:00:00:00:0c".parse().unwrap();
        tap.set_mac(mac).unwrap();
        let link = container.link("t0");
        assert_eq!((link.mtu, link.mac, link.up), (1400, Some(mac), true));
        assert_eq!((tap.mtu(), tap.mac()), (1400, mac));

        container.netlink().add_address(&link, foreign).unwrap();
        tap.set_addresses(&[b]).unwrap();
        tap.set_addresses(&[b]).unwrap();
        let present: Vec<_> =
            container.netlink().addresses(&link).unwrap().into_iter().map(|address| address.net).collect();
        assert!(!present.contains(&a), "{present:?}");
        assert!(present.contains(&b) && present.contains(&foreign), "{present:?}");
        assert_eq!(tap.addresses(), [b]);

        tap.set_admin(false).unwrap();
        assert!(!container.link("t0").up);
        tap.set_admin(true).unwrap();
        assert!(container.link("t0").up);
        let error = tap.set_mtu(100_000).unwrap_err();
        assert!(error.to_string().contains("mtu greater than device maximum"), "{error}");
        assert_eq!(tap.mtu(), 1400);
    });
}

#[test]
fn an_interface_set_down_is_seen_by_health_and_by_a_send() {
    in_netns(|| {
        let container = Container::new();
        let mut tap = open(&t0(&container));
        let mut queues = tap.take_queues();
        assert_eq!(send(&queues[0]), SendResult::Sent);
        let link = container.link("t0");
        container.netlink().set_link_up(&link, false).unwrap();
        assert_eq!(tap.health().unwrap(), Health::InterfaceDown);
        assert_eq!(send(&queues[0]), SendResult::Down);
        receive(&mut queues[0]);
        assert_eq!(receive(&mut queues[0]), Received::Drained, "down is not gone");
        container.netlink().set_link_up(&link, true).unwrap();
        assert_eq!(tap.health().unwrap(), Health::Up);
        assert_eq!(send(&queues[0]), SendResult::Sent);
    });
}

#[test]
fn a_renamed_interface_is_seen_and_can_still_be_changed() {
    in_netns(|| {
        let container = Container::new();
        let mut tap = open(&t0(&container));
        let link = container.link("t0");
        container.netlink().rename_link(&link, "other").unwrap();
        assert_eq!(tap.health().unwrap(), Health::Renamed("other".into()));
        assert_eq!(tap.current_name().unwrap(), "other");
        tap.set_mtu(1300).unwrap();
        assert_eq!(container.link("other").mtu, 1300);
        container.netlink().rename_link(&link, "t0").unwrap();
        assert_eq!(tap.health().unwrap(), Health::Up);
    });
}

#[test]
fn an_interface_moved_to_another_namespace_is_seen_and_can_still_be_changed() {
    in_netns(|| {
        let (container, other) = (Container::new(), Container::new());
        let mut tap = open(&t0(&container));
        let link = container.link("t0");
        container.netlink().move_link(&link, other.fd().as_fd(), "t1").unwrap();
        assert_eq!(tap.health().unwrap(), Health::MovedNetns);
        tap.set_mtu(1300).unwrap();
        tap.set_admin(true).unwrap();
        let link = other.link("t1");
        assert_eq!((link.mtu, link.up), (1300, true));
        assert_eq!(names_by(container.netlink()), ["lo"]);
    });
}

#[test]
fn a_deleted_interface_is_gone_for_the_queues_and_for_health() {
    in_netns(|| {
        let container = Container::new();
        for (queues, persist) in [(1, false), (2, false), (1, true)] {
            let options = TapOptions { queues, persist, ..t0(&container) };
            let mut tap = open(&options);
            let mut taken = tap.take_queues();
            let link = container.link("t0");
            container.netlink().delete_link(&link).unwrap();
            for queue in &mut taken {
                assert_eq!(receive(queue), Received::Gone(Errno::BADFD));
                assert_eq!(send(queue), SendResult::Gone(Errno::BADFD));
            }
            assert_eq!(tap.health().unwrap(), Health::Gone(GoneReason::Deleted));
            assert!(matches!(tap.set_mtu(1400), Err(TapError::Gone { .. })));
            assert!(matches!(tap.current_name(), Err(TapError::Gone { .. })));

            // The port can be made again beside the dead one, which can then be ended.
            let again = open(&options);
            assert_eq!(again.health().unwrap(), Health::Up);
            again.destroy().unwrap();
            tap.destroy().unwrap();
        }
    });
}

#[test]
fn a_namespace_that_ends_takes_its_tap_with_it_and_is_not_held() {
    in_netns(|| {
        for (queues, offload, persist) in [(1, true, false), (3, true, true), (1, false, false)] {
            let container = Container::new();
            let named = Named::new(&container);
            let options = TapOptions {
                queues,
                offload,
                persist,
                netns: Some(named.0.parse().unwrap()),
                addresses: vec!["198.51.100.1/24".parse().unwrap()],
                ..t0(&container)
            };
            let mut tap = open(&options);
            let mut taken = tap.take_queues();
            // Everything a living port does must not hold the namespace either.
            tap.set_mtu(1400).unwrap();
            tap.set_addresses(&["203.0.113.1/24".parse().unwrap()]).unwrap();
            tap.set_admin(false).unwrap();
            assert_eq!(tap.health().unwrap(), Health::InterfaceDown);
            tap.set_admin(true).unwrap();
            assert_eq!(tap.health().unwrap(), Health::Up);

            container.end();
            drop(named);
            wait_until("gone", || matches!(tap.health().unwrap(), Health::Gone(_)));
            assert_eq!(tap.health().unwrap(), Health::Gone(GoneReason::NetnsEnded));
            assert!(matches!(tap.set_mtu(1400), Err(TapError::Gone { .. })));
            // Health knows when the namespace has no user left, the queues when it is taken down.
            for queue in &mut taken {
                wait_until("freed", || receive(queue) == Received::Gone(Errno::BADFD));
                assert_eq!(send(queue), SendResult::Gone(Errno::BADFD));
            }
            tap.destroy().unwrap();
        }
    });
}

#[test]
fn an_adopted_tap_holds_its_namespace_as_documented() {
    in_netns(|| {
        let container = Container::new();
        let options = TapOptions { persist: true, ..t0(&container) };
        drop(open(&options));
        let tap = open(&options);
        assert!(tap.is_adopted());
        container.end();
        std::thread::sleep(std::time::Duration::from_millis(300)); // the test above needs a few
        assert_eq!(tap.health().unwrap(), Health::Up);
    });
}

#[test]
fn a_namespace_is_entered_without_leaving_the_own_one() {
    in_netns(|| {
        let container = Container::new();
        let own = netns::id(netns::current().unwrap()).unwrap();
        let inside = container.run(|| netns::id(netns::current().unwrap()).unwrap());
        assert_eq!(inside, netns::id(container.fd()).unwrap());
        assert_ne!(inside, own);
        assert_eq!(netns::id(netns::current().unwrap()).unwrap(), own);
        assert!(Socket::open().unwrap().link_by_name("t0").unwrap().is_none());
    });
}
