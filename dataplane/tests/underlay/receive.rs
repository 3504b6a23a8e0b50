//! What a receiving socket gets, and what it does not.

use std::{net::SocketAddr, thread, time::Duration};

use super::topo::*;
use tapway_dataplane::port::underlay::{Group, RxOptions, TxSetOptions, UdpRx, UnderlayRx, path_mtu};

const GROUP4: &str = "239.1.1.1";
const GROUP6: &str = "ff15::1:1";

#[test]
fn a_datagram_without_checksum_over_ipv6_is_taken_by_whom_it_is_allowed_alone() {
    let Some((a, b)) = hosts() else { return };
    let tx = a.tx(&TxSetOptions { checksum: false, ..tx_options(A6) });
    for (port, zero_checksum) in [(PORT, false), (PORT + 1, true)] {
        let at = SocketAddr::new(ip(B6), port);
        let options = RxOptions { local: at, zero_checksum, exclusive: true };
        let mut rx = UnderlayRx::Socket(b.run(|| UdpRx::open(&options, 1)).unwrap().remove(0));
        assert_sent(&send(&tx, &[(to(at, 1), payload(1, 200))]), 1);
        if zero_checksum {
            assert_same(&datagrams(&receive(&mut rx, 200)), &[payload(1, 200)]);
        } else {
            // RFC 8200 §8.1: "IPv6 receivers must discard UDP packets containing a zero checksum".
            assert_silent(&mut rx);
        }
    }
}

#[test]
fn the_flows_of_the_underlay_are_spread_over_the_sockets_of_the_workers() {
    let Some((a, b)) = hosts() else { return };
    let tx = a.tx(&tx_options(A4));
    let options = RxOptions { local: vtep(B4), zero_checksum: false, exclusive: true };
    let mut workers: Vec<_> =
        b.run(|| UdpRx::open(&options, 2)).unwrap().into_iter().map(UnderlayRx::Socket).collect();
    for flow in 0..16 {
        assert_sent(&send(&tx, &vec![(to(vtep(B4), flow), vec![flow as u8; 100]); 3]), 1);
    }
    thread::sleep(Duration::from_millis(50));
    let of_workers: Vec<_> = workers.iter_mut().map(|rx| datagrams(&drain(rx))).collect();
    assert_eq!(of_workers.iter().map(Vec::len).sum::<usize>(), 3 * 16);
    for datagrams in &of_workers {
        assert!(!datagrams.is_empty());
        for flow in 0..16 {
            let count = datagrams.iter().filter(|d| d[0] == flow).count();
            assert!([0, 3].contains(&count), "a flow is in one place");
        }
    }
}

#[test]
fn what_nobody_fetched_in_time_is_counted() {
    let Some((a, b)) = hosts() else { return };
    let (tx, mut rx) = (a.tx(&tx_options(A4)), b.rx(vtep(B4)));
    let message: Vec<_> = (0..45).map(|n| (to(vtep(B4), 1), payload(n, 1400))).collect();
    let messages = 600;
    for _ in 0..messages {
        assert_sent(&send(&tx, &message), 1);
    }
    let kept = drain(&mut rx).len();
    assert!((1..messages).contains(&kept));
    assert_eq!(rx.overflowed(), (messages - kept) as u64);
    assert_eq!(rx.overflowed(), 0, "each is told of once");
    assert_sent(&send(&tx, &message), 1);
    receive(&mut rx, 45 * 1400);
    assert_eq!(rx.overflowed(), 0, "and none has been lost since");
}

#[test]
fn a_group_is_heard_by_whom_it_joined_on_the_device_it_joined_on() {
    let Some((a, b)) = hosts() else { return };
    // A second cable, by which the group must be neither sent nor heard.
    a.cable("eth1", &b, "eth1");
    a.address("eth1", "203.0.113.1/24");
    b.address("eth1", "203.0.113.2/24");
    for (local, remote, group, other) in [(A4, B4, GROUP4, "239.1.1.2"), (A6, B6, GROUP6, "ff15::1:2")] {
        let device = a.index("eth0");
        let tx = a.tx(&TxSetOptions { multicast: Some(device), ..tx_options(local) });
        let join = |host: &Host, local: &str, ifname: &str| {
            let options = RxOptions { local: vtep(local), zero_checksum: false, exclusive: false };
            let group = Group { address: ip(group), device: host.index(ifname) };
            UnderlayRx::Socket(host.run(|| UdpRx::join(&options, group)).unwrap())
        };
        let (mut own, mut unicast) = (join(&a, local, "eth0"), b.rx(vtep(remote)));
        let (mut elsewhere, mut rx) = (join(&b, remote, "eth1"), join(&b, remote, "eth0"));
        // The kernel hears a group some time after the program joined it: the report and the filter of the device.
        thread::sleep(Duration::from_millis(20));
        assert_sent(&send(&tx, &[(to(vtep(other), 1), payload(2, 200))]), 1);
        assert_sent(&send(&tx, &[(to(vtep(group), 1), payload(1, 200))]), 1);
        assert_same(&datagrams(&receive(&mut rx, 200)), &[payload(1, 200)]);
        assert_silent(&mut rx);
        assert_silent(&mut elsewhere);
        assert_silent(&mut unicast);
        assert_silent(&mut own);
        let mtu = a.run(|| path_mtu(ip(local), vtep(group), Some(device))).unwrap();
        assert_eq!(mtu, 1500);
    }
}

#[test]
fn a_socket_that_sends_keeps_nothing_that_is_sent_to_it() {
    let Some((a, b)) = hosts() else { return };
    let tx = a.tx(&tx_options(A4));
    let port = *SOURCE_PORTS.start();
    let back = b.tx(&tx_options(B4));
    assert_sent(&send(&back, &[(to(SocketAddr::new(ip(A4), port), 1), payload(1, 200))]), 1);
    let line = format!(":{port:04X} ");
    let udp = a.proc_net("udp");
    let socket = udp.lines().find(|l| l.contains(&line)).unwrap_or_else(|| panic!("{udp}"));
    let words: Vec<_> = socket.split_whitespace().collect();
    assert_eq!(words[4], "00000000:00000000", "tx_queue:rx_queue of {socket}");
    drop(tx);
}
