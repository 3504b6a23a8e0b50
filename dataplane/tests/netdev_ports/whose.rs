//! Whose an interface is: the port's while it holds it, and the host's before and after.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use tapway_dataplane::{
    counters::PortCounters,
    frame::Batch,
    netlink::Socket,
    port::{
        Received,
        netdev::{Netdev, NetdevError, NetdevOptions, Turn},
    },
};

use crate::topo::{
    Container, in_netns, ip, link, no_ipv6, options, raw, receive, silent, take_over, taken, wait_until,
};

const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// A frame of a kind that nobody answers.
fn frame() -> Vec<u8> {
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb5], &[0; 46]].concat()
}

/// Who has the host's address? (RFC 826)
fn question() -> Vec<u8> {
    let peer = [2, 0, 0, 0, 0, 1];
    [
        &[0xff; 6][..],
        &peer,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &peer,
        &PEER.octets(),
        &[0; 6],
        &HOST.octets(),
        &[0; 18],
    ]
    .concat()
}

/// Whether the host answers at the far end of its interface n0.
fn answers(container: &Container) -> bool {
    let far = raw(container, false);
    far.send(&question()).unwrap();
    !silent(&far)
}

fn waits_for(netdev: &mut Netdev) -> String {
    assert!(netdev.take_over().is_empty());
    netdev.state().unwrap_err().to_string()
}

#[test]
fn the_host_is_silent_on_the_interface_until_the_port_lets_go_of_it() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        ip(&format!("address add {HOST}/24 dev n0"));
        wait_until("it is the host's", || answers(&container));
        let (mut netdev, mut queues) = taken(options("n0"));
        assert!(!answers(&container));
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        receive(&mut queues[0], &mut batch, &counters, 1);
        assert_eq!(batch.bytes(0), question(), "the port has the frame");
        netdev.let_go();
        drop(queues);
        wait_until("it is the host's again", || answers(&container));
        // No more is done when the daemon is killed: the kernel closes what is open.
        let (netdev, queues) = taken(options("n0"));
        assert!(!answers(&container));
        drop((netdev, queues));
        assert!(answers(&container));
    });
}

#[test]
fn a_flush_of_all_rules_changes_nothing() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        ip(&format!("address add {HOST}/24 dev n0"));
        let (_netdev, _queues) = taken(options("n0"));
        let Ok(flushed) = Command::new("nft").args(["flush", "ruleset"]).output() else {
            println!("skipped: no nft here");
            return;
        };
        assert!(flushed.status.success(), "{flushed:?}");
        assert!(!answers(&container));
    });
}

#[test]
fn an_interface_that_is_somebody_elses_is_refused() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (_netdev, _queues) = taken(options("n0"));
        let mut second = Netdev::new(options("n0"));
        assert!(second.take_over().is_empty());
        assert!(matches!(second.state(), Err(NetdevError::InUse { .. })), "{second:?}");
        assert_eq!(
            second.state().unwrap_err().to_string(),
            "interface n0 is in use by another port: table tapway-n0 of nftables has another owner"
        );

        let other = Container::new();
        other.plug("n1");
        ip("link add br0 type bridge");
        ip("link set n1 master br0");
        let mut of_a_bridge = Netdev::new(options("n1"));
        assert_eq!(
            waits_for(&mut of_a_bridge),
            "interface n1 belongs to br0: take it out first (ip link set n1 nomaster)"
        );
        assert!(!of_a_bridge.state().unwrap_err().may_pass());
        let mut lo = Netdev::new(options("lo"));
        assert_eq!(waits_for(&mut lo), "interface lo is not an Ethernet interface");
        ip("link set n1 nomaster");
        assert_eq!(of_a_bridge.look(), Turn::TakeOver);
        assert_eq!(of_a_bridge.take_over().len(), 1);
        // Taken into a bridge while the port has it: it is the bridge's from then on.
        ip("link set n1 master br0");
        assert_eq!(of_a_bridge.look(), Turn::LetGo);
        of_a_bridge.let_go();
    });
}

#[test]
fn a_port_waits_for_its_interface_and_takes_over_the_next_of_its_name() {
    in_netns(|| {
        let container = Container::new();
        let mut netdev = Netdev::new(options("n0"));
        assert_eq!(waits_for(&mut netdev), "there is no interface n0");
        assert!(netdev.state().unwrap_err().may_pass());
        ip("link add n7 type veth peer name other");
        assert_eq!(netdev.look(), Turn::Stay, "another one came");
        for _ in 0..2 {
            container.plug("n0");
            assert_eq!(netdev.look(), Turn::TakeOver);
            let mut queues = take_over(&mut netdev);
            netdev.state().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(netdev.ifindex(), Some(link("n0").index));
            let (mut batch, counters) = (Batch::new(), PortCounters::default());
            raw(&container, false).send(&frame()).unwrap();
            receive(&mut queues[0], &mut batch, &counters, 1);
            netdev.look();
            assert_eq!(netdev.look(), Turn::Stay);
            ip("link del n0");
            assert_eq!(netdev.look(), Turn::LetGo);
            assert_eq!(netdev.state().unwrap_err().to_string(), "there is no interface n0");
            drop(queues);
            netdev.let_go();
        }
        // Deleted and made again before anybody looked.
        container.plug("n0");
        assert_eq!(take_over(&mut netdev).len(), 1);
        ip("link del n0");
        container.plug("n0");
        assert_eq!(netdev.look(), Turn::LetGo);
        netdev.let_go();
        assert_eq!(take_over(&mut netdev).len(), 1);
        assert_eq!(netdev.ifindex(), Some(link("n0").index));
    });
}

