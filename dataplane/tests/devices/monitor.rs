//! What others do to devices is told without asking.

use std::{
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use tapway_dataplane::netlink::{Event, Monitor, Socket};

use crate::topo::{Container, in_netns, ip};

#[test]
fn each_change_of_a_device_is_told_once_somebody_polls() {
    in_netns(|| {
        let c1 = Container::new();
        let mut monitor = Monitor::open_in(c1.fd().as_fd()).unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut SourceFd(&monitor.as_raw_fd()), Token(0), Interest::READABLE).unwrap();
        let mut told = |what: &str| {
            let mut events = Events::with_capacity(1);
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "10 s later: nothing about {what}");
            monitor.read().unwrap()
        };
        // Elsewhere is not here.
        ip("link add br9 type bridge");
        c1.ip("link add br0 type bridge");
        let events = told("a new device");
        let index = c1.run(|| Socket::open().unwrap().link_by_name("br0").unwrap().unwrap().index);
        let link = Event::Link { index, name: "br0".into() };
        assert_eq!(events, std::slice::from_ref(&link));
        c1.ip("link set br0 mtu 1400");
        assert_eq!(told("its MTU"), [link]);
        c1.ip("address add 198.51.100.1/24 dev br0");
        assert!(told("its address").contains(&Event::Address { index }));
        c1.ip("link set br0 up");
        c1.ip("route add 203.0.113.0/24 dev br0");
        assert!(told("its route").contains(&Event::Route { index }));
        c1.ip("link set br0 down");
        c1.ip("link set br0 name br1");
        c1.ip("link del br1");
        assert!(told("its end").contains(&Event::LinkGone { index, name: "br1".into() }));
        assert_eq!(monitor.read().unwrap(), []);
    });
}

#[test]
fn what_was_too_much_to_keep_is_said_to_be_lost() {
    in_netns(|| {
        let mut monitor = Monitor::open().unwrap();
        let batch = "link set lo mtu 60000\nlink set lo mtu 60001\n".repeat(3000);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        let events = monitor.read().unwrap();
        assert!(events.contains(&Event::Lost), "{events:?}");
        assert_eq!(monitor.read().unwrap(), []);
    });
}