#[test]
fn down_renamed_and_without_a_far_end_are_told_apart() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (mut netdev, queues) = taken(options("n0"));
        let turn = |netdev: &mut Netdev, because: &str| {
            let mut turn = Turn::Stay;
            wait_until(because, || {
                turn = netdev.look();
                netdev.state().err().is_some_and(|e| e.to_string() == because)
            });
            turn
        };
        ip("link set n0 down");
        assert_eq!(turn(&mut netdev, "interface n0 is down"), Turn::Stay);
        ip("link set n0 up");
        wait_until("up", || netdev.look() == Turn::Stay && netdev.state().is_ok());
        container.run(|| ip("link set eth0 down"));
        assert_eq!(turn(&mut netdev, "interface n0 has no carrier"), Turn::Stay);
        container.run(|| ip("link set eth0 up"));
        wait_until("up", || netdev.look() == Turn::Stay && netdev.state().is_ok());
        ip("link set n0 down");
        ip("link set n0 name n9");
        assert_eq!(turn(&mut netdev, "interface n0 was renamed to n9"), Turn::LetGo);
        drop(queues);
        netdev.let_go();
        ip("link set n9 name n0");
        assert_eq!(netdev.look(), Turn::TakeOver);
        assert_eq!(take_over(&mut netdev).len(), 1);
        assert!(link("n0").up, "the port sets up what it takes over");
    });
}

#[test]
fn the_interface_is_given_back_as_it_was_found() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        no_ipv6("n0");
        ip("link set n0 down mtu 1400");
        let found = link("n0");
        let (mut netdev, queues) = taken(NetdevOptions { mtu: Some(9000), ..options("n0") });
        assert_eq!((link("n0").up, link("n0").mtu, netdev.mtu()), (true, 9000, Some(9000)));
        netdev.set_mtu(Some(2000)).unwrap();
        assert_eq!((link("n0").mtu, netdev.mtu()), (2000, Some(2000)));
        assert_eq!(netdev.mac(), found.mac);
        drop(queues);
        netdev.let_go();
        assert_eq!((link("n0").up, link("n0").mtu), (false, 1400));
    });
}

#[test]
fn an_interface_in_a_container_is_let_go_of_when_the_container_ends() {
    in_netns(|| {
        let (container, peer) = (Container::new(), Container::new());
        container.run(|| peer.plug("n0"));
        let mut netdev = Netdev::new(NetdevOptions { netns: Some(container.netns()), ..options("n0") });
        let mut queues = netdev.take_over();
        netdev.state().unwrap_or_else(|e| panic!("{e}"));
        let (mut batch, counters) = (Batch::new(), PortCounters::default());
        raw(&peer, false).send(&frame()).unwrap();
        receive(&mut queues[0], &mut batch, &counters, 1);
        container.end();
        assert_eq!(netdev.look(), Turn::LetGo, "though the sockets keep the namespace alive");
        assert!(matches!(netdev.state(), Err(NetdevError::Netns { .. })), "{netdev:?}");
        assert_eq!(queues[0].recv(&mut batch, &counters), Received::Drained);
        drop(queues);
        netdev.let_go();
        assert!(netdev.take_over().is_empty());
        drop(netdev);
        // With the namespace its end of the cable goes, and with that the other end.
        wait_until("gone", || peer.run(|| Socket::open().unwrap().link_by_name("eth0").unwrap().is_none()));
    });
}

#[test]
fn what_changes_is_told_at_once() {
    in_netns(|| {
        let container = Container::new();
        container.plug("n0");
        let (mut netdev, _queues) = taken(options("n0"));
        while netdev.look() != Turn::Stay {}
        let readable = |netdev: &Netdev, timeout: Duration| {
            let fd = netdev.watched().expect("a monitor");
            let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            let timeout = timeout.try_into().unwrap();
            rustix::event::poll(&mut poll, Some(&timeout)).unwrap() > 0
        };
        // The kernel tells of the carrier when it finds the time.
        while readable(&netdev, Duration::from_millis(100)) {
            netdev.look();
        }
        ip("link del n0");
        assert!(readable(&netdev, Duration::from_secs(5)));
        assert_eq!(netdev.look(), Turn::LetGo);
    });
}
